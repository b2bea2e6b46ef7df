//! The host's side of a server's connections: veil, fence, sinkhole and socket destruction, shared by all shares of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::share::BootInstant;
use crate::sys::mountinfo::{self, Entry};
use crate::sys::nft::{Report, Rules};
use crate::sys::sinkhole::Sinkhole;
use crate::sys::{clock, worker};

/// So often a fence that cannot be raised although nftables has worked is a failure; then it has stopped working.
const RAISES: u32 = 3;

/// One for the whole daemon. Sockets can only be fenced and destroyed by server: two shares of one server share their fate.
#[derive(Debug, Default)]
pub struct Network {
    inner: Mutex<Inner>,
    clones: Clones,
    destroyed_at: Mutex<BTreeMap<IpAddr, Arc<Mutex<Option<BootInstant>>>>>,
}

/// The clones that there are, by share.
type Clones = StdMutex<BTreeMap<String, CloneAt>>;

/// To where a clone's connections lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneAt {
    /// Of its server, which may have left it.
    pub address: IpAddr,
    /// What is in flight ends as soon as a login is refused.
    pub ends_by_refusal: bool,
}

/// Whether somebody had files of a share open when it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOpen {
    /// Nobody.
    Nothing,
    /// Somebody.
    Files,
}

#[derive(Debug, Default)]
struct Inner {
    veiled: BTreeMap<String, IpAddr>,
    fenced: BTreeMap<String, IpAddr>,
    off_network: BTreeMap<String, IpAddr>,
    /// Shares that are being given up for good, or were while somebody had files open: with where their connections lead.
    sinking: BTreeMap<String, CloneAt>,
    /// Shares that log in at a server right now.
    mounting: BTreeMap<String, IpAddr>,
    sinkhole: Option<Sinkhole>,
    applied: Option<Rules>,
    report: Report,
    cannot_redirect: bool,
    has_worked: bool,
    failed_raises: u32,
    warned: bool,
}

impl Inner {
    fn rules(&self, clones: &Clones) -> Rules {
        let fenced: BTreeSet<IpAddr> = self.fenced.values().copied().collect();
        let (sunk, sinkhole) = match &self.sinkhole {
            Some(sinkhole) => {
                let clones = clones.lock().unwrap_or_else(PoisonError::into_inner);
                // where the mounts cannot be read, there may be others
                let entries = mountinfo::read();
                let may_sink =
                    |server: &&IpAddr| entries.as_ref().is_ok_and(|entries| self.may_sink(**server, &clones, entries));
                (fenced.iter().filter(may_sink).copied().collect(), sinkhole.port())
            }
            None => (BTreeSet::new(), 0),
        };
        Rules {
            veiled: self.veiled.values().copied().collect(),
            fenced,
            off_network: self.off_network.values().copied().collect(),
            sunk,
            sinkhole,
            report: self.report,
        }
    }

    /// Whether all mounts of a server are given up for good and end by a refusal. Mounts in this namespace are somebody else's, or on
    /// their path still.
    fn may_sink(&self, server: IpAddr, clones: &BTreeMap<String, CloneAt>, entries: &[Entry]) -> bool {
        let is_others =
            |entry: &Entry| entry.fstype == "cifs" && mountinfo::cifs_address(&entry.options) == Some(server);
        let is_kept =
            |(share, clone): (&String, &CloneAt)| clone.address == server && !self.sinking.contains_key(share);
        if self.mounting.values().any(|address| *address == server) {
            return false; // a person would have to look at a login that is refused
        }
        let mut sinking = self.sinking.values().filter(|clone| clone.address == server).peekable();
        let is_wanted = sinking.peek().is_some() && sinking.all(|clone| clone.ends_by_refusal);
        is_wanted && !clones.iter().any(is_kept) && !entries.iter().any(is_others)
    }

