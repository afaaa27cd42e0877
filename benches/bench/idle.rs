//! `idle`: what 100 workers that have nothing to do cost the server, at the default time to live: its processor time, by the
//! system's count, and commands a second. Held against an empty server at the same time.
//!
//! Each worker has connections of its own, as if it were a process.

use std::time::{Duration, Instant};

use crate::children::{Child, Duty};
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::{Connection, RedisServer};

pub(crate) fn run(report: &mut Report) {
    let workers = report.scale.of(5, 100, 100);
    let span = Duration::from_millis(report.scale.of(200, 2_000, 5_000));
    let spans = report.scale.of(1, 2, 12);
    let (server, empty) = (RedisServer::start(), RedisServer::start());
    report.note_server(&server);
    report.say(&format!("idle: {workers} workers join"));
    let url = server.url();
    let duty = Duty { url: &url, cluster: "bench", ttl: None, events: true, workers, jobs: usize::MAX };
    let _child = Child::workers(duty);
    std::thread::sleep(Duration::from_millis(report.scale.of(10, 1_000, 5_000)));
    report.say(&format!("idle: {spans} x {span:?}"));
    let (mut idle, mut nothing) = (server.connect(), empty.connect());
    let mut parts = [Samples::default(), Samples::default(), Samples::default()];
    for _ in 0..spans {
        let (begin, before) = (Instant::now(), [seconds(&mut idle), seconds(&mut nothing)]);
        let commands = processed(&mut idle);
        std::thread::sleep(span);
        let commands = processed(&mut idle) - commands;
        let after = [seconds(&mut idle), seconds(&mut nothing)];
        let elapsed = begin.elapsed().as_secs_f64();
        let parts_of = [after[0] - before[0], after[1] - before[1]].map(|spent| spent / elapsed * 100.0);
        parts[0].record(parts_of[0] - parts_of[1]);
        parts[1].record(parts_of[1]);
        parts[2].record(commands / elapsed);
    }
    let [ours, empty, commands] = parts;
    report.push(
        Row::cost("idle", format!("{workers} workers, above the empty server"), "% of a core", &ours)
            .against("the empty server", &empty, None)
            .wanted("% of a core", ours.p50(), Goal::AtMost(0.1)),
    );
    report.push(Row::cost("idle", format!("{workers} workers, commands"), "a second", &commands));
}

/// The processor time of the server so far, by the system's count.
fn seconds(connection: &mut Connection) -> f64 {
    let info = connection.command(&["INFO", "cpu"]).text();
    let field = |name: &str| -> f64 {
        let text = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        text.and_then(|text| text.trim().parse().ok()).expect("a number")
    };
    field("used_cpu_sys") + field("used_cpu_user")
}

/// How many commands it has run so far; those inside of scripts count too.
fn processed(connection: &mut Connection) -> f64 {
    let info = connection.command(&["INFO", "commandstats"]).text();
    let calls = info
        .lines()
        .filter(|line| ["cmdstat_evalsha:", "cmdstat_ping:"].iter().any(|name| line.starts_with(name)));
    let calls = calls.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<f64>().ok());
    calls.sum()
}
