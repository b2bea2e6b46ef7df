//! The stack of time-outs: computed and checked in this one place.
//!
//! ```text
//!  server goes silent
//!  |-- probe time-out --|                       one probe has failed: suspect
//!  |------ detection ---------|                 dead: consumers paused, path barred
//!  |---------- patience --------------|         nothing in flight has failed; given up now ...
//!  |---------- patience + GIVEN_UP_WITHIN ---|  ... and all of it has ended
//!  |---------- kernel, 3 x echo_interval ------------------|   only if the daemon is dead: the safety net
//!  |---------- TCP, when nothing is acknowledged ---------------------- ... --|   924 s: what bounds every patience
//!  |---------- hold ------------------------------------------------ ... --|   consumers stopped, share released
//! ```
//!
//! And for one operation, whatever the server does:
//!
//! ```text
//!  |-- local step --|-- request --|-- mount, release --|-- recovery --|       its worker is ended; a state follows from that
//!  |-- start-up, before READY=1 --|-- TimeoutStartSec= of nasmount.service --|
//! ```
//!
//! Each layer must be shorter than the next, or the wrong one acts: a kernel that gives up before nasmount does throws
//! unwritten data away while consumers are paused and the server may be back a second later. Two exceptions are meant:
//! a patience of zero gives up at detection, and a hold shorter than the patience ends the patience with it.

use std::time::Duration;

use crate::config::settings::{HoldFor, ProbeSettings};

/// Time between two uncached `statfs` requests on a share where nothing is said.
///
/// The kernel counts from the last *response*: at the moment of the cut that may be this old, or as old as its own last echo.
/// Shorter costs wake-ups of disks and CPU; longer makes the kernel's time-out longer for the same patience.
pub const SHARE_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// What the deadline of a probe may grow to at a slow server, in terms of the configured one ...
const TIMEOUT_GROWS: u32 = 5;

/// ... and where there is no patience, so that giving up has no other bound than detection.
const TIMEOUT_GROWS_WITHOUT_PATIENCE: u32 = 3;

/// Time that the daemon gets between the end of the patience and the kernel's own time-out, to lay the fence and destroy
/// the sockets. Less than a few seconds would lose the race on a loaded host.
pub const GIVE_UP_MARGIN: Duration = Duration::from_secs(10);

/// From the end of the patience until the fence is up and the sockets are destroyed.
const FENCED_WITHIN: Duration = Duration::from_secs(4);

/// After fence and SOCK_DESTROY everything in flight has ended within this time: one round of the kernel's wait for a
/// reconnect is 10 s (`cifs_wait_for_server_reconnect`), and the measurements ended below 12 s.
pub const GIVEN_UP_WITHIN: Duration = Duration::from_secs(12);

/// How long a step may take that asks only this host; milliseconds, but for a loaded machine.
pub const LOCAL_STEP: Duration = Duration::from_secs(10);

/// How long an open share may take for an uncached request. A NAS whose disks spin up answers statfs after about ten
/// seconds; more than this and readers notice.
pub const REQUEST: Duration = Duration::from_secs(20);

/// The same while the server has just been suspect: it answers NEGOTIATE again, so a connection that survived answers at
/// once, and one that did not (a server restarted behind the veil) never will.
pub const REQUEST_WHEN_SUSPECT: Duration = Duration::from_secs(5);

/// The same after the sockets were destroyed. The kernel's reconnect thread tries every 3 s, its callers wait 10 s.
pub const REQUEST_AFTER_RECONNECT: Duration = Duration::from_secs(15);

/// How long what is unwritten may take to be written back at an unmount: what a dirty limit of megabytes needs on a slow line.
pub const FLUSH: Duration = Duration::from_secs(30);

/// The same before the host sleeps: logind waits 5 s for all who delay it (InhibitDelayMaxSec=, logind.conf(5)), and the kernel itself
/// writes back what is left.
pub const FLUSH_BEFORE_SLEEP: Duration = Duration::from_secs(3);

