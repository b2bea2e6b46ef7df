//! Who has to be restarted to have a share that is back: what is mounted anew never reaches some of its copies.
//!
//! - Each is restarted once for each time that a share comes back, and once only if several do at the same time.
//! - Whoever has a copy of another share, too, that does not follow the host, is restarted only while that is online: a container that
//!   is given the mount point itself does not start without it.
//! - A consumer that nasmount holds is left to its policy until it is let go. If it was stopped it has no such copy then; if it was
//!   paused it may.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::consumer::{Consumer, ENGINES};
use crate::config::units::parse_unit;
use crate::status::{CopyContent, NamespaceCopy};

/// What the scopes of each engine's containers are called, before the container's id; in the order of [`ENGINES`].
const SCOPES: [&str; 2] = ["docker-", "libpod-"];

/// Whoever can be restarted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A container.
    Container {
        /// Whose it is: one of [`ENGINES`].
        engine: &'static str,
        /// As its engine calls it for good.
        id: String,
    },
    /// A service of the system's.
    Service(String),
}

impl Owner {
    /// Of a copy. `None`: a mount of this host itself, a session or the services of a user, what the host cannot do without for a
    /// moment, nasmount included, and what is in no unit or in a scope of nobody's who could start it again.
    fn of(copy: &NamespaceCopy) -> Option<Self> {
        let unit = copy.system_unit.as_deref()?;
        if let Some(scope) = unit.strip_suffix(".scope") {
            let container = |(engine, prefix): (&'static str, &str)| {
                let id = scope.strip_prefix(prefix)?;
                let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_id.then(|| Self::Container { engine, id: id.to_owned() })
            };
            return ENGINES.into_iter().zip(SCOPES).find_map(container);
        }
        (unit.ends_with(".service") && parse_unit(unit).is_ok()).then(|| Self::Service(unit.to_owned()))
    }
}

/// Why a restart, and nothing else, gives the share to whoever has the copy; `None` if it is not so.
pub fn outdated(copy: &NamespaceCopy) -> Option<&'static str> {
    match (copy.content, copy.follows) {
        (CopyContent::Stale, _) => Some("a mount of the share that was given up"),
        (CopyContent::Missing, _) => Some("the bare directory under the share"),
        (CopyContent::Barrier, false) => Some("the barrier for ever"),
        (CopyContent::Barrier, true) | (CopyContent::Current, _) => None,
    }
}

/// Who is to be restarted because of a copy.
pub fn to_restart(copy: &NamespaceCopy) -> Option<Owner> {
    outdated(copy).and_then(|_| Owner::of(copy))
}

/// Copies by share.
pub type Copies = BTreeMap<String, Vec<NamespaceCopy>>;

/// What somebody has of the shares.
#[derive(Debug, PartialEq, Eq)]
pub struct Outdated<'copies> {
    /// The first of the outdated copies of each share.
    pub copies: BTreeMap<&'copies str, &'copies NamespaceCopy>,
    /// A share that is not online, of which it has a copy as well that does not follow the host.
    pub lacks: Option<&'copies str>,
}

/// Whoever has outdated copies of shares that are `back`, and what it has of those that are `away`.
pub fn owners<'copies>(back: &'copies Copies, away: &'copies Copies) -> BTreeMap<Owner, Outdated<'copies>> {
    let mut found = BTreeMap::new();
    for (share, copy) in back.iter().flat_map(|(share, copies)| copies.iter().map(move |copy| (share, copy))) {
        if let Some(owner) = to_restart(copy) {
            let outdated = found.entry(owner).or_insert(Outdated { copies: BTreeMap::new(), lacks: None });
            outdated.copies.entry(share.as_str()).or_insert(copy);
        }
    }
    for (share, copy) in away.iter().flat_map(|(share, copies)| copies.iter().map(move |copy| (share, copy))) {
        let owner = Owner::of(copy).filter(|_| !copy.follows);
        if let Some(outdated) = owner.and_then(|owner| found.get_mut(&owner)) {
            outdated.lacks = Some(share);
        }
    }
    found
}

/// What a restart waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// That a share is online.
    Share(String),
    /// That a consumer is let go.
    Consumer(String),
}

