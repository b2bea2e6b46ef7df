//! What people type.

pub mod check;
pub mod client;
mod configured;
pub mod consumers;
pub mod control;
pub mod diagnose;
pub mod doctor;
pub mod dump;
pub mod explain;
pub mod export;
pub mod generator;
pub mod import;
pub mod login;
pub mod man;
pub mod mount_helper;
pub mod profiles;
pub mod records;
pub mod reload;
pub mod replay;
pub mod report;
pub mod rescue;
pub mod status;
pub mod succession;
mod table;
pub mod takeover;
pub mod trust;
#[cfg(test)]
#[path = "../../tests/schemas/validate.rs"]
mod validate;

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::config::Colour;
use crate::daemon;
use crate::daemon::recorder::ErrorWatch;
use crate::sys::{config_dir, secret, worker};
use client::Wish;
use report::Exit;

/// Network mounts that never take a Linux machine down with them.
#[derive(Debug, Parser)]
#[command(name = "nasmount", version, max_term_width = 100)]
pub struct Cli {
    /// Read this configuration; drop-ins are taken from conf.d beside it
    #[arg(long, global = true, env = "NASMOUNT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// No colour, also on a terminal
    #[arg(long, global = true)]
    no_color: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how servers, shares and consumers are; with -v also who has shares open (as root)
    Status(status::Arguments),
    /// Mount shares and keep them mounted; tries again what is blocked
    #[command(after_help = "Example, when what had blocked a share is mended:\n  sudo nasmount mount films")]
    Mount(control::Arguments),
    /// Stop the consumers, write back what is unwritten, unmount, and leave it so
    #[command(after_help = "Example, before a disk of the NAS is taken out:\n  sudo nasmount unmount films music")]
    Unmount(control::Arguments),
    /// Unmount and mount again
    #[command(after_help = "Example, to have changed options or a new login used now:\n  sudo nasmount remount films")]
    Remount(control::Arguments),
    /// Hold consumers as in an outage
    #[command(after_help = "Example, before the NAS is restarted by hand:\n  sudo nasmount hold --all")]
    Hold(control::Arguments),
    /// Let consumers go that `hold` holds
    #[command(after_help = "Example, when that is over:\n  sudo nasmount release --all")]
    Release(control::Arguments),
    /// Keep nasmount's hands off shares
    #[command(
        subcommand,
        after_help = "Example, to mount a share by hand for a while:\n  sudo nasmount maintenance on films --for 1h"
    )]
    Maintenance(control::Maintenance),
    /// Show who depends on which share, and what is missing; as root also who has files open
    #[command(
        after_help = "Examples:\n  nasmount consumers\n  sudo nasmount consumers films    # with who has files open"
    )]
    Consumers(consumers::Arguments),
    /// Wait until shares are online; exit status 3 if they are not in time
    Wait(control::WaitArguments),
    /// Trust the machine that answers at a server's address now, although it is another one than before
    #[command(after_help = "Example, when a NAS was set up anew:\n  sudo nasmount trust tower")]
    Trust(trust::Arguments),
    /// Write the login of a server into its credentials file, if the server takes it
    Login(login::Arguments),
    /// Check the configuration; silent when it is fine
    #[command(after_help = "Without root it cannot look into credentials files, and says so.\n\n\
                            Example, before a changed configuration is taken over:\n  sudo nasmount check && sudo nasmount reload")]
    Check {
        /// Print the problems as JSON
        #[arg(long)]
        json: bool,
    },
    /// Find what is wrong with this host or will hurt, and say what to do; changes nothing. Exit status 3 for warnings and errors
    #[command(after_help = "Without root it cannot look under a mount, nor ask who has files open.\n\n\
                            Examples:\n  sudo nasmount doctor\n  sudo nasmount doctor --nagios    # one line, for monitoring")]
    Doctor(doctor::Arguments),
    /// Show each option of a share, where it comes from, and how long a dead server can hold anything up
    #[command(after_help = "Examples:\n  nasmount explain films\n  nasmount explain /mnt/films --json")]
    Explain(explain::Arguments),
    /// Try a share step by step, from its server's name to its data: the first that fails, why, and what to do
    Diagnose(diagnose::Arguments),
    /// List the profiles that shares can name, or print one
    #[command(
        after_help = "Examples:\n  nasmount profiles\n  nasmount profiles media    # with the reason of each option"
    )]
    Profiles(profiles::Arguments),
    /// Print what the CIFS lines of /etc/fstab and mount units are in nasmount's configuration, or take them over
    ImportFstab(import::Arguments),
    /// Give the lines of /etc/fstab and the mount units back that were taken over
    ExportFstab(export::Arguments),
    /// List files that lie beside a share, hidden under it; move them aside, or onto the share without overwriting anything
    Rescue(rescue::Arguments),
    /// Print what happened to a share in the last hours, for `replay`
    #[command(after_help = "Example, for a report of a bug:\n  sudo nasmount dump films --output films.jsonl")]
    Dump(dump::Arguments),
    /// Put a recording through the state machine and print what it decides
    #[command(
        after_help = "Examples:\n  nasmount replay films.jsonl\n  nasmount replay films.jsonl -v    # with each operation"
    )]
    Replay(replay::Arguments),
    /// Take over a changed configuration; exit status 2 and nothing changed if it is not valid
    #[command(
        after_help = "Examples:\n  sudo nasmount reload --dry-run    # what would change\n  sudo nasmount reload"
    )]
    Reload(reload::Arguments),
    /// Run the service (systemd does this)
    #[command(after_help = "Example, to see why the service does not start:\n  sudo nasmount daemon -v")]
    Daemon,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  nasmount completions bash | sudo tee /usr/share/bash-completion/completions/nasmount"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page in roff, or write those of all commands into a directory
    #[command(after_help = "Examples:\n  nasmount man | man -l -\n  sudo nasmount man /usr/local/share/man/man1")]
    Man {
        /// An existing directory, such as /usr/local/share/man/man1
        directory: Option<PathBuf>,
    },
    /// Own the barriers (nasmount-barrier.service)
    #[command(hide = true)]
    Barrier,
    /// Continue what is paused, when the daemon cannot come back (nasmount-resume-all.service)
    #[command(hide = true)]
    ResumeAll,
    /// Take shares, barriers and clones off this host, when the services have stopped (make uninstall)
    #[command(hide = true)]
    Clear,
}

