//! How the accuracy of the last model is distributed over clients.

use serde::Serialize;

use crate::results::VariantResults;

/// Bins of equal width from 0 to 1.
const BINS: usize = 20;

/// The clients of a run by their accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Histogram {
    /// `test` where clients have held-out examples, else `train`.
    split: &'static str,
    /// How many they are.
    clients: u64,
    /// Clients in each bin. A bin holds its lower edge, the last also 1.
    bins: Vec<u64>,
    /// The least, the tenth percentile, the median and the greatest accuracy: nearest ranks.
    ranks: [f64; 4],
    mean: f64,
    /// Sample standard deviation.
    deviation: f64,
}

/// None where clients were not evaluated.
pub(super) fn of(variant: &VariantResults) -> Option<Histogram> {
    let tested = variant.clients.iter().any(|row| row.split == "test");
    let split = if tested { "test" } else { "train" };
    let rows = variant.clients.iter().filter(|row| row.split == split);
    let values: Vec<f64> = rows
        .map(|row| row.accuracy)
        .filter(|accuracy| accuracy.is_finite())
        .collect();
    histogram(split, values)
}

fn histogram(split: &'static str, mut values: Vec<f64>) -> Option<Histogram> {
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let mut bins = vec![0; BINS];
    for value in &values {
        // Negative numbers and those beyond 1 are none of an accuracy; they would land at the ends.
        let bin = (value * BINS as f64).floor() as usize;
        if let Some(bin) = bins.get_mut(bin.min(BINS - 1)) {
            *bin += 1;
        }
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let rank = |share: f64| {
        let rank = (share * count).ceil().max(1.0) as usize;
        values.get(rank - 1).copied().unwrap_or(least)
    };
    Some(Histogram {
        split,
        clients: values.len() as u64,
        bins,
        ranks: [least, rank(0.1), rank(0.5), greatest],
        mean,
        deviation: match values.len() {
            1 => 0.0,
            _ => (squares / (count - 1.0)).sqrt(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_hand() {
        assert_eq!(histogram("test", Vec::new()), None);
        let found = histogram("test", vec![1.0, 0.0, 0.05, 0.5, 0.95]).unwrap();
        let mut bins = vec![0; BINS];
        (bins[0], bins[1], bins[10], bins[19]) = (1, 1, 1, 2);
        assert_eq!(found.bins, bins);
        assert_eq!(found.clients, 5);
        let ranks = [0.0, 0.0, 0.5, 1.0_f64];
        assert_eq!(found.ranks.map(f64::to_bits), ranks.map(f64::to_bits));
        assert!((found.mean - 0.5).abs() < 1e-15);
        // Squares 0.25 + 0.25 + 0.2025 + 0 + 0.2025 = 0.905, over 4.
        assert!((found.deviation - (0.905_f64 / 4.0).sqrt()).abs() < 1e-15);
    }
}
