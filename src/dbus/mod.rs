//! What others may ask over D-Bus: `io.nasmount.NasMount1` on the system bus.
//!
//! Anybody may ask how nasmount is; the bus hands commands on from root only (`systemd/io.nasmount.NasMount1.conf`). A command is
//! answered as soon as it is accepted and written down; how far it has got is in `GetStatus`.
//!
//! The same is served without a bus on a socket that only root can reach, so that nothing of nasmount depends on the bus.
#![expect(clippy::disallowed_types, reason = "zbus's macros use a HashMap")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info, warn};
use zbus::{Guid, connection, interface, proxy};

use crate::daemon::board::{Board, NoAnswer};
use crate::daemon::reload::How;
use crate::share::command::Maintenance;
use crate::share::{Command, Verdict};
use crate::sys::{clock, listen, paths};

/// Well-known name, with the version of the interface.
pub const NAME: &str = "io.nasmount.NasMount1";
/// Path of the manager object.
pub const PATH: &str = "/io/nasmount/NasMount1";
/// Name of the error of a refused command; its text is the `Refusal` as JSON.
pub const REFUSED: &str = "io.nasmount.NasMount1.Error.Refused";
/// Name of the error of a command for a server that is not there; its text is the name.
pub const NO_SUCH_SERVER: &str = "io.nasmount.NasMount1.Error.NoSuchServer";
/// Name of the error of a command for a share that is not there; its text is the name.
pub const NO_SUCH_SHARE: &str = "io.nasmount.NasMount1.Error.NoSuchShare";

/// How long after the bus went away it is tried again.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// Why a command was not carried out.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "io.nasmount.NasMount1.Error")]
pub enum Error {
    /// The bus.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// In this state; the `Refusal` as JSON.
    Refused(String),
    /// There is none of that name.
    NoSuchShare(String),
    /// There is none of that name.
    NoSuchServer(String),
    /// The daemon is ending, or cannot say what it wants to.
    Failed(String),
}

struct Manager {
    board: Arc<Board>,
}

impl Manager {
    async fn command(&self, share: &str, command: Command) -> Result<String, Error> {
        match self.board.command(share, command).await {
            Ok(Ok(verdict)) => Ok(serde_json::json!({ "verdict": verdict }).to_string()),
            Ok(Err(refusal)) => {
                let json = serde_json::to_string(&refusal).map_err(|error| Error::Failed(error.to_string()))?;
                Err(Error::Refused(json))
            }
            Err(NoAnswer::NoSuchShare | NoAnswer::NoSuchServer) => Err(Error::NoSuchShare(share.to_owned())),
            Err(NoAnswer::Ending) => Err(Error::Failed("the daemon is ending".to_owned())),
        }
    }
}

/// Each command answers `{"verdict": "accepted"}` or `{"verdict": "already_so"}`, or with an error.
#[interface(name = "io.nasmount.NasMount1.Manager")]
impl Manager {
    /// A `StatusReport` as JSON; its field `schema` is the version of its form.
    fn get_status(&self) -> zbus::fdo::Result<String> {
        serde_json::to_string(&self.board.report()).map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }

