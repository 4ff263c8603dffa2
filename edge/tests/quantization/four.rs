//! Weights of four bits that are looked for: against another program, against all that there are,
//! and against rounding.

use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::kernel::f16_to_f32;
use fl_edge::quant::{
    Awq, Code4, Float, FourBits, GptqOptions, QuantError, Samples, Weight4, Weights4, awq,
    four_bit_units, gptq, layer_losses,
};
use fl_edge::{Model, ModelDef, Passes, Program, ProgramError};

use crate::teacher::{Rows, Teacher};

fn stream(seed: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
}

const ACT_ORDER: GptqOptions = GptqOptions {
    damping: 0.01,
    act_order: true,
};

/// A dense layer without a bias, and its inputs.
fn dense(terms: usize, columns: usize, inputs: Vec<f32>) -> (Arc<Model>, Rows) {
    let layer = "[[layer]]\nkind = \"dense\"\nname = \"w\"\nbias = false\n";
    let def = toml::from_str::<ModelDef>(layer).expect("reads");
    let input = InputSpec::Real(vec![terms]);
    let target = TargetSpec::Class { classes: columns };
    let model = Model::new(&def, &input, target).expect("builds");
    let rows = Rows {
        classes: vec![0; inputs.len() / terms],
        values: inputs,
        input,
    };
    (Arc::new(model), rows)
}

/// The codes that `fixtures/gptq.py` finds, which says how.
#[test]
fn codes_are_those_of_an_independent_program() {
    let text = include_str!("../fixtures/gptq.txt");
    let mut lines = text.lines().map(|line| {
        let numbers = line.split(' ').map(|number| number.parse::<u32>());
        numbers
            .map(|number| number.expect("a number"))
            .collect::<Vec<u32>>()
    });
    let mut next = || lines.next().expect("a line");
    let shape = next();
    let [terms, columns, _, group] = [0, 1, 2, 3].map(|at| shape[at] as usize);
    let weight: Vec<f32> = next().into_iter().map(f32::from_bits).collect();
    let inputs: Vec<f32> = next().into_iter().map(|x| x as f32 / 4.0).collect();
    let (model, rows) = dense(terms, columns, inputs);
    let samples = Samples::all(&model, &rows).expect("of the model");
    let format = FourBits::new(Code4::Int4, group).expect("a group");
    for options in [GptqOptions::default(), ACT_ORDER] {
        let found = gptq(&model, &weight, &format, &samples, options).expect("finite");
        let made = &found.weights.tensors["w.weight"];
        let scales: Vec<u32> = made.scales().iter().map(|&s| u32::from(s)).collect();
        let codes: Vec<u32> = made.codes().iter().map(|&c| u32::from(c)).collect();
        assert_eq!((scales, codes), (next(), next()), "{options:?}");
        assert!(found.layers[0].found < 0.7 * found.layers[0].nearest);
    }
}

/// The smallest loss of a column, by trying every code of every term.
fn best(weight: &[f32], inputs: &[f32], scale: f32) -> f64 {
    let terms = weight.len();
    let mut codes = vec![-7i32; terms];
    let mut smallest = f64::INFINITY;
    loop {
        let errors: Vec<f64> = codes
            .iter()
            .zip(weight)
            .map(|(&code, &w)| f64::from(code) * f64::from(scale) - f64::from(w))
            .collect();
        let rows = inputs.chunks_exact(terms).map(|x| {
            let out: f64 = x.iter().zip(&errors).map(|(&x, e)| f64::from(x) * e).sum();
            out * out
        });
        smallest = smallest.min(rows.sum());
        let Some(at) = codes.iter().position(|&code| code < 7) else {
            return smallest;
        };
        codes[at] += 1;
        codes[..at].fill(-7);
    }
}

