//! `verify` through the program: what was recorded comes out again, and nothing that was tampered
//! with passes.

use std::fs;
use std::sync::Arc;

use crate::support::{World, files};
use fl_edge::file::{ModelFile, write_parameters};
use sha2::{Digest as _, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces text in a manifest and puts its checksum right again.
fn forge(manifest: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = core::str::from_utf8(manifest).unwrap();
    assert!(text.contains(from), "{from}");
    let forged = text.replacen(from, to, 1);
    let line = "# sha256 of all lines above: ";
    let (body, _) = forged.rsplit_once(line).unwrap();
    let sum = hex(&Sha256::digest(body.as_bytes()));
    format!("{body}{line}{sum}\n").into_bytes()
}

#[test]
fn untouched_results_pass_whole_and_in_part() {
    let world = World::new(9);
    world.succeed("run small.toml --out out");
    let text = world.succeed("verify out");
    assert_eq!(
        text,
        "fedavg: 9 rounds, 3 evaluations, 60 clients, the model: every bit the same\n\
         fedprox: 9 rounds, 3 evaluations, 60 clients, the model: every bit the same\n\
         identical\n"
    );
    let text = world.succeed("verify out --rounds 4 --threads 2");
    assert!(text.starts_with("fedavg: 4 rounds, 1 evaluations: every bit the same\n"));
    assert_eq!(
        world.succeed("verify out --rounds 0"),
        "the files are as they were written\n"
    );
    let text = world.succeed("verify out/fedprox --json");
    assert!(text.contains("\"identical\":true"), "{text}");
    assert!(!text.contains("fedavg"), "{text}");
}

#[test]
fn a_flipped_bit_in_any_file_is_found() {
    let world = World::new(2);
    world.succeed("run small.toml --out out");
    let out = world.path("out");
    let mut seed = 1u64;
    for (name, bytes) in files(&out) {
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bit = (seed >> 20) as usize % (bytes.len() * 8);
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(out.join(&name), &damaged).unwrap();
            let text = world.end_with(1, "verify out");
            assert!(
                text.contains(&name) && text.contains("nothing was run"),
                "{name}: {text}"
            );
        }
        fs::remove_file(out.join(&name)).unwrap();
        let text = world.end_with(1, "verify out");
        assert!(
            text.contains(&format!("{name} could not be read: "))
                || name == "manifest.toml" && text.contains("out holds no results"),
            "{name}: {text}"
        );
        fs::write(out.join(&name), &bytes).unwrap();
    }
    world.succeed("verify out");
}

#[test]
fn a_forgery_with_right_checksums_is_found_by_running_again() {
    let world = World::new(4);
    world.succeed("run small.toml --out out");
    let path = world.path("out/manifest.toml");
    let manifest = fs::read(&path).unwrap();

    // Another learning rate than the one that made the records.
    fs::write(
        &path,
        forge(&manifest, "learning_rate = 0.1", "learning_rate = 0.2"),
    )
    .unwrap();
    let text = world.end_with(1, "verify out");
    assert!(
        text.contains("fedavg: the global model, round 0, fc.weight: recorded "),
        "{text}"
    );
    assert!(text.contains("fedprox: 4 rounds, "), "{text}");
    assert!(text.ends_with("not identical\n"), "{text}");

    // Other data.
    let digest = core::str::from_utf8(&manifest)
        .unwrap()
        .split("digest = \"")
        .nth(2)
        .unwrap();
    let digest = &digest[..64];
    fs::write(&path, forge(&manifest, digest, &"0".repeat(64))).unwrap();
    let text = world.end_with(1, "verify out --rounds 1");
    assert!(
        text.contains("fedavg: data, digest: recorded 0000"),
        "{text}"
    );

    // Another model, one bit away.
    let model_path = world.path("out/fedprox/model.safetensors");
    let model = fs::read(&model_path).unwrap();
    let file = ModelFile::open(Arc::new(model.clone())).unwrap();
    let mut parameters = file.parameters().unwrap();
    let last = parameters.values_mut().last_mut().unwrap();
    *last = f32::from_bits(last.to_bits() ^ 1);
    let mut changed = Vec::new();
    write_parameters(file.model(), &parameters, &mut changed).unwrap();
    let sum = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    fs::write(&model_path, &changed).unwrap();
    fs::write(&path, forge(&manifest, &sum(&model), &sum(&changed))).unwrap();
    let text = world.end_with(1, "verify out");
    assert!(text.contains("fedprox: model, "), "{text}");
    assert!(
        text.contains("fedavg: 4 rounds, 2 evaluations, 60 clients, the model"),
        "{text}"
    );
}

#[test]
fn a_folder_without_results_is_named() {
    let world = World::new(1);
    fs::create_dir(world.path("empty")).unwrap();
    for command in ["verify empty", "plot empty", "compare empty empty"] {
        let text = world.end_with(1, command);
        assert_eq!(
            text,
            "error: empty holds no results: there is no manifest.toml in it; name a folder that \
             `fledgling run` wrote, e.g. results/quickstart\n"
        );
    }
    world.succeed("run small.toml --out out --no-plots");
    let text = world.end_with(1, "plot out/fedex");
    assert_eq!(
        text,
        "error: out has no variant `fedex`; it has `fedavg`, `fedprox`\n"
    );
}
