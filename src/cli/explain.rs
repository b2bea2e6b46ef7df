//! `nasmount explain SHARE`: every option in force, where it comes from, what it bounds, what the kernel has made of it, and how long a
//! dead server can hold anything up. Reads configuration and mount table; asks neither daemon nor server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::check::{MissingAccount, missing_accounts};
use super::configured;
use super::report::{Exit, print};
use super::table::Rows;
use crate::config::settings::{HoldFor, OnAccess, OptionValue, ShareSettings};
use crate::config::{Loaded, OptionOrigin};
use crate::plan::bounds::{KERNEL_DEFAULTS, bounds};
use crate::plan::catalogue::Account;
use crate::plan::doctor::Version;
use crate::plan::hazards::{Warned, warnings};
use crate::plan::layers::{KERNEL_ECHO_FACTOR, KERNEL_WAITS_FOR_RECONNECT, Layers};
use crate::plan::options::{Adjustment, DirtyData, DirtyLimitSupport, KernelOptions, MountPlan, mount_options};
use crate::sys::{accounts, kernel, mountinfo};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// `explain SHARE`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Share, or its mount point
    share: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What is said of a share.
#[derive(Debug, PartialEq, Serialize)]
pub struct Explanation {
    schema: u32,
    share: String,
    source: String,
    mount_point: String,
    profile: String,
    /// The networks on which its server is asked; empty: on all.
    only_on: Vec<String>,
    options: Vec<Explained>,
    /// Unwritten data that an outage may find.
    unwritten: String,
    /// Where the mount is not what was configured.
    adjusted: Vec<String>,
    /// Options that may hurt, that this kernel does not know, that are others in force, or that name nobody on this host.
    warnings: Vec<Warned>,
    times: Times,
}

/// One option.
#[derive(Debug, PartialEq, Serialize)]
struct Explained {
    name: String,
    value: Option<String>,
    from: String,
    /// What the kernel shows of the mount; `null` if it is not mounted, or the kernel does not show it.
    in_force: Option<String>,
    /// What it bounds, or does; `null` if its name says it.
    bounds: Option<&'static str>,
}

/// Seconds: those of the verdict and of the kernel from the server's silence, the others from the first probe that fails.
#[derive(Debug, PartialEq, Serialize)]
struct Times {
    /// The server is dead at the latest, in all from its silence.
    detection: f64,
    /// Nothing in flight fails before.
    patience: f64,
    /// Everything in flight has ended.
    given_up: f64,
    /// An access to the path waits for the share; `null` not at all.
    access_waits: Option<f64>,
    /// Consumers are stopped and the share is given up; `null` never.
    hold: Option<f64>,
    /// Without nasmount the kernel gives up between these.
    kernel: [f64; 2],
    /// The longest that a call can wait which begins when the server falls silent; `null` for ever.
    worst_stall: Option<f64>,
    /// The same without nasmount; longer still if the server takes connections and does not answer on them.
    worst_stall_alone: Option<f64>,
}

/// Prints it.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = match configured::loaded(config) {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let share = match configured::share(loaded.settings.shares.values(), &arguments.share) {
        Ok(share) => share,
        Err(exit) => return Ok(exit),
    };
    let version = kernel::version();
    let options = match (kernel::mount_params(), version) {
        (Some(text), _) => KernelOptions::parse(&text),
        (None, Some(version)) => KernelOptions::of_version(version),
        (None, None) => KernelOptions::unknown(),
    };
    let limits =
        if kernel::can_limit_unwritten_data() { DirtyLimitSupport::Supported } else { DirtyLimitSupport::Unsupported };
    let mounted = mountinfo::cifs_on(&share.mount_point).context("cannot read the mount table")?;
    let mounted = mounted.map(|mount| mount.options);
    let is_missing = accounts::is_missing;
    let host = Host { options: &options, version, limits, mounted: mounted.as_deref(), is_missing };
    let explanation = explain(&loaded, share, &host)?;
    let text = if arguments.json { serde_json::to_string_pretty(&explanation)? + "\n" } else { render(&explanation) };
    Ok(print(Exit::Done, &text))
}

