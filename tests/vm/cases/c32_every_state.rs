//! The daemon is killed in each state in which it can be met, those that pass by themselves included; the next one goes on from there, and
//! the consumer is what the state promises. `holding` and `blocked` have more of it in cases 30 and 40; `stuck` fails every case.

use anyhow::{Context as _, Result, ensure};

use crate::guest::Guest;
use crate::load::{Kind, Load};
use crate::nas::{self, Fault, Nas};
use crate::nasmount::{DEADLINE, Nasmount, ShareOf, UNHURRIED, barred, mount_point, paused, unharmed};

const SHARE: &str = "mortal";
/// Ends some seconds after it was asked to, which makes giving up last; started again with the share.
const SLOW: &str = "slow-to-stop.service";
const SLOW_UNIT: &str = "[Service]\n\
    ExecStart=/bin/bash -c 'exec 3</mnt/nm-mortal/pattern; trap \"sleep 6; exit 0\" TERM; while :; do sleep 1 & wait; done'\n";
const MORE: &str = "profile = \"transcode\"\npatience = \"2m\"";

pub fn run(guest: &Guest) -> Result<String> {
    let [nas] = nas::up(guest, [4])?;
    let load = Load::new(guest, SHARE, &Kind::ALL).unhurried();
    let units = vec![load.unit(), SLOW.to_owned()];
    guest.write_file(&format!("/run/systemd/system/{SLOW}"), SLOW_UNIT)?;
    let share = ShareOf { name: SHARE, nas, source: "media", more: MORE, probe: UNHURRIED, credentials: None, units };
    let nasmount = Nasmount::start(guest, &[share])?;
    nasmount.wait_for_state(SHARE, "online")?;
    guest.ok(&format!("systemctl daemon-reload; systemctl start {SLOW}"))?;
    let load = load.start(&mount_point(SHARE))?;
    load.wait_for_operations(5, DEADLINE)?;
    let case = Case { guest, nasmount, nas };

    let run = case.invocation()?;
    case.kill_in("online")?;
    case.nasmount.wait_for_state(SHARE, "online")?;
    load.wait_for_operations(5, DEADLINE).context("the consumer after a kill in online")?;
    let account = case.within_the_patience(&load)?;
    ensure!(case.invocation()? == run, "a consumer was started again within the patience");
    case.given_up()?;
    ensure!(case.invocation()? != run, "a consumer that was to be stopped was not");
    case.maintenance()?;
    case.blocked()?;
    guest.ok(&format!("systemctl stop {SLOW}; rm /run/systemd/system/{SLOW}; systemctl daemon-reload"))?;
    case.nasmount.remove()?;
    Ok(account)
}

struct Case<'guest> {
    guest: &'guest Guest,
    nasmount: Nasmount<'guest>,
    nas: Nas<'guest>,
}

