//! The processes of the demo: this program again, with a role, reporting by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a process reported; times by the machine's monotonic clock, in microseconds.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    MasterReady,
    WorkerReady { pid: u32, worker: u64 },
    Added { job: String },
    Deleting { job: String },
    Add { pid: u32, job: String, epoch: u64, at: u64 },
    Delete { pid: u32, job: String, at: u64 },
    Close { pid: u32 },
    Lock { worker: u64, end: u64 },
}

/// A process, ended when dropped.
pub(crate) struct Child {
    child: std::process::Child,
}

impl Child {
    pub(crate) fn master(url: &str, reports: Sender<Report>) -> std::io::Result<Self> {
        Self::start("master", url, reports)
    }

    pub(crate) fn worker(url: &str, reports: Sender<Report>) -> std::io::Result<Self> {
        Self::start("worker", url, reports)
    }

    fn start(role: &str, url: &str, reports: Sender<Report>) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for report in
                    BufReader::new(output).lines().map_while(Result::ok).filter_map(|line| parse(pid, &line))
                {
                    if reports.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&self, line: &str) -> std::io::Result<()> {
        self.child.stdin.as_ref().map_or(Ok(()), |mut input| writeln!(input, "{line}"))
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Asks it to end in order.
    pub(crate) fn terminate(&self) -> nix::Result<()> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap_or(i32::MAX)), Signal::SIGTERM)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that was asked to end is given a moment for it.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn parse(pid: u32, line: &str) -> Option<Report> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let mut text = || words.next().map(str::to_owned);
    Some(match kind {
        "master" => Report::MasterReady,
        "worker" => Report::WorkerReady { pid, worker: text()?.parse().ok()? },
        "added" => Report::Added { job: text()? },
        "deleting" => Report::Deleting { job: text()? },
        "add" => Report::Add { pid, job: text()?, epoch: text()?.parse().ok()?, at: text()?.parse().ok()? },
        "delete" => Report::Delete { pid, job: text()?, at: text()?.parse().ok()? },
        "close" => Report::Close { pid },
        "lock" => Report::Lock { worker: text()?.parse().ok()?, end: text()?.parse().ok()? },
        _ => return None,
    })
}

/// One report, at once.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The supervisor may be gone; then so is the reason to report.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
