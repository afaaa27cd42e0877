//! The whole: the server, the processes, what is under way between them, and what has been seen so far.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use crate::id::JobId;
use crate::process::{Ask, Fault, Life, Link, Pace, Process, Reply, Request};
use crate::scope::{Asked, Break, Scope};
use crate::server::{How, Number, Server};
use crate::time::{PATIENCE, TICK, start};

pub(crate) const JOBS: usize = 2;

static NAMES: LazyLock<Vec<JobId>> =
    LazyLock::new(|| ["a", "b"].iter().map(|name| JobId::new(name).expect("a plain id")).collect());

pub(crate) fn job(index: u8) -> JobId {
    NAMES[usize::from(index)].clone()
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nobody has anything left to do now, and time goes on.
    Tick,
    /// A master's command, run and answered. The job goes to that worker, if it has room; 0: the least loaded.
    Add(u8, Number),
    Update(u8),
    Delete(u8),
    /// A master's command that is not run yet, and whose answer will not come.
    SendAdd(u8),
    /// A master's command that was sent twice. One copy is run, the other comes later.
    SendDelete(u8),
    /// What comes later is run.
    RunLate(usize, Number),
    /// The job is to move to another worker.
    Rebalance(u8),
    /// Somebody reaps this worker.
    Reap(Number, Number),
    /// Somebody hands out what waits.
    Place(Number),
    /// From here on the replica gets nothing more.
    ReplicaStops,
    /// The replica takes over.
    Failover,
    /// A process begins to join.
    Start(usize),
    Terminate(usize),
    Pause(usize),
    Resume(usize),
    /// It looks at the clock again.
    Wake(usize),
    Crash(usize),
    /// The connection of its subscription is lost.
    Disconnect(usize),
    /// As well, and nobody notices.
    Deafen(usize),
    /// It subscribes again.
    Subscribe(usize),
    /// It has looked which run of the server this is, and its view is told.
    Attach(usize),
    /// The oldest frame comes.
    Frame(usize),
    /// The one after it comes first.
    Overtake(usize),
    /// It comes, and will once more.
    Repeat(usize),
    Lose(usize),
    /// A command is run and answered.
    Call(usize, usize, Number),
    /// A command is run.
    Run(usize, usize, Number),
    /// It is answered.
    Answer(usize, usize),
    /// It is lost, or its answer is.
    Fail(usize, usize),
    /// Its caller gives up on it, and it is run later all the same.
    Linger(usize, usize),
    RunLingering(usize, Number),
    /// The consumer takes the next event.
    Poll(usize),
    /// The consumer drops a handle whose `Delete` it has seen.
    Drop(usize, usize),
}

/// A master's command under way. Its caller gives up on it after a while.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) job: u8,
    /// The life to delete; 0 for an add.
    pub(crate) born: u64,
    pub(crate) patience: u8,
}

/// What most steps leave as it is, and so is kept once for many states.
#[derive(Clone, Debug)]
pub(crate) struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Shared<T> {
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) server: Shared<Server>,
    pub(crate) replica: Option<Shared<Server>>,
    pub(crate) processes: Vec<Shared<Process>>,
    pub(crate) commands: Vec<Command>,
    /// What processes have given up on and is run later.
    pub(crate) lingering: Vec<(Number, u8, Ask)>,
    /// What may still be asked and go wrong.
    pub(crate) asked: Asked,
    pub(crate) faults: u8,
    /// Ticks that are left, where they are bounded.
    pub(crate) ticks: u8,
    /// How many tokens were made: one for each process that started.
    pub(crate) tokens: u8,
    /// Which life of each job has to be there: added, and not asked to be deleted.
    pub(crate) kept: [Option<u64>; JOBS],
    /// The largest epoch that anybody was handed.
    pub(crate) epochs: [u64; JOBS],
    /// A failover forgot some of what was up to this revision. Of that, these assignments are known to the server:
    /// two owners are possible between one of them and one that was forgotten.
    pub(crate) forgot: u64,
    pub(crate) confirmed: Vec<(JobId, Number, u64)>,
    pub(crate) fault: Option<Fault>,
}

