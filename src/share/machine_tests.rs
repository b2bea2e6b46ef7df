//! What one share does, step by step: answers to commands in each state, and when what failed is tried again. The world around it
//! is simulated in `tests/simulation`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::command::{Maintenance, Refusal, Wanted};
use super::consumers::Demand;
use super::desk::*;
use super::detector::{Trust, Verdict as Probe};
use super::event::{Attachment, Survey};
use super::failure::FailureClass;
use super::timer::Timer;
use super::*;

/// Mount, unmount, remount, hold, release, maintenance on.
#[test]
fn commands_are_answered_by_state() {
    let online = Desk::new(Trust::Trusted).is(State::Online);
    assert_eq!(online.answers(), [SO, DONE, DONE, DONE, SO, DONE]);

    let mut holding = Desk::new(Trust::Trusted);
    holding.put(Event::ServerTrustChanged { trust: DEAD });
    let mut holding = holding.is(State::Holding);
    assert_eq!(holding.answers(), [away(State::Holding), DONE, DONE, DONE, held(State::Holding), DONE]);
    assert_eq!(holding.ask(Command::Hold), DONE);
    assert_eq!(holding.answers()[3..5], [SO, DONE], "held by the operator, too");

    let offline = Desk::new(DEAD).is(State::Offline);
    assert_eq!(offline.answers(), [away(State::Offline), DONE, away(State::Offline), DONE, held(State::Offline), DONE]);

    let failing =
        Desk::with(Trust::Trusted, vec![("mount", Answer::Fails(FailureClass::Transient))]).is(State::Offline);
    assert_eq!(failing.answers(), [DONE, DONE, DONE, DONE, held(State::Offline), DONE], "not later, now");

    let mounting = Desk::with(Trust::Trusted, vec![("mount", Answer::Never)]).is(State::Mounting);
    assert_eq!(mounting.answers(), [SO, DONE, SO, DONE, held(State::Mounting), DONE]);

    let blocked = Desk::with(Trust::Trusted, vec![("mount", Answer::Fails(FailureClass::Credentials))]);
    assert_eq!(blocked.is(State::Blocked).answers(), [DONE, DONE, DONE, DONE, held(State::Blocked), DONE]);
}

#[test]
fn a_share_that_is_stuck_says_in_what() {
    let mut desk = Desk::with(Trust::Trusted, vec![("mount", Answer::Never)]);
    desk.wait_for(Timer::Operation);
    let desk = desk.is(State::Stuck);
    let stuck = || Err(Refusal::Stuck { operation: "mount".into() });
    assert_eq!(desk.answers(), [stuck(), stuck(), stuck(), DONE, held(State::Stuck), DONE]);
}

#[test]
fn nothing_is_accepted_before_the_first_survey() {
    let desk = Desk::with(Trust::Trusted, vec![("survey", Answer::Never)]);
    assert!(desk.answers().iter().all(|answer| *answer == Err(Refusal::NotSurveyed)));

    // nor before one that follows maintenance
    let mut desk = Desk::new(Trust::Trusted);
    assert_eq!(desk.ask(Command::StartMaintenance(Maintenance { until: None })), DONE);
    desk.answers.push(("survey", Answer::Never));
    assert_eq!(desk.ask(Command::EndMaintenance), DONE);
    assert!(desk.is(State::Suspect).answers().iter().all(|answer| *answer == Err(Refusal::NotSurveyed)));
}

#[test]
fn a_share_in_doubt_takes_commands() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: Trust::Suspect { verdict: Probe::Silent } });
    assert_eq!(desk.is(State::Suspect).answers(), [SO, DONE, DONE, DONE, SO, DONE]);
}

