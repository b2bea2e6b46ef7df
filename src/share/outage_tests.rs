//! What an outage does to one share: what is cut off, what is asked, what is lost. The world around it is simulated in
//! `tests/simulation`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::command::Refusal;
use super::consumers::{Demand, Progress};
use super::desk::*;
use super::detector::{Trust, Verdict as Probe};
use super::event::{Done, Loss, Memory, Survey};
use super::failure::FailureClass;
use super::timer::Timer;
use super::*;
use crate::plan::layers;

#[test]
fn when_the_patience_is_over_what_is_in_flight_is_cut_off_once() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    assert_eq!((desk.times("raise fence"), desk.times("destroy sockets")), (0, 0));
    assert_eq!(desk.wait_for(Timer::Patience), Duration::from_secs(60));
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.last(2), ["raise fence", "destroy sockets"]);
    assert_eq!(desk.times("raise sinkhole"), 0, "whoever is paused is to repeat the call");
    desk.wait_for(Timer::Hold);
    let desk = desk.is(State::Offline);
    assert_eq!((desk.times("raise fence"), desk.times("destroy sockets"), desk.times("raise sinkhole")), (1, 1, 1));
}

const NOT_WRITTEN: &str = "input/output error";

/// The kernel tells of a loss once, so it is believed whenever that comes; and a return does not wait long for it.
#[test]
fn a_loss_is_known_from_when_it_is_told() {
    let mut desk = Desk::with(Trust::Trusted, vec![("ask for loss", Answer::Never)]);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.wait_for(Timer::Patience);
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.times("ask for loss"), 0, "what has not been written may be written yet");
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    assert_eq!(desk.wait_for(Timer::Operation), layers::REQUEST_WHEN_SUSPECT);
    let mut desk = desk.is(State::Online);
    assert_eq!((desk.times("ask for loss"), desk.share.loss()), (1, None));
    let (op, _) = desk.in_flight.remove(0);
    desk.put(Event::Completed { op, result: Ok(Done::Loss(Some(NOT_WRITTEN.into()))) });
    let told = Loss { at: desk.now, what: NOT_WRITTEN.into() };
    assert_eq!(desk.share.loss(), Some(&told));
    desk.answers.clear();
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let memory = desk.is(State::Online).share.memory().unwrap();
    assert_eq!(memory.loss, Some(told), "it is not forgotten");
}

/// What is not answered delays nothing, and what is written while consumers are stopped is asked for at last.
#[test]
fn a_release_asks_what_was_lost() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.wait_for(Timer::Hold);
    let mut desk = desk.is(State::Offline);
    assert_eq!((desk.times("ask for loss"), desk.last(2)), (1, vec!["ask for loss", "release"]));
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    desk.answers = vec![("ask for loss", Answer::Never)];
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    let mut desk = desk.until(State::Releasing);
    assert_eq!(desk.wait_for(Timer::Operation), layers::REQUEST_AFTER_RECONNECT);
    assert_eq!(desk.is(State::Offline).last(1), ["release"]);
}

/// Nothing is given up, and the kernel may have thrown away what was more than the socket could hold.
#[test]
fn an_outage_within_the_patience_asks_for_a_loss_all_the_same() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    assert_eq!(desk.is(State::Online).times("ask for loss"), 1);
}

#[test]
fn an_unmount_that_cannot_write_back_says_so() {
    let fails = Answer::Fails(FailureClass::Transient);
    let mut desk = Desk::with(Trust::Trusted, vec![("flush", fails)]);
    assert_eq!(desk.ask(Command::Unmount), DONE);
    let desk = desk.is(State::Offline);
    assert_eq!(desk.share.loss().map(|loss| loss.what.as_str()), Some("planned"));
}

/// The mount is there, so it is kept.
#[test]
fn a_server_that_dies_before_the_share_is_attached_is_waited_for() {
    let mut desk = Desk::with(Trust::Trusted, vec![("attach", Answer::Never)]).is(State::Mounting);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.fails("attach", FailureClass::Transient);
    desk.is(State::Holding);
}

#[test]
fn a_server_that_dies_before_the_share_is_mounted_leaves_it_offline() {
    let mut desk = Desk::with(Trust::Unknown, vec![("lift fence", Answer::Fails(FailureClass::Transient))]);
    let memory = Memory { fenced: true, ..Memory::default() };
    desk.share = Share::new(desk.share.spec.clone(), 7, desk.now);
    desk.survey = Survey { memory, ..Survey::default() };
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Mounting);
    while desk.share.poll_transition().is_some() {}
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    assert_eq!(desk.share.poll_transition().map(|transition| transition.to), Some(State::Offline));
}

/// What a mount has just verified is not doubted.
#[test]
fn a_share_that_was_mounted_is_online_at_once() {
    let mut desk = Desk::new(Trust::Trusted);
    let states: Vec<State> = std::iter::from_fn(|| desk.share.poll_transition()).map(|seen| seen.to).collect();
    assert_eq!(states, [State::Offline, State::Mounting, State::Online]);
}

