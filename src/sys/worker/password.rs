//! The new password of a mount that goes on.
//!
//! The kernel has two passwords for a session. When the server refuses the one it swaps them (`smb2_reconnect`, smb2pdu.c), so the next
//! attempt is made with the other. The second one can be set while the share is in use, by a reconfiguration (`smb3_reconfigure`,
//! fs_context.c). Measured on 6.12.117 with a Samba whose password was changed, after which its connection was broken:
//!
//! | | second password set | not set |
//! | --- | --- | --- |
//! | refused logins | 1 | 170 within 15 s, and so on |
//! | callers | go on after 1 to 2 s, but for one EAGAIN without an error | EHOSTDOWN, EIO |
//!
//! - Behind veil and fence a write that was in flight met the refused login: its fsync failed with EHOSTDOWN, and nothing else did. The
//!   mount went on with the same device and options, without a mount being attempted.
//! - It took 1 to 20 ms, asked nobody, and reads, writes, creations and statfs went on beside it. A session whose logins were
//!   failing already was healed by it as well.
//! - The password in force need not be said (EINVAL for another one, "can not change password of active session"), nor need it be known
//!   to whom rotates: after a swap, the next rotation went the same way. Another user or domain is EINVAL, too.
//! - It begins with the kernel's defaults, so all options of the mount are said again; those are written down beside the clone. What
//!   `uid` and `gid` imply at a mount, `forceuid` and `forcegid`, they do not imply here (`smb3_fs_context_validate` runs at a mount
//!   only), and the mount showed `noforceuid`: so they are said.
//! - It waits, and SIGKILL does not end that, while somebody logs in to a server that does not answer (`session_mutex`); a server that
//!   hangs with a session in order delays nothing. And it takes back a shutdown (CIFS_IOC_SHUTDOWN). So it is done to shares that are
//!   well, in a worker, behind a statfs.

use rustix::fs::{CWD, statfs};
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};
use secrecy::ExposeSecret as _;

use super::{Answer, Attempt as _, Failed, KernelOption, Login, Reply, Stage, clone, host, mount};
use crate::plan::login::takes_second_password;
use crate::sys::{kernel, paths};

/// Gives the session of a share the password of a login, as its second one.
pub(super) fn add(share: &str, login: &Login) -> Reply {
    let what = || format!("cannot tell share {share} the new password");
    let failed = |cause: String| Failed { attempt: what(), cause, errno: None, stage: Stage::Other };
    takes_second_password(&mount::known_options(), kernel::version()).map_err(|why| failed(why.to_string()))?;
    let Login::File(path) = login else { return Err(failed("it is used as a guest".to_owned())) };
    let credentials = mount::credentials(path)?;
    let options = clone::mounted_options(share)?;
    let before = host::entry_of_clone(share)?.options;
    let context = clone::inside(share, || {
        statfs(paths::SHARE_IN_NAMESPACE).attempt(|| format!("share {share} does not answer"))?;
        fspick(CWD, paths::SHARE_IN_NAMESPACE, FsPickFlags::FSPICK_CLOEXEC).attempt(what)
    })?;
    for (key, value) in credentials.parameters() {
        if !key.starts_with("password") {
            mount::set(&context, key, value)?;
        }
    }
    let password = credentials.password.as_ref().map_or("", |password| password.expose_secret());
    mount::set(&context, "password2", password)?;
    mount::set_options(&context, options.iter().filter(|(key, _)| !mount::KEPT.contains(&key.as_str())))?;
    mount::set_options(&context, &implied(&options))?;
    fsconfig_reconfigure(&context).attempt(|| format!("{}{}", what(), mount::said(&context)))?;
    let after = host::entry_of_clone(share)?.options;
    if before != after {
        return Err(failed(format!("the mount has other options since: {after} (before: {before})")));
    }
    Ok(Answer::Done)
}

/// What the options of a mount imply, and those of a reconfiguration do not.
pub(super) fn implied(options: &[KernelOption]) -> Vec<KernelOption> {
    let has = |wanted: &str| options.iter().any(|(key, _)| key == wanted);
    let implies = |id: &str, forced: &str| has(id) && !has(forced) && !has(&format!("no{forced}"));
    let forced = [("uid", "forceuid"), ("gid", "forcegid")].into_iter().filter(|(id, forced)| implies(id, forced));
    forced.map(|(_, forced)| (forced.to_owned(), None)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_owner_implies_at_a_mount_is_said() {
        let implied = |options: &[&str]| {
            let options: Vec<KernelOption> = options.iter().map(|key| ((*key).to_owned(), None)).collect();
            implied(&options).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(implied(&["soft", "uid", "gid"]), ["forceuid", "forcegid"]);
        assert_eq!(implied(&["uid", "noforceuid", "gid", "forcegid"]), [""; 0]);
        assert_eq!(implied(&["cruid"]), [""; 0]);
    }
}
