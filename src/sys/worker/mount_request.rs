//! What is to be mounted, and how: what a worker is told of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::settings::ShareSettings;
use crate::plan::options::{self, MountPlan};

/// A mount option of the kernel's: its key, and its value if it has one.
pub type KernelOption = (String, Option<String>);

/// What to mount, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountRequest {
    /// Share.
    pub share: String,
    /// `//address/share[/directory]`.
    pub source: String,
    /// Options in order, without the login; ids may be names.
    pub options: Vec<KernelOption>,
    /// Attributes of the mount itself.
    pub attributes: Vec<Attribute>,
    /// Where the login is; the worker reads it, so that no secret passes through the daemon.
    pub login: Login,
    /// What is to be done about unwritten data.
    pub dirty_data: DirtyData,
    /// How many bytes are read ahead, unless that is left to the kernel.
    pub read_ahead: Option<u64>,
    /// A path below the root that has to exist.
    pub marker: Option<String>,
}

impl MountRequest {
    /// A plan for a share, as a worker is told of it.
    pub fn new(share: &ShareSettings, plan: MountPlan, login: Login) -> Self {
        Self {
            share: share.id.to_string(),
            source: plan.source,
            options: plan.options.into_iter().map(|option| (option.key, option.value)).collect(),
            attributes: plan.attributes.into_iter().map(Attribute::from).collect(),
            login,
            dirty_data: plan.dirty_data.into(),
            read_ahead: share.read_ahead,
            marker: share.marker.clone(),
        }
    }
}

/// How much a mount may leave unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirtyData {
    /// As much as the kernel likes.
    Unlimited,
    /// So many bytes.
    Limited(u64),
    /// Each write waits for the server; no more than so many bytes are under way.
    WrittenThrough(Option<u64>),
}

impl From<options::DirtyData> for DirtyData {
    fn from(planned: options::DirtyData) -> Self {
        match planned {
            options::DirtyData::Unlimited => Self::Unlimited,
            options::DirtyData::Limited(limit) => Self::Limited(limit),
            options::DirtyData::WrittenThrough(limit) => Self::WrittenThrough(limit),
        }
    }
}

/// An attribute of a mount (`MOUNT_ATTR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Attribute {
    ReadOnly,
    NoSuid,
    NoDev,
    NoExec,
    NoAtime,
    NoDirAtime,
}

impl From<options::MountAttribute> for Attribute {
    fn from(planned: options::MountAttribute) -> Self {
        match planned {
            options::MountAttribute::ReadOnly => Self::ReadOnly,
            options::MountAttribute::NoSuid => Self::NoSuid,
            options::MountAttribute::NoDev => Self::NoDev,
            options::MountAttribute::NoExec => Self::NoExec,
            options::MountAttribute::NoAtime => Self::NoAtime,
            options::MountAttribute::NoDirAtime => Self::NoDirAtime,
        }
    }
}

/// Where a login is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Login {
    /// None.
    Guest,
    /// A credentials file.
    File(PathBuf),
}
