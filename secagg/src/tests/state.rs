//! Sessions that are put to rest and continued, after every single step.

use std::collections::BTreeSet;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use super::Setup;
use crate::error::DecodeError;
use crate::{
    Aggregate, Client, ClientError, OneThread, Reply, Server, SessionError, StateError, Suite,
    Threat, Ticket, Topology,
};

const KEY: [u8; 32] = [77; 32];

fn import_client(
    setup: &Setup,
    id: u32,
    key: &[u8; 32],
    bytes: &[u8],
) -> Result<Client, StateError> {
    Client::import(
        setup.params.clone(),
        &setup.context,
        id,
        setup.identity(id),
        key,
        bytes,
        |_| true,
    )
}

fn import_server(setup: &Setup, key: &[u8; 32], bytes: &[u8]) -> Result<Server, StateError> {
    Server::import(
        setup.params.clone(),
        &setup.context,
        setup.directory.clone(),
        key,
        bytes,
    )
}

/// What rests between the steps of a session.
struct World<'a> {
    setup: &'a Setup,
    /// Whether everybody is put to rest and continued after every step.
    resting: bool,
    rng: ChaCha20Rng,
    /// Every state that was exported.
    states: Vec<(Option<u32>, Vec<u8>)>,
    tickets: BTreeSet<Ticket>,
}

impl World<'_> {
    fn client(&mut self, id: u32, client: Client) -> Client {
        if !self.resting {
            return client;
        }
        let before = format!("{client:?}");
        let bytes = client.export(&KEY, &mut self.rng).unwrap();
        let (setup, mut seen) = (self.setup, None);
        let client = Client::import(
            setup.params.clone(),
            &setup.context,
            id,
            setup.identity(id),
            &KEY,
            &bytes,
            |ticket| {
                seen = Some(*ticket);
                true
            },
        )
        .unwrap();
        assert!(self.tickets.insert(seen.unwrap()), "every ticket is new");
        assert_eq!(format!("{client:?}"), before);
        self.states.push((Some(id), bytes));
        client
    }

    fn server(&mut self, server: Server) -> Server {
        if !self.resting {
            return server;
        }
        let bytes = server.export(&KEY, &mut self.rng).unwrap();
        let again = import_server(self.setup, &KEY, &bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{server:?}"));
        self.states.push((None, bytes));
        again
    }
}

/// A session in which client 1 leaves after sharing; everything that was sent, and the sum.
fn play(world: &mut World<'_>) -> (Vec<Vec<u8>>, Result<Aggregate, SessionError>) {
    let setup = world.setup;
    let mut sent = Vec::new();
    let mut server = world.server(setup.server());
    let mut clients: Vec<Option<Client>> = Vec::new();
    for id in 0..setup.params.clients() {
        let (client, message) = setup.client(id);
        let mut client = world.client(id, client);
        // Some give their input early, some late.
        if id % 2 == 0 {
            client.provide_input(&setup.input(id)).unwrap();
            client = world.client(id, client);
        }
        server.receive(id, &message).unwrap();
        server = world.server(server);
        clients.push(Some(client));
        sent.push(message);
    }
    let mut stage = 0;
    while server.stage() != Some(crate::Stage::Unmask) {
        let outgoing = server.close().unwrap();
        server = world.server(server);
        for outgoing in outgoing {
            for id in outgoing.to {
                let mut client = clients[id as usize].take().unwrap();
                let mut reply = client.handle(&outgoing.message).unwrap();
                if reply == Reply::AwaitInput {
                    client = world.client(id, client);
                    reply = client.provide_input(&setup.input(id)).unwrap();
                }
                let Reply::Send(message) = reply else {
                    panic!("a client has something to say");
                };
                if client.is_over() {
                    assert_eq!(
                        client.export(&KEY, &mut world.rng).unwrap_err(),
                        StateError::Over
                    );
                } else {
                    clients[id as usize] = Some(world.client(id, client));
                }
                if stage == 0 || id != 1 {
                    server.receive(id, &message).unwrap();
                    server = world.server(server);
                }
                sent.push(message);
            }
            sent.push(outgoing.message);
        }
        stage += 1;
    }
    (sent, server.finish(&OneThread))
}

