//! Calibrated models served in integers.

use fl_core::sum::{Aggregator, ExactSum};
use fl_edge::Numerics;
use fl_edge::quant::federated::Bins;
use fl_edge::quant::{Calibration, Granularity, Quantization, Samples, histograms};

use super::teacher::{Rows, Teacher};

const DENSE: &str = r#"
[[layer]]
kind = "flatten"

[[layer]]
kind = "dense"
name = "hidden"
units = 48
activation = "relu"

[[layer]]
kind = "dense"
name = "out"
"#;

const CONVOLUTIONS: &str = r#"
[[layer]]
kind = "conv2d"
name = "stem"
filters = 8
kernel = 3
padding = "same"
activation = "relu"

[[layer]]
kind = "conv2d"
name = "main"
filters = 8
kernel = 3
padding = "same"

[[layer]]
kind = "add"
name = "sum"
from = "stem"

[[layer]]
kind = "relu"
name = "after"

[[layer]]
kind = "max-pool"
name = "pool"
size = 2

[[layer]]
kind = "flatten"

[[layer]]
kind = "dense"
name = "out"
"#;

fn method(name: &str) -> Calibration {
    Calibration::named(name).expect("a method")
}

fn accuracy(teacher: &Teacher, quantization: Quantization) -> f64 {
    let program = teacher.program(&Numerics::Int8(quantization));
    teacher.samples().accuracy(program).expect("classes")
}

/// The share of answers that integers must keep. Many answers of a random network are close calls,
/// and entropy cuts more of its bell-shaped values than they can spare.
fn least(name: &str) -> f64 {
    match name {
        "entropy" => 0.85,
        _ => 0.9,
    }
}

/// Every method gives every point a scale, and the integers keep almost all answers.
#[test]
fn calibrated_integers_keep_the_answers() {
    for (layers, points) in [
        (DENSE, &["input", "hidden", "out"][..]),
        (CONVOLUTIONS, &["input", "stem", "main", "after", "out"]),
    ] {
        let teacher = Teacher::new(layers, &[8, 8, 1], 300);
        for name in Calibration::NAMES {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                let samples = teacher.samples();
                let quantization = samples
                    .calibrate(
                        &teacher.model,
                        &teacher.parameters,
                        method(name),
                        granularity,
                    )
                    .expect("calibrates");
                for point in points {
                    assert!(quantization.points.contains_key(*point), "{name} {point}");
                }
                let kept = accuracy(&teacher, quantization);
                assert!(kept >= least(name), "{name} {granularity:?}: {kept}");
            }
        }
    }
}

/// A few faulty pixels among the calibration samples ruin min-max; a percentile cuts them.
#[test]
fn a_percentile_beats_min_max_on_outliers() {
    let mut teacher = Teacher::new(DENSE, &[8, 8, 1], 300);
    let clean = teacher.rows.values.clone();
    for place in [1000, 9000, 15_000] {
        teacher.rows.values[place] = 300.0;
    }
    let samples = teacher.samples();
    teacher.rows.values = clean;
    let accuracy_by = |method| {
        let quantization = samples.calibrate(
            &teacher.model,
            &teacher.parameters,
            method,
            Granularity::Channel,
        );
        accuracy(&teacher, quantization.expect("calibrates"))
    };
    let min_max = accuracy_by(Calibration::MinMax);
    let percentile = accuracy_by(Calibration::Percentile {
        percentile: 99.0,
        bins: 2048,
    });
    assert!(percentile >= min_max + 0.05, "{percentile} and {min_max}");
    assert!(percentile > 0.9, "{percentile}");
}

/// Calibrated by five clients through the exact sum: the same bits as by one machine that has all
/// of their examples, and nearly the ranges of the values themselves.
#[test]
fn a_federation_calibrates_like_one_machine() {
    let teacher = Teacher::new(CONVOLUTIONS, &[8, 8, 1], 250);
    let empty = histograms(&teacher.model, Bins::default()).expect("serves");
    let plan = empty.ring_plan(5).expect("fits");
    let mut sum = ExactSum::new(plan, empty.counts().len());
    for client in 0..5 {
        let rows: Vec<u32> = (0..250).filter(|row| row % 5 == client).collect();
        let samples = Samples::read(&teacher.model, &teacher.rows, &rows).expect("of the model");
        let mut own = empty.clone();
        samples
            .count(&teacher.model, &teacher.parameters, &mut own)
            .expect("finite");
        let message = own.encode(plan).expect("fits");
        sum.absorb_encoded(&message, message.weight())
            .expect("in the plan");
    }
    let pooled = empty.with_counts(sum.values()).expect("counts");

    let mut together = empty.clone();
    let samples = teacher.samples();
    samples
        .count(&teacher.model, &teacher.parameters, &mut together)
        .expect("finite");
    assert_eq!(pooled, together);

    for name in ["min-max", "percentile", "entropy"] {
        let ranges = pooled.ranges(&method(name)).expect("a pooled method");
        let central = samples
            .calibrate(
                &teacher.model,
                &teacher.parameters,
                method(name),
                Granularity::Channel,
            )
            .expect("calibrates");
        assert_eq!(ranges.len(), central.points.len(), "{name}");
        let federated = Quantization::from_ranges(
            ranges.iter().map(|(point, range)| (point.as_str(), *range)),
            Granularity::Channel,
        );
        if name != "entropy" {
            for (point, params) in &federated.points {
                let ratio = params.scale() / central.points[point].scale();
                assert!((0.999..1.04).contains(&ratio), "{name} {point}: {ratio}");
            }
        }
        let kept = accuracy(&teacher, federated);
        assert!(kept >= least(name), "{name}: {kept}");
    }
}

#[test]
fn samples_must_be_the_models() {
    let teacher = Teacher::new(DENSE, &[8, 8, 1], 3);
    let none = Samples::read(&teacher.model, &teacher.rows, &[]).unwrap_err();
    assert!(none.to_string().contains("no samples"), "{none}");
    let other = Rows {
        input: fl_core::InputSpec::Real(vec![64]),
        values: vec![0.0; 64],
        classes: vec![0],
    };
    let error = Samples::read(&teacher.model, &other, &[0]).unwrap_err();
    assert!(error.to_string().contains("[64]"), "{error}");
}
