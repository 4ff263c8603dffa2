use std::sync::Arc;

use fl_core::{ClientId, InputSpec, Parameters, Purpose, RoundId, Seed, Stream, TargetSpec};
use proptest::prelude::*;

use super::*;
use crate::model::Model;
use crate::quant::{Code4, FourBits, Weight4, Weights4};
use crate::zoo::ModelDef;

/// Made by the Python package `gguf`: see `gguf_file.py` beside it.
const FIXTURE: &[u8] = include_bytes!("../../tests/fixtures/gguf.bin");

/// The file of the fixture, and its tensors as the package widens them.
fn fixture() -> (&'static [u8], Vec<f32>) {
    fn counted(bytes: &[u8]) -> (usize, &[u8]) {
        let (count, rest) = bytes.split_first_chunk::<8>().unwrap();
        (u64::from_le_bytes(*count) as usize, rest)
    }
    let (length, rest) = counted(FIXTURE);
    let (file, rest) = rest.split_at(length);
    let (count, rest) = counted(rest);
    let words = rest.as_chunks::<4>().0;
    assert_eq!(words.len(), count);
    let widened = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    (file, widened)
}

/// The sequence of the fixture.
fn numbers(count: usize, scale: f64) -> Vec<f32> {
    let mut state = 12_345u64;
    let mut next = || {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        ((state / (1 << 11) % 4097) as f64 - 2048.0) / 1024.0 * scale
    };
    (0..count).map(|_| next() as f32).collect()
}

/// The file of the fixture by our writer.
fn ours() -> Writer {
    let mut writer = Writer::new();
    let text = |text: &str| text.to_owned();
    let values = [
        ("general.architecture", Value::Text(text("example"))),
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("f32", Value::F32(0.1)),
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("text", Value::Text(text("grüße, Küken"))),
        ("u64", Value::U64(1 << 63)),
        ("i64", Value::I64(-(1 << 62))),
        ("f64", Value::F64(0.1)),
        ("numbers", Value::Array(Array::I32(vec![1, -2, 3]))),
        (
            "texts",
            Value::Array(Array::Text(vec![text(""), text("a"), text("bc")])),
        ),
        ("switches", Value::Array(Array::Bool(vec![true, false]))),
        (
            "nested",
            Value::Array(Array::Array(vec![
                Array::I32(vec![1, 2]),
                Array::I32(vec![3]),
            ])),
        ),
    ];
    for (key, value) in values {
        writer.value(key, value).unwrap();
    }
    let tensors: [(&str, &[usize], f64, TensorKind); 5] = [
        ("full", &[3, 5], 1.0, TensorKind::F32),
        ("half", &[7], 1000.0, TensorKind::F16),
        ("eight", &[2, 3, 64], 0.03, TensorKind::Q8_0),
        ("four", &[5, 96], 7.0, TensorKind::Q4_0),
        ("zero", &[32], 0.0, TensorKind::Q4_0),
    ];
    for (name, shape, scale, kind) in tensors {
        let values = numbers(shape.iter().product(), scale);
        writer.tensor(name, shape, kind, &values).unwrap();
    }
    writer
}

/// Small enough to damage at every bit.
fn small() -> Vec<u8> {
    let mut writer = Writer::new();
    let architecture = Value::Text("a".to_owned());
    writer.value("general.architecture", architecture).unwrap();
    writer.value("general.alignment", Value::U32(8)).unwrap();
    let flags = Value::Array(Array::Bool(vec![true, false]));
    writer.value("flags", flags).unwrap();
    let weights = numbers(64, 1.0);
    writer.tensor("a", &[1], TensorKind::F32, &[1.0]).unwrap();
    writer
        .tensor("b", &[2, 32], TensorKind::Q4_0, &weights)
        .unwrap();
    writer.finish().unwrap()
}

#[test]
fn files_are_those_of_the_python_package_to_the_byte() {
    let (theirs, widened) = fixture();
    assert!(ours().finish().unwrap() == theirs);
    let file = Gguf::parse(theirs).unwrap();
    assert!(file.to_writer().unwrap().finish().unwrap() == theirs);
    let read: Vec<f32> = file
        .tensors()
        .iter()
        .flat_map(|tensor| file.values(tensor))
        .collect();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    // The package gives -0 for zeros below no scale; all else to the bit.
    let plain = |values: Vec<f32>| values.into_iter().map(|x| x + 0.0).collect::<Vec<_>>();
    assert_eq!(bits(&plain(read)), bits(&plain(widened)));
    let shown: Vec<String> = file
        .entries()
        .iter()
        .map(|(_, value)| value.to_string())
        .collect();
    assert_eq!(shown[10], "\"grüße, Küken\"");
    assert_eq!(
        shown[14..],
        [
            "[1, -2, 3]",
            "[\"\", \"a\", \"bc\"]",
            "[true, false]",
            "[[1, 2], [3]]"
        ]
    );
    assert_eq!(
        Value::Array(Array::U8(vec![1; 9])).to_string(),
        "[1, 1, 1, 1, 1, 1, 1, 1, ...]"
    );
}

