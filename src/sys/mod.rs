//! Everything that touches the host: one file per facility of the kernel or of systemd, and no decisions.
//!
//! Whatever may hang runs in a **worker**, a disposable child process (`worker`): a thread in D state would keep the daemon
//! from ending, a child in D state is abandoned. The daemon itself never touches a path on a share.
//!
//! Facts on which this directory is built, with where they come from:
//! - a mount made with fsopen/fsmount can be verified before it is on any path (measured on 6.1 and 6.12);
//! - umount2(MNT_DETACH) of a mount that something else pins takes milliseconds and needs no lock of the share (measured);
//! - all CIFS mounts of a host are serialised by one kernel mutex (`cifs_mount_mutex`, fs/smb/client/connect.c), so there is
//!   never more than one mount in flight;
//! - destroying a CIFS socket makes the kernel reconnect and replay (sock_diag, `tcp_abort`; measured).
#![expect(clippy::disallowed_methods, reason = "this directory is where the host is touched")]

pub mod accounts;
pub mod attributes;
pub mod autofs;
pub mod barrier_memory;
pub mod barrier_socket;
pub mod changes;
pub mod clock;
pub mod config_dir;
pub mod engine;
pub mod engine_watch;
pub mod examine;
pub mod fd_store;
pub mod generator;
pub mod host_facts;
pub mod interfaces;
pub mod kernel;
pub mod kernel_log;
pub mod listen;
pub mod logind;
pub mod mount_point;
pub mod mount_watch;
pub mod mountinfo;
pub mod news;
pub mod nft;
pub mod pages;
pub mod paths;
pub mod probe;
pub mod recordings;
pub mod route;
pub mod secret;
pub mod sinkhole;
pub mod sockets;
pub mod state_file;
pub mod systemd;
pub mod terminal;
pub mod unit_files;
pub mod unit_watch;
pub mod user_manager;
pub mod worker;
