//! Weights of four bits, in groups.
//!
//! A weight is a matrix `[terms, columns]`: `[inputs, outputs]` of a dense layer, HWIO of a
//! convolution with all but the last axis as terms. Along the terms of each column, `group`
//! consecutive weights share a scale (the last group may be shorter), which is a 16-bit float. Each
//! weight is a code of four bits:
//!
//! | [`Code4`] | a weight is | scale of a group | zero point |
//! |---|---|---|---|
//! | `int4` | `(code - 8) s`, codes 1 to 15 | `max abs(w) / 7` | 8 |
//! | `uint4` | `(code - z) s` | `(max(w, 0) - min(w, 0)) / 15` | `round(-min(w, 0) / s)` |
//! | `nf4` | [`NF4`]`[code] s` | `max abs(w)` | |
//!
//! At groups of 64, these take 4.25, 4.375 and 4.25 bits a weight. A scale is rounded to 16 bits
//! before codes are chosen, and codes are rounded to the nearest, half to even. `(code - z) s` is
//! exact in `f32`; an entry of the table times its scale is rounded once. A model of four bits
//! computes in `f32`, exactly as the model of those numbers: see
//! [`Numerics::Int4`](crate::Numerics::Int4).
//!
//! What is not the weight of a product follows from the [`Scope`]. With [`Scope::All`] the rows of
//! tables (embeddings of tokens, positions) are stored in such groups too, along the features of a
//! row; filters of one channel in eight bits ([`Weight8`](super::Weight8)); biases of dense layers and
//! convolutions and the factors and shifts of layer and group normalisations in 16-bit floats. The rest
//! (biases inside recurrent layers, batch normalisations that are not folded in) keeps its 32 bits.
//!
//! # Source
//! Groups: Frantar et al. 2023, arXiv:2210.17323, section 4 ("additional tricks"). NF4: Dettmers
//! et al. 2023, arXiv:2305.14314, section 3 and appendix E.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;
use serde::{Deserialize, Serialize};

use super::Float;
use super::error::QuantError;
use crate::graph::{Op, units};
use crate::kernel::{NF4, f16_to_f32, f32_to_f16};
use crate::model::Model;

/// Weights that share a scale, where nobody says another number.
pub const GROUP: usize = 64;

/// The largest group that is taken.
pub const MOST_GROUP: usize = 1024;

/// What the codes stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code4 {
    /// Symmetric, from -7 to 7 steps.
    #[default]
    Int4,
    /// Sixteen steps with a zero point for each group.
    Uint4,
    /// The table [`NF4`].
    Nf4,
}

impl Code4 {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Int4, Self::Uint4, Self::Nf4];

    /// `int4`, `uint4` or `nf4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int4 => "int4",
            Self::Uint4 => "uint4",
            Self::Nf4 => "nf4",
        }
    }
}

/// What is stored in few bits where weights are in four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Weights of products alone: embedding tables and filters of one channel stay in 16-bit floats,
    /// everything else in 32. Of files that do not say.
    Products,
    /// Tables in four bits as well, filters of one channel in eight, biases and normalisations in
    /// 16-bit floats.
    #[default]
    All,
}

impl Scope {
    /// Where a file says nothing.
    fn unsaid() -> Self {
        Self::Products
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
    fn is_unsaid(&self) -> bool {
        *self == Self::unsaid()
    }
}

/// How weights are stored in four bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FourBits {
    /// What the codes stand for.
    #[serde(default)]
    pub code: Code4,
    /// Weights that share a scale: a power of two from 16 to [`MOST_GROUP`].
    pub group: usize,
    /// What beside the weights of products is stored in few bits.
    #[serde(default = "Scope::unsaid", skip_serializing_if = "Scope::is_unsaid")]
    pub scope: Scope,
    /// Units that keep their weights in floats, by the name of their output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub float_units: BTreeMap<String, Float>,
}

