//! Operations of shares in flight: how long each takes, whether it can be killed, and when it does what it was asked.

use std::time::Duration;

use nasmount::share::effect::OpId;
use nasmount::share::event::Done;
use nasmount::share::failure::{Failure, FailureClass};
use nasmount::share::{BootInstant, Event, Input, State, Step};

use crate::host::{Outcome, failed};
use crate::invariants::{self, Check};
use crate::planted::Planted;
use crate::schedule::{ServerIs, share_name};
use crate::world::{Happening, World};

/// An operation that has not ended.
#[derive(Clone, Debug)]
pub struct Worker {
    pub share: usize,
    pub op: OpId,
    pub step: Step,
    /// The daemon no longer waits for it, or only because it must.
    pub killed: bool,
    /// A mount that waits for another one.
    pub queued: bool,
    started: BootInstant,
    /// SIGKILL ends it: not in D state.
    killable: bool,
    hangs_for: Duration,
    hangs_until: BootInstant,
    fails: Option<FailureClass>,
    /// It waits for the world to change.
    waiting: bool,
}

impl World {
    /// Starts what an effect asks for.
    pub fn start_worker(&mut self, share: usize, op: OpId, step: Step) -> Check {
        invariants::at_start(self, share, &step)?;
        let (hangs_for, killable) = self.hang_of(step.name());
        let fails = self.failure_of(step.name());
        let worker = Worker {
            share,
            op,
            killed: false,
            queued: false,
            started: self.now,
            killable,
            hangs_for,
            hangs_until: self.now,
            fails,
            waiting: false,
            step,
        };
        if worker.step.mounts() && self.planted == Some(Planted::MountStartedTwice) {
            let twin = OpId(op.0 + 1_000_000);
            self.workers.insert((share, twin), Worker { op: twin, ..worker.clone() });
        }
        self.workers.insert((share, op), worker);
        let others = self
            .workers
            .values()
            .any(|other| other.step.mounts() && !other.queued && (other.share, other.op) != (share, op));
        let is_mount = self.workers.get(&(share, op)).is_some_and(|worker| worker.step.mounts());
        if is_mount && others && !self.mounts_at_once() {
            if let Some(worker) = self.workers.get_mut(&(share, op)) {
                worker.queued = true;
            }
            self.mount_queue.push_back((share, op));
            return Ok(());
        }
        self.dispatch(share, op)
    }

    /// How long the next operation of this name hangs, and whether it can be killed.
    pub fn hang_of(&mut self, name: &str) -> (Duration, bool) {
        let Some(index) = self.hang_next.iter().position(|(operation, ..)| operation == name) else {
            return (Duration::ZERO, true);
        };
        let (_, for_ms, killable) = self.hang_next.remove(index);
        self.count("next hangs", 0, 1);
        (Duration::from_millis(for_ms), killable)
    }

    /// How the next operation of this name fails.
    pub fn failure_of(&mut self, name: &str) -> Option<FailureClass> {
        let index = self.fail_next.iter().position(|(operation, ..)| operation == name)?;
        let (_, class, times) = &mut self.fail_next[index];
        let class = *class;
        *times -= 1;
        if *times == 0 {
            self.fail_next.remove(index);
            self.count("next fails", 0, 1);
        }
        Some(class)
    }

