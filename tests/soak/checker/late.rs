//! What must come by some time. Each disturbance that could hold it up sets the clock back to its end.

use std::cell::LazyCell;
use std::collections::HashMap;

use super::book::{Away, Book, Hold, Life, MS, NEVER, NOISE, RECOVER, is_fence, recover};
use super::history::{Us, What};
use super::operations::{Effect, Operation};
use super::{Kind, Violation};

/// On top of a lock's life: how much later a takeover may be that nothing disturbs. A heartbeat and a second.
const SLACK: Us = 1_000 * MS;

/// A process that stood still for so long may have been in somebody's way.
const LONG: Us = 100 * MS;

/// One that stood still for less than this, a heartbeat, has lost nothing by it: whatever it does is later by so much, and
/// that is all. On a busy machine there is always one.
const PAUSE: Us = 500 * MS;

/// From when to when something was in the way, and how much longer the jobs of that worker are kept for its name.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    from: Us,
    to: Us,
    grace: Us,
    /// For how long after `to` jobs may still be given to a worker that is no more.
    lasts: Us,
    /// Nothing is lost by it but the time itself.
    is_pause: bool,
}

impl Disturbance {
    fn new(from: Us, to: Us) -> Self {
        Self { from, to, grace: 0, lasts: 0, is_pause: false }
    }

    fn still(from: Us, to: Us) -> Self {
        Self { is_pause: to - from < PAUSE, ..Self::new(from, to) }
    }
}

pub(super) fn check(book: &Book<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let disturbances = disturbances(book);
    let horizon = book.entries.last().map_or(0, |entry| entry.at);
    for hold in &book.holds {
        after_a_hold(book, &disturbances, horizon, hold, &mut found);
        deleted(book, horizon, hold, &mut found);
        updated(book, horizon, hold, &mut found);
        revived(book, hold, &mut found);
        wiped(book, horizon, hold, &mut found);
        lifted(book, horizon, hold, &mut found);
    }
    for job in book.operations.jobs() {
        after_an_add(book, &disturbances, horizon, job, &mut found);
    }
    found
}

/// Everything that can keep a job from being taken over, in order.
fn disturbances(book: &Book<'_>) -> Vec<Disturbance> {
    let mut all: Vec<Disturbance> = book
        .away
        .iter()
        .map(|away| Disturbance::new(away.from, away.to + recover(away.from, away.to)))
        .collect();
    // Of each process, for how long a lock lives, and then its jobs are kept for its name.
    let mut terms: HashMap<&str, (Us, Us)> = HashMap::new();
    for life in &book.lives {
        let (ttl, grace) = terms.entry(life.who).or_default();
        (*ttl, *grace) = (life.ttl.max(*ttl), life.grace.max(*grace));
        all.extend(life.busy.iter().map(|(from, to)| Disturbance::new(*from, *to)));
        // What it was given before it went, it has given back; if its lock is lost, that lives on for a while.
        if let Some(close) = life.handlers_fenced.into_iter().chain(life.fenced).min() {
            let (at, lasts) = (book.at(close), life.ttl + life.grace);
            all.push(Disturbance { grace: life.grace, lasts, ..Disturbance::new(at, at) });
        }
    }
    for (who, (ttl, grace)) in terms {
        let Some(process) = book.processes.get(who) else { continue };
        let dead = |(at, _)| Disturbance { grace, lasts: ttl + grace, ..Disturbance::new(at, at) };
        all.extend(process.killed.map(dead));
        let long = process.still.iter().filter(|still| still.to - still.from >= LONG);
        let long = long.map(|still| Disturbance::still(still.from, still.to));
        let net = process.net.iter().map(|(from, to)| Disturbance::new(*from, to + recover(*from, *to)));
        all.extend(long.chain(net).map(|disturbance| Disturbance { grace, ..disturbance }));
    }
    all.sort_unstable_by_key(|disturbance| disturbance.from);
    all
}

