//! The append-only file that a running variant writes into, before its records become Parquet.
//!
//! ```text
//! header   magic "FLJRNL" 0 1 · 32 bytes: digest of the configuration
//! frame    length of the payload u32 · tag u8 · payload · first 8 bytes of SHA-256 of all before
//! ```
//!
//! Numbers are little-endian and floating-point numbers are stored by their bits. Reading stops at
//! the first frame that is not whole, so that a torn tail (the program was killed in the middle of
//! a write) is dropped. The length of the journal at a checkpoint is stored in the checkpoint; a
//! resumed run cuts the journal to it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::ResultsError;
use super::row::{
    Cell, ClientRow, ColumnKind, EvaluationRow, FaultsRow, FleetRow, GroupsRow, PartitionRow,
    PatchRow, PrivacyRow, PruningRow, RegionsRow, RolloutRow, RoundRow, Row, SecAggRow, TensorRow,
    TimelineRow, TimingRow,
};

const MAGIC: [u8; 8] = *b"FLJRNL\0\x01";
const HEADER: usize = MAGIC.len() + 32;
const CHECKSUM: usize = 8;
/// Bytes gathered before they are handed to the system.
const BUFFER: usize = 1 << 16;

/// One thing that a journal remembers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// What is known before the first round, as TOML.
    Facts(String),
    /// A row of `partition`.
    Partition(PartitionRow),
    /// A row of `rounds`.
    Round(RoundRow),
    /// A row of `evaluation`.
    Evaluation(EvaluationRow),
    /// A row of `clients`.
    Client(ClientRow),
    /// A row of `timing`.
    Timing(TimingRow),
    /// A row of `privacy`.
    Privacy(PrivacyRow),
    /// A row of `secagg`.
    SecAgg(Box<SecAggRow>),
    /// A row of `groups`.
    Groups(GroupsRow),
    /// A row of `patches`.
    Patch(PatchRow),
    /// A row of `pruning`.
    Pruning(PruningRow),
    /// A row of `fleet`.
    Fleet(Box<FleetRow>),
    /// A row of `timeline`.
    Timeline(Box<TimelineRow>),
    /// A row of `rollout`.
    Rollout(Box<RolloutRow>),
    /// A row of `regions`.
    Regions(RegionsRow),
    /// A row of `faults`.
    Faults(FaultsRow),
    /// A row of `tensors`.
    Tensor(TensorRow),
    /// The run is over and its model is written: the model's digest.
    Finished(String),
}

