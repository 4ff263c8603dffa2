//! Batches that pass a program in parts give the bits of examples that pass it one by one.

use std::sync::Arc;

use fl_core::{InputSpec, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::zoo::MobilenetV2;
use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};

use crate::common::{Case, operators};
use crate::program::{trained, zoo};

/// Every cache gives stretches of other sizes, the smallest one example at a time.
fn check(case: &Case, rows: usize) {
    let (data, parameters) = (case.data(rows), trained(&case.model));
    let inputs = match data.tokens.is_empty() {
        true => Inputs::Real(&data.reals),
        false => Inputs::Tokens(&data.tokens),
    };
    for passes in [Passes::ALL, Passes::NONE] {
        for numerics in [Numerics::F32, Numerics::F16] {
            let program = Program::compile(&case.model, &parameters, &numerics, passes);
            let program = Arc::new(program.expect("compiles"));
            let run = |most: usize, cache: usize| -> Vec<u32> {
                let mut outputs = vec![f32::NAN; rows * program.output_len()];
                let program = Arc::clone(&program);
                Runner::for_cache(program, most, Kernels::best(), cache).run(inputs, &mut outputs);
                outputs.iter().map(|y| y.to_bits()).collect()
            };
            let expected = run(1, usize::MAX);
            for most in [rows, rows - 2] {
                for cache in [1, 3_000, 20_000, 100_000, usize::MAX] {
                    let found = run(most, cache);
                    assert_eq!(found, expected, "{}: {most} in {cache} bytes", case.name);
                }
            }
        }
    }
}

#[test]
fn parts_of_a_batch_change_no_bit() {
    for case in operators().iter().chain(&zoo()) {
        check(case, 7);
    }
}

/// The arena of a batch holds a few images' first layers, not all of them.
#[test]
fn a_batch_of_large_images_takes_little_memory() {
    let def = ModelDef::MobilenetV2(MobilenetV2 {
        width: 0.5,
        ..MobilenetV2::default()
    });
    let (input, target) = (
        InputSpec::Real(vec![96, 96, 3]),
        TargetSpec::Class { classes: 10 },
    );
    let model = Arc::new(Model::new(&def, &input, target).expect("builds"));
    let parameters = trained(&model);
    let program = Program::compile(&model, &parameters, &Numerics::F32, Passes::ALL);
    let program = program.expect("compiles");
    let (one, many) = (program.memory(1).arena, program.memory(32).arena);
    assert!(many < 8 * one, "{many} for 32, {one} for one");
}