/// It is not called online first.
#[test]
fn a_doubted_share_that_was_taken_off_its_path_recovers() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: Trust::Suspect { verdict: Probe::Silent } });
    desk.survey = Survey { barrier: true, clone: true, ..Survey::default() };
    desk.put(Event::MountTableChanged);
    let mut desk = desk.is(State::Suspect);
    desk.answers = vec![("verify", Answer::Never)];
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    assert_eq!(desk.is(State::Recovering).share.reason(), &Reason::TakenOff);
}

#[test]
fn a_recovery_that_loses_the_server_leaves_no_fence() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.answers = vec![("destroy sockets", Answer::Fails(FailureClass::Transient))];
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Recovering);
    assert_eq!((desk.times("raise fence"), desk.times("lift fence")), (1, 0));
    desk.put(Event::ServerTrustChanged { trust: Trust::Suspect { verdict: Probe::Silent } });
    desk.wait_for(Timer::Retry);
    assert_eq!(desk.times("lift fence"), 1);
}

/// Consumers that could not be stopped are given time, and no more than that.
#[test]
fn consumers_that_cannot_be_stopped_are_waited_for() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.progress = Progress::Busy;
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.wait_for(Timer::ConsumersRetry), timer::HOLD_WAITS_FOR);
    let mut desk = desk.is(State::Online);
    desk.progress = Progress::Attempted;
    assert_eq!(desk.ask(Command::Unmount), DONE);
    let mut desk = desk.is(State::Releasing);
    assert_eq!(desk.times("release"), 0);
    assert_eq!(desk.wait_for(Timer::ConsumersRetry), timer::CONSUMERS_RETRY);
    assert_eq!(desk.times("release"), 1);
}

/// Another machine at the server's address is shown to nobody, until the right one is back or is said to be it.
#[test]
fn a_stranger_blocks_a_share_that_is_wanted() {
    let stranger = Trust::Dead { verdict: Probe::Stranger };
    let mut desk = Desk::new(stranger).is(State::Blocked);
    assert_eq!((desk.share.reason(), desk.times("mount")), (&Reason::ServerChanged, 0));
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Online);
    assert_eq!(desk.ask(Command::Unmount), DONE);
    desk.put(Event::ServerTrustChanged { trust: stranger });
    desk.is(State::Offline);
}

/// A mount that is lost from under an open share, or from under a hold, is given up and made anew.
#[test]
fn a_share_without_its_clone_is_mounted_anew() {
    for dead in [false, true] {
        let mut desk = Desk::new(Trust::Trusted);
        if dead {
            desk.put(Event::ServerTrustChanged { trust: DEAD });
        }
        desk.survey = Survey { barrier: true, ..Survey::default() };
        desk.put(Event::MountTableChanged);
        let desk = if dead { desk.is(State::Offline) } else { desk.until(State::Online) };
        assert_eq!(desk.times("mount"), if dead { 1 } else { 2 });
    }
}

/// A daemon that died before it had asked leaves that to the next.
#[test]
fn a_new_daemon_asks_what_was_lost() {
    let mut desk = Desk::new(DEAD);
    desk.share = Share::new(desk.share.spec.clone(), 7, desk.now);
    let memory = Memory { outage_since: Some(desk.now), given_up: true, fenced: true, ..Memory::default() };
    desk.survey = Survey { clone: true, barrier: true, memory, ..Survey::default() };
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let desk = desk.is(State::Online);
    assert_eq!(desk.times("ask for loss"), 1);
}

#[test]
fn a_new_daemon_says_for_what_it_holds() {
    let mut desk = Desk::new(DEAD);
    desk.share = Share::new(desk.share.spec.clone(), 7, desk.now);
    let memory = Memory { outage_since: Some(desk.now), ..Memory::default() };
    desk.survey = Survey { clone: true, barrier: true, memory, ..Survey::default() };
    desk.put(Event::ServerTrustChanged { trust: Trust::Unknown });
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    let desk = desk.is(State::Holding);
    assert!(matches!(desk.share.reason(), Reason::ServerDead { .. }), "{}", desk.share.reason());
}

/// A request that is refused within moments asks whether the login is; one that is not answered does not.
#[test]
fn a_recovery_without_a_session_tries_the_login_once() {
    let refused = || vec![("verify", Answer::Refused), ("try login", Answer::Fails(FailureClass::Credentials))];
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.answers = refused();
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let mut desk = desk.is(State::Blocked);
    assert_eq!((desk.times("verify"), desk.times("try login"), desk.times("mount")), (1, 1, 1));
    assert_eq!(desk.share.hold_ends_at(), None, "the outage is over");
    desk.answers.clear();
    assert_eq!(desk.ask(Command::Mount), DONE);

    // the server went away before it had said so
    let mut desk = desk.is(State::Online);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.answers = vec![("verify", Answer::Refused), ("try login", Answer::Never)];
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.fails("try login", FailureClass::Credentials);
    let mut desk = desk.is(State::Holding);

    // the login was taken, and it is something else
    desk.answers = vec![("verify", Answer::Refused), ("try login", Answer::Fails(FailureClass::Missing))];
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    let tried = desk.times("try login");
    desk.wait_for(Timer::Retry);
    assert_eq!(desk.is(State::Recovering).times("try login"), tried);
}

