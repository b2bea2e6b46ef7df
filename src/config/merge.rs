//! All files laid over each other: the later file wins, key by key.
//!
//! - `[server.NAME]`, `[share.NAME]`, `[server.NAME.probe]` and `options` are joined key by key, so that a drop-in can
//!   change one value and leave the rest.
//! - Consumers are known by their unit: a later file adds consumers, or changes keys of one that is there already. A
//!   drop-in cannot take one away; `on_outage = "none"` and `after_hold = "none"` make it harmless.
//! - Each value keeps the file and the place it came from: a message points at the line that counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::consumers::{REPEATED, refuse_repeated};
use super::fragment::{ConsumerFragment, Fragment, ProbeFragment, ServerFragment, ShareFragment};
use super::invalid::Problems;

/// What all files together say; nothing is validated yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) servers: BTreeMap<String, ServerFragment>,
    pub(crate) shares: BTreeMap<String, ShareFragment>,
}

/// Lays the fragments over each other, in the order given.
pub(crate) fn merge(fragments: Vec<Fragment>, problems: &mut Problems<'_>) -> Input {
    let mut input = Input::default();
    for fragment in fragments {
        for (name, share) in &fragment.shares {
            refuse_repeated_units(name, share, problems);
        }
        for (name, server) in fragment.servers {
            match input.servers.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(server)),
                Entry::Occupied(mut entry) => entry.get_mut().lay_over(server),
            }
        }
        for (name, share) in fragment.shares {
            match input.shares.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(share)),
                Entry::Occupied(mut entry) => entry.get_mut().lay_over(share),
            }
        }
    }
    input
}

/// Within one file the second consumer with the same unit is a mistake; in a later file it is a change.
fn refuse_repeated_units(name: &str, share: &ShareFragment, problems: &mut Problems<'_>) {
    for (index, consumer) in share.consumers.iter().enumerate() {
        let Some(first) = share.consumers[..index].iter().find(|first| first.unit.value == consumer.unit.value) else {
            continue;
        };
        let key = format!("share.{name}.consumer[{}]", consumer.index);
        refuse_repeated(key, consumer, first, REPEATED, problems);
    }
}

/// The later value if there is one.
fn replace<T>(current: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *current = later;
    }
}

impl ServerFragment {
    fn lay_over(&mut self, later: Self) {
        let Self { origin: _, broken, host, credentials, identity, only_on, probe } = later;
        self.broken.extend(broken);
        replace(&mut self.host, host);
        replace(&mut self.credentials, credentials);
        replace(&mut self.identity, identity);
        replace(&mut self.only_on, only_on);
        self.probe.lay_over(probe);
    }
}

impl ProbeFragment {
    fn lay_over(&mut self, later: Self) {
        let Self { interval, timeout, dead_after, alive_after } = later;
        replace(&mut self.interval, interval);
        replace(&mut self.timeout, timeout);
        replace(&mut self.dead_after, dead_after);
        replace(&mut self.alive_after, alive_after);
    }
}

impl ShareFragment {
    fn lay_over(&mut self, later: Self) {
        let Self {
            origin: _,
            broken,
            server,
            source,
            mount_point,
            profile,
            options,
            patience,
            hold_for,
            probe_interval,
            on_access,
            on_sleep,
            marker,
            kill_holders,
            stale_copies,
            dirty_limit,
            read_ahead,
            consumers,
        } = later;
        self.broken.extend(broken);
        replace(&mut self.server, server);
        replace(&mut self.source, source);
        replace(&mut self.mount_point, mount_point);
        replace(&mut self.profile, profile);
        super::options::lay_over(&mut self.options, options);
        replace(&mut self.patience, patience);
        replace(&mut self.hold_for, hold_for);
        replace(&mut self.probe_interval, probe_interval);
        replace(&mut self.on_access, on_access);
        replace(&mut self.on_sleep, on_sleep);
        replace(&mut self.marker, marker);
        replace(&mut self.kill_holders, kill_holders);
        replace(&mut self.stale_copies, stale_copies);
        replace(&mut self.dirty_limit, dirty_limit);
        replace(&mut self.read_ahead, read_ahead);
        for consumer in consumers {
            match self.consumers.iter_mut().find(|current| current.unit.value == consumer.unit.value) {
                Some(current) => current.lay_over(consumer),
                None => self.consumers.push(consumer),
            }
        }
    }
}

impl ConsumerFragment {
    fn lay_over(&mut self, later: Self) {
        let Self { index: _, unit: _, key: _, user: _, on_outage, after_hold, order, time_limit, limits } = later;
        replace(&mut self.on_outage, on_outage);
        replace(&mut self.after_hold, after_hold);
        replace(&mut self.order, order);
        replace(&mut self.time_limit, time_limit);
        self.limits.extend(limits);
    }
}
