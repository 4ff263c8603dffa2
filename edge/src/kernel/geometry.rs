//! Shapes of the operators, checked once when a plan is made.

use super::types::WeightKind;

/// Why a geometry was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// A size is zero.
    #[error("{what} is zero; every size of an operator must be at least 1")]
    Zero {
        /// Which size.
        what: &'static str,
    },
    /// The window does not fit into the padded input.
    #[error(
        "a window of {kernel} does not fit into {padded} padded inputs; use a smaller kernel or more padding"
    )]
    WindowTooLarge {
        /// Window size along the axis.
        kernel: usize,
        /// Inputs with padding along the axis.
        padded: usize,
    },
    /// Padding is as large as the window.
    #[error("padding {padding} is not below the kernel size {kernel}; use less padding")]
    PaddingTooLarge {
        /// Padding on one side.
        padding: usize,
        /// Window size along the axis.
        kernel: usize,
    },
    /// Channels do not fall into the groups.
    #[error("{channels} channels do not fall into {groups} equal groups; use a divisor")]
    Groups {
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
    },
    /// A pooling window has too many positions.
    #[error("a pooling window of {positions} positions is too large; at most 255 are possible")]
    PoolTooLarge {
        /// Positions of the window.
        positions: usize,
    },
    /// A size overflows.
    #[error("the operator's size overflows; use smaller shapes")]
    Overflow,
}

/// Zeros around an image: top, bottom, left, right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// No padding.
    pub const NONE: Self = Self {
        top: 0,
        bottom: 0,
        left: 0,
        right: 0,
    };

    /// The same on every side.
    #[must_use]
    pub const fn all(padding: usize) -> Self {
        Self {
            top: padding,
            bottom: padding,
            left: padding,
            right: padding,
        }
    }

    /// TensorFlow's SAME: `ceil(input / stride)` outputs, the odd zero below and on the right.
    #[must_use]
    pub fn same(input: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let total = |axis: usize| {
            let outputs = input[axis].div_ceil(stride[axis].max(1));
            (outputs.saturating_sub(1) * stride[axis] + kernel[axis]).saturating_sub(input[axis])
        };
        let (high, wide) = (total(0), total(1));
        Self {
            top: high / 2,
            bottom: high - high / 2,
            left: wide / 2,
            right: wide - wide / 2,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// A dense layer: `y[rows, outputs] = x[rows, inputs] * weight[inputs, outputs] + bias[outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Width of an input row, at least 1.
    pub inputs: usize,
    /// Width of an output row, at least 1.
    pub outputs: usize,
}

impl Dense {
    /// Numbers of scratch that the gradient of the inputs needs.
    #[must_use]
    pub fn dx_scratch_len(&self) -> usize {
        self.outputs * super::product::MAX_TILE_COLUMNS
    }

    /// Numbers in the weights as [`super::Kernels::pack_dense`] lays them out.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        super::product::packed_len(self.inputs, self.outputs)
    }

    /// Bytes of the codes of weights of four bits, as [`super::Kernels::pack_dense_four`] lays
    /// them out.
    #[must_use]
    pub fn nibbles_len(&self) -> usize {
        super::product::nibbles_len(self.inputs, self.outputs)
    }

    /// Numbers of scratch for [`super::Kernels::served_dense`]: a block of weights of four bits.
    #[must_use]
    pub fn served_scratch_len(&self, kind: WeightKind) -> usize {
        match kind {
            WeightKind::Four => super::product::unpacked_len(self.inputs, self.outputs),
            _ => 0,
        }
    }
}

/// What a convolution is, as a user says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub filters: usize,
    /// Window, `[rows, columns]`.
    pub kernel: [usize; 2],
    /// Steps between windows, `[rows, columns]`.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: Padding,
    /// Groups of channels, a divisor of `channels` and `filters`.
    pub groups: usize,
}

