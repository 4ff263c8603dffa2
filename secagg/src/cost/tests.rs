//! Counts against what sessions really do.

use super::*;
use crate::operation::take;
use crate::tests::{Setup, sent};
use crate::{OneThread, Server};

/// Runs a session and gives what was counted: of the first client that stays, and of the server, by
/// stage. Clients of `before_sharing` leave when they have advertised, those of `before_input` when
/// they have shared.
fn counted(
    setup: &Setup,
    before_sharing: &[u32],
    before_input: &[u32],
) -> ([[u64; OPERATIONS]; 5], [[u64; OPERATIONS]; 5]) {
    let mut client_counts = [[0; OPERATIONS]; 5];
    let mut server_counts = [[0; OPERATIONS]; 5];
    let observed = (0..setup.params.clients())
        .find(|id| !before_sharing.contains(id) && !before_input.contains(id))
        .unwrap();
    let mut server: Server = setup.server();
    let mut clients = Vec::new();
    let add = |counts: &mut [u64; OPERATIONS]| {
        for (count, more) in counts.iter_mut().zip(take()) {
            *count += more;
        }
    };
    for id in 0..setup.params.clients() {
        take();
        let (mut client, message) = setup.client(id);
        if id == observed {
            add(&mut client_counts[0]);
        }
        take();
        server.receive(id, &message).unwrap();
        add(&mut server_counts[0]);
        client.provide_input(&setup.input(id)).unwrap();
        if id == observed {
            add(&mut client_counts[2]);
        }
        clients.push(client);
    }
    let stages: &[usize] = match setup.params.threat() {
        Threat::Active => &[1, 2, 3, 4],
        _ => &[1, 2, 4],
    };
    for (at, &stage) in stages.iter().enumerate() {
        take();
        let outgoing = server.close().unwrap();
        let closed = if at == 0 { 0 } else { stages[at - 1] };
        add(&mut server_counts[closed]);
        for message in outgoing {
            for id in message.to {
                if stage >= 1 && before_sharing.contains(&id) {
                    continue;
                }
                take();
                let answer = sent(clients[id as usize].handle(&message.message));
                if id == observed {
                    add(&mut client_counts[stage]);
                }
                if stage >= 2 && before_input.contains(&id) {
                    continue;
                }
                take();
                server.receive(id, &answer).unwrap();
                add(&mut server_counts[stage]);
            }
        }
    }
    take();
    server.finish(&OneThread).unwrap();
    add(&mut server_counts[4]);
    (client_counts, server_counts)
}

fn close(expected: &ByStage, found: &[[u64; OPERATIONS]; 5], tolerance: f64, what: &str) {
    for (stage, (expected, found)) in expected.iter().zip(found).enumerate() {
        for (operation, (&expected, &found)) in expected.0.iter().zip(found).enumerate() {
            let found = found as f64;
            // Owners with the same first holders share one set of weights, as happens where
            // thresholds are tiny.
            if operation == Operation::Weight as usize && expected > found && found > 0.0 {
                continue;
            }
            assert!(
                (expected - found).abs() <= tolerance * found + 1e-9,
                "{what}, stage {stage}, operation {operation}: modelled {expected}, counted {found}"
            );
        }
    }
}

/// Every operation of every stage is counted exactly: complete graphs with drop-outs, Harary graphs
/// without, all threats.
#[test]
fn modelled_operations_are_those_of_real_sessions() {
    for (clients, dropouts, threat, topology, before_sharing, before_input) in [
        (5, 0, Threat::SemiHonest, Topology::Complete, vec![], vec![]),
        (
            9,
            3,
            Threat::SemiMalicious,
            Topology::Complete,
            vec![],
            vec![2, 5],
        ),
        (
            9,
            3,
            Threat::SemiMalicious,
            Topology::Complete,
            vec![0],
            vec![2, 5],
        ),
        (9, 2, Threat::Active, Topology::Complete, vec![7], vec![0]),
        (60, 6, Threat::SemiHonest, Topology::Harary, vec![], vec![]),
        (60, 6, Threat::Active, Topology::Harary, vec![], vec![]),
    ] {
        for suite in [Suite::Aes128, Suite::ChaCha20] {
            let setup = Setup::new(clients, dropouts, threat, topology, suite);
            let (client, server) = counted(&setup, &before_sharing, &before_input);
            let present = clients;
            let sharing = present - before_sharing.len() as u32;
            let survivors = sharing - before_input.len() as u32;
            let counts = Counts {
                present,
                sharing,
                survivors,
                signing: survivors,
                revealing: survivors,
            };
            let shape = Shape::new(&setup.params, &counts);
            let what =
                format!("{clients} {threat:?} {topology:?} {before_sharing:?} {before_input:?}");
            close(&shape.client(), &client, 0.0, &format!("client of {what}"));
            close(&shape.server(), &server, 0.0, &format!("server of {what}"));
        }
    }
}

