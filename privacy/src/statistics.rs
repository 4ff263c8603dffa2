//! Statistical tests for this crate's samplers. Streams are fixed, so a test passes always or
//! never; the error rate says how often a correct sampler would have to be given another seed.

/// One in a million per test.
const ERROR_RATE: f64 = 1e-6;
/// The normal quantile of `1 - ERROR_RATE`.
const QUANTILE: f64 = 4.753_424;

/// Asserts that counts fit expected counts by Pearson's chi-square, at error rate `1e-6` (the
/// quantile after Wilson and Hilferty 1931). Cells that expect fewer than 10 are joined with the
/// next.
pub(crate) fn chi_square(observed: &[u64], expected: &[f64]) {
    assert_eq!(observed.len(), expected.len());
    let mut cells: Vec<(f64, f64)> = Vec::new();
    let mut open = (0.0, 0.0);
    for (&o, &e) in observed.iter().zip(expected) {
        open = (open.0 + o as f64, open.1 + e);
        if open.1 >= 10.0 {
            cells.push(open);
            open = (0.0, 0.0);
        }
    }
    if let Some(last) = cells.last_mut() {
        *last = (last.0 + open.0, last.1 + open.1);
    }
    let total: f64 = cells.iter().map(|cell| cell.1).sum();
    let drawn: f64 = cells.iter().map(|cell| cell.0).sum();
    assert!(
        (total - drawn).abs() <= 1e-6 * drawn,
        "expected {total} in all, drawn {drawn}"
    );
    assert!(cells.len() > 1, "too few cells: {expected:?}");
    let statistic: f64 = cells.iter().map(|(o, e)| (o - e) * (o - e) / e).sum();
    let freedom = (cells.len() - 1) as f64;
    let share = 2.0 / (9.0 * freedom);
    let root = 1.0 - share + QUANTILE * libm::sqrt(share);
    let limit = freedom * root * root * root;
    assert!(
        statistic <= limit,
        "chi-square {statistic} above {limit} at {freedom} degrees of freedom: {cells:?}"
    );
}

/// Asserts that numbers come from a continuous law, by the largest distance of the distribution
/// functions, at error rate `1e-6` (Dvoretzky, Kiefer and Wolfowitz with Massart's constant).
pub(crate) fn kolmogorov_smirnov(numbers: &[f64], cdf: impl Fn(f64) -> f64) {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted
        .iter()
        .enumerate()
        .fold(0.0, |most: f64, (rank, &x)| {
            let at = cdf(x);
            most.max(at - rank as f64 / n)
                .max((rank + 1) as f64 / n - at)
        });
    let limit = libm::sqrt(libm::log(2.0 / ERROR_RATE) / (2.0 * n));
    assert!(
        distance <= limit,
        "distance {distance} above {limit} for {n} numbers"
    );
}

/// The distribution function of the standard normal law.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / core::f64::consts::SQRT_2)
}
