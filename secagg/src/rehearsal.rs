//! A whole session played in one process, by the very [`Client`] and [`Server`]: every message is
//! written and read, clients vanish where a script says so, and each stage's processor time and
//! bytes are noted. For benchmarks and tests; the clients' secrets follow from a seed, so that nothing
//! here protects anything.
//!
//! It has no clock and no threads of its own: the caller brings a [`Clock`] and [`Workers`]. Clients
//! take their turn in small batches, so that only as many inputs and masked vectors exist at a time.

use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::cost::{Counts, StageSeconds};
use crate::error::{ClientError, Fault, InputError, ParamsError, SessionError};
use crate::ideal::Traffic;
use crate::params::{Params, Threat};
use crate::ring::Input;
use crate::server::{Aggregate, Server, Stage, Workers};
use crate::session::{Context, digest};
use crate::{Client, Directory, Identity, Reply};

/// Clients that take their turn at a time, whose inputs are in memory together.
pub const BATCH: usize = 8;

/// What the clients of a rehearsal do.
pub trait Script: Sync {
    /// The input of client `id`; asked for when it is masked, not before.
    ///
    /// # Errors
    /// [`InputError`], which ends the rehearsal.
    fn input(&self, id: u32) -> Result<Input, InputError>;

    /// The first stage in which client `id` does not answer; none if it stays.
    fn leaves(&self, id: u32) -> Option<Stage>;

    /// Told, on the caller's thread, how many clients of a stage have had their turn.
    fn progress(&self, stage: Stage, done: usize, of: usize) {
        let _ = (stage, done, of);
    }
}

/// Who says how long something took.
pub trait Clock: Sync {
    /// Seconds of processor time that the calling thread has used so far.
    fn processor(&self) -> f64;
    /// The same, with what helpers have done for this thread in [`Workers::each`].
    fn with_helpers(&self) -> f64;
    /// Seconds that went by.
    fn wall(&self) -> f64;
}

/// A [`Clock`] that stands still.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoClock;

impl Clock for NoClock {
    fn processor(&self) -> f64 {
        0.0
    }

    fn with_helpers(&self) -> f64 {
        0.0
    }

    fn wall(&self) -> f64 {
        0.0
    }
}

/// What one client did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The client.
    pub id: u32,
    /// Where it left; none if it stayed to the end.
    pub left: Option<Stage>,
    /// Its processor time, without that of making its input.
    pub seconds: StageSeconds,
    /// Bytes that it sent and received.
    pub traffic: Traffic,
}

/// What came of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsed {
    /// The sum, or why there is none.
    pub outcome: Result<Aggregate, SessionError>,
    /// Who was there.
    pub counts: Counts,
    /// Every client's part, by id.
    pub clients: Vec<Part>,
    /// The server's processor time, helpers included.
    pub server: StageSeconds,
    /// Seconds that the last step took, [`Server::finish`].
    pub unmasking_wall: f64,
}

/// Why a rehearsal stopped: something that honest parties do not do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// Parameters and directory do not fit.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A client stopped.
    #[error("client {id} stopped: {error}")]
    Client {
        /// Which.
        id: u32,
        /// Why.
        error: ClientError,
    },
    /// The server refused a client's message.
    #[error("the server refused client {id}: {error}")]
    Server {
        /// Which.
        id: u32,
        /// Why.
        error: Fault,
    },
    /// A client had nothing to say where it must.
    #[error("client {id} has no answer in the stage {stage:?}; expected a message")]
    Silent {
        /// Which.
        id: u32,
        /// When.
        stage: Stage,
    },
}

/// A client and its next turn.
struct Player {
    client: Option<Client>,
    part: Part,
    answer: Option<Result<Vec<u8>, RehearsalError>>,
}

