//! The rules about a share.

use std::time::Duration;

use nasmount::share::consumers::Demand;
use nasmount::share::detector::Trust;
use nasmount::share::event::Attachment;
use nasmount::share::{OnSleep, Reason, Share, State, Step};

use super::{Check, GRACE, broken, concerns_this_share, no_busy_loop};
use crate::planted::Planted;
use crate::schedule::share_name;
use crate::workers::Worker;
use crate::world::World;

// When an operation is started.

/// The rules about beginnings.
pub fn at_start(world: &mut World, share: usize, step: &Step) -> Check {
    one_mount_table_operation(world, share, step)?;
    one_operation_a_share(world, share, step)?;
    nothing_is_started_in_maintenance(world, share, step)?;
    unmounted_by_an_operator_stays_unmounted(world, share, step)?;
    no_mount_after_a_refusal(world, share, step)?;
    no_storm_of_logins(world, share, step)?;
    nothing_is_given_up_within_the_patience(world, share, step)?;
    no_login_is_refused_in_a_hold(world, share, step)?;
    sockets_are_destroyed_once_a_return(world, share, step)?;
    no_busy_loop(world.now, &mut world.watch.shares[share].starts, share_name(share))?;
    no_release_of_what_is_attached(world, share, step)?;
    no_loss_is_silent(world, share, step)?;
    nobody_paused_is_released_from_under(world, share, step)?;
    only_a_trusted_server_is_asked(world, share, step)?;
    sockets_that_answered_since_are_not_spared(world, share, step)?;
    no_second_mount(world, share, step)?;
    nothing_is_mounted_while_the_host_goes_down(world, share, step)
}

fn workers_of(world: &World, share: usize) -> impl Iterator<Item = &Worker> {
    world.workers.values().filter(move |worker| worker.share == share)
}

fn one_mount_table_operation(world: &World, share: usize, step: &Step) -> Check {
    let other = workers_of(world, share).find(|worker| worker.step.changes_mount_table());
    match other.filter(|_| step.changes_mount_table()) {
        None => Ok(()),
        Some(other) => {
            broken(world, "one mount-table operation", format!("{} beside {}", step.name(), other.step.name()))
        }
    }
}

fn one_operation_a_share(world: &World, share: usize, step: &Step) -> Check {
    // a question about the past goes on, and changes nothing
    match workers_of(world, share).find(|worker| !worker.killed && worker.step != Step::AskForLoss) {
        None => Ok(()),
        Some(other) => broken(world, "one operation a share", format!("{} beside {}", step.name(), other.step.name())),
    }
}

/// The kernel has one mount mutex; a hung mount would block every other.
pub fn one_mount_on_the_host(world: &World) -> Check {
    let mounting = world.workers.values().filter(|worker| worker.step.mounts() && !worker.queued);
    match mounting.count() {
        0 | 1 => Ok(()),
        more => broken(world, "one mount on the host", format!("{more} of them")),
    }
}

fn nothing_is_started_in_maintenance(world: &World, share: usize, step: &Step) -> Check {
    let hands_off = world.watch.shares[share].in_maintenance(world.now);
    if hands_off && concerns_this_share(step) {
        return broken(world, "hands off in maintenance", step.name().into());
    }
    Ok(())
}

fn unmounted_by_an_operator_stays_unmounted(world: &World, share: usize, step: &Step) -> Check {
    if world.watch.shares[share].unmounted && matches!(step, Step::Mount | Step::TryLogin | Step::Attach) {
        return broken(world, "what an operator unmounted stays unmounted", step.name().into());
    }
    Ok(())
}

/// A share that nobody took off its path never stays unmounted for that reason; one that somebody did stays unmounted.
pub fn only_who_took_it_off_unmounts(world: &mut World, share: usize, to: State, reason: &Reason) -> Check {
    if to != State::Releasing || *reason != Reason::TakenOff {
        return Ok(());
    }
    if !world.host.shares[share].taken_off {
        return broken(world, "only who took it off unmounts", share_name(share).into());
    }
    world.watch.shares[share].unmounted = true;
    Ok(())
}

