//! Names: a worker that comes under the name of another is its heir.

use std::time::Duration;

use super::bench::{Bench, JOINED, TERMS, entry, lock, reaped};
use crate::id::WorkerId;
use crate::message::{Order, Terms};
use crate::redis::store::{Entry, Lock, Member, Reap, Refusal};

const NOTHING: [&str; 0] = [];
const GRACE: Duration = Duration::from_secs(85);
const NO_GRACE: Duration = Duration::ZERO;

/// The fields of the terms but when something changed last.
fn terms(bench: &mut Bench) -> Vec<String> {
    let fields = bench.command(&["HKEYS", "@terms"]);
    let mut fields: Vec<_> = fields.list().iter().map(crate::test_server::Reply::text).collect();
    fields.retain(|field| field != "changed");
    fields.sort();
    fields
}

/// Worker 1 is mail and has the jobs a, b, c; worker 2 has no name and nothing.
async fn mail(grace: Duration) -> (Bench, Member) {
    let mut bench = Bench::new().await;
    let mail = bench.joined_as("mail", grace, false).await;
    for job in ["a", "b", "c"] {
        bench.add(job, "x").await;
    }
    bench.joined().await;
    bench.look();
    (bench, mail)
}

fn holders(bench: &mut Bench) -> [String; 3] {
    ["a", "b", "c"].map(|job| bench.holder(job))
}

#[tokio::test]
async fn a_name_is_kept_with_its_worker_and_goes_with_it() {
    let mut bench = Bench::new().await;
    let mail = bench.joined_as("mail", GRACE, false).await;
    assert_eq!(
        bench.look()[6..],
        [
            "terms 1: 1 0 0",
            "terms 1:name: 85000 mail",
            "terms 1:ttl: 45000",
            "terms changed: T",
            "terms name:mail: 1",
            "workers 1: \\x80 info",
        ]
    );
    bench.store.leave(&mail).await.unwrap().unwrap();
    assert_eq!(terms(&mut bench), [""; 0]);
    bench.joined_as("mail", NO_GRACE, false).await;
}

// Static membership: a worker that is restarted within the grace sets off no reshuffle.
#[tokio::test]
async fn the_jobs_of_a_dead_name_are_kept_and_go_to_the_next_of_that_name() {
    let (mut bench, mail) = mail(GRACE).await;
    bench.end_lock(mail.worker);
    let kept = Reap::Kept { remaining: GRACE };
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, kept);
    assert_eq!(
        bench.look(),
        [
            "deadlines 1: 90s",
            "inbox 1: -",
            "load 1: -",
            "rev: r6",
            "terms 1: -",
            "terms 1:ended: 1000 0 3",
            "terms changed: T",
            "workers 1: -",
            "inbox:1 <- r6 after r4: fenced",
            "control <- Reaped(WorkerId(1))",
        ]
    );
    assert!(matches!(bench.reap(mail.worker).await.unwrap().0, Reap::Alive { .. }), "nobody else gets them");
    assert_eq!(bench.look(), NOTHING);
    // Meanwhile they can be deleted, updated, and let go of by whoever thinks that it has them.
    bench.delete("c", None).await;
    bench.update("b", "y").await;
    bench.look();

    let heir = bench.reserved().await;
    let entry = Entry { name: Some(("mail".into(), GRACE)), ..entry(JOINED) };
    let joined = bench.store.join(&heir, &entry).await.unwrap().unwrap();
    assert_eq!(joined.due, [mail.worker], "whose jobs are to be had now");
    bench.look();
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, reaped(3, 0));
    let told = bench.look();
    let frames: Vec<_> = told.iter().filter(|line| line.contains("<-")).cloned().collect();
    assert_eq!(
        frames,
        [
            "inbox:3 <- r10 after r9: add a r2 \"x\"",
            "inbox:3 <- r11 after r10: add b r3 \"y\"",
            "released <- c r4",
            "control <- Reaped(WorkerId(1))",
        ]
    );
    assert_eq!(terms(&mut bench), ["2", "2:ttl", "3", "3:name", "3:ttl", "name:mail"]);
}

