//! What `--json` prints, against the schemas in `tests/schemas`: real output of the commands that need no daemon, and the daemon's own
//! types. What clients print of a daemon's answers is in the unit tests of `cli`.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests run commands and read files")]

#[path = "schemas/validate.rs"]
mod validate;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::CommandFactory as _;
use nasmount::cli::Cli;
use nasmount::share::command::{HoldReason, Maintenance, Wanted};
use nasmount::share::consumers::{Held, Progress, UnitStep};
use nasmount::share::detector::{Trust, Verdict};
use nasmount::share::effect::{Effect, OpId, Step};
use nasmount::share::event::{Done, Event, Input, Mismatch, Survey};
use nasmount::share::failure::Failure;
use nasmount::share::ladder::Outcome;
use nasmount::share::recording::Recorder;
use nasmount::share::state::Reason;
use nasmount::share::time::BootInstant;
use nasmount::share::{OnSleep, Share, ShareSpec, State};
use nasmount::status::{
    ConsumerStatus, FlappingStatus, HangingWorker, LatencyStatus, LossStatus, MaintenanceStatus, RungStatus, SCHEMA,
    ServerStatus, ShareStatus, StatusReport,
};
use serde_json::{Value, json};
use validate::{conforms, directory, schema, violations};

const CONFIGURATION: &str = r#"
[server.tower]
host = "10.10.0.35"
[share.films]
server = "tower"
source = "films"
mount_point = "/mnt/films"
hold_for = "forever"
options = { uid = 1000, soft = false }
"#;

/// A part of a document by its name in `$defs`.
#[track_caller]
fn part_conforms(name: &str, part: &str, document: &Value) {
    let whole = json!({ "$ref": format!("#/$defs/{part}"), "$defs": schema(name)["$defs"] });
    let violations = violations(&whole, document);
    assert!(violations.is_empty(), "{name}, {part}: {violations:#?} in {document:#}");
}

