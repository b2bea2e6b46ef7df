//! What design asks of nasmount, next to what this run has measured. Verdicts are words: nothing fails because of them.

use super::report::{Detection, Footprint, Memory, Operation, Report};
use super::table::seconds;

/// A number to reach.
pub struct Target {
    pub what: &'static str,
    pub wanted: String,
    pub measured: String,
    pub verdict: String,
}

/// On which side of a number the target lies.
#[derive(Clone, Copy)]
enum Bound {
    Below(f64),
    AtMost(f64),
    Above(f64),
}

/// How a number is written.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Count,
    Percent,
    Mebibytes,
}

/// Column names of nasmount's own ways; they differ in patience.
pub const PATIENT: &str = "nasmount 2m";
pub const IMPATIENT: &str = "nasmount 0s";
/// Whether a column is nasmount's.
pub fn is_ours(way: &str) -> bool {
    [PATIENT, IMPATIENT].contains(&way)
}

/// The memory target is one for so many shares.
pub const SHARES: u32 = 10;
const KIB_PER_MIB: f64 = 1024.0;
const BYTES_PER_MIB: f64 = 1024.0 * KIB_PER_MIB;

/// Kinds of outage that are found in different ways.
pub const PULLED: &str = "pulled cable";
pub const STOPPED: &str = "stopped server";
pub const SILENT: &str = "silent server";

/// What this bench does not measure, and who does.
pub const NOT_MEASURED: [&str; 2] =
    ["outages of ten minutes, beyond the patience of two", "simulated schedules (`make test`)"];

pub fn targets(report: &Report) -> Vec<Target> {
    let mut all = calls(report);
    all.extend(detection(report));
    all.extend(consumers(report));
    all.extend(itself(report));
    all
}

/// Stalls and errors of those whom nasmount does not know.
fn calls(report: &Report) -> Vec<Target> {
    let ours = [PATIENT, IMPATIENT];
    let known = report.most(&ours, |way| way.longest(|phases| &phases.after, Operation::is_by_path));
    let given_up = report.most(&[IMPATIENT], |way| way.longest(|phases| &phases.before, |_| true));
    let failed: u32 = report.of(&[PATIENT]).map(|way| way.errors(|phases| &phases.before)).sum();
    vec![
        judge("longest call by path begun after detection", known, Bound::Below(0.05), Unit::Seconds),
        judge("longest call in flight, patience 0s", given_up, Bound::Below(16.0), Unit::Seconds),
        judge("calls in flight that failed, patience 2m", Some(failed.into()), Bound::AtMost(0.0), Unit::Count),
    ]
}

/// How soon each kind of outage is known.
fn detection(report: &Report) -> [Target; 3] {
    let rows = [
        ("detection of a silent server", SILENT, 4.0),
        ("detection of a pulled cable", PULLED, 0.5),
        ("detection of a stopped server", STOPPED, 0.5),
    ];
    rows.map(|(what, fault, limit)| {
        let held = report.detection.iter().find(|detection| detection.fault == fault).map(Detection::held);
        judge(what, held, Bound::Below(limit), Unit::Seconds)
    })
}

/// What happened to paused consumers within the patience.
fn consumers(report: &Report) -> Vec<Target> {
    let sum = |figure: fn(&super::report::Consumer) -> u64| {
        let consumers = report.of(&[PATIENT]).flat_map(|way| way.consumers.values());
        Some(consumers.map(figure).sum::<u64>() as f64)
    };
    let online = report.of(&[PATIENT, IMPATIENT]).filter_map(|way| way.online);
    let online = online.chain(report.detection.iter().map(Detection::online)).reduce(f64::max);
    vec![
        judge("errors seen by paused consumers, patience 2m", sum(|one| one.errors), Bound::AtMost(0.0), Unit::Count),
        judge("blocks they lost", sum(|one| one.lost), Bound::AtMost(0.0), Unit::Count),
        judge("server answers again until the share is online", online, Bound::Below(3.0), Unit::Seconds),
    ]
}

/// Poweroff, speed, memory, processor, and the CLI.
fn itself(report: &Report) -> Vec<Target> {
    let ratio = report.speed.iter().filter_map(|speed| speed.ratio()).reduce(f64::min);
    let footprint = &report.footprint;
    let off = report.power_off.iter().find(|one| one.way == PATIENT).map(|one| one.took.seconds);
    let unwritten = report.speed.iter().filter_map(|speed| speed.ways.get(PATIENT)).map(|written| written.unwritten);
    vec![
        judge(
            "unwritten data that an outage can find (most of the block sizes)",
            unwritten.reduce(f64::max).map(|bytes| bytes / BYTES_PER_MIB),
            Bound::Below(4.0),
            Unit::Mebibytes,
        ),
        judge(
            "write speed, of that of a mount with defaults (least of the block sizes)",
            ratio.map(|ratio| ratio * 100.0),
            Bound::Above(80.0),
            Unit::Percent,
        ),
        judge("poweroff with a dead server", off, Bound::Below(15.0), Unit::Seconds),
        memory(footprint),
        judge("processor when idle", Some(footprint.processor), Bound::Below(0.2), Unit::Percent),
        judge("`nasmount status` while everything hangs", Some(footprint.status), Bound::Below(0.02), Unit::Seconds),
    ]
}

/// Resident memory is what is wanted; next to it stands Pss, as both services run the same program, which is in memory once.
fn memory(footprint: &Footprint) -> Target {
    let memory = footprint.memory.iter().find(|memory| memory.shares == SHARES);
    let what = "resident memory, 10 shares on 2 servers";
    let target = judge(what, memory.map(Memory::mib), Bound::Below(12.0), Unit::Mebibytes);
    let pss = memory.map_or_else(String::new, |memory| format!(" (Pss {})", Unit::Mebibytes.text(memory.pss_mib())));
    Target { measured: target.measured + &pss, ..target }
}

fn judge(what: &'static str, measured: Option<f64>, bound: Bound, unit: Unit) -> Target {
    let (words, limit) = match bound {
        Bound::Below(limit) => ("< ", limit),
        Bound::AtMost(limit) => ("", limit),
        Bound::Above(limit) => ("> ", limit),
    };
    let wanted = format!("{words}{}", unit.text(limit));
    let Some(measured) = measured else {
        return Target { what, wanted, measured: "-".to_owned(), verdict: "not measured".to_owned() };
    };
    let reached = match bound {
        Bound::Below(limit) => measured < limit,
        Bound::AtMost(limit) => measured <= limit,
        Bound::Above(limit) => measured > limit,
    };
    let missed = || format!("missed by {}", unit.text((measured - limit).abs()));
    let verdict = if reached { "reached".to_owned() } else { missed() };
    Target { what, wanted, measured: unit.text(measured), verdict }
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Seconds => seconds(value),
            Self::Count => format!("{value:.0}"),
            Self::Percent => format!("{value:.2} %"),
            Self::Mebibytes => format!("{value:.1} MiB"),
        }
    }
}

impl Memory {
    /// Both services.
    pub fn mib(&self) -> f64 {
        (self.daemon_kib + self.barrier_kib) as f64 / KIB_PER_MIB
    }

    /// The same, with what they share counted once.
    pub fn pss_mib(&self) -> f64 {
        (self.daemon_pss_kib + self.barrier_pss_kib) as f64 / KIB_PER_MIB
    }
}
