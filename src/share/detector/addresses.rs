//! The addresses of a server's name: which one is used, and when it is left for another.
//!
//! A mount is made on one address, and a mount that is left loses what its users have open. So the present address is kept as long as it
//! answers and the name leads to it. While it does not, the others are asked, too, one after the other and beside it (as RFC 8305 does
//! with a connection). One that answers is not enough: a NAS that was away comes back on all its addresses, but seldom at the same
//! moment. So the present one is left when it is dead and has gone on failing for a while during which the other answered.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::time::Duration;

use super::Trust;
use crate::share::BootInstant;

/// How long another address has to have answered, and the present one not, before that one is left. After a link has come up an IPv6
/// address is there only when a router was heard, which is asked each 4 s (RFC 4861), and no other machine was found to have it (1 s,
/// RFC 4862): twice that. Consumers are paused meanwhile, and lose nothing by it.
pub const LEFT_AFTER: Duration = Duration::from_secs(10);

/// Most addresses of one name that are asked; a name with more is a cluster's, which answers on any few of them.
const MOST: usize = 8;

/// The first one to use: of IPv4 if there is one, because a NAS announces IPv6 addresses sooner than its SMB service listens on them.
pub fn first_of(addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first()).copied()
}

/// What a name leads to. Which of it is the present address, whoever uses it knows.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    named: Vec<IpAddr>,
    /// Who is still to be asked in this round.
    round: VecDeque<IpAddr>,
    /// When the next round begins; at once, if nobody was asked yet.
    next_round_at: Option<BootInstant>,
    /// Another one that answers, and since when.
    answers: Option<(IpAddr, BootInstant)>,
}

impl Addresses {
    /// The name was resolved, in this order; what cannot be resolved changes nothing. Returns the address to use: the present one as
    /// long as the name leads to it, else one that answers, else the first.
    pub fn resolved(&mut self, found: &[IpAddr], present: Option<IpAddr>) -> Option<IpAddr> {
        let first = first_of(found)?;
        let leads_to = |address: &IpAddr| found.contains(address);
        self.named = found.iter().copied().take(MOST).collect();
        self.round.retain(leads_to);
        self.answers.take_if(|(address, _)| !found.contains(address));
        let kept = present.filter(leads_to);
        if kept.is_some() {
            return kept;
        }
        let answering = self.answers.map(|(address, _)| address);
        self.forget();
        Some(answering.unwrap_or(first))
    }

    /// When another address is to be asked: while the present one is doubted.
    pub fn poll_ask(&self, present: Option<IpAddr>, trust: Trust) -> Option<BootInstant> {
        let doubted = matches!(trust, Trust::Suspect { .. } | Trust::Dead { .. });
        if !doubted || self.others(present).next().is_none() {
            return None;
        }
        let at_once = BootInstant::from_boot(Duration::ZERO);
        Some(self.next_round_at.filter(|_| self.round.is_empty()).unwrap_or(at_once))
    }

    /// Which one is asked now; each of them once in an interval at most. The caller asks one at a time, and says what came of it.
    pub fn next_to_ask(&mut self, now: BootInstant, present: Option<IpAddr>, interval: Duration) -> Option<IpAddr> {
        if self.round.is_empty() && self.next_round_at.is_none_or(|at| at <= now) {
            self.round = self.others(present).collect();
            self.next_round_at = Some(now + interval);
        }
        self.round.pop_front()
    }

    /// Another address was asked: whether the server itself answers there. The answer may be late: of what has become the present one, or
    /// is none of the server's any more, it says nothing.
    pub fn handle_other(&mut self, now: BootInstant, present: Option<IpAddr>, address: IpAddr, answers: bool) {
        let known = self.answers.is_some_and(|(known, _)| known == address);
        let is_one = self.others(present).any(|other| other == address);
        match answers {
            true if is_one && self.answers.is_none() => self.answers = Some((address, now)),
            false if known => self.answers = None,
            true | false => {}
        }
    }

    /// The present address was asked: whether the server itself answers there, and what is believed of it now. Returns the address that
    /// is used from now on, if it is left.
    pub fn handle_present(&mut self, now: BootInstant, trust: Trust, answers: bool) -> Option<IpAddr> {
        if answers {
            self.forget();
        }
        let (other, since) = self.answers?;
        let left = matches!(trust, Trust::Dead { .. }) && now.since(since) >= LEFT_AFTER;
        left.then(|| {
            self.forget();
            other
        })
    }

    /// What answered before says nothing any more: the host slept.
    pub fn forget(&mut self) {
        self.round.clear();
        (self.next_round_at, self.answers) = (None, None);
    }

    fn others(&self, present: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        self.named.iter().copied().filter(move |address| Some(*address) != present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::detector::Verdict;

    const INTERVAL: Duration = Duration::from_secs(15);
    const SUSPECT: Trust = Trust::Suspect { verdict: Verdict::Silent };
    const DEAD: Trust = Trust::Dead { verdict: Verdict::Silent };

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_boot(Duration::from_secs(seconds))
    }

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().filter_map(|text| address(text)).collect()
    }

    /// A name, as the resolver orders it; the first one is in use.
    fn named(texts: &[&str]) -> (Addresses, Vec<IpAddr>) {
        let (mut addresses, found) = (Addresses::default(), all(texts));
        assert_eq!(addresses.resolved(&found, found.first().copied()), found.first().copied());
        (addresses, found)
    }

