//! Model files: a model with its parameters, served straight from a memory map.
//!
//! # The format
//! A model file is a valid SafeTensors file, so any reader of that format opens it (in Python,
//! `safetensors.numpy.load_file`). What makes it a model file stands in its metadata:
//!
//! | key | holds |
//! |---|---|
//! | `fledgling.format` | the version of this format: `1` for parameters, `2` or `3` for a program |
//! | `fledgling.kind` | `parameters` or `program` |
//! | `fledgling.model` | JSON: the [`ModelDef`], the input, the target, and how it is trained for quantization |
//! | `fledgling.program` | in a program's file, JSON: [`Numerics`], [`Passes`] where not all are made, and a letter for the [`Packing`](crate::Packing) of each section, in the order of their bytes |
//! | `fledgling.steps` | in a program's file, the compiled steps ([`Ready`](crate::Ready)) |
//! | `fledgling.sha256` | of parameters JSON: SHA-256 of each tensor's bytes, by name; of a program SHA-256 of all data |
//! | `fledgling.header` | SHA-256 of all the rest of the header: what it says, not how it is spelt |
//!
//! The data begin at a multiple of [`ALIGNMENT`] bytes: the header is filled with spaces, as the
//! format allows. In a file of *parameters* the tensors lie in the order of the model's layout,
//! so that the data are the flat vector of parameters itself, in little-endian `f32`:
//! [`ModelFile::values`] is a view of the map. In a *program*'s file the tensors are the sections
//! of its [`Constants`](crate::Constants), packed as the kernels read them: first those of at least
//! 4096 bytes, each at a multiple of [`ALIGNMENT`], then the others at multiples of the size of
//! their numbers, larger numbers first. The format allows no holes, so what lies between two of
//! the large ones is a tensor too: zeros of type `U8`, called `__pad.0`, `__pad.2` and so on.
//! [`ModelFile::program`] copies none of them out of the map.
//!
//! A program with everything in few bits ([`Scope::All`](crate::quant::Scope)) has format `3`: of a
//! small model so much smaller, names, types and places of its sections would be a tenth. All its data
//! are one tensor of type `U8`, called `data`: the sections in that order with zeros between the
//! large ones, then the block of the compiled steps as it is, then the block's length as a `u32`. What
//! a section is and where it lies follows from model, numerics and passes, and for who does not compile
//! from the steps; so there are neither letters nor `fledgling.steps`.
//!
//! Programs in format `1` are read as well: there each section had its own checksum, its place in
//! the program's order at a multiple of [`ALIGNMENT`], and no compiled steps were written.
//!
//! # Trust
//! [`ModelFile::open`] checks the header: every length against the file, the places of the
//! tensors (no hole, no overlap, nothing behind them), its own checksum, and that model and
//! tensors agree. It reads nothing of the data, so a large file opens at once. Any change of the
//! data is found by [`ModelFile::verify`], which [`ModelFile::parameters`] calls and [`ModelFile::program`] does
//! not. A damaged file
//! is an error, never a panic, and costs no more memory than a small multiple of its header.
//!
//! ```
//! use std::sync::Arc;
//! use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
//! use fl_edge::file::{self, ModelFile};
//! use fl_edge::{Model, ModelDef};
//!
//! let def = ModelDef::named("logreg").expect("a model of the zoo");
//! let input = InputSpec::Real(vec![8, 8, 1]);
//! let model = Model::new(&def, &input, TargetSpec::Class { classes: 10 })?;
//! let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
//! let parameters = model.init(&mut stream);
//!
//! let mut bytes = Vec::new();
//! file::write_parameters(&model, &parameters, &mut bytes)?;
//! let file = ModelFile::open(Arc::new(bytes))?;
//! assert_eq!(file.parameters()?.digest(), parameters.digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod header;
mod program;
#[cfg_attr(
    not(feature = "std"),
    expect(
        unused_imports,
        reason = "without the standard library nothing is written"
    )
)]
mod write;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use fl_core::{InputSpec, Parameters, TargetSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use error::FileError;
pub use header::{ALIGNMENT, Dtype, TensorInfo};
pub(crate) use write::description;
#[cfg(feature = "std")]
pub use write::{write_parameters, write_program};

#[cfg(feature = "mmap")]
pub use crate::kernel::Mapped;

use crate::model::Model;
use crate::program::{Numerics, Passes, SharedBytes};
use crate::qat::QatOptions;
use crate::runtime::JOINED;
use crate::zoo::ModelDef;
use header::{Header, Texts};
use program::Compiled;

/// The version of the format of parameters, and of programs that were written before.
const FORMAT: &str = "1";
/// The version of the format of programs.
const PROGRAM_FORMAT: &str = "2";
/// The same of programs whose data are one tensor.
const JOINED_FORMAT: &str = JOINED;
/// Keys of the metadata.
const KEY_FORMAT: &str = "fledgling.format";
const KEY_KIND: &str = "fledgling.kind";
const KEY_MODEL: &str = "fledgling.model";
const KEY_PROGRAM: &str = "fledgling.program";
const KEY_SHA256: &str = "fledgling.sha256";
const KEY_HEADER: &str = "fledgling.header";
/// Layers of a model that is read from a file, at most.
const MOST_LAYERS: usize = 4096;
/// Numbers in one example of a model that is read from a file, at most.
const MOST_INPUTS: usize = 1 << 32;

/// What a file holds beside the model's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The parameters in `f32`, as they are trained.
    Parameters,
    /// A compiled program with its constants, as it is served.
    Program,
}

