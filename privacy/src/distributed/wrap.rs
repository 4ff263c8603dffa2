//! How likely a coordinate of the noised sum is to leave the ring: Chernoff's bound.
//!
//! A coordinate of the sum is `X + R + N`:
//! - `X`, the rotated sum of at most `n` vectors of norm `s c`: sub-Gaussian with variance proxy
//!   `(n s c)^2 / d`, over the random signs;
//! - `R`, the rounding errors of `n` clients: below 1 each; or, as each is sub-Gaussian with proxy
//!   1/4 before it is conditioned on an event of probability at least `1 - beta`, of moment
//!   generating function at most `(1 - beta)^-n exp(n t^2 / 8)`;
//! - `N`, the noise of `n` clients: sub-Gaussian with proxy `n sigma^2` for discrete Gaussians
//!   (Canonne, Kamath and Steinke 2020, corollary 17), cumulant `n sigma^2 (cosh t - 1)` for
//!   Skellam noise.

use super::DistributedNoise;

/// The sum of a round, in units of the update; integers are `scale` times that.
pub(super) struct Sum {
    pub(super) clients: f64,
    /// The root of the variance proxy of the signal: `n c / sqrt(d)`.
    pub(super) signal: f64,
    /// The standard deviation of a client's noise.
    pub(super) local: f64,
    pub(super) noise: DistributedNoise,
    pub(super) bias: f64,
    /// `2^(b-1)`.
    pub(super) half: f64,
}

impl Sum {
    /// An upper bound of the probability that a coordinate wraps at this scale, in `[0, 1]`.
    pub(super) fn probability(&self, scale: f64) -> f64 {
        let bounded = self.exponent(scale, self.half - self.clients, 0.0);
        let random = self.exponent(scale, self.half, self.clients / 4.0)
            - self.clients * libm::log1p(-self.bias);
        (2.0 * libm::exp(bounded.min(random))).min(1.0)
    }

    /// `min_t (-t room + t^2 (proxies) / 2 + noise(t))`, rounded upwards; any `t` gives a bound.
    fn exponent(&self, scale: f64, room: f64, extra: f64) -> f64 {
        if room <= 0.0 {
            return 0.0;
        }
        let signal = scale * self.signal;
        let proxy = signal * signal + extra;
        let variance = self.clients * (scale * self.local) * (scale * self.local);
        let (tilt, noise) = match self.noise {
            DistributedNoise::DiscreteGaussian => {
                let tilt = room / (proxy + variance);
                (tilt, variance * tilt * tilt / 2.0)
            }
            DistributedNoise::Skellam => {
                // The root of t proxy + variance sinh(t) = room, by halving.
                let (mut low, mut high) = (0.0, room / (proxy + variance));
                for _ in 0..60 {
                    let middle = 0.5 * (low + high);
                    if middle * proxy + variance * libm::sinh(middle) < room {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                let half = libm::sinh(low / 2.0);
                (low, 2.0 * variance * half * half)
            }
        };
        (-tilt * room + proxy * tilt * tilt / 2.0 + noise) * (1.0 - 1e-12)
    }

    /// The largest scale, up to rounding, whose probability is at most `limit`; 0 when there is
    /// none.
    pub(super) fn largest_scale(&self, limit: f64) -> f64 {
        // A scale at which the noise alone fills the ring.
        let mut high = self.half / self.local;
        let mut low = 0.0;
        for _ in 0..100 {
            let middle = if low > 0.0 {
                libm::sqrt(low * high)
            } else {
                high * 1e-3
            };
            if self.probability(middle) <= limit {
                low = middle;
            } else {
                high = middle;
            }
            if high < 1e-300 {
                return 0.0;
            }
        }
        low
    }
}
