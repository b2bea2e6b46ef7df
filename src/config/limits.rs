//! What a consumer may use of the host: systemd's resource limits, written into the drop-in of its unit (systemd.resource-control(5)).

use std::collections::BTreeMap;

use super::consumer::{Consumer, system_unit};
use super::fragment::ConsumerFragment;
use super::invalid::{InvalidKind, Problems};
use super::reader::{Fields, NoneWord};
use super::source::Sourced;
use super::value::{SizeRange, show_size};

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Above it the unit is slowed down and its memory taken back. Bytes.
    MemoryHigh,
    /// Above it the unit meets the OOM killer. Bytes.
    MemoryMax,
    /// Its part of the processor when others want it, too; a unit's without one is 100.
    CpuWeight,
    /// The same of the disks.
    IoWeight,
}

/// Of CPUWeight= and IOWeight=.
const WEIGHTS: std::ops::RangeInclusive<i64> = 1..=10_000;
/// With less no program that uses a share gets anywhere.
const MEMORY_MIN: u64 = 16 << 20;
/// What is no limit to any host is a slip of the pen: not suggested.
const MEMORY: SizeRange = SizeRange { least: MEMORY_MIN, most: 16 << 40 };

const OF_ENGINE: &str = "give it --memory or --cpu-shares (`docker update`, `podman update`, compose)";

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MemoryHigh, Self::MemoryMax, Self::CpuWeight, Self::IoWeight];

    /// Its name in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::MemoryHigh => "memory_high",
            Self::MemoryMax => "memory_max",
            Self::CpuWeight => "cpu_weight",
            Self::IoWeight => "io_weight",
        }
    }

    /// systemd's name for it.
    pub fn property(self) -> &'static str {
        match self {
            Self::MemoryHigh => "MemoryHigh",
            Self::MemoryMax => "MemoryMax",
            Self::CpuWeight => "CPUWeight",
            Self::IoWeight => "IOWeight",
        }
    }

    /// The cgroup controller that enforces it.
    pub fn controller(self) -> &'static str {
        match self {
            Self::MemoryHigh | Self::MemoryMax => "memory",
            Self::CpuWeight => "cpu",
            Self::IoWeight => "io",
        }
    }

    /// As a person writes the value.
    pub(super) fn show(self, value: u64) -> String {
        match self {
            Self::MemoryHigh | Self::MemoryMax => show_size(value),
            Self::CpuWeight | Self::IoWeight => value.to_string(),
        }
    }

    fn read(self, fields: &mut Fields<'_>, problems: &mut Problems<'_>) -> Option<Sourced<u64>> {
        match self {
            Self::MemoryHigh | Self::MemoryMax => {
                let Sourced { value, origin } = fields.size(self.key(), NoneWord::Refused, MEMORY, problems)?;
                value.map(|value| Sourced { value, origin })
            }
            Self::CpuWeight | Self::IoWeight => {
                let Sourced { value, origin } = fields.integer(self.key(), WEIGHTS, problems)?;
                Some(Sourced { value: value.unsigned_abs(), origin })
            }
        }
    }
}

/// The limits of one `[[share.NAME.consumer]]`.
pub(super) fn read_limits(fields: &mut Fields<'_>, problems: &mut Problems<'_>) -> BTreeMap<Limit, Sourced<u64>> {
    Limit::ALL.into_iter().filter_map(|limit| Some((limit, limit.read(fields, problems)?))).collect()
}

/// The section of a unit's file that limits are written into; `None` for units without processes of their own.
pub fn section(unit: &str) -> Option<&'static str> {
    match system_unit(unit)?.rsplit_once('.')?.1 {
        "service" => Some("Service"),
        "scope" => Some("Scope"),
        "slice" => Some("Slice"),
        _ => None,
    }
}

/// Checked limits.
pub(super) fn validate_limits(
    key: &str,
    consumer: &ConsumerFragment,
    problems: &mut Problems<'_>,
) -> BTreeMap<Limit, u64> {
    let mut valid = BTreeMap::new();
    for (limit, given) in &consumer.limits {
        let key = format!("{key}.{}", limit.key());
        if section(&consumer.unit.value).is_none() {
            let (message, help) = match Consumer::of(&consumer.unit.value) {
                Consumer::Container { name, .. } => {
                    (format!("the limits of container {name} are its engine's"), OF_ENGINE)
                }
                Consumer::Label(_) | Consumer::Compose(_) => {
                    ("the limits of containers are their engine's".to_owned(), OF_ENGINE)
                }
                Consumer::UserUnit { unit, .. } => (
                    format!("{unit} is a user's, who sets its limits"),
                    "have the user run `systemctl --user edit` for it",
                ),
                Consumer::Unit(unit) => {
                    (format!("{unit} has no processes that could be limited"), "limit the service that it starts")
                }
            };
            problems.refuse(InvalidKind::NotAllowed, given.origin, key, message, help);
            continue;
        }
        if limit.controller() == "memory" && given.value < MEMORY_MIN {
            let message = format!("{} is out of range", show_size(given.value));
            let help = format!("use {} or more", show_size(MEMORY_MIN));
            problems.refuse(InvalidKind::OutOfRange, given.origin, key, message, help);
            continue;
        }
        valid.insert(*limit, given.value);
    }
    if let (Some(high), Some(max)) = (consumer.limits.get(&Limit::MemoryHigh), valid.get(&Limit::MemoryMax))
        && high.value > *max
    {
        let message =
            format!("{} is above memory_max, {}: it would never be reached", show_size(high.value), show_size(*max));
        let help = "use less, or leave one of the two out";
        problems.refuse(InvalidKind::Conflict, high.origin, format!("{key}.memory_high"), message, help);
    }
    valid
}
