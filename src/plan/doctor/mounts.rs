//! Who else mounts what is nasmount's, and what lies under a share.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::{Contents, HostFacts, Underneath, Unfinished};
use super::{Finding, Severity, quoted, setting};
use crate::config::same_host;
use crate::config::settings::{Settings, ShareSettings};
use crate::config::units::mount_unit;
use crate::plan::fstab::{self, Entry};
use crate::plan::inline_login::left_in_comment;
use crate::plan::mount_unit::{Content, UnitFile};
use crate::plan::over::lies_on;

/// Who else mounts what is nasmount's.
pub(super) struct Others<'a> {
    pub(super) settings: &'a Settings,
    /// Of servers, by name.
    pub(super) addresses: BTreeMap<String, String>,
    pub(super) unfinished: &'a Unfinished,
}

impl Others<'_> {
    fn share_at(&self, path: &str) -> Option<&ShareSettings> {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        self.settings.shares.values().find(|share| share.mount_point == Path::new(path))
    }

    fn share_around(&self, path: &str) -> Option<&ShareSettings> {
        self.settings.shares.values().find(|share| Path::new(path).starts_with(&share.mount_point))
    }

    fn share_below(&self, source: &str, options: &[String]) -> Option<&ShareSettings> {
        self.settings.shares.values().find(|share| lies_on(source, options, &share.mount_point))
    }

    /// The name of the server that is meant by one of these hosts.
    fn server(&self, hosts: &[&str]) -> Option<String> {
        let servers = self.settings.servers.values();
        let is_named = |id: &str, host: &str| {
            let address = self.addresses.get(id).map(String::as_str);
            hosts.iter().any(|other| same_host(other) == same_host(host) || address == Some(*other))
        };
        servers
            .map(|server| (server.id.to_string(), &server.host))
            .find(|(id, host)| is_named(id, host))
            .map(|(id, _)| id)
    }

    pub(super) fn in_fstab(&self, fstab: &str, found: &mut Vec<Finding>) {
        for (number, line) in (1..).zip(fstab.lines()) {
            let Some(Entry { source, mount_point: place, kind, options }) = fstab::entry(line) else { continue };
            let off = match self.unfinished.lines.contains(&number) {
                true => FINISH.to_owned(),
                false => commented(number, &options),
            };
            if let Some(share) = self.share_at(&place) {
                let what =
                    format!("line {number} of /etc/fstab mounts {place}, the mount point of the share {}", share.id);
                let why = "two mounts of one path: the share is blocked as long as the other is there";
                found.push(Finding::new("fstab-mount-point", Severity::Error, what, why, off));
            } else if let Some(share) = self.share_around(&place) {
                let what = format!("line {number} of /etc/fstab mounts {place}, inside the share {}", share.id);
                found.push(Finding::new("fstab-mount-point", Severity::Error, what, INSIDE, off));
            } else if let Some(share) = self.share_below(&source, &options)
                && (kind == "swap" || place == "none")
            {
                let what =
                    format!("line {number} of /etc/fstab uses {source}, which lies on the share {}, as swap", share.id);
                let why = "memory that was moved there is gone while the share's server is away: all that needs it hangs, nasmount, too";
                let remedy = format!("have swap on a disk of this host; {off}");
                found.push(Finding::new("fstab-over-share", Severity::Warning, what, why, remedy));
            } else if let Some(share) = self.share_below(&source, &options) {
                let what = format!("line {number} of /etc/fstab mounts on {place} what lies on the share {}", share.id);
                let why = "it is a mount of its own: it keeps what the share was when it was made, dead after the next outage, or waits for \
                           the share's server, and nobody pauses who uses it";
                let remedy = format!("mount it as a share of its own, or make {} a link; {off}", quoted(&place));
                found.push(Finding::new("fstab-over-share", Severity::Warning, what, why, remedy));
            } else if fstab::is_cifs(&kind, &source)
                && let Some(server) = self.server(&hosts(&source, &options.join(",")))
            {
                let what =
                    format!("line {number} of /etc/fstab mounts {place} from the server {server}, beside nasmount");
                let remedy = match self.unfinished.lines.contains(&number) {
                    true => off,
                    false => format!("nasmount import-fstab (with --apply it takes the line over); or {off}"),
                };
                found.push(Finding::new("fstab-server", Severity::Warning, what, BESIDE, remedy));
            }
        }
    }

    pub(super) fn in_unit(&self, unit: &UnitFile) -> Option<Finding> {
        let UnitFile { name, path, content } = unit;
        let own = self.settings.shares.values().find(|share| mount_unit(&share.mount_point.to_string_lossy()) == *name);
        let text = match content {
            Content::Masked => {
                let what = format!("{name} is masked, the unit of the share {}", own?.id);
                let why = "whatever requires the share's path cannot be started";
                let remedy = format!("systemctl unmask {}", quoted(name));
                return Some(Finding::new("unit-masked", Severity::Error, what, why, remedy));
            }
            Content::DropIns(_) => return None,
            Content::Texts(_) | Content::Link(_) | Content::Unreadable(_) => text_of(content),
        };
        let text = text.as_str();
        let (name, file) = (quoted(name), quoted(path));
        let off = match self.unfinished.files.contains(path) {
            true => FINISH.to_owned(),
            false => format!("systemctl disable {name}; mv {file} /root/; systemctl daemon-reload"),
        };
        let place = setting(text, "Where").unwrap_or_default();
        if let Some(share) = own.or_else(|| self.share_at(place)) {
            let what = format!(
                "{path} is a unit for {}, the mount point of the share {}",
                share.mount_point.display(),
                share.id
            );
            let why = "it stands in the way of the share and of the unit that nasmount makes for it";
            return Some(Finding::new("unit-mount-point", Severity::Error, what, why, off));
        }
        if let Some(share) = self.share_around(place) {
            let what = format!("{path} mounts {place}, inside the share {}", share.id);
            return Some(Finding::new("unit-mount-point", Severity::Error, what, INSIDE, off));
        }
        let kind = setting(text, "Type").unwrap_or("auto");
        let source = setting(text, "What").filter(|source| fstab::is_cifs(kind, source))?;
        let server = self.server(&hosts(source, setting(text, "Options").unwrap_or_default()))?;
        let what = format!("{path} mounts {place} from the server {server}, beside nasmount");
        Some(Finding::new("unit-server", Severity::Warning, what, BESIDE, off))
    }
}

