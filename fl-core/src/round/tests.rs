use std::sync::Arc;

use super::*;
use crate::params::Layout;
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::robust::GroupMean;
use crate::select::{Uniform, UniformConfig};
use crate::strategy::{FedAvg, FedAvgConfig, Weighting};
use crate::sum::{ExactSum, Rejection};
use crate::testing::{local_plan, normals, stream};
use crate::trainer::LocalResult;
use crate::units::{Bytes, ExampleCount, VirtualDuration};
use crate::update::RingVector;

mod faults;
mod means;
mod shares;
mod states;

type Server = RoundServer<FedAvg, ExactSum>;
type Ev<'a> = Event<'a, ExactSum>;

/// Clients in all; also the number of parameters.
const N: u64 = 10;
const BOUNDS: WeightBounds = WeightBounds {
    client: Weight(100),
    total: Weight(1000),
};

/// All ten clients are asked, `goal` reports complete the round.
fn server(goal: u64, stragglers: Stragglers, settings: RoundSettings) -> Server {
    let strategy = FedAvg::from_config(FedAvgConfig {
        stragglers,
        weighting: Weighting::Examples,
        ..FedAvgConfig::default()
    });
    let selector = Uniform::from_config(UniformConfig {
        cohort: goal,
        over_select: N as f64 / goal as f64,
    });
    let layout = Layout::new([("w".to_owned(), vec![N as usize])]).unwrap();
    let strategy = strategy.unwrap();
    let state = strategy.init(Parameters::zeros(Arc::new(layout)));
    let setup = RunSetup {
        selector: Box::new(selector.unwrap()),
        local: local_plan(),
        settings,
        chain: TransformChain::default(),
        seed: Seed(1),
        population: N,
    };
    RoundServer::new(strategy, state, RoundId(0), setup)
}

fn settings(minimum: u64, invitation: Option<u64>, deadline: Option<u64>) -> RoundSettings {
    let span = |span: Option<u64>| span.map(VirtualDuration);
    RoundSettings::new(minimum, span(invitation), span(deadline)).unwrap()
}

fn sum() -> ExactSum {
    ExactSum::new(RingPlan::for_weights(BOUNDS).unwrap(), N as usize)
}

fn id(client: u64) -> ClientId {
    ClientId(client)
}

fn report(client: u64) -> Report {
    Report {
        client: id(client),
        round: RoundId(0),
        examples: ExampleCount(1),
        steps: 1,
        work: WorkDone::Full,
        cost: Cost {
            download: Bytes(10),
            upload: Bytes(20),
            time: VirtualDuration(30),
        },
    }
}

/// A one at the client's own place, so that the sum counts each client.
fn values(client: u64) -> Vec<f32> {
    (0..N)
        .map(|index| f32::from(u8::from(index == client)))
        .collect()
}

fn update(client: u64) -> ClientUpdate {
    ClientUpdate {
        report: report(client),
        payload: Payload::Dense(values(client)),
        metrics: LocalResult::default(),
    }
}

fn at(time: u64) -> VirtualTime {
    VirtualTime(time)
}

impl Server {
    fn begin(&mut self, time: u64) {
        self.start(at(time), &Candidates::everyone(N), sum())
            .unwrap();
    }

    fn tell(&mut self, time: u64, event: Ev<'_>) -> Answer {
        self.handle(at(time), event).unwrap()
    }

    fn all_ready(&mut self, time: u64) {
        for client in 0..N {
            assert_eq!(self.tell(time, Event::Ready(id(client))), Answer::Noted);
        }
    }

    fn sent(&mut self, message: Message) -> Vec<u64> {
        let sent: Vec<_> = std::iter::from_fn(|| self.poll_transmit()).collect();
        let of_kind = sent.iter().filter(|transmit| transmit.message == message);
        of_kind.map(|transmit| transmit.client.0).collect()
    }

    fn record(&mut self) -> Option<RoundRecord> {
        std::iter::from_fn(|| self.poll()).find_map(|notice| match notice {
            Notice::Ended(record) => Some(*record),
            Notice::Phase(_) => None,
        })
    }
}

