//! A TCP proxy between a client and its server, for what networks do: cut, swallow, delay.
//!
//! Two threads a connection, by std alone. Bytes are passed on whole or the connection is lost for good: TCP never
//! leaves a hole in a stream, so neither does this. What is published may get lost before it comes to a connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Each piece is held back so long, in both directions. Pieces that queue up may wait twice that.
    Delay(Duration),
    /// The same, for every other connection: the odd ones or the even ones, in the order in which they were made.
    DelaySome(Duration, bool),
    /// Connections are taken, and all bytes are swallowed.
    BlackHole,
    /// The same, for every other connection.
    SwallowSome(bool),
    /// What the server says is swallowed; what it is asked goes through.
    SwallowAnswers,
    /// The same, but for connections that have subscribed to something.
    SwallowAnswersToCommands,
    /// Of so many messages that are published one is lost, and all else is passed on.
    LoseMessages(usize),
    /// Connections are closed, the new ones too.
    Cut,
    /// The proxy was dropped.
    Over,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    mode: Mutex<Mode>,
    links: Mutex<Vec<Weak<Link>>>,
    made: AtomicUsize,
    carried: AtomicUsize,
}

/// A client's connection and the one to the server that belongs to it.
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// Bytes of it were swallowed, to the server and from it: nothing may pass that way any more.
    lost: [AtomicBool; 2],
    odd: bool,
}

impl Proxy {
    /// A proxy on a free loopback port, to a server on a loopback port. It begins by passing all on.
    pub(crate) fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            server: Mutex::new((Ipv4Addr::LOCALHOST, server_port).into()),
            mode: Mutex::new(Mode::Pass),
            links: Mutex::default(),
            made: AtomicUsize::new(0),
            carried: AtomicUsize::new(0),
        });
        std::thread::spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many bytes the server has been sent so far.
    pub(crate) fn carried(&self) -> usize {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// All is well again. What was swallowed is not made up for: those connections are closed.
    pub(crate) fn pass(&self) {
        self.shared.set(Mode::Pass);
        self.shared.close(|link| link.lost.iter().any(|lost| lost.load(Ordering::SeqCst)));
    }

    /// Holds back every piece in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.set(Mode::Delay(delay));
    }

    /// Holds back every piece of every other connection, so that what is sent by two comes in another order.
    pub(crate) fn delay_every_other(&self, delay: Duration, odd: bool) {
        self.shared.set(Mode::DelaySome(delay, odd));
    }

    /// Takes connections and bytes, and nothing comes of them.
    pub(crate) fn black_hole(&self) {
        self.shared.set(Mode::BlackHole);
    }

    /// The same for every other connection: a client's commands go through, and its subscription is dead without a
    /// word, or the other way round.
    pub(crate) fn black_hole_every_other(&self, odd: bool) {
        self.shared.set(Mode::SwallowSome(odd));
    }

    /// Everything that is asked is done, and nobody hears of it.
    pub(crate) fn swallow_answers(&self) {
        self.shared.set(Mode::SwallowAnswers);
    }

    /// The same, but for connections that have subscribed to something: a client hears what is published, and no answer.
    pub(crate) fn swallow_answers_to_commands(&self) {
        self.shared.set(Mode::SwallowAnswersToCommands);
    }

    /// One in so many messages that are published is lost, on connections that stay as good as before.
    pub(crate) fn lose_messages(&self, one_in: usize) {
        self.shared.set(Mode::LoseMessages(one_in));
    }

    /// Closes every connection, and each new one at once, until `pass`.
    pub(crate) fn cut(&self) {
        self.shared.set(Mode::Cut);
        self.shared.close(|_| true);
    }

    /// New connections go to another server, and the old ones are closed: as when a name leads elsewhere.
    pub(crate) fn switch_to(&self, server_port: u16) {
        *self.shared.server.lock().expect("no panic with it") = (Ipv4Addr::LOCALHOST, server_port).into();
        self.close_connections();
    }

    /// Closes every connection once; a new one is as good as before.
    pub(crate) fn close_connections(&self) {
        self.shared.close(|_| true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Mode::Over);
        self.shared.close(|_| true);
        let _ = TcpStream::connect(self.address); // wakes `accept`, which ends
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no panic with it")
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic with it") = mode;
    }

    fn close(&self, which: impl Fn(&Link) -> bool) {
        let links = self.links.lock().expect("no panic with it");
        links.iter().filter_map(Weak::upgrade).filter(|link| which(link)).for_each(|link| link.close());
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().filter_map(Result::ok) {
            match self.mode() {
                Mode::Over => return,
                Mode::Cut => continue,
                Mode::Pass
                | Mode::Delay(_)
                | Mode::DelaySome(..)
                | Mode::BlackHole
                | Mode::SwallowSome(_)
                | Mode::SwallowAnswers
                | Mode::SwallowAnswersToCommands
                | Mode::LoseMessages(_) => {}
            }
            // Without a server the client's connection is closed, as the server's own port would.
            let address = *self.server.lock().expect("no panic with it");
            let Ok(server) = TcpStream::connect(address) else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let odd = self.made.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            let link = Arc::new(Link { client, server, lost: Default::default(), odd });
            {
                let mut links = self.links.lock().expect("no panic with it");
                links.retain(|link| link.strong_count() > 0);
                links.push(Arc::downgrade(&link));
            }
            // Cut while it was made: it was in no list then.
            if matches!(self.mode(), Mode::Cut | Mode::Over) {
                link.close();
            }
            let (shared, other) = (self.clone(), link.clone());
            std::thread::spawn(move || shared.pump(&other, &other.client, &other.server, false));
            let shared = self.clone();
            std::thread::spawn(move || shared.pump(&link, &link.server, &link.client, true));
        }
    }

    /// Carries bytes one way until the connection ends; then ends both.
    fn pump(&self, link: &Link, mut from: &TcpStream, mut to: &TcpStream, answers: bool) {
        let mut buffer = vec![0; 64 * 1024];
        let (mut published, mut listens) = (0, false);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            listens = listens || answers && says_subscribed(&buffer[..count]);
            let swallow = match self.mode() {
                Mode::Cut | Mode::Over => break,
                Mode::BlackHole => true,
                Mode::SwallowSome(odd) => odd == link.odd,
                Mode::SwallowAnswers => answers,
                Mode::SwallowAnswersToCommands => answers && !listens,
                Mode::LoseMessages(one_in) if answers => {
                    let kept = without_messages(&buffer[..count], one_in, &mut published);
                    if to.write_all(&kept).is_err() {
                        break;
                    }
                    continue;
                }
                Mode::Delay(delay) => {
                    std::thread::sleep(delay);
                    false
                }
                Mode::DelaySome(delay, odd) if odd == link.odd => {
                    std::thread::sleep(delay);
                    false
                }
                Mode::Pass | Mode::DelaySome(..) | Mode::LoseMessages(_) => false,
            };
            let lost = &link.lost[usize::from(answers)];
            if swallow {
                lost.store(true, Ordering::SeqCst);
            }
            if lost.load(Ordering::SeqCst) {
                continue;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            if !answers {
                self.carried.fetch_add(count, Ordering::SeqCst);
            }
        }
        link.close();
    }
}

