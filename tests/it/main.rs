//! The integration tests: one binary, against real servers that each test starts for itself.

mod support;

mod checker;
mod cluster_mode;
mod faults;
mod fences;
mod hostile;
mod house;
mod leaks;
mod old_interface;
mod outages;
mod placement;
mod proxy;
mod releasing;
mod replicas;
mod rights;
mod serve;
mod takeover;
mod watching;
mod worker;
