//! New payloads for jobs that are held, and jobs that are to go to another worker.

use super::*;

// Guards: the stream. A job that the consumer has is told of as changed; it is the same assignment.
#[test]
fn an_update_of_a_job_that_the_consumer_has_is_polled_once() {
    let mut bench = Bench::holding();
    bench.frame(update(11, 12, "a", 11, "two"));
    bench.frame(update(11, 12, "a", 11, "two"));
    assert_eq!(bench.told(), ["~a 11 @11 two"]);
    assert!(bench.commands().is_empty() && bench.poll().is_empty());
    bench.frame(delete(12, 13, "a", 11));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
}

// Guards: bounded memory, the stream. The consumer begins with what counts now: there is nothing to be updated.
#[test]
fn an_update_that_comes_before_the_add_was_polled_changes_the_payload_of_the_add() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.frame(update(11, 12, "a", 11, "two"));
    bench.frame(update(12, 13, "a", 11, "three"));
    assert_eq!(bench.view.waiting_changes(), 1);
    assert_eq!(bench.told(), ["+a 11 @11 three"]);
    bench.frame(update(13, 14, "a", 11, "four"));
    assert_eq!(bench.told(), ["~a 11 @11 four"]);
}

// Guards: rule 7. The Delete of the one before and the Add both wait, and the update is about the latter.
#[test]
fn an_update_changes_the_payload_of_an_add_that_waits_behind_a_delete() {
    for delete_polled in [true, false] {
        let mut bench = Bench::holding();
        bench.frame(add(11, 12, "a"));
        bench.pass(RELEASE_TIMEOUT);
        assert_eq!(
            bench.view.poll_delivery().map(|delivery| matches!(delivery, Delivery::Problem(_))),
            Some(true)
        );
        if delete_polled {
            assert!(matches!(bench.view.poll_delivery(), Some(Delivery::Delete { .. })));
        }
        bench.frame(update(12, 13, "a", 12, "two"));
        assert_eq!(bench.view.waiting_changes(), 1);
        let told = bench.told();
        assert_eq!(told.last().map(String::as_str), Some("+a 12 @12 two"));
        assert_eq!(told.len(), if delete_polled { 1 } else { 2 });
    }
}

// Guards: rule 7. The assignment waits for the handles of the one before, and begins with the payload that counts then.
#[test]
fn an_update_of_an_assignment_that_waits_for_handles_is_in_its_add() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.frame(update(12, 13, "a", 12, "two"));
    bench.frame(update(13, 14, "a", 12, "three"));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.told(), ["+a 12 @12 three"]);
    bench.view.handle_gap();
    bench.answer(page(15, 14, [updated("a", 12, 14, "three")]));
    assert!(bench.poll().is_empty(), "it is known");
}

// Guards: rule 7, nothing lost. As above; the frame was lost, and the snapshot has it. What the snapshot has is not older
// than what came by a frame.
#[test]
fn a_sync_brings_the_payload_of_an_assignment_that_waits_for_handles() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_gap();
    bench.answer(page(14, 13, [updated("a", 12, 13, "two")]));
    assert_eq!(bench.poll(), ["-a 11"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.told(), ["+a 12 @12 two"]);
}

// Guards: bounded memory. However many come, the consumer gets the last.
#[test]
fn updates_that_were_not_polled_become_one() {
    let mut bench = Bench::holding();
    bench.frame(update(11, 12, "a", 11, "two"));
    bench.frame(update(12, 13, "a", 11, "three"));
    assert_eq!(bench.view.waiting_changes(), 1);
    assert_eq!(bench.told(), ["~a 11 @11 three"]);
}

// Guards: the stream. A job that has ended is not updated, whether the consumer knows of the end or not; and the update that it
// has not seen goes with the job.
#[test]
fn no_update_is_polled_of_a_job_that_has_ended() {
    for polled in [true, false] {
        let mut bench = Bench::holding();
        bench.frame(update(11, 12, "a", 11, "two"));
        bench.frame(delete(12, 13, "a", 11));
        if polled {
            assert_eq!(bench.poll(), ["-a 11"]);
        }
        bench.frame(update(13, 14, "a", 11, "three"));
        assert_eq!(bench.poll(), if polled { vec![] } else { vec!["-a 11"] });
        bench.drop_handle("a", 11);
        bench.frame(update(14, 15, "a", 11, "four"));
        assert_eq!(bench.releases(), ["a 11"]);
        bench.view.handle_released(&id("a"), Revision(11), true);
        bench.frame(update(15, 16, "a", 11, "five"));
        assert!(bench.poll().is_empty() && bench.commands().is_empty());
    }
}

