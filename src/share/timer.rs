//! The deadlines of a share: which are armed, and until when.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Step;
use super::state::State;
use super::time::BootInstant;
use crate::plan::layers;

/// A deadline, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// The operation in flight should have ended.
    Operation,
    /// What failed may be tried again.
    Retry,
    /// The barrier may be tried again.
    BarrierRetry,
    /// A mount that did not last may be made anew, and what the server did not have may be looked for.
    Remount,
    /// The patience is over: what is in flight is given up.
    Patience,
    /// The hold is over: the share is released.
    Hold,
    /// The kept mount had its chance to come back.
    Recovery,
    /// The next uncached request through an open share is due.
    ShareProbe,
    /// Consumers that could not be stopped no longer keep the share from being released.
    ConsumersRetry,
    /// What was announced has not come: the host did not go to sleep, or nobody said that it is awake.
    Sleep,
    /// The maintenance is over. Unlike the others it is meant in the operator's time, also while the host sleeps.
    Maintenance,
}

/// Armed deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers(BTreeMap<Timer, BootInstant>);

impl Timers {
    /// Arms or re-arms.
    pub fn set(&mut self, timer: Timer, at: BootInstant) {
        self.0.insert(timer, at);
    }

    /// Moves one that is armed so that it does not pass before `at`.
    pub fn postpone(&mut self, timer: Timer, at: BootInstant) {
        if let Some(armed) = self.0.get_mut(&timer) {
            *armed = (*armed).max(at);
        }
    }

    /// Disarms.
    pub fn stop(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// Is it armed?
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0.contains_key(&timer)
    }

    /// The next deadline and what it is for.
    pub fn next(&self) -> Option<(BootInstant, Timer)> {
        self.0.iter().map(|(timer, at)| (*at, *timer)).min()
    }

    /// The host slept for so long: what waited has not.
    pub fn shift(&mut self, by: Duration) {
        for (_, at) in self.0.iter_mut().filter(|(timer, _)| **timer != Timer::Maintenance) {
            *at = *at + by;
        }
    }

    /// Disarms and returns one deadline that has passed.
    pub fn take_expired(&mut self, now: BootInstant) -> Option<Timer> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}

/// Pause before a share that did not answer after the sockets were destroyed is asked again.
pub const VERIFY_RETRY: Duration = Duration::from_millis(500);

/// Pause before something is tried again behind a kernel call that does not return: trying more often helps nobody.
pub const WEDGED_RETRY: Duration = Duration::from_secs(30);

/// How soon a share that the server did not have is looked for again: volumes appear minutes after their NAS, when a disk has been
/// checked or a pass phrase typed. Each time costs the NAS a login and a line in its log.
pub const MISSING_RETRY: Duration = Duration::from_secs(60);

/// How long a hold waits for consumers that are being stopped, before it lets the share come back or gives up what is in
/// flight: as long as a signal may take on a loaded machine.
pub const HOLD_WAITS_FOR: Duration = Duration::from_secs(10);

/// How long a new daemon waits at least before it gives up what was held: a first probe, and the pause of consumers.
pub const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// How long consumers that could not be stopped, because systemd cannot be reached or because they outlived their time limit,
/// keep the share from being released from under them.
pub const CONSUMERS_RETRY: Duration = Duration::from_secs(30);

/// How long a share has to be online until the next mount that does not last counts as the first.
pub const STEADY_AFTER: Duration = Duration::from_secs(600);

/// How long a host may take from the announcement of its sleep until it sleeps: services that have something to do before, then the
/// kernel's sync(), which waits for what is given up, and 20 s in which it tries to freeze all tasks (pm_freeze_timeout).
pub const FALLS_ASLEEP_WITHIN: Duration = Duration::from_secs(60);

/// How long a step may take before its worker is ended.
pub fn deadline(step: &Step, state: State) -> Duration {
    match step {
        Step::Survey
        | Step::LayBarrier
        | Step::Attach
        | Step::Detach
        | Step::ShutDown
        | Step::RaiseFence
        | Step::RaiseSinkhole
        | Step::LiftFence
        | Step::DestroySockets { .. } => layers::LOCAL_STEP,
        Step::Mount | Step::TryLogin => layers::MOUNT,
        Step::Verify => match state {
            State::Suspect => layers::REQUEST_WHEN_SUSPECT,
            State::Recovering => layers::REQUEST_AFTER_RECONNECT,
            State::Online
            | State::Holding
            | State::Releasing
            | State::Offline
            | State::Mounting
            | State::Blocked
            | State::Maintenance
            | State::Stuck => layers::REQUEST,
        },
        Step::AskForLoss if state == State::Recovering => layers::REQUEST_WHEN_SUSPECT,
        Step::AskForLoss => layers::REQUEST_AFTER_RECONNECT, // what was given up has ended by then
        Step::Release | Step::DropClone => layers::RELEASE,
        Step::Flush if state == State::Holding => layers::FLUSH_BEFORE_SLEEP,
        Step::Flush => layers::FLUSH,
    }
}
