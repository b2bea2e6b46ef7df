//! A host whose shares are lines of fstab, and a unit that somebody wrote: they become nasmount's, are there after a reboot, go through an
//! outage, and are what they were.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount};

const CREDENTIALS: &str = "/root/nas.cred";
/// Not of fstab.
const UNIT: &str = "/etc/systemd/system/mnt-unit.mount";
/// The lines of fstab.
const IN_USE: [&str; 3] = ["/mnt/films", "/mnt/secret", "/mnt/some books"];
const AUTOMOUNT: &str = r"'mnt-some\x20books.automount'";
const UNITS: &str = r"'mnt-unit.mount' 'mnt-films.mount' 'mnt-secret.mount' 'mnt-some\x20books.automount'";

pub fn run(guest: &Guest) -> Result<String> {
    let [first, second] = nas::up(guest, [2, 4])?;
    let nasmount = Nasmount::install(guest)?;
    guest.ok("rm -rf /etc/nasmount")?; // of the cases before
    mounted_by_fstab(guest, first, second)?;
    imported(guest, &nasmount)?;
    let down = guest.reboot("systemctl start reboot.target")?.as_secs_f64();
    nas::up(guest, [2, 4])?;
    let nasmount = Nasmount::install(guest)?; // the same files, at another boot
    // the directory was not there before; it is looked for again each minute
    guest.ok(&format!("mkdir {}/books && nasmount mount some-books", first.export("media")))?;
    let back = goes_through_an_outage(guest, &nasmount, first)?;
    exported(guest)?;
    guest.ok(&format!("systemctl disable mnt-unit.mount && systemctl stop {UNITS} && rm -r {CREDENTIALS} {UNIT} {UNIT}.d && : >/etc/fstab"))?;
    guest.ok("systemctl daemon-reload")?;
    nasmount.remove()?;
    Ok(format!(
        "three lines of fstab and a unit became shares, were there after a reboot (down in {down:.1} s), came back {back:.1} s after an outage, and are lines again"
    ))
}

/// One line has a blank in its path and is an automount, one has a login; something has a file or directory open on all three.
fn mounted_by_fstab(guest: &Guest, first: Nas<'_>, second: Nas<'_>) -> Result<()> {
    let fstab = format!(
        "# shares\n{}\t/mnt/films  cifs  guest,_netdev,uid=1000,soft,echo_interval=30,rsize=16777216 0 0\n\
         {} /mnt/secret cifs credentials={CREDENTIALS},_netdev,file_mode=0640 0 0\n\
         {} /mnt/some\\040books cifs guest,noauto,x-systemd.automount 0 0\n",
        first.source("media"),
        second.source("secret"),
        first.source("media/books"),
    );
    guest.ok(&format!("mkdir {}/books", first.export("media")))?;
    guest.write_file(CREDENTIALS, "username=nasuser\npassword=pw1,with comma\n")?;
    guest.write_file("/etc/fstab", &fstab)?;
    guest.ok("cp /etc/fstab /root/fstab")?;
    let (unit, drop_in) = (second.source("media"), "[Mount]\nTimeoutSec=20\n");
    let unit = format!(
        "[Unit]\nDescription=By hand\n[Mount]\nWhat={unit}\nWhere=/mnt/unit\nType=cifs\nOptions=guest,uid=1000\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    guest.ok(&format!("mkdir {UNIT}.d"))?;
    guest.write_file(UNIT, &unit)?;
    guest.write_file(&format!("{UNIT}.d/x.conf"), drop_in)?;
    guest.ok(&format!("cp {UNIT} /root/unit && chmod 600 {CREDENTIALS} && systemctl daemon-reload"))?;
    guest.ok(&format!("systemctl enable --now mnt-unit.mount && systemctl start {UNITS}"))?;
    guest.ok("ls /mnt/'some books' && [ $(findmnt -nt cifs | wc -l) = 4 ]")?;
    let open = r"exec 3</mnt/films/pattern 4</mnt/secret 5</mnt/some\ books; exec sleep infinity";
    guest.ok(&format!("systemd-run --quiet --unit=reads bash -c '{open}'"))?;
    guest.wait_for("somebody to use the shares", DEADLINE, "fuser -s '/mnt/some books'").map(drop)
}

/// What is in use stays, is named, and is taken over as soon as it is unmounted.
fn imported(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let met = guest.run("nasmount import-fstab --apply")?;
    for place in IN_USE {
        let named = met.stderr.contains(&format!("{place}: in use by reads.service"));
        ensure!(met.code == 3 && named, "the import met {met:?} at {place}");
    }
    ensure!(guest.ok("grep -c '^#nasmount: //' /etc/fstab")?.trim() == "3", "the lines are comments");
    guest.ok("systemctl is-enabled nasmount && nasmount check")?;
    guest.ok(&format!(
        "[ ! -e {UNIT} ] && systemctl show -P FragmentPath mnt-unit.mount | grep /run/systemd/generator"
    ))?;
    nasmount.wait_for_state("unit", "online")?;
    for share in ["films", "secret", "some-books"] {
        nasmount.wait_for_state(share, "blocked")?;
    }
    ensure!(met.stderr.contains(&format!("after `systemctl stop {AUTOMOUNT}`")), "of the automount: {met:?}");
    guest.ok(&format!("systemctl stop reads && umount /mnt/films /mnt/secret && systemctl stop {AUTOMOUNT}"))?;
    for share in ["films", "secret", "some-books"] {
        nasmount.wait_for_state(share, "online")?;
    }
    guest.ok("ls /mnt/films/pattern && [ $(stat -c %u /mnt/films/pattern) = 1000 ]")?;
    Ok(())
}

fn goes_through_an_outage(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<f64> {
    for share in ["films", "some-books", "secret", "unit"] {
        nasmount.wait_for_state(share, "online")?;
    }
    let outage = nas.cut(Fault::Link)?;
    for share in ["films", "some-books"] {
        nasmount.wait_for_state(share, "holding")?;
    }
    ensure!(guest.run("ls /mnt/films")?.stderr.contains("Host is down"), "it is barred");
    let healed = outage.heal()?;
    let films = nasmount.wait_for_state("films", "online")?;
    let books = nasmount.wait_for_state("some-books", "online")?;
    Ok(films.max(books) - healed)
}

fn exported(guest: &Guest) -> Result<()> {
    guest.ok("nasmount export-fstab --dry-run | grep -Fx '/etc/fstab: lines 2, 3, 4 would mount again'")?;
    guest.ok("nasmount export-fstab")?;
    guest.ok("cmp /etc/fstab /root/fstab && rm /root/fstab").context("byte for byte")?;
    guest.ok(&format!(
        "cmp {UNIT} /root/unit && rm /root/unit && ls {UNIT}.d/x.conf && systemctl is-enabled mnt-unit.mount"
    ))?;
    guest.ok("ls /mnt/'some books' && systemctl is-active mnt-unit.mount")?;
    guest.ok("[ $(findmnt -nt cifs | wc -l) = 4 ] && findmnt -no OPTIONS /mnt/films | grep echo_interval=30")?;
    let left = "systemctl is-enabled nasmount; systemctl is-active nasmount nasmount-barrier; lsattr -d /mnt/films";
    let left = guest.run(left)?.stdout;
    ensure!(left.starts_with("disabled\ninactive\ninactive\n"), "what is left of nasmount: {left}");
    Ok(())
}
