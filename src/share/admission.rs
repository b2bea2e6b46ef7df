//! May this command be carried out in this state? And if so, what it does. Refusing changes nothing.

use super::Share;
use super::command::{Command, HoldReason, Maintenance, Refusal, Verdict, Wanted};
use super::detector::Trust;
use super::state::{Reason, State};
use super::time::BootInstant;
use super::timer::Timer;

impl Share {
    /// May its mount be reconfigured beside everything else? That neither changes the mount table nor asks the server, but it takes back a
    /// shutdown, and waits for a login that hangs: only while nothing speaks for an outage.
    pub fn may_be_reconfigured(&self) -> bool {
        let is_changed = self.pending.as_ref().is_some_and(|pending| pending.step.changes_mount_table());
        self.state.is_open() && self.server == Trust::Trusted && self.facts.clone && !is_changed && !self.shuts_down
    }

    /// Accepted, already so, or refused.
    pub(super) fn admit(&self, command: Command) -> Result<Verdict, Refusal> {
        if !self.remembers || (!self.facts.surveyed && self.state == State::Suspect) {
            return Err(Refusal::NotSurveyed);
        }
        if self.shuts_down {
            return Err(Refusal::Shutdown);
        }
        if self.state == State::Maintenance
            && !matches!(command, Command::StartMaintenance(_) | Command::EndMaintenance)
        {
            return Err(Refusal::InMaintenance);
        }
        let so = |already| Ok(if already { Verdict::AlreadySo } else { Verdict::Accepted });
        match command {
            Command::Mount => self.admit_mount(),
            Command::Unmount | Command::Retire => {
                self.refuse_if_stuck()?;
                so(self.operator.wanted == Wanted::Unmounted)
            }
            Command::Remount => {
                self.refuse_if_stuck()?;
                match self.state {
                    State::Offline | State::Mounting => self.admit_mount(),
                    State::Online
                    | State::Suspect
                    | State::Holding
                    | State::Releasing
                    | State::Recovering
                    | State::Blocked
                    | State::Maintenance
                    | State::Stuck => Ok(Verdict::Accepted),
                }
            }
            Command::StartMaintenance(maintenance) => so(self.operator.maintenance == Some(maintenance)),
            Command::EndMaintenance => so(self.operator.maintenance.is_none()),
            Command::Hold => so(self.operator.holds),
            Command::Release if self.operator.holds => Ok(Verdict::Accepted),
            Command::Release if self.hold_reasons().contains(&HoldReason::Outage) => {
                Err(Refusal::HeldByOutage { state: self.state })
            }
            Command::Release => Ok(Verdict::AlreadySo),
        }
    }

    fn refuse_if_stuck(&self) -> Result<(), Refusal> {
        if self.state == State::Stuck
            && let Reason::OperationStuck { operation } = &self.reason
        {
            return Err(Refusal::Stuck { operation: operation.clone() });
        }
        Ok(())
    }

    fn admit_mount(&self) -> Result<Verdict, Refusal> {
        self.refuse_if_stuck()?;
        if !self.operator.wanted.is_mounted() || self.state == State::Blocked {
            return Ok(Verdict::Accepted);
        }
        let away = matches!(self.server, Trust::Dead { .. } | Trust::Unknown);
        match self.state {
            State::Holding | State::Offline if away => Err(Refusal::ServerAway { state: self.state }),
            // not later, now
            State::Releasing if self.remount_backoff.has_begun() => Ok(Verdict::Accepted),
            State::Offline if self.timers.is_set(Timer::Retry) || self.timers.is_set(Timer::Remount) => {
                Ok(Verdict::Accepted)
            }
            State::Online
            | State::Suspect
            | State::Holding
            | State::Releasing
            | State::Offline
            | State::Mounting
            | State::Recovering
            | State::Blocked
            | State::Maintenance
            | State::Stuck => Ok(Verdict::AlreadySo),
        }
    }

    /// Does what was accepted.
    pub(super) fn obey(&mut self, now: BootInstant, command: Command) {
        match command {
            Command::Mount => {
                self.operator.wanted = Wanted::Mounted;
                self.operator.retires = false;
                self.try_again(now, command.name());
            }
            Command::Unmount | Command::Retire => {
                self.operator.retires = command == Command::Retire;
                self.operator.wanted = Wanted::Unmounted;
                self.unmount(now, command);
            }
            Command::Remount => {
                self.operator.wanted = Wanted::Mounted;
                self.operator.retires = false;
                self.operator.remounts = true;
                self.unmount(now, command);
            }
            Command::StartMaintenance(maintenance) => self.start_maintenance(now, maintenance),
            Command::EndMaintenance => self.end_maintenance(now, command.name()),
            Command::Hold => self.operator.holds = true,
            Command::Release => self.operator.holds = false,
        }
    }

    /// What waits for a person, or for its next attempt, is tried now.
    pub(super) fn try_again(&mut self, now: BootInstant, command: &str) {
        self.backoff.reset();
        self.remount_backoff.reset();
        self.operator.blocked_before = None;
        self.timers.stop(Timer::Remount);
        let reason = Reason::Asked { command: command.to_owned() };
        match self.state {
            // what lies on the mount point is looked at anew
            State::Blocked if matches!(self.reason, Reason::ForeignMount { .. }) => self.facts.outdated = true,
            State::Blocked | State::Offline => self.enter(now, State::Offline, reason),
            State::Online
            | State::Suspect
            | State::Holding
            | State::Releasing
            | State::Mounting
            | State::Recovering
            | State::Maintenance
            | State::Stuck => {}
        }
    }

    fn unmount(&mut self, now: BootInstant, command: Command) {
        let reason = Reason::Asked { command: command.name().to_owned() };
        match self.state {
            State::Offline | State::Blocked => self.try_again(now, command.name()),
            State::Releasing => {} // on its way
            State::Online
            | State::Suspect
            | State::Holding
            | State::Mounting
            | State::Recovering
            | State::Maintenance
            | State::Stuck => {
                self.abandon_request();
                self.abandon_mount();
                self.enter(now, State::Releasing, reason);
                self.operator.unmounts = true;
            }
        }
    }

    fn start_maintenance(&mut self, now: BootInstant, maintenance: Maintenance) {
        self.operator.maintenance = Some(maintenance);
        self.timers.stop(Timer::Maintenance);
        if let Some(until) = maintenance.until {
            self.timers.set(Timer::Maintenance, until);
        }
        if self.state == State::Blocked && matches!(self.reason, Reason::OperationFailed { .. }) {
            self.operator.blocked_before = Some(self.reason.clone());
        }
        if self.state != State::Stuck {
            self.abandon_request();
            let command = Command::StartMaintenance(maintenance).name().to_owned();
            self.enter(now, State::Maintenance, Reason::Asked { command });
        }
    }

    /// What is in place now is looked up, not remembered.
    pub(super) fn end_maintenance(&mut self, now: BootInstant, why: &str) {
        self.operator.maintenance = None;
        self.operator.blocked_before = None;
        self.timers.stop(Timer::Maintenance);
        if self.state == State::Maintenance {
            self.facts.surveyed = false;
            self.enter(now, State::Suspect, Reason::Asked { command: why.to_owned() });
        }
    }
}
