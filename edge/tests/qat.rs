//! Quantization-aware training: every machine the same bits, the twin, the exported program, the
//! trainer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::sync::Arc;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, Examples, FitTask, InputSpec, InputsMut, LearningRate,
    LocalPlan, LocalResult, LocalWork, Optimizer, Parameters, Precision, Purpose, RoundId, Seed,
    ServedModel, Stream, TargetSpec, TargetsMut, TrainError, Trainer as _, WorkLimit,
};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::quant::federated::Bins;
use fl_edge::quant::{Calibration, Granularity, Probe, Samples};
use fl_edge::{
    EdgeError, EdgeTrainer, Inputs, Model, ModelDef, Numerics, Observed, Passes, Program, Runner,
    Session, Step, needs_calibration, serve_int8,
};

const CLASSES: usize = 4;

/// Images of four kinds: a bright quarter among noise.
struct Quarters {
    input: InputSpec,
    x: Vec<f32>,
    tokens: Vec<u32>,
    labels: Vec<u32>,
}

fn stream(seed: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
}

impl Quarters {
    fn new(input: InputSpec, len: usize, seed: u64) -> Self {
        let mut stream = stream(seed);
        let labels = (0..len).map(|_| stream.below(CLASSES as u64) as u32);
        let labels = labels.collect::<Vec<_>>();
        let (mut x, mut tokens) = (Vec::new(), Vec::new());
        for &label in &labels {
            match &input {
                InputSpec::Real(shape) => {
                    let [height, width, channels] = shape[..] else {
                        panic!("an image")
                    };
                    for at in 0..height * width {
                        let (i, j) = (at / width, at % width);
                        let quarter = 2 * (2 * i / height) + 2 * j / width;
                        let bright = if quarter == label as usize { 1.0 } else { 0.0 };
                        for _ in 0..channels {
                            x.push(bright + 0.4 * stream.normal() as f32);
                        }
                    }
                }
                InputSpec::Tokens { length, vocabulary } => {
                    for _ in 0..*length {
                        let token = stream.below((*vocabulary - CLASSES) as u64) as u32;
                        let told = stream.below(3) == 0;
                        tokens.push(if told { label } else { token + CLASSES as u32 });
                    }
                }
            }
        }
        Self {
            input,
            x,
            tokens,
            labels,
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        match self.input {
            InputSpec::Real(_) => Inputs::Real(&self.x),
            InputSpec::Tokens { .. } => Inputs::Tokens(&self.tokens),
        }
    }
}

impl Examples for Quarters {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: CLASSES }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        match inputs {
            InputsMut::Real(to) => {
                for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
                    to.copy_from_slice(&self.x[row as usize * width..][..width]);
                }
            }
            InputsMut::Tokens(to) => {
                for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
                    to.copy_from_slice(&self.tokens[row as usize * width..][..width]);
                }
            }
        }
        if let TargetsMut::Classes(to) = targets {
            for (to, &row) in to.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}

const CNN: &str = r#"
[[layer]]
kind = "conv2d"
name = "one"
filters = 6
kernel = 3
padding = "same"
activation = "relu"
[[layer]]
kind = "max-pool"
size = 2
[[layer]]
kind = "dropout"
rate = 0.2
[[layer]]
kind = "flatten"
[[layer]]
kind = "dense"
units = 12
activation = "tanh"
[[layer]]
kind = "dense"
"#;

const BATCH_NORM: &str = r#"
[[layer]]
kind = "conv2d"
name = "stem"
filters = 8
kernel = 3
padding = "same"
bias = false
[[layer]]
kind = "batch-norm"
[[layer]]
kind = "relu6"
name = "r1"
[[layer]]
kind = "conv2d"
name = "depth"
filters = 8
kernel = 3
padding = "same"
groups = 8
bias = false
[[layer]]
kind = "batch-norm"
[[layer]]
kind = "relu6"
[[layer]]
kind = "conv2d"
name = "point"
filters = 8
kernel = 1
bias = false
[[layer]]
kind = "batch-norm"
name = "linear"
[[layer]]
kind = "add"
from = "r1"
[[layer]]
kind = "avg-pool"
size = 2
[[layer]]
kind = "global-avg-pool"
[[layer]]
kind = "dense"
"#;

const GROUP_NORM: &str = r#"
[[layer]]
kind = "conv2d"
name = "stem"
filters = 8
kernel = 3
padding = "same"
[[layer]]
kind = "group-norm"
groups = 2
[[layer]]
kind = "relu"
name = "r"
[[layer]]
kind = "conv2d"
name = "two"
filters = 8
kernel = 3
padding = "same"
stride = 1
[[layer]]
kind = "add"
from = "r"
[[layer]]
kind = "relu"
[[layer]]
kind = "global-avg-pool"
[[layer]]
kind = "dense"
"#;

