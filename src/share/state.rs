//! The states of a share, each with the promise it makes, and why it was entered.

use serde::{Deserialize, Serialize};

use super::detector::Verdict;
use super::event::Mismatch;
use super::failure::{Failure, FailureClass};

/// State of a share. The first sentence of each is what anybody on the host may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The share answered an uncached request within the last probe interval and 20 s; consumers run or are being let go.
    Online,
    /// A probe failed, or nasmount has just started; nothing has been done yet that anyone could notice. The share is on
    /// the path and consumers are as they were.
    Suspect,
    /// The server is away or the host is about to sleep, the mount and all open files are kept, consumers are held, and new accesses to the path fail at once, or wait as `on_access` says.
    /// Nothing in flight fails before the patience is over; after it, what is in flight ends within 12 s.
    Holding,
    /// The hold is over, or an operator unmounts: consumers are being stopped and the mount is being given up. The path fails at once. Of
    /// a server that does not answer, what is in flight ends within 12 s, and as a rule within one.
    Releasing,
    /// Not mounted; every access to the path fails at once and nothing can be written underneath. Consumers that nasmount
    /// stopped wait for the return.
    Offline,
    /// A mount is in flight; the path fails at once, consumers still wait.
    Mounting,
    /// The server is back and the kept mount is being verified; the path fails at once, consumers still wait.
    Recovering,
    /// A person is needed; the reason and the next step are in `status`. The path fails at once, unless somebody else's mount lies on
    /// it. Nothing is tried again by itself until that mount is gone, the server is itself again, or it has the share, which is looked
    /// for each minute.
    Blocked,
    /// The operator said hands off: nasmount watches and changes nothing, until it is told otherwise or the time is over.
    Maintenance,
    /// A kernel call outlived its deadline; nothing that touches the mount table is started until it returns.
    Stuck,
}

