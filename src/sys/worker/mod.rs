//! A worker: a disposable child process for any call that may never return.
//!
//! It is this same program, started as `nasmount worker`, reads one [`Request`] as JSON from its standard input and
//! writes one [`Reply`] to its standard output. It dies with the daemon (PR_SET_PDEATHSIG) unless it hangs in the kernel; then it is
//! abandoned, and never waited for.

mod abandoned;
mod beside;
mod clone;
mod copies;
mod follow;
pub mod holders;
mod host;
mod mount;
mod mount_request;
mod password;
mod rescue;
mod trial;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::plan::beside::{Doing, Found, Said};
use crate::plan::diagnosis::Passed;
use crate::share::detector::LocalTrouble;
use crate::share::detector::network::Interface;
use crate::share::event::Attachment;
use crate::status::{Holder, NamespaceCopy};

pub use self::abandoned::hanging;
use self::abandoned::{Abandoned, HANGING, Left};
pub use self::follow::{Ended, follow, follow_steps};
pub use self::mount_request::{Attribute, DirtyData, KernelOption, Login, MountRequest};
use super::barrier_socket::Barred;

/// The argument, alone, with which this program is a worker.
pub const COMMAND: &str = "worker";

/// What a worker can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Load the modules, make nasmount's directories; answers what the kernel can do.
    Prepare,
    /// Load the modules; answers what the kernel can do.
    LookAtKernel,
    /// What is in place for a share.
    Survey {
        /// Share.
        share: String,
        /// Its mount point.
        mount_point: PathBuf,
    },
    /// Have the barrier of a share laid.
    LayBarrier(Barred),
    /// Have accesses to it meet something else, if it lies there.
    SetAccess(Barred),
    /// Have a barrier not laid again after a reboot; one that lies stays.
    ForgetBarrier(Barred),
    /// Mount detached, verify, pin as the share's clone.
    Mount(Box<MountRequest>),
    /// Mount detached, and let go of it.
    TryLogin(Box<MountRequest>),
    /// The same, with a look at what is in it; answers for each part that went well, and at last as the others do.
    TryShare(Box<TrialRequest>),
    /// Give the session of a mount that goes on the password of a login as its second one.
    AddPassword {
        /// Share.
        share: String,
        /// Where the login is.
        login: Login,
    },
    /// statfs through the clone, and is the marker there?
    Verify {
        /// Share.
        share: String,
        /// A path below its root that has to exist.
        marker: Option<String>,
    },
    /// Write back what is unwritten, through the clone.
    Flush {
        /// Share.
        share: String,
    },
    /// Has the kernel thrown unwritten data away since it was last asked?
    AskForLoss {
        /// Share.
        share: String,
    },
    /// Clone onto the path.
    Attach(Barred),
    /// Share off the path, if it is what lies there.
    Detach {
        /// Share.
        share: String,
        /// Its mount point.
        mount_point: PathBuf,
    },
    /// CIFS_IOC_SHUTDOWN.
    ShutDown {
        /// Share name.
        share: String,
    },
    /// CIFS_IOC_SHUTDOWN, then drop the clone.
    Release {
        /// Share.
        share: String,
        /// SIGKILL to those of these processes who still have it open.
        kill: Vec<i32>,
    },
    /// Drop the clone alone.
    DropClone {
        /// Share.
        share: String,
    },
    /// Who has a share open.
    ListHolders {
        /// Share.
        share: String,
    },
    /// Where else a share can be seen: in other mount namespaces, and bound on this host.
    ListCopies {
        /// Share.
        share: String,
        /// `//address/share[/directory]`, as it is or was mounted.
        source: String,
        /// Its mount point.
        mount_point: PathBuf,
    },
    /// What lies in the bare directory under a mount point.
    ListBeside {
        /// The mount point.
        mount_point: PathBuf,
    },
    /// Move that elsewhere; answers for each file, and at last as the others do.
    Rescue(Box<RescueRequest>),
    /// Take a share that is no longer configured off the host.
    Retire {
        /// Share.
        share: String,
        /// Its mount point.
        mount_point: PathBuf,
    },
    /// Unmount a CIFS mount that is not nasmount's, unless somebody has it open.
    UnmountOther {
        /// Where it is.
        mount_point: PathBuf,
    },
    /// Destroy the CIFS sockets to a server.
    DestroySockets {
        /// Its address.
        server: IpAddr,
    },
    /// Look at this host's way to a server.
    LookAtRoute {
        /// Its address, with the zone of a link-local one.
        server: SocketAddr,
    },
    /// List this host's interfaces.
    ListInterfaces,
    /// Resolve a host name.
    Resolve {
        /// The name.
        host: String,
    },
}

