use fl_core::{InputsMut, TargetsMut};

use super::*;
use crate::partition::{Natural, PartitionConfig};
use crate::sets::Owners;
use crate::synthetic::{Synthetic, SyntheticConfig};

fn generated(clients: u64, examples: u64, holdout: f64) -> FederatedDataset {
    let config = SyntheticConfig {
        clients,
        examples_per_client: Some(examples),
        holdout,
        ..SyntheticConfig::default()
    };
    let generator = Synthetic::new(&config, Seed(1)).unwrap();
    FederatedDataset::generated(About::default(), Box::new(generator))
}

fn all(examples: &dyn Examples) -> (Vec<f32>, Vec<u32>) {
    let rows: Vec<u32> = (0..examples.len() as u32).collect();
    let mut inputs = vec![0.0; rows.len() * examples.input().len()];
    let mut classes = vec![0; rows.len()];
    examples.fill(
        &rows,
        InputsMut::Real(&mut inputs),
        TargetsMut::Classes(&mut classes),
    );
    (inputs, classes)
}

#[test]
fn the_test_set_of_a_generated_population_is_its_clients_own() {
    let data = generated(7, 20, 0.1);
    let mut scratch = ClientScratch::default();
    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for client in (0..7).map(ClientId) {
        let (own_inputs, own_classes) = all(&data.client_test(client, &mut scratch).unwrap());
        inputs.extend(own_inputs);
        classes.extend(own_classes);
    }
    assert_eq!(classes.len(), 14);
    assert_eq!(all(data.test().unwrap()), (inputs, classes));
    // Too many examples to pool them all: the first 10,000, here of the first four clients.
    let data = generated(100, 30_000, 0.1);
    let test = data.test().unwrap();
    assert_eq!(test.len(), 10_000);
    let last = all(&data.client_test(ClientId(3), &mut scratch).unwrap());
    assert_eq!(all(test).1[9000..], last.1[..1000]);
    assert!(generated(1_000_000, 10, 0.0).test().is_none());
}

fn store(rows: usize, width: usize, classes: usize) -> Store {
    Store::new(
        "set",
        InputSpec::Real(vec![width]),
        TargetSpec::Class { classes },
        Inputs::Real(vec![0.5; rows * width]),
        Targets::Bytes(vec![0; rows]),
    )
    .unwrap()
}

#[test]
fn test_examples_that_do_not_fit_are_refused() {
    let divide = |test: Option<Store>, of_test: Option<Vec<u32>>| {
        let material = Material {
            about: About {
                name: "mine".to_owned(),
                ..About::default()
            },
            train: store(4, 2, 3),
            test,
            groups: Some(Owners {
                of: vec![0, 0, 1, 1],
                of_test,
                names: vec!["a".to_owned(), "b".to_owned()],
                noun: "writer",
            }),
            class_names: None,
        };
        let natural = PartitionConfig::Natural(Natural::default());
        let config = DatasetConfig::new("mine").with_partition(natural);
        FederatedDataset::divide(material, &config, Seed(1))
    };
    let data = divide(Some(store(2, 2, 3)), Some(vec![1, 1])).unwrap();
    assert_eq!(data.client_test_len(ClientId(1)), 2);
    assert!(divide(None, None).unwrap().test().is_none());
    type Case = (Option<Store>, Option<Vec<u32>>, &'static str);
    #[rustfmt::skip]
    let cases: [Case; 4] = [
        (Some(store(2, 1, 3)), None, "mine, test examples: found Real([1]), Class { classes: 3 }, expected Real([2]), Class { classes: 3 }, as in training; use training and test examples of one data set"),
        (Some(store(2, 2, 4)), None, "mine, test examples: found Real([2]), Class { classes: 4 }, expected Real([2]), Class { classes: 3 }, as in training; use training and test examples of one data set"),
        (Some(store(2, 2, 3)), Some(vec![0, 1, 1]), "mine (test) holds 2 examples and mine (owners of the test examples) holds 3; both must hold the same number, so use files of one release"),
        (None, Some(vec![0]), "mine (test) holds 0 examples and mine (owners of the test examples) holds 1; both must hold the same number, so use files of one release"),
    ];
    for (test, of_test, expected) in cases {
        assert_eq!(divide(test, of_test).unwrap_err().to_string(), expected);
    }
}
