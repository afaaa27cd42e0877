//! A sync that is out: its pages, and the frames that wait for its end.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::{JobId, Revision};
use crate::message::{Cursor, Frame, Page, Row, SPAN};

/// How many frames wait for a sync at most. If more come, all are dropped and the sync is made again.
pub(super) const MOST_WAITING: usize = 10_000;

/// A request under way. Only the newest request's pages count: an overtaken one would bring back what was
/// released since (rule 1).
#[derive(Debug)]
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

    /// The rows, and what else the snapshot says.
    pub(super) fn finish(mut self) -> Option<(First, HashMap<JobId, Row>, Coverage)> {
        let released = self.released;
        self.rows.retain(|job, row| released.is_empty() || !released.contains(&(job.clone(), row.grant)));
        Some((self.first?, self.rows, Coverage(self.pages)))
    }
}

/// Which page covers which grants.
#[derive(Debug)]
pub(super) struct Coverage(Vec<Bound>);

impl Coverage {
    /// When the page was read that would have this grant. A frame about the grant that is not newer is in it.
    pub(super) fn read_at(&self, grant: Revision) -> Revision {
        let residue = Cursor(grant.get() % SPAN);
        let page = self.0.iter().find(|page| page.upto.is_none_or(|upto| residue <= upto));
        page.map_or_else(Revision::default, |page| page.revision)
    }
}

/// Frames that came while a sync was out.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    frames: VecDeque<Frame>,
    overflown: bool,
}

impl WaitingRoom {
    pub(super) fn push(&mut self, frame: Frame) {
        if self.overflown {
            return;
        }
        if self.frames.len() == MOST_WAITING {
            self.overflown = true;
            self.frames.clear();
            return;
        }
        self.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Whether frames were dropped; from now on they are kept again.
    pub(super) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflown)
    }
}
