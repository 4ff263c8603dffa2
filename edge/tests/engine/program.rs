//! Programs compute what sessions compute, whatever is joined.

use std::sync::Arc;

use fl_core::{InputSpec, Optimizer, ServedModel as _, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::quant::FourBits;
use fl_edge::{
    Inputs, LayersDef, MODELS, Model, ModelDef, Numerics, Passes, Program, ProgramError, Runner,
    Served, Session, Step,
};
use proptest::prelude::*;

use crate::allocations::{held, measured};
use crate::common::{Case, Synthetic, operators, stream};

/// Parameters as after some training: none is zero or one, and running statistics are those of
/// data.
pub(crate) fn trained(model: &Arc<Model>) -> Vec<f32> {
    let mut random = stream(17);
    let mut parameters = model.init(&mut random);
    for value in parameters.values_mut() {
        *value += (0.1 * *value + 0.01) * random.normal() as f32;
    }
    if model.trained_parameters() == model.parameters() {
        return parameters.values().to_vec();
    }
    let data = Synthetic::new(model.input(), model.target(), 8, 5);
    let mut session = Session::new(Arc::clone(model), Kernels::best());
    session.start(parameters.values(), &Optimizer::SGD, 8);
    let step = Step {
        optimizer: Optimizer::SGD,
        rate: 0.0,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: parameters.values(),
    };
    for _ in 0..40 {
        let loss = session.step(&data, &[0, 1, 2, 3, 4, 5, 6, 7], &step, &mut random);
        assert!(loss.expect("examples of the model").is_finite());
    }
    session.weights().to_vec()
}

/// Every model of the zoo for an input that it is known for.
pub(crate) fn zoo() -> Vec<Case> {
    let cases = MODELS.iter().map(|&(kind, _)| {
        let def = ModelDef::named(kind).expect("of the zoo");
        let shapes = [vec![28, 28, 1], vec![32, 32, 3]];
        let mut models = shapes.into_iter().rev().filter_map(|shape| {
            let target = TargetSpec::Class { classes: 10 };
            Model::new(&def, &InputSpec::Real(shape), target).ok()
        });
        let known = || {
            let (input, target) = def.example()?;
            Model::new(&def, &input, target).ok()
        };
        let model = models.next().or_else(known).expect("builds");
        Case {
            name: kind,
            def: def.clone(),
            model: Arc::new(model),
        }
    });
    cases.collect()
}

pub(crate) fn inputs(data: &Synthetic) -> Inputs<'_> {
    match data.tokens.is_empty() {
        true => Inputs::Real(&data.reals),
        false => Inputs::Tokens(&data.tokens),
    }
}

