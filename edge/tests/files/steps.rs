//! Compiled steps in a file: the same bits as the program that was written, and no trust.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fl_core::{InputSpec, TargetSpec};
use fl_edge::file::ModelFile;
use fl_edge::quant::{Code4, Granularity};
use fl_edge::{
    Inputs, MODELS, Model, ModelDef, Numerics, Passes, Program, Ready, Runner, StepsError,
};
use sha2::{Digest as _, Sha256};

use crate::allocator::peak;
use crate::programs::{examples, four, products, quantized, saved, tiny, tokens, trained};
use crate::{Tested, shared, small, start, written};

/// A model of the zoo on data that it takes.
fn model_of(kind: &str) -> Result<Arc<Model>, Box<dyn std::error::Error>> {
    let def = ModelDef::named(kind).ok_or("a model of the zoo")?;
    let classes = TargetSpec::Class { classes: 10 };
    let images = |shape: [usize; 3]| Model::new(&def, &InputSpec::Real(shape.to_vec()), classes);
    let model = match def.example() {
        Some((input @ InputSpec::Tokens { .. }, target)) => Model::new(&def, &input, target)?,
        _ => images([28, 28, 1]).or_else(|_| images([32, 32, 3]))?,
    };
    Ok(Arc::new(model))
}

/// The inputs of a model, of either kind.
struct Batch {
    reals: Vec<f32>,
    tokens: Vec<u32>,
}

