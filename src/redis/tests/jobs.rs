//! add, delete, release, place.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bench::{Bench, id, kind};
use crate::ErrorKind;
use crate::id::{Revision, WorkerId};
use crate::message::RowState;
use crate::redis::script;
use crate::redis::store::{AddCode, BATCH_MOVES, DeleteCode};

const NOTHING: [&str; 0] = [];

// Promise: nothing lost. An added job is in the server, whole, before `add` returns; and pushed.
#[tokio::test]
async fn add_assigns_and_pushes_and_a_second_add_changes_nothing() {
    let (mut bench, _) = Bench::with_workers(1).await;
    let (code, born) = bench.add("a", "one").await;
    assert_eq!(code, AddCode::Assigned);
    assert_eq!(
        bench.look(),
        [
            "assigned a: 1/r2",
            "inbox 1: r2",
            "jobs a: one",
            "load 1: 1",
            "owner a: a 1 r2 r2",
            "rev: r2",
            "inbox:1 <- r2 after r1: add a r2 \"one\"",
        ]
    );
    assert_eq!(bench.name(born), "r2");
    assert_eq!(bench.add("a", "two").await, (AddCode::Existing, born));
    assert_eq!(bench.look(), NOTHING);
}

// Each goes to the least loaded; the frames of one script form a chain on each inbox.
#[tokio::test]
async fn a_batch_is_spread_and_its_frames_are_chained() {
    let (mut bench, _) = Bench::with_workers(2).await;
    let batch: Vec<_> = ["a", "b", "c", "a"].iter().map(|job| (id(job), Bytes::from_static(b"x"))).collect();
    let codes = bench.add_all(&batch).await.unwrap();
    assert_eq!(
        bench.look(),
        [
            "assigned a: 1/r3",
            "assigned b: 2/r4",
            "assigned c: 1/r5",
            "inbox 1: r5",
            "inbox 2: r4",
            "jobs a: x",
            "jobs b: x",
            "jobs c: x",
            "load 1: 2",
            "load 2: 1",
            "owner a: a 1 r3 r3",
            "owner b: a 2 r4 r4",
            "owner c: a 1 r5 r5",
            "rev: r5",
            "inbox:1 <- r3 after r1: add a r3 \"x\"",
            "inbox:2 <- r4 after r2: add b r4 \"x\"",
            "inbox:1 <- r5 after r3: add c r5 \"x\"",
        ]
    );
    assert_eq!(codes[3], (AddCode::Existing, codes[0].1), "twice in one batch is once");
}

#[tokio::test]
async fn without_a_worker_jobs_wait_and_place_gives_out_the_oldest_first() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.add("z", "old").await.0, AddCode::Pending);
    assert_eq!(bench.add("a", "new").await.0, AddCode::Pending);
    assert_eq!(
        bench.look(),
        [
            "jobs a: new",
            "jobs z: old",
            "owner a: p 0 0 r2",
            "owner z: p 0 0 r1",
            "pending a: r2",
            "pending z: r1",
            "rev: r2",
        ]
    );
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting), (0, 0), "nobody has room");
    assert_eq!(bench.look(), NOTHING);

    bench.joined().await;
    bench.look();
    let inbox = bench.keys.inbox_channel.clone();
    bench.run(&script::PLACE, WorkerId(1), &[inbox.as_bytes(), b"1"]).await.unwrap();
    assert_eq!(
        bench.look(),
        [
            "assigned z: 1/r4",
            "inbox 1: r4",
            "load 1: 1",
            "owner z: a 1 r4 r1",
            "pending z: -",
            "rev: r4",
            "inbox:1 <- r4 after r3: add z r1 \"old\"",
        ]
    );
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting), (1, 0));
    bench.look();
    let placed = bench.store.place().await.unwrap();
    assert_eq!((placed.placed, placed.waiting), (0, 0));
    assert_eq!(bench.look(), NOTHING);
}

// A call gives out a batch: what is left is told, and the next call goes on.
#[tokio::test]
async fn place_says_how_many_still_wait() {
    let mut bench = Bench::new().await;
    let jobs: Vec<_> = (0..BATCH_MOVES + 7).map(|job| (id(&format!("{job:03}")), Bytes::new())).collect();
    bench.add_all(&jobs).await.unwrap();
    bench.joined().await;
    let first = bench.store.place().await.unwrap();
    let second = bench.store.place().await.unwrap();
    assert_eq!((first.placed, first.waiting), (BATCH_MOVES as u64, 7));
    assert_eq!((second.placed, second.waiting), (7, 0));
    bench.look();
    assert_eq!(bench.command(&["ZSCORE", "@load", "1"]).text(), jobs.len().to_string());
}

