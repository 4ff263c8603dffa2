//! Every pattern of who drops out when, against plain sums.
//!
//! The stages are walked as a tree: sessions that agree so far share their work (in tests, clients
//! and servers can be copied), so that all 15,625 patterns of six clients take seconds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Setup, sent};
use crate::graph::Graph;
use crate::session::digest;
use crate::{Client, OneThread, Server, SessionError, Suite, Threat, Topology};

/// Clients by their ids; none where one dropped out.
type Clients = Vec<Option<Client>>;

/// All subsets of a set.
fn subsets(set: &BTreeSet<u32>) -> impl Iterator<Item = BTreeSet<u32>> + '_ {
    (0u32..1 << set.len()).map(|bits| {
        set.iter()
            .enumerate()
            .filter(|(place, _)| bits >> place & 1 == 1)
            .map(|(_, id)| *id)
            .collect()
    })
}

/// What must come out, from the sets of those who answered in each stage.
struct Oracle<'a> {
    setup: &'a Setup,
    graph: Graph,
    shared: BTreeSet<u32>,
    survivors: BTreeSet<u32>,
}

impl Oracle<'_> {
    fn holders(&self, owner: u32, of: &BTreeSet<u32>) -> usize {
        let mut holders = self.graph.neighbours(owner);
        if self.graph.holds_own() {
            holders.push(owner);
        }
        holders.iter().filter(|id| of.contains(id)).count()
    }

    fn check(&self, server: Server, revealed: &BTreeSet<u32>) -> bool {
        let setup = self.setup;
        let least = setup.params.threshold() as usize;
        let result = server.finish(&OneThread);
        if revealed.len() < least {
            let stage = "unmask";
            let present = revealed.len();
            assert_eq!(
                result,
                Err(SessionError::TooFew {
                    stage,
                    present,
                    least
                })
            );
            return false;
        }
        let owner = self.shared.iter().copied().find(|&owner| {
            let needed = self.survivors.contains(&owner)
                || self
                    .graph
                    .neighbours(owner)
                    .iter()
                    .any(|id| self.survivors.contains(id));
            needed && self.holders(owner, revealed) < least
        });
        if let Some(owner) = owner {
            let present = self.holders(owner, revealed);
            assert_eq!(
                result,
                Err(SessionError::TooFewShares {
                    owner,
                    present,
                    least
                })
            );
            return false;
        }
        let aggregate = result.unwrap();
        let survivors: Vec<u32> = self.survivors.iter().copied().collect();
        assert_eq!(aggregate.survivors(), survivors);
        let sum = setup.plain_sum(survivors.iter().copied());
        assert_eq!(aggregate.integers().collect::<Vec<_>>(), sum);
        let weight: u64 = survivors.iter().map(|&id| setup.weight(id)).sum();
        assert_eq!(aggregate.weight(), weight);
        assert_eq!(
            aggregate.clipped(),
            survivors.iter().map(|&id| u64::from(id)).sum::<u64>()
        );
        assert!(aggregate.bad_shares().is_empty());
        true
    }
}

