//! Passwords and payloads are in no log line, no `Debug` and no error. A binary of its own: it hears the log of a whole process.

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod support;

use std::fmt::{Debug, Write as _};
use std::io::Write;
use std::sync::{Arc, Mutex};

use assemblage::{ErrorKind, Event, Task};
use futures::{StreamExt, TryStreamExt};

use support::{RedisServer, TTL, builder, next, until};

const PASSWORD: &str = "hunter2";
/// In every payload. As bytes it would be `[111, 112, ...`.
const PAYLOAD: &str = "open sesame";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that an application may print.
#[derive(Default)]
struct Printed(String);

impl Printed {
    fn debug(&mut self, value: &impl Debug) {
        let _ = writeln!(self.0, "{value:?} {value:#?}");
    }

    fn error(&mut self, error: &assemblage::Error) {
        self.debug(error);
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = source {
            let _ = writeln!(self.0, "{error} {error:?}");
            source = error.source();
        }
    }
}

#[tokio::test]
async fn no_log_line_no_debug_and_no_error_has_a_password_or_a_payload() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    let mut printed = Printed::default();

    let mut server = RedisServer::durable();
    let password = format!(">{PASSWORD}");
    let user = ["ACL", "SETUSER", "app", "on", &password, "+@all", "~*", "&*"];
    server.command(&user);
    let url = format!("redis://app:{PASSWORD}@127.0.0.1:{}", server.port());
    printed.error(&builder().connect_url(url.replace("app", "nobody")).await.unwrap_err());
    printed.error(&builder().connect_url(url.replace("@127", "/127")).await.unwrap_err());
    printed.error(&builder().connect_url(url.replace("redis:", "rediss:")).await.unwrap_err());
    printed.debug(&builder());
    let cluster = builder().max_payload(1_000).connect_url(&url).await.unwrap();
    printed.debug(&cluster);
    printed.debug(cluster.server());

    let master = cluster.master().await.unwrap();
    printed.debug(&master);
    let mut watch = cluster.watch().await.unwrap();
    let mirror = cluster.mirror().await.unwrap();
    let mut worker = cluster.worker().await.unwrap();
    printed.debug(&worker);
    printed.debug(&worker.handle());
    let id = master.add(&PAYLOAD).await.unwrap();
    let event = next(&mut worker).await;
    printed.debug(&event);
    let Event::Add(job) = event else { panic!("its job") };
    printed.error(&job.payload::<u64>().unwrap_err());
    printed.error(&job.payload::<(String, u8)>().unwrap_err());
    master.update(&id, &format!("{PAYLOAD}, once more")).await.unwrap();
    printed.debug(&next(&mut worker).await);
    printed.debug(&master.add_many_with(&[(id.clone(), PAYLOAD)]).await.unwrap());
    printed.error(&master.add(&PAYLOAD.repeat(1_000)).await.unwrap_err());
    printed.debug(&master.job(&id).await.unwrap());
    printed.debug(&master.jobs().try_collect::<Vec<_>>().await.unwrap());
    printed.debug(&master.workers().await.unwrap());
    printed.debug(&master.stats().await.unwrap());
    printed.debug(&watch.next().await);
    printed.debug(&watch);
    printed.debug(&mirror);
    mirror.read(|snapshot| printed.debug(snapshot));

    // What a server quotes, and what a worker lives with.
    server.command(&["SET", "{assemblage:test}:crashes", PAYLOAD]);
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    server.command(&["SPUBLISH", &format!("{{assemblage:test}}:inbox:{}", worker.id()), PAYLOAD]);
    for broken in ["jobs", "owner", "rev"] {
        server.command(&["RENAME", &format!("{{assemblage:test}}:{broken}"), "kept"]);
        server.command(&["SET", &format!("{{assemblage:test}}:{broken}"), PAYLOAD]);
        if let Err(error) = master.add(&PAYLOAD).await {
            printed.error(&error);
        }
        server.command(&["RENAME", "kept", &format!("{{assemblage:test}}:{broken}")]);
    }
    server.command(&["DEL", "{assemblage:test}:crashes"]);
    printed.debug(&cluster.serve(|_: Task| async { Ok::<_, assemblage::Error>(()) }));

    // While it is away, and when it is back.
    server.kill();
    let error = master.add(&PAYLOAD).await.unwrap_err();
    assert!([ErrorKind::Timeout, ErrorKind::Connection].contains(&error.kind()), "{error}");
    printed.error(&error);
    while let Some(event) = worker.next().await {
        printed.debug(&event);
    }
    server.start_again();
    printed.error(&master.add(&PAYLOAD).await.unwrap_err()); // it does not know the user any more
    server.command(&user);
    until("the master works again", || async { master.add(&PAYLOAD).await.is_ok() }).await;
    drop((job, worker, watch, mirror, master, cluster));
    tokio::time::sleep(TTL / 10).await; // what is said at the end

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.lines().count() > 10 && log.contains("joined"), "it is heard: {log}");
    let as_bytes = format!("{:?}", PAYLOAD.as_bytes());
    for (what, text) in [("log", &log), ("printed", &printed.0)] {
        for secret in [PASSWORD, PAYLOAD, as_bytes.trim_matches(['[', ']'])] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{what}: {line:?}");
        }
    }
}
