use std::sync::Arc;

use super::*;
use crate::params::Layout;
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::select::{Poisson, PoissonConfig, SelectError, Uniform, UniformConfig};
use crate::strategy::staleness::SCALE;
use crate::strategy::{FedBuff, FedBuffConfig, Staleness};
use crate::sum::{ExactSum, SumError};
use crate::testing::{local_plan, report_from};
use crate::transform::TransformChain;
use crate::units::{Bytes, Seed, VirtualDuration};
use crate::update::Cost;

mod faults;
mod orders;

type Server = BufferedServer<FedBuff, ExactSum>;

fn strategy(staleness: Staleness) -> FedBuff {
    FedBuff::from_config(FedBuffConfig {
        staleness,
        ..FedBuffConfig::default()
    })
    .unwrap()
}

fn setup(settings: BufferedSettings, population: u64) -> BufferedSetup {
    let selector = Uniform::from_config(UniformConfig {
        cohort: 1,
        over_select: 1.0,
    });
    BufferedSetup {
        selector: Box::new(selector.unwrap()),
        local: local_plan(),
        settings,
        chain: TransformChain::default(),
        seed: Seed(1),
        population,
    }
}

fn settings(
    concurrency: u64,
    buffer: u64,
    staleness: Option<u64>,
    timeout: Option<u64>,
) -> BufferedSettings {
    let timeout = timeout.map(VirtualDuration);
    BufferedSettings::new(concurrency, buffer, staleness, timeout).unwrap()
}

/// An empty sum of one value per client of `population`.
fn empty(buffer: u64, population: u64) -> ExactSum {
    let plan = RingPlan::for_weights(WeightBounds::new(Weight(SCALE), buffer));
    ExactSum::new(plan.unwrap(), population as usize)
}

/// A server of as many parameters as clients, at zero, that has begun.
fn server(settings: BufferedSettings, population: u64) -> Server {
    let layout = Layout::new([("w".to_owned(), vec![population as usize])]).unwrap();
    let strategy = strategy(Staleness::SQUARE_ROOT);
    let state = strategy.init(Parameters::zeros(Arc::new(layout)));
    let empty = empty(settings.buffer(), population);
    let setup = setup(settings, population);
    let mut server = BufferedServer::new(strategy, state, RoundId(0), setup, empty).unwrap();
    server.start(at(0)).unwrap();
    server
}

fn at(time: u64) -> VirtualTime {
    VirtualTime(time)
}

fn id(client: u64) -> ClientId {
    ClientId(client)
}

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

const FULL: Answer = Answer::Accepted {
    weight: Weight(SCALE),
};

/// A one at the client's own place, so that the model counts each client.
fn values(client: u64, population: u64) -> Vec<f32> {
    (0..population)
        .map(|index| f32::from(u8::from(index == client)))
        .collect()
}

impl Server {
    fn population(&self) -> u64 {
        self.setup.population
    }

    /// Offers the listed clients and says who was asked to train.
    fn call(&mut self, time: u64, clients: &[u64]) -> Vec<u64> {
        let list: Vec<_> = clients.iter().map(|&client| id(client)).collect();
        self.offer(at(time), &Candidates::listed(&list).unwrap())
            .unwrap();
        self.sent(Command::Train(self.version()))
    }

    fn sent(&mut self, command: Command) -> Vec<u64> {
        let sent: Vec<_> = std::iter::from_fn(|| self.poll_transmit()).collect();
        let of_kind = sent.iter().filter(|transmit| transmit.command == command);
        of_kind.map(|transmit| transmit.client.0).collect()
    }

    fn tell(&mut self, time: u64, event: Event<'_, ExactSum>) -> Answer {
        self.handle(at(time), event).unwrap()
    }

    fn done(&mut self, time: u64, client: u64, version: u64) -> Answer {
        let report = report_from(client, RoundId(version));
        self.tell(time, Event::Reported(report))
    }

