//! The failure detector of one server: verdicts of probes in, trust out.
//!
//! One failed probe only makes the server *suspect* and has it probed again without delay; `dead_after` failures in a row
//! make it *dead*; `alive_after` successes in a row make a dead server *trusted* again, and one does for a suspect.
//! A probe that takes long is a success: slow is not dead.
//!
//! A server that comes and goes is trusted later each time: from the third outage within ten minutes on, it has to answer
//! without a failure for a while that doubles with each. Consumers that are let go and paused again every few seconds are worse off
//! than consumers that stay paused.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::BootInstant;

/// Pause before a suspect or dead-looking server that *refused* is probed again. A refusal takes no time, so without a
/// pause `dead_after` probes would pass within a millisecond and a server that restarts its service would be declared
/// dead; with a longer one the 0.5 s that design section 7 allows for a stopped server cannot be met.
pub const REPROBE_DELAY: Duration = Duration::from_millis(150);

/// Outages that began longer ago are forgotten: a NAS that is rebooted twice in an evening does not flap.
const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// With this many outages in the window the server flaps: a NAS that restarts its service for an update goes away twice.
const FLAP_OUTAGES: usize = 3;
/// How long it then has to answer, doubled with each further outage ...
const FLAP_ANSWERS_FOR: Duration = Duration::from_secs(10);
/// ... up to this, which is how much later than the server its shares come back at most.
const FLAP_ANSWERS_FOR_MAX: Duration = Duration::from_secs(120);

/// What one probe said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The server answered an SMB2 NEGOTIATE.
    Alive,
    /// No connection or no answer within the probe timeout.
    Silent,
    /// The connection was refused or reset: the host is there, the service is not.
    Refused,
    /// This host has no route or link to the server.
    Unreachable,
    /// Something answers on the port that does not speak SMB.
    Garbled,
    /// The server's name could not be resolved.
    Unresolved,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Alive => "answers",
            Self::Silent => "does not answer",
            Self::Refused => "refuses the connection",
            Self::Unreachable => "cannot be reached from here",
            Self::Garbled => "answers something that is not SMB",
            Self::Unresolved => "has a name that cannot be resolved",
        })
    }
}

/// What is believed of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "trust")]
pub enum Trust {
    /// Not enough probes yet.
    Unknown,
    /// It answers.
    Trusted,
    /// It failed at least one probe, and not yet enough to be dead.
    Suspect {
        /// What the last probe said.
        verdict: Verdict,
    },
    /// It failed `dead_after` probes in a row.
    Dead {
        /// What the last probe said.
        verdict: Verdict,
    },
}

/// A server that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flapping {
    /// Outages within the last ten minutes.
    pub outages: u32,
    /// How long it has to answer without a failure before it is trusted.
    pub must_answer_for: Duration,
}

/// How a server is probed.
#[derive(Clone, Copy, Debug)]
pub struct DetectorSpec {
    /// From the start of one probe to the start of the next while nothing is wrong.
    pub interval: Duration,
    /// Failures in a row until dead; at least 1.
    pub dead_after: u32,
    /// Successes in a row until a dead server is trusted; at least 1.
    pub alive_after: u32,
}

/// The detector of one server.
#[derive(Clone, Debug)]
pub struct Detector {
    spec: DetectorSpec,
    trust: Trust,
    failures: u32,
    successes: u32,
    /// Since when there were only successes.
    answers_since: BootInstant,
    /// When the outages of the last ten minutes began.
    outages: VecDeque<BootInstant>,
    next_probe_at: BootInstant,
}

impl Detector {
    /// A detector that knows nothing yet and wants its first probe at `now`.
    pub fn new(spec: DetectorSpec, now: BootInstant) -> Self {
        Self {
            spec,
            trust: Trust::Unknown,
            failures: 0,
            successes: 0,
            answers_since: now,
            outages: VecDeque::new(),
            next_probe_at: now,
        }
    }

    /// What is believed now.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Probes in another way from the next probe on; what is believed stays.
    pub fn reconfigure(&mut self, spec: DetectorSpec) {
        self.spec = spec;
    }

    /// The network of this host changed, or the host slept: what was true a moment ago need not be, so the next probe is due
    /// at once.
    pub fn handle_change_of_network(&mut self, now: BootInstant) {
        self.next_probe_at = now;
    }

    /// Whether the server comes and goes: it then has to answer for longer before it is trusted.
    pub fn flapping(&self, now: BootInstant) -> Option<Flapping> {
        let outages = self.outages.iter().filter(|at| now.since(**at) <= FLAP_WINDOW).count();
        let doublings = u32::try_from(outages.checked_sub(FLAP_OUTAGES)?).unwrap_or(u32::MAX).min(16);
        let must_answer_for = FLAP_ANSWERS_FOR.saturating_mul(1 << doublings).min(FLAP_ANSWERS_FOR_MAX);
        Some(Flapping { outages: u32::try_from(outages).unwrap_or(u32::MAX), must_answer_for })
    }

    /// When the next probe should start.
    pub fn next_probe_at(&self) -> BootInstant {
        self.next_probe_at
    }

    /// Takes in a probe that began at `started`; returns the new trust if it changed.
    pub fn handle_verdict(&mut self, started: BootInstant, now: BootInstant, verdict: Verdict) -> Option<Trust> {
        let before = self.trust;
        if verdict == Verdict::Alive {
            self.succeeded(now);
        } else {
            self.failed(now, verdict);
        }
        let about_to_change = match self.trust {
            Trust::Unknown | Trust::Suspect { .. } => true,
            Trust::Dead { .. } => verdict == Verdict::Alive && self.successes < self.spec.alive_after,
            Trust::Trusted => false,
        };
        self.next_probe_at = match (about_to_change, verdict) {
            (true, Verdict::Silent) => now, // it took the probe timeout already
            (true, _) => now + REPROBE_DELAY,
            (false, _) => (started + self.spec.interval).max(now),
        };
        (self.trust != before).then_some(self.trust)
    }

