//! What watchers ask for: watch, history.

use std::time::Duration;

use super::{Store, millis, num};
use crate::error::Result;
use crate::id::Revision;
use crate::message::History;
use crate::redis::script;
use crate::wire::frame;

/// How many batches one answer has at most.
const BATCHES: u64 = 32;

impl Store {
    /// Has changes told and kept for so long from now; `length`: how many batches are kept. Returns the last batch's
    /// revision.
    pub(crate) async fn watch(&self, keep: Duration, length: u64) -> Result<Revision> {
        let k = &self.keys;
        let keys = [&*k.rev, &k.watch, &k.changes];
        let args = vec![millis(keep), num(length)];
        let mut reply = self.run("watching the cluster", &script::WATCH, &keys, args).await?;
        reply.int()?;
        reply.revision()
    }

    /// The changes after a revision, as far as they are kept.
    pub(crate) async fn history(&self, after: Revision) -> Result<History> {
        let k = &self.keys;
        let args = vec![num(after.get()), num(BATCHES)];
        let mut reply =
            self.run("asking for changes", &script::HISTORY, &[&k.watch, &k.changes, &k.rev], args).await?;
        let (reaches, target, more) = (reply.int()? == 1, reply.revision()?, reply.int()? == 1);
        let mut batches = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            // One that is not understood cannot be told: as good as lost.
            let Ok(batch) = frame::batch(&reply.bytes()?) else {
                return Ok(History { reaches: false, target, batches: Vec::new(), more: false });
            };
            batches.push(batch);
        }
        Ok(History { reaches, target, batches, more })
    }
}
