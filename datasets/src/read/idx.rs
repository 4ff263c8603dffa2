//! IDX, the format of MNIST and its relatives, plain or gzipped.
//!
//! Big-endian: `00 00 type ndim`, one `u32` per dimension, then the data, row-major. Types
//! `08` (u8), `09` (i8) and `0C` (i32) are read.
//!
//! # Source
//! LeCun, Cortes, Burges: The MNIST database, "File formats".

use std::io::Read;

use crate::error::DatasetError;
use crate::read::{DAMAGED, DEFLATE_RATIO, gzip_fault, is_gzip, malformed, no_trailing_gzip};

/// The most dimensions that are read.
const MOST_DIMENSIONS: u8 = 8;

/// An array as an IDX file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Row-major dimensions; at least one.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: IdxData,
}

/// The elements of an [`Idx`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdxData {
    /// Type `08`.
    U8(Vec<u8>),
    /// Type `09`.
    I8(Vec<i8>),
    /// Type `0C`.
    I32(Vec<i32>),
}

impl IdxData {
    /// The name of the element type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::I32(_) => "i32",
        }
    }
}

impl Idx {
    /// Reads an array; gzip is recognised by its magic.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] with the byte, what is there and what was expected: another
    /// magic or type, more data promised than the file can hold, a cut, or trailing bytes.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, DatasetError> {
        if !is_gzip(bytes) {
            return parse(file, bytes, bytes.len() as u64);
        }
        let most = (bytes.len() as u64).saturating_mul(DEFLATE_RATIO);
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        let array = parse(file, &mut decoder, most)?;
        no_trailing_gzip(file, bytes.len(), decoder.into_inner())?;
        Ok(array)
    }

    /// Rows: the first dimension.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// The elements as bytes with what a stored 0 stands for and the largest magnitude: `u8` as
    /// they are, `i8` with 128 added.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for other types.
    pub fn into_bytes(self, file: &str) -> Result<(Vec<u8>, i16, u16), DatasetError> {
        match self.data {
            IdxData::U8(data) => Ok((data, 0, 255)),
            IdxData::I8(data) => Ok((
                data.into_iter().map(|value| value as u8 ^ 0x80).collect(),
                -128,
                128,
            )),
            IdxData::I32(_) => Err(malformed(
                file,
                "byte 2",
                "elements of type i32",
                "u8 or i8 for inputs",
                "give the file of the inputs",
            )),
        }
    }

    /// The elements as whole numbers from zero, for labels and owners of rows.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for more than one dimension or a negative number.
    pub fn into_labels(self, file: &str) -> Result<Vec<u32>, DatasetError> {
        if self.shape.len() != 1 {
            return Err(malformed(
                file,
                "byte 3",
                format!("{} dimensions", self.shape.len()),
                "1 dimension, as labels have",
                "give the file of the labels",
            ));
        }
        let negative = |row: usize, value: i64| {
            malformed(
                file,
                format!("element {row}"),
                format!("{value}"),
                "a number from 0 on",
                "check that the file holds labels",
            )
        };
        match self.data {
            IdxData::U8(data) => Ok(data.into_iter().map(u32::from).collect()),
            IdxData::I8(data) => (data.into_iter().enumerate())
                .map(|(row, value)| u32::try_from(value).map_err(|_| negative(row, value.into())))
                .collect(),
            IdxData::I32(data) => (data.into_iter().enumerate())
                .map(|(row, value)| u32::try_from(value).map_err(|_| negative(row, value.into())))
                .collect(),
        }
    }
}

