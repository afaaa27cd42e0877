//! One test for each rule of the feed, by hand.

use super::{Ask, Feed, Picture};
use crate::change::{Change, Filter};
use crate::id::{JobId, Revision};
use crate::message::{Batch, History};

fn added(revision: u64) -> Change {
    Change::JobAdded { revision: Revision(revision), job: JobId::new(format!("job{revision}")).unwrap() }
}

fn synced(revision: u64) -> Change {
    Change::Synced { revision: Revision(revision) }
}

/// A batch of the changes after `previous` up to `last`.
fn batch(previous: u64, last: u64) -> Batch {
    let changes = (previous + 1..=last).map(added).collect();
    Batch { last: Revision(last), previous: Revision(previous), changes }
}

fn history(target: u64, batches: &[(u64, u64)]) -> History {
    let batches = batches.iter().map(|(previous, last)| batch(*previous, *last)).collect();
    History { reaches: true, target: Revision(target), batches, more: false }
}

/// As of a journal that is off or was cut.
fn nothing(target: u64) -> History {
    History { reaches: false, ..history(target, &[]) }
}

fn page(changes: &[Change], next: Option<&str>) -> Picture {
    Picture { changes: changes.to_vec(), next: next.map(Into::into) }
}

fn told(feed: &mut Feed) -> Vec<Change> {
    std::iter::from_fn(|| feed.poll_change()).collect()
}

/// The revisions of what is told; it must be all of one kind.
fn revisions(feed: &mut Feed) -> Vec<u64> {
    let told = told(feed);
    told.iter()
        .map(|change| if *change == Change::Reset { 0 } else { change.revision().unwrap().0 })
        .collect()
}

/// It asks for the history after this revision.
fn asks_after(feed: &mut Feed, revision: u64) -> u64 {
    match feed.poll_command() {
        Some(Ask::History { request, after }) if after.0 == revision => request,
        other => panic!("{other:?}, not what is after {revision}"),
    }
}

/// It asks for this page.
fn asks_page(feed: &mut Feed, wanted: Option<&str>) -> u64 {
    match feed.poll_command() {
        Some(Ask::Page { request, cursor }) if cursor.as_deref() == wanted => request,
        other => panic!("{other:?}, not page {wanted:?}"),
    }
}

fn asks_nothing(feed: &mut Feed) {
    assert_eq!(feed.poll_command(), None);
}

/// Knows all up to this revision, and has been told nothing yet.
fn live(capacity: usize, at: u64) -> Feed {
    let mut feed = Feed::new(capacity, Filter::default(), Some(Revision(at)));
    let request = asks_after(&mut feed, at);
    feed.handle_history(request, history(at, &[]));
    asks_nothing(&mut feed);
    feed
}

#[test]
fn it_begins_with_what_there_is_and_is_synced_as_of_what_came_meanwhile() {
    let mut feed = Feed::new(100, Filter::default(), None);
    let request = asks_page(&mut feed, None);
    feed.handle_page(request, Some(Revision(10)), page(&[added(3)], Some("next")));
    feed.handle_batch(batch(10, 11));
    let request = asks_page(&mut feed, Some("next"));
    feed.handle_page(request, None, page(&[added(11)], None));
    let request = asks_after(&mut feed, 10);
    feed.handle_history(request, history(12, &[(10, 11), (11, 12)]));
    asks_nothing(&mut feed);
    let expected = [Change::Reset, added(3), added(11), added(11), added(12), synced(12)];
    assert_eq!(told(&mut feed), expected);
    feed.handle_batch(batch(12, 14));
    assert_eq!(told(&mut feed), [added(13), added(14)]);
}

#[test]
fn what_is_missing_comes_from_the_journal_and_then_what_came_meanwhile() {
    let mut feed = live(100, 10);
    feed.handle_batch(batch(11, 12));
    let request = asks_after(&mut feed, 10);
    feed.handle_batch(batch(12, 13));
    assert_eq!(feed.poll_change(), None);
    feed.handle_history(request, history(12, &[(10, 11), (11, 12)]));
    assert_eq!(revisions(&mut feed), [11, 12, 13]);
    asks_nothing(&mut feed);
    for old in [batch(10, 11), batch(12, 13)] {
        feed.handle_batch(old);
    }
    assert_eq!(feed.poll_change(), None, "each once");
}

