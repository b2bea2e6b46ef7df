//! [`Share`]: what to do next, from what is known. See the module comment of [`super`] for the design.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use tracing::{debug, error, info};

use super::ShareSpec;
use super::backoff::Backoff;
use super::command::{Command, HoldReason, Maintenance, Refusal, Verdict, Wanted};
use super::consumers::{Demand, Progress};
use super::detector::Trust;
use super::effect::{Effect, OpId, Step};
use super::event::{Event, Input, Loss, Memory};
use super::facts::{Consumers, Facts, Login, Operator, Outage, Pending};
use super::failure::FailureClass;
use super::state::{Reason, State};
use super::time::BootInstant;
use super::timer::{self, Timer, Timers};
use crate::plan::layers;

/// Transitions that nobody has polled are forgotten, the oldest first.
const MOST_TRANSITIONS: usize = 32;

/// A change of state, or of the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: BootInstant,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// One share. Order of use: `handle_event`, `handle_command` or `handle_timeout`, then `poll_effect` until `None`, then wait
/// until `poll_timeout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub(super) spec: ShareSpec,
    pub(super) state: State,
    since: BootInstant,
    pub(super) reason: Reason,
    pub(super) server: Trust,
    /// Sockets that the kernel made before this instant are of a connection that was given up for lost.
    pub(super) stale_before: BootInstant,
    /// The first probe that failed; `None` while the server is trusted.
    pub(super) doubted_since: Option<BootInstant>,
    pub(super) facts: Facts,
    pub(super) consumers: Consumers,
    pub(super) operator: Operator,
    pub(super) outage: Option<Outage>,
    pub(super) loss: Option<Loss>,
    pub(super) probe_due: bool,
    /// The host goes down.
    #[serde(default)]
    pub(super) shuts_down: bool,
    /// The host is about to sleep, or sleeps.
    #[serde(default)]
    pub(super) sleeps: bool,
    /// What an earlier daemon wrote down has been taken over.
    pub(super) remembers: bool,
    pub(super) last_failure: Option<String>,
    pub(super) pending: Option<Pending>,
    /// The operation that does not return; there is one in `State::Stuck` only.
    pub(super) stuck: Option<Pending>,
    pub(super) timers: Timers,
    /// Of mounts and barriers.
    pub(super) backoff: Backoff,
    /// Of what is local.
    pub(super) step_backoff: Backoff,
    /// Of mounts that did not last.
    pub(super) remount_backoff: Backoff,
    pub(super) effects: VecDeque<Effect>,
    #[serde(skip)]
    transitions: VecDeque<Transition>,
    last_op: u64,
}

