//! A thousand workers and a hundred thousand jobs on one server, while both come and go: is anything lost, is anything held
//! twice, and what does it take?
//!
//! `make load`, or `cargo test --release --test load -- --seconds 60 --workers 1000 --jobs 100000`. Without arguments it is a
//! small run that is part of `make test`.
//!
//! ```text
//! master (this process) -- adds, deletes --> server <---> processes with many workers each, which are replaced in turn
//!        |                                                    |  one process is killed half way, another takes its place
//!        +------ checker <--- what each worker saw, as it saw it (a file a process) ---+
//! ```

mod checker;
mod child;
#[path = "../it/support/machine.rs"]
mod machine;
mod meter;
#[path = "../it/support/server.rs"]
mod server;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use assemblage::{Cluster, ClusterBuilder, JobId, Master};
use child::Child;
use meter::Meter;
use server::RedisServer;

/// How many processes the workers are in.
const PROCESSES: usize = 4;
/// How many jobs one call adds or deletes.
const BATCH: u32 = 1_000;
/// How long everything may take to be where it belongs.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
struct Size {
    seconds: u64,
    workers: usize,
    jobs: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u32>().unwrap_or_else(|_| panic!("{word} is no number"));
    match words[..] {
        ["--role", url, workers, file] => {
            child::run(url, number(workers) as usize, file).await;
            ExitCode::SUCCESS
        }
        [] => load(Size { seconds: 5, workers: 40, jobs: 2_000 }).await,
        ["--seconds", seconds, "--workers", workers, "--jobs", jobs] => {
            load(Size {
                seconds: number(seconds).into(),
                workers: number(workers) as usize,
                jobs: number(jobs),
            })
            .await
        }
        // A filter of `cargo test` that is about other tests, or a question of a tool about them.
        _ => {
            println!("load: not run, as something else was asked for: {}", args.join(" "));
            ExitCode::SUCCESS
        }
    }
}

fn builder() -> ClusterBuilder {
    Cluster::builder("load").command_timeout(Duration::from_secs(30))
}

