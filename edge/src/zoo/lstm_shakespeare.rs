//! The character model of McMahan et al. 2017 (arXiv:1602.05629, §3): each character becomes 8
//! learned numbers, two layers of 256 LSTM units read them, and a softmax predicts the next
//! character. 817,872 parameters for the 80 characters of LEAF (the paper's 866,578 are for its own
//! vocabulary).
//!
//! Where every position has a target, every position's state predicts; where an example has one
//! target, the last position's alone.

use alloc::vec::Vec;
use alloc::vec;
use alloc::format;

use fl_core::{InputSpec, TargetSpec};

use super::ZooModel;
use crate::error::EdgeError;
use crate::layer::{DenseDef, EmbeddingDef, LastDef, LayerDef, LstmDef};
use crate::reference::options;

options! {
    /// `kind = "lstm-shakespeare"`.
    pub struct LstmShakespeare {
        /// Numbers per character; 8 when left out.
        pub embedding: usize,
        /// Units of each LSTM layer; `[256, 256]` when left out.
        pub units: Vec<usize>,
    }
}

impl Default for LstmShakespeare {
    fn default() -> Self {
        Self {
            embedding: 8,
            units: vec![256, 256],
        }
    }
}

impl ZooModel for LstmShakespeare {
    const KIND: &'static str = "lstm-shakespeare";
    const SUMMARY: &'static str = "McMahan et al. 2017's character model: embedding 8, two LSTM layers of 256 (817,872 parameters at 80 characters)";

    fn layers(&self, input: &InputSpec) -> Result<Vec<LayerDef>, EdgeError> {
        super::tokens(Self::KIND, input)?;
        let embedding = EmbeddingDef::new(self.embedding);
        let mut layers = vec![LayerDef::Embedding(embedding).named("embedding")];
        for (index, &units) in self.units.iter().enumerate() {
            let lstm = LayerDef::Lstm(LstmDef::new(units));
            layers.push(lstm.named(format!("lstm{}", index + 1)));
        }
        layers.push(LayerDef::Last(LastDef::default()));
        layers.push(LayerDef::Dense(DenseDef::output()).named("output"));
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