    /// Whom it asks now, one after the other.
    fn asks(addresses: &mut Addresses, now: BootInstant, present: IpAddr, trust: Trust) -> Vec<IpAddr> {
        let due = |addresses: &Addresses| addresses.poll_ask(Some(present), trust).is_some_and(|at| at <= now);
        let next = || due(addresses).then(|| addresses.next_to_ask(now, Some(present), INTERVAL)).flatten();
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn an_address_is_kept_while_it_is_one_of_the_servers() {
        let choose = |texts: &[&str], present: &str| Addresses::default().resolved(&all(texts), address(present));
        let three = ["fd00::5", "10.0.0.6", "10.0.0.5"];
        assert_eq!(choose(&three, "10.0.0.5"), address("10.0.0.5"));
        assert_eq!(choose(&three, "fd00::5"), address("fd00::5"));
        assert_eq!(choose(&three, "10.0.0.7"), address("10.0.0.6"), "it has moved");
        assert_eq!(choose(&three, "none yet"), address("10.0.0.6"), "IPv4 first, else as the resolver orders them");
        assert_eq!(choose(&["fd00::6", "fd00::5"], "none yet"), address("fd00::6"));
        assert_eq!(choose(&[], "10.0.0.5"), None, "a name that cannot be resolved changes nothing");
    }

    #[test]
    fn others_are_asked_only_while_the_present_one_is_doubted_and_once_in_an_interval() {
        let (mut addresses, found) = named(&["10.0.0.5", "10.0.0.6", "fd00::5"]);
        for trust in [Trust::Unknown, Trust::Trusted] {
            assert!(asks(&mut addresses, at(1), found[0], trust).is_empty());
        }
        assert_eq!(asks(&mut addresses, at(2), found[0], SUSPECT), found[1..]);
        assert_eq!(addresses.poll_ask(Some(found[0]), DEAD), Some(at(17)));
        assert!(asks(&mut addresses, at(16), found[0], DEAD).is_empty());
        assert_eq!(asks(&mut addresses, at(17), found[0], DEAD), found[1..]);
        addresses.handle_present(at(18), Trust::Trusted, true);
        assert_eq!(asks(&mut addresses, at(19), found[0], SUSPECT), found[1..], "the next doubt is another one");
        let (mut alone, found) = named(&["10.0.0.5"]);
        assert!(asks(&mut alone, at(2), found[0], DEAD).is_empty());
        let many: Vec<String> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
        let (mut cluster, found) = named(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(asks(&mut cluster, at(2), found[0], DEAD).len(), MOST - 1);
    }

    #[test]
    fn a_dead_address_is_left_for_one_that_has_answered_for_a_while() {
        let (mut addresses, found) = named(&["10.0.0.5", "10.0.0.6", "fd00::5"]);
        addresses.handle_other(at(1), Some(found[0]), found[1], false);
        addresses.handle_other(at(2), Some(found[0]), found[2], true);
        assert_eq!(addresses.handle_present(at(11), DEAD, false), None, "it may come back a little later");
        addresses.handle_other(at(12), Some(found[0]), found[2], true);
        assert_eq!(addresses.handle_present(at(12), SUSPECT, false), None, "slow is not dead");
        assert_eq!(addresses.handle_present(at(13), DEAD, false), Some(found[2]));
        assert_eq!(addresses.handle_present(at(40), DEAD, false), None, "the new one has its own time");
        assert_eq!(asks(&mut addresses, at(41), found[2], DEAD), found[..2], "the first one may be back");
    }

    #[test]
    fn an_answer_in_between_by_the_present_one_and_a_failure_of_the_other_begin_anew() {
        let (mut addresses, found) = named(&["10.0.0.5", "10.0.0.6"]);
        addresses.handle_other(at(1), Some(found[0]), found[1], true);
        assert_eq!(addresses.handle_present(at(8), DEAD, true), None);
        addresses.handle_other(at(9), Some(found[0]), found[1], true);
        assert_eq!(addresses.handle_present(at(12), DEAD, false), None);
        addresses.handle_other(at(18), Some(found[0]), found[1], false);
        addresses.handle_other(at(20), Some(found[0]), found[1], true);
        assert_eq!(addresses.handle_present(at(20), DEAD, false), None);
        addresses.forget();
        assert_eq!(addresses.handle_present(at(1_000), DEAD, false), None, "before a sleep");
    }

    #[test]
    fn a_name_that_leads_elsewhere_leads_to_what_answers() {
        let (mut addresses, found) = named(&["10.0.0.5", "10.0.0.6", "10.0.0.7"]);
        addresses.handle_other(at(1), Some(found[0]), found[2], true);
        assert_eq!(addresses.resolved(&found[1..], Some(found[0])), Some(found[2]));
        assert_eq!(addresses.resolved(&found[1..2], Some(found[0])), Some(found[1]), "no longer one of them");
        assert_eq!(addresses.handle_present(at(20), DEAD, false), None);
        for late in [found[1], found[2]] {
            addresses.handle_other(at(21), Some(found[1]), late, true);
            assert_eq!(
                addresses.handle_present(at(40), DEAD, false),
                None,
                "{late} was asked when it still was another one"
            );
        }
    }
}
