//! Text by speaker, for predicting the next character.
//!
//! Three forms are read: tab-separated speeches with a header line (line breaks inside a speech
//! are the two characters `\n`), dialogue (`NAME:` on a line of its own, the speech below it, an
//! empty line after it), and a folder with one text file per speaker.
//!
//! An example is a window of characters and the character after it, or (with `every_position`) a
//! block of characters, each with the one after it. Each speaker's text, in
//! the order of the file, is cut at 80 %: windows whose target lies before the cut train, the
//! others test; no target is in both, while the context of a test target may reach back over
//! the cut.
//!
//! # Source
//! McMahan et al. 2017 (arXiv:1602.05629), section 3: one client per role, the first 80 % of its
//! lines for training. Caldas et al. 2018 (LEAF, arXiv:1812.01097): windows of 80 characters,
//! the vocabulary of [`LEAF_CHARACTERS`], line breaks read as blanks. Deviations: LEAF drops
//! test windows that overlap training text and cuts at examples, not characters.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{InputSpec, TargetSpec};

use crate::error::DatasetError;
use crate::read::{malformed, shown};
use crate::store::{Inputs, Store, Targets, TextRows};

/// The 80 characters of LEAF's Shakespeare, in the order of their tokens.
pub const LEAF_CHARACTERS: &str =
    "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}";

/// The most characters in a vocabulary: a token is one byte.
const MOST_CHARACTERS: usize = 256;

/// What everyone says, speaker by speaker, in the order of first appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speakers {
    /// Name and text of each speaker.
    pub texts: Vec<(String, String)>,
}

impl Speakers {
    /// Appends a speech to its speaker's text, after `joint` where there is text already.
    fn say(&mut self, places: &mut BTreeMap<String, usize>, name: &str, joint: &str, words: &str) {
        let place = places.get(name).copied().unwrap_or_else(|| {
            self.texts.push((name.to_owned(), String::new()));
            places.insert(name.to_owned(), self.texts.len() - 1);
            self.texts.len() - 1
        });
        let text = &mut self.texts[place].1;
        if !text.is_empty() {
            text.push_str(joint);
        }
        text.push_str(words);
    }

    /// Reads tab-separated speeches: a header, then one speech a line. The speaker is what
    /// `speaker_columns` hold together; `line_break` stands for `\n` within and between speeches.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] for a column that the header does not name, another number
    /// of fields than the header's, or a backslash that starts no `\n`.
    pub fn tab_separated(
        file: &str,
        text: &str,
        speaker_columns: &[&str],
        text_column: &str,
        line_break: &str,
    ) -> Result<Self, DatasetError> {
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
        let column = |name: &str| {
            header
                .iter()
                .position(|&column| column == name)
                .ok_or_else(|| {
                    malformed(
                        file,
                        "line 1",
                        format!("the columns {}", shown(&header.join(", "))),
                        format!("a column `{name}`"),
                        "name the columns in the first line, separated by tabs",
                    )
                })
        };
        let speaker_columns = (speaker_columns.iter())
            .map(|name| column(name))
            .collect::<Result<Vec<_>, _>>()?;
        let text_column = column(text_column)?;
        let (mut speakers, mut places) = (Self::default(), BTreeMap::new());
        for (number, line) in lines.enumerate() {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.len() != header.len() {
                return Err(malformed(
                    file,
                    format!("line {}", number + 2),
                    format!("{} fields", fields.len()),
                    format!("{} fields, as in the header", header.len()),
                    "separate fields by one tab each",
                ));
            }
            let name: Vec<&str> = speaker_columns.iter().map(|&at| fields[at]).collect();
            let mut words = String::with_capacity(fields[text_column].len());
            for (part_number, part) in fields[text_column].split('\\').enumerate() {
                match (part_number, part.strip_prefix('n')) {
                    (0, _) => words.push_str(part),
                    (_, Some(rest)) => {
                        words.push_str(line_break);
                        words.push_str(rest);
                    }
                    (_, None) => {
                        return Err(malformed(
                            file,
                            format!("line {}", number + 2),
                            "a backslash that starts no line break",
                            "backslashes only in `\\n`",
                            "remove the backslash",
                        ));
                    }
                }
            }
            speakers.say(&mut places, &name.join(" / "), line_break, &words);
        }
        Ok(speakers)
    }

