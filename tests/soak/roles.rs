//! What the processes do: this binary, run again with a role. Commands come by standard input, a line each; what is
//! seen and done goes to standard output, a line of the history each.

pub(crate) mod master;
pub(crate) mod worker;

use std::io::{BufRead, Write};
use std::time::Duration;

use assemblage::{Cluster, ErrorKind};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::checker::{Us, What};
use crate::machine::monotonic_us as now;
use crate::settings::builder;

/// How the process was started.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) url: String,
    pub(crate) threads: bool,
    pub(crate) lenient: bool,
    pub(crate) name: Option<String>,
    pub(crate) grace: u64,
    pub(crate) weight: u32,
    /// Whether its worker is to take whatever comes, at all times.
    pub(crate) roomy: bool,
}

impl Role {
    pub(crate) fn args(&self) -> Vec<String> {
        vec![
            self.url.clone(),
            self.threads.to_string(),
            self.lenient.to_string(),
            self.name.clone().unwrap_or_else(|| "-".to_owned()),
            self.grace.to_string(),
            self.weight.to_string(),
            self.roomy.to_string(),
        ]
    }

    fn parse(args: &[String]) -> Self {
        let [url, threads, lenient, name, grace, weight, roomy] = args else { panic!("no role: {args:?}") };
        Self {
            url: url.clone(),
            threads: threads == "true",
            lenient: lenient == "true",
            name: (name != "-").then(|| name.clone()),
            grace: grace.parse().expect("ms"),
            weight: weight.parse().expect("a weight"),
            roomy: roomy == "true",
        }
    }
}

/// One line of the history.
fn say(what: What) {
    say_at(now(), what);
}

fn say_at(at: Us, what: What) {
    // In one piece: a process that is killed leaves no half line.
    let line = format!("{at} {what}\n");
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Runs until the soak is gone or ends it.
pub(crate) fn run(role: &str, args: &[String]) {
    // Also if this process stands still, or the one that started it is killed.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let setup = Role::parse(args);
    log();
    let (sender, commands) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    let mut runtime = if setup.threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(watch_the_clock());
        match role {
            "worker" => worker::work(connect(&setup).await, &setup, commands).await,
            _ => master::preside(connect(&setup).await, commands).await,
        }
    });
}

/// With `SOAK_LOG` set, what the crate says of itself goes to standard error, which the soak keeps there.
fn log() {
    if std::env::var_os("SOAK_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("assemblage=debug"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Monotonic)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
}

struct Monotonic;

impl tracing_subscriber::fmt::time::FormatTime for Monotonic {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", now())
    }
}

/// The server may be away for a while.
async fn connect(role: &Role) -> Cluster {
    loop {
        match builder().connect_url(&role.url).await {
            Ok(cluster) => return cluster,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Says when this process did not run: it cannot have kept to any time then.
async fn watch_the_clock() {
    const STEP: Us = 10_000;
    const LATE: Us = 20_000;
    loop {
        let before = now();
        tokio::time::sleep(Duration::from_micros(STEP)).await;
        if now() > before + STEP + LATE {
            say(What::Stalled { since: before + STEP });
        }
    }
}

/// Whether nothing was done, as far as the error promises that.
fn failed(op: String, kind: ErrorKind) -> What {
    let text = format!("{kind:?}");
    match kind {
        ErrorKind::Connection | ErrorKind::OutOfMemory | ErrorKind::LimitReached => {
            What::Refused { op, kind: text }
        }
        _ => What::Unclear { op, kind: text },
    }
}

type Commands = UnboundedReceiver<String>;
