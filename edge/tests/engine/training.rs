//! Training as a whole: bits, work, results, errors.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use crate::common::{Case, FIRST_OPERATORS, Synthetic, operators, stream};
use fl_core::{
    BatchSize, ClientId, ExampleCount, ExampleOrder, Examples, FitTask, InputSpec, LearningRate,
    LocalPlan, LocalResult, LocalWork, Optimizer, Parameters, Precision, RoundId, TargetSpec,
    TrainError, Trainer as _, WorkLimit,
};
use fl_edge::kernel::Kernels;
use fl_edge::{EdgeTrainer, Model, ModelDef, Session, Step};

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

fn plan(work: LocalWork, batch: BatchSize) -> LocalPlan {
    LocalPlan {
        work,
        batch,
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    }
}

fn fit(
    trainer: &mut EdgeTrainer,
    global: &Parameters,
    data: &dyn Examples,
    plan: &LocalPlan,
    limit: WorkLimit,
) -> Result<(Vec<f32>, LocalResult), TrainError> {
    let mut update = vec![f32::NAN; global.values().len()];
    let mut results = [LocalResult::default()];
    let mut tasks = [FitTask {
        client: ClientId(7),
        round: RoundId(0),
        data,
        plan,
        limit,
        stream: stream(4),
        update: &mut update,
    }];
    trainer.fit(global, &mut tasks, &mut results)?;
    Ok((update, results[0]))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// SHA-256 over the parameters after two epochs of every model of `operators()`, with dropout,
/// momentum and clipping: of the first ones, and of those that came with batch normalisation and
/// relu6, and of those with layers of sequences. Made with the portable kernels; all kernels must
/// agree.
const GOLDEN: [&str; 3] = [
    "da4eed29b3e43e058d7c2492893a700a69b2671e5ecdc32576d992cbf6cb355f",
    "b55c2d4070ffc77984167074cfb9aaa0211ed02d7bbb8e4e3ac43a5511dd2ea8",
    "0f66bd5b8c8978d65d0183f7c1b66d874bde541a95f59d8ab3eb4d4db7589e19",
];

#[test]
fn every_kernel_trains_the_same_bits() {
    for kernels in Kernels::all_available() {
        let mut digests = [const { String::new() }; 3];
        for (index, case) in operators().into_iter().enumerate() {
            let data = case.data(11);
            let mut global = case.model.init(&mut stream(3));
            for optimizer in [
                Optimizer::SGD,
                Optimizer::Sgd {
                    momentum: 0.9,
                    nesterov: true,
                    weight_decay: 0.01,
                },
                Optimizer::Adam {
                    beta1: 0.9,
                    beta2: 0.99,
                    epsilon: 1e-6,
                    weight_decay: 0.01,
                    decoupled: true,
                },
            ] {
                let mut plan = plan(LocalWork::Epochs(count(2)), BatchSize::Examples(count(4)));
                plan.optimizer = optimizer;
                plan.learning_rate = LearningRate::constant(0.01);
                plan.proximal_mu = 0.1;
                if optimizer != Optimizer::SGD {
                    plan.max_gradient_norm = Some(0.5);
                }
                let mut trainer = EdgeTrainer::with_kernels(case.model.clone(), kernels);
                let (update, result) =
                    fit(&mut trainer, &global, &data, &plan, WorkLimit::Full).expect("trains");
                assert!(result.mean_loss.is_finite(), "{}", case.name);
                for (w, u) in global.values_mut().iter_mut().zip(update) {
                    *w += u;
                }
            }
            let group = match case.has_sequences() {
                true => 2,
                false => usize::from(index >= FIRST_OPERATORS),
            };
            digests[group] += &global.digest().to_string();
        }
        let found = digests.map(|digests| {
            let layout = fl_core::Layout::new([("digests".to_owned(), vec![digests.len()])]);
            let values = digests.bytes().map(f32::from).collect();
            let all = Parameters::new(Arc::new(layout.expect("a layout")), values);
            all.expect("values").digest().to_string()
        });
        assert_eq!(found, GOLDEN, "{}", kernels.name());
    }
}

#[test]
fn work_and_limits() {
    let case = operators().swap_remove(0);
    let data = case.data(10);
    let global = case.model.init(&mut stream(3));
    let epochs = LocalWork::Epochs(count(3));
    let steps = LocalWork::Steps(count(5));
    let four = BatchSize::Examples(count(4));
    let at_most = |most| WorkLimit::AtMost(count(most));
    // (work, batch, limit, steps, examples processed)
    for (work, batch, limit, steps, processed) in [
        (epochs, four, WorkLimit::Full, 9, 30),
        (epochs, four, at_most(2), 6, 20),
        (epochs, four, at_most(9), 9, 30),
        (epochs, BatchSize::Full, WorkLimit::Full, 3, 30),
        (
            epochs,
            BatchSize::Examples(count(100)),
            WorkLimit::Full,
            3,
            30,
        ),
        (steps, four, WorkLimit::Full, 5, 18),
        (steps, four, at_most(1), 1, 4),
        (steps, BatchSize::Full, WorkLimit::Full, 5, 50),
    ] {
        let mut trainer = EdgeTrainer::new(case.model.clone());
        let (update, result) =
            fit(&mut trainer, &global, &data, &plan(work, batch), limit).expect("trains");
        assert_eq!(result.steps, steps);
        assert_eq!(result.examples_processed, processed);
        assert_eq!(result.examples, ExampleCount(10));
        assert!(result.mean_loss > 0.0 && update.iter().any(|u| *u != 0.0));
    }
}

/// What was trained before, and on which memory, changes no bit.
#[test]
fn a_used_trainer_gives_the_bits_of_a_new_one() {
    for case in operators() {
        let global = case.model.init(&mut stream(3));
        let small = case.data(9);
        let large = case.data(40);
        let plan = plan(LocalWork::Epochs(count(2)), BatchSize::Examples(count(16)));
        let momentum = LocalPlan {
            optimizer: Optimizer::Sgd {
                momentum: 0.5,
                nesterov: false,
                weight_decay: 0.0,
            },
            ..plan
        };
        let mut used = EdgeTrainer::new(case.model.clone());
        for (data, plan) in [(&large, &momentum), (&small, &plan), (&small, &momentum)] {
            used.evaluate(global.values(), data, 0..9)
                .expect("evaluates");
            let mut new = EdgeTrainer::new(case.model.clone());
            let a = fit(&mut used, &global, data, plan, WorkLimit::Full).expect("trains");
            let b = fit(&mut new, &global, data, plan, WorkLimit::Full).expect("trains");
            assert!(bits(&a.0) == bits(&b.0) && a.1 == b.1, "{}", case.name);
        }
    }
}

/// A batch worked through in parts gives the bits of the whole: losses, gradients, dropout.
#[test]
fn parts_of_a_batch_sum_to_the_whole() {
    for case in operators() {
        let data = case.data(17);
        let global = case.model.init(&mut stream(3));
        let rows = (0..17).rev().collect::<Vec<u32>>();
        let run = |most: usize| {
            let most = NonZeroUsize::new(most).expect("not zero");
            let mut session =
                Session::new(case.model.clone(), Kernels::best()).with_most_rows(most);
            session.start(global.values(), &Optimizer::SGD, 17);
            let step = Step {
                optimizer: Optimizer::SGD,
                rate: 0.1,
                number: 0,
                max_norm: None,
                proximal_mu: 0.0,
                anchor: global.values(),
            };
            let mut random = stream(8);
            let first = session
                .step(&data, &rows, &step, &mut random)
                .expect("examples of the model");
            let second = session
                .step(&data, &rows, &step, &mut random)
                .expect("examples of the model");
            let (sum, correct) = session
                .evaluate(global.values(), &data, 0..17)
                .expect("examples of the model");
            let losses = [first, second, sum].map(f64::to_bits);
            (losses, correct, bits(session.weights()))
        };
        let whole = run(17);
        for most in [1, 4, 16] {
            assert!(run(most) == whole, "{} in parts of {most}", case.name);
        }
    }
}

/// Two noisy classes are learnt, and evaluation agrees with itself in parts.
#[test]
fn learns_and_evaluates() {
    let input = InputSpec::Real(vec![6]);
    let target = TargetSpec::Class { classes: 2 };
    let mut data = Synthetic::new(&input, target, 1200, 5);
    for (label, x) in data.labels.iter().zip(data.reals.chunks_mut(6)) {
        x[0] += *label as f32 * 4.0 - 2.0;
    }
    let model = Model::new(&ModelDef::named("mlp-2nn").expect("known"), &input, target);
    let model = Arc::new(model.expect("builds"));
    let mut trainer = EdgeTrainer::new(model.clone());
    let mut global = model.init(&mut stream(3));
    let before = trainer
        .evaluate(global.values(), &data, 0..1200)
        .expect("evaluates");
    let plan = plan(LocalWork::Epochs(count(3)), BatchSize::Examples(count(10)));
    let (update, _) = fit(&mut trainer, &global, &data, &plan, WorkLimit::Full).expect("trains");
    for (w, u) in global.values_mut().iter_mut().zip(update) {
        *w += u;
    }
    let after = trainer
        .evaluate(global.values(), &data, 0..1200)
        .expect("evaluates");
    assert_eq!(after.examples, 1200);
    assert!(
        after.loss() < 0.5 * before.loss() && after.accuracy() > 0.95,
        "{after:?}"
    );
    let parts = [0..1, 1..700, 700..1200].map(|rows| {
        trainer
            .evaluate(global.values(), &data, rows)
            .expect("evaluates")
    });
    assert_eq!(
        parts.iter().map(|part| part.correct).sum::<u64>(),
        after.correct
    );
    let sum = parts.iter().map(|part| part.loss_sum).sum::<f64>();
    assert!((sum - after.loss_sum).abs() < 1e-9 * sum);
}

/// Where dropout does nothing (in evaluation, and at rate 0) a model is the one without it, even
/// where its input has other readers.
#[test]
fn idle_dropout_is_not_there() {
    let input = InputSpec::Real(vec![5, 6, 4]);
    let target = TargetSpec::Class { classes: 3 };
    let conv = |name: &str| {
        format!(
            "[[layer]]\nkind = \"conv2d\"\nname = \"{name}\"\nfilters = 4\nkernel = 3\n\
             padding = \"same\"\n"
        )
    };
    let plain = |kind: &str| format!("[[layer]]\nkind = \"{kind}\"\n");
    let add = |from: &str| format!("[[layer]]\nkind = \"add\"\nfrom = \"{from}\"\n");
    let drop = "DROPOUT".to_owned();
    let (a, b) = (conv("a"), conv("b"));
    let bodies = [
        vec![&a, &drop, &add("a")],
        vec![&a, &drop, &plain("relu"), &add("a")],
        vec![&a, &drop, &drop, &plain("tanh"), &b, &add("a")],
        vec![
            &a,
            &drop,
            &plain("tanh"),
            &drop,
            &plain("relu"),
            &b,
            &add("a"),
        ],
        vec![
            &drop,
            &plain("relu"),
            &a,
            &add("input"),
            &drop,
            &plain("sigmoid"),
            &b,
        ],
    ]
    .map(|layers| layers.into_iter().cloned().collect::<String>());
    for body in &bodies {
        let case = |dropout: &str| {
            let text = format!("{body}{}{}", plain("flatten"), plain("dense"));
            Case::new("dropout", &text.replace("DROPOUT", dropout), &input, target)
        };
        let without = case("");
        let data = without.data(9);
        let global = without.model.init(&mut stream(3));
        let evaluate = |case: &Case| {
            let mut trainer = EdgeTrainer::new(case.model.clone());
            let evaluation = trainer.evaluate(global.values(), &data, 0..9);
            evaluation.expect("evaluates")
        };
        let plan = plan(LocalWork::Epochs(count(2)), BatchSize::Examples(count(4)));
        let train = |case: &Case| {
            let mut trainer = EdgeTrainer::new(case.model.clone());
            let (update, _) =
                fit(&mut trainer, &global, &data, &plan, WorkLimit::Full).expect("trains");
            bits(&update)
        };
        let rate = |rate: &str| case(&format!("[[layer]]\nkind = \"dropout\"\nrate = {rate}\n"));
        assert_eq!(evaluate(&rate("0.5")), evaluate(&without), "{body}");
        assert_eq!(train(&rate("0.0")), train(&without), "{body}");
    }
}

/// A learning rate that explodes gives a non-finite update, not an error.
#[test]
fn divergence_is_data() {
    let case = operators().swap_remove(1);
    let data = case.data(10);
    let global = case.model.init(&mut stream(3));
    let mut wild = plan(LocalWork::Epochs(count(60)), BatchSize::Full);
    wild.learning_rate = LearningRate::constant(1e20);
    let mut trainer = EdgeTrainer::new(case.model.clone());
    let (update, result) =
        fit(&mut trainer, &global, &data, &wild, WorkLimit::Full).expect("no error");
    assert!(update.iter().any(|u| !u.is_finite()), "{result:?}");
}

#[test]
fn errors() {
    let case = operators().swap_remove(0);
    let global = case.model.init(&mut stream(3));
    let plan = plan(LocalWork::Epochs(count(1)), BatchSize::Full);
    let mut trainer = EdgeTrainer::new(case.model.clone());
    let mut message = |data: &dyn Examples| {
        fit(&mut trainer, &global, data, &plan, WorkLimit::Full)
            .expect_err("refused")
            .to_string()
    };
    let mut labels = case.data(4);
    labels.labels[2] = 3;
    assert_eq!(
        message(&labels),
        "example 2 of client 7 has label 3 where the model has 3 classes"
    );
    assert_eq!(
        message(&case.data(0)),
        "client 7 has no examples; give every client at least one, or leave it out"
    );
    let other = Synthetic::new(&InputSpec::Real(vec![8]), case.model.target(), 4, 1);
    assert_eq!(
        message(&other),
        "the model expects inputs Real([9]) and the data hold inputs Real([8]); choose a model \
         for this data set"
    );
    let other = Synthetic::new(case.model.input(), TargetSpec::Class { classes: 4 }, 4, 1);
    assert_eq!(
        message(&other),
        "the model expects targets Class { classes: 3 } and the data hold targets Class { \
         classes: 4 }; choose a model for this data set"
    );
    let tokens = operators()
        .into_iter()
        .find(|case| case.name == "embedding")
        .expect("there");
    let mut data = tokens.data(4);
    data.tokens[11] = 11;
    let global = tokens.model.init(&mut stream(3));
    let mut trainer = EdgeTrainer::new(tokens.model.clone());
    let error = fit(&mut trainer, &global, &data, &plan, WorkLimit::Full).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the model expects tokens below 11 and the data hold token 11 in example 2 of client 7; \
         choose a model for this data set"
    );
    let few = Parameters::zeros(case.model.layout().clone());
    let error = fit(&mut trainer, &few, &data, &plan, WorkLimit::Full).expect_err("refused");
    assert!(
        matches!(error, TrainError::ParameterMismatch { .. }),
        "{error}"
    );
}

fn is_send<T: Send>() {}

#[test]
fn a_trainer_can_be_sent() {
    is_send::<EdgeTrainer>();
    let _: Option<Case> = None;
}
