use std::cell::RefCell;

use super::*;
use crate::catalogue::sha256;
use crate::read::tar::tests::archive;

/// How a fake server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Well,
    /// Breaks off with an error after so many bytes of a body.
    BreaksAfter(usize),
    /// Ends the body after so many bytes, as a closed connection does.
    EndsAfter(usize),
    /// Serves from the start whatever was asked.
    IgnoresRanges,
    /// Serves other bytes of the same length.
    Lies,
    /// Serves one byte more.
    TooLong,
    /// Starts one byte too far.
    Skips,
    /// Answers 404.
    Refuses,
}

struct Fake {
    contents: Vec<u8>,
    /// One per request; the last goes on.
    manners: Vec<Manner>,
    requests: RefCell<Vec<(String, u64)>>,
}

struct Breaking<'a> {
    bytes: &'a [u8],
    left: usize,
    broken: bool,
}

impl Read for Breaking<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.broken {
            return Err(std::io::Error::other("connection reset"));
        }
        // Odd sizes, so that nothing depends on whole chunks.
        let count = into.len().min(7).min(self.left).min(self.bytes.len());
        into[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        self.left -= count;
        Ok(count)
    }
}

impl Fake {
    fn new(contents: &[u8], manners: &[Manner]) -> Self {
        Self {
            contents: contents.to_vec(),
            manners: manners.to_vec(),
            requests: RefCell::default(),
        }
    }

    fn offsets(&self) -> Vec<u64> {
        self.requests
            .borrow()
            .iter()
            .map(|(_, offset)| *offset)
            .collect()
    }
}

impl Transport for Fake {
    fn open(&self, url: &str, offset: u64) -> Result<Body<'_>, String> {
        let request = self.requests.borrow().len();
        self.requests.borrow_mut().push((url.to_owned(), offset));
        let manner = self.manners[request.min(self.manners.len() - 1)];
        let rest = &self.contents[offset as usize..];
        let body = |start, bytes, left, broken| {
            Ok(Body {
                start,
                reader: Box::new(Breaking {
                    bytes,
                    left,
                    broken,
                }),
            })
        };
        match manner {
            Manner::Well => body(offset, rest, usize::MAX, false),
            Manner::BreaksAfter(left) => body(offset, rest, left, true),
            Manner::EndsAfter(left) => body(offset, rest, left, false),
            Manner::IgnoresRanges => body(0, &self.contents, usize::MAX, false),
            Manner::Skips => body(offset + 1, &rest[1..], usize::MAX, false),
            Manner::Refuses => Err("404 Not Found".to_owned()),
            Manner::TooLong => Ok(Body {
                start: offset,
                reader: Box::new(rest.chain(&b"!"[..])),
            }),
            Manner::Lies => Ok(Body {
                start: offset,
                reader: Box::new(std::io::repeat(b'x').take(rest.len() as u64)),
            }),
        }
    }
}

const CONTENTS: &[u8] = b"the contents of a file that is longer than one piece";

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn entry_of(files: Vec<CatalogueFile>) -> Entry {
    Entry {
        name: "made-up",
        title: "",
        shape: "",
        licence: "",
        citation: "",
        source: "",
        embedded: false,
        files: Box::leak(files.into_boxed_slice()),
    }
}

fn entry(origin: Origin) -> Entry {
    entry_of(vec![CatalogueFile {
        name: "a.bin",
        bytes: CONTENTS.len() as u64,
        sha256: leak(sha256(CONTENTS)),
        origin,
    }])
}

const TWO: Origin = Origin::Urls(&["https://one/a.bin", "https://two/a.bin"]);

fn root() -> (tempfile::TempDir, DataRoot) {
    let folder = tempfile::tempdir().unwrap();
    let root = DataRoot::new(folder.path().join("data"));
    (folder, root)
}