/// When what should have come `bound` after `from` is late.
fn deadline(disturbances: &[Disturbance], from: Us, bound: Us) -> Us {
    let mut deadline = from + bound;
    // Up to here a pause has been made up for: two at once are one.
    let mut paused = from;
    for disturbance in disturbances {
        if disturbance.from > deadline {
            break; // they are in order
        }
        if disturbance.to + disturbance.lasts < from.saturating_sub(NOISE) {
            continue;
        }
        if disturbance.is_pause {
            deadline += disturbance.to.saturating_sub(disturbance.from.max(paused));
        } else {
            deadline = deadline.max(disturbance.to.min(NEVER) + bound + disturbance.grace);
        }
        paused = paused.max(disturbance.to);
    }
    deadline
}

/// Whether there is a worker throughout that takes what it is given.
fn has_taker(book: &Book<'_>, from: Us, to: Us, but: Option<usize>) -> bool {
    book.lives.iter().enumerate().any(|(index, life)| {
        let killed = book.processes.get(life.who).and_then(|process| process.killed).map(|(at, _)| at);
        let ends = [life.close, life.gone].into_iter().flatten().map(|line| book.at(line)).chain(killed);
        Some(index) != but
            && book.at(life.joined) <= from
            && ends.min().is_none_or(|end| end > to)
            && takes_all(life, from, to)
    })
}

fn takes_all(life: &Life<'_>, from: Us, to: Us) -> bool {
    let before = life.takes.iter().rev().find(|(at, _)| *at <= from).is_none_or(|(_, all)| *all);
    before && !life.takes.iter().any(|(at, all)| !all && (from..=to).contains(at))
}

/// A job whose holder is gone, or has let go, has another by the deadline, if it is not deleted.
fn after_a_hold(
    book: &Book<'_>,
    disturbances: &[Disturbance],
    horizon: Us,
    hold: &Hold<'_>,
    found: &mut Vec<Violation>,
) {
    let life = book.life(hold);
    let told = book.told_at(hold);
    let fenced = hold.reason.is_none_or(is_fence);
    let from = match told {
        Some(told) if !fenced => hold.end.min(told + life.release),
        _ => hold.end,
    };
    let bound = life.ttl + life.ttl / 3 + SLACK;
    // Its own process may be the one that was killed: then its jobs are kept for its name.
    let grace = if hold.drop.is_none() || fenced { life.grace } else { 0 };
    let deadline = deadline(disturbances, from, bound + grace);
    if deadline >= horizon || is_held(book, hold.job, hold.add, from, deadline) {
        return;
    }
    let Some(there) = book.operations.is_there(hold.job, from, deadline) else { return };
    if !has_taker(book, from, deadline, Some(hold.life)) {
        return;
    }
    let killed = book.processes.get(life.who).and_then(|process| process.killed).map(|(_, line)| line);
    let text = format!(
        "{}: nobody has it {} ms after worker {} let go of it or was gone",
        hold.job,
        (deadline - from) / MS,
        life.worker
    );
    let end = hold.drop.or(killed);
    let next = next_add(book, hold.job, deadline);
    let lines = [Some(there.ask), there.answer, Some(hold.add), hold.delete, end, next];
    found.push(Violation::new(Kind::LateTakeover, text, lines));
}

/// Whether somebody else has the job at `from`, or gets it by `deadline`.
fn is_held(book: &Book<'_>, job: &str, but: usize, from: Us, deadline: Us) -> bool {
    let holds = book.jobs.get(job).into_iter().flatten().map(|hold| &book.holds[*hold]);
    holds.into_iter().any(|hold| hold.add != but && hold.end > from && hold.from <= deadline)
}

fn next_add(book: &Book<'_>, job: &str, after: Us) -> Option<usize> {
    let holds = book.jobs.get(job).into_iter().flatten().map(|hold| &book.holds[*hold]);
    holds.filter(|hold| hold.from > after).map(|hold| hold.add).min()
}

