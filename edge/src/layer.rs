//! The layers that a `[[layer]]` table may describe.

use alloc::string::String;
use core::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::reference::{KeyDoc, KindDoc};
use crate::tagged::{self, FromKind};

/// Height and width; written as one number when both are equal: `3` or `[3, 5]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl Serialize for Pair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0[0] == self.0[1] {
            self.0[0].serialize(serializer)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a pair [height, width]")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Pair, E> {
                let value = usize::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
                Ok(Pair([value; 2]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Pair, E> {
                let value = usize::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
                Ok(Pair([value; 2]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair, A::Error> {
                let first = seq
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let second = seq
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(1, &self))?;
                match seq.next_element::<usize>()? {
                    None => Ok(Pair([first, second])),
                    Some(_) => Err(de::Error::invalid_length(3, &self)),
                }
            }
        }
        deserializer.deserialize_any(One)
    }
}

/// Zeros around an image: `"same"`, `"valid"`, or rows and columns on each side (`1`, `[1, 2]`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// None.
    #[default]
    Valid,
    /// So much that `output = ceil(input / stride)`; the odd row or column goes below and to the
    /// right, as in TensorFlow.
    Same,
    /// So many rows above and below, and columns left and right.
    Explicit([usize; 2]),
}

impl Serialize for Padding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Valid => serializer.serialize_str("valid"),
            Self::Same => serializer.serialize_str("same"),
            Self::Explicit(pair) => Pair(*pair).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Padding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Padding;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"same\", \"valid\", a whole number or a pair [rows, columns]")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Padding, E> {
                match value {
                    "same" => Ok(Padding::Same),
                    "valid" => Ok(Padding::Valid),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Padding, E> {
                let value = usize::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
                Ok(Padding::Explicit([value; 2]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Padding, E> {
                let value = usize::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
                Ok(Padding::Explicit([value; 2]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Padding, A::Error> {
                let Pair(pair) = Pair::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                Ok(Padding::Explicit(pair))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)` (Krizhevsky 2010, "Convolutional Deep Belief Networks on CIFAR-10").
    Relu6,
    /// `x` where positive, `0.01 x` elsewhere.
    LeakyRelu,
    /// `x Φ(x)` with the exact normal distribution function (Hendrycks & Gimpel 2016,
    /// arXiv:1606.08415).
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

/// How a weight starts. `fan_in` and `fan_out` are the numbers of inputs and outputs of one
/// neuron, times the window's area for convolutions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// `U(-a, a)`, `a = sqrt(6 / (fan_in + fan_out))`, bias zero (Glorot & Bengio 2010, equation
    /// 16): the default of TensorFlow.
    #[default]
    GlorotUniform,
    /// `N(0, 2 / fan_in)`, bias zero (He et al. 2015, arXiv:1502.01852, equation 10).
    HeNormal,
    /// `U(-a, a)`, `a = sqrt(6 / fan_in)`, bias zero: the same variance.
    HeUniform,
    /// `U(-a, a)`, `a = 1 / sqrt(fan_in)`, for the bias too: the default of PyTorch.
    Torch,
    /// `N(0, s²)` for this `s`, 0 or more, whatever the layer's size, bias zero; in TOML
    /// `init = { normal = 0.1 }`.
    Normal(f64),
    /// All zero.
    Zeros,
}

fn yes() -> bool {
    true
}

fn one() -> Pair {
    Pair([1, 1])
}

fn one_group() -> usize {
    1
}

fn slope() -> f32 {
    0.01
}

fn epsilon() -> f32 {
    1e-5
}

fn momentum() -> f32 {
    0.1
}

macro_rules! layers {
    ($($(#[doc = $doc:literal])* $kind:literal $variant:ident($def:ident) { $(
        $(#[doc = $line:literal])* $(#[serde($($serde:tt)*)])? $field:ident: $type:ty,
    )* })*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, rename_all = "kebab-case")]
            pub struct $def {
                /// The layer's name, and the first part of its tensors' names; made from the kind
                /// and its count (`conv2d1`, `conv2d2`, …) when left out.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub name: Option<String>,
                /// The earlier layer that feeds this one (or `"input"`); the one before when left
                /// out.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub input: Option<String>,
                $($(#[doc = $line])* $(#[serde($($serde)*)])? pub $field: $type,)*
            }
        )*

        /// One layer; in TOML a `[[layer]]` table with `kind` and the keys of that kind.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "kind")]
        pub enum LayerDef {
            $($(#[doc = $doc])* #[serde(rename = $kind)] $variant($def),)*
        }

        impl LayerDef {
            /// Every `kind`.
            pub const KINDS: &[&str] = &[$($kind),*];

            /// Every kind, for the reference; `name` and `input`, which all have, are left out.
            pub const DOCS: &[KindDoc] = &[$(KindDoc {
                kind: $kind,
                lines: &[$($doc),*],
                keys: &[$(KeyDoc { key: stringify!($field), lines: &[$($line),*] }),*],
            }),*];

            /// The layer's `kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind,)* }
            }

            /// The given name.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                match self { $(Self::$variant(def) => def.name.as_deref(),)* }
            }

            /// The given input.
            #[must_use]
            pub fn input(&self) -> Option<&str> {
                match self { $(Self::$variant(def) => def.input.as_deref(),)* }
            }

            /// The same layer with this name and input.
            #[must_use]
            pub fn with(mut self, name: Option<String>, input: Option<String>) -> Self {
                match &mut self {
                    $(Self::$variant(def) => (def.name, def.input) = (name, input),)*
                }
                self
            }

            /// The same layer with a name.
            #[must_use]
            pub(crate) fn named(mut self, name: impl Into<String>) -> Self {
                match &mut self { $(Self::$variant(def) => def.name = Some(name.into()),)* }
                self
            }

            /// The same layer fed by `input`.
            #[must_use]
            pub(crate) fn fed_by(mut self, input: impl Into<String>) -> Self {
                match &mut self { $(Self::$variant(def) => def.input = Some(input.into()),)* }
                self
            }
        }

        impl<'de> FromKind<'de> for LayerDef {
            const EXPECTING: &'static str = "a layer: a table with `kind`";

            fn from_kind<D: Deserializer<'de>>(kind: &str, rest: D) -> Result<Self, D::Error> {
                match kind {
                    $($kind => $def::deserialize(rest).map(Self::$variant),)*
                    _ => Err(de::Error::unknown_variant(kind, Self::KINDS)),
                }
            }
        }
    };
}

