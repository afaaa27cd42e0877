//! The one error type: what went wrong, where, and what to do next.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::id::JobId;

/// What this crate's fallible calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is. Match on this; the text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting of the builder, or a combination of settings, was refused. Nothing was sent.
    InvalidSetting,
    /// A job id was refused. Nothing was sent.
    InvalidId,
    /// A payload is larger than the cluster's limit. Nothing was sent.
    PayloadTooLarge,
    /// A payload could not be written as MessagePack. Nothing was sent.
    Encode,
    /// A payload is not what the caller asked for. Only this job is concerned.
    Decode,
    /// The server could not be reached; nothing was done.
    Connection,
    /// No answer came in time: it is not known whether the server did it. It will not be done later.
    Timeout,
    /// The server refuses the user: wrong password, or a command, key or channel that its ACL denies.
    Denied,
    /// The server is at its memory limit and takes nothing new.
    OutOfMemory,
    /// The server, or the cluster in it, speaks a version that this crate does not.
    Incompatible,
    /// The server answered with an error of another kind; the text has its words.
    Server,
    /// What came from the server is not what the protocol says.
    Protocol,
    /// The worker's lock has ended, or the worker has left, or the runtime that the connection was made in has ended: it can do
    /// nothing more.
    Closed,
    /// The cluster has as many jobs or workers as this process allows. Nothing was done.
    LimitReached,
    /// It was done on the primary, but not as many replicas as asked for have said in time that they have it: a failover
    /// now may undo it.
    Unreplicated,
    /// A living worker has the name. The newcomer did not join.
    NameTaken,
    /// A handler held a job for longer than the release timeout; the job was released without it.
    ReleaseTimeout,
    /// A worker's stream was polled too slowly for its errors: those beyond the 64 that wait were left out, and the text says how
    /// many. Poll it without waiting for anything else in between. Nothing else is missing: every job's events are
    /// there, and each [`ReleaseTimeout`](Self::ReleaseTimeout).
    Lagged,
    /// A handler of [`serve`](crate::Cluster::serve) failed, panicked, or did not end by its deadline; the text says which, why, and
    /// what happens next. The other jobs go on.
    Handler,
}

/// What went wrong. [`kind`](Self::kind) is for programs, the text for people; neither has a password or a
/// payload in it.
///
/// The text (`Display`) is one line and complete: what failed, the job, what the source says (the server's words, or those of
/// a handler's error), and what to do. [`source`](StdError::source) has that source as a value, for programs: whoever prints
/// it too says it twice.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    job: Option<JobId>,
    /// What to do or what happens next, each begun by `; `.
    notes: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), job: None, notes: String::new(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    pub(crate) fn with_job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// Adds what else is to be known: at the end, behind what the source says.
    pub(crate) fn note(mut self, text: &str) -> Self {
        self.notes.push_str("; ");
        self.notes.push_str(text);
        self
    }

    /// Leaves out what to do: the caller does it.
    pub(crate) fn without_notes(mut self) -> Self {
        self.notes.clear();
        self
    }

    /// What the source says and may be shown. What a payload's `Serialize` says may have the payload in it.
    fn said(&self) -> Option<String> {
        let source = self.source.as_deref().filter(|_| self.kind != ErrorKind::Encode)?;
        Some(one_line(source)).filter(|text| !text.is_empty())
    }

    /// Which kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The job that is concerned, if it is one job's failure.
    pub fn job(&self) -> Option<&JobId> {
        self.job.as_ref()
    }

    /// Whether the same call may succeed later without a change by the caller: when the server or the network is well
    /// again ([`Connection`](ErrorKind::Connection), [`Timeout`](ErrorKind::Timeout), [`OutOfMemory`](ErrorKind::OutOfMemory)), or
    /// when other participants have made room ([`LimitReached`](ErrorKind::LimitReached), [`NameTaken`](ErrorKind::NameTaken)).
    ///
    /// After a [`Timeout`](ErrorKind::Timeout) a repeated call may find that the first one was carried out:
    /// give the job an id of your own, then a second add of it is `Existing`.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind as K;
        matches!(self.kind, K::Connection | K::Timeout | K::OutOfMemory | K::LimitReached | K::NameTaken)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        if let Some(job) = &self.job {
            write!(f, " (job {job})")?;
        }
        if let Some(said) = self.said() {
            write!(f, ": {said}")?;
        }
        f.write_str(&self.notes)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind).field("context", &self.context);
        if let Some(job) = &self.job {
            out.field("job", job);
        }
        if !self.notes.is_empty() {
            out.field("notes", &self.notes.trim_start_matches("; "));
        }
        if let Some(source) = &self.source {
            out.field("source", &source.to_string());
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// The longest text of a source that is shown, in characters.
const LONGEST_TEXT: usize = 500;

/// An error with its sources, on one line and not for ever. Many errors have their source's text in their own: that is not
/// said twice.
fn one_line(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    let mut text = flat(error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let more = flat(source.to_string());
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text.chars().take(LONGEST_TEXT).collect()
}

fn flat(text: String) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(text: &str) -> std::io::Error {
        std::io::Error::other(text.to_owned())
    }

    /// Promise: whoever prints an error has seen all of it, on one line, each thing once.
    #[test]
    fn the_text_says_what_failed_whose_job_why_and_what_to_do() {
        let job = JobId::new("mail/7").expect("an id");
        let error = Error::new(ErrorKind::Handler, "a handler failed").with_job(job.clone());
        let error = error.with_source(io("no route\n  to host\u{1b}")).note("it is started again");
        assert_eq!(error.to_string(), "a handler failed (job mail/7): no route to host; it is started again");
        assert!(error.source().is_some(), "it is there as a value too");

        let outer = Error::new(ErrorKind::Handler, "outer").with_source(error).with_job(job);
        let text = outer.to_string();
        assert_eq!(text.matches("no route").count(), 1, "{text}");

        let long = Error::new(ErrorKind::Handler, "long").with_source(io(&"x".repeat(10_000)));
        assert!(long.to_string().len() < 600);
    }

    /// Promise: no payload in any text; a `Serialize` may quote what it refuses.
    #[test]
    fn what_a_payloads_serialize_says_is_not_in_the_text() {
        let error = Error::new(ErrorKind::Encode, "it cannot be written").with_source(io("hunter2"));
        assert_eq!(error.to_string(), "it cannot be written");
    }
}
