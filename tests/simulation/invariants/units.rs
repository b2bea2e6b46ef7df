//! The rules about consumers.

use std::time::Duration;

use nasmount::share::command::HoldReason;
use nasmount::share::consumers::{AfterHold, Demand, OnOutage, UnitEffect, UnitStep};
use nasmount::share::{BootInstant, State};

use super::{Check, GRACE, Violation, broken, no_busy_loop};
use crate::schedule::{unit_index, unit_name};
use crate::world::World;

fn is_let_go(step: UnitStep) -> bool {
    matches!(step, UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart)
}

fn holds(step: UnitStep) -> bool {
    matches!(step, UnitStep::Pause | UnitStep::Stop | UnitStep::Kill)
}

/// The rules about beginnings.
pub fn at_unit_start(world: &mut World, unit: usize, step: UnitStep) -> Check {
    one_operation_a_unit(world, unit, step)?;
    hands_off_in_maintenance(world, unit, step)?;
    nobody_is_held_without_a_cause(world, unit, step)?;
    let_go_only_when_all_are_back(world, unit, step, Moment::Begun)?;
    units_are_let_go_in_order(world, unit, step)?;
    no_busy_loop(world.now, &mut world.watch.units[unit].starts, unit_name(unit))
}

/// The rules about what systemd is told, which may be a moment later.
pub fn at_act(world: &World, unit: usize, step: UnitStep) -> Check {
    let_go_only_when_all_are_back(world, unit, step, Moment::Told)
}

/// When a unit is let go: nasmount begins to, or systemd is told. A share that changes in between stops only what it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Begun,
    Told,
}

fn one_operation_a_unit(world: &World, unit: usize, step: UnitStep) -> Check {
    match world.jobs.values().find(|job| job.unit == unit) {
        None => Ok(()),
        Some(other) => broken(world, "one operation a unit", format!("{step:?} beside {:?}", other.step)),
    }
}

/// A unit all of whose shares are in maintenance is left alone.
fn hands_off_in_maintenance(world: &World, unit: usize, step: UnitStep) -> Check {
    let needs = &world.setup.units[unit];
    let hands_off = |share: usize| world.watch.shares[share].in_maintenance(world.now);
    let all = needs.configured && needs.needed().all(|need| hands_off(need.share));
    let is_told_to_end = world.shuts_down.is_some() && step == UnitStep::Continue;
    if all && step != UnitStep::Inspect && !is_told_to_end {
        return broken(world, "hands off in maintenance", format!("{step:?} {}", unit_name(unit)));
    }
    Ok(())
}

fn nobody_is_held_without_a_cause(world: &World, unit: usize, step: UnitStep) -> Check {
    let Some(daemon) = world.daemon.as_ref().filter(|_| holds(step)) else { return Ok(()) };
    let cause = world.setup.units[unit].needed().any(|need| {
        let machine = &daemon.shares[need.share];
        !machine.state().is_open() || machine.hold_reasons().contains(&HoldReason::Operator)
    });
    if !cause {
        return broken(world, "nobody is held without a cause", format!("{step:?} {}", unit_name(unit)));
    }
    Ok(())
}

/// A unit is let go only when no share that it needs is in outage or held by an operator. One that was paused for a share
/// that is given up may go on without it, if that is configured.
fn let_go_only_when_all_are_back(world: &World, unit: usize, step: UnitStep, moment: Moment) -> Check {
    let Some(daemon) = world.daemon.as_ref().filter(|_| is_let_go(step)) else { return Ok(()) };
    if world.shuts_down.is_some() && step == UnitStep::Continue {
        return Ok(()); // to be stopped by systemd
    }
    for need in world.setup.units[unit].needed() {
        let machine = &daemon.shares[need.share];
        let state = machine.state();
        let given_up = matches!(state, State::Releasing | State::Offline | State::Blocked | State::Stuck);
        let goes_on_without = given_up && need.after_hold == AfterHold::None;
        let was_not_paused = need.on_outage == OnOutage::None;
        if step == UnitStep::Continue && (goes_on_without || was_not_paused) {
            continue;
        }
        let away = match state {
            State::Holding => moment == Moment::Begun || !was_not_paused,
            State::Releasing | State::Offline | State::Blocked => true,
            State::Mounting | State::Recovering | State::Maintenance | State::Stuck => moment == Moment::Begun,
            State::Online | State::Suspect => false,
        };
        let held = machine.hold_reasons().contains(&HoldReason::Operator) && machine.wanted().is_mounted();
        let concerned = need.on_outage != OnOutage::None || away;
        if away || (held && concerned) {
            let message = format!("{step:?} {} while share {} is {state}", unit_name(unit), need.share);
            return broken(world, "let go only when all shares are back", message);
        }
    }
    Ok(())
}

