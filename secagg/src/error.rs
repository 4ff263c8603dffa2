//! What can go wrong, by who it happens to.
//!
//! A [`ClientError`] ends a client's part: its state is wiped. A [`Fault`] is something that a client
//! sent and a server refused: the session goes on without it. A [`SessionError`] ends a session.

use crate::params::{Threat, Topology};

/// Why parameters were refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// Too few or too many clients.
    #[error("a session of {clients} clients is impossible; expected 2 to 1048576")]
    Clients {
        /// Clients as given.
        clients: u32,
    },
    /// A share outside its range.
    #[error("the {what} share is {share}; expected a number from 0 up to but not including 1")]
    Share {
        /// Which.
        what: &'static str,
        /// As given.
        share: f64,
    },
    /// No threshold is both safe and reachable.
    #[error(
        "no threshold is both safe and reachable for {clients} clients with {corrupt} corrupt and \
         {dropouts} dropping out under the {} threat in a {} graph; lower the shares{} more clients{}",
        name(*threat),
        shape(*topology),
        if *topology == Topology::Harary { ", take" } else { " or take" },
        if *topology == Topology::Harary { ", or use the complete graph" } else { "" }
    )]
    Infeasible {
        /// Clients.
        clients: u32,
        /// Corrupt clients.
        corrupt: u32,
        /// Drop-outs.
        dropouts: u32,
        /// The threat model.
        threat: Threat,
        /// The graph.
        topology: Topology,
    },
    /// A degree that the graph cannot have.
    #[error(
        "a degree of {degree} is impossible among {clients} clients; expected the clients less one \
         in a complete graph, and an even number from 2 to the clients less two in a Harary graph"
    )]
    Degree {
        /// As given.
        degree: u32,
        /// Clients.
        clients: u32,
    },
    /// A graph whose honest survivors may not be connected.
    #[error(
        "a ring of {clients} clients with {degree} neighbours each may fall apart; raise the degree"
    )]
    Disconnected {
        /// As given.
        degree: u32,
        /// Clients.
        clients: u32,
    },
    /// A threshold that the adversary reaches, or that survivors do not.
    #[error(
        "a threshold of {threshold} is unsafe or cannot be reached under the {} threat; expected \
         {least} to {most}",
        name(*threat)
    )]
    Threshold {
        /// As given.
        threshold: u32,
        /// The threat model.
        threat: Threat,
        /// The smallest safe one.
        least: i64,
        /// The largest that is likely to be reached.
        most: i64,
    },
    /// A least number of survivors that is unsafe or impossible.
    #[error("at least {min_survivors} survivors are asked for; expected {least} to {most}")]
    Survivors {
        /// As given.
        min_survivors: u32,
        /// The smallest safe one.
        least: u32,
        /// Clients.
        most: u32,
    },
    /// No such ring, or one that could overflow.
    #[error(
        "no ring holds {clients} clients of weights up to {max_weight} with {value_bits} bits of \
         value; expected all above 0 and a sum of at most 64 bits: lower the weights or the bits"
    )]
    RingBits {
        /// Clients.
        clients: u32,
        /// The largest weight.
        max_weight: u64,
        /// Bits of a value, or of the ring.
        value_bits: u32,
    },
    /// A ring for fewer clients than the session has.
    #[error("the ring holds sums of {ring} clients, and the session has {clients}")]
    RingClients {
        /// Clients of the ring.
        ring: u32,
        /// Clients of the session.
        clients: u32,
    },
    /// No vector, or one that is too long.
    #[error("a vector of {length} coordinates; expected 1 to 1073741821")]
    Length {
        /// As given.
        length: usize,
    },
    /// The directory of signing keys does not fit.
    #[error("the directory of signing keys {reason}; every client needs a sound key of its own")]
    Directory {
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn name(threat: Threat) -> &'static str {
    match threat {
        Threat::SemiHonest => "semi-honest",
        Threat::SemiMalicious => "semi-malicious",
        Threat::Active => "active",
    }
}

fn shape(topology: Topology) -> &'static str {
    match topology {
        Topology::Complete => "complete",
        Topology::Harary => "Harary",
    }
}

