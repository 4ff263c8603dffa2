//! Model parameters as one flat vector with named views.

use std::sync::Arc;

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
        let mut names = std::collections::BTreeSet::new();
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
