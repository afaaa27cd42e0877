//! `serve`: a handler for each job, started, stopped, started again and aborted as promised; one at once, ever.

mod ends;
mod handlers;
mod locks;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use assemblage::{AddOptions, Cluster, DeleteReason, Error, ErrorKind, JobId, JobState, Result, Serve, Task};
use futures::FutureExt;
use nix::sys::signal::Signal;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, Process, RedisServer, Report, TTL, add_jobs, builder, cluster, until};

/// What the handlers of a test did: each says when it begins, and ends by dropping its [`Run`].
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    running: HashSet<JobId>,
    begun: HashMap<JobId, Vec<(Instant, u64)>>,
    ended: HashMap<JobId, Vec<Instant>>,
    errors: Vec<Error>,
    violations: Vec<String>,
}

struct Run {
    runs: Runs,
    job: JobId,
}

impl Runs {
    fn begin(&self, task: &Task) -> Run {
        let mut book = self.0.lock().unwrap();
        let (job, epoch) = (task.id().clone(), task.epoch().get());
        if !book.running.insert(job.clone()) {
            book.violations.push(format!("{job}: two handlers at once"));
        }
        let begun = book.begun.entry(job.clone()).or_default();
        let older = begun.last().is_some_and(|(_, before)| *before > epoch);
        begun.push((Instant::now(), epoch));
        if older {
            book.violations.push(format!("{job}: an older epoch"));
        }
        drop(book);
        Run { runs: self.clone(), job }
    }

    /// Makes a listener for `on_error`.
    fn listener(&self) -> impl Fn(Error) + Send + Sync + 'static {
        let runs = self.clone();
        move |error| runs.0.lock().unwrap().errors.push(error)
    }

    fn running(&self) -> usize {
        self.0.lock().unwrap().running.len()
    }

    fn is_running(&self, job: &JobId) -> bool {
        self.0.lock().unwrap().running.contains(job)
    }

    fn begun(&self, job: &JobId) -> Vec<(Instant, u64)> {
        self.0.lock().unwrap().begun.get(job).cloned().unwrap_or_default()
    }

    fn ended(&self, job: &JobId) -> Vec<Instant> {
        self.0.lock().unwrap().ended.get(job).cloned().unwrap_or_default()
    }

    /// The errors that were reported of a job, as kind and text.
    fn errors_of(&self, job: &JobId) -> Vec<(ErrorKind, String)> {
        let book = self.0.lock().unwrap();
        let of_job = book.errors.iter().filter(|error| error.job() == Some(job));
        of_job.map(|error| (error.kind(), error.to_string())).collect()
    }

    /// Fails the test if a promise was broken, or what a handler asserts: its panic was caught.
    fn assert_clean(&self) {
        let book = self.0.lock().unwrap();
        assert!(book.violations.is_empty(), "{:#?}", book.violations);
        let panics: Vec<_> =
            book.errors.iter().filter(|error| error.to_string().contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut book = self.runs.0.lock().unwrap();
        book.running.remove(&self.job);
        book.ended.entry(self.job.clone()).or_default().push(Instant::now());
    }
}

/// Serves with handlers that say when they begin and end, and do this in between.
fn serve_as<F, W, E>(cluster: &Cluster, runs: &Runs, work: F) -> Serve
where
    F: Fn(Runs, Task) -> W + Send + Sync + 'static,
    W: Future<Output = std::result::Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = runs.listener();
    let runs = runs.clone();
    let serve = cluster.serve(move |task: Task| {
        let (runs, work) = (runs.clone(), work(runs.clone(), task.clone()));
        async move {
            let _run = runs.begin(&task);
            work.await
        }
    });
    serve.on_error(listener)
}

/// A good handler: works until it is to stop.
async fn obey(runs: Runs, task: Task) -> Result<()> {
    let _run = runs.begin(&task);
    task.stopped().await;
    Ok(())
}

/// Serves with good handlers.
fn serve_well(cluster: &Cluster, runs: &Runs) -> Serve {
    let (listener, runs) = (runs.listener(), runs.clone());
    cluster.serve(move |task| obey(runs.clone(), task)).on_error(listener)
}

fn spawn(serve: Serve) -> JoinHandle<Result<()>> {
    tokio::spawn(serve.into_future())
}

/// What a `Serve` ended with, which it must.
async fn ended(serve: JoinHandle<Result<()>>) -> Result<()> {
    tokio::time::timeout(PATIENCE, serve).await.expect("it ends").expect("it does not panic")
}

/// A cluster whose workers keep their locks on a machine that is busy.
async fn steady(server: &RedisServer) -> Cluster {
    builder().lock_ttl(Duration::from_secs(15)).connect_url(server.url()).await.unwrap()
}

fn named(id: &str) -> (JobId, AddOptions) {
    let id = JobId::new(id).unwrap();
    (id.clone(), AddOptions::default().id(id))
}
