//! Results made up for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::results::{
    Cell, ColumnKind, DatasetFacts, Manifest, Results, Row, Status, VariantManifest, VariantResults,
};

/// A row in which everything is zero or nothing.
pub(crate) fn blank<R: Row>() -> R {
    let cells = R::COLUMNS.iter().map(|(_, kind)| match kind {
        ColumnKind::Count => Cell::Count(0),
        ColumnKind::Real => Cell::Real(Some(0.0)),
        ColumnKind::OptionalReal => Cell::Real(None),
        ColumnKind::Text => Cell::Text(String::new()),
    });
    R::from_cells(&cells.collect::<Vec<_>>()).unwrap()
}

/// A finished variant of this configuration, without any row.
pub(crate) fn variant(name: &str, config: &str) -> VariantResults {
    let config: toml::Table = config.parse().unwrap();
    let seed = config.get("seed").and_then(toml::Value::as_integer);
    VariantResults {
        manifest: VariantManifest {
            name: name.to_owned(),
            status: Status::Finished,
            rounds_done: 0,
            seed: seed.unwrap_or(1).cast_unsigned(),
            parameters: 1,
            model_digest: None,
            dataset: DatasetFacts {
                name: "digits".to_owned(),
                clients: 9,
                classes: None,
                digest: String::new(),
            },
            teacher: None,
            config,
        },
        rounds: Vec::new(),
        evaluations: Vec::new(),
        clients: Vec::new(),
        partition: Vec::new(),
        privacy: Vec::new(),
        secagg: Vec::new(),
        groups: Vec::new(),
        patches: Vec::new(),
        pruning: Vec::new(),
        fleet: Vec::new(),
        timeline: Vec::new(),
        rollout: Vec::new(),
        regions: Vec::new(),
        faults: Vec::new(),
        tensors: Vec::new(),
        timing: Vec::new(),
    }
}

/// The results of an experiment in a folder, without any file.
pub(crate) fn results(path: &str, name: &str, variants: Vec<VariantResults>) -> Results {
    Results {
        path: PathBuf::from(path),
        manifest: Manifest {
            format: 1,
            name: name.to_owned(),
            program: "fledgling 0.1.0".to_owned(),
            files: BTreeMap::new(),
            variants: variants.iter().map(|one| one.manifest.clone()).collect(),
        },
        host: None,
        variants,
    }
}
