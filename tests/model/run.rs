//! Runs the checks, one after the other, and says what each has found.

use std::collections::BTreeSet;
use std::process::exit;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::broken::{BROKEN, Broken};
use crate::calm::Calm;
use crate::check::Check;
use crate::scope::Scope;
use crate::sound::{SOUND, Sound};
use crate::world::Action;

/// What a check has found.
struct Found {
    states: usize,
    depth: usize,
    took: Duration,
    /// The property that does not hold, and the shortest way to where it does not.
    broken: Option<(&'static str, Vec<Action>)>,
}

/// Looks for a state in which this property does not hold, or any; one after the other, the nearest first.
fn search(scope: Scope, calms: &'static [Calm], property: Option<&'static str>) -> Found {
    let start = Instant::now();
    let finish = match property {
        Some(property) => HasDiscoveries::AnyOf(BTreeSet::from([property])),
        None => HasDiscoveries::Any,
    };
    let checker = Check::new(scope, calms).checker().finish_when(finish).spawn_bfs().join();
    let found =
        checker.discoveries().into_iter().filter(|(name, _)| property.is_none_or(|wanted| wanted == *name));
    let broken =
        found.map(|(name, path)| (name, path.into_actions())).min_by_key(|(_, actions)| actions.len());
    Found { states: checker.unique_state_count(), depth: checker.max_depth(), took: start.elapsed(), broken }
}

/// One step a line, and what the world is like after it.
fn show(scope: Scope, actions: &[Action]) {
    let check = Check::new(scope, &[]);
    let mut world = check.init_states().remove(0).world;
    for action in actions {
        world.act(&scope, *action);
        println!("    {action:?}");
        for (job, record) in &world.server.jobs {
            println!("        {job}: {record:?}");
        }
        for process in &world.processes {
            println!("        {}", process.summary(world.now));
        }
    }
    for calm in [Calm::Arrives, Calm::Unheard, Calm::Unpolled] {
        if let Some(unrest) = check.path_to_rest(&world, calm) {
            println!("    in the end, {calm:?}: {unrest}");
        }
    }
}

/// What is to be run, and how much is said about it.
struct Wish {
    full: bool,
    trace: bool,
    names: Vec<String>,
}

impl Wish {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let (flags, names): (Vec<String>, Vec<String>) =
            arguments.partition(|argument| argument.starts_with('-'));
        let has = |flag: &str| flags.iter().any(|given| given == flag);
        Self { full: has("--full"), trace: has("--trace"), names }
    }

    fn has(&self, name: &str, long: bool) -> bool {
        let named = self.names.iter().any(|part| name.contains(part.as_str()));
        (self.names.is_empty() || named) && (self.full || named || !long)
    }

    fn tell(&self, scope: Scope, actions: &[Action]) {
        if self.trace {
            show(scope, actions);
        } else {
            println!("    {actions:?}");
        }
    }
}

pub(crate) fn main() {
    let wish = Wish::of(std::env::args().skip(1));
    let (mut failed, mut states) = (0, 0);
    let sound: Vec<&Sound> = SOUND.iter().filter(|sound| wish.has(sound.name, sound.long)).collect();
    if !sound.is_empty() {
        println!("The protocol as it is: nothing may be found.\n");
        println!("{:<66}{:>11}{:>7}{:>9}", "scope", "states", "depth", "seconds");
    }
    for sound in sound {
        let found = search(sound.scope, sound.calms, None);
        line(sound.name, &found);
        states += found.states;
        if let Some((property, actions)) = &found.broken {
            failed += 1;
            println!("  BROKEN after {} steps: {property}", actions.len());
            wish.tell(sound.scope, actions);
        }
    }
    let broken: Vec<&Broken> = BROKEN.iter().filter(|broken| wish.has(broken.name, broken.long)).collect();
    if !broken.is_empty() {
        println!("\nThe protocol, broken on purpose: each break must be found, by the shortest way.\n");
        println!("{:<66}{:>11}{:>7}{:>9}", "broken", "states", "steps", "seconds");
    }
    for broken in broken {
        failed += usize::from(!is_found(broken, &wish));
    }
    if failed > 0 {
        println!("\n{failed} failed");
        exit(1);
    }
    println!("\nall as it must be; {states} states of the sound protocol");
}

fn line(name: &str, found: &Found) {
    let Found { states, depth, took, broken } = found;
    let depth = broken.as_ref().map_or(*depth, |(_, actions)| actions.len());
    println!("{name:<66}{states:>11}{depth:>7}{:>9.1}", took.as_secs_f64());
}

/// Whether the shortest way to where the break shows is as long as the one that is written down, and that one is a
/// way, too; and whether the same steps do no harm where nothing is broken.
fn is_found(broken: &Broken, wish: &Wish) -> bool {
    let scope = broken.scope();
    let found = search(scope, broken.calms, Some(broken.property));
    line(broken.name, &found);
    let Some((_, actions)) = &found.broken else {
        println!("  NOT FOUND: {}", broken.property);
        return false;
    };
    println!("  {}", broken.property);
    wish.tell(scope, actions);
    if actions.len() != broken.trace.len() {
        println!("  NOT AS EXPECTED, which was {} steps", broken.trace.len());
        return false;
    }
    if replay(scope, broken.calms, broken.trace, broken.property) {
        println!("  THE WAY THAT IS WRITTEN DOWN DOES NOT LEAD THERE");
        return false;
    }
    let sound = Scope { broken: None, ..scope };
    let harmless = replay(sound, broken.calms, broken.trace, broken.property);
    if !harmless {
        println!("  THE SAME STEPS BREAK THE SOUND PROTOCOL");
    }
    harmless
}

/// Whether the property holds all the way; steps that are not possible are left out.
fn replay(scope: Scope, calms: &'static [Calm], actions: &[Action], property: &str) -> bool {
    let check = Check::new(scope, calms);
    let mut state = check.init_states().remove(0);
    for action in actions {
        let mut possible = Vec::new();
        check.actions(&state, &mut possible);
        if possible.contains(action)
            && let Some(next) = check.next_state(&state, *action)
        {
            state = next;
        }
        if !check.judge(&state.world, property) {
            return false;
        }
    }
    true
}
