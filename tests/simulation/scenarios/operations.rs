//! Named stories of operations that fail or hang.

use nasmount::share::failure::FailureClass;
use nasmount::share::{Reason, State};

use crate::schedule::{Fault, ServerIs, Typed};
use crate::story::{beginning, setup, story};
use crate::world::World;

#[test]
fn wrong_password_is_tried_once() {
    let refused = Fault::MountsRefused { share: 0, class: FailureClass::Credentials };
    let story = beginning(&setup()).fault(refused).reaches(State::Blocked, 5).after(3_600);
    story.is(State::Blocked).attempted("Mount", 1).runs().ends_well();
}

#[test]
fn wrong_password_is_tried_once_also_when_the_answer_comes_late() {
    let story = beginning(&setup()).fails("mount", FailureClass::Credentials, 1).hangs("mount", 75, false);
    story.reaches(State::Stuck, 70).reaches(State::Blocked, 20).after(600).attempted("Mount", 1);
    let story = beginning(&setup()).fails("mount", FailureClass::Credentials, 1).hangs("mount", 10, false);
    let story = story.reaches(State::Mounting, 5).server(ServerIs::Silent).reaches(State::Blocked, 20);
    story.server(ServerIs::Up).after(600).attempted("Mount", 1);
}

#[test]
fn unknown_share_blocks() {
    let refused = Fault::MountsRefused { share: 0, class: FailureClass::Configuration };
    beginning(&setup()).fault(refused).reaches(State::Blocked, 5).after(600).attempted("Mount", 1).ends_well();
}

/// Seen on 6.12: the kernel asked for a session several times a second for as long as the mount was there.
#[test]
fn password_changed_while_mounted_is_noticed_when_the_session_is_lost() {
    let refused = Fault::MountsRefused { share: 0, class: FailureClass::Credentials };
    let story = story(&setup()).fault(refused).after(5).is(State::Online).server_restarted();
    let story = story.reaches(State::Blocked, 60).after(600).is(State::Blocked);
    story.attempted("TryLogin", 1).attempted("Mount", 1).stopped().fenced(false).ends_well();
}

/// A volume that comes later than its NAS needs nobody.
#[test]
fn missing_share_is_looked_for() {
    let missing = Fault::MountsRefused { share: 0, class: FailureClass::Missing };
    let story = beginning(&setup()).fault(missing).reaches(State::Blocked, 5).after(150).is(State::Blocked);
    let story = story.attempted("Mount", 3).fault(Fault::MountsAccepted { share: 0 });
    story.reaches(State::Online, 70).attempted("Mount", 4).ends_well();
}

#[test]
fn mount_that_failed_because_the_server_died_says_nothing_about_the_configuration() {
    let story = beginning(&setup()).fails("mount", FailureClass::Configuration, 1).hangs("mount", 10, false);
    let story = story.reaches(State::Mounting, 5).server(ServerIs::Silent).reaches(State::Offline, 15);
    story.server(ServerIs::Up).reaches(State::Online, 20).ends_well();
}

#[test]
fn refused_remount_pauses_nobody_for_ever() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent);
    let story =
        story.reaches(State::Offline, 40).fault(Fault::MountsRefused { share: 0, class: FailureClass::Credentials });
    story.server_restarted().reaches(State::Blocked, 10).stopped().ends_well();
}

#[test]
fn foreign_mount_blocks() {
    let story = beginning(&setup()).fault(Fault::ForeignMount { share: 0 }).reaches(State::Blocked, 5).after(60);
    let foreign =
        |world: &World| matches!(world.daemon.as_ref().unwrap().shares[0].reason(), Reason::ForeignMount { .. });
    story.sees("the reason is the foreign mount", foreign).attempted("Mount", 0).runs().ends_well();
}

