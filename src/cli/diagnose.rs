//! `nasmount diagnose SHARE|HOST`: from the server's name to the share's data, step by step, up to the first that fails; why it does, and
//! what to do. Needs no daemon and leaves a mounted share alone: what it tries is a session of its own.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::client::{Client, block_on};
use super::configured::{Called as _, loaded_or, no_such, shares_of};
use super::report::{Exit, in_one_line, print, report};
use super::{Hinted, is_root};
use crate::config::credentials::parse_credentials;
use crate::config::settings::{CredentialSource, OptionValue, ServerSettings, Settings, ShareSettings};
use crate::config::{self, SourceText, is_name, shipped_profiles};
use crate::plan::diagnosis::{
    Diagnosis, Ending, Finding, Look, Named, Outcome, Step, Subject, Trial, TrialFailure, Trouble, Writing, add_trial,
    add_way, dialects_of, named, next_part, of_clock, of_dialect, of_latency, of_name, of_network, of_port, of_signing,
    of_zone, zoned,
};
use crate::plan::layers;
use crate::plan::options::{self, DirtyLimitSupport, KernelOptions};
use crate::share::State;
use crate::share::detector::addresses::first_of;
use crate::sys::config_dir::{
    ConfigRoots, CredentialsFileError, check_credentials_file, read_config, read_credentials,
};
use crate::sys::kernel_log::KernelLog;
use crate::sys::probe::SMB_PORT;
use crate::sys::worker::{self, Answer, Ended, Failed, Login, MountRequest, Request, TrialRequest};
use crate::sys::{clock, examine, interfaces};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// How long a resolver may take: three dead servers of two tries each.
const RESOLVE_WITHIN: Duration = Duration::from_secs(30);

/// As long as the kernel tries to connect to port 445.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Looks of which the middle is the latency.
const LOOKS: usize = 5;

/// `diagnose SHARE|HOST`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs root from the step `credentials` on.\n\nExamples:\n  sudo nasmount diagnose films\n  \
                        nasmount diagnose 192.168.1.10\n  sudo nasmount diagnose //tower/music"
)]
pub struct Arguments {
    /// Share, or its mount point; or a host, by its name in the configuration, its address, a name with a dot in it or `//HOST`; or
    /// `//HOST/SHARE`, also as `smb://` or with backslashes
    #[arg(value_name = "SHARE|HOST")]
    subject: String,
    /// Also write a file into the share, read it back and delete it; not of a host alone
    #[arg(long)]
    write: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Of what a diagnosis is.
enum Asked {
    /// One that need not be configured.
    Host(String),
    Server(Box<ServerSettings>),
    Share(Box<(ServerSettings, ShareSettings)>),
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Document<'run> {
    schema: u32,
    /// `null` of a host.
    share: Option<&'run str>,
    host: &'run str,
    /// What nasmount does with the share; `null` if it does not run, or does not know it.
    state: Option<State>,
    #[serde(flatten)]
    diagnosis: &'run Diagnosis,
}

/// 0: all went well; 3: a step failed; 2: the configuration is not valid; 4: no such share; 1: not all could be tried.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let asked = match find(config, &arguments.subject) {
        Ok(asked) => asked,
        Err(exit) => return Ok(exit),
    };
    if let (true, Some(message)) = (arguments.write, no_share(&asked)) {
        let hint = "name a share, its mount point, or //HOST/SHARE; or leave --write out";
        report(&Hinted::new(message, hint), Some(hint));
        return Ok(Exit::Usage);
    }
    let file = arguments.write.then(|| format!(".nasmount-diagnose-{:08x}", fastrand::u32(..)));
    let (diagnosis, state) = block_on(async { Ok((diagnose(&asked, file).await, state_of(&asked).await)) })?;
    let (share, host) = match &asked {
        Asked::Host(host) => (None, host.as_str()),
        Asked::Server(server) => (None, server.host.as_str()),
        Asked::Share(both) => (Some(both.1.id.to_string()), both.0.host.as_str()),
    };
    let share = share.as_deref();
    let text = if arguments.json {
        let document = Document { schema: SCHEMA, share, host, state, diagnosis: &diagnosis };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        render(&diagnosis, share.zip(state))
    };
    let untried = share.is_some() && !is_root();
    let exit = match &diagnosis.cause {
        Some(_) => Exit::Refused,
        None if untried => Exit::Failed,
        None => Exit::Done,
    };
    let exit = print(exit, &text);
    if untried && diagnosis.cause.is_none() {
        let error = Hinted::new("the server is fine, and only root may try the share", "run it with sudo");
        report(&error, Some(&error.hint));
    }
    Ok(exit)
}

