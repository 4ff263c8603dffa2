//! The C interface with arguments that are wrong: each is an error with a message.

use std::ptr::{null, null_mut};

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::file::{write_parameters, write_program};
use fl_edge::{Model, ModelDef, Numerics, Passes, Program};
use fledgling_edge::Plan;
use fledgling_edge::ffi::*;

const PLAN: Plan = Plan {
    learning_rate: 0.1,
    momentum: 0.0,
    weight_decay: 0.0,
    proximal_mu: 0.0,
    max_gradient_norm: 0.0,
    round: 1,
    seed: 0,
    client: 0,
};

/// A program and the parameters that it was compiled from.
fn files() -> [Vec<u8>; 2] {
    let def = ModelDef::named("logreg").expect("a model of the zoo");
    let input = InputSpec::Real(vec![8, 8, 1]);
    let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 }).expect("a model");
    let model = std::sync::Arc::new(model);
    let mut start = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
    let parameters = model.init(&mut start);
    let passes = Passes::default();
    let program = Program::compile(&model, parameters.values(), &Numerics::F32, passes);
    let mut files = [Vec::new(), Vec::new()];
    write_program(&program.expect("a program"), &mut files[0]).expect("a file");
    write_parameters(&model, &parameters, &mut files[1]).expect("a file");
    files
}

