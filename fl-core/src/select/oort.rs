//! Oort: Lai, Zhu, Madhyastha, Chowdhury 2021, "Oort: Efficient Federated Learning via Guided
//! Participant Selection", OSDI, arXiv:2010.06081, algorithm 1.
//!
//! Of the clients that took part before, those with much to learn from and fast enough are preferred
//! (exploitation); a share of the cohort is drawn from those that did not (exploration). In the
//! paper's notation, in round `R` (counted from 1), for a client last in round `L`:
//!
//! 1. statistical utility `U = |B| sqrt(1/|B| sum loss^2)`, see
//!    [`Participation::utility`](super::Participation::utility), clipped at
//!    a quantile of all and then scaled to `[0, 1]`;
//! 2. plus the temporal uncertainty `sqrt(0.1 ln R / L)`;
//! 3. times `(T/t)^alpha` where the client's time `t` is above the preferred time `T`;
//! 4. those above a share of the cut-off utility, that of the last one who would be in, are drawn in
//!    proportion to their utility, without replacement.
//!
//! The share of exploration starts at 0.9 and decays by 0.98 a round to 0.2. The *pacer* gives slower
//! clients a chance when there is less to gain from the fast: after every `pacer_window` rounds whose
//! utility together is below that of as many rounds before, `T` rises.
//!
//! # Where this differs
//! The paper's algorithm leaves the scale of utility against the bonus of step 2 open; scaling to
//! `[0, 1]` is what the authors' code does. `T` is, as there, a quantile of the times of the clients
//! that took part, 0.3 at first and 0.05 more by a step of the pacer, whose condition is the paper's.
//! Speeds of clients that did not take part are not known, so exploration is uniform. Removing clients
//! that took part too often is [`Candidates::at_most_rounds`]. The pacer's steps follow from the
//! history, so there is no state here.
//!
//! Time grows with the clients that took part so far, and with the cohort.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::size::{self, Size};
use super::{Candidates, History, Past, SelectError, Selection, Selector, uniform, weighted};
use crate::registry::{ConfigError, KeyInfo, Registered};
use crate::stream::Stream;
use crate::units::{ClientId, RoundId};

/// Keys of `kind = "oort"`; defaults of the paper and, for the pacer, of its authors' code.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OortConfig {
    /// Reports that complete a round, at least 1.
    pub cohort: u64,
    /// So many times the cohort is asked; in `[1, 100]`.
    #[serde(default = "size::one")]
    pub over_select: f64,
    /// Share of exploration in the first round, in `[0, 1]`.
    #[serde(default = "defaults::exploration")]
    pub exploration: f64,
    /// Its factor from round to round, in `(0, 1]`.
    #[serde(default = "defaults::exploration_decay")]
    pub exploration_decay: f64,
    /// What it does not fall below, in `[0, exploration]`.
    #[serde(default = "defaults::exploration_min")]
    pub exploration_min: f64,
    /// The paper's alpha: how much slow clients are penalised, at least 0.
    #[serde(default = "defaults::penalty")]
    pub penalty: f64,
    /// The paper's c: share of the cut-off utility that suffices, in `(0, 1]`.
    #[serde(default = "defaults::cut_off")]
    pub cut_off: f64,
    /// Quantile at which utilities are clipped, in `(0, 1]`.
    #[serde(default = "defaults::clip")]
    pub clip: f64,
    /// Quantile of times that is preferred at first, in `(0, 1]`.
    #[serde(default = "defaults::preferred")]
    pub preferred: f64,
    /// By so much the pacer raises it, in `[0, 1]`.
    #[serde(default = "defaults::pacer_step")]
    pub pacer_step: f64,
    /// After so many rounds the pacer looks again, at least 1.
    #[serde(default = "defaults::pacer_window")]
    pub pacer_window: u64,
}

mod defaults {
    pub(super) fn exploration() -> f64 {
        0.9
    }
    pub(super) fn exploration_decay() -> f64 {
        0.98
    }
    pub(super) fn exploration_min() -> f64 {
        0.2
    }
    pub(super) fn penalty() -> f64 {
        2.0
    }
    pub(super) fn cut_off() -> f64 {
        0.95
    }
    pub(super) fn clip() -> f64 {
        0.95
    }
    pub(super) fn preferred() -> f64 {
        0.3
    }
    pub(super) fn pacer_step() -> f64 {
        0.05
    }
    pub(super) fn pacer_window() -> u64 {
        20
    }
}

