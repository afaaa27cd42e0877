//! Assignments of one job in turn, and their releases: rules 3, 7 and 9.

use super::*;

// Guards: rule 3. Deleted and added again with the Delete's frame lost: the owner must let go, the server waits for it.
#[test]
fn a_snapshot_that_says_releasing_deletes_a_held_job_and_hands_back_one_that_is_not_held() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(page(12, 12, [releasing("a", 11), releasing("b", 9)]));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
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
    bench.drop_handle("a", 12);
    assert!(bench.poll().is_empty(), "these are not the handles that count");
    bench.drop_handle("a", 11);
    assert_eq!(bench.poll(), ["+a 12"]);
}

// Guards: rule 7, one owner. As above, by a snapshot: the frames that told of the end and the new beginning were lost.
#[test]
fn a_row_by_a_newer_grant_ends_what_is_held_and_begins_when_its_handles_are_dropped() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(page(20, 15, [active("a", 15)]));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.poll(), ["+a 15"]);
    assert!(bench.releases().is_empty(), "the server gave it anew");
}

// Guards: one owner. A snapshot has a job by another grant, and its Add by the older one was not polled.
#[test]
fn a_row_by_a_newer_grant_takes_the_place_of_an_add_that_was_not_polled() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.view.handle_gap();
    bench.answer(page(20, 15, [active("a", 15)]));
    assert_eq!(bench.poll(), ["+a 15"]);
    bench.view.handle_released(&id("a"), Revision(11), true);
    bench.frame(delete(15, 21, "a", 15));
    assert_eq!(bench.poll(), ["-a 15"], "an answer about the older grant takes nothing away");
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
    assert_eq!(bench.poll(), ["ReleaseTimeout a", "+a 12"]);
}

// Guards: rule 7. Replace: both changes wait in one place, in order.
#[test]
fn a_delete_and_the_next_add_that_both_wait_are_polled_in_turn() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.pass(RELEASE_TIMEOUT);
    assert_eq!(bench.poll(), ["ReleaseTimeout a", "-a 11", "+a 12"]);
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

// Guards: rule 7, one owner. A sync that says the same of the waiting assignment must not hand it back: it would go
// to another worker, and here too once the handles are dropped.
#[test]
fn a_sync_leaves_a_waiting_assignment_alone_that_is_still_ours() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    bench.frame(add(12, 13, "a"));
    bench.view.handle_gap();
    bench.answer(page(20, 13, [known("a", 13)]));
    assert!(bench.releases().is_empty());
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.poll(), ["+a 13"]);
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
    bench.pass(RELEASE_TIMEOUT - Duration::from_millis(1));
    assert!(bench.releases().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.releases(), ["a 11"]);
    assert_eq!(bench.poll(), ["ReleaseTimeout a", "-a 11"], "said, and the Delete still comes");
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

// Guards: rule 9. A deadline counts for its own assignment only.
#[test]
fn the_release_timeout_of_an_older_assignment_does_not_end_the_time_of_the_next() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.drop_handle("a", 11);
    bench.view.handle_released(&id("a"), Revision(11), true);
    bench.frame(add(12, 13, "a"));
    bench.poll();
    bench.pass(RELEASE_TIMEOUT / 2);
    bench.frame(delete(13, 14, "a", 13));
    assert_eq!(bench.releases(), ["a 11"]);
    bench.pass(RELEASE_TIMEOUT / 2);
    assert!(bench.releases().is_empty(), "half of its time is left");
    bench.pass(RELEASE_TIMEOUT / 2);
    assert_eq!(bench.releases(), ["a 13"]);
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
    for grant in 3..200 {
        bench.view.handle_released(&id("c"), Revision(grant), false);
    }
    bench.answer(page(20, 20, NO_ROWS));
    assert!(bench.commands().is_empty(), "and it ends there");
}

/// The release of "a" was answered while a sync is out; with the sync's request.
fn released_during_a_sync() -> (Bench, u64) {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    bench.poll();
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.view.handle_released(&id("a"), Revision(11), true);
    (bench, request)
}

// Guards: rule 9, rule 3. A row that was read before a release was carried out: neither a second release nor a second sync.
#[test]
fn a_release_that_is_answered_while_a_sync_is_out_is_not_sent_again() {
    let (mut bench, request) = released_during_a_sync();
    bench.take(request, page(20, 12, [releasing("a", 11)]));
    assert!(bench.commands().is_empty());
}

// Guards: nothing lost, one owner. It is the older assignment that is over: the row has the next one.
#[test]
fn a_release_that_is_answered_while_a_sync_is_out_does_not_take_the_next_assignment_away() {
    let (mut bench, request) = released_during_a_sync();
    bench.take(request, page(20, 13, [active("a", 13)]));
    assert_eq!(bench.poll(), ["+a 13"]);
    assert!(bench.commands().is_empty());
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
    bench.view.handle_released(&id("a"), Revision(11), true);
    assert!(bench.commands().is_empty() && bench.view.slots.is_empty());
}
