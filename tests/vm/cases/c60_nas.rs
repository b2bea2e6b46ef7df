//! What a NAS's administrator does while its shares are in use, and a NAS that stays away for longer than the patience.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point};

const CREDENTIALS: &str = "/etc/nasmount/case.cred";
/// NT hash of "pw2", and what the NAS's administrator has written instead of the old one.
const OTHER_PASSWORD: &str = "password D25B088BA6991B38A960C3CFCA03953C";
/// A NAS locks an account, or the address it comes from, after so many failed logins (Synology's default).
const LOCKED_AFTER: u32 = 10;
const PROBED_OFTEN: &str = "probe_interval = \"5s\"";
/// Nothing limits what is unwritten, so that there is something to be lost.
const IMPATIENT: &str = "patience = \"8s\"\nhold_for = \"forever\"\ndirty_limit = \"none\"";
const BRIEF: &str = "probe_interval = \"5s\"\npatience = \"10s\"\nhold_for = \"10s\"";
/// The patience, 12 s until what was in flight has ended, and time to see it.
const BEYOND: Duration = Duration::from_secs(25);

pub fn run(guest: &Guest) -> Result<String> {
    let [gone, full, login, beyond, miser] = nas::up(guest, [5, 6, 7, 8, 9])?;
    miser.change("miser")?;
    login.change("modern")?;
    guest.write_file(CREDENTIALS, "username=nasuser\npassword=pw1,with comma\n")?;
    guest.ok(&format!("chmod 600 {CREDENTIALS}"))?;
    let load = Load::new(guest, "beyond", &Kind::ALL);
    let share = |name, nas, source, more| ShareOf {
        name,
        nas,
        source,
        more,
        probe: UNHURRIED,
        credentials: (name == "login").then_some(CREDENTIALS),
        units: if name == "beyond" { vec![load.unit()] } else { Vec::new() },
    };
    let shares = [
        share("gone", gone, "media", PROBED_OFTEN),
        share("full", full, "media", ""),
        share("login", login, "secret", ""),
        share("beyond", beyond, "media", IMPATIENT),
        share("miser", miser, "media", BRIEF),
    ];
    let nasmount = Nasmount::start(guest, &shares)?;
    for share in &shares {
        nasmount.wait_for_state(share.name, "online")?;
    }
    let load = load.start(&mount_point("beyond"))?;
    load.wait_for_operations(10, DEADLINE)?;
    gone.change("remove")?; // what follows from either takes a while
    miser.change("starve")?;
    let spender = guest.spawn(&format!("while touch {}/spent; do true; done", mount_point("miser")))?;
    let said = what_the_server_says_is_handed_on(guest, &nasmount, full)?;
    let logins = password_changed(guest, &nasmount, login)?;
    let lost = beyond_the_patience(guest, &nasmount, &load, beyond)?;
    missing_until_it_is_back(guest, &nasmount, gone)?;
    starved_until_it_is_fed(guest, &nasmount, miser)?;
    spender.wait(DEADLINE)?;
    nasmount.remove()?;
    Ok(format!(
        "{said}; {logins} refused logins; {lost}; a share that was removed and one without credits came back by themselves"
    ))
}

