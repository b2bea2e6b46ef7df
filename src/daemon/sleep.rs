//! That the host goes to sleep, and that it slept.
//!
//! logind announces a sleep and waits for a moment: the shares are told, and the inhibitor is let go when all of them are ready. The
//! clocks tell of any sleep, announced or not, when it is over; tokio's timers do not count suspend, so somebody has to notice and
//! wake the others. Not every kind of suspend stops the clocks (s2idle need not), so what logind says counts as well.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::board::Board;
use crate::sys::clock;
use crate::sys::logind::Logind;

/// How long after a resume at most everybody knows of it.
const TICK: Duration = Duration::from_secs(1);

/// How long the sleep is delayed at most: less than logind waits by default (`InhibitDelayMaxSec=`, 5 s).
const DELAYED_FOR: Duration = Duration::from_secs(4);

/// Pause between two looks whether all shares are ready.
const POLL: Duration = Duration::from_millis(50);

/// Pause before logind is asked again when the bus was lost ...
const RETRY: Duration = Duration::from_secs(5);

/// ... and when there is none: each time the bus looks for it, and says so in its log.
const RETRY_IF_ABSENT: Duration = Duration::from_secs(600);

/// What is known of the host's sleep.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// How long the host has slept since it booted.
    slept: Duration,
    /// How often a sleep was announced.
    announced: u64,
    /// The last one that was announced is not over, as far as logind says.
    preparing: bool,
}

/// Where it is published.
pub type Publisher = Arc<watch::Sender<Published>>;

/// Starts looking at the clocks.
pub fn watch() -> Publisher {
    let now = Published { slept: clock::slept(), announced: 0, preparing: false };
    let publisher = Arc::new(watch::channel(now).0);
    tokio::spawn(look_at_clocks(Arc::clone(&publisher)));
    publisher
}

async fn look_at_clocks(publisher: Publisher) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let slept = clock::slept();
        let before = publisher.borrow().slept;
        if let Some(asleep) = clock::slept_since(before, slept) {
            info!(?asleep, "this host slept");
            publisher.send_modify(|published| published.slept = slept);
        }
    }
}

/// Heeds what logind announces, as long as the daemon runs; without logind a sleep is known when it is over.
pub async fn heed_logind(publisher: Publisher, board: Arc<Board>) {
    let mut told = false;
    loop {
        let Err(error) = heed(&publisher, &board, &mut told).await;
        // whatever was announced, nobody will say that it is over
        announce(&publisher, false);
        if !std::mem::replace(&mut told, true) {
            info!(%error, "logind cannot be heard: shares are not held before this host sleeps, and verified after it all the same");
        }
        let is_absent = matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_));
        tokio::time::sleep(if is_absent { RETRY_IF_ABSENT } else { RETRY }).await;
    }
}

async fn heed(publisher: &Publisher, board: &Board, told: &mut bool) -> zbus::Result<std::convert::Infallible> {
    let mut logind = Logind::connect().await?;
    let mut inhibitor = None;
    let mut preparing = logind.is_preparing_for_sleep().await?; // a daemon may start in between
    *told = false;
    loop {
        announce(publisher, preparing);
        if preparing {
            let all = wait_until_ready(board).await;
            info!(all, "shares are ready for this host to sleep");
        }
        inhibitor = if preparing { None } else { inhibit(&logind, inhibitor).await };
        preparing = logind.next().await?;
    }
}

/// The one that is held, or a new one.
async fn inhibit(logind: &Logind, held: Option<OwnedFd>) -> Option<OwnedFd> {
    if held.is_some() {
        return held;
    }
    let taken = logind.delay_sleep("Shares are held and written back").await;
    taken.inspect_err(|error| warn!(%error, "this host will not wait for its shares before it sleeps")).ok()
}

fn announce(publisher: &Publisher, preparing: bool) {
    publisher.send_if_modified(|published| {
        let begins = preparing && !published.preparing;
        published.announced += u64::from(begins);
        std::mem::replace(&mut published.preparing, preparing) != preparing
    });
}

