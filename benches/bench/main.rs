//! The figures: what everything costs, each against a floor of plain sockets that is measured in turn with it.
//!
//! `cargo bench --bench bench -- [ROW...] [--quick]`, or `make bench ROWS="takeover pause"`; `make bench-quick` for all within a
//! minute. What is measured, and how, is said at the top of each row's module.
//!
//! Absolute figures hold for one machine and one hour. Ratios hold longer: each is that of two medians that were taken in
//! turn. The client's allocations are in `--bench client_cost`, which counts them in an allocator of its own.

mod add_throughput;
mod children;
mod fan_out;
mod growth;
mod idle;
mod job_fan_out;
mod latency;
mod pause;
mod server_cost;
#[path = "../support/mod.rs"]
mod support;
mod takeover;

use support::Scale;
use support::report::Report;

type Measure = fn(&mut Report);

/// By the names that the rows are asked for.
const ROWS: &[(&str, Measure)] = &[
    ("add_to_event", latency::run),
    ("add_throughput", add_throughput::run),
    ("takeover", takeover::run),
    ("fan_out", fan_out::run),
    ("job_fan_out", job_fan_out::run),
    ("growth", growth::run),
    ("server_cost", server_cost::run),
    ("idle", idle::run),
    ("pause", pause::run),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, ..] = args.as_slice()
        && role == "child"
    {
        return children::run(&args[1..]);
    }
    let asked: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    for name in &asked {
        let names: Vec<&str> = ROWS.iter().map(|(row, _)| *row).collect();
        assert!(names.contains(&name.as_str()), "no row {name}; there are {names:?}");
    }
    let rows = ROWS.iter().filter(|(row, _)| asked.is_empty() || asked.iter().any(|name| name == row));
    let rows: Vec<_> = rows.collect();
    let mut report = Report::new(Scale::asked_for(), rows.len());
    for (name, measure) in rows {
        report.step(name);
        measure(&mut report);
    }
    report.finish();
}
