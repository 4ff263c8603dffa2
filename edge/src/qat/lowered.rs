//! A product's integers, made anew from the master weights in every step.

use super::step::{Geometry, Product};
use crate::graph::fold_batch_norm_into;
use crate::kernel::int8::Packing;
use crate::quant::{Granularity, LoweredProduct, QParams, Range, lower_product};

/// A product's integers and what belongs to them, lowered anew from the master weights in every
/// step.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) product: LoweredProduct,
    packing: Packing,
    pub(super) packed: Vec<i8>,
    pub(super) folded: Vec<i32>,
    /// The weight and the bias that the integers stand for.
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// With a batch normalisation: its factor for each output, the folded weight and bias.
    pub(super) factors: Vec<f32>,
    weight_folded: Vec<f32>,
    bias_folded: Vec<f32>,
    /// What one step of the accumulator is worth before a normalisation by the batch; else `r` of
    /// the running statistics.
    pub(super) scales: Vec<f32>,
}

impl Lowered {
    pub(super) fn new(product: &Product, granularity: Granularity) -> Self {
        let geometry = &product.geometry;
        let (columns, len) = (geometry.columns(), geometry.weight_len());
        let packing = match geometry {
            Geometry::Dense(dense) => Packing::dense(dense),
            Geometry::Conv(conv) => Packing::conv(conv),
        };
        let one = QParams::from_range(Range { min: 0.0, max: 0.0 });
        let norm = |len: usize| match product.norm {
            Some(_) => vec![0.0; len],
            None => Vec::new(),
        };
        Self {
            product: lower_product(&vec![0.0; len], None, columns, one, one, granularity),
            packed: vec![0; packing.len()],
            folded: vec![0; columns],
            packing,
            weight: vec![0.0; len],
            bias: vec![0.0; columns],
            factors: norm(columns),
            weight_folded: norm(len),
            bias_folded: norm(columns),
            scales: norm(columns),
        }
    }

    /// Makes the integers anew: from the weight with the normalisation folded into it, for the
    /// input's and the output's points. `batch` leaves the normalisation's shift out, for
    /// statistics of the batch to come; `training` wants the real weights, too.
    pub(super) fn lower(
        &mut self,
        product: &Product,
        weights: &[f32],
        [x, y]: [QParams; 2],
        training: bool,
        batch: bool,
    ) {
        let lowered = self;
        let weight = &weights[product.weight.clone()];
        let bias = product.bias.clone().map(|bias| &weights[bias]);
        match &product.norm {
            None => lowered.product.update(weight, bias, x, y),
            Some(norm) => {
                fold_batch_norm_into(
                    weight,
                    bias,
                    &weights[norm.gamma.clone()],
                    &weights[norm.beta.clone()],
                    &weights[norm.mean.clone()],
                    &weights[norm.variance.clone()],
                    norm.epsilon,
                    &mut lowered.factors,
                    &mut lowered.weight_folded,
                    &mut lowered.bias_folded,
                );
                if batch {
                    unfold(product, lowered, weight, bias);
                } else {
                    let variance = &weights[norm.variance.clone()];
                    for (r, variance) in lowered.scales.iter_mut().zip(variance) {
                        *r = 1.0 / libm::sqrtf(variance.max(0.0) + norm.epsilon);
                    }
                }
                let bias = Some(&lowered.bias_folded[..]);
                lowered.product.update(&lowered.weight_folded, bias, x, y);
            }
        }
        let integers = &lowered.product;
        lowered.packing.pack(
            &integers.weight,
            Some(&integers.bias),
            x.zero_point(),
            &mut lowered.packed,
            &mut lowered.folded,
        );
        if training {
            integers.dequantize_weight(&mut lowered.weight);
        }
        if batch {
            let scales = integers.accumulator_scales.iter().cycle();
            for ((to, scale), factor) in lowered.scales.iter_mut().zip(scales).zip(&lowered.factors)
            {
                *to = scale / factor;
            }
            let columns = lowered.factors.len();
            for row in lowered.weight.chunks_exact_mut(columns) {
                for (weight, factor) in row.iter_mut().zip(&lowered.factors) {
                    *weight /= factor;
                }
            }
        }
    }
}

/// The factor of a channel below which a normalisation is not folded while the statistics of the
/// batch are used: dividing by it again would overflow.
const LEAST_FACTOR: f32 = 1e-20;

/// Folds the normalisation's factor alone: what remains to be done needs the batch's statistics.
fn unfold(product: &Product, lowered: &mut Lowered, weight: &[f32], bias: Option<&[f32]>) {
    let columns = product.geometry.columns();
    for factor in &mut lowered.factors {
        if factor.abs() < LEAST_FACTOR {
            *factor = 1.0;
        }
    }
    let rows = lowered.weight_folded.chunks_exact_mut(columns);
    for (to, from) in rows.zip(weight.chunks_exact(columns)) {
        for ((to, w), factor) in to.iter_mut().zip(from).zip(&lowered.factors) {
            *to = w * factor;
        }
    }
    for (at, (to, factor)) in lowered
        .bias_folded
        .iter_mut()
        .zip(&lowered.factors)
        .enumerate()
    {
        *to = bias.map_or(0.0, |bias| bias[at]) * factor;
    }
}
