//! Each finding, made of a healthy host with one thing changed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod consumers;

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Contents, Daemon, Generator, KernelFacts, Propagation, Sandbox, TextFile, Underneath, Unfinished};
use super::*;
use crate::config::{self, SourceText, shipped_profiles};
use crate::plan::mount_unit::{Content, UnitFile, UnitText};
use crate::status::{CopyContent, NamespaceCopy};

const CONFIGURATION: &str = r#"
[server.tower]
host = "tower.lan"
[server.attic]
host = "10.0.0.9"
[share.films]
server = "tower"
source = "films"
mount_point = "/mnt/my films"
options = { OPTIONS }
[[share.films.consumer]]
unit = "player.service"
[[share.films.consumer]]
unit = "scan.timer"
on_outage = "stop"
[share.music]
server = "attic"
source = "music"
mount_point = "/srv/music"
"#;

const MODULES: &str = "kernel/fs/smb/client/cifs.ko.xz: kernel/fs/netfs/netfs.ko.xz\nkernel/fs/autofs/autofs4.ko.xz:\n";

fn settings(options: &str) -> Settings {
    let text = CONFIGURATION.replace("OPTIONS", options);
    config::load(&[SourceText { path: "x".into(), text }], &shipped_profiles()).unwrap().settings
}

fn healthy() -> (HostFacts, ServiceFacts) {
    let kernel = KernelFacts {
        release: "6.12.117+deb13-amd64".into(),
        version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-01)".into(),
        signature: None,
        config: Some("CONFIG_INET_DIAG=m\nCONFIG_INET_DIAG_DESTROY=y\n".into()),
        has_config_gz: true,
        filesystems: "nodev\tproc\n\text4\n".into(),
        modules: Some(MODULES.into()),
        taint: 1 << 12 | 1 << 13, // modules from elsewhere
    };
    let mount_points = [("/mnt/my films", Underneath::Covered), ("/srv/music", Underneath::Protected)];
    let host = HostFacts {
        kernel,
        fstab: "# //tower.lan/films /mnt/my\\040films cifs guest 0 0\nUUID=1 / ext4 defaults 0 1\n\n\
                //other/x /mnt/x cifs guest 0 0\n10.0.0.9:/x /mnt/y nfs defaults 0 0\n"
            .into(),
        units: vec![unit("mnt-x.mount", "[Mount]\nWhat=//other/x\nWhere=/mnt/x\nType=cifs\n")],
        unfinished: Unfinished::default(),
        unified_cgroups: true,
        nft: Some("/usr/sbin/nft".into()),
        interfaces: Some(["lo", "eth0", "wg1"].map(str::to_owned).into()),
        mount_points: mount_points.map(|(path, what)| (path.into(), what)).into(),
        updatedb: Some("PRUNEFS = \"NFS CIFS autofs\"\n".into()),
        node_exporter: vec![defaults("ARGS=\"--collector.filesystem.mount-points-exclude=^/(mnt|srv)\"\n")],
    };
    let after = |units: &[&str]| Some(units.iter().map(|unit| (*unit).to_owned()).collect());
    let films = r"mnt-my\x20films.mount";
    let services = ServiceFacts {
        systemd_silent: None,
        systemd: Some("257.13-1~deb13u1".into()),
        daemon: Ok(Daemon { version: "0.1.0".into(), addresses: [("tower".into(), "10.0.0.1".into())].into() }),
        containers: BTreeMap::new(),
        groups: BTreeMap::from([("label:films".to_owned(), Ok(2))]),
        user_units: BTreeMap::new(),
        consumers: [
            ("player.service".into(), after(&["basic.target", films])),
            ("scan.timer".into(), after(&["time-set.target"])),
        ]
        .into(),
        generator: Generator::ReadsIt,
        sandboxes: BTreeMap::from([(
            "player.service".to_owned(),
            Sandbox { home: "yes".into(), ..Sandbox::default() },
        )]),
        requiring: BTreeMap::from([("films".to_owned(), vec!["player.service".to_owned()])]),
        holding: BTreeMap::from([(
            "films".to_owned(),
            BTreeSet::from(["player.service".to_owned(), "session-1.scope".to_owned()]),
        )]),
        copies: BTreeMap::from([("films".to_owned(), vec![copy(CopyContent::Current, true)])]),
    };
    (host, services)
}