// A. What is.
impl Share {
    /// A share of which nothing is known: its first wish is a survey.
    pub fn new(spec: ShareSpec, seed: u64, now: BootInstant) -> Self {
        let mut share = Self {
            spec,
            state: State::Suspect,
            since: now,
            reason: Reason::Started,
            server: Trust::Unknown,
            stale_before: now,
            doubted_since: None,
            facts: Facts::default(),
            consumers: Consumers {
                demand: Demand::AsTheyAre,
                progress: Progress::Busy,
                to_be_stopped: false,
                waited: false,
            },
            operator: Operator::default(),
            outage: None,
            loss: None,
            probe_due: false,
            shuts_down: false,
            sleeps: false,
            remembers: false,
            last_failure: None,
            pending: None,
            stuck: None,
            timers: Timers::default(),
            backoff: Backoff::of_server(seed),
            step_backoff: Backoff::of_host(seed),
            remount_backoff: Backoff::of_remounts(seed),
            effects: VecDeque::new(),
            transitions: VecDeque::new(),
            last_op: 0,
        };
        share.advance(now);
        share
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> BootInstant {
        self.since
    }

    /// Why.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// What is written down before the effects polled next are started. `None` before the first survey is in: what an
    /// earlier daemon wrote must not be overwritten by one that has not read it.
    pub fn memory(&self) -> Option<Memory> {
        self.remembers.then(|| Memory {
            outage_since: self.outage.map(|outage| outage.since),
            given_up: self.outage.is_some_and(|outage| outage.given_up_at.is_some()),
            fenced: self.facts.fence_asked,
            held_by_operator: self.operator.holds,
            wanted: if self.operator.retires { Wanted::Mounted } else { self.operator.wanted },
            remounts: self.operator.remounts,
            maintenance: self.operator.maintenance,
            blocked: self.refused_login(),
            loss_due: self.facts.loss_due,
            loss: self.loss.clone(),
        })
    }

    pub(super) fn refused_login(&self) -> Option<Reason> {
        let now = Some(&self.reason).filter(|_| self.state == State::Blocked);
        let is_refused = |reason: &&Reason| reason.failure_class() == Some(FailureClass::Credentials);
        now.into_iter().chain(&self.operator.blocked_before).find(is_refused).cloned()
    }

    /// The operation in flight; the one that does not return rather than another.
    pub fn operation(&self) -> Option<(OpId, &'static str)> {
        self.stuck.as_ref().or(self.pending.as_ref()).map(|pending| (pending.op, pending.step.name()))
    }

    /// When the hold ends by itself, if it does.
    pub fn hold_ends_at(&self) -> Option<BootInstant> {
        Some(self.outage?.since + self.spec.hold_for?)
    }

    /// What it demands of its consumers.
    pub fn demand(&self) -> Demand {
        if self.remembers && self.shuts_down {
            return Demand::Shutdown;
        }
        // a share that is stuck may be in maintenance, too
        if !self.remembers || self.operator.maintenance.is_some() {
            return Demand::AsTheyAre;
        }
        let demand = match self.state {
            State::Online => Demand::Run,
            State::Holding => Demand::Hold,
            State::Releasing => Demand::Stop,
            State::Offline | State::Blocked => Demand::NobodyPaused,
            State::Stuck if self.consumers.to_be_stopped => Demand::Stop,
            State::Stuck if self.outage.is_some() => Demand::Hold,
            State::Suspect | State::Mounting | State::Recovering | State::Stuck => Demand::AsTheyAre,
            State::Maintenance => return Demand::AsTheyAre,
        };
        if self.operator.holds { demand.max(Demand::Hold) } else { demand }
    }

    /// Whether it only comes back if somebody does something: nobody should wait for it.
    pub fn needs_a_person(&self) -> bool {
        let unmounted = self.state == State::Offline && !self.operator.wanted.is_mounted();
        unmounted || self.state == State::Blocked
    }

    /// Why consumers are held, stopped or not yet started; they go on when it is empty.
    pub fn hold_reasons(&self) -> BTreeSet<HoldReason> {
        let mut reasons = BTreeSet::new();
        let unmounted = !self.operator.wanted.is_mounted();
        if self.operator.holds || unmounted {
            reasons.insert(HoldReason::Operator);
        }
        let away = match self.state {
            State::Online | State::Suspect | State::Maintenance => self.outage.is_some(),
            State::Holding
            | State::Releasing
            | State::Offline
            | State::Mounting
            | State::Recovering
            | State::Blocked
            | State::Stuck => !unmounted,
        };
        if away {
            reasons.insert(HoldReason::Outage);
        }
        reasons
    }

    /// The last loss of data that is known of.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// Whether hands are off, and until when.
    pub fn maintenance(&self) -> Option<Maintenance> {
        self.operator.maintenance
    }

    /// Whether the operator wants it mounted.
    pub fn wanted(&self) -> Wanted {
        self.operator.wanted
    }
}

// B. What happened, and D. what to do. C, what is asked, is in `admission`.
impl Share {
    /// Takes in whatever there is; the answer is that to a command.
    pub fn handle(&mut self, now: BootInstant, input: Input) -> Option<Result<Verdict, Refusal>> {
        match input {
            Input::Event(event) => self.handle_event(now, event),
            Input::Timeout => self.handle_timeout(now),
            Input::Command(command) => return Some(self.handle_command(now, command)),
        }
        None
    }

    /// Takes in a fact.
    pub fn handle_event(&mut self, now: BootInstant, event: Event) {
        match event {
            Event::ServerTrustChanged { trust } => self.on_trust(now, trust),
            Event::Completed { op, result } => self.on_completed(now, op, result),
            Event::ConsumersChanged { demand, progress } => {
                if demand == self.consumers.demand {
                    self.consumers.progress = progress;
                }
            }
            Event::ConnectionClosed => self.on_connection_closed(),
            Event::MountTableChanged | Event::ServerMoved => self.facts.outdated = true,
            Event::SleepBegan => self.on_sleep(now),
            Event::Resumed { asleep } => self.on_resumed(asleep),
            Event::ShutdownBegan => self.on_shutdown(now),
            Event::ConfigurationLoaded { spec } => self.on_configuration(now, spec),
        }
        self.advance(now);
    }

