//! The integer kernels give onnxruntime's integers: every output of the recorded cases in
//! `fixtures/int8_onnxruntime.bin`, whose script lies beside it.

use fl_edge::kernel::int8::{Add, Affine, End, Packing, Requantize};
use fl_edge::kernel::{Conv, ConvShape, Dense, Kernels, Padding, Pool};

/// Reads the recorded cases.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(len);
        self.0 = rest;
        now
    }

    fn number(&mut self) -> usize {
        let bytes = self.take(4).try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = self.number();
        self.take(len)
    }

    fn fours(&mut self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        self.bytes()
            .chunks_exact(4)
            .map(|four| four.try_into().expect("four bytes"))
    }

    fn reals(&mut self) -> Vec<f32> {
        self.fours().map(f32::from_le_bytes).collect()
    }

    fn integers(&mut self) -> Vec<i32> {
        self.fours().map(i32::from_le_bytes).collect()
    }

    fn scale(&mut self) -> f32 {
        self.reals()[0]
    }

    fn weights(&mut self) -> Vec<i8> {
        self.bytes().iter().map(|&b| b as i8).collect()
    }
}

#[derive(Default)]
struct Seen {
    cases: [usize; 5],
    outputs: usize,
    inner: usize,
}

impl Seen {
    fn compare(&mut self, kind: usize, got: &[u8], expected: &[u8]) {
        assert_eq!(got, expected, "case {} of kind {kind}", self.cases[kind]);
        self.cases[kind] += 1;
        self.outputs += got.len();
        self.inner += got.iter().filter(|&&q| q != 0 && q != 255).count();
    }
}

/// The multipliers of a product (from the scales of input, weights and output), its input, weight,
/// bias and output.
type Product = (Vec<f32>, Vec<u8>, Vec<i8>, Vec<i32>, Vec<u8>);

fn product(reader: &mut Reader<'_>) -> Product {
    let (sx, sw, sy) = (reader.scale(), reader.reals(), reader.scale());
    let multipliers = sw.iter().map(|sw| sx * sw / sy).collect();
    let (x, weight) = (reader.bytes().to_vec(), reader.weights());
    let (bias, y) = (reader.integers(), reader.bytes().to_vec());
    (multipliers, x, weight, bias, y)
}

fn check(kernels: &Kernels) -> Seen {
    let mut reader = Reader(include_bytes!("fixtures/int8_onnxruntime.bin"));
    let mut seen = Seen::default();
    while !reader.0.is_empty() {
        let kind = reader.number();
        let n: [usize; 11] = core::array::from_fn(|_| reader.number());
        let affine = |scale: f32, zero_point: usize| Affine {
            scale,
            zero_point: zero_point as u8,
        };
        match kind {
            0 => {
                let shape = ConvShape {
                    height: n[0],
                    width: n[1],
                    channels: n[2],
                    filters: n[3],
                    kernel: [n[4]; 2],
                    stride: [n[5]; 2],
                    padding: Padding::all(n[6]),
                    groups: n[7],
                };
                let c = Conv::new(shape).expect("a valid shape");
                let (multipliers, x, weight, bias, expected) = product(&mut reader);
                let packing = Packing::conv(&c);
                let (mut packed, mut folded) = (vec![0; packing.len()], vec![0; n[3]]);
                packing.pack(&weight, Some(&bias), n[9] as u8, &mut packed, &mut folded);
                let mut y = vec![0; expected.len()];
                let mut scratch = vec![0; c.int8_scratch_len()];
                let requantize = Requantize::new(&multipliers, n[10] as u8);
                let end = End::Requantize {
                    requantize,
                    y: &mut y,
                };
                let zero = n[9] as u8;
                kernels.int8_conv(&c, n[8], &x, zero, &packed, &folded, end, &mut scratch);
                seen.compare(kind, &y, &expected);
            }
            1 => {
                let d = Dense {
                    inputs: n[0],
                    outputs: n[1],
                };
                let (multipliers, x, weight, bias, expected) = product(&mut reader);
                let packing = Packing::dense(&d);
                let (mut packed, mut folded) = (vec![0; packing.len()], vec![0; n[1]]);
                packing.pack(&weight, Some(&bias), n[3] as u8, &mut packed, &mut folded);
                let mut y = vec![0; expected.len()];
                let requantize = Requantize::new(&multipliers, n[4] as u8);
                let end = End::Requantize {
                    requantize,
                    y: &mut y,
                };
                kernels.int8_dense(&d, n[2], &x, &packed, &folded, end);
                seen.compare(kind, &y, &expected);
            }
            2 => {
                let scales = [reader.scale(), reader.scale(), reader.scale()];
                let [a, b, c] = core::array::from_fn(|i| affine(scales[i], n[i]));
                let (first, second) = (reader.bytes(), reader.bytes());
                let expected = reader.bytes();
                let mut y = vec![0; expected.len()];
                kernels.int8_add(&Add::new(a, b, c), first, second, &mut y);
                seen.compare(kind, &y, expected);
            }
            3 => {
                let (from, to) = (affine(reader.scale(), n[3]), affine(reader.scale(), n[4]));
                let (x, expected) = (reader.bytes(), reader.bytes());
                let mut y = vec![0; expected.len()];
                kernels.int8_global_avg_pool(n[2], n[0], n[1], x, from, to, &mut y);
                seen.compare(kind, &y, expected);
            }
            4 => {
                let size = [n[0], n[1], n[2]];
                let p = Pool::new(size, [n[3]; 2], [n[4]; 2], Padding::all(n[5]));
                let p = p.expect("a valid shape");
                let (from, to) = (affine(reader.scale(), n[7]), affine(reader.scale(), n[8]));
                let (x, expected) = (reader.bytes(), reader.bytes());
                let mut y = vec![0; expected.len()];
                kernels.int8_avg_pool(&p, n[6], x, from, to, &mut y);
                seen.compare(kind, &y, expected);
            }
            other => panic!("the fixture has no kind {other}"),
        }
    }
    seen
}

#[test]
fn outputs_are_onnxruntimes() {
    for kernels in Kernels::all_available() {
        let seen = check(kernels);
        assert_eq!(seen.cases, [6, 3, 6, 3, 8]);
        // The scales spread the outputs, so most of them are not cut off.
        assert!(
            2 * seen.inner > seen.outputs,
            "{} of {}",
            seen.inner,
            seen.outputs
        );
    }
}
