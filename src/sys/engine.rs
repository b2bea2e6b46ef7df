//! Container engines over their sockets: Docker, and Podman, which answers Docker's API as well (docs.docker.com/reference/api/engine,
//! podman-system-service(1)).
//!
//! An engine is asked which container has a name, which ones have a label, and to stop, to start and to restart one: its restart policy
//! would start one again that something else has stopped. Nobody needs it to pause and to continue: a container is a scope of systemd's,
//! whether its engine answers or not.
//!
//! Paths have no version: Docker 29 answers none below 1.44, and Podman none above 1.41.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use crate::share::consumers::RunId;

/// An answer from memory takes milliseconds; a service that its socket starts first, a second or two.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// More than any answer to a question of ours has.
const ANSWER_MAX: usize = 4 << 20;

/// Which events are news: that a container starts or ends, and that there is another or one less, which Podman calls `remove`.
const NEWS: &str = r#"{"event":["start","die","create","rename","destroy","remove"],"type":["container"]}"#;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// As its people write it.
    pub name: &'static str,
    /// As it is written in the names of consumers (`config::consumer`).
    pub key: &'static str,
    socket: &'static str,
}

/// All that nasmount knows, in the order in which they are asked for a name.
pub const ENGINES: [Engine; 2] = [
    Engine { name: "Docker", key: "docker", socket: "/run/docker.sock" },
    Engine { name: "Podman", key: "podman", socket: "/run/podman/podman.sock" },
];

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is none.
    #[error(
        "no container engine listens on /run/docker.sock or /run/podman/podman.sock; \
         for Podman: systemctl enable --now podman.socket"
    )]
    Absent,
    /// It does not answer, or not in its own language.
    #[error("cannot ask {engine} over {}: {why}", .engine.socket)]
    Silent {
        /// The engine.
        engine: Engine,
        /// What happened.
        why: String,
    },
    /// It says no.
    #[error("{engine} answers {status}: {message}")]
    Refused {
        /// The engine.
        engine: Engine,
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
    /// The container is in no scope, so that nobody can pause it.
    #[error("{container} is not in a scope of systemd's, but in {cgroup}: {remedy}")]
    NoScope {
        /// The container's id.
        container: String,
        /// Where its processes are.
        cgroup: String,
        /// What to do.
        remedy: String,
    },
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A container, as its engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Who runs it.
    pub engine: Engine,
    id: String,
    /// As its engine calls it now.
    pub name: String,
    /// Has it processes? One that its engine has paused has.
    pub running: bool,
    started_at: String,
    pid: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    state: InspectedState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    running: bool,
    paused: bool,
    started_at: String,
    pid: i32,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// One of those that are listed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    names: Vec<String>,
}

/// The container of this name, or this id, of that engine or of the first that has one; `None` if none has.
pub async fn find(engine: Option<&str>, name: &str) -> Result<Option<Container>, EngineError> {
    Ok(find_up_to(1, engine, name).await?.pop())
}

/// The containers of this name, one of each engine; the first is the one that [`find`] finds.
pub async fn find_all(engine: Option<&str>, name: &str) -> Result<Vec<Container>, EngineError> {
    find_up_to(ENGINES.len(), engine, name).await
}

async fn find_up_to(most: usize, engine: Option<&str>, name: &str) -> Result<Vec<Container>, EngineError> {
    let (mut found, mut trouble) = (Vec::new(), Some(EngineError::Absent));
    for engine in ENGINES.into_iter().filter(|known| engine.is_none_or(|key| key == known.key)) {
        match engine.find(name).await {
            Ok(Some(container)) => found.push(container),
            Ok(None) => trouble = trouble.filter(|trouble| !matches!(trouble, EngineError::Absent)),
            Err(EngineError::Absent) => {}
            Err(error) => trouble = Some(error),
        }
        if found.len() == most {
            break;
        }
    }
    trouble.filter(|_| found.is_empty()).map_or(Ok(found), Err)
}

