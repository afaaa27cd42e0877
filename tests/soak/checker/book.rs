//! A history, sorted out: who lived when, who held what from when to when, what was disturbed.

use std::collections::{BTreeMap, HashMap};

use super::history::{Entry, Us, What};
use super::operations::Operations;

pub(crate) const MS: Us = 1_000;

/// What the clocks and the scheduler of a machine that is not idle may cost.
pub(super) const NOISE: Us = 30 * MS;

/// A process that goes on after it stood still has told its consumers by then.
pub(super) const WAKE: Us = 250 * MS;

/// After a disturbance of the network or the server a process is connected again by then.
pub(super) const RECOVER: Us = 3_500 * MS;

/// Later than everything.
pub(super) const NEVER: Us = Us::MAX / 4;

/// A worker, from its join on, as its process saw it.
#[derive(Debug)]
pub(super) struct Life<'a> {
    pub(super) who: &'a str,
    pub(super) worker: u64,
    pub(super) joined: usize,
    pub(super) ttl: Us,
    pub(super) margin: Us,
    pub(super) release: Us,
    pub(super) grace: Us,
    pub(super) lenient: bool,
    pub(super) close: Option<usize>,
    pub(super) end: Option<usize>,
    pub(super) gone: Option<usize>,
    /// The first line that says that the lock is over.
    pub(super) fenced: Option<usize>,
    /// When the consumer did not poll.
    pub(super) busy: Vec<(Us, Us)>,
    /// From when on it takes whatever comes, or does not.
    pub(super) takes: Vec<(Us, bool)>,
    /// What its consumer saw, in order.
    pub(super) events: Vec<usize>,
}

/// An assignment in the hands of a consumer.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    pub(super) life: usize,
    pub(super) job: &'a str,
    pub(super) epoch: u64,
    pub(super) add: usize,
    pub(super) from: Us,
    /// The lines with the later epochs of the same assignment.
    pub(super) epochs: Vec<(usize, u64)>,
    pub(super) payload: &'a str,
    pub(super) told: Option<usize>,
    pub(super) delete: Option<usize>,
    pub(super) reason: Option<&'a str>,
    pub(super) drop: Option<usize>,
    /// The stream said that it was passed over.
    pub(super) said: Option<usize>,
    /// When its last handle was dropped, or its process ended.
    pub(super) end: Us,
}

/// What is found again while the lines are read.
#[derive(Default)]
struct Desk<'a> {
    /// The newest life of each process.
    current: HashMap<&'a str, usize>,
    /// The holds that are not dropped, by process, job and epoch.
    open: HashMap<(&'a str, &'a str, u64), usize>,
    /// The holds that are not deleted, by life and job.
    latest: HashMap<(usize, &'a str), usize>,
}

/// A process, and when it was not itself.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) killed: Option<(Us, usize)>,
    /// It stood still: from, to, and the lines of that.
    pub(super) still: Vec<Still>,
    /// Its connections were disturbed.
    pub(super) net: Vec<(Us, Us)>,
}

/// A time in which a process did not run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Still {
    pub(super) from: Us,
    pub(super) to: Us,
    /// Within `from` and `to`: when it surely stood still. Empty if it is only known by the process itself.
    pub(super) surely: (Us, Us),
    pub(super) lines: (usize, Option<usize>),
}

/// The server was away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    pub(super) from: Us,
    pub(super) to: Us,
    pub(super) wiped: bool,
    pub(super) lines: (usize, Option<usize>),
}

/// Everything that the checks ask about.
#[derive(Debug)]
pub(crate) struct Book<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) lives: Vec<Life<'a>>,
    pub(super) holds: Vec<Hold<'a>>,
    /// Each job's holds, by when they began.
    pub(super) jobs: BTreeMap<&'a str, Vec<usize>>,
    pub(super) processes: HashMap<&'a str, Process>,
    pub(super) away: Vec<Away>,
    pub(super) operations: Operations<'a>,
    pub(super) died: Vec<usize>,
    pub(crate) final_at: Option<Us>,
}

