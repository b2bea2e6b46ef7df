//! The host's side of a server's connections: veil, fence and socket destruction, shared by all shares of the server.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::share::BootInstant;
use crate::sys::nft::{Report, Rules};
use crate::sys::{clock, worker};

/// So often a fence that cannot be raised although nftables has worked is a failure; then it has stopped working.
const RAISES: u32 = 3;

/// One for the whole daemon. Sockets can only be fenced and destroyed by server: two shares of one server share their fate.
#[derive(Debug, Default)]
pub struct Network {
    inner: Mutex<Inner>,
    destroyed_at: Mutex<BTreeMap<IpAddr, Arc<Mutex<Option<BootInstant>>>>>,
}

#[derive(Debug, Default)]
struct Inner {
    veiled: BTreeMap<String, IpAddr>,
    fenced: BTreeMap<String, IpAddr>,
    off_network: BTreeMap<String, IpAddr>,
    applied: Option<Rules>,
    report: Report,
    has_worked: bool,
    failed_raises: u32,
    warned: bool,
}

impl Inner {
    fn rules(&self) -> Rules {
        Rules {
            veiled: self.veiled.values().copied().collect(),
            fenced: self.fenced.values().copied().collect(),
            off_network: self.off_network.values().copied().collect(),
            report: self.report,
        }
    }

    async fn apply(&mut self) -> io::Result<()> {
        let wanted = self.rules();
        if self.applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let applied = match wanted.apply().await {
            Err(error) if self.report == Report::Logged && error.kind() == io::ErrorKind::Other => {
                let silent = Rules { report: Report::Silent, ..wanted };
                silent.apply().await?;
                self.report = Report::Silent;
                warn!(%error, "the veil works, but cannot report: is the module nfnetlink_log there?");
                silent
            }
            result => {
                result?;
                wanted
            }
        };
        self.applied = Some(applied);
        (self.has_worked, self.warned, self.failed_raises) = (true, false, 0);
        Ok(())
    }

    fn warn_once(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(%error, "no veil and no fence: is the package nftables installed?");
        }
    }
}

impl Network {
    /// Says what is known before the daemon's first actor runs, in one transaction: there is no moment without the veil of a
    /// share that an earlier daemon mounted, or without a fence that it raised.
    pub async fn adopt(&self, veiled: BTreeMap<String, IpAddr>, fenced: BTreeMap<String, IpAddr>) {
        {
            let mut inner = self.inner.lock().await;
            inner.veiled = veiled;
            inner.fenced = fenced;
        }
        self.apply_or_warn().await;
    }

    /// Lays the veil of a server whose address has become known.
    pub async fn veil(&self, server_name: &str, server: IpAddr) {
        self.inner.lock().await.veiled.insert(server_name.to_owned(), server);
        self.apply_or_warn().await;
    }

    /// Takes all away of a server that is no longer configured.
    pub async fn unveil(&self, server_name: &str) {
        {
            let mut inner = self.inner.lock().await;
            inner.veiled.remove(server_name);
            inner.off_network.remove(server_name);
        }
        self.apply_or_warn().await;
    }

    /// Where the kernel must not send anything, as long as this host is on none of the server's networks; `None` when it is on one.
    pub async fn keep_silent(&self, server_name: &str, server: Option<IpAddr>) {
        {
            let off_network = &mut self.inner.lock().await.off_network;
            match server {
                Some(server) => off_network.insert(server_name.to_owned(), server),
                None => off_network.remove(server_name),
            };
        }
        self.apply_or_warn().await;
    }

    /// Somebody may have changed nftables: what is missing of ours is laid, also what could not be laid before.
    pub async fn keep_rules(&self) {
        {
            let mut inner = self.inner.lock().await;
            let wanted = inner.rules();
            if let Some(applied) = inner.applied.clone().filter(|applied| *applied == wanted) {
                match applied.are_in_force().await {
                    Ok(true) => return,
                    Ok(false) => warn!("somebody flushed veil and fence: laying them again"),
                    Err(error) => warn!(%error, "cannot see whether veil and fence are in force: laying them again"),
                }
                inner.applied = None;
            }
        }
        self.apply_or_warn().await;
    }

    /// Whether all that is wanted could be laid.
    pub async fn is_applied(&self) -> bool {
        let inner = self.inner.lock().await;
        inner.applied.as_ref() == Some(&inner.rules())
    }

    /// Without nftables there is neither veil nor fence: outages by a restarting server then cost what they cost with a
    /// plain mount, and the log says so once.
    async fn apply_or_warn(&self) {
        let mut inner = self.inner.lock().await;
        if let Err(error) = inner.apply().await {
            inner.warn_once(&error);
        }
    }

    /// Raises the fence to a server for a share; fails some times at most. A host on which nftables does not work has none, and
    /// giving up and coming back go on without it: only callers in `smb2_reconnect` then wait for the server.
    pub async fn raise_fence(&self, share: &str, server: IpAddr) -> io::Result<()> {
        let mut inner = self.inner.lock().await;
        inner.fenced.insert(share.to_owned(), server);
        match inner.apply().await {
            Err(error) if inner.has_worked && inner.failed_raises < RAISES => {
                inner.failed_raises += 1;
                Err(error)
            }
            Err(error) => {
                warn!(%error, share, "goes on without a fence");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Lifts it; it stays while another share of the server wants it. A fence that is up has to come down, so that this
    /// fails if it cannot; one that never rose need not.
    pub async fn lift_fence(&self, share: &str) -> io::Result<()> {
        let mut inner = self.inner.lock().await;
        inner.fenced.remove(share);
        let result = inner.apply().await;
        let is_up = inner.applied.as_ref().is_some_and(|applied| !applied.fenced.is_subset(&inner.rules().fenced));
        if is_up { result } else { Ok(()) }
    }

    /// Destroys the CIFS sockets to a server, unless that was done since `since` for another of its shares.
    pub async fn destroy_sockets(
        &self,
        server: IpAddr,
        since: BootInstant,
        end: impl Future<Output = ()>,
    ) -> Result<(), worker::Failed> {
        // by server: a worker that hangs concerns no other one
        let destroyed_at = Arc::clone(self.destroyed_at.lock().await.entry(server).or_default());
        let mut end = std::pin::pin!(end);
        let mut destroyed_at = tokio::select! {
            destroyed_at = destroyed_at.lock() => destroyed_at,
            () = &mut end => return Err(worker::Failed::local("cannot destroy sockets", &io::ErrorKind::TimedOut.into())),
        };
        if destroyed_at.is_some_and(|at| at >= since) {
            return Ok(());
        }
        let started = clock::now();
        let request = worker::Request::DestroySockets { server };
        let child = worker::start(&request).await;
        let child = child.map_err(|error| worker::Failed::local("cannot start a worker", &error))?;
        if let worker::Answer::Destroyed { sockets } = worker::reply(&request, child, end).await? {
            info!(address = %server, sockets, "sockets destroyed");
        }
        *destroyed_at = Some(started);
        Ok(())
    }
}
