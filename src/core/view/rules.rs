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
    Row {
        job: job(id),
        grant: Revision(grant),
        born: Revision(grant),
        changed: Revision(0),
        state: RowState::Active(payload),
    }
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
            Delivery::Problem(error) => {
                format!("problem {:?} {}", error.kind(), error.job().map_or("-", JobId::as_str))
            }
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

// "The stream": what came twice, or late, is said once.
#[test]
fn a_frame_that_comes_again_changes_nothing() {
    let mut bench = Bench::holding();
    bench.add("a", 11, 10);
    bench.delete("a", 11, 12, 11);
    bench.add("a", 11, 10);
    bench.delete("a", 11, 12, 11);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    assert_eq!(bench.commands(), ["cancel a 11"]);
}

// "Nothing lost": a frame whose predecessor is another than the last one is a gap, and a gap is a sync.
#[test]
fn a_gap_asks_for_what_is_after_the_last_frame_and_frames_wait_for_the_answer() {
    let mut bench = Bench::holding();
    bench.add("c", 13, 12);
    assert_eq!(bench.commands(), ["sync since 11"]);
    bench.add("d", 21, 13);
    assert_eq!(bench.deliveries(), [""; 0]);
    bench.answer(page(20, 13, vec![active_bare("a", 11), active("c", 13), active("b", 12)]));
    assert_eq!(bench.deliveries(), ["add b 12", "add c 13", "add d 21"], "by grant, then what waited");
    assert_eq!(bench.commands(), [""; 0]);
}

#[test]
fn a_gap_among_the_frames_that_waited_asks_again() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    bench.add("c", 23, 22);
    bench.answer(page(20, 10, vec![]));
    assert_eq!(bench.commands(), ["sync since 20"]);
}

// Rule 1: an overtaken snapshot would add again what was released since.
#[test]
fn the_answer_to_an_older_request_is_dropped() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    let old = bench.request;
    bench.view.handle_gap();
    bench.commands();
    let newest = std::mem::replace(&mut bench.request, old);
    bench.answer(page(20, 20, vec![active("a", 15)]));
    assert_eq!(bench.deliveries(), [""; 0]);
    bench.request = newest;
    bench.answer(page(21, 21, vec![]));
    assert_eq!(bench.deliveries(), [""; 0]);
}

#[test]
fn a_request_that_failed_does_not_count_when_its_answer_comes_after_all() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    bench.view.handle_sync_failed(bench.request.expect("asked").0);
    bench.answer(page(20, 20, vec![active("a", 15)]));
    assert_eq!(bench.deliveries(), [""; 0]);
    bench.view.handle_gap();
    assert_eq!(bench.commands(), ["sync since 10"]);
}

// Rule 2: a frame is old if the page that covers its grant was read after it, whatever the other pages say.
#[test]
fn a_waiting_frame_is_old_by_the_page_that_covers_its_grant() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    // Page 1 reaches to residue 30 and was read at 40; page 2 was read at 60.
    let (low, high) = (SPAN + 20, SPAN + 50);
    bench.add("low", low, 10);
    bench.add("high", high, low);
    bench.delete("high", high, SPAN + 55, high);
    bench.delete("low", low, SPAN + 70, SPAN + 55);
    bench.answer(more(30, page(SPAN + 40, low, vec![active("low", low)])));
    assert_eq!(bench.commands(), ["sync since 10"]);
    bench.answer(page(SPAN + 60, SPAN + 55, vec![releasing("high", high)]));
    // "high" was deleted before its page was read, "low" after.
    assert_eq!(bench.commands(), [format!("release high {high}"), format!("release low {low}")]);
    assert_eq!(bench.deliveries(), [""; 0]);
}

#[test]
fn a_job_that_is_on_two_pages_is_ours_by_the_later_grant() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    bench.answer(more(30, page(40, 10, vec![active("a", 20)])));
    bench.commands();
    bench.answer(page(60, 10, vec![active("a", 50)]));
    assert_eq!(bench.deliveries(), ["add a 50"]);
}

// A cursor that does not advance would be asked for without end.
#[test]
fn pages_that_do_not_advance_are_begun_anew() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    bench.answer(more(30, page(40, 10, vec![])));
    assert_eq!(bench.commands(), ["sync since 10"]);
    bench.answer(more(30, page(40, 10, vec![])));
    bench.commands();
    assert_eq!(bench.request.map(|(_, _, cursor)| cursor), Some(None));
}

