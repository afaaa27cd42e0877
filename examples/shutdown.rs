//! A graceful end at SIGTERM or Ctrl-C: the jobs go to other workers, each when its task has cleaned up.
//!
//! `cargo run --example shutdown -- redis://localhost`

use std::time::Duration;

use assemblage::{Cluster, Event, Result};
use futures::StreamExt;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".into());
    let cluster = Cluster::builder("mail").release_timeout(Duration::from_secs(10)).connect_url(url).await?;
    let mut worker = cluster.worker().await?;

    // Terminates from a task of its own, since the stream has to be polled to its end meanwhile.
    let handle = worker.handle();
    tokio::spawn(async move {
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
        tokio::select! {
            _ = terminate.recv() => println!("SIGTERM: leaving"),
            _ = tokio::signal::ctrl_c() => println!("Ctrl-C: leaving"),
        }
        handle.terminate().await;
    });

    while let Some(event) = worker.next().await {
        match event {
            Event::Add(job) => drop(tokio::spawn(async move {
                println!("{} begins", job.id());
                job.deleted().await;
                println!("{} is cleaned up", job.id());
            })),
            Event::Close(reason) => println!("closed: {reason:?}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
