//! Examples in their compact type, decoded straight into a batch.
//!
//! Images stay bytes and become real numbers as they are read; text stays characters, and an
//! example is a window of it; tables are `f32`.

use std::sync::Arc;

use fl_core::{Examples, InputSpec, InputsMut, NO_TARGET, TargetSpec, TargetsMut};
use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;

/// How stored bytes become the real numbers that a model sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Bytes divided by the largest value that they can take, so in `[0, 1]`; tables as they are.
    #[default]
    Unit,
    /// Bytes over all that they can take, from -0.5 to 0.5; tables are refused. It is what the
    /// MNIST example of early TensorFlow fed its network (`(pixel - 255 / 2) / 255`).
    Centred,
    /// Each channel (of a table: each column) less its mean over the training examples, divided
    /// by its population standard deviation; a constant channel becomes zero.
    Standard,
    /// The numbers as stored.
    Raw,
}

/// `value = byte * scale + shift`, channel by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Scale and shift where all channels have the same.
    uniform: Option<(f32, f32)>,
    /// One per value of a run of [`Self::RUN`] pixels, channels interleaved.
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    /// Pixels that one pass of the decoding loop covers.
    const RUN: usize = 16;

    /// From each channel's scale and shift; there is at least one channel.
    fn new(channels: &[(f32, f32)]) -> Self {
        let run = || channels.iter().cycle().take(channels.len() * Self::RUN);
        let same = |channel: &(f32, f32)| {
            let bits = |(scale, shift): (f32, f32)| (scale.to_bits(), shift.to_bits());
            bits(*channel) == bits(channels[0])
        };
        Self {
            uniform: channels.iter().all(same).then(|| channels[0]),
            scale: run().map(|&(scale, _)| scale).collect(),
            shift: run().map(|&(_, shift)| shift).collect(),
        }
    }

    /// Decodes one example.
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        if let Some((scale, shift)) = self.uniform {
            for (out, &byte) in out.iter_mut().zip(bytes) {
                *out = f32::from(byte) * scale + shift;
            }
            return;
        }
        let run = self.scale.len();
        for (bytes, out) in bytes.chunks(run).zip(out.chunks_mut(run)) {
            for (((out, &byte), &scale), &shift) in
                out.iter_mut().zip(bytes).zip(&self.scale).zip(&self.shift)
            {
                *out = f32::from(byte) * scale + shift;
            }
        }
    }
}

/// Bytes of images or other arrays, `[rows, input.len()]`.
#[derive(Clone, Debug)]
pub struct ByteRows {
    /// The bytes; signed data are stored with 128 added.
    pub data: Vec<u8>,
    /// Channels, interleaved: the last dimension of the input, or 1.
    pub channels: usize,
    /// What a stored 0 stands for: 0, or -128 for signed data.
    pub zero: i16,
    /// The largest magnitude of a value, for [`Normalise::Unit`]: 255, 16, 128.
    pub largest: u16,
}

impl ByteRows {
    /// The affine map for `normalise`, with statistics over these rows.
    fn affine(&self, normalise: Normalise) -> Affine {
        let zero = f32::from(self.zero);
        let channels: Vec<(f32, f32)> = match normalise {
            Normalise::Raw => vec![(1.0, zero); self.channels],
            Normalise::Unit => {
                let scale = 1.0 / f32::from(self.largest);
                vec![(scale, zero * scale); self.channels]
            }
            Normalise::Centred => {
                let span = f32::from(self.largest) - zero;
                vec![(1.0 / span, -0.5); self.channels]
            }
            Normalise::Standard => {
                let mut histogram = vec![[0u64; 256]; self.channels];
                for pixel in self.data.chunks_exact(self.channels) {
                    for (counts, &byte) in histogram.iter_mut().zip(pixel) {
                        counts[usize::from(byte)] += 1;
                    }
                }
                histogram.iter().map(standard_of_histogram).collect()
            }
        };
        Affine::new(&channels)
    }
}

/// Scale and shift that give mean 0 and variance 1; the sums are integers, so exact.
fn standard_of_histogram(counts: &[u64; 256]) -> (f32, f32) {
    let (mut n, mut sum, mut squares) = (0u128, 0u128, 0u128);
    for (value, &count) in counts.iter().enumerate() {
        let (value, count) = (value as u128, u128::from(count));
        n += count;
        sum += value * count;
        squares += value * value * count;
    }
    // n^2 variance = n * squares - sum^2, in integers.
    let spread = n * squares - sum * sum;
    if spread == 0 {
        return (0.0, 0.0);
    }
    let scale = n as f64 / libm::sqrt(spread as f64);
    let mean = sum as f64 / n as f64;
    (scale as f32, (-mean * scale) as f32)
}

