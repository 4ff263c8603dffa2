//! A target under libFuzzer, chosen by the environment variable `FUZZ_TARGET`.
#![no_main]

use std::sync::LazyLock;

use fl_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET is `{name}`; set it to one of {names:?}")
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
