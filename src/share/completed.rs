//! How an operation ended, and what is known from that.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::BootInstant;
use super::Share;
use super::command::Command;
use super::detector::Trust;
use super::effect::{Effect, OpId, Step};
use super::event::{Attachment, Done, Loss, Memory, Survey};
use super::facts::{Facts, Login, Outage, Pending};
use super::failure::{Failure, FailureClass};
use super::state::{Reason, State};
use super::timer::{self, Timer};

impl Share {
    pub(super) fn on_completed(&mut self, now: BootInstant, op: OpId, result: Result<Done, Failure>) {
        if let Ok(Done::Loss(Some(what))) = &result {
            warn!(what, "data was lost"); // the kernel says so once: late or not, it is believed
            self.loss = Some(Loss { at: now, what: what.clone() });
        }
        let is_it = |pending: &mut Pending| pending.op == op;
        if let Some(stuck) = self.stuck.take_if(is_it) {
            return match result {
                Err(failure) if self.operator.maintenance.is_none() => self.on_failed(now, &stuck.step, failure),
                Ok(_) | Err(_) => self.on_unstuck(&stuck.step),
            };
        }
        let Some(pending) = self.pending.take_if(is_it) else {
            return debug!(op = op.0, ?result, "late completion, not current");
        };
        self.timers.stop(Timer::Operation);
        match result {
            Ok(done) => self.on_done(now, &pending.step, done),
            Err(failure) => self.on_failed(now, &pending.step, failure),
        }
    }

    pub(super) fn on_operation_deadline(&mut self, now: BootInstant) {
        let Some(pending) = &mut self.pending else { return };
        // the kernel tells of a loss only once, so whoever asks is left to hear it
        if !pending.abandoned && pending.step != Step::AskForLoss {
            self.effects.push_back(Effect::Abandon { op: pending.op });
        }
        let step = pending.step.clone();
        if step.must_return() {
            pending.abandoned = true;
            if self.stuck.is_none() {
                self.stuck = self.pending.take();
                let operation = step.name().to_owned();
                self.enter(now, State::Stuck, Reason::OperationStuck { operation });
            }
            return;
        }
        self.pending = None;
        self.on_failed(now, &step, Failure::transient(format!("{}: no answer in time", step.name())));
        if step == Step::Verify {
            self.facts.reconnected = false; // this connection does not answer either
            self.stale_before = now;
        }
    }

    /// What a stuck operation did after all is looked up, not guessed.
    fn on_unstuck(&mut self, step: &Step) {
        info!(operation = step.name(), "stuck operation returned");
        self.facts.surveyed = false;
    }

    fn on_done(&mut self, now: BootInstant, step: &Step, done: Done) {
        self.step_backoff.reset();
        match step {
            Step::Survey => {
                if let Done::Survey(survey) = done {
                    self.on_survey(now, survey);
                }
            }
            Step::LayBarrier => {
                self.facts.barrier = true;
                self.backoff.reset();
            }
            Step::Mount => {
                self.facts.clone = true;
                self.facts.mismatch = None;
                self.facts.verified = self.server == Trust::Trusted;
                self.backoff.reset();
            }
            Step::Verify => {
                self.facts.verified = true;
                self.facts.closed = false;
                self.probe_due = false;
                self.timers.set(Timer::ShareProbe, now + self.spec.probe_interval);
                if self.state == State::Online && now.since(self.since()) >= timer::STEADY_AFTER {
                    self.remount_backoff.reset();
                }
            }
            Step::TryLogin => self.facts.login = Login::Tried,
            Step::Attach => self.facts.attached = true,
            Step::Detach => self.facts.attached = false,
            Step::RaiseFence => {
                self.facts.fenced = true;
                self.facts.aborted = false;
            }
            Step::RaiseSinkhole => self.facts.sunk = true,
            Step::LiftFence => {
                self.facts.fenced = false;
                self.facts.fence_asked = false;
                self.facts.sunk = false;
            }
            Step::DestroySockets { .. } => {
                self.facts.aborted = true;
                self.facts.reconnected = self.state == State::Recovering;
                self.facts.loss_due |= self.state != State::Recovering;
            }
            Step::Flush => self.facts.flushed = true,
            Step::ShutDown => self.facts.shut_down = true,
            Step::AskForLoss => self.facts.loss_due = false,
            Step::Release | Step::DropClone => {
                self.facts = Facts { clone: false, ..self.facts_of_the_host() };
            }
        }
    }

