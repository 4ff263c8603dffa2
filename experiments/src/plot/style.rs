//! Colours and sizes.

use super::scene::{Rgb, Scene};

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

/// The form of a series' markers, so that it is found again where there is no colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Disc,
    Square,
    Up,
    Diamond,
    Ring,
    Down,
    Frame,
    Cross,
}

/// One more than the colours: colour and shape together tell 56 series apart.
const SHAPES: [Shape; 8] = [
    Shape::Disc,
    Shape::Square,
    Shape::Up,
    Shape::Diamond,
    Shape::Ring,
    Shape::Down,
    Shape::Frame,
    Shape::Cross,
];

/// The shape of the series with this index.
pub(crate) fn shape(index: usize) -> Shape {
    SHAPES[index % SHAPES.len()]
}

/// Draws a marker. All shapes look equally large at the same `radius`.
pub(crate) fn marker(scene: &mut Scene, shape: Shape, (x, y): (f64, f64), radius: f64, color: Rgb) {
    let at = |corners: &[(f64, f64)], size: f64| -> Vec<(f64, f64)> {
        let corner = |&(dx, dy): &(f64, f64)| (x + dx * size, y + dy * size);
        corners.iter().map(corner).collect()
    };
    const SQUARE: [(f64, f64); 4] = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)];
    const UP: [(f64, f64); 3] = [(0.0, -1.0), (0.9, 0.7), (-0.9, 0.7)];
    const DOWN: [(f64, f64); 3] = [(0.0, 1.0), (-0.9, -0.7), (0.9, -0.7)];
    const DIAMOND: [(f64, f64); 4] = [(0.0, -1.0), (0.85, 0.0), (0.0, 1.0), (-0.85, 0.0)];
    match shape {
        Shape::Disc => scene.disc((x, y), radius, color),
        Shape::Square => scene.polygon(at(&SQUARE, radius * 0.88), color, 1.0),
        Shape::Up => scene.polygon(at(&UP, radius * 1.3), color, 1.0),
        Shape::Down => scene.polygon(at(&DOWN, radius * 1.3), color, 1.0),
        Shape::Diamond => scene.polygon(at(&DIAMOND, radius * 1.35), color, 1.0),
        Shape::Ring => {
            scene.disc((x, y), radius * 1.1, color);
            scene.disc((x, y), radius * 0.6, WHITE);
        }
        Shape::Frame => {
            scene.polygon(at(&SQUARE, radius), color, 1.0);
            scene.polygon(at(&SQUARE, radius * 0.5), WHITE, 1.0);
        }
        Shape::Cross => {
            let arm = radius * 0.95;
            for (dx, dy) in [(arm, arm), (arm, -arm)] {
                let ends = vec![(x - dx, y - dy), (x + dx, y + dy)];
                scene.line(ends, radius * 0.6, color);
            }
        }
    }
}

pub(crate) const WHITE: Rgb = (255, 255, 255);

/// Viridis at equal distances (van der Walt and Smith 2015, "A Better Default Colormap for
/// Matplotlib", SciPy; dedicated to the public domain): lightness rises evenly, so that it reads alike
/// in grey and with any kind of colour vision.
const VIRIDIS: [Rgb; 9] = [
    (0x44, 0x01, 0x54),
    (0x47, 0x2d, 0x7b),
    (0x3b, 0x52, 0x8b),
    (0x2c, 0x72, 0x8e),
    (0x21, 0x90, 0x8c),
    (0x27, 0xad, 0x81),
    (0x5d, 0xc8, 0x63),
    (0xaa, 0xdc, 0x32),
    (0xfd, 0xe7, 0x25),
];

/// The colour of a share from 0 (dark) to 1 (light).
pub(crate) fn shade(share: f64) -> Rgb {
    let pieces = (VIRIDIS.len() - 1) as f64;
    let place = share.clamp(0.0, 1.0) * pieces;
    let below = (place.floor() as usize).min(VIRIDIS.len() - 2);
    let (from, to) = (VIRIDIS[below], VIRIDIS[below + 1]);
    let rest = place - below as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * rest).round() as u8;
    (mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// Ink or white, whichever is read better on `background`.
pub(crate) fn ink_on(background: Rgb) -> Rgb {
    let contrast = |ink: Rgb| {
        let (one, other) = (luminance(ink), luminance(background));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    };
    match contrast(WHITE) >= contrast(INK) {
        true => WHITE,
        false => INK,
    }
}

/// Relative luminance (WCAG 2.1, "relative luminance").
fn luminance((r, g, b): Rgb) -> f64 {
    let linear = |value: u8| {
        let share = f64::from(value) / 255.0;
        match share <= 0.04045 {
            true => share / 12.92,
            false => libm::pow((share + 0.055) / 1.055, 2.4),
        }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Two thirds of the way to white.
pub(crate) fn lighter((r, g, b): Rgb) -> Rgb {
    let mix = |value: u8| ((u16::from(value) + 2 * 255) / 3) as u8;
    (mix(r), mix(g), mix(b))
}

/// A darker shade, for text in a series' colour.
pub(crate) fn darker((r, g, b): Rgb) -> Rgb {
    let darker = |value: u8| (u16::from(value) * 4 / 5) as u8;
    (darker(r), darker(g), darker(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CIE 1976 lightness, from the relative luminance.
    fn lightness(color: Rgb) -> f64 {
        let y = luminance(color);
        if y > 216.0 / 24_389.0 {
            116.0 * y.cbrt() - 16.0
        } else {
            y * 24_389.0 / 27.0
        }
    }

    #[test]
    fn lightness_is_that_of_the_standard() {
        // Lightness of sRGB white, middle grey and pure green.
        for (color, expected) in [
            ((255, 255, 255), 100.0),
            ((119, 119, 119), 50.03),
            ((0, 255, 0), 87.74),
        ] {
            assert!((lightness(color) - expected).abs() < 0.05, "{color:?}");
        }
    }

    #[test]
    fn shades_rise_evenly_in_lightness() {
        assert_eq!(shade(0.0), (0x44, 0x01, 0x54));
        assert_eq!(shade(1.0), (0xfd, 0xe7, 0x25));
        assert_eq!(shade(0.5), (0x21, 0x90, 0x8c));
        let steps: Vec<f64> = (0..=20)
            .map(|i| lightness(shade(f64::from(i) / 20.0)))
            .collect();
        let even = (steps[20] - steps[0]) / 20.0;
        for pair in steps.windows(2) {
            let step = pair[1] - pair[0];
            assert!(step > 0.7 * even && step < 1.3 * even, "{step} {even}");
        }
        // Numbers in cells can be read: WCAG asks for a contrast of 4.5 for text; shades around the
        // middle have a little less.
        for i in 0..=20 {
            let background = shade(f64::from(i) / 20.0);
            let (one, other) = (luminance(background), luminance(ink_on(background)));
            let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(contrast > 3.8, "{i} {contrast}");
        }
    }

    #[test]
    fn colour_and_shape_tell_series_apart() {
        let look = |index: usize| (series(index).0, format!("{:?}", shape(index)));
        let mut seen: Vec<(Rgb, String)> = (0..56).map(look).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 56);
    }
}
