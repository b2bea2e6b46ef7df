//! Mounting a share with the kernel's mount API, detached, and verifying it before anything can see it.
//!
//! There is no fall-back to mount(2): a mount that cannot be verified before it is on a path, and of which no clone
//! can be kept, breaks both promises of an outage. CIFS has the mount API since 5.11 (`smb3_init_fs_context`); an older kernel
//! is told so by `fsopen`. sys-mount serves for the barrier, which mount(2) does well; unmounting goes through rustix, because
//! sys-mount 3.1's NOFOLLOW is O_NOFOLLOW instead of UMOUNT_NOFOLLOW and umount2(2) refuses it with EINVAL.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, fspick,
};

use secrecy::ExposeSecret as _;

use crate::config::credentials::{Credentials, parse_credentials};
use crate::plan::catalogue;
use crate::plan::options::KernelOptions;
use crate::sys::accounts;
use crate::sys::config_dir::read_credentials;
use crate::sys::kernel;

use super::{
    Answer, Attempt as _, Attribute, DirtyData, Failed, KernelOption, Login, MountRequest, Reply, Stage, clone,
    password,
};

/// What a reconfiguration keeps if it is not said: the sizes have been negotiated, and saying them would undo that.
pub(super) const KEPT: [&str; 3] = ["source", "rsize", "wsize"];

pub(super) fn mount(request: &MountRequest) -> Reply {
    let before = backing_devices();
    let context = create(request)?;
    let mount = detached(&context, request)?;
    for device in backing_devices().difference(&before) {
        tune(device, request)?;
    }
    if matches!(request.dirty_data, DirtyData::WrittenThrough(_)) {
        write_through(&mount, request)?;
    }
    verify(&mount, &request.source).map_err(|failed| failed.at(Stage::Negotiation))?;
    if let Some(marker) = &request.marker {
        clone::find_marker(&mount, marker)?;
    }
    clone::pin(&request.share, &mount, &request.options)?;
    Ok(Answer::Done)
}

/// A session and a tree of its own, which end with the context.
pub(super) fn try_login(request: &MountRequest) -> Reply {
    create(request).map(|_| Answer::Done)
}

/// The file system, mounted nowhere yet.
fn create(request: &MountRequest) -> Result<OwnedFd, Failed> {
    let context = set_up(request)?;
    connect(&context, &request.source)?;
    Ok(context)
}

/// What the kernel needs to know of it; asks nobody.
pub(super) fn set_up(request: &MountRequest) -> Result<OwnedFd, Failed> {
    let context = fsopen("cifs", FsOpenFlags::FSOPEN_CLOEXEC)
        .attempt(|| "cannot use CIFS through the kernel's mount API (Linux 5.11 or newer)".into())?;
    let configured = configure(&context, request, |_| true);
    configured.map_err(|failed| failed.at(Stage::Configuration))?;
    Ok(context)
}

/// Connects, logs in, and looks the share and the directory up.
pub(super) fn connect(context: &OwnedFd, source: &str) -> Result<(), Failed> {
    fsconfig_create(context)
        .attempt(|| format!("cannot mount {source}{}", said(context)))
        .map_err(|failed| failed.at(Stage::Negotiation))
}

/// The mount of it, which no path leads to.
pub(super) fn detached(context: &OwnedFd, request: &MountRequest) -> Result<OwnedFd, Failed> {
    let attributes = request.attributes.iter().copied().map(flag).collect();
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .attempt(|| format!("cannot make a mount of {}", request.source))
}

fn flag(attribute: Attribute) -> MountAttrFlags {
    match attribute {
        Attribute::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
        Attribute::NoSuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
        Attribute::NoDev => MountAttrFlags::MOUNT_ATTR_NODEV,
        Attribute::NoExec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        Attribute::NoAtime => MountAttrFlags::MOUNT_ATTR_NOATIME,
        Attribute::NoDirAtime => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
    }
}

/// Sets the source, the login, and those options whose keys are `wanted`.
fn configure(context: &OwnedFd, request: &MountRequest, wanted: impl Fn(&str) -> bool) -> Result<(), Failed> {
    let set = |key: &str, value: &str| set(context, key, value);
    if wanted("source") {
        set("source", &request.source)?;
    }
    log_in(&request.login, &set)?;
    set_options(context, request.options.iter().filter(|(key, _)| wanted(key)))
}

/// Sets options in their order.
pub(super) fn set_options<'a>(
    context: &OwnedFd,
    options: impl IntoIterator<Item = &'a KernelOption>,
) -> Result<(), Failed> {
    for (key, value) in options {
        match value {
            Some(value) => set(context, key, &as_number(key, value)?)?,
            None => fsconfig_set_flag(context, key.as_str())
                .attempt(|| format!("cannot set the option {key}{}", said(context)))?,
        }
    }
    Ok(())
}

/// Sets an option that has a value.
pub(super) fn set(context: &OwnedFd, key: &str, value: &str) -> Result<(), Failed> {
    fsconfig_set_string(context, key, value).attempt(|| format!("cannot set the option {key}{}", said(context)))
}

