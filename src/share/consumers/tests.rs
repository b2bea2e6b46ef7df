//! Two shares, their units, and what is done to which unit when. The world is simulated in `tests/simulation`; here is what one
//! reads at a glance.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn at(seconds: u64) -> BootInstant {
    BootInstant::from_boot(Duration::from_secs(seconds))
}

fn unit(order: i32, needs: &[&str], on_outage: OnOutage) -> UnitSpec {
    let policy = Policy { on_outage, after_hold: AfterHold::Stop };
    UnitSpec {
        order,
        time_limit: Duration::from_secs(60),
        needs: needs.iter().map(|share| ((*share).to_owned(), policy)).collect(),
    }
}

fn consumers(units: &[(&str, UnitSpec)]) -> Consumers {
    let units = units.iter().map(|(name, spec)| ((*name).to_owned(), spec.clone())).collect();
    Consumers::new(units, BTreeMap::new(), at(0))
}

fn demand(consumers: &mut Consumers, share: &str, demand: Demand) {
    consumers.handle_event(at(1), UnitEvent::Demanded { share: share.into(), demand });
}

/// What is started now, answered at once until nothing more is; every unit runs.
fn settle(consumers: &mut Consumers) -> Vec<(String, UnitStep)> {
    let mut seen = Vec::new();
    while let Some(effect) = consumers.poll_effect() {
        let UnitEffect::Start { op, unit, step } = effect else { continue };
        let done = match step {
            UnitStep::Inspect => found(true, "1"),
            UnitStep::Stop | UnitStep::Kill => found(false, "1"),
            UnitStep::Pause | UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart => UnitDone::Plainly,
        };
        if step != UnitStep::Inspect {
            seen.push((unit, step));
        }
        consumers.handle_event(at(2), UnitEvent::Completed { op, result: Ok(done) });
    }
    seen
}

fn found(running: bool, run: &str) -> UnitDone {
    UnitDone::Found { running, run: Some(run.to_owned()) }
}

fn changed(running: bool, run: &str) -> UnitEvent {
    UnitEvent::UnitChanged { unit: "app".into(), running, run: Some(run.to_owned()) }
}

fn held(consumers: &Consumers, unit: &str) -> Option<Held> {
    consumers.memory().get(unit).map(|memory| memory.held)
}

/// The first thing that is started now.
fn starts(consumers: &mut Consumers) -> Option<(OpId, UnitStep)> {
    std::iter::from_fn(|| consumers.poll_effect()).find_map(|effect| match effect {
        UnitEffect::Start { op, step, .. } => Some((op, step)),
        UnitEffect::Abandon { .. } => None,
    })
}

fn steps(seen: &[(String, UnitStep)]) -> Vec<(&str, UnitStep)> {
    seen.iter().map(|(unit, step)| (unit.as_str(), *step)).collect()
}

#[test]
fn a_unit_on_two_shares_goes_on_when_both_are_back() {
    let mut consumers = consumers(&[("both", unit(0, &["a", "b"], OnOutage::Pause))]);
    demand(&mut consumers, "a", Demand::Run);
    demand(&mut consumers, "b", Demand::Hold);
    assert_eq!(steps(&settle(&mut consumers)), [("both", UnitStep::Pause)]);
    demand(&mut consumers, "a", Demand::Hold);
    demand(&mut consumers, "b", Demand::Run);
    assert_eq!(settle(&mut consumers), [], "the other one is still away, and it is paused already");
    assert_eq!(held(&consumers, "both"), Some(Held::Paused));
    demand(&mut consumers, "a", Demand::Run);
    assert_eq!(steps(&settle(&mut consumers)), [("both", UnitStep::Continue)]);
    assert!(consumers.memory().is_empty());
}

#[test]
fn what_is_in_flight_is_said() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Pause))]);
    assert_eq!(consumers.operation("app"), None);
    demand(&mut consumers, "a", Demand::Hold);
    let started = starts(&mut consumers);
    assert!(started.is_some());
    assert_eq!(consumers.operation("app"), started);
    assert_eq!(consumers.operation("another"), None);
}

