//! Networks that the configuration names.

use super::facts::HostFacts;
use super::{Finding, Severity};
use crate::config::closest;
use crate::config::network::HomeNetwork;
use crate::config::settings::Settings;

/// Interfaces in `only_on` that this host does not have now: one of a VPN comes and goes, one with a typing error never comes.
pub(super) fn unknown_interfaces(settings: &Settings, host: &HostFacts) -> Vec<Finding> {
    let Some(known) = &host.interfaces else { return Vec::new() };
    let mut found = Vec::new();
    for server in settings.servers.values() {
        for network in &server.only_on {
            let HomeNetwork::Interface(name) = network else { continue };
            if known.contains(name) {
                continue;
            }
            let what =
                format!("`only_on` of server {} names {name}, and this host has no such interface now", server.id);
            let why = "the server is not asked while this host is on no network that `only_on` names";
            let known = known.iter().map(String::as_str).filter(|known| *known != "lo");
            let remedy = match closest(name, known) {
                Some(meant) => format!("did you mean {meant}? `ip -br link` lists them"),
                None => "`ip -br link` lists them; nothing, if it is one that comes and goes, as a VPN's".to_owned(),
            };
            found.push(Finding::new("only-on-unknown-interface", Severity::Note, what, why, remedy));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, SourceText, shipped_profiles};

    /// One of a VPN comes and goes; a typing error stays.
    #[test]
    fn an_interface_that_is_not_there_is_a_note() {
        let text =
            "[server.attic]\nhost = \"10.0.0.9\"\nonly_on = [\"10.0.0.0/24\", \"eth0\", \"wg0\", \"vpn-of-work\"]\n";
        let settings = config::load(&[SourceText::new("x", text)], &shipped_profiles()).unwrap().settings;
        let interfaces = Some(["lo", "eth0", "wg1"].map(str::to_owned).into());
        let found = unknown_interfaces(&settings, &HostFacts { interfaces, ..HostFacts::default() });
        let [wg0, vpn] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((wg0.id, wg0.severity), ("only-on-unknown-interface", Severity::Note));
        assert_eq!(wg0.what, "`only_on` of server attic names wg0, and this host has no such interface now");
        assert_eq!(wg0.remedy, "did you mean wg1? `ip -br link` lists them");
        assert!(vpn.what.contains(" names vpn-of-work,") && vpn.remedy.ends_with("as a VPN's"), "{vpn:?}");
        assert_eq!(unknown_interfaces(&settings, &HostFacts::default()), [], "nothing is known of any");
    }
}
