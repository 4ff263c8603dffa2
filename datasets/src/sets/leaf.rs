//! Data in LEAF's JSON: a file, or a folder with `train/*.json` and `test/*.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fl_core::{InputSpec, TargetSpec};

use crate::error::DatasetError;
use crate::read::leaf::{LeafData, LeafUser};
use crate::read::text::LEAF_CHARACTERS;
use crate::read::{self, DAMAGED, io, malformed, shown};
use crate::sets::{Loaded, MOST_CLASSES, Material, Owners, Request, Set, keys, normalise};
use crate::store::{Inputs, Store, Targets, TextRows};
use crate::table::MISSING;

/// `[dataset] name = "leaf"`.
pub(super) static SET: Set = Set {
    name: "leaf",
    summary: "data in LEAF's JSON, one natural client per user",
    keys: keys! {
        path: "a file, or a folder with `train` and `test` folders of *.json",
        normalise: "unit or raw (default: numbers as they are), or standard",
        feature_noise: "noise that grows from client to client",
    },
    entry: None,
    load,
};

fn json_files(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io("listing", folder))? {
        let path = entry.map_err(io("listing", folder))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    if files.is_empty() {
        return Err(DatasetError::Empty {
            what: folder.display().to_string(),
            noun: "*.json file",
            remedy: "put LEAF's files there",
        });
    }
    Ok(files)
}

/// Examples of several files.
#[derive(Default)]
struct Gathered {
    numbers: Vec<f32>,
    tokens: Vec<u8>,
    starts: Vec<u32>,
    labels: Vec<u32>,
    groups: Vec<u32>,
    width: usize,
    text: Option<bool>,
}

impl Gathered {
    fn add(
        &mut self,
        file: &str,
        name: &str,
        user: &LeafUser,
        group: u32,
    ) -> Result<(), DatasetError> {
        if user.labels.is_empty() {
            return Ok(());
        }
        let text = user.numbers.is_empty();
        let before = *self.text.get_or_insert(text);
        if before != text || (self.width != 0 && self.width != user.width) {
            let kind = |text| if text { "characters" } else { "numbers" };
            return Err(malformed(
                file,
                format!("user {}", shown(name)),
                format!("examples of {} {}", user.width, kind(text)),
                format!("{} {}, as before", self.width, kind(before)),
                "use files of one data set",
            ));
        }
        self.width = user.width;
        self.numbers.extend_from_slice(&user.numbers);
        // Each window is followed by its target, so the store reads it as running text.
        let windows = user.tokens.chunks_exact(user.width);
        for (row, (window, &label)) in windows.zip(&user.labels).enumerate() {
            let next = u8::try_from(label).ok();
            let Some(next) = next.filter(|&next| usize::from(next) < LEAF_CHARACTERS.len()) else {
                return Err(malformed(
                    file,
                    format!("user {}, example {row}", shown(name)),
                    format!("label {label}"),
                    "the character after the input, or its number from 0 to 79",
                    "give the next character as the label",
                ));
            };
            let start = u32::try_from(self.tokens.len()).map_err(|_| DatasetError::TooLarge {
                what: file.to_owned(),
                noun: "characters",
                found: self.tokens.len() as u64,
                limit: u64::from(u32::MAX),
                remedy: "use a part of it",
            })?;
            self.starts.push(start);
            self.tokens.extend_from_slice(window);
            self.tokens.push(next);
        }
        self.labels.extend_from_slice(&user.labels);
        self.groups
            .extend(core::iter::repeat_n(group, user.labels.len()));
        Ok(())
    }

    fn store(self, what: &str, classes: usize) -> Result<(Store, Vec<u32>), DatasetError> {
        let store = if self.text == Some(true) {
            let vocabulary = LEAF_CHARACTERS.chars().count();
            Store::new(
                what,
                InputSpec::Tokens {
                    length: self.width,
                    vocabulary,
                },
                TargetSpec::Class {
                    classes: vocabulary,
                },
                Inputs::Text(TextRows {
                    tokens: self.tokens.into(),
                    starts: self.starts,
                }),
                Targets::NextToken,
            )?
        } else {
            Store::new(
                what,
                InputSpec::Real(vec![self.width]),
                TargetSpec::Class { classes },
                Inputs::Real(self.numbers),
                Targets::classes(self.labels, classes),
            )?
        };
        Ok((store, self.groups))
    }
}

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let path = config.need(config.path.as_ref(), "path", "LEAF's file or folder")?;
    let (train_files, test_files) = if path.is_dir() {
        let test = path.join("test");
        (
            json_files(&path.join("train"))?,
            if test.is_dir() {
                json_files(&test)?
            } else {
                Vec::new()
            },
        )
    } else {
        (vec![path.clone()], Vec::new())
    };
    let mut names: Vec<String> = Vec::new();
    let mut groups = BTreeMap::new();
    let (mut train, mut test) = (Gathered::default(), Gathered::default());
    for file in train_files {
        let shown_file = file.display().to_string();
        for (name, user) in LeafData::parse(&shown_file, &read::file(&file)?)?.users {
            if user.labels.is_empty() {
                continue;
            }
            let group = *groups.entry(name.clone()).or_insert_with(|| {
                names.push(name.clone());
                names.len() as u32 - 1
            });
            train.add(&shown_file, &name, &user, group)?;
        }
    }
    for file in test_files {
        let shown_file = file.display().to_string();
        for (name, user) in LeafData::parse(&shown_file, &read::file(&file)?)?.users {
            let group = groups.get(&name).copied().unwrap_or(MISSING);
            test.add(&shown_file, &name, &user, group)?;
        }
    }
    let what = path.display().to_string();
    if train.labels.is_empty() {
        return Err(DatasetError::Empty {
            what,
            noun: "training example",
            remedy: "give LEAF's files with at least one user that has examples",
        });
    }
    let largest = train
        .labels
        .iter()
        .chain(&test.labels)
        .max()
        .copied()
        .unwrap_or(0);
    let classes = largest as usize + 1;
    if classes > MOST_CLASSES {
        return Err(DatasetError::TooLarge {
            what,
            noun: "classes",
            found: classes as u64,
            limit: MOST_CLASSES as u64,
            remedy: "number the classes from 0 without gaps",
        });
    }
    if !test.labels.is_empty() && (test.width, test.text) != (train.width, train.text) {
        return Err(malformed(
            &what,
            "test examples",
            format!("{} values", test.width),
            format!("{}, of the same kind as in training", train.width),
            DAMAGED,
        ));
    }
    let (mut train, of) = train.store(&what, classes)?;
    let (mut test, of_test) = if test.labels.is_empty() {
        (None, None)
    } else {
        let (store, of) = test.store(&what, classes)?;
        (Some(store), Some(of))
    };
    normalise(config, &mut train, test.as_mut())?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test,
        groups: Some(Owners {
            of,
            of_test,
            names,
            noun: "user",
        }),
        class_names: None,
    })))
}
