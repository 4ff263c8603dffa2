//! Attacks, each with the error that meets it. A server is played by hand where it lies: with the
//! crate's own writer, so that every lie is well formed and has a good checksum.

use std::collections::BTreeMap;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{Setup, sent};
use crate::shamir::Share;
use crate::wire::{
    Advert, Kind, Reader, Revealed, SERVER, Secret, Writer, bit_map, read_packets, read_roster,
    read_shares, write_packets, write_roster, write_shares,
};
use crate::{
    BadShare, Client, ClientError, Cohort, DecodeError, Directory, Fault, Identity, Input,
    InputError, OneThread, Params, Reply, Ring, Server, SessionError, Suite, Threat, Topology,
};

const THREATS: [Threat; 3] = [Threat::SemiHonest, Threat::SemiMalicious, Threat::Active];

/// A client that failed stays so, has wiped its state and says nothing more.
#[track_caller]
fn is_wiped(client: &mut Client, message: &[u8]) {
    assert!(client.is_over());
    assert_eq!(client.handle(message), Err(ClientError::Over));
}

impl Setup {
    fn read<'a>(&self, kind: Kind, message: &'a [u8], sender: u32) -> Reader<'a> {
        Reader::open(
            message,
            kind,
            &self.params,
            &self.server().session(),
            sender,
        )
        .unwrap()
    }

    fn writer(&self, kind: Kind, sender: u32) -> Writer {
        Writer::new(kind, &self.params, &self.server().session(), sender)
    }

    /// A survivors' message of the server's choice.
    fn survivors(&self, set: &[u32]) -> Vec<u8> {
        let mut writer = self.writer(Kind::Survivors, SERVER);
        writer.raw(&bit_map(self.params.clients(), set.iter().copied()));
        writer.finish()
    }

    fn adverts(&self) -> BTreeMap<u32, Advert> {
        let (_, messages) = self.clients();
        (0..)
            .zip(&messages)
            .map(|(id, message)| {
                let reader = self.read(Kind::AdvertiseKeys, message, id);
                (id, Advert::decode(&self.params, reader).unwrap())
            })
            .collect()
    }

    /// A roster of the server's choice.
    fn roster(&self, adverts: &BTreeMap<u32, Advert>) -> Vec<u8> {
        let session = self.server().session();
        write_roster(
            &self.params,
            &session,
            adverts.iter().map(|(id, advert)| (*id, *advert)),
        )
    }

    fn revealed(&self, id: u32, message: &[u8]) -> Vec<Revealed> {
        let reader = self.read(Kind::UnmaskingShares, message, id);
        read_shares(&self.params, reader).unwrap()
    }
}

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

