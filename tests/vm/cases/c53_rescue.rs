//! Files beside a share: found under the share that hides them, merged onto it without overwriting anything, and what is left is moved
//! aside.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::nas::{self, Fault};
use crate::nasmount::{Nasmount, ShareOf, mount_point};

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [3])?;
    let (path, export) = (mount_point("hiding"), nas.export("media"));
    guest.ok(&format!(
        "mkdir -p {path}/old && cd {path} && echo beside >old/new && echo mine >same && echo mine >other && echo x >a:b && \
         echo mine >{export}/same && echo theirs >{export}/other"
    ))?;
    let (more, probe, credentials, units) = ("", "", None, Vec::new());
    let nasmount =
        Nasmount::start(guest, &[ShareOf { name: "hiding", nas, source: "media", more, probe, credentials, units }])?;
    nasmount.wait_for_state("hiding", "online")?;
    let doctor = guest.run("nasmount doctor")?;
    ensure!(doctor.stdout.contains("is not empty under its share: 5 entries"), "doctor said {doctor:?}");
    let listed = guest.json("nasmount rescue hiding --json")?;
    ensure!(listed["shares"][0]["found"]["files"] == 4, "{listed}");
    let looked = guest.run("nasmount rescue hiding --merge --dry-run")?;
    ensure!(looked.code == 1 && looked.stdout.contains("2 files"), "{looked:?}");

    let outage = nas.cut(Fault::Link)?;
    nasmount.wait_for_state("hiding", "holding")?;
    let away = guest.run("nasmount rescue hiding --merge")?;
    ensure!(away.code == 3 && away.stdout.contains("holding, not online"), "{away:?}");
    outage.heal()?;
    nasmount.wait_for_state("hiding", "online")?;

    let merged = guest.run("nasmount rescue hiding --merge --json")?;
    ensure!(merged.code == 1, "a file is left: {merged:?}");
    let merged: serde_json::Value = serde_json::from_str(&merged.stdout).context("merged")?;
    let tally = &merged["shares"][0]["rescued"];
    ensure!(tally["moved"] == 2 && tally["same"] == 1 && tally["left"][0]["path"] == "other", "{merged}");
    let arrived =
        guest.ok(&format!("cat {export}/old/new {export}/other {path}/a:b; ls -A {export} | grep rescue || true"))?;
    ensure!(arrived.trim() == "beside\ntheirs\nx", "on the server: {arrived:?}");

    guest.ok("mkdir /root/aside && nasmount rescue hiding --aside /root/aside")?;
    let aside = guest.ok("cat /root/aside/hiding/other; rm -r /root/aside")?;
    ensure!(aside.trim() == "mine", "{aside:?}");
    let nothing = guest.ok("nasmount rescue hiding")?;
    ensure!(nothing.contains("nothing lies beside it"), "{nothing}");
    nasmount.remove()?;
    // without share and barrier it is seen that nothing was left; the name with a colon is another one on the server
    guest.ok(&format!("rmdir {path} && rm -r {export}/old {export}/same {export}/other {export}/a*b"))?;
    Ok("2 merged, 1 the same, 1 left and moved aside".to_owned())
}