#[tokio::test]
async fn when_the_grace_is_over_the_jobs_go_to_others_and_the_name_is_free() {
    let (mut bench, mail) = mail(GRACE).await;
    bench.end_lock(mail.worker);
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, Reap::Kept { remaining: GRACE });
    bench.end_lock(mail.worker);
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, reaped(3, 0));
    assert_eq!(holders(&mut bench), ["a 2"; 3]);
    let told = bench.look();
    assert!(!told.iter().any(|line| line.ends_with("fenced")), "it was told already: {told:?}");
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, Reap::Nothing);
    assert_eq!(terms(&mut bench), ["2", "2:ttl"]);
    bench.joined_as("mail", NO_GRACE, false).await;
}

#[tokio::test]
async fn without_a_grace_the_jobs_of_a_dead_name_go_on_at_once() {
    let (mut bench, mail) = mail(NO_GRACE).await;
    bench.end_lock(mail.worker);
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, reaped(3, 0));
    assert_eq!(holders(&mut bench), ["a 2"; 3]);
}

#[tokio::test]
async fn a_living_name_is_not_taken_unless_the_newcomer_means_to() {
    let (mut bench, _) = mail(NO_GRACE).await;
    let second = bench.reserved().await;
    bench.look();
    let wish = |usurp| Entry { name: Some(("mail".into(), NO_GRACE)), usurp, ..entry(JOINED) };
    let refused = bench.store.join(&second, &wish(false)).await.unwrap().unwrap_err();
    assert!(
        matches!(refused, Refusal::NameTaken(left) if left <= JOINED && left > JOINED / 2),
        "{refused:?}"
    );
    assert_eq!(bench.look(), NOTHING);

    bench.store.join(&second, &wish(true)).await.unwrap().unwrap();
    assert_eq!(
        bench.look(),
        [
            "deadlines 3: 50s",
            "inbox 1: r7",
            "inbox 3: r6",
            "load 1: -",
            "load 3: 0",
            "lock:3: ME 50s",
            "rev: r7",
            "terms 1: -",
            "terms 1:order: evict",
            "terms 3: 1 0 0",
            "terms 3:name: 0 mail",
            "terms 3:ttl: 45000",
            "terms changed: T",
            "terms name:mail: 3",
            "inbox:1 <- r7 after r4: attend",
        ]
    );
    bench.store.join(&second, &wish(true)).await.unwrap().unwrap();
    assert_eq!(bench.look(), NOTHING, "run twice it is told once");
}

#[tokio::test]
async fn what_an_evicted_worker_lets_go_of_goes_to_its_heir_whoever_holds_less() {
    let (mut bench, mail) = mail(GRACE).await;
    let heir = bench.joined_as("mail", GRACE, true).await;
    assert_eq!(bench.beat(&mail, JOINED, false).await.unwrap().unwrap().order, Order::Evict);
    bench.release_now("a").await;
    bench.release_now("b").await;
    assert_eq!(holders(&mut bench), ["a 3", "a 3", "a 1"]);
    // It dies on the way: nothing is kept, there is an heir.
    bench.end_lock(mail.worker);
    assert_eq!(bench.reap(mail.worker).await.unwrap().0, reaped(1, 0));
    assert_eq!(holders(&mut bench), ["a 3"; 3]);
    assert_eq!(terms(&mut bench), ["2", "2:ttl", "3", "3:name", "3:ttl", "name:mail"]);
    assert_eq!(bench.store.leave(&heir).await.unwrap(), Some((3, 0)));
    assert_eq!(
        (holders(&mut bench), terms(&mut bench)),
        (["a 2", "a 2", "a 2"].map(str::to_owned), vec!["2".into(), "2:ttl".into()])
    );
}