/// With four terms all 50625 columns can be tried: none is better than the best, and on average
/// the codes that are found come much nearer to it than rounded ones.
#[test]
fn codes_come_near_the_best_that_there_are() {
    let (mut rounded, mut found, mut optimal) = (0.0, 0.0, 0.0);
    for seed in 0..12 {
        let mut stream = stream(100 + seed);
        let (terms, columns, count) = (4, 2, 12);
        let weight: Vec<f32> = (0..terms * columns)
            .map(|_| stream.normal() as f32)
            .collect();
        let mut inputs = Vec::new();
        for _ in 0..count {
            let shared = 1.5 * stream.normal() as f32;
            inputs.extend((0..terms).map(|_| shared + 0.5 * stream.normal() as f32));
        }
        let (model, rows) = dense(terms, columns, inputs.clone());
        let samples = Samples::all(&model, &rows).expect("of the model");
        let format = FourBits::default();
        let made = gptq(&model, &weight, &format, &samples, GptqOptions::default());
        let made = made.expect("finite");
        let layer = &made.layers[0];
        let (mut smallest, mut power) = (0.0, 0.0);
        for column in 0..columns {
            let one: Vec<f32> = (0..terms).map(|t| weight[t * columns + column]).collect();
            let scale = made.weights.tensors["w.weight"].scales()[column];
            smallest += best(&one, &inputs, f16_to_f32(scale));
            power += inputs
                .chunks_exact(terms)
                .map(|x| {
                    let y: f64 = (x.iter().zip(&one)).map(|(&x, &w)| f64::from(x * w)).sum();
                    y * y
                })
                .sum::<f64>();
        }
        let smallest = smallest / power;
        assert!(
            layer.found >= smallest * (1.0 - 1e-5),
            "{seed}: better than the best"
        );
        assert!(
            layer.nearest >= smallest * (1.0 - 1e-5),
            "{seed}: better than the best"
        );
        rounded += layer.nearest / smallest;
        found += layer.found / smallest;
        optimal += 1.0;
    }
    let (rounded, found) = (rounded / optimal, found / optimal);
    println!("of the best: rounded {rounded:.2}, found {found:.2}");
    assert!(found < 0.5 * rounded && found < 3.0, "{found} of {rounded}");
}

const NETWORK: &str = "[[layer]]\nkind = \"conv2d\"\nname = \"a\"\nfilters = 12\nkernel = 3\npadding = 1\n\
    activation = \"relu\"\n\
    [[layer]]\nkind = \"conv2d\"\nname = \"b\"\nfilters = 16\nkernel = 3\nstride = 2\ngroups = 2\n\
    [[layer]]\nkind = \"batch-norm\"\nname = \"norm\"\n[[layer]]\nkind = \"relu\"\nname = \"c\"\n\
    [[layer]]\nkind = \"dropout\"\nname = \"drop\"\nrate = 0.2\n\
    [[layer]]\nkind = \"conv2d\"\nname = \"d\"\nfilters = 24\nkernel = 1\nactivation = \"relu\"\n\
    [[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"dense\"\nname = \"e\"\nunits = 40\n\
    activation = \"tanh\"\n[[layer]]\nkind = \"dense\"\nname = \"f\"\n";

/// Images of a few waves with a little noise: as in real ones, neighbours know of one another.
fn patterned(shape: [usize; 3], examples: usize) -> Teacher {
    let mut teacher = Teacher::new(NETWORK, &shape, examples);
    let mut stream = stream(9);
    let [_, wide, channels] = shape;
    let width = shape.iter().product();
    let mut patterns: Vec<f32> = Vec::new();
    for _ in 0..12 {
        let waves: [f64; 3] = [(); 3].map(|()| stream.normal());
        patterns.extend((0..width).map(|at| {
            let (row, column) = (at / channels / wide, at / channels % wide);
            let along = waves[0] * row as f64 + waves[1] * column as f64;
            libm::cos(0.5 * along + waves[2] * (1 + at % channels) as f64) as f32
        }));
    }
    for image in teacher.rows.values.chunks_exact_mut(width) {
        let mixture: Vec<f32> = (0..12).map(|_| stream.normal() as f32).collect();
        for (at, x) in image.iter_mut().enumerate() {
            let parts = mixture.iter().enumerate();
            let sum: f32 = parts.map(|(k, m)| m * patterns[k * width + at]).sum();
            *x = 0.3 * sum + 0.1 * stream.normal() as f32;
        }
    }
    teacher.label();
    teacher
}

