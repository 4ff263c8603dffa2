//! Exact serialisation of `f32` vectors, for `#[serde(with = "fl_core::bits")]`.
//!
//! Binary formats get the little-endian bytes; text formats get the same bytes as a string of
//! lower-case hexadecimal digits, eight per value. Every bit survives, NaN payloads and negative
//! zeros included, whatever the format does to decimal numbers.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::Visitor;
use serde::{Deserializer, Serializer};

/// Writes `values`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(values.len() * 8);
        for byte in values.iter().flat_map(|value| value.to_le_bytes()) {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    } else {
        let mut bytes = Vec::with_capacity(values.len() * 4);
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        serializer.serialize_bytes(&bytes)
    }
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// Those of the deserializer, and one for a length or a digit that no vector has.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Reader)
    } else {
        deserializer.deserialize_byte_buf(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the bits of f32 values: 4 bytes, or 8 hexadecimal digits, per value")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<f32>, E> {
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(values
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<f32>, E> {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        if !rest.is_empty() {
            return Err(E::invalid_length(text.len(), &self));
        }
        words
            .iter()
            .map(|word| {
                let mut bytes = [0u8; 4];
                for (byte, &[high, low]) in bytes.iter_mut().zip(word.as_chunks::<2>().0) {
                    *byte = digit(high)? << 4 | digit(low)?;
                }
                Some(f32::from_le_bytes(bytes))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| E::custom("a character is not a lower-case hexadecimal digit"))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug)]
    struct Held(#[serde(with = "super")] Vec<f32>);

    #[test]
    fn every_bit_survives_text() {
        let values = [
            0.0,
            -0.0,
            1.5,
            f32::MIN_POSITIVE / 3.0,
            f32::NAN,
            f32::NEG_INFINITY,
        ];
        let text = serde_json::to_string(&Held(values.to_vec())).unwrap();
        assert!(text.starts_with("\"00000000000000800000c03f"), "{text}");
        let back: Held = serde_json::from_str(&text).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.0), bits(&values));
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in [
            "\"0000\"",
            "\"0000000G\"",
            "\"0000000A\"",
            "[1.0]",
            "\"000000000\"",
        ] {
            assert!(serde_json::from_str::<Held>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_binary_form_is_the_bytes() {
        use serde::de::value::{BytesDeserializer, Error};
        let bytes = [0, 0, 128, 63, 0, 0, 0, 192];
        let reader = BytesDeserializer::<Error>::new(&bytes);
        // Not human-readable formats hand over byte strings; the visitor is the same.
        assert_eq!(
            serde::Deserializer::deserialize_bytes(reader, super::Reader).unwrap(),
            [1.0, -2.0]
        );
        let reader = BytesDeserializer::<Error>::new(&bytes[..7]);
        assert!(serde::Deserializer::deserialize_bytes(reader, super::Reader).is_err());
    }
}
