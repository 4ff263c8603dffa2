//! The embedded device classes, and profiles read from and written to TOML.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::profile::{DeviceProfile, ProfileError, ProfileProblem};

/// Bytes of a profile that are read at most; the embedded ones have below 10 kB.
pub const MOST_BYTES: usize = 256 * 1024;

macro_rules! profiles {
    ($($name:literal,)*) => {
        /// Every embedded profile: its name and its text.
        pub const PROFILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../profiles/", $name, ".toml"))),)*
        ];
    };
}

profiles! {
    "flagship-24",
    "flagship-23",
    "flagship-21",
    "flagship-19",
    "flagship-17",
    "flagship-16",
    "upper-mid-23",
    "upper-mid-18",
    "mid-24",
    "mid-20",
    "mid-19",
    "low-17",
    "low-15",
    "sbc-pi-zero-2",
    "sbc-pi-3",
    "sbc-pi-4",
    "sbc-pi-5",
    "sbc-rk3588",
    "jetson-nano",
    "jetson-orin-nano",
    "automotive-soc",
    "automotive-mcu",
    "mcu-m4",
    "mcu-m33",
    "mcu-m7",
    "mcu-m85",
    "laptop-m1",
}

/// Reads a profile. `file` is what errors call it.
///
/// # Errors
/// The line and what is wrong there.
pub fn parse(text: &str, file: &str) -> Result<DeviceProfile, ProfileError> {
    let fail = |line, problem| ProfileError {
        file: file.to_owned(),
        line,
        problem,
    };
    if text.len() > MOST_BYTES {
        let (bytes, most) = (text.len(), MOST_BYTES);
        return Err(fail(None, ProfileProblem::Size { bytes, most }));
    }
    let profile: DeviceProfile = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| line_at(text, span.start));
        let message = error.message().trim_end().replace('\n', " ");
        fail(line, ProfileProblem::Form { message })
    })?;
    match profile.check() {
        Ok(()) => Ok(profile),
        Err((key, problem)) => Err(fail(line_of(text, &key), problem)),
    }
}

/// The embedded profile called `name`.
///
/// # Errors
/// What [`parse`] says; the tests rule it out.
#[must_use]
pub fn named(name: &str) -> Option<Result<DeviceProfile, ProfileError>> {
    let (name, text) = PROFILES.iter().find(|(known, _)| *known == name)?;
    Some(parse(text, &format!("{name}.toml")))
}

/// All embedded profiles, in the order of the catalogue.
///
/// # Errors
/// What [`parse`] says; the tests rule it out.
pub fn all() -> Result<Vec<DeviceProfile>, ProfileError> {
    let profiles = PROFILES.iter();
    profiles
        .map(|(name, text)| parse(text, &format!("{name}.toml")))
        .collect()
}

/// A profile as TOML, with each figure on its line.
#[must_use]
pub fn write(profile: &DeviceProfile) -> String {
    let mut text = String::new();
    // A profile holds only strings, numbers, lists and tables, which TOML can hold.
    if let Ok(toml::Value::Table(table)) = toml::Value::try_from(profile) {
        section(&mut text, "", &table);
    }
    text
}

fn is_inline(value: &toml::Value) -> bool {
    match value {
        toml::Value::Table(table) => table.contains_key("source") || table.contains_key("text"),
        toml::Value::Array(items) => items.iter().all(|item| !item.is_table()),
        _ => true,
    }
}

fn section(text: &mut String, path: &str, table: &toml::Table) {
    for (key, value) in table.iter().filter(|(_, value)| is_inline(value)) {
        text.push_str(&format!("{key} = {value}\n"));
    }
    for (key, value) in table.iter().filter(|(_, value)| !is_inline(value)) {
        let path = match path {
            "" => key.clone(),
            _ => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(table) => {
                text.push_str(&format!("\n[{path}]\n"));
                section(text, &path, table);
            }
            toml::Value::Array(items) => {
                for table in items.iter().filter_map(toml::Value::as_table) {
                    text.push_str(&format!("\n[[{path}]]\n"));
                    for (key, value) in table {
                        text.push_str(&format!("{key} = {value}\n"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// The line of a byte, counted from 1.
fn line_at(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The line of a key such as `cpu.f32.conv`, where sections are written as tables of their own.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            name.trim_matches(['[', ']', ' ']).clone_into(&mut section);
            if section == key {
                return Some(index + 1);
            }
            continue;
        }
        let Some((name, _)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim();
        let whole = match section.as_str() {
            "" => name.to_owned(),
            _ => format!("{section}.{name}"),
        };
        if whole == key {
            return Some(index + 1);
        }
    }
    None
}
