//! From what is configured to what is done, without doing it.
//!
//! - [`layers`]: the stack of time-outs, computed in one place, because each only makes sense below or above another.
//! - [`beside`]: what lies in the directory under a share, and what becomes of it.
//! - [`bytes`]: a file that is not all UTF-8 as a text.
//! - [`bounds`]: what each option bounds, and what the kernel does without it.
//! - [`catalogue`]: what the kernel's CIFS client understands, and what nasmount does not leave to the user.
//! - [`copies`]: who has to be restarted to have a share that is back.
//! - [`dependency`]: how other units depend on a share.
//! - [`diagnosis`]: what each step from a name to the data showed, and what that means.
//! - [`diff`]: a new configuration and the one in force become steps.
//! - [`doctor`]: facts about a host become findings.
//! - [`fstab`], [`mount_unit`], [`import`]: lines of fstab and mount units, and what they become; `outdated`: those that must stay.
//! - [`hazards`]: options that may hurt.
//! - `over`: mounts that are made of what lies on a share.
//! - [`login`]: what was typed becomes a credentials file.
//! - [`options`]: a share and an address become the parameters of one mount;
//! - [`units`]: what is configured of a unit, over all the shares that it needs.
//!
//! Everything here is pure: executing it is the business of `daemon` and `sys`.

pub mod beside;
pub mod bounds;
pub mod bytes;
pub mod catalogue;
pub mod copies;
pub mod dependency;
pub mod diagnosis;
pub mod diff;
pub mod doctor;
pub mod fstab;
pub mod hazards;
pub mod import;
mod inline_login;
pub mod layers;
pub mod login;
pub mod mount_unit;
pub mod options;
mod outdated;
mod over;
pub mod units;