/// What the command prints on stdout.
fn output(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_nasmount")).args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// `maintenance on` and so on have one form.
fn schema_of(command: &str) -> &str {
    match command {
        "mount" | "unmount" | "remount" | "hold" | "release" | "wait" | "on" | "off" => "outcome",
        command => command,
    }
}

#[test]
fn each_command_with_json_has_a_schema_and_each_schema_a_command() {
    fn walk(command: &clap::Command, found: &mut BTreeSet<String>) {
        if command.get_arguments().any(|argument| argument.get_long() == Some("json")) {
            found.insert(schema_of(command.get_name()).to_owned());
        }
        command.get_subcommands().for_each(|command| walk(command, found));
    }
    let mut commands = BTreeSet::from(["error".to_owned()]); // what any of them prints that fails
    walk(&Cli::command(), &mut commands);
    let names = files(directory().to_str().unwrap(), "json").into_iter();
    let schemas: BTreeSet<String> = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(commands, schemas);
}

#[test]
fn schemas_are_ones_and_say_the_same_of_the_same() {
    let mut parts = std::collections::BTreeMap::<String, Value>::new();
    for path in files(directory().to_str().unwrap(), "json") {
        let schema = schema(path.file_stem().unwrap().to_str().unwrap());
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", path.display());
        assert!(schema["properties"]["schema"]["const"].is_u64(), "{}", path.display());
        for name in ["state", "verdict", "failure", "reason"] {
            let Some(part) = schema["$defs"].get(name) else { continue };
            assert_eq!(
                parts.entry(name.to_owned()).or_insert_with(|| part.clone()),
                part,
                "{}: {name}",
                path.display()
            );
        }
    }
    assert_eq!(parts.len(), 4);
}

#[test]
fn a_document_that_does_not_conform_is_found() {
    let good = json!({ "schema": 1, "server": "tower", "outcome": "accepted" });
    conforms("trust", &good);
    for (key, value, why) in [
        ("schema", json!(2), "/schema"),
        ("outcome", json!("maybe"), "/outcome"),
        ("since", json!(1.5), "since"),
        ("server", Value::Null, "/server"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let found = violations(&schema("trust"), &bad);
        assert!(found.len() == 1 && found[0].contains(why), "{key}: {found:?}");
    }
    assert_eq!(violations(&schema("trust"), &json!({ "schema": 1, "server": "tower" })).len(), 1);
    let mut report = serde_json::to_value(report(State::Online, &Reason::Answers)).unwrap();
    report["shares"][0]["consumers"][0]["since"] = json!(1);
    assert_eq!(violations(&schema("status"), &report).len(), 1, "also deep inside");
    report = serde_json::to_value(self::report(State::Online, &Reason::Answers)).unwrap();
    report["servers"][0]["trust"] = json!("dead");
    assert!(!violations(&schema("status"), &report).is_empty(), "a dead server without a verdict");
}

#[test]
fn check_and_import_print_what_their_schemas_say() {
    for file in files("tests/check", "toml") {
        conforms("check", &output(&["--config", file.to_str().unwrap(), "check", "--json"]));
    }
    conforms("check", &output(&["--config", "/nonexistent/nasmount.toml", "check", "--json"]));
    let import = |fstab: &str, units: &str| {
        let nowhere = "/nonexistent/nasmount.toml";
        let more: &[&str] = if units.is_empty() { &[] } else { &["--units", units] };
        let arguments = [&["--config", nowhere, "import-fstab", "--json", "--fstab", fstab], more].concat();
        conforms("import-fstab", &output(&arguments));
    };
    for file in files("tests/import", "fstab") {
        import(file.to_str().unwrap(), "");
    }
    for units in fs::read_dir("tests/import/units").unwrap().map(|entry| entry.unwrap().path()) {
        if units.is_dir() {
            import("tests/import/13-none.fstab", units.to_str().unwrap());
        }
    }
}

#[test]
fn a_dry_export_prints_what_its_schema_says_and_needs_no_root() {
    use nasmount::cli::takeover::{Places, import_files};
    let directory = tempfile::tempdir().unwrap();
    let [fstab, config] = ["fstab", "nasmount/nasmount.toml"].map(|path| directory.path().join(path));
    let arguments = ["--config", config.to_str().unwrap(), "export-fstab", "--dry-run", "--json", "--fstab"];
    let export = || {
        let document = output(&[&arguments[..], &[fstab.to_str().unwrap()]].concat());
        conforms("export-fstab", &document);
        assert!(!document.to_string().contains("hunter2"), "{document:#}");
        document
    };
    assert_eq!(export()["problems"].as_array().unwrap().len(), 1, "there is no fstab");
    fs::write(&fstab, "//nas/a /mnt/a cifs user=bob,password=hunter2 0 0\n").unwrap();
    assert_eq!(export()["changes"], json!([]));
    let roots = nasmount::sys::config_dir::ConfigRoots::under(directory.path(), Some(&config), None);
    let places = Places { roots, fstab: fstab.clone(), units: PathBuf::new(), usual: true };
    assert!(import_files(&places, nasmount::config::Colour::Never, &mut Vec::new()).unwrap().is_some());
    let document = export();
    assert_eq!(document["lines"], json!([1]));
    assert_eq!(document["shares"], json!([{ "name": "a", "mount_point": "/mnt/a" }]));
    assert_eq!(document["changes"][0], json!({ "path": fstab, "becomes": "replaced", "to": null }));
    assert_eq!(
        (&document["changes"][1]["becomes"], document["problems"].as_array().unwrap().len()),
        (&json!("renamed"), 0)
    );
    fs::write(directory.path().join("nasmount/conf.d/x.toml"), "[share.x]\nserver = 5\n").unwrap();
    let what = export()["problems"][0]["what"].as_str().unwrap().to_owned();
    assert!(what.starts_with("the configuration is not valid as it is: ") && what.contains("x.toml:1:"), "{what}");
}

#[test]
fn what_looks_at_configuration_and_host_prints_what_its_schema_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    fs::write(&file, CONFIGURATION).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    conforms("explain", &output(&[&config[..], &["explain", "films", "--json"]].concat()));
    conforms("profiles", &output(&[&config[..], &["profiles", "--json"]].concat()));
    conforms("profiles", &output(&[&config[..], &["profiles", "media", "--json"]].concat()));
    conforms("rescue", &output(&[&config[..], &["rescue", "--json"]].concat()));
    conforms("doctor", &output(&[&config[..], &["doctor", "--json"]].concat()));
    conforms("doctor", &output(&["--config", "/nonexistent/nasmount.toml", "doctor", "--json"]));
    // nobody listens at the port of SMB on this host, or somebody does
    conforms("diagnose", &output(&["diagnose", "127.0.0.1", "--json"]));
}

#[test]
fn what_fails_before_it_has_a_document_says_why_in_one() {
    let nowhere = ["--config", "/nonexistent/nasmount.toml"];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    fs::write(&file, CONFIGURATION).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    for (arguments, word) in [
        ([&nowhere[..], &["explain", "films", "--json"]].concat(), "no configuration"),
        ([&nowhere[..], &["rescue", "--json"]].concat(), "no configuration"),
        ([&nowhere[..], &["login", "tower", "--json"]].concat(), "no configuration"),
        ([&config[..], &["explain", "music", "--json"]].concat(), "no share music"),
        ([&config[..], &["profiles", "none", "--json"]].concat(), "no profile none"),
        ([&config[..], &["diagnose", "1.2.3", "--json"]].concat(), "four numbers"),
        (vec!["diagnose", "", "--json"], "empty"),
        (vec!["replay", "/nonexistent", "--json"], "/nonexistent"),
        (vec!["import-fstab", "--fstab", "/nonexistent", "--json"], "/nonexistent"),
        (vec!["status", "--json", "--bogus"], "--bogus"),
    ] {
        let document = output(&arguments);
        conforms("error", &document);
        assert!(document["error"]["message"].as_str().unwrap().contains(word), "{arguments:?}: {document:#}");
    }
}

#[test]
fn a_replay_prints_what_its_schema_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("share.jsonl");
    fs::write(&file, recording()).unwrap();
    let document = output(&["replay", file.to_str().unwrap(), "--json"]);
    conforms("replay", &document);
    let moments = document["moments"].as_array().unwrap();
    for part in ["command", "answer"] {
        assert!(moments.iter().any(|moment| moment.get(part).is_some()), "no {part} in {document:#}");
    }
    assert!(moments.iter().any(|moment| moment["effects"] != json!([])), "{document:#}");
    assert!(moments.iter().any(|moment| moment["transitions"] != json!([])), "{document:#}");
}

