//! A model server drives a view through a channel that loses, repeats and reorders, and a consumer that is checked.
//!
//! First whatever may go wrong goes wrong; then all faults end, and everything must heal: what the consumer holds is
//! what the server says, and nothing is stuck. To run more cases: `PROPTEST_CASES=100000 cargo test --lib model_test`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Command, Stage, View};
use crate::core::queue::Delivery;
use crate::error::ErrorKind;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, Row, RowState, SPAN};

const RELEASE_TIMEOUT: Duration = Duration::from_millis(100);
const AUDIT_GRACE: Duration = Duration::from_millis(5);
const JOBS: usize = 4;

type Request = (u64, Revision, Option<Cursor>);

/// What happens next. An index picks one of what is there (modulo how many there are).
#[derive(Clone, Debug)]
enum Op {
    /// A job is added, or one that waits elsewhere comes here.
    Assign(usize),
    Delete(usize),
    /// It is to go to another worker.
    Rebalance(usize),
    /// The server was restarted and has lost nothing.
    Lift,
    /// A replica took over that knows all but what came after the last `Copy`.
    Failover,
    Copy,
    /// The frame that was sent first is delivered.
    Deliver,
    /// Any frame is delivered, and perhaps again later.
    DeliverAny(usize, bool),
    Lose(usize),
    Gap,
    /// A heartbeat is answered, now or in the past.
    Audit(bool),
    /// The server reads a page. Its answer is under way.
    ReadPage(usize),
    TakePage(usize),
    FailSync(usize),
    /// The server carries out a release; the job comes here again or goes elsewhere.
    Release(usize, bool),
    TakeAnswer(usize),
    /// The release is not answered; it may have been carried out.
    FailRelease(usize, bool),
    Poll,
    DropHandle(usize),
    Wait(u64),
    Drain,
}

/// Each kind of op is as likely as its weight. (Made of plain numbers: a strategy for each would take far longer to
/// draw from than the view takes to run.)
fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec((0..74_u8, any::<u8>()).prop_map(|(kind, n)| op(kind, n)), 1..150)
}

fn op(kind: u8, n: u8) -> Op {
    let (which, yes) = (usize::from(n / 2), n % 2 == 1);
    let job = which % JOBS;
    match kind {
        0..10 => Op::Deliver,
        10..20 => Op::Poll,
        20..26 => Op::Assign(job),
        26..30 => Op::Delete(job),
        30..32 => Op::Rebalance(job),
        32..38 => Op::ReadPage(which),
        38..44 => Op::TakePage(which),
        44..49 => Op::Release(which, yes),
        49..53 => Op::TakeAnswer(which),
        53..58 => Op::DropHandle(which),
        58..61 => Op::DeliverAny(which, yes),
        61..63 => Op::Lose(which),
        63..65 => Op::Audit(yes),
        65..67 => Op::Wait(u64::from(n) / 2 + 1),
        67 => Op::FailSync(which),
        68 => Op::FailRelease(which, yes),
        69 => Op::Gap,
        70 => Op::Lift,
        71 => Op::Copy,
        72 => Op::Failover,
        _ if n < 32 => Op::Drain,
        _ => Op::Gap,
    }
}

fn id(job: usize) -> JobId {
    JobId::new(format!("job{job}")).expect("a plain id")
}

/// A job that the server counts as the view's.
#[derive(Clone, Debug)]
struct Record {
    releasing: bool,
    grant: u64,
    /// Zero: deleted.
    born: u64,
    payload: Bytes,
}

/// What the scripts do, as far as one worker sees it.
#[derive(Clone, Debug, Default)]
struct Server {
    revision: u64,
    inbox: u64,
    lifted: u64,
    mine: BTreeMap<JobId, Record>,
    page_rows: usize,
    draining: bool,
}

