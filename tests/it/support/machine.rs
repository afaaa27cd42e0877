//! The machine's clock, and what a process has of its memory. In one place for all tests, benchmarks and examples, as
//! `server.rs` is.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The machine's monotonic clock, the same in all processes, in microseconds.
pub(crate) fn monotonic_us() -> u64 {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    u64::try_from(time.as_micros()).expect("this century")
}

/// What a process has in memory, in bytes; `None` where the system does not say so as Linux does.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}