/// On every layer, with every code, group and order, less is lost than by rounding; and the model
/// as a whole answers more often as it did.
#[test]
fn every_layer_loses_less_than_by_rounding() {
    let teacher = patterned([10, 10, 3], 160);
    let samples = teacher.samples();
    assert_eq!(
        four_bit_units(&teacher.model),
        ["a", "c", "d", "e.linear", "f"]
    );
    let mut kept = 0f64;
    for (code, group, options) in [
        (Code4::Int4, 32, GptqOptions::default()),
        (Code4::Int4, 64, ACT_ORDER),
        (Code4::Uint4, 16, GptqOptions::default()),
        (Code4::Nf4, 64, GptqOptions::default()),
        (Code4::Nf4, 16, ACT_ORDER),
    ] {
        let format = FourBits::new(code, group).expect("a group");
        let made = gptq(
            &teacher.model,
            &teacher.parameters,
            &format,
            &samples,
            options,
        );
        let made = made.expect("finite");
        assert_eq!(made.layers.len(), 5);
        for layer in &made.layers {
            println!("{} {group} {options:?} {layer:?}", code.name());
            assert!(
                layer.found < layer.nearest,
                "{} {group}: {layer:?}",
                code.name()
            );
        }
        let program = |weights: &Weights4| {
            Program::compile_four(&teacher.model, &teacher.parameters, weights, Passes::ALL)
        };
        let rounded = Weights4 {
            format,
            ..Weights4::default()
        };
        let found = teacher.accuracy(program(&made.weights).expect("compiles"));
        let nearest = teacher.accuracy(program(&rounded).expect("compiles"));
        println!("{found} of its own answers, rounded {nearest}");
        kept += found - nearest;
        assert!(found > nearest - 0.05, "{}: {found} {nearest}", code.name());

        // By the inputs of the model in floats, too; there a later layer need not make up for
        // earlier ones.
        let judged = layer_losses(&teacher.model, &teacher.parameters, &made.weights, &samples);
        let judged = judged.expect("finite");
        assert!(judged.iter().all(|layer| layer.found < 1.5 * layer.nearest));
        assert!((judged[0].found - made.layers[0].found).abs() < 1e-12);
    }
    assert!(kept > 0.0, "{kept} more of its own answers");
}

#[test]
fn units_in_floats_are_left_alone_and_bad_options_refused() {
    let teacher = patterned([10, 10, 3], 40);
    let samples = teacher.samples();
    let mut format = FourBits::default();
    format.float_units.insert("c".to_owned(), Float::F16);
    let (model, parameters) = (&teacher.model, &teacher.parameters);
    let made = gptq(model, parameters, &format, &samples, GptqOptions::default());
    let made = made.expect("finite");
    let units: Vec<&str> = made
        .layers
        .iter()
        .map(|layer| layer.unit.as_str())
        .collect();
    assert_eq!(units, ["a", "d", "e.linear", "f"]);
    assert!(!made.weights.tensors.contains_key("b.weight"));
    for damping in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = GptqOptions {
            damping,
            act_order: false,
        };
        let error = gptq(model, parameters, &format, &samples, options).expect_err("refused");
        let refused = matches!(
            error,
            ProgramError::Quantization(QuantError::Damping { .. })
        );
        assert!(refused, "{error}");
    }
}

/// A few inputs of a layer are forty times as large as the others.
fn outliers() -> Teacher {
    let text = "[[layer]]\nkind = \"dense\"\nname = \"a\"\nunits = 96\nactivation = \"relu\"\n\
        [[layer]]\nkind = \"dense\"\nname = \"b\"\nunits = 40\nactivation = \"tanh\"\n\
        [[layer]]\nkind = \"dense\"\nname = \"c\"\n";
    let mut teacher = Teacher::new(text, &[32], 300);
    for row in teacher.tensor("a.weight").chunks_exact_mut(96) {
        for channel in [5, 37, 80] {
            row[channel] *= 40.0;
        }
    }
    teacher.label();
    teacher
}

#[test]
fn planted_outliers_are_protected() {
    let teacher = outliers();
    let (model, samples) = (&teacher.model, teacher.samples());
    for code in [Code4::Int4, Code4::Nf4] {
        let format = FourBits::new(code, 32).expect("a group");
        let made = awq(model, &teacher.parameters, &format, &samples).expect("finite");
        let Awq { parameters, layers } = &made;
        let refused = layers.iter().map(|layer| layer.refused.as_deref());
        let expected = [
            Some("it reads the model's input"),
            None,
            Some("`b` is not proportional to what it reads"),
        ];
        assert_eq!(refused.collect::<Vec<_>>(), expected);
        let layer = &layers[1];
        println!("{layer:?}");
        assert!(
            layer.alpha > 0.0 && layer.found < 0.6 * layer.nearest,
            "{layer:?}"
        );
        // Seen from outside: the weights that were given lose what the search says, and the scaled
        // ones lose less of the same outputs.
        let weights = Weights4 {
            format,
            ..Weights4::default()
        };
        let lost = |parameters: &[f32]| {
            let losses = layer_losses(model, parameters, &weights, &samples);
            losses.expect("finite")[1].nearest
        };
        let (before, after) = (lost(&teacher.parameters), lost(parameters));
        assert!(
            (before / layer.nearest - 1.0).abs() < 1e-6,
            "{before} {layer:?}"
        );
        assert!(
            (after / layer.found - 1.0).abs() < 1e-2,
            "{after} {layer:?}"
        );
        // The function in floats is the same.
        let outputs = |parameters: &[f32]| {
            let numerics = fl_edge::Numerics::F32;
            let program = Program::compile(model, parameters, &numerics, Passes::ALL);
            samples
                .outputs(program.expect("compiles"))
                .expect("of the model")
        };
        let pairs = outputs(&teacher.parameters)
            .into_iter()
            .zip(outputs(parameters));
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 2e-5, "{off}");
    }
}

