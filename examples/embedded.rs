//! Embedding in an application that has a fred client: its connection carries the commands, its configuration serves
//! the subscriptions, and the client stays the application's own.
//!
//! `cargo run --example embedded -- redis://localhost`

use assemblage::fred::prelude::*;
use assemblage::{Cluster, Event};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://localhost".into());
    let client = Builder::from_config(Config::from_url(&url)?).build()?;
    client.init().await?;

    let cluster = Cluster::builder("embedded").client(client.clone()).await?;
    let master = cluster.master().await?;
    let mut worker = cluster.worker().await?;

    let id = master.add("hello").await?;
    if let Some(Event::Add(job)) = worker.next().await {
        println!("{id}: {}", job.payload::<&str>()?);
        job.delete().await?;
    }
    let left = worker.terminate();
    while let Some(event) = worker.next().await {
        println!("{event:?}");
    }
    left.await;

    // The application's client goes on as before.
    let answer: String = client.ping(None).await?;
    println!("{answer}");
    client.quit().await?;
    Ok(())
}
