//! Random events.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whatever order, the model moves by exactly the updates that were
    /// accepted and not lost, each once.
    #[test]
    fn no_update_is_lost_or_counted_twice(
        goal in 1u64..=10,
        minimum in 1u64..4,
        invitation in proptest::option::of(1u64..60),
        deadline in proptest::option::of(1u64..80),
        keep in any::<bool>(),
        events in proptest::collection::vec((0u8..12, 0u64..11, 0u64..3), 0..120),
    ) {
        let stragglers = if keep { Stragglers::Partial } else { Stragglers::Drop };
        let mut server = server(goal, stragglers, settings(minimum, invitation, deadline));
        server.begin(0);
        let mut now = 0;
        let mut inside = std::collections::BTreeSet::new();
        // Two workers with what they have summed so far.
        let mut workers = [(sum(), Vec::new()), (sum(), Vec::new())];
        let mut record = None;
        for (kind, client, span) in events {
            now += span;
            if server.phase() == Phase::Idle {
                break;
            }
            let mut hand_over = |server: &mut Server, which: usize| {
                let (sum, clients) = &mut workers[which];
                let answer = server.handle(at(now), Event::Summed { sum, clients });
                if answer.is_ok() {
                    inside.extend(clients.drain(..));
                }
                answer
            };
            match kind {
                0..3 => { server.tell(now, Event::Ready(id(client))); }
                3 => {
                    // Most clients are ready at once, or no round gets far.
                    for client in 0..N {
                        server.tell(now, Event::Ready(id(client)));
                    }
                }
                4 | 5 => {
                    if server.tell(now, Event::Update(&update(client))) == ACCEPTED {
                        inside.insert(id(client));
                    }
                }
                6..9 => {
                    let work = if kind == 8 { WorkDone::Partial } else { WorkDone::Full };
                    let report = Report { work, ..report(client) };
                    if server.tell(now, Event::Reported(report)) == ACCEPTED {
                        let (sum, clients) = &mut workers[client as usize % 2];
                        sum.absorb(&values(client), Weight(1)).unwrap();
                        clients.push(id(client));
                    }
                }
                9 => { let _ = hand_over(&mut server, client as usize % 2); }
                10 => {
                    // A worker's client cannot be taken out again: only others drop.
                    if !workers.iter().any(|(_, clients)| clients.contains(&id(client))) {
                        server.tell(now, Event::Dropped(id(client)));
                    }
                }
                _ => server.handle_timeout(at(now)).unwrap(),
            }
        }
        // The end: whoever trains drops, and the workers hand over.
        for client in 0..N {
            if !workers.iter().any(|(_, clients)| clients.contains(&id(client))) {
                server.tell(now, Event::Dropped(id(client)));
            }
        }
        for (sum, clients) in &mut workers {
            if server.phase() != Phase::Idle && !clients.is_empty() {
                let answer = server.handle(at(now), Event::Summed { sum, clients });
                prop_assert_eq!(answer, Ok(Answer::Noted));
                inside.extend(clients.drain(..));
            }
        }
        prop_assert_eq!(server.phase(), Phase::Idle);
        record = record.or(server.record());
        let record = record.unwrap();
        check(&record);
        prop_assert_eq!(record.tally.clients, inside.len() as u64);
        prop_assert!(record.tally.clients <= goal);
        let share = 1.0 / inside.len() as f32;
        let applied = record.outcome == Outcome::Applied;
        prop_assert_eq!(applied, inside.len() as u64 >= minimum);
        for client in 0..N {
            let expected = if applied && inside.contains(&id(client)) { share } else { 0.0 };
            let value = server.global().values()[client as usize];
            prop_assert!((value - expected).abs() < 1e-7, "client {}: {}", client, value);
        }
    }
}