    /// Reads dialogue. A block without a name goes on with the last speaker.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] when the text does not begin with a name.
    pub fn dialogue(file: &str, text: &str) -> Result<Self, DatasetError> {
        let (mut speakers, mut places) = (Self::default(), BTreeMap::new());
        let mut name: Option<&str> = None;
        let mut after_blank = true;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                after_blank = true;
                continue;
            }
            let speaker = line.trim_end().strip_suffix(':').filter(|_| after_blank);
            after_blank = false;
            match (speaker, name) {
                (Some(speaker), _) => name = Some(speaker),
                (None, Some(name)) => speakers.say(&mut places, name, "\n", line),
                (None, None) => {
                    return Err(malformed(
                        file,
                        format!("line {}", number + 1),
                        shown(line),
                        "a speaker's name and a colon",
                        "start each speech with `NAME:` on a line of its own, after an empty line",
                    ));
                }
            }
        }
        Ok(speakers)
    }

    /// The distinct characters of all texts, ascending.
    ///
    /// # Errors
    /// [`DatasetError::TooLarge`] when there are more than 256.
    pub fn characters(&self, file: &str) -> Result<Vec<char>, DatasetError> {
        let mut characters = std::collections::BTreeSet::new();
        for (_, text) in &self.texts {
            characters.extend(text.chars());
        }
        fit_in_a_byte(file, characters.len())?;
        Ok(characters.into_iter().collect())
    }

    /// Cuts the texts into windows of `length` characters of the vocabulary `characters`;
    /// characters outside it become a blank (or its first character).
    ///
    /// # Errors
    /// [`DatasetError::Empty`] when no speaker says enough for one window and its target,
    /// [`DatasetError::TooLarge`] for more than 256 characters, and what [`Store::new`] refuses.
    pub fn windows(
        self,
        file: &str,
        characters: &[char],
        length: usize,
    ) -> Result<Windows, DatasetError> {
        self.cut(file, characters, length, false)
    }

    /// Cuts the texts into blocks of `length` characters side by side, in which every character
    /// has the one after it as its target. The last block of a part of a text is filled up with
    /// positions [without a target](fl_core::NO_TARGET). The first target of a speaker's test part
    /// is the first character behind the cut; a block knows nothing of the block before it.
    ///
    /// # Errors
    /// As [`Self::windows`]; a speaker needs a training part of two characters.
    pub fn blocks(
        self,
        file: &str,
        characters: &[char],
        length: usize,
    ) -> Result<Windows, DatasetError> {
        self.cut(file, characters, length, true)
    }

    fn cut(
        self,
        file: &str,
        characters: &[char],
        length: usize,
        every: bool,
    ) -> Result<Windows, DatasetError> {
        fit_in_a_byte(file, characters.len())?;
        let token_of: BTreeMap<char, u8> = (characters.iter().enumerate())
            .map(|(token, &character)| (character, token as u8))
            .collect();
        let blank = token_of.get(&' ').copied().unwrap_or(0);
        let mut tokens = Vec::new();
        let mut split = Windows::empty();
        let (mut train, mut test) = (Starts::default(), Starts::default());
        for (name, text) in self.texts {
            let from = tokens.len();
            tokens.extend((text.chars()).map(|c| token_of.get(&c).copied().unwrap_or(blank)));
            let said = tokens.len() - from;
            // floor(0.8 said) without overflow or floats.
            let cut = said - said.div_ceil(5);
            let context = if every { 1 } else { length };
            if cut <= context {
                tokens.truncate(from);
                split.left_out += 1;
                continue;
            }
            let group = split.names.len() as u32;
            split.names.push(name);
            if every {
                for start in (0..cut - 1).step_by(length) {
                    train.push(from + start, from + cut);
                    split.train_groups.push(group);
                }
                for start in (cut - 1..said - 1).step_by(length) {
                    test.push(from + start, from + said);
                    split.test_groups.push(group);
                }
                continue;
            }
            for target in length..said {
                let (starts, groups) = if target < cut {
                    (&mut train, &mut split.train_groups)
                } else {
                    (&mut test, &mut split.test_groups)
                };
                starts.push(from + target - length, from + said);
                groups.push(group);
            }
        }
        if split.names.is_empty() {
            return Err(DatasetError::Empty {
                what: file.to_owned(),
                noun: "speaker with enough text for one window",
                remedy: "choose a smaller `window`",
            });
        }
        if tokens.len() > u32::MAX as usize {
            return Err(DatasetError::TooLarge {
                what: file.to_owned(),
                noun: "characters",
                found: tokens.len() as u64,
                limit: u64::from(u32::MAX),
                remedy: "use a part of it",
            });
        }
        let tokens: Arc<[u8]> = tokens.into();
        let classes = characters.len();
        let store = |starts: Starts| {
            let (target, targets) = match every {
                true => (
                    TargetSpec::Sequence { length, classes },
                    Targets::NextTokens(starts.ends),
                ),
                false => (TargetSpec::Class { classes }, Targets::NextToken),
            };
            let input = InputSpec::Tokens {
                length,
                vocabulary: classes,
            };
            let inputs = Inputs::Text(TextRows {
                tokens: Arc::clone(&tokens),
                starts: starts.starts,
            });
            Store::new(file, input, target, inputs, targets)
        };
        split.train = Some(store(train)?);
        split.test = Some(store(test)?);
        Ok(split)
    }
}

