//! Differential privacy that is tight, fast and hard to misuse.
//!
//! # A tour
//! - [`units`], [`relation`]: [`Epsilon`], [`Delta`], [`NoiseMultiplier`]; which data sets are
//!   neighbours and what one of their members is.
//! - [`event`], [`ledger`]: what was released, as values ([`DpEvent`]), and the [`Ledger`] of all
//!   that was; its canonical serialisation has a digest.
//! - [`mod@accountant`]: from events to [`Epsilon`] and [`Delta`], as proven [`Bounds`].
//! - [`calibrate`]: the value of any one parameter that meets an `(epsilon, delta)`.
//! - [`budget`]: a [`PrivacyBudget`], and the [`PrivacyFilter`] that refuses what would overspend
//!   it before noise is drawn.
//! - [`audit`]: lower bounds from attacks that were run.
//! - [`fdp`]: what a guarantee leaves to whoever guesses.
//! - [`sampling`]: who takes part, and the event that this earns.
//! - [`clip`]: bounding what one member can change, and means whose sensitivity is known.
//! - [`mechanism`]: where noise comes from, continuous and on the integers.
//! - [`distributed`]: noise that clients add inside secure aggregation.
//! - [`matrix`]: noise that is correlated over the rounds, for DP-FTRL.
//! - [`plan`]: the [`DpPlan`] that owns all of these for an aggregation, and alone adds noise; and
//!   the [`ClientPlan`] where clients add it themselves, for a server that is trusted with less.
//!
//! No clock, no threads, no files; nothing prints. Every reported upper bound is rounded upwards
//! and every lower bound downwards.
#![forbid(unsafe_code)]

pub mod accountant;
pub mod audit;
pub mod budget;
pub mod calibrate;
pub mod clip;
pub mod distributed;
pub mod error;
pub mod event;
pub mod fdp;
pub mod ledger;
pub mod matrix;
pub mod mechanism;
pub mod plan;
pub(crate) mod pld;
pub mod relation;
pub mod sampling;
pub(crate) mod special;
#[cfg(test)]
mod statistics;
pub mod units;

pub use accountant::{Accountant, AccountantKind, Bounds, accountant};
pub use budget::{FilterRule, Odometer, PrivacyBudget, PrivacyFilter};
pub use calibrate::{Calibrated, Target};
pub use error::PrivacyError;
pub use event::DpEvent;
pub use ledger::{Ledger, LedgerEntry};
pub use plan::{ClientPlan, ClientPlanConfig, DpPlan, DpPlanConfig, PrivacyStatement};
pub use relation::{NeighboringRelation, PrivacyUnit};
pub use sampling::{Draws, Sampler};
pub use units::{Delta, Epsilon, NoiseMultiplier};