const TOKENS: &str = r#"
[[layer]]
kind = "embedding"
size = 8
[[layer]]
kind = "group-norm"
groups = 1
[[layer]]
kind = "global-avg-pool"
[[layer]]
kind = "dense"
units = 8
activation = "gelu"
[[layer]]
kind = "dense"
"#;

fn cases() -> Vec<(&'static str, &'static str, InputSpec)> {
    let image = || InputSpec::Real(vec![8, 8, 2]);
    let tokens = InputSpec::Tokens {
        length: 12,
        vocabulary: 30,
    };
    vec![
        ("cnn", CNN, image()),
        ("batch norm", BATCH_NORM, image()),
        ("group norm", GROUP_NORM, image()),
        ("tokens", TOKENS, tokens),
    ]
}

fn plain(text: &str, input: &InputSpec) -> Model {
    let def = toml::from_str::<ModelDef>(text).unwrap();
    Model::new(&def, input, TargetSpec::Class { classes: CLASSES }).unwrap()
}

fn model(text: &str, input: &InputSpec, options: QatOptions) -> Arc<Model> {
    Arc::new(plain(text, input).with_ranges(options).unwrap())
}

/// Parameters after so many steps at batch 16.
fn train(
    model: &Arc<Model>,
    kernels: &'static Kernels,
    forward: QatForward,
    data: &Quarters,
    steps: u64,
) -> Vec<f32> {
    let mut stream = stream(5);
    let global = model.init(&mut stream);
    let mut session = Session::quantization_aware(Arc::clone(model), kernels, forward).unwrap();
    session.start(global.values(), &Optimizer::SGD, 16);
    for number in 0..steps {
        let rows = (0..16).map(|_| stream.below(data.len() as u64) as u32);
        let rows = rows.collect::<Vec<_>>();
        let step = Step {
            optimizer: Optimizer::SGD,
            rate: 0.1,
            number,
            max_norm: None,
            proximal_mu: 0.0,
            anchor: &[],
        };
        session.step(data, &rows, &step, &mut stream).unwrap();
    }
    session.weights().to_vec()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn all_kernels_train_the_same_bits() {
    for (name, text, input) in cases() {
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            let data = Quarters::new(input.clone(), 64, 1);
            let options = QatOptions {
                granularity,
                ..QatOptions::default()
            };
            let model = model(text, &input, options);
            for forward in [QatForward::Integer, QatForward::Fake] {
                let trained = Kernels::all_available()
                    .iter()
                    .map(|kernels| bits(&train(&model, kernels, forward, &data, 5)));
                let trained = trained.collect::<Vec<_>>();
                for other in &trained[1..] {
                    assert!(*other == trained[0], "{name} {granularity:?} {forward:?}");
                }
            }
        }
    }
}

/// Outputs as multiples of a step of the output's point.
fn outputs(model: &Arc<Model>, forward: QatForward, weights: &[f32], data: &Quarters) -> Vec<f32> {
    let kernels = Kernels::best();
    let mut session = Session::quantization_aware(Arc::clone(model), kernels, forward).unwrap();
    session.start(weights, &Optimizer::SGD, 1);
    let rows = (0..data.len() as u32).collect::<Vec<_>>();
    session.outputs(data, &rows).unwrap()
}

/// Trained for a few hundred steps, the session's own evaluation, the twin's and the exported
/// program's give the same outputs: the program's every bit, the twin's within a step on 99.9 %.
fn is_served(case: usize) {
    let (name, text, input) = cases().remove(case);
    let data = Quarters::new(input.clone(), 512, 1);
    let test = Quarters::new(input.clone(), 500, 2);
    let model = model(text, &input, QatOptions::default());
    let kernels = Kernels::best();
    let weights = train(&model, kernels, QatForward::Integer, &data, 300);
    let integer = outputs(&model, QatForward::Integer, &weights, &test);

    let quantization = model.quantization(&weights).unwrap();
    let last = model.summary().last().unwrap().name.clone();
    let step = quantization.point(&last).unwrap().scale();
    let numerics = Numerics::Int8(quantization);
    let program = Program::compile(&model, &weights, &numerics, Passes::ALL).unwrap();
    let mut runner = Runner::new(Arc::new(program), 32);
    let mut served = vec![0.0; integer.len()];
    runner.run(test.inputs(), &mut served);
    assert_eq!(bits(&served), bits(&integer), "{name}");

    let fake = outputs(&model, QatForward::Fake, &weights, &test);
    let steps = integer.iter().zip(&fake);
    let steps = steps.map(|(a, b)| ((a - b) / step).abs().round() as u32);
    let steps = steps.collect::<Vec<_>>();
    let apart = steps.iter().filter(|&&steps| steps > 1).count();
    assert!(
        apart * 1000 <= steps.len(),
        "{name}: {apart} of {} outputs more than a step apart",
        steps.len()
    );

    let correct = integer.chunks_exact(CLASSES).zip(&test.labels);
    let correct = correct.filter(|(z, label)| z.iter().all(|other| *other <= z[**label as usize]));
    let share = correct.count() as f64 / test.labels.len() as f64;
    assert!(share > 0.8, "{name}: {share} correct");
}

