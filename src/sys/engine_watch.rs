//! Which containers run: first the present, then every change; the counterpart of `unit_watch`, and like there news are only an
//! occasion to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use super::engine::{Engine, EngineError};
use super::unit_watch::Watched;
use crate::config::consumer::container;
use crate::share::consumers::RunId;

/// Tells `learn` the scopes of those that run. Reports until the engine ends its news, the set of consumers changes (`Ok`), or nobody
/// listens any more.
pub async fn watch(
    engine: Engine,
    consumers: &mut watch::Receiver<BTreeSet<String>>,
    report: &mpsc::Sender<Watched>,
    learn: impl Fn(&str, String),
) -> Result<(), EngineError> {
    let names = consumers.borrow_and_update().clone();
    let names: Vec<String> = names.into_iter().filter(|name| container(name).is_some()).collect();
    let mut known = BTreeMap::new();
    // what happens while it is looked is in the news again
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !names.is_empty() {
        look_at(engine, &names, &mut known, report, &learn).await?;
    }
    let news = async {
        if names.is_empty() {
            return std::future::pending().await;
        }
        // an engine may keep its answer back until it has something to say
        let mut events = engine.events(since).await?;
        if report.send(Watched::Reachable).await.is_err() {
            return Ok(());
        }
        loop {
            look_at(engine, &names, &mut known, report, &learn).await?;
            events.next().await?;
        }
    };
    tokio::select! {
        changed = consumers.changed() => changed.map_or_else(|_| Ok(()), Ok),
        () = report.closed() => Ok(()),
        ended = news => ended,
    }
}

/// Asks the engine, and reports what is not known yet. Of a container that it has never had, another one may know more.
async fn look_at(
    engine: Engine,
    names: &[String],
    known: &mut BTreeMap<String, (bool, Option<RunId>)>,
    report: &mpsc::Sender<Watched>,
    learn: &impl Fn(&str, String),
) -> Result<(), EngineError> {
    for name in names {
        let container_name = container(name).unwrap_or_default();
        let present = match engine.find(container_name).await? {
            Some(container) => {
                if let Ok(Some(scope)) = container.scope() {
                    learn(container_name, scope);
                }
                (container.running, container.running.then(|| container.run()))
            }
            None if known.contains_key(name) => (false, None),
            None => continue,
        };
        if known.get(name) != Some(&present) {
            known.insert(name.clone(), present.clone());
            let (running, run) = present;
            let _ = report.send(Watched::Unit { unit: name.clone(), running, run }).await;
        }
    }
    Ok(())
}