/// Running text and where each example's window starts.
#[derive(Clone, Debug)]
pub struct TextRows {
    /// One token per character, below the vocabulary.
    pub tokens: Arc<[u8]>,
    /// Start of each example's window; its target is the token after the window.
    pub starts: Vec<u32>,
}

/// The inputs of a [`Store`].
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Images and other byte arrays.
    Bytes(ByteRows),
    /// Tables, `[rows, input.len()]`.
    Real(Vec<f32>),
    /// Windows of a text; the targets are in the text too.
    Text(TextRows),
}

/// The targets of a [`Store`].
#[derive(Clone, Debug)]
pub enum Targets {
    /// Classes, at most 256 of them.
    Bytes(Vec<u8>),
    /// Classes.
    Classes(Vec<u32>),
    /// Real numbers, `[rows, width]`.
    Real(Vec<f32>),
    /// The token after the window of [`Inputs::Text`].
    NextToken,
    /// The token after every position of the window, up to where the row's text ends: the place of
    /// the first token that is no longer its. Positions without a target have [`NO_TARGET`], and
    /// those behind the end hold token 0.
    NextTokens(Vec<u32>),
}

impl Targets {
    /// Classes in the smallest type that holds them. Labels that are no class stay as they are,
    /// for [`Store::new`] to refuse.
    #[must_use]
    pub fn classes(labels: Vec<u32>, classes: usize) -> Self {
        if classes <= 256 && labels.iter().all(|&label| label < 256) {
            Self::Bytes(labels.into_iter().map(|label| label as u8).collect())
        } else {
            Self::Classes(labels)
        }
    }
}

/// Examples in memory.
#[derive(Clone, Debug)]
pub struct Store {
    input: InputSpec,
    target: TargetSpec,
    inputs: Inputs,
    targets: Targets,
    affine: Option<Affine>,
    rows: usize,
}

/// The most rows of a store: rows are addressed by `u32`.
pub(crate) const MOST_ROWS: u64 = u32::MAX as u64 - 1;