    /// Does what an operator asks for, says that it is so already, or refuses and changes nothing.
    pub fn handle_command(&mut self, now: BootInstant, command: Command) -> Result<Verdict, Refusal> {
        let verdict = self.admit(command)?;
        info!(command = command.name(), ?verdict, state = %self.state, "command");
        if verdict == Verdict::Accepted {
            self.obey(now, command);
            self.advance(now);
        }
        Ok(verdict)
    }

    /// Acts on every deadline that has passed; early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: BootInstant) {
        while let Some(timer) = self.timers.take_expired(now) {
            self.on_timer(now, timer);
        }
        self.advance(now);
    }

    /// The next wish.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next change of state that has not been polled; one input may lead through several.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    /// The next deadline, and what it is for.
    pub fn poll_timeout(&self) -> Option<(BootInstant, Timer)> {
        self.timers.next()
    }

    fn on_trust(&mut self, now: BootInstant, trust: Trust) {
        self.server = trust;
        match trust {
            Trust::Trusted => (self.stale_before, self.doubted_since) = (now, None),
            Trust::Suspect { .. } => {
                self.doubted_since.get_or_insert(now);
                self.facts.verified = false;
                self.abandon_request();
            }
            Trust::Dead { verdict } => {
                if self.state == State::Holding && self.reason == Reason::Started {
                    self.reason = Reason::ServerDead { verdict }; // for which an earlier daemon held it
                }
                self.facts.verified = false;
                self.facts.reconnected = false;
                self.abandon_request();
                self.abandon_mount();
                self.note_outage_while_stuck(now);
            }
            Trust::Unknown => {}
        }
    }

    /// Where the share is not open nobody relies on its connection, or it is made anew anyway.
    fn on_connection_closed(&mut self) {
        if self.state.is_open() && self.server == Trust::Trusted {
            self.facts.closed = true;
            self.facts.verified &= self.state == State::Online;
            self.probe_due |= self.state == State::Online;
            self.abandon_request();
        }
    }

    /// A request begun before the doubt would only hang; nobody needs its answer.
    pub(super) fn abandon_request(&mut self) {
        // what was lost is asked again after the next outage
        let is_open = self.state.is_open();
        let asks = |pending: &mut Pending| {
            matches!(pending.step, Step::Verify | Step::Flush) || (is_open && pending.step == Step::AskForLoss)
        };
        if let Some(pending) = self.pending.take_if(asks) {
            self.effects.push_back(Effect::Abandon { op: pending.op });
            self.timers.stop(Timer::Operation);
        }
    }

    /// Nobody needs the mount any more. The worker must end before anything else may be mounted (the kernel has one global
    /// mount mutex), so its completion is awaited.
    pub(super) fn abandon_mount(&mut self) {
        if let Some(pending) = &mut self.pending
            && pending.step.mounts()
            && !pending.abandoned
        {
            pending.abandoned = true;
            self.effects.push_back(Effect::Abandon { op: pending.op });
        }
    }

    /// Nothing is mounted any more, and what is coming back has less time for it.
    fn on_shutdown(&mut self, now: BootInstant) {
        if std::mem::replace(&mut self.shuts_down, true) {
            return;
        }
        self.on_awake();
        self.abandon_mount();
        self.end_maintenance(now, "shutdown"); // its operator will not come back to this boot
        if self.state == State::Recovering {
            self.timers.set(Timer::Recovery, now + layers::RECOVERY_IN_SHUTDOWN);
        }
    }

    /// The clocks of an outage begin with it, so a new length counts from there. What needed a person may have been mended.
    fn on_configuration(&mut self, now: BootInstant, spec: ShareSpec) {
        let changed = self.spec != spec;
        self.spec = spec;
        if changed && self.state == State::Holding {
            self.arm_clocks();
            self.ask_before_giving_up(now);
        }
        self.operator.blocked_before = None;
        if self.state == State::Blocked && matches!(self.reason, Reason::OperationFailed { .. }) {
            self.try_again(now, "reload");
        }
    }