/// What the options meet.
struct Host<'a> {
    /// Those that the kernel knows.
    options: &'a KernelOptions,
    version: Option<Version>,
    limits: DirtyLimitSupport,
    /// What it shows of the mount.
    mounted: Option<&'a str>,
    /// Whether the host has no such user or group.
    is_missing: fn(Account, &str) -> bool,
}

fn explain(loaded: &Loaded, share: &ShareSettings, host: &Host<'_>) -> anyhow::Result<Explanation> {
    let server = loaded.settings.servers.get(&share.server).context("a share without a server")?;
    // a name's address is the daemon's to find out
    let address = server.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let MountPlan { adjustments, options: planned, dirty_data, .. } =
        mount_options(share, address, host.options, host.limits);
    let shown: BTreeMap<&str, Option<&str>> =
        host.mounted.into_iter().flat_map(|options| options.split(',')).map(split).collect();
    let origins = loaded.option_origins.get(&share.id);
    let explained = |name: &str, value: Option<&str>| Explained {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        from: origins.and_then(|origins| origins.get(name)).map_or_else(|| "nasmount".to_owned(), from),
        in_force: shown.get(name).map(|value| value.unwrap_or("yes").to_owned()),
        bounds: bounds(name),
    };
    let own = planned.iter().filter(|option| !share.options.contains_key(&option.key) && option.key != "ip");
    let own = own.map(|option| explained(&option.key, option.value.as_deref()));
    let options = share.options.iter().map(|(name, value)| match value {
        OptionValue::Flag => explained(name, None),
        OptionValue::Value(value) => explained(name, Some(value)),
    });
    let unsaid = KERNEL_DEFAULTS
        .iter()
        .filter(|(name, _, opposite)| !share.options.contains_key(*name) && !share.options.contains_key(*opposite));
    let unsaid =
        unsaid.map(|(name, value, _)| Explained { from: "kernel default".to_owned(), ..explained(name, *value) });
    let echo_interval = match share.options.get("echo_interval") {
        Some(OptionValue::Value(seconds)) => seconds.parse().context("echo_interval")?,
        Some(OptionValue::Flag) | None => bail!("a share without echo_interval"),
    };
    let mut warnings = warnings(share, host.options, host.version, |name| shown.get(name).copied().flatten());
    warnings.extend(missing_accounts(share, host.is_missing).map(nobody));
    let layers = Layers::new(&server.probe, share.patience, share.probe_interval, echo_interval, share.hold_for)?;
    let ends = !share.options.contains_key("hard");
    Ok(Explanation {
        schema: SCHEMA,
        share: share.id.to_string(),
        source: format!("//{}/{}", server.host, share.source),
        mount_point: share.mount_point.to_string_lossy().into_owned(),
        profile: share.profile.clone(),
        only_on: server.only_on.iter().map(ToString::to_string).collect(),
        options: options.chain(own).chain(unsaid).collect(),
        unwritten: unwritten(dirty_data),
        adjusted: adjustments.iter().map(adjusted).collect(),
        warnings,
        times: Times {
            worst_stall: ends
                .then(|| (server.probe.interval + server.probe.timeout_max + layers.given_up).as_secs_f64()),
            worst_stall_alone: ends.then(|| (layers.kernel_latest + KERNEL_WAITS_FOR_RECONNECT).as_secs_f64()),
            detection: layers.detection.as_secs_f64(),
            patience: share.patience.as_secs_f64(),
            given_up: layers.given_up.as_secs_f64(),
            access_waits: match share.on_access {
                OnAccess::Fail => None,
                OnAccess::Wait(wait) => Some(wait.as_secs_f64()),
            },
            hold: match layers.hold {
                HoldFor::For(hold) => Some(hold.as_secs_f64()),
                HoldFor::Forever => None,
            },
            kernel: [layers.kernel_earliest.as_secs_f64(), layers.kernel_latest.as_secs_f64()],
        },
    })
}

