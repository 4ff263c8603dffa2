//! A second writer of model files, made from the format's description alone: to check the first,
//! and to make files that it would never write, with checksums that are right.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// A tensor: name, type as the format names it, shape, bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// What a file is made from.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) metadata: Vec<(&'static str, String)>,
    pub(crate) tensors: Vec<Tensor>,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Forged {
    /// A file of parameters.
    pub(crate) fn parameters(model: Value, tensors: Vec<Tensor>) -> Self {
        let mut forged = Self {
            metadata: vec![
                ("fledgling.format", "1".to_owned()),
                ("fledgling.kind", "parameters".to_owned()),
                ("fledgling.model", model.to_string()),
            ],
            tensors,
        };
        forged.checksums();
        forged
    }

    /// Sets the checksums of the tensors as they are.
    pub(crate) fn checksums(&mut self) {
        let whole = ["2", "3"].map(|format| ("fledgling.format", format.to_owned()));
        if whole.iter().any(|format| self.metadata.contains(format)) {
            let mut hash = Sha256::new();
            for tensor in &self.tensors {
                hash.update(&tensor.bytes);
            }
            self.set("fledgling.sha256", hex(&hash.finalize()));
            return;
        }
        let sums: Map<String, Value> = self
            .tensors
            .iter()
            .map(|tensor| {
                let sum = hex(&Sha256::digest(&tensor.bytes));
                (tensor.name.clone(), Value::String(sum))
            })
            .collect();
        self.set("fledgling.sha256", Value::Object(sums).to_string());
    }

    pub(crate) fn set(&mut self, key: &'static str, text: impl Into<String>) {
        self.metadata.retain(|(name, _)| *name != key);
        self.metadata.push((key, text.into()));
        self.metadata.sort();
    }

    /// The file, with the right checksum of its header.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        let number = |hash: &mut Sha256, number: u64| hash.update(number.to_le_bytes());
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        for (key, value) in &self.metadata {
            text(&mut hash, key);
            text(&mut hash, value);
        }
        number(&mut hash, self.tensors.len() as u64);
        let mut header = Map::new();
        let mut data = Vec::new();
        for tensor in &self.tensors {
            let start = data.len() as u64;
            data.extend_from_slice(&tensor.bytes);
            let end = data.len() as u64;
            text(&mut hash, &tensor.name);
            text(&mut hash, tensor.dtype);
            number(&mut hash, tensor.shape.len() as u64);
            for &size in &tensor.shape {
                number(&mut hash, size);
            }
            number(&mut hash, start);
            number(&mut hash, end);
            header.insert(
                tensor.name.clone(),
                json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}),
            );
        }
        let mut metadata: Map<String, Value> = self
            .metadata
            .iter()
            .map(|(key, text)| ((*key).to_owned(), Value::String(text.clone())))
            .collect();
        let digest = hex(&hash.finalize());
        metadata.insert("fledgling.header".to_owned(), Value::String(digest));
        header.insert("__metadata__".to_owned(), Value::Object(metadata));
        let mut header = Value::Object(header).to_string();
        while !(8 + header.len()).is_multiple_of(64) {
            header.push(' ');
        }
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&data);
        file
    }
}
