//! The service managers of users (`systemctl --user`), over the bus of each.
//!
//! dbus-daemon lets nobody but the user on that bus, root neither. The manager's own socket (`systemd/private`) would take root, but zbus
//! refuses its answers: their sender is no unique name (systemd 257, zbus 6.2).

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::Uid;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zbus::{Connection, connection};

use super::systemd::{Activity, METHOD_TIMEOUT, Systemd};

/// Names and numbers of the host's own users. Users of a directory service are not in it: asking for them may take as long as a network
/// lets it, so they are configured by their number.
const USERS: &str = "/etc/passwd";
/// A file of their name for everybody whose manager runs from boot on (logind, `loginctl enable-linger`).
const LINGERING: &str = "/var/lib/systemd/linger";
/// Where the buses are, each below a directory of the user's number.
const RUNTIME: &str = "/run/user";
/// Users who connect at the same time. Each has a thread: the directory is the user's, who could make a connection wait there.
const MOST_CONNECTING: usize = 16;

/// Why a user's manager cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("{USERS} has no user {0}: is the name right? Who is in a directory is written as a number")]
    Unknown(String),
    /// It does not run.
    #[error("the service manager of {user} does not run{}", if *.lingers { "" } else { ": has it run from boot on: `loginctl enable-linger`" })]
    Absent {
        /// Whose.
        user: String,
        /// Does it run from boot on, so that it will soon?
        lingers: bool,
    },
    /// Its socket is somebody else's.
    #[error("{} is not {user}'s", .socket.display())]
    Stranger {
        /// Where it should be.
        socket: PathBuf,
        /// Whose it should be.
        user: String,
    },
    /// It cannot be reached.
    #[error("cannot {0}: {1}")]
    Io(String, #[source] io::Error),
    /// It answers with an error, or not at all.
    #[error(transparent)]
    Systemd(#[from] zbus::Error),
}

/// A connection to the bus of a user, who is named or numbered.
pub async fn connect(user: &str) -> Result<Connection, UserError> {
    let users = fs::read_to_string(USERS).map_err(|error| UserError::Io(format!("read {USERS}"), error))?;
    let (name, number) = find(&users, user).ok_or_else(|| UserError::Unknown(user.to_owned()))?;
    let path = Path::new(RUNTIME).join(number.to_string()).join("bus");
    let absent = || {
        let lingers = name.is_some_and(|name| PathBuf::from(LINGERING).join(name).exists());
        UserError::Absent { user: user.to_owned(), lingers }
    };
    let attempted = || format!("connect to {} as {user}", path.display());
    let stream = match connect_as(number, path.clone()).await {
        Ok(stream) => stream,
        // the socket of one that has ended may still be there
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(absent());
        }
        Err(error) => return Err(UserError::Io(attempted(), error)),
    };
    // the user could have it lead to a bus of others
    let peer = rustix::net::sockopt::socket_peercred(&stream);
    if peer.map_err(|error| UserError::Io(attempted(), error.into()))?.uid.as_raw() != number {
        return Err(UserError::Stranger { socket: path, user: user.to_owned() });
    }
    let builder = connection::Builder::unix_stream(stream).user_id(number).method_timeout(METHOD_TIMEOUT);
    match builder.build().await {
        // a manager that is about to end takes connections and closes them at once (flush_accept in systemd's socket-util.c)
        Err(zbus::Error::InputOutput(error)) if error.kind() != io::ErrorKind::TimedOut => Err(absent()),
        connection => Ok(connection?),
    }
}

/// Connects as this user, on a thread that is nobody else's and ends with it: on Linux who somebody is belongs to a thread.
async fn connect_as(number: u32, path: PathBuf) -> io::Result<UnixStream> {
    static CONNECTING: AtomicUsize = AtomicUsize::new(0);
    if CONNECTING.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTING {
        CONNECTING.fetch_sub(1, Ordering::Relaxed);
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many connections are under way"));
    }
    let (connected, connection) = oneshot::channel();
    let spawned = thread::Builder::new().name("user-bus".to_owned()).spawn(move || {
        let result = connect_on_this_thread(number, &path);
        CONNECTING.fetch_sub(1, Ordering::Relaxed);
        let _ = connected.send(result);
    });
    if let Err(error) = spawned {
        CONNECTING.fetch_sub(1, Ordering::Relaxed);
        return Err(error);
    }
    match timeout(METHOD_TIMEOUT, connection).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn connect_on_this_thread(number: u32, path: &Path) -> io::Result<UnixStream> {
    let uid = Uid::from_raw(number);
    if rustix::process::geteuid() != uid {
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// The manager of a user, to ask it.
pub async fn manager(user: &str) -> Result<Systemd, UserError> {
    Ok(Systemd::on(connect(user).await?).await?)
}

/// Does the user's manager know the unit?
pub async fn knows(user: &str, unit: &str) -> Result<bool, UserError> {
    Ok(manager(user).await?.activity(unit).await? != Activity::Unknown)
}

/// Name and number of a user in the text of passwd(5). A number needs no line there.
fn find<'text>(users: &'text str, user: &str) -> Option<(Option<&'text str>, u32)> {
    let lines = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
    });
    let number = user.parse::<u32>().ok();
    let mut found = lines.filter(|(name, its)| number.map_or(*name == user, |number| number == *its));
    match found.next() {
        Some((name, number)) => Some((Some(name), number)),
        None => number.map(|number| (None, number)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let users = "root:x:0:0::/root:/bin/sh\n# a comment\nanna:x:1000:1000:,,,:/home/anna:/bin/sh\n1001:x:7:7:::\n";
        assert_eq!(find(users, "anna"), Some((Some("anna"), 1000)));
        assert_eq!(find(users, "1000"), Some((Some("anna"), 1000)));
        assert_eq!(find(users, "1001"), Some((None, 1001)), "a number is one");
        assert_eq!(find(users, "ann"), None);
        assert_eq!(find("", "anna"), None);
    }

    #[tokio::test]
    async fn who_has_no_manager_is_told_so() {
        let error = connect("4294967294").await.unwrap_err();
        assert!(matches!(error, UserError::Absent { lingers: false, .. }), "{error}");
        assert!(
            error.to_string().ends_with("does not run: has it run from boot on: `loginctl enable-linger`"),
            "{error}"
        );
        assert!(matches!(connect("nobody-of-this-name").await.unwrap_err(), UserError::Unknown(_)));
    }
}
