//! The mount options of the kernel's CIFS client: their forms and limits, and those that a user may not set.
//!
//! Names and limits are those of `smb3_fs_parameters` in the kernel's fs/smb/client/fs_context.c (read at 6.8 and
//! 6.17..6.19). A kernel may know more or fewer: `/proc/fs/cifs/mount_params` tells, see
//! [`super::options::KernelOptions`].

/// fsconfig takes keys and values of at most 255 bytes (measured: 256 is EINVAL with an empty log).
pub const VALUE_MAX: usize = 255;

/// Form of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// No value.
    Flag,
    /// A whole number within limits and a multiple of the third.
    Number {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
        /// The value is a multiple of this.
        multiple: u64,
    },
    /// File mode: octal digits.
    Mode,
    /// User or group: a number, or a name that the daemon resolves before the mount.
    Account,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// What becomes of an option that the running kernel does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnknown {
    /// It is left out and reported: the share works without it.
    Drop,
    /// It is passed, and the kernel refuses the mount: leaving it out would change what the share means or protects.
    Pass,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOption {
    /// Its name.
    pub name: &'static str,
    /// Form of its value.
    pub form: Form,
    /// What to do where the kernel lacks it.
    pub when_unknown: WhenUnknown,
}

const fn flag(name: &'static str) -> KnownOption {
    KnownOption { name, form: Form::Flag, when_unknown: WhenUnknown::Pass }
}

const fn number(name: &'static str, min: u64, max: u64, multiple: u64) -> KnownOption {
    KnownOption { name, form: Form::Number { min, max, multiple }, when_unknown: WhenUnknown::Pass }
}

const fn with(name: &'static str, form: Form) -> KnownOption {
    KnownOption { name, form, when_unknown: WhenUnknown::Pass }
}

const fn tuning(option: KnownOption) -> KnownOption {
    KnownOption { when_unknown: WhenUnknown::Drop, ..option }
}

/// Upper limit of times in seconds: the kernel allows 2^30 jiffies, which is 12 days at 1000 Hz.
const CACHE_SECONDS_MAX: u64 = 86_400;
/// Transfer sizes are multiples of a page (rounded with a warning since 6.15, so refused here) ...
const PAGE: u64 = 4096;
/// ... and stay below 8 MiB, Samba's "smb2 max read" and "smb2 max write".
const IO_SIZE_MAX: u64 = (8 << 20) - PAGE;

