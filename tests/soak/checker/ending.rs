//! When every fault has ended: each job that was added and not deleted has exactly one owner, each deleted one is gone,
//! and nothing waits.

use std::collections::{BTreeSet, HashMap};

use super::book::{Away, Book, Hold};
use super::history::{Us, What};
use super::late::not_lifted;
use super::{Kind, Violation};

/// What the cluster said of itself last.
struct Said<'a> {
    line: usize,
    jobs: HashMap<&'a str, usize>,
    pending: u64,
}

pub(super) fn check(book: &Book<'_>, at: Us) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(said) = said(book) else { return found };
    let jobs: BTreeSet<&str> =
        book.operations.jobs().chain(book.jobs.keys().copied()).chain(said.jobs.keys().copied()).collect();
    for job in jobs {
        let all = book.jobs.get(job).map_or(&[][..], Vec::as_slice);
        let last = all.last().map(|hold| &book.holds[*hold]);
        let held: Vec<&Hold<'_>> = all
            .iter()
            .map(|hold| &book.holds[*hold])
            .filter(|hold| hold.from <= at && hold.end > at)
            .collect();
        let has = said.jobs.get(job).copied();
        let of_last = |last: Option<&Hold<'_>>| {
            let hold = last?;
            let process = book.processes.get(book.life(hold).who)?;
            Some([Some(hold.add), hold.delete, hold.drop.or(process.killed.map(|(_, line)| line))])
        };
        if let Some(there) = book.operations.is_there(job, at, at) {
            let mut lost = |text: String| {
                let lines = [Some(there.ask), there.answer, has, Some(said.line)];
                let lines = lines.into_iter().chain(of_last(last).into_iter().flatten());
                found.push(Violation::new(Kind::JobLost, text, lines));
            };
            match held[..] {
                _ if has.is_none() => lost(format!("{job} was added, and the cluster does not have it")),
                [] => lost(format!("{job} has no owner")),
                [hold] => {
                    if book.told_at(hold).is_some_and(|told| told <= at) {
                        lost(format!(
                            "{job} is only held by worker {}, which was told to let go",
                            book.life(hold).worker
                        ));
                    } else if let Some(set) = book.operations.payload(job)
                        && let (seen, has) = book.payload_at(hold, at)
                        && set.payload.is_some_and(|payload| payload != has)
                    {
                        let text = format!(
                            "{job}: worker {} has the payload {}, the last was {}",
                            book.life(hold).worker,
                            has,
                            set.payload.unwrap_or_default()
                        );
                        let lines = [Some(set.ask), set.answer, Some(seen)];
                        found.push(Violation::new(Kind::StalePayload, text, lines));
                    }
                }
                [first, .., second] => {
                    let text = format!("{job} has {} owners", held.len());
                    let lines = [Some(first.add), first.told, first.delete, Some(second.add)];
                    found.push(Violation::new(Kind::TwoHolders, text, lines));
                }
            }
        } else if let Some(gone) = book.operations.is_gone(job, at).filter(|_| book.operations.knows(job)) {
            if has.is_some() || !held.is_empty() {
                let text = format!(
                    "{job} was deleted; the cluster has it: {}; owners: {}",
                    if has.is_some() { "yes" } else { "no" },
                    held.len()
                );
                let lines = [Some(gone.ask), gone.answer, has, held.first().map(|hold| hold.add)];
                found.push(Violation::new(Kind::JobNotGone, text, lines));
            }
        } else if let (Some(hold), None) = (held.first(), has) {
            let text =
                format!("worker {} has {job}, and the cluster does not have it", book.life(hold).worker);
            found.push(Violation::new(Kind::JobNotGone, text, [Some(hold.add), Some(said.line)]));
        } else if let (Some(has), None) = (has, held.first()) {
            let text = format!("the cluster has {job}, and it has no owner");
            found.push(Violation::new(Kind::JobLost, text, [Some(has), Some(said.line)]));
        } else if let (Some(hold), Some(has)) = (held.first(), has)
            && book.operations.on(job).all(|op| op.payload.is_none())
            && !hold.payloads.iter().any(|(_, payload)| book.operations.unknown.contains(payload))
        {
            let text = format!("nobody ever added {job}");
            found.push(Violation::new(Kind::JobNotGone, text, [Some(hold.add), Some(has)]));
        }
    }
    for hold in book.holds.iter().filter(|hold| hold.from <= at && hold.end > at) {
        let told = book.told_at(hold).is_some_and(|told| told <= at);
        let known = |away: &Away| not_lifted(book, hold, away, at).map(|before| (before, away.lines));
        let Some(((line, epoch), (gone, back))) = book.away.iter().find_map(known).filter(|_| !told) else {
            continue;
        };
        let text = format!("{}: worker {} has epoch {epoch} in the end", hold.job, book.life(hold).worker);
        found.push(Violation::new(Kind::EpochNotLifted, text, [Some(line), Some(gone), back]));
    }
    if said.pending > 0 {
        let text = format!("{} jobs", said.pending);
        found.push(Violation::new(Kind::Waiting, text, [Some(said.line)]));
    }
    found
}

fn said<'a>(book: &Book<'a>) -> Option<Said<'a>> {
    let line = book.entries.iter().rposition(|entry| matches!(entry.what, What::Cluster { .. }))?;
    let What::Cluster { pending, .. } = book.entries[line].what else { return None };
    let who = &book.entries[line].who;
    let before = book.entries[..line].iter().enumerate().rev().filter(|(_, entry)| entry.who == *who);
    let rows = before.take_while(|(_, entry)| !matches!(entry.what, What::Cluster { .. }));
    let jobs = rows
        .filter_map(|(line, entry)| match &entry.what {
            What::Has { job, .. } => Some((job.as_str(), line)),
            _ => None,
        })
        .collect();
    Some(Said { line, jobs, pending })
}
