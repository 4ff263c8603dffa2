//! Weights in 16-bit floats: what they are exactly, how far they are from 32 bits, and where
//! they end.

use std::sync::Arc;

use fl_edge::kernel::{Kernels, f16_to_f32, f32_to_f16};
use fl_edge::{DType, Model, Numerics, Passes, Program, ProgramError};

use crate::common::operators;
use crate::program::{bits, outputs, trained, zoo};

/// Batch normalisations stay apart, so that the weights that are rounded are the parameters.
const UNFOLDED: Passes = Passes {
    fold_batch_norm: false,
    ..Passes::ALL
};

fn compile(model: &Arc<Model>, parameters: &[f32], numerics: &Numerics) -> Arc<Program> {
    Arc::new(Program::compile(model, parameters, numerics, UNFOLDED).expect("compiles"))
}

/// The tensors that a program stores in 16 bits.
fn halves(program: &Program) -> Vec<&str> {
    let sections = program.constants().sections().iter();
    let halves = sections.filter(|section| section.dtype == DType::F16);
    halves.map(|section| section.name.as_str()).collect()
}

/// The law of `Numerics::F16`, with every set of kernels.
#[test]
fn halves_are_the_f32_program_of_rounded_weights() {
    const ROWS: usize = 3;
    for case in operators().iter().chain(&zoo()) {
        let (data, parameters) = (case.data(ROWS), trained(&case.model));
        let program = compile(&case.model, &parameters, &Numerics::F16);
        let mut rounded = parameters.clone();
        for name in halves(&program) {
            let tensor = case.model.layout().tensors().iter();
            let mut tensor = tensor.filter(|tensor| tensor.name == name);
            for value in &mut rounded[tensor.next().expect("of the layout").range()] {
                *value = f16_to_f32(f32_to_f16(*value));
            }
        }
        let reference = compile(&case.model, &rounded, &Numerics::F32);
        for kernels in Kernels::all_available() {
            let found = outputs(&program, &data, ROWS, ROWS, kernels);
            let expected = outputs(&reference, &data, ROWS, ROWS, kernels);
            assert_eq!(
                bits(&found),
                bits(&expected),
                "{}: {}",
                case.name,
                kernels.name()
            );
        }
    }
}

/// A weight is rounded by at most 2^-11 of itself, so each product adds an error of at most about
/// so much of its output in the root mean square (the errors of its terms do not conspire), and a
/// network of `n` products `n` times as much.
#[test]
fn halves_are_as_near_as_their_rounding() {
    const ROWS: usize = 8;
    for case in zoo() {
        let (data, parameters) = (case.data(ROWS), trained(&case.model));
        let run = |numerics| {
            let program = compile(&case.model, &parameters, &numerics);
            let found = outputs(&program, &data, ROWS, ROWS, Kernels::best());
            (halves(&program).len(), found)
        };
        let (_, exact) = run(Numerics::F32);
        let (products, found) = run(Numerics::F16);
        let power = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|y| f64::from(y) * f64::from(y)).sum()
        };
        let error = power(&mut found.iter().zip(&exact).map(|(a, b)| a - b));
        let relative = libm::sqrt(error / power(&mut exact.iter().copied()));
        let bound = products as f64 / 2048.0;
        println!("{}: {relative:.2e} of {bound:.2e}", case.name);
        assert!(relative > 0.0, "{}: nothing was rounded", case.name);
        assert!(relative <= bound, "{}: {relative} of {bound}", case.name);
    }
}

/// 65504 is the largest number of binary16; below 65520 numbers round to it, and from there on to
/// an infinity, which would give no number at all.
#[test]
fn weights_beyond_sixteen_bits_are_refused() {
    for case in zoo() {
        let parameters = trained(&case.model);
        let program = compile(&case.model, &parameters, &Numerics::F16);
        let name = halves(&program)[0].to_owned();
        let tensors = case.model.layout().tensors().iter();
        let mut tensors = tensors.filter(|tensor| tensor.name == name);
        let at = tensors.next().expect("of the layout").range().start + 1;
        for (weight, fits) in [
            (65504.0, true),
            (-65519.0, true),
            (65520.0, false),
            (-1e6, false),
        ] {
            let mut parameters = parameters.clone();
            parameters[at] = weight;
            let compile = |numerics| {
                let program = Program::compile(&case.model, &parameters, &numerics, UNFOLDED);
                program.map(|_| ())
            };
            let expected = match fits {
                true => Ok(()),
                false => Err(ProgramError::BeyondHalf {
                    tensor: name.clone(),
                    value: weight,
                }),
            };
            assert_eq!(compile(Numerics::F16), expected, "{}: {weight}", case.name);
            assert_eq!(compile(Numerics::F32), Ok(()), "{}: {weight}", case.name);
        }
    }
}
