//! A private server for the demo: on a unix socket in a temporary directory, gone with it.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) struct PrivateServer {
    dir: TempDir,
    child: Child,
}

impl PrivateServer {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::Builder::new().prefix("assemblage-demo-").tempdir()?;
        let programs = match std::env::var("ASSEMBLAGE_SERVER") {
            Ok(program) => vec![program],
            Err(_) => vec!["redis-server".into(), "valkey-server".into()],
        };
        let started = programs.iter().find_map(|program| spawn(program, &dir).ok());
        let child =
            started.ok_or("neither redis-server nor valkey-server is there: run scripts/ensure-server")?;
        let server = Self { dir, child };
        let start = Instant::now();
        while server.command("PING").is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("the private server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Switches notifications off, as a provider may.
    pub(crate) fn mute(&self) -> std::io::Result<()> {
        self.command("CONFIG SET notify-keyspace-events \"\"")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn command(&self, line: &str) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer)?;
        if answer == *b"+" { Ok(()) } else { Err(std::io::Error::other("the server refused")) }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, dir: &TempDir) -> std::io::Result<Child> {
    Command::new(program)
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(dir.path().join("socket"))
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}
