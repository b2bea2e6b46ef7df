//! What a share does before the host sleeps, and after it.

use std::time::Duration;

use super::consumers::{Demand, Progress};
use super::desk::{Answer, DEAD, Desk};
use super::detector::Trust;
use super::failure::FailureClass;
use super::timer::Timer;
use super::*;

const NIGHT: Duration = Duration::from_secs(8 * 3_600);

fn trusts(desk: &mut Desk, trust: Trust) {
    desk.put(Event::ServerTrustChanged { trust });
}

fn wakes(desk: &mut Desk) {
    desk.now = desk.now + NIGHT;
    desk.put(Event::Resumed { asleep: NIGHT });
}

#[test]
fn a_share_that_is_well_is_held_and_written_back_and_verified_after_the_sleep() {
    let mut desk = Desk::new(Trust::Trusted).is(State::Online);
    assert!(!desk.share.is_ready_to_sleep(), "nobody has told it");
    desk.put(Event::SleepBegan);
    let mut desk = desk.is(State::Holding);
    assert_eq!((desk.last(2), desk.share.demand()), (vec!["detach", "flush"], Demand::Hold));
    assert!(desk.share.is_ready_to_sleep());
    assert_eq!(desk.share.hold_ends_at(), None, "there is no outage");
    wakes(&mut desk);
    assert_eq!((desk.share.state(), desk.share.demand()), (State::Holding, Demand::Hold), "nothing is believed yet");
    trusts(&mut desk, Trust::Trusted);
    let desk = desk.is(State::Online);
    assert_eq!(desk.last(5), ["raise fence", "destroy sockets", "lift fence", "verify", "attach"]);
    assert_eq!((desk.times("flush"), desk.times("mount")), (1, 1));
}

#[test]
fn a_share_is_left_alone_if_the_configuration_says_so() {
    let mut desk = Desk::new(Trust::Trusted);
    let spec = ShareSpec { on_sleep: OnSleep::None, ..desk.share.spec.clone() };
    desk.put(Event::ConfigurationLoaded { spec });
    desk.put(Event::SleepBegan);
    assert!(desk.share.is_ready_to_sleep());
    let mut desk = desk.is(State::Online);
    wakes(&mut desk);
    assert_eq!((desk.times("detach"), desk.times("verify")), (0, 0));
    trusts(&mut desk, Trust::Trusted);
    assert_eq!((desk.share.state(), desk.times("verify")), (State::Online, 1));
}

/// What waits for a dead server would keep the host from sleeping.
#[test]
fn an_outage_is_given_up_before_the_sleep_and_held_after_it() {
    let mut desk = Desk::new(Trust::Trusted);
    trusts(&mut desk, DEAD);
    assert_eq!(desk.times("raise fence"), 0, "there is patience");
    desk.put(Event::SleepBegan);
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.last(2), ["raise fence", "destroy sockets"]);
    assert!(desk.share.is_ready_to_sleep());
    wakes(&mut desk);
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.share.demand(), Demand::Hold);
    trusts(&mut desk, Trust::Trusted);
    desk.is(State::Online);
}

#[test]
fn a_server_that_dies_before_the_host_sleeps_is_given_up_at_once() {
    let mut desk = Desk::with(Trust::Trusted, vec![("flush", Answer::Never)]);
    desk.put(Event::SleepBegan);
    assert!(!desk.share.is_ready_to_sleep(), "it is being written back");
    trusts(&mut desk, DEAD);
    assert!(desk.share.is_ready_to_sleep());
    assert_eq!(desk.is(State::Holding).last(2), ["raise fence", "destroy sockets"]);
}

/// On another network: the outage begins with the waking, and so do its clocks.
#[test]
fn a_server_that_is_not_there_after_the_sleep_is_an_outage_from_then_on() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::SleepBegan);
    wakes(&mut desk);
    let woke = desk.now;
    trusts(&mut desk, DEAD);
    let mut desk = desk.is(State::Holding);
    assert_eq!(desk.share.hold_ends_at(), Some(woke + Duration::from_secs(600)));
    assert_eq!(desk.wait_for(Timer::Patience), Duration::from_secs(60));
    assert_eq!(desk.last(2), ["raise fence", "destroy sockets"]);
    assert_eq!(desk.share.demand(), Demand::Hold);
    desk.until(State::Offline);
}

