//! The kernel: its age, its bugs, what it was built without, and what has happened to it.

use std::fmt::Write as _;

use super::bugs::{BUGS, Bug, Concerns, Harm, Has, Kernel, Version};
use super::facts::KernelFacts;
use super::{Finding, Severity};
use crate::config::settings::Settings;

/// The first kernel that nasmount works with.
const OLDEST: Version = Version(5, 13, 0);

/// The bits of `/proc/sys/kernel/tainted` that stand for trouble, the worst first.
const DAMAGE: [(u32, &str, Severity); 3] = [
    (5, "it found damaged memory", Severity::Error),
    (7, "a part of it crashed", Severity::Warning),
    (14, "a processor hung", Severity::Note),
];

pub(super) fn kernel(settings: &Settings, kernel: &KernelFacts, found: &mut Vec<Finding>) {
    let release = &kernel.release;
    let parsed = Kernel::parse(release, &kernel.version, kernel.signature.as_deref());
    if parsed.is_some_and(|kernel| kernel.version < OLDEST) {
        let what = format!("Linux {release} is older than {OLDEST}");
        let why = "it does not tell which mount options it knows, and nasmount was never run on it";
        found.push(Finding::new("kernel-too-old", Severity::Error, what, why, "upgrade the kernel, and reboot"));
    }
    lacking(kernel, found);
    let bugs = parsed.into_iter().flat_map(|parsed| BUGS.iter().filter_map(move |bug| buggy(settings, bug, parsed)));
    found.extend(bugs);
    let is_set = |(bit, ..): &&(u32, &str, Severity)| kernel.taint >> bit & 1 == 1;
    if let Some((_, what_happened, severity)) = DAMAGE.iter().find(is_set) {
        let what = format!("the kernel has been in trouble since the boot ({what_happened})");
        let why = "calls may hang and data may be damaged until the next boot, whatever the cause was";
        let remedy = "journalctl -k -b -p err; then reboot";
        found.push(Finding::new("kernel-tainted", *severity, what, why, remedy));
    }
}

/// That the kernel has no CIFS, and what to do; `None` if it has it, or can load it.
pub fn lacks_cifs(kernel: &KernelFacts) -> Option<(String, &'static str)> {
    lacks(kernel, "cifs", "cifs")
}

fn lacks(kernel: &KernelFacts, name: &str, file: &str) -> Option<(String, &'static str)> {
    let loaded = kernel.filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    if loaded || kernel.modules.as_ref().is_some_and(|modules| modules.contains(&format!("/{file}.ko"))) {
        return None;
    }
    Some(match kernel.modules {
        Some(_) => (
            format!("Linux {} has no {name}", kernel.release),
            "install the package with all its modules (Ubuntu: apt install linux-modules-extra-$(uname -r))",
        ),
        None => (
            format!("{name} is not loaded, and there are no modules of Linux {}", kernel.release),
            "reboot, if another kernel was installed in its place",
        ),
    })
}

/// What the kernel was built without.
fn lacking(kernel: &KernelFacts, found: &mut Vec<Finding>) {
    for (id, name, file) in [("kernel-without-cifs", "cifs", "cifs"), ("kernel-without-autofs", "autofs", "autofs4")] {
        let Some((what, remedy)) = lacks(kernel, name, file) else { continue };
        let why = "no share can be mounted, or barred, without it";
        found.push(Finding::new(id, Severity::Error, what, why, remedy));
    }
    const DESTROY: &str = "CONFIG_INET_DIAG_DESTROY";
    let why = "without it the connections to a dead server cannot be ended: giving up, and the return, take as long as the kernel likes";
    match &kernel.config {
        Some(config) if config.lines().any(|line| line.trim() == "CONFIG_INET_DIAG_DESTROY=y") => {}
        Some(_) => {
            let what = format!("Linux {} was built without {DESTROY}", kernel.release);
            let remedy = "use a kernel that has it, as Debian's and Ubuntu's have";
            found.push(Finding::new("socket-destroy-missing", Severity::Warning, what, why, remedy));
        }
        None => {
            let what = format!("it cannot be seen whether Linux {} has {DESTROY}", kernel.release);
            let remedy = if kernel.has_config_gz {
                "zgrep INET_DIAG_DESTROY /proc/config.gz"
            } else {
                "grep INET_DIAG_DESTROY /boot/config-$(uname -r), a file of the kernel's package"
            };
            found.push(Finding::new("socket-destroy-unknown", Severity::Note, what, why, remedy));
        }
    }
}

fn buggy(settings: &Settings, bug: &Bug, kernel: Kernel) -> Option<Finding> {
    let shares = settings.shares.values().filter(|share| bug.concerns.share(share));
    let shares: Vec<String> = shares.map(|share| share.id.to_string()).collect();
    let shares = match bug.concerns {
        Concerns::All if settings.shares.is_empty() => "every share".to_owned(),
        Concerns::All | Concerns::With(..) | Concerns::Without(_) => shares.join(", "),
    };
    let has = bug.of(kernel);
    if shares.is_empty() || has == Has::No {
        return None;
    }
    let severity = if has == Has::Yes && bug.harm == Harm::Grave { Severity::Warning } else { Severity::Note };
    let may = if has == Has::Maybe { "may have a bug: it " } else { "" };
    let what = format!("the CIFS client of Linux {} {may}{}", kernel.version, bug.what);
    let doubt = match has {
        Has::Maybe => "; whether this one has the fix cannot be told from its version",
        Has::Yes | Has::No => "",
    };
    let why = format!("concerns {shares}; fixed in {}{doubt} ({})", bug.fixed_in(), bug.source);
    let mut remedy = "upgrade the kernel, and reboot".to_owned();
    if let Some(instead) = bug.instead {
        let _ = write!(remedy, "; until then: {instead}");
    }
    Some(Finding::new(bug.id, severity, what, why, remedy))
}