/// Where examples start and where the text ends that they are part of.
#[derive(Default)]
struct Starts {
    starts: Vec<u32>,
    ends: Vec<u32>,
}

impl Starts {
    fn push(&mut self, start: usize, end: usize) {
        self.starts.push(start as u32);
        self.ends.push(end as u32);
    }
}

/// Refuses a vocabulary whose tokens are no bytes.
fn fit_in_a_byte(file: &str, characters: usize) -> Result<(), DatasetError> {
    if characters <= MOST_CHARACTERS {
        return Ok(());
    }
    Err(DatasetError::TooLarge {
        what: file.to_owned(),
        noun: "distinct characters",
        found: characters as u64,
        limit: MOST_CHARACTERS as u64,
        remedy: "simplify the text, e.g. to one alphabet",
    })
}

/// Texts cut into training and test windows.
#[derive(Clone, Debug)]
pub struct Windows {
    train: Option<Store>,
    test: Option<Store>,
    /// Speaker of each training window.
    pub train_groups: Vec<u32>,
    /// Speaker of each test window.
    pub test_groups: Vec<u32>,
    /// Names of the speakers with at least one training window.
    pub names: Vec<String>,
    /// Speakers with too little text.
    pub left_out: u64,
}

impl Windows {
    fn empty() -> Self {
        Self {
            train: None,
            test: None,
            train_groups: Vec::new(),
            test_groups: Vec::new(),
            names: Vec::new(),
            left_out: 0,
        }
    }

    /// The training and the test windows, taken out.
    #[must_use]
    pub fn take_stores(&mut self) -> Option<(Store, Store)> {
        self.train.take().zip(self.test.take())
    }
}

#[cfg(test)]
mod tests {
    use fl_core::{Examples as _, InputsMut, TargetsMut};

    use super::*;

