//! How long partitions and the generation of clients take.
//!
//! ```text
//! cargo run --release -p fl-datasets --example speed
//! ```
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "an example prints times, and what it asks for is possible"
)]

use std::time::Instant;

use fl_core::{ClientId, Seed};
use fl_datasets::Rows;
use fl_datasets::generator::{ClientScratch, Generator as _};
use fl_datasets::partition::{
    AnyPartitioner, Dirichlet, DirichletSizes, Iid, LabelsPerClient, Partitioner as _,
    QuantityDirichlet, QuantityLogNormal, QuantityPowerLaw, Shards,
};
use fl_datasets::synthetic::{Synthetic, SyntheticConfig};

fn partitioners(clients: u64) -> Vec<(&'static str, AnyPartitioner)> {
    let min_examples = 1;
    let dirichlet = |sizes| Dirichlet {
        clients,
        alpha: 0.3,
        sizes,
        min_examples,
    };
    let shards = Shards {
        clients,
        shards_per_client: 2,
    };
    let labels = LabelsPerClient::equal(clients, 2);
    let quantity_dirichlet = QuantityDirichlet {
        clients,
        alpha: 0.5,
        min_examples,
    };
    let log_normal = QuantityLogNormal {
        clients,
        sigma: 1.0,
        min_examples,
    };
    let power_law = QuantityPowerLaw {
        clients,
        exponent: 1.0,
        min_examples,
    };
    vec![
        ("iid", Iid { clients }.into()),
        (
            "dirichlet, balanced",
            dirichlet(DirichletSizes::Balanced).into(),
        ),
        (
            "dirichlet, unbalanced",
            dirichlet(DirichletSizes::Unbalanced).into(),
        ),
        ("shards", shards.into()),
        ("labels-per-client", labels.into()),
        ("quantity-dirichlet", quantity_dirichlet.into()),
        ("quantity-log-normal", log_normal.into()),
        ("quantity-power-law", power_law.into()),
    ]
}

fn main() {
    println!("rows     clients  partition              ms");
    for (rows, clients) in [(60_000, 1000), (300_000, 150_000)] {
        let labels: Vec<u32> = (0..rows).map(|row| row * 7 % 10).collect();
        let data = Rows {
            len: labels.len(),
            labels: Some(&labels),
            classes: 10,
            groups: None,
        };
        for (name, partitioner) in partitioners(clients) {
            let start = Instant::now();
            partitioner.assign(&data, Seed(1)).unwrap();
            let took = start.elapsed().as_secs_f64() * 1e3;
            println!("{rows:7}  {clients:7}  {name:21}  {took:.1}");
        }
    }
    let config = SyntheticConfig {
        clients: 1_000_000,
        examples_per_client: Some(10),
        ..SyntheticConfig::default()
    };
    let synthetic = Synthetic::new(&config, Seed(1)).unwrap();
    let mut scratch = ClientScratch::default();
    let (clients, mut examples) = (5000, 0);
    let start = Instant::now();
    for client in 0..clients {
        let view = synthetic.train(ClientId(client * 199), &mut scratch);
        examples += view.classes.len();
    }
    let each = start.elapsed().as_secs_f64() / clients as f64 * 1e6;
    println!(
        "synthetic: {each:.2} us for a client of {} examples",
        examples / clients as usize
    );
}
