//! What the rules have to remember, seen from outside the machines.

use std::collections::VecDeque;
use std::time::Duration;

use nasmount::share::command::Maintenance;
use nasmount::share::detector::Trust;
use nasmount::share::event::Done;
use nasmount::share::failure::{Failure, FailureClass};
use nasmount::share::{BootInstant, Command, State, Step};

use crate::schedule::Setup;
use crate::workers::Worker;

/// Of the whole world.
#[derive(Clone, Debug)]
pub struct Watch {
    pub shares: Vec<ShareWatch>,
    pub units: Vec<UnitWatch>,
    /// The last fault, start or waking.
    trouble_at: Option<BootInstant>,
}

/// Of one share.
#[derive(Clone, Debug, Default)]
pub struct ShareWatch {
    pub starts: VecDeque<BootInstant>,
    pub dead_since: Option<BootInstant>,
    /// The first probe that failed.
    doubted_since: Option<BootInstant>,
    /// The outage that nobody has come back from: held, or behind a call that does not return.
    pub held_since: Option<BootInstant>,
    stuck: bool,
    /// It is held because the host sleeps: there is no outage yet.
    pub waits_for_sleep: bool,
    /// The shortest that was configured since.
    pub patience: Duration,
    pub released: bool,
    pub destroyed_in_return: bool,
    /// Requests of this recovery that asked for a session in vain.
    pub sessions_refused: u32,
    /// A login was refused, and nobody has asked for another.
    pub refused: bool,
    pub answered_at: Option<BootInstant>,
    /// An operator unmounted it.
    pub unmounted: bool,
    /// An operator said hands off.
    pub maintenance: Option<Maintenance>,
    /// The last failure of one of its operations.
    trouble_at: Option<BootInstant>,
}

/// Of one unit.
#[derive(Clone, Debug, Default)]
pub struct UnitWatch {
    pub starts: VecDeque<BootInstant>,
    /// It is held, and every share that it needs is well.
    pub may_go_since: Option<BootInstant>,
    /// The last failure of an operation on it.
    pub trouble_at: Option<BootInstant>,
}

impl Watch {
    pub fn new(setup: &Setup) -> Self {
        Self {
            shares: vec![ShareWatch::default(); setup.shares.len()],
            units: vec![UnitWatch::default(); setup.units.len()],
            trouble_at: None,
        }
    }

    pub fn daemon_started(&mut self, now: BootInstant) {
        for share in &mut self.shares {
            share.refused = false;
            (share.dead_since, share.doubted_since) = (None, None);
            share.destroyed_in_return = false;
        }
        self.trouble(now);
    }

    /// What lay in /run is gone, and the operator's wishes with it.
    pub fn rebooted(&mut self) {
        for share in &mut self.shares {
            *share = ShareWatch { starts: std::mem::take(&mut share.starts), ..ShareWatch::default() };
        }
    }

    pub fn trouble(&mut self, now: BootInstant) {
        self.trouble_at = Some(now);
    }

    /// Sleep counts for nothing.
    pub fn slept(&mut self, asleep: Duration, now: BootInstant) {
        self.trouble(now);
        for share in &mut self.shares {
            share.held_since = share.held_since.map(|since| since + asleep);
            share.doubted_since = share.doubted_since.map(|since| since + asleep);
            share.dead_since = share.dead_since.map(|since| since + asleep);
            share.trouble_at = share.trouble_at.map(|at| at + asleep);
        }
        for unit in &mut self.units {
            unit.may_go_since = unit.may_go_since.map(|since| since + asleep);
            unit.trouble_at = unit.trouble_at.map(|at| at + asleep);
        }
    }

    /// Nothing has gone wrong in the world or with this share for so long.
    pub fn calm_for(&self, share: usize, now: BootInstant, at_least: Duration) -> bool {
        let long_ago = |at: Option<BootInstant>| at.is_none_or(|at| now.since(at) > at_least);
        long_ago(self.trouble_at) && long_ago(self.shares[share].trouble_at)
    }

