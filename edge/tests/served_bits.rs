//! Served products give the bits of the plain loops (so of training), whatever the instructions,
//! and conversions to and from binary16 those of the `half` crate.

use fl_edge::kernel::{
    After, Conv, ConvShape, Dense, Fused, Kernels, Levels, Nibbles, Octets, Padding, Pool, Weights,
    f16_to_f32, f32_to_f16, reference,
};

/// xorshift64* (Vigna 2016): test data only.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn number(&mut self) -> f32 {
        (self.next() % 2_000_001) as f32 / 1_000_000.0 - 1.0
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.number()).collect()
    }

    /// Like activations: some zeros, and now and then a negative zero.
    fn sparse(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| match self.between(0, 7) {
                0 | 1 => 0.0,
                2 => -0.0,
                _ => self.number() * 4.0,
            })
            .collect()
    }
}

#[track_caller]
fn same(what: &str, expected: &[f32], got: &[f32]) {
    assert_eq!(expected.len(), got.len(), "{what}");
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        assert!(
            e.to_bits() == g.to_bits(),
            "{what}: element {i} is {g:e} where the law gives {e:e}"
        );
    }
}

fn clamp(x: f32, fused: Fused) -> f32 {
    match fused {
        Fused::None => x,
        Fused::Relu => x.max(0.0) + 0.0,
        Fused::Relu6 => x.max(0.0).clamp(0.0, 6.0) + 0.0,
    }
}

/// What the sums of a product become.
fn after(sums: &[f32], first: Fused, residual: Option<&[f32]>, last: Fused) -> Vec<f32> {
    let first = sums.iter().map(|&sum| clamp(sum, first));
    match residual {
        None => first.collect(),
        Some(residual) => first
            .zip(residual)
            .map(|(own, other)| clamp(own + other, last))
            .collect(),
    }
}

/// A weight in codes of four bits, and what they stand for.
struct Four {
    codes: Vec<u8>,
    scales: Vec<u16>,
    zeros: Vec<u8>,
    group: usize,
}

/// A table that is no arithmetic progression.
const TABLE: [f32; 16] = [
    -1.0, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1, 0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.6, 0.8, 1.0,
];

impl Four {
    fn new(random: &mut Random, terms: usize, columns: usize) -> Self {
        let group = [1, 5, 16, 32, 64, 128][random.between(0, 5)];
        let scales = terms.div_ceil(group) * columns;
        let mut codes = || random.between(0, 15) as u8;
        let (weights, zeros) = (
            (0..terms * columns).map(|_| codes()).collect(),
            (0..scales).map(|_| codes()).collect(),
        );
        Self {
            codes: weights,
            zeros,
            scales: random
                .numbers(scales)
                .iter()
                .map(|&s| f32_to_f16(s))
                .collect(),
            group,
        }
    }

    fn levels(&self) -> [Levels<'_>; 3] {
        [
            Levels::Middle,
            Levels::Zeros(&self.zeros),
            Levels::Table(&TABLE),
        ]
    }

    /// The weights themselves.
    fn values(&self, columns: usize) -> [Vec<f32>; 3] {
        let value = |at: usize, levels: &Levels<'_>| {
            let scale = at / columns / self.group * columns + at % columns;
            let code = self.codes[at];
            let level = match levels {
                Levels::Middle => f32::from(code) - 8.0,
                Levels::Zeros(zeros) => f32::from(code) - f32::from(zeros[scale]),
                Levels::Table(table) => table[usize::from(code)],
            };
            level * f16_to_f32(self.scales[scale])
        };
        self.levels()
            .map(|levels| (0..self.codes.len()).map(|at| value(at, &levels)).collect())
    }

    fn weights<'a>(&'a self, packed: &'a [u8]) -> [Weights<'a>; 3] {
        self.levels().map(|levels| {
            Weights::Four(Nibbles {
                codes: packed,
                scales: &self.scales,
                levels,
                group: self.group,
            })
        })
    }
}