impl<'de> Deserialize<'de> for LayerDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        tagged::deserialize(deserializer)
    }
}

layers! {
    /// `y = x W + b` on a row, or on every position of a sequence; weight `[inputs, units]`.
    "dense" Dense(DenseDef) {
        /// Outputs, at least 1; the classes or numbers of the target when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        units: Option<usize>,
        /// Whether to add a bias; true when left out.
        #[serde(default = "yes")]
        bias: bool,
        /// A function applied to the output, by the name of its layer; none when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activation: Option<Activation>,
        /// How the weight starts: `"glorot-uniform"` (when left out), `"he-normal"`,
        /// `"he-uniform"`, `"torch"`, `{ normal = 0.1 }` with a standard deviation, or `"zeros"`.
        #[serde(default)]
        init: Init,
    }
    /// Cross-correlation of an image `[height, width, channels]`; weight
    /// `[kernel height, kernel width, channels / groups, filters]`.
    "conv2d" Conv2d(Conv2dDef) {
        /// Output channels, at least 1.
        filters: usize,
        /// Height and width of the window: one number, or `[height, width]`.
        kernel: Pair,
        /// Steps between windows; 1 when left out.
        #[serde(default = "one")]
        stride: Pair,
        /// Zeros around the input: `"valid"` for none (when left out), `"same"`, or rows and
        /// columns on each side.
        #[serde(default)]
        padding: Padding,
        /// Groups of channels that do not see one another; as many as channels makes a depthwise
        /// convolution; 1 when left out.
        #[serde(default = "one_group")]
        groups: usize,
        /// Whether to add a bias; true when left out.
        #[serde(default = "yes")]
        bias: bool,
        /// A function applied to the output, by the name of its layer; none when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activation: Option<Activation>,
        /// How the weight starts: `"glorot-uniform"` (when left out), `"he-normal"`,
        /// `"he-uniform"`, `"torch"`, `{ normal = 0.1 }` with a standard deviation, or `"zeros"`.
        #[serde(default)]
        init: Init,
    }
    /// The largest value of every window.
    "max-pool" MaxPool(MaxPoolDef) {
        /// Height and width of the window: one number, or `[height, width]`.
        size: Pair,
        /// Steps between windows; the size when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Pair>,
        /// Padding, which is never the largest value; none when left out.
        #[serde(default)]
        padding: Padding,
    }
    /// The mean of every window.
    "avg-pool" AvgPool(AvgPoolDef) {
        /// Height and width of the window: one number, or `[height, width]`.
        size: Pair,
        /// Steps between windows; the size when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Pair>,
        /// Padding, which is not counted in the mean; none when left out.
        #[serde(default)]
        padding: Padding,
    }
    /// The mean of every channel of an image or of every feature of a sequence.
    "global-avg-pool" GlobalAvgPool(GlobalAvgPoolDef) {}
    /// The largest value of every channel of an image or of every feature of a sequence.
    "global-max-pool" GlobalMaxPool(GlobalMaxPoolDef) {}
    /// `max(x, 0)`
    "relu" Relu(ReluDef) {}
    /// `min(max(x, 0), 6)`
    "relu6" Relu6(Relu6Def) {}
    /// `x` where positive, `slope x` elsewhere.
    "leaky-relu" LeakyRelu(LeakyReluDef) {
        /// In `[0, 1)`; 0.01 when left out.
        #[serde(default = "slope")]
        slope: f32,
    }
    /// `x Φ(x)`
    "gelu" Gelu(GeluDef) {}
    /// Hyperbolic tangent.
    "tanh" Tanh(TanhDef) {}
    /// `1 / (1 + exp(-x))`
    "sigmoid" Sigmoid(SigmoidDef) {}
    /// In training, zeroes each value with probability `rate` and divides the others by
    /// `1 - rate` (Srivastava et al. 2014); the identity in evaluation.
    "dropout" Dropout(DropoutDef) {
        /// In `[0, 1)`.
        rate: f32,
    }
    /// Group normalisation (Wu & He 2018, arXiv:1803.08494, equations 1 to 6), with a scale and a
    /// shift per channel.
    "group-norm" GroupNorm(GroupNormDef) {
        /// Groups of channels; must divide the channels.
        groups: usize,
        /// Added to the variance, above 0; 1e-5 when left out.
        #[serde(default = "epsilon")]
        epsilon: f32,
    }
    /// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2): each
    /// channel by its mean and variance over the batch and all positions in training, by its
    /// running mean and variance in evaluation; with a scale and a shift per channel.
    ///
    /// A training step moves the running statistics, `running = (1 - momentum) running +
    /// momentum batch`, with the unbiased variance of the batch, as PyTorch does; one value per
    /// channel has none and moves neither. They are tensors of the layout, `NAME.running_mean`
    /// and `NAME.running_var`, which no optimizer, weight decay, proximal term or clipping touches.
    /// A batch is never worked through in parts.
    ///
    /// # In federated learning
    /// The running statistics travel in the update and are averaged with the parameters. Where
    /// clients hold different classes, each normalises by statistics that no other has, and the
    /// average fits none: accuracy falls, and group normalisation is the usual way out (Hsieh et
    /// al. 2020, arXiv:1910.00189, §5). A server that clips or adds noise treats them like
    /// parameters; a running variance that falls below zero counts as zero.
    "batch-norm" BatchNorm(BatchNormDef) {
        /// Added to the variance, above 0; 1e-5 when left out.
        #[serde(default = "epsilon")]
        epsilon: f32,
        /// Share of a batch in the running statistics, above 0 and at most 1; 0.1 when left out.
        #[serde(default = "momentum")]
        momentum: f32,
    }
    /// Layer normalisation (Ba et al. 2016, arXiv:1607.06450) of a row, or of every position of a
    /// sequence by itself, with a scale and a shift per feature.
    "layer-norm" LayerNorm(LayerNormDef) {
        /// Added to the variance, above 0; 1e-5 when left out.
        #[serde(default = "epsilon")]
        epsilon: f32,
    }
    /// A row of a table per token: tokens `[length]` become `[length, size]`.
    "embedding" Embedding(EmbeddingDef) {
        /// Numbers per token, at least 1.
        size: usize,
    }
    /// Long short-term memory over a sequence `[length, features]`, which becomes its states
    /// `[length, units]` (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).
    /// Tensors `weight` `[features, 4 units]`, `bias` `[4 units]` and `recurrent.weight`
    /// `[units, 4 units]`, gates in ONNX's order: input, output, forget, cell. Weights start as
    /// Glorot's and `U(-1 / sqrt(units), 1 / sqrt(units))`, biases at zero but for the forget
    /// gate's, at one (Jozefowicz et al. 2015).
    "lstm" Lstm(LstmDef) {
        /// Numbers of a state, at least 1.
        units: usize,
    }
    /// A gated recurrent unit over a sequence `[length, features]`, which becomes its states
    /// `[length, units]` (Cho et al. 2014, arXiv:1406.1078), with the reset gate after the product
    /// (ONNX's `linear_before_reset`). Tensors `weight` `[features, 3 units]`, `bias`
    /// `[3 units]`, `recurrent.weight` `[units, 3 units]` and `recurrent.bias` `[units]`, gates in ONNX's
    /// order: update, reset, hidden; starts as those of `lstm`, biases at zero.
    "gru" Gru(GruDef) {
        /// Numbers of a state, at least 1.
        units: usize,
    }
    /// Self-attention of a sequence in several heads (Vaswani et al. 2017, arXiv:1706.03762,
    /// §3.2): one product gives queries, keys and values (tensors `in.weight` and `in.bias`), one
    /// mixes what the heads found (`out.weight` and `out.bias`). The shape stays.
    "attention" Attention(AttentionDef) {
        /// Heads; must divide the features.
        heads: usize,
        /// Whether a position sees only itself and those before; false when left out.
        #[serde(default)]
        causal: bool,
        /// Whether the two products add a bias; true when left out.
        #[serde(default = "yes")]
        bias: bool,
        /// How the weights start, as in `dense`.
        #[serde(default)]
        init: Init,
    }
    /// Adds a row of a learned table to every position of a sequence; it starts as
    /// `U(-0.05, 0.05)`.
    "position" Position(PositionDef) {}
    /// The last position of a sequence.
    "last" Last(LastDef) {}
    /// The sum of the input and the output of the layer `from`: a residual connection.
    "add" Add(AddDef) {
        /// The other layer (or `"input"`).
        from: String,
    }
    /// All numbers in one row.
    "flatten" Flatten(FlattenDef) {}
}

