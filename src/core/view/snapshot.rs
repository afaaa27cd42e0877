//! A sync that is out: its pages, and the frames that wait for its end.

#[cfg(test)]
mod walk;

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::{JobId, Revision};
use crate::message::{Body, Cursor, Frame, Page, Row, SPAN};

/// How many frames wait for a sync at most. If more come, all are dropped and the sync is made again.
pub(super) const MOST_WAITING: usize = 10_000;

/// How many bytes of payload wait at most: ten thousand frames of the largest payload would be too much.
pub(super) const MOST_WAITING_BYTES: usize = 64 << 20;

/// A request under way. Only the newest request's pages count: an overtaken one would bring back what was
/// released since (rule 1).
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub(super) request: u64,
    /// Payloads were asked for only of grants after this.
    pub(super) since: Revision,
    pages: Vec<Bound>,
    rows: HashMap<JobId, Row>,
    first: Option<First>,
    /// Releases that were answered meanwhile: a row about one was read before.
    released: HashSet<(JobId, Revision)>,
}

/// What the first page said; the chain of frames goes on from there (rule 2).
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) revision: Revision,
    pub(super) inbox: Revision,
    pub(super) lifted: Revision,
}

/// Up to which residue a page reaches, and when it was read.
#[derive(Clone, Copy, Debug)]
struct Bound {
    upto: Option<Cursor>,
    revision: Revision,
}

/// What to do after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for the page that begins here.
    Page(Cursor),
    /// It was the last.
    Finish,
    /// The pages do not belong together: begin anew.
    Restart,
}

impl Sync {
    pub(super) fn new(request: u64, since: Revision) -> Self {
        Self {
            request,
            since,
            pages: Vec::new(),
            rows: HashMap::new(),
            first: None,
            released: HashSet::new(),
        }
    }

    pub(super) fn handle_page(&mut self, page: Page) -> Next {
        let Page { revision, inbox, lifted, next, rows } = page;
        let first = *self.first.get_or_insert(First { revision, inbox, lifted });
        let reached = self.pages.last().and_then(|page| page.upto);
        if first.lifted != lifted || (next.is_some() && next <= reached) {
            return Next::Restart;
        }
        self.pages.push(Bound { upto: next, revision });
        for row in rows {
            // A job that was assigned anew between two pages may be in both: the later grant is true.
            match self.rows.get(&row.job) {
                Some(known) if known.grant >= row.grant => {}
                _ => {
                    self.rows.insert(row.job.clone(), row);
                }
            }
        }
        next.map_or(Next::Finish, Next::Page)
    }

    /// From now on the server does not count the job as ours by this grant.
    pub(super) fn handle_released(&mut self, job: &JobId, grant: Revision) {
        self.released.insert((job.clone(), grant));
    }

    /// The rows, and what else the snapshot says. `lifted` is what the view knows: a server with another lift may have
    /// forgotten what it was told.
    pub(super) fn finish(self, lifted: Revision) -> Option<(First, HashMap<JobId, Row>, Coverage)> {
        let (first, mut rows) = (self.first?, self.rows);
        if first.lifted == lifted {
            for (job, grant) in self.released {
                if rows.get(&job).is_some_and(|row| row.grant == grant) {
                    rows.remove(&job);
                }
            }
        }
        Some((first, rows, Coverage(self.pages)))
    }
}

/// Which page covers which grants.
#[derive(Clone, Debug)]
pub(super) struct Coverage(Vec<Bound>);

impl Coverage {
    /// When the page was read that was read last.
    pub(super) fn newest(&self) -> Revision {
        self.0.iter().map(|page| page.revision).max().unwrap_or_default()
    }

    /// When the page was read that would have this grant. A frame about the grant that is not newer is in it.
    pub(super) fn read_at(&self, grant: Revision) -> Revision {
        let residue = Cursor(grant.get() % SPAN);
        let page = self.0.iter().find(|page| page.upto.is_none_or(|upto| residue <= upto));
        page.map_or_else(Revision::default, |page| page.revision)
    }
}

/// Frames that came while a sync was out. One room a sync.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingRoom {
    frames: VecDeque<Frame>,
    bytes: usize,
    overflown: bool,
}

impl WaitingRoom {
    pub(super) fn push(&mut self, frame: Frame) {
        if self.overflown {
            return;
        }
        if let Body::Add { payload, .. } | Body::Update { payload, .. } = &frame.body {
            self.bytes = self.bytes.saturating_add(payload.len());
        }
        if self.frames.len() == MOST_WAITING || self.bytes > MOST_WAITING_BYTES {
            *self = Self { overflown: true, ..Self::default() };
            return;
        }
        self.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Whether frames were dropped. The next sync begins with an empty room.
    pub(super) fn has_overflown(&self) -> bool {
        self.overflown
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
}
