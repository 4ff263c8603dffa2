//! What can be wrong with a model definition.

use alloc::format;
use alloc::string::String;

use fl_core::ParametersError;

use crate::quant::QuantError;

/// Why a model was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// One layer of the definition is wrong.
    #[error("layer {index} `{name}`: {problem}")]
    Layer {
        /// Place in the definition, counted from 1.
        index: usize,
        /// The layer's name, given or made from its kind.
        name: String,
        /// What is wrong with it.
        problem: LayerError,
    },
    /// The definition has no layers.
    #[error("the model has no layers; add at least one [[layer]] table or choose a `kind`")]
    NoLayers,
    /// No layer has parameters.
    #[error("no layer of the model has parameters to train; add a dense or conv2d layer")]
    NoParameters,
    /// An example's input holds no numbers.
    #[error("an example of shape {shape} holds no numbers; every size must be at least 1")]
    EmptyInput {
        /// The shape, printed.
        shape: String,
    },
    /// The target holds no numbers or classes.
    #[error("the target has width 0; it must have at least one class or number")]
    EmptyTarget,
    /// The last layer does not give one number per class or target.
    #[error(
        "the model ends with shape {found} and the loss `{loss}` needs {expected} numbers; end \
         with a dense layer without `units`, or with units = {expected}"
    )]
    Output {
        /// Shape of the last layer's output, printed.
        found: String,
        /// Numbers needed.
        expected: usize,
        /// The loss.
        loss: &'static str,
    },
    /// The loss does not fit the kind of target.
    #[error("the loss `{loss}` does not fit a target of {target}; use loss = \"{instead}\"")]
    Loss {
        /// The loss.
        loss: &'static str,
        /// What the data hold.
        target: &'static str,
        /// A loss that fits.
        instead: &'static str,
    },
    /// A model of the zoo does not fit the data.
    #[error("the model `{model}` takes {expected} and the data hold {found}; {advice}")]
    Zoo {
        /// The model's kind.
        model: &'static str,
        /// The input that it takes.
        expected: &'static str,
        /// The input that was given, printed.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// An option of a model of the zoo is outside its range.
    #[error("the model `{model}` has {key} = {value}; it must be {range}")]
    Option {
        /// The model's kind.
        model: &'static str,
        /// The option.
        key: &'static str,
        /// Its value, printed.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// The last layer does not fit a target at every position.
    #[error(
        "the model ends with shape {found} and every position has a target, which needs [{length}, \
         {classes}]; end with a dense layer without `units` on the sequence itself, behind no \
         flatten, last or pooling layer"
    )]
    OutputSequence {
        /// Shape of the output, printed.
        found: String,
        /// Positions of the target.
        length: usize,
        /// Classes of the target.
        classes: usize,
    },
    /// The tensors cannot be laid out.
    #[error("the model's tensors: {0}")]
    Parameters(#[from] ParametersError),
    /// A layer cannot be trained for quantization.
    #[error(
        "layer `{layer}` cannot be trained for quantization: a batch normalisation is folded into \
         the dense or conv2d layer right before it; move it there, or use group-norm"
    )]
    QatLayer {
        /// The layer.
        layer: String,
    },
    /// A layer of sequences cannot be trained for quantization.
    #[error(
        "layer `{layer}` ({kind}) cannot be trained for quantization; train with precision = \
         \"f32\" and quantize by calibration afterwards"
    )]
    QatSequence {
        /// The layer.
        layer: String,
        /// What it is.
        kind: &'static str,
    },
    /// A layer that a teacher is matched at has no value of its own in integers.
    #[error(
        "the teacher is matched at layer `{layer}`, which quantization-aware training computes \
         inside the layer after it; name the layer whose normalisation or activation ends it: one \
         of {known}"
    )]
    QatInside {
        /// The layer.
        layer: String,
        /// Layers that have a value, printed.
        known: String,
    },
    /// An observation's share in a range is no share.
    #[error(
        "the momentum of ranges is {momentum}; expected a number above 0 and at most 1, for \
         example 0.1"
    )]
    QatMomentum {
        /// The share asked for.
        momentum: f32,
    },
    /// The quantization does not fit.
    #[error("the quantization: {0}")]
    Quantization(#[from] QuantError),
}

/// What is wrong with a layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The input has the wrong number of dimensions.
    #[error("it takes {expected} and its input has shape {found}; {advice}")]
    InputShape {
        /// What the layer takes.
        expected: &'static str,
        /// The input's shape, printed.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// The window is larger than the padded input.
    #[error(
        "kernel {}x{} does not fit the {}x{} input; use padding = \"same\" or a smaller kernel",
        kernel[0], kernel[1], input[0], input[1]
    )]
    Kernel {
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Height and width of the input.
        input: [usize; 2],
    },
    /// The padding of a pool is as large as its window.
    #[error(
        "padding {}x{} leaves windows of {}x{} without any input; use padding below the size of the window",
        padding[0], padding[1], kernel[0], kernel[1]
    )]
    PoolPadding {
        /// Rows and columns of padding.
        padding: [usize; 2],
        /// Height and width of the window.
        kernel: [usize; 2],
    },
    /// Groups do not divide the channels.
    #[error(
        "groups = {groups} does not divide the {channels} {of}; choose a divisor of {channels}"
    )]
    Groups {
        /// Groups asked for.
        groups: usize,
        /// Channels to be divided.
        channels: usize,
        /// Which channels: `input channels` or `filters`.
        of: &'static str,
    },
    /// A number that must be positive is zero.
    #[error("`{key}` is 0; it must be at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}; it must be {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value, printed.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// `input` or `from` names no earlier layer.
    #[error("`{key}` names `{name}`, and no earlier layer is called so; earlier names: {known}")]
    UnknownLayer {
        /// The key.
        key: &'static str,
        /// The name that was not found.
        name: String,
        /// The names that exist, printed.
        known: String,
    },
    /// The two sides of an addition differ in shape.
    #[error(
        "the outputs to be added have shapes {left} and {right}; make them equal, e.g. with a \
         1x1 convolution of the same stride on the shortcut"
    )]
    Add {
        /// Shape of the input.
        left: String,
        /// Shape of the layer named by `from`.
        right: String,
    },
    /// Two layers have one name.
    #[error("an earlier layer has this name too; give each layer its own `name`")]
    DuplicateName,
    /// Heads do not divide the features.
    #[error("heads = {heads} does not divide the {features} features; choose a divisor")]
    Heads {
        /// Heads asked for.
        heads: usize,
        /// Features to be divided.
        features: usize,
    },
    /// Nothing reads the layer's output.
    #[error(
        "nothing uses its output; remove it, or name it in the `input` or `from` of a later layer"
    )]
    Unused,
    /// The layer computes with real numbers and is given tokens.
    #[error("it takes real numbers and its input holds tokens; put an `embedding` layer first")]
    Tokens,
    /// The layer takes tokens and is given real numbers.
    #[error("it takes tokens and its input holds real numbers; remove the layer")]
    NotTokens,
    /// The sizes overflow.
    #[error(
        "its output or weight is too large: the number of elements overflows; choose smaller sizes"
    )]
    TooLarge,
}

/// `[28, 28, 1]`, for messages.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    format!("{shape:?}")
}
