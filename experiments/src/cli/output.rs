//! Standard output and standard error.

use std::io::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::error::Error;

/// Prints a line on standard output.
///
/// # Errors
/// [`Error::Output`], unless the reader went away: then there is nobody left to print for, and
/// that is no fault.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Prints a value as one line of JSON on standard output.
///
/// # Errors
/// As for [`line`].
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::Output(std::io::Error::other(error)))?;
    line(&text)
}

/// Tells the person at the terminal something that is not a result.
pub(crate) fn tell(text: &str) {
    // When standard error cannot be written there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints why the program stops.
pub(crate) fn complain(error: &Error) {
    let text = error.to_string();
    tell(&format!("error: {text}"));
    if let Error::Config(faults) = error
        && faults.faults().len() > 1
    {
        tell(&format!("\n{} faults", faults.faults().len()));
    }
}

/// A line below the header and no other.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table with a header; all columns but the first are figures and stand at the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().enumerate().map(|(index, text)| {
            let cell = Cell::new(text);
            match index {
                0 => cell,
                _ => cell.set_alignment(CellAlignment::Right),
            }
        }));
    }
    table.trim_fmt()
}

/// A table of words, all at the left, with lines broken so that it is 100 columns wide.
pub(crate) fn words(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(100);
    table.set_header(header.to_vec());
    table.add_rows(rows.iter().cloned());
    table.trim_fmt()
}

/// A whole number with thin groups: `1,663,370`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest decimal unit below them: `6.65 MB`.
pub(crate) fn bytes(value: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value} B"),
        _ if size < 10.0 => format!("{size:.2} {}", units[unit]),
        _ => format!("{size:.1} {}", units[unit]),
    }
}

/// Seconds for a person: `0.41 s`, `3 min 20 s`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if !v.is_finite() => "unknown".to_owned(),
        v if v < 0.001 => format!("{:.0} µs", v * 1e6),
        v if v < 1.0 => format!("{:.1} ms", v * 1e3),
        v if v < 60.0 => format!("{v:.1} s"),
        v if v < 3600.0 => format!("{} min {} s", v as u64 / 60, v as u64 % 60),
        v => format!("{} h {} min", v as u64 / 3600, v as u64 % 3600 / 60),
    }
}

/// Largest resident memory of this process in MB (10^6 bytes); none where the system does not
/// tell.
pub(crate) fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_663_370, "1,663,370"),
        ];
        for (value, text) in counts {
            assert_eq!(count(value), text);
        }
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (6_653_480, "6.65 MB"),
            (12_000_000_000, "12.0 GB"),
        ];
        for (value, text) in sizes {
            assert_eq!(bytes(value), text);
        }
        let times = [
            (0.000_05, "50 µs"),
            (0.25, "250.0 ms"),
            (12.34, "12.3 s"),
            (200.0, "3 min 20 s"),
            (7300.0, "2 h 1 min"),
        ];
        for (value, text) in times {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn linux_tells_its_memory() {
        assert_eq!(peak_rss_mb().is_some(), cfg!(target_os = "linux"));
    }
}
