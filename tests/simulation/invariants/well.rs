//! What is so when nothing has gone wrong for long enough.

use nasmount::share::{State, Step};

use crate::schedule::{share_name, unit_name};
use crate::world::World;

/// What is missing; put into words only if somebody asks.
#[derive(Clone, Copy, Debug)]
pub enum Missing {
    Daemon,
    InFlight,
    Paused(usize),
    Stopped(usize),
    Held,
    Fence(usize),
    Barrier(usize),
    Foreign(usize),
    Another(usize),
    Online(usize),
}

/// Liveness; says what is missing.
pub fn all_is_well(world: &World) -> Result<(), Missing> {
    let Some(daemon) = &world.daemon else { return Err(Missing::Daemon) };
    if let Some(share) = daemon.shares.iter().position(|machine| machine.state() != State::Online) {
        return Err(Missing::Online(share));
    }
    let probes = |worker: &crate::workers::Worker| worker.step == Step::Verify || worker.killed;
    if !world.jobs.is_empty() || !world.workers.values().all(probes) {
        return Err(Missing::InFlight);
    }
    for (index, unit) in world.host.units.iter().enumerate() {
        if unit.frozen {
            return Err(Missing::Paused(index));
        }
        if unit.stopped_by_us {
            return Err(Missing::Stopped(index));
        }
    }
    if !world.host.held.is_empty() {
        return Err(Missing::Held);
    }
    for (share, place) in world.host.shares.iter().enumerate() {
        if world.host.wants_fence(share) {
            return Err(Missing::Fence(share));
        }
        if !place.barrier {
            return Err(Missing::Barrier(share));
        }
        if !place.is_open() {
            return Err(Missing::Foreign(share));
        }
        let server = &world.host.servers[place.server];
        let is_there = server.leads_to().any(|address| address == server.known);
        if !is_there || place.clone_of != (server.known, place.source) {
            return Err(Missing::Another(share));
        }
    }
    Ok(())
}

impl Missing {
    /// In words.
    pub fn say(self, world: &World) -> String {
        let state = |share: usize| match &world.daemon {
            Some(daemon) => {
                let machine = &daemon.shares[share];
                format!("{} is {}: {}", share_name(share), machine.state(), machine.reason())
            }
            None => String::new(),
        };
        match self {
            Self::Daemon => "no daemon".into(),
            Self::InFlight => format!("in flight: {:?} {:?}", world.workers.values(), world.jobs.values()),
            Self::Paused(unit) => format!("{} is paused", unit_name(unit)),
            Self::Stopped(unit) => format!("{} is stopped", unit_name(unit)),
            Self::Held => format!("on disk is still {:?}", world.host.held),
            Self::Fence(share) => format!("the fence is up; {}", state(share)),
            Self::Barrier(share) => format!("no barrier; {}", state(share)),
            Self::Foreign(share) => format!("not on the path; {}", state(share)),
            Self::Another(share) => format!("another source, or where the server was; {}", state(share)),
            Self::Online(share) => state(share),
        }
    }
}
