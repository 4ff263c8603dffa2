//! Compiled steps: a block as it stands in a model file, without its checksum.
//!
//! The target makes the checksum right, puts the block into a file with as many zeros of data as it
//! asks for, opens that and runs what passes the check: the argument that no step reaches beyond its
//! buffers, tried.

use std::sync::Arc;

use fl_edge::{Inputs, Ready};
use sha2::{Digest as _, Sha256};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const KEY: &[u8] = b"\"fledgling.steps\":\"";
/// The block of such a file is the last of its data.
const JOINED: &[u8] = b"\"fledgling.format\":\"3\"";
/// Bytes of data, bytes of an arena, and numbers of an input or output at most.
const MOST: usize = 1 << 16;

/// The target.
pub(crate) fn run(bytes: &[u8]) {
    open(bytes.to_vec());
    if let Some(file) = file(bytes) {
        open(file);
    }
}

fn open(file: Vec<u8>) {
    let Ok(mut ready) = Ready::open_within(Arc::new(file), MOST) else {
        return;
    };
    let _ = ready.verify();
    let (input, output) = (ready.input_len(), ready.output_len());
    if input.max(output) > MOST {
        return;
    }
    for rows in [1, 3] {
        let mut outputs = vec![0.0; rows * output];
        match ready.vocabulary() {
            None => ready.run(Inputs::Real(&vec![0.5; rows * input]), &mut outputs),
            Some(_) => ready.run(Inputs::Tokens(&vec![0; rows * input]), &mut outputs),
        }
    }
}

/// A file around a block.
fn file(body: &[u8]) -> Option<Vec<u8>> {
    // Magic, then four numbers, of which the last is the length of the data.
    let mut rest = body.get(4..)?;
    let mut data = 0;
    for _ in 0..4 {
        (data, rest) = number(rest)?;
    }
    let data = usize::try_from(data).ok().filter(|&data| data <= MOST)?;
    let mut block = body.to_vec();
    let digest = Sha256::digest(body);
    let len = if body[3] == 2 { 16 } else { digest.len() };
    block.extend_from_slice(&digest[..len]);
    let mut header = b"{\"__metadata__\":{".to_vec();
    header.extend_from_slice(KEY);
    header.extend_from_slice(&base64(&block));
    header.extend_from_slice(b"\"}}");
    header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&header);
    file.resize(file.len() + data, 0);
    Some(file)
}

/// A number in LEB128, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(9).position(|&byte| byte < 0x80)?;
    let (digits, rest) = bytes.split_at(end + 1);
    let add = |sum, digit: &u8| sum << 7 | u64::from(digit & 0x7f);
    Some((digits.iter().rev().fold(0, add), rest))
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let bit = |at: usize| (bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8))) & 1;
    let digit = |at: usize| {
        let bits = (6 * at..6 * at + 6).map(bit);
        ALPHABET[bits.fold(0, |sum, bit| 2 * sum + usize::from(bit))]
    };
    (0..(8 * bytes.len()).div_ceil(6)).map(digit).collect()
}

/// The block of a file of a program, for the corpus.
#[must_use]
pub fn body(file: &[u8]) -> Option<Vec<u8>> {
    if file.windows(JOINED.len()).any(|part| part == JOINED) {
        let (data, length) = file.split_last_chunk()?;
        let start = data
            .len()
            .checked_sub(u32::from_le_bytes(*length) as usize)?;
        return Some(data[start..data.len().checked_sub(16)?].to_vec());
    }
    let at = file.windows(KEY.len()).position(|part| part == KEY)?;
    let text = file[at + KEY.len()..].split(|&byte| byte == b'"').next()?;
    let digits: Option<Vec<usize>> = text
        .iter()
        .map(|byte| ALPHABET.iter().position(|digit| digit == byte))
        .collect();
    let digits = digits?;
    let bit = |at: usize| (digits[at / 6] >> (5 - at % 6)) & 1;
    let byte = |at: usize| (8 * at..8 * at + 8).fold(0, |sum, at| 2 * sum + bit(at) as u8);
    let len = (6 * digits.len() / 8).checked_sub(32)?;
    Some((0..len).map(byte).collect())
}
