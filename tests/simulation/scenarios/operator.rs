//! Named stories of what operators ask for.

use nasmount::share::State;
use nasmount::share::failure::FailureClass;

use crate::schedule::{Change, Fault, ServerIs, Typed};
use crate::story::{beginning, setup, story};

#[test]
fn operator_hold_outlasts_an_outage() {
    let story = story(&setup()).typed(Typed::Hold).after(1).is(State::Online).paused();
    let story = story.server(ServerIs::Silent).reaches(State::Holding, 5).after(5).server_restarted();
    let story = story.reaches(State::Online, 10).after(20).paused();
    story.typed(Typed::Release).after(1).runs().ends_well();
}

#[test]
fn operator_hold_begun_in_an_outage_is_released_by_him_only() {
    let story =
        story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(2).typed_in_vain(Typed::Release);
    let story = story.typed(Typed::Hold).server_restarted().reaches(State::Online, 10).after(5).paused();
    story.typed_in_vain(Typed::Hold).typed(Typed::Release).after(1).runs().ends_well();
}

#[test]
fn release_during_an_outage_lets_nobody_go_into_it() {
    let story = story(&setup()).typed(Typed::Hold).after(1).server(ServerIs::Silent).reaches(State::Holding, 5);
    let story = story.typed(Typed::Release).after(10).paused().server_restarted();
    story.reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn operator_hold_survives_a_crash() {
    let story = story(&setup()).typed(Typed::Hold).after(1).crash(1_000).reaches(State::Online, 10).after(5).paused();
    story.typed(Typed::Release).after(1).runs().ends_well();
}

#[test]
fn unmount_and_mount() {
    let story = story(&setup()).typed(Typed::Unmount).reaches(State::Offline, 10).stopped();
    let story = story.attempted("Flush", 1).attempted("RaiseFence", 0);
    let story = story.share("nothing is left", |place| !place.clone && !place.ours && place.barrier);
    let story = story.after(3_600).is(State::Offline).attempted("Mount", 1).typed_in_vain(Typed::Unmount);
    story.typed(Typed::Mount).reaches(State::Online, 5).after(1).runs().ends_well();
}

#[test]
fn unmounted_share_stays_so_after_a_crash_and_an_outage() {
    let story = story(&setup()).typed(Typed::Unmount).reaches(State::Offline, 10).crash(1_000).after(10);
    let story = story.is(State::Offline).server(ServerIs::Silent).after(30).server_restarted().after(60);
    story.is(State::Offline).attempted("Mount", 1).typed(Typed::Mount).reaches(State::Online, 5).ends_well();
}

#[test]
fn unmount_while_the_server_is_away_gives_up() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(1).typed(Typed::Unmount);
    story.reaches(State::Offline, 20).stopped().typed(Typed::Mount).after(30).server_restarted().ends_well();
}

#[test]
fn server_dies_while_an_unmount_flushes() {
    let story = story(&setup()).hangs("flush", 60, true).typed(Typed::Unmount).after(3).server(ServerIs::Silent);
    story.reaches(State::Offline, 30).ends_well();
}

#[test]
fn remount() {
    let story = story(&setup()).typed(Typed::Remount).reaches(State::Releasing, 1).reaches(State::Online, 15);
    story.attempted("Mount", 2).attempted("Flush", 1).after(1).runs().ends_well();
}

#[test]
fn mount_tries_again_what_is_blocked() {
    let story = beginning(&setup()).fails("mount", FailureClass::Credentials, 1).reaches(State::Blocked, 5).after(600);
    story.attempted("Mount", 1).typed(Typed::Mount).reaches(State::Online, 5).attempted("Mount", 2).ends_well();
}

#[test]
fn maintenance_with_an_expiry() {
    let on = Typed::MaintenanceOn { for_ms: Some(600_000) };
    let mut story = story(&setup()).typed(on).is(State::Maintenance);
    let started = story.trace().matches("Start {").count();
    story = story.server(ServerIs::Silent).after(300).is(State::Maintenance).runs();
    assert_eq!(story.trace().matches("Start {").count(), started, "{}", story.trace());
    story.typed_in_vain(Typed::Mount).after(310).is(State::Holding).paused().ends_well();
}

#[test]
fn maintenance_survives_a_crash_and_ends_on_command() {
    let story = story(&setup()).typed(Typed::MaintenanceOn { for_ms: None }).crash(1_000).after(10);
    let story = story.is(State::Maintenance).after(10_000).is(State::Maintenance).typed(Typed::MaintenanceOff);
    story.reaches(State::Online, 5).ends_well();
}

#[test]
fn share_taken_off_in_maintenance_is_put_back_after_it() {
    let story = story(&setup()).typed(Typed::MaintenanceOn { for_ms: None }).fault(Fault::TakenOff { share: 0 });
    let story = story.after(60).is(State::Maintenance).share("off", |place| !place.ours);
    story.typed(Typed::MaintenanceOff).reaches(State::Online, 5).share("on", |place| place.ours).ends_well();
}

#[test]
fn nothing_is_accepted_before_the_first_survey() {
    let story = beginning(&setup()).hangs("survey", 5, true).after(1);
    story.typed_in_vain(Typed::Unmount).typed_in_vain(Typed::Hold).reaches(State::Online, 15).ends_well();
}

#[test]
fn reload_in_the_middle_changes_clocks_and_policies() {
    let change = |change| Fault::ConfigurationLoaded { change };
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(20).fenced(false);
    let story = story.fault(change(Change::Patience { share: 0, ms: 5_000 })).after(1).fenced(true);
    let story = story.fault(change(Change::Hold { share: 0, ms: Some(10_000) })).reaches(State::Offline, 10);
    story.stopped().fault(change(Change::UnitGone { unit: 0 })).after(1).runs().ends_well();
}

#[test]
fn reload_adds_a_consumer_in_an_outage() {
    let mut later = setup();
    later.units[0].configured = false;
    let story = story(&later).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).runs();
    let added = Fault::ConfigurationLoaded { change: Change::UnitAdded { unit: 0 } };
    story.fault(added).after(1).paused().server_restarted().reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn reload_tries_again_what_was_refused() {
    let story = beginning(&setup()).fails("mount", FailureClass::Credentials, 1).reaches(State::Blocked, 5).after(60);
    let reload = Fault::ConfigurationLoaded { change: Change::Patience { share: 0, ms: 1_000 } };
    story.fault(reload).reaches(State::Online, 5).ends_well();
}

#[test]
fn operation_that_fails_late_in_maintenance_changes_nothing() {
    let story = beginning(&setup()).fails("mount", FailureClass::Transient, 1).hangs("mount", 90, false);
    let story = story.reaches(State::Stuck, 70).typed(Typed::MaintenanceOn { for_ms: None }).after(60);
    story
        .is(State::Maintenance)
        .attempted("Mount", 1)
        .typed(Typed::MaintenanceOff)
        .reaches(State::Online, 20)
        .ends_well();
}