#[test]
fn foreign_mount_found_by_a_restart_in_an_outage_leaves_nobody_paused_and_no_fence() {
    let story = story(&setup().patience(0)).server(ServerIs::Silent).reaches(State::Holding, 5).after(2);
    let story = story.paused().crash(5_000).fault(Fault::ForeignMount { share: 0 });
    let story = story.reaches(State::Blocked, 10).after(5).stopped();
    story.fenced(false).ends_well();
}

#[test]
fn detach_never_returns_is_stuck_and_recovers() {
    let story = story(&setup()).hangs("detach", 100, false).server(ServerIs::Silent).reaches(State::Stuck, 20);
    story
        .paused()
        .attempted("Detach", 1)
        .reaches(State::Holding, 100)
        .server_restarted()
        .reaches(State::Online, 10)
        .ends_well();
}

#[test]
fn hold_over_while_stuck_stops_consumers() {
    let story = story(&setup().hold_for(20_000)).hangs("detach", 100, false);
    let story = story.server(ServerIs::Silent).reaches(State::Stuck, 20).after(20).is(State::Stuck).stopped();
    story.reaches(State::Offline, 100).ends_well();
}

#[test]
fn hold_over_while_recovering_then_stuck_stops_consumers() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent).reaches(State::Holding, 5);
    let story = story.after(16).hangs("attach", 100, false).server_restarted().reaches(State::Stuck, 20);
    story.after(4).is(State::Stuck).stopped().reaches(State::Online, 120).ends_well();
}

#[test]
fn mount_hangs_and_is_killed() {
    let story = beginning(&setup()).hangs("mount", 300, true).reaches(State::Stuck, 70);
    story.reaches(State::Online, 10).ends_well();
}

#[test]
fn barrier_that_cannot_be_laid_delays_no_recovery_and_no_giving_up() {
    let story = story(&setup().patience(0)).fails("lay barrier", FailureClass::Configuration, 6);
    let story = story.crash(1_000).after(3).server(ServerIs::Silent);
    let story = story.reaches(State::Holding, 5).after(1).fenced(true).paused();
    story.server_restarted().reaches(State::Online, 5).ends_well();
}

#[test]
fn barrier_that_can_never_be_laid_blocks_before_anything_is_mounted() {
    let story = beginning(&setup()).fails("lay barrier", FailureClass::Configuration, 6);
    story.reaches(State::Blocked, 5).attempted("Mount", 0).ends_well();
}

#[test]
fn attach_fails_and_the_mount_is_not_done_again() {
    let story = beginning(&setup()).fails("attach", FailureClass::Transient, 4);
    story.reaches(State::Online, 30).attempted("Mount", 1).attempted("RaiseFence", 0).ends_well();
}

#[test]
fn survey_fails_for_cause_and_is_tried_again() {
    beginning(&setup()).fails("survey", FailureClass::Configuration, 3).reaches(State::Online, 10).ends_well();
}

#[test]
fn server_that_dies_behind_a_call_that_does_not_return_is_an_outage() {
    let story = story(&setup()).typed(Typed::MaintenanceOn { for_ms: None }).fault(Fault::TakenOff { share: 0 });
    let story = story.hangs("attach", 1_000, false).after(1).typed(Typed::MaintenanceOff);
    let story = story.reaches(State::Stuck, 20).server(ServerIs::Silent).after(5).paused().fenced(false);
    let story = story.after(120).is(State::Stuck).fenced(true).attempted("DestroySockets", 2);
    story.server_restarted().after(5).is(State::Stuck).fenced(false).paused().reaches(State::Online, 1_000).ends_well();
}

#[test]
fn share_that_cannot_be_taken_off_the_path_is_held_all_the_same() {
    let story = story(&setup()).fails("detach", FailureClass::Busy, 2).server(ServerIs::Silent);
    let story = story.reaches(State::Holding, 5).after(5).is(State::Holding).paused();
    story.share("it is off the path", |place| !place.ours).server_restarted().reaches(State::Online, 10).ends_well();
}
