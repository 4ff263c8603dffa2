//! Examples as a runner and a loss take them.

use alloc::vec::Vec;

use fl_core::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};

use super::Inputs;
use crate::arena::reserve;

/// Examples read into memory that is used again; it grows for a larger batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    reals: Vec<f32>,
    tokens: Vec<u32>,
    labels: Vec<u32>,
    targets: Vec<f32>,
}

/// What was read; of the targets only those of the data's kind.
pub(crate) struct Read<'a> {
    pub(crate) inputs: Inputs<'a>,
    pub(crate) labels: &'a [u32],
    pub(crate) targets: &'a [f32],
}

/// A token that is none of the vocabulary.
pub(crate) struct ForeignToken {
    pub(crate) token: u32,
    pub(crate) vocabulary: usize,
    /// The example.
    pub(crate) row: u32,
}

impl Batch {
    /// Reads the examples at `rows`, each of which the data have.
    pub(crate) fn read(
        &mut self,
        data: &dyn Examples,
        rows: &[u32],
    ) -> Result<Read<'_>, ForeignToken> {
        let (mut labels, mut numbers) = (0, 0);
        let targets = match data.target() {
            target @ (TargetSpec::Class { .. } | TargetSpec::Sequence { .. }) => {
                labels = rows.len() * target.labels();
                reserve(&mut self.labels, labels);
                TargetsMut::Classes(&mut self.labels[..labels])
            }
            TargetSpec::Real { width } => {
                numbers = rows.len() * width;
                reserve(&mut self.targets, numbers);
                TargetsMut::Real(&mut self.targets[..numbers])
            }
        };
        let width = data.input().len();
        let count = rows.len() * width;
        let inputs = match *data.input() {
            InputSpec::Real(_) => {
                reserve(&mut self.reals, count);
                let reals = &mut self.reals[..count];
                data.fill(rows, InputsMut::Real(reals), targets);
                Inputs::Real(reals)
            }
            InputSpec::Tokens { vocabulary, .. } => {
                reserve(&mut self.tokens, count);
                let tokens = &mut self.tokens[..count];
                data.fill(rows, InputsMut::Tokens(tokens), targets);
                if let Some(at) = tokens.iter().position(|&t| t as usize >= vocabulary) {
                    return Err(ForeignToken {
                        token: tokens[at],
                        vocabulary,
                        row: rows[at / width],
                    });
                }
                Inputs::Tokens(tokens)
            }
        };
        Ok(Read {
            inputs,
            labels: &self.labels[..labels],
            targets: &self.targets[..numbers],
        })
    }
}
