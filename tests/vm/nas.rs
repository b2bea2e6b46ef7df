//! NASes in the guest, and faults as guards that undo themselves (`guest/nas.sh`).

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::guest::{Guest, Job, number};

/// A fault takes effect in about a second under TCG; starting Samba takes several.
const SCRIPT_LIMIT: Duration = Duration::from_secs(90);

/// What happens to a NAS; what each is to a client stands in `guest/nas.sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cable is pulled.
    Link,
    /// TCP to port 445 is swallowed; link and ARP are fine.
    Drop,
    /// The server's processes die; the client gets RST.
    Kill,
    /// The server's processes are stopped: TCP answers, SMB does not.
    Hang,
    /// Every answer is 500 ms late: connection and answer of a probe together take more than the second that is always slow.
    Slow,
    /// Silence, and a server that has forgotten every connection when it returns.
    Power,
}

impl Fault {
    /// The word of `nas.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Drop => "drop",
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Slow => "slow",
            Self::Power => "power",
        }
    }
}

/// Where a NAS is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// 10.99.N.2
    Ipv4,
    /// fd99:N::2
    Ipv6,
    /// 10.99.N.3, after `change("readdress")`
    OtherAddress,
    /// As the guest resolves it.
    Name(&'static str),
}

/// One Samba server in a network namespace of its own.
#[derive(Clone, Copy)]
pub struct Nas<'guest> {
    guest: &'guest Guest,
    number: u8,
    at: At,
}

/// An outage; it ends with `heal`, or with this value.
pub struct Outage<'guest> {
    nas: Nas<'guest>,
    fault: Fault,
    /// The guest's uptime right before the fault: nobody can have seen anything of it earlier.
    pub before: f64,
    /// The guest's uptime when the fault was complete.
    pub began: f64,
    healed: bool,
}

/// Starts those of the numbered NASes (1..=9) that do not run yet, all at the same time.
pub fn up<const COUNT: usize>(guest: &Guest, numbers: [u8; COUNT]) -> Result<[Nas<'_>; COUNT]> {
    let list = numbers.map(|number| number.to_string()).join(" ");
    let output = guest.run_within(SCRIPT_LIMIT, &format!("/host/guest/nas.sh up {list}"))?;
    ensure!(output.code == 0, "start NAS {list}: {}", output.stderr);
    Ok(numbers.map(|number| Nas { guest, number, at: At::Ipv4 }))
}

impl<'guest> Nas<'guest> {
    /// The same server, reached in another way.
    pub fn at(self, at: At) -> Self {
        Self { at, ..self }
    }

    /// The server's address, or its name; the guest's own end of the cable is 10.99.N.1 and fd99:N::1.
    pub fn address(self) -> String {
        match self.at {
            At::Ipv4 => format!("10.99.{}.2", self.number),
            At::Ipv6 => format!("fd99:{}::2", self.number),
            At::OtherAddress => format!("10.99.{}.3", self.number),
            At::Name(name) => name.to_owned(),
        }
    }

    /// The UNC of a share: `media` (guests, writable) or `secret` (nasuser, "pw1,with comma").
    pub fn source(self, share: &str) -> String {
        format!("//{}/{share}", self.address())
    }

    /// Where the server keeps the files of a share: what is here has really arrived.
    pub fn export(self, share: &str) -> String {
        format!("/srv/nas{}/{share}", self.number)
    }

    /// What the NAS's administrator does: a WHAT of `guest/nas.sh`.
    pub fn change(self, what: &str) -> Result<()> {
        let output =
            self.guest.run_within(SCRIPT_LIMIT, &format!("/host/guest/nas.sh change {} {what}", self.number))?;
        ensure!(output.code == 0, "change NAS {}: {what}: {}", self.number, output.stderr);
        Ok(())
    }

