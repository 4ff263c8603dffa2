//! The bytes of a checkpoint file.
//!
//! All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `\x89FLCKPT\n` |
//! | 4 | version, 3 |
//! | 32 + 32 + 32 | digests of the configuration, the data and the model's layout |
//! | 4 + n | name of the kernel, UTF-8, n at most 256 |
//! | 8 | rounds done |
//! | 8 | the recorder's position |
//! | 1 + 8 | 0 before this round's evaluation, 1 after it, 2 if it gave an accuracy; its `f64` bits, else zeros |
//! | 8 + n | the strategy's state |
//! | 8 + n | the privacy plan's state with its ledger, JSON; empty without privacy |
//! | 8 + 8 + n | rounds of the served model evaluated last, and its file; zeros and empty without |
//! | 32 | SHA-256 of everything before |

use std::io::{self, Read};
use std::sync::Arc;

use fl_core::RoundId;
use sha2::{Digest as _, Sha256};

use super::DiskFile;
use crate::record::RecorderPosition;

const MAGIC: [u8; 8] = *b"\x89FLCKPT\n";
const VERSION: u32 = 3;
const CHECKSUM_LEN: u64 = 32;
const MAX_KERNEL_LEN: u32 = 256;
/// Magic, version, three digests, length of the kernel's name, round, position, accuracy, length
/// of the state, length of the privacy plan's state, the served model's round and length, checksum.
const MIN_LEN: u64 = 8 + 4 + 3 * 32 + 4 + 8 + 8 + 9 + 8 + 8 + 8 + 8 + CHECKSUM_LEN;

/// What a checkpoint belongs to. A run resumes only from a checkpoint with its own identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Digest of everything in the configuration that changes the model or what is recorded.
    pub config: [u8; 32],
    /// Digest of the data and their division into clients.
    pub data: [u8; 32],
    /// Digest of the names and shapes of the model's parameters.
    pub layout: [u8; 32],
    /// Name of the arithmetic kernels.
    pub kernel: String,
}

/// A run after some whole number of rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What it belongs to.
    pub identity: Identity,
    /// Rounds done.
    pub round: RoundId,
    /// Where the recorder stood.
    pub position: RecorderPosition,
    /// Whether the global model was evaluated after this round.
    pub evaluated: bool,
    /// Its accuracy then.
    pub accuracy: Option<f64>,
    /// The strategy's state, with the global parameters, as the simulation encodes it.
    pub state: Vec<u8>,
    /// The privacy plan's state with its ledger; empty without privacy.
    pub privacy: String,
    /// The served model that was evaluated last, where patches between such are weighed.
    pub served: Option<ServedFile>,
}

/// A served model's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedFile {
    /// Rounds that the model had seen.
    pub round: u64,
    /// The file, not empty.
    pub bytes: Arc<Vec<u8>>,
}

/// What is wrong with a checkpoint file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointFault {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is shorter than the shortest checkpoint.
    #[error("holds {found} bytes where a checkpoint has at least {expected}")]
    TooShort {
        /// Bytes found.
        found: u64,
        /// Bytes of the shortest checkpoint.
        expected: u64,
    },
    /// The file does not begin as a checkpoint.
    #[error("is not a checkpoint: its first bytes are not a checkpoint's")]
    Magic,
    /// The file's version is not known.
    #[error("has version {found} where this program reads version {expected}")]
    Version {
        /// The version found.
        found: u32,
        /// The version that can be read.
        expected: u32,
    },
    /// The contents do not have the checksum that the file ends with.
    #[error("is damaged: its checksum does not match its contents")]
    Checksum,
    /// A length inside the file does not fit the file.
    #[error("is damaged: {field} would need {needed} bytes where {left} are left")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes that its length asks for.
        needed: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// A field's value is not possible.
    #[error("is damaged: {0} has an impossible value")]
    Value(&'static str),
}

