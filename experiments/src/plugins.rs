//! The program with parts of your own.
//!
//! A crate outside this workspace that has a strategy makes a program of its own from this one: all
//! subcommands, and one `kind` more in `[strategy]`, with its keys checked, documented by `schema`,
//! kept in manifests and derived again by `verify`.
//!
//! ```no_run
//! use fl_core::strategy::FedAvg;
//!
//! fn main() -> std::process::ExitCode {
//!     // In place of FedAvg, any type that is `Strategy` and `Registered`.
//!     fledgling::Plugins::new().strategy::<FedAvg>("my-fedavg").main()
//! }
//! ```

use std::process::ExitCode;
use std::sync::OnceLock;

use fl_core::registry::{ConfigError, KindInfo, Registered};
use fl_core::strategy::{Outside, Strategy, StrategyConfig};
use serde::de::{Deserialize as _, Error as _};

use crate::config::{Decoder, Fault};

/// Parts from outside this workspace.
#[derive(Clone, Debug, Default)]
pub struct Plugins {
    strategies: Vec<StrategyPlugin>,
}

/// A strategy from outside: what it is called, and how its table is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrategyPlugin {
    pub(crate) info: KindInfo,
    read: fn(&'static str, Decoder<'_>) -> Result<Read, Fault>,
}

/// A table whose keys fit: the strategy, or the value that it refuses.
type Read = Result<StrategyConfig, ConfigError>;

/// Those of this process. The program is the place where everything is put together; no crate
/// below it knows of this.
static INSTALLED: OnceLock<Plugins> = OnceLock::new();

impl Plugins {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a strategy that experiments name by `kind`.
    #[must_use]
    pub fn strategy<S: Strategy + Registered + 'static>(mut self, kind: &'static str) -> Self {
        self.strategies.push(StrategyPlugin {
            info: KindInfo {
                kind,
                summary: S::SUMMARY,
                keys: S::KEYS,
            },
            read: read_strategy::<S>,
        });
        self
    }

    /// Runs the program with these parts and the process's arguments.
    #[must_use]
    pub fn main(self) -> ExitCode {
        ExitCode::from(self.run(std::env::args_os()))
    }

    /// As [`main`](Self::main) with the given arguments, of which the first is the program's name.
    fn run(self, arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
        if let Some(kind) = self.taken() {
            return crate::cli::refuse(&format!(
                "strategy `{kind}` is there already; give yours another kind"
            ));
        }
        // Whoever comes second in a process runs with the parts of the first.
        let _ = INSTALLED.set(self);
        crate::cli::main(arguments)
    }

    /// The first kind that two strategies have.
    fn taken(&self) -> Option<&'static str> {
        let ours = StrategyConfig::KINDS.iter().map(|info| info.kind);
        let mut known: Vec<&str> = ours.collect();
        self.strategies.iter().find_map(|plugin| {
            let kind = plugin.info.kind;
            let taken = known.contains(&kind);
            known.push(kind);
            taken.then_some(kind)
        })
    }
}

/// The strategies from outside that this process has.
pub(crate) fn strategies() -> &'static [StrategyPlugin] {
    INSTALLED
        .get()
        .map_or(&[], |plugins| plugins.strategies.as_slice())
}

impl StrategyPlugin {
    /// Reads its table, without `kind`.
    pub(crate) fn read(&self, decoder: Decoder<'_>) -> Result<Read, Fault> {
        (self.read)(self.info.kind, decoder)
    }
}

fn read_strategy<S: Strategy + Registered + 'static>(
    kind: &'static str,
    decoder: Decoder<'_>,
) -> Result<Read, Fault> {
    let config = S::Config::deserialize(decoder)?;
    let written = serde_json::to_string(&config).map_err(Fault::custom)?;
    let strategy = S::from_config(config);
    Ok(strategy.map(|strategy| StrategyConfig::Outside(Outside::new(kind, strategy, written))))
}

#[cfg(test)]
mod tests {
    use fl_core::strategy::{FedAvg, FedProx};

    use super::*;

    #[test]
    fn a_kind_that_is_taken_is_named() {
        let fine = Plugins::new()
            .strategy::<FedAvg>("mine")
            .strategy::<FedProx>("other");
        assert_eq!(fine.taken(), None);
        assert_eq!(fine.strategy::<FedAvg>("mine").taken(), Some("mine"));
        let ours = Plugins::new().strategy::<FedProx>("fedavg");
        assert_eq!(ours.taken(), Some("fedavg"));
    }
}