/// That a file cannot be written into it.
fn no_share(asked: &Asked) -> Option<String> {
    match asked {
        Asked::Host(host) => Some(format!("--write needs a share, and {host} is a host")),
        Asked::Server(server) => Some(format!("--write needs a share, and {} is a server", server.id)),
        Asked::Share(_) => None,
    }
}

/// The names of shares have neither dots nor colons, so what has one is a host.
fn find(config: Option<&Path>, subject: &str) -> Result<Asked, Exit> {
    let wrong = |message: &str, hint: &str| {
        report(&Hinted::new(message, hint), Some(hint));
        Exit::Usage
    };
    match named(subject) {
        Some(Ok(Named { source: None, .. })) if is_configured(config, subject) => {} // `localhost` can be a share's name, too
        Some(Ok(Named { host, source: None })) => return Ok(Asked::Host(host)),
        Some(Ok(Named { host, source: Some(_) })) if zoned(&host).is_some() => {
            let hint = "name an address or a name of the network; `nasmount diagnose ADDRESS%INTERFACE` looks at the server alone";
            return Err(wrong("a share of a link-local address cannot be mounted", hint));
        }
        Some(Ok(Named { host, source: Some(source) })) => return of_address(config, &host, &source),
        Some(Err((message, hint))) => return Err(wrong(&message, hint)),
        None => {}
    }
    let mut settings = loaded_or(config, &without_configuration(subject))?.settings;
    let is_path = subject.starts_with(['/', '.']);
    let path = Path::new(subject);
    let share = settings.shares.values().find(|share| share.is_meant(subject));
    if let Some(share) = share.cloned() {
        let server = settings.servers.remove(&share.server).ok_or(Exit::Failed)?;
        return Ok(Asked::Share((server, share).into()));
    }
    if is_path {
        let hint = match settings.shares.values().find(|share| path.starts_with(&share.mount_point)) {
            Some(share) => format!("it is in the share {0}: `nasmount diagnose {0}`", share.id),
            None => "name a share, its mount point, or //HOST/SHARE".to_owned(),
        };
        return Err(wrong(&format!("no share is mounted on {path:?}"), &hint));
    }
    if let Some(server) = settings.servers.values().find(|server| server.id.to_string() == subject) {
        return Ok(Asked::Server(server.clone().into()));
    }
    let mut known = shares_of(&settings);
    known.extend(settings.servers.keys().map(ToString::to_string));
    let listed =
        "the configuration names shares and servers; any other host is an address, a name with a dot in it, or //HOST";
    Err(no_such("share or server", subject, &known, listed))
}

/// What can be typed where nothing is configured. What cannot be a name is not repeated: it may be a login.
fn without_configuration(subject: &str) -> String {
    let host = if is_name(subject) { subject } else { "HOST" };
    format!("a server needs none: `nasmount diagnose //{host}`, or its address")
}

/// Without a word if there is no configuration, or none that is valid.
fn settings_if_any(config: Option<&Path>) -> Option<Settings> {
    let texts = read_config(&ConfigRoots::system(config)).ok()?;
    config::load(&texts.fragments, &texts.profiles).ok().map(|loaded| loaded.settings)
}

fn is_configured(config: Option<&Path>, name: &str) -> bool {
    let is_one = |settings: Settings| {
        let mut servers = settings.servers.keys().map(ToString::to_string);
        shares_of(&settings).iter().any(|share| share == name) || servers.any(|server| server == name)
    };
    is_name(name) && settings_if_any(config).is_some_and(is_one)
}