/// In the order in which that is fastest; nobody is waited for who only ends by it.
#[test]
fn a_dead_share_is_given_up_at_once_when_the_host_goes_down() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.progress = Progress::Busy;
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    desk.put(Event::ShutdownBegan);
    let desk = desk.is(State::Offline);
    assert_eq!(desk.last(5), ["shut down", "raise fence", "raise sinkhole", "destroy sockets", "release"]);
    assert_eq!(desk.times("ask for loss"), 0);
    assert_eq!(desk.share.demand(), Demand::Shutdown);
}

#[test]
fn what_only_makes_giving_up_faster_may_fail() {
    for step in ["shut down", "raise sinkhole"] {
        let mut desk = Desk::with(Trust::Trusted, vec![(step, Answer::Fails(FailureClass::Transient))]);
        desk.put(Event::ServerTrustChanged { trust: DEAD });
        desk.put(Event::ShutdownBegan);
        let rungs = ["shut down", "raise fence", "raise sinkhole", "destroy sockets", "release"];
        assert_eq!(desk.is(State::Offline).last(5), rungs);
    }
}

/// systemd unmounts it when those who use it have been stopped.
#[test]
fn a_share_that_answers_waits_for_systemd_when_the_host_goes_down() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ShutdownBegan);
    let mut desk = desk.is(State::Online);
    let everything: Vec<_> = desk.answers().into_iter().collect();
    assert!(everything.iter().all(|answer| *answer == Err(Refusal::Shutdown)), "{everything:?}");
    desk.survey = Survey { clone: true, ..Survey::default() };
    desk.put(Event::MountTableChanged);
    let desk = desk.is(State::Offline);
    assert_eq!(desk.last(2), ["flush", "drop clone"]);
    assert_eq!((desk.times("raise fence"), desk.times("shut down")), (0, 0));
}

#[test]
fn nothing_is_mounted_when_the_host_goes_down() {
    let mut desk = Desk::new(DEAD);
    desk.put(Event::ShutdownBegan);
    desk.put(Event::ServerTrustChanged { trust: Trust::Trusted });
    assert_eq!(desk.is(State::Offline).times("mount"), 0);
}

#[test]
fn a_share_that_does_not_heal_delays_no_shutdown() {
    let silent = Answer::Fails(FailureClass::Transient);
    let mut desk = Desk::new(Trust::Trusted);
    desk.answers = vec![("verify", silent)];
    desk.wait_for(Timer::ShareProbe);
    let mut desk = desk.is(State::Recovering);
    let began = desk.now;
    desk.put(Event::ShutdownBegan);
    let desk = desk.until(State::Offline);
    assert_eq!((desk.now.since(began), desk.last(2)), (layers::RECOVERY_IN_SHUTDOWN, vec!["release", "lift fence"]));
}

/// The server answers, so nothing but the share itself can say whether it was its connection.
#[test]
fn a_connection_that_the_server_closed_is_found_out_at_once() {
    let mut desk = Desk::new(Trust::Trusted);
    let asked = desk.times("verify");
    desk.put(Event::ConnectionClosed);
    assert_eq!(desk.times("verify"), asked + 1);
    let mut desk = desk.is(State::Online); // it was another share's
    desk.answers.push(("verify", Answer::Never));
    desk.put(Event::ConnectionClosed);
    assert_eq!(desk.wait_for(Timer::Operation), layers::REQUEST_WHEN_SUSPECT);
    assert_eq!(desk.last(4), ["raise fence", "destroy sockets", "lift fence", "verify"], "over a new connection");
    let desk = desk.is(State::Recovering);
    assert!(matches!(desk.share.reason(), Reason::ShareSilent { .. }), "{}", desk.share.reason());
}

/// Somebody has to be told, also while the consumers are held.
#[test]
fn another_machine_that_answers_during_a_hold_is_the_reason_for_it() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    let mut desk = desk.is(State::Holding);
    desk.put(Event::ServerTrustChanged { trust: Trust::Dead { verdict: Probe::Stranger } });
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.share.reason(), &Reason::ServerChanged);
    assert!(desk.share.reason().hint().is_some());
    desk.put(Event::ServerTrustChanged { trust: DEAD });
    assert!(matches!(desk.is(State::Holding).share.reason(), Reason::ServerDead { .. }));
}
