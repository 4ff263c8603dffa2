//! Every order of events of three clients, against what the module's head says, written down once more
//! without regard to cost: a list of tickets that is gone through each time.

use super::*;

const CLIENTS: u64 = 3;
const BUFFER: usize = 2;
const CONCURRENCY: usize = 2;
const MAX_STALENESS: u64 = 1;
const TIMEOUT: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Trains,
    Waits,
    Accepted,
}

/// A client that was given a version, while it matters.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    client: u64,
    version: u64,
    since: u64,
    stage: Stage,
    /// When it reported: waiting reports are taken in this order.
    order: u64,
}

/// The rules, plainly.
#[derive(Debug, Default)]
struct Rules {
    version: u64,
    aggregating: bool,
    tickets: Vec<Ticket>,
    /// `(client, version)` that were ever given.
    given: Vec<(u64, u64)>,
    /// The version that each client was last given.
    last: [u64; CLIENTS as usize],
    reports: u64,
    /// One entry per update in the model: the client and the denominator of its step.
    applied: Vec<(u64, usize)>,
}

impl Rules {
    fn at(&self, stage: Stage) -> usize {
        self.tickets.iter().filter(|t| t.stage == stage).count()
    }

    fn expire(&mut self, now: u64) {
        self.tickets
            .retain(|t| t.stage != Stage::Trains || t.since + TIMEOUT > now);
    }

    fn may_be_given(&self, client: u64) -> bool {
        let busy = self.tickets.iter().any(|t| t.client == client);
        !busy && !self.given.contains(&(client, self.version))
    }

    fn train(&mut self, client: u64, now: u64) {
        assert!(
            self.may_be_given(client),
            "{client} may not be asked: {self:?}"
        );
        self.given.push((client, self.version));
        self.last[client as usize] = self.version;
        self.tickets.push(Ticket {
            client,
            version: self.version,
            since: now,
            stage: Stage::Trains,
            order: 0,
        });
        assert!(self.at(Stage::Trains) <= CONCURRENCY);
    }

    fn report(&mut self, client: u64) -> bool {
        self.reports += 1;
        let (aggregating, order) = (self.aggregating, self.reports);
        let ticket = self
            .tickets
            .iter_mut()
            .find(|t| t.client == client && t.stage == Stage::Trains);
        let Some(ticket) = ticket else { return false };
        ticket.order = order;
        ticket.stage = if aggregating {
            Stage::Waits
        } else {
            Stage::Accepted
        };
        self.close();
        true
    }

    fn close(&mut self) {
        self.aggregating |= self.at(Stage::Accepted) == BUFFER;
    }

    fn leave(&mut self, client: u64) {
        self.tickets.retain(|t| t.client != client);
        if self.aggregating && self.at(Stage::Accepted) == 0 {
            self.step();
        }
    }

    fn step(&mut self) {
        let count = self.at(Stage::Accepted);
        let accepted = self.tickets.iter().filter(|t| t.stage == Stage::Accepted);
        self.applied.extend(accepted.map(|t| (t.client, count)));
        self.version += 1;
        let version = self.version;
        self.aggregating = false;
        // Accepted ones are done, and those that are too old are stopped or refused.
        self.tickets.retain(|t| {
            let fresh = version - t.version <= MAX_STALENESS;
            t.stage != Stage::Accepted && fresh
        });
        while !self.aggregating {
            let waits = self.tickets.iter_mut().filter(|t| t.stage == Stage::Waits);
            let Some(next) = waits.min_by_key(|t| t.order) else {
                break;
            };
            next.stage = Stage::Accepted;
            self.close();
        }
    }
}

/// An event of the alphabet.
#[derive(Clone, Copy, Debug)]
enum Move {
    Report(u64),
    Leave(u64),
    Offer,
    Sum,
    Wait,
}

const MOVES: [Move; 9] = [
    Move::Report(0),
    Move::Report(1),
    Move::Report(2),
    Move::Leave(0),
    Move::Leave(1),
    Move::Leave(2),
    Move::Offer,
    Move::Sum,
    Move::Wait,
];

