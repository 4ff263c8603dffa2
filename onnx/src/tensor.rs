//! Typed tensors: what flows between the nodes of a graph.

use std::fmt;

use half::f16;

use crate::error::TensorError;
use crate::proto::{TensorProto, data_type};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// Signed, 4 bits: -8 to 7. Two share a byte in a file.
    I4,
    /// Unsigned, 4 bits: 0 to 15. Two share a byte in a file.
    U4,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
    /// True or false, a byte each.
    Bool,
}

impl DType {
    /// The type of an ONNX number ([`data_type`]).
    #[must_use]
    pub fn from_onnx(number: i32) -> Option<Self> {
        Some(match number {
            data_type::FLOAT => Self::F32,
            data_type::DOUBLE => Self::F64,
            data_type::FLOAT16 => Self::F16,
            data_type::INT4 => Self::I4,
            data_type::UINT4 => Self::U4,
            data_type::INT8 => Self::I8,
            data_type::UINT8 => Self::U8,
            data_type::INT16 => Self::I16,
            data_type::UINT16 => Self::U16,
            data_type::INT32 => Self::I32,
            data_type::UINT32 => Self::U32,
            data_type::INT64 => Self::I64,
            data_type::UINT64 => Self::U64,
            data_type::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// The ONNX number of the type.
    #[must_use]
    pub fn to_onnx(self) -> i32 {
        match self {
            Self::F32 => data_type::FLOAT,
            Self::F64 => data_type::DOUBLE,
            Self::F16 => data_type::FLOAT16,
            Self::I4 => data_type::INT4,
            Self::U4 => data_type::UINT4,
            Self::I8 => data_type::INT8,
            Self::U8 => data_type::UINT8,
            Self::I16 => data_type::INT16,
            Self::U16 => data_type::UINT16,
            Self::I32 => data_type::INT32,
            Self::U32 => data_type::UINT32,
            Self::I64 => data_type::INT64,
            Self::U64 => data_type::UINT64,
            Self::Bool => data_type::BOOL,
        }
    }

    /// Bytes of an element in memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::I4 | Self::U4 | Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether two elements share a byte in a file.
    pub(crate) fn is_nibble(self) -> bool {
        matches!(self, Self::I4 | Self::U4)
    }

    /// Whether the elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::I4 => "i4",
            Self::U4 => "u4",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Bool => "bool",
        })
    }
}

/// A whole number from -8 to 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct I4(i8);

/// A whole number from 0 to 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct U4(u8);

impl I4 {
    /// The number of the low four bits, in two's complement.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self((bits << 4) as i8 >> 4)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i8 {
        self.0
    }
}

impl U4 {
    /// The number of the low four bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 15)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "one list for each type of `DType`")]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    I4(Vec<I4>),
    U4(Vec<U4>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Runs one expression for whichever list `$data` holds, as `$v`.
macro_rules! each {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F32($v) => $body,
            $crate::tensor::Data::F64($v) => $body,
            $crate::tensor::Data::F16($v) => $body,
            $crate::tensor::Data::I4($v) => $body,
            $crate::tensor::Data::U4($v) => $body,
            $crate::tensor::Data::I8($v) => $body,
            $crate::tensor::Data::U8($v) => $body,
            $crate::tensor::Data::I16($v) => $body,
            $crate::tensor::Data::U16($v) => $body,
            $crate::tensor::Data::I32($v) => $body,
            $crate::tensor::Data::U32($v) => $body,
            $crate::tensor::Data::I64($v) => $body,
            $crate::tensor::Data::U64($v) => $body,
            $crate::tensor::Data::Bool($v) => $body,
        }
    };
}

/// A Rust type of elements.
pub trait Element: Copy + PartialEq + PartialOrd + Default + fmt::Debug + 'static {
    /// Its name at run time.
    const DTYPE: DType;
    /// Wraps a list.
    fn wrap(values: Vec<Self>) -> Data;
    /// The list in `data`, if it is of this type.
    fn unwrap(data: &Data) -> Option<&[Self]>;
    /// The number nearest to the element in `f64`; 0 and 1 for a truth value.
    fn to_f64(self) -> f64;
    /// The element as a whole number; a float is truncated and saturated.
    fn to_i128(self) -> i128;
    /// The nearest element, ties to even, as a float; a whole number is truncated and saturated,
    /// a truth value is "not zero".
    fn from_f64(value: f64) -> Self;
    /// The element with the same low bits (whole numbers), or the nearest one (floats).
    fn from_i128(value: i128) -> Self;
}

