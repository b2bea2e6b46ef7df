//! Logins among the options of a line of fstab, as mount.cifs reads them.
//!
//! It ends an option at a comma, whatever is in a password, and has no way to write one; libmount has quotes. So what follows a password
//! and is no option may be the rest of it, and is neither repeated nor kept.

use secrecy::ExposeSecret as _;

use super::catalogue;
use crate::config::closest;
use crate::config::credentials::Credentials;

/// The password in an option. mount.cifs knows them by their beginning; a user's name can be followed by `%` and the password.
pub(super) fn password(option: &str) -> Option<&str> {
    let (name, value) = option.split_once('=')?;
    let name = name.trim_start_matches('"').to_ascii_lowercase();
    let password = if name.starts_with("pass") {
        value
    } else if name.starts_with("user") {
        value.split_once('%')?.1
    } else {
        return None;
    };
    (!password.is_empty()).then_some(password)
}

/// Words of mount(8), and of older CIFS clients, that the catalogue does not have.
const OF_MOUNT: [&str; 17] = [
    "atime",
    "strictatime",
    "nostrictatime",
    "norelatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "dirsync",
    "diratime",
    "forcedirectio",
    "directio",
    "strictcache",
    "posixpaths",
    "noposixpaths",
];

/// What is in an option that nobody knows, and so may be a password that was written in the wrong place: its value, or all of a bare word.
pub(super) fn unknown(option: &str) -> Option<&str> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    let plain = name.trim_start_matches('"');
    let is_known = catalogue::lookup(plain).is_some()
        || catalogue::forbidden(plain).is_some()
        || value.is_none() && OF_MOUNT.contains(&plain);
    let secret = value.unwrap_or(option);
    (!is_known && !secret.is_empty()).then_some(secret)
}

/// Tells of the options of a line, one after the other, which are perhaps the rest of a password.
#[derive(Default)]
pub(super) struct Rest {
    follows: bool,
}

impl Rest {
    /// Is this one?
    pub(super) fn is(&mut self, option: &str) -> bool {
        let name = option.split('=').next().unwrap_or_default();
        let is_rest = self.follows
            && password(option).is_none()
            && catalogue::lookup(name).is_none()
            && catalogue::forbidden(name).is_none();
        self.follows = is_rest || password(option).is_some();
        is_rest
    }
}

/// The option of a login that one was perhaps meant to be which nobody knows: names are lower case to mount.cifs and the kernel, and whole,
/// though a credentials file may have them otherwise.
pub(super) fn meant(option: &str) -> Option<&'static str> {
    const KNOWN: [&str; 5] = ["password", "username", "credentials", "domain", "workgroup"];
    const OTHERS: [(&str, &str); 8] = [
        ("pw", "password"),
        ("pwd", "password"),
        ("psw", "password"),
        ("uname", "username"),
        ("usr", "username"),
        ("login", "username"),
        ("creds", "credentials"),
        ("wg", "workgroup"),
    ];
    let (name, _) = option.split_once('=')?;
    let name = name.trim_start_matches('"');
    if catalogue::lookup(name).is_some() || catalogue::forbidden(name).is_some() {
        return None;
    }
    let plain = name.to_ascii_lowercase();
    let exact = catalogue::forbidden(&plain).and_then(|_| KNOWN.into_iter().find(|known| known.starts_with(&plain)));
    let other = OTHERS.into_iter().find_map(|(other, known)| (other == plain).then_some(known));
    let begins = [
        ("pass2", "password2"),
        ("password2", "password2"),
        ("pass", "password"),
        ("user", "username"),
        ("cred", "credentials"),
    ];
    let begins = || begins.into_iter().find_map(|(start, known)| plain.starts_with(start).then_some(known));
    exact.or(other).or_else(begins).or_else(|| closest(&plain, KNOWN.into_iter()))
}

/// Whether the first of several passwords, which counts, is empty; `None` if there are not several.
pub(super) fn first_of_several_is_empty(said: &[String]) -> Option<bool> {
    let mut passwords = said.iter().filter_map(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "user" | "username" => Some(value.split_once('%')?.1),
            "pass" | "password" => Some(value),
            _ => None,
        }
    });
    let first = passwords.next()?;
    passwords.next().map(|_| first.is_empty())
}

/// Whether what a line says of its login has a password.
pub(super) fn has_password(said: &[String]) -> bool {
    said.iter().any(|option| password(option).is_some())
}

/// What there is to say where a line is made a comment by hand.
pub(super) fn left_in_comment(options: &[String]) -> &'static str {
    if has_password(options) {
        "; its password stays in the comment, which everybody can read: take that out, too"
    } else {
        ""
    }
}

/// Nobody, or `guest`, with an empty password: `username=guest,password=` is how people write it.
pub(super) fn is_guest(said: &[String]) -> bool {
    let mut users = said.iter().filter_map(|option| option.strip_prefix("user")?.split_once('='));
    users.all(|(_, name)| ["", "guest"].contains(&name)) && said.iter().any(|option| option.starts_with("pass"))
}

/// The text of a credentials file, of options as mount.cifs reads them: `DOMAIN\name%password`, and the first password counts.
pub(super) fn credentials_text(said: &[String]) -> String {
    let (mut lines, mut password) = (Vec::new(), None);
    for option in said {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "user" | "username" => {
                let (user, after) = value.split_once('%').map_or((value, None), |(user, after)| (user, Some(after)));
                password = password.or(after);
                match user.split_once(['/', '\\']) {
                    Some((domain, user)) => lines.extend([format!("domain={domain}"), format!("username={user}")]),
                    None => lines.push(format!("username={user}")),
                }
            }
            "pass2" | "password2" => lines.push(format!("password2={value}")),
            "pass" | "password" => password = password.or(Some(value)),
            _ => lines.push(format!("domain={value}")),
        }
    }
    lines.extend(password.map(|password| format!("password={password}")));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What a line says of its login beside a credentials file. Of each the last one counts.