/// How long the clone may take to be dropped: tree disconnect and the flush of what is left take 3 s after the sockets are
/// destroyed, 10 s for a soft write.
pub const RELEASE: Duration = Duration::from_secs(30);

/// How long a mount waits for its turn: there is never more than one in flight on the host, and one takes less than a second
/// at a server that answers.
pub const MOUNT_TURN: Duration = Duration::from_secs(15);

/// How long a mount may take with that: connect <= 5 s, negotiate <= 27 s, session set-up and tree connect on top.
pub const MOUNT: Duration = Duration::from_secs(MOUNT_TURN.as_secs() + 45);

/// How long the kept mount is tried before it is released and mounted afresh: several rounds of `REQUEST_AFTER_RECONNECT`.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// The same while the host goes down: one round.
pub const RECOVERY_IN_SHUTDOWN: Duration = REQUEST_AFTER_RECONNECT;

// The order of the operations' layers, checked by the compiler.
const _: () = {
    assert!(LOCAL_STEP.as_secs() < REQUEST_AFTER_RECONNECT.as_secs());
    assert!(REQUEST_WHEN_SUSPECT.as_secs() < REQUEST.as_secs());
    assert!(GIVEN_UP_WITHIN.as_secs() < REQUEST_AFTER_RECONNECT.as_secs());
    assert!(GIVEN_UP_WITHIN.as_secs() < RELEASE.as_secs());
    assert!(3 * REQUEST_AFTER_RECONNECT.as_secs() < RECOVERY.as_secs());
    assert!(REQUEST.as_secs() < MOUNT.as_secs());
};

/// The kernel gives a connection up this many echo intervals after the last response (since 5.3).
pub const KERNEL_ECHO_FACTOR: u32 = 3;

/// The kernel looks at its clock only when a receive times out: up to this much later than 3E.
pub const KERNEL_TICK: Duration = Duration::from_secs(7);

/// How long a call on a soft mount waits once the kernel reconnects (`cifs_wait_for_server_reconnect`; measured).
pub const KERNEL_WAITS_FOR_RECONNECT: Duration = Duration::from_secs(10);

/// Smallest `echo_interval` of the kernel in seconds.
pub const ECHO_INTERVAL_MIN: u64 = 1;

/// Largest `echo_interval` of the kernel in seconds; above it mounts fail (since 6.15) or 60 is used (before).
pub const ECHO_INTERVAL_MAX: u64 = 600;

/// The soonest that TCP itself ends a connection of which nothing is acknowledged, and with it whatever is in flight: 15
/// retransmissions (net.ipv4.tcp_retries2) from a time-out of 200 ms on, which doubles up to 120 s, make 924.6 s
/// (Documentation/networking/ip-sysctl.rst). Longer only if the server was slow before.
pub const TCP_GIVES_UP: Duration = Duration::from_secs(924);

// With the largest `echo_interval` the kernel's own time-out is beyond TCP's, however rarely a share is asked.
const _: () = assert!(ECHO_INTERVAL_MAX * (KERNEL_ECHO_FACTOR as u64 - 1) > TCP_GIVES_UP.as_secs());

/// The longest time from a server's silence to the verdict `dead`: the last good probe has just begun, then
/// `dead_after` probes fail, each begun one interval after the one before (or when that one has timed out).
fn detection_with(probe: &ProbeSettings, timeout: Duration) -> Duration {
    let period = probe.interval.max(timeout);
    probe.interval + period * probe.dead_after.saturating_sub(1) + timeout
}

/// The longest time to the verdict `dead` of a server that usually answers quickly.
pub fn detection(probe: &ProbeSettings) -> Duration {
    detection_with(probe, probe.timeout)
}

/// The longest time to the verdict `dead` of any server.
pub fn detection_max(probe: &ProbeSettings) -> Duration {
    detection_with(probe, probe.timeout_max)
}

