//! A process with a worker, one after the other: its consumer writes down what it sees before it does anything with it.
//!
//! The times of a hold are inner ones: an `add` is noted after it was seen, a `drop` before the last handle goes. What
//! overlaps here has overlapped.

use std::collections::BTreeMap;
use std::time::Duration;

use assemblage::{
    CloseReason, Cluster, DeleteReason, Deletion, Event, Fence, Job, Worker, WorkerHandle, WorkerOptions,
};
use futures::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Commands, Role, failed, say};
use crate::checker::What;
use crate::settings::{MARGIN, RELEASE, TTL};

/// What becomes of a worker.
enum Next {
    /// Its stream ended, or its consumer had enough: the next one.
    Another,
    /// The soak is over.
    Over,
}

/// What the consumer does, beside what every consumer does.
struct Mood {
    roomy: bool,
    /// Until then it does not poll.
    busy: Option<Instant>,
    /// Until then whoever is told to let go takes so much longer.
    hold: Option<(Instant, Duration)>,
}

pub(crate) async fn work(cluster: Cluster, role: &Role, mut commands: Commands) {
    let mut options = WorkerOptions::default().weight(role.weight);
    if role.lenient {
        options = options.fence(Fence::Lenient);
    }
    if let Some(name) = &role.name {
        options = options.name(name).grace(Duration::from_millis(role.grace));
    }
    // Those with a name, the lenient ones and whoever is drained or full at times are not relied on to take anything.
    let roomy = role.roomy;
    loop {
        let worker = tokio::select! {
            worker = cluster.worker_with(options.clone()) => worker,
            never = refuse(&mut commands) => match never {},
        };
        match worker {
            Ok(worker) => {
                let mood = Mood { roomy, busy: None, hold: None };
                if let Next::Over = Consumer::new(&worker, role, mood).run(worker, &mut commands).await {
                    return;
                }
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What is asked of a worker while there is none comes to nothing.
async fn refuse(commands: &mut Commands) -> std::convert::Infallible {
    while commands.recv().await.is_some() {}
    std::future::pending().await
}

struct Consumer {
    worker: u64,
    handle: WorkerHandle,
    /// The jobs, and the epochs by which they came.
    held: BTreeMap<String, (u64, Job)>,
    mood: Mood,
}

impl Consumer {
    fn new(worker: &Worker, role: &Role, mood: Mood) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).expect("a short time");
        let number = worker.id().get();
        say(What::Joined {
            worker: number,
            ttl: us(TTL),
            margin: us(MARGIN),
            release: us(RELEASE),
            grace: role.grace * 1_000,
            lenient: role.lenient,
        });
        if !mood.roomy {
            say(What::Takes { worker: number, all: false });
        }
        Self { worker: number, handle: worker.handle(), held: BTreeMap::new(), mood }
    }

    async fn run(mut self, mut worker: Worker, commands: &mut Commands) -> Next {
        let number = self.worker;
        loop {
            let busy = self.mood.busy;
            tokio::select! {
                event = worker.next(), if busy.is_none() => match event {
                    Some(event) => self.see(event),
                    None => {
                        say(What::End { worker: number });
                        return Next::Another;
                    }
                },
                () = sleep_until(busy.unwrap_or_else(Instant::now)), if busy.is_some() => {
                    self.mood.busy = None;
                    say(What::Free { worker: number });
                }
                command = commands.recv() => match command {
                    Some(line) => if self.obey(&line) {
                        say(What::Gone { worker: number });
                        self.leave_alone();
                        drop(worker);
                        return Next::Another;
                    },
                    None => return Next::Over,
                },
            }
        }
    }

    fn see(&mut self, event: Event) {
        let worker = self.worker;
        match event {
            Event::Add(job) => {
                let (id, epoch) = (job.id().to_string(), job.epoch().get());
                say(What::Add { worker, job: id.clone(), epoch, payload: payload(&job) });
                listen(worker, &job, epoch);
                self.held.insert(id, (epoch, job));
            }
            Event::Update(job) => {
                let (id, epoch) = (job.id().to_string(), job.epoch().get());
                say(What::Update { worker, job: id.clone(), epoch, payload: payload(&job) });
                if let Some((_, held)) = self.held.get_mut(&id) {
                    *held = job;
                }
            }
            Event::Delete(deletion) => self.let_go(deletion),
            Event::Close(reason) => {
                say(What::Close { worker, reason: close(reason).to_owned() });
            }
            Event::Error(error) => {
                let job = error.job().map(ToString::to_string);
                say(What::Error { worker, kind: format!("{:?}", error.kind()), job });
            }
            other => panic!("a new event: {other:?}"),
        }
    }

    fn let_go(&mut self, deletion: Deletion) {
        let (worker, id) = (self.worker, deletion.id().to_string());
        let reason = delete(deletion.reason()).to_owned();
        say(What::Delete { worker, job: id.clone(), epoch: deletion.epoch().get(), reason });
        let Some((epoch, job)) = self.held.remove(&id) else { return };
        let handles = (job, deletion);
        let time = self.time_to_stop(epoch);
        if time.is_zero() {
            say(What::Drop { worker, job: id, epoch });
            drop(handles);
        } else {
            tokio::spawn(async move {
                sleep(time).await;
                say(What::Drop { worker, job: id, epoch });
                drop(handles);
            });
        }
    }

    /// How long a handler takes to stop: mostly nothing, at times a while, and too long in a mood.
    fn time_to_stop(&self, epoch: u64) -> Duration {
        match self.mood.hold {
            Some((until, extra)) if Instant::now() < until => extra,
            _ if epoch.is_multiple_of(4) => Duration::from_millis(epoch / 4 % 60),
            _ => Duration::ZERO,
        }
    }

    /// The worker is dropped with jobs in hand: each handler stops when it is told.
    fn leave_alone(&mut self) {
        for (id, (epoch, job)) in std::mem::take(&mut self.held) {
            let (worker, time) = (self.worker, self.time_to_stop(epoch));
            tokio::spawn(async move {
                job.deleted().await;
                say(What::Told { worker, job: id.clone(), epoch });
                sleep(time).await;
                say(What::Drop { worker, job: id, epoch });
                drop(job);
            });
        }
    }

    /// Whether the consumer drops the worker.
    fn obey(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).expect("a number");
        let time = |at| Duration::from_millis(number(at));
        match words[0] {
            "terminate" => drop(tokio::spawn(self.handle.terminate())),
            "drop" => return true,
            "drain" => drop(tokio::spawn(self.handle.drain())),
            "resume" => self.handle.resume(),
            "capacity" => {
                let jobs = u32::try_from(number(1)).expect("a capacity");
                self.handle.set_capacity((jobs > 0).then_some(jobs)).expect("a capacity");
            }
            "weight" => {
                self.handle.set_weight(u32::try_from(number(1)).expect("a weight")).expect("a weight");
            }
            "busy" => {
                if self.mood.busy.is_none() {
                    say(What::Busy { worker: self.worker });
                    self.mood.busy = Some(Instant::now() + time(1));
                }
            }
            "hold" => self.mood.hold = Some((Instant::now() + time(1), time(2))),
            "block" => self.block(time(1)),
            "delete" => self.delete_one(words[1].to_owned(), number(2)),
            other => panic!("no such command: {other}"),
        }
        false
    }

    /// Everything on this thread stands still, as in a handler that does not yield. The consumer is among it, and nobody
    /// else may notice: another thread of the runtime goes on. One that does not look anyway says by itself when it does.
    fn block(&self, time: Duration) {
        let looks = self.mood.busy.is_none();
        if looks {
            say(What::Busy { worker: self.worker });
        }
        std::thread::sleep(time);
        if looks {
            say(What::Free { worker: self.worker });
        }
    }

    /// A worker asks for the end of one of its jobs.
    fn delete_one(&self, op: String, number: u64) {
        let jobs: Vec<&(u64, Job)> = self.held.values().collect();
        if jobs.is_empty() {
            return;
        }
        let at = usize::try_from(number).expect("small") % jobs.len();
        let token_and_job = jobs[at].1.clone();
        tokio::spawn(async move {
            let job = token_and_job;
            let names = vec![job.id().to_string()];
            say(What::Ask {
                op: op.clone(),
                call: "delete-own".to_owned(),
                jobs: names.clone(),
                payload: None,
            });
            // The clone that asks is a handle as well, and is given up when the job is.
            let deleted = tokio::select! {
                deleted = job.delete() => deleted,
                () = job.deleted() => return,
            };
            drop(job);
            match deleted {
                Ok(known) => {
                    let code = if known { "deleted" } else { "unknown" };
                    say(What::Done { op, jobs: names, codes: vec![code.to_owned()] });
                }
                Err(error) => say(failed(op, error.kind())),
            }
        });
    }
}

/// Notes when the job's token is cancelled, whether or not the stream is polled. It holds no handle to the job.
fn listen(worker: u64, job: &Job, epoch: u64) {
    let (id, token) = (job.id().to_string(), job.cancellation_token());
    tokio::spawn(async move {
        token.cancelled().await;
        say(What::Told { worker, job: id, epoch });
    });
}

fn payload(job: &Job) -> String {
    job.payload::<String>().unwrap_or_else(|_| "unreadable".to_owned())
}

fn close(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Terminated => "Terminated",
        CloseReason::Evicted => "Evicted",
        CloseReason::LockExpired => "LockExpired",
        CloseReason::ClusterReset => "ClusterReset",
        _ => "Other",
    }
}

fn delete(reason: DeleteReason) -> &'static str {
    match reason {
        DeleteReason::Removed => "Removed",
        DeleteReason::Rebalanced => "Rebalanced",
        DeleteReason::LockExpired => "LockExpired",
        DeleteReason::Terminated => "Terminated",
        DeleteReason::Drained => "Drained",
        DeleteReason::Evicted => "Evicted",
        DeleteReason::ClusterReset => "ClusterReset",
        _ => "Other",
    }
}
