//! Federated-learning experiments from one TOML file: the library behind the program `fledgling`.
//!
//! [`config`] reads a file into an [`Experiment`](config::Experiment) in which nothing can be
//! invalid any more, [`runner`] turns one of its variants into a running simulation,
//! [`results`] records it, [`plot`] draws it, [`verify`] runs it again and compares bit for bit,
//! [`compare`] sets two results side by side, and [`report`] any number on one page. [`sweep`] makes
//! many runs of one file, and [`analysis`] does statistics over them. [`cli`] is the command line over
//! all of them, and [`plugins`] makes another program of it that has strategies of its own.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod cli;
pub mod compare;
pub mod config;
pub mod error;
#[cfg(test)]
mod made_up;
pub mod plot;
pub mod plugins;
pub mod report;
pub mod results;
pub mod runner;
pub mod sweep;
pub mod verify;

pub use error::Error;
pub use plugins::Plugins;
