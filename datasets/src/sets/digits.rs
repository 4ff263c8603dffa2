//! The UCI optical digits, embedded: the 1,797 images of its test file, the first 1,437 for
//! training and the last 360 for testing.
//!
//! # Source
//! Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning
//! Repository, doi:10.24432/C50P49. The order is that of the copy in scikit-learn.

use fl_core::{InputSpec, TargetSpec};

use crate::catalogue::Entry;
use crate::embedded;
use crate::error::DatasetError;
use crate::read::{self, DAMAGED, malformed, shown};
use crate::sets::mnist::DIGITS;
use crate::sets::{Loaded, Material, Request, Set, keys, normalise, owned};
use crate::store::{ByteRows, Inputs, Store, Targets};

/// Pixels of an image.
const PIXELS: usize = 64;
/// The largest value of a pixel.
const LARGEST: u8 = 16;
/// Images for training.
const TRAIN: usize = 1437;

/// `[dataset] name = "digits"`.
pub(super) static SET: Set = Set {
    name: "digits",
    summary: "UCI handwritten digits, in the program",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(Entry {
        name: "digits",
        title: "UCI Optical Recognition of Handwritten Digits (test file)",
        shape: "1,437 training and 360 test images of 8x8 with values 0 to 16, 10 classes",
        licence: "CC BY 4.0",
        citation: "Alpaydin & Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
        source: "https://archive.ics.uci.edu/ml/machine-learning-databases/optdigits/optdigits.tes",
        embedded: true,
        files: &[],
    }),
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let file = "embedded digits";
    let text = read::text(file, embedded::DIGITS.to_vec())?;
    let (mut pixels, mut labels) = parse(file, &text)?;
    if labels.len() <= TRAIN {
        return Err(DatasetError::Empty {
            what: file.to_owned(),
            noun: "test image",
            remedy: "run `cargo xtask embed` again",
        });
    }
    let (test_pixels, test_labels) = (pixels.split_off(TRAIN * PIXELS), labels.split_off(TRAIN));
    let store = |data, labels| {
        Store::new(
            file,
            InputSpec::Real(vec![8, 8, 1]),
            TargetSpec::Class {
                classes: DIGITS.len(),
            },
            Inputs::Bytes(ByteRows {
                data,
                channels: 1,
                zero: 0,
                largest: LARGEST.into(),
            }),
            Targets::Bytes(labels),
        )
    };
    let mut train = store(pixels, labels)?;
    let mut test = store(test_pixels, test_labels)?;
    normalise(request.config, &mut train, Some(&mut test))?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test: Some(test),
        groups: None,
        class_names: Some(owned(DIGITS)),
    })))
}

/// Pixels and labels of lines of 64 pixels and a class.
fn parse(file: &str, text: &str) -> Result<(Vec<u8>, Vec<u8>), DatasetError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let place = || format!("line {}", number + 1);
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != PIXELS + 1 {
            return Err(malformed(
                file,
                place(),
                format!("{} fields", fields.len()),
                "64 pixels and a class",
                DAMAGED,
            ));
        }
        for (at, field) in fields.iter().enumerate() {
            let most = if at == PIXELS { 9 } else { LARGEST };
            let value = field
                .trim()
                .parse::<u8>()
                .ok()
                .filter(|&value| value <= most);
            let Some(value) = value else {
                return Err(malformed(
                    file,
                    format!("{}, field {}", place(), at + 1),
                    shown(field),
                    format!("a whole number from 0 to {most}"),
                    DAMAGED,
                ));
            };
            if at == PIXELS {
                labels.push(value);
            } else {
                pixels.push(value);
            }
        }
    }
    Ok((pixels, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        let line = |field: &str| format!("{}{field}\n", "1,".repeat(64));
        let message = |text: &str| parse("f", text).unwrap_err().to_string();
        assert!(message("1,2\n").starts_with("f, line 1: found 2 fields, expected 64"));
        assert!(
            message(&line("10")).starts_with(
                "f, line 1, field 65: found `10`, expected a whole number from 0 to 9"
            )
        );
        assert!(
            message(&line("7").replacen('1', "17", 1))
                .starts_with("f, line 1, field 1: found `17`")
        );
        assert_eq!(parse("f", &line("7")).unwrap(), (vec![1; 64], vec![7]));
    }
}
