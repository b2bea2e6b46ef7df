//! The daemon: one actor per server and per share around the pure machines, and what they share.
//!
//! Single-threaded: nothing here may block, and whatever could is done by a worker. When the daemon is told to end it ends at
//! once and leaves mounts, barriers, veil, fence and consumers as they are; the next one goes on from there. Only if the host goes
//! down there is no next one (`shutdown`).

pub mod barrier;
mod barrier_keeper;
pub mod board;
pub mod consumers;
mod containers;
mod copies;
mod dependents;
mod executor;
mod host_watch;
mod journal;
mod mount_watcher;
mod network;
mod orphans;
pub mod recorder;
pub mod reload;
pub mod resume_all;
mod server_actor;
mod share_actor;
mod shutdown;
mod sleep;
mod units;
mod users;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tracing::{info, warn};

use crate::config::settings::{ServerId, Settings};
use crate::dbus;
use crate::plan;
use crate::plan::options::{DirtyLimitSupport, KernelOptions};
use crate::sys::state_file::StateFiles;
use crate::sys::worker::{self, Answer, Request};
use crate::sys::{listen, paths};

use board::Board;
use executor::{Host, Kernel};
use network::Network;
use recorder::Recorders;
use reload::{How, Outcome, Reloader};
use sleep::Sleep;

/// Runs the daemon until SIGTERM or SIGINT. `file` is the configuration that a reload reads, if not the usual one.
pub fn run(settings: Settings, file: Option<PathBuf>) -> anyhow::Result<()> {
    let _alone = lock()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(serve(settings, file));
    runtime.shutdown_background(); // never waits for anything
    result
}

/// Makes sure that no other daemon runs on this host as long as the lock is kept.
pub fn lock() -> anyhow::Result<std::fs::File> {
    let path = Path::new(paths::RUNTIME_DIRECTORY).join("daemon.lock");
    match listen::lock(&path).with_context(|| format!("cannot lock {}", path.display()))? {
        Some(lock) => Ok(lock),
        None => bail!("a nasmount daemon runs on this host"),
    }
}

async fn serve(settings: Settings, file: Option<PathBuf>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let host = Arc::new(Host {
        network: Arc::new(Network::default()),
        files: StateFiles::of_host(),
        kernel: prepare().await?,
        mount_slot: AsyncMutex::new(()),
    });
    orphans::retire(&settings, &host.files).await;
    adopt_network(&settings, &host).await;
    let shares = settings.shares.len();
    let board = start(settings, file, &host);
    let goes_down = shutdown::watch(Arc::clone(&board));
    tokio::spawn(dbus::serve(Arc::clone(&board)));
    tokio::spawn(dbus::serve_on_socket(Arc::clone(&board)));
    tokio::spawn(reload_on(hangup, Arc::clone(&board)));
    tell_systemd(&[NotifyState::Ready]);
    info!(version = env!("CARGO_PKG_VERSION"), shares, "running");
    tokio::select! {
        () = keep_systemd_informed(&board) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell_systemd(&[NotifyState::Stopping]);
    if *goes_down.borrow() || shutdown::has_begun().await {
        shutdown::serve(&board).await;
    } else {
        info!("ending; mounts and consumers stay as they are");
    }
    Ok(())
}

/// Asks a worker what the kernel can do; without CIFS in it there is nothing to be done.
async fn prepare() -> anyhow::Result<Kernel> {
    /// Loading a module from a slow disk at boot.
    const WITHIN: Duration = Duration::from_secs(20);
    let answer = worker::ask(&Request::Prepare, WITHIN).await.context("cannot prepare the host")?;
    let Answer::Kernel { mount_params, dirty_limits } = answer else {
        bail!("a worker answered something else: {answer:?}")
    };
    Ok(Kernel {
        options: mount_params.as_deref().map_or_else(KernelOptions::unknown, KernelOptions::parse),
        dirty_limits: if dirty_limits { DirtyLimitSupport::Supported } else { DirtyLimitSupport::Unsupported },
    })
}

/// The veil of every server whose address is known, and the fences of an earlier daemon.
async fn adopt_network(settings: &Settings, host: &Host) {
    let address = |server: &ServerId| {
        settings.servers.get(server).and_then(|server| server_actor::remembered(server, &host.files).address)
    };
    let veiled: BTreeMap<String, IpAddr> =
        settings.servers.keys().filter_map(|server| Some((server.to_string(), address(server)?))).collect();
    let mut fenced = BTreeMap::new();
    for share in settings.shares.values() {
        match host.files.read_share(&share.id.to_string()) {
            Ok(memory) if memory.fenced => {
                fenced.extend(address(&share.server).map(|address| (share.id.to_string(), address)));
            }
            Ok(_) => {}
            Err(error) => warn!(share = %share.id, %error, "cannot read what is held"),
        }
    }
    host.network.adopt(veiled, fenced).await;
}

fn start(settings: Settings, file: Option<PathBuf>, host: &Arc<Host>) -> Arc<Board> {
    /// Reloads that may wait; more are a script gone wrong, and wait outside.
    const MAX_QUEUED_RELOADS: usize = 4;
    let sleep = sleep::watch();
    let units = plan::units::units(&settings);
    let consumers = consumers::spawn(units, host.files.clone(), Sleep::new(&sleep));
    let (reloads, asked) = mpsc::channel(MAX_QUEUED_RELOADS);
    let board = Arc::new(Board::new(consumers, Recorders::default(), reloads));
    let mut reloader = Reloader::new(Arc::clone(host), Arc::clone(&board), Arc::clone(&sleep), file);
    reloader.start(settings);
    tokio::spawn(reloader.serve(asked));
    tokio::spawn(mount_watcher::run(Arc::clone(&board)));
    tokio::spawn(sleep::heed_logind(sleep, Arc::clone(&board)));
    tokio::spawn(board.recorders.clone().keep());
    board
}

/// SIGHUP is a reload of which only the log says what came.
async fn reload_on(mut hangup: Signal, board: Arc<Board>) {
    while hangup.recv().await.is_some() {
        if let Ok(Outcome::Planned { steps, .. }) = board.reload(How::Apply).await
            && steps.is_empty()
        {
            info!("reload: nothing has changed");
        }
    }
}

/// Feeds the watchdog at half its time and says in one line how the shares are.
async fn keep_systemd_informed(board: &Board) {
    const WITHOUT_WATCHDOG: Duration = Duration::from_secs(5);
    let interval =
        sd_notify::watchdog_enabled().map_or(WITHOUT_WATCHDOG, |watchdog| watchdog / 2).min(WITHOUT_WATCHDOG);
    let mut last = String::new();
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        tell_systemd(&[NotifyState::Watchdog]);
        let summary = board.summary();
        if summary != last {
            tell_systemd(&[NotifyState::Status(&summary)]);
            last = summary;
        }
    }
}

fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot tell systemd");
    }
}