fn no_mount_after_a_refusal(world: &World, share: usize, step: &Step) -> Check {
    if step.mounts() && world.watch.shares[share].refused {
        return broken(world, "a refused login is tried once", "mount again".into());
    }
    Ok(())
}

/// A request through a mount without a session asks for one: each is a login, and enough of them lock the account.
fn no_storm_of_logins(world: &World, share: usize, step: &Step) -> Check {
    const MOST: u32 = 2;
    let refused = world.watch.shares[share].sessions_refused;
    if *step == Step::Verify && refused > MOST && world.state_of(share) == Some(State::Recovering) {
        return broken(world, "no storm of logins", format!("{refused} were refused"));
    }
    Ok(())
}

fn nothing_is_given_up_within_the_patience(world: &World, share: usize, step: &Step) -> Check {
    let gives_up = matches!(step, Step::RaiseFence | Step::DestroySockets { .. });
    let watch = &world.watch.shares[share];
    let held_since = watch.held_since.filter(|_| gives_up && world.state_of(share) == Some(State::Holding));
    let Some(held_since) = held_since.filter(|_| !watch.released) else { return Ok(()) };
    let held_for = world.now.since(held_since);
    if held_for < watch.patience {
        return broken(world, "nothing is given up within the patience", format!("{} after {held_for:?}", step.name()));
    }
    Ok(())
}

/// A call that waits when its caller is paused is repeated when that goes on, and one that is refused has failed.
fn no_login_is_refused_in_a_hold(world: &World, share: usize, step: &Step) -> Check {
    let state = world.state_of(share);
    if *step == Step::RaiseSinkhole && state != Some(State::Releasing) {
        return broken(world, "no login is refused in a hold", format!("a sinkhole in {state:?}"));
    }
    Ok(())
}

fn sockets_are_destroyed_once_a_return(world: &mut World, share: usize, step: &Step) -> Check {
    if world.state_of(share) != Some(State::Recovering) {
        return Ok(());
    }
    let destroyed = &mut world.watch.shares[share].destroyed_in_return;
    if matches!(step, Step::DestroySockets { .. }) && std::mem::replace(destroyed, true) {
        return broken(world, "sockets destroyed once a return", "again".into());
    }
    Ok(())
}

fn no_release_of_what_is_attached(world: &World, share: usize, step: &Step) -> Check {
    let calm = world.watch.calm_for(share, world.now, GRACE);
    if *step == Step::Release && world.host.shares[share].is_open() && calm {
        return broken(world, "nothing attached is released", String::new());
    }
    Ok(())
}

/// Before anybody may look at the files again, or cannot any more, the kernel has been asked what was lost.
fn no_loss_is_silent(world: &World, share: usize, step: &Step) -> Check {
    let asking = workers_of(world, share).any(|worker| worker.step == Step::AskForLoss);
    if world.shuts_down.is_some() {
        return Ok(()); // there is no time for it, and nobody to tell
    }
    let last_moment = matches!(step, Step::Attach | Step::Release) && !asking;
    if last_moment && world.host.shares[share].lost && world.watch.calm_for(share, world.now, GRACE) {
        return broken(world, "no loss is silent", step.name().into());
    }
    Ok(())
}

fn nobody_paused_is_released_from_under(world: &World, share: usize, step: &Step) -> Check {
    // a host that goes down lets go of all of them at the same time
    if *step != Step::Release || world.shuts_down.is_some() || !world.watch.calm_for(share, world.now, GRACE) {
        return Ok(());
    }
    for (index, unit) in world.host.units.iter().enumerate() {
        let needs = world.setup.units[index].needs_share(share);
        // nor is one that is paused for another share as well
        let mut others = world.setup.units[index].needed().filter(|need| need.share != share);
        let alone = others.all(|need| world.demand_of(need.share) == Some(Demand::Run));
        if needs && alone && unit.frozen && world.watch.unit_calm_for(index, world.now, GRACE) {
            return broken(world, "consumers are stopped before the release", format!("unit {index} is paused"));
        }
    }
    Ok(())
}

