//! A view against a small model of the server, through a network that loses, repeats and reorders.
//!
//! Safety first: faults, in any order, while every delivery and release is checked. Then liveness: faults end,
//! a sync is asked for, and soon nothing moves any more and the consumer holds what the server says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Command, View};
use crate::core::queue::Delivery;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, Row, RowState, SPAN};

const JOBS: u8 = 4;
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_millis(50);

/// What may happen next. An index names one of what is under way, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Assign(u8),
    Delete(u8),
    AddAgain(u8),
    Rebalance(u8),
    /// The server is another one: with all that it knew, or with what it knew at the last `Save`.
    Lift,
    Save,
    Failover,
    Frame,
    LoseFrame,
    RepeatFrame,
    SwapFrames,
    ServeSync(usize),
    Page(usize),
    FailSync(usize),
    ServeRelease(usize),
    AnswerRelease(usize),
    LoseRelease(usize),
    LoseAnswer(usize),
    Gap,
    Audit,
    Poll,
    Drop(u8),
    Pass(u64),
    Drain,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let job = || 0..JOBS;
    let index = || 0..8usize;
    prop_oneof![
        12 => job().prop_map(Step::Assign),
        8 => job().prop_map(Step::Delete),
        6 => job().prop_map(Step::AddAgain),
        4 => job().prop_map(Step::Rebalance),
        1 => Just(Step::Lift),
        2 => Just(Step::Save),
        1 => Just(Step::Failover),
        24 => Just(Step::Frame),
        2 => Just(Step::LoseFrame),
        2 => Just(Step::RepeatFrame),
        2 => Just(Step::SwapFrames),
        16 => index().prop_map(Step::ServeSync),
        16 => index().prop_map(Step::Page),
        1 => index().prop_map(Step::FailSync),
        10 => index().prop_map(Step::ServeRelease),
        10 => index().prop_map(Step::AnswerRelease),
        1 => index().prop_map(Step::LoseRelease),
        2 => index().prop_map(Step::LoseAnswer),
        2 => Just(Step::Gap),
        3 => Just(Step::Audit),
        24 => Just(Step::Poll),
        12 => job().prop_map(Step::Drop),
        6 => (0..8_000u64).prop_map(Step::Pass),
    ]
}

/// A whole trial; a few of them end by a drain or a close.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![6 => Just(None), 1 => Just(Some(Step::Drain)), 1 => Just(Some(Step::Close))];
    (prop::collection::vec(step(), 1..160), end, any::<prop::sample::Index>()).prop_map(
        |(mut steps, end, at)| {
            if let Some(end) = end {
                steps.insert(at.index(steps.len()), end);
            }
            steps
        },
    )
}

/// Who has a job, as the server sees it. What is in no record is not in the cluster.
#[derive(Clone, Debug)]
struct Record {
    ours: bool,
    releasing: bool,
    grant: u64,
    /// Zero: deleted, and gone when it is released.
    born: u64,
}

#[derive(Clone, Debug, Default)]
struct Server {
    revision: u64,
    inbox: u64,
    lifted: u64,
    draining: bool,
    records: BTreeMap<JobId, Record>,
}

impl Server {
    fn tick(&mut self) -> u64 {
        // Uneven steps, so that residues go round and pages cut anywhere.
        self.revision += 1 + (self.revision % 7) * (SPAN / 5);
        self.revision
    }

    fn send(&mut self, revision: u64, body: Body) -> Frame {
        let previous = std::mem::replace(&mut self.inbox, revision);
        Frame { revision: Revision(revision), previous: Revision(previous), body }
    }

    /// Gives a job that nobody holds to us, or to another.
    fn assign(&mut self, job: &JobId, born: Option<u64>, ours: bool) -> Option<Frame> {
        let grant = self.tick();
        let born = born.unwrap_or(grant);
        let ours = ours && !self.draining;
        self.records.insert(job.clone(), Record { ours, releasing: false, grant, born });
        let body = Body::Add { job: job.clone(), born: Revision(born), payload: Bytes::from_static(b"p") };
        ours.then(|| self.send(grant, body))
    }

    fn release(&mut self, job: &JobId, grant: u64) -> (bool, Option<Frame>) {
        match self.records.get(job).cloned() {
            Some(record) if record.ours && record.grant == grant => {
                self.records.remove(job);
                let back_to_us = self.revision.is_multiple_of(2);
                let frame =
                    (record.born != 0).then(|| self.assign(job, Some(record.born), back_to_us)).flatten();
                (true, frame)
            }
            _ => (false, None),
        }
    }

