//! `takeover`: from the end of a dead worker's lock to the first and to the last `Add` that the consumer in the next
//! owner's process gets out of its stream.
//!
//! ```text
//! owner   -- heartbeat -- SIGKILL               deadline in {p}:deadlines, by the server's clock
//!                                                   |<---- first ---->|
//!                                                   |<--------------- last ---------------->|
//! heir    -- joins, holds nothing ------------------+-----------------Add Add Add ... Add Add
//! ```
//!
//! Real processes on a private server of the run's own. The heir of one round is the owner of the next, and is killed at
//! another point between two heartbeats each time. What comes before the end of the lock, which is most of what people
//! wait for and is theirs to choose, is not in the figures. With the server's notifications and without, and with 200,000
//! keys of somebody else's that expire some time, which make the server's own announcement come late. The floor (as
//! many PUBLISH) is measured between the kill and the end of the lock.

use std::time::{Duration, Instant};

use crate::children::{Child, Duty};
use crate::support::clock::at_server_time;
use crate::support::floor::{self, Floor};
use crate::support::raw::Raw;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::{RedisServer, encode};

/// What a killed process had sent has been read by the server after this.
const ECHO: Duration = Duration::from_millis(50);

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
struct Setting {
    jobs: usize,
    ttl: Duration,
    /// Whether the server announces the end of locks.
    events: bool,
    /// How many keys of others expire some time.
    foreign: usize,
    rounds: usize,
}

#[derive(Default)]
struct Measured {
    takeover: [Samples; 2],
    floor: [Samples; 2],
}

pub(crate) fn run(report: &mut Report) {
    let foreign = report.scale.of(100, 20_000, 200_000);
    let counts: &[usize] = report.scale.of(&[20], &[1, 10_000], &[1, 1_000, 5_000, 10_000]);
    for jobs in counts.iter().copied() {
        let rounds = report.scale.of(1, if jobs == 1 { 4 } else { 3 }, if jobs == 1 { 100 } else { 20 });
        // A shared machine may stall for some of it, and who is fenced then is not measured.
        let ttl = Duration::from_millis(if jobs < 1_000 { 500 } else { 1_500 });
        let all = [(true, 0), (false, 0), (true, foreign), (false, foreign)];
        let some = if jobs == 1 { [(true, 0), (false, foreign)] } else { [(false, 0), (true, foreign)] };
        for (events, foreign) in report.scale.of(&some[..1], &some[..], &all[..]).iter().copied() {
            measure_one(report, &Setting { jobs, ttl, events, foreign, rounds });
        }
    }
}

fn measure_one(report: &mut Report, setting: &Setting) {
    let Setting { jobs, events, foreign, .. } = *setting;
    let (events, plural) = (if events { "on" } else { "off" }, if jobs == 1 { "" } else { "s" });
    let case = format!("{jobs} job{plural}, events {events}, {foreign} foreign TTL keys");
    report.say(&format!("takeover: {case}"));
    let Measured { takeover: [first, last], floor: [floor_first, floor_last] } = measure(report, setting);
    report.push(
        Row::cost("takeover", format!("first Add, {case}"), "us", &first)
            .against("raw PUBLISH, the first", &floor_first, None)
            .wanted("p99 in us", first.p99(), Goal::AtMost(5_000.0)),
    );
    if jobs > 1 {
        let row = Row::cost("takeover", format!("last Add, {case}"), "us", &last);
        let row = row.against("raw PUBLISH, the last of as many", &floor_last, None);
        report.push(match jobs {
            5_000 => row.wanted("p99 in us", last.p99(), Goal::AtMost(150_000.0)),
            10_000 => row.wanted("p50 in us", last.p50(), Goal::AtMost(100_000.0)),
            _ => row,
        });
    }
}

fn measure(report: &mut Report, setting: &Setting) -> Measured {
    let Setting { jobs, ttl, events, foreign, rounds } = *setting;
    let server = RedisServer::start();
    report.note_server(&server);
    if foreign > 0 {
        let keys = (0..foreign).map(|number| {
            let (key, seconds) = (format!("foreign:{number}"), (3_600 + number % 3_600).to_string());
            encode(&[b"SETEX", key.as_bytes(), seconds.as_bytes(), b"x"])
        });
        Raw::connect(&server).pump(&keys.collect::<Vec<_>>(), 1_000);
    }
    let url = server.url();
    let duty = Duty { url: &url, cluster: "bench", ttl: Some(ttl), events, workers: 1, jobs };
    let mut floor = Floor::new(&server);
    let (mut owner, mut number) = Child::workers(duty);
    let _master = Child::master(duty);
    owner.report("holds");
    let mut measured = Measured::default();
    for round in 0..rounds {
        let (heir, heir_number) = Child::workers(duty);
        // Evenly spread over the time between two heartbeats, in no order: the golden ratio's multiples.
        std::thread::sleep((ttl / 3).mul_f64((round as f64 * 0.618_034).fract()));
        owner.kill();
        let killed = Instant::now();
        let passage = floor.measure(&floor::publish("floor"), jobs);
        std::thread::sleep(ECHO.saturating_sub(killed.elapsed()));
        let mut connection = server.connect();
        let deadline =
            connection.command(&["ZSCORE", "{assemblage:bench}:deadlines", &number[0].to_string()]);
        let (end, blur) = at_server_time(&mut connection, deadline.int() * 1_000);
        let adds = heir.numbers("holds");
        assert!(adds[0] >= end - blur, "an Add {} us before the lock's end", end - adds[0]);
        measured.takeover[0].record_us(adds[0] - end);
        measured.takeover[1].record_us(adds[1] - end);
        measured.floor[0].record_us(passage.first);
        measured.floor[1].record_us(passage.last);
        (owner, number) = (heir, heir_number);
    }
    let flags = server.command(&["CONFIG", "GET", "notify-keyspace-events"]);
    assert_eq!(!flags.list()[1].text().is_empty(), events, "events are as was asked for");
    measured
}
