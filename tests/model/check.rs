//! The model as the checker takes it: the states, what may happen in each, and what must always hold.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Model, Property};

use crate::calm::{Calm, longest};
use crate::identity::{content, identity};
use crate::process::{Ask, Fault, Handle, Life, Link, Pace, Process, Worker};
use crate::scope::{Break, Scope};
use crate::server::{Server, State as Held};
use crate::world::{Action, Shared, World, job};

/// A world, and what tells it from others.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) world: World,
    id: u64,
}

impl State {
    fn new(world: World) -> Self {
        Self { id: identity(&world), world }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// One check: a scope, and which of the properties have been found broken. Of each only the first counts, which is the
/// one with the shortest trace: the checker goes on for a while, and would report a later one.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) scope: Scope,
    /// Whether what must come of each state is looked at, or only what must not happen.
    pub(crate) calms: &'static [Calm],
    found: AtomicU64,
    /// What many states have a part of: kept once.
    servers: Mutex<HashMap<u64, Shared<Server>>>,
    processes: Mutex<HashMap<u64, Shared<Process>>>,
    /// States of a calm that are known to end well: within how many rounds.
    calm: Mutex<HashMap<(u64, Calm), usize>>,
}

pub(crate) const ONE_OWNER: &str = "one owner";
pub(crate) const FENCE: &str = "a worker has stopped when its lock ends";
pub(crate) const EPOCHS: &str = "epochs only grow, and no two owners have the same";
pub(crate) const IN_TURN: &str = "events are in turn";
pub(crate) const NOTHING_LOST: &str = "no job vanishes unless deleted";
pub(crate) const CAUSE: &str = "no job is taken from its owner without cause";
pub(crate) const NOTHING_LATE: &str = "what its caller gave up on is not done later";
pub(crate) const HELD: &str = "every job ends up held";

type Holds = fn(&Check, &World) -> bool;

const PROPERTIES: [(&str, Holds); 8] = [
    (ONE_OWNER, |check, world| check.scope.lenient || world.holders().values().all(|who| who.len() <= 1)),
    (FENCE, |check, world| check.scope.lenient || has_stopped(world)),
    (EPOCHS, |_, world| {
        let mut epochs = world.handed_out();
        let all = epochs.len();
        epochs.sort_unstable();
        epochs.dedup_by_key(|(job, epoch, _)| (job.clone(), *epoch));
        let distinct = epochs.len() == all;
        distinct && world.fault != Some(Fault::Epoch)
    }),
    (IN_TURN, |_, world| world.fault != Some(Fault::Turn)),
    (NOTHING_LOST, |_, world| is_kept(world)),
    (CAUSE, |_, world| is_taken_for_cause(world)),
    (NOTHING_LATE, |_, world| world.fault != Some(Fault::Late)),
    (HELD, |check, world| check.calms.iter().all(|calm| check.heals(world, *calm))),
];

/// No worker that is not paused lets its handlers go on when the server may give its jobs to others.
fn has_stopped(world: &World) -> bool {
    world.processes.iter().all(|process| {
        let member = world.server.members.get(&process.number);
        let ended = member.is_none_or(|member| member.token != process.token || member.ends == 0);
        // A failover may have forgotten its heartbeats. Whoever is there when somebody lifts has its lock extended.
        let extended = member.is_some_and(|member| member.token == process.token && member.listed)
            && world.server.known_run == world.server.run;
        let forgotten = process.heard_run != world.server.run && !extended;
        let goes_on = |worker: &Worker| worker.handles.iter().any(|handle| handle.cancelled.is_none());
        process.pace != Pace::Timely || forgotten || !ended || !process.worker.as_ref().is_some_and(goes_on)
    })
}

fn is_kept(world: &World) -> bool {
    world.kept.iter().enumerate().all(|(index, kept)| {
        kept.is_none_or(|born| {
            let record = world.server.jobs.get(&job(index as u8));
            record.is_some_and(|record| record.born == born)
        })
    })
}

/// A worker that goes on gives up only what the server wants it to give up. (After a failover the server may have forgotten
/// that it wanted it.)
fn is_taken_for_cause(world: &World) -> bool {
    world.processes.iter().all(|process| {
        let Some(worker) =
            process.worker.as_ref().filter(|worker| !worker.view.is_closed() && !worker.terminated)
        else {
            return true;
        };
        let mut taken = worker.handles.iter().filter(|handle| handle.cancelled.is_some());
        let is_wanted = |handle: &Handle| {
            world.server.jobs.get(&handle.job).is_none_or(|record| {
                (record.worker, record.grant) != (process.number, handle.grant)
                    || record.state != Held::Assigned
            })
        };
        world.server.run > 0 || taken.all(is_wanted)
    })
}

impl Check {
    pub(crate) fn new(scope: Scope, calms: &'static [Calm]) -> Self {
        Self {
            scope,
            calms,
            found: AtomicU64::new(0),
            servers: Mutex::default(),
            processes: Mutex::default(),
            calm: Mutex::default(),
        }
    }

