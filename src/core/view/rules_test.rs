//! One test for each promise and each rule of PROTOCOL.md that the view keeps.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::snapshot::{MOST_WAITING, MOST_WAITING_BYTES};
use super::{Command, View};
use crate::core::queue::Delivery;
use crate::error::ErrorKind;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, Row, RowState};

const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
const AUDIT_GRACE: Duration = Duration::from_millis(50);
const NO_ROWS: [Row; 0] = [];

fn id(job: &str) -> JobId {
    JobId::new(job).expect("a plain id")
}

fn add(previous: u64, revision: u64, job: &str) -> Frame {
    let body = Body::Add { job: id(job), born: Revision(revision), payload: Bytes::from_static(b"payload") };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn delete(previous: u64, revision: u64, job: &str, grant: u64) -> Frame {
    let body = Body::Delete { job: id(job), grant: Revision(grant), reason: DeleteReason::Removed };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn row(job: &str, grant: u64, state: RowState) -> Row {
    Row { job: id(job), grant: Revision(grant), born: Revision(grant), changed: Revision(0), state }
}

/// An active job as a page has it when its payload was asked for.
fn active(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Active(Some(Bytes::from_static(b"payload"))))
}

/// An active job that was granted before what the request named.
fn known(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Active(None))
}

fn releasing(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Releasing)
}

fn page(revision: u64, inbox: u64, rows: impl IntoIterator<Item = Row>) -> Page {
    Page {
        revision: Revision(revision),
        inbox: Revision(inbox),
        lifted: Revision(0),
        next: None,
        rows: rows.into_iter().collect(),
    }
}

/// A view, and the short names by which a test speaks to it.
struct Bench {
    view: View,
    now: Instant,
}

impl Bench {
    /// In sync, holds nothing; the last frame was number 10.
    fn new() -> Self {
        let mut bench = Self { view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE), now: Instant::now() };
        bench.view.handle_gap();
        bench.answer(page(10, 10, NO_ROWS));
        assert!(bench.commands().is_empty());
        bench
    }

    /// Holds `a` by 11, and the consumer has polled it.
    fn holding() -> Self {
        let mut bench = Self::new();
        bench.frame(add(10, 11, "a"));
        assert_eq!(bench.poll(), ["+a 11"]);
        bench
    }

    fn frame(&mut self, frame: Frame) {
        self.view.handle_frame(self.now, frame);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.view.handle_timeout(self.now);
    }

    fn drop_handle(&mut self, job: &str, grant: u64) {
        self.view.handle_dropped(self.now, &id(job), Revision(grant));
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.view.poll_command()).collect()
    }

    /// What is released, as `a 11`; any other command but a cancellation is not expected.
    fn releases(&mut self) -> Vec<String> {
        let mut releases = Vec::new();
        for command in self.commands() {
            match command {
                Command::Release { job, grant } => releases.push(format!("{job} {grant}")),
                Command::Cancel { .. } => {}
                other => panic!("not expected: {other:?}"),
            }
        }
        releases
    }

    /// The one sync that is asked for, if there is one.
    fn sync(&mut self) -> Option<(u64, Revision, Option<Cursor>)> {
        let mut syncs: Vec<_> = self
            .commands()
            .into_iter()
            .filter_map(|command| match command {
                Command::Sync { request, since, cursor } => Some((request, since, cursor)),
                Command::Resubscribe | Command::Cancel { .. } | Command::Release { .. } => None,
            })
            .collect();
        assert!(syncs.len() <= 1, "several syncs at once: {syncs:?}");
        syncs.pop()
    }

    fn take(&mut self, request: u64, page: Page) {
        self.view.handle_page(self.now, request, page);
    }

    /// Answers the sync that is asked for now.
    fn answer(&mut self, page: Page) {
        let (request, ..) = self.sync().expect("a sync is asked for");
        self.take(request, page);
    }

    /// All that waits for the consumer: `+a 11` an Add, `~a 11` an Update, `-a 11` a Delete; then the grant.
    fn poll(&mut self) -> Vec<String> {
        let text = |delivery| match delivery {
            Delivery::Add { job, grant, .. } => format!("+{job} {grant}"),
            Delivery::Update { job, grant, .. } => format!("~{job} {grant}"),
            Delivery::Delete { job, grant, .. } => format!("-{job} {grant}"),
            Delivery::Problem(error) => format!("{:?}", error.kind()),
            Delivery::Close(reason) => format!("{reason:?}"),
        };
        std::iter::from_fn(|| self.view.poll_delivery()).map(text).collect()
    }
}

