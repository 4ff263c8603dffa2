//! `[dataset] name = "synthetic"`: the generator of [`crate::synthetic`].

use crate::config::Key;
use crate::dataset::FederatedDataset;
use crate::error::DatasetError;
use crate::sets::{Loaded, Request, Set};
use crate::synthetic::{Synthetic, SyntheticConfig};

/// `[dataset] name = "synthetic"`.
pub(super) static SET: Set = Set {
    name: "synthetic",
    summary: "Synthetic(alpha, beta) of the FedProx paper, generated",
    keys: &[
        Key {
            name: "alpha",
            meaning: "how much the clients' models differ; 1 when left out",
        },
        Key {
            name: "beta",
            meaning: "how much the clients' inputs differ; 1 when left out",
        },
        Key {
            name: "clients",
            meaning: "number of clients; 30 when left out",
        },
        Key {
            name: "iid",
            meaning: "one model and one input distribution for all",
        },
        Key {
            name: "examples_per_client",
            meaning: "the same number of examples on every client; log-normal when left out",
        },
        Key {
            name: "holdout",
            meaning: "share of each client's examples kept for its own test; 0.1 when left out",
        },
    ],
    entry: None,
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let defaults = SyntheticConfig::default();
    let generator = Synthetic::new(
        &SyntheticConfig {
            alpha: config.alpha,
            beta: config.beta,
            clients: config.clients.unwrap_or(defaults.clients),
            iid: config.iid.unwrap_or(defaults.iid),
            examples_per_client: config.examples_per_client,
            holdout: config.holdout.unwrap_or(defaults.holdout),
        },
        request.seed,
    )?;
    let mut about = SET.about();
    about.citation = Some("Li et al. 2020 (FedProx, arXiv:1812.06127), section 5.1".to_owned());
    Ok(Loaded::Population(FederatedDataset::generated(
        about,
        Box::new(generator),
    )))
}
