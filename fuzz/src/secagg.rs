//! Secure aggregation: every message that a client and a server read, at the moment when they would
//! read it, and the states in which they rest.
//!
//! The first byte of an input chooses the moment of a small session under the active threat, in which
//! all kinds of message occur; the rest is read as a message as it is, and as the body of one whose
//! header and checksum are right.

use std::sync::{Arc, OnceLock};

use chacha20::ChaCha20Rng;
use fl_secagg::{
    Client, Cohort, Context, Directory, Identity, Input, OneThread, Params, Reply, Ring, Server,
    Stage, Suite, Threat, Topology, bench,
};
use rand_core::SeedableRng;
use sha2::{Digest as _, Sha256};

const CLIENTS: u32 = 4;
/// Bytes of a message before and behind its body.
const HEADER: usize = 52;
const CHECKSUM: usize = 16;
const KEY: [u8; 32] = [9; 32];

/// A party that waits, and the message that would come.
struct Moment {
    body: Vec<u8>,
    message: Vec<u8>,
}

struct World {
    params: Arc<Params>,
    context: Context,
    directory: Arc<Directory>,
    /// Client 0 before each message of the server.
    clients: Vec<Moment>,
    /// The server before the last message of each stage, that of client 0.
    servers: Vec<Moment>,
}

fn secret(id: u32) -> [u8; 32] {
    [id as u8 + 1; 32]
}

/// Plays the session and keeps its moments; none only if the protocol is broken, which tests of its
/// own would tell.
fn play() -> Option<World> {
    let ring = Ring::bounded(CLIENTS, 3, 8).ok()?;
    let cohort = Cohort::new(CLIENTS, 0.0, 0.25).ok()?;
    let params = Params::new(
        cohort,
        Threat::Active,
        Topology::Complete,
        Suite::Aes128,
        ring,
        5,
    )
    .ok()?;
    let params = Arc::new(params);
    let context = Context {
        task: [1; 32],
        round: 2,
        model: [3; 32],
    };
    let keys: Vec<[u8; 32]> = (0..CLIENTS)
        .map(|id| Identity::public(&secret(id)))
        .collect();
    let directory = Arc::new(Directory::new(&keys).ok()?);
    let mut server =
        Server::new(Arc::clone(&params), &context, Some(Arc::clone(&directory))).ok()?;
    let (mut kept_clients, mut kept_servers) = (Vec::new(), Vec::new());
    let mut clients = Vec::new();
    let mut answers = Vec::new();
    for id in 0..CLIENTS {
        let mut rng = ChaCha20Rng::from_seed([id as u8; 32]);
        let identity = Identity::new(&secret(id), Arc::clone(&directory));
        let (mut client, message) =
            Client::start(Arc::clone(&params), &context, id, Some(identity), &mut rng).ok()?;
        let input = Input::weighted(ring, &[i64::from(id), 1, -2, 3, 0], 1, 0).ok()?;
        client.provide_input(&input).ok()?;
        clients.push(client);
        answers.push((id, message));
    }
    loop {
        // Client 0 is the last to be heard.
        answers.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        for (id, message) in answers.drain(..) {
            if id == 0 {
                kept_servers.push(Moment {
                    body: bench::server_body(&server).ok()?,
                    message: message.clone(),
                });
            }
            server.receive(id, &message).ok()?;
        }
        if server.stage() == Some(Stage::Unmask) {
            server.finish(&OneThread).ok()?;
            break;
        }
        for outgoing in server.close().ok()? {
            for id in outgoing.to {
                let client = clients.get_mut(id as usize)?;
                if id == 0 {
                    kept_clients.push(Moment {
                        body: bench::client_body(client).ok()?,
                        message: outgoing.message.clone(),
                    });
                }
                let Reply::Send(message) = client.handle(&outgoing.message).ok()? else {
                    return None;
                };
                answers.push((id, message));
            }
        }
    }
    Some(World {
        params,
        context,
        directory,
        clients: kept_clients,
        servers: kept_servers,
    })
}

fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    WORLD.get_or_init(play).as_ref()
}