    fn on_timer(&mut self, now: BootInstant, timer: Timer) {
        match timer {
            Timer::Operation => self.on_operation_deadline(now),
            Timer::Patience => {
                if let Some(outage) = &mut self.outage {
                    outage.given_up_at = Some(now);
                }
            }
            Timer::Hold => self.on_hold_over(now),
            Timer::Recovery => {
                if self.state == State::Recovering {
                    self.abandon_request();
                    let message = self.last_failure.take().unwrap_or_else(|| "no answer".into());
                    self.enter(now, State::Releasing, Reason::NotHealed { message });
                }
            }
            Timer::ShareProbe => self.probe_due = true,
            Timer::ConsumersRetry => self.consumers.waited = true,
            Timer::Maintenance => {
                let blocked = self.operator.blocked_before.take();
                self.end_maintenance(now, "maintenance is over");
                self.operator.blocked_before = blocked;
            }
            Timer::Remount if self.misses_it() => self.enter(now, State::Offline, self.reason.clone()),
            Timer::Sleep => self.on_awake(),
            Timer::Retry | Timer::BarrierRetry | Timer::Remount => {}
        }
    }

    /// A recovery has a budget of its own; if it fails, the hold is armed again and over at once.
    fn on_hold_over(&mut self, now: BootInstant) {
        if self.state == State::Holding {
            self.enter(now, State::Releasing, Reason::HoldOver);
        } else if self.state == State::Stuck {
            // the mount cannot be given up yet, but nobody stays paused for that
            self.consumers.to_be_stopped = true;
        }
    }
}

// Transitions.
impl Share {
    fn advance(&mut self, now: BootInstant) {
        let told = (self.consumers.demand, self.consumers.progress);
        loop {
            self.note_demand(told);
            let Some((state, reason)) = self.transition() else { break };
            self.enter(now, state, reason);
        }
        self.give_up_before_sleep(now);
        if self.pending.is_none()
            && !self.timers.is_set(Timer::Retry)
            && let Some(step) = self.next_step()
        {
            self.start(now, step);
        }
    }

    /// The clocks of an outage run behind a call that does not return, too.
    fn note_outage_while_stuck(&mut self, now: BootInstant) {
        let dead = matches!(self.server, Trust::Dead { .. });
        if self.state == State::Stuck && self.facts.clone && dead && self.outage.is_none() {
            self.begin_outage(now);
        }
    }

    /// `told` is what was so before this input. A demand that only a state passed through within it made is told to nobody,
    /// so what is known of the one before it still holds.
    fn note_demand(&mut self, (told, progress): (Demand, Progress)) {
        let demand = self.demand();
        if std::mem::replace(&mut self.consumers.demand, demand) != demand {
            self.consumers.progress = if demand == told { progress } else { Progress::Busy };
        }
    }

