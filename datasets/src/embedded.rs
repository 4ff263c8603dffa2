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
}