pub(crate) fn outputs(
    program: &Arc<Program>,
    data: &Synthetic,
    rows: usize,
    most: usize,
    kernels: &'static Kernels,
) -> Vec<f32> {
    let mut outputs = vec![f32::NAN; rows * program.output_len()];
    Runner::with_kernels(Arc::clone(program), most, kernels).run(inputs(data), &mut outputs);
    outputs
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn has_batch_norm(case: &Case) -> bool {
    case.model
        .summary()
        .iter()
        .any(|layer| layer.kind == "batch-norm")
}

/// What every program of a model must hold.
fn check(case: &Case) {
    const ROWS: usize = 5;
    let name = case.name;
    let (data, parameters) = (case.data(ROWS), trained(&case.model));
    let compile = |passes| {
        let program = Program::compile(&case.model, &parameters, &Numerics::F32, passes);
        Arc::new(program.expect("compiles"))
    };
    let mut session = Session::new(Arc::clone(&case.model), Kernels::best());
    session.start(&parameters, &Optimizer::SGD, ROWS);
    let expected = session
        .outputs(&data, &[0, 1, 2, 3, 4])
        .expect("examples of the model");
    let unfused = compile(Passes::NONE);
    let all = compile(Passes::ALL);
    let plain = outputs(&unfused, &data, ROWS, ROWS, Kernels::best());
    assert_eq!(bits(&plain), bits(&expected), "{name}: as a session");
    // Fifty-two folded normalisations one after the other are a little farther.
    let near = match name {
        "mobilenet-v2" => 2e-5,
        _ => 1e-5,
    };
    let scale = plain.iter().fold(1e-3f32, |most, y| most.max(y.abs()));
    for passes in Passes::combinations() {
        let program = compile(passes);
        let found = outputs(&program, &data, ROWS, ROWS, Kernels::best());
        let far = |(a, b): (&f32, &f32)| (a - b).abs() > near * scale;
        assert!(
            !found.iter().zip(&plain).any(far),
            "{name}: {passes:?}: {found:?} for {plain:?}"
        );
        if !(passes.fold_batch_norm && has_batch_norm(case)) {
            assert_eq!(bits(&found), bits(&plain), "{name}: {passes:?}");
        }
        assert!(program.steps() <= unfused.steps(), "{name}: {passes:?}");
        let memory = program.memory(ROWS);
        assert!(memory.steps.iter().all(|step| step.live <= memory.arena));
    }
    let first = outputs(&all, &data, ROWS, ROWS, Kernels::best());
    for kernels in Kernels::all_available() {
        for most in [1, 2, ROWS] {
            let found = outputs(&all, &data, ROWS, most, kernels);
            assert_eq!(bits(&found), bits(&first), "{name}: {}", kernels.name());
        }
    }
    let [all, unfused] = [all, unfused].map(|program| program.memory(ROWS).arena);
    assert!(
        name == "random" || all <= unfused,
        "{name}: {all} of {unfused}"
    );
}

#[test]
fn every_operator_with_every_pass() {
    for case in operators() {
        check(&case);
    }
}

#[test]
fn every_model_with_every_pass() {
    for case in zoo() {
        check(&case);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn random_models_with_every_pass(
        layers in crate::stacks::layers(),
        size in [1usize..8, 1usize..8],
        channels in 1usize..4,
    ) {
        let input = InputSpec::Real(vec![size[0], size[1], 2 * channels]);
        let def = ModelDef::Layers(LayersDef { layer: layers, loss: None });
        if let Ok(model) = Model::new(&def, &input, TargetSpec::Class { classes: 3 }) {
            check(&Case { name: "random", def, model: Arc::new(model) });
        }
    }
}

/// Constants are all that a program needs beside its model; those of another are refused.
#[test]
fn constants_make_the_program_again() {
    let case = &zoo()[0];
    let parameters = trained(&case.model);
    let program =
        Program::compile(&case.model, &parameters, &Numerics::F32, Passes::ALL).expect("compiles");
    let constants = program.constants().clone();
    let again =
        Program::from_constants(&case.model, constants, &Numerics::F32, Passes::ALL).expect("fits");
    let data = case.data(3);
    let run = |program| outputs(&Arc::new(program), &data, 3, 3, Kernels::best());
    let other = &zoo()[1];
    let wrong = Program::from_constants(
        &other.model,
        program.constants().clone(),
        &Numerics::F32,
        Passes::ALL,
    );
    assert!(matches!(
        wrong,
        Err(ProgramError::Sections { .. } | ProgramError::Section { .. })
    ));
    assert_eq!(bits(&run(again)), bits(&run(program)));
}

#[test]
fn bad_parameters_are_refused() {
    let case = &zoo()[0];
    let mut parameters = trained(&case.model);
    parameters[3] = f32::NAN;
    let compile = |parameters: &[f32]| {
        Program::compile(&case.model, parameters, &Numerics::F32, Passes::ALL)
            .expect_err("refused")
            .to_string()
    };
    let text = compile(&parameters);
    assert!(text.contains("NaN") && text.contains(".weight"), "{text}");
    let text = compile(&parameters[1..]);
    assert!(text.contains(&parameters.len().to_string()), "{text}");
}

/// The numerics of a model with made-up scales.
fn all_numerics(model: &Model) -> [Numerics; 3] {
    [Numerics::F32, Numerics::F16, Numerics::int8_plan(model)]
}

/// What is joined takes fewer steps and less memory.
#[test]
fn passes_save_steps_and_memory() {
    for (kind, numerics) in [
        ("mobilenet-v2", 0),
        ("mobilenet-v2", 2),
        ("cnn-pfl", 0),
        ("resnet8-gn", 2),
    ] {
        let case = zoo().into_iter().find(|case| case.name == kind);
        let model = case.expect("of the zoo").model;
        let numerics = &all_numerics(&model)[numerics];
        let plan = |passes| Program::plan(&model, numerics, passes, 1).expect("plans");
        let (all, none) = (plan(Passes::ALL), plan(Passes::NONE));
        assert!(all.steps.len() < none.steps.len(), "{kind}");
        let [all, none] = [&all, &none].map(|plan| plan.arena);
        assert!(all <= none, "{kind}: {all} of {none}");
        if kind == "mobilenet-v2" && *numerics == Numerics::F32 {
            assert!(all < none, "{kind}: {all} of {none}");
        }
        let none = plan(Passes::NONE);
        for one in Passes::combinations() {
            assert!(plan(one).steps.len() <= none.steps.len(), "{kind}: {one:?}");
        }
    }
}

/// The planned peak (constants, arena and tables) is at most twice the bytes of the model's
/// parameters in its precision, and what is really held is what was planned.
#[test]
fn memory_is_as_planned_and_at_most_twice_the_model() {
    for case in zoo() {
        let model = &case.model;
        let parameters = trained(model);
        let data = case.data(1);
        let four = Numerics::Int4(FourBits::default());
        for numerics in all_numerics(model).into_iter().chain([four]) {
            let name = format!("{} {}", case.name, numerics.name());
            let compile = || Program::compile(model, &parameters, &numerics, Passes::ALL);
            let ((program, mut runner), held) = held(|| {
                let program = Arc::new(compile().expect("compiles"));
                (Arc::clone(&program), Runner::new(program, 1))
            });
            let plan = program.memory(1);
            assert_eq!(
                plan,
                Program::plan(model, &numerics, Passes::ALL, 1).expect("plans")
            );
            let size = match numerics {
                Numerics::F32 => 4 * model.parameters(),
                Numerics::F16 => 2 * model.parameters(),
                Numerics::Int4(_) => model.parameters().div_ceil(2),
                _ => model.parameters(),
            };
            assert_eq!(program.parameter_bytes(), size, "{name}");
            let share = plan.peak() as f64 / size as f64;
            // Recurrent states stay in floats, and attention sees all pairs. Values between
            // layers are floats, whatever the weights are, and the smallest models have as many
            // bytes of them as of weights of four bits.
            let most = match (case.has_sequences(), &numerics) {
                (_, Numerics::Int4(_)) => 5.5,
                (true, _) => 3.1,
                (false, _) => 2.0,
            };
            assert!(share <= most, "{name}: {share}: {plan:?}");
            let mut logits = vec![0.0; program.output_len()];
            let (calls, _) = measured(|| runner.run(inputs(&data), &mut logits));
            assert_eq!(calls, 0, "{name}: allocations of a run");
            // The quantization is part of what is held.
            let own = match &numerics {
                Numerics::Int8(quantization) => crate::allocations::held(|| quantization.clone()).1,
                _ => 0,
            };
            let of_plan = (held - own) as f64 / plan.peak() as f64;
            println!(
                "{name:<18} {:>8} constants {:>7} arena {:>6} tables: {:>8} planned, {share:.3} of \
                 the {size:>8} of its parameters; {of_plan:.4} of the plan held",
                plan.constants,
                plan.arena,
                plan.tables,
                plan.peak()
            );
            assert!(
                (0.95..=1.05).contains(&of_plan),
                "{name}: {held} held, planned {}",
                plan.peak()
            );
        }
    }
}

/// The same for larger images, by the plan alone.
#[test]
fn large_images_take_at_most_twice_the_model() {
    let def = ModelDef::named("mobilenet-v2").expect("of the zoo");
    for (size, classes) in [(96, 10), (96, 1000), (224, 1000)] {
        let input = InputSpec::Real(vec![size, size, 3]);
        let model = Model::new(&def, &input, TargetSpec::Class { classes });
        let model = Arc::new(model.expect("builds"));
        for (numerics, bytes) in all_numerics(&model).into_iter().zip([4, 2, 1]) {
            let plan = Program::plan(&model, &numerics, Passes::ALL, 1).expect("plans");
            let share = plan.peak() as f64 / (bytes * model.parameters()) as f64;
            assert!(share <= 2.0, "{} at {size}: {share}", numerics.name());
        }
    }
}

/// Served models are evaluated as sessions evaluate.
#[test]
fn served_evaluation_is_the_sessions() {
    for case in operators() {
        let (data, parameters) = (case.data(11), trained(&case.model));
        let program = Program::compile(&case.model, &parameters, &Numerics::F32, Passes::NONE)
            .expect("compiles");
        let served = Served::new(Arc::new(program));
        let mut session = Session::new(Arc::clone(&case.model), Kernels::best());
        for rows in [0..11, 3..7, 5..5] {
            let found = served
                .evaluate(&data, rows.clone())
                .expect("examples of the model");
            let expected = session
                .judge(&parameters, &data, rows.start as u32..rows.end as u32)
                .expect("examples of the model");
            assert_eq!(
                found.loss_sum.to_bits(),
                expected.loss_sum.to_bits(),
                "{}",
                case.name
            );
            assert_eq!(found.correct, expected.correct, "{}", case.name);
            assert_eq!(found.examples, expected.examples, "{}", case.name);
            if !matches!(case.model.target(), TargetSpec::Sequence { .. }) {
                assert_eq!(found.examples, rows.len() as u64, "{}", case.name);
            }
        }
    }
}

/// What a session of quantization-aware training holds after a step is what was planned, within
/// 5 % and the plans themselves.
#[test]
fn memory_of_quantization_aware_training_is_as_planned() {
    const PLANS: usize = 64 << 10;
    for case in zoo().iter().filter(|case| !case.has_sequences()) {
        let ranged = Model::new(&case.def, case.model.input(), case.model.target())
            .and_then(|model| model.with_ranges(QatOptions::default()));
        let model = Arc::new(ranged.expect("every model of the zoo can be trained so"));
        assert_eq!(case.model.qat_peak_bytes(4), None, "{}", case.name);
        let data = case.data(4);
        let global = model.init(&mut stream(3));
        for rows in [1, 4] {
            let planned = model.qat_peak_bytes(rows).expect("with ranges");
            let (session, held) = held(|| {
                let session = Session::quantization_aware(
                    Arc::clone(&model),
                    Kernels::best(),
                    QatForward::Integer,
                );
                let mut session = session.expect("with ranges");
                session.start(global.values(), &Optimizer::SGD, rows);
                let step = Step {
                    optimizer: Optimizer::SGD,
                    rate: 1e-3,
                    number: 0,
                    max_norm: None,
                    proximal_mu: 0.0,
                    anchor: &[],
                };
                let examples = (0..rows as u32).collect::<Vec<_>>();
                session
                    .step(&data, &examples, &step, &mut stream(4))
                    .expect("good examples");
                session
            });
            drop(session);
            let held = usize::try_from(held).expect("a session holds memory");
            assert!(
                held.abs_diff(planned) <= planned / 20 + PLANS,
                "{} at {rows}: {held} held, {planned} planned",
                case.name
            );
            assert!(planned > model.peak_bytes(rows, false), "{}", case.name);
        }
    }
}

/// The table of a training step: every operator twice, and its fullest moment is what the plan
/// holds beside the parameters, up to what lies between buffers.
#[test]
fn training_memory_by_operator() {
    for case in zoo() {
        let model = &case.model;
        let nodes = model.graph().nodes.len();
        let table = model.training_memory(4);
        assert_eq!(table.len(), 2 * nodes + 1, "{}", case.name);
        assert_eq!(table[0].layer, table[2 * nodes].layer, "{}", case.name);
        assert_eq!(table[nodes].operator, "loss");
        let most = table.iter().map(|step| step.live).max().expect("steps");
        let peak = model.peak_bytes(4, true);
        assert!(most <= peak, "{}: {most} of {peak}", case.name);
        assert!(
            2 * most + 8 * model.parameters() >= peak,
            "{}: {most} of {peak}",
            case.name
        );
    }
}