impl Server {
    fn tick(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn send(&mut self, revision: u64, body: Body) -> Frame {
        let previous = Revision(std::mem::replace(&mut self.inbox, revision));
        Frame { revision: Revision(revision), previous, body }
    }

    fn assign(&mut self, job: JobId, born: Option<u64>) -> Option<Frame> {
        if let Some(record) = self.mine.get(&job) {
            if record.releasing && record.born == 0 {
                let born = self.tick();
                self.mine.get_mut(&job)?.born = born; // waits for the release
            }
            return None;
        }
        if self.draining {
            return None;
        }
        let grant = self.tick();
        let born = born.unwrap_or(grant);
        let payload = Bytes::from(format!("{job} {born} {grant}"));
        let record = Record { releasing: false, grant, born, payload: payload.clone() };
        self.mine.insert(job.clone(), record);
        Some(self.send(grant, Body::Add { job, born: Revision(born), payload }))
    }

    fn mark(&mut self, job: JobId, reason: DeleteReason) -> Option<Frame> {
        let record = self.mine.get_mut(&job)?;
        if reason == DeleteReason::Removed {
            record.born = 0;
        }
        if std::mem::replace(&mut record.releasing, true) {
            return None;
        }
        let grant = Revision(record.grant);
        let revision = self.tick();
        Some(self.send(revision, Body::Delete { job, grant, reason }))
    }

    fn release(&mut self, job: &JobId, grant: Revision, here: bool) -> (bool, Option<Frame>) {
        match self.mine.get(job) {
            Some(record) if record.grant == grant.get() => {
                let born = record.born;
                self.mine.remove(job);
                (true, if here && born > 0 { self.assign(job.clone(), Some(born)) } else { None })
            }
            _ => (false, None),
        }
    }

    fn page(&self, since: Revision, cursor: Option<Cursor>) -> Page {
        let mut rows: Vec<_> = self.mine.iter().collect();
        rows.retain(|(_, record)| cursor.is_none_or(|cursor| record.grant % SPAN > cursor.0));
        rows.sort_by_key(|(_, record)| record.grant % SPAN);
        let next = (rows.len() > self.page_rows).then(|| Cursor(rows[self.page_rows - 1].1.grant % SPAN));
        rows.truncate(self.page_rows);
        let rows = rows
            .into_iter()
            .map(|(job, record)| Row {
                job: job.clone(),
                grant: Revision(record.grant),
                born: Revision(record.born),
                changed: Revision(0),
                state: if record.releasing {
                    RowState::Releasing
                } else {
                    RowState::Active((record.grant > since.get()).then(|| record.payload.clone()))
                },
            })
            .collect();
        Page {
            revision: Revision(self.revision),
            inbox: Revision(self.inbox),
            lifted: Revision(self.lifted),
            next,
            rows,
        }
    }
}

/// What the consumer knows, and what it must never see.
#[derive(Debug, Default)]
struct Consumer {
    held: HashMap<JobId, (u64, u64)>,
    /// Assignments with a handle out, and since when their `Delete` was queued.
    handles: BTreeMap<(JobId, u64), Handle>,
    newest: HashMap<JobId, u64>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Handle {
    deleted: bool,
    cancelled: Option<Instant>,
}

impl Handle {
    fn counts(&self, now: Instant) -> bool {
        self.cancelled.is_none_or(|at| now < at + RELEASE_TIMEOUT)
    }
}

struct World {
    now: Instant,
    server: Server,
    /// What a replica has.
    copy: Server,
    view: View,
    consumer: Consumer,
    frames: Vec<Frame>,
    syncs: Vec<Request>,
    pages: Vec<(u64, Page)>,
    releases: Vec<(JobId, Revision)>,
    answers: Vec<(JobId, Revision, bool)>,
    audits: Vec<(u64, u64)>,
    /// What was ever released, by grant.
    released: BTreeSet<(JobId, u64)>,
    payloads: HashMap<u64, Bytes>,
}

fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

impl World {
    fn new(start: u64, page_rows: usize) -> Self {
        let mut server = Server { revision: start, page_rows, ..Server::default() };
        server.inbox = server.tick();
        let mut world = Self {
            now: Instant::now(),
            copy: server.clone(),
            server,
            view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE),
            consumer: Consumer::default(),
            frames: Vec::new(),
            syncs: Vec::new(),
            pages: Vec::new(),
            releases: Vec::new(),
            answers: Vec::new(),
            audits: Vec::new(),
            released: BTreeSet::new(),
            payloads: HashMap::new(),
        };
        world.view.handle_gap();
        world.carry_out();
        world
    }

