//! The sensitivity search finds what was planted.

use fl_edge::Numerics;
use fl_edge::quant::{
    Calibration, Float, Granularity, Quantization, fewest_floats, integer_units, sensitivities,
};

use super::teacher::Teacher;

const LAYERS: &str = r#"
[[layer]]
kind = "dense"
name = "first"
units = 32
activation = "relu"

[[layer]]
kind = "dense"
name = "second"
units = 32
activation = "relu"

[[layer]]
kind = "dense"
name = "third"
units = 32
activation = "relu"

[[layer]]
kind = "dense"
name = "last"
"#;

/// Outliers that nothing ever multiplies: the last input is 0, and the last hidden value of each
/// layer is made 0. They change no output in floats, and in integers only the layer that has them.
fn planted(layers: &[&str], outlier: f32) -> Teacher {
    let mut teacher = Teacher::new(LAYERS, &[12], 400);
    for (name, outputs) in [("first", 32), ("second", 32), ("third", 32)] {
        let weight = teacher.tensor(&format!("{name}.weight"));
        weight
            .iter_mut()
            .skip(outputs - 1)
            .step_by(outputs)
            .for_each(|w| *w = 0.0);
        teacher.tensor(&format!("{name}.bias"))[outputs - 1] = -1.0;
    }
    for name in layers {
        let weight = teacher.tensor(&format!("{name}.weight"));
        let outputs = if *name == "last" { 10 } else { 32 };
        let last_row = weight.len() - outputs;
        // Not in the last column, which must stay dead.
        for (index, w) in weight[last_row..outputs - 1 + last_row]
            .iter_mut()
            .enumerate()
        {
            *w = if index % 2 == 0 { outlier } else { -outlier };
        }
    }
    teacher.label();
    teacher
}

fn calibrated(teacher: &Teacher) -> Quantization {
    let samples = teacher.samples();
    (samples.calibrate(
        &teacher.model,
        &teacher.parameters,
        Calibration::MinMax,
        Granularity::Channel,
    ))
    .expect("calibrates")
}

#[test]
fn exactly_the_planted_layers_stay_in_floats() {
    let cases: [&[&str]; 7] = [
        &[],
        &["first"],
        &["second"],
        &["third"],
        &["last"],
        &["first", "last"],
        &["second", "third"],
    ];
    for layers in cases {
        let teacher = planted(layers, 40.0);
        let samples = teacher.samples();
        let quantization = calibrated(&teacher);
        let mut score = |program| teacher.accuracy(program);
        let exact = score(teacher.program(&Numerics::F32));
        assert!(exact > 0.999, "the network labels its own examples");
        for float in [Float::F16, Float::F32] {
            let found = fewest_floats(
                &teacher.model,
                &teacher.parameters,
                &quantization,
                &samples,
                float,
                0.9,
                &mut score,
            )
            .expect("compiles");
            let names: Vec<&str> = found
                .quantization
                .float_units
                .keys()
                .map(String::as_str)
                .collect();
            let mut expected = layers.to_vec();
            expected.sort_unstable();
            assert_eq!(names, expected, "{found:?}");
            assert!(found.reached && found.score >= 0.9, "{found:?}");
            assert!(
                found
                    .quantization
                    .float_units
                    .values()
                    .all(|kept| *kept == float)
            );
        }
        if !layers.is_empty() {
            let all_integers = score(teacher.program(&Numerics::Int8(quantization)));
            assert!(all_integers < 0.8, "{layers:?}: {all_integers}");
        }
    }
}

/// The planted layers are the most sensitive ones, and a score that cannot be had is reported.
#[test]
fn sensitivities_are_ordered() {
    let teacher = planted(&["third"], 40.0);
    let samples = teacher.samples();
    let quantization = calibrated(&teacher);
    let found = sensitivities(&teacher.model, &teacher.parameters, &quantization, &samples)
        .expect("compiles");
    assert_eq!(
        integer_units(&teacher.model),
        ["first", "second", "third", "last"]
    );
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].unit, "third");
    assert!(found[0].noise > 20.0 * found[1].noise, "{found:?}");
    assert!(found.windows(2).all(|pair| pair[0].noise >= pair[1].noise));

    let impossible = fewest_floats(
        &teacher.model,
        &teacher.parameters,
        &quantization,
        &samples,
        Float::F32,
        1.5,
        &mut |program| teacher.accuracy(program),
    )
    .expect("compiles");
    assert!(!impossible.reached);
    assert_eq!(impossible.quantization.float_units.len(), 4);
    assert!(impossible.score > 0.999, "all in floats: {impossible:?}");
}

/// An outlier that no 16-bit float holds keeps its layer in 32 bits, and only that one.
#[test]
fn a_layer_beyond_16_bits_stays_in_32() {
    let teacher = planted(&["second"], 1e5);
    let samples = teacher.samples();
    let found = fewest_floats(
        &teacher.model,
        &teacher.parameters,
        &calibrated(&teacher),
        &samples,
        Float::F16,
        0.9,
        &mut |program| teacher.accuracy(program),
    )
    .expect("compiles");
    assert!(found.reached, "{found:?}");
    let floats: Vec<_> = found.quantization.float_units.into_iter().collect();
    assert_eq!(floats, [("second".to_owned(), Float::F32)]);
}