    pub(super) fn enter(&mut self, now: BootInstant, state: State, reason: Reason) {
        if state == self.state {
            info!(state = %state, %reason, "state goes on");
        } else {
            info!(from = %self.state, to = %state, %reason, "state changed");
            self.since = now;
            if !self.state.may_become().contains(&state) {
                error!(from = %self.state, to = %state, "a transition that nobody foresaw");
            }
        }
        if self.transitions.len() == MOST_TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition { at: now, from: self.state, to: state, reason: reason.clone() });
        self.state = state;
        self.reason = reason;
        for timer in [Timer::Retry, Timer::Recovery, Timer::ShareProbe, Timer::ConsumersRetry] {
            self.timers.stop(timer);
        }
        self.probe_due = false;
        self.step_backoff.reset();
        self.consumers.waited = false;
        self.consumers.to_be_stopped =
            state == State::Stuck && (self.consumers.to_be_stopped || self.hold_ends_at().is_some_and(|at| at <= now));
        self.operator.unmounts &= state == State::Releasing;
        self.on_entry(now);
    }

    fn on_entry(&mut self, now: BootInstant) {
        match self.state {
            State::Online => {
                // also within the patience: the kernel gives up a send that is stuck for 15 s, and what it had to write with it
                self.facts.loss_due |= self.outage.take().is_some_and(|outage| outage.given_up_at.is_none());
                self.facts.aborted = false;
                self.last_failure = None;
                self.stop_clocks();
                self.timers.set(Timer::ShareProbe, now + self.spec.probe_interval);
            }
            State::Holding => {
                self.enter_holding(now);
                self.timers.set(Timer::ConsumersRetry, now + timer::HOLD_WAITS_FOR);
            }
            State::Recovering => {
                self.facts.reconnected |= self.reason == Reason::TakenOff;
                self.facts.login = Login::default();
                // another share of the server may have destroyed the sockets of this one, too
                self.facts.loss_due |= self.outage.is_some_and(|outage| outage.given_up_at.is_some());
                let within = if self.shuts_down { layers::RECOVERY_IN_SHUTDOWN } else { layers::RECOVERY };
                self.timers.set(Timer::Recovery, now + within);
            }
            State::Releasing => {
                if self.reason == Reason::TakenOff {
                    self.operator.wanted = Wanted::TakenOff;
                    self.operator.unmounts = true;
                }
                // the server is well, and nobody has to lose anything
                self.operator.unmounts |= matches!(self.reason, Reason::Mismatch { .. }) && self.outage.is_none();
                self.operator.unmounts |= self.reason == Reason::Shutdown && self.facts.verified;
                self.stop_clocks();
                self.facts.flushed = false;
                self.facts.loss_due = true;
                self.timers.set(Timer::ConsumersRetry, now + timer::CONSUMERS_RETRY);
            }
            State::Offline => {
                if matches!(self.reason, Reason::NotHealed { .. } | Reason::Mismatch { .. }) {
                    self.timers.set(Timer::Remount, now + self.remount_backoff.next_delay());
                }
                self.stop_clocks();
                self.outage = None;
                self.operator.remounts = false;
            }
            State::Blocked => {
                self.stop_clocks();
                self.outage = self.outage.filter(|_| self.facts.clone);
            }
            State::Mounting | State::Maintenance => self.stop_clocks(),
            State::Stuck => self.note_outage_while_stuck(now),
            State::Suspect => {}
        }
    }

    fn stop_clocks(&mut self) {
        self.timers.stop(Timer::Patience);
        self.timers.stop(Timer::Hold);
    }

    /// The clocks of an outage run from its beginning, also over a return that did not last and over a restart.
    fn enter_holding(&mut self, now: BootInstant) {
        self.facts.verified = false;
        self.facts.closed = false;
        self.facts.reconnected = false;
        self.facts.aborted = false;
        self.stale_before = now;
        if self.reason == Reason::Sleep {
            self.facts.flushed = false;
            self.stop_clocks(); // there is no outage
        } else {
            self.begin_outage(now);
        }
    }

    fn begin_outage(&mut self, now: BootInstant) {
        // what is in flight waits since the first probe that failed, and so does the kernel
        let since = self.doubted_since.unwrap_or(now);
        self.outage.get_or_insert(Outage { since, given_up_at: None });
        self.arm_clocks();
    }

    fn arm_clocks(&mut self) {
        let Some(outage) = self.outage else { return };
        if outage.given_up_at.is_none() {
            self.timers.set(Timer::Patience, outage.since + self.spec.patience);
        }
        match self.spec.hold_for {
            Some(hold_for) => self.timers.set(Timer::Hold, outage.since + hold_for),
            None => self.timers.stop(Timer::Hold),
        }
    }

    fn start(&mut self, now: BootInstant, step: Step) {
        self.last_op = self.last_op.wrapping_add(1);
        let op = OpId(self.last_op);
        debug!(op = op.0, operation = step.name(), state = %self.state, "start");
        let doubted = self.facts.closed && step == Step::Verify;
        let within = if doubted { layers::REQUEST_WHEN_SUSPECT } else { timer::deadline(&step, self.state) };
        self.timers.set(Timer::Operation, now + within);
        self.facts.fence_asked |= step == Step::RaiseFence;
        self.facts.outdated &= step != Step::Survey;
        self.pending = Some(Pending { op, step: step.clone(), abandoned: false });
        self.effects.push_back(Effect::Start { op, step });
    }
}
