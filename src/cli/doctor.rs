//! `nasmount doctor`: what is wrong with this host, or will hurt, and what to do. Changes nothing, and touches no share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::check::load_and_check;
use super::client::{Client, block_on};
use super::consumers::who_requires;
use super::records::Unfinished;
use super::report::{Exit, in_one_line, print, say};
use super::takeover::{self, Places};
use crate::config::consumer::{Consumer, system_unit};
use crate::config::settings::ShareSettings;
use crate::config::{self, Invalid, Settings};
use crate::plan::beside::Found;
use crate::plan::doctor::facts::{self, Contents, Daemon, Generator, HostFacts, ServiceFacts, Underneath, UserUnit};
use crate::plan::doctor::{Finding, Severity, examine, examine_unconfigured, worst};
use crate::plan::units::units;
use crate::status::StatusReport;
use crate::sys::config_dir::{ConfigRoots, ReadError, read_config};
use crate::sys::engine::{self, Container};
use crate::sys::host_facts;
use crate::sys::systemd::Systemd;
use crate::sys::unit_files;
use crate::sys::user_manager::{self, UserError};
use crate::sys::worker::{self, Answer, Request};

/// Version of the form of `--json`.
const SCHEMA: u32 = 1;

/// systemd and container engines answer within milliseconds; more means that they or the bus hang.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Listing what lies under a share takes seconds if it is a hundred thousand files.
const LISTED_WITHIN: Duration = Duration::from_secs(20);

/// `doctor`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Print one line, and end as Nagios wants it: 0 OK, 1 warning, 2 critical
    #[arg(long, conflicts_with = "json")]
    nagios: bool,
}

/// How the findings are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Nagios,
}

/// Whether what is found is about the configuration alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Configuration,
    Host,
}

/// Prints what is found. 0: nothing worse than a note; 2: the configuration is not valid; 3: warnings or errors.
pub fn run(config: Option<&Path>, arguments: &Arguments) -> Exit {
    let (scope, findings) = look(config);
    let form = match arguments {
        Arguments { json: true, .. } => Form::Json,
        Arguments { nagios: true, .. } => Form::Nagios,
        Arguments { json: false, nagios: false } => Form::Text,
    };
    if form == Form::Text && findings.is_empty() {
        say("nothing found\n");
    }
    print(exit(scope, form, worst(&findings)), &render(&findings, form))
}

fn look(config: Option<&Path>) -> (Scope, Vec<Finding>) {
    let roots = ConfigRoots::system(config);
    let texts = match read_config(&roots) {
        Ok(texts) => texts,
        Err(error) => return (Scope::Configuration, without_shares(not_readable(error))),
    };
    let (invalid, warnings) = load_and_check(&texts);
    let loaded = match config::load(&texts.fragments, &texts.profiles) {
        Ok(loaded) if invalid.is_empty() => loaded,
        Ok(_) => return (Scope::Configuration, without_shares(not_valid(&invalid))),
        Err(invalid) => return (Scope::Configuration, without_shares(not_valid(&invalid))),
    };
    let settings = &loaded.settings;
    let mount_points = settings.shares.values().map(|share| share.mount_point.as_path());
    let mut host = host_facts::gather(Path::new("/"), mount_points);
    host.unfinished = unfinished(config).unwrap_or_default();
    let _ = block_on(async {
        look_under(&mut host).await;
        Ok(())
    });
    let generator = if roots == ConfigRoots::system(None) { Generator::ReadsIt } else { Generator::ReadsAnother };
    let services = block_on(async { Ok(ask(settings, generator).await) })
        .unwrap_or_else(|error| ServiceFacts { daemon: Err(in_one_line(error.as_ref())), ..nothing_known(generator) });
    let mut findings = examine(settings, &host, &services, env!("CARGO_PKG_VERSION"));
    if let Some(first) = warnings.first() {
        let what = format!("`nasmount check` has a warning: {}", first.0.message);
        let why = "the configuration is valid, and hardly meant so";
        let at = findings.partition_point(|finding| finding.severity > Severity::Warning);
        findings.insert(at, Finding::new("configuration-doubtful", Severity::Warning, what, why, "nasmount check"));
    }
    (Scope::Host, findings)
}

/// Its record can be read by root alone.
fn unfinished(config: Option<&Path>) -> Option<facts::Unfinished> {
    let places = Places::of_host(config, Path::new(takeover::FSTAB), unit_files::DIRECTORY.into());
    let (fstab, _, texts) = places.read().ok()?;
    let left = Unfinished::of(&places, &fstab, &texts).ok()?;
    Some(facts::Unfinished { files: left.files(), lines: left.lines })
}