fn copy(content: CopyContent, follows: bool) -> NamespaceCopy {
    let (command, unit, path) = ("tdarr".to_owned(), Some("docker-1a.scope".to_owned()), "/films".to_owned());
    NamespaceCopy { pid: 7, command, system_unit: unit.clone(), unit, path, content, follows }
}

fn unit(name: &str, text: &str) -> UnitFile {
    let path = format!("/etc/systemd/system/{name}");
    let text = UnitText { path: path.clone(), text: text.to_owned(), mode: 0o644 };
    UnitFile { name: name.to_owned(), path, content: Content::Texts(vec![text]) }
}

fn defaults(text: &str) -> TextFile {
    TextFile { path: "/etc/default/prometheus-node-exporter".into(), text: text.to_owned() }
}

/// What is found on the healthy host after a change.
fn after(change: impl FnOnce(&mut HostFacts, &mut ServiceFacts)) -> Vec<Finding> {
    let (mut host, mut services) = healthy();
    change(&mut host, &mut services);
    examine(&settings(""), &host, &services, "0.1.0")
}

/// The same, if it is one thing.
fn one(change: impl FnOnce(&mut HostFacts, &mut ServiceFacts)) -> (&'static str, Severity, String, String) {
    let mut found = after(change);
    let Some(Finding { id, severity, what, remedy, .. }) = found.pop() else { panic!("nothing was found") };
    assert!(found.is_empty(), "{found:?}");
    (id, severity, what, remedy)
}

/// Of a finding, what does not depend on its words.
fn kinds(found: &[Finding]) -> Vec<(&'static str, Severity)> {
    found.iter().map(|finding| (finding.id, finding.severity)).collect()
}

#[test]
fn a_healthy_host_has_no_findings() {
    let found = after(|_, _| ());
    assert_eq!(found, []);
    assert_eq!(worst(&found), Severity::Ok);
}

#[test]
fn a_host_can_be_looked_at_before_there_is_a_configuration() {
    let (mut host, _) = healthy();
    let found = examine_unconfigured(&host, Some("257.13-1~deb13u1"));
    assert_eq!(kinds(&found), [("fstab-cifs", Severity::Warning), ("unit-cifs", Severity::Warning)]);
    assert_eq!(found[0].what, "line 4 of /etc/fstab mounts /mnt/x, a share of CIFS, without nasmount");
    assert!(found.iter().all(|finding| finding.remedy.starts_with("`nasmount import-fstab`")), "{found:?}");
    host = HostFacts { fstab: String::new(), units: Vec::new(), nft: None, ..host };
    let found = examine_unconfigured(&host, Some("v250"));
    assert_eq!(kinds(&found), [("nft-missing", Severity::Warning), ("systemd-too-old", Severity::Warning)]);
    host.kernel.release = "6.3.0".into();
    host.kernel.version = "#1 SMP".into();
    let found = examine_unconfigured(&host, None);
    assert!(found.iter().any(|finding| finding.why.starts_with("concerns every share; ")), "{found:?}");
}

#[test]
fn a_line_of_fstab_for_a_mount_point_is_an_error() {
    let line = "UUID=1 / ext4 defaults 0 1\n//192.168.1.1/other\t/mnt/my\\040films/ smb3 noauto 0 0\n";
    let (id, severity, what, remedy) = one(|host, _| host.fstab = line.into());
    assert_eq!((id, severity), ("fstab-mount-point", Severity::Error));
    assert_eq!(what, "line 2 of /etc/fstab mounts /mnt/my films/, the mount point of the share films");
    assert_eq!(remedy, "sed -i '2s/^/# /' /etc/fstab && systemctl daemon-reload");
}

