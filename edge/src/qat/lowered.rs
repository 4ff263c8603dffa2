//! A product's integers, made anew from the master weights in every step.

use alloc::vec;
use alloc::vec::Vec;

use super::step::{Geometry, Product};
use crate::graph::{fold_batch_norm_into, fold_factors};
use crate::kernel::Kernels;
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
    /// The weight that the integers stand for, where it is [wanted](Product::real); the bias.
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
        let packing = packing(geometry);
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
            weight: vec![0.0; if product.real { len } else { 0 }],
            bias: vec![0.0; columns],
            factors: norm(columns),
            weight_folded: norm(len),
            bias_folded: norm(columns),
            scales: norm(columns),
        }
    }

    /// Bytes that [`Self::new`] takes.
    pub(super) fn bytes(product: &Product, granularity: Granularity) -> usize {
        let geometry = &product.geometry;
        let (columns, len) = (geometry.columns(), geometry.weight_len());
        let real = if product.real { len } else { 0 };
        // Real and integer bias, folded bias; three scales; what a normalisation adds.
        let mut numbers = real + 3 * columns + 3 * granularity.scales(columns);
        if product.norm.is_some() {
            numbers += len + 3 * columns;
        }
        packing(geometry).len() + len + 4 * numbers
    }

    /// Makes the integers anew: from the weight with the normalisation folded into it, for the
    /// input's and the output's points. `batch` leaves the normalisation's shift out, for
    /// statistics of the batch to come.
    pub(super) fn lower(
        &mut self,
        k: &Kernels,
        product: &Product,
        weights: &[f32],
        points: [QParams; 2],
        batch: bool,
    ) {
        let weight = &weights[product.weight.clone()];
        let bias = product.bias.clone().map(|bias| &weights[bias]);
        match &product.norm {
            None => self.product.update_by(k, weight, bias, points),
            Some(norm) => {
                let gamma = &weights[norm.gamma.clone()];
                let variance = &weights[norm.variance.clone()];
                if batch {
                    fold_factors(gamma, variance, norm.epsilon, &mut self.factors);
                    self.fold_factors_alone(k, weight, bias);
                } else {
                    fold_batch_norm_into(
                        weight,
                        bias,
                        gamma,
                        &weights[norm.beta.clone()],
                        &weights[norm.mean.clone()],
                        variance,
                        norm.epsilon,
                        &mut self.factors,
                        &mut self.weight_folded,
                        &mut self.bias_folded,
                    );
                    for (r, variance) in self.scales.iter_mut().zip(variance) {
                        *r = 1.0 / libm::sqrtf(variance.max(0.0) + norm.epsilon);
                    }
                }
                let bias = Some(&self.bias_folded[..]);
                self.product.update_by(k, &self.weight_folded, bias, points);
            }
        }
        let integers = &self.product;
        k.int8_pack(
            &self.packing,
            &integers.weight,
            Some(&integers.bias),
            points[0].zero_point(),
            &mut self.packed,
            &mut self.folded,
        );
        let factors = batch.then_some(&self.factors[..]);
        if product.real {
            let scales = &integers.weight_scales;
            k.int8_dequantize_weights(&integers.weight, scales, factors, &mut self.weight);
        }
        if batch {
            let scales = integers.accumulator_scales.iter().cycle();
            for ((to, scale), factor) in self.scales.iter_mut().zip(scales).zip(&self.factors) {
                *to = scale / factor;
            }
        }
    }

    /// Folds the normalisation's factor alone: what remains to be done needs the batch's
    /// statistics.
    fn fold_factors_alone(&mut self, k: &Kernels, weight: &[f32], bias: Option<&[f32]>) {
        for factor in &mut self.factors {
            if factor.abs() < LEAST_FACTOR {
                *factor = 1.0;
            }
        }
        k.int8_scale_columns(weight, &self.factors, &mut self.weight_folded);
        let folded = self.bias_folded.iter_mut().zip(&self.factors);
        for (at, (to, factor)) in folded.enumerate() {
            *to = bias.map_or(0.0, |bias| bias[at]) * factor;
        }
    }
}

fn packing(geometry: &Geometry) -> Packing {
    match geometry {
        Geometry::Dense(dense) => Packing::dense(dense),
        Geometry::Conv(conv) => Packing::conv(conv),
    }
}

/// The factor of a channel below which a normalisation is not folded while the statistics of the
/// batch are used: dividing by it again would overflow.
const LEAST_FACTOR: f32 = 1e-20;
