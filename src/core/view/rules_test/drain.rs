//! A worker that gives up its jobs, and one that goes on: rule 5.

use super::*;

// Guards: rule 5. What is assigned to a worker that leaves goes straight back, unseen; it is drained when all is gone.
#[test]
fn a_draining_view_deletes_what_it_holds_and_hands_back_what_comes() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    assert_eq!(bench.releases(), ["b 12"], "its Add was not polled");
    assert_eq!(bench.told(), ["-a 11 @11 Terminated"]);
    bench.frame(add(12, 13, "c"));
    bench.frame(delete(13, 14, "a", 11));
    assert_eq!(bench.releases(), ["c 13"]);
    bench.view.handle_gap();
    bench.answer(page(15, 15, [known("a", 11), known("b", 12), known("c", 13), active("d", 15)]));
    assert_eq!(bench.releases(), ["d 15"], "the others' releases are under way");
    for (job, grant) in [("b", 12), ("c", 13), ("d", 15)] {
        bench.view.handle_released(&id(job), Revision(grant), true);
    }
    assert!(!bench.view.is_drained() && !bench.view.has_let_go(), "a handle is out");
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    assert!(!bench.view.is_drained() && bench.view.has_let_go(), "the server does not know yet");
    bench.view.handle_released(&id("a"), Revision(11), true);
    assert!(bench.view.is_drained() && bench.poll().is_empty());
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

// Guards: nothing lost. A worker that is drained no more takes what it is given; what was on its way out goes all the same,
// since the server was told, or is about to be, and gives it to whom it likes.
#[test]
fn a_resumed_view_takes_what_comes_and_what_was_on_its_way_out_still_goes() {
    let mut bench = Bench::holding();
    bench.frame(add(11, 12, "b"));
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    assert_eq!(bench.releases(), ["b 12"]);
    bench.view.handle_resume();
    bench.frame(add(12, 13, "c"));
    assert_eq!(bench.told(), ["-a 11 @11 Drained", "+c 13 @13 payload"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
    for (job, grant) in [("a", 11), ("b", 12)] {
        bench.view.handle_released(&id(job), Revision(grant), true);
    }
    bench.frame(add(13, 14, "a"));
    bench.frame(add(14, 15, "b"));
    assert_eq!(bench.poll(), ["+a 14", "+b 15"], "given to us again");
    assert!(!bench.view.is_drained() && bench.commands().is_empty());
}

// Guards: one owner, nothing lost. The server still counts it as ours, and nobody was told otherwise: it begins.
#[test]
fn an_assignment_that_waited_for_handles_through_a_drain_begins_after_all_if_the_drain_is_over() {
    for resumed in [true, false] {
        let mut bench = Bench::holding();
        bench.frame(add(11, 12, "a"));
        bench.view.handle_drain(bench.now, DeleteReason::Drained);
        if resumed {
            bench.view.handle_resume();
        }
        assert_eq!(bench.told(), ["-a 11 @11 Removed"]);
        bench.drop_handle("a", 11);
        assert_eq!(bench.poll(), if resumed { vec!["+a 12"] } else { vec![] });
        assert_eq!(bench.releases(), if resumed { vec![] } else { vec!["a 12"] });
    }
}

// Guards: one owner. An assignment that came during the drain, behind older handles, is on its way out; one that comes
// after it takes its place.
#[test]
fn what_was_to_be_handed_back_goes_after_a_resume_too_unless_the_server_gives_it_anew() {
    for anew in [true, false] {
        let mut bench = Bench::holding();
        bench.view.handle_drain(bench.now, DeleteReason::Drained);
        bench.frame(add(11, 12, "a"));
        bench.view.handle_resume();
        if anew {
            bench.frame(add(12, 13, "a"));
        }
        assert_eq!(bench.poll(), ["-a 11"]);
        assert!(bench.releases().is_empty(), "a handle is out");
        bench.drop_handle("a", 11);
        assert_eq!(bench.poll(), if anew { vec!["+a 13"] } else { vec![] });
        assert_eq!(bench.releases(), if anew { vec![] } else { vec!["a 12"] });
    }
}

// Guards: one owner. A release that is under way when a job comes back is over for the older grant only.
#[test]
fn an_answer_to_the_release_of_a_drain_does_not_touch_the_job_that_came_back() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    assert_eq!(bench.releases(), ["a 11"]);
    bench.view.handle_resume();
    bench.frame(add(11, 12, "a"));
    bench.view.handle_released(&id("a"), Revision(11), true);
    assert_eq!(bench.poll(), ["+a 12"]);
    bench.frame(delete(12, 13, "a", 12));
    assert_eq!(bench.poll(), ["-a 12"]);
}

// Guards: rule 5. The server has given the job again, unseen, before the answer about the first release came: the worker
// may leave only when the second is answered too.
#[test]
fn a_job_that_is_handed_back_twice_is_on_its_way_until_the_second_release_is_answered() {
    let mut bench = Bench::new();
    bench.frame(add(10, 11, "a"));
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    bench.frame(add(11, 12, "a"));
    assert_eq!(bench.releases(), ["a 11", "a 12"]);
    bench.view.handle_released(&id("a"), Revision(11), true);
    assert!(!bench.view.is_drained());
    bench.view.handle_released(&id("a"), Revision(12), true);
    assert!(bench.view.is_drained());
}

// Guards: nothing lost. A snapshot that was asked for during the drain is taken in after it as any other.
#[test]
fn a_sync_that_ends_after_a_resume_takes_what_is_new_and_leaves_what_goes() {
    let mut bench = Bench::holding();
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.view.handle_resume();
    bench.take(request, page(13, 13, [known("a", 11), active("b", 12)]));
    assert_eq!(bench.poll(), ["-a 11", "+b 12"]);
    bench.drop_handle("a", 11);
    assert_eq!(bench.releases(), ["a 11"]);
}

// Guards: the stream. Whatever was said first counts: a drain during a drain, and a resume of what was not drained, are nothing.
#[test]
fn a_drain_and_a_resume_out_of_place_change_nothing() {
    let mut bench = Bench::holding();
    bench.view.handle_resume();
    bench.frame(add(11, 12, "b"));
    assert_eq!(bench.poll(), ["+b 12"]);
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    bench.view.handle_drain(bench.now, DeleteReason::Terminated);
    let mut told = bench.told();
    told.sort();
    assert_eq!(told, ["-a 11 @11 Drained", "-b 12 @12 Drained"]);
    bench.view.handle_resume();
    bench.view.handle_resume();
    bench.frame(add(12, 13, "c"));
    assert_eq!(bench.poll(), ["+c 13"]);
    bench.view.handle_drain(bench.now, DeleteReason::Evicted);
    assert_eq!(bench.told(), ["-c 13 @13 Evicted"], "a second drain is one again");
}
