//! `nasmount login SERVER`: asks for a user name and a password, tries them once, and writes the server's credentials file.
//!
//! The password goes from the terminal into memory that is wiped, from there to one worker through a file without a name, and into the
//! credentials file. The login is tried in a session of its own, so nothing that is mounted notices; and once, so that no server locks
//! the account. What is refused is not written.

use std::io;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::client::{Client, block_on};
use super::configured::{loaded, no_such};
use super::diagnose::try_login;
use super::report::{Exit, print, report};
use super::{Hinted, control, is_root};
use crate::config::settings::{CredentialSource, ServerSettings, Settings, ShareSettings};
use crate::daemon::reload::Outcome;
use crate::plan::login::{
    NewPassword, Tried, Typed, Unfit, Why, credentials_text, domain_and_name, judge, names_of, shown_name,
};
use crate::share::failure::FailureClass;
use crate::share::{Reason, State};
use crate::status::{ShareStatus, StatusReport};
use crate::sys::changes::{self, Change, make_private};
use crate::sys::config_dir::{ConfigRoots, CredentialsFileError, check_credentials_file, read_private};
use crate::sys::secret::{Handover, line_of_stdin};
use crate::sys::terminal::{Echo, Terminal};
use crate::sys::worker::Login;

/// A check of the configuration by the daemon has 15 s.
const DRY_RUN_WITHIN: Duration = Duration::from_secs(20);

/// How long a share that was blocked has to come online.
const ONLINE_WITHIN: Duration = Duration::from_secs(60);

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

const UNTRIED: &str = "`--no-test` writes the login without trying it";

/// `login SERVER`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The login goes into the file that `credentials` of the server names, which belongs to root alone. It is tried \
                        with one share of the server before that, and not written if the server refuses it. Shares that are blocked \
                        for want of it are mounted at once; those that are online are told the new password, and go on with it when \
                        the server refuses the old one (Linux 6.12.2 and newer; else at their next mount).\n\n\
                        Example, when the password of a NAS has been changed:\n  sudo nasmount login tower\n  \
                        sudo nasmount login tower --stdin <password.txt"
)]
pub struct Arguments {
    /// Server, by its name in the configuration
    server: String,
    /// User name, also as DOMAIN\NAME; else it is asked for, or with --stdin the one in the file
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Domain or workgroup; '' for none
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Read the password from standard input, one line, and ask for nothing
    #[arg(long)]
    stdin: bool,
    /// Write it without trying it
    #[arg(long)]
    no_test: bool,
    /// Print what each share has of it as JSON
    #[arg(long)]
    json: bool,
}

/// The server, and the file that its login belongs in.
#[derive(Clone, Copy, Debug)]
struct Place<'settings> {
    server: &'settings ServerSettings,
    file: &'settings Path,
}

/// 0: written, and what was blocked for want of it is online; 1: failed; 2: wrong usage or configuration; 3: the login was refused or
/// could not be tried, or a share stays blocked; 4: no such server.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Exit> {
    Ok(log_in(config, arguments).unwrap_or_else(|exit| exit))
}

