//! The integration tests: one binary, against real servers that each test starts for itself.

mod support;

mod faults;
mod house;
mod old_interface;
mod releasing;
mod serve;
mod takeover;
mod worker;
