//! How a story is told: a world, what befalls it, and what is seen. Unless said otherwise it is about the first server, the
//! first share and the first unit.

use std::time::Duration;

use nasmount::share::consumers::{AfterHold, OnOutage};
use nasmount::share::failure::FailureClass;
use nasmount::share::{OnSleep, State};

use crate::host::{Place, Unit};
use crate::invariants::Violation;
use crate::quiet;
use crate::schedule::{Fault, Need, ServerIs, ServerSetup, Setup, ShareSetup, Typed, UnitSetup};
use crate::world::World;

/// A world and what is told of it. A broken rule ends the story.
#[derive(Clone)]
pub struct Story(pub World);

/// A unit that needs these shares: paused at an outage and stopped after the hold.
pub fn unit(needs: &[usize]) -> UnitSetup {
    let need = |share: &usize| Need { share: *share, on_outage: OnOutage::Pause, after_hold: AfterHold::Stop };
    UnitSetup {
        running: true,
        enabled: true,
        configured: true,
        order: 0,
        time_limit_ms: 90_000,
        start_takes_ms: 10,
        stop_takes_ms: 2_000,
        needs: needs.iter().map(need).collect(),
    }
}

/// The same with other policies.
pub fn with_policy(needs: &[usize], on_outage: OnOutage, after_hold: AfterHold, stop_takes_ms: u64) -> UnitSetup {
    let mut unit = UnitSetup { stop_takes_ms, ..unit(needs) };
    for need in &mut unit.needs {
        (need.on_outage, need.after_hold) = (on_outage, after_hold);
    }
    unit
}

/// One share of one server with one running consumer; patience 2 min, hold 15 min.
pub fn setup() -> Setup {
    setup_of(&[0], vec![unit(&[0])])
}

/// Shares, each on the server with this index, and units.
pub fn setup_of(servers: &[usize], units: Vec<UnitSetup>) -> Setup {
    let server =
        ServerSetup { interval_ms: 1_000, dead_after: 3, alive_after: 3, two_addresses: false, only_on: false };
    let count = servers.iter().max().map_or(1, |last| last + 1);
    let share = |server: &usize| ShareSetup {
        server: *server,
        patience_ms: 120_000,
        hold_for_ms: Some(900_000),
        mounted: false,
        on_sleep: OnSleep::Hold,
    };
    Setup { servers: vec![server; count], shares: servers.iter().map(share).collect(), units }
}

impl Setup {
    pub fn hold_for(mut self, ms: u64) -> Self {
        self.shares.iter_mut().for_each(|share| share.hold_for_ms = Some(ms));
        self
    }

    pub fn patience(mut self, ms: u64) -> Self {
        self.shares.iter_mut().for_each(|share| share.patience_ms = ms);
        self
    }

    pub fn at_two_addresses(mut self) -> Self {
        self.servers.iter_mut().for_each(|server| server.two_addresses = true);
        self
    }

    pub fn on_one_network_only(mut self) -> Self {
        self.servers.iter_mut().for_each(|server| server.only_on = true);
        self
    }

    pub fn probed(mut self, interval_ms: u64, dead_after: u32) -> Self {
        for server in &mut self.servers {
            (server.interval_ms, server.dead_after) = (interval_ms, dead_after);
        }
        self
    }
}

/// All shares are online.
pub fn story(setup: &Setup) -> Story {
    let mut story = beginning(setup);
    for share in 0..setup.shares.len() {
        story.until(share, State::Online, 5);
    }
    story.after(15)
}

pub fn beginning(setup: &Setup) -> Story {
    let mut world = World::new(setup, 7);
    world.trace = Some(Vec::new());
    Story(world)
}

impl Story {
    #[track_caller]
    pub fn told<T>(&self, check: Result<T, Violation>) -> T {
        check.unwrap_or_else(|found| panic!("{}\n{}: {}", self.trace(), found.rule, found.message))
    }

    pub fn trace(&self) -> String {
        self.0.trace.clone().unwrap_or_default().join("\n")
    }

    #[track_caller]
    pub fn after(mut self, seconds: u64) -> Self {
        let until = self.0.now + Duration::from_secs(seconds);
        let (check, errors) = quiet::counting_errors(|| self.0.run_to(until));
        self.told(check);
        assert_eq!(errors, 0, "ERROR events");
        self
    }

    /// Something befalls the world, and makes a difference.
    #[track_caller]
    pub fn fault(mut self, fault: Fault) -> Self {
        let told_later = matches!(fault, Fault::NextHangs { .. } | Fault::NextFails { .. });
        let had_effect = self.0.fault(fault.clone());
        self.0.nudge_waiting();
        let had_effect = self.told(had_effect) || told_later;
        assert!(had_effect, "{}\n{fault:?} makes no difference", self.trace());
        self
    }

