//! The data that are part of the program. `cargo xtask embed` writes the files and their
//! checksums; `embedded/README.md` holds the licences.

/// The first 10,000 training images of Fashion-MNIST: IDX, gzip.
pub const FASHION_TRAIN_IMAGES: &[u8] =
    include_bytes!("../embedded/fashion-mini-train-images.idx.gz");
/// Their labels.
pub const FASHION_TRAIN_LABELS: &[u8] =
    include_bytes!("../embedded/fashion-mini-train-labels.idx.gz");
/// The first 2,000 test images of Fashion-MNIST.
pub const FASHION_TEST_IMAGES: &[u8] =
    include_bytes!("../embedded/fashion-mini-test-images.idx.gz");
/// Their labels.
pub const FASHION_TEST_LABELS: &[u8] =
    include_bytes!("../embedded/fashion-mini-test-labels.idx.gz");
/// The UCI handwritten digits: CSV, gzip.
pub const DIGITS: &[u8] = include_bytes!("../embedded/digits.csv.gz");
/// UCI Adult, training: the canonical text, gzip.
pub const ADULT_TRAIN: &[u8] = include_bytes!("../embedded/adult.data.gz");
/// UCI Adult, test.
pub const ADULT_TEST: &[u8] = include_bytes!("../embedded/adult.test.gz");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_their_recorded_checksums() {
        let sums = include_str!("../embedded/SHA256SUMS");
        let files = [
            ("adult.data.gz", ADULT_TRAIN),
            ("adult.test.gz", ADULT_TEST),
            ("digits.csv.gz", DIGITS),
            ("fashion-mini-test-images.idx.gz", FASHION_TEST_IMAGES),
            ("fashion-mini-test-labels.idx.gz", FASHION_TEST_LABELS),
            ("fashion-mini-train-images.idx.gz", FASHION_TRAIN_IMAGES),
            ("fashion-mini-train-labels.idx.gz", FASHION_TRAIN_LABELS),
        ];
        let found: String = (files.iter())
            .map(|(name, bytes)| format!("{}  {name}\n", crate::catalogue::sha256(bytes)))
            .collect();
        assert_eq!(found, sums);
        let fashion: usize = files[3..].iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(fashion <= 6_000_000, "{fashion}");
    }

    #[test]
    fn files_hold_what_their_originals_hold() {
        let Some(root) = crate::testing::data_root() else {
            return;
        };
        let original = |name: &str| {
            let bytes = crate::read::file(&root.path().join(name)).unwrap();
            crate::read::gunzip(name, &bytes).unwrap()
        };
        let packed = |bytes: &[u8]| crate::read::gunzip("embedded", bytes).unwrap();
        assert!(packed(ADULT_TRAIN) == original("adult/adult.data.gz"));
        assert!(packed(ADULT_TEST) == original("adult/adult.test.gz"));
        assert!(packed(DIGITS) == original("digits/digits.csv.gz"));
        // Behind the header with its other count.
        let images = packed(FASHION_TRAIN_IMAGES);
        let whole = original("fashion-mnist/train-images-idx3-ubyte.gz");
        assert!(images[16..] == whole[16..images.len()]);
        let labels = packed(FASHION_TEST_LABELS);
        let whole = original("fashion-mnist/t10k-labels-idx1-ubyte.gz");
        assert!(labels[8..] == whole[8..labels.len()]);
    }
}
