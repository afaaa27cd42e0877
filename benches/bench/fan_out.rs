//! `fan_out`: how long one change takes to the last of 1, 10, 100 and 1,000 watchers, and how many changes they are told in a
//! second, all in all.
//!
//! ```text
//! watch             master.update() ---> script, SPUBLISH ---> N x Watch, each with a connection of its own
//! same, bare        master.update() ---> script, SPUBLISH ---> N plain sockets
//! floor             a plain socket  ---> SPUBLISH         ---> N plain sockets
//! ```
//!
//! All three on one server and in this process, which has a task for each watcher and each socket, and in turn. The floor's
//! message is as long as the change's. The plain sockets count bytes and look at nothing. What the second has above the
//! floor is the price of an update, which a watcher does not add to.
//!
//! A rate is that of many changes at once: what all of them were told, by the time from the first call to the last arrival.

mod gate;
mod sockets;

use std::sync::Arc;

use assemblage::{AddOptions, Change, ChangeKind, Cluster, JobId, Master, Watch};
use futures::{StreamExt, TryStreamExt, stream};

use crate::support::clock::monotonic_us;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::RedisServer;
use gate::Gate;
use sockets::{Publisher, Sockets};

/// How many calls are out at once when a rate is measured.
const CALLS: usize = 64;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
struct Setting {
    watchers: usize,
    rounds: usize,
    /// How often a rate is measured, and with how many changes.
    rates: usize,
    changes: usize,
}

/// One of the three.
#[derive(Default)]
struct Lane {
    to_the_last: Samples,
    told: Samples,
}

pub(crate) fn run(report: &mut Report) {
    let counts: &[usize] = report.scale.of(&[3], &[1, 100, 1_000], &[1, 10, 100, 1_000]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for watchers in counts.iter().copied() {
        report.say(&format!("fan_out: {watchers} watchers"));
        let rounds = if watchers < 1_000 { (3, 100, 1_000) } else { (3, 30, 200) };
        let setting = Setting {
            watchers,
            rounds: report.scale.of(rounds.0, rounds.1, rounds.2),
            rates: report.scale.of(1, 2, 10),
            changes: report.scale.of(20, 20_000 / watchers, 50_000 / watchers).clamp(20, 5_000),
        };
        let server = RedisServer::start();
        report.note_server(&server);
        let [watch, bare, floor] = runtime.block_on(measure(&server, &setting));
        let name = |what: &str| format!("{watchers} watcher{}, {what}", if watchers == 1 { "" } else { "s" });
        let sockets = ["raw SPUBLISH to as many sockets", "the same updates, to as many sockets"];
        report.push(
            Row::cost("fan_out", name("to the last"), "us", &watch.to_the_last)
                .against(sockets[0], &floor.to_the_last, Goal::AtMost(1.25))
                .against(sockets[1], &bare.to_the_last, None),
        );
        report.push(
            Row::rate("fan_out", name("changes told"), &watch.told)
                .against(sockets[0], &floor.told, Goal::AtLeast(1.0 / 1.25))
                .against(sockets[1], &bare.told, None),
        );
    }
}

async fn measure(server: &RedisServer, setting: &Setting) -> [Lane; 3] {
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

    let mut lanes = [Lane::default(), Lane::default(), Lane::default()];
    for _ in 0..rounds {
        for (lane, master) in [&watched.1, &bare.1].into_iter().enumerate() {
            gate.expect(watchers);
            let start = monotonic_us();
            master.update(&job, &"payload").await.expect("updated");
            lanes[lane].to_the_last.record_us(gate.last().await - start);
        }
        gate.expect(watchers);
        let start = monotonic_us();
        publisher.publish(1).await;
        lanes[2].to_the_last.record_us(gate.last().await - start);
    }
    for _ in 0..rates {
        let told = (watchers * changes) as f64 * 1e6;
        for (lane, master) in [&watched.1, &bare.1].into_iter().enumerate() {
            gate.expect(watchers * changes);
            let start = monotonic_us();
            let updates = stream::iter(0..changes).map(|_| master.update(&job, &"payload"));
            let _: Vec<_> = updates.buffer_unordered(CALLS).try_collect().await.expect("updated");
            lanes[lane].told.record(told / (gate.last().await - start) as f64);
        }
        gate.expect(watchers * changes);
        let start = monotonic_us();
        publisher.publish(changes).await;
        lanes[2].told.record(told / (gate.last().await - start) as f64);
    }
    lanes
}

/// A cluster with a job.
async fn master(server: &RedisServer, name: &str, job: &JobId) -> (Cluster, Master) {
    let cluster = Cluster::builder(name).connect_url(server.url()).await.expect("connects");
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
