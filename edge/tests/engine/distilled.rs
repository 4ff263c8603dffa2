//! Training with a teacher: gradients against differences, losses against the formulas, bits.

use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::allocations::measured;
use crate::common::{Case, Synthetic, operators, stream};
use crate::gradients;
use fl_core::{
    BatchSize, ClientId, ExampleOrder, FitTask, InputSpec, LearningRate, LocalPlan, LocalResult,
    LocalWork, NO_TARGET, Optimizer, Precision, RoundId, TargetSpec, Trainer as _, WorkLimit,
};
use fl_edge::distill::{DistillError, DistillOptions, Feature, Relation, Teacher};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::{
    EdgeTrainer, Model, ModelDef, Numerics, Passes, PerExampleError, Program, Session, Step,
};

fn model(text: &str, input: &InputSpec, target: TargetSpec) -> Arc<Model> {
    let def = toml::from_str::<ModelDef>(text).expect(text);
    Arc::new(Model::new(&def, input, target).expect(text))
}

/// A teacher with random parameters, biases too.
fn teacher(model: &Arc<Model>) -> Teacher {
    let mut random = stream(77);
    let mut parameters = model.init(&mut random);
    for value in parameters.values_mut() {
        *value += 0.1 * random.normal() as f32;
    }
    for tensor in model.layout().tensors() {
        if tensor.name.ends_with(".running_var") {
            parameters.values_mut()[tensor.range()].fill(1.5);
        }
    }
    Teacher::new(model, parameters.values()).expect("a teacher")
}

fn again(model: &Model) -> Model {
    Model::new(model.definition(), model.input(), model.target()).expect("as before")
}

fn feature(student: &str, teacher: &str, weight: f32) -> Feature {
    Feature {
        student: student.to_owned(),
        teacher: teacher.to_owned(),
        weight,
    }
}

/// The model taught by one like itself, in every layer that can be, and in its relations.
fn taught(of: &Model, relation: Option<Relation>) -> Model {
    let teacher = teacher(&Arc::new(again(of)));
    let mut options = DistillOptions {
        temperature: 2.5,
        alpha: 0.3,
        ..DistillOptions::default()
    };
    for value in of.graph().values.iter().skip(1) {
        let only = DistillOptions {
            features: vec![feature(&value.name, &value.name, 1.0)],
            ..options.clone()
        };
        match again(of).with_teacher(teacher.clone(), only) {
            Ok(_) => {
                let weight = 0.2 + 0.1 * options.features.len() as f32;
                options
                    .features
                    .push(feature(&value.name, &value.name, weight));
            }
            Err(DistillError::NothingLearns { .. } | DistillError::Hidden { .. }) => {}
            Err(error) => panic!("{}: {error}", value.name),
        }
    }
    assert!(!options.features.is_empty());
    options.relation = relation;
    again(of).with_teacher(teacher, options).expect("fits")
}

fn classified() -> impl Iterator<Item = Case> {
    let cases = operators().into_iter();
    cases.filter(|case| !matches!(case.model.target(), TargetSpec::Real { .. }))
}

#[test]
fn gradients_through_every_layer_of_every_operator() {
    for case in classified() {
        // The gradient is larger than that of the labels alone, and so are its kinks.
        let (tolerance, floor) = (2e-2, 0.1);
        let model = Arc::new(taught(&case.model, None));
        gradients::check_above(&Case { model, ..case }, tolerance, floor);
    }
}

const CNN: &str = "[[layer]]\nkind = \"conv2d\"\nname = \"c1\"\nfilters = 3\nkernel = 3\n\
    padding = \"same\"\nactivation = \"tanh\"\n\
    [[layer]]\nkind = \"avg-pool\"\nname = \"pool\"\nsize = 2\n\
    [[layer]]\nkind = \"flatten\"\nname = \"flat\"\n\
    [[layer]]\nkind = \"dense\"\nname = \"fc\"\nunits = 6\nactivation = \"tanh\"\n\
    [[layer]]\nkind = \"dense\"\nname = \"out\"\n";

fn cnn() -> Case {
    let image = InputSpec::Real(vec![6, 6, 2]);
    Case::new("cnn", CNN, &image, TargetSpec::Class { classes: 4 })
}

fn wide(case: &Case) -> Teacher {
    let text = CNN
        .replace("filters = 3", "filters = 7")
        .replace("units = 6", "units = 11");
    teacher(&model(&text, case.model.input(), case.model.target()))
}

fn options(features: Vec<Feature>, relation: Option<Relation>) -> DistillOptions {
    DistillOptions {
        temperature: 2.0,
        alpha: 0.5,
        features,
        relation,
    }
}

