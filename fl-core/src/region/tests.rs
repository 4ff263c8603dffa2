use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::params::{Layout, ModelDigest, Parameters};
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::round::{
    Answer, Event, Message, Notice, Phase, RoundRecord, RoundServer, RoundSettings, RunSetup,
    Transmit,
};
use crate::select::{Candidates, Uniform, UniformConfig};
use crate::strategy::{FedAvg, FedAvgConfig, Strategy as _};
use crate::sum::ExactSum;
use crate::testing::{local_plan, normals, report_from, stream};
use crate::transform::TransformChain;
use crate::units::{ExampleCount, Seed};

const CLIENTS: u64 = 24;
const VALUES: usize = 40;

type Server = RoundServer<FedAvg, ExactSum>;

fn empty() -> ExactSum {
    let bounds = WeightBounds::new(Weight(100), CLIENTS);
    ExactSum::new(RingPlan::for_weights(bounds).unwrap(), VALUES)
}

fn server() -> Server {
    let strategy = FedAvg::from_config(FedAvgConfig::default()).unwrap();
    let selector = Uniform::from_config(UniformConfig {
        cohort: CLIENTS,
        over_select: 1.0,
    });
    let layout = Layout::new([("w".to_owned(), vec![VALUES])]).unwrap();
    let state = strategy.init(Parameters::zeros(Arc::new(layout)));
    let setup = RunSetup {
        selector: Box::new(selector.unwrap()),
        local: local_plan(),
        settings: RoundSettings::default(),
        chain: TransformChain::default(),
        seed: Seed(1),
        population: CLIENTS,
    };
    RoundServer::new(strategy, state, RoundId(0), setup)
}

fn at(time: u64) -> VirtualTime {
    VirtualTime(time)
}

fn id(client: u64) -> ClientId {
    ClientId(client)
}

fn report(client: ClientId, round: RoundId) -> Report {
    Report {
        examples: ExampleCount(1 + client.0 * 37 % 100),
        ..report_from(client.0, round)
    }
}

fn update(client: ClientId, round: RoundId) -> Vec<f32> {
    normals(&mut stream(40 + round.0, client.0), VALUES, 0.1)
}

/// Begins a round with everyone ready.
fn begin(server: &mut Server, now: u64) -> Vec<ClientId> {
    server
        .start(at(now), &Candidates::everyone(CLIENTS), empty())
        .unwrap();
    for client in (0..CLIENTS).map(id) {
        server.handle(at(now), Event::Ready(client)).unwrap();
    }
    let sent = std::iter::from_fn(|| server.poll_transmit());
    sent.filter(|transmit| transmit.message == Message::Train)
        .map(|Transmit { client, .. }| client)
        .collect()
}

fn record(server: &mut Server) -> RoundRecord {
    let ended = |notice| match notice {
        Notice::Ended(record) => Some(*record),
        Notice::Phase(_) => None,
    };
    std::iter::from_fn(|| server.poll())
        .find_map(ended)
        .unwrap()
}

/// Does what the module's head asks of a driver.
fn forward(server: &mut Server, region: &mut Region<ExactSum>, now: u64) {
    while let Some(up) = region.poll_upward() {
        match up {
            Upward::Report(report) => {
                let answer = server.handle(at(now), Event::Reported(report)).unwrap();
                let weight = match answer {
                    Answer::Accepted { weight } => Some(weight),
                    _ => None,
                };
                region.answered(report.client, weight);
            }
            Upward::Lost(client) => {
                server.handle(at(now), Event::Dropped(client)).unwrap();
            }
        }
    }
}

fn hand_up(server: &mut Server, region: &mut Region<ExactSum>, now: u64) {
    if let Some((mut sum, clients)) = region.hand_up() {
        let (sum, clients) = (&mut sum, clients.as_slice());
        let event = Event::Summed { sum, clients };
        assert_eq!(server.handle(at(now), event).unwrap(), Answer::Noted);
    }
}

/// Two rounds without regions, in which `gone` drop out in the first.
fn flat(gone: &[ClientId]) -> (ModelDigest, Vec<RoundRecord>) {
    let mut server = server();
    let mut records = Vec::new();
    for now in 0..2 {
        let round = server.round();
        let mut worker = empty();
        let mut inside = Vec::new();
        for client in begin(&mut server, now) {
            if now == 0 && gone.contains(&client) {
                server.handle(at(now), Event::Dropped(client)).unwrap();
                continue;
            }
            let report = Event::Reported(report(client, round));
            let Answer::Accepted { weight } = server.handle(at(now), report).unwrap() else {
                panic!("{client} is accepted");
            };
            worker.absorb(&update(client, round), weight).unwrap();
            inside.push(client);
        }
        let (sum, clients) = (&mut worker, inside.as_slice());
        server
            .handle(at(now), Event::Summed { sum, clients })
            .unwrap();
        records.push(record(&mut server));
    }
    (server.global().digest(), records)
}