/// The share of the configuration that an address names; else one with a profile's options, and with the login of the configured server,
/// if there is one. Without a configuration it is tried as a guest.
fn of_address(config: Option<&Path>, host: &str, source: &str) -> Result<Asked, Exit> {
    let settings = settings_if_any(config);
    let servers = settings.iter().flat_map(|settings| settings.servers.values());
    let of_host: Vec<&ServerSettings> = servers.filter(|server| server.host.eq_ignore_ascii_case(host)).collect();
    for share in settings.iter().flat_map(|settings| settings.shares.values()) {
        if let Some(server) = of_host.iter().find(|server| server.id == share.server)
            && share.source.eq_ignore_ascii_case(source)
        {
            return Ok(Asked::Share(((*server).clone(), share.clone()).into()));
        }
    }
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default(); // its escapes are TOML's
    let text = format!(
        "[server.address]\nhost = {}\n[share.{UNCONFIGURED}]\nserver = \"address\"\nsource = {}\nmount_point = \"/mnt/address\"\n",
        quoted(host),
        quoted(source)
    );
    let loaded = config::load(&[SourceText::new("the address", text)], &shipped_profiles()).map_err(|invalid| {
        let why = invalid.first().map(|problem| problem.0.message.clone()).unwrap_or_default();
        let hint = "write //HOST/SHARE, with the names that the server has";
        report(&Hinted::new(format!("//{host}/{source}: {why}"), hint), Some(hint));
        Exit::Usage
    })?;
    let mut settings = loaded.settings;
    let share = settings.shares.pop_first().map(|(_, share)| share);
    let own = settings.servers.pop_first().map(|(_, server)| server);
    let both = of_host.first().copied().cloned().or(own).zip(share);
    both.map(|both| Asked::Share(both.into())).ok_or(Exit::Failed)
}

/// Name of a share that only an address names.
const UNCONFIGURED: &str = "unconfigured";

/// What the daemon does with it, if it runs.
async fn state_of(asked: &Asked) -> Option<State> {
    let Asked::Share(both) = asked else { return None };
    let status = Client::connect().await.ok()?.status().await.ok()?;
    let name = Some(both.1.id.to_string()).filter(|name| name != UNCONFIGURED)?;
    status.shares.into_iter().find(|share| share.name == name).map(|share| share.state)
}

/// All steps; `file` is the name of one to be written.
async fn diagnose(asked: &Asked, file: Option<String>) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let address = match asked {
        Asked::Host(host) => look_at_host(&mut diagnosis, host, None).await,
        Asked::Server(server) => look_at_server(&mut diagnosis, server, None).await,
        Asked::Share(both) => look_at_server(&mut diagnosis, &both.0, Some(&both.1)).await,
    };
    diagnosis.skip_rest(&Step::OF_SERVER);
    let Asked::Share(both) = asked else { return diagnosis };
    if let Some(address) = address.filter(|_| is_root()) {
        let (ServerSettings { credentials, .. }, share) = &**both;
        try_share(&mut diagnosis, &Subject { share, credentials, address }, &Writing::of(share, file)).await;
    }
    diagnosis.skip_rest(&Step::OF_SHARE);
    diagnosis
}

/// One try of another login, up to the first look at the share, if all is well with the server.
pub(super) async fn try_login(server: &ServerSettings, share: &ShareSettings, login: Login) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    if let Some(address) = look_at_server(&mut diagnosis, server, Some(share)).await {
        let subject = Subject { share, credentials: &server.credentials, address };
        try_with(&mut diagnosis, &subject, &Writing::NotAsked, login).await;
    }
    diagnosis
}

/// The address, if all is well with the server. Where it may not be asked nothing is sent, not even a question for its name.
async fn look_at_server(
    diagnosis: &mut Diagnosis,
    server: &ServerSettings,
    share: Option<&ShareSettings>,
) -> Option<IpAddr> {
    if !server.only_on.is_empty() {
        let begun = clock::now();
        let found = worker::list_interfaces(layers::LOCAL_STEP).await.map_err(|error| error.to_string());
        let judged = of_network(&server.only_on, found.as_deref().map_err(String::as_str));
        if !diagnosis.judge(Step::Network, judged, Some(clock::now().since(begun))) {
            return None;
        }
    }
    look_at_host(diagnosis, &server.host, share).await
}

async fn look_at_host(diagnosis: &mut Diagnosis, host: &str, share: Option<&ShareSettings>) -> Option<IpAddr> {
    let server = look_at_name(diagnosis, host).await?;
    let address = server.ip();
    let begun = clock::now();
    let way = match worker::ask(&Request::LookAtRoute { server }, layers::LOCAL_STEP).await {
        Ok(Answer::Route { trouble }) => Ok(trouble),
        Ok(other) => Err(format!("a worker answered something else: {other:?}")),
        Err(error) => Err(error.to_string()),
    };
    let found = way.as_ref().map_err(String::as_str).cloned();
    if !add_way(diagnosis, address, found, clock::now().since(begun)) {
        return None;
    }
    look_at_port(diagnosis, server, share).await.then_some(address)
}

