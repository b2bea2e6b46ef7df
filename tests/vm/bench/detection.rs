//! How soon nasmount knows of an outage of each kind, and of its end: short cuts of one server, one after the other.
//!
//! Nobody uses the share, and nobody asks nasmount while it finds out: on an emulated machine the start of a process takes about as long
//! as what is measured. A server that comes and goes is trusted later each time, so no daemon sees more than two cuts.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::report::{Cut, Detection};
use super::targets::{PULLED, SILENT, STOPPED};
use super::ways::Ways;
use crate::nas::Fault;

const KINDS: [(&str, Fault); 3] = [(PULLED, Fault::Link), (STOPPED, Fault::Kill), (SILENT, Fault::Drop)];
/// From the third outage within ten minutes on, a server has to answer for a while before it is trusted.
const CUTS_OF_A_DAEMON: usize = 2;
/// From a cut, or a heal, until nasmount is asked: as long as the slowest that is wanted.
const UNASKED: Duration = Duration::from_secs(4);
/// From a change of state to the next cut: workers end, and the next probes have been.
const SETTLE: Duration = Duration::from_secs(5);

/// So many cuts of each kind; leaves a daemon that has seen none.
pub fn measure(ways: &Ways<'_>, times: u32) -> Result<Vec<Detection>> {
    let mut all = KINDS.map(|(name, _)| Detection { fault: name.to_owned(), cuts: Vec::new() });
    let turns: Vec<usize> = (0..times).flat_map(|_| 0..KINDS.len()).collect();
    for life in turns.chunks(CUTS_OF_A_DAEMON) {
        for turn in life {
            let (name, fault) = KINDS[*turn];
            all[*turn].cuts.push(cut(ways, fault).context(name)?);
        }
        ways.restart_daemon().context("a daemon that has seen no outage")?;
    }
    Ok(all.into())
}

fn cut(ways: &Ways<'_>, fault: Fault) -> Result<Cut> {
    let (share, way) = ways.patient();
    let nasmount = &ways.nasmount;
    ways.guest.ok(&format!("sleep {}", SETTLE.as_secs()))?;
    let outage = way.nas.cut(fault)?;
    thread::sleep(UNASKED);
    let held = nasmount.wait_for_state(share, "holding")? - outage.before;
    let found = found(&nasmount.share(share)?["reason"]);
    let healed = outage.heal()?;
    thread::sleep(UNASKED);
    // a server can answer before all that the heal waits for has been seen
    let online = (nasmount.wait_for_state(share, "online")? - healed).max(0.0);
    Ok(Cut { found, held, online })
}

/// What is wrong with the server, or with what else.
fn found(reason: &Value) -> String {
    let word = reason["verdict"].as_str().or_else(|| reason["kind"].as_str());
    word.unwrap_or("nothing").to_owned()
}
