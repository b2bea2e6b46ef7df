//! Who uses the shares: do they wait, are they paused, and do they see what nasmount does?

use std::collections::BTreeSet;
use std::path::Path;

use super::facts::{Generator, Propagation, Sandbox, ServiceFacts, UserUnit};
use super::{Finding, Severity, quoted};
use crate::config::consumer::{Consumer, system_unit};
use crate::config::settings::{Settings, ShareSettings};
use crate::config::units::mount_unit;
use crate::plan::dependency::can_wait;
use crate::status::NamespaceCopy;

pub(super) fn consumers(settings: &Settings, services: &ServiceFacts, found: &mut Vec<Finding>) {
    configured(settings, services, found);
    found.extend(services.systemd_silent.as_deref().map(|why| unseen(settings, why)));
    found.extend(services.containers.iter().filter_map(|(consumer, engines)| container(consumer, engines)));
    found.extend(services.groups.iter().filter_map(|(consumer, members)| group(consumer, members)));
    found.extend(services.user_units.iter().filter_map(|(consumer, known)| user_unit(consumer, known)));
    for share in settings.shares.values() {
        let id = share.id.to_string();
        let is_one = |unit: &String, consumer: &str| match Consumer::of(consumer) {
            Consumer::UserUnit { unit: its, .. } => its == unit,
            Consumer::Unit(_) | Consumer::Container { .. } | Consumer::Label(_) | Consumer::Compose(_) => {
                consumer == unit
            }
        };
        let of = |unit: &String| share.consumers.iter().any(|consumer| is_one(unit, &consumer.unit));
        for consumer in &share.consumers {
            let sandbox = services.sandboxes.get(&consumer.unit);
            found.extend(sandbox.and_then(|sandbox| blind(&consumer.unit, share, sandbox)));
        }
        let requiring: BTreeSet<&String> = services.requiring.get(&id).into_iter().flatten().collect();
        found.extend(requiring.iter().filter(|unit| can_wait(unit) && !of(unit)).map(|unit| unpaused(unit, &id)));
        let holding = services.holding.get(&id).into_iter().flatten();
        let strangers = holding.filter(|unit| can_wait(unit) && !unit.starts_with("user@"));
        found.extend(strangers.filter(|unit| !of(unit) && !requiring.contains(unit)).map(|unit| stranger(unit, share)));
        found.extend(services.copies.get(&id).into_iter().flatten().filter_map(|copy| left_behind(copy, share)));
    }
}

fn configured(settings: &Settings, services: &ServiceFacts, found: &mut Vec<Finding>) {
    for (unit, after) in &services.consumers {
        let shares = settings.shares.values();
        let shares = shares.filter(|share| share.consumers.iter().any(|consumer| consumer.unit == *unit));
        let names =
            |shares: &[&ShareSettings]| shares.iter().map(|share| share.id.to_string()).collect::<Vec<_>>().join(", ");
        let Some(after) = after else {
            if unit.ends_with(".scope") {
                continue; // it is there only while it runs
            }
            let what = format!("systemd does not know {unit}, a consumer of {}", names(&shares.collect::<Vec<_>>()));
            let why = "nothing is paused under that name in an outage; is it right?";
            let stem = unit.rsplit_once('.').map_or(unit.as_str(), |(stem, _)| stem);
            let remedy = format!("systemctl list-unit-files | grep -i {}", quoted(stem));
            found.push(Finding::new("consumer-unknown", Severity::Warning, what, why, remedy));
            continue;
        };
        let is_waited_for = |share: &&ShareSettings| after.contains(&mount_unit(&share.mount_point.to_string_lossy()));
        let missed: Vec<&ShareSettings> = shares.filter(|share| !is_waited_for(share)).collect();
        if !missed.is_empty() && can_wait(unit) && services.generator == Generator::ReadsIt {
            let what = format!("the start of {unit} does not wait for {}", names(&missed));
            let why = "systemd has not read what nasmount's generator writes: started while the share is away, it finds no share";
            found.push(Finding::new("consumer-hasty", Severity::Warning, what, why, "systemctl daemon-reload"));
        }
    }
}

