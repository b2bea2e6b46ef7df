//! From the configuration in force to a new one: what has to be done, in an order that is safe to stop half-way.
//!
//! 1. *Consumers* first: who is no longer configured is let go, so that nothing stays paused for a share that goes, whatever
//!    becomes of the rest. A consumer of a share that comes later is left as it is until that share demands something.
//! 2. Shares go before others come: one may come to a mount point that another one leaves.
//! 3. A server goes after its last share, and comes before its first.
//! 4. What lives is told what changed. Nothing here is interrupted: options and credentials wait for the next mount.
//! 5. New shares last.
//!
//! A step that failed hinders those that need it ([`PlanStep::hindrance`]) and no others; what was done is in force, what was
//! not is not, and the next reload tries it again.
//!
//! A share that is on another server, another host, another source or another mount point is another share: it goes and comes.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::settings::{ConsumerSettings, ServerId, ServerSettings, Settings, ShareId, ShareSettings};

/// One step; those of a plan are applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// The consumers of all shares are those of the new configuration.
    LoadConsumers,
    /// Unmount a share, end it and take its barrier away.
    RetireShare {
        /// Which.
        share: ShareId,
        /// Why.
        why: Retired,
    },
    /// End the probes of a server.
    RemoveServer {
        /// Which.
        server: ServerId,
    },
    /// Begin the probes of a server.
    AddServer {
        /// Which.
        server: ServerSettings,
    },
    /// Take over how a server is probed and how nasmount logs in. What is believed of the server stays.
    ChangeServer {
        /// As it is now.
        server: ServerSettings,
        /// What is another.
        changed: Changed,
    },
    /// Take over what a share is told.
    ChangeShare {
        /// As it is now.
        share: ShareSettings,
        /// What is another.
        changed: Changed,
    },
    /// Begin a share.
    AddShare {
        /// Which.
        share: ShareSettings,
        /// The host of its server.
        host: String,
    },
}

/// Why a share is retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It is no longer configured.
    Removed,
    /// It is another share under the same name; the key that says so.
    Replaced(&'static str),
}

/// The keys that are other ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// In force at once.
    pub at_once: Vec<&'static str>,
    /// Used at the next mount.
    pub at_mount: Vec<&'static str>,
}

impl Changed {
    fn is_empty(&self) -> bool {
        self.at_once.is_empty() && self.at_mount.is_empty()
    }
}

/// What follows from a new configuration for what runs.
pub fn diff(old: &Settings, new: &Settings) -> Vec<PlanStep> {
    let mut steps = Vec::new();
    if consumers(old) != consumers(new) {
        steps.push(PlanStep::LoadConsumers);
    }
    let stays = |share: &ShareId| match (old.shares.get(share), new.shares.get(share)) {
        (Some(before), Some(after)) => replaced_by(old, before, new, after).is_none(),
        _ => false,
    };
    for (id, before) in &old.shares {
        let why = match new.shares.get(id) {
            None => Retired::Removed,
            Some(after) => match replaced_by(old, before, new, after) {
                Some(key) => Retired::Replaced(key),
                None => continue,
            },
        };
        steps.push(PlanStep::RetireShare { share: id.clone(), why });
    }
    servers(old, new, &mut steps);
    for (id, after) in new.shares.iter().filter(|(id, _)| stays(id)) {
        let Some(before) = old.shares.get(id) else { continue };
        let changed = share_change(before, after);
        if !changed.is_empty() {
            steps.push(PlanStep::ChangeShare { share: after.clone(), changed });
        }
    }
    for (_, after) in new.shares.iter().filter(|(id, _)| !stays(id)) {
        let host = host(new, after).unwrap_or_default().to_owned();
        steps.push(PlanStep::AddShare { share: after.clone(), host });
    }
    steps
}

fn consumers(settings: &Settings) -> BTreeMap<&ShareId, &[ConsumerSettings]> {
    let consumed = settings.shares.values().filter(|share| !share.consumers.is_empty());
    consumed.map(|share| (&share.id, share.consumers.as_slice())).collect()
}

fn host<'a>(settings: &'a Settings, share: &ShareSettings) -> Option<&'a str> {
    settings.servers.get(&share.server).map(|server| server.host.as_str())
}

/// The key that makes it another share.
fn replaced_by(old: &Settings, before: &ShareSettings, new: &Settings, after: &ShareSettings) -> Option<&'static str> {
    if before.server != after.server {
        Some("server")
    } else if host(old, before) != host(new, after) {
        Some("host")
    } else if before.source != after.source {
        Some("source")
    } else if before.mount_point != after.mount_point {
        Some("mount_point")
    } else {
        None
    }
}

/// A server of another host is another server: what was believed of the one says nothing of the other.
fn servers(old: &Settings, new: &Settings, steps: &mut Vec<PlanStep>) {
    let same = |before: &ServerSettings| new.servers.get(&before.id).is_some_and(|after| after.host == before.host);
    let gone = old.servers.values().filter(|before| !same(before));
    steps.extend(gone.map(|before| PlanStep::RemoveServer { server: before.id.clone() }));
    for after in new.servers.values() {
        match old.servers.get(&after.id) {
            Some(before) if before.host == after.host => {
                let changed = server_change(before, after);
                if !changed.is_empty() {
                    steps.push(PlanStep::ChangeServer { server: after.clone(), changed });
                }
            }
            _ => steps.push(PlanStep::AddServer { server: after.clone() }),
        }
    }
}

// both name every field, so that no new one is forgotten

