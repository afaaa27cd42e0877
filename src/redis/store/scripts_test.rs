//! The scripts against a real server: after each call the whole keyspace is compared, and what was published.

mod bench;
mod jobs;
mod takeover;
