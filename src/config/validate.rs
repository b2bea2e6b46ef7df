//! Input and profiles become [`Settings`], or a list of all that is wrong.
//!
//! Each share is first completed on its own (a [`Draft`]); then the shares are compared: mount points with each other,
//! and the patience of all shares of one server, because a fence cuts off a whole server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::consumers::{refuse_disagreement, validate_consumers};
use super::fragment::{ProbeFragment, ServerFragment, ShareFragment};
use super::invalid::{Finding, InvalidKind, Problems, Warning};
use super::merge::Input;
use super::paths::{is_within, parse_host, parse_marker, parse_mount_point, parse_source};
use super::profile::{DEFAULT_PATIENCE, DEFAULT_PROFILE, Profile};
use super::settings::{
    CredentialSource, HoldFor, LeftoverHolders, OptionValue, ProbeSettings, ServerId, ServerSettings, Settings,
    ShareId, ShareSettings,
};
use super::source::{Origin, Place, Sourced, names_credentials};
use super::timeouts::{settle_patience, warn_about_hold};
use super::value::{BadValue, SizeRange, closest, is_name, list, quoted, show_duration, show_size};
use super::{Loaded, OptionOrigin};
use crate::plan::layers;

/// How long a share is held where nothing is said: longer than a NAS's restart with a file system check.
const DEFAULT_HOLD: Duration = Duration::from_secs(15 * 60);
const SECOND: Duration = Duration::from_secs(1);
/// Probes where nothing is said: a silent server is dead within 4 s.
const DEFAULT_PROBE: ProbeSettings =
    ProbeSettings { interval: SECOND, timeout: SECOND, timeout_max: SECOND, dead_after: 3, alive_after: 3 };
/// Faster probes load a small NAS, which forks a process for each; slower ones are no detection.
const INTERVAL_LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A healthy server answers NEGOTIATE within milliseconds; a probe of 30 s would outlast any patience of a person.
const TIMEOUT_LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// More requests through a share than one a second are load and no detection; fewer than one in ten minutes are none.
const PROBE_INTERVAL_LIMITS: (Duration, Duration) = (SECOND, Duration::from_secs(600));
/// What the kernel takes for `rasize`, which is the same thing by another name.
pub(super) const READ_AHEADS: SizeRange = SizeRange { least: 0, most: 32 << 20 };
/// Smaller limits stop every writer after each block; larger ones are no limit.
pub(super) const DIRTY_LIMITS: SizeRange = SizeRange { least: 128 << 10, most: 1 << 30 };
/// Up to here nothing was lost in any measurement: it fits into the kernel's send buffer. With 384 KiB, 2 MiB and 8 MiB it was.
const DIRTY_LIMIT_MEASURED: u64 = 160 << 10;

/// The result, with what `explain` and `check` want to point at.
pub(crate) struct Validated {
    settings: Settings,
    option_origins: BTreeMap<ShareId, BTreeMap<String, OptionOrigin>>,
    credentials_places: BTreeMap<ServerId, Place>,
    mount_point_places: BTreeMap<ShareId, Place>,
}

impl Validated {
    pub(crate) fn into_loaded(self, warnings: Vec<Warning>) -> Loaded {
        let Self { settings, option_origins, credentials_places, mount_point_places } = self;
        let user_places = BTreeMap::new(); // `load` has them
        Loaded { settings, warnings, option_origins, credentials_places, mount_point_places, user_places }
    }
}

/// A share that is complete but for what depends on other shares.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) settings: ShareSettings,
    pub(super) option_origins: BTreeMap<String, OptionOrigin>,
    pub(super) mount_point_origin: Origin,
    /// Asked for by the share or its profile, and by which key.
    pub(super) asked_patience: Duration,
    pub(super) patience_at: (Origin, String),
    /// Seconds, and where the share's own options set it.
    pub(super) echo_interval: Option<u64>,
    pub(super) own_echo_interval: Option<Origin>,
}

