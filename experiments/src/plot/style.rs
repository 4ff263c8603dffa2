//! Colours and sizes.

use super::scene::Rgb;

/// Text.
pub(crate) const INK: Rgb = (38, 38, 38);
/// Less important text.
pub(crate) const SOFT: Rgb = (110, 110, 110);
/// Axes and their ticks.
pub(crate) const AXIS: Rgb = (90, 90, 90);
/// Grid lines.
pub(crate) const GRID: Rgb = (228, 228, 228);

/// Size of the figure's title.
pub(crate) const TITLE_SIZE: f64 = 14.0;
/// Size of the axes' titles and of series' names.
pub(crate) const LABEL_SIZE: f64 = 12.0;
/// Size of ticks' labels.
pub(crate) const TICK_SIZE: f64 = 11.0;

/// Colours that people with any kind of colour vision tell apart (Okabe & Ito 2008, "Color
/// Universal Design"), without the yellow, which is too light on white.
const PALETTE: [Rgb; 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
];

/// Line patterns: solid first; when the colours are used up, they come again dashed.
const PATTERNS: [&[f64]; 4] = [&[], &[6.0, 3.5], &[1.5, 3.5], &[8.0, 3.5, 1.5, 3.5]];

/// Colour and dash pattern of the series with this index.
pub(crate) fn series(index: usize) -> (Rgb, &'static [f64]) {
    (
        PALETTE[index % PALETTE.len()],
        PATTERNS[index / PALETTE.len() % PATTERNS.len()],
    )
}

/// A darker shade, for text in a series' colour.
pub(crate) fn darker((r, g, b): Rgb) -> Rgb {
    let darker = |value: u8| (u16::from(value) * 4 / 5) as u8;
    (darker(r), darker(g), darker(b))
}
