//! The stream of one worker: per job one `Add`, then `Update`s, then one `Delete`, and one `Close` at the end.

use std::collections::HashMap;

use super::book::{Book, Life, MS, is_fence};
use super::history::What;
use super::{Kind, Violation};

pub(super) fn check(book: &Book<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for life in &book.lives {
        in_turn(book, life, &mut found);
        silent_after_its_lock(book, life, &mut found);
    }
    for line in &book.died {
        let text = format!("{} was not killed", book.entries[*line].who);
        found.push(Violation::new(Kind::Died, text, [Some(*line)]));
    }
    found
}

fn in_turn(book: &Book<'_>, life: &Life<'_>, found: &mut Vec<Violation>) {
    // What the consumer has, with the line and the epoch of what it saw last of each.
    let mut held: HashMap<&str, (usize, u64)> = HashMap::new();
    let (mut closed, mut over) = (None, None);
    let worker = life.worker;
    for &line in &life.events {
        let mut turn = |text: String, before: Option<usize>| {
            found.push(Violation::new(Kind::OutOfTurn, text, [before, Some(line)]));
        };
        if let Some(before) = over {
            turn(format!("worker {worker} goes on after its end"), Some(before));
            return;
        }
        if let Some(before) = closed
            && !matches!(book.entries[line].what, What::End { .. })
        {
            turn(format!("worker {worker} goes on after Close"), Some(before));
            return;
        }
        let mut back = None;
        match &book.entries[line].what {
            What::Add { job, epoch, .. } => {
                if let Some((before, _)) = held.insert(job, (line, *epoch)) {
                    turn(format!("worker {worker} has {job} already"), Some(before));
                }
            }
            What::Update { job, epoch, .. } => match held.insert(job, (line, *epoch)) {
                Some((before, known)) if *epoch < known => back = Some((before, job, known, *epoch)),
                Some(_) => {}
                None => turn(format!("worker {worker} does not have {job}"), None),
            },
            What::Delete { job, epoch, .. } => match held.remove(job.as_str()) {
                Some((before, known)) if *epoch < known => back = Some((before, job, known, *epoch)),
                Some(_) => {}
                None => turn(format!("worker {worker} does not have {job}"), None),
            },
            What::Close { .. } => {
                closed = Some(line);
                if let Some((job, (before, _))) = held.iter().min_by_key(|(_, (before, _))| *before) {
                    let more = held.len() - 1;
                    turn(
                        format!("worker {worker} closes without a Delete of {job} and {more} more"),
                        Some(*before),
                    );
                }
            }
            What::End { .. } => {
                over = Some(line);
                if closed.is_none() {
                    turn(format!("worker {worker} ends without Close"), None);
                }
            }
            _ => {}
        }
        if let Some((before, job, known, epoch)) = back {
            let text = format!("the epoch of {job} at worker {worker} falls from {known} to {epoch}");
            found.push(Violation::new(Kind::EpochBack, text, [Some(before), Some(line)]));
        }
    }
}

/// A worker whose lock was over when its process woke gives up, and does nothing else.
fn silent_after_its_lock(book: &Book<'_>, life: &Life<'_>, found: &mut Vec<Violation>) {
    let speaks = |line: usize| matches!(book.entries[line].what, What::Add { .. } | What::Update { .. });
    let fence = life.events.iter().position(
        |line| matches!(&book.entries[*line].what, What::Delete { reason, .. } if is_fence(reason)),
    );
    if let Some(fence) = fence
        && let Some(line) = life.events[fence..].iter().find(|line| speaks(**line))
    {
        let text = format!("worker {} has given up already", life.worker);
        found.push(Violation::new(Kind::SpokeAfterLock, text, [Some(life.events[fence]), Some(*line)]));
    }
    let Some(process) = book.processes.get(life.who) else { return };
    for still in process.still.iter().filter(|_| !life.lenient) {
        let (from, to) = still.surely;
        if to < from + life.ttl || to == super::book::NEVER || from < book.at(life.joined) {
            continue;
        }
        let first = life.events.iter().find(|line| book.at(**line) > from + 5 * MS);
        if let Some(line) = first.filter(|line| speaks(**line)) {
            let text = format!(
                "worker {} stood still for {} ms, and its lock lives for {} ms",
                life.worker,
                (to - from) / MS,
                life.ttl / MS
            );
            let lines = [Some(still.lines.0), still.lines.1, Some(*line)];
            found.push(Violation::new(Kind::SpokeAfterLock, text, lines));
        }
    }
}