impl Store {
    /// A store of what a reader found; bytes decode to `[0, 1]` until
    /// [`normalise`](Self::normalise) says otherwise.
    ///
    /// # Errors
    /// [`DatasetError`] when inputs or targets are not of the kind that `input` and `target` say,
    /// counts disagree, a label or token is out of range, or there are too many rows. `what` names
    /// the data in messages.
    pub fn new(
        what: &str,
        input: InputSpec,
        target: TargetSpec,
        inputs: Inputs,
        targets: Targets,
    ) -> Result<Self, DatasetError> {
        kinds_agree(what, &input, target, &inputs, &targets)?;
        let width = input.len();
        let too_large = |found: u64| DatasetError::TooLarge {
            what: what.to_owned(),
            noun: "examples",
            found,
            limit: MOST_ROWS,
            remedy: "use a part of it",
        };
        let count = |values: usize| {
            if width == 0 || !values.is_multiple_of(width) {
                return Err(DatasetError::Malformed {
                    file: what.to_owned(),
                    place: "inputs".to_owned(),
                    found: format!("{values} numbers"),
                    expected: format!("a multiple of {width}, the numbers of one example"),
                    remedy: "check that every example has the same shape",
                });
            }
            Ok(values / width)
        };
        let rows = match &inputs {
            Inputs::Bytes(bytes)
                if bytes.channels == 0 || !width.is_multiple_of(bytes.channels) =>
            {
                return Err(DatasetError::Malformed {
                    file: what.to_owned(),
                    place: "inputs".to_owned(),
                    found: format!("{} channels", bytes.channels),
                    expected: format!("a divisor of {width}, the numbers of one example"),
                    remedy: "give the last dimension of the inputs, or 1",
                });
            }
            Inputs::Bytes(bytes) => count(bytes.data.len())?,
            Inputs::Real(values) => count(values.len())?,
            Inputs::Text(text) => text.starts.len(),
        };
        if rows as u64 > MOST_ROWS {
            return Err(too_large(rows as u64));
        }
        let labels = match (&targets, target) {
            (Targets::Bytes(labels), _) => labels.len(),
            (Targets::Classes(labels), _) => labels.len(),
            (Targets::Real(values), TargetSpec::Real { width }) => values.len() / width,
            (Targets::Real(values), _) => values.len(),
            (Targets::NextToken, _) => rows,
            (Targets::NextTokens(ends), _) => ends.len(),
        };
        if labels != rows {
            return Err(DatasetError::CountMismatch {
                noun: "examples",
                first: format!("{what} (inputs)"),
                first_count: rows as u64,
                second: format!("{what} (labels)"),
                second_count: labels as u64,
            });
        }
        if let TargetSpec::Class { classes } = target {
            let wrong = match &targets {
                Targets::Bytes(labels) => labels
                    .iter()
                    .position(|&label| usize::from(label) >= classes)
                    .map(|row| (row, u32::from(labels[row]))),
                Targets::Classes(labels) => labels
                    .iter()
                    .position(|&label| label as usize >= classes)
                    .map(|row| (row, labels[row])),
                Targets::Real(_) | Targets::NextToken | Targets::NextTokens(_) => None,
            };
            if let Some((row, label)) = wrong {
                return Err(DatasetError::Malformed {
                    file: what.to_owned(),
                    place: format!("example {row}"),
                    found: format!("label {label}"),
                    expected: format!("a label below {classes}, the number of classes"),
                    remedy: "check that the labels belong to these data",
                });
            }
        }
        if let (Inputs::Text(text), InputSpec::Tokens { length, vocabulary }) = (&inputs, &input) {
            let fits = |(row, &start): (usize, &u32)| match &targets {
                Targets::NextTokens(ends) => {
                    start < ends[row] && ends[row] as usize <= text.tokens.len()
                }
                _ => start as usize + length < text.tokens.len(),
            };
            if let Some(row) = text.starts.iter().enumerate().position(|at| !fits(at)) {
                return Err(DatasetError::Malformed {
                    file: what.to_owned(),
                    place: format!("example {row}"),
                    found: format!("a window from character {}", text.starts[row]),
                    expected: format!(
                        "a window of {length} and its target within {} characters",
                        text.tokens.len()
                    ),
                    remedy: "this is a fault of the reader; please report it",
                });
            }
            if let Some(at) = text
                .tokens
                .iter()
                .position(|&token| usize::from(token) >= *vocabulary)
            {
                return Err(DatasetError::Malformed {
                    file: what.to_owned(),
                    place: format!("character {at}"),
                    found: format!("token {}", text.tokens[at]),
                    expected: format!("a token below {vocabulary}, the size of the vocabulary"),
                    remedy: "check the vocabulary",
                });
            }
        }
        let affine = match &inputs {
            Inputs::Bytes(bytes) => Some(bytes.affine(Normalise::Unit)),
            Inputs::Real(_) | Inputs::Text(_) => None,
        };
        Ok(Self {
            input,
            target,
            inputs,
            targets,
            affine,
            rows,
        })
    }

    /// Applies `normalise`, with statistics over this store; `test` is treated with the same
    /// statistics.
    ///
    /// Columns' sums are taken in `f64` in row order, in two passes (mean, then squares of
    /// differences).
    pub fn normalise(&mut self, normalise: Normalise, test: Option<&mut Self>) {
        match &mut self.inputs {
            Inputs::Bytes(bytes) => {
                let affine = bytes.affine(normalise);
                if let Some(test) = test {
                    test.affine = Some(affine.clone());
                }
                self.affine = Some(affine);
            }
            Inputs::Real(values) if normalise == Normalise::Standard && self.rows > 0 => {
                let width = self.input.len();
                let columns = column_statistics(values, width);
                let apply = |values: &mut [f32]| {
                    for row in values.chunks_exact_mut(width) {
                        for (value, &(mean, scale)) in row.iter_mut().zip(&columns) {
                            *value = ((f64::from(*value) - mean) * scale) as f32;
                        }
                    }
                };
                apply(values);
                if let Some(Inputs::Real(values)) = test.map(|test| &mut test.inputs) {
                    apply(values);
                }
            }
            Inputs::Real(_) | Inputs::Text(_) => {}
        }
    }

