//! Workers and masters as processes of their own: this test binary, run again with a role.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use assemblage::{Cluster, Event, Fence, JobId, Master, Task, WorkerOptions};
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::{PATIENCE, RedisServer, monotonic_us};

const ROLE: &str = "ASSEMBLAGE_TEST_ROLE";

/// What a worker process reports, with the machine's monotonic clock in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Ready(u64),
    Add { job: String, epoch: u64, at: u64 },
    Delete { job: String, at: u64 },
    Close { reason: String, at: u64 },
}

/// A child process, killed on drop.
pub(crate) struct Process {
    child: Child,
    reports: Receiver<Report>,
}

impl Process {
    pub(crate) fn worker(server: &RedisServer, ttl: Duration) -> Self {
        Self::start("worker", server, ttl)
    }

    /// A worker of the servers behind a URL.
    pub(crate) fn worker_at(url: &str, ttl: Duration) -> Self {
        Self::start_at("worker", url, ttl)
    }

    /// A worker that serves until SIGTERM.
    pub(crate) fn serve(server: &RedisServer, ttl: Duration) -> Self {
        Self::start("serve", server, ttl)
    }

    /// A master that takes part in takeovers and does nothing else.
    pub(crate) fn master(server: &RedisServer, ttl: Duration) -> Self {
        Self::start("master", server, ttl)
    }

    /// A process with a role and its options, such as `worker capacity=10 name=gw-1`.
    pub(crate) fn start(role: &str, server: &RedisServer, ttl: Duration) -> Self {
        Self::start_at(role, &server.url(), ttl)
    }

    fn start_at(role: &str, url: &str, ttl: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["support::process::child", "--exact", "--nocapture"])
            .env(ROLE, format!("{url} {} {role}", ttl.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let (sender, reports) = channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        std::thread::spawn(move || {
            for report in output.lines().map_while(Result::ok).filter_map(|line| parse(&line)) {
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let process = Self { child, reports };
        process.wait_for(|report| matches!(report, Report::Ready(_)));
        process
    }

    /// The next report; `None` when the process has ended.
    pub(crate) fn next(&self) -> Option<Report> {
        match self.reports.recv_timeout(PATIENCE) {
            Ok(report) => Some(report),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no report within {PATIENCE:?}"),
        }
    }

    pub(crate) fn wait_for(&self, mut wanted: impl FnMut(&Report) -> bool) -> Report {
        loop {
            let report = self.next().expect("the process goes on");
            if wanted(&report) {
                return report;
            }
        }
    }

    /// Waits until it has been given so many jobs; returns them with their epochs and when the last one came.
    pub(crate) fn wait_for_adds(&self, count: usize) -> (HashMap<String, u64>, u64) {
        let (mut jobs, mut last) = (HashMap::new(), 0);
        while jobs.len() < count {
            match self.next() {
                Some(Report::Add { job, epoch, at }) => {
                    assert!(jobs.insert(job, epoch).is_none(), "added twice");
                    last = at;
                }
                Some(Report::Close { reason, .. }) => panic!("the worker closed: {reason}"),
                Some(_) => {}
                None => panic!("the process ended"),
            }
        }
        (jobs, last)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal)
            .expect("can be signalled");
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; it is to have been told to.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's state") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Report> {
    let mut words = line.strip_prefix('@')?.split(' ');
    let kind = words.next()?;
    let first = words.next()?.to_owned();
    let mut number = || words.next()?.parse::<u64>().ok();
    Some(match kind {
        "ready" => Report::Ready(first.parse().ok()?),
        "add" => Report::Add { job: first, epoch: number()?, at: number()? },
        "delete" => Report::Delete { job: first, at: number()? },
        "close" => Report::Close { reason: first, at: number()? },
        _ => return None,
    })
}

/// Not a test: what a child process runs. Does nothing without a role.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // When the test that started it is gone, so is its standard input, and this process.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let words: Vec<&str> = role.split(' ').collect();
    let ttl = Duration::from_millis(words[1].parse().expect("milliseconds"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cluster =
            Cluster::builder("test").lock_ttl(ttl).connect_url(words[0]).await.expect("the child connects");
        match words[2] {
            "worker" => work(cluster, options(&words[3..])).await,
            "serve" => serve(cluster).await,
            _ => preside(cluster.master().await.expect("a master")).await,
        }
    });
}

fn options(words: &[&str]) -> WorkerOptions {
    words.iter().fold(WorkerOptions::default(), |options, word| {
        let (key, value) = word.split_once('=').expect("key=value");
        let number = || value.parse::<u32>().expect("a number");
        match key {
            "capacity" => options.capacity(number()),
            "weight" => options.weight(number()),
            "rate" => options.takeover_rate(number()),
            "name" => options.name(value),
            "grace" => options.grace(Duration::from_millis(number().into())),
            "fence" => options.fence(Fence::Lenient),
            _ => panic!("no such option: {word}"),
        }
    })
}

/// Holds what it is given; a job with the payload `abort` is the end of it.
async fn work(cluster: Cluster, options: WorkerOptions) {
    let mut worker = cluster.worker_with(options).await.expect("the child joins");
    let mut held = HashMap::new();
    say(format_args!("ready {}", worker.id()));
    while let Some(event) = worker.next().await {
        match event {
            Event::Add(job) => {
                say(format_args!("add {} {} {}", job.id(), job.epoch(), monotonic_us()));
                if job.payload::<&str>().is_ok_and(|payload| payload == "abort") {
                    std::process::abort();
                }
                held.insert(job.id().clone(), job);
            }
            Event::Delete(deletion) => {
                say(format_args!("delete {} {}", deletion.id(), monotonic_us()));
                held.remove(deletion.id());
            }
            Event::Close(reason) => say(format_args!("close {reason:?} {}", monotonic_us())),
            _ => {}
        }
    }
}

async fn serve(cluster: Cluster) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let worker = cluster.worker().await.expect("the child joins");
    say(format_args!("ready {}", worker.id()));
    let handler = |task: Task| async move {
        say(format_args!("add {} {} {}", task.id(), task.epoch(), monotonic_us()));
        task.stopped().await;
        say(format_args!("delete {} {}", task.id(), monotonic_us()));
        Ok::<_, assemblage::Error>(())
    };
    let served = worker.serve(handler).with_graceful_shutdown(async move { terminate.recv().await }).await;
    let reason = if served.is_ok() { "Ok" } else { "Err" };
    say(format_args!("close {reason} {}", monotonic_us()));
}

async fn preside(master: Master) {
    say(format_args!("ready 0"));
    let _master = master;
    std::future::pending::<()>().await;
}

/// One line. libtest's own lines have no `@`, but may begin the line: so it begins anew.
fn say(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\n@{text}");
    let _ = out.flush();
}

/// So many jobs with small payloads; their ids.
pub(crate) async fn add_jobs(master: &Master, count: usize) -> Vec<JobId> {
    let payloads: Vec<String> = (0..count).map(|number| format!("mailbox {number}")).collect();
    master.add_many(&payloads).await.expect("added")
}
