//! Restarts whoever has a copy of a share that only a restart replaces (`plan::copies`), when the share is back, if it is configured so.
//! One loop for all shares: several often come back together, and one container may have copies of them all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, info, info_span, warn};

use super::board::Board;
use super::share_actor::ShareView;
use crate::config::settings::StaleCopies;
use crate::plan::copies::{Copies, Outdated, Owner, Restarts, Wait, blocked_by, consumers, outdated, owners};
use crate::share::State;
use crate::sys::engine::{self, Container, EngineError};
use crate::sys::systemd::{Start, Systemd};

/// Shares that may have come back at one time; one more waits.
const MAX_QUEUED: usize = 64;

/// Pause between two looks whether what a restart waits for is so: at what the daemon knows, which costs nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Twice the 90 s that systemd gives a unit to stop or to start; engines kill after 10 s.
const RESTART_WITHIN: Duration = Duration::from_secs(180);

/// Who is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Container(Container),
    Service(String),
}

/// Why somebody does not run again.
#[derive(Debug, thiserror::Error)]
enum RestartError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("systemd: {0}")]
    Systemd(#[from] zbus::Error),
    #[error("it does not run, but is {0}")]
    DoesNotRun(String),
    #[error("it has not come to an end within {RESTART_WITHIN:?}")]
    Endless,
}

/// Starts the loop; it ends with the runtime. What is returned is for `watch`.
pub fn spawn(board: Arc<Board>) -> mpsc::Sender<String> {
    let (returned, returns) = mpsc::channel(MAX_QUEUED);
    tokio::spawn(run(board, returns).instrument(info_span!("copies")));
    returned
}

/// Says each time that a share is online after it was off its path. Ends with the share's loop.
pub fn watch(mut view: watch::Receiver<ShareView>, returned: mpsc::Sender<String>) {
    let name = view.borrow().settings.id.to_string();
    tokio::spawn(async move {
        while view.wait_for(|view| is_off_its_path(view.share.state())).await.is_ok()
            && view.wait_for(|view| view.share.state() == State::Online).await.is_ok()
            && returned.send(name.clone()).await.is_ok()
        {}
    });
}

/// After the others it may never have been off.
fn is_off_its_path(state: State) -> bool {
    match state {
        State::Holding | State::Releasing | State::Offline | State::Mounting | State::Recovering | State::Blocked => {
            true
        }
        State::Online | State::Suspect | State::Maintenance | State::Stuck => false,
    }
}

async fn run(board: Arc<Board>, mut returns: mpsc::Receiver<String>) {
    let mut restarts = Restarts::default();
    loop {
        let waits = restarts.due().next().is_some();
        tokio::select! {
            share = returns.recv() => match share {
                Some(share) => restarts.returned(share),
                None => return,
            },
            () = sleep(LOOK), if waits => {}
        }
        restarts.retain(|share| is_due(&board, share));
        if restarts.may_go_on(|wait| lasts(&board, wait)) {
            do_round(&board, &mut restarts).await;
        }
    }
}

fn is_due(board: &Board, share: &str) -> bool {
    board.actors().shares.get(share).is_some_and(|handle| {
        let view = handle.view.borrow();
        view.settings.stale_copies == StaleCopies::Restart && view.share.state().is_open()
    })
}

fn lasts(board: &Board, wait: &Wait) -> bool {
    match wait {
        Wait::Share(share) => board.actors().shares.get(share).is_some_and(|handle| !is_online(&handle.view)),
        Wait::Consumer(consumer) => {
            let view = board.consumers.view.borrow();
            view.held.contains_key(consumer) || view.operations.contains_key(consumer)
        }
    }
}

fn is_online(view: &watch::Receiver<ShareView>) -> bool {
    view.borrow().share.state() == State::Online
}

