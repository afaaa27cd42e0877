//! What the scripts do, as far as one worker sees it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{JobId, Revision};
use crate::message::{Body, Cursor, DeleteReason, Frame, Page, Row, RowState, SPAN};

/// A job that the server counts as the view's.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) grant: u64,
    /// Zero: deleted.
    pub(super) born: u64,
    /// Zero: never updated.
    pub(super) changed: u64,
    pub(super) payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Assigned,
    /// It is to go to another worker.
    Moving,
    /// It was deleted; if it has a birth, it was added again and waits for the release.
    Releasing,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) revision: u64,
    pub(super) inbox: u64,
    pub(super) lifted: u64,
    pub(super) mine: BTreeMap<JobId, Record>,
    /// Whether the worker is not on the load: it is given nothing.
    pub(super) off_the_load: bool,
    /// A master has ordered a drain, and has not taken it back.
    pub(super) ordered: bool,
    pub(super) page_rows: usize,
    /// How far apart revisions are, more or less: pages cut anywhere, and some residues are equal.
    pub(super) leap: u64,
}

impl Server {
    pub(super) fn new(start: u64, leap: u64, page_rows: usize) -> Self {
        let mut server = Self { revision: start, leap, page_rows, ..Self::default() };
        server.inbox = server.tick();
        server
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.revision += match (self.revision % 3, self.revision % 7) {
            (_, _) if self.leap == 0 => 1,
            (0, _) => self.leap,
            (_, uneven) => 1 + uneven * self.leap,
        };
        self.revision
    }

    fn send(&mut self, revision: u64, body: Body) -> Frame {
        let previous = Revision(std::mem::replace(&mut self.inbox, revision));
        Frame { revision: Revision(revision), previous, body }
    }

    /// A payload of its own for each job and revision.
    fn payload(job: &JobId, revision: u64) -> Bytes {
        Bytes::from(format!("{job} as of {revision}"))
    }

    /// A job is added, or one that waited elsewhere comes here.
    pub(super) fn assign(&mut self, job: JobId) -> Option<Frame> {
        match self.mine.get(&job) {
            Some(Record { state: State::Releasing, born: 0, .. }) => {
                let born = self.tick();
                let record = self.mine.get_mut(&job)?;
                (record.born, record.changed, record.payload) = (born, 0, Self::payload(&job, born));
                None
            }
            Some(_) => None,
            None if self.off_the_load => None,
            None => {
                let grant = self.tick();
                let payload = Self::payload(&job, grant);
                Some(self.hand(job, grant, grant, 0, payload))
            }
        }
    }

    fn hand(&mut self, job: JobId, grant: u64, born: u64, changed: u64, payload: Bytes) -> Frame {
        let record = Record { state: State::Assigned, grant, born, changed, payload: payload.clone() };
        self.mine.insert(job.clone(), record);
        self.send(grant, Body::Add { job, born: Revision(born), payload })
    }

    pub(super) fn update(&mut self, job: JobId) -> Option<Frame> {
        if self.mine.get(&job)?.born == 0 {
            return None;
        }
        let changed = self.tick();
        let payload = Self::payload(&job, changed);
        let record = self.mine.get_mut(&job)?;
        (record.changed, record.payload) = (changed, payload.clone());
        let (state, grant) = (record.state, Revision(record.grant));
        (state == State::Assigned).then(|| self.send(changed, Body::Update { job, grant, payload }))
    }

    pub(super) fn delete(&mut self, job: JobId) -> Option<Frame> {
        let record = self.mine.get_mut(&job)?;
        record.born = 0;
        let state = std::mem::replace(&mut record.state, State::Releasing);
        self.tell_end(job, state, DeleteReason::Removed)
    }

    pub(super) fn rebalance(&mut self, job: JobId) -> Option<Frame> {
        let record = self.mine.get_mut(&job)?;
        let state = record.state;
        if state == State::Assigned {
            record.state = State::Moving;
        }
        self.tell_end(job, state, DeleteReason::Rebalanced)
    }

    /// The owner is told once, whatever becomes of the job until it lets go.
    fn tell_end(&mut self, job: JobId, state: State, reason: DeleteReason) -> Option<Frame> {
        let grant = Revision(self.mine.get(&job)?.grant);
        (state == State::Assigned).then(|| {
            let revision = self.tick();
            self.send(revision, Body::Delete { job, grant, reason })
        })
    }

    /// Whether the job was the worker's by that grant. One that goes on comes back if it is to be `here`.
    pub(super) fn release(&mut self, job: &JobId, grant: Revision, here: bool) -> (bool, Option<Frame>) {
        if self.mine.get(job).is_none_or(|record| record.grant != grant.get()) {
            return (false, None);
        }
        let frame = self.mine.remove(job).filter(|record| here && record.born > 0 && !self.off_the_load);
        let frame = frame.map(|Record { born, changed, payload, .. }| {
            let grant = self.tick();
            self.hand(job.clone(), grant, born, changed, payload)
        });
        (true, frame)
    }

    /// A master has the worker give up its jobs, or lets it go on.
    pub(super) fn order(&mut self, drain: bool) -> Frame {
        self.ordered = drain;
        self.off_the_load |= drain;
        let revision = self.tick();
        self.send(revision, Body::Attend)
    }

    /// Another server is there, and a client that has seen it.
    pub(super) fn lift(&mut self) {
        self.lifted = self.tick();
    }

    /// A replica with an older state takes over. Its clock is by the time: never behind what the lost server gave out.
    pub(super) fn fail_over_to(&mut self, copy: &Self) {
        *self = Self { revision: self.revision, ..copy.clone() };
    }

    pub(super) fn page(&self, since: Revision, cursor: Option<Cursor>) -> Page {
        let residue = |record: &Record| record.grant % SPAN;
        let mut rows: Vec<_> = self.mine.iter().collect();
        rows.retain(|(_, record)| cursor.is_none_or(|cursor| residue(record) > cursor.0));
        rows.sort_by_key(|(_, record)| residue(record));
        // Never between two rows of equal residue.
        let end = (self.page_rows..rows.len()).find(|end| residue(rows[*end].1) != residue(rows[end - 1].1));
        let next = end.map(|end| Cursor(residue(rows[end - 1].1)));
        rows.truncate(end.unwrap_or(rows.len()));
        Page {
            revision: Revision(self.revision),
            inbox: Revision(self.inbox),
            lifted: Revision(self.lifted),
            next,
            rows: rows.into_iter().map(|(job, record)| row(job, record, since)).collect(),
        }
    }
}

fn row(job: &JobId, record: &Record, since: Revision) -> Row {
    let news = record.grant.max(record.changed) > since.get();
    Row {
        job: job.clone(),
        grant: Revision(record.grant),
        born: Revision(record.born),
        changed: Revision(record.changed),
        state: match record.state {
            State::Assigned => RowState::Active(news.then(|| record.payload.clone())),
            State::Moving => RowState::Moving,
            State::Releasing => RowState::Releasing,
        },
    }
}
