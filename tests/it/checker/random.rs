//! A random history without a fault in it, and one fault put into it: the judge says nothing of the first and finds the
//! second.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::judge::{Entry, Kind, What, check};
use super::shown;

/// What may happen next: how much later, to which job, at which worker.
#[derive(Clone, Debug)]
enum Step {
    Add { job: usize, worker: usize },
    Update { job: usize },
    Move { job: usize, worker: usize },
    Delete { job: usize },
    Die { worker: usize },
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let (job, worker) = (0..6usize, 0..3usize);
    let what = prop_oneof![
        4 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Step::Add { job, worker }),
        2 => job.clone().prop_map(|job| Step::Update { job }),
        3 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Step::Move { job, worker }),
        2 => job.prop_map(|job| Step::Delete { job }),
        1 => worker.prop_map(|worker| Step::Die { worker }),
    ];
    (1..2_000u64, what)
}

/// A cluster that does everything right, and writes it down.
#[derive(Default)]
struct Model {
    now: u64,
    epoch: u64,
    number: u64,
    /// For each place the process and its worker.
    workers: Vec<(String, u64)>,
    births: Vec<usize>,
    /// Each job's place, epoch and payload.
    jobs: BTreeMap<usize, (usize, u64, String)>,
    entries: Vec<Entry>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self { workers: vec![(String::new(), 0); 3], births: vec![0; 3], ..Self::default() };
        (0..3).for_each(|place| model.join(place));
        model
    }

    fn say(&mut self, who: &str, what: What) {
        self.now += 100;
        self.entries.push(Entry { at: self.now, who: who.to_owned(), what });
    }

    fn join(&mut self, place: usize) {
        self.number += 1;
        let who = format!("w{place}.{}", self.births[place]);
        self.births[place] += 1;
        let (ttl, margin, release) = (1_500_000, 300_000, 2_000_000);
        self.workers[place] = (who.clone(), self.number);
        self.say(&who, What::Joined { worker: self.number, ttl, margin, release, grace: 0, lenient: false });
    }

    fn call(&mut self, call: &str, job: usize, code: &str, between: impl FnOnce(&mut Self, &str)) {
        self.number += 1;
        let op = format!("o{}", self.number);
        let (jobs, payload) = (vec![format!("j{job}")], Some(op.clone()));
        self.say("m0.0", What::Ask { op: op.clone(), call: call.into(), jobs: jobs.clone(), payload });
        between(self, &op);
        self.say("m0.0", What::Done { op, jobs, codes: vec![code.into()] });
    }

    fn give(&mut self, job: usize, place: usize, payload: &str) {
        self.epoch += 10;
        let ((who, worker), epoch) = (self.workers[place].clone(), self.epoch);
        self.say(&who, What::Add { worker, job: format!("j{job}"), epoch, payload: payload.into() });
        self.jobs.insert(job, (place, epoch, payload.into()));
    }

    fn take(&mut self, job: usize, reason: &str) -> Option<String> {
        let (place, epoch, payload) = self.jobs.remove(&job)?;
        let ((who, worker), name) = (self.workers[place].clone(), format!("j{job}"));
        self.say(&who, What::Told { worker, job: name.clone(), epoch });
        self.say(&who, What::Delete { worker, job: name.clone(), epoch, reason: reason.into() });
        self.say(&who, What::Drop { worker, job: name, epoch });
        Some(payload)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add { job, .. } if self.jobs.contains_key(&job) => {
                self.call("add", job, "existing", |_, _| {});
            }
            Step::Add { job, worker } => {
                self.call("add", job, "new", |model, op| model.give(job, worker, op));
            }
            Step::Update { job } => {
                let code = if self.jobs.contains_key(&job) { "pushed" } else { "unknown" };
                self.call("update", job, code, |model, op| {
                    let Some((place, epoch, payload)) = model.jobs.get_mut(&job) else { return };
                    *payload = op.to_owned();
                    let (epoch, (who, worker)) = (*epoch, model.workers[*place].clone());
                    model.say(
                        &who,
                        What::Update { worker, job: format!("j{job}"), epoch, payload: op.into() },
                    );
                });
            }
            Step::Move { job, worker } => {
                if let Some(payload) = self.take(job, "Rebalanced") {
                    self.give(job, worker, &payload);
                }
            }
            Step::Delete { job } => {
                let code = if self.jobs.contains_key(&job) { "releasing" } else { "unknown" };
                self.call("delete", job, code, |_, _| {});
                self.take(job, "Removed");
            }
            Step::Die { worker } => {
                let (who, _) = self.workers[worker].clone();
                self.say(&who, What::Killed {});
                self.join(worker);
                let theirs: Vec<usize> = self
                    .jobs
                    .iter()
                    .filter(|(_, (place, ..))| *place == worker)
                    .map(|(job, _)| *job)
                    .collect();
                self.now += 1_500_000;
                for job in theirs {
                    let (_, _, payload) = self.jobs[&job].clone();
                    self.give(job, (worker + 1) % 3, &payload);
                }
            }
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        self.now += 10_000_000;
        self.say("soak", What::Heal {});
        for job in self.jobs.clone().into_keys() {
            self.say("m0.0", What::Has { job: format!("j{job}"), state: "assigned".into() });
        }
        let jobs = self.jobs.len() as u64;
        self.say("m0.0", What::Cluster { jobs, pending: 0, quarantined: 0 });
        self.say("soak", What::Final {});
        self.entries
    }
}