// Guards: the stream. What is meant is the assignment that it names: not the one before, whose handles are out, nor the next.
#[test]
fn an_update_of_another_assignment_changes_nothing() {
    let mut bench = Bench::holding();
    bench.frame(update(11, 12, "a", 9, "other"));
    bench.frame(update(12, 13, "b", 11, "other"));
    assert!(bench.poll().is_empty());
    bench.frame(add(13, 14, "a"));
    bench.frame(update(14, 15, "a", 11, "late"));
    bench.frame(update(15, 16, "a", 9, "late"));
    bench.poll();
    bench.drop_handle("a", 11);
    assert_eq!(bench.told(), ["+a 14 @14 payload"]);
}

// Guards: nothing lost, notifications are hints. The row has the payload, since the update is after what the request named.
#[test]
fn an_update_whose_frame_was_lost_comes_by_the_next_sync_once() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.frame(attend(13, 14));
    let (request, since, _) = bench.sync().expect("13 is missing");
    assert_eq!(since, Revision(12));
    bench.take(request, page(14, 14, [updated("a", 11, 13, "two"), known("b", 12)]));
    assert_eq!(bench.told(), ["+b 12 @12 payload", "~a 11 @11 two"]);
    bench.view.handle_gap();
    let (request, since, _) = bench.sync().expect("a sync");
    assert_eq!(since, Revision(14));
    bench.take(request, page(14, 14, [updated("a", 11, 13, "two"), known("b", 12)]));
    assert!(bench.poll().is_empty(), "it is known: it is not told of again");
}

// Guards: rule 2, the stream. The frame waits for the sync, and a page is newer than the frame, or older.
#[test]
fn an_update_that_waits_for_a_sync_is_polled_once_whatever_its_page_has() {
    for in_the_page in [true, false] {
        let mut bench = Bench::holding();
        bench.view.handle_gap();
        let (request, ..) = bench.sync().expect("a sync");
        bench.frame(update(11, 15, "a", 11, "two"));
        let first = Page { next: Some(Cursor(if in_the_page { 5 } else { 11 })), ..page(14, 11, NO_ROWS) };
        let (old, new) = (known("a", 11), updated("a", 11, 15, "two"));
        let (first_row, last_row) = if in_the_page { (None, Some(new)) } else { (Some(old), None) };
        bench.take(request, Page { rows: first_row.into_iter().collect(), ..first });
        bench.sync();
        bench.take(request, page(16, 15, last_row));
        assert_eq!(bench.told(), ["~a 11 @11 two"]);
        bench.frame(add(15, 17, "b"));
        assert_eq!(bench.poll(), ["+b 17"], "the chain goes on");
    }
}

// Guards: the stream. A job that was updated before it came here begins with its last payload, and is not updated to the same.
#[test]
fn a_job_that_was_updated_before_it_was_ours_is_added_with_its_last_payload() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    // Updated at 9 for another worker, and at 14 for us.
    bench.answer(page(15, 14, [updated("a", 12, 9, "nine"), updated("b", 13, 14, "fourteen")]));
    assert_eq!(bench.told(), ["+a 12 @12 nine", "+b 13 @13 fourteen"]);
    bench.view.handle_audit(bench.now, Revision(14), Revision(11));
    bench.answer(lifted(11, page(16, 14, [updated("a", 12, 9, "nine"), updated("b", 13, 14, "fourteen")])));
    assert!(bench.poll().is_empty(), "nothing is new: both were granted after the lift");
    bench.frame(update(14, 17, "a", 12, "seventeen"));
    assert_eq!(bench.told(), ["~a 12 @12 seventeen"]);
}