impl OortConfig {
    /// The paper's settings.
    #[must_use]
    pub fn new(cohort: u64) -> Self {
        Self {
            cohort,
            over_select: size::one(),
            exploration: defaults::exploration(),
            exploration_decay: defaults::exploration_decay(),
            exploration_min: defaults::exploration_min(),
            penalty: defaults::penalty(),
            cut_off: defaults::cut_off(),
            clip: defaults::clip(),
            preferred: defaults::preferred(),
            pacer_step: defaults::pacer_step(),
            pacer_window: defaults::pacer_window(),
        }
    }
}

/// Guided selection, see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oort {
    config: OortConfig,
    size: Size,
}

const fn key(
    key: &'static str,
    expects: &'static str,
    default: &'static str,
    summary: &'static str,
) -> KeyInfo {
    KeyInfo {
        key,
        expects,
        default: Some(default),
        summary,
    }
}

impl Registered for Oort {
    type Config = OortConfig;
    const SUMMARY: &'static str =
        "Clients with high loss that are fast enough, and some that are new (Lai et al. 2021).";
    const KEYS: &'static [KeyInfo] = &[
        size::COHORT,
        size::OVER_SELECT,
        key(
            "exploration",
            "number, at least 0 and at most 1",
            "0.9",
            "Share of the cohort that is drawn from clients that never took part, in the first round.",
        ),
        key(
            "exploration_decay",
            "number above 0, at most 1",
            "0.98",
            "Factor of that share from round to round.",
        ),
        key(
            "exploration_min",
            "number, at least 0 and at most exploration",
            "0.2",
            "What that share does not fall below.",
        ),
        key(
            "penalty",
            "number, at least 0",
            "2.0",
            "How much clients above the preferred time are penalised; the paper's alpha.",
        ),
        key(
            "cut_off",
            "number above 0, at most 1",
            "0.95",
            "Share of the last selected client's utility that suffices to be drawn.",
        ),
        key(
            "clip",
            "number above 0, at most 1",
            "0.95",
            "Quantile at which utilities are clipped.",
        ),
        key(
            "preferred",
            "number above 0, at most 1",
            "0.3",
            "Quantile of clients' times that is the preferred time at first.",
        ),
        key(
            "pacer_step",
            "number, at least 0 and at most 1",
            "0.05",
            "By so much that quantile rises when utility falls.",
        ),
        key(
            "pacer_window",
            "whole number above 0",
            "20",
            "Rounds whose utility is compared with that of as many before.",
        ),
    ];

    fn from_config(config: OortConfig) -> Result<Self, ConfigError> {
        let size = Size::new(config.cohort, config.over_select)?;
        for (key, value) in [
            ("exploration", config.exploration),
            ("pacer_step", config.pacer_step),
        ] {
            let expected = "a number of at least 0 and at most 1";
            ConfigError::unless((0.0..=1.0).contains(&value), key, value, expected)?;
        }
        for (key, value) in [
            ("exploration_decay", config.exploration_decay),
            ("cut_off", config.cut_off),
            ("clip", config.clip),
            ("preferred", config.preferred),
        ] {
            let expected = "a number above 0 and at most 1";
            ConfigError::unless(value > 0.0 && value <= 1.0, key, value, expected)?;
        }
        ConfigError::unless(
            (0.0..=config.exploration).contains(&config.exploration_min),
            "exploration_min",
            config.exploration_min,
            "a number of at least 0 and at most exploration",
        )?;
        ConfigError::unless(
            config.penalty.is_finite() && config.penalty >= 0.0,
            "penalty",
            config.penalty,
            "a finite number of at least 0",
        )?;
        ConfigError::unless(
            config.pacer_window > 0,
            "pacer_window",
            config.pacer_window,
            "a whole number of at least 1",
        )?;
        Ok(Self { config, size })
    }

    fn examples() -> Vec<OortConfig> {
        vec![
            OortConfig::new(1),
            OortConfig::new(10),
            OortConfig {
                over_select: 1.3,
                exploration: 0.0,
                exploration_min: 0.0,
                clip: 1.0,
                ..OortConfig::new(10)
            },
        ]
    }
}

