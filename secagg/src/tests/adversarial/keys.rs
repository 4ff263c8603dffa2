//! Lies about who is there and with which keys: rosters, packets, graphs, models.

use super::*;

#[test]
fn a_roster_that_lies_is_refused() {
    for threat in THREATS {
        let setup = Setup::complete(4, threat);
        let honest = setup.adverts();
        type Lie = fn(&mut BTreeMap<u32, Advert>);
        let lies: [(Lie, ClientError); 8] = [
            (
                |roster| {
                    roster.remove(&1);
                },
                ClientError::OwnKeys,
            ),
            // Another key in this client's name.
            (
                |roster| {
                    let other = roster[&2];
                    roster.get_mut(&1).unwrap().mask_key = other.packet_key;
                },
                ClientError::OwnKeys,
            ),
            // This client's own key, reflected as a neighbour's.
            (
                |roster| {
                    let own = roster[&1];
                    roster.get_mut(&2).unwrap().mask_key = own.mask_key;
                },
                ClientError::DuplicateKey { id: 2 },
            ),
            (
                |roster| {
                    let own = roster[&1];
                    roster.get_mut(&3).unwrap().packet_key = own.mask_key;
                },
                ClientError::DuplicateKey { id: 3 },
            ),
            // Two neighbours with one key: all equal, and each client's two keys the same.
            (
                |roster| {
                    let key = roster[&0].mask_key;
                    roster.get_mut(&3).unwrap().mask_key = key;
                },
                ClientError::DuplicateKey { id: 3 },
            ),
            (
                |roster| {
                    let advert = roster.get_mut(&0).unwrap();
                    advert.packet_key = advert.mask_key;
                },
                ClientError::DuplicateKey { id: 0 },
            ),
            // The identity, and an encoding that is none.
            (
                |roster| roster.get_mut(&2).unwrap().mask_key = [0; 32],
                ClientError::Key { id: 2 },
            ),
            (
                |roster| roster.get_mut(&0).unwrap().packet_key = [0xff; 32],
                ClientError::Key { id: 0 },
            ),
        ];
        for (lie, error) in lies {
            let mut roster = honest.clone();
            lie(&mut roster);
            let (mut client, _) = setup.client(1);
            let message = setup.roster(&roster);
            // Under the active threat the signature fails before the key is looked at.
            let expected = match error {
                ClientError::Key { id } if threat == Threat::Active => {
                    ClientError::Signature { id }
                }
                other => other,
            };
            assert_eq!(client.handle(&message), Err(expected), "{threat:?}");
            is_wiped(&mut client, &setup.roster(&honest));
        }
    }
}

/// A server in the middle, with keys of its own for client 2, and one that moves a client's keys,
/// with its signature, to another client.
#[test]
fn keys_that_their_client_did_not_sign_are_refused() {
    let setup = Setup::complete(4, Threat::Active);
    let honest = setup.adverts();
    let mut forged = setup.clone();
    forged.seed = 1;
    let mut middle = honest.clone();
    let theirs = forged.adverts()[&2];
    middle.insert(
        2,
        Advert {
            signature: honest[&2].signature,
            ..theirs
        },
    );
    let mut moved = honest.clone();
    let own = moved.remove(&2).unwrap();
    moved.insert(3, own);
    for (roster, id) in [(middle, 2), (moved, 3)] {
        let (mut client, _) = setup.client(1);
        // Three clients are too few for the session; the lie is noticed first only if they are enough.
        let error = if roster.len() < 4 {
            ClientError::Signature { id }
        } else {
            ClientError::Signature { id: 2 }
        };
        assert_eq!(client.handle(&setup.roster(&roster)), Err(error));
    }
    // Without signatures nobody can tell; that is what the threat models promise.
    let passive = Setup::complete(4, Threat::SemiHonest);
    let mut other = passive.clone();
    other.seed = 1;
    let mut middle = passive.adverts();
    middle.insert(2, other.adverts()[&2]);
    assert!(passive.client(1).0.handle(&passive.roster(&middle)).is_ok());
}

/// Changes the packets that a client gets, knowing what all others get.
type Edit<'a> = dyn Fn(&mut Vec<(u32, crate::packet::Packet)>, &[Vec<u8>]) + 'a;

