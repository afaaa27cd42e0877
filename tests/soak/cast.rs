//! The processes of a run, one in each place, and the one history that all of their lines go into.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::checker::{Entry, Us, What};
use crate::machine::monotonic_us as now;
use crate::plan::{Net, Place, Plan};
use crate::proxy::Proxy;
use crate::roles::Role;

/// What everybody has written down so far.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Pages>>);

#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) entries: Vec<Entry>,
    /// The jobs that an operation has added.
    pub(crate) added: HashMap<String, Vec<String>>,
    /// The number of the worker in a process.
    workers: HashMap<String, u64>,
    /// How often the cluster was listed.
    pub(crate) lists: usize,
    /// Whether nothing waited or was on its way in the last list.
    pub(crate) is_quiet: bool,
    /// The same of the list that is being written.
    moves: bool,
    over: bool,
}

impl History {
    pub(crate) fn read(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, who: &str, what: What) {
        self.push(Entry { at: now(), who: who.to_owned(), what });
    }

    /// The history is over: what came later is left out.
    pub(crate) fn end(&self, at: Us) {
        let mut pages = self.read();
        pages.entries.retain(|entry| entry.at <= at);
        pages.entries.push(Entry { at: at + 1, who: "soak".to_owned(), what: What::Final {} });
        pages.over = true;
    }

    fn push(&self, entry: Entry) {
        let mut pages = self.read();
        if pages.over {
            return;
        }
        match &entry.what {
            What::Done { op, jobs, .. } => {
                pages.added.insert(op.clone(), jobs.clone());
            }
            What::Joined { worker, .. } => {
                pages.workers.insert(entry.who.clone(), *worker);
            }
            What::Has { state, .. } => pages.moves |= !state.starts_with("assigned"),
            What::Cluster { pending, .. } => {
                pages.lists += 1;
                pages.is_quiet = *pending == 0 && !std::mem::take(&mut pages.moves);
            }
            _ => {}
        }
        pages.entries.push(entry);
    }

