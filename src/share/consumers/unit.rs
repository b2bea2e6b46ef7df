//! One unit: the strictest of its shares' demands, and the next thing to be done about it.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use super::super::effect::OpId;
use super::super::failure::{Failure, FailureClass};
use super::super::time::BootInstant;
use super::{AfterHold, Demand, Held, HeldUnit, OnOutage, Policy, Progress, RunId, UnitDone, UnitSpec, UnitStep};

/// How long a signal or a question to systemd may take; ten seconds is a loaded machine.
const LOCAL: Duration = Duration::from_secs(10);

/// Pause before something that failed is tried again, doubled each time ...
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// ... up to this: how much later than the bus a unit may go on at most, should nobody say that the bus is back.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// A start that systemd gives up so soon after its shares are back was asked for while one of them was away.
const JUST_BACK: Duration = Duration::from_secs(5);

/// Jobs that systemd tells of so soon after nasmount's own stop may be that stop: what it says is heard on another connection.
const OWN_JOBS_TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What is wanted of a unit, the stricter the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    LetGo,
    Leave,
    ContinueIfPaused,
    StopIfPaused,
    KillIfPaused,
    Pause,
    Stop,
    Kill,
}

impl Wish {
    fn of(demand: Demand, policy: Policy) -> Self {
        match (demand, policy.on_outage, policy.after_hold) {
            (Demand::Run, _, _) => Self::LetGo,
            (Demand::AsTheyAre, _, _) | (Demand::Hold, OnOutage::None, _) => Self::Leave,
            (Demand::Hold, OnOutage::Pause, _) => Self::Pause,
            (Demand::Hold, OnOutage::Stop, _) | (Demand::Stop, _, AfterHold::Stop) => Self::Stop,
            (Demand::Stop, _, AfterHold::Kill) => Self::Kill,
            (Demand::Stop | Demand::NobodyPaused, _, AfterHold::None) | (Demand::Shutdown, _, _) => {
                Self::ContinueIfPaused
            }
            (Demand::NobodyPaused, _, AfterHold::Stop) => Self::StopIfPaused,
            (Demand::NobodyPaused, _, AfterHold::Kill) => Self::KillIfPaused,
        }
    }
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) op: OpId,
    pub(super) step: UnitStep,
    pub(super) deadline: BootInstant,
}

/// One unit.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) spec: UnitSpec,
    /// What nasmount did to it. Written before the operation that does it.
    pub(super) held: Option<Held>,
    /// The run that nasmount stopped.
    stopped_run: Option<RunId>,
    pub(super) wish: Wish,
    /// When that was formed.
    formed_at: Option<BootInstant>,
    pub(super) pending: Option<Pending>,
    /// Nothing is tried before then.
    pub(super) retry_at: Option<BootInstant>,
    /// As inspected since the wish was formed.
    running: Option<bool>,
    /// It was seen not to run, and nasmount has not started it since: if it runs, somebody else started it.
    seen_stopped: bool,
    /// When nasmount last began or ended to stop it.
    stopped_at: Option<BootInstant>,
    /// A job that somebody else asked for while it was stopped.
    foreign_job: Option<u32>,
    /// What the wish asks for was done.
    acted: bool,
    /// It failed at least once since the wish was formed.
    attempted: bool,
    tries: u32,
}

impl Unit {
    pub(super) fn new(spec: UnitSpec, memory: Option<HeldUnit>) -> Self {
        let (held, stopped_run) = memory.map_or((None, None), |memory| (Some(memory.held), memory.run));
        Self {
            spec,
            held,
            stopped_run,
            wish: Wish::Leave,
            formed_at: None,
            pending: None,
            retry_at: None,
            running: None,
            seen_stopped: false,
            stopped_at: None,
            foreign_job: None,
            acted: false,
            attempted: false,
            tries: 0,
        }
    }

    /// What must not be forgotten of it.
    pub(super) fn memory(&self) -> Option<HeldUnit> {
        let held = self.held?;
        Some(HeldUnit { held, run: self.stopped_run.clone().filter(|_| held.is_stopped()) })
    }

    /// The strictest of what its shares demand; a unit that needs none is let go.
    pub(super) fn wish_of(&self, demands: &BTreeMap<String, Demand>) -> Wish {
        let of_share =
            |(share, policy): (&String, &Policy)| Wish::of(demands.get(share).copied().unwrap_or_default(), *policy);
        let wish = self.spec.needs.iter().map(of_share).max().unwrap_or(Wish::LetGo);
        let undecided = |share: &String| demands.get(share).copied().unwrap_or_default() == Demand::AsTheyAre;
        // a share that is coming back lets nobody go before it is there, also not on behalf of one that is given up
        let too_early = wish == Wish::ContinueIfPaused && self.spec.needs.keys().any(undecided);
        if too_early { Wish::Leave } else { wish }
    }