/// What the restart of somebody who may be one of these consumers has to wait for first; `lasts` says whether something is as it was.
pub fn blocked_by(outdated: &Outdated<'_>, consumers: &[String], lasts: impl Fn(&Wait) -> bool) -> Option<Wait> {
    let shares = outdated.copies.keys().map(|share| Wait::Share((*share).to_owned()));
    let mut waits = shares.chain(consumers.iter().cloned().map(Wait::Consumer));
    // whether what it lacks has come back meanwhile is for the next round: that will be a return of its own
    outdated.lacks.map(|share| Wait::Share(share.to_owned())).or_else(|| waits.find(lasts))
}

/// The restarts that are still to be done.
#[derive(Debug, Default)]
pub struct Restarts {
    /// Shares that are back, and who needs nothing more for that.
    due: BTreeMap<String, BTreeSet<Owner>>,
    waits: BTreeSet<Wait>,
}

impl Restarts {
    /// A share has come back.
    pub fn returned(&mut self, share: String) {
        self.due.insert(share, BTreeSet::new());
        self.waits.clear();
    }

    /// Nobody is restarted any more for other shares than these.
    pub fn retain(&mut self, is_due: impl Fn(&str) -> bool) {
        self.due.retain(|share, _| is_due(share));
    }

    /// Shares for which somebody may have to be restarted.
    pub fn due(&self) -> impl Iterator<Item = &String> {
        self.due.keys()
    }

    /// Is there more to do than the last round has left to wait, given what of that lasts?
    pub fn may_go_on(&self, lasts: impl Fn(&Wait) -> bool) -> bool {
        !self.due.is_empty() && (self.waits.is_empty() || !self.waits.iter().all(lasts))
    }

    /// Begins a round: what was waited for before is found anew, or not.
    pub fn begin_round(&mut self) -> BTreeSet<Wait> {
        std::mem::take(&mut self.waits)
    }

    /// Ends it: if nobody waits, all is done.
    pub fn end_round(&mut self) {
        if self.waits.is_empty() {
            self.due.clear();
        }
    }

    /// Has this one had its restart for all of these shares?
    pub fn is_settled(&self, owner: &Owner, outdated: &Outdated<'_>) -> bool {
        let done = |share: &&str| self.due.get(*share).is_none_or(|settled| settled.contains(owner));
        outdated.copies.keys().all(done)
    }

    /// It has now, or cannot have it.
    pub fn settle(&mut self, owner: &Owner) {
        self.due.values_mut().for_each(|settled| settled.extend([owner.clone()]));
    }

    /// It has to wait.
    pub fn wait(&mut self, wait: Wait) {
        self.waits.insert(wait);
    }
}

