//! The command-line program `fledgling`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fledgling::cli::main(std::env::args_os()))
}