const ACCEPTED: Answer = Answer::Accepted { weight: Weight(1) };

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

#[test]
fn a_round_from_start_to_end() {
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    assert_eq!((server.phase(), server.round()), (Phase::Idle, RoundId(0)));
    server.begin(5);
    assert_eq!(server.phase(), Phase::Selecting);
    assert_eq!(server.sent(Message::Invite), (0..N).collect::<Vec<_>>());
    server.all_ready(6);
    assert_eq!(server.phase(), Phase::Training);
    assert_eq!(server.sent(Message::Train), (0..N).collect::<Vec<_>>());
    for client in 0..9 {
        assert_eq!(
            server.tell(7 + client, Event::Update(&update(client))),
            ACCEPTED
        );
    }
    assert_eq!(server.phase(), Phase::Training);
    let notices: Vec<_> = std::iter::from_fn(|| server.poll()).collect();
    assert_eq!(
        notices,
        [
            Notice::Phase(Phase::Selecting),
            Notice::Phase(Phase::Training)
        ]
    );
    assert_eq!(server.tell(20, Event::Update(&update(9))), ACCEPTED);
    assert_eq!((server.phase(), server.round()), (Phase::Idle, RoundId(1)));
    assert_eq!(server.global().values(), [0.1; 10]);
    let record = server.record().unwrap();
    assert_eq!(record.outcome, Outcome::Applied);
    assert_eq!((record.started, record.ended), (at(5), at(20)));
    assert_eq!(
        (record.tally.clients, record.tally.weight),
        (10, Weight(10))
    );
    assert_eq!(record.cost.upload, Bytes(200));
    assert_eq!(record.cost.time, VirtualDuration(300));
    assert_eq!(record.refused, Refusals::default());
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<RoundRecord>(&text).unwrap(), record);
}

/// Workers sum what was accepted; the bits are those of single updates in any order.
#[test]
fn partial_sums_and_single_updates_give_the_same_bits() {
    let mut random = stream(30, 0);
    let updates: Vec<ClientUpdate> = (0..N)
        .map(|client| ClientUpdate {
            report: Report {
                examples: ExampleCount(1 + random.below(100)),
                ..report(client)
            },
            payload: Payload::Dense(normals(&mut random, N as usize, 0.1)),
            metrics: LocalResult::default(),
        })
        .collect();
    let begun = || {
        let mut server = server(10, Stragglers::Drop, RoundSettings::default());
        server.begin(0);
        server.all_ready(0);
        server
    };
    let mut single = begun();
    for update in &updates {
        single.tell(1, Event::Update(update));
    }
    let digest = single.global().digest();
    let single = single.record().unwrap();

    for workers in 1..=4usize {
        let mut order: Vec<usize> = (0..updates.len()).collect();
        random.shuffle(&mut order);
        let mut server = begun();
        let mut partial = vec![(sum(), Vec::new()); workers];
        for (place, &index) in order.iter().enumerate() {
            let ClientUpdate {
                report, payload, ..
            } = &updates[index];
            let Answer::Accepted { weight } = server.tell(1, Event::Reported(*report)) else {
                panic!("report {index} is accepted");
            };
            let Payload::Dense(values) = payload else {
                continue;
            };
            let (sum, clients) = &mut partial[place % workers];
            sum.absorb(values, weight).unwrap();
            clients.push(report.client);
        }
        assert_eq!(server.phase(), Phase::Aggregating);
        for (sum, clients) in partial.iter_mut().rev() {
            assert_eq!(
                server.tell(1, Event::Summed { sum, clients }),
                Answer::Noted
            );
            assert_eq!(sum.tally().seen(), 0, "a merged sum is left empty");
        }
        assert_eq!(server.global().digest(), digest, "{workers} workers");
        assert_eq!(server.record().unwrap(), single);
    }

    // Clients that encode for themselves.
    let mut server = begun();
    for update in updates.iter().rev() {
        let weight = Weight(update.report.examples.0);
        let Payload::Dense(values) = &update.payload else {
            continue;
        };
        let vector = RingVector::encode(*sum().plan(), values, weight).unwrap();
        let update = ClientUpdate {
            payload: Payload::Ring(vector),
            ..update.clone()
        };
        assert_eq!(
            server.tell(1, Event::Update(&update)),
            Answer::Accepted { weight }
        );
    }
    assert_eq!(server.global().digest(), digest);
}

