//! Shares of the goal that must report.

use super::*;
use crate::round::settings::least;

const CLIENTS: u64 = 1000;

/// A round of `wanted` reports among all clients, `asked` of whom are asked.
fn server(wanted: u64, asked: f64, settings: RoundSettings) -> Server {
    let strategy = FedAvg::from_config(FedAvgConfig::default()).unwrap();
    let selector = Uniform::from_config(UniformConfig {
        cohort: wanted,
        over_select: asked / wanted as f64,
    });
    let layout = Layout::new([("w".to_owned(), vec![N as usize])]).unwrap();
    let state = strategy.init(Parameters::zeros(Arc::new(layout)));
    let setup = RunSetup {
        selector: Box::new(selector.unwrap()),
        local: local_plan(),
        settings,
        chain: TransformChain::default(),
        seed: Seed(1),
        population: CLIENTS,
    };
    RoundServer::new(strategy, state, RoundId(0), setup)
}

/// When clients drop out.
#[derive(Clone, Copy, Debug)]
enum When {
    Asked,
    Training,
    Accepted,
}

/// Plays a round in which `gone` of the clients drop out and the others report, in this order.
fn play(server: &mut Server, gone: u64, when: When) -> RoundRecord {
    let bounds = WeightBounds::new(Weight(1), CLIENTS);
    let empty = || ExactSum::new(RingPlan::for_weights(bounds).unwrap(), N as usize);
    let round = server.round();
    server
        .start(at(0), &Candidates::everyone(CLIENTS), empty())
        .unwrap();
    let asked = server.sent(Message::Invite);
    for (place, &client) in asked.iter().enumerate() {
        let event = match when {
            When::Asked if (place as u64) < gone => Event::Dropped(id(client)),
            _ => Event::Ready(id(client)),
        };
        server.tell(1, event);
    }
    let training = server.sent(Message::Train);
    let mut worker = empty();
    let mut inside = Vec::new();
    for (place, &client) in training.iter().enumerate() {
        let leaves = (place as u64) < gone && !matches!(when, When::Asked);
        if leaves && matches!(when, When::Training) {
            server.tell(2, Event::Dropped(id(client)));
            continue;
        }
        let report = Report {
            round,
            ..report(client)
        };
        let answer = server.tell(2, Event::Reported(report));
        if answer == ACCEPTED && !leaves {
            worker.absorb(&values(client % N), Weight(1)).unwrap();
            inside.push(id(client));
        }
    }
    if matches!(when, When::Accepted) {
        for &client in &training[..gone as usize] {
            server.tell(3, Event::Dropped(id(client)));
        }
    }
    if server.phase() != Phase::Idle {
        let (sum, clients) = (&mut worker, inside.as_slice());
        server.tell(4, Event::Summed { sum, clients });
    }
    server.record().unwrap()
}

/// 30, 50, 51 and 70 percent of 1,000 clients drop out, before, during or after training.
#[test]
fn rounds_complete_by_their_share_by_the_lowered_one_or_fail() {
    use Outcome::{Applied, AppliedLowered, TooFewReady, TooFewUpdates};
    let half = RoundSettings::default().with_share(0.5, None).unwrap();
    let lowered = RoundSettings::default().with_share(0.5, Some(0.4)).unwrap();
    let cases = [
        (RoundSettings::default(), [Applied; 4]),
        (half, [Applied, Applied, TooFewUpdates, TooFewUpdates]),
        (lowered, [Applied, Applied, AppliedLowered, TooFewUpdates]),
    ];
    for (settings, outcomes) in cases {
        for (gone, expected) in [300, 500, 510, 700].into_iter().zip(outcomes) {
            for when in [When::Asked, When::Training, When::Accepted] {
                let mut server = server(1000, 1000.0, settings);
                let record = play(&mut server, gone, when);
                // Where too few are ready nobody need train.
                let expected = match (when, expected) {
                    (When::Asked, TooFewUpdates) => TooFewReady,
                    _ => expected,
                };
                assert_eq!(record.outcome, expected, "{gone} {when:?} {settings:?}");
                let moved = server.global().values() != [0.0; N as usize];
                assert_eq!(moved, matches!(expected, Applied | AppliedLowered));
                let summed = if record.outcome == TooFewReady {
                    0
                } else {
                    1000 - gone
                };
                assert_eq!(record.tally.clients, summed);
            }
        }
    }
}