impl Entry {
    fn tag(&self) -> u8 {
        match self {
            Self::Facts(_) => 1,
            Self::Partition(_) => 2,
            Self::Round(_) => 3,
            Self::Evaluation(_) => 4,
            Self::Client(_) => 5,
            Self::Timing(_) => 6,
            Self::Finished(_) => 7,
            Self::Privacy(_) => 8,
            Self::SecAgg(_) => 9,
            Self::Groups(_) => 10,
            Self::Patch(_) => 11,
            Self::Pruning(_) => 12,
            Self::Fleet(_) => 13,
            Self::Timeline(_) => 15,
            Self::Faults(_) => 21,
            Self::Regions(_) => 20,
            Self::Rollout(_) => 14,
            Self::Tensor(_) => 22,
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Facts(text) | Self::Finished(text) => bytes.extend_from_slice(text.as_bytes()),
            Self::Partition(row) => encode_row(row, bytes),
            Self::Round(row) => encode_row(row, bytes),
            Self::Evaluation(row) => encode_row(row, bytes),
            Self::Client(row) => encode_row(row, bytes),
            Self::Timing(row) => encode_row(row, bytes),
            Self::Privacy(row) => encode_row(row, bytes),
            Self::SecAgg(row) => encode_row(&**row, bytes),
            Self::Groups(row) => encode_row(row, bytes),
            Self::Patch(row) => encode_row(row, bytes),
            Self::Pruning(row) => encode_row(row, bytes),
            Self::Fleet(row) => encode_row(&**row, bytes),
            Self::Timeline(row) => encode_row(&**row, bytes),
            Self::Faults(row) => encode_row(row, bytes),
            Self::Regions(row) => encode_row(row, bytes),
            Self::Rollout(row) => encode_row(&**row, bytes),
            Self::Tensor(row) => encode_row(row, bytes),
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        let text = || String::from_utf8(payload.to_vec()).ok();
        Some(match tag {
            1 => Self::Facts(text()?),
            2 => Self::Partition(decode_row(payload)?),
            3 => Self::Round(decode_row(payload)?),
            4 => Self::Evaluation(decode_row(payload)?),
            5 => Self::Client(decode_row(payload)?),
            6 => Self::Timing(decode_row(payload)?),
            7 => Self::Finished(text()?),
            8 => Self::Privacy(decode_row(payload)?),
            9 => Self::SecAgg(Box::new(decode_row(payload)?)),
            10 => Self::Groups(decode_row(payload)?),
            11 => Self::Patch(decode_row(payload)?),
            12 => Self::Pruning(decode_row(payload)?),
            13 => Self::Fleet(Box::new(decode_row(payload)?)),
            15 => Self::Timeline(Box::new(decode_row(payload)?)),
            21 => Self::Faults(decode_row(payload)?),
            20 => Self::Regions(decode_row(payload)?),
            14 => Self::Rollout(Box::new(decode_row(payload)?)),
            22 => Self::Tensor(decode_row(payload)?),
            _ => return None,
        })
    }
}

fn encode_row<R: Row>(row: &R, bytes: &mut Vec<u8>) {
    for cell in row.cells() {
        match cell {
            Cell::Count(value) => bytes.extend_from_slice(&value.to_le_bytes()),
            Cell::Real(value) => {
                bytes.push(u8::from(value.is_some()));
                bytes.extend_from_slice(&value.unwrap_or(0.0).to_bits().to_le_bytes());
            }
            Cell::Text(text) => {
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn decode_row<R: Row>(mut payload: &[u8]) -> Option<R> {
    let word = |payload: &mut &[u8]| -> Option<u64> {
        let (word, rest) = payload.split_first_chunk::<8>()?;
        *payload = rest;
        Some(u64::from_le_bytes(*word))
    };
    let mut cells = Vec::with_capacity(R::COLUMNS.len());
    for (_, kind) in R::COLUMNS {
        cells.push(match kind {
            ColumnKind::Count => Cell::Count(word(&mut payload)?),
            ColumnKind::Real | ColumnKind::OptionalReal => {
                let (&present, rest) = payload.split_first()?;
                payload = rest;
                let value = f64::from_bits(word(&mut payload)?);
                Cell::Real((present == 1).then_some(value))
            }
            ColumnKind::Text => {
                let length = usize::try_from(word(&mut payload)?).ok()?;
                let (text, rest) = payload.split_at_checked(length)?;
                payload = rest;
                Cell::Text(core::str::from_utf8(text).ok()?.to_owned())
            }
        });
    }
    if payload.is_empty() {
        R::from_cells(&cells)
    } else {
        None
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Frames not yet handed to the system.
    pending: Vec<u8>,
    /// Bytes of whole frames, pending ones included.
    length: u64,
    payload: Vec<u8>,
}

impl Journal {
    /// A new journal; one that stood there is replaced.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn create(path: &Path, configuration: &[u8; 32]) -> Result<Self, ResultsError> {
        let create = || -> io::Result<File> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = File::create(path)?;
            file.write_all(&MAGIC)?;
            file.write_all(configuration)?;
            Ok(file)
        };
        Ok(Self {
            file: create().map_err(|error| ResultsError::write(path, error))?,
            path: path.to_owned(),
            pending: Vec::with_capacity(BUFFER),
            length: HEADER as u64,
            payload: Vec::new(),
        })
    }

    /// The journal at `path`, cut to `position`, to be continued.
    ///
    /// # Errors
    /// [`ResultsError::OtherConfiguration`], [`ResultsError::JournalTooShort`], or what the system
    /// refused.
    pub(crate) fn resume(
        path: &Path,
        configuration: &[u8; 32],
        position: u64,
    ) -> Result<(Self, Vec<Entry>), ResultsError> {
        let found = read(path, configuration, Some(position))?;
        if found.length != position {
            return Err(ResultsError::JournalTooShort {
                path: path.to_owned(),
                found: found.length,
                needed: position,
            });
        }
        let open = || -> io::Result<File> {
            let mut file = File::options().read(true).write(true).open(path)?;
            file.set_len(position)?;
            file.seek(io::SeekFrom::End(0))?;
            Ok(file)
        };
        let journal = Self {
            file: open().map_err(|error| ResultsError::write(path, error))?,
            path: path.to_owned(),
            pending: Vec::with_capacity(BUFFER),
            length: position,
            payload: Vec::new(),
        };
        Ok((journal, found.entries))
    }

    /// Adds an entry. It is durable after [`Journal::sync`].
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), ResultsError> {
        self.payload.clear();
        entry.encode(&mut self.payload);
        let length = u32::try_from(self.payload.len())
            .map_err(|_| ResultsError::Encode {
                path: self.path.clone(),
                what: "a record of more than 4 GiB",
                why: "a journal's records are smaller".to_owned(),
            })?
            .to_le_bytes();
        let tag = [entry.tag()];
        let sum = checksum(&[&length, &tag, &self.payload]);
        for part in [&length[..], &tag, &self.payload, &sum] {
            self.pending.extend_from_slice(part);
            self.length += part.len() as u64;
        }
        if self.pending.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ResultsError> {
        let written = self.file.write_all(&self.pending);
        self.pending.clear();
        written.map_err(|error| ResultsError::write(&self.path, error))
    }

    /// Makes everything appended durable and says how long the journal is.
    ///
    /// # Errors
    /// [`ResultsError::Write`].
    pub(crate) fn sync(&mut self) -> Result<u64, ResultsError> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(|error| ResultsError::write(&self.path, error))?;
        Ok(self.length)
    }
}

/// What a journal holds.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Whole entries, in order.
    pub(crate) entries: Vec<Entry>,
    /// Bytes up to the end of the last whole entry.
    pub(crate) length: u64,
}

/// Reads the whole entries of a journal, those that end at or before `limit`.
///
/// # Errors
/// [`ResultsError::Read`], [`ResultsError::Damaged`] when it is no journal, or
/// [`ResultsError::OtherConfiguration`].
pub(crate) fn read(
    path: &Path,
    configuration: &[u8; 32],
    limit: Option<u64>,
) -> Result<Contents, ResultsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| ResultsError::read(path, error))?;
    parse(path, &bytes, configuration, limit)
}

