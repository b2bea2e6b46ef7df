//! The report as text: Markdown tables that can be read in a terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::report::{Consumer, Cut, Measured, Memory, Operation, Outage, Report, Stall, Took};
use super::targets::{NOT_MEASURED, targets};

/// How each row was measured.
const LEGEND: [&str; 12] = [
    "All ways meet the same fault at the same time, each with a server of its own (Samba behind a virtual cable).",
    "Calls: a process for each way, and in it for each operation a thread that makes a call every two seconds and another one that \
     begins when the outage is old. A cell is the longest call, and all errors of its phase by number. `>` had not returned.",
    "before: begun before the cut, or so soon after it that nobody could know: for nasmount until it held the share, for the \
     others until `after` begins. between: nasmount only, from there to `after`. after: begun later, before the heal.",
    "read, write, fsync use a descriptor from before the cut; stat, open, readdir, statfs look up a path. A write ends in the \
     cache: what it is worth says `lost`.",
    "works again: from the heal until each operation succeeds and does not fail any more.",
    "Consumers: a unit for each way with a reader, a writer with fsync and a buffered writer, five 4 KiB blocks in two seconds each. lost: blocks \
     acknowledged to the buffered writer, or after an fsync, that the server does not have. nasmount pauses them, the others do not know \
     that there is an outage.",
    "Detection: the server of nasmount's patient share alone is cut for some seconds, the kinds in turn; nobody uses the share or asks \
     nasmount meanwhile. held: from right before the fault until nasmount held the share, so that making the fault is part of it (in \
     the outages above, `noticed` begins when the fault is complete). online: from the heal until the share was online; a server that is \
     started is healed when it accepts connections. Median of the runs, and the least and the most of them. After two cuts the daemon is \
     started anew: from the third outage within ten minutes on it trusts a server later.",
    "Unmounting: nobody uses the share, all servers are silent; nasmount first, then all others at the same time. The process start is \
     part of it, and so may be waiting for the others' dead mounts: unmounting flushes work queues that all CIFS mounts of a host share.",
    "poweroff: each way in a boot of its own, with a unit of consumers at work that has systemd's usual 90 s to stop; from the command \
     until the machine is off.",
    "Speed: a file written in sequence on a healthy share, fsync included; median of the runs, the ways in turn. unwritten: Dirty and \
     Writeback in /proc/meminfo of the guest, in which nobody else writes, less what they were before; looked at 40 times a second \
     during the same writing. Of each run the most, of these the median. It cannot be more than the file.",
    "Memory: VmRSS of the main processes of nasmount.service and nasmount-barrier.service, and Pss of their smaps_rollup: what \
     several processes have mapped, as both have the program's text, is divided by their number. The servers of shares that are not \
     mounted do not exist. Processor: the services' control groups, workers and all, over the quiet period. start, status, version: \
     median of the runs, process start included.",
    "Each of the long outages was cut once. On an emulated machine (no KVM) times below a second, processor and speed are those of the \
     emulation: compare them within a run only.",
];

/// Everything.
pub fn render(report: &Report) -> String {
    let mut text = format!("# nasmount and today's ways\n\n{}; medians of {} runs.\n\n", report.machine, report.runs);
    for (name, description) in &report.ways {
        let _ = writeln!(text, "- {name}: {description}");
    }
    for outage in &report.outages {
        let _ = writeln!(text, "\n## {}, {:.0} s\n\n{}", outage.fault, outage.seconds, of_outage(outage));
    }
    let _ = writeln!(text, "\n## Detection, {}\n\n{}", super::targets::PATIENT, detection(report));
    let _ = writeln!(
        text,
        "\n## umount, {:.0} s after the server fell silent\n\n{}",
        report.unmounting_after,
        unmounting(report)
    );
    let _ = writeln!(text, "\n## systemctl poweroff, a moment after the cable was pulled\n\n{}", power_off(report));
    let _ = writeln!(text, "\n## Writing, and what nasmount needs\n\n{}\n\n{}", speed(report), footprint(report));
    let _ = writeln!(text, "\n## Targets\n\n{}", verdicts(report));
    let _ = writeln!(text, "\nNot measured here: {}.", NOT_MEASURED.join("; "));
    for remark in &report.remarks {
        let _ = writeln!(text, "\nRemark: {remark}");
    }
    let _ = writeln!(text, "\n## How it was measured\n");
    for line in LEGEND {
        let _ = writeln!(text, "- {line}");
    }
    text
}

/// A duration as a person writes it.
pub fn seconds(value: f64) -> String {
    if value.abs() < 1.0 { format!("{:.0} ms", value * 1000.0) } else { format!("{value:.1} s") }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

impl Took {
    pub fn text(self) -> String {
        format!("{}{}", if self.ended { "" } else { "> " }, seconds(self.seconds))
    }
}

impl Stall {
    fn text(&self) -> String {
        let Some(longest) = self.longest else { return "-".to_owned() };
        let errors = self.errors.iter().map(|(name, times)| format!(", {times} {name}"));
        longest.text() + &errors.collect::<String>()
    }
}

fn of_outage(outage: &Outage) -> String {
    let mut rows = vec![row("", outage, |way| way.way.clone())];
    for operation in Operation::ALL {
        for phase in ["before", "between", "after"] {
            rows.push(row(&format!("{}, {phase}", operation.name()), outage, |way| call(way, operation, phase)));
        }
    }
    // the others have no such phase, and for nasmount it is there when a call fell into it
    rows.retain(|cells| cells.iter().skip(1).any(|cell| cell != "-"));
    rows.push(row("works again", outage, |way| way.works_again.text()));
    for kind in ["reader", "fsync", "buffered"] {
        rows.push(row(&format!("consumer: {kind}"), outage, |way| {
            way.consumers.get(kind).map_or("-".to_owned(), consumer)
        }));
    }
    rows.push(row("nasmount: noticed", outage, |way| optional(way.noticed)));
    rows.push(row("nasmount: online", outage, |way| optional(way.online)));
    table(rows)
}

fn row(name: &str, outage: &Outage, cell: impl Fn(&Measured) -> String) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(outage.ways.iter().map(cell)).collect()
}