    /// Forms a wish. What is in flight is abandoned if something else may follow it: its id is returned.
    pub(super) fn form(&mut self, now: BootInstant, wish: Wish) -> Option<OpId> {
        if wish == self.wish {
            return None;
        }
        self.wish = wish;
        self.formed_at = Some(now);
        self.look_again();
        self.attempted = false;
        self.tries = 0;
        self.retry_at = None;
        if wish == Wish::Leave {
            return None;
        }
        self.pending.take().map(|pending| pending.op)
    }

    fn look_again(&mut self) {
        self.running = None;
        self.acted = false;
    }

    /// The next step, if anything is left to be done.
    pub(super) fn next_step(&self) -> Option<UnitStep> {
        let is_paused = self.held.is_some_and(Held::is_paused);
        let act = match self.wish {
            Wish::LetGo => {
                // what was stopped is looked at before it is started: somebody else may have done both meanwhile
                return self.held.map(|held| match held {
                    Held::Paused => UnitStep::Continue,
                    Held::Stopped | Held::PausedAndStopped if self.running.is_none() => UnitStep::Inspect,
                    Held::Stopped => UnitStep::Start,
                    Held::PausedAndStopped => UnitStep::ContinueAndStart,
                });
            }
            Wish::Leave => return None,
            Wish::ContinueIfPaused | Wish::StopIfPaused | Wish::KillIfPaused if !is_paused => return None,
            Wish::ContinueIfPaused => UnitStep::Continue,
            Wish::Pause => UnitStep::Pause,
            Wish::StopIfPaused | Wish::Stop => UnitStep::Stop,
            Wish::KillIfPaused | Wish::Kill => UnitStep::Kill,
        };
        match self.running {
            None => Some(UnitStep::Inspect),
            Some(true) if !self.acted => Some(act),
            Some(_) => None,
        }
    }

    /// Begins a step: what it will do is written down first. Returns how long it may take.
    pub(super) fn begin(&mut self, now: BootInstant, op: OpId, step: UnitStep) {
        let more = match step {
            UnitStep::Pause => Some(Held::Paused),
            UnitStep::Stop | UnitStep::Kill => Some(Held::Stopped),
            UnitStep::Inspect | UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart => None,
        };
        if let Some(more) = more {
            self.held = Some(self.held.map_or(more, |held| held.and(more)));
            if more == Held::Stopped {
                self.stopped_run = None; // systemd may start it anew before it hears of the stop
                self.stopped_at = Some(now);
            }
        }
        let within = match step {
            UnitStep::Inspect | UnitStep::Pause | UnitStep::Continue => LOCAL,
            UnitStep::Stop | UnitStep::Kill | UnitStep::Start | UnitStep::ContinueAndStart => self.spec.time_limit,
        };
        self.seen_stopped &= !matches!(step, UnitStep::Start | UnitStep::ContinueAndStart);
        self.pending = Some(Pending { op, step, deadline: now + within });
    }

    /// The operation in flight ended.
    pub(super) fn ended(&mut self, now: BootInstant, name: &str, step: UnitStep, result: Result<UnitDone, Failure>) {
        let done = match result {
            Ok(done) => done,
            Err(failure) => return self.failed(now, name, step, &failure),
        };
        self.tries = 0;
        match step {
            UnitStep::Inspect => {
                if let UnitDone::Found { running, run } = done {
                    self.inspected(running, run);
                }
            }
            UnitStep::Pause => self.acted = true,
            UnitStep::Stop | UnitStep::Kill => {
                if let UnitDone::Found { run, .. } = done {
                    self.stopped_run = run;
                }
                self.held = Some(Held::Stopped);
                self.running = Some(false);
                self.seen_stopped = true;
                self.stopped_at = Some(now);
            }
            UnitStep::Continue => {
                self.acted = true;
                self.held = self.held.filter(|held| held.is_stopped()).map(|_| Held::Stopped);
            }
            UnitStep::Start | UnitStep::ContinueAndStart => self.held = None,
        }
        if step != UnitStep::Inspect {
            info!(unit = name, ?step, held = ?self.held, "consumer");
        }
    }

    /// One that does not run, although nasmount did not stop it, was stopped by somebody else and is no longer nasmount's
    /// to let go; nor is one that has run again since nasmount stopped it.
    fn inspected(&mut self, running: bool, run: Option<RunId>) {
        self.running = Some(running);
        self.seen_stopped |= !running;
        let ran_again = self.stopped_run.is_some() && run.is_some() && run != self.stopped_run;
        if ran_again && self.held.is_some_and(Held::is_stopped) {
            self.held = self.held.filter(|held| held.is_paused()).map(|_| Held::Paused);
        }
        if !running {
            self.stopped_run = self.stopped_run.take().or(run);
            self.held = self.held.filter(|held| held.is_stopped()).map(|_| Held::Stopped);
        }
    }

