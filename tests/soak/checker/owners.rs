//! One owner: no two holds of a job at once, a larger epoch for each later one, and nobody left when a deletion that was
//! waited for is over.

use super::book::{Book, Hold, MS, NEVER, RECOVER, is_fence};
use super::operations::Effect;
use super::{Kind, Violation};

pub(super) fn check(book: &Book<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (job, holds) in &book.jobs {
        for (index, later) in holds.iter().enumerate() {
            for earlier in &holds[..index] {
                let (earlier, later) = (&book.holds[*earlier], &book.holds[*later]);
                overlap(book, job, earlier, later, &mut found);
                epochs(book, job, earlier, later, &mut found);
            }
        }
    }
    for job in book.operations.jobs() {
        waited(book, job, &mut found);
    }
    for hold in &book.holds {
        said(book, hold, &mut found);
    }
    found
}

fn overlap(book: &Book<'_>, job: &str, earlier: &Hold<'_>, later: &Hold<'_>, found: &mut Vec<Violation>) {
    if earlier.end <= later.from {
        return;
    }
    let (ones, others) = (book.counts(earlier), book.counts(later));
    let overlaps =
        ones.iter().flat_map(|one| others.iter().map(|other| (one.0.max(other.0), one.1.min(other.1))));
    let Some((from, to)) = overlaps.filter(|(from, to)| from < to).min() else { return };
    let told = book.told_at(earlier).filter(|told| *told <= from);
    let (first, second) = (book.life(earlier).worker, book.life(later).worker);
    let long = if to >= NEVER { "and to the end".to_owned() } else { format!("for {:.3} ms", ms(to - from)) };
    let (kind, text) = match told {
        None => (
            Kind::TwoHolders,
            format!("{job}: worker {first} still has it when worker {second} gets it, {long}"),
        ),
        Some(told) => (
            Kind::TwoHoldersWithinMargin,
            format!(
                "{job}: worker {first} was told {:.3} ms before worker {second} gets it, and has time until later, {long}",
                ms(from - told)
            ),
        ),
    };
    let killed = earlier.drop.is_none().then(|| killed(book, earlier)).flatten();
    let lines = [Some(earlier.add), earlier.told, earlier.delete, earlier.drop, killed, Some(later.add)];
    found.push(Violation::new(kind, text, lines));
}

fn killed(book: &Book<'_>, hold: &Hold<'_>) -> Option<usize> {
    let (_, line) = book.processes.get(book.life(hold).who)?.killed?;
    Some(line)
}

fn epochs(book: &Book<'_>, job: &str, earlier: &Hold<'_>, later: &Hold<'_>, found: &mut Vec<Violation>) {
    // A worker that does not know yet that it is wrong: the epoch is how others know.
    if book.is_excused(later) {
        return;
    }
    let highest =
        earlier.epochs.iter().copied().chain([(earlier.add, earlier.epoch)]).max_by_key(|(_, e)| *e);
    let Some((line, epoch)) = highest.filter(|(_, epoch)| *epoch >= later.epoch) else { return };
    let (first, second) = (book.life(earlier).worker, book.life(later).worker);
    let text = format!("{job}: worker {first} had epoch {epoch}, worker {second} gets {}", later.epoch);
    found.push(Violation::new(Kind::EpochBack, text, [Some(line), Some(later.add)]));
}

/// When a deletion that was waited for is over, nobody has the job by an assignment from before.
fn waited(book: &Book<'_>, job: &str, found: &mut Vec<Violation>) {
    let waits = book
        .operations
        .on(job)
        .filter(|op| op.waited && op.certain && matches!(op.effect, Effect::Gone { .. }));
    let holds = book.jobs.get(job).map_or(&[][..], Vec::as_slice);
    for wait in waits {
        for hold in holds.iter().map(|hold| &book.holds[*hold]).filter(|hold| hold.from < wait.from) {
            if book.counts(hold).iter().any(|(from, to)| *from < wait.to && wait.to < *to) {
                let text = format!(
                    "{job}: worker {} still has it when its deletion is said to be over",
                    book.life(hold).worker
                );
                let lines = [Some(hold.add), Some(wait.ask), hold.told, hold.delete, hold.drop, wait.answer];
                found.push(Violation::new(Kind::HeldAfterWait, text, lines));
            }
        }
    }
}

/// A handler that holds on for longer than the release timeout may overlap the next owner; then its stream says so.
fn said(book: &Book<'_>, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let life = book.life(hold);
    let (Some(told), Some(reason)) = (book.told_at(hold), hold.reason) else { return };
    // A stream that was read to its end, of a worker that had not lost its lock by then, nor its consumer.
    let (Some(end), false, None) = (life.end, is_fence(reason), life.gone) else { return };
    let passed = told + life.release;
    let lost = book.lost(life).unwrap_or(NEVER);
    if hold.end <= passed || lost <= passed + RECOVER || hold.said.is_some() || book.at(end) < passed {
        return;
    }
    let next = book.jobs.get(hold.job).into_iter().flatten().map(|next| &book.holds[*next]);
    let Some(next) = next.filter(|next| next.from > told).find(|next| next.from < hold.end) else { return };
    let text = format!(
        "{}: worker {} held on for {} ms, worker {} got it meanwhile",
        hold.job,
        life.worker,
        (hold.end.min(book.at(end)) - told) / MS,
        book.life(next).worker
    );
    let lines = [Some(hold.add), hold.told, hold.delete, Some(next.add), hold.drop, Some(end)];
    found.push(Violation::new(Kind::OverlapNotSaid, text, lines));
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
