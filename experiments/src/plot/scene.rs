//! A figure as a list of marks, rendered through plotters' backends as SVG or PNG.

use plotters::prelude::SVGBackend;
use plotters_backend::{BackendColor, BackendStyle, DrawingBackend, DrawingErrorKind};

use super::canvas::{Canvas, FINE};
use super::font::{Anchor, TextStyle};

/// An opaque colour.
pub(crate) type Rgb = (u8, u8, u8);

/// Pixels of the PNG per pixel of the figure, for screens with fine pixels and for print.
const PNG_SCALE: u32 = 2;
/// Backend units per pixel of the figure. Backends count in whole units.
const UNITS: u32 = FINE * PNG_SCALE;

/// Something drawn; lengths in the figure's pixels, `y` downwards.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        width: f64,
        color: Rgb,
    },
    Rect {
        corner: (f64, f64),
        size: (f64, f64),
        color: Rgb,
        alpha: f64,
    },
    Disc {
        center: (f64, f64),
        radius: f64,
        color: Rgb,
        alpha: f64,
    },
    /// A filled polygon that does not cross itself.
    Polygon {
        points: Vec<(f64, f64)>,
        color: Rgb,
        alpha: f64,
    },
    /// `at` is on the base line.
    Text {
        at: (f64, f64),
        text: String,
        size: f64,
        color: Rgb,
        anchor: Anchor,
        upwards: bool,
    },
}

/// A figure.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) title: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) marks: Vec<Mark>,
}

struct Pen {
    color: BackendColor,
    width: u32,
}

impl BackendStyle for Pen {
    fn color(&self) -> BackendColor {
        self.color
    }
    fn stroke_width(&self) -> u32 {
        self.width
    }
}

fn units(length: f64) -> i32 {
    (length * f64::from(UNITS)).round() as i32
}

fn place((x, y): (f64, f64)) -> (i32, i32) {
    (units(x), units(y))
}

fn pen(color: Rgb, alpha: f64, width: f64) -> Pen {
    Pen {
        color: BackendColor { alpha, rgb: color },
        width: units(width).max(1).cast_unsigned(),
    }
}

impl Scene {
    /// An empty figure.
    pub(crate) fn new(title: &str, width: f64, height: f64) -> Self {
        Self {
            title: title.to_owned(),
            width: width.ceil() as u32,
            height: height.ceil() as u32,
            marks: Vec::new(),
        }
    }

    pub(crate) fn line(&mut self, points: Vec<(f64, f64)>, width: f64, color: Rgb) {
        self.marks.push(Mark::Line {
            points,
            width,
            color,
        });
    }

    /// Another title; nothing is written in its place where it is empty.
    pub(crate) fn retitle(&mut self, title: &str) {
        if !title.is_empty() {
            title.clone_into(&mut self.title);
        }
        let first = self.marks.iter_mut().find_map(|mark| match mark {
            Mark::Text { text, .. } => Some(text),
            _ => None,
        });
        if let Some(text) = first {
            title.clone_into(text);
        }
    }

    pub(crate) fn polygon(&mut self, points: Vec<(f64, f64)>, color: Rgb, alpha: f64) {
        self.marks.push(Mark::Polygon {
            points,
            color,
            alpha,
        });
    }

    pub(crate) fn disc(&mut self, center: (f64, f64), radius: f64, color: Rgb) {
        self.marks.push(Mark::Disc {
            center,
            radius,
            color,
            alpha: 1.0,
        });
    }

    pub(crate) fn rect(&mut self, corner: (f64, f64), size: (f64, f64), color: Rgb) {
        self.marks.push(Mark::Rect {
            corner,
            size,
            color,
            alpha: 1.0,
        });
    }

    pub(crate) fn text(
        &mut self,
        at: (f64, f64),
        text: impl Into<String>,
        size: f64,
        color: Rgb,
        anchor: Anchor,
    ) {
        self.marks.push(Mark::Text {
            at,
            text: text.into(),
            size,
            color,
            anchor,
            upwards: false,
        });
    }