/// Channels are followed through pooling, groups, normalisations and other shapes.
#[test]
fn scales_are_folded_into_whatever_gives_the_channels() {
    let text = "[[layer]]\nkind = \"conv2d\"\nname = \"a\"\nfilters = 8\nkernel = 3\n\
        activation = \"relu\"\n\
        [[layer]]\nkind = \"max-pool\"\nname = \"pool\"\nsize = 2\n\
        [[layer]]\nkind = \"conv2d\"\nname = \"b\"\nfilters = 12\nkernel = 3\ngroups = 2\n\
        [[layer]]\nkind = \"batch-norm\"\nname = \"norm\"\n[[layer]]\nkind = \"relu\"\nname = \"r\"\n\
        [[layer]]\nkind = \"conv2d\"\nname = \"c\"\nfilters = 8\nkernel = 1\n\
        [[layer]]\nkind = \"group-norm\"\nname = \"g\"\ngroups = 2\n\
        [[layer]]\nkind = \"leaky-relu\"\nname = \"l\"\n\
        [[layer]]\nkind = \"avg-pool\"\nname = \"avg\"\nsize = 2\nstride = 1\n\
        [[layer]]\nkind = \"flatten\"\n[[layer]]\nkind = \"dense\"\nname = \"d\"\nunits = 20\n\
        activation = \"relu6\"\n[[layer]]\nkind = \"dense\"\nname = \"e\"\n";
    let mut teacher = Teacher::new(text, &[16, 16, 2], 60);
    let mut random = stream(3);
    for name in ["a.weight", "norm.weight", "g.weight"] {
        for (at, value) in teacher.tensor(name).iter_mut().enumerate() {
            *value *= if at % 4 == 1 { 30.0 } else { 1.0 };
            *value += 0.01 * random.normal() as f32;
        }
    }
    let (model, samples) = (&teacher.model, teacher.samples());
    let format = FourBits::new(Code4::Int4, 16).expect("a group");
    let made = awq(model, &teacher.parameters, &format, &samples).expect("finite");
    let scaled = |unit: &str| {
        let layer = made.layers.iter().find(|layer| layer.unit == unit);
        layer.expect(unit).clone()
    };
    for unit in ["r", "c", "d"] {
        let layer = scaled(unit);
        assert!(layer.refused.is_none() && layer.alpha > 0.0, "{layer:?}");
        assert!(layer.found < layer.nearest, "{layer:?}");
    }
    assert_eq!(scaled("e").refused.as_deref(), Some("`d` is clamped to 6"));
    let outputs = |parameters: &[f32]| {
        let program = Program::compile(model, parameters, &fl_edge::Numerics::F32, Passes::ALL);
        samples
            .outputs(program.expect("compiles"))
            .expect("of the model")
    };
    let pairs = outputs(&teacher.parameters)
        .into_iter()
        .zip(outputs(&made.parameters));
    let (mut off, mut most) = (0f32, 0f32);
    for (a, b) in pairs {
        (off, most) = (off.max((a - b).abs()), most.max(a.abs()));
    }
    assert!(off < 1e-4 * most, "{off} of {most}");
}

/// A weight in the form that other programs read.
#[test]
fn a_weight_says_what_it_is_made_of() {
    let format = FourBits::new(Code4::Uint4, 16).expect("a group");
    let weight: Vec<f32> = (0..40u8).map(|at| f32::from(at) - 11.0).collect();
    let made = Weight4::nearest("w", &format, 2, &weight).expect("small");
    assert_eq!(
        (made.code(), made.group(), made.shape()),
        (Code4::Uint4, 16, [20, 2])
    );
    let value = |term: usize, column: usize| {
        let at = term / 16 * 2 + column;
        let zero = f32::from(made.zeros()[at]);
        (f32::from(made.codes()[term * 2 + column]) - zero) * f16_to_f32(made.scales()[at])
    };
    for (at, found) in made.dequantized().into_iter().enumerate() {
        assert_eq!(found.to_bits(), value(at / 2, at % 2).to_bits());
    }
}
