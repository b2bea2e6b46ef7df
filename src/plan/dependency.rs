//! How other units depend on a share: the units that nasmount's generator writes for systemd.
//!
//! Each share gets a `.mount` unit. Its start mounts nothing: before it, `nasmount-wait@SHARE.service` waits until the share is online.
//! So `RequiresMountsFor=`, `Requires=mnt-media.mount` and whatever worked with a line of fstab waits for a share that can be used. The
//! configured consumers get such a line themselves, in a drop-in.
//!
//! A service waits, and not the `.mount` unit's own process: PID 1 looks at the mount point before it starts that, and would let all
//! go who wait for a share with `on_access = "wait ..."`.
//!
//! `Requires=` and not `BindsTo=`: an outage takes the share off its path, which ends the `.mount` unit, and what happens to the
//! consumers then is nasmount's to decide. A stop of the `.mount` unit by the administrator stops them all the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::units::units;
use crate::config::consumer::system_unit;
use crate::config::limits::section;
use crate::config::settings::{AfterHold, OnOutage, Settings, ShareSettings};
use crate::config::units::mount_unit;
use crate::share::consumers::Policy;

/// First line of everything that the generator writes.
pub const MARK: &str = "# Written by nasmount's generator from its configuration: change that instead.";

/// Name of the drop-ins.
pub const DROP_IN: &str = "50-nasmount.conf";

/// What comes before a share's name as the source of its `.mount` unit and of its barrier.
pub const SOURCE_PREFIX: &str = "nasmount:";

/// How long a start waits for a share at most. A consumer whose start is given up is started by nasmount when the share is there,
/// so this only bounds how long a boot is "starting" and a `systemctl start` says nothing.
pub const START_WAITS: Duration = Duration::from_secs(40);

/// Name of the service that waits for a share.
pub fn wait_unit(share: &str) -> String {
    format!("nasmount-wait@{share}.service")
}

/// The units by which others require a share: the one of its mount point, and the one that waits, whose name needs no path.
pub fn required(share: &str, mount_point: &str) -> [String; 2] {
    [mount_unit(mount_point), wait_unit(share)]
}

/// The kind of consumers that can require a share. Scopes and slices are started for somebody else. Sockets and paths come before
/// `basic.target` and nasmount after it: systemd would break the cycle by not starting one of them (seen on 252 and 257). Timers and
/// targets start services, which wait themselves.
const CAN_WAIT: &str = ".service";

/// Every file that the generator writes, by its path below the generator's directory.
pub fn files(settings: &Settings) -> BTreeMap<String, String> {
    let shares = settings.shares.values();
    let mut files: BTreeMap<String, String> = shares.map(|share| (unit_of(share), mount(share))).collect();
    for (unit, spec) in units(settings) {
        let needs = spec.needs.iter().filter(|_| can_wait(&unit)).filter_map(|(share, policy)| {
            Some((unit_of(settings.shares.values().find(|known| known.id.to_string() == *share)?), *policy))
        });
        let text = format!("{}{}", drop_in(&needs.collect::<Vec<_>>()), limits(&unit, settings));
        if !text.is_empty() {
            files.insert(format!("{unit}.d/{DROP_IN}"), format!("{MARK}\n{text}"));
        }
    }
    files
}

/// Whether the start of a unit can wait for a share.
pub fn can_wait(unit: &str) -> bool {
    system_unit(unit).is_some_and(|unit| unit.ends_with(CAN_WAIT))
}

/// Name of a share's `.mount` unit.
fn unit_of(share: &ShareSettings) -> String {
    mount_unit(&share.mount_point.to_string_lossy())
}

