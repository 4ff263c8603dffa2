//! Recurrent layers: long short-term memory and gated recurrent units.
//!
//! A layer's products with its inputs are one product for all positions, made by the layer before
//! (a dense layer over the sequence). Here the gates that it gives become states, position by
//! position:
//!
//! ```text
//! LSTM, gates i o f g:   s = h' R
//!                        i = sigmoid(x_i + s_i), o and f likewise, g = tanh(x_g + s_g)
//!                        c = fma(f, c', i g),  h = o tanh(c)
//! GRU, gates z r n:      s = h' R
//!                        z = sigmoid(x_z + s_z), r likewise, q = s_n + b
//!                        n = tanh(fma(r, q, x_n)),  h = fma(z, h' - n, n)
//! ```
//!
//! `h'` and `c'` are those of the position before, zero before the first. The order of gates and
//! the formulas are ONNX's (`LSTM`; `GRU` with `linear_before_reset = 1`). The product `h' R` is
//! that of [`Kernels::dense`], over all rows of a batch at once. Served in integers it is that of
//! [`Kernels::int8_dense`] over the state in integers; everything else stays in floats, as a cell
//! adds up over positions what eight bits would lose.
//!
//! # Source
//! Hochreiter & Schmidhuber 1997, "Long short-term memory", with the forget gate of Gers et al.
//! 2000; Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product as in cuDNN.

use super::geometry::{Dense, GeometryError};
use super::int8::{self, Affine, End};
use super::math;
use super::product;
use super::simd::{map, vectorized};
use super::types::{After, Fused, Gradient, Weights};
use super::{Kernels, elementwise, need, need_gradient};

/// What a recurrent layer computes at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory; gates in the order input, output, forget, cell.
    Lstm,
    /// A gated recurrent unit; gates in the order update, reset, hidden.
    Gru,
}

impl Cell {
    /// How many gates it has.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// The shape of a recurrent layer: gates `[steps, gates * units]` become states `[steps, units]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrent {
    pub(super) cell: Cell,
    pub(super) steps: usize,
    pub(super) units: usize,
}

impl Recurrent {
    /// Checks the shape.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(cell: Cell, steps: usize, units: usize) -> Result<Self, GeometryError> {
        for (what, size) in [
            ("the number of positions", steps),
            ("the number of units", units),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        Ok(Self { cell, steps, units })
    }

    /// What it computes at a position.
    #[must_use]
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// Positions.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Numbers of a state.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units
    }

    /// Numbers of one position's gates.
    #[must_use]
    pub fn gate_width(&self) -> usize {
        self.cell.gates() * self.units
    }

    /// Numbers of one example's gates.
    #[must_use]
    pub fn gates_len(&self) -> usize {
        self.steps * self.gate_width()
    }

    /// Numbers of one example's states.
    #[must_use]
    pub fn states_len(&self) -> usize {
        self.steps * self.units
    }

    /// The product of a state with the recurrent weight `[units, gates * units]`.
    #[must_use]
    pub fn product(&self) -> Dense {
        Dense {
            inputs: self.units,
            outputs: self.gate_width(),
        }
    }

    /// Numbers of scratch for each example, forward.
    #[must_use]
    pub fn forward_scratch_len(&self) -> usize {
        self.units + self.gate_width()
    }

    /// Numbers of scratch for each example, backward.
    #[must_use]
    pub fn backward_scratch_len(&self) -> usize {
        2 * self.units + self.gate_width()
    }

    /// Numbers of the transposed recurrent weight.
    #[must_use]
    pub fn transposed_len(&self) -> usize {
        self.units * self.gate_width()
    }
}

/// A row cut into equal parts.
#[inline(always)]
fn parts<const N: usize>(row: &[f32], width: usize) -> [&[f32]; N] {
    core::array::from_fn(|part| &row[part * width..(part + 1) * width])
}

/// The same, to be written.
#[inline(always)]
fn parts_mut<const N: usize>(row: &mut [f32], width: usize) -> [&mut [f32]; N] {
    let mut parts = row.chunks_exact_mut(width);
    core::array::from_fn(|_| match parts.next() {
        Some(part) => part,
        None => unreachable!("a row holds all its gates"),
    })
}

