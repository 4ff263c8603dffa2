//! Integer kernels beside the f32 kernels, shape by shape, in one interleaved run.
//!
//! `cargo bench -p fl-edge --bench int8 [-- PART_OF_A_NAME]`. Times are medians in microseconds,
//! one thread. ratio = f32 / int8; above 1 int8 is faster. The f32 convolution takes an input that
//! is padded already, the integer one pads it itself.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::time::Instant;

use fl_edge::kernel::int8::{End, Packing, Requantize};
use fl_edge::kernel::{Conv, ConvShape, Dense, Fused, Kernels, Padding};

struct Case {
    name: String,
    macs: usize,
    int8: Box<dyn FnMut()>,
    f32: Box<dyn FnMut()>,
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7919 + 13) % 251) as u8).collect()
}

fn weights(len: usize) -> Vec<i8> {
    (0..len)
        .map(|i| ((i * 7919 + 13) % 255) as i32 - 127)
        .map(|w| w as i8)
        .collect()
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5)
        .collect()
}

fn dense(name: &str, inputs: usize, outputs: usize, rows: usize) -> Case {
    let d = Dense { inputs, outputs };
    let packing = Packing::dense(&d);
    let (mut packed, mut bias) = (vec![0; packing.len()], vec![0; outputs]);
    packing.pack(
        &weights(inputs * outputs),
        None,
        128,
        &mut packed,
        &mut bias,
    );
    let (x, mut y) = (bytes(rows * inputs), vec![0u8; rows * outputs]);
    let multipliers = vec![1e-4f32; outputs];
    let (xf, wf, bf) = (
        numbers(rows * inputs),
        numbers(inputs * outputs),
        numbers(outputs),
    );
    let mut yf = vec![0.0f32; rows * outputs];
    Case {
        name: format!("{name} {inputs}x{outputs} of {rows}"),
        macs: rows * inputs * outputs,
        int8: Box::new(move || {
            let requantize = Requantize::new(&multipliers, 128);
            let end = End::Requantize {
                requantize,
                y: &mut y,
            };
            Kernels::best().int8_dense(&d, rows, black_box(&x), &packed, &bias, end);
        }),
        f32: Box::new(move || {
            let bias = Some(&bf[..]);
            Kernels::best().dense(&d, rows, black_box(&xf), &wf, bias, Fused::Relu, &mut yf);
        }),
    }
}

/// `[size, channels, filters, kernel, stride]`; depthwise where `groups` is the channels.
fn conv(
    name: &str,
    [size, channels, filters, kernel, stride]: [usize; 5],
    groups: usize,
    rows: usize,
) -> Case {
    let shape = ConvShape {
        height: size,
        width: size,
        channels,
        filters,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: Padding::same([size; 2], [kernel; 2], [stride; 2]),
        groups,
    };
    let c = Conv::new(shape).expect("a valid shape");
    let packing = Packing::conv(&c);
    let (mut packed, mut bias) = (vec![0; packing.len()], vec![0; filters]);
    packing.pack(&weights(c.weight_len()), None, 128, &mut packed, &mut bias);
    let (x, mut y) = (
        bytes(rows * c.input_len()),
        vec![0u8; rows * c.output_len()],
    );
    let mut scratch = vec![0; c.int8_scratch_len()];
    let multipliers = vec![1e-4f32; filters];
    let (xf, wf, bf) = (
        numbers(rows * c.padded_len()),
        numbers(c.weight_len()),
        numbers(filters),
    );
    let mut yf = vec![0.0f32; rows * c.output_len()];
    let cf = c.clone();
    let out = c.out_height();
    Case {
        name: format!(
            "{name} {size}x{size}x{channels} to {out}x{out}x{filters}, {kernel}x{kernel} of {rows}"
        ),
        macs: rows * c.output_len() * packing.terms(),
        int8: Box::new(move || {
            let requantize = Requantize::new(&multipliers, 128);
            let end = End::Requantize {
                requantize,
                y: &mut y,
            };
            Kernels::best().int8_conv(
                &c,
                rows,
                black_box(&x),
                128,
                &packed,
                &bias,
                end,
                &mut scratch,
            );
        }),
        f32: Box::new(move || {
            let bias = Some(&bf[..]);
            Kernels::best().conv(&cf, rows, black_box(&xf), &wf, bias, Fused::Relu, &mut yf);
        }),
    }
}