/// One of which only the memory is left is given systemd's usual time.
#[test]
fn a_held_unit_that_is_not_configured_any_more_has_a_time_limit() {
    assert!(UnitSpec::unconfigured().time_limit > Duration::from_secs(90), "DefaultTimeoutStopSec=");
}

#[test]
fn lower_is_held_first_and_let_go_last() {
    let order = [("app", unit(1, &["a"], OnOutage::Pause)), ("database", unit(2, &["a"], OnOutage::Stop))];
    let mut consumers = consumers(&order);
    demand(&mut consumers, "a", Demand::Hold);
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Pause), ("database", UnitStep::Stop)]);
    assert_eq!(consumers.progress("a"), Progress::Settled);
    demand(&mut consumers, "a", Demand::Run);
    let first = consumers.poll_effect().unwrap();
    let UnitEffect::Start { op, unit, step: UnitStep::Inspect } = first else { panic!("{first:?}") };
    assert_eq!(unit, "database");
    consumers.handle_event(at(2), UnitEvent::Completed { op, result: Ok(found(false, "1")) });
    let then = consumers.poll_effect();
    assert!(matches!(&then, Some(UnitEffect::Start { unit, step: UnitStep::Start, .. }) if unit == "database"));
    assert_eq!(consumers.poll_effect(), None, "the application waits for its database");
    consumers.handle_timeout(at(62));
    let then: Vec<_> = std::iter::from_fn(|| consumers.poll_effect()).collect();
    let continued = |effect: &UnitEffect| matches!(effect, UnitEffect::Start { unit, step: UnitStep::Continue, .. } if unit == "app");
    assert!(then.iter().any(continued), "but not for longer than its time limit: {then:?}");
}

#[test]
fn what_was_stopped_by_somebody_else_is_not_let_go() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Pause))]);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    consumers.handle_event(at(3), changed(false, "1"));
    assert!(consumers.memory().is_empty());
    demand(&mut consumers, "a", Demand::Run);
    assert_eq!(settle(&mut consumers), []);
}

#[test]
fn what_systemd_started_anew_while_it_was_paused_is_paused_again() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Pause))]);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    for running in [false, true] {
        consumers.handle_event(at(3), changed(running, "2"));
    }
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Pause)]);
}

#[test]
fn what_somebody_else_started_is_no_longer_ours_to_start() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Stop))]);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    demand(&mut consumers, "a", Demand::NobodyPaused);
    assert_eq!(held(&consumers, "app"), Some(Held::Stopped));
    for running in [false, true, false] {
        consumers.handle_event(at(3), changed(running, "2"));
    }
    demand(&mut consumers, "a", Demand::Run);
    assert_eq!(settle(&mut consumers), [], "the administrator started it, and stopped it again");
}

#[test]
fn what_is_no_longer_configured_is_let_go() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Stop))]);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    consumers.handle_event(at(3), UnitEvent::ConfigurationLoaded { units: BTreeMap::new() });
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Start)]);
    assert!(consumers.memory().is_empty());
    let left = BTreeMap::from([("old".to_owned(), HeldUnit { held: Held::Paused, run: None })]);
    let mut consumers = Consumers::new(BTreeMap::new(), left, at(0));
    assert_eq!(steps(&settle(&mut consumers)), [("old", UnitStep::Continue)]);
}

#[test]
fn a_lost_bus_is_tried_again_less_and_less_often_and_at_once_when_it_is_back() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Pause))]);
    demand(&mut consumers, "a", Demand::Hold);
    let mut delays = Vec::new();
    let mut now = at(1);
    for _ in 0..8 {
        let Some(UnitEffect::Start { op, .. }) = consumers.poll_effect() else { panic!("nothing was tried") };
        consumers.handle_event(now, UnitEvent::Completed { op, result: Err(Failure::transient("no bus")) });
        assert_eq!(consumers.progress("a"), Progress::Attempted);
        let next = consumers.poll_timeout().unwrap();
        delays.push(next.since(now).as_millis());
        now = next;
        consumers.handle_timeout(now);
    }
    assert_eq!(delays, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
    let Some(UnitEffect::Start { op, .. }) = consumers.poll_effect() else { panic!("nothing was tried") };
    consumers.handle_event(now, UnitEvent::Completed { op, result: Err(Failure::transient("no bus")) });
    consumers.handle_event(now, UnitEvent::BusBack);
    assert!(consumers.poll_effect().is_some());
}