#[test]
fn a_password_that_stays_in_a_comment_is_told() {
    let line = "//192.168.1.1/other /mnt/my\\040films cifs username=bob,password=hunter2 0 0\n";
    let (_, _, what, remedy) = one(|host, _| host.fstab = line.into());
    assert!(remedy.contains("its password stays in the comment, which everybody can read"), "{remedy}");
    assert!(!what.contains("hunter2") && !remedy.contains("hunter2"), "{what} {remedy}");
}

#[test]
fn whatever_fstab_mounts_there_is_in_the_way() {
    for line in [
        "//tower.lan/films /mnt/my\\040films auto guest 0 0",
        "UUID=1 /mnt/my\\040films ext4",
        "/srv /mnt/my\\040films none bind",
    ] {
        let (id, ..) = one(|host, _| host.fstab = line.into());
        assert_eq!(id, "fstab-mount-point", "{line}");
    }
}

#[test]
fn what_an_import_left_is_finished_by_an_import() {
    let (id, _, _, remedy) = one(|host, _| {
        host.fstab = "/dev/sda / ext4\n//10.0.0.9/music /srv/music cifs guest 0 0\n".into();
        host.unfinished.lines = vec![2];
    });
    assert_eq!(id, "fstab-mount-point");
    assert!(remedy.ends_with("`nasmount import-fstab --apply` finishes it"), "{remedy}");
    let (id, _, _, remedy) = one(|host, _| {
        host.units.push(unit("srv-music.mount", ""));
        host.unfinished.files = vec!["/etc/systemd/system/srv-music.mount".into()];
    });
    assert_eq!(id, "unit-mount-point");
    assert!(remedy.ends_with("`nasmount import-fstab --apply` finishes it"), "{remedy}");
}

#[test]
fn a_line_of_fstab_inside_a_share_is_an_error() {
    let (id, severity, what, _) = one(|host, _| host.fstab = "/dev/sdb1 /mnt/my\\040films/old ext4\n".into());
    assert_eq!((id, severity), ("fstab-mount-point", Severity::Error));
    assert_eq!(what, "line 1 of /etc/fstab mounts /mnt/my films/old, inside the share films");
    assert_eq!(after(|host, _| host.fstab = "/dev/sdb1 /mnt/my\\040films2 ext4\n".into()), []);
}

/// What is made of a share's files is a mount that outlives the share's.
#[test]
fn a_line_of_fstab_over_a_share_is_a_warning() {
    for line in [
        "/mnt/my\\040films/new /srv/new none bind 0 0",
        "/mnt/my\\040films /srv/new none rbind,nofail",
        "/data:/srv/music=RO /pool fuse.mergerfs defaults",
        "/srv/* /pool fuse.mergerfs defaults",
        "overlay /merged overlay lowerdir=/data:/srv/music/a,upperdir=/u,workdir=/w",
        "/srv/music/cd.iso /cd iso9660 loop,ro",
    ] {
        let (id, severity, what, remedy) = one(|host, _| host.fstab = line.into());
        assert_eq!((id, severity), ("fstab-over-share", Severity::Warning), "{line}");
        let share = if line.contains("/srv/music") || line.contains("/srv/*") { "music" } else { "films" };
        assert!(what.ends_with(&format!("what lies on the share {share}")), "{what}");
        assert!(remedy.contains("sed -i '1s/^/# /' /etc/fstab"), "{remedy}");
    }
    let (id, _, what, _) = one(|host, _| host.fstab = "/srv/music/swap none swap sw 0 0".into());
    assert!(id == "fstab-over-share" && what.ends_with("which lies on the share music, as swap"), "{what}");
    for line in ["/srv/musical /a none bind", "/data* /pool fuse.mergerfs", "//other/srv/music /mnt/o cifs guest"] {
        assert_eq!(after(|host, _| host.fstab = line.into()), [], "{line}");
    }
}