    /// What the step has changed takes the place of an equal part of another state.
    fn share(&self, before: &World, world: &mut World) {
        if let Ok(mut known) = self.servers.lock()
            && !world.server.is(&before.server)
        {
            let key = content(|trail| trail.server(&world.server));
            world.server = known.entry(key).or_insert_with(|| world.server.clone()).clone();
        }
        for (before, process) in before.processes.iter().zip(&mut world.processes) {
            if let Ok(mut known) = self.processes.lock()
                && !process.is(before)
            {
                let key = content(|trail| trail.process(process));
                *process = known.entry(key).or_insert_with(|| process.clone()).clone();
            }
        }
    }

    /// Whether all comes to rest from here.
    pub(crate) fn heals(&self, world: &World, calm: Calm) -> bool {
        self.path_to_rest(world, calm).is_none()
    }

    /// What is still wrong after the longest time that it may take.
    pub(crate) fn path_to_rest(&self, world: &World, calm: Calm) -> Option<&'static str> {
        let mut world = world.clone();
        world.begin_calm(calm);
        let mut path = Vec::new();
        for _ in 0..longest() {
            world.refill();
            let key = (identity(&world), calm);
            if self.calm.lock().is_ok_and(|known| known.contains_key(&key)) {
                return None;
            }
            path.push(key);
            world.calm_round(&self.scope, calm);
        }
        let unrest = world.unrest(&self.scope, calm);
        if unrest.is_none()
            && let Ok(mut known) = self.calm.lock()
        {
            known.extend(path.into_iter().map(|key| (key, 0)));
        }
        unrest
    }

    /// Whether this property holds.
    pub(crate) fn judge(&self, world: &World, property: &str) -> bool {
        PROPERTIES.iter().all(|(name, holds)| *name != property || holds(self, world))
    }

    fn holds(&self, property: usize, world: &World) -> bool {
        if self.found.load(Ordering::Relaxed) & (1 << property) != 0 || PROPERTIES[property].1(self, world) {
            return true;
        }
        self.found.fetch_or(1 << property, Ordering::Relaxed);
        false
    }

    fn process_actions(&self, world: &World, index: usize, actions: &mut Vec<Action>) {
        let process = &world.processes[index];
        let (asked, may, faults) = (world.asked, self.scope.may, world.faults > 0);
        match process.life {
            // Those that have not started are all the same.
            Life::Absent if asked.starts > 0 && world.first_absent() == Some(index) => {
                return actions.push(Action::Start(index));
            }
            Life::Absent | Life::Crashed => return,
            Life::Starting | Life::Running => {}
        }
        if process.pace == Pace::Paused {
            return actions.push(Action::Resume(index));
        }
        if let Some(worker) = &process.worker {
            if worker.view.has_delivery() {
                actions.push(Action::Poll(index));
            }
            for (at, handle) in worker.handles.iter().enumerate() {
                if handle.deleted {
                    actions.push(Action::Drop(index, at));
                }
            }
        }
        if process.is_closed() {
            if process.pace == Pace::Late {
                actions.push(Action::Wake(index));
            }
            return;
        }
        if process.pace == Pace::Late || process.worker.as_ref().is_some_and(|worker| worker.retry) {
            actions.push(Action::Wake(index));
        }
        if let Some(worker) = &process.worker {
            if !process.frames.is_empty() {
                actions.push(Action::Frame(index));
                if faults && may.lose {
                    actions.push(Action::Lose(index));
                }
                if faults && may.repeat {
                    actions.push(Action::Repeat(index));
                }
                if faults && may.overtake && process.frames.len() > 1 {
                    actions.push(Action::Overtake(index));
                }
            }
            match process.link {
                Link::Down => actions.push(Action::Subscribe(index)),
                Link::Attaching => actions.push(Action::Attach(index)),
                Link::Attached if faults && may.disconnect => {
                    actions.push(Action::Disconnect(index));
                    actions.push(Action::Deafen(index));
                }
                Link::Attached | Link::Deaf => {}
            }
            if !worker.terminated && asked.terminations > 0 {
                actions.push(Action::Terminate(index));
            }
        }
        for (at, request) in process.requests.iter().enumerate() {
            if request.reply.is_some() {
                actions.push(Action::Answer(index, at));
            } else {
                let run = |to| {
                    if self.scope.fused { Action::Call(index, at, to) } else { Action::Run(index, at, to) }
                };
                self.to_any(world, matches!(request.ask, Ask::Release(_) | Ask::Leave), run, actions);
                if self.scope.fused && faults && may.slow {
                    actions.push(Action::Run(index, at, 0));
                }
                if faults && may.linger {
                    actions.push(Action::Linger(index, at));
                }
            }
            if faults && may.fail {
                actions.push(Action::Fail(index, at));
            }
        }
        if faults && may.pause && process.pace == Pace::Timely {
            actions.push(Action::Pause(index));
        }
        if faults && may.crash {
            actions.push(Action::Crash(index));
        }
    }