#[test]
fn what_cannot_be_written_back_in_time_is_no_loss_and_keeps_the_host_from_nothing() {
    for answer in [Answer::Never, Answer::Fails(FailureClass::Transient)] {
        let mut desk = Desk::with(Trust::Trusted, vec![("flush", answer)]);
        desk.put(Event::SleepBegan);
        if !desk.share.is_ready_to_sleep() {
            assert_eq!(desk.wait(), (Timer::Operation, Duration::from_secs(3)));
        }
        assert!(desk.share.is_ready_to_sleep());
        assert_eq!((desk.times("flush"), desk.share.loss()), (1, None));
    }
}

#[test]
fn the_host_waits_for_consumers_that_are_being_paused() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.progress = Progress::Busy;
    desk.put(Event::SleepBegan);
    assert_eq!((desk.share.is_ready_to_sleep(), desk.times("flush")), (false, 0));
    desk.progress = Progress::Settled;
    desk.settle();
    assert_eq!((desk.share.is_ready_to_sleep(), desk.times("flush")), (true, 1));
}

#[test]
fn nothing_is_mounted_before_the_sleep() {
    let mut desk = Desk::with(Trust::Trusted, vec![("mount", Answer::Never)]).is(State::Mounting);
    desk.put(Event::SleepBegan);
    assert!(!desk.share.is_ready_to_sleep());
    desk.answers.clear();
    desk.fails("mount", FailureClass::Transient);
    let mut desk = desk.is(State::Offline);
    assert!(desk.share.is_ready_to_sleep());
    desk.wait_for(Timer::Retry);
    assert_eq!(desk.times("mount"), 1);
    wakes(&mut desk);
    trusts(&mut desk, Trust::Trusted);
    assert_eq!(desk.until(State::Online).times("mount"), 2);
}

/// A broker that restarts loses the signal.
#[test]
fn a_sleep_that_never_comes_ends_by_itself() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::SleepBegan);
    assert_eq!(desk.wait_for(Timer::Sleep), timer::FALLS_ASLEEP_WITHIN);
    let desk = desk.is(State::Online);
    assert!(!desk.share.sleeps());
}

#[test]
fn a_host_that_goes_down_does_not_sleep_and_hands_off_is_hands_off() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::ShutdownBegan);
    desk.put(Event::SleepBegan);
    assert_eq!(desk.is(State::Online).times("detach"), 0);

    let mut desk = Desk::new(Trust::Trusted);
    desk.put(Event::SleepBegan);
    desk.put(Event::ShutdownBegan);
    desk.is(State::Offline);

    let mut desk = Desk::new(Trust::Trusted).in_maintenance();
    desk.put(Event::SleepBegan);
    assert!(desk.share.is_ready_to_sleep());
    trusts(&mut desk, DEAD);
    assert_eq!((desk.times("detach"), desk.times("raise fence")), (0, 0));
}

/// It was verified before the host slept, not after.
#[test]
fn a_share_that_was_about_to_come_back_is_verified_anew() {
    let mut desk = Desk::with(Trust::Trusted, vec![("ask for loss", Answer::Never)]);
    trusts(&mut desk, DEAD);
    desk.wait_for(Timer::Patience);
    trusts(&mut desk, Trust::Trusted);
    let mut desk = desk.is(State::Recovering);
    assert_eq!(desk.last(2), ["verify", "ask for loss"]);
    wakes(&mut desk);
    desk.fails("ask for loss", FailureClass::Transient);
    assert_eq!(desk.last(1), ["ask for loss"], "nothing before the server has answered");
    trusts(&mut desk, Trust::Trusted);
    assert_eq!(desk.is(State::Online).last(2), ["verify", "attach"]);
}

/// Nothing of it may be lost.
#[test]
fn an_unmount_waits_for_a_server_of_which_nothing_is_known() {
    let mut desk = Desk::new(Trust::Trusted);
    desk.progress = Progress::Busy;
    assert_eq!(desk.ask(Command::Unmount), desk::DONE);
    wakes(&mut desk);
    desk.progress = Progress::Settled;
    desk.settle();
    assert_eq!((desk.last(1), desk.times("raise fence")), (vec!["detach"], 0));
    trusts(&mut desk, Trust::Trusted);
    let desk = desk.is(State::Offline);
    assert_eq!((desk.last(2), desk.times("raise fence")), (vec!["flush", "release"], 0));
}