/// Runs what was typed, or what mount(8) and systemd call by other names.
pub fn run() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("mount.nasmount") => return mount_helper::run(std::env::args_os().collect()),
        Some("nasmount-generator") => return ended(generator::run(&arguments.collect::<Vec<_>>())).into(),
        _ => {}
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if matches!(&arguments[..], [_, only] if only == worker::COMMAND) {
        return run_worker().into();
    }
    if asks_for_json(&arguments) {
        report::expect_json();
    }
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(exit) => return report::conclude(exit).into(),
    };
    start_log(log_level(&cli));
    report::conclude(ended(dispatch(cli))).into()
}

/// One for each share every few seconds: to make the list of all commands, which nobody reads, would be a third of their work.
fn run_worker() -> Exit {
    start_log(LevelFilter::WARN);
    report::conclude(ended(worker::serve().context("cannot serve a request").map(|()| Exit::Done)))
}

fn ended(result: anyhow::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        report::report(error.as_ref(), error.downcast_ref::<Hinted>().map(Hinted::hint));
        Exit::Failed
    })
}

/// What was typed; a mistake in it is said without colour, too, if that was asked for.
fn parse(arguments: &[OsString]) -> Result<Cli, Exit> {
    let plain = arguments.iter().any(|argument| argument == "--no-color");
    let colour = if plain { clap::ColorChoice::Never } else { clap::ColorChoice::Auto };
    let command = command(std::env::var_os("NASMOUNT_CONFIG").as_deref()).color(colour);
    let read = |arguments: &[OsString]| {
        command.clone().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches))
    };
    let error = match read(arguments) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if !error.use_stderr() {
        error.exit(); // help or version, which were asked for
    }
    // it repeats what was typed, and what a terminal would obey is the same mistake when it is escaped
    let harmless: Vec<OsString> =
        arguments.iter().map(|argument| crate::config::escaped(&argument.to_string_lossy()).into()).collect();
    let error = if harmless == arguments { error } else { read(&harmless).err().unwrap_or(error) };
    let _ = error.print();
    let text = error.render().to_string();
    report::keep(&mistake(&text), "`--help` says what can be typed");
    Err(Exit::Usage)
}

