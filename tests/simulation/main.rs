//! The state machines in a simulated world: thousands of fault schedules under virtual time.
//!
//! `SCHEDULES=n` runs n of them, `SEED=n` one with its trace, `SCHEDULE=json` one that was printed, `FAILURES=n` goes on
//! until n have failed. What fails is made smaller and stored as JSON under `target/tmp/failed-schedules`; the next run begins
//! with it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test: a panic is a failure, and its output is the point"
)]

mod daemon;
mod faults;
mod generate;
mod host;
mod invariants;
mod jobs;
mod planted;
mod quiet;
mod scenarios;
mod schedule;
mod shrink;
mod starts;
mod story;
mod triples;
mod watch;
mod workers;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use nasmount::share::State;

use planted::Planted;
use schedule::Schedule;
use world::{Figures, World};

const SCHEDULES: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Runs one schedule; an ERROR event fails it, too.
fn run(schedule: &Schedule, planted: Option<Planted>, record: bool) -> (World, invariants::Check) {
    let listener = quiet::Listener::default();
    run_heard(&listener, schedule, planted, record)
}

fn run_heard(
    listener: &quiet::Listener,
    schedule: &Schedule,
    planted: Option<Planted>,
    record: bool,
) -> (World, invariants::Check) {
    let before = listener.errors();
    let (world, check) = listener.during(|| World::run(schedule, planted, record));
    let check = check.and_then(|()| match listener.errors() - before {
        0 => Ok(()),
        errors => Err(invariants::Violation::new(
            "no ERROR event",
            world.now,
            format!("{errors} of them: {}", listener.last_error()),
        )),
    });
    (world, check)
}

fn report(schedule: &Schedule, found: &invariants::Violation) {
    let smallest =
        shrink::shrink(schedule, |schedule| run(schedule, None, false).1.is_err_and(|other| other.rule == found.rule));
    let (world, check) = run(&smallest, None, true);
    let found = check.err().unwrap_or_else(|| found.clone());
    let trace = world.trace.unwrap_or_default();
    println!("{}", trace[trace.len().saturating_sub(120)..].join("\n"));
    println!("seed {} broke the rule '{}' at {}: {}", schedule.seed, found.rule, found.at, found.message);
    let kept = quiet::keep_failed(schedule.seed, &serde_json::to_string_pretty(&smallest).unwrap());
    println!("shrunk and stored: {}", kept.display());
    println!("replay: SEED={} cargo test --test simulation no_schedule -- --nocapture", schedule.seed);
}

fn parsed(texts: BTreeMap<String, String>) -> BTreeMap<String, Schedule> {
    texts.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).unwrap())).collect()
}

fn corpus() -> BTreeMap<String, Schedule> {
    let corpus = parsed(quiet::corpus());
    assert!(!corpus.is_empty(), "the corpus is gone");
    corpus
}

fn add(sum: &mut Figures, figures: &Figures) {
    sum.steps += figures.steps;
    sum.lasted += figures.lasted;
    sum.transitions.extend(&figures.transitions);
    for (kind, (all, effective)) in &figures.faults {
        let counted = sum.faults.entry(kind).or_default();
        *counted = (counted.0 + all, counted.1 + effective);
    }
}

#[test]
fn no_schedule_breaks_a_rule() {
    let given = std::env::var("SCHEDULE").ok().map(|json| serde_json::from_str::<Schedule>(&json).unwrap());
    let seeds = number("SEED").map_or(0..number("SCHEDULES").unwrap_or(SCHEDULES), |seed| seed..seed + 1);
    let whole = given.is_none() && seeds.end - seeds.start >= SCHEDULES;
    let schedules: Box<dyn Iterator<Item = Schedule>> = match given {
        Some(schedule) => Box::new(std::iter::once(schedule)),
        // what was found once counts, too
        None => {
            let known = parsed(quiet::failed()).into_values().chain(corpus().into_values());
            Box::new(known.chain(seeds.map(Schedule::generate)))
        }
    };
    let listener = quiet::Listener::default();
    let mut sum = Figures::default();
    let mut broken = 0;
    let mut count = 0;
    let started = quiet::stopwatch();
    for schedule in schedules {
        let (world, check) = run_heard(&listener, &schedule, None, false);
        add(&mut sum, &world.figures);
        count += 1;
        if let Err(found) = check {
            report(&schedule, &found);
            broken += 1;
            assert!(broken < number("FAILURES").unwrap_or(1), "a rule is broken");
        }
    }
    println!("{count} schedules in {:?}: {} steps, {:?}", started(), sum.steps, sum.lasted);
    for (kind, (all, effective)) in &sum.faults {
        println!("{kind:>20}: {effective} of {all} made a difference");
    }
    assert!(broken == 0, "{broken} schedules break a rule");
    if whole {
        every_kind_makes_a_difference(&sum);
        transitions_are_those_that_are_foreseen(&sum.transitions);
    }
}

fn every_kind_makes_a_difference(sum: &Figures) {
    for (kind, (all, effective)) in &sum.faults {
        assert!(effective * 50 > *all, "{kind} made a difference in {effective} of {all} cases only");
    }
}

/// What `State::may_become` says is neither too little nor too much.
fn transitions_are_those_that_are_foreseen(seen: &BTreeSet<(State, State)>) {
    let foreseen = |from: State| from.may_become().iter().map(move |to| (from, *to));
    let foreseen: BTreeSet<_> = State::ALL.into_iter().flat_map(foreseen).collect();
    let unforeseen: Vec<_> = seen.difference(&foreseen).collect();
    let unseen: Vec<_> = foreseen.difference(seen).collect();
    assert!(unforeseen.is_empty() && unseen.is_empty(), "not foreseen: {unforeseen:?}, never seen: {unseen:?}");
}

#[test]
fn the_corpus_breaks_no_rule_any_more() {
    for (name, schedule) in corpus() {
        if let Err(found) = run(&schedule, None, false).1 {
            report(&schedule, &found);
            panic!("{name} breaks the rule '{}' again", found.rule);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let schedule = Schedule::generate(seed);
        let trace = || run(&schedule, None, true).0.trace.unwrap();
        let first = trace();
        assert!(first.len() > 10);
        assert_eq!(first, trace());
    }
}

#[test]
fn a_schedule_survives_json() {
    for seed in 0..200 {
        let schedule = Schedule::generate(seed);
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }
}

/// The harness is tested, too: bugs planted into the shell are found.
#[test]
fn planted_bugs_are_found() {
    for planted in Planted::ALL {
        let found =
            (0..1_000).find_map(|seed| Some((seed, run(&Schedule::generate(seed), Some(planted), false).1.err()?)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{planted:?} was not found"));
        println!("{planted:?}: seed {seed}, '{}'", violation.rule);
    }
}