#[test]
fn an_object_serves_and_another_learns() {
    let [program, parameters] = files();
    let mut error = FlError::default();
    let x: Vec<f32> = (0..128).map(|i| (i % 7) as f32 / 6.0).collect();
    // SAFETY: the lengths are those of the vectors.
    unsafe {
        let model = fl_model_open(program.as_ptr(), program.len(), 1, &mut error);
        assert!(!model.is_null(), "{}", error.message());
        assert_eq!(
            (fl_model_input_len(model), fl_model_output_len(model)),
            (64, 10)
        );
        assert_eq!(fl_model_vocabulary(model), 0);
        let mut y = [0.0; 20];
        assert_eq!(
            fl_model_run(model, x.as_ptr(), 2, y.as_mut_ptr(), &mut error),
            FlStatus::Ok
        );
        assert!(y.iter().any(|&y| y != 0.0));
        // Parameters are served, too, to the same numbers.
        let other = fl_model_open(parameters.as_ptr(), parameters.len(), 0, &mut error);
        let mut z = [0.0; 20];
        fl_model_run(other, x.as_ptr(), 2, z.as_mut_ptr(), &mut error);
        assert_eq!(y.map(f32::to_bits), z.map(f32::to_bits));
        fl_model_close(model);
        fl_model_close(other);

        let trainer = fl_trainer_open(parameters.as_ptr(), parameters.len(), &mut error);
        let length = fl_trainer_parameters(trainer);
        assert_eq!(length, 650);
        let mut update = vec![0.0; length];
        let labels = [3, 4];
        let mut losses = [0.0; 2];
        assert_eq!(
            fl_trainer_begin(trainer, &PLAN, 2, &mut error),
            FlStatus::Ok
        );
        for loss in &mut losses {
            let (x, labels) = (x.as_ptr(), labels.as_ptr());
            assert_eq!(
                fl_trainer_step(trainer, x, labels, 2, loss, &mut error),
                FlStatus::Ok
            );
        }
        assert!(losses[1] < losses[0], "{losses:?}");
        fl_trainer_update(trainer, update.as_mut_ptr(), length, &mut error);
        assert!(update.iter().any(|&value| value != 0.0));
        fl_trainer_close(trainer);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let [program, parameters] = files();
    let mut damaged = program.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    let mut error = FlError::default();
    let mut y = [0.0; 10];
    let x = [0.5; 64];
    let check = |error: &FlError, status: FlStatus, part: &str| {
        let message = error.message();
        assert!(
            error.status() == status as i32 && message.contains(part),
            "{} {message}",
            error.status()
        );
    };
    // SAFETY: the lengths are those of the vectors, or the pointers are null.
    unsafe {
        for (bytes, length, status, part) in [
            (null(), 5, FlStatus::Argument, "bytes is a null pointer"),
            (program.as_ptr(), 0, FlStatus::File, "the model file: "),
            (program.as_ptr(), 100, FlStatus::File, "the model file: "),
            (
                damaged.as_ptr(),
                damaged.len(),
                FlStatus::File,
                "the model file: ",
            ),
        ] {
            assert!(fl_model_open(bytes, length, 1, &mut error).is_null());
            check(&error, status, part);
            assert!(fl_model_open(bytes, length, 1, null_mut()).is_null());
        }
        assert!(fl_trainer_open(program.as_ptr(), program.len(), &mut error).is_null());
        check(&error, FlStatus::File, "parameters");

        let model = fl_model_open(program.as_ptr(), program.len(), 1, &mut error);
        fl_model_run(null_mut(), x.as_ptr(), 1, y.as_mut_ptr(), &mut error);
        check(&error, FlStatus::Argument, "model is a null pointer");
        fl_model_run(model, null(), 1, y.as_mut_ptr(), &mut error);
        check(&error, FlStatus::Argument, "inputs is a null pointer");
        fl_model_run(model, x.as_ptr(), 1, null_mut(), &mut error);
        check(&error, FlStatus::Argument, "outputs is a null pointer");
        fl_model_run(
            model,
            x.as_ptr(),
            usize::MAX / 3,
            y.as_mut_ptr(),
            &mut error,
        );
        check(&error, FlStatus::Argument, "inputs");
        let token = [0; 64];
        fl_model_run_tokens(model, token.as_ptr(), 1, y.as_mut_ptr(), &mut error);
        check(&error, FlStatus::Argument, "takes real numbers");
        // None is no error.
        assert_eq!(
            fl_model_run(model, null(), 0, null_mut(), &mut error),
            FlStatus::Ok
        );
        fl_model_close(model);
        fl_model_close(null_mut());
        assert_eq!(fl_model_input_len(null()), 0);

        let trainer = fl_trainer_open(parameters.as_ptr(), parameters.len(), &mut error);
        let (label, wrong) = ([3], [10]);
        let (x, mut loss) = (x.as_ptr(), 0.0);
        fl_trainer_step(trainer, x, label.as_ptr(), 1, &mut loss, &mut error);
        check(&error, FlStatus::Argument, "call `fl_trainer_begin` first");
        for (key, plan) in [
            (
                "learning_rate",
                Plan {
                    learning_rate: -1.0,
                    ..PLAN
                },
            ),
            (
                "learning_rate",
                Plan {
                    learning_rate: f32::NAN,
                    ..PLAN
                },
            ),
            (
                "momentum",
                Plan {
                    momentum: 1.0,
                    ..PLAN
                },
            ),
            (
                "proximal_mu",
                Plan {
                    proximal_mu: -0.1,
                    ..PLAN
                },
            ),
        ] {
            fl_trainer_begin(trainer, &plan, 1, &mut error);
            check(&error, FlStatus::Argument, key);
        }
        fl_trainer_begin(trainer, null(), 1, &mut error);
        check(&error, FlStatus::Argument, "plan is a null pointer");
        fl_trainer_begin(trainer, &PLAN, 1, &mut error);
        fl_trainer_step(trainer, x, wrong.as_ptr(), 1, &mut loss, &mut error);
        check(&error, FlStatus::Example, "label 10");
        // Its parameters cannot be used, until it begins again.
        let mut update = vec![0.0; 650];
        fl_trainer_update(trainer, update.as_mut_ptr(), 650, &mut error);
        check(&error, FlStatus::Argument, "first");
        fl_trainer_begin(trainer, &PLAN, 1, &mut error);
        let status = fl_trainer_step(trainer, x, label.as_ptr(), 1, null_mut(), &mut error);
        assert_eq!(status, FlStatus::Ok);
        fl_trainer_update(trainer, update.as_mut_ptr(), 649, &mut error);
        check(
            &error,
            FlStatus::Argument,
            "649 values where the model has 650",
        );
        fl_trainer_close(trainer);
    }
}

/// The header declares what there is, and nothing else.
#[test]
fn header_and_library_have_the_same_functions() {
    let names = |text: &str, before: &str| {
        let mut names: Vec<String> = text
            .split(before)
            .skip(1)
            .filter_map(|rest| rest.split_once('(').map(|(name, _)| format!("fl_{name}")))
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .collect();
        names.sort();
        names.dedup();
        names
    };
    let source = include_str!("../src/ffi.rs");
    let exported: Vec<String> = names(source, "extern \"C\" fn fl_");
    let header = include_str!("../include/fledgling.h");
    // Not those that a comment mentions.
    let code: String = (header.lines())
        .filter(|line| !line.starts_with("/*") && !line.starts_with(" *"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(names(&code, "fl_"), exported);
    assert!(exported.len() >= 14, "{exported:?}");
}
