//! Private steps, against a loop over examples and plain arithmetic.

use std::num::NonZeroUsize;
use std::sync::Arc;

use fl_core::{InputSpec, Optimizer, Parameters, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::{Clipping, DpSgd, DpSgdError, GaussianNoise, Model, PerExampleError, Session, Step};

use crate::common::{Case, operators, stream};
use crate::examples::{ghosts, norm, session, start};

/// What norms are held to, of the bound.
const MARGIN: f64 = 1.0 - 1.0 / 32_768.0;

const CLIPPINGS: [Clipping; 3] = [
    Clipping::Flat,
    Clipping::PerLayer,
    Clipping::Automatic { stability: 0.01 },
];

fn sgd(weights: &Parameters, rate: f32) -> Step<'_> {
    Step {
        optimizer: Optimizer::SGD,
        rate,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: weights.values(),
    }
}

fn silent(_: f64, _: &mut [f32]) {
    panic!("no noise was asked for");
}

/// The clipped sum over `expected`, one example after the other, in `f64`.
fn twin(
    case: &Case,
    gradients: &[Vec<f32>],
    clipping: Clipping,
    most: f64,
    expected: f64,
) -> Vec<f64> {
    let tensors = case.model.layout().tensors();
    let layer = |index: usize| tensors[index].name.rsplit_once('.').map(|(layer, _)| layer);
    let mut layers = (0..tensors.len()).map(layer).collect::<Vec<_>>();
    layers.dedup();
    let most = most * MARGIN;
    let mut sum = vec![0.0; case.model.parameters()];
    for gradient in gradients {
        for (index, tensor) in tensors.iter().enumerate() {
            let factor = match clipping {
                Clipping::Flat => (most / norm(gradient)).min(1.0),
                Clipping::Automatic { stability } => most / (norm(gradient) + f64::from(stability)),
                Clipping::PerLayer => {
                    let own = (0..tensors.len()).filter(|&other| layer(other) == layer(index));
                    let squares = own.map(|other| norm(&gradient[tensors[other].range()]).powi(2));
                    let own = squares.sum::<f64>().sqrt();
                    (most / (layers.len() as f64).sqrt() / own).min(1.0)
                }
                _ => unreachable!("these are all"),
            };
            for at in tensor.range() {
                sum[at] += factor * f64::from(gradient[at]) / expected;
            }
        }
    }
    sum
}

#[test]
fn steps_are_those_of_a_loop_over_examples() {
    for case in operators().iter().chain(&ghosts()) {
        if case.has_batch_norm() {
            continue;
        }
        let weights = start(case);
        let data = case.data(9);
        let rows = [4u32, 1, 8, 8, 0, 7, 2];
        let mut alone = session(case, &weights, Kernels::best());
        let mut random = stream(5);
        let gradients = rows.map(|row| {
            let loss = alone.gradient(&data, &[row], &mut random);
            loss.expect("good examples");
            alone.gradients().to_vec()
        });
        let mut norms = gradients.each_ref().map(|g| norm(g));
        norms.sort_by(f64::total_cmp);
        for clipping in CLIPPINGS {
            // Half of the examples are clipped; the denominator is not their number.
            let (most, expected) = (norms[3] * 0.999, 5.5);
            let found = twin(case, &gradients, clipping, most, expected);
            let scale = found.iter().fold(0.0f64, |most, g| most.max(g.abs()));
            let private = DpSgd::new(clipping, most, 0.0, expected).expect("in range");

            // A step that keeps the gradient.
            let stored = Step {
                max_norm: Some(1e9),
                ..sgd(&weights, 0.1)
            };
            let mut kept = session(case, &weights, Kernels::best());
            kept.private_step(&data, &rows, &private, &stored, &mut stream(5), &mut silent)
                .expect("examples of the model");
            for (at, (found, expected)) in kept.gradients().iter().zip(&found).enumerate() {
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-5 * scale,
                    "{}, {clipping:?}: gradient {at} is {found}, one by one {expected}",
                    case.name
                );
            }
            // One that does not, with noise that can be told.
            let noisy = DpSgd::new(clipping, most, 0.25, expected).expect("in range");
            let mut moved = session(case, &weights, Kernels::best());
            let mut told = 0;
            let mut ramp = |scale: f64, values: &mut [f32]| {
                let std = 0.25 * most / expected;
                assert!((scale + f64::from(0.1f32) * std).abs() < 1e-12 * std);
                for value in values {
                    *value += (scale * f64::from(told % 7 - 3)) as f32;
                    told += 1;
                }
            };
            moved
                .private_step(
                    &data,
                    &rows,
                    &noisy,
                    &sgd(&weights, 0.1),
                    &mut stream(5),
                    &mut ramp,
                )
                .expect("examples of the model");
            let std = 0.25 * most / expected;
            for (at, (found, before)) in found.iter().zip(weights.values()).enumerate() {
                let noise = std * (at as f64 % 7.0 - 3.0);
                let expected = f64::from(*before) - 0.1 * (found + noise);
                let found = f64::from(moved.weights()[at]);
                let rounding = 3e-7 * (before.abs() + 1e-3);
                assert!(
                    (found - expected).abs() < 2e-6 * (scale + std) + f64::from(rounding),
                    "{}, {clipping:?}: weight {at} is {found}, expected {expected}",
                    case.name
                );
            }

            // One example more moves the sum by no more than the bound.
            for row in 0..9 {
                let one = DpSgd::new(clipping, most, 0.0, 1.0).expect("in range");
                kept.start(weights.values(), &Optimizer::SGD, 1);
                kept.private_step(&data, &[row], &one, &stored, &mut stream(5), &mut silent)
                    .expect("an example of the model");
                assert!(
                    norm(kept.gradients()) <= most,
                    "{}, {clipping:?}",
                    case.name
                );
            }
        }
    }
}