/// Shown as lines where a test fails.
#[derive(Clone)]
struct Lines(Vec<Entry>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|entry| write!(f, "\n{entry}"))
    }
}

fn history() -> impl Strategy<Value = Lines> {
    prop::collection::vec(step(), 1..80).prop_map(|steps| {
        let mut model = Model::new();
        for (pass, step) in steps {
            model.now += pass * 1_000;
            model.step(step);
        }
        Lines(model.finish())
    })
}

/// A fault that can be put into a history.
#[derive(Clone, Copy, Debug)]
enum Fault {
    AddBeforeTheLastHolderWasTold,
    AddTwice,
    DeleteTwice,
    OlderEpoch,
    NeverTold,
    LostInTheEnd,
    NotListed,
    CloseWithJobs,
    UpdateLost,
}

const FAULTS: [Fault; 9] = [
    Fault::AddBeforeTheLastHolderWasTold,
    Fault::AddTwice,
    Fault::DeleteTwice,
    Fault::OlderEpoch,
    Fault::NeverTold,
    Fault::LostInTheEnd,
    Fault::NotListed,
    Fault::CloseWithJobs,
    Fault::UpdateLost,
];

/// Puts the fault into the history where it fits, `at` of the fitting places; the kinds of which one has to be found.
fn put(fault: Fault, at: prop::sample::Index, entries: &mut Vec<Entry>) -> Option<&'static [Kind]> {
    let job_of = |entry: &Entry| match &entry.what {
        What::Add { job, .. } | What::Update { job, .. } | What::Delete { job, .. } => Some(job.clone()),
        _ => None,
    };
    let choose = |places: Vec<usize>| (!places.is_empty()).then(|| *at.get(&places));
    let places = |wanted: &dyn Fn(usize, &Entry) -> bool| -> Vec<usize> {
        entries
            .iter()
            .enumerate()
            .filter(|(line, entry)| wanted(*line, entry))
            .map(|(line, _)| line)
            .collect()
    };
    let add = |entry: &Entry| matches!(entry.what, What::Add { .. });
    let delete = |entry: &Entry| matches!(entry.what, What::Delete { .. });
    // The hold of that job before this line was ended by a `told`, which begins at the line returned.
    let told_before = |line: usize| {
        let job = job_of(&entries[line])?;
        let before = entries[..line].iter().rposition(|entry| match &entry.what {
            What::Told { job: told, .. } | What::Add { job: told, .. } => *told == job,
            _ => false,
        })?;
        let who = &entries[line].who;
        let is_there = entries[..before]
            .iter()
            .any(|entry| entry.who == *who && matches!(entry.what, What::Joined { .. }));
        (is_there && matches!(entries[before].what, What::Told { .. })).then_some(before)
    };
    match fault {
        Fault::AddBeforeTheLastHolderWasTold => {
            let line = choose(places(&|line, entry| add(entry) && told_before(line).is_some()))?;
            let told = told_before(line)?;
            let mut early = entries.remove(line);
            early.at = entries[told].at - 1;
            entries.insert(told, early);
            Some(&[Kind::TwoHolders])
        }
        Fault::AddTwice => {
            let line = choose(places(&|_, entry| add(entry)))?;
            let again = entries[line].clone();
            entries.insert(line + 1, again);
            Some(&[Kind::OutOfTurn])
        }
        Fault::DeleteTwice => {
            let line = choose(places(&|_, entry| delete(entry)))?;
            let again = entries[line].clone();
            entries.insert(line + 1, again);
            Some(&[Kind::OutOfTurn])
        }
        Fault::OlderEpoch => {
            let seen = |line: usize| {
                entries[..line].iter().any(|entry| add(entry) && job_of(entry) == job_of(&entries[line]))
            };
            let line = choose(places(&|line, entry| add(entry) && seen(line)))?;
            if let What::Add { epoch, .. } = &mut entries[line].what {
                *epoch = 1;
            }
            Some(&[Kind::EpochBack])
        }
        Fault::NeverTold => {
            let removed =
                |entry: &Entry| matches!(&entry.what, What::Delete { reason, .. } if reason == "Removed");
            // Who dies before it could be told is not at fault.
            let lives = |line: usize| {
                let who = &entries[line].who;
                !entries[line..].iter().any(|entry| entry.who == *who && entry.what == What::Killed {})
            };
            let line = choose(places(&|line, entry| removed(entry) && lives(line)))?;
            entries.drain(line - 1..=line + 1);
            Some(&[Kind::DeleteNotDelivered, Kind::JobNotGone, Kind::TwoHolders, Kind::OutOfTurn])
        }
        Fault::LostInTheEnd => {
            let last = |line: usize| {
                !entries[line + 1..].iter().any(|entry| job_of(entry) == job_of(&entries[line]))
            };
            let line = choose(places(&|line, entry| add(entry) && last(line)))?;
            entries.remove(line);
            Some(&[Kind::JobLost])
        }
        Fault::NotListed => {
            let line = choose(places(&|_, entry| matches!(entry.what, What::Has { .. })))?;
            entries.remove(line);
            Some(&[Kind::JobLost])
        }
        Fault::CloseWithJobs => {
            let line = choose(places(&|_, entry| add(entry)))?;
            let Entry { at, who, what } = entries[line].clone();
            let What::Add { worker, .. } = what else { return None };
            let close = What::Close { worker, reason: "Terminated".into() };
            entries.insert(line + 1, Entry { at: at + 1, who, what: close });
            Some(&[Kind::OutOfTurn])
        }
        Fault::UpdateLost => {
            let last = |line: usize| {
                !entries[line + 1..].iter().any(|entry| job_of(entry) == job_of(&entries[line]))
            };
            let line =
                choose(places(&|line, entry| matches!(entry.what, What::Update { .. }) && last(line)))?;
            entries.remove(line);
            Some(&[Kind::StalePayload])
        }
    }
}

proptest! {
    #[test]
    fn a_fault_that_is_put_into_a_clean_history_is_found(
        lines in history(),
        fault in prop::sample::select(&FAULTS[..]),
        at in any::<prop::sample::Index>(),
    ) {
        let Lines(mut entries) = lines;
        let found = check(&entries);
        prop_assert!(found.is_empty(), "{}", shown(&found, &entries));
        if let Some(kinds) = put(fault, at, &mut entries) {
            let found = check(&entries);
            prop_assert!(
                found.iter().any(|violation| kinds.contains(&violation.kind)),
                "{fault:?} is not among\n{}", shown(&found, &entries)
            );
            for violation in &found {
                prop_assert!(violation.lines.iter().all(|line| *line < entries.len()) && !violation.lines.is_empty());
            }
        }
    }
}
