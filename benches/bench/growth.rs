//! `growth`: what add, delete, release, beat and takeover cost the server where there are 1,000, 100,000 and 1,000,000 jobs; and
//! a beat where there are 10, 1,000 and 10,000 workers.
//!
//! One server for each size, all at once, in turn: the smallest is what the others are held against. A real master
//! fills, adds and deletes; the workers are participants without a client, which call the crate's scripts (and so
//! alone that each kind of script can be counted by itself), and whose inboxes somebody reads. By the server's own
//! count.

use assemblage::{Cluster, JobId, Master};

use crate::support::floor::{PAYLOAD, Sink};
use crate::support::participant::{Participant, spent_us};
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::{Connection, RedisServer};

/// No lock ends by itself meanwhile.
const TTL_MS: u64 = 3_600_000;

const WORKERS: usize = 5;

/// Of how many calls a sample is the mean.
const CALLS: usize = 100;

/// How many jobs the crate moves in one call.
const BATCH: u64 = 20;

const COSTS: [&str; 5] = ["add", "delete", "release", "beat", "moved job"];

struct Site {
    connection: Connection,
    participant: Participant,
    workers: Vec<u64>,
    /// Who is being reaped.
    victim: Option<u64>,
    master: Master,
    costs: [Samples; COSTS.len()],
    _sink: Sink,
    _server: RedisServer,
}

impl Site {
    async fn new(report: &mut Report, workers: usize, jobs: usize) -> Self {
        let server = RedisServer::start();
        report.note_server(&server);
        let cluster = Cluster::builder("bench").lock_ttl(std::time::Duration::from_millis(TTL_MS));
        let cluster = cluster.connect_url(server.url()).await.expect("connects");
        let master = cluster.master().await.expect("a master");
        let mut participant = Participant::new(&server, "bench");
        let workers: Vec<u64> = (0..workers).map(|_| participant.join(TTL_MS)).collect();
        // Those that come in the place of reaped ones have inboxes too.
        let channels: Vec<String> =
            (1..=workers.len() + 200).map(|number| participant.key(&format!("inbox:{number}"))).collect();
        let sink = Sink::new(&server, "SSUBSCRIBE", &channels);
        let payloads = vec![PAYLOAD; jobs.min(10_000)];
        for _ in 0..jobs / payloads.len().max(1) {
            master.add_many(&payloads).await.expect("added");
        }
        Self {
            connection: server.connect(),
            participant,
            workers,
            victim: None,
            master,
            costs: Default::default(),
            _sink: sink,
            _server: server,
        }
    }

    /// Microseconds of scripts since the last time, for each of so many.
    fn note(&mut self, cost: usize, count: usize, (calls, us): (u64, u64)) -> (u64, u64) {
        let (calls_now, us_now) = spent_us(&mut self.connection, "evalsha");
        assert!(calls_now > calls, "something was measured");
        self.costs[cost].record((us_now - us) as f64 / count as f64);
        (calls_now, us_now)
    }

    async fn measure(&mut self) {
        let mut before = spent_us(&mut self.connection, "evalsha");
        let mut jobs: Vec<JobId> = Vec::new();
        for _ in 0..CALLS {
            jobs.push(self.master.add(PAYLOAD).await.expect("added"));
        }
        before = self.note(0, CALLS, before);
        for job in &jobs {
            let _ = self.master.delete(job).await.expect("deleted");
        }
        before = self.note(1, CALLS, before);
        for job in &jobs {
            self.participant.release(job.as_str());
        }
        self.note(2, CALLS, before);
        self.beat();
        self.take_over();
    }

    /// Moves a batch: with more jobs there are more batches, and it is the cost of each that must not grow.
    fn take_over(&mut self) {
        let victim = *self.victim.get_or_insert_with(|| {
            let victim = self.workers.remove(0);
            self.workers.push(self.participant.join(TTL_MS));
            self.participant.end_lock(victim);
            victim
        });
        let before = spent_us(&mut self.connection, "evalsha");
        let (moved, left) = self.participant.reap(victim, BATCH);
        if moved == BATCH {
            self.note(4, usize::try_from(moved).expect("a count"), before);
        }
        if left == 0 {
            self.victim = None;
        }
    }

    fn beat(&mut self) {
        let before = spent_us(&mut self.connection, "evalsha");
        for call in 0..CALLS {
            self.participant.beat(self.workers[call * 7_919 % self.workers.len()], TTL_MS);
        }
        self.note(3, CALLS, before);
    }
}

pub(crate) fn run(report: &mut Report) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        by_jobs(report).await;
        by_workers(report).await;
    });
}

async fn by_jobs(report: &mut Report) {
    let sizes: &[usize] = report.scale.of(&[1_000, 2_000], &[1_000, 100_000], &[1_000, 100_000, 1_000_000]);
    let mut sites = Vec::new();
    for size in sizes {
        report.say(&format!("growth: {size} jobs are added"));
        sites.push(Site::new(report, WORKERS, *size).await);
    }
    let rounds = report.scale.of(1, 5, 20);
    report.say(&format!("growth: {rounds} rounds"));
    for _ in 0..rounds {
        for site in &mut sites {
            site.measure().await;
        }
    }
    for (cost, what) in COSTS.iter().enumerate() {
        let smallest = sites[0].costs[cost].clone();
        for (size, site) in sizes.iter().zip(&sites) {
            let row = Row::cost("growth", format!("{what}, {size} jobs"), "us", &site.costs[cost]);
            report.push(if *size == sizes[0] {
                row
            } else {
                row.against(format!("where there are {}", sizes[0]), &smallest, Goal::AtMost(1.3))
            });
        }
    }
}

async fn by_workers(report: &mut Report) {
    let counts: &[usize] = report.scale.of(&[10, 20], &[10, 1_000], &[10, 1_000, 10_000]);
    let mut sites = Vec::new();
    for count in counts {
        report.say(&format!("growth: {count} workers join"));
        sites.push(Site::new(report, *count, 0).await);
    }
    for _ in 0..report.scale.of(1, 20, 100) {
        for site in &mut sites {
            site.beat();
        }
    }
    let smallest = sites[0].costs[3].clone();
    for (count, site) in counts.iter().zip(&sites) {
        let row = Row::cost("growth", format!("beat, {count} workers"), "us", &site.costs[3]);
        report.push(if *count == counts[0] {
            row
        } else {
            row.against(format!("where there are {}", counts[0]), &smallest, Goal::AtMost(1.3))
        });
    }
}
