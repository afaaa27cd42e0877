//! order: drain, evict, resume; and the drain that a worker asks for by itself.

use super::bench::{Bench, JOINED};
use crate::id::WorkerId;
use crate::message::Order;
use crate::redis::store::AddCode;

const NOTHING: [&str; 0] = [];

async fn told(bench: &Bench, member: &crate::redis::store::Member, draining: bool) -> Order {
    bench.beat(member, JOINED, draining).await.unwrap().unwrap().order
}

#[tokio::test]
async fn a_worker_that_is_to_drain_is_given_nothing_and_each_beat_says_why() {
    let (mut bench, members) = Bench::with_workers(2).await;
    bench.add("a", "one").await;
    bench.look();
    for (order, word) in [(Order::Drain, "drain"), (Order::Evict, "evict")] {
        let first = word == "drain";
        assert!(bench.order(members[0].worker, order).await);
        let (revision, before) = if first { ("r4", "r3") } else { ("r5", "r4") };
        let mut expected = vec![format!("inbox 1: {revision}")];
        expected.extend(first.then(|| "load 1: -".into()));
        expected.push(format!("rev: {revision}"));
        expected.extend(first.then(|| "terms 1: -".into()));
        expected.push(format!("terms 1:order: {word}"));
        expected.extend(first.then(|| "terms changed: T".into()));
        expected.push(format!("inbox:1 <- {revision} after {before}: attend"));
        assert_eq!(bench.look(), expected);
        for draining in [false, true] {
            assert_eq!(told(&bench, &members[0], draining).await, order);
        }
        assert_eq!(told(&bench, &members[1], false).await, Order::Resume, "the other one is to go on");
        assert_eq!(bench.look(), NOTHING);
    }
    // It holds less than the other, and gets nothing all the same; what it gives up goes on.
    for job in ["b", "c"] {
        bench.add(job, "x").await;
    }
    bench.look();
    bench.release_now("a").await;
    assert_eq!(bench.holder("a"), "a 2");
    assert_eq!(bench.command(&["ZSCORE", "@load", "2"]).text(), "3");
}

// Run twice it tells twice, and nothing else is different: rebalancing does not wait any longer because of it.
#[tokio::test]
async fn an_order_given_twice_is_told_twice() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for order in [Order::Drain, Order::Resume] {
        bench.order(members[0].worker, order).await;
        told(&bench, &members[0], false).await;
        bench.look();
        bench.order(members[0].worker, order).await;
        let lines = bench.look();
        let places: Vec<_> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!((lines.len(), &places[..2]), (3, &["inbox 1", "rev"][..]), "{lines:?}");
        assert!(lines[2].ends_with("attend"));
        told(&bench, &members[0], false).await;
        assert_eq!(bench.look(), NOTHING);
    }
}

#[tokio::test]
async fn a_worker_that_is_to_go_on_is_given_jobs_from_its_next_beat_on() {
    let (mut bench, members) = Bench::with_workers(1).await;
    bench.add("a", "one").await;
    bench.order(members[0].worker, Order::Drain).await;
    assert_eq!(bench.add("b", "x").await.0, AddCode::Pending);
    bench.look();
    assert!(bench.order(members[0].worker, Order::Resume).await);
    assert_eq!(
        bench.look(),
        ["inbox 1: r5", "rev: r5", "terms 1:order: -", "inbox:1 <- r5 after r3: attend"]
    );
    assert_eq!(bench.add("c", "x").await.0, AddCode::Pending);
    bench.look();
    let beat = bench.beat(&members[0], JOINED, false).await.unwrap().unwrap();
    assert_eq!((beat.order, beat.waiting, beat.rank), (Order::Resume, 2, 0));
    assert_eq!(
        bench.look(),
        ["load 1: 1", "terms 1: 1 0 0", "terms changed: T"],
        "what it held all the time counts"
    );
    bench.store.place().await.unwrap();
    assert_eq!(bench.command(&["ZSCORE", "@load", "1"]).text(), "3");
}

// Rule 5 and the order are two reasons: it is given jobs when neither is left.
#[tokio::test]
async fn a_worker_that_leaves_is_not_brought_back_by_a_resume_nor_one_under_orders_by_its_beat() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let takes = async |bench: &mut Bench| bench.command(&["ZCARD", "@load"]).int() == 1;
    told(&bench, &members[0], true).await;
    bench.order(members[0].worker, Order::Drain).await;
    bench.order(members[0].worker, Order::Resume).await;
    assert_eq!(told(&bench, &members[0], true).await, Order::Resume);
    assert!(!takes(&mut bench).await, "it drains by itself still");
    told(&bench, &members[0], false).await;
    assert!(takes(&mut bench).await);
    bench.order(members[0].worker, Order::Evict).await;
    assert_eq!(told(&bench, &members[0], true).await, Order::Evict);
    assert_eq!(told(&bench, &members[0], false).await, Order::Evict);
    assert!(!takes(&mut bench).await, "the order stands");
}

// Only a member that has joined takes orders: who only reserved its number starts its chain by joining.
#[tokio::test]
async fn there_is_no_order_for_who_is_not_there() {
    let (mut bench, members) = Bench::with_workers(1).await;
    for job in ["a", "b"] {
        bench.add(job, "x").await;
    }
    let reserved = bench.reserved().await;
    bench.end_lock(members[0].worker);
    bench.reap_batch(members[0].worker, 1, 0).await;
    bench.delete("b", None).await; // which writes to the dead one's inbox
    bench.look();
    for worker in [reserved.worker, members[0].worker, WorkerId(99)] {
        for order in [Order::Drain, Order::Evict, Order::Resume] {
            assert!(!bench.order(worker, order).await, "{worker} {order:?}");
        }
    }
    assert_eq!(bench.look(), NOTHING);
    bench.join(&reserved, JOINED).await.unwrap().unwrap();
    assert_eq!(bench.command(&["ZSCORE", "@load", "2"]).text(), "0");
}

#[tokio::test]
async fn nothing_of_an_order_outlives_its_worker() {
    let (mut bench, members) = Bench::with_workers(2).await;
    for member in &members {
        bench.order(member.worker, Order::Evict).await;
    }
    bench.store.leave(&members[0]).await.unwrap().unwrap();
    bench.end_lock(members[1].worker);
    bench.reap(members[1].worker).await.unwrap();
    assert_eq!(bench.command(&["HKEYS", "@terms"]).list().len(), 1, "only when something changed last");
}
