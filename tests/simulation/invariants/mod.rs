//! What must be true, one function per rule: safety after every input, liveness at the end.

mod shares;
mod units;
mod well;

use std::collections::VecDeque;
use std::time::Duration;

use nasmount::share::detector::{Detector, LocalTrouble};
use nasmount::share::effect::Step;
use nasmount::share::{BootInstant, Consumers, Share};

pub use shares::{at_start, at_the_end_of_a_shutdown, one_mount_on_the_host, only_who_took_it_off_unmounts};
pub use units::{at_act, at_unit_start, unit_started, units_are_held_in_order};
pub use well::all_is_well;

use crate::world::World;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub at: BootInstant,
    pub message: String,
}

impl Violation {
    pub fn new(rule: &'static str, at: BootInstant, message: String) -> Self {
        Self { rule, at, message }
    }
}

pub type Check = Result<(), Violation>;

/// After a failure, a lost bus or a start, what is missing may take this long to be put right.
const GRACE: Duration = Duration::from_secs(45);
/// Operations of one share or on one unit that may be started within [`RATE_WINDOW`]; more is a busy loop.
const RATE_MOST: usize = 60;
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Rule 7 of the heart.
const MOST_EFFECTS: usize = 8;

/// Rule 6 of the heart.
pub fn deadlines_move_on(now: BootInstant, share: &Share) -> Check {
    match share.poll_timeout() {
        Some((at, timer)) if at <= now => {
            Err(Violation::new("deadlines move on", now, format!("{timer:?} at {at} in {}", share.state())))
        }
        _ => Ok(()),
    }
}

/// The same of a detector.
pub fn detector_deadlines_move_on(now: BootInstant, detector: &Detector) -> Check {
    match detector.poll_timeout() {
        Some(at) if at <= now => Err(Violation::new("deadlines move on", now, format!("a detector at {at}"))),
        _ => Ok(()),
    }
}

/// The same of the consumers.
pub fn unit_deadlines_move_on(now: BootInstant, consumers: &Consumers) -> Check {
    match consumers.poll_timeout() {
        Some(at) if at <= now => Err(Violation::new("deadlines move on", now, format!("consumers at {at}"))),
        _ => Ok(()),
    }
}

/// Somebody else may have the server's address there.
pub fn nothing_is_sent_off_its_network(world: &World, server: usize) -> Check {
    match world.host.servers[server].local {
        Some(LocalTrouble::OffNetwork) => broken(world, "nothing is sent off its network", format!("server {server}")),
        Some(LocalTrouble::NoLink | LocalTrouble::NoRoute | LocalTrouble::NoAddress) | None => Ok(()),
    }
}

/// Rule 7 of the heart.
pub fn effects_are_bounded(now: BootInstant, effects: usize) -> Check {
    if effects > MOST_EFFECTS {
        return Err(Violation::new("effects are bounded", now, format!("{effects} effects")));
    }
    Ok(())
}

/// The rules about what is.
pub fn after_input(world: &World) -> Check {
    units::memory_covers_what_is_held(world)?;
    let Some(daemon) = &world.daemon else { return Ok(()) };
    for (share, machine) in daemon.shares.iter().enumerate() {
        shares::after_input(world, share, machine)?;
    }
    units::consumers_are_held_while_a_server_is_dead(world)
}

fn no_busy_loop(now: BootInstant, starts: &mut VecDeque<BootInstant>, whose: &str) -> Check {
    starts.push_back(now);
    while starts.front().is_some_and(|at| now.since(*at) > RATE_WINDOW) {
        starts.pop_front();
    }
    if starts.len() > RATE_MOST {
        let message = format!("more than {RATE_MOST} operations of {whose} in {RATE_WINDOW:?}");
        return Err(Violation::new("no busy loop", now, message));
    }
    Ok(())
}

/// What may be done although hands are off: to look, and to take away a fence that concerns other shares, too.
fn concerns_this_share(step: &Step) -> bool {
    !matches!(step, Step::Survey | Step::LiftFence)
}

fn broken(world: &World, rule: &'static str, message: String) -> Check {
    Err(Violation::new(rule, world.now, message))
}
