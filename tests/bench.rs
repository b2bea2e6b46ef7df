//! The pure part of `make bench` (`tests/vm/bench`): from single calls to tables, verdicts and the chart.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "vm/bench/report.rs"]
mod report;
#[path = "vm/bench/stalls.rs"]
mod stalls;
#[path = "vm/bench/svg.rs"]
mod svg;
#[path = "vm/bench/table.rs"]
mod table;
#[path = "vm/bench/targets.rs"]
mod targets;

use std::collections::BTreeMap;

use report::{
    Consumer, Cut, Detection, Footprint, Measured, Memory, Operation, Outage, PowerOff, Report, Speed, Took,
    Unmounting, Written,
};
use stalls::{Calls, Moments};

/// Cut at 100, noticed at 104, late from 115, healed at 160, watched until 200.
const MOMENTS: Moments = Moments { noticed: 104.0, late: 115.0, healed: 160.0 };

fn calls(list: serde_json::Value) -> Calls {
    serde_json::from_value(serde_json::json!({ "stopped": 200.0, "calls": list })).unwrap()
}

#[test]
fn a_call_belongs_to_the_phase_in_which_it_was_begun() {
    let calls = calls(serde_json::json!([
        ["stat", 99.0, 99.1, "ok"],
        ["stat", 100.1, 130.1, "EHOSTDOWN"],
        ["stat", 105.0, 105.2, "EHOSTDOWN"],
        ["stat", 120.0, 121.0, "EAGAIN"],
        ["stat", 121.0, 122.0, "EAGAIN"],
        ["stat", 161.0, 199.0, "EIO"],
    ]));
    let phases = &calls.phases(MOMENTS)[&Operation::Stat];
    assert_eq!(phases.before.longest, Some(Took::ended(30.0)));
    assert_eq!((phases.before.calls, phases.before.result.as_str()), (2, "EHOSTDOWN"));
    assert_eq!(phases.between.calls, 1);
    assert_eq!(
        phases.after.errors,
        BTreeMap::from([("EAGAIN".to_owned(), 2)]),
        "what comes after the heal is no stall"
    );
}

#[test]
fn a_call_that_has_not_returned_is_as_long_as_it_was_watched() {
    let calls = calls(serde_json::json!([["read", 120.0, 150.0, "EAGAIN"], ["read", 150.0, null, ""]]));
    let after = &calls.phases(MOMENTS)[&Operation::Read].after;
    assert_eq!(after.longest, Some(Took::open(50.0)));
    assert_eq!((after.calls, after.result.as_str(), after.errors.len()), (2, "", 1));
}

#[test]
fn a_share_works_again_when_the_last_operation_does_and_none_fails_after_that() {
    let all = |result: &str, end: f64| -> Vec<serde_json::Value> {
        Operation::ALL.iter().map(|operation| serde_json::json!([operation.name(), 150.0, end, result])).collect()
    };
    let mut list = all("ok", 162.0);
    assert_eq!(calls(list.clone().into()).works_again(160.0), Took::ended(2.0));
    list.push(serde_json::json!(["open", 163.0, 165.0, "EAGAIN"]));
    assert_eq!(calls(list.clone().into()).works_again(160.0), Took::open(40.0), "nothing has succeeded since");
    list.push(serde_json::json!(["open", 165.0, 166.0, "ok"]));
    assert_eq!(calls(list.into()).works_again(160.0), Took::ended(6.0));
    assert_eq!(calls(all("ok", 159.0).into()).works_again(160.0), Took::open(40.0), "that was before the heal");
}

#[test]
fn each_figure_of_a_median_is_the_middle_one_of_its_own() {
    let runs = serde_json::json!([
        { "rate": 30e6, "unwritten": 200.0 },
        { "rate": 10e6, "unwritten": 300.0 },
        { "rate": 20e6, "unwritten": 100.0 },
    ]);
    let runs: Vec<Written> = serde_json::from_value(runs).unwrap();
    assert_eq!(Written::median(&runs), Written { rate: 20e6, unwritten: 200.0 });
    let cuts = cuts("pulled cable", "no_link", [(0.4, 2.0), (0.3, 9.0), (0.9, 1.0)]);
    assert_eq!((cuts.held(), cuts.online()), (0.4, 2.0));
}

/// Short cuts, each by when the share was held and online.
fn cuts(fault: &str, found: &str, cuts: [(f64, f64); 3]) -> Detection {
    let cuts = cuts.map(|(held, online)| Cut { found: found.to_owned(), held, online });
    Detection { fault: fault.to_owned(), cuts: cuts.into() }
}

