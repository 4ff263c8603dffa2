//! The matrix products of one SGD step, ours beside the `gemm` crate's, in one interleaved run.
//!
//! `cargo bench -p fl-edge --bench products [-- PART_OF_A_NAME]`. Times are medians in microseconds; a convolution
//! stands beside a plain product of the same shape, for which building the column matrix is not
//! counted. One thread.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "shapes/mod.rs"]
mod shapes;

use shapes::{Product, Use, cnn, median, mlp, time};

fn compare(title: &str, mut products: Vec<Product>) {
    println!("\n{title}");
    println!(
        "{:<16}{:>22}{:>10}{:>10}{:>8}{:>8}{:>12}",
        "product", "m x k x n", "ours us", "gemm us", "ratio", "best", "GFLOP/s"
    );
    let (mut sum_ours, mut sum_gemm, mut flops) = (0.0, 0.0, 0.0);
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for product in &mut products {
        if filter
            .as_ref()
            .is_some_and(|part| !product.name.contains(part.as_str()))
        {
            continue;
        }
        let [m, k, n] = product.mkn;
        let work = 2.0 * (m * k * n) as f64;
        // About a third of a millisecond a sample.
        let calls = ((2e7 / work) as usize).clamp(1, 2000);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let samples = if work > 1e8 { 41 } else { 81 };
        time(&mut product.ours, calls);
        time(&mut product.gemm, calls);
        for _ in 0..samples {
            ours.push(time(&mut product.ours, calls));
            theirs.push(time(&mut product.gemm, calls));
        }
        let (ours, theirs) = (&mut ours[..], &mut theirs[..]);
        let (a, b) = (median(ours), median(theirs));
        println!(
            "{:<16}{:>22}{:>10.2}{:>10.2}{:>8.2}{:>8.2}{:>12.1}",
            product.name,
            format!("{m} x {k} x {n}"),
            a * 1e6,
            b * 1e6,
            a / b,
            ours[0] / theirs[0],
            work / a * 1e-9,
        );
        sum_ours += a;
        sum_gemm += b;
        flops += work;
    }
    println!(
        "{:<16}{:>22}{:>10.2}{:>10.2}{:>8.2}{:>8}{:>12.1}",
        "sum",
        "",
        sum_ours * 1e6,
        sum_gemm * 1e6,
        sum_ours / sum_gemm,
        "",
        flops / sum_ours * 1e-9,
    );
}

fn main() {
    println!(
        "kernels: {}. ratio = ours / gemm by medians, best = by minima; below 1 is faster.",
        fl_edge::kernel::name()
    );
    compare("mlp-2nn, batch 10, gradients stored", mlp(10, Use::Stored));
    compare("mlp-2nn, batch 10, SGD step fused", mlp(10, Use::Stepped));
    compare(
        "cnn-fedavg, batch 20, gradients stored",
        cnn(20, Use::Stored),
    );
    compare(
        "cnn-fedavg, batch 20, SGD step fused",
        cnn(20, Use::Stepped),
    );
    compare(
        "cnn-fedavg, batch 10, SGD step fused",
        cnn(10, Use::Stepped),
    );
}