    fn failed(&mut self, now: BootInstant, name: &str, step: UnitStep, failure: &Failure) {
        let delay = FIRST_RETRY.saturating_mul(1_u32 << self.tries.min(8)).min(LONGEST_RETRY);
        match failure.class {
            FailureClass::Busy => info!(unit = name, ?step, %failure, ?delay, "not yet"),
            FailureClass::Transient
            | FailureClass::Credentials
            | FailureClass::Configuration
            | FailureClass::Missing
            | FailureClass::Wedged => warn!(unit = name, ?step, %failure, ?delay, "failed, trying again"),
        }
        self.tries += 1;
        self.attempted = true;
        self.look_again();
        self.retry_at = Some(now + delay);
    }

    /// systemd says that it began or ceased to run.
    pub(super) fn changed(&mut self, running: bool, run: Option<RunId>) {
        let is_over = run.is_some() && run == self.stopped_run;
        if running && !is_over {
            // whoever started it: while the share is away it is held like the others, and it is no longer nasmount's to start
            let stops = self.pending.is_some_and(|pending| matches!(pending.step, UnitStep::Stop | UnitStep::Kill));
            if std::mem::take(&mut self.seen_stopped) && !stops {
                self.held = self.held.filter(|held| held.is_paused()).map(|_| Held::Paused);
            }
            self.look_again();
            return;
        }
        if running {
            return self.look_again(); // said of a run that has been stopped since
        }
        self.seen_stopped = true;
        if self.pending.is_none() && self.held == Some(Held::Paused) {
            self.held = None;
            self.look_again();
        }
    }

    /// systemd gave up a start because something that the unit requires could not be started. If that may have been a share, the
    /// start is made good when its shares are back: once, because it may have been something else.
    pub(super) fn start_missed(&mut self, now: BootInstant) {
        match self.held {
            Some(Held::Stopped | Held::PausedAndStopped) => return, // started when it is let go, anyway
            // it died while it was paused, and its Restart= came to nothing; or it runs, and was started once more
            Some(Held::Paused) => {
                (self.held, self.stopped_run) = (Some(Held::PausedAndStopped), None);
                return self.look_again();
            }
            None => {}
        }
        let just_back = self.formed_at.take_if(|at| self.wish == Wish::LetGo && now.since(*at) <= JUST_BACK).is_some();
        if self.wish != Wish::LetGo || just_back {
            (self.held, self.stopped_run, self.seen_stopped) = (Some(Held::Stopped), None, true);
            self.look_again();
        }
    }

    /// systemd has got a job for it.
    pub(super) fn job_queued(&mut self, now: BootInstant, job: u32) {
        let may_be_ours = self.pending.is_some()
            || self.stopped_at.is_some_and(|at| now.since(at) <= OWN_JOBS_TOLD_WITHIN)
            || !self.seen_stopped;
        if self.held == Some(Held::Stopped) && !may_be_ours {
            self.foreign_job = Some(job);
        }
    }

    /// A job of it was done, and it does not run: somebody stopped what nasmount had stopped, and it is his to start again. (Or it was
    /// `try-restart`, of which systemd says the same.)
    pub(super) fn job_done(&mut self, name: &str, job: u32) {
        let is_foreign = self.foreign_job.take_if(|foreign| *foreign == job).is_some();
        if is_foreign && self.held == Some(Held::Stopped) && self.seen_stopped && self.pending.is_none() {
            info!(unit = name, "stopped by somebody else, too: it is not started when its shares are back");
            self.held = None;
            self.look_again();
        }
    }

    /// How far the wish has got.
    pub(super) fn progress(&self) -> Progress {
        match (self.pending.is_none() && self.next_step().is_none(), self.attempted) {
            (true, _) => Progress::Settled,
            (false, true) => Progress::Attempted,
            (false, false) => Progress::Busy,
        }
    }

    /// Has others that are let go after it wait?
    pub(super) fn is_waited_for(&self) -> bool {
        self.wish == Wish::LetGo && self.held.is_some() && !self.attempted
    }

    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.spec.needs.keys().any(|share| other.spec.needs.contains_key(share))
    }

    /// The host slept: nothing that waited has waited for so long.
    pub(super) fn shift(&mut self, by: Duration) {
        if let Some(pending) = &mut self.pending {
            pending.deadline = pending.deadline + by;
        }
        self.retry_at = self.retry_at.map(|at| at + by);
    }
}