impl Selector for Oort {
    fn select(
        &self,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let asked = self.size.asked(candidates.len());
        let chosen = self.choose(asked, candidates, stream)?;
        Ok(self.size.cohort_of(chosen))
    }

    fn choose(
        &self,
        wanted: u64,
        candidates: &Candidates<'_>,
        stream: &mut Stream,
    ) -> Result<Selection, SelectError> {
        let history = candidates.history().ok_or(SelectError::NoHistory)?;
        let round = stream.address().round;
        let mut screen = candidates.screen();
        let mut among = 0;
        let mut known = Vec::new();
        for (client, past) in history
            .iter()
            .filter(|(client, _)| candidates.holds(*client))
        {
            among += 1;
            if screen.admits(client) {
                known.push((client, *past));
            }
        }
        let explored = libm::floor(self.exploration(round) * wanted as f64) as u64;
        let exploited = (wanted - explored.min(wanted)).min(known.len() as u64);
        // Where everyone took part there is nobody to look for.
        let new = if among < candidates.len() {
            candidates.without(&|client| history.past(client).is_some(), |new| {
                uniform::draw(wanted - exploited, new, stream)
            })
        } else {
            Selection::default()
        };
        let exploited = (wanted - new.goal).min(known.len() as u64);
        let mut clients = self.exploit(exploited as usize, &known, history, stream);
        clients.extend(new.clients);
        clients.sort_unstable();
        Ok(Selection {
            goal: clients.len() as u64,
            clients,
            screened: screen.screened().and(new.screened),
        })
    }

    fn needs_history(&self) -> bool {
        true
    }

    fn largest_goal(&self, population: u64) -> u64 {
        self.size.goal(population)
    }
}

impl Oort {
    /// The share of exploration in a round.
    fn exploration(&self, round: RoundId) -> f64 {
        let decayed =
            self.config.exploration * libm::pow(self.config.exploration_decay, round.0 as f64);
        decayed.max(self.config.exploration_min)
    }

    /// `wanted` of those that took part, by their utility; in no order.
    fn exploit(
        &self,
        wanted: usize,
        known: &[(ClientId, Past)],
        history: &History,
        stream: &mut Stream,
    ) -> Vec<ClientId> {
        if wanted == 0 {
            return Vec::new();
        }
        let utilities = self.utilities(known, history, stream.address().round);
        let mut sorted = utilities.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let cut_off = self.config.cut_off * sorted[wanted - 1];
        // So that those without any utility can be drawn where nobody else is left.
        let least = f64::MIN_POSITIVE.max(sorted[0] * 1e-9);
        let pool = known.iter().zip(&utilities);
        let pool = pool.filter(|(_, utility)| **utility >= cut_off);
        let mut keys: Vec<(u64, ClientId)> = pool
            .map(|((client, _), utility)| (weighted::key(utility.max(least), stream), *client))
            .collect();
        keys.sort_unstable();
        keys.truncate(wanted);
        keys.into_iter().map(|(_, client)| client).collect()
    }

    /// Steps 1 to 3 for each of `known`, of which there are some.
    fn utilities(&self, known: &[(ClientId, Past)], history: &History, round: RoundId) -> Vec<f64> {
        let statistical: Vec<f64> = known.iter().map(|(_, past)| past.last.utility()).collect();
        let mut sorted = statistical.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let most = sorted[quantile(self.config.clip, sorted.len())];
        let range = most - sorted[0];
        let preferred = self.preferred_time(history, round);
        // Rounds are counted from one here.
        let bonus = 0.1 * libm::log(round.0 as f64 + 1.0);
        let utility = |(statistical, (_, past)): (f64, &(ClientId, Past))| {
            let scaled = if range > 0.0 {
                (statistical.min(most) - sorted[0]) / range
            } else {
                1.0
            };
            let uncertain = libm::sqrt(bonus / (past.last_round.0 as f64 + 1.0));
            let time = past.last.time.0 as f64;
            let slow = match preferred {
                Some(preferred) if time > preferred => {
                    libm::pow(preferred / time, self.config.penalty)
                }
                _ => 1.0,
            };
            (scaled + uncertain) * slow
        };
        statistical.into_iter().zip(known).map(utility).collect()
    }

