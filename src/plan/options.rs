//! A share, an address and what the kernel can do become the parameters of one mount.
//!
//! No login is in here: it is added by the worker that mounts, so that a plan can be printed and logged.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::catalogue::{self, WhenUnknown};
use super::doctor::Version;
use super::hazards;
use crate::config::settings::{OptionValue, ShareSettings};

/// The options that the running kernel knows, if it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelOptions(Known);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Version(Version),
    Names(BTreeSet<String>),
}

impl KernelOptions {
    /// The kernel does not say: `/proc/fs/cifs/mount_params` is absent (before 5.13, or the module is not loaded).
    pub fn unknown() -> Self {
        Self(Known::Nothing)
    }

    /// The same, but its version is known, and by that which of the younger options it has ([`hazards::since`]).
    pub fn of_version(version: Version) -> Self {
        Self(Known::Version(version))
    }

    /// Parses the text of `/proc/fs/cifs/mount_params`: one `name:type` a line, where the type `noflag` says that
    /// `noNAME` exists as well. A text without a single such line counts as unknown.
    pub fn parse(text: &str) -> Self {
        let mut names = BTreeSet::new();
        for (name, kind) in text.lines().filter_map(|line| line.trim().split_once(':')) {
            if kind == "noflag" {
                names.insert(format!("no{name}"));
            }
            names.insert(name.to_owned());
        }
        Self(if names.is_empty() { Known::Nothing } else { Known::Names(names) })
    }

    /// Whether the kernel knows an option; `None` if nothing tells.
    pub fn knows(&self, name: &str) -> Option<bool> {
        match &self.0 {
            Known::Nothing => None,
            Known::Version(version) => hazards::since(name).map(|since| *version >= since),
            Known::Names(names) => Some(names.contains(name)),
        }
    }
}

/// Whether the kernel can limit a share's unwritten data (`/sys/class/bdi/*/max_bytes`: 6.12 has it, 6.1 has not).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyLimitSupport {
    /// It can.
    Supported,
    /// It cannot: each write to a share with a limit waits until the server has it (`DirtyData::WrittenThrough`).
    Unsupported,
}

/// Of a share that is written through. A write of 4 MiB, and three at once, need it, or they fill the socket's send buffer at the beginning
/// of an outage, and end with EHOSTDOWN when the kernel gives up 15 s later; with half of it writes of 1 MiB are a quarter as fast
/// (measured on 6.12, in an emulated machine).
const UNDER_WAY: u64 = 512 << 10;

/// How much a share may leave unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyData {
    /// As much as the kernel likes.
    Unlimited,
    /// So many bytes, set on the share's backing device.
    Limited(u64),
    /// Nothing that a program was told is written: the super block is made synchronous (`sync` of mount(8)) after the mount. So many
    /// bytes, if the kernel can limit them, are what mapped memory and a single write may have under way.
    WrittenThrough(Option<u64>),
}

/// One parameter for fsconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOption {
    /// Its key; at most 255 bytes.
    pub key: String,
    /// Its value, absent for a flag; at most 255 bytes.
    pub value: Option<String>,
}

impl fmt::Display for MountOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// An attribute of the mount itself, for fsmount: CIFS ignores these as options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountAttribute {
    /// `ro`: MOUNT_ATTR_RDONLY.
    ReadOnly,
    /// `nosuid`: MOUNT_ATTR_NOSUID.
    NoSuid,
    /// `nodev`: MOUNT_ATTR_NODEV.
    NoDev,
    /// `noexec`: MOUNT_ATTR_NOEXEC.
    NoExec,
    /// `noatime`: MOUNT_ATTR_NOATIME.
    NoAtime,
    /// `nodiratime`: MOUNT_ATTR_NODIRATIME.
    NoDirAtime,
}

/// Where the plan departs from the configuration, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// An option was left out.
    Dropped {
        /// What was configured.
        option: MountOption,
        /// Why: lower case, no full stop.
        reason: &'static str,
    },
    /// An option was set or changed.
    Replaced {
        /// What was configured, if anything.
        configured: Option<MountOption>,
        /// What is used.
        used: MountOption,
        /// Why: lower case, no full stop.
        reason: &'static str,
    },
}

/// Everything that fsopen, fsconfig and fsmount need, but the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// `//ADDRESS/share[/directory]`, with an address literal: the kernel never resolves a name.
    pub source: String,
    /// In the order in which they are to be set.
    pub options: Vec<MountOption>,
    /// For fsmount.
    pub attributes: BTreeSet<MountAttribute>,
    /// What is to be done about unwritten data after the mount.
    pub dirty_data: DirtyData,
    /// Where this is not what was configured.
    pub adjustments: Vec<Adjustment>,
}

