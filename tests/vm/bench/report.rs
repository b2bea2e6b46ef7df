//! What a run has measured, as it stands in `bench.json`. Tables, chart and verdicts are made of nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is called on a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Read,
    Write,
    Fsync,
    Stat,
    Open,
    Readdir,
    Statfs,
}

impl Operation {
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Fsync, Self::Stat, Self::Open, Self::Readdir, Self::Statfs];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fsync => "fsync",
            Self::Stat => "stat",
            Self::Open => "open",
            Self::Readdir => "readdir",
            Self::Statfs => "statfs",
        }
    }

    /// Whether it looks a path up; the others use a descriptor that was opened before the outage.
    pub fn is_by_path(self) -> bool {
        match self {
            Self::Read | Self::Write | Self::Fsync => false,
            Self::Stat | Self::Open | Self::Readdir | Self::Statfs => true,
        }
    }
}

/// How long something took, or, if it had not ended, how long it was watched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Took {
    pub seconds: f64,
    pub ended: bool,
}

/// The calls of one operation that were begun in one phase of an outage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// The longest of them; absent if there was none.
    pub longest: Option<Took>,
    /// What the longest one returned: "ok" or an errno.
    pub result: String,
    pub calls: u32,
    /// What failed, by errno.
    pub errors: BTreeMap<String, u32>,
}

/// The calls of one operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Begun before the cut, or before anybody could know of it.
    pub before: Stall,
    /// With nasmount: begun after it had noticed, and before those of `after`.
    pub between: Stall,
    /// Begun when the outage had lasted for a while, and before its end.
    pub after: Stall,
}

/// What a consumer was promised, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    /// Blocks that it was told are written, or that it has read.
    pub acked: u64,
    /// Of those written, how many the server does not have.
    pub lost: u64,
    pub errors: u64,
    /// Seconds of its longest operation.
    pub longest: f64,
}

/// One way of mounting, and what one outage did to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub way: String,
    pub calls: BTreeMap<Operation, Phases>,
    /// From the heal until all operations work and none fails any more.
    pub works_again: Took,
    /// By kind; empty if the consumers could not be brought to their end.
    pub consumers: BTreeMap<String, Consumer>,
    /// nasmount: seconds from the cut until it held the share.
    pub noticed: Option<f64>,
    /// nasmount: seconds from the heal until the share was online.
    pub online: Option<f64>,
}

/// One outage of all servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    pub fault: String,
    pub seconds: f64,
    /// Seconds from the cut to the first call of `Phases::after`.
    pub late: f64,
    pub ways: Vec<Measured>,
}

/// One short cut of a server whose share nobody uses, and whom nobody asks about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// What nasmount said was wrong: it has to be the fault.
    pub found: String,
    /// Seconds from right before the cut until nasmount held the share.
    pub held: f64,
    /// Seconds from the heal until the share was online.
    pub online: f64,
}

/// Short cuts of one kind, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    pub fault: String,
    pub cuts: Vec<Cut>,
}

/// Unmounting an idle mount of a server that is dead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unmounting {
    pub way: String,
    pub command: String,
    pub took: Took,
    /// Its exit code, or "blocked".
    pub result: String,
}

/// Switching the host off while consumers are at work on a share whose server has just died.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerOff {
    pub way: String,
    pub took: Took,
}

/// A file written on a healthy share, or the median of several, as `guest/bench.py` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Bytes per second.
    pub rate: f64,
    /// The most bytes that were in the cache only while it was being written: what an outage could have found.
    pub unwritten: f64,
}

/// Sequential buffered writing on a healthy share, with the fsync at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Size of each write.
    pub block: u64,
    /// Bytes of the file: no more can be unwritten.
    pub size: u64,
    /// Medians, by way.
    pub ways: BTreeMap<String, Written>,
}

/// What nasmount's two services occupy with so many shares configured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub shares: u32,
    /// Those that are mounted; the server of the others does not exist.
    pub mounted: u32,
    /// Mount points on which a barrier lies.
    pub barred: u32,
    pub daemon_kib: u64,
    pub barrier_kib: u64,
    /// Of each, with what is mapped by several processes divided by their number.
    pub daemon_pss_kib: u64,
    pub barrier_pss_kib: u64,
    /// Of both, without what is mapped from files: the program itself is in memory once, whoever runs it.
    pub anonymous_kib: u64,
}

