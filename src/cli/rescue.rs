//! `nasmount rescue [SHARE]`: files that lie beside a share, in the bare directory under its mount point, where it hides them: listed, moved
//! aside, or merged onto the share.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::Hinted;
use super::client::{Client, START, block_on};
use super::configured;
use super::report::{Exit, in_one_line, print, report};
use crate::config::settings::ShareSettings;
use crate::plan::beside::{Doing, Found, Left, Tally};
use crate::plan::doctor::size;
use crate::plan::layers;
use crate::share::State;
use crate::sys::worker::{self, Answer, Destination, Ended, Failed, Request, RescueRequest};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;
/// Listing a hundred thousand files on a disk takes seconds.
const LISTED_WITHIN: Duration = Duration::from_secs(60);
/// How far two signs of life of a worker that moves files may lie apart: it writes back 8 MiB, or has the server look one name up.
const STEP_WITHIN: Duration = Duration::from_secs(layers::FLUSH.as_secs() + layers::REQUEST.as_secs());

/// What `--aside` takes.
const OUTSIDE: &str =
    "name a directory that lies in no share, such as --aside /var/tmp; --merge moves files onto the share";

/// `rescue [SHARE]`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --aside and --merge nothing is changed. Nothing is ever overwritten: what has another content under the same \
                        name is left and named, and the exit status is 1. What is copied is deleted only after the copy was read back. It can be ended and run again.\n\n\
                        Examples:\n  sudo nasmount rescue films\n  sudo nasmount rescue films --merge --dry-run\n  \
                        sudo nasmount rescue films --aside /var/tmp"
)]
pub struct Arguments {
    /// Share, or its mount point; without one, all
    share: Option<String>,
    /// Move the files into DIR/SHARE
    #[arg(long, value_name = "DIR", group = "to")]
    aside: Option<PathBuf>,
    /// Move the files onto the share, which has to be online
    #[arg(long, group = "to")]
    merge: bool,
    /// Only say what --aside or --merge would do
    #[arg(long, requires = "to")]
    dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What there is to say of a share.
#[derive(Debug, Default, Serialize)]
struct OfShare {
    share: String,
    mount_point: String,
    /// What lay beside it; `null` if that could not be looked at.
    found: Option<Found>,
    /// What became of it; `null` if nothing was to become of it.
    rescued: Option<Tally>,
    /// Why not all of it was looked at or moved.
    error: Option<String>,
    /// What to do about that.
    hint: Option<String>,
    #[serde(skip)]
    refused: bool,
}

/// 0: listed, or all moved; 1: something is left; 2: the configuration is not valid, or `--aside` names a share; 3: the share is not online;
/// 4: no such share.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Exit> {
    if !super::is_root() {
        bail!(Hinted::new("only root can look under a mount", "run it with sudo"));
    }
    let loaded = match configured::loaded(config) {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let all = loaded.settings.shares.values();
    let shares: Vec<&ShareSettings> =
        match arguments.share.as_deref().map(|typed| configured::share(all.clone(), typed)) {
            None => all.collect(),
            Some(Ok(share)) => vec![share],
            Some(Err(exit)) => return Ok(exit),
        };
    let to = match &arguments.aside {
        Some(directory) => Some(Destination::Aside(std::path::absolute(directory).context("--aside")?)),
        None => arguments.merge.then_some(Destination::Share),
    };
    if let Some(Destination::Aside(directory)) = &to
        && let Some(share) = share_around(loaded.settings.shares.values(), directory)
    {
        let message = format!("cannot move anything into {}: it lies in the share {}", directory.display(), share.id);
        report(&Hinted::new(message, OUTSIDE), Some(OUTSIDE));
        return Ok(Exit::Usage);
    }
    let doing = if arguments.dry_run { Doing::Look } else { Doing::Move };
    let all = block_on(async {
        let mut all = Vec::new();
        for share in shares {
            all.push(rescue(share, to.as_ref(), doing).await);
        }
        Ok(all)
    })?;
    let text = if arguments.json {
        format!("{:#}\n", serde_json::json!({ "schema": SCHEMA, "dry_run": arguments.dry_run, "shares": all }))
    } else {
        render(&all, to.as_ref(), doing)
    };
    Ok(print(exit(&all), &text))
}

/// The share in which a directory lies, by its path alone: looking at it could wait for the share's server. The worker finds out about
/// links.
fn share_around<'s>(
    mut shares: impl Iterator<Item = &'s ShareSettings>,
    directory: &Path,
) -> Option<&'s ShareSettings> {
    let mut plain = PathBuf::new();
    for part in directory.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::Normal(_) => plain.push(part),
        }
    }
    shares.find(|share| plain.starts_with(&share.mount_point))
}