fn server_change(before: &ServerSettings, after: &ServerSettings) -> Changed {
    let ServerSettings { id: _, host: _, credentials, identity, only_on, probe } = after;
    Changed {
        at_once: keys(&[
            ("probe", before.probe != *probe),
            ("identity", before.identity != *identity),
            ("only_on", before.only_on != *only_on),
        ]),
        at_mount: keys(&[("credentials", before.credentials != *credentials)]),
    }
}

fn share_change(before: &ShareSettings, after: &ShareSettings) -> Changed {
    let ShareSettings { id: _, server: _, source: _, mount_point: _, profile, options, .. } = after;
    let ShareSettings { patience, hold_for, probe_interval, on_access, on_sleep, marker, .. } = after;
    let ShareSettings { leftover_holders, stale_copies, dirty_limit, read_ahead, consumers, .. } = after;
    Changed {
        at_once: keys(&[
            ("patience", before.patience != *patience),
            ("hold_for", before.hold_for != *hold_for),
            ("probe_interval", before.probe_interval != *probe_interval),
            ("on_access", before.on_access != *on_access),
            ("on_sleep", before.on_sleep != *on_sleep),
            ("marker", before.marker != *marker),
            ("kill_holders", before.leftover_holders != *leftover_holders),
            ("stale_copies", before.stale_copies != *stale_copies),
            ("consumers", before.consumers != *consumers),
        ]),
        at_mount: keys(&[
            ("profile", before.profile != *profile),
            ("options", before.options != *options),
            ("dirty_limit", before.dirty_limit != *dirty_limit),
            ("read_ahead", before.read_ahead != *read_ahead),
        ]),
    }
}

fn keys(compared: &[(&'static str, bool)]) -> Vec<&'static str> {
    compared.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}

impl PlanStep {
    /// Why the step cannot be done in view of what is in force, because one before it failed: a share that could not go is
    /// not trampled upon, and keeps its server.
    pub fn hindrance(&self, in_force: &Settings) -> Option<String> {
        let is_new_server = |server: &ServerSettings| !in_force.servers.contains_key(&server.id);
        match self {
            Self::RemoveServer { server } => {
                let left = in_force.shares.values().find(|share| share.server == *server)?;
                Some(format!("share {} is still on it", left.id))
            }
            Self::AddServer { server } if !is_new_server(server) => {
                Some("the one before it is still in use".to_owned())
            }
            Self::AddShare { share, host } => {
                let in_the_way =
                    |other: &&ShareSettings| other.id == share.id || other.mount_point == share.mount_point;
                if let Some(other) = in_force.shares.values().find(in_the_way) {
                    return Some(format!("share {} could not be retired", other.id));
                }
                let server = in_force.servers.get(&share.server);
                server.is_none_or(|server| server.host != *host).then(|| "its server is another one".to_owned())
            }
            Self::LoadConsumers
            | Self::RetireShare { .. }
            | Self::AddServer { .. }
            | Self::ChangeServer { .. }
            | Self::ChangeShare { .. } => None,
        }
    }

    /// What is in force once the step is done.
    pub fn put_in_force(&self, in_force: &mut Settings) {
        match self {
            Self::LoadConsumers => {} // they are part of the shares
            Self::RetireShare { share, .. } => drop(in_force.shares.remove(share)),
            Self::RemoveServer { server } => drop(in_force.servers.remove(server)),
            Self::AddServer { server } | Self::ChangeServer { server, .. } => {
                in_force.servers.insert(server.id.clone(), server.clone());
            }
            Self::ChangeShare { share, .. } | Self::AddShare { share, .. } => {
                in_force.shares.insert(share.id.clone(), share.clone());
            }
        }
    }

    /// What the operator still has to do or to know, once it is done.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::ChangeShare { share, changed } if !changed.at_mount.is_empty() => {
                let (id, what) = (&share.id, changed.at_mount.join(", "));
                Some(format!("share {id}: at the next mount: {what}; `nasmount remount {id}`"))
            }
            Self::ChangeServer { server, changed } if !changed.at_mount.is_empty() => {
                let what = changed.at_mount.join(", ");
                Some(format!("server {}: at the next mount of its shares: {what}", server.id))
            }
            Self::LoadConsumers
            | Self::RetireShare { .. }
            | Self::RemoveServer { .. }
            | Self::AddServer { .. }
            | Self::ChangeServer { .. }
            | Self::ChangeShare { .. }
            | Self::AddShare { .. } => None,
        }
    }
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |changed: &Changed| [changed.at_once.as_slice(), &changed.at_mount].concat().join(", ");
        match self {
            Self::LoadConsumers => write!(f, "take over the consumers; who is no longer one is let go"),
            Self::RetireShare { share, why: Retired::Removed } => {
                write!(f, "share {share}: no longer configured; unmount it and take it off the host")
            }
            Self::RetireShare { share, why: Retired::Replaced(key) } => {
                write!(f, "share {share}: its {key} is another; unmount it, to mount it anew")
            }
            Self::RemoveServer { server } => write!(f, "server {server}: no longer probed"),
            Self::AddServer { server } => write!(f, "server {}: probe {}", server.id, server.host),
            Self::ChangeServer { server, changed } => {
                write!(f, "server {}: take over {}", server.id, list(changed))
            }
            Self::ChangeShare { share, changed } => {
                write!(f, "share {}: take over {}", share.id, list(changed))
            }
            Self::AddShare { share, .. } => {
                write!(f, "share {}: mount {} on {}", share.id, share.source, share.mount_point.display())
            }
        }
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
