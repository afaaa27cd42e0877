//! What consumers saw, checked as it happens: never two holders, events in turn, epochs that only grow.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assemblage::{CloseReason, Event, Job, JobId, Worker, WorkerHandle, WorkerId};
use futures::StreamExt;
use tokio::task::JoinHandle;

#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    holders: HashMap<JobId, WorkerId>,
    epochs: HashMap<JobId, u64>,
    moves: HashMap<JobId, usize>,
    violations: Vec<String>,
    updates: usize,
    errors: Vec<String>,
    /// The newest payload of each, where it is text.
    payloads: HashMap<JobId, String>,
    /// Since when a job is held by nobody.
    free_since: HashMap<JobId, Instant>,
    longest_gap: Duration,
}

impl Ledger {
    /// Consumes a worker's events as a good application does: it keeps each job until its `Delete`, and drops it then.
    pub(crate) fn consume(&self, mut worker: Worker) -> Consumer {
        let (ledger, handle) = (self.clone(), worker.handle());
        let task = tokio::spawn(async move {
            let (mut held, mut closed) = (HashMap::new(), None);
            while let Some(event) = worker.next().await {
                if closed.is_some() {
                    ledger.violation(format!("worker {}: {event:?} after Close", worker.id()));
                }
                match event {
                    Event::Add(job) => {
                        ledger.add(worker.id(), job.id(), job.epoch().get());
                        ledger.note_payload(&job);
                        if held.insert(job.id().clone(), job).is_some() {
                            ledger.violation("two Adds in a row".into());
                        }
                    }
                    Event::Update(job) => {
                        ledger.update(worker.id(), job.id(), job.epoch().get());
                        ledger.note_payload(&job);
                        if held.insert(job.id().clone(), job).is_none() {
                            ledger.violation("an Update without an Add".into());
                        }
                    }
                    Event::Delete(deletion) => {
                        ledger.delete(worker.id(), deletion.id());
                        if held.remove(deletion.id()).is_none() {
                            ledger.violation("a Delete without an Add".into());
                        }
                    }
                    Event::Close(reason) => {
                        if !held.is_empty() {
                            ledger.violation(format!("Close with {} jobs held", held.len()));
                        }
                        closed = Some(reason);
                    }
                    Event::Error(error) => ledger.0.lock().unwrap().errors.push(error.to_string()),
                    _ => {}
                }
            }
            closed.expect("a stream ends with Close")
        });
        Consumer { handle, task }
    }

    fn add(&self, worker: WorkerId, job: &JobId, epoch: u64) {
        let mut book = self.0.lock().unwrap();
        if let Some(holder) = book.holders.insert(job.clone(), worker) {
            book.violations.push(format!("{job}: added at worker {worker} while worker {holder} holds it"));
        }
        let last = book.epochs.insert(job.clone(), epoch).unwrap_or(0);
        if epoch <= last {
            book.violations.push(format!("{job}: epoch {epoch} after {last}"));
        }
        *book.moves.entry(job.clone()).or_default() += 1;
        if let Some(since) = book.free_since.remove(job) {
            book.longest_gap = book.longest_gap.max(since.elapsed());
        }
    }

    fn note_payload(&self, job: &Job) {
        if let Ok(text) = job.payload::<String>() {
            self.0.lock().unwrap().payloads.insert(job.id().clone(), text);
        }
    }

    fn update(&self, worker: WorkerId, job: &JobId, epoch: u64) {
        let mut book = self.0.lock().unwrap();
        book.updates += 1;
        if book.holders.get(job) != Some(&worker) {
            book.violations.push(format!("{job}: updated at worker {worker} that does not hold it"));
        }
        let last = book.epochs.insert(job.clone(), epoch).unwrap_or(0);
        if epoch < last {
            book.violations.push(format!("{job}: epoch {epoch} after {last}"));
        }
    }

    fn delete(&self, worker: WorkerId, job: &JobId) {
        let mut book = self.0.lock().unwrap();
        if book.holders.remove(job) != Some(worker) {
            book.violations.push(format!("{job}: deleted at worker {worker} that does not hold it"));
        }
        book.free_since.insert(job.clone(), Instant::now());
    }

    fn violation(&self, text: String) {
        self.0.lock().unwrap().violations.push(text);
    }

    /// Which jobs are held now.
    pub(crate) fn held(&self) -> HashSet<JobId> {
        self.0.lock().unwrap().holders.keys().cloned().collect()
    }

    pub(crate) fn held_by(&self, worker: WorkerId) -> usize {
        self.0.lock().unwrap().holders.values().filter(|holder| **holder == worker).count()
    }

    pub(crate) fn updates(&self) -> usize {
        self.0.lock().unwrap().updates
    }

    /// The newest payload that was seen of a job, if it is text.
    pub(crate) fn payload(&self, job: &JobId) -> String {
        self.0.lock().unwrap().payloads.get(job).cloned().unwrap_or_default()
    }

    /// The longest time from a job's `Delete` to its next `Add`.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.0.lock().unwrap().longest_gap
    }

    /// How often a job was added to a worker.
    pub(crate) fn moves(&self, job: &JobId) -> usize {
        self.0.lock().unwrap().moves.get(job).copied().unwrap_or(0)
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.0.lock().unwrap().errors.clone()
    }

    /// Fails the test if a promise was broken.
    pub(crate) fn assert_clean(&self) {
        let book = self.0.lock().unwrap();
        assert!(book.violations.is_empty(), "{} violations: {:#?}", book.violations.len(), book.violations);
    }
}

/// A worker that is being consumed.
pub(crate) struct Consumer {
    pub(crate) handle: WorkerHandle,
    task: JoinHandle<CloseReason>,
}

impl Consumer {
    pub(crate) fn id(&self) -> WorkerId {
        self.handle.id()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.task.is_finished()
    }

    /// How its stream ended.
    pub(crate) async fn closed(self) -> CloseReason {
        tokio::time::timeout(super::PATIENCE, self.task).await.expect("the stream ends").expect("no panic")
    }
}