macro_rules! element {
    ($type:ty, $variant:ident, $to_f64:expr, $to_i128:expr, $from_f64:expr, $from_i128:expr) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            fn unwrap(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
            #[inline]
            fn to_f64(self) -> f64 {
                let convert: fn(Self) -> f64 = $to_f64;
                convert(self)
            }
            #[inline]
            fn to_i128(self) -> i128 {
                let convert: fn(Self) -> i128 = $to_i128;
                convert(self)
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                let convert: fn(f64) -> Self = $from_f64;
                convert(value)
            }
            #[inline]
            fn from_i128(value: i128) -> Self {
                let convert: fn(i128) -> Self = $from_i128;
                convert(value)
            }
        }
    };
}

macro_rules! whole {
    ($($type:ty, $variant:ident;)*) => {
        $(element!($type, $variant, |x| x as f64, |x| x as i128, |x| x as $type, |x| x as $type);)*
    };
}

whole! {
    i8, I8; u8, U8; i16, I16; u16, U16; i32, I32; u32, U32; i64, I64; u64, U64;
}
element!(
    I4,
    I4,
    |x| f64::from(x.0),
    |x| i128::from(x.0),
    |x| Self((x as i8).clamp(-8, 7)),
    |x| Self::from_bits(x as u8)
);
element!(
    U4,
    U4,
    |x| f64::from(x.0),
    |x| i128::from(x.0),
    |x| Self((x as u8).min(15)),
    |x| Self::from_bits(x as u8)
);
element!(f32, F32, f64::from, |x| x as i128, |x| x as f32, |x| x
    as f32);
element!(f64, F64, |x| x, |x| x as i128, |x| x, |x| x as f64);
element!(
    f16,
    F16,
    f16::to_f64,
    |x| x.to_f64() as i128,
    f16::from_f64,
    |x| f16::from_f64(x as f64)
);
element!(
    bool,
    Bool,
    |x| f64::from(u8::from(x)),
    i128::from,
    |x| x != 0.0,
    |x| x != 0
);

impl Data {
    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        fn of<T: Element>(_: &[T]) -> DType {
            T::DTYPE
        }
        each!(self, v => of(v))
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

pub(crate) use each;

/// A tensor: sizes, and the elements in row-major order. A scalar has no sizes and one element.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// The product of `shape`, unless the sizes other than 0 overflow: whoever walks over a part of
/// the axes then has an end in sight.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    let len = extent(shape)?;
    Some(if shape.contains(&0) { 0 } else { len })
}

/// The product of the sizes other than 0, unless it overflows.
pub(crate) fn extent(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |len, &size| len.checked_mul(size.max(1)))
}

impl Tensor {
    /// A tensor of `shape`.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the shape does not have as many elements as the list.
    pub fn new<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self, TensorError> {
        Self::from_data(shape, T::wrap(values))
    }

    /// A tensor of `shape`.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the shape does not have as many elements as the list.
    pub fn from_data(shape: Vec<usize>, data: Data) -> Result<Self, TensorError> {
        let expected = count(&shape).unwrap_or(usize::MAX);
        if data.len() != expected {
            return Err(TensorError::Length {
                found: data.len(),
                expected,
                unit: "elements",
            });
        }
        Ok(Self { shape, data })
    }

    /// A tensor without sizes.
    #[must_use]
    pub fn scalar<T: Element>(value: T) -> Self {
        Self {
            shape: Vec::new(),
            data: T::wrap(vec![value]),
        }
    }

    /// A tensor of rank 1.
    #[must_use]
    pub fn vector<T: Element>(values: Vec<T>) -> Self {
        Self {
            shape: vec![values.len()],
            data: T::wrap(values),
        }
    }

    /// The sizes, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of sizes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Bytes of the elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, if they are of type `T`.
    #[must_use]
    pub fn values<T: Element>(&self) -> Option<&[T]> {
        T::unwrap(&self.data)
    }

    /// The elements, taken out.
    #[must_use]
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the shape has another number of elements.
    pub fn with_shape(self, shape: Vec<usize>) -> Result<Self, TensorError> {
        Self::from_data(shape, self.data)
    }