#[test]
fn too_small_a_cohort_is_refused_at_every_stage() {
    let setup = Setup::complete(5, Threat::SemiMalicious);
    assert_eq!(
        (setup.params.threshold(), setup.params.min_survivors()),
        (3, 3)
    );
    let mut adverts = setup.adverts();
    adverts.remove(&0);
    adverts.remove(&4);
    adverts.remove(&3);
    let (mut client, _) = setup.client(1);
    assert_eq!(
        client.handle(&setup.roster(&adverts)),
        Err(ClientError::TooFew {
            present: 2,
            what: "clients in the roster",
            least: 3
        })
    );

    let (_, mut clients, forwarded) = setup.until_forwarded();
    let packets = read_packets(
        &setup.params,
        setup.read(Kind::ForwardedShares, &forwarded[1], SERVER),
    );
    let one = packets.unwrap().into_iter().take(1);
    let message = write_packets(setup.writer(Kind::ForwardedShares, SERVER), one);
    assert_eq!(
        clients[1].handle(&message),
        Err(ClientError::TooFew {
            present: 2,
            what: "holders of this client's shares are left",
            least: 3
        })
    );

    let (_, mut clients, _) = setup.until_survivors();
    assert_eq!(
        clients[1].handle(&setup.survivors(&[1, 3])),
        Err(ClientError::TooFew {
            present: 2,
            what: "survivors",
            least: 3
        })
    );
    is_wiped(&mut clients[1], &setup.survivors(&[0, 1, 2, 3, 4]));
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

/// A client answers once, and one secret for each owner, whatever the server says.
#[test]
fn both_secrets_of_a_client_are_never_revealed() {
    for threat in [Threat::SemiHonest, Threat::SemiMalicious] {
        let setup = Setup::complete(5, threat);
        let (_, mut clients, _) = setup.until_survivors();
        let client = &mut clients[1];
        let message = sent(client.handle(&setup.survivors(&[0, 1, 2, 4])));
        let revealed: Vec<(u32, Secret)> = setup
            .revealed(1, &message)
            .into_iter()
            .map(|(owner, (secret, _))| (owner, secret))
            .collect();
        use Secret::{Key, Seed};
        assert_eq!(
            revealed,
            [(0, Seed), (1, Seed), (2, Seed), (3, Key), (4, Seed)]
        );
        // Across two requests: the second finds nothing.
        is_wiped(client, &setup.survivors(&[0, 1, 2, 3]));
    }
    // In one request it cannot be said: there is only a set of survivors.
    let setup = Setup::complete(5, Threat::SemiHonest);
    let (_, mut clients, _) = setup.until_survivors();
    assert_eq!(
        clients[1].handle(&setup.survivors(&[0, 2, 3, 4])),
        Err(ClientError::ListedDropped)
    );
    is_wiped(&mut clients[1], &setup.survivors(&[0, 1, 2, 3]));
}

/// Two survivor sets to two halves of the clients. With a threshold of half the clients or less the
/// server gets both secrets of a client; above, as the semi-malicious rule demands, it does not.
#[test]
fn two_survivor_sets_to_two_halves_reveal_nothing_under_the_semi_malicious_rule() {
    let n = 6;
    for (threat, victim_falls) in [(Threat::SemiHonest, true), (Threat::SemiMalicious, false)] {
        let setup = Setup::complete(n, threat);
        let (_, mut clients, _) = setup.until_survivors();
        let (all, without): (Vec<u32>, Vec<u32>) = ((0..n).collect(), (1..n).collect());
        let mut of_victim: BTreeMap<u8, Vec<(u32, Share)>> = BTreeMap::new();
        for id in 1..n {
            let set = if id % 2 == 0 { &all } else { &without };
            let message = sent(clients[id as usize].handle(&setup.survivors(set)));
            for (owner, (secret, share)) in setup.revealed(id, &message) {
                if owner == 0 {
                    of_victim.entry(secret as u8).or_default().push((id, share));
                }
            }
        }
        let t = setup.params.threshold() as usize;
        let both = of_victim.len() == 2 && of_victim.values().all(|shares| shares.len() >= t);
        assert_eq!(both, victim_falls, "{threat:?}");
    }
}

/// Under the active threat the halves sign different sets, and neither has a quorum.
#[test]
fn under_the_active_threat_survivors_need_a_quorum_of_signatures() {
    let setup = Setup::complete(6, Threat::Active);
    assert_eq!(setup.params.quorum(), 5);
    let (server, clients, honest) = setup.until_survivors();
    let all: Vec<u32> = (0..6).collect();
    let without: Vec<u32> = (1..6).collect();
    let request = |set: &[u32], signatures: &[(u32, Vec<u8>)]| {
        let mut writer = setup.writer(Kind::Unmask, SERVER);
        writer.raw(&bit_map(6, set.iter().copied()));
        writer.count(signatures.len());
        for (id, signature) in signatures {
            writer.u32(*id);
            writer.raw(signature);
        }
        writer.finish()
    };
    let sign = |clients: &mut [Client], id: u32, set: &[u32]| {
        let message = sent(clients[id as usize].handle(&setup.survivors(set)));
        let reader = setup.read(Kind::SignedSurvivors, &message, id);
        (id, reader.all(64).unwrap().to_vec())
    };
    // Equivocation.
    let mut halves = clients.clone();
    let signatures: Vec<_> = (1..6)
        .map(|id| sign(&mut halves, id, if id % 2 == 0 { &all } else { &without }))
        .collect();
    assert_eq!(
        halves[2].handle(&request(&all, &signatures)),
        Err(ClientError::Signature { id: 1 })
    );
    let even: Vec<_> = signatures
        .iter()
        .filter(|(id, _)| id % 2 == 0)
        .cloned()
        .collect();
    assert_eq!(
        halves[4].handle(&request(&all, &even)),
        Err(ClientError::TooFew {
            present: 2,
            what: "signatures",
            least: 5
        })
    );
    // Another set than the one that was signed.
    assert_eq!(
        halves[1].handle(&request(&all, &signatures)),
        Err(ClientError::OtherSurvivors)
    );
    is_wiped(&mut halves[1], &honest);
    // Signatures under an earlier session, of one who is no survivor, and one that is swapped.
    let mut signing = clients.clone();
    let good: Vec<_> = (1..6).map(|id| sign(&mut signing, id, &without)).collect();
    let mut swapped = good.clone();
    let (a, b) = (good[0].1.clone(), good[1].1.clone());
    (swapped[0].1, swapped[1].1) = (b, a);
    assert_eq!(
        signing[3].handle(&request(&without, &swapped)),
        Err(ClientError::Signature { id: 1 })
    );
    let mut outsider = good.clone();
    outsider.insert(0, (0, sign(&mut signing, 0, &all).1));
    assert_eq!(
        signing[4].handle(&request(&without, &outsider)),
        Err(ClientError::Signature { id: 0 })
    );
    // And a good one is answered.
    assert!(matches!(
        signing[5].handle(&request(&without, &good)),
        Ok(Reply::Send(_))
    ));
    // The server, too, takes only signatures that fit.
    let mut server = server;
    let mut writer = setup.writer(Kind::SignedSurvivors, 3);
    writer.raw(&good[2].1);
    assert_eq!(
        server.receive(3, &writer.finish()),
        Err(Fault::Signature { id: 3 })
    );
}

#[test]
fn survivors_who_cannot_be_are_refused() {
    let setup = Setup::new(5, 1, Threat::SemiHonest, Topology::Complete, Suite::Aes128);
    let mut adverts = setup.adverts();
    adverts.remove(&4);
    let (mut clients, _) = setup.clients();
    clients.truncate(4);
    let roster = setup.roster(&adverts);
    let dealt: Vec<_> = clients
        .iter_mut()
        .map(|client| sent(client.handle(&roster)))
        .collect();
    // Client 1 hears of 0 and 2, not of 3.
    let packet_of = |from: u32, to: u32| {
        let packets = read_packets(
            &setup.params,
            setup.read(Kind::ShareKeys, &dealt[from as usize], from),
        );
        packets
            .unwrap()
            .into_iter()
            .find(|(id, _)| *id == to)
            .unwrap()
            .1
    };
    let message = write_packets(
        setup.writer(Kind::ForwardedShares, SERVER),
        [(0, packet_of(0, 1)), (2, packet_of(2, 1))].into_iter(),
    );
    let client = &mut clients[1];
    client.handle(&message).unwrap();
    client.provide_input(&setup.input(1)).unwrap();
    for (set, error) in [
        (
            vec![0, 1, 4],
            ClientError::Unexpected {
                id: 4,
                what: "not in the roster, and listed as a survivor",
            },
        ),
        (
            vec![0, 1, 3],
            ClientError::Unexpected {
                id: 3,
                what: "a neighbour whose shares never came, and listed as a survivor",
            },
        ),
    ] {
        assert_eq!(client.clone().handle(&setup.survivors(&set)), Err(error));
    }
    // Survivors before there is an input: nothing may be revealed.
    let (_, mut clients, forwarded) = setup.until_forwarded();
    clients[0].handle(&forwarded[0]).unwrap();
    assert_eq!(
        clients[0].handle(&setup.survivors(&[0, 1, 2, 3])),
        Err(ClientError::InputNotExpected)
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
fn a_server_refuses_what_a_client_must_not_send() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let mut server = setup.server();
    let (mut clients, adverts) = setup.clients();
    assert_eq!(
        server.receive(4, &adverts[0]),
        Err(Fault::Unknown { id: 4, clients: 4 })
    );
    // In another's name.
    assert_eq!(
        server.receive(1, &adverts[0]),
        Err(Fault::Decode(DecodeError::Sender {
            given: 0,
            expected: 1
        }))
    );
    let mut advert = |change: &dyn Fn(&mut Advert)| {
        let mut forged = setup.adverts()[&3];
        change(&mut forged);
        let mut writer = setup.writer(Kind::AdvertiseKeys, 3);
        forged.write(&setup.params, &mut writer);
        server.receive(3, &writer.finish())
    };
    assert_eq!(advert(&|a| a.mask_key = [0; 32]), Err(Fault::Key { id: 3 }));
    assert_eq!(
        advert(&|a| a.packet_key = [0xff; 32]),
        Err(Fault::Key { id: 3 })
    );
    assert_eq!(
        advert(&|a| a.packet_key = a.mask_key),
        Err(Fault::DuplicateKey { id: 3 })
    );
    for (id, advert) in (0..).zip(&adverts).take(3) {
        server.receive(id, advert).unwrap();
    }
    assert_eq!(
        server.receive(0, &adverts[0]),
        Err(Fault::Duplicate { id: 0 })
    );
    assert!(matches!(
        server.clone().finish(&OneThread),
        Err(SessionError::Stage {
            stage: "advertise keys"
        })
    ));
    let roster = server.close().unwrap().remove(0).message;
    // Late.
    assert_eq!(
        server.receive(3, &adverts[3]),
        Err(Fault::NotExpected { id: 3 })
    );
    let shares: Vec<_> = clients[..3]
        .iter_mut()
        .map(|c| sent(c.handle(&roster)))
        .collect();
    assert_eq!(
        server.receive(0, &adverts[0]),
        Err(Fault::Decode(DecodeError::Kind {
            given: 1,
            expected: 3
        }))
    );
    let packets = read_packets(&setup.params, setup.read(Kind::ShareKeys, &shares[0], 0)).unwrap();
    for wrong in [packets[..1].to_vec(), vec![packets[0], (3, packets[1].1)]] {
        let message = write_packets(setup.writer(Kind::ShareKeys, 0), wrong.into_iter());
        assert_eq!(server.receive(0, &message), Err(Fault::Shares { id: 0 }));
    }
    for (id, message) in (0..).zip(&shares) {
        server.receive(id, message).unwrap();
    }
    let mut masked = Vec::new();
    for outgoing in server.close().unwrap() {
        let id = outgoing.to[0];
        clients[id as usize].handle(&outgoing.message).unwrap();
        masked.push(sent(clients[id as usize].provide_input(&setup.input(id))));
    }
    // A vector that is too short, too long, or has bits where none are.
    let body = setup.read(Kind::MaskedInput, &masked[0], 0);
    let bytes = setup
        .params
        .ring()
        .packed_bytes(setup.params.masked_length());
    let body = body.all(bytes).unwrap().to_vec();
    let mut vector = |body: &[u8]| {
        let mut writer = setup.writer(Kind::MaskedInput, 0);
        writer.raw(body);
        server.receive(0, &writer.finish())
    };
    for wrong in [&body[..bytes - 1], &[&body[..], &[0]].concat(), &[]] {
        assert!(matches!(
            vector(wrong),
            Err(Fault::Decode(DecodeError::Length { .. }))
        ));
    }
    let used = setup.params.masked_length() * setup.params.ring().bits() as usize % 8;
    assert_ne!(used, 0);
    let mut unreduced = body.clone();
    *unreduced.last_mut().unwrap() |= 0x80;
    assert_eq!(
        vector(&unreduced),
        Err(Fault::Decode(DecodeError::Field("an unused bit is set")))
    );
    for (id, message) in (0..).zip(&masked) {
        server.receive(id, message).unwrap();
        // A second masked input.
        assert_eq!(server.receive(id, message), Err(Fault::Duplicate { id }));
    }
    let survivors = server.close().unwrap().remove(0).message;
    let answers: Vec<_> = clients[..3]
        .iter_mut()
        .map(|c| sent(c.handle(&survivors)))
        .collect();
    // Shares of fewer, of others, and of the other secret.
    let shares = setup.revealed(0, &answers[0]);
    let all: Vec<_> = shares
        .iter()
        .map(|(owner, (secret, share))| (*owner, *secret, share))
        .collect();
    let mut other = all.clone();
    other[1].1 = Secret::Key;
    for wrong in [all[..2].to_vec(), other, vec![]] {
        let message = write_shares(setup.writer(Kind::UnmaskingShares, 0), wrong.into_iter());
        assert_eq!(server.receive(0, &message), Err(Fault::Shares { id: 0 }));
    }
    // None of it has hurt the session.
    for (id, message) in (0..).zip(&answers) {
        server.receive(id, message).unwrap();
    }
    assert!(matches!(
        server.close(),
        Err(SessionError::Stage { stage: "unmask" })
    ));
    let sum = server.finish(&OneThread).unwrap();
    assert_eq!(sum.integers().collect::<Vec<_>>(), setup.plain_sum(0..3));
}

/// Runs the last stage of a session in which some clients' answers are changed.
fn with_false_shares(
    setup: &Setup,
    change: impl Fn(u32, &mut Vec<(u32, Secret, Share)>),
) -> Result<crate::Aggregate, SessionError> {
    let (mut server, mut clients, survivors) = setup.until_survivors();
    for (id, client) in (0..).zip(&mut clients) {
        let message = sent(client.handle(&survivors));
        let mut shares: Vec<_> = setup
            .revealed(id, &message)
            .into_iter()
            .map(|(owner, (secret, share))| (owner, secret, share))
            .collect();
        change(id, &mut shares);
        let shares: Vec<_> = shares
            .iter()
            .map(|(o, secret, share)| (*o, *secret, share))
            .collect();
        let message = write_shares(setup.writer(Kind::UnmaskingShares, id), shares.into_iter());
        server.receive(id, &message).unwrap();
    }
    server.finish(&OneThread)
}

/// Differently for each holder, so that the errors of several do not cancel.
fn spoil(share: &mut Share, holder: u32) {
    let mut bytes = [0; 40];
    bytes.copy_from_slice(&*share.to_bytes());
    bytes[holder as usize % 5] ^= 0b101 << (holder % 4);
    *share = Share::from_bytes(&bytes).unwrap();
}

#[test]
fn false_shares_are_worked_around_and_named() {
    let setup = Setup::complete(7, Threat::SemiMalicious);
    assert_eq!(setup.params.threshold(), 4);
    // One holder lies about all owners: named for each.
    let sum = with_false_shares(&setup, |id, shares| {
        if id == 2 {
            shares.iter_mut().for_each(|(_, _, share)| spoil(share, id));
        }
    })
    .unwrap();
    assert_eq!(sum.integers().collect::<Vec<_>>(), setup.plain_sum(0..7));
    let expected: Vec<_> = (0..7).map(|owner| BadShare { owner, holder: 2 }).collect();
    assert_eq!(sum.bad_shares(), expected);
    // One owner whose shares are bad at two holders.
    let sum = with_false_shares(&setup, |id, shares| {
        if id == 1 || id == 3 {
            spoil(&mut shares[5].2, id);
        }
    })
    .unwrap();
    let bad = |holder| BadShare { owner: 5, holder };
    assert_eq!(sum.bad_shares(), [bad(1), bad(3)]);
    // Too many liars: no sum, and the owner is named.
    let failed = with_false_shares(&setup, |id, shares| {
        if id < 4 {
            spoil(&mut shares[5].2, id);
        }
    });
    assert_eq!(
        failed.unwrap_err(),
        SessionError::BadShares { owner: 5, least: 4 }
    );
}

/// A client that masks falsely spoils the sum, and the count of clients tells.
#[test]
fn masks_that_do_not_cancel_are_noticed() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let (mut server, mut clients, forwarded) = setup.until_forwarded();
    for ((id, client), message) in (0..).zip(&mut clients).zip(&forwarded) {
        client.provide_input(&setup.input(id)).unwrap();
        let mut message = sent(client.handle(message));
        if id == 2 {
            let mut writer = setup.writer(Kind::MaskedInput, 2);
            let bytes = setup
                .params
                .ring()
                .packed_bytes(setup.params.masked_length());
            writer.raw(&vec![0; bytes]);
            message = writer.finish();
        }
        server.receive(id, &message).unwrap();
    }
    let survivors = server.close().unwrap().remove(0).message;
    for (id, client) in (0..).zip(&mut clients) {
        server
            .receive(id, &sent(client.handle(&survivors)))
            .unwrap();
    }
    assert!(matches!(
        server.finish(&OneThread),
        Err(SessionError::Inconsistent { survivors: 4, .. })
    ));
}

#[test]
fn inputs_are_checked_and_taken_once() {
    let setup = Setup::complete(4, Threat::SemiHonest);
    let ring = setup.params.ring();
    let (mut client, _) = setup.client(1);
    let short = Input::weighted(ring, &[1], 1, 0).unwrap();
    assert_eq!(
        client.provide_input(&short),
        Err(ClientError::Input(InputError::Length {
            given: 1,
            expected: 6
        }))
    );
    is_wiped(&mut client, &[]);
    let (mut client, _) = setup.client(1);
    let other = Ring::bounded(4, 9, 12).unwrap();
    let foreign = Input::weighted(other, &[0; 6], 1, 0).unwrap();
    assert_eq!(
        client.provide_input(&foreign),
        Err(ClientError::Input(InputError::Kind))
    );
    let (mut client, _) = setup.client(1);
    assert_eq!(client.provide_input(&setup.input(1)), Ok(Reply::Await));
    assert_eq!(
        client.provide_input(&setup.input(1)),
        Err(ClientError::InputNotExpected)
    );
    assert_eq!(
        client.provide_input(&setup.input(1)),
        Err(ClientError::Over)
    );
    // After it was masked.
    let (_, mut clients, _) = setup.until_survivors();
    assert_eq!(
        clients[0].provide_input(&setup.input(0)),
        Err(ClientError::InputNotExpected)
    );
    let mut client = setup.client(2).0;
    client.abort();
    is_wiped(&mut client, &[]);
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

/// A sum from which one mask was not taken, and a single masked input, look uniform: chi-square
/// over bytes, 255 degrees of freedom, of which 400 is beyond 6 deviations.
#[test]
fn what_the_server_sees_is_uniform() {
    let cohort = Cohort::new(3, 0.0, 0.0).unwrap();
    let ring = Ring::modular(3, 1, 32).unwrap();
    let length = 40_000;
    let params = Params::new(
        cohort,
        Threat::SemiHonest,
        Topology::Complete,
        Suite::Aes128,
        ring,
        length,
    )
    .unwrap();
    let mut setup = Setup::complete(3, Threat::SemiHonest);
    setup.params = Arc::new(params);
    let (_, mut clients, forwarded) = setup.until_forwarded();
    let mut sum = vec![0u32; length];
    for (place, (client, message)) in clients.iter_mut().zip(&forwarded).enumerate() {
        let input = Input::modular(ring, &vec![7; length], 1, 0).unwrap();
        client.provide_input(&input).unwrap();
        let message = sent(client.handle(message));
        let body = setup.read(Kind::MaskedInput, &message, place as u32);
        let body = body.all(ring.packed_bytes(length + 3)).unwrap();
        for (sum, word) in sum.iter_mut().zip(body.as_chunks().0) {
            *sum = sum.wrapping_add(u32::from_le_bytes(*word));
        }
        // After one input, after two, and of all three with the self masks still in it.
        let mut counts = [0f64; 256];
        for byte in sum.iter().flat_map(|word| word.to_le_bytes()) {
            counts[usize::from(byte)] += 1.0;
        }
        let expected = 4.0 * length as f64 / 256.0;
        let chi: f64 = counts
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        assert!(chi < 400.0, "{chi}");
    }
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
