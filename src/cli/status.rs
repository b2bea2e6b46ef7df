//! `nasmount status`.

use std::collections::BTreeMap;

use super::client::{Client, block_on};
use super::configured;
use super::report::{self, Exit};
use super::table::Rows;
use crate::share::State;
use crate::share::command::{HoldReason, Wanted};
use crate::share::consumers::{Held, Progress};
use crate::share::detector::Trust;
use crate::share::ladder::Outcome;
use crate::status::{
    ConsumerStatus, HangingWorker, Holder, NamespaceCopy, RungStatus, ServerStatus, ShareStatus, StatusReport,
};

/// `status [SHARE] [--json]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  nasmount status\n  sudo nasmount status films -v    # with who has it open")]
pub struct Arguments {
    /// Only this share, by its name or its mount point; exit status 3 if it is not online, 4 if there is none of that name
    share: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// How everything is.
    Usual,
    /// Also who has the shares open, and what containers have of them.
    Users,
}

/// Prints the status. 0: all that was asked for is online; 3: something is not; 4: no such share.
pub fn run(arguments: &Arguments, detail: Detail) -> anyhow::Result<Exit> {
    let mut report = ask()?;
    if let Some(typed) = &arguments.share {
        let share = match configured::share(&report.shares, typed) {
            Ok(share) => share.clone(),
            Err(exit) => return Ok(exit),
        };
        report.servers.retain(|server| server.name == share.server);
        report.shares = vec![share];
    }
    let users = if detail == Detail::Users { Some(ask_for_users(&report)?) } else { None };
    let text = match users {
        None if arguments.json => serde_json::to_string_pretty(&report)? + "\n",
        None => render(&report),
        Some((holders, copies)) if arguments.json => {
            serde_json::to_string_pretty(&document(&report, &holders, &copies)?)? + "\n"
        }
        Some((holders, copies)) => {
            render(&report) + &render_releases(&report) + &render_holders(&report, &holders) + &render_copies(&copies)
        }
    };
    let online = report.shares.iter().all(|share| share.state == State::Online);
    let exit = if online { Exit::Done } else { Exit::Refused };
    Ok(report::print(exit, &text))
}

fn ask() -> anyhow::Result<StatusReport> {
    block_on(async { Client::connect().await?.status().await })
}

/// What was found of each share, or why that is not known.
type Found<T> = BTreeMap<String, Result<Vec<T>, String>>;

fn ask_for_users(report: &StatusReport) -> anyhow::Result<(Found<Holder>, Found<NamespaceCopy>)> {
    block_on(async {
        let client = Client::connect().await?;
        let (mut holders, mut copies) = (Found::new(), Found::new());
        for ShareStatus { name, .. } in &report.shares {
            holders.insert(name.clone(), client.holders(name).await.map_err(|error| format!("{error:#}")));
            copies.insert(name.clone(), client.copies(name).await.map_err(|error| format!("{error:#}")));
        }
        Ok((holders, copies))
    })
}

fn document(
    report: &StatusReport,
    holders: &Found<Holder>,
    copies: &Found<NamespaceCopy>,
) -> serde_json::Result<serde_json::Value> {
    let mut document = serde_json::to_value(report)?;
    document["holders"] = in_json(holders)?;
    document["copies"] = in_json(copies)?;
    Ok(document)
}

/// A list for each share, or an object with the reason why there is none.
fn in_json<T: serde::Serialize>(found: &Found<T>) -> serde_json::Result<serde_json::Value> {
    let mut document = serde_json::Map::new();
    for (share, found) in found {
        let said = match found {
            Ok(found) => serde_json::to_value(found)?,
            Err(why) => serde_json::json!({ "error": why }),
        };
        document.insert(share.clone(), said);
    }
    Ok(document.into())
}

/// Those with which something is wrong.
fn render_copies(copies: &Found<NamespaceCopy>) -> String {
    let mut text = String::new();
    for (share, copies) in copies {
        let copies = match copies {
            Ok(copies) => copies,
            Err(why) => {
                text.push_str(&format!("\n{share}: cannot see what containers have of it: {why}\n"));
                continue;
            }
        };
        let troubles: Vec<_> = copies.iter().filter_map(|copy| Some((copy, copy.trouble()?))).collect();
        if troubles.is_empty() {
            continue;
        }
        text.push_str(&format!("\n{share}: seen elsewhere\n"));
        for (NamespaceCopy { pid, command, unit, path, .. }, trouble) in troubles {
            let unit = unit.as_deref().unwrap_or("no unit");
            text.push_str(&format!("  {command} ({pid}, {unit}), {path}: {trouble}\n"));
        }
        text.push_str("  hint: give a container the directory above the mount point, with rslave propagation\n");
    }
    text
}

