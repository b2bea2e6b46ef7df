//! What is wrong with a share, and with a server: `nasmount diagnose` names the step, the cause and what to do, with and without the
//! daemon, and leaves nothing behind.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf};

const CREDENTIALS: &str = "/etc/nasmount/case.cred";
const RIGHT: &str = "username=nasuser\npassword=pw1,with comma\n";
const WRONG: &str = "username=nasuser\npassword=wrong\n";

/// Each answer of a slow server is 500 ms late.
const SLOW_MS: f64 = 490.0;

pub fn run(guest: &Guest) -> Result<String> {
    // nothing is mounted from the second: what happens to it concerns nobody else
    let [nas, bare] = nas::up(guest, [1, 2])?;
    log_in_with(guest, RIGHT)?;
    let share = |name, source, credentials| ShareOf {
        name,
        nas,
        source,
        more: match name {
            "old" => "options = { vers = \"2.0\" }",
            "plain" => "options = { vers = \"2.1\" }",
            _ => "",
        },
        probe: "",
        credentials,
        units: Vec::new(),
    };
    let shares = [
        share("fine", "media", None),
        share("secret", "secret", Some(CREDENTIALS)),
        share("guest", "secret", None),
        share("unknown", "nothing-of-this-name", None),
        share("deep", "media/not/there", None),
        share("old", "media", None),
        share("plain", "secret", Some(CREDENTIALS)),
    ];
    let nasmount = Nasmount::start(guest, &shares)?;
    nasmount.wait_for_state("fine", "online")?;
    let by_address = fine(guest, &format!("smb://{}/MEDIA", nas.address()))?;
    ensure!(by_address["share"] == "fine" && by_address["state"] == "online", "{by_address}");
    let said = guest.ok("nasmount diagnose fine").context("a share that is mounted")?;
    ensure!(said.contains("fine is online in nasmount"), "{said}");
    guest.ok("systemctl stop nasmount")?; // the rest is seen without it
    let mut facts = of_shares(guest, nas)?;
    facts.extend(of_a_server(guest, bare)?);
    guest.ok("systemctl start nasmount")?;
    nasmount.wait_for_state("fine", "online")?;
    nasmount.remove()?;
    Ok(facts.join("; "))
}

fn log_in_with(guest: &Guest, login: &str) -> Result<()> {
    guest.write_file(CREDENTIALS, login)?;
    guest.ok(&format!("chmod 600 {CREDENTIALS}")).map(drop)
}

fn of_shares(guest: &Guest, nas: Nas<'_>) -> Result<Vec<String>> {
    fine(guest, "fine --write")?;
    fine(guest, "secret --write")?;
    let left = guest.ok(&format!("ls -A {} {} | grep diagnose || true", nas.export("media"), nas.export("secret")))?;
    ensure!(left.is_empty(), "left behind: {left}");
    let mut facts = vec![
        failed(guest, "guest", "share", "guest")?,
        failed(guest, "unknown", "share", "no share of this name")?,
        failed(guest, "deep", "path", "not/there is not in it")?,
    ];
    log_in_with(guest, WRONG)?;
    facts.push(failed(guest, "secret", "login", "another password")?);
    log_in_with(guest, RIGHT)?;
    nas.change("disable")?;
    facts.push(failed(guest, "secret", "login", "disabled")?);
    nas.change("enable")?;
    nas.change("lock")?;
    facts.push(failed(guest, "secret", "login", "locked the account")?);
    nas.change("unlock")?;
    fine(guest, "plain")?;
    let document = changed(guest, nas, "private", "plain", "demands encryption")?;
    facts.push(blamed(&document, "plain", "share", "demands encryption")?);
    fine(guest, "secret").context("SMB 3 encrypts by itself where it has to")?;
    changed(guest, nas, "open", "plain", "\"cause\": null")?;
    guest.ok(&format!("chmod 644 {CREDENTIALS}"))?;
    facts.push(failed(guest, "secret", "credentials", "cannot be used")?);
    guest.ok(&format!("chmod 600 {CREDENTIALS}"))?;
    fine(guest, "secret")?;
    let document = changed(guest, nas, "read-only", "fine --write", "read, and not write")?;
    facts.push(blamed(&document, "fine --write", "write", "read, and not write")?);
    changed(guest, nas, "writable", "fine --write", "\"cause\": null")?;
    let document = changed(guest, nas, "remove", "fine", "no share of this name")?;
    facts.push(blamed(&document, "fine", "share", "no share of this name").context("a share that is switched off")?);
    changed(guest, nas, "restore", "fine", "\"cause\": null")?;
    let document = changed(guest, nas, "modern", "old", "the server speaks 3.1.1")?;
    facts.push(blamed(&document, "old", "dialect", "the server speaks 3.1.1")?);
    let none = guest.run("nasmount diagnose nobody")?;
    ensure!(none.code == 4, "a share that is not configured: {none:?}");
    Ok(facts)
}