impl World {
    /// Workers have joined, and wait for jobs.
    pub(crate) fn new(scope: &Scope) -> Self {
        let processes = (0..scope.workers + scope.spare).map(|_| Shared::new(Process::absent())).collect();
        let server = Shared::new(Server { rev: 1, ..Server::default() });
        let mut world = Self {
            now: start(),
            server,
            replica: None,
            processes,
            commands: Vec::new(),
            lingering: Vec::new(),
            asked: Asked::default(),
            faults: 0,
            ticks: scope.ticks,
            tokens: 0,
            kept: [None; JOBS],
            epochs: [0; JOBS],
            forgot: 0,
            confirmed: Vec::new(),
            fault: None,
        };
        let plain = Scope { broken: None, ..*scope };
        for index in 0..scope.workers {
            world.start(index);
            while !world.processes[index].requests.is_empty() {
                world.act(&plain, Action::Call(index, 0, 0));
            }
        }
        (world.asked, world.faults) = (scope.asked, scope.faults);
        world
    }

    pub(crate) fn process(&mut self, index: usize) -> &mut Process {
        &mut self.processes[index]
    }

    pub(crate) fn act(&mut self, scope: &Scope, action: Action) {
        let now = self.now;
        let how = |to| How { scope, to };
        match action {
            Action::Tick => self.tick(scope),
            Action::Add(index, to) => {
                self.asked.adds -= 1;
                self.add(scope, index, to);
            }
            Action::Update(index) => {
                self.asked.updates -= 1;
                self.server.update(&job(index));
            }
            Action::Delete(index) => {
                self.asked.deletes -= 1;
                if let Some(born) = self.kept[usize::from(index)].take() {
                    self.server.delete(&job(index), born);
                }
            }
            Action::SendAdd(index) => {
                (self.asked.adds, self.faults) = (self.asked.adds - 1, self.faults - 1);
                self.commands.push(Command { job: index, born: 0, patience: PATIENCE });
            }
            Action::SendDelete(index) => {
                (self.asked.deletes, self.faults) = (self.asked.deletes - 1, self.faults - 1);
                if let Some(born) = self.kept[usize::from(index)].take() {
                    self.server.delete(&job(index), born);
                    self.commands.push(Command { job: index, born, patience: PATIENCE });
                }
            }
            Action::RunLate(index, to) => self.run_late(scope, index, to),
            Action::Rebalance(index) => {
                self.asked.moves -= 1;
                self.server.rebalance(how(0), &job(index));
            }
            Action::Reap(worker, to) => {
                self.server.reap(how(to), worker);
            }
            Action::Place(to) => self.server.place(how(to)),
            Action::ReplicaStops => {
                self.faults -= 1;
                self.replica = Some(self.server.clone());
            }
            Action::Failover => self.fail_over(scope),
            Action::Start(index) => {
                self.asked.starts -= 1;
                self.start(index);
            }
            Action::Terminate(index) => {
                self.asked.terminations -= 1;
                let process = self.process(index);
                if let Some(worker) = &mut process.worker {
                    worker.terminated = true;
                }
                process.step(now, scope);
            }
            Action::Pause(index) => {
                self.faults -= 1;
                self.process(index).pace = Pace::Paused;
            }
            Action::Resume(index) => self.process(index).pace = Pace::Late,
            Action::Wake(index) => self.process(index).step(now, scope),
            Action::Crash(index) => {
                self.faults -= 1;
                *self.process(index) = Process { life: Life::Crashed, ..Process::absent() };
            }
            Action::Disconnect(index) => {
                self.faults -= 1;
                let process = self.process(index);
                process.link = Link::Down;
                process.frames.clear();
            }
            Action::Deafen(index) => {
                self.faults -= 1;
                self.process(index).link = Link::Deaf;
            }
            Action::Subscribe(index) => self.process(index).link = Link::Attaching,
            Action::Attach(index) => {
                let run = self.server.run;
                self.server.open(how(0), run);
                self.process(index).handle_attached(now, scope, run);
            }
            Action::Frame(index) => self.frame(scope, index, 0, false),
            Action::Overtake(index) => {
                self.faults -= 1;
                self.frame(scope, index, 1, false);
            }
            Action::Repeat(index) => {
                self.faults -= 1;
                self.frame(scope, index, 0, true);
            }
            Action::Lose(index) => {
                self.faults -= 1;
                self.process(index).frames.pop_front();
            }
            Action::Call(index, request, to) => {
                self.run(scope, index, request, to);
                self.answer(scope, index, request);
            }
            Action::Run(index, request, to) => {
                if scope.fused {
                    self.faults -= 1;
                }
                self.run(scope, index, request, to);
            }
            Action::Answer(index, request) => self.answer(scope, index, request),
            Action::Fail(index, request) => {
                self.faults -= 1;
                let request = self.process(index).requests.remove(request);
                self.process(index).handle_failure(now, scope, &request);
            }
            Action::Linger(index, request) => {
                self.faults -= 1;
                let Process { number, token, .. } = *self.processes[index];
                let request = self.process(index).requests.remove(request);
                self.process(index).handle_failure(now, scope, &request);
                self.lingering.push((number, token, request.ask));
            }
            Action::RunLingering(index, to) => {
                let (number, token, ask) = self.lingering.remove(index);
                self.carry_out(scope, number, token, &ask, to);
            }
            Action::Poll(index) => {
                let (mut epochs, mut fault) = (self.epochs, None);
                let grant = self.process(index).poll(now, scope, &mut epochs, &mut fault);
                // Of what a failover has forgotten, an older epoch may come late: the epoch says so.
                let number = self.processes[index].number;
                let forgotten = grant.is_some_and(|(job, grant)| self.is_forgotten(&job, number, grant))
                    || self.processes[index].heard_run != self.server.run;
                let fault = fault.filter(|fault| *fault != Fault::Epoch || !forgotten);
                (self.epochs, self.fault) = (epochs, self.fault.or(fault));
            }
            Action::Drop(index, handle) => self.process(index).drop_handle(now, scope, handle),
        }
        self.publish();
    }

