//! The sleep of the host: what a share does before it, and what it believes after it.
//!
//! A kernel does not suspend while a task waits for a dead server where it cannot be frozen: in `smb2_reconnect`, in a read of 6.12
//! (netfs), for the lock of somebody who does, or for unwritten data, as the `sync()` does with which every suspend begins. So an
//! outage has no patience when the host goes to sleep: what is in flight is given up, and ends within 12 s.
//!
//! A share that is well is held like one in an outage, if [`OnSleep`] says so, and what is unwritten is written back while the network
//! is there. Nobody then is in the middle of a call when the host wakes, perhaps on another network, and nobody can begin one before
//! the server has been asked and the share verified.

use std::time::Duration;

use tracing::info;

use super::OnSleep;
use super::Share;
use super::detector::Trust;
use super::state::{Reason, State};
use super::time::BootInstant;
use super::timer::{FALLS_ASLEEP_WITHIN, Timer};

impl Share {
    /// Whether the host is about to sleep, or sleeps.
    pub fn sleeps(&self) -> bool {
        self.sleeps
    }

    /// Whether nothing is left to be done for it before the host sleeps.
    pub fn is_ready_to_sleep(&self) -> bool {
        if !self.sleeps {
            return false;
        }
        let facts = &self.facts;
        match self.state {
            State::Online => !self.is_held_before_sleep(),
            State::Holding => match self.server {
                _ if self.pending.is_some() || facts.attached || !self.consumers_seen_to() => false,
                Trust::Trusted => facts.flushed,
                Trust::Dead { .. } => facts.aborted,
                Trust::Unknown | Trust::Suspect { .. } => false,
            },
            State::Offline | State::Blocked | State::Maintenance | State::Stuck => true,
            State::Suspect | State::Mounting | State::Recovering | State::Releasing => false,
        }
    }

    /// Nothing is mounted any more: it would have to be done with before the host can sleep. No request is waited for either.
    pub(super) fn on_sleep(&mut self, now: BootInstant) {
        if self.shuts_down {
            return;
        }
        self.sleeps = true;
        self.timers.set(Timer::Sleep, now + FALLS_ASLEEP_WITHIN);
        self.abandon_mount();
        let is_held = matches!(self.state, State::Online | State::Suspect | State::Recovering);
        if is_held && self.is_held_before_sleep() {
            self.abandon_request();
        }
    }

    /// What was announced has not come.
    pub(super) fn on_awake(&mut self) {
        self.sleeps = false;
        self.timers.stop(Timer::Sleep);
    }

    /// Nothing has waited while the host slept, and what was believed of the server before is not known any more.
    pub(super) fn on_resumed(&mut self, asleep: Duration) {
        self.on_awake();
        self.timers.shift(asleep);
        if let Some(outage) = &mut self.outage {
            outage.since = outage.since + asleep;
        }
        self.probe_due |= self.state == State::Online;
        self.facts.verified &= self.state == State::Online;
        if self.state != State::Releasing {
            self.abandon_request();
        }
        match self.server {
            Trust::Trusted | Trust::Suspect { .. } => (self.server, self.doubted_since) = (Trust::Unknown, None),
            Trust::Dead { .. } | Trust::Unknown => self.doubted_since = self.doubted_since.map(|since| since + asleep),
        }
    }

    fn is_held_before_sleep(&self) -> bool {
        self.spec.on_sleep == OnSleep::Hold
    }

    /// Before it as in an outage that is known beforehand, and no mount is begun. After it that may turn out to be one.
    pub(super) fn transition_of_a_sleep(&self) -> Option<(State, Reason)> {
        if let Some(reason) = self.server_dead() {
            let is_one = self.state == State::Holding && self.reason == Reason::Sleep;
            return is_one.then_some((State::Holding, reason));
        }
        if !self.sleeps {
            return None;
        }
        let idle = self.pending.is_none();
        let to = match self.state {
            // the clone is lost, or somebody took the share off its path
            State::Online | State::Suspect if idle && !self.facts.clone => None,
            State::Online if idle && !self.facts.attached => None,
            State::Online | State::Suspect | State::Recovering => self.is_held_before_sleep().then_some(State::Holding),
            State::Mounting if idle && !self.facts.clone => Some(State::Offline),
            State::Mounting if idle => self.is_held_before_sleep().then_some(State::Holding),
            State::Mounting
            | State::Holding
            | State::Releasing
            | State::Offline
            | State::Blocked
            | State::Maintenance
            | State::Stuck => None,
        };
        to.map(|to| (to, Reason::Sleep))
    }

    /// What hangs would keep the host from sleeping.
    pub(super) fn give_up_before_sleep(&mut self, now: BootInstant) {
        let dead = matches!(self.server, Trust::Dead { .. });
        if !self.sleeps || !dead || self.operator.maintenance.is_some() {
            return;
        }
        if let Some(outage) = &mut self.outage
            && outage.given_up_at.is_none()
        {
            info!("the host is about to sleep: what is in flight is given up");
            outage.given_up_at = Some(now);
            self.timers.stop(Timer::Patience);
        }
    }

    /// The kernel does it, too, but perhaps when the network is gone.
    pub(super) fn is_to_flush_before_sleep(&self) -> bool {
        self.sleeps && self.server == Trust::Trusted && self.consumers_seen_to() && !self.facts.flushed
    }
}
