//! Switching the host off while the server is dead and consumers are at work: a boot for each way.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::report::{PowerOff, Took};
use super::{say, ways};
use crate::guest::Guest;
use crate::nas::Fault;
use crate::nasmount::DEADLINE;

/// A host that is not off by then is not waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// All consumers are at work when each has done so many operations.
const AT_WORK: u64 = 10;

pub fn measure(guest: &Guest) -> Result<Vec<PowerOff>> {
    ways::NAMES.iter().map(|name| one(guest, name).with_context(|| format!("switch off with {name}"))).collect()
}

fn one(guest: &Guest, name: &'static str) -> Result<PowerOff> {
    say(&format!("switching off with {name}"));
    guest.boot_again()?;
    let way = ways::mount_alone(guest, name)?;
    let load = way.load();
    load.install(&way.point)?;
    guest.ok(&format!("systemd-run --quiet --unit={} bash {}", load.unit(), load.script_path()))?;
    load.wait_for_operations(AT_WORK, DEADLINE)?;
    let outage = way.nas.cut(Fault::Link)?;
    let off = guest.power_off(LIMIT, "systemctl poweroff")?;
    outage.forget();
    let took = off.map_or(Took::open(LIMIT.as_secs_f64()), |off| Took::ended(off.as_secs_f64()));
    Ok(PowerOff { way: name.to_owned(), took })
}
