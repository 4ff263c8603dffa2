//! Pictures in a folder.
//!
//! Three layouts: `CLASS/*.png`; `CLIENT/CLASS/*.png`; or a manifest, a file `manifest.csv`
//! with the header `file,label` and optionally `client` and `split` (`train` or `test`), paths
//! relative to the folder. In the first two, folders `train` and `test` may lie above. Names are
//! taken in byte order; pictures must be 8-bit PNGs of one size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::DatasetError;
use crate::read::image::Image;
use crate::read::{self, io, malformed, shown};

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FolderLayout {
    /// `CLASS/*.png`.
    Classes,
    /// `CLIENT/CLASS/*.png`.
    ClientsClasses,
    /// `manifest.csv`.
    Manifest,
}

/// A picture's place, class and owner.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    class: String,
    client: Option<String>,
    test: bool,
}

/// Pictures of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pictures {
    /// `[pictures, height, width, channels]`.
    pub data: Vec<u8>,
    /// Class of each picture.
    pub labels: Vec<u32>,
    /// Owner of each picture; empty when the layout names none.
    pub groups: Vec<u32>,
}

/// What a folder of pictures holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Height, width, channels of every picture.
    pub shape: [usize; 3],
    /// Names of the classes, ascending.
    pub classes: Vec<String>,
    /// Names of the owners, ascending; empty when the layout names none.
    pub clients: Vec<String>,
    /// For training.
    pub train: Pictures,
    /// For testing; may be empty.
    pub test: Pictures,
}

/// Names in a folder, in byte order; hidden ones left out.
fn names(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io("listing", folder))? {
        let name = entry.map_err(io("listing", folder))?.file_name();
        let Some(name) = name.to_str() else {
            return Err(malformed(
                &folder.display().to_string(),
                "folder",
                "a name that is not UTF-8",
                "UTF-8 names",
                "rename it",
            ));
        };
        if !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn classes_in(
    folder: &Path,
    client: Option<&str>,
    test: bool,
    into: &mut Vec<Entry>,
) -> Result<(), DatasetError> {
    for class in names(folder)? {
        let path = folder.join(&class);
        if !path.is_dir() {
            return Err(malformed(
                &path.display().to_string(),
                "folder layout",
                "a file",
                "a folder named for a class",
                "choose the `layout` that the folder has: classes, clients-classes or manifest",
            ));
        }
        for name in names(&path)? {
            let path = path.join(&name);
            if path
                .extension()
                .is_none_or(|extension| !extension.eq_ignore_ascii_case("png"))
            {
                return Err(malformed(
                    &path.display().to_string(),
                    "folder layout",
                    "something that is no PNG",
                    "pictures named *.png",
                    "convert the pictures to PNG and keep nothing else in the folder",
                ));
            }
            into.push(Entry {
                path,
                class: class.clone(),
                client: client.map(str::to_owned),
                test,
            });
        }
    }
    Ok(())
}

fn walk(folder: &Path, layout: FolderLayout) -> Result<Vec<Entry>, DatasetError> {
    let splits = [(folder.join("train"), false), (folder.join("test"), true)];
    let splits = if splits.iter().all(|(path, _)| path.is_dir()) {
        splits.to_vec()
    } else {
        vec![(folder.to_owned(), false)]
    };
    let mut entries = Vec::new();
    for (root, test) in splits {
        if layout == FolderLayout::Classes {
            classes_in(&root, None, test, &mut entries)?;
            continue;
        }
        for client in names(&root)? {
            classes_in(&root.join(&client), Some(&client), test, &mut entries)?;
        }
    }
    Ok(entries)
}

fn manifest(folder: &Path) -> Result<Vec<Entry>, DatasetError> {
    let path = folder.join("manifest.csv");
    let file = path.display().to_string();
    let text = read::text(&file, read::file(&path)?)?;
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines
        .next()
        .map_or("", |(_, line)| line)
        .split(',')
        .collect();
    let column = |name: &str| header.iter().position(|column| column.trim() == name);
    let (Some(file_column), Some(label_column)) = (column("file"), column("label")) else {
        return Err(malformed(
            &file,
            "line 1",
            shown(&header.join(",")),
            "the columns `file` and `label`",
            "start the manifest with `file,label` or `file,label,client,split`",
        ));
    };
    let (client_column, split_column) = (column("client"), column("split"));
    let mut entries = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("line {}", number + 1);
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != header.len() {
            return Err(malformed(
                &file,
                place(),
                format!("{} fields", fields.len()),
                format!("{} fields, as in the header", header.len()),
                "separate fields by commas; names hold no commas",
            ));
        }
        let test = match split_column.map_or("train", |at| fields[at]) {
            "train" => false,
            "test" => true,
            other => {
                return Err(malformed(
                    &file,
                    place(),
                    format!("split {}", shown(other)),
                    "`train` or `test`",
                    "mend the manifest",
                ));
            }
        };
        let relative = Path::new(fields[file_column]);
        let inside = |part: std::path::Component<'_>| {
            matches!(
                part,
                std::path::Component::Normal(_) | std::path::Component::CurDir
            )
        };
        if !relative.components().all(inside) {
            return Err(malformed(
                &file,
                place(),
                format!("file {}", shown(fields[file_column])),
                "a path inside the folder",
                "give paths relative to the manifest, without `..`",
            ));
        }
        entries.push(Entry {
            path: folder.join(relative),
            class: fields[label_column].to_owned(),
            client: client_column.map(|at| fields[at].to_owned()),
            test,
        });
    }
    Ok(entries)
}