impl DenseDef {
    /// As many units as the target has classes or numbers, with a bias.
    #[must_use]
    pub fn output() -> Self {
        Self {
            name: None,
            input: None,
            units: None,
            bias: true,
            activation: None,
            init: Init::default(),
        }
    }
}

impl Conv2dDef {
    /// A square window, stride 1, no padding, one group, with a bias.
    #[must_use]
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self {
            name: None,
            input: None,
            filters,
            kernel: Pair([kernel, kernel]),
            stride: one(),
            padding: Padding::Valid,
            groups: 1,
            bias: true,
            activation: None,
            init: Init::default(),
        }
    }
}

impl MaxPoolDef {
    /// Windows side by side.
    #[must_use]
    pub fn new(size: Pair) -> Self {
        Self {
            name: None,
            input: None,
            size,
            stride: None,
            padding: Padding::Valid,
        }
    }
}

impl DropoutDef {
    /// With the given rate.
    #[must_use]
    pub fn new(rate: f32) -> Self {
        Self {
            name: None,
            input: None,
            rate,
        }
    }
}

impl GroupNormDef {
    /// With the usual epsilon, 1e-5.
    #[must_use]
    pub fn new(groups: usize) -> Self {
        Self {
            name: None,
            input: None,
            groups,
            epsilon: epsilon(),
        }
    }
}