    fn page(&self, since: Revision, cursor: Option<Cursor>) -> Page {
        const LIMIT: usize = 2;
        let mut rows: Vec<(u64, Row)> = self
            .records
            .iter()
            .filter(|(_, record)| record.ours)
            .map(|(job, record)| {
                let payload = (record.grant > since.get()).then(|| Bytes::from_static(b"p"));
                let state = if record.releasing { RowState::Releasing } else { RowState::Active(payload) };
                let (grant, born) = (Revision(record.grant), Revision(record.born));
                (record.grant % SPAN, Row { job: job.clone(), grant, born, changed: Revision(0), state })
            })
            .filter(|(residue, _)| cursor.is_none_or(|cursor| *residue > cursor.0))
            .collect();
        rows.sort_by_key(|(residue, _)| *residue);
        // Never between two rows of equal residue.
        let end = (LIMIT..rows.len()).find(|end| rows[*end].0 != rows[end - 1].0);
        let next = end.map(|end| Cursor(rows[end - 1].0));
        rows.truncate(end.unwrap_or(rows.len()));
        Page {
            revision: Revision(self.revision),
            inbox: Revision(self.inbox),
            lifted: Revision(self.lifted),
            next,
            rows: rows.into_iter().map(|(_, row)| row).collect(),
        }
    }
}

/// A handle that the consumer has not dropped.
#[derive(Clone, Copy, Debug)]
struct Handle {
    epoch: u64,
    /// When its token was cancelled.
    cancelled: Option<Instant>,
    delete_polled: bool,
}

type Asked = (u64, Revision, Option<Cursor>);

struct Trial {
    view: View,
    now: Instant,
    server: Server,
    saved: Server,
    /// A failover lost writes: two owners are possible, as the design says.
    forgot: bool,
    frames: VecDeque<Frame>,
    asked: Vec<Asked>,
    pages: Vec<(u64, Page)>,
    releases: Vec<(JobId, u64)>,
    answers: Vec<(JobId, u64, bool)>,
    syncs: usize,
    handles: BTreeMap<(JobId, u64), Handle>,
    /// What was commanded to be released must never begin.
    released: BTreeSet<(JobId, u64)>,
    /// The job's assignment whose `Delete` was not polled yet.
    current: BTreeMap<JobId, u64>,
    newest_epoch: BTreeMap<JobId, u64>,
    draining: bool,
    closing: bool,
    closed: bool,
}

fn job(index: u8) -> JobId {
    JobId::new(format!("job-{index}")).expect("a plain id")
}

/// Takes one of what is under way.
fn take<T>(from: &mut Vec<T>, index: usize) -> Option<T> {
    if from.is_empty() { None } else { Some(from.remove(index % from.len())) }
}

