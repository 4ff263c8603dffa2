//! Arrays in files, and images with labels as training reads them.

use std::fs;
use std::path::Path;

use fl_core::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};
use fl_edge::Model;

use crate::Outcome;

fn fours(path: &Path) -> Outcome<Vec<[u8; 4]>> {
    let bytes = fs::read(path)?;
    let (fours, rest) = bytes.as_chunks::<4>();
    match rest {
        [] => Ok(fours.to_vec()),
        _ => Err(format!("{} holds no whole numbers of four bytes", path.display()).into()),
    }
}

/// Numbers from a file.
pub(crate) fn read(path: &Path) -> Outcome<Vec<f32>> {
    Ok(fours(path)?.into_iter().map(f32::from_le_bytes).collect())
}

/// Numbers into a file.
pub(crate) fn write(path: &Path, numbers: &[f32]) -> Outcome<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(fs::write(path, bytes)?)
}

/// Examples of a model's shape.
pub(crate) struct Images {
    input: InputSpec,
    target: TargetSpec,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Images {
    /// Inputs and labels from two files.
    pub(crate) fn read(model: &Model, inputs: &Path, labels: &Path) -> Outcome<Self> {
        let mut images = Self::unlabelled(model, inputs)?;
        let labels = fours(labels)?.into_iter().map(u32::from_le_bytes);
        images.labels = labels.collect();
        match images.labels.len() * images.input.len() == images.pixels.len() {
            true => Ok(images),
            false => Err("there are not as many labels as inputs".into()),
        }
    }

    /// Inputs alone, all of class 0.
    pub(crate) fn unlabelled(model: &Model, inputs: &Path) -> Outcome<Self> {
        let pixels = read(inputs)?;
        let input = model.input().clone();
        if !pixels.len().is_multiple_of(input.len()) {
            return Err(format!("{} holds no whole examples", inputs.display()).into());
        }
        Ok(Self {
            labels: vec![0; pixels.len() / input.len()],
            target: model.target(),
            pixels,
            input,
        })
    }
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        if let InputsMut::Real(to) = inputs {
            for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
                to.copy_from_slice(&self.pixels[row as usize * width..][..width]);
            }
        }
        if let TargetsMut::Classes(to) = targets {
            for (to, &row) in to.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}
