//! Named stories of outages.

use std::time::Duration;

use nasmount::share::State;

use crate::schedule::{Cure, Fault, ServerIs};
use crate::story::{Story, beginning, setup, story};

#[test]
fn server_away_for_twenty_seconds() {
    story(&setup())
        .server(ServerIs::Silent)
        .after(5)
        .is(State::Holding)
        .paused()
        .after(15)
        .server_restarted()
        .reaches(State::Online, 4)
        .after(1)
        .runs()
        .attempted("DestroySockets", 1)
        .attempted("Mount", 1)
        .attempted("RaiseFence", 1) // for the moment in which the sockets are destroyed
        .attempted("LiftFence", 1)
        .ends_well();
}

#[test]
fn server_restarted_within_a_second() {
    let probed = setup().probed(200, 3);
    let story = story(&probed).server(ServerIs::Refusing).reaches(State::Suspect, 1).server_restarted();
    story.reaches(State::Holding, 8).reaches(State::Online, 4).attempted("Mount", 1).after(1).runs().ends_well();
}

#[test]
fn restart_that_no_probe_saw_is_found_through_the_share() {
    story(&setup()).server_restarted().reaches(State::Holding, 31).reaches(State::Online, 4).ends_well();
}

#[test]
fn patience_over_then_back() {
    story(&setup())
        .server(ServerIs::Silent)
        .after(110)
        .fenced(false)
        .after(20)
        .is(State::Holding)
        .fenced(true)
        .paused()
        .server_restarted()
        .reaches(State::Online, 10)
        .fenced(false)
        .ends_well();
}

#[test]
fn patience_zero() {
    let story = story(&setup().patience(0)).server(ServerIs::Hung).reaches(State::Holding, 6);
    story.after(2).fenced(true).paused().ends_well();
}

#[test]
fn hold_over_then_back() {
    story(&setup().hold_for(20_000))
        .server(ServerIs::Silent)
        .reaches(State::Releasing, 30)
        .reaches(State::Offline, 10)
        .stopped()
        .server_restarted()
        .reaches(State::Online, 10)
        .after(1)
        .runs()
        .attempted("Mount", 2)
        .ends_well();
}

#[test]
fn hold_zero_releases_at_once() {
    let story = story(&setup().hold_for(0)).server(ServerIs::Silent);
    story.reaches(State::Offline, 15).stopped().ends_well();
}

#[test]
fn hold_over_while_consumers_are_being_paused_still_stops_them() {
    let story = story(&setup().hold_for(1_000)).hangs("pause", 3, true);
    story.server(ServerIs::Silent).reaches(State::Offline, 20).stopped().ends_well();
}

#[test]
fn hold_over_while_recovering_does_not_give_up_a_server_that_is_back() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent).reaches(State::Holding, 5);
    let story = story.after(15).hangs("verify", 6, true).server_restarted().reaches(State::Recovering, 4);
    story.reaches(State::Online, 10).attempted("Mount", 1).ends_well();
}

#[test]
fn flapping_server() {
    let mut story = story(&setup());
    for _ in 0..10 {
        story = story.server(ServerIs::Refusing).reaches(State::Holding, 5).server_restarted().after(3);
    }
    story.attempted("Mount", 1).ends_well();
}

#[test]
fn share_silent_on_a_live_server() {
    story(&setup())
        .fault(Fault::ShareSilent { share: 0, cure: Cure::NewConnection })
        .reaches(State::Holding, 31)
        .reaches(State::Online, 5)
        .attempted("Mount", 1)
        .ends_well();
}

#[test]
fn verification_never_succeeds_then_remount() {
    story(&setup())
        .fault(Fault::ShareSilent { share: 0, cure: Cure::NewMount })
        .reaches(State::Recovering, 32)
        .reaches(State::Releasing, 61)
        .reaches(State::Online, 40)
        .attempted("Mount", 2)
        .ends_well();
}

#[test]
fn server_dies_while_mounting() {
    let story = beginning(&setup()).hangs("mount", 60, true).reaches(State::Mounting, 5).server(ServerIs::Silent);
    story.reaches(State::Offline, 8).server(ServerIs::Up).reaches(State::Online, 20).ends_well();
}

#[test]
fn server_dies_while_recovering() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).server_restarted();
    let story = story.hangs("verify", 60, false).reaches(State::Recovering, 4).server(ServerIs::Silent);
    story.reaches(State::Holding, 5).paused().server_restarted().reaches(State::Online, 70).ends_well();
}

#[test]
fn server_that_restarts_once_more_while_recovering_is_reconnected_to_again() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).hangs("verify", 2, false);
    let story = story.server_restarted().reaches(State::Recovering, 4).after(1).server_restarted();
    story.reaches(State::Online, 20).attempted("DestroySockets", 2).attempted("Mount", 1).ends_well();
}

#[test]
fn server_dies_while_attaching() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(1).hangs("attach", 6, false);
    let story = story.server_restarted().reaches(State::Recovering, 4).after(1).server(ServerIs::Silent);
    story.reaches(State::Holding, 8).after(1).paused().ends_well();
}

#[test]
fn blip_while_attaching_is_verified_again() {
    let probed = setup().probed(1_000, 10);
    let story = story(&probed).server(ServerIs::Silent).reaches(State::Holding, 15).after(1).hangs("attach", 4, false);
    let story = story.server_restarted().reaches(State::Recovering, 4).after(1).server(ServerIs::Refusing).after(1);
    story
        .server_restarted()
        .reaches(State::Suspect, 5)
        .reaches(State::Holding, 6)
        .reaches(State::Online, 4)
        .ends_well();
}

#[test]
fn server_dies_while_letting_consumers_go() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).hangs("continue", 8, true);
    let story = story.server_restarted().reaches(State::Online, 5).server(ServerIs::Silent).reaches(State::Holding, 5);
    story.after(12).paused().ends_well();
}

/// Falls silent, so that only a new mount helps, as soon as it is online.
fn falls_silent_for(mut story: Story, seconds: u64) -> Story {
    let until = story.0.now + Duration::from_secs(seconds);
    while story.0.now < until {
        if story.0.state_of(0) == Some(State::Online) && story.0.host.shares[0].silent.is_none() {
            story.0.host.shares[0].silent = Some(Cure::NewMount);
        }
        let check = story.0.step();
        story.told(check);
    }
    story
}

/// Its consumers are stopped and started each time: not for ever at the same pace.
#[test]
fn share_that_falls_silent_after_each_mount_is_mounted_less_and_less_often() {
    let story = falls_silent_for(story(&setup()), 3_600);
    let mounts = story.times_started("Mount");
    assert!((8..=18).contains(&mounts), "{mounts} mounts in an hour\n{}", story.trace());
}

#[test]
fn share_that_has_stayed_for_long_is_mounted_anew_at_once() {
    for (stays, at_once) in [(120, false), (700, true)] {
        let story = falls_silent_for(story(&setup()), 900);
        let story = story.reaches(State::Online, 700).after(stays);
        let silent = Fault::ShareSilent { share: 0, cure: Cure::NewMount };
        let story = story.fault(silent).reaches(State::Offline, 120);
        let offline = story.0.now;
        let story = story.reaches(State::Online, 700);
        let took = story.0.now.since(offline);
        assert_eq!(took <= Duration::from_secs(3), at_once, "after {stays} s: {took:?}");
    }
}
