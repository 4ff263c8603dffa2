//! Sessions that are really run: the library's own clients and servers, and the bytes between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chacha20::ChaCha20Rng;
use fl_core::sum::{Absorbed, Rejection};
use fl_core::{ClientId, Purpose, RingPlan, RingVector, RoundId, Seed, Stream, Weight};
use fl_secagg::{
    Aggregate, Client, ClientError, Directory, Identity, Input, Outgoing, Params, Reply, Server,
    SessionError, Threat, Workers,
};
use rand_core::{Rng as _, SeedableRng as _};

use super::stages::Leaves;
use super::{SecAggBytes, SecAggError, SecAggSeconds, SecAggStage, StageTime};
use crate::clock::Stopwatch;
use crate::executor::Job;

/// What the sessions of a round are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) seed: Seed,
    pub(crate) round: RoundId,
    /// Digest of the run.
    pub(crate) task: [u8; 32],
    /// Digest of the global model.
    pub(crate) model: [u8; 32],
}

/// The real sessions of a round.
pub(crate) struct Live {
    /// Whether their sums are the round's.
    replaces: bool,
    /// Whether a last coordinate says if the update was within the clipping norm.
    counts_clips: bool,
    round: RoundId,
    /// None where none can be.
    sessions: Vec<Option<Session>>,
    /// Session and seat of each job.
    places: Vec<Option<(usize, usize)>>,
    /// With the sessions that they are of.
    aggregates: Vec<(usize, Aggregate)>,
}

struct Session {
    params: Arc<Params>,
    clients: Vec<ClientId>,
    seats: Vec<Mutex<Seat>>,
    serving: Mutex<Serving>,
    /// What the inputs add up to, modulo `2^64`, where that is to be compared.
    plain: Option<Mutex<Vec<u64>>>,
}

struct Serving {
    /// None once it has failed or is over.
    server: Option<Server>,
    seconds: [f64; 5],
    bytes: SecAggBytes,
    /// The stage in which a client could not go on that was expected to.
    broken: Option<SecAggStage>,
}

struct Seat {
    leaves: Leaves,
    /// None when it has left.
    client: Option<Client>,
    inbox: Option<Arc<Vec<u8>>>,
    outbox: Option<Vec<u8>>,
    error: Option<ClientError>,
    seconds: [Option<f64>; 5],
    /// Weight and clipped coordinates of the input that was sent.
    sent: Option<(u64, u64)>,
}