/// A checked convolution over NHWC inputs with HWIO weights
/// `[kernel rows, kernel columns, channels / groups, filters]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    pub(super) shape: ConvShape,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Conv {
    /// Checks the shape.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(shape: ConvShape) -> Result<Self, GeometryError> {
        for (what, size) in [
            ("the input's height", shape.height),
            ("the input's width", shape.width),
            ("the number of channels", shape.channels),
            ("the number of filters", shape.filters),
            ("the kernel's height", shape.kernel[0]),
            ("the kernel's width", shape.kernel[1]),
            ("the stride", shape.stride[0]),
            ("the stride", shape.stride[1]),
            ("the number of groups", shape.groups),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        for channels in [shape.channels, shape.filters] {
            if !channels.is_multiple_of(shape.groups) {
                return Err(GeometryError::Groups {
                    channels,
                    groups: shape.groups,
                });
            }
        }
        let pad = shape.padding;
        let out_height = windows(
            shape.height,
            [pad.top, pad.bottom],
            shape.kernel[0],
            shape.stride[0],
        )?;
        let out_width = windows(
            shape.width,
            [pad.left, pad.right],
            shape.kernel[1],
            shape.stride[1],
        )?;
        let checked = [
            shape.height + shape.kernel[0],
            shape.width + shape.kernel[1],
            shape.kernel[0] * shape.kernel[1],
            shape.channels.max(shape.filters),
        ]
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
        if checked.is_none() {
            return Err(GeometryError::Overflow);
        }
        Ok(Self {
            shape,
            out_height,
            out_width,
        })
    }

    /// The shape as given.
    #[must_use]
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Output rows.
    #[must_use]
    pub fn out_height(&self) -> usize {
        self.out_height
    }

    /// Output columns.
    #[must_use]
    pub fn out_width(&self) -> usize {
        self.out_width
    }

    /// Numbers in one example's input, unpadded.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.shape.height * self.shape.width * self.shape.channels
    }

    /// Numbers in one example's output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.out_height * self.out_width * self.shape.filters
    }

    /// Numbers in the weights.
    #[must_use]
    pub fn weight_len(&self) -> usize {
        let [kh, kw] = self.shape.kernel;
        kh * kw * (self.shape.channels / self.shape.groups) * self.shape.filters
    }

    /// Whether the input must be copied into a padded buffer by [`super::Kernels::pad`]. When
    /// not, the kernels take the input itself.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        !self.shape.padding.is_none()
    }

    /// Numbers in one example's padded input; equals `input_len` without padding.
    #[must_use]
    pub fn padded_len(&self) -> usize {
        self.padded_height() * self.padded_width() * self.shape.channels
    }

    /// Numbers in the weights as [`super::Kernels::pack_conv`] lays them out.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        if self.is_depthwise() {
            return self.weight_len();
        }
        let [kh, kw] = self.shape.kernel;
        let groups = self.shape.groups;
        let terms = kh * kw * (self.shape.channels / groups);
        groups * super::product::packed_len(terms, self.shape.filters / groups)
    }

    /// Terms and outputs of the product that each of its groups is.
    fn group_product(&self) -> [usize; 2] {
        let ConvShape {
            kernel: [high, wide],
            channels,
            filters,
            groups,
            ..
        } = self.shape;
        [high * wide * (channels / groups), filters / groups]
    }

    /// Bytes of the codes of weights of four bits, as [`super::Kernels::pack_conv_four`] lays them
    /// out.
    #[must_use]
    pub fn nibbles_len(&self) -> usize {
        let [terms, columns] = self.group_product();
        self.shape.groups * super::product::nibbles_len(terms, columns)
    }

    /// Numbers of scratch for [`super::Kernels::served_conv`]: a band of a padded image where one
    /// is needed, the widened weights of one filter per channel, and a block of those of four
    /// bits.
    #[must_use]
    pub fn served_scratch_len(&self, kind: WeightKind) -> usize {
        if self.is_depthwise() {
            return match kind {
                WeightKind::Half | WeightKind::Eight => self.weight_len(),
                _ => 0,
            };
        }
        let band = match self.is_padded() {
            true => self.band_len::<f32>(),
            false => 0,
        };
        let [terms, columns] = self.group_product();
        band + match kind {
            WeightKind::Four => super::product::unpacked_len(terms, columns),
            _ => 0,
        }
    }

    /// Numbers of scratch for the gradient of the inputs at a batch of `rows`.
    #[must_use]
    pub fn dx_scratch_len(&self, rows: usize) -> usize {
        if self.is_depthwise() {
            return 0;
        }
        if self.has_unit_stride() {
            rows * self.transposed_padded_len() + self.weight_len()
        } else {
            let [kh, kw] = self.shape.kernel;
            let columns = kh * kw * (self.shape.channels / self.shape.groups);
            self.out_height * self.out_width * columns + self.input_len() + self.weight_len()
        }
    }

    /// Numbers of scratch for the gradient of the weights.
    #[must_use]
    pub fn dw_scratch_len(&self) -> usize {
        self.weight_len()
    }

    pub(super) fn padded_height(&self) -> usize {
        self.shape.height + self.shape.padding.top + self.shape.padding.bottom
    }

    pub(super) fn padded_width(&self) -> usize {
        self.shape.width + self.shape.padding.left + self.shape.padding.right
    }

    pub(super) fn has_unit_stride(&self) -> bool {
        self.shape.stride == [1, 1]
    }

    /// One position at a time: a plain product.
    pub(super) fn is_pointwise(&self) -> bool {
        self.shape.kernel == [1, 1]
            && self.has_unit_stride()
            && self.shape.groups == 1
            && !self.is_padded()
    }

    /// One filter per channel, nothing mixed.
    #[must_use]
    pub fn is_depthwise(&self) -> bool {
        self.shape.groups == self.shape.channels && self.shape.filters == self.shape.channels
    }

    /// Columns of the padded output gradient of the transposed convolution.
    pub(super) fn transposed_width(&self) -> usize {
        self.shape.width + self.shape.kernel[1] - 1
    }

    pub(super) fn transposed_height(&self) -> usize {
        self.shape.height + self.shape.kernel[0] - 1
    }

    pub(super) fn transposed_padded_len(&self) -> usize {
        self.transposed_height() * self.transposed_width() * self.shape.filters
    }
}