    #[track_caller]
    pub fn server(self, is: ServerIs) -> Self {
        self.fault(Fault::Server { server: 0, is, connections_lost: is == ServerIs::Refusing })
    }

    /// The server comes back with another boot or connection table.
    #[track_caller]
    pub fn server_restarted(self) -> Self {
        self.fault(Fault::Server { server: 0, is: ServerIs::Up, connections_lost: true })
    }

    #[track_caller]
    pub fn hangs(self, operation: &str, seconds: u64, killable: bool) -> Self {
        self.fault(Fault::NextHangs { operation: operation.into(), for_ms: seconds * 1_000, killable })
    }

    #[track_caller]
    pub fn fails(self, operation: &str, class: FailureClass, times: u32) -> Self {
        self.fault(Fault::NextFails { operation: operation.into(), class, times })
    }

    #[track_caller]
    pub fn crash(self, down_for_ms: u64) -> Self {
        self.fault(Fault::DaemonDies { down_for_ms })
    }

    /// An operator types something, and it is done.
    #[track_caller]
    pub fn typed(self, typed: Typed) -> Self {
        self.fault(Fault::Command { share: 0, typed })
    }

    /// An operator types something, and it is refused or already so.
    #[track_caller]
    pub fn typed_in_vain(mut self, typed: Typed) -> Self {
        let done = self.0.fault(Fault::Command { share: 0, typed });
        assert!(!self.told(done), "{}\n{typed:?} is done", self.trace());
        self
    }

    #[track_caller]
    pub fn until(&mut self, share: usize, state: State, seconds: u64) {
        let deadline = self.0.now + Duration::from_secs(seconds);
        while self.0.state_of(share) != Some(state) {
            assert!(self.0.now <= deadline, "{}\nnot {state} within {seconds} s", self.trace());
            let check = self.0.step();
            self.told(check);
        }
    }

    #[track_caller]
    pub fn reaches(self, state: State, seconds: u64) -> Self {
        self.share_reaches(0, state, seconds)
    }

    #[track_caller]
    pub fn share_reaches(mut self, share: usize, state: State, seconds: u64) -> Self {
        self.until(share, state, seconds);
        self
    }

    #[track_caller]
    pub fn is(self, state: State) -> Self {
        self.share_is(0, state)
    }

    #[track_caller]
    pub fn share_is(self, share: usize, state: State) -> Self {
        assert_eq!(self.0.state_of(share), Some(state), "{}", self.trace());
        self
    }

    /// Checks something about the world.
    #[track_caller]
    pub fn sees(self, what: &str, check: impl Fn(&World) -> bool) -> Self {
        assert!(check(&self.0), "{}\nnot so: {what}", self.trace());
        self
    }

    /// Checks something about the share.
    #[track_caller]
    pub fn share(self, what: &str, check: impl Fn(&Place) -> bool) -> Self {
        self.sees(what, |world| check(&world.host.shares[0]))
    }

    /// Checks something about a unit.
    #[track_caller]
    pub fn unit(self, index: usize, what: &str, check: impl Fn(&Unit) -> bool) -> Self {
        self.sees(what, |world| check(&world.host.units[index]))
    }

    #[track_caller]
    pub fn fenced(self, is_up: bool) -> Self {
        self.sees(if is_up { "the fence is up" } else { "the fence is down" }, |world| {
            world.host.wants_fence(0) == is_up
        })
    }

    #[track_caller]
    pub fn paused(self) -> Self {
        self.unit(0, "the consumer is paused", |unit| unit.frozen)
    }

    #[track_caller]
    pub fn runs(self) -> Self {
        self.unit(0, "the consumer runs", |unit| unit.running && !unit.frozen)
    }

    #[track_caller]
    pub fn stopped(self) -> Self {
        self.unit(0, "the consumer is stopped", |unit| !unit.running)
    }

    #[track_caller]
    pub fn attempted(self, operation: &str, times: usize) -> Self {
        let started = self.times_started(operation);
        assert_eq!(started, times, "{}\n{operation} was started {started} times", self.trace());
        self
    }

    pub fn times_started(&self, operation: &str) -> usize {
        let line = format!("step: {operation}");
        self.trace().lines().filter(|found| found.contains(&line)).count()
    }

    /// Nothing goes wrong any more: everything becomes well.
    #[track_caller]
    pub fn ends_well(mut self) {
        let check = self.0.heal();
        self.told(check);
        let check = self.0.until_well();
        self.told(check);
    }
}
