//! One server, told in verdicts.

use super::*;

const SPEC: DetectorSpec = DetectorSpec {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    timeout_max: Duration::from_secs(5),
    dead_after: 3,
    alive_after: 3,
    identity: IdentityPolicy::Pinned,
    bound: false,
};

fn detector() -> Detector {
    Detector::new(SPEC, None, at(0))
}

fn at(ms: u64) -> BootInstant {
    BootInstant::from_boot(Duration::from_millis(ms))
}

/// Feeds verdicts that each take `took` and returns what changed.
fn feed(detector: &mut Detector, took: u64, verdicts: &[Verdict]) -> Vec<Trust> {
    verdicts
        .iter()
        .filter_map(|&verdict| {
            let started = detector.next_probe_at;
            detector.handle_probe(started, started + Duration::from_millis(took), Probed::plainly(verdict))
        })
        .collect()
}

#[test]
fn one_failure_is_only_suspect_and_one_success_restores() {
    let mut detector = detector();
    assert_eq!(feed(&mut detector, 1, &[Verdict::Alive]), [Trust::Trusted]);
    let verdict = Verdict::Silent;
    assert_eq!(feed(&mut detector, 1000, &[verdict, Verdict::Alive]), [Trust::Suspect { verdict }, Trust::Trusted]);
}

#[test]
fn a_silent_server_is_dead_within_four_seconds_of_the_last_good_probe() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    let good_at = at(0);
    feed(&mut detector, 1000, &[Verdict::Silent; 2]);
    let last_started = detector.next_probe_at;
    let verdict = Verdict::Silent;
    assert_eq!(feed(&mut detector, 1000, &[verdict]), [Trust::Dead { verdict }]);
    assert!((last_started + Duration::from_secs(1)).since(good_at) <= Duration::from_secs(4));
}

#[test]
fn a_dead_server_is_trusted_only_after_enough_successes_in_a_row() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Refused; 3]);
    assert!(matches!(detector.trust(), Trust::Dead { .. }));
    feed(&mut detector, 1, &[Verdict::Alive, Verdict::Alive, Verdict::Refused, Verdict::Alive, Verdict::Alive]);
    assert!(matches!(detector.trust(), Trust::Dead { .. }));
    assert_eq!(feed(&mut detector, 1, &[Verdict::Alive]), [Trust::Trusted]);
}

#[test]
fn a_dead_server_is_probed_at_the_interval_and_never_in_a_busy_loop() {
    let mut detector = detector();
    feed(&mut detector, 0, &[Verdict::Refused; 3]);
    let started = detector.next_probe_at;
    feed(&mut detector, 0, &[Verdict::Refused]);
    assert_eq!(detector.next_probe_at, started + SPEC.interval);
}

/// An outage and the return from it; how long the return took.
fn outage(detector: &mut Detector) -> Duration {
    feed(detector, 1, &[Verdict::Refused; 3]);
    assert!(matches!(detector.trust(), Trust::Dead { .. }));
    let began = detector.next_probe_at;
    for _ in 0..10_000 {
        if detector.trust() == Trust::Trusted {
            break;
        }
        feed(detector, 1, &[Verdict::Alive]);
    }
    detector.next_probe_at.since(began)
}

#[test]
fn a_server_that_comes_and_goes_has_to_answer_for_longer_each_time() {
    let mut detector = detector();
    let took: Vec<u64> = (0..8).map(|_| outage(&mut detector).as_secs()).collect();
    assert!(took[..2].iter().all(|seconds| *seconds < 3), "{took:?}");
    for (index, least) in [(2, 10), (3, 20), (4, 40), (5, 80), (6, 120), (7, 120)] {
        assert!((least..least + 5).contains(&took[index]), "{took:?}");
    }
    let now = detector.next_probe_at;
    assert_eq!(detector.flapping(now).map(|flapping| flapping.outages), Some(8));
    assert_eq!(detector.flapping(now + FLAP_WINDOW), None);
}

