//! Fits the rates of the embedded device profiles anew to the published times that are marked as
//! fitted (`edge/profiles/published.toml`) and writes the profiles back, in the form that
//! `device::catalogue::write` has.
//!
//! `cargo run --release -p fl-edge --features profiles --example refit`
#![expect(clippy::print_stdout, reason = "a program to be run by hand")]

use std::error::Error;
use std::path::Path;

use fl_edge::device::{DelegateKind, catalogue, published};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let mut profiles = Vec::new();
    for (name, _) in catalogue::PROFILES {
        let path = folder.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path)?;
        let mut profile = catalogue::parse(&text, &path.display().to_string())?;
        if let Some(fitted) = published::refitted(&profile, DelegateKind::Cpu)? {
            profile.cpu = fitted;
        }
        if let Some(fitted) = published::refitted(&profile, DelegateKind::Gpu)? {
            profile.gpu = Some(fitted);
        }
        std::fs::write(&path, catalogue::write(&profile))?;
        profiles.push(profile);
    }
    let checks = published::checks(&profiles)?;
    for check in &checks {
        println!(
            "{:<18} {} {:<4} {} {:<13} {} {:>9.2} {:>9.2} {:>+6.1} %",
            check.device,
            check.delegate.name(),
            check.precision.name(),
            if check.one_thread { "1" } else { "n" },
            check.network,
            if check.fitted { "fitted  " } else { "held out" },
            check.published_ms,
            check.modelled_ms,
            100.0 * check.error
        );
    }
    for fitted in [true, false] {
        let some = checks
            .iter()
            .filter(|check| check.fitted == fitted && !check.training);
        let count = some.clone().count();
        if let Some(median) = published::median_error(some) {
            println!(
                "fitted {fitted}: {count} times, median error {:.1} %",
                100.0 * median
            );
        }
    }
    Ok(())
}
