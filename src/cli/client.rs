//! The daemon, as the CLI sees it.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::Hinted;
use crate::daemon::reload::Outcome;
use crate::dbus::{ManagerClientProxy, NO_SUCH_SERVER, NO_SUCH_SHARE, REFUSED, connect_to_socket};
use crate::share::{Refusal, Verdict};
use crate::status::{Holder, NamespaceCopy, StatusReport};
use crate::sys::paths;

/// The daemon answers within milliseconds, whatever hangs: more means that the bus does not work.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What can be asked of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Mount it.
    Mount,
    /// Unmount it.
    Unmount,
    /// Unmount and mount it.
    Remount,
    /// Hands off, for so many seconds; 0 until it is ended.
    StartMaintenance(u64),
    /// Hands on.
    EndMaintenance,
    /// Hold its consumers.
    Hold,
    /// Let them go.
    Release,
}

/// What was said to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, or already so.
    Verdict(Verdict),
    /// Not in this state.
    Refused(Refusal),
    /// There is none of that name.
    NoSuchShare,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    manager: ManagerClientProxy<'static>,
}

/// Runs `asking` to its end on a runtime of its own.
pub fn block_on<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?.block_on(asking)
}

async fn within<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(ANSWER_WITHIN, asking).await.unwrap_or_else(|_| {
        let hint = "`systemctl status dbus nasmount`";
        Err(Hinted::new("neither the system bus nor nasmount answered within 5 s", hint).into())
    })
}

impl Client {
    /// Connects, if possible without the bus.
    pub async fn connect() -> anyhow::Result<Self> {
        within(async {
            let connection = match connect_to_socket(Path::new(paths::CONTROL_SOCKET)).await {
                Ok(connection) => connection,
                Err(socket) => zbus::Connection::system().await.map_err(|bus| unreachable(&socket, &bus))?,
            };
            let manager = ManagerClientProxy::new(&connection).await.context("cannot reach nasmount")?;
            Ok(Self { manager })
        })
        .await
    }

    /// How everything is.
    pub async fn status(&self) -> anyhow::Result<StatusReport> {
        let asking = async { self.manager.get_status().await.map_err(|error| explain(&error, "its status")) };
        serde_json::from_str(&within(asking).await?).context("cannot read the daemon's answer")
    }

    /// Puts a wish.
    pub async fn wish(&self, share: &str, wish: Wish) -> anyhow::Result<Answer> {
        let manager = &self.manager;
        let asking = async {
            let answer = match wish {
                Wish::Mount => manager.mount(share).await,
                Wish::Unmount => manager.unmount(share).await,
                Wish::Remount => manager.remount(share).await,
                Wish::StartMaintenance(seconds) => manager.start_maintenance(share, seconds).await,
                Wish::EndMaintenance => manager.end_maintenance(share).await,
                Wish::Hold => manager.hold(share).await,
                Wish::Release => manager.release(share).await,
            };
            read(answer)
        };
        within(asking).await
    }

    /// Trusts whoever answers at a server's address; `None` if there is no such server.
    pub async fn trust(&self, server: &str) -> anyhow::Result<Option<Verdict>> {
        let asking = async {
            match self.manager.trust(server).await {
                Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_SERVER => Ok(None),
                answer => match read(answer)? {
                    Answer::Verdict(verdict) => Ok(Some(verdict)),
                    Answer::Refused(_) | Answer::NoSuchShare => anyhow::bail!("cannot read the daemon's answer"),
                },
            }
        };
        within(asking).await
    }

    /// Has the configuration taken over; as long as that takes, because shares are unmounted for it.
    pub async fn reload(&self, dry_run: bool) -> anyhow::Result<Outcome> {
        // zbus waits for ever unless it is told otherwise
        let answer = self.manager.reload(dry_run).await.map_err(|error| explain(&error, "that"))?;
        serde_json::from_str(&answer).context("cannot read the daemon's answer")
    }

    /// Who has a share open; only root may ask.
    pub async fn holders(&self, share: &str) -> anyhow::Result<Vec<Holder>> {
        let asking =
            async { self.manager.list_holders(share).await.map_err(|error| explain(&error, "who has it open")) };
        serde_json::from_str(&within(asking).await?).context("cannot read the daemon's answer")
    }

