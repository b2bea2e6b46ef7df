//! Named stories of the host: sleep, reboot, systemd, and what others do to mounts and units.

use nasmount::share::detector::LocalTrouble;
use nasmount::share::{Reason, State};

use crate::schedule::{Fault, ServerIs, Typed};
use crate::story::{Story, beginning, setup, setup_of, story, unit};

fn sleep(story: Story, seconds: u64) -> Story {
    story.fault(Fault::Suspend { for_ms: seconds * 1_000 })
}

#[test]
fn clocks_of_a_hold_do_not_run_while_the_host_sleeps() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(10);
    let story = sleep(story, 36_000).after(36_000 + 60).is(State::Holding).fenced(false).paused();
    let story = story.after(60).fenced(true).is(State::Holding).after(600).is(State::Holding);
    story.reaches(State::Releasing, 300).ends_well();
}

#[test]
fn suspend_overnight() {
    let story = sleep(story(&setup()), 8 * 3_600).after(8 * 3_600 + 2).is(State::Online).runs();
    let story = story.fault(Fault::Server { server: 0, is: ServerIs::Up, connections_lost: true });
    story.reaches(State::Holding, 31).reaches(State::Online, 5).attempted("Mount", 1).ends_well();
}

#[test]
fn server_gone_while_the_host_slept_is_noticed_at_once() {
    let story = sleep(story(&setup()), 600).server(ServerIs::Silent).after(600 + 5);
    story.is(State::Holding).paused().ends_well();
}

#[test]
fn maintenance_ends_by_the_clock_also_while_the_host_sleeps() {
    let story = story(&setup()).typed(Typed::MaintenanceOn { for_ms: Some(60_000) });
    sleep(story, 600).after(600 + 5).is(State::Online).ends_well();
}