/// Walks all patterns; returns how many there were and how many gave a sum.
fn exhaust(setup: &Setup) -> (u32, u32) {
    let n = setup.params.clients();
    let least = setup.params.min_survivors().max(setup.params.threshold());
    let everyone: BTreeSet<u32> = (0..n).collect();
    let (clients, adverts) = setup.clients();
    let clients: Clients = clients
        .into_iter()
        .zip(0..)
        .map(|(mut client, id)| {
            client.provide_input(&setup.input(id)).unwrap();
            Some(client)
        })
        .collect();
    let (mut patterns, mut sums) = (0, 0);
    // How many patterns there are below a set of those who are left.
    let stages = if setup.params.threat() == Threat::Active {
        4u32
    } else {
        3
    };
    for present in subsets(&everyone) {
        let mut server = setup.server();
        for &id in &present {
            server.receive(id, &adverts[id as usize]).unwrap();
        }
        if !closes(&mut server, present.len(), least, "advertise keys") {
            patterns += (stages + 1).pow(present.len() as u32);
            continue;
        }
        let roster = server.close().unwrap().remove(0).message;
        let mut clients = clients.clone();
        let dealt = answers(&mut clients, &present, |_| roster.clone());
        let graph = Graph::new(
            &setup.params,
            digest(b"graph", &[&digest(b"roster", &[&roster])]),
        );
        let base = Oracle {
            setup,
            graph,
            shared: BTreeSet::new(),
            survivors: BTreeSet::new(),
        };
        for answered in subsets(&present) {
            let mut server = server.clone();
            for &id in &answered {
                server.receive(id, &dealt[id as usize]).unwrap();
            }
            // Who has too few holders counts as dropped out, until nobody has.
            let mut shared = answered.clone();
            loop {
                let size = shared.len();
                let now = shared.clone();
                shared.retain(|&id| base.holders(id, &now) >= setup.params.threshold() as usize);
                if shared.len() == size {
                    break;
                }
            }
            let below = |left: &BTreeSet<u32>| stages.pow(left.len() as u32);
            if shared.len() < least as usize {
                assert_eq!(
                    server.close(),
                    Err(SessionError::TooFew {
                        stage: "share keys",
                        present: shared.len(),
                        least: least as usize
                    })
                );
                patterns += below(&answered);
                continue;
            }
            let forwarded = server.close().unwrap();
            assert!(
                forwarded
                    .iter()
                    .map(|outgoing| outgoing.to[0])
                    .eq(shared.iter().copied())
            );
            // Patterns in which pruned clients go on are the same as those in which they do not.
            patterns += below(&answered) - below(&shared);
            let mut clients = clients.clone();
            let masked = answers(&mut clients, &shared, |id| {
                forwarded
                    .iter()
                    .find(|outgoing| outgoing.to == [id])
                    .unwrap()
                    .message
                    .clone()
            });
            for survivors in subsets(&shared) {
                let mut server = server.clone();
                for &id in &survivors {
                    server.receive(id, &masked[id as usize]).unwrap();
                }
                if survivors.len() < least as usize {
                    assert!(!closes(&mut server, survivors.len(), least, "masked input"));
                    patterns += (stages - 1).pow(survivors.len() as u32);
                    continue;
                }
                let message = server.close().unwrap().remove(0).message;
                let oracle = Oracle {
                    setup,
                    graph: base.graph.clone(),
                    shared: shared.clone(),
                    survivors: survivors.clone(),
                };
                let mut clients = clients.clone();
                let answer = answers(&mut clients, &survivors, |_| message.clone());
                let (more, good) = if stages == 4 {
                    signed(&oracle, &server, &clients, &answer)
                } else {
                    unmasked(&oracle, &server, &answer, &survivors)
                };
                patterns += more;
                sums += good;
            }
        }
    }
    (patterns, sums)
}

/// The consistency check of the active threat.
fn signed(
    oracle: &Oracle<'_>,
    server: &Server,
    clients: &Clients,
    signatures: &[Vec<u8>],
) -> (u32, u32) {
    let (mut patterns, mut sums) = (0, 0);
    let quorum = oracle.setup.params.quorum();
    for signers in subsets(&oracle.survivors) {
        let mut server = server.clone();
        for &id in &signers {
            server.receive(id, &signatures[id as usize]).unwrap();
        }
        if signers.len() < quorum as usize {
            assert!(!closes(
                &mut server,
                signers.len(),
                quorum,
                "consistency check"
            ));
            patterns += 1 << signers.len();
            continue;
        }
        let message = server.close().unwrap().remove(0).message;
        let mut clients = clients.clone();
        let shares = answers(&mut clients, &signers, |_| message.clone());
        let (more, good) = unmasked(oracle, &server, &shares, &signers);
        patterns += more;
        sums += good;
    }
    (patterns, sums)
}

fn unmasked(
    oracle: &Oracle<'_>,
    server: &Server,
    shares: &[Vec<u8>],
    from: &BTreeSet<u32>,
) -> (u32, u32) {
    let (mut patterns, mut sums) = (0, 0);
    for revealed in subsets(from) {
        let mut server = server.clone();
        for &id in &revealed {
            server.receive(id, &shares[id as usize]).unwrap();
        }
        patterns += 1;
        sums += u32::from(oracle.check(server, &revealed));
    }
    (patterns, sums)
}

