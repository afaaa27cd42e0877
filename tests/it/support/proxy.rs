//! A TCP proxy between a client and its server, for what networks do: cut, swallow, delay.
//!
//! Two threads a connection, by std alone. Bytes are passed on whole or the connection is lost for good: TCP never
//! leaves a hole in a stream, so neither does this.
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
                | Mode::SwallowAnswers => {}
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
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let swallow = match self.mode() {
                Mode::Cut | Mode::Over => break,
                Mode::BlackHole => true,
                Mode::SwallowSome(odd) => odd == link.odd,
                Mode::SwallowAnswers => answers,
                Mode::Delay(delay) => {
                    std::thread::sleep(delay);
                    false
                }
                Mode::DelaySome(delay, odd) if odd == link.odd => {
                    std::thread::sleep(delay);
                    false
                }
                Mode::Pass | Mode::DelaySome(..) => false,
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
