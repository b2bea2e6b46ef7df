//! `nasmount check`: is the configuration right? Silent when it is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::is_root;
use super::report::{Exit, finish, in_one_line, write_error};
use crate::config::consumer::Consumer;
use crate::config::credentials::{Credentials, Oddity, parse_credentials};
use crate::config::settings::{CredentialSource, OptionValue, ShareSettings};
use crate::config::{self, Colour, Invalid, InvalidKind, Loaded, Notice, Warning};
use crate::plan::catalogue::{self, Account};
use crate::sys::accounts;
use crate::sys::config_dir::{
    ConfigRoots, ConfigTexts, CredentialsFileError, MountPoint, ReadError, check_credentials_file, mount_point_on_host,
    read_config, read_credentials,
};

/// Version of what `--json` prints. Additions do not change it.
pub const JSON_SCHEMA: u32 = 1;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckArgs {
    /// `--config`: instead of `/etc/nasmount/nasmount.toml`.
    pub config: Option<PathBuf>,
    /// `--json`.
    pub output: Output,
    /// Whether stderr takes colours.
    pub colour: Colour,
}

/// How the result is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people, on stderr.
    Text,
    /// For programs, on stdout.
    Json,
}

/// Runs the command against the files of this host.
pub fn run(args: &CheckArgs) -> Exit {
    let roots = ConfigRoots::system(args.config.as_deref());
    // Buffered: a reader of JSON gets all of it or nothing.
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let (exit, written) = check(&roots, args, &mut stdout, &mut io::stderr().lock());
    finish(exit, written.and_then(|()| stdout.flush()))
}

/// The same with its surroundings as arguments; how it ends, and whether that could be said.
pub fn check(
    roots: &ConfigRoots,
    args: &CheckArgs,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> (Exit, io::Result<()>) {
    let texts = match read_config(roots) {
        Ok(texts) => texts,
        Err(error) => return (Exit::Usage, say_unreadable(&error, args.output, stdout, stderr)),
    };
    let (invalid, warnings) = load_and_check(&texts);
    let exit = if invalid.is_empty() { Exit::Done } else { Exit::Usage };
    let written = match args.output {
        Output::Json => {
            let errors = invalid.iter().map(|Invalid(notice)| Finding::new(Severity::Error, notice));
            let warnings = warnings.iter().map(|Warning(notice)| Finding::new(Severity::Warning, notice));
            write_json(stdout, errors.chain(warnings).collect())
        }
        Output::Text => say_notices(stderr, &invalid, &warnings, args.colour),
    };
    (exit, written)
}

fn say_unreadable(
    error: &ReadError,
    output: Output,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> io::Result<()> {
    let help = error.hint();
    if output == Output::Text {
        return write_error(stderr, error, Some(&help));
    }
    let (file, message) = (error.path().to_string_lossy().into_owned(), in_one_line(error));
    let kind = Some(InvalidKind::Unreadable);
    let (line, column) = error.place().unwrap_or_default();
    let finding = Finding { severity: Severity::Error, kind, file, line, column, message, help, ..Finding::default() };
    write_json(stdout, vec![finding])
}

/// Problems and warnings for people, and how many problems there are.
pub(super) fn say_notices(
    out: &mut impl Write,
    invalid: &[Invalid],
    warnings: &[Warning],
    colour: Colour,
) -> io::Result<()> {
    for warning in warnings {
        writeln!(out, "{}\n", warning.render(colour))?;
    }
    for problem in invalid {
        writeln!(out, "{}\n", problem.render(colour))?;
    }
    match invalid.len() {
        0 => Ok(()),
        1 => writeln!(out, "error: 1 problem in the configuration; nothing of it is used"),
        count => writeln!(out, "error: {count} problems in the configuration; nothing of it is used"),
    }
}

/// Everything wrong with the texts and with what they name on this host.
pub fn load_and_check(texts: &ConfigTexts) -> (Vec<Invalid>, Vec<Warning>) {
    let checked = check_texts(texts, look_if_in_sight, mount_point_on_host, accounts::is_missing);
    // not an error: it concerns one share, and an account can come later
    (checked.invalid, checked.warnings.into_iter().chain(checked.accounts.into_iter().map(Warning)).collect())
}

/// What there is to say of texts.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) invalid: Vec<Invalid>,
    pub(super) warnings: Vec<Warning>,
    /// Users and groups that the host does not have, and without which a share cannot be mounted, or nothing be done to a consumer.
    pub(super) accounts: Vec<Notice>,
}

/// A credentials file as far as this user can see it.
pub(super) fn look_if_in_sight(path: &Path) -> Result<Option<Credentials>, (String, String)> {
    if is_out_of_sight(path) { Ok(None) } else { look_at_credentials(path) }
}

/// The same with the host as arguments.
pub(super) fn check_texts(
    texts: &ConfigTexts,
    look: impl Fn(&Path) -> Result<Option<Credentials>, (String, String)>,
    mount_point: fn(&Path) -> MountPoint,
    is_missing: fn(Account, &str) -> bool,
) -> Checked {
    match config::load(&texts.fragments, &texts.profiles) {
        Err(invalid) => Checked { invalid, ..Checked::default() },
        Ok(mut loaded) => {
            let mut warnings = std::mem::take(&mut loaded.warnings);
            let invalid = check_credentials(&loaded, &mut warnings, look);
            warnings.extend(check_mount_points(&loaded, mount_point));
            Checked { invalid, warnings, accounts: check_accounts(&loaded, is_missing) }
        }
    }
}

fn check_accounts(loaded: &Loaded, is_missing: fn(Account, &str) -> bool) -> Vec<Notice> {
    let of = |share| {
        let missing = missing_accounts(share, is_missing);
        let options = missing
            .filter_map(|missing| loaded.doubtful_option(&share.id, missing.option, missing.message, missing.help));
        options.chain(missing_users(loaded, share, is_missing))
    };
    loaded.settings.shares.values().flat_map(of).collect()
}

/// Consumers that are units of somebody whom the host does not have.
fn missing_users(
    loaded: &Loaded,
    share: &ShareSettings,
    is_missing: fn(Account, &str) -> bool,
) -> impl Iterator<Item = Notice> {
    share.consumers.iter().filter_map(move |consumer| {
        let Consumer::UserUnit { user, unit } = Consumer::of(&consumer.unit) else { return None };
        if user.parse::<u32>().is_ok() || !is_missing(Account::User, user) {
            return None;
        }
        let message = format!("this host has no user {user}, so nothing is done to {unit} in an outage");
        let help = format!("`getent passwd {user}` finds none: correct the name, make the user, or write its number");
        loaded.doubtful_user(&share.id, &consumer.unit, message, help)
    })
}

/// An option that names a user or group which the host does not have.
pub(super) struct MissingAccount<'a> {
    pub(super) option: &'a str,
    pub(super) name: &'a str,
    pub(super) message: String,
    pub(super) help: String,
}