/// A request to a server in doubt only hangs; a connection made to it is made into nothing.
fn only_a_trusted_server_is_asked(world: &World, share: usize, step: &Step) -> Check {
    let asks = match step {
        Step::Mount | Step::TryLogin | Step::Verify | Step::Flush => true,
        Step::DestroySockets { .. } | Step::Attach => world.state_of(share) == Some(State::Recovering),
        Step::Survey
        | Step::LayBarrier
        | Step::Detach
        | Step::RaiseFence
        | Step::RaiseSinkhole
        | Step::LiftFence
        | Step::AskForLoss
        | Step::ShutDown
        | Step::Release
        | Step::DropClone => false,
    };
    if asks && world.trust(share) != Trust::Trusted {
        return broken(world, "only a trusted server is asked", format!("{} of {:?}", step.name(), world.trust(share)));
    }
    Ok(())
}

/// What another share destroyed before the connection last answered says nothing about this connection.
fn sockets_that_answered_since_are_not_spared(world: &World, share: usize, step: &Step) -> Check {
    let Step::DestroySockets { since } = step else { return Ok(()) };
    match world.watch.shares[share].answered_at {
        // a verification that was in flight when the release began makes no difference any more
        Some(answered_at) if *since < answered_at && world.state_of(share) != Some(State::Releasing) => {
            broken(world, "sockets that answered since are not spared", format!("{since} < {answered_at}"))
        }
        _ => Ok(()),
    }
}

fn no_second_mount(world: &World, share: usize, step: &Step) -> Check {
    if *step == Step::Mount && world.host.shares[share].clone {
        return broken(world, "no second mount", "a clone is pinned already".into());
    }
    Ok(())
}

fn nothing_is_mounted_while_the_host_goes_down(world: &World, share: usize, step: &Step) -> Check {
    let told = world.planted != Some(Planted::ShutdownNotTold) && world.shuts_down.is_some();
    if told && matches!(step, Step::Mount | Step::TryLogin | Step::Attach) {
        return broken(world, "nothing is mounted while the host goes down", format!("{} of {share}", step.name()));
    }
    Ok(())
}

/// The last sync() and umount() of a host wait for every server of which there is a mount; and what is paused cannot end.
pub fn at_the_end_of_a_shutdown(world: &World) -> Check {
    let Some(since) = world.shuts_down.filter(|_| world.daemon.is_some()) else { return Ok(()) };
    for (share, place) in world.host.shares.iter().enumerate() {
        let dead_since = world.watch.shares[share].dead_since.map(|dead| dead.max(since));
        let in_time = dead_since.is_some_and(|since| world.now.since(since) > GRACE);
        let state = world.state_of(share);
        let decides = !matches!(state, Some(State::Blocked | State::Stuck));
        if place.clone && in_time && decides && world.watch.calm_for(share, world.now, GRACE) {
            return broken(world, "no dead mount outlives a shutdown", format!("share {share} is {state:?}"));
        }
    }
    for (unit, now) in world.host.units.iter().enumerate() {
        let in_time = world.now.since(since) > GRACE && world.watch.unit_calm_for(unit, world.now, GRACE);
        if now.frozen && in_time && world.units_idle() && world.host.bus_lost.is_none() {
            return broken(world, "nobody is paused at the end of a shutdown", format!("unit {unit}"));
        }
    }
    Ok(())
}

// After every input.

