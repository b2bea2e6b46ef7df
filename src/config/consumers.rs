//! Consumers: each on its own, and one unit that needs several shares with itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::consumer::{Consumer, parse_consumer};
use super::fragment::ConsumerFragment;
use super::invalid::{Finding, InvalidKind, Problems};
use super::limits::validate_limits;
use super::merge::Input;
use super::settings::{AfterHold, ConsumerSettings, OnOutage};
use super::source::Origin;
use super::units::Pausable;
use super::validate::checked;
use super::value::show_duration;

/// A little longer than the 90 s that systemd gives a unit to start or to stop, so that systemd decides.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(100);
/// Below, no unit could stop in time; above, one unit keeps all others waiting for longer than a hold lasts.
const TIME_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10 * 60));

/// The consumers of one share, lowest order first.
pub(super) fn validate_consumers(
    path: &str,
    consumers: &[ConsumerFragment],
    problems: &mut Problems<'_>,
) -> Vec<ConsumerSettings> {
    let mut valid = Vec::new();
    for (place, consumer) in consumers.iter().enumerate() {
        let key = format!("{path}.consumer[{}]", consumer.index);
        refuse_other_name(&key, consumer, &consumers[..place], problems);
        let unit = &consumer.unit;
        let Some(pausable) = checked(&key, consumer.key, unit, InvalidKind::BadName, parse_consumer, problems) else {
            continue;
        };
        let on_outage = consumer.on_outage.as_ref().map_or(OnOutage::Pause, |given| given.value);
        let why_not = match pausable {
            Pausable::Yes => None,
            Pausable::Empty => Some(("has no processes that could be paused", "write on_outage = \"stop\"")),
            Pausable::Engine => Some((
                "runs containers that would not be paused with it, and could not be stopped without it",
                "name the containers (container = \"NAME\"), or write on_outage = \"stop\"",
            )),
        };
        if let Some((why, help)) = why_not.filter(|_| on_outage == OnOutage::Pause) {
            let at = consumer.on_outage.as_ref().map_or(unit.origin, |given| given.origin);
            let message = format!("{} {why}", unit.value);
            problems.refuse(InvalidKind::NotAllowed, at, format!("{key}.on_outage"), message, help);
        }
        valid.push(ConsumerSettings {
            unit: unit.value.clone(),
            on_outage,
            after_hold: consumer.after_hold.as_ref().map_or(AfterHold::Stop, |given| given.value),
            order: order(consumer),
            time_limit: checked_time_limit(&key, consumer, problems),
            limits: validate_limits(&key, consumer, problems),
        });
    }
    valid.sort_by_key(|consumer| consumer.order);
    valid
}

/// Under the same name a later file changes what stands there, and `merge` refuses it within one file; another name for the same is
/// always a second consumer.
fn refuse_other_name(key: &str, consumer: &ConsumerFragment, before: &[ConsumerFragment], problems: &mut Problems<'_>) {
    let name = Consumer::of(&consumer.unit.value);
    if let Some(first) = before.iter().find(|first| name.may_be(Consumer::of(&first.unit.value))) {
        refuse_repeated(key.to_owned(), consumer, first, one_of_two(name), problems);
    }
}

