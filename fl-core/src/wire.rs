//! The two messages of a round without secure aggregation, as bytes: the task that a client is given
//! and the update that it sends back.
//!
//! All numbers are little-endian; the last 32 bytes are the SHA-256 of everything before, so that a
//! message that was damaged on its way is refused and never summed.
//!
//! | bytes | of both |
//! |---|---|
//! | 4 | magic `FLTK` (task) or `FLUP` (update) |
//! | 2 + 2 | version, 1; zero |
//! | 8 + 8 | round; client |
//!
//! | bytes | task: what follows |
//! |---|---|
//! | 4 + n | the plan, as the driver encodes it |
//! | 8 + 4n | number of parameters; the global model, `f32` |
//!
//! | bytes | update: what follows |
//! |---|---|
//! | 8 + 8 + 8 + 8 + 8 | examples, steps, examples processed, examples clipped, bits of the mean loss (`f64`) |
//! | 1 + 1 + 6 | 1 for partial work, else 0; bits of a ring element, 0 for floats; zeros |
//! | 8 + 8 | weight and saturated values of a ring vector, else zeros |
//! | 8 + n | number of values; `f32` each, or elements of `Z_2^b`, `b` bits each without gaps, lowest bit first |
//!
//! What time and traffic a client's part cost is measured by the server, not told by the client.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::ring::RingPlan;
use crate::trainer::LocalResult;
use crate::units::{ClientId, ExampleCount, RoundId, Weight};
use crate::update::{ClientUpdate, Cost, Payload, Report, RingVector, WorkDone};

const VERSION: u16 = 1;
const TASK: [u8; 4] = *b"FLTK";
const UPDATE: [u8; 4] = *b"FLUP";
const CHECKSUM: usize = 32;
/// Magic, version, round, client.
const HEAD: usize = 4 + 4 + 16;
/// What an update holds beside its values.
const UPDATE_HEAD: usize = HEAD + 40 + 8 + 16 + 8;

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It is shorter or longer than what it says it holds.
    #[error("the message has {found} bytes where it says that it has {expected}; send it again")]
    Length {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// It is no such message.
    #[error("the message is no {expected} of this version; update the sender")]
    Kind {
        /// What was expected.
        expected: &'static str,
    },
    /// It was damaged.
    #[error("the message's checksum does not match its contents; send it again")]
    Checksum,
    /// A field has a value that it cannot have.
    #[error("the message's {field} has an impossible value; update the sender")]
    Value {
        /// The field.
        field: &'static str,
    },
    /// The values are in another form or number than was asked for.
    #[error(
        "the message has {found} values of {found_bits} bits where {expected} of {bits} were asked for"
    )]
    Form {
        /// Values asked for.
        expected: u64,
        /// Bits of each asked for, 0 for floats.
        bits: u32,
        /// Values found.
        found: u64,
        /// Their bits.
        found_bits: u32,
    },
}

/// Bytes of the task of a model with so many parameters and a plan of so many bytes.
#[must_use]
pub fn task_bytes(parameters: u64, plan: u64) -> u64 {
    (HEAD + 4 + 8 + CHECKSUM) as u64 + plan + 4 * parameters
}

/// Bytes of an update of so many values: `f32` without `ring`, else its elements.
#[must_use]
pub fn update_bytes(parameters: u64, ring: Option<&RingPlan>) -> u64 {
    let head = (UPDATE_HEAD + CHECKSUM) as u64;
    head + packed_bytes(parameters, ring.map_or(32, RingPlan::bits))
}

fn packed_bytes(values: u64, bits: u32) -> u64 {
    let bits = u128::from(values) * u128::from(bits);
    u64::try_from(bits.div_ceil(8)).unwrap_or(u64::MAX)
}

fn head(magic: [u8; 4], round: RoundId, client: ClientId, capacity: u64) -> Vec<u8> {
    let mut message = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    message.extend(magic);
    message.extend(VERSION.to_le_bytes());
    message.extend([0; 2]);
    message.extend(round.0.to_le_bytes());
    message.extend(client.0.to_le_bytes());
    message
}

fn sealed(mut message: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&message);
    message.extend(checksum);
    message
}

/// The message that gives `client` its task: the encoded `plan` and the `global` model.
#[must_use]
pub fn encode_task(round: RoundId, client: ClientId, plan: &[u8], global: &[f32]) -> Vec<u8> {
    let bytes = task_bytes(global.len() as u64, plan.len() as u64);
    let mut message = head(TASK, round, client, bytes);
    message.extend((plan.len() as u32).to_le_bytes());
    message.extend(plan);
    message.extend((global.len() as u64).to_le_bytes());
    message.extend(global.iter().flat_map(|value| value.to_le_bytes()));
    sealed(message)
}

