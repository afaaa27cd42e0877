//! Whoever may publish on the cluster's channels is trusted with it; still, what he forges breaks no stream, and the next audit
//! makes all of it right again.

use std::collections::HashSet;

use assemblage::{Cluster, JobId, Master};

use crate::support::ledger::Consumer;
use crate::support::server::Connection;
use crate::support::{Ledger, RedisServer, add_jobs, cluster, until};

struct Bench {
    server: RedisServer,
    forger: Connection,
    cluster: Cluster,
    master: Master,
    ledger: Ledger,
    worker: Consumer,
    ids: Vec<JobId>,
}

/// A worker that holds ten jobs, with payloads `job 0`, `job 1`, and so on.
async fn bench() -> Bench {
    let server = RedisServer::start();
    let cluster = cluster(&server).await;
    let (master, ledger) = (cluster.master().await.unwrap(), Ledger::default());
    let worker = ledger.consume(cluster.worker().await.unwrap());
    let ids = add_jobs(&master, 10).await;
    until("all are held", || async { ledger.held().len() == 10 }).await;
    let forger = server.connect();
    Bench { server, forger, cluster, master, ledger, worker, ids }
}

impl Bench {
    fn key(name: &str) -> String {
        format!("{{assemblage:test}}:{name}")
    }

    /// To this worker's inbox. Somebody must have listened.
    fn forge(&mut self, message: &[u8]) {
        let channel = Self::key(&format!("inbox:{}", self.worker.id()));
        self.publish(&channel, message);
    }

    fn publish(&mut self, channel: &str, message: &[u8]) {
        self.forger.send(&[b"SPUBLISH", channel.as_bytes(), message]);
        assert!(self.forger.read().int() > 0, "nobody listens to {channel}");
    }

    /// The revision of the last frame in the inbox: what the next one has to go on from.
    fn last(&self) -> u64 {
        let worker = self.worker.id().to_string();
        self.server.command(&["HGET", &Self::key("inbox"), &worker]).text().parse().expect("a revision")
    }

    fn grant_of(&self, job: &JobId) -> u64 {
        let record = self.server.command(&["HGET", &Self::key("owner"), job.as_str()]).text();
        record.split(' ').nth(2).expect("a record").parse().expect("a revision")
    }

    /// Exactly the jobs that are in the server are held, with their payloads, and stay so; no promise was broken.
    async fn is_right_again(&self) {
        let ids: HashSet<JobId> = self.ids.iter().cloned().collect();
        until("what is held is what is there", || async { self.ledger.held() == ids }).await;
        let one_more = self.master.add(&"one more").await.unwrap();
        until("a push comes through", || async { self.ledger.held().contains(&one_more) }).await;
        self.master.delete_and_wait(&one_more).await.unwrap();
        until("and is gone again", || async { self.ledger.held() == ids }).await;
        assert!(!self.worker.is_closed());
        self.ledger.assert_clean();
    }
}

