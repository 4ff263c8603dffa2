//! A large model file opens at once and takes memory only where it is read. Alone in its process,
//! as it measures the process.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fl_core::{InputSpec, Parameters, TargetSpec};
use fl_edge::file::{Mapped, ModelFile, write_parameters};
use fl_edge::layer::{DenseDef, LayerDef};
use fl_edge::{LayersDef, Model, ModelDef};

/// Resident bytes of the process, where the system tells them.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// 100 MB: 25 million parameters.
fn large() -> Model {
    let def = ModelDef::Layers(LayersDef {
        layer: vec![LayerDef::Dense(DenseDef::output())],
        loss: None,
    });
    let target = TargetSpec::Class { classes: 5000 };
    Model::new(&def, &InputSpec::Real(vec![5000]), target).expect("a model")
}

#[test]
fn a_large_file_opens_at_once() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mapped-large.safetensors");
    {
        let model = large();
        let mut parameters = Parameters::zeros(Arc::clone(model.layout()));
        for (index, value) in parameters.values_mut().iter_mut().enumerate() {
            *value = index as f32;
        }
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        write_parameters(&model, &parameters, &mut file).unwrap();
        file.flush().unwrap();
    }
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let before = resident();
        #[expect(clippy::disallowed_methods, reason = "the time is what is tested")]
        let begin = Instant::now();
        let file = ModelFile::open(Arc::new(Mapped::open(&path).unwrap())).unwrap();
        best = best.min(begin.elapsed());
        let values = file.values().expect("aligned");
        assert_eq!(values.len(), 25_005_000);
        if let (Some(before), Some(after)) = (before, resident()) {
            let grown = after.saturating_sub(before);
            println!(
                "opened {} bytes: {grown} bytes of resident growth",
                file.len()
            );
            assert!(grown < 4 << 20, "{grown} bytes");
        }
        // One number brings in a page and those around it, not the file.
        assert_eq!(values[20_000_000].to_bits(), 20_000_000_f32.to_bits());
        if let (Some(before), Some(after)) = (before, resident()) {
            assert!(after.saturating_sub(before) < 8 << 20);
        }
    }
    std::fs::remove_file(&path).unwrap();
    println!("opened in {best:?}");
    assert!(best < Duration::from_millis(5), "{best:?}");
}
