use super::*;

fn make(config: SyntheticConfig, seed: u64) -> Synthetic {
    Synthetic::new(&config, Seed(seed)).unwrap()
}

fn fixed(alpha: f64, beta: f64, clients: u64, examples: u64) -> SyntheticConfig {
    SyntheticConfig {
        alpha: Some(alpha),
        beta: Some(beta),
        clients,
        examples_per_client: Some(examples),
        ..SyntheticConfig::default()
    }
}

/// Mean and variance of a sequence.
fn moments(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    (mean, variance)
}

/// A client's model, drawn as `generate` draws it.
fn model_of(synthetic: &Synthetic, client: u64) -> Model {
    let mut stream = synthetic.stream(ClientId(client), MODEL_AND_TRAIN);
    let mut normals = Normals::new(&mut stream);
    let (u, b) = (
        synthetic.alpha * normals.draw(),
        synthetic.beta * normals.draw(),
    );
    Model::draw(&mut normals, u, b)
}

#[test]
fn features_have_the_variance_of_the_paper() {
    // Within a client, feature j (from 1) has variance j^-1.2. The sample variance of n normal
    // numbers has relative standard error sqrt(2 / n).
    let synthetic = make(fixed(1.0, 1.0, 3, 50_000), 4);
    let mut scratch = ClientScratch::default();
    for client in 0..3 {
        let view = synthetic.train(ClientId(client), &mut scratch);
        assert_eq!(view.classes.len(), 45_000);
        for j in 0..FEATURES {
            let (_, variance) = moments(view.inputs.chunks(FEATURES).map(|row| f64::from(row[j])));
            let expected = ((j + 1) as f64).powf(-1.2);
            let error = (2.0 / 45_000.0f64).sqrt();
            assert!(
                (variance / expected - 1.0).abs() < 5.0 * error,
                "feature {j}: {variance} {expected}"
            );
        }
    }
}

#[test]
fn clients_have_the_spread_of_the_paper() {
    // Over clients: a feature's mean has variance beta^2 + 1, and two features' means have
    // covariance beta^2; likewise weights with alpha. alpha and beta are standard deviations.
    let (alpha, beta) = (2.0, 0.5);
    let clients = 4000u64;
    let synthetic = make(fixed(alpha, beta, clients, 1), 9);
    let models: Vec<Model> = (0..clients)
        .map(|client| model_of(&synthetic, client))
        .collect();
    let n = clients as f64;
    let covariance = |a: &dyn Fn(&Model) -> f64, b: &dyn Fn(&Model) -> f64| {
        models.iter().map(|model| a(model) * b(model)).sum::<f64>() / n
    };
    // Standard error of a product of two jointly normal numbers of variances s and t: at most
    // sqrt(2 s t / n).
    let close = |found: f64, expected: f64, spread: f64| {
        let error = spread * (2.0 / n).sqrt();
        assert!((found - expected).abs() < 5.0 * error, "{found} {expected}");
    };
    let (b2, a2) = (beta * beta, alpha * alpha);
    close(
        covariance(&|m| m.mean[0], &|m| m.mean[0]),
        b2 + 1.0,
        b2 + 1.0,
    );
    close(covariance(&|m| m.mean[0], &|m| m.mean[59]), b2, b2 + 1.0);
    close(
        covariance(&|m| m.weights[0][0], &|m| m.weights[0][0]),
        a2 + 1.0,
        a2 + 1.0,
    );
    close(
        covariance(&|m| m.weights[0][0], &|m| m.weights[59][9]),
        a2,
        a2 + 1.0,
    );
    close(
        covariance(&|m| m.weights[3][2], &|m| m.bias[7]),
        a2,
        a2 + 1.0,
    );
    close(covariance(&|m| m.weights[3][2], &|m| m.mean[3]), 0.0, 5.0);
}

#[test]
fn labels_are_the_largest_logit() {
    let synthetic = make(fixed(1.0, 1.0, 5, 100), 2);
    let mut scratch = ClientScratch::default();
    for client in 0..5 {
        let model = model_of(&synthetic, client);
        for part in [Parts::Train, Parts::HeldOut] {
            let view = synthetic.part(ClientId(client), part, &mut scratch);
            for (row, &class) in view.inputs.chunks(FEATURES).zip(view.classes) {
                let logit = |c: usize| -> f64 {
                    let products = row.iter().zip(&model.weights);
                    model.bias[c] + products.map(|(&x, w)| f64::from(x) * w[c]).sum::<f64>()
                };
                let own = logit(class as usize);
                assert!((0..CLASSES).all(|c| logit(c) <= own + 1e-9));
            }
        }
    }
}