    /// Has the session of a share try the password of the credentials file, too; why that cannot be, if it cannot.
    pub async fn add_password(&self, share: &str) -> anyhow::Result<Result<(), String>> {
        let asking = async { self.manager.add_password(share).await.map_err(|error| explain(&error, "that")) };
        let why = within(asking).await?;
        Ok(if why.is_empty() { Ok(()) } else { Err(why) })
    }

    /// What other mount namespaces have of a share; only root may ask.
    pub async fn copies(&self, share: &str) -> anyhow::Result<Vec<NamespaceCopy>> {
        let what = "what containers have of it";
        let asking = async { self.manager.list_copies(share).await.map_err(|error| explain(&error, what)) };
        serde_json::from_str(&within(asking).await?).context("cannot read the daemon's answer")
    }

    /// The recording of a share; `None` if there is none of that name.
    pub async fn dump(&self, share: &str) -> anyhow::Result<Option<String>> {
        let asking = async {
            match self.manager.dump(share).await {
                Ok(text) => Ok(Some(text)),
                Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_SHARE => Ok(None),
                Err(error) => Err(explain(&error, "a recording")),
            }
        };
        within(asking).await
    }
}

fn read(answer: zbus::Result<String>) -> anyhow::Result<Answer> {
    #[derive(serde::Deserialize)]
    struct Said {
        verdict: Verdict,
    }
    let unreadable = "cannot read the daemon's answer";
    match answer {
        Ok(text) => Ok(Answer::Verdict(serde_json::from_str::<Said>(&text).context(unreadable)?.verdict)),
        Err(zbus::Error::MethodError(name, text, _)) if name.as_str() == REFUSED => {
            Ok(Answer::Refused(serde_json::from_str(&text.unwrap_or_default()).context(unreadable)?))
        }
        Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_SHARE => Ok(Answer::NoSuchShare),
        Err(error) => Err(explain(&error, "that")),
    }
}

pub(super) const START: &str = "`systemctl start nasmount`; if it does not stay up: `journalctl -u nasmount`";

/// Why there is no way to the daemon, with neither its socket nor a bus. It listens on the socket as long as it runs: where nobody does, it
/// is not the bus that is missing. Who may not look at the socket needs the bus.
fn unreachable(socket: &io::Error, bus: &zbus::Error) -> Hinted {
    if matches!(socket.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        return Hinted::new("nasmount does not run", START);
    }
    let hint = "is D-Bus running? `systemctl status dbus`; root needs no bus";
    Hinted::new(format!("cannot reach the system bus: {bus}"), hint) // zbus says its causes itself
}

fn explain(error: &zbus::Error, what: &str) -> anyhow::Error {
    const NOBODY_THERE: [&str; 2] =
        ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
    let name = if let zbus::Error::MethodError(name, _, _) = error {
        name.to_string()
    } else if let zbus::Error::FDO(known) = error {
        zbus::DBusError::name(known.as_ref()).to_string()
    } else {
        String::new()
    };
    if NOBODY_THERE.contains(&name.as_str()) {
        return Hinted::new("nasmount does not run", START).into();
    }
    if name == "org.freedesktop.DBus.Error.AccessDenied" {
        return Hinted::new("only root may do that", "run it with sudo").into();
    }
    anyhow::Error::msg(error.to_string()).context(format!("cannot ask nasmount for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_is_said_so_in_either_form_of_the_error() {
        let gone = zbus::fdo::Error::ServiceUnknown("io.nasmount.NasMount1".to_owned());
        assert_eq!(explain(&zbus::Error::FDO(gone.into()), "its status").to_string(), "nasmount does not run");
        let other = zbus::fdo::Error::Failed("no".to_owned());
        assert!(explain(&zbus::Error::FDO(other.into()), "its status").to_string().contains("its status"));
    }

    #[test]
    fn without_a_bus_it_is_the_daemon_that_is_missing_where_nobody_listens_on_its_socket() {
        let bus = zbus::Error::Failure("no such socket".to_owned());
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            let said = unreachable(&kind.into(), &bus);
            assert_eq!((said.to_string().as_str(), said.hint()), ("nasmount does not run", START));
            assert!(START.starts_with("`systemctl start nasmount`"));
        }
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
            let said = unreachable(&kind.into(), &bus);
            assert!(said.to_string().starts_with("cannot reach the system bus: ") && said.hint().contains("D-Bus"));
        }
    }
}