    /// An action that may give a job to somebody: to whom?
    fn to_any(&self, world: &World, gives: bool, action: impl Fn(u64) -> Action, actions: &mut Vec<Action>) {
        let room = world.server.with_room(&self.scope);
        if gives && self.scope.any_worker && !room.is_empty() {
            actions.extend(room.into_iter().map(action));
        } else {
            actions.push(action(0));
        }
    }

    fn master_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let (asked, faults) = (world.asked, world.faults > 0);
        for index in 0..self.scope.jobs {
            let kept = world.kept[usize::from(index)];
            if asked.adds > 0 && kept.is_none() {
                self.to_any(world, true, |to| Action::Add(index, to), actions);
                if faults && self.scope.may.linger {
                    actions.push(Action::SendAdd(index));
                }
            }
            if asked.updates > 0 && kept.is_some() {
                actions.push(Action::Update(index));
            }
            if asked.deletes > 0 && kept.is_some() {
                actions.push(Action::Delete(index));
                if faults && self.scope.may.linger {
                    actions.push(Action::SendDelete(index));
                }
            }
            let record = world.server.jobs.get(&job(index));
            if asked.moves > 0
                && record.is_some_and(|record| record.state == Held::Assigned)
                && world.server.with_room(&self.scope).len() > 1
            {
                actions.push(Action::Rebalance(index));
            }
        }
    }

    fn server_actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, member) in &world.server.members {
            if member.ends == 0 || self.scope.broken == Some(Break::ReapOfTheLiving) {
                self.to_any(world, true, |to| Action::Reap(*number, to), actions);
            }
        }
        if !world.server.pending().is_empty() && !world.server.with_room(&self.scope).is_empty() {
            self.to_any(world, true, Action::Place, actions);
        }
        for index in 0..world.commands.len() {
            self.to_any(world, true, |to| Action::RunLate(index, to), actions);
        }
        for index in 0..world.lingering.len() {
            self.to_any(world, true, |to| Action::RunLingering(index, to), actions);
        }
        if self.scope.may.failover && world.faults > 0 && world.replica.is_none() && world.server.run == 0 {
            actions.push(Action::ReplicaStops);
        }
        if world.replica.is_some() {
            actions.push(Action::Failover);
        }
    }

    /// Time goes on when everybody who is not paused has done what is due, and nothing is under way for too long.
    fn may_tick(&self, world: &World) -> bool {
        let slow = self.scope.may.slow && world.faults > 0;
        if (world.is_busy() && !slow) || (self.scope.ticks > 0 && world.ticks == 0) {
            return false;
        }
        world.processes.iter().filter(|process| process.is_up() && !process.is_closed()).all(|process| {
            // A heartbeat that is not answered when the next is due has failed.
            let beats = process.requests.iter().any(|request| matches!(request.ask, Ask::Beat { .. }));
            process.pace == Pace::Timely && !beats
        })
    }
}

impl Model for Check {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(World::new(&self.scope))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let world = &state.world;
        if world.fault.is_some() {
            return;
        }
        self.master_actions(world, actions);
        self.server_actions(world, actions);
        for index in 0..world.processes.len() {
            self.process_actions(world, index, actions);
        }
        if self.may_tick(world) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut world = state.world.clone();
        world.act(&self.scope, action);
        self.share(&state.world, &mut world);
        let next = State::new(world);
        (next.id != state.id).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // A property is a plain function: each knows its place in the list.
        macro_rules! property {
            ($($at:literal)*) => {
                vec![$(Property::always(PROPERTIES[$at].0, |check: &Self, state: &State| check.holds($at, &state.world))),*]
            };
        }
        property!(0 1 2 3 4 5 6 7)
    }
}
