//! What a share can ask for: wishes, in the imperative. Each names the operation whose completion will answer it.

use serde::{Deserialize, Serialize};

use super::time::BootInstant;

/// Identity of one operation of one share; never used twice by one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// A wish. Unless its doc says otherwise the answer is `Done::Plainly`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Start an operation.
    Start {
        /// Its id.
        op: OpId,
        /// What is to be done.
        step: Step,
    },
    /// End the worker of an operation that nobody waits for any more (SIGKILL); its completion may still come.
    Abandon {
        /// Its id.
        op: OpId,
    },
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Look what is in place on the host; answered by `Done::Survey`.
    Survey,
    /// Put the barrier on the mount point, or find it there.
    LayBarrier,
    /// Mount the share detached, verify it and pin it as the clone. Does not touch the path.
    Mount,
    /// Ask the server through the clone (uncached statfs).
    Verify,
    /// Mount the share on the side, which asks once whether the server lets this login in, and let go of it again.
    TryLogin,
    /// Put the clone on the path, above the barrier.
    Attach,
    /// Take the share off the path (MNT_DETACH); the clone stays.
    Detach,
    /// Let this host reject what it sends to the server's port 445, except probes.
    RaiseFence,
    /// Have each login refused of what the kernel still tries for this share, so that what is in flight ends at once, and not 10 s after
    /// the sockets are destroyed. Undone by `LiftFence`, and by `Release` and `DropClone` if nobody has a file open.
    RaiseSinkhole,
    /// Undo `RaiseFence`.
    LiftFence,
    /// Destroy the kernel's CIFS sockets to the server.
    DestroySockets {
        /// Sockets of the server destroyed since this instant by another share need not be destroyed again.
        since: BootInstant,
    },
    /// Write back what is unwritten (syncfs through the clone), before an unmount that an operator asked for, or the sleep of the host.
    Flush,
    /// Ask whether unwritten data was thrown away; answered by `Done::Loss`, also late. Writes back what is left (syncfs), so it is
    /// no question for an outage that may end well.
    AskForLoss,
    /// Shut the file system down (CIFS_IOC_SHUTDOWN): what is unwritten fails as soon as the sockets are destroyed, and not 10 s later
    /// (measured on 6.12).
    ShutDown,
    /// Shut the file system down and drop the clone.
    Release,
    /// Drop the clone alone: whoever still has files open, in a container's copy perhaps, keeps them.
    DropClone,
}

impl Step {
    /// Must it have returned before anything else is started on its lane? True of what a late effect would undo: the mount
    /// table, the fence and the sinkhole.
    pub fn must_return(&self) -> bool {
        self.changes_mount_table() || matches!(self, Self::RaiseFence | Self::RaiseSinkhole | Self::LiftFence)
    }

    /// Does it change the host's mount table? Then nothing else of the share may until it has ended.
    pub fn changes_mount_table(&self) -> bool {
        matches!(self, Self::LayBarrier | Self::Attach | Self::Detach | Self::Release | Self::DropClone)
            || self.mounts()
    }

    /// Does it take the kernel's one mount mutex for as long as the server likes?
    pub fn mounts(&self) -> bool {
        matches!(self, Self::Mount | Self::TryLogin)
    }

    /// Its name in logs and in `status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Survey => "survey",
            Self::LayBarrier => "lay barrier",
            Self::Mount => "mount",
            Self::Verify => "verify",
            Self::TryLogin => "try login",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::RaiseFence => "raise fence",
            Self::RaiseSinkhole => "raise sinkhole",
            Self::LiftFence => "lift fence",
            Self::DestroySockets { .. } => "destroy sockets",
            Self::Flush => "flush",
            Self::AskForLoss => "ask for loss",
            Self::ShutDown => "shut down",
            Self::Release => "release",
            Self::DropClone => "drop clone",
        }
    }
}