#[test]
fn the_first_reports_count_and_the_others_are_stopped() {
    let mut server = server(4, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.all_ready(0);
    let _ = server.sent(Message::Train);
    for client in [9, 2, 5] {
        assert_eq!(server.tell(1, Event::Update(&update(client))), ACCEPTED);
    }
    assert_eq!(server.tell(2, Event::Reported(report(0))), ACCEPTED);
    assert_eq!(server.phase(), Phase::Aggregating);
    assert_eq!(server.sent(Message::Stop), [1, 3, 4, 6, 7, 8]);
    assert_eq!(
        server.tell(3, Event::Reported(report(1))),
        refused(Refusal::Surplus)
    );
    let mut worker = sum();
    worker.absorb(&values(0), Weight(1)).unwrap();
    let clients = &[id(0)];
    server.tell(
        3,
        Event::Summed {
            sum: &mut worker,
            clients,
        },
    );
    let record = server.record().unwrap();
    assert_eq!((record.selected, record.goal, record.stopped), (10, 4, 6));
    assert_eq!((record.tally.clients, record.refused.surplus), (4, 1));
    let expected: Vec<f32> = (0..N)
        .map(|client| {
            if [0, 2, 5, 9].contains(&client) {
                0.25
            } else {
                0.0
            }
        })
        .collect();
    assert_eq!(server.global().values(), expected);
}

#[test]
fn reports_of_another_round_are_refused() {
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.abort(at(0)).unwrap();
    server.begin(1);
    server.all_ready(1);
    assert_eq!(
        server.tell(1, Event::Update(&update(0))),
        refused(Refusal::OtherRound),
        "the report is of round 0 and round 1 is on"
    );
    let now = Report {
        round: RoundId(1),
        ..report(0)
    };
    assert_eq!(server.tell(1, Event::Reported(now)), ACCEPTED);
}

#[test]
fn partial_work_is_dropped_or_kept() {
    let partial = Report {
        work: WorkDone::Partial,
        ..report(3)
    };
    for (stragglers, expected, counts) in [
        (Stragglers::Drop, refused(Refusal::PartialWork), (1, 1)),
        (Stragglers::Partial, ACCEPTED, (0, 0)),
    ] {
        let mut server = server(10, stragglers, RoundSettings::default());
        server.begin(0);
        server.all_ready(0);
        assert_eq!(server.tell(1, Event::Reported(partial)), expected);
        server.abort(at(1)).unwrap();
        let record = server.record().unwrap();
        assert_eq!((record.stragglers, record.refused.partial_work), counts);
        check(&record);
    }
    // A round of stragglers only fails when they are dropped.
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.all_ready(0);
    for client in 0..N {
        let report = Report {
            work: WorkDone::Partial,
            ..report(client)
        };
        server.tell(1, Event::Reported(report));
    }
    let record = server.record().unwrap();
    assert_eq!(
        (record.outcome, record.stragglers),
        (Outcome::TooFewUpdates, 10)
    );
    assert_eq!(
        server.round(),
        RoundId(1),
        "the next round draws a new cohort"
    );
}

#[test]
fn timeouts_are_kept_and_events_at_a_timeout_are_late() {
    let mut server = server(10, Stragglers::Drop, settings(2, Some(50), Some(100)));
    assert_eq!(server.poll_timeout(), None);
    server.begin(10);
    assert_eq!(server.poll_timeout(), Some(at(60)));
    for client in 0..5 {
        server.tell(59, Event::Ready(id(client)));
    }
    assert_eq!(server.tell(60, Event::Ready(id(5))), refused(Refusal::Late));
    assert_eq!(server.phase(), Phase::Training);
    assert_eq!(server.sent(Message::Train), [0, 1, 2, 3, 4]);
    assert_eq!(server.poll_timeout(), Some(at(160)));
    assert_eq!(server.tell(159, Event::Reported(report(0))), ACCEPTED);
    server.tell(159, Event::Update(&update(1)));
    assert_eq!(
        server.tell(160, Event::Reported(report(2))),
        refused(Refusal::Late)
    );
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(server.phase(), Phase::Aggregating);
    assert_eq!(server.sent(Message::Stop), [2, 3, 4]);
    // The late abort: the accepted update is lost, and one is too few.
    assert_eq!(server.tell(161, Event::Dropped(id(0))), Answer::Noted);
    let record = server.record().unwrap();
    assert_eq!(record.outcome, Outcome::TooFewUpdates);
    assert_eq!((record.unready, record.ready, record.goal), (5, 5, 5));
    assert_eq!(
        (record.timed_out, record.lost, record.tally.clients),
        (3, 1, 1)
    );
    assert_eq!(record.refused.late, 2);
    check(&record);
    assert_eq!(server.global().values(), [0.0; 10]);

    // Both timeouts pass between two events.
    server.begin(200);
    server.tell(201, Event::Ready(id(0)));
    server.handle_timeout(at(10_000)).unwrap();
    assert_eq!(server.record().unwrap().outcome, Outcome::TooFewReady);
}

#[test]
fn too_few_ready_clients_end_the_round_early() {
    let mut server = server(10, Stragglers::Drop, settings(3, None, None));
    server.begin(0);
    for client in 0..N {
        let event = if client < 2 {
            Event::Ready(id(client))
        } else {
            Event::Failed(id(client))
        };
        server.tell(1, event);
    }
    assert_eq!(server.sent(Message::Stop), [0, 1]);
    let record = server.record().unwrap();
    assert_eq!(
        (record.outcome, record.ready, record.unready),
        (Outcome::TooFewReady, 2, 8)
    );
    check(&record);

    // Nobody to choose from.
    server
        .start(at(2), &Candidates::everyone(0), sum())
        .unwrap();
    assert_eq!(server.record().unwrap().outcome, Outcome::TooFewReady);
    assert_eq!(server.round(), RoundId(2));
}

#[test]
fn a_lost_place_is_free_again_while_others_train() {
    let mut server = server(4, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.all_ready(0);
    for client in 0..3 {
        server.tell(1, Event::Reported(report(client)));
    }
    server.tell(1, Event::Failed(id(1)));
    server.tell(1, Event::Update(&update(3)));
    assert_eq!(
        server.phase(),
        Phase::Training,
        "three of four are still accepted"
    );
    server.tell(1, Event::Update(&update(4)));
    assert_eq!(server.phase(), Phase::Aggregating);
}

#[test]
fn a_rejected_update_keeps_its_place_and_is_counted() {
    let mut server = server(2, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.all_ready(0);
    let mut broken = update(0);
    broken.payload = Payload::Dense(vec![f32::NAN; N as usize]);
    let answer = server.tell(1, Event::Update(&broken));
    assert_eq!(answer, Answer::Rejected(Rejection::NonFinite { index: 0 }));
    assert_eq!(
        server.tell(1, Event::Update(&broken)),
        refused(Refusal::Duplicate)
    );
    server.tell(1, Event::Update(&update(1)));
    let record = server.record().unwrap();
    assert_eq!(
        (record.outcome, record.tally.clients),
        (Outcome::Applied, 1)
    );
    assert_eq!(
        (record.tally.rejected.non_finite, record.tally.seen()),
        (1, 2)
    );
    check(&record);
    assert_eq!(server.global().values(), values(1));
}

/// Clients whose reports claim more examples than there can be are accepted with that weight; their
/// updates are rejected where they are absorbed, and nothing overflows on the way.
#[test]
fn absurd_weights_are_data() {
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    server.begin(0);
    server.all_ready(0);
    let mut partial = sum();
    let mut clients = Vec::new();
    for client in 0..N {
        let claimed = if client < 3 { u64::MAX } else { 1 };
        let answer = server.tell(
            1,
            Event::Reported(Report {
                examples: ExampleCount(claimed),
                ..report(client)
            }),
        );
        let weight = Weight(claimed);
        assert_eq!(answer, Answer::Accepted { weight });
        partial.absorb(&values(client), weight).unwrap();
        clients.push(id(client));
    }
    let sum = &mut partial;
    let clients = &clients;
    assert_eq!(
        server.tell(2, Event::Summed { sum, clients }),
        Answer::Noted
    );
    let record = server.record().unwrap();
    assert_eq!(record.outcome, Outcome::Applied);
    assert_eq!((record.tally.clients, record.tally.weight), (7, Weight(7)));
    assert_eq!(record.tally.rejected.overweight, 3);
}

#[test]
fn the_chain_is_undone_on_the_mean() {
    #[derive(Debug)]
    struct Halved;
    impl crate::transform::UpdateTransform for Halved {
        fn apply(&self, update: &mut [f32], _: &mut crate::transform::TransformContext) {
            update.iter_mut().for_each(|value| *value *= 0.5);
        }
        fn undo(&self, mean: &mut [f64], _: RoundId) {
            mean.iter_mut().for_each(|value| *value *= 2.0);
        }
    }
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    server.setup.chain = TransformChain::new(vec![Box::new(Halved)]);
    server.begin(0);
    server.all_ready(0);
    for client in 0..N {
        // As a client sends it.
        let mut update = update(client);
        update.payload = Payload::Dense(values(client).iter().map(|value| value * 0.5).collect());
        server.tell(1, Event::Update(&update));
    }
    assert_eq!(server.global().values(), [0.1; 10]);
}

#[test]
fn a_driver_that_errs_is_told() {
    let mut server = server(10, Stragglers::Drop, RoundSettings::default());
    let mut worker = sum();
    let clients = [id(0), id(1)];
    let none = server.handle(
        at(0),
        Event::Summed {
            sum: &mut worker,
            clients: &clients,
        },
    );
    assert_eq!(none, Err(RoundError::NoRound));
    let mut full = sum();
    full.absorb(&values(0), Weight(1)).unwrap();
    let started = server.start(at(0), &Candidates::everyone(N), full.clone());
    assert_eq!(started, Err(RoundError::NotEmpty(1)));
    server.begin(10);
    let again = server.start(at(10), &Candidates::everyone(N), sum());
    assert_eq!(again, Err(RoundError::NotIdle(RoundId(0))));
    let back = server.handle(at(9), Event::Ready(id(0)));
    assert_eq!(
        back.unwrap_err().to_string(),
        "time ran backwards from 10 to 9 microseconds; deliver events in order"
    );
    server.all_ready(10);
    for client in 0..3 {
        server.tell(10, Event::Reported(report(client)));
    }
    let cases: [(&[u64], &[u64], u64, RoundError); 6] = [
        // (listed, absorbed, weight)
        (&[0, 3], &[0, 3], 1, RoundError::WrongMember(id(3))),
        (&[0, 77], &[0], 1, RoundError::WrongMember(id(77))),
        (&[1, 1], &[1, 1], 1, RoundError::WrongMember(id(1))),
        (&[0, 1], &[0], 1, content(1, 2, 1, 2)),
        (&[0, 1], &[0, 1, 2], 1, content(3, 2, 3, 2)),
        (&[0, 1], &[0, 1], 7, content(2, 2, 14, 2)),
    ];
    for (listed, absorbed, weight, expected) in cases {
        let mut worker = sum();
        for &client in absorbed {
            worker.absorb(&values(client), Weight(weight)).unwrap();
        }
        let clients: Vec<_> = listed.iter().copied().map(ClientId).collect();
        let event = Event::Summed {
            sum: &mut worker,
            clients: &clients,
        };
        assert_eq!(server.handle(at(10), event), Err(expected));
    }
    // Nothing has changed: the right sum is taken.
    for client in 0..3 {
        worker.absorb(&values(client), Weight(1)).unwrap();
    }
    let clients = [id(2), id(0), id(1)];
    let event = Event::Summed {
        sum: &mut worker,
        clients: &clients,
    };
    assert_eq!(server.handle(at(10), event), Ok(Answer::Noted));
    let again = Event::Summed {
        sum: &mut sum(),
        clients: &clients,
    };
    assert_eq!(
        server.handle(at(10), again),
        Err(RoundError::WrongMember(id(2)))
    );

    for (minimum, invitation, deadline, message) in [
        (
            0,
            None,
            None,
            "`minimum` is 0; expected a whole number of at least 1",
        ),
        (
            1,
            Some(0),
            None,
            "`invitation` is 0; expected a span of time above 0",
        ),
        (
            1,
            None,
            Some(0),
            "`deadline` is 0; expected a span of time above 0",
        ),
    ] {
        let span = |span: Option<u64>| span.map(VirtualDuration);
        let error = RoundSettings::new(minimum, span(invitation), span(deadline));
        assert_eq!(error.unwrap_err().to_string(), message);
    }
}

fn content(seen: u64, listed: u64, weight: u64, expected: u64) -> RoundError {
    RoundError::WrongContent {
        seen,
        listed,
        weight: Weight(weight),
        expected: Weight(expected),
    }
}

/// A server made from the state and the number of the round goes on as the old one would have.
#[test]
fn a_restarted_server_goes_on_with_the_same_bits() {
    let play = |server: &mut Server| {
        let round = server.round();
        server.begin(round.0);
        for client in server.sent(Message::Invite) {
            server.tell(round.0, Event::Ready(id(client)));
        }
        for client in server.sent(Message::Train) {
            let mut update = update(client);
            update.report.round = round;
            let mut random = stream(40 + round.0, client);
            update.payload = Payload::Dense(normals(&mut random, N as usize, 0.1));
            server.tell(round.0, Event::Update(&update));
        }
        assert_eq!(server.record().unwrap().outcome, Outcome::Applied);
    };
    let fresh = || server(3, Stragglers::Drop, RoundSettings::default());
    let mut through = fresh();
    let mut first = fresh();
    for _ in 0..4 {
        play(&mut through);
    }
    for _ in 0..2 {
        play(&mut first);
    }
    let text = serde_json::to_string(&(first.state(), first.round())).unwrap();
    let (state, round) = serde_json::from_str(&text).unwrap();
    let blank = fresh();
    let mut second = RoundServer::<_, ExactSum>::new(blank.strategy, state, round, blank.setup);
    for _ in 0..2 {
        play(&mut second);
    }
    assert_eq!(second.global().digest(), through.global().digest());
    assert_eq!(second.round(), through.round());
}

#[test]
fn a_round_among_the_eligible_says_what_was_asked() {
    let mut server = server(4, Stragglers::Drop, RoundSettings::default());
    let eligible = |client: ClientId| client.0 % 3 == 1;
    let candidates = Candidates::eligible(N, &eligible);
    server.start(at(0), &candidates, sum()).unwrap();
    assert_eq!(server.sent(Message::Invite), [1, 4, 7]);
    let (asked, eligible) = (N, 3);
    assert_eq!(server.screened(), Screened { asked, eligible });
    for client in [1, 4, 7] {
        server.tell(0, Event::Ready(id(client)));
    }
    for client in [1, 4, 7] {
        server.tell(0, Event::Update(&update(client)));
    }
    let record = server.record().unwrap();
    assert_eq!((record.selected, record.goal), (3, 3));
    assert_eq!(record.outcome, Outcome::Applied);
}

/// Each selected and each ready client is in exactly one count.
fn check(record: &RoundRecord) {
    assert_eq!(record.selected, record.ready + record.unready, "{record:?}");
    let accounted = record.tally.seen()
        + record.lost
        + record.dropped
        + record.failed
        + record.stragglers
        + record.timed_out
        + record.stopped;
    assert_eq!(record.ready, accounted, "{record:?}");
}