/// In a sentence.
fn unwritten(dirty_data: DirtyData) -> String {
    let of_mapped = |limit: Option<u64>| match limit {
        Some(bytes) => format!("up to {} KiB of mapped memory", bytes >> 10),
        None => "mapped memory".to_owned(),
    };
    match dirty_data {
        DirtyData::WrittenThrough(limit) => {
            format!(
                "Each write waits until the server has it: an outage finds nothing unwritten but {}.",
                of_mapped(limit)
            )
        }
        DirtyData::Limited(bytes) => format!("An outage finds {} KiB unwritten at the most.", bytes >> 10),
        DirtyData::Unlimited => {
            "What an outage finds unwritten has no limit: one of more than 15 s can lose it.".to_owned()
        }
    }
}

fn nobody(MissingAccount { option, name, message, help }: MissingAccount<'_>) -> Warned {
    Warned { option: format!("{option}={name}"), why: message, instead: help }
}

fn split(option: &str) -> (&str, Option<&str>) {
    option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)))
}

fn from(origin: &OptionOrigin) -> String {
    match origin {
        OptionOrigin::Profile(place) | OptionOrigin::Share(place) => format!("{}:{}", place.file.display(), place.line),
        OptionOrigin::Layers { profile: Some(seconds) } => format!("the patience; the profile has {seconds}"),
        OptionOrigin::Layers { profile: None } => "the patience".to_owned(),
    }
}

fn adjusted(adjustment: &Adjustment) -> String {
    match adjustment {
        Adjustment::Dropped { option, reason } => format!("{option} is left out: {reason}"),
        Adjustment::Replaced { configured: Some(configured), used, reason } => {
            format!("{used} instead of {configured}: {reason}")
        }
        Adjustment::Replaced { configured: None, used, reason } => format!("{used}: {reason}"),
    }
}

/// For people: tenths are more than anybody reads.
fn shown(seconds: f64) -> String {
    format!("{}", (seconds * 10.0).round() / 10.0)
}

