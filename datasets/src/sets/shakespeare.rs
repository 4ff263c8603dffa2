//! The plays of Shakespeare by role, for predicting the next character.
//!
//! Clients are (play, role) pairs; see [`read::text`] for windows and the
//! split. One character of the text (`$`, once) is not among LEAF's 80 and becomes a blank.

use crate::catalogue::{CatalogueFile, Entry, Origin};
use crate::error::DatasetError;
use crate::read;
use crate::read::text::{LEAF_CHARACTERS, Speakers};
use crate::sets::text::spoken;
use crate::sets::{Loaded, Request, Set, keys};

const FILE: &str = "speeches.tsv.gz";

const ENTRY: Entry = Entry {
    name: "shakespeare",
    title: "Speeches of 37 plays of Shakespeare",
    shape: "30,913 speeches, 4.3 million characters, 1,346 roles; windows of 80 characters, 80 classes",
    licence: "public domain",
    citation: "William Shakespeare; the clients as in McMahan et al. 2017 (arXiv:1602.05629)",
    source: "http://shakespeare.mit.edu/",
    embedded: false,
    files: &[CatalogueFile {
        name: FILE,
        bytes: 1_941_304,
        sha256: "5234c30364c20daae67865a02c12a9e60aa6aaf83f30329d592e6b6b4d167491",
        origin: Origin::ImportOnly(
            "it is a table of speeches made from the public-domain text and has no public home",
        ),
    }],
};

/// `[dataset] name = "shakespeare"`.
pub(super) static SET: Set = Set {
    name: "shakespeare",
    summary: "next character of Shakespeare, one natural client per role",
    keys: keys! { window: "characters of context; 80 when left out",
    every_position: "whether every character of a window has a target, not only the one after it"  },
    entry: Some(ENTRY),
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let text = read::text(FILE, ENTRY.read(request.root, FILE)?)?;
    let speakers = Speakers::tab_separated(FILE, &text, &["play", "role"], "text", " ")?;
    let characters: Vec<char> = LEAF_CHARACTERS.chars().collect();
    spoken(request, SET.about(), FILE, speakers, &characters, "role")
}
