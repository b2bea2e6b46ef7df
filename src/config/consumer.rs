//! Names of consumers, one word each wherever consumers have names: `jellyfin.service`, `user:anna/mpd.service`, `container:tdarr`,
//! `compose:mediastack`.

use super::units::{Pausable, parse_unit};
use super::value::{BadValue, quoted};

/// What compose marks the containers of a project with, and podman-compose as well.
const PROJECT: &str = "com.docker.compose.project";

/// Engines, as they are written in a name.
pub const ENGINES: [&str; 2] = ["docker", "podman"];

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer<'name> {
    /// A unit of the system's.
    Unit(&'name str),
    /// A unit of a user's own service manager.
    UserUnit {
        /// Whose: a name or a number.
        user: &'name str,
        /// As that manager calls it.
        unit: &'name str,
    },
    /// A container.
    Container {
        /// Whose it is: one of [`ENGINES`], or of the first that knows it.
        engine: Option<&'name str>,
        /// As its engine calls it.
        name: &'name str,
    },
    /// All containers with this label, `KEY` or `KEY=VALUE`.
    Label(&'name str),
    /// All containers of this project of compose's.
    Compose(&'name str),
}

impl<'name> Consumer<'name> {
    /// Of this name.
    pub fn of(consumer: &'name str) -> Self {
        match consumer.split_once(':') {
            Some(("container", name)) => Self::Container { engine: None, name },
            Some((engine, name)) if ENGINES.contains(&engine) => Self::Container { engine: Some(engine), name },
            Some(("label", label)) => Self::Label(label),
            Some(("compose", project)) => Self::Compose(project),
            Some(("user", unit)) if let Some((user, unit)) = unit.split_once('/') => Self::UserUnit { user, unit },
            _ => Self::Unit(consumer),
        }
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Unit(unit) => unit.to_owned(),
            Self::UserUnit { user, unit } => format!("user:{user}/{unit}"),
            Self::Container { engine, name } => format!("{}:{name}", engine.unwrap_or("container")),
            Self::Label(label) => format!("label:{label}"),
            Self::Compose(project) => format!("compose:{project}"),
        }
    }

    /// The label that its containers have, if it stands for all that have one.
    pub fn label(self) -> Option<String> {
        match self {
            Self::Unit(_) | Self::UserUnit { .. } | Self::Container { .. } => None,
            Self::Label(label) => Some(label.to_owned()),
            Self::Compose(project) => Some(format!("{PROJECT}={project}")),
        }
    }

    /// Do these stand for the same, or may they, although they are other names? A container of no engine is one of any, and whose number a
    /// user's is is the host's affair.
    pub(super) fn may_be(self, other: Self) -> bool {
        if let (Self::UserUnit { user, unit }, Self::UserUnit { user: other_user, unit: other }) = (self, other) {
            let is_number = |user: &str| user.bytes().all(|byte| byte.is_ascii_digit());
            return unit == other && is_number(user) != is_number(other_user);
        }
        if let (Self::Container { engine, name }, Self::Container { engine: its, name: other }) = (self, other) {
            return name == other && engine != its && (engine.is_none() || its.is_none());
        }
        self != other && self.label().is_some() && self.label() == other.label()
    }

    /// How the configuration names it.
    pub(super) fn keys(self) -> String {
        match self {
            Self::Unit(unit) => format!("unit = {}", quoted(unit)),
            Self::UserUnit { user, unit } => format!("unit = {} and user = {}", quoted(unit), quoted(user)),
            Self::Container { engine: None, name } => format!("container = {}", quoted(name)),
            Self::Container { engine: Some(engine), name } => {
                format!("container = {} and engine = {}", quoted(name), quoted(engine))
            }
            Self::Label(label) => format!("label = {}", quoted(label)),
            Self::Compose(project) => format!("compose = {}", quoted(project)),
        }
    }
}

/// The unit, if it is one of the system's.
pub fn system_unit(consumer: &str) -> Option<&str> {
    match Consumer::of(consumer) {
        Consumer::Unit(unit) => Some(unit),
        Consumer::UserUnit { .. } | Consumer::Container { .. } | Consumer::Label(_) | Consumer::Compose(_) => None,
    }
}

/// Does it stand for all containers that are marked so?
pub fn is_group(consumer: &str) -> bool {
    Consumer::of(consumer).label().is_some()
}

/// Could this be the name of a consumer?
pub fn is_consumer_name(text: &str) -> bool {
    parse_consumer(text).is_ok()
}

/// Checks a name.
pub(super) fn parse_consumer(name: &str) -> Result<Pausable, BadValue> {
    match Consumer::of(name) {
        Consumer::Unit(unit) | Consumer::UserUnit { unit, .. } => return parse_unit(unit),
        Consumer::Container { name, .. } => parse_container(name),
        Consumer::Label(label) => parse_label(label),
        Consumer::Compose(project) => parse_project(project),
    }?;
    Ok(Pausable::Yes)
}

/// By systemd's lax rules (`valid_user_group_name`, which accepts what other systems give out), as far as a name is one word. What has
/// digits alone is a number, as it is for systemd (`parse_uid`).
pub(super) fn parse_user(user: &str) -> Result<(), BadValue> {
    if !user.is_empty() && user.bytes().all(|letter| letter.is_ascii_digit()) {
        return parse_user_number(user);
    }
    let allowed = |letter: char| letter.is_alphanumeric() || "_.-@$".contains(letter);
    if user.starts_with(|first: char| first.is_alphanumeric() || first == '_') && user.chars().all(allowed) {
        return Ok(());
    }
    let help = "write the name or the number of whose unit it is, such as user = \"anna\"".to_owned();
    Err(BadValue { message: format!("{} is not the name of a user", quoted(user)), help })
}

/// `(uid_t)-1` is nobody, and was so when it had 16 bits (systemd's `uid_is_valid`).
fn parse_user_number(user: &str) -> Result<(), BadValue> {
    const NOBODY: [u32; 2] = [u32::MAX, u16::MAX as u32];
    let help = match user.parse::<u32>() {
        Ok(number) if NOBODY.contains(&number) => "no user can have it: `id -u NAME` says the number of one".to_owned(),
        Ok(number) if number.to_string() != user => {
            format!("write it without zeros before it: user = \"{number}\"")
        }
        Ok(_) => return Ok(()),
        Err(_) => format!("the last number is {}: `id -u NAME` says the number of one", u32::MAX - 1),
    };
    Err(BadValue { message: format!("{} is not the number of a user", quoted(user)), help })
}

/// By the rules of Docker and Podman: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
fn parse_container(name: &str) -> Result<(), BadValue> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.chars().all(allowed) {
        return Ok(());
    }
    let help = "write its name as `docker ps` or `podman ps` shows it, such as container = \"tdarr\"".to_owned();
    Err(BadValue { message: format!("{} is not the name of a container", quoted(name)), help })
}