fn names(root: &DataRoot) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.path().join("made-up")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_download_is_installed_whole() {
    use Manner::*;
    // Manners in order of request; offsets that were asked for.
    let cases: &[(&[Manner], &[u64])] = &[
        (&[Well], &[0]),
        (&[BreaksAfter(20), Well], &[0, 20]),
        (&[EndsAfter(20), Well], &[0, 20]),
        (&[BreaksAfter(20), IgnoresRanges], &[0, 20]),
        (&[Refuses, Well], &[0, 0]),
        (&[Skips, Well], &[0, 0]),
        (&[TooLong, Well], &[0]),
        (&[Lies, Well], &[0, 0]),
    ];
    for (manners, offsets) in cases {
        let (_folder, root) = root();
        let (entry, fake) = (entry(TWO), Fake::new(CONTENTS, manners));
        let installed = fetch(&entry, &root, &fake, &mut |_| ());
        assert_eq!(installed.unwrap(), 1, "{manners:?}");
        assert_eq!(fake.offsets(), *offsets, "{manners:?}");
        assert_eq!(names(&root), ["a.bin"], "{manners:?}");
        assert_eq!(entry.read(&root, "a.bin").unwrap(), CONTENTS);
        // The second time nothing is asked.
        let mut present = 0;
        let again = fetch(&entry, &root, &fake, &mut |event| {
            present += usize::from(event == Event::Present { file: "a.bin" });
        });
        assert_eq!((again.unwrap(), present), (0, 1));
        assert_eq!(fake.offsets().len(), offsets.len());
    }
}

#[test]
fn the_next_call_goes_on() {
    let (_folder, root) = root();
    let entry = entry(Origin::Urls(&["https://one/a.bin"]));
    let fake = Fake::new(CONTENTS, &[Manner::BreaksAfter(10)]);
    for end in [10, 20, 30] {
        let error = fetch(&entry, &root, &fake, &mut |_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "https://one/a.bin, at byte {end}: connection reset; run the command again and it goes on from there, or import files at hand"
            )
        );
        assert_eq!(names(&root), ["a.bin.partial"]);
    }
    let well = Fake::new(CONTENTS, &[Manner::Well]);
    let mut events = Vec::new();
    fetch(&entry, &root, &well, &mut |event| {
        events.push(format!("{event:?}"))
    })
    .unwrap();
    assert_eq!(well.offsets(), [30]);
    assert_eq!(
        events,
        [
            "Started { url: \"https://one/a.bin\", from: 30, total: 52 }",
            "Progress { done: 52, total: 52 }",
            "Installed { file: \"a.bin\" }"
        ]
    );
}

#[test]
fn a_wrong_beginning_is_thrown_away_once() {
    let (_folder, root) = root();
    let entry = entry(Origin::Urls(&["https://one/a.bin"]));
    let partial = root.path().join("made-up").join("a.bin.partial");
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, b"another file's beginning").unwrap();
    let fake = Fake::new(CONTENTS, &[Manner::Well]);
    fetch(&entry, &root, &fake, &mut |_| ()).unwrap();
    assert_eq!(fake.offsets(), [24, 0]);
    // Longer than the file can be.
    std::fs::remove_file(root.path().join("made-up").join("a.bin")).unwrap();
    std::fs::write(&partial, [0; 100]).unwrap();
    fetch(&entry, &root, &fake, &mut |_| ()).unwrap();
    assert_eq!(names(&root), ["a.bin"]);
}

#[test]
fn another_file_is_refused_and_removed() {
    let (_folder, root) = root();
    let fake = Fake::new(CONTENTS, &[Manner::Lies]);
    let error = fetch(&entry(TWO), &root, &fake, &mut |_| ()).unwrap_err();
    assert!(matches!(error, DatasetError::Checksum { .. }), "{error}");
    assert!(names(&root).is_empty());
    let urls: Vec<String> = fake
        .requests
        .borrow()
        .iter()
        .map(|(url, _)| url.clone())
        .collect();
    assert_eq!(urls, ["https://one/a.bin", "https://two/a.bin"]);
}

#[test]
fn import_only_is_said_at_once() {
    let (_folder, root) = root();
    let fake = Fake::new(CONTENTS, &[Manner::Well]);
    let error = fetch(
        &entry(Origin::ImportOnly("it is rare")),
        &root,
        &fake,
        &mut |_| (),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "`a.bin` of data set `made-up` can only be imported: it is rare; get it by hand and use `data import made-up PATH`"
    );
    assert!(fake.offsets().is_empty());
}

