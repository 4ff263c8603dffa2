//! Patches: what they lead to, how long they are, and what damage does to them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use fl_versions::{Digest, Patch, PatchError, Region, Version, Width};
use proptest::prelude::*;

/// A stream of bytes that looks like noise.
fn noise(mut state: u64, length: usize) -> Vec<u8> {
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn applied(old: &[u8], patch: &[u8]) -> Result<Vec<u8>, PatchError> {
    let mut out = Vec::new();
    Patch::open(patch)?.apply(old, &mut out)?;
    Ok(out)
}

#[test]
fn a_model_whose_weights_move_by_little_has_a_short_patch() {
    const WEIGHTS: usize = 1 << 20;
    let header = noise(7, 5000);
    let weights = noise(8, WEIGHTS);
    let old = [&header[..], &weights].concat();
    // A new header of another length, and every k-th weight one up or down.
    for (every, most) in [(4, 0.22), (10, 0.125), (100, 0.022), (10_000, 0.0013)] {
        let moves = noise(every as u64, WEIGHTS);
        let moved = weights.iter().zip(&moves).zip(noise(9, WEIGHTS));
        let moved = moved.map(|((&weight, &step), chance)| {
            let hit = usize::from(chance) * 256 + usize::from(step) < 65_536 / every;
            weight.wrapping_add(if !hit {
                0
            } else if step & 1 == 0 {
                1
            } else {
                255
            })
        });
        let new = [&noise(10, 5100)[..], &moved.collect::<Vec<_>>()].concat();
        let region = Region::bytes(5000..old.len(), 5100..new.len());
        let patch = Patch::make(&old, &new, &[region]).unwrap();
        assert_eq!(applied(&old, &patch).unwrap(), new);
        let share = (patch.len() - 5100) as f64 / WEIGHTS as f64;
        // The entropy of "does it move, and which way", in bytes for a weight.
        let rate = 1.0 / every as f64;
        let entropy = (-rate * rate.log2() - (1.0 - rate) * (1.0 - rate).log2() + rate) / 8.0;
        println!("every {every}: {share:.5} of the weights, entropy {entropy:.5}");
        assert!(
            share < most && share < 1.35 * entropy + 0.0003,
            "{every}: {share} {entropy}"
        );
        // Without regions, both ends are laid together; the headers then share a block with weights.
        let ends = Patch::make(&old, &new, &[Region::ends(old.len(), new.len())]).unwrap();
        assert!(
            ends.len() < patch.len() + 2000,
            "{} {}",
            ends.len(),
            patch.len()
        );
    }
}

#[test]
fn what_stays_costs_nothing_and_noise_costs_itself() {
    let old = noise(1, 300_000);
    let whole = Region::bytes(0..old.len(), 0..old.len());
    let same = Patch::make(&old, &old, std::slice::from_ref(&whole)).unwrap();
    assert!(same.len() < 300, "{}", same.len());
    let new = noise(2, 300_000);
    let other = Patch::make(&old, &new, &[whole]).unwrap();
    assert!(other.len() < new.len() + 400, "{}", other.len());
    assert_eq!(applied(&old, &other).unwrap(), new);
    for (old, new) in [(&b""[..], &b""[..]), (b"", b"new"), (b"old", b"")] {
        let patch = Patch::make(old, new, &[]).unwrap();
        assert_eq!(applied(old, &patch).unwrap(), new);
    }
}

/// Floats that move by a little: exponents and signs stay, so their upper bytes do.
#[test]
fn wide_numbers_are_taken_apart() {
    let old: Vec<f32> = (0..50_000u16).map(|i| f32::from(i).sin()).collect();
    let new: Vec<f32> = old.iter().map(|value| value * 1.000_01).collect();
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let (old, new) = (bytes(&old), bytes(&new));
    let region = |width| Region {
        width,
        ..Region::bytes(0..old.len(), 0..old.len())
    };
    let length = |width| {
        let patch = Patch::make(&old, &new, &[region(width)]).unwrap();
        assert_eq!(applied(&old, &patch).unwrap(), new);
        patch.len()
    };
    let [byte, half, word] = [Width::Byte, Width::Half, Width::Word].map(length);
    println!("{byte} {half} {word} of {}", new.len());
    assert!(word < half && half <= byte && word < new.len() * 3 / 10);
}

#[test]
fn regions_that_do_not_fit_are_named() {
    let (old, new) = (noise(1, 100), noise(2, 120));
    let word = |old, new| Region {
        width: Width::Word,
        ..Region::bytes(old, new)
    };
    for (regions, expected) in [
        (
            vec![Region::bytes(0..101, 0..101)],
            "lies outside of the old version",
        ),
        (
            vec![Region::bytes(0..30, 100..130)],
            "lies outside of the new version",
        ),
        (
            vec![Region::bytes(0..30, 0..31)],
            "has parts of two lengths",
        ),
        (
            vec![Region::bytes(0..10, 0..10), Region::bytes(50..60, 9..19)],
            "region 1 (old 50..60, new 9..19) begins before the one before it ends",
        ),
        (vec![word(0..10, 0..10)], "ends within a number"),
    ] {
        let error = Patch::make(&old, &new, &regions).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn another_version_is_refused_before_anything_is_written() {
    let (old, new) = (noise(1, 1000), noise(2, 1000));
    let patch = Patch::make(&old, &new, &[]).unwrap();
    let mut out = Vec::new();
    let refused = Patch::open(&patch).unwrap().apply(&new, &mut out);
    assert!(matches!(
        refused,
        Err(PatchError::OtherOld { expected, found })
            if expected == Version::of(&old) && found == Version::of(&new)
    ));
    assert!(out.is_empty());
}

fn sample() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let old = noise(3, 400);
    let mut new = old.clone();
    new.iter_mut()
        .step_by(9)
        .for_each(|byte| *byte = byte.wrapping_sub(3));
    new.extend(noise(4, 30));
    let word = Region {
        width: Width::Word,
        ..Region::bytes(200..400, 200..400)
    };
    let regions = [
        Region::bytes(0..100, 0..100),
        Region::bytes(100..200, 100..200),
        word,
    ];
    let patch = Patch::make(&old, &new, &regions).unwrap();
    (old, new, patch)
}

#[test]
fn every_truncation_extension_and_flipped_bit_is_found() {
    let (old, new, patch) = sample();
    assert_eq!(applied(&old, &patch).unwrap(), new);
    for end in 0..patch.len() {
        assert!(Patch::open(&patch[..end]).is_err(), "{end}");
    }
    let longer = [&patch[..], &[0]].concat();
    assert!(matches!(
        Patch::open(&longer),
        Err(PatchError::Trailing { extra: 1 })
    ));
    for bit in 0..patch.len() * 8 {
        let mut patch = patch.clone();
        patch[bit / 8] ^= 1 << (bit % 8);
        assert!(Patch::open(&patch).is_err(), "{bit}");
    }
    assert!(matches!(
        Patch::open(b"PK\x03\x04"),
        Err(PatchError::NoPatch)
    ));
    let mut later = patch;
    later[8] = 2;
    let error = Patch::open(&later).unwrap_err().to_string();
    assert!(
        error.contains("format 2") && error.contains("update the program"),
        "{error}"
    );
}

/// With a right checksum over wrong contents, what a patch was made to do harm with.
#[test]
fn a_patch_that_was_made_to_harm_gives_an_error_or_the_announced_bytes() {
    let (old, new, patch) = sample();
    let end = patch.len() - 32;
    let mut refused = 0;
    for at in 12..end {
        for flip in [0x01, 0x80, 0xff] {
            let mut patch = patch[..end].to_vec();
            patch[at] ^= flip;
            let checksum = Digest::of(&patch);
            patch.extend(checksum.0);
            match applied(&old, &patch) {
                Ok(out) => assert_eq!(out, new),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 2 * (end - 12), "{refused}");
}

/// A patch of a few bytes that announces a whole exabyte of zeros.
#[test]
fn a_length_is_no_reason_to_allocate() {
    let mut patch = Patch::make(b"", b"x", &[]).unwrap();
    let end = patch.len() - 32;
    patch.truncate(end);
    patch[12 + 40..12 + 48].copy_from_slice(&(1u64 << 60).to_le_bytes());
    let literals = 12 + 80 + 16;
    patch[literals..literals + 8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    let checksum = Digest::of(&patch);
    patch.extend(checksum.0);
    assert_eq!(Patch::open(&patch).unwrap().new_version().bytes, 1 << 60);
    assert!(applied(b"", &patch).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the versions and the regions, the patch leads to the new version.
    #[test]
    fn a_patch_leads_to_the_new_version(
        old in prop::collection::vec(any::<u8>(), 0..3000),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        inserted in prop::collection::vec(any::<u8>(), 0..50),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        widths in prop::collection::vec(0..3usize, 7),
        from in any::<prop::sample::Index>(),
    ) {
        let mut new = [&inserted[..], &old].concat();
        for (place, byte) in changes {
            if !new.is_empty() {
                let place = place.index(new.len());
                new[place] = byte;
            }
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(new.len() + 1)).collect();
        cuts.extend([0, new.len()]);
        cuts.sort_unstable();
        let mut regions = Vec::new();
        for (pair, width) in cuts.windows(2).zip(widths) {
            let width = [Width::Byte, Width::Half, Width::Word][width];
            let length = (pair[1] - pair[0]).min(old.len()) / width.bytes() * width.bytes();
            let start = from.index(old.len() - length + 1);
            regions.push(Region {
                old: start..start + length,
                new: pair[0]..pair[0] + length,
                width,
            });
        }
        let patch = Patch::make(&old, &new, &regions).unwrap();
        prop_assert_eq!(&applied(&old, &patch).unwrap(), &new);
        prop_assert_eq!(Patch::make(&old, &new, &regions).unwrap(), patch);
    }

    /// Any bytes behind a right beginning are read without a panic.
    #[test]
    fn no_bytes_make_it_panic(
        old in prop::collection::vec(any::<u8>(), 0..100),
        table in prop::collection::vec(0..40u64, 14),
        rest in prop::collection::vec(any::<u8>(), 0..300),
        length in 0..1000u64,
    ) {
        let mut patch = b"FLPATCH\0\x01\0\0\0".to_vec();
        patch.extend((old.len() as u64).to_le_bytes());
        patch.extend(Digest::of(&old).0);
        patch.extend(length.to_le_bytes());
        patch.extend([0; 32]);
        table.iter().for_each(|number| patch.extend(number.to_le_bytes()));
        patch.extend(rest);
        let checksum = Digest::of(&patch);
        patch.extend(checksum.0);
        prop_assert!(applied(&old, &patch).is_err());
    }
}