/// Where something is mounted, a worker looks at what lies under it; only root's can. What cannot be looked at is no finding.
async fn look_under(host: &mut HostFacts) {
    for (path, what) in
        host.mount_points.iter_mut().filter(|(_, what)| super::is_root() && **what == Underneath::Covered)
    {
        let asked = worker::ask(&Request::ListBeside { mount_point: path.clone() }, LISTED_WITHIN).await;
        if let Ok(Answer::Beside(found)) = asked
            && !found.is_empty()
        {
            let Found { files, directories, bytes, more, .. } = found;
            *what = Underneath::Holds(Contents { entries: files + directories, bytes, more });
        }
    }
}

/// What is wrong with the configuration, and what can be seen of the host without one: before an import that is the question.
fn without_shares(configuration: Finding) -> Vec<Finding> {
    let host = host_facts::gather(Path::new("/"), std::iter::empty());
    let version = async { Systemd::connect().await?.version().await };
    let version = block_on(async { Ok(tokio::time::timeout(ANSWERS_WITHIN, version).await??) });
    let mut findings = vec![configuration];
    findings.extend(examine_unconfigured(&host, version.ok().as_deref()));
    findings
}

fn not_readable(error: ReadError) -> Finding {
    let remedy = if matches!(error, ReadError::NoConfiguration { .. }) {
        "write it (README.md has examples), or have `nasmount import-fstab` make it of the CIFS lines of /etc/fstab"
            .to_owned()
    } else {
        error.hint()
    };
    let what = in_one_line(&error);
    Finding::new("configuration-unreadable", Severity::Error, what, "nothing is known of any share", remedy)
}

fn not_valid(invalid: &[Invalid]) -> Finding {
    let first = |Invalid(notice): &Invalid| {
        let (file, line) = (notice.place.file.display(), notice.place.line);
        let place = if line == 0 { format!(": {file}") } else { format!(": {file}:{line}") };
        match notice.key.as_str() {
            "" => format!("{place}: {}", notice.message),
            key => format!("{place}: {key}: {}", notice.message),
        }
    };
    let what = format!("the configuration is not valid{}", invalid.first().map(first).unwrap_or_default());
    let why = "nothing of it is used; a daemon that runs keeps the one before until it is started anew";
    Finding::new("configuration-invalid", Severity::Error, what, why, "nasmount check")
}

async fn ask(settings: &Settings, generator: Generator) -> ServiceFacts {
    let mut facts = nothing_known(generator);
    facts.daemon = match Client::connect().await {
        Ok(client) => {
            let report = client.status().await;
            if report.is_ok() && super::is_root() {
                ask_who_has_them(settings, &client, &mut facts).await;
            }
            report.map(daemon)
        }
        Err(error) => Err(error),
    }
    .map_err(|error| in_one_line(error.as_ref()));
    // what is not said is not known, and no finding
    let _ = tokio::time::timeout(ANSWERS_WITHIN, ask_engines(settings, &mut facts)).await;
    let _ = tokio::time::timeout(ANSWERS_WITHIN, ask_managers_of_users(settings, &mut facts)).await;
    let asked = tokio::time::timeout(ANSWERS_WITHIN, ask_systemd(settings, &mut facts)).await;
    facts.systemd_silent = match asked {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(in_one_line(&error)),
        Err(_) => Some(format!("no answer within {} s", ANSWERS_WITHIN.as_secs())),
    };
    facts
}

fn nothing_known(generator: Generator) -> ServiceFacts {
    ServiceFacts {
        systemd: None,
        systemd_silent: None,
        daemon: Err(String::new()),
        consumers: BTreeMap::new(),
        containers: BTreeMap::new(),
        groups: BTreeMap::new(),
        user_units: BTreeMap::new(),
        generator,
        sandboxes: BTreeMap::new(),
        requiring: BTreeMap::new(),
        holding: BTreeMap::new(),
        copies: BTreeMap::new(),
    }
}

/// Only root may ask; what is not said is no finding.
async fn ask_who_has_them(settings: &Settings, client: &Client, facts: &mut ServiceFacts) {
    for share in settings.shares.keys().map(ToString::to_string) {
        if let Ok(copies) = client.copies(&share).await {
            facts.copies.insert(share.clone(), copies);
        }
        if let Ok(holders) = client.holders(&share).await {
            facts.holding.insert(share, holders.into_iter().filter_map(|holder| holder.unit).collect());
        }
    }
}

fn daemon(report: StatusReport) -> Daemon {
    let address = |server: crate::status::ServerStatus| Some((server.name, server.address?.to_string()));
    Daemon { version: report.version, addresses: report.servers.into_iter().filter_map(address).collect() }
}

