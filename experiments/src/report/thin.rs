//! Fewer points that look the same.
//!
//! Largest-Triangle-Three-Buckets (Sveinn Steinarsson 2013, "Downsampling Time Series for Visual
//! Representation", University of Iceland, section 4.2): the first and the last row are kept, the rows
//! between are divided into buckets, and of each bucket the row is kept that makes the largest triangle
//! with the row kept before it and the mean of the bucket after it.
//!
//! Two things differ. The columns of a table are thinned together, so that they keep their common
//! rounds: a row's triangle is the sum of its columns', each scaled to the column's range. And the least
//! and the greatest value of each column are kept beside, so that no spike is lost.

use super::series::Column;

/// Most rows that are kept of a table of a run, beside its columns' extremes.
///
/// Beyond fifty runs there are fewer, so that all runs together keep no more than 50 times as many; but
/// never fewer than 40.
pub const POINTS: usize = 200;

/// Fewest rows to which a table is thinned.
const FEWEST: usize = 40;

/// Runs up to which every one may keep [`POINTS`] rows of a table.
const FULL_RUNS: usize = 50;

/// Most rows of a table of one of so many runs.
pub(super) fn limit(runs: usize) -> usize {
    (POINTS * FULL_RUNS / runs.max(FULL_RUNS)).max(FEWEST)
}

/// The rows to keep, in order, of columns with a value or none for each of the places `x`, which rise.
///
/// They are at most `limit`, which is at least 3, and two for each column.
pub(super) fn rows(x: &[f64], columns: &[Column], limit: usize) -> Vec<usize> {
    let all = x.len();
    if all <= limit || limit < 3 {
        return (0..all).collect();
    }
    let columns: Vec<Scaled<'_>> = columns.iter().filter_map(Scaled::new).collect();
    let mut kept = vec![0];
    let buckets = limit - 2;
    // The rows between the first and the last, in buckets as equal as can be.
    let edge = |bucket: usize| 1 + bucket * (all - 2) / buckets;
    for bucket in 0..buckets {
        let before = kept.last().copied().unwrap_or(0);
        let next = match bucket + 1 < buckets {
            true => edge(bucket + 1)..edge(bucket + 2),
            false => all - 1..all,
        };
        let mut best = (edge(bucket), -1.0);
        for row in edge(bucket)..edge(bucket + 1) {
            let areas = columns
                .iter()
                .map(|column| column.triangle(x, before, row, next.clone()));
            let area: f64 = areas.sum();
            if area > best.1 {
                best = (row, area);
            }
        }
        kept.push(best.0);
    }
    kept.push(all - 1);
    kept.extend(columns.iter().flat_map(|column| column.extremes));
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// A column with its range.
struct Scaled<'a> {
    values: &'a [Option<f64>],
    range: f64,
    /// The rows of the least and of the greatest value.
    extremes: [usize; 2],
}

impl<'a> Scaled<'a> {
    /// None without a value.
    fn new(values: &'a Column) -> Option<Self> {
        let known = || {
            let known = values.iter().enumerate();
            known.filter_map(|(row, value)| Some((row, (*value)?)))
        };
        // The earliest of equals.
        let least = known().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let greatest = known().reduce(|best, next| match next.1 > best.1 {
            true => next,
            false => best,
        })?;
        Some(Self {
            values,
            range: greatest.1 - least.1,
            extremes: [least.0, greatest.0],
        })
    }

    fn value(&self, row: usize) -> Option<f64> {
        self.values.get(row).copied().flatten()
    }