fn windows(
    input: usize,
    padding: [usize; 2],
    kernel: usize,
    stride: usize,
) -> Result<usize, GeometryError> {
    for padding in padding {
        if padding >= kernel {
            return Err(GeometryError::PaddingTooLarge { padding, kernel });
        }
    }
    let padded = input + padding[0] + padding[1];
    if padded < kernel {
        return Err(GeometryError::WindowTooLarge { kernel, padded });
    }
    Ok((padded - kernel) / stride + 1)
}

/// Pooling over NHWC images. Padding never takes part: a maximum ignores it and an average is
/// over the inputs in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: Padding,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Pool {
    /// Checks the shape; `input` is `[height, width, channels]`.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(
        input: [usize; 3],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    ) -> Result<Self, GeometryError> {
        let [height, width, channels] = input;
        for (what, size) in [
            ("the input's height", height),
            ("the input's width", width),
            ("the number of channels", channels),
            ("the window's height", kernel[0]),
            ("the window's width", kernel[1]),
            ("the stride", stride[0]),
            ("the stride", stride[1]),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        let positions = kernel[0].saturating_mul(kernel[1]);
        if positions > 255 {
            return Err(GeometryError::PoolTooLarge { positions });
        }
        let out_height = windows(height, [padding.top, padding.bottom], kernel[0], stride[0])?;
        let out_width = windows(width, [padding.left, padding.right], kernel[1], stride[1])?;
        Ok(Self {
            height,
            width,
            channels,
            kernel,
            stride,
            padding,
            out_height,
            out_width,
        })
    }

    /// The input, `[height, width, channels]`.
    pub(crate) fn input(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// The window, `[rows, columns]`.
    #[must_use]
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// Steps between windows, `[rows, columns]`.
    #[must_use]
    pub fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// What surrounds the input.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Output rows.
    #[must_use]
    pub fn out_height(&self) -> usize {
        self.out_height
    }

    /// Output columns.
    #[must_use]
    pub fn out_width(&self) -> usize {
        self.out_width
    }

    /// Numbers in one example's input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Numbers in one example's output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.out_height * self.out_width * self.channels
    }

    /// Input rows or columns that the window at `out` covers, and the window's first position
    /// inside the input.
    pub(super) fn span(&self, axis: usize, out: usize) -> (core::ops::Range<usize>, usize) {
        let (size, pad) = match axis {
            0 => (self.height, self.padding.top),
            _ => (self.width, self.padding.left),
        };
        let start = out * self.stride[axis];
        let first = pad.saturating_sub(start);
        let end = (start + self.kernel[axis]).saturating_sub(pad).min(size);
        let begin = (start + first - pad).min(end);
        (begin..end, first)
    }
}

/// Group normalisation over NHWC images; with one group and one position, layer normalisation.
///
/// # Source
/// Wu & He 2018, arXiv:1803.08494, equations 1 to 4 and 6; Ba, Kiros & Hinton 2016,
/// arXiv:1607.06450, equation 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Parts of an example that are normalised each by itself.
    pub(super) repeats: usize,
    pub(super) positions: usize,
    pub(super) channels: usize,
    pub(super) groups: usize,
    pub(super) epsilon: f32,
}

