//! `model`: model files and the models of the zoo at the prompt.

mod bench;
mod container;
mod convert;
mod data;
mod inspect;
mod prune;
mod quantize;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use fl_core::{ClientId, InputSpec, Parameters, Purpose, RoundId, Seed, Stream};
use fl_edge::file::{FileError, Mapped, ModelFile};
use fl_edge::gguf::{self, GgufError};
use fl_edge::prune::PruneError;
use fl_edge::quant::{QuantError, Quantization};
use fl_edge::{EdgeError, Model, ModelDef, Numerics, Passes, Program, ProgramError};

use super::{Exit, output};
use crate::config::suggest;
use crate::error::Error;
use crate::results::{self, ResultsError};

/// Arguments of `model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a model's layers, sizes and memory, and check its file
    Inspect(inspect::Args),
    /// Write a trained model in integers of eight bits, or its weights in four
    Quantize(quantize::Args),
    /// Set weights of a trained model to zero, or remove its filters
    Prune(prune::Args),
    /// Write a trained model as a program to be served, as ONNX or as GGUF
    Convert(convert::Args),
    /// Time a model on this machine, on one thread
    Bench(bench::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// What the subcommands say.
pub fn run(args: &Args) -> Result<Exit, Error> {
    match &args.command {
        Command::Inspect(args) => inspect::run(args)?,
        Command::Quantize(args) => quantize::run(args)?,
        Command::Prune(args) => prune::run(args)?,
        Command::Convert(args) => convert::run(args)?,
        Command::Bench(args) => bench::run(args)?,
    }
    Ok(Exit::Done)
}

/// What is wrong with a model, or with what it is to be used for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Neither a file nor a model of the zoo.
    #[error("`{name}` is neither a file nor a model of the zoo; {hint}")]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name, or all names.
        hint: String,
    },
    /// A model of the zoo where trained parameters are needed.
    #[error(
        "`{name}` is a model of the zoo without trained parameters; give a model file, e.g. the \
         model.safetensors of a run's results"
    )]
    Untrained {
        /// The model.
        name: String,
    },
    /// A model without ranges where integers are wanted.
    #[error(
        "`{name}` was not trained for quantization, so no ranges are known; calibrate it with \
         `fledgling model quantize`, or train it with local.precision = \"qat-int8\""
    )]
    NoRanges {
        /// The model.
        name: String,
    },
    /// The file is not what is needed.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// The examples are not of the model's kind.
    #[error(
        "`{data}` holds inputs {found} with targets {found_target}, and the model takes \
         {expected} with targets {expected_target}; choose the data that it was trained on"
    )]
    Data {
        /// The data set.
        data: String,
        /// Its inputs, printed.
        found: String,
        /// Its targets, printed.
        found_target: String,
        /// The model's inputs, printed.
        expected: String,
        /// The model's targets, printed.
        expected_target: String,
    },
    /// A number of another calibrator.
    #[error(
        "{option} is not used by the calibrator {calibrator}; leave it out, or choose another with \
         --calibrator"
    )]
    UnusedOption {
        /// The option.
        option: &'static str,
        /// The calibrator that was chosen.
        calibrator: &'static str,
    },
    /// An option of other numbers.
    #[error("{option} is not used for {to}; leave it out, or choose other numbers with --to")]
    OtherNumbers {
        /// The option.
        option: &'static str,
        /// What was asked for.
        to: &'static str,
    },
    /// More levels than bins.
    #[error(
        "a cut of {bins} bins cannot be compared at {levels} levels; lower --levels or raise --bins"
    )]
    Levels {
        /// The levels.
        levels: usize,
        /// The bins.
        bins: usize,
    },
    /// A budget of accuracy on data without classes.
    #[error(
        "`{data}` has no classes, so there is no accuracy to keep; leave --budget out, and name \
         units with --keep-f16"
    )]
    NoClasses {
        /// The data set.
        data: String,
    },
    /// A budget that not even f16 keeps.
    #[error(
        "with every unit in f16 the model still loses {lost:.2} points of accuracy and the budget \
         is {points}; raise --budget, or write it with `fledgling model convert --to f32`"
    )]
    Budget {
        /// Points that may be lost.
        points: f64,
        /// Points that are lost.
        lost: f64,
    },
    /// The examples cannot be run.
    #[error(transparent)]
    Examples(#[from] fl_core::TrainError),
    /// The model cannot be served so.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The model cannot be quantized so.
    #[error(transparent)]
    Quantization(#[from] QuantError),
    /// The model cannot be pruned so.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// The model cannot be made.
    #[error(transparent)]
    Model(#[from] EdgeError),
    /// An ONNX file without a native form.
    #[error("{path}: {source}", path = path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        source: Box<fl_onnx::ImportError>,
    },
    /// A GGUF file that cannot be read, or holds another program's model.
    #[error("{path}: {source}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        source: Box<GgufError>,
    },
    /// A form that the file's format does not have.
    #[error("{format} has no form `{form}`; expected {expected} with --to")]
    Form {
        /// The format of the file to be written.
        format: &'static str,
        /// What was asked for.
        form: &'static str,
        /// What there is.
        expected: &'static str,
    },
    /// The model cannot be written as ONNX.
    #[error("the model cannot be written as ONNX: {0}")]
    Export(#[from] fl_onnx::ExportError),
}

impl ModelError {
    /// Whether the fault is in what was typed.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::Untrained { .. }
                | Self::Data { .. }
                | Self::NoRanges { .. }
                | Self::NoClasses { .. }
                | Self::UnusedOption { .. }
                | Self::OtherNumbers { .. }
                | Self::Levels { .. }
                | Self::Form { .. }
                | Self::Prune(_)
        )
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::Model(Box::new(error))
    }
}

