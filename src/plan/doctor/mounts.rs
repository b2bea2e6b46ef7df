//! Who else mounts what is nasmount's, and what lies under a share.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::{Contents, Underneath, Unfinished};
use super::{Finding, Severity, quoted, setting};
use crate::config::settings::{Settings, ShareSettings};
use crate::config::units::mount_unit;
use crate::plan::fstab::{self, Entry};
use crate::plan::mount_unit::{Content, UnitFile};

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

    /// The name of the server that is meant by one of these hosts.
    fn server(&self, hosts: &[&str]) -> Option<String> {
        let servers = self.settings.servers.values();
        let is_named = |id: &str, host: &str| {
            let address = self.addresses.get(id).map(String::as_str);
            hosts.iter().any(|other| other.eq_ignore_ascii_case(host) || address == Some(*other))
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
                false => format!("sed -i '{number}s/^/# /' /etc/fstab && systemctl daemon-reload"),
            };
            if let Some(share) = self.share_at(&place) {
                let what =
                    format!("line {number} of /etc/fstab mounts {place}, the mount point of the share {}", share.id);
                let why = "two mounts of one path: the share is blocked as long as the other is there";
                found.push(Finding::new("fstab-mount-point", Severity::Error, what, why, off));
            } else if let Some(share) = self.share_around(&place) {
                let what = format!("line {number} of /etc/fstab mounts {place}, inside the share {}", share.id);
                found.push(Finding::new("fstab-mount-point", Severity::Error, what, INSIDE, off));
            } else if fstab::is_cifs(&kind, &source)
                && let Some(server) = self.server(&hosts(&source, &options.join(",")))
            {
                let what =
                    format!("line {number} of /etc/fstab mounts {place} from the server {server}, beside nasmount");
                found.push(Finding::new("fstab-server", Severity::Warning, what, BESIDE, off));
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
            Content::Texts(texts) => &texts.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n"),
            Content::Link(text) => text,
            Content::Unreadable(_) => "",
        };
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

/// Of what an import was to take over.
const FINISH: &str = "an import was interrupted before it came to this: `nasmount import-fstab --apply` finishes it";

const INSIDE: &str = "it waits for the share's server, and the share cannot be unmounted as long as it is there";

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