/// A new job has an owner by the deadline.
fn after_an_add(
    book: &Book<'_>,
    disturbances: &[Disturbance],
    horizon: Us,
    job: &str,
    found: &mut Vec<Violation>,
) {
    let ttl = book.lives.iter().map(|life| life.ttl).max().unwrap_or(0);
    for add in book.operations.on(job) {
        if add.effect != (Effect::There { new: true }) || !add.certain {
            continue;
        }
        let deadline = deadline(disturbances, add.to, ttl + ttl / 3 + SLACK);
        if deadline >= horizon || is_held(book, job, usize::MAX, add.from, deadline) {
            continue;
        }
        if book.operations.is_there(job, add.to, deadline).is_none_or(|there| there.ask != add.ask)
            || !has_taker(book, add.from, deadline, None)
        {
            continue;
        }
        let text = format!("{job}: nobody has it {} ms after it was added", (deadline - add.to) / MS);
        let lines = [Some(add.ask), add.answer, next_add(book, job, deadline)];
        found.push(Violation::new(Kind::LateTakeover, text, lines));
    }
}

/// The holder of a job that was deleted is told.
fn deleted(book: &Book<'_>, horizon: Us, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let life = book.life(hold);
    let deletes = book.operations.on(hold.job).filter(|op| {
        op.certain && matches!(op.effect, Effect::Gone { .. }) && op.from > hold.from && op.to < hold.end
    });
    let Some(delete) = deletes.min_by_key(|op| op.to) else { return };
    let Some(answer) = delete.answer else { return };
    if matches!(book.entries[answer].what, What::Back { .. }) {
        return; // a wipe: see `wiped`
    }
    let own = own_disturbances(book, life);
    let deadline = deadline(&own, delete.to, life.ttl / 3 + SLACK);
    if deadline >= horizon.min(hold.end) || book.told_at(hold).is_some_and(|told| told <= deadline) {
        return;
    }
    let text = format!(
        "{}: worker {} has not been told {} ms after it was deleted",
        hold.job,
        life.worker,
        (deadline - delete.to) / MS
    );
    let lines = [Some(hold.add), Some(delete.ask), delete.answer, hold.told, hold.delete];
    found.push(Violation::new(Kind::DeleteNotDelivered, text, lines));
}

/// The holder of a job that was given another payload gets it.
fn updated(book: &Book<'_>, horizon: Us, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let life = book.life(hold);
    let ends = book.told_at(hold).unwrap_or(NEVER).min(hold.end).min(horizon);
    let updates = book
        .operations
        .on(hold.job)
        .filter(|op| op.certain && op.effect == Effect::Changed && op.from > hold.from && op.to < ends);
    let own = LazyCell::new(|| disturbances_of_consumer(book, life));
    for update in updates {
        let deadline = deadline(&own, update.to, life.ttl / 3 + SLACK);
        if deadline >= ends {
            continue;
        }
        // Another update may have come before or after it; nothing that could have moved the job.
        let others =
            |op: &&Operation<'_>| op.ask != update.ask && op.to >= update.from && op.from <= deadline;
        let (seen, has) = book.payload_at(hold, deadline);
        let explains = |op: &Operation<'_>| match op.effect {
            Effect::Changed => op.payload == Some(has),
            Effect::There { new } => new || !op.certain,
            Effect::Gone { .. } => true,
        };
        if update.payload == Some(has) || book.operations.on(hold.job).filter(others).any(explains) {
            continue;
        }
        let text = format!(
            "{}: worker {} has not got the payload {} {} ms after it was stored",
            hold.job,
            life.worker,
            update.payload.unwrap_or_default(),
            (deadline - update.to) / MS
        );
        let lines = [Some(seen), Some(update.ask), update.answer];
        found.push(Violation::new(Kind::StalePayload, text, lines));
    }
}

/// A job that is gone, and was let go of, is given to nobody.
fn revived(book: &Book<'_>, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let Some(gone) = book.operations.is_gone(hold.job, hold.from).filter(|gone| gone.over) else { return };
    let Some(answer) = gone.answer.filter(|_| !book.is_excused(hold)) else { return };
    let text = format!("{}: worker {} gets it, and it is gone", hold.job, book.life(hold).worker);
    found.push(Violation::new(Kind::Revived, text, [Some(gone.ask), Some(answer), Some(hold.add)]));
}

