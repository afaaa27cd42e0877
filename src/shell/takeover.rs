//! The takeover of dead workers' jobs: when the standby says so, reap, batch after batch. Hands out what waits, and
//! asks for a step of rebalancing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, sleep_until};

use super::retry::{Outage, warn_first};
use crate::cluster::{Rebalance, Settings};
use crate::core::standby::Standby;
use crate::error::Result;
use crate::id::WorkerId;
use crate::message::Control;
use crate::redis::store::{BATCH_JOBS, Due, Placed, Reap, Store, Suspicion};

/// How long one rank waits for the one before it: some round trips, far less than anybody would notice.
const STEP: Duration = Duration::from_millis(5);

/// Workers up to this rank go on handing out jobs that wait for a worker's rate; the others leave it to them.
const LAST_PLACER: u64 = 2;

/// How many dead workers one participant deals with at a time. The server does one batch after the other in any case, and
/// heartbeats are to get between them.
const MOST_AT_ONCE: usize = 4;

/// The shortest pause between two such batches.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// A job is suspect if its owner died within this time after it was given it.
const CRASH_WINDOW: Duration = Duration::from_secs(60);

/// How long a reap may be on its way at least: what is later may find workers that are silent only because the
/// server was.
const SHORTEST_REAP: Duration = Duration::from_millis(250);

pub(crate) struct Takeover {
    store: Arc<Store>,
    heartbeat: Duration,
    suspicion: Suspicion,
    rebalance: Option<Rebalance>,
    rank: u64,
    /// The server did not answer; or it has since, and nobody is reaped before then: the other workers' heartbeats were
    /// not answered either, and they are to have their turn first.
    hold: Hold,
    standby: Standby,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// How many reaps are among it.
    reaping: usize,
    placing: bool,
    rebalancing: bool,
    reaps: Outage,
    places: Outage,
    rebalances: Outage,
}

/// Whether the end of a lock may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    /// The server cannot be reached.
    Lost,
    /// It could be reached again; others may need until then.
    Until(Instant),
}

enum Done {
    Reaped { worker: WorkerId, moved: u64, result: Result<(Reap, Option<Due>)> },
    Placed { placed: u64, result: Result<()> },
    Rebalanced { marked: usize, result: Result<()> },
}

impl Takeover {
    /// For a worker, or for a master (which is nobody's successor, and acts at once).
    pub(crate) fn new(store: Arc<Store>, settings: &Settings, me: Option<WorkerId>) -> Self {
        Self {
            store,
            heartbeat: settings.heartbeat(),
            suspicion: Suspicion { crashes: settings.max_crashes, window: CRASH_WINDOW },
            rebalance: settings.rebalance,
            rank: 0,
            hold: Hold::Free,
            standby: Standby::new(STEP, settings.heartbeat(), me),
            work: FuturesUnordered::new(),
            reaping: 0,
            placing: false,
            rebalancing: false,
            reaps: Outage::default(),
            places: Outage::default(),
            rebalances: Outage::default(),
        }
    }

    /// How many act before this participant: the least loaded worker is the first, and masters are before all.
    pub(crate) fn handle_rank(&mut self, rank: u64) {
        self.rank = rank;
        self.standby.handle_rank(rank);
    }

    /// Whether this participant is to hear of locks that ended, and of those that are being reaped.
    pub(crate) fn listens(&self) -> bool {
        self.standby.listens()
    }

    /// The server did not answer in time.
    pub(crate) fn handle_lost(&mut self) {
        self.hold = Hold::Lost;
    }

    /// The server answered.
    pub(crate) fn handle_contact(&mut self, now: Instant) {
        if self.hold == Hold::Lost {
            self.hold = Hold::Until(now + self.heartbeat);
        }
    }