impl Seat {
    fn spend(&mut self, stage: SecAggStage, watch: &Stopwatch) {
        *self.seconds[stage as usize].get_or_insert(0.0) += watch.seconds();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new(replaces: bool, counts_clips: bool, round: RoundId) -> Self {
        Self {
            replaces,
            counts_clips,
            round,
            sessions: Vec::new(),
            places: Vec::new(),
            aggregates: Vec::new(),
        }
    }

    /// Whether what they give is the round's sum; else it must be that of their inputs.
    pub(crate) fn replaces(&self) -> bool {
        self.replaces
    }

    /// Whether clipped updates are counted, too.
    pub(crate) fn counts_clips(&self) -> bool {
        self.counts_clips
    }

    /// Leaves the place of a session that cannot be.
    pub(crate) fn skip(&mut self) {
        self.sessions.push(None);
    }

    /// Begins a session and goes on to where inputs are awaited; the stage in which it failed,
    /// where it did though enough clients were there.
    pub(crate) fn open(
        &mut self,
        params: &Arc<Params>,
        clients: &[ClientId],
        leaves: &[Leaves],
        context: &Context,
        workers: &impl Workers,
    ) -> Result<Option<SecAggStage>, SecAggError> {
        let about = fl_secagg::Context {
            task: context.task,
            round: context.round.0,
            model: context.model,
        };
        let failed = |source: fl_secagg::ParamsError| SecAggError::Params {
            clients: clients.len() as u64,
            source,
        };
        let directory = match params.threat() {
            Threat::Active => {
                let mut keys = vec![[0; 32]; clients.len()];
                let mut jobs: Vec<_> = keys.iter_mut().zip(clients).collect();
                workers.each(&mut jobs, |(key, client)| {
                    **key = Identity::public(&signing_key(context.seed, **client));
                });
                Some(Arc::new(Directory::new(&keys).map_err(failed)?))
            }
            Threat::SemiHonest | Threat::SemiMalicious => None,
        };
        let server = Server::new(Arc::clone(params), &about, directory.clone()).map_err(failed)?;
        let mut seats: Vec<Seat> = leaves
            .iter()
            .map(|&leaves| Seat {
                leaves,
                client: None,
                inbox: None,
                outbox: None,
                error: None,
                seconds: [None; 5],
                sent: None,
            })
            .collect();
        let mut jobs: Vec<_> = (0u32..).zip(seats.iter_mut().zip(clients)).collect();
        workers.each(&mut jobs, |(id, (seat, client))| {
            if seat.leaves == Leaves::BeforeKeys {
                return;
            }
            let identity = directory.as_ref().map(|directory| {
                Identity::new(&signing_key(context.seed, **client), Arc::clone(directory))
            });
            let mut seed = [0; 32];
            let purpose = Purpose::SecureAggregation;
            Stream::at(purpose, context.seed, context.round, **client).fill_bytes(&mut seed);
            let mut rng = ChaCha20Rng::from_seed(seed);
            let watch = Stopwatch::start();
            match Client::start(Arc::clone(params), &about, *id, identity, &mut rng) {
                Ok((started, message)) => {
                    seat.client = Some(started);
                    seat.outbox = Some(message);
                }
                Err(error) => seat.error = Some(error),
            }
            seat.spend(SecAggStage::AdvertiseKeys, &watch);
        });
        let mut session = Session {
            params: Arc::clone(params),
            clients: clients.to_vec(),
            seats: seats.into_iter().map(Mutex::new).collect(),
            serving: Mutex::new(Serving {
                server: Some(server),
                seconds: [0.0; 5],
                bytes: SecAggBytes::default(),
                broken: None,
            }),
            plain: (!self.replaces).then(|| Mutex::new(vec![0; params.length()])),
        };
        let broken = session.share(self.round, workers);
        self.sessions.push(Some(session));
        broken
    }

    /// Finds the seats of the clients that train.
    pub(crate) fn seat(&mut self, jobs: &[Job]) {
        let mut places = BTreeMap::new();
        for (index, session) in self.sessions.iter().enumerate() {
            for (seat, client) in session.iter().flat_map(|s| s.clients.iter().enumerate()) {
                places.insert(*client, (index, seat));
            }
        }
        self.places.clear();
        let place = |job: &Job| places.get(&job.client).copied();
        self.places.extend(jobs.iter().map(place));
    }

    fn place(&self, job: u32) -> Option<(&Session, usize)> {
        let (session, seat) = (*self.places.get(job as usize)?)?;
        Some((self.sessions.get(session)?.as_ref()?, seat))
    }

    /// Encodes, masks and sends the update of a job; none when its client is in no real session.
    /// `within` says whether the update was within the clipping norm, in halves.
    pub(crate) fn send_update(
        &self,
        job: u32,
        ring: RingPlan,
        update: &[f32],
        weight: Weight,
        within: i64,
    ) -> Result<Option<Absorbed>, SecAggError> {
        let Some((session, seat)) = self.place(job) else {
            return Ok(None);
        };
        let limit = ring.weights().client;
        let refused = if weight.0 == 0 {
            Rejection::Weightless
        } else if weight > limit {
            Rejection::Overweight { weight, limit }
        } else if let Some(vector) = RingVector::encode(ring, update, weight) {
            let saturated = vector.saturated();
            let counted;
            let values = if self.counts_clips {
                counted = [vector.values(), &[within]].concat();
                &counted
            } else {
                vector.values()
            };
            let own = session.params.ring();
            let input = Input::weighted(own, values, weight.0, saturated);
            session.add_plain(values.iter().map(|value| value.cast_unsigned()));
            let clipped = saturated.min(own.max_clipped());
            session.send(self.round, seat, input, (weight.0, clipped))?;
            return Ok(Some(Absorbed::Summed { saturated }));
        } else {
            let index = update.iter().position(|value| !value.is_finite());
            Rejection::NonFinite {
                index: index.unwrap_or_default(),
            }
        };
        lock(&session.seats[seat]).client = None;
        Ok(Some(Absorbed::Rejected(refused)))
    }

    /// Masks and sends a vector of `Z_2^b`, where the job's client is in a real session.
    pub(crate) fn send_vector(&self, job: u32, elements: &[u64]) -> Result<(), SecAggError> {
        let Some((session, seat)) = self.place(job) else {
            return Ok(());
        };
        let input = Input::modular(session.params.ring(), elements, 1, 0);
        session.add_plain(elements.iter().copied());
        session.send(self.round, seat, input, (1, 0))
    }

    /// Unmasks the sum of a session, unless it is `expected` to fail. The stage in which it failed
    /// though that was not to be expected; and whether there is a sum.
    pub(crate) fn finish(
        &mut self,
        index: usize,
        expected: Option<SecAggStage>,
        workers: &impl Workers,
    ) -> Result<(Option<SecAggStage>, bool), SecAggError> {
        let round = self.round;
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return Ok((None, false));
        };
        if own(&mut session.serving).server.is_none() {
            return Ok((None, false));
        }
        let (broken, aggregate) = session.unmask(round, expected, workers)?;
        let Some(aggregate) = aggregate else {
            return Ok((broken, false));
        };
        session.check(round, &aggregate)?;
        self.aggregates.push((index, aggregate));
        Ok((broken, true))
    }