#[test]
fn a_drop_in_of_a_shares_unit_is_a_warning() {
    let drop_in = |name: &str| UnitFile {
        content: Content::DropIns(vec![format!("/etc/systemd/system/{name}.d/x.conf")]),
        ..unit(name, "")
    };
    for name in ["srv-music.mount", "srv-.mount"] {
        let (id, severity, what, remedy) = one(|host, _| host.units.push(drop_in(name)));
        assert_eq!((id, severity), ("unit-drop-in", Severity::Warning), "{name}");
        assert!(what.ends_with("changes nasmount's own unit for the share music"), "{what}");
        assert_eq!(remedy, format!("mv /etc/systemd/system/{name}.d/x.conf /root/; systemctl daemon-reload"));
    }
    for name in ["srv.mount", "srv-music-a.mount", "srv-mus.mount", "mnt-x.mount"] {
        assert_eq!(after(|host, _| host.units.push(drop_in(name))), [], "{name}");
    }
    let found = after(|host, _| {
        host.units.push(unit("srv-music.mount", "[Mount]\nWhere=/srv/music\n"));
        host.units.push(drop_in("srv-.mount"));
    });
    assert_eq!(kinds(&found), [("unit-mount-point", Severity::Error)], "the unit itself is in the way");
}

#[test]
fn a_line_of_fstab_for_a_server_is_a_warning() {
    let lines = [
        "//TOWER.LAN/other /mnt/other cifs guest",
        "//tower.lan./other /mnt/other cifs guest",
        r"\\tower.lan\other /mnt/other cifs",
        "//10.0.0.1/other /mnt/other cifs guest 0 0",
        "//name/other /mnt/other cifs guest,ip=10.0.0.9 0 0",
        "//[10.0.0.9]/other /mnt/other cifs guest,_netdev 0 0",
    ];
    for line in lines {
        let (id, severity, what, _) = one(|host, _| host.fstab = line.into());
        assert_eq!((id, severity), ("fstab-server", Severity::Warning), "{line}");
        let server = if line.contains("10.0.0.9") { "attic" } else { "tower" };
        assert_eq!(what, format!("line 1 of /etc/fstab mounts /mnt/other from the server {server}, beside nasmount"));
    }
}

#[test]
fn a_password_of_fstab_goes_nowhere() {
    let line =
        "//tower.lan/a /mnt/a cifs user=me,password=hunter2 0 0\n//tower.lan/b /srv/music cifs pass=hunter2 0 0\n";
    let mount = "[Mount]\nWhat=//tower.lan/a\nWhere=/mnt/a\nType=cifs\nOptions=password=hunter2\n";
    let found = after(|host, _| {
        host.fstab = line.into();
        host.units.push(unit("mnt-a.mount", mount));
    });
    assert_eq!(found.len(), 3);
    assert!(!serde_json::to_string(&found).unwrap().contains("hunter2"));
}

#[test]
fn a_unit_in_the_way_is_an_error() {
    let texts = [
        ("srv-music.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/srv/music\n"),
        ("srv-music.automount", "[Automount]\n Where = /srv/music\n"),
        ("srv-music.mount", ""),
    ];
    for (name, text) in texts {
        let (id, severity, _, remedy) = one(|host, _| host.units.push(unit(name, text)));
        assert_eq!((id, severity), ("unit-mount-point", Severity::Error), "{name}");
        let expected =
            format!("systemctl disable {name}; mv /etc/systemd/system/{name} /root/; systemctl daemon-reload");
        assert_eq!(remedy, expected);
    }
    let masked = r"mnt-my\x20films.mount";
    let masked = UnitFile { content: Content::Masked, ..unit(masked, "") };
    let (id, severity, _, remedy) = one(|host, _| host.units.push(masked));
    assert_eq!((id, severity), ("unit-masked", Severity::Error));
    assert_eq!(remedy, r"systemctl unmask 'mnt-my\x20films.mount'");
    let other = UnitFile { content: Content::Masked, ..unit("mnt-x.mount", "") };
    assert_eq!(after(|host, _| host.units.push(other)), []);
}

#[test]
fn a_unit_inside_a_share_is_an_error() {
    let inside = unit("srv-music-new.mount", "[Mount]\nWhat=/dev/sdb1\nWhere=/srv/music/new\n");
    let (id, severity, what, _) = one(|host, _| host.units.push(inside));
    assert_eq!((id, severity), ("unit-mount-point", Severity::Error));
    assert_eq!(what, "/etc/systemd/system/srv-music-new.mount mounts /srv/music/new, inside the share music");
}