/// What goes wrong has been said when this returns.
fn log_in(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Exit> {
    let settings = loaded(config)?.settings;
    let place = place(&settings, arguments, &ConfigRoots::system(config).absolute().main)?;
    if !is_root() {
        return Err(refuse(Exit::Failed, "only root may do that", "run it with sudo"));
    }
    let now = text_now(place.file)?;
    let typed = ask(arguments, now.as_ref())?;
    let text = credentials_text(now.as_ref(), &typed).map_err(|error| refuse(Exit::Usage, &error, error.help()))?;
    if !arguments.no_test {
        let share = settings.shares.values().find(|share| share.server == place.server.id);
        try_once(place.server, share, &text)?;
    }
    write(place.file, now, text)?;
    let in_force = match config {
        None => put_in_force(&arguments.server),
        // which one that is nobody knows
        Some(_) => InForce::nowhere("a nasmount that runs with this configuration uses it when it mounts"),
    };
    if !arguments.json {
        return Ok(in_force.exit);
    }
    Ok(print(in_force.exit, &format!("{:#}\n", in_force.document(place))))
}

fn refuse(exit: Exit, message: impl ToString, hint: impl Into<String>) -> Exit {
    let error = Hinted::new(message.to_string(), hint);
    report(&error, Some(&error.hint));
    exit
}

fn say(line: &str) {
    super::report::say(&format!("{line}\n"));
}

fn place<'settings>(
    settings: &'settings Settings,
    Arguments { server: name, .. }: &Arguments,
    main: &Path,
) -> Result<Place<'settings>, Exit> {
    let Some(server) = settings.servers.values().find(|server| server.id.to_string() == *name) else {
        let known: Vec<String> = settings.servers.keys().map(ToString::to_string).collect();
        let listed = match known.as_slice() {
            [] => "the configuration has no server: add a table [server.NAME]".to_owned(),
            known => format!("the configuration has {}", known.join(", ")),
        };
        return Err(no_such("server", name, &known, &listed));
    };
    match &server.credentials {
        CredentialSource::File(file) => Ok(Place { server, file }),
        CredentialSource::Guest => {
            let file = main.with_file_name(format!("{name}.cred"));
            let hint = format!(
                "add `credentials = \"{}\"` to [server.{name}], run this again, and then `nasmount reload`",
                file.display()
            );
            Err(refuse(
                Exit::Usage,
                format!("server {name} has no `credentials`: its shares are used as a guest"),
                hint,
            ))
        }
        CredentialSource::Systemd(credential) => {
            let hint = format!(
                "`systemd-creds encrypt --name={credential} - /etc/credstore.encrypted/{credential}` takes the lines \
                 `username=…` and `password=…` on standard input; with LoadCredentialEncrypted={credential} in nasmount.service \
                 (`systemctl edit nasmount`), `systemctl restart nasmount` has it read them, and shares stay mounted"
            );
            let message =
                format!("the login of server {name} is the systemd credential {credential}, which systemd keeps");
            Err(refuse(Exit::Usage, message, hint))
        }
    }
}

/// The text of the credentials file, if there is one. That others may read it is mended when it is written.
fn text_now(file: &Path) -> Result<Option<SecretString>, Exit> {
    match check_credentials_file(file) {
        Err(CredentialsFileError::Unreachable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error @ (CredentialsFileError::Unreachable { .. } | CredentialsFileError::NotAFile { .. })) => {
            report(&error, Some(&error.help()));
            Err(Exit::Usage)
        }
        Ok(()) | Err(CredentialsFileError::NotOwnedByRoot { .. } | CredentialsFileError::OpenToOthers { .. }) => {
            read_private(file).map(Some).map_err(|error| {
                report(&error, Some(&error.hint()));
                Exit::Failed
            })
        }
    }
}

