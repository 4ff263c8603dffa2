//! The bytes: damage is refused, forged damage does no harm, and the wire does not change by
//! accident.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{Setup, sent};
use crate::{Client, OneThread, Reply, Server, Suite, Threat, Topology};

/// Who takes a message, as it was before.
#[derive(Clone)]
enum Taker {
    Client(Client),
    Server(Server, u32),
}

impl Taker {
    /// What it answers: nothing in the case of a server; none if it refuses.
    fn take(mut self, message: &[u8]) -> Option<Vec<u8>> {
        match &mut self {
            Self::Client(client) => match client.handle(message) {
                Ok(Reply::Send(answer)) => Some(answer),
                Ok(_) => Some(Vec::new()),
                Err(_) => {
                    assert!(client.is_over());
                    None
                }
            },
            Self::Server(server, from) => match server.receive(*from, message) {
                Ok(()) => Some(Vec::new()),
                Err(_) => {
                    // A refused message leaves no trace: the client may answer again.
                    assert!(server.awaited().any(|id| id == *from) || server.stage().is_none());
                    None
                }
            },
        }
    }
}

/// A message: its name, its bytes and who takes it.
type Recorded = (String, Vec<u8>, Taker);

/// A session in which client 1's input does not arrive (under the active threat, all arrive), with
/// every message and who takes it. Returns the final sum, too.
fn recorded(setup: &Setup) -> (Vec<Recorded>, Vec<i64>) {
    let active = setup.params.threat() == Threat::Active;
    let mut server = setup.server();
    let mut log = Vec::new();
    let (mut clients, adverts) = setup.clients();
    for (id, message) in (0..).zip(adverts) {
        clients[id as usize]
            .provide_input(&setup.input(id))
            .unwrap();
        log.push((
            "advertise keys".to_owned(),
            message.clone(),
            Taker::Server(server.clone(), id),
        ));
        server.receive(id, &message).unwrap();
    }
    let names = if active {
        [
            ("roster", "share keys"),
            ("forwarded shares", "masked input"),
            ("survivors", "signed survivors"),
            ("unmask", "unmasking shares"),
        ]
        .to_vec()
    } else {
        [
            ("roster", "share keys"),
            ("forwarded shares", "masked input"),
            ("survivors", "unmasking shares"),
        ]
        .to_vec()
    };
    for (down, up) in names {
        for outgoing in server.close().unwrap() {
            for id in outgoing.to {
                let client = &mut clients[id as usize];
                let message = outgoing.message.clone();
                log.push((
                    down.to_owned(),
                    message.clone(),
                    Taker::Client(client.clone()),
                ));
                let answer = sent(client.handle(&message));
                if id != 1 || active || up == "share keys" {
                    let taker = Taker::Server(server.clone(), id);
                    log.push((up.to_owned(), answer.clone(), taker));
                    server.receive(id, &answer).unwrap();
                }
            }
        }
    }
    let sum = server.finish(&OneThread).unwrap().integers().collect();
    (log, sum)
}

fn setups() -> [Setup; 3] {
    [
        Setup::new(
            3,
            1,
            Threat::SemiMalicious,
            Topology::Complete,
            Suite::Aes128,
        ),
        Setup::new(
            3,
            1,
            Threat::SemiHonest,
            Topology::Complete,
            Suite::ChaCha20,
        ),
        Setup::new(3, 0, Threat::Active, Topology::Complete, Suite::Aes128),
    ]
}

