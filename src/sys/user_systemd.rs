//! The systemd of a user's own, which runs his units (user@.service), without his bus: its private socket answers root as well (sd-bus,
//! `bus_check_peercred`), with the same objects, and sends every signal there unasked (dbus.c, `bus_foreach_bus`).
//!
//! The socket lies in a directory of the user's: what is connected to has to be a socket there and no link elsewhere, and who answers
//! has to be him. Then only his own units can suffer from what he makes it say.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::wire::OwnedObjectPath;
use zbus::{Connection, connection, proxy};

use super::mountinfo;
use super::systemd::METHOD_TIMEOUT;

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn list_users(&self) -> zbus::Result<Vec<(u32, String, OwnedObjectPath)>>;
}

/// Connects; `None` if the user is neither logged in nor lingers, or does not exist.
pub async fn connect(user: &str) -> zbus::Result<Option<Connection>> {
    let connecting = timeout(METHOD_TIMEOUT, async {
        // logind knows the ids of those who are there: to look one up could ask a directory over the network
        let bus = connection::Builder::system().method_timeout(METHOD_TIMEOUT).build().await?;
        let users = LoginProxy::new(&bus).await?.list_users().await?;
        let Some((uid, ..)) = users.into_iter().find(|(_, name, _)| name == user) else { return Ok(None) };
        let stream = socket_of(uid).await.map_err(|error| zbus::Error::InputOutput(error.into()))?;
        connection::Builder::unix_stream(stream).p2p().method_timeout(METHOD_TIMEOUT).build().await.map(Some)
    });
    connecting.await.unwrap_or_else(|_| Err(zbus::Error::InputOutput(io::Error::from(io::ErrorKind::TimedOut).into())))
}

async fn socket_of(uid: u32) -> io::Result<std::os::unix::net::UnixStream> {
    let found = open(Path::new(&format!("/run/user/{uid}")))?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await?;
    if stream.peer_cred()?.uid() != uid {
        return Err(io::Error::other("it is somebody else who answers there"));
    }
    stream.into_std()
}

/// Without a step off the tmpfs that logind has mounted for the user: he may have mounted or linked something there that does not answer.
fn open(runtime_directory: &Path) -> io::Result<OwnedFd> {
    let entries = mountinfo::read()?;
    if mountinfo::on(&entries, runtime_directory).last().is_none_or(|top| top.fstype != "tmpfs") {
        return Err(io::Error::other(format!("{} is not the tmpfs of logind", runtime_directory.display())));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let directory = openat(CWD, runtime_directory, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let stay = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(&directory, "systemd/private", flags, Mode::empty(), stay)?)
}