/// Plays a session with `params` in `context`. `seed` decides the clients' secrets.
///
/// # Errors
/// [`RehearsalError`]. A session that fails because too many clients left is no error but
/// [`Rehearsed::outcome`].
pub fn play(
    params: &Arc<Params>,
    context: &Context,
    seed: u64,
    script: &impl Script,
    workers: &impl Workers,
    clock: &impl Clock,
) -> Result<Rehearsed, RehearsalError> {
    let secret = |what: &[u8], id: u32| digest(what, &[&seed.to_le_bytes(), &id.to_le_bytes()]);
    let directory = match params.threat() {
        Threat::Active => {
            let keys: Vec<[u8; 32]> = (0..params.clients())
                .map(|id| Identity::public(&secret(b"rehearsed identity", id)))
                .collect();
            Some(Arc::new(Directory::new(&keys)?))
        }
        Threat::SemiHonest | Threat::SemiMalicious => None,
    };
    let mut server = Server::new(Arc::clone(params), context, directory.clone())?;
    let mut players: Vec<Player> = (0..params.clients())
        .map(|id| Player {
            client: None,
            part: Part {
                id,
                left: script.leaves(id),
                seconds: StageSeconds::default(),
                traffic: Traffic::default(),
            },
            answer: None,
        })
        .collect();
    let mut result = Rehearsed {
        outcome: Err(SessionError::Stage { stage: "over" }),
        counts: Counts {
            present: 0,
            sharing: 0,
            survivors: 0,
            signing: 0,
            revealing: 0,
        },
        clients: Vec::new(),
        server: StageSeconds::default(),
        unmasking_wall: 0.0,
    };

    let mut turn: Vec<u32> = (0..params.clients()).collect();
    // What each of `turn` is sent: one message for all, or one for each.
    let mut messages: Vec<Arc<[u8]>> = Vec::new();
    while let Some(stage) = server.stage() {
        let started = |player: &mut Player| -> Result<Vec<u8>, RehearsalError> {
            let id = player.part.id;
            let mut rng = ChaCha20Rng::from_seed(secret(b"rehearsed client", id));
            let identity = directory
                .clone()
                .map(|directory| Identity::new(&secret(b"rehearsed identity", id), directory));
            let params = Arc::clone(params);
            let before = clock.processor();
            let (client, message) = Client::start(params, context, id, identity, &mut rng)
                .map_err(|error| RehearsalError::Client { id, error })?;
            player.part.seconds.advertise += clock.processor() - before;
            player.client = Some(client);
            Ok(message)
        };
        let answered = |player: &mut Player, message: &[u8]| -> Result<Vec<u8>, RehearsalError> {
            let id = player.part.id;
            let failed = |error| RehearsalError::Client { id, error };
            let Some(client) = &mut player.client else {
                return Err(failed(ClientError::Over));
            };
            let input = match stage {
                Stage::MaskedInput => Some(script.input(id).map_err(|e| failed(e.into()))?),
                _ => None,
            };
            let before = clock.processor();
            if let Some(input) = &input {
                client.provide_input(input).map_err(failed)?;
            }
            let reply = client.handle(message).map_err(failed)?;
            *of_stage(&mut player.part.seconds, stage) += clock.processor() - before;
            match reply {
                Reply::Send(message) => Ok(message),
                Reply::Await | Reply::AwaitInput => Err(RehearsalError::Silent { id, stage }),
            }
        };

        let here: Vec<(u32, Option<Arc<[u8]>>)> = turn
            .iter()
            .enumerate()
            .map(|(place, &id)| {
                let message = messages.get(place).or_else(|| messages.first());
                (id, message.map(Arc::clone))
            })
            .filter(|(id, _)| players[*id as usize].part.left != Some(stage))
            .collect();
        // Who leaves in this stage gets its message nevertheless.
        for (place, &id) in turn.iter().enumerate() {
            if let Some(message) = messages.get(place).or_else(|| messages.first()) {
                let traffic = &mut players[id as usize].part.traffic;
                *down(traffic, stage) += message.len() as u64;
            }
        }
        messages = Vec::new();
        for (batch, start) in here.chunks(BATCH).zip((0..).step_by(BATCH)) {
            let mut jobs: Vec<(&mut Player, Option<Arc<[u8]>>)> = Vec::new();
            let mut rest = &mut players[..];
            let mut passed = 0;
            for (id, message) in batch {
                let (_, from) = rest.split_at_mut(*id as usize - passed);
                let Some((player, behind)) = from.split_first_mut() else {
                    break;
                };
                passed = *id as usize + 1;
                rest = behind;
                jobs.push((player, message.clone()));
            }
            workers.each(&mut jobs, |(player, message)| {
                player.answer = Some(match message {
                    None => started(player),
                    Some(message) => answered(player, message),
                });
            });
            for (player, _) in jobs {
                let id = player.part.id;
                let Some(message) = player.answer.take().transpose()? else {
                    return Err(RehearsalError::Silent { id, stage });
                };
                *up(&mut player.part.traffic, stage) += message.len() as u64;
                let before = clock.processor();
                server
                    .receive(id, &message)
                    .map_err(|error| RehearsalError::Server { id, error })?;
                *of_stage(&mut result.server, stage) += clock.processor() - before;
            }
            script.progress(stage, start + batch.len(), here.len());
        }
        *of_counts(&mut result.counts, stage) = here.len() as u32;

        if stage == Stage::Unmask {
            let (before, wall) = (clock.with_helpers(), clock.wall());
            result.outcome = server.finish(workers);
            result.server.unmask += clock.with_helpers() - before;
            result.unmasking_wall = clock.wall() - wall;
            break;
        }
        let before = clock.processor();
        let closed = server.close();
        *of_stage(&mut result.server, stage) += clock.processor() - before;
        match closed {
            Err(error) => {
                result.outcome = Err(error);
                break;
            }
            Ok(outgoing) => {
                turn.clear();
                for outgoing in outgoing {
                    turn.extend(outgoing.to);
                    messages.push(outgoing.message.into());
                }
            }
        }
    }
    result.clients = players.into_iter().map(|player| player.part).collect();
    Ok(result)
}