/// How many containers have this label, over all engines. That none has is not said while one does not answer.
pub async fn count_labelled(label: &str) -> Result<usize, EngineError> {
    let (mut count, mut trouble) = (0, Some(EngineError::Absent));
    for engine in ENGINES {
        match engine.labelled(label).await {
            Ok(names) => {
                count += names.len();
                trouble = trouble.filter(|trouble| !matches!(trouble, EngineError::Absent));
            }
            Err(EngineError::Absent) => {}
            Err(error) => trouble = Some(error),
        }
    }
    trouble.filter(|_| count == 0).map_or(Ok(count), Err)
}

impl Container {
    /// Which run of it this is, or was the last.
    pub fn run(&self) -> RunId {
        format!("{} {}", self.id, self.started_at)
    }

    /// Its scope; `None` if it has no process, as between two tries of its restart policy, which Docker calls running.
    pub fn scope(&self) -> Result<Option<String>, EngineError> {
        if !self.running || self.pid <= 0 {
            return Ok(None);
        }
        let path = format!("/proc/{}/cgroup", self.pid);
        match fs::read_to_string(&path) {
            Ok(cgroup) => scope_of(&self.id, &cgroup).map(Some),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None), // it has just ended
            Err(error) => Err(EngineError::Silent { engine: self.engine, why: format!("{path}: {error}") }),
        }
    }

    /// Stops it and waits until it has stopped: SIGTERM, and SIGKILL after `grace` seconds, or after what it was made with.
    pub async fn stop(&self, grace: Option<u32>) -> Result<(), EngineError> {
        let grace = grace.map(|seconds| format!("?t={seconds}")).unwrap_or_default();
        self.engine.order(&format!("/containers/{}/stop{grace}", self.id)).await
    }

    /// Starts it and waits until it runs.
    pub async fn start(&self) -> Result<(), EngineError> {
        self.engine.order(&format!("/containers/{}/start", self.id)).await
    }

    /// Stops it, with the grace that it was made with, and starts it; waits until it runs.
    pub async fn restart(&self) -> Result<(), EngineError> {
        self.engine.order(&format!("/containers/{}/restart", self.id)).await
    }
}

/// The scope with a container's id in its name, `docker-ID.scope` or `libpod-ID.scope`, from /proc/PID/cgroup: what runs inside may have
/// scopes of its own further down.
fn scope_of(id: &str, cgroup: &str) -> Result<String, EngineError> {
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("another hierarchy");
    let is_its_scope = |part: &&str| part.contains(id) && part.ends_with(".scope");
    if let Some(scope) = cgroup.split('/').find(is_its_scope) {
        return Ok(scope.to_owned());
    }
    let remedy = match cgroup.split('/').rfind(|part| part.ends_with(".service")) {
        Some(service) => format!("write unit = \"{service}\" instead of its name"),
        None => "have its engine use systemd as cgroup manager, which is its default".to_owned(),
    };
    Err(EngineError::NoScope { container: id.to_owned(), cgroup: cgroup.to_owned(), remedy })
}

impl Engine {
    /// One that listens there.
    #[cfg(test)]
    pub fn on(key: &'static str, socket: &std::path::Path) -> Self {
        Self { name: "Test", key, socket: Box::leak(socket.to_string_lossy().into_owned().into_boxed_str()) }
    }

