//! Pooling over NHWC images, vectorised over channels.

use super::geometry::Pool;
use super::simd::{map, vectorized};

vectorized! {
    fn max_pool(v, p: &Pool, rows: usize, x: &[f32], y: &mut [f32], argmax: &mut [u8]) {
        let channels = p.channels;
        let mut at = 0;
        for row in 0..rows {
            let image = &x[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, first_h) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, first_w) = p.span(1, ow);
                    let best = &mut y[at..at + channels];
                    let position = &mut argmax[at..at + channels];
                    let mut begun = false;
                    for h in high.clone() {
                        for w in wide.clone() {
                            let here = (first_h + h - high.start) * p.kernel[1]
                                + first_w + w - wide.start;
                            let x = &image[(h * p.width + w) * channels..][..channels];
                            if begun {
                                for ((x, best), position) in x.iter().zip(&mut *best).zip(&mut *position) {
                                    let larger = *x > *best;
                                    *best = if larger { *x } else { *best };
                                    *position = if larger { here as u8 } else { *position };
                                }
                            } else {
                                best.copy_from_slice(x);
                                position.fill(here as u8);
                                begun = true;
                            }
                        }
                    }
                    at += channels;
                }
            }
        }
        let _ = v;
    }

    fn served_max_pool(v, p: &Pool, rows: usize, x: &[f32], y: &mut [f32]) {
        let channels = p.channels;
        let mut at = 0;
        for row in 0..rows {
            let image = &x[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, _) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, _) = p.span(1, ow);
                    let y = &mut y[at..at + channels];
                    let mut channel = 0;
                    while channel < channels {
                        let len = (channels - channel).min(V::N);
                        let mut best = None;
                        for h in high.clone() {
                            for w in wide.clone() {
                                let x = &image[(h * p.width + w) * channels + channel..][..len];
                                // SAFETY: the slice holds `len` numbers.
                                let x = unsafe { v.load_first(x.as_ptr(), len) };
                                best = Some(match best {
                                    Some(best) => v.max(x, best),
                                    None => x,
                                });
                            }
                        }
                        if let Some(best) = best {
                            let y = &mut y[channel..channel + len];
                            // SAFETY: the slice holds `len` numbers.
                            unsafe { v.store_first(y.as_mut_ptr(), len, best) };
                        }
                        channel += len;
                    }
                    at += channels;
                }
            }
        }
    }

    fn max_pool_dx(v, p: &Pool, rows: usize, dy: &[f32], argmax: &[u8], dx: &mut [f32]) {
        let channels = p.channels;
        dx[..rows * p.input_len()].fill(0.0);
        let mut at = 0;
        for row in 0..rows {
            let image = &mut dx[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, first_h) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, first_w) = p.span(1, ow);
                    let dy = &dy[at..at + channels];
                    let position = &argmax[at..at + channels];
                    for h in high.clone() {
                        for w in wide.clone() {
                            let here = ((first_h + h - high.start) * p.kernel[1]
                                + first_w + w - wide.start) as u8;
                            let dx = &mut image[(h * p.width + w) * channels..][..channels];
                            for ((dx, dy), position) in dx.iter_mut().zip(dy).zip(position) {
                                let moved = *dx + *dy;
                                *dx = if *position == here { moved } else { *dx };
                            }
                        }
                    }
                    at += channels;
                }
            }
        }
        let _ = v;
    }

    fn avg_pool(v, p: &Pool, rows: usize, x: &[f32], y: &mut [f32]) {
        let channels = p.channels;
        let mut at = 0;
        for row in 0..rows {
            let image = &x[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, _) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, _) = p.span(1, ow);
                    let y = &mut y[at..at + channels];
                    y.fill(0.0);
                    for h in high.clone() {
                        for w in wide.clone() {
                            let x = &image[(h * p.width + w) * channels..][..channels];
                            map!(v, channels; a = x, b = y; {} y => v.add(b, a));
                        }
                    }
                    let factor = v.splat(1.0 / (high.len() * wide.len()) as f32);
                    map!(v, channels; b = y; {} y => v.mul(b, factor));
                    at += channels;
                }
            }
        }
    }

    fn avg_pool_dx(v, p: &Pool, rows: usize, dy: &[f32], dx: &mut [f32]) {
        let channels = p.channels;
        dx[..rows * p.input_len()].fill(0.0);
        let mut at = 0;
        for row in 0..rows {
            let image = &mut dx[row * p.input_len()..][..p.input_len()];
            for oh in 0..p.out_height {
                let (high, _) = p.span(0, oh);
                for ow in 0..p.out_width {
                    let (wide, _) = p.span(1, ow);
                    let dy = &dy[at..at + channels];
                    let factor = v.splat(1.0 / (high.len() * wide.len()) as f32);
                    for h in high.clone() {
                        for w in wide.clone() {
                            let dx = &mut image[(h * p.width + w) * channels..][..channels];
                            map!(v, channels; d = dy, b = dx; {} dx => v.fma(d, factor, b));
                        }
                    }
                    at += channels;
                }
            }
        }
    }

    fn global_avg_pool(
        v, rows: usize, positions: usize, channels: usize, x: &[f32], y: &mut [f32],
    ) {
        let factor = v.splat(1.0 / positions as f32);
        for row in 0..rows {
            let y = &mut y[row * channels..][..channels];
            y.fill(0.0);
            for position in 0..positions {
                let x = &x[(row * positions + position) * channels..][..channels];
                map!(v, channels; a = x, b = y; {} y => v.add(b, a));
            }
            map!(v, channels; b = y; {} y => v.mul(b, factor));
        }
    }

    fn global_avg_pool_dx(
        v, rows: usize, positions: usize, channels: usize, dy: &[f32], dx: &mut [f32],
    ) {
        let factor = v.splat(1.0 / positions as f32);
        for row in 0..rows {
            let dy = &dy[row * channels..][..channels];
            for position in 0..positions {
                let dx = &mut dx[(row * positions + position) * channels..][..channels];
                map!(v, channels; d = dy; {} dx => v.mul(d, factor));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kernels, Padding, Pool};

    #[track_caller]
    fn exactly(got: &[f32], expected: &[f32]) {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(got), bits(expected), "{got:?} for {expected:?}");
    }

    #[test]
    fn pooling_by_hand() {
        // One channel, 3 x 3, windows of 2 x 2 in steps of 2 over a border of zeros that does
        // not count: corners, edges and the middle.
        let pool = Pool::new([3, 3, 1], [2, 2], [2, 2], Padding::all(1)).expect("a valid shape");
        let x = [-1.0, -2.0, -3.0, 4.0, 5.0, 5.0, 7.0, 8.0, 8.0];
        let k = Kernels::best();
        let (mut y, mut argmax, mut dx) = ([0.0; 4], [9; 4], [9.0; 9]);
        k.max_pool(&pool, 1, &x, &mut y, &mut argmax);
        exactly(&y, &[-1.0, -2.0, 7.0, 8.0]);
        // The first of equals wins: 5, 5, 8, 8 give the 8 at the window's third position.
        assert_eq!(argmax, [3, 2, 3, 2]);
        k.max_pool_dx(&pool, 1, &[1.0, 2.0, 3.0, 4.0], &argmax, &mut dx);
        exactly(&dx, &[1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0]);
        k.avg_pool(&pool, 1, &x, &mut y);
        exactly(&y, &[-1.0, -2.5, 5.5, 6.5]);
        k.avg_pool_dx(&pool, 1, &[1.0, 2.0, 4.0, 8.0], &mut dx);
        exactly(&dx, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    }
}