impl Link {
    fn close(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }
}

/// What the server said, without one in so many of the messages that were published. What does not begin and end with a
/// whole value is passed on as it is.
fn without_messages(bytes: &[u8], one_in: usize, published: &mut usize) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(length) = value(rest) {
        let (this, next) = rest.split_at(length);
        rest = next;
        if is_message(this) {
            *published += 1;
            if published.is_multiple_of(one_in) {
                continue;
            }
        }
        kept.extend_from_slice(this);
    }
    if rest.is_empty() { kept } else { bytes.to_vec() }
}

/// `subscribe`, `psubscribe` and `ssubscribe` all end alike.
fn says_subscribed(bytes: &[u8]) -> bool {
    const WORD: &[u8] = b"subscribe\r\n";
    bytes.windows(WORD.len()).any(|word| word == WORD)
}

fn is_message(value: &[u8]) -> bool {
    let heads: [&[u8]; 3] =
        [b"3\r\n$8\r\nsmessage\r\n", b"3\r\n$7\r\nmessage\r\n", b"4\r\n$8\r\npmessage\r\n"];
    matches!(value.first(), Some(b'*' | b'>')) && heads.iter().any(|head| value[1..].starts_with(head))
}

/// How long the value is that the bytes begin with, if all of it is there.
fn value(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")?;
    let number = || std::str::from_utf8(&bytes[1..line]).ok()?.parse::<i64>().ok();
    let mut length = line + 2;
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
        b'$' | b'=' | b'!' => {
            if let Ok(text) = usize::try_from(number()?) {
                length += text + 2;
            }
        }
        kind @ (b'*' | b'>' | b'~' | b'%') => {
            let values = number()? * if kind == b'%' { 2 } else { 1 };
            for _ in 0..values {
                length += value(bytes.get(length..)?)?;
            }
        }
        _ => return None,
    }
    (length <= bytes.len()).then_some(length)
}

#[test]
fn only_published_messages_are_lost_and_only_whole_ones() {
    let (mut published, message) = (0, b"*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n".as_slice());
    let pattern = b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$1\r\na\r\n".as_slice();
    let answer = b"*2\r\n:1\r\n$-1\r\n+OK\r\n".as_slice();
    let said = [message, answer, pattern, message].concat();
    assert_eq!(without_messages(&said, 2, &mut published), [message, answer, message].concat());
    assert_eq!(without_messages(&said, 1, &mut published), answer);
    let cut = &said[..said.len() - 1];
    assert_eq!(without_messages(cut, 1, &mut published), cut);
}