/// A model that was named on the command line.
pub(super) struct Subject {
    /// As it was named.
    name: String,
    model: Arc<Model>,
    /// None for a model of the zoo and for a file of another format.
    file: Option<(PathBuf, ModelFile)>,
    foreign: Option<Foreign>,
}

/// What a file of another format holds beside the model.
struct Foreign {
    format: &'static str,
    parameters: Parameters,
    quantization: Option<Quantization>,
}

impl Subject {
    /// The model in a file, in a folder of results, or of the zoo.
    pub(super) fn read(name: &str) -> Result<Self, Error> {
        let mut path = PathBuf::from(name);
        if path.is_dir() {
            path.push("model.safetensors");
        }
        if path.is_file() && is_onnx(&path) {
            return Self::read_onnx(name, path);
        }
        if path.is_file() && container::is_gguf(&path) {
            return Self::read_gguf(name, path);
        }
        if path.is_file() {
            let map = open(&path)?;
            let file = ModelFile::open(Arc::new(map)).map_err(|source| ModelError::File {
                path: path.clone(),
                source,
            })?;
            return Ok(Self {
                name: name.to_owned(),
                model: Arc::clone(file.model()),
                file: Some((path, file)),
                foreign: None,
            });
        }
        let known = |def: ModelDef| {
            let (input, target) = def.example()?;
            Some((def, input, target))
        };
        let Some((def, input, target)) = ModelDef::named(name).and_then(known) else {
            return Err(ModelError::Unknown {
                name: name.to_owned(),
                hint: suggest(name, fl_edge::MODELS.iter().map(|(kind, _)| *kind)),
            }
            .into());
        };
        let model = Model::new(&def, &input, target).map_err(ModelError::from)?;
        Ok(Self {
            name: name.to_owned(),
            model: Arc::new(model),
            file: None,
            foreign: None,
        })
    }

    /// The model alone.
    pub(super) fn into_model(self) -> Arc<Model> {
        self.model
    }

