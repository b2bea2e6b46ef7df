//! Which units run: first the present, then every change.
//!
//! A signal is only an occasion to look again: what is reported is what systemd answers when asked, so that a signal that
//! is lost, doubled or forged does no harm. The first signal about a unit that systemd has just loaded is `UnitNew`, without
//! a `PropertiesChanged` (bus_unit_send_change_signal in systemd's dbus-unit.c), so both are watched.
//!
//! Signals have a connection of their own: a queue of signals that nobody reads would hold up the answers on the same one.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tracing::warn;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, connection, fdo, proxy};

use super::systemd::{Activity, Systemd};
use super::user_manager::{self, UserError};
use crate::config::consumer::{Consumer, system_unit};
use crate::share::consumers::RunId;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Subscription {
    fn subscribe(&self) -> zbus::Result<()>;
}

/// What is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// systemd can be reached, for the first time or again; the present state of every unit follows.
    Reachable,
    /// A unit runs, or does not.
    Unit {
        /// The consumer's name.
        unit: String,
        /// Does it run?
        running: bool,
        /// Which run that is.
        run: Option<RunId>,
    },
    /// An engine has these containers of those that a consumer stands for.
    Members {
        /// The consumer's name.
        consumer: String,
        /// The engine's key.
        engine: &'static str,
        /// Names of consumers, one for each container.
        containers: BTreeSet<String>,
    },
    /// A start of the unit was given up: something that it requires could not be started.
    StartMissed {
        /// Its name.
        unit: String,
    },
    /// systemd has got a job for the unit.
    JobQueued {
        /// The consumer's name.
        unit: String,
        /// The job's number.
        job: u32,
    },
    /// It was done, and the unit does not run.
    JobDone {
        /// The consumer's name.
        unit: String,
        /// The job's number.
        job: u32,
    },
}

/// Id, object, unit (org.freedesktop.systemd1(5)).
type JobNew = (u32, zbus::wire::OwnedObjectPath, String);
/// The same, and its result.
type JobRemoved = (u32, zbus::wire::OwnedObjectPath, String, String);

/// Reports what happens to those consumers that are units, until the connection is lost, the set of consumers changes (`Ok`), or nobody
/// listens any more.
pub async fn watch(
    consumers: &mut watch::Receiver<BTreeSet<String>>,
    report: &mpsc::Sender<Watched>,
) -> zbus::Result<()> {
    let systemd = Systemd::connect().await?;
    let signals = connection::Builder::system().build().await?;
    let names: BTreeSet<String> =
        consumers.borrow_and_update().iter().filter_map(|name| system_unit(name)).map(str::to_owned).collect();
    let mut watch = Watch::new(systemd, report, None);
    watch.subscribe(&signals, &names).await?;
    tokio::select! {
        _ = consumers.changed() => Ok(()),
        () = report.closed() => Ok(()),
        ended = watch.report_all(&signals, &names) => ended,
    }
}

/// Reports what happens to these units of a user's manager until it ends: then none of them runs any more.
pub async fn watch_user(user: &str, units: &BTreeSet<String>, report: &mpsc::Sender<Watched>) -> Result<(), UserError> {
    let systemd = user_manager::manager(user).await;
    let signals = user_manager::connect(user).await;
    let (systemd, signals) = match (systemd, signals) {
        (Ok(systemd), Ok(signals)) => (systemd, signals),
        (Err(error), _) | (_, Err(error)) => {
            if matches!(error, UserError::Absent { .. }) {
                none_runs(user, units, report).await;
            }
            return Err(error);
        }
    };
    let mut watch = Watch::new(systemd, report, Some(user));
    watch.subscribe(&signals, units).await?;
    let ended = watch.report_all(&signals, units).await;
    none_runs(user, units, report).await;
    match ended {
        Err(zbus::Error::InputOutput(_)) => Ok(()), // the user has left
        ended => Ok(ended?),
    }
}

async fn none_runs(user: &str, units: &BTreeSet<String>, report: &mpsc::Sender<Watched>) {
    for unit in units {
        let unit = Consumer::UserUnit { user, unit }.name();
        let _ = report.send(Watched::Unit { unit, running: false, run: None }).await;
    }
}

