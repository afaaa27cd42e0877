//! `pause`: a process that holds a job is stopped for two times to live and goes on: how long until its consumer has the
//! `Delete`; and whether its epoch is refused by then, by a store that has seen the next owner's.
//!
//! The floor is a stopped process without anything of the crate: how long until it has read a byte that was there before
//! it went on.

use std::time::Duration;

use assemblage::Cluster;
use nix::sys::signal::Signal;

use crate::children::{Child, Duty};
use crate::support::clock::monotonic_us;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::RedisServer;

/// A store that takes a write by the newest owner that it knows, or a newer one: what a user is told to do.
const FENCED_WRITE: &str = "local seen = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') \
    if tonumber(ARGV[1]) < seen then return 0 end \
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1]) return 1";

pub(crate) fn run(report: &mut Report) {
    let rounds = report.scale.of(1, 3, 100);
    let ttl = Duration::from_millis(report.scale.of(1_000, 500, 500));
    report.say(&format!("pause: {rounds} rounds of {ttl:?}"));
    let server = RedisServer::start();
    report.note_server(&server);
    let url = server.url();
    let duty = Duty { url: &url, cluster: "bench", ttl: Some(ttl), events: true, workers: 1, jobs: 1 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut delete, mut floor, mut refused) = (Samples::default(), Samples::default(), 0);
    let mut bare = Child::bare();
    bare.nudge();
    bare.report("read");
    let (mut holder, _) = Child::workers(duty);
    let write =
        |epoch: i64| server.command(&["EVAL", FENCED_WRITE, "1", "output", &epoch.to_string()]).int() == 1;
    runtime.block_on(async {
        let cluster = Cluster::builder("bench").lock_ttl(ttl).max_crashes(0);
        let cluster = cluster.connect_url(&url).await.expect("connects");
        let master = cluster.master().await.expect("a master");
        master.add("the mailbox").await.expect("added");
        let mut epoch = holder.numbers("holds")[2];
        assert!(write(epoch), "the owner may write");
        for _ in 0..rounds {
            let (heir, _) = Child::workers(duty);
            bare.signal(Signal::SIGSTOP);
            bare.nudge();
            holder.signal(Signal::SIGSTOP);
            tokio::time::sleep(2 * ttl).await;
            let next = heir.numbers("holds")[2];
            assert!(write(next), "the next owner may write");

            let begin = monotonic_us();
            bare.signal(Signal::SIGCONT);
            floor.record_us(bare.numbers("read")[0] - begin);
            let begin = monotonic_us();
            holder.signal(Signal::SIGCONT);
            delete.record_us(holder.numbers("deleted")[0] - begin);
            refused += usize::from(!write(epoch));
            (holder, epoch) = (heir, next);
        }
    });
    report.push(
        Row::cost("pause", "SIGCONT to the Delete in the consumer's hands", "us", &delete)
            .against("a stopped process reads a byte", &floor, None)
            .wanted("p99 in us", delete.p99(), Goal::AtMost(5_000.0))
            .wanted("of its writes refused", refused as f64 / rounds as f64, Goal::AtLeast(1.0)),
    );
}
