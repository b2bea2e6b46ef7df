//! A host whose shares are lines of fstab: they become nasmount's, are there after a reboot, go through an outage, and are lines of fstab
//! again.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount};

const CREDENTIALS: &str = "/root/nas.cred";
const UNITS: &str = r"'mnt-films.mount' 'mnt-secret.mount' 'mnt-some\x20books.automount'";

pub fn run(guest: &Guest) -> Result<String> {
    let [first, second] = nas::up(guest, [2, 4])?;
    let nasmount = Nasmount::install(guest)?;
    guest.ok("rm -rf /etc/nasmount")?; // of the cases before
    mounted_by_fstab(guest, first, second)?;
    imported(guest, &nasmount)?;
    guest.reboot()?;
    nas::up(guest, [2, 4])?;
    let nasmount = Nasmount::install(guest)?; // the same files, at another boot
    // the directory was not there before; it is looked for again each minute
    guest.ok(&format!("mkdir {}/books && nasmount mount some-books", first.export("media")))?;
    let back = goes_through_an_outage(guest, &nasmount, first)?;
    exported(guest)?;
    guest.ok(&format!("systemctl stop {UNITS} && rm {CREDENTIALS} && : >/etc/fstab"))?;
    guest.ok("systemctl daemon-reload")?;
    nasmount.remove()?;
    Ok(format!(
        "three lines of fstab became shares, were there after a reboot, came back {back:.1} s after an outage, and are lines again"
    ))
}

/// One line has a blank in its path and is an automount, one has a login; something has a file open on the third.
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
    guest.ok(&format!("chmod 600 {CREDENTIALS} && systemctl daemon-reload && systemctl start {UNITS}"))?;
    guest.ok("ls /mnt/'some books' && [ $(findmnt -nt cifs | wc -l) = 3 ]")?;
    let open = "exec 3</mnt/films/pattern; exec sleep infinity";
    guest.ok(&format!("systemd-run --quiet --unit=reads bash -c '{open}'"))?;
    guest.wait_for("somebody to use a share", DEADLINE, "fuser -sm /mnt/films").map(drop)
}

/// What is in use stays, is named, and is taken over as soon as it is unmounted.
fn imported(guest: &Guest, nasmount: &Nasmount<'_>) -> Result<()> {
    let met = guest.run("nasmount import-fstab --apply")?;
    ensure!(met.code == 3 && met.stderr.contains("/mnt/films: in use by reads.service"), "the import met {met:?}");
    ensure!(guest.ok("grep -c '^#nasmount: //' /etc/fstab")?.trim() == "3", "the lines are comments");
    guest.ok("systemctl is-enabled nasmount && nasmount check")?;
    for share in ["secret", "some-books"] {
        nasmount.wait_for_state(share, "online")?;
    }
    nasmount.wait_for_state("films", "blocked")?;
    guest.ok("systemctl stop reads && umount /mnt/films")?;
    nasmount.wait_for_state("films", "online")?;
    guest.ok("ls /mnt/films/pattern && [ $(stat -c %u /mnt/films/pattern) = 1000 ]")?;
    Ok(())
}

fn goes_through_an_outage(guest: &Guest, nasmount: &Nasmount<'_>, nas: Nas<'_>) -> Result<f64> {
    for share in ["films", "some-books", "secret"] {
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
    guest.ok("nasmount export-fstab --dry-run | grep -Fx '/etc/fstab: lines 2, 3, 4 mount again'")?;
    guest.ok("nasmount export-fstab")?;
    guest.ok("cmp /etc/fstab /root/fstab && rm /root/fstab").context("byte for byte")?;
    guest.ok("ls /mnt/'some books'")?;
    guest.ok("[ $(findmnt -nt cifs | wc -l) = 3 ] && findmnt -no OPTIONS /mnt/films | grep echo_interval=30")?;
    let left = "systemctl is-enabled nasmount; systemctl is-active nasmount nasmount-barrier; lsattr -d /mnt/films";
    let left = guest.run(left)?.stdout;
    ensure!(left.starts_with("disabled\ninactive\ninactive\n"), "what is left of nasmount: {left}");
    Ok(())
}