// Guards: nothing lost. Frames are taken in along their chain; a hole in it asks for a sync from where the view knows all.
#[test]
fn a_frame_that_does_not_follow_the_last_one_asks_for_a_sync_and_a_repeated_one_is_ignored() {
    let mut bench = Bench::holding();
    bench.frame(add(10, 11, "a"));
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
    bench.frame(add(12, 13, "c"));
    let (request, since, cursor) = bench.sync().expect("12 is missing");
    assert_eq!((since, cursor), (Revision(11), None));
    bench.take(request, page(13, 13, [known("a", 11), active("b", 12), active("c", 13)]));
    assert_eq!(bench.poll(), ["+b 12", "+c 13"]);
}

// Guards: rule 1. Otherwise an overtaken snapshot adds again what was let go of since.
#[test]
fn only_the_newest_requests_pages_count() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (overtaken, ..) = bench.sync().expect("a sync");
    bench.view.handle_gap();
    let (newest, ..) = bench.sync().expect("another");
    bench.take(overtaken, page(11, 11, [active("a", 11)]));
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
    bench.take(newest, page(12, 12, NO_ROWS));
    bench.take(overtaken, page(11, 11, [active("a", 11)]));
    assert!(bench.poll().is_empty());
    bench.frame(add(12, 13, "b"));
    assert_eq!(bench.poll(), ["+b 13"], "the chain goes on from the newest snapshot");
}

// Guards: rule 1. A late page of a request that counts as failed must not be mixed with those of a later one.
#[test]
fn the_page_of_a_failed_request_is_dropped_when_it_comes_late() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.view.handle_sync_failed(request);
    bench.take(request, page(11, 11, [active("a", 11)]));
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
    bench.view.handle_gap();
    bench.answer(page(12, 12, [active("b", 12)]));
    assert_eq!(bench.poll(), ["+b 12"]);
}

// Guards: rule 1. While a sync is out, frames wait; the chain goes on from the inbox's number in the snapshot.
#[test]
fn frames_that_come_during_a_sync_are_taken_in_after_it_if_they_are_not_in_it() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.frame(add(10, 11, "a"));
    bench.frame(delete(11, 12, "a", 11));
    bench.frame(add(12, 13, "b"));
    assert!(bench.poll().is_empty(), "they wait");
    bench.answer(page(11, 11, [active("a", 11)]));
    assert_eq!(bench.poll(), ["+b 13"]);
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: rule 1, honest failure. A frame that was forgotten in a failover, or forged, looks like a gap after each
// sync; it must not keep the view syncing for ever.
#[test]
fn a_frame_that_the_server_does_not_know_of_costs_one_sync() {
    let mut bench = Bench::new();
    bench.frame(add(900, 901, "a"));
    bench.answer(page(10, 10, NO_ROWS));
    assert_eq!(bench.sync(), None);
    bench.frame(add(10, 11, "b"));
    assert_eq!(bench.poll(), ["+b 11"]);
}

// Guards: rules 1 and 2. A hole among the frames that waited means another sync, and only one.
#[test]
fn a_gap_among_the_frames_that_waited_asks_for_one_more_sync() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.frame(add(10, 11, "a"));
    bench.frame(add(12, 13, "c"));
    bench.answer(page(10, 10, NO_ROWS));
    assert_eq!(bench.poll(), ["+a 11"]);
    bench.answer(page(13, 13, [known("a", 11), active("b", 12), active("c", 13)]));
    assert_eq!(bench.poll(), ["+b 12", "+c 13"]);
    assert_eq!(bench.sync(), None);
}

// Guards: rule 2. Each page was read at another time, and a frame about a job is in its own page or is not.
#[test]
fn a_waiting_frame_is_old_if_the_page_that_covers_its_grant_was_read_after_it() {
    let mut bench = Bench::new();
    bench.frame(add(10, 20, "a"));
    bench.frame(add(20, 30, "b"));
    assert_eq!(bench.poll(), ["+a 20", "+b 30"]);
    bench.view.handle_gap();
    let (request, since, _) = bench.sync().expect("a sync");
    assert_eq!(since, Revision(30));
    // Read at 31, the first page has residues up to 25; the second one, read at 41, has the rest.
    bench.take(request, Page { next: Some(Cursor(25)), ..page(31, 30, [known("a", 20)]) });
    assert_eq!(bench.sync(), Some((request, since, Some(Cursor(25)))));
    bench.frame(delete(30, 40, "a", 20));
    bench.frame(add(40, 41, "c"));
    bench.frame(add(41, 42, "d"));
    bench.take(request, page(41, 41, [known("b", 30)]));
    assert_eq!(
        bench.poll(),
        ["-a 20", "+d 42"],
        "40 is newer than a's page; `c` is not in its page, so it has moved on"
    );
    bench.frame(add(42, 43, "e"));
    assert_eq!(bench.poll(), ["+e 43"], "the chain went on from the first page");
}

