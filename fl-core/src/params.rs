//! Model parameters as one flat vector with named views.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Name, shape and place of one tensor in the flat vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique within its layout, e.g. `conv1.weight`.
    pub name: String,
    /// Row-major dimensions.
    pub shape: Vec<usize>,
    /// First element's index in the flat vector.
    pub offset: usize,
}

impl TensorSpec {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor's elements in the flat vector.
    #[must_use]
    pub fn range(&self) -> core::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// The tensors of a model, in the order of the flat vector, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
}

/// Why a layout or a vector of parameters was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParametersError {
    /// Two tensors have one name.
    #[error("two tensors are named `{0}`; give each tensor its own name")]
    DuplicateName(String),
    /// The number of values is not the layout's.
    #[error("{given} values were given for a layout of {expected}; pass one value per parameter")]
    WrongLength {
        /// Values that the layout holds.
        expected: usize,
        /// Values that were given.
        given: usize,
    },
    /// The sizes of the tensors do not fit into `usize`.
    #[error("tensor `{0}` is too large: the number of its elements overflows")]
    TooLarge(String),
}

impl Layout {
    /// A layout of the given names and shapes, in order.
    ///
    /// # Errors
    /// [`ParametersError::DuplicateName`] or [`ParametersError::TooLarge`].
    pub fn new<I>(tensors: I) -> Result<Self, ParametersError>
    where
        I: IntoIterator<Item = (String, Vec<usize>)>,
    {
        let mut names = alloc::collections::BTreeSet::new();
        let mut specs = Vec::new();
        let mut offset = 0usize;
        for (name, shape) in tensors {
            let end = shape
                .iter()
                .try_fold(1usize, |product, &size| product.checked_mul(size))
                .and_then(|len| offset.checked_add(len));
            let Some(end) = end else {
                return Err(ParametersError::TooLarge(name));
            };
            if !names.insert(name.clone()) {
                return Err(ParametersError::DuplicateName(name));
            }
            specs.push(TensorSpec {
                name,
                shape,
                offset,
            });
            offset = end;
        }
        Ok(Self { tensors: specs })
    }

    /// The tensors, in order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorSpec> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.range().end)
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'de> Deserialize<'de> for Layout {
    /// Passes through [`Layout::new`]; the offsets must be the ones that it computes.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let tensors = Vec::<TensorSpec>::deserialize(deserializer)?;
        let layout = Self::new(tensors.iter().map(|t| (t.name.clone(), t.shape.clone())))
            .map_err(D::Error::custom)?;
        match tensors
            .iter()
            .zip(&layout.tensors)
            .find(|(given, built)| given.offset != built.offset)
        {
            Some((given, built)) => Err(D::Error::custom(format!(
                "tensor `{}` starts at {} where the layout has {}",
                given.name, given.offset, built.offset
            ))),
            None => Ok(layout),
        }
    }
}

/// SHA-256 of a model: names, shapes and the little-endian bits of every value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelDigest(pub [u8; 32]);

impl core::fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for ModelDigest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// A model's parameters: one flat `f32` vector and the layout that names its parts.
///
/// Serialised exactly, see [`crate::bits`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Parameters {
    #[serde(serialize_with = "stored_layout")]
    layout: Arc<Layout>,
    #[serde(serialize_with = "crate::bits::serialize")]
    values: Vec<f32>,
}

/// What [`Parameters`] are read from, before they pass the constructor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    layout: Layout,
    #[serde(with = "crate::bits")]
    values: Vec<f32>,
}

impl TryFrom<Stored> for Parameters {
    type Error = ParametersError;

    fn try_from(stored: Stored) -> Result<Self, ParametersError> {
        Self::new(Arc::new(stored.layout), stored.values)
    }
}

fn stored_layout<S: serde::Serializer>(
    layout: &Arc<Layout>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    layout.as_ref().serialize(serializer)
}

impl Parameters {
    /// Parameters with the given values.
    ///
    /// # Errors
    /// [`ParametersError::WrongLength`] when `values` is not one value per parameter.
    pub fn new(layout: Arc<Layout>, values: Vec<f32>) -> Result<Self, ParametersError> {
        if values.len() != layout.len() {
            return Err(ParametersError::WrongLength {
                expected: layout.len(),
                given: values.len(),
            });
        }
        Ok(Self { layout, values })
    }