pub fn after_input(world: &World, share: usize, machine: &Share) -> Check {
    a_state_in_ing_waits_for_something(world, share, machine)?;
    let more_at_once = machine.poll_timeout().is_some_and(|(at, _)| at <= world.now);
    if more_at_once || !world.idle(share) {
        return Ok(());
    }
    let state = machine.state();
    the_path_is_barred_unless_open(world, share, machine)?;
    an_open_share_is_attached(world, share, state)?;
    no_fence_while_online(world, share, state)?;
    no_share_is_open_when_the_host_sleeps(world, share, machine)?;
    what_is_in_flight_ends_after_the_patience(world, share, state)
}

fn a_state_in_ing_waits_for_something(world: &World, share: usize, machine: &Share) -> Check {
    let in_flight = matches!(machine.state(), State::Mounting | State::Recovering | State::Releasing);
    let undecided = matches!(world.trust(share), Trust::Suspect { .. } | Trust::Unknown);
    let for_consumers = machine.state() == State::Releasing && !world.jobs.is_empty();
    let waits = machine.poll_timeout().is_some() || undecided || for_consumers;
    if in_flight && !waits {
        return broken(world, "-ing means in flight", format!("{} waits for nothing", machine.state()));
    }
    Ok(())
}

fn the_path_is_barred_unless_open(world: &World, share: usize, machine: &Share) -> Check {
    let state = machine.state();
    let undisturbed = world.watch.undisturbed(share, world.now);
    if state.is_open() || matches!(state, State::Maintenance | State::Blocked) || !undisturbed {
        return Ok(());
    }
    let place = &world.host.shares[share];
    // an unmount in order stops consumers while the share is still there
    let orderly = matches!(machine.reason(), Reason::Asked { .. } | Reason::Mismatch { .. });
    let in_order = state == State::Releasing && orderly;
    if place.is_open() && !in_order {
        return broken(world, "the path is barred", format!("attached in {state}"));
    }
    if !place.barrier && !place.foreign && world.watch.calm_for(share, world.now, GRACE) {
        return broken(world, "the path is barred", format!("no barrier in {state}"));
    }
    Ok(())
}

fn an_open_share_is_attached(world: &World, share: usize, state: State) -> Check {
    let place = &world.host.shares[share];
    let undisturbed = world.watch.undisturbed(share, world.now);
    if state == State::Online && undisturbed && (place.attached() != Attachment::Share || !place.clone) {
        return broken(world, "online is attached", format!("{:?}", place.attached()));
    }
    Ok(())
}

/// Whoever is in the middle of a call when the host wakes may wait for a server that is not there.
fn no_share_is_open_when_the_host_sleeps(world: &World, share: usize, machine: &Share) -> Check {
    let is_open = world.host.shares[share].is_open() && machine.state() != State::Maintenance;
    let is_held = world.setup.shares[share].on_sleep == OnSleep::Hold;
    if machine.sleeps() && is_held && is_open && machine.state().is_open() && world.watch.undisturbed(share, world.now)
    {
        return broken(world, "no share is open when the host sleeps", format!("it is {}", machine.state()));
    }
    Ok(())
}

fn no_fence_while_online(world: &World, share: usize, state: State) -> Check {
    if state == State::Online && (world.host.wants_fence(share) || world.host.is_sunk(share)) {
        return broken(world, "no fence while online", String::new());
    }
    Ok(())
}

fn what_is_in_flight_ends_after_the_patience(world: &World, share: usize, state: State) -> Check {
    let patience = Duration::from_millis(world.setup.shares[share].patience_ms);
    let watch = &world.watch.shares[share];
    let over = watch.held_since.is_some_and(|since| world.now.since(since) > patience + GRACE);
    let calm = world.watch.calm_for(share, world.now, GRACE) && world.units_idle();
    let dead = watch.dead_since.is_some_and(|since| world.now.since(since) > GRACE);
    if over && calm && dead && state == State::Holding && !world.host.wants_fence(share) {
        return broken(world, "what is in flight ends after the patience", "no fence".into());
    }
    Ok(())
}
