//! Options that may hurt: what each does that whoever wrote it may not have meant, and what the running kernel makes of it.
//!
//! What breaks nasmount's promises is refused ([`super::catalogue::forbidden`]: multichannel, shared sockets; `vers=1.0` and sizes that no
//! server takes have no valid form). What is here is a choice.

use super::catalogue::{self, Form, WhenUnknown};
use super::doctor::Version;
use super::options::KernelOptions;
use crate::config::settings::{OptionValue, ShareSettings};

/// How much an option hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Most who write it are better off without it.
    Hurts,
    /// It has a price that may be right to pay.
    TradeOff,
}

/// What an option does besides what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// How much it hurts.
    pub weight: Weight,
    /// What it does: lower case, no full stop.
    pub why: &'static str,
    /// What to do instead, or when it is right: the same.
    pub instead: &'static str,
}

const fn hurts(why: &'static str, instead: &'static str) -> Hazard {
    Hazard { weight: Weight::Hurts, why, instead }
}

const fn trade_off(why: &'static str, instead: &'static str) -> Hazard {
    Hazard { weight: Weight::TradeOff, why, instead }
}

/// Largest transfer that one lost packet does not turn into a stall: the kernel's default for SMB 3.
const TRANSFER_USUAL: u64 = 4 << 20;

/// Most seconds for which the shipped profiles have attributes kept.
const CACHED_USUAL: u64 = 60;

/// What is known of an option with this value; `None` if it is harmless.
pub fn of(option: &str, value: Option<&str>) -> Option<Hazard> {
    let above = |limit: u64| value.and_then(|value| value.parse::<u64>().ok()).is_some_and(|number| number > limit);
    Some(match (option, value) {
        ("hard", _) => hurts(
            "a hard mount cannot be given up: while the server is away, sync, shutdown and every writer hang",
            "remove it: within the patience a soft mount loses nothing either",
        ),
        ("cache", Some("loose" | "singleclient")) => hurts(
            "what others write to the share is not seen, and two who write to one file overwrite each other's parts of it",
            "write cache = \"strict\", unless nobody but this host ever writes to the share",
        ),
        ("cache", Some("ro")) => hurts(
            "what is changed on the server is not seen until the share is mounted anew",
            "write cache = \"strict\", unless nothing on the share ever changes",
        ),
        ("rsize" | "wsize", _) if above(TRANSFER_USUAL) => hurts(
            "one transfer of more than 4 MiB keeps everything else waiting behind it, the signs of life, too",
            "use 1048576: full speed on a gigabit network",
        ),
        ("bsize", _) if above(TRANSFER_USUAL) => hurts(
            "programs take buffers of that size for each file that they read or write",
            "remove it: it changes nothing of what goes over the network",
        ),
        ("rasize", _) if above(4 * TRANSFER_USUAL) => hurts(
            "whoever reads a piece of a file has up to 32 MiB fetched, which keeps all others waiting",
            "use read_ahead = \"4MiB\" of the share, which is adjusted as well",
        ),
        ("vers", Some("2.0" | "2.1")) => hurts(
            "SMB 2 cannot encrypt, and whoever is in between can keep both sides from signing",
            "write vers = \"3.1.1\", if `nasmount diagnose` says that the server speaks it",
        ),
        ("actimeo" | "acregmax" | "acdirmax", _) if above(CACHED_USUAL) => trade_off(
            "what is changed elsewhere is seen as much later as that is",
            "right where nobody else writes to the share; else 60 or less",
        ),
        ("noserverino", _) => trade_off(
            "inode numbers are made up at each look-up: hard links are not recognised, and backups take files that they know for new ones",
            "right where the server's numbers are not unique (several file systems in one share); else remove it",
        ),
        ("nobrl", _) => trade_off(
            "locks do not reach the server: programs of two hosts that lock the same file do not see each other",
            "right for databases of this host alone; else remove it",
        ),
        ("nolease" | "noac", _) => trade_off(
            "each look at a file asks the server",
            "right where several hosts write to the same files; else remove it",
        ),
        ("seal", _) => trade_off(
            "everything is encrypted, which costs CPU time on both sides and speed on a small NAS",
            "right where the network is not your own, or the server demands it",
        ),
        (option, _) => return of_rights(option),
    })
}

