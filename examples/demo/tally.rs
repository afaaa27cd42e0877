//! The count: from what the processes reported, who holds what, how long takeovers took, and what was broken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::JOBS;
use crate::children::{Child, Report};
use crate::machine::monotonic_us;

/// How long a step may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Tally {
    sender: Sender<Report>,
    reports: Receiver<Report>,
    /// By process id.
    workers: HashMap<u32, Worker>,
    jobs: HashMap<String, Job>,
    lock_ends: HashMap<u64, u64>,
    closed: HashSet<u64>,
    adds: usize,
    held_twice: usize,
    out_of_turn: usize,
    bars: MultiProgress,
    step: Instant,
    /// When this step began, and the one before it, by the clock of the reports.
    began: [u64; 2],
}

struct Worker {
    number: u64,
    name: &'static str,
    held: usize,
    gone: bool,
    bar: ProgressBar,
}

#[derive(Default)]
struct Job {
    deleting: bool,
    holder: Option<u64>,
    epoch: u64,
    /// Who held it before, and when that one let go.
    before: Option<(u64, u64)>,
    added_at: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let (sender, reports) = channel();
        Self {
            sender,
            reports,
            workers: HashMap::new(),
            jobs: HashMap::new(),
            lock_ends: HashMap::new(),
            closed: HashSet::new(),
            adds: 0,
            held_twice: 0,
            out_of_turn: 0,
            bars: MultiProgress::new(),
            step: Instant::now(),
            began: [monotonic_us(); 2],
        }
    }

    pub(crate) fn sender(&self) -> Sender<Report> {
        self.sender.clone()
    }

    /// Takes in reports until the wanted one.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<Report, Box<dyn Error>> {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let report =
                self.reports.recv_timeout(left).map_err(|_| format!("not within {PATIENCE:?}: {what}"))?;
            self.take_in(&report);
            if wanted(&report) {
                return Ok(report);
            }
        }
    }

    pub(crate) fn wait_for_worker(
        &mut self,
        name: &'static str,
        child: &Child,
    ) -> Result<u64, Box<dyn Error>> {
        let pid = child.pid();
        let ready = self.wait(
            "a worker joins",
            |report| matches!(report, Report::WorkerReady { pid: p, .. } if *p == pid),
        )?;
        let Report::WorkerReady { worker: number, .. } = ready else { return Err("no worker".into()) };
        let style = ProgressStyle::with_template("  worker {prefix}  {bar:50}  {pos:>4}  {msg}")?;
        let bar = self.bars.add(ProgressBar::new(JOBS as u64).with_style(style).with_prefix(name));
        self.workers.insert(pid, Worker { number, name, held: 0, gone: false, bar });
        Ok(number)
    }

    /// Takes in reports until so many jobs are held, and no more.
    pub(crate) fn wait_until_held(&mut self, what: &str, count: usize) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        while self.jobs.len() < count || self.held() != count || self.waiting_for_delete() {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let missing = format!("{what}: {} of {count} are held after {PATIENCE:?}", self.held());
            let report = self.reports.recv_timeout(left).map_err(|_| missing)?;
            self.take_in(&report);
        }
        self.line(&format!("{what}: {count} held ({:.2} s)", self.step.elapsed().as_secs_f64()));
        self.end_step();
        Ok(())
    }

    /// Takes in reports until the living workers hold so many jobs, and each about as many.
    pub(crate) fn wait_until_even(&mut self, what: &str, count: usize) -> Result<(), Box<dyn Error>> {
        let (start, before) = (Instant::now(), self.adds);
        loop {
            let living = self.workers.values().filter(|worker| !worker.gone).map(|worker| worker.held);
            let shares: Vec<usize> = living.collect();
            let (least, most) = (shares.iter().min().unwrap_or(&0), shares.iter().max().unwrap_or(&0));
            // Rebalancing ends where no two workers differ by a twentieth of a fair share.
            if shares.iter().sum::<usize>() == count && (most - least) * 20 <= most + shares.len() {
                break;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            let report = self
                .reports
                .recv_timeout(left)
                .map_err(|_| format!("{what}: not even after {PATIENCE:?}"))?;
            self.take_in(&report);
        }
        let (moved, took) = (self.adds - before, self.step.elapsed().as_secs_f64());
        self.line(&format!("{what}: {moved} moved, one by one as they were let go of ({took:.2} s)"));
        self.line(&format!("  held now by {}", self.shares()));
        self.end_step();
        Ok(())
    }

    pub(crate) fn wait_until_closed(&mut self, number: u64) -> Result<(), Box<dyn Error>> {
        while !self.closed.contains(&number) {
            self.wait("the worker closes", |report| matches!(report, Report::Close { .. }))?;
        }
        self.retire(number, "stopped");
        Ok(())
    }

    /// Learns when the lock of a killed worker ends: until then it counts as the holder.
    pub(crate) fn killed(&mut self, number: u64, master: &Child) -> Result<(), Box<dyn Error>> {
        self.retire(number, "killed");
        master.say(&format!("lock {number}"))?;
        let told = self.wait("the lock's end is known", |report| matches!(report, Report::Lock { .. }))?;
        if let Report::Lock { end, .. } = told {
            for job in self.jobs.values_mut().filter(|job| job.holder == Some(number)) {
                job.holder = None;
                job.before = Some((number, end));
            }
        }
        Ok(())
    }

    fn end_step(&mut self) {
        self.step = Instant::now();
        self.began = [monotonic_us(), self.began[0]];
    }

    fn take_in(&mut self, report: &Report) {
        match report {
            Report::Added { job } => {
                self.jobs.entry(job.clone()).or_default();
            }
            Report::Deleting { job } => self.jobs.entry(job.clone()).or_default().deleting = true,
            Report::Add { pid, job, epoch, at } => self.add(*pid, job, *epoch, *at),
            Report::Delete { pid, job, at } => self.delete(*pid, job, *at),
            Report::Close { pid } => {
                if let Some(worker) = self.workers.get(pid) {
                    self.out_of_turn += usize::from(worker.held > 0);
                    self.closed.insert(worker.number);
                }
            }
            Report::Lock { worker, end } => {
                self.lock_ends.insert(*worker, *end);
            }
            Report::MasterReady | Report::WorkerReady { .. } => {}
        }
    }

    fn add(&mut self, pid: u32, job: &str, epoch: u64, at: u64) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        self.adds += 1;
        worker.held += 1;
        worker.bar.set_position(worker.held as u64);
        let number = worker.number;
        let job = self.jobs.entry(job.to_owned()).or_default();
        let before_end = job.before.is_some_and(|(_, until)| at < until);
        self.held_twice += usize::from(job.holder.is_some() || before_end);
        self.out_of_turn += usize::from(epoch <= job.epoch);
        (job.holder, job.epoch, job.added_at) = (Some(number), epoch, at);
    }

    fn delete(&mut self, pid: u32, job: &str, at: u64) {
        let Some(worker) = self.workers.get_mut(&pid) else { return };
        worker.held = worker.held.saturating_sub(1);
        worker.bar.set_position(worker.held as u64);
        let number = worker.number;
        match self.jobs.get_mut(job) {
            Some(job) if job.holder == Some(number) => {
                job.holder = None;
                job.before = Some((number, at));
            }
            // The next owner's report may be read first: they come by different pipes. Times decide.
            Some(job) if job.added_at >= at => {
                self.held_twice = self.held_twice.saturating_sub(1);
                job.before = Some((number, at));
            }
            _ => self.out_of_turn += 1,
        }
    }

    fn held(&self) -> usize {
        self.jobs.values().filter(|job| job.holder.is_some()).count()
    }

    fn waiting_for_delete(&self) -> bool {
        self.jobs.values().any(|job| job.deleting && job.holder.is_some())
    }

    pub(crate) fn held_by(&self, number: u64) -> usize {
        self.jobs.values().filter(|job| job.holder == Some(number)).count()
    }

    pub(crate) fn shares(&self) -> String {
        let living = self.workers.values().filter(|worker| !worker.gone);
        let shares: BTreeMap<_, _> = living.map(|worker| (worker.name, worker.held)).collect();
        shares.iter().map(|(name, held)| format!("{name} {held}")).collect::<Vec<_>>().join(", ")
    }

    fn retire(&mut self, number: u64, how: &str) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.number == number) {
            worker.gone = true;
            worker.bar.abandon_with_message(how.to_owned());
        }
    }

    /// From the end of the dead worker's lock to the first and the last `Add` elsewhere.
    pub(crate) fn print_takeover(&self, number: u64) {
        let Some(end) = self.lock_ends.get(&number) else { return };
        let times = self.times_after(number, *end);
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            self.line(&format!(
                "  takeover of {}: from the end of the lock {first:.1} ms to the first Add, {last:.1} ms to the last",
                times.len()
            ));
        }
    }

    /// From each `Delete` to the `Add` elsewhere.
    pub(crate) fn print_handover(&self, number: u64) {
        let times = self.times_after(number, 0);
        if let (Some(median), Some(last)) = (times.get(times.len() / 2), times.last()) {
            self.line(&format!(
                "  handover of {}: nobody had a mailbox for {median:.1} ms (median), {last:.1} ms at most",
                times.len()
            ));
        }
    }

    /// Milliseconds from when this worker let go (or `since`) to the `Add` at the next, sorted; of the last step.
    fn times_after(&self, number: u64, since: u64) -> Vec<f64> {
        let moved = self.jobs.values().filter_map(|job| match job.before {
            Some((before, until))
                if before == number && job.holder.is_some() && job.added_at >= self.began[1] =>
            {
                Some((job.added_at as f64 - until.max(since) as f64) / 1_000.0)
            }
            _ => None,
        });
        let mut times: Vec<f64> = moved.collect();
        times.sort_by(f64::total_cmp);
        times
    }

    fn line(&self, text: &str) {
        if std::io::stdout().is_terminal() {
            let _ = self.bars.println(text);
        } else {
            println!("{text}");
        }
    }

    pub(crate) fn verdict(&self, wanted: usize) -> Verdict {
        let kept = self.jobs.values().filter(|job| !job.deleting && job.holder.is_some()).count();
        let zombies = self.jobs.values().filter(|job| job.deleting && job.holder.is_some()).count();
        Verdict {
            lost: wanted.saturating_sub(kept),
            held_twice: self.held_twice,
            out_of_turn: self.out_of_turn + zombies,
        }
    }
}

pub(crate) struct Verdict {
    lost: usize,
    held_twice: usize,
    out_of_turn: usize,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.held_twice + self.out_of_turn == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "jobs lost            {:>5}", self.lost)?;
        writeln!(f, "jobs held twice      {:>5}", self.held_twice)?;
        write!(f, "events out of turn   {:>5}", self.out_of_turn)
    }
}
