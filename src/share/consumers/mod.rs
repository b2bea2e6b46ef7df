//! The consumers of the whole host: what is done to each unit, when shares demand it. Pure, like a share.
//!
//! Each share *demands* something of its consumers ([`Demand`]); a unit that needs several shares gets the strictest of
//! their demands, so it is let go when the last of them is back, and only then. What nasmount did to a unit ([`Held`]) is in
//! [`Consumers::memory`] before it is done, and is forgotten when it has been undone, and not before.
//!
//! One unit has at most one operation in flight. A unit whose demand changes meanwhile has it abandoned: what systemd was
//! told it still does, and what is remembered covers that.
//!
//! Order: units are held in the order of their `order` (lowest first) without waiting in between, because each moment more
//! means more calls in flight. They are let go in the opposite order, each after those before it, or after their time limit.

#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tracing::debug;

use super::effect::OpId;
use super::failure::Failure;
use super::time::BootInstant;
use unit::{Unit, Wish};

pub use crate::config::settings::{AfterHold, OnOutage};

/// What a share demands of its consumers; a unit that needs several shares gets the strictest, which is the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Let go what is held.
    Run,
    /// Nothing new is held, nothing is let go.
    #[default]
    AsTheyAre,
    /// Nobody stays paused: who is, is stopped as `after_hold` says. Who runs goes on.
    NobodyPaused,
    /// Hold what runs, as `on_outage` says.
    Hold,
    /// Stop what runs or is paused, as `after_hold` says.
    Stop,
    /// The host goes down: systemd stops them all, and nobody stays paused for that.
    Shutdown,
}

/// How far a demand of a share has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Something is in flight that has not failed yet.
    Busy,
    /// It was tried, and failed for at least one unit; it is tried again.
    Attempted,
    /// All of it is done.
    Settled,
}

/// What nasmount did to a consumer, and therefore has to undo. Written down before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// SIGSTOP to all its processes.
    Paused,
    /// A stop job; or systemd gave up starting it because a share was away, which has to be made good as well.
    Stopped,
    /// Both, and it is not known which is in force: SIGSTOP, and a stop job that has not been seen to end.
    PausedAndStopped,
}

impl Held {
    /// May its processes be SIGSTOPped?
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::PausedAndStopped)
    }

    /// Was it stopped, so that it must be started again?
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Stopped | Self::PausedAndStopped)
    }

    /// What has to be undone after `self` and then `more`.
    fn and(self, more: Self) -> Self {
        if self == more { self } else { Self::PausedAndStopped }
    }
}

/// Which run of a unit: systemd's InvocationID, another one after each start. A unit that has not run since the boot has none.
pub type RunId = String;

/// What nasmount did to a unit, and to which run of it. A unit that has run again since was somebody else's to start, and
/// is somebody else's to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUnit {
    /// What.
    pub held: Held,
    /// The run that was stopped, if that is known.
    pub run: Option<RunId>,
}

/// What is configured of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Lower is held first and let go last.
    pub order: i32,
    /// How long it may take to stop or to start before others no longer wait for it.
    pub time_limit: Duration,
    /// The shares it needs, and what is done to it when one of them is away.
    pub needs: BTreeMap<String, Policy>,
}

/// What is done to a unit on behalf of one share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// At an outage.
    pub on_outage: OnOutage,
    /// When the hold is over.
    pub after_hold: AfterHold,
}

/// What is done to one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitStep {
    /// Does it run? Answered by `UnitDone::Found`.
    Inspect,
    /// SIGSTOP to all its processes, until every task is stopped or in D.
    Pause,
    /// A stop job, and SIGCONT so that it can end; done when it has stopped. Answered by `UnitDone::Found`.
    Stop,
    /// SIGKILL and a stop job; done when it has stopped. Answered by `UnitDone::Found`.
    Kill,
    /// SIGCONT.
    Continue,
    /// A start job; done when the unit has started or failed to.
    Start,
    /// Both, in this order.
    ContinueAndStart,
}

/// What became of a unit's operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitDone {
    /// It was done.
    Plainly,
    /// What was found, by `UnitStep::Inspect` or after a stop.
    Found {
        /// It runs, or is starting or stopping; one that systemd does not know does not run.
        running: bool,
        /// Its present run, or the last one.
        run: Option<RunId>,
    },
}

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitEffect {
    /// Start an operation; several of different units may be in flight, and are sent in this order.
    Start {
        /// Its id.
        op: OpId,
        /// Unit name.
        unit: String,
        /// What is to be done.
        step: UnitStep,
    },
    /// Nobody waits for it any more: nothing more is sent to systemd for it, for the opposite may be next.
    Abandon {
        /// Its id.
        op: OpId,
    },
}

