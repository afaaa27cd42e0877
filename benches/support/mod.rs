//! What the benchmarks share: private servers, clocks, the floor, the table.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod clock;
pub(crate) mod floor;
pub(crate) mod report;
#[path = "../../tests/it/support/server.rs"]
pub(crate) mod server;

/// Whether `cargo bench` runs this. `cargo test --all-targets` runs it too, without the flag: then it is to show
/// quickly that it works, and to measure nothing.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}
