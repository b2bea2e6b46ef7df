//! The failure detector of one server: verdicts of probes in, trust out.
//!
//! One failed probe only makes the server *suspect* and has it probed again without delay; `dead_after` failures in a row
//! make it *dead*; `alive_after` successes in a row make a dead server *trusted* again, and one does for a suspect.
//! A probe that takes long is a success: slow is not dead (`pace`).
//!
//! What is wrong with this host itself is known without a probe: a pulled cable, no route, no address. If that lasts for
//! a moment the server is dead at once. Off the networks to which a server is bound it is not even asked (`network`). An answer by another machine than before ([`Identity`]) is none: nothing that was
//! written for one server may be sent to another.
//!
//! A server that comes and goes is trusted later each time: from the third outage within ten minutes on, it has to answer
//! without a failure for a while that doubles with each. Consumers that are let go and paused again every few seconds are worse off
//! than consumers that stay paused.
//!
//! The kernel's own view (`/proc/fs/cifs/DebugData`) is not asked. Behind the veil its connection looks well until nasmount decides,
//! and what it knows of requests that wait is what an uncached request through the share finds out; reading it while
//! something is mounted or unmounted was a use-after-free until 6.7.

pub mod addresses;
pub mod network;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::BootInstant;
pub use crate::config::settings::IdentityPolicy;
pub use pace::Latency;
use pace::Pace;

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

/// How long what is wrong with this host has to last before its servers are dead for it: a roaming Wi-Fi is without a link
/// for less, and a pulled cable has to be known within the 0.5 s that design section 7 allows.
pub const LOCAL_GRACE: Duration = Duration::from_millis(250);

/// How often a dead server is probed, if its interval is longer, when this host has just got a way to it again: the news of a link
/// comes before neighbours and routers are known, and the first probe fails ...
const HURRIED_INTERVAL: Duration = Duration::from_millis(500);
/// ... for so long: a port of a switch that looks for loops first forwards nothing for 30 s (IEEE 802.1D). What takes longer, as a new
/// address does, is news again.
const HURRIED_FOR: Duration = Duration::from_secs(35);

/// How long the first connection to a dead server is kept on which it has not answered ...
const KEPT_FIRST: Duration = Duration::from_secs(5);
/// ... and, doubled with each, how long any is: a server of which only the one process hangs that took the connection is found to live
/// by the next one.
const KEPT_LONGEST: Duration = Duration::from_secs(60);

/// How long a connection to a dead server is kept that does not answer, after one that was kept for so long.
pub fn kept_for(before: Option<Duration>) -> Duration {
    before.map_or(KEPT_FIRST, |before| (2 * before).min(KEPT_LONGEST))
}

/// What one probe said, or what is known without one.
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
    /// Another machine answers at the server's address.
    Stranger,
    /// The interface through which the server is reached has no link.
    NoLink,
    /// This host has no route to the server.
    NoRoute,
    /// This host has no address from which the server could be reached.
    NoAddress,
    /// This host is on no network on which the server may be asked.
    OffNetwork,
}

/// Whose trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The server's, or the network's on the way to it.
    Server,
    /// This host's own.
    Host,
}

impl Verdict {
    /// Whose trouble a failure is.
    pub fn whose(self) -> Whose {
        match self {
            Self::NoLink | Self::NoRoute | Self::NoAddress | Self::OffNetwork => Whose::Host,
            Self::Alive
            | Self::Silent
            | Self::Refused
            | Self::Unreachable
            | Self::Garbled
            | Self::Unresolved
            | Self::Stranger => Whose::Server,
        }
    }
}

/// What is wrong with this host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalTrouble {
    /// The interface has no link.
    NoLink,
    /// There is no route.
    NoRoute,
    /// There is no address.
    NoAddress,
    /// The server may be asked on other networks only.
    OffNetwork,
}

impl From<LocalTrouble> for Verdict {
    fn from(trouble: LocalTrouble) -> Self {
        match trouble {
            LocalTrouble::NoLink => Self::NoLink,
            LocalTrouble::NoRoute => Self::NoRoute,
            LocalTrouble::NoAddress => Self::NoAddress,
            LocalTrouble::OffNetwork => Self::OffNetwork,
        }
    }
}

/// Which machine answers: the `ServerGuid` of its NEGOTIATE response ([MS-SMB2] 2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// A server that does not say who it is sends zeros.
    pub fn is_told(self) -> bool {
        self.0 != [0; 16]
    }

    /// Of 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Whether it answers.
    pub verdict: Verdict,
    /// Who answered.
    pub identity: Option<Identity>,
}

