//! Blocks that somebody made on purpose, each with one thing wrong.

use alloc::vec;

use super::*;
use crate::kernel::int8::Rescale;
use crate::kernel::{Activation, Conv, ConvShape, Dense, Fused, Padding};
use crate::runtime::step::{Served, StoredEight, StoredFour, StoredLevels, Weight};

/// From four real numbers over two buffers and back to four, through a layer with a bias.
fn genuine() -> Block {
    let place = |offset, row| Place {
        offset,
        row,
        fixed: 0,
    };
    let after = Served {
        first: Fused::Relu,
        residual: None,
        last: Fused::None,
    };
    Block {
        input: 4,
        vocabulary: None,
        output: 4,
        data: 272,
        constants: vec![0..256, 256..272],
        sizes: vec![],
        widened: vec![],
        arena: 128,
        places: vec![place(0, 0), place(0, 0), place(0, 16), place(64, 16)],
        slot: 1,
        steps: vec![
            Step::Copy { x: 0, y: 2 },
            Step::Add { x: 0, y: 2 },
            Step::Activate {
                f: Activation::Tanh,
                x: 2,
                y: 3,
            },
            Step::ServedDense {
                geometry: Dense {
                    inputs: 4,
                    outputs: 4,
                },
                x: 3,
                y: 1,
                weight: Weight::Single(0),
                bias: Some(1),
                after,
                scratch: None,
            },
        ],
    }
}

fn read_back(block: &Block) -> Result<Block, StepsError> {
    decode(&encode(block))
}

#[test]
fn a_block_reads_back() {
    let block = genuine();
    let back = read_back(&block).expect("a genuine block");
    assert_eq!(encode(&back), encode(&block));
    assert_eq!(format!("{back:?}"), format!("{block:?}"));
}

#[test]
fn what_reaches_too_far_is_refused() {
    type Change = fn(&mut Block);
    let cases: [(&str, Change); 16] = [
        ("no values", |b| b.input = 0),
        ("fewer inputs", |b| b.input = 3),
        ("fewer outputs", |b| b.output = 3),
        ("less data", |b| b.data = 271),
        ("a shorter weight", |b| b.constants[0].end = 252),
        ("a longer weight", |b| b.constants[0].end = 260),
        ("a bias between two numbers", |b| b.constants[1] = 254..270),
        ("a buffer behind the arena", |b| b.arena = 79),
        ("an arena larger than memory", |b| b.arena = MOST_ARENA + 1),
        ("a shorter buffer", |b| b.places[3].row = 12),
        ("buffers of one step that overlap", |b| {
            b.places[3].offset = 0
        }),
        ("a buffer that is not there", |b| {
            b.steps[1] = Step::Add { x: 0, y: 4 };
        }),
        ("a constant that is not there", |b| {
            b.steps.push(Step::Position { table: 2, y: 2 });
        }),
        ("writing to the input", |b| {
            b.steps[1] = Step::Double { y: 0 };
        }),
        ("bounds that are reversed", |b| {
            let to = Rescale { low: 2, high: 1 };
            b.steps[1] = Step::IntClamp { to, y: 2 };
        }),
        ("tokens where numbers are read", |b| b.vocabulary = Some(7)),
    ];
    for (name, change) in cases {
        let mut block = genuine();
        change(&mut block);
        let result = read_back(&block);
        assert!(
            matches!(result, Err(StepsError::Forged)),
            "{name}: {result:?}"
        );
    }
}

/// Three tokens of five, a row of six numbers each in groups of four, then positions: codes, scales
/// and zero points of both tables, and four numbers that are written out.
fn of_tables() -> Block {
    let table = |first: usize| StoredFour {
        codes: first,
        scales: first + 1,
        levels: StoredLevels::Zeros(first + 2),
        group: 4,
    };
    let place = Place {
        offset: 0,
        row: 0,
        fixed: 0,
    };
    let mut block = Block {
        input: 3,
        vocabulary: Some(5),
        output: 18,
        data: 0,
        constants: vec![0..15, 0..20, 0..10, 0..9, 0..12, 0..6, 0..8],
        sizes: vec![1, 2, 1, 1, 2, 1, 2],
        widened: vec![6],
        arena: 0,
        places: vec![place; 2],
        slot: 1,
        steps: vec![
            Step::Embedding {
                size: 6,
                table: Weight::Four(table(0)),
                y: 1,
            },
            Step::PositionFour {
                size: 6,
                table: table(3),
                y: 1,
            },
        ],
    };
    block.data = arrange(&mut block.constants, &block.sizes).expect("a few bytes");
    block
}

