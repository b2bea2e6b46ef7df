//! That the host slept: tokio's timers do not count suspend, so somebody has to notice and wake the others.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::info;

use crate::sys::clock;

/// How long after a resume at most everybody knows of it.
const TICK: Duration = Duration::from_secs(1);

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
            if let Some(asleep) = clock::slept_since(before, slept) {
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
        let asleep = clock::slept_since(self.known, slept)?;
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