#[test]
fn only_a_mount_that_is_well_is_reconfigured() {
    let mut desk = Desk::new(Trust::Trusted);
    assert!(desk.share.may_be_reconfigured());
    desk.put(Event::ServerTrustChanged { trust: Trust::Suspect { verdict: Probe::Silent } });
    assert!(!desk.share.may_be_reconfigured(), "perhaps an outage begins");
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    assert!(!desk.is(State::Holding).share.may_be_reconfigured());
    let attaching = Desk::with(Trust::Trusted, vec![("attach", Answer::Never)]);
    assert!(!attaching.is(State::Mounting).share.may_be_reconfigured());
    let mut going_down = Desk::new(Trust::Trusted);
    going_down.put(Event::ShutdownBegan);
    assert!(!going_down.share.may_be_reconfigured());
}

#[test]
fn a_share_that_waits_for_its_barrier_only_is_on_its_way() {
    let desk = Desk::with(Trust::Trusted, vec![("lay barrier", Answer::Never)]);
    assert_eq!(desk.is(State::Offline).answers()[0], SO);
}

/// A mount that did not last is made later each time; unless somebody asks for it, also while it is still being given up.
#[test]
fn a_mount_that_does_not_last_is_made_at_once_when_it_is_asked_for() {
    let mut desk = Desk::new(Trust::Trusted);
    for round in 0..8 {
        let fails = Answer::Fails(FailureClass::Transient);
        desk.answers = vec![("verify", fails), ("release", Answer::Fails(FailureClass::Transient))];
        let mut releasing = desk.until(State::Releasing);
        let asks = round == 7;
        assert_eq!(releasing.answers()[0], if round == 0 { SO } else { DONE }, "round {round}");
        if asks {
            assert_eq!(releasing.ask(Command::Mount), DONE);
        }
        releasing.answers.clear();
        let offline = releasing.until(State::Offline); // the release is tried again
        let since = offline.now;
        desk = offline.until(State::Online);
        let waited = desk.now.since(since);
        let whole = Duration::from_secs(if asks { 1 } else { 1 << round });
        assert!(waited <= whole && waited >= whole / 2, "round {round}: {waited:?}");
    }
}

#[test]
fn unmounted_stays_unmounted_until_it_is_mounted() {
    let mut desk = Desk::new(Trust::Trusted);
    assert_eq!(desk.ask(Command::Unmount), DONE);
    let mut desk = desk.is(State::Offline);
    assert_eq!(desk.share.wanted(), Wanted::Unmounted);
    assert!(desk.share.needs_a_person());
    assert_eq!(desk.answers(), [DONE, SO, DONE, DONE, SO, DONE]);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Offline);
    assert_eq!(desk.ask(Command::Mount), DONE);
    let desk = desk.is(State::Online);
    assert!(!desk.share.needs_a_person());
    let steps: Vec<&str> = desk.started.iter().map(|(_, name)| *name).collect();
    assert!(steps.windows(3).any(|window| window == ["detach", "flush", "release"]), "{steps:?}");
    assert!(!steps.contains(&"raise fence"), "an unmount cuts nothing off: {steps:?}");
}

#[test]
fn maintenance_has_an_end() {
    let mut desk = Desk::new(Trust::Trusted);
    let until = desk.now + Duration::from_secs(100);
    assert_eq!(desk.ask(Command::StartMaintenance(Maintenance { until: Some(until) })), DONE);
    let mut desk = desk.is(State::Maintenance);
    let refused = || Err(Refusal::InMaintenance);
    assert_eq!(
        desk.answers(),
        [refused(), refused(), refused(), refused(), refused(), DONE],
        "another end is another one"
    );
    assert_eq!(desk.ask(Command::StartMaintenance(Maintenance { until: Some(until) })), SO);
    desk.survey = Survey { clone: true, barrier: true, attached: Attachment::Share, ..Survey::default() };
    assert_eq!(desk.wait_for(Timer::Maintenance), Duration::from_secs(100));
    assert_eq!(desk.share.maintenance(), None);
    let mut desk = desk.is(State::Online);
    assert_eq!(desk.ask(Command::EndMaintenance), SO);
}

