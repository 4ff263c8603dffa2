//! Inference by the served kernels, layer by layer, of four networks.
//!
//! `cargo bench -p fl-edge --bench served [-- PART_OF_A_NAME]`. A network runs as a whole again
//! and again; each layer's time is its median, and a layer's work is counted in multiply-adds.
//! One thread. `cargo xtask peers` compares whole models with another runtime.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints its table"
)]

#[path = "shapes/mod.rs"]
mod shapes;

use std::time::Instant;

use fl_edge::kernel::{After, Conv, ConvShape, Dense, Fused, Kernels, Padding, Pool, Weights};
use shapes::{median, minimum};

enum Work {
    Conv {
        conv: Conv,
        packed: Vec<f32>,
        halves: Vec<u16>,
        bias: Vec<f32>,
        clamp: Fused,
        residual: bool,
    },
    Dense {
        dense: Dense,
        packed: Vec<f32>,
        halves: Vec<u16>,
        bias: Vec<f32>,
        clamp: Fused,
    },
    MaxPool(Pool),
    GlobalAverage {
        positions: usize,
        channels: usize,
    },
}

struct Network {
    name: &'static str,
    layers: Vec<(String, Work)>,
    input: usize,
    widest: usize,
    height: usize,
    channels: usize,
}

fn numbers(len: usize, size: f32) -> Vec<f32> {
    (0..len)
        .map(|i| (((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5) * size)
        .collect()
}

impl Network {
    fn new(name: &'static str, height: usize, channels: usize) -> Self {
        Self {
            name,
            layers: Vec::new(),
            input: height * height * channels,
            widest: height * height * channels,
            height,
            channels,
        }
    }

    fn push(&mut self, name: String, work: Work, output: usize) {
        self.widest = self.widest.max(output);
        self.layers.push((name, work));
    }

    fn conv(
        &mut self,
        filters: usize,
        kernel: usize,
        stride: usize,
        depthwise: bool,
        clamp: Fused,
    ) {
        let shape = ConvShape {
            height: self.height,
            width: self.height,
            channels: self.channels,
            filters,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: Padding::all(kernel / 2),
            groups: if depthwise { self.channels } else { 1 },
        };
        let conv = Conv::new(shape).expect("a valid shape");
        let size = 3.0 / ((conv.weight_len() / filters) as f32).sqrt();
        let weight = numbers(conv.weight_len(), size);
        let mut packed = vec![0.0; conv.packed_len()];
        Kernels::best().pack_conv(&conv, &weight, &mut packed);
        let mut halves = vec![0; packed.len()];
        Kernels::best().narrow(&packed, &mut halves);
        let name = format!(
            "{}x{}x{} {kernel}x{kernel}{} /{stride} -> {filters}",
            self.height,
            self.height,
            self.channels,
            if depthwise { " dw" } else { "" },
        );
        self.height = conv.out_height();
        self.channels = filters;
        let output = conv.output_len();
        let work = Work::Conv {
            conv,
            packed,
            halves,
            bias: numbers(filters, 0.1),
            clamp,
            residual: false,
        };
        self.push(name, work, output);
    }

    fn dense(&mut self, outputs: usize, clamp: Fused) {
        let inputs = self.height * self.height * self.channels;
        let dense = Dense { inputs, outputs };
        let weight = numbers(inputs * outputs, 3.0 / (inputs as f32).sqrt());
        let mut packed = vec![0.0; dense.packed_len()];
        Kernels::best().pack_dense(&dense, &weight, &mut packed);
        let mut halves = vec![0; packed.len()];
        Kernels::best().narrow(&packed, &mut halves);
        (self.height, self.channels) = (1, outputs);
        let work = Work::Dense {
            dense,
            packed,
            halves,
            bias: numbers(outputs, 0.1),
            clamp,
        };
        self.push(format!("dense {inputs} -> {outputs}"), work, outputs);
    }

    fn max_pool(&mut self) {
        let input = [self.height, self.height, self.channels];
        let pool = Pool::new(input, [2, 2], [2, 2], Padding::NONE).expect("a valid shape");
        self.height = pool.out_height();
        let output = pool.output_len();
        self.push("max-pool 2x2".to_owned(), Work::MaxPool(pool), output);
    }

    fn global_average(&mut self) {
        let positions = self.height * self.height;
        let channels = self.channels;
        self.height = 1;
        let work = Work::GlobalAverage {
            positions,
            channels,
        };
        self.push("global average".to_owned(), work, channels);
    }
}

/// 784-256-128-10.
fn mlp() -> Network {
    let mut n = Network::new("mlp", 28, 1);
    n.dense(256, Fused::Relu);
    n.dense(128, Fused::Relu);
    n.dense(10, Fused::None);
    n
}

/// McMahan et al. 2017.
fn cnn_fedavg() -> Network {
    let mut n = Network::new("cnn-fedavg", 28, 1);
    n.conv(32, 5, 1, false, Fused::Relu);
    n.max_pool();
    n.conv(64, 5, 1, false, Fused::Relu);
    n.max_pool();
    n.dense(512, Fused::Relu);
    n.dense(10, Fused::None);
    n
}

/// Sandler et al. 2018, table 2, its batch normalisation folded.
fn mobilenet_v2(name: &'static str, width: f64, side: usize) -> Network {
    let scaled = |channels: usize| {
        let exact = channels as f64 * width;
        let rounded = (((exact + 4.0) as usize) / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * exact {
            rounded + 8
        } else {
            rounded
        }
    };
    let mut n = Network::new(name, side, 3);
    n.conv(scaled(32), 3, 2, false, Fused::Relu6);
    for (expansion, channels, repeats, stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let (inputs, outputs) = (n.channels, scaled(channels));
            if expansion > 1 {
                n.conv(inputs * expansion, 1, 1, false, Fused::Relu6);
            }
            n.conv(inputs * expansion, 3, stride, true, Fused::Relu6);
            n.conv(outputs, 1, 1, false, Fused::None);
            if let Some((_, Work::Conv { residual, .. })) = n.layers.last_mut() {
                *residual = stride == 1 && inputs == outputs;
            }
        }
    }
    n.conv(scaled(1280).max(1280), 1, 1, false, Fused::Relu6);
    n.global_average();
    n.dense(1000, Fused::None);
    n
}

fn macs(work: &Work) -> usize {
    match work {
        Work::Conv { conv, .. } => conv.output_len() * conv.weight_len() / conv.shape().filters,
        Work::Dense { dense, .. } => dense.inputs * dense.outputs,
        Work::MaxPool(_) | Work::GlobalAverage { .. } => 0,
    }
}

/// Runs a layer from `x` to `y`; a residual is what lies in `other`.
fn run(
    work: &Work,
    half: bool,
    rows: usize,
    x: &[f32],
    other: &[f32],
    y: &mut [f32],
    s: &mut [f32],
) {
    let k = Kernels::best();
    match work {
        Work::Conv {
            conv,
            packed,
            halves,
            bias,
            clamp,
            residual,
        } => {
            let weights = if half {
                Weights::Half(halves)
            } else {
                Weights::Single(packed)
            };
            let after = After {
                first: *clamp,
                residual: residual.then_some(other),
                last: Fused::None,
            };
            k.served_conv(conv, rows, x, weights, Some(bias), after, y, s);
        }
        Work::Dense {
            dense,
            packed,
            halves,
            bias,
            clamp,
        } => {
            let weights = if half {
                Weights::Half(halves)
            } else {
                Weights::Single(packed)
            };
            k.served_dense(
                dense,
                rows,
                x,
                weights,
                Some(bias),
                (*clamp).into(),
                y,
                &mut [],
            );
        }
        Work::MaxPool(pool) => k.served_max_pool(pool, rows, x, y),
        Work::GlobalAverage {
            positions,
            channels,
        } => k.global_avg_pool(rows, *positions, *channels, x, y),
    }
}

fn measure(n: &Network, rows: usize, half: bool, details: bool) {
    let input = numbers(rows * n.input, 2.0);
    let mut buffers = [(); 3].map(|()| vec![0.0f32; rows * n.widest]);
    let mut scratch = vec![0.0; 4 * n.widest + (1 << 16)];
    let mut times = vec![Vec::new(); n.layers.len()];
    let mut totals = Vec::new();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < 1.0 || totals.len() < 5 {
        let start = Instant::now();
        for (index, (_, work)) in n.layers.iter().enumerate() {
            let begin = Instant::now();
            let [a, b, c] = &mut buffers;
            let (from, other, to) = match index % 3 {
                0 => (&*a, &*c, b),
                1 => (&*b, &*a, c),
                _ => (&*c, &*b, a),
            };
            let from = if index == 0 { &input } else { from };
            run(work, half, rows, from, other, to, &mut scratch);
            times[index].push(begin.elapsed().as_secs_f64());
        }
        totals.push(start.elapsed().as_secs_f64());
    }
    if details {
        for ((name, work), times) in n.layers.iter().zip(&mut times) {
            let (time, best) = (median(times), minimum(times));
            println!(
                "    {name:<34}{:>10.1} us (best {:>10.1}){:>9.1} GMAC/s at best",
                time * 1e6,
                best * 1e6,
                (rows * macs(work)) as f64 / best * 1e-9
            );
        }
    }
    let all: usize = n.layers.iter().map(|(_, work)| macs(work)).sum();
    let total = median(&mut totals);
    println!(
        "{:<18} batch {rows:<3}{:<5}{:>12.1} us (best {:>10.1}){:>9.1} GMAC/s",
        n.name,
        if half { "f16" } else { "f32" },
        total * 1e6,
        minimum(&totals) * 1e6,
        (rows * all) as f64 / total * 1e-9,
    );
}

fn main() {
    println!("kernels: {}", fl_edge::kernel::name());
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for network in [
        mlp(),
        cnn_fedavg(),
        mobilenet_v2("mobilenet-v2-0.5", 0.5, 96),
        mobilenet_v2("mobilenet-v2-1.0", 1.0, 224),
    ] {
        if filter
            .as_ref()
            .is_some_and(|part| !network.name.contains(part.as_str()))
        {
            continue;
        }
        for (rows, half) in [(1, false), (32, false), (1, true), (32, true)] {
            measure(&network, rows, half, filter.is_some());
        }
    }
}
