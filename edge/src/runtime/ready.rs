//! A file's compiled steps at work.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};

use super::section::{self, Block, KEY_STEPS, StepsError};
use super::{Context, INPUT, Inputs, Numbers, Schedule, SharedBytes, Slot, Step};
use crate::arena::AlignedBytes;
use crate::kernel::Kernels;

/// Bytes of the header's length.
const LENGTH: usize = size_of::<u64>();
/// The entry of the metadata that has the SHA-256 of the data.
const KEY_SHA256: &str = "fledgling.sha256";
/// The entry of the metadata that has the version of the file's format, and the one in which the steps
/// are the last of the data.
const KEY_FORMAT: &str = "fledgling.format";
pub(crate) const JOINED: &str = "3";
/// Multiple at which data begin in memory, where they are not copied.
const ALIGNMENT: usize = 64;
/// Examples that are worked on at once at most.
const MOST_ROWS: usize = 8;
/// Bytes of an arena that holds more than one example.
const CACHED_BYTES: usize = 1 << 20;

/// A program that is ready to run: the compiled steps of a [model file](crate::file), opened without
/// the model's description, with one arena. A run allocates nothing.
///
/// It computes what the program that was written computes, to the same bits, and needs none of what
/// made it: neither JSON nor the zoo, the graph, or the planner of memory. What it does need are the
/// kernels. The plan in the file is for one example; for as many as fit into a cache, at most eight,
/// every place in it is that many times as far.
///
/// ```
/// use std::sync::Arc;
/// use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
/// use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Ready, Runner, file};
///
/// let def = ModelDef::named("mlp-2nn").expect("a model of the zoo");
/// let input = InputSpec::Real(vec![8, 8, 1]);
/// let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes: 10 })?);
/// let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
/// let parameters = model.init(&mut stream);
/// let program = Program::compile(&model, parameters.values(), &Numerics::F16, Passes::ALL)?;
/// let mut bytes = Vec::new();
/// file::write_program(&program, &mut bytes)?;
///
/// let mut ready = Ready::open(Arc::new(bytes))?;
/// let mut runner = Runner::new(Arc::new(program), 1);
/// let (mut here, mut there) = ([0.0; 10], [0.0; 10]);
/// ready.run(Inputs::Real(&[0.5; 64]), &mut here);
/// runner.run(Inputs::Real(&[0.5; 64]), &mut there);
/// assert_eq!(here.map(f32::to_bits), there.map(f32::to_bits));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ready {
    kernels: &'static Kernels,
    steps: Vec<Step>,
    numbers: Numbers,
    schedule: Schedule,
    arena: AlignedBytes,
    rows: usize,
    input: usize,
    vocabulary: Option<usize>,
    output: usize,
    slot: Slot,
    file: SharedBytes,
    /// Where the data lie in the file, and in it their SHA-256 in hexadecimal digits.
    data: Range<usize>,
    digest: Range<usize>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("steps", &self.steps.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Ready {
    /// The program of a whole file. Weights are read where they lie, unless the data do not begin
    /// at a multiple of 64 bytes in memory: then they are copied.
    ///
    /// # Errors
    /// [`StepsError`] for a file without compiled steps, or one that is damaged in its header.
    pub fn open(file: SharedBytes) -> Result<Self, StepsError> {
        Self::open_within(file, usize::MAX)
    }

    /// The same with an arena of at most so many bytes: a file says how many it needs.
    ///
    /// # Errors
    /// As [`Ready::open`], and [`StepsError::Memory`] where the arena for one example is larger.
    pub fn open_within(file: SharedBytes, most: usize) -> Result<Self, StepsError> {
        let bytes = (*file).as_ref();
        let (header, start) = header(bytes)?;
        let data = start..bytes.len();
        let joined = cfg!(feature = "int4")
            && entry(header, KEY_FORMAT).is_ok_and(|at| header[at] == *JOINED.as_bytes());
        let (block, len) = match joined {
            true => {
                let (constants, block) = apart(&bytes[data.clone()]).ok_or(StepsError::Length)?;
                (section::decode(block)?, constants.len())
            }
            false => {
                let text = &header[entry(header, KEY_STEPS)?];
                (section::decode_text(text)?, data.len())
            }
        };
        if len != block.data {
            return Err(StepsError::Length);
        }
        let digest = entry(header, KEY_SHA256)?;
        let digest = digest.start + LENGTH..digest.end + LENGTH;
        let shift = |by: usize| {
            let moved = block.constants.iter();
            moved.map(|it| it.start + by..it.end + by).collect()
        };
        let address = bytes.as_ptr().addr().wrapping_add(start);
        let numbers = if address.is_multiple_of(ALIGNMENT) {
            Numbers::new(shift(start), Arc::clone(&file))
        } else {
            let mut copy = AlignedBytes::try_new(data.len()).ok_or(StepsError::Memory)?;
            copy.as_mut().copy_from_slice(&bytes[data.clone()]);
            Numbers::new(shift(0), Arc::new(copy))
        };
        // Checked: so many bytes are in the file.
        let widened = block
            .widened
            .iter()
            .map(|&at| 2 * block.constants[at].len());
        let numbers = match widened.sum() {
            len if cfg!(feature = "int4") && len > 0 => {
                let wide = AlignedBytes::try_new(len).ok_or(StepsError::Memory)?;
                numbers.widened(&block.widened, wide)
            }
            _ => numbers,
        };
        let Block {
            input,
            vocabulary,
            output,
            arena,
            places,
            slot,
            steps,
            ..
        } = block;
        if arena > most {
            return Err(StepsError::Memory);
        }
        let rows = (CACHED_BYTES.min(most) / arena.max(1)).clamp(1, MOST_ROWS);
        let schedule = Schedule::scaled(steps.len(), places, arena, rows);
        let arena = AlignedBytes::try_new(schedule.arena).ok_or(StepsError::Memory)?;
        Ok(Self {
            kernels: Kernels::best(),
            steps,
            numbers,
            schedule,
            arena,
            rows,
            input,
            vocabulary,
            output,
            slot,
            file,
            data,
            digest,
        })
    }

    /// Reads all data and compares them with their checksum.
    ///
    /// # Errors
    /// [`StepsError::Data`] when they are not what was written.
    pub fn verify(&self) -> Result<(), StepsError> {
        let file = (*self.file).as_ref();
        let parts = file
            .get(self.data.clone())
            .zip(file.get(self.digest.clone()));
        let same = parts.is_some_and(|(data, digits)| {
            let found = section::sha256(data);
            let found = found.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            found.eq(digits.iter().map(|&digit| value(digit)))
        });
        match same {
            true => Ok(()),
            false => Err(StepsError::Data),
        }
    }

    /// Numbers or tokens of one input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.input
    }

    /// How many tokens there are, where inputs are tokens and not real numbers.
    #[must_use]
    pub fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    /// Numbers of one output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output
    }

    /// Examples worked on at once.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the arena.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// Computes the outputs (logits) of examples, `[rows, width]`. The number of rows follows from
    /// the outputs' length and changes no bit.
    ///
    /// # Panics
    /// When inputs and outputs are not of one number of whole examples, when the inputs are of the
    /// other kind than the program's, or when a token is outside the vocabulary.
    pub fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) {
        let count = outputs.len() / self.output;
        assert!(outputs.len() == count * self.output, "the outputs' length");
        assert!(inputs.len() == count * self.input, "the inputs' length");
        let foreign = match (inputs, self.vocabulary) {
            (Inputs::Real(_), vocabulary) => vocabulary.is_some(),
            (Inputs::Tokens(tokens), vocabulary) => {
                let most = vocabulary.unwrap_or(0);
                tokens.iter().any(|&token| token as usize >= most)
            }
        };
        assert!(!foreign, "inputs of another kind, or a foreign token");
        for (part, outputs) in outputs.chunks_mut(self.rows * self.output).enumerate() {
            let rows = outputs.len() / self.output;
            let start = part * self.rows * self.input;
            let mut context = Context {
                kernels: self.kernels,
                constants: &self.numbers,
                schedule: &self.schedule,
                starts: &mut [0],
                all: rows,
                start: 0,
                rows,
                inputs: inputs.part(start, rows * self.input),
                output_slot: self.slot,
                output: cast_slice_mut(outputs),
                arena: self.arena.as_mut(),
            };
            for step in &self.steps {
                context.step(step);
            }
            if self.slot == INPUT
                && let Inputs::Real(values) = context.inputs
            {
                context.output.copy_from_slice(cast_slice(values));
            }
        }
    }
}

