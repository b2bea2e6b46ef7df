//! Known bugs of the kernel's CIFS client that harm a share or the host, and whether a kernel has them.
//!
//! Left out are bugs that every kernel has, those of what no share can use (multichannel, SMB 1), and those that name no version.
//! A stable series that got a fix in a release that is not known, and a kernel whose distributor fixes it in its own way, **may**
//! have the bug: that is said as a note and never as a fact.

use core::fmt;

use crate::config::settings::{OptionValue, ShareSettings};

/// Major, minor and patch number of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(major, minor, 0) => write!(f, "{major}.{minor}"),
            Self(major, minor, patch) => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

/// Where a kernel has its fixes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixes {
    /// From the stable release that it names.
    Stable,
    /// Also from elsewhere, or from a release that it does not name.
    Own,
}

/// A kernel as its names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The release of kernel.org that it is made from, as far as that is known.
    pub version: Version,
    /// Whether that says which fixes it has.
    pub fixes: Fixes,
}

impl Kernel {
    /// From `uname -r`, `uname -v` and, if there is one, `/proc/version_signature`; `None` if the first is no version.
    ///
    /// Debian's stable kernels keep one release, `6.1.0-44-amd64`, and name what they are made from in the version:
    /// `#1 SMP PREEMPT_DYNAMIC Debian 6.1.162-1 (2026-02-01)`. Ubuntu does in the signature: `Ubuntu 6.8.0-51.52-generic 6.8.12`.
    pub fn parse(release: &str, version: &str, signature: Option<&str>) -> Option<Self> {
        let (named, rest) = leading_version(release)?;
        let of_debian = version.split_once("Debian ").and_then(|(_, rest)| leading_version(rest));
        let of_ubuntu = signature.and_then(|text| leading_version(text.split_whitespace().next_back()?));
        if let Some((version, rest)) = of_debian {
            return Some(Self { version, fixes: if rest.starts_with("~rc") { Fixes::Own } else { Fixes::Stable } });
        }
        if let Some((version, _)) = of_ubuntu {
            return Some(Self { version, fixes: Fixes::Own });
        }
        // `6.4.0-150600.23-default`, `5.14.0-503.el9`: the patch number stays 0 whatever is fixed; Proxmox takes Ubuntu's
        let stays = named.2 == 0 && rest.starts_with('-');
        let own = stays || ["-rc", ".el", "-pve"].iter().any(|mark| rest.contains(mark)) || version.contains("Ubuntu");
        Some(Self { version: named, fixes: if own { Fixes::Own } else { Fixes::Stable } })
    }
}

/// `6.12.117+deb13-amd64`: the numbers, and what follows them. A missing patch number is 0.
fn leading_version(text: &str) -> Option<(Version, &str)> {
    let (major, rest) = leading_number(text)?;
    let (minor, rest) = leading_number(rest.strip_prefix('.')?)?;
    match rest.strip_prefix('.').and_then(leading_number) {
        Some((patch, rest)) => Some((Version(major, minor, patch), rest)),
        None => Some((Version(major, minor, 0), rest)),
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A stable series that got the fix, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backport {
    /// Major and minor number.
    series: (u32, u32),
    /// The first patch number with the fix; `None` if it is not known.
    since: Option<u32>,
}

const fn since(major: u32, minor: u32, patch: u32) -> Backport {
    Backport { series: (major, minor), since: Some(patch) }
}

const fn unknown(major: u32, minor: u32) -> Backport {
    Backport { series: (major, minor), since: None }
}

/// Which shares a bug concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// All.
    All,
    /// Those with this option; with this value, if one is given.
    With(&'static str, Option<&'static str>),
    /// Those without this option.
    Without(&'static str),
}

impl Concerns {
    /// Does it concern this share?
    pub fn share(self, share: &ShareSettings) -> bool {
        match self {
            Self::All => true,
            Self::With(name, wanted) => match (share.options.get(name), wanted) {
                (Some(OptionValue::Value(value)), Some(wanted)) => value == wanted,
                (option, wanted) => option.is_some() && wanted.is_none(),
            },
            Self::Without(name) => !share.options.contains_key(name),
        }
    }
}

/// How bad a bug is for a host that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Damaged data or memory, or calls that never end.
    Grave,
    /// Something that nasmount avoids, or that is rare.
    Slight,
}

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bug {
    /// kebab-case.
    pub id: &'static str,
    /// What happens.
    pub what: &'static str,
    /// The first release with it.
    from: Version,
    /// The first release without it.
    fixed: Version,
    backports: &'static [Backport],
    /// Whom it concerns.
    pub concerns: Concerns,
    /// How bad it is.
    pub harm: Harm,
    /// What helps besides another kernel.
    pub instead: Option<&'static str>,
    /// Where this is known from.
    pub source: &'static str,
}

/// Whether a kernel has a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// It has.
    Yes,
    /// It has, unless its series or its distributor has taken the fix over.
    Maybe,
    /// It has not.
    No,
}