/// Reads exactly `into.len()` bytes.
fn exact(
    file: &str,
    reader: &mut impl Read,
    into: &mut [u8],
    at: u64,
    what: &str,
) -> Result<(), DatasetError> {
    let mut filled = 0;
    while filled < into.len() {
        match reader.read(&mut into[filled..]) {
            Ok(0) => {
                return Err(malformed(
                    file,
                    format!("byte {}", at + filled as u64),
                    "the end of the file",
                    what,
                    DAMAGED,
                ));
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(gzip_fault(file, at + filled as u64, &error)),
        }
    }
    Ok(())
}

/// Reads an array from `reader`, which can give at most `most` bytes.
fn parse(file: &str, mut reader: impl Read, most: u64) -> Result<Idx, DatasetError> {
    let mut magic = [0; 4];
    exact(
        file,
        &mut reader,
        &mut magic,
        0,
        "the 4 bytes of an IDX magic",
    )?;
    let (size, dimensions) = match magic {
        [0, 0, 0x08 | 0x09, n @ 1..=MOST_DIMENSIONS] => (1u64, n),
        [0, 0, 0x0C, n @ 1..=MOST_DIMENSIONS] => (4u64, n),
        [a, b, c, d] => {
            return Err(malformed(
                file,
                "byte 0",
                format!("{a:02x} {b:02x} {c:02x} {d:02x}"),
                "an IDX magic: 00 00, then type 08, 09 or 0c, then 1 to 8 dimensions",
                DAMAGED,
            ));
        }
    };
    let mut shape = Vec::with_capacity(usize::from(dimensions));
    let header = 4 + 4 * u64::from(dimensions);
    for dimension in 0..u64::from(dimensions) {
        let (mut bytes, at) = ([0; 4], 4 + 4 * dimension);
        exact(file, &mut reader, &mut bytes, at, "the size of a dimension")?;
        shape.push(u32::from_be_bytes(bytes) as usize);
    }
    let product = || {
        if shape.contains(&0) {
            return Some(0);
        }
        (shape.iter()).try_fold(1u64, |product, &length| product.checked_mul(length as u64))
    };
    let fits = |&elements: &u64| {
        let total = elements
            .checked_mul(size)
            .and_then(|bytes| bytes.checked_add(header));
        total.is_some_and(|total| total <= most)
    };
    let Some(elements) = product().filter(fits) else {
        return Err(malformed(
            file,
            "byte 4",
            format!("sizes {shape:?}"),
            format!("at most the {most} bytes that the file can hold"),
            DAMAGED,
        ));
    };
    let expected = elements * size;
    let mut data = Vec::new();
    let read = reader.by_ref().take(expected).read_to_end(&mut data);
    if let Err(error) = read {
        return Err(gzip_fault(file, header + data.len() as u64, &error));
    }
    if (data.len() as u64) < expected {
        return Err(malformed(
            file,
            format!("byte {}", header + data.len() as u64),
            "the end of the file",
            format!(
                "{} bytes, as the sizes {shape:?} promise",
                header + expected
            ),
            DAMAGED,
        ));
    }
    // Reading on must find the end; in gzip this also checks the checksum.
    let mut rest = [0; 1];
    loop {
        match reader.read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {
                return Err(malformed(
                    file,
                    format!("byte {}", header + expected),
                    "more bytes",
                    format!("the end of the file, as the sizes {shape:?} promise"),
                    DAMAGED,
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(gzip_fault(file, header + expected, &error)),
        }
    }
    let data = match magic[2] {
        0x08 => IdxData::U8(data),
        0x09 => IdxData::I8(data.into_iter().map(|byte| byte as i8).collect()),
        _ => IdxData::I32(
            data.chunks_exact(4)
                .map(|word| i32::from_be_bytes([word[0], word[1], word[2], word[3]]))
                .collect(),
        ),
    };
    Ok(Idx { shape, data })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn small() -> Vec<u8> {
        [
            &[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3][..],
            &[1, 2, 3, 4, 5, 255],
        ]
        .concat()
    }

    #[test]
    fn the_three_types_are_read() {
        let expected = Idx {
            shape: vec![2, 3],
            data: IdxData::U8(vec![1, 2, 3, 4, 5, 255]),
        };
        assert_eq!(Idx::parse("f", &small()).unwrap(), expected);
        assert_eq!(Idx::parse("f", &packed(&small())).unwrap(), expected);
        let signed = [0, 0, 9, 1, 0, 0, 0, 2, 0xff, 0x80];
        let signed = Idx::parse("f", &signed).unwrap();
        assert_eq!(signed.data, IdxData::I8(vec![-1, -128]));
        assert_eq!(signed.into_bytes("f").unwrap(), (vec![127, 0], -128, 128));
        let wide = [0, 0, 12, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe];
        let wide = Idx::parse("f", &wide).unwrap();
        assert_eq!(wide.data, IdxData::I32(vec![-2]));
        assert!(wide.into_labels("f").is_err());
    }

    #[test]
    fn messages() {
        let huge = [
            0, 0, 8, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7,
        ];
        let trailing = [&small()[..], &[9]].concat();
        let cases: &[(&[u8], &str)] = &[
            (
                b"\x89PNG",
                "f, byte 0: found 89 50 4e 47, expected an IDX magic: 00 00, then type 08, 09 or 0c, then 1 to 8 dimensions; the file is damaged or of another format; get it again",
            ),
            (
                &huge,
                "f, byte 4: found sizes [4294967295, 4294967295], expected at most the 13 bytes that the file can hold; the file is damaged or of another format; get it again",
            ),
            (
                &small()[..17],
                "f, byte 4: found sizes [2, 3], expected at most the 17 bytes that the file can hold; the file is damaged or of another format; get it again",
            ),
            (
                &trailing,
                "f, byte 18: found more bytes, expected the end of the file, as the sizes [2, 3] promise; the file is damaged or of another format; get it again",
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Idx::parse("f", bytes).unwrap_err().to_string(), *expected);
        }
        let after = [&packed(&small())[..], b"x"].concat();
        let message = Idx::parse("f", &after).unwrap_err().to_string();
        assert!(
            message.contains("1 bytes after the end of the gzip stream"),
            "{message}"
        );
        let long = packed(&trailing);
        let message = Idx::parse("f", &long).unwrap_err().to_string();
        assert!(message.contains("byte 18: found more bytes"), "{message}");
    }

    #[test]
    fn every_cut_is_an_error() {
        for whole in [small(), packed(&small())] {
            for length in 0..whole.len() {
                assert!(
                    Idx::parse("f", &whole[..length]).is_err(),
                    "cut at {length}"
                );
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_gzip_is_an_error_or_changes_no_data() {
        let whole = packed(&small());
        let right = Idx::parse("f", &whole).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // The header's time and system fields are covered by no checksum.
            if let Ok(found) = Idx::parse("f", &bytes) {
                assert_eq!(found, right, "bit {bit}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Idx::parse("f", &bytes);
            let mut headed = vec![0, 0, 8, 2];
            headed.extend_from_slice(&bytes);
            let _ = Idx::parse("f", &headed);
        }

        #[test]
        fn what_was_written_is_read(rows in 0usize..9, columns in 0usize..9, seed in proptest::prelude::any::<u8>()) {
            let data: Vec<u8> = (0..rows * columns).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let mut bytes = vec![0, 0, 8, 2];
            bytes.extend_from_slice(&(rows as u32).to_be_bytes());
            bytes.extend_from_slice(&(columns as u32).to_be_bytes());
            bytes.extend_from_slice(&data);
            let expected = Idx { shape: vec![rows, columns], data: IdxData::U8(data) };
            proptest::prop_assert_eq!(Idx::parse("f", &packed(&bytes)).unwrap(), expected.clone());
            proptest::prop_assert_eq!(Idx::parse("f", &bytes).unwrap(), expected);
        }
    }
}
