//! The end of the stream.

use super::*;
use crate::error::{Error, ErrorKind};

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
    bench.frame(attend(16, 17));
    bench.view.handle_gap();
    bench.view.handle_audit(bench.now, Revision(99), Revision(99));
    bench.view.handle_release_failed(&id("a"), Revision(11));
    bench.view.handle_released(&id("a"), Revision(11), false);
    bench.view.handle_problem(Error::new(ErrorKind::Server, "late"));
    bench.drop_handle("b", 12);
    bench.pass(RELEASE_TIMEOUT);
    bench.view.handle_drain(bench.now, DeleteReason::Drained);
    bench.view.handle_resume();
    assert!(bench.view.is_closed() && !bench.view.has_delivery());
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

// Guards: honest failure. Each Delete says why, and so does the end.
#[test]
fn the_last_deletes_say_why_the_worker_ends() {
    let cases = [
        (CloseReason::Terminated, DeleteReason::Terminated),
        (CloseReason::Evicted, DeleteReason::Evicted),
        (CloseReason::LockExpired, DeleteReason::LockExpired),
        (CloseReason::ClusterReset, DeleteReason::ClusterReset),
    ];
    for (close, expected) in cases {
        let mut bench = Bench::holding();
        bench.frame(update(11, 12, "a", 11, "two"));
        bench.view.handle_close(close);
        let first = bench.view.poll_delivery();
        let Some(Delivery::Delete { reason, .. }) = first else { panic!("{first:?}") };
        assert_eq!(reason, expected);
        assert_eq!(bench.poll(), [format!("{close:?}")]);
    }
}

// Guards: the stream. A consumer that waits is woken for the end, also of a worker that holds nothing.
#[test]
fn a_close_is_there_to_be_polled_even_if_nothing_else_is() {
    let mut bench = Bench::new();
    assert!(!bench.view.has_delivery());
    bench.view.handle_close(CloseReason::Terminated);
    assert!(bench.view.has_delivery());
    assert_eq!(bench.poll(), ["Terminated"]);
    assert!(!bench.view.has_delivery());
}

// Guards: the stream. Neither a release timeout nor the wait for a frame is of use any more.
#[test]
fn a_view_that_closes_while_handles_are_out_waits_for_nothing() {
    let mut bench = Bench::holding();
    bench.frame(delete(11, 12, "a", 11));
    bench.view.handle_audit(bench.now, Revision(13), Revision(0));
    bench.view.handle_close(CloseReason::LockExpired);
    assert_eq!(bench.view.poll_timeout(), None);
    bench.pass(RELEASE_TIMEOUT);
    assert_eq!(bench.poll(), ["-a 11", "LockExpired"]);
}