/// A bound beyond every norm and no noise: SGD.
#[test]
fn without_bound_and_noise_it_is_sgd() {
    let momentum = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.01,
    };
    let decay = Optimizer::Sgd {
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.01,
    };
    for case in operators() {
        if case.has_batch_norm() {
            continue;
        }
        let weights = start(&case);
        let data = case.data(9);
        let rows = [4u32, 1, 8, 8, 0, 7, 2];
        for optimizer in [Optimizer::SGD, momentum, decay] {
            let step = Step {
                optimizer,
                proximal_mu: 0.1,
                ..sgd(&weights, 0.1)
            };
            let begin = || {
                let mut session = Session::new(case.model.clone(), Kernels::best());
                session.start(weights.values(), &optimizer, rows.len());
                session
            };
            let (mut plain, mut private) = (begin(), begin());
            let dp = DpSgd::new(Clipping::Flat, 1e15, 0.0, rows.len() as f64).expect("in range");
            let mut masks = [stream(5), stream(5)];
            for _ in 0..3 {
                let [first, second] = &mut masks;
                let loss = plain
                    .step(&data, &rows, &step, first)
                    .expect("good examples");
                let clipped = private
                    .private_step(&data, &rows, &dp, &step, second, &mut silent)
                    .expect("good examples");
                assert!((clipped.loss - loss).abs() < 1e-5 * loss.abs());
                assert_eq!(clipped.clipped, 0);
            }
            let scale = norm(plain.weights()) / (plain.weights().len() as f64).sqrt();
            for (found, expected) in private.weights().iter().zip(plain.weights()) {
                let off = f64::from((found - expected).abs());
                assert!(
                    off < 1e-5 * (scale + f64::from(expected.abs())),
                    "{}",
                    case.name
                );
            }
        }
    }
}

/// Kernels, and working through a batch in parts, change no bit, whatever the optimizer.
#[test]
fn kernels_and_parts_give_the_same_bits() {
    let momentum = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: false,
        weight_decay: 0.0,
    };
    for case in operators().iter().chain(&ghosts()) {
        if case.has_batch_norm() {
            continue;
        }
        let weights = start(case);
        let data = case.data(9);
        for optimizer in [Optimizer::SGD, momentum] {
            for clipping in CLIPPINGS {
                let run = |kernels: &'static Kernels, most: usize| {
                    let most = NonZeroUsize::new(most).expect("not zero");
                    let mut session =
                        Session::new(case.model.clone(), kernels).with_most_rows(most);
                    session.start(weights.values(), &optimizer, 7);
                    let dp = DpSgd::new(clipping, 0.5, 1.1, 6.0).expect("in range");
                    let mut noise = GaussianNoise::with_kernels(&mut stream(6), kernels);
                    let mut masks = stream(5);
                    let step = Step {
                        optimizer,
                        ..sgd(&weights, 0.1)
                    };
                    let mut clipped = Vec::new();
                    for rows in [&[4u32, 1, 8, 8, 0, 7, 2][..], &[], &[3]] {
                        let one = session.private_step(
                            &data,
                            rows,
                            &dp,
                            &step,
                            &mut masks,
                            &mut |scale, values| noise.add(scale, values),
                        );
                        clipped.push(one.expect("good examples"));
                    }
                    let bits = session.weights().iter().map(|w| w.to_bits());
                    (clipped, bits.collect::<Vec<_>>())
                };
                let all = Kernels::all_available();
                let first = run(&all[0], 7);
                for kernels in &all[1..] {
                    assert!(run(kernels, 7) == first, "{}", case.name);
                }
                assert!(run(&all[0], 2) == first, "{} in parts", case.name);
            }
        }
    }
}