fn parse(
    path: &Path,
    bytes: &[u8],
    configuration: &[u8; 32],
    limit: Option<u64>,
) -> Result<Contents, ResultsError> {
    let Some(found) = bytes.get(MAGIC.len()..HEADER) else {
        return Err(ResultsError::damaged(path, "it is shorter than its header"));
    };
    if bytes[..MAGIC.len()] != MAGIC {
        return Err(ResultsError::damaged(
            path,
            "it does not start as a journal",
        ));
    }
    if found != configuration {
        return Err(ResultsError::OtherConfiguration {
            path: path.to_owned(),
        });
    }
    let end = limit.map_or(bytes.len(), |limit| {
        usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(bytes.len())
    });
    let mut rest = &bytes[HEADER.min(end)..end];
    let mut entries = Vec::new();
    let mut length = HEADER as u64;
    while let Some((entry, tail)) = next_frame(rest) {
        entries.push(entry);
        length += (rest.len() - tail.len()) as u64;
        rest = tail;
    }
    Ok(Contents { entries, length })
}

/// The first frame of `bytes` and what follows it; none when the frame is not whole.
fn next_frame(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (&tag, rest) = rest.split_first()?;
    let payload_length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(payload_length)?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    if *sum != checksum(&[length, &[tag], payload]) {
        return None;
    }
    Some((Entry::decode(tag, payload)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(round: u64) -> Entry {
        Entry::Round(RoundRow {
            round,
            cohort: 10,
            reported: 9,
            dropped: 1,
            stragglers: 0,
            rejected: 0,
            surplus: 0,
            saturated: 0,
            examples: 1000,
            examples_processed: 5000,
            steps: 500,
            train_loss: round.is_multiple_of(2).then_some(f64::NAN),
            update_norm: 0.1,
            learning_rate: -0.0,
            bytes_down: 1,
            bytes_up: 2,
        })
    }

    fn sample() -> Vec<Entry> {
        vec![
            Entry::Facts("a = 1\n".to_owned()),
            Entry::Partition(PartitionRow {
                client: 1,
                class: 2,
                class_name: "Röcke".to_owned(),
                examples: 3,
            }),
            round(0),
            Entry::Evaluation(EvaluationRow {
                round: 1,
                test_loss: Some(0.5),
                test_accuracy: None,
                test_loss_int8: None,
                test_accuracy_int8: None,
                train_loss: None,
                train_accuracy: Some(0.25),
                train_clients: 0,
            }),
            Entry::Client(ClientRow {
                round: 1,
                client: 7,
                split: "test".to_owned(),
                examples: 8,
                loss: f64::INFINITY,
                accuracy: 0.0,
            }),
            Entry::Timing(TimingRow {
                what: "round".to_owned(),
                round: 0,
                seconds: 1.5,
            }),
            Entry::Finished("ab".to_owned()),
        ]
    }

    fn same(a: &[Entry], b: &[Entry]) -> bool {
        let bytes = |entries: &[Entry]| {
            let mut bytes = Vec::new();
            for entry in entries {
                bytes.push(entry.tag());
                entry.encode(&mut bytes);
            }
            bytes
        };
        bytes(a) == bytes(b)
    }

    #[test]
    fn every_truncation_yields_whole_entries_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let key = [3; 32];
        let mut journal = Journal::create(&path, &key).unwrap();
        let mut ends = vec![HEADER as u64];
        for entry in sample() {
            journal.append(&entry).unwrap();
            ends.push(journal.sync().unwrap());
        }
        let bytes = fs::read(&path).unwrap();
        assert_eq!(ends.last(), Some(&(bytes.len() as u64)));
        for cut in 0..=bytes.len() {
            let read = parse(&path, &bytes[..cut], &key, None);
            if cut < HEADER {
                assert!(matches!(read, Err(ResultsError::Damaged { .. })), "{cut}");
                continue;
            }
            let whole = ends.iter().filter(|&&end| end <= cut as u64).count() - 1;
            let contents = read.unwrap();
            assert_eq!(contents.length, ends[whole], "{cut}");
            assert!(same(&contents.entries, &sample()[..whole]), "{cut}");
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let key = [3; 32];
        let mut journal = Journal::create(&path, &key).unwrap();
        for entry in sample() {
            journal.append(&entry).unwrap();
        }
        journal.sync().unwrap();
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match parse(&path, &damaged, &key, None) {
                Ok(contents) => {
                    assert!(contents.entries.len() < sample().len(), "bit {bit}");
                    let kept = contents.entries.len();
                    assert!(same(&contents.entries, &sample()[..kept]), "bit {bit}");
                }
                Err(_) => assert!(bit / 8 < HEADER, "bit {bit}"),
            }
        }
    }

    #[test]
    fn a_resumed_journal_goes_on_at_its_position() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let key = [9; 32];
        let mut journal = Journal::create(&path, &key).unwrap();
        journal.append(&round(0)).unwrap();
        let position = journal.sync().unwrap();
        journal.append(&round(1)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        // A torn tail behind the checkpoint's position does not matter.
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&[1, 2, 3]).unwrap();
        let (mut journal, entries) = Journal::resume(&path, &key, position).unwrap();
        assert!(same(&entries, &[round(0)]));
        journal.append(&round(2)).unwrap();
        journal.sync().unwrap();
        let entries = read(&path, &key, None).unwrap().entries;
        assert!(same(&entries, &[round(0), round(2)]));

        assert!(matches!(
            Journal::resume(&path, &[8; 32], position),
            Err(ResultsError::OtherConfiguration { .. })
        ));
        assert!(matches!(
            Journal::resume(&path, &key, position + 1),
            Err(ResultsError::JournalTooShort { .. })
        ));
        assert!(matches!(
            Journal::resume(&path, &key, 1 << 40),
            Err(ResultsError::JournalTooShort { .. })
        ));
    }
}
