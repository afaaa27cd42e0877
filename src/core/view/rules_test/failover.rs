//! Another server, with an older state: rule 10.

use super::*;

// Guards: rule 10. An older replica says that we hold what we gave back long ago.
#[test]
fn a_snapshots_job_that_is_not_newer_than_what_is_known_is_handed_back_and_never_added() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    bench.answer(page(20, 20, [known("a", 9), active("b", 10), active("c", 11), releasing("d", 15)]));
    assert_eq!(bench.releases(), ["a 9", "b 10", "d 15"]);
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
    let rows = || [active("a", 11), active("b", 12), active("c", 22)];
    bench.take(request, lifted(20, page(23, 22, rows())));
    assert_eq!(bench.told(), ["+b 12 @20 payload", "+c 22 @22 payload", "~a 11 @20 payload"]);
    bench.view.handle_audit(bench.now, Revision(22), Revision(20));
    assert_eq!(bench.sync(), None, "it is known now");
    bench.view.handle_audit(bench.now, Revision(22), Revision(21));
    bench.answer(lifted(21, page(23, 22, rows())));
    let mut updates = bench.poll();
    updates.sort();
    assert_eq!(updates, ["~a 11", "~b 12"], "c was granted after the lift: nothing is new");
}

// Guards: rule 10. A sync for another reason may be the first to tell of a lift: then it begins anew, for the payloads.
#[test]
fn a_page_that_tells_of_a_lift_asks_for_every_payload() {
    let mut bench = Bench::holding();
    bench.view.handle_gap();
    bench.answer(lifted(20, page(21, 11, [known("a", 11)])));
    let (request, since, _) = bench.sync().expect("anew");
    assert_eq!(since, Revision(0));
    bench.take(request, lifted(20, page(21, 11, [active("a", 11)])));
    assert_eq!(bench.poll(), ["~a 11"]);
}

// Guards: nothing lost, rule 10. A row that was read before a release was carried out says nothing; but a server that took
// over may have forgotten the release, and then the job would be nobody's until the next gap.
#[test]
fn a_row_about_a_release_that_was_answered_during_the_sync_counts_only_after_a_failover() {
    for (lift, expected) in [(0, vec![]), (20, vec!["a 11"])] {
        let mut bench = Bench::holding();
        bench.frame(delete(11, 12, "a", 11));
        bench.poll();
        bench.commands();
        bench.view.handle_audit(bench.now, Revision(12), Revision(20));
        let (request, ..) = bench.sync().expect("another lift");
        bench.drop_handle("a", 11);
        assert_eq!(bench.releases(), ["a 11"]);
        bench.view.handle_released(&id("a"), Revision(11), true);
        bench.take(request, lifted(lift, page(21, 12, [active("a", 11)])));
        assert_eq!(bench.releases(), expected);
    }
}

// Guards: one owner, rule 10. Up to `revision` all is known, and of what is later something may be: a later page had the job,
// which was let go of since. A server that has lost the release must not make it begin again.
#[test]
fn a_job_that_a_later_page_told_of_and_that_was_let_go_of_does_not_begin_again_after_a_failover() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.take(request, Page { next: Some(Cursor(15)), ..page(20, 10, NO_ROWS) });
    bench.sync();
    bench.take(request, page(40, 35, [active("a", 35)]));
    assert_eq!(bench.poll(), ["+a 35"]);
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    assert_eq!(bench.poll(), ["-a 35"]);
    bench.drop_handle("a", 35);
    assert_eq!(bench.releases(), ["a 35"]);
    bench.view.handle_released(&id("a"), Revision(35), true);
    bench.view.handle_resume();
    bench.view.handle_audit(bench.now, Revision(35), Revision(50));
    bench.answer(lifted(50, page(51, 35, [active("a", 35)])));
    assert!(bench.poll().is_empty());
    assert_eq!(bench.releases(), ["a 35"]);
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
        bench.take(request, lifted(20, page(20, 10, NO_ROWS)));
        bench.frame(add(10, 15, "forgotten"));
        bench.frame(add(10, 21, "a"));
        assert_eq!(bench.poll(), ["+a 21"]);
        assert!(bench.commands().is_empty());
    }
}

// Guards: rule 10. A job that is given to us after a lift has its grant for an epoch; one that was granted before, and that
// begins only now, since older handles were out, has the lift.
#[test]
fn an_assignment_that_waited_for_handles_through_a_lift_begins_with_the_new_epoch() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_audit(bench.now, Revision(12), Revision(20));
    bench.answer(lifted(20, page(21, 12, [active("a", 12)])));
    assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.told(), ["+a 12 @20 payload"]);
    bench.frame(add(12, 22, "b"));
    assert_eq!(bench.told(), ["+b 22 @22 payload"]);
}

// Guards: rule 10. The view knows more than a lagging replica: what it knew stays known, so that late frames stay old.
#[test]
fn a_snapshot_that_is_behind_does_not_make_old_frames_new() {
    let mut bench = Bench::new();
    bench.frame(add(10, 30, "a"));
    bench.poll();
    bench.view.handle_gap();
    bench.answer(page(12, 10, NO_ROWS));
    assert_eq!(bench.poll(), ["-a 30"]);
    bench.frame(add(10, 25, "b"));
    assert!(bench.poll().is_empty() && bench.sync().is_none());
}
