//! A decoder of Python's pickles that hold plain data.
//!
//! Protocols 0 to 5 (the opcodes are those of Python's `pickletools`), restricted to None, booleans,
//! integers of 64 bits, floats, strings, lists, tuples and dicts. Whatever would import, call or build an
//! object is refused by the name of its opcode, and never looked into: a pickle is a program, and this
//! runs none of it. Objects live in one table and refer to one another by index, so that memo entries
//! cost nothing, nothing recurses, and memory grows with the bytes that are there; lengths are checked
//! against those before anything is taken.

mod reader;

use reader::Reader;

/// Marks that may be open at once.
const MOST_MARKS: usize = 256;
/// Bytes that are read at most, so that objects can be counted in 32 bits.
const MOST_BYTES: usize = 1 << 31;

/// Why bytes are no pickle of plain data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pickle, at byte {at}: {fault}")]
pub struct PickleError {
    /// Where.
    pub at: usize,
    /// What.
    pub fault: PickleFault,
}

/// What is wrong with a pickle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleFault {
    /// It ends too early.
    #[error("it ends within {0}; give the whole file")]
    End(&'static str),
    /// It would run code, or hold what is no plain data.
    #[error("{0} is not plain data; write the file with lists, dicts, numbers and strings alone")]
    Refused(&'static str),
    /// There is no such opcode.
    #[error("there is no opcode {0:#04x}; is it a pickle?")]
    Opcode(u8),
    /// A protocol from the future.
    #[error("protocol {0} is not known; write it with protocol 5 or below")]
    Protocol(u8),
    /// An opcode finds something else than it needs.
    #[error("{0} does not find what it needs on the stack; the file is damaged")]
    Stack(&'static str),
    /// A memo entry that there is not.
    #[error("memo entry {0} is read before it is written; the file is damaged")]
    Memo(u64),
    /// Text that is not UTF-8, or a number that is none.
    #[error("{0} cannot be read; the file is damaged")]
    Text(&'static str),
    /// An integer of more than 64 bits.
    #[error("an integer has more than 64 bits; times and counts have fewer")]
    Integer,
    /// Too many open marks.
    #[error("more than {MOST_MARKS} lists are open at once; plain recordings have a few")]
    Depth,
    /// It is too long.
    #[error("it has {0} bytes and at most {MOST_BYTES} are read; split the file")]
    Size(usize),
    /// Something follows.
    #[error("{0} bytes follow its end; give one pickle alone")]
    Trailing(usize),
}

/// A value of a pickle. Lists, tuples, dicts and decoded strings are kept in the [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// None.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string as it is in the bytes.
    Text(&'a str),
    /// Something in the table.
    Object(u32),
}

#[derive(Clone, Debug)]
enum Object<'a> {
    Text(String),
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
}

/// A decoded pickle.
#[derive(Clone, Debug)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Value<'a>,
}

impl Value<'_> {
    /// What it is, in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Object(_) => "a list, tuple, dict or string",
        }
    }

    /// A number, printed; anything else in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            other => other.name().to_owned(),
        }
    }

    /// Its value as a number. Booleans are none.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'a> Pickle<'a> {
    /// Decodes a pickle.
    ///
    /// # Errors
    /// [`PickleError`] with the byte and what is wrong there.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PickleError> {
        if bytes.len() > MOST_BYTES {
            let fault = PickleFault::Size(bytes.len());
            return Err(PickleError { at: 0, fault });
        }
        let mut reader = Reader::new(bytes);
        loop {
            let start = reader.at;
            match reader.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let left = bytes.len() - reader.at;
                    if left > 0 {
                        let fault = PickleFault::Trailing(left);
                        return Err(PickleError {
                            at: reader.at,
                            fault,
                        });
                    }
                    let objects = reader.objects;
                    return Ok(Self { objects, root });
                }
                Err(fault) => return Err(PickleError { at: start, fault }),
            }
        }
    }

    /// What it holds.
    #[must_use]
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// The items of a list or tuple.
    #[must_use]
    pub fn list(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.object(value)? {
            Object::List(items) | Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a dict in the order of the bytes; of equal keys the last one counts.
    #[must_use]
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.object(value)? {
            Object::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// A string.
    #[must_use]
    pub fn text(&self, value: Value<'a>) -> Option<&str> {
        match (value, self.object(value)) {
            (Value::Text(text), _) => Some(text),
            (_, Some(Object::Text(text))) => Some(text),
            _ => None,
        }
    }
}