/// A failed round is tried again with another cohort.
#[test]
fn the_next_round_draws_another_cohort() {
    let half = RoundSettings::default().with_share(0.5, None).unwrap();
    let mut server = server(100, 100.0, half);
    let mut cohorts = Vec::new();
    for round in 0..2 {
        let bounds = WeightBounds::new(Weight(1), CLIENTS);
        let sum = ExactSum::new(RingPlan::for_weights(bounds).unwrap(), N as usize);
        server
            .start(at(round), &Candidates::everyone(CLIENTS), sum)
            .unwrap();
        let cohort = server.sent(Message::Invite);
        for &client in &cohort {
            server.tell(round, Event::Dropped(id(client)));
        }
        assert_eq!(server.record().unwrap().outcome, Outcome::TooFewReady);
        assert_eq!(server.round(), RoundId(round + 1));
        cohorts.push(cohort);
    }
    assert_ne!(cohorts[0], cohorts[1]);
}

/// Of 130 asked, 100 are wanted: the share is of those wanted, half of those asked is what drops.
#[test]
fn the_share_is_of_the_goal_and_the_half_of_those_selected() {
    let settings = RoundSettings::default().with_share(0.5, Some(0.3)).unwrap();
    let cases = [
        (30, Outcome::Applied, 100, 0),
        (80, Outcome::Applied, 50, 0),
        (81, Outcome::AppliedLowered, 49, 0),
        (100, Outcome::AppliedLowered, 30, 0),
        (101, Outcome::TooFewUpdates, 29, 0),
        (10, Outcome::Applied, 100, 20),
    ];
    for (gone, outcome, summed, stopped) in cases {
        let mut server = server(100, 130.0, settings);
        let record = play(&mut server, gone, When::Training);
        assert_eq!((record.selected, record.outcome), (130, outcome), "{gone}");
        assert_eq!((record.tally.clients, record.stopped), (summed, stopped));
    }
}

/// Clients whose updates are rejected have not dropped out, so the lowered share is not for them.
#[test]
fn rejected_updates_are_not_dropouts() {
    let settings = RoundSettings::default().with_share(0.5, Some(0.1)).unwrap();
    let mut server = super::server(10, Stragglers::Drop, settings);
    server.begin(0);
    server.all_ready(0);
    for client in 0..N {
        let mut update = update(client);
        if client < 6 {
            update.payload = Payload::Dense(vec![f32::NAN; N as usize]);
        }
        server.tell(1, Event::Update(&update));
    }
    let record = server.record().unwrap();
    assert_eq!(
        (record.tally.clients, record.tally.rejected.non_finite),
        (4, 6)
    );
    assert_eq!(record.outcome, Outcome::TooFewUpdates);
}

/// `(share, wanted, least)`
#[test]
fn exactly_the_share_is_enough() {
    let cases = [
        (0.5, 1000, 500),
        (0.5, 999, 500),
        (0.1, 10, 1),
        // 0.07 * 100 is 7.000000000000001, 0.29 * 100 is 28.999999999999996.
        (0.07, 100, 7),
        (0.29, 100, 29),
        (1.0, 1000, 1000),
        (1e-9, 1000, 1),
        (0.5, 0, 0),
    ];
    for (share, wanted, expected) in cases {
        assert_eq!(least(share, wanted), expected, "{share} of {wanted}");
    }
}

#[test]
fn shares_out_of_range_are_refused() {
    let refuse = |share, lowered| {
        let settings = RoundSettings::default().with_share(share, lowered);
        settings.unwrap_err().to_string()
    };
    let number = "expected a number above 0 and at most 1";
    assert_eq!(refuse(0.0, None), format!("`minimum_share` is 0; {number}"));
    assert_eq!(
        refuse(1.5, None),
        format!("`minimum_share` is 1.5; {number}")
    );
    assert_eq!(
        refuse(f64::NAN, None),
        format!("`minimum_share` is NaN; {number}")
    );
    assert_eq!(
        refuse(0.4, Some(0.4)),
        "`lowered_share` is 0.4; expected a number above 0 and below the minimum share"
    );
    assert_eq!(
        refuse(0.8, Some(0.4)),
        "`minimum_share` is 0.8; expected at most 0.5 beside a lowered share, which is for rounds of \
         which more than half dropped out"
    );
    // A private round is not decided by how many report.
    let private = RoundSettings::default().with_share(0.5, None).unwrap();
    assert_eq!(private.released(), RoundSettings::default().released());
}