/// A share of which nothing is in place, whose server is not there, and which is asked for this and that.
fn recording() -> String {
    use nasmount::share::Command::{EndMaintenance, Hold, Mount, StartMaintenance};
    let at = |seconds| BootInstant::from_boot(Duration::from_secs(seconds));
    let spec = ShareSpec {
        patience: Duration::from_secs(60),
        hold_for: None,
        probe_interval: Duration::from_secs(10),
        on_sleep: OnSleep::Hold,
    };
    let mut share = Share::new(spec, 1, at(100));
    let mut recorder = Recorder::new("films");
    let mut put = |seconds, input: Input| -> Option<Effect> {
        recorder.record(&share, at(seconds), &input);
        let _ = share.handle(at(seconds), input);
        std::iter::from_fn(|| share.poll_effect()).last()
    };
    let asked = put(101, Input::Event(Event::MountTableChanged));
    let Some(Effect::Start { op, step: Step::Survey }) = asked else { panic!("it looks around first: {asked:?}") };
    let found = Done::Survey(Survey { barrier: true, ..Survey::default() });
    for (seconds, input) in [
        (102, Input::Event(Event::Completed { op, result: Ok(found) })),
        (103, Input::Event(Event::ServerTrustChanged { trust: Trust::Dead { verdict: Verdict::Silent } })),
        (104, Input::Command(Hold)),
        (105, Input::Command(StartMaintenance(Maintenance { until: Some(at(500)) }))),
        (106, Input::Command(Mount)),
        (107, Input::Command(EndMaintenance)),
        (700, Input::Timeout),
    ] {
        let _ = put(seconds, input);
    }
    recorder.dump(Some(1_700_000_000.0)).unwrap()
}