/// Something that happened to consumers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitEvent {
    /// What a share demands changed.
    Demanded {
        /// Share name.
        share: String,
        /// What it demands now.
        demand: Demand,
    },
    /// An operation ended, in time or late. One whose id is not current changes nothing.
    Completed {
        /// Which.
        op: OpId,
        /// How.
        result: Result<UnitDone, Failure>,
    },
    /// systemd says that a unit began or ceased to run; nasmount's own doing or somebody else's.
    UnitChanged {
        /// Unit name.
        unit: String,
        /// Does it run now?
        running: bool,
        /// If it does: its run. One that was stopped since is reported late.
        run: Option<RunId>,
    },
    /// systemd gave up a start of the unit because something that it requires could not be started.
    StartMissed {
        /// Unit name.
        unit: String,
    },
    /// systemd has got a job for the unit, from whomever.
    JobQueued {
        /// Unit name.
        unit: String,
        /// The job's number; none comes twice in a boot.
        job: u32,
    },
    /// The job was done, and the unit does not run.
    JobDone {
        /// Unit name.
        unit: String,
        /// The job's number.
        job: u32,
    },
    /// systemd can be reached again: what failed is tried at once.
    BusBack,
    /// The host slept.
    Resumed {
        /// For how long.
        asleep: Duration,
    },
    /// The configuration was read anew: units by name. A unit that is no longer in it is let go.
    ConfigurationLoaded {
        /// Units by name.
        units: BTreeMap<String, UnitSpec>,
    },
}

/// All consumers. Order of use: as with a share.
#[derive(Clone, Debug)]
pub struct Consumers {
    units: BTreeMap<String, Unit>,
    demands: BTreeMap<String, Demand>,
    effects: VecDeque<UnitEffect>,
    last_op: u64,
}

// What is.
impl Consumers {
    /// The configured units, and what an earlier daemon did to units. Every share begins with `Demand::AsTheyAre`; a unit
    /// that is held and no longer configured is let go.
    pub fn new(units: BTreeMap<String, UnitSpec>, memory: BTreeMap<String, HeldUnit>, now: BootInstant) -> Self {
        let held = |name: &String| memory.get(name).cloned();
        let mut all: BTreeMap<String, Unit> = memory
            .iter()
            .map(|(name, held)| (name.clone(), Unit::new(UnitSpec::unconfigured(), Some(held.clone()))))
            .collect();
        all.extend(units.into_iter().map(|(name, spec)| {
            let held = held(&name);
            (name, Unit::new(spec, held))
        }));
        let mut consumers = Self { units: all, demands: BTreeMap::new(), effects: VecDeque::new(), last_op: 0 };
        consumers.advance(now);
        consumers
    }

    /// What nasmount did to units and has not undone: written down before the effects polled next are started.
    pub fn memory(&self) -> BTreeMap<String, HeldUnit> {
        self.units.iter().filter_map(|(name, unit)| Some((name.clone(), unit.memory()?))).collect()
    }

    /// How far the present demand of a share has got.
    pub fn progress(&self, share: &str) -> Progress {
        let needs_it = |unit: &&Unit| unit.spec.needs.contains_key(share);
        self.units.values().filter(needs_it).map(Unit::progress).min().unwrap_or(Progress::Settled)
    }

    /// What a share demands at present.
    pub fn demand(&self, share: &str) -> Demand {
        self.demands.get(share).copied().unwrap_or_default()
    }

    /// The operation in flight on a unit.
    pub fn operation(&self, unit: &str) -> Option<(OpId, UnitStep)> {
        self.units.get(unit)?.pending.map(|pending| (pending.op, pending.step))
    }
}

