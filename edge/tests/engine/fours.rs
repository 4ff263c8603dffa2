//! Weights in four bits: what they are exactly, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_edge::kernel::{Kernels, f16_to_f32, f32_to_f16};
use fl_edge::quant::{
    Code4, Float, FourBits, QuantError, Scope, Weight4, Weight8, Weights4, four_bit_units,
};
use fl_edge::{DType, Model, Numerics, Packing, Passes, Program, ProgramError};

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

/// The parameters that a program in four bits computes with.
fn rounded(program: &Program, parameters: &[f32], format: &FourBits) -> Vec<f32> {
    let mut rounded = parameters.to_vec();
    for section in program.constants().sections() {
        let tensors = program.model().layout().tensors().iter();
        let Some(tensor) = tensors.clone().find(|tensor| tensor.name == section.name) else {
            continue;
        };
        let values = &mut rounded[tensor.range()];
        if section.packing == Packing::Nibbles16 {
            let columns = *tensor.shape.last().expect("a weight");
            let made = Weight4::nearest(&tensor.name, format, columns, values);
            values.copy_from_slice(&made.expect("small numbers").dequantized());
        } else if section.packing == Packing::NibbleRows {
            // Scales of a row: groups along its width.
            let width = *tensor.shape.last().expect("a table");
            for row in values.chunks_exact_mut(width) {
                let made = Weight4::nearest(&tensor.name, format, 1, row);
                row.copy_from_slice(&made.expect("small numbers").dequantized());
            }
        } else if section.dtype == DType::I8 {
            let columns = *tensor.shape.last().expect("a weight");
            let made = Weight8::nearest(&tensor.name, columns, values);
            values.copy_from_slice(&made.expect("small numbers").dequantized());
        } else if section.dtype == DType::F16 {
            for value in values {
                *value = f16_to_f32(f32_to_f16(*value));
            }
        }
    }
    rounded
}

/// The law of `Numerics::Int4`, with every set of kernels: the program is that in `f32` of the
/// weights that the codes stand for.
#[test]
fn four_bits_are_the_f32_program_of_what_they_stand_for() {
    const ROWS: usize = 3;
    for (index, case) in operators().iter().chain(&zoo()).enumerate() {
        let (data, parameters) = (case.data(ROWS), trained(&case.model));
        for (at, code) in Code4::ALL.into_iter().enumerate() {
            let group = [16, 32, 64, 128][(index + at) % 4];
            let mut format = FourBits::new(code, group).expect("a group");
            if (index + at).is_multiple_of(5) {
                format.scope = Scope::Products;
            }
            let program = compile(&case.model, &parameters, &Numerics::Int4(format.clone()));
            let rounded = rounded(&program, &parameters, &format);
            let reference = compile(&case.model, &rounded, &Numerics::F32);
            let sections = program.constants().sections().iter();
            let four = sections.filter(|section| section.packing == Packing::Nibbles16);
            assert_eq!(four.count(), four_bit_units(&case.model).len());
            for kernels in Kernels::all_available() {
                let found = outputs(&program, &data, ROWS, ROWS, kernels);
                let expected = outputs(&reference, &data, ROWS, ROWS, kernels);
                let what = format!("{} {} {}", case.name, code.name(), kernels.name());
                assert_eq!(bits(&found), bits(&expected), "{what}");
            }
        }
    }
}

/// Codes that were found before are served as they are, and a unit may stay in floats.
#[test]
fn given_codes_and_units_in_floats() {
    let case = zoo().into_iter().find(|case| case.name == "cnn-fedavg");
    let case = case.expect("of the zoo");
    let (data, parameters) = (case.data(2), trained(&case.model));
    let units = four_bit_units(&case.model);
    assert_eq!(units.len(), 4);
    let format = FourBits {
        float_units: BTreeMap::from([(units[3].clone(), Float::F32)]),
        ..FourBits::default()
    };
    // The weights of another model of the same shape.
    let other: Vec<f32> = parameters.iter().map(|w| 0.5 - 2.0 * w).collect();
    let mut tensors = BTreeMap::new();
    let mut expected = parameters.clone();
    for tensor in case.model.layout().tensors() {
        if tensor.name.starts_with(&units[3]) {
            continue;
        }
        if tensor.shape.len() == 1 {
            for bias in &mut expected[tensor.range()] {
                *bias = f16_to_f32(f32_to_f16(*bias));
            }
        } else {
            let columns = *tensor.shape.last().expect("a weight");
            let made = Weight4::nearest("", &format, columns, &other[tensor.range()]);
            let made = made.expect("small numbers");
            expected[tensor.range()].copy_from_slice(&made.dequantized());
            tensors.insert(tensor.name.clone(), made);
        }
    }
    assert_eq!(tensors.len(), 3, "the last layer keeps its floats");
    let weights = Weights4 { format, tensors };
    let compile = |weights: &Weights4| {
        Program::compile_four(&case.model, &parameters, weights, Passes::ALL).map(Arc::new)
    };
    let run = |program: &Arc<Program>| bits(&outputs(program, &data, 2, 2, Kernels::best()));
    let reference = Program::compile(&case.model, &expected, &Numerics::F32, Passes::ALL);
    assert_eq!(
        run(&compile(&weights).expect("compiles")),
        run(&Arc::new(reference.expect("compiles")))
    );

    let mut foreign = weights.clone();
    foreign.format.group = 32;
    let error = compile(&foreign).expect_err("of another group");
    let quant = |error| match error {
        ProgramError::Quantization(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(quant(error), QuantError::Foreign { .. }));
    let mut unknown = weights;
    let taken = unknown.tensors.pop_first().expect("three").1;
    unknown.tensors.insert("nobody".to_owned(), taken);
    let error = quant(compile(&unknown).expect_err("of no layer"));
    let name = "nobody".to_owned();
    assert_eq!(error, QuantError::UnknownTensor { name });
}

#[test]
fn formats_that_cannot_be_are_refused() {
    let case = &zoo()[0];
    let parameters = trained(&case.model);
    for group in [0, 1, 8, 48, 2048, usize::MAX] {
        let format = FourBits {
            group,
            ..FourBits::default()
        };
        let numerics = Numerics::Int4(format);
        let error = Program::compile(&case.model, &parameters, &numerics, Passes::ALL);
        let text = error.expect_err("no group").to_string();
        assert!(text.contains("power of two from 16 to 1024"), "{text}");
    }
    // A weight of 5e5 needs a scale of 71429 in int4, and of half that in uint4.
    let mut parameters = parameters;
    parameters[3] = 5e5;
    for (code, fits) in [
        (Code4::Int4, false),
        (Code4::Uint4, true),
        (Code4::Nf4, false),
    ] {
        let numerics = Numerics::Int4(FourBits::new(code, 64).expect("a group"));
        let made = Program::compile(&case.model, &parameters, &numerics, Passes::ALL);
        assert_eq!(made.is_ok(), fits, "{}", code.name());
        if let Err(error) = made {
            let text = error.to_string();
            assert!(text.contains(".weight") && text.contains("65504"), "{text}");
        }
    }
    let format = FourBits {
        float_units: BTreeMap::from([("nobody".to_owned(), Float::F16)]),
        ..FourBits::default()
    };
    let made = Program::compile(
        &case.model,
        &parameters,
        &Numerics::Int4(format),
        Passes::ALL,
    );
    assert!(matches!(made, Err(ProgramError::UnknownUnit { .. })));
}