    /// Mount it, and keep it mounted; also tries again what is blocked.
    async fn mount(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::Mount).await
    }

    /// Stop its consumers, write back what is unwritten, unmount it, and leave it so.
    async fn unmount(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::Unmount).await
    }

    /// Unmount and mount it again.
    async fn remount(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::Remount).await
    }

    /// Hands off, for so many seconds; 0 until it is ended.
    async fn start_maintenance(&self, share: &str, seconds: u64) -> Result<String, Error> {
        let until = (seconds > 0).then(|| clock::now() + Duration::from_secs(seconds));
        self.command(share, Command::StartMaintenance(Maintenance { until })).await
    }

    /// Hands on again.
    async fn end_maintenance(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::EndMaintenance).await
    }

    /// Hold its consumers as in an outage.
    async fn hold(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::Hold).await
    }

    /// Undo `Hold`.
    async fn release(&self, share: &str) -> Result<String, Error> {
        self.command(share, Command::Release).await
    }

    /// Read the configuration anew and take it over, or only say what that would change. A `reload::Outcome` as JSON.
    async fn reload(&self, dry_run: bool) -> Result<String, Error> {
        let how = if dry_run { How::DryRun } else { How::Apply };
        let outcome = self.board.reload(how).await.map_err(|_| Error::Failed("the daemon is ending".to_owned()))?;
        serde_json::to_string(&outcome).map_err(|error| Error::Failed(error.to_string()))
    }

    /// Trust the machine that answers at a server's address now, although it is another one than before. Answered like a
    /// command: `already_so` if it is not.
    async fn trust(&self, server: &str) -> Result<String, Error> {
        match self.board.trust_stranger(server).await {
            Ok(is_one) => {
                let verdict = if is_one { Verdict::Accepted } else { Verdict::AlreadySo };
                Ok(serde_json::json!({ "verdict": verdict }).to_string())
            }
            Err(NoAnswer::NoSuchServer | NoAnswer::NoSuchShare) => Err(Error::NoSuchServer(server.to_owned())),
            Err(NoAnswer::Ending) => Err(Error::Failed("the daemon is ending".to_owned())),
        }
    }

    /// Who has a share open: a list of `Holder` as JSON.
    async fn list_holders(&self, share: &str) -> Result<String, Error> {
        match self.board.holders(share).await {
            Ok(Ok(holders)) => serde_json::to_string(&holders).map_err(|error| Error::Failed(error.to_string())),
            Ok(Err(why)) => Err(Error::Failed(why)),
            Err(_) => Err(Error::NoSuchShare(share.to_owned())),
        }
    }

    /// Have the session of a mount that goes on try the password of the credentials file when the server refuses the one it has. Why that
    /// cannot be, in words; empty if it was done.
    async fn add_password(&self, share: &str) -> Result<String, Error> {
        match self.board.add_password(share).await {
            Ok(told) => Ok(told.err().unwrap_or_default()),
            Err(_) => Err(Error::NoSuchShare(share.to_owned())),
        }
    }

    /// What other mount namespaces have of a share: a list of `NamespaceCopy` as JSON.
    async fn list_copies(&self, share: &str) -> Result<String, Error> {
        match self.board.copies(share).await {
            Ok(Ok(copies)) => serde_json::to_string(&copies).map_err(|error| Error::Failed(error.to_string())),
            Ok(Err(why)) => Err(Error::Failed(why)),
            Err(_) => Err(Error::NoSuchShare(share.to_owned())),
        }
    }

    /// What happened to a share in the last hours, as JSON lines for `nasmount replay`.
    fn dump(&self, share: &str) -> Result<String, Error> {
        self.board.recorders.dump(share).ok_or_else(|| Error::NoSuchShare(share.to_owned()))
    }
}

/// The client's side.
#[proxy(
    interface = "io.nasmount.NasMount1.Manager",
    default_service = "io.nasmount.NasMount1",
    default_path = "/io/nasmount/NasMount1"
)]
pub trait ManagerClient {
    /// A `StatusReport` as JSON.
    fn get_status(&self) -> zbus::Result<String>;
    /// Mount it.
    fn mount(&self, share: &str) -> zbus::Result<String>;
    /// Unmount it.
    fn unmount(&self, share: &str) -> zbus::Result<String>;
    /// Unmount and mount it.
    fn remount(&self, share: &str) -> zbus::Result<String>;
    /// Hands off, for so many seconds; 0 until it is ended.
    fn start_maintenance(&self, share: &str, seconds: u64) -> zbus::Result<String>;
    /// Hands on.
    fn end_maintenance(&self, share: &str) -> zbus::Result<String>;
    /// Hold its consumers.
    fn hold(&self, share: &str) -> zbus::Result<String>;
    /// Let them go.
    fn release(&self, share: &str) -> zbus::Result<String>;
    /// Take over the configuration, or say what that would change.
    fn reload(&self, dry_run: bool) -> zbus::Result<String>;
    /// Trust whoever answers at a server's address.
    fn trust(&self, server: &str) -> zbus::Result<String>;
    /// Who has a share open.
    fn list_holders(&self, share: &str) -> zbus::Result<String>;
    /// Have its session try the password of the credentials file, too.
    fn add_password(&self, share: &str) -> zbus::Result<String>;
    /// What other mount namespaces have of a share.
    fn list_copies(&self, share: &str) -> zbus::Result<String>;
    /// The recording of a share.
    fn dump(&self, share: &str) -> zbus::Result<String>;
}