/// Checks everything and reports every problem; `None` if there is one.
pub(crate) fn validate(
    input: &Input,
    profiles: &BTreeMap<String, Profile>,
    problems: &mut Problems<'_>,
) -> Option<Validated> {
    let mut servers = BTreeMap::new();
    let mut credentials_places = BTreeMap::new();
    for (name, server) in &input.servers {
        let Some(settings) = validate_server(name, server, problems) else { continue };
        if let (CredentialSource::File(_), Some(credentials)) = (&settings.credentials, &server.credentials) {
            credentials_places.insert(settings.id.clone(), problems.files.place(credentials.origin));
        }
        servers.insert(settings.id.clone(), settings);
    }
    refuse_shared_mount_points(input, problems);
    refuse_disagreement(input, problems);
    let drafts: Vec<Draft> =
        input.shares.iter().filter_map(|(name, share)| draft(name, share, input, profiles, problems)).collect();
    let drafts = settle_patience(drafts, &mut servers, problems);
    if !problems.is_empty() {
        return None;
    }
    let option_origins = drafts.iter().map(|draft| (draft.settings.id.clone(), draft.option_origins.clone())).collect();
    let place = |draft: &Draft| (draft.settings.id.clone(), problems.files.place(draft.mount_point_origin));
    let mount_point_places = drafts.iter().map(place).collect();
    let shares = drafts.into_iter().map(|draft| (draft.settings.id.clone(), draft.settings)).collect();
    Some(Validated { settings: Settings { servers, shares }, option_origins, credentials_places, mount_point_places })
}

fn check_name(kind: &str, name: &str, at: Origin, problems: &mut Problems<'_>) {
    if is_name(name) {
        return;
    }
    let suggestion: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let help = match is_name(&suggestion) && !name.contains(['=', '%']) {
        true => format!("use letters, digits, `-` and `_`: [{kind}.{suggestion}]"),
        false => "use 1 to 64 letters, digits, `-` and `_`".to_owned(),
    };
    let message = format!("this cannot be the name of a {kind}");
    problems.refuse(InvalidKind::BadName, at, super::reader::join(kind, name), message, help);
}

fn validate_server(name: &str, server: &ServerFragment, problems: &mut Problems<'_>) -> Option<ServerSettings> {
    check_name("server", name, server.origin, problems);
    let path = super::reader::join("server", name);
    let host = required(&path, "host", &server.host, server.origin, &server.broken, "host = \"10.10.0.35\"", problems);
    let host = host.and_then(|host| checked(&path, "host", host, InvalidKind::BadValue, parse_host, problems));
    let credentials = match &server.credentials {
        None => Some(CredentialSource::Guest),
        Some(given) => credential_source(&path, given, problems),
    };
    let probe = validate_probe(&path, &server.probe, problems);
    let identity = server.identity.as_ref().map(|given| given.value).unwrap_or_default();
    let only_on = server.only_on.as_ref().map(|given| given.value.clone()).unwrap_or_default();
    let id = ServerId(name.to_owned());
    Some(ServerSettings { id, host: host?, credentials: credentials?, identity, only_on, probe })
}

fn credential_source(path: &str, given: &Sourced<String>, problems: &mut Problems<'_>) -> Option<CredentialSource> {
    if !names_credentials(&given.value) {
        // The value is not repeated: it may be the password itself.
        let text = given.value.as_str();
        let login = text.contains(['=', '%', ',']);
        let (message, help) = if text.starts_with("systemd:") {
            ("this is not the name of a systemd credential", "write letters, digits and _ - . only: \"systemd:NAME\"")
        } else if !login && (text.contains('/') || text.starts_with(['~', '.']) || text.contains(".cred")) {
            let help = "write the whole path, such as \"/etc/nasmount/NAME.cred\": nobody expands `~`, and there is no \
                        directory that it could start from";
            ("the path of a credentials file is absolute", help)
        } else {
            let help = "write the absolute path of a file, credentials = \"/etc/nasmount/NAME.cred\", or \"systemd:NAME\"; \
                        leave it out for guest access";
            ("this is neither the path of a credentials file nor the name of a systemd credential", help)
        };
        problems.refuse(InvalidKind::BadValue, given.origin, format!("{path}.credentials"), message, help);
        return None;
    }
    Some(match given.value.strip_prefix("systemd:") {
        Some(name) => CredentialSource::Systemd(name.to_owned()),
        None => CredentialSource::File(PathBuf::from(&given.value)),
    })
}

