//! One async function for each script: typed in, typed out. Nothing is decided here.

mod inquiry;
mod jobs;
mod members;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use inquiry::JobState;
pub(crate) use inquiry::{Crash, Record, RosterRow, Survey};
pub(crate) use jobs::{AddCode, DeleteCode, Placed, UpdateCode};
pub(crate) use members::{Beat, Due, Ended, Entry, Joined, Lock, Member, Opened, Reap, Refusal, Suspicion};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::connect::Commands;
use super::error::code;
use super::login::Login;
use super::reply::Reply;
use super::route;
use super::script::Script;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::keys::Keys;

/// The version of the protocol that this crate speaks.
pub(crate) const PROTOCOL: u64 = 1;

/// At most so many jobs in one script call that changes them: less than a millisecond of the server's time, so that twice
/// that is not exceeded where the machine is slow.
pub(crate) const BATCH_JOBS: usize = 25;

/// At most so many rows in one answer of what is read page by page.
pub(crate) const PAGE_ROWS: usize = 200;

/// At most so many jobs in one call that moves them from worker to worker: that costs twice as much as an add.
pub(crate) const BATCH_MOVES: usize = 20;

/// At most about so many bytes of payload in one script call.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

pub(crate) struct Store {
    commands: Commands,
    login: Login,
    keys: Arc<Keys>,
    slot: u16,
    timeout: Duration,
    clock: Mutex<ServerClock>,
}

/// Why a script that refuses to run late was not run.
enum Late {
    /// It was late, and nothing was done.
    Was(Error),
    Other(Error),
}

impl Late {
    fn into_error(self) -> Error {
        match self {
            Self::Was(error) | Self::Other(error) => error,
        }
    }
}

/// What is known of the server's clock: at `heard` by ours it was at least `us`.
#[derive(Clone, Copy)]
struct ServerClock {
    us: u64,
    heard: Instant,
}

impl Store {
    pub(crate) fn new(commands: Commands, keys: Arc<Keys>, timeout: Duration) -> Self {
        let slot = route::slot(&keys);
        let clock = Mutex::new(ServerClock { us: 0, heard: Instant::now() });
        let login = Login::new(&commands);
        Self { commands, login, keys, slot, timeout, clock }
    }