#[test]
fn a_long_history_is_asked_for_piece_by_piece() {
    let mut feed = Feed::new(100, Filter::default(), Some(Revision(10)));
    for (request_after, batches) in [(10, [(10, 11), (11, 13)]), (13, [(13, 14), (14, 15)])] {
        let request = asks_after(&mut feed, request_after);
        feed.handle_history(request, History { more: request_after == 10, ..history(15, &batches) });
    }
    assert_eq!(revisions(&mut feed), [11, 12, 13, 14, 15]);
    asks_nothing(&mut feed);
}

#[test]
fn it_goes_on_in_the_middle_of_a_batch() {
    let mut feed = Feed::new(100, Filter::default(), Some(Revision(12)));
    let request = asks_after(&mut feed, 12);
    feed.handle_history(request, history(15, &[(10, 15)]));
    assert_eq!(revisions(&mut feed), [13, 14, 15]);
}

// A revision that was read from the cluster's statistics may be that of a frame, after the last change.
#[test]
fn it_goes_on_after_a_revision_that_is_later_than_the_last_change() {
    let mut feed = Feed::new(100, Filter::default(), Some(Revision(15)));
    let request = asks_after(&mut feed, 15);
    feed.handle_history(request, history(12, &[]));
    feed.handle_batch(Batch { last: Revision(17), previous: Revision(12), changes: vec![added(17)] });
    asks_nothing(&mut feed);
    assert_eq!(revisions(&mut feed), [17]);
    feed.handle_audit(feed.known(), Revision(17));
    asks_nothing(&mut feed);
}

// Otherwise it would wait in silence for a clock to get there.
#[test]
fn after_a_revision_that_the_server_never_had_it_begins_anew() {
    let mut feed = Feed::new(100, Filter::default(), Some(Revision(1_000)));
    let request = asks_after(&mut feed, 1_000);
    feed.handle_batch(batch(12, 13));
    feed.handle_history(request, nothing(12));
    asks_page(&mut feed, None);
    assert_eq!(told(&mut feed), [Change::Reset]);
}

#[test]
fn where_the_journal_does_not_reach_it_begins_anew() {
    let cut = History { batches: vec![batch(11, 13)], ..history(13, &[]) };
    let ends_early = history(14, &[(10, 11), (11, 12)]);
    let with_a_hole = history(14, &[(10, 11), (12, 14)]);
    let says_more_and_has_none = History { more: true, ..history(14, &[]) };
    for answer in [nothing(13), cut, ends_early, with_a_hole, says_more_and_has_none, nothing(0)] {
        let mut feed = live(100, 10);
        feed.handle_gap();
        let request = asks_after(&mut feed, 10);
        feed.handle_history(request, answer.clone());
        asks_page(&mut feed, None);
        assert_eq!(told(&mut feed), [Change::Reset], "{answer:?}");
    }
}

#[test]
fn without_a_journal_what_came_meanwhile_is_enough_if_nothing_is_between() {
    let mut feed = live(100, 10);
    feed.handle_gap();
    let request = asks_after(&mut feed, 10);
    feed.handle_batch(batch(10, 11));
    feed.handle_history(request, nothing(11));
    assert_eq!(revisions(&mut feed), [11]);
    asks_nothing(&mut feed);
}

#[test]
fn another_history_of_the_server_is_told_anew_whatever_was_asked_for() {
    let mut feed = live(100, 10);
    feed.handle_batch(batch(10, 11));
    feed.handle_batch(batch(12, 13));
    let old = asks_after(&mut feed, 11);
    feed.handle_break();
    let first = asks_page(&mut feed, None);
    feed.handle_history(old, history(13, &[(11, 13)]));
    feed.handle_page(old, Some(Revision(1)), page(&[added(1)], None));
    feed.handle_break();
    let second = asks_page(&mut feed, None);
    feed.handle_page(first, Some(Revision(2)), page(&[added(2)], None));
    feed.handle_page(second, Some(Revision(3)), page(&[added(3)], None));
    let request = asks_after(&mut feed, 3);
    feed.handle_history(request, history(3, &[]));
    assert_eq!(told(&mut feed), [Change::Reset, added(3), synced(3)], "what it had not seen is forgotten");
}

#[test]
fn a_snapshot_waits_for_the_consumer_and_goes_on_where_it_stopped() {
    let mut feed = Feed::new(4, Filter::default(), None);
    let request = asks_page(&mut feed, None);
    feed.handle_page(request, Some(Revision(10)), page(&[added(1), added(2), added(3)], Some("next")));
    asks_nothing(&mut feed);
    assert!(feed.is_full());
    feed.handle_gap();
    feed.handle_batch(batch(10, 11));
    assert_eq!(feed.poll_change(), Some(Change::Reset));
    asks_nothing(&mut feed);
    assert_eq!(feed.poll_change(), Some(added(1)));
    let request = asks_page(&mut feed, Some("next"));
    feed.handle_page(request, None, page(&[added(4)], None));
    let request = asks_after(&mut feed, 10);
    feed.handle_history(request, nothing(11));
    assert_eq!(revisions(&mut feed), [2, 3, 4, 11, 11]);
}

