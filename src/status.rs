//! What nasmount says about itself: all that D-Bus, the CLI and scripts see. Changes of meaning raise [`SCHEMA`].

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::share::command::{HoldReason, Wanted};
use crate::share::consumers::{Held, Progress, UnitStep};
use crate::share::detector::Trust;
use crate::share::ladder::Outcome;
use crate::share::state::{Reason, State};

/// Version of the form of [`StatusReport`].
pub const SCHEMA: u32 = 1;

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
    /// Servers, by name.
    pub servers: Vec<ServerStatus>,
    /// Shares, by name.
    pub shares: Vec<ShareStatus>,
    /// Worker processes that do not end, because a call to the kernel does not return; those that have hung for longest first.
    #[serde(default)]
    pub hanging_workers: Vec<HangingWorker>,
}

/// A worker process that was given up on and hangs in the kernel. It is never waited for, holds nothing up but what needs the same call,
/// and is gone when the call returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HangingWorker {
    /// What it was asked for: the name of an operation, or another.
    pub what: String,
    /// Of which share, host name or path; absent if of none.
    pub of: Option<String>,
    /// Seconds since the epoch at which it was told to end.
    pub since: f64,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// As configured.
    pub host: String,
    /// Resolved; absent until that has succeeded.
    pub address: Option<IpAddr>,
    /// What is believed of it.
    #[serde(flatten)]
    pub trust: Trust,
    /// How its answers came in the last five minutes; absent before the first.
    pub latency: Option<LatencyStatus>,
    /// What is wrong with this host's own way to it, in words.
    pub local_trouble: Option<String>,
    /// The identity of the machine that answers in its place.
    pub stranger: Option<String>,
    /// Present if it comes and goes.
    pub flapping: Option<FlappingStatus>,
}

/// How long a server's answers took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// The last answer.
    pub last_ms: f64,
    /// Half of them came within this.
    pub median_ms: f64,
    /// All but the slowest twentieth came within this.
    pub p95_ms: f64,
    /// The slowest.
    pub slowest_ms: f64,
    /// It has become slow, or always is: slow is not dead.
    pub slow: bool,
}

/// A server that comes and goes: it has to answer for a while before it is trusted again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlappingStatus {
    /// Outages within the last ten minutes.
    pub outages: u32,
    /// For how many seconds it has to answer without a failure.
    pub must_answer_for: f64,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its state; the promise of each is in [`State`]'s documentation.
    pub state: State,
    /// Seconds since the epoch at which the state was entered.
    pub since: f64,
    /// Why.
    pub reason: Reason,
    /// The same, in words.
    pub reason_text: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// Name of its server.
    pub server: String,
    /// `//host/share`.
    pub source: String,
    /// Where it appears.
    pub mount_point: String,
    /// The operation in flight, if any.
    pub operation: Option<String>,
    /// For how many seconds it has been.
    pub operation_for: Option<f64>,
    /// Why its consumers are held: `outage`, `operator`; empty if they are not.
    pub hold_reasons: Vec<HoldReason>,
    /// `unmounted` if the operator wants it so.
    pub wanted: Wanted,
    /// Present if the operator said hands off.
    pub maintenance: Option<MaintenanceStatus>,
    /// How far what the share demands of its consumers has got.
    pub consumers_progress: Progress,
    /// Why something that must not be forgotten cannot be written down, if so.
    pub memory_trouble: Option<String>,
    /// Seconds until the hold ends by itself, during an outage.
    pub hold_ends_in: Option<f64>,
    /// Whether the patience of this outage is over: what was in flight has been given up.
    pub given_up: bool,
    /// What was done to give it up, in order: now, or the last time since the boot. Empty if it was not.
    #[serde(default)]
    pub release: Vec<RungStatus>,
    /// The last loss of unwritten data that is known of.
    pub loss: Option<LossStatus>,
    /// Units that depend on the share: those that are configured, and after them the containers for which some of these stand.
    pub consumers: Vec<ConsumerStatus>,
}

/// One thing that was done to give a share up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungStatus {
    /// Name of the operation.
    pub operation: String,
    /// Seconds since the epoch at which it began.
    pub at: f64,
    /// How many seconds it may take.
    pub budget: f64,
    /// How many seconds it took; absent while it is in flight, or if that is not known because nasmount was restarted.
    pub took: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Unwritten data was lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossStatus {
    /// Seconds since the epoch at which that was found out.
    pub at: f64,
    /// What is known of it: the kernel's error, and who had files open for writing.
    pub what: String,
}

/// Hands off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// Seconds until it ends by itself; absent if it does not.
    pub ends_in: Option<f64>,
}

/// One consumer of a share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsumerStatus {
    /// Its name.
    pub unit: String,
    /// For which containers it stands; absent unless it is a label or a project. Nothing is done to it, but to these.
    #[serde(default)]
    pub containers: Option<Vec<String>>,
    /// What nasmount did to it and will undo; absent if it left it alone.
    pub held: Option<Held>,
    /// What is being done to it.
    pub operation: Option<UnitStep>,
}

/// A process that has a share open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its id.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`).
    pub command: String,
    /// Its service or scope, if it is in one.
    pub unit: Option<String>,
    /// Open files and directories.
    pub files: usize,
    /// Those of them that can be written to.
    pub writable: usize,
    /// Where the first of these are; below the share's root once it is off its path.
    pub writable_paths: Vec<String>,
    /// Whether its working directory or root is there: 0 to 2.
    pub directories: usize,
}

/// What a mount namespace other than the host's has of a share; or the host's, where somebody has bound it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceCopy {
    /// A process in that namespace.
    pub pid: i32,
    /// Its name (`/proc/PID/comm`).
    pub command: String,
    /// Its service or scope, if it is in one; a container is a scope.
    pub unit: Option<String>,
    /// The unit of the system's that it is part of: another one for a service of a user's, or in a container that has a systemd.
    #[serde(default)]
    pub system_unit: Option<String>,
    /// Where it is, as that process sees it.
    pub path: String,
    /// What lies there.
    pub content: CopyContent,
    /// Whether barrier and fresh mounts of the host appear there by themselves.
    pub follows: bool,
}

/// What lies on a path of another mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyContent {
    /// The share as it is mounted now.
    Current,
    /// A mount of the share that has been given up.
    Stale,
    /// The barrier alone.
    Barrier,
    /// The bare directory under the barrier.
    Missing,
}

impl NamespaceCopy {
    /// What is wrong with it, if something is.
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.content, self.follows) {
            (CopyContent::Stale, _) => Some("has a mount that was given up, and gets no other: start it again"),
            (CopyContent::Missing, _) => {
                Some("has the bare directory under the share, and gets nothing else: start it again")
            }
            (CopyContent::Current, false) => Some("does not follow the host: in an outage its calls hang"),
            (CopyContent::Barrier, false) => {
                Some("does not follow the host, and has the barrier for ever: start it again")
            }
            (CopyContent::Current | CopyContent::Barrier, true) => None,
        }
    }
}