impl Default for LayerNormDef {
    fn default() -> Self {
        Self {
            name: None,
            input: None,
            epsilon: epsilon(),
        }
    }
}

impl EmbeddingDef {
    /// So many numbers per token.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            name: None,
            input: None,
            size,
        }
    }
}

impl LstmDef {
    /// States of so many numbers.
    #[must_use]
    pub fn new(units: usize) -> Self {
        Self {
            name: None,
            input: None,
            units,
        }
    }
}

impl GruDef {
    /// States of so many numbers.
    #[must_use]
    pub fn new(units: usize) -> Self {
        Self {
            name: None,
            input: None,
            units,
        }
    }
}

impl AttentionDef {
    /// So many heads that see every position, with biases.
    #[must_use]
    pub fn new(heads: usize) -> Self {
        Self {
            name: None,
            input: None,
            heads,
            causal: false,
            bias: true,
            init: Init::default(),
        }
    }
}

impl Default for BatchNormDef {
    fn default() -> Self {
        Self {
            name: None,
            input: None,
            epsilon: epsilon(),
            momentum: momentum(),
        }
    }
}

impl AddDef {
    /// Adds the output of `from`.
    #[must_use]
    pub fn new(from: String) -> Self {
        Self {
            name: None,
            input: None,
            from,
        }
    }
}

macro_rules! plain {
    ($($def:ident)*) => {$(
        impl Default for $def {
            fn default() -> Self {
                Self { name: None, input: None }
            }
        }
    )*};
}

plain! { PositionDef LastDef FlattenDef ReluDef Relu6Def GeluDef TanhDef SigmoidDef GlobalAvgPoolDef GlobalMaxPoolDef }