// Guards: rule 2. After a failover the chain may begin before what is held, and a late copy of a frame fits it.
#[test]
fn an_add_with_a_grant_that_is_known_is_ignored() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(page(11, 10, [known("a", 11)]));
    bench.frame(add(10, 11, "a"));
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
}

// Guards: rule 2. The first page's inbox number is older than what a later page shows.
#[test]
fn an_add_that_a_later_page_has_already_is_not_added_again() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.take(request, Page { next: Some(Cursor(5)), ..page(10, 10, NO_ROWS) });
    bench.sync();
    bench.frame(add(10, 11, "a"));
    bench.frame(delete(11, 12, "a", 11));
    bench.take(request, page(11, 11, [active("a", 11)]));
    assert!(bench.poll().is_empty());
    assert_eq!(bench.releases(), ["a 11"], "12 is newer than the page");
}

// Guards: rule 2. The job went on between two pages and is back: it is in both, and the later grant is true.
#[test]
fn a_job_that_is_in_two_pages_counts_by_its_later_grant() {
    for (first, second) in [(11, 12), (12, 11)] {
        let mut bench = Bench::new();
        bench.view.handle_gap();
        let (request, ..) = bench.sync().expect("a sync");
        bench.take(request, Page { next: Some(Cursor(11)), ..page(12, 12, [active("a", first)]) });
        bench.sync();
        bench.take(request, page(12, 12, [active("a", second)]));
        assert_eq!(bench.poll(), ["+a 12"]);
    }
}

// Guards: rule 2, honest failure. Pages that do not go forward would never end.
#[test]
fn pages_that_do_not_belong_together_begin_the_sync_anew() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.take(request, Page { next: Some(Cursor(5)), ..page(10, 10, NO_ROWS) });
    bench.sync();
    bench.take(request, Page { next: Some(Cursor(5)), ..page(10, 10, NO_ROWS) });
    let (again, _, cursor) = bench.sync().expect("anew");
    assert!(again > request && cursor.is_none());
}

// Guards: rule 3. Deleted and added again with the Delete's frame lost: the owner must let go, the server waits for it.
#[test]
fn a_snapshot_that_says_releasing_deletes_a_held_job_and_hands_back_one_that_is_not_held() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(page(12, 12, [releasing("a", 11), releasing("b", 9)]));
    assert_eq!(bench.poll(), ["-a 11"]);
    assert_eq!(bench.releases(), ["b 9"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: one owner. What the server does not count as ours ends, or vanishes if it was not seen yet.
#[test]
fn a_job_that_a_snapshot_does_not_list_is_deleted_and_one_that_waits_is_never_added() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_gap();
    bench.answer(page(13, 13, NO_ROWS));
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    bench.view.handle_released(&id("a"), Revision(11), false);
    bench.answer(page(13, 13, NO_ROWS));
    assert!(bench.commands().is_empty() && bench.view.slots.is_empty(), "and it ends there");
}

// Guards: rule 5. What is assigned to a worker that leaves goes straight back, unseen; it is drained when all is gone.
#[test]
fn a_draining_view_deletes_what_it_holds_and_hands_back_what_comes() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    assert_eq!(bench.releases(), ["b 12"], "its Add was not polled");
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.frame(add(12, 13, "c"));
    bench.frame(delete(13, 14, "a", 11));
    assert_eq!(bench.releases(), ["c 13"]);
    bench.view.handle_gap();
    bench.answer(page(15, 15, [known("a", 11), known("b", 12), known("c", 13), active("d", 15)]));
    assert_eq!(bench.releases(), ["d 15"], "the others' releases are under way");
    for (job, grant) in [("b", 12), ("c", 13), ("d", 15)] {
        bench.view.handle_released(&id(job), Revision(grant), true);
    }
    assert!(!bench.view.is_drained(), "a handle is out");
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    assert!(!bench.view.is_drained(), "the server does not know yet");
    bench.view.handle_released(&id("a"), Revision(11), true);
    assert!(bench.view.is_drained() && bench.poll().is_empty());
}

