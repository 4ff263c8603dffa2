//! The machine that a pickle is a program of, without what could do harm.

use super::{MOST_MARKS, Object, PickleFault, Value};

/// Length of a line of protocol 0.
const MOST_LINE: usize = 1 << 20;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) objects: Vec<Object<'a>>,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
}

type Step<T> = Result<T, PickleFault>;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
        }
    }

    fn take(&mut self, count: usize, what: &'static str) -> Step<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or(PickleFault::End(what))?;
        self.at += count;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, what: &'static str) -> Step<[u8; N]> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| PickleFault::End(what))
    }

    /// A length in `N` bytes.
    fn length<const N: usize>(&mut self, what: &'static str) -> Step<usize> {
        let bytes: [u8; N] = self.number(what)?;
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| PickleFault::End(what))
    }

    /// A line of ASCII without its end.
    fn line(&mut self, what: &'static str) -> Step<&'a str> {
        let line = self.raw_line(what)?;
        core::str::from_utf8(line).map_err(|_| PickleFault::Text(what))
    }

    /// The bytes of a line without its end.
    fn raw_line(&mut self, what: &'static str) -> Step<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let searched = rest.get(..rest.len().min(MOST_LINE)).unwrap_or_default();
        let end = searched.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(PickleFault::End(what))?;
        let line = self.take(end, what)?;
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, length: usize, what: &'static str) -> Step<()> {
        let bytes = self.take(length, what)?;
        let text = core::str::from_utf8(bytes).map_err(|_| PickleFault::Text(what))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn keep(&mut self, object: Object<'a>) -> Value<'a> {
        // There are no more objects than bytes, and longer files are refused.
        let index = self.objects.len() as u32;
        self.objects.push(object);
        Value::Object(index)
    }

    fn pop(&mut self, what: &'static str) -> Step<Value<'a>> {
        // Nothing below the last mark may be taken.
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or(PickleFault::Stack(what)),
            false => Err(PickleFault::Stack(what)),
        }
    }

    fn top(&self, what: &'static str) -> Step<Value<'a>> {
        self.stack.last().copied().ok_or(PickleFault::Stack(what))
    }

    /// What lies above the last mark, which goes.
    fn marked(&mut self, what: &'static str) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or(PickleFault::Stack(what))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, count: usize, what: &'static str) -> Step<()> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop(what)?);
        }
        items.reverse();
        let tuple = self.keep(Object::Tuple(items));
        self.stack.push(tuple);
        Ok(())
    }

    fn append(&mut self, items: &[Value<'a>], what: &'static str) -> Step<()> {
        let Value::Object(index) = self.top(what)? else {
            return Err(PickleFault::Stack(what));
        };
        match self.objects.get_mut(index as usize) {
            Some(Object::List(list)) => list.extend_from_slice(items),
            _ => return Err(PickleFault::Stack(what)),
        }
        Ok(())
    }

    fn pairs(items: &[Value<'a>], what: &'static str) -> Step<Vec<(Value<'a>, Value<'a>)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        match rest {
            [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(PickleFault::Stack(what)),
        }
    }

    fn set(&mut self, items: &[Value<'a>], what: &'static str) -> Step<()> {
        let more = Self::pairs(items, what)?;
        let Value::Object(index) = self.top(what)? else {
            return Err(PickleFault::Stack(what));
        };
        match self.objects.get_mut(index as usize) {
            Some(Object::Dict(pairs)) => pairs.extend(more),
            _ => return Err(PickleFault::Stack(what)),
        }
        Ok(())
    }

    fn put(&mut self, index: u64, what: &'static str) -> Step<()> {
        let value = self.top(what)?;
        // Python numbers entries from zero without a gap.
        match usize::try_from(index) {
            Ok(index) if index < self.memo.len() => self.memo[index] = Some(value),
            // Protocols 0 and 1 of old versions begin with one, and optimised pickles leave gaps,
            // which each take a byte at least.
            Ok(index) if index <= self.bytes.len() => {
                self.memo.resize(index, None);
                self.memo.push(Some(value));
            }
            _ => return Err(PickleFault::Memo(index)),
        }
        Ok(())
    }

    fn get(&mut self, index: u64) -> Step<()> {
        let found = usize::try_from(index).ok();
        let found = found.and_then(|index| self.memo.get(index).copied().flatten());
        self.stack.push(found.ok_or(PickleFault::Memo(index))?);
        Ok(())
    }

    fn push<T>(&mut self, value: Value<'a>) -> Step<Option<T>> {
        self.stack.push(value);
        Ok(None)
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, length: usize) -> Step<()> {
        let bytes = self.take(length, "LONG")?;
        if length > 8 {
            return Err(PickleFault::Integer);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn parsed_integer(text: &str, what: &'static str) -> Step<i64> {
        text.trim()
            .parse()
            .map_err(|error: core::num::ParseIntError| {
                use core::num::IntErrorKind::{NegOverflow, PosOverflow};
                match error.kind() {
                    PosOverflow | NegOverflow => PickleFault::Integer,
                    _ => PickleFault::Text(what),
                }
            })
    }

    /// One opcode; the root when it is the last.
    pub(super) fn step(&mut self) -> Step<Option<Value<'a>>> {
        let [opcode] = self.number::<1>("an opcode")?;
        match opcode {
            0x80 => match self.number::<1>("PROTO")? {
                [0..=5] => {}
                [version] => return Err(PickleFault::Protocol(version)),
            },
            // A frame's length is a hint for readers of streams.
            0x95 => drop(self.number::<8>("FRAME")?),
            b'N' => return self.push(Value::None),
            0x88 => return self.push(Value::Bool(true)),
            0x89 => return self.push(Value::Bool(false)),
            b'I' => {
                let value = match self.line("INT")? {
                    "01" => Value::Bool(true),
                    "00" => Value::Bool(false),
                    text => Value::Int(Self::parsed_integer(text, "INT")?),
                };
                return self.push(value);
            }
            b'L' => {
                let text = self.line("LONG")?;
                let text = text.strip_suffix('L').unwrap_or(text);
                return self.push(Value::Int(Self::parsed_integer(text, "LONG")?));
            }
            b'J' => {
                let number = i32::from_le_bytes(self.number("BININT")?);
                return self.push(Value::Int(number.into()));
            }
            b'K' => {
                let [number] = self.number::<1>("BININT1")?;
                return self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.number("BININT2")?);
                return self.push(Value::Int(number.into()));
            }
            0x8a => {
                let length = self.length::<1>("LONG1")?;
                self.long(length)?;
            }
            0x8b => {
                let length = self.length::<4>("LONG4")?;
                self.long(length)?;
            }
            b'F' => {
                let text = self.line("FLOAT")?.trim();
                let number = text.parse().map_err(|_| PickleFault::Text("FLOAT"))?;
                return self.push(Value::Float(number));
            }
            b'G' => {
                let number = f64::from_be_bytes(self.number("BINFLOAT")?);
                return self.push(Value::Float(number));
            }
            b'S' => {
                let text = unquoted(self.line("STRING")?).ok_or(PickleFault::Text("STRING"))?;
                let value = self.keep(Object::Text(text));
                return self.push(value);
            }
            b'V' => {
                let text =
                    unescaped(self.raw_line("UNICODE")?).ok_or(PickleFault::Text("UNICODE"))?;
                let value = self.keep(Object::Text(text));
                return self.push(value);
            }
            b'T' => {
                let length = self.length::<4>("BINSTRING")?;
                self.text(length, "BINSTRING")?;
            }
            b'U' => {
                let length = self.length::<1>("SHORT_BINSTRING")?;
                self.text(length, "SHORT_BINSTRING")?;
            }
            b'X' => {
                let length = self.length::<4>("BINUNICODE")?;
                self.text(length, "BINUNICODE")?;
            }
            0x8c => {
                let length = self.length::<1>("SHORT_BINUNICODE")?;
                self.text(length, "SHORT_BINUNICODE")?;
            }
            0x8d => {
                let length = self.length::<8>("BINUNICODE8")?;
                self.text(length, "BINUNICODE8")?;
            }
            b'(' => {
                if self.marks.len() >= MOST_MARKS {
                    return Err(PickleFault::Depth);
                }
                self.marks.push(self.stack.len());
            }
            b']' => {
                let list = self.keep(Object::List(Vec::new()));
                return self.push(list);
            }
            b'l' => {
                let items = self.marked("LIST")?;
                let list = self.keep(Object::List(items));
                return self.push(list);
            }
            b'a' => {
                let item = self.pop("APPEND")?;
                self.append(&[item], "APPEND")?;
            }
            b'e' => {
                let items = self.marked("APPENDS")?;
                self.append(&items, "APPENDS")?;
            }
            b')' => self.tuple(0, "EMPTY_TUPLE")?,
            0x85 => self.tuple(1, "TUPLE1")?,
            0x86 => self.tuple(2, "TUPLE2")?,
            0x87 => self.tuple(3, "TUPLE3")?,
            b't' => {
                let items = self.marked("TUPLE")?;
                let tuple = self.keep(Object::Tuple(items));
                return self.push(tuple);
            }
            b'}' => {
                let dict = self.keep(Object::Dict(Vec::new()));
                return self.push(dict);
            }
            b'd' => {
                let items = self.marked("DICT")?;
                let pairs = Self::pairs(&items, "DICT")?;
                let dict = self.keep(Object::Dict(pairs));
                return self.push(dict);
            }
            b's' => {
                let value = self.pop("SETITEM")?;
                let key = self.pop("SETITEM")?;
                self.set(&[key, value], "SETITEM")?;
            }
            b'u' => {
                let items = self.marked("SETITEMS")?;
                self.set(&items, "SETITEMS")?;
            }
            b'0' => drop(self.pop("POP")?),
            b'1' => drop(self.marked("POP_MARK")?),
            b'2' => {
                let value = self.top("DUP")?;
                return self.push(value);
            }
            b'p' => {
                let text = self.line("PUT")?;
                let index = text.trim().parse().map_err(|_| PickleFault::Text("PUT"))?;
                self.put(index, "PUT")?;
            }
            b'q' => {
                let index = self.length::<1>("BINPUT")?;
                self.put(index as u64, "BINPUT")?;
            }
            b'r' => {
                let index = self.length::<4>("LONG_BINPUT")?;
                self.put(index as u64, "LONG_BINPUT")?;
            }
            0x94 => self.put(self.memo.len() as u64, "MEMOIZE")?,
            b'g' => {
                let text = self.line("GET")?;
                let index = text.trim().parse().map_err(|_| PickleFault::Text("GET"))?;
                self.get(index)?;
            }
            b'h' => {
                let index = self.length::<1>("BINGET")?;
                self.get(index as u64)?;
            }
            b'j' => {
                let index = self.length::<4>("LONG_BINGET")?;
                self.get(index as u64)?;
            }
            b'.' => {
                let root = self.pop("STOP")?;
                return match (self.stack.is_empty(), self.marks.is_empty()) {
                    (true, true) => Ok(Some(root)),
                    _ => Err(PickleFault::Stack("STOP")),
                };
            }
            other => {
                return Err(match refused(other) {
                    Some(name) => PickleFault::Refused(name),
                    None => PickleFault::Opcode(other),
                });
            }
        }
        Ok(None)
    }
}

/// Opcodes that import, call, build, or hold what is no plain data.
fn refused(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'c' => "GLOBAL (an import)",
        0x93 => "STACK_GLOBAL (an import)",
        b'R' => "REDUCE (a call)",
        b'b' => "BUILD (an object's state)",
        b'i' => "INST (an object)",
        b'o' => "OBJ (an object)",
        0x81 => "NEWOBJ (an object)",
        0x92 => "NEWOBJ_EX (an object)",
        0x82 => "EXT1 (an extension)",
        0x83 => "EXT2 (an extension)",
        0x84 => "EXT4 (an extension)",
        b'P' => "PERSID (an outside object)",
        b'Q' => "BINPERSID (an outside object)",
        b'B' => "BINBYTES (bytes)",
        b'C' => "SHORT_BINBYTES (bytes)",
        0x8e => "BINBYTES8 (bytes)",
        0x8f => "EMPTY_SET (a set)",
        0x90 => "ADDITEMS (a set)",
        0x91 => "FROZENSET (a set)",
        0x96 => "BYTEARRAY8 (bytes)",
        0x97 => "NEXT_BUFFER (an outside buffer)",
        0x98 => "READONLY_BUFFER (an outside buffer)",
        _ => return None,
    })
}

/// A string of Python in its quotes, in ASCII.
fn unquoted(text: &str) -> Option<String> {
    let text = text.trim();
    let quote = text
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = text.get(1..)?.strip_suffix(quote)?;
    let mut found = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            found.push(letter);
            continue;
        }
        match letters.next()? {
            'n' => found.push('\n'),
            't' => found.push('\t'),
            'r' => found.push('\r'),
            'x' => found.push(hexadecimal(&mut letters, 2).filter(char::is_ascii)?),
            plain @ ('\\' | '\'' | '"') => found.push(plain),
            _ => return None,
        }
    }
    Some(found)
}

/// A line of Python's `raw-unicode-escape`: Latin-1, and escapes for what lies beyond.
fn unescaped(text: &[u8]) -> Option<String> {
    let text: String = text.iter().copied().map(char::from).collect();
    let mut found = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            found.push(letter);
            continue;
        }
        match letters.next() {
            Some('u') => found.push(hexadecimal(&mut letters, 4)?),
            Some('U') => found.push(hexadecimal(&mut letters, 8)?),
            Some(other) => found.extend(['\\', other]),
            None => found.push('\\'),
        }
    }
    Some(found)
}

fn hexadecimal(letters: &mut core::str::Chars<'_>, count: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..count {
        code = 16 * code + letters.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}
