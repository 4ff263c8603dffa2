//! Mixed precision: the fewest units that must stay in floats.
//!
//! Few units of a network lose most of what is lost in eight bits: the first and the last, and
//! those with outliers. [`sensitivities`] measures each alone, everything else in floats;
//! [`fewest_floats`] puts the worst ones into floats, one by one, until the model is good enough,
//! and then takes back each one that was not needed. Whether the model is good enough is always
//! measured on the whole model, never predicted from the parts.
//!
//! The search is the accuracy-driven fallback of Intel's Neural Compressor (2.x, "tuning
//! strategies", `basic`, fallback of op types by sensitivity) with a measure that needs no labels.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::samples::Samples;
use super::{Float, Quantization};
use crate::graph::units;
use crate::model::Model;
use crate::program::{Numerics, Passes, Program, ProgramError};

/// What one unit loses in eight bits.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sensitivity {
    /// The unit, by the name of its output: a key of [`Quantization::float_units`].
    pub unit: String,
    /// Power of the outputs' error over power of the outputs when this unit alone is in integers:
    /// the reciprocal of the ratio of signal to quantization noise. 0 is no loss.
    pub noise: f64,
}

/// What [`fewest_floats`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct MixedPrecision {
    /// With the units that stay in floats.
    pub quantization: Quantization,
    /// Its score.
    pub score: f64,
    /// Whether the score is what was asked for.
    pub reached: bool,
}

/// The units that can be in integers and round something there, by name.
#[must_use]
pub fn integer_units(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    let units = units(graph);
    let rounding = units
        .iter()
        .filter(|unit| unit.is_integer(graph) && !unit.passes_on(graph));
    rounding
        .map(|unit| graph.values[unit.output].name.clone())
        .collect()
}

fn program(
    model: &Arc<Model>,
    parameters: &[f32],
    quantization: &Quantization,
) -> Result<Program, ProgramError> {
    let numerics = Numerics::Int8(quantization.clone());
    Program::compile(model, parameters, &numerics, Passes::ALL)
}

/// What each unit loses when it alone is in integers, the worst first; equal ones in the order of
/// computation.
///
/// # Errors
/// [`ProgramError`] when the parameters or the quantization are not the model's.
pub fn sensitivities(
    model: &Arc<Model>,
    parameters: &[f32],
    quantization: &Quantization,
    samples: &Samples<'_>,
) -> Result<Vec<Sensitivity>, ProgramError> {
    let exact = Program::compile(model, parameters, &Numerics::F32, Passes::ALL)?;
    let exact = samples.outputs(exact)?;
    let power: f64 = exact.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
    let units = integer_units(model);
    let mut found = Vec::with_capacity(units.len());
    for unit in &units {
        let others = units.iter().filter(|other| *other != unit);
        let alone = Quantization {
            float_units: others.map(|other| (other.clone(), Float::F32)).collect(),
            ..quantization.clone()
        };
        let outputs = samples.outputs(program(model, parameters, &alone)?)?;
        let error = outputs.iter().zip(&exact).map(|(&found, &exact)| {
            let off = f64::from(found) - f64::from(exact);
            off * off
        });
        let error: f64 = error.sum();
        found.push(Sensitivity {
            unit: unit.clone(),
            noise: if error == 0.0 { 0.0 } else { error / power },
        });
    }
    found.sort_by(|a, b| b.noise.total_cmp(&a.noise));
    Ok(found)
}

/// The quantization with the fewest units in `float` whose score is at least `wanted`: greedily,
/// the most sensitive first, and then without each one that is not needed. Units that the given
/// quantization already keeps in floats stay there. A unit with weights that no 16-bit float holds
/// goes to `f32`, whatever `float` is.
///
/// `score` judges a whole program, for instance [`Samples::accuracy`]; higher is better. Where
/// not even all units in floats are enough, that is what is returned, with `reached` false.
///
/// # Errors
/// [`ProgramError`] when the parameters or the quantization are not the model's.
pub fn fewest_floats(
    model: &Arc<Model>,
    parameters: &[f32],
    quantization: &Quantization,
    samples: &Samples<'_>,
    float: Float,
    wanted: f64,
    score: &mut dyn FnMut(Program) -> f64,
) -> Result<MixedPrecision, ProgramError> {
    let mut judge = |float_units: &BTreeMap<String, Float>| {
        let quantization = Quantization {
            float_units: float_units.clone(),
            ..quantization.clone()
        };
        Ok::<_, ProgramError>(score(program(model, parameters, &quantization)?))
    };
    let kept = &quantization.float_units;
    let mut floats = kept.clone();
    let mut best = judge(&floats)?;
    if best < wanted {
        let order = sensitivities(model, parameters, quantization, samples)?;
        let mut chosen = Vec::new();
        for Sensitivity { unit, .. } in order {
            if best >= wanted {
                break;
            }
            if !kept.contains_key(&unit) {
                floats.insert(unit.clone(), float);
                best = match judge(&floats) {
                    Err(ProgramError::BeyondHalf { .. }) => {
                        floats.insert(unit.clone(), Float::F32);
                        judge(&floats)?
                    }
                    judged => judged?,
                };
                chosen.push(unit);
            }
        }
        // The last one made the difference; perhaps an earlier one makes none without it.
        if best >= wanted {
            for unit in chosen.iter().rev().skip(1) {
                let mut without = floats.clone();
                without.remove(unit);
                let score = judge(&without)?;
                if score >= wanted {
                    (floats, best) = (without, score);
                }
            }
        }
    }
    Ok(MixedPrecision {
        quantization: Quantization {
            float_units: floats,
            ..quantization.clone()
        },
        score: best,
        reached: best >= wanted,
    })
}