/// How each share was given up, rung by rung.
fn render_releases(report: &StatusReport) -> String {
    let mut text = String::new();
    for ShareStatus { name, release, .. } in &report.shares {
        let Some(first) = release.first() else { continue };
        text.push_str(&format!("\n{name}: given up {}\n", since(first.at)));
        for RungStatus { operation, budget, took, outcome, .. } in release {
            let took = match (took, outcome) {
                (Some(took), _) => format!("{took:.3} s"),
                (None, Outcome::InFlight) => "in flight".to_owned(),
                (None, Outcome::Done | Outcome::Abandoned | Outcome::Failed(_)) => "?".to_owned(),
            };
            let ended = match outcome {
                Outcome::InFlight | Outcome::Done => String::new(),
                Outcome::Abandoned => ", not done in time, or not needed any more".to_owned(),
                Outcome::Failed(why) => format!(", failed: {why}"),
            };
            text.push_str(&format!("  {operation}: {took} of {budget:.0} s{ended}\n"));
        }
    }
    text
}

/// Of a share that was given up the open files are not found any more: it has no file system to which they could be seen to belong.
fn render_holders(report: &StatusReport, holders: &Found<Holder>) -> String {
    let mut text = String::new();
    for (share, holders) in holders {
        let was_given_up = report.shares.iter().any(|known| {
            known.name == *share && matches!(known.state, State::Offline | State::Blocked) && !known.release.is_empty()
        });
        let holders = match holders {
            Ok(holders) if holders.is_empty() && was_given_up => {
                text.push_str(&format!("\n{share}: not mounted; who had it open when it was given up is in the log\n"));
                continue;
            }
            Ok(holders) => holders,
            Err(why) => {
                text.push_str(&format!("\n{share}: cannot see who has it open: {why}\n"));
                continue;
            }
        };
        text.push_str(&format!("\n{share}: {}\n", if holders.is_empty() { "nobody has it open" } else { "open in" }));
        for Holder { pid, command, unit, files, writable, directories, .. } in holders {
            let unit = unit.as_deref().unwrap_or("no unit");
            let there = if *directories > 0 { ", is in it" } else { "" };
            text.push_str(&format!("  {command} ({pid}, {unit}): {files} files, {writable} writable{there}\n"));
        }
    }
    text
}

fn render(report: &StatusReport) -> String {
    let mut table = Rows::new(["SHARE", "STATE", "SINCE", "MOUNT POINT", "SERVER", "CONSUMERS"]);
    for share in &report.shares {
        let server = report.servers.iter().find(|server| server.name == share.server);
        table.add([
            share.name.clone(),
            share.state.to_string(),
            since(share.since),
            share.mount_point.clone(),
            server.map_or_else(String::new, server_cell),
            consumers_cell(&share.consumers),
        ]);
    }
    let mut text = table.render();
    for share in &report.shares {
        let lines = more(share);
        if share.state != State::Online || !lines.is_empty() {
            text.push_str(&format!("\n{}: {}\n", share.name, share.reason_text));
        }
        text.extend(lines.iter().map(|line| format!("  {line}\n")));
    }
    for HangingWorker { what, of, since: given_up_at } in &report.hanging_workers {
        let of = of.as_ref().map_or_else(String::new, |of| format!(" ({of})"));
        text.push_str(&format!(
            "\na worker hangs: {what}{of}, told to end {}: a call to the kernel does not return\n",
            since(*given_up_at)
        ));
    }
    for server in &report.servers {
        if let Some(trouble) = &server.local_trouble {
            text.push_str(&format!("\n{}: {trouble}\n", server.name));
        }
        if let Some(latency) = server.latency.filter(|latency| latency.slow) {
            let (median, slowest) = (latency.median_ms, latency.slowest_ms);
            text.push_str(&format!(
                "\n{}: answers slowly: in {median:.0} ms usually, {slowest:.0} ms at most in the last minutes\n",
                server.name
            ));
        }
        if let Some(identity) = &server.stranger {
            text.push_str(&format!("\n{}: the machine {identity} answers in its place\n", server.name));
        }
        if let Some(flapping) = server.flapping {
            let (outages, seconds) = (flapping.outages, duration(flapping.must_answer_for));
            text.push_str(&format!(
                "\n{}: comes and goes: {outages} outages in 10 min, must answer for {seconds}\n",
                server.name
            ));
        }
    }
    text
}

