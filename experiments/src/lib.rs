//! Federated-learning experiments from one TOML file: the library behind the program `fledgling`.
//!
//! [`config`] reads a file into an [`Experiment`](config::Experiment) in which nothing can be
//! invalid any more, [`runner`] turns one of its variants into a running simulation,
//! [`results`] records it, [`plot`] draws it, [`verify`] runs it again and compares bit for bit,
//! [`compare`] sets two results side by side, and [`report`] any number on one page. [`cli`] is the command line over all of them.
#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
pub mod config;
pub mod error;
pub mod plot;
pub mod report;
pub mod results;
pub mod runner;
pub mod verify;

pub use error::Error;
