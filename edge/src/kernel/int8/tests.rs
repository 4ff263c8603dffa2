//! Every kernel of every tier against the plain loops of `reference`.

use super::level::Level;
use super::{Add, Affine, End, Packing, Requantize, Side, reference};
use crate::kernel::{Conv, ConvShape, Dense, Kernels, Padding, Pool};

/// xorshift64* (Vigna 2016): test data only.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn weights(&mut self, len: usize) -> Vec<i8> {
        (0..len)
            .map(|_| (self.below(255) as i32 - 127) as i8)
            .collect()
    }

    fn biases(&mut self, len: usize) -> Vec<i32> {
        (0..len)
            .map(|_| self.below(20_001) as i32 - 10_000)
            .collect()
    }

    /// Between `low` and twice as much.
    fn scale(&mut self, low: f32) -> f32 {
        low * (1.0 + self.below(1 << 20) as f32 / (1 << 20) as f32)
    }

    fn scales(&mut self, len: usize, low: f32) -> Vec<f32> {
        (0..len).map(|_| self.scale(low)).collect()
    }

    /// Extreme ones as often as all others.
    fn zero_point(&mut self) -> u8 {
        match self.below(4) {
            0 => 0,
            1 => 255,
            _ => self.next() as u8,
        }
    }

    fn affine(&mut self) -> Affine {
        Affine {
            scale: self.scale(0.01),
            zero_point: self.zero_point(),
        }
    }
}

/// The kernels of every tier.
fn all() -> Vec<Kernels> {
    Level::available()
        .into_iter()
        .map(|integers| Kernels {
            integers,
            ..*Kernels::best()
        })
        .collect()
}

/// A product with a kernel and its sums by definition.
struct Product<'a> {
    what: String,
    columns: usize,
    acc: Vec<i64>,
    run: &'a dyn Fn(&Kernels, End<'_>),
}

/// Runs a product with every tier and every end.
#[track_caller]
fn check(random: &mut Random, product: &Product<'_>) {
    let (columns, len) = (product.columns, product.acc.len());
    // About a hundred steps for a typical sum.
    let typical = product.acc.iter().map(|a| a.unsigned_abs()).max();
    let low = 200.0 / (typical.unwrap_or(1).max(1) as f32);
    let one = [random.scale(low)];
    let many = random.scales(columns, low);
    let zero_point = random.zero_point();
    let other = random.bytes(len);
    let add = Add::new(random.affine(), random.affine(), random.affine());
    for kernels in all() {
        let what = format!("{} by {}", product.what, kernels.int8_name());
        let mut raw = vec![0; len];
        (product.run)(&kernels, End::Raw(&mut raw));
        let expected: Vec<i32> = product.acc.iter().map(|&a| a as i32).collect();
        assert_eq!(raw, expected, "{what}");
        for multipliers in [&one[..], &many] {
            let mut real = vec![0.0; len];
            let end = End::Dequantize {
                scales: multipliers,
                y: &mut real,
            };
            (product.run)(&kernels, end);
            for (i, (real, acc)) in real.iter().zip(&expected).enumerate() {
                let scale = multipliers[i % columns % multipliers.len()];
                assert_eq!(real.to_bits(), (*acc as f32 * scale).to_bits(), "{what}");
            }
            for (low, high) in [(0, 255), (zero_point, 255), (zero_point / 2, zero_point)] {
                let requantize = Requantize {
                    multipliers,
                    zero_point,
                    low,
                    high,
                };
                let expected: Vec<(u8, u8)> = product
                    .acc
                    .iter()
                    .enumerate()
                    .map(|(i, &acc)| reference::requantize(acc, i % columns, &requantize))
                    .collect();
                let (mut y, mut mask) = (vec![0; len], vec![0; len]);
                (product.run)(
                    &kernels,
                    End::Requantize {
                        requantize,
                        y: &mut y,
                    },
                );
                assert!(y.iter().eq(expected.iter().map(|e| &e.0)), "{what}");
                y.fill(0);
                let end = End::RequantizeWithMask {
                    requantize,
                    y: &mut y,
                    mask: &mut mask,
                };
                (product.run)(&kernels, end);
                assert!(y.iter().eq(expected.iter().map(|e| &e.0)), "{what}");
                assert!(mask.iter().eq(expected.iter().map(|e| &e.1)), "{what}");
                y.fill(0);
                let end = End::Requantize {
                    requantize,
                    y: &mut y,
                };
                kernels.int8_end(columns, &raw, end);
                assert!(y.iter().eq(expected.iter().map(|e| &e.0)), "{what}");
                for side in [Side::First, Side::Second] {
                    let end = End::RequantizeAdd {
                        requantize,
                        add,
                        side,
                        other: &other,
                        y: &mut y,
                    };
                    (product.run)(&kernels, end);
                    for (i, &acc) in product.acc.iter().enumerate() {
                        let sum = reference::requantize_add(
                            acc,
                            i % columns,
                            &requantize,
                            &add,
                            side,
                            other[i],
                        );
                        assert_eq!(y[i], sum, "{what}");
                    }
                }
            }
        }
    }
}