async fn rescue(share: &ShareSettings, to: Option<&Destination>, doing: Doing) -> OfShare {
    let mut of = OfShare {
        share: share.id.to_string(),
        mount_point: share.mount_point.to_string_lossy().into_owned(),
        ..OfShare::default()
    };
    let listed = worker::ask(&Request::ListBeside { mount_point: share.mount_point.clone() }, LISTED_WITHIN).await;
    let found = match listed {
        Ok(Answer::Beside(found)) => found,
        Ok(other) => return fail(of, format!("a worker answered something else: {other:?}"), None),
        Err(failed) => return fail(of, failed.to_string(), None),
    };
    let is_empty = found.is_empty();
    of.found = Some(found);
    let Some(to) = to.filter(|_| !is_empty) else { return of };
    if matches!(to, Destination::Share)
        && let Err((why, hint)) = is_online(&of.share).await
    {
        of.refused = true;
        return fail(of, why, Some(hint));
    }
    let request =
        RescueRequest { share: of.share.clone(), mount_point: share.mount_point.clone(), to: to.clone(), doing };
    let mut tally = Tally::default();
    let ended = worker::follow_steps(&Request::Rescue(Box::new(request)), STEP_WITHIN, |answer| {
        if let Answer::Rescued(said) = answer {
            tally.add(said);
        }
    })
    .await;
    of.rescued = Some(tally);
    match ended {
        Ended::Done => of,
        Ended::Failed(failed) => {
            let hint = hint(&failed);
            fail(of, failed.to_string(), Some(hint))
        }
        Ended::Hangs => {
            let why = format!("no answer within {} s", STEP_WITHIN.as_secs());
            fail(
                of,
                why,
                Some("nothing is lost: run it again when `nasmount status` says that the share is online".to_owned()),
            )
        }
    }
}

fn fail(of: OfShare, error: String, hint: Option<String>) -> OfShare {
    OfShare { error: Some(error), hint, ..of }
}

/// Only the daemon knows; what it says is as old as the last probe, which is what the deadline of each step is for.
async fn is_online(share: &str) -> Result<(), (String, String)> {
    let asked = async { Client::connect().await?.status().await }.await;
    let hint = format!("`nasmount wait {share}`, then again; --aside DIR needs no share");
    let report = asked.map_err(|error| unasked(&error))?;
    match report.shares.iter().find(|status| status.name == share) {
        Some(status) if status.state == State::Online => Ok(()),
        Some(status) => Err((format!("the share is {}, not online", status.state), hint)),
        None => Err(("nasmount does not have the share yet".to_owned(), "`nasmount reload`, then again".to_owned())),
    }
}

/// Whom nobody answers waits in vain.
fn unasked(error: &anyhow::Error) -> (String, String) {
    let hint = error.downcast_ref::<Hinted>().map_or(START, Hinted::hint);
    (in_one_line(error.as_ref()), format!("{hint}; then again; --aside DIR needs no share"))
}

fn hint(failed: &Failed) -> String {
    match failed.errno {
        Some(libc::ENOSPC | libc::EDQUOT) => "make room there, then run it again: nothing is lost",
        Some(libc::EROFS) => "it cannot be written to: is the share, or its mount, read-only?",
        Some(libc::EWOULDBLOCK) => "wait until that has ended",
        Some(libc::ENOENT | libc::ENOTDIR) => "name a directory of this host that is there",
        None => "nothing is lost: run it again when the reason is gone",
        _ => "nothing is lost: run it again when that is better",
    }
    .to_owned()
}