fn validate_probe(path: &str, probe: &ProbeFragment, problems: &mut Problems<'_>) -> ProbeSettings {
    let mut limited = |name: &str, given: &Option<Sourced<Duration>>, limits: (Duration, Duration), default| {
        let Some(given) = given else { return default };
        if given.value < limits.0 || given.value > limits.1 {
            let message = format!("{} is out of range", show_duration(given.value));
            let help = format!("use {} to {}", show_duration(limits.0), show_duration(limits.1));
            problems.refuse(InvalidKind::OutOfRange, given.origin, format!("{path}.probe.{name}"), message, help);
            return default;
        }
        given.value
    };
    let interval = limited("interval", &probe.interval, INTERVAL_LIMITS, DEFAULT_PROBE.interval);
    let timeout = limited("timeout", &probe.timeout, TIMEOUT_LIMITS, DEFAULT_PROBE.timeout);
    ProbeSettings {
        interval,
        timeout,
        timeout_max: timeout, // settled with the patience
        dead_after: probe.dead_after.as_ref().map_or(DEFAULT_PROBE.dead_after, |count| count.value),
        alive_after: probe.alive_after.as_ref().map_or(DEFAULT_PROBE.alive_after, |count| count.value),
    }
}

/// The value of a required key; reports its absence unless it is present and already reported.
fn required<'v, T>(
    path: &str,
    name: &'static str,
    given: &'v Option<Sourced<T>>,
    at: Origin,
    broken: &std::collections::BTreeSet<&'static str>,
    example: &str,
    problems: &mut Problems<'_>,
) -> Option<&'v Sourced<T>> {
    if given.is_none() && !broken.contains(name) {
        let key = format!("{path}.{name}");
        problems.refuse(InvalidKind::Missing, at, key, format!("`{name}` is missing"), format!("add {example}"));
    }
    given.as_ref()
}

pub(super) fn checked<T>(
    path: &str,
    name: &str,
    given: &Sourced<String>,
    kind: InvalidKind,
    parse: impl Fn(&str) -> Result<T, BadValue>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    match parse(&given.value) {
        Ok(value) => Some(value),
        Err(bad) => {
            problems.refuse(kind, given.origin, format!("{path}.{name}"), bad.message, bad.help);
            None
        }
    }
}

fn refuse_shared_mount_points(input: &Input, problems: &mut Problems<'_>) {
    let mut seen: Vec<(&str, String, Origin)> = Vec::new();
    for (name, share) in &input.shares {
        let Some(given) = &share.mount_point else { continue };
        let Ok(path) = parse_mount_point(&given.value) else { continue };
        let path = path.to_string_lossy().into_owned();
        for (other, other_path, other_origin) in &seen {
            let (message, help) = if *other_path == path {
                (format!("share {other} is mounted on {path} as well"), "give each share a mount point of its own")
            } else if is_within(&path, other_path) || is_within(other_path, &path) {
                (
                    format!("{path} and {other_path} of share {other} lie in each other"),
                    "put them side by side: while the outer share is away, the inner one could not be reached",
                )
            } else {
                continue;
            };
            problems.refuse_finding(Finding {
                kind: InvalidKind::Conflict,
                at: given.origin,
                key: format!("{}.mount_point", super::reader::join("share", name)),
                message,
                help: help.to_owned(),
                related: Some((*other_origin, format!("mount point of share {other}"))),
            });
        }
        seen.push((name, path, given.origin));
    }
}