#[test]
fn every_truncation_is_an_error() {
    let whole = small();
    for length in 0..whole.len() {
        // Padding behind the last tensor may be missing.
        let used = whole.len() - 4;
        let parsed = Gguf::parse(&whole[..length]);
        assert_eq!(
            parsed.is_ok(),
            length >= used,
            "{length} of {}",
            whole.len()
        );
    }
    let mut long = whole;
    long.push(0);
    assert!(matches!(
        Gguf::parse(&long),
        Err(GgufError::Trailing { bytes: 5 })
    ));
}

/// A flipped bit before the data, or in padding, is an error or changes what is read; never a panic.
#[test]
fn no_flipped_bit_goes_unseen_before_the_data() {
    let whole = small();
    let file = Gguf::parse(&whole).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            let Ok(other) = Gguf::parse(&damaged) else {
                continue;
            };
            // Version 2 is laid out alike.
            let version = at == 4 && bit == 0;
            assert!(other != file || version, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let whole = small();
    let at = |needle: &[u8]| {
        let found = whole.windows(needle.len()).position(|part| part == needle);
        found.unwrap()
    };
    let key = at(b"flags") + 5;
    let alignment = at(b"general.alignment") + 17;
    let tensor = at(b"\x01\0\0\0\0\0\0\0b") + 9;
    let tables: [(usize, &[u8], &str); 13] = [
        (
            0,
            b"gguf",
            "it begins with gguf and not with `GGUF`; it is no GGUF file",
        ),
        (
            4,
            &[1],
            "it has version 1 of GGUF, and versions 2 and 3 in little-endian are read; write \
            it again with a current converter",
        ),
        (
            4,
            &[0, 0, 0, 3],
            "it has version 50331648 of GGUF, and versions 2 and 3 in little-endian \
            are read; write it again with a current converter",
        ),
        (
            15,
            &[1],
            "it claims 72057594037927938 tensors where 240 bytes are left; the file was cut \
            or is damaged: copy it again",
        ),
        (
            key,
            &[13],
            "the value of `flags` has kind 13; expected 0 to 12",
        ),
        (
            key + 4,
            &[99],
            "the value of `flags` has kind 99; expected 0 to 12",
        ),
        (
            key + 16,
            &[2],
            "a boolean at byte 127 is 2; expected 0 or 1",
        ),
        (
            alignment + 4,
            &[12],
            "general.alignment is 12; expected an unsigned 32-bit multiple of 8, \
            at most 1048576",
        ),
        (
            tensor,
            &[5],
            "tensor `b` has shape [32, 2, 34359738370, 0]: there are at most four \
            dimensions",
        ),
        (
            tensor + 4,
            &[33],
            "tensor `b` has shape [2, 33]: its rows are no whole blocks of 32 \
            numbers",
        ),
        (
            tensor + 20,
            &[12],
            "tensor `b` is stored as kind 12 (Q4_K); F32, F16, Q8_0 and Q4_0 are \
            read: convert it to one of them",
        ),
        (
            tensor + 24,
            &[16],
            "tensor `b` claims to lie at byte 16 of the data where 8 is expected; \
            the file is damaged: copy it again",
        ),
        (
            tensor - 1,
            b"a",
            "`a` stands twice; give each value and each tensor a name of its own",
        ),
    ];
    for (place, bytes, message) in tables {
        let mut forged = whole.clone();
        forged[place..place + bytes.len()].copy_from_slice(bytes);
        let error = Gguf::parse(&forged).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
    let mut writer = Writer::new();
    let refuse = |error: Result<(), GgufError>| error.unwrap_err().to_string();
    assert_eq!(
        refuse(writer.tensor("w", &[32], TensorKind::F16, &[65_520.0; 32])),
        "tensor `w` has a number at or behind index 0 that F16 cannot hold; write it in F32 if it is \
         finite, and train again if not"
    );
    let mut infinite = [1.0; 64];
    infinite[40] = f32::INFINITY;
    assert!(refuse(writer.tensor("w", &[64], TensorKind::Q8_0, &infinite)).contains("index 40"));
    infinite[40] = 1e9;
    assert!(refuse(writer.tensor("w", &[64], TensorKind::Q4_0, &infinite)).contains("index 32"));
    assert_eq!(
        refuse(writer.tensor("w", &[4], TensorKind::F32, &[0.0; 3])),
        "tensor `w` was given 12 bytes; expected 16 by its shape and kind"
    );
    assert_eq!(
        refuse(writer.value("", Value::U8(1))),
        "a key or name has 0 bytes; expected 1 to 65535"
    );
}

proptest! {
    /// Every number of a block is off by half a step of its scale at most, and in four bits by a whole
    /// one at the far end, which has no seventeenth level.
    #[test]
    fn blocks_are_near(values in prop::collection::vec(-1e3f32..1e3, BLOCK)) {
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (kind, steps, levels) in [(TensorKind::Q8_0, 0.5, 127.0), (TensorKind::Q4_0, 1.0, 8.0)] {
            let bytes = kind.narrow(&values).unwrap();
            prop_assert_eq!(bytes.len(), kind.block_bytes());
            for (x, y) in values.iter().zip(kind.widen(&bytes)) {
                // The scale is in binary16, so off by 2^-11 of itself, times the level.
                let most = largest * (steps / levels + 1e-3);
                prop_assert!((x - y).abs() <= most, "{} became {}", x, y);
            }
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(Gguf::parse(&bytes));
        let mut headed = b"GGUF\x03\0\0\0".to_vec();
        headed.extend(&bytes);
        drop(Gguf::parse(&headed));
    }
}

fn model(name: &str) -> (Model, Parameters) {
    let def = ModelDef::named(name).unwrap();
    let (input, target) = def.example().unwrap();
    let model = Model::new(&def, &input, target).unwrap();
    let mut stream = Stream::at(Purpose::ModelInit, Seed(3), RoundId(0), ClientId(0));
    let parameters = model.init(&mut stream);
    (model, parameters)
}

#[test]
fn models_come_back() {
    for (name, _) in crate::zoo::MODELS {
        if ModelDef::named(name)
            .and_then(|def| def.example())
            .is_none()
        {
            continue;
        }
        let (model, parameters) = model(name);
        for kind in TensorKind::ALL {
            let bytes = write_model(&model, &parameters, kind).unwrap();
            let (back, values) = read_model(&bytes).unwrap();
            assert_eq!(back.definition(), model.definition(), "{name}");
            let largest = parameters
                .values()
                .iter()
                .fold(0.0f32, |m, x| m.max(x.abs()));
            let most = match kind {
                TensorKind::F32 => 0.0,
                TensorKind::F16 => 1e-3,
                TensorKind::Q8_0 => 0.005,
                TensorKind::Q4_0 => 0.13,
            };
            let pairs = parameters.values().iter().zip(values.values());
            for (x, y) in pairs {
                assert!(
                    (x - y).abs() <= most * largest,
                    "{name} {kind:?}: {x} became {y}"
                );
            }
        }
    }
}

#[test]
fn four_bits_take_a_seventh() {
    let (model, parameters) = model("mlp-2nn");
    let bytes = |kind| write_model(&model, &parameters, kind).unwrap().len() as f64;
    let full = bytes(TensorKind::F32);
    assert!(bytes(TensorKind::Q4_0) / full < 0.155);
    assert!(bytes(TensorKind::Q8_0) / full < 0.285);
}

#[test]
fn a_damaged_model_is_noticed_at_every_bit() {
    let def: ModelDef = toml::from_str(
        "[[layer]]\nkind = \"dense\"\nname = \"a\"\nunits = 3\n[[layer]]\nkind = \"dense\"",
    )
    .unwrap();
    let input = InputSpec::Real(vec![32]);
    let model = Model::new(&def, &input, TargetSpec::Class { classes: 2 }).unwrap();
    let mut stream = Stream::at(Purpose::ModelInit, Seed(3), RoundId(0), ClientId(0));
    let parameters = model.init(&mut stream);
    let whole = write_model(&model, &parameters, TensorKind::Q8_0).unwrap();
    let (back, _) = read_model(&whole).unwrap();
    assert_eq!(Arc::as_ref(&back).definition(), model.definition());
    let mut unseen = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            unseen += usize::from(read_model(&damaged).is_ok());
        }
    }
    // Version 2 in place of 3, which is laid out alike.
    assert_eq!(unseen, 1);
    let error = read_model(&small()).unwrap_err().to_string();
    assert_eq!(
        error,
        "it has no `fledgling.model`; it is a GGUF file of another program's model (architecture \"a\")"
    );
}

/// Codes that were found elsewhere come back as they are: a block is a group of 32.
#[test]
fn given_codes_come_back_exactly() {
    let (model, parameters) = model("cnn-fedavg");
    let format = FourBits::new(Code4::Int4, BLOCK).unwrap();
    let mut weights = Weights4 {
        format: format.clone(),
        ..Weights4::default()
    };
    let mut expected = parameters.values().to_vec();
    for tensor in model.layout().tensors() {
        // Other codes than ggml would find.
        let values = &mut expected[tensor.range()];
        if tensor.shape.len() > 1 {
            let columns = *tensor.shape.last().unwrap();
            let made = Weight4::nearest(&tensor.name, &format, columns, values).unwrap();
            values.copy_from_slice(&made.dequantized());
            weights.tensors.insert(tensor.name.clone(), made);
        }
    }
    let file = write_four(&model, &parameters, &weights).unwrap();
    let (_, back) = read_model(&file).unwrap();
    let same = back.values().iter().zip(&expected);
    assert!(
        same.clone()
            .all(|(a, b)| a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0))
    );
    let rounded = write_model(&model, &parameters, TensorKind::Q4_0).unwrap();
    let close = file.len() as f64 / rounded.len() as f64;
    assert!((0.99..1.01).contains(&close) && file != rounded, "{close}");
    for (code, group) in [(Code4::Int4, 64), (Code4::Uint4, 32)] {
        let mut other = weights.clone();
        other.format = FourBits::new(code, group).unwrap();
        let error = write_four(&model, &parameters, &other)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(code.name()) && error.contains("groups of 32"),
            "{error}"
        );
    }
}
