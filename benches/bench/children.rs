//! The processes: this program again with a role, reporting by lines, ended with the benchmark.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use assemblage::{CloseReason, Cluster, ClusterBuilder, Event};
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use crate::support::clock::monotonic_us;

/// How long a step may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process, killed when dropped.
pub(crate) struct Child {
    child: std::process::Child,
    lines: Receiver<String>,
}

/// What a process is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duty<'a> {
    pub(crate) url: &'a str,
    pub(crate) cluster: &'a str,
    /// The lock's; `None`: the default.
    pub(crate) ttl: Option<Duration>,
    /// Whether the server announces the end of locks.
    pub(crate) events: bool,
    pub(crate) workers: usize,
    /// Each time that so many `Add`s have come, it says when the first and the last of them did. If that is one, it
    /// tells of each `Delete` too.
    pub(crate) jobs: usize,
}

impl Child {
    /// Workers that have joined; their numbers.
    pub(crate) fn workers(duty: Duty<'_>) -> (Self, Vec<u64>) {
        let child = Self::start("workers", duty);
        let numbers = child.report("joined").iter().map(|number| number.parse().expect("a number")).collect();
        (child, numbers)
    }

    /// A master that has added the jobs, and does nothing else but to take part in takeovers.
    pub(crate) fn master(duty: Duty<'_>) -> Self {
        let child = Self::start("master", duty);
        child.report("added");
        child
    }

    /// One without anything of the crate: it reads bytes and says when.
    pub(crate) fn bare() -> Self {
        Self::start("bare", Duty { url: "", cluster: "", ttl: None, events: false, workers: 0, jobs: 0 })
    }

    fn start(role: &str, duty: Duty<'_>) -> Self {
        let ttl = duty.ttl.map_or(0, |ttl| ttl.as_millis()).to_string();
        let events = if duty.events { "events" } else { "mute" };
        let (workers, jobs) = (duty.workers.to_string(), duty.jobs.to_string());
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["child", role, duty.url, duty.cluster, &ttl, events, &workers, &jobs])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The words of the next line, which must be this report.
    pub(crate) fn report(&self, what: &str) -> Vec<String> {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("never: {what}: {error}"));
        let mut words = line.split(' ').map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(what), "{line}");
        words.collect()
    }

    /// As `report`, where all words are numbers.
    pub(crate) fn numbers(&self, what: &str) -> Vec<i64> {
        self.report(what).iter().map(|word| word.parse().expect("a number")).collect()
    }

    /// A byte on its standard input.
    pub(crate) fn nudge(&mut self) {
        self.child.stdin.as_mut().expect("its input").write_all(b"x").expect("written");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it can be signalled");
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process with a role does, until it is killed or the benchmark is gone.
pub(crate) fn run(args: &[String]) {
    let [role, url, cluster, ttl, events, workers, jobs] = args else { panic!("not a role: {args:?}") };
    if role == "bare" {
        return read_bytes();
    }
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let duty = Duty {
        url,
        cluster,
        ttl: Some(Duration::from_millis(number(ttl) as u64)).filter(|ttl| !ttl.is_zero()),
        events: events == "events",
        workers: number(workers),
        jobs: number(jobs),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match role.as_str() {
            "workers" => work(duty).await,
            _ => preside(duty).await,
        }
    });
}

fn builder(duty: Duty<'_>) -> ClusterBuilder {
    // A single job whose workers die one after the other would be quarantined, and rightly so.
    let crashes = if duty.jobs == 1 { 0 } else { 3 };
    let builder = Cluster::builder(duty.cluster).configure_server(duty.events).max_crashes(crashes);
    match duty.ttl {
        Some(ttl) => builder.lock_ttl(ttl),
        None => builder,
    }
}

/// What a consumer saw, and when.
struct Seen {
    at: i64,
    /// Of an `Add`; `None`: a `Delete`.
    epoch: Option<u64>,
}

/// Each worker has connections of its own, as if it were a process, and keeps every job until its `Delete`, as a good
/// application does. Nothing is written before all jobs are there: that would take longer than what is measured.
async fn work(duty: Duty<'_>) {
    let (seen, mut all_seen) = mpsc::unbounded_channel::<Seen>();
    let mut numbers = Vec::new();
    for _ in 0..duty.workers {
        let cluster = builder(duty).connect_url(duty.url).await.expect("connects");
        let mut worker = cluster.worker().await.expect("joins");
        numbers.push(worker.id().to_string());
        let seen = seen.clone();
        let most = duty.jobs;
        tokio::spawn(async move {
            let mut held = HashMap::with_capacity((most / duty.workers).min(1 << 17));
            while let Some(event) = worker.next().await {
                let at = monotonic_us();
                match event {
                    Event::Add(job) => {
                        let _ = seen.send(Seen { at, epoch: Some(job.epoch().get()) });
                        assert!(held.insert(job.id().clone(), job).is_none(), "added twice");
                    }
                    Event::Delete(deletion) => {
                        held.remove(deletion.id());
                        let _ = seen.send(Seen { at, epoch: None });
                    }
                    Event::Update(_) => {}
                    // It was stopped for so long: that is what is measured.
                    Event::Close(CloseReason::LockExpired) if most == 1 => {}
                    other => eprintln!("the consumer of {cluster:?} got {other:?}"),
                }
            }
        });
    }
    drop(seen);
    say(&format!("joined {}", numbers.join(" ")));
    let (mut adds, mut first, mut last) = (0, i64::MAX, 0);
    while let Some(Seen { at, epoch }) = all_seen.recv().await {
        let Some(epoch) = epoch else {
            if duty.jobs == 1 {
                say(&format!("deleted {at}"));
            }
            continue;
        };
        (adds, first, last) = (adds + 1, first.min(at), last.max(at));
        if adds == duty.jobs {
            say(&format!("holds {first} {last} {epoch}"));
            (adds, first, last) = (0, i64::MAX, 0);
        }
    }
}

async fn preside(duty: Duty<'_>) {
    let cluster = builder(duty).connect_url(duty.url).await.expect("connects");
    let master = cluster.master().await.expect("a master");
    let mailboxes: Vec<String> =
        (0..duty.jobs).map(|number| format!("user{number}@example.com/INBOX")).collect();
    master.add_many(&mailboxes).await.expect("added");
    say("added");
    std::future::pending::<()>().await;
}

/// Says when each byte came.
fn read_bytes() {
    let mut byte = [0];
    while matches!(std::io::Read::read(&mut std::io::stdin(), &mut byte), Ok(1)) {
        say(&format!("read {}", monotonic_us()));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
