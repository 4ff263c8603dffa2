//! Helpers for tests that need the real data sets.

use crate::root::{DataRoot, VARIABLE};

/// The folder of the real data sets, for tests.
///
/// Without `FLEDGLING_DATA_DIR` a test says that it skips and returns; where `CI` is set it
/// fails instead, so that nothing is skipped silently there.
///
/// # Panics
/// When `CI` is set and `FLEDGLING_DATA_DIR` is not, or names no folder.
#[must_use]
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub fn data_root() -> Option<DataRoot> {
    let folder = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let found = folder.filter(|folder| std::path::Path::new(folder).is_dir());
    if found.is_none() {
        let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        assert!(
            !in_ci,
            "{VARIABLE} names no folder, and tests never skip where CI is set"
        );
        eprintln!("skipped: {VARIABLE} names no folder of data sets");
    }
    found.map(DataRoot::new)
}
