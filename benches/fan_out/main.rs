//! How long one change takes to the last of many watchers, and how many changes they are told in a second, all in all.
//!
//! `cargo bench --bench fan_out -- [WATCHERS...] [--rounds N]`
//!
//! ```text
//! watch             master.update() ---> script, SPUBLISH ---> N x Watch, each with a connection of its own
//! same, bare        master.update() ---> script, SPUBLISH ---> N plain sockets
//! floor             a plain socket  ---> SPUBLISH         ---> N plain sockets
//! ```
//!
//! All three on one private server and in this process, which has a task for each watcher and each socket, and by turns in
//! each round. The floor's message is as long as the change's. The plain sockets count bytes and look at nothing. What the
//! second has above the floor is the price of an update, which a watcher does not add to.
//!
//! A rate is that of many changes at once: what all of them were told, by the time from the first call to the last arrival.

mod gate;
mod sockets;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use assemblage::{AddOptions, Change, ChangeKind, Cluster, JobId, Master, Watch};
use futures::{StreamExt, TryStreamExt, stream};

use gate::Gate;
use sockets::{Publisher, Sockets};
use support::clock::monotonic_us;
use support::report::{Report, Times, machine, product, progress};
use support::server::RedisServer;

/// How many calls are out at once when a rate is measured.
const CALLS: usize = 64;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
struct Setting {
    watchers: usize,
    rounds: u64,
    /// How often a rate is measured, and with how many changes.
    rates: usize,
    changes: usize,
}

/// One of the three.
struct Lane {
    name: &'static str,
    times: Times,
    all: Vec<i64>,
    /// What was told in a second, each time.
    rates: Vec<f64>,
}

impl Lane {
    fn new(name: &'static str) -> Self {
        Self { name, times: Times::new(), all: Vec::new(), rates: Vec::new() }
    }

    fn record(&mut self, us: i64) {
        self.times.record(us);
        self.all.push(us);
    }

    fn median(&mut self) -> f64 {
        self.all.sort_unstable();
        self.all[self.all.len() / 2] as f64
    }

