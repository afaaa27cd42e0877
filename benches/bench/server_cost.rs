//! `server_cost`: what the server spends, by its own count: microseconds per add, delete, release, beat and moved job;
//! bytes per job.
//!
//! A real master and real workers in another process do what they always do, and the server's slow log, set to note every
//! command, tells what each call took. A sample is the mean over some calls in a row: the log counts whole
//! microseconds. The floor is a bare script that does what most such systems do for an add (EXISTS, HSET, ZADD, SADD,
//! INCR, PUBLISH to a subscriber), in turn.

use std::collections::HashMap;

use assemblage::{Cluster, JobId, Master};

use crate::add_throughput::clear;
use crate::children::{Child, Duty};
use crate::support::floor::{self, BARE_ADD, Sink, id};
use crate::support::participant;
use crate::support::raw::Raw;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::{Connection, RedisServer, encode};

/// Reads the slow log, and knows the scripts in it.
struct Log {
    connection: Connection,
    names: HashMap<String, String>,
}

impl Log {
    fn new(server: &RedisServer, bare: &str) -> Self {
        let mut names = participant::names(server);
        names.insert(bare.to_owned(), "bare".to_owned());
        let mut log = Self { connection: server.connect(), names };
        log.calls();
        log
    }

    /// What the calls took since the last time, by script.
    fn calls(&mut self) -> HashMap<String, Vec<f64>> {
        let entries = self.connection.command(&["SLOWLOG", "GET", "-1"]);
        self.connection.command(&["SLOWLOG", "RESET"]);
        let mut calls: HashMap<String, Vec<f64>> = HashMap::new();
        for entry in entries.list().iter().map(|entry| entry.list()) {
            let words = entry[3].list();
            if words[0].text() == "EVALSHA"
                && let Some(name) = self.names.get(&words[1].text())
            {
                calls.entry(name.clone()).or_default().push(entry[2].int() as f64);
            }
        }
        calls
    }
}

/// A sample of each script that was called.
struct Costs(HashMap<String, Samples>);

impl Costs {
    /// `per`: of how many jobs each call was.
    fn note(&mut self, calls: HashMap<String, Vec<f64>>, per: &[(&str, f64)]) {
        for (name, jobs) in per {
            if let Some(times) = calls.get(*name) {
                let mean = times.iter().sum::<f64>() / times.len() as f64 / jobs;
                self.0.entry((*name).to_owned()).or_default().record(mean);
            }
        }
    }

