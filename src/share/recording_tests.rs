//! Recording and replay: what comes out is what went in.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::share::detector::Trust;
use crate::share::effect::{OpId, Step};
use crate::share::event::{Done, Event, Survey};
use crate::share::failure::Failure;
use crate::share::{OnSleep, ShareSpec};

fn at(ms: u64) -> BootInstant {
    BootInstant::from_boot(Duration::from_millis(ms))
}

fn share() -> Share {
    let spec = ShareSpec {
        patience: Duration::from_secs(120),
        hold_for: Some(Duration::from_secs(900)),
        probe_interval: Duration::from_secs(10),
        on_sleep: OnSleep::Hold,
    };
    Share::new(spec, 7, at(0))
}

/// A share and its recorder.
struct Desk {
    share: Share,
    recorder: Recorder,
    now: u64,
}

impl Desk {
    fn new() -> Self {
        let mut share = share();
        while share.poll_effect().is_some() {}
        Self { share, recorder: Recorder::new("media"), now: 0 }
    }

    fn put(&mut self, input: Input) -> Vec<Effect> {
        self.now += 10;
        self.recorder.record(&self.share, at(self.now), &input);
        let _ = self.share.handle(at(self.now), input);
        while self.share.poll_transition().is_some() {}
        std::iter::from_fn(|| self.share.poll_effect()).collect()
    }

    /// Answers whatever is in flight for a while: a life with mounts, failures and outages.
    fn live(&mut self, rounds: u64) {
        self.put(Input::Event(Event::ServerTrustChanged { trust: Trust::Trusted }));
        let mut random = 1_u64;
        for _ in 0..rounds {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = (random >> 33) % 10;
            let input = match (choice, self.share.operation()) {
                (0, _) => Input::Event(Event::ServerTrustChanged { trust: Trust::Dead { verdict: silent() } }),
                (1, _) => Input::Event(Event::ServerTrustChanged { trust: Trust::Trusted }),
                (2, _) => Input::Timeout,
                (3, _) => Input::Command(Command::Hold),
                (4, _) => Input::Command(Command::Release),
                (5, Some((op, _))) => completed(op, Err(Failure::transient("no route to host"))),
                (_, Some((op, name))) if name == Step::Survey.name() => {
                    completed(op, Ok(Done::Survey(Survey::default())))
                }
                (_, Some((op, _))) => completed(op, Ok(Done::Plainly)),
                (_, None) => Input::Timeout,
            };
            self.put(input);
        }
    }

    fn dump(&self) -> String {
        self.recorder.dump(Some(1e9)).unwrap()
    }
}

fn silent() -> crate::share::detector::Verdict {
    crate::share::detector::Verdict::Silent
}

fn completed(op: OpId, result: Result<Done, Failure>) -> Input {
    Input::Event(Event::Completed { op, result })
}

fn replayed(dump: &str) -> (Share, usize) {
    let mut replay = Recording::read(dump).unwrap().replay();
    let moments = replay.by_ref().count();
    (replay.share().clone(), moments)
}

#[test]
fn a_replay_ends_as_the_share_did() {
    let mut desk = Desk::new();
    desk.live(500);
    let (share, moments) = replayed(&desk.dump());
    assert_eq!(share, desk.share);
    assert_eq!(moments, 501);
}

#[test]
fn a_recording_that_forgot_its_beginning_still_replays() {
    let mut desk = Desk::new();
    desk.live(3_500);
    let dump = desk.dump();
    let (share, moments) = replayed(&dump);
    assert_eq!(share, desk.share);
    assert!((SEGMENT_INPUTS_MAX..=2 * SEGMENT_INPUTS_MAX).contains(&moments), "{moments}");
    assert!(dump.len() < 2 * SEGMENT_BYTES_MAX + 8_192, "{}", dump.len());
}

#[test]
fn a_long_message_does_not_cost_memory() {
    let mut desk = Desk::new();
    for round in 0..100 {
        desk.put(completed(OpId(round), Err(Failure::transient("x".repeat(5_000)))));
    }
    assert!(desk.dump().len() < 2 * SEGMENT_BYTES_MAX + 8_192);
    assert_eq!(replayed(&desk.dump()).0, desk.share);
}

#[test]
fn a_replay_says_what_followed_from_each_input() {
    let mut desk = Desk::new();
    desk.live(300);
    let recording = Recording::read(&desk.dump()).unwrap();
    let mut state = recording.header.snapshot.state();
    let mut changes = 0;
    for moment in recording.replay() {
        assert_eq!(moment.answer.is_some(), matches!(moment.input, Input::Command(_)));
        for transition in moment.transitions {
            assert_eq!(transition.from, state);
            changes += usize::from(transition.from != transition.to);
            state = transition.to;
        }
    }
    assert_eq!(state, desk.share.state());
    assert!(changes > 2, "nothing happened");
}

#[test]
fn nothing_recorded_is_no_recording() {
    assert_eq!(Recorder::new("media").dump(None), None);
}

#[test]
fn what_cannot_be_read_is_said_with_its_line() {
    let mut desk = Desk::new();
    desk.live(5);
    let dump = desk.dump();
    let error = |text: &str| Recording::read(text).unwrap_err();
    assert_eq!(error("").line, 1);
    assert!(error("hello").message.contains("not the header"), "{:?}", error("hello"));
    let other = dump.replacen(&format!("\"schema\":{SCHEMA}"), "\"schema\":9", 1);
    assert_eq!(error(&other).message, "the recording has schema 9, this nasmount reads schema 5");
    let cut = &dump[..dump.len() - 5];
    assert_eq!(error(cut).line, 7);
    assert!(error(cut).hint.contains("cut off"), "{:?}", error(cut));
    assert_eq!(error("\n\nhello").line, 3);
    assert!(error("hello").message.contains("expected value (column 1)"), "{:?}", error("hello"));
    let mut swapped: Vec<&str> = dump.lines().collect();
    swapped.swap(3, 4);
    assert_eq!(error(&swapped.join("\n")).line, 5);
    assert!(error(&swapped.join("\n")).message.contains("earlier"));
    let at_once: Vec<&str> = dump.lines().take(3).chain(dump.lines().skip(2)).collect();
    assert!(Recording::read(&at_once.join("\n")).is_ok(), "several inputs may come at the same time");
    let edited = dump.replace("\"input\"", "\"imput\"");
    assert_eq!(error(&edited).line, 2);
    assert!(error(&edited).message.contains("imput") || error(&edited).message.contains("input"));
}

/// What a share is told of its configuration is all that could carry a secret into a recording: none of it is text.
#[test]
fn a_share_is_told_nothing_secret() {
    let spec = ShareSpec {
        patience: Duration::from_secs(1),
        hold_for: None,
        probe_interval: Duration::from_secs(10),
        on_sleep: OnSleep::Hold,
    };
    let serde_json::Value::Object(fields) = serde_json::to_value(&spec).unwrap() else { unreachable!() };
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["hold_for", "on_sleep", "patience", "probe_interval"],
        "is the new field fit for a recording?"
    );
}
