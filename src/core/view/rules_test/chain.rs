//! The chain of frames, gaps and pages: rules 1, 2 and 11.

use super::*;
use crate::message::SPAN;

// Guards: nothing lost. Frames are taken in along their chain; a hole in it asks for a sync from where the view knows all.
#[test]
fn a_frame_that_does_not_follow_the_last_one_asks_for_a_sync_and_a_repeated_one_is_ignored() {
    let mut bench = Bench::holding();
    bench.frame(add(10, 11, "a"));
    assert!(bench.poll().is_empty() && bench.commands().is_empty());
    bench.frame(add(12, 13, "c"));
    let (request, since, cursor) = bench.sync().expect("12 is missing");
    assert_eq!((since, cursor), (Revision(11), None));
    bench.frame(add(13, 21, "d"));
    assert!(bench.poll().is_empty(), "it waits");
    bench.take(request, page(20, 13, [known("a", 11), active("c", 13), active("b", 12)]));
    assert_eq!(bench.poll(), ["+b 12", "+c 13", "+d 21"], "by grant, then what waited");
    bench.frame(delete(21, 22, "a", 11));
    bench.frame(add(10, 11, "a"));
    bench.frame(delete(21, 22, "a", 11));
    assert_eq!(bench.poll(), ["-a 11"]);
    assert_eq!(bench.commands(), [Command::Cancel { job: id("a"), grant: Revision(11) }], "once");
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
    let (again, since, _) = bench.sync().expect("another");
    assert_eq!(since, Revision(10));
    bench.take(again, page(12, 12, [active("b", 12)]));
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
    for revision in [901, u64::MAX] {
        let mut bench = Bench::new();
        bench.frame(add(900, revision, "a"));
        bench.answer(page(10, 10, NO_ROWS));
        assert_eq!(bench.sync(), None);
        bench.frame(add(10, 11, "b"));
        assert_eq!(bench.poll(), ["+b 11"]);
    }
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
    let (request, since, _) = bench.sync().expect("12 is missing");
    assert_eq!(since, Revision(11));
    bench.take(request, page(13, 13, [known("a", 11), active("b", 12), active("c", 13)]));
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

// Guards: rule 2, nothing lost. A job that was given between two pages is in none of them: if its frame is lost too, it is new
// to the next snapshot, although a page was read later.
#[test]
fn a_job_that_was_given_between_two_pages_is_added_by_the_next_sync() {
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.take(request, Page { next: Some(Cursor(34)), ..page(20, 10, NO_ROWS) });
    bench.sync();
    bench.take(request, page(40, 35, [active("b", 35)]));
    assert_eq!(bench.poll(), ["+b 35"]);
    bench.view.handle_gap();
    let (request, since, _) = bench.sync().expect("a sync");
    assert_eq!(since, Revision(20));
    bench.take(request, page(41, 35, [active("a", 33), active("b", 35)]));
    assert_eq!(bench.poll(), ["+a 33"]);
}

// Guards: rule 2. Pages are by residue: grants that are far apart may be on one page, and late ones before early ones.
#[test]
fn a_page_covers_residues_and_not_the_grants_up_to_one() {
    let (low, high) = (SPAN + 20, SPAN + 50);
    let mut bench = Bench::new();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.frame(add(10, low, "low"));
    bench.frame(add(low, high, "high"));
    bench.frame(delete(high, SPAN + 55, "high", high));
    bench.frame(delete(SPAN + 55, SPAN + 70, "low", low));
    bench.take(request, Page { next: Some(Cursor(30)), ..page(SPAN + 40, low, [active("low", low)]) });
    bench.sync();
    bench.take(request, page(SPAN + 80, SPAN + 70, [releasing("high", high)]));
    let expected = [format!("high {high}"), format!("low {low}")];
    assert_eq!(bench.releases(), expected, "high was deleted before its page was read, low after");
    assert!(bench.poll().is_empty());
}

// Guards: rule 2. The last row of a page is covered by it, not by the next one.
#[test]
fn a_page_reaches_up_to_its_cursor_and_with_it() {
    let mut bench = Bench::new();
    bench.frame(add(10, 20, "a"));
    bench.poll();
    bench.view.handle_gap();
    let (request, ..) = bench.sync().expect("a sync");
    bench.take(request, Page { next: Some(Cursor(20)), ..page(21, 20, [known("a", 20)]) });
    bench.sync();
    bench.frame(delete(20, 25, "a", 20));
    bench.take(request, page(30, 25, NO_ROWS));
    assert_eq!(bench.poll(), ["-a 20"], "25 is newer than the page with a");
}

// Guards: rule 2, rule 10. Pages of two servers, or of one before and after it lost writes, are no snapshot.
#[test]
fn pages_with_different_lifts_begin_the_sync_anew() {
    let mut bench = Bench { view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE), now: Instant::now() };
    bench.view.handle_gap();
    let (request, since, _) = bench.sync().expect("the first of all");
    assert_eq!(since, Revision(0));
    bench.take(request, lifted(5, Page { next: Some(Cursor(15)), ..page(20, 20, [active("a", 11)]) }));
    bench.sync();
    bench.take(request, lifted(21, page(22, 20, NO_ROWS)));
    assert!(bench.poll().is_empty());
    let (again, _, cursor) = bench.sync().expect("anew");
    assert!(again > request && cursor.is_none());
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
        assert!(bench.releases().is_empty());
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

// Guards: rule 11. Each heartbeat has a grace of its own, and one that was in time leaves nothing behind.
#[test]
fn a_frame_that_comes_in_time_does_not_shorten_the_grace_of_the_next() {
    let mut bench = Bench::new();
    let half = AUDIT_GRACE / 2;
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.frame(add(10, 11, "a"));
    bench.pass(half);
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    bench.pass(half);
    assert!(bench.commands().is_empty());
    bench.pass(half);
    let commands = bench.commands();
    assert!(matches!(commands[..], [Command::Resubscribe, Command::Sync { .. }]), "{commands:?}");
}

// Guards: rule 11. What a heartbeat told of before a sync began is in the snapshot: it is not missed afterwards.
#[test]
fn a_sync_ends_the_wait_for_a_frame_that_a_heartbeat_told_of() {
    let mut bench = Bench::new();
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.view.handle_gap();
    assert_eq!(bench.view.poll_timeout(), None);
    bench.answer(page(12, 11, [active("a", 11)]));
    bench.pass(AUDIT_GRACE);
    assert!(bench.commands().is_empty());
}

// Guards: notifications are hints. An order is in no snapshot, only in the answer to a heartbeat: whatever else is missing,
// the worker sends one as soon as it is told to.
#[test]
fn an_attend_is_heeded_at_once_even_in_a_gap_during_a_sync_or_behind_a_snapshot() {
    let mut bench = Bench::new();
    bench.frame(attend(10, 11));
    assert_eq!(bench.commands(), [Command::Attend]);
    bench.frame(add(11, 12, "a"));
    assert_eq!(bench.poll(), ["+a 12"], "it is a link of the chain");

    bench.frame(attend(13, 14));
    let commands = bench.commands();
    let [Command::Attend, Command::Sync { request, .. }] = commands[..] else { panic!("{commands:?}") };
    bench.frame(attend(14, 15));
    assert_eq!(bench.commands(), [Command::Attend], "a sync is out");
    bench.take(request, page(16, 14, [known("a", 12)]));
    assert!(bench.commands().is_empty(), "once");
    bench.frame(attend(15, 16));
    assert_eq!(bench.commands(), [Command::Attend], "the snapshot was faster");
    bench.frame(add(14, 17, "b"));
    assert_eq!(bench.poll(), ["+b 17"]);
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

// Guards: one owner, nothing lost. A forged frame that fits the chain is taken in; the server does not know of it, which two
// heartbeats tell, and its word counts.
#[test]
fn a_forged_frame_that_fits_is_found_out_by_the_second_heartbeat() {
    for forged in [12, u64::MAX] {
        let mut bench = Bench::holding();
        bench.frame(delete(11, 12, "a", 11));
        bench.frame(add(12, forged.max(13), "b"));
        assert_eq!(bench.poll(), ["-a 11".into(), format!("+b {}", forged.max(13))]);
        for _ in 0..3 {
            // Answers that were on their way when the frames came.
            bench.view.handle_audit(bench.now, Revision(11), Revision(0));
            assert_eq!(bench.sync(), None);
        }
        bench.pass(AUDIT_GRACE);
        bench.view.handle_audit(bench.now, Revision(11), Revision(0));
        bench.answer(page(20, 11, [known("a", 11)]));
        assert_eq!(bench.poll(), [format!("-b {}", forged.max(13))]);
        // What is true gets through again.
        bench.frame(add(11, 21, "c"));
        assert_eq!(bench.poll(), ["+c 21"]);
    }
}

// Guards: bounded work. What an answer does not know of yet costs nothing.
#[test]
fn a_heartbeat_that_is_behind_costs_no_sync_if_the_next_one_knows() {
    let mut bench = Bench::holding();
    bench.view.handle_audit(bench.now, Revision(10), Revision(0));
    bench.pass(AUDIT_GRACE);
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.frame(add(11, 12, "b"));
    bench.view.handle_audit(bench.now, Revision(11), Revision(0));
    bench.view.handle_audit(bench.now, Revision(12), Revision(0));
    assert_eq!(bench.sync(), None);
}
