//! One test for each rule that the view keeps.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::snapshot::MOST_WAITING;
use super::{Command, View};
use crate::core::queue::Delivery;
use crate::error::ErrorKind;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, Row, RowState, SPAN};

const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_millis(50);

/// A view and the hand that feeds it. Deliveries and commands are written as short lines.
struct Bench {
    view: View,
    now: Instant,
    /// The newest request for a page.
    request: Option<(u64, Revision, Option<Cursor>)>,
    syncs: usize,
}

fn job(id: &str) -> JobId {
    JobId::new(id).expect("a plain id")
}

fn active(id: &str, grant: u64) -> Row {
    let payload = Some(Bytes::from_static(b"p"));
    Row { job: job(id), grant: Revision(grant), born: Revision(grant), state: RowState::Active(payload) }
}

/// As the server answers for a grant that is not after `since`.
fn active_bare(id: &str, grant: u64) -> Row {
    Row { state: RowState::Active(None), ..active(id, grant) }
}

fn releasing(id: &str, grant: u64) -> Row {
    Row { state: RowState::Releasing, ..active(id, grant) }
}

fn page(revision: u64, inbox: u64, rows: Vec<Row>) -> Page {
    Page { revision: Revision(revision), inbox: Revision(inbox), lifted: Revision(0), next: None, rows }
}

fn lifted(at: u64, page: Page) -> Page {
    Page { lifted: Revision(at), ..page }
}

fn more(cursor: u64, page: Page) -> Page {
    Page { next: Some(Cursor(cursor)), ..page }
}

impl Bench {
    /// Attached, and told that it holds nothing; the chain begins at 10.
    fn new() -> Self {
        let view = View::new(RELEASE_TIMEOUT, GRACE);
        let mut bench = Self { view, now: Instant::now(), request: None, syncs: 0 };
        bench.view.handle_gap();
        bench.commands();
        bench.answer(page(10, 10, vec![]));
        assert_eq!(bench.deliveries(), [""; 0]);
        bench
    }

    /// As `new`, with "a" assigned by 11 and delivered.
    fn holding() -> Self {
        let mut bench = Self::new();
        bench.add("a", 11, 10);
        assert_eq!(bench.deliveries(), ["add a 11"]);
        bench
    }

    fn add(&mut self, id: &str, revision: u64, previous: u64) {
        let body = Body::Add { job: job(id), born: Revision(revision), payload: Bytes::from_static(b"p") };
        self.frame(revision, previous, body);
    }

    fn delete(&mut self, id: &str, grant: u64, revision: u64, previous: u64) {
        let body = Body::Delete { job: job(id), grant: Revision(grant), reason: DeleteReason::Removed };
        self.frame(revision, previous, body);
    }

    fn frame(&mut self, revision: u64, previous: u64, body: Body) {
        let frame = Frame { revision: Revision(revision), previous: Revision(previous), body };
        self.view.handle_frame(self.now, frame);
    }

    /// Answers the newest request.
    fn answer(&mut self, page: Page) {
        let (request, ..) = self.request.take().expect("a sync is asked for");
        self.view.handle_page(self.now, request, page);
    }

    /// Takes the commands; a sync is remembered.
    fn commands(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(command) = self.view.poll_command() {
            lines.push(match command {
                Command::Sync { request, since, cursor } => {
                    self.request = Some((request, since, cursor));
                    self.syncs += 1;
                    format!("sync since {since}")
                }
                Command::Resubscribe => "resubscribe".into(),
                Command::Cancel { job, grant } => format!("cancel {job} {grant}"),
                Command::Release { job, grant } => format!("release {job} {grant}"),
            });
        }
        lines
    }

    fn deliveries(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.delivery() {
            lines.push(line);
        }
        lines
    }