fn render(explanation: &Explanation) -> String {
    let Explanation { share, source, mount_point, profile, options, adjusted, warnings, times, .. } = explanation;
    let mut text = format!("{share}: {source} on {mount_point}, profile {profile}\n");
    if !explanation.only_on.is_empty() {
        let networks = explanation.only_on.join(", ");
        let _ = writeln!(
            text,
            "Its server is asked only while this host is on {networks}: elsewhere nothing is sent to it."
        );
    }
    text.push('\n');
    let mut table = Rows::new(["OPTION", "VALUE", "IN FORCE", "FROM", "WHAT IT BOUNDS"]);
    for Explained { name, value, from, in_force, bounds } in options {
        let (value, in_force) = (value.as_deref().unwrap_or("yes"), in_force.as_deref().unwrap_or("-"));
        table.add([name, value, in_force, from, bounds.unwrap_or_default()]);
    }
    text += &table.render();
    let _ = writeln!(text, "\n{}", explanation.unwritten);
    text.extend(adjusted.iter().map(|adjusted| format!("\n{adjusted}\n")));
    for Warned { option, why, instead } in warnings {
        let _ = writeln!(text, "\n{option}: {why}\n  do: {instead}");
    }
    let Times { detection, patience, given_up, access_waits, hold, kernel: [earliest, latest], .. } = *times;
    let [detection, patience, given_up, earliest, latest] =
        [detection, patience, given_up, earliest, latest].map(shown);
    let access = access_waits.map_or_else(
        || "fails at once".to_owned(),
        |wait| format!("waits for it for {} s, and then fails", shown(wait)),
    );
    let _ = writeln!(
        text,
        "\nA server that falls silent is dead after {detection} s at the latest; from then on an access to the path {access}.\n\
         A call that is in flight then waits for the server: for {patience} s without an error, and for {given_up} s at the longest."
    );
    let _ = match hold {
        Some(0.0) => writeln!(text, "Nothing is held: the consumers are stopped and the share is given up at once."),
        Some(hold) => writeln!(text, "After {} s the consumers are stopped and the share is given up.", shown(hold)),
        None => writeln!(text, "The share is never given up by itself."),
    };
    let _ = writeln!(
        text,
        "The kernel alone gives up after {earliest} to {latest} s, {KERNEL_ECHO_FACTOR} times echo_interval: the safety net for a dead daemon."
    );
    let _ = match (times.worst_stall.map(shown), times.worst_stall_alone.map(shown)) {
        (Some(worst), Some(alone)) => writeln!(
            text,
            "The worst that these options allow: a call that begins when the server falls silent ends after {worst} s; without nasmount \
             after {alone} s, or never, if the server takes connections and does not answer on them."
        ),
        _ => writeln!(
            text,
            "The worst that these options allow: a call ends only when the server is back, because the mount is hard."
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{self, SourceText, shipped_profiles};

    const CONFIGURATION: &str = r#"[server.tower]
host = "10.10.0.35"
[share.films]
server = "tower"
source = "films"
mount_point = "/mnt/films"
patience = "2m"
options = { uid = 1000, actimeo = 5 }
"#;

    fn explained(kernel: &KernelOptions, mounted: Option<&str>) -> Explanation {
        explained_of(CONFIGURATION, kernel, mounted)
    }

    fn explained_of(configuration: &str, kernel: &KernelOptions, mounted: Option<&str>) -> Explanation {
        let loaded = config::load(&[SourceText::new("nasmount.toml", configuration)], &shipped_profiles()).unwrap();
        let share = loaded.settings.shares.values().next().unwrap();
        let (limits, is_missing) = (DirtyLimitSupport::Supported, |_, name: &str| name.starts_with("nosuch"));
        let host = Host { options: kernel, version: None, limits, mounted, is_missing };
        explain(&loaded, share, &host).unwrap()
    }

    #[test]
    fn what_an_outage_may_find_unwritten_is_said() {
        let said = |line: &str| {
            let configuration = CONFIGURATION.replace("patience", &format!("{line}\npatience"));
            explained_of(&configuration, &KernelOptions::unknown(), None).unwritten
        };
        assert!(said("").contains("nothing unwritten but up to 512 KiB of mapped memory"), "the profile's");
        assert_eq!(said("dirty_limit = \"160KiB\""), "An outage finds 160 KiB unwritten at the most.");
        assert!(said("dirty_limit = \"none\"").contains("no limit"));
        let explanation = explained(&KernelOptions::unknown(), None);
        assert!(render(&explanation).contains(&explanation.unwritten));
    }

    #[test]
    fn each_option_says_where_it_comes_from_and_what_became_of_it() {
        let explanation = explained(&KernelOptions::unknown(), Some("rw,vers=3.1.1,soft,actimeo=1,uid=1000"));
        let option = |name: &str| {
            let option = explanation.options.iter().find(|option| option.name == name).unwrap();
            (option.value.as_deref(), option.from.as_str(), option.in_force.as_deref())
        };
        assert_eq!(option("actimeo"), (Some("5"), "nasmount.toml:8", Some("1")));
        assert!(matches!(option("soft"), (None, from, Some("yes")) if from.starts_with("built-in:media.toml:")));
        assert_eq!(option("nosharesock"), (None, "nasmount", None));
        assert_eq!(option("echo_interval"), (Some("47"), "the patience; the profile has 17", None));
        crate::cli::validate::conforms("explain", &serde_json::to_value(&explanation).unwrap());
        let text = render(&explanation);
        for line in [
            "films: //10.10.0.35/films on /mnt/films, profile media",
            "for 120 s without an error, and for 132 s at the longest",
            "an access to the path fails at once.",
            "After 900 s the consumers are stopped",
            "after 131 to 148 s",
            "falls silent ends after 138 s; without nasmount after 158 s, or never",
            "actimeo=5: 1 is in force\n  do: `nasmount remount`",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(
            text.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.by_ref().take(4).eq(["actimeo", "5", "1", "nasmount.toml:8"])
                    && words.eq(["seconds", "for", "which", "attributes", "may", "be", "out", "of", "date"])
            }),
            "{text}"
        );
    }

    #[test]
    fn who_waits_and_who_is_not_held_is_said() {
        let lines = "on_access = \"wait 30s\"\nhold_for = \"0s\"\npatience = \"0s\"";
        let configuration = CONFIGURATION.replace("patience = \"2m\"", lines);
        let text = render(&explained_of(&configuration, &KernelOptions::unknown(), None));
        assert!(text.contains("an access to the path waits for it for 30 s, and then fails.\n"), "{text}");
        assert!(
            text.contains("\nNothing is held: the consumers are stopped and the share is given up at once.\n"),
            "{text}"
        );
    }

    #[test]
    fn seconds_are_round() {
        let shown = [5.0, 4.999_999_999, 19.333_333_333, 0.25, 900.0].map(shown);
        assert_eq!(shown, ["5", "5", "19.3", "0.3", "900"]);
    }

    #[test]
    fn what_the_kernel_does_by_itself_is_said_where_nothing_is_configured() {
        let default = |explanation: &Explanation, name: &str| {
            let mut of = explanation.options.iter().filter(|option| option.name == name);
            let option = of.next().filter(|option| option.from == "kernel default");
            assert!(of.next().is_none(), "{name} is said twice");
            option.map(|option| (option.value.clone(), option.in_force.clone()))
        };
        let explanation = explained(&KernelOptions::unknown(), Some("rw,serverino"));
        assert_eq!(default(&explanation, "serverino"), Some((None, Some("yes".to_owned()))));
        assert_eq!(default(&explanation, "brl"), Some((None, None)));
        assert_eq!(default(&explanation, "cache"), None, "the profile says it");
        let said = CONFIGURATION.replace("uid = 1000", "noserverino = true, brl = true");
        let explanation = explained_of(&said, &KernelOptions::unknown(), None);
        assert_eq!((default(&explanation, "serverino"), default(&explanation, "brl")), (None, None));
    }

    #[test]
    fn a_kernel_that_does_not_list_its_options_is_judged_by_its_version() {
        let adjusted = |version| explained(&KernelOptions::of_version(version), None).adjusted.join("\n");
        assert!(!adjusted(Version(6, 12, 0)).contains("retrans"));
        assert!(adjusted(Version(6, 1, 0)).contains("retrans=3 is left out"));
    }

    #[test]
    fn the_networks_of_the_server_are_said() {
        assert!(!render(&explained(&KernelOptions::unknown(), None)).contains("only while"));
        let bound = CONFIGURATION.replace("[share", "only_on = [\"10.10.0.0/24\", \"wg0\"]\n[share");
        let explanation = explained_of(&bound, &KernelOptions::unknown(), None);
        assert_eq!(explanation.only_on, ["10.10.0.0/24", "wg0"]);
        crate::cli::validate::conforms("explain", &serde_json::to_value(&explanation).unwrap());
        let text = render(&explanation);
        assert!(text.contains("\nIts server is asked only while this host is on 10.10.0.0/24, wg0: "), "{text}");
    }

    #[test]
    fn what_the_kernel_lacks_is_said() {
        let explanation = explained(&KernelOptions::parse("soft:noflag\nvers:string\n"), None);
        assert!(explanation.adjusted.iter().any(|line| line.starts_with("retrans=3 is left out: ")), "{explanation:?}");
    }

    #[test]
    fn an_account_that_the_host_does_not_have_is_said() {
        let nobody = CONFIGURATION.replace("uid = 1000", "uid = \"nosuchuser\", gid = \"staff\"");
        let explanation = explained_of(&nobody, &KernelOptions::unknown(), None);
        let said: Vec<&str> = explanation.warnings.iter().map(|warned| warned.option.as_str()).collect();
        assert_eq!(said, ["uid=nosuchuser"]);
        let text = render(&explanation);
        let line = "\nuid=nosuchuser: this host has no user nosuchuser, so the share cannot be mounted\n  do: `getent passwd nosuchuser`";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_may_hurt_is_said_with_what_to_do() {
        let hurting = CONFIGURATION.replace("actimeo = 5", "hard = true, cache = \"loose\", mfsymlinks = true");
        let explanation = explained_of(&hurting, &KernelOptions::unknown(), None);
        let warned: Vec<&str> = explanation.warnings.iter().map(|warned| warned.option.as_str()).collect();
        assert_eq!(warned, ["cache=loose", "hard", "mfsymlinks"]);
        assert_eq!((explanation.times.worst_stall, explanation.times.worst_stall_alone), (None, None));
        let text = render(&explanation);
        for line in [
            "\nhard: a hard mount cannot be given up",
            "  do: write cache = \"strict\"",
            "a call ends only when the server is back",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(explained(&KernelOptions::unknown(), None).warnings, []);
    }
}