fn call(way: &Measured, operation: Operation, phase: &str) -> String {
    let stall = way.calls.get(&operation).and_then(|phases| phases.all().into_iter().find(|(name, _)| *name == phase));
    stall.map_or_else(|| "-".to_owned(), |(_, stall)| stall.text())
}

fn consumer(account: &Consumer) -> String {
    let Consumer { acked, lost, errors, longest } = account;
    format!("{}, {errors} errors, lost {lost} of {acked}", seconds(*longest))
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), seconds)
}

fn detection(report: &Report) -> String {
    let head = ["", "held", "online", "found"].map(str::to_owned).to_vec();
    let rows = report.detection.iter().map(|detection| {
        let found: BTreeSet<&str> = detection.cuts.iter().map(|cut| cut.found.as_str()).collect();
        let found = found.into_iter().collect::<Vec<_>>().join(", ");
        let held = spread(detection.held(), &detection.cuts, |cut| cut.held);
        let online = spread(detection.online(), &detection.cuts, |cut| cut.online);
        vec![detection.fault.clone(), held, online, found]
    });
    table(std::iter::once(head).chain(rows).collect())
}

/// A median, and between what it lies.
fn spread(median: f64, cuts: &[Cut], figure: fn(&Cut) -> f64) -> String {
    let figures = || cuts.iter().map(figure);
    let (least, most) = (figures().fold(median, f64::min), figures().fold(median, f64::max));
    format!("{} ({}..{})", seconds(median), seconds(least), seconds(most))
}

fn unmounting(report: &Report) -> String {
    let head = ["", "command", "took", "exit code"].map(str::to_owned).to_vec();
    let rows = report
        .unmounting
        .iter()
        .map(|one| vec![one.way.clone(), format!("`{}`", one.command), one.took.text(), one.result.clone()]);
    table(std::iter::once(head).chain(rows).collect())
}

fn power_off(report: &Report) -> String {
    let head = ["", "off after"].map(str::to_owned).to_vec();
    let rows = report.power_off.iter().map(|one| vec![one.way.clone(), one.took.text()]);
    table(std::iter::once(head).chain(rows).collect())
}

fn speed(report: &Report) -> String {
    let names: Vec<&String> = report.speed.first().map(|speed| speed.ways.keys().collect()).unwrap_or_default();
    let mut rows = vec![vec!["size of a write".to_owned(), "of the file".to_owned()]];
    rows[0].extend(names.iter().flat_map(|name| [(*name).clone(), "unwritten".to_owned()]));
    rows[0].push("nasmount, of defaults".to_owned());
    for speed in &report.speed {
        let mut cells = vec![format!("{} KiB", speed.block / 1024), mebibytes(speed.size as f64)];
        for written in speed.ways.values() {
            cells.extend([format!("{:.1} MB/s", written.rate / 1e6), mebibytes(written.unwritten)]);
        }
        cells.push(speed.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)));
        rows.push(cells);
    }
    table(rows)
}

fn footprint(report: &Report) -> String {
    let footprint = &report.footprint;
    let memory =
        footprint.memory.iter().map(|memory| {
            let Memory {
                shares,
                mounted,
                barred,
                daemon_kib,
                barrier_kib,
                daemon_pss_kib,
                barrier_pss_kib,
                anonymous_kib,
            } = memory;
            let kib = [daemon_kib, barrier_kib, anonymous_kib, daemon_pss_kib, barrier_pss_kib]
                .map(|kib| format!("{kib} KiB"));
            let counts = [shares, mounted, barred].map(u32::to_string);
            let both = [memory.mib(), memory.pss_mib()].map(|mib| format!("{mib:.1} MiB"));
            counts.into_iter().chain(kib).chain(both).collect()
        });
    let head = [
        "shares",
        "of them mounted",
        "barriers",
        "daemon",
        "barrier",
        "of both, anonymous",
        "daemon, Pss",
        "barrier, Pss",
        "both",
        "both, Pss",
    ];
    let memory = table(std::iter::once(head.map(str::to_owned).to_vec()).chain(memory).collect());
    format!(
        "{memory}\n\nProcessor, {} shares, over {:.0} quiet seconds: {:.2} % of one; a start of the program then takes {}. \
         `nasmount status` while all servers are dead: {}; `nasmount --version` there: {}.",
        footprint.quiet_shares,
        footprint.quiet_seconds,
        footprint.processor,
        seconds(footprint.start),
        seconds(footprint.status),
        seconds(footprint.version)
    )
}

fn verdicts(report: &Report) -> String {
    let head = ["", "wanted", "measured", ""].map(str::to_owned).to_vec();
    let rows = targets(report)
        .into_iter()
        .map(|target| vec![target.what.to_owned(), target.wanted, target.measured, target.verdict]);
    table(std::iter::once(head).chain(rows).collect())
}

/// The first row is the head.
fn table(rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let mut rows = rows.into_iter();
    table.set_header(rows.next().unwrap_or_default());
    table.add_rows(rows);
    table.to_string()
}
