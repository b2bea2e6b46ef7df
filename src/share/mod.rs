//! The heart: what a share does when the world around it changes. Pure: no clock, no I/O; time, seed and order are arguments.
//!
//! ```text
//!                         server dead                 server back
//!   ┌──────── online ─────────────────► holding ─────────────────► recovering ──┐
//!   │           ▲ │ probe failed          ▲  │ ▲ server dead            │  │      │ verified,
//!   │ verified  │ ▼        server dead    │  │ └────────────────────────┘  │      │ attached
//!   │         suspect ────────────────────┘  │ hold over                   │      │
//!   │                                        ▼                not healed   │      │
//!   │                                   releasing ◄────────────────────────┘      │
//!   │                                        │ clone dropped                      │
//!   │  attached             server back      ▼                                    │
//!   └◄─────── mounting ◄──────────────── offline                                  │
//!   └◄────────────────────────────────────────────────────────────────────────────┘
//!
//!   mounting, recovering ── doubted while the share was being attached ──► suspect
//!   mounting, offline ── a person is needed ──► blocked ── mount, reload ──► offline
//!   any ── somebody else's mount lies on the mount point ──► blocked ── it is gone ──► what is found
//!   any ── unmount, remount ──► releasing          any ── maintenance on ──► maintenance ── off, over ──► survey
//!   a mount or fence step ── deadline passed ──► stuck ── it returned ──► survey, then what was found
//! ```
//!
//! ([`State::may_become`] has all of it.) A share is driven by *facts*, not by a script: in each state `step` compares what is
//! in place with what the state promises and asks for the first thing that is missing. So a daemon that finds an earlier one's
//! mounts, barriers, fences and paused units goes on from exactly there: adopting is a survey and nothing else.
//!
//! It has at most one operation in flight, with an id and a deadline. One that changes the mount table or the fence is never
//! believed to have ended before it says so (`stuck`); any other is abandoned at its deadline.
//!
//! What is to become of the share's consumers it only *demands*; [`consumers`] decides for each unit of the host, because
//! a unit may need several shares.
//!
//! Rejected: a script of steps per transition. It was shorter until the daemon could die between any two of them. A lane for
//! consumers in each share. It was simpler until one unit needed two shares, and each let go what the other held.

mod admission;
pub mod backoff;
pub mod command;
mod completed;
pub mod consumers;
#[cfg(test)]
mod desk;
pub mod detector;
pub mod effect;
pub mod event;
mod facts;
pub mod failure;
pub mod ladder;
mod machine;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod outage_tests;
pub mod recording;
mod sleep;
#[cfg(test)]
mod sleep_tests;
pub mod state;
mod step;
pub mod time;
pub mod timer;
mod transition;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::config::settings::OnSleep;
pub use command::{Command, Refusal, Verdict};
pub use consumers::Consumers;
pub use effect::{Effect, OpId, Step};
pub use event::{Event, Input};
pub use machine::{Share, Transition};
pub use state::{Reason, State};
pub use time::BootInstant;

/// What a share has to know of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSpec {
    /// How long nothing in flight is given up.
    pub patience: Duration,
    /// How long the outage is held; `None` for ever.
    pub hold_for: Option<Duration>,
    /// Time between two uncached requests through the share while it is open.
    pub probe_interval: Duration,
    /// What is done with a share that is well when the host goes to sleep.
    #[serde(default)]
    pub on_sleep: OnSleep,
}