/// What the deadline of a probe may grow to, so that a slow server is dead before the patience is over.
pub fn timeout_max(probe: &ProbeSettings, patience: Duration) -> Duration {
    if patience.is_zero() {
        return probe.timeout * TIMEOUT_GROWS_WITHOUT_PATIENCE;
    }
    let each = patience.saturating_sub(probe.interval) / probe.dead_after.max(1);
    let each = if each < probe.interval { probe.timeout } else { each };
    each.clamp(probe.timeout, probe.timeout * TIMEOUT_GROWS)
}

/// The patience that one share asks for: never longer than its hold, at whose end the share is released anyway.
pub fn bounded_patience(patience: Duration, hold_for: HoldFor) -> Duration {
    match hold_for {
        HoldFor::For(hold) => patience.min(hold),
        HoldFor::Forever => patience,
    }
}

/// The soonest that the kernel gives up after a server went silent: its last response may be as old as the last `statfs`
/// (`share_probe`) or the last echo, whichever came later.
fn kernel_earliest(echo_interval: Duration, share_probe: Duration) -> Duration {
    echo_interval * KERNEL_ECHO_FACTOR - share_probe.min(echo_interval)
}

/// The longest patience: what TCP leaves above the margin. 914 s with a probe a second.
pub fn patience_max(probe: &ProbeSettings) -> Duration {
    TCP_GIVES_UP.saturating_sub(give_up_margin(probe))
}

/// What the kernel's time-outs leave after the patience, which counts from the first probe that fails.
fn give_up_margin(probe: &ProbeSettings) -> Duration {
    GIVE_UP_MARGIN.max(probe.interval + probe.timeout_max + FENCED_WITHIN)
}

/// The smallest `echo_interval` in seconds with which the kernel gives up [`GIVE_UP_MARGIN`] after the patience or later.
/// Within [`ECHO_INTERVAL_MAX`] if TCP does not give up sooner.
pub fn echo_interval_needed(probe: &ProbeSettings, patience: Duration, share_probe: Duration) -> u64 {
    let horizon = patience.max(detection_max(probe)) + give_up_margin(probe);
    let whole = |duration: Duration, by: u32| {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        millis.div_ceil(u64::from(by) * 1000).max(ECHO_INTERVAL_MIN)
    };
    // with echoes more often than requests the last echo counts, else the last request
    let by_echoes = whole(horizon, KERNEL_ECHO_FACTOR - 1);
    if Duration::from_secs(by_echoes) <= share_probe {
        by_echoes
    } else {
        whole(horizon + share_probe, KERNEL_ECHO_FACTOR)
    }
}

/// The stack of one share. The verdict and the kernel count from the moment at which the server goes silent; patience, giving up and
/// hold from the first probe that fails, an interval and a probe's time-out later at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// How long one probe may take.
    pub probe_timeout: Duration,
    /// The verdict `dead` at the latest, of the slowest server.
    pub detection: Duration,
    /// Nothing in flight fails before; the later of `patience` and `detection`.
    pub patience: Duration,
    /// Everything in flight has ended.
    pub given_up: Duration,
    /// The kernel gives up by itself, at the earliest.
    pub kernel_earliest: Duration,
    /// The kernel gives up by itself, at the latest.
    pub kernel_latest: Duration,
    /// The share is released.
    pub hold: HoldFor,
}

