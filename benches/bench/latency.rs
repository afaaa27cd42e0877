//! `add_to_event`, `delete_to_event`: from the call of `master.add` (or `delete`) to the event in the consumer's hands. Idle,
//! one at a time, 100 bytes of payload.
//!
//! ```text
//! main thread                                   another thread
//!   raw PUBLISH ---------------- Redis ----------> raw SUBSCRIBE          floor
//!   raw EVALSHA (HSET, PUBLISH) -- Redis --------> raw SUBSCRIBE          floor
//!   fred EVALSHA (HSET, PUBLISH) - Redis --------> fred SUBSCRIBE         what the client library takes of it
//!   Master::add, ::delete -------- Redis --------> Worker (Stream)
//! ```
//!
//! In turn, in a rotating order. Master and worker share nothing: each has a runtime of its own. Once with tokio's
//! runtime of one thread, once with that of several, which adds its own hops between threads to fred's.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use assemblage::{Cluster, Event, JobId, Master};
use fred::interfaces::{ClientLike, EventInterface, LuaInterface, PubsubInterface};
use fred::prelude::{Builder, Client, Config};
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::support::clock::monotonic_us;
use crate::support::floor::{self, Floor, WRITE_AND_PUSH, id};
use crate::support::report::{Goal, Report, Row};
use crate::support::samples::Samples;
use crate::support::server::RedisServer;

/// What a measurement leaves to be done (answers, releases) is done after this.
const SETTLE: Duration = Duration::from_micros(400);

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Flavour {
    OneThread,
    SeveralThreads,
}

impl Flavour {
    fn runtime(self) -> Runtime {
        let runtime = match self {
            Self::OneThread => tokio::runtime::Builder::new_current_thread().enable_all().build(),
            Self::SeveralThreads => Runtime::new(),
        };
        runtime.expect("a runtime")
    }

    fn name(self) -> &'static str {
        match self {
            Self::OneThread => "one-thread runtime",
            Self::SeveralThreads => "multi-thread runtime",
        }
    }
}

/// What came, and when.
enum Arrival {
    Ready,
    Message(i64),
    Add(i64),
    Delete(i64),
}

#[derive(Default)]
struct Measured {
    publish: Samples,
    script: Samples,
    fred: Samples,
    add: Samples,
    delete: Samples,
}

pub(crate) fn run(report: &mut Report) {
    let rounds = report.scale.of(5, 600, 10_000);
    for flavour in [Flavour::OneThread, Flavour::SeveralThreads] {
        report.say(&format!("add_to_event, delete_to_event: {}", flavour.name()));
        let server = RedisServer::start();
        report.note_server(&server);
        let measured = measure(&server, flavour, rounds);
        for (name, samples) in [("add_to_event", &measured.add), ("delete_to_event", &measured.delete)] {
            report.push(
                Row::cost(name, flavour.name(), "us", samples)
                    .against("raw PUBLISH", &measured.publish, Goal::AtMost(1.5))
                    .against("raw EVALSHA (HSET, PUBLISH)", &measured.script, None)
                    .against("fred EVALSHA (HSET, PUBLISH)", &measured.fred, Goal::AtMost(1.2)),
            );
        }
    }
}

fn measure(server: &RedisServer, flavour: Flavour, rounds: usize) -> Measured {
    let mut floor = Floor::new(server);
    let (sender, arrivals) = channel();
    let url = server.url();
    std::thread::spawn(move || flavour.runtime().block_on(consume(&url, &sender)));
    let sha = floor::load(server, WRITE_AND_PUSH);
    let runtime = flavour.runtime();
    runtime.block_on(async {
        let arrival = Arrivals(arrivals);
        let cluster = cluster(&server.url()).await;
        let master = cluster.master().await.expect("a master");
        let client = client(&server.url()).await;
        assert!(matches!(arrival.next(), Arrival::Ready));
        let mut measured = Measured::default();
        let publish = floor::publish("floor");
        for round in 0..rounds {
            let field = id(round);
            for turn in 0..4 {
                match (turn + round) % 4 {
                    0 => measured.publish.record_us(floor.measure(&publish, 1).first),
                    1 => {
                        let command = floor::write_and_push(&sha, &field, "floor");
                        measured.script.record_us(floor.measure(&command, 1).first);
                    }
                    2 => {
                        let sent = monotonic_us();
                        let args = vec![field.as_bytes(), &floor::MESSAGE, b"fred"];
                        let () = client.evalsha(&*sha, "fred-floor", args).await.expect("it runs");
                        let Arrival::Message(at) = arrival.next() else { panic!("not the message") };
                        measured.fred.record_us(at - sent);
                    }
                    _ => {
                        let job = add(&master, &arrival, &mut measured).await;
                        std::thread::sleep(SETTLE);
                        let sent = monotonic_us();
                        master.delete(&job).await.expect("deleted");
                        let Arrival::Delete(at) = arrival.next() else { panic!("not the Delete") };
                        measured.delete.record_us(at - sent);
                    }
                }
                std::thread::sleep(SETTLE);
            }
        }
        measured
    })
}

async fn add(master: &Master, arrival: &Arrivals, measured: &mut Measured) -> JobId {
    let sent = monotonic_us();
    let job = master.add(floor::PAYLOAD).await.expect("added");
    let Arrival::Add(at) = arrival.next() else { panic!("not the Add") };
    measured.add.record_us(at - sent);
    job
}

struct Arrivals(Receiver<Arrival>);

impl Arrivals {
    /// Blocks: nothing else is to be done on this thread meanwhile.
    fn next(&self) -> Arrival {
        self.0.recv_timeout(PATIENCE).expect("it arrives")
    }
}

async fn cluster(url: &str) -> Cluster {
    Cluster::builder("bench").connect_url(url).await.expect("connects")
}

async fn client(url: &str) -> Client {
    let mut builder = Builder::from_config(Config::from_url(url).expect("a URL"));
    builder.with_connection_config(|connection| connection.tcp.nodelay = Some(true));
    let client = builder.build().expect("a client");
    client.init().await.expect("connects");
    client
}

/// The other side: a worker, and a plain subscriber.
async fn consume(url: &str, arrived: &Sender<Arrival>) {
    let cluster = cluster(url).await;
    let mut worker = cluster.worker().await.expect("joins");
    let client = client(url).await;
    let mut messages = client.message_rx();
    client.subscribe("fred").await.expect("subscribed");
    let () = client.ping(None).await.expect("confirmed");
    let _ = arrived.send(Arrival::Ready);
    let mut held = HashMap::new();
    loop {
        let arrival = tokio::select! {
            event = worker.next() => {
                let at = monotonic_us();
                match event.expect("the stream goes on") {
                    Event::Add(job) => {
                        held.insert(job.id().clone(), job);
                        Arrival::Add(at)
                    }
                    Event::Delete(deletion) => {
                        held.remove(deletion.id());
                        Arrival::Delete(at)
                    }
                    // The other side misses an arrival, unless the server is gone as all is measured.
                    _ => return,
                }
            }
            _ = messages.recv() => Arrival::Message(monotonic_us()),
        };
        if arrived.send(arrival).is_err() {
            return;
        }
    }
}