/// When a region fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Training,
    Reported,
    Summed,
}

/// Two rounds by regions, `place` saying which; one region may fail in the first round and is back in
/// the second. Workers merge in some regions, others take updates one by one.
fn by_regions(
    regions: usize,
    place: &dyn Fn(ClientId) -> usize,
    fails: Option<(usize, When)>,
) -> (ModelDigest, Vec<RoundRecord>) {
    let mut server = server();
    let made = || Region::new(RegionSettings::default(), empty()).unwrap();
    let mut all: Vec<_> = (0..regions).map(|_| made()).collect();
    let mut records = Vec::new();
    for now in 0..2 {
        let round = server.round();
        let members = begin(&mut server, now);
        for region in &mut all {
            region.come_back();
            region.begin(at(now), round).unwrap();
        }
        for &client in &members {
            all[place(client)].join(client);
        }
        let fails = fails.filter(|_| now == 0);
        let fail = |server: &mut Server, all: &mut Vec<Region<ExactSum>>, when| {
            if let Some((region, _)) = fails.filter(|fails| fails.1 == when) {
                all[region].fail();
                forward(server, &mut all[region], now);
            }
        };
        fail(&mut server, &mut all, When::Training);
        for &client in members.iter().rev() {
            let region = &mut all[place(client)];
            let taken = region.report(at(now), &report(client, round)).unwrap();
            assert_eq!(taken.is_err(), region.is_down());
            forward(&mut server, region, now);
        }
        fail(&mut server, &mut all, When::Reported);
        for (index, region) in all.iter_mut().enumerate() {
            let outstanding: Vec<_> = region.outstanding().collect();
            let mut worker = empty();
            for &(client, weight) in &outstanding {
                if index % 2 == 0 {
                    region.absorb(client, &update(client, round)).unwrap();
                } else {
                    worker.absorb(&update(client, round), weight).unwrap();
                }
            }
            if index % 2 == 1 {
                let clients: Vec<_> = outstanding.iter().map(|&(client, _)| client).collect();
                region.merge(&mut worker, &clients).unwrap();
            }
        }
        fail(&mut server, &mut all, When::Summed);
        for region in all.iter_mut().rev() {
            hand_up(&mut server, region, now);
        }
        records.push(record(&mut server));
    }
    (server.global().digest(), records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever is where, the model is that of a flat round, bit for bit.
    #[test]
    fn regions_change_no_bit(
        regions in 1usize..7,
        places in proptest::collection::vec(0usize..100, CLIENTS as usize),
    ) {
        let place = |client: ClientId| places[client.0 as usize] % regions;
        prop_assert_eq!(by_regions(regions, &place, None), flat(&[]));
    }

    /// A region that fails costs its own clients, and takes part again in the next round.
    #[test]
    fn a_failed_region_costs_its_own_clients(
        regions in 2usize..7,
        failed in 0usize..100,
        when in prop_oneof![Just(When::Training), Just(When::Reported), Just(When::Summed)],
        places in proptest::collection::vec(0usize..100, CLIENTS as usize),
    ) {
        let place = |client: ClientId| places[client.0 as usize] % regions;
        let failed = failed % regions;
        let gone: Vec<_> = (0..CLIENTS).map(id).filter(|&c| place(c) == failed).collect();
        prop_assume!(gone.len() < CLIENTS as usize);
        let (digest, records) = by_regions(regions, &place, Some((failed, when)));
        let (expected, without) = flat(&gone);
        prop_assert_eq!(digest, expected);
        let count = gone.len() as u64;
        prop_assert_eq!(records[0].tally, without[0].tally);
        prop_assert_eq!(records[0].dropped + records[0].lost, count);
        prop_assert_eq!(records[1].tally.clients, CLIENTS);
    }

    /// Whatever happens in whatever order, the model moves by what was handed up, each client once.
    /// Events: `(kind, client)`.
    #[test]
    fn no_update_is_lost_or_counted_twice(
        goal in proptest::option::of(1u64..6),
        deadline in proptest::option::of(1u64..60),
        events in proptest::collection::vec((0u8..12, 0..CLIENTS), 0..150),
    ) {
        let mut server = server();
        let settings = RegionSettings::new(goal, deadline.map(VirtualDuration)).unwrap();
        let mut all: Vec<_> = (0..3).map(|_| Region::new(settings, empty()).unwrap()).collect();
        let members = begin(&mut server, 0);
        for region in &mut all {
            region.begin(at(0), RoundId(0)).unwrap();
        }
        for client in members {
            all[client.0 as usize % 3].join(client);
        }
        let ones = |client: u64| {
            let one = |index| f32::from(u8::from(index == client));
            (0..VALUES as u64).map(one).collect::<Vec<_>>()
        };
        let plain = |client| report_from(client, RoundId(0));
        let mut inside = Vec::new();
        let mut give = |server: &mut Server, region: &mut Region<ExactSum>, now: u64| {
            if let Some((mut sum, clients)) = region.hand_up() {
                inside.extend(clients.iter().copied());
                let (sum, clients) = (&mut sum, clients.as_slice());
                server.handle(at(now), Event::Summed { sum, clients }).unwrap();
            }
        };
        let mut now = 0;
        for (kind, client) in events {
            if server.phase() == Phase::Idle {
                break;
            }
            now += 1;
            let region = &mut all[client as usize % 3];
            match kind {
                0..=4 => {
                    let _ = region.report(at(now), &plain(client)).unwrap();
                }
                5 => region.leave(id(client)),
                6 | 7 => {
                    let outstanding: Vec<_> = region.outstanding().collect();
                    for (client, _) in outstanding {
                        region.absorb(client, &ones(client.0)).unwrap();
                    }
                }
                8 => give(&mut server, region, now),
                9 => region.fail(),
                10 => region.come_back(),
                _ => region.handle_timeout(at(now)).unwrap(),
            }
            forward(&mut server, region, now);
            prop_assert!(goal.is_none_or(|goal| region.reported <= goal));
        }
        // The end: everyone is summed or gone.
        for region in &mut all {
            now += 1;
            let outstanding: Vec<_> = region.outstanding().collect();
            for (client, _) in outstanding {
                region.absorb(client, &ones(client.0)).unwrap();
            }
            give(&mut server, region, now);
            region.fail();
            forward(&mut server, region, now);
        }
        prop_assert_eq!(server.phase(), Phase::Idle);
        let record = record(&mut server);
        let count = inside.len();
        inside.sort_unstable();
        inside.dedup();
        prop_assert_eq!(inside.len(), count, "each once");
        prop_assert_eq!(record.tally.clients, count as u64);
        let gone = record.dropped + record.lost;
        prop_assert_eq!(record.tally.clients + gone, CLIENTS);
        for client in 0..CLIENTS {
            let expected = if inside.contains(&id(client)) { 1.0 / count as f32 } else { 0.0 };
            let value = server.global().values()[client as usize];
            prop_assert!((value - expected).abs() < 1e-7, "client {}: {}", client, value);
        }
    }
}

fn open(goal: Option<u64>, deadline: Option<u64>) -> Region<ExactSum> {
    let settings = RegionSettings::new(goal, deadline.map(VirtualDuration)).unwrap();
    let mut region = Region::new(settings, empty()).unwrap();
    region.begin(at(0), RoundId(5)).unwrap();
    (0..4).for_each(|client| region.join(id(client)));
    region
}

fn tell(region: &mut Region<ExactSum>, time: u64, client: u64, round: u64) -> Result<(), Refusal> {
    region
        .report(at(time), &report_from(client, RoundId(round)))
        .unwrap()
}

#[test]
fn a_region_has_a_goal_of_its_own() {
    let mut region = open(Some(2), None);
    assert_eq!(tell(&mut region, 1, 3, 5), Ok(()));
    region.answered(id(3), None);
    assert_eq!(
        tell(&mut region, 1, 3, 5),
        Err(Refusal::Unknown),
        "refused above, and gone"
    );
    assert_eq!(tell(&mut region, 1, 0, 5), Ok(()));
    assert_eq!(tell(&mut region, 1, 0, 5), Err(Refusal::Duplicate));
    region.answered(id(0), Some(Weight(1)));
    assert_eq!(tell(&mut region, 2, 2, 5), Ok(()));
    assert_eq!(tell(&mut region, 2, 1, 5), Err(Refusal::Surplus));
    assert_eq!(region.poll_stop(), None, "2 may still be refused above");
    region.answered(id(2), Some(Weight(1)));
    assert_eq!(region.poll_stop(), Some(id(1)));
    assert_eq!(tell(&mut region, 3, 1, 5), Err(Refusal::Surplus));
    let ups: Vec<_> = std::iter::from_fn(|| region.poll_upward()).collect();
    let up = |client| Upward::Report(report_from(client, RoundId(5)));
    assert_eq!(ups, [up(3), up(0), up(2), Upward::Lost(id(1))]);
}

#[test]
fn a_region_has_a_deadline_of_its_own() {
    let mut region = open(None, Some(10));
    assert_eq!(region.poll_timeout(), Some(at(10)));
    assert_eq!(tell(&mut region, 9, 0, 5), Ok(()));
    assert_eq!(tell(&mut region, 9, 0, 4), Err(Refusal::OtherRound));
    assert_eq!(tell(&mut region, 10, 1, 5), Err(Refusal::Late));
    assert_eq!(region.poll_timeout(), None);
    let stopped: Vec<_> = std::iter::from_fn(|| region.poll_stop()).collect();
    assert_eq!(stopped, [id(1), id(2), id(3)]);
    region.join(id(9));
    let ups: Vec<_> = std::iter::from_fn(|| region.poll_upward()).collect();
    assert_eq!(
        ups[1..],
        [1, 2, 3, 9].map(|client| Upward::Lost(id(client)))
    );
    let back = RoundError::TimeBackwards {
        from: at(10),
        to: at(3),
    };
    assert_eq!(region.handle_timeout(at(3)), Err(back));
}

#[test]
fn what_a_region_has_not_accepted_is_not_summed() {
    let mut region = open(None, None);
    tell(&mut region, 1, 0, 5).unwrap();
    tell(&mut region, 1, 1, 5).unwrap();
    let zeros = [0.0; VALUES];
    assert_eq!(
        region.absorb(id(0), &zeros),
        Err(RoundError::WrongMember(id(0)))
    );
    region.answered(id(0), Some(Weight(3)));
    region.answered(id(1), Some(Weight(4)));
    region.answered(id(7), Some(Weight(4)));
    assert!(
        region
            .outstanding()
            .eq([(id(0), Weight(3)), (id(1), Weight(4))])
    );
    let mut worker = empty();
    worker.absorb(&zeros, Weight(3)).unwrap();
    let error = region.merge(&mut worker, &[id(0), id(1)]);
    assert!(matches!(
        error,
        Err(RoundError::WrongContent {
            seen: 1,
            listed: 2,
            ..
        })
    ));
    assert_eq!(
        region.merge(&mut worker, &[id(0), id(0)]),
        Err(RoundError::WrongMember(id(0)))
    );
    region.merge(&mut worker, &[id(0)]).unwrap();
    assert_eq!(
        region.absorb(id(0), &zeros),
        Err(RoundError::WrongMember(id(0))),
        "once"
    );
    let (sum, clients) = region.hand_up().unwrap();
    assert_eq!((sum.tally().clients, clients), (1, vec![id(0)]));
    assert!(region.hand_up().is_none());
    // The other one's update can follow, or be lost.
    region.leave(id(1));
    assert!(region.outstanding().next().is_none());
    region.fail();
    let ups: Vec<_> = std::iter::from_fn(|| region.poll_upward()).collect();
    assert_eq!(
        ups,
        [2, 3].map(|client| Upward::Lost(id(client))),
        "0 is the global server's"
    );
}

#[test]
fn a_region_that_is_down_stays_so_until_it_comes_back() {
    let mut region = open(None, None);
    region.fail();
    assert_eq!(tell(&mut region, 1, 0, 5), Err(Refusal::NotTraining));
    region.begin(at(2), RoundId(6)).unwrap();
    assert!(region.is_down());
    region.join(id(0));
    assert_eq!(region.poll_upward(), Some(Upward::Lost(id(0))));
    region.come_back();
    assert_eq!(
        tell(&mut region, 3, 0, 6),
        Err(Refusal::OtherRound),
        "from the next round on"
    );
    region.begin(at(4), RoundId(7)).unwrap();
    region.join(id(0));
    assert_eq!(tell(&mut region, 5, 0, 7), Ok(()));
}

#[test]
fn settings_and_sums_are_checked() {
    let goal = RegionSettings::new(Some(0), None).unwrap_err().to_string();
    assert_eq!(goal, "`goal` is 0; expected a whole number of at least 1");
    let span = RegionSettings::new(None, Some(VirtualDuration(0)))
        .unwrap_err()
        .to_string();
    assert_eq!(span, "`deadline` is 0; expected a span of time above 0");
    let mut full = empty();
    full.absorb(&[0.0; VALUES], Weight(1)).unwrap();
    let error = Region::new(RegionSettings::default(), full).unwrap_err();
    assert_eq!(error, RoundError::NotEmpty(1));
}
