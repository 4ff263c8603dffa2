//! Training a client whose examples are protected.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::common::{Case, Synthetic, operators, stream};
use fl_core::testing::reference::{Blobs, SoftmaxTrainer};
use fl_core::{
    BatchSize, ClientId, ExampleClipping, ExampleOrder, ExamplePrivacy, Examples, FitTask,
    InputSpec, LearningRate, LocalPlan, LocalResult, LocalWork, Optimizer, Parameters, Precision,
    RoundId, TargetSpec, TrainError, Trainer, WorkLimit,
};
use fl_edge::kernel::Kernels;
use fl_edge::{EdgeTrainer, Model, ModelDef};

fn plan(optimizer: Optimizer, privacy: ExamplePrivacy) -> LocalPlan {
    LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(2).expect("not zero")),
        batch: BatchSize::Share(0.3),
        order: ExampleOrder::Shuffled,
        optimizer,
        learning_rate: LearningRate::constant(0.05),
        max_gradient_norm: None,
        proximal_mu: 0.2,
        precision: Precision::F32,
        privacy: Some(privacy),
    }
}

fn fit<T: Trainer>(
    trainer: &mut T,
    global: &Parameters,
    data: &dyn Examples,
    plan: &LocalPlan,
) -> Result<(Vec<f32>, LocalResult), TrainError> {
    let mut update = vec![f32::NAN; global.values().len()];
    let mut results = [LocalResult::default()];
    let mut tasks = [FitTask {
        client: ClientId(7),
        round: RoundId(0),
        data,
        plan,
        limit: WorkLimit::Full,
        stream: stream(4),
        update: &mut update,
    }];
    trainer.fit(global, &mut tasks, &mut results)?;
    Ok((update, results[0]))
}

fn model(text: &str, input: &InputSpec) -> Arc<Model> {
    let def = toml::from_str::<ModelDef>(text).expect(text);
    let target = TargetSpec::Class { classes: 4 };
    Arc::new(Model::new(&def, input, target).expect(text))
}

/// The readable trainer draws the same batches, so without noise the two agree to rounding, clipped
/// examples, empty batches and all.
#[test]
fn without_noise_it_is_the_algorithm_of_the_paper() {
    let model = model("kind = \"logreg\"", &InputSpec::Real(vec![6]));
    let mut readable = SoftmaxTrainer::new(6, 4);
    let global = model.init(&mut stream(3));
    let cases = [
        (BatchSize::Share(0.3), 2, 0.8),
        (BatchSize::Share(0.02), 1, 0.8),
        (BatchSize::Full, 3, 0.3),
        (
            BatchSize::Examples(NonZeroU32::new(9).expect("not zero")),
            4,
            1e9,
        ),
    ];
    for (batch, epochs, max_norm) in cases {
        let plan = LocalPlan {
            batch,
            work: LocalWork::Epochs(NonZeroU32::new(epochs).expect("not zero")),
            ..plan(Optimizer::SGD, ExamplePrivacy::flat(max_norm, 0.0))
        };
        let data = Blobs::new(1, 40, 6, 4);
        let (update, result) =
            fit(&mut EdgeTrainer::new(model.clone()), &global, &data, &plan).expect("trains");
        let parameters = Parameters::new(Arc::clone(readable.layout()), global.values().to_vec());
        let parameters = parameters.expect("the same tensors");
        let (expected, naive) = fit(&mut readable, &parameters, &data, &plan).expect("trains");
        assert_eq!(result.steps, naive.steps);
        assert_eq!(result.examples_processed, naive.examples_processed);
        assert_eq!(result.examples_clipped, naive.examples_clipped);
        assert_eq!(result.examples_clipped > 0, max_norm < 1e9, "{batch:?}");
        let (loss, expected_loss) = (result.mean_loss, naive.mean_loss);
        assert!(
            (loss - expected_loss).abs() < 1e-4,
            "{loss} and {expected_loss}"
        );
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (found, expected) in update.iter().zip(&expected) {
            // The bound is held to a share of 2^-15 below itself.
            assert!(
                (found - expected).abs() <= 2e-4 * largest,
                "{batch:?}: {found} and {expected}"
            );
        }
    }
}

