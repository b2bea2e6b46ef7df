//! How fast a server answers: its deadline follows from what it usually needs, and one that has become slow is said to be.
//!
//! Slow is not dead. A NAS behind a VPN or with a loaded processor answers late for hours, and a deadline that it misses
//! every few minutes would hold its consumers each time. So the deadline of a probe is the configured one, or four times what
//! the slowest of the last answers took, whichever is longer, within a limit that keeps detection shorter than the patience.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Answers that are remembered: five minutes at a probe a second.
const REMEMBERED: usize = 300;
/// The last answers, by which the present is judged: one slow answer among them is a hiccup.
const RECENT: usize = 5;
/// The deadline in terms of the slowest recent answer. TCP's first retransmission comes at least a round trip and four
/// deviations later (RFC 6298); an answer that takes four times as long as any before is no answer.
const DEADLINE_FACTOR: u32 = 4;
/// Slow is what takes so many times as long as usual ...
const SLOW_FACTOR: u32 = 5;
/// ... and is noticed by people: below this nobody does ...
const SLOW_FROM: Duration = Duration::from_millis(200);
/// ... while this is slow however usual it is.
const ALWAYS_SLOW_FROM: Duration = Duration::from_secs(1);

/// The answers of a server, newest last.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    latencies: VecDeque<Duration>,
}

/// How a server's answers came in the last five minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The last answer.
    pub last: Duration,
    /// Half of them came within this.
    pub median: Duration,
    /// All but the slowest twentieth came within this.
    pub p95: Duration,
    /// The slowest of them.
    pub slowest: Duration,
    /// The server has become slow, or always is.
    pub slow: bool,
}

impl Pace {
    /// An answer came after `latency`.
    pub fn answered(&mut self, latency: Duration) {
        if self.latencies.len() == REMEMBERED {
            self.latencies.pop_front();
        }
        self.latencies.push_back(latency);
    }

    /// What was true of a server before an outage says little of what it is after it.
    pub fn forget(&mut self) {
        self.latencies.clear();
    }

    /// How long the next probe may take: the configured deadline, or as long as the recent answers make likely, up to `most`.
    pub fn deadline(&self, configured: Duration, most: Duration) -> Duration {
        let slowest = self.recent().max().unwrap_or_default();
        slowest.saturating_mul(DEADLINE_FACTOR).min(most).max(configured)
    }

    /// What is said of it; `None` before the first answer.
    pub fn latency(&self) -> Option<Latency> {
        let last = *self.latencies.back()?;
        let mut sorted: Vec<Duration> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        Some(Latency { last, median: at(50), p95: at(95), slowest: at(100), slow: self.is_slow() })
    }

    fn recent(&self) -> impl Iterator<Item = Duration> {
        self.latencies.iter().rev().take(RECENT).copied()
    }

    fn is_slow(&self) -> bool {
        let recent = median(self.recent().collect());
        let usual = median(self.latencies.iter().rev().skip(RECENT).copied().collect());
        match (recent, usual) {
            (Some(recent), _) if recent >= ALWAYS_SLOW_FROM => true,
            (Some(recent), Some(usual)) => recent >= SLOW_FROM && recent >= usual.saturating_mul(SLOW_FACTOR),
            (_, None) | (None, _) => false,
        }
    }
}

fn median(mut latencies: Vec<Duration>) -> Option<Duration> {
    latencies.sort_unstable();
    latencies.get(latencies.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn pace(latencies: &[(usize, u32)]) -> Pace {
        let mut pace = Pace::default();
        for (times, ms) in latencies {
            (0..*times).for_each(|_| pace.answered(*ms * MS));
        }
        pace
    }

    #[test]
    fn the_deadline_grows_with_what_the_server_needs_and_not_beyond_the_limit() {
        let deadline = |latencies: &[(usize, u32)]| pace(latencies).deadline(SECOND, 3 * SECOND);
        assert_eq!(deadline(&[]), SECOND);
        assert_eq!(deadline(&[(50, 3)]), SECOND);
        assert_eq!(deadline(&[(50, 3), (1, 600)]), 2400 * MS);
        assert_eq!(deadline(&[(50, 900)]), 3 * SECOND);
        assert_eq!(deadline(&[(1, 900), (5, 3)]), SECOND, "what is long ago is forgotten");
        assert_eq!(pace(&[(9, 900)]).deadline(SECOND, Duration::ZERO), SECOND, "never below what is configured");
    }

    #[test]
    fn one_hiccup_is_not_slow_and_what_is_usual_is_not_either() {
        let slow = |latencies: &[(usize, u32)]| pace(latencies).latency().is_some_and(|latency| latency.slow);
        assert!(!slow(&[(50, 3), (2, 900)]));
        assert!(slow(&[(50, 3), (3, 300)]));
        assert!(!slow(&[(50, 3), (5, 150)]), "nobody notices");
        assert!(!slow(&[(50, 400)]), "a VPN");
        assert!(slow(&[(50, 1200)]));
    }

    #[test]
    fn what_is_said_of_it() {
        let mut pace = pace(&[(94, 2), (5, 10), (1, 70)]);
        let latency = pace.latency();
        let expected = Latency { last: 70 * MS, median: 2 * MS, p95: 10 * MS, slowest: 70 * MS, slow: false };
        assert_eq!(latency, Some(expected));
        (0..REMEMBERED).for_each(|_| pace.answered(MS));
        assert_eq!(pace.latency().map(|latency| latency.slowest), Some(MS));
        pace.forget();
        assert_eq!(pace.latency(), None);
    }
}
