//! What a share believes: what is in place, what is in flight, what is demanded and asked for.

use serde::{Deserialize, Serialize};

use super::command::{Maintenance, Wanted};
use super::consumers::{Demand, Progress};
use super::effect::{OpId, Step};
use super::event::Mismatch;
use super::state::Reason;
use super::time::BootInstant;

/// The operation in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) op: OpId,
    pub(super) step: Step,
    /// Its worker was told to end; the completion is still awaited because it may have changed the mount table.
    pub(super) abandoned: bool,
}

/// Whether the server still lets the login in, as far as a recovery has to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Login {
    /// Nothing speaks against it.
    #[default]
    Believed,
    /// The connection came back and the session did not.
    Doubted,
    /// It was tried, and whatever came of it is known.
    Tried,
}

/// What is believed to be in place on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The rest is known, not assumed.
    pub(super) surveyed: bool,
    /// The mount table changed since then.
    pub(super) outdated: bool,
    /// The barrier lies on the mount point.
    pub(super) barrier: bool,
    /// The clone is pinned.
    pub(super) clone: bool,
    /// In what the clone differs from what is configured.
    pub(super) mismatch: Option<Mismatch>,
    /// The share lies on the path, above the barrier.
    pub(super) attached: bool,
    /// A fence was asked for and has not been lifted: there may be one.
    pub(super) fence_asked: bool,
    /// The fence is up for certain.
    pub(super) fenced: bool,
    /// Logins are refused in the server's place.
    #[serde(default)]
    pub(super) sunk: bool,
    /// The sockets were destroyed since the fence rose.
    pub(super) aborted: bool,
    /// The sockets were destroyed since the server came back.
    pub(super) reconnected: bool,
    /// The server has closed a connection since the share last answered.
    pub(super) closed: bool,
    /// The share has answered since it was last doubted.
    pub(super) verified: bool,
    /// The login, since the server came back.
    pub(super) login: Login,
    /// The file system was shut down, or that was tried.
    #[serde(default)]
    pub(super) shut_down: bool,
    /// What was unwritten was written back, or that was tried.
    pub(super) flushed: bool,
    /// What was in flight was given up, and nobody has asked yet whether data was lost.
    pub(super) loss_due: bool,
}

/// What is demanded of consumers, and how far that has got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Consumers {
    pub(super) demand: Demand,
    pub(super) progress: Progress,
    /// The hold is over although nothing can be released yet: they are to be stopped, not held.
    pub(super) to_be_stopped: bool,
    /// What could not be stopped has been given its time.
    pub(super) waited: bool,
}

/// The outage that is being held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outage {
    /// The first probe that failed, or the moment at which the share itself fell silent.
    pub(super) since: BootInstant,
    /// When the patience was over.
    pub(super) given_up_at: Option<BootInstant>,
}

/// What the operator asked for that lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Operator {
    pub(super) holds: bool,
    pub(super) wanted: Wanted,
    pub(super) maintenance: Option<Maintenance>,
    /// What needed a person before maintenance began, and still does if that ends by the clock.
    pub(super) blocked_before: Option<Reason>,
    /// The share is being released because he asked for it, so that nothing may be lost.
    pub(super) unmounts: bool,
    /// And it is to be mounted again after it.
    pub(super) remounts: bool,
    /// nasmount itself unmounts it for good, which is nobody's wish that would have to be remembered.
    pub(super) retires: bool,
}