impl Probed {
    /// Without an identity.
    pub fn plainly(verdict: Verdict) -> Self {
        Self { verdict, identity: None }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "answers",
            Self::Silent => "does not answer",
            Self::Refused => "refuses the connection",
            Self::Unreachable => "cannot be reached from here",
            Self::Garbled => "answers something that is not SMB",
            Self::Unresolved => "has a name that cannot be resolved",
            Self::Stranger => "is not the one that it was: another machine answers at its address",
            Self::NoLink => "cannot be reached: this host has no link",
            Self::NoRoute => "cannot be reached: this host has no route to it",
            Self::NoAddress => "cannot be reached: this host has no address",
            Self::OffNetwork => "is not asked: this host is not on its network",
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
    /// How long a probe may take at a server that answers quickly ...
    pub timeout: Duration,
    /// ... and at any.
    pub timeout_max: Duration,
    /// Failures in a row until dead; at least 1.
    pub dead_after: u32,
    /// Successes in a row until a dead server is trusted; at least 1.
    pub alive_after: u32,
    /// Who may answer.
    pub identity: IdentityPolicy,
    /// It may be asked on some networks only: not before it is known that this host is on one.
    pub bound: bool,
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
    /// Probes that began before say nothing of now.
    fresh_since: BootInstant,
    /// Until when it is probed more often, unless it answers.
    hurried_until: Option<BootInstant>,
    pace: Pace,
    /// What is wrong with this host, and since when.
    local: Option<(LocalTrouble, BootInstant)>,
    /// Nobody has looked yet on which network this host is.
    unlooked: bool,
    /// What is said to be wrong with this host, although the server was asked since and has answered.
    disbelieved: Option<LocalTrouble>,
    identity: Option<Identity>,
    /// Who answered last, if that was somebody else.
    stranger: Option<Identity>,
}

impl Detector {
    /// A detector that knows nothing but who answered an earlier one, and wants its first probe at `now`.
    pub fn new(spec: DetectorSpec, identity: Option<Identity>, now: BootInstant) -> Self {
        Self {
            spec,
            trust: Trust::Unknown,
            failures: 0,
            successes: 0,
            answers_since: now,
            outages: VecDeque::new(),
            next_probe_at: now,
            fresh_since: now,
            hurried_until: None,
            pace: Pace::default(),
            local: None,
            unlooked: spec.bound,
            disbelieved: None,
            identity,
            stranger: None,
        }
    }

    /// What is believed now.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Probes in another way from the next probe on; what is believed stays.
    pub fn reconfigure(&mut self, spec: DetectorSpec) {
        self.unlooked = spec.bound && (self.unlooked || !self.spec.bound);
        self.spec = spec;
    }

    /// The network of this host changed: what was true a moment ago need not be, so the next probe is due
    /// at once; and if it fails, the next ones are soon, because it may have come too early.
    pub fn handle_change_of_network(&mut self, now: BootInstant) {
        self.next_probe_at = now;
        self.hurried_until = Some(now + HURRIED_FOR);
    }

    /// Whether the server comes and goes: it then has to answer for longer before it is trusted.
    pub fn flapping(&self, now: BootInstant) -> Option<Flapping> {
        let outages = self.outages.iter().filter(|at| now.since(**at) <= FLAP_WINDOW).count();
        let doublings = u32::try_from(outages.checked_sub(FLAP_OUTAGES)?).unwrap_or(u32::MAX).min(16);
        let must_answer_for = FLAP_ANSWERS_FOR.saturating_mul(1 << doublings).min(FLAP_ANSWERS_FOR_MAX);
        Some(Flapping { outages: u32::try_from(outages).unwrap_or(u32::MAX), must_answer_for })
    }

    /// When the next probe should start; never while nobody may be asked.
    pub fn poll_probe(&self) -> Option<BootInstant> {
        self.may_ask().then_some(self.next_probe_at)
    }

    /// Whether anything may be sent to the server: this host is not known to be off its network, nor is that unknown.
    pub fn may_ask(&self) -> bool {
        !self.unlooked && !self.local.is_some_and(|(trouble, _)| trouble == LocalTrouble::OffNetwork)
    }

    /// How long a probe that starts now may take.
    pub fn probe_timeout(&self) -> Duration {
        self.pace.deadline(self.spec.timeout, self.spec.timeout_max)
    }

    /// How its answers came lately.
    pub fn latency(&self) -> Option<Latency> {
        self.pace.latency()
    }

    /// The host slept: what was believed is not known any more, but that a dead server has to answer for as long as ever; and what a
    /// probe says that began before says nothing of now.
    pub fn handle_resumed(&mut self, now: BootInstant) -> Option<Trust> {
        self.handle_change_of_network(now);
        self.fresh_since = now;
        self.unlooked = self.spec.bound;
        (self.failures, self.successes) = (0, 0);
        match self.trust {
            Trust::Trusted | Trust::Suspect { .. } => {
                self.trust = Trust::Unknown;
                Some(self.trust)
            }
            Trust::Unknown | Trust::Dead { .. } => None,
        }
    }

    /// Who has to answer, once that is known.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Who answers instead.
    pub fn stranger(&self) -> Option<Identity> {
        self.stranger
    }

    /// Whether the server itself answered the last probe.
    pub fn answers(&self) -> bool {
        self.successes > 0
    }

