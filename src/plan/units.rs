//! The units of the whole host: what is configured of a consumer for each share, seen from the unit.

use std::collections::BTreeMap;

use crate::config::settings::Settings;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::config::settings::{AfterHold, OnOutage};
    use crate::config::{self, SourceText, shipped_profiles};

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