/// Writes `checkpoint` to `file`; does not sync.
pub(super) fn encode(checkpoint: &Checkpoint, file: &mut dyn DiskFile) -> io::Result<()> {
    let mut out = Hashing {
        file,
        hash: Sha256::new(),
    };
    let identity = &checkpoint.identity;
    let kernel = identity.kernel.as_bytes();
    let kernel = &kernel[..kernel.len().min(MAX_KERNEL_LEN as usize)];
    let mut head = Vec::with_capacity(MIN_LEN as usize + kernel.len());
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&identity.config);
    head.extend_from_slice(&identity.data);
    head.extend_from_slice(&identity.layout);
    head.extend_from_slice(&(kernel.len() as u32).to_le_bytes());
    head.extend_from_slice(kernel);
    head.extend_from_slice(&checkpoint.round.0.to_le_bytes());
    head.extend_from_slice(&checkpoint.position.0.to_le_bytes());
    head.push(match (checkpoint.evaluated, checkpoint.accuracy) {
        (false, _) => 0,
        (true, None) => 1,
        (true, Some(_)) => 2,
    });
    head.extend_from_slice(&checkpoint.accuracy.unwrap_or(0.0).to_bits().to_le_bytes());
    head.extend_from_slice(&(checkpoint.state.len() as u64).to_le_bytes());
    out.write(&head)?;
    out.write_long(&checkpoint.state)?;
    out.write(&(checkpoint.privacy.len() as u64).to_le_bytes())?;
    out.write(checkpoint.privacy.as_bytes())?;
    let (round, served) = match &checkpoint.served {
        Some(served) => (served.round, served.bytes.as_slice()),
        None => (0, &[][..]),
    };
    out.write(&round.to_le_bytes())?;
    out.write(&(served.len() as u64).to_le_bytes())?;
    out.write_long(served)?;
    let checksum = out.hash.finalize();
    file.write_all(&checksum)
}

struct Hashing<'a> {
    file: &'a mut dyn DiskFile,
    hash: Sha256,
}

impl Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    /// In pieces, so that what is hashed is still in the cache when it is written.
    fn write_long(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(1 << 20)
            .try_for_each(|chunk| self.write(chunk))
    }
}

/// Checks that `input`, of `length` bytes, begins as a checkpoint and has the checksum that it
/// ends with. Needs constant memory.
pub(super) fn check(length: u64, input: &mut dyn Read) -> Result<(), CheckpointFault> {
    if length < MIN_LEN {
        return Err(CheckpointFault::TooShort {
            found: length,
            expected: MIN_LEN,
        });
    }
    let mut hash = Sha256::new();
    let mut head = [0u8; 12];
    read_exact(input, &mut head, "the head")?;
    if head[..8] != MAGIC {
        return Err(CheckpointFault::Magic);
    }
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if version != VERSION {
        return Err(CheckpointFault::Version {
            found: version,
            expected: VERSION,
        });
    }
    hash.update(head);
    let mut left = length - head.len() as u64 - CHECKSUM_LEN;
    let mut chunk = vec![0u8; 1 << 16];
    while left > 0 {
        let part = &mut chunk[..left.min(1 << 16) as usize];
        read_exact(input, part, "the contents")?;
        hash.update(&part[..]);
        left -= part.len() as u64;
    }
    let mut checksum = [0u8; CHECKSUM_LEN as usize];
    read_exact(input, &mut checksum, "the checksum")?;
    if hash.finalize()[..] != checksum {
        return Err(CheckpointFault::Checksum);
    }
    Ok(())
}

/// Reads a checkpoint that passed [`check`]; every length is still checked against the file's.
pub(super) fn decode(length: u64, input: &mut dyn Read) -> Result<Checkpoint, CheckpointFault> {
    let mut reader = Reader {
        input,
        left: length.saturating_sub(CHECKSUM_LEN),
    };
    reader.array::<12>("the head")?;
    let config = reader.array("the configuration's digest")?;
    let data = reader.array("the data's digest")?;
    let layout = reader.array("the model's digest")?;
    let kernel_len = u32::from_le_bytes(reader.array("the kernel's name")?);
    if kernel_len > MAX_KERNEL_LEN {
        return Err(CheckpointFault::Value("the length of the kernel's name"));
    }
    let kernel = String::from_utf8(reader.bytes("the kernel's name", u64::from(kernel_len))?)
        .map_err(|_| CheckpointFault::Value("the kernel's name"))?;
    let round = RoundId(u64::from_le_bytes(reader.array("the round")?));
    let position = RecorderPosition(u64::from_le_bytes(reader.array("the recorder's position")?));
    let [evaluation] = reader.array("the accuracy")?;
    let accuracy = f64::from_bits(u64::from_le_bytes(reader.array("the accuracy")?));
    let (evaluated, accuracy) = match evaluation {
        0 => (false, None),
        1 => (true, None),
        2 => (true, Some(accuracy)),
        _ => return Err(CheckpointFault::Value("the accuracy")),
    };
    let state_len = u64::from_le_bytes(reader.array("the length of the state")?);
    let state = reader.bytes("the state", state_len)?;
    let privacy_len = u64::from_le_bytes(reader.array("the length of the privacy ledger")?);
    let privacy = String::from_utf8(reader.bytes("the privacy ledger", privacy_len)?)
        .map_err(|_| CheckpointFault::Value("the privacy ledger"))?;
    let served_round = u64::from_le_bytes(reader.array("the served model's round")?);
    let served_len = u64::from_le_bytes(reader.array("the length of the served model")?);
    let served = reader.bytes("the served model", served_len)?;
    let served = match (served.is_empty(), served_round) {
        (false, round) => Some(ServedFile {
            round,
            bytes: Arc::new(served),
        }),
        (true, 0) => None,
        (true, _) => return Err(CheckpointFault::Value("the served model's round")),
    };
    if reader.left != 0 {
        return Err(CheckpointFault::Value("the length of the file"));
    }
    Ok(Checkpoint {
        identity: Identity {
            config,
            data,
            layout,
            kernel,
        },
        round,
        position,
        evaluated,
        accuracy,
        state,
        privacy,
        served,
    })
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    /// Bytes before the checksum.
    left: u64,
}

