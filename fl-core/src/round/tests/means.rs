//! Rounds whose mean the driver makes.

use super::*;

/// A private round is concluded by its driver alone, whoever took part.
#[test]
fn a_private_round_waits_for_its_mean_and_moves_the_model_with_nobody_in_it() {
    for reporting in [0, 1, 3] {
        let mut server = server(10, Stragglers::Drop, RoundSettings::default().released());
        server.begin(0);
        for client in 0..N {
            assert!(server.awaiting_release().is_none());
            let event = match client < reporting {
                true => Event::Ready(id(client)),
                false => Event::Dropped(id(client)),
            };
            server.tell(1, event);
        }
        let early = Aggregate::released(vec![0.0; 10]);
        for client in 0..reporting {
            let refused = server.release(at(2), early.clone());
            assert_eq!(refused, Err(RoundError::NotAwaiting(RoundId(0))));
            server.tell(2, Event::Update(&update(client)));
        }
        let sum = server.awaiting_release().unwrap();
        assert_eq!(sum.tally().clients, reporting);
        let mean: Vec<f64> = (0..N).map(|index| index as f64 * 0.5).collect();
        let released = Aggregate::released(mean.clone());
        assert_eq!(*released.tally(), Tally::default());
        server.release(at(3), released).unwrap();
        let moved: Vec<f64> = server.global().values().iter().map(|&v| v.into()).collect();
        assert_eq!(moved, mean);
        let record = server.record().unwrap();
        assert_eq!(record.outcome, Outcome::Applied);
        assert_eq!(record.tally.clients, reporting);
        assert_eq!((server.round(), server.phase()), (RoundId(1), Phase::Idle));
        let late = server.release(at(3), early);
        assert_eq!(late, Err(RoundError::NotAwaiting(RoundId(1))));
    }
}

/// A robust mean of groups enters by the driver, and only that of the updates in the sum.
#[test]
fn a_combined_mean_is_that_of_the_groups_in_the_sum() {
    let settings = settings(2, None, None).combined();
    let group = |clients: core::ops::Range<u64>| {
        let mut group = sum();
        for client in clients {
            let absorbed = group.absorb(&values(client), Weight(1)).unwrap();
            assert_eq!(absorbed, Absorbed::Summed { saturated: 0 });
        }
        group
    };
    let mut server = server(10, Stragglers::Drop, settings);
    server.begin(0);
    server.all_ready(1);
    for client in 0..N {
        server.tell(2, Event::Reported(report(client)));
    }
    // One group is lost, three are summed.
    let mut groups = [group(0..2), group(2..4), group(4..8)];
    let combined = GroupMean::Median.combine(&groups).unwrap();
    let other = GroupMean::Median.combine(&[group(0..2), group(2..4), group(4..9)]);
    for client in 8..N {
        server.tell(2, Event::Dropped(id(client)));
        assert!(server.awaiting_release().is_none());
    }
    let clients: Vec<ClientId> = (0..8).map(id).collect();
    let mut all = sum();
    for group in &mut groups {
        all.merge(group).unwrap();
    }
    let event = Event::Summed {
        sum: &mut all,
        clients: &clients,
    };
    server.tell(3, event);
    assert_eq!(server.awaiting_release().unwrap().tally().clients, 8);
    assert_eq!(
        server.release(at(3), other.unwrap()).unwrap_err(),
        RoundError::OtherMean {
            clients: 9,
            weight: Weight(9),
            summed: 8,
            total: Weight(8),
        }
    );
    server.release(at(3), combined).unwrap();
    // Each value is one half, one half or a quarter in one group and zero in the others.
    assert_eq!(server.global().values(), [0.0; N as usize]);
    let record = server.record().unwrap();
    assert_eq!((record.tally.clients, record.lost), (8, 2));
    assert_eq!(record.outcome, Outcome::Applied);

    // Fewer than the minimum need no mean.
    let mut server = self::server(10, Stragglers::Drop, settings);
    server.begin(0);
    server.all_ready(1);
    server.tell(2, Event::Update(&update(0)));
    for client in 1..N {
        server.tell(2, Event::Dropped(id(client)));
    }
    assert!(server.awaiting_release().is_none());
    assert_eq!(server.record().unwrap().outcome, Outcome::TooFewUpdates);
}