/// Names under which a container may be a consumer.
pub fn consumers(engine: &str, name: &str) -> [String; 2] {
    [Some(engine), None].map(|engine| Consumer::Container { engine, name }.name())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn copy(pid: i32, system_unit: Option<&str>, content: CopyContent) -> NamespaceCopy {
        let system_unit = system_unit.map(str::to_owned);
        NamespaceCopy { pid, command: "x".into(), unit: None, system_unit, path: "/x".into(), content, follows: false }
    }

    #[test]
    fn who_can_be_restarted_is_a_container_or_a_service() {
        let of = |content, follows| to_restart(&NamespaceCopy { follows, ..copy(7, Some("a.service"), content) });
        assert!(of(CopyContent::Barrier, false).is_some(), "it will never see the share");
        assert_eq!(of(CopyContent::Barrier, true), None);
        let owner = |unit| Owner::of(&copy(7, unit, CopyContent::Stale));
        let container = |engine| Some(Owner::Container { engine, id: "4cf2b1".into() });
        assert_eq!(owner(Some("docker-4cf2b1.scope")), container("docker"));
        assert_eq!(owner(Some("libpod-4cf2b1.scope")), container("podman"));
        assert_eq!(owner(Some("player@1.service")), Some(Owner::Service("player@1.service".into())));
        for unit in [
            "init.scope",
            "session-2.scope",
            "user@1000.service",
            "nasmount.service",
            "nasmount-barrier.service",
            "dbus.service",
            "libpod-conmon-4cf2b1.scope",
            "docker-.scope",
            "machine-x.scope",
        ] {
            assert_eq!(owner(Some(unit)), None, "{unit}");
        }
        assert_eq!(owner(None), None, "a mount of this host, or who is in no unit");
    }

    #[test]
    fn whoever_has_an_outdated_copy_is_found_once_with_what_it_lacks() {
        let of = |share: &str, copies: &[NamespaceCopy]| (share.to_owned(), copies.to_vec());
        let back: Copies = [
            of("books", &[copy(9, Some("c.service"), CopyContent::Stale)]),
            of(
                "films",
                &[
                    copy(7, Some("a.service"), CopyContent::Current),
                    NamespaceCopy { follows: true, ..copy(8, Some("b.service"), CopyContent::Barrier) },
                    copy(9, Some("c.service"), CopyContent::Missing),
                    copy(10, Some("c.service"), CopyContent::Stale),
                    copy(11, Some("docker-1a.scope"), CopyContent::Stale),
                    copy(12, Some("session-1.scope"), CopyContent::Stale),
                ],
            ),
        ]
        .into();
        let follows = NamespaceCopy { follows: true, ..copy(9, Some("c.service"), CopyContent::Barrier) };
        let music = [follows, copy(11, Some("docker-1a.scope"), CopyContent::Current)];
        let away: Copies = [of("music", &music)].into();
        let found = owners(&back, &away);
        let found: Vec<_> = found
            .values()
            .map(|found| {
                let copies: Vec<_> = found.copies.iter().map(|(share, copy)| (*share, copy.pid)).collect();
                (copies, found.lacks)
            })
            .collect();
        assert_eq!(found, [(vec![("films", 11)], Some("music")), (vec![("books", 9), ("films", 9)], None)]);
    }

    #[test]
    fn who_is_held_or_lacks_a_share_waits() {
        let names = consumers("podman", "tdarr");
        let films = copy(7, None, CopyContent::Stale);
        let outdated = |lacks| Outdated { copies: [("films", &films)].into(), lacks };
        let by = |lacks, lasting: &Wait| blocked_by(&outdated(lacks), &names, |wait| wait == lasting);
        let [consumer, share] = [Wait::Consumer("container:tdarr".to_owned()), Wait::Share("films".to_owned())];
        assert_eq!(by(None, &Wait::Consumer("player.service".to_owned())), None);
        assert_eq!(by(None, &consumer), Some(consumer.clone()));
        assert_eq!(by(None, &share), Some(share), "it has gone away again");
        assert_eq!(by(Some("music"), &consumer), Some(Wait::Share("music".to_owned())));
    }

    #[test]
    fn each_return_is_one_restart() {
        let (copies, away) = ([copy(9, Some("c.service"), CopyContent::Stale)], Copies::new());
        let back: Copies = ["books", "films"].map(|share| (share.to_owned(), copies.to_vec())).into();
        let found = owners(&back, &away);
        let (owner, outdated) = found.first_key_value().unwrap();
        let mut restarts = Restarts::default();
        assert!(!restarts.may_go_on(|_| false) && restarts.is_settled(owner, outdated), "nothing is due");
        restarts.returned("films".to_owned());
        restarts.returned("books".to_owned());
        assert!(restarts.may_go_on(|_| true));
        restarts.begin_round();
        restarts.wait(Wait::Consumer("c.service".to_owned()));
        restarts.end_round();
        assert!(!restarts.may_go_on(|_| true) && restarts.may_go_on(|_| false), "it is held, and let go");
        restarts.settle(owner);
        assert!(restarts.is_settled(owner, outdated), "for both");
        restarts.returned("films".to_owned());
        assert!(!restarts.is_settled(owner, outdated), "once more");
        restarts.settle(owner);
        restarts.begin_round();
        restarts.end_round();
        assert_eq!(restarts.due().count(), 0);
    }

    #[test]
    fn a_container_is_known_as_a_consumer_with_its_engine_or_without() {
        assert_eq!(consumers("podman", "tdarr"), ["podman:tdarr", "container:tdarr"]);
    }
}