/// Where the server is, if that is known.
async fn look_at_name(diagnosis: &mut Diagnosis, host: &str) -> Option<SocketAddr> {
    if let Some((address, zone)) = zoned(host) {
        let index = interfaces::of_zone(zone);
        diagnosis.judge(Step::Name, of_zone(host, zone, index), None);
        return Some(SocketAddrV6::new(address, SMB_PORT, 0, index?).into());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        diagnosis.judge(Step::Name, Ok(format!("{host} is an address")), None);
        return Some(SocketAddr::new(address.to_canonical(), SMB_PORT));
    }
    let begun = clock::now();
    let found = match worker::ask(&Request::Resolve { host: host.to_owned() }, RESOLVE_WITHIN).await {
        Ok(Answer::Addresses(found)) => Ok(found),
        Ok(other) => Err(format!("a worker answered something else: {other:?}")),
        Err(error) => Err(error.to_string()),
    };
    let judged = of_name(host, found.as_deref().map_err(String::as_str));
    if !diagnosis.judge(Step::Name, judged, Some(clock::now().since(begun))) {
        return None;
    }
    Some(SocketAddr::new(first_of(&found.ok()?)?, SMB_PORT))
}

async fn look_at_port(diagnosis: &mut Diagnosis, server: SocketAddr, share: Option<&ShareSettings>) -> bool {
    let dialects = dialects_of(share);
    let first = examine::examine(server, dialects, ANSWER_WITHIN).await;
    let (connect, answer) = match &first {
        Look::NoConnection(_) => (None, None),
        Look::NoGreeting { connect, .. } => (Some(*connect), None),
        Look::Greeted { connect, answer, .. } => (Some(*connect), Some(*answer)),
    };
    if !diagnosis.judge(Step::Port, of_port(&first, server), connect) {
        return false;
    }
    let speaks = if let Look::NoGreeting { .. } = &first
        && share.is_some()
        && let Look::Greeted { greeting, .. } = examine::examine(server, dialects_of(None), ANSWER_WITHIN).await
    {
        Some(greeting.dialect)
    } else {
        None
    };
    let judged = of_dialect(&first, share, speaks);
    let Look::Greeted { greeting, ahead, .. } = first else {
        return diagnosis.judge(Step::Dialect, judged, answer);
    };
    if !diagnosis.judge(Step::Dialect, judged, answer)
        || !diagnosis.judge(Step::Signing, of_signing(&greeting, share), None)
    {
        return false;
    }
    let mut looks = vec![first];
    while looks.len() < LOOKS {
        looks.push(examine::examine(server, dialects, ANSWER_WITHIN).await);
    }
    diagnosis.judge(Step::Latency, Ok(of_latency(&looks)), None);
    diagnosis.judge(Step::Clock, of_clock(ahead, share), None)
}

async fn try_share(diagnosis: &mut Diagnosis, subject: &Subject<'_>, writing: &Writing) {
    match login(subject) {
        Ok((login, message)) => {
            diagnosis.judge(Step::Credentials, Ok(message), None);
            try_with(diagnosis, subject, writing, login).await;
        }
        Err(trouble) => _ = diagnosis.judge(Step::Credentials, Err(trouble), None),
    }
}

async fn try_with(diagnosis: &mut Diagnosis, subject: &Subject<'_>, writing: &Writing, login: Login) {
    let log = KernelLog::from_now();
    let (answers, ended) = match worker::ask(&Request::LookAtKernel, layers::LOCAL_STEP).await {
        Ok(Answer::Kernel { mount_params, dirty_limits }) => {
            let limits = if dirty_limits { DirtyLimitSupport::Supported } else { DirtyLimitSupport::Unsupported };
            let options = mount_params.as_deref().map_or_else(KernelOptions::unknown, KernelOptions::parse);
            let plan = options::mount_options(subject.share, subject.address, &options, limits);
            let request = trial_request(subject, MountRequest::new(subject.share, plan, login), writing);
            worker::follow(&Request::TryShare(request.into()), layers::MOUNT).await
        }
        Ok(_) => (Vec::new(), Ended::Failed(Failed::local("cannot ask a worker", &io::ErrorKind::InvalidData.into()))),
        Err(failed) => (Vec::new(), Ended::Failed(failed)),
    };
    let mut trial = trial(answers, &ended, subject);
    trial.log = log.ok().map(KernelLog::lines_of_cifs);
    add_trial(diagnosis, &trial, subject, writing);
}

