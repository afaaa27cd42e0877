//! The scripts, through the store, against real servers: what each leaves in the keyspace and what it publishes.

mod bench;
mod headers;
mod inquiry;
mod jobs;
mod members;
mod paging;
mod protocol;
mod takeover;
mod trouble;
