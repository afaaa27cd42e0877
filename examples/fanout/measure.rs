//! A master that changes something at a steady rate, and watchers that say when they heard of it.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assemblage::{AddOptions, Change, ChangeKind, Cluster, JobId, Master, Watch, WatchOptions};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::report::Live;

/// What comes first is not counted: connections and code are cold.
const WARM_UP: Duration = Duration::from_millis(500);
/// How many calls are out at once, at most. If that is not enough, the rate is not kept.
const CALLS: usize = 256;
/// How long to wait for what is under way at the end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Load {
    pub(crate) watchers: usize,
    /// Changes a second.
    pub(crate) rate: u32,
    pub(crate) payload: usize,
    pub(crate) time: Duration,
}

pub(crate) struct Outcome {
    /// From the call to the watcher, in microseconds.
    pub(crate) times: Histogram<u64>,
    pub(crate) changes: u64,
    pub(crate) took: Duration,
    /// What did not come to some watcher.
    pub(crate) missing: u64,
    /// How often a watcher had to be told anew.
    pub(crate) resets: u64,
}

/// What all share.
pub(crate) struct Board {
    epoch: Instant,
    /// For each job: when its add and its delete were called, in microseconds since `epoch`; 0: not counted.
    called: Vec<[AtomicU64; 2]>,
    pub(crate) times: Mutex<Histogram<u64>>,
    pub(crate) made: AtomicU64,
    pub(crate) heard: AtomicU64,
    pub(crate) resets: AtomicU64,
}

impl Board {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Just before a call.
    fn call(&self, job: usize, kind: usize, counts: bool) {
        if counts {
            self.called[job][kind].store(self.now(), Ordering::Relaxed);
            self.made.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hear(&self, job: usize, kind: usize) {
        let now = self.now();
        let called = self.called.get(job).map_or(0, |called| called[kind].load(Ordering::Relaxed));
        if called > 0 {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            // It grows with what is recorded, and so refuses none.
            let _ = times.record(now.saturating_sub(called));
            drop(times);
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(crate) async fn run(url: &str, load: &Load) -> Result<Outcome, Box<dyn Error>> {
    let cluster = Cluster::builder("fanout").connect_url(url).await?;
    let master = cluster.master().await?;
    // Another run at the same time is not heard.
    let run = format!("{}-", std::process::id());
    let rounds = u64::from(load.rate) * u64::try_from((WARM_UP + load.time).as_millis())? / 2_000 + 1;
    let board = Arc::new(Board {
        epoch: Instant::now(),
        called: (0..rounds).map(|_| Default::default()).collect(),
        times: Mutex::new(Histogram::new(3)?),
        made: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        resets: AtomicU64::new(0),
    });

    let options =
        WatchOptions::default().kinds([ChangeKind::JobAdded, ChangeKind::JobDeleted]).job_prefix(&*run);
    let watches = (0..load.watchers).map(|_| begin(&cluster, options.clone()));
    let watches: Vec<Watch> = stream::iter(watches).buffer_unordered(16).try_collect().await?;
    let mut watchers = JoinSet::new();
    for watch in watches {
        watchers.spawn(listen(watch, board.clone(), run.len()));
    }

    let live = Live::start(&board, load);
    let start = Instant::now();
    change(&master, &board, load, &run, rounds).await?;
    let took = start.elapsed().saturating_sub(WARM_UP);
    let made = board.made.load(Ordering::Relaxed);
    let wanted = made * load.watchers as u64;
    let end = Instant::now();
    while board.heard.load(Ordering::Relaxed) < wanted && end.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    live.stop();
    let times = board.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Outcome {
        times,
        changes: made,
        took,
        missing: wanted.saturating_sub(board.heard.load(Ordering::Relaxed)),
        resets: board.resets.load(Ordering::Relaxed),
    })
}

/// A watcher that knows what there is.
async fn begin(cluster: &Cluster, options: WatchOptions) -> assemblage::Result<Watch> {
    let mut watch = cluster.watch_with(options).await?;
    while let Some(change) = watch.next().await {
        if let Change::Synced { .. } = change {
            break;
        }
    }
    Ok(watch)
}

async fn listen(mut watch: Watch, board: Arc<Board>, prefix: usize) {
    while let Some(change) = watch.next().await {
        let number = |job: &JobId| job.as_str()[prefix..].parse().unwrap_or(usize::MAX);
        match &change {
            Change::JobAdded { job, .. } => board.hear(number(job), 0),
            Change::JobDeleted { job, .. } => board.hear(number(job), 1),
            Change::Reset => drop(board.resets.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// Adds a job and deletes it again, `rounds` times, in time with the rate.
async fn change(
    master: &Master,
    board: &Arc<Board>,
    load: &Load,
    run: &str,
    rounds: u64,
) -> Result<(), Box<dyn Error>> {
    let payload: Arc<str> = "x".repeat(load.payload).into();
    let mut tick = tokio::time::interval(Duration::from_secs(2) / load.rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (start, room, mut calls) =
        (Instant::now(), Arc::new(Semaphore::new(CALLS)), JoinSet::<assemblage::Result<()>>::new());
    for number in 0..usize::try_from(rounds)? {
        tick.tick().await;
        if start.elapsed() > WARM_UP + load.time {
            break;
        }
        let room = room.clone().acquire_owned().await?;
        let (master, board, payload) = (master.clone(), board.clone(), payload.clone());
        let id = JobId::new(format!("{run}{number}"))?;
        let counts = start.elapsed() >= WARM_UP;
        calls.spawn(async move {
            let _room = room;
            board.call(number, 0, counts);
            let _ = master.add_with(&*payload, AddOptions::default().id(id.clone())).await?;
            board.call(number, 1, counts);
            master.delete(&id).await?;
            assemblage::Result::Ok(())
        });
        while let Some(done) = calls.try_join_next() {
            done??;
        }
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A time above the 2 ms that a new histogram has room for is neither cut off nor left out.
    #[test]
    fn a_long_time_is_recorded_as_it_was() {
        let board = Board {
            epoch: Instant::now().checked_sub(Duration::from_secs(20)).expect("20 s ago"),
            called: vec![Default::default()],
            times: Mutex::new(Histogram::new(3).expect("a histogram")),
            made: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        };
        board.called[0][0].store(1, Ordering::Relaxed);
        board.hear(0, 0);
        let times = board.times.lock().expect("no panic");
        assert!(
            times.len() == 1 && times.max() >= 19_900_000 && times.min() >= 19_900_000,
            "{} us",
            times.max()
        );
    }
}
