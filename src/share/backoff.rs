//! Capped exponential delay with jitter from a given seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Delays that double from the first to the longest, each shortened by up to a quarter so that shares do not march in step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
    seed: u64,
}

impl Backoff {
    /// Of what a server refuses. First: a NAS that has just booted refuses a mount for a second or two. Longest: how much
    /// later than the server a share may come back at most.
    pub fn of_server(seed: u64) -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30), tries: 0, seed }
    }

    /// Of local steps of a hold or a recovery, which people wait for.
    pub fn of_host(seed: u64) -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(5), tries: 0, seed }
    }

    /// Of mounts that are made and do not last: their consumers are stopped and started each time.
    pub fn of_remounts(seed: u64) -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(600), tries: 0, seed }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.tries.min(16)).unwrap_or(u32::MAX));
        let whole = doubled.min(self.longest);
        self.tries = self.tries.saturating_add(1);
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let quarter = u64::try_from(whole.as_millis() / 4).unwrap_or(0);
        let jitter = Duration::from_millis(rng.u64(0..=quarter));
        self.seed = rng.get_seed();
        whole - jitter
    }

    /// Whether there was a delay since the last success.
    pub fn has_begun(&self) -> bool {
        self.tries > 0
    }

    /// Success: back to the first delay.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_anew_after_a_success() {
        let mut backoff = Backoff::of_server(1);
        for seconds in [1_u64, 2, 4, 8, 16, 30, 30, 30] {
            let whole = Duration::from_secs(seconds);
            let delay = backoff.next_delay();
            assert!(delay <= whole && delay >= whole * 3 / 4, "{delay:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }

    #[test]
    fn seeds_spread() {
        let first = |seed| Backoff::of_server(seed).next_delay();
        assert!((1..20).any(|seed| first(seed) != first(0)));
    }
}
