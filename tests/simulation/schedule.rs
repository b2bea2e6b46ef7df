//! What goes wrong and when, as it is stored: decoded JSON, so that a change of the generator cannot reinterpret a schedule
//! that once failed.

use std::collections::BTreeMap;
use std::time::Duration;

use nasmount::share::consumers::{AfterHold, OnOutage, Policy, UnitSpec};
use nasmount::share::detector::{DetectorSpec, IdentityPolicy, LocalTrouble};
use nasmount::share::failure::FailureClass;
use nasmount::share::{OnSleep, ShareSpec};
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Decides latencies and which of two things that may happen does.
    pub seed: u64,
    /// What is configured and how the world begins.
    pub setup: Setup,
    /// What goes wrong, by milliseconds since the start, in order.
    pub faults: Vec<(u64, Fault)>,
    /// The daemon dies after this many of its inputs, once.
    #[serde(default)]
    pub dies_at_input: Option<u64>,
}

/// What is configured and how the world begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub servers: Vec<ServerSetup>,
    pub shares: Vec<ShareSetup>,
    pub units: Vec<UnitSetup>,
}

/// How a server is probed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSetup {
    pub interval_ms: u64,
    pub dead_after: u32,
    pub alive_after: u32,
    /// Its name leads to two addresses.
    #[serde(default)]
    pub two_addresses: bool,
    /// It may be asked on its own network only.
    #[serde(default)]
    pub only_on: bool,
}

/// One share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareSetup {
    pub server: usize,
    pub patience_ms: u64,
    pub hold_for_ms: Option<u64>,
    /// An earlier daemon left it mounted.
    pub mounted: bool,
    #[serde(default)]
    pub on_sleep: OnSleep,
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitSetup {
    pub running: bool,
    /// systemd starts it at boot.
    pub enabled: bool,
    /// The configuration names it.
    pub configured: bool,
    pub order: i32,
    pub time_limit_ms: u64,
    pub start_takes_ms: u64,
    pub stop_takes_ms: u64,
    pub needs: Vec<Need>,
}

/// A share that a unit needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Need {
    pub share: usize,
    pub on_outage: OnOutage,
    pub after_hold: AfterHold,
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerIs {
    Up,
    /// Answers late: its disks spin up.
    Slow,
    /// No packet comes back.
    Silent,
    /// The host is there, the service is not.
    Refusing,
    /// The connection is accepted, nothing is answered.
    Hung,
    /// Another machine has its address.
    Stranger,
}

impl ServerIs {
    pub fn answers(self) -> bool {
        matches!(self, Self::Up | Self::Slow)
    }
}

/// What brings a silent share on a live server back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cure {
    NewConnection,
    NewMount,
    OnlyTime,
}

/// What an operator types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Typed {
    Mount,
    Unmount,
    Remount,
    MaintenanceOn { for_ms: Option<u64> },
    MaintenanceOff,
    Hold,
    Release,
}

/// What a new configuration says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Patience { share: usize, ms: u64 },
    Hold { share: usize, ms: Option<u64> },
    Policy { unit: usize, on_outage: OnOutage, after_hold: AfterHold },
    UnitGone { unit: usize },
    UnitAdded { unit: usize },
}

/// Something that goes wrong, or right again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The server changes; if its connections are lost the kernel does not learn of it (veil).
    Server { server: usize, is: ServerIs, connections_lost: bool },
    /// The share hangs although the server answers.
    ShareSilent { share: usize, cure: Cure },
    /// It answers again.
    ShareAnswers { share: usize },
    /// From now on mounting is refused.
    MountsRefused { share: usize, class: FailureClass },
    /// No more.
    MountsAccepted { share: usize },
    /// kill -9, and a new daemon after a while. What is in flight ends unseen or vanishes.
    DaemonDies { down_for_ms: u64 },
    /// The host restarts: mounts, fences, paused processes and /run are gone.
    Reboot { down_for_ms: u64 },
    /// The host goes down in order: systemd takes open shares off their paths, and after a while it restarts.
    Shutdown { lasts_ms: u64, down_for_ms: u64 },
    /// The administrator stops a unit.
    AdminStops { unit: usize },
    /// The administrator starts a unit.
    AdminStarts { unit: usize },
    /// A watchdog kills a unit, paused or not, and systemd starts it again.
    UnitKilled { unit: usize },
    /// systemd cannot be reached: calls fail at once or never return.
    BusLost { calls_hang: bool },
    /// systemd can be reached again.
    BusBack,
    /// The next operation of this name takes this long, and may or may not end when its worker is killed.
    NextHangs { operation: String, for_ms: u64, killable: bool },
    /// The next operations of this name fail.
    NextFails { operation: String, class: FailureClass, times: u32 },
    /// Somebody mounts something else on the mount point, on top of what is there.
    ForeignMount { share: usize },
    /// And takes it off again.
    ForeignGone { share: usize },
    /// Somebody else takes the share off the mount point.
    TakenOff { share: usize },
    /// And the barrier, while the share is off the path.
    BarrierTaken { share: usize },
    /// The server gets another address.
    ServerMoves { server: usize },
    /// Nothing answers any more at one of its addresses, to which its name leads still.
    AddressDies { server: usize, second: bool },
    /// It is at all its addresses again.
    AddressesBack { server: usize },
    /// The daemon is started again with another source configured.
    SourceEdited { share: usize, down_for_ms: u64 },
    /// An operator types a command.
    Command { share: usize, typed: Typed },
    /// The configuration is read anew.
    ConfigurationLoaded { change: Change },
    /// A link, an address or a route of this host changes.
    NetworkChanged,
    /// This host itself can no longer reach the server, or can again.
    Local { server: usize, trouble: Option<LocalTrouble> },
    /// The server says FIN or RST, or somebody in its name; the share may well go on.
    Hint { server: usize },
    /// An operator says that who answers is the server.
    TrustStranger { server: usize },
    /// The host sleeps: nothing runs and the clock goes on.
    Suspend { for_ms: u64 },
    /// logind announces a sleep, which may follow or not.
    SleepAnnounced,
    /// logind says that it is over, or that it did not come to it.
    SleepOver,
    /// The shell calls `handle_timeout` without need.
    SpuriousTimeout,
}