vectorized! {
    fn lstm(
        v,
        r: &Recurrent,
        rows: usize,
        step: usize,
        sums: &[f32],
        gates: &mut [f32],
        cells: &mut [f32],
        state: &mut [f32],
        y: &mut [f32],
    ) {
        let units = r.units;
        for row in 0..rows {
            let at = row * r.steps + step;
            let sums = &sums[row * 4 * units..][..4 * units];
            let [ri, ro, rf, rg] = parts::<4>(sums, units);
            let gates = &mut gates[at * 4 * units..][..4 * units];
            let [i, o, f, g] = parts_mut::<4>(gates, units);
            match step {
                0 => cells[at * units..][..units].fill(0.0),
                _ => cells.copy_within((at - 1) * units..at * units, at * units),
            }
            let cell = &mut cells[at * units..][..units];
            let state = &mut state[row * units..][..units];
            let y = &mut y[at * units..][..units];
            map!(v, units; xi = i, xo = o, xf = f, xg = g, si = ri, so = ro, sf = rf, sg = rg, c = cell; {
                let input = math::sigmoid(v, v.add(xi, si));
                let output = math::sigmoid(v, v.add(xo, so));
                let forget = math::sigmoid(v, v.add(xf, sf));
                let fresh = math::tanh(v, v.add(xg, sg));
                let next = v.fma(forget, c, v.mul(input, fresh));
                let h = v.mul(output, math::tanh(v, next));
            } i => input, o => output, f => forget, g => fresh, cell => next, state => h, y => h);
        }
    }

    fn gru(
        v,
        r: &Recurrent,
        rows: usize,
        step: usize,
        sums: &[f32],
        bias: &[f32],
        gates: &mut [f32],
        kept: &mut [f32],
        state: &mut [f32],
        y: &mut [f32],
    ) {
        let units = r.units;
        for row in 0..rows {
            let at = row * r.steps + step;
            let sums = &sums[row * 3 * units..][..3 * units];
            let [rz, rr, rn] = parts::<3>(sums, units);
            let gates = &mut gates[at * 3 * units..][..3 * units];
            let [z, reset, n] = parts_mut::<3>(gates, units);
            let kept = &mut kept[at * units..][..units];
            let state = &mut state[row * units..][..units];
            let y = &mut y[at * units..][..units];
            map!(v, units; xz = z, xr = reset, xn = n, sz = rz, sr = rr, sn = rn, b = bias, before = state; {
                let update = math::sigmoid(v, v.add(xz, sz));
                let open = math::sigmoid(v, v.add(xr, sr));
                let q = v.add(sn, b);
                let fresh = math::tanh(v, v.fma(open, q, xn));
                let h = v.fma(update, v.sub(before, fresh), fresh);
            } z => update, reset => open, n => fresh, kept => q, state => h, y => h);
        }
    }

    /// One position backward: `sums` holds what later positions ask of the state by the product,
    /// then the gradients of this position's gates.
    fn lstm_back(
        v,
        r: &Recurrent,
        rows: usize,
        step: usize,
        dy: &[f32],
        asked: &[f32],
        carry: &mut [f32],
        gates: &mut [f32],
        cells: &[f32],
        zeros: &[f32],
        sums: &mut [f32],
    ) {
        let units = r.units;
        for row in 0..rows {
            let at = row * r.steps + step;
            let dy = &dy[at * units..][..units];
            let asked = &asked[row * units..][..units];
            let carry = &mut carry[row * units..][..units];
            let gates = &mut gates[at * 4 * units..][..4 * units];
            let [i, o, f, g] = parts_mut::<4>(gates, units);
            let sums = &mut sums[row * 4 * units..][..4 * units];
            let [si, so, sf, sg] = parts_mut::<4>(sums, units);
            let cell = &cells[at * units..][..units];
            let before = match step {
                0 => &zeros[..units],
                _ => &cells[(at - 1) * units..][..units],
            };
            let one = v.splat(1.0);
            map!(v, units; d = dy, a = asked, k = carry, ai = i, ao = o, af = f, ag = g, c = cell, b = before; {
                let dh = v.add(d, a);
                let t = math::tanh(v, c);
                let dc = v.fma(v.mul(dh, ao), v.sub(one, v.mul(t, t)), k);
                let di = v.mul(v.mul(dc, ag), v.mul(ai, v.sub(one, ai)));
                let dout = v.mul(v.mul(dh, t), v.mul(ao, v.sub(one, ao)));
                let df = v.mul(v.mul(dc, b), v.mul(af, v.sub(one, af)));
                let dg = v.mul(v.mul(dc, ai), v.sub(one, v.mul(ag, ag)));
                let next = v.mul(dc, af);
            } carry => next, i => di, o => dout, f => df, g => dg, si => di, so => dout, sf => df, sg => dg);
        }
    }

    fn gru_back(
        v,
        r: &Recurrent,
        rows: usize,
        step: usize,
        dy: &[f32],
        asked: &[f32],
        carry: &mut [f32],
        gates: &mut [f32],
        kept: &mut [f32],
        previous: &[f32],
        sums: &mut [f32],
    ) {
        let units = r.units;
        for row in 0..rows {
            let at = row * r.steps + step;
            let dy = &dy[at * units..][..units];
            let asked = &asked[row * units..][..units];
            let carry = &mut carry[row * units..][..units];
            let gates = &mut gates[at * 3 * units..][..3 * units];
            let [z, reset, n] = parts_mut::<3>(gates, units);
            let sums = &mut sums[row * 3 * units..][..3 * units];
            let [sz, sr, sn] = parts_mut::<3>(sums, units);
            let kept = &mut kept[at * units..][..units];
            let before = &previous[at * units..][..units];
            let one = v.splat(1.0);
            map!(v, units; d = dy, a = asked, k = carry, az = z, ar = reset, an = n, q = kept, b = before; {
                let dh = v.add(v.add(d, a), k);
                let dz = v.mul(v.mul(dh, v.sub(b, an)), v.mul(az, v.sub(one, az)));
                let dn = v.mul(v.mul(dh, v.sub(one, az)), v.sub(one, v.mul(an, an)));
                let dr = v.mul(v.mul(dn, q), v.mul(ar, v.sub(one, ar)));
                let dq = v.mul(dn, ar);
                let next = v.mul(dh, az);
            } carry => next, z => dz, reset => dr, n => dn, sz => dz, sr => dr, sn => dq, kept => dq);
        }
    }
}

