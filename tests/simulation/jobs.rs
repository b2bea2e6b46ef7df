//! Operations on units in flight: what systemd is told, when, and what becomes of it.

use std::time::Duration;

use nasmount::share::consumers::{RunId, UnitDone, UnitEvent, UnitStep};
use nasmount::share::effect::OpId;
use nasmount::share::failure::{Failure, FailureClass};

use crate::invariants::{self, Check};
use crate::planted::Planted;
use crate::schedule::{unit_index, unit_name};
use crate::workers::outcome_name;
use crate::world::{Happening, World};

/// An operation that has not ended.
#[derive(Clone, Debug)]
pub struct Job {
    pub op: OpId,
    pub unit: usize,
    pub step: UnitStep,
    /// systemd has been told.
    pub told: bool,
    fails: Option<FailureClass>,
    /// The call was on a bus that went away.
    lost: bool,
}

/// Its name in schedules.
pub fn step_name(step: UnitStep) -> &'static str {
    match step {
        UnitStep::Inspect => "inspect",
        UnitStep::Pause => "pause",
        UnitStep::Stop => "stop",
        UnitStep::Kill => "kill",
        UnitStep::Continue => "continue",
        UnitStep::Start | UnitStep::ContinueAndStart => "start",
    }
}

impl World {
    /// Starts what an effect asks for.
    pub fn start_job(&mut self, op: OpId, unit: &str, step: UnitStep) -> Check {
        let Some(unit) = unit_index(unit).filter(|index| *index < self.host.units.len()) else { return Ok(()) };
        invariants::at_unit_start(self, unit, step)?;
        let (hangs_for, _) = self.hang_of(step_name(step));
        let fails = self.failure_of(step_name(step));
        // a call on a bus that is away is lost also if the bus comes back
        let lost = self.host.bus_lost.is_some();
        self.jobs.insert(op, Job { op, unit, step, told: false, fails, lost });
        let latency = self.latency(1, 10);
        self.told_until = self.told_until.max(self.now + latency);
        let tells_in = self.told_until.since(self.now) + hangs_for;
        self.job_due_in(op, tells_in);
        Ok(())
    }

    fn job_due_in(&mut self, op: OpId, delay: Duration) {
        self.after(delay, Happening::JobDue { generation: self.generation, op });
    }

    /// systemd is told, or has done what it was told.
    pub fn job_due(&mut self, op: OpId) -> Check {
        let Some(job) = self.jobs.get(&op).cloned() else { return Ok(()) };
        if job.lost || self.host.bus_lost.is_some() {
            if self.host.bus_lost == Some(true) {
                return Ok(()); // looked at again when the bus is back
            }
            return self.end_job(&job, Err(Failure::transient("bus: connection lost")));
        }
        let stops = matches!(job.step, UnitStep::Stop | UnitStep::Kill);
        if job.told && stops && self.host.units[job.unit].running {
            self.job_due_in(op, Duration::from_secs(1)); // somebody has started it meanwhile
            return Ok(());
        }
        if job.told {
            let done = self.done(&job);
            return self.end_job(&job, Ok(done));
        }
        if let Some(class) = job.fails {
            if self.rng.bool() {
                self.act(job.unit, job.step)?;
            }
            let failure = Failure { class, message: "planned to fail".into(), errno: None, hint: None };
            return self.end_job(&job, Err(failure));
        }
        let unit = &self.host.units[job.unit];
        if job.step == UnitStep::Inspect {
            let found = UnitDone::Found { running: unit.running, run: unit.run() };
            return self.end_job(&job, Ok(found));
        }
        invariants::at_act(self, job.unit, job.step)?;
        let starts = matches!(job.step, UnitStep::Start | UnitStep::ContinueAndStart);
        if starts && self.host.units[job.unit].job.is_some() {
            if job.step == UnitStep::ContinueAndStart {
                self.act(job.unit, UnitStep::Continue)?;
            }
            let busy = Failure { class: FailureClass::Busy, ..Failure::transient("a stop job is under way") };
            return self.end_job(&job, Err(busy));
        }
        let takes = self.time_of_step(job.unit, job.step);
        self.act(job.unit, job.step)?;
        if let Some(job) = self.jobs.get_mut(&op) {
            job.told = true;
        }
        self.job_due_in(op, takes + Duration::from_millis(1));
        Ok(())
    }

    /// What is said when it has ended.
    fn done(&self, job: &Job) -> UnitDone {
        match job.step {
            UnitStep::Stop | UnitStep::Kill => UnitDone::Found { running: false, run: self.host.units[job.unit].run() },
            UnitStep::Inspect | UnitStep::Pause | UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart => {
                UnitDone::Plainly
            }
        }
    }

    fn time_of_step(&self, unit: usize, step: UnitStep) -> Duration {
        let unit = &self.host.units[unit];
        match step {
            UnitStep::Stop if unit.running => Duration::from_millis(unit.stop_takes_ms),
            UnitStep::Kill if unit.running => Duration::from_millis(50),
            UnitStep::Start | UnitStep::ContinueAndStart if !unit.running => Duration::from_millis(unit.start_takes_ms),
            UnitStep::Pause => Duration::from_millis(20),
            UnitStep::Inspect
            | UnitStep::Stop
            | UnitStep::Kill
            | UnitStep::Continue
            | UnitStep::Start
            | UnitStep::ContinueAndStart => Duration::ZERO,
        }
    }

