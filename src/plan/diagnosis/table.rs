//! What people meet, and what it means: the words of the kernel and the numbers of its errors, each with the step that it belongs to,
//! a cause and what to do.
//!
//! The kernel maps some hundred NT statuses to some thirty numbers (`smb2_error_map_table`, fs/smb/client/smb2maperror.c), so that a
//! status in its log says more than the number. It logs those of a login; that of a share that is not there only once in a boot
//! (`VFS | ONCE` in `SMB2_tcon`), which is why the worker tries for itself whether it is the share or the directory.

use super::{Part, Step};

/// A word in the kernel's log.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// As the kernel writes it.
    pub word: &'static str,
    /// The step that failed.
    pub step: Step,
    /// Why: a sentence without a full stop.
    pub cause: &'static str,
    /// What to do: the same.
    pub fix: &'static str,
}

/// An error number.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// At what it was met.
    pub part: Part,
    /// The number (asm-generic).
    pub errno: i32,
    /// Its name.
    pub name: &'static str,
    /// The step that failed.
    pub step: Step,
    /// Why: a sentence without a full stop.
    pub cause: &'static str,
    /// What to do: the same.
    pub fix: &'static str,
}

const fn login(word: &'static str, cause: &'static str, fix: &'static str) -> Word {
    Word { word, step: Step::Login, cause, fix }
}

const fn share(word: &'static str, cause: &'static str, fix: &'static str) -> Word {
    Word { word, step: Step::Share, cause, fix }
}