impl Kernels {
    /// A recurrent layer over gates `[rows, steps, gates * units]`, which become the gates' values.
    /// `y` receives the states, `kept` (as long) what the backward pass needs: an LSTM's cells, a
    /// GRU's `q`. `weight` is `[units, gates * units]`; `bias` a GRU's, `[units]`, and empty for an
    /// LSTM.
    ///
    /// `scratch` holds [`Recurrent::forward_scratch_len`] for each row.
    pub fn recurrent(
        &self,
        r: &Recurrent,
        rows: usize,
        gates: &mut [f32],
        weight: &[f32],
        bias: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("the weight", weight, r.transposed_len());
        let d = r.product();
        self.positions(r, rows, gates, bias, y, kept, scratch, |state, sums| {
            product::dense(self.isa, &d, rows, state, weight, None, Fused::None, sums);
        });
    }

    /// [`Kernels::recurrent`] over a weight that was packed for [`Kernels::served_dense`], to the
    /// bits that it gives for the numbers that are stored.
    ///
    /// `block` holds [`Dense::served_scratch_len`] of [`Recurrent::product`].
    pub fn served_recurrent(
        &self,
        r: &Recurrent,
        rows: usize,
        gates: &mut [f32],
        weight: Weights<'_>,
        bias: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
        scratch: &mut [f32],
        block: &mut [f32],
    ) {
        let d = r.product();
        let after = After {
            first: Fused::None,
            residual: None,
            last: Fused::None,
        };
        self.positions(r, rows, gates, bias, y, kept, scratch, |state, sums| {
            self.served_dense(&d, rows, state, weight, None, after, sums, block);
        });
    }

    /// [`Kernels::recurrent`] with the product in integers: of the state as integers of `point` with
    /// a weight from [`Packing::dense`](super::int8::Packing::dense), packed for its zero point.
    /// `scales` is what a step of a sum is worth, once or for each gate of each unit.
    ///
    /// `codes` holds [`Recurrent::units`] for each row.
    pub fn int8_recurrent(
        &self,
        r: &Recurrent,
        rows: usize,
        gates: &mut [f32],
        point: Affine,
        (packed, folded, scales): (&[i8], &[i32], &[f32]),
        bias: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
        scratch: &mut [f32],
        codes: &mut [u8],
    ) {
        let d = r.product();
        int8::need("the codes", codes, rows.saturating_mul(r.units));
        let codes = &mut codes[..rows * r.units];
        self.positions(r, rows, gates, bias, y, kept, scratch, |state, sums| {
            self.int8_quantize(point, state, codes);
            let end = End::Dequantize { scales, y: sums };
            self.int8_dense(&d, rows, codes, packed, folded, end);
        });
    }

    /// Position by position, with `product` for `h' R`: of `[rows, units]` to
    /// `[rows, gates * units]`.
    fn positions(
        &self,
        r: &Recurrent,
        rows: usize,
        gates: &mut [f32],
        bias: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
        scratch: &mut [f32],
        mut product: impl FnMut(&[f32], &mut [f32]),
    ) {
        need("the gates", gates, rows.saturating_mul(r.gates_len()));
        need("y", y, rows.saturating_mul(r.states_len()));
        need("what is kept", kept, rows.saturating_mul(r.states_len()));
        need(
            "the scratch",
            scratch,
            rows.saturating_mul(r.forward_scratch_len()),
        );
        if r.cell == Cell::Gru {
            need("the bias", bias, r.units);
        }
        let (state, sums) = scratch.split_at_mut(rows * r.units);
        state.fill(0.0);
        let sums = &mut sums[..rows * r.gate_width()];
        for step in 0..r.steps {
            match step {
                0 => sums.fill(0.0),
                _ => product(state, sums),
            }
            match r.cell {
                Cell::Lstm => lstm(self.isa, r, rows, step, sums, gates, kept, state, y),
                Cell::Gru => gru(self.isa, r, rows, step, sums, bias, gates, kept, state, y),
            }
        }
    }

