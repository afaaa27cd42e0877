//! A server that lies: whatever a script's reply has in it, the store answers with a value or an error.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::bench::{BEATEN, JOINED, RESERVED, TERMS, TRUST, entry, id, lock};
use crate::id::{Revision, WorkerId};
use crate::message::{Cursor, Order};
use crate::redis::connect::Connection;
use crate::redis::store::{Entry, Lock, Member, Store};
use crate::test_server::{RedisServer, Reply};
use crate::wire::keys::Keys;

const TIMEOUT: Duration = Duration::from_secs(10);

/// What is done to a reply before it is passed on. Places are taken by the reply's length.
#[derive(Clone, Debug)]
enum Lie {
    Replace(usize, Reply),
    Insert(usize, Reply),
    Remove(usize),
    Cut(usize),
    Instead(Reply),
}

impl Lie {
    fn tell(&self, reply: Reply) -> Reply {
        let Reply::Array(mut items) = reply else { return reply };
        match self {
            Self::Instead(other) => return other.clone(),
            Self::Insert(at, item) => items.insert(at % (items.len() + 1), item.clone()),
            _ if items.is_empty() => {}
            Self::Replace(at, item) => {
                let at = at % items.len();
                items[at] = item.clone();
            }
            Self::Remove(at) => drop(items.remove(at % items.len())),
            Self::Cut(at) => items.truncate(at % items.len()),
        }
        Reply::Array(items)
    }
}

fn item() -> impl Strategy<Value = Reply> {
    let number = prop::sample::select(vec![
        i64::MIN,
        -2,
        -1,
        0,
        1,
        2,
        3,
        4,
        5,
        200,
        1 << 26,
        1 << 53,
        1_795_000_000_000_000,
        i64::MAX,
    ]);
    let texts: [&[u8]; 15] = [
        b"",
        b"x",
        b"a",
        b"-1",
        b"18446744073709551615",
        b"a 1 2 3",
        b"a 1 2 3 4",
        b"r 1 2 0",
        b"p 0 0 5",
        b"a 1",
        b"1@2 3@4",
        b"1795000000000000 {}",
        b"\xff\xfe",
        b"\n",
        &[0x94, 1, 9, 1, 0xdd, 0xff, 0xff, 0xff, 0xff],
    ];
    let errors = [
        "LATE",
        "LATE x",
        "LATE 0",
        "LATE 18446744073709551615",
        "LIMIT",
        "WRONGTYPE x",
        "ERR x",
        "NOSCRIPT",
    ];
    let plain = prop_oneof![
        4 => number.prop_map(Reply::Int),
        4 => prop::sample::select(texts.to_vec()).prop_map(|text| Reply::Bulk(text.to_vec())),
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Reply::Bulk),
        1 => Just(Reply::Nil),
        1 => prop::sample::select(errors.to_vec()).prop_map(|text| Reply::Error(text.into())),
    ];
    plain.prop_recursive(2, 8, 4, |item| prop::collection::vec(item, 0..4).prop_map(Reply::Array))
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        4 => (any::<usize>(), item()).prop_map(|(at, item)| Lie::Replace(at, item)),
        2 => (any::<usize>(), item()).prop_map(|(at, item)| Lie::Insert(at, item)),
        1 => any::<usize>().prop_map(Lie::Remove),
        1 => any::<usize>().prop_map(Lie::Cut),
        1 => item().prop_map(Lie::Instead),
    ]
}

fn write(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Simple(text) => out.extend(format!("+{text}\r\n").bytes()),
        Reply::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
        Reply::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
        Reply::Nil => out.extend(b"_\r\n"),
        Reply::Bulk(bytes) => {
            out.extend(format!("${}\r\n", bytes.len()).bytes());
            out.extend(bytes);
            out.extend(b"\r\n");
        }
        Reply::Array(items) => {
            out.extend(format!("*{}\r\n", items.len()).bytes());
            items.iter().for_each(|item| write(out, item));
        }
    }
}

/// Stands before a real server, and passes on what it is asked and what that answers, but for its lies about scripts.
struct Liar {
    port: u16,
    lies: Arc<Mutex<Vec<Lie>>>,
}

impl Liar {
    fn before(server: &Arc<RedisServer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (server, lies) = (server.clone(), Arc::<Mutex<Vec<Lie>>>::default());
        let told = lies.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (server, lies) = (server.clone(), told.clone());
                std::thread::spawn(move || serve(&stream, &server, &lies));
            }
        });
        Self { port, lies }
    }
}

