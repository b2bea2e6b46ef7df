//! A login that was typed: the text of its credentials file, whether a try of it went well, and whether what is mounted can be told of it.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::diagnosis::{Diagnosis, Finding, Outcome, Step};
use super::doctor::Version;
use super::fstab::HIDDEN;
use super::options::KernelOptions;
use crate::config::credentials::{BYTE_ORDER_MARK, CredentialsError, known_key, parse_credentials};

/// What was typed. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Typed {
    /// User name.
    pub username: String,
    /// Domain or workgroup; empty for none.
    pub domain: String,
    /// Password.
    pub password: SecretString,
}

/// Why it cannot be written into a credentials file. Never says the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Guests have no credentials file.
    #[error("no user name was given")]
    NoUsername,
    /// The kernel takes it for a guest.
    #[error("no password was given")]
    NoPassword,
    /// The grammar has a line for each value.
    #[error("the {0} has a line break in it, or a carriage return at its end")]
    LineBreak(&'static str),
    /// Whatever else the grammar cannot have.
    #[error(transparent)]
    Grammar(#[from] CredentialsError),
}

impl Unfit {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoUsername => "name it with --user, or type it",
            Self::NoPassword => {
                "type it, or with --stdin let it be what is read; a server that takes guests needs no `credentials` in the configuration"
            }
            Self::LineBreak(_) => "a text from Windows has such line ends; a credentials file cannot hold them",
            Self::Grammar(error) => error.help(),
        }
    }
}

/// User name and domain of the credentials file that is there now, each empty if it has none. The carriage return of a text from Windows
/// is no part of them: the kernel would take it for one, but the file is written anew.
pub fn names_of(now: Option<&SecretString>) -> (String, String) {
    let now = now.and_then(|text| parse_credentials(text.expose_secret()).ok()).unwrap_or_default();
    let plain = |value: Option<String>| value.unwrap_or_default().trim_end_matches('\r').to_owned();
    (plain(now.username), plain(now.domain))
}

/// Domain and name, if a user is typed with both, as `DOMAIN\name`: a credentials file has a line for each.
pub fn domain_and_name(typed: &str) -> Option<(&str, &str)> {
    typed.split_once(['\\', '/']).filter(|(domain, name)| !domain.is_empty() && !name.is_empty())
}

/// A user name as it is shown: what follows a `%` may be a password, which people write there.
pub fn shown_name(name: &str) -> String {
    name.split_once('%').map_or_else(|| name.to_owned(), |(name, _)| format!("{name}%{HIDDEN}"))
}

/// The text of a credentials file with what was typed. Of the one that is there now everything else is kept, but for a second
/// password, which would be tried behind the new one and count as one more failed login.
pub fn credentials_text(now: Option<&SecretString>, typed: &Typed) -> Result<SecretString, Unfit> {
    let Typed { username, domain, password } = typed;
    let password = password.expose_secret();
    if username.is_empty() {
        return Err(Unfit::NoUsername);
    }
    if password.is_empty() {
        return Err(Unfit::NoPassword);
    }
    let values = [("username", username.as_str()), ("domain", domain.as_str()), ("password", password)];
    if let Some((key, _)) = values.iter().find(|(_, value)| value.contains('\n') || value.ends_with('\r')) {
        return Err(Unfit::LineBreak(key));
    }
    let now = now.map_or("", |now| now.expose_secret()).trim_start_matches(BYTE_ORDER_MARK);
    // never grows: that would leave a copy of the password behind
    let most = now.len() + values.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>() + 1;
    let mut text = Zeroizing::new(String::with_capacity(most));
    let mut left: Vec<(&str, &str)> = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    for line in now.split_terminator('\n') {
        let said =
            line.split_once('=').and_then(|(name, _)| Some((name, known_key(name.trim_start_matches([' ', '\t']))?)));
        let Some((name, key)) = said else {
            push(&mut text, &[line]);
            continue;
        };
        if let Some(at) = left.iter().position(|(missing, _)| *missing == key) {
            let (_, value) = left.remove(at);
            push(&mut text, &[name, "=", value]);
        }
    }
    left.into_iter().for_each(|(key, value)| push(&mut text, &[key, "=", value]));
    parse_credentials(&text)?;
    Ok(text.as_str().into())
}

fn push(text: &mut String, parts: &[&str]) {
    parts.iter().chain(&["\n"]).for_each(|part| text.push_str(part));
}

/// What a try of a login showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The server takes it.
    Taken {
        /// What is wrong behind the login, if something is: it is no reason to refuse it.
        remark: Option<String>,
    },
    /// It does not take it, or not into the share.
    Refused(Why),
    /// It came to no answer.
    Unknown(Why),
}

/// Why a login is not known to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// What was seen, where.
    pub message: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// A login is right if the server took it and let it into the share. What is wrong with a directory in it is not its fault.