/// How a line of fstab becomes a comment, and what is left in it.
fn commented(number: usize, options: &[String]) -> String {
    let left = left_in_comment(options);
    format!("sed -i '{number}s/^/# /' /etc/fstab && systemctl daemon-reload{left}")
}

/// Of what an import was to take over.
const FINISH: &str = "an import was interrupted before it came to this: `nasmount import-fstab --apply` finishes it";

const INSIDE: &str = "it waits for the share's server, and the share cannot be unmounted as long as it is there";

/// What mounts shares of CIFS on a host without a configuration.
pub(super) fn without_nasmount(host: &HostFacts) -> Vec<Finding> {
    let lines = (1..).zip(host.fstab.lines()).filter_map(|(number, line): (usize, &str)| {
        let Entry { source, mount_point, kind, .. } = fstab::entry(line)?;
        // words in another order: what stands there may have a password
        let mounts = if mount_point.starts_with('/') { format!("{mount_point}, ") } else { String::new() };
        let what = format!("line {number} of /etc/fstab mounts {mounts}a share of CIFS, without nasmount");
        fstab::is_cifs(&kind, &source).then_some(("fstab-cifs", what))
    });
    let units = host.units.iter().filter_map(|UnitFile { path, content, .. }| {
        let text = text_of(content);
        let is_cifs = fstab::is_cifs(setting(&text, "Type").unwrap_or("auto"), setting(&text, "What")?);
        let what = format!("{path} mounts a share of CIFS without nasmount");
        is_cifs.then_some(("unit-cifs", what))
    });
    let why = "while its server is away, whoever uses it hangs or meets errors, and so may the shutdown of this host";
    let remedy = "`nasmount import-fstab` shows what it would be in a configuration, and with --apply takes it over";
    lines.chain(units).map(|(id, what)| Finding::new(id, Severity::Warning, what, why, remedy)).collect()
}

