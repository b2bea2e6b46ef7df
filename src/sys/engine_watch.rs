//! Which containers run, and which there are of those that consumers stand for: first the present, then every change; the counterpart of
//! `unit_watch`, and like there news are only an occasion to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::engine::{ENGINES, Engine, EngineError};
use super::unit_watch::Watched;
use crate::config::consumer::Consumer;
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
    let names: Vec<String> = names.into_iter().filter(|name| is_of(engine, Consumer::of(name))).collect();
    let mut watch =
        Watch { engine, report, known: BTreeMap::new(), members: BTreeMap::new(), namesakes: BTreeSet::new() };
    // what happens while it is looked is in the news again
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !names.is_empty() {
        watch.look_at(&names, &learn).await?;
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
            watch.look_at(&names, &learn).await?;
            events.next().await?;
        }
    };
    tokio::select! {
        changed = consumers.changed() => changed.map_or_else(|_| Ok(()), Ok),
        () = report.closed() => Ok(()),
        ended = news => ended,
    }
}

/// Can the engine say something of it?
fn is_of(engine: Engine, consumer: Consumer<'_>) -> bool {
    match consumer {
        Consumer::Unit(_) | Consumer::UserUnit { .. } => false,
        Consumer::Container { engine: key, .. } => key.is_none_or(|key| key == engine.key),
        Consumer::Label(_) | Consumer::Compose(_) => true,
    }
}

struct Watch<'a> {
    engine: Engine,
    report: &'a mpsc::Sender<Watched>,
    /// Whether each container runs, and which run it is.
    known: BTreeMap<String, (bool, Option<RunId>)>,
    /// For which containers each consumer stands.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Consumers of whose name another engine has a container.
    namesakes: BTreeSet<String>,
}