/// Serves for ever; a bus that goes away is waited for. The daemon works without it.
pub async fn serve(board: Arc<Board>) {
    loop {
        match connect(Arc::clone(&board)).await {
            Ok(connection) => {
                info!(name = NAME, "on the bus");
                let reason = connection.closed().await;
                warn!(?reason, "the bus went away");
            }
            Err(error) => warn!(%error, "cannot serve on the bus"),
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

async fn connect(board: Arc<Board>) -> zbus::Result<zbus::Connection> {
    connection::Builder::system().serve_at(PATH, Manager { board }).name(NAME).build().await
}

/// Serves on the control socket for ever.
pub async fn serve_on_socket(board: Arc<Board>) {
    let listener = match listen_on(Path::new(paths::CONTROL_SOCKET)) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "cannot listen on {}: only the bus is served", paths::CONTROL_SOCKET),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_client(stream, Arc::clone(&board)))),
            Err(error) => {
                warn!(%error, "cannot accept on {}", paths::CONTROL_SOCKET); // out of descriptors, perhaps
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
        }
    }
}

fn listen_on(path: &Path) -> io::Result<UnixListener> {
    let listener = listen::listen(path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn serve_client(stream: UnixStream, board: Arc<Board>) {
    let served = async {
        let builder = connection::Builder::unix_stream(stream.into_std()?).server(Guid::generate()).p2p();
        builder.serve_at(PATH, Manager { board }).build().await
    };
    match served.await {
        Ok(connection) => {
            let _ = connection.closed().await; // it ends with its client, for whatever reason
        }
        Err(error) => debug!(%error, "somebody on the control socket does not speak D-Bus"),
    }
}

/// The daemon without a bus, for root.
///
/// # Errors
///
/// It does not run, nobody but root may ask there, or it does not answer.
pub async fn connect_to_socket(path: &Path) -> io::Result<zbus::Connection> {
    let stream = UnixStream::connect(path).await?.into_std()?;
    connection::Builder::unix_stream(stream).p2p().build().await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::daemon::consumers::{ConsumersHandle, ConsumersView};
    use crate::daemon::recorder::Recorders;

    #[tokio::test]
    async fn a_client_of_the_socket_asks_without_a_bus() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private/control.sock");
        assert_eq!(connect_to_socket(&path).await.unwrap_err().kind(), io::ErrorKind::NotFound, "nobody listens");
        let listener = listen_on(&path).unwrap();
        let ((to, _inbox), (_publish, view), (reloads, _asked)) =
            (mpsc::channel(1), watch::channel(ConsumersView::default()), mpsc::channel(1));
        let board = Arc::new(Board::new(ConsumersHandle { to, view }, Recorders::default(), reloads));
        let served = tokio::spawn(async move { serve_client(listener.accept().await.unwrap().0, board).await });
        let connection = connect_to_socket(&path).await.unwrap();
        let manager = ManagerClientProxy::new(&connection).await.unwrap();
        assert!(manager.get_status().await.unwrap().contains("\"shares\":[]"));
        let error = manager.mount("films").await.unwrap_err();
        assert!(matches!(&error, zbus::Error::MethodError(name, _, _) if name.as_str() == NO_SUCH_SHARE), "{error}");
        drop((manager, connection));
        served.await.unwrap(); // it ends with its client
        let refused = connect_to_socket(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "an earlier daemon's socket");
    }
}