    /// Begins an outage.
    pub fn cut(self, fault: Fault) -> Result<Outage<'guest>> {
        self.cutting(fault)?.complete()
    }

    fn cutting(self, fault: Fault) -> Result<Cutting<'guest>> {
        Ok(Cutting { nas: self, fault, job: self.script("cut", fault)? })
    }

    /// One TCP connect and SMB NEGOTIATE from the host side (`guest/probe.py`).
    pub fn probe(self, limit: Duration) -> Result<Value> {
        self.guest.json(&format!("/host/guest/probe.py {} --limit {}", self.address(), limit.as_secs_f64()))
    }

    fn script(self, verb: &str, fault: Fault) -> Result<Job<'guest>> {
        self.guest.spawn(&format!("/host/guest/nas.sh {verb} {} {}", self.number, fault.name()))
    }
}

/// An outage that is beginning.
struct Cutting<'guest> {
    nas: Nas<'guest>,
    fault: Fault,
    job: Job<'guest>,
}

impl<'guest> Cutting<'guest> {
    fn complete(self) -> Result<Outage<'guest>> {
        let [before, began] =
            uptimes_of(self.job).with_context(|| format!("cut NAS {} ({})", self.nas.number, self.fault.name()))?;
        Ok(Outage { nas: self.nas, fault: self.fault, before, began, healed: false })
    }
}

/// The uptimes that a script of a fault prints when it is done.
fn uptimes_of<const COUNT: usize>(job: Job<'_>) -> Result<[f64; COUNT]> {
    let output = job.wait(SCRIPT_LIMIT)?;
    ensure!(output.code == 0, "{}", output.stderr);
    let uptimes = output.stdout.split_whitespace().map(number).collect::<Result<Vec<f64>>>()?;
    uptimes.try_into().map_err(|said| anyhow!("{COUNT} uptimes were expected, not {said:?}"))
}

/// The one that is printed by the end of a fault.
fn uptime_of(job: Job<'_>) -> Result<f64> {
    uptimes_of(job).map(|[healed]| healed)
}

/// Begins several outages at the same time.
pub fn cut_all<'guest>(faults: impl IntoIterator<Item = (Nas<'guest>, Fault)>) -> Result<Vec<Outage<'guest>>> {
    let cutting: Vec<_> = faults.into_iter().map(|(nas, fault)| nas.cutting(fault)).collect::<Result<_>>()?;
    // each is taken over by its guard before any error is looked at
    let outages: Vec<Result<Outage<'_>>> = cutting.into_iter().map(Cutting::complete).collect();
    outages.into_iter().collect()
}

/// Ends outages at the same time; returns the guest's uptime at the end of each.
pub fn heal_all(mut outages: Vec<Outage<'_>>) -> Result<Vec<f64>> {
    let jobs: Vec<Job<'_>> =
        outages.iter().map(|outage| outage.nas.script("heal", outage.fault)).collect::<Result<_>>()?;
    let healed = jobs.into_iter().map(uptime_of).collect::<Result<Vec<_>>>()?;
    outages.iter_mut().for_each(|outage| outage.healed = true);
    Ok(healed)
}

impl Outage<'_> {
    /// Returns when the outage is this old by the guest's clock; at once if it is older.
    pub fn last(&self, age: Duration) -> Result<()> {
        let end = self.began + age.as_secs_f64();
        let rest =
            format!("sleep $(awk -v end={end} '{{ rest = end - $1; print (rest > 0 ? rest : 0) }}' /proc/uptime)");
        let output = self.nas.guest.run_within(age + SCRIPT_LIMIT, &rest)?;
        ensure!(output.code == 0, "let an outage last {age:?}: {}", output.stderr);
        Ok(())
    }

    /// Ends the outage; returns the guest's uptime.
    pub fn heal(mut self) -> Result<f64> {
        self.healed = true;
        self.undo()
    }

    /// The machine on which it happened is gone.
    pub fn forget(mut self) {
        self.healed = true;
    }

    fn undo(&self) -> Result<f64> {
        let healed = uptime_of(self.nas.script("heal", self.fault)?);
        healed.with_context(|| format!("heal NAS {} ({})", self.nas.number, self.fault.name()))
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if !self.healed
            && let Err(error) = self.undo()
        {
            eprintln!("vm: {error:#}");
        }
    }
}
