//! What is not what was written is an error, and asks for no memory.

use fl_core::ModelDigest;
use fl_edge::file::{FileError, ModelFile};
use serde_json::{Value, json};

use crate::allocator::peak;
use crate::forge::{Forged, Tensor};
use crate::{shared, small, start, written};

/// Opens a file and reads everything in it.
fn read(bytes: &[u8]) -> Result<ModelDigest, FileError> {
    let file = ModelFile::open(shared(bytes))?;
    Ok(file.parameters()?.digest())
}

/// Bytes that reading a damaged file may hold, the file included.
fn allowed(bytes: &[u8]) -> usize {
    40 * bytes.len() + (64 << 10)
}

#[test]
fn every_truncation_is_an_error() {
    let model = small();
    let bytes = written(&model, &start(&model));
    assert!(read(&bytes).is_ok());
    for cut in 0..bytes.len() {
        let (held, result) = peak(|| read(&bytes[..cut]));
        assert!(result.is_err(), "{cut}");
        assert!(held <= allowed(&bytes), "{cut}: {held} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(FileError::Length { .. })));
}

#[test]
fn every_flipped_bit_is_an_error() {
    let model = small();
    let bytes = written(&model, &start(&model));
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (held, result) = peak(|| read(&flipped));
        assert!(result.is_err(), "byte {} bit {}", bit / 8, bit % 8);
        assert!(held <= allowed(&bytes), "{bit}: {held} bytes");
    }
}

/// The small model's file, by the second writer.
fn forged() -> (Value, Vec<Tensor>) {
    let model = small();
    let parameters = start(&model);
    let tensors = model.layout().tensors().iter().map(|spec| Tensor {
        name: spec.name.clone(),
        dtype: "F32",
        shape: spec.shape.iter().map(|&size| size as u64).collect(),
        bytes: parameters.values()[spec.range()]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    });
    let description = json!({
        "definition": {"layer": [
            {"kind": "conv2d", "filters": 2, "kernel": 1, "padding": "same"},
            {"kind": "group-norm", "groups": 1, "epsilon": 0.1},
            {"kind": "flatten"},
            {"kind": "dense"},
        ]},
        "input": {"Real": [2, 4, 1]},
        "target": {"Class": {"classes": 2}},
    });
    (description, tensors.collect())
}

#[test]
fn the_format_is_as_described() {
    let model = small();
    let (description, tensors) = forged();
    let bytes = Forged::parameters(description, tensors).bytes();
    let read = read(&bytes).expect("written as the format says");
    assert_eq!(read, start(&model).digest());
}

#[test]
fn forged_files_are_refused_with_a_reason() {
    let (description, tensors) = forged();
    let genuine = Forged::parameters(description.clone(), tensors.clone());
    let with = |key: &'static str, text: &str| {
        let mut forged = genuine.clone();
        forged.set(key, text);
        forged
    };
    let model = |change: &dyn Fn(&mut Value)| {
        let mut description = description.clone();
        change(&mut description);
        Forged::parameters(description, tensors.clone())
    };
    let tensor = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        Forged::parameters(description.clone(), tensors)
    };
    let layer =
        |change: Value| model(&|d: &mut Value| d["definition"]["layer"][0] = change.clone());
    let vast = 1u64 << 62;
    let cases: Vec<(&str, Forged, &str)> = vec![
        (
            "another version",
            with("fledgling.format", "2"),
            "it has format 2 and this program reads",
        ),
        (
            "another kind",
            with("fledgling.kind", "poem"),
            "it holds a `poem`",
        ),
        (
            "no model",
            with("fledgling.model", ""),
            "its model cannot be read",
        ),
        (
            "no list",
            with("fledgling.sha256", "[]"),
            "its list of checksums cannot be read",
        ),
        (
            "an empty list",
            with("fledgling.sha256", "{}"),
            "no SHA-256 of section `conv2d1.weight`",
        ),
        (
            "a list with a name twice",
            with("fledgling.sha256", r#"{"a":"","a":""}"#),
            "a key stands twice",
        ),
        (
            "a wrong checksum",
            tensor(&|t: &mut Vec<Tensor>| t[0].name = "conv2d1.weight ".to_owned()),
            "tensor `conv2d1.weight` is missing",
        ),
        (
            "a key too many",
            model(&|d: &mut Value| d["more"] = json!(1)),
            "unknown field `more`",
        ),
        (
            "an unknown layer",
            layer(json!({"kind": "conv3d"})),
            "unknown variant `conv3d`",
        ),
        (
            "more filters than memory",
            layer(json!({"kind": "conv2d", "filters": vast, "kernel": 1})),
            "the model that it describes: layer 1",
        ),
        (
            "a window larger than numbers",
            layer(json!({"kind": "conv2d", "filters": 2, "kernel": (vast - 1), "padding": vast})),
            "the model that it describes: layer 1",
        ),
        (
            "an input without numbers",
            model(&|d: &mut Value| d["input"] = json!({"Real": [2, 0, 1]})),
            "holds no numbers",
        ),
        (
            "an input larger than memory",
            model(&|d: &mut Value| d["input"] = json!({"Real": [vast, 2, 1]})),
            "tensor `input` is of shape",
        ),
        (
            "a wide input",
            model(&|d: &mut Value| d["input"] = json!({"Real": [2, 5, 1]})),
            "tensor `dense1.weight` is F32 [16, 2]",
        ),
        (
            "tokens for numbers",
            model(&|d: &mut Value| {
                d["input"] = json!({"Tokens": {"length": vast, "vocabulary": vast}})
            }),
            "tensor `input` is of shape [4611686018427387904]",
        ),
        (
            "tokens for an image",
            model(&|d: &mut Value| {
                d["input"] = json!({"Tokens": {"length": 8, "vocabulary": vast}})
            }),
            "holds tokens",
        ),
        (
            "more classes than memory",
            model(&|d: &mut Value| d["target"] = json!({"Class": {"classes": vast}})),
            "the model that it describes",
        ),
        (
            "five thousand layers",
            model(&|d: &mut Value| {
                d["definition"]["layer"] = vec![json!({"kind": "flatten"}); 5000].into();
            }),
            "has 5000 layers and at most 4096 are read",
        ),
        (
            "another order",
            tensor(&|t: &mut Vec<Tensor>| t.swap(0, 1)),
            "tensor `conv2d1.weight` is F32 [1, 1, 1, 2] from byte 8",
        ),
        (
            "halves for floats",
            tensor(&|t: &mut Vec<Tensor>| {
                t[0].dtype = "F16";
                t[0].shape = vec![1, 1, 1, 4];
            }),
            "tensor `conv2d1.weight` is F16 [1, 1, 1, 4] from byte 0",
        ),
        (
            "a tensor too many",
            tensor(&|t: &mut Vec<Tensor>| {
                let last = t[0].clone();
                t.push(Tensor {
                    name: "spare".to_owned(),
                    ..last
                });
            }),
            "tensor `spare` is there",
        ),
        (
            "a tensor too few",
            tensor(&|t: &mut Vec<Tensor>| drop(t.pop())),
            "is missing where its model has F32",
        ),
    ];
    for (name, forged, message) in cases {
        let bytes = forged.bytes();
        let (held, result) = peak(|| read(&bytes));
        let error = result.expect_err(name).to_string();
        assert!(
            error.contains(message),
            "{name}: {error:?} has no {message:?}"
        );
        let most = allowed(&bytes) + (1 << 20);
        assert!(held <= most, "{name}: {held} bytes for {}", bytes.len());
    }
    let mut longer = genuine.clone();
    longer.tensors[0].bytes[0] ^= 1;
    let error = read(&longer.bytes())
        .expect_err("the data have changed")
        .to_string();
    assert!(
        error.starts_with("section `conv2d1.weight` does not have the SHA-256"),
        "{error}"
    );
}

/// Another program's file of the same format says what it is not.
#[test]
fn a_file_of_another_program_is_named_so() {
    let other = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (other.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(other);
    bytes.extend_from_slice(&[0; 4]);
    assert_eq!(
        ModelFile::open(shared(&bytes)).unwrap_err().to_string(),
        "its metadata have no `fledgling.format`; it is a SafeTensors file, but no model file of \
         this program"
    );
}