/// Whether what is in flight through a mount with these options ends as soon as a login is refused: a hard one asks again, and so does
/// Kerberos, which has to have a ticket first (`smb2_reconnect` in fs/smb/client/smb2pdu.c). SMB 1 has code of its own.
pub fn ends_by_refusal(mut options: impl Iterator<Item = impl AsRef<str>>) -> bool {
    let mut is_soft = false;
    let all_end = options.all(|option| {
        let option = option.as_ref();
        is_soft |= option == "soft";
        option != "hard" && !option.starts_with("sec=krb5") && !option.starts_with("vers=1")
    });
    all_end && is_soft
}

/// Plans the mount of a share on an address of its server.
pub fn mount_options(
    share: &ShareSettings,
    address: IpAddr,
    kernel: &KernelOptions,
    support: DirtyLimitSupport,
) -> MountPlan {
    // A 4-in-6 address and its IPv4 form are two different servers to the kernel's matching: use the plain one.
    let address = address.to_canonical();
    let mut adjustments = Vec::new();
    let mut wanted = share.options.clone();
    let dirty_data = dirty_data(share, support, &wanted);
    if matches!(dirty_data, DirtyData::WrittenThrough(_)) && share.dirty_limit != Some(0) {
        let configured = share.dirty_limit.map(|limit| pair("dirty_limit", limit));
        let reason = "this kernel cannot limit a share's unwritten data (Linux 6.2 and newer can), so each write waits for the server";
        adjustments.push(Adjustment::Replaced { configured, used: flag("sync"), reason });
    }
    let attributes = take_attributes(&mut wanted);

    let mut options = vec![flag("nosharesock"), pair("ip", address), pair("port", 445)];
    let how = if wanted.remove("hard").is_some() { "hard" } else { "soft" };
    wanted.remove("soft");
    options.push(flag(how));
    for (key, value) in wanted {
        let option = option(key, value);
        match drop_reason(&option, kernel) {
            Some(reason) => adjustments.push(Adjustment::Dropped { option, reason }),
            None => options.push(option),
        }
    }
    MountPlan { source: source(share, address), options, attributes, dirty_data, adjustments }
}

/// The source of a share's mount on an address of its server.
pub fn source(share: &ShareSettings, address: IpAddr) -> String {
    format!("//{}/{}", address.to_canonical(), share.source)
}

/// Without a cache there is nothing unwritten anyway.
fn dirty_data(share: &ShareSettings, support: DirtyLimitSupport, wanted: &BTreeMap<String, OptionValue>) -> DirtyData {
    let uncached = wanted.get("cache").is_some_and(|cache| *cache == OptionValue::Value("none".to_owned()));
    match (share.dirty_limit, support) {
        (None, _) => DirtyData::Unlimited,
        (Some(limit @ 1..), DirtyLimitSupport::Supported) => DirtyData::Limited(limit),
        (Some(_), _) if uncached => DirtyData::Unlimited,
        (Some(_), DirtyLimitSupport::Supported) => DirtyData::WrittenThrough(Some(UNDER_WAY)),
        (Some(_), DirtyLimitSupport::Unsupported) => DirtyData::WrittenThrough(None),
    }
}

/// Takes what is not an option of CIFS out of the options.
fn take_attributes(wanted: &mut BTreeMap<String, OptionValue>) -> BTreeSet<MountAttribute> {
    const ATTRIBUTES: &[(&str, MountAttribute)] = &[
        ("ro", MountAttribute::ReadOnly),
        ("nosuid", MountAttribute::NoSuid),
        ("nodev", MountAttribute::NoDev),
        ("noexec", MountAttribute::NoExec),
        ("noatime", MountAttribute::NoAtime),
        ("nodiratime", MountAttribute::NoDirAtime),
    ];
    let taken = ATTRIBUTES.iter().filter(|(name, _)| wanted.remove(*name).is_some());
    let attributes = taken.map(|(_, attribute)| *attribute).collect();
    // The opposites are what a mount has anyway; the configuration refuses a pair of them.
    for name in ["rw", "suid", "dev", "exec", "relatime"] {
        wanted.remove(name);
    }
    attributes
}