    /// Gradient of a recurrent layer's gates, in place of their values, by back-propagation
    /// through all positions. What [`Kernels::recurrent_dw`] needs takes the place of a GRU's
    /// `kept`, and `previous` (as long as `y`) receives the state before each position.
    ///
    /// `scratch` holds [`Recurrent::backward_scratch_len`] for each row and, behind that,
    /// [`Recurrent::transposed_len`].
    pub fn recurrent_dx(
        &self,
        r: &Recurrent,
        rows: usize,
        y: &[f32],
        dy: &[f32],
        weight: &[f32],
        gates: &mut [f32],
        kept: &mut [f32],
        previous: &mut [f32],
        scratch: &mut [f32],
    ) {
        let states = rows.saturating_mul(r.states_len());
        need("the gates", gates, rows.saturating_mul(r.gates_len()));
        need("the weight", weight, r.transposed_len());
        need("y", y, states);
        need("dy", dy, states);
        need("what is kept", kept, states);
        need("the previous states", previous, states);
        let units = r.units;
        let width = r.gate_width();
        need(
            "the scratch",
            scratch,
            rows.saturating_mul(r.backward_scratch_len()) + r.transposed_len(),
        );
        for row in 0..rows {
            let here = row * r.states_len()..(row + 1) * r.states_len();
            let (y, previous) = (&y[here.clone()], &mut previous[here]);
            let (first, rest) = previous.split_at_mut(units);
            first.fill(0.0);
            rest.copy_from_slice(&y[..y.len() - units]);
        }
        let (asked, rest) = scratch.split_at_mut(rows * units);
        let (carry, rest) = rest.split_at_mut(rows * units);
        let (sums, transposed) = rest.split_at_mut(rows * width);
        let back = Dense {
            inputs: width,
            outputs: units,
        };
        product::transpose(self.isa, units, width, weight, transposed);
        asked.fill(0.0);
        carry.fill(0.0);
        for step in (0..r.steps).rev() {
            match r.cell {
                Cell::Lstm => lstm_back(
                    self.isa, r, rows, step, dy, asked, carry, gates, kept, previous, sums,
                ),
                Cell::Gru => gru_back(
                    self.isa, r, rows, step, dy, asked, carry, gates, kept, previous, sums,
                ),
            }
            if step > 0 {
                product::dense(
                    self.isa,
                    &back,
                    rows,
                    sums,
                    transposed,
                    None,
                    Fused::None,
                    asked,
                );
            }
        }
    }

    /// Gradient of the recurrent weight after [`Kernels::recurrent_dx`]: `previous^T * gates`,
    /// rows and positions ascending.
    pub fn recurrent_dw(
        &self,
        r: &Recurrent,
        rows: usize,
        previous: &[f32],
        gates: &[f32],
        kept: &[f32],
        gradient: Gradient<'_>,
    ) {
        need("the gates", gates, rows.saturating_mul(r.gates_len()));
        need(
            "the previous states",
            previous,
            rows.saturating_mul(r.states_len()),
        );
        need_gradient(&gradient, r.transposed_len());
        let (d, terms, width) = (r.product(), rows * r.steps, r.gate_width());
        match r.cell {
            Cell::Lstm => product::dense_dw(self.isa, &d, terms, previous, gates, gradient),
            Cell::Gru => {
                need("what is kept", kept, rows.saturating_mul(r.states_len()));
                let both = [
                    ((gates, width), [0, 2 * r.units]),
                    ((kept, r.units), [2 * r.units, r.units]),
                ];
                let mut gradient = gradient;
                for (dy, columns) in both {
                    let part = match &mut gradient {
                        Gradient::Store(to) => Gradient::Store(to),
                        Gradient::Accumulate(to) => Gradient::Accumulate(to),
                        Gradient::Step {
                            weights,
                            anchor,
                            step,
                        } => Gradient::Step {
                            weights,
                            anchor,
                            step: *step,
                        },
                    };
                    product::columns_dw(self.isa, &d, terms, previous, dy, columns, part);
                }
            }
        }
    }

    /// Gradient of a GRU's recurrent bias after [`Kernels::recurrent_dx`], rows and positions
    /// ascending.
    pub fn recurrent_db(&self, r: &Recurrent, rows: usize, kept: &[f32], gradient: Gradient<'_>) {
        need("what is kept", kept, rows.saturating_mul(r.states_len()));
        need_gradient(&gradient, r.units);
        elementwise::column_sums(self.isa, rows * r.steps, r.units, kept, gradient);
    }
}
