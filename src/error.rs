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
    /// The server answered with an error of another kind.
    Server,
    /// What came from the server is not what the protocol says.
    Protocol,
    /// The worker's lock has ended, or the worker has left: it can do nothing more.
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
    /// A handler of [`serve`](crate::Cluster::serve) failed, panicked, or did not end by its deadline; the text says which, and what
    /// happens next. The other jobs go on.
    Handler,
}

/// What went wrong. [`kind`](Self::kind) is for programs, the text for people; neither has a password or a
/// payload in it.
#[cfg_attr(test, derive(Clone))]
pub struct Error {
    kind: ErrorKind,
    context: String,
    job: Option<JobId>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), job: None, source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    pub(crate) fn with_job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// Adds what else is to be known.
    pub(crate) fn note(mut self, text: &str) -> Self {
        self.context.push_str("; ");
        self.context.push_str(text);
        self
    }

    /// Which kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The job that is concerned, if it is one job's failure.
    pub fn job(&self) -> Option<&JobId> {
        self.job.as_ref()
    }

    /// Whether the same call may succeed later without a change by the caller.
    ///
    /// After a [`Timeout`](ErrorKind::Timeout) a repeated call may find that the first one was carried out:
    /// give the job an id of your own, then a second add of it is `Existing`.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::OutOfMemory)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        if let Some(job) = &self.job {
            write!(f, " (job {job})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind).field("context", &self.context);
        if let Some(job) = &self.job {
            out.field("job", job);
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
