//! Clipping: bounding what one member of the data can change.
//!
//! A [`Clipper`] owns the bound, so the [sensitivity](Clipper::sensitivity) that noise is scaled
//! by and the bound that updates are held to are one number. Bounds hold for the `f32` numbers
//! that leave the clipper, rounding included. An update that is not finite becomes zero: it
//! changes neither control flow nor the number of contributors.
//!
//! - [`FlatClip`]: the whole update to one norm (Abadi et al. 2016; McMahan et al. 2018); also
//!   for single examples, by their norms alone ([`FlatClip::factor`]).
//! - [`PerLayerClip`]: each tensor to its own norm.
//! - [`AutomaticClip`]: every update scaled to about the same norm (Bu et al. 2023).
//! - [`AdaptiveClip`]: the norm follows a quantile of the updates' norms (Andrew et al. 2021).
//! - [`MeanPlan`]: weights and denominator of a mean whose sensitivity is known.

mod adaptive;
mod mean;

#[cfg(test)]
mod tests;

use core::fmt::Debug;
use core::ops::Range;

use fl_core::Layout;
pub use fl_core::norm::l2_norm;
use fl_core::norm::{l2_norm_above, scale, sum_of_squares_above};

pub use adaptive::{AdaptiveClip, AdaptiveClipConfig};
pub use mean::{Denominator, DpWeighting, MeanPlan};

use crate::error::PrivacyError;
use crate::relation::NeighboringRelation;

/// Norms are held to this share of the bound: it covers the rounding of [`scale`] (one part in
/// `2^23`) and as much again for norms that were not rounded upwards.
const MARGIN: f64 = 1.0 - 1.0 / (1u64 << 22) as f64;
/// The bounds that there can be: products with them stay normal in `f32`.
const NORMS: core::ops::RangeInclusive<f64> = 1e-20..=1e20;

/// Bounds what one update can be.
pub trait Clipper: Debug + Send + Sync {
    /// Clips in place.
    fn clip(&self, update: &mut [f32]) -> Clipped;

    /// No clipped update has a larger L2 norm.
    fn max_norm(&self) -> f64;

    /// The L2 sensitivity of a sum of clipped updates of weight 1: how far it is between two sums
    /// over neighbours.
    fn sensitivity(&self, relation: NeighboringRelation) -> f64 {
        changes(relation) * self.max_norm()
    }
}

/// How many contributions differ between neighbours: replacing is removing one and adding another,
/// unless the other contributes nothing.
#[must_use]
pub fn changes(relation: NeighboringRelation) -> f64 {
    match relation {
        NeighboringRelation::AddOrRemoveOne | NeighboringRelation::ReplaceSpecial => 1.0,
        NeighboringRelation::ReplaceOne => 2.0,
    }
}

/// What clipping did. The norms themselves are private: they must not be reported without noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// The L2 norm before, rounded upwards by at most 2.5e-7 of it; not finite when the update was
    /// not.
    pub norm: f64,
    /// What happened.
    pub outcome: ClipOutcome,
}

/// What happened to an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipOutcome {
    /// It was within the bound and is as before.
    Within,
    /// It was scaled.
    Scaled,
    /// It was not finite and is zero now.
    Zeroed,
}

/// The whole update to one L2 norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlatClip {
    max_norm: f64,
}

impl FlatClip {
    /// Clipping to `max_norm`.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless it is from 1e-20 to 1e20.
    pub fn new(max_norm: f64) -> Result<Self, PrivacyError> {
        check_norm(max_norm)?;
        Ok(Self { max_norm })
    }

    /// What an update of this L2 norm is to be multiplied by, for those who know norms without
    /// having the vectors (the ghost method of example-level DP-SGD). 0 for a norm that is not
    /// finite: such an example is to be left out, not multiplied.
    ///
    /// The bound then holds up to the rounding of whoever multiplies, if the norm is right to
    /// `2^-23`.
    #[must_use]
    pub fn factor(&self, norm: f64) -> f64 {
        if !norm.is_finite() {
            0.0
        } else if norm > self.max_norm * MARGIN {
            self.max_norm * MARGIN / norm
        } else {
            1.0
        }
    }
}

impl Clipper for FlatClip {
    fn clip(&self, update: &mut [f32]) -> Clipped {
        let norm = l2_norm_above(update);
        let factor = self.factor(norm);
        Clipped {
            norm,
            outcome: scaled(update, norm, factor),
        }
    }

    fn max_norm(&self) -> f64 {
        self.max_norm
    }
}

/// Each tensor of a model to its own L2 norm (McMahan et al. 2018, section 3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayerClip {
    layers: Vec<(Range<usize>, FlatClip)>,
    len: usize,
    max_norm: f64,
}