    fn paint<B: DrawingBackend>(
        &self,
        backend: &mut B,
    ) -> Result<(), DrawingErrorKind<B::ErrorType>> {
        backend.ensure_prepared()?;
        backend.draw_rect(
            (0, 0),
            (units(self.width.into()), units(self.height.into())),
            &pen((255, 255, 255), 1.0, 1.0),
            true,
        )?;
        for mark in &self.marks {
            match mark {
                Mark::Line {
                    points,
                    width,
                    color,
                } => backend.draw_path(
                    points.iter().map(|&point| place(point)),
                    &pen(*color, 1.0, *width),
                )?,
                Mark::Rect {
                    corner,
                    size,
                    color,
                    alpha,
                } => {
                    let far = (corner.0 + size.0, corner.1 + size.1);
                    backend.draw_rect(
                        place(*corner),
                        place(far),
                        &pen(*color, *alpha, 1.0),
                        true,
                    )?;
                }
                Mark::Disc {
                    center,
                    radius,
                    color,
                    alpha,
                } => backend.draw_circle(
                    place(*center),
                    units(*radius).max(1).cast_unsigned(),
                    &pen(*color, *alpha, 1.0),
                    true,
                )?,
                Mark::Polygon {
                    points,
                    color,
                    alpha,
                } => backend.fill_polygon(
                    points.iter().map(|&point| place(point)),
                    &pen(*color, *alpha, 1.0),
                )?,
                Mark::Text {
                    at,
                    text,
                    size,
                    color,
                    anchor,
                    upwards,
                } => {
                    let style = TextStyle {
                        em: size * f64::from(UNITS),
                        color: *color,
                        anchor: *anchor,
                        upwards: *upwards,
                    };
                    // Backends hold a text by its middle.
                    let lift = TextStyle::base(*size);
                    let held = if *upwards {
                        (at.0 - lift, at.1)
                    } else {
                        (at.0, at.1 - lift)
                    };
                    backend.draw_text(text, &style, place(held))?;
                }
            }
        }
        backend.present()
    }

    /// As SVG.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let (width, height) = (self.width * UNITS, self.height * UNITS);
        let mut text = String::new();
        {
            let mut backend = SVGBackend::with_string(&mut text, (width, height));
            self.paint(&mut backend)
                .map_err(|error| error.to_string())?;
        }
        // The drawing is in fine units; on the page it has the figure's size. Lines join round.
        let body = text.split_once('\n').map_or("", |(_, body)| body);
        Ok(format!(
            "<svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {width} {height}\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n<title>{}</title>\n{body}",
            self.width,
            self.height,
            escape(&self.title),
        ))
    }

    /// As PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>, String> {
        let mut canvas = Canvas::new(self.width * UNITS, self.height * UNITS);
        self.paint(&mut canvas).map_err(|error| error.to_string())?;
        canvas.png().map_err(|error| error.to_string())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_keeps_its_size_and_escapes_its_text() {
        let mut scene = Scene::new("a < b & c", 30.0, 20.0);
        scene.text((1.0, 10.0), "x > y", 8.0, (0, 0, 0), Anchor::Start);
        scene.line(vec![(0.0, 0.0), (5.0, 5.0)], 1.0, (1, 2, 3));
        let svg = scene.svg().unwrap();
        assert!(svg.starts_with("<svg width=\"30\" height=\"20\" viewBox=\"0 0 180 120\" "));
        assert!(svg.contains("<title>a &lt; b &amp; c</title>"));
        assert!(svg.contains("x &gt; y"));
        assert!(svg.contains("points=\"0,0 30,30 \""));
        assert!(svg.trim_end().ends_with("</svg>"));
        let png = scene.png().unwrap();
        assert_eq!(png[16..24], [0, 0, 0, 60, 0, 0, 0, 40]);
        assert_eq!(scene.png().unwrap(), png);
    }
}
