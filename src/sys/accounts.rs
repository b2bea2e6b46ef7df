//! Users and groups of this host, as its name service has them.

use nix::unistd::{Group, User};

use crate::plan::catalogue::Account;

/// The number of who has this name; `None` if nobody has.
///
/// # Errors
///
/// The name service does not say.
pub fn id_of(account: Account, name: &str) -> nix::Result<Option<u32>> {
    Ok(match account {
        Account::User => User::from_name(name)?.map(|user| user.uid.as_raw()),
        Account::Group => Group::from_name(name)?.map(|group| group.gid.as_raw()),
    })
}

/// Whether it is known that nobody has this name: a directory service that does not answer says nothing of it.
pub fn is_missing(account: Account, name: &str) -> bool {
    id_of(account, name) == Ok(None)
}
