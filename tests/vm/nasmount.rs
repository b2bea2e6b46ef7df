//! nasmount in the guest: installed as `make install` does, configured by the case, asked through its own CLI.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::guest::{Guest, number};
use crate::load::Load;
use crate::nas::Nas;

/// Everything that ends within seconds on a machine that is neither emulated nor busy.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Installs the files of the Makefile's target `install`; under PREFIX=/usr/local.
const INSTALL: &str = "set -e
install -D -m 755 /host/bin/nasmount /usr/local/bin/nasmount
for unit in nasmount nasmount-barrier nasmount-resume-all nasmount-wait@; do
  install -D -m 644 /host/systemd/$unit.service /usr/local/lib/systemd/system/$unit.service
  sed -i 's|@BINDIR@|/usr/local/bin|' /usr/local/lib/systemd/system/$unit.service
done
ln -sfn /usr/local/bin/nasmount /sbin/mount.nasmount
install -d /usr/local/lib/systemd/system-generators
ln -sfn /usr/local/bin/nasmount /usr/local/lib/systemd/system-generators/nasmount-generator
install -m 644 /host/systemd/io.nasmount.NasMount1.conf /usr/share/dbus-1/system.d/
systemctl daemon-reload
busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig >/dev/null";

/// Takes nasmount off the host, and fails if it leaves anything.
const REMOVE: &str = "set -e
systemctl stop nasmount
nasmount clear
systemctl stop nasmount-barrier
! nft list table inet nasmount 2>/dev/null
systemctl reset-failed
! grep -E ' (cifs|autofs) .*nasmount|/run/nasmount/' /proc/self/mountinfo
! ls /run/nasmount/share/* /run/nasmount/paused.json /var/lib/nasmount/stopped.json /var/lib/nasmount/{barriers,generated}.json 2>/dev/null";

/// One share of a case's configuration.
pub struct ShareOf<'case> {
    pub name: &'case str,
    pub nas: Nas<'case>,
    /// Name of the share on the server.
    pub source: &'case str,
    /// More lines of its table, such as `patience = "2m"`.
    pub more: &'case str,
    /// How its server is probed; empty for the defaults.
    pub probe: &'case str,
    /// Credentials file of its server; without one it is a guest's.
    pub credentials: Option<&'case str>,
    /// Consumers: units, and `container:NAME`.
    pub units: Vec<String>,
}

/// A running nasmount.
pub struct Nasmount<'guest> {
    guest: &'guest Guest,
    /// Seconds since the epoch at the guest's boot.
    booted: f64,
}

/// A command that succeeds while all processes of a unit are stopped, or hang in the kernel.
pub fn paused(unit: &str) -> String {
    format!(
        "( for pid in $(cat /sys/fs/cgroup/system.slice/{unit}/cgroup.procs); do \
         grep -q '^State:.[TD]' /proc/$pid/status || exit 1; done )"
    )
}

/// Where a share appears.
pub fn mount_point(share: &str) -> String {
    format!("/mnt/nm-{share}")
}

/// Probes for cases that keep the guest busy: a Samba under TCG needs a third of a second for each, and more under load.
pub const UNHURRIED: &str = "probe = { interval = \"2s\", timeout = \"2s\" }";

/// The configuration of these shares, each on a server of its own name.
fn configuration(shares: &[ShareOf<'_>]) -> String {
    let mut text = String::new();
    for share in shares {
        let (name, address) = (share.name, share.nas.address());
        let _ = writeln!(text, "[server.{name}]\nhost = \"{address}\"");
        if let Some(path) = share.credentials {
            let _ = writeln!(text, "credentials = \"{path}\"");
        }
        let _ = writeln!(text, "{}", share.probe);
        let _ = writeln!(text, "[share.{name}]\nserver = \"{name}\"\nsource = \"{}\"", share.source);
        let _ = writeln!(text, "mount_point = \"{}\"\n{}", mount_point(name), share.more);
        for unit in &share.units {
            let (key, unit) =
                unit.strip_prefix("container:").map_or(("unit", unit.as_str()), |name| ("container", name));
            let _ = writeln!(text, "[[share.{name}.consumer]]\n{key} = \"{unit}\"");
        }
    }
    text
}

impl<'guest> Nasmount<'guest> {
    /// Installs nasmount, without a configuration.
    pub fn install(guest: &'guest Guest) -> Result<Self> {
        guest.ok(INSTALL).context("install nasmount")?;
        // both clocks by the shell itself: a process between them would be part of every figure
        let booted = guest
            .ok("read -r up _ </proc/uptime; now=$EPOCHREALTIME; echo $now $up | awk '{ printf \"%.3f\", $1 - $2 }'")?;
        Ok(Self { guest, booted: number(&booted)? })
    }

    /// Installs and starts nasmount with these shares.
    pub fn start(guest: &'guest Guest, shares: &[ShareOf<'_>]) -> Result<Self> {
        let nasmount = Self::install(guest)?;
        guest.write_file("/etc/nasmount/nasmount.toml", &configuration(shares))?;
        guest.ok("nasmount check").context("check the case's configuration")?;
        guest.ok("systemctl start nasmount").context("start nasmount")?;
        Ok(nasmount)
    }

    /// What `nasmount status --json` says of a share.
    pub fn share(&self, name: &str) -> Result<Value> {
        Ok(self.status(name)?["shares"][0].clone())
    }

    /// The same of the server of a share.
    pub fn server_of(&self, share: &str) -> Result<Value> {
        Ok(self.status(share)?["servers"][0].clone())
    }

    fn status(&self, share: &str) -> Result<Value> {
        let output = self.guest.run(&format!("nasmount status {share} --json"))?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("`nasmount status {share} --json` said {output:?}"))
    }

    /// Waits until a share is in a state; returns the guest's uptime at which it was entered.
    pub fn wait_for_state(&self, name: &str, state: &str) -> Result<f64> {
        // asking costs a process of a third of a second under TCG: not so often that it is the load
        let ask = format!("nasmount status {name} --json >/run/asked.{name}");
        let condition = format!("{ask}; grep -q '\"state\": \"{state}\"' /run/asked.{name} || {{ sleep 0.2; false; }}");
        let waited = self.guest.wait_for(&format!("share {name} to be {state}"), DEADLINE, &condition);
        waited.with_context(|| format!("it is {:?}", self.share(name).map(|share| share.to_string())))?;
        let seen = self.guest.json(&format!("cat /run/asked.{name}"))?;
        let since = seen["shares"][0]["since"].as_f64().context("since when")?;
        Ok(since - self.booted)
    }

    /// Ends the service, takes everything of it off the host and looks whether anything was left or went wrong.
    pub fn remove(self) -> Result<()> {
        let journal = self.guest.journal("-u 'nasmount*'")?;
        let wrong = journal.lines().find(|line| line.contains("ERROR") || line.contains("panicked"));
        ensure!(wrong.is_none(), "the journal has {wrong:?}");
        // a worker that hangs on a share is known before the server is back and hides it
        let stuck = journal.lines().find(|line| line.contains("to=stuck"));
        ensure!(stuck.is_none(), "a call of nasmount's own did not return: {stuck:?}");
        let output = self.guest.run(REMOVE)?;
        ensure!(output.code == 0, "something of nasmount was left behind: {}{}", output.stdout, output.stderr);
        Ok(())
    }
}

/// Strangers on a path: the kinds of `stranger.py`, one JSON value each.
pub fn strangers(guest: &Guest, path: &str, kinds: &str) -> Result<Vec<Value>> {
    let text = guest.ok(&format!("/host/guest/stranger.py {path} {kinds} --limit 20"))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("report {line:?}"))).collect()
}

/// Every stranger meets "Host is down", at once; returns the longest call in milliseconds. Not a benchmark: a call that hangs
/// takes 10 s and more (case 00), a loaded TCG guest some 50 ms for the process alone.
pub fn barred(guest: &Guest, path: &str, kinds: &str) -> Result<f64> {
    const AT_ONCE_MS: f64 = 1000.0;
    let mut longest = 0.0_f64;
    for report in strangers(guest, path, kinds)? {
        let ms = report["ms"].as_f64().unwrap_or(f64::INFINITY);
        ensure!(report["result"] == "EHOSTDOWN" && ms < AT_ONCE_MS, "a stranger on {path} met {report}");
        longest = longest.max(ms);
    }
    Ok(longest)
}

/// All consumers of a load are at work, saw no error, and lost nothing. Returns the figures.
pub fn unharmed(load: &Load<'_>, nas: Nas<'_>) -> Result<String> {
    load.wait_for_operations(5, DEADLINE).context("the consumers do not go on")?;
    let accounts = load.finish(nas, DEADLINE)?;
    let mut facts = Vec::new();
    for (kind, account) in &accounts {
        let fact = format!(
            "{} {} blocks, {} errors, {} lost, longest {:.1} s",
            kind.name(),
            account.acked,
            account.failures(),
            account.lost,
            account.longest
        );
        ensure!(account.failures() == 0, "{} saw errors: {:?}", kind.name(), account.errors);
        ensure!(account.lost == 0 && account.wrong == 0, "data was lost or wrong: {fact}, {} wrong", account.wrong);
        facts.push(fact);
    }
    Ok(facts.join("; "))
}
