//! Which clients train together, and in which order.
//!
//! Tasks are taken longest first (Graham 1969, "Bounds on multiprocessing timing anomalies": the
//! makespan is then at most 4/3 of the best), and clients of similar length share a lane-batched
//! group. Neither order nor grouping changes a bit of any result, by the law of
//! [`fl_core::Trainer`]: this is about speed only.

/// A step of a lane-batched group of `lanes` takes about as long as `3 / 16 * lanes` single
/// steps, however many of the lanes are in use.
///
/// A group is only formed where its clients, trained one by one, would take longer: a long client
/// is not padded with short ones.
const LANE_STEP_COST: (u64, u64) = (3, 16);

/// Fills `groups` with ranges of `order`, and `order` with the indices of `lengths` such that the
/// longest come first; each range is trained by one call of a worker's trainer, from one `base`.
///
/// `lanes` is the largest size of a group. With `threads` workers, groups are kept small enough
/// that every worker gets one.
pub(crate) fn plan_groups(
    lengths: &[u64],
    base: impl Fn(u32) -> u32,
    lanes: usize,
    threads: usize,
    order: &mut Vec<u32>,
    groups: &mut Vec<core::ops::Range<usize>>,
) {
    order.clear();
    order.extend(0..lengths.len() as u32);
    order.sort_unstable_by_key(|&i| (core::cmp::Reverse(lengths[i as usize]), base(i), i));
    groups.clear();
    let share = lengths.len().div_ceil(threads.max(1));
    let size = lanes.min(share).max(1);
    let mut start = 0;
    while start < order.len() {
        let most = (start + size).min(order.len());
        let shared = base(order[start]);
        let others = order[start..most].iter().position(|&i| base(i) != shared);
        let end = others.map_or(most, |others| start + others);
        let longest = lengths[order[start] as usize];
        let alone: u64 = order[start..end]
            .iter()
            .map(|&i| lengths[i as usize])
            .fold(0, u64::saturating_add);
        let (cost, unit) = LANE_STEP_COST;
        let grouped = longest.saturating_mul(cost * lanes as u64);
        let together = alone.saturating_mul(unit) > grouped;
        let end = if together { end } else { start + 1 };
        groups.push(start..end);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(
        lengths: &[u64],
        lanes: usize,
        threads: usize,
    ) -> (Vec<u32>, Vec<core::ops::Range<usize>>) {
        let (mut order, mut groups) = (Vec::new(), Vec::new());
        plan_groups(lengths, |_| 0, lanes, threads, &mut order, &mut groups);
        (order, groups)
    }

    #[test]
    fn a_long_client_trains_alone_and_equal_ones_together() {
        let mut lengths = vec![10; 32];
        lengths[7] = 1000;
        let (order, groups) = plan(&lengths, 16, 2);
        assert_eq!(order[0], 7);
        assert_eq!(groups, [0..1, 1..17, 17..32]);
    }

    #[test]
    fn a_small_cohort_is_shared_by_the_workers() {
        let (_, groups) = plan(&[10; 16], 16, 2);
        assert_eq!(groups, [0..8, 8..16]);
    }

    #[test]
    fn clients_of_other_versions_train_apart() {
        let (mut order, mut groups) = (Vec::new(), Vec::new());
        plan_groups(&[10; 12], |i| i % 3, 16, 1, &mut order, &mut groups);
        assert_eq!(order, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!(groups, [0..4, 4..8, 8..12]);
    }

    proptest! {
        #[test]
        fn every_client_is_in_exactly_one_group_and_lengths_fall(
            lengths in proptest::collection::vec(0u64..5000, 0..200),
            lanes in 1usize..20,
            threads in 1usize..9,
        ) {
            let (order, groups) = plan(&lengths, lanes, threads);
            let mut seen = order.clone();
            seen.sort_unstable();
            prop_assert!(seen.iter().enumerate().all(|(i, &s)| i == s as usize));
            prop_assert!(order.windows(2).all(|w| lengths[w[0] as usize] >= lengths[w[1] as usize]));
            let mut next = 0;
            for group in groups {
                prop_assert_eq!(group.start, next);
                prop_assert!(!group.is_empty() && group.len() <= lanes);
                next = group.end;
            }
            prop_assert_eq!(next, lengths.len());
        }
    }
}