#[test]
fn archives_are_unpacked() {
    let packed = archive(&[
        ("dir/readme", b"hi"),
        ("dir/a.bin", CONTENTS),
        ("dir/b.bin", b"b"),
    ]);
    let member = |name: &'static str, contents: &[u8], member| CatalogueFile {
        name,
        bytes: contents.len() as u64,
        sha256: leak(sha256(contents)),
        origin: Origin::Archive {
            url: "https://one/x.tar.gz",
            bytes: packed.len() as u64,
            sha256: leak(sha256(&packed)),
            member,
        },
    };
    let entry = entry_of(vec![
        member("a.bin", CONTENTS, "dir/a.bin"),
        member("b.bin", b"b", "dir/b.bin"),
    ]);
    let (_folder, root) = root();
    let fake = Fake::new(&packed, &[Manner::BreaksAfter(50), Manner::Well]);
    assert!(fetch(&entry, &root, &fake, &mut |_| ()).is_err());
    assert_eq!(fetch(&entry, &root, &fake, &mut |_| ()).unwrap(), 2);
    assert_eq!(fake.offsets(), [0, 50]);
    assert_eq!(names(&root), ["a.bin", "b.bin"]);
    assert_eq!(entry.presence(&root), Presence::Present);
    // An archive that lacks a file.
    let entry = entry_of(vec![member("c.bin", b"c", "dir/c.bin")]);
    let fake = Fake::new(&packed, &[Manner::Well]);
    let message = fetch(&entry, &root, &fake, &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("members: found no c.bin of 1 bytes"),
        "{message}"
    );
}

#[test]
fn files_at_hand_are_imported() {
    let (folder, root) = root();
    let entry = entry(Origin::ImportOnly("it is rare"));
    let hand = folder.path().join("hand");
    std::fs::create_dir_all(hand.join("made-up")).unwrap();
    let message = |from: &Path| {
        let error = import(&entry, &root, from, &mut |_| ())
            .unwrap_err()
            .to_string();
        error.replace(&folder.path().display().to_string(), "F")
    };
    assert_eq!(
        message(&hand),
        "F/hand/a.bin of data set `made-up` is not there; give the folder that holds a.bin, or the file itself"
    );
    let file = hand.join("made-up").join("a.bin");
    std::fs::write(&file, b"wrong").unwrap();
    assert!(message(&hand).starts_with("F/hand/made-up/a.bin has SHA-256 8810ad58"));
    assert!(names(&root).is_empty());
    std::fs::write(&file, CONTENTS).unwrap();
    assert_eq!(import(&entry, &root, &hand, &mut |_| ()).unwrap(), 1);
    assert_eq!(names(&root), ["a.bin"]);
    assert_eq!(import(&entry, &root, &hand, &mut |_| ()).unwrap(), 0);
    std::fs::remove_file(root.path().join("made-up").join("a.bin")).unwrap();
    assert_eq!(import(&entry, &root, &file, &mut |_| ()).unwrap(), 1);
}

#[test]
fn read_only_originals_do_not_stand_in_the_way() {
    let (folder, root) = root();
    let entry = entry(Origin::ImportOnly("it is rare"));
    let file = folder.path().join("a.bin");
    std::fs::write(&file, CONTENTS).unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&file, permissions).unwrap();
    assert_eq!(import(&entry, &root, &file, &mut |_| ()).unwrap(), 1);
    let place = root.path().join("made-up").join("a.bin");
    std::fs::remove_file(&place).unwrap();
    assert_eq!(import(&entry, &root, &file, &mut |_| ()).unwrap(), 1);
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let fake = Fake::new(CONTENTS, &[Manner::Well]);
    let error = fetch(&entry(TWO), &DataRoot::new(&file), &fake, &mut |_| ()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, DatasetError::Io { .. }), "{message}");
}

#[test]
fn embedded_sets_are_inspected() {
    let root = DataRoot::new("/nowhere");
    let digits = inspect(crate::catalogue::get("digits").unwrap(), &root).unwrap();
    let summary = digits.summary.unwrap();
    assert_eq!(
        (summary.train_examples, summary.natural_clients),
        (Some(1437), 0)
    );
    assert_eq!(digits.label_counts.unwrap().iter().sum::<u64>(), 1437);
    let adult = inspect(crate::catalogue::get("adult").unwrap(), &root).unwrap();
    assert_eq!(adult.summary.unwrap().natural_clients, 15);
    let mnist = inspect(crate::catalogue::get("mnist").unwrap(), &root).unwrap();
    assert_eq!(
        (mnist.presence, mnist.summary),
        (Presence::Missing(5), None)
    );
}
