//! Workers that hang and were left to themselves: what hangs is not tried again and again, processes that cannot be ended do not become
//! more and more, and `nasmount status` says what hangs and since when.

use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Failed, Request, Stage};
use crate::share::BootInstant;
use crate::status::HangingWorker;
use crate::sys::clock;

/// How many may be left of one kind of request: one hangs on one share or server, two say that it is the host.
const MAX: usize = 2;

/// A process that can be ended is gone within this time after SIGKILL, also on a loaded host; until then it does not count as one that
/// hangs.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Those of this process.
pub(super) static HANGING: Abandoned = Abandoned::none();

/// The workers of this process that hang in the kernel, those that have hung for longest first.
pub fn hanging(now: BootInstant) -> Vec<HangingWorker> {
    HANGING.hanging(now)
}

/// All that were left.
#[derive(Debug)]
pub(super) struct Abandoned(Mutex<All>);

#[derive(Debug)]
struct All {
    /// The oldest first.
    left: Vec<Entry>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    kind: Discriminant<Request>,
    what: &'static str,
    of: Option<String>,
    since: BootInstant,
}

/// One that was left; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Left<'a> {
    all: &'a Abandoned,
    number: u64,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.all.lock().left.retain(|entry| entry.number != self.number);
    }
}

impl Abandoned {
    pub(super) const fn none() -> Self {
        Self(Mutex::new(All { left: Vec::new(), last: 0 }))
    }

    /// An error if no more may be left.
    pub(super) fn admit(&self, request: &Request) -> Result<(), Failed> {
        let kind = discriminant(request);
        let left = self.lock().left.iter().filter(|left| left.kind == kind).count();
        if left < MAX {
            return Ok(());
        }
        let cause = format!("{left} that were asked for the same hang still");
        Err(Failed { attempt: "no worker is started".into(), cause, errno: None, stage: Stage::Other })
    }

