//! Batch normalisation's running statistics: what moves them, what does not, what reads them.

use crate::common::{Case, operators, stream};
use fl_core::{InputSpec, Optimizer, Parameters, TargetSpec, Trainer as _};
use fl_edge::kernel::Kernels;
use fl_edge::{EdgeTrainer, Session, Step};

const WIDTH: usize = 9;

/// The input is normalised, so that its statistics are known.
fn case() -> Case {
    Case::new(
        "normalised input",
        "layer = [{ kind = \"batch-norm\", name = \"norm\", momentum = 0.3 }, { kind = \"dense\", name = \"fc\" }]",
        &InputSpec::Real(vec![WIDTH]),
        TargetSpec::Class { classes: 3 },
    )
}

fn start(case: &Case) -> Parameters {
    let mut random = stream(3);
    let mut weights = case.model.init(&mut random);
    for value in weights.values_mut() {
        *value += 0.1 * random.normal() as f32;
    }
    weights
}

fn part<'a>(case: &Case, weights: &'a [f32], name: &str) -> &'a [f32] {
    &weights[case.model.layout().tensor(name).expect("a tensor").range()]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The parameters after one step.
fn step(case: &Case, optimizer: Optimizer, max_norm: Option<f32>, mu: f32) -> Vec<f32> {
    let (data, global) = (case.data(6), start(case));
    let mut session = Session::new(case.model.clone(), Kernels::best());
    session.start(global.values(), &optimizer, 6);
    let anchor = vec![5.0; global.values().len()];
    let step = Step {
        optimizer,
        rate: 0.1,
        number: 0,
        max_norm,
        proximal_mu: mu,
        anchor: &anchor,
    };
    session
        .step(&data, &[0, 1, 2, 3, 4, 5], &step, &mut stream(5))
        .expect("examples of the model");
    session.weights().to_vec()
}

#[test]
fn a_step_moves_them_by_the_batch_and_nothing_else_does() {
    let case = case();
    let (data, before) = (case.data(6), start(&case));
    let after = step(&case, Optimizer::SGD, None, 0.0);
    for feature in 0..WIDTH {
        let values = (0..6).map(|row| f64::from(data.reals[row * WIDTH + feature]));
        let mean = values.clone().sum::<f64>() / 6.0;
        let unbiased = values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / 5.0;
        for (name, batch) in [("norm.running_mean", mean), ("norm.running_var", unbiased)] {
            let old = f64::from(part(&case, before.values(), name)[feature]);
            let new = f64::from(part(&case, &after, name)[feature]);
            let expected = 0.7 * old + 0.3 * batch;
            assert!(
                (new - expected).abs() < 1e-6,
                "{name}: {new} for {expected}"
            );
        }
    }
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-6,
        weight_decay: 0.3,
        decoupled: true,
    };
    let momentum = Optimizer::Sgd {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.3,
    };
    for (optimizer, max_norm, mu) in [
        (momentum, None, 0.5),
        (adam, None, 0.5),
        (Optimizer::SGD, Some(1e-3), 0.5),
        (adam, Some(1e-3), 0.0),
    ] {
        let other = step(&case, optimizer, max_norm, mu);
        for name in ["norm.running_mean", "norm.running_var"] {
            let (a, b) = (part(&case, &after, name), part(&case, &other, name));
            assert_eq!(bits(a), bits(b), "{name} {optimizer:?}");
        }
        for name in ["norm.weight", "fc.weight"] {
            let (a, b) = (part(&case, &after, name), part(&case, &other, name));
            assert_ne!(bits(a), bits(b), "{name} {optimizer:?}");
        }
    }
}

#[test]
fn a_gradient_and_one_value_leave_them_as_they_are() {
    let case = case();
    let (data, global) = (case.data(6), start(&case));
    let mut session = Session::new(case.model.clone(), Kernels::best());
    session.start(global.values(), &Optimizer::SGD, 6);
    session
        .gradient(&data, &[0, 1, 2], &mut stream(5))
        .expect("examples of the model");
    assert_eq!(bits(session.weights()), bits(global.values()));
    for name in ["norm.running_mean", "norm.running_var"] {
        let gradient = part(&case, session.gradients(), name);
        assert_eq!(bits(gradient), vec![0; WIDTH], "{name}");
    }
    // One example has no variance: its normalised values are the shifts.
    let step = Step {
        optimizer: Optimizer::SGD,
        rate: 0.1,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: &[],
    };
    let loss = session.step(&data, &[4], &step, &mut stream(5));
    assert!(loss.expect("examples of the model").is_finite());
    for name in ["norm.running_mean", "norm.running_var"] {
        let (a, b) = (
            part(&case, session.weights(), name),
            part(&case, global.values(), name),
        );
        assert_eq!(bits(a), bits(b), "{name}");
    }
    assert!(session.weights().iter().all(|w| w.is_finite()));
}

#[test]
fn evaluation_reads_them() {
    let case = case();
    let (data, global) = (case.data(4), start(&case));
    let mut session = Session::new(case.model.clone(), Kernels::best());
    session.start(global.values(), &Optimizer::SGD, 4);
    let found = session
        .outputs(&data, &[3, 0])
        .expect("examples of the model");
    let of = |name: &str| part(&case, global.values(), name);
    for (row, found) in [3, 0].into_iter().zip(found.chunks_exact(3)) {
        for (class, found) in found.iter().enumerate() {
            let mut expected = f64::from(of("fc.bias")[class]);
            for i in 0..WIDTH {
                let x = f64::from(data.reals[row * WIDTH + i]);
                let mean = f64::from(of("norm.running_mean")[i]);
                let deviation = (f64::from(of("norm.running_var")[i]) + 1e-5).sqrt();
                let h = (x - mean) / deviation * f64::from(of("norm.weight")[i])
                    + f64::from(of("norm.bias")[i]);
                expected += h * f64::from(of("fc.weight")[i * 3 + class]);
            }
            assert!((f64::from(*found) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn no_lanes() {
    for case in operators().iter().filter(|case| case.has_batch_norm()) {
        let trainer = EdgeTrainer::new(case.model.clone());
        assert_eq!(trainer.lanes(), 1, "{}", case.name);
    }
}