pub(super) fn missing_accounts(
    share: &ShareSettings,
    is_missing: fn(Account, &str) -> bool,
) -> impl Iterator<Item = MissingAccount<'_>> {
    share.options.iter().filter_map(move |(option, value)| {
        let (account, OptionValue::Value(name)) = (catalogue::account(option)?, value) else { return None };
        if name.parse::<u32>().is_ok() || !is_missing(account, name) {
            return None;
        }
        let (word, database) = (account.word(), account.database());
        let message = format!("this host has no {word} {name}, so the share cannot be mounted");
        let help =
            format!("`getent {database} {name}` finds none: correct the name, make the {word}, or write its number");
        Some(MissingAccount { option, name, message, help })
    })
}

/// Whether a credentials file can be used: what is wrong with it and what to do, or what it says, if this user can read it.
fn look_at_credentials(path: &Path) -> Result<Option<Credentials>, (String, String)> {
    let shown = path.display();
    check_credentials_file(path).map_err(|error| (in_one_line(&error), error.help())).and_then(|()| {
        let unreadable = |error| (format!("cannot use {shown}: {error}"), "save it as UTF-8 text".to_owned());
        let Some(text) = readable(path).map_err(unreadable)? else {
            return Ok(None); // one that this user cannot read is for root to check
        };
        parsed(path, &text).map(Some)
    })
}

/// What the text of a credentials file says, or what is wrong with it and what to do.
pub(super) fn parsed(path: &Path, text: &SecretString) -> Result<Credentials, (String, String)> {
    parse_credentials(text.expose_secret())
        .map_err(|error| (format!("cannot use {}: {error}", path.display()), error.help().to_owned()))
}

