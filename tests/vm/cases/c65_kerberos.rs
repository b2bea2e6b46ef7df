//! A share whose login is a Kerberos ticket: mounted, mounted again after an outage, and while there is no ticket.
//!
//! Not on bookworm: its Samba (4.17) takes no ticket of a realm that is not Active Directory's (STATUS_BAD_TOKEN_TYPE).

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, At, Fault};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, mount_point};

const NAME: &str = "nas6.nas.test";
const TICKET: &str = "setpriv --reuid=nasuser --clear-groups kinit -k -t /run/nasuser.keytab nasuser";
const NO_TICKET: &str = "setpriv --reuid=nasuser --clear-groups kdestroy";
const UPCALL: &str = "/etc/request-key.d/cifs.spnego.conf";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [6])?;
    nas.change("kerberos")?;
    let nas = nas.at(At::Name(NAME));
    // as the README has it: the server is mounted by its address, and has a key for its name
    guest.ok(&format!("sed -i 's/cifs.upcall %k/cifs.upcall -t %k/' {UPCALL} && grep -q -- '-t %k' {UPCALL}"))?;
    let more = "patience = \"2m\"\noptions = { sec = \"krb5i\", cruid = 3000 }";
    let share =
        ShareOf { name: "ticket", nas, source: "secret", more, probe: UNHURRIED, credentials: None, units: vec![] };
    let nasmount = Nasmount::start(guest, &[share])?;
    without_a_ticket(guest)?;
    nasmount.wait_for_state("ticket", "offline")?;
    guest.ok(TICKET)?;
    nasmount.wait_for_state("ticket", "online").context("a ticket is found by itself")?;
    guest.ok(&format!("grep ' {} cifs .*sec=krb5i' /proc/mounts", mount_point("ticket")))?;
    guest.ok(&format!("echo mine >{}/mine", mount_point("ticket")))?;
    let owner = guest.ok(&format!("stat --format %U {}/mine", nas.export("secret")))?;
    ensure!(owner == "nasuser", "the server has the session for {owner}");
    guest.ok("nasmount diagnose ticket --write").context("with a ticket")?;

    // its processes are new: no session is left
    let outage = nas.cut(Fault::Kill)?;
    nasmount.wait_for_state("ticket", "holding")?;
    outage.heal()?;
    nasmount.wait_for_state("ticket", "online").context("the login again, with the same ticket")?;

    guest.ok(NO_TICKET)?;
    let outage = nas.cut(Fault::Kill)?;
    nasmount.wait_for_state("ticket", "holding")?;
    outage.heal()?;
    let said = "nasmount status ticket -v | grep -q 'Required key not available'";
    guest.wait_for("nasmount to find no ticket", DEADLINE, said)?;
    guest.ok(TICKET)?;
    let began = guest.uptime()?;
    let back = nasmount.wait_for_state("ticket", "online").context("a new ticket after an outage")? - began;
    guest.ok(&format!("rm {}/mine", mount_point("ticket")))?;
    nasmount.remove()?;
    Ok(format!("back {back:.1} s after there was a ticket again"))
}

fn without_a_ticket(guest: &Guest) -> Result<()> {
    let output = guest.run("nasmount diagnose ticket --json")?;
    ensure!(output.stdout.contains("there is no Kerberos ticket"), "{output:?}");
    Ok(())
}