/// What there is to say about a share beyond its state.
fn more(share: &ShareStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |line: String| lines.push(line);
    if share.hold_reasons.contains(&HoldReason::Operator) {
        line("held by operator".into());
    }
    match share.wanted {
        Wanted::Mounted => {}
        Wanted::Unmounted => line("unmounted by operator".into()),
        Wanted::TakenOff => line("unmounted with umount or systemctl".into()),
    }
    match share.maintenance.map(|maintenance| maintenance.ends_in) {
        Some(Some(seconds)) => line(format!("maintenance for {} more", duration(seconds))),
        Some(None) => line("maintenance until it is ended".into()),
        None => {}
    }
    if let (Some(operation), Some(seconds)) = (&share.operation, share.operation_for) {
        // an operation of an online share is one of its probes
        if share.state != State::Online {
            line(format!("in flight: {operation}, for {}", duration(seconds)));
        }
    }
    if share.consumers_progress == Progress::Attempted {
        line("something could not be done to a consumer, and is tried again: `journalctl -u nasmount`".into());
    }
    if let Some(trouble) = &share.memory_trouble {
        line(format!("{trouble}: a crash now would forget it"));
    }
    if share.given_up {
        line("the patience is over: what was in flight has been given up".into());
    }
    if let Some(seconds) = share.hold_ends_in.filter(|_| share.state == State::Holding) {
        line(format!("released in {} unless the server comes back", duration(seconds)));
    }
    if let Some(loss) = &share.loss {
        line(format!("data was lost {}: {}", since(loss.at), loss.what));
    }
    if let Some(hint) = &share.hint {
        line(format!("hint: {hint}"));
    }
    lines
}

fn server_cell(server: &ServerStatus) -> String {
    let believed = match server.trust {
        Trust::Unknown => "not seen yet".to_owned(),
        Trust::Trusted => server.latency.map_or("answers".to_owned(), |latency| {
            let slow = if latency.slow { "slow: " } else { "" };
            format!("{slow}{:.1} ms", latency.last_ms)
        }),
        Trust::Suspect { verdict } | Trust::Dead { verdict } => verdict.to_string(),
    };
    format!("{} ({believed})", server.host)
}

fn consumers_cell(consumers: &[ConsumerStatus]) -> String {
    let one = |consumer: &ConsumerStatus| match consumer.held {
        None if consumer.containers.as_ref().is_some_and(Vec::is_empty) => format!("{} [no container]", consumer.unit),
        None => consumer.unit.clone(),
        Some(Held::Paused) => format!("{} [paused]", consumer.unit),
        Some(Held::PausedAndStopped) => format!("{} [being stopped]", consumer.unit),
        Some(Held::Stopped) => format!("{} [stopped]", consumer.unit),
    };
    if consumers.is_empty() { "-".to_owned() } else { consumers.iter().map(one).collect::<Vec<_>>().join(", ") }
}

fn since(epoch: f64) -> String {
    let now = crate::sys::clock::wall_clock(crate::sys::clock::now());
    format!("{} ago", duration((now - epoch).max(0.0)))
}