/// A client's task as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Task<'a> {
    /// The round.
    pub round: RoundId,
    /// Whose task it is.
    pub client: ClientId,
    /// The plan, as the driver encoded it.
    pub plan: &'a [u8],
    /// The global model.
    pub global: Vec<f32>,
}

/// Reads [`encode_task`]'s message for a model of so many parameters.
///
/// # Errors
/// [`WireError`].
pub fn decode_task(message: &[u8], parameters: usize) -> Result<Task<'_>, WireError> {
    let mut reader = Reader::open(message, TASK, "task")?;
    let (round, client) = reader.head()?;
    let plan = reader.u32()? as usize;
    let plan = reader.take(plan)?;
    let found = reader.u64()?;
    reader.form(parameters, 0, found, 0)?;
    let values = reader.rest(packed_bytes(found, 32))?;
    Ok(Task {
        round,
        client,
        plan,
        global: floats(values),
    })
}

/// The message of an update.
#[must_use]
pub fn encode_update(update: &ClientUpdate) -> Vec<u8> {
    let ClientUpdate {
        report,
        payload,
        metrics,
    } = update;
    let (values, ring) = match payload {
        Payload::Dense(values) => (values.len(), None),
        Payload::Ring(vector) => (vector.values().len(), Some(vector)),
    };
    let bytes = update_bytes(values as u64, ring.map(RingVector::plan));
    let mut message = head(UPDATE, report.round, report.client, bytes);
    for number in [
        report.examples.0,
        report.steps,
        metrics.examples_processed,
        metrics.examples_clipped,
        metrics.mean_loss.to_bits(),
    ] {
        message.extend(number.to_le_bytes());
    }
    message.push(u8::from(report.work == WorkDone::Partial));
    message.push(ring.map_or(0, |vector| vector.plan().bits() as u8));
    message.extend([0; 6]);
    let (weight, saturated) = ring.map_or((0, 0), |it| (it.weight().0, it.saturated()));
    for number in [weight, saturated, values as u64] {
        message.extend(number.to_le_bytes());
    }
    match payload {
        Payload::Dense(values) => {
            message.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Payload::Ring(vector) => {
            let plan = vector.plan();
            let elements = vector.values().iter().map(|&value| plan.to_ring(value));
            pack(elements, plan.bits(), &mut message);
        }
    }
    sealed(message)
}

/// Reads [`encode_update`]'s message for a model of so many parameters: floats without `ring`, else
/// elements of that ring. The [cost](Report::cost) is zero.
///
/// # Errors
/// [`WireError`].
pub fn decode_update(
    message: &[u8],
    parameters: usize,
    ring: Option<&RingPlan>,
) -> Result<ClientUpdate, WireError> {
    let mut reader = Reader::open(message, UPDATE, "update")?;
    let (round, client) = reader.head()?;
    let [examples, steps, processed, clipped, loss] = [
        reader.u64()?,
        reader.u64()?,
        reader.u64()?,
        reader.u64()?,
        reader.u64()?,
    ];
    let flags = reader.take(8)?;
    let work = match flags.first() {
        Some(0) => WorkDone::Full,
        Some(1) => WorkDone::Partial,
        _ => return Err(WireError::Value { field: "work" }),
    };
    let found_bits = u32::from(flags.get(1).copied().unwrap_or(0));
    let (weight, saturated, found) = (Weight(reader.u64()?), reader.u64()?, reader.u64()?);
    let bits = ring.map_or(0, RingPlan::bits);
    reader.form(parameters, bits, found, found_bits)?;
    let width = if bits == 0 { 32 } else { bits };
    let bytes = reader.rest(packed_bytes(found, width))?;
    let payload = match ring {
        None => Payload::Dense(floats(bytes)),
        Some(ring) => {
            let values = unpack(bytes, bits, parameters)
                .map(|element| ring.from_ring(element))
                .collect();
            let vector = RingVector::received(*ring, values, weight, saturated);
            Payload::Ring(vector.ok_or(WireError::Value { field: "weight" })?)
        }
    };
    Ok(ClientUpdate {
        report: Report {
            client,
            round,
            examples: ExampleCount(examples),
            steps,
            work,
            cost: Cost::default(),
        },
        payload,
        metrics: LocalResult {
            examples: ExampleCount(examples),
            examples_processed: processed,
            steps,
            mean_loss: f64::from_bits(loss),
            examples_clipped: clipped,
        },
    })
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

/// Appends the lowest `bits` of each element, without gaps.
fn pack(elements: impl Iterator<Item = u64>, bits: u32, into: &mut Vec<u8>) {
    let (mut held, mut count) = (0u128, 0u32);
    for element in elements {
        held |= u128::from(element) << count;
        count += bits;
        while count >= 8 {
            into.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        into.push(held as u8);
    }
}

/// The first `length` elements of what [`pack`] wrote.
fn unpack(bytes: &[u8], bits: u32, length: usize) -> impl Iterator<Item = u64> {
    let mut bytes = bytes.iter();
    let (mut held, mut count) = (0u128, 0u32);
    let mask = u64::MAX >> (64 - bits.clamp(1, 64));
    (0..length).map_while(move |_| {
        while count < bits {
            held |= u128::from(*bytes.next()?) << count;
            count += 8;
        }
        let element = held as u64 & mask;
        held >>= bits;
        count -= bits;
        Some(element)
    })
}

/// What is left of a message whose checksum was right.
struct Reader<'a> {
    left: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn open(message: &'a [u8], magic: [u8; 4], expected: &'static str) -> Result<Self, WireError> {
        let whole = message.len();
        let content = whole
            .checked_sub(CHECKSUM)
            .filter(|content| *content >= HEAD);
        let Some((content, checksum)) = content.and_then(|at| message.split_at_checked(at)) else {
            return Err(WireError::Length {
                expected: (HEAD + CHECKSUM) as u64,
                found: whole as u64,
            });
        };
        let [low, high] = VERSION.to_le_bytes();
        let [a, b, c, d] = magic;
        if !content.starts_with(&[a, b, c, d, low, high, 0, 0]) {
            return Err(WireError::Kind { expected });
        }
        if Sha256::digest(content).as_slice() != checksum {
            return Err(WireError::Checksum);
        }
        Ok(Self {
            left: content.get(8..).unwrap_or_default(),
            whole,
        })
    }

    fn head(&mut self) -> Result<(RoundId, ClientId), WireError> {
        Ok((RoundId(self.u64()?), ClientId(self.u64()?)))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, left)) = self.left.split_at_checked(bytes) else {
            return Err(self.short(bytes as u64));
        };
        self.left = left;
        Ok(taken)
    }

    /// All that is left, which must be so many bytes.
    fn rest(&mut self, bytes: u64) -> Result<&'a [u8], WireError> {
        if self.left.len() as u64 != bytes {
            return Err(self.short(bytes));
        }
        Ok(core::mem::take(&mut self.left))
    }

    fn short(&self, needed: u64) -> WireError {
        let read = (self.whole - self.left.len()) as u64;
        WireError::Length {
            expected: read.saturating_add(needed),
            found: self.whole as u64,
        }
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        let bytes = self.take(8)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Whether the values are as many and as wide as asked for.
    fn form(
        &self,
        expected: usize,
        bits: u32,
        found: u64,
        found_bits: u32,
    ) -> Result<(), WireError> {
        match found == expected as u64 && found_bits == bits {
            true => Ok(()),
            false => Err(WireError::Form {
                expected: expected as u64,
                bits,
                found,
                found_bits,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::WeightBounds;
    use alloc::vec;
    use proptest::prelude::*;

    fn update(payload: Payload) -> ClientUpdate {
        let examples = ExampleCount(600);
        ClientUpdate {
            report: Report {
                client: ClientId(9),
                round: RoundId(7),
                examples,
                steps: 60,
                work: WorkDone::Partial,
                cost: Cost::default(),
            },
            payload,
            metrics: LocalResult {
                examples,
                examples_processed: 600,
                steps: 60,
                mean_loss: 1.25,
                examples_clipped: 3,
            },
        }
    }

    fn ring(range: f64, resolution: f64) -> RingPlan {
        RingPlan::new(WeightBounds::new(Weight(3), 5), range, resolution).unwrap()
    }

    /// Byte by byte, by hand; the checksum by Python's hashlib.
    #[test]
    fn the_bytes_are_frozen() {
        let message = encode_update(&update(Payload::Dense(vec![1.0, -2.5])));
        let mut expected = b"FLUP\x01\0\0\0".to_vec();
        for number in [7u64, 9, 600, 60, 600, 3, 0x3ff4_0000_0000_0000] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        for number in [0u64, 0, 2] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend([0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        assert_eq!(message[..message.len() - 32], expected);
        let checksum = &message[message.len() - 32..];
        assert_eq!(checksum[..4], CHECKSUM_BY_PYTHON);
    }

    /// `hashlib.sha256(b"FLUP\x01\0\0\0" + struct.pack("<6Qd8B3Q2f", 7, 9, 600, 60, 600, 3, 1.25,
    /// 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1.0, -2.5)).digest()[:4]`
    const CHECKSUM_BY_PYTHON: [u8; 4] = [0xa6, 0x00, 0x30, 0x88];

    #[test]
    fn lengths_are_those_of_the_messages() {
        for parameters in [0usize, 1, 3, 1000] {
            let values = vec![0.5; parameters];
            let task = encode_task(RoundId(1), ClientId(2), b"plan", &values);
            assert_eq!(task.len() as u64, task_bytes(parameters as u64, 4));
            let dense = encode_update(&update(Payload::Dense(values.clone())));
            assert_eq!(dense.len() as u64, update_bytes(parameters as u64, None));
            for ring in [ring(8.0, 1.0), ring(8.0, 1e-9), ring(1.0, 0.25)] {
                let vector = RingVector::encode(ring, &values, Weight(2)).unwrap();
                let message = encode_update(&update(Payload::Ring(vector)));
                let bytes = update_bytes(parameters as u64, Some(&ring));
                assert_eq!(message.len() as u64, bytes);
            }
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let message = encode_update(&update(Payload::Dense(vec![1.0, 2.0])));
        let form = decode_update(&message, 3, None).unwrap_err();
        assert!(matches!(
            form,
            WireError::Form {
                expected: 3,
                found: 2,
                ..
            }
        ));
        let form = decode_update(&message, 2, Some(&ring(8.0, 1.0))).unwrap_err();
        assert!(matches!(form, WireError::Form { found_bits: 0, .. }));
        let kind = decode_task(&message, 2).unwrap_err();
        assert_eq!(kind, WireError::Kind { expected: "task" });
        assert_eq!(
            kind.to_string(),
            "the message is no task of this version; update the sender"
        );
    }

    /// The same with a checksum that is right: a hostile sender.
    fn resealed(mut message: Vec<u8>) -> Vec<u8> {
        message.truncate(message.len() - CHECKSUM);
        sealed(message)
    }

    proptest! {
        #[test]
        fn updates_come_as_they_were_sent(
            values in proptest::collection::vec(-8.0f32..8.0, 0..50),
            weight in 1u64..=3,
            resolution in prop_oneof![Just(1.0), Just(0.01), Just(1e-7), Just(1e-12)],
        ) {
            let dense = update(Payload::Dense(values.clone()));
            let message = encode_update(&dense);
            prop_assert_eq!(decode_update(&message, values.len(), None), Ok(dense));
            let ring = ring(8.0, resolution);
            let vector = RingVector::encode(ring, &values, Weight(weight)).unwrap();
            let sent = update(Payload::Ring(vector));
            let message = encode_update(&sent);
            prop_assert_eq!(decode_update(&message, values.len(), Some(&ring)), Ok(sent));
            let task = encode_task(RoundId(3), ClientId(4), b"a plan", &values);
            let read = decode_task(&task, values.len()).unwrap();
            prop_assert_eq!((read.plan, &read.global), (&b"a plan"[..], &values));
        }

        #[test]
        fn no_damage_passes_and_none_panics(
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
            cut in any::<proptest::sample::Index>(),
        ) {
            let ring = ring(8.0, 0.01);
            let vector = RingVector::encode(ring, &[1.0, -3.0, 0.25], Weight(2)).unwrap();
            for (payload, ring) in [
                (Payload::Dense(vec![1.0, 2.0, 3.0]), None),
                (Payload::Ring(vector), Some(&ring)),
            ] {
                let sent = update(payload);
                let mut message = encode_update(&sent);
                let cut = cut.index(message.len());
                prop_assert!(decode_update(&message[..cut], 3, ring).is_err());
                let at = at.index(message.len());
                message[at] ^= 1 << bit;
                prop_assert!(decode_update(&message, 3, ring).is_err());
                // With a right checksum another update may come out, but no panic.
                let _ = decode_update(&resealed(message), 3, ring);
            }
        }
    }
}