/// What was not looked at, because systemd did not answer.
fn unseen(settings: &Settings, why: &str) -> Finding {
    let consumers = settings.shares.values().flat_map(|share| &share.consumers);
    let units: BTreeSet<&str> = consumers.filter_map(|consumer| system_unit(&consumer.unit)).collect();
    let mut unseen = String::new();
    if !units.is_empty() {
        let units = units.into_iter().collect::<Vec<_>>().join(", ");
        unseen =
            format!("whether it knows the consumers {units}, whether they wait for their shares and see them, and ");
    }
    let what = format!("systemd cannot be asked: {why}");
    let why = format!("not looked at: {unseen}who requires the shares");
    let remedy = "run it again where `systemctl status` has an answer, as root: not in a chroot or a container";
    Finding::new("systemd-silent", Severity::Note, what, why, remedy)
}

/// A container that nobody has, or more than one.
fn container(consumer: &str, engines: &Result<Vec<&str>, String>) -> Option<Finding> {
    let Consumer::Container { name, .. } = Consumer::of(consumer) else { return None };
    let (id, what, why, remedy) = match engines.as_deref() {
        Ok([_]) => return None,
        Ok([taken, others @ ..]) => {
            let what = format!("{taken} and {} have a container {name}, a consumer", others.join(" and "));
            let why = format!("{taken}'s is paused in an outage, and the other one is not");
            let other = others.first().unwrap_or(taken).to_ascii_lowercase();
            let remedy =
                format!("write engine = \"{other}\" beside container = \"{name}\" if that is meant, else rename one");
            ("container-ambiguous", what, why, remedy)
        }
        Ok([]) => {
            let what = format!("no container engine knows {name}, a consumer");
            let why = "nothing is paused under that name in an outage; is it right?".to_owned();
            ("consumer-unknown", what, why, format!("(docker ps --all; podman ps --all) | grep -i {}", quoted(name)))
        }
        Err(error) => {
            let what = format!("the container {name}, a consumer, cannot be found: {error}");
            let why = "one that nasmount has not seen to run is not paused in an outage".to_owned();
            ("consumer-unknown", what, why, "have its engine answer, and try again".to_owned())
        }
    };
    Some(Finding::new(id, Severity::Warning, what, why, remedy))
}

/// A label or a project that nobody has, as before its containers have been made: that may be meant so.
fn group(consumer: &str, members: &Result<usize, String>) -> Option<Finding> {
    let label = Consumer::of(consumer).label()?;
    let (what, why, remedy) = match members {
        Ok(1..) => return None,
        Ok(0) => (
            format!("no container engine has a container for {consumer}, a consumer"),
            "nothing is paused for it in an outage, until there is one; is it written right?",
            format!(
                "filter=label={}; docker ps --all --filter \"$filter\"; podman ps --all --filter \"$filter\"",
                quoted(&label)
            ),
        ),
        Err(error) => (
            format!("the containers of {consumer}, a consumer, cannot be found: {error}"),
            "those that nasmount has not heard of are not paused in an outage",
            "have their engine answer, and try again".to_owned(),
        ),
    };
    Some(Finding::new("consumer-empty", Severity::Note, what, why, remedy))
}

const NOTHING_IS_DONE: &str = "nothing is done to it in an outage: its calls wait and then fail";

fn as_consumer(unit: &str, share: &str) -> String {
    format!("add to the configuration: [[share.{share}.consumer]] unit = \"{unit}\"; then nasmount reload")
}

/// A unit of a user's that nothing can be done to.
fn user_unit(consumer: &str, known: &UserUnit) -> Option<Finding> {
    let Consumer::UserUnit { user, unit } = Consumer::of(consumer) else { return None };
    let not_found = |error: &str| format!("{unit}, a consumer, cannot be found: {error}");
    let (what, why, remedy) = match known {
        UserUnit::Known => return None,
        UserUnit::Unknown => (
            format!("the service manager of {user} does not know {unit}, a consumer"),
            "nothing is paused under that name in an outage; is it right?",
            format!("systemctl --user --machine={user}@.host list-unit-files"),
        ),
        UserUnit::NobodysName(error) => (
            not_found(error),
            "nothing is done to it in an outage",
            format!("correct user = {user:?} beside unit = {unit:?} in the configuration; then nasmount reload"),
        ),
        UserUnit::NoManager(error) => (
            not_found(error),
            "a unit of a user's whose manager does not run does not run either, and is not started when a share returns",
            format!("loginctl enable-linger {user}"),
        ),
        UserUnit::Unasked(error) => (
            not_found(error),
            "what cannot be asked of the user's service manager is not done in an outage, either",
            format!("loginctl user-status {user}"),
        ),
    };
    Some(Finding::new("consumer-unknown", Severity::Warning, what, why, remedy))
}

