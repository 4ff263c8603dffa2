//! The operations whose number decides what a session costs. Tests count them as they happen, and
//! compare the counts with those of [`crate::cost`]; other builds count nothing.

/// One operation, as it is priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A public key from a secret one: fixed-base multiplication, encoding.
    PublicKey,
    /// Reading a public key: decoding and checking a point.
    DecodeKey,
    /// A key agreement: multiplication, encoding.
    Agree,
    /// A derived key or a commitment.
    Derive,
    /// A signature.
    Sign,
    /// The check of a signature.
    Verify,
    /// Sealing a packet.
    Seal,
    /// Opening a packet.
    Open,
    /// A byte hashed for a checksum or the roster's digest.
    Hash,
    /// One step of evaluating a polynomial: per limb, holder and coefficient.
    Split,
    /// One factor of a Lagrange weight: per pair of holders.
    Weight,
    /// One share's limb times its weight.
    Combine,
    /// A coordinate of one mask, expanded and added.
    Mask,
    /// A coordinate packed.
    Pack,
    /// A coordinate unpacked and added.
    Unpack,
    /// A coordinate brought from an input into words, or from words into a sum.
    Convert,
    /// An item of a list of clients: read, written, looked up or put in order.
    Entry,
}

/// How many operations there are.
pub(crate) const OPERATIONS: usize = Operation::Entry as usize + 1;

/// Notes that an operation was done so many times.
#[cfg(not(test))]
#[inline]
pub(crate) fn count(_: Operation, _: usize) {}

#[cfg(test)]
pub(crate) use counter::{count, take};

#[cfg(test)]
mod counter {
    use std::cell::Cell;

    use super::{OPERATIONS, Operation};

    thread_local! {
        static COUNTS: Cell<[u64; OPERATIONS]> = const { Cell::new([0; OPERATIONS]) };
    }

    pub(crate) fn count(operation: Operation, times: usize) {
        COUNTS.with(|counts| {
            let mut all = counts.get();
            all[operation as usize] += times as u64;
            counts.set(all);
        });
    }

    /// What this thread has done since it was last asked.
    pub(crate) fn take() -> [u64; OPERATIONS] {
        COUNTS.with(|counts| counts.replace([0; OPERATIONS]))
    }
}
