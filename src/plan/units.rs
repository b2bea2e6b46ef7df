//! The units of the whole host: what is configured of a consumer for each share, seen from the unit; and of a consumer that stands for
//! several containers, seen from each of these.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::consumer::{Consumer, is_group};
use crate::config::settings::{OnOutage, Settings};
use crate::share::consumers::{Policy, UnitSpec};

/// Every configured unit, with all the shares that it needs. A unit has the same order and time limit for each of them:
/// a configuration that says otherwise is not valid.
pub fn units(settings: &Settings) -> BTreeMap<String, UnitSpec> {
    let mut units: BTreeMap<String, UnitSpec> = BTreeMap::new();
    for share in settings.shares.values() {
        for consumer in &share.consumers {
            let unit = units.entry(consumer.unit.clone()).or_default();
            unit.order = consumer.order;
            unit.time_limit = consumer.time_limit;
            let policy = Policy { on_outage: consumer.on_outage, after_hold: consumer.after_hold };
            unit.needs.insert(share.id.to_string(), policy);
        }
    }
    units
}

/// The containers for which consumers stand, as far as they are known, by consumer: names of consumers that have an engine in them.
pub type Members = BTreeMap<String, BTreeSet<String>>;

/// Each container in the place of the consumers that stand for it, with the shares of all of them. What is written under its own name
/// counts before theirs, and among these, for one share, the one that pauses it.
pub fn expanded(configured: &BTreeMap<String, UnitSpec>, members: &Members) -> BTreeMap<String, UnitSpec> {
    let units = configured.iter().filter(|(name, _)| !is_group(name));
    let mut units: BTreeMap<String, UnitSpec> = units.map(|(name, spec)| (name.clone(), spec.clone())).collect();
    for (consumer, containers) in named(configured, members) {
        let Some(spec) = configured.get(&consumer) else { continue };
        for container in containers {
            let unit =
                units.entry(container.clone()).or_insert_with(|| UnitSpec { needs: BTreeMap::new(), ..spec.clone() });
            for (share, policy) in &spec.needs {
                let is_named = configured.get(&container).is_some_and(|unit| unit.needs.contains_key(share));
                let needed = unit.needs.entry(share.clone()).or_insert(*policy);
                if !is_named && policy.on_outage == OnOutage::Pause {
                    *needed = *policy;
                }
            }
        }
    }
    units
}

/// Members by the names under which they are consumers: of who is configured by name the name that stands there.
pub fn named(configured: &BTreeMap<String, UnitSpec>, members: &Members) -> Members {
    let name = |member: &String| match Consumer::of(member) {
        Consumer::Container { name, .. } => {
            let plain = Consumer::Container { engine: None, name }.name();
            if configured.contains_key(&plain) { plain } else { member.clone() }
        }
        Consumer::Unit(_) | Consumer::UserUnit { .. } | Consumer::Label(_) | Consumer::Compose(_) => member.clone(),
    };
    members.iter().map(|(consumer, members)| (consumer.clone(), members.iter().map(name).collect())).collect()
}

/// For whom they may stand before an engine has said it: an earlier daemon held these and they are not configured by name, so that they
/// are let go when an engine says that nobody stands for them, and not before.
pub fn presumed<'held>(configured: &BTreeMap<String, UnitSpec>, held: impl Iterator<Item = &'held String>) -> Members {
    let has_engine = |name: &&String| matches!(Consumer::of(name), Consumer::Container { engine: Some(_), .. });
    let held: BTreeSet<String> =
        held.filter(|name| !configured.contains_key(*name)).filter(has_engine).cloned().collect();
    configured.keys().filter(|name| is_group(name)).map(|name| (name.clone(), held.clone())).collect()
}

