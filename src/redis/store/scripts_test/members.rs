//! Membership: open, reserve, join, beat, leave.

use super::bench::{BEATEN, Bench, JOINED, RESERVED};
use crate::error::ErrorKind;
use crate::id::{Revision, WorkerId};
use crate::redis::script;
use crate::redis::store::{Due, Ended, Member};

// Rule 10: another run of the server may have lost writes, so the clock is lifted, once.
#[tokio::test(flavor = "multi_thread")]
async fn open_lifts_on_another_run_of_the_server_and_only_the_first_time() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.forget();
    let again = bench.store.open("RUN").await.unwrap();
    assert_eq!((again.incarnation, bench.news()), (bench.incarnation.clone(), vec![]));

    assert_eq!(bench.store.open("RUN2").await.unwrap().incarnation, bench.incarnation);
    assert_eq!(
        bench.news(),
        ["meta: incarnation=I last_worker=1025 lifted=r3 partitions=1 protocol=1 run_id=RUN2", "rev: r3",]
    );
    bench.store.open("RUN2").await.unwrap();
    assert_eq!(bench.news(), [""; 0]);

    // Beat and sync tell of it.
    let beat = bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    let page = bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap();
    assert_eq!((bench.name(beat.lifted), page.lifted), ("r3", beat.lifted));
    let found = bench.store.find(&super::bench::id("a")).await.unwrap().unwrap();
    let epoch = crate::id::Epoch(beat.lifted.get());
    assert_eq!(found.record.state, crate::JobState::Assigned { worker: members[0].worker, epoch });
}

// Promise: two processes never share a number, even where a failover forgot that one was given out.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_whose_reservation_was_lost_in_a_failover_is_not_given_out_again() {
    let bench = Bench::new().await;
    let lost = bench.reserve().await;
    // The replica that takes over never heard of it.
    bench.command(&["HSET", &bench.key("meta"), "last_worker", "0"]);
    bench.command(&["DEL", &bench.key("workers"), &bench.key("deadlines")]);
    bench.store.open("REPLICA").await.unwrap();
    assert_ne!(bench.reserve().await.worker, lost.worker);
    assert_eq!(bench.store.join(&lost, JOINED).await.unwrap().unwrap_err(), Ended::Dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_another_protocol_is_refused_and_left_alone() {
    let mut bench = Bench::new().await;
    bench.command(&["HSET", &bench.key("meta"), "protocol", "2"]);
    bench.forget();
    assert_eq!(bench.store.open("RUN2").await.unwrap_err().kind(), ErrorKind::Incompatible);
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reserve_gives_a_number_that_holds_nothing_and_never_the_same_twice() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.reserve().await.worker, WorkerId(1));
    assert_eq!(
        bench.news(),
        [
            "deadlines: 1=60s",
            "meta: incarnation=I last_worker=1 lifted=0 partitions=1 protocol=1 run_id=RUN",
            "workers: 1=info",
        ]
    );
    assert_eq!(bench.reserve().await.worker, WorkerId(2), "run twice it wastes a number");
    // It waits for no job and gets none.
    assert_eq!(bench.add("a", "one").await.0, crate::redis::store::AddCode::Pending);
}

// Promise: one owner. A cluster that lost its meta key counts from 1 again, beside workers that still have numbers.
#[tokio::test(flavor = "multi_thread")]
async fn reserve_passes_over_a_number_that_is_still_somebodys() {
    let (bench, members) = Bench::with_workers(2).await;
    bench.command(&["DEL", &bench.key("meta")]);
    let incarnation = bench.store.open("RUN").await.unwrap().incarnation;
    let reserved = bench.store.reserve(&incarnation, RESERVED, Vec::new()).await.unwrap();
    assert_eq!(reserved, Some(WorkerId(3)));
    assert_eq!(bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Reset);
}

#[tokio::test(flavor = "multi_thread")]
async fn join_takes_part_and_twice_is_the_same_as_once() {
    let mut bench = Bench::new().await;
    let member = bench.reserve().await;
    bench.forget();
    let joined = bench.store.join(&member, JOINED).await.unwrap().unwrap();
    assert_eq!((joined.pending, joined.due), (0, vec![]));
    assert_eq!(bench.news(), ["deadlines: 1=40s", "inbox: 1=r1", "load: 1=0", "lock:1: I 40s", "rev: r1"]);
    bench.add("a", "one").await;
    bench.forget();
    bench.store.join(&member, JOINED).await.unwrap().unwrap();
    assert_eq!(bench.news(), [""; 0], "its chain goes on, and its load is not forgotten");
}

