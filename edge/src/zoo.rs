//! Models by name. A model is one file here and one line in the `models!` list below.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::vec::Vec;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use fl_core::{InputSpec, TargetSpec};

use crate::error::EdgeError;
use crate::layer::LayerDef;
use crate::reference::{KindDoc, Options};
use crate::tagged::{self, FromKind};

/// A named model: its options are the fields, its layers follow from them and the input.
pub trait ZooModel: Options + Default + Serialize + for<'de> Deserialize<'de> {
    /// Its `kind` in TOML.
    const KIND: &'static str;
    /// One line for the table of models.
    const SUMMARY: &'static str;

    /// The layers for the given input. The last one leaves `units` out, so that it fits the
    /// target.
    ///
    /// # Errors
    /// [`EdgeError`] when the model does not take such an input.
    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError>;

    /// An input and a target that it is known for.
    fn example() -> (InputSpec, TargetSpec);
}

/// What the training minimises: the mean over the batch of the loss of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `-ln softmax(outputs)[class]`, for classes.
    SoftmaxCrossEntropy,
    /// The mean over the outputs of `(output - target)^2`, for real targets.
    Mse,
    /// The mean over the outputs of the binary cross-entropy of `sigmoid(output)` and a target in
    /// `[0, 1]`, for real targets.
    Bce,
}

impl Loss {
    /// Its name in TOML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax-cross-entropy",
            Self::Mse => "mse",
            Self::Bce => "bce",
        }
    }
}

/// A model written as `[[layer]]` tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LayersDef {
    /// The layers, from the input to the output.
    pub layer: Vec<LayerDef>,
    /// The loss; softmax cross-entropy for classes and `mse` for real targets when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

macro_rules! models {
    ($($module:ident::$model:ident,)*) => {
        $(mod $module; pub use $module::$model;)*

        /// A model as an experiment describes it: a TOML table with the `kind` of a model of the
        /// zoo and its options, or with `[[layer]]` tables.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ModelDef {
            /// Written layer by layer.
            Layers(LayersDef),
            $(
                #[doc = concat!("[`", stringify!($model), "`]")]
                $model($model),
            )*
        }

        /// Every model of the zoo: its `kind` and one line about it.
        pub const MODELS: &[(&str, &str)] = &[$(($model::KIND, $model::SUMMARY),)*];

        /// Every model of the zoo, for the reference.
        pub const MODEL_DOCS: &[KindDoc] = &[$(KindDoc {
            kind: $model::KIND,
            lines: &[$model::SUMMARY],
            keys: $model::KEYS,
        },)*];

        impl ModelDef {
            /// Every `kind`.
            pub const KINDS: &[&str] = &["layers", $($model::KIND,)*];

            /// The model's `kind`; `layers` for one written layer by layer.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    Self::Layers(_) => "layers",
                    $(Self::$model(_) => $model::KIND,)*
                }
            }

            /// An input and a target that a model of the zoo is known for.
            #[must_use]
            pub fn example(&self) -> Option<(InputSpec, TargetSpec)> {
                match self {
                    Self::Layers(_) => None,
                    $(Self::$model(_) => Some($model::example()),)*
                }
            }

            /// The layers for the given input.
            ///
            /// # Errors
            /// [`EdgeError`] when the model does not take such an input.
            pub fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
                match self {
                    Self::Layers(def) => Ok(def.layer.clone()),
                    $(Self::$model(model) => model.layers(input),)*
                }
            }
        }

        impl<'de> FromKind<'de> for ModelDef {
            const EXPECTING: &'static str =
                "a model: a table with `kind`, or with [[layer]] tables";
            const IMPLIED: Option<(&'static str, &'static str)> = Some(("layer", "layers"));

            fn from_kind<D: Deserializer<'de>>(kind: &str, rest: D) -> Result<Self, D::Error> {
                match kind {
                    "layers" => LayersDef::deserialize(rest).map(Self::Layers),
                    $($model::KIND => $model::deserialize(rest).map(Self::$model),)*
                    _ => Err(de::Error::unknown_variant(kind, Self::KINDS)),
                }
            }
        }

        impl Serialize for ModelDef {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[derive(Serialize)]
                struct Tagged<'a, T: Serialize> {
                    kind: &'a str,
                    #[serde(flatten)]
                    rest: &'a T,
                }
                match self {
                    Self::Layers(def) => def.serialize(serializer),
                    $(Self::$model(rest) => {
                        Tagged { kind: $model::KIND, rest }.serialize(serializer)
                    })*
                }
            }
        }

        #[cfg(test)]
        mod conformance {
            $(
                #[test]
                fn $module() {
                    super::testing::conforms(super::ModelDef::$model(Default::default()));
                    super::testing::example::<super::$model>();
                }
            )*
        }
    };
}

models! {
    logreg::Logreg,
    mlp_2nn::Mlp2nn,
    cnn_fedavg::CnnFedavg,
    cnn_pfl::CnnPfl,
    resnet8_gn::Resnet8Gn,
    mlp::Mlp,
    mobilenet_v2::MobilenetV2,
    lstm_shakespeare::LstmShakespeare,
    transformer::Transformer,
}