    /// What is in place, without what is believed of the present mount.
    fn facts_of_the_host(&self) -> Facts {
        let Facts { surveyed, outdated, barrier, clone, attached, fence_asked, fenced, .. } = self.facts;
        Facts { surveyed, outdated, barrier, clone, attached, fence_asked, fenced, ..Facts::default() }
    }

    fn on_failed(&mut self, now: BootInstant, step: &Step, failure: Failure) {
        if self.state == State::Maintenance {
            if *step == Step::Mount && failure.class.needs_a_person() {
                self.operator.blocked_before = Some(Reason::OperationFailed { failure: failure.clone() });
            }
            if *step == Step::LiftFence {
                return self.try_step_again(now, step, failure); // the only thing that is done in maintenance
            }
            info!(operation = step.name(), %failure, "failed; in maintenance nothing is tried again");
            return;
        }
        match step {
            Step::Mount => self.on_failed_to_mount(now, failure),
            // it is neither needed nor able to change its mind while something is mounted
            Step::LayBarrier if failure.class.needs_a_person() && self.state == State::Offline => {
                self.block(now, step, failure);
            }
            Step::LayBarrier => {
                let delay = self.retry_later(step, &failure);
                if self.state == State::Offline {
                    self.enter(now, State::Offline, Reason::OperationFailed { failure });
                }
                self.timers.set(Timer::BarrierRetry, now + delay);
                self.look_again_if_stuck();
            }
            Step::Verify => self.on_silent(now, failure),
            Step::TryLogin => self.on_failed_to_log_in(now, failure),
            Step::Flush if self.state == State::Holding => {
                info!(%failure, "not all is written back before the host sleeps"); // nor lost
                self.facts.flushed = true;
            }
            // tried once: what a server does not take from here it will not take later either
            Step::Flush => {
                warn!(%failure, "what was unwritten may be lost");
                self.loss = Some(Loss { at: now, what: failure.message });
                self.facts.flushed = true;
            }
            // it only makes things faster
            Step::ShutDown => {
                warn!(%failure, "cannot shut the file system down");
                self.facts.shut_down = true;
            }
            Step::RaiseSinkhole => self.on_no_sinkhole(&failure),
            Step::AskForLoss => {
                warn!(%failure, "it is not known whether data was lost");
                self.facts.loss_due = false;
            }
            // somebody else's mount is in the way, or one that was thought to be off the path
            Step::Attach | Step::Detach if failure.class == FailureClass::Busy => {
                self.facts.surveyed = false;
                self.try_step_again(now, step, failure);
            }
            Step::Attach if self.state == State::Mounting => {
                let delay = self.retry_later(step, &failure);
                self.enter(now, State::Mounting, Reason::OperationFailed { failure });
                self.timers.set(Timer::Retry, now + delay);
            }
            Step::Survey
            | Step::Attach
            | Step::Detach
            | Step::RaiseFence
            | Step::LiftFence
            | Step::DestroySockets { .. }
            | Step::Release
            | Step::DropClone => self.try_step_again(now, step, failure),
        }
    }

    /// It only makes things faster, too.
    fn on_no_sinkhole(&mut self, failure: &Failure) {
        info!(%failure, "no sinkhole");
        self.facts.sunk = true;
        self.look_again_if_stuck();
    }

    fn on_silent(&mut self, now: BootInstant, failure: Failure) {
        debug!(%failure, "the share did not answer");
        self.last_failure = Some(failure.message.clone());
        self.facts.verified = false;
        if self.state.is_open() {
            self.enter(now, State::Holding, Reason::ShareSilent { message: failure.message });
            // it has answered, if not as it should: a new connection would cure nothing
            self.facts.reconnected = failure.class == FailureClass::Busy;
        } else if self.facts.login == Login::Believed && failure.may_be_the_login() {
            self.facts.login = Login::Doubted;
        } else {
            self.timers.set(Timer::Retry, now + timer::VERIFY_RETRY);
        }
    }

