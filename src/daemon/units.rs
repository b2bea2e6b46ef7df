//! What is done to consumers, through systemd, users' service managers and the engines of containers: one task per operation.
//!
//! The first message of each operation is sent in the order in which the operations were started: tasks are polled first in
//! the order in which they were spawned, on this one thread, and the connection's queue is fair. Nothing waits in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::containers::{ContainerError, Containers, Named};
use super::users::Users;
use crate::config::consumer::Consumer;
use crate::share::OpId;
use crate::share::consumers::{UnitDone, UnitStep};
use crate::share::failure::{Failure, FailureClass};
use crate::sys::systemd::{Activity, Signal, Start, Systemd, is_opposed, is_unknown_unit};
use crate::sys::user_manager::UserError;

/// Pause between two looks how far a unit has got.
const POLL: Duration = Duration::from_millis(100);

/// How an operation ended.
pub type Outcome = Result<UnitDone, Failure>;

/// Carries out operations. The connection to the bus is made when needed and dropped when it fails.
#[derive(Debug, Default)]
pub struct Units {
    systemd: AsyncMutex<Option<Systemd>>,
    /// The scopes of containers, which their watch keeps up to date.
    pub containers: Containers,
    users: Users,
    unknown: Mutex<BTreeSet<String>>,
}

/// Why nothing came of an operation.
#[derive(Debug, thiserror::Error)]
enum UnitError {
    #[error("cannot reach systemd: {0}")]
    Unreachable(zbus::Error),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    User(#[from] UserError),
}

impl UnitError {
    /// Will it be done as soon as something else is over that takes its time?
    fn is_busy(&self) -> bool {
        match self {
            Self::Container(ContainerError::Systemd(error)) | Self::User(UserError::Systemd(error)) => {
                is_opposed(error)
            }
            Self::User(UserError::Absent { lingers, .. }) => *lingers,
            Self::Unreachable(_) | Self::Container(ContainerError::Engine(_)) | Self::User(_) => false,
        }
    }
}

impl From<zbus::Error> for UnitError {
    fn from(error: zbus::Error) -> Self {
        Self::Container(error.into())
    }
}

/// The operations in flight, so that one can be abandoned.
#[derive(Debug, Default)]
pub struct InFlight(BTreeMap<OpId, AbortHandle>);

impl InFlight {
    /// Remembers a task.
    pub fn insert(&mut self, op: OpId, task: AbortHandle) {
        self.0.insert(op, task);
    }

    /// It has ended by itself.
    pub fn ended(&mut self, op: OpId) {
        self.0.remove(&op);
    }

    /// Nothing more is sent for it.
    pub fn abandon(&mut self, op: OpId) {
        if let Some(task) = self.0.remove(&op) {
            info!(op = op.0, "abandoned");
            task.abort();
        }
    }
}

impl Units {
    /// Over this connection, as long as it lasts.
    #[cfg(test)]
    fn on(systemd: Systemd) -> Self {
        Self { systemd: AsyncMutex::new(Some(systemd)), ..Self::default() }
    }

    async fn systemd(&self) -> Result<Systemd, UnitError> {
        let mut slot = self.systemd.lock().await;
        if let Some(systemd) = &*slot {
            return Ok(systemd.clone());
        }
        let systemd = Systemd::connect().await.map_err(UnitError::Unreachable)?;
        Ok(slot.insert(systemd).clone())
    }

    /// Carries out one step; ends when it has been done, and not before.
    pub async fn perform(&self, name: &str, step: UnitStep) -> Outcome {
        let consumer = Consumer::of(name);
        let result = self.act(consumer, step).await;
        if let Err(UnitError::Container(ContainerError::Systemd(error))) = &result
            && !matches!(error, zbus::Error::MethodError(..))
        {
            *self.systemd.lock().await = None;
        }
        let result = result.map(|done| done.unwrap_or_else(|| self.is_unknown(consumer, step)));
        debug!(name, ?step, ?result, "ended");
        if step != UnitStep::Inspect && result.is_ok() {
            info!(name, ?step, "done");
        }
        result.map_err(|error| {
            let class = if error.is_busy() { FailureClass::Busy } else { FailureClass::Transient };
            Failure { class, ..Failure::transient(format!("cannot {} {name}: {error}", verb(step))) }
        })
    }