    /// Inputs that a session was sent.
    pub(crate) fn inputs(&self, index: usize) -> u64 {
        let seats = self.sessions.get(index).and_then(Option::as_ref);
        seats.map_or(0, |session| {
            let sent = |seat: &&Mutex<Seat>| lock(seat).sent.is_some();
            session.seats.iter().filter(sent).count() as u64
        })
    }

    /// The sums.
    pub(crate) fn aggregates(&self) -> impl Iterator<Item = &Aggregate> {
        self.aggregates.iter().map(|(_, aggregate)| aggregate)
    }

    /// The sum of a session, where it has one.
    pub(crate) fn aggregate(&self, index: usize) -> Option<&Aggregate> {
        let mut all = self.aggregates.iter();
        all.find_map(|(of, aggregate)| (*of == index).then_some(aggregate))
    }

    /// Bytes of a session's messages; none where there is none.
    pub(crate) fn bytes(&self, index: usize) -> Option<SecAggBytes> {
        let session = self.sessions.get(index)?.as_ref()?;
        Some(lock(&session.serving).bytes)
    }

    /// What all of it took; none without a session.
    pub(crate) fn seconds(&self) -> Option<SecAggSeconds> {
        let mut times = [StageTime::default(); 5];
        let mut clients = [0u64; 5];
        for session in self.sessions.iter().flatten() {
            let serving = lock(&session.serving);
            for (time, seconds) in times.iter_mut().zip(serving.seconds) {
                time.server += seconds;
            }
            for seat in &session.seats {
                for (stage, seconds) in lock(seat).seconds.iter().enumerate() {
                    if let Some(seconds) = *seconds {
                        clients[stage] += 1;
                        times[stage].client_mean += seconds;
                        times[stage].client_max = times[stage].client_max.max(seconds);
                    }
                }
            }
        }
        for (time, clients) in times.iter_mut().zip(clients) {
            time.client_mean /= clients.max(1) as f64;
        }
        (!self.sessions.is_empty()).then(|| SecAggSeconds::from_stages(times))
    }
}

impl Session {
    /// Keys and shares.
    fn share(
        &mut self,
        round: RoundId,
        workers: &impl Workers,
    ) -> Result<Option<SecAggStage>, SecAggError> {
        let stage = SecAggStage::AdvertiseKeys;
        own(&mut self.serving).bytes.advertise_keys = self.collect(round, stage)?;
        let Some(roster) = self.close(round, stage)? else {
            return Ok(Some(stage));
        };
        let stage = SecAggStage::ShareKeys;
        let down = self.deliver(roster, stage, Leaves::AfterShares, workers);
        let up = self.collect(round, stage)?;
        let bytes = &mut own(&mut self.serving).bytes;
        (bytes.roster, bytes.share_keys) = (down, up);
        let Some(shares) = self.close(round, stage)? else {
            return Ok(Some(stage));
        };
        let stage = SecAggStage::MaskedInput;
        let down = self.deliver(shares, stage, Leaves::AfterInput, workers);
        self.collect(round, stage)?;
        let serving = own(&mut self.serving);
        serving.bytes.forwarded_shares = down;
        Ok(serving.broken.filter(|broken| *broken < stage))
    }