/// Without credentials: an empty user name, which Samba maps to its guest; 6.1 does not know `guest` here (measured).
fn log_in(login: &Login, set: &impl Fn(&str, &str) -> Result<(), Failed>) -> Result<(), Failed> {
    let Login::File(path) = login else { return set("username", "") };
    let credentials = credentials(path)?;
    let kernel = known_options();
    // one that does not know the second password (before 6.9) would refuse the whole mount for it
    let known = |key: &str| key != "password2" || kernel.knows(key) != Some(false);
    credentials.parameters().into_iter().filter(|(key, _)| known(key)).try_for_each(|(key, value)| set(key, value))
}

/// What a credentials file says.
pub(super) fn credentials(path: &Path) -> Result<Credentials, Failed> {
    let text = read_credentials(path).attempt(|| format!("cannot read the credentials file {}", path.display()))?;
    parse_credentials(text.expose_secret()).map_err(|error| Failed {
        attempt: format!("cannot use the credentials file {}", path.display()),
        cause: error.to_string(),
        errno: Some(libc::EINVAL),
        stage: Stage::Configuration,
    })
}

/// The options that the running kernel knows.
pub(super) fn known_options() -> KernelOptions {
    kernel::mount_params().map_or_else(KernelOptions::unknown, |text| KernelOptions::parse(&text))
}

/// What the kernel wrote into the context: a reason for parse errors, nothing for refused logins (measured).
pub(super) fn said(context: &OwnedFd) -> String {
    let mut buffer = [0_u8; 1024];
    let mut text = String::new();
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        text.push_str(" (");
        text.push_str(message.trim_start_matches(['e', 'w', 'i', ' ']).trim());
        text.push(')');
    }
    text
}

fn as_number(key: &str, value: &str) -> Result<String, Failed> {
    let unknown = |kind: &str| Failed {
        attempt: format!("cannot set the option {key}"),
        cause: format!("there is no {kind} {value}"),
        errno: Some(libc::EINVAL),
        stage: Stage::Configuration,
    };
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(value.to_owned())
    } else if let Some(account) = catalogue::account(key) {
        let id = accounts::id_of(account, value);
        let id = id.attempt(|| format!("cannot look up the {} {value}", account.word()))?;
        id.map(|id| id.to_string()).ok_or_else(|| unknown(account.word()))
    } else {
        Ok(value.to_owned())
    }
}

/// Makes the super block synchronous, so that no write is acknowledged that the server does not have.
///
/// Only a reconfiguration can: at a mount CIFS drops the flag (`smb3_get_tree_common` passes 0). It begins with the kernel's
/// defaults, so every option is said again, but for the sizes, which the mount has negotiated and which are kept when they are
/// not said (`smb3_reconfigure`, fs_context.c; seen on 6.1).
fn write_through(mount: &OwnedFd, request: &MountRequest) -> Result<(), Failed> {
    let what = || format!("cannot make writes to {} synchronous", request.source);
    let context = fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH).attempt(what)?;
    configure(&context, request, |key| !KEPT.contains(&key))?;
    set_options(&context, &password::implied(&request.options))?;
    fsconfig_set_flag(&context, "sync").attempt(what)?;
    fsconfig_reconfigure(&context).attempt(|| format!("{}{}", what(), said(&context)))
}

/// The server answers for this mount, and its root can be read.
pub(super) fn verify(mount: &OwnedFd, source: &str) -> Result<(), Failed> {
    fstatfs(mount).attempt(|| format!("{source} does not answer"))?;
    let root = openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| format!("cannot open the root of {source}"))?;
    let mut entries = rustix::fs::Dir::new(root).attempt(|| format!("cannot read the root of {source}"))?;
    entries.read().transpose().attempt(|| format!("cannot read the root of {source}"))?;
    Ok(())
}

/// CIFS backing devices are called `cifs-N`; no link leads from a mount to its own (measured on 6.12), so a new mount's is
/// the one that was not there before, which holds because nasmount never mounts two shares at once.
fn backing_devices() -> BTreeSet<PathBuf> {
    let devices = fs::read_dir("/sys/class/bdi").into_iter().flatten().flatten();
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
    devices.map(|device| device.path()).filter(|path| name(path).starts_with("cifs-")).collect()
}

/// Sets what is asked for of a backing device, before anything can use it.
fn tune(device: &Path, request: &MountRequest) -> Result<(), Failed> {
    let set = |file: &str, value: u64| {
        let path = device.join(file);
        fs::write(&path, value.to_string()).attempt(|| format!("cannot write {value} to {}", path.display()))
    };
    if let DirtyData::Limited(limit) | DirtyData::WrittenThrough(Some(limit)) = request.dirty_data {
        set("strict_limit", 1)?;
        let path = device.join("max_bytes");
        match fs::write(&path, limit.to_string()) {
            // more than this host lets all programs together leave unwritten (`bdi_check_pages_limit`): nothing is left to be limited
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            written => written.attempt(|| format!("cannot write {limit} to {}", path.display()))?,
        }
    }
    match request.read_ahead {
        Some(bytes) => set("read_ahead_kb", bytes / 1024),
        None => Ok(()),
    }
}
