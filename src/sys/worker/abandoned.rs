//! Workers that hang and were left to themselves: what hangs is not tried again and again, and processes that cannot be ended
//! do not become more and more.

use std::mem::Discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Failed, Request, Stage};

/// How many may be left of one kind of request: one hangs on one share or server, two say that it is the host.
const MAX: usize = 2;

/// What each of them was asked for.
#[derive(Debug)]
pub(super) struct Abandoned(Mutex<Vec<Discriminant<Request>>>);

impl Abandoned {
    pub(super) const fn none() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// An error if no more may be left.
    pub(super) fn admit(&self, kind: Discriminant<Request>) -> Result<(), Failed> {
        let left = self.lock().iter().filter(|left| **left == kind).count();
        if left < MAX {
            return Ok(());
        }
        let cause = format!("{left} that were asked for the same hang still");
        Err(Failed { attempt: "no worker is started".into(), cause, errno: None, stage: Stage::Other })
    }

    pub(super) fn add(&self, kind: Discriminant<Request>) {
        self.lock().push(kind);
    }

    pub(super) fn remove(&self, kind: Discriminant<Request>) {
        let mut all = self.lock();
        if let Some(at) = all.iter().position(|left| *left == kind) {
            all.swap_remove(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Discriminant<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;
    use std::mem::discriminant;
    use std::time::Duration;

    use super::*;
    use crate::sys::worker::ask_unless_others_hang;

    /// Workers are "started" by a future that says so, and fails: none is needed.
    #[tokio::test]
    async fn what_hangs_is_not_asked_a_third_time_until_one_has_ended() {
        static HANGING: Abandoned = Abandoned::none();
        let holders = discriminant(&Request::ListHolders { share: "media".into() });
        let route = discriminant(&Request::LookAtRoute { server: [10, 0, 0, 1].into() });
        let started = Cell::new(0);
        let ask = async |kind| {
            let start = async {
                started.set(started.get() + 1);
                Err(io::Error::other("started"))
            };
            let reply = ask_unless_others_hang(&HANGING, kind, start, Duration::from_secs(1)).await;
            reply.map_err(|error| error.to_string())
        };
        HANGING.add(holders);
        assert!(ask(holders).await.is_err_and(|error| error.ends_with("started")), "one hangs");
        HANGING.add(holders);
        let refused = ask(holders).await.err();
        assert_eq!(refused.as_deref(), Some("no worker is started: 2 that were asked for the same hang still"));
        assert_eq!(started.get(), 1);
        assert!(ask(route).await.is_err_and(|error| error.ends_with("started")), "another kind");
        HANGING.remove(holders);
        assert!(ask(holders).await.is_err_and(|error| error.ends_with("started")), "one has ended");
    }
}
