//! The workers' processes: this program again, reporting what its consumer saw.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use assemblage::{Cluster, Event};
use futures::{FutureExt, StreamExt};

use crate::Setting;
use crate::book::{Book, Report};

/// A worker's process, killed when dropped.
pub(crate) struct Child {
    child: std::process::Child,
    worker: u64,
}

impl Child {
    /// One that has joined.
    pub(crate) fn worker(url: &str, setting: &Setting, book: &mut Book) -> Self {
        let Setting { ttl, rebalance, .. } = setting;
        let words = [
            ttl.as_millis().to_string(),
            rebalance.share.to_string(),
            rebalance.delay.as_millis().to_string(),
        ];
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["worker", url])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut first = String::new();
        output.read_line(&mut first).expect("it joins");
        let worker = first.trim().parse().expect("its number");
        let reports = book.join(worker);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let (kind, job) = line.split_at(1);
                let job = job.parse().expect("a number");
                let report = match kind {
                    "+" => Report::Add { worker, job },
                    _ => Report::Delete { worker, job },
                };
                if reports.send(report).is_err() {
                    return;
                }
            }
            let _ = reports.send(Report::End { worker });
        });
        Self { child, worker }
    }

    pub(crate) fn number(&self) -> u64 {
        self.worker
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self, book: &mut Book) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        book.killed(self.worker);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What such a process does: it keeps each job until its `Delete`, and says so.
pub(crate) fn run(url: &str, setting: &Setting) {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let builder = Cluster::builder("bench").lock_ttl(setting.ttl).rebalance(setting.rebalance);
        let cluster = builder.connect_url(url).await.expect("connects");
        let mut worker = cluster.worker().await.expect("joins");
        let mut held = HashMap::new();
        let mut out = std::io::BufWriter::new(std::io::stdout());
        let _ = writeln!(out, "{}", worker.id()).and_then(|()| out.flush());
        loop {
            let event = match worker.next().now_or_never() {
                Some(event) => event,
                None => {
                    let _ = out.flush();
                    worker.next().await
                }
            };
            let _ = match event {
                Some(Event::Add(job)) => {
                    let said = writeln!(out, "+{}", job.id());
                    held.insert(job.id().clone(), job);
                    said
                }
                Some(Event::Delete(deletion)) => {
                    // Said before it is let go of: afterwards it may be another's.
                    let said = writeln!(out, "-{}", deletion.id()).and_then(|()| out.flush());
                    held.remove(deletion.id());
                    said
                }
                Some(_) => Ok(()),
                None => return,
            };
        }
    });
}