/// In a Harary graph who drops out has some neighbours more or less than the mean.
#[test]
fn modelled_operations_are_near_in_a_harary_graph_with_drop_outs() {
    let setup = Setup::new(60, 6, Threat::SemiHonest, Topology::Harary, Suite::Aes128);
    let (_, server) = counted(&setup, &[], &[1, 10, 20, 30, 40, 50]);
    let counts = Counts::expected(&setup.params);
    assert_eq!((counts.sharing, counts.survivors), (60, 54));
    let shape = Shape::new(&setup.params, &counts);
    close(&shape.server(), &server, 0.12, "server");
}

#[test]
fn seconds_are_the_priced_operations() {
    let setup = Setup::complete(5, Threat::Active);
    let counts = Counts::everybody(&setup.params);
    let free = UnitCosts {
        agree: 0.0,
        ..zeros()
    };
    let model = CostModel::from_measured(free).unwrap();
    assert_eq!(
        model.client(&setup.params, &counts),
        StageSeconds::default()
    );
    // Only signatures cost: one under the keys, one under the survivors; four neighbours' keys and
    // five survivors' signatures are checked.
    let model = CostModel::from_measured(UnitCosts {
        sign: 1.0,
        verify: 100.0,
        ..zeros()
    })
    .unwrap();
    let client = model.client(&setup.params, &counts);
    assert_eq!(
        client,
        StageSeconds {
            advertise: 1.0,
            share: 400.0,
            mask: 0.0,
            consistency: 1.0,
            unmask: 500.0,
        }
    );
    assert_eq!(client.total().to_bits(), 902f64.to_bits());
    let server = model.server(&setup.params, &counts);
    assert_eq!((server.advertise, server.consistency), (500.0, 500.0));
    // Each width and suite has its own price.
    for (suite, price) in [(Suite::Aes128, 1.0), (Suite::ChaCha20, 8.0)] {
        let setup = Setup::new(9, 0, Threat::SemiHonest, Topology::Complete, suite);
        let counts = Counts::everybody(&setup.params);
        let model = CostModel::from_measured(UnitCosts {
            mask_aes128_narrow: 1.0,
            mask_aes128_wide: 2.0,
            mask_chacha20_narrow: 4.0,
            mask_chacha20_wide: 8.0,
            ..zeros()
        })
        .unwrap();
        let masked = setup.params.masked_length() as f64;
        let seconds = model.client(&setup.params, &counts).mask;
        assert_eq!(seconds.to_bits(), (9.0 * masked * price).to_bits());
    }
}

fn zeros() -> UnitCosts {
    let mut clock = 0.0;
    let mut units = UnitCosts::measure(|| {
        clock += 1.0;
        clock
    });
    for (name, seconds) in units.named() {
        assert!(seconds > 0.0, "{name} was not measured");
    }
    // Every price through the same door as a file's.
    let mut value = serde_json::to_value(units).unwrap();
    for price in value.as_object_mut().unwrap().values_mut() {
        *price = 0.0.into();
    }
    units = serde_json::from_value(value).unwrap();
    units
}

#[test]
fn prices_are_checked_on_every_way_in() {
    let reference = CostModel::reference();
    let text = serde_json::to_string(&reference).unwrap();
    assert_eq!(serde_json::from_str::<CostModel>(&text).unwrap(), reference);
    for (name, seconds) in reference.units().named() {
        assert!(seconds > 0.0 && seconds < 1e-3, "{name}");
        let mut value = serde_json::to_value(reference).unwrap();
        value[name] = (-1.0).into();
        let error = serde_json::from_value::<CostModel>(value.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the unit cost `{name}` is -1 s; expected a finite number of at least 0")
        );
        value.as_object_mut().unwrap().remove(name);
        assert!(serde_json::from_value::<CostModel>(value).is_err());
    }
    let units = UnitCosts {
        agree: f64::NAN,
        ..*reference.units()
    };
    assert!(CostModel::from_measured(units).is_err());
}