// Guards: rule 7. An Add and a Delete that cancel out are never seen, and the server has to know all the same.
#[test]
fn an_add_that_is_deleted_before_it_is_polled_vanishes_and_is_released() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.frame(delete(11, 12, "a", 11));
    assert_eq!(bench.releases(), ["a 11"]);
    assert!(!bench.view.has_delivery() && bench.poll().is_empty());
}

// Guards: rule 7. The old assignment's Delete and the new one's Add may both wait, and the Add until the handles are gone.
#[test]
fn a_new_assignment_waits_until_the_handles_of_the_old_one_are_dropped() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    assert_eq!(bench.poll(), ["-a 11"]);
    assert!(bench.releases().is_empty(), "the server has moved on from 11 by itself");
    bench.drop_handle("a", 11);
    assert_eq!(bench.poll(), ["+a 12"]);
}

// Guards: rule 7. As above, but the handles outlive their time: then the Add goes on, behind the Delete.
#[test]
fn a_new_assignment_waits_for_stuck_handles_only_until_the_release_timeout() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.pass(RELEASE_TIMEOUT - Duration::from_millis(1));
    assert!(bench.poll().contains(&"-a 11".into()));
    assert!(bench.poll().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.poll(), ["ReleaseTimeout", "+a 12"]);
}

// Guards: rule 7. Replace: both changes wait in one place, in order.
#[test]
fn a_delete_and_the_next_add_that_both_wait_are_polled_in_turn() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.pass(RELEASE_TIMEOUT);
    assert_eq!(bench.poll(), ["ReleaseTimeout", "-a 11", "+a 12"]);
}

// Guards: rule 7, one owner. A Delete of the assignment that waits cancels it; it is released only when the old one's
// handles are gone, since another worker gets the job then.
#[test]
fn a_waiting_assignment_that_is_deleted_is_never_seen_and_released_when_the_handles_are_dropped() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.frame(delete(12, 13, "a", 12));
    assert!(bench.releases().is_empty());
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 12"]);
    assert!(bench.poll().is_empty());
}

// Guards: rules 5 and 7, one owner. As above, for a worker that leaves.
#[test]
fn a_draining_view_hands_back_a_job_only_when_older_handles_of_it_are_dropped() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    bench.frame(add(12, 13, "a"));
    assert_eq!(bench.poll(), ["-a 11"]);
    assert!(bench.releases().is_empty());
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 13"]);
}

// Guards: rule 7, one owner. A sync that says the same of the waiting assignment must not hand it back: it would go
// to another worker, and here too once the handles are dropped.
#[test]
fn a_sync_leaves_a_waiting_assignment_alone_that_is_still_ours() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_gap();
    bench.answer(page(12, 12, [known("a", 12)]));
    assert!(bench.releases().is_empty());
    bench.poll();
    bench.drop_handle("a", 11);
    assert_eq!(bench.poll(), ["+a 12"]);
}

// Guards: rule 7, one owner. It went to another worker meanwhile, and the frame that said so was lost.
#[test]
fn a_waiting_assignment_that_a_sync_no_longer_lists_is_never_added() {
    let cases = [(None, "a 11"), (Some(known("a", 9)), "a 9"), (Some(releasing("a", 12)), "a 12")];
    for (row, released) in cases {
        let mut bench = Bench::holding();
        bench.frame(add(11, 12, "a"));
        bench.view.handle_gap();
        bench.answer(page(13, 13, row));
        assert_eq!(bench.poll(), ["-a 11"]);
        assert!(bench.releases().is_empty(), "a handle is out");
        bench.drop_handle("a", 11);
        assert!(bench.poll().is_empty());
        assert_eq!(bench.releases(), [released]);
    }
}

// Guards: rule 9. The time runs, and the handler is told, from when the Delete is queued, not from when it is polled.
#[test]
fn the_release_timeout_runs_from_the_moment_the_delete_is_queued() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    assert_eq!(bench.commands(), [Command::Cancel { job: id("a"), grant: Revision(11) }]);
    assert_eq!(bench.view.poll_timeout(), Some(bench.now + RELEASE_TIMEOUT));
    bench.pass(RELEASE_TIMEOUT);
    assert_eq!(bench.releases(), ["a 11"]);
    assert_eq!(bench.poll(), ["ReleaseTimeout", "-a 11"], "said, and the Delete still comes");
    bench.drop_handle("a", 11);
    assert!(bench.releases().is_empty(), "it was released");
}