fn draft(
    name: &str,
    share: &ShareFragment,
    input: &Input,
    profiles: &BTreeMap<String, Profile>,
    problems: &mut Problems<'_>,
) -> Option<Draft> {
    check_name("share", name, share.origin, problems);
    let path = super::reader::join("share", name);
    let (at, broken) = (share.origin, &share.broken);
    let server = required(&path, "server", &share.server, at, broken, "server = \"NAME\"", problems);
    let server = server.and_then(|server| known_server(&path, server, input, problems));
    let source = required(&path, "source", &share.source, at, broken, "source = \"SHARE\"", problems);
    let source = source.and_then(|given| checked(&path, "source", given, InvalidKind::BadPath, parse_source, problems));
    let example = format!("mount_point = \"/mnt/{}\"", if is_name(name) { name } else { "NAME" });
    let point = required(&path, "mount_point", &share.mount_point, at, broken, &example, problems);
    let mount_point_origin = point.map_or(at, |point| point.origin);
    let mount_point =
        point.and_then(|given| checked(&path, "mount_point", given, InvalidKind::BadPath, parse_mount_point, problems));
    let consumers = validate_consumers(&path, &share.consumers, problems);
    let marker = share.marker.as_ref();
    let marker = marker.and_then(|given| checked(&path, "marker", given, InvalidKind::BadPath, parse_marker, problems));
    let probe_interval = checked_probe_interval(&path, share.probe_interval.as_ref(), problems);
    let (profile_name, profile) = known_profile(&path, share, profiles, problems)?;
    let patience_at = match (&share.patience, &share.profile) {
        (Some(patience), _) => (patience.origin, format!("{path}.patience")),
        (None, Some(profile)) => (profile.origin, format!("{path}.profile")),
        (None, None) => (share.origin, path.clone()),
    };
    let patience = share.patience.as_ref().or(profile.patience.as_ref()).map_or(DEFAULT_PATIENCE, |given| given.value);
    let hold_for = share.hold_for.as_ref().map_or(HoldFor::For(DEFAULT_HOLD), |given| given.value);
    warn_about_hold(&path, share, hold_for, problems);
    let dirty_limit = share.dirty_limit.as_ref().or(profile.dirty_limit.as_ref());
    let dirty_limit = dirty_limit.and_then(|given| checked_dirty_limit(&path, given, problems));
    let read_ahead = share.read_ahead.as_ref().or(profile.read_ahead.as_ref());
    let read_ahead = read_ahead.and_then(|given| checked_read_ahead(&path, given, problems));
    let (options, option_origins) = effective_options(share, profile, problems);
    let echo_interval = echo_interval(&options);
    let own_echo_interval = share.options.get("echo_interval").filter(|entry| entry.value.is_some());
    Some(Draft {
        name: name.to_owned(),
        settings: ShareSettings {
            id: ShareId(name.to_owned()),
            server: ServerId(server?),
            source: source?,
            mount_point: mount_point?,
            profile: profile_name,
            options,
            patience: layers::bounded_patience(patience, hold_for),
            hold_for,
            probe_interval,
            on_access: share.on_access.as_ref().map(|given| given.value).unwrap_or_default(),
            on_sleep: share.on_sleep.as_ref().map(|given| given.value).unwrap_or_default(),
            marker,
            leftover_holders: leftover_holders(share),
            stale_copies: share.stale_copies.as_ref().map(|given| given.value).unwrap_or_default(),
            dirty_limit,
            read_ahead,
            consumers,
        },
        option_origins,
        mount_point_origin,
        asked_patience: patience,
        patience_at,
        echo_interval,
        own_echo_interval: own_echo_interval.map(|entry| entry.name_origin),
    })
}

fn echo_interval(options: &BTreeMap<String, OptionValue>) -> Option<u64> {
    match options.get("echo_interval")? {
        OptionValue::Value(seconds) => seconds.parse().ok(),
        OptionValue::Flag => None,
    }
}

fn known_server(path: &str, given: &Sourced<String>, input: &Input, problems: &mut Problems<'_>) -> Option<String> {
    if input.servers.contains_key(&given.value) {
        return Some(given.value.clone());
    }
    let names = || input.servers.keys().map(String::as_str).filter(|name| is_name(name));
    let has_host = |server: &ServerFragment| server.host.as_ref().is_some_and(|host| host.value == given.value);
    let by_host = input.servers.iter().find(|(name, server)| is_name(name) && has_host(server));
    let help = match (by_host, closest(&given.value, names())) {
        (Some((name, _)), _) => format!("write the name of its table: server = \"{name}\""),
        (None, Some(meant)) => format!("did you mean \"{meant}\"?"),
        (None, None) if input.servers.is_empty() => format!("add a table [server.{}]", shown_name(&given.value)),
        (None, None) => format!("known servers: {}", names().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("there is no server {}", quoted(&given.value));
    problems.refuse(InvalidKind::UnknownReference, given.origin, format!("{path}.server"), message, help);
    None
}

pub(super) fn shown_name(name: &str) -> &str {
    if is_name(name) { name } else { "NAME" }
}

fn known_profile<'p>(
    path: &str,
    share: &ShareFragment,
    profiles: &'p BTreeMap<String, Profile>,
    problems: &mut Problems<'_>,
) -> Option<(String, &'p Profile)> {
    let name = share.profile.as_ref().map_or(DEFAULT_PROFILE, |given| given.value.as_str());
    if let Some(profile) = profiles.get(name) {
        return Some((name.to_owned(), profile));
    }
    let at = share.profile.as_ref().map_or(share.origin, |given| given.origin);
    let known = list(profiles.keys().map(String::as_str));
    let help = match closest(name, profiles.keys().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"? The known profiles are {known}"),
        None => format!("the known profiles are {known}"),
    };
    let message = format!("there is no profile {}", quoted(name));
    problems.refuse(InvalidKind::UnknownReference, at, format!("{path}.profile"), message, help);
    None
}

