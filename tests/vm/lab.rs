//! One suite on this host: its image, the accelerator, the qemu process and the shared directory.
//!
//! ```text
//! target/vm/SUITE-HASH/        image, shared by all runs, never written to (each boot is a snapshot)
//! target/vm/run-SUITE/share/   the guest's /host: cmd/ guest/ bin/ systemd/ profiles/ files/
//! target/vm/run-SUITE/         console.log, qemu.log, failed-CASE/
//! target/vm/kvm-fails          KVM was tried on this host since its boot, and why it is not used
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::guest::{Guest, poll};

/// A guest under KVM is up in about 5 s; one that is not in this time will never be.
const KVM_DEADLINE: Duration = Duration::from_secs(40);
/// Boots take 20..100 s of this host's time under TCG, the more the slower and the busier the host is.
const TCG_DEADLINE: Duration = Duration::from_secs(600);
/// From the agent, which starts early, to the last unit of the boot.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);
/// What a failed case leaves of the journal: file name and selection.
const JOURNALS: [(&str, &str); 3] = [
    ("journal.txt", ""),
    ("kernel.txt", "-k"),
    ("nasmount.txt", "_COMM=nasmount + _SYSTEMD_UNIT=nasmount.service + UNIT=nasmount.service"),
];
/// What else it leaves: file name and command in the guest.
const EVIDENCE: [(&str, &str); 2] = [
    ("mounts.txt", "cat /proc/self/mountinfo; nft list ruleset; ss -tanp"),
    (
        "processes.txt",
        "ps -eo pid,ppid,stat,wchan:32,cgroup:60,args; for p in $(ps -eo pid=,stat= | awk '$2 ~ /^D/ { print $1 }'); do \
         echo \"== $p $(tr '\\0' ' ' </proc/$p/cmdline)\"; cat /proc/$p/stack; done",
    ),
];

/// How qemu runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

/// Everything on this host that belongs to one suite. Dropping it lets the next run begin.
pub struct Lab {
    suite: String,
    image: PathBuf,
    run: PathBuf,
    kvm_fails: PathBuf,
    /// One VM of each suite at a time on this host. Two suites leave each other the time that their cases wait; more VMs under TCG starve
    /// each other, and every deadline with them.
    _only: File,
}