/// Who holds a job of a cluster that was wiped gives it up.
fn wiped(book: &Book<'_>, horizon: Us, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let life = book.life(hold);
    let Some((wipe, back)) = book.wipe_of(hold) else { return };
    let mut own = own_disturbances(book, life);
    own.retain(|disturbance| disturbance.from != wipe.from); // that one is the bound's own
    let deadline = deadline(&own, back, life.ttl + RECOVER);
    if deadline >= horizon.min(hold.end) || book.told_at(hold).is_some_and(|told| told <= deadline) {
        return;
    }
    let text = format!(
        "{}: worker {} has not been told {} ms after the server was back without its data",
        hold.job,
        life.worker,
        (deadline - back) / MS
    );
    let lines = [Some(hold.add), Some(wipe.lines.0), wipe.lines.1, hold.told, hold.delete];
    found.push(Violation::new(Kind::HeldAfterWipe, text, lines));
}

/// Another server process may have forgotten later assignments: those that go on have a larger epoch from then on.
fn lifted(book: &Book<'_>, horizon: Us, hold: &Hold<'_>, found: &mut Vec<Violation>) {
    let life = book.life(hold);
    let ends = book.told_at(hold).unwrap_or(NEVER).min(hold.end).min(horizon);
    let own = LazyCell::new(|| disturbances_of_consumer(book, life));
    let outlived = |away: &&Away| away.to < ends && not_lifted(book, hold, away, away.to).is_some();
    for away in book.away.iter().filter(outlived) {
        let deadline = deadline(&own, away.to, life.ttl / 3 + SLACK);
        let Some((line, before)) = not_lifted(book, hold, away, deadline).filter(|_| deadline < ends) else {
            continue;
        };
        let text = format!(
            "{}: worker {} has epoch {before} still {} ms after the server was back",
            hold.job,
            life.worker,
            (deadline - away.to) / MS
        );
        let lines = [Some(line), Some(away.lines.0), away.lines.1];
        found.push(Violation::new(Kind::EpochNotLifted, text, lines));
    }
}

/// The epoch that a hold had when its server process ended, if by `until` it has no larger one from the next.
pub(super) fn not_lifted(book: &Book<'_>, hold: &Hold<'_>, away: &Away, until: Us) -> Option<(usize, u64)> {
    if !away.killed || away.wiped || hold.from >= away.from {
        return None;
    }
    let epochs = || [(hold.add, hold.epoch)].into_iter().chain(hold.epochs.iter().copied());
    let before = epochs().filter(|(line, _)| book.at(*line) < away.from).max_by_key(|(_, epoch)| *epoch)?;
    let has_another = epochs().any(|(line, epoch)| epoch > before.1 && book.at(line) <= until);
    (!has_another).then_some(before)
}

/// What keeps one worker from hearing of something, in order.
fn own_disturbances(book: &Book<'_>, life: &Life<'_>) -> Vec<Disturbance> {
    let process = book.processes.get(life.who);
    let still = process.iter().flat_map(|process| &process.still);
    let still = still.map(|still| Disturbance::still(still.from, still.to));
    let net = process.iter().flat_map(|process| process.net.iter().copied());
    let net = net.chain(book.away.iter().map(|away| (away.from, away.to)));
    let net = net.map(|(from, to)| Disturbance::new(from, to + recover(from, to)));
    let mut own: Vec<_> = still.chain(net).collect();
    own.sort_unstable_by_key(|disturbance| disturbance.from);
    own
}

/// What keeps its consumer from seeing something, in order: that it does not look, too.
fn disturbances_of_consumer(book: &Book<'_>, life: &Life<'_>) -> Vec<Disturbance> {
    let mut own = own_disturbances(book, life);
    own.extend(life.busy.iter().map(|(from, to)| Disturbance::new(*from, *to)));
    own.sort_unstable_by_key(|disturbance| disturbance.from);
    own
}