#[test]
fn an_empty_batch_is_noise_and_a_step() {
    let case = Case::new(
        "logreg",
        "kind = \"logreg\"",
        &InputSpec::Real(vec![900]),
        TargetSpec::Class { classes: 10 },
    );
    let weights = Parameters::zeros(Arc::clone(case.model.layout()));
    let data = case.data(3);
    let dp = DpSgd::new(Clipping::Flat, 2.0, 1.5, 10.0).expect("in range");
    assert!((dp.noise_std() - 0.3).abs() < 1e-15);
    let mut session = session(&case, &weights, Kernels::best());
    let mut noise = GaussianNoise::new(&mut stream(1));
    let clipped = session
        .private_step(
            &data,
            &[],
            &dp,
            &sgd(&weights, 0.5),
            &mut stream(5),
            &mut |scale, values| noise.add(scale, values),
        )
        .expect("nothing is wrong with nothing");
    assert!(clipped.clipped == 0 && clipped.loss.abs() <= 0.0);
    // 9,010 numbers of deviation 0.15.
    let n = session.weights().len() as f64;
    let deviation = norm(session.weights()) / n.sqrt();
    assert!(
        (deviation - 0.15).abs() < 5.0 * 0.15 / (2.0 * n).sqrt(),
        "{deviation}"
    );
    // The next step's noise is new.
    let before = session.weights().to_vec();
    session
        .private_step(
            &data,
            &[],
            &dp,
            &sgd(&weights, 0.5),
            &mut stream(5),
            &mut |scale, values| noise.add(scale, values),
        )
        .expect("nothing is wrong with nothing");
    let after = session.weights().iter().zip(&before);
    let same = after.filter(|(after, before)| (*after - 2.0 * *before).abs() < 1e-6);
    assert!(same.count() < 3);
}

#[test]
fn what_is_refused() {
    let row = InputSpec::Real(vec![9]);
    let target = TargetSpec::Class { classes: 3 };
    let case = Case::new("logreg", "kind = \"logreg\"", &row, target);
    let weights = start(&case);
    let mut data = case.data(3);
    let dp = DpSgd::new(Clipping::Flat, 0.1, 0.0, 2.0).expect("in range");
    let step = sgd(&weights, 0.1);

    // An example that overflows is left out.
    let mut good = session(&case, &weights, Kernels::best());
    good.private_step(&data, &[0, 2], &dp, &step, &mut stream(5), &mut silent)
        .expect("good examples");
    data.reals[9] = f32::NAN;
    let mut found = session(&case, &weights, Kernels::best());
    let clipped = found
        .private_step(&data, &[0, 1, 2], &dp, &step, &mut stream(5), &mut silent)
        .expect("good labels");
    assert!(clipped.clipped >= 1);
    assert_eq!(found.weights(), good.weights());

    // After an error nothing has moved.
    data.labels[2] = 9;
    let mut found = session(&case, &weights, Kernels::best());
    let error = found
        .private_step(&data, &[0, 2], &dp, &step, &mut stream(5), &mut silent)
        .expect_err("a bad label");
    assert!(matches!(error, PerExampleError::BadExample(_)), "{error}");
    assert_eq!(found.weights(), weights.values());

    // Examples that depend on one another, and ranges that are observed batch by batch.
    for case in operators() {
        let weights = start(&case);
        let data = case.data(2);
        if case.has_batch_norm() {
            let error = session(&case, &weights, Kernels::best())
                .private_step(
                    &data,
                    &[0],
                    &dp,
                    &sgd(&weights, 0.1),
                    &mut stream(5),
                    &mut silent,
                )
                .expect_err("batch normalisation");
            assert_eq!(error, PerExampleError::BatchNorm);
        }
    }
    let model = Model::new(&case.def, case.model.input(), case.model.target());
    let model = model.and_then(|model| model.with_ranges(QatOptions::default()));
    let model = Arc::new(model.expect("dense layers have ranges"));
    let global = model.init(&mut stream(3));
    let mut qat = Session::quantization_aware(model, Kernels::best(), QatForward::Integer)
        .expect("the model has ranges");
    qat.start(global.values(), &Optimizer::SGD, 2);
    let error = qat
        .private_step(
            &data,
            &[0],
            &dp,
            &sgd(&global, 0.1),
            &mut stream(5),
            &mut silent,
        )
        .expect_err("quantization-aware");
    assert_eq!(error, PerExampleError::QuantizationAware);

    for (clipping, max_norm, noise, expected, name) in [
        (Clipping::Flat, 0.0, 1.0, 1.0, "max_norm"),
        (Clipping::Flat, f64::NAN, 1.0, 1.0, "max_norm"),
        (Clipping::Flat, f64::INFINITY, 1.0, 1.0, "max_norm"),
        (Clipping::PerLayer, 1.0, -1.0, 1.0, "noise_multiplier"),
        (Clipping::PerLayer, 1.0, f64::NAN, 1.0, "noise_multiplier"),
        (Clipping::Flat, 1.0, 1.0, 0.0, "expected_batch"),
        (
            Clipping::Automatic { stability: 0.0 },
            1.0,
            1.0,
            1.0,
            "stability",
        ),
    ] {
        let error = DpSgd::new(clipping, max_norm, noise, expected).expect_err(name);
        let DpSgdError::OutOfRange { name: found, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(found, name);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
