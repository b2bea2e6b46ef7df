//! `nasmount doctor`: what is wrong with a host, or will hurt, from facts about it.
//!
//! A finding says what is so, why that matters, and what to do. It is an **error** if a share does not work, or will not after the next
//! boot; a **warning** if an outage will hurt more than it need; a **note** if it is for a person to weigh. What cannot be seen is
//! no finding, unless it is worth looking at by hand.
//!
//! Not asked for: `/dev/fuse`, as nothing of nasmount's uses FUSE (barriers are autofs); `cgroup.freeze`, as pausing is done by signals,
//! and a freeze that somebody else has ordered is only read (`sys::systemd`).

mod bugs;
mod consumers;
pub mod facts;
mod kernel;
mod mounts;
mod networks;
mod programs;

use serde::Serialize;

use crate::config::settings::Settings;
use facts::{HostFacts, ServiceFacts};
use mounts::Others;

pub use bugs::{Kernel, Version};
pub use kernel::lacks_cifs;
pub use mounts::size;

/// The first systemd that nasmount was made for.
const OLDEST_SYSTEMD: u32 = 252;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing was found.
    #[default]
    Ok,
    /// For a person to weigh.
    Note,
    /// An outage will hurt more than it need.
    Warning,
    /// A share does not work, or will not after the next boot.
    Error,
}

impl Severity {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind it is, in kebab-case; the same over the versions of nasmount.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why that matters.
    pub why: String,
    /// What to do: a command, where there is one.
    #[serde(rename = "do")]
    pub remedy: String,
}

impl Finding {
    /// With all that it has.
    pub fn new(
        id: &'static str,
        severity: Severity,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { id, severity, what: what.into(), why: why.into(), remedy: remedy.into() }
    }
}

/// The worst of all; `Ok` if there is none.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or_default()
}

/// Everything that is found, the worst first. `own_version` is the one of the program that asks.
pub fn examine(settings: &Settings, host: &HostFacts, services: &ServiceFacts, own_version: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let addresses = services.daemon.as_ref().map(|daemon| daemon.addresses.clone()).unwrap_or_default();
    let other_mounts = Others { settings, addresses, unfinished: &host.unfinished };
    other_mounts.in_fstab(&host.fstab, &mut found);
    host.units.iter().for_each(|unit| found.extend(other_mounts.in_unit(unit)));
    host.units.iter().for_each(|unit| found.extend(mounts::drop_ins(settings, &host.units, unit)));
    found.extend(nft(host));
    if !host.unified_cgroups {
        found.push(Finding::new(
            "cgroups-not-unified",
            Severity::Warning,
            "this host has no cgroup v2 in /sys/fs/cgroup",
            "containers cannot be found and are not paused in an outage, limits have no effect, and who has files open is named without its unit",
            "boot with systemd.unified_cgroup_hierarchy=1 in the kernel's command line",
        ));
    }
    kernel::kernel(settings, &host.kernel, &mut found);
    service(services, own_version, &mut found);
    found.extend(services.systemd.as_deref().and_then(systemd));
    consumers::consumers(settings, services, &mut found);
    found.extend(networks::unknown_interfaces(settings, host));
    host.mount_points.iter().for_each(|(path, what)| found.extend(mounts::underneath(settings, path, what)));
    found.extend(host.updatedb.as_deref().and_then(|text| programs::updatedb(settings, text)));
    found.extend(programs::node_exporter(settings, &host.node_exporter));
    found.sort_by_key(|finding| core::cmp::Reverse(finding.severity));
    found
}

/// The same of a host without a configuration: whether nasmount would work on it, and what it would be for.
pub fn examine_unconfigured(host: &HostFacts, systemd_version: Option<&str>) -> Vec<Finding> {
    let mut found = mounts::without_nasmount(host);
    found.extend(nft(host));
    kernel::kernel(&Settings::default(), &host.kernel, &mut found);
    found.extend(systemd_version.and_then(systemd));
    found.sort_by_key(|finding| core::cmp::Reverse(finding.severity));
    found
}

fn nft(host: &HostFacts) -> Option<Finding> {
    host.nft.is_none().then(|| {
        Finding::new(
            "nft-missing",
            Severity::Warning,
            "there is no nft on this host",
            "without it nothing hides an outage from the kernel: calls in flight fail as soon as the server closes its connections",
            "apt install nftables",
        )
    })
}

fn service(services: &ServiceFacts, own_version: &str, found: &mut Vec<Finding>) {
    match &services.daemon {
        Err(why) => {
            let means = "no share is watched: an outage hangs whoever uses one, as without nasmount";
            let remedy = "systemctl enable --now nasmount; if it does not stay up: journalctl -u nasmount";
            found.push(Finding::new("daemon-silent", Severity::Error, why.clone(), means, remedy));
        }
        Ok(daemon) if daemon.version != own_version => {
            let what = format!("the daemon is nasmount {}, and this program {own_version}", daemon.version);
            let why = "what was installed last is not what runs";
            found.push(Finding::new("daemon-version", Severity::Warning, what, why, "systemctl restart nasmount"));
        }
        Ok(_) => {}
    }
}

fn systemd(version: &str) -> Option<Finding> {
    let number = version.trim_start_matches('v').split(|letter: char| !letter.is_ascii_digit()).next();
    number.and_then(|number| number.parse::<u32>().ok()).filter(|number| *number < OLDEST_SYSTEMD)?;
    let what = format!("systemd {version} is older than {OLDEST_SYSTEMD}");
    let why = "nasmount's units were never run on it: consumers may not wait for their shares";
    Some(Finding::new("systemd-too-old", Severity::Warning, what, why, "upgrade systemd"))
}

/// The value of a key in a file of lines `KEY=VALUE`; the last one counts.
fn setting<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    let mut values = text.lines().filter_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == key));
    values.next_back().map(|(_, value)| value.trim())
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.:@,+=".contains(letter);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