/// Every option that may be written in a profile or a share.
pub const KNOWN: &[KnownOption] = &[
    // Time and transport.
    flag("soft"),
    flag("hard"),
    tuning(number("retrans", 0, 100, 1)), // since 6.8
    number("echo_interval", 1, 600, 1),   // SMB_ECHO_INTERVAL_MIN and _MAX
    number("rsize", PAGE, IO_SIZE_MAX, PAGE),
    number("wsize", PAGE, IO_SIZE_MAX, PAGE),
    tuning(number("rasize", 1 << 20, 32 << 20, PAGE)), // since 5.13
    number("bsize", 16 << 10, 16 << 20, PAGE),
    number("max_credits", 20, 60_000, 1),
    number("handletimeout", 0, 960_000, 1), // milliseconds
    number("esize", 0, u32::MAX as u64, 1),
    number("min_enc_offload", 0, u32::MAX as u64, 1),
    with("snapshot", Form::Text),
    with("srcaddr", Form::Text),
    flag("noblocksend"),
    flag("noautotune"),
    flag("tcpnodelay"),
    flag("notcpnodelay"),
    // Caches.
    with("cache", Form::Word(&["strict", "none", "loose", "ro", "singleclient"])),
    number("actimeo", 0, CACHE_SECONDS_MAX, 1),
    number("acregmax", 0, CACHE_SECONDS_MAX, 1),
    number("acdirmax", 0, CACHE_SECONDS_MAX, 1),
    tuning(number("closetimeo", 0, CACHE_SECONDS_MAX, 1)), // since 6.0
    tuning(flag("nohandlecache")),
    tuning(flag("handlecache")),
    tuning(number("max_cached_dirs", 1, 65_000, 1)), // since 6.6
    flag("nolease"),
    flag("locallease"),
    flag("noac"),
    flag("fsc"),
    flag("strictsync"),
    flag("nostrictsync"),
    // Dialect and protection.
    with("vers", Form::Word(&["3.1.1", "3.11", "3.0.2", "3.02", "3.0", "3", "2.1", "2.0", "default"])),
    with("sec", Form::Word(&["ntlmssp", "ntlmsspi", "ntlmv2", "ntlmv2i", "krb5", "krb5i"])),
    with("cruid", Form::Account),
    with("upcall_target", Form::Word(&["mount", "app"])),
    flag("seal"),
    flag("sign"),
    flag("ignore_signature"),
    flag("persistenthandles"),
    flag("nopersistenthandles"),
    flag("resilienthandles"),
    flag("noresilienthandles"),
    flag("compress"),
    flag("witness"),
    with("netbiosname", Form::Text),
    with("servern", Form::Text),
    // Owners, modes, names.
    with("uid", Form::Account),
    with("gid", Form::Account),
    with("backupuid", Form::Account),
    with("backupgid", Form::Account),
    with("file_mode", Form::Mode),
    with("dir_mode", Form::Mode),
    flag("forceuid"),
    flag("noforceuid"),
    flag("forcegid"),
    flag("noforcegid"),
    flag("perm"),
    flag("noperm"),
    flag("dynperm"),
    flag("nodynperm"),
    flag("setuids"),
    flag("nosetuids"),
    flag("multiuser"),
    flag("cifsacl"),
    flag("acl"),
    flag("noacl"),
    flag("modefromsid"),
    flag("idsfromsid"),
    flag("user_xattr"),
    flag("nouser_xattr"),
    flag("serverino"),
    flag("noserverino"),
    flag("mapposix"),
    flag("nomapposix"),
    flag("mapchars"),
    flag("nomapchars"),
    flag("sfu"),
    flag("nosfu"),
    flag("mfsymlinks"),
    with("reparse", Form::Word(&["default", "none", "nfs", "wsl"])),
    with("symlink", Form::Word(&["default", "none", "native", "unix", "mfsymlinks", "sfu", "nfs", "wsl"])),
    with("symlinkroot", Form::Text),
    with("iocharset", Form::Text),
    flag("nocase"),
    flag("ignorecase"),
    flag("unix"),
    flag("nounix"),
    flag("posix"),
    flag("noposix"),
    flag("linux"),
    flag("nolinux"),
    // Locks and files.
    flag("brl"),
    flag("nobrl"),
    flag("forcemandatorylock"),
    flag("rwpidforward"),
    flag("nodelete"),
    flag("nosparse"),
    flag("nodfs"),
    // Of the mount, not of CIFS: see `MountAttribute`.
    flag("ro"),
    flag("rw"),
    flag("nosuid"),
    flag("suid"),
    flag("nodev"),
    flag("dev"),
    flag("noexec"),
    flag("exec"),
    flag("noatime"),
    flag("relatime"),
    flag("nodiratime"),
];

/// Whom an option of [`Form::Account`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A user.
    User,
    /// A group.
    Group,
}

impl Account {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }

    /// Its database, as getent(1) calls it.
    pub const fn database(self) -> &'static str {
        match self {
            Self::User => "passwd",
            Self::Group => "group",
        }
    }
}

/// Whom the option names, if it names somebody.
pub fn account(name: &str) -> Option<Account> {
    match name {
        "uid" | "cruid" | "backupuid" => Some(Account::User),
        "gid" | "backupgid" => Some(Account::Group),
        _ => None,
    }
}

/// Looks an option up by its exact name.
pub fn lookup(name: &str) -> Option<&'static KnownOption> {
    KNOWN.iter().find(|option| option.name == name)
}

/// Why an option may not be set by a user, and what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The reason, for a message: lower case, no full stop.
    pub reason: &'static str,
    /// What to do.
    pub help: &'static str,
}

const LOGIN: Forbidden = Forbidden {
    reason: "a login does not belong in the options",
    help: "put user name, password and domain into a credentials file (mount.cifs's grammar, mode 0600) and name it in \
           [server.NAME]: credentials = \"/etc/nasmount/NAME.cred\"",
};
const ADDRESS: Forbidden = Forbidden {
    reason: "nasmount resolves the server itself and sets the address",
    help: "remove it; the address belongs in [server.NAME]: host = \"…\"",
};
const SOURCE: Forbidden =
    Forbidden { reason: "nasmount sets the source itself", help: "remove it; write source = \"share/directory\"" };
const FSTAB: Forbidden = Forbidden {
    reason: "this is a word for /etc/fstab and means nothing here",
    help: "remove it; nasmount mounts at boot without holding it up",
};
const CHANNELS: Forbidden = Forbidden {
    reason: "several connections for one share cannot be given up as one, and reconnecting them dead-locks many kernels",
    help: "remove it; nasmount uses one connection for each share",
};