#[test]
fn sizes_are_log_normal() {
    let synthetic = make(
        SyntheticConfig {
            clients: 20_000,
            ..SyntheticConfig::default()
        },
        3,
    );
    let sizes: Vec<u64> = (0..20_000)
        .map(|client| synthetic.size(ClientId(client)))
        .collect();
    assert!(sizes.iter().all(|&size| size >= 50));
    // P(n - 50 < t) = Phi((ln t - 4) / 2) for whole t.
    for t in [1.0, 7.0, 55.0, 403.0, 2981.0] {
        let below = sizes
            .iter()
            .filter(|&&size| ((size - 50) as f64) < t)
            .count() as f64;
        let z: f64 = (f64::ln(t) - 4.0) / 2.0;
        let expected = 0.5 * libm::erfc(-z / core::f64::consts::SQRT_2);
        let error = (expected * (1.0 - expected) / 20_000.0).sqrt();
        assert!(
            (below / 20_000.0 - expected).abs() < 5.0 * error,
            "{t}: {below}"
        );
    }
    for client in (0..20_000).map(ClientId) {
        let size = synthetic.size(client);
        assert_eq!(synthetic.train_len(client), size * 9 / 10);
        assert_eq!(
            synthetic.train_len(client) + synthetic.test_len(client),
            size
        );
    }
}

#[test]
fn the_iid_form_has_one_model() {
    let config = SyntheticConfig {
        iid: true,
        clients: 40,
        examples_per_client: Some(1000),
        ..SyntheticConfig::default()
    };
    let synthetic = make(config, 6);
    let model = shared_model(Seed(6));
    let mut scratch = ClientScratch::default();
    let mut sums = [0.0; FEATURES];
    let mut rows = 0.0;
    for client in 0..40 {
        let view = synthetic.train(ClientId(client), &mut scratch);
        for (row, &class) in view.inputs.chunks(FEATURES).zip(view.classes) {
            let mut logits = model.bias;
            for (j, &x) in row.iter().enumerate() {
                sums[j] += f64::from(x);
                for (logit, weight) in logits.iter_mut().zip(model.weights[j]) {
                    *logit += f64::from(x) * weight;
                }
            }
            rows += 1.0;
            assert!(logits.iter().all(|&logit| logit <= logits[class as usize]));
        }
    }
    for (j, sum) in sums.into_iter().enumerate() {
        let error = ((j + 1) as f64).powf(-0.6) / f64::sqrt(rows);
        assert!((sum / rows).abs() < 5.0 * error, "feature {j}: {sum}");
    }
    // Weights and biases are standard normal.
    let (mean, variance) = moments(model.weights.iter().flatten().copied());
    assert!(mean.abs() < 5.0 / 600f64.sqrt() && (variance - 1.0).abs() < 0.3);
}

#[test]
fn kept_and_lazy_clients_are_the_same() {
    // The same clients as part of a population too large to keep.
    let kept = make(fixed(0.5, 0.5, 20, 30), 8);
    let lazy = make(fixed(0.5, 0.5, 1_000_000_000, 30), 8);
    assert!(kept.kept.is_some() && lazy.kept.is_none());
    let (mut one, mut two) = (ClientScratch::default(), ClientScratch::default());
    for client in [19, 0, 7, 7, 3].map(ClientId) {
        for part in [Parts::Train, Parts::HeldOut, Parts::Both] {
            let a = kept.part(client, part, &mut one);
            let b = lazy.part(client, part, &mut two);
            assert_eq!(a.classes, b.classes);
            assert_eq!(a.inputs, b.inputs);
        }
        assert_eq!(lazy.train(client, &mut one).classes.len(), 27);
        assert_eq!(lazy.test(client, &mut one).classes.len(), 3);
    }
    let outside = lazy.train(ClientId(1_000_000_000), &mut one);
    assert!(outside.inputs.is_empty() && outside.classes.is_empty());
    assert_eq!(kept.train_len(ClientId(20)), 0);
}

#[test]
fn log_normal_sizes_do_not_depend_on_the_population() {
    let config = |clients| SyntheticConfig {
        clients,
        ..SyntheticConfig::default()
    };
    let (small, large) = (make(config(30), 1), make(config(10_000_000), 1));
    assert!(large.sizes.is_empty());
    for client in (0..30).map(ClientId) {
        assert_eq!(small.size(client), large.size(client));
    }
}

#[test]
fn clients_and_seeds_differ() {
    let mut scratch = ClientScratch::default();
    let mut first = |seed, client| {
        let synthetic = make(fixed(1.0, 1.0, 10, 10), seed);
        synthetic.train(ClientId(client), &mut scratch).inputs[0].to_bits()
    };
    assert_ne!(first(1, 0), first(1, 1));
    assert_ne!(first(1, 0), first(2, 0));
    let digest = |config, seed| make(config, seed).digest();
    let base = digest(fixed(1.0, 1.0, 10, 10), 1);
    assert_eq!(base, digest(fixed(1.0, 1.0, 10, 10), 1));
    assert_ne!(base, digest(fixed(1.0, 1.0, 10, 10), 2));
    assert_ne!(base, digest(fixed(1.5, 1.0, 10, 10), 1));
    assert_ne!(base, digest(fixed(1.0, 1.0, 10, 11), 1));
}