    /// The paper's T in microseconds; none when all times are welcome.
    fn preferred_time(&self, history: &History, round: RoundId) -> Option<f64> {
        let steps = self.pacer_steps(history, round);
        let share = self.config.preferred + steps as f64 * self.config.pacer_step;
        if share >= 1.0 || history.is_empty() {
            return None;
        }
        let mut times: Vec<u64> = history.iter().map(|(_, past)| past.last.time.0).collect();
        times.sort_unstable();
        Some(times[quantile(share, times.len())] as f64)
    }

    /// How often the pacer has raised T before `round`.
    fn pacer_steps(&self, history: &History, round: RoundId) -> u64 {
        let window = self.config.pacer_window;
        let sum = |index: u64| -> f64 {
            let rounds = index * window..(index + 1) * window;
            rounds
                .map(|round| history.round_utility(RoundId(round)))
                .sum()
        };
        let mut steps = 0;
        let mut before = None;
        for now in (0..round.0 / window).map(sum) {
            steps += u64::from(before.is_some_and(|before| before > now));
            before = Some(now);
        }
        steps
    }
}

/// The place of a quantile among `len` sorted values, of which there are some.
fn quantile(share: f64, len: usize) -> usize {
    (libm::floor(share * len as f64) as usize).min(len - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::{Participation, selection_stream};
    use crate::testing::assert_fits;
    use crate::units::{ExampleCount, Seed, VirtualDuration};

    fn oort(config: OortConfig) -> Oort {
        Oort::from_config(config).unwrap()
    }

    /// `(client, round, examples, loss, time)`
    fn history(parts: &[(u64, u64, u64, f64, u64)]) -> History {
        let mut history = History::default();
        for &(client, round, examples, loss, time) in parts {
            let part = Participation {
                examples: ExampleCount(examples),
                loss: Some(loss),
                loss_square: None,
                time: VirtualDuration(time),
            };
            history.took_part(ClientId(client), RoundId(round), part);
        }
        history
    }

    fn utilities(oort: &Oort, history: &History, round: u64) -> Vec<f64> {
        let known: Vec<_> = history
            .iter()
            .map(|(client, past)| (client, *past))
            .collect();
        oort.utilities(&known, history, RoundId(round))
    }

    /// By hand, in round R = 5. Utilities 10 * 2 = 20, 10 * 1 = 10, 5 * 3 = 15 scale to 1, 0, 1/2.
    /// Bonuses sqrt(0.1 ln 5 / L) for L = 1, 4, 2: 0.401178, 0.200589, 0.283676. T is the time at
    /// floor(0.34 * 3) = 1 of (10, 20, 40), 20; the first client took 40: its factor is (20/40)^2.
    #[test]
    fn three_clients_by_hand() {
        let oort = oort(OortConfig {
            clip: 1.0,
            preferred: 0.34,
            ..OortConfig::new(1)
        });
        let parts = [(0, 0, 10, 2.0, 40), (1, 3, 10, 1.0, 10), (2, 1, 5, 3.0, 20)];
        let found = utilities(&oort, &history(&parts), 4);
        let expected = [1.401_178_f64 / 4.0, 0.200_589, 0.783_676];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    /// One outlier of a thousand times the loss is worth no more than the best of the others.
    #[test]
    fn outliers_are_clipped() {
        let parts: Vec<_> = (0..100)
            .map(|client| {
                (
                    client,
                    0,
                    10,
                    if client == 7 {
                        1e3
                    } else {
                        1.0 + client as f64
                    },
                    5,
                )
            })
            .collect();
        let found = utilities(&oort(OortConfig::new(1)), &history(&parts), 0);
        let best = found.iter().copied().fold(0.0, f64::max);
        assert!((found[7] - best).abs() < 1e-12);
        // The 95th percentile of 2..=100 and 1,000: all from the 96th on are clipped to one.
        assert_eq!(
            found
                .iter()
                .filter(|&&utility| (utility - 1.0).abs() < 1e-12)
                .count(),
            5
        );
    }

    #[test]
    fn exploration_decays_to_its_least() {
        let oort = oort(OortConfig::new(10));
        let share = |round| oort.exploration(RoundId(round));
        assert!((share(0) - 0.9).abs() < 1e-12);
        assert!((share(10) - 0.9 * 0.98f64.powi(10)).abs() < 1e-12);
        assert!((share(1000) - 0.2).abs() < 1e-12);
    }

    /// Of ten clients one half took part: floor(0.9 * 4) = 3 are new and one is known; where there are
    /// too few of the one kind the others fill up.
    #[test]
    fn new_and_known_clients_fill_the_cohort() {
        let parts = |clients: u64| -> Vec<_> {
            (0..clients).map(|client| (client, 0, 10, 1.0, 5)).collect()
        };
        let chosen = |known: u64, population| {
            let history = history(&parts(known));
            let candidates = Candidates::everyone(population).with_history(&history);
            let mut stream = selection_stream(Seed(3), RoundId(0));
            let oort = oort(OortConfig::new(4));
            let selection = oort.select(&candidates, &mut stream).unwrap();
            let new = selection.clients.iter().filter(|client| client.0 >= known);
            (new.count(), selection.clients.len(), selection.goal)
        };
        assert_eq!(chosen(5, 10), (3, 4, 4));
        assert_eq!(chosen(0, 10), (4, 4, 4));
        assert_eq!(chosen(9, 10), (1, 4, 4));
        assert_eq!(chosen(10, 10), (0, 4, 4));
        assert_eq!(chosen(1, 3), (2, 3, 3));
    }

    /// Exploitation draws in proportion to utility among those above the cut-off: with utilities 1,
    /// 1 and 0 and one place, the third is never drawn and the others as often.
    #[test]
    fn those_below_the_cut_off_are_not_drawn() {
        let history = history(&[(0, 0, 10, 2.0, 5), (1, 0, 10, 2.0, 5), (2, 0, 10, 1.0, 5)]);
        let candidates = Candidates::everyone(3).with_history(&history);
        let oort = oort(OortConfig {
            exploration: 0.0,
            exploration_min: 0.0,
            ..OortConfig::new(1)
        });
        let mut counts = [0u64; 3];
        for seed in 0..4000 {
            let mut stream = selection_stream(Seed(seed), RoundId(0));
            let chosen = oort.select(&candidates, &mut stream).unwrap();
            counts[chosen.clients[0].0 as usize] += 1;
        }
        assert_eq!(counts[2], 0);
        assert_fits(&counts[..2], &[2000.0; 2]);
    }

    /// Utility by windows of two rounds: 20, 30, 10, 10, 4. It falls twice.
    #[test]
    fn the_pacer_steps_when_utility_falls() {
        let losses = [1.0, 1.0, 1.0, 2.0, 0.5, 0.5, 0.5, 0.5, 0.4, 0.0];
        let parts: Vec<_> = losses
            .into_iter()
            .enumerate()
            .map(|(round, loss)| (round as u64, round as u64, 10, loss, 1 + round as u64))
            .collect();
        let history = history(&parts);
        let oort = oort(OortConfig {
            pacer_window: 2,
            pacer_step: 0.3,
            ..OortConfig::new(1)
        });
        let steps = |round| oort.pacer_steps(&history, RoundId(round));
        assert_eq!(
            [0, 2, 4, 5, 6, 8, 9, 10].map(steps),
            [0, 0, 0, 0, 1, 1, 1, 2]
        );
        // Times 1 to 10: the 30th, the 60th and the 90th percentile.
        let times = [0, 6, 10].map(|round| oort.preferred_time(&history, RoundId(round)));
        assert_eq!(times, [Some(4.0), Some(7.0), Some(10.0)]);
    }

    #[test]
    fn without_a_history_it_does_not_select() {
        let mut stream = selection_stream(Seed(1), RoundId(0));
        let refused = oort(OortConfig::new(1)).select(&Candidates::everyone(3), &mut stream);
        assert_eq!(refused, Err(SelectError::NoHistory));
        assert!(oort(OortConfig::new(1)).needs_history());
    }
}
