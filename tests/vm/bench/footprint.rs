//! What nasmount itself needs: memory with more and more shares, and the processor while nothing happens.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::commands;
use super::report::{Footprint, Memory, median};
use super::targets::SHARES;
use crate::guest::{Guest, number};
use crate::nas::{self, Nas};
use crate::nasmount::{Nasmount, ShareOf};

/// Mounting is one share at a time on the whole host, a second each under emulation; so are barriers.
const GROWTH_DEADLINE: Duration = Duration::from_secs(300);
/// Shares of a server that is not there: mounting so many would take minutes, and probing them the whole emulated machine.
const GROWTH: [u32; 2] = [50, 200];
/// From the last change of state to a measurement: workers end, and the first probes have been.
const SETTLE: Duration = Duration::from_secs(15);

const START_LIMIT: Duration = Duration::from_secs(20);

/// Both services; their memory is that of their main processes, workers live for moments.
const SERVICES: [&str; 2] = ["nasmount", "nasmount-barrier"];

/// Measures a nasmount of its own; the shares are left to the end of the guest.
pub fn measure(guest: &Guest, quiet: Duration, times: u32) -> Result<Footprint> {
    let servers = nas::up(guest, [8, 9])?;
    let first = ShareOf {
        name: "s001",
        nas: servers[0],
        source: "media",
        more: "profile = \"media\"",
        probe: "",
        credentials: None,
        units: Vec::new(),
    };
    let nasmount = Nasmount::start(guest, &[first])?;
    nasmount.wait_for_state("s001", "online")?;
    let mut memory = vec![occupied(guest, 1, 1)?];
    grow(guest, servers, SHARES)?;
    memory.push(occupied(guest, SHARES, SHARES)?);
    let processor = processor(guest, quiet)?;
    let mut starts = Vec::new();
    for run in commands::run(guest, START_LIMIT, times, &[("start", "nasmount --version")])?.into_values().flatten() {
        starts.push(run.seconds);
    }
    for shares in GROWTH {
        grow(guest, servers, shares)?;
        memory.push(occupied(guest, shares, SHARES)?);
    }
    Ok(Footprint {
        memory,
        quiet_seconds: quiet.as_secs_f64(),
        quiet_shares: SHARES,
        processor,
        start: median(starts),
        status: 0.0,
        version: 0.0,
    })
}

/// Has so many shares configured: the first on both servers, the rest on one that is not there.
fn grow(guest: &Guest, [one, other]: [Nas<'_>; 2], shares: u32) -> Result<()> {
    let mut text = format!("[server.other]\nhost = \"{}\"\n", other.address());
    if shares > SHARES {
        // a neighbour that no machine has: nobody answers ARP
        let _ = writeln!(text, "[server.absent]\nhost = \"{}9\"", one.address());
    }
    for number in 2..=shares {
        let server = match number {
            number if number > SHARES => "absent",
            number if number > SHARES / 2 => "other",
            _ => "s001",
        };
        let _ = writeln!(
            text,
            "[share.s{number:03}]\nserver = \"{server}\"\nsource = \"media\"\nprofile = \"media\"\nmount_point = \"/mnt/nm-s{number:03}\""
        );
    }
    guest.write_file("/etc/nasmount/conf.d/bench.toml", &text)?;
    guest.run_within(GROWTH_DEADLINE, "nasmount reload").context("take over more shares")?;
    let settled = format!(
        "nasmount status --json >/run/grown; [ $(grep -c '\"state\": \"online\"' /run/grown) = {} ] && \
         [ $(grep -c '\"state\": \"offline\"' /run/grown) = {} ] || {{ sleep 1; false; }}",
        SHARES,
        shares - SHARES
    );
    guest.wait_for(&format!("{shares} shares"), GROWTH_DEADLINE, &settled).map(drop)
}

fn occupied(guest: &Guest, shares: u32, mounted: u32) -> Result<Memory> {
    guest.ok(&format!("sleep {}", SETTLE.as_secs()))?;
    let of = |service| format!("/proc/$(systemctl show --property=MainPID --value {service})/{{status,smaps_rollup}}");
    let files = SERVICES.map(of);
    let read = "/^VmRSS:|^Pss:/ { print $2 } /^RssAnon:/ { own += $2 } END { print own }";
    let barred = "awk '$3 == \"autofs\" && $2 ~ /nm-s/' /proc/mounts | wc -l";
    let said = guest.ok(&format!("awk '{read}' {}; {barred}", files.join(" ")))?;
    let figures = said.lines().map(|line| Ok(number(line)? as u64)).collect::<Result<Vec<u64>>>()?;
    let [daemon_kib, daemon_pss_kib, barrier_kib, barrier_pss_kib, anonymous_kib, barred] = figures[..] else {
        bail!("memory was said to be {said:?}");
    };
    let barred = u32::try_from(barred)?;
    Ok(Memory { shares, mounted, barred, daemon_kib, barrier_kib, daemon_pss_kib, barrier_pss_kib, anonymous_kib })
}

/// Per cent of one processor over a period in which nothing happens.
fn processor(guest: &Guest, quiet: Duration) -> Result<f64> {
    let files = SERVICES.map(|service| format!("/sys/fs/cgroup/system.slice/{service}.service/cpu.stat")).join(" ");
    let read =
        format!("awk '/^usage_usec/ {{ used += $2 }} END {{ print used / 1e6 }}' {files}; cut -d' ' -f1 /proc/uptime");
    let said = guest.run_within(quiet + GROWTH_DEADLINE, &format!("{read}; sleep {}; {read}", quiet.as_secs()))?.stdout;
    let figures = said.lines().map(number).collect::<Result<Vec<f64>>>()?;
    let [used, begin, used_later, end] = figures[..] else {
        bail!("the processor's use was said to be {said:?}");
    };
    Ok((used_later - used) / (end - begin) * 100.0)
}