    async fn act(&self, consumer: Consumer<'_>, step: UnitStep) -> Result<Option<UnitDone>, UnitError> {
        Ok(match consumer {
            Consumer::Unit(unit) => perform_on_unit(&self.systemd().await?, unit, step).await?,
            Consumer::UserUnit { user, unit } => self.users.perform(user, unit, step).await?,
            Consumer::Container { engine, name } => {
                self.containers.perform(&self.systemd().await?, Named { engine, name }, step).await?
            }
            // it is their containers that something is done to
            Consumer::Label(_) | Consumer::Compose(_) => None,
        })
    }

    /// Says once that nobody knows a consumer.
    fn is_unknown(&self, consumer: Consumer<'_>, step: UnitStep) -> UnitDone {
        if self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(consumer.name()) {
            let who = match consumer {
                Consumer::Unit(_) => "systemd does not know",
                Consumer::UserUnit { .. } => "the user's service manager does not know",
                Consumer::Container { .. } | Consumer::Label(_) | Consumer::Compose(_) => "no container engine knows",
            };
            warn!(consumer = consumer.name(), "{who} this consumer");
        }
        nothing_runs(step)
    }
}

/// What comes of an operation on what is not there.
pub(super) fn nothing_runs(step: UnitStep) -> UnitDone {
    match step {
        UnitStep::Inspect | UnitStep::Stop | UnitStep::Kill => UnitDone::Found { running: false, run: None },
        UnitStep::Pause | UnitStep::Continue | UnitStep::Start | UnitStep::ContinueAndStart => UnitDone::Plainly,
    }
}

/// `None`: systemd does not know it.
pub(super) async fn perform_on_unit(systemd: &Systemd, unit: &str, step: UnitStep) -> zbus::Result<Option<UnitDone>> {
    match step {
        UnitStep::Inspect => inspect(systemd, unit).await,
        UnitStep::Pause => systemd.pause(unit).await.map(plainly),
        UnitStep::Stop => stop(systemd, unit).await,
        UnitStep::Kill => kill(systemd, unit).await,
        UnitStep::Continue => systemd.signal(unit, Signal::Continue).await.map(plainly),
        UnitStep::Start => start(systemd, unit).await,
        UnitStep::ContinueAndStart => match systemd.signal(unit, Signal::Continue).await {
            Ok(()) => start(systemd, unit).await,
            Err(error) => Err(error),
        },
    }
}

async fn inspect(systemd: &Systemd, unit: &str) -> zbus::Result<Option<UnitDone>> {
    let running = match systemd.activity(unit).await? {
        Activity::Running => true,
        Activity::NotRunning => false,
        Activity::Unknown => return Ok(None),
    };
    Ok(Some(UnitDone::Found { running, run: systemd.run(unit).await? }))
}

async fn stop(systemd: &Systemd, unit: &str) -> zbus::Result<Option<UnitDone>> {
    match systemd.stop(unit).await {
        Err(error) if is_unknown_unit(&error) => return Ok(None),
        result => result?,
    }
    // systemd continues processes after SIGTERM, but not before an ExecStop= that talks to them
    systemd.signal(unit, Signal::Continue).await?;
    until_stopped(systemd, unit).await
}

async fn kill(systemd: &Systemd, unit: &str) -> zbus::Result<Option<UnitDone>> {
    systemd.signal(unit, Signal::Kill).await?;
    match systemd.stop(unit).await {
        Err(error) if is_unknown_unit(&error) => return Ok(None),
        result => result?,
    }
    until_stopped(systemd, unit).await
}

/// A unit that does not start is its own affair, or its administrator's. Reasons to try again, and to remember until then
/// that the unit is to be started: its stop is still under way, the host is going down, the bus is away.
async fn start(systemd: &Systemd, unit: &str) -> zbus::Result<Option<UnitDone>> {
    match systemd.start(unit).await {
        Err(error) if is_unknown_unit(&error) => return Ok(None),
        Err(error) if is_opposed(&error) => return Err(error),
        Err(zbus::Error::MethodError(name, message, reply)) => {
            if systemd.is_going_down().await? {
                return Err(zbus::Error::MethodError(name, message, reply));
            }
            warn!(unit, error = %name, message, "the consumer cannot be started");
            return Ok(Some(UnitDone::Plainly));
        }
        result => result?,
    }
    loop {
        match systemd.start_progress(unit).await? {
            Start::UnderWay => tokio::time::sleep(POLL).await,
            Start::Done => break,
            Start::Failed(state) => {
                warn!(unit, state, "the consumer was started and does not run");
                break;
            }
        }
    }
    Ok(Some(UnitDone::Plainly))
}

fn plainly(_: ()) -> Option<UnitDone> {
    Some(UnitDone::Plainly)
}

fn verb(step: UnitStep) -> &'static str {
    match step {
        UnitStep::Inspect => "look at",
        UnitStep::Pause => "pause",
        UnitStep::Stop => "stop",
        UnitStep::Kill => "kill",
        UnitStep::Continue => "continue",
        UnitStep::Start | UnitStep::ContinueAndStart => "start",
    }
}