/// Those before it have gone on, or have had their time.
fn units_are_let_go_in_order(world: &World, unit: usize, step: UnitStep) -> Check {
    if !is_let_go(step) || world.watch.units[unit].may_go_since.is_none() {
        return Ok(());
    }
    let this = &world.setup.units[unit];
    for (index, other) in world.setup.units.iter().enumerate() {
        let together = this.needed().any(|need| other.needs_share(need.share));
        if !together || other.order <= this.order || !world.host.held.contains_key(unit_name(index)) {
            continue;
        }
        let watch = &world.watch.units[index];
        let runs =
            |share: usize| world.daemon.as_ref().is_some_and(|daemon| daemon.shares[share].demand() == Demand::Run);
        let Some(since) = watch.may_go_since.filter(|_| other.needed().all(|need| runs(need.share))) else { continue };
        let had_its_time = world.now.since(since) >= Duration::from_millis(other.time_limit_ms);
        let failed = watch.trouble_at.is_some_and(|at| at >= since);
        if !had_its_time && !failed {
            let message = format!("{} before {}", unit_name(unit), unit_name(index));
            return broken(world, "consumers are let go in order", message);
        }
    }
    Ok(())
}

/// Lowest first.
pub fn units_are_held_in_order(world: &World, effects: &[UnitEffect]) -> Check {
    let mut last = i32::MIN;
    for effect in effects {
        let UnitEffect::Start { unit, step, .. } = effect else { continue };
        let Some(index) = unit_index(unit).filter(|_| holds(*step)) else { continue };
        let order = world.setup.units[index].order;
        if order < last {
            return broken(world, "consumers are held in order", format!("{unit} after one of order {last}"));
        }
        last = order;
    }
    Ok(())
}

/// Only a unit that nasmount stopped is started.
pub fn unit_started(now: BootInstant, name: &str, admin_stopped: bool) -> Check {
    if admin_stopped {
        return Err(Violation::new("only what was held is released", now, format!("{name} started")));
    }
    Ok(())
}

pub fn memory_covers_what_is_held(world: &World) -> Check {
    for (index, unit) in world.host.units.iter().enumerate().filter(|(_, unit)| unit.frozen || unit.stopped_by_us) {
        let name = unit_name(index);
        let held = world.host.held.get(name);
        if unit.frozen && !held.is_some_and(|unit| unit.held.is_paused()) {
            return broken(world, "memory covers what is held", format!("{name} is paused"));
        }
        if unit.stopped_by_us && !held.is_some_and(|unit| unit.held.is_stopped()) {
            return broken(world, "memory covers what is held", format!("{name} is stopped"));
        }
    }
    Ok(())
}

pub fn consumers_are_held_while_a_server_is_dead(world: &World) -> Check {
    if !world.units_idle() || world.host.bus_lost.is_some() {
        return Ok(());
    }
    for (index, unit) in world.setup.units.iter().enumerate() {
        let now = &world.host.units[index];
        for need in unit.needed() {
            let dead_since = world.watch.shares[need.share].dead_since;
            let dead = dead_since.is_some_and(|since| world.now.since(since) > GRACE);
            let holding = matches!(world.state_of(need.share), Some(State::Holding | State::Recovering));
            let held = match need.on_outage {
                OnOutage::Pause => now.frozen || !now.running,
                OnOutage::Stop => !now.running,
                OnOutage::None => true,
            };
            if dead && holding && !held && world.watch.unit_calm_for(index, world.now, GRACE) {
                return broken(world, "consumers are held", format!("{} runs", unit_name(index)));
            }
        }
    }
    Ok(())
}
