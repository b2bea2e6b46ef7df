//! Named stories of crashes.

use nasmount::share::State;
use nasmount::share::consumers::{AfterHold, Held, OnOutage};

use crate::schedule::{Change, Fault, ServerIs, unit_name};
use crate::story::{beginning, setup, story, with_policy};
use crate::world::World;

#[test]
fn killed_while_holding() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5);
    let story = story.crash(10_000).after(2).paused().after(15);
    let story = story.is(State::Holding).paused().server_restarted().reaches(State::Online, 5).after(1).runs();
    story.attempted("Mount", 1).ends_well();
}

#[test]
fn killed_before_the_first_survey_forgets_nothing() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5).hangs("survey", 5, true);
    let story = story.crash(1_000).after(2);
    let story = story.crash(1_000);
    let held = |world: &World| world.host.held.get(unit_name(0)).is_some_and(|unit| unit.held == Held::Paused);
    story.after(5).sees("what is held is on disk", held).ends_well();
}

#[test]
fn killed_while_released_lifts_the_fence_again() {
    let story = story(&setup().hold_for(20_000)).server(ServerIs::Silent);
    let story = story.reaches(State::Offline, 40).fenced(true);
    let story = story.crash(1_000).server_restarted();
    story.reaches(State::Online, 20).fenced(false).ends_well();
}

#[test]
fn fence_that_vanished_with_the_daemon_is_raised_again() {
    let mut story = story(&setup().patience(0)).hangs("raise fence", 8, true).server(ServerIs::Silent);
    story = story.reaches(State::Holding, 5).after(2).crash(1_000);
    story.0.host.servers[0].fenced_for.clear();
    story.after(3).is(State::Holding).fenced(true).ends_well();
}

#[test]
fn outage_that_was_given_up_before_a_crash_says_nothing_about_the_next() {
    let mut story = story(&setup()).server(ServerIs::Silent).after(130).server_restarted();
    story = story.hangs("attach", 5, false).reaches(State::Recovering, 5).after(1);
    story = story.crash(1_000);
    story.0.host.shares[0].ours = true;
    let story = story
        .reaches(State::Online, 10)
        .after(5)
        .sees("nothing is given up", |world| !world.host.shares[0].disk.given_up);
    story.server(ServerIs::Silent).reaches(State::Holding, 5).crash(1_000).ends_well();
}

#[test]
fn clone_lost_with_the_daemon_stops_what_was_paused() {
    let mut story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(5);
    story = story.crash(1_000);
    story.0.host.shares[0].clone = false;
    story.0.host.shares[0].ours = false;
    story.reaches(State::Offline, 20).stopped().ends_well();
}

/// An outage with everything in it, and a crash after each of the daemon's inputs.
#[test]
fn killed_at_every_step_of_an_outage() {
    let mut everything = setup();
    everything = everything.patience(5_000).hold_for(15_000);
    for (on_outage, after_hold) in
        [(OnOutage::Stop, AfterHold::Stop), (OnOutage::Pause, AfterHold::Kill), (OnOutage::Pause, AfterHold::None)]
    {
        everything.units.push(with_policy(&[0], on_outage, after_hold, 3_000));
    }
    let outage = |away: u64, dies_at_input| {
        let mut story = beginning(&everything);
        story.0.dies_at_input = dies_at_input;
        let story = story.after(15).server(ServerIs::Silent).after(away).server_restarted().after(15);
        let inputs = story.0.inputs;
        story.ends_well();
        inputs
    };
    for away in [8, 12, 60] {
        let inputs = outage(away, None);
        assert!(inputs > 20);
        for input in 1..=inputs {
            outage(away, Some(input));
        }
    }
}

/// Somebody took it away; below a share that is on the path none can be laid.
#[test]
fn share_that_lost_its_barrier_gets_one_when_it_is_off_the_path() {
    let mut story = story(&setup()).crash(1_000);
    story.0.host.shares[0].barrier = false;
    let story = story.after(15).is(State::Online).share("still none", |place| !place.barrier);
    let story = story.server(ServerIs::Silent).reaches(State::Holding, 5).after(1);
    story.share("the path is barred", |place| place.barrier && !place.ours).ends_well();
}

#[test]
fn sleep_while_no_daemon_runs_shortens_no_patience() {
    let story = story(&setup()).server(ServerIs::Silent).reaches(State::Holding, 5).after(60).crash(20_000);
    let story = story.after(5).fault(Fault::Suspend { for_ms: 600_000 }).after(600 + 30);
    let story = story.is(State::Holding).fenced(false).paused();
    story.after(60).fenced(true).is(State::Holding).ends_well();
}

#[test]
fn hold_that_ended_while_no_daemon_ran_is_not_over_for_a_server_that_is_back() {
    let story = story(&setup().hold_for(60_000)).server(ServerIs::Silent).reaches(State::Holding, 5).after(10);
    let story = story.crash(100_000).after(90).server_restarted().after(1).reaches(State::Recovering, 20);
    story.reaches(State::Online, 10).after(2).attempted("Release", 0).runs().ends_well();
}

/// What was over while no daemon ran is not over before the server was asked, whatever is loaded meanwhile.
#[test]
fn reload_just_after_a_restart_gives_nothing_up() {
    let mut story = story(&setup().hold_for(60_000)).server(ServerIs::Silent).reaches(State::Holding, 5).after(2);
    story = story.crash(100_000).after(99);
    story = story.fault(Fault::Server { server: 0, is: ServerIs::Slow, connections_lost: true });
    let reload = Fault::ConfigurationLoaded { change: Change::Patience { share: 0, ms: 110_000 } };
    let story = story.reaches(State::Holding, 5).fault(reload).reaches(State::Online, 15);
    story.attempted("Mount", 1).ends_well();
}