fn ask(arguments: &Arguments, now: Option<&SecretString>) -> Result<Typed, Exit> {
    let Arguments { server, user, domain, stdin, no_test, json: _ } = arguments;
    let (username, domain_now) = names_of(now);
    if *stdin {
        let unreadable = |error: io::Error| {
            refuse(
                Exit::Usage,
                format!("cannot read the password from standard input: {error}"),
                "it has to be one line",
            )
        };
        let password = line_of_stdin().map_err(unreadable)?.unwrap_or_default();
        let (username, domain) = names(user.clone(), domain.as_deref(), (username, domain_now));
        return Ok(Typed { username, domain, password });
    }
    let terminal = Terminal::open().map_err(|error| {
        let message = format!("there is no terminal to ask for a password: {error}");
        refuse(Exit::Usage, message, "`--stdin` reads it from standard input")
    })?;
    let question = |prompt: &str, echo| match terminal.ask(prompt, echo) {
        Ok(Some(line)) => Ok(line),
        Ok(None) => Err(refuse(Exit::Failed, "nothing was typed, and nothing was written", "try again")),
        Err(error) => Err(refuse(Exit::Failed, format!("cannot read from the terminal: {error}"), "or use `--stdin`")),
    };
    let visible = |what: &str, now: &str| -> Result<String, Exit> {
        let prompt = if now.is_empty() { format!("{what}: ") } else { format!("{what} [{}]: ", shown_name(now)) };
        let typed = question(&prompt, Echo::On)?;
        Ok(if typed.expose_secret().is_empty() { now.to_owned() } else { typed.expose_secret().to_owned() })
    };
    let typed = match user {
        Some(user) => user.clone(),
        None => visible(&format!("User of {server}"), &username)?,
    };
    let has_domain = typed != username && domain_and_name(&typed).is_some();
    let (username, now) = names(Some(typed), domain.as_deref(), (username, domain_now));
    let domain = match domain {
        None if !has_domain && !now.is_empty() => visible("Domain", &now)?,
        _ => now,
    };
    let password = question(&format!("Password of {}: ", shown_name(&username)), Echo::Off)?;
    if password.expose_secret().is_empty() {
        return Err(refuse(Exit::Usage, Unfit::NoPassword, Unfit::NoPassword.help()));
    }
    if *no_test && question("The same again: ", Echo::Off)?.expose_secret() != password.expose_secret() {
        return Err(refuse(Exit::Failed, "these are two passwords; nothing was written", "try again"));
    }
    Ok(Typed { username, domain, password })
}

/// User name and domain, of what was typed and what the file has now. A domain that is typed before the name takes the place of the one
/// in the file, unless one is named by itself: then the name is meant as it stands.
fn names(typed: Option<String>, domain: Option<&str>, (name_now, domain_now): (String, String)) -> (String, String) {
    let username = typed.unwrap_or_else(|| name_now.clone());
    match (domain, domain_and_name(&username)) {
        (Some(domain), _) => (username, domain.to_owned()),
        (None, Some((domain, name))) if username != name_now => {
            say(&format!("user {} of the domain {domain}", shown_name(name)));
            (name.to_owned(), domain.to_owned())
        }
        (None, _) => (username, domain_now),
    }
}

fn try_once(server: &ServerSettings, share: Option<&ShareSettings>, text: &SecretString) -> Result<(), Exit> {
    let name = &server.id;
    let Some(share) = share else {
        return Err(refuse(Exit::Usage, format!("server {name} has no share to try the login with"), UNTRIED));
    };
    if let Some(stranger) = stranger(&name.to_string()) {
        let message =
            format!("another machine answers at the address of {name} ({stranger}): it is not told the login");
        return Err(refuse(Exit::Refused, message, format!("`nasmount trust {name}` if it is the right one")));
    }
    let failed =
        |error: &dyn ToString| refuse(Exit::Failed, format!("cannot try the login: {}", error.to_string()), UNTRIED);
    let handover = Handover::new(text).map_err(|error| failed(&error))?;
    // whether the right volume is in the share says nothing of the login
    let bare = ShareSettings { marker: None, ..share.clone() };
    let trying = async { Ok(try_login(server, &bare, Login::File(handover.path())).await) };
    let diagnosis = block_on(trying).map_err(|error| failed(&error))?;
    match judge(&diagnosis) {
        Tried::Taken { remark } => {
            say(&format!("{name} takes the login (tried once, with {})", share.id));
            remark.iter().for_each(|remark| say(&format!("note: share {}: {remark}", share.id)));
            Ok(())
        }
        Tried::Refused(why) => {
            let once =
                format!("it was tried once, with {}, and is not tried again, so that no account is locked", share.id);
            say_why(&format!("{name} refuses the login; nothing was written"), why, &diagnosis.kernel, &once);
            Err(Exit::Refused)
        }
        Tried::Unknown(why) => {
            let message = format!("whether {name} takes the login cannot be found out; nothing was written");
            say_why(&message, why, &diagnosis.kernel, UNTRIED);
            Err(Exit::Refused)
        }
    }
}