impl Kind {
    /// Its name in the metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Program => "program",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Parameters, Self::Program]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// The model as the metadata describe it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    definition: ModelDef,
    input: InputSpec,
    target: TargetSpec,
    /// How it is trained for quantization: its layout then has ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qat: Option<QatOptions>,
}

/// A model file that has passed every check of its header.
#[derive(Clone)]
pub struct ModelFile {
    bytes: SharedBytes,
    /// Where the data begin.
    start: usize,
    header: Header,
    kind: Kind,
    model: Arc<Model>,
    /// In a program's file.
    compiled: Option<Compiled>,
    form: Form,
    checksums: Checksums,
}

/// What a program's data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A tensor and a checksum for each section; and of parameters.
    Each,
    /// A tensor for each section, a checksum of all.
    Whole,
    /// One tensor.
    Joined,
}

/// SHA-256 of the data.
#[derive(Clone, Debug)]
enum Checksums {
    /// Of each tensor's, by its name.
    Each(BTreeMap<String, String>),
    /// Of all.
    Whole(String),
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelFile")
            .field("kind", &self.kind)
            .field("tensors", &self.header.tensors.len())
            .field("bytes", &(*self.bytes).as_ref().len())
            .finish_non_exhaustive()
    }
}

impl ModelFile {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong with the file.
    pub fn open(bytes: SharedBytes) -> Result<Self, FileError> {
        let (header, start) = Header::parse((*bytes).as_ref())?;
        let text = |key: &'static str| match header.metadata.get(key) {
            Some(text) => Ok(text.as_str()),
            None => Err(FileError::Missing { key }),
        };
        let format = text(KEY_FORMAT)?;
        let program = text(KEY_KIND)? == Kind::Program.name();
        let form = match format {
            FORMAT => Some(Form::Each),
            PROGRAM_FORMAT if program => Some(Form::Whole),
            JOINED_FORMAT if program => Some(Form::Joined),
            _ => None,
        };
        let Some(form) = form else {
            return Err(FileError::Format {
                found: format.to_owned(),
                expected: match Kind::named(text(KEY_KIND)?) {
                    Some(Kind::Program) => "1, 2 or 3",
                    _ => FORMAT,
                },
            });
        };
        if text(KEY_HEADER)? != meaning(&header) {
            return Err(FileError::Header);
        }
        if !start.is_multiple_of(ALIGNMENT) {
            return Err(FileError::Unaligned {
                start,
                alignment: ALIGNMENT,
            });
        }
        let name = text(KEY_KIND)?;
        let kind = Kind::named(name).ok_or_else(|| FileError::UnknownKind {
            found: name.to_owned(),
        })?;
        let model = described(text(KEY_MODEL)?)?;
        let json = |part, source| FileError::Json { part, source };
        let sums = text(KEY_SHA256)?;
        let checksums = match form {
            Form::Whole | Form::Joined => Checksums::Whole(sums.to_owned()),
            Form::Each => {
                let Texts(each) = serde_json::from_str(sums)
                    .map_err(|source| json("list of checksums", source))?;
                Checksums::Each(each)
            }
        };
        let program = header.metadata.get(KEY_PROGRAM).cloned();
        let mut file = Self {
            bytes,
            start,
            header,
            kind,
            model: Arc::new(model),
            compiled: None,
            form,
            checksums,
        };
        match kind {
            Kind::Parameters => file.check_layout()?,
            Kind::Program => {
                let text = program.ok_or(FileError::Missing { key: KEY_PROGRAM })?;
                file.compiled = Some(file.check_program(&text)?);
            }
        }
        Ok(file)
    }

    /// That the tensors are the model's, in the order of its flat vector.
    fn check_layout(&self) -> Result<(), FileError> {
        let layout = self.model.layout();
        for spec in layout.tensors() {
            let expected = format!("F32 {:?} from byte {}", spec.shape, spec.offset as u64 * 4);
            let found = match self.header.tensor(&spec.name) {
                Some(tensor)
                    if tensor.dtype == Dtype::F32
                        && tensor.shape == spec.shape
                        && tensor.range.start as u64 == spec.offset as u64 * 4 =>
                {
                    continue;
                }
                Some(tensor) => format!(
                    "{:?} {:?} from byte {}",
                    tensor.dtype, tensor.shape, tensor.range.start
                ),
                None => "missing".to_owned(),
            };
            return Err(FileError::Tensor {
                name: spec.name.clone(),
                found,
                expected,
            });
        }
        if self.header.tensors.len() != layout.tensors().len() {
            let unknown = |tensor: &&TensorInfo| layout.tensor(&tensor.name).is_none();
            return Err(FileError::Tensor {
                name: match self.header.tensors.iter().find(unknown) {
                    Some(tensor) => tensor.name.clone(),
                    None => String::new(),
                },
                found: "there".to_owned(),
                expected: "none of that name".to_owned(),
            });
        }
        Ok(())
    }

    /// What the file holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The numbers that the program of the file computes with.
    #[must_use]
    pub fn numerics(&self) -> Option<&Numerics> {
        self.compiled.as_ref().map(|compiled| &compiled.numerics)
    }

    /// What was joined in the program of the file.
    #[must_use]
    pub fn passes(&self) -> Option<Passes> {
        self.compiled.as_ref().map(|compiled| compiled.passes)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Its tensors, in the order of their bytes.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// SharedBytes of the whole file.
    #[must_use]
    pub fn len(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// Never: a file has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SharedBytes behind the header.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.header.tensors.last().map_or(0, |last| last.range.end)
    }

    /// Where the data begin: bytes of the header, with what fills it up.
    #[must_use]
    pub fn data_start(&self) -> usize {
        self.start
    }

    /// Where one of its tensors lies in the file.
    #[must_use]
    pub fn place(&self, tensor: &TensorInfo) -> core::ops::Range<usize> {
        self.start + tensor.range.start..self.start + tensor.range.end
    }

    /// The bytes behind the header; empty if the owner of the bytes has changed their number.
    fn data(&self) -> &[u8] {
        let end = self.start + self.data_len();
        (*self.bytes)
            .as_ref()
            .get(self.start..end)
            .unwrap_or_default()
    }

    /// Reads all data and compares them with their checksums.
    ///
    /// # Errors
    /// [`FileError::Data`] in a program's file; [`FileError::Section`] or [`FileError::Padding`]
    /// names the first tensor that is not what was written where each has its checksum.
    pub fn verify(&self) -> Result<(), FileError> {
        let checksums = match &self.checksums {
            Checksums::Whole(expected) => {
                return match sha256(self.data()) == *expected {
                    true => Ok(()),
                    false => Err(FileError::Data),
                };
            }
            Checksums::Each(each) => each,
        };
        for tensor in &self.header.tensors {
            let name = || tensor.name.clone();
            let bytes = self.data().get(tensor.range.clone());
            let damaged = || FileError::Section { name: name() };
            let bytes = bytes.ok_or_else(damaged)?;
            if self.kind == Kind::Program && program::is_padding(tensor) {
                if bytes.iter().any(|&byte| byte != 0) {
                    return Err(FileError::Padding { name: name() });
                }
                continue;
            }
            let expected = checksums.get(&tensor.name);
            let expected = expected.ok_or_else(|| FileError::NoChecksum { name: name() })?;
            if sha256(bytes) != *expected {
                return Err(damaged());
            }
        }
        Ok(())
    }

    /// The flat vector of parameters where it lies; none where the bytes are not aligned for
    /// that, on a big-endian machine, or in a file of another kind.
    ///
    /// Reading it brings the file into memory, page by page. Nothing is verified.
    #[must_use]
    pub fn values(&self) -> Option<&[f32]> {
        if self.kind != Kind::Parameters || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(self.data()).ok()
    }

    /// A copy of the parameters, verified.
    ///
    /// # Errors
    /// [`FileError::Kind`] in a program's file, [`FileError::Section`] when the data are damaged.
    pub fn parameters(&self) -> Result<Parameters, FileError> {
        if self.kind != Kind::Parameters {
            return Err(FileError::Kind {
                found: "compiled program",
                needed: "parameters",
                advice: "give the file of parameters that the program was made of",
            });
        }
        self.verify()?;
        let (words, _) = self.data().as_chunks::<4>();
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Ok(Parameters::new(Arc::clone(self.model.layout()), values)?)
    }
}