    /// The elements in `f64`.
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        each!(&self.data, v => v.iter().map(|&x| x.to_f64()).collect())
    }

    /// The elements in `f32`, rounded to nearest.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            other => each!(other, v => v.iter().map(|&x| x.to_f64() as f32).collect()),
        }
    }

    /// The elements as whole numbers: those of a whole-number or boolean tensor.
    #[must_use]
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        if self.dtype().is_float() {
            return None;
        }
        Some(each!(&self.data, v => v.iter().map(|&x| x.to_i128() as i64).collect()))
    }

    /// Reads a tensor of a file.
    ///
    /// # Errors
    /// [`TensorError`] where the type is not supported, the data do not fill the shape exactly,
    /// lie in the wrong field or outside the file.
    pub fn from_proto(proto: &TensorProto) -> Result<Self, TensorError> {
        let dtype = DType::from_onnx(proto.data_type).ok_or(TensorError::Type(proto.data_type))?;
        if proto.data_location != 0 || !proto.external_data.is_empty() {
            return Err(TensorError::External);
        }
        if proto.segment.is_some() {
            return Err(TensorError::Segment);
        }
        let shape: Option<Vec<usize>> = proto
            .dims
            .iter()
            .map(|&size| usize::try_from(size).ok())
            .collect();
        let bad_shape = || TensorError::Shape(proto.dims.clone());
        let shape = shape.ok_or_else(bad_shape)?;
        let len = count(&shape).ok_or_else(bad_shape)?;
        let bytes = match dtype.is_nibble() {
            true => len.div_ceil(2),
            false => len.checked_mul(dtype.bytes()).ok_or_else(bad_shape)?,
        };
        check_fields(proto, dtype)?;
        let data = match &proto.raw_data {
            Some(raw) => {
                if raw.len() != bytes {
                    return Err(TensorError::Length {
                        found: raw.len(),
                        expected: bytes,
                        unit: "bytes",
                    });
                }
                from_raw(dtype, raw, len)?
            }
            None => from_fields(proto, dtype, len)?,
        };
        Self::from_data(shape, data)
    }

    /// The tensor as a message, its elements as raw bytes.
    #[must_use]
    pub fn to_proto(&self, name: &str) -> TensorProto {
        TensorProto {
            dims: self.shape.iter().map(|&size| size as i64).collect(),
            data_type: self.dtype().to_onnx(),
            name: name.to_owned(),
            raw_data: Some(self.to_bytes()),
            ..TensorProto::default()
        }
    }

    /// The elements' bytes, little-endian, as [`TensorProto::raw_data`] holds them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I4(v) => nibbles(v, |x| x.0 as u8),
            Data::U4(v) => nibbles(v, |x| x.0),
            Data::I8(v) => v.iter().map(|&x| x as u8).collect(),
            Data::U8(v) => v.clone(),
            Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }
}

/// Only the field of the type, or the raw bytes alone, may hold data.
fn check_fields(proto: &TensorProto, dtype: DType) -> Result<(), TensorError> {
    let raw = proto.raw_data.is_some();
    let typed = match dtype {
        DType::F32 => "float_data",
        DType::F64 => "double_data",
        DType::I64 => "int64_data",
        DType::U32 | DType::U64 => "uint64_data",
        _ => "int32_data",
    };
    let fields = [
        ("float_data", proto.float_data.is_empty()),
        ("int32_data", proto.int32_data.is_empty()),
        ("string_data", proto.string_data.is_empty()),
        ("int64_data", proto.int64_data.is_empty()),
        ("double_data", proto.double_data.is_empty()),
        ("uint64_data", proto.uint64_data.is_empty()),
    ];
    match fields
        .iter()
        .find(|(name, empty)| !empty && (raw || *name != typed))
    {
        Some((name, _)) => Err(TensorError::Field(name)),
        None => Ok(()),
    }
}

/// Two elements to a byte, the first one in its lower half.
fn nibbles<T: Copy>(values: &[T], bits: impl Fn(T) -> u8) -> Vec<u8> {
    let bits = |x: Option<&T>| x.map_or(0, |&x| bits(x) & 15);
    let pairs = values.chunks(2);
    pairs
        .map(|pair| bits(pair.first()) | (bits(pair.get(1)) << 4))
        .collect()
}

/// The first `len` elements of such bytes.
fn from_nibbles(dtype: DType, bytes: &[u8], len: usize) -> Data {
    let halves = bytes.iter().flat_map(|&byte| [byte & 15, byte >> 4]);
    let halves = halves.take(len);
    match dtype {
        DType::I4 => Data::I4(halves.map(I4::from_bits).collect()),
        _ => Data::U4(halves.map(U4::from_bits).collect()),
    }
}

