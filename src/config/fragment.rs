//! One file as it was typed: every value optional, none of them compared with another one.
//!
//! Keys that nasmount does not know, values of the wrong type and forms that cannot be read (`"15 parsecs"`) are found
//! here. What only shows when all files and the profiles are known is found in `validate`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::de::DeTable;

use super::consumer::{Consumer, ENGINES, parse_user};
use super::invalid::{InvalidKind, Problems};
use super::limits::{Limit, read_limits};
use super::network::{HomeNetwork, parse_network};
use super::options::{OptionEntry, read_options};
use super::reader::{Fields, NoneWord, join, parse};
use super::settings::{AfterHold, HoldFor, IdentityPolicy, OnAccess, OnOutage, OnSleep, StaleCopies};
use super::source::{Origin, Sourced};
use super::validate::{DIRTY_LIMITS, READ_AHEADS};
use super::value::{parse_on_access, quoted};

pub(super) const SERVER_KEYS: &[&str] = &["host", "credentials", "identity", "only_on", "probe"];
pub(super) const PROBE_KEYS: &[&str] = &["interval", "timeout", "dead_after", "alive_after"];
pub(super) const SHARE_KEYS: &[&str] = &[
    "server",
    "source",
    "mount_point",
    "profile",
    "options",
    "patience",
    "hold_for",
    "probe_interval",
    "on_access",
    "on_sleep",
    "marker",
    "kill_holders",
    "stale_copies",
    "dirty_limit",
    "read_ahead",
    "consumer",
];
pub(super) const CONSUMER_KEYS: &[&str] = &[
    "unit",
    "container",
    "label",
    "compose",
    "engine",
    "user",
    "on_outage",
    "after_hold",
    "order",
    "time_limit",
    "memory_high",
    "memory_max",
    "cpu_weight",
    "io_weight",
];

/// Highest `dead_after` and `alive_after`: more probes than this are no detection any more.
const PROBE_COUNT_MAX: i64 = 100;

/// Everything one file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) servers: BTreeMap<String, ServerFragment>,
    pub(crate) shares: BTreeMap<String, ShareFragment>,
}

/// `[server.NAME]` in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFragment {
    /// Where the name is.
    pub(crate) origin: Origin,
    /// Keys that are present but could not be read.
    pub(crate) broken: BTreeSet<&'static str>,
    pub(crate) host: Option<Sourced<String>>,
    pub(crate) credentials: Option<Sourced<String>>,
    pub(crate) identity: Option<Sourced<IdentityPolicy>>,
    pub(crate) only_on: Option<Sourced<Vec<HomeNetwork>>>,
    pub(crate) probe: ProbeFragment,
}

/// `[server.NAME.probe]` in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeFragment {
    pub(crate) interval: Option<Sourced<Duration>>,
    pub(crate) timeout: Option<Sourced<Duration>>,
    pub(crate) dead_after: Option<Sourced<u32>>,
    pub(crate) alive_after: Option<Sourced<u32>>,
}

/// `[share.NAME]` in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareFragment {
    /// Where the name is.
    pub(crate) origin: Origin,
    /// Keys that are present but could not be read.
    pub(crate) broken: BTreeSet<&'static str>,
    pub(crate) server: Option<Sourced<String>>,
    pub(crate) source: Option<Sourced<String>>,
    pub(crate) mount_point: Option<Sourced<String>>,
    pub(crate) profile: Option<Sourced<String>>,
    pub(crate) options: BTreeMap<String, OptionEntry>,
    pub(crate) patience: Option<Sourced<Duration>>,
    pub(crate) hold_for: Option<Sourced<HoldFor>>,
    pub(crate) probe_interval: Option<Sourced<Duration>>,
    pub(crate) on_access: Option<Sourced<OnAccess>>,
    pub(crate) on_sleep: Option<Sourced<OnSleep>>,
    pub(crate) marker: Option<Sourced<String>>,
    pub(crate) kill_holders: Option<Sourced<bool>>,
    pub(crate) stale_copies: Option<Sourced<StaleCopies>>,
    pub(crate) dirty_limit: Option<Sourced<Option<u64>>>,
    pub(crate) read_ahead: Option<Sourced<Option<u64>>>,
    pub(crate) consumers: Vec<ConsumerFragment>,
}

/// One `[[share.NAME.consumer]]` in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerFragment {
    /// Its place among those of the share in its file, from 0.
    pub(crate) index: usize,
    /// Its name (`config::consumer`).
    pub(crate) unit: Sourced<String>,
    /// The key that it stands behind.
    pub(crate) key: &'static str,
    /// Where the user is written, of a unit of one.
    pub(crate) user: Option<Origin>,
    pub(crate) on_outage: Option<Sourced<OnOutage>>,
    pub(crate) after_hold: Option<Sourced<AfterHold>>,
    pub(crate) order: Option<Sourced<i32>>,
    pub(crate) time_limit: Option<Sourced<Duration>>,
    pub(crate) limits: BTreeMap<Limit, Sourced<u64>>,
}

