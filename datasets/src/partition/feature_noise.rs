//! Feature shift: noise that grows from client to client.

use fl_core::registry::ConfigError;
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

use crate::normal::Normals;

/// Gaussian noise of mean 0 and standard deviation `sigma * c / clients` added to every feature
/// of client `c` (Li et al. 2022, NIID-Bench, arXiv:2102.02079, "noise-based feature
/// imbalance"; as in the authors' code the level is a standard deviation and the first client is
/// clean; the code divides by `clients - 1`, the paper, and this, by `clients`). Features are not
/// clipped.
///
/// The noise of a row depends on the seed, the client and the row alone: it is the same however
/// often and in whatever order rows are read, and nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureNoise {
    sigma: f64,
    clients: u64,
    seed: Seed,
}

impl FeatureNoise {
    /// Noise up to `sigma` (in the units of a feature as the model sees it) over `clients`.
    ///
    /// # Errors
    /// [`ConfigError`] unless `sigma` is from 0 to 1000.
    pub fn new(sigma: f64, clients: u64, seed: Seed) -> Result<Self, ConfigError> {
        ConfigError::unless(
            (0.0..=1000.0).contains(&sigma),
            "feature_noise",
            sigma,
            "a number from 0 to 1000",
        )?;
        Ok(Self {
            sigma,
            clients,
            seed,
        })
    }

    /// Standard deviation of the noise of `client`.
    #[must_use]
    pub fn level(&self, client: ClientId) -> f64 {
        self.sigma * client.0 as f64 / self.clients.max(1) as f64
    }

    /// Adds the noise of `row` (its number in the data set) to its features.
    pub fn add(&self, client: ClientId, row: u32, features: &mut [f32]) {
        let level = self.level(client);
        if level <= 0.0 {
            return;
        }
        let mut stream = Stream::at(
            Purpose::FeatureShift,
            self.seed,
            RoundId(u64::from(row)),
            client,
        );
        let mut normals = Normals::new(&mut stream);
        for feature in features {
            *feature = (f64::from(*feature) + level * normals.draw()) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_repeatable_and_has_its_level() {
        let noise = FeatureNoise::new(0.5, 10, Seed(1)).unwrap();
        for client in [0u64, 1, 9] {
            let level = 0.05 * client as f64;
            assert!((noise.level(ClientId(client)) - level).abs() < 1e-12);
            let mut square = 0.0;
            for row in 0..200 {
                let mut first = [1.0f32; 784];
                noise.add(ClientId(client), row, &mut first);
                let mut again = [1.0f32; 784];
                noise.add(ClientId(client), row, &mut again);
                assert_eq!(first.map(f32::to_bits), again.map(f32::to_bits));
                square += first
                    .iter()
                    .map(|x| f64::from(x - 1.0).powi(2))
                    .sum::<f64>();
            }
            let found = (square / (200.0 * 784.0)).sqrt();
            assert!((found - level).abs() <= 0.01 * level, "{found} {level}");
        }
    }

    #[test]
    fn rows_clients_and_seeds_differ() {
        let at = |seed, client, row| {
            let mut features = [0.0f32; 4];
            FeatureNoise::new(1.0, 4, Seed(seed)).unwrap().add(
                ClientId(client),
                row,
                &mut features,
            );
            features.map(f32::to_bits)
        };
        let base = at(1, 1, 1);
        assert_ne!(base, at(2, 1, 1));
        assert_ne!(base, at(1, 2, 1));
        assert_ne!(base, at(1, 1, 2));
    }

    #[test]
    fn wrong_levels_are_refused() {
        for sigma in [-0.1, f64::NAN, f64::INFINITY, 1001.0] {
            assert!(FeatureNoise::new(sigma, 10, Seed(0)).is_err());
        }
    }
}