/// A run in which nasmount failed nobody, and a mount with defaults did.
fn report() -> Report {
    let good = calls(serde_json::json!([["stat", 100.0, 161.0, "ok"], ["stat", 120.0, 120.01, "EHOSTDOWN"]]));
    let bad = calls(serde_json::json!([["stat", 100.0, null, ""], ["stat", 120.0, 130.0, "EHOSTDOWN"]]));
    let way = |way: &str, calls: &Calls, lost, noticed| Measured {
        way: way.to_owned(),
        calls: calls.phases(MOMENTS),
        works_again: calls.works_again(MOMENTS.healed),
        consumers: BTreeMap::from([("buffered".to_owned(), Consumer { acked: 500, lost, errors: lost, longest: 1.5 })]),
        noticed,
        online: noticed,
    };
    let ways = vec![
        way("defaults", &bad, 150, None),
        way(targets::PATIENT, &good, 0, Some(3.5)),
        way(targets::IMPATIENT, &good, 0, Some(2.0)),
    ];
    let umount = |way: &str, took| Unmounting { way: way.into(), command: "umount".into(), took, result: "0".into() };
    let memory = Memory {
        shares: targets::SHARES,
        mounted: 10,
        barred: 10,
        daemon_kib: 6144,
        barrier_kib: 4096,
        daemon_pss_kib: 4096,
        barrier_pss_kib: 3584,
        anonymous_kib: 3000,
    };
    Report {
        machine: "a machine".to_owned(),
        runs: 3,
        ways: vec![("defaults".to_owned(), "as they are".to_owned())],
        detection: vec![
            cuts(targets::PULLED, "no_link", [(0.3, 1.0), (0.4, 1.0), (0.9, 1.0)]),
            cuts(targets::SILENT, "silent", [(3.1, 1.0), (3.2, 3.6), (3.3, 4.0)]),
        ],
        outages: vec![Outage { fault: "silence".to_owned(), seconds: 60.0, late: 15.0, ways }],
        unmounting_after: 10.0,
        unmounting: vec![umount("defaults", Took::open(60.0)), umount(targets::PATIENT, Took::ended(0.4))],
        power_off: vec![
            PowerOff { way: "defaults".into(), took: Took::open(120.0) },
            PowerOff { way: targets::PATIENT.into(), took: Took::ended(5.0) },
        ],
        speed: vec![Speed {
            block: 65536,
            size: 24 << 20,
            ways: BTreeMap::from([
                ("defaults".to_owned(), Written { rate: 40e6, unwritten: f64::from(23 << 20) }),
                (targets::PATIENT.to_owned(), Written { rate: 10e6, unwritten: f64::from(160 << 10) }),
            ]),
        }],
        footprint: Footprint {
            memory: vec![memory],
            quiet_seconds: 600.0,
            quiet_shares: 10,
            processor: 0.1,
            start: 0.002,
            status: 0.012,
            version: 0.004,
        },
        remarks: vec!["something".to_owned()],
    }
}

#[test]
fn each_target_is_reached_or_missed_by_so_much() {
    let verdicts: Vec<String> = targets::targets(&report())
        .into_iter()
        .map(|target| format!("{}: {} for {}: {}", target.what, target.measured, target.wanted, target.verdict))
        .collect();
    for expected in [
        "longest call by path begun after detection: 10 ms for < 50 ms: reached",
        "longest call in flight, patience 0s: 61.0 s for < 16.0 s: missed by 45.0 s",
        "calls in flight that failed, patience 2m: 0 for 0: reached",
        "detection of a silent server: 3.2 s for < 4.0 s: reached",
        "detection of a pulled cable: 400 ms for < 500 ms: reached",
        "detection of a stopped server: - for < 500 ms: not measured",
        "server answers again until the share is online: 3.6 s for < 3.0 s: missed by 600 ms",
        "unwritten data that an outage can find (most of the block sizes): 0.2 MiB for < 4.0 MiB: reached",
        "write speed, of that of a mount with defaults (least of the block sizes): 25.00 % for > 80.00 %: missed by 55.00 %",
        "poweroff with a dead server: 5.0 s for < 15.0 s: reached",
        "resident memory, 10 shares on 2 servers: 10.0 MiB (Pss 7.5 MiB) for < 12.0 MiB: reached",
    ] {
        assert!(verdicts.iter().any(|verdict| verdict == expected), "no {expected:?} in {verdicts:#?}");
    }
}

#[test]
fn the_tables_drop_nothing() {
    let text = table::render(&report());
    for expected in [
        "> 100.0 s",
        "10.0 s, 1 EHOSTDOWN",
        "lost 150 of 500",
        "noticed",
        "400 ms (300 ms..900 ms)",
        "3.6 s (1.0 s..4.0 s)",
        "no_link",
        "> 60.0 s",
        "> 120.0 s",
        "23.0 MiB",
        "0.2 MiB",
        "25 %",
        "3584 KiB",
        "7.5 MiB",
        "Remark: something",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    assert!(!text.contains("between |"), "a phase that nothing fell into has no row:\n{text}");
}

#[test]
fn the_chart_has_a_bar_for_each_way_in_each_group_and_escapes_its_words() {
    let chart = svg::render(&report());
    assert_eq!(chart.matches("<rect").count(), 5 * 3, "{chart}");
    assert!(chart.contains("&gt; 100.0 s") && !chart.contains(">> "), "{chart}");
}

#[test]
fn what_is_written_as_json_can_be_read_again() {
    let text = serde_json::to_string(&report()).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
}