    /// Asks for a step of rebalancing, if it is this participant's to ask.
    pub(crate) fn handle_turn(&mut self) {
        let Some(Rebalance { share, hysteresis, delay, .. }) = self.rebalance else { return };
        if self.rank > 0 || self.rebalancing {
            return;
        }
        self.rebalancing = true;
        let store = self.store.clone();
        self.work.push(Box::pin(async move {
            let mut marked = 0;
            let result = loop {
                match store.rebalance(share, hysteresis, delay).await {
                    Ok(batch) => {
                        marked += batch;
                        if batch < BATCH_JOBS {
                            break Ok(());
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            Done::Rebalanced { marked, result }
        }));
    }

    /// What a beat, a survey or a reap told of the lock that ends first.
    pub(crate) fn handle_due(&mut self, now: Instant, due: Option<Due>) {
        match due {
            Some(due) => self.standby.handle_due(now, due.worker, now + due.after),
            None => self.standby.handle_none_due(),
        }
    }

    pub(crate) fn handle_lock_ended(&mut self, now: Instant, worker: WorkerId) {
        self.standby.handle_lock_ended(now, worker);
    }

    pub(crate) fn handle_control(&mut self, now: Instant, control: Control) {
        match control {
            Control::Reaping(worker) => self.standby.handle_reaping(now, worker),
            Control::Reaped(worker) | Control::Left(worker) => self.standby.handle_gone(worker),
        }
    }

    /// How many jobs wait although a worker has room.
    pub(crate) fn handle_waiting(&mut self, waiting: u64) {
        if waiting > 0 && !self.placing {
            self.placing = true;
            let store = self.store.clone();
            let persists = self.rank <= LAST_PLACER;
            self.work.push(Box::pin(async move {
                let mut placed = 0;
                let result = loop {
                    match store.place().await {
                        Ok(Placed { waiting: 0, placed: batch, .. }) => {
                            placed += batch;
                            break Ok(());
                        }
                        Ok(Placed { placed: batch, pause, .. }) => {
                            placed += batch;
                            if pause > Duration::ZERO && persists {
                                sleep(pause.max(SHORTEST_PAUSE)).await;
                            } else if pause > Duration::ZERO || batch == 0 {
                                break Ok(());
                            }
                        }
                        Err(error) => break Err(error),
                    }
                };
                Done::Placed { placed, result }
            }));
        }
    }

    /// Does what is due, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped; the work goes on at the next call.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            let now = Instant::now();
            if matches!(self.hold, Hold::Until(until) if until <= now) {
                self.hold = Hold::Free;
            }
            while self.hold == Hold::Free
                && self.reaping < MOST_AT_ONCE
                && let Some(worker) = self.standby.poll(now)
            {
                self.reap(worker);
            }
            let wake = match self.hold {
                Hold::Free if self.reaping >= MOST_AT_ONCE => None,
                Hold::Free => self.standby.poll_timeout(),
                Hold::Lost => None,
                Hold::Until(until) => Some(until),
            };
            tokio::select! {
                Some(done) = self.work.next(), if !self.work.is_empty() => self.handle_done(done),
                () = async { match wake {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }

    fn reap(&mut self, worker: WorkerId) {
        let (store, suspicion) = (self.store.clone(), self.suspicion);
        let (within, goes_on) = (self.heartbeat.max(SHORTEST_REAP), self.standby.goes_on(worker));
        self.reaping += 1;
        self.work.push(Box::pin(async move {
            let mut total = 0;
            loop {
                let result = store.reap(worker, within, suspicion).await;
                if let Ok((Reap::Reaped { moved, left, quarantined }, _)) = &result {
                    total += moved;
                    for job in quarantined {
                        tracing::error!(
                            %job, dead = %worker,
                            "its owners crashed soon after they were given it, again and again: it is given to nobody until a \
                             master requeues it"
                        );
                    }
                    if *left > 0 && goes_on {
                        continue;
                    }
                }
                return Done::Reaped { worker, moved: total, result };
            }
        }));
    }

    fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        if matches!(done, Done::Reaped { .. }) {
            self.reaping -= 1;
        }
        match done {
            Done::Reaped { worker, moved, result: Ok((reap, due)) } => {
                self.reaps.ends();
                self.handle_contact(now);
                self.handle_due(now, due);
                match reap {
                    Reap::Reaped { left, .. } if left > 0 => {
                        tracing::info!(dead = %worker, moved, left, "a worker's lock had ended: the rest is left to others");
                        self.standby.handle_reaping(now, worker);
                    }
                    Reap::Reaped { .. } => {
                        tracing::info!(
                            dead = %worker, moved,
                            "a worker's lock had ended: its jobs went to others, or wait where nobody has room"
                        );
                        self.standby.handle_gone(worker);
                        self.standby.handle_finished(now);
                    }
                    Reap::Nothing => self.standby.handle_gone(worker),
                    Reap::Alive { remaining } => self.standby.handle_alive(now, worker, remaining),
                    Reap::Kept { remaining } => {
                        tracing::info!(dead = %worker, ?remaining, "a worker's lock had ended: its jobs are kept for its name");
                        self.standby.handle_alive(now, worker, remaining);
                    }
                }
            }
            Done::Reaped { worker, moved, result: Err(error) } => {
                warn_first!(self.reaps.begins(&error), dead = %worker, moved, %error, "a reap was not finished; it is tried again");
                if moved == 0 {
                    self.handle_lost();
                }
            }
            Done::Rebalanced { marked, result } => {
                self.rebalancing = false;
                match result {
                    Ok(()) => {
                        if self.rebalances.ends() {
                            tracing::info!("rebalancing is asked for again");
                        }
                        if marked > 0 {
                            tracing::info!(marked, "jobs are to move to less loaded workers");
                        }
                    }
                    Err(error) => {
                        let first = self.rebalances.begins(&error);
                        warn_first!(first, marked, %error, "rebalancing was not asked for; it is later");
                    }
                }
            }
            Done::Placed { placed, result } => {
                self.placing = false;
                match result {
                    Ok(()) => {
                        self.places.ends();
                        tracing::debug!(placed, "waiting jobs were given out");
                    }
                    Err(error) => {
                        warn_first!(self.places.begins(&error), placed, %error, "waiting jobs could not be given out yet");
                    }
                }
            }
        }
    }
}