/// The ways in which a product may end.
const ENDS: [(Fused, bool, Fused); 6] = [
    (Fused::None, false, Fused::None),
    (Fused::Relu, false, Fused::None),
    (Fused::Relu6, false, Fused::Relu),
    (Fused::None, true, Fused::None),
    (Fused::None, true, Fused::Relu),
    (Fused::Relu6, true, Fused::Relu6),
];

/// Runs a served product in all its ways: `run(weights, after, y)`.
fn all_ends(
    what: &str,
    random: &mut Random,
    sums: [&[f32]; 5],
    packed: [Weights<'_>; 5],
    run: &mut dyn FnMut(Weights<'_>, After<'_>, &mut [f32]),
) {
    let residual = random.sparse(sums[0].len());
    for (sums, weights) in sums.iter().zip(packed) {
        for (first, added, last) in ENDS {
            let residual = added.then_some(&residual[..]);
            let mut got = vec![f32::NAN; sums.len()];
            let end = After {
                first,
                residual,
                last,
            };
            run(weights, end, &mut got);
            same(what, &after(sums, first, residual, last), &got);
        }
    }
}

#[test]
fn dense_layers() {
    let mut random = Random(0x5e7e);
    let mut shapes = vec![
        (1, 784, 256),
        (1, 130, 1000),
        (2, 60, 129),
        (3, 50, 131),
        (32, 70, 33),
        (49, 160, 40),
        (1, 1, 1),
        (600, 300, 20),
    ];
    for _ in 0..60 {
        shapes.push((
            random.between(1, 40),
            random.between(1, 90),
            random.between(1, 150),
        ));
    }
    for (rows, inputs, outputs) in shapes {
        let d = Dense { inputs, outputs };
        let x = random.sparse(rows * inputs);
        let weight = random.numbers(inputs * outputs);
        let bias = random.numbers(outputs);
        let four = Four::new(&mut random, inputs, outputs);
        let four_values = four.values(outputs);
        for kernels in Kernels::all_available() {
            let what = format!("dense {rows} x {inputs} x {outputs} {}", kernels.name());
            let mut packed = vec![f32::NAN; d.packed_len()];
            kernels.pack_dense(&d, &weight, &mut packed);
            let mut halves = vec![0; packed.len()];
            kernels.narrow(&packed, &mut halves);
            let rounded: Vec<f32> = weight.iter().map(|&w| f16_to_f32(f32_to_f16(w))).collect();
            let mut nibbles = vec![0xff; d.nibbles_len()];
            kernels.pack_dense_four(&d, &four.codes, &mut nibbles);
            let [middle, zeros, table] = four.weights(&nibbles);
            for bias in [None, Some(&bias[..])] {
                let [a, b, c] = &four_values;
                let sums = [&weight, &rounded, a, b, c].map(|weight| {
                    let mut sums = vec![0.0; rows * outputs];
                    reference::dense(&d, rows, &x, weight, bias, Fused::None, &mut sums);
                    sums
                });
                let (single, half) = (Weights::Single(&packed), Weights::Half(&halves));
                all_ends(
                    &what,
                    &mut random,
                    sums.each_ref().map(Vec::as_slice),
                    [single, half, middle, zeros, table],
                    &mut |weights, end, y| {
                        let mut scratch = vec![f32::NAN; d.served_scratch_len(weights.kind())];
                        kernels.served_dense(&d, rows, &x, weights, bias, end, y, &mut scratch);
                    },
                );
            }
        }
    }
}

const fn vertical(top: usize, bottom: usize) -> Padding {
    Padding {
        top,
        bottom,
        ..Padding::NONE
    }
}

const PADDED_SIDES: Padding = Padding {
    left: 1,
    right: 1,
    ..Padding::NONE
};

#[test]
fn convolutions() {
    let mut random = Random(0xc0de);
    let mut shapes = vec![
        ([12, 12], 1, 32, [5, 5], [1, 1], 1, Padding::all(2)),
        ([8, 8], 32, 64, [5, 5], [1, 1], 1, Padding::all(2)),
        // A stem, points, one filter per channel at both strides.
        ([21, 21], 3, 32, [3, 3], [2, 2], 1, Padding::all(1)),
        ([7, 7], 48, 24, [1, 1], [1, 1], 1, Padding::NONE),
        ([9, 9], 20, 40, [1, 1], [2, 2], 1, Padding::NONE),
        ([14, 14], 96, 96, [3, 3], [1, 1], 96, Padding::all(1)),
        ([15, 23], 37, 37, [3, 3], [2, 2], 37, Padding::all(1)),
        ([2, 2], 17, 17, [3, 3], [1, 1], 17, Padding::all(1)),
        ([1, 1], 8, 8, [5, 5], [2, 2], 8, Padding::all(2)),
        ([9, 12], 6, 40, [3, 3], [1, 1], 2, Padding::all(1)),
        // Many bands, whole and not; strides that leave lines out between bands.
        ([67, 40], 3, 20, [3, 3], [2, 2], 1, Padding::all(1)),
        ([60, 9], 70, 5, [1, 3], [3, 1], 1, PADDED_SIDES),
        ([41, 130], 2, 17, [2, 5], [5, 2], 1, Padding::all(1)),
        ([90, 70], 1, 16, [7, 7], [1, 1], 1, Padding::all(3)),
        // In place: several bands, one band, one column, groups, an even kernel.
        ([32, 32], 16, 16, [3, 3], [1, 1], 1, Padding::all(1)),
        ([8, 8], 64, 64, [3, 3], [1, 1], 1, Padding::all(1)),
        ([300, 1], 33, 33, [5, 1], [1, 1], 1, vertical(2, 2)),
        ([37, 23], 24, 24, [3, 3], [1, 1], 3, Padding::all(1)),
        ([50, 31], 19, 19, [4, 1], [1, 1], 1, vertical(3, 0)),
        ([50, 31], 19, 19, [4, 1], [1, 1], 1, vertical(0, 3)),
        ([40, 31], 18, 18, [1, 3], [1, 1], 1, PADDED_SIDES),
    ];
    let mut in_place = 0;
    for _ in 0..60 {
        let kernel = [random.between(1, 5), random.between(1, 5)];
        let stride = [random.between(1, 3), random.between(1, 3)];
        let size = [random.between(5, 12), random.between(5, 26)];
        let mut pad = |axis: usize| random.between(0, kernel[axis] - 1);
        let padding = Padding {
            top: pad(0),
            bottom: pad(0),
            left: pad(1),
            right: pad(1),
        };
        let channels = random.between(1, 40);
        let (channels, filters, groups) = match random.between(0, 2) {
            0 => (channels, channels, channels),
            1 => (channels, random.between(1, 70), 1),
            _ => (2 * channels, 2 * random.between(1, 40), 2),
        };
        shapes.push((size, channels, filters, kernel, stride, groups, padding));
    }
    for ([height, width], channels, filters, kernel, stride, groups, padding) in shapes {
        let shape = ConvShape {
            height,
            width,
            channels,
            filters,
            kernel,
            stride,
            padding,
            groups,
        };
        let c = Conv::new(shape).expect("a valid shape");
        let rows = random.between(1, 3);
        let x = random.sparse(rows * c.input_len());
        let weight = random.numbers(c.weight_len());
        let rounded: Vec<f32> = weight.iter().map(|&w| f16_to_f32(f32_to_f16(w))).collect();
        let bias = random.numbers(filters);
        let four = Four::new(&mut random, c.weight_len() / filters, filters);
        let four_values = four.values(filters);
        let octets: Vec<i8> = weight.iter().map(|w| (127.0 * w) as i8).collect();
        let scales: Vec<u16> = bias.iter().map(|&scale| f32_to_f16(scale)).collect();
        let by_column = octets.iter().zip(scales.iter().cycle());
        let octet_values: Vec<f32> = by_column
            .map(|(&code, &scale)| f32::from(code) * f16_to_f32(scale))
            .collect();
        for kernels in Kernels::all_available() {
            let what = format!("{shape:?} {}", kernels.name());
            let mut padded = vec![f32::NAN; rows * c.padded_len()];
            kernels.pad(&c, rows, &x, &mut padded);
            let mut packed = vec![f32::NAN; c.packed_len()];
            kernels.pack_conv(&c, &weight, &mut packed);
            let mut halves = vec![0; packed.len()];
            kernels.narrow(&packed, &mut halves);
            let mut nibbles = vec![0xff; c.nibbles_len()];
            kernels.pack_conv_four(&c, &four.codes, &mut nibbles);
            // With one filter per channel there are eight bits in place of four.
            let (mut weights, mut four_values) = (four.weights(&nibbles), four_values.each_ref());
            if c.is_depthwise() {
                weights = [Weights::Eight(Octets {
                    codes: &octets,
                    scales: &scales,
                }); 3];
                four_values = [&octet_values; 3];
            }
            let [middle, zeros, table] = weights;
            let [value_a, value_b, value_c] = four_values;
            for bias in [None, Some(&bias[..])] {
                let len = rows * c.output_len();
                let sums = [&weight, &rounded, value_a, value_b, value_c].map(|weight| {
                    let mut sums = vec![0.0; len];
                    reference::conv(&c, rows, &padded, weight, bias, Fused::None, &mut sums);
                    sums
                });
                let mut trained = vec![f32::NAN; len];
                kernels.conv(&c, rows, &padded, &weight, bias, Fused::None, &mut trained);
                same(&what, &sums[0], &trained);
                let (single, half) = (Weights::Single(&packed), Weights::Half(&halves));
                all_ends(
                    &what,
                    &mut random,
                    sums.each_ref().map(Vec::as_slice),
                    [single, half, middle, zeros, table],
                    &mut |weights, end, y| {
                        let mut scratch = vec![f32::NAN; c.served_scratch_len(weights.kind())];
                        kernels.served_conv(&c, rows, &x, weights, bias, end, y, &mut scratch);
                        if c.serves_in_place() {
                            in_place += 1;
                            let mut place = x.clone();
                            scratch.fill(f32::NAN);
                            kernels.served_conv_in_place(
                                &c,
                                rows,
                                weights,
                                bias,
                                end,
                                &mut place,
                                &mut scratch,
                            );
                            same(&what, y, &place);
                        }
                    },
                );
            }
        }
    }
    assert!(in_place > 100, "{in_place} in place");
}

/// Tables of four bits: a lookup and an addition to rows, against plain loops over the codes.
#[test]
fn tables() {
    let mut random = Random(0x7ab1e);
    for case in 0..60 {
        let (rows, width) = (random.between(1, 12), random.between(1, 150));
        let four = Four::new(&mut random, width, rows);
        let tokens: Vec<u32> = (0..9).map(|_| random.between(0, rows - 1) as u32).collect();
        for kernels in Kernels::all_available() {
            let mut packed = vec![0xff; Kernels::table_len(width, rows)];
            kernels.pack_table_four(width, rows, &four.codes, &mut packed);
            for (values, weights) in four.values(rows).iter().zip(four.weights(&packed)) {
                let Weights::Four(table) = weights else {
                    unreachable!("weights of four bits");
                };
                let what = format!("{case}: {rows} x {width} {}", kernels.name());
                let value = |row: usize, at: usize| values[at * rows + row];
                let mut y = vec![f32::NAN; tokens.len() * width];
                kernels.embedding_four(&tokens, width, table, &mut y);
                let of_token = |&token: &u32| (0..width).map(move |at| value(token as usize, at));
                let expected: Vec<f32> = tokens.iter().flat_map(of_token).collect();
                same(&what, &expected, &y);
                let x = random.sparse(3 * rows * width);
                let mut y = x.clone();
                kernels.add_to_rows_four(3, [rows, width], table, &mut y);
                let added = |(at, x): (usize, &f32)| x + value(at / width % rows, at % width);
                let expected: Vec<f32> = x.iter().enumerate().map(added).collect();
                same(&what, &expected, &y);
            }
        }
    }
}

#[test]
fn maximum_pooling_is_that_of_training() {
    let mut random = Random(77);
    for _ in 0..40 {
        let pool = Pool::new(
            [
                random.between(4, 9),
                random.between(4, 9),
                random.between(1, 40),
            ],
            [random.between(2, 3), random.between(2, 3)],
            [random.between(1, 3), random.between(1, 3)],
            Padding::all(random.between(0, 1)),
        )
        .expect("a valid shape");
        let mut x = random.sparse(2 * pool.input_len());
        for _ in 0..5 {
            let at = random.between(0, x.len() - 1);
            x[at] = f32::NAN;
        }
        for kernels in Kernels::all_available() {
            let mut expected = vec![0.0; 2 * pool.output_len()];
            let mut argmax = vec![0; expected.len()];
            kernels.max_pool(&pool, 2, &x, &mut expected, &mut argmax);
            let mut got = vec![0.0; expected.len()];
            kernels.served_max_pool(&pool, 2, &x, &mut got);
            same(kernels.name(), &expected, &got);
        }
    }
}

/// Widening by every set of kernels, for every binary16 there is.
#[test]
fn every_binary16_is_widened_like_the_half_crate() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let expected: Vec<u32> = all
        .iter()
        .map(|&bits| half::f16::from_bits(bits).to_f32().to_bits())
        .collect();
    for kernels in Kernels::all_available() {
        let mut wide = vec![0.0; all.len()];
        kernels.widen(&all, &mut wide);
        // And the tail, in plain code.
        for start in [0, all.len() - 7] {
            let mut tail = vec![0.0; all.len() - start];
            kernels.widen(&all[start..], &mut tail);
            wide[start..].copy_from_slice(&tail);
        }
        for ((&bits, &expected), got) in all.iter().zip(&expected).zip(&wide) {
            assert_eq!(
                got.to_bits(),
                expected,
                "{bits:#06x} with {}",
                kernels.name()
            );
            assert_eq!(f16_to_f32(bits).to_bits(), expected, "{bits:#06x}");
        }
        // A number that binary16 holds comes back; a NaN comes back quiet.
        let mut back = vec![0; all.len()];
        kernels.narrow(&wide, &mut back);
        for (&bits, &back) in all.iter().zip(&back) {
            let quiet = if half::f16::from_bits(bits).is_nan() {
                0x0200
            } else {
                0
            };
            assert_eq!(back, bits | quiet, "with {}", kernels.name());
        }
    }
}

