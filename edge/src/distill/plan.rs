//! The lesson's part in a plan of memory: where the student's layers and their gradients lie.

use alloc::vec::Vec;

use super::fit::{Distillation, Related};
use super::relation;
use crate::graph::ValueId;
use crate::kernel::{Dense, Write};
use crate::plan::{Route, Slot, Tensor, Walk};

/// What a training step learns from its teacher.
#[derive(Debug)]
pub(crate) struct Lesson {
    pub(super) features: Vec<FeatureStep>,
    pub(super) relation: Option<RelationStep>,
}

/// A layer that is compared with one of the teacher.
#[derive(Debug)]
pub(super) struct FeatureStep {
    pub(super) x: Slot,
    pub(super) dx: Slot,
    pub(super) write: Write,
    /// What the teacher's numbers are taken from; then the gradient.
    pub(super) y: Slot,
    pub(super) projection: Option<ProjectionStep>,
    pub(super) positions: usize,
    /// Numbers of an example that are compared.
    pub(super) width: usize,
    pub(super) shown: usize,
    pub(super) weight: f32,
}

/// The linear map of a feature.
#[derive(Debug)]
pub(super) struct ProjectionStep {
    pub(super) dense: Dense,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) scratch: Slot,
}

/// A layer whose examples are compared with one another.
#[derive(Debug)]
pub(super) struct RelationStep {
    pub(super) x: Slot,
    pub(super) dx: Slot,
    pub(super) write: Write,
    pub(super) scratch: Slot,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) shown: Option<usize>,
    pub(super) distance: f32,
    pub(super) angle: f32,
}

impl Lesson {
    /// Whether a batch must be worked through at once.
    pub(crate) fn whole_batch(&self) -> bool {
        self.relation.is_some()
    }
}

/// Plans the lesson at the time of the loss. `slots` are where the values lie that
/// [`Distillation::taps`] names, in that order, alive at that time.
pub(crate) fn plan<B: From<Route>>(
    walk: &mut Walk<'_, B>,
    distillation: &Distillation,
    slots: &[Slot],
) -> Lesson {
    let (features, related) = slots.split_at(distillation.features.len());
    let features = distillation.features.iter().zip(features);
    let features = features
        .map(|(feature, &x)| {
            let (dx, write) = gradient(walk, feature.student);
            let width = feature.positions * feature.outputs;
            FeatureStep {
                x,
                dx,
                write,
                y: walk.buffer(width, 0),
                projection: feature.projection.map(|[weight, bias]| {
                    let dense = feature.dense();
                    ProjectionStep {
                        dense,
                        weight: walk.tensor(weight),
                        bias: walk.tensor(bias),
                        scratch: walk.buffer(0, dense.dx_scratch_len()),
                    }
                }),
                positions: feature.positions,
                width,
                shown: feature.shown,
                weight: feature.weight,
            }
        })
        .collect();
    let relation = distillation.relation.as_ref().zip(related.first());
    let relation = relation.map(|(related, &x)| {
        let (dx, write) = gradient(walk, related.student);
        let Related {
            inputs,
            outputs,
            shown,
            distance,
            angle,
            ..
        } = *related;
        RelationStep {
            x,
            dx,
            write,
            scratch: walk.buffer(relation::scratch_len(walk.rows, inputs, outputs), 0),
            inputs,
            outputs,
            shown,
            distance,
            angle,
        }
    });
    Lesson { features, relation }
}

/// The gradient of a value that something can be learned for.
fn gradient<B: From<Route>>(walk: &mut Walk<'_, B>, value: ValueId) -> (Slot, Write) {
    match walk.gradient_of(walk.root(value)) {
        Some(place) => place,
        None => unreachable!("a layer without parameters before it was refused"),
    }
}
