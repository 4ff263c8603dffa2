//! Group normalisation.

use super::super::observe::{clamped_range, open_ends};
use super::super::step::{Marks, Normalise};
use super::{Tape, Watching, Weights, affine, bounds, momentum_of};
use crate::arena::pick;
use crate::kernel::int8::{Rescale, Through};
use crate::quant::Range;

impl Tape<'_> {
    /// A group normalisation: by the integer kernel that is served, but for the twin.
    pub(super) fn normalise(
        &mut self,
        norm: &Normalise,
        weights: &mut Weights<'_>,
        watching: Watching,
    ) {
        let (k, rows, n) = (self.k, self.rows, &norm.geometry);
        if let Some([open, real]) = norm.real {
            self.open(norm.x, open);
            let places = [open, real, norm.stats, norm.scratch].map(|slot| self.at(slot));
            let [x, y, stats, scratch] = pick(self.arena, places);
            let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
            k.norm(n, rows, x, gamma, beta, y, stats, scratch);
            let out = (norm.y, norm.marks);
            self.seal(
                self.at(real),
                norm.clamp,
                norm.point,
                out,
                weights,
                watching,
            );
            return;
        }
        let from = affine(self.params[norm.x.scale]);
        let x = norm.x.bytes.range(rows);
        let moments = &mut self.moments[..rows * n.stats_len() / 2];
        if watching.training {
            k.int8_norm_moments(n, rows, &self.bytes[x.clone()], from, moments);
            let stats = &mut self.arena[self.memory.at(norm.stats, rows)];
            for (to, moments) in stats.chunks_exact_mut(2).zip(&*moments) {
                to.copy_from_slice(&moments.stats(from));
            }
        }
        let (x, moments) = (&self.bytes[x], &*moments);
        if let Some(momentum) = momentum_of(norm.point, self.plan, weights.values(), watching) {
            let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
            let [min, max] = k.int8_norm_range(n, rows, x, moments, gamma, beta);
            let seen = clamped_range(Range { min, max }, norm.clamp);
            self.observe(norm.point, seen, weights, momentum);
        }
        let point = self.params_of(norm.point);
        let (low, high) = bounds(norm.clamp, point);
        let (to, bounds) = (affine(point), Rescale { low, high });
        let (gamma, beta) = (weights.tensor(&norm.gamma), weights.tensor(&norm.beta));
        let places = [norm.x.bytes.range(rows), norm.y.range(rows)];
        match norm.marks {
            None => {
                let [x, y] = pick(self.bytes, places);
                let scratch = &mut self.arena[self.memory.at(norm.scratch, rows)];
                k.int8_norm(n, rows, x, from, gamma, beta, to, bounds, y, scratch);
            }
            Some(Marks { mask, scale }) => {
                let [x, y] = places;
                let [x, y, mask] = pick(self.bytes, [x, y, mask.range(rows)]);
                let scratch = self.memory.at(norm.scratch, rows);
                let (scratch, derivative) = match scale {
                    None => (&mut self.arena[scratch], None),
                    Some((_, slot)) => {
                        let places = [scratch, self.memory.at(slot, rows)];
                        let [scratch, derivative] = pick(self.arena, places);
                        (scratch, Some(derivative))
                    }
                };
                let [above, below] = open_ends(norm.clamp);
                let out = Through {
                    above,
                    below,
                    mask,
                    derivative,
                };
                let moments = &self.moments[..rows * n.stats_len() / 2];
                k.int8_norm_through(
                    n, rows, x, moments, gamma, beta, to, bounds, y, out, scratch,
                );
            }
        }
    }
}
