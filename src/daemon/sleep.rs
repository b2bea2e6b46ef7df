//! That the host slept: tokio's timers do not count suspend, so somebody has to notice and wake the others.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::info;

use crate::sys::clock;

/// How long after a resume at most everybody knows of it.
const TICK: Duration = Duration::from_secs(1);
/// Less than this is the time between reading two clocks, or a clock that is being adjusted.
const SHORTEST: Duration = Duration::from_millis(500);

/// Starts looking; what is published is how long the host has slept since it booted.
pub fn watch() -> watch::Receiver<Duration> {
    let (publish, published) = watch::channel(clock::slept());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let slept = clock::slept();
            let before = *publish.borrow();
            if let Some(asleep) = grown(before, slept) {
                info!(?asleep, "this host slept");
                let _ = publish.send_replace(slept);
            }
            if publish.is_closed() {
                return;
            }
        }
    });
    published
}

/// By how much the time asleep has grown, if that is a sleep.
fn grown(before: Duration, now: Duration) -> Option<Duration> {
    Some(now.saturating_sub(before)).filter(|asleep| *asleep >= SHORTEST)
}

/// What one actor knows of it.
#[derive(Debug)]
pub struct Sleep {
    published: watch::Receiver<Duration>,
    known: Duration,
}

impl Sleep {
    /// From now on.
    pub fn new(published: watch::Receiver<Duration>) -> Self {
        Self { published, known: clock::slept() }
    }

    /// How long the host slept since the last look, if it did. Asked in each turn of a loop, before anything else is done:
    /// whatever woke the loop may be older than the sleep.
    pub fn asleep(&mut self) -> Option<Duration> {
        let slept = clock::slept();
        let asleep = grown(self.known, slept)?;
        self.known = slept;
        Some(asleep)
    }

    /// Returns when the host has slept.
    pub async fn woken(&mut self) {
        if self.published.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_adjusted_is_no_sleep() {
        let at = Duration::from_secs;
        assert_eq!(grown(at(5), at(5) + Duration::from_millis(499)), None);
        assert_eq!(grown(at(5), at(4)), None);
        assert_eq!(grown(at(5), at(65)), Some(at(60)));
    }
}
