//! Layers of sequences against onnxruntime, and the loss of sequences against its definition.

use fl_core::{InputSpec, NO_TARGET, Optimizer, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::{Numerics, Passes, Program, Session};
use std::sync::Arc;

use crate::common::{Case, Synthetic, operators, stream};
use crate::program::{outputs, trained};

/// Made by `fixtures/sequences_onnxruntime.py`, which says what lies where.
const FIXTURE: &[u8] = include_bytes!("../fixtures/sequences_onnxruntime.bin");

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| u32::from_le_bytes(*word)).collect()
}

#[test]
fn layers_are_those_of_onnxruntime() {
    let (mut rest, mut count) = (FIXTURE, 0);
    while !rest.is_empty() {
        let (head, body) = rest.split_at(32);
        let [kind, batch, length, features, units, parameters, xs, ys] =
            <[u32; 8]>::try_from(words(head)).expect("eight numbers");
        let mut numbers = words(&body[..4 * (parameters + xs + ys) as usize]).into_iter();
        rest = &body[4 * (parameters + xs + ys) as usize..];
        count += 1;
        let mut take = |len: u32| -> Vec<f32> {
            let taken = numbers.by_ref().take(len as usize);
            taken.map(f32::from_bits).collect()
        };
        let (weights, x, y) = (take(parameters), take(xs), take(ys));
        let layer = match kind {
            0 => format!("kind = \"lstm\", units = {units}"),
            1 => format!("kind = \"gru\", units = {units}"),
            _ => format!(
                "kind = \"attention\", heads = {units}, causal = {}",
                kind == 3
            ),
        };
        let case = Case::new(
            "onnxruntime",
            &format!("layer = [{{ {layer} }}, {{ kind = \"flatten\" }}]"),
            &InputSpec::Real(vec![length as usize, features as usize]),
            TargetSpec::Real {
                width: (ys / batch) as usize,
            },
        );
        assert_eq!(case.model.parameters(), weights.len(), "{layer}");
        let mut data = Synthetic::new(case.model.input(), case.model.target(), batch as usize, 1);
        data.reals = x;
        let rows: Vec<u32> = (0..batch).collect();
        for kernels in Kernels::all_available() {
            let mut session = Session::new(Arc::clone(&case.model), kernels);
            session.start(&weights, &Optimizer::SGD, rows.len());
            let found = session.outputs(&data, &rows).expect("good examples");
            for (at, (found, expected)) in found.iter().zip(&y).enumerate() {
                assert!(
                    (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{layer}, {}: number {at} is {found}, onnxruntime {expected}",
                    kernels.name()
                );
            }
        }
    }
    assert_eq!(count, 10);
}

/// In integers the products are rounded, and what lies between them is computed in floats: the
/// outputs stay near.
#[test]
fn integers_are_near() {
    let all = operators();
    for case in all.iter().filter(|case| case.has_sequences()) {
        let (data, parameters) = (case.data(16), trained(&case.model));
        let compile = |numerics: &Numerics| {
            let program = Program::compile(&case.model, &parameters, numerics, Passes::ALL);
            Arc::new(program.expect("compiles"))
        };
        let samples = fl_edge::quant::Samples::spread(&case.model, &data, 16).expect("fits");
        let quantization = samples
            .calibrate(
                &case.model,
                &parameters,
                fl_edge::quant::Calibration::MinMax,
                fl_edge::quant::Granularity::Channel,
            )
            .expect("calibrates");
        let run = |numerics: &Numerics| {
            let program = compile(numerics);
            outputs(&program, &data, 16, 16, Kernels::best())
        };
        let floats = run(&Numerics::F32);
        let integers = run(&Numerics::Int8(quantization));
        let most = floats.iter().fold(0.0f32, |most, y| most.max(y.abs()));
        let error = floats.iter().zip(&integers);
        let error = error.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(
            error > 0.0 && error < 0.1 * most,
            "{}: {error} of {most}",
            case.name
        );
    }
}

/// Loss and gradient of sequences with positions that have no target, in `f64`.
#[test]
fn the_loss_of_a_sequence_is_the_mean_over_its_targets() {
    let (rows, length, classes) = (3usize, 70usize, 4usize);
    let mut random = stream(8);
    let logits: Vec<f32> = (0..rows * length * classes)
        .map(|_| random.normal() as f32)
        .collect();
    let mut labels: Vec<u32> = (0..rows * length)
        .map(|_| random.below(classes as u64) as u32)
        .collect();
    labels[3] = NO_TARGET;
    labels[length - 1] = NO_TARGET;
    labels[2 * length..].fill(NO_TARGET);
    let (mut losses, mut gradient) = (vec![9.0; rows], vec![9.0; logits.len()]);
    Kernels::best().sequence_cross_entropy(
        rows,
        length,
        classes,
        &logits,
        &labels,
        0.5,
        &mut losses,
        Some(&mut gradient),
    );
    for row in 0..rows {
        let labels = &labels[row * length..][..length];
        let given = labels.iter().filter(|&&label| label != NO_TARGET).count();
        let mut sum = 0.0;
        for (position, &label) in labels.iter().enumerate() {
            let at = (row * length + position) * classes;
            let z: Vec<f64> = logits[at..][..classes].iter().map(|&z| z.into()).collect();
            let total: f64 = z.iter().map(|z| libm::exp(*z)).sum();
            if label != NO_TARGET {
                sum += libm::log(total) - z[label as usize];
            }
            for (class, found) in gradient[at..][..classes].iter().enumerate() {
                let hit = f64::from(u8::from(class as u32 == label));
                let exact = match label {
                    NO_TARGET => 0.0,
                    _ => 0.5 * (libm::exp(z[class]) / total - hit) / given as f64,
                };
                assert!(
                    (f64::from(*found) - exact).abs() < 1e-7,
                    "{found} for {exact}"
                );
            }
        }
        let exact = sum / given.max(1) as f64;
        assert!((f64::from(losses[row]) - exact).abs() < 2e-6, "{row}");
    }
}

/// A position without a target counts neither in the loss nor in the accuracy.
#[test]
fn only_targets_are_judged() {
    let all = operators();
    for case in &all {
        let TargetSpec::Sequence { length, .. } = case.model.target() else {
            continue;
        };
        let data = case.data(9);
        let weights = case.model.init(&mut stream(3));
        let mut session = Session::new(Arc::clone(&case.model), Kernels::best());
        let found = session
            .judge(weights.values(), &data, 0..9)
            .expect("good examples");
        let given = data.labels.iter().filter(|&&label| label != NO_TARGET);
        assert_eq!(found.examples, given.count() as u64, "{}", case.name);
        // One example after the other, one position after the other, from the outputs.
        let rows: Vec<u32> = (0..9).collect();
        session.start(weights.values(), &Optimizer::SGD, 9);
        let z = session.outputs(&data, &rows).expect("good examples");
        let classes = z.len() / data.labels.len();
        let mut correct = 0;
        for (z, &label) in z.chunks_exact(classes).zip(&data.labels) {
            let best = (0..classes).rev().max_by(|&a, &b| z[a].total_cmp(&z[b]));
            correct += u64::from(best == Some(label as usize));
        }
        assert_eq!(found.correct, correct, "{}", case.name);
        assert_eq!(data.labels.len() % length, 0);
        assert!(found.loss().is_finite());
    }
}
