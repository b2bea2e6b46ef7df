//! What the configuration means once it is known to be right: the only form that the rest of the program sees.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::Limit;
use super::network::HomeNetwork;

/// Name of a share: the key of its `[share.NAME]` table. Letters, digits, `-` and `_`, 1..=64 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub(crate) String);

/// Name of a server: the key of its `[server.NAME]` table. Same characters as [`ShareId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(crate) String);

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything the daemon needs to know, validated as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Servers by name.
    pub servers: BTreeMap<ServerId, ServerSettings>,
    /// Shares by name; each names a server in `servers`.
    pub shares: BTreeMap<ShareId, ShareSettings>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its name in the configuration.
    pub id: ServerId,
    /// Address literal or host name, as written; resolved by the daemon, never by the kernel.
    pub host: String,
    /// How nasmount logs in.
    pub credentials: CredentialSource,
    /// Who may answer.
    pub identity: IdentityPolicy,
    /// The networks on which it is asked; empty: on all.
    pub only_on: Vec<HomeNetwork>,
    /// How the server is probed.
    pub probe: ProbeSettings,
}

/// Whether a server has to be the one that it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityPolicy {
    /// The first that answered, until an operator trusts another.
    #[default]
    Pinned,
    /// Any: some servers tell another identity after each start.
    Any,
}

/// Where a server's user name and password come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// No login: the kernel's anonymous session, which a NAS maps to its guest.
    Guest,
    /// A file in mount.cifs's grammar, readable by root only.
    File(PathBuf),
    /// A systemd credential of `nasmount.service`, by name (`"systemd:NAME"`).
    Systemd(String),
}

/// Own probes of a server from user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Time from the start of one probe to the start of the next while the server is trusted.
    pub interval: Duration,
    /// How long a probe may take at a server that answers quickly.
    pub timeout: Duration,
    /// What that may grow to at a slow one: follows from the patience (`layers::timeout_max`).
    pub timeout_max: Duration,
    /// Consecutive failures after which the server is dead; at least 1.
    pub dead_after: u32,
    /// Consecutive successes after which a dead server is trusted again; at least 1.
    pub alive_after: u32,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    /// Its name in the configuration.
    pub id: ShareId,
    /// The server it is on.
    pub server: ServerId,
    /// Share name on the server, optionally with a directory: `media` or `media/sub/dir`.
    pub source: String,
    /// Absolute, normalised path on which the share appears.
    pub mount_point: PathBuf,
    /// Name of the profile that the options were taken from.
    pub profile: String,
    /// CIFS options in force: profile, then the share's own. Without what nasmount always sets
    /// (`nosharesock`, `ip`, `port`, credentials). `uid`/`gid` may still be names.
    pub options: BTreeMap<String, OptionValue>,
    /// How long nothing in flight fails after the server went away; the longest patience of all shares of the server.
    pub patience: Duration,
    /// How long consumers are held before the share is released.
    pub hold_for: HoldFor,
    /// Time between two uncached requests through the share.
    pub probe_interval: Duration,
    /// What an access to the path meets while the share is away.
    pub on_access: OnAccess,
    /// What is done before the host goes to sleep.
    pub on_sleep: OnSleep,
    /// A file or directory below the share's root without which it is not the right one, or not all there.
    pub marker: Option<String>,
    /// What is done to whoever still has the share open when it is given up.
    pub leftover_holders: LeftoverHolders,
    /// What is done about copies of the share that only a restart of whoever has them replaces.
    pub stale_copies: StaleCopies,
    /// Upper limit of the share's unwritten data in bytes (`/sys/class/bdi/.../max_bytes`), if limited. With 0 each write waits until the
    /// server has it.
    pub dirty_limit: Option<u64>,
    /// How much is read ahead in bytes (`/sys/class/bdi/.../read_ahead_kb`), unless that is left to the kernel.
    pub read_ahead: Option<u64>,
    /// Units that depend on the share, in the order in which they are held (lowest `order` first).
    pub consumers: Vec<ConsumerSettings>,
}

/// Value of a CIFS option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// An option without a value, such as `nobrl`.
    Flag,
    /// `key=value`.
    Value(String),
}

/// How long an outage is held before the share is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldFor {
    /// This long; zero releases at once.
    For(Duration),
    /// The hold never ends by itself.
    Forever,
}

/// What an access to the path meets while the share is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAccess {
    /// "Host is down", at once.
    #[default]
    Fail,
    /// It waits for the share for this long, and fails then.
    Wait(Duration),
}

/// What is done with a share that is well when the host goes to sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSleep {
    /// Its consumers are held and its path is barred, until it has been verified after the sleep.
    #[default]
    Hold,
    /// Nothing.
    None,
}

/// What is done to processes that still have a share open when it is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeftoverHolders {
    /// Nothing: their files are dead.
    #[default]
    Leave,
    /// SIGKILL.
    Kill,
}

/// What is done when a share is back about those who have a copy of it that gets no other mount (`plan::copies`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleCopies {
    /// They are named.
    #[default]
    Report,
    /// They are restarted, as far as they are containers or services.
    Restart,
}

/// A unit or a container that depends on a share, or several containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// systemd unit name with its suffix, or what stands for containers (`config::consumer`).
    pub unit: String,
    /// What is done as soon as the server is dead.
    pub on_outage: OnOutage,
    /// What is done when the hold is over.
    pub after_hold: AfterHold,
    /// Lower is held first and let go last.
    pub order: i32,
    /// How long it may take to stop or to start before others no longer wait for it.
    pub time_limit: Duration,
    /// What it may use of the host.
    pub limits: BTreeMap<Limit, u64>,
}

/// What is done with a consumer as soon as the server is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// SIGSTOP to all its processes.
    Pause,
    /// A systemd stop job; started again when the share is back.
    Stop,
    /// Nothing.
    None,
}

/// What is done with a consumer when the hold is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterHold {
    /// A systemd stop job; started again when the share is back.
    Stop,
    /// SIGKILL to all its processes, then a stop job; started again when the share is back.
    Kill,
    /// A paused consumer goes on without the share and meets its errors.
    None,
}