    /// Sums all of the buffer in one sum and hands it over.
    fn sum_all(&mut self, time: u64) -> Answer {
        let mut sum = self.empty.clone();
        let accepted: Vec<_> = self.buffer().collect();
        let mut clients = Vec::new();
        for Accepted { report, weight } in accepted {
            let update = values(report.client.0, self.population());
            sum.absorb(&update, weight).unwrap();
            clients.push(report.client);
        }
        let (sum, clients) = (&mut sum, clients.as_slice());
        self.tell(time, Event::Summed { sum, clients })
    }

    fn news(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    fn records(&mut self) -> Vec<BufferedRecord> {
        let ended = |notice| match notice {
            Notice::Ended(record) => Some(*record),
            _ => None,
        };
        self.news().into_iter().filter_map(ended).collect()
    }
}

/// FedBuff's algorithm 1 by hand, K = 2, s = 1/sqrt(1 + staleness), one value per client.
/// Version 0 is given to 0, 1 and 2. 0 and 1 report: version 1 is (1/2, 1/2, 0, 0, 0, 0). 3 and 4 are
/// given version 1 and report: version 2 adds 1/2 to each. 0 and 1 are given version 2 and report:
/// version 3 adds again 1/2. Then 2 reports, from version 0, s = 1/2, and 5, which was given version
/// 3, s = 1: version 4 adds 1/2 * 1/2 = 1/4 and 1/2 * 1.
#[test]
fn a_run_by_hand() {
    let mut server = server(settings(3, 2, None, None), 6);
    assert_eq!(server.call(0, &[0, 1, 2]), [0, 1, 2]);
    assert_eq!(server.free_places(), 0);
    assert_eq!(server.call(0, &[3]), [0u64; 0]);
    for (step, [one, other]) in [[0u64, 1], [3, 4], [0, 1]].into_iter().enumerate() {
        let step = step as u64;
        if step > 0 {
            let list = [one, other];
            assert_eq!(server.call(step, &list), list);
        }
        assert_eq!(server.done(step, one, step), FULL);
        assert_eq!(server.phase(), Phase::Training);
        assert_eq!(server.done(step, other, step), FULL);
        assert_eq!(server.phase(), Phase::Aggregating);
        assert_eq!(
            server.free_places(),
            0,
            "whoever comes next gets the new version"
        );
        let buffer: Vec<_> = server
            .buffer()
            .map(|accepted| accepted.report.client)
            .collect();
        assert_eq!(buffer, [id(one), id(other)]);
        server.sum_all(step);
        assert_eq!(server.version(), RoundId(step + 1));
    }
    assert_eq!(server.global().values(), [1.0, 1.0, 0.0, 0.5, 0.5, 0.0]);
    assert_eq!(server.oldest_in_flight(), Some(RoundId(0)));
    assert_eq!(server.call(5, &[2, 5]), [5]);
    assert!(server.versions_in_flight().eq([RoundId(0), RoundId(3)]));
    assert_eq!(
        server.done(6, 2, 0),
        Answer::Accepted {
            weight: Weight(SCALE / 2)
        }
    );
    assert!(
        server.versions_in_flight().eq([RoundId(0), RoundId(3)]),
        "still to be trained"
    );
    assert_eq!(server.done(7, 5, 3), FULL);
    server.sum_all(7);
    assert_eq!(server.global().values(), [1.0, 1.0, 0.25, 0.5, 0.5, 0.5]);
    assert_eq!(server.oldest_in_flight(), None);
    let records = server.records();
    let last = records.last().unwrap();
    assert_eq!(
        (records.len(), last.version, last.outcome),
        (4, RoundId(3), Outcome::Applied)
    );
    assert_eq!((last.started, last.ended), (at(2), at(7)));
    assert_eq!((last.given, last.training), (1, 0));
    assert_eq!((last.staleness, last.stalest), (3, 3));
    assert_eq!(
        (last.tally.clients, last.tally.weight),
        (2, Weight(SCALE * 3 / 2))
    );
    let text = serde_json::to_string(last).unwrap();
    assert_eq!(
        &serde_json::from_str::<BufferedRecord>(&text).unwrap(),
        last
    );
}

/// With K = 1 each report makes a version: what FedAsync asks of its server.
#[test]
fn a_buffer_of_one_steps_with_each_report() {
    let mut server = server(settings(2, 1, None, None), 3);
    server.call(0, &[0, 1]);
    for (step, client) in [0, 1].into_iter().enumerate() {
        server.done(1, client, 0);
        server.sum_all(1);
        assert_eq!(server.version(), RoundId(step as u64 + 1));
    }
    let second = 46341.0 / SCALE as f32;
    assert_eq!(server.global().values(), [1.0, second, 0.0]);
}

#[test]
fn nobody_is_given_a_version_twice_or_while_busy() {
    let mut server = server(settings(2, 2, None, None), 4);
    assert_eq!(server.call(0, &[0, 1]), [0, 1]);
    server.tell(1, Event::Dropped(id(0)));
    assert_eq!(
        server.call(1, &[0, 1]),
        [0u64; 0],
        "0 had this version, 1 trains"
    );
    assert_eq!(server.call(1, &[0, 1, 2]), [2]);
    server.done(2, 1, 0);
    assert_eq!(server.call(2, &[0, 1, 2]), [0u64; 0], "1 is in the buffer");
    server.flush(at(3)).unwrap();
    server.sum_all(3);
    assert_eq!(server.version(), RoundId(1));
    assert_eq!(
        server.global().values(),
        [0.0, 1.0, 0.0, 0.0],
        "K is what is in the sum"
    );
    assert_eq!(
        server.call(3, &[0, 2]),
        [0],
        "2 still trains from version 0"
    );
}

#[test]
fn reports_wait_while_sums_are_awaited() {
    let mut server = server(settings(4, 2, None, None), 5);
    server.call(0, &[0, 1, 2, 3]);
    server.done(1, 0, 0);
    server.done(1, 1, 0);
    assert_eq!(server.done(2, 3, 0), Answer::Waiting);
    assert_eq!(server.done(2, 2, 0), Answer::Waiting);
    assert_eq!(server.done(2, 3, 0), refused(Refusal::Duplicate));
    server.news();
    server.sum_all(3);
    // Taken in their order, one version later: s = 1/sqrt(2); and that fills the buffer again.
    assert_eq!(
        (server.version(), server.phase()),
        (RoundId(1), Phase::Aggregating)
    );
    let weight = Weight(46341);
    let answer = Answer::Accepted { weight };
    let taken = [3, 2].map(|client| Notice::Taken {
        client: id(client),
        answer,
    });
    let news = server.news();
    let waited: Vec<_> = news
        .iter()
        .filter(|n| matches!(n, Notice::Taken { .. }))
        .collect();
    assert!(waited.into_iter().eq(&taken), "{news:?}");
    server.sum_all(3);
    assert_eq!(server.version(), RoundId(2));
    let records = server.records();
    assert_eq!(
        (records[0].staleness, records[0].tally.weight),
        (2, Weight(2 * 46341))
    );
}

#[test]
fn the_stale_are_stopped_and_refused() {
    let mut server = server(settings(3, 1, Some(1), None), 6);
    server.call(0, &[0, 1, 2]);
    server.done(1, 0, 0);
    assert_eq!(server.done(1, 1, 0), Answer::Waiting);
    server.sum_all(1);
    // 1 waited and is one version late; 2 may still report.
    assert_eq!(server.sent(Command::Stop), [0u64; 0]);
    server.sum_all(1);
    assert_eq!(server.version(), RoundId(2));
    assert_eq!(
        server.sent(Command::Stop),
        [2],
        "its report could never count"
    );
    assert_eq!(server.done(2, 2, 0), refused(Refusal::TooStale));
    assert_eq!(server.oldest_in_flight(), None);
    let records = server.records();
    assert_eq!((records[0].too_stale, records[1].too_stale), (0, 0));
    server.abort(at(3)).unwrap();
    let records = server.records();
    assert_eq!((records[0].too_stale, records[0].refused.too_stale), (1, 1));
}

/// Two reports wait through a step; the first makes the next version, and the second is too old then.
#[test]
fn a_report_that_waited_too_long_is_refused() {
    let mut server = server(settings(3, 1, Some(1), None), 3);
    server.call(0, &[0, 1, 2]);
    server.done(1, 0, 0);
    server.done(1, 1, 0);
    server.done(1, 2, 0);
    server.sum_all(1);
    server.news();
    server.sum_all(1);
    let answer = refused(Refusal::TooStale);
    let taken = Notice::Taken {
        client: id(2),
        answer,
    };
    assert!(server.news().contains(&taken));
    assert_eq!(
        (server.phase(), server.version()),
        (Phase::Training, RoundId(2))
    );
    assert_eq!(server.oldest_in_flight(), None);
}

#[test]
fn who_does_not_report_in_time_is_given_up() {
    let mut server = server(settings(2, 2, None, Some(10)), 3);
    server.call(0, &[0]);
    server.call(4, &[1]);
    assert_eq!(server.poll_timeout(), Some(at(10)));
    server.handle_timeout(at(9)).unwrap();
    assert_eq!(server.training().count(), 2);
    // What happens at the moment of a timeout comes after it.
    assert_eq!(server.done(10, 0, 0), refused(Refusal::NotTraining));
    assert_eq!(server.sent(Command::Stop), [0]);
    assert!(server.training().eq([(id(1), RoundId(0), at(4))]));
    assert_eq!(server.poll_timeout(), Some(at(14)));
    server.abort(at(20)).unwrap();
    let record = server.records()[0];
    assert_eq!((record.timed_out, record.stopped, record.given), (1, 1, 2));
}

#[test]
fn partial_work_is_dropped_or_kept() {
    let work = |stragglers| {
        let mut server = server(settings(1, 1, None, None), 2);
        server.strategy = FedBuff::from_config(FedBuffConfig {
            stragglers,
            ..FedBuffConfig::default()
        })
        .unwrap();
        server.call(0, &[0]);
        let report = Report {
            work: WorkDone::Partial,
            ..report_from(0, RoundId(0))
        };
        let answer = server.tell(1, Event::Reported(report));
        (answer, server.free_places())
    };
    assert_eq!(work(Stragglers::Drop), (refused(Refusal::PartialWork), 1));
    assert_eq!(work(Stragglers::Partial), (FULL, 0));
}

/// A buffer of which nothing can be summed makes a version that is the same model.
#[test]
fn a_buffer_without_updates_moves_nothing() {
    let mut server = server(settings(2, 1, None, None), 2);
    server.call(0, &[0, 1]);
    server.done(1, 0, 0);
    let mut sum = server.empty.clone();
    sum.absorb(&[f32::NAN, 0.0], Weight(SCALE)).unwrap();
    let clients = &[id(0)];
    server.tell(
        1,
        Event::Summed {
            sum: &mut sum,
            clients,
        },
    );
    assert_eq!(
        (server.version(), server.phase()),
        (RoundId(1), Phase::Training)
    );
    assert_eq!(server.global().values(), [0.0, 0.0]);
    // And one that is lost whole.
    server.done(2, 1, 0);
    server.tell(2, Event::Failed(id(1)));
    let records = server.records();
    assert_eq!(records.len(), 2);
    assert_eq!(
        (records[0].outcome, records[0].tally.rejected.non_finite),
        (Outcome::TooFewUpdates, 1)
    );
    assert_eq!(
        (records[1].outcome, records[1].lost),
        (Outcome::TooFewUpdates, 1)
    );
}

#[test]
fn a_driver_that_errs_is_told() {
    let mut server = server(settings(2, 2, None, None), 3);
    assert_eq!(server.start(at(0)), Err(RoundError::NotIdle(RoundId(0))));
    server.call(5, &[0, 1]);
    let back = RoundError::TimeBackwards {
        from: at(5),
        to: at(4),
    };
    assert_eq!(server.handle_timeout(at(4)), Err(back));
    server.done(5, 0, 0);
    let hand = |server: &mut Server, clients: &[u64], updates: &[u64], weight| {
        let clients: Vec<_> = clients.iter().map(|&client| id(client)).collect();
        let mut sum = empty(2, 3);
        for &client in updates {
            sum.absorb(&values(client, 3), Weight(weight)).unwrap();
        }
        let (sum, clients) = (&mut sum, clients.as_slice());
        server.handle(at(5), Event::Summed { sum, clients })
    };
    assert_eq!(
        hand(&mut server, &[1], &[1], SCALE),
        Err(RoundError::WrongMember(id(1)))
    );
    assert_eq!(
        hand(&mut server, &[2], &[2], SCALE),
        Err(RoundError::WrongMember(id(2)))
    );
    assert_eq!(
        hand(&mut server, &[0, 0], &[0], SCALE),
        Err(RoundError::WrongMember(id(0)))
    );
    for (updates, weight) in [(&[][..], 1), (&[0], 1), (&[0, 1], SCALE / 2)] {
        let error = hand(&mut server, &[0], updates, weight);
        assert!(
            matches!(error, Err(RoundError::WrongContent { .. })),
            "{error:?}"
        );
    }
    let mut other = ExactSum::new(*server.sum.plan(), 7);
    other.absorb(&[0.0; 7], Weight(SCALE)).unwrap();
    let clients = &[id(0)];
    let error = server.handle(
        at(5),
        Event::Summed {
            sum: &mut other,
            clients,
        },
    );
    assert_eq!(
        error,
        Err(RoundError::Sum(SumError::Mismatch { own: 3, other: 7 }))
    );
    // Nothing has happened by all that.
    assert_eq!(hand(&mut server, &[0], &[0], SCALE), Ok(Answer::Noted));
    assert_eq!(
        hand(&mut server, &[0], &[0], SCALE),
        Err(RoundError::WrongMember(id(0)))
    );
    server.abort(at(6)).unwrap();
    assert_eq!(
        hand(&mut server, &[], &[], SCALE),
        Err(RoundError::TimeBackwards {
            from: at(6),
            to: at(5)
        })
    );
    let (sum, clients) = (&mut empty(2, 3), &[][..]);
    let error = server.handle(at(6), Event::Summed { sum, clients });
    assert_eq!(error, Err(RoundError::NoRound));
    let full = sum_of_one();
    let error = BufferedServer::new(
        strategy(Staleness::Constant {}),
        server.state().clone(),
        RoundId(0),
        setup(settings(1, 1, None, None), 3),
        full,
    );
    assert!(matches!(error, Err(RoundError::NotEmpty(1))));
    let mut poisson = setup(settings(1, 1, None, None), 3);
    poisson.selector = Box::new(Poisson::from_config(PoissonConfig { rate: 0.5 }).unwrap());
    server.setup = poisson;
    server.start(at(6)).unwrap();
    let error = server.offer(at(6), &Candidates::everyone(3));
    assert_eq!(error, Err(RoundError::Select(SelectError::WholeCohorts)));
}

fn sum_of_one() -> ExactSum {
    let mut sum = empty(1, 3);
    sum.absorb(&[0.0; 3], Weight(1)).unwrap();
    sum
}

#[test]
fn settings_out_of_range_are_refused() {
    let refuse = |concurrency, buffer, timeout: Option<u64>| {
        BufferedSettings::new(concurrency, buffer, None, timeout.map(VirtualDuration))
            .unwrap_err()
            .to_string()
    };
    let whole = "expected a whole number of at least 1 and at most 2^32";
    assert_eq!(refuse(0, 1, None), format!("`concurrency` is 0; {whole}"));
    assert_eq!(refuse(1, 0, None), format!("`buffer` is 0; {whole}"));
    assert_eq!(
        refuse(1, 1, Some(0)),
        "`timeout` is 0; expected a span of time above 0"
    );
}

#[test]
fn cost_is_that_of_accepted_clients() {
    let mut server = server(settings(2, 1, None, None), 2);
    server.call(0, &[0, 1]);
    let cost = Cost {
        download: Bytes(1),
        upload: Bytes(2),
        time: VirtualDuration(3),
    };
    let report = Report {
        cost,
        ..report_from(0, RoundId(0))
    };
    server.tell(1, Event::Reported(report));
    let late = Report {
        cost,
        ..report_from(0, RoundId(0))
    };
    server.tell(1, Event::Reported(late));
    server.sum_all(1);
    assert_eq!(server.records()[0].cost, cost);
}

/// `(what is changed in a snapshot as JSON, what is said of it)`
#[test]
fn a_snapshot_of_another_run_is_refused() {
    let mut server = server(settings(3, 2, None, None), 5);
    server.call(0, &[0, 1, 2]);
    server.done(1, 0, 0);
    server.news();
    assert_eq!(server.snapshot(), Ok(server.snapshot().unwrap()));
    server.done(1, 1, 0);
    assert_eq!(server.snapshot(), Err(RoundError::Unpolled(1)));
    server.news();
    server.done(1, 2, 0);
    let snapshot = server.snapshot().unwrap();
    assert!(snapshot.versions().into_iter().eq([RoundId(0)]));
    let good = serde_json::to_value(&snapshot).unwrap();
    let restore = |json: serde_json::Value, settings| {
        let snapshot: Snapshot = serde_json::from_value(json).unwrap();
        let strategy = strategy(Staleness::SQUARE_ROOT);
        let state = server.state().clone();
        let setup = setup(settings, 5);
        BufferedServer::restore(strategy, state, setup, empty(2, 5), snapshot).map(|_| ())
    };
    let same = settings(3, 2, None, None);
    assert_eq!(restore(good.clone(), same), Ok(()));
    assert!(matches!(
        restore(good.clone(), settings(3, 1, None, None)),
        Err(SnapshotError::Buffer {
            accepted: 2,
            buffer: 1,
            ..
        })
    ));
    let mut later = good.clone();
    later["version"] = 3.into();
    let error = SnapshotError::Stale {
        client: id(0),
        staleness: 3,
        most: 2,
    };
    assert_eq!(restore(later, settings(3, 2, Some(2), None)), Err(error));
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 6] = [
        (
            |json| json["clients"]["0"]["Accepted"]["weight"] = 7.into(),
            "the snapshot has a report of client 0 at weight 7, and the strategy gives it 65536; resume \
             with the strategy that wrote it",
        ),
        (
            |json| json["clients"]["0"]["Accepted"]["report"]["client"] = 3.into(),
            "the snapshot's reports and clients disagree about client 0; it is damaged",
        ),
        (
            |json| json["waiting"] = serde_json::json!([]),
            "the snapshot's reports and clients disagree about client 2; it is damaged",
        ),
        (
            |json| {
                let status = serde_json::json!({"Training": {"version": 4, "since": 0}});
                json["clients"]["3"] = status;
            },
            "the snapshot has client 3 in the future; it is damaged",
        ),
        (
            |json| json["clients"]["3"] = serde_json::json!({"Summed": {"version": 0}}),
            "the snapshot has client 3 in a sum, which no snapshot holds; it is damaged",
        ),
        (
            |json| json["phase"] = "idle".into(),
            "the snapshot has 2 reports in a buffer of 2 in phase Idle; resume with the settings that \
             wrote it",
        ),
    ];
    for (change, expected) in cases {
        let mut json = good.clone();
        change(&mut json);
        assert_eq!(restore(json, same).unwrap_err().to_string(), expected);
    }
    let mut json = good;
    for client in [6, 7, 8, 9] {
        let status = serde_json::json!({"Training": {"version": 0, "since": 0}});
        json["clients"][client.to_string()] = status;
    }
    let error = SnapshotError::Concurrency {
        training: 4,
        most: 3,
    };
    assert_eq!(restore(json, same), Err(error));
    let mut half = server;
    let mut sum = half.empty.clone();
    sum.absorb(&values(0, 5), Weight(SCALE)).unwrap();
    let clients = &[id(0)];
    half.tell(
        2,
        Event::Summed {
            sum: &mut sum,
            clients,
        },
    );
    assert_eq!(half.snapshot(), Err(RoundError::PartlySummed(1)));
}