impl Default for FourBits {
    /// `int4` in groups of [`GROUP`].
    fn default() -> Self {
        Self {
            code: Code4::Int4,
            group: GROUP,
            scope: Scope::All,
            float_units: BTreeMap::new(),
        }
    }
}

impl FourBits {
    /// A format without units in floats.
    ///
    /// # Errors
    /// [`QuantError::Group`] when the group is no power of two from 16 to [`MOST_GROUP`].
    pub fn new(code: Code4, group: usize) -> Result<Self, QuantError> {
        let format = Self {
            code,
            group,
            scope: Scope::All,
            float_units: BTreeMap::new(),
        };
        format.check()?;
        Ok(format)
    }

    pub(crate) fn check(&self) -> Result<(), QuantError> {
        let group = self.group;
        match group.is_power_of_two() && (16..=MOST_GROUP).contains(&group) {
            true => Ok(()),
            false => Err(QuantError::Group {
                group,
                most: MOST_GROUP,
            }),
        }
    }
}

/// A scale and a zero point as a group of weights has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    code: Code4,
    /// A number of binary16.
    scale: f32,
    /// Whole, from 0 to 15.
    zero: f32,
}

impl Grid {
    /// The grid of weights; `Err` with the scale that no 16-bit float holds.
    pub(super) fn of(code: Code4, weights: impl Iterator<Item = f32>) -> Result<Self, f32> {
        let (mut low, mut high) = (0f32, 0f32);
        for w in weights {
            (low, high) = (low.min(w), high.max(w));
        }
        let largest = high.max(-low);
        let wide = match code {
            Code4::Int4 => largest / 7.0,
            Code4::Uint4 => ((f64::from(high) - f64::from(low)) / 15.0) as f32,
            Code4::Nf4 => largest,
        };
        let scale = f16_to_f32(f32_to_f16(wide));
        if !scale.is_finite() {
            return Err(wide);
        }
        let zero = match code {
            Code4::Int4 => 8.0,
            Code4::Uint4 if scale > 0.0 => (-low / scale).round_ties_even().clamp(0.0, 15.0),
            Code4::Uint4 | Code4::Nf4 => 0.0,
        };
        Ok(Self { code, scale, zero })
    }

    /// The code of the nearest number.
    pub(super) fn code(&self, weight: f32) -> u8 {
        let least = match self.code {
            Code4::Int4 => 1.0,
            Code4::Uint4 => 0.0,
            Code4::Nf4 => return self.nearest_quantile(weight),
        };
        if self.scale == 0.0 {
            return self.zero as u8;
        }
        let steps = (weight / self.scale).round_ties_even() + self.zero;
        steps.clamp(least, 15.0) as u8
    }

    fn nearest_quantile(&self, weight: f32) -> u8 {
        let mut best = (f32::INFINITY, 7);
        for (code, quantile) in (0..).zip(NF4) {
            let off = (quantile * self.scale - weight).abs();
            // A scale of zero leaves every entry as near as the zero.
            if off < best.0 && (self.scale > 0.0 || quantile == 0.0) {
                best = (off, code);
            }
        }
        best.1
    }

    /// The number of a code.
    pub(super) fn value(&self, code: u8) -> f32 {
        match self.code {
            Code4::Int4 | Code4::Uint4 => (f32::from(code) - self.zero) * self.scale,
            Code4::Nf4 => NF4[usize::from(code & 15)] * self.scale,
        }
    }
}

/// A weight in codes of four bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight4 {
    code: Code4,
    group: usize,
    terms: usize,
    columns: usize,
    /// `[terms, columns]`
    codes: Vec<u8>,
    /// `[groups, columns]`, bits of binary16.
    scales: Vec<u16>,
    /// The same of `uint4`, else none.
    zeros: Vec<u8>,
}

