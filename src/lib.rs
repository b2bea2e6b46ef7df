//! nasmount: network mounts that never take a Linux machine down with them. The map of the crate:
//!
//! - [`config`]: text to [`config::settings::Settings`]. Pure.
//! - [`plan`]: settings to mount options and to timeouts that are known to be ordered. Pure.
//! - [`share`]: the heart; what a share does when the world around it changes. Pure.
//! - [`sys`]: everything that touches the host, one file a facility, no decisions; the only `unsafe`.
//! - [`daemon`]: actors that connect `share` with `sys`; the barrier's owner; what is left to do when the daemon cannot.
//! - [`status`]: the published types, all that D-Bus and the CLI see.
//! - [`dbus`]: what others may ask.
//! - [`cli`]: what people type.
//!
//! `tests/architecture.rs` fails on an import that goes the wrong way.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod dbus;
pub mod plan;
pub mod share;
pub mod status;
pub mod sys;