fn of_a_server(guest: &Guest, nas: Nas<'_>) -> Result<Vec<String>> {
    let host = nas.address();
    let mut facts = vec![failed(guest, "no-such-host.invalid", "name", "cannot be resolved")?];
    let document = changed(guest, nas, "ancient", &host, "SMB 1 is all")?;
    facts.push(blamed(&document, &host, "dialect", "SMB 1")?);
    changed(guest, nas, "current", &host, "\"cause\": null")?;
    changed(guest, nas, "strict", &host, "signing is required")?;
    changed(guest, nas, "lenient", &host, "signing is possible")?;
    nas.change("skew")?;
    let said = step(&fine(guest, &host)?, "clock")?["message"].to_string();
    ensure!(said.contains(" s ahead: too far for Kerberos"), "a clock an hour ahead: {said}");
    nas.change("straight")?;
    // every kind of fault is one, also without a daemon
    for (fault, step, cause) in [
        (Fault::Link, "link", "no cable"),
        (Fault::Drop, "port", "swallows"),
        (Fault::Kill, "port", "its SMB service is not"),
        (Fault::Hang, "dialect", "hangs"),
        (Fault::Power, "link", "no cable"),
    ] {
        let outage = nas.cut(fault)?;
        facts.push(failed(guest, &host, step, cause).with_context(|| fault.name())?);
        outage.heal()?;
        fine(guest, &host).with_context(|| format!("after {}", fault.name()))?;
    }
    let late = nas.cut(Fault::Slow)?;
    let said = step(&fine(guest, &host)?, "latency")?["message"].to_string();
    let took = said.split_once("answers ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    ensure!(took > Some(SLOW_MS), "a server that is slow: {said}");
    late.heal()?;
    fine(guest, &host)?;
    Ok(facts)
}

/// A server takes over its configuration some time after it was told to; the diagnosis that says so.
fn changed(guest: &Guest, nas: Nas<'_>, what: &str, of: &str, said: &str) -> Result<Value> {
    nas.change(what)?;
    let asked = format!("nasmount diagnose {of} --json >/run/diagnosis; grep -q '{said}' /run/diagnosis");
    guest.wait_for(what, DEADLINE, &asked)?;
    guest.json("cat /run/diagnosis")
}

/// Everything that was tried went well.
fn fine(guest: &Guest, of: &str) -> Result<Value> {
    let document = guest.json(&format!("nasmount diagnose {of} --json"))?;
    ensure!(document["cause"].is_null(), "{document}");
    Ok(document)
}

fn step(document: &Value, name: &str) -> Result<Value> {
    let steps = document["steps"].as_array().context("no steps")?;
    steps.iter().find(|step| step["step"] == name).cloned().with_context(|| format!("no step {name} in {document}"))
}

/// It ends with 3, at this step and for this cause, and knows what to do.
fn failed(guest: &Guest, of: &str, name: &str, cause: &str) -> Result<String> {
    let output = guest.run(&format!("nasmount diagnose {of} --json"))?;
    ensure!(output.code == 3, "diagnose {of}: {output:?}");
    ensure!(!output.stdout.contains("wrong"), "the password is shown: {output:?}");
    let document = serde_json::from_str(&output.stdout).with_context(|| format!("diagnose {of}: {output:?}"))?;
    blamed(&document, of, name, cause)
}

fn blamed(document: &Value, of: &str, name: &str, cause: &str) -> Result<String> {
    ensure!(step(document, name)?["outcome"] == "failed", "diagnose {of}: not {name} failed: {document}");
    let said = document["cause"].as_str().unwrap_or_default();
    ensure!(said.contains(cause) && document["fix"].is_string(), "diagnose {of}: {document}");
    Ok(format!("{of}: {name}"))
}
