//! Names of consumers, one word each wherever consumers have names: `jellyfin.service`, `container:tdarr`.

use super::units::{Pausable, parse_unit};
use super::value::{BadValue, quoted};

const CONTAINER: &str = "container:";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer<'name> {
    /// A unit.
    Unit(&'name str),
    /// A container of Docker or Podman.
    Container(&'name str),
}

impl<'name> Consumer<'name> {
    /// Of this name.
    pub fn of(name: &'name str) -> Self {
        name.strip_prefix(CONTAINER).map_or(Self::Unit(name), Self::Container)
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Unit(unit) => unit.to_owned(),
            Self::Container(container) => format!("{CONTAINER}{container}"),
        }
    }
}

/// The unit, if it is one.
pub fn system_unit(consumer: &str) -> Option<&str> {
    match Consumer::of(consumer) {
        Consumer::Unit(unit) => Some(unit),
        Consumer::Container(_) => None,
    }
}

/// The container's name, if it is one.
pub fn container(consumer: &str) -> Option<&str> {
    match Consumer::of(consumer) {
        Consumer::Container(name) => Some(name),
        Consumer::Unit(_) => None,
    }
}

/// Checks a name.
pub(super) fn parse_consumer(name: &str) -> Result<Pausable, BadValue> {
    match Consumer::of(name) {
        Consumer::Unit(unit) => parse_unit(unit),
        Consumer::Container(name) => parse_container(name),
    }
}

/// By the rules of Docker and Podman: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn parse_container(name: &str) -> Result<Pausable, BadValue> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(allowed) {
        return Ok(Pausable::Yes);
    }
    let help = "write its name as `docker ps` or `podman ps` shows it, such as container = \"tdarr\"".to_owned();
    Err(BadValue { message: format!("{} is not the name of a container", quoted(name)), help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_stands_for() {
        for (name, consumer) in [
            ("a@b:c.service", Consumer::Unit("a@b:c.service")),
            ("container:a.service", Consumer::Container("a.service")),
        ] {
            assert_eq!(Consumer::of(name), consumer);
            assert_eq!(consumer.name(), name);
            assert_eq!(parse_consumer(name), Ok(Pausable::Yes), "{name}");
        }
    }

    #[test]
    fn names_that_cannot_be() {
        for name in ["container:", "container:-a", "container:a b", "container:a/b", "container:ä"] {
            assert!(parse_consumer(name).is_err(), "{name}");
        }
    }
}