    fn of(&self, name: &str) -> Samples {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

pub(crate) fn run(report: &mut Report) {
    let server = RedisServer::with(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000"]);
    report.note_server(&server);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::builder("bench").lock_ttl(std::time::Duration::from_secs(1));
        let cluster = cluster.connect_url(server.url()).await.expect("connects");
        let master = cluster.master().await.expect("a master");
        time(report, &server, &master).await;
    });
    let server = RedisServer::start();
    runtime.block_on(bytes(report, &server));
}

async fn time(report: &mut Report, server: &RedisServer, master: &Master) {
    let rounds = report.scale.of(2, 20, 100);
    let calls = report.scale.of(5, 50, 50);
    let bulk = report.scale.of(200, 2_000, 4_000);
    let url = server.url();
    let ttl = Some(std::time::Duration::from_secs(1));
    let duty = Duty { url: &url, cluster: "bench", ttl, events: true, workers: 2, jobs: usize::MAX };
    let (mut children, _) = Child::workers(duty);
    let _sink = Sink::new(server, "SUBSCRIBE", &["floor".to_owned()]);
    let sha = floor::load(server, BARE_ADD);
    let mut raw = Raw::connect(server);
    let mut log = Log::new(server, &sha);
    let mut costs = Costs(HashMap::new());
    report.say("server_cost: one by one");
    for round in 0..rounds {
        let mut jobs: Vec<JobId> = Vec::new();
        for call in 0..calls {
            raw.run(&bare_add(&sha, &id(round * calls + call)));
            jobs.push(master.add(floor::PAYLOAD).await.expect("added"));
        }
        costs.note(log.calls(), &[("bare", 1.0), ("add", 1.0), ("beat", 1.0), ("survey", 1.0)]);
        for job in &jobs {
            let _ = master.delete(job).await.expect("deleted");
            // One release each, as where jobs are deleted now and then.
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
        clear(master, &[]).await;
        costs.note(log.calls(), &[("delete", 1.0), ("release", 1.0), ("beat", 1.0), ("survey", 1.0)]);
    }
    report.say("server_cost: batches, and takeovers");
    let mut moved = Samples::default();
    let mut added = Samples::default();
    for _ in 0..report.scale.of(1, 2, 10) {
        let jobs = master.add_many(&vec![floor::PAYLOAD; bulk]).await.expect("added");
        added.record(log.calls()["add"].iter().sum::<f64>() / bulk as f64);
        // All of these die, and their jobs go to those that have come.
        let (heirs, numbers) = Child::workers(duty);
        let dead = std::mem::replace(&mut children, heirs);
        log.calls();
        drop(dead);
        let begin = std::time::Instant::now();
        let all_moved = |workers: Vec<assemblage::WorkerInfo>| {
            workers.iter().all(|worker| numbers.iter().any(|number| *number == worker.id.get()))
        };
        while !all_moved(master.workers().await.expect("an answer")) {
            assert!(begin.elapsed() < std::time::Duration::from_secs(30), "never: they are reaped");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let calls = log.calls();
        let held: f64 = bulk as f64;
        moved.record(calls["reap"].iter().filter(|us| **us > 0.0).sum::<f64>() / held);
        clear(master, &jobs).await;
        log.calls();
    }
    let bare = costs.of("bare");
    let floor = "bare script of an add";
    for (case, name, goal) in [
        ("add", "add", Some(Goal::AtMost(1.6))),
        ("delete", "delete", None),
        ("release, and so gone", "release", None),
        ("beat", "beat", None),
        ("survey, by masters instead of a beat", "survey", None),
    ] {
        report.push(Row::cost("server_cost", case, "us", &costs.of(name)).against(floor, &bare, goal));
    }
    report.push(Row::cost("server_cost", "add, of a batch", "us a job", &added).against(floor, &bare, None));
    report.push(
        Row::cost("server_cost", "moved job, of a reap", "us a job", &moved).against(floor, &bare, None),
    );
}

fn bare_add(sha: &str, id: &str) -> Vec<u8> {
    let words = ["EVALSHA", sha, "5", "bare:jobs", "bare:index", "bare:all", "bare:count", "bare:job:", id];
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    encode(&[&words[..], &[&floor::MESSAGE, b"1795502574607940", b"floor"]].concat())
}

/// What a job takes of the server's memory beside its payload.
async fn bytes(report: &mut Report, server: &RedisServer) {
    let jobs = report.scale.of(1_000, 50_000, 200_000);
    report.say(&format!("server_cost: the memory of {jobs} jobs"));
    let url = server.url();
    let duty = Duty { url: &url, cluster: "bench", ttl: None, events: true, workers: 2, jobs };
    let (child, _) = Child::workers(duty);
    let cluster = Cluster::builder("bench").connect_url(&url).await.expect("connects");
    let master = cluster.master().await.expect("a master");
    let before = dataset(server);
    let ids = master.add_many(&vec![floor::PAYLOAD; jobs]).await.expect("added");
    child.report("holds");
    let ours = (dataset(server) - before) / jobs as f64 - 100.0;
    clear(&master, &ids).await;
    let sha = floor::load(server, BARE_ADD);
    let before = dataset(server);
    let commands: Vec<Vec<u8>> = (0..jobs).map(|number| bare_add(&sha, &id(number))).collect();
    Raw::connect(server).pump(&commands, 64);
    let bare = (dataset(server) - before) / jobs as f64 - 100.0;
    report.push(
        Row::cost("server_cost", "memory, beside the payload", "bytes a job", &Samples::one(ours))
            .against("the bare script's", &Samples::one(bare), None)
            .wanted("bytes", ours, Goal::AtMost(350.0)),
    );
}

/// The memory that the data take, without what is there for clients.
fn dataset(server: &RedisServer) -> f64 {
    let info = server.command(&["INFO", "memory"]).text();
    let field = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
    field.and_then(|text| text.trim().parse().ok()).expect("a number")
}
