//! Your own text by speaker.

use crate::error::DatasetError;
use crate::read::{self, text::Speakers};
use crate::sets::{About, Loaded, Material, Owners, Request, Set, keys};

/// Characters of context.
const WINDOW: u32 = 80;

/// `[dataset] name = "text"`.
pub(super) static SET: Set = Set {
    name: "text",
    summary: "your own text by speaker, for predicting the next character",
    keys: keys! {
        path: "a dialogue (`NAME:` above each speech), a table (*.tsv), or a folder of one *.txt per speaker; files may be gzipped",
        client_column: "table: the column of the speaker; `speaker` when left out",
        text_column: "table: the column of the text; `text` when left out",
        window: "characters of context; 80 when left out",
        every_position: "whether every character of a window has a target, not only the one after it",
    },
    entry: None,
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let path = config.need(
        config.path.as_ref(),
        "path",
        "the file or folder of the text",
    )?;
    let file = path.display().to_string();
    let speakers = if path.is_dir() {
        folder(path)?
    } else {
        let text = read::text(&file, read::file(path)?)?;
        if file.ends_with(".tsv") || file.ends_with(".tsv.gz") {
            let speaker = config.client_column.as_deref().unwrap_or("speaker");
            let column = config.text_column.as_deref().unwrap_or("text");
            Speakers::tab_separated(&file, &text, &[speaker], column, "\n")?
        } else {
            Speakers::dialogue(&file, &text)?
        }
    };
    let characters = speakers.characters(&file)?;
    spoken(
        request,
        SET.about(),
        &file,
        speakers,
        &characters,
        "speaker",
    )
}

fn folder(path: &std::path::Path) -> Result<Speakers, DatasetError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read::io("listing", path))? {
        let entry = entry.map_err(read::io("listing", path))?.path();
        let name = entry
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| name.ends_with(".txt") || name.ends_with(".txt.gz"))
        {
            files.push((name, entry));
        }
    }
    files.sort_unstable();
    let mut speakers = Speakers::default();
    for (name, path) in files {
        let text = read::text(&path.display().to_string(), read::file(&path)?)?;
        speakers.texts.push((name, text));
    }
    Ok(speakers)
}

/// Windows of what speakers say.
pub(super) fn spoken(
    request: &Request<'_>,
    about: About,
    file: &str,
    speakers: Speakers,
    characters: &[char],
    noun: &'static str,
) -> Result<Loaded, DatasetError> {
    let window = request.config.window.unwrap_or(WINDOW) as usize;
    let every = request.config.every_position.unwrap_or(false);
    let mut windows = match every {
        true => speakers.blocks(file, characters, window)?,
        false => speakers.windows(file, characters, window)?,
    };
    let Some((train, test)) = windows.take_stores() else {
        return Err(DatasetError::Empty {
            what: file.to_owned(),
            noun: "text",
            remedy: "give a text with speakers",
        });
    };
    Ok(Loaded::Material(Box::new(Material {
        about,
        train,
        test: (test.rows() > 0).then_some(test),
        groups: Some(Owners {
            of: windows.train_groups,
            of_test: Some(windows.test_groups),
            names: windows.names,
            noun,
        }),
        class_names: Some(
            characters
                .iter()
                .map(|c| c.escape_debug().to_string())
                .collect(),
        ),
    })))
}