fn check_dense(random: &mut Random, d: Dense, rows: usize, x: &[u8], weight: &[i8], zero: u8) {
    let bias = random.biases(d.outputs);
    let packing = Packing::dense(&d);
    let (mut packed, mut folded) = (vec![1; packing.len()], vec![1; packing.columns()]);
    packing.pack(weight, Some(&bias), zero, &mut packed, &mut folded);
    let (mut back, mut bias_back) = (vec![0; weight.len()], vec![0; bias.len()]);
    packing.unpack(&packed, &folded, zero, &mut back, &mut bias_back);
    assert_eq!((&back[..], &bias_back), (weight, &bias));
    let product = Product {
        what: format!("{d:?} of {rows}"),
        columns: d.outputs,
        acc: reference::dense(&d, rows, x, zero, weight, Some(&bias)),
        run: &|kernels, end| kernels.int8_dense(&d, rows, x, &packed, &folded, end),
    };
    check(random, &product);
}

fn check_conv(random: &mut Random, shape: ConvShape, rows: usize) {
    let c = Conv::new(shape).expect("a valid shape");
    let x = random.bytes(rows * c.input_len());
    let weight = random.weights(c.weight_len());
    let bias = random.biases(shape.filters);
    let zero = random.zero_point();
    let packing = Packing::conv(&c);
    let (mut packed, mut folded) = (vec![1; packing.len()], vec![1; packing.columns()]);
    packing.pack(&weight, Some(&bias), zero, &mut packed, &mut folded);
    let (mut back, mut bias_back) = (vec![0; weight.len()], vec![0; bias.len()]);
    packing.unpack(&packed, &folded, zero, &mut back, &mut bias_back);
    assert_eq!((back, bias_back), (weight.clone(), bias.clone()));
    let product = Product {
        what: format!("{shape:?} of {rows}"),
        columns: shape.filters,
        acc: reference::conv(&c, rows, &x, zero, &weight, Some(&bias)),
        run: &|kernels, end| {
            let mut scratch = vec![7; c.int8_scratch_len()];
            kernels.int8_conv(&c, rows, &x, zero, &packed, &folded, end, &mut scratch);
        },
    };
    check(random, &product);
}

#[test]
fn dense_of_ragged_sizes() {
    let mut random = Random(1);
    let mut sizes = vec![(784, 256, 1), (100, 300, 33), (1, 1, 1), (1, 17, 30)];
    for _ in 0..60 {
        let inputs = random.between(1, 70);
        sizes.push((inputs, random.between(1, 150), random.between(1, 40)));
    }
    for (inputs, outputs, rows) in sizes {
        let d = Dense { inputs, outputs };
        let x = random.bytes(rows * inputs);
        let weight = random.weights(inputs * outputs);
        let zero = random.zero_point();
        check_dense(&mut random, d, rows, &x, &weight, zero);
    }
}