/// Every optimizer and clipping, the same bits with every kernel.
#[test]
fn every_kernel_protects_with_the_same_bits() {
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-6,
        weight_decay: 0.01,
        decoupled: true,
    };
    let momentum = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.01,
    };
    let clippings = [
        (Optimizer::SGD, ExampleClipping::Flat),
        (momentum, ExampleClipping::PerLayer),
        (adam, ExampleClipping::Automatic { stability: 0.01 }),
    ];
    for case in operators().iter().filter(|case| !case.has_batch_norm()) {
        let data = case.data(11);
        let global = case.model.init(&mut stream(3));
        for (optimizer, clipping) in clippings {
            let privacy = ExamplePrivacy {
                clipping,
                ..ExamplePrivacy::flat(0.5, 1.5)
            };
            let plan = plan(optimizer, privacy);
            let mut found: Option<Vec<u32>> = None;
            for kernels in Kernels::all_available() {
                let mut trainer = EdgeTrainer::with_kernels(case.model.clone(), kernels);
                let (update, result) = fit(&mut trainer, &global, &data, &plan).expect("trains");
                assert_eq!(result.steps, 6, "{}", case.name);
                let bits: Vec<u32> = update.iter().map(|value| value.to_bits()).collect();
                let same = found.get_or_insert_with(|| bits.clone());
                assert_eq!(*same, bits, "{} with {}", case.name, kernels.name());
            }
        }
    }
}

#[test]
fn what_cannot_protect_says_so() {
    let privacy = ExamplePrivacy::flat(1.0, 1.0);
    let refusal = |case: &Case, plan: &LocalPlan| {
        let global = case.model.init(&mut stream(3));
        let mut trainer = EdgeTrainer::new(case.model.clone());
        let error = fit(&mut trainer, &global, &case.data(9), plan).expect_err(case.name);
        assert!(matches!(error, TrainError::Unsupported { .. }), "{error}");
        error.to_string()
    };
    let cases = operators();
    let with = cases.iter().find(|case| case.has_batch_norm());
    let plain = plan(Optimizer::SGD, privacy);
    assert_eq!(
        refusal(with.expect("a batch normalisation"), &plain),
        "this trainer cannot do protecting single examples of this model: examples have no \
         gradients of their own under batch normalisation; use group-norm layers \
         (norm = \"group\") instead; or protect clients"
    );
    for (privacy, message) in [
        (
            ExamplePrivacy::flat(0.0, 1.0),
            "max_norm of DP-SGD is 0, but must be from 1e-20 to 1e20",
        ),
        (
            ExamplePrivacy::flat(1.0, -1.0),
            "noise_multiplier of DP-SGD is -1, but must be from 0 to 1e6",
        ),
    ] {
        let text = refusal(&cases[0], &plan(Optimizer::SGD, privacy));
        assert!(text.contains(message), "{text}");
    }
    let input = InputSpec::Real(vec![6]);
    let model = Arc::into_inner(model("kind = \"logreg\"", &input)).expect("not shared");
    let model = model.with_ranges(fl_edge::qat::QatOptions::default());
    let model = Arc::new(model.expect("a dense layer"));
    let data = Synthetic::new(&input, TargetSpec::Class { classes: 4 }, 9, 1);
    let quantized = LocalPlan {
        precision: Precision::QatInt8,
        ..plain
    };
    let global = model.init(&mut stream(3));
    let error = fit(&mut EdgeTrainer::new(model), &global, &data, &quantized);
    assert_eq!(
        error.expect_err("ranges are not private").to_string(),
        "this trainer cannot do quantization-aware training that protects single examples; the \
         ranges that it observes would be released without noise; choose precision = \"f32\", or \
         protect clients"
    );
}
