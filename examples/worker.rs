//! A worker: one task for each job, which ends when the job is deleted.
//!
//! `cargo run --example worker -- redis://localhost`; start several, and kill one.

use std::time::Duration;

use assemblage::{Cluster, Event, Job, Result};
use futures::StreamExt;
use serde::Deserialize;

#[derive(Deserialize)]
struct Mailbox<'a> {
    host: &'a str,
    user: &'a str,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().init();
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".into());
    let cluster = Cluster::builder("mail").connect_url(url).await?;
    let mut worker = cluster.worker().await?;
    println!("worker {}", worker.id());
    while let Some(event) = worker.next().await {
        match event {
            Event::Add(job) => drop(tokio::spawn(watch(job))),
            // The task has its own handle and sees the end by itself; this one is dropped at once.
            Event::Delete(deletion) => println!("{}: {:?}", deletion.id(), deletion.reason()),
            Event::Close(reason) => println!("closed: {reason:?}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}

/// Works on one job. When this returns, its handle is dropped, and the job may go elsewhere.
async fn watch(job: Job) {
    match job.payload::<Mailbox>() {
        Ok(mailbox) => println!("watching {} at {}, epoch {}", mailbox.user, mailbox.host, job.epoch()),
        Err(error) => return println!("{error}"),
    }
    job.deleted().await;
    tokio::time::sleep(Duration::from_millis(10)).await; // a clean-up
}