/// Every truncation, every extension by a byte and every flip of a bit of every message of three
/// sessions is refused.
#[test]
fn damaged_messages_are_refused() {
    for setup in setups() {
        let (log, _) = recorded(&setup);
        let mut kinds = BTreeMap::new();
        for (name, message, taker) in log {
            *kinds.entry(name.clone()).or_insert(0) += 1;
            assert!(taker.clone().take(&message).is_some());
            for length in 0..message.len() {
                assert!(
                    taker.clone().take(&message[..length]).is_none(),
                    "{name} to {length}"
                );
            }
            for byte in [0, 1, 0xff] {
                let longer = [&message[..], &[byte]].concat();
                assert!(taker.clone().take(&longer).is_none());
            }
            let mut flipped = message.clone();
            for bit in 0..8 * message.len() {
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(taker.clone().take(&flipped).is_none(), "{name} bit {bit}");
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert_eq!(
            kinds.len(),
            if setup.params.threat() == Threat::Active {
                9
            } else {
                7
            }
        );
    }
}

/// The checksum keeps nobody from forging. Every bit of every body flipped, with a fresh checksum:
/// nobody panics; a client does not answer with shares of another secret than in the honest run
/// unless the set of survivors was changed, and packets and signatures do not open at all.
#[test]
fn forged_messages_do_no_harm() {
    for setup in setups() {
        let (log, _) = recorded(&setup);
        for (name, message, taker) in log {
            let honest = taker.clone().take(&message).unwrap();
            let end = message.len() - 16;
            let mut forged = message.clone();
            for bit in 8 * 52..8 * end {
                forged[bit / 8] ^= 1 << (bit % 8);
                let digest: [u8; 32] = Sha256::digest(&forged[..end]).into();
                forged[end..].copy_from_slice(&digest[..16]);
                let answer = taker.clone().take(&forged);
                match name.as_str() {
                    // Nothing but the very packets, signatures and sets is accepted.
                    "forwarded shares" | "unmask" | "signed survivors" => {
                        assert!(answer.is_none(), "{name} bit {bit}");
                    }
                    // A client that accepts another roster binds everything to it.
                    "roster" => assert_ne!(answer.as_ref(), Some(&honest)),
                    "survivors" => assert!(answer.is_none_or(|answer| answer != honest)),
                    _ => {}
                }
                forged[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

/// SHA-256 of all messages of a session, in order; these change only with the version of the
/// protocol.
#[test]
fn transcripts_are_frozen() {
    let mut found = Vec::new();
    for setup in setups() {
        let (log, sum) = recorded(&setup);
        let mut hash = Sha256::new();
        for (_, message, _) in &log {
            hash.update(message);
        }
        let survivors = (0..3).filter(|id| *id != 1 || setup.params.threat() == Threat::Active);
        assert_eq!(sum, setup.plain_sum(survivors));
        found.push(hex(&hash.finalize()));
    }
    assert_eq!(found, FROZEN);
}

/// Of [`setups`].
const FROZEN: [&str; 3] = [
    "6d657f6249ecec792f6d26155b9090cb92448c82cb1e97d65bb5d3d2a996eae7",
    "af9f59effb93e79e3841997bb8dad87a5247f78f0601bdb01f08bd55f6edcf1b",
    "c69dc643750f481a9fa4299481182e33c6ff686fa4f6fdd2bb2e4b716c8aea40",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The test vectors: each message of the sessions of [`setups`], `good`, and damaged ones, `bad_…`,
/// each with who takes it. `vectors/sessions.json` is what this writes; another implementation
/// can play the sessions from the seeds that `WIRE.md` describes.
#[test]
fn vectors_are_current() {
    let mut sessions = Vec::new();
    for (setup, name) in setups()
        .iter()
        .zip(["semi-malicious", "chacha20", "active"])
    {
        let (log, sum) = recorded(setup);
        let mut messages = Vec::new();
        for (kind, message, taker) in log {
            let to = match &taker {
                Taker::Client(_) => "client",
                Taker::Server(..) => "server",
            };
            let mut bad = message.clone();
            // The middle of the body.
            let middle = 52 + (message.len() - 68) / 2;
            bad[middle] ^= 0x10;
            assert!(taker.clone().take(&bad).is_none());
            messages.push(serde_json::json!({
                "kind": kind,
                "to": to,
                "good": hex(&message),
                "bad_checksum_of_byte": middle,
                "bad_truncated_to": message.len() - 1,
            }));
        }
        sessions.push(serde_json::json!({
            "name": name,
            "session": hex(setup.server().session().as_bytes()),
            "messages": messages,
            "sum": sum,
        }));
    }
    let written = serde_json::to_string_pretty(&sessions).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/sessions.json");
    if std::env::var_os("FLEDGLING_WRITE_VECTORS").is_some() {
        std::fs::write(path, &written).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == written,
        "the wire has changed"
    );
}

proptest! {
    /// Any body at all, well sealed, to every taker of a session: refused or taken, never a panic; a
    /// body of random bytes is taken only where any bytes are a vector or a set.
    #[test]
    fn no_body_makes_anybody_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        count in 0u8..5,
        counted in any::<bool>(),
    ) {
        let setup = Setup::new(3, 1, Threat::SemiMalicious, Topology::Complete, Suite::Aes128);
        let (log, _) = recorded(&setup);
        let mut body = body;
        if counted && body.len() >= 4 {
            body[..4].copy_from_slice(&[count, 0, 0, 0]);
        }
        for (name, message, taker) in log {
            let mut forged = message[..52].to_vec();
            forged[44..52].copy_from_slice(&(body.len() as u64).to_le_bytes());
            forged.extend(&body);
            let digest: [u8; 32] = Sha256::digest(&forged).into();
            forged.extend(&digest[..16]);
            let taken = taker.take(&forged).is_some();
            prop_assert!(!taken || name == "masked input" || name == "survivors");
        }
    }
}
