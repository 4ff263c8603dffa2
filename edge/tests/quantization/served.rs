//! Calibrated models served in integers.

use std::sync::Arc;

use fl_core::Examples;
use fl_core::sum::{Aggregator, ExactSum};
use fl_edge::quant::federated::Bins;
use fl_edge::quant::{
    CALIBRATION_SAMPLES, Calibration, Calibrator, Granularity, Probe, Quantization, Samples,
};
use fl_edge::{Inputs, Numerics, Passes, Program, Runner};

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
    teacher.accuracy(teacher.program(&Numerics::Int8(quantization)))
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
    let teacher = Teacher::new(DENSE, &[8, 8, 1], 300);
    let mut faulty = teacher.rows.clone();
    for place in [1000, 9000, 15_000] {
        faulty.values[place] = 300.0;
    }
    let samples = Samples::all(&teacher.model, &faulty).expect("of the model");
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
    let mut probe = Probe::new(&teacher.model, &teacher.parameters).expect("serves");
    let empty = probe.histograms(Bins::default());
    let plan = empty.ring_plan(5).expect("fits");
    let mut sum = ExactSum::new(plan, empty.counts().len());
    for client in 0..5 {
        let rows = (0..250).filter(|row| row % 5 == client).collect();
        let samples = Samples::new(&teacher.model, &teacher.rows, rows).expect("of the model");
        let mut own = empty.clone();
        (probe.another().count(&samples, &mut own)).expect("finite");
        let message = own.encode(plan).expect("fits");
        sum.absorb_encoded(&message, message.weight())
            .expect("in the plan");
    }
    let pooled = empty.with_counts(sum.values()).expect("counts");

    let mut together = empty.clone();
    assert!(together.is_empty());
    let samples = teacher.samples();
    probe.count(&samples, &mut together).expect("finite");
    assert_eq!(pooled, together);
    together.clear();
    assert_eq!(together, empty);
    let nothing = empty.quantization(&Calibration::MinMax, Granularity::Channel);
    assert!(nothing.unwrap_err().to_string().contains("no samples"));

    for name in ["min-max", "percentile", "entropy"] {
        let federated = pooled.quantization(&method(name), Granularity::Channel);
        let federated = federated.expect("a pooled method");
        let central = probe.calibrate(&samples, method(name), Granularity::Channel);
        let central = central.expect("calibrates");
        assert_eq!(federated.points.len(), central.points.len(), "{name}");
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

/// A probe shows what a plain run of the program over the whole batch shows, however the samples
/// are chosen.
#[test]
fn a_probe_sees_what_a_run_computes() {
    for layers in [DENSE, CONVOLUTIONS] {
        let teacher = Teacher::new(layers, &[8, 8, 1], 101);
        let rows: Vec<u32> = (0..70).map(|index| index * 31 % 101).collect();
        let (mut x, mut classes) = (vec![0.0; 70 * 64], vec![0; 70]);
        teacher.rows.fill(
            &rows,
            fl_core::InputsMut::Real(&mut x),
            fl_core::TargetsMut::Classes(&mut classes),
        );
        let program = Program::compile(
            &teacher.model,
            &teacher.parameters,
            &Numerics::F32,
            Passes::OBSERVED,
        );
        let program = Arc::new(program.expect("compiles"));
        let mut plain = Calibrator::new(Calibration::MinMax).expect("in range");
        let mut outputs = vec![0.0; 700];
        Runner::new(program, 70).run_observed(
            Inputs::Real(&x),
            &mut outputs,
            &mut |point, values| plain.observe(point, values).expect("finite"),
        );
        let plain = plain.ranges().expect("one pass");
        let plain = Quantization::from_ranges(
            plain.iter().map(|(point, range)| (point.as_str(), *range)),
            Granularity::Tensor,
        );
        let samples = Samples::new(&teacher.model, &teacher.rows, rows).expect("of the model");
        let mut probe = Probe::new(&teacher.model, &teacher.parameters).expect("compiles");
        let probed = probe.calibrate(&samples, Calibration::MinMax, Granularity::Tensor);
        assert_eq!(probed.expect("finite"), plain);
        let seen = samples.outputs(teacher.program(&Numerics::F32));
        let seen = seen.expect("of the model");
        assert!(
            outputs
                .iter()
                .zip(&seen)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert!(seen.len() == outputs.len());
        let share = (classes.iter().zip(seen.chunks(10)))
            .filter(|(class, logits)| {
                logits
                    .iter()
                    .all(|logit| *logit <= logits[**class as usize])
            })
            .count();
        assert_eq!(share, 70, "the network labels its own examples");
        let accuracy = samples.accuracy(teacher.program(&Numerics::F32));
        assert_eq!(accuracy.expect("of the model"), Some(1.0));
    }
}

#[test]
fn samples_must_be_the_models() {
    let teacher = Teacher::new(DENSE, &[8, 8, 1], 3);
    let error = |rows: Vec<u32>| {
        let samples = Samples::new(&teacher.model, &teacher.rows, rows);
        samples.unwrap_err().to_string()
    };
    assert!(error(Vec::new()).contains("no samples"));
    let beyond = "sample 3 is wanted of 3 examples; they are counted from 0";
    assert_eq!(error(vec![0, 3, 1]), beyond);
    let other = Rows {
        input: fl_core::InputSpec::Real(vec![64]),
        values: vec![0.0; 64],
        classes: vec![0],
    };
    let foreign = Samples::all(&teacher.model, &other).unwrap_err();
    assert!(foreign.to_string().contains("[64]"), "{foreign}");
    // A program of another model refuses the samples, too.
    let another = Teacher::new(DENSE, &[64], 1);
    let samples = teacher.samples();
    let refused = samples
        .outputs(another.program(&Numerics::F32))
        .unwrap_err();
    assert!(refused.to_string().contains("[64]"), "{refused}");
    assert!(samples.accuracy(another.program(&Numerics::F32)).is_err());
}

/// Evenly spread, each example once, whatever is asked for.
#[test]
fn samples_are_spread() {
    let teacher = Teacher::new(DENSE, &[8, 8, 1], 300);
    for (most, count) in [
        (1, 1),
        (7, 7),
        (CALIBRATION_SAMPLES, 256),
        (300, 300),
        (9000, 300),
    ] {
        let samples = Samples::spread(&teacher.model, &teacher.rows, most).expect("of the model");
        let expected: Vec<u32> = (0..count)
            .map(|index| (index * 300 / count) as u32)
            .collect();
        assert_eq!(samples.rows(), expected, "{most}");
    }
}