    /// Nothing has failed for long, and nothing has gone wrong in the world just now.
    pub fn undisturbed(&self, share: usize, now: BootInstant) -> bool {
        let since = |at: Option<BootInstant>| at.map_or(Duration::MAX, |at| now.since(at));
        since(self.trouble_at) > Duration::from_secs(1)
            && since(self.shares[share].trouble_at) > Duration::from_secs(45)
    }

    /// The same as `calm_for`, for a unit.
    pub fn unit_calm_for(&self, unit: usize, now: BootInstant, at_least: Duration) -> bool {
        let long_ago = |at: Option<BootInstant>| at.is_none_or(|at| now.since(at) > at_least);
        long_ago(self.trouble_at) && long_ago(self.units[unit].trouble_at)
    }
}

impl ShareWatch {
    /// Its answer never counts, so it may be asked again.
    pub fn abandoned(&mut self, now: BootInstant, step: &Step) {
        self.trouble_at = Some(now);
        self.destroyed_in_return &= !matches!(step, Step::Verify | Step::DestroySockets { .. });
    }

    /// `at_stake` is the patience with what is in flight, if there is a mount.
    pub fn trust_changed(&mut self, now: BootInstant, trust: Trust, at_stake: Option<Duration>) {
        match trust {
            Trust::Dead { .. } => {
                self.dead_since.get_or_insert(now);
                self.outage_begins_if(now, self.stuck || self.waits_for_sleep, at_stake);
            }
            Trust::Suspect { .. } => {
                self.dead_since = None;
                self.doubted_since.get_or_insert(now);
            }
            Trust::Unknown | Trust::Trusted => (self.dead_since, self.doubted_since) = (None, None),
        }
    }

    fn outage_begins_if(&mut self, now: BootInstant, begins: bool, at_stake: Option<Duration>) {
        if let Some(patience) = at_stake.filter(|_| begins && self.held_since.is_none()) {
            self.held_since = Some(self.doubted_since.unwrap_or(now));
            self.patience = patience;
        }
    }

    pub fn state_changed(&mut self, now: BootInstant, state: State, at_stake: Option<Duration>) {
        self.stuck = state == State::Stuck;
        let begins = state == State::Holding || (self.stuck && self.dead_since.is_some());
        self.outage_begins_if(now, begins, at_stake);
        match state {
            State::Online | State::Offline | State::Mounting => {
                self.held_since = None;
                self.released = false;
            }
            State::Holding | State::Recovering => {
                self.destroyed_in_return = false;
                self.sessions_refused = 0;
            }
            State::Releasing => self.released = true,
            State::Suspect | State::Stuck | State::Maintenance | State::Blocked => {}
        }
    }

    pub fn reconfigured(&mut self, patience: Duration) {
        self.patience = self.patience.min(patience);
        self.refused = false;
    }

    pub fn commanded(&mut self, command: Command) {
        match command {
            Command::Mount | Command::Remount => {
                self.unmounted = false;
                self.refused = false;
            }
            Command::Unmount | Command::Retire => {
                self.unmounted = true;
                self.refused = false;
            }
            Command::StartMaintenance(maintenance) => self.maintenance = Some(maintenance),
            Command::EndMaintenance => {
                self.maintenance = None;
                self.refused = false;
            }
            Command::Hold | Command::Release => {}
        }
    }

    /// Hands are off.
    pub fn in_maintenance(&self, now: BootInstant) -> bool {
        self.maintenance.is_some_and(|maintenance| maintenance.until.is_none_or(|until| until > now))
    }

    pub fn ended(&mut self, now: BootInstant, worker: &Worker, result: &Result<Done, Failure>) {
        let step = &worker.step;
        // a late answer is not believed, so it does not count here either
        if result.is_ok() && !worker.killed && matches!(step, Step::Verify | Step::Mount) {
            self.answered_at = Some(now);
        }
        let Err(failure) = result else { return };
        self.sessions_refused += u32::from(*step == Step::Verify && failure.errno.is_some());
        self.trouble_at = Some(now);
        if matches!(step, Step::Verify | Step::DestroySockets { .. }) {
            self.destroyed_in_return = false;
        }
        self.refused |= failure.class == FailureClass::Credentials && step.mounts();
    }
}