impl From<Duration> for HoldFor {
    fn from(duration: Duration) -> Self {
        Self::For(duration)
    }
}

/// Reads one file. `None` if it is not TOML at all.
pub(crate) fn read_fragment(file: usize, problems: &mut Problems<'_>) -> Option<Fragment> {
    let text = problems.files.text(file);
    let document = parse(&text.text, file, problems)?;
    let mut top = Fields::new(document.get_ref(), String::new(), file, &["server", "share"], problems);
    let mut fragment = Fragment::default();
    if let Some((_, servers)) = top.table("server", "[server.NAME]", problems) {
        for (name, fields) in named_tables(servers, "server", file, SERVER_KEYS, problems) {
            fragment.servers.insert(name.value, read_server(name.origin, fields, problems));
        }
    }
    if let Some((_, shares)) = top.table("share", "[share.NAME]", problems) {
        for (name, fields) in named_tables(shares, "share", file, SHARE_KEYS, problems) {
            fragment.shares.insert(name.value, read_share(name.origin, fields, problems));
        }
    }
    Some(fragment)
}

/// The tables of `[KIND.NAME]`; what is not a table is reported.
fn named_tables<'t>(
    table: &'t DeTable<'t>,
    kind: &str,
    file: usize,
    known: &[&str],
    problems: &mut Problems<'_>,
) -> Vec<(Sourced<String>, Fields<'t>)> {
    let mut found = Vec::new();
    for (key, value) in table {
        let path = join(kind, key.get_ref());
        let origin = Origin::new(file, key.span());
        match value.get_ref().as_table() {
            Some(table) => {
                let name = Sourced { value: key.get_ref().to_string(), origin };
                found.push((name, Fields::new(table, path, file, known, problems)));
            }
            None => problems.refuse(
                InvalidKind::WrongType,
                origin,
                path,
                super::reader::type_message("a table", value.get_ref()),
                format!("every {kind} has a name and a table of its own: [{kind}.NAME]"),
            ),
        }
    }
    found
}

fn read_server(origin: Origin, mut fields: Fields<'_>, problems: &mut Problems<'_>) -> ServerFragment {
    let host = fields.string("host", problems);
    let credentials = fields.string("credentials", problems);
    let identity =
        fields.word("identity", &[("pinned", IdentityPolicy::Pinned), ("any", IdentityPolicy::Any)], problems);
    let only_on = fields.parsed_list("only_on", "[\"192.168.1.0/24\", \"eth0\"]", parse_network, problems);
    let path = fields.key("probe");
    let probe = match fields.table("probe", "[server.NAME.probe]", problems) {
        Some((_, table)) => read_probe(Fields::new(table, path, fields.file(), PROBE_KEYS, problems), problems),
        None => ProbeFragment::default(),
    };
    ServerFragment { origin, host, credentials, identity, only_on, probe, broken: fields.into_broken() }
}

