//! Who holds what, by what the processes reported.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    Add { worker: u64, job: usize },
    Delete { worker: u64, job: usize },
    End { worker: u64 },
}

pub(crate) struct Book {
    sender: Sender<Report>,
    reports: Receiver<Report>,
    jobs: Vec<Job>,
    workers: BTreeMap<u64, Worker>,
    moves: usize,
    held_twice: usize,
    bars: MultiProgress,
}

#[derive(Clone, Debug, Default)]
struct Job {
    /// More than one between the report of one process and that of another: they come by two pipes.
    holders: Vec<u64>,
    /// Since when there are two.
    doubled: Option<Instant>,
    adds: usize,
}

struct Worker {
    held: usize,
    ended: bool,
    bar: ProgressBar,
}

/// Reports of two processes may come in another order than that in which they were made, by no more than this.
const DISORDER: Duration = Duration::from_secs(3);

impl Book {
    pub(crate) fn new(jobs: usize) -> Self {
        let (sender, reports) = channel();
        Self {
            sender,
            reports,
            jobs: vec![Job::default(); jobs],
            workers: BTreeMap::new(),
            moves: 0,
            held_twice: 0,
            bars: MultiProgress::new(),
        }
    }

    pub(crate) fn join(&mut self, worker: u64) -> Sender<Report> {
        let style = ProgressStyle::with_template("{prefix:>10} {bar:50} {pos:>6} {msg}").expect("a template");
        let most = self.jobs.len() as u64 / 5;
        let bar = self.bars.add(ProgressBar::new(most).with_style(style));
        bar.set_prefix(format!("worker {worker}"));
        self.workers.insert(worker, Worker { held: 0, ended: false, bar });
        self.sender.clone()
    }

    /// What it held, nobody holds; what it had reported before comes first.
    pub(crate) fn killed(&mut self, worker: u64) {
        let begin = Instant::now();
        while !self.workers[&worker].ended {
            assert!(begin.elapsed() < Duration::from_secs(20), "its pipe ends");
            self.read(Duration::from_millis(10));
        }
        for job in &mut self.jobs {
            job.holders.retain(|holder| *holder != worker);
        }
        let dead = self.workers.remove(&worker).expect("it was there");
        dead.bar.abandon_with_message("killed");
    }

    /// Takes in what is reported in so long.
    pub(crate) fn read(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(report) = self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.note(report);
        }
        for worker in self.workers.values() {
            worker.bar.set_position(worker.held as u64);
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Add { worker, job } => {
                let job = &mut self.jobs[job];
                job.holders.push(worker);
                if job.holders.len() == 2 {
                    job.doubled = Some(Instant::now());
                }
                job.adds += 1;
                self.moves += usize::from(job.adds > 1);
                self.workers.entry(worker).and_modify(|worker| worker.held += 1);
            }
            Report::Delete { worker, job } => {
                let job = &mut self.jobs[job];
                let before = job.holders.len();
                job.holders.retain(|holder| *holder != worker);
                assert!(job.holders.len() < before, "a Delete without an Add");
                if let Some(since) = job.doubled.take_if(|_| job.holders.len() < 2) {
                    self.held_twice += usize::from(since.elapsed() > DISORDER);
                }
                self.workers.entry(worker).and_modify(|worker| worker.held -= 1);
            }
            Report::End { worker } => {
                self.workers.entry(worker).and_modify(|worker| worker.ended = true);
            }
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.jobs.iter().filter(|job| !job.holders.is_empty()).count()
    }

    pub(crate) fn held_by(&self, worker: u64) -> usize {
        self.workers[&worker].held
    }

    /// For how many jobs two processes were at it at once.
    pub(crate) fn held_twice(&self) -> usize {
        self.held_twice + self.jobs.iter().filter(|job| job.holders.len() > 1).count()
    }

    /// How many `Add`s there were beside each job's first.
    pub(crate) fn moves(&self) -> usize {
        self.moves
    }

    pub(crate) fn without(&self, worker: u64) -> Shares {
        Shares(self.workers.iter().filter(|(id, _)| **id != worker).map(|(_, worker)| worker.held).collect())
    }

    /// Whether no two workers differ by more than that part of a fair share, and all jobs are held.
    pub(crate) fn is_even(&self, hysteresis: f64) -> bool {
        self.held() == self.jobs.len() && self.without(0).is_even(hysteresis)
    }

    pub(crate) fn shares(&self) -> String {
        let Shares(shares) = self.without(0);
        format!("{}..{}", shares.iter().min().unwrap_or(&0), shares.iter().max().unwrap_or(&0))
    }

    pub(crate) fn moves_per_job(&self) -> String {
        let mut counts = BTreeMap::new();
        for job in &self.jobs {
            *counts.entry(job.adds.saturating_sub(1)).or_insert(0_usize) += 1;
        }
        let mean = self.moves as f64 / self.jobs.len() as f64;
        let counts: Vec<_> = counts.iter().map(|(moves, jobs)| format!("{moves}: {jobs} jobs")).collect();
        format!("{}; {mean:.2} on average", counts.join(", "))
    }

    pub(crate) fn say(&self, line: &str) {
        if self.bars.is_hidden() {
            println!("{line}");
        } else {
            let _ = self.bars.println(line);
        }
    }

    pub(crate) fn finish(&self) {
        let _ = self.bars.clear();
    }
}

/// How many jobs each worker holds.
pub(crate) struct Shares(Vec<usize>);

impl Shares {
    pub(crate) fn is_even(&self, hysteresis: f64) -> bool {
        let Self(shares) = self;
        let fair = shares.iter().sum::<usize>() as f64 / shares.len().max(1) as f64;
        let (least, most) = (shares.iter().min().unwrap_or(&0), shares.iter().max().unwrap_or(&0));
        (most - least) as f64 <= (hysteresis * fair).max(2.0)
    }
}
