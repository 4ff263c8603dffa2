//! Text: a bundled subset of DejaVu Sans, so that pictures need no font of the system.
//!
//! The licence lies beside the font in `assets/`.

use core::convert::Infallible;
use std::sync::OnceLock;

use ab_glyph::{Font as _, FontRef, PxScale, ScaleFont as _, point};
use plotters_backend::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, FontFamily, FontTransform};

const DEJAVU: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");
/// For SVG viewers: Verdana has the widths of DejaVu Sans.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
/// Half the height of `x` over the size of the font; SVG's `0.5ex`.
const HALF_EX: f64 = 0.5 * 1120.0 / 2048.0;
/// The SVG backend divides sizes by it.
const SVG_SIZE: f64 = 1.24;

fn font() -> Option<&'static FontRef<'static>> {
    static FONT: OnceLock<Option<FontRef<'static>>> = OnceLock::new();
    FONT.get_or_init(|| FontRef::try_from_slice(DEJAVU).ok())
        .as_ref()
}

/// `ab_glyph` scales by the height of a line, everyone else by the em.
fn scale(font: &FontRef<'_>, em: f64) -> PxScale {
    let units = font.units_per_em().unwrap_or(1.0);
    PxScale::from(em as f32 * font.height_unscaled() / units)
}

/// Advances of the glyphs of `text`, kerned; calls `place` with every glyph's left end.
fn layout(text: &str, em: f64, mut place: impl FnMut(char, f32)) -> f64 {
    let Some(font) = font() else { return 0.0 };
    let scaled = font.as_scaled(scale(font, em));
    let mut x = 0.0;
    let mut before = None;
    for letter in text.chars() {
        let glyph = font.glyph_id(letter);
        if let Some(before) = before {
            x += scaled.kern(before, glyph);
        }
        place(letter, x);
        x += scaled.h_advance(glyph);
        before = Some(glyph);
    }
    f64::from(x)
}

/// Width of `text` at a font size of `em`, in the same unit.
pub(crate) fn width(text: &str, em: f64) -> f64 {
    layout(text, em, |_, _| {})
}

/// How a text is drawn by a backend. Its anchor is vertically at half an `x` above the base line.
#[derive(Clone, Debug)]
pub(crate) struct TextStyle {
    /// Font size in the backend's units.
    pub(crate) em: f64,
    pub(crate) color: (u8, u8, u8),
    pub(crate) anchor: Anchor,
    pub(crate) upwards: bool,
}

/// Where a text is held horizontally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl TextStyle {
    /// From the anchor down to the base line.
    pub(crate) fn base(em: f64) -> f64 {
        em * HALF_EX
    }
}

impl BackendTextStyle for TextStyle {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        BackendColor {
            alpha: 1.0,
            rgb: self.color,
        }
    }

    fn size(&self) -> f64 {
        self.em * SVG_SIZE
    }

    fn transform(&self) -> FontTransform {
        if self.upwards {
            FontTransform::Rotate270
        } else {
            FontTransform::None
        }
    }

    fn anchor(&self) -> Pos {
        let horizontal = match self.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        Pos::new(horizontal, VPos::Center)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::Name(FAMILY)
    }

    fn layout_box(&self, text: &str) -> Result<((i32, i32), (i32, i32)), Infallible> {
        let height = 2.0 * Self::base(self.em);
        Ok((
            (0, 0),
            (width(text, self.em).round() as i32, height.round() as i32),
        ))
    }

    fn draw<E, D: FnMut(i32, i32, BackendColor) -> Result<(), E>>(
        &self,
        text: &str,
        (left, top): BackendCoord,
        mut draw: D,
    ) -> Result<Result<(), E>, Infallible> {
        let Some(font) = font() else {
            return Ok(Ok(()));
        };
        let size = scale(font, self.em);
        // The base line is at the bottom of the layout box.
        let base = (2.0 * Self::base(self.em)).round() as f32;
        let mut result = Ok(());
        layout(text, self.em, |letter, x| {
            let glyph = font
                .glyph_id(letter)
                .with_scale_and_position(size, point(x, base));
            let Some(outline) = font.outline_glyph(glyph) else {
                return;
            };
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| {
                if coverage > 0.0 && result.is_ok() {
                    let color = BackendColor {
                        alpha: f64::from(coverage.min(1.0)),
                        rgb: self.color,
                    };
                    result = draw(
                        left + corner.x as i32 + x as i32,
                        top + corner.y as i32 + y as i32,
                        color,
                    );
                }
            });
        });
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_font_is_read_and_has_the_widths_of_dejavu() {
        // Advance of `x` and of a digit in DejaVu Sans 2.37, in 2048ths of an em.
        assert!((width("x", 2048.0) - 1212.0).abs() < 0.5);
        assert!((width("0", 2048.0) - 1303.0).abs() < 0.5);
        assert!((width("00", 10.0) - 2.0 * width("0", 10.0)).abs() < 1e-3);
        for letter in "−–…%×≤µéσ".chars() {
            let font = font().unwrap();
            assert_ne!(font.glyph_id(letter).0, 0, "{letter}");
        }
    }
}