impl State {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::Online,
        Self::Suspect,
        Self::Holding,
        Self::Releasing,
        Self::Offline,
        Self::Mounting,
        Self::Recovering,
        Self::Blocked,
        Self::Maintenance,
        Self::Stuck,
    ];

    /// Its name, as in `status` and in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Holding => "holding",
            Self::Releasing => "releasing",
            Self::Offline => "offline",
            Self::Mounting => "mounting",
            Self::Recovering => "recovering",
            Self::Blocked => "blocked",
            Self::Maintenance => "maintenance",
            Self::Stuck => "stuck",
        }
    }

    /// The promise of the state: the first sentence of its documentation, word for word (`tests/docs.rs` compares them).
    pub fn promise(self) -> &'static str {
        match self {
            Self::Online => {
                "The share answered an uncached request within the last probe interval and 20 s; consumers run or are being let go."
            }
            Self::Suspect => {
                "A probe failed, or nasmount has just started; nothing has been done yet that anyone could notice."
            }
            Self::Holding => {
                "The server is away or the host is about to sleep, the mount and all open files are kept, consumers are held, and new accesses to the path fail at once, or wait as `on_access` says."
            }
            Self::Releasing => {
                "The hold is over, or an operator unmounts: consumers are being stopped and the mount is being given up."
            }
            Self::Offline => {
                "Not mounted; every access to the path fails at once and nothing can be written underneath."
            }
            Self::Mounting => "A mount is in flight; the path fails at once, consumers still wait.",
            Self::Recovering => {
                "The server is back and the kept mount is being verified; the path fails at once, consumers still wait."
            }
            Self::Blocked => "A person is needed; the reason and the next step are in `status`.",
            Self::Maintenance => {
                "The operator said hands off: nasmount watches and changes nothing, until it is told otherwise or the time is over."
            }
            Self::Stuck => {
                "A kernel call outlived its deadline; nothing that touches the mount table is started until it returns."
            }
        }
    }

    /// The states that may follow. The simulation sees each of these transitions, and no other; the README's diagram shows them.
    pub fn may_become(self) -> &'static [Self] {
        match self {
            Self::Online => &[Self::Suspect, Self::Holding, Self::Releasing, Self::Blocked, Self::Maintenance],
            Self::Suspect => &[
                Self::Online,
                Self::Holding,
                Self::Releasing,
                Self::Offline,
                Self::Recovering,
                Self::Blocked,
                Self::Maintenance,
                Self::Stuck,
            ],
            Self::Holding => &[Self::Releasing, Self::Recovering, Self::Blocked, Self::Maintenance, Self::Stuck],
            Self::Releasing => &[Self::Offline, Self::Blocked, Self::Maintenance, Self::Stuck],
            Self::Offline => {
                &[Self::Mounting, Self::Holding, Self::Releasing, Self::Blocked, Self::Maintenance, Self::Stuck]
            }
            Self::Mounting => &[
                Self::Online,
                Self::Suspect,
                Self::Holding,
                Self::Releasing,
                Self::Offline,
                Self::Blocked,
                Self::Maintenance,
                Self::Stuck,
            ],
            Self::Recovering => &[
                Self::Online,
                Self::Suspect,
                Self::Holding,
                Self::Releasing,
                Self::Blocked,
                Self::Maintenance,
                Self::Stuck,
            ],
            Self::Blocked => {
                &[Self::Suspect, Self::Holding, Self::Releasing, Self::Offline, Self::Maintenance, Self::Stuck]
            }
            Self::Maintenance => &[Self::Suspect, Self::Stuck],
            Self::Stuck => {
                &[Self::Suspect, Self::Holding, Self::Releasing, Self::Offline, Self::Blocked, Self::Maintenance]
            }
        }
    }

    /// Is there a mount in this state that is meant to stay?
    pub(super) fn keeps_a_mount(self) -> bool {
        matches!(self, Self::Online | Self::Suspect | Self::Holding | Self::Recovering)
    }

    /// May the share be on the path in this state, at rest?
    pub fn is_open(self) -> bool {
        matches!(self, Self::Online | Self::Suspect)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a state was entered; travels unchanged to `status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// The daemon has just started and found this.
    Started,
    /// The share answers.
    Answers,
    /// The server has not answered since the daemon started.
    ServerNotSeen,
    /// A probe failed.
    ProbeFailed {
        /// What it said.
        verdict: Verdict,
    },
    /// Enough probes failed.
    ServerDead {
        /// What the last one said.
        verdict: Verdict,
    },
    /// The server answers, but the share did not answer an uncached request.
    ShareSilent {
        /// What was attempted and how it failed.
        message: String,
    },
    /// The server answers again.
    ServerBack,
    /// The hold lasted as long as configured.
    HoldOver,
    /// The kept mount could not be brought back although the server answers.
    NotHealed {
        /// What was attempted and how it failed.
        message: String,
    },
    /// An operation failed; `blocked` if a person is needed, else it is tried again.
    OperationFailed {
        /// How.
        failure: Failure,
    },
    /// Somebody else's mount lies on the mount point.
    ForeignMount {
        /// Its source.
        source: String,
    },
    /// An operator asked for it.
    Asked {
        /// Name of the command.
        command: String,
    },
    /// The host goes down.
    Shutdown,
    /// The host is about to sleep.
    Sleep,
    /// Another machine answers at the server's address.
    ServerChanged,
    /// Somebody took the share off the mount point: umount(8), `systemctl stop`.
    TakenOff,
    /// The kept mount is gone.
    CloneLost,
    /// The kept mount is not, or no longer, what is configured.
    Mismatch {
        /// In what it differs.
        mismatch: Mismatch,
    },
    /// An operation outlived its deadline.
    OperationStuck {
        /// Its name.
        operation: String,
    },
}

impl Reason {
    /// The class of the failure that it is, if it is one.
    pub(super) fn failure_class(&self) -> Option<FailureClass> {
        if let Self::OperationFailed { failure } = self { Some(failure.class) } else { None }
    }

    /// What a person can do about it, if anything.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::OperationFailed { failure } => failure.hint.as_deref(),
            Self::ForeignMount { .. } => Some("take the line out of /etc/fstab, and unmount it"),
            Self::ServerChanged => Some(
                "if it is the same server all the same (installed anew, for example): `nasmount trust SERVER`; else correct its `host`",
            ),
            Self::TakenOff => Some("`nasmount mount SHARE` mounts it again"),
            Self::OperationStuck { .. } => {
                Some("it ends by itself when the server answers again; if that never happens, only a reboot helps")
            }
            Self::Started
            | Self::Answers
            | Self::ServerNotSeen
            | Self::ProbeFailed { .. }
            | Self::ServerDead { .. }
            | Self::ShareSilent { .. }
            | Self::ServerBack
            | Self::HoldOver
            | Self::NotHealed { .. }
            | Self::Asked { .. }
            | Self::Shutdown
            | Self::Sleep
            | Self::CloneLost
            | Self::Mismatch { .. } => None,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started => f.write_str("nasmount started"),
            Self::Answers => f.write_str("the share answers"),
            Self::ServerNotSeen => f.write_str("the server has not answered yet"),
            Self::ProbeFailed { verdict } | Self::ServerDead { verdict } => write!(f, "the server {verdict}"),
            Self::ShareSilent { message } => write!(f, "the server answers, the share does not: {message}"),
            Self::ServerBack => f.write_str("the server answers again"),
            Self::HoldOver => f.write_str("the hold is over"),
            Self::NotHealed { message } => write!(f, "the kept mount did not come back: {message}"),
            Self::OperationFailed { failure } => write!(f, "{failure}"),
            Self::ServerChanged => f.write_str("another machine answers at the server's address"),
            Self::ForeignMount { source } => write!(f, "{source} is mounted there by somebody else"),
            Self::Asked { command } => write!(f, "an operator asked for it: {command}"),
            Self::Shutdown => f.write_str("the host goes down"),
            Self::Sleep => f.write_str("the host is about to sleep, or has just woken"),
            Self::TakenOff => f.write_str("somebody unmounted it"),
            Self::CloneLost => f.write_str("the kept mount is gone"),
            Self::Mismatch { mismatch: Mismatch::Source } => f.write_str("another source is configured"),
            Self::Mismatch { mismatch: Mismatch::Address } => f.write_str("the server has another address"),
            Self::OperationStuck { operation } => write!(f, "the operation '{operation}' does not return"),
        }
    }
}
