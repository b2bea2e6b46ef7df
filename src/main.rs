//! The program `nasmount`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nasmount::cli::run()
}
