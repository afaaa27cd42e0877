//! `client_cost`: what a worker costs its own process: allocations and bytes per event received, and the memory of one that
//! holds 100,000 jobs. Counted by the allocator, which is why this is a program of its own: the others are not to pay for
//! the counting.
//!
//! The master is another process. The consumer keeps each job, as applications do; what it keeps it in has been made before.
//! A delete's count has its release in it. The floor is a plain fred subscriber that receives as many messages.

#[path = "../support/mod.rs"]
mod support;

use std::alloc::System;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use assemblage::{Cluster, Event, Job, JobId, Worker};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::prelude::{Builder, Config};
use futures::{StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::Scale;
use support::floor::{self, PAYLOAD};
use support::raw::Raw;
use support::report::{Report, Row};
use support::samples::Samples;
use support::server::RedisServer;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAME: &str = "client_cost";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let [role, url] = args.as_slice()
        && role == "master"
    {
        return runtime.block_on(preside(url));
    }
    let mut report = Report::new(Scale::asked_for(), 1);
    report.step(NAME);
    let server = RedisServer::start();
    report.note_server(&server);
    runtime.block_on(measure(&mut report, &server));
    report.finish();
}

/// A master in another process, which adds and deletes when told to.
struct Master {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Master {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["master", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut master = Self { child, input, output };
        master.wait();
        master
    }

    fn tell(&mut self, what: &str, count: usize) {
        writeln!(self.input, "{what} {count}").expect("told");
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        assert_eq!(line, "done\n");
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn preside(url: &str) {
    let cluster = Cluster::builder("bench").connect_url(url).await.expect("connects");
    let master = cluster.master().await.expect("a master");
    println!("done");
    let mut jobs: Vec<JobId> = Vec::new();
    // It has nothing else to do while it waits for orders.
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (what, count) = line.split_once(' ').expect("two words");
        let count = count.parse::<usize>().expect("a number");
        if what == "add" {
            let adds = stream::iter(0..count).map(|_| master.add(PAYLOAD)).buffer_unordered(64);
            jobs.extend(adds.map(|job| job.expect("added")).collect::<Vec<_>>().await);
        } else {
            let taken = jobs.split_off(jobs.len() - count);
            let deletes = stream::iter(&taken).map(|job| master.delete(job)).buffer_unordered(64);
            deletes.for_each(|deleted| async move { assert!(deleted.is_ok(), "{deleted:?}") }).await;
        }
        println!("done");
    }
}

async fn measure(report: &mut Report, server: &RedisServer) {
    let events = report.scale.of(100, 5_000, 10_000);
    let most = report.scale.of(500, 20_000, 100_000);
    let url = server.url();
    let floor = bare(server, &url, events, report.scale.of(1, 3, 10)).await;
    let mut master = Master::start(&url);
    let cluster = Cluster::builder("bench").connect_url(&url).await.expect("connects");
    let mut worker = cluster.worker().await.expect("joins");
    let mut held: Vec<Job> = Vec::with_capacity(most + events);
    let mut counts: [Counts; 2] = Default::default();
    for round in 0..report.scale.of(2, 4, 11) {
        for (what, counts) in ["add", "delete"].into_iter().zip(&mut counts) {
            let region = Region::new(ALLOCATOR);
            master.tell(what, events);
            receive(&mut worker, &mut held, events).await;
            // The first round makes the tables that the later ones use again.
            if round > 0 {
                counts.note(&region, events);
            }
            master.wait();
            settle().await;
        }
    }
    for (case, counts) in ["add", "delete and release"].into_iter().zip(&counts) {
        let case = |what| format!("{what} per event: {case}");
        let row = Row::cost(NAME, case("allocations"), "", &counts.allocations);
        report.push(row.against("a plain fred subscriber's", &floor.allocations, None));
        let row = Row::cost(NAME, case("bytes allocated"), "bytes", &counts.bytes);
        report.push(row.against("a plain fred subscriber's", &floor.bytes, None));
    }
    report.say(&format!("client_cost: a worker that holds {most} jobs"));
    let (region, before) = (Region::new(ALLOCATOR), resident());
    master.tell("add", most);
    receive(&mut worker, &mut held, most).await;
    master.wait();
    settle().await;
    let change = region.change();
    let kept = (change.bytes_allocated - change.bytes_deallocated) as f64 / most as f64;
    report.push(
        Row::cost(
            NAME,
            format!("memory of {most} held jobs, payload included"),
            "bytes a job",
            &Samples::one(kept),
        )
        .wanted("bytes a job that the process grew by", (resident() - before) / most as f64, None),
    );
}

#[derive(Default)]
struct Counts {
    allocations: Samples,
    bytes: Samples,
}

impl Counts {
    fn note(&mut self, region: &Region<'_, System>, events: usize) {
        let change = region.change();
        let allocations = change.allocations + change.reallocations;
        self.allocations.record(allocations as f64 / events as f64);
        self.bytes.record(change.bytes_allocated as f64 / events as f64);
    }
}

/// So many events. A `Delete` lets go of the job at once.
async fn receive(worker: &mut Worker, held: &mut Vec<Job>, count: usize) {
    for _ in 0..count {
        match worker.next().await {
            Some(Event::Add(job)) => held.push(job),
            // They come in no order, but all that are told of go: which one is looked for does not matter here.
            Some(Event::Delete(deletion)) => {
                let at = held.iter().rposition(|job| job.id() == deletion.id()).expect("it was added");
                held.swap_remove(at);
            }
            other => panic!("not expected: {other:?}"),
        }
    }
}

/// Releases are answered by then.
async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

/// What a plain fred subscriber takes.
async fn bare(server: &RedisServer, url: &str, events: usize, rounds: usize) -> Counts {
    let mut builder = Builder::from_config(Config::from_url(url).expect("a URL"));
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = 4096);
    let client = builder.build().expect("a client");
    client.init().await.expect("connects");
    let mut messages = client.message_rx();
    client.subscribe("floor").await.expect("subscribed");
    let () = client.ping(None).await.expect("confirmed");
    let mut raw = Raw::connect(server);
    let commands = vec![floor::publish("floor"); 64];
    let mut counts = Counts::default();
    for _ in 0..rounds {
        let region = Region::new(ALLOCATOR);
        let mut own = 0;
        for _ in 0..events / commands.len() {
            let sending = Region::new(ALLOCATOR);
            raw.pump(&commands, commands.len());
            own += sending.change().allocations;
            for _ in 0..commands.len() {
                messages.recv().await.expect("a message");
            }
        }
        let events = events / commands.len() * commands.len();
        let change = region.change();
        let allocations = change.allocations + change.reallocations - own;
        counts.allocations.record(allocations as f64 / events as f64);
        counts.bytes.record(change.bytes_allocated as f64 / events as f64);
    }
    client.quit().await.expect("quits");
    counts
}

/// What of the process is in memory, in bytes.
fn resident() -> f64 {
    support::machine::resident(std::process::id()).map_or(f64::NAN, |bytes| bytes as f64)
}
