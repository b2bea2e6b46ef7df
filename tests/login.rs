//! `nasmount login` as it is typed: what it asks, what it writes, what it refuses, and where no password is ever seen.
//!
//! Only root may do it: to anybody else each of these says so.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests start programs, read and write files")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nasmount::config::settings::OnSleep;
use nasmount::share::failure::Failure;
use nasmount::share::recording::Recorder;
use nasmount::share::{BootInstant, Event, Input, OpId, Share, ShareSpec};
use nasmount::sys::secret::{Handover, keep_out_of_core_dumps};
use nasmount::sys::worker::{DirtyData, Login, MountRequest, Reply, Request, TrialRequest};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

const SECRET: &str = "hunter2";

/// A configuration of its own, of which no daemon knows.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let text = format!(
            "[server.tower]\nhost = \"127.77.0.1\"\ncredentials = {:?}\n\
             [share.films]\nserver = \"tower\"\nsource = \"films\"\nmount_point = \"/nonexistent/films\"\nprofile = \"media\"\n",
            host.credentials()
        );
        fs::write(host.0.path().join("nasmount.toml"), text).unwrap();
        host
    }

    fn credentials(&self) -> PathBuf {
        self.0.path().join("tower.cred")
    }

    /// In a session of its own, so that there is a terminal only if setsid(1) is told to take standard input for one. A shell starts what it
    /// puts into the background with Ctrl-C ignored, and tests that are run so would hand that on.
    fn command(&self, setsid: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.args(["--default-signal", "setsid", "--wait"]).args(setsid);
        command.args([env!("CARGO_BIN_EXE_nasmount"), "login"]).args(arguments).arg("--config");
        command.arg(self.0.path().join("nasmount.toml")).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(&[], arguments);
        let running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = running.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have ended without reading
        let output = child.wait_with_output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(text).contains(SECRET));
        }
        output
    }

    fn written(&self) -> Option<String> {
        fs::read_to_string(self.credentials()).ok()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ended(output: &Output, code: i32, word: &str) {
    let (code, word) = if nix::unistd::geteuid().is_root() { (code, word) } else { (1, "only root may do that") };
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(word), "{}", said(output));
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_login_is_written_for_root_alone_and_the_rest_of_the_file_stays() {
    let host = Host::new();
    let new = host.run(&["tower", "--stdin", "--no-test", "--user", "bob"], &format!("{SECRET}\n"));
    ended(&new, 0, "tower.cred: written");
    if !is_root() {
        return assert_eq!(host.written(), None);
    }
    assert_eq!(host.written().unwrap(), "username=bob\npassword=hunter2\n");
    fs::write(host.credentials(), "# mine\nusername=bob\npassword=old\ndomain=HOME\n").unwrap();
    fs::set_permissions(host.credentials(), fs::Permissions::from_mode(0o644)).unwrap();
    let again = host.run(&["tower", "--stdin", "--no-test", "--json"], SECRET);
    ended(&again, 0, "written");
    let document: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(document["server"], "tower");
    assert_eq!(document["shares"].as_array().map(Vec::len), Some(0), "no daemon was told: {document}");
    assert_eq!(host.written().unwrap(), "# mine\nusername=bob\npassword=hunter2\ndomain=HOME\n");
    assert_eq!(fs::metadata(host.credentials()).unwrap().permissions().mode() & 0o7777, 0o600);
    let names: Vec<_> = fs::read_dir(host.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// Whatever answers at that address takes no such login.
#[test]
fn a_login_that_cannot_be_tried_is_not_written() {
    let host = Host::new();
    let tried = host.run(&["tower", "--stdin", "--user", "bob"], SECRET);
    ended(&tried, 3, "nothing was written");
    assert_eq!(host.written(), None);
    if is_root() {
        assert!(said(&tried).contains("--no-test"), "{}", said(&tried));
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let host = Host::new();
    let bob = ["tower", "--stdin", "--no-test", "--user", "bob"];
    ended(&host.run(&bob, ""), 2, "no password was given");
    ended(&host.run(&bob, "hunter2\r\n"), 2, "the password has a line break");
    ended(&host.run(&bob, &SECRET.repeat(40)), 2, "280 bytes");
    for more in ["another\n", "another", "\n"] {
        ended(&host.run(&bob, &format!("{SECRET}\n{more}")), 2, "more than one line");
    }
    ended(&host.run(&bob[..3], SECRET), 2, "no user name was given");
    let unknown = host.run(&["towre", "--stdin"], SECRET);
    assert_eq!((unknown.status.code(), said(&unknown).contains("did you mean `tower`?")), (Some(4), true));
    assert_eq!(host.written(), None);
    std::os::unix::fs::symlink("elsewhere", host.credentials()).unwrap();
    ended(&host.run(&bob, SECRET), 2, "not a regular file");
}

#[test]
fn without_a_terminal_it_says_how_to_do_without() {
    let host = Host::new();
    ended(&host.run(&["tower", "--user", "bob"], SECRET), 2, "`--stdin` reads it from standard input");
}

/// At a terminal of its own: what a person has before the eyes and under the fingers, and the other side of it.
struct AtTerminal {
    person: File,
    terminal: File,
    child: Child,
}

impl AtTerminal {
    fn new(host: &Host, arguments: &[&str]) -> Self {
        let both = openpty(None, None).unwrap();
        let (person, terminal) = (File::from(both.master), File::from(both.slave));
        let mut command = host.command(&["--ctty"], arguments);
        command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { person, terminal, child: command.spawn().unwrap() }
    }

    fn is_asked(&mut self, question: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(question.as_bytes()) {
            self.person.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        assert!(!String::from_utf8_lossy(&seen).contains(SECRET), "it can be seen");
    }

    fn types(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// What anybody can read of the process.
    fn is_seen_in_proc(&self) -> bool {
        ["cmdline", "environ", "comm", "status"].iter().any(|file| {
            let text = fs::read(format!("/proc/{}/{file}", self.child.id())).unwrap();
            assert!(!text.is_empty(), "{file}");
            String::from_utf8_lossy(&text).contains(SECRET)
        })
    }
}

#[test]
fn a_password_is_typed_twice_unseen_if_it_is_not_tried() {
    let host = Host::new();
    let mut at = AtTerminal::new(&host, &["tower", "--no-test"]);
    if !is_root() {
        return assert_eq!(at.child.wait().unwrap().code(), Some(1));
    }
    at.is_asked("User of tower: ");
    at.types("bob\n");
    at.is_asked("Password of bob: ");
    at.types(&format!("{SECRET}\n"));
    at.is_asked("The same again: ");
    assert!(!at.is_seen_in_proc() && !at.echoes());
    at.types("another\n");
    assert_eq!(at.child.wait().unwrap().code(), Some(1));
    assert_eq!((host.written(), at.echoes()), (None, true));

    let mut at = AtTerminal::new(&host, &["tower", "--no-test", "--user", "bob"]);
    for question in ["Password of bob: ", "The same again: "] {
        at.is_asked(question);
        at.types(&format!("{SECRET}\n"));
    }
    assert_eq!(at.child.wait().unwrap().code(), Some(0));
    assert_eq!(host.written().unwrap(), "username=bob\npassword=hunter2\n");
}

#[test]
fn ctrl_c_leaves_a_terminal_that_echoes() {
    let host = Host::new();
    let mut at = AtTerminal::new(&host, &["tower", "--user", "bob"]);
    if !is_root() {
        return assert_eq!(at.child.wait().unwrap().code(), Some(1));
    }
    at.is_asked("Password of bob: ");
    assert!(!at.echoes());
    at.types("hunt\u{1a}"); // Ctrl-Z, which does not stop the first process of a session
    at.is_asked("Password of bob: ");
    at.types("hunt\u{4}"); // Ctrl-D sends what there is, and the line goes on
    at.types("er\u{3}");
    assert_eq!(at.child.wait().unwrap().signal(), Some(libc::SIGINT));
    assert!(at.echoes());
    assert_eq!(host.written(), None);
}

/// A mount of a share that nobody has.
fn of_films(login: Login) -> MountRequest {
    MountRequest {
        share: "films".into(),
        source: "//127.77.0.1/films".into(),
        options: Vec::new(),
        attributes: Vec::new(),
        login,
        dirty_data: DirtyData::Unlimited,
        read_ahead: None,
        marker: None,
    }
}

/// All that a worker is told is in its request.
#[test]
fn a_worker_is_told_where_a_login_is_and_not_the_login() {
    let handover = Handover::new(&format!("username=bob\npassword={SECRET}\n").as_str().into()).unwrap();
    let mount = of_films(Login::File(handover.path()));
    let request = Request::TryShare(Box::new(TrialRequest { mount, share_alone: None, write: None }));
    let json = serde_json::to_string(&request).unwrap();
    assert!(json.contains("/proc/self/fd/") && !json.contains(SECRET), "{json}");
    assert!(!format!("{request:?} {handover:?}").contains(SECRET));
    // and a process that is started can read it there
    let path = handover.path();
    let read = Command::new("cat").arg(&path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), format!("username=bob\npassword={SECRET}\n"));
}

/// What a worker says of a login, whether it cannot be used or nobody takes it, goes into the share's recording, and that into dumps.
#[test]
fn a_recording_of_a_login_that_fails_has_no_password() {
    let long = "x".repeat(300);
    for text in [
        format!("password={SECRET}\n"),
        format!("username=bob\npassword={SECRET}{long}\n"),
        format!("username=bob\npassword={SECRET}\0\n"),
        format!("username=bob\npassword={SECRET}\n"),
    ] {
        let handover = Handover::new(&text.as_str().into()).unwrap();
        let request = Request::TryLogin(Box::new(of_films(Login::File(handover.path()))));
        let running = Command::new(env!("CARGO_BIN_EXE_nasmount"))
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = running.unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(&request).unwrap()).unwrap();
        let said = child.wait_with_output().unwrap().stdout;
        let failed = serde_json::from_slice::<Reply>(&said).unwrap().unwrap_err(); // nobody takes it

        let now = BootInstant::from_boot(Duration::from_secs(1));
        let (patience, probe_interval) = (Duration::from_secs(30), Duration::from_secs(10));
        let share = Share::new(ShareSpec { patience, hold_for: None, probe_interval, on_sleep: OnSleep::Hold }, 1, now);
        let failure = Failure::configuration(failed.to_string(), "mend it");
        let event = Event::Completed { op: OpId(1), result: Err(failure) };
        let mut recorder = Recorder::new("films");
        recorder.record(&share, now, &Input::Event(event));
        let dump = recorder.dump(Some(0.0)).unwrap();
        assert!(dump.contains(&failed.cause) && !dump.contains(SECRET), "{dump}");
        assert!(
            !String::from_utf8_lossy(&said).contains(SECRET) && !format!("{failed:?} {recorder:?}").contains(SECRET)
        );
    }
}

#[test]
fn a_process_with_a_login_leaves_no_core_dump() {
    keep_out_of_core_dumps().unwrap();
    let behaviour = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behaviour, rustix::process::DumpableBehavior::NotDumpable);
}