    fn publish(&mut self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            if let Body::Add { payload, .. } = &frame.body {
                self.payloads.insert(frame.revision.get(), payload.clone());
            }
            self.frames.push(frame);
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Assign(job) => {
                let frame = self.server.assign(id(job), None);
                self.publish(frame);
            }
            Op::Delete(job) => {
                let frame = self.server.mark(id(job), DeleteReason::Removed);
                self.publish(frame);
            }
            Op::Rebalance(job) => {
                let frame = self.server.mark(id(job), DeleteReason::Rebalanced);
                self.publish(frame);
            }
            Op::Lift => self.server.lifted = self.server.tick(),
            Op::Copy => self.copy = self.server.clone(),
            Op::Failover => {
                let (revision, draining) = (self.server.revision, self.server.draining);
                // A clock by the time: never behind what the lost server gave out.
                self.server = Server { revision, draining, ..self.copy.clone() };
                self.server.lifted = self.server.tick();
            }
            Op::Deliver => self.deliver(0, false),
            Op::DeliverAny(which, keep) => self.deliver(which, keep),
            Op::Lose(which) => drop(pick(&mut self.frames, which)),
            Op::Gap => self.view.handle_gap(),
            Op::Audit(past) => {
                self.audits.push((self.server.inbox, self.server.lifted));
                let which = if past { 0 } else { self.audits.len() - 1 };
                let (inbox, lifted) = self.audits[which];
                self.view.handle_audit(self.now, Revision(inbox), Revision(lifted));
            }
            Op::ReadPage(which) => {
                if let Some((request, since, cursor)) = pick(&mut self.syncs, which) {
                    self.pages.push((request, self.server.page(since, cursor)));
                }
            }
            Op::TakePage(which) => {
                if let Some((request, page)) = pick(&mut self.pages, which) {
                    self.view.handle_page(self.now, request, page);
                }
            }
            Op::FailSync(which) => {
                if let Some((request, ..)) = pick(&mut self.syncs, which) {
                    self.view.handle_sync_failed(request);
                }
            }
            Op::Release(which, here) => {
                if let Some((job, grant)) = pick(&mut self.releases, which) {
                    let (mine, frame) = self.server.release(&job, grant, here);
                    self.publish(frame);
                    self.answers.push((job, grant, mine));
                }
            }
            Op::TakeAnswer(which) => {
                if let Some((job, grant, mine)) = pick(&mut self.answers, which) {
                    self.view.handle_released(&job, grant, mine);
                }
            }
            Op::FailRelease(which, done) => {
                if let Some((job, grant)) = pick(&mut self.releases, which) {
                    if done {
                        let (_, frame) = self.server.release(&job, grant, true);
                        self.publish(frame);
                    }
                    self.view.handle_release_failed(&job, grant);
                }
            }
            Op::Poll => drop(self.poll()),
            Op::DropHandle(which) => self.drop_handle(which),
            Op::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.view.handle_timeout(self.now);
            }
            Op::Drain => {
                self.server.draining = true; // the mark, before anything is released
                self.view.handle_drain(self.now, DeleteReason::Terminated);
            }
        }
        self.carry_out();
        assert!(self.view.deadlines.len() <= 3 * JOBS + 65, "deadlines pile up");
    }

    fn deliver(&mut self, which: usize, keep: bool) {
        if let Some(frame) = pick(&mut self.frames, which) {
            if keep {
                self.frames.push(frame.clone());
            }
            self.view.handle_frame(self.now, frame);
        }
    }

    fn carry_out(&mut self) {
        let (mut syncs, mut attached) = (0, false);
        while let Some(command) = self.view.poll_command() {
            match command {
                Command::Sync { request, since, cursor } => {
                    syncs += 1;
                    self.syncs.push((request, since, cursor));
                }
                Command::Resubscribe => attached = true,
                Command::Cancel { job, grant } => {
                    let handle = self.consumer.handles.get_mut(&(job.clone(), grant.get()));
                    let handle =
                        handle.unwrap_or_else(|| panic!("cancels {job} by {grant}, which is not out"));
                    assert_eq!(handle.cancelled, None, "{job} is cancelled twice");
                    handle.cancelled = Some(self.now);
                }
                Command::Release { job, grant } => {
                    // An older handle's too: what is given back goes to another worker.
                    // (A late repetition of an older grant's release does nothing.)
                    for ((other, by), handle) in &self.consumer.handles {
                        let out = *other == job && *by <= grant.get() && handle.counts(self.now);
                        assert!(
                            !out,
                            "{job} is released by {grant} while a handle by {by} is out: two owners"
                        );
                    }
                    self.released.insert((job.clone(), grant.get()));
                    self.releases.push((job, grant));
                }
            }
        }
        assert!(syncs <= 1, "one input asks for {syncs} syncs");
        if attached {
            self.view.handle_gap();
            self.carry_out();
        }
    }

    /// Polls once, and looks whether the consumer may see this now.
    fn poll(&mut self) -> Option<Delivery> {
        let delivery = self.view.poll_delivery()?;
        let consumer = &mut self.consumer;
        assert!(!consumer.closed, "after Close: {delivery:?}");
        match &delivery {
            Delivery::Add { job, grant, epoch, born, payload } => {
                let grant = grant.get();
                assert!(!consumer.held.contains_key(job), "two Adds in a row of {job}");
                assert!(
                    !self.released.contains(&(job.clone(), grant)),
                    "{job} by {grant} was given back: two owners"
                );
                for ((other, old), handle) in &consumer.handles {
                    assert!(
                        other != job || !handle.counts(self.now),
                        "{job} is added while a handle by {old} is out"
                    );
                }
                let newest = consumer.newest.insert(job.clone(), grant);
                assert!(newest.is_none_or(|newest| newest < grant), "{job}: {grant} after {newest:?}");
                assert!(epoch.get() >= grant && born.get() <= grant && born.get() > 0);
                assert_eq!(Some(payload), self.payloads.get(&grant), "another assignment's payload");
                consumer.held.insert(job.clone(), (grant, epoch.get()));
                consumer.handles.insert((job.clone(), grant), Handle::default());
            }
            Delivery::Update { job, grant, epoch, payload, .. } => {
                let held = consumer
                    .held
                    .get_mut(job)
                    .unwrap_or_else(|| panic!("Update of {job}, which is not held"));
                assert_eq!(held.0, grant.get(), "Update of another assignment");
                assert!(held.1 < epoch.get(), "an Update that says nothing new");
                assert_eq!(Some(payload), self.payloads.get(&grant.get()));
                held.1 = epoch.get();
            }
            Delivery::Delete { job, grant, epoch, .. } => {
                let held = consumer.held.remove(job);
                let (by, seen) = held.unwrap_or_else(|| panic!("Delete of {job}, which is not held"));
                assert_eq!(by, grant.get(), "Delete of another assignment");
                assert!(seen <= epoch.get(), "the epoch went back");
                if let Some(handle) = consumer.handles.get_mut(&(job.clone(), by)) {
                    handle.deleted = true;
                    assert!(handle.cancelled.is_some(), "{job} is deleted and its token was not cancelled");
                }
            }
            Delivery::Problem(error) => assert_eq!(error.kind(), ErrorKind::ReleaseTimeout),
            Delivery::Close(_) => {
                assert!(consumer.held.is_empty(), "Close before a Delete of {:?}", consumer.held);
                consumer.closed = true;
            }
        }
        Some(delivery)
    }

    /// Polls all there is; meanwhile nothing comes in.
    fn poll_all(&mut self) {
        let mut pending: HashMap<JobId, Vec<&str>> = HashMap::new();
        while let Some(delivery) = self.poll() {
            match delivery {
                Delivery::Add { job, .. } => pending.entry(job).or_default().push("add"),
                Delivery::Update { job, .. } => pending.entry(job).or_default().push("update"),
                Delivery::Delete { job, .. } => pending.entry(job).or_default().push("delete"),
                Delivery::Problem(_) | Delivery::Close(_) => {}
            }
        }
        for (job, changes) in pending {
            assert!(
                changes.len() == 1 || changes == ["delete", "add"],
                "{job} had several changes waiting: {changes:?}"
            );
        }
    }

    fn drop_handle(&mut self, which: usize) {
        let deleted = |(_, handle): &(&(JobId, u64), &Handle)| handle.deleted;
        let mut may_go: Vec<_> =
            self.consumer.handles.iter().filter(deleted).map(|(assignment, _)| assignment.clone()).collect();
        if let Some((job, grant)) = pick(&mut may_go, which) {
            self.consumer.handles.remove(&(job.clone(), grant));
            self.view.handle_dropped(self.now, &job, Revision(grant));
        }
    }

    /// All that is under way is lost; from now on nothing is, and the server changes only by what it is asked.
    fn heal(&mut self) {
        self.frames.clear();
        self.pages.clear();
        self.syncs.clear();
        for (job, grant, _) in std::mem::take(&mut self.answers) {
            self.view.handle_release_failed(&job, grant);
        }
        self.view.handle_gap();
        self.carry_out();
        for _ in 0..200 {
            self.poll_all();
            if let Some((request, since, cursor)) = pick(&mut self.syncs, 0) {
                let page = self.server.page(since, cursor);
                self.view.handle_page(self.now, request, page);
            } else if !self.releases.is_empty() {
                self.run(Op::Release(0, false));
                self.run(Op::TakeAnswer(0));
            } else if !self.frames.is_empty() {
                self.deliver(0, false);
            } else if self.consumer.handles.values().any(|handle| handle.deleted) {
                self.drop_handle(0);
            } else {
                return;
            }
            self.carry_out();
        }
        panic!("it does not come to rest");
    }

    fn check_healed(&self) {
        let held: BTreeMap<_, _> =
            self.consumer.held.iter().map(|(job, held)| (job.clone(), *held)).collect();
        let lifted = self.server.lifted;
        let said: BTreeMap<_, _> = self
            .server
            .mine
            .iter()
            .map(|(job, record)| (job.clone(), (record.grant, record.grant.max(lifted))))
            .collect();
        assert_eq!(held, said, "what is held is not what the server says");
        let releasing = self.server.mine.values().any(|record| record.releasing);
        assert!(!releasing, "the server waits for a release: {:?}", self.server.mine);
        assert_eq!(self.view.slots.len(), held.len(), "a slot is stuck: {:?}", self.view.slots);
        assert!(self.view.slots.values().all(|slot| matches!(slot.stage, Stage::Active)));
        assert!(self.view.sync.is_none() && !self.view.has_delivery());
    }
}

