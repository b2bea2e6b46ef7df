//! Named stories of a host that sleeps after logind has announced it; a sleep that nobody announced is in `hosts`.

use nasmount::share::{OnSleep, State};

use crate::schedule::{Fault, ServerIs};
use crate::story::{Story, beginning, setup, story};

const NIGHT: u64 = 8 * 3_600;

/// Announced, and two seconds later it sleeps.
fn sleep(story: Story) -> Story {
    story.fault(Fault::SleepAnnounced).after(2).fault(Fault::Suspend { for_ms: NIGHT * 1_000 })
}

#[test]
fn a_share_that_is_well_is_held_before_the_sleep_and_verified_after_it() {
    let story = story(&setup()).fault(Fault::SleepAnnounced).after(2).is(State::Holding).paused().fenced(false);
    let story = story.share("it is off its path", |place| !place.is_open()).attempted("Flush", 1);
    let story = story.fault(Fault::Suspend { for_ms: NIGHT * 1_000 });
    let story = story.fault(Fault::Server { server: 0, is: ServerIs::Up, connections_lost: true });
    let story = story.after(NIGHT).paused().reaches(State::Online, 10).after(1).runs();
    story.attempted("Mount", 1).ends_well();
}

/// No patience, and a hold that would be over at once: neither has anything to do with a sleep.
#[test]
fn a_sleep_is_no_outage() {
    let story = sleep(story(&setup().patience(0).hold_for(0))).after(NIGHT).reaches(State::Online, 10);
    story.after(1).runs().attempted("Mount", 1).attempted("Release", 0).ends_well();
}

#[test]
fn an_outage_keeps_no_host_from_sleeping() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).fenced(false);
    let story = story.fault(Fault::SleepAnnounced).after(2).fenced(true).attempted("DestroySockets", 1);
    let story = story.fault(Fault::Suspend { for_ms: NIGHT * 1_000 }).after(NIGHT + 60).is(State::Holding).paused();
    story.server_restarted().reaches(State::Online, 10).after(1).runs().attempted("Mount", 1).ends_well();
}

#[test]
fn a_server_that_dies_before_the_sleep_keeps_no_host_from_it() {
    let story = story(&setup()).hangs("flush", 100, true).fault(Fault::SleepAnnounced).after(1).fenced(false);
    story.server(ServerIs::Silent).after(6).is(State::Holding).fenced(true).paused().ends_well();
}

/// The notebook is somewhere else.
#[test]
fn waking_on_another_network_lets_nobody_hang_and_nobody_go_on() {
    let story = sleep(story(&setup())).server(ServerIs::Silent).after(NIGHT + 10).is(State::Holding).paused();
    let story = story.share("the path fails at once", |place| !place.is_open()).fenced(false);
    let story = story.after(120).is(State::Holding).paused().fenced(true);
    story
        .reaches(State::Offline, 900)
        .stopped()
        .server_restarted()
        .reaches(State::Online, 10)
        .after(1)
        .runs()
        .ends_well();
}

/// The broker was restarted.
#[test]
fn a_sleep_of_which_nobody_says_that_it_is_over_ends_by_itself() {
    let story = story(&setup()).fault(Fault::SleepAnnounced).after(50).is(State::Holding).paused();
    let story = story.reaches(State::Online, 20).after(1).runs();
    // and when it is said after all
    story.fault(Fault::SleepOver).after(2).is(State::Online).runs().attempted("Mount", 1).ends_well();
}

#[test]
fn a_sleep_that_is_called_off_is_over_at_once() {
    let story = story(&setup()).fault(Fault::SleepAnnounced).after(2).paused().fault(Fault::SleepOver);
    story.reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn a_daemon_that_is_restarted_before_the_sleep_holds_the_share_as_well() {
    let story = story(&setup()).fault(Fault::SleepAnnounced).after(1).crash(1_000).after(5).is(State::Holding).paused();
    let story = story.fault(Fault::Suspend { for_ms: NIGHT * 1_000 }).after(NIGHT).reaches(State::Online, 10);
    story.after(1).runs().attempted("Mount", 1).ends_well();
}

#[test]
fn a_host_that_sleeps_without_its_daemon_is_taken_care_of_when_there_is_one() {
    let story = story(&setup()).fault(Fault::SleepAnnounced).after(1).paused().crash(3_000);
    let story = story.fault(Fault::Suspend { for_ms: NIGHT * 1_000 }).after(NIGHT).paused();
    story.reaches(State::Online, 15).after(1).runs().attempted("Mount", 1).ends_well();
}

#[test]
fn a_share_that_may_stay_open_does() {
    let mut setup = setup();
    setup.shares[0].on_sleep = OnSleep::None;
    let story = sleep(story(&setup)).after(NIGHT + 5).is(State::Online).runs();
    story.attempted("Flush", 0).attempted("Detach", 0).ends_well();
}

#[test]
fn nothing_is_mounted_while_the_host_falls_asleep() {
    let story = beginning(&setup()).hangs("mount", 100, true).reaches(State::Mounting, 5);
    let story = story.fault(Fault::SleepAnnounced).after(2).is(State::Offline).after(20).attempted("Mount", 1);
    story.fault(Fault::SleepOver).reaches(State::Online, 10).attempted("Mount", 2).ends_well();
}
