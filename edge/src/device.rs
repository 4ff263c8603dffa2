//! Devices: what a graph costs on a phone, a single-board computer, a car or a microcontroller.
//!
//! A [`DeviceProfile`] holds what is known of a class of devices, each number with its source.
//! [`Work`] counts what a graph does, forward and backward. [`estimate`] puts the two together:
//! which delegate runs what ([`Assignment`]), how long, and how many joules. [`Heat`] and
//! [`Jitter`](profile::Jitter) turn that into the time of a session on a device that warms up and
//! stalls.
//!
//! **Every time, energy and temperature that comes from here is modelled, not measured.** Numbers
//! are always computed by the kernels of this crate on the processor at hand, whatever delegate a
//! model is assigned to, so taking a delegate away changes no output.
//!
//! # The model
//! An operator takes `max(macs / rate, bytes / bandwidth) + launch` (the roofline of Williams,
//! Waterman & Patterson 2009, doi:10.1145/1498765.1498785, with a launch overhead), where the rate
//! is the delegate's own for the operator's kind and precision. There are four kinds of product
//! ([`Kind`]) because published times cannot be met with fewer: 3x3 convolutions profit from
//! Winograd's algorithm but read four numbers for each weight then, others do not, depthwise ones do
//! little work for each byte, and a fully connected layer on one example only reads its weights.
//!
//! Nothing here reads a clock. State (temperature) is carried by the caller, and randomness comes
//! from a [`fl_core::Stream`], so a fleet of a million devices needs one [`Estimate`] for each
//! profile and model, and three numbers for each device.
//!
//! | module | does |
//! |---|---|
//! | [`profile`] | the figures of a device class, their sources, and what is checked of them |
//! | `catalogue` | the embedded classes, read from `edge/profiles/*.toml` (feature `profiles`) |
//! | [`work`] | operations, bytes and parameters of a graph |
//! | [`delegate`] | which delegate runs what |
//! | [`cost`] | seconds and joules |
//! | [`heat`] | temperature and throttling |
//! | [`networks`] | networks that published figures are about |
//! | [`fit`] | rates from measured times |
//! | `published` | published times, which of them were fitted, and the errors on the others (feature `profiles`) |

#[cfg(feature = "profiles")]
pub mod catalogue;
pub mod cost;
pub mod delegate;
pub mod fit;
pub mod heat;
mod jitter;
pub mod networks;
pub mod profile;
#[cfg(feature = "profiles")]
pub mod published;
pub mod work;

#[cfg(test)]
mod tests;

pub use cost::{Bound, Estimate, EstimateError, OpEstimate, Request, Sparsity, Threads, estimate};
pub use delegate::{Assignment, Choice, Coverage, choose};
pub use heat::{Heat, Session};
pub use profile::{DelegateKind, DeviceProfile, Precision, ProfileError};
pub use work::{Kind, OpWork, Operator, Phase, Work};
