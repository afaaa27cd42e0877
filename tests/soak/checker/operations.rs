//! What was asked of the cluster, and what follows from the answers: which jobs must be there, and which must not.
//!
//! An operation took effect at some moment between its asking and its answer, or, if it failed without saying
//! whether, at such a moment or never. Two that overlap may have come in either order: then nothing is known.

use std::collections::{HashMap, HashSet};

use super::book::{Book, MS, NEVER, NOISE};
use super::history::{Us, What};

/// Nobody waits for longer for an answer; what was given up on is not done later.
const PATIENCE: Us = 3_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The job is there: by this, or already.
    There { new: bool },
    /// It is not.
    Gone {
        /// Only the life that the caller had in its hands is meant.
        own: bool,
    },
    /// It has another payload.
    Changed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Operation<'a> {
    pub(super) effect: Effect,
    /// Whether it took effect.
    pub(super) certain: bool,
    pub(super) from: Us,
    pub(super) to: Us,
    pub(super) payload: Option<&'a str>,
    pub(super) ask: usize,
    pub(super) answer: Option<usize>,
    /// The answer was to wait for the end of the job's assignment too.
    pub(super) waited: bool,
    /// The answer says that nobody holds the job any more.
    pub(super) over: bool,
}

#[derive(Debug, Default)]
pub(super) struct Operations<'a> {
    by_job: HashMap<&'a str, Vec<Operation<'a>>>,
    /// Each wipe of the cluster, as an operation on every job.
    wipes: Vec<Operation<'a>>,
    /// Payloads of jobs that may have been added under an id that nobody was told.
    pub(super) unknown: HashSet<&'a str>,
}

impl<'a> Operations<'a> {
    pub(super) fn new(book: &Book<'a>) -> Self {
        let entries = book.entries;
        let mut answers = HashMap::new();
        for (line, entry) in entries.iter().enumerate() {
            match &entry.what {
                What::Done { op, .. } | What::Refused { op, .. } | What::Unclear { op, .. } => {
                    answers.insert(op.as_str(), line);
                }
                _ => {}
            }
        }
        let mut all = Self::default();
        for (line, entry) in entries.iter().enumerate() {
            let What::Ask { op, call, jobs, payload } = &entry.what else { continue };
            let answer = answers.get(op.as_str()).copied();
            let killed = book.processes.get(entry.who.as_str()).and_then(|process| process.killed);
            let to = match (answer, killed) {
                (Some(answer), _) => entries[answer].at,
                (None, Some((killed, _))) => killed.max(entry.at + PATIENCE),
                (None, None) => NEVER,
            };
            let operation = |effect, certain, to| Operation {
                effect,
                certain,
                from: entry.at,
                to,
                payload: payload.as_deref(),
                ask: line,
                answer,
                waited: call == "wait",
                over: false,
            };
            match answer.map(|answer| &entries[answer].what) {
                Some(What::Refused { .. }) => {}
                Some(What::Done { jobs, codes, .. }) => {
                    for (job, code) in jobs.iter().zip(codes) {
                        let effect = match (call.as_str(), code.as_str()) {
                            ("add", code) => Effect::There { new: code == "new" },
                            ("update", "unknown") => continue,
                            ("update", _) => Effect::Changed,
                            // Another life than its own is left alone.
                            ("delete-own", "unknown") => continue,
                            ("delete-own", _) => Effect::Gone { own: true },
                            _ => Effect::Gone { own: false },
                        };
                        let over = call == "wait" || matches!(code.as_str(), "gone" | "unknown");
                        let operation = Operation { over, ..operation(effect, true, to) };
                        all.by_job.entry(job).or_default().push(operation);
                    }
                }
                _ => {
                    if call == "add" && jobs.is_empty() {
                        all.unknown.extend(payload.as_deref());
                    }
                    let (effect, to) = match call.as_str() {
                        "add" => (Effect::There { new: false }, to + NOISE),
                        "update" => (Effect::Changed, to + NOISE),
                        // It names what it means, and has no latest time.
                        "delete-own" => (Effect::Gone { own: true }, NEVER),
                        _ => (Effect::Gone { own: false }, to + NOISE),
                    };
                    for job in jobs {
                        all.by_job.entry(job).or_default().push(operation(effect, false, to));
                    }
                }
            }
        }
        let wipes = book.away.iter().filter(|away| away.wiped).map(|away| Operation {
            effect: Effect::Gone { own: false },
            certain: true,
            from: away.from,
            to: away.to,
            payload: None,
            ask: away.lines.0,
            answer: away.lines.1,
            waited: false,
            over: false,
        });
        all.wipes = wipes.collect();
        for away in &book.away {
            let Some(since) = away.lost_since else { continue };
            for operation in all.by_job.values_mut().flatten() {
                // It was done, and that may be lost.
                if operation.from <= away.to && operation.to >= since {
                    (operation.certain, operation.to) = (false, operation.to.max(away.to));
                }
            }
        }
        all
    }

    /// The operations on a job, and the wipes.
    pub(super) fn on(&self, job: &str) -> impl Iterator<Item = &Operation<'a>> {
        self.by_job.get(job).into_iter().flatten().chain(&self.wipes)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &'a str> {
        self.by_job.keys().copied()
    }

    /// Whether anybody did anything with it by its id.
    pub(super) fn knows(&self, job: &str) -> bool {
        self.by_job.contains_key(job)
    }

    /// What shows that a job was there from `from` to `until`, if it surely was.
    pub(super) fn is_there(&self, job: &str, from: Us, until: Us) -> Option<&Operation<'a>> {
        let there = |operation: &&Operation<'_>| matches!(operation.effect, Effect::There { .. });
        let last =
            self.on(job).filter(there).filter(|op| op.certain && op.to <= from).max_by_key(|op| op.from)?;
        let ends = |op: &Operation<'_>| match op.effect {
            // It was another life that was meant.
            Effect::Gone { own: true }
                if op.from < last.from && last.effect == (Effect::There { new: true }) =>
            {
                false
            }
            Effect::Gone { .. } => op.to >= last.from && op.from <= until,
            Effect::There { .. } | Effect::Changed => false,
        };
        if self.on(job).any(ends) { None } else { Some(last) }
    }

    /// What shows that a job was not there at `at`, if it surely was not.
    pub(super) fn is_gone(&self, job: &str, at: Us) -> Option<&Operation<'a>> {
        let gone =
            |op: &&Operation<'_>| matches!(op.effect, Effect::Gone { .. }) && op.certain && op.to <= at;
        let last = self.on(job).filter(gone).max_by_key(|op| op.from)?;
        let there = |op: &Operation<'_>| {
            matches!(op.effect, Effect::There { .. }) && op.to >= last.from && op.from <= at
        };
        if self.on(job).any(there) { None } else { Some(last) }
    }

    /// The last thing that gave the job a payload, if it is sure which that was.
    pub(super) fn payload(&self, job: &str) -> Option<&Operation<'a>> {
        let sets = |op: &&Operation<'_>| match op.effect {
            Effect::There { new } => new || !op.certain,
            Effect::Changed => true,
            Effect::Gone { .. } => false,
        };
        let last = self.on(job).filter(sets).filter(|op| op.certain).max_by_key(|op| op.from)?;
        let rivals = self.on(job).filter(sets).filter(|op| op.to >= last.from).count();
        if rivals == 1 { Some(last) } else { None }
    }
}
