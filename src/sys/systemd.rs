//! systemd's manager over D-Bus: just the methods nasmount uses (org.freedesktop.systemd1(5)).
//!
//! - A stop and SIGTERM continue a stopped unit by themselves: PID 1 sends SIGCONT after SIGTERM (read at the source, seen on 257).
//! - `KillUnit` with "all" reaches every process of the unit's control group.
//! - FreezeUnit is not used: from systemd 256 on, a unit killed while frozen cannot be used until the next boot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use zbus::proxy::CacheProperties;
use zbus::wire::OwnedObjectPath;
use zbus::{Connection, connection, proxy};

use crate::plan::doctor::facts::{Propagation, Sandbox};
use crate::share::consumers::RunId;

/// A method call that takes longer means that PID 1 or the bus hangs.
pub(super) const METHOD_TIMEOUT: Duration = Duration::from_secs(8);

/// systemctl(1) gives a reload as long: 8 s were not enough for a busy host with an emulated processor.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(180);

/// Pause between two looks at the tasks of a unit that is being paused. A task that was forking escapes one SIGSTOP.
const PAUSE_POLL: Duration = Duration::from_millis(50);

/// Pause between two looks at a unit that is being started.
const START_POLL: Duration = Duration::from_millis(200);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit_processes(&self, name: &str) -> zbus::Result<Vec<(String, u32, String)>>;
    fn reload(&self) -> zbus::Result<()>;
    fn enable_unit_files(&self, files: &[&str], runtime: bool, force: bool) -> zbus::Result<(bool, Vec<FileChange>)>;
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<FileChange>>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn list_jobs(&self) -> zbus::Result<Vec<Job>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn required_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn bound_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn wanted_by(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn after(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"), name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

/// What is in it is systemd.exec(5)'s. A path to bind: source, destination, whether it may be missing, flags.
#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait Service {
    #[zbus(property(emits_changed_signal = "false"))]
    fn mount_flags(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn root_directory(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn root_image(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn inaccessible_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn temporary_file_system(&self) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn bind_paths(&self) -> zbus::Result<Vec<(String, String, bool, u64)>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn bind_read_only_paths(&self) -> zbus::Result<Vec<(String, String, bool, u64)>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn read_write_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn read_only_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn no_exec_paths(&self) -> zbus::Result<Vec<String>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn protect_home(&self) -> zbus::Result<String>;
}

/// Id, unit, type, state, and the paths of its and the unit's objects.
type Job = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

/// Kind of the change, the link, and where it leads.
type FileChange = (String, String, String);

/// A signal a unit can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGKILL.
    Kill,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
            Self::Kill => libc::SIGKILL,
        }
    }
}

/// Whether a unit runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// active, activating, reloading or deactivating: it has processes.
    Running,
    /// inactive or failed.
    NotRunning,
    /// systemd does not know it.
    Unknown,
}

/// Where a start has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its job waits, or the unit is activating.
    UnderWay,
    /// It runs.
    Done,
    /// It does not run; the unit's state in systemd's words.
    Failed(String),
}

/// Is this another root directory than that of PID 1, whose systemd is none of ours then?
pub fn is_chroot() -> bool {
    let root = |path: &str| fs::metadata(path).map(|root| (root.dev(), root.ino()));
    matches!((root("/proc/1/root/"), root("/")), (Ok(its), Ok(ours)) if its != ours)
}

/// The system's service manager.
#[derive(Clone, Debug)]
pub struct Systemd {
    manager: ManagerProxy<'static>,
    connection: Connection,
}

impl Systemd {
    /// Connects to the system bus; a connection of its own, so that nothing else can stop its queue.
    pub async fn connect() -> zbus::Result<Self> {
        Self::on(connection::Builder::system().method_timeout(METHOD_TIMEOUT).build().await?).await
    }

