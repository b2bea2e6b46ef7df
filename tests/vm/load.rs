//! Consumers of a share: one transient unit with a process per kind (`guest/load.py`), and their account.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::guest::Guest;
use crate::nas::Nas;

/// Where the accounts are kept: on a tmpfs of the guest, never on a share.
const OUT: &str = "/run/load";

/// What a consumer does, ten times a second unless it is unhurried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Uncached reads, compared with what must be there.
    Reader,
    /// Writes, each with an fsync.
    Fsync,
    /// Writes without an fsync until the end.
    Buffered,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Reader, Self::Fsync, Self::Buffered];

    /// The word of `load.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Fsync => "fsync",
            Self::Buffered => "buffered",
        }
    }
}

/// What became of one consumer.
#[derive(Debug)]
pub struct Account {
    /// Blocks that the consumer was told are written, or that it has read.
    pub acked: u64,
    /// Of those written, how many the server does not have.
    pub lost: u64,
    /// Blocks that were read and held something else.
    pub wrong: u64,
    /// "operation:ERRNO" and how often.
    pub errors: BTreeMap<String, u64>,
    /// The longest single operation, in seconds.
    pub longest: f64,
}

/// Consumers of one directory, in the unit `load-ID.service`.
pub struct Load<'guest> {
    guest: &'guest Guest,
    id: String,
    kinds: Vec<Kind>,
    /// From one operation of a consumer to its next.
    interval: Duration,
}

impl<'guest> Load<'guest> {
    /// Describes consumers without starting them; `id` is part of the names of their files and of their unit.
    pub fn new(guest: &'guest Guest, id: &str, kinds: &[Kind]) -> Self {
        Self { guest, id: id.to_owned(), kinds: kinds.to_vec(), interval: Duration::from_millis(100) }
    }

    /// The same at half the pace, for cases with many consumers.
    pub fn unhurried(self) -> Self {
        Self { interval: 2 * self.interval, ..self }
    }

    /// The name of the transient unit that `start` makes.
    pub fn unit(&self) -> String {
        format!("load-{}.service", self.id)
    }

    /// A bash script that runs the consumers until they are told to stop: for a unit file of the case's own.
    pub fn script(&self, directory: &str) -> String {
        let (id, kinds, interval) = (&self.id, self.kinds(), self.interval.as_secs_f64());
        format!(
            "exec python3 {OUT}/bin/load.py {kinds} '{directory}' --id {id} --out {OUT} --stop {OUT}/{id}.stop --interval {interval}\n"
        )
    }

    /// Starts the consumers as a transient unit; `wait_for_operations` says when they are at work.
    pub fn start(self, directory: &str) -> Result<Self> {
        let install = self.installing(directory)?;
        let (unit, script) = (self.unit(), self.script_path());
        let start = format!("systemd-run --quiet --unit={unit} -p TimeoutStopSec=10 bash {script}");
        self.guest.ok(&format!("{install} && {start}"))?;
        Ok(self)
    }

    /// Writes the script of the consumers to `script_path` and forgets an earlier run of the same id.
    pub fn install(&self, directory: &str) -> Result<()> {
        self.guest.ok(&self.installing(directory)?).map(drop)
    }

    /// A copy in the guest: consumers must not depend on the directory that the host shares. Made once: a Python that starts
    /// while its program is being written finds nothing in it and is content.
    fn installing(&self, directory: &str) -> Result<String> {
        let staged = self.guest.stage(&self.script(directory))?;
        let (id, script) = (&self.id, self.script_path());
        Ok(format!(
            "rm -f {OUT}/{id}.* && {{ [ -e {OUT}/bin/load.py ] || install -D /host/guest/load.py {OUT}/bin/load.py; }} && \
             install -m 644 {staged} {script}"
        ))
    }

    /// Where `install` puts the script, for `ExecStart=/bin/bash PATH`.
    pub fn script_path(&self) -> String {
        format!("{OUT}/{}.sh", self.id)
    }

    /// A pattern for the files that hold how many operations each consumer has done.
    pub fn counts(&self) -> String {
        format!("{OUT}/{}.*.acked", self.id)
    }

    /// Waits until each consumer has done so many operations more than now.
    pub fn wait_for_operations(&self, count: u64, deadline: Duration) -> Result<f64> {
        wait_for_operations(&[self], count, deadline)
    }

    /// Tells the consumers to stop, waits for their last fsync and compares what was acknowledged with what the
    /// server has. The share has to be healthy by now: a consumer that hangs is an error after the deadline.
    pub fn finish(&self, nas: Nas<'_>, deadline: Duration) -> Result<BTreeMap<Kind, Account>> {
        let id = &self.id;
        let ended: Vec<String> =
            self.kinds.iter().map(|kind| format!("[ -e {OUT}/{id}.{}.json ]", kind.name())).collect();
        let condition = format!("touch {OUT}/{id}.stop; {}", ended.join(" && "));
        self.guest.wait_for(&format!("the end of {}", self.unit()), deadline, &condition)?;
        let export = nas.export("media");
        let accounts = self.guest.json(&format!("/host/guest/verify.py {OUT} {id} {} {export}", self.kinds()))?;
        self.kinds.iter().map(|&kind| Ok((kind, account(&accounts[kind.name()])?))).collect()
    }

    fn kinds(&self) -> String {
        self.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",")
    }
}

/// Waits until each consumer of each load has done so many operations more than now.
pub fn wait_for_operations(loads: &[&Load<'_>], count: u64, deadline: Duration) -> Result<f64> {
    let Some(first) = loads.first() else { return Ok(0.0) };
    let files = loads
        .iter()
        .flat_map(|load| load.kinds.iter().map(move |kind| format!("{OUT}/{}.{}.acked", load.id, kind.name())));
    let files = files.collect::<Vec<_>>().join(" ");
    // the count of before is taken when the condition is first looked at; a file that is not there yet counts as 0
    let condition = format!(
        "for file in {files}; do acked=$(cat $file 2>/dev/null); acked=$((10#${{acked:-0}})); before=${{begun[$file]:-}}; \
         [ -n \"$before\" ] || begun[$file]=$acked; [ $((acked - ${{begun[$file]}})) -ge {count} ] || done=no; done; \
         [ ${{done:-yes}} = yes ] || {{ unset done; false; }}"
    );
    let units: Vec<String> = loads.iter().map(|load| load.unit()).collect();
    let what = format!("{count} more operations of {}", units.join(", "));
    first.guest.wait_for_with(&what, deadline, "declare -A begun", &condition)
}

fn account(summary: &Value) -> Result<Account> {
    let errors = summary["errors"].as_object().with_context(|| format!("errors in the summary {summary}"))?;
    Ok(Account {
        acked: count(summary, "acked")?,
        lost: summary["lost"].as_u64().unwrap_or(0), // a reader has none
        wrong: count(summary, "wrong")?,
        errors: errors.iter().map(|(key, times)| (key.clone(), times.as_u64().unwrap_or(0))).collect(),
        longest: summary["longest"].as_f64().context("longest in the summary")?,
    })
}

impl Account {
    /// How many operations failed.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn count(report: &Value, key: &str) -> Result<u64> {
    report.get(key).and_then(Value::as_u64).with_context(|| format!("no count {key:?} in {report}"))
}
