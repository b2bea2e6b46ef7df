//! What giving a share up took: each rung, how long it may take and how long it took. Made of the effects of the machine and of their
//! completions; decides nothing, and the machine does not know of it.
//!
//! A ladder goes from the first thing that is taken away until the share is online again, or off the host. The last one stays until the
//! next begins, so that a person can still see which rung ended it.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::{OpId, Step};
use super::state::State;
use super::time::BootInstant;
use super::timer;

/// Most rungs that are kept: two whole ladders. Of one on which the same things fail again and again the oldest go.
const MOST: usize = 16;

/// How a rung ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not.
    InFlight,
    /// It was done.
    Done,
    /// It was not done in time, or no longer wanted, and its worker told to end.
    Abandoned,
    /// It failed: why.
    Failed(String),
}

/// One thing that was done to give the share up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// None of a daemon before this one, whose ids say nothing now.
    #[serde(skip)]
    op: Option<OpId>,
    /// Name of the operation.
    pub operation: Cow<'static, str>,
    /// When it began.
    pub began: BootInstant,
    /// How long it may take.
    pub budget: Duration,
    /// How long it took, if it has ended and that is known; of one that was abandoned until it was.
    pub took: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
}

/// The last time that a share was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    rungs: Vec<Rung>,
    is_over: bool,
}

impl Ladder {
    /// What was done, in order.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// As a new daemon finds it: what was in flight is not any more.
    pub fn inherited(mut self) -> Self {
        for rung in self.rungs.iter_mut().filter(|rung| rung.outcome == Outcome::InFlight) {
            rung.outcome = Outcome::Failed("nasmount was restarted meanwhile".to_owned());
        }
        self
    }

    /// The share is in this state now.
    pub fn is_in(&mut self, state: State) {
        self.is_over |= matches!(state, State::Online | State::Offline | State::Mounting);
    }

    /// An operation begins.
    pub fn began(&mut self, now: BootInstant, op: OpId, step: &Step, state: State) {
        if !gives_up(step, state) {
            return;
        }
        if std::mem::take(&mut self.is_over) {
            self.rungs.clear();
        }
        if self.rungs.len() == MOST {
            self.rungs.remove(0);
        }
        let (operation, budget) = (step.name().into(), timer::deadline(step, state));
        self.rungs.push(Rung { op: Some(op), operation, began: now, budget, took: None, outcome: Outcome::InFlight });
    }

    /// It ended, perhaps late. Returns the rung, if it is one.
    pub fn ended(&mut self, now: BootInstant, op: OpId, result: Result<(), &str>) -> Option<&Rung> {
        let outcome = result.map_or_else(|why| Outcome::Failed(why.to_owned()), |()| Outcome::Done);
        self.set(now, op, outcome)
    }

    /// Nobody waits for it any more.
    pub fn abandoned(&mut self, now: BootInstant, op: OpId) -> Option<&Rung> {
        self.set(now, op, Outcome::Abandoned)
    }

    /// What was abandoned may still be done; that its worker was ended is no news.
    fn set(&mut self, now: BootInstant, op: OpId, outcome: Outcome) -> Option<&Rung> {
        let rung = self.rungs.iter_mut().find(|rung| rung.op == Some(op))?;
        match (&rung.outcome, &outcome) {
            (Outcome::InFlight, _) | (Outcome::Abandoned, Outcome::Done) => {}
            (Outcome::Abandoned | Outcome::Done | Outcome::Failed(_), _) => return None,
        }
        (rung.took, rung.outcome) = (Some(now.since(rung.began)), outcome);
        Some(rung)
    }
}

