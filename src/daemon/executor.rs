//! Carries out the steps of one share and reports how they ended. Decides nothing: what a failure means is decided in `share`.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};
use tracing::{Instrument as _, debug, info, warn};

use super::network::{CloneAt, LeftOpen, Network};
use super::server_actor::ServerView;
use super::share_actor::Configured;
use crate::config::settings::{CredentialSource, LeftoverHolders, OnAccess, ShareSettings, StaleCopies};
use crate::plan::copies::to_restart;
use crate::plan::layers;
use crate::plan::options::{self, Adjustment, DirtyLimitSupport, KernelOptions};
use crate::share::event::{Done, Mismatch, Survey};
use crate::share::failure::{Failure, FailureClass};
use crate::share::{Event, OpId, Step};
use crate::status::{Holder, NamespaceCopy};
use crate::sys::barrier_socket::Barred;
use crate::sys::mountinfo;
use crate::sys::state_file::StateFiles;
use crate::sys::worker::{self, Answer, CloneFound, Failed, Login, MountRequest, Request, Stage, holders};

/// Workers of one share that were abandoned and hang in the kernel: with this many, no more are started that only ask.
const MAX_HANGING_WORKERS: usize = 2;

/// How long it may take to find out who has a share open: some thousand processes with some thousand files each, on a busy machine (3 s
/// were too few in a VM beside another one). Less than the step that it is a part of may take.
const LIST_WITHIN: Duration = Duration::from_secs(6);

/// The same where they are to be killed: whoever is not found goes on with dead files. Half of what a release may take.
const LIST_TO_KILL_WITHIN: Duration = Duration::from_secs(15);

/// What helps when something that the configuration names is not as it should be.
const MEND_CONFIGURATION: &str = "mend it, or correct the configuration; then `nasmount reload`";

/// What helps when the marker is not there.
const NO_MARKER: &str =
    "is the volume of this share mounted on the NAS? If it is, create the `marker` in it, or correct the key";

/// What the running kernel can do.
#[derive(Debug)]
pub struct Kernel {
    /// Options it knows.
    pub options: KernelOptions,
    /// Whether unwritten data can be limited.
    pub dirty_limits: DirtyLimitSupport,
}

/// What all executors share.
#[derive(Debug)]
pub struct Host {
    /// Veil, fence, sockets.
    pub network: Arc<Network>,
    /// What must be known again after a crash.
    pub files: StateFiles,
    /// What the running kernel can do.
    pub kernel: Kernel,
    /// The kernel serialises all CIFS mounts; nasmount never has two in flight on the host.
    pub mount_slot: AsyncMutex<()>,
}

/// The executor of one share.
#[derive(Debug)]
pub struct Executor {
    /// The name and the mount point in it never change: another one is another share.
    configured: Mutex<Configured>,
    server: watch::Receiver<ServerView>,
    host: Arc<Host>,
    events: mpsc::Sender<Event>,
    in_flight: Mutex<BTreeMap<OpId, Arc<Notify>>>,
    /// Nothing that would be worth waiting for comes by itself.
    hopeless: AtomicBool,
    /// Who had the share open when it was last taken off its path.
    holders_then: Mutex<Vec<Holder>>,
}

impl Executor {
    /// An executor that reports to `events`.
    pub fn new(
        configured: Configured,
        server: watch::Receiver<ServerView>,
        host: Arc<Host>,
        events: mpsc::Sender<Event>,
    ) -> Arc<Self> {
        let configured = Mutex::new(configured);
        Arc::new(Self {
            configured,
            server,
            host,
            events,
            in_flight: Mutex::default(),
            hopeless: AtomicBool::new(false),
            holders_then: Mutex::default(),
        })
    }

    /// Takes over another configuration; options and credentials are used at the next mount.
    pub fn configure(&self, configured: Configured) {
        let on_access = configured.share.on_access;
        let before =
            std::mem::replace(&mut *self.configured.lock().unwrap_or_else(PoisonError::into_inner), configured);
        if before.share.on_access != on_access {
            self.tell_access();
        }
    }