fn from_raw(dtype: DType, raw: &[u8], len: usize) -> Result<Data, TensorError> {
    fn chunks<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|&b| convert(b)).collect()
    }
    Ok(match dtype {
        DType::F32 => Data::F32(chunks(raw, f32::from_le_bytes)),
        DType::F64 => Data::F64(chunks(raw, f64::from_le_bytes)),
        DType::F16 => Data::F16(chunks(raw, f16::from_le_bytes)),
        DType::I4 | DType::U4 => from_nibbles(dtype, raw, len),
        DType::I8 => Data::I8(raw.iter().map(|&b| b as i8).collect()),
        DType::U8 => Data::U8(raw.to_vec()),
        DType::I16 => Data::I16(chunks(raw, i16::from_le_bytes)),
        DType::U16 => Data::U16(chunks(raw, u16::from_le_bytes)),
        DType::I32 => Data::I32(chunks(raw, i32::from_le_bytes)),
        DType::U32 => Data::U32(chunks(raw, u32::from_le_bytes)),
        DType::I64 => Data::I64(chunks(raw, i64::from_le_bytes)),
        DType::U64 => Data::U64(chunks(raw, u64::from_le_bytes)),
        DType::Bool => Data::Bool(
            raw.iter()
                .map(|&b| truth(i64::from(b)))
                .collect::<Result<_, _>>()?,
        ),
    })
}

fn truth(value: i64) -> Result<bool, TensorError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(TensorError::Value {
            value,
            dtype: DType::Bool,
        }),
    }
}