    fn try_step_again(&mut self, now: BootInstant, step: &Step, failure: Failure) {
        let delay = self.step_backoff.next_delay();
        warn!(operation = step.name(), %failure, ?delay, "failed, trying again");
        self.facts.outdated |= *step == Step::Survey;
        self.last_failure = Some(failure.message);
        self.timers.set(Timer::Retry, now + delay);
        self.look_again_if_stuck();
    }

    fn look_again_if_stuck(&mut self) {
        self.facts.surveyed &= self.state != State::Stuck;
    }

    fn retry_later(&mut self, step: &Step, failure: &Failure) -> Duration {
        let delay = match failure.class {
            FailureClass::Wedged => timer::WEDGED_RETRY,
            FailureClass::Transient
            | FailureClass::Busy
            | FailureClass::Missing
            | FailureClass::Credentials
            | FailureClass::Configuration => self.backoff.next_delay(),
        };
        warn!(operation = step.name(), %failure, ?delay, "failed, trying again");
        delay
    }

    /// As long as the mount is there the kernel tries the login again, several times a second (seen on 6.12), and a NAS locks
    /// an account after ten attempts.
    fn on_failed_to_log_in(&mut self, now: BootInstant, failure: Failure) {
        if self.state != State::Recovering {
            return self.look_again_if_stuck();
        }
        match failure.class {
            FailureClass::Credentials => {
                warn!(%failure, "a person is needed");
                let reason = Reason::OperationFailed { failure };
                self.operator.blocked_before = Some(reason.clone()); // whatever becomes of the release
                self.enter(now, State::Releasing, reason);
            }
            // the login itself was taken
            FailureClass::Configuration | FailureClass::Missing => self.facts.login = Login::Tried,
            FailureClass::Transient | FailureClass::Busy | FailureClass::Wedged => {
                self.try_step_again(now, &Step::TryLogin, failure);
            }
        }
    }

    fn on_failed_to_mount(&mut self, now: BootInstant, failure: Failure) {
        self.facts.outdated = true; // a worker that was ended may have come as far as mounting
        // a mount that was ended because the server died says nothing about the configuration; but only the server refuses a
        // login, and asking twice may lock the account
        let blocks = failure.class.needs_a_person()
            && (self.server == Trust::Trusted || failure.class == FailureClass::Credentials);
        if self.state == State::Releasing {
            info!(%failure, "the mount that nobody wants any more failed");
        } else if blocks {
            self.block(now, &Step::Mount, failure);
        } else {
            let delay = self.retry_later(&Step::Mount, &failure);
            self.enter(now, State::Offline, Reason::OperationFailed { failure });
            self.timers.set(Timer::Retry, now + delay);
        }
    }

    /// Is it blocked because the server did not have it?
    pub(super) fn misses_it(&self) -> bool {
        self.state == State::Blocked && self.reason.failure_class() == Some(FailureClass::Missing)
    }

    fn look_for_it_later(&mut self, now: BootInstant) {
        if self.misses_it() {
            self.timers.set(Timer::Remount, now + timer::MISSING_RETRY);
        }
    }

    fn block(&mut self, now: BootInstant, step: &Step, failure: Failure) {
        if self.last_failure.replace(failure.message.clone()).as_ref() != Some(&failure.message) {
            warn!(operation = step.name(), %failure, "a person is needed");
        }
        let reason = Reason::OperationFailed { failure };
        if !self.facts.surveyed {
            self.operator.blocked_before = Some(reason.clone());
        }
        self.enter(now, State::Blocked, reason);
        self.look_for_it_later(now);
    }