    fn start(&mut self, index: usize) {
        self.tokens += 1;
        let (now, token) = (self.now, self.tokens);
        self.process(index).start(now, token);
    }

    fn tick(&mut self, scope: &Scope) {
        if self.is_busy() {
            self.faults -= 1;
        }
        self.now += TICK;
        self.ticks = self.ticks.saturating_sub(1);
        for server in self.replica.iter_mut().chain([&mut self.server]) {
            for member in server.members.values_mut() {
                member.ends = member.ends.saturating_sub(1);
            }
        }
        for command in &mut self.commands {
            command.patience = command.patience.saturating_sub(1);
        }
        // An add that comes later is refused. A delete names the life that it means, and is not.
        let any_time = scope.broken == Some(Break::AddAtAnyTime);
        self.commands.retain(|command| command.patience > 0 || command.born > 0 || any_time);
        for index in 0..self.processes.len() {
            if self.processes[index].is_up() && self.processes[index].worker.is_some() {
                let now = self.now;
                self.process(index).step(now, scope);
            }
        }
    }

    pub(crate) fn first_absent(&self) -> Option<usize> {
        self.processes.iter().position(|process| process.life == Life::Absent)
    }

    /// Whether something is under way that takes longer than it should if time goes on.
    pub(crate) fn is_busy(&self) -> bool {
        let mut up = self.processes.iter().filter(|process| process.is_up() && !process.is_closed());
        up.any(|process| !process.requests.is_empty() || !process.frames.is_empty())
    }

    fn add(&mut self, scope: &Scope, index: u8, to: Number) {
        let born = self.server.add(How { scope, to }, &job(index));
        self.kept[usize::from(index)] = Some(born);
    }

    fn run_late(&mut self, scope: &Scope, index: usize, to: Number) {
        let Command { job: index, born, patience } = self.commands.remove(index);
        if born > 0 {
            let any = scope.broken == Some(Break::DeleteOfAnyLife);
            self.server.delete(&job(index), if any { 0 } else { born });
            return;
        }
        let before = self.server.jobs.get(&job(index)).map(|record| record.born);
        self.add(scope, index, to);
        if patience == 0 && before.is_none_or(|born| born == 0) {
            self.fault = self.fault.or(Some(Fault::Late));
        }
    }

    fn fail_over(&mut self, scope: &Scope) {
        let Some(replica) = self.replica.take() else { return };
        let old = std::mem::replace(&mut self.server, replica);
        self.server.run = old.run + 1;
        if scope.broken != Some(Break::NoLift) {
            self.server.clock = old.rev + 1;
        }
        self.forgot = old.rev;
        let records = self.server.jobs.iter().filter(|(_, record)| record.worker > 0);
        self.confirmed = records.map(|(job, record)| (job.clone(), record.worker, record.grant)).collect();
        for (index, kept) in self.kept.iter_mut().enumerate() {
            let record = self.server.jobs.get(&job(index as u8));
            *kept = record.map(|record| record.born).filter(|born| *born > 0);
        }
        for index in 0..self.processes.len() {
            if !matches!(self.processes[index].life, Life::Starting | Life::Running) {
                continue;
            }
            let ends = |server: &Server, worker| server.members.get(&worker).map(|member| member.ends);
            let number = self.processes[index].number;
            let knows_all = ends(&self.server, number) == ends(&old, number);
            let run = self.server.run;
            let process = self.process(index);
            if knows_all {
                process.heard_run = run;
            }
            process.frames.clear();
            if process.link != Link::Down && !process.is_closed() && process.worker.is_some() {
                process.link = Link::Down;
            }
        }
    }

