//! Names of systemd units that may depend on a share.

use std::fmt::Write as _;

use super::value::{BadValue, closest, list, quoted};

/// systemd's limit.
const UNIT_NAME_MAX: usize = 255;

/// Kinds of units that have processes and can therefore be paused.
const WITH_PROCESSES: &[&str] = &["service", "scope", "slice"];

/// Kinds that can be stopped and started, but have nothing to pause.
const WITHOUT_PROCESSES: &[&str] = &["socket", "target", "timer", "path"];

/// Units that the host or nasmount itself cannot do without for a moment.
const ESSENTIAL: &[&str] = &[
    "nasmount.service",
    "nasmount-barrier.service",
    "-.slice",
    "init.scope",
    "system.slice",
    "user.slice",
    "machine.slice",
    "dbus.service",
    "dbus-broker.service",
    "dbus.socket",
    "systemd-journald.service",
    "systemd-logind.service",
    "systemd-udevd.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "NetworkManager.service",
    "nasmount-resume-all.service",
    "network.target",
    "network-pre.target",
    "network-online.target",
    "local-fs.target",
    "remote-fs.target",
    "sockets.target",
    "timers.target",
    "paths.target",
    "umount.target",
    "shutdown.target",
    "basic.target",
    "sysinit.target",
    "multi-user.target",
    "graphical.target",
    "default.target",
];

/// Units by which a person gets at the host when something is wrong, as far as the `@` or the dot.
const WAYS_IN: &[&str] = &["ssh", "sshd", "getty", "serial-getty", "console-getty", "user", "user-runtime-dir"];

/// The services of containers' engines, which run their containers elsewhere.
const ENGINE_UNITS: &[&str] = &[
    "docker.service",
    "snap.docker.dockerd.service",
    "containerd.service",
    "podman.service",
    "crio.service",
    "k3s.service",
    "k3s-agent.service",
    "kubelet.service",
];

/// Whether a unit can be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pausable {
    Yes,
    /// It has no processes.
    Empty,
    /// Its containers would go on without it, and nobody could stop or start them.
    Engine,
}

/// The unit that systemd makes of what is mounted on a normalised absolute path, as `systemd-escape --path --suffix=mount PATH`
/// says it: `-` for `/`, and `\xNN` for a byte that needs escaping.
pub fn mount_unit(path: &str) -> String {
    let mut name = String::new();
    for (index, byte) in path.bytes().skip(1).enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index > 0 => name.push('.'),
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') => name.push(byte.into()),
            byte => {
                let _ = write!(name, "\\x{byte:02x}");
            }
        }
    }
    name + ".mount"
}

/// Checks the name of a consumer.
pub(crate) fn parse_unit(text: &str) -> Result<Pausable, BadValue> {
    let bad = |message: String, help: String| Err(BadValue { message, help });
    let example = "write a unit's full name, such as \"jellyfin.service\"".to_owned();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if text.is_empty() || text.len() > UNIT_NAME_MAX || !text.bytes().all(allowed) {
        return bad(format!("{} is not the name of a unit", quoted(text)), example);
    }
    let kinds = || WITH_PROCESSES.iter().chain(WITHOUT_PROCESSES).copied();
    let Some((stem, kind)) = text.rsplit_once('.').filter(|(_, kind)| is_kind(kind)) else {
        if let Some((stem, kind)) = text.rsplit_once('.')
            && let Some(meant) = closest(kind, kinds())
        {
            let help = format!("did you mean {}?", quoted(&format!("{stem}.{meant}")));
            return bad(format!("there is no kind of unit {}", quoted(kind)), help);
        }
        let help = format!("add the kind of unit: unit = {}", quoted(&format!("{text}.service")));
        return bad(format!("{} has no suffix", quoted(text)), help);
    };
    if stem.is_empty() {
        return bad(format!("{} has no name before its suffix", quoted(text)), example);
    }
    if !kinds().any(|known| known == kind) {
        let help = format!("use a {}", list(kinds()));
        return bad(format!("a unit of the kind {kind} cannot be held"), help);
    }
    if stem.ends_with('@') {
        let help = format!("name the instance: unit = {}", quoted(&format!("{stem}NAME.{kind}")));
        return bad(format!("{} is a template, not a unit", quoted(text)), help);
    }
    if ESSENTIAL.contains(&text) || stem.starts_with("nasmount-wait@") {
        let message = format!("{text} must go on running, whatever happens to a share");
        return bad(message, "remove this consumer, and name the services that use the share".to_owned());
    }
    let is_session =
        (kind == "scope" && stem.starts_with("session-")) || (kind == "slice" && stem.starts_with("user-"));
    if is_session || WAYS_IN.contains(&text.split(['@', '.']).next().unwrap_or_default()) {
        let message = format!("{text} is how somebody gets at this host, in an outage, too");
        return bad(message, "remove this consumer, and name the services that use the share".to_owned());
    }
    if ENGINE_UNITS.contains(&text) {
        return Ok(Pausable::Engine);
    }
    Ok(if WITH_PROCESSES.contains(&kind) { Pausable::Yes } else { Pausable::Empty })
}

/// All kinds of units that systemd knows.
fn is_kind(kind: &str) -> bool {
    let others = ["device", "mount", "automount", "swap"];
    WITH_PROCESSES.contains(&kind) || WITHOUT_PROCESSES.contains(&kind) || others.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `systemd-escape --path --suffix=mount` of systemd 257 says it.
    #[test]
    fn mount_units_are_named_as_systemd_names_them() {
        for (path, unit) in [
            ("/mnt/media", "mnt-media.mount"),
            ("/mnt/nm-films", "mnt-nm\\x2dfilms.mount"),
            ("/srv/my films", "srv-my\\x20films.mount"),
            ("/srv/a.b_c:d", "srv-a.b_c:d.mount"),
            ("/.hidden/.x", "\\x2ehidden-.x.mount"),
            ("/srv/ä", "srv-\\xc3\\xa4.mount"),
        ] {
            assert_eq!(mount_unit(path), unit);
        }
    }

    #[test]
    fn names_of_units() {
        for text in ["jellyfin.service", "docker-abc.scope", "a@b.service", "x\\x2dy.slice", "org.x.y.service"] {
            assert_eq!(parse_unit(text), Ok(Pausable::Yes), "{text}");
        }
        assert_eq!(parse_unit("backup.timer"), Ok(Pausable::Empty));
        for text in [
            "",
            "jellyfin",
            "a b.service",
            ".service",
            "a@.service",
            "mnt-x.mount",
            "dbus.service",
            "*.service",
            "sshd.service",
            "ssh@1.service",
            "getty@tty1.service",
            "user@1000.service",
            "user-1000.slice",
            "session-1.scope",
            "nasmount-wait@media.service",
        ] {
            assert!(parse_unit(text).is_err(), "{text}");
        }
    }
}