impl Weight4 {
    /// A weight `[terms, columns]` with codes rounded to the nearest.
    ///
    /// # Errors
    /// [`QuantError::GroupScale`] when a scale is beyond 16-bit floats; `name` is for its message.
    ///
    /// # Panics
    /// When `weight` is not of `columns` whole columns, or the format was not
    /// [made](FourBits::new).
    pub fn nearest(
        name: &str,
        format: &FourBits,
        columns: usize,
        weight: &[f32],
    ) -> Result<Self, QuantError> {
        let mut made = Self::blank(format, columns, weight.len());
        for group in 0..made.groups() {
            for column in 0..columns {
                let grid = made.fit(name, weight, group, column)?;
                for term in made.span(group) {
                    let at = term * columns + column;
                    made.codes[at] = grid.code(weight[at]);
                }
            }
        }
        Ok(made)
    }

    /// A table `[rows, width]` with codes rounded to the nearest, in groups along its rows: terms are
    /// the numbers of a row, columns the rows.
    ///
    /// # Errors
    /// As [`Weight4::nearest`].
    ///
    /// # Panics
    /// As [`Weight4::nearest`], for `width`.
    pub fn table(
        name: &str,
        format: &FourBits,
        width: usize,
        table: &[f32],
    ) -> Result<Self, QuantError> {
        assert!(width > 0 && table.len().is_multiple_of(width));
        let columns = (0..width).flat_map(|at| table.iter().skip(at).step_by(width).copied());
        let columns: Vec<f32> = columns.collect();
        Self::nearest(name, format, table.len() / width, &columns)
    }

    /// A weight without codes and scales.
    pub(super) fn blank(format: &FourBits, columns: usize, len: usize) -> Self {
        let (code, group) = (format.code, format.group);
        assert!(group > 0 && columns > 0 && len.is_multiple_of(columns));
        let terms = len / columns;
        let scales = terms.div_ceil(group) * columns;
        Self {
            code,
            group,
            terms,
            columns,
            codes: vec![0; len],
            scales: vec![0; scales],
            zeros: match code {
                Code4::Uint4 => vec![0; scales],
                _ => Vec::new(),
            },
        }
    }

    /// Sets scale and zero point of a group of a column from the weights there.
    pub(super) fn fit(
        &mut self,
        name: &str,
        weight: &[f32],
        group: usize,
        column: usize,
    ) -> Result<Grid, QuantError> {
        let columns = self.columns;
        let weights = self.span(group).map(|term| weight[term * columns + column]);
        let grid = Grid::of(self.code, weights).map_err(|value| QuantError::GroupScale {
            tensor: name.to_owned(),
            value,
        })?;
        let at = group * columns + column;
        self.scales[at] = f32_to_f16(grid.scale);
        if let Some(zero) = self.zeros.get_mut(at) {
            *zero = grid.zero as u8;
        }
        Ok(grid)
    }

    /// The grid of the group in which a term lies.
    pub(super) fn grid(&self, term: usize, column: usize) -> Grid {
        let at = term / self.group * self.columns + column;
        Grid {
            code: self.code,
            scale: f16_to_f32(self.scales[at]),
            zero: match self.code {
                Code4::Int4 => 8.0,
                Code4::Uint4 => f32::from(self.zeros[at]),
                Code4::Nf4 => 0.0,
            },
        }
    }

    pub(super) fn set(&mut self, term: usize, column: usize, code: u8) {
        self.codes[term * self.columns + column] = code;
    }

    /// Takes a column of another weight of the same format and shape.
    pub(super) fn copy_column(&mut self, from: &Self, column: usize) {
        for (to, from) in [
            (&mut self.codes, &from.codes),
            (&mut self.zeros, &from.zeros),
        ] {
            let from = from.iter().skip(column).step_by(self.columns);
            for (to, from) in to.iter_mut().skip(column).step_by(self.columns).zip(from) {
                *to = *from;
            }
        }
        let from = from.scales.iter().skip(column).step_by(self.columns);
        let scales = self.scales.iter_mut().skip(column).step_by(self.columns);
        for (to, from) in scales.zip(from) {
            *to = *from;
        }
    }

