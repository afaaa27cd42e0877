//! The scripts, through the store, against real servers: what each leaves in the keyspace and what it publishes.

mod bench;
mod capacity;
mod headers;
mod hostile;
mod inquiry;
mod jobs;
mod members;
mod names;
mod orders;
mod paging;
mod placement;
mod protocol;
mod quarantine;
mod rebalance;
mod rights;
mod takeover;
mod trouble;
mod updates;
mod watching;