impl<'a> Book<'a> {
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        let mut book = Self {
            entries,
            lives: Vec::new(),
            holds: Vec::new(),
            jobs: BTreeMap::new(),
            processes: HashMap::new(),
            away: Vec::new(),
            operations: Operations::default(),
            died: Vec::new(),
            final_at: None,
        };
        let mut desk = Desk::default();
        for (line, entry) in entries.iter().enumerate() {
            book.process(line, entry);
            book.server(line, entry);
            book.worker(line, entry, &mut desk);
        }
        for hold in &mut book.holds {
            let killed = book.processes.get(book.lives[hold.life].who).and_then(|process| process.killed);
            hold.end = hold.end.min(killed.map_or(NEVER, |(at, _)| at));
        }
        for hold in &book.holds {
            if let Some(told) = hold.told.filter(|_| hold.reason.is_some_and(is_fence)) {
                let fenced = &mut book.lives[hold.life].fenced;
                *fenced = Some(fenced.map_or(told, |line| line.min(told)));
            }
        }
        book.operations = Operations::new(&book);
        for (index, hold) in book.holds.iter().enumerate() {
            book.jobs.entry(hold.job).or_default().push(index);
        }
        book
    }

    fn process(&mut self, line: usize, entry: &'a Entry) {
        let process = self.processes.entry(&entry.who).or_default();
        let at = entry.at;
        match &entry.what {
            What::Killed {} | What::Died { .. } => {
                process.killed.get_or_insert((at, line));
                if matches!(entry.what, What::Died { .. }) {
                    self.died.push(line);
                }
            }
            What::Stopped { since } => process.still.push(Still {
                from: *since,
                to: NEVER,
                surely: (at, NEVER),
                lines: (line, None),
            }),
            What::Continued { since } => {
                if let Some(still) = process.still.iter_mut().rev().find(|still| still.to == NEVER) {
                    (still.to, still.surely.1, still.lines.1) = (at, *since, Some(line));
                }
            }
            What::Stalled { since } => {
                process.still.push(Still { from: *since, to: at, surely: (at, at), lines: (line, None) });
            }
            What::Net { .. } => process.net.push((at, NEVER)),
            What::NetEnd {} => {
                if let Some(net) = process.net.last_mut() {
                    net.1 = at;
                }
            }
            What::Final {} => self.final_at = Some(at),
            _ => {}
        }
    }

    fn server(&mut self, line: usize, entry: &Entry) {
        match &entry.what {
            What::Away { .. } => {
                self.away.push(Away { from: entry.at, to: NEVER, wiped: false, lines: (line, None) });
            }
            What::Back { kept } => {
                if let Some(away) = self.away.last_mut() {
                    (away.to, away.wiped, away.lines.1) = (entry.at, !kept, Some(line));
                }
            }
            _ => {}
        }
    }

    fn worker(&mut self, line: usize, entry: &'a Entry, desk: &mut Desk<'a>) {
        let (who, at) = (&*entry.who, entry.at);
        if let What::Joined { worker, ttl, margin, release, grace, lenient } = entry.what {
            desk.current.insert(who, self.lives.len());
            self.lives.push(Life {
                who,
                worker,
                joined: line,
                ttl,
                margin,
                release,
                grace,
                lenient,
                close: None,
                end: None,
                gone: None,
                fenced: None,
                busy: Vec::new(),
                takes: Vec::new(),
                events: Vec::new(),
            });
            return;
        }
        match &entry.what {
            What::Told { job, epoch, .. } => {
                if let Some(hold) = desk.open.get(&(who, job.as_str(), *epoch)) {
                    self.holds[*hold].told.get_or_insert(line);
                }
                return;
            }
            What::Drop { job, epoch, .. } => {
                if let Some(hold) = desk.open.remove(&(who, job.as_str(), *epoch)) {
                    let hold = &mut self.holds[hold];
                    (hold.drop, hold.end) = (Some(line), at);
                }
                return;
            }
            _ => {}
        }
        let Some(life) = desk.current.get(who).copied() else { return };
        match &entry.what {
            What::Add { job, epoch, payload, .. } => {
                desk.open.insert((who, job, *epoch), self.holds.len());
                desk.latest.insert((life, job), self.holds.len());
                self.holds.push(Hold {
                    life,
                    job,
                    epoch: *epoch,
                    add: line,
                    from: at,
                    epochs: Vec::new(),
                    payload,
                    told: None,
                    delete: None,
                    reason: None,
                    drop: None,
                    said: None,
                    end: NEVER,
                });
            }
            What::Update { job, epoch, payload, .. } => {
                if let Some(hold) = desk.latest.get(&(life, job.as_str())) {
                    let hold = &mut self.holds[*hold];
                    hold.epochs.push((line, *epoch));
                    hold.payload = payload;
                }
            }
            What::Delete { job, epoch, reason, .. } => {
                if let Some(hold) = desk.latest.remove(&(life, job.as_str())) {
                    let hold = &mut self.holds[hold];
                    hold.epochs.push((line, *epoch));
                    (hold.delete, hold.reason) = (Some(line), Some(reason.as_str()));
                }
                if is_fence(reason) {
                    self.lives[life].fenced.get_or_insert(line);
                }
            }
            What::Error { kind, job: Some(job), .. } if kind == "ReleaseTimeout" => {
                // Of the holds of that job the oldest that is not dropped and not said.
                let found = self.holds.iter_mut().find(|hold| {
                    hold.life == life && hold.job == job && hold.said.is_none() && hold.end > at
                });
                if let Some(hold) = found {
                    hold.said = Some(line);
                }
            }
            What::Close { reason, .. } => {
                self.lives[life].close.get_or_insert(line);
                if is_fence(reason) {
                    self.lives[life].fenced.get_or_insert(line);
                }
            }
            What::End { .. } => self.lives[life].end = Some(line),
            What::Gone { .. } => self.lives[life].gone = Some(line),
            What::Busy { .. } => self.lives[life].busy.push((at, NEVER)),
            What::Free { .. } => {
                if let Some(busy) = self.lives[life].busy.last_mut() {
                    busy.1 = at;
                }
            }
            What::Takes { all, .. } => self.lives[life].takes.push((at, *all)),
            _ => {}
        }
        if matches!(
            entry.what,
            What::Add { .. }
                | What::Update { .. }
                | What::Delete { .. }
                | What::Error { .. }
                | What::Close { .. }
                | What::End { .. }
        ) {
            self.lives[life].events.push(line);
        }
    }

    pub(super) fn at(&self, line: usize) -> Us {
        self.entries[line].at
    }

    pub(super) fn life(&self, hold: &Hold<'_>) -> &Life<'a> {
        &self.lives[hold.life]
    }

    /// When the holder knew that it has to stop.
    pub(super) fn told_at(&self, hold: &Hold<'_>) -> Option<Us> {
        hold.told.into_iter().chain(hold.delete).map(|line| self.at(line)).min()
    }

    /// The earliest that something may have happened which a process noted at `at`: it may have stood still between.
    fn earliest(&self, who: &str, busy: &[(Us, Us)], at: Us) -> Us {
        let still = self.processes.get(who).map_or(&[][..], |process| &process.still);
        let windows = || still.iter().map(|still| (still.from, still.to)).chain(busy.iter().copied());
        let mut earliest = at.saturating_sub(NOISE);
        // One such time may follow the other before anything is noted.
        while let Some((from, _)) =
            windows().find(|(from, to)| *from < earliest && earliest <= to.saturating_add(WAKE))
        {
            earliest = from;
        }
        earliest
    }

    /// Until when a hold counts, however long the handler goes on: see the table in `checker`.
    pub(super) fn counts_until(&self, hold: &Hold<'_>) -> Us {
        let life = self.life(hold);
        let mut until = hold.end;
        if let Some(told) = self.told_at(hold) {
            let earliest = self.earliest(life.who, &[], told);
            let gone = life.gone.map(|line| self.at(line));
            let allowed = match (hold.reason, gone) {
                (Some(reason), None) if !is_fence(reason) => life.release,
                // The lock may have ended without a word to a consumer that is gone.
                (Some(reason), Some(gone)) if !is_fence(reason) => {
                    life.release.min(gone.saturating_sub(earliest) + life.margin)
                }
                _ => life.margin,
            };
            until = until.min(earliest + allowed);
        } else if let Some((killed, _)) = self.processes.get(life.who).and_then(|process| process.killed) {
            // It was killed while it stood still: nobody told it, nobody could.
            let earliest = self.earliest(life.who, &[], killed);
            if earliest < killed.saturating_sub(NOISE) {
                until = until.min(earliest + life.margin);
            }
        }
        if let Some(lost) = self.lost(life) {
            until = until.min(lost + life.margin);
        }
        if let Some((wiped, _)) = self.wipe_of(hold) {
            until = until.min(wiped.from);
        }
        until
    }

    /// The earliest that the worker may have given up because of its lock.
    fn lost(&self, life: &Life<'_>) -> Option<Us> {
        if let Some(fenced) = life.fenced {
            return Some(self.earliest(life.who, &life.busy, self.at(fenced)));
        }
        // Its consumer was gone, or dead, before it could see that: it may have been in any trouble that it saw nothing
        // new after.
        let process = self.processes.get(life.who)?;
        let gone = life.gone.map(|line| self.at(line));
        let end = gone
            .into_iter()
            .chain(process.killed.map(|(at, _)| at))
            .min()
            .filter(|_| life.close.is_none())?;
        let speaks =
            |line: &&usize| matches!(self.entries[**line].what, What::Add { .. } | What::Update { .. });
        let last = life.events.iter().rev().find(speaks).map_or(0, |line| self.at(*line));
        let still = process.still.iter().map(|still| (still.from, still.to));
        let away = self.away.iter().map(|away| (away.from, away.to));
        let trouble = still.chain(process.net.iter().copied()).chain(away);
        let trouble = trouble.filter(|(from, to)| to - from > life.margin && *to > last && *from < end);
        trouble.map(|(from, _)| from).min()
    }

    /// The wipe of the cluster that the holder is a member of, and when it was over.
    pub(super) fn wipe_of(&self, hold: &Hold<'_>) -> Option<(Away, Us)> {
        let joined = self.at(self.life(hold).joined);
        let wipe = self.away.iter().find(|away| away.wiped && away.from > joined)?;
        Some((*wipe, wipe.to))
    }

    /// When a hold counts: parts of the time from its `Add` on.
    pub(super) fn counts(&self, hold: &Hold<'_>) -> Vec<(Us, Us)> {
        let until = self.counts_until(hold);
        let mut parts = vec![(hold.from, until)];
        for (from, to) in self.excuses(self.life(hold)) {
            parts = parts
                .into_iter()
                .flat_map(|(start, end)| [(start, end.min(from)), (start.max(to), end)])
                .filter(|(start, end)| start < end)
                .collect();
        }
        parts.retain(|(start, end)| start < end);
        parts
    }

    /// When a lenient worker may be wrong: it was cut off for longer than its lock is sure to last.
    pub(super) fn excuses(&self, life: &Life<'_>) -> Vec<(Us, Us)> {
        if !life.lenient {
            return Vec::new();
        }
        let process = self.processes.get(life.who);
        let still =
            process.iter().flat_map(|process| process.still.iter().map(|still| (still.from, still.to)));
        let net = process.iter().flat_map(|process| process.net.iter().copied());
        let away = self.away.iter().map(|away| (away.from, away.to));
        let windows = still.chain(net).chain(away).filter(|(from, to)| to - from > life.ttl / 2);
        windows.map(|(from, to)| (from + life.ttl / 2, to.saturating_add(RECOVER))).collect()
    }
}

/// Whether a `Delete` or `Close` for this reason means that the lock is over.
pub(super) fn is_fence(reason: &str) -> bool {
    matches!(reason, "LockExpired" | "ClusterReset")
}