/// Whether a stage of `present` answers can be closed; that it fails as it should if not.
fn closes(server: &mut Server, present: usize, least: u32, stage: &'static str) -> bool {
    if present < least as usize {
        let least = least as usize;
        assert_eq!(
            server.close(),
            Err(SessionError::TooFew {
                stage,
                present,
                least
            })
        );
        assert_eq!(server.stage(), None);
        return false;
    }
    true
}

/// What some clients answer, by their ids.
fn answers(
    clients: &mut Clients,
    who: &BTreeSet<u32>,
    message: impl Fn(u32) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    (0..)
        .zip(clients)
        .map(|(id, client)| match client {
            Some(client) if who.contains(&id) => sent(client.handle(&message(id))),
            _ => Vec::new(),
        })
        .collect()
}

/// Patterns: a client drops out before one of the stages, or never.
#[test]
fn every_pattern_ends_in_the_exact_sum_or_its_named_failure() {
    use Threat::{Active, SemiHonest, SemiMalicious};
    use Topology::{Complete, Harary};
    for (clients, dropouts, threat, topology, suite, patterns) in [
        (2, 0, SemiHonest, Complete, Suite::Aes128, 25),
        (3, 0, SemiMalicious, Complete, Suite::Aes128, 125),
        (3, 0, Active, Complete, Suite::ChaCha20, 216),
        (4, 1, SemiHonest, Complete, Suite::ChaCha20, 625),
        (5, 1, Active, Complete, Suite::Aes128, 7_776),
        (6, 2, SemiMalicious, Complete, Suite::Aes128, 15_625),
        (6, 2, SemiHonest, Harary, Suite::Aes128, 15_625),
    ] {
        let setup = Setup::new(clients, dropouts, threat, topology, suite);
        let (walked, sums) = exhaust(&setup);
        assert_eq!(walked, patterns, "{clients} {threat:?} {topology:?}");
        assert!(sums > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Random patterns in larger graphs, with the server's answer checked against plain sums.
    #[test]
    fn random_patterns_end_in_the_exact_sum_or_a_named_failure(
        seed in 0u8..8,
        harary in any::<bool>(),
        stages in prop::collection::vec(0u8..40, 40),
    ) {
        let topology = if harary { Topology::Harary } else { Topology::Complete };
        let mut setup = Setup::new(40, 12, Threat::SemiHonest, topology, Suite::Aes128);
        setup.seed = seed;
        let stays = |id: u32, stage: u8| stages[id as usize] >= stage;
        let mut server = setup.server();
        let (clients, adverts) = setup.clients();
        let mut clients: Vec<Client> = clients;
        for (id, advert) in (0..).zip(&adverts).filter(|(id, _)| stays(*id, 1)) {
            server.receive(id, advert).unwrap();
        }
        for stage in 2..=4 {
            let Ok(outgoing) = server.close() else {
                return Ok(());
            };
            for outgoing in outgoing {
                for id in outgoing.to {
                    let client = &mut clients[id as usize];
                    if stage == 2 {
                        client.provide_input(&setup.input(id)).unwrap();
                    }
                    let message = sent(client.handle(&outgoing.message));
                    if stays(id, stage) {
                        server.receive(id, &message).unwrap();
                    }
                }
            }
        }
        let survivors: Vec<u32> = (0..40).filter(|&id| stays(id, 3)).collect();
        let answered = (0..40).filter(|&id| stays(id, 4)).count();
        match server.finish(&OneThread) {
            Ok(aggregate) => {
                prop_assert_eq!(aggregate.survivors(), &survivors[..]);
                let sum = setup.plain_sum(survivors.iter().copied());
                prop_assert_eq!(aggregate.integers().collect::<Vec<_>>(), sum);
            }
            Err(SessionError::TooFewShares { present, least, .. }) => {
                prop_assert!(harary && present < least);
            }
            Err(SessionError::TooFew { present, .. }) => prop_assert_eq!(present, answered),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