/// Narrowing by every set of kernels: all boundaries between neighbours, their own neighbours,
/// and random bits.
#[test]
fn narrowing_rounds_like_the_half_crate() {
    let mut numbers: Vec<f32> = Vec::new();
    for bits in 0..0x7c00u16 {
        let low = f64::from(half::f16::from_bits(bits).to_f32());
        let high = match half::f16::from_bits(bits + 1).to_f32() {
            f32::INFINITY => 65536.0,
            high => f64::from(high),
        };
        let middle = ((low + high) / 2.0) as f32;
        for near in [
            low as f32,
            middle,
            f32::from_bits(middle.to_bits() - 1),
            f32::from_bits(middle.to_bits() + 1),
        ] {
            numbers.extend([near, -near]);
        }
    }
    let mut random = Random(16);
    numbers.extend((0..400_000).map(|_| f32::from_bits((random.next() >> 7) as u32)));
    numbers.extend([
        0.0,
        -0.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffc1_2345),
    ]);
    for kernels in Kernels::all_available() {
        let mut got = vec![0; numbers.len()];
        kernels.narrow(&numbers, &mut got);
        for (number, got) in numbers.iter().zip(got) {
            let expected = half::f16::from_f32(*number).to_bits();
            let bits = number.to_bits();
            assert_eq!(got, expected, "{bits:#010x} with {}", kernels.name());
            assert_eq!(f32_to_f16(*number), expected, "{bits:#010x}");
        }
    }
}