/// What clap says of a mistake, in one line, without how the command is used: what is missing stands in lines of its own.
fn mistake(text: &str) -> String {
    let said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let said = said.join(" ");
    said.strip_prefix("error: ").map(str::to_owned).unwrap_or(said)
}

/// Before anything is known of the command: a mistake in what was typed is told as JSON, too.
fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// An empty variable is none.
fn command(config: Option<&OsStr>) -> clap::Command {
    let unset = config.is_some_and(OsStr::is_empty);
    let command = Cli::command();
    if unset { command.mut_arg("config", |argument| argument.env(None::<&'static str>)) } else { command }
}

/// Is this root? What needs it says so before it begins.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An error with something to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    message: String,
    hint: String,
}

impl Hinted {
    /// What went wrong, and what to do.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }

    /// What to do.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

/// Those that have logins in their memory, if only to check a file.
fn reads_logins(command: &Command) -> bool {
    matches!(
        command,
        Command::Check { .. }
            | Command::Daemon
            | Command::Diagnose(_)
            | Command::ExportFstab(_)
            | Command::ImportFstab(_)
            | Command::Login(_)
    )
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    if reads_logins(&cli.command) {
        secret::keep_out_of_core_dumps().context("cannot keep logins out of core dumps")?;
    }
    match cli.command {
        Command::Status(arguments) => {
            let detail = if cli.verbose > 0 { status::Detail::Users } else { status::Detail::Usual };
            return status::run(&arguments, detail);
        }
        Command::Mount(arguments) => return control::run(&arguments, Wish::Mount),
        Command::Unmount(arguments) => return control::run(&arguments, Wish::Unmount),
        Command::Remount(arguments) => return control::run(&arguments, Wish::Remount),
        Command::Hold(arguments) => return control::run(&arguments, Wish::Hold),
        Command::Release(arguments) => return control::run(&arguments, Wish::Release),
        Command::Maintenance(what) => return control::maintenance(&what),
        Command::Consumers(arguments) => return consumers::run(&arguments),
        Command::Wait(arguments) => return control::wait_for(&arguments),
        Command::Trust(arguments) => return trust::run(&arguments),
        Command::Login(arguments) => return login::run(cli.config.as_deref(), &arguments),
        Command::Check { json } => {
            let output = if json { check::Output::Json } else { check::Output::Text };
            return Ok(check::run(&check::CheckArgs { config: cli.config, output, colour: colour(cli.no_color) }));
        }
        Command::Doctor(arguments) => return Ok(doctor::run(cli.config.as_deref(), &arguments)),
        Command::Explain(arguments) => return explain::run(cli.config.as_deref(), &arguments),
        Command::Diagnose(arguments) => return diagnose::run(cli.config.as_deref(), &arguments),
        Command::Profiles(arguments) => return profiles::run(cli.config.as_deref(), &arguments),
        Command::ImportFstab(arguments) => {
            return import::run(cli.config.as_deref(), &arguments, colour(cli.no_color), talk(cli.quiet));
        }
        Command::ExportFstab(arguments) => {
            return export::run(cli.config.as_deref(), &arguments, colour(cli.no_color), talk(cli.quiet));
        }
        Command::Rescue(arguments) => return rescue::run(cli.config.as_deref(), &arguments),
        Command::Dump(arguments) => return dump::run(&arguments),
        Command::Reload(arguments) => return reload::run(&arguments),
        Command::Replay(arguments) => {
            let detail = if cli.verbose > 0 { replay::Detail::Operations } else { replay::Detail::Usual };
            return Ok(replay::run(&arguments, detail));
        }
        Command::Daemon => {
            abort_on_panic();
            return run_daemon(cli.config, colour(cli.no_color));
        }
        Command::Completions { shell } => return completions(shell),
        Command::Man { directory } => return man::run(Cli::command(), directory.as_deref()),
        Command::Barrier => {
            abort_on_panic();
            daemon::barrier::run()?;
        }
        Command::ResumeAll => daemon::resume_all::run()?,
        Command::Clear => {
            let _alone = daemon::lock()?;
            worker::clear().context("cannot clear the host")?;
        }
    }
    Ok(Exit::Done)
}

fn talk(quiet: bool) -> report::Talk {
    if quiet { report::Talk::Quiet } else { report::Talk::Usual }
}

fn colour(no_color: bool) -> Colour {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match !no_color && takes_colours(set, std::io::stderr().is_terminal()) {
        true => Colour::Always,
        false => Colour::Never,
    }
}

/// What the environment says (<https://no-color.org>, <https://bixense.com/clicolors>): the first of these that is set counts.
fn takes_colours(set: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let is = |name: &str, value: &str| set(name).is_some_and(|set| set == value);
    if set("NO_COLOR").is_some() {
        false
    } else if set("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0") {
        true
    } else {
        is_terminal && !is("CLICOLOR", "0") && !is("TERM", "dumb")
    }
}

/// A panic is a bug of ours. One in a task would leave units paused behind a watchdog that is fed all the same, so it ends the
/// process: systemd starts the next, which takes over what is there.
fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        tracing::error!(%panic, "panic");
        std::process::abort();
    }));
}