impl Folder {
    /// Reads every picture of `folder`.
    ///
    /// # Errors
    /// [`DatasetError`] when the layout is another, a picture is damaged or of another size, or
    /// there is none to train on.
    pub fn read(folder: &Path, layout: FolderLayout) -> Result<Self, DatasetError> {
        let entries = match layout {
            FolderLayout::Manifest => manifest(folder)?,
            FolderLayout::Classes | FolderLayout::ClientsClasses => walk(folder, layout)?,
        };
        let ranks = |values: std::collections::BTreeSet<&String>| -> BTreeMap<String, u32> {
            values.into_iter().cloned().zip(0..).collect()
        };
        let classes = ranks(entries.iter().map(|entry| &entry.class).collect());
        // Owners that only test are no clients.
        let clients = ranks(
            (entries.iter().filter(|entry| !entry.test))
                .filter_map(|entry| entry.client.as_ref())
                .collect(),
        );
        let mut shape: Option<([usize; 3], String)> = None;
        let (mut train, mut test) = (Pictures::default(), Pictures::default());
        for entry in &entries {
            let file = entry.path.display().to_string();
            let image = Image::png(&file, &read::file(&entry.path)?)?;
            let found = [image.height, image.width, image.channels];
            let (expected, first) = shape.get_or_insert_with(|| (found, file.clone()));
            if found != *expected {
                return Err(malformed(
                    &file,
                    "PNG header",
                    format!("height, width, channels {found:?}"),
                    format!("{expected:?}, as in {first}"),
                    "bring all pictures to one size and kind",
                ));
            }
            let into = if entry.test { &mut test } else { &mut train };
            into.data.extend_from_slice(&image.data);
            into.labels.push(classes[&entry.class]);
            if let Some(client) = &entry.client {
                let owner = clients.get(client).copied();
                into.groups.push(owner.unwrap_or(crate::table::MISSING));
            }
        }
        let Some((shape, _)) = shape.filter(|_| !train.labels.is_empty()) else {
            return Err(DatasetError::Empty {
                what: folder.display().to_string(),
                noun: "picture to train on",
                remedy: "put PNG pictures there, in the folder layout that `layout` names",
            });
        };
        Ok(Self {
            shape,
            classes: classes.into_keys().collect(),
            clients: clients.into_keys().collect(),
            train,
            test,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::image::tests::encode;

    fn put(folder: &Path, name: &str, value: u8, width: u32) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let data = vec![value; width as usize];
        let bytes = encode(width, 1, png::ColorType::Grayscale, &data);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_three_layouts() {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("b/1.png", 1),
            ("a/2.png", 2),
            ("a/0.png", 3),
            (".hidden", 0),
        ] {
            put(folder.path(), name, value, 2);
        }
        let read = Folder::read(folder.path(), FolderLayout::Classes).unwrap();
        assert_eq!(read.shape, [1, 2, 1]);
        assert_eq!(read.classes, ["a", "b"]);
        assert_eq!(read.train.data, [3, 3, 2, 2, 1, 1]);
        assert_eq!(read.train.labels, [0, 0, 1]);
        assert!(read.clients.is_empty() && read.train.groups.is_empty());

        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("train/z/a/1.png", 1),
            ("train/y/b/1.png", 2),
            ("test/z/b/1.png", 3),
        ] {
            put(folder.path(), name, value, 2);
        }
        let read = Folder::read(folder.path(), FolderLayout::ClientsClasses).unwrap();
        assert_eq!(read.clients, ["y", "z"]);
        assert_eq!(read.train.groups, [0, 1]);
        assert_eq!(read.train.labels, [1, 0]);
        assert_eq!(
            (&read.test.labels[..], &read.test.groups[..]),
            (&[1][..], &[1][..])
        );

        let manifest =
            "file,label,client,split\ntrain/z/a/1.png,cat,ann,train\ntest/z/b/1.png,dog,bob,test\n";
        std::fs::write(folder.path().join("manifest.csv"), manifest).unwrap();
        let read = Folder::read(folder.path(), FolderLayout::Manifest).unwrap();
        assert_eq!(read.classes, ["cat", "dog"]);
        assert_eq!(read.test.groups, [crate::table::MISSING]);
    }

    #[test]
    fn faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = |layout| {
            Folder::read(folder.path(), layout)
                .unwrap_err()
                .to_string()
                .replace(&folder.path().display().to_string(), "F")
        };
        assert!(message(FolderLayout::Classes).starts_with("F holds no picture to train on"));
        assert!(message(FolderLayout::Manifest).starts_with("reading F/manifest.csv"));
        put(folder.path(), "a/1.png", 0, 2);
        put(folder.path(), "a/2.png", 0, 3);
        assert_eq!(
            message(FolderLayout::Classes),
            "F/a/2.png, PNG header: found height, width, channels [1, 3, 1], expected [1, 2, 1], as in F/a/1.png; bring all pictures to one size and kind"
        );
        assert!(
            message(FolderLayout::ClientsClasses)
                .starts_with("F/a/1.png, folder layout: found a file")
        );
        std::fs::write(
            folder.path().join("manifest.csv"),
            "file,label\n../x.png,a\n",
        )
        .unwrap();
        assert!(message(FolderLayout::Manifest).contains("line 2: found file `../x.png`"));
    }
}