/// What to try of a share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrialRequest {
    /// As it would be mounted.
    pub mount: MountRequest,
    /// `//address/share`, if the source names a directory in it.
    pub share_alone: Option<String>,
    /// Name of a file to write and to delete, if that is wanted.
    pub write: Option<String>,
}

/// What to do about the files that lie beside a share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RescueRequest {
    /// Share.
    pub share: String,
    /// Its mount point.
    pub mount_point: PathBuf,
    /// Where they are to go.
    pub to: Destination,
    /// Whether they go.
    pub doing: Doing,
}

/// Where files go that lie beside a share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// Into a directory of the share's name in this one.
    Aside(PathBuf),
    /// Onto the share.
    Share,
}

/// What a worker found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// To `Prepare` and `LookAtKernel`.
    Kernel {
        /// Text of /proc/fs/cifs/mount_params, if there is one.
        mount_params: Option<String>,
        /// Backing devices have `max_bytes` and `strict_limit`.
        dirty_limits: bool,
    },
    /// To `Survey`.
    Found {
        /// The clone that is pinned.
        clone: Option<CloneFound>,
        /// The barrier lies on the mount point.
        barrier: bool,
        /// What lies on the mount point.
        attached: Attachment,
    },
    /// To `Detach`, `Release`, `ListHolders` and `UnmountOther`: who has or had it open.
    Holders(Vec<Holder>),
    /// To `ListCopies`.
    Copies(Vec<NamespaceCopy>),
    /// To `AskForLoss`: the error of a write that did not reach the server, if there was one.
    Lost(Option<String>),
    /// To `DestroySockets`.
    Destroyed {
        /// How many.
        sockets: usize,
    },
    /// To `LookAtRoute`.
    Route {
        /// What is wrong with it, and where.
        trouble: Option<(LocalTrouble, String)>,
    },
    /// To `ListInterfaces`.
    Interfaces(Vec<Interface>),
    /// To `Resolve`: each once, in the resolver's order.
    Addresses(Vec<IpAddr>),
    /// To `TryShare`, several times.
    Passed(Passed),
    /// To `ListBeside`.
    Beside(Found),
    /// To `Rescue`, several times.
    Rescued(Said),
}

/// Of what a clone is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneFound {
    /// `//address/share[/directory]`, as it was mounted.
    pub source: String,
    /// Its options, as the kernel tells them.
    pub options: String,
}

/// Why a worker failed: what it attempted on what, and the kernel's error number.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{attempt}: {cause}")]
pub struct Failed {
    /// What was attempted on what.
    pub attempt: String,
    /// The cause, for people.
    pub cause: String,
    /// Its number.
    pub errno: Option<i32>,
    /// At which stage, as far as it decides what the number means.
    pub stage: Stage,
}

/// Where a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The server and the kernel negotiated a mount.
    Negotiation,
    /// What the configuration names was looked up: files, options, users.
    Configuration,
    /// It was looked whether the share holds what it should.
    Contents,
    /// Anything else.
    Other,
}

