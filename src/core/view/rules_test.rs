//! One test for each promise and each rule of PROTOCOL.md that the view keeps.

mod bounds;
mod chain;
mod drain;
mod end;
mod failover;
mod turn;
mod update;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Command, View};
use crate::core::queue::Delivery;
use crate::id::{JobId, Revision};
use crate::message::{Body, CloseReason, Cursor, DeleteReason, Frame, Page, Row, RowState};

const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
const AUDIT_GRACE: Duration = Duration::from_millis(50);
const NO_ROWS: [Row; 0] = [];

fn id(job: &str) -> JobId {
    JobId::new(job).expect("a plain id")
}

fn add(previous: u64, revision: u64, job: &str) -> Frame {
    let body = Body::Add { job: id(job), born: Revision(revision), payload: Bytes::from_static(b"payload") };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn delete(previous: u64, revision: u64, job: &str, grant: u64) -> Frame {
    let body = Body::Delete { job: id(job), grant: Revision(grant), reason: DeleteReason::Removed };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn update(previous: u64, revision: u64, job: &str, grant: u64, payload: &'static str) -> Frame {
    let payload = Bytes::from_static(payload.as_bytes());
    let body = Body::Update { job: id(job), grant: Revision(grant), payload };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn rebalance(previous: u64, revision: u64, job: &str, grant: u64) -> Frame {
    let body = Body::Delete { job: id(job), grant: Revision(grant), reason: DeleteReason::Rebalanced };
    Frame { revision: Revision(revision), previous: Revision(previous), body }
}

fn attend(previous: u64, revision: u64) -> Frame {
    Frame { revision: Revision(revision), previous: Revision(previous), body: Body::Attend }
}

fn row(job: &str, grant: u64, state: RowState) -> Row {
    Row { job: id(job), grant: Revision(grant), born: Revision(grant), changed: Revision(0), state }
}

/// An active job as a page has it when its payload was asked for.
fn active(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Active(Some(Bytes::from_static(b"payload"))))
}

/// An active job that was granted before what the request named.
fn known(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Active(None))
}

/// An active job with its last update.
fn updated(job: &str, grant: u64, changed: u64, payload: &'static str) -> Row {
    let state = RowState::Active(Some(Bytes::from_static(payload.as_bytes())));
    Row { changed: Revision(changed), ..row(job, grant, state) }
}

fn releasing(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Releasing)
}

fn moving(job: &str, grant: u64) -> Row {
    row(job, grant, RowState::Moving)
}

fn page(revision: u64, inbox: u64, rows: impl IntoIterator<Item = Row>) -> Page {
    Page {
        revision: Revision(revision),
        inbox: Revision(inbox),
        lifted: Revision(0),
        next: None,
        rows: rows.into_iter().collect(),
    }
}

/// As a server has it that was lifted then.
fn lifted(at: u64, page: Page) -> Page {
    Page { lifted: Revision(at), ..page }
}

/// A view, and the short names by which a test speaks to it.
struct Bench {
    view: View,
    now: Instant,
}

impl Bench {
    /// In sync, holds nothing; the last frame was number 10.
    fn new() -> Self {
        let mut bench = Self { view: View::new(RELEASE_TIMEOUT, AUDIT_GRACE), now: Instant::now() };
        bench.view.handle_gap();
        bench.answer(page(10, 10, NO_ROWS));
        assert!(bench.commands().is_empty());
        bench
    }

    /// Holds `a` by 11, and the consumer has polled it.
    fn holding() -> Self {
        let mut bench = Self::new();
        bench.frame(add(10, 11, "a"));
        assert_eq!(bench.poll(), ["+a 11"]);
        bench
    }

    fn frame(&mut self, frame: Frame) {
        self.view.handle_frame(self.now, frame);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.view.handle_timeout(self.now);
    }

    fn drop_handle(&mut self, job: &str, grant: u64) {
        self.view.handle_dropped(self.now, &id(job), Revision(grant));
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.view.poll_command()).collect()
    }

    /// What is released, as `a 11`; any other command but a cancellation is not expected.
    fn releases(&mut self) -> Vec<String> {
        let mut releases = Vec::new();
        for command in self.commands() {
            match command {
                Command::Release { job, grant } => releases.push(format!("{job} {grant}")),
                Command::Cancel { .. } => {}
                other => panic!("not expected: {other:?}"),
            }
        }
        releases
    }

    /// The one sync that is asked for, if there is one.
    fn sync(&mut self) -> Option<(u64, Revision, Option<Cursor>)> {
        let mut syncs: Vec<_> = self
            .commands()
            .into_iter()
            .filter_map(|command| match command {
                Command::Sync { request, since, cursor } => Some((request, since, cursor)),
                Command::Attend | Command::Resubscribe | Command::Cancel { .. } | Command::Release { .. } => {
                    None
                }
            })
            .collect();
        assert!(syncs.len() <= 1, "several syncs at once: {syncs:?}");
        syncs.pop()
    }

    fn take(&mut self, request: u64, page: Page) {
        self.view.handle_page(self.now, request, page);
    }

    /// Answers the sync that is asked for now.
    fn answer(&mut self, page: Page) {
        let (request, ..) = self.sync().expect("a sync is asked for");
        self.take(request, page);
    }

    /// All that waits for the consumer: `+a 11` an Add, `~a 11` an Update, `-a 11` a Delete; then the grant.
    fn poll(&mut self) -> Vec<String> {
        let text = |delivery| match delivery {
            Delivery::Add { job, grant, .. } => format!("+{job} {grant}"),
            Delivery::Update { job, grant, .. } => format!("~{job} {grant}"),
            Delivery::Delete { job, grant, .. } => format!("-{job} {grant}"),
            Delivery::Problem(error) => {
                format!("{:?} {}", error.kind(), error.job().map_or("", JobId::as_str))
            }
            Delivery::Close(reason) => format!("{reason:?}"),
        };
        std::iter::from_fn(|| self.view.poll_delivery()).map(text).collect()
    }

    /// As `poll`, with more of it: `+a 11 @20 payload` (the epoch), `~a 11 @20 payload`, `-a 11 @20 Removed`.
    fn told(&mut self) -> Vec<String> {
        let text = |payload: Bytes| String::from_utf8_lossy(&payload).into_owned();
        let text = |delivery| match delivery {
            Delivery::Add { job, grant, epoch, payload, .. } => {
                format!("+{job} {grant} @{epoch} {}", text(payload))
            }
            Delivery::Update { job, grant, epoch, payload, .. } => {
                format!("~{job} {grant} @{epoch} {}", text(payload))
            }
            Delivery::Delete { job, grant, epoch, reason } => format!("-{job} {grant} @{epoch} {reason:?}"),
            other => panic!("not expected: {other:?}"),
        };
        std::iter::from_fn(|| self.view.poll_delivery()).map(text).collect()
    }
}