    /// Whether what was found, there or elsewhere, is the server itself.
    pub fn is_itself(&self, probed: Probed) -> bool {
        probed.verdict == Verdict::Alive && self.stranger_in(probed).is_none()
    }

    /// Who answered, if that is not who has to.
    fn stranger_in(&self, probed: Probed) -> Option<Identity> {
        let told = probed.identity.filter(|identity| identity.is_told())?;
        let pinned = self.identity.filter(|_| self.spec.identity == IdentityPolicy::Pinned)?;
        (told != pinned).then_some(told)
    }

    /// An operator says that who answers now is the right one.
    pub fn trust_stranger(&mut self, now: BootInstant) {
        self.identity = self.stranger.take().or(self.identity);
        self.next_probe_at = now;
    }

    /// What was heard of the server without asking it, a FIN or a RST: it is asked at once.
    pub fn handle_hint(&mut self, now: BootInstant) {
        if self.trust == Trust::Trusted {
            self.next_probe_at = now;
        }
    }

    /// What is wrong with this host itself, or that nothing is any more.
    pub fn handle_local(&mut self, now: BootInstant, trouble: Option<LocalTrouble>) -> Option<Trust> {
        self.unlooked = false;
        let before = self.local.map(|(trouble, _)| trouble);
        if before.or(self.disbelieved) == trouble {
            return None;
        }
        if [before, trouble].contains(&Some(LocalTrouble::OffNetwork)) {
            self.fresh_since = now; // on the other network it was somebody else who was asked
        }
        let since = self.local.map_or(now, |(_, since)| since);
        self.local = trouble.map(|trouble| (trouble, since));
        self.disbelieved = None;
        self.next_probe_at = now; // whatever it is, an answer says more
        self.hurried_until = trouble.is_none().then(|| now + HURRIED_FOR);
        self.handle_timeout(now)
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        let (trouble, since) = self.local?;
        let known = matches!(self.trust, Trust::Dead { verdict } if verdict == trouble.into());
        (!known).then(|| since + LOCAL_GRACE)
    }

    /// A trouble of this host that has lasted, without an answer to a probe begun since, is believed; early or repeated calls
    /// do nothing.
    pub fn handle_timeout(&mut self, now: BootInstant) -> Option<Trust> {
        let (trouble, _) = self.local?;
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let before = self.trust;
        self.successes = 0;
        self.failures = self.failures.max(self.spec.dead_after);
        self.believe_dead(now, trouble.into());
        (self.trust != before).then_some(self.trust)
    }

    /// Takes in a probe that began at `started`; returns the new trust if it changed.
    pub fn handle_probe(&mut self, started: BootInstant, now: BootInstant, probed: Probed) -> Option<Trust> {
        if started < self.fresh_since || !self.may_ask() {
            self.next_probe_at = now;
            return None;
        }
        let before = self.trust;
        let verdict = self.judge(probed);
        if verdict == Verdict::Alive {
            self.hurried_until = None;
            self.pace.answered(now.since(started));
            if let Some((trouble, _)) = self.local.take_if(|(_, since)| *since <= started) {
                self.disbelieved = Some(trouble);
            }
            self.succeeded(now);
        } else {
            self.failed(now, verdict);
        }
        let about_to_change = match self.trust {
            Trust::Unknown | Trust::Suspect { .. } => true,
            Trust::Dead { .. } => verdict == Verdict::Alive && self.successes < self.spec.alive_after,
            Trust::Trusted => false,
        };
        let hurried = self.hurried_until.is_some_and(|until| now < until);
        let interval = if hurried { self.spec.interval.min(HURRIED_INTERVAL) } else { self.spec.interval };
        self.next_probe_at = match (about_to_change, verdict) {
            (true, Verdict::Silent) => now, // it took the probe timeout already
            (true, _) => now + REPROBE_DELAY,
            (false, _) => (started + interval).max(now),
        };
        (self.trust != before).then_some(self.trust)
    }

    /// Of what was answered what counts; of a failure the cause that is nearest.
    fn judge(&mut self, probed: Probed) -> Verdict {
        if probed.verdict != Verdict::Alive {
            return self.local.map_or(probed.verdict, |(trouble, _)| trouble.into());
        }
        self.stranger = self.stranger_in(probed);
        if self.stranger.is_some() {
            return Verdict::Stranger;
        }
        self.identity = probed.identity.filter(|identity| identity.is_told()).or(self.identity);
        Verdict::Alive
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
                self.believe_dead(now, verdict);
                return;
            }
            Trust::Unknown | Trust::Trusted | Trust::Suspect { .. } => Trust::Suspect { verdict },
        };
    }

    fn believe_dead(&mut self, now: BootInstant, verdict: Verdict) {
        if !matches!(self.trust, Trust::Dead { .. }) {
            self.note_outage(now);
            self.pace.forget();
        }
        self.trust = Trust::Dead { verdict };
    }

    fn note_outage(&mut self, now: BootInstant) {
        self.outages.retain(|at| now.since(*at) <= FLAP_WINDOW);
        self.outages.push_back(now);
    }
}
