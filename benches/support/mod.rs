//! What the benchmarks share: private servers, clocks, the floors, the figures and where they are written.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod clock;
pub(crate) mod floor;
#[path = "../../tests/it/support/machine.rs"]
pub(crate) mod machine;
pub(crate) mod participant;
pub(crate) mod raw;
pub(crate) mod report;
pub(crate) mod samples;
#[path = "../../tests/it/support/server.rs"]
pub(crate) mod server;

/// Whether `cargo bench` runs this. `cargo test --all-targets` runs it too, without the flag: then it is to show
/// quickly that it works, and to measure nothing.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Shows that it works; the figures mean nothing.
    Smoke,
    /// All rows within a minute.
    Quick,
    Full,
}

impl Scale {
    /// From the command line.
    pub(crate) fn asked_for() -> Self {
        match is_bench() {
            false => Self::Smoke,
            true if std::env::args().any(|arg| arg == "--quick") => Self::Quick,
            true => Self::Full,
        }
    }

    pub(crate) fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}