    #[test]
    fn speeches_are_gathered_by_speaker() {
        let text = "play\trole\ttext\nA\tKING\tone\\ntwo\nA\tFOOL\tha\nA\tKING\tthree\n";
        let speakers = Speakers::tab_separated("f", text, &["play", "role"], "text", " ").unwrap();
        let expected = [("A / KING", "one two three"), ("A / FOOL", "ha")];
        assert_eq!(
            speakers.texts,
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
        let dialogue = "KING:\none\ntwo: three\n\nFOOL:\nha\n\nKING:\nfour\n\nfive\n";
        let speakers = Speakers::dialogue("f", dialogue).unwrap();
        let expected = [("KING", "one\ntwo: three\nfour\nfive"), ("FOOL", "ha")];
        assert_eq!(
            speakers.texts,
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn messages() {
        let tsv = |text| {
            Speakers::tab_separated("f", text, &["role"], "text", " ")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            tsv("play\ttext\n"),
            "f, line 1: found the columns `play, text`, expected a column `role`; name the columns in the first line, separated by tabs"
        );
        assert_eq!(
            tsv("role\ttext\na\n"),
            "f, line 2: found 1 fields, expected 2 fields, as in the header; separate fields by one tab each"
        );
        assert_eq!(
            tsv("role\ttext\na\tb\\c\n"),
            "f, line 2: found a backslash that starts no line break, expected backslashes only in `\\n`; remove the backslash"
        );
        let message = Speakers::dialogue("f", "hello\n").unwrap_err().to_string();
        assert!(message.starts_with("f, line 1: found `hello`, expected a speaker's name"));
    }

    #[test]
    fn windows_are_cut_at_four_fifths() {
        let speakers = Speakers {
            texts: vec![
                ("short".into(), "abc".into()),
                ("long".into(), "abcdefghij".into()),
            ],
        };
        let characters = speakers.characters("f").unwrap();
        let mut windows = speakers.windows("f", &characters, 3).unwrap();
        assert_eq!(
            (windows.left_out, &windows.names[..]),
            (1, &["long".to_owned()][..])
        );
        let (train, test) = windows.take_stores().unwrap();
        // Ten characters: targets 3..8 train, 8..10 test.
        assert_eq!(train.labels(), Some(vec![3, 4, 5, 6, 7]));
        assert_eq!(test.labels(), Some(vec![8, 9]));
        let (mut tokens, mut next) = ([0; 3], [0; 1]);
        test.fill(
            &[1],
            InputsMut::Tokens(&mut tokens),
            TargetsMut::Classes(&mut next),
        );
        assert_eq!((tokens, next), ([6, 7, 8], [9]));
    }

    #[test]
    fn every_position_has_its_target_once() {
        let speakers = Speakers {
            texts: vec![
                ("a".into(), "a".into()),
                ("long".into(), "abcdefghij".into()),
            ],
        };
        let characters = speakers.characters("f").unwrap();
        let mut windows = speakers.blocks("f", &characters, 3).unwrap();
        assert_eq!((windows.left_out, windows.names.len()), (1, 1));
        let (train, test) = windows.take_stores().unwrap();
        // Ten characters: targets 1..8 train, 8..10 test.
        let none = fl_core::NO_TARGET;
        type Rows<'a> = &'a [([u32; 3], [u32; 3])];
        let expected: [(&Store, Rows<'_>); 2] = [
            (
                &train,
                &[
                    ([0, 1, 2], [1, 2, 3]),
                    ([3, 4, 5], [4, 5, 6]),
                    ([6, 7, 0], [7, none, none]),
                ],
            ),
            (&test, &[([7, 8, 9], [8, 9, none])]),
        ];
        for (store, rows) in expected {
            assert_eq!(
                store.target(),
                TargetSpec::Sequence {
                    length: 3,
                    classes: 10
                }
            );
            assert_eq!(store.rows(), rows.len());
            for (row, expected) in rows.iter().enumerate() {
                let (mut tokens, mut next) = ([9; 3], [0; 3]);
                let targets = TargetsMut::Classes(&mut next);
                store.fill(&[row as u32], InputsMut::Tokens(&mut tokens), targets);
                assert_eq!((tokens, next), *expected, "row {row}");
            }
        }
    }

    #[test]
    fn a_vocabulary_of_more_than_a_byte_is_refused() {
        let text: String = (0..257)
            .filter_map(|c| char::from_u32(c + 0x4e00))
            .collect();
        let characters: Vec<char> = text.chars().collect();
        let speakers = Speakers {
            texts: vec![("all".into(), text)],
        };
        let message = speakers.characters("f").unwrap_err().to_string();
        assert!(
            message.starts_with("f holds 257 distinct characters"),
            "{message}"
        );
        assert!(speakers.windows("f", &characters, 3).is_err());
    }

    #[test]
    fn leaf_has_eighty_characters() {
        assert_eq!(LEAF_CHARACTERS.chars().count(), 80);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ab\\\\nt\t\n:]{0,60}", window in 1usize..5) {
            let headed = format!("role\ttext\n{text}");
            for speakers in [
                Speakers::tab_separated("f", &headed, &["role"], "text", " "),
                Speakers::dialogue("f", &text),
            ] {
                let Ok(speakers) = speakers else { continue };
                let said: usize = speakers.texts.iter().map(|(_, text)| text.chars().count()).sum();
                let characters = speakers.characters("f").unwrap();
                if let Ok(mut windows) = speakers.windows("f", &characters, window) {
                    let (train, test) = windows.take_stores().unwrap();
                    proptest::prop_assert!(train.rows() + test.rows() <= said);
                    proptest::prop_assert_eq!(train.rows(), windows.train_groups.len());
                    proptest::prop_assert_eq!(test.rows(), windows.test_groups.len());
                }
            }
        }
    }
}