fn relation(student: Option<&str>, teacher: Option<&str>) -> Option<Relation> {
    Some(Relation {
        student: student.map(str::to_owned),
        teacher: teacher.map(str::to_owned),
        distance: 3.0,
        angle: 5.0,
    })
}

/// Two features with projections, and a relation between layers of different sizes.
fn everything() -> DistillOptions {
    options(
        vec![
            feature("c1", "c1", 2.0),
            feature("fc", "fc", 0.7),
            feature("out", "out", 0.2),
        ],
        relation(Some("fc"), Some("fc")),
    )
}

#[test]
fn gradients_with_projections_and_relations() {
    let case = cnn();
    for (options, projections) in [
        (options(Vec::new(), None), 0),
        (options(Vec::new(), relation(None, None)), 0),
        (options(vec![feature("pool", "pool", 1.0)], None), 2),
        (everything(), 4),
    ] {
        let model = again(&case.model)
            .with_teacher(wide(&case), options)
            .expect("fits");
        let before = case.model.layout().tensors().len();
        assert_eq!(model.layout().tensors().len(), before + projections);
        assert_eq!(model.trained_parameters(), model.parameters());
        let (model, case) = (Arc::new(model), cnn());
        gradients::check_above(&Case { model, ..case }, 5e-3, 0.02);
    }
}

/// The sum of losses is that of the formulas, in f64, from the outputs of both.
#[test]
fn the_loss_of_the_response_is_the_formula() {
    let sequences = operators().into_iter().filter(|case| {
        matches!(case.model.target(), TargetSpec::Sequence { .. }) && !case.has_dropout()
    });
    for case in sequences.chain([cnn()]) {
        let (rows, own) = (7usize, case.model.init(&mut stream(3)));
        let teacher = teacher(&Arc::new(again(&case.model)));
        let data = case.data(rows);
        let all: Vec<u32> = (0..rows as u32).collect();
        let mut plain = Session::new(case.model.clone(), Kernels::best());
        plain.start(own.values(), &Optimizer::SGD, rows);
        let z = plain.outputs(&data, &all).expect("good examples");
        let inputs = match case.model.input() {
            InputSpec::Real(_) => fl_edge::Inputs::Real(&data.reals),
            InputSpec::Tokens { .. } => fl_edge::Inputs::Tokens(&data.tokens),
        };
        let mut t = vec![0.0; z.len()];
        let mut runner = fl_edge::Runner::new(Arc::clone(teacher.program()), rows);
        runner.run(inputs, &mut t);
        let (temperature, alpha) = (3.0, 0.25);
        let model = again(&case.model).with_teacher(
            teacher,
            DistillOptions {
                temperature: temperature as f32,
                alpha: alpha as f32,
                ..DistillOptions::default()
            },
        );
        let mut session = Session::new(Arc::new(model.expect("fits")), Kernels::best());
        session.start(own.values(), &Optimizer::SGD, rows);
        let found = session
            .gradient(&data, &all, &mut stream(5))
            .expect("good examples");

        let classes = match case.model.target() {
            TargetSpec::Class { classes } | TargetSpec::Sequence { classes, .. } => classes,
            TargetSpec::Real { .. } => unreachable!("filtered"),
        };
        let softmax = |x: &[f32], temperature: f64| -> Vec<f64> {
            let e: Vec<f64> = x
                .iter()
                .map(|&x| libm::exp(f64::from(x) / temperature))
                .collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|e| e / sum).collect()
        };
        let each = case.model.target().labels();
        let mut expected = 0.0;
        for (row, labels) in data.labels.chunks_exact(each).enumerate() {
            let given = labels.iter().filter(|&&label| label != NO_TARGET).count();
            for (position, &label) in labels.iter().enumerate() {
                if label == NO_TARGET {
                    continue;
                }
                let at = (row * each + position) * classes..;
                let (z, t) = (&z[at.clone()][..classes], &t[at][..classes]);
                let hard = -libm::log(softmax(z, 1.0)[label as usize]);
                let (p, q) = (softmax(z, temperature), softmax(t, temperature));
                let terms = p.iter().zip(&q).map(|(p, q)| q * libm::log(q / p));
                let soft = temperature * temperature * terms.sum::<f64>();
                expected += (alpha * hard + (1.0 - alpha) * soft) / given as f64;
            }
        }
        let error = (found - expected).abs();
        assert!(
            error < 1e-5 * expected,
            "{}: {found} for {expected}",
            case.name
        );
    }
}

