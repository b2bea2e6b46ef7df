//! Which steps follow from which change, and that any change leads from the old configuration to the new one.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::{self, SourceText, shipped_profiles};

const BASE: &str = r#"
[server.tower]
host = "10.0.0.1"
[share.films]
server = "tower"
source = "films"
mount_point = "/mnt/films"
[[share.films.consumer]]
unit = "player.service"
[share.music]
server = "tower"
source = "music"
mount_point = "/mnt/music"
"#;

fn load(text: &str) -> Settings {
    config::load(&[SourceText { path: "x".into(), text: text.to_owned() }], &shipped_profiles()).unwrap().settings
}

/// The plan from the base to the base with a text replaced, in words of one letter a step.
fn plan(from: &str, to: &str) -> Vec<PlanStep> {
    assert!(BASE.contains(from), "{from}");
    diff(&load(BASE), &load(&BASE.replacen(from, to, 1)))
}

fn said(steps: &[PlanStep]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_changed_is_nothing_to_do() {
    assert!(diff(&load(BASE), &load(BASE)).is_empty());
}

#[test]
fn patience_and_hold_reach_the_living_share() {
    let steps = plan("mount_point = \"/mnt/music\"", "mount_point = \"/mnt/music\"\nhold_for = \"7m\"");
    let [PlanStep::ChangeShare { share, changed }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(share.id.to_string(), "music");
    assert_eq!(*changed, Changed { at_once: vec!["hold_for"], at_mount: vec![] });
    assert_eq!(steps[0].note(), None);
}

#[test]
fn options_wait_for_the_next_mount() {
    let steps = plan("mount_point = \"/mnt/music\"", "mount_point = \"/mnt/music\"\noptions = { uid = 1234 }");
    assert!(matches!(&steps[..], [PlanStep::ChangeShare { changed, .. }] if changed.at_once.is_empty()));
    assert_eq!(steps[0].note().unwrap(), "share music: at the next mount: options; `nasmount remount music`");
}

#[test]
fn each_key_is_noticed_by_itself() {
    for line in [
        "patience = \"2m\"",
        "probe_interval = \"20s\"",
        "on_access = \"wait 10s\"",
        "on_sleep = \"none\"",
        "marker = \".here\"",
        "kill_holders = true",
        "stale_copies = \"restart\"",
        "dirty_limit = \"1MiB\"",
        "read_ahead = \"1MiB\"",
        "profile = \"backup\"",
    ] {
        let steps = plan("mount_point = \"/mnt/music\"", &format!("mount_point = \"/mnt/music\"\n{line}"));
        let key = line.split(' ').next().unwrap();
        let step = said(&steps).into_iter().find(|step| step.starts_with("share music: take over")).unwrap();
        assert!(step.contains(key), "{line}: {step}");
    }
    for (key, line) in [("identity", "identity = \"any\""), ("only_on", "only_on = \"eth0\"")] {
        let steps = plan("host = \"10.0.0.1\"", &format!("host = \"10.0.0.1\"\n{line}"));
        assert_eq!(said(&steps), [format!("server tower: take over {key}")]);
    }
}

#[test]
fn consumers_are_taken_over_before_anything_else() {
    let steps = plan("unit = \"player.service\"", "unit = \"other.service\"");
    assert_eq!(steps[0], PlanStep::LoadConsumers);
    assert!(matches!(&steps[1..], [PlanStep::ChangeShare { changed, .. }] if changed.at_once == ["consumers"]));
}

#[test]
fn probes_and_credentials_leave_the_server_and_its_shares() {
    let steps = plan(
        "host = \"10.0.0.1\"",
        "host = \"10.0.0.1\"\ncredentials = \"/etc/nasmount/tower.cred\"\nprobe = { dead_after = 5 }",
    );
    let [PlanStep::ChangeServer { changed, .. }, rest @ ..] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*changed, Changed { at_once: vec!["probe"], at_mount: vec!["credentials"] });
    assert!(steps[0].note().unwrap().contains("next mount"));
    // a longer detection may ask for other time-outs of the kernel, never for another share
    assert!(rest.iter().all(|step| matches!(step, PlanStep::ChangeShare { .. })), "{rest:?}");
}

#[test]
fn another_host_is_another_server_and_all_its_shares_are_others() {
    let steps = plan("host = \"10.0.0.1\"", "host = \"10.0.0.2\"");
    assert_eq!(
        said(&steps),
        [
            "share films: its host is another; unmount it, to mount it anew",
            "share music: its host is another; unmount it, to mount it anew",
            "server tower: no longer probed",
            "server tower: probe 10.0.0.2",
            "share films: mount films on /mnt/films",
            "share music: mount music on /mnt/music",
        ]
    );
}

#[test]
fn two_shares_that_change_places_both_go_before_one_comes() {
    let swapped = BASE
        .replace("\"/mnt/films\"", "\"/mnt/x\"")
        .replace("\"/mnt/music\"", "\"/mnt/films\"")
        .replace("\"/mnt/x\"", "\"/mnt/music\"");
    let steps = diff(&load(BASE), &load(&swapped));
    let kinds: Vec<bool> = steps.iter().map(|step| matches!(step, PlanStep::RetireShare { .. })).collect();
    assert_eq!(kinds, [true, true, false, false], "{steps:?}");
}

#[test]
fn a_share_that_is_gone_lets_its_consumers_go_first() {
    let without = BASE.split("[share.films]").next().unwrap().to_owned() + &BASE[BASE.find("[share.music]").unwrap()..];
    let steps = diff(&load(BASE), &load(&without));
    assert_eq!(steps[0], PlanStep::LoadConsumers);
    let films = load(BASE).shares.keys().next().unwrap().clone();
    assert_eq!(steps[1..], [PlanStep::RetireShare { share: films, why: Retired::Removed }]);
}

/// Does a step if nothing is in its way, as `daemon::reload` does it, and looks that it fits what is in force.
fn apply(settings: &mut Settings, step: &PlanStep) {
    if step.hindrance(settings).is_some() {
        return;
    }
    let (servers, shares) = (&settings.servers, &settings.shares);
    match step {
        PlanStep::LoadConsumers => {}
        PlanStep::RetireShare { share, .. } => assert!(shares.contains_key(share)),
        PlanStep::RemoveServer { server } => {
            assert!(shares.values().all(|share| share.server != *server), "a share is left on {server}");
        }
        PlanStep::AddServer { server } => assert!(!servers.contains_key(&server.id)),
        PlanStep::ChangeServer { server, .. } => assert_eq!(servers[&server.id].host, server.host),
        PlanStep::ChangeShare { share, .. } => assert!(shares.contains_key(&share.id)),
        PlanStep::AddShare { share, host } => {
            assert!(shares.values().all(|other| other.id != share.id && other.mount_point != share.mount_point));
            assert_eq!(servers[&share.server].host, *host);
        }
    }
    step.put_in_force(settings);
    assert!(settings.shares.values().all(|share| settings.servers.contains_key(&share.server)), "{step:?}");
}

fn configurations() -> Vec<Settings> {
    let other_server = "\n[server.attic]\nhost = \"10.0.0.9\"\n";
    [
        BASE.to_owned(),
        BASE.replace("10.0.0.1", "10.0.0.2"),
        BASE.replace("films\"", "movies\""),
        BASE.replace("[share.films]", "[share.movies]").replace("[[share.films", "[[share.movies"),
        BASE.replacen("server = \"tower\"", "server = \"attic\"", 1) + other_server,
        BASE.replace("server = \"tower\"", "server = \"attic\"").replace("[server.tower]", "[server.attic]"),
        BASE.replace("player", "scanner") + "hold_for = \"forever\"\n",
        BASE.split("[share.films]").next().unwrap().to_owned(),
        BASE.replace("/mnt/films", "/mnt/x").replace("/mnt/music", "/mnt/films").replace("/mnt/x", "/mnt/music"),
    ]
    .iter()
    .map(|text| load(text))
    .collect()
}

/// Each pair of these configurations, also when the plan is broken off anywhere and made again from what is in force.
#[test]
fn every_plan_leads_to_the_new_configuration_also_after_a_stop_half_way() {
    for old in &configurations() {
        for new in &configurations() {
            let steps = diff(old, new);
            for stop in 0..=steps.len() {
                let mut in_force = old.clone();
                steps[..stop].iter().for_each(|step| apply(&mut in_force, step));
                diff(&in_force, new).iter().for_each(|step| apply(&mut in_force, step));
                assert_eq!(in_force, *new);
            }
        }
    }
}

/// The same when any one step fails: what needs it is not done, what does not is, and the next reload does the rest.
#[test]
fn a_step_that_fails_hinders_only_what_needs_it() {
    let mut hindered = 0;
    for old in &configurations() {
        for new in &configurations() {
            let steps = diff(old, new);
            for failing in 0..steps.len() {
                let mut in_force = old.clone();
                for (index, step) in steps.iter().enumerate() {
                    hindered += usize::from(index > failing && step.hindrance(&in_force).is_some());
                    if index != failing {
                        apply(&mut in_force, step);
                    }
                }
                diff(&in_force, new).iter().for_each(|step| apply(&mut in_force, step));
                assert_eq!(in_force, *new, "after {:?}", steps[failing]);
            }
        }
    }
    assert!(hindered > 20, "{hindered}");
}

#[test]
fn a_share_that_cannot_go_keeps_its_server_and_its_siblings_wait() {
    let (old, new) = (load(BASE), load(&BASE.replace("10.0.0.1", "10.0.0.2")));
    let steps = diff(&old, &new);
    let mut in_force = old.clone();
    let hindrances: Vec<Option<String>> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let hindrance = step.hindrance(&in_force);
            if index > 0 && hindrance.is_none() {
                apply(&mut in_force, step); // the first, films, could not be retired
            }
            hindrance
        })
        .collect();
    let said: Vec<&str> = hindrances.iter().flatten().map(String::as_str).collect();
    assert_eq!(
        said,
        [
            "share films is still on it",
            "the one before it is still in use",
            "share films could not be retired",
            "its server is another one",
        ]
    );
    assert_eq!(in_force.servers, old.servers);
    assert_eq!(in_force.shares.len(), 1);
}