#[test]
fn a_unit_that_cannot_be_read_is_known_by_its_name() {
    for content in [Content::Unreadable("it cannot be looked at".into()), Content::Link(String::new())] {
        let (id, ..) = one(|host, _| host.units.push(UnitFile { content, ..unit("srv-music.mount", "") }));
        assert_eq!(id, "unit-mount-point");
    }
}

#[test]
fn a_unit_for_a_server_is_a_warning() {
    let text = "[Mount]\nWhat=//old/x\nWhat=//tower.lan/x\nWhere=/mnt/x\nType=cifs\n";
    for text in [text.to_owned(), text.replace("Type=cifs\n", "")] {
        let (id, severity, what, _) = one(|host, _| host.units = vec![unit("mnt-x.mount", &text)]);
        assert_eq!((id, severity), ("unit-server", Severity::Warning), "{text}");
        assert_eq!(what, "/etc/systemd/system/mnt-x.mount mounts /mnt/x from the server tower, beside nasmount");
    }
}

#[test]
fn what_a_host_needs_is_missed() {
    let (id, severity, _, remedy) = one(|host, _| host.nft = None);
    assert_eq!((id, severity, remedy.as_str()), ("nft-missing", Severity::Warning, "apt install nftables"));
    let (id, severity, ..) = one(|host, _| host.unified_cgroups = false);
    assert_eq!((id, severity), ("cgroups-not-unified", Severity::Warning));
    let (id, severity, what, _) = one(|_, services| services.systemd = Some("v249.11-0ubuntu3".into()));
    assert_eq!((id, severity), ("systemd-too-old", Severity::Warning));
    assert_eq!(what, "systemd v249.11-0ubuntu3 is older than 252");
    assert_eq!(after(|_, services| services.systemd = Some("252.39-1~deb12u1".into())), []);
    assert_eq!(after(|_, services| services.systemd = None), []);
}

#[test]
fn a_kernel_that_is_too_old_is_an_error() {
    let found = after(|host, _| {
        (host.kernel.release, host.kernel.version) = ("5.10.0-30-amd64".into(), "Debian 5.10.218-1".into())
    });
    assert_eq!(found[0].what, "Linux 5.10.0-30-amd64 is older than 5.13");
    assert_eq!((found[0].id, found[0].severity), ("kernel-too-old", Severity::Error));
    let found = after(|host, _| (host.kernel.release, host.kernel.version) = ("5.13.0".into(), "#1".into()));
    assert!(found.iter().all(|finding| finding.id != "kernel-too-old"), "{found:?}");
}

fn on_kernel(release: &str, options: &str) -> Vec<Finding> {
    let (mut host, services) = healthy();
    (host.kernel.release, host.kernel.version) = (release.to_owned(), "#1 SMP".to_owned());
    examine(&settings(options), &host, &services, "0.1.0")
}

