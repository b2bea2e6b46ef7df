//! CLOCK_BOOTTIME, which counts suspend.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::share::BootInstant;

/// Now.
pub fn now() -> BootInstant {
    BootInstant::from_boot(read(ClockId::Boottime))
}

/// How long this host has slept since it booted: CLOCK_MONOTONIC stands still meanwhile.
pub fn slept() -> Duration {
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

/// By how much what `slept` says has grown, if that was a sleep.
pub fn slept_since(before: Duration, now: Duration) -> Option<Duration> {
    /// Less than this is the time between reading two clocks, or a clock that is being adjusted.
    const SHORTEST: Duration = Duration::from_millis(500);
    Some(now.saturating_sub(before)).filter(|asleep| *asleep >= SHORTEST)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Wall-clock time of an instant, for people: seconds since the epoch.
pub fn wall_clock(at: BootInstant) -> f64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs_f64() - now().since(at).as_secs_f64()
}

/// Sleeps until `at`; tokio's timers do not count suspend, so after a resume the caller may wake late and looks again.
pub async fn sleep_until(at: BootInstant) {
    tokio::time::sleep(at.since(now())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_adjusted_is_no_sleep() {
        let at = Duration::from_secs;
        assert_eq!(slept_since(at(5), at(5) + Duration::from_millis(499)), None);
        assert_eq!(slept_since(at(5), at(4)), None);
        assert_eq!(slept_since(at(5), at(65)), Some(at(60)));
    }
}
