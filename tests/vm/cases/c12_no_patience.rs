//! Patience zero: what is in flight is given up at once, also towards a hung server, and a paused reader still sees no error.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::{Guest, Job};
use crate::load::{Kind, Load};
use crate::nas::{self, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, mount_point, unharmed};

const FAULTS: [(&str, Fault); 2] = [("link", Fault::Link), ("hang", Fault::Hang)];
/// The promise is detection (4 s) and 12 s. Under TCG the fence rises some seconds later than on a machine, hence the rest;
/// what is asserted is that the outage does not decide when a call ends.
const OUT_WITHIN_MS: f64 = 16_000.0 + 6_000.0;
/// In the control, a hung server's callers are still blocked after this.
const LENGTH: Duration = Duration::from_secs(35);

pub fn run(guest: &Guest) -> Result<String> {
    let servers = nas::up(guest, [5, 6])?;
    let loads: Vec<Load<'_>> = FAULTS.iter().map(|(name, _)| Load::new(guest, name, &[Kind::Reader])).collect();
    let shares: Vec<ShareOf<'_>> = FAULTS
        .iter()
        .zip(servers)
        .zip(&loads)
        .map(|(((name, _), nas), load)| ShareOf {
            name,
            nas,
            source: "media",
            more: "patience = \"0s\"",
            probe: "",
            credentials: None,
            units: vec![load.unit()],
        })
        .collect();
    let nasmount = Nasmount::start(guest, &shares)?;
    let mut strangers = Vec::new();
    let mut started = Vec::new();
    for ((name, _), load) in FAULTS.iter().zip(loads) {
        nasmount.wait_for_state(name, "online")?;
        let load = load.start(&mount_point(name))?;
        load.wait_for_operations(10, DEADLINE)?;
        started.push(load);
        let path = mount_point(name);
        strangers.push(guest.spawn(&format!("/host/guest/stranger.py {path} read --limit 40 --go /run/{name}.go"))?);
        guest.wait_for("the stranger's open file", DEADLINE, &format!("[ -e /run/{name}.go.ready ]"))?;
    }
    let mut outages = Vec::new();
    for ((name, fault), nas) in FAULTS.iter().zip(servers) {
        outages.push(nas.cut(*fault)?);
        guest.ok(&format!("touch /run/{name}.go"))?; // the read begins in the outage, before it is detected
    }
    let mut facts = Vec::new();
    for ((name, _), stranger) in FAULTS.iter().zip(strangers) {
        let report = report(stranger).with_context(|| format!("stranger on {name}"))?;
        let ms = report["ms"].as_f64().unwrap_or(f64::INFINITY);
        ensure!(report["result"] != "blocked" && ms < OUT_WITHIN_MS, "the stranger on {name} met {report}");
        ensure!(ms > 1000.0, "the stranger on {name} was not blocked: {report}");
        facts.push(format!("{name}: a blocked stranger got {} after {:.1} s", report["result"], ms / 1000.0));
    }
    for outage in &outages {
        outage.last(LENGTH)?;
    }
    for (name, _) in FAULTS {
        let share = nasmount.share(name)?;
        ensure!(share["state"] == "holding" && share["given_up"] == true, "share {name} should be given up: {share}");
    }
    for ((name, _), outage) in FAULTS.iter().zip(outages) {
        outage.heal()?;
        nasmount.wait_for_state(name, "online")?;
    }
    for (((name, _), load), nas) in FAULTS.iter().zip(&started).zip(servers) {
        facts.push(unharmed(load, nas).with_context(|| format!("outage by {name}"))?);
    }
    nasmount.remove()?;
    Ok(facts.join("; "))
}

fn report(stranger: Job<'_>) -> Result<Value> {
    let text = stranger.wait(DEADLINE)?.stdout;
    serde_json::from_str(text.trim()).with_context(|| format!("its report is {text:?}"))
}