/// An order of time-outs that cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerViolation {
    /// The patience would be over before anybody knows that the server is dead.
    #[error(
        "a patience of {} ends before a dead server is detected, which takes up to {}",
        show(*.patience),
        show(*.detection)
    )]
    PatienceBelowDetection {
        /// As configured.
        patience: Duration,
        /// As follows from the probe's settings.
        detection: Duration,
    },
    /// TCP would give up before nasmount does.
    #[error(
        "a patience of {} cannot be kept: TCP ends a connection of which nothing is acknowledged after {} \
         (net.ipv4.tcp_retries2); at most {} are possible",
        show(*.patience),
        show(TCP_GIVES_UP),
        show(*.most)
    )]
    PatienceTooLong {
        /// As configured.
        patience: Duration,
        /// The longest that can be kept.
        most: Duration,
    },
    /// TCP would give up before anybody knows that the server is dead.
    #[error(
        "with these probes a dead server is detected after up to {}, and TCP ends a connection of which nothing is \
         acknowledged after {} (net.ipv4.tcp_retries2); at most {} are possible",
        show(*.detection),
        show(TCP_GIVES_UP),
        show(*.most)
    )]
    DetectionTooSlow {
        /// As follows from the probe's settings, of the slowest server.
        detection: Duration,
        /// The longest that it may take.
        most: Duration,
    },
    /// The kernel would give up before nasmount does.
    #[error(
        "with echo_interval={echo_interval} the kernel gives up {} s after the last response; \
         a patience of {} needs {needed} or more",
        .echo_interval * u64::from(KERNEL_ECHO_FACTOR),
        show(*.patience)
    )]
    KernelTooSoon {
        /// Seconds, as configured.
        echo_interval: u64,
        /// Seconds, at least.
        needed: u64,
        /// In force.
        patience: Duration,
    },
}

fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Whether a patience can be kept at all with these probes.
pub fn check_patience(probe: &ProbeSettings, patience: Duration) -> Result<(), LayerViolation> {
    let detection = detection(probe);
    if !patience.is_zero() && patience < detection {
        return Err(LayerViolation::PatienceBelowDetection { patience, detection });
    }
    check_against_tcp(probe, patience)
}

fn check_against_tcp(probe: &ProbeSettings, patience: Duration) -> Result<(), LayerViolation> {
    let (most, detection) = (patience_max(probe), detection_max(probe));
    if patience > most {
        return Err(LayerViolation::PatienceTooLong { patience, most });
    }
    if detection > most {
        return Err(LayerViolation::DetectionTooSlow { detection, most });
    }
    Ok(())
}

