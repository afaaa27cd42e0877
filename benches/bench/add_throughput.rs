//! `add_throughput`: how many jobs one master adds in a second, each way that there is, against a raw EVALSHA (HSET,
//! PUBLISH) that is sent the same way: one at a time; 64 in flight; all at once.
//!
//! Once with a worker in another process that takes them, and a subscriber for the floor; once with nobody, where jobs
//! wait. From the first call to the last answer. The master runs in tokio's runtime of several threads.

use std::time::{Duration, Instant};

use assemblage::{Cluster, JobId, Master};
use futures::{StreamExt, stream};

use crate::children::{Child, Duty};
use crate::support::floor::{self, Sink, WRITE_AND_PUSH, id};
use crate::support::raw::Raw;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::RedisServer;

#[derive(Clone, Copy, Debug)]
enum Way {
    OneAtATime,
    InFlight,
    Bulk,
}

/// How many are in flight.
const WINDOW: usize = 64;

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "sequential",
            Self::InFlight => "64 in flight",
            Self::Bulk => "add_many",
        }
    }

    fn goal(self) -> f64 {
        match self {
            Self::OneAtATime => 0.85,
            Self::InFlight => 0.6,
            Self::Bulk => 0.5,
        }
    }

    fn count(self, report: &Report) -> usize {
        match self {
            Self::OneAtATime => report.scale.of(20, 1_000, 5_000),
            Self::InFlight => report.scale.of(100, 5_000, 20_000),
            Self::Bulk => report.scale.of(300, 10_000, 40_000),
        }
    }
}

pub(crate) fn run(report: &mut Report) {
    let rounds = report.scale.of(1, 3, 20);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for held in [true, false] {
        let server = RedisServer::start();
        report.note_server(&server);
        let channel = if held { "floor" } else { "nobody" };
        let _sink = Sink::new(&server, "SUBSCRIBE", &["floor".to_owned()]);
        let (url, sha) = (server.url(), floor::load(&server, WRITE_AND_PUSH));
        let duty =
            Duty { url: &url, cluster: "bench", ttl: None, events: true, workers: 1, jobs: usize::MAX };
        let worker = held.then(|| Child::workers(duty));
        let mut raw = Raw::connect(&server);
        for way in [Way::OneAtATime, Way::InFlight, Way::Bulk] {
            let case = format!("{}, {}", way.name(), if held { "a worker takes them" } else { "they wait" });
            report.say(&format!("add_throughput: {case}"));
            let count = way.count(report);
            let commands: Vec<Vec<u8>> =
                (0..count).map(|number| floor::write_and_push(&sha, &id(number), channel)).collect();
            let (mut ours, mut floors) = (Samples::default(), Samples::default());
            runtime.block_on(async {
                let cluster = Cluster::builder("bench").connect_url(&url).await.expect("connects");
                let master = cluster.master().await.expect("a master");
                for _ in 0..rounds {
                    let begin = Instant::now();
                    raw.pump(
                        &commands,
                        match way {
                            Way::OneAtATime => 1,
                            Way::InFlight => WINDOW,
                            Way::Bulk => count,
                        },
                    );
                    floors.record(count as f64 / begin.elapsed().as_secs_f64());
                    server.command(&["DEL", "floor"]);
                    let begin = Instant::now();
                    let jobs = add(&master, way, count).await;
                    ours.record(count as f64 / begin.elapsed().as_secs_f64());
                    clear(&master, &jobs).await;
                }
            });
            report.push(Row::rate("add_throughput", case, &ours).against(
                "raw EVALSHA (HSET, PUBLISH), sent alike",
                &floors,
                Goal::AtLeast(way.goal()),
            ));
        }
        drop(worker);
    }
}

async fn add(master: &Master, way: Way, count: usize) -> Vec<JobId> {
    match way {
        Way::OneAtATime => {
            let mut jobs = Vec::with_capacity(count);
            for _ in 0..count {
                jobs.push(master.add(floor::PAYLOAD).await.expect("added"));
            }
            jobs
        }
        Way::InFlight => {
            let adds = stream::iter(0..count).map(|_| master.add(floor::PAYLOAD)).buffer_unordered(WINDOW);
            adds.map(|job| job.expect("added")).collect().await
        }
        Way::Bulk => master.add_many(&vec![floor::PAYLOAD; count]).await.expect("added"),
    }
}

/// Deletes them, and waits until nothing is held.
pub(crate) async fn clear(master: &Master, jobs: &[JobId]) {
    let _ = master.delete_many(jobs).await.expect("deleted");
    let begin = Instant::now();
    while master.stats().await.expect("an answer").jobs > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: all are gone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