// Promise: one owner. A deleted job is held until its owner lets go; who waits for that is told.
#[tokio::test]
async fn delete_marks_a_held_job_and_release_ends_it() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let me = members[0].worker;
    let (_, born) = bench.add("a", "one").await;
    bench.look();
    let releasing = DeleteCode::Releasing { worker: me, grant: born };
    assert_eq!(bench.delete("a", Some(born)).await, releasing);
    assert_eq!(
        bench.look(),
        [
            "inbox 1: r3",
            "jobs a: -",
            "owner a: r 1 r2 0",
            "rev: r3",
            "inbox:1 <- r3 after r2: delete a r2 Removed"
        ]
    );
    assert_eq!(bench.delete("a", Some(born)).await, releasing);
    assert_eq!(bench.delete("a", None).await, releasing);
    assert_eq!(bench.look(), NOTHING);

    assert!(bench.release(me, "a", born).await);
    assert_eq!(bench.look(), ["assigned a: -", "load 1: 0", "owner a: -", "released <- a r2"]);
    assert!(!bench.release(me, "a", born).await);
    assert_eq!(bench.delete("a", Some(born)).await, DeleteCode::Unknown);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn a_job_that_waits_is_gone_at_once() {
    let mut bench = Bench::new().await;
    let (_, born) = bench.add("a", "one").await;
    bench.look();
    assert_eq!(bench.delete("a", Some(Revision(born.0 - 1))).await, DeleteCode::Unknown);
    assert_eq!(bench.look(), NOTHING);
    assert_eq!(bench.delete("a", Some(born)).await, DeleteCode::Gone);
    assert_eq!(bench.look(), ["jobs a: -", "owner a: -", "pending a: -"]);
    assert_eq!(bench.delete("a", Some(born)).await, DeleteCode::Unknown);
    assert_eq!(bench.look(), NOTHING);
}

// Rule 8: a late delete does not end a job that was added again, in whichever state that is.
#[tokio::test]
async fn a_delete_names_the_life_it_means() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", Some(first)).await;
    let (code, second) = bench.add("a", "two").await;
    assert_eq!(code, AddCode::AfterRelease);
    bench.look();
    assert_eq!(bench.delete("a", Some(first)).await, DeleteCode::Unknown, "while it waits for the release");
    assert!(bench.release(members[0].worker, "a", first).await);
    bench.look();
    assert_eq!(bench.delete("a", Some(first)).await, DeleteCode::Unknown, "while it is held anew");
    assert_eq!(bench.look(), NOTHING);
    assert!(
        matches!(bench.delete("a", Some(second)).await, DeleteCode::Releasing { grant, .. } if grant > second)
    );
}

// Promise: one owner. Deleted and added again, a job waits for its first owner and then has another epoch.
#[tokio::test]
async fn a_job_added_again_while_releasing_waits_for_that() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", None).await;
    bench.look();
    let (code, second) = bench.add("a", "two").await;
    assert_eq!(code, AddCode::AfterRelease);
    assert_eq!(bench.look(), ["jobs a: two", "owner a: r 1 r3 r5", "rev: r5"]);
    assert_eq!(bench.add("a", "three").await, (AddCode::Existing, second));
    assert_eq!(bench.look(), NOTHING);

    // The first owner has one job more than the second, until the release is counted.
    bench.command(&["ZINCRBY", "@load", "1", "1"]);
    bench.look();
    assert!(bench.release(members[0].worker, "a", first).await);
    assert_eq!(
        bench.look(),
        [
            "assigned a: 2/r6",
            "inbox 2: r6",
            "load 1: 1",
            "load 2: 1",
            "owner a: a 2 r6 r5",
            "rev: r6",
            "released <- a r3",
            "inbox:2 <- r6 after r2: add a r5 \"two\"",
        ]
    );
    assert!(!bench.release(members[0].worker, "a", first).await);
    assert_eq!(bench.look(), NOTHING);
}

#[tokio::test]
async fn a_job_added_again_and_deleted_again_is_gone_with_its_first_owner() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, first) = bench.add("a", "one").await;
    bench.delete("a", None).await;
    let (_, second) = bench.add("a", "two").await;
    bench.look();
    let releasing = DeleteCode::Releasing { worker: members[0].worker, grant: first };
    assert_eq!(bench.delete("a", Some(second)).await, releasing);
    assert_eq!(bench.look(), ["jobs a: -", "owner a: r 1 r2 0"], "its owner knows already");
    assert!(bench.release(members[0].worker, "a", first).await);
    assert_eq!(bench.look(), ["assigned a: -", "load 1: 0", "owner a: -", "released <- a r2"]);
}

#[tokio::test]
async fn a_release_counts_only_from_the_owner_and_by_its_grant() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.look();
    let batch = [(id("a"), Revision(grant.0 + 1)), (id("b"), grant)];
    assert_eq!(bench.store.release(members[0].worker, &batch).await.unwrap(), [false, false]);
    assert!(!bench.release(members[1].worker, "a", grant).await);
    assert_eq!(bench.look(), NOTHING);
    // Handed back without a delete: it goes on by a new grant, to another rather than back to where it comes from, and
    // nobody is told of a deletion.
    let batch = [(id("a"), grant), (id("a"), grant)];
    assert_eq!(bench.store.release(members[0].worker, &batch).await.unwrap(), [true, false]);
    assert_eq!(
        bench.look(),
        [
            "assigned a: 2/r4",
            "inbox 2: r4",
            "load 1: 0",
            "load 2: 1",
            "owner a: a 2 r4 r3",
            "rev: r4",
            "inbox:2 <- r4 after r2: add a r3 \"one\"",
        ]
    );
}