/// How long after each failure the step is started again.
fn pauses(step: &'static str, class: FailureClass, rounds: usize) -> Vec<Duration> {
    let mut desk = Desk::with(Trust::Trusted, vec![(step, Answer::Fails(class))]);
    desk.survey.barrier = true; // is found again after a mount that failed
    let tried = |desk: &Desk| desk.started.iter().filter(|(_, name)| *name == step).count();
    while tried(&desk) <= rounds {
        desk.wait();
    }
    let at: Vec<BootInstant> = desk.started.iter().filter(|(_, name)| *name == step).map(|(at, _)| *at).collect();
    at.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

#[test]
fn what_failed_is_tried_again_later_each_time() {
    for (step, wholes) in [
        ("mount", [1_000_u64, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]),
        ("lay barrier", [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]),
        ("attach", [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]),
        ("survey", [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]),
    ] {
        for (pause, whole) in pauses(step, FailureClass::Transient, wholes.len()).into_iter().zip(wholes) {
            let whole = Duration::from_millis(whole);
            assert!(pause <= whole && pause >= whole * 3 / 4, "{step}: {pause:?} of {whole:?}");
        }
    }
    let wedged = pauses("mount", FailureClass::Wedged, 3);
    assert!(wedged.iter().all(|pause| *pause == Duration::from_secs(30)), "{wedged:?}");
}

#[test]
fn a_login_that_was_refused_is_not_tried_again() {
    let mut desk = Desk::with(Trust::Trusted, vec![("mount", Answer::Fails(FailureClass::Credentials))]);
    for trust in [DEAD, Trust::Trusted, DEAD, Trust::Trusted] {
        desk.put(Event::ServerTrustChanged { trust });
    }
    assert_eq!(desk.started.iter().filter(|(_, name)| *name == "mount").count(), 1);
    desk.answers.clear();
    assert_eq!(desk.ask(Command::Mount), DONE);
    desk.is(State::Online);
}

#[test]
fn somebody_elses_mount_is_looked_at_again_when_an_operator_says_so() {
    let mut desk = Desk::new(Trust::Trusted);
    let own = Survey { clone: true, barrier: true, attached: Attachment::Share, ..Survey::default() };
    desk.survey = Survey { attached: Attachment::Foreign("//other/share".into()), ..own.clone() };
    desk.put(Event::MountTableChanged);
    let mut desk = desk.is(State::Blocked);
    desk.survey = own;
    assert_eq!(desk.ask(Command::Mount), DONE);
    desk.is(State::Online);
}

/// A login is not tried again because hands were off meanwhile; anything else is.
#[test]
fn only_what_needs_a_person_is_still_blocked_after_maintenance() {
    use FailureClass::{Credentials, Transient};
    let failed = |class| Desk::with(Trust::Trusted, vec![("mount", Answer::Fails(class))]);
    let login = failed(Credentials).is(State::Blocked).in_maintenance().out_of_maintenance();
    assert_eq!(login.is(State::Blocked).times("mount"), 1);
    let other = failed(Transient).is(State::Offline).in_maintenance().out_of_maintenance();
    assert_eq!(other.until(State::Online).times("mount"), 2);

    // the same when the answer comes in maintenance
    let mounting = || Desk::with(Trust::Trusted, vec![("mount", Answer::Never)]).is(State::Mounting).in_maintenance();
    let mut login = mounting();
    login.fails("mount", Credentials);
    assert_eq!(login.out_of_maintenance().is(State::Blocked).times("mount"), 1);
    let mut other = mounting();
    other.fails("mount", Transient);
    assert_eq!(other.out_of_maintenance().until(State::Online).times("mount"), 2);
}

/// A new connection cures a share that does not answer, not one that answers otherwise than it should.
#[test]
fn a_share_that_answers_wrongly_keeps_its_connection() {
    for (class, destroyed) in [(FailureClass::Transient, 1), (FailureClass::Busy, 0)] {
        let mut desk = Desk::new(Trust::Trusted);
        desk.answers = vec![("verify", Answer::Fails(class))];
        let desk = desk.until(State::Recovering);
        assert_eq!(desk.times("destroy sockets"), destroyed, "{class:?}");
    }
}

/// A survey that fails is owed.
#[test]
fn a_survey_that_fails_is_made_up_for() {
    let mut desk = Desk::new(Trust::Trusted);
    let before = desk.times("survey");
    desk.answers = vec![("survey", Answer::Fails(FailureClass::Transient))];
    desk.put(Event::MountTableChanged);
    desk.answers.clear();
    desk.survey =
        Survey { clone: true, barrier: true, attached: Attachment::Foreign("//other".into()), ..Survey::default() };
    assert_eq!(desk.until(State::Blocked).times("survey"), before + 2);
}

#[test]
fn a_refused_login_is_in_the_memory_and_other_failures_are_not() {
    let failed = |class| Desk::with(Trust::Trusted, vec![("mount", Answer::Fails(class))]).share.memory().unwrap();
    assert!(failed(FailureClass::Credentials).blocked.is_some());
    assert!(failed(FailureClass::Configuration).blocked.is_none());
    assert!(failed(FailureClass::Transient).blocked.is_none());
}

#[test]
fn a_hold_has_its_end_and_its_demand() {
    let mut desk = Desk::new(Trust::Trusted);
    assert_eq!((desk.share.hold_ends_at(), desk.share.demand()), (None, Demand::Run));
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    let desk = desk.is(State::Holding);
    assert_eq!(desk.share.hold_ends_at(), Some(desk.now + Duration::from_secs(600)));
    assert_eq!(desk.share.demand(), Demand::Hold);
    assert_eq!(desk.in_maintenance().share.demand(), Demand::AsTheyAre);
}

/// Behind a call that does not return consumers are held if there is an outage, and left alone if not or if hands are off.
#[test]
fn a_stuck_share_demands_what_its_outage_does() {
    let mut mounting = Desk::with(Trust::Trusted, vec![("mount", Answer::Never)]);
    mounting.wait_for(Timer::Operation);
    assert_eq!(mounting.is(State::Stuck).share.demand(), Demand::AsTheyAre);

    let mut holding = Desk::new(Trust::Trusted);
    holding.answers = vec![("detach", Answer::Never)];
    holding.put(Event::ServerTrustChanged { trust: DEAD });
    holding.wait_for(Timer::Operation);
    let mut stuck = holding.is(State::Stuck);
    assert_eq!(stuck.share.demand(), Demand::Hold);
    assert_eq!(stuck.ask(Command::StartMaintenance(Maintenance { until: None })), DONE);
    assert_eq!(stuck.share.demand(), Demand::AsTheyAre);
}

/// Nothing lasts longer because the host slept, and no answer is as fresh as it was.
#[test]
fn a_sleep_moves_the_hold_and_makes_an_open_share_be_asked() {
    let asleep = Duration::from_secs(100);
    let mut desk = Desk::new(Trust::Trusted);
    desk.now = desk.now + asleep;
    desk.put(Event::Resumed { asleep });
    assert_eq!(desk.times("verify"), 0, "the server is asked first");
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    assert_eq!(desk.times("verify"), 1);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    let mut desk = desk.is(State::Holding);
    let ends = desk.share.hold_ends_at().unwrap();
    desk.now = desk.now + asleep;
    desk.put(Event::Resumed { asleep });
    assert_eq!(desk.share.hold_ends_at(), Some(ends + asleep));
    assert_eq!(desk.times("verify"), 1);
}

#[test]
fn an_open_share_is_asked_at_its_interval() {
    let mut desk = Desk::new(Trust::Trusted).is(State::Online);
    for round in 1..4 {
        assert_eq!(desk.wait_for(Timer::ShareProbe), Duration::from_secs(10));
        assert_eq!(desk.times("verify"), round);
    }
}