fn leftover_holders(share: &ShareFragment) -> LeftoverHolders {
    match &share.kill_holders {
        Some(kill) if kill.value => LeftoverHolders::Kill,
        Some(_) | None => LeftoverHolders::Leave,
    }
}

fn checked_probe_interval(path: &str, given: Option<&Sourced<Duration>>, problems: &mut Problems<'_>) -> Duration {
    let Some(given) = given else { return layers::SHARE_PROBE_INTERVAL };
    let (least, most) = PROBE_INTERVAL_LIMITS;
    if given.value < least || given.value > most {
        let message = format!("{} is out of range", show_duration(given.value));
        let help = format!("use {} to {}", show_duration(least), show_duration(most));
        problems.refuse(InvalidKind::OutOfRange, given.origin, format!("{path}.probe_interval"), message, help);
    }
    given.value
}

fn checked_read_ahead(path: &str, given: &Sourced<Option<u64>>, problems: &mut Problems<'_>) -> Option<u64> {
    let bytes = given.value?;
    if bytes > READ_AHEADS.most {
        let message = format!("{} is out of range", show_size(bytes));
        let help = format!("use at most {}, or \"none\" to leave it to the kernel", show_size(READ_AHEADS.most));
        problems.refuse(InvalidKind::OutOfRange, given.origin, format!("{path}.read_ahead"), message, help);
    }
    Some(bytes)
}

fn checked_dirty_limit(path: &str, given: &Sourced<Option<u64>>, problems: &mut Problems<'_>) -> Option<u64> {
    let bytes = given.value?;
    let key = format!("{path}.dirty_limit");
    if bytes > 0 && !(DIRTY_LIMITS.least..=DIRTY_LIMITS.most).contains(&bytes) {
        let message = format!("{} is out of range", show_size(bytes));
        let (least, most) = (show_size(DIRTY_LIMITS.least), show_size(DIRTY_LIMITS.most));
        let help = format!("use {least} to {most}, or \"0KiB\": each write waits until the server has it");
        problems.refuse(InvalidKind::OutOfRange, given.origin, key, message, help);
        return None;
    }
    if bytes > DIRTY_LIMIT_MEASURED {
        let message = format!("{} of unwritten data may not survive an outage of more than 15s", show_size(bytes));
        let help = "use \"0KiB\", or \"160KiB\", which fits into the kernel's send buffer: with 384KiB it gave up by itself and lost blocks";
        problems.warn(given.origin, key, message, help);
    }
    Some(bytes)
}

fn effective_options(
    share: &ShareFragment,
    profile: &Profile,
    problems: &Problems<'_>,
) -> (BTreeMap<String, OptionValue>, BTreeMap<String, OptionOrigin>) {
    let mut merged = profile.options.clone();
    super::options::lay_over(&mut merged, share.options.clone());
    let mut options = BTreeMap::new();
    let mut origins = BTreeMap::new();
    for (name, entry) in merged {
        let Some(value) = entry.value else { continue };
        let place = problems.files.place(entry.name_origin);
        let own = share.options.contains_key(&name);
        origins.insert(name.clone(), if own { OptionOrigin::Share(place) } else { OptionOrigin::Profile(place) });
        options.insert(name, value);
    }
    (options, origins)
}