/// One of each. The compiler asks for an entry here when there is a new one.
fn reasons() -> Vec<Reason> {
    let (message, verdict) = (String::from("why"), Verdict::Refused);
    let failure = Failure { errno: Some(13), hint: Some("do".into()), ..Failure::transient("why") };
    let all = vec![
        Reason::Started,
        Reason::Answers,
        Reason::ServerNotSeen,
        Reason::ProbeFailed { verdict },
        Reason::ServerDead { verdict },
        Reason::ShareSilent { message: message.clone() },
        Reason::ServerBack,
        Reason::HoldOver,
        Reason::NotHealed { message },
        Reason::OperationFailed { failure },
        Reason::OperationFailed { failure: Failure::transient("why") },
        Reason::ForeignMount { source: "//nas/films".into() },
        Reason::Asked { command: "mount".into() },
        Reason::Shutdown,
        Reason::Sleep,
        Reason::ServerChanged,
        Reason::TakenOff,
        Reason::CloneLost,
        Reason::Mismatch { mismatch: Mismatch::Source },
        Reason::Mismatch { mismatch: Mismatch::Address },
        Reason::OperationStuck { operation: "mount".into() },
    ];
    for reason in &all {
        match reason {
            Reason::Started | Reason::Answers | Reason::ServerNotSeen | Reason::ServerBack | Reason::HoldOver => {}
            Reason::ProbeFailed { .. } | Reason::ServerDead { .. } | Reason::ShareSilent { .. } => {}
            Reason::NotHealed { .. } | Reason::OperationFailed { .. } | Reason::ForeignMount { .. } => {}
            Reason::Asked { .. } | Reason::Shutdown | Reason::Sleep => {}
            Reason::ServerChanged | Reason::TakenOff => {}
            Reason::CloneLost | Reason::Mismatch { .. } | Reason::OperationStuck { .. } => {}
        }
    }
    all
}

fn consumer(held: Option<Held>, operation: Option<UnitStep>) -> ConsumerStatus {
    ConsumerStatus { unit: "container:player".into(), containers: None, held, operation }
}

fn project() -> ConsumerStatus {
    let containers = Some(vec!["docker:a".into()]);
    ConsumerStatus { unit: "compose:media".into(), containers, ..consumer(None, None) }
}

fn report(state: State, reason: &Reason) -> StatusReport {
    let server = ServerStatus {
        name: "tower".into(),
        host: "tower.lan".into(),
        address: None,
        trust: Trust::Unknown,
        latency: None,
        local_trouble: None,
        stranger: None,
        flapping: None,
    };
    let latency = LatencyStatus { last_ms: 1.0, median_ms: 1.5, p95_ms: 2.0, slowest_ms: 30.0, slow: false };
    let seen = ServerStatus {
        address: Some("10.10.0.35".parse().unwrap()),
        trust: Trust::Suspect { verdict: Verdict::NoLink },
        latency: Some(latency),
        local_trouble: Some("eth0 has no link".into()),
        stranger: Some("0123".into()),
        flapping: Some(FlappingStatus { outages: 3, must_answer_for: 20.0 }),
        ..server.clone()
    };
    let share = ShareStatus {
        name: "films".into(),
        state,
        since: 1_700_000_000.25,
        reason: reason.clone(),
        reason_text: reason.to_string(),
        hint: reason.hint().map(str::to_owned),
        server: "tower".into(),
        source: "films".into(),
        mount_point: "/mnt/films".into(),
        operation: None,
        operation_for: None,
        hold_reasons: vec![HoldReason::Outage, HoldReason::Operator],
        wanted: Wanted::TakenOff,
        maintenance: Some(MaintenanceStatus { ends_in: None }),
        consumers_progress: Progress::Settled,
        memory_trouble: None,
        hold_ends_in: None,
        given_up: false,
        release: rungs(),
        loss: Some(LossStatus { at: 1.0, what: "EIO".into() }),
        consumers: vec![consumer(Some(Held::Paused), None), project()],
    };
    let busy = ShareStatus {
        operation: Some("mount".into()),
        operation_for: Some(0.5),
        hold_reasons: Vec::new(),
        wanted: Wanted::Unmounted,
        maintenance: Some(MaintenanceStatus { ends_in: Some(60.0) }),
        consumers_progress: Progress::Attempted,
        memory_trouble: Some("the disk is full".into()),
        hold_ends_in: Some(1.0),
        loss: None,
        consumers: Vec::new(),
        ..share.clone()
    };
    let idle =
        ShareStatus { wanted: Wanted::Mounted, maintenance: None, consumers_progress: Progress::Busy, ..busy.clone() };
    let worker = |of: Option<&str>| HangingWorker { what: "mount".into(), of: of.map(str::to_owned), since: 1.5 };
    StatusReport {
        schema: SCHEMA,
        version: "0".into(),
        servers: vec![server, seen],
        shares: vec![share, busy, idle],
        hanging_workers: vec![worker(Some("films")), worker(None)],
    }
}