/// Drop-ins that change the unit which nasmount makes for a share. Where the unit is the administrator's own, that one is in the way.
pub(super) fn drop_ins(settings: &Settings, units: &[UnitFile], unit: &UnitFile) -> Vec<Finding> {
    let Content::DropIns(paths) = &unit.content else { return Vec::new() };
    let is_its_own = |share: &&ShareSettings| {
        let own = mount_unit(&share.mount_point.to_string_lossy());
        let is_there = |other: &UnitFile| other.name == own && !matches!(other.content, Content::DropIns(_));
        !units.iter().any(is_there) && changes(&unit.name, &own)
    };
    let Some(share) = settings.shares.values().find(is_its_own) else { return Vec::new() };
    let finding = |path: &String| {
        let what = format!("{path} changes nasmount's own unit for the share {}", share.id);
        let why = "the unit says which share is mounted, and for whom systemd has it wait; with something else in it systemd may mount \
                   another thing, or give the share up too soon";
        let remedy = format!("mv {} /root/; systemctl daemon-reload", quoted(path));
        Finding::new("unit-drop-in", Severity::Warning, what, why, remedy)
    };
    paths.iter().map(finding).collect()
}

/// Do drop-ins of one name change a unit? Those of `foo-bar.mount` and of `foo-.mount` change `foo-bar.mount` (systemd.unit(5)).
fn changes(name: &str, unit: &str) -> bool {
    let prefix = name.strip_suffix(".mount").filter(|prefix| prefix.ends_with('-'));
    name == unit || prefix.is_some_and(|prefix| unit.starts_with(prefix))
}

/// All text of a unit, drop-ins behind it, as systemd reads it; empty if it is not known.
fn text_of(content: &Content) -> String {
    match content {
        Content::Texts(texts) => texts.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n"),
        Content::Link(text) => text.clone(),
        Content::Masked | Content::DropIns(_) | Content::Unreadable(_) => String::new(),
    }
}

const BESIDE: &str = "what nasmount does to the server's connections in an outage concerns all its mounts: this one waits and fails with the \
                      shares, and nobody pauses who uses it. `nasmount import-fstab` shows how it would be a share";

/// The hosts that a source and its options name.
fn hosts<'a>(source: &'a str, options: &'a str) -> Vec<&'a str> {
    let host = source.trim_start_matches(['/', '\\']).split(['/', '\\']).next().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let addresses =
        options.split(',').filter_map(|option| option.strip_prefix("ip=").or_else(|| option.strip_prefix("addr=")));
    addresses.chain([host]).collect()
}

pub(super) fn underneath(settings: &Settings, path: &Path, what: &Underneath) -> Option<Finding> {
    let shown = path.display();
    match what {
        Underneath::Covered | Underneath::NoDirectory | Underneath::Protected => None,
        Underneath::Unseen(why) => {
            let what = format!("{shown} could not be looked at: {why}");
            let matters = "files may lie in it that a share would hide";
            Some(Finding::new("mount-point-unseen", Severity::Note, what, matters, "sudo nasmount doctor"))
        }
        Underneath::Open => {
            let what = format!("{shown} is an ordinary directory at this moment, and nothing is mounted on it");
            let why = "what is written into it disappears under the share, and fills this host's disk";
            Some(Finding::new("mount-point-open", Severity::Note, what, why, "systemctl start nasmount"))
        }
        Underneath::Holds(Contents { entries, bytes, more }) => {
            let least = if *more { "at least " } else { "" };
            let (noun, size) = (if *entries == 1 { "entry" } else { "entries" }, size(*bytes));
            let what = format!("{shown} is not empty under its share: {least}{entries} {noun}, {size}");
            let why = "the share hides them, and nasmount cannot protect the directory; a service may have written them while it was away";
            let share = settings.shares.values().find(|share| share.mount_point == path)?;
            let remedy = format!(
                "`nasmount rescue {}` lists them; with --merge they go onto the share, with --aside DIR elsewhere",
                share.id
            );
            Some(Finding::new("mount-point-holds-files", Severity::Warning, what, why, remedy))
        }
    }
}

/// A number of bytes with one decimal: `12.3 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, "KiB");
    for larger in ["MiB", "GiB", "TiB"] {
        if tenths >= 10 * 1024 {
            (tenths, unit) = (tenths / 1024, larger);
        }
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_with_one_decimal() {
        let sizes = [0, 1023, 1024, 10_000, 1 << 20, (1 << 30) - 1, 5 << 40, u64::MAX].map(size);
        let expected =
            ["0 bytes", "1023 bytes", "1.0 KiB", "9.7 KiB", "1.0 MiB", "1023.9 MiB", "5.0 TiB", "16777215.9 TiB"];
        assert_eq!(sizes, expected);
    }
}
