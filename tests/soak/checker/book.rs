//! A history, sorted out: who lived when, who held what from when to when, what was disturbed.

use std::collections::{BTreeMap, HashMap};

use super::history::{Entry, Us, What};
use super::operations::Operations;

pub(crate) const MS: Us = 1_000;

/// What the clocks and the scheduler of a machine that is not idle may cost.
pub(super) const NOISE: Us = 30 * MS;

/// A process that goes on after it stood still has told its consumers by then.
pub(super) const WAKE: Us = 250 * MS;

/// After a disturbance of the network or the server a process is connected again by then, however long it was.
pub(super) const RECOVER: Us = 3_500 * MS;

/// The same for a disturbance of that length: the pauses between two tries grow with it.
pub(super) fn recover(from: Us, to: Us) -> Us {
    RECOVER.min(1_200 * MS + to.saturating_sub(from))
}

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
    /// The first line by which its consumer knew that the lock is over.
    pub(super) fenced: Option<usize>,
    /// The first by which a handler knew: those are told whether or not the consumer looks.
    pub(super) handlers_fenced: Option<usize>,
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
    /// What the consumer has got as its payload, each with its line.
    pub(super) payloads: Vec<(usize, &'a str)>,
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
    /// It is another process that is back.
    pub(super) killed: bool,
    /// What was written since then may be lost.
    pub(super) lost_since: Option<Us>,
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
        book.end_with_whom_it_was_about();
        for hold in &book.holds {
            if let Some(told) = hold.told.filter(|_| hold.reason.is_some_and(is_fence)) {
                let fenced = &mut book.lives[hold.life].handlers_fenced;
                *fenced = Some(fenced.map_or(told, |line| line.min(told)));
            }
        }
        book.operations = Operations::new(&book);
        for (index, hold) in book.holds.iter().enumerate() {
            book.jobs.entry(hold.job).or_default().push(index);
        }
        book
    }

    /// Nobody says of the dead that they look again, run again or are connected again: what is not over by then would be
    /// in everybody's way to the end of the history.
    fn end_with_whom_it_was_about(&mut self) {
        for process in self.processes.values_mut() {
            let Some((killed, _)) = process.killed else { continue };
            process.still.iter_mut().for_each(|still| still.to = still.to.min(killed.max(still.from)));
            process.net.iter_mut().for_each(|net| net.1 = net.1.min(killed.max(net.0)));
        }
        for life in &mut self.lives {
            let killed = self.processes.get(life.who).and_then(|process| process.killed).map(|(at, _)| at);
            let last =
                [life.end, life.gone].into_iter().flatten().map(|line| self.entries[line].at).chain(killed);
            let last = last.min().unwrap_or(NEVER);
            life.busy.iter_mut().for_each(|busy| busy.1 = busy.1.min(last.max(busy.0)));
        }
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
            // One kind may follow on the other.
            What::Net { .. } if process.net.last().is_some_and(|(_, to)| *to == NEVER) => {}
            What::Net { .. } => process.net.push((at, NEVER)),
            What::NetEnd {} => {
                if let Some(net) = process.net.last_mut().filter(|(_, to)| *to == NEVER) {
                    net.1 = at;
                }
            }
            What::Final {} => self.final_at = Some(at),
            _ => {}
        }
    }

    fn server(&mut self, line: usize, entry: &Entry) {
        match &entry.what {
            What::Away { why } => {
                self.away.push(Away {
                    from: entry.at,
                    to: NEVER,
                    wiped: false,
                    killed: why == "killed",
                    lost_since: None,
                    lines: (line, None),
                });
            }
            What::Back { kept } => {
                if let Some(away) = self.away.last_mut() {
                    (away.to, away.wiped, away.lines.1) = (entry.at, !kept, Some(line));
                }
            }
            What::BackOlder { since } => {
                if let Some(away) = self.away.last_mut() {
                    (away.to, away.lost_since, away.lines.1) = (entry.at, Some(*since), Some(line));
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
                handlers_fenced: None,
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
                    payloads: vec![(line, payload)],
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
                    hold.payloads.push((line, payload));
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
                // Of the holds of that job the oldest that was out for so long, and of which it was not said yet; if
                // there is none, the newest that was almost, or was by half: the release timeout runs from when the worker was
                // to give the job up, and handlers of a process that is held up hear of it later.
                let (entries, release) = (self.entries, self.lives[life].release);
                let is_out = |hold: &Hold<'_>, noise: Us| {
                    let told = hold.told.into_iter().chain(hold.delete).map(|line| entries[line].at).min();
                    let out = told.is_some_and(|told| hold.end.min(at) + noise >= told + release);
                    hold.life == life && hold.job == job && hold.said.is_none() && out
                };
                let surely = self.holds.iter().position(|hold| is_out(hold, 0));
                let nearly = |noise| self.holds.iter().rposition(|hold| is_out(hold, noise));
                let found = surely.or_else(|| nearly(NOISE)).or_else(|| nearly(release / 2));
                if let Some(hold) = found {
                    self.holds[hold].said = Some(line);
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
                if let Some(busy) = self.lives[life].busy.last_mut().filter(|(_, to)| *to == NEVER) {
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

    /// What the consumer has as the job's payload at that time.
    pub(super) fn payload_at<'b>(&self, hold: &'b Hold<'a>, at: Us) -> (usize, &'b str) {
        let seen = hold.payloads.iter().rev().find(|(line, _)| self.at(*line) <= at);
        *seen.unwrap_or(&hold.payloads[0])
    }

    pub(super) fn life(&self, hold: &Hold<'_>) -> &Life<'a> {
        &self.lives[hold.life]
    }
}

/// Whether a `Delete` or `Close` for this reason means that the lock is over.
pub(super) fn is_fence(reason: &str) -> bool {
    matches!(reason, "LockExpired" | "ClusterReset")
}