const NO_LINK: Trust = Trust::Dead { verdict: Verdict::NoLink };

#[test]
fn a_pulled_cable_needs_no_probe_and_one_that_is_only_moved_is_none() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    assert_eq!(detector.handle_local(at(500), Some(LocalTrouble::NoLink)), None);
    assert_eq!(detector.handle_local(at(700), None), None);
    assert_eq!(detector.poll_timeout(), None);
    assert_eq!(detector.next_probe_at, at(700), "it is looked at once");
    detector.handle_local(at(800), Some(LocalTrouble::NoLink));
    assert_eq!(detector.poll_timeout(), Some(at(1050)));
    assert_eq!(detector.handle_timeout(at(1049)), None);
    assert_eq!(detector.handle_timeout(at(1050)), Some(NO_LINK));
    assert_eq!(detector.poll_timeout(), None);
    assert_eq!(detector.handle_timeout(at(9000)), None);
    assert_eq!(feed(&mut detector, 1, &[Verdict::Silent]), [], "the cause that is nearest is named");
    detector.handle_local(at(9000), None);
    let verdict = Verdict::Silent;
    assert_eq!(feed(&mut detector, 1, &[verdict]), [Trust::Dead { verdict }]);
    assert_eq!(feed(&mut detector, 1, &[Verdict::Alive; 3]), [Trust::Trusted]);
}

#[test]
fn an_answer_counts_for_more_than_what_is_said_of_the_link() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_local(at(500), Some(LocalTrouble::NoLink));
    assert_eq!(detector.next_probe_at, at(500), "asked at once");
    assert_eq!(detector.handle_probe(at(500), at(503), Probed::plainly(Verdict::Alive)), None);
    assert_eq!(detector.poll_timeout(), None);
    assert_eq!(detector.handle_local(at(600), Some(LocalTrouble::NoLink)), None, "said again");
    assert_eq!(detector.poll_timeout(), None);
    assert_eq!(detector.trust(), Trust::Trusted);
    // another one is another matter, and so is the same after it was gone
    detector.handle_local(at(700), None);
    detector.handle_local(at(800), Some(LocalTrouble::NoLink));
    assert_eq!(detector.handle_timeout(at(1050)), Some(Trust::Dead { verdict: Verdict::NoLink }));
}

#[test]
fn an_answer_to_what_was_asked_before_the_link_went_says_nothing() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_local(at(500), Some(LocalTrouble::NoLink));
    detector.handle_probe(at(499), at(501), Probed::plainly(Verdict::Alive));
    assert_eq!(detector.handle_timeout(at(750)), Some(Trust::Dead { verdict: Verdict::NoLink }));
}

#[test]
fn what_is_wrongly_said_of_the_link_makes_nobody_flap() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_local(at(500), Some(LocalTrouble::NoLink));
    let mut now = at(500);
    while now < at(60_000) {
        now = detector.poll_timeout().map_or(detector.next_probe_at, |at| at.min(detector.next_probe_at)).max(now);
        assert_eq!(detector.handle_timeout(now), None);
        if now >= detector.next_probe_at {
            let answered = now + Duration::from_millis(3);
            assert_eq!(detector.handle_probe(now, answered, Probed::plainly(Verdict::Alive)), None);
        }
    }
    assert_eq!(detector.trust(), Trust::Trusted);
}

#[test]
fn another_trouble_in_place_of_the_first_is_not_a_new_one() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_local(at(500), Some(LocalTrouble::NoLink));
    assert_eq!(
        detector.handle_local(at(900), Some(LocalTrouble::NoRoute)),
        Some(Trust::Dead { verdict: Verdict::NoRoute })
    );
    assert_eq!(
        detector.handle_local(at(950), Some(LocalTrouble::NoAddress)),
        Some(Trust::Dead { verdict: Verdict::NoAddress })
    );
}

