//! What can happen to a share: facts, in the past tense.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ShareSpec;
use super::command::{Command, Maintenance, Wanted};
use super::consumers::{Demand, Progress};
use super::detector::Trust;
use super::effect::OpId;
use super::failure::Failure;
use super::state::Reason;
use super::time::BootInstant;

/// Everything that is ever put into a share, in the form in which it is recorded and replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A fact.
    Event(Event),
    /// The next deadline has passed, or might have.
    Timeout,
    /// What an operator asked for.
    Command(Command),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The belief about the share's server changed.
    ServerTrustChanged {
        /// What is believed now.
        trust: Trust,
    },
    /// An operation ended, in time or late. One whose id is not current changes nothing.
    Completed {
        /// Which.
        op: OpId,
        /// How.
        result: Result<Done, Failure>,
    },
    /// What the share demands of its consumers has got somewhere. One about an earlier demand changes nothing.
    ConsumersChanged {
        /// The demand it is about.
        demand: Demand,
        /// How far that has got.
        progress: Progress,
    },
    /// The server has closed a connection to this host, which the veil hides from the kernel, and answers all the same: perhaps this
    /// share's, which would then be silent until the kernel notices by itself.
    ConnectionClosed,
    /// The server's address has become known, or is another one than before.
    ServerMoved,
    /// Something was mounted on the mount point, or unmounted from it: by nasmount itself or by somebody else.
    MountTableChanged,
    /// The host is about to sleep: logind has announced it, and waits for a moment.
    SleepBegan,
    /// The host slept, or is awake again before it did.
    Resumed {
        /// For how long: not at all, as far as its clocks tell, if it did not come to that.
        asleep: Duration,
    },
    /// The host goes down. There is no way back: what follows is the next boot.
    ShutdownBegan,
    /// The configuration was read anew.
    ConfigurationLoaded {
        /// What it says of this share now.
        spec: ShareSpec,
    },
}

/// What a successful operation found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It was done; there is nothing more to say.
    Plainly,
    /// What is in place on the host (`Step::Survey`).
    Survey(Survey),
    /// What unwritten data was lost, and who had files open for writing, in words; if any (`Step::AskForLoss`).
    Loss(Option<String>),
}

/// What is in place on the host for one share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// nasmount's own clone of the mount is pinned.
    pub clone: bool,
    /// In what the clone differs from what is configured.
    #[serde(default)]
    pub mismatch: Option<Mismatch>,
    /// The barrier lies on the mount point.
    pub barrier: bool,
    /// What lies on the mount point above the barrier.
    pub attached: Attachment,
    /// What an earlier daemon wrote down.
    pub memory: Memory,
}

/// In what a mount differs from what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// It is of another share or directory of the server.
    Source,
    /// It is of an address that the server does not have, or no longer.
    Address,
}

/// What lies on a mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attachment {
    /// Nothing, or only the barrier.
    #[default]
    Nothing,
    /// The mount of which nasmount has the clone.
    Share,
    /// Somebody else's mount: its source.
    Foreign(String),
}

/// What must be known again after a crash of the daemon: written down before the effects it belongs to are started.
/// What was done to consumers is remembered apart from it, for the whole host: `consumers::Consumers::memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// When the outage that is being held began.
    pub outage_since: Option<BootInstant>,
    /// The patience was over.
    pub given_up: bool,
    /// There may be a fence.
    pub fenced: bool,
    /// The operator holds the share's consumers.
    pub held_by_operator: bool,
    /// Whether the operator wants it mounted.
    pub wanted: Wanted,
    /// It is being unmounted to be mounted again.
    pub remounts: bool,
    /// The operator said hands off.
    pub maintenance: Option<Maintenance>,
    /// The login was refused: a new daemon that tried it again might lock the account.
    pub blocked: Option<Reason>,
    /// What was in flight was given up, and nobody has asked yet whether data was lost.
    pub loss_due: bool,
    /// The last loss of data.
    pub loss: Option<Loss>,
}

/// Unwritten data was thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When that was found out.
    pub at: BootInstant,
    /// What is known of it, in words.
    pub what: String,
}