    /// Over this connection.
    pub async fn on(connection: Connection) -> zbus::Result<Self> {
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { manager, connection })
    }

    /// Has systemd run its generators and read all units anew (`systemctl daemon-reload`); ends when that is done.
    pub async fn reload() -> zbus::Result<()> {
        let connection = connection::Builder::system().method_timeout(RELOAD_TIMEOUT).build().await?;
        Self::on(connection).await?.manager.reload().await
    }

    /// What failed before no longer counts (`systemctl reset-failed UNIT`). A unit that is not loaded has not failed.
    pub async fn reset_failed(&self, unit: &str) -> zbus::Result<()> {
        match self.manager.reset_failed_unit(unit).await {
            Err(error) if is_unknown_unit(&error) => Ok(()),
            result => result,
        }
    }

    /// Is the unit loaded? One that is not does not run, and asking in any other way would load it.
    pub async fn is_loaded(&self, unit: &str) -> zbus::Result<bool> {
        match self.manager.get_unit(unit).await {
            Ok(_) => Ok(true),
            Err(zbus::Error::MethodError(..)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The path of a unit's object; loads the unit if need be.
    pub(super) async fn unit_path(&self, unit: &str) -> zbus::Result<OwnedObjectPath> {
        self.manager.load_unit(unit).await
    }

    async fn unit(&self, unit: &str) -> zbus::Result<UnitProxy<'_>> {
        let path = self.unit_path(unit).await?;
        // asked for each time: a cache would be another subscription for each look
        UnitProxy::builder(&self.connection).path(path).cache_properties(CacheProperties::No).build().await
    }

    /// Units with which this one is started, of those that systemd has loaded.
    pub async fn pulled_in_by(&self, unit: &str) -> zbus::Result<Vec<String>> {
        let proxy = self.unit(unit).await?;
        Ok([proxy.required_by().await?, proxy.bound_by().await?, proxy.wanted_by().await?].concat())
    }

    /// Units after which this one is started; `None` if systemd does not know it.
    pub async fn starts_after(&self, unit: &str) -> zbus::Result<Option<Vec<String>>> {
        let proxy = self.unit(unit).await?;
        if proxy.load_state().await? == "not-found" { Ok(None) } else { proxy.after().await.map(Some) }
    }

    /// What the settings of a service do to the mounts that it sees.
    pub async fn sandbox(&self, service: &str) -> zbus::Result<Sandbox> {
        let path = self.unit_path(service).await?;
        let proxy =
            ServiceProxy::builder(&self.connection).path(path).cache_properties(CacheProperties::No).build().await?;
        let is_private = proxy.mount_flags().await? & libc::MS_PRIVATE != 0;
        let root = [proxy.root_directory().await?, proxy.root_image().await?];
        let temporary = proxy.temporary_file_system().await?.into_iter().map(|(path, _)| path);
        let bound = [proxy.bind_paths().await?, proxy.bind_read_only_paths().await?].concat();
        Ok(Sandbox {
            propagation: if is_private { Propagation::None } else { Propagation::FromHost },
            root: root.into_iter().find(|root| !root.is_empty() && root != "/"),
            hidden: proxy.inaccessible_paths().await?.into_iter().chain(temporary).collect(),
            bound: bound.into_iter().map(|(source, ..)| source).collect(),
            itself: [
                proxy.read_write_paths().await?,
                proxy.read_only_paths().await?,
                proxy.exec_paths().await?,
                proxy.no_exec_paths().await?,
            ]
            .concat(),
            home: proxy.protect_home().await?,
        })
    }

    /// Its version, as its distributor writes it: `257.13-1~deb13u1`.
    pub async fn version(&self) -> zbus::Result<String> {
        self.manager.version().await
    }

    /// Does the unit run?
    pub async fn activity(&self, unit: &str) -> zbus::Result<Activity> {
        let proxy = self.unit(unit).await?;
        Ok(match proxy.active_state().await?.as_str() {
            "inactive" | "failed" if proxy.load_state().await? == "not-found" => Activity::Unknown,
            "inactive" | "failed" => Activity::NotRunning,
            _ => Activity::Running,
        })
    }

    /// Which run of the unit this is, or was the last: another one after each start. None before its first since the boot.
    pub async fn run(&self, unit: &str) -> zbus::Result<Option<RunId>> {
        let id = self.unit(unit).await?.invocation_id().await?;
        let is_one = id.iter().any(|byte| *byte != 0);
        Ok(is_one.then(|| id.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Its state in systemd's words: active, activating, deactivating, inactive, failed.
    pub async fn active_state(&self, unit: &str) -> zbus::Result<String> {
        self.unit(unit).await?.active_state().await
    }

    /// How far the start of a unit has got: while its job waits for others, the unit itself is still inactive.
    pub async fn start_progress(&self, unit: &str) -> zbus::Result<Start> {
        let proxy = self.unit(unit).await?;
        let (job, _) = proxy.job().await?;
        let state = proxy.active_state().await?;
        Ok(match state.as_str() {
            "activating" => Start::UnderWay,
            "active" | "reloading" => Start::Done,
            _ if job != 0 => Start::UnderWay,
            _ => Start::Failed(state),
        })
    }

    /// Does a job of the unit wait or run?
    pub async fn has_job(&self, unit: &str) -> zbus::Result<bool> {
        Ok(self.is_loaded(unit).await? && self.unit(unit).await?.job().await?.0 != 0)
    }

    /// Is any unit being stopped at this moment, but these?
    pub async fn is_stopping_others(&self, but: &[&str]) -> zbus::Result<bool> {
        let jobs = self.manager.list_jobs().await?;
        let stops = |job: &&Job| job.2 == "stop" && job.3 == "running";
        Ok(jobs.iter().filter(stops).any(|job| !but.contains(&job.1.as_str())))
    }

    /// Is the host going down? Then every start is refused.
    pub async fn is_going_down(&self) -> zbus::Result<bool> {
        Ok(self.manager.system_state().await? == "stopping")
    }

    /// Queues a start job; an opposite job of the administrator wins (mode "fail"). A service that waits for its `Restart=` is
    /// restarted: a start job would wait for that, also if its own job was given up (service_start in systemd's service.c).
    pub async fn start(&self, unit: &str) -> zbus::Result<()> {
        let waits = self.unit(unit).await?.sub_state().await?.starts_with("auto-restart");
        let job = match waits {
            true => self.manager.restart_unit(unit, "fail").await,
            false => self.manager.start_unit(unit, "fail").await,
        };
        job.map(drop)
    }

    /// The one of these consumers that is a slice in which a unit runs: it is paused with that.
    pub async fn slice_among<'a>(
        &self,
        unit: &str,
        consumers: impl Iterator<Item = &'a str>,
    ) -> zbus::Result<Option<&'a str>> {
        let slices: Vec<&str> = consumers.filter(|consumer| consumer.ends_with(".slice")).collect();
        if slices.is_empty() {
            return Ok(None);
        }
        let processes = self.manager.get_unit_processes(unit).await?;
        let Some((cgroup, ..)) = processes.first() else { return Ok(None) };
        Ok(slices.into_iter().find(|slice| cgroup.split('/').any(|part| part == *slice)))
    }

    /// Queues a stop job.
    pub async fn stop(&self, unit: &str) -> zbus::Result<()> {
        self.manager.stop_unit(unit, "replace").await.map(|_| ())
    }

    /// Has it started at each boot from now on, without starting it (`systemctl enable UNIT`).
    pub async fn enable(&self, unit: &str) -> zbus::Result<()> {
        self.manager.enable_unit_files(&[unit], false, false).await.map(drop)
    }

    /// The opposite.
    pub async fn disable(&self, unit: &str) -> zbus::Result<()> {
        self.manager.disable_unit_files(&[unit], false).await.map(drop)
    }

    /// Starts a unit and waits until that has come to an end, as `systemctl start` does; systemd bounds how long it may take.
    pub async fn start_and_wait(&self, unit: &str) -> zbus::Result<Start> {
        self.start(unit).await?;
        loop {
            match self.start_progress(unit).await? {
                Start::UnderWay => tokio::time::sleep(START_POLL).await,
                ended @ (Start::Done | Start::Failed(_)) => return Ok(ended),
            }
        }
    }

    /// Restarts a unit, if it runs, and waits until that has come to an end; an opposite job of the administrator wins (mode "fail").
    pub async fn try_restart_and_wait(&self, unit: &str) -> zbus::Result<Start> {
        self.manager.try_restart_unit(unit, "fail").await?;
        while self.has_job(unit).await? {
            tokio::time::sleep(START_POLL).await; // until its job is done the unit can be active as before
        }
        self.start_progress(unit).await
    }

    /// Sends a signal to every process of a unit. A unit without processes is no error.
    pub async fn signal(&self, unit: &str, signal: Signal) -> zbus::Result<()> {
        match self.manager.kill_unit(unit, "all", signal.number()).await {
            Err(zbus::Error::MethodError(name, _, _)) if is_gone(name.as_str()) => Ok(()),
            result => result,
        }
    }

    /// Stops every task of a unit with SIGSTOP. Done when each is stopped or in D, where it stops as soon as its call returns:
    /// nothing waits for more.
    pub async fn pause(&self, unit: &str) -> zbus::Result<()> {
        loop {
            self.signal(unit, Signal::Stop).await?;
            let processes = match self.manager.get_unit_processes(unit).await {
                Err(zbus::Error::MethodError(name, _, _)) if is_gone(name.as_str()) => return Ok(()),
                result => result?,
            };
            let running = |(cgroup, pid, _): &(String, u32, String)| {
                has_running_task(*pid).unwrap_or(false) && !is_frozen(cgroup)
            };
            let running = processes.iter().any(running);
            if !running {
                return Ok(());
            }
            tokio::time::sleep(PAUSE_POLL).await;
        }
    }
}

/// Does the error say that systemd does not know the unit?
pub fn is_unknown_unit(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Does the error say that a job of the opposite kind is queued or under way (mode "fail")?
pub fn is_opposed(error: &zbus::Error) -> bool {
    let name = "org.freedesktop.systemd1.TransactionIsDestructive";
    matches!(error, zbus::Error::MethodError(said, _, _) if said.as_str() == name)
}

/// Errors that say that a unit, or its processes, are not there (any more).
fn is_gone(error: &str) -> bool {
    matches!(
        error,
        "org.freedesktop.systemd1.NoSuchUnit"
            | "org.freedesktop.systemd1.NoSuchProcess"
            | "org.freedesktop.systemd1.NoUnitForPID"
    )
}

/// Whoever froze it: SIGSTOP waits for the thaw, and then acts before anything else does. A user's manager, which is not to be trusted, may
/// say anything: no path that leads elsewhere is read.
fn is_frozen(cgroup: &str) -> bool {
    if cgroup.split('/').any(|part| part == "..") {
        return false;
    }
    let events = fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
}

fn has_running_task(pid: u32) -> io::Result<bool> {
    Ok(task_states(pid)?.iter().any(|state| matches!(state, 'R' | 'S')))
}

/// State letters of a process's tasks, from /proc/PID/task/TID/stat, which takes no lock of the process's memory.
fn task_states(pid: u32) -> io::Result<Vec<char>> {
    let mut states = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("stat")) else { continue };
        // the name in parentheses may contain anything
        states.extend(text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
    }
    Ok(states)
}