fn say_why(what: &str, Why { message, cause, fix }: Why, kernel: &[String], more: &str) {
    let error = anyhow::Error::msg(cause).context(message).context(what.to_owned());
    report(error.as_ref(), Some(&format!("{fix}; {more}")));
    if !kernel.is_empty() {
        say(&format!("\nthe kernel's log:\n  {}", kernel.join("\n  ")));
    }
}

/// Who answers in the server's place, if the daemon runs and has seen it.
fn stranger(server: &str) -> Option<String> {
    let status = block_on(async { Client::connect().await?.status().await }).ok()?;
    status.servers.into_iter().find(|known| known.name == server)?.stranger
}

fn write(file: &Path, now: Option<SecretString>, text: SecretString) -> Result<(), Exit> {
    let path = file.to_owned();
    let change = match now {
        None => Change::Create { path, text, mode: 0o600 },
        Some(before) => {
            make_private(file).map_err(|error| {
                let message = format!("nothing was written: cannot close {} to others: {error}", file.display());
                refuse(Exit::Failed, message, "it has to be a file of root's on a disk that can be written to")
            })?;
            let bytes = |text: SecretString| text.expose_secret().as_bytes().to_vec().into();
            Change::Replace { path, before: bytes(before), text: bytes(text) }
        }
    };
    match changes::make(&[change]) {
        Ok(_done) => {
            say(&format!("{}: written", file.display()));
            Ok(())
        }
        Err(error) => {
            report(anyhow::Error::from(error).context("nothing was written").as_ref(), None);
            Err(Exit::Failed)
        }
    }
}

/// What became of the login that was written.
#[derive(Debug)]
struct InForce {
    exit: Exit,
    shares: Vec<ShareLogin>,
}

/// What a share has of it.
#[derive(Debug, serde::Serialize)]
struct ShareLogin {
    name: String,
    state: State,
    #[serde(flatten)]
    password: NewPassword,
}

impl InForce {
    /// Nobody could be told.
    fn nowhere(why: &str) -> Self {
        say(why);
        Self { exit: Exit::Done, shares: Vec::new() }
    }

    fn document(&self, Place { server, file }: Place<'_>) -> serde_json::Value {
        serde_json::json!({ "schema": SCHEMA, "server": server.id.to_string(), "file": file, "shares": self.shares })
    }
}

/// Shares that are in use are told of it. What is blocked for want of a login is tried again, one share after the other up to the first
/// that fails; each of them is one login.
fn put_in_force(server: &str) -> InForce {
    let asked = block_on(async {
        let client = Client::connect().await?;
        let plan = tokio::time::timeout(DRY_RUN_WITHIN, client.reload(true)).await;
        let StatusReport { shares, .. } = client.status().await?;
        if matches!(plan, Ok(Ok(outcome)) if concerns(server, &outcome)) {
            return Ok(None);
        }
        let (blocked, others): (Vec<_>, Vec<_>) =
            shares.into_iter().filter(|share| share.server == server).partition(waits_for_a_login);
        let mut told = Vec::new();
        for ShareStatus { name, state, .. } in others {
            let password = tell(&client, &name, state).await;
            told.push(ShareLogin { name, state, password });
        }
        Ok(Some((blocked, told)))
    });
    let (blocked, mut shares) = match asked {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            return InForce::nowhere(&format!(
                "server {server} is another in the configuration than in force: `nasmount reload` takes it over"
            ));
        }
        Err(error) => return InForce::nowhere(&format!("{error:#}: the login is used when its shares are mounted")),
    };
    shares.iter().for_each(|share| say(&said(share)));
    let mut exit = Exit::Done;
    for ShareStatus { name, .. } in blocked {
        if exit == Exit::Done {
            exit = control::mount_again(name.clone(), ONLINE_WITHIN).unwrap_or_else(|error| {
                report(error.as_ref(), error.downcast_ref::<Hinted>().map(Hinted::hint));
                Exit::Failed
            });
        } else {
            say(&format!("{name}: blocked, and not tried again (`nasmount mount {name}`)"));
        }
        let (state, password) = match exit {
            Exit::Done => (State::Online, NewPassword::InUse),
            Exit::Failed | Exit::Usage | Exit::Refused | Exit::NoSuchShare => {
                (State::Blocked, NewPassword::AtNextMount)
            }
        };
        shares.push(ShareLogin { name, state, password });
    }
    InForce { exit, shares }
}