fn setups() -> [Setup; 4] {
    [
        Setup::new(4, 1, Threat::SemiHonest, Topology::Complete, Suite::Aes128),
        Setup::new(
            4,
            1,
            Threat::SemiMalicious,
            Topology::Complete,
            Suite::ChaCha20,
        ),
        Setup::new(5, 1, Threat::Active, Topology::Complete, Suite::Aes128),
        Setup::new(40, 8, Threat::SemiHonest, Topology::Harary, Suite::ChaCha20),
    ]
}

fn world(setup: &Setup, resting: bool) -> World<'_> {
    World {
        setup,
        resting,
        rng: ChaCha20Rng::from_seed([5; 32]),
        states: Vec::new(),
        tickets: BTreeSet::new(),
    }
}

#[test]
fn a_session_put_to_rest_after_every_step_is_the_same_session() {
    for setup in setups() {
        let (sent, sum) = play(&mut world(&setup, false));
        let mut rested = world(&setup, true);
        let (again, same) = play(&mut rested);
        assert!(sent == again);
        assert_eq!(sum, same);
        let survivors = (0..setup.params.clients()).filter(|id| *id != 1);
        assert!(same.unwrap().integers().eq(setup.plain_sum(survivors)));
        assert!(rested.states.len() > 30);
    }
}

