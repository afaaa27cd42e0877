//! A private Redis (or Valkey) server for one test: on a unix socket and a free loopback port, in a temporary
//! directory. Its log is printed when the test fails. It leaves nothing behind, even when the test is killed.
//!
//! Blocking, by std alone. It names nothing of the crate, so that unit tests of `src` can use it too.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part of it")]

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a server may take to come up or to answer. It takes milliseconds; machines are shared.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct RedisServer {
    dir: TempDir,
    port: u16,
    args: Vec<String>,
    child: Child,
    watchdog: Watchdog,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server that has every answered write on disk.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A sentinel, which looks after nobody yet.
    pub fn sentinel() -> Self {
        Self::with(&["--sentinel"])
    }

    /// A server with settings of its own, such as `["--maxmemory", "5mb"]`. In these, `{port}` stands for its port.
    pub fn with(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut why = String::new();
        // A free port may be taken by another before the server has it.
        for _ in 0..5 {
            let dir =
                tempfile::Builder::new().prefix("assemblage-").tempdir().expect("a temporary directory");
            let port = free_port();
            let mut watchdog = Watchdog::new(dir.path());
            let child = spawn(dir.path(), port, &args, &mut watchdog);
            let mut server = Self { dir, port, args: args.clone(), child, watchdog };
            match server.wait_until_up() {
                Ok(()) => return server,
                Err(log) => why = log,
            }
        }
        panic!("no server comes up with {args:?}: {why}");
    }

    /// Waits for an answer to PING; with the log if the process ended instead.
    fn wait_until_up(&mut self) -> Result<(), String> {
        let (socket, start) = (self.socket(), Instant::now());
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("the server's state") {
                return Err(format!("{status}\n{}", self.log()));
            }
            if let Ok(mut connection) = Connection::open(&socket)
                && connection.command(&["PING"]) == Reply::Simple("PONG".into())
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the server did not answer within {PATIENCE:?}");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// One command on a connection of its own.
    pub fn command(&self, words: &[&str]) -> Reply {
        self.connect().command(words)
    }

    /// A plain connection, for what needs one: subscriptions, transactions.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket()).expect("the server takes connections")
    }

    /// Ends it at once, without a goodbye to its clients or its disk.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port and socket after `kill`.
    pub fn start_again(&mut self) {
        let start = Instant::now();
        loop {
            self.child = spawn(self.dir.path(), self.port, &self.args, &mut self.watchdog);
            let Err(why) = self.wait_until_up() else { return };
            // Somebody's outgoing connection may have the port for a moment.
            assert!(start.elapsed() < PATIENCE, "the server does not come back: {why}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it and starts it again, with or without what is on disk.
    pub fn restart(&mut self, keep_data: bool) {
        self.kill();
        if !keep_data {
            self.forget();
        }
        self.start_again();
    }

    /// Removes what is on disk, after `kill`.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.dir.path().join("appendonlydir"));
        let _ = std::fs::remove_file(self.dir.path().join("dump.rdb"));
    }

    /// Keeps a copy of what is on disk now.
    pub fn keep_copy(&self) {
        let (from, to) = (self.dir.path().join("appendonlydir"), self.dir.path().join("copy"));
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).expect("a directory");
        for file in std::fs::read_dir(&from).expect("an append-only file").map_while(Result::ok) {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("it is copied");
        }
    }

    /// Makes the copy what is on disk, after `kill`: what was written since is lost.
    pub fn restore_copy(&self) {
        self.forget();
        std::fs::rename(self.dir.path().join("copy"), self.dir.path().join("appendonlydir"))
            .expect("a copy was kept");
    }

    /// Stops the process: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("the server can be signalled");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill(); // a paused process is killed as well
        self.watchdog.call_off();
        if std::thread::panicking() {
            eprintln!("--- the log of the server on port {}\n{}", self.port, self.log());
        }
    }
}

/// A shell that outlives the test process if that one is killed, and then ends the server and removes its directory.
///
/// It is told each server's process by a line; when its input ends after an empty line, all is in order.
struct Watchdog {
    child: Child,
    input: Option<ChildStdin>,
}

impl Watchdog {
    const SCRIPT: &str = r#"trap '' INT TERM HUP
        while read -r line; do pid=$line; done
        if [ -n "$pid" ]; then kill -9 "$pid"; rm -rf "$1"; fi"#;

    fn new(dir: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", Self::SCRIPT, "watchdog"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let input = child.stdin.take();
        Self { child, input }
    }

    fn watch(&mut self, pid: u32) {
        writeln!(self.input.as_mut().expect("not called off"), "{pid}").expect("the watchdog is there");
    }

    fn call_off(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = writeln!(input);
        }
        let _ = self.child.wait();
    }
}

/// A node of a Redis Cluster also takes the port 10,000 above, which must exist.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if port < 55_000 {
            return port;
        }
    }
}

/// `ASSEMBLAGE_SERVER`, or what is installed.
fn program() -> String {
    if let Ok(program) = std::env::var("ASSEMBLAGE_SERVER") {
        return program;
    }
    let installed = |name: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
    };
    if installed("redis-server") { "redis-server".into() } else { "valkey-server".into() }
}

fn spawn(dir: &Path, port: u16, args: &[String], watchdog: &mut Watchdog) -> Child {
    let mut command = Command::new(program());
    if args.iter().any(|arg| arg == "--sentinel") {
        // It writes down what it learns, and wants to know where.
        let config = dir.join("sentinel.conf");
        std::fs::OpenOptions::new().create(true).append(true).open(&config).expect("a file for the sentinel");
        command.arg(config);
    }
    let args = args.iter().map(|arg| arg.replace("{port}", &port.to_string()));
    let child = command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir)
        .arg("--unixsocket")
        .arg(dir.join("redis.sock"))
        .arg("--logfile")
        .arg(dir.join("log"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}. Run scripts/ensure-server", program()));
    watchdog.watch(child.id());
    child
}

/// What the server answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Self>),
}

impl Reply {
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => other.text().parse().unwrap_or_else(|_| panic!("no number: {other:?}")),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(number) => number.to_string(),
            Self::Nil => String::new(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// As `text`, or the error's own.
    pub fn text_or_error(&self) -> String {
        match self {
            Self::Error(text) => text.clone(),
            other => other.text(),
        }
    }

    pub fn list(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("no list: {other:?}"),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Nil => write!(f, "nil"),
            Self::Array(items) => items.fmt(f),
        }
    }
}

/// A command as it goes over the wire.
pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A plain connection in RESP2.
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn command(&mut self, words: &[&str]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.send(&words);
        self.read()
    }

    pub fn send(&mut self, words: &[&[u8]]) {
        let _ = self.0.get_mut().write_all(&encode(words));
    }

    /// The next reply or message.
    pub fn read(&mut self) -> Reply {
        self.try_read().unwrap_or_else(|error| Reply::Error(format!("no reply: {error}")))
    }

    fn try_read(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((kind, rest)) = line.split_at_checked(1) else { return Ok(Reply::Error("closed".into())) };
        let number = || rest.parse::<i64>().unwrap_or(-1);
        Ok(match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Int(number()),
            "$" if number() < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()).unwrap_or(0) + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" if number() < 0 => Reply::Nil,
            "*" => Reply::Array((0..number()).map(|_| self.try_read()).collect::<Result<_, _>>()?),
            _ => Reply::Error(format!("not RESP2: {line}")),
        })
    }
}