    /// Whether inputs are stored as bytes, which [`Normalise`] scales by what a byte can be.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.inputs, Inputs::Bytes(_))
    }

    /// Number of examples.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Shape and kind of an input.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// Kind of a target.
    #[must_use]
    pub fn target(&self) -> TargetSpec {
        self.target
    }

    /// Number of classes of an example; zero for real targets and where every position has one.
    #[must_use]
    pub fn classes(&self) -> usize {
        match self.target {
            TargetSpec::Class { classes } => classes,
            TargetSpec::Sequence { .. } | TargetSpec::Real { .. } => 0,
        }
    }

    /// Class of one row; none for real targets and where every position has one.
    #[must_use]
    pub fn label(&self, row: u32) -> Option<u32> {
        match (&self.targets, &self.inputs) {
            (Targets::Bytes(labels), _) => Some(u32::from(labels[row as usize])),
            (Targets::Classes(labels), _) => Some(labels[row as usize]),
            (Targets::NextToken, Inputs::Text(text)) => {
                let at = text.starts[row as usize] as usize + self.input.len();
                Some(u32::from(text.tokens[at]))
            }
            (Targets::Real(_) | Targets::NextToken | Targets::NextTokens(_), _) => None,
        }
    }

    /// Class of every row; none for real targets.
    #[must_use]
    pub fn labels(&self) -> Option<Vec<u32>> {
        (0..self.rows as u32).map(|row| self.label(row)).collect()
    }

    /// Keeps the first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        let rows = rows.min(self.rows);
        let (width, target_width) = (self.input.len(), self.target_width());
        match &mut self.inputs {
            Inputs::Bytes(bytes) => bytes.data.truncate(rows * width),
            Inputs::Real(values) => values.truncate(rows * width),
            Inputs::Text(text) => text.starts.truncate(rows),
        }
        match &mut self.targets {
            Targets::Bytes(labels) => labels.truncate(rows),
            Targets::Classes(labels) => labels.truncate(rows),
            Targets::Real(values) => values.truncate(rows * target_width),
            Targets::NextTokens(ends) => ends.truncate(rows),
            Targets::NextToken => {}
        }
        self.rows = rows;
    }

    /// Whether the rows may be laid out anew at little cost: tables, so that each client's
    /// inputs lie together.
    #[must_use]
    pub fn prefers_order(&self) -> bool {
        matches!(self.inputs, Inputs::Real(_))
    }

    /// Keeps exactly the rows of `order`, in that order.
    pub fn reorder(&mut self, order: &[u32]) {
        fn gather<T: Copy>(values: &[T], width: usize, order: &[u32]) -> Vec<T> {
            let mut out = Vec::with_capacity(order.len() * width);
            for &row in order {
                let start = row as usize * width;
                out.extend_from_slice(&values[start..start + width]);
            }
            out
        }
        let width = self.input.len();
        match &mut self.inputs {
            Inputs::Bytes(bytes) => bytes.data = gather(&bytes.data, width, order),
            Inputs::Real(values) => *values = gather(values, width, order),
            Inputs::Text(text) => text.starts = gather(&text.starts, 1, order),
        }
        let target_width = self.target_width();
        match &mut self.targets {
            Targets::Bytes(labels) => *labels = gather(labels, 1, order),
            Targets::Classes(labels) => *labels = gather(labels, 1, order),
            Targets::Real(values) => *values = gather(values, target_width, order),
            Targets::NextTokens(ends) => *ends = gather(ends, 1, order),
            Targets::NextToken => {}
        }
        self.rows = order.len();
    }

    fn target_width(&self) -> usize {
        match self.target {
            TargetSpec::Class { .. } => 1,
            TargetSpec::Sequence { length, .. } => length,
            TargetSpec::Real { width } => width,
        }
    }

    /// The inputs of `rows`, where they lie in memory as a model sees them.
    #[must_use]
    pub fn real_rows(&self, rows: core::ops::Range<usize>) -> Option<&[f32]> {
        let width = self.input.len();
        match &self.inputs {
            Inputs::Real(values) => Some(&values[rows.start * width..rows.end * width]),
            Inputs::Bytes(_) | Inputs::Text(_) => None,
        }
    }

    /// Decodes the input of `row` into `out`; real inputs only.
    pub fn decode(&self, row: u32, out: &mut [f32]) {
        let width = self.input.len();
        let range = row as usize * width..(row as usize + 1) * width;
        match (&self.inputs, &self.affine) {
            (Inputs::Bytes(bytes), Some(affine)) => affine.decode(&bytes.data[range], out),
            (Inputs::Real(values), _) => out.copy_from_slice(&values[range]),
            (Inputs::Bytes(_) | Inputs::Text(_), _) => {}
        }
    }

    /// Writes the targets of `rows`.
    pub fn fill_targets(&self, rows: impl Iterator<Item = u32>, targets: TargetsMut<'_>) {
        match (&self.targets, targets) {
            (Targets::Real(values), TargetsMut::Real(out)) => {
                let width = self.target_width();
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    let start = row as usize * width;
                    out.copy_from_slice(&values[start..start + width]);
                }
            }
            (Targets::Bytes(labels), TargetsMut::Classes(out)) => {
                for (row, out) in rows.zip(out) {
                    *out = u32::from(labels[row as usize]);
                }
            }
            (Targets::NextTokens(ends), TargetsMut::Classes(out)) => {
                let Inputs::Text(text) = &self.inputs else {
                    return;
                };
                for (row, out) in rows.zip(out.chunks_exact_mut(self.target_width())) {
                    let after = text.starts[row as usize] as usize + 1;
                    let end = (ends[row as usize] as usize).min(after + out.len());
                    let given = &text.tokens[after.min(end)..end];
                    let (targets, none) = out.split_at_mut(given.len());
                    for (out, &token) in targets.iter_mut().zip(given) {
                        *out = u32::from(token);
                    }
                    none.fill(NO_TARGET);
                }
            }
            (_, TargetsMut::Classes(out)) => {
                for (row, out) in rows.zip(out) {
                    *out = self.label(row).unwrap_or(0);
                }
            }
            (_, TargetsMut::Real(_)) => {}
        }
    }

    /// Writes the inputs of `rows`.
    pub fn fill_inputs(&self, rows: impl Iterator<Item = u32>, inputs: InputsMut<'_>) {
        let width = self.input.len();
        match (&self.inputs, inputs) {
            (Inputs::Text(text), InputsMut::Tokens(out)) => {
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    let start = text.starts[row as usize] as usize;
                    let end = match &self.targets {
                        Targets::NextTokens(ends) => {
                            (ends[row as usize] as usize).min(start + width)
                        }
                        _ => start + width,
                    };
                    out.fill(0);
                    for (out, &token) in out.iter_mut().zip(&text.tokens[start..end]) {
                        *out = u32::from(token);
                    }
                }
            }
            (_, InputsMut::Real(out)) => {
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    self.decode(row, out);
                }
            }
            (_, InputsMut::Tokens(_)) => {}
        }
    }

    /// Bytes of memory that the examples take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let inputs = match &self.inputs {
            Inputs::Bytes(bytes) => bytes.data.len(),
            Inputs::Real(values) => values.len() * 4,
            Inputs::Text(text) => text.tokens.len() + text.starts.len() * 4,
        };
        let targets = match &self.targets {
            Targets::Bytes(labels) => labels.len(),
            Targets::Classes(labels) => labels.len() * 4,
            Targets::Real(values) => values.len() * 4,
            Targets::NextToken => 0,
            Targets::NextTokens(ends) => ends.len() * 4,
        };
        (inputs + targets) as u64
    }

    /// Feeds everything that a model can see of this store to `hash`.
    pub(crate) fn hash(&self, hash: &mut Sha256) {
        let mut lengths = vec![self.rows as u64];
        match &self.input {
            InputSpec::Real(shape) => {
                lengths.push(0);
                lengths.extend(shape.iter().map(|&size| size as u64));
            }
            InputSpec::Tokens { length, vocabulary } => {
                lengths.extend([1, *length as u64, *vocabulary as u64]);
            }
        }
        match self.target {
            TargetSpec::Class { classes } => lengths.extend([0, classes as u64]),
            TargetSpec::Real { width } => lengths.extend([1, width as u64]),
            TargetSpec::Sequence { length, classes } => {
                lengths.extend([2, length as u64, classes as u64]);
            }
        }
        for length in lengths {
            hash.update(length.to_le_bytes());
        }
        match &self.inputs {
            Inputs::Bytes(bytes) => hash.update(&bytes.data),
            Inputs::Real(values) => hash_words(hash, values.iter().map(|v| v.to_le_bytes())),
            Inputs::Text(text) => {
                hash.update(&text.tokens);
                hash_words(hash, text.starts.iter().map(|v| v.to_le_bytes()));
            }
        }
        if let Some(affine) = &self.affine {
            hash_words(hash, affine.scale.iter().map(|v| v.to_le_bytes()));
            hash_words(hash, affine.shift.iter().map(|v| v.to_le_bytes()));
        }
        match &self.targets {
            Targets::Bytes(labels) => hash.update(labels),
            Targets::Classes(labels) => hash_words(hash, labels.iter().map(|v| v.to_le_bytes())),
            Targets::Real(values) => hash_words(hash, values.iter().map(|v| v.to_le_bytes())),
            Targets::NextTokens(ends) => hash_words(hash, ends.iter().map(|v| v.to_le_bytes())),
            Targets::NextToken => {}
        }
    }
}

