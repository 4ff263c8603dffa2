//! A slot: which version is current, as text.

use core::fmt;

use crate::digest::{Digest, Version};

const TITLE: &str = "fledgling versions 1";
/// Bytes of a slot at most.
pub(super) const LONGEST: u64 = 1024;

/// What a store knows besides its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How often the current version was changed.
    pub(super) sequence: u64,
    pub(super) current: Option<Version>,
    pub(super) previous: Option<Version>,
}

impl State {
    fn body(&self) -> String {
        let version = |version: Option<Version>| match version {
            Some(version) => format!("{} {}", version.digest, version.bytes),
            None => "none".to_owned(),
        };
        format!(
            "{TITLE}\nsequence {}\ncurrent {}\nprevious {}\n",
            self.sequence,
            version(self.current),
            version(self.previous)
        )
    }

    /// None for anything but what [`Display`](fmt::Display) writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let version = |text: &str| match text {
            "none" => Some(None),
            text => {
                let (digest, bytes) = text.split_once(' ')?;
                Some(Some(Version {
                    digest: digest.parse().ok()?,
                    bytes: bytes.parse().ok()?,
                }))
            }
        };
        let state = Self {
            sequence: value("sequence")?.parse().ok()?,
            current: version(value("current")?)?,
            previous: version(value("previous")?)?,
        };
        (state.to_string() == text).then_some(state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        writeln!(f, "{body}checksum {}", Digest::of(body.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let state = State {
            sequence: 12,
            current: Some(Version::of(b"new")),
            previous: None,
        };
        let text = state.to_string();
        assert!(text.len() as u64 <= LONGEST);
        assert_eq!(State::parse(&text), Some(state));
        for end in 0..text.len() {
            assert_eq!(State::parse(&text[..end]), None, "{end}");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert_eq!(State::parse(&text), None, "{bit}");
            }
        }
    }
}
