//! The end of the host: no mount of a dead server may be left for its last sync() and umount(), which would wait for the server
//! (`systemctl poweroff` then takes minutes, or never ends: case 80).
//!
//! The shares are told as soon as systemd plans to stop anything, however the host was told to go down: `systemctl`, Ctrl-Alt-Del, a
//! button. What is done about each is decided by `share`. At SIGTERM this stays until it is done.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::board::Board;
use super::executor::barred;
use super::share_actor::ShareView;
use super::tell_systemd;
use crate::config::settings::OnAccess;
use crate::config::units::mount_unit;
use crate::plan::layers;
use crate::share::consumers::Held;
use crate::share::{Event, State};
use crate::sys::barrier_socket::Barred;
use crate::sys::systemd::Systemd;
use crate::sys::worker::{self, Request};
use crate::sys::{clock, mountinfo, unit_watch};

/// The unit of the daemon, which systemd is stopping.
const OWN_UNIT: &str = "nasmount.service";

/// How long systemd may take to answer; it is busy at that time.
const ASK_WITHIN: Duration = Duration::from_secs(8);

/// As long as systemd waits for a unit by default; what has not ended then will not.
const WITHIN: Duration = Duration::from_secs(90);

/// Pause between two looks; each asks systemd about those shares only that are still mounted.
const POLL: Duration = Duration::from_millis(200);

/// Pause between two attempts to have systemd unmount what somebody used when it tried.
const UNMOUNT_AGAIN: Duration = Duration::from_secs(2);

/// What is paused needs so long at most until it goes on, so that it can end.
const CONTINUED_WITHIN: Duration = Duration::from_secs(10);

/// A call that has not returned for so long will not before the server does.
const STUCK_WITHIN: Duration = Duration::from_secs(15);

/// Asked of systemd with each look, over `TimeoutStopSec=`.
const STILL_THERE: Duration = Duration::from_secs(10);

/// Tells all shares when the host goes down; what is published is whether it does.
pub fn watch(board: Arc<Board>) -> watch::Receiver<bool> {
    const RETRY: Duration = Duration::from_secs(1);
    let (publish, published) = watch::channel(false);
    tokio::spawn(async move {
        let mut warned = false;
        while let Err(error) = unit_watch::until_shutdown().await {
            if !std::mem::replace(&mut warned, true) {
                warn!(%error, "cannot hear when the host goes down; asked when told to end");
            }
            tokio::time::sleep(RETRY).await;
        }
        begin(&board).await;
        publish.send_replace(true);
        publish.closed().await;
    });
    published
}

/// Does the host go down? If systemd does not say so, it does not.
pub async fn has_begun() -> bool {
    ask_for_more_time();
    answered(async { Systemd::connect().await?.is_going_down().await }).await.unwrap_or(false)
}

/// What systemd answers, if it does.
async fn answered<T>(asked: impl Future<Output = zbus::Result<T>>) -> Option<T> {
    match tokio::time::timeout(ASK_WITHIN, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            warn!(%error, "cannot ask systemd how the host goes down");
            None
        }
        Err(_) => {
            warn!("systemd does not answer how the host goes down");
            None
        }
    }
}

