//! A snapshot that is fed with rows, each read at another point of a random history, and then with the changes since the
//! first, is the truth. PROTOCOL.md says why: the changes are such that the later one wins.
//!
//! ```text
//! history   c1 c2 | c3    c4 c5    c6      c7 | c8 c9
//! rows            ^ first   ^ job a   ^ job b
//! told            rows: a, b, ..  changes: c3 .. c7 = the truth as of c7; and after each of c8, c9
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::picture;
use super::Snapshot;
use crate::change::Change;
use crate::id::{Epoch, JobId, Revision, WorkerId};
use crate::message::Order;
use crate::redis::store::{JobState, Record, RosterRow};

const JOBS: usize = 3;
const WORKERS: u64 = 3;

fn id(job: usize) -> JobId {
    JobId::new(format!("job{job}")).expect("a plain id")
}

/// What the scripts do to one of the jobs or workers, if it can be done.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize),
    Update(usize),
    Delete(usize),
    Move(usize),
    Release(usize),
    Quarantine(usize),
    Requeue(usize),
    Place(usize),
    Join(u64),
    Drain(u64),
    /// A master has a worker drained, or lets it go on.
    Order(u64, bool),
    Beat(u64),
    Leave(u64),
    Expire(u64),
}

fn op() -> impl Strategy<Value = Op> {
    (0..24_u8, any::<u8>()).prop_map(|(kind, n)| {
        let (job, worker) = (usize::from(n) % JOBS, 1 + u64::from(n) % WORKERS);
        match kind {
            0..4 => Op::Add(job),
            4 => Op::Update(job),
            5..9 => Op::Delete(job),
            9..11 => Op::Move(job),
            11..15 => Op::Release(job),
            15 => Op::Quarantine(job),
            16 => Op::Requeue(job),
            17 => Op::Place(job),
            18 => Op::Join(worker),
            19 => Op::Drain(worker),
            20 => Op::Order(worker, n < 128),
            21 => Op::Beat(worker),
            22 => Op::Leave(worker),
            _ => Op::Expire(worker),
        }
    })
}

#[derive(Clone, Copy, Debug)]
struct Worker {
    takes: bool,
    order: Order,
}

#[derive(Debug)]
struct Server {
    revision: u64,
    lifted: u64,
    jobs: BTreeMap<JobId, Record>,
    workers: BTreeMap<WorkerId, Worker>,
    changes: Vec<Change>,
}