    /// All lines, in the order of their times.
    pub(crate) fn sorted(&self) -> Vec<Entry> {
        let mut entries = self.read().entries.clone();
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

/// A process, killed on drop.
struct Process {
    who: String,
    child: Child,
    input: ChildStdin,
    reader: Option<JoinHandle<()>>,
    /// We ended it.
    ended: bool,
}

/// Everybody.
pub(crate) struct Cast {
    plan: Plan,
    history: History,
    proxies: BTreeMap<Place, Proxy>,
    processes: BTreeMap<Place, Process>,
    started: HashMap<Place, usize>,
    /// Whose connections are disturbed, and what is to be said when they are not.
    disturbed: HashMap<Place, What>,
    logs: Option<PathBuf>,
}

impl Cast {
    pub(crate) fn new(plan: &Plan, port: u16, history: History) -> Self {
        let logs = std::env::var_os("SOAK_LOG").map(PathBuf::from);
        let mut cast = Self {
            plan: plan.clone(),
            history,
            proxies: BTreeMap::new(),
            processes: BTreeMap::new(),
            started: HashMap::new(),
            disturbed: HashMap::new(),
            logs,
        };
        for place in cast.places() {
            cast.proxies.insert(place, Proxy::start(port));
        }
        for place in cast.places() {
            cast.start(place);
        }
        cast
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let workers = (0..self.plan.workers.len()).map(Place::Worker);
        workers.chain((0..self.plan.masters).map(Place::Master)).collect()
    }

    /// Starts a process in a place where none is.
    pub(crate) fn start(&mut self, place: Place) {
        if self.processes.contains_key(&place) {
            return;
        }
        let number = self.started.entry(place).or_insert(0);
        let who = format!("{place}.{number}");
        *number += 1;
        let url = self.proxies[&place].url();
        let (role, args) = self.role(place, url);
        let log = match &self.logs {
            Some(folder) => Stdio::from(File::create(folder.join(format!("{who}.log"))).expect("a log")),
            None => Stdio::inherit(),
        };
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--role", role])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a process");
        self.history.note(&who, What::Started {});
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (history, name) = (self.history.clone(), who.clone());
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let entry =
                    line.split_once(' ').and_then(|(at, what)| Entry::parse(&format!("{at} {name} {what}")));
                match entry {
                    Some(entry) => history.push(entry),
                    None => eprintln!("{name} says: {line}"),
                }
            }
        });
        let input = child.stdin.take().expect("its input");
        let process = Process { who, child, input, reader: Some(reader), ended: false };
        self.processes.insert(place, process);
    }

    fn role(&self, place: Place, url: String) -> (&'static str, Vec<String>) {
        let role = |threads, lenient, name, grace, weight, roomy| {
            Role { url, threads, lenient, name, grace, weight, roomy }.args()
        };
        match place {
            Place::Worker(number) => {
                let setup = &self.plan.workers[number];
                let name = setup.grace.map(|_| format!("gateway-{number}"));
                let weight = u32::try_from(setup.weight).expect("small");
                let args = role(
                    setup.threads,
                    setup.lenient,
                    name,
                    setup.grace.unwrap_or(0),
                    weight,
                    number < crate::plan::ROOMY,
                );
                ("worker", args)
            }
            Place::Master(_) => ("master", role(true, false, None, 0, 1, false)),
        }
    }

    /// Whether there was one to kill.
    pub(crate) fn kill(&mut self, place: Place) -> bool {
        let Some(mut process) = self.processes.remove(&place) else { return false };
        self.history.note(&process.who, What::Killed {});
        process.end();
        true
    }

    pub(crate) fn stop(&mut self, place: Place) -> bool {
        let Some(process) = self.processes.get(&place) else { return false };
        let since = now();
        process.signal(Signal::SIGSTOP);
        self.history.note(&process.who, What::Stopped { since });
        true
    }

    pub(crate) fn go_on(&mut self, place: Place) {
        let Some(process) = self.processes.get(&place) else { return };
        let since = now();
        process.signal(Signal::SIGCONT);
        self.history.note(&process.who, What::Continued { since });
    }

    pub(crate) fn disturb(&mut self, place: Place, net: Net) -> bool {
        let (Some(process), proxy) = (self.processes.get(&place), &self.proxies[&place]) else {
            return false;
        };
        let (who, note) = (process.who.clone(), |how: &str| What::Net { how: how.to_owned() });
        let lost = || "messages-lost".to_owned();
        let end = match net {
            Net::LoseMessages(_) => What::FaultEnd { name: lost() },
            _ => What::NetEnd {},
        };
        self.disturbed.insert(place, end);
        let delay = Duration::from_millis;
        match net {
            Net::Cut => {
                self.history.note(&who, note("cut"));
                proxy.cut();
            }
            Net::CloseOnce => {
                self.history.note(&who, note("closed-once"));
                proxy.close_connections();
            }
            Net::BlackHole => {
                self.history.note(&who, note("black-hole"));
                proxy.black_hole();
            }
            Net::BlackHoleSome(odd) => {
                self.history.note(&who, note("black-hole-some"));
                proxy.black_hole_every_other(odd);
            }
            Net::SwallowAnswers => {
                self.history.note(&who, note("answers-lost"));
                proxy.swallow_answers();
            }
            Net::SwallowAnswersToCommands => {
                self.history.note(&who, note("answers-only-lost"));
                proxy.swallow_answers_to_commands();
            }
            Net::LoseMessages(one_in) => {
                self.history.note(&who, What::Fault { name: lost() });
                proxy.lose_messages(one_in);
            }
            Net::Delay(ms) => {
                self.history.note(&who, note(&format!("delay:{ms}")));
                proxy.delay(delay(ms));
            }
            Net::Uneven(ms, odd) => {
                self.history.note(&who, note(&format!("uneven:{ms}")));
                proxy.delay_every_other(delay(ms), odd);
            }
        }
        true
    }

    pub(crate) fn mend(&mut self, place: Place) {
        let Some(end) = self.disturbed.remove(&place) else { return };
        self.proxies[&place].pass();
        if let Some(process) = self.processes.get(&place) {
            self.history.note(&process.who, end);
        }
    }

    /// Whether there was somebody to tell.
    pub(crate) fn tell(&mut self, place: Place, line: &str) -> bool {
        let Some(process) = self.processes.get_mut(&place) else { return false };
        writeln!(process.input, "{line}").is_ok()
    }

    /// The number of the worker in a place, as far as is known.
    pub(crate) fn worker_in(&self, place: Place) -> Option<u64> {
        let process = self.processes.get(&place)?;
        self.history.read().workers.get(&process.who).copied()
    }

    /// Notes who has ended although nobody has ended it.
    pub(crate) fn look_for_the_dead(&mut self) {
        let history = &self.history;
        self.processes.retain(|_, process| match process.child.try_wait() {
            Ok(Some(status)) => {
                process.end();
                history.note(&process.who, What::Died { status: status.to_string() });
                false
            }
            _ => true,
        });
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = kill(pid, signal);
    }

    /// Also if it stands still. Returns when all of its lines are in the history.
    fn end(&mut self) {
        self.ended = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}