pub fn judge(diagnosis: &Diagnosis) -> Tried {
    let taken = diagnosis.steps.iter().any(|finding| finding.step == Step::Login && finding.outcome == Outcome::Ok);
    let failed = diagnosis.steps.iter().find(|finding| finding.outcome == Outcome::Failed);
    let [cause, fix] = [&diagnosis.cause, &diagnosis.fix].map(|text| text.clone().unwrap_or_default());
    match failed {
        None if taken => Tried::Taken { remark: None },
        Some(Finding { step, message, .. }) if taken && *step > Step::Share => {
            Tried::Taken { remark: Some(format!("{step}: {message}: {cause}; {fix}")) }
        }
        Some(Finding { step, message, .. }) => {
            let why = Why { message: format!("{step}: {message}"), cause, fix };
            if matches!(step, Step::Login | Step::Share) { Tried::Refused(why) } else { Tried::Unknown(why) }
        }
        None => Tried::Unknown(Why { message: "the login could not be tried".to_owned(), cause, fix }),
    }
}

/// Why the session of a mount that goes on cannot be given a second password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecondPassword {
    /// Before 6.9.
    #[error("this kernel has no `password2` (Linux 6.9 and newer have)")]
    Unknown,
    /// The session does not get it: "cifs: during remount, make sure passwords are in sync" (6.13, 6.12.2, 6.11.11) is missing.
    #[error("this kernel hands a `password2` on at a mount only (Linux 6.12.2 and newer do so later, too)")]
    AtMountOnly,
}

/// Can the running kernel give a session that is alive a second password? One whose distributor keeps the release it began with may be
/// able to, and is not relied on.
pub fn takes_second_password(options: &KernelOptions, version: Option<Version>) -> Result<(), NoSecondPassword> {
    if options.knows("password2") != Some(true) {
        return Err(NoSecondPassword::Unknown);
    }
    let in_its_series = |version: Version| (Version(6, 11, 11)..Version(6, 12, 0)).contains(&version);
    let takes = version.is_some_and(|version| version >= Version(6, 12, 2) || in_its_series(version));
    if takes { Ok(()) } else { Err(NoSecondPassword::AtMountOnly) }
}

/// What a share has of a password that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "password")]
pub enum NewPassword {
    /// It was mounted with it.
    InUse,
    /// Its session has it as its second one, for when the server refuses the first.
    Known,
    /// Its session has the old one alone.
    NeedsRemount {
        /// Why.
        why: String,
    },
    /// It is not mounted, or not well: the file is read when it is mounted.
    AtNextMount,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plan::diagnosis::Trouble;

    fn typed(username: &str, domain: &str, password: &str) -> Typed {
        Typed { username: username.into(), domain: domain.into(), password: password.into() }
    }

    fn text(now: &str, typed: &Typed) -> String {
        let text = credentials_text(Some(&now.into()), typed).unwrap();
        let read = parse_credentials(text.expose_secret()).unwrap();
        assert_eq!(read.username.as_deref(), Some(typed.username.as_str()));
        assert_eq!(read.domain.unwrap_or_default(), typed.domain);
        assert_eq!(read.password.unwrap().expose_secret(), typed.password.expose_secret());
        assert!(read.password2.is_none());
        text.expose_secret().to_owned()
    }

    #[test]
    fn a_user_may_be_typed_with_a_domain_and_no_password_of_a_name_is_shown() {
        assert_eq!(domain_and_name("DOM\\anna"), Some(("DOM", "anna")));
        assert_eq!(domain_and_name("DOM/anna"), Some(("DOM", "anna")));
        for name in ["anna", "\\anna", "DOM\\", "anna@dom.lan"] {
            assert_eq!(domain_and_name(name), None, "{name}");
        }
        assert_eq!((shown_name("bob%hunter2"), shown_name("bob")), ("bob%***".to_owned(), "bob".to_owned()));
    }

    #[test]
    fn a_new_file_has_what_was_typed_and_no_more() {
        let new = credentials_text(None, &typed("bob", "", "a=b, c\"# ")).unwrap();
        assert_eq!(new.expose_secret(), "username=bob\npassword=a=b, c\"# \n");
        let new = credentials_text(None, &typed("bob", "HOME", "x")).unwrap();
        assert_eq!(new.expose_secret(), "username=bob\ndomain=HOME\npassword=x\n");
    }

    #[test]
    fn of_an_old_file_all_else_is_kept() {
        let bob = typed("bob", "", "new");
        let old = "# of the NAS\n\nuser=bob\npass=old\n# end";
        assert_eq!(text(old, &bob), "# of the NAS\n\nuser=bob\npass=new\n# end\n");
        assert_eq!(text("password=old\nusername=alice\n", &bob), "password=new\nusername=bob\n");
        // the one that counted, and the one that did not; a second password; a domain that is given up
        let old = "username=bob\npassword=one\npassword=two\npassword2=three\ndomain=HOME\nfoo=bar\n";
        assert_eq!(text(old, &bob), "username=bob\npassword=new\nfoo=bar\n");
        assert_eq!(text("username=bob\r\npassword=x\r\n", &bob), "username=bob\npassword=new\n");
        assert_eq!(text("\u{feff}username=x\npassword=x\n", &bob), "username=bob\npassword=new\n");
        assert_eq!(text("  DOMAIN=X\n", &typed("bob", "Y", "x")), "  DOMAIN=Y\nusername=bob\npassword=x\n");
    }

