//! Plays a plan on a real server, and then lets everything heal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cast::{Cast, History};
use crate::checker::{self, Entry, Violation, What};
use crate::machine::monotonic_us as now;
use crate::plan::{Act, Call, Job, Net, Place, Plan, Server};
use crate::progress::Progress;
use crate::server::RedisServer;
use crate::settings::{CLUSTER, HEAL};

/// What a run has come to.
pub(crate) struct Outcome {
    pub(crate) history: Vec<Entry>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) operations: usize,
    pub(crate) faults: BTreeMap<String, usize>,
    /// How long it took until everything was as it has to be; `None`: it never was.
    pub(crate) healed: Option<Duration>,
}

/// Each time that everything is looked at, once the faults have ended.
const LOOK: Duration = Duration::from_millis(400);

pub(crate) fn play(plan: &Plan, seconds: u64) -> Outcome {
    // What was answered survives the end of the process: it is written before the answer, if not to the disk.
    let server = RedisServer::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "no",
        "--auto-aof-rewrite-percentage",
        "0",
    ]);
    let history = History::default();
    let cast = Cast::new(plan, server.port(), history.clone());
    let mut stage =
        Stage { server, cast, history, operations: 0, faults: BTreeMap::new(), muted: None, snapshot: 0 };
    stage.storm(plan, seconds);
    let healed = stage.heal(seconds);
    let Stage { cast, history, operations, faults, .. } = stage;
    drop(cast);
    let history = history.sorted();
    let violations = checker::check(&history);
    Outcome { history, violations, operations, faults, healed }
}

struct Stage {
    server: RedisServer,
    cast: Cast,
    history: History,
    operations: usize,
    faults: BTreeMap<String, usize>,
    /// The notifications that were on before they were switched off.
    muted: Option<String>,
    /// When what it has on disk was copied.
    snapshot: checker::Us,
}