#[test]
fn a_trained_cnn_is_what_is_served() {
    is_served(0);
}

#[test]
fn a_trained_network_with_batch_norm_is_what_is_served() {
    is_served(1);
}

#[test]
fn a_trained_network_with_group_norm_is_what_is_served() {
    is_served(2);
}

#[test]
fn a_trained_network_on_tokens_is_what_is_served() {
    is_served(3);
}

/// Every model of the zoo, trained for a few steps: the session's evaluation and the exported
/// program agree in every bit, under each set of kernels.
#[test]
fn every_model_of_the_zoo_is_served_as_it_was_trained() {
    let takes_images = |kind: &str| {
        let example = fl_edge::ModelDef::named(kind).and_then(|def| def.example());
        matches!(example, Some((InputSpec::Real(_), _)))
    };
    let named = fl_edge::MODELS
        .iter()
        .filter(|(kind, _)| takes_images(kind))
        .map(|(kind, _)| format!("kind = \"{kind}\""));
    let group = "kind = \"mobilenet-v2\"\nnorm = \"group\"".to_owned();
    for text in named.chain([group]) {
        let side = if text.contains("cnn-fedavg") { 28 } else { 16 };
        let input = InputSpec::Real(vec![side, side, 3]);
        let data = Quarters::new(input.clone(), 16, 1);
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            let options = QatOptions {
                granularity,
                ..QatOptions::default()
            };
            let model = model(&text, &input, options);
            let weights = train(&model, Kernels::best(), QatForward::Integer, &data, 2);
            let trained = outputs(&model, QatForward::Integer, &weights, &data);
            let numerics = Numerics::Int8(model.quantization(&weights).unwrap());
            let program = Program::compile(&model, &weights, &numerics, Passes::ALL).unwrap();
            let mut runner = Runner::new(Arc::new(program), 16);
            let mut served = vec![0.0; trained.len()];
            runner.run(data.inputs(), &mut served);
            assert_eq!(bits(&served), bits(&trained), "{text} {granularity:?}");
            let different = bits(&served)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>();
            assert!(
                different.len() > 3,
                "{text}: {} outputs differ",
                different.len()
            );
        }
    }
}

fn plan(optimizer: Optimizer, precision: Precision) -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(2).unwrap()),
        batch: BatchSize::Examples(NonZeroU32::new(10).unwrap()),
        order: ExampleOrder::Shuffled,
        optimizer,
        learning_rate: LearningRate::constant(0.05),
        max_gradient_norm: Some(2.0),
        proximal_mu: 0.1,
        precision,
        privacy: None,
    }
}

fn fit(
    trainer: &mut EdgeTrainer,
    global: &Parameters,
    data: &Quarters,
    plan: &LocalPlan,
    round: u64,
) -> Result<Vec<f32>, TrainError> {
    let mut update = vec![0.0; global.values().len()];
    let mut task = [FitTask {
        client: ClientId(1),
        round: RoundId(round),
        data,
        plan,
        limit: WorkLimit::Full,
        stream: stream(9),
        update: &mut update,
    }];
    trainer.fit(global, &mut task, &mut [LocalResult::default()])?;
    Ok(update)
}