#[test]
fn what_a_slow_consumer_has_no_room_for_is_asked_for_when_there_is() {
    let mut feed = live(4, 10);
    feed.handle_batch(batch(10, 14));
    feed.handle_batch(batch(14, 15));
    for previous in 15..30 {
        feed.handle_batch(batch(previous, previous + 1));
    }
    asks_nothing(&mut feed);
    assert!(feed.waiting_weight <= 4);
    assert_eq!((feed.poll_change(), feed.poll_change()), (Some(added(11)), Some(added(12))));
    let request = asks_after(&mut feed, 14);
    feed.handle_history(request, history(30, &[(14, 15), (15, 25), (25, 30)]));
    assert!(feed.queue.len() <= 4 + 10, "no more than one batch on top of its room");
    assert_eq!(revisions(&mut feed), (13..=25).collect::<Vec<_>>());
    let request = asks_after(&mut feed, 25);
    feed.handle_history(request, history(30, &[(25, 30)]));
    assert_eq!(revisions(&mut feed), [26, 27, 28, 29, 30]);
    // What waited last was not kept; that there is no more has to be asked.
    let request = asks_after(&mut feed, 30);
    feed.handle_history(request, history(30, &[]));
    asks_nothing(&mut feed);
}

#[test]
fn a_slow_consumer_needs_no_journal_as_long_as_the_room_for_what_waits_is_enough() {
    let mut feed = live(4, 10);
    feed.handle_batch(batch(10, 14));
    feed.handle_batch(batch(14, 15));
    feed.handle_batch(batch(15, 16));
    assert_eq!(revisions(&mut feed), [11, 12, 13, 14]);
    let request = asks_after(&mut feed, 14);
    feed.handle_history(request, nothing(16));
    assert_eq!(revisions(&mut feed), [15, 16], "and no reset");
}

#[test]
fn a_batch_that_is_larger_than_the_buffer_is_told_whole() {
    let mut feed = live(1, 10);
    feed.handle_batch(batch(10, 20));
    assert_eq!(revisions(&mut feed), (11..=20).collect::<Vec<_>>());
    feed.handle_batch(batch(21, 30));
    let request = asks_after(&mut feed, 20);
    feed.handle_history(request, nothing(30));
    asks_nothing(&mut feed); // `Reset` fills it
    assert_eq!(told(&mut feed), [Change::Reset]);
    asks_page(&mut feed, None);
}

// Batches that came before a snapshot began are in it. To count them, or that some were not kept, against the next
// snapshot would be the end of it, again and again, where no journal is kept.
#[test]
fn a_snapshot_that_failed_for_want_of_room_does_not_hinder_the_next() {
    let mut feed = Feed::new(3, Filter::default(), None);
    let request = asks_page(&mut feed, None);
    feed.handle_page(request, Some(Revision(10)), page(&[], None));
    let request = asks_after(&mut feed, 10);
    for previous in 10..20 {
        feed.handle_batch(batch(previous, previous + 1));
    }
    feed.handle_history(request, nothing(20));
    assert_eq!(told(&mut feed), [Change::Reset]);
    let request = asks_page(&mut feed, None);
    feed.handle_page(request, Some(Revision(20)), page(&[], None));
    feed.handle_batch(batch(20, 21));
    let request = asks_after(&mut feed, 20);
    feed.handle_history(request, nothing(21));
    assert_eq!(told(&mut feed), [added(21), synced(21)]);
}

// Of kinds that a later release adds, nothing is left in a batch; and a filter may leave nothing.
#[test]
fn batches_of_nothing_take_room_too() {
    let mut feed = live(10, 10);
    feed.handle_gap();
    let request = asks_after(&mut feed, 10);
    for previous in 10..1_000 {
        let (previous, last) = (Revision(previous), Revision(previous + 1));
        feed.handle_batch(Batch { last, previous, changes: Vec::new() });
    }
    assert!(feed.waiting.len() <= 10);
    feed.handle_history(request, history(1_000, &[]));
    asks_page(&mut feed, None);
}

#[test]
fn what_is_filtered_out_takes_no_room() {
    let filter = Filter { kinds: None, prefix: "job1".into() };
    let mut feed = Feed::new(2, filter, Some(Revision(20)));
    let request = asks_after(&mut feed, 20);
    feed.handle_history(request, history(20, &[]));
    feed.handle_batch(batch(20, 102));
    asks_nothing(&mut feed);
    assert_eq!(revisions(&mut feed), [100, 101, 102]);
}

