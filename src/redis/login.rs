//! Why no answer comes: that nobody listens there, or that a user is no longer let in, is told only when a connection is made
//! again, which is fred's to do, and commands wait for that in vain.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::connect::Commands;
use super::error::{Fault, code, translate};
use crate::error::{Error, ErrorKind, Result};

/// Listens to what befalls the connections of the clients for commands.
pub(super) struct Login(Mutex<Vec<Ear>>);

struct Ear {
    client: Client,
    errors: Receiver<(FredError, Option<Server>)>,
    /// The last thing that befell it, if it is without a connection since.
    trouble: Option<FredError>,
    closed: bool,
}

impl Login {
    pub(super) fn new(commands: &Commands) -> Self {
        let clients = match commands {
            Commands::Client(client) => vec![client.clone()],
            Commands::Pool(pool) => pool.clients().to_vec(),
        };
        let ear = |client: Client| Ear { errors: client.error_rx(), client, trouble: None, closed: false };
        Self(Mutex::new(clients.into_iter().map(ear).collect()))
    }

    /// An error, if it is plain that a command would be answered by nobody: an application that has quit its client makes
    /// fred keep it for a connection that may never come.
    pub(super) fn check(&self, what: &str, client: &Client) -> Result<()> {
        if client.is_connected() {
            return Ok(());
        }
        let mut ears = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ears.iter_mut().any(|ear| ear.client.id() == client.id() && ear.is_quit()) {
            return Ok(());
        }
        let text = format!("{what}: the client that was given was quit; nothing was sent");
        Err(Error::new(ErrorKind::Connection, text)
            .note("quit it only after the cluster's last handle is dropped"))
    }

    /// The error of a command, or what is behind it.
    pub(super) fn translate(&self, what: &str, error: &FredError) -> Error {
        self.explain(what, translate(what, error))
    }

    /// As [`translate`](Self::translate), of what is translated already.
    pub(super) fn explain(&self, what: &str, error: Error) -> Error {
        if error.kind() != ErrorKind::Timeout {
            return error;
        }
        let mut ears = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ears.iter_mut().find_map(Ear::trouble) {
            Some(refusal) if is_refusal(refusal) => translate(what, refusal),
            Some(trouble) if error.source().is_none() => error.with_source(Down::by(trouble)),
            _ => error,
        }
    }
}

impl Ear {
    /// `quit` closes what listens to a client, and nothing else does.
    fn is_quit(&mut self) -> bool {
        self.trouble();
        self.closed
    }

    /// Why the client is without a connection, if it is.
    fn trouble(&mut self) -> Option<&FredError> {
        loop {
            match self.errors.try_recv() {
                Ok((error, _)) => self.trouble = Some(error),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => {
                    self.closed = true;
                    break;
                }
            }
        }
        if self.client.is_connected() {
            self.trouble = None;
            if self.closed {
                // It was started again.
                (self.errors, self.closed) = (self.client.error_rx(), false);
            }
        }
        self.trouble.as_ref()
    }
}

fn is_refusal(error: &FredError) -> bool {
    *error.kind() == FredKind::Auth || ["NOAUTH", "WRONGPASS"].contains(&code(error))
}

/// There is no connection, and this is how the last one ended, or was not made.
#[derive(Debug)]
struct Down(Option<Fault>);

impl Down {
    fn by(trouble: &FredError) -> Self {
        // Of one that was closed without a word, fred has none either.
        Self((*trouble.kind() != FredKind::Canceled).then(|| Fault::of(trouble)))
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(fault) => write!(f, "the connection is down ({fault})"),
            None => f.write_str("the connection is down"),
        }
    }
}

impl StdError for Down {}