/// Ranges move with the observations alone: by no optimizer, decay or proximal term, not at all
/// from a round on, and not in 32-bit training.
#[test]
fn a_trainer_moves_ranges_with_the_observations_alone() {
    let (_, text, input) = cases().remove(1);
    let data = Quarters::new(input.clone(), 40, 3);
    let options = QatOptions {
        freeze_ranges: Some(7),
        freeze_statistics: Some(7),
        ..QatOptions::default()
    };
    let model = model(text, &input, options);
    let without = plain(text, &input).parameters();
    assert_eq!(model.layout().tensors()[0].offset, 0);
    let decay = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: false,
        weight_decay: 0.3,
    };
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        decoupled: true,
    };
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    let mut global = model.init(&mut stream(1));
    let first = fit(
        &mut trainer,
        &global,
        &data,
        &plan(decay, Precision::QatInt8),
        0,
    )
    .unwrap();
    assert!(
        first[without..]
            .chunks_exact(2)
            .all(|range| range[0] <= 0.0 || range[0] < range[1])
    );
    assert!(first[without..].chunks_exact(2).all(|range| range[1] > 0.0));
    for (value, update) in global.values_mut().iter_mut().zip(&first) {
        *value += update;
    }
    for optimizer in [Optimizer::SGD, decay, adam] {
        let qat = plan(optimizer, Precision::QatInt8);
        let moved = fit(&mut trainer, &global, &data, &qat, 6).unwrap();
        let again = fit(&mut trainer, &global, &data, &qat, 6).unwrap();
        assert_eq!(bits(&moved), bits(&again));
        assert!(moved[without..].iter().any(|update| *update != 0.0));
        let frozen = fit(&mut trainer, &global, &data, &qat, 7).unwrap();
        assert!(frozen[without..].iter().all(|update| *update == 0.0));
        assert!(frozen[..without].iter().any(|update| *update != 0.0));
        for tensor in model.layout().tensors() {
            if tensor.name.contains("running") {
                assert!(frozen[tensor.range()].iter().all(|update| *update == 0.0));
                assert!(moved[tensor.range()].iter().any(|update| *update != 0.0));
            }
        }
        let real = plan(optimizer, Precision::F32);
        let real = fit(&mut trainer, &global, &data, &real, 6).unwrap();
        assert!(real[without..].iter().all(|update| *update == 0.0));
        // Another trainer, fresh, gives the same.
        let mut other = EdgeTrainer::new(Arc::clone(&model));
        let other = fit(&mut other, &global, &data, &qat, 6).unwrap();
        assert_eq!(bits(&moved), bits(&other));
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let (_, text, input) = cases().remove(0);
    let data = Quarters::new(input.clone(), 40, 3);
    let without = Arc::new(plain(text, &input));
    let global = without.init(&mut stream(1));
    assert_eq!(without.quantization(global.values()), None);
    let mut trainer = EdgeTrainer::new(Arc::clone(&without));
    let qat = plan(Optimizer::SGD, Precision::QatInt8);
    let error = fit(&mut trainer, &global, &data, &qat, 0).unwrap_err();
    assert!(error.to_string().contains("with_ranges"), "{error}");
    assert!(Session::quantization_aware(without, Kernels::best(), QatForward::Integer).is_none());
    for momentum in [0.0, 1.5, f32::NAN] {
        let options = QatOptions {
            momentum,
            ..QatOptions::default()
        };
        let error = plain(text, &input).with_ranges(options).unwrap_err();
        assert!(matches!(error, EdgeError::QatMomentum { .. }), "{error}");
    }
    let lone = "[[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"batch-norm\"\nname = \"bn\"\n[[layer]]\nkind = \"dense\"\n";
    let error = plain(lone, &input)
        .with_ranges(QatOptions::default())
        .unwrap_err();
    assert_eq!(
        error,
        EdgeError::QatLayer {
            layer: "bn".to_owned()
        }
    );
    let ranged = model(text, &input, QatOptions::default());
    let global = ranged.init(&mut stream(1));
    assert_eq!(
        ranged.quantization(global.values()),
        None,
        "nothing was observed"
    );
}

/// Before quantization starts, training is that in 32 bits, bit for bit, and no range is seen; the
/// model is then calibrated to be served.
#[test]
fn quantization_starts_when_asked() {
    let (_, text, input) = cases().remove(0);
    let data = Quarters::new(input.clone(), 64, 3);
    let options = QatOptions {
        delay: 3,
        ..QatOptions::default()
    };
    let model = model(text, &input, options);
    let without = plain(text, &input).parameters();
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    let global = model.init(&mut stream(1));
    let [qat, real] =
        [Precision::QatInt8, Precision::F32].map(|precision| plan(Optimizer::SGD, precision));
    let mut at = |plan, round| fit(&mut trainer, &global, &data, plan, round).unwrap();
    let expected = at(&real, 2);
    assert_eq!(bits(&at(&qat, 2)), bits(&expected));
    assert!(expected[without..].iter().all(|update| *update == 0.0));
    let started = at(&qat, 3);
    assert!(started[without..].iter().any(|update| *update != 0.0));
    assert_ne!(bits(&started[..without]), bits(&expected[..without]));
    let served = calibrated(&model, global.values(), &data).unwrap();
    assert!(served.evaluate(&data, 0..64).unwrap().loss().is_finite());
}