fn of_stage(seconds: &mut StageSeconds, stage: Stage) -> &mut f64 {
    match stage {
        Stage::AdvertiseKeys => &mut seconds.advertise,
        Stage::ShareKeys => &mut seconds.share,
        Stage::MaskedInput => &mut seconds.mask,
        Stage::Consistency => &mut seconds.consistency,
        Stage::Unmask => &mut seconds.unmask,
    }
}

fn of_counts(counts: &mut Counts, stage: Stage) -> &mut u32 {
    match stage {
        Stage::AdvertiseKeys => &mut counts.present,
        Stage::ShareKeys => &mut counts.sharing,
        Stage::MaskedInput => &mut counts.survivors,
        Stage::Consistency => &mut counts.signing,
        Stage::Unmask => &mut counts.revealing,
    }
}

/// What a client sends in a stage.
fn up(traffic: &mut Traffic, stage: Stage) -> &mut u64 {
    match stage {
        Stage::AdvertiseKeys => &mut traffic.advertise_keys,
        Stage::ShareKeys => &mut traffic.share_keys,
        Stage::MaskedInput => &mut traffic.masked_input,
        Stage::Consistency => &mut traffic.signed_survivors,
        Stage::Unmask => &mut traffic.unmasking_shares,
    }
}

/// What a client is sent before it answers in a stage.
fn down(traffic: &mut Traffic, stage: Stage) -> &mut u64 {
    match stage {
        // Nothing is sent before keys are advertised.
        Stage::AdvertiseKeys | Stage::ShareKeys => &mut traffic.roster,
        Stage::MaskedInput => &mut traffic.forwarded_shares,
        Stage::Consistency => &mut traffic.survivors,
        // Under the active threat the survivors came before.
        Stage::Unmask if traffic.survivors > 0 => &mut traffic.unmask,
        Stage::Unmask => &mut traffic.survivors,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::OneThread;
    use crate::params::{Suite, Topology};
    use crate::tests::Setup;

    struct Play<'a> {
        setup: &'a Setup,
        leaves: &'a [(u32, Stage)],
        told: Mutex<Vec<(Stage, usize, usize)>>,
    }

    impl Script for Play<'_> {
        fn input(&self, id: u32) -> Result<Input, InputError> {
            Ok(self.setup.input(id))
        }

        fn leaves(&self, id: u32) -> Option<Stage> {
            let found = self.leaves.iter().find(|(leaver, _)| *leaver == id);
            found.map(|(_, stage)| *stage)
        }

        fn progress(&self, stage: Stage, done: usize, of: usize) {
            self.told.lock().unwrap().push((stage, done, of));
        }
    }

    /// Every look at it is a second.
    #[derive(Default)]
    struct Ticks(AtomicU64);

    impl Clock for Ticks {
        fn processor(&self) -> f64 {
            self.0.fetch_add(1, Ordering::Relaxed) as f64
        }

        fn with_helpers(&self) -> f64 {
            1000.0 * self.processor()
        }

        fn wall(&self) -> f64 {
            1e6 * self.processor()
        }
    }

    fn rehearse(setup: &Setup, leaves: &[(u32, Stage)], clock: &impl Clock) -> Rehearsed {
        let play = Play {
            setup,
            leaves,
            told: Mutex::default(),
        };
        let done = super::play(&setup.params, &setup.context, 7, &play, &OneThread, clock).unwrap();
        if let Ok(aggregate) = &done.outcome {
            let told = play.told.into_inner().unwrap();
            let survivors = aggregate.survivors().len();
            assert!(told.contains(&(Stage::MaskedInput, survivors, survivors)));
        }
        done
    }

    /// Clients leave in every stage; the sum is that of those whose input arrived, and bytes and
    /// counts are as they are foretold.
    #[test]
    fn sums_bytes_and_counts_are_those_of_a_session() {
        use Stage::{AdvertiseKeys, Consistency, MaskedInput, ShareKeys, Unmask};
        for (threat, topology, clients, dropouts) in [
            (Threat::SemiHonest, Topology::Complete, 20, 8),
            (Threat::SemiMalicious, Topology::Complete, 20, 6),
            (Threat::Active, Topology::Complete, 21, 4),
            (Threat::SemiHonest, Topology::Harary, 60, 12),
        ] {
            let setup = Setup::new(clients, dropouts, threat, topology, Suite::Aes128);
            let leaves = [
                (0, AdvertiseKeys),
                (3, ShareKeys),
                (19, MaskedInput),
                (7, Unmask),
                (8, Consistency),
            ];
            let done = rehearse(&setup, &leaves, &NoClock);
            let aggregate = done.outcome.unwrap();
            let survivors: Vec<u32> = (0..clients).filter(|id| ![0, 3, 19].contains(id)).collect();
            assert_eq!(aggregate.survivors(), survivors);
            let sum = setup.plain_sum(survivors.iter().copied());
            assert!(aggregate.integers().eq(sum), "{threat:?}");
            let active = u32::from(threat == Threat::Active);
            assert_eq!(
                done.counts,
                Counts {
                    present: clients - 1,
                    sharing: clients - 2,
                    survivors: clients - 3,
                    signing: (clients - 4) * active,
                    revealing: clients - 4 - active,
                }
            );
            assert_eq!(done.server, StageSeconds::default());
            for part in done.clients {
                if part.left.is_some() {
                    continue;
                }
                if topology == Topology::Complete {
                    let foretold = Traffic::new(
                        &setup.params,
                        clients - 1,
                        clients - 2,
                        clients - 3,
                        clients - 4,
                    );
                    assert_eq!(part.traffic, foretold, "{threat:?}");
                }
                assert!(part.traffic.up() > 0 && part.traffic.down() > 0);
            }
        }
    }

    #[test]
    fn a_session_that_fails_says_so() {
        let setup = Setup::complete(5, Threat::SemiMalicious);
        let leaves: Vec<_> = (0..4).map(|id| (id, Stage::MaskedInput)).collect();
        let done = rehearse(&setup, &leaves, &NoClock);
        assert_eq!(
            done.outcome.unwrap_err().to_string(),
            "1 clients answered in the stage masked input; expected at least 3"
        );
        assert_eq!((done.counts.sharing, done.counts.survivors), (5, 1));
    }

    /// Each turn is between two looks at the clock; helpers' time and the wall count at the end.
    #[test]
    fn time_goes_to_its_stage() {
        let setup = Setup::complete(3, Threat::SemiHonest);
        let done = rehearse(&setup, &[], &Ticks::default());
        let client = StageSeconds {
            advertise: 1.0,
            share: 1.0,
            mask: 1.0,
            consistency: 0.0,
            unmask: 1.0,
        };
        assert!(done.clients.iter().all(|part| part.seconds == client));
        // One for each message and one for closing; the last is closed by those who help.
        assert_eq!(
            done.server,
            StageSeconds {
                advertise: 4.0,
                share: 4.0,
                mask: 4.0,
                consistency: 0.0,
                unmask: 3.0 + 2000.0,
            }
        );
        assert_eq!(done.unmasking_wall.to_bits(), 2e6f64.to_bits());
    }
}
