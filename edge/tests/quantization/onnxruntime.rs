//! The same samples through our calibrators and through onnxruntime 1.31.1's: ranges, scales, zero
//! points, integer weights and biases. `tests/fixtures/quant/calibration.py` wrote the expected
//! numbers and says how.

use fl_edge::quant::{
    Calibration, Calibrator, Granularity, QParams, Range, lower_product, quantize_weights,
    weight_scales,
};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    tensor: Vec<TensorCase>,
    weight: Vec<WeightCase>,
    model: Vec<ModelCase>,
    average: Vec<AverageCase>,
}

#[derive(Deserialize)]
struct TensorCase {
    kind: String,
    count: usize,
    #[serde(flatten)]
    methods: BTreeMap<String, [u32; 4]>,
}

#[derive(Deserialize)]
struct WeightCase {
    kind: String,
    outputs: usize,
    rows: usize,
    tensor_scales: Vec<u32>,
    tensor_sum: i64,
    channel_scales: Vec<u32>,
    channel_sum: i64,
}

#[derive(Deserialize)]
struct ModelCase {
    name: String,
    method: String,
    granularity: Granularity,
    point: BTreeMap<String, [u32; 2]>,
    hidden: Option<Product>,
    conv: Option<Product>,
    out: Product,
}

#[derive(Deserialize)]
struct AverageCase {
    name: String,
    point: BTreeMap<String, [u32; 2]>,
}

#[derive(Deserialize)]
struct Product {
    weight: Vec<i8>,
    scales: Vec<u32>,
    bias: Vec<i32>,
}

fn fixture() -> Fixture {
    toml::from_str(include_str!("../fixtures/quant/calibration.toml")).expect("reads")
}

/// The script's generator.
struct Integers(u64);

impl Integers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Integers in `-bound..=bound`, times `unit`.
    fn tensor(&mut self, bound: u64, unit: f32, count: usize) -> Vec<f32> {
        let mut next = || self.below(2 * bound + 1) as i64 - bound as i64;
        (0..count).map(|_| next() as f32 * unit).collect()
    }
}

/// The same as `values` of the script.
fn values(kind: &str, count: usize) -> Vec<f32> {
    let kinds = ["bell", "relu", "cubic", "shifted", "outliers"];
    let seed = kinds.iter().position(|k| *k == kind).expect("a kind");
    let mut integers = Integers(seed as u64 + 1);
    let mut values: Vec<f32> = (0..count)
        .map(|_| {
            let sum: i64 = (0..8).map(|_| integers.below(1 << 18) as i64).sum();
            let x = (sum - (1 << 20)) as f32 / (1 << 18) as f32;
            match kind {
                "relu" => x.max(0.0),
                "cubic" => x * x * x * 0.7,
                "shifted" => x * 0.3 + 3.0,
                _ => x,
            }
        })
        .collect();
    if kind == "outliers" {
        values[1000] = 77.7;
        values[2000] = -50.3;
    }
    values
}

fn method(name: &str) -> Calibration {
    match name.split_once('-') {
        Some(("percentile", percentile)) => Calibration::Percentile {
            percentile: percentile.replace('_', ".").parse().expect("a number"),
            bins: 2048,
        },
        Some(("entropy", bins)) => Calibration::Entropy {
            bins: bins.parse().expect("a number"),
            levels: 128,
        },
        _ => Calibration::named(name).expect("a method"),
    }
}

/// Calibrates on batches of named values.
fn ranges(calibration: Calibration, batches: &[Vec<(&str, Vec<f32>)>]) -> BTreeMap<String, Range> {
    let mut calibrator = Calibrator::new(calibration).expect("in range");
    loop {
        for (name, values) in batches.iter().flatten() {
            calibrator.observe(name, values).expect("finite");
        }
        if !calibrator.next_pass() {
            return calibrator.ranges().expect("both passes");
        }
    }
}

fn bits(params: QParams) -> [u32; 2] {
    [params.scale().to_bits(), u32::from(params.zero_point())]
}