/// The configuration is checked as `check` does before anything is started: it is whole or it is not used at all.
fn run_daemon(config: Option<PathBuf>, colour: Colour) -> anyhow::Result<Exit> {
    let checked = check::run(&check::CheckArgs { config: config.clone(), output: check::Output::Text, colour });
    if checked != Exit::Done {
        return Ok(checked);
    }
    let texts = config_dir::read_config(&config_dir::ConfigRoots::system(config.as_deref()))?;
    let Ok(loaded) = crate::config::load(&texts.fragments, &texts.profiles) else { return Ok(Exit::Usage) };
    daemon::run(loaded.settings, config)?;
    Ok(Exit::Done)
}

/// For the daemon and its kin INFO, for people WARN.
fn log_level(cli: &Cli) -> LevelFilter {
    let usual = match cli.command {
        Command::Daemon | Command::Barrier | Command::ResumeAll => LevelFilter::INFO,
        Command::Status(_)
        | Command::Mount(_)
        | Command::Unmount(_)
        | Command::Remount(_)
        | Command::Hold(_)
        | Command::Release(_)
        | Command::Maintenance(_)
        | Command::Wait(_)
        | Command::Consumers(_)
        | Command::Trust(_)
        | Command::Login(_)
        | Command::Check { .. }
        | Command::Doctor(_)
        | Command::Explain(_)
        | Command::Diagnose(_)
        | Command::ImportFstab(_)
        | Command::ExportFstab(_)
        | Command::Profiles(_)
        | Command::Rescue(_)
        | Command::Dump(_)
        | Command::Replay(_)
        | Command::Reload(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Clear => LevelFilter::WARN,
    };
    match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => usual,
        // it prints itself what there is more to say, and the machine would say it again
        (false, 1) if matches!(cli.command, Command::Replay(_) | Command::Status(_)) => usual,
        (false, 1) => usual.max(LevelFilter::DEBUG),
        (false, _) => LevelFilter::TRACE,
    }
}