impl Trial {
    fn new() -> Self {
        let mut server = Server { revision: 100, ..Server::default() };
        server.inbox = server.tick();
        let mut trial = Self {
            view: View::new(RELEASE_TIMEOUT, GRACE),
            now: Instant::now(),
            saved: server.clone(),
            server,
            forgot: false,
            frames: VecDeque::new(),
            asked: Vec::new(),
            pages: Vec::new(),
            releases: Vec::new(),
            answers: Vec::new(),
            syncs: 0,
            handles: BTreeMap::new(),
            released: BTreeSet::new(),
            current: BTreeMap::new(),
            newest_epoch: BTreeMap::new(),
            draining: false,
            closing: false,
            closed: false,
        };
        trial.view.handle_gap();
        trial.settle();
        trial
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign(index) => {
                let id = job(index);
                if self.server.records.get(&id).is_none_or(|record| !record.ours) {
                    let frame = self.server.assign(&id, None, true);
                    self.frames.extend(frame);
                }
            }
            Step::Delete(index) => self.mark(&job(index), DeleteReason::Removed),
            Step::Rebalance(index) => self.mark(&job(index), DeleteReason::Rebalanced),
            Step::AddAgain(index) => {
                let born = self.server.tick();
                if let Some(record) =
                    self.server.records.get_mut(&job(index)).filter(|record| record.born == 0)
                {
                    record.born = born;
                }
            }
            Step::Lift => self.server.lifted = self.server.tick(),
            Step::Save => self.saved = self.server.clone(),
            Step::Failover => {
                // The clock goes on, and whoever was connected has lost that connection.
                let (revision, draining) = (self.server.revision, self.server.draining);
                self.server = Server { revision, draining, ..self.saved.clone() };
                self.server.lifted = self.server.tick();
                self.forgot = true;
                self.frames.clear();
                self.view.handle_gap();
            }
            Step::Frame => {
                if let Some(frame) = self.frames.pop_front() {
                    self.view.handle_frame(self.now, frame);
                }
            }
            Step::LoseFrame => drop(self.frames.pop_front()),
            Step::RepeatFrame => self.frames.extend(self.frames.front().cloned()),
            Step::SwapFrames => {
                if self.frames.len() > 1 {
                    self.frames.swap(0, 1);
                }
            }
            Step::ServeSync(index) => {
                if let Some((request, since, cursor)) = take(&mut self.asked, index) {
                    self.pages.push((request, self.server.page(since, cursor)));
                }
            }
            Step::Page(index) => {
                if let Some((request, page)) = take(&mut self.pages, index) {
                    self.view.handle_page(self.now, request, page);
                }
            }
            Step::FailSync(index) => {
                if let Some((request, ..)) = take(&mut self.asked, index) {
                    self.view.handle_sync_failed(request);
                }
            }
            Step::ServeRelease(index) => {
                if let Some((job, grant)) = take(&mut self.releases, index) {
                    let held = self.is_held(&job);
                    let (mine, frame) = self.server.release(&job, grant);
                    // "One owner": it is the server's leave to give the job to another.
                    assert!(
                        !(mine && held) || self.forgot,
                        "{job} {grant} is released while a handle counts"
                    );
                    self.frames.extend(frame);
                    self.answers.push((job, grant, mine));
                }
            }
            Step::AnswerRelease(index) => {
                if let Some((job, grant, mine)) = take(&mut self.answers, index) {
                    self.view.handle_released(&job, Revision(grant), mine);
                }
            }
            Step::LoseRelease(index) => {
                if let Some((job, grant)) = take(&mut self.releases, index) {
                    self.view.handle_release_failed(&job, Revision(grant));
                }
            }
            Step::LoseAnswer(index) => {
                if let Some((job, grant, _)) = take(&mut self.answers, index) {
                    self.view.handle_release_failed(&job, Revision(grant));
                }
            }
            Step::Gap => self.view.handle_gap(),
            Step::Audit => {
                self.view.handle_audit(self.now, Revision(self.server.inbox), Revision(self.server.lifted));
            }
            Step::Poll => drop(self.poll()),
            Step::Drop(index) => self.drop_handles(&job(index)),
            Step::Pass(time) => {
                self.now += Duration::from_millis(time);
                self.view.handle_timeout(self.now);
            }
            Step::Drain => {
                self.draining = true;
                self.server.draining = true;
                self.view.handle_drain(self.now, DeleteReason::Terminated);
            }
            Step::Close => {
                self.closing = true;
                self.view.handle_close(CloseReason::LockExpired);
            }
        }
        self.settle();
    }

    /// The server marks a job as one to let go of.
    fn mark(&mut self, job: &JobId, reason: DeleteReason) {
        let Some(mut record) = self.server.records.get(job).cloned() else { return };
        let told = !record.releasing;
        if !record.ours {
            self.server.records.remove(job);
            return;
        }
        if reason == DeleteReason::Removed {
            record.born = 0;
        } else if record.releasing {
            return;
        }
        record.releasing = true;
        let grant = Revision(record.grant);
        self.server.records.insert(job.clone(), record);
        if told {
            let revision = self.server.tick();
            self.frames
                .push_back(self.server.send(revision, Body::Delete { job: job.clone(), grant, reason }));
        }
    }

    fn settle(&mut self) {
        while let Some(command) = self.view.poll_command() {
            match command {
                Command::Sync { request, since, cursor } => {
                    assert!(!self.closing);
                    self.syncs += 1;
                    self.asked.push((request, since, cursor));
                }
                Command::Resubscribe => assert!(!self.closing),
                Command::Cancel { job, grant } => {
                    let handle =
                        self.handles.get_mut(&(job, grant.get())).expect("what is cancelled is held");
                    assert!(handle.cancelled.is_none(), "cancelled twice");
                    handle.cancelled = Some(self.now);
                }
                Command::Release { job, grant } => {
                    assert!(!self.closing);
                    self.released.insert((job.clone(), grant.get()));
                    self.releases.push((job, grant.get()));
                }
            }
        }
        assert!(self.view.waiting_changes() <= usize::from(JOBS), "one pending change a job");
    }

    /// A handle that still counts.
    fn is_held(&self, job: &JobId) -> bool {
        self.handles.iter().any(|((id, _), handle)| {
            id == job && handle.cancelled.is_none_or(|at| self.now < at + RELEASE_TIMEOUT)
        })
    }

    /// The consumer polls once, and checks what it gets.
    fn poll(&mut self) -> bool {
        let Some(delivery) = self.view.poll_delivery() else { return false };
        assert!(!self.closed, "after Close: {delivery:?}");
        match delivery {
            Delivery::Add { job, grant, epoch, .. } => {
                let (grant, epoch) = (grant.get(), epoch.get());
                assert!(!self.closing && !self.draining, "nothing begins in a worker that ends");
                assert!(!self.released.contains(&(job.clone(), grant)), "{job} {grant} was released");
                assert!(!self.is_held(&job), "{job}: a second handle");
                assert!(self.current.insert(job.clone(), grant).is_none(), "{job}: two Adds in a row");
                let older = self.newest_epoch.insert(job.clone(), epoch);
                assert!(older.is_none_or(|older| older < epoch), "{job}: its epoch went back");
                self.handles.insert((job, grant), Handle { epoch, cancelled: None, delete_polled: false });
            }
            Delivery::Update { job, grant, epoch, .. } => {
                let grant = grant.get();
                assert_eq!(self.current.get(&job), Some(&grant), "an Update of what is not held");
                let handle = self.handles.get_mut(&(job.clone(), grant)).expect("held");
                assert!(handle.epoch < epoch.get(), "an Update of nothing");
                handle.epoch = epoch.get();
                self.newest_epoch.insert(job, epoch.get());
            }
            Delivery::Delete { job, grant, .. } => {
                let grant = grant.get();
                assert_eq!(self.current.remove(&job), Some(grant), "a Delete of what is not held");
                let handle = self.handles.get_mut(&(job, grant)).expect("held");
                assert!(handle.cancelled.is_some(), "handlers were not told");
                handle.delete_polled = true;
            }
            Delivery::Problem(_) => {}
            Delivery::Close(_) => {
                assert!(self.current.is_empty(), "a Delete for every job comes before Close");
                self.closed = true;
            }
        }
        true
    }

    /// The consumer drops what it may: the stream itself has a handle until the `Delete`.
    fn drop_handles(&mut self, job: &JobId) {
        let gone: Vec<u64> = self
            .handles
            .iter()
            .filter(|((id, _), handle)| id == job && handle.delete_polled)
            .map(|((_, grant), _)| *grant)
            .collect();
        for grant in gone {
            self.handles.remove(&(job.clone(), grant));
            self.view.handle_dropped(self.now, job, Revision(grant));
        }
    }

    /// Nothing is lost any more, and everybody does at once what is to be done.
    fn quiet_round(&mut self) {
        while self.poll() {}
        (0..JOBS).for_each(|index| self.step(Step::Drop(index)));
        for _ in 0..self.releases.len() {
            self.step(Step::ServeRelease(0));
        }
        for _ in 0..self.answers.len() {
            self.step(Step::AnswerRelease(0));
        }
        for _ in 0..self.frames.len() {
            self.step(Step::Frame);
        }
        for _ in 0..self.asked.len() {
            self.step(Step::ServeSync(0));
        }
        for _ in 0..self.pages.len() {
            self.step(Step::Page(0));
        }
        self.step(Step::Audit);
        self.step(Step::Pass(60));
    }

    fn check_end(&mut self) {
        self.frames.clear();
        self.asked.clear();
        self.pages.clear();
        for (job, grant, mine) in std::mem::take(&mut self.answers) {
            self.view.handle_released(&job, Revision(grant), mine);
        }
        self.step(Step::Gap);
        (0..40).for_each(|_| self.quiet_round());
        let syncs = self.syncs;
        (0..5).for_each(|_| self.quiet_round());
        assert_eq!(self.syncs, syncs, "it never comes to rest");

        if self.closing {
            assert!(self.closed && self.view.is_finished() && self.handles.is_empty());
            return;
        }
        let ours = self.server.records.iter().filter(|(_, record)| record.ours);
        let theirs: BTreeMap<(JobId, u64), u64> = ours
            .map(|(job, record)| {
                assert!(!record.releasing, "the server waits for a release of {job} for ever");
                ((job.clone(), record.grant), record.grant.max(self.server.lifted))
            })
            .collect();
        let held: BTreeMap<(JobId, u64), u64> =
            self.handles.iter().map(|(key, handle)| (key.clone(), handle.epoch)).collect();
        assert_eq!(held, theirs, "held here, and as the server says");
        assert_eq!(self.view.is_drained(), self.draining);
        assert!(self.view.slots.len() == held.len() && !self.view.has_delivery());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    // "One owner", "nothing lost", "the stream", "bounded memory": whatever is lost, repeated, reordered or late.
    #[test]
    fn whatever_happens_underneath_the_stream_is_in_turn_and_ends_as_the_server_says(steps in steps()) {
        let mut trial = Trial::new();
        for step in steps {
            trial.step(step);
        }
        trial.check_end();
    }
}