/// In a directory that is not for this user.
fn is_out_of_sight(path: &Path) -> bool {
    !is_root()
        && matches!(check_credentials_file(path), Err(CredentialsFileError::Unreachable { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied)
}

fn check_credentials(
    loaded: &Loaded,
    warnings: &mut Vec<Warning>,
    look: impl Fn(&Path) -> Result<Option<Credentials>, (String, String)>,
) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    for (id, server) in &loaded.settings.servers {
        let CredentialSource::File(path) = &server.credentials else { continue };
        let shown = path.display();
        match look(path) {
            Err((message, help)) => {
                let help = help.replace("login SERVER", &format!("login {id}"));
                invalid.extend(loaded.invalid_credentials(id, message, help));
            }
            Ok(None) => {
                let message = format!("{shown} was not checked: only root can read it");
                warnings.extend(loaded.doubtful_credentials(id, message, "`sudo nasmount check` does".to_owned()));
            }
            Ok(Some(Credentials { oddities, .. })) => {
                for Oddity { line, key, what } in oddities {
                    let message = match line {
                        0 => format!("{shown}: {what}"),
                        line => format!("`{key}` on line {line} of {shown}: {what}"),
                    };
                    let help = "correct it there, unless it is meant so".to_owned();
                    warnings.extend(loaded.doubtful_credentials(id, message, help));
                }
            }
        }
    }
    invalid
}

fn readable(path: &Path) -> io::Result<Option<SecretString>> {
    match read_credentials(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the host has where a share is to be mounted. A warning, not an error: it concerns one share, which would be `blocked`.
fn check_mount_points(loaded: &Loaded, mount_point: fn(&Path) -> MountPoint) -> Vec<Warning> {
    let warning = |share: &ShareSettings| {
        let (message, help) = match mount_point(&share.mount_point) {
            MountPoint::Usable => return None,
            MountPoint::NotADirectory(what) => {
                (format!("{} is not a directory", what.display()), "move it away, or choose another path".to_owned())
            }
            MountPoint::Elsewhere(real) => {
                let (path, real) = (share.mount_point.display(), real.display());
                (format!("{path} leads to {real}: nothing is mounted through a link"), format!("use {real} itself"))
            }
        };
        loaded.doubtful_mount_point(&share.id, message, help)
    };
    loaded.settings.shares.values().filter_map(warning).collect()
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    #[default]
    Error,
    Warning,
}

/// One entry of the JSON list. `line` and `column` count from 1; 0 where a whole file is meant.
#[derive(Debug, Default, Serialize)]
struct Finding {
    severity: Severity,
    kind: Option<InvalidKind>,
    file: String,
    line: usize,
    column: usize,
    key: String,
    message: String,
    help: String,
}

impl Finding {
    fn new(severity: Severity, notice: &Notice) -> Self {
        Self {
            severity,
            kind: Some(notice.kind),
            file: notice.place.file.to_string_lossy().into_owned(),
            line: notice.place.line,
            column: notice.place.column,
            key: notice.key.clone(),
            message: notice.message.clone(),
            help: notice.help.clone(),
        }
    }
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    problems: Vec<Finding>,
}

fn write_json(out: &mut impl Write, problems: Vec<Finding>) -> io::Result<()> {
    let text = serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, problems }).map_err(io::Error::from)?;
    writeln!(out, "{}", config::escaped_lines(&text))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{SourceText, shipped_profiles};

    #[test]
    fn a_user_whom_the_host_does_not_have_is_said_where_they_are_named() {
        let text = "[server.tower]\nhost = \"10.0.0.1\"\n[share.films]\nserver = \"tower\"\nsource = \"films\"\n\
                    mount_point = \"/mnt/films\"\n[[share.films.consumer]]\nunit = \"a.service\"\nuser = \"1000\"\n\
                    [[share.films.consumer]]\nunit = \"b.service\"\nuser = \"nosuchuser\"\n";
        let texts = ConfigTexts { fragments: vec![SourceText::new("n.toml", text)], profiles: shipped_profiles() };
        let checked = check_texts(&texts, |_| Ok(None), |_| MountPoint::Usable, |_, name| name.starts_with("nosuch"));
        let [notice] = checked.accounts.as_slice() else { panic!("{:?}", checked.accounts) };
        assert_eq!((notice.place.line, notice.key.as_str()), (12, "share.films.consumer[1].user"));
        assert_eq!(notice.message, "this host has no user nosuchuser, so nothing is done to b.service in an outage");
    }

    #[test]
    fn a_credentials_file_that_could_not_be_read_is_a_warning() {
        let text = "[server.tower]\nhost = \"10.0.0.1\"\ncredentials = \"/etc/nasmount/tower.cred\"\n";
        let loaded = config::load(&[SourceText::new("nasmount.toml", text)], &shipped_profiles()).unwrap();
        let mut warnings = Vec::new();
        assert_eq!(check_credentials(&loaded, &mut warnings, |_| Ok(None)), []);
        let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "nasmount.toml:3:15: server.tower.credentials: /etc/nasmount/tower.cred was not checked: only root can read it"
            ]
        );
        let mut out = Vec::new();
        write_json(&mut out, vec![Finding::new(Severity::Warning, &warnings[0].0)]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["problems"][0]["severity"], "warning");
        let refused = check_credentials(&loaded, &mut Vec::new(), |_| Err((String::new(), String::new())));
        assert_eq!(refused.len(), 1);
    }
}
