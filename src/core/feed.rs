//! What a watcher is told: every change once, in order, from the channel, the journal, or a snapshot.
//!
//! ```text
//!            gap, or no room for more             the journal reaches back
//!  Live ------------------------------> History ---------------------------> Live
//!    ^                                     | it does not
//!    |   the journal, or what came         v
//!    +------- meanwhile, up to <---- Page: Reset, pages, .. Synced
//! ```
//!
//! Changes come in batches, one a script. Each has the revision of the batch before it, so a gap is seen. What the
//! channel brings is a hint, which anybody can forge: where it goes on from is only believed as far as the journal and
//! the heartbeats agree.
//!
//! What is kept is bounded. `queue` has fewer changes than `capacity`, and one batch or page on top; `waiting` at most
//! `capacity`, or one batch. What finds no room is not kept, but asked for again when there is room.
//!
//! Calling order: any `handle_*`; after each, and after each `poll_change`, `poll_command` until `None`.

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod rules_test;

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
    /// Batches that came while something before them was missing. Empty when live.
    waiting: VecDeque<Heard>,
    waiting_weight: usize,
    /// More may be missing than what was asked for.
    unsure: bool,
    /// The last batch that was taken in: the chain.
    last: Revision,
    phase: Phase,
    telling: Telling,
    request: u64,
    ask: Option<Ask>,
}

#[derive(Debug)]
enum Phase {
    /// What the channel brings is what is next.
    Live,
    /// This was asked for.
    Asking(Missing),
    /// There is no room: this is to be asked for when there is.
    Full(Missing),
    /// The answer did not come: this is to be asked for again in a while.
    Failed(Missing),
}

/// What is missing.
#[derive(Clone, Debug)]
enum Missing {
    /// The batches after the last.
    History,
    /// A page of a snapshot.
    Page(Option<String>),
}

/// How far a snapshot is told.
#[derive(Debug)]
enum Telling {
    /// None is, or it is whole.
    Whole,
    /// Its pages are.
    Pages,
    /// Its pages are told; it is whole when the chain has come so far.
    Until(Revision),
}

/// A batch that waits, and how many requests had been made when it came.
#[derive(Debug)]
struct Heard {
    batch: Batch,
    during: u64,
}

impl Heard {
    /// At least 1: a batch of nothing takes room too.
    fn weight(&self) -> usize {
        self.batch.changes.len().max(1)
    }
}

impl Feed {
    /// Begins after `since`, if the journal reaches back so far, or with a snapshot. `capacity`: how many changes
    /// wait for the consumer; as many wait for a gap to be filled.
    pub(crate) fn new(capacity: usize, filter: Filter, since: Option<Revision>) -> Self {
        let mut feed = Self {
            capacity: capacity.max(1),
            filter,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_weight: 0,
            unsure: false,
            last: since.unwrap_or_default(),
            phase: Phase::Live,
            telling: Telling::Whole,
            request: 0,
            ask: None,
        };
        match since {
            Some(_) => feed.ask_for(Missing::History),
            None => feed.handle_break(),
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
        } else if batch.previous != self.last || !self.has_room() {
            self.keep(batch);
            self.ask_for(Missing::History);
        } else {
            self.take_in(batch);
        }
    }

    /// Something may have been missed.
    pub(crate) fn handle_gap(&mut self) {
        match self.phase {
            Phase::Live | Phase::Failed(Missing::History) => self.ask_for(Missing::History),
            // Not at once: gap after gap would keep every answer from being used.
            Phase::Asking(_) | Phase::Full(_) | Phase::Failed(Missing::Page(_)) => self.unsure = true,
        }
    }

    /// The server has another history now, or none: only a snapshot helps.
    pub(crate) fn handle_break(&mut self) {
        self.forget_waiting(); // all of it was before the first page
        self.telling = Telling::Pages;
        self.last = Revision::default();
        // What the consumer has not seen of the time before it need not see any more.
        self.queue.clear();
        self.queue.push_back(Change::Reset);
        self.ask_for(Missing::Page(None));
    }

    /// The last batch that is known, if nothing is known to be missing: for `handle_audit`, when a heartbeat is sent.
    pub(crate) fn known(&self) -> Option<Revision> {
        matches!(self.phase, Phase::Live).then_some(self.last)
    }

    /// A heartbeat told what the last batch was. `known`: when it was sent.
    pub(crate) fn handle_audit(&mut self, known: Option<Revision>, last: Revision) {
        if known.is_some_and(|known| known > last) {
            self.handle_break(); // the server never had it, or has forgotten it
        } else if matches!(self.phase, Phase::Live) && last > self.last {
            self.ask_for(Missing::History);
        }
    }

    /// An answer did not come. The driver calls `retry` after a while.
    pub(crate) fn handle_failed(&mut self, request: u64) {
        if request == self.request
            && let Phase::Asking(missing) = &self.phase
        {
            self.phase = Phase::Failed(missing.clone());
        }
    }