/// The model of a description, which must be of a size that can be.
pub(crate) fn described(text: &str) -> Result<Model, FileError> {
    let Described {
        definition,
        input,
        target,
        qat,
    } = parse_described(text)?;
    let shape = match &input {
        InputSpec::Real(shape) => shape.as_slice(),
        InputSpec::Tokens { length, .. } => core::slice::from_ref(length),
    };
    let numbers = shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    if numbers.is_none_or(|numbers| numbers > MOST_INPUTS) {
        return Err(FileError::Tensor {
            name: "input".to_owned(),
            found: format!("of shape {shape:?}"),
            expected: format!("at most {MOST_INPUTS} numbers"),
        });
    }
    let layers = definition.layers_for(&input, target)?.len();
    if layers > MOST_LAYERS {
        return Err(FileError::Layers {
            found: layers,
            most: MOST_LAYERS,
        });
    }
    let model = Model::new(&definition, &input, target)?;
    Ok(match qat {
        Some(options) => model.with_ranges(options)?,
        None => model,
    })
}

fn parse_described(text: &str) -> Result<Described, FileError> {
    serde_json::from_str(text).map_err(|source| FileError::Json {
        part: "model",
        source,
    })
}

/// SHA-256 of what a header says: the metadata in the order of their keys, then the tensors in
/// the order of their bytes, every text with its length before it. Without its own entry.
fn meaning(header: &Header) -> String {
    fn text(hash: &mut Sha256, text: &str) {
        number(hash, text.len());
        hash.update(text.as_bytes());
    }
    fn number(hash: &mut Sha256, number: usize) {
        hash.update((number as u64).to_le_bytes());
    }
    let mut hash = Sha256::new();
    for (key, value) in &header.metadata {
        if key != KEY_HEADER {
            text(&mut hash, key);
            text(&mut hash, value);
        }
    }
    number(&mut hash, header.tensors.len());
    for tensor in &header.tensors {
        text(&mut hash, &tensor.name);
        text(&mut hash, tensor.dtype.name());
        number(&mut hash, tensor.shape.len());
        for &size in &tensor.shape {
            number(&mut hash, size);
        }
        number(&mut hash, tensor.range.start);
        number(&mut hash, tensor.range.end);
    }
    hex(&hash.finalize())
}

/// SHA-256 in hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
    text
}
