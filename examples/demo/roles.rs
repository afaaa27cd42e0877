//! What the processes do: a worker that holds mailboxes, and a master that is told what to do by lines.

use std::collections::HashMap;
use std::error::Error;

use assemblage::{Cluster, Event};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::children::say;
use crate::machine::monotonic_us;
use crate::{LOCK_TTL, rebalance};

type Outcome = Result<(), Box<dyn Error>>;

/// A job's payload.
#[derive(Serialize, Deserialize)]
struct Mailbox {
    host: String,
    user: String,
    folder: String,
}

pub(crate) fn run(role: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(role)
}

async fn connect(url: &str) -> Result<Cluster, Box<dyn Error>> {
    Ok(Cluster::builder("mail").lock_ttl(LOCK_TTL).rebalance(rebalance()).connect_url(url).await?)
}

/// Holds what it is given, reports it, and leaves in order at SIGTERM.
pub(crate) async fn worker(url: &str) -> Outcome {
    let mut worker = connect(url).await?.worker().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut held = HashMap::new();
    say(&format!("worker {}", worker.id()));
    loop {
        tokio::select! {
            _ = terminate.recv() => drop(worker.terminate()),
            event = worker.next() => match event {
                Some(Event::Add(job)) => {
                    // Here a gateway would open the session.
                    let mailbox: Mailbox = job.payload()?;
                    say(&format!("add {} {} {} {}", job.id(), job.epoch(), monotonic_us(), mailbox.user));
                    held.insert(job.id().clone(), job);
                }
                Some(Event::Delete(deletion)) => {
                    // And here close it; what is dropped is released.
                    say(&format!("delete {} {}", deletion.id(), monotonic_us()));
                    held.remove(deletion.id());
                }
                Some(Event::Close(reason)) => say(&format!("close {} {reason:?}", monotonic_us())),
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

/// `add N`, `delete N`, `lock WORKER`.
pub(crate) async fn master(url: &str) -> Outcome {
    let master = connect(url).await?.master().await?;
    let mut ids = Vec::new();
    say("master");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["add", count] => {
                let mailboxes: Vec<Mailbox> = (0..count.parse::<usize>()?).map(mailbox).collect();
                ids = master.add_many(&mailboxes).await?;
                ids.iter().for_each(|id| say(&format!("added {id}")));
            }
            ["delete", count] => {
                let doomed: Vec<_> = ids.drain(..count.parse::<usize>()?).collect();
                doomed.iter().for_each(|id| say(&format!("deleting {id}")));
                master.delete_many(&doomed).await?;
            }
            ["lock", number] => {
                let asked = monotonic_us();
                let workers = master.workers().await?;
                let dead = workers.iter().find(|worker| worker.id.to_string() == number);
                let end = dead.map_or(asked, |dead| asked + dead.lock_remaining.as_micros() as u64);
                say(&format!("lock {number} {end}"));
            }
            _ => return Err(format!("not understood: {line}").into()),
        }
    }
    Ok(())
}

fn mailbox(number: usize) -> Mailbox {
    Mailbox {
        host: format!("imap-{}.example.com", number % 7),
        user: format!("user{number}@example.com"),
        folder: "INBOX".into(),
    }
}