/// Talk goes to stderr.
fn start_log(level: LevelFilter) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    // only our own words: zbus logs every message at TRACE
    let filter = tracing_subscriber::filter::Targets::new().with_target("nasmount", level);
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = builder.with_max_level(LevelFilter::TRACE);
    if in_journal {
        registry.without_time().finish().with(filter).with(ErrorWatch).init();
    } else {
        registry.finish().with(filter).with(ErrorWatch).init();
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    Ok(report::finish(Exit::Done, std::io::stdout().write_all(&completion_script(shell))))
}

/// Without the hidden commands, which clap_complete offers in some shells.
fn completion_script(shell: clap_complete::Shell) -> Vec<u8> {
    let all = Cli::command();
    let visible = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut command = clap::Command::new("nasmount")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .args(all.get_arguments().cloned())
        .subcommands(visible);
    let mut script = Vec::new(); // generating straight to a closed pipe would panic
    clap_complete::generate(shell, &mut command, "nasmount", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_a_say_in_colours() {
        let takes = |set: &[(&str, &str)], is_terminal| {
            takes_colours(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into()), is_terminal)
        };
        assert!(takes(&[], true) && takes(&[("TERM", "xterm"), ("CLICOLOR", "1")], true) && !takes(&[], false));
        assert!(!takes(&[("TERM", "dumb")], true) && !takes(&[("CLICOLOR", "0")], true));
        assert!(
            takes(&[("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0")], false) && !takes(&[("CLICOLOR_FORCE", "0")], false)
        );
        assert!(!takes(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
    }

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        let said = |line: &str| {
            Cli::command().try_get_matches_from(line.split(' ')).err().map(|error| mistake(&error.to_string()))
        };
        assert_eq!(
            said("nasmount explain --json").as_deref(),
            Some("the following required arguments were not provided: <SHARE>")
        );
        assert_eq!(said("nasmount status --bogus").as_deref(), Some("unexpected argument '--bogus' found"));
    }

    #[test]
    fn json_is_asked_for_before_the_dashes() {
        let asks = |line: &str| asks_for_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(asks("nasmount status --json films") && !asks("nasmount status") && !asks("nasmount status -- --json"));
    }

    /// The commands in the examples of a help, without what a shell makes of the rest of their lines.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines =
            help.lines().skip_while(|line| !line.starts_with("Example")).filter_map(|line| line.strip_prefix("  "));
        let commands =
            lines.flat_map(|line| line.split("    #").next().unwrap_or_default().split([';', '|', '<', '>']));
        let commands = commands.flat_map(|line| line.split("&&")).map(|line| line.trim().trim_start_matches("sudo "));
        commands.filter(|line| line.starts_with("nasmount ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_command_has_an_example_and_each_of_them_can_be_typed() {
        fn look(command: &clap::Command, path: &str) -> usize {
            let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
            commands.fold(0, |seen, command| {
                let path = format!("{path} {}", command.get_name());
                let examples = examples(command);
                assert!(examples.iter().any(|line| format!("{line} ").starts_with(&format!("{path} "))), "{path}");
                for line in examples {
                    let parsed = Cli::command().try_get_matches_from(line.split_whitespace());
                    assert!(parsed.is_ok(), "{line}: {parsed:?}");
                }
                seen + 1 + look(command, &path)
            })
        }
        assert!(look(&Cli::command(), "nasmount") > 25);
    }

    #[test]
    fn no_shell_offers_what_nobody_types() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(completion_script(*shell)).unwrap_or_default();
            for command in ["status", "import-fstab", "completions", "no-color"] {
                assert!(script.contains(command), "{shell} lacks {command}");
            }
            for hidden in Cli::command().get_subcommands().filter(|command| command.is_hide_set()) {
                let name = hidden.get_name();
                assert!(!script.contains(name), "{shell} offers {name}");
            }
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        let has = |config| {
            let command = command(config);
            command.get_arguments().any(|argument| argument.get_id() == "config" && argument.get_env().is_some())
        };
        assert!(has(None) && has(Some(OsStr::new("/x"))));
        assert!(!has(Some(OsStr::new(""))));
    }
}
