//! The scripts: their texts, how many keys they take, and how one is run.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::error::code;
use super::route;

/// How often a script is loaded for one call: once, and again if the server was replaced or flushed in between.
const LOADS: usize = 2;

/// A script, and what its header says of it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) keys: usize,
    sha: OnceLock<String>,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal, $keys:literal, $flags:literal $(, $lib:literal)*;)*) => {
        $(pub(crate) static $constant: Script = Script {
            name: $name,
            text: concat!(
                "#!lua", $flags, "\n",
                include_str!("lua/lib/base.lua"),
                $(include_str!(concat!("lua/lib/", $lib, ".lua")),)*
                include_str!(concat!("lua/", $name, ".lua")),
            ),
            keys: $keys,
            sha: OnceLock::new(),
        };)*
        #[cfg(test)]
        pub(crate) static ALL: &[&Script] = &[$(&$constant),*];
    };
}

// Without a flag a script is refused as a whole when memory is full, before it has written anything.
// `allow-oom` is for those that must get through then: they free memory, or keep the cluster's word.
scripts! {
    OPEN = "open", 5, " flags=allow-oom";
    RESERVE = "reserve", 3, "";
    JOIN = "join", 12, "", "changes", "push", "terms", "member";
    BEAT = "beat", 12, " flags=allow-oom", "changes", "terms", "member", "look";
    SYNC = "sync", 7, " flags=no-writes";
    LEAVE = "leave", 15, " flags=allow-oom", "changes", "push", "terms", "member", "look", "give", "suspicion", "placement";
    REAP = "reap", 15, " flags=allow-oom", "changes", "push", "terms", "member", "look", "give", "suspicion", "placement";
    ADD = "add", 10, "", "changes", "push", "terms", "give";
    UPDATE = "update", 6, "", "changes", "push";
    DELETE = "delete", 10, " flags=allow-oom", "changes", "push", "terms";
    RELEASE = "release", 11, " flags=allow-oom", "changes", "push", "terms", "member", "look", "give", "suspicion", "placement";
    PLACE = "place", 11, " flags=allow-oom", "changes", "push", "terms", "member", "look", "give", "suspicion", "placement";
    REBALANCE = "rebalance", 8, " flags=allow-oom", "changes", "push", "terms", "shares";
    REQUEUE = "requeue", 12, " flags=allow-oom", "changes", "push", "terms", "member", "look", "give", "suspicion", "placement";
    ORDER = "order", 7, " flags=allow-oom", "changes", "push", "terms", "member";
    WATCH = "watch", 3, " flags=allow-oom";
    HISTORY = "history", 3, " flags=no-writes";
    SURVEY = "survey", 8, " flags=no-writes", "look";
    ROSTER = "roster", 5, " flags=no-writes", "terms";
    LIST = "list", 2, " flags=no-writes";
    FIND = "find", 4, " flags=no-writes";
}

impl Script {
    fn sha(&'static self) -> &'static str {
        self.sha.get_or_init(|| fred::util::sha1_hash(self.text))
    }

    /// Runs it once. fred never sends it again by itself: whether that is safe is the caller's to decide.
    pub(crate) async fn run(
        &'static self,
        client: &Client,
        slot: u16,
        timeout: Duration,
        keys: &[&str],
        args: impl Fn() -> Vec<Bytes>,
    ) -> Result<Value, FredError> {
        debug_assert_eq!(keys.len(), self.keys, "{}", self.name);
        // Made anew where the server does not know the script: that is rare, and a copy for it is not free.
        let words = || {
            let args = args();
            let mut words = Vec::with_capacity(2 + keys.len() + args.len());
            words.push(Value::from_static_str(self.sha()));
            words.push(Value::Integer(self.keys as i64));
            words.extend(keys.iter().map(|key| Value::from(*key)));
            words.extend(args.into_iter().map(Value::Bytes));
            words
        };

        // Options are only heeded by `custom`: fred's own `evalsha` drops them in silence.
        let client = client.with_options(&route::options(slot, timeout, 1));
        let command = |name| CustomCommand::new_static(name, ClusterHash::Custom(slot), false);
        for _ in 0..LOADS {
            match client.custom(command("EVALSHA"), words()).await {
                Err(error) if code(&error) == "NOSCRIPT" => {}
                result => return result,
            }
            // Not by EVAL: compiling takes the server as long as a call may take, so it is a call of its own.
            let load = vec![Value::from_static_str("LOAD"), Value::from_static_str(self.text)];
            let _: Value = client.custom(command("SCRIPT"), load).await?;
        }
        client.custom(command("EVALSHA"), words()).await
    }
}