    /// A worker begins.
    fn dispatch(&mut self, share: usize, op: OpId) -> Check {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&(share, op)) else { return Ok(()) };
        worker.queued = false;
        worker.started = now;
        worker.hangs_until = now + worker.hangs_for;
        let worker = worker.clone();
        invariants::one_mount_on_the_host(self)?;
        let took = self.time_of(&worker);
        self.due(&worker, took, false);
        Ok(())
    }

    fn due(&mut self, worker: &Worker, after: Duration, last: bool) {
        let generation = self.generation;
        self.after(after, Happening::WorkerDue { generation, share: worker.share, op: worker.op, last });
    }

    fn time_of(&mut self, worker: &Worker) -> Duration {
        let server = self.setup.shares[worker.share].server;
        let slow = self.host.servers[server].is == ServerIs::Slow;
        let usual = match &worker.step {
            Step::Mount | Step::TryLogin if slow => self.latency(2_000, 12_000),
            Step::Mount | Step::TryLogin => self.latency(50, 400),
            Step::Verify | Step::Flush | Step::AskForLoss if slow => self.latency(1_000, 12_000),
            _ if self.rng.u8(0..20) == 0 => self.latency(100, 2_000),
            Step::Flush => self.latency(1, 800),
            Step::Survey
            | Step::LayBarrier
            | Step::Verify
            | Step::Attach
            | Step::Detach
            | Step::RaiseFence
            | Step::RaiseSinkhole
            | Step::LiftFence
            | Step::DestroySockets { .. }
            | Step::AskForLoss
            | Step::ShutDown
            | Step::Release
            | Step::DropClone => self.latency(1, 30),
        };
        usual.max(worker.hangs_for)
    }

    /// SIGKILL to a worker. It ends soon, or not before what it hangs in does.
    pub fn abandon_worker(&mut self, share: usize, op: OpId) -> Check {
        let Some(worker) = self.workers.get_mut(&(share, op)) else { return Ok(()) };
        worker.killed = true;
        let worker = worker.clone();
        self.watch.shares[share].abandoned(self.now, &worker.step);
        if worker.queued {
            // not begun: there is nothing to be killed
            self.mount_queue.retain(|queued| *queued != (share, op));
        }
        if worker.killable || worker.queued {
            let soon = self.latency(1, 20);
            self.due(&worker, soon, false);
        }
        Ok(())
    }

    /// What waited for the world looks again.
    pub fn nudge_waiting(&mut self) {
        let waiting: Vec<Worker> = self.workers.values().filter(|worker| worker.waiting).cloned().collect();
        for worker in waiting {
            let soon = self.latency(1, 30);
            self.due(&worker, soon, false);
        }
    }

    /// A worker may have ended. `last`: the kernel's own patience with the server is over.
    pub fn worker_due(&mut self, share: usize, op: OpId, last: bool) -> Check {
        let Some(worker) = self.workers.get(&(share, op)).cloned() else { return Ok(()) };
        let dies = worker.killed && worker.killable;
        if worker.queued {
            let Outcome::Ends(result) = failed(FailureClass::Transient, "killed") else { return Ok(()) };
            return if worker.killed { self.end_worker(&worker, result) } else { Ok(()) };
        }
        if worker.hangs_until > self.now && !dies {
            self.due(&worker, worker.hangs_until.since(self.now), last);
            return Ok(());
        }
        let outcome = if dies {
            self.die(&worker)
        } else if let Some(class) = worker.fails {
            failed(class, "planned to fail")
        } else if last {
            failed(FailureClass::Transient, "host is down")
        } else {
            self.perform(&worker)
        };
        match outcome {
            Outcome::Ends(result) => self.end_worker(&worker, result),
            Outcome::Waits => {
                self.wait(&worker);
                Ok(())
            }
        }
    }

    /// Killed in time, most often: then nothing was done.
    fn die(&mut self, worker: &Worker) -> Outcome {
        let too_late = self.rng.u8(0..4) == 0;
        if too_late && let Outcome::Ends(result) = self.perform(worker) {
            // or between its last call and its reply
            return if self.rng.bool() { Outcome::Ends(result) } else { failed(FailureClass::Transient, "killed") };
        }
        failed(FailureClass::Transient, "killed")
    }

    fn perform(&mut self, worker: &Worker) -> Outcome {
        match (self.planted, &worker.step) {
            (Some(Planted::FenceNotLifted), Step::LiftFence) => return Outcome::Ends(Ok(Done::Plainly)),
            (Some(Planted::DetachForgotten), Step::Detach) => return Outcome::Ends(Ok(Done::Plainly)),
            _ => {}
        }
        let outcome = self.host.perform(worker.share, &worker.step, worker.started);
        let given_up = self.state_of(worker.share) != Some(State::Recovering);
        if matches!(worker.step, Step::DestroySockets { .. }) && given_up {
            let place = &mut self.host.shares[worker.share];
            place.lost |= place.clone;
        }
        if matches!(worker.step, Step::RaiseFence | Step::LiftFence | Step::DestroySockets { .. }) {
            self.nudge_waiting();
        }
        if matches!(worker.step, Step::Attach | Step::Detach | Step::Mount | Step::LayBarrier) {
            self.mount_table_changed(worker.share);
        }
        outcome
    }

    /// The daemon learns of it in a moment, if there is one.
    pub fn mount_table_changed(&mut self, share: usize) {
        let generation = self.generation;
        let soon = self.latency(1, 20);
        self.after(soon, Happening::MountTableChanged { generation, share });
    }

    fn wait(&mut self, worker: &Worker) {
        let in_d_state = self.rng.u8(0..5) == 0;
        let impatient = self.rng.bool();
        let Some(waiting) = self.workers.get_mut(&(worker.share, worker.op)) else { return };
        if std::mem::replace(&mut waiting.waiting, true) {
            return;
        }
        waiting.killable &= !in_d_state;
        // mounts are soft: one day the kernel gives up by itself
        let patience = if impatient { self.latency(5_000, 60_000) } else { self.latency(200_000, 400_000) };
        self.due(worker, patience, true);
    }

    fn end_worker(&mut self, worker: &Worker, result: Result<Done, Failure>) -> Check {
        let share = worker.share;
        self.workers.remove(&(share, worker.op));
        if worker.step.mounts()
            && !worker.queued
            && let Some((share, op)) = self.mount_queue.pop_front()
        {
            self.dispatch(share, op)?;
        }
        let silent = worker.killed && !worker.step.must_return() && self.rng.bool();
        if silent {
            return Ok(());
        }
        self.note(|| {
            let (name, step) = (share_name(share), worker.step.name());
            format!("  {name}: {:?} {step} ended: {}", worker.op, outcome_name(&result))
        });
        self.watch.shares[share].ended(self.now, worker, &result);
        let op = match self.planted {
            Some(Planted::LateAnswersBelieved) => {
                self.daemon.as_ref().and_then(|daemon| daemon.shares[share].operation()).map_or(worker.op, |(op, _)| op)
            }
            _ => worker.op,
        };
        self.feed(share, Some(Input::Event(Event::Completed { op, result })))
    }

    /// The daemon is gone; the operation ends all the same.
    pub fn end_unseen(&mut self, worker: &Worker) {
        self.note(|| format!("  {}: {} ends unseen", share_name(worker.share), worker.step.name()));
        let _ = self.perform(worker);
    }
}

/// How an operation ended, for the trace.
pub fn outcome_name<T: std::fmt::Debug>(result: &Result<T, Failure>) -> String {
    match result {
        Ok(done) => format!("{done:?}"),
        Err(failure) => format!("{:?}: {failure}", failure.class),
    }
}

impl World {
    fn mounts_at_once(&self) -> bool {
        matches!(self.planted, Some(Planted::MountStartedTwice | Planted::SecondMountOnTheHost))
    }
}
