//! A model server drives a view through a channel that loses, repeats and reorders, and a consumer that is checked.
//!
//! ```text
//!  server.rs --- frames, pages, answers: late, lost, repeated ---> View --- deliveries ---> consumer.rs
//!      ^                                                            |
//!      +--------------- syncs, releases, heartbeats ----------------+
//! ```
//!
//! First whatever may go wrong goes wrong; then all faults end, and everything must heal: what the consumer holds is
//! what the server says, and nothing is stuck. To run more cases: `PROPTEST_CASES=100000 cargo test --lib model_test`.

mod consumer;
mod server;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::consumer::{Consumer, Held};
use self::server::{Server, State};
use super::{Command, Stage, View};
use crate::core::queue::Delivery;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, SPAN};

const RELEASE_TIMEOUT: Duration = Duration::from_millis(100);
const AUDIT_GRACE: Duration = Duration::from_millis(5);
const JOBS: usize = 3;

/// What happens next. An index picks one of what is there (modulo how many there are).
#[derive(Clone, Debug)]
enum Op {
    /// A job is added, or one that waits elsewhere comes here.
    Assign(usize),
    Update(usize),
    Delete(usize),
    /// It is to go to another worker.
    Rebalance(usize),
    /// A master has the worker drained, or lets it go on; a frame tells it to attend.
    Order(bool),
    /// A client has seen that the server is another one.
    Lift,
    /// A replica takes over that knows all but what came after the last `Copy`. It is seen at once, or by a later `Lift`.
    Failover(bool),
    Copy,
    /// The frame that was sent first is delivered.
    Deliver,
    /// Any frame is delivered, and perhaps again later.
    DeliverAny(usize, bool),
    Lose(usize),
    Gap,
    /// A heartbeat is answered; perhaps it is an old one whose answer comes now.
    Beat(bool),
    /// The server reads a page. Its answer is under way.
    ReadPage(usize),
    TakePage(usize),
    FailSync(usize),
    /// A sync that is out comes to its end at once.
    Sync,
    /// The server carries out a release; the job comes here again or goes elsewhere.
    Release(usize, bool),
    TakeAnswer(usize),
    /// The release is not answered; it may have been carried out.
    FailRelease(usize, bool),
    /// The answer to a release is lost.
    LoseAnswer(usize),
    Poll,
    PollAll,
    DropHandle(usize),
    Wait(u64),
    Leave,
}

/// Each kind of op is as likely as its weight. (Made of plain numbers: a strategy for each would take far longer to
/// draw from than the view takes to run.)
fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec((0..103_u8, any::<u8>()).prop_map(|(kind, n)| op(kind, n)), 1..160)
}

fn op(kind: u8, n: u8) -> Op {
    let (which, yes) = (usize::from(n / 2), n % 2 == 1);
    let job = which % JOBS;
    match kind {
        0..12 => Op::Deliver,
        12..21 => Op::Poll,
        21 => Op::PollAll,
        22..31 => Op::Assign(job),
        31..37 => Op::Update(job),
        37..43 => Op::Delete(job),
        43..45 => Op::Rebalance(job),
        45..51 => Op::ReadPage(which),
        51..57 => Op::TakePage(which),
        57..62 => Op::Sync,
        62..67 => Op::Release(which, yes),
        67..71 => Op::TakeAnswer(which),
        71..78 => Op::DropHandle(which),
        78..81 => Op::DeliverAny(which, yes),
        81..83 => Op::Lose(which),
        83..87 => Op::Beat(n < 64),
        87..89 => Op::Wait(u64::from(n) / 2 + 1),
        89..91 => Op::Gap,
        91 => Op::Order(n < 80),
        92 => Op::FailSync(which),
        93 => Op::FailRelease(which, yes),
        94 => Op::LoseAnswer(which),
        95..97 => Op::Lift,
        97..100 => Op::Copy,
        100..102 => Op::Failover(n < 192),
        _ if n < 32 => Op::Leave,
        _ => Op::Gap,
    }
}

