//! Where the driver and the consumer meet: the view and the lease behind one lock, and the holds given out.
//!
//! ```text
//! driver --- frames, pages, times ---> View --- deliveries ---> Worker (Stream) ---> consumer
//!   ^                                    |                                              |
//!   +------ commands, drops <------------+------------------- last handle dropped <----+
//! ```

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::options::check_terms;
use crate::cluster::Shared;
use crate::core::lease::{Fence, Lease};
use crate::core::queue::Delivery;
use crate::core::view::{Command, View};
use crate::error::Result;
use crate::event::{Deletion, Event};
use crate::id::{Epoch, JobId, Revision};
use crate::job::{Dropped, Hold, Job};
use crate::message::{CloseReason, Terms};
use crate::redis::store::Store;

/// How long a frame may be under way between the server's two connections to us before it counts as lost.
const AUDIT_GRACE: Duration = Duration::from_millis(50);

pub(crate) struct Desk {
    state: Mutex<State>,
    /// There is something for the driver to do.
    driver: Notify,
    /// Cancelled when the driver has ended.
    ended: CancellationToken,
    drain: watch::Sender<Drain>,
    store: Arc<Store>,
    dropped: mpsc::UnboundedSender<Dropped>,
}

pub(crate) struct State {
    pub(crate) view: View,
    pub(crate) lease: Lease,
    /// What the driver is to send.
    pub(crate) commands: VecDeque<Command>,
    /// How far the consumer has let the worker live.
    pub(crate) wish: Wish,
    /// On what terms the consumer has it take part.
    pub(crate) terms: Terms,
    holds: HashMap<JobId, Arc<Hold>>,
    consumer: Option<Waker>,
}

/// What the consumer wants of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// To work.
    Serve,
    /// To give up its jobs, and stay.
    Drain,
    /// To leave in order; events are polled to the end.
    Terminate,
    /// To leave in order; nobody polls any more.
    Abandon,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// There is none.
    None,
    /// Jobs are being given up.
    Running,
    /// The worker holds nothing.
    Done,
}