    /// One is left to itself now.
    pub(super) fn add(&self, request: &Request) -> Left<'_> {
        let (what, of) = described(request);
        let mut all = self.lock();
        all.last += 1;
        let (number, of) = (all.last, of.map(str::to_owned));
        all.left.push(Entry { number, kind: discriminant(request), what, of, since: clock::now() });
        Left { all: self, number }
    }

    fn hanging(&self, now: BootInstant) -> Vec<HangingWorker> {
        let all = self.lock();
        let hang = all.left.iter().filter(|entry| now.since(entry.since) >= GONE_WITHIN);
        hang.map(|entry| HangingWorker {
            what: entry.what.to_owned(),
            of: entry.of.clone(),
            since: clock::wall_clock(entry.since),
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was asked, and of which share or server; nothing else of a request is for everybody's eyes.
fn described(request: &Request) -> (&'static str, Option<&str>) {
    match request {
        Request::Prepare => ("prepare the host", None),
        Request::LookAtKernel => ("look at the kernel", None),
        Request::Survey { share, .. } => ("survey", Some(share)),
        Request::LayBarrier(barred) => ("lay barrier", Some(&barred.share)),
        Request::SetAccess(barred) => ("set access", Some(&barred.share)),
        Request::ForgetBarrier(barred) => ("forget barrier", Some(&barred.share)),
        Request::Mount(mount) => ("mount", Some(&mount.share)),
        Request::TryLogin(mount) => ("try login", Some(&mount.share)),
        Request::TryShare(trial) => ("try share", Some(&trial.mount.share)),
        Request::AddPassword { share, .. } => ("add password", Some(share)),
        Request::Verify { share, .. } => ("verify", Some(share)),
        Request::Flush { share } => ("flush", Some(share)),
        Request::AskForLoss { share } => ("ask for loss", Some(share)),
        Request::Attach(barred) => ("attach", Some(&barred.share)),
        Request::Detach { share, .. } => ("detach", Some(share)),
        Request::ShutDown { share } => ("shut down", Some(share)),
        Request::Release { share, .. } => ("release", Some(share)),
        Request::DropClone { share } => ("drop clone", Some(share)),
        Request::ListHolders { share } => ("list holders", Some(share)),
        Request::ListCopies { share, .. } => ("list copies", Some(share)),
        Request::ListBeside { mount_point } => ("list beside", mount_point.to_str()),
        Request::Rescue(rescue) => ("rescue", rescue.mount_point.to_str()),
        Request::Retire { share, .. } => ("retire", Some(share)),
        Request::UnmountOther { mount_point } => ("unmount", mount_point.to_str()),
        Request::DestroySockets { .. } => ("destroy sockets", None),
        Request::LookAtRoute { .. } => ("look at the route", None),
        Request::ListInterfaces => ("list interfaces", None),
        Request::Resolve { host } => ("resolve", Some(host)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::cell::Cell;
    use std::io;

    use super::*;
    use crate::sys::worker::ask_unless_others_hang;

    fn holders() -> Request {
        Request::ListHolders { share: "media".into() }
    }

    /// Workers are "started" by a future that says so, and fails: none is needed.
    #[tokio::test]
    async fn what_hangs_is_not_asked_a_third_time_until_one_has_ended() {
        static HANGING: Abandoned = Abandoned::none();
        let route = Request::LookAtRoute { server: ([10, 0, 0, 1], 445).into() };
        let started = Cell::new(0);
        let ask = async |request: &Request| {
            let start = async {
                started.set(started.get() + 1);
                Err(io::Error::other("started"))
            };
            let reply = ask_unless_others_hang(&HANGING, request, start, Duration::from_secs(1)).await;
            reply.map_err(|error| error.to_string())
        };
        let _first = HANGING.add(&holders());
        assert!(ask(&holders()).await.is_err_and(|error| error.ends_with("started")), "one hangs");
        let second = HANGING.add(&holders());
        let refused = ask(&holders()).await.err();
        assert_eq!(refused.as_deref(), Some("no worker is started: 2 that were asked for the same hang still"));
        assert_eq!(started.get(), 1);
        assert!(ask(&route).await.is_err_and(|error| error.ends_with("started")), "another kind");
        drop(second);
        assert!(ask(&holders()).await.is_err_and(|error| error.ends_with("started")), "one has ended");
    }

    #[test]
    fn it_is_said_what_hangs_and_since_when_until_it_has_ended() {
        let all = Abandoned::none();
        let verify = Request::Verify { share: "films".into(), marker: None };
        let before = clock::now();
        let (first, second) = (all.add(&verify), all.add(&holders()));
        assert!(all.hanging(before).is_empty(), "it may be about to end");
        let later = clock::now() + GONE_WITHIN;
        let said = |now| all.hanging(now).into_iter().map(|one| (one.what, one.of.unwrap())).collect::<Vec<_>>();
        let pair = |what: &str, of: &str| (what.to_owned(), of.to_owned());
        assert_eq!(said(later), [pair("verify", "films"), pair("list holders", "media")]);
        let since = all.hanging(later)[0].since;
        // two clocks are read one after the other, each time anew
        assert!((since - clock::wall_clock(before)).abs() < GONE_WITHIN.as_secs_f64(), "{since}");
        drop(first);
        assert_eq!(said(later), [pair("list holders", "media")]);
        drop(second);
        assert!(said(later).is_empty());
    }

    /// A worker that can be ended is ended, and nobody hears of it.
    #[tokio::test]
    async fn who_ends_when_he_is_told_to_does_not_hang() {
        let sleeps = || {
            let mut command = tokio::process::Command::new("sleep");
            command.arg("1000").stdout(std::process::Stdio::piped()).spawn()
        };
        let verify = Request::Verify { share: "ended".into(), marker: None };
        let reply = super::super::reply(&verify, sleeps().unwrap(), std::future::ready(())).await;
        assert_eq!(reply.unwrap_err().attempt, "the worker was ended");
        let late = clock::now() + 2 * GONE_WITHIN;
        assert!(hanging(late).iter().all(|one| one.of.as_deref() != Some("ended")));
    }
}