/// The login, and what there is to say of it.
fn login(subject: &Subject<'_>) -> Result<(Login, String), Trouble> {
    let failed = |message: String, cause: &str, fix: String| {
        let cause = cause.to_owned();
        Trouble { step: Step::Credentials, message, cause, fix }
    };
    let path = match subject.credentials {
        CredentialSource::Guest => {
            let is_kerberos = |sec: &OptionValue| matches!(sec, OptionValue::Value(sec) if sec.starts_with("krb5"));
            let how = if subject.share.options.get("sec").is_some_and(is_kerberos) {
                "none are configured: a Kerberos ticket is used"
            } else {
                "none are configured: tried as a guest"
            };
            return Ok((Login::Guest, how.to_owned()));
        }
        CredentialSource::File(path) => {
            let unfit = |error: CredentialsFileError| {
                failed(in_one_line(&error), "the credentials file cannot be used", error.help())
            };
            check_credentials_file(path).map_err(unfit)?;
            path.clone()
        }
        // where systemd keeps them (systemd.exec(5)); only root may look
        CredentialSource::Systemd(name) => Path::new("/run/credentials/nasmount.service").join(name),
    };
    let shown = path.display();
    let text = read_credentials(&path).map_err(|error| {
        let fix =
            "`systemctl status nasmount`: a systemd credential is there while it runs, if the unit has LoadCredential=";
        failed(format!("cannot read {shown}: {error}"), "the login cannot be read", fix.to_owned())
    })?;
    parse_credentials(text.expose_secret()).map_err(|error| {
        failed(format!("{shown}: {error}"), "the credentials file is not as it should be", error.help().to_owned())
    })?;
    let message = format!("{shown} has a login");
    Ok((Login::File(path), message))
}

fn trial_request(subject: &Subject<'_>, mount: MountRequest, writing: &Writing) -> TrialRequest {
    let share_alone = subject.share.source.split_once('/').map(|(name, _)| format!("//{}/{name}", subject.address));
    let write = match writing {
        Writing::Tried { file } => Some(file.clone()),
        Writing::NotAsked | Writing::ReadOnly => None,
    };
    TrialRequest { mount, share_alone, write }
}

/// Without the log.
fn trial(answers: Vec<Answer>, ended: &Ended, subject: &Subject<'_>) -> Trial {
    let mut passed = Vec::new();
    for answer in answers {
        if let Answer::Passed(part) = answer {
            passed.push(part);
        }
    }
    let part = next_part(&passed, subject);
    let failed = match ended {
        Ended::Done => None,
        Ended::Failed(failed) => Some(TrialFailure {
            part,
            message: failed.to_string(),
            errno: failed.errno.map(|errno| (errno, format!("{:?}", nix::errno::Errno::from_raw(errno)))),
            ending: Ending::Error,
        }),
        Ended::Hangs => {
            let message = format!("no answer within {} s", layers::MOUNT.as_secs());
            Some(TrialFailure { part, message, errno: None, ending: Ending::Hangs })
        }
    };
    Trial { passed, failed, log: None }
}

fn render(diagnosis: &Diagnosis, state: Option<(&str, State)>) -> String {
    let mut text = String::new();
    for Finding { step, outcome, message, .. } in &diagnosis.steps {
        // those after the one that failed
        if *outcome == Outcome::Skipped && message.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{:<8} {:<12} {message}", outcome.to_string(), step.to_string());
    }
    if let (Some(cause), Some(fix)) = (&diagnosis.cause, &diagnosis.fix) {
        let _ = writeln!(text, "\ncause: {cause}\nwhat to do: {fix}");
    }
    if !diagnosis.kernel.is_empty() {
        let _ = writeln!(text, "\nthe kernel's log:\n  {}", diagnosis.kernel.join("\n  "));
    }
    if let Some((share, state)) = state {
        let _ = writeln!(text, "\n{share} is {state} in nasmount (`nasmount status {share}`)");
    }
    text
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