fn pack(fields: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec(fields).expect("it can be packed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_job_is_taken_back_by_the_next_audit() {
    let mut bench = bench().await;
    let (last, forged) = (bench.last(), "forged");
    let frame = [pack(&(1, last + 1, last, 1, forged, last + 1)), pack(&"a forged payload")].concat();
    bench.forge(&frame);
    let id = JobId::new(forged).unwrap();
    until("it is believed, as it is in order", || async { bench.ledger.moves(&id) == 1 }).await;
    until("it is taken back", || async { !bench.ledger.held().contains(&id) }).await;
    bench.is_right_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_end_costs_a_job_a_moment_and_not_its_owner() {
    let mut bench = bench().await;
    let (last, job) = (bench.last(), bench.ids[0].clone());
    let frame = pack(&(1, last + 1, last, 2, job.as_str(), bench.grant_of(&job), 1));
    bench.forge(&frame);
    until("it has come back", || async { bench.ledger.moves(&job) == 2 }).await;
    bench.is_right_again().await;
    assert!(bench.ids[1..].iter().all(|id| bench.ledger.moves(id) == 1), "no other job moved");
}

// What the server has had all the time, an audit does not ask for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_payload_lasts_until_the_next_update() {
    let mut bench = bench().await;
    let (last, job) = (bench.last(), bench.ids[0].clone());
    let frame = [pack(&(1, last + 1, last, 4, job.as_str(), bench.grant_of(&job))), pack(&"forged")].concat();
    bench.forge(&frame);
    until("it is believed, as it is in order", || async { bench.ledger.payload(&job) == "forged" }).await;
    bench.master.update(&job, &"true").await.unwrap();
    until("the true one is back", || async { bench.ledger.payload(&job) == "true" }).await;
    bench.is_right_again().await;
}

// Everything that is true is older than this.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_revision_from_the_far_future_does_not_make_a_worker_deaf() {
    let mut bench = bench().await;
    let last = bench.last();
    bench.forge(&pack(&(1, 1_u64 << 60, last, 5)));
    bench.is_right_again().await;
    assert!(bench.ids.iter().all(|id| bench.ledger.moves(id) == 1), "no job moved");
}

// Nothing in these is in order: no chain, no grant, no such worker, no message at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_out_of_order_or_is_no_message_changes_nothing() {
    let mut bench = bench().await;
    let (me, last) = (bench.worker.id().get(), bench.last());
    let job = bench.ids[0].as_str().to_owned();
    let far = 1_u64 << 60;
    let mut messages: Vec<Vec<u8>> = vec![
        pack(&(1, far, far - 1, 1, "forged", far)),
        pack(&(1, far, last, 2, &job, 5, 1)),
        pack(&(1, last, last - 1, 2, &job, 5, 2)),
        pack(&(1, 0, 0, 4, &job, 5)),
        pack(&(1, last + 5, last, 5)),
        pack(&(1, last + 6, last + 1, 9)),
        pack(&(2, last, last, 3)),
        vec![],
        b"forged".to_vec(),
        vec![0x96, 1, 1, 0, 1, 0xdb, 0xff, 0xff, 0xff, 0xff],
        vec![0xc1; 3_000],
    ];
    // The same nonsense again and again: an error each at most, and no more work than that.
    messages.extend((0..200_u8).map(|byte| vec![0x91 + byte / 20, byte, byte.wrapping_mul(7)]));
    for message in &messages {
        bench.forge(message);
        bench.publish(&Bench::key("control"), message);
        bench.publish(&Bench::key("released"), message);
    }
    for kind in 1..=3 {
        bench.publish(&Bench::key("control"), &pack(&(1, kind, me)));
        bench.publish(&Bench::key("control"), &pack(&(1, kind, far)));
    }
    bench.publish(&Bench::key("released"), &pack(&(1, &job, bench.grant_of(&bench.ids[0]))));
    bench.is_right_again().await;
    assert!(bench.ids.iter().all(|id| bench.ledger.moves(id) == 1), "no job moved");
    let errors = bench.ledger.errors();
    assert!(!errors.is_empty() && errors.len() <= messages.len(), "{}", errors.len());
    // A consumer that is slower than the flood is told how many it did not get.
    let expected = |error: &String| error.contains("was not understood") || error.contains("were left out");
    assert!(errors.iter().all(expected), "{errors:?}");
}

// Documented: the one message that ends a worker, by those who are trusted with the cluster. Its jobs are not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_fenced_makes_a_worker_give_up_and_loses_nothing() {
    let mut bench = bench().await;
    let last = bench.last();
    let next = bench.ledger.consume(bench.cluster.worker().await.unwrap());
    bench.forge(&pack(&(1, last + 1, last, 3)));
    until("the other one has them", || async { bench.ledger.held_by(next.id()) == 10 }).await;
    assert_eq!(bench.worker.closed().await, assemblage::CloseReason::LockExpired);
    bench.ledger.assert_clean();
}
