//! Other programs that go through mounts by themselves.

use super::facts::TextFile;
use super::{Finding, Severity, setting};
use crate::config::settings::{Settings, ShareSettings};

/// `PRUNEFS="nfs cifs"` and `PRUNEPATHS="/tmp /mnt/media"`, of updatedb.conf(5).
pub(super) fn updatedb(settings: &Settings, text: &str) -> Option<Finding> {
    let list = |key| setting(text, key).unwrap_or_default().trim_matches('"');
    let (types, paths) = (list("PRUNEFS"), list("PRUNEPATHS"));
    let is_pruned = |share: &ShareSettings| paths.split_whitespace().any(|path| share.mount_point.starts_with(path));
    if types.split_whitespace().any(|kind| kind.eq_ignore_ascii_case("cifs")) || settings.shares.values().all(is_pruned)
    {
        return None;
    }
    let separator = if types.is_empty() { "" } else { " " };
    Some(Finding::new(
        "updatedb-scans-shares",
        Severity::Note,
        "updatedb goes through the shares",
        "it reads every directory of the NAS each day, keeps it awake, and is what an outage finds in flight",
        format!("in /etc/updatedb.conf: PRUNEFS=\"{types}{separator}cifs\""),
    ))
}

/// What the default of `--collector.filesystem.mount-points-exclude` keeps out, which giving the option replaces.
const USUALLY_EXCLUDED: &str = "dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+";

pub(super) fn node_exporter(settings: &Settings, files: &[TextFile]) -> Option<Finding> {
    // Debian's file explains the options in comments
    let mut lines = files.iter().flat_map(|file| file.text.lines()).filter(|line| !line.trim_start().starts_with('#'));
    const EXCLUDES: [&str; 4] =
        ["mount-points-exclude", "ignored-mount-points", "fs-types-exclude", "no-collector.filesystem"];
    if settings.shares.is_empty() || lines.any(|line| EXCLUDES.iter().any(|option| line.contains(option))) {
        return None;
    }
    let file = files.first()?.path.display();
    let paths = settings.shares.values().map(|share| share.mount_point.to_string_lossy());
    let paths: Vec<String> = paths.map(|path| pattern(path.trim_start_matches('/'))).collect();
    let option =
        format!("--collector.filesystem.mount-points-exclude='^/({USUALLY_EXCLUDED}|{})($|/)'", paths.join("|"));
    Some(Finding::new(
        "node-exporter-polls-shares",
        Severity::Note,
        format!("node_exporter ({file}) asks the shares for their free space at each scrape"),
        "a scrape that an outage finds in flight does not end before the patience is over, and its other values are lost with it",
        format!("start it with {option}"),
    ))
}

/// A text as a regular expression for itself.
pub(super) fn pattern(text: &str) -> String {
    let letters = text.chars().flat_map(|letter| {
        let is_special = r"\.+*?()|[]{}^$".contains(letter);
        is_special.then_some('\\').into_iter().chain([letter])
    });
    letters.collect()
}