/// Why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A value that its weight does not allow.
    #[error(
        "value {index} is {value}, which is more than the weight allows; expected at most \
         {largest} in magnitude: clip before weighting"
    )]
    Value {
        /// Its place.
        index: usize,
        /// The value.
        value: i64,
        /// The largest magnitude.
        largest: u64,
    },
    /// An element that is none of the ring.
    #[error("element {index} is {element}, which does not fit into {bits} bits")]
    NotReduced {
        /// Its place.
        index: usize,
        /// The element.
        element: u64,
        /// Bits of the ring.
        bits: u32,
    },
    /// A weight outside its range.
    #[error("the weight is {weight}; expected 1 to {most}")]
    Weight {
        /// As given.
        weight: u64,
        /// The ring's largest.
        most: u64,
    },
    /// Integers for a modular ring or elements for a bounded one.
    #[error(
        "this input is of the other kind than its ring; use weighted integers with a bounded ring \
         and reduced elements with a modular ring"
    )]
    Kind,
    /// Not one value for each coordinate.
    #[error("the input has {given} coordinates; expected {expected}")]
    Length {
        /// As given.
        given: usize,
        /// The session's.
        expected: usize,
    },
}

/// Why bytes are no message of this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than a header and a checksum.
    #[error("a message of {bytes} bytes is shorter than any")]
    Short {
        /// Its bytes.
        bytes: usize,
    },
    /// Not ours.
    #[error("the message does not begin with `FLSA`")]
    Magic,
    /// Another version of the protocol.
    #[error("the message is of version {0} of the protocol; expected 1")]
    Version(u16),
    /// Another kind of message.
    #[error("the message is of kind {given}; expected {expected}")]
    Kind {
        /// As given.
        given: u8,
        /// What can be handled now.
        expected: u8,
    },
    /// Another suite.
    #[error("the message is of suite {given}; expected {expected}")]
    Suite {
        /// As given.
        given: u8,
        /// The session's.
        expected: u8,
    },
    /// Another session: other parameters, another round or another model.
    #[error("the message is of another session; check parameters, round, task and model")]
    Session,
    /// Another sender than the transport says.
    #[error("the message says it is from {given}; expected {expected}")]
    Sender {
        /// As given; 4294967295 is the server.
        given: u32,
        /// Who sent it.
        expected: u32,
    },
    /// A body that is longer or shorter than it says, or than it can be.
    #[error("the body is {given} bytes long; expected {expected}")]
    Length {
        /// Bytes as given.
        given: u64,
        /// Bytes as expected.
        expected: u64,
    },
    /// Bytes were changed on the way.
    #[error("the checksum does not fit the bytes")]
    Checksum,
    /// Something that no honest party writes.
    #[error("{0}")]
    Field(&'static str),
}

/// Why secrets were not shared or shares not combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShamirError {
    /// A threshold outside its range.
    #[error("a threshold of {threshold} among {holders} holders; expected 2 to {holders}")]
    Threshold {
        /// As given.
        threshold: usize,
        /// Holders.
        holders: usize,
    },
    /// A holder at 0, where the secret is.
    #[error("a holder is at 0, where the secret is; expected 1 and more")]
    Zero,
    /// Two holders at one place.
    #[error("two holders are at {0}; expected each at its own place")]
    Duplicate(u64),
    /// Not one share of each holder.
    #[error("{given} shares for {expected} holders")]
    Count {
        /// As given.
        given: usize,
        /// Holders.
        expected: usize,
    },
    /// Shares that combine to nothing that was shared.
    #[error("the shares combine to no secret of 32 bytes")]
    Secret,
}