fn id(job: usize) -> JobId {
    JobId::new(format!("job{job}")).expect("a plain id")
}

fn pick<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

struct World {
    now: Instant,
    server: Server,
    /// What a replica has.
    copy: Server,
    /// A replica has taken over, and nobody has seen it yet.
    unseen: bool,
    /// Writes were lost: two owners are possible until all have synced.
    forgot: bool,
    view: View,
    consumer: Consumer,
    ending: Ending,
    /// Whether the worker was ever drained.
    was_drained: bool,
    /// What the server has ever said is to move, by grant.
    moved: BTreeSet<(JobId, u64)>,
    frames: Vec<Frame>,
    syncs: Vec<(u64, Revision, Option<Cursor>)>,
    pages: Vec<(u64, Page)>,
    releases: Vec<(JobId, Revision)>,
    answers: Vec<(JobId, Revision, bool)>,
    beats: Vec<(u64, u64)>,
    /// How often the view wanted a heartbeat.
    attends: usize,
}

/// What the worker was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Serving,
    Drained,
    Leaving,
    Closed,
}

impl World {
    fn new(start: u64, leap: u64, page_rows: usize) -> Self {
        let server = Server::new(start, leap, page_rows);
        let mut world = Self {
            now: Instant::now(),
            copy: server.clone(),
            server,
            unseen: false,
            forgot: false,
            view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE),
            consumer: Consumer::default(),
            ending: Ending::Serving,
            was_drained: false,
            moved: BTreeSet::new(),
            frames: Vec::new(),
            syncs: Vec::new(),
            pages: Vec::new(),
            releases: Vec::new(),
            answers: Vec::new(),
            beats: Vec::new(),
            attends: 0,
        };
        world.view.handle_gap();
        world.carry_out();
        world
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Assign(job) => {
                let frame = self.server.assign(id(job));
                self.frames.extend(frame);
            }
            Op::Update(job) => {
                let frame = self.server.update(id(job));
                self.frames.extend(frame);
            }
            Op::Delete(job) => {
                let frame = self.server.delete(id(job));
                self.frames.extend(frame);
            }
            Op::Rebalance(job) => {
                let frame = self.server.rebalance(id(job));
                self.frames.extend(frame);
                let record = self.server.mine.get(&id(job));
                self.moved.extend(record.map(|record| (id(job), record.grant)));
            }
            Op::Order(drain) => {
                let frame = self.server.order(drain);
                self.frames.push(frame);
            }
            Op::Lift => self.lift(),
            Op::Copy => self.copy = self.server.clone(),
            Op::Failover(seen) => {
                self.server.fail_over_to(&self.copy);
                (self.unseen, self.forgot) = (true, true);
                if seen {
                    self.lift();
                }
            }
            Op::Deliver => self.deliver(0, false),
            Op::DeliverAny(which, keep) => self.deliver(which, keep),
            Op::Lose(which) => drop(pick(&mut self.frames, which)),
            Op::Gap => self.view.handle_gap(),
            Op::Beat(old) => self.beat(old),
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
            Op::Sync => {
                for _ in 0..=JOBS {
                    self.run(Op::ReadPage(0));
                    self.run(Op::TakePage(0));
                }
            }
            Op::Release(which, here) => {
                if let Some((job, grant)) = pick(&mut self.releases, which) {
                    let mine = self.release(&job, grant, here);
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
                        self.release(&job, grant, true);
                    }
                    self.view.handle_release_failed(&job, grant);
                }
            }
            Op::LoseAnswer(which) => {
                if let Some((job, grant, _)) = pick(&mut self.answers, which) {
                    self.view.handle_release_failed(&job, grant);
                }
            }
            Op::Poll => drop(self.poll()),
            Op::PollAll => self.poll_all(),
            Op::DropHandle(which) => self.drop_handle(which),
            Op::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.view.handle_timeout(self.now);
            }
            Op::Leave => self.leave(),
        }
        self.carry_out();
        assert!(self.view.deadlines.len() <= 3 * JOBS + 65, "deadlines pile up");
        assert!(self.view.waiting_changes() <= JOBS, "one pending change a job");
    }

    fn lift(&mut self) {
        self.server.lift();
        self.unseen = false;
    }

    fn deliver(&mut self, which: usize, keep: bool) {
        let Some(frame) = pick(&mut self.frames, which) else { return };
        if keep {
            self.frames.push(frame.clone());
        }
        let attend = frame.body == Body::Attend && !self.view.is_closed();
        let before = self.attends;
        self.view.handle_frame(self.now, frame);
        self.carry_out();
        assert_eq!(self.attends - before, usize::from(attend), "a heartbeat for each Attend");
    }

    fn release(&mut self, job: &JobId, grant: Revision, here: bool) -> bool {
        let (mine, frame) = self.server.release(job, grant, here);
        self.frames.extend(frame);
        let two_owners = mine && !self.forgot && self.consumer.holds(job, self.now);
        assert!(!two_owners, "the server gives {job} by {grant} to another while a handle counts");
        mine
    }

    /// The driver's part: a heartbeat says what the worker does, and its answer what it is to do.
    fn beat(&mut self, old: bool) {
        if self.ending != Ending::Serving {
            self.server.off_the_load = true; // the mark goes with each heartbeat
        } else if !self.server.ordered {
            self.server.off_the_load = false;
        }
        self.beats.push((self.server.inbox, self.server.lifted));
        let which = if old { 0 } else { self.beats.len() - 1 };
        let (inbox, lifted) = self.beats[which];
        self.view.handle_audit(self.now, Revision(inbox), Revision(lifted));
        match (self.ending, self.server.ordered) {
            (Ending::Serving, true) => {
                (self.ending, self.was_drained) = (Ending::Drained, true);
                self.view.handle_drain(self.now, DeleteReason::Drained);
            }
            (Ending::Drained, false) => {
                self.ending = Ending::Serving;
                self.view.handle_resume();
                self.server.off_the_load = false;
            }
            _ => {}
        }
    }

    /// The worker leaves by itself; its mark is set before anything is released.
    fn leave(&mut self) {
        if self.ending != Ending::Closed {
            self.ending = Ending::Leaving;
        }
        self.server.off_the_load = true;
        self.view.handle_drain(self.now, DeleteReason::Terminated);
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
                Command::Attend => self.attends += 1,
                Command::Cancel { job, grant } => self.consumer.cancel(self.now, job, grant),
                Command::Release { job, grant } => {
                    self.consumer.release(self.now, &job, grant);
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
        self.consumer.take(self.now, &delivery, self.ending != Ending::Serving);
        if let Delivery::Delete { job, grant, reason, .. } = &delivery {
            let sensible = match reason {
                DeleteReason::Removed => true,
                DeleteReason::Rebalanced => self.moved.contains(&(job.clone(), grant.get())),
                DeleteReason::Drained => self.was_drained,
                DeleteReason::Terminated => matches!(self.ending, Ending::Leaving | Ending::Closed),
                _ => self.ending == Ending::Closed,
            };
            assert!(sensible, "{job} is deleted for no such reason: {reason:?}");
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
        if let Some((job, grant)) = self.consumer.drop_handle(which) {
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
        if self.unseen {
            self.lift();
        }
        self.view.handle_gap();
        self.carry_out();
        self.settle();
        self.beat(false);
        self.carry_out();
        self.settle();
    }

    /// Carries out what is asked for until nothing is.
    fn settle(&mut self) {
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
        let said: BTreeMap<_, _> = self
            .server
            .mine
            .iter()
            .map(|(job, record)| {
                let epoch = record.grant.max(self.server.lifted);
                (job.clone(), Held { grant: record.grant, epoch, payload: record.payload.clone() })
            })
            .collect();
        assert_eq!(self.consumer.held, said, "what is held is not what the server says");
        let rest = self.server.mine.values().all(|record| record.state == State::Assigned);
        assert!(rest, "the server waits for a release: {:?}", self.server.mine);
        assert_eq!(self.view.slots.len(), said.len(), "a slot is stuck: {:?}", self.view.slots);
        assert!(self.view.slots.values().all(|slot| matches!(slot.stage, Stage::Active)));
        assert!(self.view.sync.is_none() && !self.view.has_delivery());
        assert_eq!(self.view.is_drained(), self.ending != Ending::Serving);
    }

    /// With nothing lost, frames are enough: what happens now reaches the consumer without another sync.
    fn check_frames_suffice(&mut self) {
        for op in [Op::Assign, Op::Update, Op::Update].map(|op| (0..JOBS).map(op)).into_iter().flatten() {
            self.run(op);
        }
        for op in [Op::Delete(0), Op::Rebalance(1), Op::Update(1), Op::Order(false)] {
            self.run(op);
        }
        for _ in 0..self.frames.len() {
            self.run(Op::Deliver);
        }
        for _ in 0..3 {
            self.run(Op::Beat(false));
            self.run(Op::Wait(AUDIT_GRACE.as_millis() as u64));
        }
        assert!(self.syncs.is_empty(), "a sync that nothing asks for");
        self.settle();
        self.check_healed();
    }
}

fn check(start: u64, leap: u64, page_rows: usize, ops: Vec<Op>) {
    let mut world = World::new(start, leap, page_rows);
    for op in ops {
        world.run(op);
    }
    world.heal();
    world.check_healed();
    world.check_frames_suffice();
}

/// From where revisions begin, and how far apart they are.
fn clock() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![Just((0, 0)), (SPAN - 12..SPAN, Just(0)), Just((0, SPAN / 5)), Just((0, SPAN))]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    // Guards: one owner, nothing lost, the stream, bounded memory; rules 1, 2, 3, 5, 7, 9, 10, 11.
    #[test]
    fn whatever_is_lost_repeated_or_overtaken_the_consumer_sees_a_proper_stream_and_ends_with_what_the_server_says(
        (start, leap) in clock(),
        page_rows in 1..4_usize,
        ops in ops(),
    ) {
        check(start, leap, page_rows, ops);
    }

    // Guards: the stream ends with a Delete for every job still held, one Close, and nothing after it.
    #[test]
    fn whenever_it_is_closed_the_consumer_gets_a_delete_for_each_job_it_has_and_then_one_close(
        page_rows in 1..4_usize,
        ops in ops(),
        after in ops(),
        fenced in any::<bool>(),
    ) {
        let mut world = World::new(0, 0, page_rows);
        for op in ops {
            world.run(op);
        }
        world.ending = Ending::Closed;
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
        while world.consumer.drop_handle(0).is_some() {}
        prop_assert!(world.consumer.handles.is_empty(), "no handle is left that may not be dropped");
    }
}

// Guards: one owner; rule 2. A later page had the job's end already, and its release was answered before the frames came that
// the first page did not have.
#[test]
fn what_a_later_page_had_does_not_begin_again_by_a_late_frame() {
    let mut world = World::new(0, 0, 1);
    let before = [
        Op::Assign(1),
        Op::Deliver,
        Op::Assign(2),
        Op::ReadPage(0),
        Op::Delete(1),
        Op::Assign(0),
        Op::Delete(0),
    ];
    let after = [Op::Sync, Op::Release(0, false), Op::Deliver, Op::Deliver, Op::TakeAnswer(0), Op::Deliver];
    for op in before.into_iter().chain(after) {
        world.run(op);
    }
    world.heal();
    world.check_healed();
}
