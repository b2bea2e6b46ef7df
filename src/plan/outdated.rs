//! What lines of fstab still ask for, and nasmount or the kernel has not any more.

/// Why a line with these options stays as it is: without them it would be another mount, which may fail where this one works. The kernel
/// takes the last dialect, and refuses each login that it does not have (`cifs_parse_security_flavors()`).
pub(super) fn is_outdated(options: &[String]) -> Option<String> {
    const SMB1: [&str; 2] = ["vers=1.0", "vers=1"];
    const REMOVED: [&str; 3] = ["sec=ntlm", "sec=ntlmi", "sec=lanman"]; // 76a3c92ec9e0
    let smb1 = options.iter().rfind(|option| option.starts_with("vers=")).filter(|last| SMB1.contains(&last.as_str()));
    let login = options.iter().find(|option| REMOVED.contains(&option.as_str()));
    match (smb1, login) {
        (Some(vers), _) => Some(format!(
            "left out: {vers} is SMB 1, which nasmount does not speak; switch SMB 2 or 3 on at the server, take {vers} out, and try again"
        )),
        (None, Some(sec)) => Some(format!(
            "left out: kernels since 5.15 do not have {sec}, and refuse the mount; take {sec} out, and try again"
        )),
        (None, None) => None,
    }
}
