//! The processes: this program again with a role, reporting by lines, ended with the benchmark.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use assemblage::{Cluster, Event};
use futures::StreamExt;

use crate::Setting;
use crate::support::clock::monotonic_us;

/// How long a step may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process, killed when dropped.
pub(crate) struct Child {
    child: std::process::Child,
    lines: Receiver<String>,
}

/// The first and the last `Add` that a worker has got, by the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adds {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Child {
    /// A worker that has joined; its number.
    pub(crate) fn worker(url: &str, setting: &Setting) -> (Self, String) {
        let child = Self::start("worker", url, setting);
        let number = child.report("joined")[0].clone();
        (child, number)
    }

    /// A master that has added the jobs.
    pub(crate) fn master(url: &str, setting: &Setting) -> Self {
        let child = Self::start("master", url, setting);
        child.report("added");
        child
    }

    fn start(role: &str, url: &str, setting: &Setting) -> Self {
        let numbers = [setting.jobs.to_string(), setting.ttl.as_millis().to_string()];
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([role, url, &numbers[0], &numbers[1], if setting.events { "events" } else { "mute" }])
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
    fn report(&self, what: &str) -> Vec<String> {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("never: {what}: {error}"));
        let mut words = line.split(' ').map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(what), "{line}");
        words.collect()
    }

    /// When the worker got its jobs, once it has all of them.
    pub(crate) fn holds_all(&self) -> Adds {
        let words = self.report("holds");
        let number = |word: &String| word.parse().expect("a number");
        Adds { first: number(&words[0]), last: number(&words[1]) }
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
pub(crate) fn run(role: &str, url: &str, setting: Setting) {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let builder = Cluster::builder("bench").lock_ttl(setting.ttl).configure_server(setting.events);
        let cluster = builder.connect_url(url).await.expect("connects");
        if role == "worker" {
            work(cluster, setting.jobs).await;
        } else {
            preside(cluster, setting.jobs).await;
        }
    });
}

/// Keeps every job, as a good application does, and writes nothing before it has all of them: that would take longer
/// than what is measured.
async fn work(cluster: Cluster, jobs: usize) {
    let mut worker = cluster.worker().await.expect("joins");
    let (mut held, mut first) = (HashMap::with_capacity(jobs), 0);
    say(&format!("joined {}", worker.id()));
    while let Some(event) = worker.next().await {
        let now = monotonic_us();
        match event {
            Event::Add(job) => {
                if held.is_empty() {
                    first = now;
                }
                assert!(held.insert(job.id().clone(), job).is_none(), "added twice");
                if held.len() == jobs {
                    say(&format!("holds {first} {now}"));
                }
            }
            other => panic!("not expected: {other:?}"),
        }
    }
}

async fn preside(cluster: Cluster, jobs: usize) {
    let master = cluster.master().await.expect("a master");
    let mailboxes: Vec<String> = (0..jobs).map(|number| format!("user{number}@example.com/INBOX")).collect();
    master.add_many(&mailboxes).await.expect("added");
    say("added");
    std::future::pending::<()>().await;
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