fn drop_reason(option: &MountOption, kernel: &KernelOptions) -> Option<&'static str> {
    let droppable = catalogue::lookup(&option.key).is_some_and(|known| known.when_unknown == WhenUnknown::Drop);
    match kernel.knows(&option.key) {
        Some(false) if droppable => Some("this kernel does not know the option"),
        // Debian 12's 6.1 lacks it and would refuse the whole mount; every kernel works without it.
        None if option.key == "retrans" => Some("this kernel does not say whether it knows the option"),
        _ => None,
    }
}

fn option(key: String, value: OptionValue) -> MountOption {
    match value {
        OptionValue::Flag => MountOption { key, value: None },
        OptionValue::Value(value) => MountOption { key, value: Some(value) },
    }
}

fn flag(key: &str) -> MountOption {
    MountOption { key: key.to_owned(), value: None }
}

fn pair(key: &str, value: impl ToString) -> MountOption {
    MountOption { key: key.to_owned(), value: Some(value.to_string()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::config::settings::{HoldFor, LeftoverHolders, OnAccess, OnSleep, ServerId, ShareId, StaleCopies};

    const SAMPLE: &str = "user_xattr:noflag\nforceuid:noflag\nhard:noflag\nsoft:noflag\nhandlecache:noflag\n\
        nosharesock:flag\nuid:u32\ngid:u32\nport:u32\nrsize:u32\nactimeo:u32\necho_interval:u32\nsnapshot:u64\n\
        source:string\nip:string\nvers:string\ncache:string\n";

    fn share(options: &[(&str, Option<&str>)]) -> ShareSettings {
        let value = |value: &Option<&str>| match value {
            Some(value) => OptionValue::Value((*value).to_owned()),
            None => OptionValue::Flag,
        };
        ShareSettings {
            id: ShareId("media".into()),
            server: ServerId("tower".into()),
            source: "media/films".into(),
            mount_point: "/mnt/media".into(),
            profile: "media".into(),
            options: options.iter().map(|(key, given)| ((*key).to_owned(), value(given))).collect(),
            patience: Duration::from_secs(30),
            hold_for: HoldFor::Forever,
            probe_interval: Duration::from_secs(10),
            on_access: OnAccess::Fail,
            on_sleep: OnSleep::Hold,
            marker: None,
            leftover_holders: LeftoverHolders::Leave,
            stale_copies: StaleCopies::Report,
            dirty_limit: Some(2 << 20),
            read_ahead: None,
            consumers: Vec::new(),
        }
    }

    fn shown(plan: &MountPlan) -> String {
        plan.options.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn who_asks_again_does_not_end_by_a_refusal() {
        let ends = |options: &str| ends_by_refusal(options.split(','));
        assert!(ends("rw,soft,vers=3.1.1,sec=none,nosharesock"));
        assert!(ends("vers=2.1,sec=ntlmssp,soft"));
        for options in ["rw,hard,vers=3.1.1", "rw,vers=3.1.1", "soft,vers=3.1.1,sec=krb5i", "soft,vers=1.0"] {
            assert!(!ends(options), "{options}");
        }
    }

    #[test]
    fn mount_params_are_read() {
        let kernel = KernelOptions::parse(SAMPLE);
        assert_eq!(kernel.knows("nohandlecache"), Some(true));
        assert_eq!(kernel.knows("echo_interval"), Some(true));
        assert_eq!(kernel.knows("retrans"), Some(false));
        assert_eq!(kernel.knows("noport"), Some(false));
        assert_eq!(KernelOptions::parse("").knows("retrans"), None);
    }

    #[test]
    fn a_version_tells_of_young_options_alone() {
        let (old, new) = (KernelOptions::of_version(Version(6, 1, 0)), KernelOptions::of_version(Version(6, 12, 90)));
        assert_eq!((old.knows("retrans"), new.knows("retrans")), (Some(false), Some(true)));
        assert_eq!((old.knows("closetimeo"), new.knows("rsize")), (Some(true), None));
        let share = share(&[("retrans", Some("3"))]);
        let plan = |kernel| {
            let address = "10.10.0.35".parse().unwrap();
            shown(&mount_options(&share, address, kernel, DirtyLimitSupport::Supported))
        };
        assert!(plan(&new).contains("retrans=3") && !plan(&old).contains("retrans"));
    }

    #[test]
    fn the_address_comes_first_and_soft_is_the_rule() {
        let share = share(&[("uid", Some("jelly")), ("gid", Some("1000")), ("ro", None), ("nodev", None)]);
        let address = "10.10.0.35".parse().unwrap();
        let plan = mount_options(&share, address, &KernelOptions::parse(SAMPLE), DirtyLimitSupport::Supported);
        assert_eq!(plan.source, "//10.10.0.35/media/films");
        assert_eq!(shown(&plan), "nosharesock,ip=10.10.0.35,port=445,soft,gid=1000,uid=jelly");
        assert_eq!(plan.attributes, BTreeSet::from([MountAttribute::ReadOnly, MountAttribute::NoDev]));
        assert_eq!(plan.dirty_data, DirtyData::Limited(2 << 20));
        assert_eq!(plan.adjustments, []);
    }

    #[test]
    fn addresses_of_both_families_are_literals() {
        let plan = |address: &str| {
            mount_options(
                &share(&[]),
                address.parse().unwrap(),
                &KernelOptions::unknown(),
                DirtyLimitSupport::Supported,
            )
        };
        assert_eq!(plan("fd00::35").source, "//fd00::35/media/films");
        assert!(shown(&plan("fd00::35")).contains("ip=fd00::35"));
        assert_eq!(plan("::ffff:10.10.0.35").source, "//10.10.0.35/media/films");
    }

    #[test]
    fn hard_replaces_soft() {
        let share = share(&[("hard", None), ("soft", None)]);
        let address = "10.10.0.35".parse().unwrap();
        let plan = mount_options(&share, address, &KernelOptions::unknown(), DirtyLimitSupport::Supported);
        assert_eq!(shown(&plan), "nosharesock,ip=10.10.0.35,port=445,hard");
    }

    #[test]
    fn what_the_kernel_lacks_is_left_out_only_where_that_is_harmless() {
        let share = share(&[("retrans", Some("1")), ("closetimeo", Some("0")), ("seal", None)]);
        let address = "10.10.0.35".parse().unwrap();
        let plan = mount_options(&share, address, &KernelOptions::parse(SAMPLE), DirtyLimitSupport::Supported);
        assert_eq!(shown(&plan), "nosharesock,ip=10.10.0.35,port=445,soft,seal");
        assert_eq!(plan.adjustments.len(), 2);
        let plan = mount_options(&share, address, &KernelOptions::unknown(), DirtyLimitSupport::Supported);
        assert_eq!(shown(&plan), "nosharesock,ip=10.10.0.35,port=445,soft,closetimeo=0,seal");
        let with_retrans = KernelOptions::parse("retrans:u32\nclosetimeo:u32\n");
        let plan = mount_options(&share, address, &with_retrans, DirtyLimitSupport::Supported);
        assert!(shown(&plan).contains("retrans=1"));
    }

    #[test]
    fn without_unwritten_data_little_is_under_way() {
        let plan = |share: &ShareSettings, support| {
            mount_options(share, "10.10.0.35".parse().unwrap(), &KernelOptions::unknown(), support)
        };
        let through = ShareSettings { dirty_limit: Some(0), ..share(&[("cache", Some("strict"))]) };
        let planned = plan(&through, DirtyLimitSupport::Supported);
        assert_eq!(planned.dirty_data, DirtyData::WrittenThrough(Some(UNDER_WAY)));
        assert_eq!(planned.adjustments, [], "that is what was asked for");
        let planned = plan(&through, DirtyLimitSupport::Unsupported);
        assert_eq!((planned.dirty_data, planned.adjustments), (DirtyData::WrittenThrough(None), Vec::new()));
        let uncached = ShareSettings { dirty_limit: Some(0), ..share(&[("cache", Some("none"))]) };
        assert_eq!(plan(&uncached, DirtyLimitSupport::Supported).dirty_data, DirtyData::Unlimited);
    }

    #[test]
    fn where_unwritten_data_cannot_be_limited_there_is_none() {
        let plan = |share: &ShareSettings| {
            let address = "10.10.0.35".parse().unwrap();
            mount_options(share, address, &KernelOptions::unknown(), DirtyLimitSupport::Unsupported)
        };
        let limited = share(&[("cache", Some("strict"))]);
        assert_eq!(plan(&limited).dirty_data, DirtyData::WrittenThrough(None));
        assert!(shown(&plan(&limited)).ends_with("cache=strict"), "reads stay cached");
        assert!(
            matches!(&plan(&limited).adjustments[..], [Adjustment::Replaced { used, .. }] if used.to_string() == "sync")
        );
        let uncached = share(&[("cache", Some("none"))]);
        assert_eq!(plan(&uncached).dirty_data, DirtyData::Unlimited);
        let unlimited = ShareSettings { dirty_limit: None, ..limited };
        assert_eq!(plan(&unlimited).dirty_data, DirtyData::Unlimited);
        assert_eq!(plan(&unlimited).adjustments, []);
    }
}