    /// Gives messages to those who leave no earlier than `stay`, and lets them answer. Bytes of all
    /// messages.
    fn deliver(
        &mut self,
        outgoing: Vec<Outgoing>,
        stage: SecAggStage,
        stay: Leaves,
        workers: &impl Workers,
    ) -> u64 {
        let mut bytes = 0;
        for Outgoing { to, message } in outgoing {
            bytes += to.len() as u64 * message.len() as u64;
            let message = Arc::new(message);
            for id in to {
                if let Some(seat) = self.seats.get_mut(id as usize) {
                    own(seat).inbox = Some(Arc::clone(&message));
                }
            }
        }
        let mut seats: Vec<&mut Seat> = self.seats.iter_mut().map(own).collect();
        workers.each(&mut seats, |seat| {
            let message = seat.inbox.take();
            if seat.leaves < stay {
                seat.client = None;
            }
            let (Some(client), Some(message)) = (&mut seat.client, message) else {
                return;
            };
            let watch = Stopwatch::start();
            match client.handle(&message) {
                Ok(Reply::Send(message)) => seat.outbox = Some(message),
                Ok(Reply::Await | Reply::AwaitInput) => {}
                Err(error) => {
                    seat.client = None;
                    seat.error = Some(error);
                }
            }
            seat.spend(stage, &watch);
        });
        bytes
    }

    /// Lets the server receive what clients have to send, and counts its bytes. A client among too
    /// few neighbours has left.
    fn collect(&mut self, round: RoundId, stage: SecAggStage) -> Result<u64, SecAggError> {
        let serving = own(&mut self.serving);
        let mut bytes = 0;
        for (id, (seat, client)) in (0u32..).zip(self.seats.iter_mut().zip(&self.clients)) {
            let seat = own(seat);
            match seat.error.take() {
                Some(ClientError::TooFew { .. }) => serving.broken = Some(stage),
                Some(source) => {
                    return Err(SecAggError::Client {
                        round,
                        client: client.0,
                        source,
                    });
                }
                None => {}
            }
            if let Some(message) = seat.outbox.take() {
                bytes += message.len() as u64;
                serving.receive(round, stage, id, *client, &message)?;
            }
        }
        Ok(bytes)
    }

    /// Closes a stage; none when the session has failed for lack of clients.
    fn close(
        &mut self,
        round: RoundId,
        stage: SecAggStage,
    ) -> Result<Option<Vec<Outgoing>>, SecAggError> {
        let serving = own(&mut self.serving);
        let watch = Stopwatch::start();
        let closed = serving.server.as_mut().map(Server::close);
        serving.seconds[stage as usize] += watch.seconds();
        match closed {
            Some(Ok(outgoing)) => Ok(Some(outgoing)),
            Some(Err(SessionError::TooFew { .. })) | None => {
                serving.server = None;
                Ok(None)
            }
            Some(Err(source)) => Err(SecAggError::Session { round, source }),
        }
    }

    /// A client's input: masked by it, added by the server.
    fn send(
        &self,
        round: RoundId,
        seat: usize,
        input: Result<Input, fl_secagg::InputError>,
        sent: (u64, u64),
    ) -> Result<(), SecAggError> {
        let client = self.clients[seat];
        let input = input.map_err(|source| SecAggError::Input {
            round,
            client: client.0,
            source,
        })?;
        let mut own = lock(&self.seats[seat]);
        let watch = Stopwatch::start();
        let reply = match own
            .client
            .as_mut()
            .map(|client| client.provide_input(&input))
        {
            None => return Ok(()),
            Some(Ok(reply)) => reply,
            Some(Err(source)) => {
                return Err(SecAggError::Client {
                    round,
                    client: client.0,
                    source,
                });
            }
        };
        let stage = SecAggStage::MaskedInput;
        own.spend(stage, &watch);
        let mut serving = lock(&self.serving);
        if let Reply::Send(message) = reply {
            own.sent = Some(sent);
            serving.bytes.masked_input += message.len() as u64;
            serving.receive(round, stage, seat as u32, client, &message)
        } else {
            // The server took it for lost, because too few of its neighbours are left.
            serving.broken = Some(stage);
            Ok(())
        }
    }

    fn add_plain(&self, values: impl Iterator<Item = u64>) {
        if let Some(plain) = &self.plain {
            for (sum, value) in lock(plain).iter_mut().zip(values) {
                *sum = sum.wrapping_add(value);
            }
        }
    }