    fn frame(&mut self, scope: &Scope, index: usize, which: usize, keep: bool) {
        let now = self.now;
        let process = self.process(index);
        if let Some(frame) = process.frames.remove(which) {
            if keep {
                process.frames.push_front(frame.clone());
            }
            process.handle_frame(now, scope, frame);
        }
    }

    fn run(&mut self, scope: &Scope, index: usize, request: usize, to: Number) {
        let Request { ask, .. } = self.processes[index].requests[request].clone();
        let Process { number, token, .. } = *self.processes[index];
        let reply = self.carry_out(scope, number, token, &ask, to);
        self.process(index).requests[request].reply = Some(reply);
        self.publish();
    }

    fn carry_out(&mut self, scope: &Scope, number: Number, token: u8, ask: &Ask, to: Number) -> Reply {
        let how = How { scope, to };
        match ask {
            Ask::RunId => Reply::RunId(self.server.run),
            Ask::Open { run } => {
                self.server.open(how, *run);
                Reply::Opened
            }
            Ask::Reserve => Reply::Reserved(self.server.reserve(token)),
            Ask::Join => Reply::Joined(self.server.join(how, number, token)),
            Ask::Beat { draining } => Reply::Beat(self.server.beat(how, number, token, *draining)),
            Ask::Sync { since, cursor, .. } => {
                Reply::Synced(self.server.sync(how, number, token, *since, *cursor))
            }
            Ask::Release(jobs) => Reply::Released(self.server.release(how, number, jobs)),
            Ask::Leave => Reply::Left(self.server.leave(how, number, token)),
        }
    }

    fn answer(&mut self, scope: &Scope, index: usize, request: usize) {
        let now = self.now;
        let request = self.process(index).requests.remove(request);
        self.process(index).handle_reply(now, scope, request);
    }

    /// What the scripts have published goes to who listens.
    fn publish(&mut self) {
        if self.server.out.is_empty() {
            return;
        }
        for (number, frame) in std::mem::take(&mut self.server.out) {
            for index in 0..self.processes.len() {
                if self.processes[index].hears(number) && !self.processes[index].is_closed() {
                    self.process(index).frames.push_back(frame.clone());
                }
            }
        }
    }

    /// Whether a failover has forgotten the assignment.
    fn is_forgotten(&self, job: &JobId, number: Number, grant: u64) -> bool {
        grant <= self.forgot && !self.confirmed.contains(&(job.clone(), number, grant))
    }

    /// All handles that are out anywhere: of which job, with which epoch, in which process.
    pub(crate) fn handed_out(&self) -> Vec<(JobId, u64, usize)> {
        let mut out = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            let handles = process.worker.iter().flat_map(|worker| &worker.handles);
            out.extend(handles.map(|handle| (handle.job.clone(), handle.epoch, index)));
        }
        out
    }

    /// Who holds each job: its handle counts, and no failover has forgotten the assignment.
    pub(crate) fn holders(&self) -> BTreeMap<JobId, Vec<(Number, u64)>> {
        let mut holders: BTreeMap<JobId, Vec<(Number, u64)>> = BTreeMap::new();
        for process in &self.processes {
            let member = self.server.members.get(&process.number);
            let locked = member
                .is_some_and(|member| member.token == process.token && member.listed && member.ends > 0);
            for handle in process.worker.iter().flat_map(|worker| &worker.handles) {
                let stopped = handle.cancelled.is_some_and(|cancelled| cancelled.until <= self.now);
                // A process that is paused cannot know that its lock has ended, and when it goes on it says so first.
                let excused =
                    process.pace != Pace::Timely || handle.cancelled.is_some_and(|cancelled| cancelled.late);
                let forgotten = self.is_forgotten(&handle.job, process.number, handle.grant);
                let forgotten = forgotten || process.heard_run != self.server.run;
                if !stopped && (locked || !excused) && !forgotten {
                    holders.entry(handle.job.clone()).or_default().push((process.number, handle.epoch));
                }
            }
        }
        holders
    }
}
