//! Consumers of a share: one transient unit with a process per kind (`guest/load.py`), and their account.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::guest::Guest;
use crate::nas::Nas;

/// Where the accounts are kept: on a tmpfs of the guest, never on a share.
const OUT: &str = "/run/load";

/// What a consumer does, ten times a second.
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
}

impl<'guest> Load<'guest> {
    /// Describes consumers without starting them; `id` is part of the names of their files and of their unit.
    pub fn new(guest: &'guest Guest, id: &str, kinds: &[Kind]) -> Self {
        Self { guest, id: id.to_owned(), kinds: kinds.to_vec() }
    }

    /// The name of the transient unit that `start` makes.
    pub fn unit(&self) -> String {
        format!("load-{}.service", self.id)
    }

    /// A bash script that runs the consumers until they are told to stop: for a unit file of the case's own.
    pub fn script(&self, directory: &str) -> String {
        let id = &self.id;
        let consumers: String = self
            .kinds
            .iter()
            .map(|kind| {
                let kind = kind.name();
                format!(
                    "python3 {OUT}/bin/load.py {kind} '{directory}' --id {id} --out {OUT} --stop {OUT}/{id}.stop &\n"
                )
            })
            .collect();
        format!("{consumers}wait\n")
    }

    /// Starts the consumers as a transient unit; `wait_for_operations` says when they are at work.
    pub fn start(self, directory: &str) -> Result<Self> {
        self.install(directory)?;
        self.guest.ok(&format!(
            "systemd-run --quiet --unit={} -p TimeoutStopSec=10 bash {}",
            self.unit(),
            self.script_path()
        ))?;
        Ok(self)
    }

    /// Writes the script of the consumers to `script_path` and forgets an earlier run of the same id.
    pub fn install(&self, directory: &str) -> Result<()> {
        // A copy in the guest: consumers must not depend on the directory that the host shares.
        self.guest.ok(&format!(
            "rm -f {OUT}/{id}.*; mkdir -p {OUT}/bin && cp /host/guest/load.py {OUT}/bin/",
            id = self.id
        ))?;
        self.guest.write_file(&self.script_path(), &self.script(directory))
    }

    /// Where `install` puts the script, for `ExecStart=/bin/bash PATH`.
    pub fn script_path(&self) -> String {
        format!("{OUT}/{}.sh", self.id)
    }

    /// Waits until each consumer has done so many operations more than now.
    pub fn wait_for_operations(&self, count: u64, deadline: Duration) -> Result<f64> {
        let conditions: Vec<String> = self
            .kinds
            .iter()
            .map(|kind| {
                let file = format!("{OUT}/{}.{}.acked", self.id, kind.name());
                let now = format!("count=$(cat {file} 2>/dev/null); echo ${{count:-0}}");
                let target = self.guest.ok(&now)?.parse::<u64>().with_context(|| format!("read {file}"))? + count;
                Ok(format!("[ \"$(cat {file})\" -ge {target} ]"))
            })
            .collect::<Result<_>>()?;
        let what = format!("{count} more operations of {}", self.unit());
        self.guest.wait_for(&what, deadline, &conditions.join(" && "))
    }

    /// Tells the consumers to stop, waits for their last fsync and compares what was acknowledged with what the
    /// server has. The share has to be healthy by now: a consumer that hangs is an error after the deadline.
    pub fn finish(&self, nas: Nas<'_>, deadline: Duration) -> Result<BTreeMap<Kind, Account>> {
        let id = &self.id;
        let ended: Vec<String> =
            self.kinds.iter().map(|kind| format!("[ -e {OUT}/{id}.{}.json ]", kind.name())).collect();
        self.guest.ok(&format!("touch {OUT}/{id}.stop"))?;
        self.guest.wait_for(&format!("the end of {}", self.unit()), deadline, &ended.join(" && "))?;
        self.kinds.iter().map(|&kind| Ok((kind, self.account(kind, nas)?))).collect()
    }

    fn account(&self, kind: Kind, nas: Nas<'_>) -> Result<Account> {
        let name = format!("{}.{}", self.id, kind.name());
        let summary = serde_json::from_str::<Value>(&self.guest.read_file(&format!("{OUT}/{name}.json"))?)
            .with_context(|| format!("summary of {name}"))?;
        let lost = if kind == Kind::Reader {
            0
        } else {
            let export = nas.export("media");
            count(&self.guest.json(&format!("/host/guest/verify.py {OUT} {name} {export}"))?, "lost")?
        };
        let errors = summary["errors"].as_object().context("errors in the summary")?;
        Ok(Account {
            acked: count(&summary, "acked")?,
            lost,
            wrong: count(&summary, "wrong")?,
            errors: errors.iter().map(|(key, times)| (key.clone(), times.as_u64().unwrap_or(0))).collect(),
            longest: summary["longest"].as_f64().context("longest in the summary")?,
        })
    }
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