/// The header of a genuine message, with another body, its length and the checksum.
fn framed(genuine: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut message = genuine.get(..HEADER)?.to_vec();
    message[HEADER - 8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    message.extend_from_slice(body);
    let sum = Sha256::digest(&message);
    message.extend_from_slice(&sum[..CHECKSUM]);
    Some(message)
}

impl World {
    fn client(&self, body: &[u8]) -> Option<Client> {
        let identity = Identity::new(&secret(0), Arc::clone(&self.directory));
        bench::read_client(
            Arc::clone(&self.params),
            &self.context,
            0,
            Some(identity),
            body,
        )
        .ok()
    }

    fn server(&self, body: &[u8]) -> Option<Server> {
        bench::read_server(
            Arc::clone(&self.params),
            &self.context,
            Some(Arc::clone(&self.directory)),
            body,
        )
        .ok()
    }

    /// Whether client 0 takes a message at a moment.
    fn client_takes(&self, moment: &Moment, message: &[u8]) -> bool {
        let Some(mut client) = self.client(&moment.body) else {
            return false;
        };
        let taken = client.handle(message).is_ok();
        assert!(taken || client.is_over(), "an error ends a client");
        taken
    }

    /// Whether the server takes a message of client 0 at a moment; what follows is done too.
    fn server_takes(&self, moment: &Moment, message: &[u8]) -> bool {
        let Some(mut server) = self.server(&moment.body) else {
            return false;
        };
        let taken = server.receive(0, message).is_ok();
        if server.stage() == Some(Stage::Unmask) {
            drop(server.finish(&OneThread));
        } else {
            drop(server.close());
        }
        taken
    }
}

/// The chosen moment and the rest of the input.
fn chosen<'a, 'b>(moments: &'a [Moment], bytes: &'b [u8]) -> Option<(&'a Moment, &'b [u8])> {
    let (first, rest) = bytes.split_first()?;
    let moment = moments.get(usize::from(*first) % moments.len().max(1))?;
    Some((moment, rest))
}

/// What the server sends to a client.
pub fn client(bytes: &[u8]) {
    let _ = takes("secagg-client", bytes);
}

/// What a client sends to the server.
pub fn server(bytes: &[u8]) {
    let _ = takes("secagg-server", bytes);
}

/// States, sealed (they are not, but for a miracle) and opened.
pub fn state(bytes: &[u8]) {
    let _ = takes("secagg-state", bytes);
}

/// Whether an input is read to its end by its target, in one of its two readings.
///
/// # Panics
/// When a client goes on after an error, and when a state that was read is not written again as it
/// was: both are found faults.
#[must_use]
pub fn takes(target: &str, bytes: &[u8]) -> bool {
    let Some(world) = world() else {
        return false;
    };
    match target {
        "secagg-client" => chosen(&world.clients, bytes).is_some_and(|(moment, rest)| {
            let framed = framed(&moment.message, rest);
            world.client_takes(moment, rest)
                | framed.is_some_and(|message| world.client_takes(moment, &message))
        }),
        "secagg-server" => chosen(&world.servers, bytes).is_some_and(|(moment, rest)| {
            let framed = framed(&moment.message, rest);
            world.server_takes(moment, rest)
                | framed.is_some_and(|message| world.server_takes(moment, &message))
        }),
        _ => bytes.split_first().is_some_and(|(first, rest)| {
            if first % 2 == 0 {
                let identity = Identity::new(&secret(0), Arc::clone(&world.directory));
                let params = Arc::clone(&world.params);
                let context = &world.context;
                let sealed =
                    Client::import(params, context, 0, Some(identity), &KEY, rest, |_| true);
                assert!(sealed.is_err(), "a seal was forged");
                world.client(rest).is_some_and(|client| {
                    let again = bench::client_body(&client);
                    assert_eq!(again.as_deref(), Ok(rest), "one state, one body");
                    true
                })
            } else {
                world.server(rest).is_some_and(|server| {
                    let again = bench::server_body(&server);
                    assert_eq!(again.as_deref(), Ok(rest), "one state, one body");
                    true
                })
            }
        }),
    }
}

/// The first inputs of the three corpora: target, name, bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let Some(world) = world() else {
        return seeds;
    };
    let parties = [
        ("secagg-client", 0u8, "client", &world.clients),
        ("secagg-server", 1, "server", &world.servers),
    ];
    for (target, role, party, moments) in parties {
        for (index, moment) in (0u8..).zip(moments) {
            let body = moment.message.get(HEADER..moment.message.len() - CHECKSUM);
            for (form, rest) in [("whole", Some(&moment.message[..])), ("body", body)] {
                let bytes = [&[index], rest.unwrap_or_default()].concat();
                seeds.push((target, format!("{index}-{form}"), bytes));
            }
            let bytes = [&[role], &moment.body[..]].concat();
            seeds.push(("secagg-state", format!("{party}-{index}"), bytes));
        }
    }
    seeds
}
