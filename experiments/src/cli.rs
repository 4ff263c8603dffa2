//! The command line. Each subcommand is one module with `Args` (clap) and
//! `run(&Args) -> Result<Exit, Error>`.

pub mod compare;
pub mod plot;
pub mod verify;

/// How a command ended, as the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: done, but the answer is no (`verify` found a difference).
    Differs,
    /// 130: stopped by Ctrl-C.
    Interrupted,
}
