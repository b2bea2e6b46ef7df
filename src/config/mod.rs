//! From text to [`Settings`], in three stages with a type each.
//!
//! 1. *Fragments* (`fragment`, `profile`): one file as it was typed. Every value is optional; unknown keys, wrong types
//!    and unreadable forms are found here.
//! 2. *Input* (`merge`): all files laid over each other, the later one wins key by key. Each value remembers the file and
//!    the bytes it came from.
//! 3. *Settings* (`validate` -> [`settings`]): what the rest of the program sees. References, paths, limits and the order
//!    of the time-outs have been checked, defaults and profiles are filled in.
//!
//! Three stages, because each kind of mistake can be seen in one of them only, and because a person who repairs a
//! configuration wants to hear of all mistakes at once: no stage stops at the first one. The document is therefore walked
//! by hand over toml's spanned tree (`reader`) instead of being deserialised by serde, which would stop.
//!
//! This directory is pure: text in, values out. Files are found and read by `sys::config_dir`.

pub mod consumer;
mod consumers;
pub mod credentials;
mod fragment;
mod hints;
pub mod invalid;
pub mod limits;
mod merge;
pub mod network;
mod options;
mod paths;
mod profile;
mod reader;
pub mod settings;
pub mod source;
mod timeouts;
pub mod units;
mod validate;
mod value;

use std::collections::BTreeMap;

pub use invalid::{Colour, Invalid, InvalidKind, Notice, Warning};
pub(crate) use options::{OF_ACTIMEO, opposite};
pub(crate) use paths::{FOUR_NUMBERS, is_almost_ipv4, unusable_address};
pub use profile::{Listed, list_profiles, shipped_profiles};
pub use settings::Settings;
pub use source::{Place, SourceText};
pub(crate) use timeouts::same_host;
pub(crate) use value::{closest, escaped, escaped_lines, is_name, shown};

use invalid::Problems;
use settings::{ServerId, ShareId};
use source::{Files, Origin};

/// A valid configuration and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What the daemon works with.
    pub settings: Settings,
    /// Valid, but worth a second thought.
    pub warnings: Vec<Warning>,
    /// Where each option in force comes from, for `explain`.
    pub option_origins: BTreeMap<ShareId, BTreeMap<String, OptionOrigin>>,
    /// Where each server's `credentials` are named, for problems with the file itself.
    pub credentials_places: BTreeMap<ServerId, Place>,
    /// Where each share's `mount_point` is named, for what the host has there.
    pub mount_point_places: BTreeMap<ShareId, Place>,
    /// Where the user of each consumer that is a user's unit is named: by the consumer's name, its key and the place.
    pub user_places: BTreeMap<ShareId, BTreeMap<String, (String, Place)>>,
}

/// Where an option in force comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionOrigin {
    /// A profile's file.
    Profile(Place),
    /// The share's own `options`.
    Share(Place),
    /// Computed by [`crate::plan::layers`], because the profile's value lies below what the patience needs.
    Layers {
        /// The profile's `echo_interval` in seconds, if it has one.
        profile: Option<u64>,
    },
}

impl Loaded {
    /// The problem that a server's credentials file is unusable, pointing at the key that names it.
    pub fn invalid_credentials(&self, server: &ServerId, message: String, help: String) -> Option<Invalid> {
        self.about_credentials(server, InvalidKind::Credentials, message, help).map(Invalid)
    }

    /// The same for one that is used as it stands, but was hardly meant so.
    pub fn doubtful_credentials(&self, server: &ServerId, message: String, help: String) -> Option<Warning> {
        self.about_credentials(server, InvalidKind::Doubtful, message, help).map(Warning)
    }

    fn about_credentials(&self, server: &ServerId, kind: InvalidKind, message: String, help: String) -> Option<Notice> {
        let place = self.credentials_places.get(server)?.clone();
        Some(Notice { kind, place, key: format!("server.{server}.credentials"), message, help, related: None })
    }

    /// That what the host has at a mount point is no directory, or not at that place. A warning: the other shares can be mounted.
    pub fn doubtful_mount_point(&self, share: &ShareId, message: String, help: String) -> Option<Warning> {
        let place = self.mount_point_places.get(share)?.clone();
        let key = format!("share.{share}.mount_point");
        Some(Warning(Notice { kind: InvalidKind::Doubtful, place, key, message, help, related: None }))
    }

    /// What there is to say of the user whose unit a consumer is, at the place where they are named.
    pub fn doubtful_user(&self, share: &ShareId, consumer: &str, message: String, help: String) -> Option<Notice> {
        let (key, place) = self.user_places.get(share)?.get(consumer)?.clone();
        Some(Notice { kind: InvalidKind::Doubtful, place, key, message, help, related: None })
    }

    /// What there is to say of the value of a share's option, at the place where it is written.
    pub fn doubtful_option(&self, share: &ShareId, option: &str, message: String, help: String) -> Option<Notice> {
        let place = match self.option_origins.get(share)?.get(option)? {
            OptionOrigin::Profile(place) | OptionOrigin::Share(place) => place.clone(),
            OptionOrigin::Layers { .. } => return None, // nobody has written it
        };
        let key = format!("share.{share}.options.{option}");
        Some(Notice { kind: InvalidKind::Doubtful, place, key, message, help, related: None })
    }
}

/// Loads a configuration: the fragments in the order in which they override each other, and all profiles likewise.
///
/// Either a whole configuration is valid or every problem in it is returned, in the order of files and lines.
pub fn load(fragments: &[SourceText], profiles: &[SourceText]) -> Result<Loaded, Vec<Invalid>> {
    let mut problems = Problems::new(Files::new(fragments.iter().chain(profiles)));
    let read: Vec<_> = (0..fragments.len()).map(|file| fragment::read_fragment(file, &mut problems)).collect();
    if read.iter().any(Option::is_none) || fragments.is_empty() {
        // A share whose server is in a file that could not be parsed is no mistake: nothing is compared.
        return Err(problems.into_lists().0);
    }
    let input = merge::merge(read.into_iter().flatten().collect(), &mut problems);
    let named: Vec<(usize, String)> = (fragments.len()..)
        .zip(profiles)
        .filter_map(|(file, source)| Some((file, profile::profile_name(source)?.to_owned())))
        .collect();
    let profiles = profile::read_profiles(&named, &mut problems);
    if input.shares.is_empty() && problems.is_empty() {
        let start = Origin { file: 0, start: 0, end: 0 };
        problems.warn(start, "", "no share is configured", "add a table [share.NAME]");
    }
    let validated = validate::validate(&input, &profiles, &mut problems);
    let user_places = user_places(&input, &problems);
    let (invalid, warnings) = problems.into_lists();
    match validated {
        Some(validated) if invalid.is_empty() => Ok(Loaded { user_places, ..validated.into_loaded(warnings) }),
        _ => Err(invalid),
    }
}

fn user_places(input: &merge::Input, problems: &Problems<'_>) -> BTreeMap<ShareId, BTreeMap<String, (String, Place)>> {
    let of = |name: &str, share: &fragment::ShareFragment| {
        let users = share.consumers.iter().filter_map(|consumer| Some((consumer, consumer.user?)));
        let place = |(consumer, user): (&fragment::ConsumerFragment, Origin)| {
            let key = format!("share.{name}.consumer[{}].user", consumer.index);
            (consumer.unit.value.clone(), (key, problems.files.place(user)))
        };
        users.map(place).collect()
    };
    input.shares.iter().map(|(name, share)| (ShareId(name.clone()), of(name, share))).collect()
}
