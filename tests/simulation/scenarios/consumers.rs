//! Named stories of consumers.

use nasmount::share::State;
use nasmount::share::consumers::{AfterHold, OnOutage};
use nasmount::share::failure::FailureClass;

use crate::schedule::{Cure, Fault, ServerIs, Setup, Typed};
use crate::story::{setup, setup_of, story, with_policy};

#[test]
fn admin_stopped_unit_stays_stopped() {
    let story = story(&setup().hold_for(20_000)).fault(Fault::AdminStops { unit: 0 });
    let story = story.server(ServerIs::Silent).reaches(State::Offline, 40).server_restarted();
    story.reaches(State::Online, 10).after(5).stopped().ends_well();
}

#[test]
fn unit_that_the_admin_stopped_while_it_was_paused_stays_stopped() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent);
    let story = story.reaches(State::Holding, 5).after(1).paused().fault(Fault::AdminStops { unit: 0 });
    story.reaches(State::Offline, 40).server_restarted().reaches(State::Online, 10).after(5).stopped().ends_well();
}

fn with(on_outage: OnOutage, after_hold: AfterHold, stop_takes_ms: u64) -> Setup {
    setup_of(&[0], vec![with_policy(&[0], on_outage, after_hold, stop_takes_ms)]).hold_for(20_000)
}

#[test]
fn stop_policy_consumer_is_stopped_then_started() {
    let story = story(&with(OnOutage::Stop, AfterHold::Stop, 2_000)).server(ServerIs::Silent);
    story
        .reaches(State::Holding, 5)
        .after(3)
        .stopped()
        .server_restarted()
        .reaches(State::Online, 5)
        .after(1)
        .runs()
        .ends_well();
}

#[test]
fn consumer_that_is_being_stopped_slowly_is_never_forgotten() {
    let story = story(&with(OnOutage::Stop, AfterHold::None, 85_000)).server(ServerIs::Silent);
    story.reaches(State::Offline, 60).after(80).stopped().server_restarted().reaches(State::Online, 10).ends_well();
}

#[test]
fn stop_that_never_ends_does_not_keep_the_share_from_being_released() {
    let story = story(&with(OnOutage::Pause, AfterHold::Stop, 400_000)).server(ServerIs::Silent);
    story.reaches(State::Offline, 140).ends_well();
}

#[test]
fn stop_that_never_began_leaves_nobody_paused_when_the_remount_is_refused() {
    let story = story(&with(OnOutage::Pause, AfterHold::Stop, 2_000)).server(ServerIs::Silent);
    let story = story.reaches(State::Holding, 10).after(1).paused().fault(Fault::BusLost { calls_hang: true });
    let story = story.reaches(State::Offline, 140).paused();
    let story = story.fault(Fault::MountsRefused { share: 0, class: FailureClass::Credentials }).server_restarted();
    story.reaches(State::Blocked, 10).fault(Fault::BusBack).after(40).stopped().ends_well();
}

#[test]
fn slow_stop_does_not_keep_the_share_from_coming_back() {
    let story = story(&with(OnOutage::Stop, AfterHold::Stop, 85_000)).server(ServerIs::Silent);
    story.reaches(State::Holding, 5).after(5).server_restarted().reaches(State::Online, 12).after(1).runs().ends_well();
}

#[test]
fn paused_consumer_without_a_policy_goes_on_and_a_crash_does_not_forget_it() {
    let story = story(&with(OnOutage::Pause, AfterHold::None, 2_000)).hangs("continue", 4, true);
    let story = story.server(ServerIs::Silent).reaches(State::Releasing, 30).after(2).paused();
    let story = story.crash(1_000);
    story.reaches(State::Offline, 20).runs().ends_well();
}

#[test]
fn outage_whose_consumers_do_not_run_ends() {
    let mut idle = setup();
    idle.units[0].running = false;
    let story = story(&idle).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).server_restarted();
    story.reaches(State::Online, 5).stopped().ends_well();
}

#[test]
fn nobody_to_pause_is_noticed_at_once() {
    let mut idle = setup();
    idle.units[0].running = false;
    let story =
        story(&idle).fault(Fault::ShareSilent { share: 0, cure: Cure::NewConnection }).hangs("inspect", 3, true);
    story.reaches(State::Holding, 31).reaches(State::Online, 8).ends_well();
}

#[test]
fn consumer_bus_lost_during_hold() {
    for calls_hang in [false, true] {
        story(&setup())
            .fault(Fault::BusLost { calls_hang })
            .server(ServerIs::Silent)
            .after(140)
            .is(State::Holding)
            .fenced(true)
            .server_restarted()
            .reaches(State::Online, 15)
            .ends_well();
    }
}

#[test]
fn release_while_the_stop_job_runs_starts_the_unit_when_it_has_ended() {
    let one = with_policy(&[0], OnOutage::Stop, AfterHold::Stop, 30_000);
    let story = story(&setup_of(&[0], vec![one])).typed(Typed::Hold).after(3).typed(Typed::Release).after(10);
    story.after(110).runs().ends_well();
}

#[test]
fn short_outage_while_the_stop_job_runs_starts_the_unit_when_it_has_ended() {
    let one = with_policy(&[0], OnOutage::Stop, AfterHold::Stop, 40_000);
    let story = story(&setup_of(&[0], vec![one])).server(ServerIs::Silent).reaches(State::Holding, 5).after(3);
    story.server_restarted().reaches(State::Online, 30).after(120).runs().ends_well();
}