fn read_probe(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> ProbeFragment {
    let interval = fields.duration("interval", problems);
    let timeout = fields.duration("timeout", problems);
    let count = |value: Sourced<i64>| Sourced { value: u32::try_from(value.value).unwrap_or(1), origin: value.origin };
    let dead_after = fields.integer("dead_after", 1..=PROBE_COUNT_MAX, problems).map(count);
    let alive_after = fields.integer("alive_after", 1..=PROBE_COUNT_MAX, problems).map(count);
    ProbeFragment { interval, timeout, dead_after, alive_after }
}

fn read_share(origin: Origin, mut fields: Fields<'_>, problems: &mut Problems<'_>) -> ShareFragment {
    ShareFragment {
        origin,
        server: fields.string("server", problems),
        source: fields.string("source", problems),
        mount_point: fields.string("mount_point", problems),
        profile: fields.string("profile", problems),
        options: read_options(&mut fields, problems),
        patience: fields.duration("patience", problems),
        hold_for: fields.duration_or("hold_for", Some(("forever", HoldFor::Forever)), problems),
        probe_interval: fields.duration("probe_interval", problems),
        on_access: fields.parsed("on_access", parse_on_access, problems),
        on_sleep: fields.word("on_sleep", &[("hold", OnSleep::Hold), ("none", OnSleep::None)], problems),
        marker: fields.string("marker", problems),
        kill_holders: fields.boolean("kill_holders", problems),
        stale_copies: fields.word(
            "stale_copies",
            &[("report", StaleCopies::Report), ("restart", StaleCopies::Restart)],
            problems,
        ),
        dirty_limit: fields.size("dirty_limit", NoneWord::Allowed, DIRTY_LIMITS, problems),
        read_ahead: fields.size("read_ahead", NoneWord::Allowed, READ_AHEADS, problems),
        consumers: read_consumers(&mut fields, problems),
        broken: fields.into_broken(),
    }
}

fn read_consumers(share: &mut Fields<'_>, problems: &mut Problems<'_>) -> Vec<ConsumerFragment> {
    let Some((origin, value)) = share.raw("consumer") else { return Vec::new() };
    let help = "write one [[share.NAME.consumer]] table for each, with unit = \"NAME.service\" in it";
    let Some(array) = value.as_array() else {
        share.wrong_type("consumer", origin, "a list of tables", value, help.to_owned(), problems);
        return Vec::new();
    };
    let mut consumers = Vec::new();
    for (index, element) in array.iter().enumerate() {
        let path = format!("{}[{index}]", share.key("consumer"));
        let at = Origin::new(share.file(), element.span());
        match element.get_ref().as_table() {
            Some(table) => {
                let fields = Fields::new(table, path, share.file(), CONSUMER_KEYS, problems);
                consumers.extend(read_consumer(index, at, fields, problems));
            }
            None => {
                let message = super::reader::type_message("a table", element.get_ref());
                problems.refuse(InvalidKind::WrongType, at, path, message, help);
            }
        }
    }
    consumers
}

/// `None` if it does not say what it is about.
fn read_consumer(
    index: usize,
    at: Origin,
    mut fields: Fields<'_>,
    problems: &mut Problems<'_>,
) -> Option<ConsumerFragment> {
    let named = read_name(at, &mut fields, problems);
    let on_outage = fields.word(
        "on_outage",
        &[("pause", OnOutage::Pause), ("stop", OnOutage::Stop), ("none", OnOutage::None)],
        problems,
    );
    let after_hold = fields.word(
        "after_hold",
        &[("stop", AfterHold::Stop), ("kill", AfterHold::Kill), ("none", AfterHold::None)],
        problems,
    );
    let order = fields.integer("order", -1000..=1000, problems);
    let order = order.map(|order| Sourced { value: i32::try_from(order.value).unwrap_or(0), origin: order.origin });
    let time_limit = fields.duration("time_limit", problems);
    let limits = read_limits(&mut fields, problems);
    let Named { key, unit, user } = named?;
    Some(ConsumerFragment { index, unit, key, user, on_outage, after_hold, order, time_limit, limits })
}

/// How a consumer is named.
struct Named {
    key: &'static str,
    unit: Sourced<String>,
    user: Option<Origin>,
}

/// A consumer is named by one key.
fn read_name(at: Origin, fields: &mut Fields<'_>, problems: &mut Problems<'_>) -> Option<Named> {
    const KEYS: [&str; 4] = ["unit", "container", "label", "compose"];
    let mut given = KEYS.into_iter().filter_map(|key| Some((key, fields.string(key, problems)?))).collect::<Vec<_>>();
    let engine = fields.word("engine", &ENGINES.map(|engine| (engine, engine)), problems);
    let user = fields.string("user", problems);
    if let [(first, _), (second, value), ..] = given.as_slice() {
        let message = format!("a consumer is named by {first} or {second}, not by both");
        let help = "remove one of the two; what runs in a unit of its own is paused with its unit";
        problems.refuse(InvalidKind::Conflict, value.origin, fields.key(second), message, help);
    }
    if given.is_empty() {
        if !KEYS.iter().any(|key| fields.is_broken(key)) {
            let help =
                "add unit = \"NAME.service\", container = \"NAME\", label = \"KEY=VALUE\" or compose = \"PROJECT\"";
            let message = "a consumer without a unit or a container";
            problems.refuse(InvalidKind::Missing, at, fields.key("unit"), message, help);
        }
        return None;
    }
    let (key, Sourced { value, origin }) = given.swap_remove(0);
    if let Some(engine) = engine.as_ref().filter(|_| key != "container") {
        let message = format!("an engine is chosen for a container by its name, not for a {key}");
        problems.refuse(InvalidKind::NotAllowed, engine.origin, fields.key("engine"), message, "remove it");
    }
    if let Some(user) = user.as_ref().filter(|_| key != "unit") {
        let message = format!("a user is named beside a unit of theirs, not beside a {key}");
        problems.refuse(InvalidKind::NotAllowed, user.origin, fields.key("user"), message, "remove it");
    } else if let Some(user) = &user
        && let Err(bad) = parse_user(&user.value)
    {
        problems.refuse(InvalidKind::BadName, user.origin, fields.key("user"), bad.message, bad.help);
        return None; // a name with it would be read as something else
    }
    let consumer = match key {
        "unit" if let Some(user) = &user => Consumer::UserUnit { user: &user.value, unit: &value },
        "container" => Consumer::Container { engine: engine.map(|engine| engine.value), name: &value },
        "label" => Consumer::Label(&value),
        "compose" => Consumer::Compose(&value),
        _ => Consumer::Unit(&value),
    };
    if key == "unit" && !matches!(Consumer::of(&value), Consumer::Unit(_)) {
        let message = format!("{} is not the name of a unit", quoted(&value));
        let help = format!("write {}", Consumer::of(&value).keys());
        problems.refuse(InvalidKind::BadName, origin, fields.key("unit"), message, help);
    }
    let unit = Sourced { value: consumer.name(), origin };
    Some(Named { key, unit, user: user.map(|user| user.origin) })
}
