//! The configuration, for commands that cannot do without; which of its shares is meant, and what is not in it.

use std::path::Path;

use super::Hinted;
use super::report::{Exit, report};
use crate::config::settings::{Settings, ShareSettings};
use crate::config::{self, Loaded, closest};
use crate::status::ShareStatus;
use crate::sys::config_dir::{ConfigRoots, ReadError, read_config};

/// Most shares that fit into a hint.
const NAMED_MAX: usize = 12;

/// The configuration; that it cannot be used has been said.
pub(super) fn loaded(config: Option<&Path>) -> Result<Loaded, Exit> {
    loaded_or(config, "")
}

/// The same; `instead` is what else can be done where there is no configuration.
pub(super) fn loaded_or(config: Option<&Path>, instead: &str) -> Result<Loaded, Exit> {
    let texts = read_config(&ConfigRoots::system(config)).map_err(|error| {
        let is_missing = matches!(error, ReadError::NoConfiguration { .. });
        let hint = match error.hint() {
            hint if is_missing && !instead.is_empty() => format!("{instead}; else {hint}"),
            hint => hint,
        };
        report(&error, Some(&hint));
        Exit::Usage
    })?;
    config::load(&texts.fragments, &texts.profiles).map_err(|_| {
        let error = Hinted::new("the configuration is not valid", "`nasmount check` says what is wrong");
        report(&error, Some(&error.hint));
        Exit::Usage
    })
}

/// What a share can be called by.
pub(super) trait Called {
    /// Its name.
    fn name(&self) -> &str;
    /// Its mount point.
    fn mount_point(&self) -> &Path;

    /// Is it what was typed? No name begins with a slash.
    fn is_meant(&self, typed: &str) -> bool {
        if typed.starts_with('/') { self.mount_point() == Path::new(typed) } else { self.name() == typed }
    }
}

impl Called for ShareSettings {
    fn name(&self) -> &str {
        &self.id.0
    }

    fn mount_point(&self) -> &Path {
        &self.mount_point
    }
}

impl Called for ShareStatus {
    fn name(&self) -> &str {
        &self.name
    }

    fn mount_point(&self) -> &Path {
        Path::new(&self.mount_point)
    }
}

/// The share that is meant, by its name or its mount point; that there is none has been said.
pub(super) fn share<'s, S: Called>(
    shares: impl IntoIterator<Item = &'s S, IntoIter: Clone>,
    typed: &str,
) -> Result<&'s S, Exit> {
    let shares = shares.into_iter();
    if let Some(share) = shares.clone().find(|share| share.is_meant(typed)) {
        return Ok(share);
    }
    let known: Vec<String> = shares.clone().map(|share| share.name().to_owned()).collect();
    let listed = match known.len() {
        0 => "no share is configured: add a table [share.NAME]".to_owned(),
        1..=NAMED_MAX => format!("there is {}", known.join(", ")),
        _ => "`nasmount status` lists what there is".to_owned(),
    };
    if !typed.starts_with('/') {
        return Err(no_such("share", typed, &known, &listed));
    }
    let around = shares.clone().find(|share| Path::new(typed).starts_with(share.mount_point()));
    let hint = around.map_or_else(|| listed, |share| format!("it is in the share {}", share.name()));
    report(&Hinted::new(format!("no share is mounted on {typed:?}"), hint.as_str()), Some(&hint));
    Err(Exit::NoSuchShare)
}

/// The names of all shares.
pub(super) fn shares_of(settings: &Settings) -> Vec<String> {
    settings.shares.values().map(|share| share.id.to_string()).collect()
}

/// Says that there is no such share, or whatever `what` is, and which was probably meant, or else where they are listed.
pub(super) fn no_such(what: &str, name: &str, known: &[String], listed: &str) -> Exit {
    let hint = hint(name, known, listed);
    let message = match name.trim() {
        "" => format!("the name of the {what} is empty"),
        _ => format!("there is no {what} {}", without_login(name)),
    };
    report(&Hinted::new(message, hint.as_str()), Some(&hint));
    Exit::NoSuchShare
}

/// What was typed, if it can be a name; else up to where a password may begin: `bob%…`.
fn without_login(name: &str) -> String {
    match name.split_once(['%', '=', ':']) {
        Some((before, _)) => format!("{}…", config::escaped(before)),
        None => config::escaped(name),
    }
}

fn hint(name: &str, known: &[String], listed: &str) -> String {
    match closest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => listed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_hint_names_what_was_meant_or_where_to_look() {
        let known = ["films".to_owned(), "media".to_owned()];
        assert_eq!(hint("medai", &known, "look there"), "did you mean `media`?");
        assert_eq!(hint("attic", &known, "look there"), "look there");
        assert_eq!((without_login("bob%Secret").as_str(), without_login("a\u{1b}").as_str()), ("bob…", "a\\u001b"));
    }

    #[test]
    fn a_share_is_meant_by_its_name_or_its_mount_point() {
        let text = "[server.tower]\nhost = \"10.0.0.1\"\n\
                    [share.films]\nserver = \"tower\"\nsource = \"films\"\nmount_point = \"/mnt/films\"\n\
                    [share.music]\nserver = \"tower\"\nsource = \"music\"\nmount_point = \"/mnt/music\"\n";
        let texts = [config::SourceText::new("nasmount.toml", text)];
        let settings = config::load(&texts, &config::shipped_profiles()).unwrap().settings;
        let meant = |typed: &str| share(settings.shares.values(), typed).map(|share| share.id.to_string());
        for typed in ["music", "/mnt/music", "/mnt/music/", "//mnt//music"] {
            assert_eq!(meant(typed).unwrap(), "music", "{typed}");
        }
        for typed in ["musik", "/mnt", "/mnt/music/bach", "mnt/music", ""] {
            assert_eq!(meant(typed).unwrap_err(), Exit::NoSuchShare, "{typed}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_used_is_wrong_usage() {
        assert_eq!(loaded(Some(Path::new("/nonexistent/nasmount.toml"))).err(), Some(Exit::Usage));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nasmount.toml");
        #[expect(clippy::disallowed_methods, reason = "tests write files")]
        std::fs::write(&file, "[share.films]\n").unwrap();
        assert_eq!(loaded(Some(&file)).err(), Some(Exit::Usage));
    }
}