// "Bounded memory": what waits for a sync is dropped when it is too much, and the sync is made again, once.
#[test]
fn too_many_frames_during_a_sync_cost_one_more_sync() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    for revision in 11..12 + MOST_WAITING as u64 {
        bench.add("a", revision, revision - 1);
    }
    bench.answer(page(10, 10, vec![]));
    assert_eq!(bench.commands(), ["sync since 10"]);
    bench.answer(page(20_000, 20_000, vec![active("a", 10_011)]));
    assert_eq!(bench.commands(), [""; 0]);
    assert_eq!(bench.deliveries(), ["add a 10011"]);
}

// Rule 3: the frame that said so was lost; without this the server would wait for ever.
#[test]
fn a_row_that_is_releasing_ends_what_is_held() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.commands();
    bench.answer(page(20, 12, vec![releasing("a", 11)]));
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    assert_eq!(bench.commands(), ["cancel a 11"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), ["release a 11"]);
}

// Rule 10: after a failover the server may name as ours what was let go of long ago.
#[test]
fn a_row_that_is_not_held_and_not_new_is_handed_back_and_never_added() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.commands();
    bench.answer(page(20, 12, vec![active_bare("a", 9), active("b", 10), releasing("c", 15)]));
    assert_eq!(bench.deliveries(), [""; 0]);
    assert_eq!(bench.commands(), ["release a 9", "release b 10", "release c 15"]);
}

// Rule 10: an assignment that goes on through a failover gets its new epoch by an Update.
#[test]
fn a_lift_gives_what_is_held_a_new_epoch() {
    let mut bench = Bench::holding();
    bench.add("b", 12, 11);
    bench.view.handle_gap();
    assert_eq!(bench.commands(), ["sync since 12"]);
    let rows = || vec![active("a", 11), active("b", 12)];
    bench.answer(lifted(20, page(21, 12, rows())));
    // An Update carries the payload: all are asked for.
    assert_eq!(bench.commands(), ["sync since 0"]);
    bench.answer(lifted(20, page(21, 12, rows())));
    assert_eq!(bench.deliveries(), ["add b 20", "update a 20"], "one that waits just takes it");
}

#[test]
fn what_no_row_is_about_ends_and_is_never_heard_of_if_it_was_not_seen() {
    let mut bench = Bench::holding();
    bench.add("b", 12, 11);
    bench.view.handle_gap();
    bench.commands();
    bench.answer(page(20, 12, vec![]));
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), ["cancel a 11", "release a 11"], "the server may have to know all the same");
}

#[test]
fn a_row_by_another_grant_replaces_what_is_held_when_its_handles_are_gone() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.commands();
    bench.answer(page(20, 15, vec![active("a", 15)]));
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.deliveries(), ["add a 15"]);
    assert_eq!(bench.commands(), ["cancel a 11"], "nothing to release: the server gave it anew");
}

// Rule 7: the two cancel out here, and the server has to know all the same.
#[test]
fn an_add_that_was_deleted_before_it_was_polled_is_released_unseen() {
    let mut bench = Bench::new();
    bench.add("a", 11, 10);
    bench.delete("a", 11, 12, 11);
    assert_eq!(bench.deliveries(), [""; 0]);
    assert_eq!(bench.commands(), ["release a 11"]);
}

// Rule 7, "one owner": one handle per job and worker.
#[test]
fn the_next_assignment_of_a_job_waits_for_the_handles_of_the_one_before() {
    let mut bench = Bench::holding();
    bench.add("a", 12, 11);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 12);
    assert_eq!(bench.deliveries(), [""; 0], "these are not the handles that count");
    bench.drop_handles("a", 11);
    assert_eq!(bench.deliveries(), ["add a 12"]);
}

#[test]
fn the_next_assignment_of_a_job_begins_when_the_handles_time_out() {
    let mut bench = Bench::holding();
    bench.add("a", 12, 11);
    bench.pass(RELEASE_TIMEOUT);
    assert_eq!(bench.deliveries(), ["problem ReleaseTimeout a", "delete a 11 Removed", "add a 12"]);
}

// "One owner": told of too early, the server would give the job to another while handles are out here.
#[test]
fn an_assignment_that_ends_while_it_waits_for_handles_is_handed_back_when_they_are_gone() {
    let mut bench = Bench::holding();
    bench.add("a", 12, 11);
    bench.delete("a", 12, 13, 12);
    assert_eq!(bench.commands(), ["cancel a 11"]);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), ["release a 12"]);
    assert_eq!(bench.deliveries(), [""; 0]);
}

// "One owner": a release is the server's leave to give the job to another.
#[test]
fn a_job_is_released_when_its_handles_are_gone_and_not_before() {
    let mut bench = Bench::holding();
    bench.delete("a", 11, 12, 11);
    assert_eq!(bench.commands(), ["cancel a 11"]);
    assert_eq!(bench.deliveries(), ["delete a 11 Removed"]);
    assert_eq!(bench.commands(), [""; 0]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), ["release a 11"]);
    bench.view.handle_release_failed(&job("a"), Revision(11));
    assert_eq!(bench.commands(), ["release a 11"], "until it is answered");
    bench.view.handle_released(&job("a"), Revision(11), true);
    assert_eq!(bench.commands(), [""; 0]);
}