impl Stage {
    fn storm(&mut self, plan: &Plan, seconds: u64) {
        let mut progress = Progress::new(seconds);
        let start = Instant::now();
        for step in &plan.steps {
            let due = start + Duration::from_millis(step.at);
            loop {
                let left = due.saturating_duration_since(Instant::now());
                progress.show(start.elapsed(), self.operations, self.faults.values().sum());
                if left.is_zero() {
                    break;
                }
                self.cast.look_for_the_dead();
                std::thread::sleep(left.min(Duration::from_millis(200)));
            }
            self.act(&step.act);
        }
        progress.finish();
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Call { master, op, call } => {
                if let Some(line) = self.line_of(op, call)
                    && self.cast.tell(Place::Master(*master), &line)
                {
                    self.operations += 1;
                }
            }
            Act::Tell { worker, line } => {
                if self.cast.tell(Place::Worker(*worker), line) {
                    let word = line.split(' ').next().unwrap_or_default();
                    match word {
                        "busy" => self.count("consumer stalls"),
                        "hold" => self.count("handlers hold on"),
                        "block" => self.count("runtime blocked"),
                        _ => self.operations += 1,
                    }
                }
            }
            Act::Start(place) => self.cast.start(*place),
            Act::Kill(place) => {
                let killed = self.cast.kill(*place);
                self.count_if(killed, place, "SIGKILL");
            }
            Act::Stop(place) => {
                let stopped = self.cast.stop(*place);
                self.count_if(stopped, place, "SIGSTOP");
            }
            Act::Continue(place) => self.cast.go_on(*place),
            Act::Net(place, net) => {
                let what = match net {
                    Net::Cut => "connections cut",
                    Net::CloseOnce => "connections closed once",
                    Net::BlackHole => "connections black-holed",
                    Net::BlackHoleSome(_) => "one connection black-holed",
                    Net::SwallowAnswers => "answers lost",
                    Net::SwallowAnswersToCommands => "answers lost, and no messages",
                    Net::LoseMessages(_) => "messages lost",
                    Net::Delay(ms) if *ms > 1_000 => "requests later than their time",
                    Net::Delay(_) => "connections delayed",
                    Net::Uneven(..) => "one connection later than the other",
                };
                if self.cast.disturb(*place, *net) {
                    self.count(what);
                }
            }
            Act::NetEnd(place) => self.cast.mend(*place),
            Act::Server(server) => self.server(*server),
        }
    }

    fn count(&mut self, fault: &str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
    }

    fn count_if(&mut self, done: bool, place: &Place, fault: &str) {
        if done {
            let whom = if matches!(place, Place::Worker(_)) { "worker" } else { "master" };
            self.count(&format!("{fault} {whom}"));
        }
    }

    /// The line for the master; `None` if it is about something that there is not.
    fn line_of(&self, op: &str, call: &Call) -> Option<String> {
        let names = |jobs: &[Job]| -> Option<String> {
            let pages = self.history.read();
            let name = |job: &Job| match job {
                Job::Given(number) => Some(format!("j{number}")),
                Job::Of { op, index } => pages.added.get(op)?.get(*index).cloned(),
            };
            let names: Vec<String> = jobs.iter().filter_map(name).collect();
            (!names.is_empty()).then(|| names.join(","))
        };
        let one = std::slice::from_ref;
        let (what, about) = match call {
            Call::Add(jobs) => ("add", names(jobs)?),
            Call::Fresh(count) => ("fresh", count.to_string()),
            Call::Update(job) => ("update", names(one(job))?),
            Call::Delete(jobs) => ("delete", names(jobs)?),
            Call::Wait(job) => ("wait", names(one(job))?),
            Call::Order(order, place) => (*order, self.cast.worker_in(Place::Worker(*place))?.to_string()),
            Call::Renew => ("renew", "-".to_owned()),
        };
        Some(format!("{op} {what} {about}"))
    }

    fn server(&mut self, act: Server) {
        let note = |history: &History, what| history.note("server", what);
        let fault = |name: &str| What::Fault { name: name.to_owned() };
        let ended = |name: &str| What::FaultEnd { name: name.to_owned() };
        match act {
            Server::Pause => {
                note(&self.history, What::Away { why: "paused".into() });
                self.server.pause();
                self.count("server paused");
            }
            Server::Resume => {
                self.server.resume();
                note(&self.history, What::Back { kept: true });
            }
            Server::Kill => {
                note(&self.history, What::Away { why: "killed".into() });
                self.server.kill();
            }
            Server::Start { keep } => {
                if !keep {
                    self.server.forget();
                }
                self.server.start_again();
                note(&self.history, What::Back { kept: keep });
                self.count(if keep { "server restarted" } else { "server restarted empty" });
            }
            Server::Snapshot => {
                self.snapshot = now();
                self.server.keep_copy();
                note(&self.history, fault("snapshot"));
            }
            Server::StartOlder => {
                self.server.restore_copy();
                self.server.start_again();
                note(&self.history, What::BackOlder { since: self.snapshot });
                self.count("server restarted without the last writes");
            }
            Server::KillSubscriptions => {
                note(&self.history, fault("subscriptions-killed"));
                self.server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                self.count("subscriptions killed");
            }
            Server::FlushScripts => {
                note(&self.history, fault("scripts-flushed"));
                self.server.command(&["SCRIPT", "FLUSH"]);
                self.count("scripts flushed");
            }
            // Neither ends a lock: that is up to its deadline.
            Server::Locks { forged } => {
                let (what, name) = if forged {
                    (
                        "redis.call('PUBLISH', '__keyspace@0__:' .. lock, 'expired')",
                        "expiry of all locks forged",
                    )
                } else {
                    ("redis.call('DEL', lock)", "keys of all locks deleted")
                };
                note(&self.history, fault(&name.replace(' ', "-")));
                let script = format!(
                    "for _, worker in ipairs(redis.call('HKEYS', '{CLUSTER}:workers')) do \
                     local lock = '{CLUSTER}:lock:' .. worker {what} end"
                );
                self.server.command(&["EVAL", &script, "0"]);
                self.count(name);
            }
            Server::FillMemory => {
                note(&self.history, fault("memory-full"));
                self.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
                self.count("memory full");
            }
            Server::FreeMemory => {
                self.server.command(&["CONFIG", "SET", "maxmemory", "0"]);
                note(&self.history, ended("memory-full"));
            }
            Server::Mute => {
                let flags = self.server.command(&["CONFIG", "GET", "notify-keyspace-events"]);
                self.muted = Some(flags.list()[1].text());
                note(&self.history, fault("notifications-off"));
                self.server.command(&["CONFIG", "SET", "notify-keyspace-events", ""]);
                self.count("notifications off");
            }
            Server::Unmute => {
                let flags = self.muted.take().unwrap_or_default();
                self.server.command(&["CONFIG", "SET", "notify-keyspace-events", &flags]);
                note(&self.history, ended("notifications-off"));
            }
            Server::ForeignKeys(first, count) => {
                if first == 0 {
                    note(&self.history, fault("foreign-keys"));
                    self.count("200,000 foreign keys with a TTL");
                }
                // Spread over ten minutes: there are always some that are over and not seen yet. They are in no file: to
                // read them would keep a server that is started again away for longer than a lock lives.
                const FILL: &str = "redis.set_repl(redis.REPL_NONE) for i = ARGV[1], ARGV[1] + ARGV[2] - 1 do \
                     redis.call('SET', 'foreign:' .. i, '', 'PX', 1000 + (i * 7919) % 600000) end";
                self.server.command(&["EVAL", FILL, "0", &first.to_string(), &count.to_string()]);
            }
        }
    }

    /// Every fault has ended: everybody who is not there is started, what was drained goes on, and all must be well
    /// within the bound.
    fn heal(&mut self, seconds: u64) -> Option<Duration> {
        let start = Instant::now();
        for place in self.cast.places() {
            self.cast.start(place);
            self.cast.mend(place);
            if let Place::Worker(number) = place {
                self.cast.tell(place, "capacity 0");
                self.cast.tell(place, "resume");
                if let Some(worker) = self.cast.worker_in(Place::Worker(number)) {
                    self.cast.tell(Place::Master(0), &format!("h{number} resume {worker}"));
                }
            }
        }
        self.history.note("soak", What::Heal {});
        let mut progress = Progress::healing(seconds);
        let (mut healed, mut end) = (None, None);
        // To judge a long history takes its time, and that is none of the cluster's.
        let mut judging = Duration::ZERO;
        while start.elapsed() - judging < HEAL {
            self.cast.look_for_the_dead();
            let seen = self.history.read().lists;
            self.cast.tell(Place::Master(0), "h list -");
            let asked = Instant::now();
            while self.history.read().lists == seen && asked.elapsed() < 3 * LOOK {
                std::thread::sleep(Duration::from_millis(10));
            }
            progress.show(start.elapsed(), self.operations, self.faults.values().sum());
            let (lists, is_quiet) = {
                let pages = self.history.read();
                (pages.lists, pages.is_quiet)
            };
            if lists > seen && is_quiet {
                let listed = start.elapsed();
                let entries = self.history.sorted();
                if checker::unsettled(&entries).is_empty() {
                    (healed, end) = (Some(listed - judging), entries.last().map(|entry| entry.at));
                    break;
                }
                judging += start.elapsed() - listed;
            }
            std::thread::sleep(LOOK);
        }
        progress.finish();
        // What was looked at is what counts: jobs may be on their way to balance loads a moment later.
        self.history.end(end.unwrap_or_else(now));
        healed
    }
}
