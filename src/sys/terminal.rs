//! Asking at the terminal, also when standard input and output are something else.
//!
//! While nothing is echoed, signals that would end or stop this process are held back until the terminal is as it was: else a shell
//! whose input nobody sees would be left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use rustix::event::{PollFd, PollFlags, poll};
use secrecy::SecretString;

use super::secret::read_line;

/// What a keyboard, a closed window and `kill` send.
const HELD_BACK: [Signal; 5] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP];

/// Whether what is typed can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// As usual.
    On,
    /// Of a password.
    Off,
}

/// The terminal of this process.
#[derive(Debug)]
pub struct Terminal {
    output: File,
    /// Does not block: Ctrl-C takes away what was typed before it, perhaps between a look whether there is something and the read, which
    /// would then wait with the signal held back (seen on a loaded machine).
    input: File,
}

impl Terminal {
    /// Fails if there is none: in a service, a timer, a pipe without one.
    pub fn open() -> io::Result<Self> {
        let open =
            |flags| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | flags).open("/dev/tty");
        Ok(Self { output: open(0)?, input: open(libc::O_NONBLOCK)? })
    }

    /// Asks for a line; `None` at the end of the input (Ctrl-D).
    pub fn ask(&self, prompt: &str, echo: Echo) -> io::Result<Option<SecretString>> {
        let signals = HeldBack::begin()?;
        loop {
            let quiet = (echo == Echo::Off).then(|| Quiet::begin(&self.output)).transpose()?;
            (&self.output).write_all(prompt.as_bytes())?;
            let mut signal = None;
            let line = read_line(&self.input, || {
                signal = signals.before_more(self.input.as_fd())?;
                signal.map_or(Ok(()), |_| Err(io::ErrorKind::Interrupted.into()))
            });
            if quiet.is_some() || signal.is_some() {
                (&self.output).write_all(b"\n")?; // the one that was typed was not echoed
            }
            drop(quiet);
            match signal {
                None => return line,
                Some(signal) => signals.let_through(signal)?, // comes back if this was only stopped: ask again
            }
        }
    }
}

/// No echo; as it was when this is dropped.
struct Quiet<'terminal> {
    terminal: &'terminal File,
    before: Termios,
}

impl<'terminal> Quiet<'terminal> {
    fn begin(terminal: &'terminal File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut without = before.clone();
        without.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &without)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before); // it has gone away
    }
}

/// Signals that wait in `arrived` until they are let through; as before when this is dropped.
struct HeldBack {
    arrived: SignalFd,
    before: SigSet,
}

impl HeldBack {
    fn begin() -> io::Result<Self> {
        let held: SigSet = HELD_BACK.into_iter().collect();
        let arrived = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before = held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { arrived, before })
    }

    /// Waits until something was typed; a signal may come before it.
    fn before_more(&self, terminal: BorrowedFd<'_>) -> io::Result<Option<Signal>> {
        loop {
            let mut sources =
                [PollFd::new(&self.arrived, PollFlags::IN), PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
            match poll(&mut sources, None) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done?,
            };
            if let Some(arrived) = self.arrived.read_signal()? {
                let number = i32::try_from(arrived.ssi_signo).map_err(io::Error::other)?;
                return Ok(Some(Signal::try_from(number)?));
            }
            if !sources[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }

    /// What the signal would have done.
    fn let_through(&self, signal: Signal) -> io::Result<()> {
        let alone = SigSet::from(signal);
        raise(signal)?;
        alone.thread_unblock()?;
        alone.thread_block()?;
        Ok(())
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask(); // fails for no set
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::Read as _;

    use nix::pty::openpty;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn echoes(terminal: &File) -> bool {
        tcgetattr(terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    fn read_until(from: &mut File, end: &str) -> String {
        let mut said = String::new();
        let mut byte = [0];
        while !said.ends_with(end) {
            from.read_exact(&mut byte).unwrap();
            said.push(byte[0].into());
        }
        said
    }

    /// What is asked, what is typed, and what is to be seen of it.
    fn asked(echo: Echo, typed: &str) -> (Option<String>, String) {
        let both = openpty(None, None).unwrap();
        let (mut keyboard, output) = (File::from(both.master), File::from(both.slave));
        let terminal = Terminal { input: output.try_clone().unwrap(), output };
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| terminal.ask("Word: ", echo).unwrap());
            let prompt = read_until(&mut keyboard, "Word: ");
            assert_eq!((prompt.as_str(), echoes(&terminal.output)), ("Word: ", echo == Echo::On));
            keyboard.write_all(typed.as_bytes()).unwrap();
            asking.join().unwrap().map(|line| line.expose_secret().to_owned())
        });
        assert!(echoes(&terminal.output), "as it was");
        (&terminal.output).write_all(b"end").unwrap();
        (answer, read_until(&mut keyboard, "end"))
    }

    #[test]
    fn a_password_is_not_echoed_and_what_is_no_secret_is() {
        assert_eq!(asked(Echo::Off, "hunter2\n"), (Some("hunter2".to_owned()), "\r\nend".to_owned()));
        assert_eq!(asked(Echo::On, "bob\n"), (Some("bob".to_owned()), "bob\r\nend".to_owned()));
        assert_eq!(asked(Echo::Off, "wrong\u{15}right\n").0, Some("right".to_owned()), "it can be corrected");
        assert_eq!(asked(Echo::Off, "\u{4}").0, None, "Ctrl-D");
    }
}