// Rule 9: a release answered "not yours" asks for a sync.
#[test]
fn a_release_that_is_not_ours_asks_for_a_sync() {
    let mut bench = Bench::holding();
    bench.view.handle_released(&job("a"), Revision(11), false);
    assert_eq!(bench.commands(), ["sync since 11"]);
}

// Rule 9: the time runs from when the Delete is queued, not from when the consumer polls it.
#[test]
fn a_release_times_out_although_its_delete_was_not_polled() {
    let mut bench = Bench::holding();
    bench.delete("a", 11, 12, 11);
    bench.commands();
    assert_eq!(bench.view.poll_timeout(), Some(bench.now + RELEASE_TIMEOUT));
    bench.pass(RELEASE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(bench.commands(), [""; 0]);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.commands(), ["release a 11"]);
    assert_eq!(bench.deliveries(), ["problem ReleaseTimeout a", "delete a 11 Removed"]);
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), [""; 0], "once is enough");
}

// Rule 11, "notifications are hints": a frame may be late by a moment; then it is lost.
#[test]
fn a_frame_that_a_heartbeat_told_of_may_be_late_and_then_is_lost() {
    let mut bench = Bench::new();
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.add("a", 11, 10);
    bench.pass(GRACE);
    assert_eq!(bench.commands(), [""; 0]);
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    bench.pass(GRACE);
    assert_eq!(bench.commands(), ["resubscribe", "sync since 11"]);
}

// Rule 5: what comes back to a worker that leaves would come back for ever.
#[test]
fn a_worker_that_leaves_ends_all_and_takes_nothing_new() {
    let mut bench = Bench::holding();
    bench.add("b", 12, 11);
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    bench.add("c", 13, 12);
    let mut commands = bench.commands();
    commands.sort();
    assert_eq!(commands, ["cancel a 11", "release b 12", "release c 13"]);
    assert_eq!(bench.deliveries(), ["delete a 11 Terminated"]);
    bench.view.handle_released(&job("b"), Revision(12), true);
    bench.view.handle_released(&job("c"), Revision(13), true);
    assert!(!bench.view.is_drained());
    bench.drop_handles("a", 11);
    assert_eq!(bench.commands(), ["release a 11"]);
    assert!(!bench.view.is_drained());
    bench.view.handle_released(&job("a"), Revision(11), true);
    assert!(bench.view.is_drained());
}

// "The stream": a Delete for every job still held, then Close, exactly one, then nothing.
#[test]
fn the_end_is_a_delete_for_each_job_that_the_consumer_has_and_one_close() {
    let mut bench = Bench::holding();
    bench.add("b", 12, 11);
    assert_eq!(bench.deliveries(), ["add b 12"]);
    bench.delete("b", 12, 13, 12);
    bench.add("c", 14, 13);
    bench.view.handle_gap();
    bench.view.handle_close(CloseReason::ClusterReset);
    bench.view.handle_close(CloseReason::Terminated);
    bench.add("d", 15, 14);
    assert_eq!(bench.commands(), ["cancel b 12", "cancel a 11"], "nothing is asked or released any more");
    assert_eq!(bench.deliveries(), ["delete b 12 Removed", "delete a 11 ClusterReset", "close ClusterReset"]);
    bench.view.handle_problem(crate::error::Error::new(ErrorKind::Server, "late"));
    assert_eq!(bench.deliveries(), [""; 0]);
    assert!(bench.view.is_finished() && !bench.view.has_delivery());
}

#[test]
fn a_worker_that_was_reaped_is_closed_even_during_a_sync() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.frame(12, 11, Body::Fenced);
    assert_eq!(bench.deliveries(), ["delete a 11 LockExpired", "close LockExpired"]);
}

// "Bounded memory": a job that comes and goes while nobody polls leaves nothing behind.
#[test]
fn deadlines_of_what_was_released_do_not_pile_up() {
    let mut bench = Bench::new();
    let mut last = 10;
    for _ in 0..1_000 {
        bench.add("a", last + 1, last);
        bench.delivery();
        bench.delete("a", last + 1, last + 2, last + 1);
        bench.delivery();
        bench.drop_handles("a", last + 1);
        bench.view.handle_released(&job("a"), Revision(last + 1), true);
        last += 2;
    }
    assert!(bench.view.deadlines.len() < 100);
    assert!(bench.view.slots.is_empty());
}