fn ask_for_more_time() {
    let micros = u32::try_from(STILL_THERE.as_micros()).unwrap_or(u32::MAX);
    tell_systemd(&[NotifyState::Watchdog, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// A share that has heard of it does not mind to hear it again.
async fn begin(board: &Board) {
    info!("the host goes down");
    let handles: Vec<_> = board.actors().shares.values().cloned().collect();
    for handle in handles {
        let _ = handle.events.send(Event::ShutdownBegan).await; // a share that has ended needs nothing
        let barred = barred(&handle.view.borrow().settings);
        if barred.on_access != OnAccess::Fail {
            tokio::spawn(let_nobody_wait(Barred { on_access: OnAccess::Fail, ..barred }));
        }
    }
}

/// What accesses wait for will not come any more, and who waits cannot be stopped.
async fn let_nobody_wait(barred: Barred) {
    if let Err(error) = worker::ask(&Request::SetAccess(barred), layers::LOCAL_STEP).await {
        warn!(%error, "who waits for a share goes on waiting");
    }
}

/// Tells all shares, and returns when nothing is left to be done for any.
pub async fn serve(board: &Board) {
    begin(board).await;
    let began = Instant::now();
    let done = async {
        let mut looks = tokio::time::interval(POLL);
        let (mut systemd, mut unmount_at, mut tried_alone) = (None, began + UNMOUNT_AGAIN, false);
        loop {
            looks.tick().await;
            ask_for_more_time();
            let views: Vec<ShareView> =
                board.actors().shares.values().map(|handle| handle.view.borrow().clone()).collect();
            let paused = board.consumers.view.borrow().held.values().copied().any(Held::is_paused);
            let mut left = usize::from(paused && began.elapsed() < CONTINUED_WITHIN);
            left += views.iter().filter(|view| !is_settled(view)).count();
            let open: Vec<String> = views.iter().filter(|view| view.share.state().is_open()).map(unit_of).collect();
            if left + open.len() == 0 {
                return;
            }
            if Instant::now() >= unmount_at {
                unmount_at = Instant::now() + UNMOUNT_AGAIN;
                let attached = views.iter().filter(|view| view.share.state().is_open() && is_attached(view));
                let in_use = unmount(&mut systemd, &attached.map(unit_of).collect::<Vec<_>>()).await;
                let alone = in_use == Some(InUse::ByOthersForGood);
                if left == 0 && alone && tried_alone {
                    return;
                }
                tried_alone = alone;
            }
        }
    };
    match tokio::time::timeout(WITHIN, done).await {
        Ok(()) => info!("ending; no share needs anything more"),
        Err(_) => warn!(after = ?WITHIN, "ending, although shares are still in use or being given up"),
    }
}

/// Whether nasmount itself has nothing left to do for it: a share on its path is unmounted by systemd, after those who use it have
/// been stopped.
fn is_settled(view: &ShareView) -> bool {
    match view.share.state() {
        State::Offline | State::Blocked | State::Maintenance => view.operation.is_none(),
        State::Stuck => clock::now().since(view.share.since()) > STUCK_WITHIN,
        State::Holding | State::Recovering | State::Mounting | State::Releasing => false,
        State::Online | State::Suspect => true,
    }
}

fn is_attached(view: &ShareView) -> bool {
    let entries = mountinfo::read().unwrap_or_default();
    mountinfo::on(&entries, &view.settings.mount_point).last().is_some_and(|top| top.fstype != "autofs")
}

fn unit_of(view: &ShareView) -> String {
    mount_unit(&view.settings.mount_point.to_string_lossy())
}

/// Who keeps shares from being unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InUse {
    /// Somebody who is being stopped.
    ByThoseWhoEnd,
    /// Nobody is being stopped any more: who still uses them is killed at the very end, as with a line of fstab.
    ByOthersForGood,
}

/// systemd tries to unmount once; if somebody whom it stops at the same time still had a file open, that has failed. Nothing is known if
/// systemd does not answer.
async fn unmount(systemd: &mut Option<Systemd>, units: &[String]) -> Option<InUse> {
    answered(async {
        let known = match systemd.take() {
            Some(known) => known,
            None => Systemd::connect().await?,
        };
        let mut busy = false;
        for unit in units {
            if known.has_job(unit).await? {
                busy = true;
            } else {
                known.stop(unit).await?;
            }
        }
        let but: Vec<&str> = units.iter().map(String::as_str).chain([OWN_UNIT]).collect();
        busy |= known.is_stopping_others(&but).await?;
        *systemd = Some(known);
        Ok(if busy { InUse::ByThoseWhoEnd } else { InUse::ByOthersForGood })
    })
    .await
}
