//! What must come of any state once nothing goes wrong any more: everybody does at once what is to be done, time goes on,
//! and after some heartbeats each job is held by a living worker with room, as the server says, and nothing else is
//! held or waits.
//!
//! This is the liveness that is checked, in each state: not that every fair schedule heals, but that this one does, in
//! bounded time. Two kinds of it are tried (see [`Calm`]).

use crate::process::{Life, Link, Pace};
use crate::scope::{Asked, Scope};
use crate::server::State;
use crate::world::{Action, World, job};

/// How many heartbeats it may take.
const LONGEST: usize = 12;

/// And how many steps between two.
const MOST_STEPS: usize = 200;

/// How it goes on once nothing goes wrong any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Calm {
    /// What is under way arrives, frames before answers.
    Arrives,
    /// What is under way is lost, and so is every notification from now on: heartbeats alone have to do.
    Unheard,
    /// What is under way arrives, and no consumer polls: jobs that have to go, go all the same.
    Unpolled,
}

impl World {
    /// One state of those that a calm goes through: nothing more is asked, nothing more goes wrong.
    pub(crate) fn begin_calm(&mut self, calm: Calm) {
        (self.asked, self.faults, self.ticks, self.replica) = (Asked::default(), u8::MAX, 0, None);
        self.commands.clear();
        self.lingering.clear();
        if calm == Calm::Unheard {
            self.forget_frames();
        }
    }

    fn forget_frames(&mut self) {
        for index in 0..self.processes.len() {
            if !self.processes[index].frames.is_empty() {
                self.process(index).frames.clear();
            }
        }
    }

    /// All that can be done now, and then a tick.
    pub(crate) fn calm_round(&mut self, scope: &Scope, calm: Calm) {
        let mut left = MOST_STEPS;
        let mut quiet = false;
        while !quiet && left > 0 {
            quiet = true;
            for index in 0..self.processes.len() {
                while let Some(action) = self.calm_action(index, calm).filter(|_| left > 0) {
                    (quiet, left) = (false, left - 1);
                    self.act(scope, action);
                    if calm == Calm::Unheard {
                        self.forget_frames();
                    }
                }
            }
            quiet &= !self.calm_server(scope);
        }
        self.act(scope, Action::Tick);
    }

    fn calm_action(&self, index: usize, calm: Calm) -> Option<Action> {
        let process = &self.processes[index];
        match process.pace {
            Pace::Paused => return Some(Action::Resume(index)),
            Pace::Late => return Some(Action::Wake(index)),
            Pace::Timely => {}
        }
        if !matches!(process.life, Life::Starting | Life::Running) {
            return None;
        }
        if !process.is_closed() {
            match process.link {
                Link::Down if process.worker.is_some() => return Some(Action::Subscribe(index)),
                Link::Attaching if process.worker.is_some() => return Some(Action::Attach(index)),
                _ => {}
            }
            if !process.frames.is_empty() && process.worker.is_some() {
                return Some(Action::Frame(index));
            }
            if let Some(request) = process.requests.first() {
                return Some(match (request.reply.is_some(), calm) {
                    (true, _) => Action::Answer(index, 0),
                    // What a script publishes comes before its answer.
                    (false, Calm::Arrives) => Action::Run(index, 0, 0),
                    (false, Calm::Unheard | Calm::Unpolled) => Action::Call(index, 0, 0),
                });
            }
        }
        let worker = process.worker.as_ref()?;
        if calm != Calm::Unpolled && worker.view.has_delivery() {
            return Some(Action::Poll(index));
        }
        let deleted = worker.handles.iter().position(|handle| handle.deleted)?;
        Some(Action::Drop(index, deleted))
    }

    /// Workers reap whose lock has ended, and hand out what waits. Whether there was something to do.
    fn calm_server(&mut self, scope: &Scope) -> bool {
        if !self.somebody_lives() {
            return false;
        }
        let due = self.server.members.iter().find(|(_, member)| member.ends == 0).map(|(number, _)| *number);
        if let Some(number) = due {
            self.act(scope, Action::Reap(number, 0));
            return true;
        }
        let waits = !self.server.pending().is_empty() && !self.server.with_room(scope).is_empty();
        if waits {
            self.act(scope, Action::Place(0));
        }
        waits
    }

    fn somebody_lives(&self) -> bool {
        self.processes.iter().any(|process| process.life == Life::Running && !process.is_closed())
    }

    /// What is not as it should be when all is calm.
    pub(crate) fn unrest(&self, scope: &Scope, calm: Calm) -> Option<&'static str> {
        if self.processes.iter().any(|process| process.is_closed()) && calm != Calm::Unpolled {
            return Some("a worker is closed and its consumer has not heard it");
        }
        for process in &self.processes {
            let Some(worker) = process.worker.as_ref().filter(|worker| !worker.view.is_closed()) else {
                continue;
            };
            if worker.terminated {
                return Some("a worker that was told to leave is still there");
            }
            for handle in &worker.handles {
                let held =
                    self.server.jobs.get(&handle.job).is_some_and(|record| {
                        record.worker == process.number && record.grant == handle.grant
                    });
                if !held && handle.cancelled.is_none() {
                    return Some("a worker holds what the server has given to another, or has forgotten");
                }
            }
        }
        if !self.somebody_lives() {
            return None; // nobody is there to hold anything
        }
        for index in 0..scope.jobs {
            let Some(record) = self.server.jobs.get(&job(index)) else { continue };
            let mut up = self.processes.iter().filter(|process| process.life == Life::Running);
            let holder = up.find(|process| process.number == record.worker && !process.is_closed());
            match record.state {
                State::Pending if self.server.with_room(scope).is_empty() => {}
                State::Pending => return Some("a job waits beside room"),
                State::Releasing | State::Moving => return Some("the server waits for a release for ever"),
                State::Assigned => {
                    let Some(worker) = holder.and_then(|process| process.worker.as_ref()) else {
                        return Some("a job belongs to nobody who lives");
                    };
                    if calm == Calm::Unpolled {
                        continue;
                    }
                    let epoch = record.grant.max(self.server.lifted);
                    let as_said = worker.handles.iter().any(|handle| {
                        handle.job == job(index)
                            && (handle.grant, handle.epoch) == (record.grant, epoch)
                            && handle.payload == record.payload
                            && handle.cancelled.is_none()
                    });
                    if !as_said {
                        return Some(
                            "a worker does not hold what the server says, or with another epoch or payload",
                        );
                    }
                }
            }
        }
        None
    }

    /// The faults that the rounds have counted are none.
    pub(crate) fn refill(&mut self) {
        self.faults = u8::MAX;
    }
}

/// Rounds after which all must be calm.
pub(crate) fn longest() -> usize {
    LONGEST
}
