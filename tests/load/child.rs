//! A process with many workers: what it does, and how the other one speaks to it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assemblage::{CloseReason, Event, Worker, WorkerHandle};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;

use super::machine::{monotonic_us, resident};

/// How often a process replaces one of its workers while it churns.
const REPLACE: Duration = Duration::from_millis(250);

/// A process of workers, as the other one sees it. Killed on drop.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    said: Arc<Said>,
    folder: TempDir,
    /// When it was killed, by the machine's monotonic clock.
    pub(crate) killed: Option<u64>,
}

/// What it said last.
#[derive(Default)]
struct Said {
    ready: AtomicBool,
    held: AtomicUsize,
    lost: AtomicUsize,
}

impl Child {
    /// Returns when all of its workers have joined.
    pub(crate) async fn start(url: &str, workers: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("assemblage-load-").tempdir().expect("a folder");
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--role", url, &workers.to_string()])
            .arg(folder.path().join("seen"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let (said, output) = (Arc::new(Said::default()), process.stdout.take().expect("its output"));
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut numbers = line.split(' ').map_while(|word| word.parse().ok());
                if let (Some(held), Some(lost)) = (numbers.next(), numbers.next()) {
                    heard.held.store(held, Ordering::SeqCst);
                    heard.lost.store(lost, Ordering::SeqCst);
                    heard.ready.store(true, Ordering::SeqCst);
                }
            }
        });
        let mut child = Self { input: process.stdin.take(), process, said, folder, killed: None };
        while !child.said.ready.load(Ordering::SeqCst) {
            assert!(child.process.try_wait().expect("its state").is_none(), "the process has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child
    }

    pub(crate) fn held(&self) -> usize {
        if self.killed.is_some() { 0 } else { self.said.held.load(Ordering::SeqCst) }
    }

    /// How many of its workers lost their lock.
    pub(crate) fn lost(&self) -> usize {
        self.said.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("seen")
    }

    /// What it has of the machine's memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        resident(self.process.id()).unwrap_or(0)
    }

    /// From now on its workers are replaced in turn.
    pub(crate) fn churn(&mut self) {
        self.say("churn");
    }

    pub(crate) fn calm(&mut self) {
        self.say("calm");
    }

    fn say(&mut self, word: &str) {
        if let Some(input) = self.input.as_mut().filter(|_| self.killed.is_none()) {
            writeln!(input, "{word}").expect("it listens");
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
        self.killed = Some(monotonic_us());
    }

    /// Lets its workers leave, and waits for its end.
    pub(crate) fn finish(&mut self) {
        drop(self.input.take());
        self.process.wait().expect("it ends");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

/// What all workers of a process share.
struct Shared {
    seen: Mutex<File>,
    held: AtomicUsize,
    lost: AtomicUsize,
}

impl Shared {
    /// Written at once, without a buffer: what a process that is killed has seen must be there.
    fn note(&self, job: &assemblage::JobId, added: bool) {
        let job: u32 = job.as_str().parse().expect("a number");
        let mut seen = self.seen.lock().expect("no panic");
        let mut record = [0; 16];
        record[..8].copy_from_slice(&monotonic_us().to_le_bytes());
        record[8..12].copy_from_slice(&job.to_le_bytes());
        record[12] = added.into();
        seen.write_all(&record).expect("it is written");
        if added {
            self.held.fetch_add(1, Ordering::SeqCst);
        } else {
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The process: its workers, until its standard input ends.
pub(crate) async fn run(url: &str, workers: usize, file: &str) {
    let cluster = super::builder().connect_url(url).await.expect("it connects");
    let seen = Mutex::new(File::create(file).expect("a file"));
    let shared = Arc::new(Shared { seen, held: AtomicUsize::new(0), lost: AtomicUsize::new(0) });
    let mut handles = VecDeque::new();
    let (lost, mut losses) = tokio::sync::mpsc::unbounded_channel();
    let join = async || -> WorkerHandle {
        let worker = cluster.worker().await.expect("it joins");
        let handle = worker.handle();
        tokio::spawn(consume(worker, shared.clone(), lost.clone()));
        handle
    };
    for _ in 0..workers {
        handles.push_back(join().await);
    }
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut report = tokio::time::interval(Duration::from_millis(200));
    let (mut replace, mut churning) = (tokio::time::interval(REPLACE), false);
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(word)) => churning = word == "churn",
                _ => break,
            },
            _ = report.tick() => {
                println!("{} {}", shared.held.load(Ordering::SeqCst), shared.lost.load(Ordering::SeqCst));
            }
            _ = replace.tick(), if churning => {
                if let Some(handle) = handles.pop_front() {
                    drop(handle.terminate()); // begun by the call
                }
                handles.push_back(join().await);
            }
            Some(id) = losses.recv() => {
                handles.retain(|handle: &WorkerHandle| handle.id() != id);
                handles.push_back(join().await);
            }
        }
    }
    futures::future::join_all(handles.iter().map(WorkerHandle::terminate)).await;
}

/// As a good application does: each job is kept until its `Delete`, and let go of then.
async fn consume(
    mut worker: Worker,
    shared: Arc<Shared>,
    lost: tokio::sync::mpsc::UnboundedSender<assemblage::WorkerId>,
) {
    let mut held = HashMap::new();
    while let Some(event) = worker.next().await {
        match event {
            Event::Add(job) => {
                shared.note(job.id(), true);
                held.insert(job.id().clone(), job);
            }
            Event::Update(job) => drop(held.insert(job.id().clone(), job)),
            Event::Delete(deletion) => {
                shared.note(deletion.id(), false); // before it is let go of
                held.remove(deletion.id());
            }
            Event::Close(CloseReason::LockExpired) => {
                shared.lost.fetch_add(1, Ordering::SeqCst);
                let _ = lost.send(worker.id());
            }
            _ => {}
        }
    }
}
