//! A private Redis Cluster for one test: some primaries that share the slots, on free loopback ports.

use super::{RedisServer, until};

/// How long a node may be silent before the others take it for dead.
const NODE_TIMEOUT: &str = "1500";

/// Nodes of a cluster that covers all slots.
pub(crate) struct RedisCluster {
    /// The primaries, by their slots.
    pub(crate) primaries: Vec<RedisServer>,
}

impl RedisCluster {
    /// So many primaries, each with its part of the slots. What was answered is on disk.
    pub(crate) async fn start(primaries: usize) -> Self {
        let primaries: Vec<_> = (0..primaries).map(|_| node()).collect();
        let part = 16_384 / primaries.len();
        for (index, node) in primaries.iter().enumerate() {
            let last = if index + 1 == primaries.len() { 16_383 } else { (index + 1) * part - 1 };
            let slots = [(index * part).to_string(), last.to_string()];
            accept(node, &["CLUSTER", "ADDSLOTSRANGE", &slots[0], &slots[1]]);
            accept(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let cluster = Self { primaries };
        for node in &cluster.primaries[1..] {
            cluster.meet(node);
        }
        cluster.settled(&cluster.primaries.iter().collect::<Vec<_>>()).await;
        cluster
    }

    fn meet(&self, node: &RedisServer) {
        accept(node, &["CLUSTER", "MEET", "127.0.0.1", &self.primaries[0].port().to_string()]);
    }

    /// Adds a replica of this primary that has all of its data.
    pub(crate) async fn replica_of(&self, primary: usize) -> RedisServer {
        let replica = node();
        self.meet(&replica);
        let id = self.primaries[primary].command(&["CLUSTER", "MYID"]).text();
        until("the replica knows its primary", || async {
            replica.command(&["CLUSTER", "REPLICATE", &id]).text_or_error() == "OK"
        })
        .await;
        until("the replica is in step", || async {
            replica.command(&["INFO", "replication"]).text().contains("master_link_status:up")
        })
        .await;
        let all: Vec<_> = self.primaries.iter().chain([&replica]).collect();
        self.settled(&all).await;
        // A primary that does not know it for a replica yet passes over its failover in silence.
        until("all know whose replica it is", || async {
            all.iter().all(|node| node.command(&["CLUSTER", "NODES"]).text().contains(&format!("slave {id}")))
        })
        .await;
        replica
    }

    /// Waits until each of these nodes knows all of them, and that every slot is served.
    async fn settled(&self, nodes: &[&RedisServer]) {
        let known = format!("cluster_known_nodes:{}\r", nodes.len());
        until("the nodes know each other", || async {
            nodes.iter().all(|node| {
                let info = node.command(&["CLUSTER", "INFO"]).text();
                ["cluster_state:ok", "cluster_slots_ok:16384", &known].iter().all(|line| info.contains(line))
            })
        })
        .await;
    }

    /// The URL of one node; the client finds the others.
    pub(crate) fn url_of(&self, node: usize) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.primaries[node].port())
    }

    /// Which of the primaries has the slot of this key.
    pub(crate) fn owner_of(&self, key: &str) -> usize {
        let slot = self.primaries[0].command(&["CLUSTER", "KEYSLOT", key]).int();
        let part = 16_384 / self.primaries.len();
        (usize::try_from(slot).expect("a slot") / part).min(self.primaries.len() - 1)
    }
}

fn node() -> RedisServer {
    RedisServer::with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        NODE_TIMEOUT,
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

fn accept(node: &RedisServer, command: &[&str]) {
    assert_eq!(node.command(command).text(), "OK", "{command:?}");
}
