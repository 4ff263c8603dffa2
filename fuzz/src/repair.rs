//! A model file with its checksums made right, as its format is described.

use fl_edge::gguf::{self, Gguf, Writer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The same file with the header's length, the checksums of the sections and the checksum of the
/// header made right; none where the header is not JSON, or too long.
#[must_use]
pub fn repaired(file: &[u8]) -> Option<Vec<u8>> {
    if file.len() > 1 << 20 {
        return None;
    }
    let (_, rest) = file.split_first_chunk::<8>()?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Map<String, Value>>();
    let mut header = values.next()?.ok()?;
    let end = values.byte_offset();
    let data = rest.get(end..)?;
    // The data begin at the next multiple of 64, counted with the length before the header.
    let filled = (8 + end).next_multiple_of(64) - 8 - end;
    let data = data.get(filled..).unwrap_or_default();

    let mut tensors = Vec::new();
    for (name, tensor) in &header {
        if name != "__metadata__" {
            let number = |value: &Value| value.as_u64();
            let list = |key: &str| -> Option<Vec<u64>> {
                tensor.get(key)?.as_array()?.iter().map(number).collect()
            };
            let [start, stop] = list("data_offsets")?[..] else {
                return None;
            };
            let dtype = tensor.get("dtype")?.as_str()?;
            tensors.push((
                (start, stop),
                name.clone(),
                dtype.to_owned(),
                list("shape")?,
            ));
        }
    }
    tensors.sort();
    let mut sums = Map::new();
    for ((start, stop), name, ..) in &tensors {
        let range = usize::try_from(*start).ok()?..usize::try_from(*stop).ok()?;
        let bytes = data.get(range).unwrap_or_default();
        sums.insert(name.clone(), Value::String(hex(&Sha256::digest(bytes))));
    }
    let metadata = header.get_mut("__metadata__")?.as_object_mut()?;
    let format = metadata.get("fledgling.format").and_then(Value::as_str);
    let compact = matches!(format, Some("2" | "3"));
    let sums = match compact {
        true => hex(&Sha256::digest(data)),
        false => Value::Object(sums).to_string(),
    };
    metadata.insert("fledgling.sha256".to_owned(), Value::String(sums));
    metadata.remove("fledgling.header");
    let mut hash = Sha256::new();
    for (key, value) in metadata.iter() {
        text(&mut hash, key);
        text(&mut hash, value.as_str()?);
    }
    number(&mut hash, tensors.len() as u64);
    for ((start, stop), name, dtype, shape) in &tensors {
        text(&mut hash, name);
        text(&mut hash, dtype);
        number(&mut hash, shape.len() as u64);
        for size in shape {
            number(&mut hash, *size);
        }
        number(&mut hash, *start);
        number(&mut hash, *stop);
    }
    metadata.insert(
        "fledgling.header".to_owned(),
        Value::String(hex(&hash.finalize())),
    );
    let mut header = Value::Object(header).to_string();
    while !(8 + header.len()).is_multiple_of(64) {
        header.push(' ');
    }
    let mut repaired = (header.len() as u64).to_le_bytes().to_vec();
    repaired.extend_from_slice(header.as_bytes());
    repaired.extend_from_slice(data);
    Some(repaired)
}

fn number(hash: &mut Sha256, number: u64) {
    hash.update(number.to_le_bytes());
}

fn text(hash: &mut Sha256, text: &str) {
    number(hash, text.len() as u64);
    hash.update(text.as_bytes());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same GGUF file with the digest that its other parts have; none where it cannot be written.
pub(crate) fn repaired_gguf(file: &Gguf<'_>) -> Option<Vec<u8>> {
    const DIGEST: &str = "fledgling.sha256";
    let mut writer = Writer::new();
    for (key, value) in file.entries().iter().filter(|(key, _)| key != DIGEST) {
        writer.value(key, value.clone()).ok()?;
    }
    for tensor in file.tensors() {
        let bytes = file.bytes(tensor).to_vec();
        writer
            .raw(&tensor.name, &tensor.shape, tensor.kind, bytes)
            .ok()?;
    }
    let digest = hex(&Sha256::digest(writer.finish().ok()?));
    writer.value(DIGEST, gguf::Value::Text(digest)).ok()?;
    writer.finish().ok()
}