impl Layers {
    /// Computes the stack and checks its order. `echo_interval` in seconds; `patience` is the one in force.
    pub fn new(
        probe: &ProbeSettings,
        patience: Duration,
        share_probe: Duration,
        echo_interval: u64,
        hold: HoldFor,
    ) -> Result<Self, LayerViolation> {
        check_against_tcp(probe, patience)?;
        let needed = echo_interval_needed(probe, patience, share_probe);
        if echo_interval < needed {
            return Err(LayerViolation::KernelTooSoon { echo_interval, needed, patience });
        }
        let detection = detection_max(probe);
        let patience = patience.max(detection);
        let echo_interval = Duration::from_secs(echo_interval);
        Ok(Self {
            probe_timeout: probe.timeout,
            detection,
            patience,
            given_up: patience + GIVEN_UP_WITHIN,
            kernel_earliest: kernel_earliest(echo_interval, share_probe),
            kernel_latest: echo_interval * KERNEL_ECHO_FACTOR + KERNEL_TICK,
            hold,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// As configured by default, for this patience.
    fn probe(patience: Duration) -> ProbeSettings {
        let settings =
            ProbeSettings { interval: SECOND, timeout: SECOND, timeout_max: SECOND, dead_after: 3, alive_after: 3 };
        ProbeSettings { timeout_max: timeout_max(&settings, patience), ..settings }
    }

    #[test]
    fn detection_counts_the_interval_in_which_the_server_died() {
        assert_eq!(detection(&probe(SECOND)), 4 * SECOND);
        let slow = ProbeSettings { timeout: 5 * SECOND, ..probe(SECOND) };
        assert_eq!(detection(&slow), 16 * SECOND);
    }

    #[test]
    fn a_slow_server_is_waited_for_within_the_patience() {
        for (patience, expected) in [(0, 3), (4, 1), (7, 2), (30, 5), (600, 5)] {
            let patience = patience * SECOND;
            let probe = probe(patience);
            assert_eq!(probe.timeout_max, expected * SECOND, "{patience:?}");
            assert!(patience.is_zero() || detection_max(&probe) <= patience);
        }
        // probes that take less than the interval between them leave no room to grow into
        let quick = ProbeSettings { timeout: SECOND / 5, ..probe(SECOND) };
        assert_eq!(timeout_max(&quick, 3 * SECOND), SECOND / 5);
        assert_eq!(timeout_max(&quick, 4 * SECOND), SECOND);
    }

    #[test]
    fn the_kernel_is_slower_than_the_patience_but_not_by_much() {
        for share_probe in [1, 10, 60, 600].map(|seconds| seconds * SECOND) {
            for patience in [0, 4, 30, 31, 32, 60, 120, 300, 900].map(|seconds| seconds * SECOND) {
                let probe = probe(patience);
                let echo = echo_interval_needed(&probe, patience, share_probe);
                let layers = Layers::new(&probe, patience, share_probe, echo, HoldFor::Forever).unwrap();
                assert!(layers.probe_timeout < layers.detection);
                assert!(layers.detection <= layers.patience);
                assert!(layers.patience + GIVE_UP_MARGIN <= layers.kernel_earliest, "{layers:?}");
                assert!(layers.kernel_earliest < layers.patience + GIVE_UP_MARGIN + 3 * SECOND, "{layers:?}");
                let too_small = Layers::new(&probe, patience, share_probe, echo - 1, HoldFor::Forever).unwrap_err();
                assert!(matches!(too_small, LayerViolation::KernelTooSoon { .. }));
            }
        }
        assert_eq!(echo_interval_needed(&probe(30 * SECOND), 30 * SECOND, SHARE_PROBE_INTERVAL), 17);
    }

    #[test]
    fn what_cannot_hold_is_refused_with_its_numbers() {
        let check = |patience| check_patience(&probe(patience), patience);
        let error = check(2 * SECOND).unwrap_err();
        assert_eq!(error.to_string(), "a patience of 2s ends before a dead server is detected, which takes up to 4s");
        let most = patience_max(&probe(900 * SECOND));
        assert_eq!(most, 914 * SECOND, "five seconds of a slow probe, one between two, four until the fence");
        let error = check(most + SECOND).unwrap_err();
        assert!(error.to_string().contains("after 15m 24s (net.ipv4.tcp_retries2); at most 15m 14s"), "{error}");
        check(Duration::ZERO).unwrap();
        check(4 * SECOND).unwrap();
        check(most).unwrap();
    }

    /// It is given up at detection, which has to come before TCP gives up all the same.
    #[test]
    fn no_patience_is_no_excuse_for_probes_that_take_forever() {
        let rare = |dead_after| ProbeSettings { interval: 60 * SECOND, dead_after, ..probe(Duration::ZERO) };
        check_patience(&rare(14), Duration::ZERO).unwrap();
        let error = check_patience(&rare(15), Duration::ZERO).unwrap_err();
        let expected = LayerViolation::DetectionTooSlow { detection: 903 * SECOND, most: 857 * SECOND };
        assert_eq!(error, expected);
    }

    #[test]
    fn the_longest_patience_has_its_echo_interval_however_rarely_a_share_is_asked() {
        for share_probe in [1, 10, 600].map(|seconds| seconds * SECOND) {
            let probe = probe(900 * SECOND);
            let most = patience_max(&probe);
            let echo = echo_interval_needed(&probe, most, share_probe);
            assert!(echo <= ECHO_INTERVAL_MAX, "{echo}");
            Layers::new(&probe, most, share_probe, echo, HoldFor::Forever).unwrap();
            let error =
                Layers::new(&probe, most + SECOND, share_probe, ECHO_INTERVAL_MAX, HoldFor::Forever).unwrap_err();
            assert!(matches!(error, LayerViolation::PatienceTooLong { .. }), "{error}");
        }
    }

    #[test]
    fn a_short_hold_ends_the_patience() {
        let minute = 60 * SECOND;
        assert_eq!(bounded_patience(minute, HoldFor::For(Duration::ZERO)), Duration::ZERO);
        assert_eq!(bounded_patience(minute, HoldFor::Forever), minute);
    }
}
