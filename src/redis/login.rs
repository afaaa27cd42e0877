//! Why no answer comes: a user that is no longer let in is told so only when a connection is made again, which is fred's to
//! do, and commands wait for that in vain.

use std::sync::{Mutex, PoisonError};

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::connect::Commands;
use super::error::{code, translate};
use crate::error::{Error, ErrorKind};

/// Listens to what befalls the connections of the clients for commands.
pub(super) struct Login(Mutex<Vec<Ear>>);

struct Ear {
    client: Client,
    errors: Receiver<(FredError, Option<Server>)>,
    /// The last refusal, if it is the last thing that befell it.
    refused: Option<FredError>,
}

impl Login {
    pub(super) fn new(commands: &Commands) -> Self {
        let clients = match commands {
            Commands::Client(client) => vec![client.clone()],
            Commands::Pool(pool) => pool.clients().to_vec(),
        };
        let ear = |client: Client| Ear { errors: client.error_rx(), client, refused: None };
        Self(Mutex::new(clients.into_iter().map(ear).collect()))
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
        match ears.iter_mut().find_map(Ear::refused) {
            Some(refusal) => translate(what, refusal),
            None => error,
        }
    }
}

impl Ear {
    /// Why the client is without a connection, if it is because it is not let in.
    fn refused(&mut self) -> Option<&FredError> {
        loop {
            match self.errors.try_recv() {
                Ok((error, _)) => {
                    let auth =
                        *error.kind() == FredKind::Auth || ["NOAUTH", "WRONGPASS"].contains(&code(&error));
                    self.refused = auth.then_some(error);
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if self.client.is_connected() {
            self.refused = None;
        }
        self.refused.as_ref()
    }
}
