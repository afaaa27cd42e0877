//! What the scripts do, as far as a watcher sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::change::Change;
use crate::core::feed::Picture;
use crate::id::{Epoch, JobId, Revision, WorkerId};
use crate::message::{Batch, History};

pub(super) const JOBS: usize = 6;

/// What there is: the jobs, each with who holds it and since when, and the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) jobs: BTreeMap<JobId, Option<WorkerId>>,
    pub(super) workers: BTreeSet<WorkerId>,
}

impl State {
    /// What a consumer makes of a change.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::JobAdded { job, .. } => drop(self.jobs.insert(job.clone(), None)),
            Change::JobAssigned { job, worker, .. } => drop(self.jobs.insert(job.clone(), Some(*worker))),
            Change::JobReleased { job, .. } => drop(self.jobs.insert(job.clone(), None)),
            Change::JobDeleted { job, .. } => drop(self.jobs.remove(job)),
            Change::WorkerJoined { worker, .. } => drop(self.workers.insert(*worker)),
            Change::WorkerLeft { worker, .. } => drop(self.workers.remove(worker)),
            other => panic!("not of this model: {other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) revision: u64,
    pub(super) state: State,
    /// As it was after each revision at which anything changed.
    states: BTreeMap<u64, State>,
    /// All changes that were ever told, in order.
    pub(super) log: Vec<Change>,
    /// Where somebody began to watch after nobody had: what was before is not told.
    pub(super) holes: Vec<u64>,
    watched: bool,
    from: u64,
    pub(super) last: u64,
    /// How many batches are kept; 0: none.
    pub(super) length: usize,
    journal: VecDeque<Batch>,
    /// How many jobs are in a page.
    page_rows: usize,
}

pub(super) fn id(job: usize) -> JobId {
    JobId::new(format!("{}/{job}", ["eu", "us"][job % 2])).expect("a plain id")
}

impl Server {
    pub(super) fn new(length: usize, page_rows: usize) -> Self {
        let mut server = Self {
            revision: 1_000,
            state: State::default(),
            states: BTreeMap::new(),
            log: Vec::new(),
            holes: Vec::new(),
            watched: false,
            from: 0,
            last: 0,
            length,
            journal: VecDeque::new(),
            page_rows,
        };
        server.watch();
        server
    }

    fn tick(&mut self) -> u64 {
        self.revision += 1 + self.revision % 3;
        self.revision
    }

    /// One script that changes so many things. What it tells, if anybody watches.
    pub(super) fn change(&mut self, count: usize, which: usize) -> Option<Batch> {
        let mut changes = Vec::new();
        for number in 0..count {
            let change = self.step(which + 5 * number);
            self.state.apply(&change);
            self.states.insert(self.revision, self.state.clone());
            changes.push(change);
        }
        if !self.watched {
            return None;
        }
        self.log.extend(changes.iter().cloned());
        let batch = Batch { last: Revision(self.revision), previous: Revision(self.last), changes };
        self.last = self.revision;
        if self.length > 0 {
            self.journal.push_back(batch.clone());
            self.trim(self.length);
        }
        Some(batch)
    }

    fn step(&mut self, which: usize) -> Change {
        let revision = Revision(self.tick());
        let worker = WorkerId(1 + which as u64 % 2);
        if which % 7 == 6 {
            return if self.state.workers.contains(&worker) {
                Change::WorkerLeft { revision, worker }
            } else {
                Change::WorkerJoined { revision, worker }
            };
        }
        let job = id(which % JOBS);
        match self.state.jobs.get(&job) {
            None => Change::JobAdded { revision, job },
            Some(None) if which.is_multiple_of(5) => Change::JobDeleted { revision, job },
            Some(None) => Change::JobAssigned { revision, job, worker, epoch: Epoch(revision.0) },
            Some(Some(_)) if which % 5 < 2 => Change::JobDeleted { revision, job },
            Some(Some(worker)) => Change::JobReleased { revision, job, worker: *worker },
        }
    }

    pub(super) fn state_at(&self, revision: Revision) -> State {
        self.states.range(..=revision.0).next_back().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    /// A watcher's heartbeat, or how it begins a snapshot.
    pub(super) fn watch(&mut self) -> Revision {
        if !self.watched {
            self.last = self.tick();
            (self.watched, self.from) = (true, self.last);
            self.holes.push(self.last);
            self.journal.clear();
        }
        Revision(self.last)
    }

    /// No heartbeat came for long.
    pub(super) fn lapse(&mut self) {
        self.watched = false;
    }

    pub(super) fn trim(&mut self, length: usize) {
        while self.journal.len() > length {
            self.journal.pop_front();
        }
    }

    /// Somebody deletes an entry of the journal by hand.
    pub(super) fn lose_entry(&mut self, which: usize) {
        if !self.journal.is_empty() {
            self.journal.remove(which % self.journal.len());
        }
    }

    pub(super) fn history(&self, after: Revision, limit: usize) -> History {
        let target = Revision(if self.watched { self.last } else { 0 });
        if after.0 < self.from || after.0 > self.revision || !self.watched {
            return History { reaches: false, target, batches: Vec::new(), more: false };
        }
        let mut batches: Vec<_> = self.journal.iter().filter(|batch| batch.last > after).cloned().collect();
        let (reaches, more) = (!batches.is_empty() || after >= target, batches.len() > limit);
        batches.truncate(limit);
        History { reaches, target, batches, more }
    }

    /// A page as it is now; the first begins with a heartbeat.
    pub(super) fn page(&mut self, cursor: Option<&str>) -> (Option<Revision>, Picture) {
        let revision = Revision(self.revision);
        let Some(cursor) = cursor else {
            let read_at = self.watch();
            let joined =
                self.state.workers.iter().map(|worker| Change::WorkerJoined { revision, worker: *worker });
            return (Some(read_at), Picture { changes: joined.collect(), next: Some("0".into()) });
        };
        let start: usize = cursor.parse().expect("a cursor of this model");
        let end = (start + self.page_rows).min(JOBS);
        let mut changes = Vec::new();
        for job in (start..end).map(id) {
            let Some(holder) = self.state.jobs.get(&job) else { continue };
            changes.push(Change::JobAdded { revision, job: job.clone() });
            let assigned = |worker| Change::JobAssigned { revision, job, worker, epoch: Epoch(revision.0) };
            changes.extend(holder.map(assigned));
        }
        (None, Picture { changes, next: (end < JOBS).then(|| end.to_string()) })
    }

    /// A replica with an older state takes over. Its clock is by the time: never behind what the lost server gave out.
    pub(super) fn fail_over_to(&mut self, copy: &Self) {
        *self = Self { revision: self.revision, ..copy.clone() };
        self.states.insert(self.revision, self.state.clone());
    }
}
