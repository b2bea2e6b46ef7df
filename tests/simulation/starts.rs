//! A daemon that starts with every combination of mount, clone, barrier, fence, memory and held unit in place that an earlier
//! one can have left, whatever the server does meanwhile.

use nasmount::share::BootInstant;
use nasmount::share::command::Wanted;
use nasmount::share::consumers::{Held, HeldUnit};
use nasmount::share::event::Memory;

use crate::host::{Connection, Place, Unit};
use crate::invariants::Check;
use crate::quiet;
use crate::schedule::{ServerIs, Setup, unit_name};
use crate::story::{beginning, setup};
use crate::world::World;

/// What was left of a share, and what was remembered of it.
type Left = (Place, bool);

const BOTH: [bool; 2] = [false, true];

/// Barrier, clone, on the path. On the path is only what has a clone, which is dropped last, and a barrier, which is laid first.
const MOUNTS: [(bool, bool, bool); 5] =
    [(false, false, false), (true, false, false), (false, true, false), (true, true, false), (true, true, true)];

/// A fence is remembered before it is raised.
fn memories() -> Vec<(Memory, bool)> {
    let outages = [(None, false), (Some(5), false), (Some(5), true)];
    let fences = [(false, false), (true, false), (true, true)];
    let mut memories = Vec::new();
    for (since, given_up) in outages {
        for (fenced, is_up) in fences {
            for wanted in [Wanted::Mounted, Wanted::Unmounted, Wanted::TakenOff] {
                for remounts in BOTH {
                    let outage_since =
                        since.map(|seconds| BootInstant::from_boot(std::time::Duration::from_secs(seconds)));
                    let memory = Memory { outage_since, given_up, fenced, wanted, remounts, ..Memory::default() };
                    memories.push((memory, is_up));
                }
            }
        }
    }
    memories
}

fn shares(world: &World) -> Vec<Left> {
    let bare = world.host.shares[0].clone();
    let mut all = Vec::new();
    for (barrier, clone, ours) in MOUNTS {
        for foreign in BOTH {
            for (disk, is_up) in memories() {
                let place = Place { barrier, clone, ours, foreign, disk, ..bare.clone() };
                all.push((place, is_up));
            }
        }
    }
    all
}

/// What was remembered of a unit may be too much, never too little.
fn units(world: &World) -> Vec<(Unit, Option<Held>)> {
    let unit = world.host.units[0].clone();
    let runs = Unit { running: true, admin_stopped: false, ..unit.clone() };
    let frozen = Unit { frozen: true, ..runs.clone() };
    let stopped = Unit { running: false, stopped_by_us: true, ..runs.clone() };
    let by_admin = Unit { running: false, admin_stopped: true, ..runs.clone() };
    let (paused, both, was_stopped) = (Some(Held::Paused), Some(Held::PausedAndStopped), Some(Held::Stopped));
    vec![
        (runs.clone(), None),
        (runs.clone(), paused),
        (runs.clone(), was_stopped),
        (runs, both),
        (frozen.clone(), paused),
        (frozen, both),
        (stopped.clone(), was_stopped),
        (stopped, both),
        (by_admin.clone(), None),
        (by_admin, paused),
    ]
}

fn run(
    world: &World,
    (place, fence): &Left,
    (unit, held): &(Unit, Option<Held>),
    server: (ServerIs, Connection),
) -> (World, Check) {
    let mut world = world.clone();
    world.host.shares[0] = Place { connection: server.1, ..place.clone() };
    world.host.units[0] = unit.clone();
    let run = unit.run();
    world.host.held.extend(held.map(|held| (unit_name(0).to_owned(), HeldUnit { held, run })));
    if *fence {
        world.host.servers[0].fenced_for.insert(0, 1);
    }
    world.watch.shares[0].unmounted = !place.disk.wanted.is_mounted();
    // the earlier daemon was about to fence the server, or had
    world.watch.shares[0].released = place.disk.given_up && place.disk.fenced;
    world.host.set_server(0, server.0, false);
    let meanwhile = world.now + std::time::Duration::from_secs(8);
    let check = world.run_to(meanwhile).and_then(|()| world.heal()).and_then(|()| world.until_well());
    (world, check)
}

fn small() -> Setup {
    setup().patience(5_000).hold_for(15_000)
}

#[test]
fn every_combination_that_is_found_ends_well() {
    let mut world = beginning(&small()).0;
    world.trace = None;
    let servers =
        [(ServerIs::Up, Connection::Fresh), (ServerIs::Up, Connection::Stale), (ServerIs::Silent, Connection::Stale)];
    let (listener, started) = (quiet::Listener::default(), quiet::stopwatch());
    let mut count = 0;
    for left in shares(&world) {
        for unit in units(&world) {
            for server in servers {
                let (_, check) = listener.during(|| run(&world, &left, &unit, server));
                let errors = listener.errors();
                if check.is_err() || errors > 0 {
                    let mut traced = world.clone();
                    traced.trace = Some(Vec::new());
                    let trace = run(&traced, &left, &unit, server).0.trace.unwrap_or_default();
                    let (last, begin) = (listener.last_error(), trace.len().saturating_sub(120));
                    panic!(
                        "{}\n{left:?}\n{unit:?}\n{server:?}: {check:?}, {errors} errors: {last}",
                        trace[begin..].join("\n")
                    );
                }
                count += 1;
            }
        }
    }
    println!("{count} beginnings in {:?}", started());
    assert!(count > 10_000);
}
