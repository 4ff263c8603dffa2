//! A client's examples, as a trainer reads them.

use fl_core::{ClientId, Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};

use crate::generator::GeneratedView;
use crate::partition::FeatureNoise;
use crate::store::Store;

/// A client's examples: a view.
#[derive(Debug)]
pub struct ClientExamples<'a> {
    pub(super) view: View<'a>,
}

#[derive(Debug)]
pub(super) enum View<'a> {
    /// Rows of a store, decoded as they are read.
    Rows {
        store: &'a Store,
        rows: RowSet<'a>,
        noise: Option<RowNoise<'a>>,
    },
    /// Rows of a store, decoded when the client was opened.
    Decoded {
        store: &'a Store,
        rows: RowSet<'a>,
        inputs: &'a [f32],
    },
    /// Generated.
    Generated {
        examples: GeneratedView<'a>,
        input: &'a InputSpec,
        target: TargetSpec,
    },
}

/// A client's rows of a store.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowSet<'a> {
    Listed(&'a [u32]),
    Range { start: u32, end: u32 },
}

impl RowSet<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Listed(rows) => rows.len(),
            Self::Range { start, end } => (end - start) as usize,
        }
    }

    pub(super) fn at(self, place: u32) -> u32 {
        match self {
            Self::Listed(rows) => rows[place as usize],
            Self::Range { start, .. } => start + place,
        }
    }
}

/// The noise of one client's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowNoise<'a> {
    pub(super) noise: &'a FeatureNoise,
    pub(super) client: ClientId,
    /// Added to a row's number, so that training and test rows have noise of their own.
    pub(super) offset: u32,
}

impl RowNoise<'_> {
    pub(super) fn add(self, row: u32, features: &mut [f32]) {
        self.noise
            .add(self.client, row.wrapping_add(self.offset), features);
    }
}

impl Examples for ClientExamples<'_> {
    fn len(&self) -> usize {
        match &self.view {
            View::Rows { rows, .. } | View::Decoded { rows, .. } => rows.len(),
            View::Generated { examples, .. } => examples.classes.len(),
        }
    }

    fn input(&self) -> &InputSpec {
        match &self.view {
            View::Rows { store, .. } | View::Decoded { store, .. } => store.input(),
            View::Generated { input, .. } => input,
        }
    }

    fn target(&self) -> TargetSpec {
        match &self.view {
            View::Rows { store, .. } | View::Decoded { store, .. } => store.target(),
            View::Generated { target, .. } => *target,
        }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        match &self.view {
            View::Rows {
                store,
                rows: own,
                noise,
            } => {
                let own_rows = || rows.iter().map(|&place| own.at(place));
                match (noise, inputs) {
                    (Some(noise), InputsMut::Real(out)) => {
                        let width = store.input().len();
                        for (row, out) in own_rows().zip(out.chunks_exact_mut(width)) {
                            store.decode(row, out);
                            noise.add(row, out);
                        }
                    }
                    (_, inputs) => store.fill_inputs(own_rows(), inputs),
                }
                store.fill_targets(own_rows(), targets);
            }
            View::Decoded {
                store,
                rows: own,
                inputs: decoded,
            } => {
                copy_rows(decoded, store.input().len(), rows, inputs);
                store.fill_targets(rows.iter().map(|&place| own.at(place)), targets);
            }
            View::Generated {
                examples, input, ..
            } => {
                copy_rows(examples.inputs, input.len(), rows, inputs);
                if let TargetsMut::Classes(out) = targets {
                    for (out, &row) in out.iter_mut().zip(rows) {
                        *out = examples.classes[row as usize];
                    }
                }
            }
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        match &self.view {
            View::Rows {
                store,
                rows: RowSet::Range { start, end },
                noise: None,
            } => store.real_rows(*start as usize..*end as usize),
            View::Rows { .. } => None,
            View::Decoded { inputs, .. } => Some(inputs),
            View::Generated { examples, .. } => Some(examples.inputs),
        }
    }
}

fn copy_rows(from: &[f32], width: usize, rows: &[u32], inputs: InputsMut<'_>) {
    if let InputsMut::Real(out) = inputs {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            let start = row as usize * width;
            out.copy_from_slice(&from[start..start + width]);
        }
    }
}
