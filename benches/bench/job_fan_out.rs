//! `job_fan_out`: one master adds 10,000 jobs to 1, 10 and 100 workers, from the call of `add_many` until the last consumer
//! has the last `Add`.
//!
//! Each worker has connections of its own. The three clusters share a server and take turns; the single worker's
//! figure is what the others are held against.

use std::time::Instant;

use assemblage::Cluster;

use crate::add_throughput::clear;
use crate::children::{Child, Duty};
use crate::support::clock::monotonic_us;
use crate::support::floor;
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::RedisServer;

pub(crate) fn run(report: &mut Report) {
    let jobs = report.scale.of(100, 10_000, 10_000);
    let rounds = report.scale.of(1, 3, 20);
    let counts: &[usize] = report.scale.of(&[1, 3], &[1, 100], &[1, 10, 100]);
    let server = RedisServer::start();
    report.note_server(&server);
    let url = server.url();
    let clusters: Vec<String> = counts.iter().map(|count| format!("of-{count}")).collect();
    let children: Vec<Child> = counts
        .iter()
        .zip(&clusters)
        .map(|(workers, cluster)| {
            report.say(&format!("job_fan_out: {workers} workers join"));
            let duty = Duty { url: &url, cluster, ttl: None, events: true, workers: *workers, jobs };
            Child::workers(duty).0
        })
        .collect();
    report.say(&format!("job_fan_out: {rounds} rounds of {jobs} jobs"));
    let mut rates = vec![Samples::default(); counts.len()];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut masters = Vec::new();
        for cluster in &clusters {
            let cluster = Cluster::builder(cluster).connect_url(&url).await.expect("connects");
            masters.push(cluster.master().await.expect("a master"));
        }
        for _ in 0..rounds {
            for ((master, child), rates) in masters.iter().zip(&children).zip(&mut rates) {
                let (sent, begin) = (monotonic_us(), Instant::now());
                let ids = master.add_many(&vec![floor::PAYLOAD; jobs]).await.expect("added");
                let last = child.numbers("holds")[1];
                assert!(begin.elapsed().as_micros() as i64 >= last - sent, "one clock");
                rates.record(jobs as f64 * 1e6 / (last - sent) as f64);
                clear(master, &ids).await;
            }
        }
    });
    let single = rates[0].clone();
    for (count, rates) in counts.iter().zip(&rates) {
        let row = Row::rate("job_fan_out", format!("{count} workers, {jobs} jobs"), rates);
        let goal = (*count == 100).then_some(Goal::AtLeast(0.8));
        report.push(if *count == 1 { row } else { row.against("1 worker", &single, goal) });
    }
}