// Guards: rule 9, one owner. Not before the last handle is dropped, and not twice.
#[test]
fn a_job_is_released_once_when_its_handles_are_dropped() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    assert_eq!(bench.poll(), ["-a 11"]);
    assert!(bench.releases().is_empty());
    bench.drop_handle("a", 9);
    assert!(bench.releases().is_empty(), "another assignment's handle");
    bench.drop_handle("a", 11);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    bench.pass(RELEASE_TIMEOUT);
    assert!(bench.poll().is_empty(), "in time");
}

// Guards: rule 9. The view and the server think differently of what is held; a batch of such answers asks once.
#[test]
fn releases_that_are_answered_not_yours_ask_for_one_sync() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.answer(page(20, 20, [releasing("a", 1), releasing("b", 2)]));
    assert_eq!(bench.releases(), ["a 1", "b 2"]);
    bench.view.handle_released(&id("a"), Revision(1), false);
    bench.view.handle_released(&id("b"), Revision(2), false);
    bench.answer(page(20, 20, NO_ROWS));
    assert!(bench.commands().is_empty(), "and it ends there");
}

// Guards: nothing lost. The server waits for a release that was lost on the way.
#[test]
fn a_release_that_is_not_answered_is_commanded_again() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.frame(delete(11, 12, "a", 11));
    assert_eq!(bench.releases(), ["a 11"]);
    bench.view.handle_release_failed(&id("a"), Revision(11));
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: rule 10. An older replica says that we hold what we gave back long ago.
#[test]
fn a_snapshots_job_that_is_not_newer_than_what_is_known_is_handed_back_and_never_added() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.answer(page(20, 20, [active("a", 9), active("b", 10), active("c", 11)]));
    assert_eq!(bench.releases(), ["a 9", "b 10"]);
    assert_eq!(bench.poll(), ["+c 11"]);
}

// Guards: rule 10. An assignment that goes on through a failover gets its new epoch by an Update, with its payload, or
// with its Add if that was not polled; one that was made after the lift has its epoch already.
#[test]
fn a_lift_gives_each_older_assignment_its_new_epoch() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.frame(add(12, 22, "c"));
    bench.view.handle_audit(bench.now, Revision(22), Revision(20));
    let (request, since, _) = bench.sync().expect("another lift");
    assert_eq!(since, Revision(0), "an Update has the payload");
    let lifted =
        Page { lifted: Revision(20), ..page(23, 22, [active("a", 11), active("b", 12), active("c", 22)]) };
    bench.take(request, lifted);
    let mut epochs = Vec::new();
    while let Some(delivery) = bench.view.poll_delivery() {
        match delivery {
            Delivery::Add { job, epoch, .. } => epochs.push(format!("+{job} {epoch}")),
            Delivery::Update { job, epoch, payload, .. } => {
                assert_eq!(payload, "payload");
                epochs.push(format!("~{job} {epoch}"));
            }
            other => panic!("not expected: {other:?}"),
        }
    }
    epochs.sort();
    assert_eq!(epochs, ["+b 20", "+c 22", "~a 20"]);
    bench.view.handle_audit(bench.now, Revision(22), Revision(20));
    assert_eq!(bench.sync(), None, "it is known now");
    bench.view.handle_audit(bench.now, Revision(22), Revision(21));
    let rows = [active("a", 11), active("b", 12), active("c", 22)];
    bench.answer(Page { lifted: Revision(21), ..page(23, 22, rows) });
    let mut updates = bench.poll();
    updates.sort();
    assert_eq!(updates, ["~a 11", "~b 12"], "c was granted after the lift: nothing is new");
}

// Guards: rule 10. A sync for another reason may be the first to tell of a lift: then it begins anew, for the payloads.
#[test]
fn a_page_that_tells_of_a_lift_asks_for_every_payload() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(Page { lifted: Revision(20), ..page(21, 11, [known("a", 11)]) });
    let (request, since, _) = bench.sync().expect("anew");
    assert_eq!(since, Revision(0));
    bench.take(request, Page { lifted: Revision(20), ..page(21, 11, [active("a", 11)]) });
    assert_eq!(bench.poll(), ["~a 11"]);
}

