//! A cluster of real processes on a real server, random operations, random faults; and then all must heal.
//!
//! `make soak SECONDS=60 SEED=1`, or `cargo test --test soak -- --seconds 60 --seed 1`. Without arguments it is the short
//! run that is part of `make test`. `--check FILE` reads a history that was kept and judges it again; `--plan` prints
//! what a seed decides.
//!
//! ```text
//! seed --> plan --> stage --- signals, commands ---> cast: processes with a master or a worker (roles)
//!                     |                                |        \ proxy, one a process
//!                     |--- pauses, restarts, ... ------+---------> server
//!                     |                                |
//!                     +--> faults -----> history <-----+ what consumers saw and masters did
//!                                           |
//!                                        checker --> violations, each with the lines that show it
//! ```
//!
//! One seed decides everything that can be decided: the workers, the operations and their times, the faults and
//! theirs. What the scheduler makes of it cannot be: the same seed may show a violation in one run and not in the next,
//! so the histories of one that did are kept.
//!
//! What the library was broken by on purpose, and what seeds 1, 2 and 3 made of it, a minute each:
//!
//! | broken | found by | by which fault | in |
//! |---|---|---|---|
//! | a server's restart lifts nothing (`open.lua`) | no new epoch | restarts shorter than a lock lives, so that holds outlive them | 3 of 3 |
//! | the chain of frames is not looked at (`core/view`) | a delete, an update or a job that does not come | messages that are lost one at a time at the end of a storm. In the silence after it nothing heals that; elsewhere a new connection does, or the audit of a later loss | 3 of 3 |
//! | a release counts whatever its grant is (`release.lua`) | two holders | the answers of the one connection that has the commands are lost in a calm, and the job comes back to who asks again. In a storm alone: 1 of 3 | 3 of 3, and 2 of 3 when run again, by 1 to 6 violations: a longer run is surer |

mod cast;
mod checker;
#[path = "../it/support/machine.rs"]
mod machine;
mod plan;
mod progress;
#[path = "../it/support/proxy.rs"]
mod proxy;
mod rng;
mod roles;
#[path = "../it/support/server.rs"]
mod server;
mod settings;
mod stage;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use checker::{Entry, Violation};
use plan::Plan;
use stage::Outcome;

/// How long the run is that is part of all tests.
const SHORT: u64 = 15;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["--role", role, ..] => {
            roles::run(role, &args[2..]);
            ExitCode::SUCCESS
        }
        [] => soak(SHORT, 1),
        ["--seconds", seconds, "--seed", seed] => soak(number(seconds), number(seed)),
        ["--plan", "--seconds", seconds, "--seed", seed] => {
            let plan = Plan::new(number(seed), number(seconds));
            println!("{:#?}", plan.workers);
            plan.steps.iter().for_each(|step| println!("{:>8} ms {:?}", step.at, step.act));
            ExitCode::SUCCESS
        }
        ["--check", file] => judge_again(file),
        // A filter of `cargo test` that is about other tests, or a question of a tool about them.
        _ => {
            println!("soak: not run, as something else was asked for: {}", args.join(" "));
            ExitCode::SUCCESS
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn soak(seconds: u64, seed: u64) -> ExitCode {
    let plan = Plan::new(seed, seconds);
    assert_eq!(plan, Plan::new(seed, seconds), "a seed decides");
    let outcome = stage::play(&plan, seconds);
    let clean = outcome.violations.is_empty() && outcome.healed.is_some();
    if !clean {
        report(&outcome.violations, &outcome.history);
        println!("the histories are in {}", keep(&outcome, seed).display());
    }
    if let Some(folder) = std::env::var_os("SOAK_LOG") {
        write(&PathBuf::from(folder), &outcome);
    }
    println!("{}", summary(&outcome, seconds, seed));
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line: what was done, and what came of it.
fn summary(outcome: &Outcome, seconds: u64, seed: u64) -> String {
    let mut line = format!(
        "soak: {seconds} s, seed {seed}, {} operations, {} handovers, {} faults (",
        outcome.operations,
        checker::handovers(&outcome.history),
        outcome.faults.values().sum::<usize>()
    );
    for (number, (fault, count)) in outcome.faults.iter().enumerate() {
        let _ = write!(line, "{}{fault} {count}", if number > 0 { ", " } else { "" });
    }
    let healed = outcome
        .healed
        .map_or("NOT healed".to_owned(), |time| format!("healed in {:.1} s", time.as_secs_f64()));
    let violations = outcome.violations.len();
    let _ =
        write!(line, "), {healed}, {violations} violations; again: make soak SECONDS={seconds} SEED={seed}");
    line
}

/// How many of one kind are shown.
const SHOWN: usize = 5;

fn report(violations: &[Violation], history: &[Entry]) {
    let mut sorted: Vec<&Violation> = violations.iter().collect();
    sorted.sort_by_key(|violation| (violation.kind, violation.lines.len(), violation.lines.first().copied()));
    let mut shown: HashMap<checker::Kind, usize> = HashMap::new();
    for violation in sorted {
        let count = shown.entry(violation.kind).or_default();
        *count += 1;
        if *count <= SHOWN {
            print!("{}", violation.excerpt(history));
        }
    }
    for (kind, count) in shown.iter().filter(|(_, count)| **count > SHOWN) {
        println!("{kind}: {} more", count - SHOWN);
    }
}

/// Writes the history down where it stays.
fn keep(outcome: &Outcome, seed: u64) -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix(&format!("assemblage-soak-{seed}-"))
        .tempdir()
        .expect("a folder for the histories")
        .keep();
    write(&folder, outcome);
    folder
}

fn write(folder: &Path, outcome: &Outcome) {
    let mut text = String::new();
    for entry in &outcome.history {
        let _ = writeln!(text, "{entry}");
    }
    std::fs::write(folder.join("history"), text).expect("the history is written");
}

fn judge_again(file: &str) -> ExitCode {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut history: Vec<Entry> = text.lines().filter_map(Entry::parse).collect();
    history.sort_by_key(|entry| entry.at);
    let violations = checker::check(&history);
    report(&violations, &history);
    println!("{} lines, {} violations", history.len(), violations.len());
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