impl Server {
    fn tick(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Add(job) => self.add(id(job)),
            Op::Update(job) => {
                if self.jobs.get(&id(job)).is_some_and(|record| record.born.0 > 0) {
                    let revision = self.tick();
                    self.changes.push(Change::JobUpdated { revision, job: id(job) });
                }
            }
            Op::Delete(job) => self.delete(id(job)),
            Op::Move(job) => {
                if let Some(Record { state: JobState::Assigned { worker, epoch }, .. }) =
                    self.jobs.get(&id(job))
                {
                    let state = JobState::Moving { worker: *worker, epoch: *epoch };
                    let revision = self.tick();
                    self.set(&id(job), state);
                    self.changes.push(Change::JobMoving { revision, job: id(job) });
                }
            }
            Op::Release(job) => self.release(id(job)),
            Op::Quarantine(job) => {
                let state = self.jobs.get(&id(job)).map(|record| record.state);
                if let Some(JobState::Assigned { .. } | JobState::Moving { .. }) = state {
                    let revision = self.tick();
                    self.set(&id(job), JobState::Quarantined);
                    self.changes.push(Change::JobQuarantined { revision, job: id(job) });
                }
            }
            Op::Requeue(job) => {
                if self.jobs.get(&id(job)).is_some_and(|record| record.state == JobState::Quarantined) {
                    let revision = self.tick();
                    self.set(&id(job), JobState::Pending);
                    self.changes.push(Change::JobRequeued { revision, job: id(job) });
                    self.place(&id(job));
                }
            }
            Op::Place(job) => {
                if self.jobs.get(&id(job)).is_some_and(|record| record.state == JobState::Pending) {
                    self.place(&id(job));
                }
            }
            Op::Join(worker) if !self.workers.contains_key(&WorkerId(worker)) => {
                let (revision, worker) = (self.tick(), WorkerId(worker));
                self.workers.insert(worker, Worker { takes: true, order: Order::Resume });
                self.changes.push(Change::WorkerJoined { revision, worker });
            }
            Op::Join(_) => {}
            Op::Drain(worker) => self.drain(WorkerId(worker)),
            Op::Order(worker, drain) => {
                let order = if drain { Order::Drain } else { Order::Resume };
                if let Some(known) = self.workers.get_mut(&WorkerId(worker)) {
                    known.order = order;
                    if drain {
                        self.drain(WorkerId(worker));
                    }
                }
            }
            Op::Beat(worker) => {
                let worker = WorkerId(worker);
                if let Some(Worker { takes: takes @ false, order: Order::Resume }) =
                    self.workers.get_mut(&worker)
                {
                    *takes = true;
                    let revision = self.tick();
                    self.changes.push(Change::WorkerResumed { revision, worker });
                }
            }
            Op::Leave(worker) | Op::Expire(worker) => {
                let worker = WorkerId(worker);
                if self.workers.remove(&worker).is_none() {
                    return;
                }
                let revision = self.tick();
                self.changes.push(match op {
                    Op::Leave(_) => Change::WorkerLeft { revision, worker },
                    _ => Change::WorkerExpired { revision, worker },
                });
                let held = self.jobs.iter().filter(|(_, record)| super::owner(&record.state) == Some(worker));
                for job in held.map(|(job, _)| job.clone()).collect::<Vec<_>>() {
                    self.release(job);
                }
            }
        }
    }

    fn set(&mut self, job: &JobId, state: JobState) {
        if let Some(record) = self.jobs.get_mut(job) {
            record.state = state;
        }
    }

    fn add(&mut self, job: JobId) {
        match self.jobs.get_mut(&job) {
            None => {
                let revision = self.tick();
                let record = Record { state: JobState::Pending, grant: Revision(0), born: revision };
                self.jobs.insert(job.clone(), record);
                self.changes.push(Change::JobAdded { revision, job: job.clone() });
                self.place(&job);
            }
            Some(record) if matches!(record.state, JobState::Releasing { .. }) && record.born.0 == 0 => {
                record.born = Revision(self.revision + 1);
                let revision = self.tick();
                self.changes.push(Change::JobAdded { revision, job });
            }
            Some(_) => {}
        }
    }

    fn delete(&mut self, job: JobId) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        match record.state {
            JobState::Releasing { .. } if record.born.0 == 0 => return,
            JobState::Assigned { worker, epoch }
            | JobState::Moving { worker, epoch }
            | JobState::Releasing { worker, epoch } => {
                (record.state, record.born) = (JobState::Releasing { worker, epoch }, Revision(0));
            }
            JobState::Pending | JobState::Quarantined => drop(self.jobs.remove(&job)),
        }
        let revision = self.tick();
        self.changes.push(Change::JobDeleted { revision, job });
    }

    fn release(&mut self, job: JobId) {
        let Some(Record { state, born, .. }) = self.jobs.get(&job).copied() else { return };
        let Some(worker) = super::owner(&state) else { return };
        let revision = self.tick();
        self.changes.push(Change::JobReleased { revision, job: job.clone(), worker });
        if born.0 == 0 {
            self.jobs.remove(&job);
        } else {
            self.set(&job, JobState::Pending);
            self.place(&job);
        }
    }

    /// Gives a job that waits to somebody, if there is one.
    fn place(&mut self, job: &JobId) {
        let takers: Vec<_> =
            self.workers.iter().filter(|(_, worker)| worker.takes).map(|(worker, _)| *worker).collect();
        if takers.is_empty() {
            return;
        }
        let revision = self.tick();
        let worker = takers[usize::try_from(revision.0).expect("small") % takers.len()];
        let epoch = Epoch(revision.0);
        if let Some(record) = self.jobs.get_mut(job) {
            (record.state, record.grant) = (JobState::Assigned { worker, epoch }, revision);
        }
        self.changes.push(Change::JobAssigned { revision, job: job.clone(), worker, epoch });
    }

    fn drain(&mut self, worker: WorkerId) {
        if let Some(Worker { takes: takes @ true, .. }) = self.workers.get_mut(&worker) {
            *takes = false;
            let revision = self.tick();
            self.changes.push(Change::WorkerDraining { revision, worker });
        }
    }

    /// Another run of the server was seen: all epochs grow.
    fn lift(&mut self) {
        self.lifted = self.tick().0;
        for record in self.jobs.values_mut() {
            if let JobState::Assigned { epoch, .. }
            | JobState::Moving { epoch, .. }
            | JobState::Releasing { epoch, .. } = &mut record.state
            {
                *epoch = Epoch(self.lifted);
            }
        }
    }

    /// What a page tells of one job or worker.
    fn row(&self, subject: usize) -> Vec<Change> {
        if subject < JOBS {
            return self
                .jobs
                .get(&id(subject))
                .map(|record| picture::job(id(subject), *record))
                .unwrap_or_default();
        }
        let worker = WorkerId((subject - JOBS) as u64 + 1);
        let Some(Worker { takes, order }) = self.workers.get(&worker).copied() else { return Vec::new() };
        picture::worker(&RosterRow {
            worker,
            since: Duration::from_secs(1),
            remaining: Duration::from_secs(1),
            jobs: 0,
            takes,
            weight: u64::from(takes),
            capacity: 0,
            order,
            info: Bytes::new(),
        })
    }

    fn is_there(&self, subject: usize) -> bool {
        !self.row(subject).is_empty()
    }

    fn assert_is(&self, snapshot: &Snapshot, when: &str) {
        let jobs: BTreeMap<_, _> = snapshot.jobs().map(|(job, state)| (job.clone(), state)).collect();
        let wanted: BTreeMap<_, _> =
            self.jobs.iter().map(|(job, record)| (job.clone(), record.state)).collect();
        assert_eq!(jobs, wanted, "{when}");
        let workers: BTreeMap<_, _> = snapshot.workers().collect();
        let wanted: BTreeMap<_, _> = self.workers.iter().map(|(id, worker)| (*id, worker.takes)).collect();
        assert_eq!(workers, wanted, "{when}");
        assert!(snapshot.again.iter().all(|job| snapshot.jobs.contains_key(job)), "{when}: nothing piles up");
    }
}