    async fn apply(&mut self, clones: &Clones) -> io::Result<()> {
        let wanted = self.rules(clones);
        if self.applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let applied = match wanted.apply().await {
            Err(error) if !wanted.sunk.is_empty() && error.kind() == io::ErrorKind::Other => {
                let plain = Rules { sunk: BTreeSet::new(), sinkhole: 0, ..wanted };
                plain.apply().await?;
                (self.cannot_redirect, self.sinkhole) = (true, None);
                warn!(%error, "no sinkhole: what is in flight takes 10 s longer to end; is the module nft_redir there?");
                plain
            }
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
        if self.warned {
            info!("veil and fence are laid");
        }
        (self.has_worked, self.warned, self.failed_raises) = (true, false, 0);
        Ok(())
    }

    /// After the rules that led to it.
    fn close_unused_sinkhole(&mut self) {
        if self.sinking.is_empty() {
            self.sinkhole = None;
        }
    }

    fn warn_once(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            let hint = if error.kind() == io::ErrorKind::NotFound {
                "is the package nftables installed?"
            } else {
                "trying again"
            };
            warn!(%error, "no veil and no fence: {hint}");
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

    /// Somebody has thrown away what was laid.
    pub async fn lay_again(&self) {
        {
            let mut inner = self.inner.lock().await;
            if inner.rules(&self.clones).is_empty() {
                return; // or it was we who did
            }
            warn!("somebody flushed veil and fence: laying them again");
            inner.applied = None;
        }
        self.apply_or_warn().await;
    }

    /// Somebody may have changed nftables: what is missing of ours is laid, also what could not be laid before.
    pub async fn keep_rules(&self) {
        {
            let mut inner = self.inner.lock().await;
            let wanted = inner.rules(&self.clones);
            if let Some(applied) = inner.applied.clone().filter(|applied| *applied == wanted) {
                match applied.are_in_force().await {
                    Ok(true) => return,
                    Ok(false) => warn!("somebody changed veil and fence: laying them again"),
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
        inner.applied.as_ref() == Some(&inner.rules(&self.clones))
    }

    /// Without nftables there is neither veil nor fence: outages by a restarting server then cost what they cost with a
    /// plain mount, and the log says so once.
    async fn apply_or_warn(&self) {
        let mut inner = self.inner.lock().await;
        if let Err(error) = inner.apply(&self.clones).await {
            inner.warn_once(&error);
        }
    }

    /// Raises the fence to a server for a share; fails some times at most. A host on which nftables does not work has none, and
    /// giving up and coming back go on without it: only callers in `smb2_reconnect` then wait for the server.
    pub async fn raise_fence(&self, share: &str, server: IpAddr) -> io::Result<()> {
        let mut inner = self.inner.lock().await;
        inner.fenced.insert(share.to_owned(), server);
        match inner.apply(&self.clones).await {
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
        inner.sinking.remove(share);
        let result = inner.apply(&self.clones).await;
        let is_up =
            inner.applied.as_ref().is_some_and(|applied| !applied.fenced.is_subset(&inner.rules(&self.clones).fenced));
        inner.close_unused_sinkhole();
        if is_up { result } else { Ok(()) }
    }

    /// Has the login refused of whatever a share that is given up for good still tries, until it is dropped with no file open, or its
    /// fence is lifted. A help: without it, all ends within 12 s. While another mount of the server is in use, there is none; returns whether there is.
    pub async fn raise_sinkhole(&self, share: &str) -> bool {
        let Some(clone) = self.clone_of(share) else { return false };
        let mut inner = self.inner.lock().await;
        inner.sinking.insert(share.to_owned(), clone);
        if inner.sinkhole.is_none() && !inner.cannot_redirect {
            match Sinkhole::open().await {
                Ok(sinkhole) => inner.sinkhole = Some(sinkhole),
                Err(error) => warn!(%error, share, "no sinkhole: what is in flight takes 10 s longer to end"),
            }
        }
        if let Err(error) = inner.apply(&self.clones).await {
            warn!(%error, share, "goes on without a sinkhole");
        }
        inner.applied.as_ref().is_some_and(|applied| applied.sunk.contains(&clone.address))
    }

    /// A share is about to log in at a server: nobody else answers there until `end_mount`.
    pub async fn begin_mount(&self, share: &str, server: IpAddr) {
        let mut inner = self.inner.lock().await;
        inner.mounting.insert(share.to_owned(), server);
        if let Err(error) = inner.apply(&self.clones).await {
            inner.warn_once(&error);
            inner.sinkhole = None; // the connection is refused then, which is tried again
        }
    }

    /// It has, or has not.
    pub async fn end_mount(&self, share: &str) {
        self.inner.lock().await.mounting.remove(share);
    }

    /// What is known of a share's clone.
    pub fn cloned(&self, share: &str, clone: Option<CloneAt>) {
        let mut clones = self.clones.lock().unwrap_or_else(PoisonError::into_inner);
        match clone {
            Some(clone) => clones.insert(share.to_owned(), clone),
            None => clones.remove(share),
        };
    }

    /// The clone is gone. As long as somebody has files of it open, the file system is not, and their calls would wait for the server.
    pub async fn given_up(&self, share: &str, left: LeftOpen) {
        self.cloned(share, None);
        let mut inner = self.inner.lock().await;
        if left == LeftOpen::Nothing && inner.sinking.remove(share).is_some() {
            if let Err(error) = inner.apply(&self.clones).await {
                inner.warn_once(&error);
            }
            inner.close_unused_sinkhole();
        }
    }

    /// Where a share's connections lead to, if it has a clone.
    pub fn address_of_clone(&self, share: &str) -> Option<IpAddr> {
        self.clone_of(share).map(|clone| clone.address)
    }

    fn clone_of(&self, share: &str) -> Option<CloneAt> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner).get(share).copied()
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const SERVER: &str = "10.0.0.1";

    type Share<'name> = (&'name str, &'name str, bool);

    fn clones_at(shares: &[Share<'_>]) -> BTreeMap<String, CloneAt> {
        let clone_at = |(share, address, ends): &Share<'_>| {
            ((*share).to_owned(), CloneAt { address: address.parse().unwrap(), ends_by_refusal: *ends })
        };
        shares.iter().map(clone_at).collect()
    }

    fn may_sink(clones: &[Share<'_>], sinking: &[Share<'_>], mounts: &str) -> bool {
        let inner = Inner { sinking: clones_at(sinking), ..Inner::default() };
        inner.may_sink(SERVER.parse().unwrap(), &clones_at(clones), &mountinfo::parse(mounts.as_bytes()))
    }

    #[test]
    fn logins_are_refused_only_if_all_mounts_of_the_server_are_given_up() {
        let (films, music, elsewhere) =
            (("films", SERVER, true), ("music", SERVER, true), ("elsewhere", "10.0.0.2", true));
        assert!(may_sink(&[films, elsewhere], &[films], ""));
        assert!(may_sink(&[films, music], &[films, music], ""));
        assert!(!may_sink(&[films, music], &[films], ""), "the other one is held");
        assert!(may_sink(&[], &[films], ""), "dropped, and somebody has it open");
        assert!(!may_sink(&[music], &[films], ""), "the same, and another one is held");
        assert!(!may_sink(&[films], &[elsewhere], ""));
        let hard = ("films", SERVER, false);
        assert!(!may_sink(&[hard], &[hard], ""));
        let (sinking, mounting) = (clones_at(&[films]), [("music".to_owned(), SERVER.parse().unwrap())].into());
        let inner = Inner { sinking, mounting, ..Inner::default() };
        assert!(!inner.may_sink(SERVER.parse().unwrap(), &BTreeMap::new(), &[]), "another share logs in");
        let by = |address: &str| format!("36 35 0:52 / /mnt/x rw - cifs //nas/x rw,soft,addr={address}\n");
        assert!(!may_sink(&[films], &[films], &by(SERVER)), "somebody else's");
        assert!(may_sink(&[films], &[films], &by("10.0.0.3")));
    }
}