/// Whether they are in time.
async fn wait_until_ready(board: &Board) -> bool {
    let mut looks = tokio::time::interval(POLL);
    let ready = async {
        loop {
            looks.tick().await;
            if board.actors().shares.values().all(|handle| handle.view.borrow().share.is_ready_to_sleep()) {
                return;
            }
        }
    };
    tokio::time::timeout(DELAYED_FOR, ready).await.is_ok()
}

/// What an actor hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The host is about to sleep.
    Began,
    /// It slept, or is not about to any more.
    Ended {
        /// For how long, as far as its clocks tell.
        asleep: Duration,
    },
}

/// What one actor knows of it.
#[derive(Debug)]
pub struct Sleep {
    published: watch::Receiver<Published>,
    slept: Duration,
    announced: u64,
    sleeps: bool,
}

impl Sleep {
    /// From now on; an announcement that is not over is news.
    pub fn new(publisher: &watch::Sender<Published>) -> Self {
        let published = publisher.subscribe();
        let Published { announced, preparing, .. } = *published.borrow();
        Self { announced: announced - u64::from(preparing), published, slept: clock::slept(), sleeps: false }
    }

    /// What there is since the last look. Asked in each turn of a loop, before anything else is done: whatever woke the loop may be
    /// older than the sleep.
    pub fn news(&mut self) -> Option<News> {
        self.news_at(clock::slept())
    }

    fn news_at(&mut self, slept: Duration) -> Option<News> {
        let Published { announced, preparing, .. } = *self.published.borrow();
        if let Some(asleep) = clock::slept_since(self.slept, slept) {
            // logind says so later
            (self.slept, self.announced, self.sleeps) = (slept, announced, false);
            return Some(News::Ended { asleep });
        }
        if self.sleeps && (!preparing || self.announced != announced) {
            self.sleeps = false;
            return Some(News::Ended { asleep: Duration::ZERO });
        }
        if preparing && self.announced != announced {
            (self.announced, self.sleeps) = (announced, true);
            return Some(News::Began);
        }
        None
    }

    /// Returns when there may be news.
    pub async fn woken(&mut self) {
        if self.published.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn published(announced: u64, preparing: bool) -> Published {
        Published { slept: Duration::ZERO, announced, preparing }
    }

    fn told_of(publisher: &watch::Sender<Published>) -> Sleep {
        Sleep { slept: Duration::ZERO, ..Sleep::new(publisher) }
    }

    #[test]
    fn a_sleep_is_announced_once_and_is_over_once() {
        let publisher = Arc::new(watch::channel(published(0, false)).0);
        let mut sleep = told_of(&publisher);
        assert_eq!(sleep.news_at(Duration::ZERO), None);
        announce(&publisher, true);
        announce(&publisher, true);
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Began));
        assert_eq!(sleep.news_at(Duration::ZERO), None);
        assert_eq!(sleep.news_at(MINUTE), Some(News::Ended { asleep: MINUTE }), "the clocks tell it first");
        assert_eq!(sleep.news_at(MINUTE), None, "logind has not said so yet");
        announce(&publisher, false);
        assert_eq!(sleep.news_at(MINUTE), None, "and it is no news when it does");
    }

    #[test]
    fn what_the_clocks_do_not_tell_logind_does() {
        let publisher = Arc::new(watch::channel(published(0, false)).0);
        let mut sleep = told_of(&publisher);
        announce(&publisher, true);
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Began));
        announce(&publisher, false);
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Ended { asleep: Duration::ZERO }));
        announce(&publisher, true);
        announce(&publisher, false);
        assert_eq!(sleep.news_at(Duration::ZERO), None, "over before anybody looked");
    }

    #[test]
    fn an_end_that_nobody_saw_comes_before_the_next_beginning() {
        let publisher = Arc::new(watch::channel(published(4, true)).0);
        let mut sleep = told_of(&publisher);
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Began), "who comes later hears of it");
        announce(&publisher, false);
        announce(&publisher, true);
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Ended { asleep: Duration::ZERO }));
        assert_eq!(sleep.news_at(Duration::ZERO), Some(News::Began));
    }
}
