//! Privacy loss distributions: laws of the loss of one step, their lattice forms from above and
//! below, and their composition. The accountant over them is
//! [`PldAccountant`](crate::accountant::PldAccountant).

mod additive;
pub(crate) mod binomial;
pub(crate) mod compose;
mod composite;
mod contour;
pub(crate) mod dominate;
mod fft;
pub(crate) mod lattice;
pub(crate) mod law;
mod nodes;
mod normal;
mod quantile;
pub(crate) mod single;
mod spectrum;
mod tilt;