#[test]
fn a_bug_of_the_kernel_is_a_warning_if_it_is_sure() {
    let found = on_kernel("6.12.30", "");
    assert_eq!(kinds(&found), [("kernel-write-retry", Severity::Warning)]);
    let [Finding { what, why, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        what,
        "the CIFS client of Linux 6.12.30 reads beyond its buffer when a write is repeated, as after each outage"
    );
    assert!(why.starts_with("concerns films, music; fixed in 6.12.37, 6.15.3, 6.16 (netfs, 4481f7f2b3df"), "{why}");
    let found = on_kernel("6.6.90", "");
    assert_eq!(kinds(&found), [("kernel-writeback-corruption", Severity::Note)]);
    assert!(found[0].what.contains("Linux 6.6.90 may have a bug: it can write zeros"), "{}", found[0].what);
    assert!(found[0].remedy.contains("cache = \"none\""), "{}", found[0].remedy);
    assert_eq!(kinds(&on_kernel("6.1.162", "")), [("kernel-write-deadlock", Severity::Note)], "a slight one");
}

#[test]
fn a_bug_of_the_kernel_concerns_who_uses_what_has_it() {
    let found = on_kernel("6.12.40", "cache = \"none\", seal = true");
    let expected = [("kernel-unbuffered-write-error", Severity::Warning), ("kernel-seal-write-retry", Severity::Note)];
    assert_eq!(kinds(&found), expected);
    assert!(found.iter().all(|finding| finding.why.starts_with("concerns films;")), "{found:?}");
    assert_eq!(kinds(&on_kernel("6.17.1", "seal = true")), [("kernel-seal-write-retry", Severity::Warning)]);
    assert_eq!(on_kernel("6.17.1", ""), []);
}

#[test]
fn what_the_kernel_was_built_without_is_missed() {
    let (id, severity, what, _) = one(|host, _| host.kernel.modules = Some("kernel/fs/autofs/autofs4.ko:\n".into()));
    assert_eq!((id, severity), ("kernel-without-cifs", Severity::Error));
    assert_eq!(what, "Linux 6.12.117+deb13-amd64 has no cifs");
    let found = after(|host, _| host.kernel.modules = None);
    let both = [("kernel-without-cifs", Severity::Error), ("kernel-without-autofs", Severity::Error)];
    assert_eq!(kinds(&found), both);
    assert!(found[0].remedy.starts_with("reboot"), "{found:?}");
    let loaded = after(|host, _| {
        (host.kernel.modules, host.kernel.filesystems) = (None, "nodev\tautofs\nnodev\tcifs\nnodev\tsmb3\n".into());
    });
    assert_eq!(loaded, []);
    let (id, severity, ..) = one(|host, _| host.kernel.config = Some("# CONFIG_INET_DIAG_DESTROY is not set\n".into()));
    assert_eq!((id, severity), ("socket-destroy-missing", Severity::Warning));
    let (id, severity, _, remedy) = one(|host, _| host.kernel.config = None);
    assert_eq!((id, severity), ("socket-destroy-unknown", Severity::Note));
    assert_eq!(remedy, "zgrep INET_DIAG_DESTROY /proc/config.gz");
    let (.., remedy) = one(|host, _| (host.kernel.config, host.kernel.has_config_gz) = (None, false));
    assert!(remedy.starts_with("grep INET_DIAG_DESTROY /boot/config-$(uname -r)"), "{remedy}");
}

#[test]
fn a_kernel_in_trouble_is_known_by_its_worst_mark() {
    let (id, severity, what, _) = one(|host, _| host.kernel.taint = 1 << 7);
    assert_eq!((id, severity), ("kernel-tainted", Severity::Warning));
    assert!(what.contains("a part of it crashed"), "{what}");
    let (_, severity, what, _) = one(|host, _| host.kernel.taint = 1 << 5 | 1 << 7);
    assert!(what.contains("damaged memory"), "{what}");
    assert_eq!(severity, Severity::Error);
    assert_eq!(one(|host, _| host.kernel.taint = 1 << 14).1, Severity::Note);
}

#[test]
fn the_daemon_should_run_and_be_this_one() {
    let (id, severity, what, _) = one(|_, services| services.daemon = Err("nasmount does not run".into()));
    assert_eq!((id, severity, what.as_str()), ("daemon-silent", Severity::Error, "nasmount does not run"));
    let other = Daemon { version: "0.0.9".into(), ..Daemon::default() };
    let (id, severity, what, remedy) = one(|_, services| services.daemon = Ok(other));
    assert_eq!((id, severity), ("daemon-version", Severity::Warning));
    assert_eq!(what, "the daemon is nasmount 0.0.9, and this program 0.1.0");
    assert_eq!(remedy, "systemctl restart nasmount");
}

#[test]
fn who_uses_a_share_without_being_a_consumer_is_named() {
    let requires = |services: &mut ServiceFacts| {
        services.requiring.insert("music".into(), vec!["mpd.service".into(), "x.target".into()])
    };
    let (id, severity, what, remedy) = one(|_, services| drop(requires(services)));
    assert_eq!((id, severity), ("dependent-unconfigured", Severity::Note));
    assert_eq!(what, "mpd.service requires music, and is no consumer of it");
    assert_eq!(
        remedy,
        "add to the configuration: [[share.music.consumer]] unit = \"mpd.service\"; then nasmount reload"
    );
    let units = ["mpd.service", "user@1000.service", "session-2.scope"].map(str::to_owned);
    let holds = |services: &mut ServiceFacts| services.holding.insert("music".into(), BTreeSet::from(units.clone()));
    let (id, severity, what, _) = one(|_, services| drop(holds(services)));
    assert_eq!((id, severity), ("holder-unconfigured", Severity::Note));
    assert_eq!(what, "mpd.service has files open on music, does not wait for it, and is no consumer of it");
    let both = after(|_, services| {
        requires(services);
        holds(services);
    });
    assert_eq!(kinds(&both), [("dependent-unconfigured", Severity::Note)], "said once");
}

#[test]
fn a_copy_that_does_not_follow_is_a_warning() {
    let with = |copy: NamespaceCopy| one(|_, services| drop(services.copies.insert("films".into(), vec![copy])));
    let (id, severity, what, remedy) = with(copy(CopyContent::Current, false));
    assert_eq!((id, severity), ("copy-left-behind", Severity::Warning));
    assert_eq!(
        what,
        "docker-1a.scope (tdarr, process 7) has films at /films: it does not follow the host: in an outage its calls hang"
    );
    assert!(remedy.contains("`-v /mnt:/mnt:rslave`"), "{remedy}");
    let (.., what, _) = with(NamespaceCopy { unit: None, ..copy(CopyContent::Stale, false) });
    assert!(what.starts_with("tdarr (process 7) has films at /films: it has a mount that was given up"), "{what}");
    let of_this_host =
        NamespaceCopy { pid: 1, unit: None, path: "/srv/b b".into(), ..copy(CopyContent::Barrier, false) };
    assert_eq!(with(of_this_host).3, "umount '/srv/b b'; bind the directory above it instead");
}

#[test]
fn a_service_that_does_not_see_its_share_is_a_warning() {
    let with =
        |sandbox: Sandbox| after(|_, services| drop(services.sandboxes.insert("player.service".into(), sandbox)));
    let paths = |path: &str| vec!["/elsewhere".to_owned(), path.to_owned()];
    let none = Sandbox::default;
    for (sandbox, said, hidden) in [
        (Sandbox { root: Some("/srv/root".into()), ..none() }, "a root of its own (/srv/root)", false),
        (Sandbox { propagation: Propagation::None, ..none() }, "MountFlags=private", false),
        (Sandbox { hidden: paths("-/mnt"), ..none() }, "TemporaryFileSystem= of -/mnt", true),
        (Sandbox { hidden: paths("/mnt/my films"), ..none() }, "TemporaryFileSystem= of /mnt/my films", true),
        (Sandbox { bound: paths("/mnt/my films"), ..none() }, "BindReadOnlyPaths= of /mnt/my films", false),
        (Sandbox { itself: paths("+/mnt/my films/x"), ..none() }, "a setting for +/mnt/my films/x", false),
    ] {
        let found = with(sandbox);
        assert_eq!(kinds(&found), [("consumer-blind", Severity::Warning)], "{said}");
        assert!(
            found[0].what.starts_with("player.service, a consumer of films, has ") && found[0].what.contains(said),
            "{found:?}"
        );
        assert_eq!(found[0].why.contains("does not see the share at all"), hidden, "{found:?}");
        assert!(found[0].remedy.starts_with("systemctl edit player.service: "), "{found:?}");
    }
    for harmless in [
        Sandbox { hidden: paths("/mnt/other"), home: "tmpfs".into(), ..none() },
        Sandbox { bound: paths("/mnt"), itself: paths("/mnt/my films"), ..none() },
        Sandbox { bound: paths("/mnt/my films 2"), ..none() },
    ] {
        assert_eq!(with(harmless.clone()), [], "{harmless:?}");
    }
    let text = CONFIGURATION.replace("OPTIONS", "").replace("/mnt/my films", "/home/bob/films");
    let settings = config::load(&[SourceText { path: "x".into(), text }], &shipped_profiles()).unwrap().settings;
    let (mut host, mut services) = healthy();
    host.node_exporter.clear();
    services.generator = Generator::ReadsAnother;
    assert_eq!(kinds(&examine(&settings, &host, &services, "0.1.0")), [("consumer-blind", Severity::Warning)]);
}

#[test]
fn what_lies_under_a_share_is_found() {
    let at = |what: Underneath| one(|host, _| drop(host.mount_points.insert("/mnt/my films".into(), what)));
    let contents = Contents { entries: 3, bytes: 5 << 29, more: false };
    let (id, severity, what, remedy) = at(Underneath::Holds(contents));
    assert_eq!((id, severity), ("mount-point-holds-files", Severity::Warning));
    assert_eq!(what, "/mnt/my films is not empty under its share: 3 entries, 2.5 GiB");
    assert!(remedy.starts_with("`nasmount rescue films` lists them; with --merge"), "{remedy}");
    let (.., what, _) = at(Underneath::Holds(Contents { entries: 1, bytes: 0, more: true }));
    assert_eq!(what, "/mnt/my films is not empty under its share: at least 1 entry, 0 bytes");
    let (id, severity, ..) = at(Underneath::Open);
    assert_eq!((id, severity), ("mount-point-open", Severity::Note));
    let (id, severity, what, _) = at(Underneath::Unseen("Permission denied (os error 13)".into()));
    assert_eq!((id, severity), ("mount-point-unseen", Severity::Note));
    assert_eq!(what, "/mnt/my films could not be looked at: Permission denied (os error 13)");
    assert_eq!(after(|host, _| drop(host.mount_points.insert("/srv/music".into(), Underneath::NoDirectory))), []);
}

#[test]
fn updatedb_is_told_to_leave_shares_alone() {
    let with = |text: &'static str| move |host: &mut HostFacts, _: &mut ServiceFacts| host.updatedb = Some(text.into());
    let (id, severity, _, remedy) = one(with("PRUNEFS=\"nfs afs\"\nPRUNEPATHS=\"/tmp /mnt\"\n# PRUNEFS=\"cifs\"\n"));
    assert_eq!((id, severity), ("updatedb-scans-shares", Severity::Note));
    assert_eq!(remedy, "in /etc/updatedb.conf: PRUNEFS=\"nfs afs cifs\"");
    assert_eq!(one(with("")).3, "in /etc/updatedb.conf: PRUNEFS=\"cifs\"");
    assert_eq!(after(with("PRUNEPATHS=\"/tmp /mnt /srv/music\"\n")), []);
    assert_eq!(after(|host, _| host.updatedb = None), []);
}

#[test]
fn node_exporter_is_told_to_leave_shares_alone() {
    let text = "# --collector.filesystem.mount-points-exclude=^/(dev|proc)\nARGS=\"\"\n";
    let (id, severity, what, remedy) = one(|host, _| host.node_exporter = vec![defaults(text)]);
    assert_eq!((id, severity), ("node-exporter-polls-shares", Severity::Note));
    assert!(what.contains("(/etc/default/prometheus-node-exporter)"), "{what}");
    assert!(remedy.ends_with("/storage/.+|mnt/my films|srv/music)($|/)'"), "{remedy}");
    assert_eq!(programs::pattern("mnt/a.b (1)"), r"mnt/a\.b \(1\)");
    let of_a_type = "ARGS=\"--collector.filesystem.fs-types-exclude=^(cifs|proc)$\"\n";
    assert_eq!(after(|host, _| host.node_exporter = vec![defaults(""), defaults(of_a_type)]), []);
    assert_eq!(after(|host, _| host.node_exporter.clear()), []);
}

#[test]
fn the_worst_comes_first() {
    let found = after(|host, services| {
        host.updatedb = Some(String::new());
        host.nft = None;
        services.daemon = Err("nasmount does not run".into());
    });
    let severities: Vec<Severity> = found.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning, Severity::Note]);
    assert_eq!(worst(&found), Severity::Error);
}
