//! The running guest: commands, conditions and files.
//!
//! A command is a file in the shared directory: the driver renames NAME.sh into place, the agent runs it with bash
//! and answers with NAME.out, NAME.err and at last NAME.rc (`guest/agent.py`). No network is involved, and
//! commands run side by side. Under TCG a command costs about 0.4 s, nearly all of it the start of bash.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Lab, Qemu};

/// How long `run` lets a command take, by the guest's clock as all limits here. Longer than any healthy command, shorter than patience.
const RUN_LIMIT: Duration = Duration::from_secs(90);
/// A shutdown and a boot under TCG take 35 s, on a slow host 120 s. By this host's clock, as the guest's begins anew.
const REBOOT_LIMIT: Duration = Duration::from_secs(600);
/// A guest whose clock stands still for so long of this host's time answers no more. Generous, as hosts were met that stand still themselves.
const STANDSTILL: Duration = Duration::from_secs(300);
/// How much longer this host waits for a guest to switch itself off than the guest may take.
const HOST_IS_SLOWER: u32 = 4;
/// How often the host looks for an answer.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often a condition is tested in the guest; each test is a process or more, which is some 40 ms of an emulated processor.
const CONDITION_INTERVAL: &str = "0.4";

/// What a command in the guest did.
#[derive(Debug)]
pub struct Output {
    /// Exit code; the negated number of the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A booted VM. Dropping it ends it.
pub struct Guest {
    lab: Rc<Lab>,
    share: PathBuf,
    qemu: RefCell<Qemu>,
    commands: Cell<u32>,
    staged: Cell<u32>,
}

/// A command that runs in the guest.
pub struct Job<'guest> {
    guest: &'guest Guest,
    name: String,
    command: String,
    started: Instant,
    /// By the guest's clock.
    began: f64,
}

/// The guest's clock, when this host saw it, and what qemu had used of this host's processors by then: a guest that stands still because
/// it turns in circles is told apart from one that nobody runs.
struct Seen {
    clock: f64,
    at: Instant,
    used: Duration,
}

impl Guest {
    /// A guest whose agent has shown itself in the shared directory.
    pub fn new(lab: Rc<Lab>, share: PathBuf, qemu: Qemu) -> Self {
        Self { lab, share, qemu: RefCell::new(qemu), commands: Cell::new(0), staged: Cell::new(0) }
    }