/// Answers that are kept, parts of a batch and kernels change no bit; fused steps are those of
/// stored gradients.
#[test]
fn the_same_bits_however_it_is_computed() {
    let case = cnn();
    let data = case.data(13);
    let rows: Vec<u32> = vec![3, 1, 12, 5, 9, 2, 6, 0, 11];
    for (options, in_parts) in [
        (options(Vec::new(), None), true),
        (
            options(
                vec![feature("c1", "c1", 2.0), feature("fc", "fc", 0.7)],
                None,
            ),
            true,
        ),
        (everything(), false),
    ] {
        let model = again(&case.model)
            .with_teacher(wide(&case), options)
            .expect("fits");
        let model = Arc::new(model);
        let global = model.init(&mut stream(3));
        let step = Step {
            optimizer: Optimizer::SGD,
            rate: 0.1,
            number: 0,
            max_norm: None,
            proximal_mu: 0.3,
            anchor: global.values(),
        };
        let train = |mut session: Session, keep: usize, step: &Step<'_>| {
            session.start(global.values(), &Optimizer::SGD, rows.len());
            session.keep_answers(keep);
            let mut losses = Vec::new();
            for _ in 0..3 {
                let loss = session.step(&data, &rows, step, &mut stream(5));
                losses.push(loss.expect("good examples").to_bits());
            }
            (losses, session.weights().to_vec())
        };
        let session = || Session::new(Arc::clone(&model), Kernels::best());
        let first = train(session(), 0, &step);
        assert_ne!(first.1, global.values());
        assert_eq!(train(session(), 13, &step), first, "answers are kept");
        let stored = Step {
            max_norm: Some(1e30),
            ..step
        };
        assert_eq!(train(session(), 0, &stored), first, "gradients are stored");
        for kernels in Kernels::all_available() {
            let session = Session::new(Arc::clone(&model), kernels);
            assert_eq!(train(session, 0, &step), first, "{}", kernels.name());
        }
        let most = NonZeroUsize::new(4).expect("not zero");
        let parts = session().with_most_rows(most);
        if in_parts {
            assert_eq!(
                train(parts, 13, &stored),
                train(session(), 0, &stored),
                "in parts"
            );
        } else {
            assert_eq!(
                train(parts, 0, &step),
                first,
                "a relation is worked through at once"
            );
        }
    }
}

fn plan(precision: Precision) -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(2).expect("not zero")),
        batch: BatchSize::Examples(NonZeroU32::new(8).expect("not zero")),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.05),
        max_gradient_norm: None,
        proximal_mu: 0.1,
        precision,
        privacy: None,
    }
}

fn fit(trainer: &mut EdgeTrainer, data: &Synthetic, plan: &LocalPlan, update: &mut [f32]) -> f64 {
    let global = trainer.model().init(&mut stream(3));
    let task = FitTask {
        client: ClientId(1),
        round: RoundId(0),
        data,
        plan,
        limit: WorkLimit::Full,
        stream: stream(4),
        update,
    };
    let mut results = [LocalResult::default()];
    trainer
        .fit(&global, &mut [task], &mut results)
        .expect("trains");
    results[0].mean_loss
}

/// A trainer trains one client after the other, moves projections with the model, and allocates
/// nothing once it is warm; in integers, too.
#[test]
fn a_trainer_teaches_without_allocating() {
    let case = cnn();
    let data = case.data(21);
    for precision in [Precision::F32, Precision::QatInt8] {
        for options in [options(Vec::new(), None), everything()] {
            let projected = !options.features.is_empty();
            let model = again(&case.model)
                .with_teacher(wide(&case), options)
                .expect("fits");
            let model = Arc::new(model.with_ranges(QatOptions::default()).expect("fits"));
            let mut trainer = EdgeTrainer::new(Arc::clone(&model));
            assert_eq!(trainer.lanes(), 1);
            let mut update = vec![0.0; model.parameters()];
            let plan = plan(precision);
            let global = model.init(&mut stream(3));
            let first = fit(&mut trainer, &data, &plan, &mut update);
            let before = update.clone();
            let (calls, _) = measured(|| {
                // The initial parameters are the test's own.
                let task = FitTask {
                    client: ClientId(1),
                    round: RoundId(0),
                    data: &data,
                    plan: &plan,
                    limit: WorkLimit::Full,
                    stream: stream(4),
                    update: &mut update,
                };
                let mut results = [LocalResult::default()];
                trainer
                    .fit(&global, &mut [task], &mut results)
                    .expect("trains");
                assert_eq!(results[0].mean_loss.to_bits(), first.to_bits());
            });
            assert_eq!((calls, &update), (0, &before), "{precision:?}");
            for tensor in model.layout().tensors() {
                if tensor.name.starts_with("distill.") {
                    assert!(projected && update[tensor.range()].iter().all(|&it| it != 0.0));
                }
            }
            let (student, parameters) = model.student(&global).expect("its own");
            assert_eq!(student.definition(), case.model.definition());
            assert!(student.teacher().is_none() && student.qat_options().is_some());
            assert_eq!(parameters.layout(), student.layout());
            for tensor in student.layout().tensors() {
                let own = global.tensor(&tensor.name);
                assert_eq!(parameters.tensor(&tensor.name), own, "{}", tensor.name);
            }
        }
    }
}

