//! The grammar of mount.cifs's credentials files, exactly as cifs-utils 7.6 reads them (`parse_cred_line()`).
//!
//! - Blanks and tabs at the start of a line are skipped; only the line feed is removed at its end: a carriage return or a
//!   trailing blank is part of the value.
//! - A line without `=` is ignored. The value is everything after the *first* `=`: not trimmed, not unquoted. There is no
//!   comment syntax; `#...` simply is no known key.
//! - Keys are compared by their beginning and without case: `pass2`/`password2`, `pass`, `user`, `dom`. Others are
//!   ignored. Later lines win.
//! - `DOMAIN\user` is not split here: mount.cifs does that for the command line only.
//!
//! Stricter than mount.cifs in one point: fsconfig takes 255 bytes, so a longer password is refused.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};

use crate::plan::catalogue::VALUE_MAX;

/// What some editors put at the beginning of UTF-8 texts.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A login. `Debug` shows no password.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User name; at most 255 bytes.
    pub username: Option<String>,
    /// Password; at most 255 bytes; empty is allowed.
    pub password: Option<SecretString>,
    /// A second password, tried while a server rotates them (kernel 6.9).
    pub password2: Option<SecretString>,
    /// Domain or workgroup; at most 255 bytes.
    pub domain: Option<String>,
    /// Lines that are read as written, but hardly meant so.
    pub oddities: Vec<Oddity>,
}

/// Why a credentials file cannot be used. Names the key and the line, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Longer than fsconfig takes.
    #[error("the value of `{key}` on line {line} has {bytes} bytes, and the kernel takes {VALUE_MAX}")]
    TooLong {
        /// The key as nasmount calls it.
        key: &'static str,
        /// From 1.
        line: usize,
        /// Length of the value.
        bytes: usize,
    },
    /// A NUL byte cannot be passed on.
    #[error("the value of `{key}` on line {line} contains a NUL byte")]
    Nul {
        /// The key as nasmount calls it.
        key: &'static str,
        /// From 1.
        line: usize,
    },
    /// mount.cifs takes it for a part of the first key.
    #[error("it begins with a byte-order mark, which makes the first line unknown")]
    ByteOrderMark,
    /// No user name: the login would be somebody else's.
    #[error("there is no line `username=…`")]
    NoUsername,
}

impl CredentialsError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "choose a shorter one on the server",
            Self::Nul { .. } => "write the file anew with a text editor: one `key=value` on each line",
            Self::ByteOrderMark => "save it as UTF-8 without a byte-order mark",
            Self::NoUsername => "it needs the lines `username=NAME` and `password=…`",
        }
    }
}

/// A value that is read exactly as it stands, but was probably not meant so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The key as nasmount calls it.
    pub key: &'static str,
    /// What is odd: lower case, no full stop.
    pub what: &'static str,
}

/// Parses a credentials file.
pub fn parse_credentials(text: &str) -> Result<Credentials, CredentialsError> {
    let mut credentials = Credentials::default();
    let mut seen = BTreeSet::new();
    for (index, raw) in text.split('\n').enumerate() {
        let line = index + 1;
        let raw = raw.trim_start_matches([' ', '\t']);
        let known = raw.split_once('=').and_then(|(name, value)| Some((known_key(name)?, value)));
        let Some((key, value)) = known else {
            credentials.oddities.extend(ignored(raw).map(|what| Oddity { line, key: "line", what }));
            continue;
        };
        if !seen.insert(key) {
            credentials.oddities.push(Oddity { line, key, what: "it was said before: this one counts" });
        }
        if value.len() > VALUE_MAX {
            return Err(CredentialsError::TooLong { key, line, bytes: value.len() });
        }
        if value.contains('\0') {
            return Err(CredentialsError::Nul { key, line });
        }
        let odd = oddity(value).or_else(|| (key == "username" && value.contains('%')).then_some(PERCENT));
        credentials.oddities.extend(odd.map(|what| Oddity { line, key, what }));
        match key {
            "username" => credentials.username = Some(value.to_owned()),
            "domain" => credentials.domain = Some(value.to_owned()),
            "password" => credentials.password = Some(SecretString::from(value)),
            _ => credentials.password2 = Some(SecretString::from(value)),
        }
    }
    match credentials.username.as_deref() {
        None | Some("") if text.starts_with(BYTE_ORDER_MARK) => Err(CredentialsError::ByteOrderMark),
        None | Some("") => Err(CredentialsError::NoUsername),
        Some(_) => {
            if credentials.password.is_none() {
                let what = "there is no line `password=…`: the login is tried with an empty one";
                credentials.oddities.push(Oddity { line: 0, key: "password", what });
            }
            Ok(credentials)
        }
    }
}

const PERCENT: &str =
    "what follows its `%` is a part of the user name in a file, and no password: that is a line `password=…`";

/// A line that mount.cifs skips, and that is neither empty nor meant as a comment.
fn ignored(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    Some("it is no known key and is ignored; `username`, `password`, `password2` and `domain` are")
}