#[test]
fn tables_that_reach_too_far_are_refused() {
    let whole = of_tables();
    assert_eq!((whole.data, &whole.constants[0]), (80, &(40..55)));
    let back = read_back(&whole).expect("a genuine block");
    assert_eq!(format!("{back:?}"), format!("{whole:?}"));
    type Change = fn(&mut Block);
    let cases: [(&str, Change); 10] = [
        ("one token more", |b| b.vocabulary = Some(6)),
        ("fewer outputs", |b| b.output = 17),
        ("shorter codes", |b| b.constants[0].end -= 1),
        ("longer codes", |b| b.constants[3].end += 1),
        ("shorter scales", |b| b.constants[1].end -= 2),
        ("shorter zero points", |b| b.constants[5].end -= 1),
        ("a group of no terms", |b| {
            if let Step::PositionFour { table, .. } = &mut b.steps[1] {
                table.group = 0;
            }
        }),
        ("rows of no numbers", |b| {
            if let Step::PositionFour { size, .. } = &mut b.steps[1] {
                *size = 0;
            }
        }),
        ("scales that are written out", |b| b.widened = vec![1, 6]),
        ("numbers that are not written out", |b| {
            b.widened.clear();
            b.steps.push(Step::Position { table: 6, y: 1 });
            b.constants[6].end += 2;
        }),
    ];
    for (name, change) in cases {
        let mut block = of_tables();
        change(&mut block);
        block.data = arrange(&mut block.constants, &block.sizes).expect("a few bytes");
        let result = read_back(&block);
        assert!(
            matches!(result, Err(StepsError::Forged)),
            "{name}: {result:?}"
        );
    }
    let other = Block {
        data: 81,
        ..of_tables()
    };
    assert!(matches!(read_back(&other), Err(StepsError::Forged)));
}

/// Filters of one channel in eight bits: three of 2x2, and nothing else may be in them.
#[test]
fn filters_that_reach_too_far_are_refused() {
    let shape = ConvShape {
        height: 2,
        width: 2,
        channels: 3,
        filters: 3,
        kernel: [2, 2],
        stride: [1, 1],
        padding: Padding::NONE,
        groups: 3,
    };
    let made = |shape: ConvShape, codes: usize, scales: usize, room: usize| {
        let place = |row, fixed| Place {
            offset: 0,
            row,
            fixed,
        };
        let mut block = Block {
            input: 12,
            vocabulary: None,
            output: 3,
            data: 0,
            constants: vec![0..codes, 0..2 * scales],
            sizes: vec![1, 2],
            widened: vec![],
            arena: 64,
            places: vec![place(0, 0), place(0, 0), place(0, room)],
            slot: 1,
            steps: vec![Step::ServedConv {
                geometry: Conv::new(shape).expect("a shape"),
                x: 0,
                y: 1,
                weight: Weight::Eight(StoredEight {
                    codes: 0,
                    scales: 1,
                }),
                bias: None,
                after: Served {
                    first: Fused::None,
                    residual: None,
                    last: Fused::None,
                },
                scratch: 2,
            }],
        };
        block.data = arrange(&mut block.constants, &block.sizes).expect("a few bytes");
        read_back(&block)
    };
    assert!(made(shape, 12, 3, 48).is_ok());
    let mixed = ConvShape {
        groups: 1,
        filters: 1,
        ..shape
    };
    for (shape, codes, scales, room) in [
        (shape, 11, 3, 48),
        (shape, 13, 3, 48),
        (shape, 12, 2, 48),
        (shape, 12, 4, 48),
        (shape, 12, 3, 44),
        (mixed, 12, 1, 48),
    ] {
        let result = made(shape, codes, scales, room);
        let forged = matches!(result, Err(StepsError::Forged));
        assert!(forged, "{codes} {scales} {room}: {result:?}");
    }
}

#[test]
fn sizes_whose_product_overflows_are_refused() {
    let most = usize::MAX / 4;
    for sides in [[most, most], [1 << 40, 1 << 40], [0, 4], [4, 0]] {
        let mut block = genuine();
        if let Some(Step::ServedDense { geometry, .. }) = block.steps.last_mut() {
            let [inputs, outputs] = sides;
            *geometry = Dense { inputs, outputs };
        }
        let result = read_back(&block);
        assert!(matches!(result, Err(StepsError::Forged)), "{sides:?}");
    }
}

#[test]
fn another_version_and_damage_are_told_apart() {
    let text = base64::encode(&encode(&genuine()));
    let other = {
        let mut bytes = encode(&genuine());
        bytes[3] = 3;
        base64::encode(&bytes)
    };
    for (text, expected) in [
        (other.as_str(), StepsError::Version),
        (&text[..text.len() - 4], StepsError::Damaged),
        ("RkxT", StepsError::Damaged),
        ("", StepsError::Damaged),
        ("not base64", StepsError::Damaged),
    ] {
        let result = decode_text(text.as_bytes()).map(|block| block.steps.len());
        assert_eq!(result, Err(expected), "{text}");
    }
}