/// Not wanted by `remote-fs.target`: nasmount mounts by itself, and only who needs the share waits for it. `_netdev` stops it before
/// the network, `nofail` keeps `remote-fs.target` from waiting (systemd.mount(5)). No `LazyUnmount`: at a shutdown the share would be
/// off its path, and given back, while somebody who does not say that he needs it still writes (seen: his last lines were lost).
fn mount(share: &ShareSettings) -> String {
    let id = &share.id;
    let wait = wait_unit(&id.0);
    let place = share.mount_point.to_string_lossy().replace('%', "%%");
    format!(
        "{MARK}\n[Unit]\nDescription=NAS share {id}\nRequires={wait}\nAfter={wait}\nStartLimitIntervalSec=0\n\n\
         [Mount]\nWhat={SOURCE_PREFIX}{id}\nWhere={place}\nType=nasmount\nOptions=_netdev,nofail\n"
    )
}

/// A consumer to which nothing is done in an outage starts without the share as well.
fn drop_in(needs: &[(String, Policy)]) -> String {
    if needs.is_empty() {
        return String::new();
    }
    let mut text = "[Unit]\n".to_owned();
    for (unit, policy) in needs {
        let indifferent = policy.on_outage == OnOutage::None && policy.after_hold == AfterHold::None;
        let how = if indifferent { "Wants" } else { "Requires" };
        let _ = writeln!(text, "{how}={unit}\nAfter={unit}");
    }
    text
}

/// What the unit may use, from whichever of its shares that is said. systemd applies it to a unit that runs, too, and takes it off when
/// the drop-in is gone.
fn limits(unit: &str, settings: &Settings) -> String {
    let Some(section) = section(unit) else { return String::new() };
    let consumers =
        settings.shares.values().flat_map(|share| &share.consumers).filter(|consumer| consumer.unit == unit);
    let limits: BTreeMap<_, _> = consumers.flat_map(|consumer| &consumer.limits).collect();
    if limits.is_empty() {
        return String::new();
    }
    let mut text = format!("[{section}]\n");
    for (limit, value) in limits {
        let _ = writeln!(text, "{}={value}", limit.property());
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, SourceText, shipped_profiles};

    const CONFIGURATION: &str = r#"
        [server.tower]
        host = "10.10.0.35"
        [share.films]
        server = "tower"
        source = "films"
        mount_point = "/mnt/50% films"
        [[share.films.consumer]]
        unit = "player.service"
        memory_high = "512MiB"
        [[share.films.consumer]]
        unit = "docker-1a.scope"
        memory_max = "1GiB"
        [[share.films.consumer]]
        unit = "player.socket"
        on_outage = "stop"
        [share.music]
        server = "tower"
        source = "music"
        mount_point = "/mnt/music"
        [[share.music.consumer]]
        unit = "player.service"
        on_outage = "none"
        after_hold = "none"
        cpu_weight = 20
    "#;

    #[test]
    fn each_share_has_a_mount_unit_and_each_consumer_that_can_wait_a_drop_in() {
        let loaded = config::load(&[SourceText::new("nasmount.toml", CONFIGURATION)], &shipped_profiles()).unwrap();
        let files = files(&loaded.settings);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let films = "mnt-50\\x25\\x20films.mount";
        let scope = "docker-1a.scope.d/50-nasmount.conf";
        assert_eq!(names, [scope, films, "mnt-music.mount", "player.service.d/50-nasmount.conf"]);
        assert_eq!(files[scope], format!("{MARK}\n[Scope]\nMemoryMax=1073741824\n"));
        let unit = &files[films];
        assert!(unit.contains("\nRequires=nasmount-wait@films.service\nAfter=nasmount-wait@films.service\n"), "{unit}");
        assert!(unit.contains("\nWhat=nasmount:films\nWhere=/mnt/50%% films\nType=nasmount\n"), "{unit}");
        assert_eq!(
            files["player.service.d/50-nasmount.conf"],
            format!(
                "{MARK}\n[Unit]\nRequires={films}\nAfter={films}\nWants=mnt-music.mount\nAfter=mnt-music.mount\n\
                 [Service]\nMemoryHigh=536870912\nCPUWeight=20\n"
            )
        );
        assert!(files.values().all(|text| text.starts_with(MARK)));
    }
}