#[test]
fn packets_are_bound_to_session_direction_owner_and_holder() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let inbox = |message: &[u8]| {
        read_packets(
            &setup.params,
            setup.read(Kind::ForwardedShares, message, SERVER),
        )
        .unwrap()
    };
    let attempt = |edit: &Edit<'_>| {
        let (_, mut clients, forwarded) = setup.until_forwarded();
        let mut packets = inbox(&forwarded[1]);
        edit(&mut packets, &forwarded);
        let writer = setup.writer(Kind::ForwardedShares, SERVER);
        let result = clients[1].handle(&write_packets(writer, packets.into_iter()));
        if result.is_err() {
            is_wiped(&mut clients[1], &forwarded[1]);
        }
        result
    };
    assert_eq!(attempt(&|_, _| {}), Ok(Reply::AwaitInput));
    // Swapped between owners.
    assert_eq!(
        attempt(&|packets, _| {
            let (a, b) = (packets[0].1, packets[2].1);
            packets[0].1 = b;
            packets[2].1 = a;
        }),
        Err(ClientError::Packet { from: 0 })
    );
    // Meant for another holder.
    assert_eq!(
        attempt(&|packets, forwarded| packets[1].1 = inbox(&forwarded[0])[1].1),
        Err(ClientError::Packet { from: 2 })
    );
    // Reflected: what this client sent to 2 comes back as 2's.
    assert_eq!(
        attempt(&|packets, forwarded| {
            let own = inbox(&forwarded[2])
                .into_iter()
                .find(|(from, _)| *from == 1)
                .unwrap()
                .1;
            packets[1].1 = own;
        }),
        Err(ClientError::Packet { from: 2 })
    );
    // From itself.
    assert_eq!(
        attempt(&|packets, _| {
            let packet = packets[0].1;
            packets.insert(1, (1, packet));
        }),
        Err(ClientError::Unexpected {
            id: 1,
            what: "no neighbour of this client, and shares of it came"
        })
    );
    // Replayed from another session: same keys, another round.
    let mut earlier = setup.clone();
    earlier.context.round -= 1;
    let (_, _, replayed) = earlier.until_forwarded();
    let old = Reader::open(
        &replayed[1],
        Kind::ForwardedShares,
        &earlier.params,
        &earlier.server().session(),
        SERVER,
    )
    .unwrap();
    let old = read_packets(&setup.params, old).unwrap();
    assert_eq!(
        attempt(&|packets, _| packets[2].1 = old[2].1),
        Err(ClientError::Packet { from: 3 })
    );
    // The whole message, replayed.
    let (_, mut clients, _) = setup.until_forwarded();
    assert_eq!(
        clients[1].handle(&replayed[1]),
        Err(ClientError::Decode(DecodeError::Session))
    );
}

/// Different rosters for different clients: their packets do not open.
#[test]
fn two_rosters_do_not_mix() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let mut other = setup.clone();
    other.seed = 1;
    let honest = setup.adverts();
    let mut lie = honest.clone();
    lie.insert(3, other.adverts()[&3]);
    let (mut first, _) = setup.client(0);
    let (mut second, _) = setup.client(1);
    let packets = sent(first.handle(&setup.roster(&lie)));
    second.handle(&setup.roster(&honest)).unwrap();
    let sealed = read_packets(&setup.params, setup.read(Kind::ShareKeys, &packets, 0)).unwrap();
    let message = write_packets(
        setup.writer(Kind::ForwardedShares, SERVER),
        [(0, sealed[0].1)].into_iter(),
    );
    assert_eq!(
        second.handle(&message),
        Err(ClientError::Packet { from: 0 })
    );
}

/// A server that gives one client another graph: the client computes its neighbours itself, from
/// everybody's keys, and takes packets of no one else.
#[test]
fn neighbours_are_not_the_servers_choice() {
    let setup = Setup::new(40, 12, Threat::SemiHonest, Topology::Harary, Suite::Aes128);
    let (_, mut clients, forwarded) = setup.until_forwarded();
    let reader = setup.read(Kind::ForwardedShares, &forwarded[7], SERVER);
    let mut packets = read_packets(&setup.params, reader).unwrap();
    assert!(packets.len() < 39);
    let stranger = (0..40)
        .find(|id| *id != 7 && packets.iter().all(|(from, _)| from != id))
        .unwrap();
    let packet = packets[0].1;
    packets.push((stranger, packet));
    packets.sort_unstable_by_key(|(id, _)| *id);
    let message = write_packets(
        setup.writer(Kind::ForwardedShares, SERVER),
        packets.into_iter(),
    );
    assert_eq!(
        clients[7].handle(&message),
        Err(ClientError::Unexpected {
            id: stranger,
            what: "no neighbour of this client, and shares of it came"
        })
    );
}

