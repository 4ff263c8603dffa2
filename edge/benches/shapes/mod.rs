//! The products of one SGD step of two networks, ours and the `gemm` crate's.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each benchmark uses a part; a benchmark measures time"
)]

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use fl_edge::kernel::{Conv, ConvShape, Dense, Fused, Gradient, Kernels, Padding, SgdStep, Write};

/// One product: ours and a plain one of `m x k x n`.
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) mkn: [usize; 3],
    pub(crate) ours: Box<dyn FnMut()>,
    pub(crate) gemm: Box<dyn FnMut()>,
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5)
        .collect()
}

/// How an operand lies: `[rows, columns]` row-major, or its transpose.
#[derive(Clone, Copy, PartialEq)]
enum Lies {
    Rows,
    Columns,
}

/// `c[m, n] = a[m, k] * b[k, n]` by the `gemm` crate.
fn plain(mkn: [usize; 3], a_lies: Lies, b_lies: Lies) -> Box<dyn FnMut()> {
    let [m, k, n] = mkn;
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0f32; m * n]);
    let strides = |lies: Lies, rows: usize, columns: usize| match lies {
        Lies::Rows => (1, columns as isize),
        Lies::Columns => (rows as isize, 1),
    };
    Box::new(move || {
        let (a_cs, a_rs) = strides(a_lies, m, k);
        let (b_cs, b_rs) = strides(b_lies, k, n);
        // SAFETY: the buffers hold exactly the matrices that the strides describe.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                a_cs,
                a_rs,
                b.as_ptr(),
                b_cs,
                b_rs,
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        black_box(&mut c);
    })
}

const STEP: SgdStep = SgdStep {
    rate: 1e-9,
    weight_decay: 0.0,
    proximal_mu: 0.0,
};

/// How a weight's gradient is used.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Use {
    Stored,
    Stepped,
}

fn gradient(used: Use, to: &mut [f32]) -> Gradient<'_> {
    match used {
        Use::Stored => Gradient::Store(to),
        Use::Stepped => Gradient::Step {
            weights: to,
            anchor: &[],
            step: STEP,
        },
    }
}

fn dense(list: &mut Vec<Product>, name: &str, rows: usize, d: Dense, dx: bool, used: Use) {
    let k = Kernels::best();
    let Dense { inputs, outputs } = d;
    // The three products of a layer share their operands, as in a step.
    let x = Rc::new(numbers(rows * inputs));
    let dy = Rc::new(numbers(rows * outputs));
    let w = Rc::new(RefCell::new(numbers(inputs * outputs)));
    let (xs, dys) = (Rc::clone(&x), Rc::clone(&dy));
    let weights = Rc::clone(&w);
    let mut y = vec![0.0; rows * outputs];
    list.push(Product {
        name: format!("{name} forward"),
        mkn: [rows, inputs, outputs],
        ours: Box::new(move || {
            k.dense(&d, rows, &x, &weights.borrow(), None, Fused::None, &mut y);
            black_box(&mut y);
        }),
        gemm: plain([rows, inputs, outputs], Lies::Rows, Lies::Rows),
    });
    if dx {
        let weights = Rc::clone(&w);
        let mut to = vec![0.0; rows * inputs];
        let mut scratch = vec![0.0; d.dx_scratch_len()];
        list.push(Product {
            name: format!("{name} dX"),
            mkn: [rows, outputs, inputs],
            ours: Box::new(move || {
                let write = Write::Store;
                let weights = weights.borrow();
                k.dense_dx(&d, rows, &dy, &weights, &mut to, write, &mut scratch);
                black_box(&mut to);
            }),
            gemm: plain([rows, outputs, inputs], Lies::Rows, Lies::Columns),
        });
    }
    list.push(Product {
        name: format!("{name} dW"),
        mkn: [inputs, rows, outputs],
        ours: Box::new(move || {
            k.dense_dw(&d, rows, &xs, &dys, gradient(used, &mut w.borrow_mut()));
            black_box(&w);
        }),
        gemm: plain([inputs, rows, outputs], Lies::Columns, Lies::Rows),
    });
}