/// Stopped in its first run; what the look before its start finds, and what follows from it.
fn stopped_then_found(memory: Held, running: bool, run: Option<&str>) -> (Option<UnitStep>, Option<Held>) {
    let units = BTreeMap::from([("app".to_owned(), unit(0, &["a"], OnOutage::Stop))]);
    let left = BTreeMap::from([("app".to_owned(), HeldUnit { held: memory, run: Some("1".to_owned()) })]);
    let mut consumers = Consumers::new(units, left, at(0));
    demand(&mut consumers, "a", Demand::Run);
    let (op, step) = starts(&mut consumers).unwrap();
    assert_eq!(step, UnitStep::Inspect, "nothing is started unseen");
    let done = UnitDone::Found { running, run: run.map(str::to_owned) };
    consumers.handle_event(at(2), UnitEvent::Completed { op, result: Ok(done) });
    (starts(&mut consumers).map(|(_, step)| step), held(&consumers, "app"))
}

#[test]
fn what_has_run_again_since_it_was_stopped_is_somebody_elses() {
    let ours = (Some(UnitStep::Start), Some(Held::Stopped));
    assert_eq!(stopped_then_found(Held::Stopped, false, Some("1")), ours);
    assert_eq!(stopped_then_found(Held::Stopped, false, None), ours, "after a reboot it has not run");
    assert_eq!(
        stopped_then_found(Held::Stopped, false, Some("2")),
        (None, None),
        "started and stopped by somebody else"
    );
    assert_eq!(stopped_then_found(Held::Stopped, true, Some("2")), (None, None), "started by somebody else");
    let paused = (Some(UnitStep::Continue), Some(Held::Paused));
    assert_eq!(stopped_then_found(Held::PausedAndStopped, true, Some("2")), paused);
}

#[test]
fn the_run_that_was_stopped_is_known_when_it_has_ended_and_not_before() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Stop))]);
    demand(&mut consumers, "a", Demand::Hold);
    let (op, _) = starts(&mut consumers).unwrap();
    consumers.handle_event(at(2), UnitEvent::Completed { op, result: Ok(found(true, "7")) });
    let memory = |run: Option<&str>| HeldUnit { held: Held::Stopped, run: run.map(str::to_owned) };
    assert_eq!(consumers.memory().get("app"), Some(&memory(None)), "it may crash and be started before it is stopped");
    let (op, step) = starts(&mut consumers).unwrap();
    assert_eq!(step, UnitStep::Stop);
    consumers.handle_event(at(2), UnitEvent::Completed { op, result: Ok(found(false, "8")) });
    assert_eq!(consumers.memory().get("app"), Some(&memory(Some("8"))));
}

#[test]
fn what_is_said_late_of_a_run_that_was_stopped_is_no_start() {
    let mut consumers = consumers(&[("app", unit(0, &["a"], OnOutage::Stop))]);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    consumers.handle_event(at(3), changed(true, "1"));
    assert_eq!(held(&consumers, "app"), Some(Held::Stopped), "it was seen before it was stopped");
    consumers.handle_event(at(3), changed(true, "2"));
    assert_eq!(held(&consumers, "app"), None);
}

/// systemd stops it; after the boot nobody owes it a start.
#[test]
fn what_is_paused_goes_on_when_the_host_goes_down_and_what_was_stopped_is_remembered() {
    let units = [("app", unit(0, &["a"], OnOutage::Pause)), ("scanner", unit(1, &["a"], OnOutage::Stop))];
    let mut consumers = consumers(&units);
    demand(&mut consumers, "a", Demand::Hold);
    settle(&mut consumers);
    demand(&mut consumers, "a", Demand::Shutdown);
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Continue)]);
    assert_eq!((held(&consumers, "app"), held(&consumers, "scanner")), (None, Some(Held::Stopped)));
}

