//! CIFAR-10: the binary batches, and a lossless picture of one batch.
//!
//! A binary record is 1 label byte, then 1,024 red, 1,024 green and 1,024 blue bytes, each
//! row-major. The picture ("sprite") form is a PNG of 1,024 columns in which row `i` is image
//! `i` and column `32 row + col` its pixel; its labels are an IDX file beside it.
//!
//! # Source
//! Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; the data set's page,
//! "Binary version".

use crate::error::DatasetError;
use crate::read::image::Image;
use crate::read::{DAMAGED, malformed};

/// Pixels of an image.
pub const PIXELS: usize = 32 * 32;
/// Bytes of an image.
pub const IMAGE: usize = PIXELS * 3;
/// Bytes of a record.
pub const RECORD: usize = IMAGE + 1;

/// Appends the images of a binary batch, as `[32, 32, 3]`, and their labels.
///
/// # Errors
/// [`DatasetError::Malformed`] when the size is not a whole number of records or a label is
/// above 9.
pub fn binary(
    file: &str,
    bytes: &[u8],
    images: &mut Vec<u8>,
    labels: &mut Vec<u8>,
) -> Result<(), DatasetError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(malformed(
            file,
            "size",
            format!("{} bytes", bytes.len()),
            format!("a multiple of {RECORD}, the bytes of one image and its label"),
            DAMAGED,
        ));
    }
    images.reserve(bytes.len());
    for (row, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] > 9 {
            return Err(malformed(
                file,
                format!("byte {}", row * RECORD),
                format!("label {}", record[0]),
                "a label from 0 to 9",
                DAMAGED,
            ));
        }
        labels.push(record[0]);
        let (red, rest) = record[1..].split_at(PIXELS);
        let (green, blue) = rest.split_at(PIXELS);
        for ((&red, &green), &blue) in red.iter().zip(green).zip(blue) {
            images.extend([red, green, blue]);
        }
    }
    Ok(())
}

/// The images of a picture of a batch, as `[32, 32, 3]`.
///
/// # Errors
/// [`DatasetError::Malformed`] when it is no whole RGB PNG of 1,024 columns.
pub fn sprite(file: &str, bytes: &[u8]) -> Result<Vec<u8>, DatasetError> {
    let image = Image::png(file, bytes)?;
    if image.width != PIXELS || image.channels != 3 {
        return Err(malformed(
            file,
            "PNG header",
            format!("{} columns of {} channels", image.width, image.channels),
            format!("{PIXELS} columns of 3 channels, one row per image"),
            "give the picture of a batch",
        ));
    }
    Ok(image.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_interleaved() {
        let mut record = vec![7u8];
        for plane in 0..3u8 {
            record.extend((0..PIXELS).map(|pixel| plane * 64 + (pixel % 64) as u8));
        }
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        binary(
            "f",
            &[record.clone(), record].concat(),
            &mut images,
            &mut labels,
        )
        .unwrap();
        assert_eq!(labels, [7, 7]);
        assert_eq!(images.len(), 2 * IMAGE);
        assert_eq!(images[IMAGE..IMAGE + 6], [0, 64, 128, 1, 65, 129]);
    }

    #[test]
    fn wrong_sizes_and_labels_are_refused() {
        let read = |bytes: &[u8]| {
            binary("f", bytes, &mut Vec::new(), &mut Vec::new())
                .unwrap_err()
                .to_string()
        };
        assert!(read(&[]).starts_with("f, size: found 0 bytes, expected a multiple of 3073"));
        assert!(read(&[0; RECORD + 1]).starts_with("f, size: found 3074 bytes"));
        let mut bytes = vec![0; 2 * RECORD];
        bytes[RECORD] = 10;
        assert!(read(&bytes).starts_with("f, byte 3073: found label 10, expected a label from 0"));
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = vec![1; 2 * RECORD];
        for length in (0..bytes.len())
            .filter(|length| length % RECORD != 0)
            .chain([0])
        {
            let cut = binary("f", &bytes[..length], &mut Vec::new(), &mut Vec::new());
            assert!(cut.is_err(), "cut at {length}");
        }
    }
}