// Rule 5: a late copy of the join does not undo the drain mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_join_gives_a_draining_worker_no_new_jobs() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.store.beat(&members[0], JOINED, true).await.unwrap().unwrap();
    assert_eq!(bench.news(), ["load: gone"]);
    bench.store.join(&members[0], JOINED).await.unwrap().unwrap();
    assert_eq!(bench.news(), [""; 0]);
    assert_eq!(bench.add("a", "one").await.0, crate::redis::store::AddCode::Pending);
    let beat = bench.store.beat(&members[0], JOINED, false).await.unwrap().unwrap();
    assert_eq!((beat.waiting, beat.rank), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_reaped_has_left_or_lapsed_does_not_come_back() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.end_lock(&members[0]);
    bench.store.reap(members[0].worker).await.unwrap();
    bench.store.leave(&members[1]).await.unwrap().unwrap();
    let lapsed = bench.reserve().await;
    bench.end_lock(&lapsed);
    for member in members.iter().chain([&lapsed]) {
        assert_eq!(bench.store.join(member, JOINED).await.unwrap().unwrap_err(), Ended::Dead, "{member:?}");
        assert!(bench.store.beat(member, BEATEN, false).await.unwrap().is_err());
        assert_eq!(bench.store.leave(&members[0]).await.unwrap(), None);
    }
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tells_whose_lock_has_ended() {
    let (mut bench, members) = Bench::with_workers(3).await;
    bench.end_lock(&members[0]);
    bench.end_lock(&members[2]);
    let due = bench.store.join(&members[1], JOINED).await.unwrap().unwrap().due;
    assert_eq!(due, [members[0].worker, members[2].worker]);
    for _ in 0..30 {
        let member = bench.reserve().await;
        bench.end_lock(&member);
    }
    assert_eq!(
        bench.store.join(&members[1], JOINED).await.unwrap().unwrap().due.len(),
        16,
        "so many at a time"
    );
}

// Promise: notifications are hints. A beat tells what was missed.
#[tokio::test(flavor = "multi_thread")]
async fn beat_extends_the_lock_and_tells_what_was_missed() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, grant) = bench.add("a", "one").await;
    bench.forget();
    let beat = bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!((beat.inbox, beat.lifted, beat.rank, beat.waiting), (grant, Revision(0), 1, 0));
    let Some(Due { worker, after }) = beat.due else { panic!("the other's lock ends first") };
    assert_eq!((worker, after <= JOINED, after > JOINED / 2), (members[1].worker, true, true));
    assert_eq!(bench.news(), ["deadlines: 1=20s 2=40s", "lock:1: I 20s"]);
    let again = bench.store.beat(&members[1], BEATEN, false).await.unwrap().unwrap();
    assert_eq!((again.rank, again.due.unwrap().worker), (0, members[0].worker));
}

// Promise: one owner, and nothing is given up without need. The deadline says when a lock ends.
#[tokio::test(flavor = "multi_thread")]
async fn beat_restores_a_lock_that_was_evicted_and_refuses_one_whose_deadline_has_passed() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.command(&["DEL", &bench.key("lock:1")]);
    assert_eq!(bench.news(), ["lock:1: gone"]);
    bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap();
    assert_eq!(bench.news(), ["deadlines: 1=20s", "lock:1: I 20s"]);

    bench.end_lock(&members[0]);
    assert_eq!(bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Expired);
    assert_eq!(bench.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leave_moves_on_what_is_left_and_twice_is_the_same_as_once() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, a) = bench.add("a", "one").await;
    bench.add("b", "two").await;
    bench.add("c", "three").await;
    bench.delete("a", Some(a)).await;
    bench.store.beat(&members[0], JOINED, true).await.unwrap().unwrap();
    bench.forget(); // r3, r4, r5 the adds, r6 the delete
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), Some((2, 0)));
    let mut news = bench.news();
    news.sort();
    assert_eq!(
        news,
        [
            "> control Left(WorkerId(1))",
            "> inbox:2 r7 after r4: add c born r5 \"three\"",
            "> released a r3",
            "assigned: b=2/r4 c=2/r7",
            "deadlines: 2=40s",
            "inbox: 2=r7",
            "load: 2=2",
            "lock:1: gone",
            "owner: b=a 2 r4 r4 c=a 2 r7 r5",
            "rev: r7",
            "workers: 2=info",
        ]
    );
    assert_eq!(bench.store.leave(&members[0]).await.unwrap(), None);
    assert_eq!(bench.news(), [""; 0]);
}