/// What an engine says in the place of what was known of its containers. Is it news?
pub fn replace(members: &mut Members, consumer: &str, engine: &str, containers: BTreeSet<String>) -> bool {
    let known = members.entry(consumer.to_owned()).or_default();
    let is_its =
        |name: &String| matches!(Consumer::of(name), Consumer::Container { engine: Some(its), .. } if its == engine);
    let others = known.iter().filter(|name| !is_its(name)).cloned();
    let now = others.chain(containers).collect();
    let changed = *known != now;
    *known = now;
    changed
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::config::settings::AfterHold;
    use crate::config::{self, SourceText, shipped_profiles};
    use crate::share::consumers::{Demand, UnitDone, UnitEffect, UnitEvent, UnitStep};
    use crate::share::{BootInstant, Consumers, OpId};

    const TWO_SHARES: &str = r#"
        [server.tower]
        host = "10.10.0.35"
        [share.films]
        server = "tower"
        source = "films"
        mount_point = "/mnt/films"
        [[share.films.consumer]]
        unit = "player.service"
        order = 5
        time_limit = "20s"
        [[share.films.consumer]]
        unit = "scanner.service"
        on_outage = "stop"
        [share.music]
        server = "tower"
        source = "music"
        mount_point = "/mnt/music"
        [[share.music.consumer]]
        unit = "player.service"
        order = ORDER
        time_limit = "20s"
        after_hold = "kill"
    "#;

    const MARKED: &str = r#"
        [server.tower]
        host = "10.10.0.35"
        [share.films]
        server = "tower"
        source = "films"
        mount_point = "/mnt/films"
        [[share.films.consumer]]
        compose = "media"
        order = 5
        [[share.films.consumer]]
        container = "tdarr"
        on_outage = "stop"
        [share.music]
        server = "tower"
        source = "music"
        mount_point = "/mnt/music"
        [[share.music.consumer]]
        label = "music"
        after_hold = "kill"
    "#;

    fn marked() -> BTreeMap<String, UnitSpec> {
        units(&config::load(&[SourceText::new("nasmount.toml", MARKED)], &shipped_profiles()).unwrap().settings)
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_container_is_a_consumer_of_its_own() {
        let configured = marked();
        let mut members = Members::new();
        assert_eq!(expanded(&configured, &members).len(), 1, "a group is nothing that could be held");
        let media = names(&["docker:player", "docker:tdarr"]);
        assert!(replace(&mut members, "compose:media", "docker", media.clone()));
        assert!(replace(&mut members, "label:music", "docker", names(&["docker:player"])));
        let units = expanded(&configured, &members);
        assert_eq!(units.keys().collect::<Vec<_>>(), ["container:tdarr", "docker:player"]);
        let player = &units["docker:player"];
        assert_eq!((player.order, player.needs.len()), (5, 2));
        assert_eq!(player.needs["music"].after_hold, AfterHold::Kill);
        assert_eq!(units["container:tdarr"].needs["films"].on_outage, OnOutage::Stop, "as it stands under its name");
        assert_eq!(named(&configured, &members)["compose:media"], names(&["container:tdarr", "docker:player"]));
        assert!(!replace(&mut members, "compose:media", "docker", media), "no news");
    }

    #[test]
    fn who_is_made_in_an_outage_is_held_and_who_is_removed_is_forgotten() {
        let (configured, now) = (marked(), BootInstant::from_boot(Duration::from_secs(1)));
        let mut members = Members::new();
        let mut consumers = Consumers::new(expanded(&configured, &members), BTreeMap::new(), now);
        consumers.handle_event(now, UnitEvent::Demanded { share: "music".into(), demand: Demand::Hold });
        assert_eq!(consumers.poll_effect(), None, "nobody is there");
        let mut says = |consumers: &mut Consumers, containers: &[&str]| {
            replace(&mut members, "label:music", "docker", names(containers));
            let units = expanded(&configured, &members);
            consumers.handle_event(now, UnitEvent::ConfigurationLoaded { units });
            consumers.poll_effect()
        };
        let start = |op, step| Some(UnitEffect::Start { op: OpId(op), unit: "docker:player".into(), step });
        assert_eq!(says(&mut consumers, &["docker:player"]), start(1, UnitStep::Inspect));
        let result = Ok(UnitDone::Found { running: true, run: None });
        consumers.handle_event(now, UnitEvent::Completed { op: OpId(1), result });
        assert_eq!(consumers.poll_effect(), start(2, UnitStep::Pause));
        consumers.handle_event(now, UnitEvent::Completed { op: OpId(2), result: Ok(UnitDone::Plainly) });
        assert_eq!(says(&mut consumers, &[]), start(3, UnitStep::Continue));
        consumers.handle_event(now, UnitEvent::Completed { op: OpId(3), result: Ok(UnitDone::Plainly) });
        assert_eq!(consumers.memory(), BTreeMap::new());
    }

    #[test]
    fn of_two_policies_for_a_share_the_one_that_pauses_counts() {
        let other =
            |label, on_outage| format!("[[share.films.consumer]]\nlabel = \"{label}\"\non_outage = \"{on_outage}\"\n");
        let text = format!("{MARKED}\n{}{}", other("a", "stop"), other("z", "none"));
        let loaded = config::load(&[SourceText::new("nasmount.toml", text)], &shipped_profiles()).unwrap();
        let mut members = Members::new();
        for group in ["label:a", "compose:media", "label:z"] {
            replace(&mut members, group, "docker", names(&["docker:player"]));
        }
        let units = expanded(&units(&loaded.settings), &members);
        assert_eq!(units["docker:player"].needs["films"].on_outage, OnOutage::Pause);
    }

    #[test]
    fn an_engine_speaks_for_its_own_containers() {
        let mut members = Members::new();
        replace(&mut members, "compose:media", "docker", names(&["docker:a", "docker:b"]));
        assert!(replace(&mut members, "compose:media", "podman", names(&["podman:a"])));
        assert!(replace(&mut members, "compose:media", "docker", names(&["docker:b"])));
        assert_eq!(members["compose:media"], names(&["docker:b", "podman:a"]));
    }

    #[test]
    fn who_was_held_stays_so_until_its_engine_says_that_nobody_stands_for_it() {
        let configured = marked();
        let held = ["docker:player", "container:old", "container:tdarr", "gone.service"].map(str::to_owned);
        let mut members = presumed(&configured, held.iter());
        let shares =
            |members: &Members| expanded(&configured, members).get("docker:player").map(|unit| unit.needs.len());
        assert_eq!(shares(&members), Some(2), "of any of them");
        assert_eq!(expanded(&configured, &members).len(), 2);
        replace(&mut members, "compose:media", "docker", names(&["docker:player"]));
        replace(&mut members, "label:music", "docker", BTreeSet::new());
        assert_eq!(shares(&members), Some(1));
        replace(&mut members, "compose:media", "docker", BTreeSet::new());
        assert_eq!(shares(&members), None);
    }

    fn load(order: &str) -> Result<config::Loaded, Vec<config::Invalid>> {
        let text = SourceText::new("nasmount.toml", TWO_SHARES.replace("ORDER", order));
        config::load(&[text], &shipped_profiles())
    }

    #[test]
    fn a_unit_knows_every_share_that_it_needs() {
        let units = units(&load("5").unwrap().settings);
        let player = &units["player.service"];
        assert_eq!((player.order, player.time_limit), (5, Duration::from_secs(20)));
        assert_eq!(player.needs["films"], Policy { on_outage: OnOutage::Pause, after_hold: AfterHold::Stop });
        assert_eq!(player.needs["music"], Policy { on_outage: OnOutage::Pause, after_hold: AfterHold::Kill });
        assert_eq!(units["scanner.service"].needs.len(), 1);
        assert_eq!(units["scanner.service"].time_limit, Duration::from_secs(100));
    }

    #[test]
    fn a_unit_with_two_orders_is_refused_and_both_places_are_named() {
        let invalid = load("6").unwrap_err();
        assert_eq!(invalid.len(), 1, "{invalid:?}");
        assert_eq!(invalid[0].0.key, "share.music.consumer[0].order");
        assert!(invalid[0].0.related.is_some());
    }
}