impl Failed {
    /// A failure on this side of the worker.
    pub fn local(attempt: impl Into<String>, error: &io::Error) -> Self {
        Self { attempt: attempt.into(), cause: error.to_string(), errno: error.raw_os_error(), stage: Stage::Other }
    }

    fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }
}

/// What a worker writes.
pub type Reply = Result<Answer, Failed>;

/// Says what was attempted when a call fails.
trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            Failed { attempt: what(), cause: error.to_string(), errno: error.raw_os_error(), stage: Stage::Other }
        })
    }
}

/// Takes everything of nasmount's off the host; for `make uninstall`, after the services have stopped.
pub fn clear() -> Result<(), Failed> {
    host::clear()
}

/// Starts a worker with a request. The caller waits for `reply` with its own deadline.
pub async fn start(request: &Request) -> io::Result<Child> {
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .current_dir("/")
        .kill_on_drop(false)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
    }
    Ok(child)
}

/// Runs `nasmount check`; the problems as it says them, if there are any.
pub async fn check_configuration(file: Option<&Path>) -> Result<(), String> {
    /// Files of a few kilobytes; a disk that has to spin up takes ten seconds.
    const WITHIN: Duration = Duration::from_secs(15);
    let mut command = Command::new("/proc/self/exe");
    command.args(["--no-color", "check"]);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let cannot = |why: String| format!("error: cannot check the configuration: {why}");
    match tokio::time::timeout(WITHIN, running).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) if output.stderr.is_empty() => Err(cannot(output.status.to_string())),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
        Ok(Err(error)) => Err(cannot(error.to_string())),
        Err(_) => Err(cannot(format!("a file that it names has not been read within {} s", WITHIN.as_secs()))),
    }
}

/// Waits for a worker's end and reads its reply; `end` resolving ends the worker with SIGKILL, which one that hangs in the
/// kernel survives: then it is left to itself, and [`hanging`] tells of it until it is gone.
pub async fn reply(request: &Request, child: Child, end: impl Future<Output = ()>) -> Reply {
    read_reply(child, end, || Some(HANGING.add(request))).await
}

async fn read_reply(
    mut child: Child,
    end: impl Future<Output = ()>,
    ended: impl FnOnce() -> Option<Left<'static>>,
) -> Reply {
    let mut output = Vec::new();
    let mut stdout = child.stdout.take();
    let mut end = std::pin::pin!(end);
    let mut left = None;
    let reading = async {
        match &mut stdout {
            Some(stdout) => stdout.read_to_end(&mut output).await,
            None => Ok(0),
        }
    };
    let read = tokio::select! {
        read = reading => read,
        () = &mut end => {
            left = ended();
            child.start_kill().attempt(|| "cannot end a worker".into())?;
            Ok(0)
        }
    };
    read.attempt(|| "cannot read a worker's reply".into())?;
    let status = child.wait().await.attempt(|| "cannot wait for a worker".into())?;
    drop(left);
    if let Some(mut stdout) = stdout {
        // it may have answered in the moment in which it was ended
        stdout.read_to_end(&mut output).await.attempt(|| "cannot read a worker's reply".into())?;
    }
    if !status.success() && output.is_empty() {
        let attempt = "the worker was ended".into();
        return Err(Failed { attempt, cause: status.to_string(), errno: None, stage: Stage::Other });
    }
    serde_json::from_slice(&output).map_err(io::Error::other).attempt(|| "cannot read a worker's reply".into())?
}

/// Both, for an answer that nobody waits for beyond a limit: a worker that hangs longer is ended, and left to itself. While
/// two of them hang on, no other is started for the same kind of request.
pub async fn ask(request: &Request, limit: Duration) -> Reply {
    ask_unless_others_hang(&HANGING, request, start(request), limit).await
}