// Rule 8: what the caller gave up on is never carried out later.
#[tokio::test]
async fn what_comes_too_late_is_not_done() {
    let (mut bench, _) = Bench::with_workers(1).await;
    let inbox = bench.keys.inbox_channel.clone();
    let add: &[&[u8]] = &[inbox.as_bytes(), b"1000", b"9", b"a", b"0"];
    let others: &[&[u8]] = &[inbox.as_bytes(), b"1000", b"a", b"0"];
    for (script, args) in [(&script::ADD, add), (&script::DELETE, others), (&script::UPDATE, others)] {
        let late = bench.run(script, WorkerId(1), args).await.unwrap_err();
        let now = late.details().strip_prefix("LATE ").unwrap_or_else(|| panic!("{late}"));
        assert!(now.split(' ').next().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000_000, "{late}");
        assert_eq!(bench.look(), NOTHING);
    }
    // The store believes that it is 1970, is told better, and does it all the same.
    bench.store.note_time(0, Instant::now());
    assert_eq!(bench.add("a", "one").await.0, AddCode::Assigned);
    bench.store.note_time(0, Instant::now());
    assert!(matches!(bench.delete("a", None).await, DeleteCode::Releasing { .. }));
    // One that names its life may come at any time.
    bench.store.note_time(0, Instant::now());
    assert!(matches!(bench.delete("a", Some(Revision(1))).await, DeleteCode::Releasing { .. }));
}

// The server's clock as the store believes it to be is never ahead of, and not far behind, what it is: or what was given
// up on would be carried out later.
#[tokio::test]
async fn the_servers_clock_is_known_from_open() {
    let mut bench = Bench::new().await;
    for _ in 0..20 {
        let believed = bench.store.server_time(Instant::now());
        let Some((seconds, micros)) =
            bench.command(&["TIME"]).list().split_first().map(|(s, m)| (s.int(), m[0].int()))
        else {
            panic!("a time")
        };
        let server = u64::try_from(seconds * 1_000_000 + micros).unwrap();
        assert!(believed <= server, "{believed} {server}");
        assert!(believed + 5_000_000 > server, "{believed} {server}");
    }
}

// Rule 8, over the whole road: the server was away for longer than the caller waited.
#[tokio::test]
async fn a_timed_out_add_is_not_carried_out_later() {
    let mut bench = Bench::new().await;
    // The server knows the script already: it would run it.
    bench.add("known", "").await;
    bench.look();
    bench.server.pause();
    let hasty = bench.store(Duration::from_millis(100));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    hasty.note_time(now.as_micros() as u64, Instant::now());
    let answer = hasty.add(&[(id("a"), Bytes::new())], 1).await;
    assert_eq!(kind(answer), Some(ErrorKind::Timeout));
    // Let its time pass by the server's clock: the command lies in its socket meanwhile.
    let start = Instant::now();
    super::bench::until("its time passes", || start.elapsed() > Duration::from_millis(200)).await;
    bench.server.resume();
    bench.store.survey().await.unwrap();
    assert_eq!(bench.look(), NOTHING);
}

// Promise: payloads are opaque, ids are any text. A reply that begins with a word of the protocol hangs fred.
#[tokio::test]
async fn any_bytes_go_through_whole() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let all: Vec<u8> = (0..=255).collect();
    let payloads = [
        &b""[..],
        b"message",
        b"\r\n+OK\r\n$-1\r\n",
        b"\xff\xfe\x00",
        b"%s%d%%\0\\n",
        b"-ERR",
        &all,
        &[0xc1; 70_000],
    ];
    let ids =
        ["message", "pmessage", "smessage", "0", "-1", "a b", "a}{b", "%s", "Grüße \u{1f980}", "invalidate"];
    for (at, payload) in payloads.iter().enumerate() {
        for job in ids {
            let job = id(&format!("{job}{}", "'".repeat(at)));
            let payload = Bytes::copy_from_slice(payload);
            let codes = bench.add_all(&[(job.clone(), payload.clone())]).await.unwrap();
            assert_eq!(codes[0].0, AddCode::Assigned);
            let told = bench.look().pop().unwrap();
            assert!(told.ends_with(&format!("\"{}\"", payload.escape_ascii())), "{told}");
            assert!(told.contains(&format!("add {job} ")), "{told}");
            assert_eq!(bench.store.find(&job).await.unwrap().unwrap().payload, payload);
        }
    }
    let page = bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.next), (payloads.len() * ids.len(), None));
    for row in page.rows {
        let at = row.job.as_str().matches('\'').count();
        assert_eq!(row.state, RowState::Active(Some(Bytes::copy_from_slice(payloads[at]))));
    }
    let (rows, _) = bench.store.list("0").await.unwrap();
    assert!(rows.len() >= 10);
}
