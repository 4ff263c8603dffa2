//! Every operator's gradient against central differences.

use crate::common::{Case, operators, stream};
use fl_core::{Optimizer, Parameters};
use fl_edge::kernel::Kernels;
use fl_edge::{Model, ModelDef, Session};

/// The sum of losses, and the gradient of their mean.
fn loss(session: &mut Session, case: &Case, weights: &[f32], batch: usize) -> f64 {
    let data = case.data(batch);
    let rows = (0..batch as u32).collect::<Vec<_>>();
    session.start(weights, &Optimizer::SGD, batch);
    // The same stream, so the same dropout masks.
    session
        .gradient(&data, &rows, &mut stream(5))
        .expect("good examples")
}

fn check(case: &Case, tolerance: f64) {
    check_above(case, tolerance, 0.02);
}

/// Slopes below `floor` times the length of a step count as that.
pub(crate) fn check_above(case: &Case, tolerance: f64, floor: f64) {
    let batch = 5;
    let mut session = Session::new(case.model.clone(), Kernels::best());
    let mut weights = start(case);
    loss(&mut session, case, weights.values(), batch);
    let gradient = session.gradients().to_vec();
    let layout = case.model.layout().clone();
    for tensor in layout.tensors() {
        let mut random = stream(17);
        for trial in 0..4 {
            let direction = (0..tensor.len())
                .map(|_| random.normal() as f32)
                .collect::<Vec<_>>();
            let expected = direction
                .iter()
                .zip(&gradient[tensor.range()])
                .map(|(d, g)| f64::from(*d) * f64::from(*g))
                .sum::<f64>();
            let norm = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
            let mut at = |step: f32| {
                let kept = weights.values()[tensor.range()].to_vec();
                for (w, d) in weights.values_mut()[tensor.range()]
                    .iter_mut()
                    .zip(&direction)
                {
                    *w += step * d;
                }
                let loss = loss(&mut session, case, weights.values(), batch);
                weights.values_mut()[tensor.range()].copy_from_slice(&kept);
                loss / batch as f64
            };
            // Kinks of relu and max make a difference wrong when one lies between: of several
            // widths the best one counts.
            let error = [3e-2f32, 1e-2, 3e-3, 1e-3, 3e-4]
                .map(|width| {
                    let step = width / norm;
                    let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
                    (slope - expected).abs() / (floor * f64::from(norm) + expected.abs())
                })
                .into_iter()
                .fold(f64::INFINITY, f64::min);
            assert!(
                error < tolerance,
                "{}: {} trial {trial}: error {error:e} at slope {expected}",
                case.name,
                tensor.name
            );
        }
    }
}

/// Initial parameters with random biases, so that nothing starts at a kink.
fn start(case: &Case) -> Parameters {
    let mut random = stream(3);
    let mut weights = case.model.init(&mut random);
    for value in weights.values_mut() {
        *value += 0.1 * random.normal() as f32;
    }
    weights
}

#[test]
fn every_operator() {
    for case in operators() {
        // Normalised values bend, and many lie at kinks; the exact comparison is with burn.
        let tolerance = if case.has_batch_norm() { 2e-2 } else { 5e-3 };
        check(&case, tolerance);
    }
}

#[test]
fn small_models() {
    let image = fl_core::InputSpec::Real(vec![8, 8, 2]);
    for text in [
        "kind = \"logreg\"",
        "kind = \"mlp-2nn\"\nhidden = [12, 9]",
        "kind = \"cnn-fedavg\"\nfilters = [3, 4]\nunits = 10",
    ] {
        let def = toml::from_str::<ModelDef>(text).expect(text);
        let model = Model::new(&def, &image, fl_core::TargetSpec::Class { classes: 4 });
        // Many kinks of relu and max; the exact comparison is with burn.
        let case = Case {
            name: "zoo",
            def,
            model: std::sync::Arc::new(model.expect(text)),
        };
        check(&case, 3e-2);
    }
}