impl Batch {
    fn new(model: &Model, rows: usize) -> Self {
        Self {
            reals: examples(model, rows),
            tokens: tokens(model, rows),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        match self.tokens.is_empty() {
            true => Inputs::Real(&self.reals),
            false => Inputs::Tokens(&self.tokens),
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn compiled_steps_give_the_bits_of_their_program() -> Tested {
    for &(kind, _) in MODELS {
        let model = model_of(kind)?;
        let parameters = trained(&model);
        let int8 = |granularity| Numerics::Int8(quantized(&model, &parameters, granularity));
        let cases = [
            (Numerics::F32, Passes::ALL),
            (Numerics::F32, Passes::NONE),
            (Numerics::F16, Passes::ALL),
            (four(Code4::Int4, 64), Passes::ALL),
            (four(Code4::Uint4, 32), Passes::NONE),
            (four(Code4::Nf4, 128), Passes::ALL),
            (products(Code4::Int4, 32), Passes::ALL),
            (int8(Granularity::Channel), Passes::ALL),
            (int8(Granularity::Tensor), Passes::NONE),
        ];
        for (numerics, passes) in cases {
            let name = format!("{kind} {} {passes:?}", numerics.name());
            let program = Program::compile(&model, &parameters, &numerics, passes)?;
            let bytes = saved(&program);
            let mut ready = Ready::open(shared(&bytes)).map_err(|e| format!("{name}: {e}"))?;
            ready.verify()?;
            assert_eq!(ready.input_len(), program.input_len());
            assert_eq!(ready.output_len(), program.output_len());
            let width = program.output_len();
            let mut runner = Runner::new(Arc::new(program), 4);
            // More than are worked on at once, and twice in the same arena.
            for rows in [1, 3, 11, 1] {
                let batch = Batch::new(&model, rows);
                let mut expected = vec![f32::NAN; rows * width];
                runner.run(batch.inputs(), &mut expected);
                let mut found = vec![f32::NAN; rows * width];
                ready.run(batch.inputs(), &mut found);
                assert_eq!(bits(&found), bits(&expected), "{name}, {rows} rows");
            }
        }
    }
    Ok(())
}

#[test]
fn every_combination_of_passes_is_one_that_the_check_lets_through() -> Tested {
    for kind in ["resnet8-gn", "mobilenet-v2"] {
        let model = model_of(kind)?;
        let parameters = trained(&model);
        let quantization = quantized(&model, &parameters, Granularity::Channel);
        for numerics in [Numerics::F32, Numerics::F16, Numerics::Int8(quantization)] {
            for passes in Passes::combinations() {
                let program = Program::compile(&model, &parameters, &numerics, passes)?;
                let ready = Ready::open(shared(&saved(&program)));
                assert!(ready.is_ok(), "{kind} {} {passes:?}", numerics.name());
            }
        }
    }
    Ok(())
}

#[test]
fn a_file_without_steps_is_refused_with_the_way_out() {
    let model = small();
    let parameters = written(&model, &start(&model));
    let refused = Ready::open(shared(&parameters)).expect_err("no steps");
    assert_eq!(refused, StepsError::NoSteps);
    assert!(refused.to_string().contains("fledgling model convert"));
    for bytes in [&b""[..], &[1, 0, 0, 0], &[0xff; 64], &[0; 64]] {
        let refused = Ready::open(shared(bytes)).expect_err("no file");
        assert_eq!(refused, StepsError::NoFile);
    }
}

/// The text of the steps in a file.
fn entry(file: &[u8]) -> Range<usize> {
    let key = b"\"fledgling.steps\":\"";
    let at = file.windows(key.len()).position(|part| part == key);
    let start = at.expect("a program's file has steps") + key.len();
    let len = file[start..].iter().position(|&byte| byte == b'"');
    start..start + len.expect("a text ends")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> Vec<u8> {
    let bits = |index: usize| (bytes[index / 8] >> (7 - index % 8)) & 1;
    let digit = |at: usize| {
        let bits = (6 * at..6 * at + 6).map(|i| if i < 8 * bytes.len() { bits(i) } else { 0 });
        ALPHABET[bits.fold(0, |sum, bit| 2 * sum + usize::from(bit))]
    };
    (0..(8 * bytes.len()).div_ceil(6)).map(digit).collect()
}

fn from_base64(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| ALPHABET.iter().position(|it| it == byte).expect("base64");
    let bits: Vec<u8> = text
        .iter()
        .flat_map(|byte| {
            let digit = digit(byte);
            (0..6).map(move |bit| (digit >> (5 - bit) & 1) as u8)
        })
        .collect();
    let byte = |bits: &[u8]| bits.iter().fold(0, |sum, bit| 2 * sum + bit);
    bits.chunks_exact(8).map(byte).collect()
}

/// Where the block lies in a file whose data are one tensor.
fn last(file: &[u8]) -> Option<Range<usize>> {
    let key = b"\"fledgling.format\":\"3\"";
    file.windows(key.len()).find(|part| part == key)?;
    let (data, length) = file.split_last_chunk()?;
    Some(data.len() - u32::from_le_bytes(*length) as usize..data.len())
}

/// A file with other steps, whose checksum is made right.
fn forged(file: &[u8], body: &[u8]) -> Vec<u8> {
    let mut block = body.to_vec();
    let digest = Sha256::digest(body);
    if let Some(range) = last(file) {
        block.extend_from_slice(&digest[..16]);
        let mut bytes = file[..range.start].to_vec();
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
        return bytes;
    }
    block.extend_from_slice(&digest);
    let range = entry(file);
    let text = base64(&block);
    let mut bytes = file[..range.start].to_vec();
    bytes.extend_from_slice(&text);
    bytes.extend_from_slice(&file[range.end..]);
    // The data begin where the header ends; how long it is has changed with the text.
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    let length = length + text.len() as u64 - range.len() as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The steps of a file without their checksum.
fn body(file: &[u8]) -> Vec<u8> {
    match last(file) {
        Some(range) => file[range.start..range.end - 16].to_vec(),
        None => {
            let mut body = from_base64(&file[entry(file)]);
            body.truncate(body.len() - 32);
            body
        }
    }
}

/// Opens a file and runs what it gives, at two sizes of batches.
fn opened(bytes: &[u8]) -> Result<(), StepsError> {
    let mut ready = Ready::open(shared(bytes))?;
    let (input, output) = (ready.input_len(), ready.output_len());
    if input.max(output) > 1 << 16 {
        return Ok(());
    }
    for rows in [1, 9] {
        let mut outputs = vec![0.0; rows * output];
        match ready.vocabulary() {
            None => ready.run(Inputs::Real(&vec![0.5; rows * input]), &mut outputs),
            Some(_) => ready.run(Inputs::Tokens(&vec![0; rows * input]), &mut outputs),
        }
    }
    Ok(())
}

/// The bytes of the format, put together by hand for one small program.
#[test]
fn the_format_is_as_described() -> Tested {
    let def = ModelDef::named("logreg").ok_or("a model of the zoo")?;
    let classes = TargetSpec::Class { classes: 3 };
    let model = Arc::new(Model::new(&def, &InputSpec::Real(vec![2, 2, 1]), classes)?);
    let parameters = trained(&model);
    let program = Program::compile(&model, &parameters, &Numerics::F32, Passes::ALL)?;
    let file = saved(&program);
    let mut expected = b"FLS\x01".to_vec();
    // Four values in, no tokens, three out.
    expected.extend([4, 0, 3]);
    // A panel of four terms and sixteen columns, then three biases: 256 + 12 bytes.
    expected.extend([0x8c, 0x02]);
    // Neither is large: they lie in the order in which they are needed.
    expected.extend([2, 0, 0x80, 0x02, 0x80, 0x02, 12]);
    // No arena; two buffers, both the caller's.
    expected.extend([0, 2, 0, 0, 0, 0, 0, 0]);
    // The output is buffer 1. One step: a served dense layer 4 x 3 from 0 to 1 with weights in f32
    // in constant 0, a bias in constant 1, nothing after it, no scratch.
    expected.extend([1, 1, 3, 4, 3, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0]);
    assert_eq!(body(&file), expected);
    let all = from_base64(&file[entry(&file)]);
    assert_eq!(all[expected.len()..], *Sha256::digest(&expected));
    assert_eq!(forged(&file, &expected), file);
    opened(&file)?;
    Ok(())
}

/// The same for one in four bits, whose steps are the last of the data.
#[test]
fn the_joined_format_is_as_described() -> Tested {
    let def = ModelDef::named("logreg").ok_or("a model of the zoo")?;
    let classes = TargetSpec::Class { classes: 3 };
    let model = Arc::new(Model::new(&def, &InputSpec::Real(vec![2, 2, 1]), classes)?);
    let parameters = trained(&model);
    let program = Program::compile(&model, &parameters, &four(Code4::Int4, 64), Passes::ALL)?;
    let file = saved(&program);
    let mut expected = b"FLS\x02".to_vec();
    // Four values in, no tokens, three out, twenty bytes of constants.
    expected.extend([4, 0, 3, 20]);
    // Three constants: eight bytes of codes, three scales, three biases to be written out in f32.
    expected.extend([3, 8 << 2, 3 << 2 | 1, 3 << 2 | 3]);
    // An arena of 256 bytes; the caller's two buffers and a block of 64 weights.
    expected.extend([0x80, 0x02, 3, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x02, 0]);
    // One step: a served dense layer 4 x 3 from 0 to 1, with weights of four bits in groups of 64
    // (codes 0, scales 1, zero in the middle), bias 2, nothing after it, and buffer 2.
    expected.extend([1, 1, 3, 4, 3, 0, 1, 2, 0, 1, 0, 64, 1, 2, 0, 0, 0, 1, 2]);
    assert_eq!(body(&file), expected);
    assert_eq!(forged(&file, &expected), file);
    // Scales and biases lie before the codes, as numbers of two bytes do before those of one.
    let opened_file = ModelFile::open(shared(&file))?;
    let [tensor] = opened_file.tensors() else {
        return Err("more than one tensor".into());
    };
    assert_eq!(
        (tensor.name.as_str(), &tensor.shape[..]),
        ("data", &[20 + expected.len() + 20][..])
    );
    let data = &file[opened_file.data_start()..];
    for (section, range) in [(1, 0..6), (2, 6..12), (0, 12..20)] {
        assert_eq!(program.constants().bytes(section), &data[range]);
    }
    opened(&file)?;
    // Cut anywhere behind the header it is an error for who compiles as well.
    for cut in opened_file.data_start()..file.len() {
        let cut = ModelFile::open(shared(&file[..cut]));
        assert!(cut.is_err());
    }
    // A length that is not the block's leaves constants that are no program's.
    let block = expected.len() as u32 + 16;
    for length in [0, 1, block - 1, block + 1, 4000, u32::MAX] {
        let mut other = file.clone();
        let at = other.len() - 4;
        other[at..].copy_from_slice(&length.to_le_bytes());
        assert!(ModelFile::open(shared(&other))?.program().is_err());
        assert!(opened(&other).is_err());
    }
    Ok(())
}

#[test]
fn every_truncation_and_flipped_bit_is_an_error() -> Tested {
    for program in tiny() {
        let bytes = saved(&program);
        let read = |bytes: &[u8]| Ready::open(shared(bytes))?.verify();
        read(&bytes)?;
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        // What the steps do not need of the header, they do not check: the description.
        // Of a file whose data are one tensor, they are among the data.
        let range = last(&bytes).map_or_else(|| entry(&bytes), |_| 0..0);
        let data = ModelFile::open(shared(&bytes))?.data_start();
        let most = 40 * bytes.len() + (256 << 10);
        for bit in (8 * range.start..8 * range.end).chain(8 * data..8 * bytes.len()) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (held, result) = peak(|| read(&flipped));
            assert!(result.is_err(), "byte {} bit {}", bit / 8, bit % 8);
            assert!(held <= most, "{bit}: {held} bytes");
        }
    }
    Ok(())
}

/// Programs whose steps are of every code that the zoo gives.
fn various() -> Result<Vec<Program>, Box<dyn std::error::Error>> {
    let mut programs = Vec::from(tiny());
    let small_zoo = [
        ("mlp-2nn", InputSpec::Real(vec![3, 2, 1])),
        ("cnn-fedavg", InputSpec::Real(vec![8, 8, 1])),
        ("resnet8-gn", InputSpec::Real(vec![8, 8, 1])),
    ];
    let classes = TargetSpec::Class { classes: 2 };
    let mut models = Vec::new();
    for (kind, input) in small_zoo {
        let def = ModelDef::named(kind).ok_or(kind)?;
        models.push(Arc::new(Model::new(&def, &input, classes)?));
    }
    for kind in ["mobilenet-v2", "lstm-shakespeare", "transformer"] {
        models.push(model_of(kind)?);
    }
    for model in models {
        let parameters = trained(&model);
        let int8 = Numerics::Int8(quantized(&model, &parameters, Granularity::Channel));
        for (numerics, passes) in [
            (Numerics::F32, Passes::NONE),
            (four(Code4::Uint4, 16), Passes::ALL),
            (products(Code4::Uint4, 16), Passes::ALL),
            (int8.clone(), Passes::ALL),
            (int8, Passes::NONE),
        ] {
            programs.push(Program::compile(&model, &parameters, &numerics, passes)?);
        }
    }
    Ok(programs)
}

/// The safety argument, tried: every byte of the steps replaced, the checksum made right. What
/// the check lets through runs, and no kernel finds a slice too short.
#[test]
fn steps_that_pass_the_check_never_reach_beyond_their_buffers() -> Tested {
    let (mut refused, mut run) = (0u32, 0u32);
    for program in various()? {
        let file = saved(&program);
        let body = body(&file);
        // The larger programs take a while to run: a part of their bytes, each in one way.
        let large = file.len() > 1 << 16;
        let step = match large {
            true => body.len() / 40 + 1,
            false => body.len() / 400 + 1,
        };
        for at in (4..body.len()).step_by(step) {
            let values: &[u8] = match large {
                true => &[1, 3],
                false => &[0, 1, 2, 0x7f, 0x80, 0xff],
            };
            for &value in values {
                let mut changed = body.clone();
                changed[at] = match value {
                    1 | 3 => body[at].wrapping_add(value),
                    2 => body[at].wrapping_sub(1),
                    other => other,
                };
                let forged = forged(&file, &changed);
                // A panic would be a check that is missing.
                let result = catch_unwind(AssertUnwindSafe(|| opened(&forged)));
                match result {
                    Ok(Ok(())) => run += 1,
                    Ok(Err(_)) => refused += 1,
                    Err(_) => panic!(
                        "{} of {}: byte {at} of {} as {}",
                        program.numerics().name(),
                        program.steps(),
                        body.len(),
                        changed[at]
                    ),
                }
            }
        }
    }
    println!("{refused} refused, {run} run");
    assert!(refused > 1000 && run > 1000, "{refused} {run}");
    Ok(())
}