impl Lab {
    /// Which suite.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// Waits for its turn, builds the image if the recipe has changed, and lays out the shared directory.
    pub fn new(suite: &str) -> Result<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("vm");
        let run = target.join(format!("run-{suite}"));
        fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
        let lab = Self {
            suite: suite.to_owned(),
            _only: take_turn(suite)?,
            image: build_image(suite, &target)?,
            kvm_fails: target.join("kvm-fails"),
            run,
        };
        lab.lay_out_share()?;
        Ok(lab)
    }

    /// A freshly booted guest whose boot has settled.
    pub fn boot(self: &Rc<Self>) -> Result<Guest> {
        let guest = Guest::new(Rc::clone(self), self.run.join("share"), self.power_on()?);
        Self::settle(&guest)?;
        Ok(guest)
    }

    /// When the last boot ended, by its own clock; none if it did not get so far as to say it.
    pub fn went_down_at(&self) -> Result<Option<f64>> {
        let path = self.run.join("console.log");
        let console = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&console).lines().rev().find_map(went_down))
    }

    /// A machine whose agent has shown itself.
    pub fn power_on(&self) -> Result<Qemu> {
        let start = Instant::now();
        let mut accelerator = self.accelerator()?;
        let mut qemu = self.start(accelerator)?;
        if accelerator == Accelerator::Kvm
            && let Err(error) = self.wait_for_agent(&mut qemu, KVM_DEADLINE)
        {
            eprintln!("vm: no guest under KVM ({error:#}); using TCG");
            qemu.0.kill().context("kill qemu")?;
            fs::write(&self.kvm_fails, format!("{}{error:#}\n", boot_id()?)).context("remember that KVM fails")?;
            accelerator = Accelerator::Tcg;
            qemu = self.start(accelerator)?;
        }
        self.wait_for_agent(&mut qemu, TCG_DEADLINE)?;
        eprintln!("{}: under {accelerator:?}: agent after {} s", self.suite, start.elapsed().as_secs());
        Ok(qemu)
    }

    /// Prepares a guest that has booted for the cases.
    pub fn prepare(guest: &Guest) -> Result<()> {
        guest.ok(PREPARE).map(drop)
    }

    /// Waits for the end of a boot and prepares the guest for the cases.
    pub fn settle(guest: &Guest) -> Result<()> {
        let state = guest.run_within(SETTLE_DEADLINE, "systemctl is-system-running --wait")?.stdout;
        Self::prepare(guest)?;
        eprintln!("vm: {}: {} after {:.0} s", guest.ok("uname -r")?, state.trim(), guest.uptime()?);
        Ok(())
    }

    /// Journal, kernel log, mounts and processes of a failed case; returns the directory.
    pub fn collect(&self, guest: &Guest, case: &str) -> Result<PathBuf> {
        let directory = self.run.join(format!("failed-{case}"));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let keep = |name: &str, text: Result<String>| {
            let text = text.unwrap_or_else(|error| format!("{error:#}"));
            fs::write(directory.join(name), text).with_context(|| format!("write {name}"))
        };
        for (name, selection) in JOURNALS {
            keep(name, guest.journal(selection))?;
        }
        for (name, command) in EVIDENCE {
            keep(name, guest.run(command).map(|output| output.stdout))?;
        }
        fs::copy(self.run.join("console.log"), directory.join("console.log")).context("copy the console log")?;
        Ok(directory)
    }

    fn lay_out_share(&self) -> Result<()> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let share = self.run.join("share");
        if share.exists() {
            fs::remove_dir_all(&share).with_context(|| format!("remove {}", share.display()))?;
        }
        for name in ["cmd", "files", "bin"] {
            fs::create_dir_all(share.join(name)).with_context(|| format!("create {name} in the share"))?;
        }
        copy_tree(&repository.join("tests/vm/guest"), &share.join("guest"))?;
        for name in ["systemd", "profiles"] {
            if repository.join(name).exists() {
                copy_tree(&repository.join(name), &share.join(name))?;
            }
        }
        if let Some(binary) = option_env!("CARGO_BIN_EXE_nasmount") {
            fs::copy(binary, share.join("bin/nasmount")).with_context(|| format!("copy {binary} into the share"))?;
        }
        Ok(())
    }

    /// KVM unless it is absent, forbidden, or known to fail here. `VM_ACCEL=kvm` or `tcg` decides otherwise.
    ///
    /// That /dev/kvm opens says little: a nested hypervisor may offer it and run only kernels made for it.
    fn accelerator(&self) -> Result<Accelerator> {
        match std::env::var("VM_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Accelerator::Kvm),
            Ok("tcg") => return Ok(Accelerator::Tcg),
            Ok(other) => bail!("VM_ACCEL={other}: kvm or tcg"),
            Err(_) => {}
        }
        let usable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let failed = fs::read_to_string(&self.kvm_fails).unwrap_or_default();
        let known_to_fail = failed.starts_with(&boot_id()?);
        Ok(if usable && !known_to_fail { Accelerator::Kvm } else { Accelerator::Tcg })
    }

    /// One under TCG: with a counted clock qemu 7.2 lets a processor run until the next timer, whatever the other one waits for. Linux 6.1 did
    /// not get beyond "Booting SMP configuration" in 600 s with two, and a 6.12 stood still for 120 s once.
    fn processors(accelerator: Accelerator) -> &'static str {
        match accelerator {
            Accelerator::Kvm => "2",
            Accelerator::Tcg => "1",
        }
    }

    fn start(&self, accelerator: Accelerator) -> Result<Qemu> {
        let share = self.run.join("share");
        let agent_up = share.join("agent.up");
        if agent_up.exists() {
            fs::remove_file(&agent_up).context("remove the sign of life of an earlier boot")?;
        }
        // The answers of an earlier boot would be taken for those of this one.
        fs::remove_dir_all(share.join("cmd")).context("remove the commands of an earlier boot")?;
        fs::create_dir(share.join("cmd")).context("create cmd in the share")?;
        let log = File::create(self.run.join("qemu.log")).context("create qemu.log")?;
        let clock = if std::env::var_os("VM_HASTE").is_some() { HASTY_CLOCK } else { GUEST_CLOCK };
        let accelerated: &[&str] = match accelerator {
            Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => &["-accel", "tcg", "-icount", clock, "-cpu", "max"],
        };
        // The death signal ends qemu however the driver ends. The RTC has this host's clock: the guest's stands still while it is suspended,
        // and nothing would wake it up, or tell it how long it slept.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(accelerated)
            .args(["-smp", Self::processors(accelerator), "-rtc", "clock=host"])
            .args(["-M", "q35", "-m", "2G", "-nic", "none", "-display", "none", "-monitor", "none"])
            .arg("-kernel")
            .arg(self.image.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.image.join("initrd"))
            .args(["-append", KERNEL_COMMAND_LINE])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=virtio,snapshot=on,cache=unsafe",
                self.image.join("disk.img").display()
            ))
            .arg("-fsdev")
            .arg(format!("local,id=host,path={},security_model=none,multidevs=remap", share.display()))
            .args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"])
            .arg("-serial")
            .arg(format!("file:{}", self.run.join("console.log").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share qemu.log")?)
            .stderr(log)
            .spawn()
            .context("start qemu-system-x86_64 through setpriv")?;
        Ok(Qemu(child))
    }

    fn wait_for_agent(&self, qemu: &mut Qemu, deadline: Duration) -> Result<()> {
        let agent_up = self.run.join("share/agent.up");
        let log = self.run.join("qemu.log");
        poll("the guest's agent", deadline, || {
            if agent_up.exists() {
                return Ok(Some(()));
            }
            let said = fs::read_to_string(&log).unwrap_or_default();
            ensure!(!said.contains("KVM internal error"), "qemu: KVM internal error");
            if let Some(status) = qemu.0.try_wait().context("wait for qemu")? {
                bail!("qemu ended with {status}: {}", said.trim());
            }
            Ok(None)
        })
    }
}