fn rungs() -> Vec<RungStatus> {
    let ends = [Outcome::InFlight, Outcome::Done, Outcome::Abandoned, Outcome::Failed("EIO".into())];
    let rung = |outcome: Outcome| RungStatus {
        operation: "release".into(),
        at: 1.5,
        budget: 5.0,
        took: (outcome != Outcome::InFlight).then_some(0.5),
        outcome,
    };
    ends.map(rung).to_vec()
}

#[test]
fn the_daemons_status_is_what_its_schema_says() {
    let document = |state, reason: &Reason| serde_json::to_value(report(state, reason)).unwrap();
    for state in State::ALL {
        conforms("status", &document(state, &Reason::Answers));
    }
    for reason in reasons() {
        conforms("status", &document(State::Blocked, &reason));
    }
    for trust in [Trust::Trusted, Trust::Dead { verdict: Verdict::Stranger }] {
        let mut report = report(State::Online, &Reason::Answers);
        report.servers[0].trust = trust;
        conforms("status", &serde_json::to_value(report).unwrap());
    }
    let steps = [UnitStep::Inspect, UnitStep::Pause, UnitStep::Stop, UnitStep::Kill];
    let more = [UnitStep::Continue, UnitStep::Start, UnitStep::ContinueAndStart];
    let held = [Held::Paused, Held::Stopped, Held::PausedAndStopped];
    for (step, held) in steps.into_iter().chain(more).zip(held.into_iter().cycle()) {
        let mut report = report(State::Holding, &Reason::Answers);
        report.shares[0].consumers[0] = consumer(Some(held), Some(step));
        conforms("status", &serde_json::to_value(report).unwrap());
    }
}

#[test]
fn each_verdict_and_each_step_of_a_share_is_in_the_schemas() {
    use Verdict::{Alive, Garbled, Refused, Silent, Stranger, Unreachable, Unresolved};
    use Verdict::{NoAddress, NoLink, NoRoute, OffNetwork};
    let of_server = [Alive, Silent, Refused, Unreachable, Garbled, Unresolved, Stranger];
    for verdict in of_server.into_iter().chain([NoLink, NoRoute, NoAddress, OffNetwork]) {
        part_conforms("status", "verdict", &serde_json::to_value(verdict).unwrap());
    }
    for step in [
        Step::Survey,
        Step::LayBarrier,
        Step::Mount,
        Step::Verify,
        Step::TryLogin,
        Step::Attach,
        Step::Detach,
        Step::RaiseFence,
        Step::RaiseSinkhole,
        Step::LiftFence,
        Step::DestroySockets { since: BootInstant::from_boot(Duration::from_secs(1)) },
        Step::Flush,
        Step::AskForLoss,
        Step::ShutDown,
        Step::Release,
        Step::DropClone,
    ] {
        part_conforms("replay", "effect", &serde_json::to_value(Effect::Start { op: OpId(1), step }).unwrap());
    }
    part_conforms("replay", "effect", &serde_json::to_value(Effect::Abandon { op: OpId(1) }).unwrap());
}

/// The README names the directory.
#[test]
fn the_readme_says_where_they_are() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains("`tests/schemas`"));
}
