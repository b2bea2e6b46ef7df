//! `nasmount consumers`: who depends on which share, from all sides: configured, known to systemd, seen to have files open; and what
//! is missing.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Serialize;

use super::client::{Client, block_on};
use super::configured;
use super::report::{self, Exit};
use super::table::Rows;
use crate::config::consumer::{Consumer, system_unit};
use crate::plan::dependency::{can_wait, required};
use crate::share::consumers::Held;
use crate::status::{ConsumerStatus, Holder, ShareStatus};
use crate::sys::engine;
use crate::sys::systemd::{Activity, Systemd};
use crate::sys::user_manager;

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// `consumers [SHARE] [--json]`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only of this share, by its name or its mount point
    share: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A unit that depends on a share, in one way or another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Dependent {
    share: String,
    unit: String,
    /// For which containers it stands, if it is a label or a project.
    containers: Option<Vec<String>>,
    /// nasmount pauses it.
    configured: bool,
    /// Its start waits for the share.
    requires: bool,
    /// How many files it has open there; not known to anybody but root.
    files: Option<usize>,
    /// What nasmount did to it.
    held: Option<Held>,
    /// What is missing, and what to do.
    missing: Vec<String>,
}

/// What is known of one share.
struct Known {
    share: ShareStatus,
    /// Units whose start has systemd start it, too.
    requiring: Vec<String>,
    /// Configured consumers that cannot be found, and why.
    unknown: BTreeMap<String, String>,
    /// Configured containers by their scopes, and units of users by what their managers call them.
    scopes: BTreeMap<String, String>,
    /// Units that run in a slice that is a consumer, and in which.
    in_slice: BTreeMap<String, String>,
    /// Or why that is not known.
    holders: Result<Vec<Holder>, String>,
}

/// Prints them. 4: no such share.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let known = match block_on(ask(arguments.share.as_deref()))? {
        Ok(known) => known,
        Err(exit) => return Ok(exit),
    };
    let dependents: Vec<Dependent> = known.iter().flat_map(dependents).collect();
    let text =
        if arguments.json { serde_json::to_string_pretty(&document(&dependents))? + "\n" } else { render(&dependents) };
    for Known { share, holders, .. } in &known {
        if let Err(why) = holders {
            report::say(&format!("{}: cannot see who has files open: {why}\n", share.name));
        }
    }
    Ok(report::print(Exit::Done, &text))
}

fn document(dependents: &[Dependent]) -> serde_json::Value {
    serde_json::json!({ "schema": SCHEMA, "consumers": dependents })
}

async fn ask(only: Option<&str>) -> anyhow::Result<Result<Vec<Known>, Exit>> {
    let client = Client::connect().await?;
    let mut shares = client.status().await?.shares;
    match only.map(|typed| configured::share(&shares, typed).cloned()) {
        None => {}
        Some(Ok(share)) => shares = vec![share],
        Some(Err(exit)) => return Ok(Err(exit)),
    }
    let systemd = Systemd::connect().await.context("cannot reach systemd")?;
    let mut known = Vec::new();
    for share in shares {
        let requiring = who_requires(&systemd, &share.name, &share.mount_point).await;
        let mut requiring =
            requiring.with_context(|| format!("cannot ask systemd who requires {}", share.mount_point))?;
        let (mut unknown, mut scopes) = (BTreeMap::new(), BTreeMap::new());
        for consumer in &share.consumers {
            match look_up(&systemd, consumer).await {
                Ok(Some(scope)) => drop(scopes.insert(scope, consumer.unit.clone())),
                Ok(None) => {}
                Err(why) => drop(unknown.insert(consumer.unit.clone(), why)),
            }
        }
        // of a unit that is not loaded nobody can say who it is pulled in by
        for unit in share.consumers.iter().filter_map(|consumer| system_unit(&consumer.unit)) {
            if !requiring.iter().any(|known| known == unit) && waits(&systemd, unit, &share).await {
                requiring.push(unit.to_owned());
            }
        }
        let holders = client.holders(&share.name).await.map_err(|error| report::in_one_line(error.as_ref()));
        let mut in_slice = BTreeMap::new();
        let holding = holders.iter().flatten().filter_map(|holder| holder.unit.clone());
        for unit in requiring.iter().cloned().chain(holding) {
            let consumers = share.consumers.iter().map(|consumer| &*consumer.unit);
            if let Ok(Some(slice)) = systemd.slice_among(&unit, consumers).await {
                in_slice.insert(unit, slice.to_owned());
            }
        }
        known.push(Known { share, requiring, unknown, scopes, in_slice, holders });
    }
    Ok(Ok(known))
}