/// Returns when the host goes down: whoever asked for it, and however, `shutdown.target` gets a job before anything is stopped.
pub async fn until_shutdown() -> zbus::Result<()> {
    let signals = connection::Builder::system().build().await?;
    let mut stream = MessageStream::from(&signals);
    let begins = of_systemd().path(MANAGER_PATH).interface(MANAGER_INTERFACE).member("JobNew");
    let bus = fdo::DBusProxy::new(&signals).await?;
    bus.add_match_rule(begins.arg(2, "shutdown.target").build()?).await?;
    subscribe(&signals).await?;
    if Systemd::connect().await?.is_going_down().await? {
        return Ok(());
    }
    loop {
        let message = stream.next().await.ok_or_else(|| zbus::Error::InputOutput(lost().into()))??;
        if message.header().member().is_some_and(|member| member.as_str() == "JobNew") {
            return Ok(());
        }
    }
}

fn lost() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection to the bus was lost")
}

struct Watch<'a> {
    systemd: Systemd,
    report: &'a mpsc::Sender<Watched>,
    /// Whose manager it is, if not the system's.
    user: Option<&'a str>,
    /// Units by the path of their object.
    paths: BTreeMap<String, String>,
    /// Whether each runs, and which run it is: a unit may be restarted between two looks.
    known: BTreeMap<String, (bool, Option<RunId>)>,
}