// Guards: rule 10. A new epoch and a new payload are one Update; of a job that the consumer has not seen, neither is.
#[test]
fn a_lift_and_an_update_that_was_lost_are_told_of_together() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_audit(bench.now, Revision(14), Revision(20));
    bench.answer(lifted(20, page(21, 14, [updated("a", 11, 13, "two"), updated("b", 12, 14, "three")])));
    assert_eq!(bench.told(), ["+b 12 @20 three", "~a 11 @20 two"]);
    assert!(bench.commands().is_empty());
}

// Guards: rule 10. The server that took over has forgotten an update: its word counts, with a new epoch; and what is new
// from then on comes as ever.
#[test]
fn an_update_that_was_forgotten_in_a_failover_is_taken_back() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.frame(update(12, 13, "a", 11, "forgotten"));
    bench.frame(update(13, 14, "b", 12, "forgotten"));
    assert_eq!(bench.told(), ["+b 12 @12 forgotten", "~a 11 @11 forgotten"]);
    bench.view.handle_audit(bench.now, Revision(12), Revision(20));
    bench.answer(lifted(20, page(21, 12, [active("a", 11), active("b", 12)])));
    let mut told = bench.told();
    told.sort();
    assert_eq!(told, ["~a 11 @20 payload", "~b 12 @20 payload"]);
    bench.frame(update(12, 22, "a", 11, "new"));
    assert_eq!(bench.told(), ["~a 11 @20 new"]);
    // Of a lost frame as well: the row is newer than what counts, though the forgotten one was so too.
    bench.view.handle_gap();
    bench.answer(lifted(20, page(25, 24, [known("a", 11), updated("b", 12, 24, "newer")])));
    assert_eq!(bench.told(), ["~b 12 @20 newer"]);
}

// Guards: rules 7 and 10. As above, for an Add that was not polled, and for one that waits for handles to go.
#[test]
fn an_update_that_was_forgotten_in_a_failover_is_taken_back_from_what_was_not_polled() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.frame(add(12, 13, "b"));
    bench.frame(update(13, 14, "a", 12, "forgotten"));
    bench.frame(update(14, 15, "b", 13, "forgotten"));
    bench.view.handle_audit(bench.now, Revision(13), Revision(20));
    bench.answer(lifted(20, page(21, 13, [active("a", 12), active("b", 13)])));
    let mut told = bench.told();
    told.sort();
    assert_eq!(told, ["+b 13 @20 payload", "-a 11 @11 Removed"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.told(), ["+a 12 @20 payload"]);
}

// Guards: the stream. The job stays until it is let go of here: then another worker gets it.
#[test]
fn a_job_that_is_to_go_to_another_worker_is_deleted_with_that_reason_and_released() {
    let mut bench = Bench::holding();
    bench.frame(rebalance(11, 12, "a", 11));
    assert_eq!(bench.told(), ["-a 11 @11 Rebalanced"]);
    assert!(bench.releases().is_empty());
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: rule 3. The frame that said so was lost. Of a job that is not held, the server only waits for a release.
#[test]
fn a_snapshot_that_says_moving_deletes_a_held_job_and_hands_back_one_that_is_not_held() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_gap();
    bench.answer(page(15, 15, [moving("a", 11), moving("b", 12), moving("c", 9), moving("d", 14)]));
    assert_eq!(bench.told(), ["-a 11 @11 Rebalanced"]);
    let mut releases = bench.releases();
    releases.sort();
    assert_eq!(releases, ["b 12", "c 9", "d 14"], "b was not polled, d never heard of");
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: rules 3 and 7, one owner. It goes to another only when the handles of the one before are gone.
#[test]
fn a_snapshot_that_says_moving_of_an_assignment_that_waits_for_handles_ends_it_unseen() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_gap();
    bench.answer(page(14, 13, [moving("a", 12)]));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
    assert!(bench.releases().is_empty(), "a handle is out");
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 12"]);
    assert!(bench.poll().is_empty());
}

// Guards: the stream. It was to move, and was deleted before it was let go of: the consumer is told once.
#[test]
fn a_job_that_is_deleted_while_it_is_to_move_is_deleted_once() {
    let mut bench = Bench::holding();
    bench.frame(rebalance(11, 12, "a", 11));
    bench.view.handle_gap();
    bench.answer(page(14, 12, [releasing("a", 11)]));
    assert_eq!(bench.told(), ["-a 11 @11 Rebalanced"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
}