fn time(f: &mut dyn FnMut(), calls: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        f();
    }
    start.elapsed().as_secs_f64() / calls as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    println!(
        "integer kernels: {}; f32 kernels: {}",
        Kernels::best().int8_name(),
        Kernels::best().name()
    );
    println!(
        "{:<58}{:>10}{:>10}{:>8}{:>10}",
        "product", "int8 us", "f32 us", "ratio", "GMAC/s"
    );
    let mut cases = Vec::new();
    for rows in [1, 32] {
        cases.push(dense("mlp", 784, 256, rows));
        cases.push(dense("mlp", 256, 128, rows));
        cases.push(dense("cnn", 3136, 512, rows));
        cases.push(conv("cnn", [28, 1, 32, 5, 1], 1, rows));
        cases.push(conv("cnn", [14, 32, 64, 5, 1], 1, rows));
    }
    for (name, [size, channels, filters, kernel, stride]) in [
        ("mobile-224", [224, 3, 32, 3, 2]),
        ("mobile-224", [112, 32, 16, 1, 1]),
        ("mobile-224", [112, 16, 96, 1, 1]),
        ("mobile-224", [56, 24, 144, 1, 1]),
        ("mobile-224", [56, 144, 24, 1, 1]),
        ("mobile-224", [28, 192, 32, 1, 1]),
        ("mobile-224", [14, 64, 384, 1, 1]),
        ("mobile-224", [14, 576, 96, 1, 1]),
        ("mobile-224", [7, 960, 160, 1, 1]),
        ("mobile-224", [7, 320, 1280, 1, 1]),
        ("mobile-96", [96, 3, 16, 3, 2]),
        ("mobile-96", [48, 8, 48, 1, 1]),
        ("mobile-96", [12, 96, 16, 1, 1]),
        ("mobile-96", [3, 480, 80, 1, 1]),
    ] {
        cases.push(conv(name, [size, channels, filters, kernel, stride], 1, 1));
    }
    for (name, [size, channels, kernel, stride]) in [
        ("mobile-224", [112, 32, 3, 1]),
        ("mobile-224", [112, 96, 3, 2]),
        ("mobile-224", [56, 144, 3, 1]),
        ("mobile-224", [28, 192, 3, 1]),
        ("mobile-224", [14, 384, 3, 1]),
        ("mobile-224", [14, 576, 3, 2]),
        ("mobile-224", [7, 960, 3, 1]),
        ("mobile-96", [48, 16, 3, 1]),
        ("mobile-96", [24, 72, 3, 1]),
        ("five", [28, 128, 5, 1]),
    ] {
        cases.push(conv(
            name,
            [size, channels, channels, kernel, stride],
            channels,
            1,
        ));
    }
    for case in &mut cases {
        if filter
            .as_ref()
            .is_some_and(|part| !case.name.contains(part.as_str()))
        {
            continue;
        }
        // About half a millisecond a sample.
        let calls = (20_000_000 / case.macs.max(1)).clamp(1, 2000);
        time(&mut case.int8, calls);
        time(&mut case.f32, calls);
        let (mut int8, mut f32) = (Vec::new(), Vec::new());
        for _ in 0..31 {
            int8.push(time(&mut case.int8, calls));
            f32.push(time(&mut case.f32, calls));
        }
        let (a, b) = (median(&mut int8), median(&mut f32));
        println!(
            "{:<58}{:>10.2}{:>10.2}{:>8.2}{:>10.1}",
            case.name,
            a * 1e6,
            b * 1e6,
            b / a,
            case.macs as f64 / a * 1e-9
        );
    }
}
