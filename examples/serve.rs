//! A worker that serves: a function for each job, until SIGTERM or Ctrl-C; then the jobs go to other workers.
//!
//! `cargo run --example serve -- redis://localhost`; start several, stop one, kill one. `--example master` adds jobs.

use std::error::Error;
use std::time::Duration;

use assemblage::{Cluster, Task};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Deserialize)]
struct Mailbox {
    host: String,
    user: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tracing_subscriber::fmt().init();
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".into());
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => println!("SIGTERM: leaving"),
            _ = tokio::signal::ctrl_c() => println!("Ctrl-C: leaving"),
        }
    };

    let cluster = Cluster::builder("mail").release_timeout(Duration::from_secs(10)).connect_url(url).await?;
    cluster
        .serve(watch)
        .with_graceful_shutdown(shutdown)
        .on_error(|error| eprintln!("to be looked at: {error}"))
        .await?;
    Ok(())
}

/// Works on one job until it is to stop. What fails is told to `on_error`, and tried again after a while.
async fn watch(task: Task) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Mailbox { host, user } = task.payload()?;
    println!("watching {user} at {host}, epoch {}", task.epoch());
    loop {
        tokio::select! {
            () = task.stopped() => break,
            mails = new_mails(&host, &user) => println!("{user}: {} new mails", mails?),
        }
    }
    println!("{user} at {host} is cleaned up ({:?})", task.reason());
    Ok(())
}

async fn new_mails(_host: &str, _user: &str) -> std::io::Result<usize> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(1)
}