/// In integers, what a lesson adds to the gradient points where it does in floats.
#[test]
fn lessons_in_integers_agree_with_those_in_floats() {
    let case = cnn();
    let data = case.data(24);
    let rows: Vec<u32> = (0..24).collect();
    let gradient = |lesson: Option<DistillOptions>, quantized: bool| {
        let model = again(&case.model);
        let model = match lesson {
            Some(options) => model.with_teacher(wide(&case), options).expect("fits"),
            None => model,
        };
        let model = Arc::new(model.with_ranges(QatOptions::default()).expect("fits"));
        let own = case.model.parameters();
        let global = model.init(&mut stream(3));
        let mut session = match quantized {
            true => Session::quantization_aware(model, Kernels::best(), QatForward::Integer)
                .expect("with ranges"),
            false => Session::new(model, Kernels::best()),
        };
        session.start(global.values(), &Optimizer::SGD, 24);
        session
            .gradient(&data, &rows, &mut stream(5))
            .expect("good examples");
        session.gradients()[..own].to_vec()
    };
    for options in [
        options(Vec::new(), None),
        options(Vec::new(), relation(Some("pool"), Some("fc"))),
        options(
            vec![feature("c1", "c1", 2.0), feature("fc", "fc", 1.0)],
            None,
        ),
        everything(),
    ] {
        let parts = [false, true].map(|quantized| {
            let with = gradient(Some(options.clone()), quantized);
            let without = gradient(None, quantized);
            // The response shrinks the labels' part to alpha.
            let terms = with.iter().zip(&without);
            terms
                .map(|(a, b)| f64::from(*a) - 0.5 * f64::from(*b))
                .collect::<Vec<_>>()
        });
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let [a, b] = &parts;
        let cosine = dot(a, b) / libm::sqrt(dot(a, a) * dot(b, b));
        assert!(cosine > 0.99, "{options:?}: {cosine}");
    }
}

/// The response is the one lesson that single examples have a gradient of.
#[test]
fn single_examples_learn_the_response_alone() {
    let case = cnn();
    let data = case.data(9);
    let rows: Vec<u32> = (0..9).collect();
    let with = |options| {
        let model = again(&case.model)
            .with_teacher(wide(&case), options)
            .expect("fits");
        let model = Arc::new(model);
        let global = model.init(&mut stream(3));
        let mut session = Session::new(model, Kernels::best());
        session.start(global.values(), &Optimizer::SGD, 9);
        session
    };
    let mut session = with(options(Vec::new(), None));
    session
        .clipped_gradient(&data, &rows, 1e20, &mut stream(5))
        .expect("has examples");
    let sum = session.gradients().to_vec();
    session
        .gradient(&data, &rows, &mut stream(5))
        .expect("good examples");
    for (sum, mean) in sum.iter().zip(session.gradients()) {
        let (sum, mean) = (f64::from(*sum), 9.0 * f64::from(*mean));
        assert!(
            (sum - mean).abs() < 1e-4 * mean.abs().max(0.1),
            "{sum} for {mean}"
        );
    }
    for options in [
        options(vec![feature("fc", "fc", 1.0)], None),
        options(Vec::new(), relation(None, None)),
    ] {
        let refused = with(options).clipped_gradient(&data, &rows, 1.0, &mut stream(5));
        assert_eq!(refused, Err(PerExampleError::Distillation));
    }
}