// The newest of a name is the heir of all before it, also if one in between is gone already.
#[tokio::test]
async fn the_heir_of_an_heir_inherits() {
    let (mut bench, first) = mail(NO_GRACE).await;
    let second = bench.joined_as("mail", NO_GRACE, true).await;
    bench.release_now("a").await;
    let third = bench.joined_as("mail", NO_GRACE, true).await;
    assert_eq!(holders(&mut bench), ["a 3", "a 1", "a 1"]);
    bench.release_now("b").await;
    assert_eq!(bench.store.leave(&second).await.unwrap(), Some((1, 0)));
    assert_eq!(bench.store.leave(&first).await.unwrap(), Some((1, 0)));
    assert_eq!(holders(&mut bench), ["a 4"; 3]);
    assert_eq!(terms(&mut bench), ["2", "2:ttl", "4", "4:name", "4:ttl", "name:mail"]);
    bench.end_lock(third.worker);
    bench.reap(third.worker).await.unwrap();
    assert_eq!(terms(&mut bench), ["2", "2:ttl"]);
}

#[tokio::test]
async fn an_heir_without_room_or_under_orders_is_passed_over() {
    let (mut bench, _) = mail(NO_GRACE).await;
    let heir = bench.reserved().await;
    let terms = Terms { capacity: Some(1), ..TERMS };
    let entry = Entry { name: Some(("mail".into(), NO_GRACE)), usurp: true, terms, ..entry(JOINED) };
    bench.store.join(&heir, &entry).await.unwrap().unwrap();
    for job in ["a", "b"] {
        bench.release_now(job).await;
    }
    assert_eq!(holders(&mut bench), ["a 3", "a 2", "a 1"]);
    bench.beat_on(&heir, TERMS).await;
    bench.order(heir.worker, Order::Drain).await;
    bench.release_now("c").await;
    assert_eq!(bench.holder("c"), "a 2");
}

// Rule 8: a late copy of a join does not take back a name that another has by now.
#[tokio::test]
async fn a_late_copy_of_a_join_does_not_take_the_name_back() {
    let mut bench = Bench::new().await;
    let first = bench.joined_as("mail", GRACE, true).await;
    bench.joined_as("mail", GRACE, true).await;
    bench.look();
    let entry = Entry { name: Some(("mail".into(), GRACE)), usurp: true, ..entry(JOINED) };
    bench.store.join(&first, &entry).await.unwrap().unwrap();
    assert_eq!(bench.look(), NOTHING);
}

// Its lock has ended and nobody has reaped it: a lenient beat may still revive it, and then it is to go.
#[tokio::test]
async fn a_worker_that_is_revived_after_its_name_was_taken_is_told_to_go() {
    let (mut bench, mail) = mail(GRACE).await;
    bench.end_lock(mail.worker);
    let heir = bench.reserved().await;
    let entry = Entry { name: Some(("mail".into(), GRACE)), ..entry(JOINED) };
    let joined = bench.store.join(&heir, &entry).await.unwrap().unwrap();
    assert_eq!(joined.due, [mail.worker]);
    let lenient = Lock { lenient: true, ..lock(JOINED, false) };
    let beat = bench.store.beat(&mail, &lenient).await.unwrap().unwrap();
    assert_eq!(
        (beat.order, bench.add("new", "").await.0),
        (Order::Evict, crate::redis::store::AddCode::Assigned)
    );
    assert_ne!(bench.holder("new"), "a 1");
    for job in ["a", "b", "c"] {
        bench.release_now(job).await;
    }
    assert_eq!(holders(&mut bench), ["a 3"; 3]);
}

#[tokio::test]
async fn names_do_not_meet_the_fields_of_workers() {
    let mut bench = Bench::new().await;
    for name in ["1", "1:order", "changed", "name:1", "a b", "7 seven", "%d"] {
        let worker = bench.joined_as(name, GRACE, false).await;
        assert_eq!(bench.beat(&worker, JOINED, false).await.unwrap().unwrap().order, Order::Resume);
        let next = bench.joined_as(name, GRACE, true).await;
        assert_eq!(bench.beat(&worker, JOINED, false).await.unwrap().unwrap().order, Order::Evict, "{name}");
        assert_eq!(next.worker, WorkerId(worker.worker.0 + 1));
        bench.store.leave(&worker).await.unwrap().unwrap();
        bench.store.leave(&next).await.unwrap().unwrap();
    }
    assert_eq!(terms(&mut bench), [""; 0]);
}