/// A server with a long interval is dead without a link, and the link comes back; the instant of that.
fn link_back(interval: u64) -> (Detector, BootInstant) {
    let spec = DetectorSpec { interval: Duration::from_millis(interval), ..SPEC };
    let mut detector = Detector::new(spec, None, at(0));
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_local(at(5_000), Some(LocalTrouble::NoLink));
    assert_eq!(detector.handle_timeout(at(5_250)), Some(NO_LINK));
    let started = detector.next_probe_at;
    feed(&mut detector, 0, &[Verdict::Unreachable]);
    assert_eq!(detector.next_probe_at, started + spec.interval, "a cable that is pulled is nothing to hurry for");
    let back = at(40_000);
    assert_eq!(detector.handle_local(back, None), None);
    assert_eq!(detector.next_probe_at, back);
    (detector, back)
}

#[test]
fn a_probe_that_came_too_early_after_a_link_is_soon_repeated_but_not_for_ever() {
    for (verdict, took) in [(Verdict::Unreachable, 0), (Verdict::Refused, 1), (Verdict::Silent, 1_000)] {
        let (mut detector, back) = link_back(15_000);
        let pace = HURRIED_INTERVAL.max(Duration::from_millis(took));
        let mut started = back;
        while started + pace < back + HURRIED_FOR {
            feed(&mut detector, took, &[verdict]);
            assert_eq!(detector.next_probe_at, started + pace, "{verdict:?} {}", started.since(back).as_secs_f64());
            started = detector.next_probe_at;
        }
        feed(&mut detector, took, &[verdict; 2]);
        let started = detector.next_probe_at;
        feed(&mut detector, took, &[verdict]);
        assert_eq!(detector.next_probe_at, started + Duration::from_secs(15));
    }
    let (mut detector, back) = link_back(200);
    feed(&mut detector, 0, &[Verdict::Unreachable]);
    assert_eq!(detector.next_probe_at, back + Duration::from_millis(200), "never less often than is configured");
}

#[test]
fn an_answer_or_the_next_trouble_ends_the_hurry() {
    let (mut detector, _) = link_back(15_000);
    feed(&mut detector, 0, &[Verdict::Unreachable]);
    assert_eq!(feed(&mut detector, 1, &[Verdict::Alive; 3]), [Trust::Trusted]);
    feed(&mut detector, 0, &[Verdict::Refused; 3]);
    let started = detector.next_probe_at;
    feed(&mut detector, 0, &[Verdict::Refused]);
    assert_eq!(detector.next_probe_at, started + Duration::from_secs(15), "another outage");
    let (mut detector, back) = link_back(15_000);
    detector.handle_local(back + REPROBE_DELAY, Some(LocalTrouble::NoRoute));
    feed(&mut detector, 0, &[Verdict::Unreachable]);
    assert_eq!(detector.next_probe_at, back + REPROBE_DELAY + Duration::from_secs(15));
    // a host that wakes has no network yet, either
    detector.handle_change_of_network(at(90_000));
    feed(&mut detector, 0, &[Verdict::Unreachable]);
    assert_eq!(detector.next_probe_at, at(90_000) + HURRIED_INTERVAL);
}

#[test]
fn a_hint_is_looked_into_at_once() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Alive]);
    detector.handle_hint(at(300));
    assert_eq!(detector.next_probe_at, at(300));
    feed(&mut detector, 1, &[Verdict::Refused; 3]);
    let before = detector.next_probe_at;
    detector.handle_hint(at(301));
    assert_eq!(detector.next_probe_at, before, "what is known is no news");
}