    fn read_onnx(name: &str, path: PathBuf) -> Result<Self, Error> {
        let bytes = std::fs::read(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
            help: "give a model file that you may read",
        })?;
        let imported = match fl_onnx::import(&bytes, &fl_onnx::Limits::default()) {
            Ok(imported) => imported,
            Err(error) => {
                let source = Box::new(error);
                return Err(ModelError::Import { path, source }.into());
            }
        };
        for notice in &imported.notices {
            output::tell(notice);
        }
        let layout = Arc::clone(imported.model.layout());
        let parameters = Parameters::new(layout, imported.parameters);
        let parameters = parameters.map_err(|error| ModelError::from(EdgeError::from(error)))?;
        Ok(Self {
            name: name.to_owned(),
            model: Arc::new(imported.model),
            file: None,
            foreign: Some(Foreign {
                format: match imported.quantization {
                    Some(_) => "ONNX in int8",
                    None => "ONNX",
                },
                parameters,
                quantization: imported.quantization,
            }),
        })
    }

    fn read_gguf(name: &str, path: PathBuf) -> Result<Self, Error> {
        let map = open(&path)?;
        let (model, parameters) = gguf::read_model(map.as_ref()).map_err(|error| {
            let source = Box::new(error);
            ModelError::Gguf { path, source }
        })?;
        Ok(Self {
            name: name.to_owned(),
            model,
            file: None,
            foreign: Some(Foreign {
                format: "GGUF",
                parameters,
                quantization: None,
            }),
        })
    }

    /// The scales of an ONNX file in the QDQ form, or those learned in training.
    fn quantization(&self, parameters: &Parameters) -> Result<Quantization, ModelError> {
        let foreign = self.foreign.as_ref();
        foreign
            .and_then(|foreign| foreign.quantization.clone())
            .or_else(|| self.model.quantization(parameters.values()))
            .ok_or_else(|| ModelError::NoRanges {
                name: self.name.clone(),
            })
    }

    /// The trained parameters, verified.
    fn parameters(&self) -> Result<Parameters, Error> {
        if let Some(foreign) = &self.foreign {
            return Ok(foreign.parameters.clone());
        }
        match &self.file {
            Some((path, file)) => Ok(file.parameters().map_err(|source| ModelError::File {
                path: path.clone(),
                source,
            })?),
            None => Err(ModelError::Untrained {
                name: self.name.clone(),
            }
            .into()),
        }
    }

    /// Parameters as training starts with them: of the right sizes, and enough to measure with.
    fn start(&self) -> Parameters {
        let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
        self.model.init(&mut stream)
    }

    /// The program of the file (of a QDQ file: in its integers), or the model compiled in `f32`.
    fn program(&self) -> Result<Program, Error> {
        if let Some(foreign) = &self.foreign {
            let stored = foreign.quantization.clone();
            let numerics = stored.map_or(Numerics::F32, Numerics::Int8);
            return self.compile(&foreign.parameters, &numerics);
        }
        let Some((path, file)) = &self.file else {
            return self.compile(&self.start(), &Numerics::F32);
        };
        match file.kind() {
            fl_edge::file::Kind::Program => {
                Ok(file.program().map_err(|source| ModelError::File {
                    path: path.clone(),
                    source,
                })?)
            }
            _ => self.compile(&self.parameters()?, &Numerics::F32),
        }
    }

    fn compile(&self, parameters: &Parameters, numerics: &Numerics) -> Result<Program, Error> {
        let program = Program::compile(&self.model, parameters.values(), numerics, Passes::ALL);
        Ok(program.map_err(ModelError::from)?)
    }
}

/// Writes a model file beside its place, then moves it there; the result is its length.
fn write_model(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<(), FileError>,
) -> Result<u64, ResultsError> {
    Ok(results::stage_model(path, write)?.publish()?.bytes)
}

/// A file as a memory map.
fn open(path: &Path) -> Result<Mapped, Error> {
    Mapped::open(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
        help: "give a model file that you may read",
    })
}

/// Whether a file is named as ONNX.
fn is_onnx(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// `[28, 28, 1]`, or `80 tokens of 90`.
fn input_text(input: &InputSpec) -> String {
    match input {
        InputSpec::Real(shape) => format!("{shape:?}"),
        InputSpec::Tokens { length, vocabulary } => format!("{length} tokens of {vocabulary}"),
    }
}

/// `10 classes`, or `3 numbers`.
fn target_text(target: fl_core::TargetSpec) -> String {
    match target {
        fl_core::TargetSpec::Class { classes } => format!("{classes} classes"),
        fl_core::TargetSpec::Sequence { length, classes } => {
            format!("{classes} classes at each of {length} positions")
        }
        fl_core::TargetSpec::Real { width } => format!("{width} numbers"),
    }
}
