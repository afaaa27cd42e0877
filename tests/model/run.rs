//! Runs the checks, one after the other, and says what each has found.

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
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) repeats: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    /// The properties that do not hold, each with the shortest way to where it does not.
    pub(crate) broken: Vec<(&'static str, Vec<Action>)>,
}

pub(crate) fn search(scope: Scope, calms: &'static [Calm], finish: HasDiscoveries) -> Found {
    let start = Instant::now();
    let checker = Check::new(scope, calms).checker().finish_when(finish).spawn_bfs().join();
    let mut broken: Vec<_> =
        checker.discoveries().into_iter().map(|(name, path)| (name, path.into_actions())).collect();
    broken.sort_by_key(|(_, actions)| actions.len());
    Found {
        states: checker.unique_state_count(),
        repeats: checker.state_count(),
        depth: checker.max_depth(),
        took: start.elapsed(),
        broken,
    }
}

/// One step a line, and what the world is like after it.
pub(crate) fn show(scope: Scope, actions: &[Action]) {
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

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let (full, trace) = (has("--full"), has("--trace"));
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let mut failed = 0;
    for sound in SOUND.iter().filter(|sound| chosen(sound.name) && (full || !sound.long || !names.is_empty())) {
        failed += usize::from(!run_sound(sound, trace));
    }
    for broken in BROKEN.iter().filter(|broken| chosen(broken.name) && (full || !broken.long || !names.is_empty())) {
        failed += usize::from(!run_broken(broken, trace));
    }
    if failed > 0 {
        println!("{failed} checks failed");
        exit(1);
    }
}

fn run_sound(sound: &Sound, trace: bool) -> bool {
    let found = search(sound.scope, sound.calms, HasDiscoveries::Any);
    println!(
        "sound: {}: {} states, {} steps, {} deep, {:.1?}",
        sound.name, found.states, found.repeats, found.depth, found.took
    );
    for (property, actions) in &found.broken {
        println!("  BROKEN: {property}, after {} steps", actions.len());
        if trace {
            show(sound.scope, actions);
        } else {
            println!("    {actions:?}");
        }
    }
    found.broken.is_empty()
}

fn run_broken(broken: &Broken, trace: bool) -> bool {
    let scope = broken.scope();
    let found = search(scope, broken.calms, HasDiscoveries::Any);
    let Some((property, actions)) = found.broken.first() else {
        println!("broken: {}: NOT FOUND in {} states, {:.1?}", broken.name, found.states, found.took);
        return false;
    };
    println!(
        "broken: {}: {property}, after {} steps; {} states, {:.1?}",
        broken.name,
        actions.len(),
        found.states,
        found.took
    );
    if trace {
        show(scope, actions);
    } else {
        println!("    {actions:?}");
    }
    let as_expected = *property == broken.property && actions.len() == broken.steps;
    if !as_expected {
        println!("  NOT AS EXPECTED: {}, after {} steps", broken.property, broken.steps);
    }
    // The same steps, as far as they are possible, do no harm where nothing is broken.
    let harmless = replay(Scope { broken: None, ..scope }, broken.calms, actions);
    if let Err(property) = harmless {
        println!("  THE SAME BREAKS THE SOUND PROTOCOL: {property}");
    }
    as_expected && harmless.is_ok()
}

fn replay(scope: Scope, calms: &'static [Calm], actions: &[Action]) -> Result<(), &'static str> {
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
        check.judge(&state.world)?;
    }
    Ok(())
}
