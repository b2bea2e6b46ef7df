//! What an operator can ask for, and what may be answered: done, already so, or refused with a reason that reaches JSON
//! unchanged.

use serde::{Deserialize, Serialize};

use super::state::State;
use super::time::BootInstant;

/// A wish of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Mount it, and keep it mounted; also tries again what is blocked.
    Mount,
    /// Stop its consumers, write back what is unwritten, unmount it, and leave it so.
    Unmount,
    /// The same, because it is no longer configured: that is nobody's wish that would have to be remembered.
    Retire,
    /// Unmount and mount it again, with the options of the present configuration.
    Remount,
    /// Hands off: watch, change nothing.
    StartMaintenance(Maintenance),
    /// Hands on again.
    EndMaintenance,
    /// Hold its consumers as in an outage.
    Hold,
    /// Undo `Hold`.
    Release,
}

impl Command {
    /// Its name in logs and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Unmount => "unmount",
            Self::Retire => "reload",
            Self::Remount => "remount",
            Self::StartMaintenance(_) => "maintenance on",
            Self::EndMaintenance => "maintenance off",
            Self::Hold => "hold",
            Self::Release => "release",
        }
    }
}

/// How long hands are kept off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Until then; `None` until it is ended.
    pub until: Option<BootInstant>,
}

/// Whether the operator wants a share mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// As the configuration says.
    #[default]
    Mounted,
    /// He unmounted it: it stays so until `nasmount mount`.
    Unmounted,
    /// He unmounted it with umount(8) or `systemctl stop`: also the start of its `.mount` unit mounts it again, as it would a line of
    /// fstab.
    TakenOff,
}

impl Wanted {
    /// Whether it is to be mounted.
    pub fn is_mounted(self) -> bool {
        self == Self::Mounted
    }
}

/// Why consumers are held. They are released when the set of reasons is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// The share is away.
    Outage,
    /// `nasmount hold`.
    Operator,
}

/// The answer to a command that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is being done.
    Accepted,
    /// There is nothing to be done.
    AlreadySo,
}

/// Why a command is not carried out. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "refusal")]
pub enum Refusal {
    /// What is in place on the host is not known yet.
    #[error("nasmount has just started and is still looking what is in place")]
    NotSurveyed,
    /// The host goes down.
    #[error("the host goes down")]
    Shutdown,
    /// Hands are off.
    #[error("the share is in maintenance")]
    InMaintenance,
    /// A kernel call outlived its deadline.
    #[error("the operation '{operation}' does not return")]
    Stuck {
        /// Its name.
        operation: String,
    },
    /// The server does not answer.
    #[error("the server is away; the share is {state} and comes back by itself when the server does")]
    ServerAway {
        /// The share's state.
        state: State,
    },
    /// Only the outage holds the consumers.
    #[error("the consumers are held because the share is {state}; they go on when it is back")]
    HeldByOutage {
        /// The share's state.
        state: State,
    },
}

impl Refusal {
    /// What to do instead.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotSurveyed => "try again in a moment",
            Self::Shutdown => "the next boot mounts what is configured",
            Self::InMaintenance => "`nasmount maintenance off SHARE` first",
            Self::Stuck { .. } => "it ends when the server answers again; if it never does, only a reboot helps",
            Self::ServerAway { .. } => "`nasmount status` says since when; `nasmount unmount SHARE` gives it up",
            Self::HeldByOutage { .. } => "`systemctl kill -s CONT UNIT` lets one go on regardless, and it meets errors",
        }
    }
}