    /// The container of this name that it has.
    pub async fn find(self, name: &str) -> Result<Option<Container>, EngineError> {
        let (status, body) = self.answer(&format!("/containers/{name}/json")).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused(status, &body)),
        }
        let Inspected { id, name, state } = serde_json::from_slice(&body).map_err(|error| self.silent(error))?;
        let InspectedState { running, paused, started_at, pid } = state;
        let name = name.trim_start_matches('/').to_owned();
        Ok(Some(Container { engine: self, id, name, running: running || paused, started_at, pid }))
    }

    /// Names of the containers that have this label, `KEY` or `KEY=VALUE`; also of those that do not run.
    pub async fn labelled(self, label: &str) -> Result<BTreeSet<String>, EngineError> {
        let filters = in_query(&serde_json::json!({ "label": [label] }).to_string());
        let (status, body) = self.answer(&format!("/containers/json?all=true&filters={filters}")).await?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &body));
        }
        let listed: Vec<Listed> = serde_json::from_slice(&body).map_err(|error| self.silent(error))?;
        // `/tdarr`, and for each of Docker's links to it `/other/alias`
        let name = |listed: Listed| {
            let mut names = listed.names.into_iter().map(|name| name.trim_start_matches('/').to_owned());
            names.find(|name| !name.contains('/'))
        };
        Ok(listed.into_iter().filter_map(name).collect())
    }

    async fn answer(self, path: &str) -> Result<(StatusCode, Bytes), EngineError> {
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(Method::GET, path)).await;
        answered.map_err(|_| self.silent(format!("no answer within {ANSWER_TIMEOUT:?}")))?
    }

    /// Carries out what has no answer but that it is done. The caller bounds how long that may take.
    async fn order(self, path: &str) -> Result<(), EngineError> {
        match self.ask(Method::POST, path).await? {
            (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Ok(()),
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    async fn ask(self, method: Method, path: &str) -> Result<(StatusCode, Bytes), EngineError> {
        let response = self.send(method, path).await?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok((status, body.map_err(|error| self.silent(error))?.to_bytes()))
    }

    /// News of containers since then (seconds since the epoch).
    pub async fn events(self, since: u64) -> Result<Events, EngineError> {
        let filters = in_query(NEWS);
        let response = self.send(Method::GET, &format!("/events?since={since}&filters={filters}")).await?;
        match response.status() {
            StatusCode::OK => Ok(Events { engine: self, body: response.into_body() }),
            status => Err(self.refused(status, &[])),
        }
    }

    async fn send(self, method: Method, path: &str) -> Result<Response<Incoming>, EngineError> {
        let stream = match UnixStream::connect(self.socket).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(EngineError::Absent),
            stream => stream.map_err(|error| self.silent(error))?,
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.silent(error))?;
        // ends when the answer has been read or dropped
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.silent(error))?;
        sender.send_request(request).await.map_err(|error| self.silent(error))
    }

    fn silent(self, why: impl ToString) -> EngineError {
        EngineError::Silent { engine: self, why: why.to_string() }
    }

    fn refused(self, status: StatusCode, body: &[u8]) -> EngineError {
        let message = serde_json::from_slice(body).map(|complaint: Complaint| complaint.message);
        let message = message.unwrap_or_else(|_| String::from_utf8_lossy(body).trim().to_owned());
        EngineError::Refused { engine: self, status: status.as_u16(), message }
    }
}

/// A value in the query of an address (RFC 3986, 2.1).
fn in_query(value: &str) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") };
    value.bytes().map(byte).collect()
}

/// News of an engine's containers.
#[derive(Debug)]
pub struct Events {
    engine: Engine,
    body: Incoming,
}

