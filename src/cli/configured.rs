//! The configuration, for commands that cannot do without, and what is not in it.

use std::path::Path;

use super::Hinted;
use super::report::{Exit, report};
use crate::config::settings::Settings;
use crate::config::{self, Loaded, closest};
use crate::sys::config_dir::{ConfigRoots, read_config};

/// The configuration; that it cannot be used has been said.
pub(super) fn loaded(config: Option<&Path>) -> Result<Loaded, Exit> {
    let texts = read_config(&ConfigRoots::system(config)).map_err(|error| {
        report(&error, Some(&error.hint()));
        Exit::Usage
    })?;
    config::load(&texts.fragments, &texts.profiles).map_err(|_| {
        let error = Hinted::new("the configuration is not valid", "`nasmount check` says what is wrong");
        report(&error, Some(&error.hint));
        Exit::Usage
    })
}

/// The names of all shares.
pub(super) fn shares_of(settings: &Settings) -> Vec<String> {
    settings.shares.values().map(|share| share.id.to_string()).collect()
}

/// Says that there is no such share, or whatever `what` is, and which was probably meant, or else where they are listed.
pub(super) fn no_such(what: &str, name: &str, known: &[String], listed: &str) -> Exit {
    let hint = hint(name, known, listed);
    report(&Hinted::new(format!("there is no {what} {name}"), hint.as_str()), Some(&hint));
    Exit::NoSuchShare
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