    #[test]
    fn the_names_of_a_file_from_windows_can_be_written_again() {
        let old = SecretString::from("username=bob\r\npassword=x\r\ndomain=HOME\r\n");
        let (username, domain) = names_of(Some(&old));
        assert_eq!((username.as_str(), domain.as_str()), ("bob", "HOME"));
        let new = credentials_text(Some(&old), &typed(&username, &domain, "new")).unwrap();
        assert_eq!(new.expose_secret(), "username=bob\npassword=new\ndomain=HOME\n");
        assert_eq!(names_of(Some(&"username=bob\r\ndomain=\r\n".into())), ("bob".to_owned(), String::new()));
        assert_eq!(names_of(None), (String::new(), String::new()));
    }

    #[test]
    fn what_a_credentials_file_cannot_hold_is_refused_without_being_said() {
        let refused = |typed: &Typed| {
            let error = credentials_text(None, typed).unwrap_err();
            assert!(!format!("{error} {error:?} {} {typed:?}", error.help()).contains("hunter"), "{error}");
            error
        };
        assert_eq!(refused(&typed("", "", "hunter2")), Unfit::NoUsername);
        assert_eq!(refused(&typed("bob", "", "")), Unfit::NoPassword);
        assert_eq!(refused(&typed("bob", "", "hunter2\r")), Unfit::LineBreak("password"));
        assert_eq!(refused(&typed("bob\npassword=x", "", "hunter2")), Unfit::LineBreak("username"));
        assert_eq!(refused(&typed("bob", "A\nB", "hunter2")), Unfit::LineBreak("domain"));
        let nul = CredentialsError::Nul { key: "password", line: 2 };
        assert_eq!(refused(&typed("bob", "", "hunt\0er")), Unfit::Grammar(nul));
        let long = refused(&typed("bob", "", &"hunter2".repeat(37)));
        assert!(long.to_string().contains("259 bytes"), "{long}");
    }

    #[test]
    fn a_session_is_given_a_second_password_by_kernels_that_are_known_to_do_so() {
        let [with, without] = ["password:string\npassword2:string\n", "password:string\n"].map(KernelOptions::parse);
        let takes = |version| takes_second_password(&with, version);
        for version in [(6, 11, 11), (6, 12, 2), (6, 12, 117), (6, 13, 0), (7, 0, 0)] {
            assert_eq!(takes(Some(Version(version.0, version.1, version.2))), Ok(()), "{version:?}");
        }
        for version in [None, Some(Version(6, 9, 0)), Some(Version(6, 11, 10)), Some(Version(6, 12, 0))] {
            assert_eq!(takes(version), Err(NoSecondPassword::AtMountOnly), "{version:?}");
        }
        let of_bookworm = Some(Version(6, 1, 176));
        assert_eq!(takes_second_password(&without, of_bookworm), Err(NoSecondPassword::Unknown));
        let silent = KernelOptions::unknown();
        assert_eq!(takes_second_password(&silent, Some(Version(6, 13, 0))), Err(NoSecondPassword::Unknown));
    }

    fn diagnosis(steps: &[Step], failed: Option<Step>) -> Diagnosis {
        let mut diagnosis = Diagnosis::default();
        steps.iter().for_each(|step| _ = diagnosis.judge(*step, Ok(String::new()), None));
        if let Some(step) = failed {
            let [message, cause, fix] = ["seen", "why", "mend it"].map(str::to_owned);
            diagnosis.judge(step, Err(Trouble { step, message, cause, fix }), None);
        }
        diagnosis
    }

    #[test]
    fn a_login_is_right_if_the_server_lets_it_into_the_share() {
        let way = [Step::Port, Step::Options];
        let taken = [Step::Port, Step::Options, Step::Login];
        let inside = [Step::Port, Step::Options, Step::Login, Step::Share];
        assert_eq!(judge(&diagnosis(&inside, None)), Tried::Taken { remark: None });
        let Tried::Taken { remark: Some(remark) } = judge(&diagnosis(&inside, Some(Step::Path))) else {
            panic!("the directory is no fault of the login")
        };
        assert_eq!(remark, "path: seen: why; mend it");
        for (steps, failed) in [(&way[..], Step::Login), (&taken[..], Step::Share)] {
            let judged = judge(&diagnosis(steps, Some(failed)));
            assert!(matches!(judged, Tried::Refused(_)), "{failed:?}: {judged:?}");
        }
        for (steps, failed) in [
            (&way[..1], Some(Step::Options)),
            (&way[..], Some(Step::Mount)), // the kernel did not say how far it came
            (&[][..], Some(Step::Port)),
            (&way[..], None),
        ] {
            let judged = judge(&diagnosis(steps, failed));
            assert!(matches!(judged, Tried::Unknown(_)), "{failed:?}: {judged:?}");
        }
    }
}
