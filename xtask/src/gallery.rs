//! The gallery: every picture of `docs/gallery.md` made again by the command that stands over it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, root, run};

/// The page, and where its pictures lie beside it.
const PAGE: &str = "docs/gallery.md";
const PICTURES: &str = "images/gallery/";

/// What the chore does with a picture that differs.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Replace the pictures of the page by those that were made, in place of comparing them.
    #[arg(long)]
    write: bool,
}

/// A piece of the page, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// Commands for a shell.
    Commands(String),
    /// The name of a picture that the commands before it have drawn.
    Picture(String),
}

/// Runs the page's commands in an empty folder and compares the pictures bit for bit.
pub(crate) fn make(options: &Options) -> Result<()> {
    let programs = process::build()?;
    let page = std::fs::read_to_string(root().join(PAGE))?;
    let pieces = pieces(&page);
    if pieces.is_empty() {
        bail!("`{PAGE}` holds no commands");
    }
    let work = tempfile::tempdir()?;
    copy_experiments(work.path())?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(paths)?;
    let mut differ = Vec::new();
    for piece in &pieces {
        match piece {
            Piece::Commands(commands) => {
                let mut shell = Command::new("bash");
                shell.args(["-euo", "pipefail", "-c", commands]);
                // The pictures are of the data in the program, whatever else is on this machine.
                shell.env_remove("FLEDGLING_DATA_DIR");
                run(shell.current_dir(work.path()).env("PATH", &path))?;
            }
            Piece::Picture(name) => {
                let made = work.path().join("plots").join(name);
                let made = std::fs::read(&made)
                    .with_context(|| format!("no command of `{PAGE}` drew plots/{name}"))?;
                let kept = root().join("docs").join(PICTURES).join(name);
                if std::fs::read(&kept).ok().as_ref() != Some(&made) {
                    differ.push(name.as_str());
                    if options.write {
                        std::fs::create_dir_all(kept.parent().unwrap_or(&kept))?;
                        std::fs::write(&kept, made)?;
                    }
                }
            }
        }
    }
    match (differ.as_slice(), options.write) {
        ([], _) => println!("every picture of `{PAGE}` is what its command draws"),
        (names, true) => println!("written: {}", names.join(", ")),
        (names, false) => bail!(
            "not what the commands of `{PAGE}` draw: {}; look at them, and run `cargo xtask gallery --write` if they are right",
            names.join(", ")
        ),
    }
    Ok(())
}

/// The commands in fences marked `sh`, and the pictures.
fn pieces(page: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut commands: Option<String> = None;
    for line in page.lines() {
        match (&mut commands, line) {
            (None, "```sh") => commands = Some(String::new()),
            (Some(text), "```") => {
                pieces.push(Piece::Commands(core::mem::take(text)));
                commands = None;
            }
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, line) => {
                let after = line.split_once(PICTURES).filter(|_| line.starts_with("!["));
                let name = after.and_then(|(_, rest)| rest.split_once(')'));
                pieces.extend(name.map(|(name, _)| Piece::Picture(name.to_owned())));
            }
        }
    }
    pieces
}

/// The page's commands name files of `experiments/`.
fn copy_experiments(work: &Path) -> Result<()> {
    let folder = work.join("experiments");
    std::fs::create_dir(&folder)?;
    for entry in std::fs::read_dir(root().join("experiments"))? {
        let path = entry?.path();
        if let (Some("toml"), Some(name)) = (
            path.extension().and_then(|end| end.to_str()),
            path.file_name(),
        ) {
            std::fs::copy(&path, folder.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_pictures_are_found_in_order() {
        let page = "# A\n```toml\nx = 1\n```\n```sh\nrun a\nplot a\n```\ntext\n\n![What](images/gallery/a.svg)\n![other](images/b.svg)\n";
        assert_eq!(
            pieces(page),
            [
                Piece::Commands("run a\nplot a\n".to_owned()),
                Piece::Picture("a.svg".to_owned())
            ]
        );
    }
}
