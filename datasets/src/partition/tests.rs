use super::testing::{counts, labelled};
use super::*;
use crate::index::Groups;

fn unlabelled(len: usize) -> Rows<'static> {
    Rows {
        len,
        labels: None,
        classes: 0,
        groups: None,
    }
}

fn sizes(partitioner: &impl Partitioner, rows: usize, seed: u64) -> Vec<usize> {
    let index = partitioner.assign(&unlabelled(rows), Seed(seed)).unwrap();
    (0..index.clients() as u64)
        .map(|client| index.len_of(client))
        .collect()
}

#[test]
fn impossible_requests_say_what_to_change() {
    let labels = [0, 0, 0, 1, 1, 2];
    let of = [0, 0, 0, 1, 1, 3];
    let rows = Rows {
        len: 6,
        labels: Some(&labels),
        classes: 4,
        groups: Some(Groups {
            of: &of,
            count: 5,
            noun: "writer",
        }),
    };
    let bare = unlabelled(6);
    let none = unlabelled(0);
    let wrong = Rows {
        labels: Some(&[0, 9]),
        len: 2,
        ..rows
    };
    let short = Rows {
        labels: Some(&[0]),
        len: 2,
        ..rows
    };
    let strangers = Rows {
        len: 2,
        groups: Some(Groups {
            of: &[0, 7],
            count: 5,
            noun: "writer",
        }),
        ..unlabelled(2)
    };
    let dirichlet = |clients, alpha, sizes, min_examples| {
        AnyPartitioner::from(Dirichlet {
            clients,
            alpha,
            sizes,
            min_examples,
        })
    };
    let natural = |clients, min_examples| {
        AnyPartitioner::from(Natural {
            clients,
            min_examples,
        })
    };
    use DirichletSizes::{Balanced, Unbalanced};
    #[rustfmt::skip]
    let cases: Vec<(AnyPartitioner, &Rows<'_>, &str)> = vec![
        (Iid { clients: 0 }.into(), &rows, "`clients` is 0; expected a whole number of at least 1"),
        (Iid { clients: 7 }.into(), &rows, "7 clients cannot share 6 examples; ask for at most 6 clients"),
        (Iid { clients: 1 }.into(), &none, "there are no examples to divide; check the data set's `limit` and files"),
        (dirichlet(2, 0.0, Balanced, 1), &rows, "`alpha` is 0; expected a number from 0.000001 to 1000000"),
        (dirichlet(2, f64::NAN, Balanced, 1), &rows, "`alpha` is NaN; expected a number from 0.000001 to 1000000"),
        (dirichlet(2, 1.0, Balanced, 1), &bare, "partition `dirichlet` divides by class and this data set has no classes; use `iid`, `natural` or a `quantity-...` partition"),
        (dirichlet(2, 1.0, Unbalanced, 4), &rows, "2 clients of at least 4 examples need 8 examples and there are 6; lower `min_examples` to at most 3, or ask for fewer clients"),
        (dirichlet(2, 1.0, Balanced, u64::MAX), &rows, "2 clients of at least 18446744073709551615 examples need 18446744073709551615 examples and there are 6; lower `min_examples` to at most 3, or ask for fewer clients"),
        (dirichlet(1, 1.0, Balanced, 1), &wrong, "example 1 has label 9 where the data declare 4 classes"),
        (dirichlet(1, 1.0, Balanced, 1), &short, "1 labels were given for 2 examples; give one each"),
        (Shards { clients: 2, shards_per_client: 4 }.into(), &rows, "2 clients of 4 shards need 8 shards and there are 6 examples; lower `clients` or `shards_per_client`"),
        (Shards { clients: 2, shards_per_client: 0 }.into(), &rows, "`shards_per_client` is 0; expected a whole number of at least 1"),
        (LabelsPerClient::equal(2, 4).into(), &rows, "a client cannot hold 4 labels: the data have 3; lower `labels`"),
        (LabelsPerClient::equal(2, 1).into(), &rows, "2 clients of 1 labels hold at most 2 of the 3 classes; raise `labels` or `clients` until their product is at least 3"),
        (LabelsPerClient::equal(3, 3).into(), &rows, "class 1 has 2 examples for the 3 clients that are to share it, at least 1 each; lower `clients`, `labels` or `min_examples`"),
        (QuantityDirichlet { clients: 2, alpha: -1.0, min_examples: 1 }.into(), &rows, "`alpha` is -1; expected a number from 0.000001 to 1000000"),
        (QuantityLogNormal { clients: 2, sigma: f64::INFINITY, min_examples: 1 }.into(), &rows, "`sigma` is inf; expected a number from 0 to 100"),
        (QuantityPowerLaw { clients: 2, exponent: -0.5, min_examples: 1 }.into(), &rows, "`exponent` is -0.5; expected a number from 0 to 20"),
        (QuantityPowerLaw { clients: 3, exponent: 1.0, min_examples: 3 }.into(), &rows, "3 clients of at least 3 examples need 9 examples and there are 6; lower `min_examples` to at most 2, or ask for fewer clients"),
        (natural(None, 1), &bare, "partition `natural` needs data that name an owner of each example (a writer, a speaker, a client column), and this data set names none; choose another partition"),
        (natural(None, 0), &rows, "`min_examples` is 0; expected a whole number of at least 1"),
        (natural(Some(3), 2), &rows, "3 clients are asked for and 2 writers have at least 2 examples (the largest has 3); lower `clients` or `min_examples`"),
        (natural(None, 4), &rows, "1 clients are asked for and 0 writers have at least 4 examples (the largest has 3); lower `clients` or `min_examples`"),
        (natural(None, 1), &strangers, "example 1 belongs to owner 7 where the data declare 5"),
    ];
    for (partitioner, rows, expected) in cases {
        let error = partitioner.assign(rows, Seed(0)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{partitioner:?}");
    }
}

#[test]
fn iid_clients_are_alike() {
    // Over clients and classes, sum (n_kc - e)^2 / e times (n - 1) / n is chi-square with
    // (K - 1)(C - 1) degrees of freedom for a random table with these margins.
    let labels = labelled(&[600, 300, 100]);
    let mut chi = 0.0;
    for seed in 0..20 {
        for client in counts(&Iid { clients: 10 }, &labels, 3, seed) {
            for (count, expected) in client.into_iter().zip([60.0, 30.0, 10.0]) {
                chi += (count as f64 - expected).powi(2) / expected * 0.999;
            }
        }
    }
    // 20 * 18 = 360 degrees of freedom; five standard deviations of sqrt(2 * 360).
    assert!((chi - 360.0).abs() < 134.0, "{chi}");
    assert_eq!(sizes(&Iid { clients: 4 }, 10, 0), [3, 3, 2, 2]);
}

#[test]
fn shards_are_those_of_the_paper() {
    // MNIST's shape with equal classes: 200 shards of 300, two each; 6,000 divides into shards,
    // so a shard has one label and a client at most two.
    let labels = labelled(&[6000; 10]);
    let partition = Shards {
        clients: 100,
        shards_per_client: 2,
    };
    let clients = counts(&partition, &labels, 10, 1);
    let mut two = 0;
    for client in &clients {
        assert_eq!(client.iter().sum::<u64>(), 600);
        assert!(client.iter().all(|&count| count % 300 == 0));
        two += usize::from(client.iter().filter(|&&count| count > 0).count() == 2);
    }
    // Two random shards have two labels with probability 180 / 199.
    assert!((80..=99).contains(&two), "{two}");
    // Unequal classes: a shard may straddle two labels, hence at most four.
    let labels = labelled(&[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    for client in counts(&partition, &labels, 10, 1) {
        assert_eq!(client.iter().sum::<u64>(), 600);
        assert!(client.iter().filter(|&&count| count > 0).count() <= 4);
    }
}

#[test]
fn labels_per_client_are_exact() {
    let labels = labelled(&[700, 0, 100, 300, 40, 999, 60, 60, 60, 60]);
    for (clients, k) in [(9u64, 1u64), (10, 2), (7, 9), (33, 4), (3, 3)] {
        let partition = LabelsPerClient::equal(clients, k);
        for seed in 0..5 {
            let table = counts(&partition, &labels, 10, seed);
            let mut holders = Vec::new();
            for class in (0..10).filter(|&class| class != 1) {
                let held = table
                    .iter()
                    .map(|client| client[class])
                    .filter(|&count| count > 0);
                let held: Vec<u64> = held.collect();
                let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
                assert!(most - least <= 1, "class {class} is shared {held:?}");
                holders.push(held.len());
            }
            assert!(holders.iter().max().unwrap() - holders.iter().min().unwrap() <= 1);
            for client in table {
                let held = client.iter().filter(|&&count| count > 0).count();
                assert_eq!(held as u64, k, "{clients} clients, {k} labels: {client:?}");
            }
        }
    }
}

/// As FedProx's MNIST: two labels, at least five examples of each, and shares whose logarithms
/// spread as asked.
#[test]
fn labels_per_client_may_be_shared_unequally() {
    let labels = labelled(&[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    let partition = LabelsPerClient {
        sigma: 2.0,
        min_examples: 5,
        ..LabelsPerClient::equal(1000, 2)
    };
    let table = counts(&partition, &labels, 10, 3);
    let mut logarithms = Vec::new();
    for client in &table {
        let held: Vec<u64> = client.iter().copied().filter(|&count| count > 0).collect();
        assert_eq!(held.len(), 2, "{client:?}");
        assert!(held.iter().all(|&count| count >= 5), "{client:?}");
        // Shares small enough to be cut to nothing by rounding say little of their logarithm.
        let beyond = held.iter().filter(|&&count| count > 5);
        logarithms.extend(beyond.map(|&count| ((count - 5) as f64).ln()));
    }
    // Of a normal variable with mean m and sigma 2, what lies above the median has a mean of
    // m + 2 sqrt(2 / pi); the upper half of the shares is large enough not to feel the rounding.
    logarithms.sort_by(f64::total_cmp);
    let upper = &logarithms[logarithms.len() - 1000..];
    let mean = upper.iter().sum::<f64>() / 1000.0 - upper[0];
    let expected = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    assert!((mean - expected).abs() < 0.15, "{mean} beside {expected}");
    let sizes: u64 = table.iter().flatten().sum();
    assert_eq!(sizes, 60_000);
}

#[test]
fn exhausted_classes_are_struck_and_the_rest_scaled_up() {
    // Classes of 2 and 1 rows, three clients of one row. The first client takes the rare class
    // with E q = 1/3; the second, if it is left, likewise (the prior is not updated); the third
    // has what is left. So 1/3, 2/9 and 4/9.
    let labels = [0, 0, 1];
    let mut owners = [0u32; 3];
    let trials = 20_000;
    for seed in 0..trials {
        let partition = Dirichlet {
            clients: 3,
            alpha: 0.5,
            sizes: DirichletSizes::Balanced,
            min_examples: 1,
        };
        let table = counts(&partition, &labels, 2, seed);
        owners[table.iter().position(|client| client[1] == 1).unwrap()] += 1;
    }
    for (found, expected) in owners.into_iter().zip([1.0 / 3.0, 2.0 / 9.0, 4.0 / 9.0]) {
        let n = trials as f64;
        let error = f64::sqrt(expected * (1.0 - expected) / n);
        assert!(
            (f64::from(found) / n - expected).abs() < 5.0 * error,
            "{owners:?}"
        );
    }
}

#[test]
fn quantities_follow_their_laws() {
    let rows = 2_000_000;
    // Log-normal: the logarithms of the sizes have standard deviation sigma.
    let log_normal = QuantityLogNormal {
        clients: 2000,
        sigma: 0.8,
        min_examples: 0,
    };
    let logs: Vec<f64> = sizes(&log_normal, rows, 1)
        .iter()
        .map(|&n| (n as f64).ln())
        .collect();
    let mean = logs.iter().sum::<f64>() / 2000.0;
    let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2000.0;
    assert!((variance.sqrt() - 0.8).abs() < 5.0 * 0.8 / 4000f64.sqrt());
    // Power law: sorted sizes are the shares of Zipf's law, to within rounding.
    let power = QuantityPowerLaw {
        clients: 50,
        exponent: 1.5,
        min_examples: 10,
    };
    let mut found = sizes(&power, rows, 1);
    assert!(
        found.windows(2).any(|pair| pair[0] < pair[1]),
        "ranks are dealt at random"
    );
    found.sort_unstable_by(|a, b| b.cmp(a));
    let total: f64 = (1..=50).map(|rank| f64::from(rank).powf(-1.5)).sum();
    for (rank, size) in (1..=50).zip(found) {
        let share = f64::from(rank).powf(-1.5) / total * (rows - 500) as f64 + 10.0;
        assert!((size as f64 - share).abs() <= 1.0, "{rank}: {size} {share}");
    }
    // Dirichlet: variance of a share (1/K)(1 - 1/K) / (K alpha + 1), over seeds.
    let (mut square, mut shares) = (0.0, 0.0);
    for seed in 0..400 {
        let dirichlet = QuantityDirichlet {
            clients: 10,
            alpha: 0.5,
            min_examples: 0,
        };
        for size in sizes(&dirichlet, 20_000, seed) {
            square += (size as f64 / 20_000.0 - 0.1).powi(2);
            shares += 1.0;
        }
    }
    assert!(
        (square / shares / (0.09 / 6.0) - 1.0).abs() < 0.1,
        "{}",
        square / shares
    );
    // Equal sizes at the edge of both.
    let equal = QuantityLogNormal {
        clients: 7,
        sigma: 0.0,
        min_examples: 1,
    };
    assert!(sizes(&equal, 70, 1).iter().all(|&size| size == 10));
}

#[test]
fn natural_clients_are_the_owners() {
    let of = [4, 1, 1, 4, 0, 4, 2, 1];
    let rows = Rows {
        groups: Some(Groups {
            of: &of,
            count: 6,
            noun: "writer",
        }),
        ..unlabelled(8)
    };
    let all = Natural::default().assign(&rows, Seed(1)).unwrap();
    let clients: Vec<&[u32]> = (0..all.clients() as u64)
        .map(|client| all.rows_of(client))
        .collect();
    assert_eq!(clients, [&[4][..], &[1, 2, 7], &[6], &[0, 3, 5]]);
    let large = Natural {
        clients: None,
        min_examples: 2,
    };
    let large = large.assign(&rows, Seed(1)).unwrap();
    assert_eq!((large.clients(), large.assigned()), (2, 6));
    let one = Natural {
        clients: Some(1),
        min_examples: 2,
    };
    let firsts: Vec<u32> = (0..40)
        .map(|seed| one.assign(&rows, Seed(seed)).unwrap().rows_of(0)[0])
        .collect();
    assert!(firsts.contains(&0) && firsts.contains(&1));
}

#[test]
fn tables_are_read_by_kind() {
    let read = |kind: &str, rest: serde_json::Value| PartitionConfig::from_kind(kind, rest);
    let config = read(
        "dirichlet",
        serde_json::json!({ "clients": 5, "alpha": 0.1 }),
    )
    .unwrap();
    let expected = Dirichlet {
        clients: 5,
        alpha: 0.1,
        sizes: DirichletSizes::Balanced,
        min_examples: 1,
    };
    assert_eq!(config, PartitionConfig::Dirichlet(expected));
    let config = read(
        "dirichlet",
        serde_json::json!({ "clients": 5, "alpha": 0.1, "sizes": "unbalanced", "min_examples": 3 }),
    );
    assert!(matches!(
        config,
        Ok(PartitionConfig::Dirichlet(Dirichlet {
            sizes: DirichletSizes::Unbalanced,
            ..
        }))
    ));
    assert!(read("iid", serde_json::json!({ "clients": 5, "alpha": 0.1 })).is_err());
    assert!(read("natural", serde_json::json!({})).is_ok());
    let error = read("zipf", serde_json::json!({})).unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown partition `zipf`; known are `iid`, `dirichlet`, `shards`, `labels-per-client`, `quantity-dirichlet`, `quantity-log-normal`, `quantity-power-law`, `natural`"
    );
}