    /// All zero.
    #[must_use]
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let values = vec![0.0; layout.len()];
        Self { layout, values }
    }

    /// Names and shapes.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The flat vector.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The flat vector, to be changed in place.
    #[must_use]
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The flat vector, taken out.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The values of the tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.layout
            .tensor(name)
            .map(|tensor| &self.values[tensor.range()])
    }

    /// The model's fingerprint; equal exactly when layout and every bit are equal.
    #[must_use]
    pub fn digest(&self) -> ModelDigest {
        let mut hash = Sha256::new();
        for tensor in self.layout.tensors() {
            hash.update((tensor.name.len() as u64).to_le_bytes());
            hash.update(tensor.name.as_bytes());
            hash.update((tensor.shape.len() as u64).to_le_bytes());
            for &size in &tensor.shape {
                hash.update((size as u64).to_le_bytes());
            }
        }
        let mut chunk = [0u8; 4096];
        for values in self.values.chunks(chunk.len() / 4) {
            for (bytes, value) in chunk.chunks_exact_mut(4).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            hash.update(&chunk[..values.len() * 4]);
        }
        ModelDigest(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Arc<Layout> {
        Arc::new(Layout::new([("a".to_owned(), vec![2, 2]), ("b".to_owned(), vec![1])]).unwrap())
    }

    fn parameters() -> Parameters {
        Parameters::new(layout(), vec![0.0, 1.0, -2.5, 0.15625, -0.0]).unwrap()
    }

    #[test]
    fn tensors_lie_one_after_the_other() {
        let layout = layout();
        assert_eq!(layout.len(), 5);
        assert_eq!(layout.tensor("b").unwrap().range(), 4..5);
        assert_eq!(parameters().tensor("a").unwrap(), [0.0, 1.0, -2.5, 0.15625]);
        assert!(parameters().tensor("c").is_none());
        let scalar = Layout::new([("s".to_owned(), vec![])]).unwrap();
        assert_eq!(scalar.len(), 1);
        assert!(Layout::new([]).unwrap().is_empty());
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let tensor = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let cases = [
            (
                vec![tensor("a", &[1]), tensor("a", &[2])],
                "two tensors are named `a`; give each tensor its own name",
            ),
            (
                vec![tensor("a", &[usize::MAX, 2])],
                "tensor `a` is too large: the number of its elements overflows",
            ),
            (
                vec![tensor("a", &[usize::MAX]), tensor("b", &[1])],
                "tensor `b` is too large: the number of its elements overflows",
            ),
        ];
        for (tensors, message) in cases {
            assert_eq!(Layout::new(tensors).unwrap_err().to_string(), message);
        }
        assert_eq!(
            Parameters::new(layout(), vec![0.0; 4])
                .unwrap_err()
                .to_string(),
            "4 values were given for a layout of 5; pass one value per parameter"
        );
    }

    /// SHA-256 computed by Python's hashlib over the bytes that the documentation describes.
    #[test]
    fn the_digest_is_frozen() {
        assert_eq!(
            parameters().digest().to_string(),
            "f3b9bd35e0b2b02bc5b13ba34e096ae79283e9c3b995a4bc8e7b6aa15261d5ed"
        );
        let mut other = parameters();
        other.values_mut()[4] = 0.0;
        assert_ne!(
            other.digest(),
            parameters().digest(),
            "a zero's sign counts"
        );
        let renamed = Layout::new([("a".to_owned(), vec![4]), ("b".to_owned(), vec![1])]).unwrap();
        let reshaped = Parameters::new(Arc::new(renamed), parameters().into_values()).unwrap();
        assert_ne!(reshaped.digest(), parameters().digest(), "shapes count");
        let long = Arc::new(Layout::new([("a".to_owned(), vec![5000])]).unwrap());
        let mut values = vec![1.0; 5000];
        let one = Parameters::new(Arc::clone(&long), values.clone()).unwrap();
        values[4999] = 2.0;
        assert_ne!(
            one.digest(),
            Parameters::new(long, values).unwrap().digest()
        );
    }

    #[test]
    fn parameters_are_read_through_the_constructor() {
        let text = serde_json::to_string(&parameters()).unwrap();
        let back: Parameters = serde_json::from_str(&text).unwrap();
        assert_eq!(back.digest(), parameters().digest());
        let cases = [
            (
                text.replace("000020c0", ""),
                "4 values were given for a layout of 5",
            ),
            (
                text.replace("\"offset\":4", "\"offset\":3"),
                "starts at 3 where the layout has 4",
            ),
            (text.replace("\"b\"", "\"a\""), "two tensors are named `a`"),
        ];
        for (bad, message) in cases {
            let error = serde_json::from_str::<Parameters>(&bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