impl Watch<'_> {
    /// Asks the engine, and reports what is not known yet. Of a container that it has never had, another one may know more.
    async fn look_at(&mut self, names: &[String], learn: &impl Fn(&str, String)) -> Result<(), EngineError> {
        for name in names {
            if let Some(label) = Consumer::of(name).label() {
                self.look_for(name, &label).await?;
                continue;
            }
            let Consumer::Container { engine: chosen, name: container } = Consumer::of(name) else { continue };
            let present = match self.engine.find(container).await? {
                Some(_) if chosen.is_none() && self.is_anothers(name, container).await => continue,
                Some(container) => {
                    if let Ok(Some(scope)) = container.scope() {
                        learn(name, scope);
                    }
                    (container.running, container.running.then(|| container.run()))
                }
                None if self.known.contains_key(name) => (false, None),
                None => continue,
            };
            if self.known.get(name) != Some(&present) {
                self.known.insert(name.clone(), present.clone());
                let (running, run) = present;
                let _ = self.report.send(Watched::Unit { unit: name.clone(), running, run }).await;
            }
        }
        Ok(())
    }

    /// Those with a label; that there are none is said as well.
    async fn look_for(&mut self, consumer: &str, label: &str) -> Result<(), EngineError> {
        let engine = Some(self.engine.key);
        let names = self.engine.labelled(label).await?;
        let present = names.iter().map(|name| Consumer::Container { engine, name }.name()).collect();
        if self.members.get(consumer) != Some(&present) {
            self.members.insert(consumer.to_owned(), present.clone());
            let (consumer, engine) = (consumer.to_owned(), self.engine.key);
            let _ = self.report.send(Watched::Members { consumer, engine, containers: present }).await;
        }
        Ok(())
    }

    /// Has an engine that is asked before this one a container of that name?
    async fn is_anothers(&mut self, consumer: &str, container: &str) -> bool {
        for other in ENGINES.into_iter().take_while(|other| *other != self.engine) {
            if matches!(other.find(container).await, Ok(Some(_))) {
                if self.namesakes.insert(consumer.to_owned()) {
                    let (engine, key) = (self.engine, self.engine.key);
                    warn!(
                        consumer,
                        "{other} and {engine} have a container of that name; {other}'s is meant, engine = \"{key}\" means the other"
                    );
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::task::JoinHandle;

    use super::*;

    /// Containers that an engine has, all with every label, and whether each runs.
    type Has = BTreeMap<&'static str, bool>;

    async fn serve(listener: UnixListener, has: watch::Receiver<Has>) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, has.clone()));
        }
    }

    /// Tells every change as an event.
    async fn answer(mut stream: UnixStream, mut has: watch::Receiver<Has>) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await?;
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/events") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            while has.changed().await.is_ok() {
                stream.write_all(b"2\r\n{}\r\n").await?;
            }
            return Ok(());
        }
        let present = has.borrow().clone();
        let body = if path.starts_with("/containers/json") {
            let listed = present.keys().map(|name| serde_json::json!({ "Names": [format!("/{name}")] }));
            Some(serde_json::Value::from_iter(listed))
        } else {
            let name = path.split('/').nth(2).unwrap_or_default();
            let state =
                |running| serde_json::json!({ "Running": running, "Paused": false, "StartedAt": "today", "Pid": 0 });
            present
                .get(name)
                .map(|running| serde_json::json!({ "Id": format!("id of {name}"), "State": state(running) }))
        };
        let text = body.map_or_else(
            || "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            |body| format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        );
        stream.write_all(text.as_bytes()).await
    }

    struct Watching {
        has: watch::Sender<Has>,
        consumers: watch::Sender<BTreeSet<String>>,
        reports: mpsc::Receiver<Watched>,
        task: JoinHandle<Result<(), EngineError>>,
        _directory: tempfile::TempDir,
    }

    /// A watch of these consumers, of a Podman that has these.
    fn watching(consumers: &[&str], has: Has) -> Watching {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine.sock");
        let (has, seen) = watch::channel(has);
        tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), seen));
        let (consumers, mut watched) = watch::channel(consumers.iter().map(|&name| name.to_owned()).collect());
        let (report, reports) = mpsc::channel(64);
        let engine = Engine::on("podman", &socket);
        let task = tokio::spawn(async move { self::watch(engine, &mut watched, &report, |_, _| ()).await });
        Watching { has, consumers, reports, task, _directory: directory }
    }

    fn members(containers: &[&str]) -> Watched {
        let containers = containers.iter().map(|&name| name.to_owned()).collect();
        Watched::Members { consumer: "label:films".into(), engine: "podman", containers }
    }

    #[tokio::test]
    async fn a_container_that_is_made_later_joins_and_one_that_is_removed_leaves() {
        let mut watching = watching(&["label:films", "player.service"], Has::from([("tdarr", true)]));
        assert_eq!(watching.reports.recv().await, Some(members(&["podman:tdarr"])));
        assert_eq!(watching.reports.recv().await, Some(Watched::Reachable));
        watching.has.send_modify(|has| {
            let _ = has.insert("cut", true);
        });
        assert_eq!(watching.reports.recv().await, Some(members(&["podman:cut", "podman:tdarr"])));
        watching.has.send_modify(|has| {
            let _ = has.remove("tdarr");
        });
        assert_eq!(watching.reports.recv().await, Some(members(&["podman:cut"])));
        watching.consumers.send_modify(|consumers| {
            let _ = consumers.insert("podman:cut".into());
        });
        watching.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_engine_is_asked_for_its_own_containers() {
        let has = Has::from([("tdarr", true), ("cut", false), ("player", true)]);
        let mut watching = watching(&["podman:tdarr", "podman:cut", "podman:gone", "docker:player"], has);
        let unit = |name: &str, running, run: Option<&str>| {
            Some(Watched::Unit { unit: name.into(), running, run: run.map(str::to_owned) })
        };
        assert_eq!(watching.reports.recv().await, unit("podman:cut", false, None));
        assert_eq!(watching.reports.recv().await, unit("podman:tdarr", true, Some("id of tdarr today")));
        assert_eq!(watching.reports.recv().await, Some(Watched::Reachable));
        watching.has.send_modify(|has| {
            let _ = has.remove("tdarr");
        });
        assert_eq!(watching.reports.recv().await, unit("podman:tdarr", false, None));
    }
}