/// Clients that hold different models are in different sessions, whatever the server relays: their
/// messages are refused, and with forged headers their masks do not cancel.
#[test]
fn another_model_is_another_session() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let mut poisoned = setup.clone();
    poisoned.context.model = [9; 32];
    assert_ne!(setup.server().session(), poisoned.server().session());
    let (mut client, advert) = poisoned.client(1);
    let mut server = setup.server();
    assert_eq!(
        server.receive(1, &advert),
        Err(Fault::Decode(DecodeError::Session))
    );
    assert_eq!(
        client.handle(&setup.roster(&setup.adverts())),
        Err(ClientError::Decode(DecodeError::Session))
    );
    // Relayed under a header of its own session, the keys agree on nothing with the others.
    let adverts = setup.adverts();
    let mut mixed = adverts.clone();
    mixed.insert(1, poisoned.adverts()[&1]);
    let (mut first, _) = setup.client(0);
    let (mut second, _) = poisoned.client(1);
    second.handle(&poisoned.roster(&mixed)).unwrap();
    let packets = sent(first.handle(&setup.roster(&mixed)));
    let sealed = read_packets(&setup.params, setup.read(Kind::ShareKeys, &packets, 0)).unwrap();
    let forged = write_packets(
        poisoned.writer(Kind::ForwardedShares, SERVER),
        [(0, sealed[0].1)].into_iter(),
    );
    assert_eq!(second.handle(&forged), Err(ClientError::Packet { from: 0 }));
    // Other parameters, rounds and tasks are other sessions as well.
    let mut others = vec![setup.server().session(), poisoned.server().session()];
    let mut round = setup.clone();
    round.context.round += 1;
    let mut task = setup.clone();
    task.context.task[31] ^= 1;
    for other in [
        round,
        task,
        Setup::complete(5, Threat::SemiHonest),
        Setup::complete(4, Threat::Active),
    ] {
        others.push(other.server().session());
    }
    others.sort_unstable();
    let count = others.len();
    others.dedup();
    assert_eq!(others.len(), count);
}

/// Two clients whose generators are seeded alike have one key: the second is refused.
#[test]
fn weak_randomness_is_noticed() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let mut server = setup.server();
    let start = |id| {
        let mut rng = ChaCha20Rng::from_seed([0; 32]);
        Client::start(
            Arc::clone(&setup.params),
            &setup.context,
            id,
            None,
            &mut rng,
        )
        .unwrap()
    };
    server.receive(0, &start(0).1).unwrap();
    assert_eq!(
        server.receive(2, &start(2).1),
        Err(Fault::DuplicateKey { id: 2 })
    );
}

#[test]
fn identities_fit_the_threat() {
    let active = Setup::complete(4, Threat::Active);
    let passive = Setup::complete(4, Threat::SemiHonest);
    let start = |setup: &Setup, id, identity| {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        Client::start(
            Arc::clone(&setup.params),
            &setup.context,
            id,
            identity,
            &mut rng,
        )
        .map(|_| ())
        .unwrap_err()
    };
    assert_eq!(
        start(&passive, 4, None),
        ClientError::Id { id: 4, clients: 4 }
    );
    assert!(matches!(start(&active, 1, None), ClientError::Identity(_)));
    assert!(matches!(
        start(&passive, 1, active.identity(1)),
        ClientError::Identity(_)
    ));
    assert!(matches!(
        start(&active, 1, active.identity(2)),
        ClientError::Identity(_)
    ));
    assert!(Server::new(Arc::clone(&active.params), &active.context, None).is_err());
    assert!(
        Server::new(
            Arc::clone(&passive.params),
            &passive.context,
            active.directory.clone()
        )
        .is_err()
    );
    let key = Identity::public(&[1; 32]);
    assert!(Directory::new(&[key, key]).is_err());
    assert!(Directory::new(&[key, [0; 32]]).is_err());
    // The identity of the curve, a point of order one.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert!(Directory::new(&[key, weak]).is_err());
}

/// What a server gets by listing one client both ways in a roster: ids must ascend.
#[test]
fn lists_with_repeated_ids_are_refused() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let adverts = setup.adverts();
    let mut writer = setup.writer(Kind::Roster, SERVER);
    writer.count(4);
    for id in [0, 1, 1, 3] {
        writer.u32(id);
        adverts[&id].write(&setup.params, &mut writer);
    }
    let message = writer.finish();
    let error = DecodeError::Field("ids do not ascend");
    assert_eq!(
        read_roster(&setup.params, setup.read(Kind::Roster, &message, SERVER)).unwrap_err(),
        error
    );
    let mut client = setup.client(1).0;
    assert_eq!(client.handle(&message), Err(ClientError::Decode(error)));
}
