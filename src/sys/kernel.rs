//! What this kernel can do for CIFS.

use std::fs;

/// The options that it knows, as `KernelOptions::parse` reads them; `None` before 5.13, or while the module is not loaded.
pub fn mount_params() -> Option<String> {
    fs::read_to_string("/proc/fs/cifs/mount_params").ok()
}

/// Whether unwritten data can be limited: 6.1 has no `max_bytes` and `strict_limit`, 6.12 has (measured); all backing devices of a
/// kernel have the same files.
pub fn can_limit_unwritten_data() -> bool {
    let devices = fs::read_dir("/sys/class/bdi").into_iter().flatten().flatten();
    devices.into_iter().any(|device| device.path().join("max_bytes").exists())
}
