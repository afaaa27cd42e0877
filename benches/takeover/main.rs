//! How long a takeover takes: from the end of a dead worker's lock to the first and to the last `Add` that the consumer
//! in the next owner's process gets out of its stream.
//!
//! `cargo bench --bench takeover -- [JOBS...] [--rounds N] [--ttl MS] [--no-master]`
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
//! wait for and is theirs to choose, is not in the figures. The floor is measured between the kill and the end
//! of the lock.

mod children;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use children::Child;
use support::clock::at_server_time;
use support::floor::Floor;
use support::report::{Report, Times, machine, product, progress};
use support::server::RedisServer;

/// What a killed process had sent has been read by the server after this.
const ECHO: Duration = Duration::from_millis(50);

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
struct Setting {
    jobs: usize,
    ttl: Duration,
    /// Whether the server announces the end of locks.
    events: bool,
    /// Whether a master is up, which then takes part in takeovers.
    master: bool,
    rounds: u64,
}

#[derive(Debug)]
struct Measured {
    takeover: [Times; 2],
    floor: [Times; 2],
    /// How far the end of a lock may be off, at worst.
    blur: i64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [role @ ("worker" | "master"), url, jobs, ttl, events] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let ttl = Duration::from_millis(number(ttl));
            let jobs = usize::try_from(number(jobs)).expect("a count");
            children::run(
                role,
                url,
                Setting { jobs, ttl, events: events == "events", master: true, rounds: 0 },
            );
        }
        _ if support::is_bench() => bench(&settings(&args)),
        _ => bench(&[Setting {
            jobs: 20,
            ttl: Duration::from_secs(1),
            events: false,
            master: true,
            rounds: 1,
        }]),
    }
}

/// From the command line; unknown words end it, so that no figure is for something else than was asked for.
fn settings(args: &[String]) -> Vec<Setting> {
    let (mut counts, mut rounds, mut ttl, mut master) = (Vec::new(), None, 500, true);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|number| number.parse::<u64>().ok()).expect("a number follows");
        match arg.as_str() {
            "--bench" => {}
            "--rounds" => rounds = Some(number()),
            "--ttl" => ttl = number(),
            "--no-master" => master = false,
            count => counts.push(count.parse::<usize>().expect("JOBS... --rounds N --ttl MS --no-master")),
        }
    }
    if counts.is_empty() {
        counts = vec![1, 5_000];
    }
    let setting = |jobs, events| Setting {
        jobs,
        ttl: Duration::from_millis(ttl),
        events,
        master,
        rounds: rounds.unwrap_or(if jobs < 1_000 { 30 } else { 10 }),
    };
    counts.iter().flat_map(|jobs| [setting(*jobs, true), setting(*jobs, false)]).collect()
}

fn bench(settings: &[Setting]) {
    let before = machine();
    let bar = progress(settings.iter().map(|setting| setting.rounds).sum());
    let mut report = Report::new(&["", "jobs", "rounds"], &["first Add", "last Add"]);
    let (mut blur, mut server) = (0, String::new());
    for setting in settings {
        let measured = measure(setting, &bar, &mut server);
        let (jobs, rounds) = (setting.jobs.to_string(), setting.rounds.to_string());
        let what =
            if setting.events { "takeover, keyspace events on" } else { "takeover, keyspace events off" };
        let [first, last] = &measured.takeover;
        report.row(&[what, &jobs, &rounds], &[first, last]);
        let [first, last] = &measured.floor;
        report.row(&["  floor: raw PUBLISH -> SUBSCRIBE", &jobs, &rounds], &[first, last]);
        blur = blur.max(measured.blur);
    }
    bar.finish_and_clear();
    let Setting { ttl, master, .. } = settings[0];
    let reaper = if master { "a master is up" } else { "no master is up" };
    println!("{server}, unix socket, lock_ttl {ttl:?}, {reaper}, {before} (then: {})", machine());
    println!(
        "milliseconds (of fewer than 100 rounds p99 is the largest); takeovers from the end of the dead worker's lock, which is known to within {blur} us"
    );
    report.print();
}

fn measure(setting: &Setting, bar: &ProgressBar, product_name: &mut String) -> Measured {
    let Setting { jobs, ttl, events, master, rounds } = *setting;
    bar.set_message(format!("{jobs} jobs, keyspace events {}", if events { "on" } else { "off" }));
    let server = RedisServer::start();
    *product_name = product(&server);
    let url = server.unix_url();
    let mut floor = Floor::new(&server);
    let (mut owner, mut number) = Child::worker(&url, setting);
    let mut presiding = Child::master(&url, setting);
    owner.holds_all();
    if !master {
        presiding.kill();
    }
    let mut measured =
        Measured { takeover: [Times::new(), Times::new()], floor: [Times::new(), Times::new()], blur: 0 };
    for round in 0..rounds {
        let (heir, heir_number) = Child::worker(&url, setting);
        // Evenly spread over the time between two heartbeats, in no order: the golden ratio's multiples.
        std::thread::sleep((ttl / 3).mul_f64((round as f64 * 0.618_034).fract()));
        owner.kill();
        let killed = Instant::now();
        let passage = floor.measure(jobs);
        std::thread::sleep(ECHO.saturating_sub(killed.elapsed()));
        let mut connection = server.connect();
        let deadline = connection.command(&["ZSCORE", "{assemblage:bench}:deadlines", &number]).int();
        let (end, blur) = at_server_time(&mut connection, deadline * 1_000);
        let adds = heir.holds_all();
        assert!(adds.first >= end - blur, "an Add {} us before the lock's end", end - adds.first);
        measured.takeover[0].record(adds.first - end);
        measured.takeover[1].record(adds.last - end);
        measured.floor[0].record(passage.first);
        measured.floor[1].record(passage.last);
        measured.blur = measured.blur.max(blur);
        (owner, number) = (heir, heir_number);
        bar.inc(1);
    }
    let flags = server.command(&["CONFIG", "GET", "notify-keyspace-events"]);
    assert_eq!(!flags.list()[1].text().is_empty(), events, "events are as was asked for");
    measured
}