/// A teacher in any numbers answers; what it computes in integers cannot be looked at.
#[test]
fn teachers_in_other_numbers() {
    let case = cnn();
    let parameters = case.model.init(&mut stream(8));
    let data = case.data(9);
    let rows: Vec<u32> = (0..9).collect();
    let unit = Numerics::int8_plan(&case.model);
    let mut digests = Vec::new();
    for numerics in [Numerics::F32, Numerics::F16, unit] {
        let program = Program::compile(&case.model, parameters.values(), &numerics, Passes::ALL);
        let teacher = Teacher::of_program(Arc::new(program.expect("compiles"))).expect("a teacher");
        digests.push(teacher.digest());
        let answers = again(&case.model).with_teacher(teacher.clone(), options(Vec::new(), None));
        let model = Arc::new(answers.expect("answers"));
        let mut session = Session::new(Arc::clone(&model), Kernels::best());
        session.start(parameters.values(), &Optimizer::SGD, 9);
        let loss = session
            .gradient(&data, &rows, &mut stream(5))
            .expect("good examples");
        assert!(loss.is_finite());
        let looked =
            again(&case.model).with_teacher(teacher, options(vec![feature("fc", "fc", 1.0)], None));
        match numerics {
            Numerics::Int8(_) => assert!(matches!(looked, Err(DistillError::Hidden { .. }))),
            _ => assert!(looked.is_ok()),
        }
    }
    digests.push(wide(&case).digest());
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 4, "every teacher has a digest of its own");
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let case = cnn();
    let fits = || wide(&case);
    let image = |shape: Vec<usize>, classes| {
        teacher(&model(
            "kind = \"logreg\"",
            &InputSpec::Real(shape),
            TargetSpec::Class { classes },
        ))
    };
    let one = |feature| options(vec![feature], None);
    let ranged = |temperature, alpha| DistillOptions {
        temperature,
        alpha,
        ..DistillOptions::default()
    };
    let cases = [
        (
            image(vec![5, 6, 2], 4),
            options(Vec::new(), None),
            "teacher",
            "takes inputs",
        ),
        (
            image(vec![6, 6, 2], 3),
            options(Vec::new(), None),
            "teacher",
            "same classes",
        ),
        (fits(), ranged(0.0, 0.5), "temperature", "above 0"),
        (fits(), ranged(f32::NAN, 0.5), "temperature", "above 0"),
        (fits(), ranged(2.0, 1.5), "alpha", "from 0 to 1"),
        (fits(), ranged(2.0, 1.0), "alpha", "nothing is learned"),
        (
            fits(),
            one(feature("fc", "fc", 0.0)),
            "features.0.weight",
            "above 0",
        ),
        (
            fits(),
            one(feature("fcc", "fc", 1.0)),
            "features.0.student",
            "no such layer",
        ),
        (
            fits(),
            one(feature("fc", "fcc", 1.0)),
            "features.0.teacher",
            "no such layer",
        ),
        (
            fits(),
            one(feature("pool", "c1", 1.0)),
            "features.0",
            "height and width",
        ),
        (
            fits(),
            options(
                vec![feature("fc", "fc", 1.0), feature("fc", "fc", 2.0)],
                None,
            ),
            "features.1",
            "second time",
        ),
        (
            fits(),
            options(Vec::new(), relation(Some("no"), None)),
            "relation.student",
            "no such",
        ),
        (
            fits(),
            options(
                Vec::new(),
                Some(Relation {
                    student: None,
                    teacher: None,
                    distance: 0.0,
                    angle: 0.0,
                }),
            ),
            "relation.distance",
            "above 0",
        ),
    ];
    for (teacher, options, key, part) in cases {
        let refused = again(&case.model).with_teacher(teacher, options);
        let error = refused.expect_err(key);
        assert_eq!(error.key(), key, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let regression = model(
        "loss = \"mse\"\nlayer = [{ kind = \"dense\" }]",
        &InputSpec::Real(vec![3]),
        TargetSpec::Real { width: 2 },
    );
    let refused = again(&regression).with_teacher(teacher(&regression), DistillOptions::default());
    assert!(matches!(refused, Err(DistillError::NotClasses)));
    let ranges = again(&case.model)
        .with_ranges(QatOptions::default())
        .expect("fits");
    let refused = ranges.with_teacher(fits(), options(Vec::new(), None));
    assert!(matches!(refused, Err(DistillError::Ranges)));
    let inside = Case::new(
        "inside",
        "layer = [{ kind = \"dense\", name = \"a\", units = 5 }, { kind = \"batch-norm\" },\n\
         { kind = \"relu\", name = \"b\" }, { kind = \"dense\" }]",
        &InputSpec::Real(vec![3]),
        TargetSpec::Class { classes: 2 },
    );
    for (layer, fits) in [("a", false), ("b", true)] {
        let one = one(feature(layer, "b", 1.0));
        let taught = again(&inside.model).with_teacher(teacher(&inside.model), one);
        let ranged = taught.expect("fits").with_ranges(QatOptions::default());
        match ranged {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert!(!fits);
                let text = error.to_string();
                assert!(
                    text.contains("layer `a`") && text.contains("one of b"),
                    "{text}"
                );
            }
        }
    }
}
