//! update: a new payload, wherever the job is.

use super::bench::{Bench, id};
use crate::id::Revision;
use crate::message::RowState;
use crate::redis::store::{AddCode, UpdateCode};

const NOTHING: [&str; 0] = [];

// Promise: the stream. The owner is told, by the grant that it has; and whoever gets the job later has the new payload.
#[tokio::test]
async fn the_owner_is_told_and_a_snapshot_has_the_new_payload() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.look();
    assert_eq!(bench.update("a", "two").await, UpdateCode::Told);
    assert_eq!(
        bench.look(),
        [
            "inbox 1: r4",
            "jobs a: two",
            "owner a: a 1 r3 r3 r4",
            "rev: r4",
            "inbox:1 <- r4 after r3: update a r3 \"two\"",
        ]
    );
    // Who knows all up to the grant has not seen the update; who knows that has.
    let states = async |since| bench.store.sync(&members[0], since, None).await.unwrap().unwrap().rows;
    let row = states(grant).await.remove(0);
    assert_eq!((row.grant, row.born, row.state), (grant, grant, RowState::Active(Some("two".into()))));
    assert!(row.changed > grant);
    assert_eq!(states(row.changed).await[0].state, RowState::Active(None));

    // The next owner has it by its add, and the record keeps when it was changed.
    bench.order(members[0].worker, crate::message::Order::Drain).await;
    bench.look();
    bench.release_now("a").await;
    assert_eq!(
        bench.look(),
        [
            "assigned a: 2/r6",
            "inbox 2: r6",
            "load 2: 1",
            "owner a: a 2 r6 r3 r4",
            "rev: r6",
            "inbox:2 <- r6 after r2: add a r3 \"two\"",
        ]
    );
}

#[tokio::test]
async fn a_second_update_is_told_again_and_the_last_one_counts() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.update("a", "two").await;
    bench.look();
    assert_eq!(bench.update("a", "two").await, UpdateCode::Told);
    assert_eq!(
        bench.look(),
        ["inbox 1: r4", "owner a: a 1 r2 r2 r4", "rev: r4", "inbox:1 <- r4 after r3: update a r2 \"two\"",]
    );
}

#[tokio::test]
async fn a_batch_tells_each_owner_in_turn_and_says_of_each_job_what_became_of_it() {
    let (mut bench, _) = Bench::with_workers(2).await;
    for job in ["a", "b"] {
        bench.add(job, "one").await;
    }
    bench.look();
    let batch = ["a", "none", "b", "a"].map(|job| (id(job), "two".into()));
    let codes = bench.store.update(&batch).await.unwrap();
    assert_eq!(codes, [UpdateCode::Told, UpdateCode::Unknown, UpdateCode::Told, UpdateCode::Told]);
    assert_eq!(
        bench.look(),
        [
            "inbox 1: r7",
            "inbox 2: r6",
            "jobs a: two",
            "jobs b: two",
            "owner a: a 1 r3 r3 r7",
            "owner b: a 2 r4 r4 r6",
            "rev: r7",
            "inbox:1 <- r5 after r3: update a r3 \"two\"",
            "inbox:2 <- r6 after r4: update b r4 \"two\"",
            "inbox:1 <- r7 after r5: update a r3 \"two\"",
        ]
    );
}

#[tokio::test]
async fn a_job_that_waits_keeps_its_place_and_goes_out_with_its_last_payload() {
    let mut bench = Bench::new().await;
    bench.add("a", "one").await;
    bench.add("b", "x").await;
    bench.look();
    assert_eq!(bench.update("a", "two").await, UpdateCode::Stored);
    assert_eq!(bench.look(), ["jobs a: two", "owner a: p 0 0 r1 r3", "rev: r3"]);
    bench.joined().await;
    bench.store.place().await.unwrap();
    let told = bench.look();
    let frames: Vec<_> = told.iter().filter(|line| line.starts_with("inbox:1")).collect();
    assert_eq!(
        frames,
        ["inbox:1 <- r5 after r4: add a r1 \"two\"", "inbox:1 <- r6 after r5: add b r2 \"x\""]
    );
    assert!(told.contains(&"owner a: a 1 r5 r1 r3".into()), "{told:?}");
}

// Its owner was told to let go: what is new is for the next one.
#[tokio::test]
async fn a_job_that_moves_is_updated_for_its_next_owner() {
    let (mut bench, _) = Bench::with_workers(1).await;
    for job in ["a", "b"] {
        bench.add(job, "one").await;
    }
    bench.joined().await;
    assert_eq!(bench.rebalance().await, 1);
    bench.look();
    assert_eq!(bench.update("a", "two").await, UpdateCode::Stored);
    assert_eq!(bench.look(), ["jobs a: two", "owner a: m 1 r2 r2 r6", "rev: r6"]);
    bench.release_now("a").await;
    let told = bench.look();
    assert_eq!(told.last().unwrap(), "inbox:2 <- r7 after r4: add a r2 \"two\"");
}

#[tokio::test]
async fn a_job_in_quarantine_is_updated_for_when_it_comes_out() {
    let (mut bench, _) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.command(&["HSET", "@owner", "a", "q 0 0 5"]);
    bench.command(&["ZREM", "@assigned", "a"]);
    bench.command(&["ZADD", "@quarantine", "5", "a"]);
    bench.look();
    assert_eq!(bench.update("a", "two").await, UpdateCode::Stored);
    assert_eq!(bench.look(), ["jobs a: two", "owner a: q 0 0 5 r3", "rev: r3"]);
    assert_eq!(bench.store.requeue(&[id("a")]).await.unwrap(), [true]);
    assert_eq!(bench.look().last().unwrap(), "inbox:1 <- r4 after r2: add a 5 \"two\"");
}

// Deleted and added again while its owner lets go: the update is of the new life, and the old owner hears nothing of it.
#[tokio::test]
async fn a_job_that_was_added_again_is_updated_for_its_new_life_and_a_deleted_one_is_unknown() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", None).await;
    bench.look();
    assert_eq!(bench.update("a", "late").await, UpdateCode::Unknown);
    assert_eq!(bench.update("never", "late").await, UpdateCode::Unknown);
    assert_eq!(bench.look(), NOTHING);
    assert_eq!(bench.add("a", "two").await.0, AddCode::AfterRelease);
    assert_eq!(bench.update("a", "three").await, UpdateCode::Stored);
    assert_eq!(bench.look(), ["jobs a: three", "owner a: r 1 r2 r4 r5", "rev: r5"]);
    let row = bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap().rows.remove(0);
    assert_eq!(row.state, RowState::Releasing);
    assert!(bench.release(members[0].worker, "a", first).await);
    assert_eq!(
        bench.look(),
        [
            "assigned a: 1/r6",
            "inbox 1: r6",
            "owner a: a 1 r6 r4 r5",
            "rev: r6",
            "released <- a r2",
            "inbox:1 <- r6 after r3: add a r4 \"three\"",
        ]
    );
    // And a deletion of that life ends it as any other.
    bench.delete("a", None).await;
    assert_eq!(bench.look()[..2], ["inbox 1: r7", "jobs a: -"]);
    assert_eq!(bench.update("a", "late").await, UpdateCode::Unknown);
    assert_eq!(bench.look(), NOTHING);
}