/// Every range is bit-equal.
#[test]
fn ranges_of_known_values() {
    let mut compared = 0;
    for case in fixture().tensor {
        let values = values(&case.kind, case.count);
        for (name, [min, max, scale, zero_point]) in &case.methods {
            let found = ranges(method(name), &[vec![("x", values.clone())]])["x"];
            let expected = Range {
                min: f32::from_bits(*min),
                max: f32::from_bits(*max),
            };
            assert_eq!(found, expected, "{} {name}", case.kind);
            let params = bits(QParams::from_range(found));
            assert_eq!(params, [*scale, *zero_point], "{} {name}", case.kind);
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 6);
}

/// Weights of the script's checksum.
fn checksum(quantized: &[i8]) -> i64 {
    let place = |i: usize| (i as i64 * 2_654_435_761) % 1_000_003;
    let terms = quantized.iter().enumerate();
    terms.map(|(i, &q)| i64::from(q) * place(i)).sum()
}

#[test]
fn integers_of_known_weights() {
    for case in fixture().weight {
        let weight = values(&case.kind, case.rows * case.outputs);
        let weight: Vec<f32> = weight.into_iter().map(|w| w * 0.1).collect();
        for (expected, sum) in [
            (&case.tensor_scales, case.tensor_sum),
            (&case.channel_scales, case.channel_sum),
        ] {
            let mut scales = vec![0.0; expected.len()];
            weight_scales(&weight, &mut scales);
            let scale_bits: Vec<u32> = scales.iter().map(|s| s.to_bits()).collect();
            assert_eq!(&scale_bits, expected, "{}", case.kind);
            let mut quantized = vec![0; weight.len()];
            quantize_weights(&weight, &scales, &mut quantized);
            assert_eq!(checksum(&quantized), sum, "{}", case.kind);
        }
    }
}

/// The script's models, in our layout, computed by plain loops; all sums are exact.
struct Small {
    inputs: Vec<f32>,
    /// Weight, bias, outputs, by the name of the product.
    products: [(&'static str, Vec<f32>, Vec<f32>, usize); 2],
}

const SAMPLES: usize = 256;

impl Small {
    fn new(name: &str) -> Self {
        let (seed, input, first, rows, outputs, rows_out) = match name {
            "mlp" => (11, 16, "hidden", 16, 24, 24),
            _ => (12, 64, "conv", 9, 4, 64),
        };
        let mut integers = Integers(seed);
        Self {
            inputs: integers.tensor(8, 0.25, SAMPLES * input),
            products: [
                (
                    first,
                    integers.tensor(7, 0.125, rows * outputs),
                    integers.tensor(31, 0.031_25, outputs),
                    outputs,
                ),
                (
                    "out",
                    integers.tensor(61, 0.015_625, rows_out * 10),
                    integers.tensor(63, 0.007_812_5, 10),
                    10,
                ),
            ],
        }
    }

    /// The values of every point for one sample.
    fn run(&self, sample: &[f32]) -> Vec<(&'static str, Vec<f32>)> {
        let [
            (first, weight, bias, outputs),
            (last, out, out_bias, classes),
        ] = &self.products;
        let hidden = match *first {
            "hidden" => relu(dense(sample, weight, bias, *outputs)),
            _ => relu(conv(sample, weight, bias)),
        };
        let features = match *first {
            "hidden" => hidden.clone(),
            _ => max_pool(&hidden),
        };
        let end = dense(&features, out, out_bias, *classes);
        vec![("input", sample.to_vec()), (first, hidden), (last, end)]
    }

    fn batches(&self, rows: usize) -> Vec<Vec<(&'static str, Vec<f32>)>> {
        let len = self.inputs.len() / SAMPLES;
        let batch = |samples: &[f32]| {
            let mut points = Vec::<(&str, Vec<f32>)>::new();
            for sample in samples.chunks(len) {
                for (index, (name, values)) in self.run(sample).into_iter().enumerate() {
                    match points.get_mut(index) {
                        Some((_, all)) => all.extend(values),
                        None => points.push((name, values)),
                    }
                }
            }
            points
        };
        self.inputs.chunks(rows * len).map(batch).collect()
    }
}

fn relu(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| value.max(0.0)).collect()
}

fn dense(x: &[f32], weight: &[f32], bias: &[f32], outputs: usize) -> Vec<f32> {
    let output = |o: usize| {
        let terms = x.iter().zip(weight.iter().skip(o).step_by(outputs));
        terms.fold(bias[o], |sum, (x, w)| sum + x * w)
    };
    (0..outputs).map(output).collect()
}

/// 3x3 on 8x8x1 with a border of zeros, 4 filters.
fn conv(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = Vec::new();
    for (row, column, filter) in (0..8)
        .flat_map(|r| (0..8).map(move |c| (r, c)))
        .flat_map(|(r, c)| (0..4).map(move |f| (r, c, f)))
    {
        let mut sum = bias[filter];
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let (r, c) = (row + i, column + j);
            if (1..9).contains(&r) && (1..9).contains(&c) {
                sum += x[(r - 1) * 8 + c - 1] * weight[(i * 3 + j) * 4 + filter];
            }
        }
        y.push(sum);
    }
    y
}

/// 2x2 on 8x8x4.
fn max_pool(x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::MIN; 4 * 4 * 4];
    for (index, value) in x.iter().enumerate() {
        let (row, column, channel) = (index / 32, index / 4 % 8, index % 4);
        let to = &mut y[(row / 2 * 4 + column / 2) * 4 + channel];
        *to = to.max(*value);
    }
    y
}

/// Models through onnxruntime's `quantize_static` from 256 samples: every scale, zero point,
/// integer weight and integer bias is the same.
#[test]
fn whole_models() {
    let cases = fixture().model;
    assert_eq!(cases.len(), 2 * 4 * 2);
    for case in cases {
        let what = format!("{} {} {:?}", case.name, case.method, case.granularity);
        let model = Small::new(&case.name);
        let found = ranges(method(&case.method), &model.batches(100));
        assert_eq!(found.len(), case.point.len(), "{what}");
        let params: BTreeMap<_, _> = (found.iter())
            .map(|(name, range)| (name.as_str(), QParams::from_range(*range)))
            .collect();
        for (name, expected) in &case.point {
            assert_eq!(bits(params[name.as_str()]), *expected, "{what} {name}");
        }
        let first = case.hidden.or(case.conv).expect("a first product");
        let mut x = params["input"];
        for ((name, weight, bias, outputs), expected) in
            model.products.iter().zip([&first, &case.out])
        {
            let y = params[name];
            let lowered = lower_product(weight, Some(bias), *outputs, x, y, case.granularity);
            assert_eq!(lowered.weight, expected.weight, "{what} {name}");
            assert_eq!(lowered.bias, expected.bias, "{what} {name}");
            let scales: Vec<u32> = lowered.weight_scales.iter().map(|s| s.to_bits()).collect();
            assert_eq!(scales, expected.scales, "{what} {name}");
            // Pooling and flattening keep scale and zero point.
            x = y;
        }
    }
}

#[test]
fn moving_averages() {
    for case in fixture().average {
        let model = Small::new(&case.name);
        let found = ranges(method("moving-average"), &model.batches(32));
        for (name, expected) in &case.point {
            let range = found[name];
            let found = [range.min.to_bits(), range.max.to_bits()];
            assert_eq!(found, *expected, "{} {name}", case.name);
        }
    }
}