/// The units that say themselves that they need a share, by its mount point or by its name.
pub(super) async fn who_requires(systemd: &Systemd, share: &str, mount_point: &str) -> zbus::Result<Vec<String>> {
    let units = required(share, mount_point);
    let mut requiring = Vec::new();
    for unit in &units {
        requiring.extend(systemd.pulled_in_by(unit).await?.into_iter().filter(|other| !units.contains(other)));
    }
    Ok(requiring)
}

/// Whether the start of a unit waits for a share, as far as systemd can say.
async fn waits(systemd: &Systemd, unit: &str, share: &ShareStatus) -> bool {
    let after = systemd.starts_after(unit).await.ok().flatten().unwrap_or_default();
    required(&share.name, &share.mount_point).iter().any(|unit| after.contains(unit))
}

/// The scope of a consumer that is a running container; or why a consumer is not known.
async fn look_up(systemd: &Systemd, consumer: &ConsumerStatus) -> Result<Option<String>, String> {
    match Consumer::of(&consumer.unit) {
        Consumer::Unit(unit) => is_known(systemd, unit).await.map(|()| None),
        Consumer::UserUnit { user, unit } => match user_manager::knows(user, unit).await {
            Ok(true) => Ok(Some(unit.to_owned())),
            Ok(false) => Err(format!("the service manager of {user} does not know it: is the name right?")),
            Err(error) => Err(error.to_string()),
        },
        Consumer::Container { engine, name } => match engine::find(engine, name).await {
            Ok(None) => Err("no container engine knows it: is the name right?".to_owned()),
            Ok(Some(found)) => found.scope().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Consumer::Label(_) | Consumer::Compose(_) if consumer.containers.as_ref().is_some_and(Vec::is_empty) => {
            Err("no container engine has such a container now: is it written right?".to_owned())
        }
        Consumer::Label(_) | Consumer::Compose(_) => Ok(None),
    }
}

async fn is_known(systemd: &Systemd, unit: &str) -> Result<(), String> {
    let unknown = systemd.activity(unit).await.is_ok_and(|activity| activity == Activity::Unknown);
    if unknown { Err("systemd does not know it: is the name right?".to_owned()) } else { Ok(()) }
}

fn dependents(Known { share, requiring, unknown, scopes, in_slice, holders }: &Known) -> Vec<Dependent> {
    let named = |unit: &str| {
        let files = holders.is_ok().then_some(0);
        Dependent { share: share.name.clone(), unit: unit.to_owned(), files, ..Dependent::default() }
    };
    let mut found = BTreeMap::<String, Dependent>::new();
    for consumer in &share.consumers {
        let dependent = found.entry(consumer.unit.clone()).or_insert_with(|| named(&consumer.unit));
        (dependent.configured, dependent.held) = (true, consumer.held);
        dependent.containers.clone_from(&consumer.containers);
    }
    for unit in requiring {
        found.entry(unit.clone()).or_insert_with(|| named(unit)).requires = true;
    }
    for holder in holders.iter().flatten() {
        let unit = holder.unit.as_deref().unwrap_or("no unit");
        let unit = scopes.get(unit).map_or(unit, String::as_str);
        let dependent = found.entry(unit.to_owned()).or_insert_with(|| named(unit));
        dependent.files = Some(dependent.files.unwrap_or(0) + holder.files + holder.directories);
    }
    for dependent in found.values_mut() {
        let slice = in_slice.get(&dependent.unit).filter(|_| !dependent.configured);
        match slice.and_then(|slice| share.consumers.iter().find(|consumer| consumer.unit == *slice)) {
            Some(slice) => dependent.held = slice.held,
            None => dependent.missing = missing(dependent, unknown),
        }
    }
    found.into_values().collect()
}

fn missing(dependent: &Dependent, unknown: &BTreeMap<String, String>) -> Vec<String> {
    let Dependent { share, unit, configured, requires, .. } = dependent;
    let mut missing = Vec::new();
    if let Some(why) = unknown.get(unit) {
        missing.push(why.clone());
    } else if *configured && !requires && can_wait(unit) {
        missing.push("its start does not wait for the share: `systemctl daemon-reload`".to_owned());
    }
    if !configured && can_wait(unit) {
        missing.push(format!("nothing is done to it in an outage: add [[share.{share}.consumer]]"));
    }
    missing
}

fn render(dependents: &[Dependent]) -> String {
    let mut table = Rows::new(["SHARE", "UNIT", "CONFIGURED", "WAITS FOR IT", "FILES OPEN", "HELD"]);
    for dependent in dependents {
        let said = |so: bool| if so { "yes" } else { "no" };
        let held = match dependent.held {
            None => "-",
            Some(Held::Paused) => "paused",
            Some(Held::PausedAndStopped) => "being stopped",
            Some(Held::Stopped) => "stopped",
        };
        table.add([
            dependent.share.as_str(),
            &dependent.unit,
            said(dependent.configured),
            said(dependent.requires),
            &dependent.files.map_or_else(|| "?".to_owned(), |files| files.to_string()),
            held,
        ]);
    }
    let mut text = table.render();
    for Dependent { share, unit, containers, missing, .. } in dependents {
        if let Some(containers) = containers.as_ref().filter(|containers| !containers.is_empty()) {
            text.push_str(&format!("\n{unit} ({share}): stands for {}\n", containers.join(", ")));
        }
        text.extend(missing.iter().map(|missing| format!("\n{unit} ({share}): {missing}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn known(holders: Result<Vec<Holder>, String>) -> Known {
        let share = serde_json::json!({
            "name": "films", "state": "online", "since": 1.0, "reason": {"kind": "answers"}, "reason_text": "x",
            "server": "tower", "source": "films", "mount_point": "/mnt/films", "hold_reasons": [], "wanted": "mounted",
            "consumers_progress": "settled", "given_up": false,
            "consumers": [{"unit": "player.service", "held": "paused"}, {"unit": "plyer.service"}, {"unit": "container:tdarr"},
                          {"unit": "label:films", "containers": ["docker:cut"]}, {"unit": "docker:cut", "held": "stopped"},
                          {"unit": "media.slice", "held": "paused"}],
        });
        Known {
            share: serde_json::from_value(share).unwrap(),
            requiring: vec!["player.service".into(), "scan.service".into()],
            unknown: BTreeMap::from([("plyer.service".into(), "systemd does not know it: is the name right?".into())]),
            scopes: BTreeMap::from([("docker-4cf2b1.scope".into(), "container:tdarr".into())]),
            in_slice: BTreeMap::from([("heavy.service".into(), "media.slice".into())]),
            holders,
        }
    }

    #[test]
    fn all_sides_are_put_together() {
        let holder = |unit: Option<&str>, files| Holder {
            pid: 7,
            command: "x".into(),
            unit: unit.map(str::to_owned),
            files,
            writable: 0,
            writable_paths: Vec::new(),
            directories: 1,
        };
        let holders = vec![
            holder(Some("player.service"), 2),
            holder(Some("docker-4cf2b1.scope"), 3),
            holder(Some("player.service"), 1),
            holder(None, 0),
            holder(Some("heavy.service"), 1),
        ];
        let found = dependents(&known(Ok(holders)));
        let of = |unit: &str| found.iter().find(|dependent| dependent.unit == unit).unwrap().clone();
        let player = of("player.service");
        assert_eq!((player.configured, player.requires, player.files), (true, true, Some(5)));
        assert_eq!((player.held, player.missing), (Some(Held::Paused), vec![]));
        assert_eq!(of("plyer.service").missing, ["systemd does not know it: is the name right?"]);
        let scan = of("scan.service");
        assert_eq!((scan.configured, scan.requires, scan.files), (false, true, Some(0)));
        assert_eq!(scan.missing, ["nothing is done to it in an outage: add [[share.films.consumer]]"]);
        assert_eq!((of("no unit").files, of("no unit").missing), (Some(1), vec![]));
        let tdarr = of("container:tdarr");
        assert_eq!((tdarr.configured, tdarr.files, tdarr.missing), (true, Some(4), vec![]));
        assert_eq!((of("label:films").configured, of("docker:cut").held), (true, Some(Held::Stopped)));
        assert!(render(&found).contains("\nlabel:films (films): stands for docker:cut\n"), "{}", render(&found));
        let heavy = of("heavy.service");
        assert_eq!(
            (heavy.configured, heavy.held, heavy.missing),
            (false, Some(Held::Paused), vec![]),
            "with its slice"
        );
        assert_eq!(found.len(), 9);
        crate::cli::validate::conforms("consumers", &document(&found));
    }

    #[test]
    fn what_only_root_may_know_is_not_made_up() {
        let found = dependents(&known(Err("only root may do that".into())));
        assert!(found.iter().all(|dependent| dependent.files.is_none()));
        crate::cli::validate::conforms("consumers", &document(&found));
        assert!(
            render(&found).contains("player.service   yes         yes           ?           paused"),
            "{}",
            render(&found)
        );
    }
}