/// It waits for the share, as after an import of fstab.
fn unpaused(unit: &str, share: &str) -> Finding {
    let what = format!("{unit} requires {share}, and is no consumer of it");
    Finding::new("dependent-unconfigured", Severity::Note, what, NOTHING_IS_DONE, as_consumer(unit, share))
}

/// It has files open now.
fn stranger(unit: &str, share: &ShareSettings) -> Finding {
    let what = format!("{unit} has files open on {}, does not wait for it, and is no consumer of it", share.id);
    let why = "started while the share is away it finds no share, and nothing is done to it in an outage: its calls wait and then fail";
    Finding::new("holder-unconfigured", Severity::Note, what, why, as_consumer(unit, &share.id.to_string()))
}

/// A container with a mount of its own, for instance.
fn left_behind(copy: &NamespaceCopy, share: &ShareSettings) -> Option<Finding> {
    let NamespaceCopy { pid, command, unit, path, .. } = copy;
    let trouble = copy.trouble()?;
    let who = match unit {
        Some(unit) => format!("{unit} ({command}, process {pid})"),
        None if *pid == 1 => command.clone(),
        None => format!("{command} (process {pid})"),
    };
    let what = format!("{who} has {} at {path}: it {trouble}", share.id);
    let why = "it has a mount of its own, which is not barred in an outage and not mounted anew after it";
    let above = share.mount_point.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let remedy = if *pid == 1 {
        format!("umount {}; bind the directory above it instead", quoted(path))
    } else {
        format!(
            "start it again, with the directory above the mount point: docker and podman: `-v {0}:{0}:rslave`, compose: \
             `bind: {{ propagation: rslave }}`, a service: without BindPaths= of the share",
            quoted(&above)
        )
    };
    Some(Finding::new("copy-left-behind", Severity::Warning, what, why, remedy))
}

/// A service that will not see its share, or not what becomes of it.
fn blind(unit: &str, share: &ShareSettings, sandbox: &Sandbox) -> Option<Finding> {
    let place = share.mount_point.as_path();
    // systemd.exec(5): `-` ignores what is missing, `+` is below the root of the service
    let path = |text: &str| Path::new(text.trim_start_matches(['-', '+'])).to_owned();
    let above = |text: &&String| place.starts_with(path(text));
    let below = |text: &&String| path(text).starts_with(place) && path(text) != place;
    let at_or_below = |text: &&String| path(text).starts_with(place);
    let is_home = ["/home", "/root", "/run/user"].iter().any(|home| place.starts_with(home));
    let (setting, effect) = if let Some(root) = &sandbox.root {
        (format!("a root of its own ({root})"), DOES_NOT_FOLLOW)
    } else if sandbox.propagation == Propagation::None {
        ("MountFlags=private".to_owned(), DOES_NOT_FOLLOW)
    } else if let Some(hidden) = sandbox.hidden.iter().find(above) {
        (format!("InaccessiblePaths= or TemporaryFileSystem= of {hidden}"), HIDDEN)
    } else if is_home && matches!(sandbox.home.as_str(), "yes" | "tmpfs") {
        (format!("ProtectHome={}", sandbox.home), HIDDEN)
    } else if let Some(bound) = sandbox.bound.iter().find(at_or_below) {
        (format!("BindPaths= or BindReadOnlyPaths= of {bound}"), DOES_NOT_FOLLOW)
    } else if let Some(inner) = sandbox.itself.iter().find(below) {
        (format!("a setting for {inner}, a directory of the share (ReadWritePaths= and its kin)"), DOES_NOT_FOLLOW)
    } else {
        return None;
    };
    let what = format!("{unit}, a consumer of {}, has {setting}", share.id);
    let remedy = format!(
        "systemctl edit {}: take that setting away, or name a directory above {}",
        quoted(unit),
        place.display()
    );
    Some(Finding::new("consumer-blind", Severity::Warning, what, effect, remedy))
}

const HIDDEN: &str = "it does not see the share at all, but an empty or closed directory";
const DOES_NOT_FOLLOW: &str = "it keeps what was mounted when it was started, or nothing: it does not meet the barrier in an outage, and \
                               does not see the share that is mounted after it";
