//! Every set of kernels that this machine can run gives the bits of the plain loops, for random
//! shapes, strides, tails and gradients' ways.

use fl_edge::kernel::{
    Activation, AdamStep, BatchNorm, Conv, ConvShape, Dense, Fused, Gradient, Kernels, Momentum,
    Norm, Padding, Pool, SgdStep, Write, reference,
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

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
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
            .map(|_| match self.below(8) {
                0 | 1 => 0.0,
                2 => -0.0,
                _ => self.number(),
            })
            .collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
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

const STEPS: [SgdStep; 3] = [
    SgdStep {
        rate: 0.1,
        weight_decay: 0.0,
        proximal_mu: 0.0,
    },
    SgdStep {
        rate: 0.05,
        weight_decay: 0.01,
        proximal_mu: 0.0,
    },
    SgdStep {
        rate: 0.3,
        weight_decay: 0.001,
        proximal_mu: 0.7,
    },
];

/// Runs a gradient kernel in each of its ways and compares it with the reference.
fn gradients(
    what: &str,
    random: &mut Random,
    len: usize,
    kernel: &mut dyn FnMut(Gradient<'_>),
    law: &mut dyn FnMut(Gradient<'_>),
) {
    let old = random.numbers(len);
    let anchor = random.numbers(len);
    let (mut expected, mut got) = (old.clone(), old.clone());
    law(Gradient::Store(&mut expected));
    kernel(Gradient::Store(&mut got));
    same(what, &expected, &got);
    let stored = expected;
    let (mut expected, mut got) = (old.clone(), old.clone());
    law(Gradient::Accumulate(&mut expected));
    kernel(Gradient::Accumulate(&mut got));
    same(what, &expected, &got);
    for step in STEPS {
        let anchor = if step.proximal_mu > 0.0 {
            &anchor[..]
        } else {
            &[]
        };
        let (mut expected, mut got, mut apart) = (old.clone(), old.clone(), old.clone());
        law(Gradient::Step {
            weights: &mut expected,
            anchor,
            step,
        });
        kernel(Gradient::Step {
            weights: &mut got,
            anchor,
            step,
        });
        same(what, &expected, &got);
        for kernels in Kernels::all_available() {
            apart.copy_from_slice(&old);
            kernels.sgd(step, &stored, anchor, &mut apart);
            same(what, &expected, &apart);
        }
    }
}

#[test]
fn dense_layers_follow_the_law() {
    let mut random = Random(0x5eed);
    let mut shapes = vec![
        (10, 784, 200),
        (10, 200, 10),
        (7, 300, 47),
        (1, 1, 1),
        (33, 17, 65),
        (3, 600, 33),
    ];
    for _ in 0..60 {
        shapes.push((
            random.between(1, 40),
            random.between(1, 90),
            random.between(1, 90),
        ));
    }
    for (rows, inputs, outputs) in shapes {
        let d = Dense { inputs, outputs };
        let what = format!("dense {rows} x {inputs} x {outputs}");
        let x = random.sparse(rows * inputs);
        let w = random.numbers(inputs * outputs);
        let bias = random.numbers(outputs);
        let dy = random.sparse(rows * outputs);
        let old = random.numbers(rows * inputs);
        for kernels in Kernels::all_available() {
            let what = format!("{what} {}", kernels.name());
            for (bias, fused) in [
                (None, Fused::None),
                (Some(&bias[..]), Fused::None),
                (Some(&bias[..]), Fused::Relu),
                (Some(&bias[..]), Fused::Relu6),
            ] {
                let (mut expected, mut got) =
                    (vec![0.0; rows * outputs], vec![f32::NAN; rows * outputs]);
                reference::dense(&d, rows, &x, &w, bias, fused, &mut expected);
                kernels.dense(&d, rows, &x, &w, bias, fused, &mut got);
                same(&what, &expected, &got);
            }
            let mut scratch = vec![f32::NAN; d.dx_scratch_len()];
            for write in [Write::Store, Write::Add] {
                let (mut expected, mut got) = (old.clone(), old.clone());
                reference::dense_dx(&d, rows, &dy, &w, &mut expected, write);
                kernels.dense_dx(&d, rows, &dy, &w, &mut got, write, &mut scratch);
                same(&what, &expected, &got);
            }
            gradients(
                &what,
                &mut random,
                inputs * outputs,
                &mut |gradient| kernels.dense_dw(&d, rows, &x, &dy, gradient),
                &mut |gradient| reference::dense_dw(&d, rows, &x, &dy, gradient),
            );
            gradients(
                &what,
                &mut random,
                outputs,
                &mut |gradient| kernels.column_sums(rows, outputs, &dy, gradient),
                &mut |gradient| reference::column_sums(rows, outputs, &dy, gradient),
            );
        }
    }
}

#[test]
fn convolutions_follow_the_law() {
    let mut random = Random(0xc0de);
    let mut shapes = vec![
        // The two layers of McMahan's network at a smaller image.
        ([12, 12], 1, 32, [5, 5], [1, 1], 1, true),
        ([8, 8], 32, 64, [5, 5], [1, 1], 1, true),
        // Groups, one filter per channel, strides.
        ([7, 9], 6, 4, [3, 3], [1, 1], 2, true),
        ([9, 7], 5, 5, [3, 3], [1, 1], 5, true),
        ([9, 7], 20, 20, [3, 3], [2, 2], 20, true),
        ([8, 8], 16, 32, [3, 3], [2, 2], 1, true),
        ([8, 9], 4, 8, [1, 1], [2, 2], 2, false),
        ([5, 5], 3, 6, [3, 2], [2, 1], 3, true),
    ];
    for _ in 0..30 {
        let kernel = [random.between(1, 4), random.between(1, 4)];
        let groups = [1, 1, 2, 3][random.below(4)];
        shapes.push((
            [random.between(4, 10), random.between(4, 18)],
            groups * random.between(1, 5),
            groups * random.between(1, 21),
            kernel,
            [random.between(1, 2), random.between(1, 2)],
            groups,
            random.below(2) == 0,
        ));
    }
    for ([height, width], channels, filters, kernel, stride, groups, same_padding) in shapes {
        let padding = if same_padding {
            Padding::same([height, width], kernel, stride)
        } else {
            Padding::NONE
        };
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
        let w = random.numbers(c.weight_len());
        let bias = random.numbers(filters);
        let dy = random.sparse(rows * c.output_len());
        let old = random.numbers(rows * c.input_len());
        for kernels in Kernels::all_available() {
            let what = format!("{shape:?} {}", kernels.name());
            let mut padded = vec![f32::NAN; rows * c.padded_len()];
            kernels.pad(&c, rows, &x, &mut padded);
            for (bias, fused) in [
                (None, Fused::None),
                (Some(&bias[..]), Fused::Relu),
                (Some(&bias[..]), Fused::Relu6),
            ] {
                let len = rows * c.output_len();
                let (mut expected, mut got) = (vec![0.0; len], vec![f32::NAN; len]);
                reference::conv(&c, rows, &padded, &w, bias, fused, &mut expected);
                kernels.conv(&c, rows, &padded, &w, bias, fused, &mut got);
                same(&what, &expected, &got);
            }
            let mut scratch = vec![f32::NAN; c.dx_scratch_len(rows)];
            for write in [Write::Store, Write::Add] {
                let (mut expected, mut got) = (old.clone(), old.clone());
                reference::conv_dx(&c, rows, &dy, &w, &mut expected, write);
                kernels.conv_dx(&c, rows, &dy, &w, &mut got, write, &mut scratch);
                same(&what, &expected, &got);
            }
            let mut scratch = vec![f32::NAN; c.dw_scratch_len()];
            gradients(
                &what,
                &mut random,
                c.weight_len(),
                &mut |gradient| kernels.conv_dw(&c, rows, &padded, &dy, gradient, &mut scratch),
                &mut |gradient| reference::conv_dw(&c, rows, &padded, &dy, gradient),
            );
        }
    }
}

/// A list of everything that the other kernels compute from the same inputs.
fn everything_else(kernels: &Kernels, seed: u64) -> Vec<(&'static str, Vec<u32>)> {
    let mut random = Random(seed);
    let random = &mut random;
    let mut out = Vec::new();
    let len = random.between(1, 200);
    let wide: Vec<f32> = (0..len)
        .map(|_| random.number() * [0.1, 1.0, 10.0, 100.0][random.below(4)])
        .collect();
    let dy = random.numbers(len);
    for f in [
        Activation::Relu,
        Activation::Relu6,
        Activation::Leaky { slope: 0.01 },
        Activation::Gelu,
        Activation::Tanh,
        Activation::Sigmoid,
    ] {
        let mut y = vec![0.0; len];
        kernels.activate(f, &wide, &mut y);
        let mut in_place = wide.clone();
        kernels.activate_in_place(f, &mut in_place);
        assert_eq!(bits(&y), bits(&in_place));
        let mut dx = dy.clone();
        let kept = if f.keeps_input() { &wide } else { &y };
        kernels.activate_grad(f, kept, &mut dx);
        out.push(("activation", bits(&y)));
        out.push(("activation's gradient", bits(&dx)));
    }
    let keep: Vec<u8> = (0..len).map(|_| random.below(2) as u8).collect();
    let mut y = wide.clone();
    kernels.dropout(&keep, 2.0, &mut y);
    out.push(("dropout", bits(&y)));

    for step in STEPS {
        let (g, a) = (random.numbers(len), random.numbers(len));
        for nesterov in [false, true] {
            let (mut v, mut w) = (random.numbers(len), random.numbers(len));
            let momentum = Momentum {
                momentum: 0.9,
                nesterov,
            };
            kernels.sgd_momentum(step, momentum, &g, &a, &mut v, &mut w);
            out.push(("momentum", bits(&v)));
            out.push(("momentum", bits(&w)));
        }
        for decoupled in [false, true] {
            let (mut m, mut w) = (random.numbers(len), random.numbers(len));
            let mut s: Vec<f32> = random.numbers(len).iter().map(|s| s * s).collect();
            let adam = AdamStep::new(step, 0.9, 0.999, 1e-8, decoupled, 3);
            kernels.adam(&adam, &g, &a, &mut m, &mut s, &mut w);
            out.push(("adam", [bits(&m), bits(&s), bits(&w)].concat()));
        }
    }
    let x = random.numbers(len);
    let mut y = random.numbers(len);
    kernels.axpy(0.3, &x, &mut y);
    kernels.scale(0.7, &mut y);
    kernels.add(&x, &mut y);
    let mut z = vec![0.0; len];
    kernels.difference(&x, &y, &mut z);
    out.push(("vectors", [bits(&y), bits(&z)].concat()));
    let long = random.numbers(5000);
    let squares = kernels.sum_of_squares(&long).to_bits();
    let product = kernels.inner_product(&long, &long).to_bits();
    assert_eq!(product, squares, "the same recipe");
    let reversed: Vec<f32> = long.iter().rev().copied().collect();
    let product = kernels.inner_product(&long, &reversed).to_bits();
    out.push(("product", vec![product as u32, (product >> 32) as u32]));
    out.push(("squares", vec![squares as u32, (squares >> 32) as u32]));

    let channels = random.between(1, 40);
    let pool = Pool::new(
        [random.between(4, 9), random.between(4, 9), channels],
        [random.between(2, 3), random.between(2, 3)],
        [random.between(1, 3), random.between(1, 3)],
        Padding::all(random.below(2)),
    )
    .expect("a valid shape");
    let rows = 2;
    let x = random.sparse(rows * pool.input_len());
    let dy = random.numbers(rows * pool.output_len());
    let mut y = vec![0.0; rows * pool.output_len()];
    let mut argmax = vec![0; y.len()];
    let mut dx = vec![f32::NAN; x.len()];
    kernels.max_pool(&pool, rows, &x, &mut y, &mut argmax);
    kernels.max_pool_dx(&pool, rows, &dy, &argmax, &mut dx);
    out.push(("max pool", [bits(&y), bits(&dx)].concat()));
    kernels.avg_pool(&pool, rows, &x, &mut y);
    kernels.avg_pool_dx(&pool, rows, &dy, &mut dx);
    out.push(("avg pool", [bits(&y), bits(&dx)].concat()));
    let positions = pool.input_len() / channels;
    let mut y = vec![0.0; rows * channels];
    kernels.global_avg_pool(rows, positions, channels, &x, &mut y);
    kernels.global_avg_pool_dx(rows, positions, channels, &y, &mut dx);
    out.push(("global pool", [bits(&y), bits(&dx)].concat()));

    let groups = random.between(1, 4);
    let norm = Norm::new(
        random.between(1, 20),
        groups * random.between(1, 40),
        groups,
        1e-5,
    )
    .expect("a valid shape");
    let channels = norm.scratch_len() / 4;
    let x = random.numbers(rows * norm.example_len());
    let dy = random.numbers(x.len());
    let (gamma, beta) = (random.numbers(channels), random.numbers(channels));
    let mut stats = vec![0.0; rows * norm.stats_len()];
    let mut scratch = vec![0.0; norm.scratch_len()];
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    kernels.norm(
        &norm,
        rows,
        &x,
        &gamma,
        &beta,
        &mut y,
        &mut stats,
        &mut scratch,
    );
    let mut place = x.clone();
    kernels.norm_in_place(
        &norm,
        rows,
        &gamma,
        &beta,
        &mut place,
        &mut stats,
        &mut scratch,
    );
    assert_eq!(bits(&place), bits(&y), "in place with {}", kernels.name());
    kernels.norm_dx(&norm, rows, &x, &gamma, &stats, &dy, &mut dx, &mut scratch);
    let (mut dgamma, mut dbeta) = (random.numbers(channels), random.numbers(channels));
    kernels.norm_dparameters(
        &norm,
        rows,
        &x,
        &stats,
        &dy,
        &mut dgamma,
        &mut dbeta,
        Write::Add,
    );
    out.push(("norm", [bits(&y), bits(&stats), bits(&dx)].concat()));
    out.push(("norm", [bits(&dgamma), bits(&dbeta)].concat()));

    let rows = random.between(1, 60);
    let batch_norm = BatchNorm::new(random.between(1, 20), channels, 1e-3).expect("a shape");
    let x = random.numbers(rows * batch_norm.example_len());
    let dy = random.numbers(x.len());
    for fused in [Fused::None, Fused::Relu, Fused::Relu6] {
        let mut stats = vec![0.0; batch_norm.stats_len()];
        let (mut y, mut dx) = (vec![0.0; x.len()], dy.clone());
        kernels.batch_norm_statistics(&batch_norm, rows, &x, &mut stats);
        let (mean, r) = stats.split_at(channels);
        kernels.batch_norm(&batch_norm, rows, &x, mean, r, &gamma, &beta, fused, &mut y);
        kernels.batch_norm_dparameters(
            &batch_norm,
            rows,
            &x,
            &gamma,
            &beta,
            &mut stats,
            fused,
            &dy,
            &mut dgamma,
            &mut dbeta,
        );
        kernels.batch_norm_dx(
            &batch_norm,
            rows,
            &x,
            &gamma,
            &beta,
            &stats,
            fused,
            &dgamma,
            &dbeta,
            &mut dx,
        );
        kernels.batch_norm_running(0.1, 1.01, &stats, &mut dgamma);
        let mut r = vec![0.0; channels];
        kernels.batch_norm_factor(1e-3, &beta, &mut r);
        out.push(("batch norm", [bits(&y), bits(&stats), bits(&dx)].concat()));
        out.push((
            "batch norm",
            [bits(&dgamma), bits(&dbeta), bits(&r)].concat(),
        ));
    }

    let classes = random.between(1, 300);
    let rows = 5;
    let z: Vec<f32> = (0..rows * classes)
        .map(|_| 20.0 * random.number())
        .collect();
    let labels: Vec<u32> = (0..rows).map(|_| random.below(classes) as u32).collect();
    let targets: Vec<f32> = z.iter().map(|_| random.below(2) as f32).collect();
    let mut losses = vec![0.0; rows];
    let mut alone = vec![0.0; rows];
    let mut grad = vec![0.0; z.len()];
    kernels.softmax_cross_entropy(
        rows,
        classes,
        &z,
        &labels,
        0.2,
        &mut losses,
        Some(&mut grad),
    );
    kernels.softmax_cross_entropy(rows, classes, &z, &labels, 0.2, &mut alone, None);
    assert_eq!(bits(&losses), bits(&alone));
    out.push(("softmax", [bits(&losses), bits(&grad)].concat()));
    kernels.mean_squared_error(
        rows,
        classes,
        &z,
        &targets,
        0.2,
        &mut losses,
        Some(&mut grad),
    );
    out.push(("mse", [bits(&losses), bits(&grad)].concat()));
    kernels.binary_cross_entropy(
        rows,
        classes,
        &z,
        &targets,
        0.2,
        &mut losses,
        Some(&mut grad),
    );
    out.push(("bce", [bits(&losses), bits(&grad)].concat()));
    let (rows, columns) = (random.between(1, 40), random.between(1, 40));
    let x = random.numbers(rows * columns);
    let mut y = vec![0.0; rows * columns];
    kernels.transpose(rows, columns, &x, &mut y);
    for row in 0..rows {
        for column in 0..columns {
            assert_eq!(
                x[row * columns + column].to_bits(),
                y[column * rows + row].to_bits()
            );
        }
    }
    out
}

#[test]
fn all_other_kernels_agree() {
    for seed in 1..=60 {
        let all = Kernels::all_available();
        let expected = everything_else(&all[all.len() - 1], seed * 7919);
        for kernels in all {
            let got = everything_else(kernels, seed * 7919);
            for ((what, expected), (_, got)) in expected.iter().zip(&got) {
                assert_eq!(expected, got, "{what} with {} at {seed}", kernels.name());
            }
        }
    }
}