#[test]
fn saturating_inputs_are_exact() {
    // All activations 255 and all weights 127 or -127: `vpmaddubsw` would saturate here.
    let mut random = Random(2);
    for (inputs, zero) in [(784, 0), (784, 255), (4096, 0), (66_311, 0)] {
        for w in [127i8, -127] {
            let d = Dense { inputs, outputs: 3 };
            let x = vec![255; 2 * inputs];
            let packing = Packing::dense(&d);
            let (mut packed, mut folded) = (vec![0; packing.len()], vec![0; 3]);
            packing.pack(&vec![w; 3 * inputs], None, zero, &mut packed, &mut folded);
            let expected = (255 - i32::from(zero)) * i32::from(w) * inputs as i32;
            for kernels in all() {
                let mut acc = [1; 6];
                kernels.int8_dense(&d, 2, &x, &packed, &folded, End::Raw(&mut acc));
                assert_eq!(acc, [expected; 6], "{}", kernels.int8_name());
            }
            if inputs < 1000 {
                check_dense(&mut random, d, 2, &x, &vec![w; 3 * inputs], zero);
            }
        }
    }
}

#[test]
fn convolutions_of_all_kinds() {
    let mut random = Random(3);
    for case in 0..120 {
        let kernel = [random.between(1, 5), random.between(1, 5)];
        let below = |random: &mut Random, kernel: usize| random.below(kernel);
        let padding = match case % 3 {
            0 => Padding::NONE,
            _ => Padding {
                top: below(&mut random, kernel[0]),
                bottom: below(&mut random, kernel[0]),
                left: below(&mut random, kernel[1]),
                right: below(&mut random, kernel[1]),
            },
        };
        let groups = match case % 4 {
            0 => random.between(2, 3),
            _ => 1,
        };
        let shape = ConvShape {
            height: random.between(5, 11),
            width: random.between(5, 14),
            channels: groups * random.between(1, 9),
            filters: groups * random.between(1, 40),
            kernel,
            stride: [random.between(1, 3), random.between(1, 3)],
            padding,
            groups,
        };
        check_conv(&mut random, shape, 1 + case % 2);
    }
    // As in the networks.
    for (size, channels, filters, kernel, stride) in [
        (9, 3, 32, 3, 2),
        (10, 32, 64, 5, 1),
        (7, 96, 24, 1, 1),
        (7, 24, 144, 1, 1),
    ] {
        let shape = ConvShape {
            height: size,
            width: size,
            channels,
            filters,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: Padding::all(kernel / 2),
            groups: 1,
        };
        check_conv(&mut random, shape, 2);
    }
}

#[test]
fn depthwise_convolutions() {
    let mut random = Random(4);
    for case in 0..80 {
        let kernel = match case % 5 {
            0 => [5, 5],
            1 => [random.between(1, 8), random.between(1, 8)],
            _ => [3, 3],
        };
        let channels = match case % 4 {
            0 => [16, 32, 48, 64, 96, 144, 192][random.below(7)],
            _ => random.between(2, 140),
        };
        let padding = match case % 3 {
            0 => Padding::NONE,
            1 => Padding::all(kernel[0].min(kernel[1]) / 2),
            _ => Padding {
                bottom: random.below(kernel[0]),
                right: random.below(kernel[1]),
                ..Padding::NONE
            },
        };
        let shape = ConvShape {
            height: random.between(8, 11),
            width: random.between(8, 13),
            channels,
            filters: channels,
            kernel,
            stride: [random.between(1, 2), random.between(1, 2)],
            padding,
            groups: channels,
        };
        check_conv(&mut random, shape, 1 + case % 2);
    }
}