/// What to do about a consumer with two names.
fn one_of_two(name: Consumer<'_>) -> &'static str {
    match name {
        Consumer::Container { .. } => "keep one of the two; if each engine has one, name the engine of both",
        Consumer::UserUnit { .. } => {
            "keep one of the two; if they are of two users, write both users as names, or as numbers"
        }
        Consumer::Unit(_) | Consumer::Label(_) | Consumer::Compose(_) => REPEATED,
    }
}

/// What to do about a consumer that is named twice.
pub(super) const REPEATED: &str = "keep one of the two";

/// Of two entries of a share for the same consumer the second is a mistake.
pub(super) fn refuse_repeated(
    key: String,
    consumer: &ConsumerFragment,
    first: &ConsumerFragment,
    help: &str,
    problems: &mut Problems<'_>,
) {
    problems.refuse_finding(Finding {
        kind: InvalidKind::Conflict,
        at: consumer.unit.origin,
        key,
        message: "this is already a consumer of the share".to_owned(),
        help: help.to_owned(),
        related: Some((first.unit.origin, "first named here".to_owned())),
    });
}

fn order(consumer: &ConsumerFragment) -> i32 {
    consumer.order.as_ref().map_or(0, |given| given.value)
}

fn time_limit(consumer: &ConsumerFragment) -> Duration {
    consumer.time_limit.as_ref().map_or(DEFAULT_TIME_LIMIT, |given| given.value)
}

fn checked_time_limit(key: &str, consumer: &ConsumerFragment, problems: &mut Problems<'_>) -> Duration {
    let limit = time_limit(consumer);
    if let Some(given) = &consumer.time_limit
        && !(TIME_LIMITS.0..=TIME_LIMITS.1).contains(&limit)
    {
        let message = format!("{} is out of range", show_duration(limit));
        let help = format!("use {} to {}", show_duration(TIME_LIMITS.0), show_duration(TIME_LIMITS.1));
        problems.refuse(InvalidKind::OutOfRange, given.origin, format!("{key}.time_limit"), message, help);
        return DEFAULT_TIME_LIMIT;
    }
    limit
}

/// By consumer: the first share that it uses, and how it is written there.
type Seen<'input> = BTreeMap<&'input str, (&'input str, &'input ConsumerFragment)>;

/// With two names it would be two consumers: let go for one share while the other one is away.
fn refuse_name_of_another_share(
    share: &str,
    consumer: &ConsumerFragment,
    seen: &Seen<'_>,
    problems: &mut Problems<'_>,
) {
    let name = Consumer::of(&consumer.unit.value);
    let is_other_name = |(first_share, first): &&(&str, &ConsumerFragment)| {
        *first_share != share && name.may_be(Consumer::of(&first.unit.value))
    };
    if let Some((first_share, first)) = seen.values().find(is_other_name) {
        problems.refuse_finding(Finding {
            kind: InvalidKind::Conflict,
            at: consumer.unit.origin,
            key: format!("{}.consumer[{}]", super::reader::join("share", share), consumer.index),
            message: format!("{} may be {} of share {first_share}", consumer.unit.value, first.unit.value),
            help: match name {
                Consumer::UserUnit { .. } => "write its user alike for both shares: by name, or by number".to_owned(),
                Consumer::Container { .. } => "write its engine for both shares, or for none".to_owned(),
                Consumer::Unit(_) | Consumer::Label(_) | Consumer::Compose(_) => {
                    "write the same for both shares".to_owned()
                }
            },
            related: Some((first.unit.origin, format!("here for share {first_share}"))),
        });
    }
}

/// A unit that needs several shares has one place in the order and one time limit, whichever of them is away.
pub(super) fn refuse_disagreement(input: &Input, problems: &mut Problems<'_>) {
    let mut seen = Seen::new();
    for (share, fragment) in &input.shares {
        for consumer in &fragment.consumers {
            let path = super::reader::join("share", share);
            refuse_name_of_another_share(share, consumer, &seen, problems);
            let (first_share, first) = *seen.entry(&consumer.unit.value).or_insert((share, consumer));
            let key = |name: &str| format!("{path}.consumer[{}].{name}", consumer.index);
            let here = |origin: Option<Origin>| origin.unwrap_or(consumer.unit.origin);
            let there = |origin: Option<Origin>| origin.unwrap_or(first.unit.origin);
            let unit = &consumer.unit.value;
            let mut refuse = |name: &str, at: (Option<Origin>, Option<Origin>), values: (String, String)| {
                problems.refuse_finding(Finding {
                    kind: InvalidKind::Conflict,
                    at: here(at.0),
                    key: key(name),
                    message: format!("{unit} has {name} {} here and {} for share {first_share}", values.0, values.1),
                    help: format!("a unit has one {name}, whichever of its shares is away: write the same twice"),
                    related: Some((there(at.1), format!("{name} {} for share {first_share}", values.1))),
                });
            };
            if order(consumer) != order(first) {
                let origins = (consumer.order.as_ref().map(|o| o.origin), first.order.as_ref().map(|o| o.origin));
                refuse("order", origins, (order(consumer).to_string(), order(first).to_string()));
            }
            if time_limit(consumer) != time_limit(first) {
                let origins =
                    (consumer.time_limit.as_ref().map(|l| l.origin), first.time_limit.as_ref().map(|l| l.origin));
                refuse("time_limit", origins, (show_duration(time_limit(consumer)), show_duration(time_limit(first))));
            }
            for (limit, given) in &consumer.limits {
                if let Some(other) = first.limits.get(limit).filter(|other| other.value != given.value) {
                    let values = (limit.show(given.value), limit.show(other.value));
                    refuse(limit.key(), (Some(given.origin), Some(other.origin)), values);
                }
            }
        }
    }
}
