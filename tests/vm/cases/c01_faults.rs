//! Every kind of fault is one, seen from the host's side of the cable, and its guard undoes it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::nas::{self, At, Fault, Nas};

/// A healthy server answers in less than a second under TCG; a SYN that was lost is sent again after 1 and 3 s.
const HEALTHY_LIMIT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is silent.
const SILENT_LIMIT: Duration = Duration::from_secs(3);
/// `slow` delays each answer by 500 ms.
const SLOW_MS: f64 = 490.0;

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [1])?;
    guards_its_secret(guest, nas)?;
    let mut facts = Vec::new();
    for fault in Fault::ALL {
        let name = fault.name();
        let fact = one(nas, fault).with_context(|| format!("fault {name}"))?;
        facts.push(format!("{name}: {fact}"));
    }
    // later cases meet the NAS as earlier ones have left it
    answers(nas.at(At::Ipv6)).context("after all of them")?;
    Ok(facts.join("; "))
}

/// Before, during and after one fault; what was seen during it.
fn one(nas: Nas<'_>, fault: Fault) -> Result<String> {
    answers(nas).context("before")?;
    let outage = nas.cut(fault)?;
    let seen = nas.probe(if fault == Fault::Slow { HEALTHY_LIMIT } else { SILENT_LIMIT })?;
    ensure!(expected(fault, &seen), "during it the server gave {seen}");
    // One of the guards is left to its Drop, which has to do the same.
    if fault == Fault::Drop {
        drop(outage);
    } else {
        outage.heal()?;
    }
    answers(nas).context("after")?;
    let why = seen["why"].as_str().unwrap_or_default();
    Ok(if fault == Fault::Slow {
        format!("answers after {} ms", seen["answer_ms"])
    } else {
        format!("{} {why}", seen["result"].as_str().unwrap_or_default())
    })
}

/// The share `secret` opens for nasuser and for nobody else: what the cases about passwords rely on.
fn guards_its_secret(guest: &Guest, nas: Nas<'_>) -> Result<()> {
    let source = nas.source("secret");
    let mount = |password: &str| {
        guest.write_file("/run/secret.cred", &format!("username=nasuser\npassword={password}\n"))?;
        guest
            .run(&format!("mkdir -p /mnt/secret && mount -t cifs {source} /mnt/secret -o credentials=/run/secret.cred"))
    };
    let refused = mount("wrong")?;
    ensure!(refused.stderr.contains("(13)"), "a wrong password was answered with {refused:?}");
    let admitted = mount("pw1,with comma")?;
    ensure!(admitted.code == 0, "the right password was answered with {admitted:?}");
    guest.ok("touch /mnt/secret/written && umount /mnt/secret")?;
    guest.ok(&format!("test -e {}/written", nas.export("secret"))).map(drop)
}

fn answers(nas: Nas<'_>) -> Result<()> {
    let seen = nas.probe(HEALTHY_LIMIT)?;
    ensure!(seen["result"] == "ok", "the server at {} gave {seen}", nas.address());
    Ok(())
}

fn expected(fault: Fault, seen: &Value) -> bool {
    let result = |wanted: &str| seen["result"] == wanted;
    let silent = result("no connection") && seen["why"] != "ECONNREFUSED";
    match fault {
        Fault::Link | Fault::Drop | Fault::Power => silent,
        Fault::Kill => result("no connection") && seen["why"] == "ECONNREFUSED",
        Fault::Hang => result("no answer") && seen["why"] == "timeout",
        Fault::Slow => result("ok") && seen["answer_ms"].as_f64().is_some_and(|ms| ms > SLOW_MS),
    }
}
