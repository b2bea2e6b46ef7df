//! The systemd of a user's own, which runs his units (user@.service), without his bus: its private socket answers root as well (sd-bus,
//! `bus_check_peercred`), with the same objects, and sends every signal there unasked (dbus.c, `bus_foreach_bus`).
//!
//! The socket is the user's, and so is what answers there: only his own units can suffer from what it says.

use std::io;

use zbus::wire::OwnedObjectPath;
use zbus::{Connection, connection, proxy};

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
    // logind knows the ids of those who are there: to look one up could ask a directory over the network
    let bus = connection::Builder::system().method_timeout(METHOD_TIMEOUT).build().await?;
    let users = LoginProxy::new(&bus).await?.list_users().await?;
    let Some((uid, ..)) = users.into_iter().find(|(_, name, _)| name == user) else { return Ok(None) };
    let stream = match tokio::net::UnixStream::connect(format!("/run/user/{uid}/systemd/private")).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None); // it is being started, or has ended
        }
        stream => stream.and_then(tokio::net::UnixStream::into_std),
    };
    let stream = stream.map_err(|error| zbus::Error::InputOutput(error.into()))?;
    connection::Builder::unix_stream(stream).p2p().method_timeout(METHOD_TIMEOUT).build().await.map(Some)
}