const fn number(
    part: Part,
    (errno, name): (i32, &'static str),
    step: Step,
    cause: &'static str,
    fix: &'static str,
) -> Number {
    Number { part, errno, name, step, cause, fix }
}

const CHECK_PASSWORD: &str = "check `username` and `password` in the credentials file, and on the server that the user exists and may use \
     SMB (Samba has passwords of its own: `smbpasswd -a NAME`)";
const CHECK_SHARE: &str = "compare `source` with the list of shares on the server: upper and lower case rarely matter, blanks do; is its volume mounted there?";
const ALLOW_USER: &str = "give the user access to the share on the server (its list of users, or `valid users`)";
const CONNECTION_LOST: &str = "try again; if it happens again, look into the server's log and at the network between";

/// In the order in which they count.
pub const WORDS: &[Word] = &[
    login("STATUS_LOGON_FAILURE", "the server does not know this user, or has another password for it", CHECK_PASSWORD),
    login("STATUS_WRONG_PASSWORD", "the password is wrong", CHECK_PASSWORD),
    login("STATUS_NO_SUCH_USER", "the server does not know this user", CHECK_PASSWORD),
    login(
        "STATUS_ACCOUNT_LOCKED_OUT",
        "the server has locked the account after too many failed logins",
        "find out who still logs in with an old password, then unlock the account on the server",
    ),
    login("STATUS_ACCOUNT_DISABLED", "the account is disabled", "enable it on the server, or use another user"),
    login("STATUS_ACCOUNT_EXPIRED", "the account has expired", "extend it on the server, or use another user"),
    login(
        "STATUS_ACCOUNT_RESTRICTION",
        "the account may not log in over the network: its password is empty, or the server's rules forbid it",
        "give the user a password, and lift the restriction on the server",
    ),
    login(
        "STATUS_PASSWORD_EXPIRED",
        "the password has expired",
        "set a new one on the server and in the credentials file",
    ),
    login(
        "STATUS_PASSWORD_MUST_CHANGE",
        "the user has to change the password before the first login",
        "set a new one on the server and in the credentials file",
    ),
    login(
        "STATUS_INVALID_LOGON_HOURS",
        "the account may not log in at this hour",
        "widen its hours on the server, and compare the clocks",
    ),
    login(
        "STATUS_INVALID_WORKSTATION",
        "the account may not log in from this host",
        "add this host to the account's workstations on the server",
    ),
    login(
        "STATUS_LOGON_TYPE_NOT_GRANTED",
        "the account may not log in over the network",
        "grant it `access this computer from the network` on the server",
    ),
    login(
        "STATUS_NO_SUCH_DOMAIN",
        "the server does not know the domain",
        "check `domain` in the credentials file, or leave it out",
    ),
    login(
        "STATUS_TRUSTED_DOMAIN_FAILURE",
        "the server does not trust the user's domain",
        "check `domain` in the credentials file, or use an account of the server itself",
    ),
    login(
        "STATUS_NO_LOGON_SERVERS",
        "the server reaches no domain controller to check the login with",
        "look at the server's connection to its domain, or use an account of the server itself",
    ),
    login(
        "STATUS_TIME_DIFFERENCE_AT_DC",
        "the clocks of this host and of the domain controller differ too much",
        "have both set by NTP",
    ),
    login(
        "STATUS_TOO_MANY_SESSIONS",
        "the server has as many sessions as it takes",
        "end some on the server; Windows for desktops takes twenty",
    ),
    login(
        "STATUS_REQUEST_NOT_ACCEPTED",
        "the server has as many sessions as it takes",
        "end some on the server; Windows for desktops takes twenty",
    ),
    login(
        "STATUS_INSUFF_SERVER_RESOURCES",
        "the server is out of memory or sessions",
        "restart its SMB service, and look what uses it up",
    ),
    login(
        "STATUS_INSUFFICIENT_RESOURCES",
        "the server is out of memory or sessions",
        "restart its SMB service, and look what uses it up",
    ),
    login(
        "STATUS_NOT_SUPPORTED",
        "the server takes no login of this kind: NTLM is switched off there, or `sec` names something else than it has",
        "allow NTLMv2 on the server, or leave `sec` out of `options`",
    ),
    share("BAD_NETWORK_NAME", "the server has no share of this name", CHECK_SHARE),
    share("STATUS_NETWORK_ACCESS_DENIED", "the login is right, and this user may not use the share", ALLOW_USER),
    share(
        "STATUS_NETWORK_NAME_DELETED",
        "the share was removed or changed in this moment",
        "try again; if it stays so, look whether it is still there on the server",
    ),
    Word {
        word: "Encryption is requested but not supported",
        step: Step::Share,
        cause: "`seal` asks for encryption, and the server has none",
        fix: "switch encryption on at the server, or take `seal` out of `options`",
    },
    login(
        "STATUS_ACCESS_DENIED",
        "the server refuses this login, whatever the password: guests, or what is neither signed nor encrypted",
        "use a user with a password; if there is one, look at what the server demands of clients, and into its log",
    ),
    login(
        "SMB signature verification returned error",
        "answers of the server are signed wrongly: the session key is another, or somebody changes them on the way",
        CHECK_PASSWORD,
    ),
];

use Part::{Create, Options, Read, Write};

const EPERM: (i32, &str) = (1, "EPERM");
const ENOENT: (i32, &str) = (2, "ENOENT");
const EIO: (i32, &str) = (5, "EIO");
const EAGAIN: (i32, &str) = (11, "EAGAIN");
const EACCES: (i32, &str) = (13, "EACCES");
const ENODEV: (i32, &str) = (19, "ENODEV");
const EINVAL: (i32, &str) = (22, "EINVAL");
const EREMOTEIO: (i32, &str) = (121, "EREMOTEIO");
const EHOSTDOWN: (i32, &str) = (112, "EHOSTDOWN");

const ITS_DISK: &str = "look at the state of its disks and file system, and into its log";

/// No two of the same part and number.
pub const NUMBERS: &[Number] = &[
    number(
        Options,
        EPERM,
        Step::Options,
        "this process may not mount",
        "run it as root on the host, not in a container",
    ),
    number(
        Options,
        ENODEV,
        Step::Options,
        "this kernel has no CIFS",
        "install the module (Debian: package linux-image-amd64 instead of linux-image-cloud-amd64)",
    ),
    number(
        Options,
        (38, "ENOSYS"),
        Step::Options,
        "this kernel has no mount API for CIFS",
        "nasmount needs Linux 5.13 or newer",
    ),
    number(
        Options,
        EINVAL,
        Step::Options,
        "the kernel refuses an option or its value",
        "correct it in `options`; `nasmount explain` says where it comes from",
    ),
    number(
        Create,
        EACCES,
        Step::Login,
        "the server refuses the login, or this user may not use the share",
        CHECK_PASSWORD,
    ),
    number(Create, EPERM, Step::Login, "the server refuses the login", CHECK_PASSWORD),
    number(
        Create,
        (126, "ENOKEY"),
        Step::Login,
        "there is no Kerberos ticket for this login",
        "get one for the mounting user (`kinit`, a keytab), or use a credentials file and no `sec=krb5`",
    ),
    number(
        Create,
        (127, "EKEYEXPIRED"),
        Step::Login,
        "the password or the Kerberos ticket has expired",
        "set a new password on the server and in the credentials file, or renew the ticket",
    ),
    number(
        Create,
        (128, "EKEYREVOKED"),
        Step::Login,
        "the account is disabled",
        "enable it on the server, or use another user",
    ),
    number(Create, (129, "EKEYREJECTED"), Step::Login, "the server refuses the login", CHECK_PASSWORD),
    number(
        Create,
        (95, "EOPNOTSUPP"),
        Step::Login,
        "the kernel and the server agree on no version, or on nothing else that an option asks for",
        "take `vers`, `sec`, `seal` and what else is special out of `options` until it works",
    ),
    number(
        Create,
        EHOSTDOWN,
        Step::Login,
        "the server ends the kernel's connections, or does not answer on them: most often one that speaks SMB 1 only",
        "switch SMB 2 or 3 on at the server and restart its SMB service; if it was asked often, it may have blocked this host",
    ),
    number(
        Create,
        (111, "ECONNREFUSED"),
        Step::Login,
        "the kernel's connection is refused, while nasmount's own is taken: a packet filter between, or nasmount's fence",
        "look at `nasmount status` and `nft list ruleset`; a fence is lifted when the server is back",
    ),
    number(
        Create,
        (115, "EINPROGRESS"),
        Step::Login,
        "the kernel's connection is not answered, while nasmount's own is: a packet filter between",
        "look at `nft list ruleset` and at the server's firewall",
    ),
    number(
        Create,
        (110, "ETIMEDOUT"),
        Step::Login,
        "the kernel's connection is not answered, while nasmount's own is: a packet filter between",
        "look at `nft list ruleset` and at the server's firewall",
    ),
    number(
        Create,
        (113, "EHOSTUNREACH"),
        Step::Login,
        "the server could be reached a moment ago, and cannot now",
        CONNECTION_LOST,
    ),
    number(
        Create,
        (101, "ENETUNREACH"),
        Step::Login,
        "the server could be reached a moment ago, and cannot now",
        CONNECTION_LOST,
    ),
    number(
        Create,
        (104, "ECONNRESET"),
        Step::Login,
        "the server ended the connection during the login",
        "does it let this host in (`hosts allow`, its list of blocked addresses)? Its log says why it ended it",
    ),
    number(
        Create,
        (103, "ECONNABORTED"),
        Step::Login,
        "the server ended the connection during the login",
        "does it let this host in (`hosts allow`, its list of blocked addresses)? Its log says why it ended it",
    ),
    number(
        Create,
        EAGAIN,
        Step::Login,
        "the connection was lost during the login, or the server is out of resources",
        CONNECTION_LOST,
    ),
    number(Create, ENOENT, Step::Share, "the server has no share of this name", CHECK_SHARE),
    number(Create, (6, "ENXIO"), Step::Share, "the server has no share of this name", CHECK_SHARE),
    number(
        Create,
        ENODEV,
        Step::Share,
        "what lies behind the share is not there: most often a disk",
        "look whether its volume is mounted on the server",
    ),
    number(
        Create,
        (16, "EBUSY"),
        Step::Share,
        "the server is too busy, or the share is being changed",
        "try again in a minute",
    ),
    number(
        Create,
        (78, "EREMCHG"),
        Step::Share,
        "the share was removed or changed in this moment",
        "try again; if it stays so, look whether it is still there on the server",
    ),
    number(
        Create,
        (20, "ENOTDIR"),
        Step::Path,
        "what `source` names in the share is a file",
        "name a directory, or the share alone",
    ),
    number(
        Create,
        (66, "EREMOTE"),
        Step::Path,
        "the share refers to another server (DFS)",
        "name that server and its share in the configuration",
    ),
    number(
        Create,
        (40, "ELOOP"),
        Step::Path,
        "the share refers to itself over several servers (DFS)",
        "name the server and the share that it leads to",
    ),
    number(
        Create,
        EINVAL,
        Step::Mount,
        "the kernel refuses a combination of options, or an answer of the server",
        "the kernel's log says which; leave options out until it works",
    ),
    number(
        Create,
        EIO,
        Step::Mount,
        "the server answers something that the kernel has no number for, or cannot understand",
        "the kernel's log has the status; look into the server's log as well",
    ),
    number(Create, EREMOTEIO, Step::Mount, "the server reports an input/output error of its own", ITS_DISK),
    number(Create, (12, "ENOMEM"), Step::Mount, "this host has no memory for the mount", "free some"),
    number(
        Read,
        EACCES,
        Step::Read,
        "this user may use the share, and not list its directory",
        "give the user the right to read it on the server: on the share, and on the directory itself",
    ),
    number(
        Read,
        ENOENT,
        Step::Read,
        "the directory has just been removed",
        "look whether its volume is mounted on the server",
    ),
    number(Read, EHOSTDOWN, Step::Read, "the connection was lost while reading", CONNECTION_LOST),
    number(Read, EAGAIN, Step::Read, "the connection was lost while reading", CONNECTION_LOST),
    number(Read, EIO, Step::Read, "the server cannot read its own directory", ITS_DISK),
    number(Read, EREMOTEIO, Step::Read, "the server cannot read its own directory", ITS_DISK),
    number(
        Write,
        EACCES,
        Step::Write,
        "this user may read, and not write: the share is read-only, or the directory belongs to somebody else",
        "allow writing on the server: on the share (`read only = no`), and on the directory itself",
    ),
    number(
        Write,
        EPERM,
        Step::Write,
        "this user may read, and not write",
        "allow writing on the server: on the share (`read only = no`), and on the directory itself",
    ),
    number(
        Write,
        (30, "EROFS"),
        Step::Write,
        "the volume is read-only on the server",
        "a snapshot is always so; a disk becomes so after an error: look into the server's log",
    ),
    number(Write, (28, "ENOSPC"), Step::Write, "the volume is full", "delete something; a snapshot may keep the space"),
    number(
        Write,
        (122, "EDQUOT"),
        Step::Write,
        "the user has used up the quota",
        "delete something, or raise it on the server",
    ),
    number(Write, EHOSTDOWN, Step::Write, "the connection was lost while writing", CONNECTION_LOST),
    number(Write, EAGAIN, Step::Write, "the connection was lost while writing", CONNECTION_LOST),
    number(
        Write,
        EIO,
        Step::Write,
        "the server cannot write to its disk, or what was read back is not what was written",
        ITS_DISK,
    ),
    number(Write, EREMOTEIO, Step::Write, "the server cannot write to its disk", ITS_DISK),
];