    fn rate(&mut self) -> f64 {
        self.rates.sort_unstable_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}

#[tokio::main]
async fn main() {
    if support::is_bench() {
        bench(&settings()).await;
    } else {
        bench(&[Setting { watchers: 3, rounds: 3, rates: 1, changes: 20 }]).await;
    }
}

/// From the command line; unknown words end it, so that no figure is for something else than was asked for.
fn settings() -> Vec<Setting> {
    let (mut counts, mut rounds) = (Vec::new(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--rounds" => rounds = args.next().and_then(|number| number.parse().ok()),
            count => counts.push(count.parse::<usize>().expect("WATCHERS... --rounds N")),
        }
    }
    if counts.is_empty() {
        counts = vec![1, 10, 100, 1_000];
    }
    let setting = |watchers: usize| Setting {
        watchers,
        rounds: rounds.unwrap_or(if watchers < 1_000 { 300 } else { 100 }),
        rates: 5,
        changes: (50_000 / watchers).clamp(100, 5_000),
    };
    counts.into_iter().map(setting).collect()
}

async fn bench(settings: &[Setting]) {
    let before = machine();
    let bar = progress(settings.iter().map(|setting| setting.rounds).sum());
    let labels = ["", "watchers", "rounds", "told in 1 s", "of the floor"];
    let mut report = Report::new(&labels, &["to the last"]);
    let mut name = String::new();
    for setting in settings {
        bar.set_message(format!("{} watchers", setting.watchers));
        let server = RedisServer::start();
        name = product(&server);
        let mut lanes = measure(&server, setting, &bar).await;
        let floors = (lanes[2].median(), lanes[2].rate());
        for lane in &mut lanes {
            let (median, rate) = (lane.median(), lane.rate());
            let ratio = format!("{:.2} x time, {:.2} x rate", median / floors.0, rate / floors.1);
            let numbers = [setting.watchers.to_string(), setting.rounds.to_string(), format!("{rate:.0}")];
            report.row(&[lane.name, &numbers[0], &numbers[1], &numbers[2], &ratio], &[&lane.times]);
        }
    }
    bar.finish_and_clear();
    println!("{name}, unix socket, {before} (then: {})", machine());
    println!(
        "milliseconds from the call to the last (of fewer than 100 rounds p99 is the largest); medians compared"
    );
    report.print();
}

async fn measure(server: &RedisServer, setting: &Setting, bar: &indicatif::ProgressBar) -> [Lane; 3] {
    let Setting { watchers, rounds, rates, changes } = *setting;
    let gate = Arc::new(Gate::default());
    let job = JobId::new("user@example.com/INBOX").expect("a plain id");

    let watched = master(server, "watched", &job).await;
    let watches = (0..watchers).map(|_| watch(&watched.0));
    let watches: Vec<Watch> =
        stream::iter(watches).buffer_unordered(16).try_collect().await.expect("they watch");
    for watch in watches {
        tokio::spawn(listen(watch, gate.clone()));
    }
    // In a cluster of its own, which tells of its changes because somebody has watched it a moment ago.
    let bare = master(server, "bare", &job).await;
    drop(watch(&bare.0).await.expect("it watches"));
    let mut ear = server.connect();
    ear.command(&["SSUBSCRIBE", "{assemblage:bare}:changes"]);
    bare.1.update(&job, &"payload").await.expect("updated");
    let length = sockets::length_of(&ear.read());
    Sockets::start(server, watchers, "{assemblage:bare}:changes", length, &gate).await;
    Sockets::start(server, watchers, "floor", length, &gate).await;
    let mut publisher = Publisher::new(server, "floor", length).await;

    let mut lanes =
        [Lane::new("watch"), Lane::new("  same, bare sockets"), Lane::new("  floor: raw SPUBLISH")];
    for _ in 0..rounds {
        for (lane, master) in [&watched.1, &bare.1].into_iter().enumerate() {
            gate.expect(watchers);
            let start = monotonic_us();
            master.update(&job, &"payload").await.expect("updated");
            lanes[lane].record(gate.last().await - start);
        }
        gate.expect(watchers);
        let start = monotonic_us();
        publisher.publish(1).await;
        lanes[2].record(gate.last().await - start);
        bar.inc(1);
    }
    for _ in 0..rates {
        let told = (watchers * changes) as f64 * 1e6;
        for (lane, master) in [&watched.1, &bare.1].into_iter().enumerate() {
            gate.expect(watchers * changes);
            let start = monotonic_us();
            let updates = stream::iter(0..changes).map(|_| master.update(&job, &"payload"));
            let _: Vec<_> = updates.buffer_unordered(CALLS).try_collect().await.expect("updated");
            lanes[lane].rates.push(told / (gate.last().await - start) as f64);
        }
        gate.expect(watchers * changes);
        let start = monotonic_us();
        publisher.publish(changes).await;
        lanes[2].rates.push(told / (gate.last().await - start) as f64);
    }
    lanes
}

/// A cluster with a job.
async fn master(server: &RedisServer, name: &str, job: &JobId) -> (Cluster, Master) {
    let cluster = Cluster::builder(name).connect_url(server.unix_url()).await.expect("connects");
    let master = cluster.master().await.expect("a master");
    let added = master.add_with(&"payload", AddOptions::default().id(job.clone())).await.expect("added");
    assert!(added.is_new());
    (cluster, master)
}

/// A watcher that knows what there is.
async fn watch(cluster: &Cluster) -> assemblage::Result<Watch> {
    let mut watch = cluster.watch().await?;
    while let Some(change) = watch.next().await {
        if let Change::Synced { .. } = change {
            break;
        }
    }
    Ok(watch)
}

async fn listen(mut watch: Watch, gate: Arc<Gate>) {
    while let Some(change) = watch.next().await {
        assert_eq!(change.kind(), ChangeKind::JobUpdated, "nothing is told anew");
        gate.pass(1);
    }
}