async fn tell(client: &Client, share: &str, state: State) -> NewPassword {
    if !state.is_open() {
        return NewPassword::AtNextMount;
    }
    match client.add_password(share).await {
        Ok(Ok(())) => NewPassword::Known,
        Ok(Err(why)) => NewPassword::NeedsRemount { why },
        Err(error) => NewPassword::NeedsRemount { why: format!("{error:#}") },
    }
}

/// Would a reload change the server?
fn concerns(server: &str, plan: &Outcome) -> bool {
    let about = format!("server {server}: ");
    matches!(plan, Outcome::Planned { steps, .. } if steps.iter().any(|step| step.starts_with(&about)))
}

fn waits_for_a_login(share: &ShareStatus) -> bool {
    let by_login = matches!(&share.reason, Reason::OperationFailed { failure }
        if matches!(failure.class, FailureClass::Credentials | FailureClass::Configuration));
    share.state == State::Blocked && share.wanted.is_mounted() && by_login
}

/// A session that is alive keeps its password: a reconfiguration with another one is refused (`smb3_verify_reconfigure_ctx`).
fn said(ShareLogin { name, state, password }: &ShareLogin) -> String {
    match password {
        NewPassword::InUse => format!("{name}: {state} with the new login"),
        NewPassword::Known => format!(
            "{name}: {state}, and knows the new password: it goes on with that when the server refuses the old one"
        ),
        NewPassword::NeedsRemount { why } => format!(
            "{name}: {state} with the login it was mounted with; the new one is used from its next mount on \
             (`nasmount remount {name}` makes it now, and stops its consumers for that)\n  the reason: {why}"
        ),
        NewPassword::AtNextMount => format!("{name}: {state}; the new login is used from its next mount on"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::settings::ServerId;
    use crate::config::{SourceText, load, shipped_profiles};
    use crate::plan::diff::{Changed, PlanStep};

    fn configured(toml: &str) -> Settings {
        load(&[SourceText::new("nasmount.toml", toml)], &shipped_profiles()).unwrap().settings
    }

    fn arguments(server: &str) -> Arguments {
        Arguments { server: server.to_owned(), user: None, domain: None, stdin: true, no_test: false, json: false }
    }

    #[test]
    fn only_a_server_with_a_credentials_file_has_one_to_write() {
        let settings = configured(
            "[server.tower]\nhost = \"10.0.0.1\"\ncredentials = \"/etc/nasmount/x.cred\"\n\
             [server.open]\nhost = \"10.0.0.2\"\n\
             [server.kept]\nhost = \"10.0.0.3\"\ncredentials = \"systemd:nas\"\n",
        );
        let place = |name: &str| super::place(&settings, &arguments(name), Path::new("/etc/nasmount/nasmount.toml"));
        assert_eq!(place("tower").unwrap().file, Path::new("/etc/nasmount/x.cred"));
        for (name, exit) in [("open", Exit::Usage), ("kept", Exit::Usage), ("towr", Exit::NoSuchShare)] {
            assert_eq!(place(name).unwrap_err(), exit, "{name}");
        }
    }

    #[test]
    fn a_domain_before_the_name_takes_the_place_of_the_one_in_the_file() {
        let now = || ("bob".to_owned(), "WG".to_owned());
        let names = |typed: Option<&str>, domain| names(typed.map(str::to_owned), domain, now());
        let of = |name: &str, domain: &str| (name.to_owned(), domain.to_owned());
        assert_eq!(names(Some("DOM\\anna"), None), of("anna", "DOM"));
        assert_eq!(names(Some("anna"), None), of("anna", "WG"));
        assert_eq!(names(Some("DOM\\anna"), Some("")), of("DOM\\anna", ""));
        assert_eq!(names(Some("anna"), Some("X")), of("anna", "X"));
        assert_eq!(names(None, None), now());
        let old = (r"DOM\bob".to_owned(), "WG".to_owned());
        assert_eq!(super::names(None, None, old.clone()), old, "as it is in the file");
    }

    fn share(state: &str, wanted: &str, class: &str) -> ShareStatus {
        serde_json::from_value(serde_json::json!({
            "name": "films", "state": state, "since": 1.0, "reason_text": "x", "wanted": wanted,
            "reason": {"kind": "operation_failed", "failure": {"class": class, "message": "x"}},
            "server": "tower", "source": "films", "mount_point": "/mnt/films", "hold_reasons": [],
            "consumers_progress": "settled", "given_up": false, "consumers": [],
        }))
        .unwrap()
    }

    #[test]
    fn what_is_blocked_for_want_of_a_login_is_tried_again_and_nothing_else() {
        assert!(waits_for_a_login(&share("blocked", "mounted", "credentials")));
        assert!(waits_for_a_login(&share("blocked", "mounted", "configuration")), "there was no file");
        assert!(!waits_for_a_login(&share("blocked", "unmounted", "credentials")));
        assert!(!waits_for_a_login(&share("blocked", "mounted", "missing")), "it is looked for in any case");
        assert!(!waits_for_a_login(&share("offline", "mounted", "credentials")));
    }

    fn each() -> Vec<ShareLogin> {
        let why = "this kernel has no `password2`".to_owned();
        [
            (State::Online, NewPassword::InUse),
            (State::Online, NewPassword::Known),
            (State::Suspect, NewPassword::NeedsRemount { why }),
            (State::Offline, NewPassword::AtNextMount),
        ]
        .map(|(state, password)| ShareLogin { name: "films".to_owned(), state, password })
        .into()
    }

    #[test]
    fn what_is_said_of_a_share_is_true_of_its_mount() {
        let lines: Vec<String> = each().iter().map(said).collect();
        assert_eq!(lines[0], "films: online with the new login");
        assert!(lines[1].starts_with("films: online, and knows the new password"), "{}", lines[1]);
        let old = "films: suspect with the login it was mounted with; the new one is used from its next mount on \
                   (`nasmount remount films` makes it now, and stops its consumers for that)";
        assert_eq!(lines[2].lines().collect::<Vec<_>>(), [old, "  the reason: this kernel has no `password2`"]);
        assert_eq!(lines[3], "films: offline; the new login is used from its next mount on");
    }

    #[test]
    fn each_outcome_has_its_form() {
        let settings = configured("[server.tower]\nhost = \"10.0.0.1\"\ncredentials = \"/etc/nasmount/x.cred\"\n");
        let server = settings.servers.values().next().unwrap();
        let in_force = InForce { exit: Exit::Done, shares: each() };
        let document = in_force.document(Place { server, file: Path::new("/etc/nasmount/x.cred") });
        crate::cli::validate::conforms("login", &document);
        assert_eq!(document["shares"][1]["password"], "known");
        assert_eq!(document["shares"][2]["why"], "this kernel has no `password2`");
    }

    #[test]
    fn a_reload_that_concerns_the_server_is_seen() {
        let changed = Changed { at_mount: vec!["credentials"], ..Changed::default() };
        let server = configured("[server.tower]\nhost = \"10.0.0.1\"\n").servers.into_values().next().unwrap();
        let plan = |step: PlanStep| Outcome::Planned { steps: vec![step.to_string()], notes: vec![], failed: vec![] };
        assert!(concerns("tower", &plan(PlanStep::ChangeServer { server: server.clone(), changed })));
        assert!(concerns("tower", &plan(PlanStep::AddServer { server })));
        assert!(!concerns("tower", &plan(PlanStep::RemoveServer { server: ServerId("tower2".to_owned()) })));
        assert!(!concerns("tower", &Outcome::Invalid { problems: "server tower: x".to_owned() }));
    }
}