#[test]
fn pooling() {
    let mut random = Random(5);
    for _ in 0..60 {
        let channels = random.between(1, 100);
        let kernel = [random.between(1, 4), random.between(1, 4)];
        let padding = Padding {
            top: random.below(kernel[0]),
            bottom: 0,
            left: random.below(kernel[1]),
            right: 0,
        };
        let size = [random.between(4, 9), random.between(4, 9), channels];
        let stride = [random.between(1, 3), random.between(1, 3)];
        let p = Pool::new(size, kernel, stride, padding).expect("a valid shape");
        let rows = random.between(1, 2);
        let x = random.bytes(rows * p.input_len());
        let (from, to) = (random.affine(), random.affine());
        let positions = size[0] * size[1];
        for kernels in all() {
            let what = kernels.int8_name();
            let mut y = vec![9; rows * p.output_len()];
            kernels.int8_max_pool(&p, rows, &x, &mut y);
            assert_eq!(y, reference::max_pool(&p, rows, &x), "{what}");
            kernels.int8_avg_pool(&p, rows, &x, from, to, &mut y);
            assert_eq!(y, reference::avg_pool(&p, rows, &x, from, to), "{what}");
            let mut y = vec![9; rows * channels];
            kernels.int8_global_avg_pool(rows, positions, channels, &x, from, to, &mut y);
            for (at, y) in y.iter().enumerate() {
                let (row, channel) = (at / channels, at % channels);
                let inputs: Vec<u8> = x[row * positions * channels..][..positions * channels]
                    .iter()
                    .skip(channel)
                    .step_by(channels)
                    .copied()
                    .collect();
                assert_eq!(*y, reference::average(&inputs, from, to), "{what}");
            }
        }
    }
}

#[test]
fn every_pair_adds_alike() {
    let mut random = Random(6);
    let first: Vec<u8> = (0..=65_535u32).map(|i| i as u8).collect();
    let second: Vec<u8> = (0..=65_535u32).map(|i| (i >> 8) as u8).collect();
    for _ in 0..8 {
        let add = Add {
            low: random.below(20) as u8,
            high: 200 + random.below(56) as u8,
            ..Add::new(random.affine(), random.affine(), random.affine())
        };
        for kernels in all() {
            for len in [65_536, random.between(1, 100)] {
                let mut y = vec![0; len];
                kernels.int8_add(&add, &first[..len], &second, &mut y);
                for (i, y) in y.iter().enumerate() {
                    assert_eq!(*y, reference::add(first[i], second[i], &add));
                    assert_eq!(*y, add.apply(first[i], second[i]));
                }
            }
        }
    }
}

#[test]
fn tables_and_conversions() {
    let mut random = Random(7);
    let all_bytes: Vec<u8> = (0..=255).cycle().take(256 * 3 + 5).collect();
    for _ in 0..20 {
        let (from, to) = (random.affine(), random.affine());
        let table = from.table(to, |x| x * 0.5 - 0.1);
        let mut x: Vec<f32> = (0..333)
            .map(|_| (random.below(2001) as f32 - 1000.0) * to.scale * 0.5)
            .collect();
        x.extend([f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30, -1e30, -0.0]);
        for kernels in all() {
            let what = kernels.int8_name();
            let mut y = vec![0; all_bytes.len()];
            kernels.int8_lut(&table, &all_bytes, &mut y);
            for (q, y) in all_bytes.iter().zip(&y) {
                assert_eq!(*y, to.quantize(from.dequantize(*q) * 0.5 - 0.1), "{what}");
            }
            kernels.int8_requantize(from, to, &all_bytes, &mut y);
            for (q, y) in all_bytes.iter().zip(&y) {
                assert_eq!(*y, to.quantize(from.dequantize(*q)), "{what}");
            }
            let mut real = vec![0.0; all_bytes.len()];
            kernels.int8_dequantize(from, &all_bytes, &mut real);
            for (q, real) in all_bytes.iter().zip(&real) {
                let steps = f32::from(*q) - f32::from(from.zero_point);
                assert_eq!(real.to_bits(), (steps * from.scale).to_bits(), "{what}");
            }
            let mut q = vec![0; x.len()];
            kernels.int8_quantize(to, &x, &mut q);
            for (x, q) in x.iter().zip(&q) {
                let zero = f32::from(to.zero_point);
                // The definition, in f64 after the one rounded division.
                let steps = libm::rint(f64::from(x / to.scale)) + f64::from(zero);
                let expected = if x.is_nan() {
                    0
                } else {
                    steps.clamp(0.0, 255.0) as u8
                };
                assert_eq!(*q, expected, "{what}: {x}");
            }
        }
    }
}