/// Of small sessions: every state, cut at every byte and changed in every bit.
#[test]
fn damaged_states_are_refused() {
    for setup in setups().into_iter().take(3) {
        let mut rested = world(&setup, true);
        play(&mut rested).1.unwrap();
        let mut kinds = BTreeSet::new();
        for (party, bytes) in &rested.states {
            // One of each length stands for its kind.
            if !kinds.insert((party.is_some(), bytes.len())) {
                continue;
            }
            let refused = |bytes: &[u8]| match party {
                Some(id) => import_client(&setup, *id, &KEY, bytes).is_err(),
                None => import_server(&setup, &KEY, bytes).is_err(),
            };
            assert!(!refused(bytes));
            for cut in 0..bytes.len() {
                assert!(refused(&bytes[..cut]), "cut at {cut}");
            }
            assert!(refused(&[&bytes[..], &[0]].concat()));
            let mut changed = bytes.clone();
            for bit in 0..8 * bytes.len() {
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(refused(&changed), "bit {bit}");
                changed[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert!(kinds.len() >= 7, "{}", kinds.len());
    }
}

/// What is inside is read as strictly: every body cut short or made longer is refused, and no changed
/// byte makes a reader panic.
#[test]
fn bodies_are_read_strictly() {
    for setup in setups().into_iter().take(3).skip(1) {
        let mut rested = world(&setup, true);
        play(&mut rested).1.unwrap();
        let mut kinds = BTreeSet::new();
        for (party, bytes) in &rested.states {
            if !kinds.insert((party.is_some(), bytes.len())) {
                continue;
            }
            let session = setup.server().session();
            let (role, sender) = match party {
                Some(id) => (crate::state::Role::Client, *id),
                None => (crate::state::Role::Server, u32::MAX),
            };
            let (_, body) = crate::state::open(role, &session, sender, &KEY, bytes).unwrap();
            let read = |body: &[u8]| -> Result<(), DecodeError> {
                let params = setup.params.clone();
                match party {
                    Some(id) => {
                        Client::from_body(params, session, *id, setup.identity(*id), body).map(drop)
                    }
                    None => {
                        Server::from_body(params, &setup.context, setup.directory.clone(), body)
                            .unwrap()
                            .map(drop)
                    }
                }
            };
            read(&body).unwrap();
            for cut in 0..body.len() {
                assert!(read(&body[..cut]).is_err(), "cut at {cut}");
            }
            assert!(read(&[&body[..], &[0]].concat()).is_err());
            let mut changed = body.to_vec();
            for at in 0..body.len() {
                changed[at] = !body[at];
                // It may be another state that can be.
                let _ = read(&changed);
                changed[at] = body[at];
            }
        }
    }
}

#[test]
fn states_are_bound_to_their_party_session_and_key() {
    let setup = Setup::complete(4, Threat::SemiMalicious);
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let client = setup.client(2).0.export(&KEY, &mut rng).unwrap();
    let server = setup.server().export(&KEY, &mut rng).unwrap();
    assert_eq!(
        import_client(&setup, 3, &KEY, &client).unwrap_err(),
        StateError::Party {
            given: 2,
            expected: 3
        }
    );
    let role = |given, expected| StateError::Role { given, expected };
    assert_eq!(
        import_client(&setup, 2, &KEY, &server).unwrap_err(),
        role(2, 1)
    );
    assert_eq!(
        import_server(&setup, &KEY, &client).unwrap_err(),
        role(1, 2)
    );
    for key in [[0; 32], [78; 32]] {
        assert_eq!(
            import_client(&setup, 2, &key, &client).unwrap_err(),
            StateError::Sealed
        );
        assert_eq!(
            import_server(&setup, &key, &server).unwrap_err(),
            StateError::Sealed
        );
    }
    let mut other = setup.clone();
    other.context.model = [9; 32];
    assert_eq!(
        import_client(&other, 2, &KEY, &client).unwrap_err(),
        StateError::Session
    );
    assert_eq!(
        import_server(&other, &KEY, &server).unwrap_err(),
        StateError::Session
    );
    let mut versioned = client.clone();
    versioned[4] = 2;
    assert_eq!(
        import_client(&setup, 2, &KEY, &versioned).unwrap_err(),
        StateError::Version(2)
    );
    assert_eq!(
        import_client(&setup, 4, &KEY, &client).unwrap_err(),
        StateError::Client(ClientError::Id { id: 4, clients: 4 })
    );
    // Two exports of one state share no sealed byte beyond chance.
    let twice = setup.client(2).0.export(&KEY, &mut rng).unwrap();
    assert_eq!(twice.len(), client.len());
    let same = client[84..]
        .iter()
        .zip(&twice[84..])
        .filter(|(a, b)| a == b);
    assert!(same.count() < client.len() / 16);
}

/// A caller who strikes tickets off cannot be made to continue one state twice.
#[test]
fn a_claimed_state_is_not_continued_again() {
    let setup = Setup::complete(3, Threat::SemiMalicious);
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let bytes = setup.client(0).0.export(&KEY, &mut rng).unwrap();
    let mut struck = BTreeSet::new();
    let mut import = |bytes: &[u8]| {
        Client::import(
            setup.params.clone(),
            &setup.context,
            0,
            None,
            &KEY,
            bytes,
            |ticket| struck.insert(*ticket),
        )
    };
    // A state that does not open does not use a ticket up.
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(import(&forged).unwrap_err(), StateError::Sealed);
    let client = import(&bytes).unwrap();
    assert_eq!(import(&bytes).unwrap_err(), StateError::Claimed);
    // The next export is another one.
    let next = client.export(&KEY, &mut rng).unwrap();
    assert!(import(&next).is_ok());
    assert_eq!(
        import(&bytes).unwrap_err().to_string(),
        "this export was imported before; a client that runs twice would betray its input"
    );
}

#[test]
fn what_is_over_has_no_state() {
    let setup = Setup::complete(3, Threat::SemiMalicious);
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let (mut server, mut clients, survivors) = setup.until_survivors();
    let mut client = clients.remove(0);
    client.handle(&survivors).unwrap();
    assert_eq!(client.export(&KEY, &mut rng).unwrap_err(), StateError::Over);
    let mut client = clients.remove(0);
    client.abort();
    assert_eq!(client.export(&KEY, &mut rng).unwrap_err(), StateError::Over);
    assert!(server.export(&KEY, &mut rng).is_ok());
    server = setup.server();
    assert!(server.close().is_err());
    assert_eq!(server.export(&KEY, &mut rng).unwrap_err(), StateError::Over);
}