/// Refuses inputs and targets of another kind than their specifications.
fn kinds_agree(
    what: &str,
    input: &InputSpec,
    target: TargetSpec,
    inputs: &Inputs,
    targets: &Targets,
) -> Result<(), DatasetError> {
    let unfit = |place: &str, found: String, expected: &str| {
        Err(DatasetError::Malformed {
            file: what.to_owned(),
            place: place.to_owned(),
            found,
            expected: expected.to_owned(),
            remedy: "describe the examples as they are stored",
        })
    };
    match (inputs, input) {
        (Inputs::Bytes(_) | Inputs::Real(_), InputSpec::Real(_))
        | (Inputs::Text(_), InputSpec::Tokens { .. }) => {}
        (Inputs::Text(_), other) => return unfit("inputs", format!("{other:?}"), "tokens"),
        (_, other) => return unfit("inputs", format!("{other:?}"), "real numbers"),
    }
    match (targets, target, input) {
        (Targets::Bytes(_) | Targets::Classes(_), TargetSpec::Class { .. }, _) => Ok(()),
        (Targets::Real(values), TargetSpec::Real { width }, _)
            if width > 0 && values.len().is_multiple_of(width) =>
        {
            Ok(())
        }
        (
            Targets::NextToken,
            TargetSpec::Class { classes },
            &InputSpec::Tokens { vocabulary, .. },
        ) if vocabulary <= classes => Ok(()),
        (
            Targets::NextTokens(_),
            TargetSpec::Sequence { length, classes },
            &InputSpec::Tokens {
                length: window,
                vocabulary,
            },
        ) if vocabulary <= classes && length == window => Ok(()),
        (Targets::Bytes(_) | Targets::Classes(_), other, _) => {
            unfit("targets", format!("{other:?}"), "classes")
        }
        (Targets::Real(values), other, _) => unfit(
            "targets",
            format!("{other:?} for {} numbers", values.len()),
            "real numbers, as many for each example",
        ),
        (Targets::NextToken | Targets::NextTokens(_), other, _) => unfit(
            "targets",
            format!("{other:?}"),
            "a class for each token of the inputs' vocabulary",
        ),
    }
}

