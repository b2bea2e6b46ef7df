//! logind: when the host is about to sleep, and an inhibitor that delays it for a moment (org.freedesktop.login1(5), systemd-inhibit(1)).

use std::os::fd::OwnedFd;

use futures_util::StreamExt as _;
use zbus::proxy::CacheProperties;
use zbus::{connection, proxy};

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<zbus::OwnedFd>;

    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_sleep(&self) -> zbus::Result<bool>;
}

/// A connection on which its announcements are heard.
pub struct Logind {
    manager: ManagerProxy<'static>,
    announcements: PrepareForSleepStream,
}

impl Logind {
    /// Connects; fails if there is no logind.
    pub async fn connect() -> zbus::Result<Self> {
        let connection = connection::Builder::system().build().await?;
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        let announcements = manager.receive_prepare_for_sleep().await?;
        Ok(Self { manager, announcements })
    }

    /// Whether a sleep has been announced that is not over.
    pub async fn is_preparing_for_sleep(&self) -> zbus::Result<bool> {
        self.manager.preparing_for_sleep().await
    }

    /// From now on the host waits before it sleeps until what is returned is closed, but no longer than `InhibitDelayMaxSec=`.
    pub async fn delay_sleep(&self, why: &str) -> zbus::Result<OwnedFd> {
        self.manager.inhibit("sleep", "nasmount", why, "delay").await.map(OwnedFd::from)
    }

    /// The next announcement: `true` before a sleep, `false` after it.
    pub async fn next(&mut self) -> zbus::Result<bool> {
        let lost = || std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection to the bus was lost");
        let announcement = self.announcements.next().await.ok_or_else(|| zbus::Error::InputOutput(lost().into()))?;
        announcement.args().map(|args| args.start)
    }
}
