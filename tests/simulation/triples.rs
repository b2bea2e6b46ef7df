//! Every triple of what can befall a share, from each of its states.

use std::collections::BTreeMap;
use std::time::Duration;

use nasmount::share::State;
use nasmount::share::consumers::{AfterHold, OnOutage};
use nasmount::share::detector::LocalTrouble;
use nasmount::share::failure::FailureClass;

use crate::invariants::{Check, Violation};
use crate::quiet;
use crate::schedule::{Change, Cure, Fault, ServerIs, Setup, Typed};
use crate::story::{Story, beginning, setup_of, story, unit, with_policy};
use crate::world::World;

/// Pauses between two of them, by turns: less than an operation, more than one, more than a hold.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(3), Duration::from_secs(20)];

/// One share with two consumers; everything is over soon.
fn small() -> Setup {
    let second = with_policy(&[0], OnOutage::Stop, AfterHold::None, 500);
    let mut setup = setup_of(&[0], vec![unit(&[0]), second]).probed(2_000, 2).patience(5_000).hold_for(15_000);
    setup.units[1].order = 1;
    setup
}

/// What befalls it.
fn faults() -> Vec<Fault> {
    let server = |is, connections_lost| Fault::Server { server: 0, is, connections_lost };
    let typed = |typed| Fault::Command { share: 0, typed };
    vec![
        server(ServerIs::Up, true),
        server(ServerIs::Silent, false),
        server(ServerIs::Hung, true),
        Fault::ShareSilent { share: 0, cure: Cure::NewMount },
        Fault::MountsRefused { share: 0, class: FailureClass::Credentials },
        Fault::DaemonDies { down_for_ms: 500 },
        Fault::Reboot { down_for_ms: 2_000 },
        Fault::AdminStops { unit: 0 },
        Fault::BusLost { calls_hang: false },
        Fault::BusBack,
        Fault::ForeignMount { share: 0 },
        Fault::ForeignGone { share: 0 },
        Fault::TakenOff { share: 0 },
        Fault::BarrierTaken { share: 0 },
        Fault::ServerMoves { server: 0 },
        Fault::AddressDies { server: 0, second: false },
        Fault::SourceEdited { share: 0, down_for_ms: 500 },
        Fault::Local { server: 0, trouble: Some(LocalTrouble::NoLink) },
        Fault::Local { server: 0, trouble: Some(LocalTrouble::OffNetwork) },
        Fault::Local { server: 0, trouble: None },
        typed(Typed::Mount),
        typed(Typed::Unmount),
        typed(Typed::Remount),
        typed(Typed::MaintenanceOn { for_ms: Some(10_000) }),
        typed(Typed::MaintenanceOff),
        typed(Typed::Hold),
        Fault::ConfigurationLoaded { change: Change::Hold { share: 0, ms: Some(0) } },
        Fault::Suspend { for_ms: 60_000 },
        Fault::SleepAnnounced,
    ]
}

/// A world in each state.
fn worlds() -> Vec<World> {
    let small = small();
    let silent = || story(&small).server(ServerIs::Silent);
    let refused = Fault::MountsRefused { share: 0, class: FailureClass::Credentials };
    let reach = |state: State| -> Story {
        match state {
            State::Online => story(&small),
            State::Suspect => silent().reaches(state, 5),
            State::Holding => silent().reaches(state, 8).after(1),
            State::Releasing => silent().hangs("release", 3, true).reaches(state, 30),
            State::Offline => silent().reaches(state, 30),
            State::Mounting => beginning(&small).hangs("mount", 4, true).reaches(state, 5),
            State::Recovering => silent()
                .reaches(State::Holding, 8)
                .after(1)
                .hangs("verify", 4, true)
                .server_restarted()
                .reaches(state, 10),
            State::Blocked => beginning(&small).fault(refused.clone()).reaches(state, 5),
            State::Maintenance => story(&small).typed(Typed::MaintenanceOn { for_ms: None }),
            State::Stuck => silent()
                .reaches(State::Holding, 8)
                .after(1)
                .hangs("attach", 25, false)
                .server_restarted()
                .reaches(state, 40),
        }
    };
    State::ALL.into_iter().map(|state| reach(state).is(state).0).collect()
}

#[derive(Default)]
struct Tried {
    listener: quiet::Listener,
    triples: u64,
    steps: u64,
    /// By rule: how many triples broke it, and the first of them.
    broken: BTreeMap<&'static str, (u64, Vec<usize>, Violation)>,
}

fn pause_of(path: &[usize]) -> Duration {
    PAUSES[(path.iter().sum::<usize>() + path.len()) % PAUSES.len()]
}

/// One of them, and a pause.
fn befalls(world: &mut World, fault: &Fault, pause: Duration) -> Check {
    world.fault(fault.clone())?;
    world.nudge_waiting();
    world.run_to(world.now + pause)
}

/// The same once more, for people.
fn replay(world: &World, faults: &[Fault], path: &[usize]) -> String {
    let mut world = world.clone();
    world.trace = Some(Vec::new());
    let told = (1..=path.len()).try_for_each(|length| {
        let path = &path[..length];
        befalls(&mut world, &faults[path[length - 1]], pause_of(path))
    });
    let _ = told.and_then(|()| world.heal()).and_then(|()| world.until_well());
    let trace = world.trace.unwrap_or_default();
    trace[trace.len().saturating_sub(120)..].join("\n")
}

/// Goes on from a world with every fault, then with every fault after that, and so on; at the end all becomes well.
fn try_all(world: &World, faults: &[Fault], before: &[usize], tried: &mut Tried) {
    for (index, fault) in faults.iter().enumerate() {
        let path: Vec<usize> = before.iter().copied().chain([index]).collect();
        let mut next = world.clone();
        let errors = tried.listener.errors();
        let mut check = befalls(&mut next, fault, pause_of(&path));
        if path.len() == 3 {
            check = check.and_then(|()| next.heal()).and_then(|()| next.until_well());
            tried.triples += 1;
            tried.steps += next.figures.steps;
        }
        if tried.listener.errors() > errors {
            check = Err(Violation::new("no ERROR event", next.now, tried.listener.last_error()));
        }
        match check {
            Ok(()) if path.len() < 3 => try_all(&next, faults, &path, tried),
            Ok(()) => {}
            Err(found) => tried.broken.entry(found.rule).or_insert((0, path, found)).0 += 1,
        }
    }
}

#[test]
fn every_triple_from_every_state_ends_well() {
    let faults = faults();
    let started = quiet::stopwatch();
    let mut tried = Tried::default();
    for mut world in worlds() {
        let state = world.state_of(0);
        world.trace = None;
        let listener = tried.listener.clone();
        listener.during(|| try_all(&world, &faults, &[], &mut tried));
        for (rule, (times, path, found)) in &tried.broken {
            println!("{}", replay(&world, &faults, path));
            let path: Vec<&Fault> = path.iter().map(|index| &faults[*index]).collect();
            println!("from {state:?}, {times} times '{rule}': after {path:?}, at {}: {}", found.at, found.message);
        }
        assert!(tried.broken.is_empty(), "from {state:?}");
    }
    println!("{} triples in {:?}, {} steps", tried.triples, started(), tried.steps);
}