    fn succeeded(&mut self, now: BootInstant) {
        if self.successes == 0 {
            self.answers_since = now;
        }
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        let trusted = match self.trust {
            Trust::Unknown | Trust::Suspect { .. } | Trust::Trusted => true,
            Trust::Dead { .. } => self.successes >= self.spec.alive_after && self.answers_for_long_enough(now),
        };
        if trusted {
            self.trust = Trust::Trusted;
        }
    }

    fn answers_for_long_enough(&self, now: BootInstant) -> bool {
        self.flapping(now).is_none_or(|flapping| now.since(self.answers_since) >= flapping.must_answer_for)
    }

    fn failed(&mut self, now: BootInstant, verdict: Verdict) {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.trust = match self.trust {
            Trust::Dead { .. } => Trust::Dead { verdict },
            Trust::Unknown | Trust::Trusted | Trust::Suspect { .. } if self.failures >= self.spec.dead_after => {
                self.note_outage(now);
                Trust::Dead { verdict }
            }
            Trust::Unknown | Trust::Trusted | Trust::Suspect { .. } => Trust::Suspect { verdict },
        };
    }

    fn note_outage(&mut self, now: BootInstant) {
        self.outages.retain(|at| now.since(*at) <= FLAP_WINDOW);
        self.outages.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: DetectorSpec = DetectorSpec { interval: Duration::from_secs(1), dead_after: 3, alive_after: 3 };

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_boot(Duration::from_millis(ms))
    }

    /// Feeds verdicts that each take `took` and returns what changed.
    fn feed(detector: &mut Detector, took: u64, verdicts: &[Verdict]) -> Vec<Trust> {
        verdicts
            .iter()
            .filter_map(|&verdict| {
                let started = detector.next_probe_at();
                detector.handle_verdict(started, started + Duration::from_millis(took), verdict)
            })
            .collect()
    }

    #[test]
    fn one_failure_is_only_suspect_and_one_success_restores() {
        let mut detector = Detector::new(SPEC, at(0));
        assert_eq!(feed(&mut detector, 1, &[Verdict::Alive]), [Trust::Trusted]);
        let verdict = Verdict::Silent;
        assert_eq!(feed(&mut detector, 1000, &[verdict, Verdict::Alive]), [Trust::Suspect { verdict }, Trust::Trusted]);
    }

    #[test]
    fn a_silent_server_is_dead_within_four_seconds_of_the_last_good_probe() {
        let mut detector = Detector::new(SPEC, at(0));
        feed(&mut detector, 1, &[Verdict::Alive]);
        let good_at = at(0);
        feed(&mut detector, 1000, &[Verdict::Silent; 2]);
        let last_started = detector.next_probe_at();
        let verdict = Verdict::Silent;
        assert_eq!(feed(&mut detector, 1000, &[verdict]), [Trust::Dead { verdict }]);
        assert!((last_started + Duration::from_secs(1)).since(good_at) <= Duration::from_secs(4));
    }

    #[test]
    fn a_dead_server_is_trusted_only_after_enough_successes_in_a_row() {
        let mut detector = Detector::new(SPEC, at(0));
        feed(&mut detector, 1, &[Verdict::Refused; 3]);
        assert!(matches!(detector.trust(), Trust::Dead { .. }));
        feed(&mut detector, 1, &[Verdict::Alive, Verdict::Alive, Verdict::Refused, Verdict::Alive, Verdict::Alive]);
        assert!(matches!(detector.trust(), Trust::Dead { .. }));
        assert_eq!(feed(&mut detector, 1, &[Verdict::Alive]), [Trust::Trusted]);
    }

    #[test]
    fn a_dead_server_is_probed_at_the_interval_and_never_in_a_busy_loop() {
        let mut detector = Detector::new(SPEC, at(0));
        feed(&mut detector, 0, &[Verdict::Refused; 3]);
        let started = detector.next_probe_at();
        feed(&mut detector, 0, &[Verdict::Refused]);
        assert_eq!(detector.next_probe_at(), started + SPEC.interval);
    }

    /// An outage and the return from it; how long the return took.
    fn outage(detector: &mut Detector) -> Duration {
        feed(detector, 1, &[Verdict::Refused; 3]);
        assert!(matches!(detector.trust(), Trust::Dead { .. }));
        let began = detector.next_probe_at();
        for _ in 0..10_000 {
            if detector.trust() == Trust::Trusted {
                break;
            }
            feed(detector, 1, &[Verdict::Alive]);
        }
        detector.next_probe_at().since(began)
    }

    #[test]
    fn a_server_that_comes_and_goes_has_to_answer_for_longer_each_time() {
        let mut detector = Detector::new(SPEC, at(0));
        let took: Vec<u64> = (0..8).map(|_| outage(&mut detector).as_secs()).collect();
        assert!(took[..2].iter().all(|seconds| *seconds < 3), "{took:?}");
        for (index, least) in [(2, 10), (3, 20), (4, 40), (5, 80), (6, 120), (7, 120)] {
            assert!((least..least + 5).contains(&took[index]), "{took:?}");
        }
        let now = detector.next_probe_at();
        assert_eq!(detector.flapping(now).map(|flapping| flapping.outages), Some(8));
        assert_eq!(detector.flapping(now + FLAP_WINDOW), None);
    }
}