impl Norm {
    /// Checks the shape: `positions` (height times width, or 1) of `channels` in `groups`.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(
        positions: usize,
        channels: usize,
        groups: usize,
        epsilon: f32,
    ) -> Result<Self, GeometryError> {
        for (what, size) in [
            ("the number of positions", positions),
            ("the number of channels", channels),
            ("the number of groups", groups),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        if !channels.is_multiple_of(groups) {
            return Err(GeometryError::Groups { channels, groups });
        }
        Ok(Self {
            repeats: 1,
            positions,
            channels,
            groups,
            epsilon,
        })
    }

    /// The same for examples of `repeats` (at least 1) such parts one after the other, each
    /// normalised by itself: layer normalisation at every position of a sequence.
    #[must_use]
    pub fn repeated(self, repeats: usize) -> Self {
        Self {
            repeats: repeats.max(1),
            ..self
        }
    }

    /// Parts of an example that are normalised each by itself.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.repeats
    }

    /// One part alone, and how many of them `rows` examples have.
    pub(super) fn parts(&self, rows: usize) -> (Self, usize) {
        (self.repeated(1), rows * self.repeats)
    }

    /// Positions of a part.
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    /// Channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Groups of channels.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// What is added to the variance.
    #[must_use]
    pub fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Numbers in one example.
    #[must_use]
    pub fn example_len(&self) -> usize {
        self.repeats * self.positions * self.channels
    }

    /// Statistics kept for one example: mean and reciprocal deviation of each group.
    #[must_use]
    pub fn stats_len(&self) -> usize {
        2 * self.repeats * self.groups
    }

    /// Numbers of scratch that every normalisation kernel needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        4 * self.channels
    }
}

/// Batch normalisation over NHWC images or rows.
///
/// # Source
/// Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    pub(super) positions: usize,
    pub(super) channels: usize,
    pub(super) epsilon: f32,
}

impl BatchNorm {
    /// Checks the shape: `positions` (height times width, or 1) of `channels`; `epsilon` is added
    /// to variances.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(positions: usize, channels: usize, epsilon: f32) -> Result<Self, GeometryError> {
        for (what, size) in [
            ("the number of positions", positions),
            ("the number of channels", channels),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        Ok(Self {
            positions,
            channels,
            epsilon,
        })
    }

    /// Positions of an example.
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    /// Channels.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// What is added to the variance.
    pub(crate) fn epsilon(&self) -> f32 {
        self.epsilon
    }

    /// Numbers in one example.
    #[must_use]
    pub fn example_len(&self) -> usize {
        self.positions * self.channels
    }

    /// Statistics of a batch: mean, reciprocal deviation and variance of each channel, and what the
    /// backward pass adds to them.
    #[must_use]
    pub fn stats_len(&self) -> usize {
        4 * self.channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ConvShape = ConvShape {
        height: 8,
        width: 9,
        channels: 4,
        filters: 6,
        kernel: [3, 3],
        stride: [2, 1],
        padding: Padding::NONE,
        groups: 2,
    };

    #[test]
    fn same_padding_is_tensorflows() {
        // (input, kernel, stride) to (before, after), as TensorFlow's documentation has it.
        for (input, kernel, stride, before, after) in [
            (28, 5, 1, 2, 2),
            (14, 2, 2, 0, 0),
            (13, 6, 5, 1, 2),
            (8, 3, 2, 0, 1),
            (7, 1, 2, 0, 0),
        ] {
            let same = Padding::same([input; 2], [kernel; 2], [stride; 2]);
            assert_eq!((same.top, same.bottom), (before, after));
            assert_eq!((same.left, same.right), (before, after));
            let shape = ConvShape {
                height: input,
                width: input,
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: same,
                ..SHAPE
            };
            let conv = Conv::new(shape).expect("a valid shape");
            assert_eq!(conv.out_height(), input.div_ceil(stride));
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let wrong = |change: fn(&mut ConvShape)| {
            let mut shape = SHAPE;
            change(&mut shape);
            Conv::new(shape)
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        for (change, message) in [
            (
                (|s| s.stride[1] = 0) as fn(&mut ConvShape),
                "the stride is zero; every size of an operator must be at least 1",
            ),
            (
                |s| s.groups = 3,
                "4 channels do not fall into 3 equal groups; use a divisor",
            ),
            (
                |s| s.kernel = [9, 3],
                "a window of 9 does not fit into 8 padded inputs; use a smaller kernel or more padding",
            ),
            (
                |s| s.padding.left = 3,
                "padding 3 is not below the kernel size 3; use less padding",
            ),
            (
                |s| s.height = usize::MAX / 2,
                "the operator's size overflows; use smaller shapes",
            ),
        ] {
            assert_eq!(wrong(change), Err(message.to_owned()));
        }
        assert_eq!(
            Pool::new([64, 64, 1], [16, 16], [1, 1], Padding::NONE),
            Err(GeometryError::PoolTooLarge { positions: 256 })
        );
        assert_eq!(
            Norm::new(4, 6, 4, 1e-5),
            Err(GeometryError::Groups {
                channels: 6,
                groups: 4
            })
        );
    }
}
