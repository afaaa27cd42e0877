//! A cluster that loses a worker and loses nothing: `make demo`.
//!
//! One master process and four worker processes on a private server. 1,000 mailboxes are added, some deleted; one
//! worker is killed, a new one joins and gets its share, one is stopped in order, one is killed while the server announces
//! nothing. At the end it is counted, from what the worker processes reported, what was lost, held twice, or out of turn.

mod children;
#[path = "../../tests/it/support/machine.rs"]
mod machine;
mod roles;
#[path = "../../tests/it/support/server.rs"]
mod server;
mod tally;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use assemblage::Rebalance;
use children::{Child, Report};
use server::RedisServer;
use tally::Tally;

/// Short, so that nobody has to wait; the default is 5 s.
const LOCK_TTL: Duration = Duration::from_secs(2);
/// Half of the difference at a time and at once, for the same reason; the default is a tenth, ten seconds after the join.
fn rebalance() -> Rebalance {
    Rebalance::default().share(0.5).delay(Duration::ZERO)
}

const JOBS: usize = 1_000;
const DELETED: usize = 100;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", url] => roles::run(roles::worker(url)).map(|()| ExitCode::SUCCESS),
        ["master", url] => roles::run(roles::master(url)).map(|()| ExitCode::SUCCESS),
        [] => supervise(),
        _ => Err("usage: demo (the roles `worker URL` and `master URL` are its own)".into()),
    }
}

fn supervise() -> Result<ExitCode, Box<dyn Error>> {
    let start = Instant::now();
    let server = RedisServer::start();
    println!("a private server, one master process, four worker processes; locks live {LOCK_TTL:?}\n");
    let mut tally = Tally::new();
    let master = Child::master(&server.unix_url(), tally.sender())?;
    tally.wait("the master is up", |report| matches!(report, Report::MasterReady))?;
    let mut workers = Vec::new();
    for name in ["A", "B", "C", "D"] {
        let child = Child::worker(&server.unix_url(), tally.sender())?;
        let number = tally.wait_for_worker(name, &child)?;
        workers.push((name, number, child));
    }

    master.say(&format!("add {JOBS}"))?;
    tally.wait_until_held(&format!("{JOBS} mailboxes are added"), JOBS)?;
    let shares = tally.shares();
    master.say(&format!("delete {DELETED}"))?;
    let left = JOBS - DELETED;
    tally.wait_until_held(&format!("{DELETED} are deleted, {left} are left"), left)?;
    println!("  held at first by {shares}\n");

    let (name, number, mut child) = workers.remove(0);
    let moved = tally.held_by(number);
    child.kill()?;
    tally.killed(number, &master)?;
    tally.wait_until_held(&format!("worker {name} is killed (SIGKILL) with {moved} mailboxes"), left)?;
    tally.print_takeover(number);

    let child = Child::worker(&server.unix_url(), tally.sender())?;
    let number = tally.wait_for_worker("E", &child)?;
    workers.push(("E", number, child));
    tally.wait_until_even("worker E joins and gets its share", left)?;

    let (name, number, child) = workers.remove(0);
    let moved = tally.held_by(number);
    child.terminate()?;
    tally.wait_until_closed(number)?;
    tally.wait_until_held(&format!("worker {name} is stopped in order (SIGTERM) with {moved}"), left)?;
    tally.print_handover(number);

    server.command(&["CONFIG", "SET", "notify-keyspace-events", ""]);
    let (name, number, mut child) = workers.remove(0);
    let moved = tally.held_by(number);
    child.kill()?;
    tally.killed(number, &master)?;
    tally.wait_until_held(
        &format!("worker {name} is killed with {moved}, and the server announces nothing"),
        left,
    )?;
    tally.print_takeover(number);

    let verdict = tally.verdict(left);
    println!("\n{verdict}\n\n{:.1} s in all", start.elapsed().as_secs_f64());
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
