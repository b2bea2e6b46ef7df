//! The end-to-end tests: a real kernel, a real systemd and real Samba servers in a VM.
//!
//! ```text
//!  main      which cases, one line per case, what is collected when one fails
//!   └ lab    one suite on this host: image, accelerator, qemu, the shared directory
//!      └ guest     commands, conditions and files in the running guest
//!         ├ nas    NASes, and faults as guards that undo themselves
//!         ├ load   consumers that keep account of what they were promised
//!         └ nasmount   installed, configured and asked as a user does
//!  cases/    NN_name.rs: what nasmount promises, each seen on the real thing
//! ```
//!
//! A case asserts on steady states and on accounts kept by the guest; it waits for conditions, never for time.
//! Only the length of an outage is timed. Case 00 is the positive control: it shows that the harm can be seen.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the driver runs on the developer's host, where it starts processes and reads files; its report goes to stdout"
)]

mod bench;
mod cases;
mod demo;
mod guest;
mod lab;
mod load;
mod nas;
mod nasmount;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cases::{CASES, Case, On};
use crate::guest::Guest;
use crate::lab::Lab;

/// The Debian that has not been released, with its kernel: by request, as it is another one each day and has time for every case.
const NEWEST: &str = "forky";
const SUITES: [&str; 3] = ["trixie", "bookworm", NEWEST];

/// What the command line and the environment ask for.
struct Request {
    /// Set by `VM=1` or `--run`: `cargo test` must not boot a machine by accident.
    wanted: bool,
    suite: String,
    /// Cases whose name contains one of these; all if there is none.
    filters: Vec<String>,
    /// No case begins later: what is left is named and not run (`VM_UNTIL`, seconds since 1970).
    until: Option<SystemTime>,
}

fn request() -> Result<Request> {
    let mut request = Request {
        wanted: std::env::var_os("VM").is_some_and(|value| value == "1"),
        suite: std::env::var("SUITE").unwrap_or_else(|_| "trixie".to_owned()),
        filters: Vec::new(),
        until: until()?,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--run" => request.wanted = true,
            "--suite" => request.suite = args.next().context("--suite needs a name")?,
            flag if flag.starts_with('-') => bail!("unknown option {flag}"),
            _ => request.filters.push(arg),
        }
    }
    ensure!(SUITES.contains(&request.suite.as_str()), "unknown suite {:?}: one of {SUITES:?}", request.suite);
    Ok(request)
}

/// When the time of this run is up.
fn until() -> Result<Option<SystemTime>> {
    let Ok(text) = std::env::var("VM_UNTIL") else {
        return Ok(None);
    };
    let seconds = text.parse().with_context(|| format!("VM_UNTIL={text}: seconds since 1970 were expected"))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs(seconds)))
}

fn main() -> ExitCode {
    match request().and_then(|request| run(&request)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if every case that ran has passed.
fn run(request: &Request) -> Result<bool> {
    if !request.wanted {
        println!("vm: skipped; to run it: VM=1 cargo test --test vm [-- [--suite bookworm] CASE...]");
        return Ok(true);
    }
    if request.filters == ["demo"] {
        demo::run(&Rc::new(Lab::new(&request.suite)?).boot()?)?;
        return Ok(true);
    }
    if request.filters == ["bench"] {
        bench::run(&Rc::new(Lab::new(&request.suite)?).boot()?)?;
        return Ok(true);
    }
    let chosen: Vec<&Case> = CASES.iter().filter(|case| request.matches(case)).collect();
    ensure!(!chosen.is_empty(), "no case matches {:?}", request.filters);

    let lab = Rc::new(Lab::new(&request.suite)?);
    let mut running: Option<Guest> = None;
    let (mut passed, mut failed, mut not_run) = (0, 0, Vec::new());
    for case in &chosen {
        if request.until.is_some_and(|until| SystemTime::now() > until) {
            not_run.push(case.name);
            continue;
        }
        let guest = match running.take() {
            Some(guest) if !guest.is_off()? => guest,
            Some(_) | None => lab.boot()?,
        };
        if report(&lab, &guest, case) {
            passed += 1;
            running = Some(guest);
        } else {
            // A failed case leaves anything behind; the next one gets a fresh machine.
            failed += 1;
        }
    }
    println!("{}: {passed} passed, {failed} failed", lab.suite());
    if !not_run.is_empty() {
        println!("{}: NOT RUN, the time was up: {}", lab.suite(), not_run.join(", "));
    }
    Ok(failed == 0 && passed > 0) // nothing was shown by nothing
}

impl Request {
    fn matches(&self, case: &Case) -> bool {
        let suite = self.suite.as_str();
        let here = match case.on {
            On::EverySuite => true,
            On::Trixie => ["trixie", NEWEST].contains(&suite),
            On::Bookworm => ["bookworm", NEWEST].contains(&suite),
            On::Newest => suite == NEWEST,
            On::Request => false,
        };
        (self.filters.is_empty() && here) || self.filters.iter().any(|filter| case.name.contains(filter))
    }
}

/// Runs a case and prints its line; false if it failed.
fn report(lab: &Lab, guest: &Guest, case: &Case) -> bool {
    let start = Instant::now();
    let outcome = (case.run)(guest).and_then(|facts| {
        nothing_left_behind(guest)?;
        Ok(facts)
    });
    let seconds = start.elapsed().as_secs();
    match outcome {
        Ok(facts) => {
            println!("{}: ok {} ({seconds} s) {facts}", lab.suite(), case.name);
            true
        }
        Err(error) => {
            println!("{}: FAILED {} ({seconds} s): {error:#}", lab.suite(), case.name);
            match lab.collect(guest, case.name) {
                Ok(directory) => println!("  logs: {}", directory.display()),
                Err(error) => println!("  no logs: {error:#}"),
            }
            false
        }
    }
}

/// A case that passes gives the guest back without a mount of the share file system and without an outage, or switched off.
fn nothing_left_behind(guest: &Guest) -> Result<()> {
    if guest.is_off()? {
        return Ok(());
    }
    let mounts = guest.ok("awk '$3 == \"cifs\" { print $2 }' /proc/mounts")?;
    ensure!(mounts.is_empty(), "the case left mounts behind: {mounts}");
    Ok(())
}
