use super::*;

fn config(count: u32, outage: f64) -> RegionsConfig {
    RegionsConfig { count, outage }
}

#[test]
fn clients_are_spread_evenly_and_stay_where_they_are() {
    let config = config(8, 0.0);
    let mut counts = [0u32; 8];
    for client in 0..8000 {
        let region = config.region(Seed(3), ClientId(client));
        assert_eq!(region, config.region(Seed(3), ClientId(client)));
        counts[region as usize] += 1;
    }
    // A thousand each, with a deviation of 30.
    assert!(
        counts.iter().all(|count| count.abs_diff(1000) < 150),
        "{counts:?}"
    );
    let moved = (0..8000).filter(|&client| {
        config.region(Seed(3), ClientId(client)) != config.region(Seed(4), ClientId(client))
    });
    assert!(moved.count() > 6500);
}

#[test]
fn regions_fail_as_often_as_they_are_said_to_at_any_moment() {
    let config = config(10, 0.05);
    let moments: Vec<f64> = (0..1000)
        .flat_map(|round| (0..10).map(move |region| (RoundId(round), region)))
        .filter_map(|(round, region)| config.outage(Seed(1), round, region))
        .collect();
    // 500 of ten thousand, with a deviation of 22.
    assert!(moments.len().abs_diff(500) < 110, "{}", moments.len());
    let early = moments.iter().filter(|&&moment| moment < 0.5).count();
    assert!(early.abs_diff(moments.len() / 2) < 60, "{early}");
    assert!(moments.iter().all(|moment| (0.0..1.0).contains(moment)));
}

#[test]
fn outages_come_in_the_order_of_time_before_the_words_of_their_moment() {
    let ring = fl_core::RingPlan::in_range(fl_core::WeightBounds::new(fl_core::Weight(1), 4), 1.0);
    let empty = ExactSum::new(ring.unwrap(), 1);
    let clients: Vec<ClientId> = (0..40).map(ClientId).collect();
    let now = VirtualTime(100);
    let open = || Regions::open(&config(4, 1.0), Seed(1), RoundId(2), now, &clients, &empty);
    let mut regions = open().unwrap();
    assert_eq!((regions.parts.len(), regions.record().formed), (4, 4));
    let members = regions.members();
    assert_eq!(members.concat().len(), 40);
    for (place, part) in regions.parts.iter_mut().enumerate() {
        part.fails = Some([0.5, 0.0, 0.999, 0.25][place]);
    }
    let words: Vec<VirtualTime> = [150, 200, 200, 300].map(VirtualTime).into();
    regions.foresee(&words, now, VirtualTime(300));
    let found = |regions: &Regions| -> Vec<(usize, u64, usize)> {
        let all = regions.outages.iter();
        all.map(|it| (it.before, it.time.0, it.place)).collect()
    };
    assert_eq!(
        found(&regions),
        [(0, 100, 1), (0, 150, 3), (1, 200, 0), (3, 299, 2)]
    );
    assert_eq!(regions.next_outage(0), Some(now));
    // No time passes.
    regions.foresee(&[now; 4], now, now);
    assert_eq!(
        found(&regions),
        [(0, 100, 1), (1, 100, 3), (2, 100, 0), (3, 100, 2)]
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (config, message) in [
        (
            config(0, 0.0),
            "schedule.regions.count is 0, which is out of range; give a whole number from 1 to 1000",
        ),
        (
            config(1001, 0.0),
            "schedule.regions.count is 1001, which is out of range; give a whole number from 1 to 1000",
        ),
        (
            config(8, f64::NAN),
            "schedule.regions.outage is NaN, which is out of range; give a probability from 0 to 1",
        ),
    ] {
        assert_eq!(config.validate().unwrap_err().to_string(), message);
    }
    assert!(config(1, 1.0).validate().is_ok());
}