    fn delivery(&mut self) -> Option<String> {
        Some(match self.view.poll_delivery()? {
            Delivery::Add { job, epoch, .. } => format!("add {job} {epoch}"),
            Delivery::Update { job, epoch, .. } => format!("update {job} {epoch}"),
            Delivery::Delete { job, grant, reason, .. } => format!("delete {job} {grant} {reason:?}"),
            Delivery::Problem(error) => format!("problem {:?} {}", error.kind(), error.job().map_or("-", JobId::as_str)),
            Delivery::Close(reason) => format!("close {reason:?}"),
        })
    }

    fn drop_handles(&mut self, id: &str, grant: u64) {
        self.view.handle_dropped(self.now, &job(id), Revision(grant));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.view.handle_timeout(self.now);
    }
}

// Livelock: what waits was sent before the request that follows it, so the answer has it. A frame that no
// answer ever reaches (forged, or of a history that a failover has ended) must not ask for ever.
#[test]
fn a_frame_that_no_snapshot_reaches_costs_one_sync_and_not_one_after_the_other() {
    let mut bench = Bench::new();
    bench.add("x", u64::MAX, 7);
    for _ in 0..5 {
        bench.commands();
        if bench.request.is_some() {
            bench.answer(page(20, 10, vec![]));
        }
    }
    assert_eq!(bench.syncs, 2, "the first of all, and one for the gap");
    assert_eq!(bench.deliveries(), [""; 0]);
}

// Rule 10: an Update says that the epoch grew; where it did not, there is nothing to say.
#[test]
fn a_lift_that_an_assignment_came_after_changes_nothing_for_it() {
    let mut bench = Bench::new();
    bench.add("a", 30, 10);
    assert_eq!(bench.deliveries(), ["add a 30"]);
    bench.view.handle_audit(bench.now, Revision(30), Revision(20));
    assert_eq!(bench.commands(), ["sync since 0"]);
    bench.answer(lifted(20, page(31, 30, vec![active("a", 30)])));
    assert_eq!(bench.deliveries(), [""; 0]);
}

// Rule 9 without a storm: one batch of answers is one snapshot to ask for.
#[test]
fn a_batch_of_releases_that_were_not_ours_asks_for_one_sync() {
    let mut bench = Bench::new();
    for grant in 1..=200 {
        bench.view.handle_released(&job("a"), Revision(grant), false);
    }
    assert_eq!(bench.commands(), ["sync since 10"]);
}

// Rule 7 and "one owner": the assignment that waits for handles to go is held, though nobody has seen it yet.
#[test]
fn a_snapshot_with_the_assignment_that_waits_for_handles_does_not_hand_it_back() {
    let mut bench = Bench::holding();
    bench.delete("a", 11, 12, 11);
    bench.add("a", 13, 12);
    bench.view.handle_gap();
    assert_eq!(bench.commands(), ["cancel a 11", "sync since 13"]);
    bench.answer(page(20, 13, vec![active_bare("a", 13)]));
    assert_eq!(bench.commands(), [""; 0]);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.deliveries(), ["add a 13"]);
}

// "One owner": what a snapshot does not know any more must not begin when the handles go.
#[test]
fn an_assignment_that_waits_for_handles_and_is_in_no_snapshot_never_begins() {
    let mut bench = Bench::holding();
    bench.delete("a", 11, 12, 11);
    bench.add("a", 13, 12);
    bench.view.handle_gap();
    bench.commands();
    bench.answer(page(20, 13, vec![]));
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.deliveries(), [""; 0]);
}

// A row that was read before a release was carried out is stale: no second release, no second sync.
#[test]
fn a_release_that_was_answered_while_a_sync_was_out_is_not_sent_again() {
    let mut bench = Bench::holding();
    bench.delete("a", 11, 12, 11);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    bench.view.handle_gap();
    assert_eq!(bench.commands(), ["cancel a 11", "release a 11", "sync since 12"]);
    bench.view.handle_released(&job("a"), Revision(11), true);
    bench.answer(page(20, 12, vec![releasing("a", 11)]));
    assert_eq!(bench.commands(), [""; 0]);
}
