//! PNG pictures as bytes.

use std::io::Cursor;

use crate::error::DatasetError;
use crate::read::{DAMAGED, DEFLATE_RATIO, malformed};

/// A decoded picture: 8 bits, 1 channel (grey) or 3 (red, green, blue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Row-major, `[height, width, channels]`.
    pub data: Vec<u8>,
}

/// The chunk that ends every PNG.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

impl Image {
    /// Reads a PNG. Palettes and 1-, 2- and 4-bit grey are expanded, 16-bit samples cut to 8;
    /// transparency is refused, for a model would not see it.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`].
    pub fn png(file: &str, bytes: &[u8]) -> Result<Self, DatasetError> {
        let fault = |error: png::DecodingError| {
            malformed(file, "PNG", error.to_string(), "a whole PNG file", DAMAGED)
        };
        if !bytes.ends_with(&END) {
            return Err(malformed(
                file,
                format!("byte {}", bytes.len()),
                "the end of the file",
                "the IEND chunk that ends a PNG",
                DAMAGED,
            ));
        }
        let most = (bytes.len() as u64).saturating_mul(DEFLATE_RATIO);
        let limits = png::Limits {
            bytes: usize::try_from(most).unwrap_or(usize::MAX).max(1 << 16),
        };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(fault)?;
        let channels = match reader.output_color_type() {
            (png::ColorType::Grayscale, _) => 1usize,
            (png::ColorType::Rgb, _) => 3,
            (other, _) => {
                return Err(malformed(
                    file,
                    "PNG header",
                    format!("colour type {other:?}"),
                    "grey or RGB without transparency",
                    "remove the transparency",
                ));
            }
        };
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let too_large = || {
            malformed(
                file,
                "PNG header",
                format!("{width} by {height} pixels"),
                format!("at most the {most} bytes that the file can hold"),
                DAMAGED,
            )
        };
        let size = reader
            .output_buffer_size()
            .filter(|&size| size as u64 <= most)
            .ok_or_else(too_large)?;
        let mut data = vec![0; size];
        let frame = reader.next_frame(&mut data).map_err(fault)?;
        data.truncate(frame.buffer_size());
        reader.finish().map_err(fault)?;
        if data.len() != width * height * channels {
            return Err(too_large());
        }
        Ok(Self {
            height,
            width,
            channels,
            data,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A PNG of the given picture.
    pub(crate) fn encode(width: u32, height: u32, color: png::ColorType, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn pictures_come_back() {
        let data: Vec<u8> = (0..24).collect();
        let bytes = encode(4, 2, png::ColorType::Rgb, &data);
        let image = Image::png("f", &bytes).unwrap();
        assert_eq!((image.height, image.width, image.channels), (2, 4, 3));
        assert_eq!(image.data, data);
        let bytes = encode(4, 6, png::ColorType::Grayscale, &data);
        assert_eq!(Image::png("f", &bytes).unwrap().channels, 1);
        let bytes = encode(3, 2, png::ColorType::Rgba, &data);
        let message = Image::png("f", &bytes).unwrap_err().to_string();
        assert!(message.contains("found colour type Rgba"), "{message}");
    }

    #[test]
    fn cuts_and_flips_never_panic_and_never_pass_for_the_picture() {
        let data: Vec<u8> = (0..48).map(|i| i * 5).collect();
        let whole = encode(4, 4, png::ColorType::Rgb, &data);
        for length in 0..whole.len() {
            assert!(
                Image::png("f", &whole[..length]).is_err(),
                "cut at {length}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(image) = Image::png("f", &bytes) {
                assert_eq!(image.data, data, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused() {
        let mut bytes = encode(1, 1, png::ColorType::Grayscale, &[9]);
        bytes[16..20].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
        bytes[20..24].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
        // Mend the checksum of the header, so that only the sizes are wrong.
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        assert!(Image::png("f", &bytes).is_err());
    }
}