impl Events {
    /// Returns when there are some. An engine that ends the stream has stopped, or is being restarted.
    pub async fn next(&mut self) -> Result<(), EngineError> {
        match self.body.frame().await {
            Some(frame) => frame.map(drop).map_err(|error| self.engine.silent(error)),
            None => Err(self.engine.silent("it has ended its events")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const ID: &str = "4cf2b1";

    #[test]
    fn engines_are_those_that_can_be_named() {
        assert_eq!(ENGINES.map(|engine| engine.key), crate::config::consumer::ENGINES);
    }

    #[test]
    fn a_container_is_its_engines_scope_whatever_runs_inside() {
        for (cgroup, scope) in [
            ("0::/system.slice/docker-4cf2b1.scope\n", "docker-4cf2b1.scope"),
            ("0::/machine.slice/libpod-4cf2b1.scope/container\n", "libpod-4cf2b1.scope"),
            ("1:name=systemd:/x\n0::/machine.slice/libpod-4cf2b1.scope/init.scope\n", "libpod-4cf2b1.scope"),
        ] {
            assert_eq!(scope_of(ID, cgroup).unwrap(), scope);
        }
    }

    #[test]
    fn who_is_in_no_scope_is_told_what_to_do() {
        let of_a_quadlet = scope_of(ID, "0::/system.slice/tdarr.service/libpod-payload-4cf2b1\n").unwrap_err();
        assert!(of_a_quadlet.to_string().contains("write unit = \"tdarr.service\""), "{of_a_quadlet}");
        let of_cgroupfs = scope_of(ID, "0::/docker/4cf2b1\n").unwrap_err();
        assert!(of_cgroupfs.to_string().contains("use systemd as cgroup manager"), "{of_cgroupfs}");
    }

    /// An engine that gives these answers, one per connection, and says what it was asked.
    fn engine(
        directory: &tempfile::TempDir,
        answers: &'static [&str],
    ) -> (Engine, tokio::task::JoinHandle<Vec<String>>) {
        let socket = directory.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                asked.push(request.lines().next().unwrap().to_owned());
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
            asked
        });
        (Engine::on("podman", &socket), served)
    }

    const RUNS: &str = "200 OK\r\n\r\n\
        {\"Id\":\"4cf2b1\",\"Name\":\"/tdarr\",\"State\":{\"Running\":false,\"Paused\":true,\"StartedAt\":\"today\",\"Pid\":7}}\n";

    #[tokio::test]
    async fn an_engine_is_asked_for_a_name_and_orders_go_to_the_id() {
        let directory = tempfile::tempdir().unwrap();
        let (done, nobody) = ("204 No Content\r\n\r\n", "404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let answers = [RUNS, nobody, "304 Not Modified\r\n\r\n", done, done];
        let (engine, served) = engine(&directory, Box::leak(Box::new(answers)));
        let found = engine.find("tdarr").await.unwrap().unwrap();
        assert!(found.running, "one that its engine has paused has processes: {found:?}");
        assert_eq!((found.run().as_str(), found.name.as_str()), ("4cf2b1 today", "tdarr"));
        assert_eq!(engine.find("tdar").await.unwrap(), None);
        found.start().await.unwrap();
        found.stop(Some(0)).await.unwrap();
        found.restart().await.unwrap();
        assert_eq!(
            served.await.unwrap(),
            [
                "GET /containers/tdarr/json HTTP/1.1",
                "GET /containers/tdar/json HTTP/1.1",
                "POST /containers/4cf2b1/start HTTP/1.1",
                "POST /containers/4cf2b1/stop?t=0 HTTP/1.1",
                "POST /containers/4cf2b1/restart HTTP/1.1"
            ]
        );
    }

    #[tokio::test]
    async fn an_engine_is_asked_who_has_a_label() {
        let directory = tempfile::tempdir().unwrap();
        let answers = [
            "200 OK\r\n\r\n[{\"Names\":[\"/web/media\",\"/tdarr\"]},{\"Names\":[\"/player\"]},{\"Names\":[]}]",
            "200 OK\r\n\r\n{}",
        ];
        let (engine, served) = engine(&directory, Box::leak(Box::new(answers)));
        assert_eq!(engine.labelled("a.b=c d").await.unwrap(), ["player".to_owned(), "tdarr".to_owned()].into());
        assert!(
            matches!(engine.labelled("keep").await, Err(EngineError::Silent { .. })),
            "nobody is none of them for that"
        );
        let asked = served.await.unwrap();
        let filter = "%7B%22label%22%3A%5B%22a%2Eb%3Dc%20d%22%5D%7D";
        assert_eq!(asked[0], format!("GET /containers/json?all=true&filters={filter} HTTP/1.1"));
    }

    #[tokio::test]
    async fn what_an_engine_refuses_is_said_in_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let answers = [
            "500 Internal Server Error\r\nContent-Length: 26\r\n\r\n{\"message\":\"host is down\"}",
            "200 OK\r\n\r\nhello",
        ];
        let (engine, _served) = engine(&directory, Box::leak(Box::new(answers)));
        let refused = engine.order("/containers/4cf2b1/start").await.unwrap_err();
        assert_eq!(refused.to_string(), "Test answers 500: host is down");
        let silent = engine.find("tdarr").await.unwrap_err();
        assert!(matches!(silent, EngineError::Silent { .. }), "{silent}");
    }

    #[tokio::test]
    async fn events_come_one_by_one_and_end_with_the_engine() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, served) = engine(&directory, &["200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"]);
        let mut events = engine.events(17).await.unwrap();
        events.next().await.unwrap();
        assert!(events.next().await.is_err());
        assert!(served.await.unwrap()[0].starts_with("GET /events?since=17&filters=%7B"));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_absent_and_not_silent() {
        let absent = Engine::on("podman", "/nonexistent/engine.sock".as_ref());
        assert!(matches!(absent.find("tdarr").await, Err(EngineError::Absent)));
    }
}
