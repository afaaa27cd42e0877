//! A master: adds some mailboxes, shows who holds what, deletes one and waits until it is let go of.
//!
//! `cargo run --example master -- redis://localhost`, with workers of `--example worker` beside it.

use assemblage::{Cluster, Result};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

#[derive(Serialize)]
struct Mailbox<'a> {
    host: &'a str,
    user: &'a str,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().init();
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".into());
    let cluster = Cluster::builder("mail").connect_url(url).await?;
    println!("server: {}", cluster.server());
    let master = cluster.master().await?;

    let users: Vec<String> = (0..20).map(|number| format!("user{number}@example.com")).collect();
    let mailboxes: Vec<_> = users.iter().map(|user| Mailbox { host: "imap.example.com", user }).collect();
    let ids = master.add_many(&mailboxes).await?;

    for worker in master.workers().await? {
        println!("worker {} on {} (pid {}): {} jobs", worker.id, worker.host, worker.pid, worker.jobs);
    }
    let first: Vec<_> = master.jobs().take(3).try_collect().await?;
    println!("three of the jobs: {first:?}");

    println!("deleting {}: {:?}", ids[0], master.delete_and_wait(&ids[0]).await?);
    for deleted in master.delete_many(&ids).await? {
        println!("{deleted:?}");
    }
    Ok(())
}