async fn ask_unless_others_hang(
    hanging: &'static Abandoned,
    request: &Request,
    starting: impl Future<Output = io::Result<Child>>,
    limit: Duration,
) -> Reply {
    hanging.admit(request)?;
    let child = starting.await.map_err(|error| Failed::local("cannot start a worker", &error))?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended = async {
        let _ = ended.await;
    };
    let mut answer = tokio::spawn(read_reply(child, ended, || None));
    match tokio::time::timeout(limit, &mut answer).await {
        Ok(answer) => answer.map_err(io::Error::from).attempt(|| "cannot wait for a worker".into())?,
        Err(_) => {
            let left = hanging.add(request); // before another is admitted
            drop(end);
            tokio::spawn(async move {
                let _ = answer.await; // until the worker is gone, however long that takes
                drop(left);
            });
            let cause = format!("no answer within {} s", limit.as_secs());
            Err(Failed { attempt: "a worker hangs".into(), cause, errno: None, stage: Stage::Other })
        }
    }
}

/// Asks for this host's interfaces.
pub async fn list_interfaces(limit: Duration) -> Result<Vec<Interface>, Failed> {
    let answer = ask(&Request::ListInterfaces, limit).await?;
    let Answer::Interfaces(found) = answer else {
        return Err(Failed::local("cannot list interfaces", &io::ErrorKind::InvalidData.into()));
    };
    Ok(found)
}

/// The worker's side: serves the request on standard input.
pub fn serve() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid().is_none_or(rustix::process::Pid::is_init) {
        return Ok(()); // the daemon died before that was said
    }
    // the login passes through this process: no core dump, no ptrace
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text).map_err(io::Error::other)?;
    let reply = perform(request);
    let bytes = serde_json::to_vec(&reply).map_err(io::Error::other)?;
    io::stdout().write_all(&bytes)?;
    io::stdout().flush()
}

fn perform(request: Request) -> Reply {
    match request {
        Request::Prepare => host::prepare(),
        Request::LookAtKernel => host::look_at_kernel(),
        Request::Survey { share, mount_point } => host::survey(&share, &mount_point),
        Request::LayBarrier(barred) => clone::barrier(&barred).map(|_| Answer::Done),
        Request::SetAccess(barred) => clone::set_access(&barred),
        Request::ForgetBarrier(barred) => clone::forget_barrier(&barred),
        Request::Mount(request) => mount::mount(&request),
        Request::TryLogin(request) => mount::try_login(&request),
        Request::TryShare(request) => trial::run(&request),
        Request::AddPassword { share, login } => password::add(&share, &login),
        Request::Verify { share, marker } => clone::verify(&share, marker.as_deref()),
        Request::Flush { share } => clone::flush(&share),
        Request::AskForLoss { share } => clone::ask_for_loss(&share),
        Request::Attach(barred) => clone::attach(&barred),
        Request::Detach { share, mount_point } => host::detach(&share, &mount_point),
        Request::ShutDown { share } => clone::give_up(&share),
        Request::Release { share, kill } => clone::release(&share, &kill),
        Request::DropClone { share } => clone::forget(&share),
        Request::ListHolders { share } => holders::list(&share),
        Request::ListCopies { share, source, mount_point } => copies::list(&share, &source, &mount_point),
        Request::ListBeside { mount_point } => beside::list(&mount_point),
        Request::Rescue(request) => rescue::run(&request),
        Request::Retire { share, mount_point } => host::retire(&share, &mount_point),
        Request::UnmountOther { mount_point } => host::unmount_other(&mount_point),
        Request::DestroySockets { server } => super::sockets::destroy(server)
            .map(|sockets| Answer::Destroyed { sockets })
            .attempt(|| format!("cannot destroy the sockets to {server}")),
        Request::LookAtRoute { server } => super::route::look(server)
            .map(|trouble| Answer::Route { trouble })
            .attempt(|| format!("cannot look at the way to {server}")),
        Request::ListInterfaces => {
            super::interfaces::read().map(Answer::Interfaces).attempt(|| "cannot list interfaces".into())
        }
        Request::Resolve { host } => host::resolve(&host),
    }
}