    /// An error of a command that is no script, or what is behind it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.login.explain("waiting for an answer", error)
    }

    /// The client for the next command, which `what` says to people.
    fn client(&self, what: &str) -> Result<&Client> {
        let client = self.commands.client();
        self.login.check(what, client)?;
        Ok(client)
    }

    /// The first keys of each script that may give a job to a worker: all but `add` take them all.
    fn moving_keys(&self) -> [&str; 11] {
        let k = &self.keys;
        [
            &k.rev,
            &k.jobs,
            &k.owner,
            &k.assigned,
            &k.pending,
            &k.load,
            &k.inbox,
            &k.terms,
            &k.crashes,
            &k.watch,
            &k.changes,
        ]
    }

    /// Runs a script. `what` says to people what was tried.
    async fn run(
        &self,
        what: &str,
        script: &'static Script,
        keys: &[&str],
        args: Vec<Bytes>,
    ) -> Result<Reply> {
        self.run_within(self.timeout, what, script, keys, args).await
    }

    async fn run_within(
        &self,
        timeout: Duration,
        what: &str,
        script: &'static Script,
        keys: &[&str],
        args: Vec<Bytes>,
    ) -> Result<Reply> {
        let client = self.client(what)?;
        let answer = script.run(client, self.slot, timeout, keys, || args.clone()).await;
        Reply::new(script.name, answer.map_err(|error| self.login.translate(what, &error))?)
    }

    /// Runs a script that refuses to run late: what the caller has given up on is not carried out afterwards.
    /// `args` makes the arguments of the latest time, by the server's clock, in microseconds.
    ///
    /// Where the outcome is unknown before that time has come (the connection is lost, and a server that is slow has the
    /// call already), the error waits for it: until then it may still be carried out.
    async fn run_in_time(
        &self,
        what: &str,
        script: &'static Script,
        keys: &[&str],
        args: impl Fn(u64) -> Vec<Bytes>,
    ) -> Result<Reply> {
        // Where the server's clock is ahead of what we thought, nothing was done: once more, by its clock.
        let mut is_first = true;
        let (sent, answer) = loop {
            let sent = Instant::now();
            let answer = self.run_by(sent, self.timeout, what, script, keys, &args).await;
            if !std::mem::take(&mut is_first) || !matches!(answer, Err(Late::Was(_))) {
                break (sent, answer);
            }
        };
        if let Err(Late::Other(error)) = &answer
            && error.kind() == ErrorKind::Timeout
        {
            tokio::time::sleep_until((sent + self.timeout).into()).await;
        }
        answer.map_err(Late::into_error)
    }

    /// As [`run_in_time`](Self::run_in_time), but once, and with a time of its own.
    async fn run_by(
        &self,
        sent: Instant,
        within: Duration,
        what: &str,
        script: &'static Script,
        keys: &[&str],
        args: impl Fn(u64) -> Vec<Bytes>,
    ) -> Result<Reply, Late> {
        let client = self.client(what).map_err(Late::Other)?;
        let not_after = self.server_time(sent).saturating_add(within.as_micros() as u64);
        let answer = script.run(client, self.slot, self.timeout, keys, || args(not_after)).await;
        match answer {
            Err(error) if code(&error) == "LATE" => {
                let now = error.details().split_ascii_whitespace().nth(1).and_then(|now| now.parse().ok());
                self.note_time(now.unwrap_or(0), Instant::now());
                Err(Late::Was(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{what}: it took longer than the command timeout to get there; nothing was done. Try again"
                    ),
                )))
            }
            Err(error) if code(&error) == "LIMIT" => Err(Late::Other(Error::new(
                ErrorKind::LimitReached,
                format!(
                    "{what}: the cluster has as many jobs as this master allows; nothing was done. Delete some, or raise \
                     max_jobs"
                ),
            ))),
            answer => {
                let value = answer.map_err(|error| Late::Other(self.login.translate(what, &error)))?;
                Reply::new(script.name, value).map_err(Late::Other)
            }
        }
    }

    /// Waits until so many replicas have all that was written before the call. `what` says to people what that was.
    pub(crate) async fn replicated(&self, what: &str, replicas: u32, within: Duration) -> Result<()> {
        let custom = |name| CustomCommand::new_static(name, ClusterHash::Custom(self.slot), false);
        let ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1).to_string();
        // WAIT looks at what its own connection has written last, and ours may be another one by now. So there is a write
        // of its own before it, in one piece with it: whatever was written earlier comes earlier to the replicas.
        let pipeline = self.client(what)?.pipeline();
        let set: Vec<&str> = vec![&self.keys.durable, "1", "PX", "60000"];
        let queued = async {
            let () = pipeline.custom(custom("SET"), set).await?;
            let () = pipeline.custom(custom("WAIT"), vec![replicas.to_string(), ms]).await?;
            pipeline.all::<(Value, u32)>().await
        };
        let patience = within + self.timeout;
        let answer = match tokio::time::timeout(patience, queued).await {
            Ok(answer) => answer.map_err(|error| self.login.translate(what, &error))?,
            Err(_) => (Value::Null, 0),
        };
        let (_, have) = answer;
        if have >= replicas {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unreplicated,
            format!(
                "{what}: done, but {have} of {replicas} replicas said within {within:?} that they have it; a failover now may \
                 undo it. Look whether the replicas are there"
            ),
        ))
    }

    /// The server's clock cannot be earlier than this, unless it was set. So a latest time that is counted from it is never
    /// too late, however long the answer took that told of the clock: one that is too early is refused, and mended.
    pub(super) fn server_time(&self, now: Instant) -> u64 {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.us.saturating_add(now.saturating_duration_since(clock.heard).as_micros() as u64)
    }

    /// An answer that came at `heard` says that the server's clock was `us` when it was made.
    pub(super) fn note_time(&self, us: u64, heard: Instant) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = ServerClock { us, heard };
    }
}

/// An argument that is text already.
fn arg(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

/// A number as an argument.
fn num(number: impl Into<u64>) -> Bytes {
    Bytes::from(number.into().to_string())
}

/// A duration as an argument: whole milliseconds, at least one.
fn millis(duration: Duration) -> Bytes {
    num(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1))
}
