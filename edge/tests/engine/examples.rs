//! Norms of each example's gradient, and clipped sums, against a loop over batches of one.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::common::{Case, operators, stream};
use fl_core::{InputSpec, Optimizer, Parameters, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::{Model, ModelDef, PerExampleError, Session};

pub(crate) fn start(case: &Case) -> Parameters {
    let mut random = stream(3);
    let mut weights = case.model.init(&mut random);
    for value in weights.values_mut() {
        *value += 0.05 * random.normal() as f32;
    }
    weights
}

pub(crate) fn session(case: &Case, weights: &Parameters, kernels: &'static Kernels) -> Session {
    let mut session = Session::new(case.model.clone(), kernels);
    session.start(weights.values(), &Optimizer::SGD, 1);
    session
}

pub(crate) fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt()
}

/// Compares with the gradients of one example after the other, to `tolerance` of the norm.
pub(crate) fn check(case: &Case, batch: usize, tolerance: f64) {
    let weights = start(case);
    let data = case.data(batch);
    let rows = (0..batch as u32).rev().collect::<Vec<_>>();
    let mut alone = session(case, &weights, Kernels::best());
    let mut random = stream(5);
    let mut losses = 0.0;
    let gradients = rows
        .iter()
        .map(|&row| {
            // Dropout masks are drawn example by example, so the same ones.
            let loss = alone.gradient(&data, &[row], &mut random);
            losses += loss.expect("good examples");
            alone.gradients().to_vec()
        })
        .collect::<Vec<_>>();
    let expected = gradients.iter().map(|g| norm(g)).collect::<Vec<_>>();

    let mut together = session(case, &weights, Kernels::best());
    let found = together.per_example_norms(&data, &rows, &mut stream(5));
    let found = found.expect("no batch normalisation").to_vec();
    assert_eq!(found.len(), batch);
    for example in 0..batch {
        let (found, expected) = (found[example], expected[example]);
        assert!(
            (found - expected).abs() <= tolerance * expected,
            "{}: example {example} has norm {found}, alone {expected}",
            case.name
        );
        for (index, tensor) in case.model.layout().tensors().iter().enumerate() {
            let found = together.example_norm_of(index, example);
            let alone = norm(&gradients[example][tensor.range()]);
            // A ghost norm is the root of a difference.
            assert!(
                (found - alone).abs() <= tolerance * (alone + 0.1 * expected),
                "{}: example {example}, {} has norm {found}, alone {alone}",
                case.name,
                tensor.name
            );
        }
    }

    // Half of the examples are clipped.
    let mut sorted = expected.clone();
    sorted.sort_by(f64::total_cmp);
    let most = (sorted[batch / 2] * 0.999) as f32;
    let clipped = together
        .clipped_gradient(&data, &rows, most, &mut stream(5))
        .expect("no batch normalisation");
    assert_eq!(together.example_norms(), found);
    let above = expected.iter().filter(|norm| **norm > f64::from(most));
    assert_eq!(clipped.clipped, above.count(), "{}", case.name);
    assert!((clipped.loss - losses).abs() < 1e-6 * losses.abs());
    let mut sum = vec![0.0f64; weights.values().len()];
    for (gradient, norm) in gradients.iter().zip(&expected) {
        let factor = (f64::from(most) / norm).min(1.0);
        for (sum, g) in sum.iter_mut().zip(gradient) {
            *sum += factor * f64::from(*g);
        }
    }
    for tensor in case.model.layout().tensors() {
        let expected = &sum[tensor.range()];
        let scale = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let found = &together.gradients()[tensor.range()];
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs()
                    <= tolerance * (scale + 0.01 * f64::from(most)),
                "{}: {} is {found}, one by one {expected} of {scale}",
                case.name,
                tensor.name
            );
        }
    }
}

/// Convolutions whose norms are computed from Gram matrices, in every geometry.
pub(crate) fn ghosts() -> Vec<Case> {
    let image = InputSpec::Real(vec![5, 4, 16]);
    let target = TargetSpec::Class { classes: 3 };
    [
        "kernel = 3\npadding = \"same\"",
        "kernel = 3\nstride = 2\npadding = 1\nactivation = \"relu6\"",
        "kernel = [2, 3]\nstride = [1, 2]\npadding = \"same\"\nbias = false",
        "kernel = 1\nactivation = \"relu\"",
    ]
    .into_iter()
    .map(|keys| {
        let text = format!(
            "[[layer]]\nkind = \"conv2d\"\nname = \"first\"\nfilters = 60\n{keys}\n\
             [[layer]]\nkind = \"conv2d\"\nfilters = 70\n{keys}\n\
             [[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"dense\"\n"
        );
        Case::new("ghost", &text, &image, target)
    })
    .collect()
}

#[test]
fn norms_are_those_of_one_example_alone() {
    for case in operators().iter().chain(&ghosts()) {
        if !case.has_batch_norm() {
            check(case, 7, 1e-5);
        }
    }
}