/// Kernel traces are to be seen on the console of a guest that answers no more.
///
/// Rules in a namespace of their own keep the netfilter hooks of the whole kernel in use. The first rule and the last patch a
/// jump into code that other processors execute, and qemu's TCG can go on executing the breakpoint that this puts there for a
/// moment: both processors of a 6.1 guest were seen at that place in `ip_local_deliver` for good (qemu 7.2, MTTCG).
const PREPARE: &str = "set -e
dmesg -n 5
ip netns add lab
ip netns exec lab nft -f - <<<'table inet lab {
  chain i { type filter hook input priority 0; }
  chain o { type filter hook output priority 0; }
}'";

/// Quiet, because each line on the emulated serial port costs time; the rest is what no test needs.
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 root=/dev/vda rw quiet edd=off panic=1 mitigations=off audit=0 apparmor=0 cryptomgr.notests=1";

/// Under TCG the guest's clock counts instructions, 2^2 ns each, and follows this host's clock only while the guest has nothing to do. A slow
/// or busy host then makes the guest late for this host, but never for itself: every limit that nasmount, the kernel or a case has is one of
/// the guest's clock. With a clock that ran on, a host of a third of the usual speed failed most cases: a boot took 97 s of the guest's time
/// there, and 37 s with this, in less of the host's.
const GUEST_CLOCK: &str = "shift=2,sleep=on";
/// The clock jumps to the next timer when the guest has nothing to do: ten minutes of waiting take three. But a disk that this host reads
/// from is one to wait for as well, and 0.1 s of it were many seconds of the guest's: a boot took 177 s of them.
const HASTY_CLOCK: &str = "shift=2,sleep=off";

/// The qemu process; it ends with this value.
pub struct Qemu(Child);

impl Qemu {
    /// Whether the guest has switched itself off. An error if qemu ended in another way.
    pub fn is_off(&mut self) -> Result<bool> {
        match self.0.try_wait().context("wait for qemu")? {
            Some(status) => {
                ensure!(status.success(), "the VM is gone: qemu ended with {status}");
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// How much of this host's processors its threads have used.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/task", self.0.id());
        let threads = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
        let used = threads.map(|thread| {
            let path = thread.context("list a thread of qemu")?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            nanoseconds.map(Duration::from_nanos).with_context(|| format!("{}: {text:?}", path.display()))
        });
        used.sum()
    }

    /// Pulls the plug.
    pub fn end(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// An error if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.0.try_wait().context("wait for qemu")? {
            Some(status) => bail!("the VM is gone: qemu ended with {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

/// The time in the kernel's last line, `[  123.456789] reboot: Power down` or `Restarting system`.
fn went_down(line: &str) -> Option<f64> {
    let (time, _) = line.split_once("] reboot: ")?;
    time.rsplit_once('[')?.1.trim().parse().ok()
}

fn take_turn(suite: &str) -> Result<File> {
    let path = std::env::temp_dir().join(format!("nasmount-vm-{suite}.lock"));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("vm: waiting for another run of {suite} to end ({})", path.display());
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn build_image(suite: &str, target: &Path) -> Result<PathBuf> {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/image.sh");
    let output = Command::new(&recipe)
        .arg(suite)
        .env("VM_DIR", target)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", recipe.display()))?;
    ensure!(output.status.success(), "{} {suite}: {}", recipe.display(), output.status);
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The host's boot: what was learned about KVM may not hold on the next one.
fn boot_id() -> Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id of this host")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let path = entry.with_context(|| format!("list {}", from.display()))?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}