    /// Twice the area of the triangle of two rows and the mean of a bucket, over the column's range; 0
    /// where a value is missing.
    fn triangle(
        &self,
        x: &[f64],
        before: usize,
        row: usize,
        bucket: core::ops::Range<usize>,
    ) -> f64 {
        let mut mean = (0.0, 0.0);
        let mut count = 0.0;
        for after in bucket {
            if let (Some(x), Some(y)) = (x.get(after), self.value(after)) {
                mean = (mean.0 + x, mean.1 + y);
                count += 1.0;
            }
        }
        let at = |row: usize| Some((*x.get(row)?, self.value(row)?));
        let (Some(a), Some(b)) = (at(before), at(row)) else {
            return 0.0;
        };
        if count <= 0.0 || self.range <= 0.0 {
            return 0.0;
        }
        let c = (mean.0 / count, mean.1 / count);
        (((a.0 - c.0) * (b.1 - a.1) - (a.0 - b.0) * (c.1 - a.1)) / self.range).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(values: &[f64]) -> Column {
        values.iter().copied().map(Some).collect()
    }

    fn places(count: u32) -> Vec<f64> {
        (0..count).map(f64::from).collect()
    }

    #[test]
    fn few_rows_are_kept_as_they_are() {
        for count in [0, 1, 2, 5] {
            let x = places(count);
            let kept = rows(&x, &[full(&x)], 5);
            assert_eq!(kept, (0..count as usize).collect::<Vec<_>>());
        }
    }

    /// Six rows in two buckets, by hand. Buckets {1, 2} and {3, 4}, mean of the second (3.5, 1.5).
    /// First bucket, twice the areas with (0, 0): row 1 at (1, 0): |1 * 1.5 - 3.5 * 0| = 1.5; row 2 at
    /// (2, 4): |2 * 1.5 - 3.5 * 4| = 11; row 2 is kept. Second bucket with (2, 4) and (5, 0): row 3 at
    /// (3, 1): |1 * -4 - 3 * -3| = 5; row 4 at (4, 2): |2 * -4 - 3 * -2| = 2; row 3 is kept. The least
    /// value is that of row 0, the greatest that of row 2.
    #[test]
    fn the_largest_triangles_are_kept() {
        let y = [0.0, 0.0, 4.0, 1.0, 2.0, 0.0];
        assert_eq!(rows(&places(6), &[full(&y)], 4), [0, 2, 3, 5]);
    }

    /// The same rows with a second column, ten times as large: by hand, its own areas over its range
    /// of 40. Rows 1 and 2 at (1, 40) and (2, 0), then (3, 0) and (4, 0), mean (3.5, 0), ends 0:
    /// row 1: 3.5 * 40 / 40 = 3.5 and row 2: 0. With the first column over its range of 4: row 1
    /// 1.5 / 4 + 3.5 = 3.875, row 2 11 / 4 + 0 = 2.75: row 1 is kept for its triangle. From row 1, at
    /// (1, 0) and (1, 40), with (5, 0) and (5, 0): row 3 at (3, 1): |4 * 1| / 4 = 1 and
    /// |2 * -40 - 4 * -40| / 40 = 2; row 4 at (4, 2): |4 * 2| / 4 = 2 and |3 * -40 - 4 * -40| / 40 = 1:
    /// equal, and the earlier is kept. Row 2 stays for being the first column's greatest value.
    #[test]
    fn columns_count_by_their_range() {
        let first = [0.0, 0.0, 4.0, 1.0, 2.0, 0.0];
        let second = [0.0, 40.0, 0.0, 0.0, 0.0, 0.0];
        let kept = rows(&places(6), &[full(&first), full(&second)], 4);
        assert_eq!(kept, [0, 1, 2, 3, 5]);
    }

    #[test]
    fn ends_and_extremes_of_every_column_stay() {
        let x = places(5000);
        let wave = |row: usize| ((row * 7919) % 997) as f64;
        let mut first: Column = (0..5000).map(|row| Some(wave(row))).collect();
        let mut second: Column = (0..5000).map(|row| Some(-wave(row))).collect();
        first[1234] = Some(5000.0);
        first[1235] = None;
        second[4321] = Some(-1e6);
        let kept = rows(&x, &[first, second, vec![None; 5000]], 100);
        for row in [0, 1234, 4321, 4999] {
            assert!(kept.contains(&row), "{row}");
        }
        assert!(kept.len() >= 100 && kept.len() <= 104, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn many_runs_keep_fewer_rows_each() {
        for (runs, expected) in [(0, 200), (1, 200), (50, 200), (100, 100), (10_000, 40)] {
            assert_eq!(limit(runs), expected);
        }
    }
}