    /// Groups of a column.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.terms.div_ceil(self.group)
    }

    /// The terms of a group.
    fn span(&self, group: usize) -> core::ops::Range<usize> {
        let start = group * self.group;
        start..self.terms.min(start + self.group)
    }

    /// What the codes stand for.
    #[must_use]
    pub fn code(&self) -> Code4 {
        self.code
    }

    /// Weights that share a scale.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    /// Terms and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.terms, self.columns]
    }

    /// The codes, `[terms, columns]`, each below 16.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scales, `[groups, columns]`, as the bits of 16-bit floats.
    #[must_use]
    pub fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// The zero points of [`Code4::Uint4`], `[groups, columns]`; else none.
    #[must_use]
    pub fn zeros(&self) -> &[u8] {
        &self.zeros
    }

    /// The weight that the codes stand for, `[terms, columns]`.
    #[must_use]
    pub fn dequantized(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.codes.len()];
        for group in 0..self.groups() {
            for column in 0..self.columns {
                let grid = self.grid(group * self.group, column);
                for term in self.span(group) {
                    let at = term * self.columns + column;
                    values[at] = grid.value(self.codes[at]);
                }
            }
        }
        values
    }

    /// Whether it is of this format and shape.
    pub(crate) fn is(&self, format: &FourBits, terms: usize, columns: usize) -> bool {
        let same = (self.code, self.group) == (format.code, format.group);
        same && self.shape() == [terms, columns]
    }
}

/// Weights of a model in four bits, with their format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights4 {
    /// How they are stored.
    pub format: FourBits,
    /// By the name of the tensor. What is missing is rounded to the nearest.
    pub tensors: BTreeMap<String, Weight4>,
}

/// The units of a model whose weights can be stored in four bits, by name, in the order of
/// computation: dense layers, convolutions but those with one filter per channel, and recurrent
/// layers. The weight that a recurrent layer multiplies its state with is always rounded to the
/// nearest: GPTQ and AWQ look at what goes into a layer, and a state never leaves it.
#[must_use]
pub fn four_bit_units(model: &Model) -> Vec<String> {
    names(model, |op| {
        is_solved(op) || matches!(op, Op::Recurrent { .. })
    })
}

/// Those of them for whose weights GPTQ and AWQ search.
pub(super) fn solved_units(model: &Model) -> Vec<String> {
    names(model, is_solved)
}

fn is_solved(op: &Op) -> bool {
    match op {
        Op::Dense { .. } => true,
        Op::Conv { geometry, .. } => !geometry.is_depthwise(),
        _ => false,
    }
}