impl Bug {
    /// Has this kernel the bug?
    pub fn of(&self, kernel: Kernel) -> Has {
        let Kernel { version, fixes } = kernel;
        if version < self.from || version >= self.fixed {
            return Has::No;
        }
        let series = self.backports.iter().find(|backport| backport.series == (version.0, version.1));
        match (series.map(|backport| backport.since), fixes) {
            (Some(Some(patch)), _) if version.2 >= patch => Has::No,
            (Some(None), _) | (_, Fixes::Own) => Has::Maybe,
            (Some(Some(_)) | None, Fixes::Stable) => Has::Yes,
        }
    }

    /// Which releases are without it, in words.
    pub fn fixed_in(&self) -> String {
        let backports = self.backports.iter();
        let known = backports.filter_map(|Backport { series, since }| Some(Version(series.0, series.1, (*since)?)));
        let mut all: Vec<Version> = known.chain([self.fixed]).collect();
        all.sort();
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// All, the worst first.
pub const BUGS: &[Bug] = &[
    Bug {
        id: "kernel-netfs-corruption",
        what: "damages files that are written",
        from: Version(6, 10, 0),
        fixed: Version(6, 11, 0),
        backports: &[],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "linux-cifs, on 3ee1a1fc3981 of 6.10: flatpak, ostree and ffmpeg files; kernel bug 218902",
    },
    Bug {
        id: "kernel-request-double-put",
        what: "uses the memory of a read or write after it was freed",
        from: Version(6, 15, 3),
        fixed: Version(6, 16, 0),
        backports: &[since(6, 15, 6)],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "netfs, fixes 2b1424cd131c: 6.16-rc5, 6.15.6",
    },
    Bug {
        id: "kernel-write-retry",
        what: "reads beyond its buffer when a write is repeated, as after each outage",
        from: Version(6, 10, 0),
        fixed: Version(6, 16, 0),
        backports: &[since(6, 15, 3), since(6, 12, 37)],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "netfs, 4481f7f2b3df: 6.16-rc1, 6.15.3; stable review of 6.12.37, 2025-07-08",
    },
    Bug {
        id: "kernel-writeback-corruption",
        what: "can write zeros instead of data when a file is written from two places",
        from: Version(6, 3, 0),
        fixed: Version(6, 10, 0),
        backports: &[unknown(6, 6)],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: Some("options = { cache = \"none\" } for shares that are written to"),
        source: "linux-cifs, reports on 6.6.52 and 6.6.71; 6.6 after November 2025",
    },
    Bug {
        id: "kernel-negotiate-hang",
        what: "hangs for ever when a server takes the connection and does not answer on it, and umount with it",
        from: Version(0, 0, 0),
        fixed: Version(6, 11, 0),
        backports: &[unknown(6, 10), since(6, 6, 53), since(6, 1, 112)],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "7ccc1465465d: 6.11-rc7, announcement of 6.6.53, stable review of 6.1.112, September 2024",
    },
    Bug {
        id: "kernel-zero-io-size",
        what: "reads and writes nothing after a reconnect: its sizes are zero",
        from: Version(6, 14, 0),
        fixed: Version(6, 15, 0),
        backports: &[unknown(6, 14)],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "linux-cifs: 6.15-rc7",
    },
    Bug {
        id: "kernel-broken-mounts",
        what: "cannot mount shares as it should",
        from: Version(6, 0, 16),
        fixed: Version(6, 0, 18),
        backports: &[],
        concerns: Concerns::All,
        harm: Harm::Grave,
        instead: None,
        source: "linux-cifs: 6.0.18",
    },
    Bug {
        id: "kernel-unbuffered-write-error",
        what: "can crash when a write fails on a share with cache=none",
        from: Version(6, 10, 0),
        fixed: Version(6, 17, 0),
        backports: &[since(6, 16, 4), since(6, 12, 44)],
        concerns: Concerns::With("cache", Some("none")),
        harm: Harm::Grave,
        instead: Some("options = { cache = \"strict\" }"),
        source: "netfs, a3de58b12ce0: 6.17-rc3, stable reviews of 2025-08-26",
    },
    Bug {
        id: "kernel-seal-write-retry",
        what: "can damage what is written on an encrypted share (seal) when a write is repeated, as after each outage",
        from: Version(6, 3, 0),
        fixed: Version(7, 0, 0),
        backports: &[unknown(6, 6), unknown(6, 12), unknown(6, 18), unknown(6, 19)],
        concerns: Concerns::With("seal", None),
        harm: Harm::Grave,
        instead: Some("options without `seal`"),
        source: "linux-cifs, March 2026, for stable",
    },
    Bug {
        id: "kernel-directory-leases",
        what: "can crash or leave a mount behind when it is unmounted: it keeps directories open",
        from: Version(6, 1, 0),
        fixed: Version(6, 18, 0),
        backports: &[unknown(6, 1), unknown(6, 6), unknown(6, 12)],
        concerns: Concerns::Without("nohandlecache"),
        harm: Harm::Grave,
        instead: Some("options = { nohandlecache = true }"),
        source: "linux-cifs: 6.13, 6.15-rc6, 6.18-rc4 to rc7",
    },
    Bug {
        id: "kernel-write-deadlock",
        what: "can deadlock when it reconnects in the middle of writing back",
        from: Version(5, 4, 0),
        fixed: Version(6, 3, 0),
        backports: &[],
        concerns: Concerns::All,
        harm: Harm::Slight,
        instead: None,
        source: "linux-cifs, January 2025, on 5.4 to 6.1; reworked in 6.3",
    },
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DEBIAN_12: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.162-1 (2026-02-01)";

    fn kernel(release: &str) -> Kernel {
        Kernel::parse(release, "#1 SMP PREEMPT_DYNAMIC", None).unwrap()
    }

    #[test]
    fn a_kernel_is_known_by_the_release_that_it_is_made_from() {
        let of = |release, version, signature| {
            let kernel = Kernel::parse(release, version, signature)?;
            Some((kernel.version.to_string(), kernel.fixes))
        };
        let stable = |version: &str| Some((version.to_owned(), Fixes::Stable));
        let own = |version: &str| Some((version.to_owned(), Fixes::Own));
        let debian_13 = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-01)";
        assert_eq!(of("6.12.117+deb13-amd64", debian_13, None), stable("6.12.117"));
        assert_eq!(of("6.1.0-44-amd64", DEBIAN_12, None), stable("6.1.162"));
        assert_eq!(of("6.1.0-44-amd64", "#1 SMP", None), own("6.1"));
        assert_eq!(of("6.12-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12~rc6-1~exp1 (2024-11-10)", None), own("6.12"));
        assert_eq!(of("6.15.4-200.fc42.x86_64", "#1 SMP PREEMPT_DYNAMIC", None), stable("6.15.4"));
        assert_eq!(of("6.16.1-arch1-1", "#1 SMP PREEMPT_DYNAMIC", None), stable("6.16.1"));
        assert_eq!(of("6.16", "#1", None), stable("6.16"));
        assert_eq!(of("6.16.0-rc3+", "#1", None), own("6.16"));
        assert_eq!(of("5.14.0-503.11.1.el9_5.x86_64", "#1 SMP PREEMPT_DYNAMIC", None), own("5.14"));
        let signature = Some("Ubuntu 6.8.0-51.52-generic 6.8.12\n");
        assert_eq!(of("6.8.0-51-generic", "#52-Ubuntu SMP PREEMPT_DYNAMIC", signature), own("6.8.12"));
        assert_eq!(of("6.8.0-51-generic", "#52-Ubuntu SMP PREEMPT_DYNAMIC", None), own("6.8"));
        assert_eq!(of("6.8.12-4-pve", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4 (2024-11-06)", None), own("6.8.12"));
        assert_eq!(of("6.12.47+rpt-rpi-v8", "#1 SMP PREEMPT Debian 1:6.12.47-1+rpt1", None), stable("6.12.47"));
        assert_eq!(of("linux", "#1", None), None);
        assert_eq!(of("6", "#1", None), None);
        assert_eq!(of("99999999999.1", "#1", None), None);
    }

    /// Of the bugs that concern all, which a kernel has, and which it may have.
    fn bugs(kernel: Kernel) -> (Vec<&'static str>, Vec<&'static str>) {
        let all = BUGS.iter().filter(|bug| bug.concerns == Concerns::All);
        let of = |has| all.clone().filter(|bug| bug.of(kernel) == has).map(|bug| bug.id).collect();
        (of(Has::Yes), of(Has::Maybe))
    }

    #[test]
    fn each_kernel_has_the_bugs_of_its_time() {
        let (hang, retry) = ("kernel-negotiate-hang", "kernel-write-retry");
        let none: Vec<&str> = Vec::new();
        assert_eq!(bugs(Kernel::parse("6.1.0-44-amd64", DEBIAN_12, None).unwrap()).0, ["kernel-write-deadlock"]);
        assert_eq!(bugs(kernel("6.1.111")).0, [hang, "kernel-write-deadlock"]);
        assert_eq!(bugs(kernel("6.1.0-44-amd64")), (none.clone(), vec![hang, "kernel-write-deadlock"]));
        assert_eq!(bugs(kernel("6.0.17")).0, [hang, "kernel-broken-mounts", "kernel-write-deadlock"]);
        assert_eq!(bugs(kernel("6.0.18")).0, [hang, "kernel-write-deadlock"]);
        assert_eq!(bugs(kernel("6.6.52")), (vec![hang], vec!["kernel-writeback-corruption"]));
        assert_eq!(bugs(kernel("6.6.53")), (none.clone(), vec!["kernel-writeback-corruption"]));
        assert_eq!(bugs(kernel("6.8.12")).0, ["kernel-writeback-corruption", hang]);
        assert_eq!(bugs(kernel("6.10.3")), (vec!["kernel-netfs-corruption", retry], vec![hang]));
        assert_eq!(bugs(kernel("6.12.36")), (vec![retry], none.clone()));
        assert_eq!(bugs(kernel("6.12.37")), (none.clone(), none.clone()));
        assert_eq!(bugs(kernel("6.14.2")), (vec![retry], vec!["kernel-zero-io-size"]));
        assert_eq!(bugs(kernel("6.15.2")).0, [retry]);
        assert_eq!(bugs(kernel("6.15.5")).0, ["kernel-request-double-put"]);
        for healthy in ["6.12.117+deb13-amd64", "6.15.6", "6.16", "6.18.44", "7.0.1"] {
            assert_eq!(bugs(kernel(healthy)), (none.clone(), none.clone()), "{healthy}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        let mut ids: Vec<&str> = BUGS.iter().map(|bug| bug.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), BUGS.len(), "an id twice");
        for bug in BUGS {
            assert!(bug.from < bug.fixed && !bug.source.is_empty(), "{}", bug.id);
            for Backport { series: (major, minor), since } in bug.backports {
                let from_there = Version(*major, *minor, since.unwrap_or(1));
                assert!(bug.from <= from_there && from_there < bug.fixed, "{}: {from_there}", bug.id);
            }
        }
        assert_eq!(BUGS[2].fixed_in(), "6.12.37, 6.15.3, 6.16");
    }
}