/// Options that nasmount sets itself or that would break its promises.
pub fn forbidden(name: &str) -> Option<Forbidden> {
    Some(match name {
        "user" | "username" | "pass" | "password" | "pass2" | "password2" | "credentials" | "cred" | "dom"
        | "domain" | "workgroup" | "domainauto" => LOGIN,
        "guest" => Forbidden {
            reason: "guest access is chosen by the server's table",
            help: "remove it, and leave `credentials` out of [server.NAME]",
        },
        "ip" | "addr" => ADDRESS,
        "port" => Forbidden {
            reason: "nasmount always sets port=445: without it the kernel tries two ports, and takes twice as long",
            help: "remove it; another port is not supported",
        },
        "nosharesock" | "sharesock" => Forbidden {
            reason: "nasmount always sets nosharesock: only then can one share be given up without another",
            help: "remove it",
        },
        "unc" | "source" | "target" | "path" | "prefixpath" => SOURCE,
        "multichannel" | "max_channels" | "rdma" => CHANNELS,
        "context" | "fscontext" | "defcontext" | "rootcontext" => {
            Forbidden { reason: "nasmount sets no SELinux label", help: "remove it" }
        }
        "sloppy" => Forbidden { reason: "it would hide options that the kernel does not know", help: "remove it" },
        "remount" | "bind" | "rootfs" | "ver" => {
            Forbidden { reason: "nasmount decides how the share is mounted", help: "remove it" }
        }
        "fmask" => Forbidden { reason: "this is mount.cifs's name for it", help: "write file_mode = \"0644\"" },
        "dmask" | "dirmode" => Forbidden { reason: "this is another name for it", help: "write dir_mode = \"0755\"" },
        "intr" | "nointr" | "timeo" | "retry" | "bg" | "fg" | "lookupcache" | "nfsvers" => Forbidden {
            reason: "this is an option of NFS; CIFS has no such thing",
            help: "remove it; how long a dead server is waited for is set by patience = \"30s\"",
        },
        "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "users" | "nouser" | "owner" | "group" | "comment"
        | "mand" | "nomand" | "async" => FSTAB,
        // smb3_get_tree_common() passes no flags on; a remount would
        "sync" => Forbidden {
            reason: "the kernel takes it at a mount, and its CIFS client does nothing with it then",
            help: "remove it; with dirty_limit = \"0KiB\" each write waits for the server",
        },
        _ if name.starts_with("x-") || name.starts_with("X-") => FSTAB,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_listed_twice_or_both_known_and_forbidden() {
        let mut names: Vec<_> = KNOWN.iter().map(|option| option.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(names.iter().all(|name| forbidden(name).is_none()));
        assert!(names.iter().all(|name| name.len() <= VALUE_MAX));
    }

    /// A word for the wrong place is answered with the right one.
    #[test]
    fn a_forbidden_option_says_what_to_do() {
        let expected = [
            (
                "user username pass password pass2 password2 credentials cred dom domain workgroup domainauto",
                "credentials file",
            ),
            ("guest", "leave `credentials` out"),
            ("ip addr", "host ="),
            ("port", "another port"),
            (
                "nosharesock sharesock remount bind rootfs ver sloppy context fscontext defcontext rootcontext",
                "remove it",
            ),
            ("unc source target path prefixpath", "source ="),
            ("multichannel max_channels rdma", "one connection"),
            ("fmask", "file_mode"),
            ("dmask dirmode", "dir_mode"),
            ("intr nointr timeo retry bg fg lookupcache nfsvers", "patience ="),
            ("defaults auto noauto nofail _netdev users nouser owner group comment mand nomand async", "at boot"),
            ("sync", "dirty_limit = "),
            ("x-systemd.automount X-mount.mkdir", "at boot"),
        ];
        for (names, help) in expected {
            for name in names.split(' ') {
                assert!(forbidden(name).is_some_and(|forbidden| forbidden.help.contains(help)), "{name}");
            }
        }
        assert!(forbidden("rsize").is_none() && forbidden("xattr").is_none());
    }

    /// As the kernel has them (fs_context.c), but that a transfer stays a page below 8 MiB.
    #[test]
    fn sizes_have_the_kernels_bounds() {
        let bounds =
            |name: &str| KNOWN.iter().find(|option| option.name == name).map(|option| format!("{:?}", option.form));
        for (name, low, high) in
            [("rsize", "4096", "8384512"), ("rasize", "1048576", "33554432"), ("bsize", "16384", "16777216")]
        {
            let form = bounds(name).unwrap_or_default();
            assert!(form.contains(low) && form.contains(high), "{name}: {form}");
        }
    }
}