fn names(model: &Model, wanted: impl Fn(&Op) -> bool) -> Vec<String> {
    let graph = &model.graph;
    let units = units(graph);
    let wanted = units
        .iter()
        .filter(|unit| wanted(&graph.nodes[unit.node].op));
    wanted
        .map(|unit| graph.values[unit.output].name.clone())
        .collect()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same bits are meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(code: Code4, group: usize) -> FourBits {
        FourBits {
            code,
            group,
            ..FourBits::default()
        }
    }

    /// The table as the paper prints it (appendix E).
    #[test]
    fn nf4_is_the_published_table() {
        let published = "-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, \
            -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0, \
            0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, \
            0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0";
        let published = published.split(", ").map(|text| text.trim().parse::<f32>());
        let published: Vec<f32> = published.map(|value| value.expect("a number")).collect();
        assert_eq!(NF4.to_vec(), published);
    }

    /// The quantiles from which the table is made: probabilities are evenly spaced on either side
    /// of zero, from 0.9677083 down to one half, in eight steps above it and in seven below.
    #[test]
    fn nf4_has_evenly_spaced_quantiles() {
        // Phi^-1(0.9677083), the probability half way between 1 - 1/30 and 1 - 1/32.
        let largest = 1.848_131;
        let phi = |x: f64| 0.5 * libm::erfc(-x / core::f64::consts::SQRT_2);
        assert!((phi(largest) - 0.967_708_3).abs() < 1e-6);
        for (code, quantile) in (0..).zip(NF4) {
            let steps = if code < 7 { 7.0 } else { 8.0 };
            let expected = 0.5 + (f64::from(code) - 7.0) * 0.467_708_3 / steps;
            let found = phi(f64::from(quantile) * largest);
            assert!(
                (found - expected).abs() < 1e-6,
                "{code}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn codes_by_hand() {
        let weight = [0.7, -0.35, 0.05, 0.15, -0.7, 0.649];
        let made = Weight4::nearest("w", &format(Code4::Int4, 16), 1, &weight);
        let made = made.expect("small");
        assert_eq!(made.codes(), [15, 4, 9, 10, 1, 14]);
        // 0.7 / 7 in sixteen bits is a little less than 0.1, so that 0.05 is more than half of it.
        assert_eq!(f16_to_f32(made.scales()[0]), 0.099_975_586);
        assert_eq!(made.dequantized()[4], -7.0 * 0.099_975_586);

        let weight = [-0.5, 0.0, 0.25, 0.5, 3.25];
        let made = Weight4::nearest("w", &format(Code4::Uint4, 16), 1, &weight).expect("small");
        assert_eq!(f16_to_f32(made.scales()[0]), 0.25);
        assert_eq!(
            (made.zeros(), made.codes()),
            (&[2][..], &[0, 2, 3, 4, 15][..])
        );
        assert_eq!(made.dequantized(), weight);

        let weight = [-2.0, 0.1, 1.4, 2.0, 0.0];
        let made = Weight4::nearest("w", &format(Code4::Nf4, 16), 1, &weight).expect("small");
        assert_eq!(made.codes(), [0, 8, 14, 15, 7]);
        assert_eq!(made.dequantized()[1], 0.079_580_3 * 2.0);
    }

    /// Two columns of seventeen terms have groups of sixteen and of one each.
    #[test]
    fn the_last_group_is_shorter() {
        let weight: Vec<f32> = (0..34u8).map(|at| f32::from(at % 2) + 1.0).collect();
        for code in Code4::ALL {
            let made = Weight4::nearest("w", &format(code, 16), 2, &weight).expect("small");
            assert_eq!((made.groups(), made.shape()), (2, [17, 2]));
            assert_eq!(made.scales().len(), 4);
            let back = made.dequantized();
            assert!(back.iter().zip(&weight).all(|(a, b)| (a - b).abs() < 1e-3));
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for code in Code4::ALL {
            for tiny in [0.0, 1e-30, -1e-9] {
                let weight = [tiny, 0.0, -tiny, 0.0];
                let made = Weight4::nearest("w", &format(code, 16), 2, &weight).expect("small");
                assert_eq!(made.dequantized(), [0.0; 4], "{} {tiny}", code.name());
            }
        }
    }

    proptest! {
        /// A weight is at most half of a step from what its code stands for (and, where the scale
        /// was rounded down, what its rounding took away), and rounding again changes nothing of
        /// `int4` once the largest code is there.
        #[test]
        fn weights_are_within_half_a_step(
            weight in proptest::collection::vec(-3.0f32..3.0, 80),
            columns in prop_oneof![Just(1usize), Just(2), Just(5)],
        ) {
            for code in Code4::ALL {
                let made = Weight4::nearest("w", &format(code, 16), columns, &weight).expect("small");
                let back = made.dequantized();
                for (at, (w, b)) in weight.iter().zip(&back).enumerate() {
                    let grid = made.grid(at / columns, at % columns);
                    let widest = match code {
                        Code4::Nf4 => 0.152 * grid.scale,
                        _ => 0.5 * grid.scale,
                    };
                    let rounding = 16.0 * grid.scale / 2048.0;
                    prop_assert!((w - b).abs() <= widest + rounding, "{} for {}", b, w);
                }
                if code == Code4::Int4 {
                    let again = Weight4::nearest("w", &format(code, 16), columns, &back).expect("small");
                    prop_assert_eq!(again.dequantized(), back);
                }
            }
        }
    }
}
