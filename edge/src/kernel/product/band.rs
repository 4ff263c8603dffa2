//! Bands of a padded image: what a served convolution copies of its input.
//!
//! A convolution with a border around its image is computed some lines of the output at a time,
//! over a copy of just the input's lines that their windows cover. The copy stays in the first
//! cache, and what it was made of may be overwritten: lines of the output never lie before lines
//! of the input that are yet to be copied, so an output of the input's shape can take its place.

use super::super::geometry::Conv;
use super::super::types::{After, WeightKind, Weights};
use super::super::{Kernels, need};

/// A band of at most so many bytes leaves most of the first cache to the weights.
const BAND_BYTES: usize = 8 * 1024;

/// A band has so many positions of the output where the image does, so that large weights are
/// not read again for few of them.
const BAND_POSITIONS: usize = 64;

impl Conv {
    /// Numbers in a line of a padded image.
    pub(in super::super) fn padded_line(&self) -> usize {
        self.padded_width() * self.shape.channels
    }

    /// Lines of the padded image that so many lines of the output cover.
    fn covered(&self, lines: usize) -> usize {
        (lines - 1) * self.shape.stride[0] + self.shape.kernel[0]
    }

    /// Lines of the output that are computed from one band of numbers of type `T`: about equally
    /// many in every band.
    fn band_lines<T>(&self) -> usize {
        let line = self.padded_line() * size_of::<T>();
        let most = (BAND_BYTES / line).saturating_sub(self.shape.kernel[0]);
        let cached = most / self.shape.stride[0] + 1;
        let lines = cached.max(BAND_POSITIONS.div_ceil(self.out_width));
        self.out_height.div_ceil(self.out_height.div_ceil(lines))
    }

    /// Numbers in a band.
    pub(in super::super) fn band_len<T>(&self) -> usize {
        self.covered(self.band_lines::<T>()) * self.padded_line()
    }

    /// Panics unless these are all weights of the convolution, in a form that there is.
    pub(in super::super) fn check_weights(&self, weights: Weights<'_>) {
        let s = &self.shape;
        match weights.kind() {
            WeightKind::Four => assert!(!self.is_depthwise(), "one filter per channel"),
            WeightKind::Eight => assert!(self.is_depthwise(), "not one filter per channel"),
            WeightKind::Single | WeightKind::Half => {}
        }
        let terms = self.weight_len() / s.filters;
        weights.check(self.packed_len(), terms, s.filters, s.groups);
    }

    /// Whether [`Kernels::served_conv_in_place`] computes it: the output has the input's shape,
    /// and windows cover lines around their own.
    #[must_use]
    pub fn serves_in_place(&self) -> bool {
        let s = &self.shape;
        self.is_padded()
            && !self.is_depthwise()
            && s.stride == [1, 1]
            && s.channels == s.filters
            && (s.height, s.width) == (self.out_height, self.out_width)
    }
}

/// The lines of one image's band.
#[derive(Debug)]
pub(in super::super) struct Band<'a, T> {
    conv: &'a Conv,
    /// What is around the image.
    border: T,
    lines: &'a mut [T],
    /// The lines of the padded image that are held.
    first: usize,
    end: usize,
    /// The line of the output that comes next.
    next: usize,
}

/// Some lines of an output, and what they cover.
#[derive(Debug)]
pub(in super::super) struct Part<'a, T> {
    /// The first line.
    pub(in super::super) first: usize,
    /// Lines.
    pub(in super::super) count: usize,
    /// Lines of the padded image from the first one that they cover.
    pub(in super::super) covered: &'a [T],
}

impl<'a, T: Copy> Band<'a, T> {
    /// Nothing of an image yet; `scratch` holds [`Conv::band_len`].
    pub(in super::super) fn new(conv: &'a Conv, border: T, scratch: &'a mut [T]) -> Self {
        Self {
            conv,
            border,
            lines: scratch,
            first: 0,
            end: 0,
            next: 0,
        }
    }

    /// The next lines of the output of one image, if any are left. What is held already is not
    /// read from the image again.
    pub(in super::super) fn next(&mut self, image: &[T]) -> Option<Part<'_, T>> {
        let (c, s) = (self.conv, &self.conv.shape);
        let line = c.padded_line();
        let first = self.next;
        let count = c.band_lines::<T>().min(c.out_height - first);
        if count == 0 {
            return None;
        }
        let start = first * s.stride[0];
        let end = start + c.covered(count);
        let kept = start.min(self.end) - self.first..self.end - self.first;
        self.lines
            .copy_within(kept.start * line..kept.end * line, 0);
        let (left, width) = (s.padding.left * s.channels, s.width * s.channels);
        for padded in self.end.max(start)..end {
            let to = &mut self.lines[(padded - start) * line..][..line];
            let from = padded.wrapping_sub(s.padding.top);
            if from < s.height {
                to[..left].fill(self.border);
                to[left..left + width].copy_from_slice(&image[from * width..][..width]);
                to[left + width..].fill(self.border);
            } else {
                to.fill(self.border);
            }
        }
        (self.first, self.end, self.next) = (start, end, first + count);
        Some(Part {
            first,
            count,
            covered: &self.lines[..(end - start) * line],
        })
    }
}

impl Kernels {
    /// [`Kernels::served_conv`] of what lies in `y`, which becomes the output, to the same bits.
    /// The residual lies elsewhere.
    ///
    /// `scratch` holds at least [`Conv::served_scratch_len`].
    ///
    /// # Panics
    /// Also where not [`Conv::serves_in_place`].
    pub fn served_conv_in_place(
        &self,
        c: &Conv,
        rows: usize,
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        after: After<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        assert!(c.serves_in_place(), "{c:?} does not serve in place");
        c.check_weights(weight);
        bias.inspect(|b| need("the bias", b, c.shape.filters));
        after
            .residual
            .inspect(|r| need("the residual", r, rows.saturating_mul(c.output_len())));
        need("y", y, rows.saturating_mul(c.output_len()));
        need("the scratch", scratch, c.served_scratch_len(weight.kind()));
        super::packed::conv(self.isa, c, rows, None, weight, bias, after, y, scratch);
    }
}
