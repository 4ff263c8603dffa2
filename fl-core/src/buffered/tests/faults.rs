//! Random faults: whatever comes in whatever order, no update is lost or counted twice.

use proptest::prelude::*;

use super::*;

const CLIENTS: u64 = 8;

/// What happened to the updates, kept beside the server.
#[derive(Debug, Default)]
struct Ledger {
    given: u64,
    summed: u64,
    rejected: u64,
    /// In the sum of the next step: the client and its weight.
    pending: Vec<(u64, u64)>,
    model: Vec<f64>,
}

fn settle(server: &mut Server, ledger: &mut Ledger, gone: &mut u64) {
    for record in server.records() {
        ledger.given += record.given;
        let seen = record.tally.seen();
        *gone += seen + record.lost + record.dropped + record.failed + record.stragglers;
        *gone += record.timed_out + record.too_stale + record.stopped;
        assert_eq!(record.tally.clients as usize, ledger.pending.len());
        assert!(seen <= server.setup.settings.buffer());
        if record.outcome == Outcome::Applied {
            let count = ledger.pending.len() as f64;
            for &(client, weight) in &ledger.pending {
                let step = weight as f64 / (SCALE as f64 * count);
                ledger.model[client as usize] += step;
            }
        } else if record.outcome == Outcome::TooFewUpdates {
            assert!(ledger.pending.is_empty());
        }
        ledger.pending.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Events: `(kind, client, detail)`.
    #[test]
    fn no_update_is_lost_or_counted_twice(
        concurrency in 1u64..6,
        buffer in 1u64..5,
        staleness in proptest::option::of(0u64..4),
        timeout in proptest::option::of(1u64..30),
        events in proptest::collection::vec((0u8..14, 0..CLIENTS, 0u64..4), 0..150),
    ) {
        let settings = settings(concurrency, buffer, staleness, timeout);
        let mut server = server(settings, CLIENTS);
        let mut ledger = Ledger { model: vec![0.0; CLIENTS as usize], ..Ledger::default() };
        let (mut now, mut gone, mut given) = (0, 0, std::collections::BTreeSet::new());
        for (kind, client, detail) in events {
            now += detail;
            match kind {
                0..=3 => {
                    // A predicate leaves some out.
                    let eligible = |who: ClientId| who.0 % 4 != detail;
                    server.offer(at(now), &Candidates::eligible(CLIENTS, &eligible)).unwrap();
                    let version = server.version();
                    for asked in server.sent(Command::Train(version)) {
                        prop_assert!(asked % 4 != detail);
                        prop_assert!(given.insert((asked, version)), "given twice");
                    }
                    prop_assert!(server.training().count() as u64 <= concurrency);
                }
                4..=7 => {
                    // Of its version; now and then of another one, or again.
                    let own = server.clients.get(&id(client)).map(Status::version);
                    let version = own.map_or(detail, |v| v.0 + u64::from(detail == 3));
                    let known = own.is_some();
                    let answer = server.done(now, client, version);
                    if !known {
                        prop_assert!(matches!(answer, Answer::Refused(_)));
                    }
                }
                8 => { server.tell(now, Event::Dropped(id(client))); }
                9 => { server.tell(now, Event::Failed(id(client))); }
                10 | 11 => {
                    // Some of the buffer, one by one or together, some of it not a number.
                    server.handle_timeout(at(now)).unwrap();
                    let some: Vec<_> = server
                        .buffer()
                        .filter(|a| kind == 10 || a.report.client.0 >= client)
                        .collect();
                    let mut sum = server.empty.clone();
                    let mut clients = Vec::new();
                    for Accepted { report, weight } in some {
                        let mut update = values(report.client.0, CLIENTS);
                        if detail == 2 {
                            update[0] = f32::NAN;
                            ledger.rejected += 1;
                        } else {
                            ledger.summed += 1;
                            ledger.pending.push((report.client.0, weight.0));
                        }
                        sum.absorb(&update, weight).unwrap();
                        clients.push(report.client);
                    }
                    clients.reverse();
                    let (sum, clients) = (&mut sum, clients.as_slice());
                    server.tell(now, Event::Summed { sum, clients });
                    let again = Event::Summed { sum, clients };
                    let again = server.handle(at(now), again);
                    prop_assert!(clients.is_empty() || again.is_err(), "summed once");
                }
                12 => server.flush(at(now)).unwrap(),
                _ => {
                    server.sent(Command::Stop);
                    settle(&mut server, &mut ledger, &mut gone);
                    // A restart loses nothing, where a snapshot can be taken.
                    if let Ok(snapshot) = server.snapshot() {
                        let text = serde_json::to_string(&snapshot).unwrap();
                        server = BufferedServer::restore(
                            server.strategy,
                            server.state.clone(),
                            setup(settings, CLIENTS),
                            server.empty.clone(),
                            serde_json::from_str(&text).unwrap(),
                        ).unwrap();
                        prop_assert_eq!(server.snapshot(), Ok(snapshot));
                    }
                }
            }
            settle(&mut server, &mut ledger, &mut gone);
            prop_assert!(server.buffered.len() as u64 <= buffer);
            if let (Some(most), Some(oldest)) = (staleness, server.oldest_in_flight()) {
                prop_assert!(server.version().0 - oldest.0 <= most);
            }
        }
        let summed_last = ledger.pending.len() as u64;
        server.abort(at(now)).unwrap();
        settle(&mut server, &mut ledger, &mut gone);
        prop_assert_eq!(ledger.given, gone, "everyone who was asked is accounted for");
        prop_assert!(server.clients.is_empty() && server.versions.is_empty());
        prop_assert!(server.since.is_empty() && server.waiting.is_empty());
        for (client, &expected) in ledger.model.iter().enumerate() {
            let found = f64::from(server.global().values()[client]);
            prop_assert!((found - expected).abs() < 1e-4 * expected.max(1.0), "{client}: {found} {expected}");
        }
        prop_assert!(summed_last <= ledger.summed);
    }
}
