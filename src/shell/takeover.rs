//! The takeover of dead workers' jobs: when the standby says so, reap, batch after batch; and hand out what waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::sleep_until;

use crate::core::standby::Standby;
use crate::error::Result;
use crate::id::WorkerId;
use crate::message::Control;
use crate::redis::store::{Due, Reap, Store};

/// How long one rank waits for the one before it: some round trips, far less than anybody would notice.
const STEP: Duration = Duration::from_millis(5);

pub(crate) struct Takeover {
    store: Arc<Store>,
    /// Not reaped by itself: a worker's own lock is its lease's business.
    me: Option<WorkerId>,
    standby: Standby,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    placing: bool,
}

enum Done {
    Reaped { worker: WorkerId, moved: u64, result: Result<(Reap, Option<Due>)> },
    Placed { placed: u64, result: Result<()> },
}

impl Takeover {
    /// For a worker, or for a master (which is nobody's successor, and acts at once).
    pub(crate) fn new(store: Arc<Store>, me: Option<WorkerId>) -> Self {
        Self { store, me, standby: Standby::new(STEP), work: FuturesUnordered::new(), placing: false }
    }

    pub(crate) fn handle_rank(&mut self, rank: u64) {
        self.standby.handle_rank(rank);
    }

    /// What a beat, a survey or a reap told of the lock that ends first.
    pub(crate) fn handle_due(&mut self, now: Instant, due: Option<Due>) {
        match due {
            Some(due) => self.standby.handle_due(due.worker, now + due.after),
            None => self.standby.handle_none_due(),
        }
    }

    pub(crate) fn handle_lock_ended(&mut self, now: Instant, worker: WorkerId) {
        if self.me != Some(worker) {
            self.standby.handle_lock_ended(now, worker);
        }
    }

    pub(crate) fn handle_control(&mut self, now: Instant, control: Control) {
        match control {
            Control::Reaping(worker) if self.me == Some(worker) => {}
            Control::Reaping(worker) => self.standby.handle_reaping(now, worker),
            Control::Reaped(worker) | Control::Left(worker) => self.standby.handle_gone(worker),
        }
    }

    /// How many jobs wait although a worker has room.
    pub(crate) fn handle_waiting(&mut self, waiting: u64) {
        if waiting > 0 && !self.placing {
            self.placing = true;
            let store = self.store.clone();
            self.work.push(Box::pin(async move {
                let mut placed = 0;
                let result = loop {
                    match store.place().await {
                        Ok(batch) => {
                            placed += batch.placed;
                            if batch.waiting == 0 || batch.placed == 0 {
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
            while let Some(worker) = self.standby.poll(Instant::now()) {
                if self.me != Some(worker) {
                    self.reap(worker);
                }
            }
            let wake = self.standby.poll_timeout();
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
        let store = self.store.clone();
        self.work.push(Box::pin(async move {
            let mut total = 0;
            loop {
                let result = store.reap(worker).await;
                if let Ok((Reap::Reaped { moved, left }, _)) = &result {
                    total += moved;
                    if *left > 0 {
                        continue;
                    }
                }
                return Done::Reaped { worker, moved: total, result };
            }
        }));
    }

    fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Reaped { worker, moved, result: Ok((reap, due)) } => {
                self.handle_due(now, due);
                match reap {
                    Reap::Reaped { .. } => {
                        tracing::info!(reaped = %worker, moved, "a worker's lock had ended: its jobs went to others");
                        self.standby.handle_gone(worker);
                    }
                    Reap::Nothing => self.standby.handle_gone(worker),
                    Reap::Alive { remaining } => self.standby.handle_alive(now, worker, remaining),
                }
            }
            Done::Reaped { worker, moved, result: Err(error) } => {
                tracing::warn!(reaped = %worker, moved, %error, "a reap was not finished; it is tried again");
            }
            Done::Placed { placed, result } => {
                self.placing = false;
                match result {
                    Ok(()) => tracing::debug!(placed, "waiting jobs were given out"),
                    Err(error) => tracing::warn!(placed, %error, "waiting jobs could not be given out yet"),
                }
            }
        }
    }
}
