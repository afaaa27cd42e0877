//! How fast changes get to those who watch, on your own server:
//!
//! `cargo run --release --example fanout -- --help`
//!
//! A master adds a job and deletes it again, at a steady rate, and as many watchers as you like, each with a connection of
//! its own, hear of both. The time from the call to what each watcher's stream says is what is shown: the way to the
//! server and back, what the server does with so many connections, and what this process does with them all. If it has fewer
//! cores than your watchers will have, it shows longer times than they will see.

mod measure;
mod plot;
mod report;
#[path = "../../tests/it/support/server.rs"]
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use measure::Load;
use server::RedisServer;

/// Measures how fast changes get to those who watch a cluster.
///
/// Jobs are added and deleted again in a cluster of their own, `assemblage:fanout`, of which a few small keys stay on the
/// server. Each watcher takes a connection (see `ulimit -n`, and the server's `maxclients`).
#[derive(Debug, Parser)]
struct Args {
    /// The server, such as redis://127.0.0.1:6379; without it, a private one is started and ended
    #[arg(long)]
    url: Option<String>,
    /// How many watch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    watchers: u32,
    /// How many changes a second there are, at most
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How many bytes of payload each job has
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    payload: u32,
    /// For how many seconds to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Draw the times into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(Args::parse()).await
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let private = if args.url.is_none() { Some(RedisServer::start()) } else { None };
    let url = args.url.or(private.as_ref().map(RedisServer::unix_url)).unwrap_or_default();
    let load = Load {
        watchers: args.watchers as usize,
        rate: args.rate,
        payload: args.payload as usize,
        time: Duration::from_secs(args.seconds),
    };
    let outcome = measure::run(&url, &load).await?;
    report::print(&load, &outcome);
    if let Some(path) = args.svg {
        let drawn = std::fs::write(&path, plot::svg(&load, &outcome.times));
        drawn.map_err(|error| format!("{} could not be written: {error}", path.display()))?;
        println!("\nthe picture is in {}", path.display());
    }
    if outcome.missing > 0 { Err("some changes did not come: is the load too high?".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in
            [["--watchers", "0"], ["--rate", "0"], ["--seconds", "0"], ["--payload", "18446744073709551615"]]
        {
            assert!(Args::try_parse_from(["fanout", words[0], words[1]]).is_err(), "{words:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_load_is_measured_and_drawn() {
        let server = RedisServer::start();
        let svg = tempfile::NamedTempFile::new().expect("a file");
        let (url, path) = (server.unix_url(), svg.path().display().to_string());
        let words =
            ["fanout", "--url", &url, "--watchers", "3", "--rate", "100", "--seconds", "1", "--svg", &path];
        run(Args::parse_from(words)).await.expect("nothing is missing");
        let picture = std::fs::read_to_string(svg.path()).expect("a picture");
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && picture.contains("polyline"));
    }
}