pub(super) struct Beside {
    pub(super) user: Option<String>,
    /// With its index.
    pub(super) domain: Option<(usize, String)>,
}

impl Beside {
    /// `None` if there is a password, also an empty one.
    pub(super) fn of(said: &[String]) -> Option<Self> {
        let mut beside = Self { user: None, domain: None };
        for (index, option) in said.iter().enumerate() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name.starts_with("pass") || name.starts_with("user") && value.contains('%') {
                return None;
            }
            let (domain, user) = match (name.starts_with("user"), value.split_once(['/', '\\'])) {
                (true, Some((domain, user))) => (Some(domain), Some(user)),
                (true, None) => (None, Some(value)),
                (false, _) => (Some(value), None),
            };
            beside.user = user.map(str::to_owned).or(beside.user);
            beside.domain = domain.map(|domain| (index, domain.to_owned())).or(beside.domain);
        }
        Some(beside)
    }
}

/// The text of a credentials file with what another one has, and this domain.
pub(super) fn with_domain(login: &Credentials, domain: &str) -> String {
    let names = [("username", login.username.as_deref()), ("domain", Some(domain))];
    let passwords = [("password", &login.password), ("password2", &login.password2)];
    let passwords = passwords.into_iter().map(|(key, value)| (key, value.as_ref().map(|value| value.expose_secret())));
    let lines = names.into_iter().chain(passwords).filter_map(|(key, value)| Some((key, value?)));
    lines.filter(|line| *line != ("domain", "")).map(|(key, value)| format!("{key}={value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_stands_beside_a_file_the_last_counts_and_a_password_is_too_much() {
        let beside = |options: &str| Beside::of(&options.split(',').map(str::to_owned).collect::<Vec<_>>());
        for (options, user, domain) in [
            ("domain=A,dom=B", None, Some((1, "B"))),
            ("username=bob", Some("bob"), None),
            ("workgroup=A,user=B\\bob", Some("bob"), Some((1, "B"))),
            ("user=B/bob,domain=", Some("bob"), Some((1, ""))),
        ] {
            let Some(found) = beside(options) else { panic!("{options}") };
            assert_eq!(found.user.as_deref(), user, "{options}");
            assert_eq!(found.domain.as_ref().map(|(index, domain)| (*index, domain.as_str())), domain, "{options}");
        }
        for options in ["domain=A,password=", "pass=x", "user=bob%x", "pass2=x"] {
            assert!(beside(options).is_none(), "{options}");
        }
    }

    #[test]
    fn what_nobody_knows_may_be_a_password() {
        for (option, secret) in [
            ("hunter2", Some("hunter2")),
            ("pw=hunter2", Some("hunter2")),
            ("\"hunter2", Some("\"hunter2")),
            ("\"context=a,b\"", None),
            ("ro", None),
            ("lazytime", None),
            ("x-gvfs-name=films", None),
            ("fancy=", None),
        ] {
            assert_eq!(unknown(option), secret, "{option}");
        }
    }

    #[test]
    fn what_was_meant_as_a_login_is_told() {
        for (option, known) in [
            ("PASSWORD=a", Some("password")),
            ("USERNAME=b", Some("username")),
            ("Dom=b", Some("domain")),
            ("WORKGROUP=b", Some("workgroup")),
            ("passwrod=a", Some("password")),
            ("passwort=a", Some("password")),
            ("passwd=a", Some("password")),
            ("pasword=a", Some("password")),
            ("pw=a", Some("password")),
            ("PASS2=a", Some("password2")),
            ("usrname=a", Some("username")),
            ("credential=/a", Some("credentials")),
            ("CRED=/a", Some("credentials")),
            ("password=a", None),
            ("pass2=a", None),
            ("user_xattr=a", None),
            ("cred=/a", None),
            ("uid=1", None),
            ("fancy=1", None),
            ("passwd", None),
        ] {
            assert_eq!(meant(option), known, "{option}");
        }
    }

    #[test]
    fn of_several_passwords_the_first_counts() {
        let empty =
            |options: &str| first_of_several_is_empty(&options.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(empty("username=bob,password=,password=x"), Some(true));
        assert_eq!(empty("user=WG/bob%A,pass=B"), Some(false));
        assert_eq!(empty("user=bob,pass=B,password2=C"), None);
        assert_eq!(empty("user=bob"), None);
    }

    #[test]
    fn what_follows_a_password_and_is_no_option_may_be_the_rest_of_it() {
        let rests = |options: &str| {
            let mut rest = Rest::default();
            options.split(',').filter(|option| rest.is(option)).collect::<Vec<_>>().join(",")
        };
        for (options, expected) in [
            ("user=bob,password=ab,cd", "cd"),
            ("password=ab,c=d,e,uid=1000,f", "c=d,e"),
            ("PASS=ab,cd,ro", "cd"),
            ("username=bob%ab,cd", "cd"),
            ("fancy,password=ab,ro,fancy", ""),
            ("password=ab,password2=cd,e", "e"),
            ("password=ab,context=x,x-systemd.automount,nofail,credentials=/x,vers=1.0", ""),
            ("password=,fancy", ""),
        ] {
            assert_eq!(rests(options), expected, "{options}");
        }
    }
}
