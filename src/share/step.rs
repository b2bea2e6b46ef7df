//! The next step in each state: what is missing between what is and what the state promises.

use super::Share;
use super::detector::Trust;
use super::effect::Step;
use super::event::Mismatch;
use super::facts::Login;
use super::state::State;
use super::timer::Timer;

/// The first step that is missing.
fn first(steps: &[(bool, Step)]) -> Option<Step> {
    steps.iter().find(|(missing, _)| *missing).map(|(_, step)| step.clone())
}

impl Share {
    /// The next step. The order of the lines is the order of the steps.
    pub(super) fn next_step(&self) -> Option<Step> {
        let facts = &self.facts;
        if self.state == State::Maintenance {
            // a fence concerns the server's other shares, too
            return first(&[(self.is_trusted() && facts.fence_asked, Step::LiftFence)]);
        }
        if let Some(stuck) = &self.stuck {
            return self.step_while_stuck(&stuck.step);
        }
        if !facts.surveyed {
            return Some(Step::Survey);
        }
        // a barrier that cannot be laid delays nothing that does not need it
        let barrier_missing = !facts.barrier && !facts.attached && !self.timers.is_set(Timer::BarrierRetry);
        if barrier_missing && !matches!(self.state, State::Blocked | State::Stuck) {
            return Some(Step::LayBarrier);
        }
        let step = match self.state {
            State::Online | State::Suspect => self.step_while_open(),
            State::Holding => self.step_of_a_hold(),
            State::Recovering => self.step_of_a_recovery(),
            State::Mounting => self.step_of_a_mount(),
            State::Releasing => self.step_of_a_release(),
            // nothing of this share's is in flight, and somebody else's mount may be of the same server
            State::Blocked => first(&[(facts.fence_asked, Step::LiftFence)]),
            State::Offline => first(&[(self.is_trusted() && facts.fence_asked, Step::LiftFence)]),
            State::Maintenance | State::Stuck => None,
        };
        let rests = match self.state {
            State::Online | State::Suspect | State::Holding | State::Releasing | State::Offline | State::Blocked => {
                true
            }
            State::Mounting | State::Recovering | State::Maintenance | State::Stuck => false,
        };
        step.or_else(|| (rests && facts.outdated).then_some(Step::Survey))
    }

    fn is_trusted(&self) -> bool {
        self.server == Trust::Trusted
    }

    /// What is in flight ends in time behind a call that does not return, too; nothing of that touches the mount table.
    fn step_while_stuck(&self, stuck: &Step) -> Option<Step> {
        if !stuck.changes_mount_table() {
            return None; // what is stuck is the fence itself
        }
        let facts = &self.facts;
        let hands_off = self.is_trusted() || self.operator.maintenance.is_some();
        let given_up = self.outage.and_then(|outage| outage.given_up_at).filter(|_| !hands_off);
        let goes_down = self.shuts_down && matches!(self.server, Trust::Dead { .. });
        let may_abort = goes_down || given_up.is_some() && (self.consumers.to_be_stopped || self.consumers_seen_to());
        let since = given_up.unwrap_or_else(|| self.since()).max(self.since());
        first(&[
            (self.is_trusted() && facts.fence_asked, Step::LiftFence),
            (may_abort && !facts.fenced, Step::RaiseFence),
            (may_abort && !facts.aborted, Step::DestroySockets { since }),
        ])
    }

    fn step_while_open(&self) -> Option<Step> {
        let facts = &self.facts;
        let doubted = self.state == State::Suspect && !facts.verified;
        first(&[
            (self.is_trusted() && facts.fence_asked, Step::LiftFence), // an earlier daemon's
            (self.is_trusted() && (doubted || self.probe_due), Step::Verify),
            (self.is_trusted() && self.state == State::Online && facts.loss_due, Step::AskForLoss),
        ])
    }

    fn step_of_a_hold(&self) -> Option<Step> {
        let facts = &self.facts;
        let given_up = self.outage.and_then(|outage| outage.given_up_at);
        let may_abort = given_up.is_some() && self.consumers_seen_to();
        let since = given_up.unwrap_or_else(|| self.since()).max(self.since());
        first(&[
            (facts.attached, Step::Detach),
            (may_abort && !facts.fenced, Step::RaiseFence),
            (may_abort && !facts.aborted, Step::DestroySockets { since }),
            (self.is_to_flush_before_sleep(), Step::Flush),
        ])
    }

    /// The fence makes the kernel's first attempt to reconnect fail, and the next comes 3 s later. Until then every paused
    /// caller that was in flight meets its pending SIGSTOP in a wait that a signal ends, and repeats its call when it goes
    /// on. Without the fence the connection can be back first, and the call ends with EAGAIN (seen on 6.12: a reader,
    /// server killed and started anew).
    fn step_of_a_recovery(&self) -> Option<Step> {
        let facts = &self.facts;
        let trusted = self.is_trusted();
        first(&[
            (trusted && !facts.reconnected && !facts.fenced, Step::RaiseFence),
            (trusted && !facts.reconnected, Step::DestroySockets { since: self.stale_before }),
            (facts.fence_asked && (facts.reconnected || !trusted), Step::LiftFence),
            (trusted && facts.login == Login::Doubted, Step::TryLogin),
            (trusted && !facts.verified, Step::Verify),
            (trusted && facts.verified && facts.loss_due, Step::AskForLoss),
            (facts.verified && !facts.attached, Step::Attach),
        ])
    }

    fn step_of_a_mount(&self) -> Option<Step> {
        let facts = &self.facts;
        first(&[
            (facts.fence_asked, Step::LiftFence),
            (self.is_trusted() && !facts.clone, Step::Mount),
            (facts.clone && !facts.attached, Step::Attach),
        ])
    }

    /// An operator's unmount loses nothing: consumers are stopped while the share is still there, and what is unwritten is
    /// written back. If the server goes away meanwhile it becomes a release like any other. So does that of a mount at an
    /// address that the server has left, once what could be written back was: nobody may be there to say goodbye to. A host that goes
    /// down has no time for more than giving up. A server of which nothing is known, as when the host has just woken, is waited for.
    fn step_of_a_release(&self) -> Option<Step> {
        let facts = &self.facts;
        let said_goodbye = facts.mismatch == Some(Mismatch::Address) && facts.flushed;
        let unknown = self.server == Trust::Unknown;
        let in_order = self.operator.unmounts && (self.is_trusted() || unknown) && !facts.fence_asked && !said_goodbye;
        let may_go = self.consumers_let_release();
        if in_order {
            return first(&[
                (facts.attached && may_go, Step::Detach),
                (facts.clone && may_go && !facts.flushed && !unknown, Step::Flush),
                (facts.clone && may_go && self.shuts_down && !unknown, Step::DropClone),
                (facts.clone && may_go && !unknown, Step::Release),
            ]);
        }
        first(&[
            (facts.attached, Step::Detach),
            (facts.clone && self.shuts_down && !facts.shut_down, Step::ShutDown),
            (!facts.fenced, Step::RaiseFence),
            // not before: in a hold, a call that waits when its caller is paused is repeated, and one that is refused fails
            (facts.clone && !facts.sunk, Step::RaiseSinkhole),
            (!facts.aborted, Step::DestroySockets { since: self.since() }),
            // as late as that because consumers write while they are being stopped
            (facts.clone && may_go && facts.loss_due && !self.shuts_down, Step::AskForLoss),
            (facts.clone && may_go, Step::Release),
        ])
    }
}