impl Fault {
    /// What kind it is, for the count of those that made a difference.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::ShareSilent { .. } => "share silent",
            Self::ShareAnswers { .. } => "share answers",
            Self::MountsRefused { .. } => "mounts refused",
            Self::MountsAccepted { .. } => "mounts accepted",
            Self::DaemonDies { .. } => "daemon dies",
            Self::Reboot { .. } => "reboot",
            Self::Shutdown { .. } => "shutdown",
            Self::AdminStops { .. } => "admin stops",
            Self::AdminStarts { .. } => "admin starts",
            Self::UnitKilled { .. } => "unit killed",
            Self::BusLost { .. } => "bus lost",
            Self::BusBack => "bus back",
            Self::NextHangs { .. } => "next hangs",
            Self::NextFails { .. } => "next fails",
            Self::ForeignMount { .. } => "foreign mount",
            Self::ForeignGone { .. } => "foreign gone",
            Self::TakenOff { .. } => "taken off",
            Self::BarrierTaken { .. } => "barrier taken",
            Self::ServerMoves { .. } => "server moves",
            Self::AddressDies { .. } => "address dies",
            Self::AddressesBack { .. } => "addresses back",
            Self::SourceEdited { .. } => "source edited",
            Self::Command { typed, .. } => match typed {
                Typed::Mount => "mount",
                Typed::Unmount => "unmount",
                Typed::Remount => "remount",
                Typed::MaintenanceOn { .. } => "maintenance on",
                Typed::MaintenanceOff => "maintenance off",
                Typed::Hold => "hold",
                Typed::Release => "release",
            },
            Self::ConfigurationLoaded { change } => match change {
                Change::Patience { .. } => "other patience",
                Change::Hold { .. } => "other hold",
                Change::Policy { .. } => "other policy",
                Change::UnitGone { .. } => "unit gone",
                Change::UnitAdded { .. } => "unit added",
            },
            Self::NetworkChanged => "network changed",
            Self::Local { .. } => "local trouble",
            Self::Hint { .. } => "hint",
            Self::TrustStranger { .. } => "trust stranger",
            Self::Suspend { .. } => "suspend",
            Self::SleepAnnounced => "sleep announced",
            Self::SleepOver => "sleep over",
            Self::SpuriousTimeout => "spurious timeout",
        }
    }
}

/// The name of the share with this index.
pub fn share_name(index: usize) -> &'static str {
    ["media", "backup", "photos"][index]
}

/// The name of the unit with this index.
pub fn unit_name(index: usize) -> &'static str {
    ["jellyfin.service", "restic.service", "indexer.service", "gallery.service"][index]
}

/// Its index.
pub fn unit_index(name: &str) -> Option<usize> {
    (0..4).find(|index| unit_name(*index) == name)
}

impl Setup {
    /// A share as the machine sees it.
    pub fn share_spec(&self, share: usize) -> ShareSpec {
        let share = &self.shares[share];
        ShareSpec {
            patience: Duration::from_millis(share.patience_ms),
            hold_for: share.hold_for_ms.map(Duration::from_millis),
            probe_interval: Duration::from_secs(10),
            on_sleep: share.on_sleep,
        }
    }

    /// A server's detector.
    pub fn detector_spec(&self, server: usize) -> DetectorSpec {
        let server = &self.servers[server];
        DetectorSpec {
            interval: Duration::from_millis(server.interval_ms),
            timeout: Duration::from_secs(1),
            timeout_max: Duration::from_secs(5),
            identity: IdentityPolicy::Pinned,
            bound: server.only_on,
            dead_after: server.dead_after,
            alive_after: server.alive_after,
        }
    }

    /// The units as the machine of the consumers sees them.
    pub fn unit_specs(&self) -> BTreeMap<String, UnitSpec> {
        let configured = self.units.iter().enumerate().filter(|(_, unit)| unit.configured);
        configured.map(|(index, unit)| (unit_name(index).to_owned(), unit.spec())).collect()
    }

    /// The shares on a server.
    pub fn shares_on(&self, server: usize) -> impl Iterator<Item = usize> {
        self.shares.iter().enumerate().filter(move |(_, share)| share.server == server).map(|(index, _)| index)
    }
}

impl UnitSetup {
    fn spec(&self) -> UnitSpec {
        let policy = |need: &Need| Policy { on_outage: need.on_outage, after_hold: need.after_hold };
        UnitSpec {
            order: self.order,
            time_limit: Duration::from_millis(self.time_limit_ms),
            needs: self.needs.iter().map(|need| (share_name(need.share).to_owned(), policy(need))).collect(),
        }
    }

    /// The shares that it needs, as configured.
    pub fn needed(&self) -> impl Iterator<Item = &Need> {
        self.needs.iter().filter(|_| self.configured)
    }

    pub fn needs_share(&self, share: usize) -> bool {
        self.needed().any(|need| need.share == share)
    }
}

impl Schedule {
    /// Virtual milliseconds until the last fault.
    pub fn ends_at(&self) -> u64 {
        self.faults.last().map_or(0, |(at, _)| *at)
    }
}
