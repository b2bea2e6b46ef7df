//! Which lines of fstab and mount units can be one of nasmount's: those that cannot are left out, and the others go on.

use std::path::Path;

use super::super::fstab::Entry;
use super::super::inline_login::left_in_comment;
use super::super::outdated::is_outdated;
use super::{Line, Look, Place, Remark, quoted};
use crate::config::settings::{CredentialSource, Settings, ShareSettings};
use crate::config::{self, Invalid, SourceText, same_host, shipped_profiles};

/// What is there besides the line.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The configuration, if there is one that can be used.
    pub(super) existing: Option<&'a Settings>,
    /// What the fstab is called.
    pub(super) fstab: &'a str,
    /// What credentials files say.
    pub(super) look: Look<'a>,
}

/// `//HOST[:PORT]/SHARE`; the brackets of an IPv6 address are gone.
pub(super) struct Source<'a> {
    pub(super) host: &'a str,
    port: Option<&'a str>,
    pub(super) share: &'a str,
}

impl<'a> Source<'a> {
    /// `None` if it is none. It has slashes only.
    pub(super) fn of(spec: &'a str) -> Option<Self> {
        let (server, share) = spec.strip_prefix("//")?.split_once('/')?;
        let bracketed = server.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        // several colons without brackets are an address
        let named = server.split_once(':').filter(|(_, port)| !port.contains(':'));
        let (host, port) = match (bracketed, named) {
            (Some((address, after)), _) => (address, after.strip_prefix(':')),
            (None, Some((name, port))) => (name, Some(port)),
            (None, None) => (server, None),
        };
        (!host.is_empty()).then_some(Self { host, port, share: share.trim_matches('/') })
    }
}

impl Line<'_> {
    /// Can it be one of nasmount's? Why not is remarked on.
    pub(super) fn is_possible(at: &Place, entry: &Entry, around: Around<'_>, remarks: &mut Vec<Remark>) -> bool {
        let Entry { source, mount_point, options, .. } = entry;
        let spec = source.replace('\\', "/");
        let host = spec.split_once("//").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        let parts = Source::of(&spec);
        let port = options.iter().find_map(|option| option.strip_prefix("port="));
        let port = port.or_else(|| parts.as_ref()?.port).filter(|port| *port != "445");
        let why = if host.map_or(spec.contains('@'), |host| host.contains('@')) {
            "left out: there is a login in its source, which is not repeated here; logins are in credentials files"
                .to_owned()
        } else if let Some(port) = port {
            format!("left out: its server is asked at port {port}, and nasmount asks at 445 only")
        } else if options.iter().any(|option| is_several(option)) {
            "left out: there are several options within quotes, which are one to fstab and several to mount.cifs; take the quotes out, and \
             try again"
                .to_owned()
        } else if let Some(why) = is_outdated(options) {
            why
        } else if parts.is_none() && spec.contains(['=', ',']) {
            "left out: what stands for its source is not //SERVER/SHARE".to_owned() // options, perhaps
        } else if parts.is_none() {
            format!("left out: {source} is not //SERVER/SHARE")
        } else if parts.as_ref().is_some_and(|parts| parts.share.is_empty()) {
            format!("left out: {source} names a server, and no share on it; it is //SERVER/SHARE")
        } else if !mount_point.starts_with('/') {
            "left out: what stands for its mount point is no directory's path, which begins with `/`".to_owned()
        } else if let Some(share) = around.already(entry, parts.as_ref()) {
            is_already(at, share, around.fstab, options)
        } else {
            return true;
        };
        remarks.push(Remark::new(at, "", why));
        false
    }

    /// What the configuration would not take of it, whatever the other lines are: an option, or none for its host and paths, and why.
    pub(super) fn refused(&self) -> Option<(String, String)> {
        let text = format!("[server.s]\nhost = {}\n{}", quoted(&self.host), self.share("s", "s"));
        let invalid = config::load(&[SourceText::new("line", text)], &shipped_profiles()).err()?;
        invalid.into_iter().next().map(|Invalid(notice)| {
            let option = notice.key.strip_prefix("share.s.options.").unwrap_or_default().to_owned();
            (option, format!("the line is left out: {}; mend that here, and try again", notice.message))
        })
    }
}

impl Around<'_> {
    /// Whether a file has a login that is somebody's already: a server's, or that of an earlier import.
    pub(super) fn is_login(&self, path: &Path) -> bool {
        let mut servers = self.existing.iter().flat_map(|settings| settings.servers.values());
        servers.any(|server| server.credentials == CredentialSource::File(path.to_owned()))
            || (self.look)(path).is_some()
    }

    /// The share that the configuration has of the same, at the same mount point.
    fn already(&self, entry: &Entry, parts: Option<&Source<'_>>) -> Option<&ShareSettings> {
        let (settings, parts) = (self.existing?, parts?);
        let address = |option: &String| Some(option.strip_prefix("ip=").or(option.strip_prefix("addr="))?.to_owned());
        let host = entry.options.iter().rev().find_map(address).unwrap_or_else(|| parts.host.to_owned());
        settings.shares.values().find(|share| {
            let server = settings.servers.get(&share.server);
            share.mount_point == Path::new(&entry.mount_point)
                && share.source.trim_matches('/') == parts.share
                && server.is_some_and(|server| same_host(&server.host.to_string()) == same_host(&host))
        })
    }
}

/// Whether what stood within quotes goes on with another option; a name and an SELinux label may have a comma, and a password anything.
fn is_several(option: &str) -> bool {
    !option.starts_with("pass") && option.split(',').skip(1).any(|piece| piece.contains('='))
}

fn is_already(at: &Place, share: &ShareSettings, fstab: &str, options: &[String]) -> String {
    let (line, id) = (at.line, &share.id);
    let left = left_in_comment(options);
    match &at.file {
        None => format!(
            "left alone: line {line} is share {id} already, take the line out: \
             `sed -i '{line}s/^/# /' {fstab} && systemctl daemon-reload`{left}"
        ),
        Some(file) => format!(
            "left alone: it is share {id} already, take the unit out: `mv {file} {file}.old && systemctl daemon-reload`"
        ),
    }
}