fn start_missed(consumers: &mut Consumers, seconds: u64) {
    consumers.handle_event(at(seconds), UnitEvent::StartMissed { unit: "app".into() });
}

#[test]
fn a_start_that_was_given_up_while_a_share_was_away_is_made_good() {
    let mut consumers = consumers(&[("app", unit(0, &["films", "music"], OnOutage::Pause))]);
    demand(&mut consumers, "films", Demand::Run);
    demand(&mut consumers, "music", Demand::Stop);
    start_missed(&mut consumers, 1);
    assert_eq!(held(&consumers, "app"), Some(Held::Stopped), "it outlives the daemon");
    while let Some(UnitEffect::Start { op, step, .. }) = consumers.poll_effect() {
        assert_eq!(step, UnitStep::Inspect);
        consumers.handle_event(at(1), UnitEvent::Completed { op, result: Ok(found(false, "1")) });
    }
    demand(&mut consumers, "music", Demand::Run);
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Start)]);
    assert_eq!(held(&consumers, "app"), None);
}

/// systemd's job may end a moment after the share is back.
#[test]
fn a_start_that_was_given_up_just_when_the_share_came_back_is_made_good_once() {
    let mut consumers = consumers(&[("app", unit(0, &["films"], OnOutage::Pause))]);
    demand(&mut consumers, "films", Demand::Run);
    start_missed(&mut consumers, 2);
    assert_eq!(steps(&settle(&mut consumers)), [("app", UnitStep::Start)]);
    start_missed(&mut consumers, 3);
    assert_eq!(settle(&mut consumers), [], "it is something else that it requires");
}

#[test]
fn a_start_that_was_given_up_while_all_was_well_is_somebody_elses_affair() {
    let mut consumers = consumers(&[("app", unit(0, &["films"], OnOutage::Pause))]);
    demand(&mut consumers, "films", Demand::Run);
    start_missed(&mut consumers, 60);
    assert_eq!((settle(&mut consumers), held(&consumers, "app")), (vec![], None));
}

/// Its watchdog expired while it was paused, and systemd's restart waited for the share in vain.
#[test]
fn what_died_while_it_was_paused_and_could_not_be_restarted_is_started_when_its_share_is_back() {
    let mut consumers = consumers(&[("app", unit(0, &["films"], OnOutage::Pause))]);
    demand(&mut consumers, "films", Demand::Hold);
    settle(&mut consumers);
    assert_eq!(held(&consumers, "app"), Some(Held::Paused));
    start_missed(&mut consumers, 60);
    settle(&mut consumers);
    demand(&mut consumers, "films", Demand::Run);
    assert_eq!(steps(&settle(&mut consumers)).last(), Some(&("app", UnitStep::ContinueAndStart)));
    assert_eq!(held(&consumers, "app"), None);
}

fn job(consumers: &mut Consumers, queued: u64, done: u64) {
    let (unit, job) = ("app".to_owned(), 7);
    consumers.handle_event(at(queued), UnitEvent::JobQueued { unit: unit.clone(), job });
    consumers.handle_event(at(done), UnitEvent::JobDone { unit, job });
}

#[test]
fn what_somebody_stops_that_is_stopped_already_stays_so() {
    let mut consumers = consumers(&[("app", unit(0, &["films"], OnOutage::Stop))]);
    demand(&mut consumers, "films", Demand::Hold);
    settle(&mut consumers);
    job(&mut consumers, 3, 4);
    assert_eq!(held(&consumers, "app"), Some(Held::Stopped), "that may be nasmount's own, told late");
    job(&mut consumers, 30, 31);
    assert_eq!(held(&consumers, "app"), None);
    demand(&mut consumers, "films", Demand::Run);
    assert_eq!(settle(&mut consumers), []);
}