async fn until_stopped(systemd: &Systemd, unit: &str) -> zbus::Result<Option<UnitDone>> {
    while systemd.activity(unit).await? == Activity::Running {
        tokio::time::sleep(POLL).await;
    }
    Ok(Some(UnitDone::Found { running: false, run: systemd.run(unit).await? }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;
    use zbus::message::Type;
    use zbus::wire::{ObjectPath, Variant};
    use zbus::{Connection, Guid, MessageStream, connection};

    use super::*;

    /// A systemd that says what it was asked, and answers all but `deaf`.
    async fn systemd(deaf: &'static str) -> (Arc<Units>, mpsc::UnboundedReceiver<String>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = connection::Builder::unix_stream(theirs).server(Guid::generate()).p2p().build();
        let client = connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::try_join!(server, client).unwrap();
        let (asked, questions) = mpsc::unbounded_channel();
        tokio::spawn(serve(server, deaf, asked));
        (Arc::new(Units::on(Systemd::on(client).await.unwrap())), questions)
    }

    async fn serve(server: Connection, deaf: &'static str, asked: mpsc::UnboundedSender<String>) {
        let mut messages = MessageStream::from(&server);
        let mut jobs = [7, 7, 0_u32].into_iter();
        while let Some(Ok(message)) = messages.next().await {
            let header = message.header();
            let Some(member) = header.member().filter(|_| message.message_type() == Type::MethodCall) else { continue };
            let unit = match member.as_str() {
                "KillUnit" => message
                    .body()
                    .deserialize::<(String, String, i32)>()
                    .map(|(unit, _, signal)| format!("{unit} {signal}")),
                "StopUnit" | "StartUnit" | "TryRestartUnit" => {
                    message.body().deserialize::<(String, String)>().map(|(unit, _)| unit)
                }
                "Get" => message.body().deserialize::<(String, String)>().map(|(_, property)| property),
                _ => message.body().deserialize::<String>(),
            };
            let _ = asked.send(format!("{member} {}", unit.as_ref().unwrap()));
            let path = ObjectPath::try_from("/org/freedesktop/systemd1/unit/x").unwrap();
            let answered = match member.as_str() {
                "StartUnit" if deaf == "opposed" => {
                    let name = "org.freedesktop.systemd1.TransactionIsDestructive";
                    server.reply_error(&header, name, &"a.service has 'stop' job queued").await
                }
                member if member == deaf => Ok(()),
                "KillUnit" => server.reply(&header, &()).await,
                "GetUnitProcesses" => server.reply(&header, &Vec::<(String, u32, String)>::new()).await,
                "GetNameOwner" => server.reply(&header, &":1.1").await,
                "AddMatch" => server.reply(&header, &()).await,
                "Get" if unit.as_deref() == Ok("InvocationID") => {
                    server.reply(&header, &Variant::from(vec![7_u8, 7])).await
                }
                "Get" if unit.as_deref() == Ok("Job") => {
                    server.reply(&header, &Variant::from((jobs.next().unwrap_or(0), path))).await
                }
                "Get" => server.reply(&header, &Variant::from("inactive")).await,
                _ => server.reply(&header, &path).await,
            };
            answered.unwrap();
        }
    }

    #[tokio::test]
    async fn first_messages_are_sent_in_the_order_of_the_operations_and_none_waits_for_an_answer() {
        let (units, mut asked) = systemd("KillUnit").await;
        for (unit, step) in [
            ("a.service", UnitStep::Pause),
            ("b.service", UnitStep::Stop),
            ("c.service", UnitStep::Continue),
            ("d.service", UnitStep::Kill),
        ] {
            let units = Arc::clone(&units);
            tokio::spawn(async move { units.perform(unit, step).await });
        }
        let mut firsts = Vec::new();
        while firsts.len() < 4 {
            firsts.push(asked.recv().await.unwrap());
        }
        assert_eq!(
            firsts,
            ["KillUnit a.service 19", "StopUnit b.service", "KillUnit c.service 18", "KillUnit d.service 9"]
        );
    }

    #[tokio::test]
    async fn a_start_that_a_stop_job_opposes_is_tried_again() {
        let (units, _asked) = systemd("opposed").await;
        let failure = units.perform("a.service", UnitStep::Start).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Busy, "{failure}");
    }

    #[tokio::test]
    async fn a_restart_has_ended_when_its_job_has() {
        let (units, mut asked) = systemd("nothing").await;
        let ended = units.systemd().await.unwrap().try_restart_and_wait("a.service").await.unwrap();
        assert_eq!(ended, Start::Failed("inactive".to_owned()));
        assert_eq!(asked.recv().await.unwrap(), "TryRestartUnit a.service");
        let jobs = std::iter::from_fn(|| asked.try_recv().ok()).filter(|question| question == "Get Job").count();
        assert_eq!(jobs, 4, "until there is none, and once more with the state");
    }

    #[tokio::test]
    async fn nothing_is_sent_for_what_was_abandoned() {
        let (units, mut asked) = systemd("StopUnit").await;
        let mut in_flight = InFlight::default();
        let stopping = Arc::clone(&units);
        let task = tokio::spawn(async move { stopping.perform("a.service", UnitStep::Stop).await });
        in_flight.insert(OpId(1), task.abort_handle());
        assert_eq!(asked.recv().await.unwrap(), "StopUnit a.service");
        in_flight.abandon(OpId(1));
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(units.perform("b.service", UnitStep::Continue).await, Ok(UnitDone::Plainly));
        assert_eq!(asked.recv().await.unwrap(), "KillUnit b.service 18");
    }

    #[tokio::test]
    async fn a_stop_lets_the_processes_go_on_and_waits_until_the_unit_has_stopped() {
        let (units, mut asked) = systemd("nothing").await;
        let outcome = units.perform("a.service", UnitStep::Stop).await;
        let mut said = Vec::new();
        while let Ok(question) = asked.try_recv() {
            said.push(question);
        }
        assert_eq!(outcome, Ok(UnitDone::Found { running: false, run: Some("0707".to_owned()) }), "{said:?}");
        assert_eq!(said[..3], ["StopUnit a.service", "KillUnit a.service 18", "LoadUnit a.service"]);
    }
}
