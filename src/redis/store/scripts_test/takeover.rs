//! Takeover: reap looks at the lock and the deadline itself, and a dead number stays dead.

use super::bench::{BEATEN, Bench};
use crate::redis::store::{Ended, Reap};

// Promise: one owner. Nobody's word for it is enough, nor the key alone: the deadline has to have passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_key_was_deleted_early_is_not_reaped_and_the_next_beat_sets_it_again() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    let lock = bench.key("lock:1");
    bench.command(&["DEL", &lock]);
    bench.forget();
    let (reap, _) = bench.store.reap(members[0].worker).await.unwrap();
    assert!(matches!(reap, Reap::Alive { .. }), "{reap:?}");
    assert_eq!(bench.news(), [""; 0], "nothing moved");
    bench.store.beat(&members[0], BEATEN, false).await.unwrap().expect("it is still a member");
    assert_eq!(bench.command(&["EXISTS", &lock]).int(), 1);
}

// Rule 6: the number is dead from the first batch on.
#[tokio::test(flavor = "multi_thread")]
async fn a_reaped_worker_s_jobs_move_once_and_its_number_cannot_come_back() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    bench.end_lock(&members[0]);
    let (reap, _) = bench.store.reap(members[0].worker).await.unwrap();
    assert_eq!(reap, Reap::Reaped { moved: 1, left: 0 });
    let owner = bench.key("owner");
    assert!(bench.command(&["HGET", &owner, "a"]).text().starts_with("a 2 "));
    assert_eq!(bench.store.reap(members[0].worker).await.unwrap().0, Reap::Nothing, "once");
    let beat = bench.store.beat(&members[0], BEATEN, false).await.unwrap();
    assert_eq!(beat.unwrap_err(), Ended::Dead);
    let join = bench.store.join(&members[0], BEATEN).await.unwrap();
    assert_eq!(join.unwrap_err(), Ended::Dead);
}