/// A name is one word, so that values with spaces cannot be named.
fn parse_label(label: &str) -> Result<(), BadValue> {
    if !label.is_empty() && !label.starts_with('=') && label.chars().all(|letter| letter.is_ascii_graphic()) {
        return Ok(());
    }
    let help = "write KEY or KEY=VALUE without spaces, such as label = \"nasmount.share=media\"".to_owned();
    Err(BadValue { message: format!("{} is not a label", quoted(label)), help })
}

/// By the rules of the compose specification: `[a-z0-9][a-z0-9_-]*`.
fn parse_project(project: &str) -> Result<(), BadValue> {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_project =
        |text: &str| text.starts_with(is_plain) && text.chars().all(|letter| is_plain(letter) || "_-".contains(letter));
    if is_project(project) {
        return Ok(());
    }
    let lower = project.to_ascii_lowercase();
    let help = if is_project(&lower) {
        format!("compose writes projects in small letters: compose = {}", quoted(&lower))
    } else {
        "write its name as `docker compose ls` shows it, such as compose = \"mediastack\"".to_owned()
    };
    Err(BadValue { message: format!("{} is not the name of a project", quoted(project)), help })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_says_what_it_stands_for() {
        for (name, consumer) in [
            ("a@b:c.service", Consumer::Unit("a@b:c.service")),
            ("user:anna/mpd.service", Consumer::UserUnit { user: "anna", unit: "mpd.service" }),
            ("user:x.service", Consumer::Unit("user:x.service")),
            ("container:a.service", Consumer::Container { engine: None, name: "a.service" }),
            ("podman:tdarr", Consumer::Container { engine: Some("podman"), name: "tdarr" }),
            ("label:nasmount.share=a:b", Consumer::Label("nasmount.share=a:b")),
            ("compose:media_stack-2", Consumer::Compose("media_stack-2")),
        ] {
            assert_eq!(Consumer::of(name), consumer);
            assert_eq!(consumer.name(), name);
            assert_eq!(parse_consumer(name), Ok(Pausable::Yes), "{name}");
        }
    }

    #[test]
    fn names_of_the_same() {
        let may_be = |one: &str, other: &str| Consumer::of(one).may_be(Consumer::of(other));
        assert!(may_be("container:tdarr", "podman:tdarr") && may_be("docker:tdarr", "container:tdarr"));
        assert!(may_be("user:anna/mpd.service", "user:1000/mpd.service"));
        assert!(!may_be("user:anna/mpd.service", "user:otto/mpd.service"), "two users");
        assert!(may_be("compose:media", "label:com.docker.compose.project=media"));
        for (one, other) in [
            ("docker:tdarr", "podman:tdarr"),
            ("container:tdarr", "docker:player"),
            ("container:tdarr", "label:tdarr"),
            ("label:films", "label:films=yes"),
            ("a.service", "b.service"),
        ] {
            assert!(!may_be(one, other), "{one} {other}");
        }
    }

    #[test]
    fn names_that_cannot_be() {
        for name in ["container:", "container:-a", "docker:a b", "podman:a/b", "container:ä"] {
            assert!(!is_consumer_name(name), "{name}");
        }
        for name in ["label:", "label:=media", "label:a=b c", "label:ä=b", "compose:", "compose:-a", "compose:Media"] {
            assert!(!is_consumer_name(name), "{name}");
        }
    }

    #[test]
    fn a_number_is_one_that_a_user_can_have() {
        for user in ["0", "1000", "4294967294", "anna", "1a", "_x"] {
            assert_eq!(parse_user(user), Ok(()), "{user}");
        }
        for (user, help) in [
            ("4294967295", "no user can have it"),
            ("65535", "no user can have it"),
            ("99999999999", "the last number is 4294967294"),
            ("012", "user = \"12\""),
            ("00", "user = \"0\""),
        ] {
            let bad = parse_user(user).unwrap_err();
            assert!(bad.message.ends_with("is not the number of a user") && bad.help.contains(help), "{user}: {bad:?}");
        }
        for user in ["", "no body/..", "-anna", "anna/x"] {
            assert!(parse_user(user).unwrap_err().message.ends_with("is not the name of a user"), "{user}");
        }
    }

    #[test]
    fn a_project_is_a_label() {
        assert_eq!(Consumer::of("compose:media").label().as_deref(), Some("com.docker.compose.project=media"));
        assert_eq!(Consumer::of("label:keep").label().as_deref(), Some("keep"));
        assert!(!is_group("docker:keep") && !is_group("keep.service"));
    }
}
