//! `make bench`: nasmount and today's ways through the same outages at the same time, and what each of them costs.
//!
//! ```text
//!  bench            the order of the run: speed, detection, two outages, unmounting, what nasmount itself needs, and switching off
//!   ├ ways          today's ways as an administrator writes them, and nasmount's shares
//!   ├ detection     short cuts of each kind of one of nasmount's servers
//!   ├ outage        one fault for all: calls of strangers, and consumers that keep account
//!   ├ commands      timed in the guest
//!   ├ footprint     memory, processor
//!   ├ power_off     a boot for each way
//!   └ report        PURE: what was measured; stalls (single calls -> report), targets, table, svg (report -> text)
//! ```
//!
//! It prints figures and verdicts and asserts on none of them: what has to hold is tested by the cases.

mod commands;
mod detection;
mod footprint;
mod outage;
mod power_off;
mod report;
mod stalls;
mod svg;
mod table;
mod targets;
mod ways;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::Guest;
use crate::nas::{self, Fault};
use outage::{Answers, Course};
use report::{Report, Speed, Unmounting, Written, median};
use targets::{PATIENT, is_ours};
use ways::{Way, Ways};

/// Longer than the incident's 90 s, within the patience of 2 min.
const SILENCE: Duration = Duration::from_secs(110);
/// A hung server holds today's ways for as long as it hangs, however long that is.
const HANG: Duration = Duration::from_secs(60);
/// Long enough that what nasmount does now and then is in it.
const QUIET: Duration = Duration::from_secs(600);
/// Of what is cheap to repeat.
const RUNS: u32 = 3;
/// `umount` is tried when the outage is so old, and for so long.
const UNMOUNTING_AFTER: Duration = Duration::from_secs(10);
const UNMOUNTING_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the file that is written, and of its writes: large ones, and those of a program that does not care.
const SPEED_SIZE: u64 = 24 << 20;
const SPEED_BLOCKS: [u64; 2] = [1 << 20, 64 << 10];
/// 1 MB/s, a tenth of what the slowest way was seen to do under emulation.
const SPEED_LIMIT: Duration = Duration::from_secs(SPEED_SIZE / 1_000_000);

/// How nasmount was built: as the driver was.
const BUILD: &str = if cfg!(debug_assertions) { "a build for development" } else { "a release build" };

/// What the environment makes shorter, for those who work on the bench: seconds, and a number.
struct Scale {
    silence: Duration,
    hang: Duration,
    quiet: Duration,
    runs: u32,
}

pub fn run(guest: &Guest) -> Result<()> {
    let scale = Scale::of_environment()?;
    let mut remarks = Vec::new();
    let ways = Ways::mount(guest)?;
    say("all ways are mounted; writing");
    let speed = speed(&ways, scale.runs)?;
    say("short cuts");
    let detection = detection::measure(&ways, scale.runs)?;
    let mut answers = Answers::default();
    let mut outages = Vec::new();
    for (name, fault, length) in [("silence", Fault::Drop, scale.silence), ("hung server", Fault::Hang, scale.hang)] {
        say(&format!("{name}, {} s", length.as_secs()));
        let course = Course { name, fault, length };
        outages.push(outage::run(&ways, &course, scale.runs, &mut answers, &mut remarks).context(name)?);
    }
    say("unmounting");
    let unmounting = unmounting(&ways)?;
    remarks.extend(ways.remove());
    say(&format!("what nasmount needs, {} quiet seconds", scale.quiet.as_secs()));
    let mut footprint = footprint::measure(guest, scale.quiet, scale.runs)?;
    let unbarred = footprint.memory.iter().filter(|memory| memory.barred < memory.shares);
    remarks.extend(unbarred.map(|memory| format!("of {} shares {} have a barrier", memory.shares, memory.barred)));
    (footprint.status, footprint.version) = (median(answers.status), median(answers.version));
    let machine = guest.ok(&format!("echo Linux $(uname -r), $(systemd-detect-virt), $(nproc) processors, {BUILD}"))?;
    let report = Report {
        machine,
        runs: scale.runs,
        ways: ways::descriptions(),
        detection,
        outages,
        unmounting_after: UNMOUNTING_AFTER.as_secs_f64(),
        unmounting,
        power_off: power_off::measure(guest)?,
        speed,
        footprint,
        remarks,
    };
    publish(&report)
}

fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// Prints the tables, and writes them, the figures and the chart to `target/bench`.
fn publish(report: &Report) -> Result<()> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let text = table::render(report);
    let json = serde_json::to_string_pretty(report).context("write the report as JSON")?;
    for (name, content) in [("bench.md", &text), ("bench.json", &json), ("bench.svg", &svg::render(report))] {
        fs::write(directory.join(name), content).with_context(|| format!("write {name}"))?;
    }
    println!("{text}\n{}/bench.{{md,json,svg}}", directory.display());
    Ok(())
}

/// A sequential writer on a mount with defaults and on nasmount's, in turn: how fast it is, and how much of what it wrote is only there.
fn speed(ways: &Ways<'_>, runs: u32) -> Result<Vec<Speed>> {
    let compared: Vec<_> = ways.all.iter().filter(|way| ["defaults", PATIENT].contains(&way.name)).collect();
    let what: Vec<String> = compared.iter().map(|way| format!("'{}' {}", way.name, way.point)).collect();
    let blocks = SPEED_BLOCKS.map(|block| block.to_string()).join(",");
    let command =
        format!("/host/guest/bench.py speed --size {SPEED_SIZE} --blocks {blocks} --times {runs} {}", what.join(" "));
    let limit = SPEED_LIMIT * runs * 4 + crate::nasmount::DEADLINE; // two ways, two sizes
    let said = ways.guest.run_within(limit, &command)?;
    let mut measured: BTreeMap<String, BTreeMap<String, Vec<Written>>> =
        serde_json::from_str(&said.stdout).with_context(|| format!("`{command}` said {said:?}"))?;
    let of_block = |block: u64| {
        let ways = measured.iter_mut().map(|(way, runs)| {
            let runs = runs.remove(&block.to_string()).unwrap_or_default();
            (way.clone(), Written::median(&runs))
        });
        Speed { block, size: SPEED_SIZE, ways: ways.collect() }
    };
    Ok(SPEED_BLOCKS.map(of_block).into())
}

/// While the servers are silent and nobody uses the shares, nasmount unmounts, and then, all at the same time, today's ways.
///
/// nasmount first, so that no `umount` of another way can be what it waits for. It can wait for their mounts all the same: on 6.12 its
/// worker was seen in `cifs_kill_sb`, in the flush of a work queue that all CIFS mounts of a host have in common.
fn unmounting(ways: &Ways<'_>) -> Result<Vec<Unmounting>> {
    let outages = nas::cut_all(ways.all.iter().map(|way| (way.nas, Fault::Drop)))?;
    ways.wait_for_state("holding")?;
    outages.last().context("no server was cut")?.last(UNMOUNTING_AFTER)?;
    let command_of = |way: &Way<'_>| (way.name, way.unmount.clone());
    let (ours, today): (Vec<_>, Vec<_>) = ways.all.iter().map(command_of).partition(|(name, _)| is_ours(name));
    let mut done = Vec::new();
    for what in [ours, today] {
        let what: Vec<(&str, &str)> = what.iter().map(|(name, command)| (*name, command.as_str())).collect();
        done.extend(commands::run(ways.guest, UNMOUNTING_LIMIT, 1, &what)?);
    }
    nas::heal_all(outages)?;
    let mut done: BTreeMap<String, Vec<commands::Run>> = done.into_iter().collect();
    let of_way = |way: &Way<'_>| -> Result<Unmounting> {
        let run =
            done.get_mut(way.name).and_then(Vec::pop).with_context(|| format!("{} was not unmounted", way.name))?;
        let said = if run.said.is_empty() { String::new() } else { format!(": {}", run.said) };
        let (command, took) = (way.unmount.clone(), run.took());
        Ok(Unmounting { way: way.name.to_owned(), command, took, result: run.result + &said })
    };
    ways.all.iter().map(of_way).collect()
}

impl Scale {
    fn of_environment() -> Result<Self> {
        let number = |name: &str| -> Result<Option<u32>> {
            let value = std::env::var(name).ok();
            value.map(|text| text.parse().with_context(|| format!("{name}={text}: a number"))).transpose()
        };
        let seconds = |name: &str, usual: Duration| -> Result<Duration> {
            Ok(number(name)?.map_or(usual, |seconds| Duration::from_secs(seconds.into())))
        };
        Ok(Self {
            silence: seconds("BENCH_OUTAGE", SILENCE)?,
            hang: seconds("BENCH_OUTAGE", HANG)?,
            quiet: seconds("BENCH_QUIET", QUIET)?,
            runs: number("BENCH_RUNS")?.unwrap_or(RUNS).max(1),
        })
    }
}
