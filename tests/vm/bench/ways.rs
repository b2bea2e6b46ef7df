//! Today's ways as an administrator writes them, and nasmount's shares, each on a NAS of its own.

use anyhow::{Context as _, Result};

use super::targets::{IMPATIENT, PATIENT};
use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, mount_point};

/// What is compared with nasmount. The NAS of each has the number of its place in this list.
const TODAY: [Today; 5] = [
    Today { name: "defaults", point: "/mnt/defaults", options: "guest,_netdev", by: "fstab" },
    Today {
        name: "echo 30",
        point: "/mnt/echo30",
        options: "guest,_netdev,soft,echo_interval=30",
        by: "fstab, the incident's 90 s",
    },
    Today { name: "echo 5", point: "/mnt/echo5", options: "guest,_netdev,soft,echo_interval=5", by: "fstab, hardened" },
    Today {
        name: "automount",
        point: "/mnt/automount",
        options: "guest,_netdev,noauto,x-systemd.automount,x-systemd.idle-timeout=60",
        by: "fstab, automount unit of systemd",
    },
    Today { name: "autofs", point: "/mnt/autofs/media", options: "guest", by: "the autofs daemon, --timeout=60" },
];
/// nasmount's shares: column, name, lines of the share's table.
const OURS: [(&str, &str, &str); 2] = [
    (PATIENT, "patient", "profile = \"transcode\"\npatience = \"2m\""),
    (IMPATIENT, "impatient", "profile = \"transcode\"\npatience = \"0s\""),
];

struct Today {
    name: &'static str,
    point: &'static str,
    options: &'static str,
    by: &'static str,
}

/// One way of mounting, mounted.
pub struct Way<'guest> {
    /// The column in the tables.
    pub name: &'static str,
    pub nas: Nas<'guest>,
    /// Where the share appears.
    pub point: String,
    /// How a person unmounts it.
    pub unmount: String,
    guest: &'guest Guest,
}

/// Everything that a run compares.
pub struct Ways<'guest> {
    pub guest: &'guest Guest,
    pub all: Vec<Way<'guest>>,
    pub nasmount: Nasmount<'guest>,
}

/// Name and description of each column.
pub fn descriptions() -> Vec<(String, String)> {
    let today = TODAY.iter().map(|way| (way.name.to_owned(), format!("`{}` ({})", way.options, way.by)));
    let ours = OURS.iter().map(|(name, _, lines)| ((*name).to_owned(), format!("`{}`", lines.replace('\n', "`, `"))));
    today.chain(ours).collect()
}

impl<'guest> Ways<'guest> {
    /// Starts the servers and mounts from each.
    pub fn mount(guest: &'guest Guest) -> Result<Self> {
        let servers = nas::up(guest, [1, 2, 3, 4, 5, 6, 7])?;
        let (today, ours) = servers.split_at(TODAY.len());
        let mut all = mount_today(guest, today)?;
        let more = OURS.iter().zip(ours).map(|((name, share, _), nas)| Way {
            name,
            nas: *nas,
            point: mount_point(share),
            unmount: format!("nasmount unmount {share}"),
            guest,
        });
        all.extend(more);
        let shares: Vec<ShareOf<'_>> = OURS
            .iter()
            .zip(&all[TODAY.len()..])
            .map(|((_, name, more), way)| ShareOf {
                name,
                nas: way.nas,
                source: "media",
                more,
                probe: "",
                credentials: None,
                units: vec![way.load().unit()],
            })
            .collect();
        let nasmount = Nasmount::start(guest, &shares)?;
        for (_, name, _) in OURS {
            nasmount.wait_for_state(name, "online")?;
        }
        Ok(Self { guest, all, nasmount })
    }

    /// Waits until nasmount's shares are in a state; returns the guest's uptime at which each entered it, by column.
    pub fn wait_for_state(&self, state: &str) -> Result<Vec<(&'static str, f64)>> {
        OURS.iter().map(|(name, share, _)| Ok((*name, self.nasmount.wait_for_state(share, state)?))).collect()
    }

    /// Takes nasmount off the guest, to be measured afresh; the other mounts end with the guest. What is left behind is only a
    /// remark: all that is compared has been measured by now.
    pub fn remove(self) -> Option<String> {
        self.nasmount.remove().err().map(|error| format!("{error:#}"))
    }
}

impl<'guest> Way<'guest> {
    /// Its consumers; not started. Those of seven ways at full pace are more than an emulated machine can do.
    pub fn load(&self) -> Load<'guest> {
        Load::new(self.guest, &self.id(), &Kind::ALL).unhurried().unhurried()
    }

    /// A word for names of files and units.
    pub fn id(&self) -> String {
        format!("bench-{}", self.name.replace(' ', "-"))
    }
}

/// Real fstab lines under PID 1's mount units, and the maps of autofs; the accesses at the end mount the automounts.
fn mount_today<'guest>(guest: &'guest Guest, servers: &[Nas<'guest>]) -> Result<Vec<Way<'guest>>> {
    let mut fstab = String::new();
    let mut all = Vec::new();
    for (way, nas) in TODAY.iter().zip(servers) {
        let (source, Today { name, point, options, .. }) = (nas.source("media"), way);
        if *name == "autofs" {
            guest.write_file("/etc/auto.master.d/bench.autofs", "/mnt/autofs /etc/auto.bench --timeout=60\n")?;
            guest.write_file("/etc/auto.bench", &format!("media -fstype=cifs,{options} :{source}\n"))?;
        } else {
            fstab += &format!("{source} {point} cifs {options} 0 0\n");
        }
        let unmount = format!("umount {point}");
        all.push(Way { name, nas: *nas, point: (*point).to_owned(), unmount, guest });
    }
    guest.write_file("/etc/fstab", &fstab)?;
    let start = "systemctl unmask --quiet autofs && systemctl daemon-reload && \
                 systemctl start autofs mnt-defaults.mount mnt-echo30.mount mnt-echo5.mount mnt-automount.automount";
    guest.ok(start).context("mount today's ways")?;
    let points = TODAY.map(|way| way.point).join(" ");
    let mounted = format!("ls {points} && [ $(awk '$3 == \"cifs\"' /proc/mounts | wc -l) = {} ]", TODAY.len());
    guest.wait_for("today's ways to be mounted", DEADLINE, &mounted)?;
    Ok(all)
}