// Guards: nothing lost, rule 10. A row that was read before a release was carried out says nothing; but a server that took
// over may have forgotten the release, and then the job would be nobody's until the next gap.
#[test]
fn a_row_about_a_release_that_was_answered_during_the_sync_counts_only_after_a_failover() {
    for (lifted, expected) in [(0, vec![]), (20, vec!["a 11"])] {
        let mut bench = Bench::holding();
        bench.frame(delete(11, 12, "a", 11));
        bench.poll();
        bench.commands();
        bench.view.handle_audit(bench.now, Revision(12), Revision(20));
        let (request, ..) = bench.sync().expect("another lift");
        bench.drop_handle("a", 11);
        assert_eq!(bench.releases(), ["a 11"]);
        bench.view.handle_released(&id("a"), Revision(11), true);
        bench.take(request, Page { lifted: Revision(lifted), ..page(21, 12, [active("a", 11)]) });
        assert_eq!(bench.releases(), expected);
    }
}

// Guards: one owner, rule 10. A frame from before a failover may fit the chain of the server that took over, which has
// forgotten it: it is old all the same, whether it came before the sync or after.
#[test]
fn a_frame_from_before_a_failover_is_old_even_where_it_fits() {
    for during_the_sync in [true, false] {
        let mut bench = Bench::new();
        bench.view.handle_audit(bench.now, Revision(10), Revision(20));
        let (request, ..) = bench.sync().expect("another lift");
        if during_the_sync {
            bench.frame(add(10, 15, "forgotten"));
        }
        bench.take(request, Page { lifted: Revision(20), ..page(20, 10, NO_ROWS) });
        bench.frame(add(10, 15, "forgotten"));
        bench.frame(add(10, 21, "a"));
        assert_eq!(bench.poll(), ["+a 21"]);
        assert!(bench.commands().is_empty());
    }
}

// Guards: rule 11. A heartbeat's answer may overtake the frame that it tells of: that costs nothing.
#[test]
fn an_audit_that_tells_of_a_frame_that_comes_in_time_costs_nothing() {
    let mut bench = Bench::new();
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    assert_eq!(bench.view.poll_timeout(), Some(bench.now + AUDIT_GRACE));
    bench.frame(add(10, 11, "a"));
    bench.pass(AUDIT_GRACE);
    assert!(bench.commands().is_empty());
}

// Guards: rule 11, notifications are hints. A lost subscription is seen by the audit, made again, and one sync heals all.
#[test]
fn an_audit_that_tells_of_a_frame_that_does_not_come_subscribes_again_and_syncs_once() {
    let mut bench = Bench::new();
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.pass(AUDIT_GRACE - Duration::from_millis(1));
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    bench.pass(Duration::from_millis(1));
    let commands = bench.commands();
    assert!(matches!(commands[..], [Command::Resubscribe, Command::Sync { .. }]), "{commands:?}");
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    assert_eq!(bench.view.poll_timeout(), None, "a sync is out: it heals this too");
    bench.view.handle_gap();
    bench.answer(page(12, 12, [active("a", 11), active("b", 12)]));
    assert_eq!(bench.poll(), ["+a 11", "+b 12"]);
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    bench.pass(AUDIT_GRACE);
    assert!(bench.commands().is_empty());
}

// Guards: bounded memory. However long a sync takes, the frames that wait for it are bounded in number and in bytes; what is
// dropped is asked for again, once.
#[test]
fn frames_that_wait_are_bounded_and_what_is_dropped_is_asked_for() {
    let large = Bytes::from(vec![0; MOST_WAITING_BYTES / 4]);
    for payload in [Bytes::new(), large] {
        let mut bench = Bench::new();
        bench.view.handle_gap();
        let (request, ..) = bench.sync().expect("a sync");
        for n in 0..2 * MOST_WAITING as u64 {
            let body = Body::Add { job: id("a"), born: Revision(1), payload: payload.clone() };
            bench.frame(Frame { revision: Revision(11 + n), previous: Revision(10 + n), body });
            let most = if payload.is_empty() { MOST_WAITING } else { 4 };
            assert!(bench.view.waiting.len() <= most);
        }
        bench.take(request, page(10, 10, NO_ROWS));
        bench.answer(page(90_000, 90_000, [active("a", 90_000)]));
        assert_eq!(bench.poll(), ["+a 90000"]);
        assert_eq!(bench.sync(), None, "once");
    }
}