fn from_fields(proto: &TensorProto, dtype: DType, len: usize) -> Result<Data, TensorError> {
    fn narrow<S: Copy + TryInto<T>, T: Element>(values: &[S]) -> Result<Vec<T>, TensorError>
    where
        i128: From<S>,
    {
        values
            .iter()
            .map(|&value| {
                value.try_into().map_err(|_| TensorError::Value {
                    value: i128::from(value) as i64,
                    dtype: T::DTYPE,
                })
            })
            .collect()
    }
    let small = &proto.int32_data;
    Ok(match dtype {
        DType::F32 => Data::F32(proto.float_data.clone()),
        DType::F64 => Data::F64(proto.double_data.clone()),
        DType::F16 => {
            let bits: Vec<u16> = narrow(small).map_err(|problem| match problem {
                TensorError::Value { value, .. } => TensorError::Value {
                    value,
                    dtype: DType::F16,
                },
                other => other,
            })?;
            Data::F16(bits.into_iter().map(f16::from_bits).collect())
        }
        DType::I4 | DType::U4 => {
            let bytes: Vec<u8> = narrow(small)?;
            if bytes.len() != len.div_ceil(2) {
                return Err(TensorError::Length {
                    found: bytes.len(),
                    expected: len.div_ceil(2),
                    unit: "bytes",
                });
            }
            from_nibbles(dtype, &bytes, len)
        }
        DType::I8 => Data::I8(narrow(small)?),
        DType::U8 => Data::U8(narrow(small)?),
        DType::I16 => Data::I16(narrow(small)?),
        DType::U16 => Data::U16(narrow(small)?),
        DType::I32 => Data::I32(small.clone()),
        DType::U32 => Data::U32(narrow(&proto.uint64_data)?),
        DType::I64 => Data::I64(proto.int64_data.clone()),
        DType::U64 => Data::U64(proto.uint64_data.clone()),
        DType::Bool => Data::Bool(
            small
                .iter()
                .map(|&value| truth(i64::from(value)))
                .collect::<Result<_, _>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Tensor> {
        vec![
            Tensor::vector(vec![1.5_f32, -0.0, f32::INFINITY]),
            Tensor::vector(vec![1.5_f64, -2.0]),
            Tensor::vector(vec![f16::from_f32(0.1), f16::MAX]),
            Tensor::vector(vec![I4(-8), I4(7), I4(-1)]),
            Tensor::vector(vec![U4(15), U4(0), U4(9), U4(1)]),
            Tensor::vector(vec![i8::MIN, 3]),
            Tensor::vector(vec![u8::MAX, 3]),
            Tensor::vector(vec![i16::MIN, 3]),
            Tensor::vector(vec![u16::MAX, 3]),
            Tensor::vector(vec![i32::MIN, 3]),
            Tensor::vector(vec![u32::MAX, 3]),
            Tensor::vector(vec![i64::MIN, 3]),
            Tensor::vector(vec![u64::MAX, 3]),
            Tensor::vector(vec![true, false]),
            Tensor::scalar(4_i64),
            Tensor::new(vec![2, 0, 3], Vec::<f32>::new()).unwrap(),
        ]
    }

    #[test]
    fn raw_bytes_round_trip() {
        for tensor in samples() {
            assert_eq!(Tensor::from_proto(&tensor.to_proto("t")).unwrap(), tensor);
        }
    }

    /// The layout of the specification: `[1, -2, 3]` is `0xe1 0x03`.
    #[test]
    fn nibbles_lie_in_bytes() {
        let tensor = Tensor::vector(vec![I4(1), I4(-2), I4(3)]);
        assert_eq!(tensor.to_bytes(), [0xe1, 0x03]);
        let numbers: Vec<i64> = (-20..20).collect();
        for x in numbers {
            assert_eq!(I4::from_f64(x as f64).get(), x.clamp(-8, 7) as i8);
            assert_eq!(U4::from_f64(x as f64).get(), x.clamp(0, 15) as u8);
            assert_eq!(i64::from(U4::from_i128(i128::from(x)).get()), x & 15);
        }
        let mut proto = tensor.to_proto("t");
        proto.raw_data = Some(vec![0xe1]);
        assert!(Tensor::from_proto(&proto).is_err());
        (proto.raw_data, proto.int32_data) = (None, vec![0xe1, 3, 0]);
        assert!(Tensor::from_proto(&proto).is_err());
        proto.int32_data = vec![0xe1, 256];
        assert!(Tensor::from_proto(&proto).is_err());
    }

    #[test]
    fn typed_fields_are_read() {
        for tensor in samples() {
            let mut proto = tensor.to_proto("t");
            proto.raw_data = None;
            match tensor.data() {
                Data::F32(v) => proto.float_data = v.clone(),
                Data::F64(v) => proto.double_data = v.clone(),
                Data::F16(v) => {
                    proto.int32_data = v.iter().map(|x| i32::from(x.to_bits())).collect();
                }
                Data::I64(v) => proto.int64_data = v.clone(),
                Data::U32(v) => proto.uint64_data = v.iter().map(|&x| u64::from(x)).collect(),
                Data::U64(v) => proto.uint64_data = v.clone(),
                Data::I4(_) | Data::U4(_) => {
                    let bytes = tensor.to_bytes();
                    proto.int32_data = bytes.iter().map(|&byte| i32::from(byte)).collect();
                }
                other => {
                    proto.int32_data =
                        each!(other, v => v.iter().map(|&x| x.to_i128() as i32).collect());
                }
            }
            assert_eq!(Tensor::from_proto(&proto).unwrap(), tensor);
        }
    }

    #[test]
    fn faulty_tensors_are_refused() {
        let good = Tensor::vector(vec![1_u8, 2]).to_proto("t");
        let with = |change: fn(&mut TensorProto)| {
            let mut proto = good.clone();
            change(&mut proto);
            Tensor::from_proto(&proto).unwrap_err()
        };
        assert_eq!(with(|p| p.data_type = 8), TensorError::Type(8));
        assert_eq!(with(|p| p.dims = vec![-2]), TensorError::Shape(vec![-2]));
        assert_eq!(
            with(|p| p.dims = vec![i64::MAX, i64::MAX]),
            TensorError::Shape(vec![i64::MAX, i64::MAX])
        );
        assert_eq!(
            with(|p| p.dims = vec![3]),
            TensorError::Length {
                found: 2,
                expected: 3,
                unit: "bytes"
            }
        );
        assert_eq!(
            with(|p| p.int32_data = vec![1, 2]),
            TensorError::Field("int32_data")
        );
        assert_eq!(
            with(|p| {
                p.raw_data = None;
                p.float_data = vec![1.0, 2.0];
            }),
            TensorError::Field("float_data")
        );
        assert_eq!(
            with(|p| {
                p.raw_data = None;
                p.int32_data = vec![1, 256];
            }),
            TensorError::Value {
                value: 256,
                dtype: DType::U8
            }
        );
        assert_eq!(with(|p| p.data_location = 1), TensorError::External);
        assert_eq!(
            with(|p| p.segment = Some(crate::proto::Segment { begin: 0, end: 1 })),
            TensorError::Segment
        );
        assert_eq!(
            with(|p| {
                p.data_type = data_type::BOOL;
                p.raw_data = Some(vec![0, 2]);
            }),
            TensorError::Value {
                value: 2,
                dtype: DType::Bool
            }
        );
    }
}