/// What is about to change is looked at sooner, but not in a busy loop.
#[test]
fn a_return_is_looked_into_sooner_and_then_not_any_more() {
    let mut detector = detector();
    feed(&mut detector, 1, &[Verdict::Refused]);
    assert_eq!(detector.next_probe_at, at(1) + REPROBE_DELAY);
    feed(&mut detector, 1, &[Verdict::Refused; 2]);
    let started = detector.next_probe_at;
    feed(&mut detector, 1, &[Verdict::Alive]);
    assert_eq!(detector.next_probe_at, started + Duration::from_millis(1) + REPROBE_DELAY);
    feed(&mut detector, 1, &[Verdict::Alive]);
    let started = detector.next_probe_at;
    feed(&mut detector, 1, &[Verdict::Alive]);
    assert_eq!((detector.trust(), detector.next_probe_at), (Trust::Trusted, started + SPEC.interval));
    // one that comes and goes has to answer for long, at the usual pace
    for _ in 0..3 {
        outage(&mut detector);
    }
    feed(&mut detector, 1, &[Verdict::Refused; 3]);
    feed(&mut detector, 1, &[Verdict::Alive; 2]);
    for _ in 0..2 {
        let started = detector.next_probe_at;
        feed(&mut detector, 1, &[Verdict::Alive]);
        assert_eq!(detector.next_probe_at, started + SPEC.interval);
    }
    assert!(matches!(detector.trust(), Trust::Dead { .. }));
}

#[test]
fn a_slow_server_gets_more_time() {
    let mut detector = detector();
    assert_eq!(detector.latency(), None);
    assert_eq!(detector.probe_timeout(), Duration::from_secs(1));
    feed(&mut detector, 900, &[Verdict::Alive; 5]);
    assert_eq!(detector.probe_timeout(), Duration::from_millis(3600));
    assert_eq!(detector.latency().map(|latency| latency.median), Some(Duration::from_millis(900)));
    feed(&mut detector, 1, &[Verdict::Refused; 3]);
    assert_eq!(detector.probe_timeout(), Duration::from_secs(1), "after an outage nothing is known of it");
}

fn answer(detector: &mut Detector, of: u8, times: usize) -> Vec<Trust> {
    let probed = Probed { verdict: Verdict::Alive, identity: Some(Identity([of; 16])) };
    let answers = (0..times).filter_map(|_| {
        let started = detector.next_probe_at;
        detector.handle_probe(started, started + Duration::from_millis(1), probed)
    });
    answers.collect()
}

#[test]
fn another_machine_at_the_address_is_not_the_server_until_somebody_says_so() {
    let mut detector = detector();
    answer(&mut detector, 1, 1);
    assert_eq!(detector.identity(), Some(Identity([1; 16])));
    let verdict = Verdict::Stranger;
    assert_eq!(answer(&mut detector, 2, 3), [Trust::Suspect { verdict }, Trust::Dead { verdict }]);
    assert_eq!(detector.stranger(), Some(Identity([2; 16])));
    assert_eq!(answer(&mut detector, 1, 3), [Trust::Trusted], "the right one is back");
    answer(&mut detector, 2, 3);
    detector.trust_stranger(at(60_000));
    assert_eq!(answer(&mut detector, 2, 3), [Trust::Trusted]);
    assert_eq!((detector.identity(), detector.stranger()), (Some(Identity([2; 16])), None));
}

#[test]
fn a_server_that_does_not_say_who_it_is_is_believed_and_so_is_any_if_configured() {
    let mut detector = Detector::new(SPEC, Some(Identity([1; 16])), at(0));
    assert_eq!(answer(&mut detector, 0, 1), [Trust::Trusted]);
    assert_eq!(detector.identity(), Some(Identity([1; 16])));
    detector.reconfigure(DetectorSpec { identity: IdentityPolicy::Any, ..SPEC });
    assert_eq!(answer(&mut detector, 2, 5), []);
}

#[test]
fn an_identity_is_written_as_it_is_read() {
    let identity = Identity([0, 1, 2, 3, 0xaa, 0xbb, 0xcc, 0xdd, 8, 9, 10, 11, 12, 13, 14, 0xff]);
    assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
    for text in ["", "0102", &"0".repeat(34), &"g".repeat(32), &"é".repeat(16), &"é".repeat(32)] {
        assert_eq!(Identity::parse(text), None, "{text}");
    }
}