/// Feeds 32-bit words to `hash`, a few kilobytes at a time.
pub(crate) fn hash_words(hash: &mut Sha256, words: impl Iterator<Item = [u8; 4]>) {
    let mut buffer = [0u8; 8192];
    let mut filled = 0;
    for word in words {
        buffer[filled..filled + 4].copy_from_slice(&word);
        filled += 4;
        if filled == buffer.len() {
            hash.update(buffer);
            filled = 0;
        }
    }
    hash.update(&buffer[..filled]);
}

/// Mean and reciprocal population standard deviation (0 for a constant column) of each column.
fn column_statistics(values: &[f32], width: usize) -> Vec<(f64, f64)> {
    let n = (values.len() / width) as f64;
    let mut mean = vec![0f64; width];
    for row in values.chunks_exact(width) {
        for (sum, &value) in mean.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }
    for sum in &mut mean {
        *sum /= n;
    }
    let mut squares = vec![0f64; width];
    for row in values.chunks_exact(width) {
        for ((sum, &value), &mean) in squares.iter_mut().zip(row).zip(&mean) {
            let difference = f64::from(value) - mean;
            *sum += difference * difference;
        }
    }
    mean.into_iter()
        .zip(squares)
        .map(|(mean, squares)| {
            let deviation = libm::sqrt(squares / n);
            (
                mean,
                if deviation > 0.0 {
                    1.0 / deviation
                } else {
                    0.0
                },
            )
        })
        .collect()
}

impl Examples for Store {
    fn len(&self) -> usize {
        self.rows
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        self.fill_inputs(rows.iter().copied(), inputs);
        self.fill_targets(rows.iter().copied(), targets);
    }

    fn real_rows(&self) -> Option<&[f32]> {
        Store::real_rows(self, 0..self.rows)
    }
}

#[cfg(test)]
mod tests;
