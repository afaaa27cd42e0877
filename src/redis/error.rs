//! From fred's errors to ours: what it means, and what to do. No password, payload or command in the text.

use fred::error::{Error as FredError, ErrorKind as FredKind};

use crate::error::{Error, ErrorKind};

/// The first word of an error that the server sent, such as `NOPERM` or `LATE`.
pub(crate) fn code(error: &FredError) -> &str {
    error.details().split_ascii_whitespace().next().unwrap_or_default()
}

/// `what` says what was tried: "adding jobs".
pub(crate) fn translate(what: &str, error: &FredError) -> Error {
    let (kind, advice) = match code(error) {
        "NOPERM" | "ERR" if is_denied(error.details()) => (
            ErrorKind::Denied,
            "the server's ACL denies it; grant the user the commands, keys and channels listed in PROTOCOL.md",
        ),
        "NOAUTH" | "WRONGPASS" => {
            (ErrorKind::Denied, "the server wants another user or password; check the URL")
        }
        "OOM" => (
            ErrorKind::OutOfMemory,
            "the server is at its maxmemory; raise it or remove data, then try again",
        ),
        "READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN" | "TRYAGAIN" => (
            ErrorKind::Connection,
            "the server takes no writes at the moment (failover, or starting); try again",
        ),
        "NOREPLICAS" => (ErrorKind::Connection, "too few replicas are there for a write; try again"),
        "BUSY" => {
            (ErrorKind::Connection, "a script blocks the server; find it with SCRIPT KILL or in the slow log")
        }
        "WRONGTYPE" => (
            ErrorKind::Protocol,
            "a key of the cluster is of another type: something else writes to its keys",
        ),
        _ => by_kind(error),
    };
    let (fault, advice) = advice.split_once("; ").unwrap_or((advice, ""));
    let mut out = Error::new(kind, format!("{what}: {fault}"));
    // Of an answer that came too late, or was not understood, fred has nothing to say that is not said.
    if !matches!(kind, ErrorKind::Protocol | ErrorKind::Closed)
        && !matches!(error.kind(), FredKind::Timeout | FredKind::Canceled)
    {
        out = out.with_source(Fault::of(error));
    }
    if advice.is_empty() { out } else { out.note(advice) }
}

/// What a script may not do is an ERR: in the words of Redis up to 7.0, and in those since.
fn is_denied(details: &str) -> bool {
    ["NOPERM", "ERR The user executing the script can't", "ERR ACL failure in script"]
        .iter()
        .any(|begin| details.starts_with(begin))
}

#[allow(
    unreachable_patterns,
    clippy::match_wildcard_for_single_variants,
    reason = "fred's kinds depend on its features, and on those that an application turns on"
)]
fn by_kind(error: &FredError) -> (ErrorKind, &'static str) {
    match error.kind() {
        FredKind::Auth => (ErrorKind::Denied, "the server wants another user or password; check the URL"),
        FredKind::Config | FredKind::Url => {
            (ErrorKind::InvalidSetting, "the connection's settings were refused")
        }
        FredKind::IO if error.details().starts_with("Connection closed unexpectedly") => {
            (ErrorKind::Connection, "the connection was closed before it was sent; try again")
        }
        FredKind::Unknown if NOBODY.contains(&error.details()) => (
            ErrorKind::Closed,
            "the connection has ended with the runtime that it was made in, and nothing was sent; connect again",
        ),
        FredKind::Unknown if error.details() == CUT_OFF => (
            ErrorKind::Closed,
            "the connection has ended with the runtime that it was made in; it may have been done, and will not be done later. \
             Connect again",
        ),
        // In a cluster: its node moved it on, or was lost with it. fred has its new map by now, and says the same of
        // both.
        FredKind::Unknown if error.details().starts_with("Too many failed write attempts") => (
            ErrorKind::Timeout,
            "the cluster's keys have gone to another node; it may have been done, and will not be done later. Try again",
        ),
        FredKind::Unknown if error.details().starts_with("Failed to route command") => (
            ErrorKind::Timeout,
            "the connection was lost; it may have been done, and will not be done later. Try again",
        ),
        FredKind::IO | FredKind::Timeout | FredKind::Canceled => (
            ErrorKind::Timeout,
            "no answer from the server in time; it may have been done, and will not be done later. Try again",
        ),
        FredKind::Backpressure | FredKind::Routing | FredKind::Cluster | FredKind::Sentinel => {
            (ErrorKind::Connection, "the server cannot be reached at the moment; try again")
        }
        FredKind::Parse | FredKind::Protocol | FredKind::NotFound => {
            (ErrorKind::Protocol, "the server's answer was not understood")
        }
        FredKind::InvalidCommand | FredKind::InvalidArgument | FredKind::Unknown => {
            (ErrorKind::Server, "the server answered with an error")
        }
        // TLS and whatever else features of fred add.
        _ => (
            ErrorKind::Connection,
            "the connection could not be made; check the URL, certificates and network",
        ),
    }
}

/// What fred says where the task that had the connection is gone.
const NOBODY: [&str; 2] = ["Failed to send command to router.", "Client is not initialized."];

/// What it says of a command that was on its way when that task ended.
const CUT_OFF: &str = "channel closed";

/// What the server or fred said, as text: fred's own error type stays inside.
#[derive(Debug)]
pub(super) struct Fault(String);

impl Fault {
    /// The first line, and not for ever: a script's error may quote what it choked on. A server quotes the
    /// arguments of a command that it does not know, a password or a payload among them.
    pub(super) fn of(error: &FredError) -> Self {
        let line = plain(error.details()).lines().next().unwrap_or_default();
        let text = line.split(", with args beginning with").next().unwrap_or_default();
        Self(text.trim_end_matches('.').chars().take(200).collect())
    }
}

/// fred writes an error of the system as Rust's `Debug` has it; people want the words.
fn plain(details: &str) -> &str {
    let between = |before: &str, after: &str| Some(details.split_once(before)?.1.rsplit_once(after)?.0);
    between("message: \"", "\"")
        .or_else(|| between("error: \"", "\" }"))
        .or_else(|| between("error: ", " }"))
        .unwrap_or(details)
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    // What was cut off on its way is told as what it is, and not as an answer of the server.
    #[test]
    fn a_command_whose_connection_was_lost_may_have_been_done() {
        let error =
            translate("updating jobs", &FredError::new(FredKind::Unknown, "Failed to route command."));
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("may have been done"), "{error}");
    }
}
