//! From single calls to stalls: which phase of the outage a call belongs to, and when a share works again.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::report::{Operation, Phases, Stall, Took};

/// A call as `guest/bench.py` writes it: an array. Times are the guest's uptime.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    operation: Operation,
    start: f64,
    /// Absent if it had not returned when the watch ended.
    end: Option<f64>,
    /// "ok" or the name of an errno; nothing before the end.
    result: String,
}

/// All calls of a share in one outage.
#[derive(Clone, Debug, Deserialize)]
pub struct Calls {
    /// The end of the watch.
    stopped: f64,
    calls: Vec<Call>,
}

/// The moments of an outage, each by the guest's uptime.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When nasmount had noticed; of other ways, which tell nobody, the same as `late`.
    pub noticed: f64,
    /// From here on a call counts as begun after the outage was known.
    pub late: f64,
    pub healed: f64,
}

impl Calls {
    /// The longest call and the errors of each operation, by the phase in which the calls were begun.
    pub fn phases(&self, moments: Moments) -> BTreeMap<Operation, Phases> {
        let mut all: BTreeMap<Operation, Phases> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| call.start < moments.healed) {
            let phases = all.entry(call.operation).or_default();
            let stall = match call.start {
                start if start < moments.noticed => &mut phases.before,
                start if start < moments.late => &mut phases.between,
                _ => &mut phases.after,
            };
            call.count(self.stopped, stall);
        }
        all
    }

    /// From the heal until each operation succeeds and does not fail again.
    pub fn works_again(&self, healed: f64) -> Took {
        let watched = Took::open(self.stopped - healed);
        let of_operation = |operation: Operation| {
            let ended = |succeeded: bool| {
                let calls = self.calls.iter().filter(move |call| call.operation == operation);
                calls.filter(move |call| (call.result == "ok") == succeeded).filter_map(|call| call.end)
            };
            let last_failure = ended(false).fold(healed, f64::max);
            let success = ended(true).filter(|end| *end > last_failure).reduce(f64::min);
            success.map_or(watched, |success| Took::ended(success - healed))
        };
        Operation::ALL.map(of_operation).into_iter().reduce(Took::max).unwrap_or(watched)
    }
}

impl Call {
    fn count(&self, stopped: f64, stall: &mut Stall) {
        let took = self.end.map_or_else(|| Took::open(stopped - self.start), |end| Took::ended(end - self.start));
        stall.calls += 1;
        if took.ended && self.result != "ok" {
            *stall.errors.entry(self.result.clone()).or_default() += 1;
        }
        let longest = stall.longest.map_or(took, |longest| longest.max(took));
        if stall.longest != Some(longest) {
            stall.longest = Some(longest);
            stall.result.clone_from(&self.result);
        }
    }
}