impl PerLayerClip {
    /// A bound for each tensor of `layout`, in order.
    ///
    /// # Errors
    /// [`PrivacyError`] unless there are as many bounds as tensors, at least one, each from 1e-20
    /// to 1e20.
    pub fn new(layout: &Layout, bounds: &[f64]) -> Result<Self, PrivacyError> {
        PrivacyError::unless_count(
            bounds.len() == layout.tensors().len() && !bounds.is_empty(),
            "the number of clipping norms",
            bounds.len() as u64,
            "one for each tensor of the model",
        )?;
        let clips = bounds.iter().map(|&bound| FlatClip::new(bound));
        let layers: Vec<(Range<usize>, FlatClip)> = layout
            .tensors()
            .iter()
            .zip(clips)
            .map(|(tensor, clip)| Ok((tensor.range(), clip?)))
            .collect::<Result<_, PrivacyError>>()?;
        let squares: f64 = bounds.iter().map(|bound| bound * bound).sum();
        // Rounded upwards.
        let max_norm = libm::sqrt(squares) * (1.0 + bounds.len() as f64 * f64::EPSILON);
        Ok(Self {
            layers,
            len: layout.len(),
            max_norm,
        })
    }

    /// Equal bounds that together allow `max_norm`: `max_norm / sqrt(L)` for `L` tensors.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn uniform(layout: &Layout, max_norm: f64) -> Result<Self, PrivacyError> {
        let layers = layout.tensors().len();
        Self::new(layout, &vec![max_norm / libm::sqrt(layers as f64); layers])
    }
}

impl Clipper for PerLayerClip {
    /// An update of another length than the layout's has no layers, and becomes zero.
    fn clip(&self, update: &mut [f32]) -> Clipped {
        if update.len() != self.len {
            let norm = l2_norm_above(update);
            update.fill(0.0);
            return Clipped {
                norm,
                outcome: ClipOutcome::Zeroed,
            };
        }
        let squares: Vec<f64> = self
            .layers
            .iter()
            .map(|(range, _)| sum_of_squares_above(&update[range.clone()]))
            .collect();
        let norm = libm::sqrt(squares.iter().sum());
        let mut outcome = ClipOutcome::Within;
        if norm.is_finite() {
            for ((range, clip), square) in self.layers.iter().zip(squares) {
                let layer = libm::sqrt(square);
                let values = &mut update[range.clone()];
                if scaled(values, layer, clip.factor(layer)) == ClipOutcome::Scaled {
                    outcome = ClipOutcome::Scaled;
                }
            }
        } else {
            update.fill(0.0);
            outcome = ClipOutcome::Zeroed;
        }
        Clipped { norm, outcome }
    }

    fn max_norm(&self) -> f64 {
        self.max_norm
    }
}

/// Every update `u` becomes `max_norm u / (|u| + stability)`: there is no bound to be tuned, only
/// a scale that the learning rate absorbs (Bu, Wang, Zha and Karypis 2023, arXiv:2206.07136,
/// equation 3.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutomaticClip {
    max_norm: f64,
    stability: f64,
}

impl AutomaticClip {
    /// The paper's `gamma` when nothing else is asked for.
    pub const DEFAULT_STABILITY: f64 = 0.01;

    /// Scaling to just below `max_norm`; small updates stay smaller the larger `stability` is.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless both are from 1e-20 to 1e20.
    pub fn new(max_norm: f64, stability: f64) -> Result<Self, PrivacyError> {
        check_norm(max_norm)?;
        PrivacyError::unless(
            NORMS.contains(&stability),
            "the stability of automatic clipping",
            stability,
            "a number from 1e-20 to 1e20",
        )?;
        Ok(Self {
            max_norm,
            stability,
        })
    }

    /// What an update of this L2 norm is to be multiplied by, as [`FlatClip::factor`].
    #[must_use]
    pub fn factor(&self, norm: f64) -> f64 {
        if norm.is_finite() {
            self.max_norm * MARGIN / (norm + self.stability)
        } else {
            0.0
        }
    }
}

impl Clipper for AutomaticClip {
    fn clip(&self, update: &mut [f32]) -> Clipped {
        let norm = l2_norm_above(update);
        let factor = self.factor(norm);
        Clipped {
            norm,
            outcome: scaled(update, norm, factor),
        }
    }

    fn max_norm(&self) -> f64 {
        self.max_norm
    }
}

/// The update times `factor`, unless its norm is not finite: then it becomes zero.
fn scaled(update: &mut [f32], norm: f64, factor: f64) -> ClipOutcome {
    if !norm.is_finite() {
        update.fill(0.0);
        ClipOutcome::Zeroed
    } else if factor.total_cmp(&1.0).is_ne() {
        scale(update, factor);
        ClipOutcome::Scaled
    } else {
        ClipOutcome::Within
    }
}

fn check_norm(max_norm: f64) -> Result<(), PrivacyError> {
    PrivacyError::unless(
        NORMS.contains(&max_norm),
        "a clipping norm",
        max_norm,
        "a number from 1e-20 to 1e20",
    )
}
