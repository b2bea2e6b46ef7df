//! For tests: one share, and a host that does at once what it is asked.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::command::{Maintenance, Refusal, Verdict};
use super::consumers::Progress;
use super::detector::{Trust, Verdict as Probe};
use super::event::{Done, Survey};
use super::failure::{Failure, FailureClass};
use super::timer::Timer;
use super::*;

pub const DEAD: Trust = Trust::Dead { verdict: Probe::Silent };

/// A share whose operations are answered as `answers` says: the first whose step has that name; all others succeed at once.
pub struct Desk {
    pub share: Share,
    pub now: BootInstant,
    pub answers: Vec<(&'static str, Answer)>,
    pub survey: Survey,
    pub started: Vec<(BootInstant, &'static str)>,
    /// What is said of the consumers.
    pub progress: Progress,
    /// What `Answer::Never` left.
    pub in_flight: Vec<(OpId, &'static str)>,
}

#[derive(Clone)]
pub enum Answer {
    Fails(FailureClass),
    /// EHOSTDOWN, at once.
    Refused,
    Never,
}

impl Desk {
    pub fn new(trust: Trust) -> Self {
        Self::with(trust, Vec::new())
    }

    pub fn with(trust: Trust, answers: Vec<(&'static str, Answer)>) -> Self {
        let now = BootInstant::from_boot(Duration::from_secs(1_000));
        let spec = ShareSpec {
            patience: Duration::from_secs(60),
            hold_for: Some(Duration::from_secs(600)),
            probe_interval: Duration::from_secs(10),
            on_sleep: OnSleep::Hold,
        };
        let share = Share::new(spec, 7, now);
        let mut desk = Self {
            share,
            now,
            answers,
            survey: Survey::default(),
            started: Vec::new(),
            progress: Progress::Settled,
            in_flight: Vec::new(),
        };
        desk.put(Event::ServerTrustChanged { trust });
        desk
    }

    pub fn put(&mut self, event: Event) {
        self.share.handle_event(self.now, event);
        self.settle();
    }

    /// Answers everything that is in flight, and says of the consumers that all is done.
    pub fn settle(&mut self) {
        loop {
            if let Some(effect) = self.share.poll_effect() {
                let Effect::Start { op, step } = effect else { continue };
                self.started.push((self.now, step.name()));
                let answer =
                    self.answers.iter().find(|(name, _)| *name == step.name()).map(|(_, answer)| answer.clone());
                let result = match answer {
                    Some(Answer::Never) => {
                        self.in_flight.push((op, step.name()));
                        continue;
                    }
                    Some(Answer::Refused) => Err(Failure { errno: Some(112), ..Failure::transient("planned") }),
                    Some(Answer::Fails(class)) => Err(Failure { class, ..Failure::transient("planned") }),
                    None if step == Step::Survey => Ok(Done::Survey(self.survey.clone())),
                    None => Ok(Done::Plainly),
                };
                self.share.handle_event(self.now, Event::Completed { op, result });
                continue;
            }
            let before = self.share.clone();
            let (demand, progress) = (self.share.demand(), self.progress);
            self.share.handle_event(self.now, Event::ConsumersChanged { demand, progress });
            if self.share == before {
                return;
            }
        }
    }

    /// What was in flight fails.
    pub fn fails(&mut self, step: &str, class: FailureClass) {
        let index = self.in_flight.iter().position(|(_, name)| *name == step).unwrap();
        let (op, _) = self.in_flight.remove(index);
        self.put(Event::Completed { op, result: Err(Failure { class, ..Failure::transient("planned") }) });
    }

    pub fn times(&self, step: &str) -> usize {
        self.started.iter().filter(|(_, name)| *name == step).count()
    }

    /// The last steps that were started.
    pub fn last(&self, count: usize) -> Vec<&'static str> {
        self.started[self.started.len() - count..].iter().map(|(_, name)| *name).collect()
    }

    pub fn in_maintenance(mut self) -> Self {
        let until = Some(self.now + Duration::from_secs(1_000));
        assert_eq!(self.ask(Command::StartMaintenance(Maintenance { until })), DONE);
        self.is(State::Maintenance)
    }

    /// It ends by itself; an operator who ends it has everything tried again.
    pub fn out_of_maintenance(mut self) -> Self {
        self.answers.clear();
        self.wait_for(Timer::Maintenance);
        self
    }

    /// Lets the next deadline pass; returns what it was for and how long it took.
    pub fn wait(&mut self) -> (Timer, Duration) {
        let (at, timer) = self.share.poll_timeout().unwrap();
        let waited = at.since(self.now);
        self.now = at;
        self.share.handle_timeout(at);
        self.settle();
        (timer, waited)
    }

    pub fn wait_for(&mut self, timer: Timer) -> Duration {
        let began = self.now;
        while self.wait().0 != timer {
            assert!(
                self.now.since(began) < Duration::from_secs(3_600),
                "{timer:?} never comes in {:?}",
                self.share.state()
            );
        }
        self.now.since(began)
    }

    pub fn until(mut self, state: State) -> Self {
        let began = self.now;
        while self.share.state() != state {
            assert!(
                self.now.since(began) < Duration::from_secs(3_600),
                "{state} never comes after {}",
                self.share.state()
            );
            self.wait();
        }
        self
    }

    pub fn ask(&mut self, command: Command) -> Result<Verdict, Refusal> {
        let before = self.share.clone();
        let answer = self.share.handle_command(self.now, command);
        if answer != Ok(Verdict::Accepted) {
            assert_eq!(self.share, before, "{command:?} was not accepted, and something changed");
        }
        self.settle();
        answer
    }

    /// What each command would be answered.
    pub fn answers(&self) -> [Result<Verdict, Refusal>; 6] {
        let maintenance = Command::StartMaintenance(Maintenance { until: None });
        [Command::Mount, Command::Unmount, Command::Remount, Command::Hold, Command::Release, maintenance]
            .map(|command| self.share.clone().handle_command(self.now, command))
    }

    #[track_caller]
    pub fn is(self, state: State) -> Self {
        assert_eq!(self.share.state(), state, "{}", self.share.reason());
        self
    }
}

pub const DONE: Result<Verdict, Refusal> = Ok(Verdict::Accepted);
pub const SO: Result<Verdict, Refusal> = Ok(Verdict::AlreadySo);

pub fn away(state: State) -> Result<Verdict, Refusal> {
    Err(Refusal::ServerAway { state })
}

pub fn held(state: State) -> Result<Verdict, Refusal> {
    Err(Refusal::HeldByOutage { state })
}