async fn ask_engines(settings: &Settings, facts: &mut ServiceFacts) {
    for consumer in units(settings).into_keys() {
        if let Consumer::Container { engine, name } = Consumer::of(&consumer) {
            let found = engine::find_all(engine, name).await.map_err(|error| error.to_string());
            let engines = |found: Vec<Container>| found.iter().map(|container| container.engine.name).collect();
            facts.containers.insert(consumer, found.map(engines));
        } else if let Some(label) = Consumer::of(&consumer).label() {
            let members = engine::count_labelled(&label).await.map_err(|error| error.to_string());
            facts.groups.insert(consumer, members);
        }
    }
}

async fn ask_managers_of_users(settings: &Settings, facts: &mut ServiceFacts) {
    for consumer in units(settings).into_keys() {
        if let Consumer::UserUnit { user, unit } = Consumer::of(&consumer) {
            let known = user_unit(user_manager::knows(user, unit).await);
            facts.user_units.insert(consumer, known);
        }
    }
}

fn user_unit(known: Result<bool, UserError>) -> UserUnit {
    match known {
        Ok(true) => UserUnit::Known,
        Ok(false) => UserUnit::Unknown,
        Err(error @ UserError::Unknown(_)) => UserUnit::NobodysName(error.to_string()),
        Err(error @ UserError::Absent { .. }) => UserUnit::NoManager(error.to_string()),
        Err(error @ (UserError::Stranger { .. } | UserError::Io(..) | UserError::Systemd(_))) => {
            UserUnit::Unasked(in_one_line(&error))
        }
    }
}

async fn ask_systemd(settings: &Settings, facts: &mut ServiceFacts) -> zbus::Result<()> {
    let systemd = Systemd::connect().await?;
    facts.systemd = systemd.version().await.ok();
    for unit in units(settings).into_keys().filter(|consumer| system_unit(consumer).is_some()) {
        if let Ok(after) = systemd.starts_after(&unit).await {
            if after.is_some()
                && unit.ends_with(".service")
                && let Ok(sandbox) = systemd.sandbox(&unit).await
            {
                facts.sandboxes.insert(unit.clone(), sandbox);
            }
            facts.consumers.insert(unit, after);
        }
    }
    for share in settings.shares.values() {
        let (name, mount_point) = (share.id.to_string(), share.mount_point.to_string_lossy());
        if let Ok(requiring) = who_requires(&systemd, &name, &mount_point).await {
            facts.requiring.insert(name.clone(), outside_slices(&systemd, share, requiring).await);
        }
        if let Some(holding) = facts.holding.get_mut(&name) {
            *holding = outside_slices(&systemd, share, std::mem::take(holding)).await.into_iter().collect();
        }
    }
    Ok(())
}

/// Those of some units that are not paused with a slice.
async fn outside_slices(
    systemd: &Systemd,
    share: &ShareSettings,
    units: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let mut outside = Vec::new();
    for unit in units {
        let consumers = share.consumers.iter().map(|consumer| &*consumer.unit);
        if !matches!(systemd.slice_among(&unit, consumers).await, Ok(Some(_))) {
            outside.push(unit);
        }
    }
    outside
}

fn exit(scope: Scope, form: Form, worst: Severity) -> Exit {
    match (form, worst) {
        (_, Severity::Ok | Severity::Note) => Exit::Done,
        // the numbers of its convention, which has its own meaning for each
        (Form::Nagios, Severity::Warning) => Exit::Failed,
        (Form::Nagios, Severity::Error) => Exit::Usage,
        (Form::Text | Form::Json, Severity::Warning | Severity::Error) => match scope {
            Scope::Configuration => Exit::Usage,
            Scope::Host => Exit::Refused,
        },
    }
}

fn render(findings: &[Finding], form: Form) -> String {
    match form {
        Form::Json => {
            let all = serde_json::json!({ "schema": SCHEMA, "severity": worst(findings), "findings": findings });
            format!("{all:#}\n")
        }
        Form::Nagios => nagios(findings),
        Form::Text => findings.iter().map(text).collect::<Vec<_>>().join("\n"),
    }
}

fn text(Finding { severity, what, why, remedy, .. }: &Finding) -> String {
    format!("{}: {what}\n  {why}\n  do: {remedy}\n", severity.name())
}

