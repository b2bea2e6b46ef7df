//! Where nasmount keeps things on the host.

use std::path::{Path, PathBuf};

/// What lives as long as the boot: sockets, pinned clones, what is held.
pub const RUNTIME_DIRECTORY: &str = "/run/nasmount";

/// Mount namespaces that pin the clones, one file a share. A private mount of its own, because the kernel refuses to bind
/// a mount namespace onto a mount that propagates (mnt_ns_loop in fs/namespace.c).
pub const CLONE_DIRECTORY: &str = "/run/nasmount/clone";

/// What survives a reboot: which units nasmount stopped, which barriers were laid, who the servers are.
pub const STATE_DIRECTORY: &str = "/var/lib/nasmount";

/// Socket of the barrier service.
pub const BARRIER_SOCKET: &str = "/run/nasmount/barrier.sock";

/// Where the clone lies inside its namespace.
pub const SHARE_IN_NAMESPACE: &str = "/share";

/// The options that the clone was mounted with, in its namespace: they live exactly as long as it does.
pub const OPTIONS_IN_NAMESPACE: &str = "/options.json";

/// Socket on which the daemon itself speaks D-Bus, for where the bus is away: early boot, late shutdown, a broken broker.
pub const CONTROL_SOCKET: &str = "/run/nasmount/control.sock";

/// The file on which a share's namespace is pinned.
pub fn clone_pin(share: &str) -> PathBuf {
    Path::new(CLONE_DIRECTORY).join(share)
}