const OFF: Option<LocalTrouble> = Some(LocalTrouble::OffNetwork);

/// A server that may be asked on some networks only, and this host is on one.
fn bound() -> Detector {
    let mut detector = Detector::new(DetectorSpec { bound: true, ..SPEC }, None, at(0));
    assert_eq!(detector.poll_probe(), None, "nobody has looked yet");
    assert_eq!(detector.handle_local(at(50), None), None);
    assert_eq!(detector.poll_probe(), Some(at(0)));
    answer(&mut detector, 1, 1);
    detector
}

#[test]
fn off_its_network_a_server_is_not_asked_and_on_it_at_once() {
    let mut detector = bound();
    assert_eq!(detector.trust(), Trust::Trusted);
    assert_eq!(detector.handle_local(at(500), OFF), None);
    assert_eq!(detector.poll_probe(), None, "from the first moment on");
    let dead = Trust::Dead { verdict: Verdict::OffNetwork };
    assert_eq!(detector.handle_timeout(at(500) + LOCAL_GRACE), Some(dead));
    assert_eq!(Verdict::OffNetwork.whose(), Whose::Host);
    detector.handle_change_of_network(at(2_000));
    detector.handle_hint(at(2_001));
    detector.trust_stranger(at(2_002));
    assert_eq!(detector.handle_resumed(at(3_000)), None);
    assert_eq!((detector.poll_probe(), detector.handle_local(at(3_001), OFF)), (None, None));
    assert_eq!((detector.poll_probe(), detector.trust()), (None, dead));
    assert_eq!(detector.handle_local(at(9_000), None), None);
    assert_eq!(detector.poll_probe(), Some(at(9_000)));
    assert_eq!(answer(&mut detector, 1, 3), [Trust::Trusted]);
}

/// Whoever answers there is somebody else, also to what was asked in the moment of the change.
#[test]
fn an_answer_across_a_change_of_networks_says_nothing() {
    let probed = Probed { verdict: Verdict::Alive, identity: Some(Identity([2; 16])) };
    let mut detector = bound();
    detector.handle_local(at(500), OFF);
    for (started, answered) in [(499, 501), (500, 600), (500, 5_000)] {
        detector.handle_timeout(at(answered));
        assert_eq!(detector.handle_probe(at(started), at(answered), probed), None);
    }
    assert_eq!(detector.poll_probe(), None, "it was not disbelieved");
    detector.handle_local(at(9_000), Some(LocalTrouble::NoRoute));
    assert_eq!(detector.handle_probe(at(8_999), at(9_001), probed), None);
    assert_eq!((detector.stranger(), detector.identity()), (None, Some(Identity([1; 16]))));
    assert_eq!(detector.poll_probe(), Some(at(9_001)), "without a route it is asked as any other server");
}

#[test]
fn nothing_is_sent_after_a_sleep_or_a_new_binding_before_somebody_has_looked() {
    let mut detector = bound();
    assert_eq!(detector.handle_resumed(at(50_000)), Some(Trust::Unknown));
    assert_eq!(detector.poll_probe(), None);
    detector.handle_local(at(50_080), None);
    assert_eq!(detector.poll_probe(), Some(at(50_000)));
    detector.reconfigure(SPEC);
    detector.handle_resumed(at(60_000));
    assert_eq!(detector.poll_probe(), Some(at(60_000)), "any other is asked at once");
    detector.reconfigure(DetectorSpec { bound: true, ..SPEC });
    assert_eq!(detector.poll_probe(), None);
    detector.reconfigure(SPEC);
    assert_eq!(detector.poll_probe(), Some(at(60_000)));
}

#[test]
fn a_connection_is_kept_for_longer_each_time_up_to_a_minute() {
    let kept = std::iter::successors(Some(kept_for(None)), |before| Some(kept_for(Some(*before))));
    assert_eq!(kept.map(|kept| kept.as_secs()).take(6).collect::<Vec<_>>(), [5, 10, 20, 40, 60, 60]);
}