/// Does it take something away for good, or is it done only because something is?
fn gives_up(step: &Step, state: State) -> bool {
    match step {
        Step::RaiseFence | Step::RaiseSinkhole | Step::ShutDown | Step::Release | Step::DropClone => true,
        // at the beginning of a hold the path is barred, and nothing given up; at its end the sockets are destroyed to come back
        Step::Detach | Step::Flush | Step::AskForLoss => state == State::Releasing,
        Step::DestroySockets { .. } => matches!(state, State::Releasing | State::Holding),
        Step::Survey
        | Step::LayBarrier
        | Step::Mount
        | Step::Verify
        | Step::TryLogin
        | Step::Attach
        | Step::LiftFence => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plan::layers;

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_boot(Duration::from_millis(ms))
    }

    fn destroy() -> Step {
        Step::DestroySockets { since: at(0) }
    }

    fn said(ladder: &Ladder) -> Vec<(&str, Option<u128>, Outcome)> {
        let took = |rung: &Rung| rung.took.map(|took| took.as_millis());
        ladder.rungs().iter().map(|rung| (&*rung.operation, took(rung), rung.outcome.clone())).collect()
    }

    #[test]
    fn each_rung_is_kept_with_what_it_took_and_how_it_ended() {
        let mut ladder = Ladder::default();
        let holding = State::Holding;
        ladder.began(at(0), OpId(1), &Step::Detach, holding);
        ladder.began(at(1), OpId(2), &Step::RaiseFence, holding);
        assert!(ladder.ended(at(2), OpId(1), Ok(())).is_none(), "the path was barred, nothing given up");
        let rung = ladder.ended(at(21), OpId(2), Ok(())).unwrap();
        assert_eq!((rung.took, rung.budget), (Some(Duration::from_millis(20)), layers::LOCAL_STEP));
        ladder.began(at(30), OpId(3), &destroy(), holding);
        ladder.ended(at(70), OpId(3), Err("no"));
        ladder.is_in(State::Releasing);
        ladder.began(at(100), OpId(4), &Step::AskForLoss, State::Releasing);
        assert!(ladder.abandoned(at(15_100), OpId(4)).is_some());
        assert!(ladder.ended(at(15_101), OpId(4), Err("the worker was ended")).is_none(), "no news");
        ladder.began(at(15_200), OpId(5), &Step::Release, State::Releasing);
        let failed = Outcome::Failed("no".to_owned());
        assert_eq!(
            said(&ladder),
            [
                ("raise fence", Some(20), Outcome::Done),
                ("destroy sockets", Some(40), failed),
                ("ask for loss", Some(15_000), Outcome::Abandoned),
                ("release", None, Outcome::InFlight),
            ]
        );
        ladder.abandoned(at(45_200), OpId(5));
        ladder.ended(at(60_000), OpId(5), Ok(()));
        assert_eq!(said(&ladder)[3], ("release", Some(44_800), Outcome::Done), "late is not never");
    }

    #[test]
    fn the_next_begins_anew_and_one_that_goes_on_for_ever_has_an_end() {
        let mut ladder = Ladder::default();
        ladder.began(at(0), OpId(1), &Step::RaiseFence, State::Releasing);
        ladder.is_in(State::Offline);
        ladder.began(at(50), OpId(2), &Step::Mount, State::Mounting);
        assert_eq!(ladder.rungs().len(), 1, "it stays");
        ladder.began(at(90), OpId(3), &destroy(), State::Recovering);
        assert_eq!(ladder.rungs().len(), 1, "to come back");
        for op in 4..100 {
            ladder.began(at(100), OpId(op), &Step::Release, State::Releasing);
        }
        assert_eq!((ladder.rungs().len(), ladder.rungs()[0].op), (MOST, Some(OpId(84))));
    }

    #[test]
    fn a_new_daemon_goes_on_with_it() {
        let mut ladder = Ladder::default();
        ladder.began(at(0), OpId(1), &Step::RaiseFence, State::Releasing);
        ladder.ended(at(20), OpId(1), Ok(()));
        ladder.began(at(30), OpId(2), &Step::Release, State::Releasing);
        let text = serde_json::to_string(&ladder).unwrap();
        let mut ladder = serde_json::from_str::<Ladder>(&text).unwrap().inherited();
        assert!(ladder.ended(at(40), OpId(2), Ok(())).is_none(), "another operation");
        ladder.began(at(50), OpId(2), &Step::Release, State::Releasing);
        ladder.ended(at(60), OpId(2), Ok(()));
        let restarted = Outcome::Failed("nasmount was restarted meanwhile".to_owned());
        assert_eq!(
            said(&ladder),
            [
                ("raise fence", Some(20), Outcome::Done),
                ("release", None, restarted),
                ("release", Some(10), Outcome::Done)
            ]
        );
    }
}