// Guards: bounded memory. Jobs come and go, released in time, behind a consumer that does not poll (but for the Adds).
#[test]
fn what_jobs_that_are_gone_leave_behind_does_not_pile_up() {
    let mut bench = Bench::new();
    let mut last = 10;
    for n in 0..5_000 {
        let (job, grant) = (format!("job{n}"), last + 1);
        bench.frame(add(last, grant, &job));
        if n % 2 == 0 {
            assert_eq!(bench.poll(), [format!("+{job} {grant}")]);
        }
        bench.frame(delete(grant, grant + 1, &job, grant));
        if n % 2 == 0 {
            bench.poll();
            bench.drop_handle(&job, grant);
        }
        assert_eq!(bench.releases(), [format!("{job} {grant}")]);
        bench.view.handle_released(&id(&job), Revision(grant), true);
        last += 2;
        assert!(bench.view.slots.is_empty());
        assert!(bench.view.deadlines.len() <= 66, "{} deadlines", bench.view.deadlines.len());
        assert!(!bench.view.has_delivery());
    }
}

// Guards: bounded memory. One job goes back and forth while nobody polls: at most one pending change.
#[test]
fn however_often_a_job_changes_one_change_waits() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    bench.pass(RELEASE_TIMEOUT);
    let mut last = 12;
    for _ in 0..1_000 {
        bench.frame(add(last, last + 1, "a"));
        bench.frame(delete(last + 1, last + 2, "a", last + 1));
        last += 2;
    }
    bench.frame(add(last, last + 1, "a"));
    assert_eq!(bench.poll(), ["ReleaseTimeout".into(), "-a 11".into(), format!("+a {}", last + 1)]);
}

// Guards: the stream. It ends with a Delete for each job whose Add was polled, un-polled Adds vanish, one Close, nothing after.
#[test]
fn a_closed_view_deletes_what_the_consumer_has_closes_once_and_says_nothing_more() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.frame(add(12, 13, "c"));
    bench.poll();
    bench.frame(delete(13, 14, "b", 12));
    bench.frame(add(14, 15, "d"));
    bench.frame(add(15, 16, "c"));
    bench.commands();
    bench.view.handle_close(CloseReason::LockExpired);
    bench.view.handle_close(CloseReason::Terminated);
    assert_eq!(bench.commands(), [Command::Cancel { job: id("a"), grant: Revision(11) }]);
    assert_eq!(bench.view.poll_timeout(), None);
    assert!(!bench.view.is_finished());

    let mut deliveries = Vec::new();
    while let Some(delivery) = bench.view.poll_delivery() {
        deliveries.push(delivery);
        bench.frame(add(16, 17, "e"));
        bench.view.handle_gap();
    }
    let close = deliveries.pop();
    assert!(matches!(close, Some(Delivery::Close(CloseReason::LockExpired))), "{close:?}");
    let mut deletes: Vec<_> = deliveries
        .into_iter()
        .map(|delivery| match delivery {
            Delivery::Delete { job, reason, .. } => (job, reason),
            other => panic!("not expected: {other:?}"),
        })
        .collect();
    deletes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let expected = [
        (id("a"), DeleteReason::LockExpired),
        (id("b"), DeleteReason::Removed),
        (id("c"), DeleteReason::Removed),
    ];
    assert_eq!(deletes, expected);
    assert!(bench.view.is_finished());

    bench.frame(add(16, 17, "e"));
    bench.view.handle_gap();
    bench.view.handle_audit(bench.now, Revision(99), Revision(99));
    bench.view.handle_release_failed(&id("a"), Revision(11));
    bench.view.handle_released(&id("a"), Revision(11), false);
    bench.view.handle_problem(crate::error::Error::new(ErrorKind::Server, "late"));
    bench.drop_handle("b", 12);
    bench.pass(RELEASE_TIMEOUT);
    bench.view.handle_close(CloseReason::Terminated);
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
}

// Guards: the stream. A closed worker's number is dead: what was to be sent and was not yet is no more of use.
#[test]
fn a_closed_view_takes_back_what_it_has_commanded() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.frame(delete(12, 13, "b", 12));
    bench.view.handle_gap();
    bench.view.handle_close(CloseReason::ClusterReset);
    assert_eq!(bench.commands(), [Command::Cancel { job: id("a"), grant: Revision(11) }]);
}