/// Two units at most: `2m 5s`, `3h 10m`, `12d 4h`.
fn duration(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = std::time::Duration::from_secs_f64(seconds).as_secs();
    let mut parts = Vec::new();
    for (length, name) in UNITS {
        let count = left / length;
        left %= length;
        if count > 0 || (length == 1 && parts.is_empty()) {
            parts.push(format!("{count}{name}"));
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::status::CopyContent;

    fn conforms(holders: &Found<Holder>, copies: &Found<NamespaceCopy>) {
        let report = StatusReport {
            schema: 1,
            version: "0".into(),
            servers: Vec::new(),
            shares: Vec::new(),
            hanging_workers: Vec::new(),
        };
        crate::cli::validate::conforms("status", &document(&report, holders, copies).unwrap());
    }

    #[test]
    fn what_operator_and_server_did_is_said() {
        let report: StatusReport = serde_json::from_value(serde_json::json!({
            "schema": 1, "version": "0",
            "servers": [{
                "name": "tower", "host": "10.10.0.35", "trust": "trusted",
                "flapping": {"outages": 4, "must_answer_for": 20.0},
            }],
            "shares": [{
                "name": "media", "state": "maintenance", "since": 0.0, "reason": {"kind": "answers"},
                "reason_text": "an operator asked for it: maintenance on", "server": "tower", "source": "media",
                "mount_point": "/mnt/media", "hold_reasons": ["operator"], "wanted": "unmounted",
                "maintenance": {"ends_in": 720.0}, "consumers_progress": "settled", "given_up": false, "consumers": [],
            }],
        }))
        .unwrap();
        let text = render(&report);
        for said in [
            "  held by operator\n",
            "  unmounted by operator\n",
            "  maintenance for 12m more\n",
            "tower: comes and goes: 4 outages in 10 min, must answer for 20s\n",
        ] {
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn each_rung_of_a_release_is_said() {
        let now = crate::sys::clock::wall_clock(crate::sys::clock::now());
        let rung = |operation: &str, took: serde_json::Value, outcome: serde_json::Value| serde_json::json!({"operation": operation, "at": now - 65.0, "budget": 10.0, "took": took, "outcome": outcome});
        let share = |name: &str, release: serde_json::Value| {
            serde_json::json!({
                "name": name, "state": "releasing", "since": 0.0, "reason": {"kind": "hold_over"}, "reason_text": "",
                "server": "tower", "source": "media", "mount_point": "/mnt/media", "hold_reasons": [],
                "wanted": "mounted", "consumers_progress": "settled", "given_up": true, "consumers": [],
                "release": release,
            })
        };
        let given_up = serde_json::json!([
            rung("raise fence", 0.0121.into(), "done".into()),
            rung("destroy sockets", 10.0.into(), "abandoned".into()),
            rung("release", 0.5.into(), serde_json::json!({"failed": "no"})),
            rung("release", serde_json::Value::Null, serde_json::json!({"failed": "restarted"})),
            rung("release", serde_json::Value::Null, "in_flight".into()),
        ]);
        let report: StatusReport = serde_json::from_value(serde_json::json!({
            "schema": 1, "version": "0", "servers": [], "shares": [share("films", given_up), share("media", serde_json::json!([]))],
        }))
        .unwrap();
        assert_eq!(
            render_releases(&report),
            "\nfilms: given up 1m 5s ago\n  raise fence: 0.012 s of 10 s\n  \
             destroy sockets: 10.000 s of 10 s, not done in time, or not needed any more\n  \
             release: 0.500 s of 10 s, failed: no\n  release: ? of 10 s, failed: restarted\n  release: in flight of 10 s\n"
        );
    }

    #[test]
    fn what_hangs_is_said_with_its_age() {
        let now = crate::sys::clock::wall_clock(crate::sys::clock::now());
        let mut report: StatusReport = serde_json::from_value(serde_json::json!({
            "schema": 1, "version": "0", "servers": [], "shares": [],
        }))
        .unwrap();
        let before = render(&report);
        let worker = |what: &str, of: Option<&str>| HangingWorker {
            what: what.to_owned(),
            of: of.map(str::to_owned),
            since: now - 7_200.5,
        };
        report.hanging_workers = vec![worker("verify", Some("films")), worker("look at the route", None)];
        let said = "told to end 2h ago: a call to the kernel does not return\n";
        assert_eq!(
            render(&report),
            format!("{before}\na worker hangs: verify (films), {said}\na worker hangs: look at the route, {said}")
        );
    }

    #[test]
    fn holders_are_listed_by_share() {
        let holder = Holder {
            pid: 7,
            command: "cat".into(),
            unit: Some("a.service".into()),
            files: 2,
            writable: 1,
            writable_paths: Vec::new(),
            directories: 1,
        };
        let unseen = ("books".to_owned(), Err("only root may do that".to_owned()));
        let holders = Found::from([unseen, ("films".to_owned(), Ok(vec![])), ("music".to_owned(), Ok(vec![holder]))]);
        conforms(&holders, &Found::new());
        let report: StatusReport = serde_json::from_value(serde_json::json!({
            "schema": 1, "version": "0", "servers": [], "shares": [],
        }))
        .unwrap();
        assert_eq!(
            render_holders(&report, &holders),
            "\nbooks: cannot see who has it open: only root may do that\n\nfilms: nobody has it open\n\nmusic: open in\n  cat (7, a.service): 2 files, 1 writable, is in it\n"
        );
    }

    #[test]
    fn only_copies_with_which_something_is_wrong_are_listed() {
        let copy = |pid, content, follows| NamespaceCopy {
            pid,
            command: "tdarr".into(),
            unit: Some("docker-1a.scope".into()),
            system_unit: Some("docker-1a.scope".into()),
            path: "/films".into(),
            content,
            follows,
        };
        let films = vec![
            copy(7, CopyContent::Current, true),
            copy(8, CopyContent::Current, false),
            copy(9, CopyContent::Stale, true),
        ];
        let copies = Found::from([
            ("books".to_owned(), Err("no".to_owned())),
            ("films".to_owned(), Ok(films)),
            ("music".to_owned(), Ok(vec![copy(7, CopyContent::Barrier, true)])),
        ]);
        conforms(&Found::new(), &copies);
        assert_eq!(
            render_copies(&copies),
            "\nbooks: cannot see what containers have of it: no\n\nfilms: seen elsewhere\n  \
             tdarr (8, docker-1a.scope), /films: does not follow the host: in an outage its calls hang\n  \
             tdarr (9, docker-1a.scope), /films: has a mount that was given up, and gets no other: start it again\n  \
             hint: give a container the directory above the mount point, with rslave propagation\n"
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(duration(0.4), "0s");
        assert_eq!(duration(125.0), "2m 5s");
        assert_eq!(duration(3_600.0), "1h");
        assert_eq!(duration(1_051_261.0), "12d 4h");
    }
}