/// A share that is read-only or full, and files that were replaced: the server's own answer, at once, and the share is online.
fn what_the_server_says_is_handed_on(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<String> {
    let path = mount_point("full");
    guest.ok(&format!("cd {path} && dd if=/dev/zero of=big bs=64k count=4 conv=fsync status=none"))?;
    // the server closes the share to change it: a call at that moment meets EREMCHG, and nasmount may hold the share for it
    nas.change("read-only")?;
    let refused = format!("touch {path}/another 2>&1 | grep -q 'Permission denied' && cat {path}/film.00");
    guest.wait_for("the share to be read-only", DEADLINE, &refused)?;
    nas.change("writable")?;
    guest.wait_for("the share to be writable", DEADLINE, &format!("touch {path}/another && rm {path}/another"))?;
    nasmount.wait_for_state("full", "online")?;
    nas.change("fill")?;
    let writing = format!("cd {path} && dd if=/dev/zero of=big bs=64k count=40 conv=notrunc,fsync status=none");
    let met = guest.run(&writing)?;
    ensure!(met.code != 0 && met.stderr.contains("No space left"), "writing to a full share met {met:?}");
    nas.change("empty")?;
    guest.ok(&format!("cd {path} && dd if=/dev/zero of=big bs=64k count=4 conv=fsync status=none"))?;
    let reader = format!(
        "exec 3<{path}/big; touch /run/opened; until [ -e /run/replaced ]; do sleep 0.1; done; cat <&3 >/dev/null"
    );
    let reader = guest.spawn(&reader)?;
    guest.wait_for("the open file", DEADLINE, "[ -e /run/opened ]")?;
    nas.change("recreate")?; // and big is not there any more
    let report = nasmount.share("full")?;
    ensure!(report["state"] == "online" && report["loss"].is_null(), "the share is {report}");
    nas.cut(Fault::Kill)?.heal()?; // until then the server itself keeps the file for who has it open
    nasmount.wait_for_state("full", "online")?;
    guest.ok("echo 1 >/proc/sys/vm/drop_caches && touch /run/replaced")?;
    let gone = reader.wait(DEADLINE)?;
    ensure!(gone.code != 0, "reading a file that is gone met {gone:?}");
    guest.ok(&format!("[ $(cat {path}/film.02 | wc -c) = 100 ]")).context("a file that was made anew")?;
    let met = gone.stderr.rsplit(": ").next().unwrap_or_default().trim();
    Ok(format!("read-only, full and replaced: online, and the server's own answers; a file that is gone: {met}"))
}

/// The session goes on with the old password; when it is lost, the new one is asked for a few times, not until the account is locked.
fn password_changed(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<u32> {
    let path = mount_point("login");
    let begun = guest.ok("date +%s.%N")?;
    nas.change(OTHER_PASSWORD)?;
    guest.ok(&format!("touch {path}/still && ls {path}"))?;
    ensure!(nasmount.share("login")?["state"] == "online", "a session does not end with its password");
    nas.cut(Fault::Kill)?.heal()?;
    nasmount.wait_for_state("login", "blocked")?;
    let report = nasmount.share("login")?;
    ensure!(report["reason"]["failure"]["class"] == "credentials", "the reason is {}", report["reason"]);
    barred(guest, &path, "ls,create")?;
    guest.ok("! grep /secret /proc/self/mountinfo").context("the mount is still there, and tries on")?;
    let count = format!("journalctl -b -k --since @{begun} | grep -c STATUS_LOGON_FAILURE");
    let refused: u32 = guest.ok(&count)?.parse().context("a count")?;
    ensure!((1..LOCKED_AFTER).contains(&refused), "{refused} logins were refused");
    guest.ok(&format!("printf 'username=nasuser\\npassword=pw2\\n' >{CREDENTIALS} && nasmount mount login"))?;
    nasmount.wait_for_state("login", "online")?;
    Ok(refused)
}

/// What is lost after all is said: which share, when, which files of whom. A reader never meets an error.
fn beyond_the_patience(guest: &Guest, nasmount: &Nasmount<'_>, load: &Load<'_>, nas: Nas<'_>) -> Result<String> {
    ensure!(nasmount.share("beyond")?["loss"].is_null(), "a loss before there was one");
    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("beyond", "holding")?;
    // what was written since the last flush would else be sent up to 30 s later, when the NAS is back, and not be lost
    guest.spawn("sync")?;
    outage.last(BEYOND)?;
    outage.heal()?;
    nasmount.wait_for_state("beyond", "online")?;
    let said = nasmount.share("beyond")?["loss"]["what"].as_str().unwrap_or_default().to_owned();
    load.wait_for_operations(5, DEADLINE)?;
    let accounts = load.finish(nas, DEADLINE)?;
    let (reader, buffered) = (&accounts[&Kind::Reader], &accounts[&Kind::Buffered]);
    ensure!(reader.failures() == 0 && reader.wrong == 0, "the reader saw errors: {:?}", reader.errors);
    ensure!(buffered.lost > 0, "nothing was lost, so nothing could be said");
    for word in [load.unit(), "python3".to_owned(), "beyond.buffered".to_owned()] {
        ensure!(said.contains(&word), "{} blocks were lost, and nasmount says {said:?}, not {word}", buffered.lost);
    }
    Ok(format!("{} blocks lost beyond the patience, and said: {said:?}", buffered.lost))
}

/// A server that answers and gives no credits has every call wait once those there were are spent: its share is given up, and tried
/// until it is better.
fn starved_until_it_is_fed(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    nasmount.wait_for_state("miser", "offline")?;
    barred(guest, &mount_point("miser"), "ls,create")?;
    nas.change("feed")?;
    nasmount.wait_for_state("miser", "online").map(drop)
}

/// A share that is not there any more is given up, and looked for.
fn missing_until_it_is_back(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<()> {
    nasmount.wait_for_state("gone", "blocked")?;
    let report: Value = nasmount.share("gone")?;
    ensure!(report["reason"]["failure"]["class"] == "missing", "the reason is {}", report["reason"]);
    barred(guest, &mount_point("gone"), "ls,create")?;
    nas.change("restore")?;
    nasmount.wait_for_state("gone", "online").map(drop)
}