    /// Asks again for what could not be had.
    pub(crate) fn retry(&mut self) {
        if let Phase::Failed(missing) = &self.phase {
            self.ask_for(missing.clone());
        }
    }

    pub(crate) fn handle_history(&mut self, request: u64, history: History) {
        if request != self.request || !matches!(self.phase, Phase::Asking(Missing::History)) {
            return;
        }
        let History { reaches, target, batches, more } = history;
        if matches!(self.telling, Telling::Pages) {
            self.telling = Telling::Until(target);
        }
        let before = self.last;
        for batch in batches.into_iter().filter(|_| reaches) {
            if batch.previous > self.last {
                break; // the journal has a hole
            }
            if !self.has_room() {
                return self.ask_for(Missing::History);
            }
            self.take_in(batch);
        }
        if more && self.last > before {
            return self.ask_for(Missing::History);
        }
        self.doubt(target);
        if reaches && self.last >= target {
            self.last = target; // what it began from may be later than the last batch
        } else if self.last > target || (self.last < target && !self.goes_on()) {
            return self.handle_break();
        }
        self.catch_up();
    }

    /// `read_at`, of the first page: the last batch before it. What is after that comes from the journal.
    pub(crate) fn handle_page(&mut self, request: u64, read_at: Option<Revision>, picture: Picture) {
        if request != self.request || !matches!(self.phase, Phase::Asking(Missing::Page(_))) {
            return;
        }
        if let Some(read_at) = read_at {
            self.last = read_at;
        }
        self.queue.extend(picture.changes.into_iter().filter(|change| self.filter.passes(change)));
        self.ask_for(picture.next.map_or(Missing::History, |cursor| Missing::Page(Some(cursor))));
    }

    pub(crate) fn poll_command(&mut self) -> Option<Ask> {
        if let Phase::Full(missing) = &self.phase
            && self.queue.len() <= self.capacity / 2
        {
            self.ask_for(missing.clone());
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

    fn has_room(&self) -> bool {
        self.queue.len() < self.capacity
    }

    fn keep(&mut self, mut batch: Batch) {
        batch.changes.retain(|change| self.filter.passes(change));
        batch.changes.shrink_to_fit();
        let heard = Heard { batch, during: self.request };
        if !self.waiting.is_empty() && self.waiting_weight + heard.weight() > self.capacity {
            self.forget_waiting();
            self.unsure = true;
        }
        self.waiting_weight += heard.weight();
        self.waiting.push_back(heard);
    }

    fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_weight = 0;
        self.unsure = false;
    }

    /// Of what waits, forgets what was taken in, and what cannot be: it came before the request was made, and is later
    /// than the last batch that there was when that was answered.
    fn doubt(&mut self, target: Revision) {
        let (last, request) = (self.last, self.request);
        let is_new = |heard: &Heard| heard.batch.last > last;
        self.waiting.retain(|heard| is_new(heard) && (heard.during >= request || heard.batch.last <= target));
        self.waiting_weight = self.waiting.iter().map(Heard::weight).sum();
    }

    /// Whether what waits goes on where the chain is.
    fn goes_on(&self) -> bool {
        self.waiting.front().is_some_and(|heard| heard.batch.previous <= self.last)
    }

    fn take_in(&mut self, batch: Batch) {
        // A batch that was told in part goes on where it stopped.
        let (last, filter) = (self.last, &self.filter);
        let is_new = |change: &Change| change.revision() > Some(last) && filter.passes(change);
        self.queue.extend(batch.changes.into_iter().filter(is_new));
        self.last = self.last.max(batch.last);
        self.settle();
    }

    /// What waited is next, as far as it fits.
    fn catch_up(&mut self) {
        self.phase = Phase::Live;
        while let Some(heard) = self.waiting.pop_front() {
            self.waiting_weight -= heard.weight();
            if heard.batch.last <= self.last {
                continue;
            }
            if heard.batch.previous > self.last || !self.has_room() {
                self.waiting_weight += heard.weight();
                self.waiting.push_front(heard);
                return self.ask_for(Missing::History);
            }
            self.take_in(heard.batch);
        }
        self.settle();
        if std::mem::take(&mut self.unsure) {
            self.ask_for(Missing::History);
        }
    }

    /// Says that the snapshot is whole, once it is.
    fn settle(&mut self) {
        if let Telling::Until(target) = self.telling
            && self.last >= target
        {
            self.telling = Telling::Whole;
            self.queue.push_back(Change::Synced { revision: self.last });
        }
    }

    /// Asks, if there is room for an answer.
    fn ask_for(&mut self, missing: Missing) {
        self.request += 1; // whatever was asked for before counts no more
        if !self.has_room() {
            self.ask = None;
            self.phase = Phase::Full(missing);
            return;
        }
        let request = self.request;
        self.ask = Some(match &missing {
            Missing::History => Ask::History { request, after: self.last },
            Missing::Page(cursor) => Ask::Page { request, cursor: cursor.clone() },
        });
        self.phase = Phase::Asking(missing);
    }
}