#[test]
fn foreign_umount_is_a_wish_that_lasts() {
    let story = story(&setup()).fault(Fault::TakenOff { share: 0 }).reaches(State::Offline, 20).stopped();
    let story = story.crash(1_000).after(60).is(State::Offline).attempted("Mount", 1);
    story.typed(Typed::Mount).reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn foreign_umount_in_an_outage_changes_nothing() {
    let story = story(&setup()).hangs("detach", 3, true).server(ServerIs::Silent).reaches(State::Holding, 5);
    let story = story.fault(Fault::TakenOff { share: 0 }).after(5).is(State::Holding).paused();
    story.server_restarted().reaches(State::Online, 10).ends_well();
}

#[test]
fn foreign_mount_on_top_blocks_until_it_is_gone() {
    let story = story(&setup()).fault(Fault::ForeignMount { share: 0 }).reaches(State::Blocked, 2).after(60);
    let foreign = |reason: &Reason| matches!(reason, Reason::ForeignMount { .. });
    let story = story.sees("the reason", |world| foreign(world.daemon.as_ref().unwrap().shares[0].reason()));
    let story = story.fault(Fault::ForeignGone { share: 0 }).reaches(State::Online, 15);
    story.attempted("Mount", 1).after(1).runs().ends_well();
}

#[test]
fn foreign_mount_before_the_first_mount_blocks_until_it_is_gone() {
    let story = beginning(&setup()).fault(Fault::ForeignMount { share: 0 }).reaches(State::Blocked, 5);
    story.after(60).fault(Fault::ForeignGone { share: 0 }).reaches(State::Online, 15).ends_well();
}

#[test]
fn reboot_starts_what_was_stopped() {
    let mut disabled = setup().hold_for(10_000);
    disabled.units[0].enabled = false;
    let story = story(&disabled).server(ServerIs::Silent).reaches(State::Offline, 30).stopped();
    let story = story.fault(Fault::Reboot { down_for_ms: 20_000 }).after(60).stopped();
    story.server_restarted().reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn reboot_forgets_who_was_paused() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(1).paused();
    let story = story.fault(Fault::Reboot { down_for_ms: 20_000 }).after(30).runs().is(State::Offline);
    story.server_restarted().reaches(State::Online, 10).ends_well();
}

#[test]
fn unit_killed_while_paused_is_paused_again() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).paused();
    let story = story.fault(Fault::UnitKilled { unit: 0 }).after(2).paused();
    story.server_restarted().reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn unit_that_the_admin_started_in_an_outage_is_paused() {
    let mut idle = setup();
    idle.units[0].running = false;
    let story = story(&idle).server(ServerIs::Silent).reaches(State::Holding, 5).after(5);
    let story = story.fault(Fault::AdminStarts { unit: 0 }).after(1).paused();
    story.server_restarted().reaches(State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn bus_back_is_used_at_once() {
    let story = story(&setup()).fault(Fault::BusLost { calls_hang: false }).server(ServerIs::Silent);
    let story = story.reaches(State::Holding, 5).after(60).runs().fault(Fault::BusBack).after(1).paused();
    story.server_restarted().reaches(State::Online, 10).ends_well();
}

#[test]
fn flapping_server_is_held_for_longer() {
    let mut story = story(&setup_of(&[0], vec![unit(&[0])]));
    for _ in 0..3 {
        story = story.server(ServerIs::Refusing).reaches(State::Holding, 5).server_restarted().after(10);
    }
    story = story.reaches(State::Online, 120);
    let story = story.server(ServerIs::Refusing).reaches(State::Holding, 5).server_restarted().after(10);
    story.is(State::Holding).paused().reaches(State::Online, 300).attempted("Mount", 1).ends_well();
}

fn goes(story: Story, trouble: Option<LocalTrouble>) -> Story {
    story.fault(Fault::Local { server: 0, trouble })
}

/// Whoever has its address there is never asked, nor sent a login; at home it is asked at once.
#[test]
fn off_its_network_a_server_is_left_alone() {
    let story = story(&setup().on_one_network_only().probed(5_000, 1).patience(20_000).hold_for(60_000));
    let away = || goes(story.clone(), Some(LocalTrouble::OffNetwork)).reaches(State::Holding, 1).after(1).paused();
    goes(away().after(10), None).fenced(false).reaches(State::Online, 3).attempted("Mount", 1).ends_well();
    let released = away().after(20).fenced(true).reaches(State::Offline, 90).stopped().after(3_600);
    let released = released.crash(1_000).after(60).is(State::Offline).attempted("Mount", 1);
    goes(released, None).reaches(State::Online, 4).attempted("Mount", 2).after(5).runs().ends_well();
}

#[test]
fn a_host_that_wakes_elsewhere_sends_nothing_and_goes_on_at_home() {
    let story = sleep(story(&setup().on_one_network_only()), 3_600);
    let story = goes(story, Some(LocalTrouble::OffNetwork)).after(3_600 + 60).is(State::Holding).paused();
    goes(story, None).reaches(State::Online, 5).after(1).runs().ends_well();
}

#[test]
fn network_change_probes_at_once() {
    let story = story(&setup().probed(5_000, 1)).server(ServerIs::Refusing).fault(Fault::NetworkChanged);
    story.reaches(State::Holding, 1).ends_well();
}

#[test]
fn unit_that_the_admin_started_and_stopped_while_systemd_could_not_be_heard_stays_stopped() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent).reaches(State::Offline, 40).stopped();
    let story = story.fault(Fault::BusLost { calls_hang: true }).fault(Fault::AdminStarts { unit: 0 }).after(1);
    let story = story.fault(Fault::AdminStops { unit: 0 }).after(1).fault(Fault::BusBack).after(1);
    story.server_restarted().reaches(State::Online, 10).after(5).stopped().ends_well();
}

#[test]
fn server_that_moved_in_an_outage_is_mounted_where_it_is_now() {
    let story = story(&setup().patience(60_000)).fault(Fault::ServerMoves { server: 0 }).reaches(State::Holding, 10);
    let story = story.after(1).paused().reaches(State::Releasing, 40).reaches(State::Online, 30);
    let moved = |place: &crate::host::Place| place.clone_of == (2, 0);
    story.share("at the new address", moved).after(5).runs().fenced(false).ends_well();
}

#[test]
fn server_one_of_whose_addresses_dies_is_mounted_at_the_other() {
    let story = story(&setup().at_two_addresses().patience(60_000));
    let story = story.fault(Fault::AddressDies { server: 0, second: false }).reaches(State::Holding, 10);
    let story = story.after(5).is(State::Holding).paused().share("not at once", |place| place.clone_of == (1, 0));
    let story = story.reaches(State::Releasing, 30).reaches(State::Online, 40);
    let story = story.share("at the other address", |place| place.clone_of == (1_000, 0)).after(5).runs().fenced(false);
    // it stays there when the first one is back
    let story = story.fault(Fault::AddressesBack { server: 0 }).after(60).is(State::Online).attempted("Mount", 2);
    // and what is there is left as well, for the first one
    let story = story.fault(Fault::AddressDies { server: 0, second: true }).reaches(State::Releasing, 60);
    story.reaches(State::Online, 40).share("at the first", |place| place.clone_of == (1, 0)).ends_well();
}