// What happened, and what to do.
impl Consumers {
    /// Takes in a fact.
    pub fn handle_event(&mut self, now: BootInstant, event: UnitEvent) {
        match event {
            UnitEvent::Demanded { share, demand } => {
                self.demands.insert(share, demand);
            }
            UnitEvent::Completed { op, result } => self.on_completed(now, op, result),
            UnitEvent::UnitChanged { unit, running, run } => {
                if let Some(unit) = self.units.get_mut(&unit) {
                    unit.changed(running, run);
                }
            }
            UnitEvent::StartMissed { unit } => {
                if let Some(unit) = self.units.get_mut(&unit) {
                    unit.start_missed(now);
                }
            }
            UnitEvent::JobQueued { unit, job } => {
                if let Some(unit) = self.units.get_mut(&unit) {
                    unit.job_queued(now, job);
                }
            }
            UnitEvent::JobDone { unit, job } => {
                if let Some(known) = self.units.get_mut(&unit) {
                    known.job_done(&unit, job);
                }
            }
            UnitEvent::BusBack => self.units.values_mut().for_each(|unit| unit.retry_at = None),
            UnitEvent::Resumed { asleep } => self.units.values_mut().for_each(|unit| unit.shift(asleep)),
            UnitEvent::ConfigurationLoaded { units } => self.on_configuration(units),
        }
        self.advance(now);
    }

    /// Acts on every deadline that has passed; early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: BootInstant) {
        for (name, unit) in &mut self.units {
            unit.retry_at.take_if(|at| *at <= now);
            if let Some(pending) = unit.pending.take_if(|pending| pending.deadline <= now) {
                self.effects.push_back(UnitEffect::Abandon { op: pending.op });
                unit.ended(now, name, pending.step, Err(Failure::transient("no answer in time")));
            }
        }
        self.advance(now);
    }

    /// The next wish.
    pub fn poll_effect(&mut self) -> Option<UnitEffect> {
        self.effects.pop_front()
    }

    /// The next deadline.
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        let deadlines =
            self.units.values().flat_map(|unit| [unit.retry_at, unit.pending.map(|pending| pending.deadline)]);
        deadlines.flatten().min()
    }

    fn on_completed(&mut self, now: BootInstant, op: OpId, result: Result<UnitDone, Failure>) {
        let is_it = |unit: &Unit| unit.pending.is_some_and(|pending| pending.op == op);
        let Some((name, unit)) = self.units.iter_mut().find(|(_, unit)| is_it(unit)) else {
            debug!(op = op.0, ?result, "late completion, not current");
            return;
        };
        if let Some(pending) = unit.pending.take() {
            unit.ended(now, name, pending.step, result);
        }
    }

    /// A unit that is no longer in it needs no share any more, so it is let go.
    fn on_configuration(&mut self, mut units: BTreeMap<String, UnitSpec>) {
        for (name, unit) in &mut self.units {
            unit.spec = units.remove(name).unwrap_or_else(UnitSpec::unconfigured);
        }
        self.units.extend(units.into_iter().map(|(name, spec)| (name, Unit::new(spec, None))));
    }

    fn advance(&mut self, now: BootInstant) {
        for unit in self.units.values_mut() {
            let wish = unit.wish_of(&self.demands);
            self.effects.extend(unit.form(now, wish).map(|op| UnitEffect::Abandon { op }));
        }
        self.units.retain(|_, unit| !unit.spec.needs.is_empty() || unit.held.is_some() || unit.pending.is_some());
        let mut order: Vec<(i32, String)> =
            self.units.iter().map(|(name, unit)| (unit.spec.order, name.clone())).collect();
        order.sort();
        for (_, name) in &order {
            if self.units.get(name).is_some_and(|unit| unit.wish != Wish::LetGo) {
                self.start_next(now, name);
            }
        }
        for (_, name) in order.iter().rev() {
            if self.units.get(name).is_some_and(|unit| unit.wish == Wish::LetGo && !self.waits_for_another(unit)) {
                self.start_next(now, name);
            }
        }
    }

    /// Is another one let go before it?
    fn waits_for_another(&self, unit: &Unit) -> bool {
        self.units
            .values()
            .any(|other| other.spec.order > unit.spec.order && other.is_waited_for() && other.shares_with(unit))
    }

    fn start_next(&mut self, now: BootInstant, name: &str) {
        let Some(unit) = self.units.get_mut(name).filter(|unit| unit.pending.is_none() && unit.retry_at.is_none())
        else {
            return;
        };
        let Some(step) = unit.next_step() else { return };
        self.last_op += 1;
        let op = OpId(self.last_op);
        unit.begin(now, op, step);
        self.effects.push_back(UnitEffect::Start { op, unit: name.to_owned(), step });
    }
}

impl UnitSpec {
    /// Of a unit that is held and no longer configured.
    fn unconfigured() -> Self {
        Self { time_limit: Duration::from_secs(100), ..Self::default() }
    }
}