/// What is worse than a note, in one line. What follows a `|` would be taken for performance data.
fn nagios(findings: &[Finding]) -> String {
    let word = match worst(findings) {
        Severity::Ok | Severity::Note => "OK",
        Severity::Warning => "WARNING",
        Severity::Error => "CRITICAL",
    };
    let count = |severity: Severity| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {}{plural}", severity.name()))
    };
    let counts: Vec<String> =
        [Severity::Error, Severity::Warning, Severity::Note].into_iter().filter_map(count).collect();
    let grave = findings.iter().filter(|finding| finding.severity > Severity::Note);
    let grave: Vec<&str> = grave.map(|finding| finding.what.as_str()).collect();
    let counts = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
    let said = if grave.is_empty() { String::new() } else { format!(": {}", grave.join("; ")) };
    format!("{word} - {counts}{said}").replace('|', "/").replace('\n', " ") + "\n"
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new("fstab-mount-point", Severity::Error, "line 7 mounts /mnt/a", "two mounts", "sed -i 7d"),
            Finding::new("nft-missing", Severity::Warning, "no nft | none", "no veil", "apt install nftables"),
            Finding::new("updatedb-scans-shares", Severity::Note, "updatedb scans", "slow", "PRUNEFS=\"cifs\""),
        ]
    }

    #[test]
    fn people_read_what_why_and_what_to_do() {
        let expected = "error: line 7 mounts /mnt/a\n  two mounts\n  do: sed -i 7d\n\
                        \nwarning: no nft | none\n  no veil\n  do: apt install nftables\n\
                        \nnote: updatedb scans\n  slow\n  do: PRUNEFS=\"cifs\"\n";
        assert_eq!(render(&findings(), Form::Text), expected);
        assert_eq!(render(&[], Form::Text), "");
    }

    #[test]
    fn programs_read_the_same() {
        let json: serde_json::Value = serde_json::from_str(&render(&findings(), Form::Json)).unwrap();
        assert_eq!((json["schema"].as_u64(), json["severity"].as_str()), (Some(1), Some("error")));
        let first = serde_json::json!({
            "id": "fstab-mount-point", "severity": "error", "what": "line 7 mounts /mnt/a", "why": "two mounts",
            "do": "sed -i 7d"
        });
        assert_eq!(json["findings"][0], first);
        crate::cli::validate::conforms("doctor", &json);
        let json: serde_json::Value = serde_json::from_str(&render(&[], Form::Json)).unwrap();
        assert_eq!(json, serde_json::json!({ "schema": 1, "severity": "ok", "findings": [] }));
    }

    #[test]
    fn nagios_gets_one_line() {
        let all = findings();
        let line = |findings: &[Finding]| render(findings, Form::Nagios);
        assert_eq!(line(&all), "CRITICAL - 1 error, 1 warning, 1 note: line 7 mounts /mnt/a; no nft / none\n");
        assert_eq!(line(&all[1..]), "WARNING - 1 warning, 1 note: no nft / none\n");
        assert_eq!(line(&all[2..]), "OK - 1 note\n");
        assert_eq!(line(&[]), "OK - nothing found\n");
    }

    #[test]
    fn the_exit_status_is_of_the_worst() {
        let of = |form, severity| exit(Scope::Host, form, severity);
        for form in [Form::Text, Form::Json, Form::Nagios] {
            assert_eq!((of(form, Severity::Ok), of(form, Severity::Note)), (Exit::Done, Exit::Done));
        }
        assert_eq!(
            (of(Form::Text, Severity::Warning), of(Form::Json, Severity::Error)),
            (Exit::Refused, Exit::Refused)
        );
        assert_eq!(exit(Scope::Configuration, Form::Json, Severity::Error), Exit::Usage);
        let nagios = |severity| of(Form::Nagios, severity) as u8;
        assert_eq!((nagios(Severity::Warning), nagios(Severity::Error)), (1, 2));
    }

    #[test]
    fn an_unusable_configuration_is_found_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nasmount.toml");
        let ids = |scope, findings: Vec<Finding>| (scope, findings[0].id);
        let (scope, findings) = look(Some(&file));
        assert!(findings[0].remedy.contains("`nasmount import-fstab`"), "{findings:?}");
        assert_eq!(ids(scope, findings), (Scope::Configuration, "configuration-unreadable"));
        std::fs::write(&file, "[share.films]\n").unwrap();
        let (scope, findings) = look(Some(&file));
        let begin = format!("the configuration is not valid: {}:1: share.films.", file.display());
        assert!(findings[0].what.starts_with(&begin), "{findings:?}");
        assert_eq!(ids(scope, findings), (Scope::Configuration, "configuration-invalid"));
        std::fs::write(&file, "\n[share.films\n").unwrap();
        let line = nagios(&look(Some(&file)).1);
        assert!(line.contains(&format!("{}:2: ", file.display())), "{line}");
    }
}
