//! Named stories of several shares, servers and consumers.

use nasmount::share::State;
use nasmount::share::failure::FailureClass;

use crate::schedule::{Fault, ServerIs, Setup, UnitSetup, unit_name};
use crate::story::{Story, setup_of, story, unit};
use crate::world::World;

fn away(server: usize) -> Fault {
    Fault::Server { server, is: ServerIs::Silent, connections_lost: false }
}

fn back(server: usize) -> Fault {
    Fault::Server { server, is: ServerIs::Up, connections_lost: true }
}

#[test]
fn one_consumer_on_two_shares_waits_for_both() {
    let story = story(&setup_of(&[0, 1], vec![unit(&[0, 1])])).fault(away(0)).reaches(State::Holding, 5);
    let story = story.after(1).paused().fault(away(1)).share_reaches(1, State::Holding, 5);
    let story = story.fault(back(0)).reaches(State::Online, 10).after(20).paused();
    story.fault(back(1)).share_reaches(1, State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn one_consumer_on_two_shares_is_stopped_when_one_is_given_up_and_starts_when_both_are_back() {
    let mut both = setup_of(&[0, 1], vec![unit(&[0, 1])]);
    both.shares[0].hold_for_ms = Some(10_000);
    let story = story(&both).fault(away(0)).fault(away(1)).reaches(State::Offline, 30).stopped();
    let story = story.fault(back(0)).reaches(State::Online, 10).after(20).stopped().share_is(1, State::Holding);
    story.fault(back(1)).share_reaches(1, State::Online, 10).after(1).runs().ends_well();
}

#[test]
fn two_servers_of_which_one_is_dead() {
    let story = story(&setup_of(&[0, 1], vec![unit(&[0]), unit(&[1])])).fault(away(0)).reaches(State::Holding, 5);
    let story = story.after(200).share_is(1, State::Online).paused();
    let story = story.unit(1, "the other one runs", |unit| unit.running && !unit.frozen);
    let story = story.sees("the other server is not fenced", |world| !world.host.is_fenced(1, 1));
    story.fault(back(0)).reaches(State::Online, 10).ends_well();
}

#[test]
fn two_shares_of_one_server_come_back_together() {
    let story = story(&setup_of(&[0, 0, 0], vec![unit(&[0]), unit(&[1, 2])])).fault(away(0));
    let story = story.reaches(State::Holding, 5).after(150).fault(back(0));
    let story = story.reaches(State::Online, 20).share_reaches(1, State::Online, 20);
    story.share_reaches(2, State::Online, 20).attempted("Mount", 3).ends_well();
}

#[test]
fn mounts_wait_for_each_other() {
    let setup = setup_of(&[0, 1], Vec::new());
    let story = crate::story::beginning(&setup).hangs("mount", 10, true).share_reaches(1, State::Mounting, 5);
    let story = story.after(5).sees("one mounts, one waits", |world| world.mount_queue.len() == 1);
    story.reaches(State::Online, 10).share_reaches(1, State::Online, 5).attempted("Mount", 2).ends_well();
}

#[test]
fn mount_that_waits_for_one_that_never_returns_is_tried_again() {
    let setup = setup_of(&[0, 1], Vec::new());
    let story = crate::story::beginning(&setup).hangs("mount", 200, false).fails("mount", FailureClass::Transient, 1);
    let stuck = |world: &World| (0..2).any(|share| world.state_of(share) == Some(State::Stuck));
    story.after(70).sees("one of them is stuck", stuck).ends_well();
}

/// Two consumers, the second of which is needed by the first.
fn ordered() -> Setup {
    let first = UnitSetup { order: 10, start_takes_ms: 3_000, ..unit(&[0]) };
    let second = UnitSetup { order: 20, start_takes_ms: 3_000, ..unit(&[0]) };
    setup_of(&[0], vec![first, second]).hold_for(20_000)
}

fn place(story: &Story, what: &str) -> usize {
    story.trace().find(what).unwrap_or_else(|| panic!("{}\nno '{what}'", story.trace()))
}

#[test]
fn two_consumers_are_held_lowest_first_and_go_on_highest_first() {
    let story = story(&ordered()).server(ServerIs::Silent).reaches(State::Holding, 5).after(1).server_restarted();
    let story = story.reaches(State::Online, 5).after(1);
    let [first, second] = [unit_name(0), unit_name(1)];
    assert!(place(&story, &format!("{first}: Pause")) < place(&story, &format!("{second}: Pause")));
    assert!(place(&story, &format!("{second}: Continue")) < place(&story, &format!("{first}: Continue")));
    story.ends_well();
}

#[test]
fn two_consumers_are_started_one_after_the_other() {
    let story = story(&ordered()).server(ServerIs::Silent).reaches(State::Offline, 40).server_restarted();
    let story = story.reaches(State::Online, 10).after(2);
    let story = story.unit(1, "the second is started first", |unit| unit.running).stopped();
    story.after(3).runs().ends_well();
}

#[test]
fn consumer_that_cannot_be_let_go_keeps_others_waiting_for_its_time_only() {
    let mut slow = ordered();
    slow.units[1].time_limit_ms = 5_000;
    let story = story(&slow).server(ServerIs::Silent).reaches(State::Offline, 40).hangs("start", 60, true);
    story.server_restarted().reaches(State::Online, 10).after(10).runs().ends_well();
}
