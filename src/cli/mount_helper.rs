//! `mount.nasmount`: what the start of a share's `.mount` unit runs, and before it `nasmount-wait@SHARE.service`. It mounts nothing: it
//! waits until the share is online, and says why if it is not.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;

use super::client::{Answer, Client, Wish, block_on};
use super::{Hinted, report};
use crate::plan::dependency::{SOURCE_PREFIX, START_WAITS};
use crate::share::State;
use crate::share::command::Wanted;
use crate::status::ShareStatus;
use crate::sys::{clock, mountinfo};

/// "Mount failure" of mount(8).
const MOUNT_FAILURE: u8 = 32;
/// How often it is looked whether the share is there.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// As mount(8) calls its helpers; what is not named here changes nothing.
#[derive(Debug, Parser)]
#[command(name = "mount.nasmount", version, about = "Wait until a share of nasmount is online; mount(8) runs this")]
struct Arguments {
    /// nasmount:SHARE
    source: String,
    /// The share's mount point, if it is to be compared
    mount_point: Option<String>,
    /// Options; `remount` has nothing to do
    #[arg(short, value_name = "OPTIONS", action = clap::ArgAction::Append, value_delimiter = ',')]
    options: Vec<String>,
    /// Only pretend
    #[arg(short)]
    fake: bool,
    #[arg(short, hide = true)]
    no_mtab: bool,
    #[arg(short, hide = true)]
    sloppy: bool,
    #[arg(short, hide = true)]
    verbose: bool,
    #[arg(short = 't', hide = true)]
    kind: Option<String>,
    #[arg(short = 'N', hide = true)]
    namespace: Option<String>,
}

/// Runs the helper.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    if arguments.fake || arguments.options.iter().any(|option| option == "remount") {
        return ExitCode::SUCCESS;
    }
    match block_on(wait(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::report(error.as_ref(), error.downcast_ref::<Hinted>().map(Hinted::hint));
            ExitCode::from(MOUNT_FAILURE)
        }
    }
}

async fn wait(Arguments { source, mount_point, .. }: &Arguments) -> anyhow::Result<()> {
    let Some(name) = source.strip_prefix(SOURCE_PREFIX) else {
        bail!(Hinted::new(format!("{source} is no share of nasmount"), format!("write {SOURCE_PREFIX}SHARE")));
    };
    let deadline = clock::now() + START_WAITS;
    let mut wished = false;
    loop {
        let error = match look(name, mount_point.as_deref()).await {
            Ok(Look::Online) => return Ok(()),
            Ok(Look::Never(error)) => return Err(error),
            Ok(Look::TakenOff) if !wished => {
                wished = true;
                match Client::connect().await?.wish(name, Wish::Mount).await? {
                    Answer::Refused(refusal) => anyhow::anyhow!("{refusal}"),
                    Answer::Verdict(_) | Answer::NoSuchShare => continue,
                }
            }
            Ok(Look::TakenOff) => anyhow::anyhow!("it was unmounted again"),
            Ok(Look::NotYet(why)) => anyhow::anyhow!(why),
            Err(error) => error, // the daemon may be starting
        };
        if clock::now() >= deadline {
            return Err(error.context(format!("share {name} is not there after {} s", START_WAITS.as_secs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

enum Look {
    Online,
    /// It may become so: why it is not yet.
    NotYet(String),
    /// Somebody unmounted it as he would a line of fstab.
    TakenOff,
    /// It will not by itself.
    Never(anyhow::Error),
}

async fn look(name: &str, mount_point: Option<&str>) -> anyhow::Result<Look> {
    let client = Client::connect().await?;
    let status = client.status().await?;
    let share = status.shares.into_iter().find(|share| share.name == name);
    let Some(share) = share.filter(|share| mount_point.is_none_or(|place| share.mount_point == place)) else {
        let hint =
            "`nasmount status` lists what there is; `systemctl daemon-reload` after a change of the configuration";
        return Ok(Look::Never(Hinted::new(format!("nasmount has no share {name}{}", on(mount_point)), hint).into()));
    };
    Ok(match share.wanted {
        // the daemon may not know yet of an umount that has just been
        Wanted::Mounted if share.state == State::Online && is_off_its_path(&share)? => {
            Look::NotYet("somebody has just unmounted it".to_owned())
        }
        Wanted::Mounted => judge(share),
        Wanted::TakenOff => Look::TakenOff,
        Wanted::Unmounted => {
            let hint = format!("`nasmount mount {name}`");
            Look::Never(Hinted::new(format!("share {name} was unmounted by an operator"), hint).into())
        }
    })
}

fn on(mount_point: Option<&str>) -> String {
    mount_point.map_or_else(String::new, |place| format!(" on {place}"))
}

fn is_off_its_path(share: &ShareStatus) -> anyhow::Result<bool> {
    let mount = mountinfo::cifs_on(Path::new(&share.mount_point)).context("cannot read the mount table")?;
    Ok(mount.is_none())
}

fn judge(share: ShareStatus) -> Look {
    let why = format!("it is {}: {}", share.state, share.reason_text);
    match share.state {
        State::Online => Look::Online,
        State::Blocked | State::Maintenance => {
            let hint = share.hint.unwrap_or_else(|| format!("`nasmount status {}`", share.name));
            Look::Never(Hinted::new(format!("share {}: {why}", share.name), hint).into())
        }
        State::Suspect
        | State::Holding
        | State::Releasing
        | State::Offline
        | State::Mounting
        | State::Recovering
        | State::Stuck => Look::NotYet(why),
    }
}