    /// systemd is told nothing more of it. What it was told a moment before it does; a late answer may come.
    pub fn abandon_job(&mut self, op: OpId) -> Check {
        let Some(job) = self.jobs.remove(&op) else { return Ok(()) };
        self.watch.units[job.unit].trouble_at = Some(self.now);
        let just_before = self.rng.u8(0..4) == 0 && self.host.bus_lost.is_none() && !job.lost;
        if !job.told && just_before {
            self.act(job.unit, job.step)?;
        }
        if job.told && self.rng.u8(0..4) == 0 {
            self.note(|| format!("  {op:?} answers late"));
            let done = self.done(&job);
            return self.units_input(Some(UnitEvent::Completed { op, result: Ok(done) }));
        }
        Ok(())
    }

    fn end_job(&mut self, job: &Job, result: Result<UnitDone, Failure>) -> Check {
        self.jobs.remove(&job.op);
        let (op, unit) = (job.op, unit_name(job.unit));
        self.note(|| format!("  {op:?} {} {unit} ended: {}", step_name(job.step), outcome_name(&result)));
        if result.is_err() {
            self.watch.units[job.unit].trouble_at = Some(self.now);
        }
        self.feed_units(Some(UnitEvent::Completed { op, result }))
    }

    /// What systemd does when it is told.
    pub fn act(&mut self, index: usize, step: UnitStep) -> Check {
        let takes = self.time_of_step(index, step);
        let job = self.rng.u64(..);
        let forgotten = self.planted == Some(Planted::ContinueForgotten);
        let unit = &mut self.host.units[index];
        match step {
            UnitStep::Inspect => return Ok(()),
            UnitStep::Pause => unit.frozen = unit.running,
            UnitStep::Continue => unit.frozen &= forgotten,
            UnitStep::Stop | UnitStep::Kill => {
                unit.frozen = false;
                if unit.running && (unit.job.is_none() || step == UnitStep::Kill) {
                    unit.stopped_by_us = true;
                    unit.started_by_admin = false;
                    unit.job = Some(job);
                    self.after(takes, Happening::StopJobEnds { unit: index, job });
                }
            }
            UnitStep::Start | UnitStep::ContinueAndStart if unit.job.is_some() => {
                unit.frozen &= step == UnitStep::Start; // mode "fail": the stop job wins
            }
            UnitStep::Start | UnitStep::ContinueAndStart => {
                unit.frozen &= step == UnitStep::Start;
                let starts = !unit.running;
                if starts {
                    unit.starts();
                }
                unit.stopped_by_us = false;
                unit.started_by_admin = false;
                unit.job = None;
                let admin_stopped = unit.admin_stopped;
                if starts {
                    invariants::unit_started(self.now, unit_name(index), admin_stopped)?;
                    self.unit_changes(index);
                }
            }
        }
        self.note(|| format!("    {}: {step:?}", unit_name(index)));
        Ok(())
    }

    /// systemd says that a unit began or ceased to run, if the daemon hears it.
    pub fn unit_changes(&mut self, unit: usize) {
        let running = self.host.units[unit].running;
        let run = self.host.units[unit].run().filter(|_| running);
        if self.host.bus_lost.is_none() {
            let generation = self.generation;
            self.after(Duration::from_millis(7), Happening::UnitChanged { generation, unit, running, run });
        }
    }

    /// The daemon hears it.
    pub fn unit_changed(&mut self, unit: usize, running: bool, run: Option<RunId>) -> Check {
        if self.host.bus_lost.is_some() {
            return Ok(());
        }
        self.look_whose_to_start(unit);
        self.feed_units(Some(UnitEvent::UnitChanged { unit: unit_name(unit).to_owned(), running, run }))
    }

    /// A unit that nasmount was about to stop, or had stopped, when the administrator did, is nasmount's to start. So is one
    /// whose stop nasmount has not seen to end: which of its runs that was cannot be told.
    pub fn look_whose_to_start(&mut self, unit: usize) {
        let stopped = self.host.held.get(unit_name(unit)).filter(|memory| memory.held.is_stopped());
        let stopped = stopped.is_some_and(|memory| memory.run.is_none() || !self.host.units[unit].started_by_admin);
        let ours = stopped || self.jobs.values().any(|job| job.unit == unit);
        self.host.units[unit].admin_stopped &= !ours;
    }

    /// A stop job ends, unless it was cancelled by a start.
    pub fn stop_job_ends(&mut self, index: usize, job: u64) -> Check {
        let unit = &mut self.host.units[index];
        if unit.job == Some(job) {
            unit.running = false;
            unit.frozen = false;
            unit.job = None;
            self.unit_changes(index);
        }
        Ok(())
    }

    /// Calls on the way fail or hang.
    pub fn lose_bus(&mut self, calls_hang: bool) {
        self.host.bus_lost = Some(calls_hang);
        self.jobs.values_mut().for_each(|job| job.lost = true);
        if !calls_hang {
            self.nudge_jobs();
        }
    }

    /// What was on the way fails now; then the daemon hears that the bus is back, and what is so at present.
    pub fn find_bus(&mut self) -> Check {
        if self.host.bus_lost.take().is_none() {
            return Ok(());
        }
        self.nudge_jobs();
        self.feed_units(Some(UnitEvent::BusBack))?;
        (0..self.host.units.len()).for_each(|unit| self.unit_changes(unit));
        Ok(())
    }

    fn nudge_jobs(&mut self) {
        for op in self.jobs.keys().copied().collect::<Vec<_>>() {
            let soon = self.latency(1, 30);
            self.job_due_in(op, soon);
        }
    }
}