pub use mobilenet_v2::MobilenetNorm;

impl<'de> Deserialize<'de> for ModelDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        tagged::deserialize(deserializer)
    }
}

impl ModelDef {
    /// The model of the zoo called `kind`, with its default options.
    #[must_use]
    pub fn named(kind: &str) -> Option<Self> {
        let rest = de::value::MapDeserializer::<_, de::value::Error>::new(core::iter::empty::<(
            &str,
            &str,
        )>());
        Self::from_kind(kind, rest).ok()
    }

    /// The layers for such an input and target: those of [`Self::layers`], but that a model of the
    /// zoo predicts at every position where every position has a target, and not at the last alone.
    ///
    /// # Errors
    /// [`EdgeError`] when the model does not take such an input.
    pub fn layers_for(
        &self,
        input: &InputSpec,
        target: TargetSpec,
    ) -> Result<Vec<LayerDef>, EdgeError> {
        let mut layers = self.layers(input)?;
        let every = matches!(target, TargetSpec::Sequence { .. });
        if every && !matches!(self, Self::Layers(_)) {
            layers.retain(|layer| !matches!(layer, LayerDef::Last(_)));
        }
        Ok(layers)
    }

    /// The loss that the definition asks for.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        match self {
            Self::Layers(def) => def.loss,
            _ => None,
        }
    }
}

/// Refuses tokens.
fn real(model: &'static str, input: &InputSpec) -> Result<(), EdgeError> {
    match input {
        InputSpec::Real(_) => Ok(()),
        InputSpec::Tokens { .. } => Err(EdgeError::Zoo {
            model,
            expected: "real numbers",
            found: "tokens".to_owned(),
            advice: "write the model as [[layer]] tables that start with an `embedding`",
        }),
    }
}

/// Refuses what is no tokens.
fn tokens(model: &'static str, input: &InputSpec) -> Result<(), EdgeError> {
    match input {
        InputSpec::Tokens { .. } => Ok(()),
        InputSpec::Real(shape) => Err(EdgeError::Zoo {
            model,
            expected: "tokens",
            found: format!("examples of shape {shape:?}"),
            advice: "choose a data set of text, or the model `logreg` or `mlp-2nn`",
        }),
    }
}

/// Refuses what is not an image of at least `least` rows and columns.
fn image(model: &'static str, input: &InputSpec, least: usize) -> Result<(), EdgeError> {
    match input {
        InputSpec::Real(shape) => match shape[..] {
            [height, width, _] if height >= least && width >= least => Ok(()),
            _ => Err(EdgeError::Zoo {
                model,
                expected: "images [height, width, channels]",
                found: format!("examples of shape {shape:?}"),
                advice: "choose a data set of larger images, or the model `logreg` or `mlp-2nn`",
            }),
        },
        InputSpec::Tokens { .. } => Err(EdgeError::Zoo {
            model,
            expected: "images [height, width, channels]",
            found: "tokens".to_owned(),
            advice: "write the model as [[layer]] tables that start with an `embedding`",
        }),
    }
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::Model;

    /// What holds for every model: it is found by its kind, it round-trips through TOML.
    pub(super) fn conforms(def: ModelDef) {
        let text = toml::to_string(&def).expect("serialises");
        assert_eq!(toml::from_str::<ModelDef>(&text).expect(&text), def);
        assert_eq!(ModelDef::named(def.kind()), Some(def.clone()));
        let wrong = format!("{text}\nno-such-key = 1\n");
        let error = toml::from_str::<ModelDef>(&wrong)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("no-such-key"), "{error}");
    }

    /// It builds for its example, has parameters, and starts finite and not all alike.
    pub(super) fn example<M: ZooModel>() {
        let def = ModelDef::named(M::KIND).expect("in the registry");
        let (input, target) = M::example();
        let model = Model::new(&def, &input, target).expect("builds");
        assert!(model.parameters() > 0 && model.macs_per_example() > 0);
        let mut stream = fl_core::Stream::at(
            fl_core::Purpose::Testing,
            fl_core::Seed(1),
            fl_core::RoundId(0),
            fl_core::ClientId(0),
        );
        let start = model.init(&mut stream);
        assert!(start.values().iter().all(|v| v.is_finite()));
        let first = start.values()[0].to_bits();
        assert!(start.values().iter().any(|v| v.to_bits() != first));
        assert!(!M::SUMMARY.is_empty() && MODELS.iter().any(|(kind, _)| *kind == M::KIND));
        let tokens = InputSpec::Tokens {
            length: 4,
            vocabulary: 9,
        };
        let (other, advice) = match input {
            InputSpec::Real(_) => (tokens, "embedding"),
            InputSpec::Tokens { .. } => (InputSpec::Real(vec![4]), "data set of text"),
        };
        let error = M::default()
            .layers(&other)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(M::KIND) && error.contains(advice), "{error}");
    }
}
