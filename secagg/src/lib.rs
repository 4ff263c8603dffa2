//! Secure aggregation: a server learns the sum of its clients' vectors and nothing else about them,
//! even when clients vanish at any step.
//!
//! The protocol is that of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving
//! Machine Learning" (CCS 2017), in a complete graph, and that of Bell et al., "Secure Single-Server
//! Aggregation with (Poly)Logarithmic Overhead" (CCS 2020), in a random Harary graph, by one engine.
//! Each pair of neighbours agrees on a mask, which one adds and the other subtracts; each client adds a
//! mask of its own; secrets of both kinds are shared among the neighbours, who reveal the one of a
//! client that dropped out and the other of a client that survived, never both.
//!
//! [`Client`] and [`Server`] are state machines: bytes in, bytes out. They own no socket, clock,
//! thread or global generator. What is promised against whom, and which attack is met by what, is in
//! `SECURITY.md` beside this crate; [`Ideal`] gives the same sums without protection, for simulations;
//! the bytes are in `WIRE.md`, with test vectors.
//!
//! ```
//! use std::sync::Arc;
//! use chacha20::ChaCha20Rng;
//! use rand_core::SeedableRng;
//! use fl_secagg::{
//!     Client, Cohort, Context, Input, OneThread, Params, Reply, Ring, Server, Suite, Threat, Topology,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cohort = Cohort::new(3, 0.0, 0.34)?;
//! let ring = Ring::bounded(3, 10, 8)?;
//! let params = Params::new(
//!     cohort, Threat::SemiMalicious, Topology::Complete, Suite::Aes128, ring, 2,
//! )?;
//! let params = Arc::new(params);
//! let context = Context { task: [1; 32], round: 7, model: [2; 32] };
//! let mut server = Server::new(Arc::clone(&params), &context, None)?;
//!
//! let mut clients = Vec::new();
//! for id in 0..3 {
//!     // In production, of the operating system's entropy.
//!     let mut rng = ChaCha20Rng::seed_from_u64(id.into());
//!     let (mut client, message) = Client::start(Arc::clone(&params), &context, id, None, &mut rng)?;
//!     client.provide_input(&Input::weighted(ring, &[i64::from(id), -5], 2, 0)?)?;
//!     server.receive(id, &message)?;
//!     clients.push(client);
//! }
//! // Roster, forwarded shares, survivors. Client 1 vanishes after it has shared its keys.
//! for stage in 0..3 {
//!     for outgoing in server.close()? {
//!         for id in outgoing.to {
//!             if let Reply::Send(message) = clients[id as usize].handle(&outgoing.message)?
//!                 && (stage == 0 || id != 1)
//!             {
//!                 server.receive(id, &message)?;
//!             }
//!         }
//!     }
//! }
//! let aggregate = server.finish(&OneThread)?;
//! assert_eq!(aggregate.integers().collect::<Vec<_>>(), [2, -10]);
//! assert_eq!((aggregate.survivors(), aggregate.weight()), (&[0, 2][..], 4));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod bench;
mod client;
mod cost;
mod error;
mod graph;
mod ideal;
mod identity;
mod keys;
mod mask;
mod operation;
mod packet;
mod params;
mod recover;
pub mod rehearsal;
mod ring;
mod server;
mod session;
mod shamir;
mod state;
mod wire;

#[cfg(test)]
mod tests;

pub use client::{Client, Reply};
pub use cost::{CostError, CostModel, Counts, StageSeconds, UnitCosts};
pub use error::{BadShare, ClientError, DecodeError, Fault, InputError, ParamsError, SessionError};
pub use ideal::{Ideal, IdealError, Traffic};
pub use identity::{Directory, Identity};
pub use params::{Cohort, MAX_CLIENTS, MAX_LENGTH, Params, Suite, Threat, Topology};
pub use ring::{Input, Ring};
pub use server::{Aggregate, OneThread, Outgoing, Server, Stage, Workers};
pub use session::{Context, PROTOCOL_VERSION, SessionId};
pub use state::{STATE_VERSION, StateError, Ticket};