    fn unmask(
        &mut self,
        round: RoundId,
        expected: Option<SecAggStage>,
        workers: &impl Workers,
    ) -> Result<(Option<SecAggStage>, Option<Aggregate>), SecAggError> {
        if own(&mut self.serving).broken == Some(SecAggStage::MaskedInput) {
            own(&mut self.serving).server = None;
            return Ok((Some(SecAggStage::MaskedInput), None));
        }
        let Some(survivors) = self.close(round, SecAggStage::MaskedInput)? else {
            return Ok((Some(SecAggStage::MaskedInput), None));
        };
        let active = self.params.threat() == Threat::Active;
        let stage = match active {
            true => SecAggStage::Consistency,
            false => SecAggStage::Unmask,
        };
        let down = self.deliver(survivors, stage, Leaves::Never, workers);
        own(&mut self.serving).bytes.survivors = down;
        if active {
            own(&mut self.serving).bytes.signed_survivors = self.collect(round, stage)?;
            let Some(signed) = self.close(round, stage)? else {
                return Ok((Some(stage), None));
            };
            let down = self.deliver(signed, SecAggStage::Unmask, Leaves::Never, workers);
            own(&mut self.serving).bytes.unmask = down;
        }
        let up = self.collect(round, SecAggStage::Unmask)?;
        let serving = own(&mut self.serving);
        serving.bytes.unmasking_shares = up;
        let (Some(server), None) = (serving.server.take(), expected) else {
            return Ok((None, None));
        };
        let watch = Stopwatch::start();
        let aggregate = server.finish(workers);
        serving.seconds[SecAggStage::Unmask as usize] += watch.seconds();
        match aggregate {
            Ok(aggregate) => Ok((None, Some(aggregate))),
            Err(SessionError::TooFew { .. } | SessionError::TooFewShares { .. }) => {
                Ok((Some(SecAggStage::Unmask), None))
            }
            Err(source) => Err(SecAggError::Session { round, source }),
        }
    }

    /// Compares what came out with what went in.
    fn check(&mut self, round: RoundId, aggregate: &Aggregate) -> Result<(), SecAggError> {
        let sent: Vec<(u32, (u64, u64))> = (0u32..)
            .zip(&mut self.seats)
            .filter_map(|(id, seat)| Some((id, own(seat).sent?)))
            .collect();
        let disagrees = |what, session: String, sent: String| {
            Err(SecAggError::Disagrees {
                round,
                what,
                session,
                sent,
            })
        };
        if !aggregate
            .survivors()
            .iter()
            .eq(sent.iter().map(|(id, _)| id))
        {
            let (session, sent) = (aggregate.survivors().len(), sent.len());
            return disagrees("set of survivors", session.to_string(), sent.to_string());
        }
        let weight: u64 = sent.iter().map(|(_, (weight, _))| weight).sum();
        if aggregate.weight() != weight {
            return disagrees("weight", aggregate.weight().to_string(), weight.to_string());
        }
        let clipped: u64 = sent.iter().map(|(_, (_, clipped))| clipped).sum();
        if aggregate.clipped() != clipped {
            let session = aggregate.clipped().to_string();
            return disagrees("count of cut values", session, clipped.to_string());
        }
        if let Some(plain) = &mut self.plain {
            let largest = self.params.ring().largest();
            for (place, (&element, sum)) in aggregate.elements().iter().zip(own(plain)).enumerate()
            {
                if element != *sum & largest {
                    let session = format!("{element} at coordinate {place}");
                    return disagrees("sum", session, (*sum & largest).to_string());
                }
            }
        }
        Ok(())
    }
}

impl Serving {
    fn receive(
        &mut self,
        round: RoundId,
        stage: SecAggStage,
        id: u32,
        client: ClientId,
        message: &[u8],
    ) -> Result<(), SecAggError> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let watch = Stopwatch::start();
        let received = server.receive(id, message);
        self.seconds[stage as usize] += watch.seconds();
        received.map_err(|source| SecAggError::Server {
            round,
            client: client.0,
            source,
        })
    }
}

/// A client's long-term signing key, of the whole run.
fn signing_key(seed: Seed, client: ClientId) -> [u8; 32] {
    let mut key = [0; 32];
    Stream::at(Purpose::SigningKey, seed, RoundId(0), client).fill_bytes(&mut key);
    key
}
