//! Which state follows from what is known.

use super::Share;
use super::consumers::Progress;
use super::detector::{self, Trust};
use super::facts::Login;
use super::failure::FailureClass;
use super::state::{Reason, State};
use super::timer::Timer;

impl Share {
    /// The state that follows from what is known, if it is another one.
    pub(super) fn transition(&self) -> Option<(State, Reason)> {
        let facts = &self.facts;
        let trusted = self.server == Trust::Trusted;
        let stranger = self.server == Trust::Dead { verdict: detector::Verdict::Stranger };
        let dead = self.server_dead();
        if !facts.surveyed {
            return None;
        }
        let idle = self.pending.is_none();
        if let Some(mismatch) = facts.mismatch.filter(|_| trusted && idle && self.state.keeps_a_mount()) {
            return Some((State::Releasing, Reason::Mismatch { mismatch }));
        }
        if let Some(next) = self.transition_of_a_shutdown().or_else(|| self.transition_of_a_sleep()) {
            return Some(next);
        }
        match self.state {
            State::Offline if trusted && idle && facts.barrier && self.may_mount() => {
                Some((State::Mounting, Reason::ServerBack))
            }
            State::Offline if stranger && idle && self.operator.wanted.is_mounted() => {
                Some((State::Blocked, Reason::ServerChanged))
            }
            State::Blocked if trusted && self.reason == Reason::ServerChanged => {
                Some((State::Offline, Reason::ServerBack))
            }
            State::Mounting | State::Recovering if facts.attached && idle => Some(match self.server {
                _ if facts.verified => (State::Online, Reason::Answers),
                Trust::Suspect { verdict } => (State::Suspect, Reason::ProbeFailed { verdict }),
                Trust::Dead { .. } | Trust::Unknown | Trust::Trusted => (State::Suspect, Reason::ServerBack),
            }),
            State::Mounting if idle && facts.clone => dead.map(|reason| (State::Holding, reason)),
            State::Mounting if idle => dead.map(|reason| (State::Offline, reason)),
            State::Online | State::Suspect if !facts.clone && idle => Some((State::Releasing, Reason::CloneLost)),
            State::Suspect if trusted && !facts.attached && idle => Some((State::Recovering, Reason::TakenOff)),
            State::Suspect if trusted && facts.verified => Some((State::Online, Reason::Answers)),
            State::Suspect => dead.map(|reason| (State::Holding, reason)),
            State::Online => match self.server {
                Trust::Suspect { verdict } => Some((State::Suspect, Reason::ProbeFailed { verdict })),
                // nasmount does not take an online share off its path
                Trust::Trusted if !facts.attached && idle => Some((State::Releasing, Reason::TakenOff)),
                Trust::Dead { .. } | Trust::Unknown | Trust::Trusted => dead.map(|reason| (State::Holding, reason)),
            },
            State::Holding if !facts.clone && idle => Some((State::Releasing, Reason::CloneLost)),
            // a person is needed for a stranger
            State::Holding if dead.is_some() && stranger != (self.reason == Reason::ServerChanged) => {
                let reason = if stranger { Some(Reason::ServerChanged) } else { dead };
                reason.map(|reason| (State::Holding, reason))
            }
            State::Holding if trusted && idle && self.consumers_seen_to() && !facts.attached && !self.sleeps => {
                let is_silent = matches!(self.reason, Reason::ShareSilent { .. });
                Some((State::Recovering, if is_silent { self.reason.clone() } else { Reason::ServerBack }))
            }
            State::Recovering => dead.map(|reason| (State::Holding, reason)),
            State::Releasing if idle && self.consumers_let_release() && !facts.clone && !facts.attached => {
                let login = self.reason.failure_class() == Some(FailureClass::Credentials);
                let refused = login && self.operator.wanted.is_mounted();
                Some((if refused { State::Blocked } else { State::Offline }, self.reason.clone()))
            }
            State::Offline
            | State::Mounting
            | State::Holding
            | State::Releasing
            | State::Blocked
            | State::Maintenance
            | State::Stuck => None,
        }
    }

    pub(super) fn server_dead(&self) -> Option<Reason> {
        match self.server {
            Trust::Dead { verdict } => Some(Reason::ServerDead { verdict }),
            Trust::Unknown | Trust::Trusted | Trust::Suspect { .. } => None,
        }
    }

    /// systemd stops those who use a share and then unmounts it, in its order, as it would a line of fstab: as long as the server
    /// answers, that is waited for. A mount of a dead server must be gone before the host's last sync(), which would wait for it.
    fn transition_of_a_shutdown(&self) -> Option<(State, Reason)> {
        if !self.shuts_down {
            return None;
        }
        let facts = &self.facts;
        let idle = self.pending.is_none();
        let goes = match self.state {
            State::Mounting if idle && !facts.clone => return Some((State::Offline, Reason::Shutdown)),
            State::Online | State::Suspect | State::Holding | State::Recovering
                if matches!(self.server, Trust::Dead { .. }) =>
            {
                true
            }
            State::Online => !facts.attached && idle && facts.verified,
            State::Recovering => idle && (facts.verified || facts.login == Login::Doubted),
            State::Mounting => idle,
            State::Suspect
            | State::Holding
            | State::Releasing
            | State::Offline
            | State::Blocked
            | State::Maintenance
            | State::Stuck => false,
        };
        goes.then_some((State::Releasing, Reason::Shutdown))
    }

    fn may_mount(&self) -> bool {
        let waits = [Timer::Retry, Timer::Remount].iter().any(|timer| self.timers.is_set(*timer));
        // a mount that seemed to fail may be there
        self.operator.wanted.is_mounted() && !self.shuts_down && !self.sleeps && !waits && !self.facts.outdated
    }

    /// A bus that is away, or a stop job that takes long, keeps no share from coming back or from being given up.
    pub(super) fn consumers_seen_to(&self) -> bool {
        self.consumers.progress != Progress::Busy || self.consumers.waited
    }

    /// What could not be stopped is given some time more before the share is released from under it.
    pub(super) fn consumers_let_release(&self) -> bool {
        if self.shuts_down {
            return true; // they are systemd's to stop, and may need this to be able to end
        }
        match self.consumers.progress {
            Progress::Settled => true,
            Progress::Attempted => self.consumers.waited,
            Progress::Busy => false,
        }
    }
}
