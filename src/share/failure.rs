//! Why an operation failed, classed once: what class it is decides whether it is tried again.

use serde::{Deserialize, Serialize};

/// What a failure calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It may pass by itself: tried again with backoff.
    Transient,
    /// The login was refused: never tried again by itself, or the account is locked.
    Credentials,
    /// The configuration and the server disagree: a person is needed.
    Configuration,
    /// The server does not have what is configured, or not yet: a person may be needed, and it is looked for now and then.
    Missing,
    /// Somebody else has to do something first: tried again with backoff, said in `status`.
    Busy,
    /// A kernel call does not return: nothing is started that could only hang behind it.
    Wedged,
}

impl FailureClass {
    /// Is a person asked to look?
    pub fn needs_a_person(self) -> bool {
        match self {
            Self::Credentials | Self::Configuration | Self::Missing => true,
            Self::Transient | Self::Busy | Self::Wedged => false,
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it calls for.
    pub class: FailureClass,
    /// What was attempted on what, and the cause, for people.
    pub message: String,
    /// The raw error number, where the kernel gave one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<i32>,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Linux error numbers (asm-generic) that mount(2) of CIFS gives, as far as they decide anything. Measured on 6.1 and
/// 6.12 (wrong password: EACCES, unknown share: ENOENT, dialect refused: EOPNOTSUPP); the key errors are read at the source.
mod e {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const ENXIO: i32 = 6;
    pub const EACCES: i32 = 13;
    pub const ENODEV: i32 = 19;
    pub const EINVAL: i32 = 22;
    pub const EOPNOTSUPP: i32 = 95;
    pub const EHOSTDOWN: i32 = 112;
    pub const ENOKEY: i32 = 126;
    pub const EKEYEXPIRED: i32 = 127;
    pub const EKEYREVOKED: i32 = 128;
    pub const EKEYREJECTED: i32 = 129;
}

impl Failure {
    /// A failure that may pass by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { class: FailureClass::Transient, message: message.into(), errno: None, hint: None }
    }

    /// A failure that needs a person.
    pub fn configuration(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { class: FailureClass::Configuration, message: message.into(), errno: None, hint: Some(hint.into()) }
    }

    /// May a request through a mount have failed because its login is refused now? The kernel's reconnect turns EACCES of the session
    /// set-up of a soft mount into EHOSTDOWN (`smb2_reconnect`), which has other causes, too.
    pub fn may_be_the_login(&self) -> bool {
        let numbers = [e::EHOSTDOWN, e::EACCES, e::ENOKEY, e::EKEYEXPIRED, e::EKEYREVOKED, e::EKEYREJECTED];
        self.errno.is_some_and(|errno| numbers.contains(&errno))
    }

    /// Classes the error number of a failed mount.
    pub fn of_mount(message: impl Into<String>, errno: i32) -> Self {
        let (class, hint) = match errno {
            e::EACCES | e::EPERM | e::EKEYREJECTED => (
                FailureClass::Credentials,
                Some(
                    "the server refused the login: check user name and password in the credentials file, and that this user may use the share; then `nasmount mount SHARE`",
                ),
            ),
            e::EKEYEXPIRED | e::EKEYREVOKED => (
                FailureClass::Credentials,
                Some(
                    "the password has expired or was revoked on the server: set a new one there and in the credentials file",
                ),
            ),
            // the server was not asked, so that no account is locked by asking again
            e::ENOKEY => (
                FailureClass::Busy,
                Some(
                    "no Kerberos ticket: get one for the user `cruid` (root without it), have cifs-utils and keyutils installed, or use a credentials file; it is looked for again by itself",
                ),
            ),
            e::ENOENT | e::ENXIO => (
                FailureClass::Missing,
                Some(
                    "the server has no such share or directory: check `source`, and whether the volume is there; it is looked for again each minute",
                ),
            ),
            e::EOPNOTSUPP => (
                FailureClass::Configuration,
                Some("the server refused the protocol version: enable SMB 3 on it, or set `vers` in `options`"),
            ),
            e::ENODEV => (
                FailureClass::Configuration,
                Some("this kernel has no CIFS: install the module (Debian: package linux-image-amd64)"),
            ),
            e::EINVAL => (
                FailureClass::Configuration,
                Some("the kernel refused an option: see the kernel log (`journalctl -k -g CIFS`)"),
            ),
            _ => (FailureClass::Transient, None),
        };
        Self { class, message: message.into(), errno: Some(errno), hint: hint.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_doubted_only_for_a_reason() {
        let of = |errno| Failure { errno, ..Failure::transient("statfs") };
        assert!([112, 13, 126, 127, 128, 129].iter().all(|errno| of(Some(*errno)).may_be_the_login()));
        assert!(!of(None).may_be_the_login(), "no answer");
        assert!(!of(Some(2)).may_be_the_login(), "it does not have the share");
    }

    /// The numbers as the kernel's headers have them; EHOSTDOWN, ECONNREFUSED and EAGAIN pass.
    #[test]
    fn a_failed_mount_is_classed_by_its_number() {
        use FailureClass::{Busy, Configuration, Credentials, Missing, Transient};
        let expected = [
            (13, Credentials, "refused the login"),
            (1, Credentials, "refused the login"),
            (129, Credentials, "refused the login"),
            (127, Credentials, "expired"),
            (128, Credentials, "expired"),
            (2, Missing, "no such share"),
            (6, Missing, "no such share"),
            (95, Configuration, "SMB 3"),
            (19, Configuration, "no CIFS"),
            (126, Busy, "no Kerberos ticket"),
            (22, Configuration, "refused an option"),
            (112, Transient, ""),
            (111, Transient, ""),
            (11, Transient, ""),
        ];
        for (errno, class, hint) in expected {
            let failure = Failure::of_mount("cannot mount", errno);
            assert_eq!((failure.class, failure.errno), (class, Some(errno)));
            assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{failure:?}");
            assert_eq!(failure.hint.is_none(), class == Transient);
            assert_eq!(failure.to_string(), "cannot mount");
        }
    }
}
