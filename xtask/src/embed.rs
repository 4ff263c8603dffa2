//! Writes the data that are part of the program, from their original files.
//!
//! Originals may lie in `FROM/SET/FILE` or `FROM/FILE`, gzipped in any way: their *contents* are
//! checked against recorded SHA-256, so the files of the Debian package `dataset-fashion-mnist`
//! serve as well as those of the first distribution. The output depends on nothing else.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Training and test images that are kept: the first ones.
const TRAIN_ROWS: u32 = 10_000;
const TEST_ROWS: u32 = 2_000;

/// An original file and what becomes of it.
struct Original {
    set: &'static str,
    file: &'static str,
    /// SHA-256 of the contents.
    sha256: &'static str,
    /// Rows to keep of an IDX file; all of another.
    rows: Option<u32>,
    output: &'static str,
}

#[rustfmt::skip]
const ORIGINALS: [Original; 7] = [
    Original {
        set: "adult", file: "adult.data.gz", rows: None, output: "adult.data.gz",
        sha256: "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    },
    Original {
        set: "adult", file: "adult.test.gz", rows: None, output: "adult.test.gz",
        sha256: "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    },
    Original {
        set: "digits", file: "digits.csv.gz", rows: None, output: "digits.csv.gz",
        sha256: "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
    },
    Original {
        set: "fashion-mnist", file: "t10k-images-idx3-ubyte.gz", rows: Some(TEST_ROWS),
        output: "fashion-mini-test-images.idx.gz",
        sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    },
    Original {
        set: "fashion-mnist", file: "t10k-labels-idx1-ubyte.gz", rows: Some(TEST_ROWS),
        output: "fashion-mini-test-labels.idx.gz",
        sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    Original {
        set: "fashion-mnist", file: "train-images-idx3-ubyte.gz", rows: Some(TRAIN_ROWS),
        output: "fashion-mini-train-images.idx.gz",
        sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    },
    Original {
        set: "fashion-mnist", file: "train-labels-idx1-ubyte.gz", rows: Some(TRAIN_ROWS),
        output: "fashion-mini-train-labels.idx.gz",
        sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    },
];

/// Reads the originals below `source` and writes the packed files and `SHA256SUMS` into `into`.
pub(crate) fn run(source: &Path, into: &Path) -> Result<()> {
    let mut sums = String::new();
    for original in &ORIGINALS {
        let mut contents = original.read(source)?;
        if let Some(rows) = original.rows {
            first_rows(&mut contents, rows)
                .with_context(|| format!("{} is no IDX file", original.file))?;
        }
        let packed = pack(&contents)?;
        let path = into.join(original.output);
        fs::write(&path, &packed).with_context(|| format!("writing {}", path.display()))?;
        writeln!(sums, "{}  {}", sha256(&packed), original.output)?;
        println!("{:>9} bytes  {}", packed.len(), path.display());
    }
    let path = into.join("SHA256SUMS");
    fs::write(&path, sums).with_context(|| format!("writing {}", path.display()))
}

impl Original {
    fn read(&self, source: &Path) -> Result<Vec<u8>> {
        let places = [
            source.join(self.set).join(self.file),
            source.join(self.file),
        ];
        let Some(path) = places.iter().find(|path| path.exists()) else {
            bail!(
                "neither {} nor {} is there; give the folder of the original files",
                places[0].display(),
                places[1].display()
            );
        };
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut contents = Vec::new();
        GzDecoder::new(&bytes[..])
            .read_to_end(&mut contents)
            .with_context(|| format!("unpacking {}", path.display()))?;
        let found = sha256(&contents);
        ensure!(
            found == self.sha256,
            "the contents of {} have SHA-256 {found} where {} is expected; get the original file",
            path.display(),
            self.sha256
        );
        Ok(contents)
    }
}

/// Cuts an IDX file of bytes to its first `rows` rows.
fn first_rows(contents: &mut Vec<u8>, rows: u32) -> Result<()> {
    let &[0, 0, 8, dimensions, ..] = &contents[..] else {
        bail!("its magic is another");
    };
    let header = 4 + 4 * usize::from(dimensions);
    ensure!(
        dimensions > 0 && contents.len() >= header,
        "it is too short"
    );
    let sizes = contents[4..header].chunks_exact(4);
    let sizes: Vec<u32> = sizes
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    ensure!(rows <= sizes[0], "it holds {} rows", sizes[0]);
    let width: usize = sizes[1..].iter().map(|&size| size as usize).product();
    contents.truncate(header + rows as usize * width);
    contents[4..8].copy_from_slice(&rows.to_be_bytes());
    Ok(())
}

/// Gzip at the best level, without name or time.
fn pack(contents: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents)?;
    Ok(encoder.finish()?)
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_counted() {
        let mut file = [
            &[0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2][..],
            &[1, 2, 3, 4, 5, 6],
        ]
        .concat();
        first_rows(&mut file, 2).unwrap();
        assert_eq!(file, [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4]);
        assert!(first_rows(&mut file, 3).is_err());
        assert!(first_rows(&mut b"PNG".to_vec(), 1).is_err());
    }
}