impl Credentials {
    /// The parameters for fsconfig, in its spelling. No commas are doubled: only mount(2)'s option string needs that.
    pub fn parameters(&self) -> Vec<(&'static str, &str)> {
        let passwords = [("password", &self.password), ("password2", &self.password2)];
        let names = [("username", &self.username), ("domain", &self.domain)];
        let names = names.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        let passwords = passwords.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?.expose_secret())));
        // An empty domain is refused by fsconfig, and means the same as none.
        names.filter(|(key, value)| *key != "domain" || !value.is_empty()).chain(passwords).collect()
    }
}

/// The key that a line's text before its `=` stands for.
pub(crate) fn known_key(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    // `pass2` before `pass`: it would match that, too.
    [("pass2", "password2"), ("password2", "password2"), ("pass", "password"), ("user", "username"), ("dom", "domain")]
        .into_iter()
        .find_map(|(prefix, key)| name.starts_with(prefix).then_some(key))
}

fn oddity(value: &str) -> Option<&'static str> {
    if value.ends_with('\r') {
        return Some("the value ends with a carriage return: the file has the line ends of Windows");
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Some("the value begins or ends with a blank, which is part of it");
    }
    let quotes = value.len() >= 2 && (value.starts_with('"') && value.ends_with('"'));
    quotes.then_some("the value is in quotation marks, which are part of it")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn password(text: &str) -> String {
        parse_credentials(text).unwrap().password.unwrap().expose_secret().to_owned()
    }

    #[test]
    fn values_are_taken_as_they_stand() {
        let text = "# a comment\n\n \tUserName=bob\npassword=a=b, c\"#\ndomain=HOME\n";
        let credentials = parse_credentials(text).unwrap();
        assert_eq!(credentials.username.as_deref(), Some("bob"));
        assert_eq!(credentials.domain.as_deref(), Some("HOME"));
        assert_eq!(password(text), "a=b, c\"#");
        assert!(credentials.password2.is_none());
        assert_eq!(credentials.oddities, []);
    }

    #[test]
    fn what_is_ignored_is_mentioned() {
        let odd = |text: &str| -> Vec<(usize, &str)> {
            let parsed = parse_credentials(text).unwrap();
            parsed.oddities.iter().map(|oddity| (oddity.line, oddity.key)).collect()
        };
        assert_eq!(odd("username=bob\nfoo=bar\nno equals sign\npassword=x\n"), [(2, "line"), (3, "line")]);
        assert_eq!(odd("username=bob\npasword=x\n"), [(2, "line"), (0, "password")]);
        assert_eq!(odd("username=bob\npassword=x\npassword=y\n"), [(3, "password")]);
        let marked = parse_credentials("\u{feff}username=bob\npassword=x\n").unwrap_err();
        assert_eq!(marked, CredentialsError::ByteOrderMark);
    }

    #[test]
    fn keys_are_prefixes_and_the_last_line_wins() {
        let credentials = parse_credentials("userfoo=x\nuser=DOM\\bob\nPASS2=two\npass=old\npassphrase=new").unwrap();
        assert_eq!(credentials.username.as_deref(), Some("DOM\\bob"));
        assert_eq!(credentials.password.as_ref().unwrap().expose_secret(), "new");
        assert_eq!(credentials.password2.as_ref().unwrap().expose_secret(), "two");
        assert_eq!(credentials.parameters(), [("username", "DOM\\bob"), ("password", "new"), ("password2", "two")]);
    }

    #[test]
    fn carriage_returns_and_blanks_stay_and_are_mentioned() {
        assert_eq!(password("user=bob\r\npassword=x\r\n"), "x\r");
        assert_eq!(password("user=bob\npassword = x \n"), " x ");
        let oddities = parse_credentials("user=bob\r\npassword= x\n").unwrap().oddities;
        assert_eq!(oddities.iter().map(|oddity| oddity.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_percent_sign_in_a_user_name_begins_no_password() {
        let credentials = parse_credentials("username=bob%hunter2\npassword=50%\n").unwrap();
        assert_eq!(credentials.username.as_deref(), Some("bob%hunter2"));
        assert_eq!(credentials.oddities, [Oddity { line: 1, key: "username", what: PERCENT }]);
    }

    #[test]
    fn limits() {
        let long = "x".repeat(VALUE_MAX + 1);
        let error = parse_credentials(&format!("user=bob\npassword={long}")).unwrap_err();
        assert_eq!(error, CredentialsError::TooLong { key: "password", line: 2, bytes: 256 });
        assert!(!error.to_string().contains("xx"));
        let fits = "x".repeat(VALUE_MAX);
        assert_eq!(password(&format!("user=bob\npassword={fits}")), fits);
        assert_eq!(parse_credentials("password=x").unwrap_err(), CredentialsError::NoUsername);
        assert!(matches!(parse_credentials("user=b\0b").unwrap_err(), CredentialsError::Nul { line: 1, .. }));
    }

    #[test]
    fn no_secret_is_shown() {
        let credentials = parse_credentials("user=bob\npassword=hunter2\npassword2=hunter3").unwrap();
        assert!(!format!("{credentials:?} {credentials:#?}").contains("hunter"));
    }
}