#[test]
fn keys_out_of_range_are_refused() {
    let with = |change: fn(&mut SyntheticConfig)| {
        let mut config = SyntheticConfig::default();
        change(&mut config);
        Synthetic::new(&config, Seed(0)).unwrap_err().to_string()
    };
    type Change = fn(&mut SyntheticConfig);
    #[rustfmt::skip]
    let cases: &[(Change, &str)] = &[
        (|c| c.alpha = Some(-1.0), "`alpha` is -1; expected a number from 0 to 1000"),
        (|c| c.beta = Some(f64::NAN), "`beta` is NaN; expected a number from 0 to 1000"),
        (|c| { c.iid = true; c.alpha = Some(1.0); }, "`alpha` is 1; the IID form has one distribution for all clients; leave it out or set `iid = false`"),
        (|c| c.clients = 0, "`clients` is 0; expected a whole number of at least 1"),
        (|c| c.examples_per_client = Some(0), "`examples_per_client` is 0; expected a whole number from 1 to 1000000"),
        (|c| c.holdout = 1.0, "`holdout` is 1; expected a number of at least 0 and below 1"),
    ];
    for (change, expected) in cases {
        assert_eq!(with(*change), *expected);
    }
}

#[test]
fn keys_are_documented() {
    let documented: Vec<_> = SyntheticConfig::KEYS.iter().map(|key| key.key).collect();
    assert_eq!(
        documented,
        fl_core::registry::fields_of::<SyntheticConfig>()
    );
}

#[test]
fn bytes_are_frozen() {
    // A change of this digest changes results.
    let synthetic = make(fixed(1.0, 1.0, 2, 10), 1);
    let mut scratch = ClientScratch::default();
    let mut hash = Sha256::new();
    for client in (0..2).map(ClientId) {
        let view = synthetic.part(client, Parts::Both, &mut scratch);
        for value in view.inputs {
            hash.update(value.to_le_bytes());
        }
        for class in view.classes {
            hash.update(class.to_le_bytes());
        }
    }
    let digest: Vec<String> = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(digest.concat(), GOLDEN);
}

const GOLDEN: &str = "9bd311cb4afbeda8f86c196f7cf2960b3557ec5299d61ebf6b85251cbdf5e615";

#[test]
fn the_largest_population_is_counted_client_by_client() {
    let config = SyntheticConfig {
        clients: u64::MAX,
        ..SyntheticConfig::default()
    };
    let synthetic = make(config, 1);
    assert!(synthetic.train_len(ClientId(123_456_789_012)) >= 45);
    assert_eq!(synthetic.train_len(ClientId(u64::MAX)), 0);
}

#[test]
fn clients_are_as_unlike_as_in_an_independent_program() {
    // Mean label entropy (nats), mean earth mover's distance and mean number of classes over
    // 20,000 clients of 100 examples, drawn by an independent program with NumPy 2.4
    // (`default_rng(1)`, the formulas at the head of `synthetic.rs`), and standard errors.
    #[rustfmt::skip]
    let cases = [
        (0.0, 0.0, [(0.448_526, 0.002_764), (1.608_022, 0.001_221), (2.548_60, 0.008_798)]),
        (0.5, 0.5, [(0.402_633, 0.002_666), (1.628_812, 0.001_162), (2.385_45, 0.008_376)]),
        (1.0, 1.0, [(0.348_737, 0.002_600), (1.652_415, 0.001_122), (2.179_15, 0.008_010)]),
    ];
    for (alpha, beta, expected) in cases {
        let clients = 5000;
        let synthetic = SyntheticConfig {
            holdout: 0.0,
            ..fixed(alpha, beta, clients, 100)
        };
        let synthetic = make(synthetic, 11);
        let mut scratch = ClientScratch::default();
        let found = crate::Heterogeneity::measure(clients, CLASSES, |client, counts| {
            let view = synthetic.train(client, &mut scratch);
            for &class in view.classes {
                counts[class as usize] += 1;
            }
            view.classes.len() as u64
        });
        let labels = found.labels.unwrap();
        let found = [
            labels.mean_entropy,
            labels.mean_earth_mover,
            labels.mean_classes,
        ];
        for (found, (expected, error)) in found.into_iter().zip(expected) {
            // A quarter of the clients: twice the standard error, beside theirs.
            let error = error * 5f64.sqrt();
            assert!(
                (found - expected).abs() < 4.0 * error,
                "({alpha}, {beta}): {found}, expected {expected}"
            );
        }
    }
}