/// Why a client stopped. Its secrets are gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It stopped before, or is done.
    #[error("this client's part is over; start a new session")]
    Over,
    /// Bytes that are no message of this session, or not the next one.
    #[error("the server's message cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The input does not fit.
    #[error("the input was refused: {0}")]
    Input(#[from] InputError),
    /// A second input, or one before the keys of the others are known.
    #[error("an input is not expected now")]
    InputNotExpected,
    /// An id outside the session.
    #[error("client {id} is none of a session of {clients}")]
    Id {
        /// As given.
        id: u32,
        /// Clients of the session.
        clients: u32,
    },
    /// An identity where the threat model has none, or none where it needs one.
    #[error("{0}")]
    Identity(&'static str),
    /// The roster does not say what this client advertised.
    #[error("the roster leaves out or changes this client's own keys")]
    OwnKeys,
    /// Fewer clients than can succeed.
    #[error("{present} {what}; expected at least {least}: the sum would protect too few")]
    TooFew {
        /// How many.
        present: usize,
        /// Of what.
        what: &'static str,
        /// How many are needed.
        least: usize,
    },
    /// Two clients, or two keys of one, are the same.
    #[error(
        "client {id} has a key that is also another's; a generator is broken or a key reflected"
    )]
    DuplicateKey {
        /// The later client.
        id: u32,
    },
    /// A key that is no point of the group, or its identity.
    #[error("client {id} has a key that is no valid point of the group")]
    Key {
        /// Whose.
        id: u32,
    },
    /// A signature that does not fit.
    #[error("the signature of client {id} does not fit")]
    Signature {
        /// Whose.
        id: u32,
    },
    /// A packet that was not made for this place in this session.
    #[error("the shares of client {from} are not what it sealed for this client in this session")]
    Packet {
        /// The owner of the shares.
        from: u32,
    },
    /// Packets, or survivors, from clients that it cannot be.
    #[error("client {id} is {what}")]
    Unexpected {
        /// Who.
        id: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The server says that this client dropped out, and asks it to help unmask it.
    #[error("the server lists this client itself as dropped out")]
    ListedDropped,
    /// The survivors to be unmasked are not those that were signed.
    #[error("the server asks to unmask other survivors than those that were signed")]
    OtherSurvivors,
}

/// What a client sent that was refused; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes that are no message of this stage.
    #[error("the message cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// An id outside the session.
    #[error("client {id} is none of a session of {clients}")]
    Unknown {
        /// As given.
        id: u32,
        /// Clients of the session.
        clients: u32,
    },
    /// It is not in this stage: it missed one before, or the stage is over.
    #[error("client {id} is not expected in this stage; it missed one, or is late")]
    NotExpected {
        /// Who.
        id: u32,
    },
    /// A second message in one stage.
    #[error("client {id} has already answered in this stage")]
    Duplicate {
        /// Who.
        id: u32,
    },
    /// A key that another client has, or twice the same.
    #[error("client {id} advertises a key that is in use")]
    DuplicateKey {
        /// Who.
        id: u32,
    },
    /// A key that is no point of the group, or its identity.
    #[error("client {id} advertises a key that is no valid point of the group")]
    Key {
        /// Who.
        id: u32,
    },
    /// A signature that does not fit.
    #[error("the signature of client {id} does not fit")]
    Signature {
        /// Who.
        id: u32,
    },
    /// Not a share for everyone who was asked about.
    #[error("client {id} sends shares of or for other clients than it was asked for")]
    Shares {
        /// Who.
        id: u32,
    },
    /// Nothing is awaited any more.
    #[error("the session is over")]
    Over,
}

/// A share that does not fit the others: either its owner dealt it so, or its holder changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadShare {
    /// Whose secret it is a share of.
    pub owner: u32,
    /// Who revealed it.
    pub holder: u32,
}

/// Why a session failed. No sum is revealed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Fewer clients than are needed answered in a stage.
    #[error("{present} clients answered in the stage {stage}; expected at least {least}")]
    TooFew {
        /// Which stage.
        stage: &'static str,
        /// Who answered.
        present: usize,
        /// How many are needed.
        least: usize,
    },
    /// A client's secret cannot be had, because too few of its neighbours answered.
    #[error("{present} neighbours of client {owner} reveal its shares; expected at least {least}")]
    TooFewShares {
        /// Whose.
        owner: u32,
        /// How many revealed one.
        present: usize,
        /// The threshold.
        least: usize,
    },
    /// A client's shares fit no secret that it committed to.
    #[error(
        "no {least} of the shares of client {owner} give the secret that it committed to; it dealt \
         false ones, or too many holders lie"
    )]
    BadShares {
        /// Whose.
        owner: u32,
        /// The threshold.
        least: usize,
    },
    /// Masks did not cancel: the sum's client count is not that of the survivors.
    #[error(
        "the sum says it is of {counted} clients, and there are {survivors} survivors; a client \
         masked its input falsely"
    )]
    Inconsistent {
        /// The count in the sum.
        counted: u64,
        /// Survivors.
        survivors: usize,
    },
    /// Parameters and directory do not fit.
    #[error("the session cannot begin: {0}")]
    Params(#[from] ParamsError),
    /// Called in another stage.
    #[error("this is not possible in the stage {stage}")]
    Stage {
        /// Which stage it is.
        stage: &'static str,
    },
}