fn check(start: u64, page_rows: usize, ops: Vec<Op>) {
    let mut world = World::new(start, page_rows);
    for op in ops {
        world.run(op);
    }
    world.heal();
    world.check_healed();
    assert!(!world.server.draining || world.view.is_drained());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    // Guards: one owner, nothing lost, the stream; rules 1, 2, 3, 5, 7, 9, 10, 11.
    #[test]
    fn whatever_is_lost_repeated_or_overtaken_the_consumer_sees_a_proper_stream_and_ends_with_what_the_server_says(
        start in prop_oneof![Just(0), SPAN - 12..SPAN],
        page_rows in 1..4_usize,
        ops in ops(),
    ) {
        check(start, page_rows, ops);
    }

    // Guards: the stream ends with a Delete for every job still held, one Close, and nothing after it.
    #[test]
    fn whenever_it_is_closed_the_consumer_gets_a_delete_for_each_job_it_has_and_then_one_close(
        page_rows in 1..4_usize,
        ops in ops(),
        after in ops(),
        fenced in any::<bool>(),
    ) {
        let mut world = World::new(0, page_rows);
        for op in ops {
            world.run(op);
        }
        if fenced {
            let frame = Frame { revision: Revision(1), previous: Revision(0), body: Body::Fenced };
            world.view.handle_frame(world.now, frame);
        } else {
            world.view.handle_close(CloseReason::Terminated);
        }
        world.releases.clear();
        world.syncs.clear();
        world.carry_out();
        prop_assert!(world.releases.is_empty() && world.syncs.is_empty(), "a closed view asks for nothing");
        for op in after {
            world.run(op);
        }
        world.poll_all();
        prop_assert!(world.consumer.closed && world.view.is_finished());
        prop_assert!(world.view.poll_delivery().is_none() && world.view.poll_timeout().is_none());
    }
}
