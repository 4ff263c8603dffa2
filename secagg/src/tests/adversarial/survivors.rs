//! Lies about who survived.

use super::*;

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