/// Options that decide who may do what.
fn of_rights(option: &str) -> Option<Hazard> {
    Some(match option {
        "suid" => hurts(
            "who can write to the share makes a program run here with the rights of whoever its file is said to belong to",
            "remove it: no film and no document needs it",
        ),
        "dev" => hurts(
            "who can write to the share can make a device of this host's of it, and read a disk through that",
            "remove it: a NAS has no devices",
        ),
        "multiuser" => trade_off(
            "each user needs a login of their own in the session (cifscreds, a Kerberos ticket), services and containers, too",
            "right where people log in to this host; else remove it",
        ),
        "ignore_signature" => {
            hurts("who is in between can change what is read and written", "remove it, or remove `sign` as well")
        }
        "mfsymlinks" => trade_off(
            "symbolic links are files that only this client understands, and whoever writes to the share can have one lead a program \
             of this host anywhere",
            "right where programs need links of their own on the share; else remove it",
        ),
        _ => return None,
    })
}

/// Since which kernel there is an option, of those that are younger than the oldest one that nasmount runs on.
pub fn since(option: &str) -> Option<Version> {
    Some(match option {
        "closetimeo" => Version(6, 0, 0),
        "max_cached_dirs" => Version(6, 6, 0),
        "retrans" => Version(6, 8, 0),
        _ => return None,
    })
}

/// Something to know about an option of a share.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Warned {
    /// The option as it is in force: `cache=loose`.
    pub option: String,
    /// What it does: lower case, no full stop.
    pub why: String,
    /// What to do: the same.
    pub instead: String,
}

/// All there is to know about the options of a share on this kernel. `shown` is what the kernel shows of an option, where the share is
/// mounted.
pub fn warnings<'shown>(
    share: &ShareSettings,
    kernel: &KernelOptions,
    version: Option<Version>,
    shown: impl Fn(&str) -> Option<&'shown str>,
) -> Vec<Warned> {
    let mut found = Vec::new();
    for (name, value) in &share.options {
        let value = match value {
            OptionValue::Flag => None,
            OptionValue::Value(value) => Some(value.as_str()),
        };
        let option = value.map_or_else(|| name.clone(), |value| format!("{name}={value}"));
        let mut warn = |why: String, instead: &str| {
            found.push(Warned { option: option.clone(), why, instead: instead.to_owned() });
        };
        if let Some(hazard) = of(name, value) {
            warn(hazard.why.to_owned(), hazard.instead);
        }
        // fs/smb/client/fs_context.c, "ignoring forceuid mount option specified with no uid= option"
        for (force, whose) in [("forceuid", "uid"), ("forcegid", "gid")] {
            if name == force && !share.options.contains_key(whose) {
                warn(format!("without `{whose}` the kernel ignores it"), "say whose the files are, too, or remove it");
            }
        }
        let Some(known) = catalogue::lookup(name) else { continue };
        if let Some(why) = lacking(name, kernel, version) {
            match known.when_unknown {
                WhenUnknown::Drop => warn(format!("{why}, so it is left out"), "nothing: the share works without it"),
                WhenUnknown::Pass => warn(format!("{why}, and refuses the mount"), "remove it, or boot a newer kernel"),
            }
        }
        if let (Form::Number { .. }, Some(value), Some(other)) = (known.form, value, shown(name))
            && value != other
        {
            let instead = "`nasmount remount` takes it over; if it stays so, the server allows no more";
            warn(format!("{other} is in force"), instead);
        }
    }
    found
}

/// Why the kernel does not take an option; by its own list, or, without one, by its version.
fn lacking(name: &str, kernel: &KernelOptions, version: Option<Version>) -> Option<String> {
    match (kernel.knows(name), version, since(name)) {
        (None | Some(false), Some(version), Some(since)) if version < since => {
            Some(format!("Linux {version} does not know it ({since} and newer do)"))
        }
        (Some(false), ..) if !is_of_the_mount(name) => Some("this kernel does not know it".to_owned()),
        _ => None,
    }
}

