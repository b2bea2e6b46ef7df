//! What is known of a host: gathered by `sys::host_facts` and the command, judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::plan::mount_unit::UnitFile;
use crate::status::NamespaceCopy;

/// A file and its text.
#[derive(Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// What an import of fstab that was interrupted has left to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Lines of fstab, from 1.
    pub lines: Vec<usize>,
    /// Paths of files of units.
    pub files: Vec<String>,
}

/// What the kernel says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `/proc/version_signature`, of Ubuntu's kernels.
    pub signature: Option<String>,
    /// The configuration that it was built with, if that can be read.
    pub config: Option<String>,
    /// Whether there is `/proc/config.gz`, which is the same, compressed.
    pub has_config_gz: bool,
    /// `/proc/filesystems`.
    pub filesystems: String,
    /// The modules that can be loaded, a path a line; `None` if they are not there.
    pub modules: Option<String>,
    /// `/proc/sys/kernel/tainted`.
    pub taint: u64,
}

/// What a mount point is while nothing is mounted on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Underneath {
    /// Something is mounted on it, below it or on the way to it: it was not looked at.
    Covered,
    /// There is nothing, or no directory.
    NoDirectory,
    /// It cannot be looked at, for this reason.
    Unseen(String),
    /// A directory that is immutable; or an empty one that is closed to everybody but root.
    Protected,
    /// An empty directory into which whoever may can write.
    Open,
    /// A directory that is not empty, nor immutable; or one that is not empty under what is mounted on it.
    Holds(Contents),
}

/// What lies in a mount point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Files and directories that were counted.
    pub entries: u64,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// What a host has. No `Debug`: fstab and units may have a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Its kernel.
    pub kernel: KernelFacts,
    /// `/etc/fstab`; empty if there is none.
    pub fstab: String,
    /// What an import has left of them, if its record can be read.
    pub unfinished: Unfinished,
    /// `*.mount` and `*.automount` in `/etc/systemd/system`, with their drop-ins.
    pub units: Vec<UnitFile>,
    /// Whether `/sys/fs/cgroup` is cgroup v2, by which units and containers of processes are told.
    pub unified_cgroups: bool,
    /// Where `nft` is, if it is where a service looks for programs.
    pub nft: Option<PathBuf>,
    /// Names of its interfaces; `None` if they cannot be listed.
    pub interfaces: Option<BTreeSet<String>>,
    /// Mount points of shares.
    pub mount_points: BTreeMap<PathBuf, Underneath>,
    /// `/etc/updatedb.conf`, if there is one.
    pub updatedb: Option<String>,
    /// Defaults and unit files of node_exporter.
    pub node_exporter: Vec<TextFile>,
}

/// What the services of a host say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Version of systemd, if it says it.
    pub systemd: Option<String>,
    /// Why systemd was not asked, or not to the end.
    pub systemd_silent: Option<String>,
    /// The daemon, or why it does not answer.
    pub daemon: Result<Daemon, String>,
    /// Of each consumer that systemd was asked about: the units after which it is started; `None` if systemd does not know it.
    pub consumers: BTreeMap<String, Option<Vec<String>>>,
    /// Of each consumer that is a container by its name: the engines that have one of that name, the one that is taken first; or why
    /// that is not known.
    pub containers: BTreeMap<String, Result<Vec<&'static str>, String>>,
    /// Of each consumer that is a label or a project: how many containers it stands for; or why that is not known.
    pub groups: BTreeMap<String, Result<usize, String>>,
    /// Of each consumer that is a unit of a user's: what that user's service manager says of it.
    pub user_units: BTreeMap<String, UserUnit>,
    /// Whether the configuration is the one that nasmount's generator reads.
    pub generator: Generator,
    /// What consumers see of the host's mounts, of those that are services.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// Units whose start has systemd start a share's, by share.
    pub requiring: BTreeMap<String, Vec<String>>,
    /// Units with files open on a share, by share; empty for who may not look.
    pub holding: BTreeMap<String, BTreeSet<String>>,
    /// Where else a share can be seen, by share; empty for who may not look.
    pub copies: BTreeMap<String, Vec<NamespaceCopy>>,
}

/// Whether a user's service manager knows a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserUnit {
    /// It does.
    Known,
    /// It does not.
    Unknown,
    /// There is no such user; in these words.
    NobodysName(String),
    /// It does not run; in these words.
    NoManager(String),
    /// It cannot be asked, for this reason.
    Unasked(String),
}

/// What a service's settings do to the mounts that it sees (systemd.exec(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether it sees what is mounted after its start.
    pub propagation: Propagation,
    /// `RootDirectory=` or `RootImage=`, if it has a root of its own.
    pub root: Option<String>,
    /// `InaccessiblePaths=` and `TemporaryFileSystem=`.
    pub hidden: Vec<String>,
    /// What `BindPaths=` and `BindReadOnlyPaths=` take from the host.
    pub bound: Vec<String>,
    /// `ReadWritePaths=`, `ReadOnlyPaths=`, `ExecPaths=` and `NoExecPaths=`: bound onto themselves.
    pub itself: Vec<String>,
    /// `ProtectHome=`.
    pub home: String,
}

/// How mounts of the host reach a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They do: `MountFlags=slave` or `shared`, or none.
    #[default]
    FromHost,
    /// They do not: `MountFlags=private`.
    None,
}

/// Which configuration nasmount's generator makes units of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// This one.
    ReadsIt,
    /// Another.
    ReadsAnother,
}

/// What the daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// The address of each server whose name it has resolved.
    pub addresses: BTreeMap<String, String>,
}
