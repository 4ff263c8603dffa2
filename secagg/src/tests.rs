//! Whole sessions.

mod adversarial;
mod dropout;
mod ideal;
mod state;
mod wire;

use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    Client, Cohort, Context, Directory, Identity, Input, Params, Reply, Ring, Server, Suite,
    Threat, Topology,
};

/// What a session is made from.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) params: Arc<Params>,
    pub(crate) context: Context,
    pub(crate) directory: Option<Arc<Directory>>,
    /// Changes every secret.
    pub(crate) seed: u8,
}

/// Coordinates of an input.
const LENGTH: usize = 6;

impl Setup {
    pub(crate) fn new(
        clients: u32,
        dropouts: u32,
        threat: Threat,
        topology: Topology,
        suite: Suite,
    ) -> Self {
        let dropout = f64::from(dropouts) / f64::from(clients);
        let cohort = Cohort::new(clients, 0.0, dropout).unwrap();
        // 21 and 35 bits: words of both widths.
        let value_bits = if suite == Suite::Aes128 { 12 } else { 26 };
        let ring = Ring::bounded(clients, u64::from(clients), value_bits).unwrap();
        let params = Params::new(cohort, threat, topology, suite, ring, LENGTH).unwrap();
        let keys: Vec<[u8; 32]> = (0..clients)
            .map(|id| Identity::public(&secret(id)))
            .collect();
        Self {
            params: Arc::new(params),
            context: Context {
                task: [1; 32],
                round: 3,
                model: [2; 32],
            },
            directory: (threat == Threat::Active).then(|| Arc::new(Directory::new(&keys).unwrap())),
            seed: 0,
        }
    }

    pub(crate) fn complete(clients: u32, threat: Threat) -> Self {
        Self::new(clients, 0, threat, Topology::Complete, Suite::Aes128)
    }

    pub(crate) fn identity(&self, id: u32) -> Option<Identity> {
        let directory = self.directory.as_ref()?;
        Some(Identity::new(&secret(id), Arc::clone(directory)))
    }

    pub(crate) fn server(&self) -> Server {
        Server::new(
            Arc::clone(&self.params),
            &self.context,
            self.directory.clone(),
        )
        .unwrap()
    }

    pub(crate) fn client(&self, id: u32) -> (Client, Vec<u8>) {
        let mut rng = ChaCha20Rng::from_seed([id as u8 + 1 + 16 * self.seed; 32]);
        let params = Arc::clone(&self.params);
        Client::start(params, &self.context, id, self.identity(id), &mut rng).unwrap()
    }

    pub(crate) fn clients(&self) -> (Vec<Client>, Vec<Vec<u8>>) {
        (0..self.params.clients()).map(|id| self.client(id)).unzip()
    }

    /// Client `id`'s values, times its weight.
    pub(crate) fn values(&self, id: u32) -> Vec<i64> {
        let weight = self.weight(id).cast_signed();
        (0..LENGTH as i64)
            .map(|place| weight * ((i64::from(id) + 3) * (place + 1) * 37 % 4001 - 2000))
            .collect()
    }

    pub(crate) fn weight(&self, id: u32) -> u64 {
        u64::from(id) + 1
    }

    pub(crate) fn input(&self, id: u32) -> Input {
        let ring = self.params.ring();
        Input::weighted(ring, &self.values(id), self.weight(id), u64::from(id)).unwrap()
    }

    /// The sum of some clients' values.
    pub(crate) fn plain_sum(&self, ids: impl Iterator<Item = u32>) -> Vec<i64> {
        ids.fold(vec![0; LENGTH], |mut sum, id| {
            for (sum, value) in sum.iter_mut().zip(self.values(id)) {
                *sum += value;
            }
            sum
        })
    }

    /// Advertises, shares keys and gives what every client does at once; then all are to be masked.
    pub(crate) fn until_forwarded(&self) -> (Server, Vec<Client>, Vec<Vec<u8>>) {
        let mut server = self.server();
        let (mut clients, adverts) = self.clients();
        for (id, advert) in (0..).zip(&adverts) {
            server.receive(id, advert).unwrap();
        }
        let roster = server.close().unwrap().remove(0).message;
        for (id, client) in (0..).zip(&mut clients) {
            server.receive(id, &sent(client.handle(&roster))).unwrap();
        }
        let forwarded = server.close().unwrap();
        let forwarded = forwarded
            .into_iter()
            .map(|outgoing| outgoing.message)
            .collect();
        (server, clients, forwarded)
    }

    /// All have masked; the survivors' message is ready.
    pub(crate) fn until_survivors(&self) -> (Server, Vec<Client>, Vec<u8>) {
        let (mut server, mut clients, forwarded) = self.until_forwarded();
        for ((id, client), message) in (0..).zip(&mut clients).zip(&forwarded) {
            client.provide_input(&self.input(id)).unwrap();
            server.receive(id, &sent(client.handle(message))).unwrap();
        }
        let survivors = server.close().unwrap().remove(0).message;
        (server, clients, survivors)
    }
}

/// The secret signing key of a client.
fn secret(id: u32) -> [u8; 32] {
    [id as u8 + 100; 32]
}

/// What a client sends, where it must send something.
#[track_caller]
pub(crate) fn sent(reply: Result<Reply, crate::ClientError>) -> Vec<u8> {
    match reply {
        Ok(Reply::Send(message)) => message,
        other => panic!("expected a message, found {other:?}"),
    }
}