// Rule 6 holds for a leave too: whoever comes next finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leave_that_was_cut_short_is_finished_by_a_reap() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b", "c"] {
        bench.add(job, "x").await;
    }
    let names = ["inbox:", "released", "control"].map(|name| bench.key(name));
    let incarnation = bench.incarnation.clone();
    let args =
        [names[0].as_bytes(), names[1].as_bytes(), names[2].as_bytes(), b"1", b"2", incarnation.as_bytes()];
    assert_eq!(format!("{:?}", bench.run(&script::LEAVE, 1, &args)), "[1, 2, 1]");
    bench.forget();
    assert_eq!(bench.store.beat(&members[0], BEATEN, false).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.store.join(&members[0], JOINED).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.store.sync(&members[0], Revision(0), None).await.unwrap().unwrap_err(), Ended::Dead);
    assert_eq!(bench.news(), [""; 0]);
    bench.end_lock(&members[0]);
    let next = bench.reserve().await;
    bench.store.join(&next, JOINED).await.unwrap().unwrap();
    bench.store.reap(members[0].worker).await.unwrap();
    bench.store.place().await.unwrap();
    assert_eq!(bench.store.sync(&next, Revision(0), None).await.unwrap().unwrap().rows.len(), 3);
}

// Promise: one owner. Who belongs to a cluster that was wiped is told so, and changes nothing in the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_cluster_that_was_wiped_is_refused() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    for opened in [false, true] {
        bench.command(&["FLUSHALL"]);
        if opened {
            let incarnation = bench.store.open("RUN").await.unwrap().incarnation;
            assert_ne!(incarnation, bench.incarnation);
            // The number is another worker's now.
            let worker = bench.store.reserve(&incarnation, RESERVED, Vec::new()).await.unwrap().unwrap();
            assert_eq!(worker, members[0].worker);
            bench.store.join(&Member { worker, incarnation }, JOINED).await.unwrap().unwrap();
        }
        bench.forget();
        let (store, old) = (&bench.store, &members[0]);
        assert_eq!(store.reserve(&bench.incarnation, RESERVED, Vec::new()).await.unwrap(), None);
        assert_eq!(store.join(old, JOINED).await.unwrap().unwrap_err(), Ended::Reset);
        assert_eq!(store.beat(old, BEATEN, true).await.unwrap().unwrap_err(), Ended::Reset);
        assert_eq!(store.sync(old, Revision(0), None).await.unwrap().unwrap_err(), Ended::Reset);
        assert_eq!(store.leave(old).await.unwrap(), None);
        assert_eq!(bench.news(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn survey_and_roster_show_the_members() {
    let (bench, members) = Bench::with_workers(2).await;
    let (_, born) = bench.add("a", "one").await;
    bench.store.beat(&members[1], BEATEN, true).await.unwrap().unwrap();
    let survey = bench.store.survey().await.unwrap();
    assert_eq!(
        (survey.revision, survey.jobs, survey.pending, survey.workers, survey.waiting),
        (born, 1, 0, 2, 0)
    );
    assert_eq!(survey.due.unwrap().worker, members[1].worker);
    let (mut rows, next) = bench.store.roster("0").await.unwrap();
    rows.sort_by_key(|row| row.worker);
    assert_eq!(next, None);
    let shown: Vec<_> = rows.iter().map(|row| (row.worker.get(), row.jobs, row.takes, &*row.info)).collect();
    assert_eq!(shown, [(1, 1, true, &b"info"[..]), (2, 0, false, b"info")]);
    assert!(rows[0].remaining > BEATEN && rows[1].remaining <= BEATEN);
}