/// Not an option of CIFS: the kernel's list has none of them.
fn is_of_the_mount(name: &str) -> bool {
    const OF_THE_MOUNT: [&str; 11] =
        ["ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime", "nodiratime"];
    OF_THE_MOUNT.contains(&name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, SourceText, shipped_profiles};

    fn warned(options: &str, kernel: &KernelOptions, version: Option<Version>) -> Vec<(String, String)> {
        let text = format!(
            "[server.a]\nhost = \"10.0.0.1\"\n[share.b]\nserver = \"a\"\nsource = \"b\"\nmount_point = \"/mnt/b\"\noptions = {{ {options} }}\n"
        );
        let loaded = config::load(&[SourceText::new("x", text)], &shipped_profiles()).unwrap();
        let share = loaded.settings.shares.values().next().unwrap();
        let shown = |name: &str| (name == "rsize").then_some("65536");
        warnings(share, kernel, version, shown).into_iter().map(|warned| (warned.option, warned.why)).collect()
    }

    #[test]
    fn files_cannot_be_forced_to_be_nobodys() {
        let options = "uid = 1000, forceuid = true, forcegid = true, forcemandatorylock = true";
        let found = warned(options, &KernelOptions::unknown(), None);
        let found: Vec<_> = found.iter().filter(|(option, _)| option.starts_with("force")).collect();
        assert_eq!(found, [&("forcegid".to_owned(), "without `gid` the kernel ignores it".to_owned())]);
    }

    #[test]
    fn each_hazard_is_known_by_its_value() {
        for (option, value, weight) in [
            ("hard", None, Weight::Hurts),
            ("cache", Some("loose"), Weight::Hurts),
            ("cache", Some("singleclient"), Weight::Hurts),
            ("cache", Some("ro"), Weight::Hurts),
            ("rsize", Some("8384512"), Weight::Hurts),
            ("wsize", Some("4198400"), Weight::Hurts),
            ("bsize", Some("16777216"), Weight::Hurts),
            ("rasize", Some("33554432"), Weight::Hurts),
            ("vers", Some("2.1"), Weight::Hurts),
            ("suid", None, Weight::Hurts),
            ("dev", None, Weight::Hurts),
            ("acregmax", Some("61"), Weight::TradeOff),
            ("multiuser", None, Weight::TradeOff),
            ("ignore_signature", None, Weight::Hurts),
            ("mfsymlinks", None, Weight::TradeOff),
            ("noserverino", None, Weight::TradeOff),
            ("nobrl", None, Weight::TradeOff),
            ("nolease", None, Weight::TradeOff),
            ("seal", None, Weight::TradeOff),
        ] {
            assert_eq!(of(option, value).map(|hazard| hazard.weight), Some(weight), "{option}={value:?}");
            assert!(catalogue::lookup(option).is_some(), "{option} can be written");
        }
        for (option, value) in [
            ("soft", None),
            ("cache", Some("strict")),
            ("cache", Some("none")),
            ("rsize", Some("4194304")),
            ("rasize", Some("16777216")),
            ("bsize", Some("1048576")),
            ("vers", Some("3.1.1")),
        ] {
            assert_eq!(of(option, value), None, "{option}={value:?}");
        }
    }

    #[test]
    fn what_the_shipped_profiles_say_hurts_nobody() {
        for profile in ["media", "transcode", "documents", "backup"] {
            let text = format!(
                "[server.a]\nhost = \"a\"\n[share.b]\nserver = \"a\"\nsource = \"b\"\nmount_point = \"/mnt/b\"\nprofile = \"{profile}\"\n"
            );
            let loaded = config::load(&[SourceText::new("x", text)], &shipped_profiles()).unwrap();
            let share = loaded.settings.shares.values().next().unwrap();
            let hurting = warnings(share, &KernelOptions::unknown(), Some(Version(6, 12, 0)), |_| None);
            assert!(
                hurting.iter().all(|warned| of(&warned.option, None).is_none_or(|h| h.weight == Weight::TradeOff)),
                "{hurting:?}"
            );
        }
    }

    #[test]
    fn what_the_kernel_does_not_know_is_said_by_its_list_or_its_version() {
        let why = |options: &str, kernel: &KernelOptions, version, option: &str| {
            let found = warned(options, kernel, version);
            found.into_iter().find(|(name, _)| name == option).map(|(_, why)| why)
        };
        let none = KernelOptions::unknown();
        let (old, new) = (Some(Version(6, 1, 0)), Some(Version(6, 12, 0)));
        let said = "Linux 6.1 does not know it (6.8 and newer do), so it is left out";
        assert_eq!(why("", &none, old, "retrans=3").as_deref(), Some(said));
        assert_eq!(why("", &none, new, "retrans=3"), None);
        assert_eq!(why("", &none, None, "retrans=3"), None, "nothing is known");
        let listed = KernelOptions::parse("soft:noflag\nrsize:u32\nretrans:u32\n");
        assert_eq!(why("", &listed, old, "retrans=3"), None, "its list says more than its version");
        let said = "this kernel does not know it, and refuses the mount";
        assert_eq!(why("compress = true", &listed, new, "compress").as_deref(), Some(said));
        assert_eq!(why("", &listed, new, "nosuid"), None, "an attribute of the mount");
    }

    #[test]
    fn a_number_that_is_another_in_force_is_said() {
        let found = warned("", &KernelOptions::unknown(), None);
        assert_eq!(found, [("rsize=1048576".to_owned(), "65536 is in force".to_owned())]);
    }
}