fn exit(all: &[OfShare]) -> Exit {
    let is_left = |of: &OfShare| of.error.is_some() || of.rescued.as_ref().is_some_and(|tally| !tally.left.is_empty());
    if all.iter().any(|of| is_left(of) && !of.refused) {
        Exit::Failed
    } else if all.iter().any(|of| of.refused) {
        Exit::Refused
    } else {
        Exit::Done
    }
}

fn render(all: &[OfShare], to: Option<&Destination>, doing: Doing) -> String {
    let mut text = String::new();
    for of in all {
        let OfShare { share, mount_point, found, rescued, error, hint, .. } = of;
        match (found, rescued) {
            (Some(found), _) if found.is_empty() => text.push_str(&format!("{share}: nothing lies beside it\n")),
            (_, Some(tally)) if error.is_some() && *tally == Tally::default() => {}
            (_, Some(tally)) => text.push_str(&outcome(of, tally, to, doing)),
            (Some(found), None) => text.push_str(&listed(share, mount_point, found, to)),
            (None, None) => {}
        }
        if let Some(error) = error {
            text.push_str(&format!("{share}: {error}\n"));
        }
        if let Some(hint) = hint {
            text.push_str(&format!("  do: {hint}\n"));
        }
    }
    text
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn listed(share: &str, mount_point: &str, found: &Found, to: Option<&Destination>) -> String {
    let Found { files, directories, bytes, newest, names, more } = found;
    let least = if *more { "at least " } else { "" };
    let newest = newest.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let newest = newest.map_or(String::new(), |at| format!(", the newest of {}", at.strftime("%Y-%m-%d %H:%M UTC")));
    let mut text = format!(
        "{share}: {least}{} and {}, {}{newest}, lie under it in {mount_point}\n",
        plural(*files, "file", "files"),
        plural(*directories, "directory", "directories"),
        size(*bytes),
    );
    names.iter().for_each(|name| text.push_str(&format!("  {name:?}\n")));
    if *more || *files > names.len() as u64 {
        text.push_str("  ...\n");
    }
    if to.is_none() {
        text.push_str(&format!(
            "  do: `nasmount rescue {share} --merge` moves them onto the share, `--aside DIR` elsewhere; --dry-run says what that would do\n"
        ));
    }
    text
}

const ONTO_SHARE: &str = "onto the share";

fn outcome(of: &OfShare, tally: &Tally, to: Option<&Destination>, doing: Doing) -> String {
    let Tally { moved, bytes, same, without, left } = tally;
    let place = match to {
        Some(Destination::Aside(directory)) => format!("into {}", directory.join(&of.share).display()),
        Some(Destination::Share) | None => ONTO_SHARE.to_owned(),
    };
    let were = match (doing, moved) {
        (Doing::Look, _) => "would be",
        (Doing::Move, 1) => "was",
        (Doing::Move, _) => "were",
    };
    let mut text = format!("{}: {} ({}) {were} moved {place}", of.share, plural(*moved, "file", "files"), size(*bytes));
    if place == ONTO_SHARE && *moved > 0 {
        text.push_str(" with the owner, group and mode that it has");
    }
    if *same > 0 {
        text.push_str(&format!(", {same} more with the same content there already"));
    }
    match left.len() as u64 {
        0 => text.push('\n'),
        count => text.push_str(&format!("; {} left in {}:\n", plural(count, "is", "are"), of.mount_point)),
    }
    left.iter().for_each(|Left { path, why }| text.push_str(&format!("  {path:?}: {why}\n")));
    if !without.is_empty() {
        text.push_str(&format!("{}: not all that they were was taken there:\n", of.share));
    }
    without.iter().for_each(|Left { path, why }| text.push_str(&format!("  {path:?}: {why}\n")));
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(found: Found, rescued: Option<Tally>) -> OfShare {
        let (share, mount_point) = ("films".to_owned(), "/mnt/films".to_owned());
        OfShare { share, mount_point, found: Some(found), rescued, ..OfShare::default() }
    }

    fn found() -> Found {
        let names = vec!["a/film".to_owned(), "b\n".to_owned()];
        Found { files: 3, directories: 1, bytes: 5 << 29, newest: Some(1_700_000_000), names, more: false }
    }

    #[test]
    fn what_lies_there_is_listed_with_what_to_do() {
        assert_eq!(
            render(&[of(found(), None), of(Found::default(), None)], None, Doing::Move),
            "films: 3 files and 1 directory, 2.5 GiB, the newest of 2023-11-14 22:13 UTC, lie under it in /mnt/films\n  \"a/film\"\n  \
             \"b\\n\"\n  ...\n  do: `nasmount rescue films --merge` moves them onto the share, `--aside DIR` elsewhere; --dry-run says \
             what that would do\nfilms: nothing lies beside it\n"
        );
        assert_eq!(exit(&[of(found(), None)]), Exit::Done);
    }

    #[test]
    fn what_is_left_is_named_and_a_failure() {
        let left = vec![Left { path: "a/film".to_owned(), why: "something else has that name there".to_owned() }];
        let without = vec![Left { path: "b".to_owned(), why: "user.x not taken there".to_owned() }];
        let tally = Tally { moved: 1, bytes: 10, same: 1, without, left };
        let all = [of(found(), Some(tally))];
        assert_eq!(
            render(&all, Some(&Destination::Share), Doing::Move),
            "films: 1 file (10 bytes) was moved onto the share with the owner, group and mode that it has, 1 more with the same \
             content there already; 1 is left in /mnt/films:\n  \"a/film\": something else has that name there\n\
             films: not all that they were was taken there:\n  \"b\": user.x not taken there\n"
        );
        let text = render(&all, Some(&Destination::Aside("/root/old".into())), Doing::Look);
        assert!(text.contains("would be moved into /root/old/films"), "{text}");
        assert_eq!(exit(&all), Exit::Failed);
        let done = of(found(), Some(Tally { moved: 3, ..Tally::default() }));
        assert_eq!(exit(&[done]), Exit::Done);
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json[0]["rescued"]["left"][0]["path"], "a/film");
    }

    #[test]
    fn a_directory_in_a_share_is_known_by_its_path() {
        use crate::config::{SourceText, load, shipped_profiles};
        let share = |name: &str| {
            format!("[share.{name}]\nserver = \"tower\"\nsource = \"{name}\"\nmount_point = \"/mnt/{name}\"\n")
        };
        let text = format!("[server.tower]\nhost = \"10.0.0.1\"\n{}{}", share("films"), share("music"));
        let loaded = load(&[SourceText::new("nasmount.toml", text)], &shipped_profiles()).unwrap();
        let around = |path: &str| {
            share_around(loaded.settings.shares.values(), Path::new(path)).map(|share| share.id.to_string())
        };
        for path in ["/mnt/films", "/mnt/films/", "/mnt/films/old/x", "/var/../mnt/./films/x"] {
            assert_eq!(around(path).as_deref(), Some("films"), "{path}");
        }
        assert_eq!(around("/mnt/music/x").as_deref(), Some("music"), "another share is no place either");
        for path in ["/mnt", "/mnt/films2", "/mnt/films/../old", "/var/tmp", "/"] {
            assert_eq!(around(path), None, "{path}");
        }
    }

    #[test]
    fn without_a_daemon_it_is_to_be_started() {
        for error in [anyhow::Error::from(Hinted::new("nasmount does not run", START)), anyhow::Error::msg("no answer")]
        {
            let (_, hint) = unasked(&error);
            assert!(hint.starts_with("`systemctl start nasmount`") && hint.contains("--aside"), "{hint}");
        }
    }

    #[test]
    fn a_share_that_is_away_is_refused() {
        let refused =
            fail(OfShare { refused: true, ..of(found(), None) }, "the share is holding, not online".to_owned(), None);
        assert!(
            render(&[refused], Some(&Destination::Share), Doing::Move)
                .ends_with("films: the share is holding, not online\n")
        );
        let all = [OfShare { refused: true, error: Some(String::new()), ..of(found(), None) }];
        assert_eq!(exit(&all), Exit::Refused);
        let full = Failed::local("cannot go on at a", &std::io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(hint(&full).contains("make room"));
    }
}