// Guards: one owner. A worker that was reaped hears of it, whatever else it has missed.
#[test]
fn a_fenced_frame_closes_the_view_even_out_of_turn() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.frame(Frame { revision: Revision(77), previous: Revision(70), body: Body::Fenced });
    assert_eq!(bench.poll(), ["-a 11", "LockExpired"]);
}

#[derive(Clone, Debug)]
enum Hostile {
    Frame(Frame),
    Page(u64, Page),
    Audit(u64, u64),
    Dropped(u64),
    Released(u64, bool),
    Failed(u64),
    Poll,
    Pass,
    Drain,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let number = prop::sample::select(vec![0, 1, 2, 3, 4, u64::MAX - 1, u64::MAX]);
    let numbers = [(); 6].map(|()| number.clone());
    (0..9_u8, numbers, any::<bool>(), any::<bool>()).prop_map(|(kind, [a, b, c, d, e, request], yes, too)| {
        let (job, payload) = (id(if yes { "a" } else { "b" }), Bytes::from_static(b"x"));
        match kind {
            0 => Hostile::Frame(Frame {
                revision: Revision(a),
                previous: Revision(b),
                body: if too {
                    Body::Add { job, born: Revision(c), payload }
                } else {
                    Body::Delete { job, grant: Revision(c), reason: DeleteReason::Removed }
                },
            }),
            1 | 2 => {
                let state = match e {
                    0 | 1 => RowState::Releasing,
                    2 => RowState::Active(None),
                    _ => RowState::Active(Some(payload)),
                };
                let row = Row { job, grant: Revision(c), born: Revision(d), changed: Revision(a), state };
                let rows = if too { vec![row] } else { vec![] };
                let next = (kind == 2).then_some(Cursor(d));
                let page =
                    Page { revision: Revision(a), inbox: Revision(b), lifted: Revision(e), next, rows };
                Hostile::Page(request, page)
            }
            3 => Hostile::Audit(a, b),
            4 => Hostile::Dropped(a),
            5 => Hostile::Released(a, yes),
            6 => Hostile::Failed(request),
            7 if a == 0 && b == 0 => Hostile::Drain,
            7 => Hostile::Pass,
            _ => Hostile::Poll,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    // Guards: honest failure. No frame, page or answer, however hostile, panics, and the stream stays a proper one.
    #[test]
    fn nothing_that_comes_from_outside_panics_or_breaks_the_turn_of_adds_and_deletes(
        inputs in prop::collection::vec(hostile(), 1..80),
    ) {
        let mut bench = Bench { view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE), now: Instant::now() };
        bench.view.handle_gap();
        bench.sync();
        let (mut newest, mut held) = (0, std::collections::HashMap::new());
        for input in inputs.into_iter().map(Some).chain([None]) {
            let (a, now, mut poll) = (id("a"), bench.now, false);
            match input {
                Some(Hostile::Frame(frame)) => bench.frame(frame),
                // Mostly the request that counts.
                Some(Hostile::Page(request, page)) => bench.take(if request > 1 { newest } else { request }, page),
                Some(Hostile::Audit(inbox, lifted)) => bench.view.handle_audit(now, Revision(inbox), Revision(lifted)),
                Some(Hostile::Dropped(grant)) => bench.view.handle_dropped(now, &a, Revision(grant)),
                Some(Hostile::Released(grant, mine)) => bench.view.handle_released(&a, Revision(grant), mine),
                Some(Hostile::Failed(request)) => bench.view.handle_sync_failed(request),
                Some(Hostile::Pass) => bench.pass(RELEASE_TIMEOUT / 2),
                Some(Hostile::Drain) => bench.view.handle_drain(now, DeleteReason::Terminated),
                Some(Hostile::Poll) => poll = true,
                None => bench.view.handle_close(CloseReason::Terminated),
            }
            if let Some((request, ..)) = bench.sync() {
                newest = request;
            }
            if poll || bench.view.is_closed() {
                while let Some(delivery) = bench.view.poll_delivery() {
                    match delivery {
                        Delivery::Add { job, grant, .. } => prop_assert_eq!(held.insert(job, grant), None),
                        Delivery::Update { job, grant, .. } => prop_assert_eq!(held.get(&job), Some(&grant)),
                        Delivery::Delete { job, grant, .. } => prop_assert_eq!(held.remove(&job), Some(grant)),
                        Delivery::Problem(_) | Delivery::Close(_) => {}
                    }
                }
            }
        }
        prop_assert!(held.is_empty() && bench.view.is_finished());
    }
}