    /// What is in place on the host is known. At the start, after maintenance, and when a stuck operation has returned, the
    /// share goes on from there, whatever its state was; else only what somebody else changed matters.
    fn on_survey(&mut self, now: BootInstant, survey: Survey) {
        let Survey { clone, mismatch, barrier, attached, memory } = survey;
        let reason = self.reason_to_adopt();
        if !self.remembers {
            self.remember(now, memory);
        }
        let is_attached = attached == Attachment::Share;
        let adopts = !self.facts.surveyed;
        let Facts { fence_asked, loss_due, .. } = self.facts;
        let before = if adopts { Facts { fence_asked, loss_due, ..Facts::default() } } else { self.facts.clone() };
        let barrier = before.barrier && barrier; // one that this daemon has not asked for is asked for, and found
        self.facts = Facts { surveyed: true, barrier, clone, mismatch, attached: is_attached, ..before };
        if self.operator.maintenance.is_some() {
            if adopts {
                self.adopt(now, reason);
            }
            return;
        }
        // with what is in place, whatever that is
        let goes_on = matches!(self.state, State::Releasing | State::Holding);
        let mounted_after_all = clone && matches!(self.state, State::Offline | State::Blocked);
        match attached {
            Attachment::Foreign(source) => {
                if !matches!(self.reason, Reason::ForeignMount { .. }) {
                    if self.state == State::Blocked {
                        self.operator.blocked_before = Some(self.reason.clone()); // and still so when it is gone
                    }
                    self.enter(now, State::Blocked, Reason::ForeignMount { source });
                }
            }
            Attachment::Nothing | Attachment::Share if adopts && !goes_on => self.adopt(now, reason),
            // gone again
            Attachment::Nothing | Attachment::Share if matches!(self.reason, Reason::ForeignMount { .. }) => {
                self.adopt(now, Reason::TakenOff);
            }
            Attachment::Nothing | Attachment::Share if mounted_after_all => self.adopt(now, reason),
            Attachment::Nothing | Attachment::Share => {}
        }
    }

    fn reason_to_adopt(&self) -> Reason {
        match (&self.reason, self.remembers) {
            (_, false) => Reason::Started,
            (Reason::Asked { command }, true) => Reason::Asked { command: command.clone() },
            (_, true) => {
                Reason::OperationFailed { failure: Failure::transient("an operation returned after its deadline") }
            }
        }
    }

    /// Only the first survey's memory counts: later ones say what this daemon wrote, perhaps some inputs ago.
    fn remember(&mut self, now: BootInstant, memory: Memory) {
        self.remembers = true;
        self.facts.fence_asked = memory.fenced;
        self.operator.holds = memory.held_by_operator;
        self.operator.wanted = memory.wanted;
        self.operator.remounts = memory.remounts;
        self.operator.maintenance = memory.maintenance;
        self.operator.blocked_before = memory.blocked;
        // what was given up, but not fenced yet, may still be saved
        let given_up_at = (memory.given_up && memory.fenced).then_some(now);
        self.facts.loss_due = memory.loss_due || given_up_at.is_some();
        self.outage = memory.outage_since.map(|since| Outage { since, given_up_at });
        self.loss = memory.loss;
        if let Some(until) = memory.maintenance.and_then(|maintenance| maintenance.until) {
            self.timers.set(Timer::Maintenance, until);
        }
    }

    fn adopt(&mut self, now: BootInstant, reason: Reason) {
        let Facts { clone, attached, .. } = self.facts;
        let unwanted = !self.operator.wanted.is_mounted();
        if self.operator.maintenance.is_some() {
            self.enter(now, State::Maintenance, reason);
        } else if (unwanted || self.operator.remounts) && (clone || attached) {
            let command = if unwanted { Command::Unmount } else { Command::Remount };
            self.enter(now, State::Releasing, Reason::Asked { command: command.name().to_owned() });
            self.operator.unmounts = self.outage.is_none();
        } else if let Some(refused) = self.refused_login().filter(|_| clone || attached || self.outage.is_some()) {
            self.enter(now, State::Releasing, refused);
        } else if clone && attached {
            self.enter(now, State::Suspect, reason);
        } else if clone {
            self.enter(now, State::Holding, reason);
            self.ask_before_giving_up(now);
        } else if attached || self.outage.is_some() {
            self.enter(now, State::Releasing, reason); // the daemon died while it was giving up
        } else if let Some(blocked) = self.operator.blocked_before.take() {
            self.enter(now, State::Blocked, blocked);
            self.look_for_it_later(now);
        } else {
            let reason = if unwanted { reason } else { Reason::ServerNotSeen };
            self.enter(now, State::Offline, reason);
        }
    }

    /// What was over while nobody watched is not over before the server has been asked.
    pub(super) fn ask_before_giving_up(&mut self, now: BootInstant) {
        if !matches!(self.server, Trust::Dead { .. }) {
            self.timers.postpone(Timer::Patience, now + timer::FIRST_ANSWER);
            self.timers.postpone(Timer::Hold, now + timer::FIRST_ANSWER);
        }
    }
}