/// Until the client is gone.
fn serve(mut stream: &TcpStream, server: &RedisServer, lies: &Mutex<Vec<Lie>>) -> Option<()> {
    let (mut input, mut upstream) = (BufReader::new(stream), server.connect());
    for told in 0.. {
        let words = command(&mut input)?;
        let name = words[0].to_ascii_uppercase();
        let mut answer = Vec::new();
        if name == b"HELLO" {
            answer.extend(b"%1\r\n+proto\r\n:3\r\n");
        } else {
            upstream.send(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut reply = upstream.read();
            let lies = lies.lock().expect("no panic");
            if name.starts_with(b"EVAL") && !lies.is_empty() {
                reply = lies[told % lies.len()].tell(reply);
            }
            write(&mut answer, &reply);
        }
        stream.write_all(&answer).ok()?;
    }
    None
}

fn command(input: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let mut first = String::new();
    input.read_line(&mut first).ok().filter(|count| *count > 0)?;
    let first = first.trim_end();
    let Some(count) = first.strip_prefix('*') else {
        // HELLO comes as a plain line.
        return Some(first.split(' ').map(|word| word.as_bytes().to_vec()).collect());
    };
    let mut words = Vec::new();
    for _ in 0..count.parse::<usize>().ok()? {
        let mut header = String::new();
        input.read_line(&mut header).ok()?;
        let mut word = vec![0; header.trim_end().strip_prefix('$')?.parse::<usize>().ok()? + 2];
        input.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

/// Every script once, whatever becomes of it. Returns how many calls failed.
async fn everything(store: &Store, incarnation: &Arc<str>) -> usize {
    let mut failed = 0;
    let mut note = |ok: bool| failed += usize::from(!ok);
    let member = Member { worker: WorkerId(1), incarnation: incarnation.clone(), token: "token".into() };
    let jobs = ["a", "b", "c"].map(|job| (id(job), Bytes::from_static(b"x")));
    let held = ["a", "b"].map(|job| (id(job), Revision(7)));
    note(store.open("run-1").await.is_ok());
    note(store.reserve(incarnation, RESERVED, Vec::new(), 9).await.is_ok());
    let named = Entry { name: Some(("one".into(), JOINED)), usurp: true, ..entry(JOINED) };
    note(store.join(&member, &named).await.is_ok());
    note(store.beat(&member, &Lock { terms: TERMS, ..lock(BEATEN, false) }).await.is_ok());
    note(store.add(&jobs, 9).await.is_ok());
    note(store.update(&jobs).await.is_ok());
    note(store.sync(&member, Revision(0), None).await.is_ok());
    note(store.sync(&member, Revision(1), Some(Cursor(1))).await.is_ok());
    note(store.release(member.worker, &held).await.is_ok());
    note(store.rebalance(0.5, 0.0, Duration::ZERO).await.is_ok());
    note(store.place().await.is_ok());
    note(store.order(member.worker, Order::Drain).await.is_ok());
    note(store.watch(TIMEOUT, 100).await.is_ok());
    note(store.history(Revision(1)).await.is_ok());
    note(store.find(&id("a")).await.is_ok());
    note(store.list("0").await.is_ok());
    note(store.roster("0").await.is_ok());
    note(store.survey().await.is_ok());
    note(store.requeue(&[id("c")]).await.is_ok());
    note(store.delete(&[(id("a"), None), (id("b"), Some(Revision(3)))]).await.is_ok());
    note(store.reap(member.worker, TIMEOUT, TRUST).await.is_ok());
    note(store.leave(&member).await.is_ok());
    failed
}

#[test]
fn whatever_a_script_answers_is_a_value_or_an_error_and_allocates_little() {
    let server = Arc::new(RedisServer::start());
    let liar = Liar::before(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // All of the client runs on this thread, so that all that it allocates is counted.
    let (connection, store, incarnation) = runtime.block_on(async {
        let url = format!("redis://127.0.0.1:{}", liar.port);
        let connection = Connection::connect_url(&url, None, None, TIMEOUT).await.expect("it connects");
        let keys = Arc::new(Keys::new("assemblage", "test"));
        let store = Store::new(connection.commands.clone(), keys, TIMEOUT);
        let incarnation = store.open("run-1").await.expect("it opens").incarnation;
        assert_eq!(everything(&store, &incarnation).await, 0, "all is well while nobody lies");
        (connection, store, incarnation)
    });
    let failed = Cell::new(0);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(lie(), 1..24), |lies| {
        *liar.lies.lock().expect("no panic") = lies;
        let used = measure(|| {
            failed.set(failed.get() + runtime.block_on(everything(&store, &incarnation)));
        });
        liar.lies.lock().expect("no panic").clear();
        prop_assert!(used.bytes_max < 2 << 20, "{used:?}");
        runtime
            .block_on(store.survey())
            .map_err(|error| TestCaseError::fail(format!("after the lies: {error}")))?;
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(failed.get() > 1_000, "the lies are noticed: {failed:?}");
    drop(connection);
}
