//! Clients that send what they must not, and what a server sees of those that do not.

use super::*;

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
