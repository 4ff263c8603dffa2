//! Real sessions beside ideal ones: the same sums, and the bytes that were foretold.

use std::sync::Arc;

use super::{Setup, sent};
use crate::ideal::IdealError;
use crate::{Aggregate, Fault, Ideal, OneThread, SessionError, Suite, Threat, Topology, Traffic};

/// Plays a session in which the clients of `missing` vanish before their input; checks the bytes of
/// client 0.
fn real(setup: &Setup, missing: &[u32]) -> Aggregate {
    let params = &setup.params;
    let mut server = setup.server();
    let (mut clients, adverts) = setup.clients();
    let mut up = vec![adverts[0].len() as u64];
    let mut down = Vec::new();
    for (id, advert) in (0..).zip(&adverts) {
        clients[id as usize]
            .provide_input(&setup.input(id))
            .unwrap();
        server.receive(id, advert).unwrap();
    }
    let stages = if params.threat() == Threat::Active {
        4
    } else {
        3
    };
    let mut survivors = 0;
    for stage in 0..stages {
        for outgoing in server.close().unwrap() {
            for id in outgoing.to {
                let answer = sent(clients[id as usize].handle(&outgoing.message));
                if id == 0 {
                    down.push(outgoing.message.len() as u64);
                    up.push(answer.len() as u64);
                }
                if stage == 0 || !missing.contains(&id) {
                    server.receive(id, &answer).unwrap();
                }
            }
        }
        survivors = server.answered().count() as u32;
    }
    let n = params.clients();
    let traffic = Traffic::new(params, n, params.degree(), params.degree(), survivors);
    assert_eq!(
        (up.iter().sum(), down.iter().sum()),
        (traffic.up(), traffic.down())
    );
    assert_eq!(
        up[..3],
        [
            traffic.advertise_keys,
            traffic.share_keys,
            traffic.masked_input
        ]
    );
    assert_eq!(down[..2], [traffic.roster, traffic.forwarded_shares]);
    server.finish(&OneThread).unwrap()
}

#[test]
fn real_and_ideal_sessions_agree() {
    for (clients, dropouts, threat, topology, suite, missing) in [
        (
            4,
            1,
            Threat::SemiHonest,
            Topology::Complete,
            Suite::Aes128,
            vec![2],
        ),
        (
            5,
            1,
            Threat::SemiMalicious,
            Topology::Complete,
            Suite::ChaCha20,
            vec![],
        ),
        (
            7,
            1,
            Threat::Active,
            Topology::Complete,
            Suite::Aes128,
            vec![5],
        ),
        (
            40,
            12,
            Threat::SemiHonest,
            Topology::Harary,
            Suite::Aes128,
            vec![3, 9, 31],
        ),
        (
            40,
            4,
            Threat::SemiMalicious,
            Topology::Harary,
            Suite::Aes128,
            vec![17, 18],
        ),
        (
            40,
            4,
            Threat::Active,
            Topology::Harary,
            Suite::ChaCha20,
            vec![3, 9],
        ),
    ] {
        let setup = Setup::new(clients, dropouts, threat, topology, suite);
        let real = real(&setup, &missing);
        let mut ideal = Ideal::new(Arc::clone(&setup.params));
        // In any order.
        for id in (0..clients).rev().filter(|id| !missing.contains(id)) {
            ideal.add(id, &setup.input(id)).unwrap();
        }
        assert_eq!(ideal.finish().unwrap(), real);
    }
}

#[test]
fn an_ideal_session_refuses_what_a_real_one_does() {
    let setup = Setup::complete(5, Threat::SemiMalicious);
    let other = Setup::complete(6, Threat::SemiMalicious);
    let mut ideal = Ideal::new(Arc::clone(&setup.params));
    assert_eq!(
        ideal.add(5, &setup.input(4)),
        Err(IdealError::Fault(Fault::Unknown { id: 5, clients: 5 }))
    );
    assert!(matches!(
        ideal.add(0, &other.input(0)),
        Err(IdealError::Client(_))
    ));
    for id in [1, 3] {
        ideal.add(id, &setup.input(id)).unwrap();
    }
    assert_eq!(
        ideal.add(3, &setup.input(3)),
        Err(IdealError::Fault(Fault::Duplicate { id: 3 }))
    );
    assert_eq!(
        ideal.finish(),
        Err(SessionError::TooFew {
            stage: "masked input",
            present: 2,
            least: 3
        })
    );
}