impl Case<'_> {
    /// Nobody loses anything.
    fn within_the_patience(&self, load: &Load<'_>) -> Result<String> {
        let outage = self.nas.cut(Fault::Drop)?;
        self.kill_in("suspect")?;
        self.nasmount.wait_for_state(SHARE, "holding")?;
        self.held(&load.unit()).context("killed in suspect")?;
        self.kill_in("holding")?;
        self.nasmount.wait_for_state(SHARE, "holding")?;
        self.held(&load.unit()).context("killed in holding")?;
        // with a server that is slow the verification takes seconds
        let slow = self.nas.cut(Fault::Slow)?;
        outage.heal()?;
        self.kill_in("recovering")?;
        slow.heal()?;
        self.nasmount.wait_for_state(SHARE, "online")?;
        unharmed(load, self.nas)
    }

    /// By an operator, as after the hold: the consumer is stopped, once, and started again with the share.
    fn given_up(&self) -> Result<()> {
        let outage = self.nas.cut(Fault::Link)?;
        self.nasmount.wait_for_state(SHARE, "holding")?;
        let unmount = self.guest.spawn(&format!("nasmount unmount {SHARE}"))?;
        self.kill_in("releasing")?;
        unmount.wait(DEADLINE)?; // the daemon that was asked is gone
        self.nasmount.wait_for_state(SHARE, "offline")?;
        self.stopped().context("killed in releasing")?;
        self.kill_in("offline")?;
        self.nasmount.wait_for_state(SHARE, "offline")?;
        self.stopped().context("killed in offline")?;
        let slow = self.nas.cut(Fault::Slow)?;
        outage.heal()?;
        let mount = self.guest.spawn(&format!("nasmount mount {SHARE}"))?;
        self.kill_in("mounting")?;
        mount.wait(DEADLINE)?;
        slow.heal()?;
        self.back("mounting")
    }

    /// Hands off stays hands off.
    fn maintenance(&self) -> Result<()> {
        self.guest.ok(&format!("nasmount maintenance on {SHARE}"))?;
        self.kill_in("maintenance")?;
        self.nasmount.wait_for_state(SHARE, "maintenance")?;
        self.guest.ok(&format!("systemctl is-active {SLOW} && nasmount maintenance off {SHARE}"))?;
        self.back("maintenance")
    }

    /// The share is not on its server when it is to be mounted, and comes back.
    fn blocked(&self) -> Result<()> {
        self.guest.ok(&format!("nasmount unmount {SHARE}"))?;
        self.nas.change("remove")?;
        self.guest.run(&format!("nasmount mount {SHARE}"))?; // in vain
        self.kill_in("blocked")?;
        self.nasmount.wait_for_state(SHARE, "blocked")?;
        barred(self.guest, &mount_point(SHARE), "ls,create").context("killed in blocked")?;
        self.nas.change("restore")?;
        self.guest.ok(&format!("nasmount mount {SHARE}"))?;
        self.back("blocked")
    }

    /// Kills the daemon while it says that the share is in this state, and waits for the next one.
    fn kill_in(&self, state: &str) -> Result<()> {
        let told = format!(
            "$(journalctl -b _PID=$pid -o cat | grep 'share{{name={SHARE}}}' | grep -o 'to=[a-z]*' | tail -n 1)"
        );
        let kill = format!(
            "pid=$(systemctl show -P MainPID nasmount); until [ {told} = to={state} ]; do sleep 0.1; done; kill -9 $pid; \
             echo $pid; journalctl --sync; echo {told}"
        );
        let said = self.guest.ok(&kill).with_context(|| format!("kill it in {state}"))?;
        let (killed, last) = said.split_once('\n').context("who was killed, and in what state")?;
        ensure!(last == format!("to={state}"), "it was killed in {last}, not in {state}");
        let next = format!(
            "pid=$(systemctl show -P MainPID nasmount); [ $pid != 0 ] && [ $pid != {killed} ] && systemctl is-active --quiet nasmount"
        );
        self.guest.wait_for("the next daemon", DEADLINE, &next).map(drop)
    }

    fn held(&self, load: &str) -> Result<()> {
        for unit in [load, SLOW] {
            self.guest.wait_for("the consumers to be paused", DEADLINE, &paused(unit))?;
        }
        barred(self.guest, &mount_point(SHARE), "ls,statfs").map(drop)
    }

    fn stopped(&self) -> Result<()> {
        self.guest.ok(&format!("[ $(systemctl is-active {SLOW}) = inactive ]"))?;
        barred(self.guest, &mount_point(SHARE), "ls,create").map(drop)
    }

    fn back(&self, after: &str) -> Result<()> {
        self.nasmount.wait_for_state(SHARE, "online")?;
        let runs = format!(
            "systemctl is-active --quiet {SLOW} && ! {} && head -c 1 {}/pattern",
            paused(SLOW),
            mount_point(SHARE)
        );
        self.guest.wait_for("the consumer", DEADLINE, &runs).with_context(|| format!("killed in {after}"))?;
        self.guest.ok("systemctl reset-failed nasmount").map(drop)
    }

    /// Which run of the consumer it is.
    fn invocation(&self) -> Result<String> {
        self.guest.ok(&format!("systemctl show -P InvocationID {SLOW}"))
    }
}