/// While the pages are read: something happens, or a row is read.
#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Op),
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => op().prop_map(Step::Do), 1 => (0..JOBS + WORKERS as usize).prop_map(Step::Read)]
}

proptest! {
    // Promise: after each `Synced`, and after each change that follows, the mirror is the truth.
    #[test]
    fn rows_of_many_moments_and_then_the_changes_since_the_first_make_the_truth(
        before in prop::collection::vec(op(), 0..40),
        lift in any::<bool>(),
        more in prop::collection::vec(op(), 0..20),
        meanwhile in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(op(), 0..40),
        misses in any::<bool>(),
    ) {
        let mut server = Server {
            revision: 1_000,
            lifted: 0,
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            changes: Vec::new(),
        };
        for op in before {
            server.run(op);
        }
        if lift {
            server.lift();
        }
        for op in more {
            server.run(op);
        }

        let read_at = server.changes.len();
        let mut snapshot = Snapshot::default();
        let subjects = JOBS + WORKERS as usize;
        let (mut read, mut was_away) = (BTreeSet::new(), BTreeSet::new());
        for step in meanwhile {
            was_away.extend((0..subjects).filter(|subject| !server.is_there(*subject)));
            match step {
                Step::Do(op) => server.run(op),
                // The server may tell of some twice, while its table grows.
                Step::Read(subject) => {
                    read.insert(subject);
                    server.row(subject).into_iter().for_each(|change| snapshot.apply(change));
                }
            }
        }
        // Who is there throughout is listed; who is not may be missed.
        for subject in (0..subjects).filter(|subject| !read.contains(subject)) {
            if !(misses && was_away.contains(&subject)) {
                server.row(subject).into_iter().for_each(|change| snapshot.apply(change));
            }
        }
        for change in &server.changes[read_at..] {
            snapshot.apply(change.clone());
        }
        server.assert_is(&snapshot, "when synced");

        for op in after {
            let told = server.changes.len();
            server.run(op);
            for change in &server.changes[told..] {
                snapshot.apply(change.clone());
            }
            server.assert_is(&snapshot, &format!("after {op:?}"));
        }
    }
}