    /// Whether accesses could only wait for a person; then they fail at once.
    pub fn set_hopeless(&self, hopeless: bool) {
        let before = self.hopeless.swap(hopeless, Ordering::Relaxed);
        if before != hopeless && self.configured().share.on_access != OnAccess::Fail {
            self.tell_access();
        }
    }

    fn tell_access(&self) {
        let request = Request::SetAccess(self.barred(&self.configured().share));
        let told = async move {
            if let Err(error) = run(&request, tokio::time::sleep(layers::LOCAL_STEP)).await {
                warn!(%error, "accesses meet what they met until the share comes onto its path again");
            }
        };
        tokio::spawn(told.in_current_span());
    }

    /// As configured, or at once where it is hopeless.
    fn barred(&self, share: &ShareSettings) -> Barred {
        let barred = barred(share);
        if self.hopeless.load(Ordering::Relaxed) { Barred { on_access: OnAccess::Fail, ..barred } } else { barred }
    }

    fn configured(&self) -> Configured {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a step and returns at once.
    pub fn start(self: &Arc<Self>, op: OpId, step: Step) {
        let abandoned = Arc::new(Notify::new());
        self.lock().insert(op, abandoned.clone());
        let executor = Arc::clone(self);
        let task = async move {
            let name = step.name();
            let result = executor.perform(&step, &abandoned).await;
            debug!(op = op.0, operation = name, ?result, "ended");
            executor.lock().remove(&op);
            let _ = executor.events.send(Event::Completed { op, result }).await;
        };
        tokio::spawn(task.in_current_span());
    }

    /// Reports how an operation ended that was never started.
    pub fn report(&self, op: OpId, result: Result<Done, Failure>) {
        let events = self.events.clone();
        tokio::spawn(async move { events.send(Event::Completed { op, result }).await });
    }

    /// Ends the worker of a step.
    pub fn abandon(&self, op: OpId) {
        if let Some(abandoned) = self.lock().get(&op) {
            info!(op = op.0, "abandoned");
            abandoned.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<OpId, Arc<Notify>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn perform(&self, step: &Step, abandoned: &Notify) -> Result<Done, Failure> {
        let settings = self.configured().share;
        let barred = self.barred(&settings);
        let (share, mount_point) = (settings.id.to_string(), settings.mount_point);
        match step {
            Step::Survey => self.survey(share, mount_point, abandoned).await,
            Step::LayBarrier => self.ask(&Request::LayBarrier(barred), abandoned).await,
            Step::Mount | Step::TryLogin => self.mount(step, abandoned).await,
            Step::Verify => {
                self.refuse_if_wedged()?;
                self.ask(&Request::Verify { share, marker: settings.marker }, abandoned).await
            }
            Step::Flush => self.ask(&Request::Flush { share }, abandoned).await,
            Step::AskForLoss => self.ask_for_loss(share, abandoned).await,
            Step::Attach => {
                let attached = self.ask(&Request::Attach(barred), abandoned).await;
                self.warn_of_copies(if attached.is_ok() { settings.stale_copies } else { StaleCopies::Report });
                attached
            }
            Step::Detach => self.detach(share, mount_point, abandoned).await,
            Step::ShutDown => self.ask(&Request::ShutDown { share }, abandoned).await,
            Step::Release => self.release(share, settings.leftover_holders, abandoned).await,
            Step::DropClone => self.drop_clone(share, abandoned).await,
            Step::RaiseFence => {
                let address = self.address_of_clone()?;
                let raised = self.host.network.raise_fence(&share, address).await;
                raised.map_err(|error| Failure::transient(format!("cannot raise the fence: {error}")))?;
                Ok(Done::Plainly)
            }
            Step::RaiseSinkhole => {
                let why = "none: the share is hard or uses Kerberos, or another mount of its server is in use";
                let raised = self.host.network.raise_sinkhole(&share).await;
                raised.then_some(Done::Plainly).ok_or_else(|| Failure::transient(why))
            }
            Step::LiftFence => {
                let lifted = self.host.network.lift_fence(&share).await;
                lifted.map_err(|error| Failure::transient(format!("cannot lift the fence: {error}")))?;
                Ok(Done::Plainly)
            }
            Step::DestroySockets { since } => {
                let address = self.address_of_clone()?;
                let destroyed = self.host.network.destroy_sockets(address, *since, abandoned.notified()).await;
                destroyed.map(|()| Done::Plainly).map_err(|failed| classed(&failed))
            }
        }
    }

    /// A worker that hangs in the kernel is abandoned, not gone: one more would only hang behind it.
    fn refuse_if_wedged(&self) -> Result<(), Failure> {
        if self.lock().len() > MAX_HANGING_WORKERS {
            let message = "earlier verifications still hang in the kernel";
            return Err(Failure { class: FailureClass::Wedged, ..Failure::transient(message) });
        }
        Ok(())
    }

    fn address(&self) -> Result<IpAddr, Failure> {
        let address = self.server.borrow().address;
        address.ok_or_else(|| Failure::transient("the server's name has not been resolved"))
    }

    /// Where the kernel's connections of this share lead to.
    fn address_of_clone(&self) -> Result<IpAddr, Failure> {
        let share = self.configured().share.id.to_string();
        self.host.network.address_of_clone(&share).map_or_else(|| self.address(), Ok)
    }

    async fn ask(&self, request: &Request, abandoned: &Notify) -> Result<Done, Failure> {
        run(request, abandoned.notified()).await.map(|_| Done::Plainly).map_err(|failed| classed(&failed))
    }

    /// Who has files open for writing at the beginning of an outage is who loses by it.
    async fn detach(&self, share: String, mount_point: PathBuf, abandoned: &Notify) -> Result<Done, Failure> {
        let request = Request::Detach { share: share.clone(), mount_point };
        run(&request, abandoned.notified()).await.map_err(|failed| classed(&failed))?;
        self.warn_of_copies(StaleCopies::Report);
        let holders = holders_of(share, LIST_WITHIN).await;
        *self.holders_then.lock().unwrap_or_else(PoisonError::into_inner) = holders;
        Ok(Done::Plainly)
    }

    /// Whom neither a barrier nor a fresh mount reaches, but who is restarted for that; nothing waits for it.
    fn warn_of_copies(&self, what: StaleCopies) {
        let settings = self.configured().share;
        let Ok(address) = self.address_of_clone() else { return };
        let source = options::source(&settings, address);
        let is_restarted = move |copy: &NamespaceCopy| what == StaleCopies::Restart && to_restart(copy).is_some();
        let listing = async move {
            let request =
                Request::ListCopies { share: settings.id.to_string(), source, mount_point: settings.mount_point };
            match worker::ask(&request, LIST_WITHIN).await {
                Ok(Answer::Copies(copies)) => {
                    let left = copies.iter().filter(|copy| !is_restarted(copy));
                    for (copy, trouble) in left.filter_map(|copy| Some((copy, copy.trouble()?))) {
                        let unit = copy.unit.as_deref().unwrap_or("no unit");
                        warn!(
                            unit,
                            command = copy.command,
                            pid = copy.pid,
                            path = copy.path,
                            "a copy of the share {trouble}"
                        );
                    }
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "cannot see what containers have of the share"),
            }
        };
        tokio::spawn(listing.in_current_span());
    }

    async fn ask_for_loss(&self, share: String, abandoned: &Notify) -> Result<Done, Failure> {
        let asked = run(&Request::AskForLoss { share }, abandoned.notified()).await;
        let Answer::Lost(error) = asked.map_err(|failed| classed(&failed))? else {
            return Err(Failure::transient("a worker answered something else"));
        };
        let then = self.holders_then.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Done::Loss(error.map(|error| match holders::writers_in_words(&then) {
            who if who.is_empty() => format!("unwritten data did not reach the server: {error}"),
            who => format!("unwritten data did not reach the server: {error}; open for writing were {who}"),
        })))
    }

    async fn release(&self, share: String, leftover: LeftoverHolders, abandoned: &Notify) -> Result<Done, Failure> {
        let kill_holders = leftover == LeftoverHolders::Kill;
        let within = if kill_holders { LIST_TO_KILL_WITHIN } else { LIST_WITHIN };
        let left = holders_of(share.clone(), within).await;
        let kill = if kill_holders { left.iter().map(|holder| holder.pid).collect() } else { Vec::new() };
        let request = Request::Release { share: share.clone(), kill };
        run(&request, abandoned.notified()).await.map_err(|failed| classed(&failed))?;
        let left_open = if left.is_empty() || kill_holders { LeftOpen::Nothing } else { LeftOpen::Files };
        self.host.network.given_up(&share, left_open).await;
        if !left.is_empty() {
            let (who, files) = (holders::in_words(&left), left.iter().map(|holder| holder.files).sum::<usize>());
            let writable: usize = left.iter().map(|holder| holder.writable).sum();
            warn!(who, files, writable, killed = kill_holders, "given up while in use: these files are dead");
        }
        Ok(Done::Plainly)
    }

    async fn drop_clone(&self, share: String, abandoned: &Notify) -> Result<Done, Failure> {
        let dropped = self.ask(&Request::DropClone { share: share.clone() }, abandoned).await?;
        self.host.network.given_up(&share, LeftOpen::Nothing).await;
        Ok(dropped)
    }

    async fn survey(&self, share: String, mount_point: PathBuf, abandoned: &Notify) -> Result<Done, Failure> {
        let request = Request::Survey { share: share.clone(), mount_point };
        let found = run(&request, abandoned.notified()).await.map_err(|failed| classed(&failed))?;
        let Answer::Found { clone, barrier, attached } = found else {
            return Err(Failure::transient("a worker answered something else"));
        };
        let read = self.host.files.read_share(&share);
        let memory =
            read.map_err(|error| Failure::transient(format!("cannot read what is held for share {share}: {error}")))?;
        let mismatch = clone.as_ref().and_then(|clone| self.mismatch(clone));
        self.host.network.cloned(&share, clone.as_ref().and_then(clone_at));
        Ok(Done::Survey(Survey { clone: clone.is_some(), mismatch, barrier, attached, memory }))
    }

    /// An address that is not known yet differs from none.
    fn mismatch(&self, clone: &CloneFound) -> Option<Mismatch> {
        let server = self.server.borrow().address;
        let of_clone = mountinfo::cifs_address(&clone.options);
        if of_clone.zip(server).is_some_and(|(of_clone, of_server)| of_clone != of_server) {
            return Some(Mismatch::Address);
        }
        let source = clone.source.trim_start_matches('/').split_once('/').map(|(_, source)| source);
        (source != Some(&self.configured().share.source)).then_some(Mismatch::Source)
    }

    /// To stay, or only to see whether it can be done.
    async fn mount(&self, step: &Step, abandoned: &Notify) -> Result<Done, Failure> {
        let Configured { share: settings, credentials } = self.configured();
        let address = self.address()?;
        let plan = options::mount_options(&settings, address, &self.host.kernel.options, self.host.kernel.dirty_limits);
        for adjustment in &plan.adjustments {
            match adjustment {
                Adjustment::Dropped { option, reason } => warn!(%option, reason, "option not used"),
                Adjustment::Replaced { used, reason, .. } => info!(option = %used, reason, "option set"),
            }
        }
        let ends_by_refusal = options::ends_by_refusal(plan.options.iter().map(ToString::to_string));
        let request = MountRequest::new(&settings, plan, login(&credentials)?);
        let stays = *step == Step::Mount;
        let request = if stays { Request::Mount(request.into()) } else { Request::TryLogin(request.into()) };
        let slot = tokio::select! {
            slot = self.host.mount_slot.lock() => slot,
            () = abandoned.notified() => return Err(Failure::transient("ended before its turn to mount")),
            () = tokio::time::sleep(layers::MOUNT_TURN) => {
                return Err(Failure::transient("another share's mount does not return"));
            }
        };
        let share = settings.id.to_string();
        self.host.network.begin_mount(&share, address).await;
        let result = run(&request, abandoned.notified()).await;
        drop(slot);
        if result.is_ok() && stays {
            self.host.network.cloned(&share, Some(CloneAt { address, ends_by_refusal }));
        }
        self.host.network.end_mount(&share).await;
        result.map(|_| Done::Plainly).map_err(|failed| match (failed.stage, failed.errno) {
            (Stage::Negotiation, Some(errno)) => Failure::of_mount(failed.to_string(), errno),
            (Stage::Negotiation | Stage::Configuration | Stage::Contents | Stage::Other, _) => classed(&failed),
        })
    }
}

fn clone_at(found: &CloneFound) -> Option<CloneAt> {
    let ends_by_refusal = options::ends_by_refusal(found.options.split(','));
    Some(CloneAt { address: mountinfo::cifs_address(&found.options)?, ends_by_refusal })
}

/// A share as the owner of the barriers knows it.
pub fn barred(share: &ShareSettings) -> Barred {
    Barred { share: share.id.to_string(), mount_point: share.mount_point.clone(), on_access: share.on_access }
}

/// Who has a share open; nobody, if that cannot be found out soon: it is a help, and nothing waits for it.
async fn holders_of(share: String, within: Duration) -> Vec<Holder> {
    match worker::ask(&Request::ListHolders { share }, within).await {
        Ok(Answer::Holders(holders)) => holders,
        Ok(_) => Vec::new(),
        Err(error) => {
            warn!(%error, "cannot see who has the share open");
            Vec::new()
        }
    }
}

async fn run(request: &Request, end: impl Future<Output = ()>) -> worker::Reply {
    let child = worker::start(request).await.map_err(|error| Failed::local("cannot start a worker", &error))?;
    worker::reply(request, child, end).await
}

/// EBUSY passes when whoever is in the way goes away; so may anything else, sooner, but what the configuration names wrongly.
fn classed(failed: &Failed) -> Failure {
    let failure = match (failed.stage, failed.errno) {
        (Stage::Configuration, _) => Failure::configuration(failed.to_string(), MEND_CONFIGURATION),
        // a NAS that starts shows the share before the volume in it
        (Stage::Contents, _) => {
            let hint = Some(NO_MARKER.to_owned());
            Failure { class: FailureClass::Busy, hint, ..Failure::transient(failed.to_string()) }
        }
        (_, Some(libc::EBUSY)) => Failure { class: FailureClass::Busy, ..Failure::transient(failed.to_string()) },
        _ => Failure::transient(failed.to_string()),
    };
    Failure { errno: failed.errno, ..failure }
}

/// A systemd credential is a file in a directory that only this unit sees (systemd.exec(5)).
pub fn login(credentials: &CredentialSource) -> Result<Login, Failure> {
    match credentials {
        CredentialSource::Guest => Ok(Login::Guest),
        CredentialSource::File(path) => Ok(Login::File(path.clone())),
        CredentialSource::Systemd(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            let missing = || {
                Failure::configuration(
                    format!("the systemd credential {name} is not there"),
                    format!(
                        "add LoadCredential={name}:/FILE or LoadCredentialEncrypted={name} to nasmount.service (`systemctl edit nasmount`) \
                         and restart it"
                    ),
                )
            };
            Ok(Login::File(directory.ok_or_else(missing)?.join(name)))
        }
    }
}
