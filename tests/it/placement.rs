//! Who holds what, and how it moves: capacity, weight, rebalancing, drains, names, quarantine, rates, limits.

mod drains;
mod names;
mod poison;
mod shares;
mod updates;