/// From ranges that are far too narrow, as the average over other clients may be, the first step
/// loses no gradient: no value of a training batch is cut off.
#[test]
fn ranges_that_are_too_narrow_lose_no_gradient() {
    let (_, text, input) = cases().remove(0);
    let data = Quarters::new(input.clone(), 64, 3);
    let model = model(text, &input, QatOptions::default());
    let without = plain(text, &input).parameters();
    let mut global = model.init(&mut stream(1));
    let mut updates = Vec::new();
    for scale in [1.0, 0.01] {
        let mut trainer = EdgeTrainer::new(Arc::clone(&model));
        let mut once = plan(Optimizer::SGD, Precision::QatInt8);
        once.work = LocalWork::Steps(NonZeroU32::MIN);
        if scale > 0.5 {
            let seen = fit(&mut trainer, &global, &data, &once, 0).unwrap();
            global.values_mut()[without..].copy_from_slice(&seen[without..]);
        }
        for end in &mut global.values_mut()[without..] {
            *end *= scale;
        }
        updates.push(fit(&mut trainer, &global, &data, &once, 0).unwrap());
    }
    let [wide, narrow] = [0, 1].map(|at: usize| &updates[at][..without]);
    assert_eq!(bits(wide), bits(narrow));
    assert!(wide.iter().any(|update| update.abs() > 1e-3));
}

/// Served by min-max ranges of the data.
fn calibrated(
    model: &Arc<Model>,
    parameters: &[f32],
    data: &Quarters,
) -> Result<Box<dyn ServedModel>, TrainError> {
    let observed = Observed::Examples(data);
    let (method, granularity) = (Calibration::MinMax, Granularity::Channel);
    serve_int8(model, parameters, observed, method, granularity)
}

/// Without trained ranges a served model is calibrated, by examples or by counts; a diverged one
/// is data, not an error.
#[test]
fn a_model_without_ranges_is_calibrated() {
    let (_, text, input) = cases().remove(2);
    let data = Quarters::new(input.clone(), 256, 3);
    let model = Arc::new(plain(text, &input));
    let mut global = model.init(&mut stream(1));
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    for _ in 0..3 {
        let update = fit(
            &mut trainer,
            &global,
            &data,
            &plan(Optimizer::SGD, Precision::F32),
            0,
        );
        for (value, update) in global.values_mut().iter_mut().zip(update.unwrap()) {
            *value += update;
        }
    }
    assert!(needs_calibration(&model, global.values()));
    let served = calibrated(&model, global.values(), &data).unwrap();
    let int8 = served.evaluate(&data, 0..256).unwrap();
    let real = trainer.evaluate(global.values(), &data, 0..256).unwrap();
    assert!((int8.accuracy() - real.accuracy()).abs() <= 0.03);
    assert!(
        (int8.loss() - real.loss()).abs() <= 0.05,
        "{int8:?} {real:?}"
    );

    let by = |parameters: &[f32], observed: Observed<'_>| {
        let (method, granularity) = (Calibration::MinMax, Granularity::Channel);
        serve_int8(&model, parameters, observed, method, granularity)
    };
    let mut probe = Probe::new(&model, global.values()).unwrap();
    let mut counts = probe.histograms(Bins::default());
    let diverged = by(global.values(), Observed::Histograms(&counts)).unwrap();
    assert!(diverged.evaluate(&data, 0..9).unwrap().loss().is_nan());
    let samples = Samples::all(&model, &data).unwrap();
    probe.count(&samples, &mut counts).unwrap();
    let pooled = by(global.values(), Observed::Histograms(&counts)).unwrap();
    let pooled = pooled.evaluate(&data, 0..256).unwrap();
    assert!((pooled.accuracy() - real.accuracy()).abs() <= 0.03);
    assert!(by(global.values(), Observed::Nothing).is_err());

    // Finite parameters whose activations are not, and parameters that are not.
    let mut diverged = global.values().to_vec();
    for value in &mut diverged {
        *value *= 1e30;
    }
    assert!(needs_calibration(&model, &diverged));
    for value in [1e30, f32::NAN] {
        diverged[3] = value;
        let served = calibrated(&model, &diverged, &data).unwrap();
        let score = served.evaluate(&data, 10..300).unwrap();
        assert!(score.loss().is_nan() && score.examples == 246 && score.correct == 0);
    }
    assert!(!needs_calibration(&model, &diverged));
    assert!(calibrated(&model, &[0.0], &data).is_err());
}
