//! Today's ways as an administrator writes them, and nasmount's shares, each on a NAS of its own.

use anyhow::{Context as _, Result};

use super::targets::{IMPATIENT, PATIENT};
use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, mount_point};

/// What is compared with nasmount. The NAS of each has the number of its place in this list.
const TODAY: [Today; 5] = [
    Today {
        name: "defaults",
        point: "/mnt/defaults",
        options: "guest,_netdev",
        by: "fstab",
        unit: "mnt-defaults.mount",
    },
    Today {
        name: "echo 30",
        point: "/mnt/echo30",
        options: "guest,_netdev,soft,echo_interval=30",
        by: "fstab, the incident's 90 s",
        unit: "mnt-echo30.mount",
    },
    Today {
        name: "echo 5",
        point: "/mnt/echo5",
        options: "guest,_netdev,soft,echo_interval=5",
        by: "fstab, hardened",
        unit: "mnt-echo5.mount",
    },
    Today {
        name: "automount",
        point: "/mnt/automount",
        options: "guest,_netdev,noauto,x-systemd.automount,x-systemd.idle-timeout=60",
        by: "fstab, automount unit of systemd",
        unit: "mnt-automount.automount",
    },
    Today {
        name: "autofs",
        point: "/mnt/autofs/media",
        options: "guest",
        by: "the autofs daemon, --timeout=60",
        unit: "autofs.service",
    },
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
    /// What systemd is told to start.
    unit: &'static str,
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

/// The ways that are compared when one at a time is enough; nasmount's patience then makes no difference.
pub const NAMES: [&str; 6] = [TODAY[0].name, TODAY[1].name, TODAY[2].name, TODAY[3].name, TODAY[4].name, PATIENT];

/// Mounts in one of these ways only, from a server that has just been started.
pub fn mount_alone<'guest>(guest: &'guest Guest, name: &'static str) -> Result<Way<'guest>> {
    let [nas] = nas::up(guest, [1])?;
    if let Some(today) = TODAY.iter().find(|today| today.name == name) {
        let mut all = mount_today(guest, &[(today, nas)])?;
        return all.pop().context("nothing was mounted");
    }
    let (_, share, more) = OURS.iter().find(|(ours, ..)| *ours == name).context("a way that nobody knows")?;
    let way = our_way(guest, name, share, nas);
    let units = vec![way.load().unit()];
    let nasmount = Nasmount::start(
        guest,
        &[ShareOf { name: share, nas, source: "media", more, probe: "", credentials: None, units }],
    )?;
    nasmount.wait_for_state(share, "online")?;
    Ok(way)
}

fn our_way<'guest>(guest: &'guest Guest, name: &'static str, share: &str, nas: Nas<'guest>) -> Way<'guest> {
    Way { name, nas, point: mount_point(share), unmount: format!("nasmount unmount {share}"), guest }
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
        let today: Vec<_> = TODAY.iter().zip(today.iter().copied()).collect();
        let mut all = mount_today(guest, &today)?;
        all.extend(OURS.iter().zip(ours).map(|((name, share, _), nas)| our_way(guest, name, share, *nas)));
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

    /// nasmount's patient share, by its name, and the way.
    pub fn patient(&self) -> (&'static str, &Way<'guest>) {
        (OURS[0].1, &self.all[TODAY.len()])
    }

    /// A daemon that has seen no outage yet; the shares stay mounted.
    pub fn restart_daemon(&self) -> Result<()> {
        self.guest.ok("systemctl restart nasmount")?;
        self.wait_for_state("online").map(drop)
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
fn mount_today<'guest>(guest: &'guest Guest, wanted: &[(&Today, Nas<'guest>)]) -> Result<Vec<Way<'guest>>> {
    let mut fstab = String::new();
    let mut all = Vec::new();
    for (way, nas) in wanted {
        let (source, Today { name, point, options, .. }) = (nas.source("media"), *way);
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
    let units: Vec<&str> = wanted.iter().map(|(way, _)| way.unit).collect();
    let start =
        format!("systemctl unmask --quiet autofs && systemctl daemon-reload && systemctl start {}", units.join(" "));
    guest.ok(&start).context("mount today's ways")?;
    let points: Vec<&str> = wanted.iter().map(|(way, _)| way.point).collect();
    let mounted =
        format!("ls {} && [ $(awk '$3 == \"cifs\"' /proc/mounts | wc -l) = {} ]", points.join(" "), wanted.len());
    guest.wait_for("today's ways to be mounted", DEADLINE, &mounted)?;
    Ok(all)
}