async fn load(size: Size) -> ExitCode {
    let lost = one_worker(size.jobs).await + many_workers(size).await;
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The jobs that are to be held: their numbers are their ids.
struct Jobs {
    master: Master,
    alive: HashSet<u32>,
    next: u32,
    slowest: Duration,
}

impl Jobs {
    async fn add(&mut self, count: u32) {
        let ids: Vec<u32> = (self.next..self.next + count).collect();
        self.next += count;
        let job = |id: &u32| (id_of(*id), format!("user{id}@example.com"));
        let jobs: Vec<_> = ids.iter().map(job).collect();
        let start = Instant::now();
        self.master.add_many_with(&jobs).await.expect("they are added");
        self.slowest = self.slowest.max(start.elapsed());
        self.alive.extend(ids);
    }

    /// Some of them, whichever.
    async fn delete(&mut self, count: u32) {
        let ids: Vec<u32> = self.alive.iter().copied().take(count as usize).collect();
        let jobs: Vec<JobId> = ids.iter().map(|id| id_of(*id)).collect();
        let start = Instant::now();
        self.master.delete_many(&jobs).await.expect("they are deleted");
        self.slowest = self.slowest.max(start.elapsed());
        for id in &ids {
            self.alive.remove(id);
        }
    }

    async fn fill(&mut self, count: u32) {
        for _ in 0..count / BATCH {
            self.add(BATCH).await;
        }
        self.add(count % BATCH).await;
    }
}

fn id_of(number: u32) -> JobId {
    JobId::new(number.to_string()).expect("a number is an id")
}

/// Adds all jobs to one worker, and looks whether it goes on as before. Returns how much was lost.
async fn one_worker(count: u32) -> usize {
    let server = RedisServer::start();
    let cluster = builder().connect_url(server.url()).await.expect("it connects");
    let mut jobs = Jobs::of(&cluster).await;
    let mut child = Child::start(&server.url(), 1).await;
    let empty = child.memory();
    let start = Instant::now();
    jobs.fill(count).await;
    let added = start.elapsed();
    let all = settled(&jobs, std::slice::from_ref(&child)).await;
    let held = start.elapsed();
    // A few times to live: its heartbeats go on, or it would lose its lock.
    tokio::time::sleep(Duration::from_secs(if count > 10_000 { 15 } else { 2 })).await;
    let (memory, lost) = (child.memory(), child.lost());
    println!(
        "one worker: {count} jobs added in {:.1} s, held after {:.1} s; the process has {} MiB ({} before), {lost} locks lost",
        added.as_secs_f64(),
        held.as_secs_f64(),
        memory >> 20,
        empty >> 20,
    );
    let faults = checker::check(std::slice::from_ref(&child), &jobs.alive);
    child.finish();
    report(all, &faults)
}

/// The run of many workers. Returns how much was lost or held twice.
async fn many_workers(size: Size) -> usize {
    let server = RedisServer::start();
    let cluster = builder().connect_url(server.url()).await.expect("it connects");
    let mut jobs = Jobs::of(&cluster).await;
    let each = size.workers / PROCESSES;
    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        children.push(Child::start(&server.url(), each).await);
    }
    let joined = start.elapsed();
    let empty: u64 = children.iter().map(Child::memory).sum();
    jobs.fill(size.jobs).await;
    let all = settled(&jobs, &children).await;
    println!(
        "{} workers joined in {:.1} s, and have {} MiB; {} jobs are held {:.1} s after that",
        each * PROCESSES,
        joined.as_secs_f64(),
        empty >> 20,
        size.jobs,
        (start.elapsed() - joined).as_secs_f64()
    );
    children.iter_mut().for_each(Child::churn);
    let (mut meter, start) = (Meter::new(size.seconds), Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (changed, mut killed) = ((size.jobs / 2_000).max(1), false);
    while start.elapsed() < Duration::from_secs(size.seconds) {
        tick.tick().await;
        jobs.delete(changed).await;
        jobs.add(changed).await;
        if !killed && start.elapsed() > Duration::from_secs(size.seconds) / 2 {
            killed = true;
            children[0].kill();
            let mut another = Child::start(&server.url(), each).await;
            another.churn();
            children.push(another);
        }
        meter.show(start.elapsed(), &server, &children, &mut jobs.slowest);
    }
    children.iter_mut().for_each(Child::calm);
    let calm = Instant::now();
    let all = settled(&jobs, &children).await && all;
    let healed = calm.elapsed();
    let faults = checker::check(&children, &jobs.alive);
    let stats = jobs.master.stats().await.expect("the server answers");
    let handovers = checker::adds(&children) - jobs.next as usize;
    children.iter_mut().for_each(Child::finish);
    println!("{}", meter.memory());
    println!(
        "load: {} s, {} workers in {PROCESSES} processes (1 killed), {} jobs added, {} deleted, {handovers} handovers, {} locks lost, \
         all in place {:.1} s after the end; {} lost or held twice",
        size.seconds,
        stats.workers,
        jobs.next,
        jobs.next as usize - jobs.alive.len(),
        children.iter().map(Child::lost).sum::<usize>(),
        healed.as_secs_f64(),
        faults.len() + usize::from(!all),
    );
    report(all, &faults)
}

fn report(all: bool, faults: &[String]) -> usize {
    faults.iter().take(20).for_each(|fault| println!("  {fault}"));
    if !all {
        println!("  not everything is held within {PATIENCE:?}");
    }
    faults.len() + usize::from(!all)
}

/// Waits until as many are held as there are; whether that came about.
async fn settled(jobs: &Jobs, children: &[Child]) -> bool {
    let start = Instant::now();
    while children.iter().map(Child::held).sum::<usize>() != jobs.alive.len()
        || !checker::is_settled(children, &jobs.alive)
    {
        if start.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

impl Jobs {
    async fn of(cluster: &Cluster) -> Self {
        let master = cluster.master().await.expect("a master");
        Self { master, alive: HashSet::new(), next: 0, slowest: Duration::ZERO }
    }
}