impl<'a> Watch<'a> {
    fn new(systemd: Systemd, report: &'a mpsc::Sender<Watched>, user: Option<&'a str>) -> Self {
        Self { systemd, report, user, paths: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// The consumer that a unit is.
    fn consumer(&self, unit: String) -> String {
        match self.user {
            Some(user) => Consumer::UserUnit { user, unit: &unit }.name(),
            None => unit,
        }
    }

    /// The present and then every change that a signal tells of; ends with the connection.
    async fn report_all(&mut self, signals: &Connection, units: &BTreeSet<String>) -> zbus::Result<()> {
        let mut stream = MessageStream::from(signals);
        if self.report.send(Watched::Reachable).await.is_err() {
            return Ok(());
        }
        self.look_at(units.iter().cloned()).await?;
        while let Some(message) = stream.next().await {
            let concerned = self.concerned(&message?, signals).await?;
            self.look_at(concerned.into_iter()).await?;
        }
        Err(zbus::Error::InputOutput(lost().into()))
    }

    /// Before anything is asked, so that nothing is missed in between.
    async fn subscribe(&mut self, signals: &Connection, units: &BTreeSet<String>) -> zbus::Result<()> {
        let bus = fdo::DBusProxy::new(signals).await?;
        let of_manager =
            |member: &'static str| of_systemd().path(MANAGER_PATH).interface(MANAGER_INTERFACE).member(member);
        let owner = MatchRule::builder().msg_type(Type::Signal).sender("org.freedesktop.DBus");
        bus.add_match_rule(owner.member("NameOwnerChanged").add_arg(SYSTEMD).build()?).await?;
        bus.add_match_rule(of_manager("Reloading").build()?).await?;
        bus.add_match_rule(of_manager("JobRemoved").arg(3, "dependency").build()?).await?;
        if units.iter().any(|unit| unit.ends_with(".slice")) {
            bus.add_match_rule(of_manager("JobRemoved").arg(3, "done").build()?).await?;
        }
        for unit in units {
            bus.add_match_rule(of_manager("JobNew").arg(2, unit.as_str()).build()?).await?;
            bus.add_match_rule(of_manager("JobRemoved").arg(2, unit.as_str()).arg(3, "done").build()?).await?;
            for member in ["UnitNew", "UnitRemoved"] {
                bus.add_match_rule(of_manager(member).add_arg(unit.as_str()).build()?).await?;
            }
        }
        self.learn_paths(units).await?;
        for path in self.paths.keys() {
            let properties = of_systemd().path(path.as_str()).interface("org.freedesktop.DBus.Properties");
            bus.add_match_rule(properties.member("PropertiesChanged").add_arg(UNIT_INTERFACE).build()?).await?;
        }
        subscribe(signals).await
    }

    /// Of what systemd can load; the others are only looked at.
    async fn learn_paths(&mut self, units: &BTreeSet<String>) -> zbus::Result<()> {
        for unit in units {
            match self.systemd.unit_path(unit).await {
                Err(zbus::Error::MethodError(..)) => {}
                path => drop(self.paths.insert(path?.to_string(), unit.clone())),
            }
        }
        Ok(())
    }

    /// The units that a signal is about.
    async fn concerned(&mut self, message: &zbus::Message, signals: &Connection) -> zbus::Result<Vec<String>> {
        let all = || self.paths.values().cloned().collect::<Vec<_>>();
        let header = message.header();
        Ok(match (header.member().map(|member| member.as_str()), header.path().map(|path| path.as_str())) {
            (Some("PropertiesChanged"), Some(path)) => self.paths.get(path).cloned().into_iter().collect(),
            (Some("UnitNew" | "UnitRemoved"), _) => {
                let unit = message.body().deserialize::<(String, zbus::wire::OwnedObjectPath)>().map(|(unit, _)| unit);
                unit.ok().into_iter().filter(|unit| self.paths.values().any(|known| known == unit)).collect()
            }
            (Some("JobNew"), _) => {
                if let Ok((job, _, unit)) = message.body().deserialize::<JobNew>() {
                    let _ = self.report.send(Watched::JobQueued { unit: self.consumer(unit), job }).await;
                }
                Vec::new()
            }
            (Some("JobRemoved"), _) => {
                if let Ok((job, _, unit, result)) = message.body().deserialize::<JobRemoved>() {
                    self.job_removed(job, unit, &result).await?;
                }
                Vec::new()
            }
            (Some("Reloading"), _) => all(),
            (Some("NameOwnerChanged"), _) => {
                // systemd has executed itself anew; it remembers its subscribers, but not for certain
                subscribe(signals).await?;
                let _ = self.report.send(Watched::Reachable).await;
                all()
            }
            _ => Vec::new(),
        })
    }

    async fn job_removed(&mut self, job: u32, unit: String, result: &str) -> zbus::Result<()> {
        let is_consumer = self.paths.values().any(|known| *known == unit);
        let news = match result {
            "dependency" if is_consumer => Watched::StartMissed { unit: self.consumer(unit) },
            "done" if is_consumer => {
                self.look_at(std::iter::once(unit.clone())).await?;
                if self.known.get(&unit).is_none_or(|(running, _)| *running) {
                    return Ok(());
                }
                Watched::JobDone { unit: self.consumer(unit), job }
            }
            "done" => {
                let slice = self.systemd.slice_among(&unit, self.paths.values().map(String::as_str)).await;
                let Some(slice) = if_known(slice)?.flatten() else { return Ok(()) };
                // who has just been started in a slice that is held is to be held with it
                Watched::Unit { unit: self.consumer(slice.to_owned()), running: true, run: None }
            }
            _ => return Ok(()),
        };
        let _ = self.report.send(news).await;
        Ok(())
    }

    /// Asks systemd, and reports what is not known yet.
    async fn look_at(&mut self, units: impl Iterator<Item = String>) -> zbus::Result<()> {
        for unit in units {
            // to look must not load it: systemd would drop it again and say so, and that would be the next occasion to look
            let running = self.systemd.is_loaded(&unit).await?
                && if_known(self.systemd.activity(&unit).await)? == Some(Activity::Running);
            let run = if running { if_known(self.systemd.run(&unit).await)?.flatten() } else { None };
            let present = (running, run.clone());
            if self.known.get(&unit) != Some(&present) {
                self.known.insert(unit.clone(), present);
                let _ = self.report.send(Watched::Unit { unit: self.consumer(unit), running, run }).await;
            }
        }
        Ok(())
    }
}

/// What systemd refuses to say of a unit is not known.
fn if_known<T>(answer: zbus::Result<T>) -> zbus::Result<Option<T>> {
    match answer {
        Err(zbus::Error::MethodError(..)) => Ok(None),
        answer => answer.map(Some),
    }
}

fn of_systemd<'m>() -> zbus::match_rule::Builder<'m> {
    MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD)
}

/// Without a subscriber systemd sends no signals.
async fn subscribe(connection: &Connection) -> zbus::Result<()> {
    match SubscriptionProxy::new(connection).await?.subscribe().await {
        Err(zbus::Error::MethodError(name, _, _)) if name.as_str().ends_with(".AlreadySubscribed") => Ok(()),
        Err(zbus::Error::MethodError(name, message, _)) => {
            warn!(error = %name, message, "systemd does not tell when units start and stop");
            Ok(())
        }
        result => result,
    }
}
