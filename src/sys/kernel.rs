//! What this kernel can do for CIFS.

use std::fs;

use crate::plan::doctor::{Kernel, Version};

/// The options that it knows, as `KernelOptions::parse` reads them; `None` before 5.13, or while the module is not loaded.
pub fn mount_params() -> Option<String> {
    fs::read_to_string("/proc/fs/cifs/mount_params").ok()
}

/// Its version, as its own words tell; `None` if they do not.
pub fn version() -> Option<Version> {
    let text = |file: &str| fs::read_to_string(file).ok();
    let (release, version) = (text("/proc/sys/kernel/osrelease")?, text("/proc/sys/kernel/version")?);
    let signature = text("/proc/version_signature");
    Kernel::parse(release.trim(), version.trim(), signature.as_deref()).map(|kernel| kernel.version)
}

/// Whether unwritten data can be limited: 6.1 has no `max_bytes` and `strict_limit`, 6.12 has (measured); all backing devices of a
/// kernel have the same files.
pub fn can_limit_unwritten_data() -> bool {
    let devices = fs::read_dir("/sys/class/bdi").into_iter().flatten().flatten();
    devices.into_iter().any(|device| device.path().join("max_bytes").exists())
}
