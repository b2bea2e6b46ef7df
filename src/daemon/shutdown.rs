//! The end of the host: no mount of a dead server may be left for its last sync() and umount(), which would wait for the server
//! (`systemctl poweroff` then takes minutes, or never ends: case 70).
//!
//! Nothing is ordered after `nasmount.service`, so SIGTERM comes while the consumers are being stopped, however the host was told to
//! go down: `systemctl`, Ctrl-Alt-Del, a button. What is done about each share is decided by `share`; this tells it, and stays
//! until it is done.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{info, warn};

use super::board::Board;
use super::share_actor::ShareView;
use super::tell_systemd;
use crate::config::units::mount_unit;
use crate::share::{Event, State};
use crate::sys::mountinfo;
use crate::sys::systemd::Systemd;

/// How long systemd may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// As long as systemd waits for a unit by default; what has not ended then will not.
const WITHIN: Duration = Duration::from_secs(90);

/// Pause between two looks; each asks systemd about those shares only that are still mounted.
const POLL: Duration = Duration::from_millis(200);

/// Asked of systemd with each look, over `TimeoutStopSec=`.
const STILL_THERE: Duration = Duration::from_secs(10);

/// Does the host go down? If systemd does not say so, it does not.
pub async fn has_begun() -> bool {
    let asked = async { Systemd::connect().await?.is_going_down().await };
    match tokio::time::timeout(ASK_WITHIN, asked).await {
        Ok(Ok(going_down)) => going_down,
        Ok(Err(error)) => {
            warn!(%error, "cannot ask systemd whether the host goes down");
            false
        }
        Err(_) => {
            warn!("systemd does not say whether the host goes down");
            false
        }
    }
}

/// Tells all shares, and returns when nothing is left to be done for any.
pub async fn serve(board: &Board) {
    info!("the host goes down");
    let handles: Vec<_> = board.actors().shares.values().cloned().collect();
    for handle in &handles {
        let _ = handle.events.send(Event::ShutdownBegan).await; // a share that has ended needs nothing
    }
    let done = async {
        let mut looks = tokio::time::interval(POLL);
        loop {
            looks.tick().await;
            let extended = u32::try_from(STILL_THERE.as_micros()).unwrap_or(u32::MAX);
            tell_systemd(&[NotifyState::Watchdog, NotifyState::ExtendTimeoutUsec(extended)]);
            let views: Vec<ShareView> = handles.iter().map(|handle| handle.view.borrow().clone()).collect();
            let mut left = 0;
            for view in &views {
                left += usize::from(!is_done(view).await);
            }
            if left == 0 {
                return;
            }
        }
    };
    match tokio::time::timeout(WITHIN, done).await {
        Ok(()) => info!("ending; no share needs anything more"),
        Err(_) => warn!(after = ?WITHIN, "ending, although shares are still being given up"),
    }
}

/// A share on its path is unmounted by systemd, after those who use it have been stopped. When that has failed because somebody
/// else still uses it, it is left as a line of fstab would be: its server answers.
async fn is_done(view: &ShareView) -> bool {
    match view.share.state() {
        State::Offline | State::Blocked | State::Maintenance => view.operation.is_none(),
        State::Stuck => true,
        State::Holding | State::Recovering | State::Mounting | State::Releasing => false,
        State::Online | State::Suspect => {
            let mount_point = &view.settings.mount_point;
            let entries = mountinfo::read().unwrap_or_default();
            let attached = mountinfo::on(&entries, mount_point).last().is_some_and(|top| top.fstype != "autofs");
            attached && !is_being_unmounted(&mount_point.to_string_lossy()).await
        }
    }
}

async fn is_being_unmounted(mount_point: &str) -> bool {
    let unit = mount_unit(mount_point);
    let asked = async { Systemd::connect().await?.has_job(&unit).await };
    matches!(tokio::time::timeout(ASK_WITHIN, asked).await, Ok(Ok(true)))
}