// A message on the channel is a hint that anybody can forge.
#[test]
fn a_forged_batch_that_goes_on_from_nowhere_is_asked_about_once_and_forgotten() {
    let mut feed = live(100, 10);
    feed.handle_batch(batch(1_000, 1_001));
    let request = asks_after(&mut feed, 10);
    feed.handle_history(request, history(10, &[]));
    asks_nothing(&mut feed);
    feed.handle_batch(batch(10, 11));
    assert_eq!(revisions(&mut feed), [11]);
}

#[test]
fn a_batch_that_is_later_than_the_answer_is_no_forgery() {
    let mut feed = live(100, 10);
    feed.handle_gap();
    let request = asks_after(&mut feed, 10);
    feed.handle_batch(batch(12, 13)); // 12 is lost; both came after the server has answered
    feed.handle_history(request, history(11, &[(10, 11)]));
    let request = asks_after(&mut feed, 11);
    feed.handle_history(request, history(13, &[(11, 12), (12, 13)]));
    assert_eq!(revisions(&mut feed), [11, 12, 13]);
    asks_nothing(&mut feed);
}

// All that comes after it would count as told already.
#[test]
fn a_forged_batch_that_takes_the_chain_away_is_found_out_by_the_next_heartbeat() {
    let mut feed = live(100, 10);
    feed.handle_batch(Batch { last: Revision(1_000), previous: Revision(10), changes: Vec::new() });
    feed.handle_batch(batch(10, 11));
    assert_eq!(feed.poll_change(), None);
    feed.handle_audit(feed.known(), Revision(11));
    asks_page(&mut feed, None);
    assert_eq!(told(&mut feed), [Change::Reset]);
}

#[test]
fn a_heartbeat_that_is_older_than_what_was_pushed_says_nothing() {
    let mut feed = live(100, 10);
    let known = feed.known();
    feed.handle_batch(batch(10, 12));
    feed.handle_audit(known, Revision(11));
    asks_nothing(&mut feed);
    assert_eq!(revisions(&mut feed), [11, 12]);
}

#[test]
fn a_heartbeat_finds_what_was_lost_without_a_word() {
    let mut feed = live(100, 10);
    feed.handle_audit(feed.known(), Revision(12));
    let request = asks_after(&mut feed, 10);
    assert_eq!(feed.known(), None);
    feed.handle_audit(None, Revision(12));
    asks_nothing(&mut feed);
    feed.handle_history(request, history(12, &[(10, 12)]));
    assert_eq!(revisions(&mut feed), [11, 12]);
}

#[test]
fn what_could_not_be_had_is_asked_for_again_and_a_late_answer_counts_no_more() {
    let mut feed = Feed::new(100, Filter::default(), None);
    let first = asks_page(&mut feed, None);
    feed.handle_page(first, Some(Revision(10)), page(&[added(1)], Some("next")));
    let late = asks_page(&mut feed, Some("next"));
    feed.handle_failed(first); // an old one
    feed.retry();
    asks_nothing(&mut feed);
    feed.handle_failed(late);
    feed.handle_gap();
    asks_nothing(&mut feed);
    feed.handle_page(late, None, page(&[added(2)], None));
    feed.retry();
    let request = asks_page(&mut feed, Some("next"));
    feed.retry();
    asks_nothing(&mut feed);
    feed.handle_page(request, None, page(&[added(3)], None));
    let request = asks_after(&mut feed, 10);
    feed.handle_failed(request);
    feed.handle_gap(); // the connection is back: at once
    let request = asks_after(&mut feed, 10);
    feed.retry();
    asks_nothing(&mut feed);
    feed.handle_history(request, history(10, &[]));
    assert_eq!(told(&mut feed), [Change::Reset, added(1), added(3), synced(10)]);
}

// A driver that lags all the time would otherwise never get any further.
#[test]
fn gap_after_gap_does_not_keep_an_answer_from_being_used() {
    let mut feed = live(100, 10);
    feed.handle_gap();
    for at in 10..20 {
        let request = asks_after(&mut feed, at);
        feed.handle_gap();
        feed.handle_gap();
        asks_nothing(&mut feed);
        feed.handle_history(request, history(at + 1, &[(at, at + 1)]));
        assert_eq!(revisions(&mut feed), [at + 1]);
    }
    let request = asks_after(&mut feed, 20);
    feed.handle_history(request, history(20, &[]));
    asks_nothing(&mut feed);
}