impl Reader<'_> {
    fn claim(&mut self, field: &'static str, needed: u64) -> Result<(), CheckpointFault> {
        if needed > self.left {
            return Err(CheckpointFault::Length {
                field,
                needed,
                left: self.left,
            });
        }
        self.left -= needed;
        Ok(())
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CheckpointFault> {
        self.claim(field, N as u64)?;
        let mut bytes = [0; N];
        read_exact(self.input, &mut bytes, field)?;
        Ok(bytes)
    }

    /// Grows with what is read, so that a wrong length costs nothing.
    fn bytes(&mut self, field: &'static str, length: u64) -> Result<Vec<u8>, CheckpointFault> {
        self.claim(field, length)?;
        let mut bytes = Vec::new();
        (&mut *self.input).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(CheckpointFault::Length {
                field,
                needed: length,
                left: bytes.len() as u64,
            });
        }
        Ok(bytes)
    }
}

/// The end of the file is a fault of the file, not of the disk.
fn read_exact(
    input: &mut dyn Read,
    bytes: &mut [u8],
    field: &'static str,
) -> Result<(), CheckpointFault> {
    input.read_exact(bytes).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            CheckpointFault::Length {
                field,
                needed: bytes.len() as u64,
                left: 0,
            }
        } else {
            CheckpointFault::Io(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Checkpoint {
        Checkpoint {
            identity: Identity {
                config: [1; 32],
                data: [2; 32],
                layout: [3; 32],
                kernel: "portable".to_owned(),
            },
            round: RoundId(17),
            position: RecorderPosition(4096),
            evaluated: true,
            accuracy: Some(0.25),
            state: (0..=255).collect(),
            privacy: "[ledger]".to_owned(),
            served: Some(ServedFile {
                round: 15,
                bytes: Arc::new(vec![7; 40]),
            }),
        }
    }

    fn bytes(checkpoint: &Checkpoint) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        encode(checkpoint, &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Checkpoint, CheckpointFault> {
        let length = bytes.len() as u64;
        check(length, &mut &bytes[..])?;
        decode(length, &mut &bytes[..])
    }

    #[test]
    fn what_is_written_is_read() {
        let mut checkpoint = sample();
        assert_eq!(read(&bytes(&checkpoint)).unwrap(), checkpoint);
        checkpoint.accuracy = None;
        assert_eq!(read(&bytes(&checkpoint)).unwrap(), checkpoint);
        checkpoint.evaluated = false;
        checkpoint.state.clear();
        checkpoint.privacy.clear();
        checkpoint.served = None;
        checkpoint.identity.kernel.clear();
        let shortest = bytes(&checkpoint);
        assert_eq!(shortest.len() as u64, MIN_LEN);
        assert_eq!(read(&shortest).unwrap(), checkpoint);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused() {
        let bytes = bytes(&sample());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
            // Also without the protection of the checksum, and with a length that lies.
            assert!(decode(length as u64, &mut &bytes[..length]).is_err());
            assert!(check(bytes.len() as u64, &mut &bytes[..length]).is_err());
            assert!(
                decode(
                    bytes.len() as u64,
                    &mut &bytes[..length.min(bytes.len() - 33)]
                )
                .is_err()
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = bytes(&sample());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
            // The parser alone neither panics nor allocates by a wrong length.
            let _ = decode(damaged.len() as u64, &mut &damaged[..]);
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = bytes(&sample());
        bytes.extend_from_slice(&[0; 32]);
        assert!(matches!(read(&bytes), Err(CheckpointFault::Checksum)));
        assert!(matches!(
            decode(bytes.len() as u64, &mut &bytes[..]),
            Err(CheckpointFault::Value("the length of the file"))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(read(&bytes).is_err());
            let mut headed = MAGIC.to_vec();
            headed.extend_from_slice(&VERSION.to_le_bytes());
            headed.extend_from_slice(&bytes);
            prop_assert!(read(&headed).is_err());
            let _ = decode(headed.len() as u64, &mut &headed[..]);
        }
    }
}
