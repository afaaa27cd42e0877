//! What a watcher is told: every change once, in order, from the channel, the journal, or a snapshot.
//!
//! ```text
//!            gap, or no room for more             the journal reaches back
//!  Live ------------------------------> Filling ---------------------------> Live
//!    ^                                     | it does not
//!    |   the journal, or what came         v
//!    +------- meanwhile, up to <-- Snapshot: Reset, pages, .. Synced
//! ```
//!
//! Changes come in batches, one a script. Each has the revision of the batch before it, so a gap is seen. The queue
//! for the consumer is bounded: what finds no room is not kept, but asked for again when there is room.
//!
//! Calling order: any `handle_*`; after each, and after each `poll_change`, `poll_command` until `None`.

use std::collections::VecDeque;

use crate::change::{Change, Filter};
use crate::id::Revision;
use crate::message::{Batch, History};

/// What the driver is to do. Only the newest counts: an answer to an older one is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The batches after this revision.
    History { request: u64, after: Revision },
    /// A page of what there is. `None`: the first.
    Page { request: u64, cursor: Option<String> },
}

/// A page of what there is, told as changes.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) changes: Vec<Change>,
    pub(crate) next: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Feed {
    capacity: usize,
    filter: Filter,
    queue: VecDeque<Change>,
    /// Batches that came while something before them was missing.
    waiting: VecDeque<Batch>,
    waiting_changes: usize,
    /// Some of those were not kept.
    overflown: bool,
    /// The last batch that was taken in: the chain.
    last: Revision,
    phase: Phase,
    /// A snapshot is being told, and `Synced` is owed when the chain has come so far.
    owed: Option<Revision>,
    resetting: bool,
    request: u64,
    ask: Option<Ask>,
}

#[derive(Debug)]
enum Phase {
    /// What the channel brings is what is next.
    Live,
    /// Asked for what is missing.
    Filling,
    /// Asked for a page of what there is.
    Picturing,
    /// There is no room: this is to be asked for when there is.
    Full(Missing),
}

#[derive(Debug)]
enum Missing {
    History,
    Page(Option<String>),
}

impl Feed {
    /// Begins after `since`, if the journal reaches back so far, or with a snapshot. `capacity`: how many changes
    /// wait for the consumer at most; about as many wait for a gap to be filled.
    pub(crate) fn new(capacity: usize, filter: Filter, since: Option<Revision>) -> Self {
        let mut feed = Self {
            capacity: capacity.max(1),
            filter,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_changes: 0,
            overflown: false,
            last: since.unwrap_or_default(),
            phase: Phase::Filling,
            owed: None,
            resetting: false,
            request: 0,
            ask: None,
        };
        match since {
            Some(_) => feed.fill(),
            None => feed.reset(),
        }
        feed
    }

    /// The channel brought a batch.
    pub(crate) fn handle_batch(&mut self, batch: Batch) {
        if batch.last <= self.last {
            return; // a duplicate
        }
        if !matches!(self.phase, Phase::Live) {
            self.keep(batch);
        } else if batch.previous != self.last {
            self.keep(batch);
            self.fill();
        } else if self.queue.len() + batch.changes.len() > self.capacity && !self.queue.is_empty() {
            self.phase = Phase::Full(Missing::History);
        } else {
            self.take_in(batch);
        }
    }

    /// Something may have been missed.
    pub(crate) fn handle_gap(&mut self) {
        match self.phase {
            Phase::Live | Phase::Filling => self.fill(),
            // It is asked for afterwards anyway.
            Phase::Picturing | Phase::Full(_) => self.overflown = true,
        }
    }

    /// The server has another history now, or none: only a snapshot helps.
    pub(crate) fn handle_break(&mut self) {
        self.forget_waiting();
        self.last = Revision::default();
        self.reset();
    }

    /// A heartbeat told what the last batch was.
    pub(crate) fn handle_audit(&mut self, last: Revision) {
        if matches!(self.phase, Phase::Live) && last > self.last {
            self.fill();
        }
    }

    /// An answer did not come. The driver calls `retry` after a while.
    pub(crate) fn handle_failed(&mut self, request: u64) {
        if request == self.request {
            self.request += 1; // a late answer counts no more
        }
    }

    /// Asks again for what is missing.
    pub(crate) fn retry(&mut self) {
        match self.phase {
            Phase::Live | Phase::Full(_) => {}
            Phase::Filling => self.fill(),
            Phase::Picturing => self.reset(),
        }
    }