fn play(server: &mut Server, rules: &mut Rules, now: &mut u64, event: Move) {
    *now += 1;
    match event {
        Move::Report(client) => {
            rules.expire(*now);
            let taken = rules.report(client);
            let version = rules.last[client as usize];
            let answer = server.done(*now, client, version);
            assert_eq!(taken, !matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
        Move::Leave(client) => {
            rules.expire(*now);
            rules.leave(client);
            server.tell(*now, Event::Dropped(id(client)));
        }
        Move::Offer => {
            rules.expire(*now);
            let free = (0..CLIENTS).filter(|&client| rules.may_be_given(client));
            let places = CONCURRENCY - rules.at(Stage::Trains);
            let expected = if rules.aggregating {
                0
            } else {
                free.count().min(places)
            };
            server
                .offer(at(*now), &Candidates::everyone(CLIENTS))
                .unwrap();
            let version = server.version();
            let asked = server.sent(Command::Train(version));
            assert_eq!(asked.len(), expected);
            for client in asked {
                rules.train(client, *now);
            }
        }
        Move::Sum => {
            rules.expire(*now);
            server.handle_timeout(at(*now)).unwrap();
            if rules.aggregating {
                server.sum_all(*now);
                rules.step();
            }
        }
        Move::Wait => {
            *now += TIMEOUT / 2;
            rules.expire(*now);
            server.handle_timeout(at(*now)).unwrap();
        }
    }
}

fn compare(server: &mut Server, rules: &Rules) {
    assert_eq!(server.version(), RoundId(rules.version));
    assert_eq!(server.phase() == Phase::Aggregating, rules.aggregating);
    let listed = |stage| {
        let tickets = rules.tickets.iter().filter(move |t| t.stage == stage);
        let mut list: Vec<_> = tickets.map(|t| (t.client, t.version)).collect();
        list.sort_unstable();
        list
    };
    let training: Vec<_> = server.training().map(|(c, v, _)| (c.0, v.0)).collect();
    assert_eq!(training, listed(Stage::Trains));
    let buffer: Vec<_> = server
        .buffer()
        .map(|a| (a.report.client.0, a.report.round.0))
        .collect();
    assert_eq!(buffer, listed(Stage::Accepted));
    let waiting = server
        .waiting
        .iter()
        .map(|report| (report.client.0, report.round.0));
    let mut waiting: Vec<_> = waiting.collect();
    waiting.sort_unstable();
    assert_eq!(waiting, listed(Stage::Waits));
    let mut versions: Vec<_> = rules.tickets.iter().map(|t| RoundId(t.version)).collect();
    versions.sort_unstable();
    versions.dedup();
    assert!(server.versions_in_flight().eq(versions));
    // Halves and ones, s = 1 for all: exact.
    let mut model = [0.0f32; CLIENTS as usize];
    for &(client, count) in &rules.applied {
        model[client as usize] += 1.0 / count as f32;
    }
    assert_eq!(server.global().values(), model);
}

fn fresh(strategy: FedBuff) -> Server {
    let mut server = server(
        settings(
            CONCURRENCY as u64,
            BUFFER as u64,
            Some(MAX_STALENESS),
            Some(TIMEOUT),
        ),
        CLIENTS,
    );
    server.strategy = strategy;
    server
}

/// All sequences of six events after a first offer; at the end the server is stored,
/// read back, and must go on like the one that was not.
#[test]
fn all_orders_of_events_of_three_clients() {
    let constant = strategy(Staleness::Constant {});
    const LENGTH: u32 = 6;
    for code in 0..MOVES.len().pow(LENGTH) {
        let (mut server, mut rules, mut now) = (fresh(constant), Rules::default(), 0);
        play(&mut server, &mut rules, &mut now, Move::Offer);
        let mut rest = code;
        for _ in 0..LENGTH {
            play(&mut server, &mut rules, &mut now, MOVES[rest % MOVES.len()]);
            rest /= MOVES.len();
        }
        compare(&mut server, &rules);
        server.news();
        server.sent(Command::Stop);
        let snapshot = server.snapshot().unwrap();
        let restored = BufferedServer::restore(
            constant,
            server.state().clone(),
            setup(server.setup.settings, CLIENTS),
            server.empty.clone(),
            snapshot.clone(),
        );
        let mut restored = restored.unwrap();
        assert_eq!(restored.snapshot().unwrap(), snapshot);
        compare(&mut restored, &rules);
        assert_eq!(restored.poll_timeout(), server.poll_timeout());
        assert_eq!(restored.free_places(), server.free_places());
    }
}