    /// Runs a bash script and waits for its end, whatever its exit code.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(RUN_LIMIT, command)
    }

    /// As `run`; after the limit the command's whole session is killed and this is an error.
    pub fn run_within(&self, limit: Duration, command: &str) -> Result<Output> {
        self.spawn(command)?.wait(limit)
    }

    /// The trimmed standard output of a command that has to succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        ensure!(
            output.code == 0,
            "`{command}` failed with {} in the guest: {}{}",
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout.trim().to_owned())
    }

    /// What a command that has to succeed printed as JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ok(command)?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` printed no JSON: {text:?}"))
    }

    /// Starts a bash script in a session of its own.
    pub fn spawn(&self, command: &str) -> Result<Job<'_>> {
        self.qemu.borrow_mut().check()?;
        let number = self.commands.get();
        self.commands.set(number + 1);
        let job = Job {
            guest: self,
            name: format!("{number:05}"),
            command: command.to_owned(),
            started: Instant::now(),
            began: self.clock()?,
        };
        fs::write(job.file("new"), command).context("write a command for the guest")?;
        fs::rename(job.file("new"), job.file("sh")).context("hand a command to the guest")?;
        Ok(job)
    }

    /// Has the guest switch itself off by this command; returns how long that took it, or nothing if it is still on after the limit.
    pub fn power_off(&self, limit: Duration, command: &str) -> Result<Option<Duration>> {
        let began = self.uptime()?;
        drop(self.spawn(command)?); // nobody will be there to answer
        let off = poll("the end of the guest", limit * HOST_IS_SLOWER, || Ok(self.is_off()?.then_some(())));
        if off.is_err() {
            return Ok(None);
        }
        let took = self.down_since(began)?;
        Ok((took <= limit).then_some(took))
    }

    /// Has the guest do something for which its agent has to end, and begin anew; returns when it has.
    pub fn lose_agent(&self, command: &str) -> Result<()> {
        let sign = self.share.join("agent.up");
        fs::remove_file(&sign).context("forget the agent")?;
        drop(self.spawn(command)?); // nobody will be there to answer
        poll("the agent to be back", REBOOT_LIMIT, || Ok(sign.exists().then_some(())))
    }

    /// How long it took the boot that has ended to go down.
    fn down_since(&self, told: f64) -> Result<Duration> {
        let at = self.lab.went_down_at()?.context("the console has no word of the guest's end")?;
        Duration::try_from_secs_f64(at - told).context("the guest was down before it was told to")
    }

    /// The guest's clock as its agent showed it last, up to 0.6 s ago: seconds since boot, suspended time included.
    fn clock(&self) -> Result<f64> {
        let path = self.share.join("clock");
        number(&fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?)
    }

    fn seen(&self) -> Result<Seen> {
        Ok(Seen { clock: self.clock()?, at: Instant::now(), used: self.qemu.borrow().processor_time()? })
    }

    /// Whether it has switched itself off.
    pub fn is_off(&self) -> Result<bool> {
        self.qemu.borrow_mut().is_off()
    }

    /// Ends the machine, if it is still on, and boots it anew: nothing that happened to its disk is left.
    pub fn boot_again(&self) -> Result<()> {
        self.qemu.borrow_mut().end();
        *self.qemu.borrow_mut() = self.lab.power_on()?;
        Lab::settle(self)
    }

    /// Has the guest boot anew by itself, by this command, with its disk as it is; returns as soon as it can be asked again how long it took
    /// to go down.
    pub fn reboot(&self, command: &str) -> Result<Duration> {
        let began = self.uptime()?;
        let sign = self.share.join("agent.up");
        let before = fs::read_to_string(&sign).context("read which boot this is")?;
        drop(self.spawn(command)?); // nobody will be there to answer
        poll("the next boot", REBOOT_LIMIT, || {
            let now = fs::read_to_string(&sign).unwrap_or_default();
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        Lab::prepare(self)?;
        self.down_since(began)
    }

    /// Waits in the guest until a command succeeds; returns the guest's uptime then.
    pub fn wait_for(&self, what: &str, deadline: Duration, condition: &str) -> Result<f64> {
        self.wait_for_with(what, deadline, "true", condition)
    }

    /// As `wait_for`, after a command that is run once.
    pub fn wait_for_with(&self, what: &str, deadline: Duration, before: &str, condition: &str) -> Result<f64> {
        let waiting = format!(
            "{before}; until {{ {condition}\n}} >/dev/null 2>&1; do sleep {CONDITION_INTERVAL}; done; cut -d' ' -f1 /proc/uptime"
        );
        match self.run_within(deadline, &waiting) {
            Ok(output) => number(&output.stdout).with_context(|| format!("waiting for {what}: {output:?}")),
            Err(error) => {
                let now = self.run_within(Duration::from_secs(10), &format!("{before}; {condition}"));
                Err(error).with_context(|| format!("waiting {deadline:?} for {what}; now: {now:?}"))
            }
        }
    }

    /// Seconds since boot in the guest, suspended time included: the clock of all accounts.
    pub fn uptime(&self) -> Result<f64> {
        number(&self.ok("cut -d' ' -f1 /proc/uptime")?)
    }

    /// Writes a file in the guest, with its directories.
    pub fn write_file(&self, path: &str, content: &str) -> Result<()> {
        let staged = self.stage(content)?;
        self.ok(&format!("install -D -m 644 {staged} '{path}'")).map(drop)
    }

    /// Puts a file into the shared directory; returns its path in the guest.
    pub fn stage(&self, content: &str) -> Result<String> {
        let number = self.staged.replace(self.staged.get() + 1);
        let name = format!("files/{number:05}");
        fs::write(self.share.join(&name), content).context("stage a file for the guest")?;
        Ok(format!("/host/{name}"))
    }

    /// Where the guest may write a file that outlives it; read with `shared`.
    pub fn to_be_shared(&self, name: &str) -> Result<String> {
        let path = self.share.join("files").join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        Ok(format!("/host/files/{name}"))
    }

    /// A file that the guest wrote there.
    pub fn shared(&self, path: &str) -> Result<String> {
        let path = self.share.join(path.trim_start_matches("/host/"));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The journal of this boot; `selection` are more arguments of journalctl, such as `-u nasmount`.
    pub fn journal(&self, selection: &str) -> Result<String> {
        self.ok(&format!("journalctl -b --no-pager -o short-monotonic {selection}"))
    }
}

impl Job<'_> {
    /// Waits for the end of the command; after the limit kills its whole session, which is an error.
    pub fn wait(self, limit: Duration) -> Result<Output> {
        let code = self.file("rc");
        let ended = self.ended(limit, &code);
        if let Err(error) = ended {
            fs::write(self.file("kill"), "").context("ask the agent to kill a command")?;
            return Err(error)
                .with_context(|| format!("`{}` in the guest, which so far said {:?}", self.command, self.said()));
        }
        let code = fs::read_to_string(&code).context("read an exit code")?;
        let output = Output {
            code: code.trim().parse().with_context(|| format!("exit code {code:?}"))?,
            stdout: self.read("out"),
            stderr: self.read("err"),
        };
        // the agent lists the directory ten times a second
        for suffix in ["taken", "out", "err", "rc"] {
            fs::remove_file(self.file(suffix)).with_context(|| format!("remove {}.{suffix}", self.name))?;
        }
        if std::env::var_os("VM_TRACE").is_some() {
            eprintln!("vm: {:6.2} s  {}", self.started.elapsed().as_secs_f64(), self.command.replace('\n', " "));
        }
        Ok(output)
    }

    /// Waits for the end of the command; the limit is one of the guest's clock.
    fn ended(&self, limit: Duration, code: &Path) -> Result<()> {
        let mut seen = self.guest.seen()?;
        loop {
            self.guest.qemu.borrow_mut().check()?;
            if code.exists() {
                return Ok(());
            }
            let now = self.guest.clock()?;
            ensure!(now - self.began <= limit.as_secs_f64(), "waited {limit:?} for its end");
            if now > seen.clock {
                seen = self.guest.seen()?;
            } else if seen.at.elapsed() > STANDSTILL {
                let used = self.guest.seen()?.used.saturating_sub(seen.used);
                bail!(
                    "the guest's clock has stood at {} s for {STANDSTILL:?}, in which qemu used a processor for {used:.0?}",
                    seen.clock
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn said(&self) -> String {
        self.read("out") + &self.read("err")
    }

    /// Bytes that are no UTF-8 are of no interest to a test; a file that is not there yet is empty.
    fn read(&self, suffix: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.file(suffix)).unwrap_or_default()).into_owned()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.guest.share.join(format!("cmd/{}.{suffix}", self.name))
    }
}

/// Asks again and again until there is an answer, an error, or the deadline by this host's clock is over.
pub fn poll<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A number that a command printed.
pub fn number(text: &str) -> Result<f64> {
    text.trim().parse().with_context(|| format!("a number was expected, not {text:?}"))
}