fn conv(list: &mut Vec<Product>, name: &str, rows: usize, shape: ConvShape, dx: bool, used: Use) {
    let k = Kernels::best();
    let c = Conv::new(shape).expect("a valid shape");
    let [kh, kw] = shape.kernel;
    let window = kh * kw * shape.channels;
    let positions = rows * c.out_height() * c.out_width();
    let x = Rc::new(numbers(rows * c.padded_len()));
    let dy = Rc::new(numbers(rows * c.output_len()));
    let w = Rc::new(RefCell::new(numbers(c.weight_len())));
    let (xs, dys) = (Rc::clone(&x), Rc::clone(&dy));
    let (weights, forward) = (Rc::clone(&w), c.clone());
    let mut y = vec![0.0; rows * c.output_len()];
    list.push(Product {
        name: format!("{name} forward"),
        mkn: [positions, window, shape.filters],
        ours: Box::new(move || {
            let weights = weights.borrow();
            k.conv(&forward, rows, &x, &weights, None, Fused::None, &mut y);
            black_box(&mut y);
        }),
        gemm: plain([positions, window, shape.filters], Lies::Rows, Lies::Rows),
    });
    if dx {
        let (weights, backward) = (Rc::clone(&w), c.clone());
        let mut to = vec![0.0; rows * c.input_len()];
        let mut scratch = vec![0.0; c.dx_scratch_len(rows)];
        let mkn = [
            rows * shape.height * shape.width,
            kh * kw * shape.filters,
            shape.channels,
        ];
        list.push(Product {
            name: format!("{name} dX"),
            mkn,
            ours: Box::new(move || {
                let write = Write::Store;
                let weights = weights.borrow();
                k.conv_dx(&backward, rows, &dy, &weights, &mut to, write, &mut scratch);
                black_box(&mut to);
            }),
            gemm: plain(mkn, Lies::Rows, Lies::Rows),
        });
    }
    let mut scratch = vec![0.0; c.dw_scratch_len()];
    list.push(Product {
        name: format!("{name} dW"),
        mkn: [window, positions, shape.filters],
        ours: Box::new(move || {
            let mut w = w.borrow_mut();
            k.conv_dw(&c, rows, &xs, &dys, gradient(used, &mut w), &mut scratch);
            black_box(&w);
        }),
        gemm: plain(
            [window, positions, shape.filters],
            Lies::Columns,
            Lies::Rows,
        ),
    });
}

/// `mlp-2nn` of McMahan et al. 2017.
pub(crate) fn mlp(batch: usize, used: Use) -> Vec<Product> {
    let mut list = Vec::new();
    let layer = |inputs, outputs| Dense { inputs, outputs };
    dense(&mut list, "fc1", batch, layer(784, 200), false, used);
    dense(&mut list, "fc2", batch, layer(200, 200), true, used);
    dense(&mut list, "fc3", batch, layer(200, 10), true, used);
    list
}

/// `cnn-fedavg` of McMahan et al. 2017.
pub(crate) fn cnn(batch: usize, used: Use) -> Vec<Product> {
    let mut list = Vec::new();
    let layer = |side: usize, channels, filters| ConvShape {
        height: side,
        width: side,
        channels,
        filters,
        kernel: [5, 5],
        stride: [1, 1],
        padding: Padding::all(2),
        groups: 1,
    };
    conv(&mut list, "conv1", batch, layer(28, 1, 32), false, used);
    conv(&mut list, "conv2", batch, layer(14, 32, 64), true, used);
    let fc1 = Dense {
        inputs: 3136,
        outputs: 512,
    };
    let fc2 = Dense {
        inputs: 512,
        outputs: 10,
    };
    dense(&mut list, "fc1", batch, fc1, true, used);
    dense(&mut list, "fc2", batch, fc2, true, used);
    list
}

pub(crate) fn minimum(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds of one call, from `calls` calls.
pub(crate) fn time(f: &mut dyn FnMut(), calls: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        f();
    }
    start.elapsed().as_secs_f64() / calls as f64
}