/// Ends when whoever is restarted runs again: what is listed after that is what it has then.
async fn do_round(board: &Arc<Board>, restarts: &mut Restarts) {
    let waited = restarts.begin_round();
    let (mut online, mut others) = (Vec::new(), Vec::new());
    for (share, handle) in &board.actors().shares {
        if is_online(&handle.view) { online.push(share.clone()) } else { others.push(share.clone()) }
    }
    let due: BTreeSet<String> = restarts.due().cloned().collect();
    online.retain(|share| due.contains(share));
    others.iter().filter(|share| due.contains(*share)).for_each(|share| restarts.wait(Wait::Share(share.clone())));
    let (Some(back), Some(away)) = (list(board, online).await, list(board, others).await) else {
        return restarts.end_round();
    };
    let mut running = JoinSet::new();
    for (owner, outdated) in owners(&back, &away) {
        if restarts.is_settled(&owner, &outdated) {
            continue;
        }
        let Some(target) = look_up(&owner).await else {
            restarts.settle(&owner); // nobody is left to be restarted, or nobody can do it
            continue;
        };
        match blocked_by(&outdated, &target.consumers(), |wait| lasts(board, wait)) {
            None => {
                restarts.settle(&owner);
                running.spawn(begin_restart(target, &outdated).in_current_span());
            }
            Some(wait) => {
                if !waited.contains(&wait) {
                    info!(who = target.name(), ?wait, "is restarted later: its copy of a share is outdated");
                }
                restarts.wait(wait);
            }
        }
    }
    while running.join_next().await.is_some() {}
    restarts.end_round();
}

/// `None`: some cannot be seen, and who would be restarted might lack another share, or have had its restart.
async fn list(board: &Board, shares: Vec<String>) -> Option<Copies> {
    let mut copies = Copies::new();
    for share in shares {
        match board.copies(&share).await {
            Ok(Ok(of_share)) => drop(copies.insert(share, of_share)),
            Ok(Err(error)) => {
                warn!(share, error, "cannot see what containers have of it: nobody is restarted");
                return None;
            }
            Err(_) => {} // it has just been taken out of the configuration
        }
    }
    Some(copies)
}

async fn look_up(owner: &Owner) -> Option<Target> {
    match owner {
        Owner::Service(unit) => Some(Target::Service(unit.clone())),
        Owner::Container { engine, id } => match engine::find(Some(engine), id).await {
            Ok(container) => container.map(Target::Container),
            Err(error) => {
                warn!(engine, id, %error, "a container with an outdated copy of a share cannot be restarted");
                None
            }
        },
    }
}

impl Target {
    /// Names that it may have as a consumer.
    fn consumers(&self) -> Vec<String> {
        match self {
            Self::Container(container) => consumers(container.engine.key, &container.name).into(),
            Self::Service(unit) => vec![unit.clone()],
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Container(container) => &container.name,
            Self::Service(unit) => unit,
        }
    }
}

/// Says that it is restarted, and why; returns what does it.
fn begin_restart(target: Target, outdated_copies: &Outdated<'_>) -> impl Future<Output = ()> + use<> {
    for (share, copy) in &outdated_copies.copies {
        let (who, why) = (target.name(), outdated(copy).unwrap_or_default());
        info!(who, share, path = copy.path, pid = copy.pid, command = copy.command, "is restarted: it has {why}");
    }
    async move {
        let result = timeout(RESTART_WITHIN, restart(&target)).await.unwrap_or(Err(RestartError::Endless));
        if let Err(error) = result {
            warn!(who = target.name(), %error, "cannot be restarted, and does not have its share");
        }
    }
}

/// Ends when it runs again. A host that goes down starts nobody.
async fn restart(target: &Target) -> Result<(), RestartError> {
    let systemd = Systemd::connect().await?;
    if systemd.is_going_down().await? {
        return Ok(());
    }
    match target {
        Target::Container(container) => Ok(container.restart().await?),
        Target::Service(unit) => match systemd.try_restart_and_wait(unit).await? {
            Start::Failed(state) => Err(RestartError::DoesNotRun(state)),
            Start::UnderWay | Start::Done => Ok(()),
        },
    }
}