impl Desk {
    pub(crate) fn new(
        cluster: &Shared,
        terms: Terms,
        fence: Fence,
        sent: Instant,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Dropped>) {
        let settings = &cluster.settings;
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = State {
            view: View::new(settings.release_timeout, AUDIT_GRACE),
            lease: Lease::new(settings.lock_ttl, settings.fence_margin(), fence, sent),
            commands: VecDeque::new(),
            wish: Wish::Serve,
            terms,
            holds: HashMap::new(),
            consumer: None,
        };
        let desk = Self {
            state: Mutex::new(state),
            driver: Notify::new(),
            ended: CancellationToken::new(),
            drain: watch::Sender::new(Drain::None),
            store: cluster.store.clone(),
            dropped: sender,
        };
        (Arc::new(desk), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves the state as it was between two inputs: it is made of whole steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state, then what follows from it: handlers are told to stop and the consumer is woken,
    /// outside the lock, since both run code that is not ours.
    pub(crate) fn act<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = action(&mut state);
        let (cancelled, consumer) = state.settle();
        drop(state);
        for hold in cancelled {
            hold.cancel();
        }
        if let Some(consumer) = consumer {
            consumer.wake();
        }
        result
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.act(|state| state.view.handle_close(reason));
    }

    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        // A process that was stopped and goes on must not hand out what it has lost meanwhile.
        let now = Instant::now();
        self.act(|state| {
            if !state.view.is_closed() && state.lease.is_over(now) {
                state.view.handle_close(CloseReason::LockExpired);
                self.driver.notify_one();
            }
            if let Some(delivery) = state.view.poll_delivery() {
                return Poll::Ready(Some(self.event(state, delivery)));
            }
            if state.view.is_finished() {
                return Poll::Ready(None);
            }
            match &mut state.consumer {
                Some(waker) => waker.clone_from(cx.waker()),
                empty @ None => *empty = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    fn event(&self, state: &mut State, delivery: Delivery) -> Event {
        match delivery {
            Delivery::Add { job, grant, epoch, born, payload } => {
                let hold = self.hold(state, job, grant, epoch, born);
                Event::Add(Job::new(hold, payload))
            }
            Delivery::Update { job, grant, epoch, born, payload } => {
                let hold = self.hold(state, job, grant, epoch, born);
                hold.set_epoch(epoch);
                Event::Update(Job::new(hold, payload))
            }
            Delivery::Delete { job, grant, epoch, reason } => {
                let hold = self.hold(state, job, grant, epoch, Revision::default());
                state.holds.remove(&hold.job);
                Event::Delete(Deletion::new(hold, reason))
            }
            Delivery::Problem(error) => Event::Error(error),
            Delivery::Close(reason) => Event::Close(reason),
        }
    }

    /// The hold of an assignment: made at its `Add`, kept here until its `Delete` takes it along, so that its
    /// last handle is never dropped before.
    fn hold(
        &self,
        state: &mut State,
        job: JobId,
        grant: Revision,
        epoch: Epoch,
        born: Revision,
    ) -> Arc<Hold> {
        match state.holds.get(&job) {
            Some(hold) if hold.grant == grant => hold.clone(),
            _ => {
                let hold =
                    Hold::new(job.clone(), grant, epoch, born, self.store.clone(), self.dropped.clone());
                let hold = Arc::new(hold);
                state.holds.insert(job, hold.clone());
                hold
            }
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.lock().view.is_finished()
    }

    pub(crate) fn terminate(&self) -> impl Future<Output = ()> + Send + 'static {
        self.wish(Wish::Terminate);
        self.ended.clone().cancelled_owned()
    }

    /// The consumer is gone for good.
    pub(crate) fn abandon(&self) {
        self.wish(Wish::Abandon);
    }

    /// The worker gives up its jobs, and stays. Resolves when it holds nothing, has ended, or is to go on.
    pub(crate) fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut progress = self.drain.subscribe();
        let ended = self.ended.clone();
        if self.wish(Wish::Drain) {
            self.drain.send_if_modified(|drain| {
                *drain == Drain::None && {
                    *drain = Drain::Running;
                    true
                }
            });
        }
        async move {
            tokio::select! {
                _ = progress.wait_for(|drain| *drain != Drain::Running) => {}
                () = ended.cancelled() => {}
            }
        }
    }

    /// The worker is drained no more.
    pub(crate) fn resume(&self) {
        if self.wish(Wish::Serve) {
            self.drain.send_replace(Drain::None);
        }
    }

    /// The driver says how far it is. What was wished for meanwhile counts more.
    pub(crate) fn note_drained(&self) {
        self.drain.send_if_modified(|drain| {
            *drain == Drain::Running && {
                *drain = Drain::Done;
                true
            }
        });
    }

    pub(crate) fn set_terms(&self, change: impl FnOnce(&mut Terms)) -> Result<()> {
        let mut state = self.lock();
        let mut terms = state.terms;
        change(&mut terms);
        check_terms(&terms)?;
        state.terms = terms;
        drop(state);
        self.driver.notify_one();
        Ok(())
    }

    /// Whether it can be: who leaves, leaves.
    fn wish(&self, wish: Wish) -> bool {
        let mut state = self.lock();
        let possible = wish >= state.wish || state.wish == Wish::Drain;
        if possible {
            state.wish = wish;
        }
        drop(state);
        self.driver.notify_one();
        possible
    }

    /// Takes the events in the place of a consumer that is gone, and drops them: a `Delete` that is dropped
    /// leaves the job to the handles that the consumer has kept.
    pub(crate) fn discard_events(&self) {
        loop {
            let event =
                self.act(|state| state.view.poll_delivery().map(|delivery| self.event(state, delivery)));
            if event.is_none() {
                return;
            }
        }
    }

    /// Resolves when there is something for the driver.
    pub(crate) async fn driver_wanted(&self) {
        self.driver.notified().await;
    }

    pub(crate) fn driver_ended(&self) {
        self.ended.cancel();
    }
}

impl State {
    fn settle(&mut self) -> (Vec<Arc<Hold>>, Option<Waker>) {
        let mut cancelled = Vec::new();
        while let Some(command) = self.view.poll_command() {
            match command {
                Command::Cancel { job, grant } => {
                    cancelled.extend(self.holds.get(&job).filter(|hold| hold.grant == grant).cloned());
                }
                command => self.commands.push_back(command),
            }
        }
        let consumer = if self.view.has_delivery() { self.consumer.take() } else { None };
        (cancelled, consumer)
    }
}