    pub(crate) fn handle_history(&mut self, request: u64, history: History) {
        if request != self.request || !matches!(self.phase, Phase::Filling) {
            return;
        }
        let History { reaches, target, batches, more } = history;
        if self.resetting {
            self.owed.get_or_insert(target);
        }
        let reaches = reaches && batches.first().is_none_or(|first| first.previous <= self.last);
        if reaches {
            for batch in batches {
                self.take_in(batch);
            }
            if more {
                return self.fill();
            }
            self.last = self.last.max(target);
        } else if self.overflown || self.waiting.front().is_none_or(|first| first.previous > self.last) {
            // Nothing else has it, unless nothing is missing at all.
            if self.last < target {
                return self.reset();
            }
        }
        self.catch_up();
    }

    pub(crate) fn handle_page(&mut self, request: u64, read_at: Revision, picture: Picture) {
        if request != self.request || !matches!(self.phase, Phase::Picturing) {
            return;
        }
        if self.last == Revision::default() {
            self.last = read_at; // of the first page: what is after it comes from the journal
        }
        self.enqueue(picture.changes);
        match picture.next {
            Some(cursor) => self.page(Some(cursor)),
            None => self.fill(),
        }
    }

    pub(crate) fn poll_command(&mut self) -> Option<Ask> {
        if let Phase::Full(missing) = &mut self.phase
            && self.queue.len() <= self.capacity / 2
        {
            match std::mem::replace(missing, Missing::History) {
                Missing::History => self.fill(),
                Missing::Page(cursor) => self.page(cursor),
            }
        }
        self.ask.take()
    }

    /// What the consumer gets next.
    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.queue.pop_front()
    }

    pub(crate) fn has_change(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the consumer is behind, and there is something to ask for as soon as it is not.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.phase, Phase::Full(_))
    }

    fn keep(&mut self, batch: Batch) {
        if self.overflown {
            return;
        }
        self.waiting_changes += batch.changes.len();
        if self.waiting_changes > self.capacity {
            self.forget_waiting();
            self.overflown = true;
            return;
        }
        self.waiting.push_back(batch);
    }

    fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_changes = 0;
        self.overflown = false;
    }

    fn take_in(&mut self, batch: Batch) {
        let last = self.last;
        // A batch that was told in part goes on where it stopped.
        let new = batch.changes.into_iter().filter(|change| change.revision() > Some(last));
        let new: Vec<_> = new.collect();
        self.enqueue(new);
        self.last = self.last.max(batch.last);
        self.settle();
    }

    fn enqueue(&mut self, changes: Vec<Change>) {
        let filter = &self.filter;
        self.queue.extend(changes.into_iter().filter(|change| filter.passes(change)));
    }

    /// What waited is next, as far as it fits.
    fn catch_up(&mut self) {
        self.phase = Phase::Live;
        while let Some(batch) = self.waiting.pop_front() {
            self.waiting_changes -= batch.changes.len();
            if batch.last <= self.last {
                continue;
            }
            if batch.previous > self.last {
                self.waiting_changes += batch.changes.len();
                self.waiting.push_front(batch);
                return self.fill();
            }
            self.take_in(batch);
        }
        self.waiting_changes = 0;
        self.settle();
        if std::mem::take(&mut self.overflown) {
            self.fill();
        }
    }

    /// Says that the snapshot is whole, once it is.
    fn settle(&mut self) {
        if let Some(target) = self.owed
            && self.last >= target
        {
            self.owed = None;
            self.resetting = false;
            self.queue.push_back(Change::Synced { revision: self.last });
        }
    }

    fn fill(&mut self) {
        if self.queue.len() >= self.capacity {
            self.phase = Phase::Full(Missing::History);
            return;
        }
        self.phase = Phase::Filling;
        self.request += 1;
        self.ask = Some(Ask::History { request: self.request, after: self.last });
    }

    fn reset(&mut self) {
        self.owed = None;
        self.resetting = true;
        self.last = Revision::default();
        // What it has not seen of the time before it need not see any more.
        self.queue.clear();
        self.queue.push_back(Change::Reset);
        self.page(None);
    }

    fn page(&mut self, cursor: Option<String>) {
        if self.queue.len() >= self.capacity {
            self.phase = Phase::Full(Missing::Page(cursor));
            return;
        }
        self.phase = Phase::Picturing;
        self.request += 1;
        self.ask = Some(Ask::Page { request: self.request, cursor });
    }
}