#[test]
fn the_zoo() {
    let image = |size: usize, channels: usize| InputSpec::Real(vec![size, size, channels]);
    for (text, input) in [
        ("kind = \"logreg\"", image(28, 1)),
        ("kind = \"mlp-2nn\"", image(28, 1)),
        ("kind = \"mlp\"", image(28, 1)),
        ("kind = \"cnn-fedavg\"", image(28, 1)),
        ("kind = \"cnn-pfl\"", image(16, 3)),
        ("kind = \"resnet8-gn\"", image(16, 3)),
        (
            "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\nnorm = \"group\"",
            image(16, 3),
        ),
    ] {
        let case = Case::new("zoo", text, &input, TargetSpec::Class { classes: 10 });
        check(&case, 4, 1e-5);
    }
}

/// Neither the kernels nor the parts of a batch change a bit.
#[test]
fn kernels_and_parts_give_the_same_bits() {
    for case in operators().iter().chain(&ghosts()) {
        if case.has_batch_norm() {
            continue;
        }
        let weights = start(case);
        let data = case.data(9);
        let rows = [4u32, 1, 8, 8, 0, 7, 2];
        let run = |kernels: &'static Kernels, most: usize| {
            let most = NonZeroUsize::new(most).expect("not zero");
            let mut session = Session::new(case.model.clone(), kernels).with_most_rows(most);
            session.start(weights.values(), &Optimizer::SGD, 7);
            let clipped = session.clipped_gradient(&data, &rows, 0.5, &mut stream(5));
            let norms = session.example_norms().iter().map(|n| n.to_bits());
            let gradient = session.gradients().iter().map(|g| g.to_bits());
            (
                clipped.expect("examples of the model"),
                norms.collect::<Vec<_>>(),
                gradient.collect::<Vec<_>>(),
            )
        };
        let all = Kernels::all_available();
        let first = run(&all[0], 7);
        for kernels in all {
            assert!(run(kernels, 7) == first, "{}", case.name);
        }
        assert!(run(&all[0], 2) == first, "{} in parts", case.name);
        // Nothing is clipped: the sum of the gradients, which is seven times that of the mean.
        let mut whole = session(case, &weights, &all[0]);
        whole
            .clipped_gradient(&data, &rows, f32::INFINITY, &mut stream(5))
            .expect("examples of the model");
        let sum = whole.gradients().to_vec();
        whole
            .gradient(&data, &rows, &mut stream(5))
            .expect("good examples");
        let scale = sum.iter().fold(0.0f32, |most, g| most.max(g.abs()));
        for (sum, mean) in sum.iter().zip(whole.gradients()) {
            assert!((sum - 7.0 * mean).abs() < 1e-5 * scale, "{}", case.name);
        }
    }
}

#[test]
fn what_has_no_norm() {
    let image = InputSpec::Real(vec![8, 8, 2]);
    let target = TargetSpec::Class { classes: 3 };
    let def = ModelDef::named("mobilenet-v2").expect("of the zoo");
    let model = Arc::new(Model::new(&def, &image, target).expect("builds"));
    let case = Case {
        name: "batch norm",
        def,
        model,
    };
    let data = case.data(3);
    let mut batch_norm = session(&case, &start(&case), Kernels::best());
    let error = batch_norm
        .per_example_norms(&data, &[0, 1], &mut stream(5))
        .expect_err("refused");
    assert_eq!(error, PerExampleError::BatchNorm);
    assert!(error.to_string().contains("group-norm"), "{error}");

    // An example that overflows is left out; the others are there.
    let row = InputSpec::Real(vec![9]);
    let case = Case::new("logreg", "kind = \"logreg\"", &row, target);
    let mut data = case.data(3);
    let weights = start(&case);
    let mut good = session(&case, &weights, Kernels::best());
    good.clipped_gradient(&data, &[0, 2], 0.1, &mut stream(5))
        .expect("examples of the model");
    data.reals[9] = f32::INFINITY;
    let mut found = session(&case, &weights, Kernels::best());
    let clipped = found
        .clipped_gradient(&data, &[0, 1, 2], 0.1, &mut stream(5))
        .expect("examples of the model");
    assert!(!found.example_norms()[1].is_finite() && clipped.clipped >= 1);
    assert_eq!(found.gradients(), good.gradients());
    data.labels[2] = 9;
    let error = found.clipped_gradient(&data, &[0, 2], 0.1, &mut stream(5));
    let message = error.expect_err("refused").to_string();
    assert_eq!(
        message,
        "example 2 has label 9, and the model has no such class; check the data"
    );
    found
        .clipped_gradient(&data, &[], 0.1, &mut stream(5))
        .expect("nothing");
    assert!(found.gradients().iter().all(|g| g.abs() <= 0.0));
}

/// What is kept until it is weighted is in the plan.
#[test]
fn memory_is_planned() {
    for case in operators().iter().chain(&ghosts()) {
        let (training, each) = (
            case.model.peak_bytes(8, true),
            case.model.peak_bytes_per_example(8),
        );
        assert!(each > training, "{}: {each} {training}", case.name);
        let more = case.model.peak_bytes_per_example(16);
        assert!(more > each, "{}", case.name);
    }
}