/// What its users have open would be lost.
#[test]
fn server_that_comes_back_at_its_other_address_first_is_not_mounted_anew() {
    let story = story(&setup().at_two_addresses()).server(ServerIs::Silent).reaches(State::Holding, 10).after(60);
    let story = story.fault(Fault::AddressDies { server: 0, second: false }).server(ServerIs::Up).after(6);
    let story = story.is(State::Holding).paused().fault(Fault::AddressesBack { server: 0 });
    let story = story.reaches(State::Online, 10).after(60).is(State::Online);
    story.share("where it was", |place| place.clone_of == (1, 0)).attempted("Mount", 1).runs().ends_well();
}

#[test]
fn share_that_begins_with_a_dead_address_is_mounted_at_the_other() {
    let story = beginning(&setup().at_two_addresses());
    let story = story.fault(Fault::AddressDies { server: 0, second: false }).reaches(State::Online, 60);
    story.share("at the other address", |place| place.clone_of == (1_000, 0)).attempted("Mount", 1).ends_well();
}

#[test]
fn share_of_another_source_is_released_in_order_and_mounted_again() {
    let story = story(&setup()).fault(Fault::SourceEdited { share: 0, down_for_ms: 500 }).reaches(State::Releasing, 10);
    let story = story.reaches(State::Mounting, 10).stopped().attempted("RaiseFence", 0).reaches(State::Online, 30);
    let edited = |place: &crate::host::Place| place.clone_of == (1, 1);
    story.share("of the other source", edited).after(5).runs().ends_well();
}

#[test]
fn barrier_that_somebody_took_is_laid_again() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 10).after(1);
    let story = story.fault(Fault::BarrierTaken { share: 0 }).after(2);
    story.share("the barrier is back", |place| place.barrier).server_restarted().reaches(State::Online, 10).ends_well();
}

/// A dead server's mount would keep the host from going down.
#[test]
fn a_held_share_is_given_up_when_the_host_goes_down() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).paused();
    let story = story.fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    let story = story.reaches(State::Offline, 2).unit(0, "the consumer can end", |unit| !unit.frozen);
    let story = story.share("the mount is gone", |place| !place.clone);
    story.server_restarted().after(20).is(State::Offline).ends_well();
}

#[test]
fn a_share_in_use_is_left_to_systemd_when_the_host_goes_down() {
    let story = story(&setup()).fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    let story = story.is(State::Online).share("it is on its path", |place| place.ours).reaches(State::Offline, 4);
    story
        .attempted("Flush", 1)
        .attempted("RaiseFence", 0)
        .attempted("Release", 0)
        .attempted("DropClone", 1)
        .ends_well();
}

#[test]
fn a_server_that_dies_while_the_host_goes_down_keeps_nobody() {
    let story = story(&setup()).fault(Fault::Shutdown { lasts_ms: 90_000, down_for_ms: 10_000 });
    let story = story.hangs("flush", 100, true).reaches(State::Releasing, 4).server(ServerIs::Silent);
    story.reaches(State::Offline, 10).attempted("RaiseFence", 1).ends_well();
}

#[test]
fn a_share_that_comes_back_while_the_host_goes_down_is_written_back() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5);
    let story = story.server_restarted().reaches(State::Recovering, 10);
    let story = story.fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    story.reaches(State::Offline, 20).attempted("Flush", 1).attempted("Attach", 1).ends_well();
}

#[test]
fn a_mount_in_flight_is_ended_when_the_host_goes_down() {
    let story = beginning(&setup()).hangs("mount", 100, true);
    let mut story = story.reaches(State::Mounting, 10);
    story = story.fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    story.reaches(State::Offline, 2).after(20).attempted("Mount", 1).ends_well();
}

#[test]
fn commands_are_refused_while_the_host_goes_down() {
    let story = story(&setup()).fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    story.typed_in_vain(Typed::Hold).typed_in_vain(Typed::Remount).ends_well();
}

/// Its operator will not come back to this boot.
#[test]
fn maintenance_ends_with_the_host() {
    let story = story(&setup()).typed(Typed::MaintenanceOn { for_ms: None }).is(State::Maintenance);
    let story = story.server(ServerIs::Silent).after(10).is(State::Maintenance);
    let story = story.fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    story.reaches(State::Offline, 5).share("the mount is gone", |place| !place.clone).ends_well();
}

#[test]
fn a_call_that_does_not_return_keeps_nothing_else_from_being_given_up_when_the_host_goes_down() {
    let story = story(&setup()).hangs("detach", 500, false).server(ServerIs::Silent).reaches(State::Stuck, 20);
    let story = story.fault(Fault::Shutdown { lasts_ms: 60_000, down_for_ms: 10_000 });
    story.after(1).fenced(true).attempted("DestroySockets", 1).ends_well();
}