/// The data of a file of format 3: constants, and the block behind them.
pub(crate) fn apart(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (data, length) = data.split_last_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    data.split_at_checked(data.len().checked_sub(length)?)
}

/// The header of a file, and where its data begin.
fn header(file: &[u8]) -> Result<(&[u8], usize), StepsError> {
    let (length, rest) = file.split_first_chunk().ok_or(StepsError::NoFile)?;
    let length = usize::try_from(u64::from_le_bytes(*length));
    let header = length.ok().and_then(|length| rest.get(..length));
    let header = header.filter(|header| header.starts_with(b"{"));
    header
        .map(|header| (header, header.len() + LENGTH))
        .ok_or(StepsError::NoFile)
}

/// Where an entry's text lies in the header. The metadata's texts are JSON, in which no key but this
/// one is a quote, these letters, a quote and a colon, as a quote within a text stands behind a
/// backslash; and the digits of the two texts that are asked for need none.
fn entry(header: &[u8], key: &str) -> Result<Range<usize>, StepsError> {
    let start = (0..header.len()).find_map(|at| {
        let rest = header[at..].strip_prefix(b"\"")?;
        let rest = rest.strip_prefix(key.as_bytes())?.strip_prefix(b"\":\"")?;
        Some(header.len() - rest.len())
    });
    let start = start.ok_or(StepsError::NoSteps)?;
    let len = header[start..].iter().position(|&byte| byte == b'"');
    len.map(|len| start..start + len).ok_or(StepsError::NoSteps)
}

/// What a hexadecimal digit stands for.
fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => u8::MAX,
    }
}
