//! Time-outs that depend on each other: the patience of all shares of a server, its probes, and the kernel's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::OptionOrigin;
use super::fragment::ShareFragment;
use super::invalid::{InvalidKind, Problems};
use super::settings::{HoldFor, OptionValue, ProbeSettings, ServerId, ServerSettings};
use super::validate::{Draft, shown_name};
use super::value::show_duration;
use crate::plan::layers::{self, LayerViolation};

pub(super) fn warn_about_hold(path: &str, share: &ShareFragment, hold_for: HoldFor, problems: &mut Problems<'_>) {
    let (Some(patience), HoldFor::For(hold)) = (&share.patience, hold_for) else { return };
    if patience.value > hold {
        let (patience_text, hold_text) = (show_duration(patience.value), show_duration(hold));
        let message =
            format!("the patience of {patience_text} is never reached: the share is released after {hold_text}");
        let help = format!("write hold_for = \"{patience_text}\" or longer, or shorten the patience");
        problems.warn(patience.origin, format!("{path}.patience"), message, help);
    }
}

/// Gives all shares of a host the longest patience among them and fits `echo_interval` to it. Two servers of the configuration
/// may be one host, with two logins: its connections are given up by address.
pub(super) fn settle_patience(
    mut drafts: Vec<Draft>,
    servers: &mut BTreeMap<ServerId, ServerSettings>,
    problems: &mut Problems<'_>,
) -> Vec<Draft> {
    let longest_by_host = longest_by_host(&drafts, servers);
    for (id, server) in servers {
        let Some(longest) = longest_by_host.get(&same_host(&server.host)) else { continue };
        let shares: Vec<&mut Draft> = drafts.iter_mut().filter(|draft| draft.settings.server == *id).collect();
        server.probe.timeout_max = layers::timeout_max(&server.probe, longest.0);
        for draft in shares {
            if let Err(violation) = layers::check_patience(&server.probe, draft.asked_patience) {
                refuse_patience(draft, &violation, problems);
                continue;
            }
            let own = draft.settings.patience;
            draft.settings.patience = longest.0;
            warn_about_neighbour(draft, own, longest, problems);
            settle_echo_interval(draft, &server.probe, &longest.1, problems);
        }
    }
    drafts
}

/// The same for all spellings of a host.
pub(crate) fn same_host(host: &str) -> String {
    match host.parse::<core::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// The longest patience at each host, and the share that asks for it.
fn longest_by_host(
    drafts: &[Draft],
    servers: &BTreeMap<ServerId, ServerSettings>,
) -> BTreeMap<String, (Duration, String)> {
    let mut longest = BTreeMap::<String, (Duration, String)>::new();
    for draft in drafts {
        let Some(server) = servers.get(&draft.settings.server) else { continue };
        let patience = draft.settings.patience;
        let entry = longest.entry(same_host(&server.host)).or_insert_with(|| (patience, draft.name.clone()));
        if patience > entry.0 {
            *entry = (patience, draft.name.clone());
        }
    }
    longest
}

fn refuse_patience(draft: &Draft, violation: &LayerViolation, problems: &mut Problems<'_>) {
    let help = match violation {
        LayerViolation::PatienceBelowDetection { detection, .. } => format!(
            "use {} or more, or \"0s\" to give up as soon as the server is dead, or faster probes",
            show_duration(*detection)
        ),
        LayerViolation::PatienceTooLong { most, .. } => format!("use {} or less", show_duration(*most)),
        LayerViolation::DetectionTooSlow { .. } => "probe more often, or lower dead_after".to_owned(),
        LayerViolation::KernelTooSoon { needed, .. } => format!("use echo_interval = {needed} or more"),
    };
    let (at, key) = draft.patience_at.clone();
    problems.refuse(InvalidKind::TimeoutOrder, at, key, violation.to_string(), help);
}

/// A share that is to be released at once waits for its neighbours' patience all the same.
fn warn_about_neighbour(draft: &Draft, own: Duration, longest: &(Duration, String), problems: &mut Problems<'_>) {
    if let HoldFor::For(hold) = draft.settings.hold_for
        && hold < longest.0
        && own < longest.0
    {
        let message = format!(
            "what is in flight on this share is given up after {}, not after its hold of {}: share {} of the same \
             server asks for that patience, and a server's connections are given up together",
            show_duration(longest.0),
            show_duration(hold),
            shown_name(&longest.1)
        );
        let key = format!("{}.hold_for", super::reader::join("share", &draft.name));
        let help = "shorten the other share's patience, or make this hold longer";
        problems.warn(draft.mount_point_origin, key, message, help);
    }
}

fn settle_echo_interval(draft: &mut Draft, probe: &ProbeSettings, longest: &str, problems: &mut Problems<'_>) {
    let patience = draft.settings.patience;
    let share_probe = draft.settings.probe_interval;
    let needed = layers::echo_interval_needed(probe, patience, share_probe);
    let configured = draft.echo_interval.unwrap_or(0);
    let layers = layers::Layers::new(probe, patience, share_probe, configured, draft.settings.hold_for);
    if let (Err(violation), Some(at)) = (layers, draft.own_echo_interval) {
        let whose = match longest == draft.name {
            true => "the patience".to_owned(),
            false => format!("the patience of share {}, which counts for its whole server", shown_name(longest)),
        };
        let key = format!("{}.options.echo_interval", super::reader::join("share", &draft.name));
        let instead = format!("remove it, and nasmount uses {needed}");
        let help = if patience.is_zero() { instead } else { format!("{instead}; or shorten {whose}") };
        problems.refuse(InvalidKind::TimeoutOrder, at, key, violation.to_string(), help);
        return;
    }
    if configured < needed {
        draft.settings.options.insert("echo_interval".to_owned(), OptionValue::Value(needed.to_string()));
        let origin = OptionOrigin::Layers { profile: draft.echo_interval };
        draft.option_origins.insert("echo_interval".to_owned(), origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_the_same() {
        for (one, other) in [("2001:0DB8::1", "2001:db8:0::1"), ("Tower.lan.", "tower.lan"), ("10.0.0.1", "10.0.0.1")] {
            assert_eq!(same_host(one), same_host(other));
        }
        assert_ne!(same_host("10.0.0.1"), same_host("10.0.0.11"));
    }
}
