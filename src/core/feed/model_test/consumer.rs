//! The consumer: what it was told, and what it must never be told.

use super::server::{Server, State};
use crate::change::{Change, Filter};
use crate::id::Revision;

#[derive(Debug)]
pub(super) struct Consumer {
    filter: Filter,
    /// Made of all that it was told.
    state: State,
    phase: Phase,
    pub(super) resets: usize,
    /// Another server has taken over, and nobody has seen it: until they have, it may be told anything.
    in_doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It knows all up to this revision.
    Synced(Revision),
    /// The next one must be a `Reset`.
    Outdated,
    /// Between `Reset` and `Synced`.
    Resetting,
}

impl Consumer {
    pub(super) fn new(filter: Filter, since: Option<Revision>, server: &Server) -> Self {
        Self {
            filter,
            state: since.map(|since| server.state_at(since)).unwrap_or_default(),
            phase: since.map_or(Phase::Outdated, Phase::Synced),
            resets: 0,
            in_doubt: false,
        }
    }

    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    pub(super) fn handle_break(&mut self) {
        (self.in_doubt, self.phase) = (false, Phase::Outdated);
    }

    fn sees_all(&self) -> bool {
        self.filter.kinds.is_none() && self.filter.prefix.is_empty()
    }

    /// What it is told next, and what must come before that.
    fn next<'a>(&self, server: &'a Server) -> Option<&'a Change> {
        let Phase::Synced(at) = self.phase else { return None };
        server.log.iter().find(|change| change.revision() > Some(at) && self.filter.passes(change))
    }

    pub(super) fn take(&mut self, change: &Change, server: &Server) {
        if let Change::Reset = change {
            (self.state, self.phase) = (State::default(), Phase::Resetting);
            self.resets += 1;
            return;
        }
        assert!(self.filter.passes(change), "{change:?} was not asked for");
        let revision = change.revision().expect("all but Reset have one");
        match self.phase {
            _ if self.in_doubt => {}
            Phase::Outdated => panic!("{change:?} and no Reset before it"),
            Phase::Resetting => {}
            Phase::Synced(at) => {
                assert!(!matches!(change, Change::Synced { .. }), "Synced without a Reset");
                assert_eq!(Some(change), self.next(server), "next after {at}, once and in order");
                let hole = server.holes.iter().find(|hole| at.0 < **hole && **hole < revision.0);
                assert_eq!(hole, None, "what was before {revision} is left out");
                self.phase = Phase::Synced(revision);
            }
        }
        if let Change::Synced { .. } = change {
            self.phase = Phase::Synced(revision);
        } else {
            self.state.apply(change);
        }
        if self.sees_all() && !self.in_doubt && self.phase == Phase::Synced(revision) {
            assert_eq!(self.state, server.state_at(revision), "as of {revision}");
        }
    }

    /// It knows everything, and is told what comes next without having to ask.
    pub(super) fn assert_up_to_date(&self, server: &Server) {
        let Phase::Synced(_) = self.phase else { panic!("{:?} at the end", self.phase) };
        assert_eq!(self.next(server), None, "at the end all is told");
        if self.sees_all() {
            assert_eq!(self.state, server.state, "at the end");
        }
    }
}
