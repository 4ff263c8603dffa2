//! A small decoder: learned positions, blocks of causal attention and a perceptron with GELU, each
//! behind a layer normalisation and beside a residual connection (the order of Xiong et al. 2020,
//! arXiv:2002.04745, "pre-LN"), a last normalisation and the softmax output; after Vaswani et al.
//! 2017 (arXiv:1706.03762) and Radford et al. 2019 ("GPT-2").
//!
//! Where every position has a target, every position predicts; where an example has one target,
//! the last position alone.

use alloc::vec::Vec;
use alloc::borrow::ToOwned as _;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{
    Activation, AddDef, AttentionDef, DenseDef, EmbeddingDef, LastDef, LayerDef, LayerNormDef,
    PositionDef,
};
use crate::reference::options;

options! {
    /// `kind = "transformer"`.
    pub struct Transformer {
        /// Features of a position; 64 when left out.
        pub width: usize,
        /// Heads of each attention, a divisor of the width; 4 when left out.
        pub heads: usize,
        /// Blocks; 2 when left out.
        pub blocks: usize,
        /// Units of each block's perceptron; 256 when left out.
        pub units: usize,
        /// Whether a position sees only itself and those before; true when left out.
        pub causal: bool,
    }
}

impl Default for Transformer {
    fn default() -> Self {
        Self {
            width: 64,
            heads: 4,
            blocks: 2,
            units: 256,
            causal: true,
        }
    }
}

impl ZooModel for Transformer {
    const KIND: &'static str = "transformer";
    const SUMMARY: &'static str = "a small causal transformer over tokens: two blocks of 64 features and 4 heads";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::tokens(Self::KIND, input)?;
        let norm = || LayerDef::LayerNorm(LayerNormDef::default());
        let dense = |units: usize, activation: Option<Activation>| {
            LayerDef::Dense(DenseDef {
                units: Some(units),
                activation,
                ..DenseDef::output()
            })
        };
        let add = |from: &str| LayerDef::Add(AddDef::new(from.to_owned()));
        let mut from = "position".to_owned();
        let embedding = EmbeddingDef::new(self.width);
        let mut layers = vec![
            LayerDef::Embedding(embedding).named("embedding"),
            LayerDef::Position(PositionDef::default()).named(&*from),
        ];
        for block in 1..=self.blocks {
            let name = |part: &str| format!("block{block}.{part}");
            let attention = AttentionDef {
                causal: self.causal,
                ..AttentionDef::new(self.heads)
            };
            layers.extend([
                norm().named(name("norm1")),
                LayerDef::Attention(attention).named(name("attention")),
                add(&from).named(name("middle")),
                norm().named(name("norm2")),
                dense(self.units, Some(Activation::Gelu)).named(name("fc1")),
                dense(self.width, None).named(name("fc2")),
                add(&name("middle")).named(name("end")),
            ]);
            from = name("end");
        }
        layers.extend([
            norm().named("norm"),
            LayerDef::Last(LastDef::default()),
            LayerDef::Dense(DenseDef::output()).named("output"),
        ]);
        Ok(layers)
    }

    fn example() -> (InputSpec, TargetSpec) {
        let input = InputSpec::Tokens {
            length: 80,
            vocabulary: 80,
        };
        (input, TargetSpec::Class { classes: 80 })
    }
}