/// What nasmount itself needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    pub memory: Vec<Memory>,
    /// Length of the quiet period, and how many shares were mounted in it.
    pub quiet_seconds: f64,
    pub quiet_shares: u32,
    /// Per cent of one processor, of both services with all their workers.
    pub processor: f64,
    /// Median seconds of a start of the same program in that quiet: most of the processor's time goes into starting workers.
    pub start: f64,
    /// Median seconds of `nasmount status` while all servers are dead, and of `nasmount --version`, which only starts.
    pub status: f64,
    pub version: f64,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Kernel, and how its machine is made.
    pub machine: String,
    /// How many runs a median is made of.
    pub runs: u32,
    /// Name and description.
    pub ways: Vec<(String, String)>,
    pub detection: Vec<Detection>,
    pub outages: Vec<Outage>,
    /// Seconds from the cut to the commands.
    pub unmounting_after: f64,
    pub unmounting: Vec<Unmounting>,
    pub power_off: Vec<PowerOff>,
    pub speed: Vec<Speed>,
    pub footprint: Footprint,
    /// What went wrong on the way and cost a figure.
    pub remarks: Vec<String>,
}

impl Took {
    pub fn ended(seconds: f64) -> Self {
        Self { seconds, ended: true }
    }

    /// Not over after so many seconds.
    pub fn open(seconds: f64) -> Self {
        Self { seconds, ended: false }
    }

    /// The longer one; of two equally long ones that which has not ended.
    pub fn max(self, other: Self) -> Self {
        let longer = other.seconds > self.seconds || (other.seconds >= self.seconds && !other.ended);
        if longer { other } else { self }
    }
}

impl Phases {
    /// Each phase, by the name under which it is shown.
    pub fn all(&self) -> [(&'static str, &Stall); 3] {
        [("before", &self.before), ("between", &self.between), ("after", &self.after)]
    }
}

impl Measured {
    /// The longest call of a phase among some operations.
    pub fn longest(&self, of: fn(&Phases) -> &Stall, among: fn(Operation) -> bool) -> Option<Took> {
        let stalls = self.calls.iter().filter(|(operation, _)| among(**operation));
        stalls.filter_map(|(_, phases)| of(phases).longest).reduce(Took::max)
    }

    /// How many calls of a phase failed.
    pub fn errors(&self, of: fn(&Phases) -> &Stall) -> u32 {
        self.calls.values().flat_map(|phases| of(phases).errors.values()).sum()
    }
}

impl Detection {
    /// Median seconds from the cut until the share was held.
    pub fn held(&self) -> f64 {
        median(self.cuts.iter().map(|cut| cut.held).collect())
    }

    /// Median seconds from the heal until it was online.
    pub fn online(&self) -> f64 {
        median(self.cuts.iter().map(|cut| cut.online).collect())
    }
}

impl Written {
    /// The median of each figure.
    pub fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure).collect());
        Self { rate: of(|run| run.rate), unwritten: of(|run| run.unwritten) }
    }
}

impl Speed {
    /// nasmount's rate by that of a mount with defaults.
    pub fn ratio(&self) -> Option<f64> {
        let rate = |name: &str| self.ways.get(name).map(|written| written.rate);
        Some(rate(super::targets::PATIENT)? / rate("defaults")?)
    }
}

impl Report {
    /// What all outages did to some ways.
    pub fn of(&self, ways: &[&str]) -> impl Iterator<Item = &Measured> {
        let ways = ways.to_vec();
        let all = self.outages.iter().flat_map(|outage| &outage.ways);
        all.filter(move |measured| ways.contains(&measured.way.as_str()))
    }

    /// The longest time among those of some ways in all outages.
    pub fn most(&self, ways: &[&str], time: impl Fn(&Measured) -> Option<Took>) -> Option<f64> {
        self.of(ways).filter_map(time).reduce(Took::max).map(|took| took.seconds)
    }
}

/// The middle one; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
