//! A bitmap that plotters can draw on.
//!
//! Shapes are drawn without smoothing on a grid three times finer than the picture; averaging
//! nine points into one smooths everything alike. (The bitmap backend that comes with plotters
//! draws thick lines with spikes and glyphs without their side bearings.)

use core::convert::Infallible;

use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, DrawingBackend, DrawingErrorKind,
};

/// Grid points per pixel and axis.
pub(crate) const FINE: u32 = 3;

type Done = Result<(), DrawingErrorKind<Infallible>>;

/// An RGB picture on the fine grid.
pub(crate) struct Canvas {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A white canvas of so many grid points.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            rgb: vec![255; width as usize * height as usize * 3],
        }
    }

    /// The picture as PNG.
    pub(crate) fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let (width, height) = (self.width / FINE, self.height / FINE);
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        let mut sums = vec![[0u32; 3]; width as usize];
        for lines in self
            .rgb
            .chunks_exact(self.width as usize * 3 * FINE as usize)
        {
            sums.fill([0; 3]);
            for line in lines.chunks_exact(self.width as usize * 3) {
                for (sum, points) in sums.iter_mut().zip(line.chunks_exact(3 * FINE as usize)) {
                    for [r, g, b] in points.as_chunks::<3>().0 {
                        sum[0] += u32::from(*r);
                        sum[1] += u32::from(*g);
                        sum[2] += u32::from(*b);
                    }
                }
            }
            let points = FINE * FINE;
            for sum in &sums {
                pixels.extend(sum.map(|sum| ((sum + points / 2) / points) as u8));
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(bytes)
    }

    fn index(&self, x: u32, y: u32) -> usize {
        (y as usize * self.width as usize + x as usize) * 3
    }

    /// Blends the points `left ..= right` of row `y`; what lies outside is cut off.
    fn row(&mut self, y: i32, left: i32, right: i32, color: BackendColor) {
        if y < 0 || y >= self.height.cast_signed() {
            return;
        }
        let left = left.max(0);
        let right = right.min(self.width.cast_signed() - 1);
        if left > right {
            return;
        }
        let first = self.index(left.cast_unsigned(), y.cast_unsigned());
        let last = self.index(right.cast_unsigned(), y.cast_unsigned()) + 3;
        let (r, g, b) = color.rgb;
        let alpha = color.alpha.clamp(0.0, 1.0);
        if alpha >= 1.0 {
            for point in self.rgb[first..last].as_chunks_mut::<3>().0 {
                *point = [r, g, b];
            }
            return;
        }
        for (place, ink) in self.rgb[first..last]
            .iter_mut()
            .zip([r, g, b].into_iter().cycle())
        {
            let mixed = f64::from(*place) * (1.0 - alpha) + f64::from(ink) * alpha;
            *place = mixed.round() as u8;
        }
    }

    /// All points within `radius` of the segment.
    fn capsule(&mut self, from: BackendCoord, to: BackendCoord, radius: f64, color: BackendColor) {
        let (x0, y0) = (f64::from(from.0), f64::from(from.1));
        let (x1, y1) = (f64::from(to.0), f64::from(to.1));
        let (dx, dy) = (x1 - x0, y1 - y0);
        let square = dx * dx + dy * dy;
        let inside = |x: f64, y: f64| {
            let along = if square > 0.0 {
                (((x - x0) * dx + (y - y0) * dy) / square).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let (ex, ey) = (x - x0 - along * dx, y - y0 - along * dy);
            ex * ex + ey * ey <= radius * radius
        };
        let top = (y0.min(y1) - radius).ceil().max(0.0) as i32;
        let bottom = (y0.max(y1) + radius).floor() as i32;
        let bottom = bottom.min(self.height.cast_signed() - 1);
        for y in top..=bottom {
            let height = f64::from(y);
            // The points of the segment that can reach this row.
            let (near, far) = if dy.abs() > 1e-9 {
                let at = |level: f64| x0 + dx * ((level - y0) / dy).clamp(0.0, 1.0);
                (at(height - radius), at(height + radius))
            } else {
                (x0, x1)
            };
            let left = (near.min(far) - radius).floor() as i32;
            let right = (near.max(far) + radius).ceil() as i32;
            let hit = |x: &i32| inside(f64::from(*x), height);
            if let (Some(first), Some(last)) =
                ((left..=right).find(hit), (left..=right).rev().find(hit))
            {
                self.row(y, first, last, color);
            }
        }
    }
}

fn radius<S: BackendStyle>(style: &S) -> f64 {
    f64::from(style.stroke_width()) / 2.0
}

impl DrawingBackend for Canvas {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Done {
        self.row(y, x, x, color);
        Ok(())
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Done {
        self.capsule(from, to, radius(style), style.color());
        Ok(())
    }

    /// For opaque colours: where segments meet, a translucent one would be laid on twice.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Done {
        let mut before = None;
        for point in path {
            if let Some(before) = before {
                self.capsule(before, point, radius(style), style.color());
            }
            before = Some(point);
        }
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Done {
        if fill {
            for y in top..bottom {
                self.row(y, left, right - 1, style.color());
            }
            return Ok(());
        }
        let corners = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        self.draw_path(corners, style)
    }

    /// By the rule of even and odd, each grid point at most once.
    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Done {
        let corners: Vec<BackendCoord> = corners.into_iter().collect();
        let (Some(top), Some(bottom)) = (
            corners.iter().map(|corner| corner.1).min(),
            corners.iter().map(|corner| corner.1).max(),
        ) else {
            return Ok(());
        };
        let mut crossings: Vec<f64> = Vec::new();
        for y in top.max(0)..bottom.min(self.height.cast_signed()) {
            // Rows are met in their middle, where no corner lies.
            let level = f64::from(y) + 0.5;
            crossings.clear();
            let next = corners.iter().cycle().skip(1);
            for (&(x0, y0), &(x1, y1)) in corners.iter().zip(next) {
                let (from, to) = (f64::from(y0), f64::from(y1));
                if (from < level) != (to < level) {
                    let share = (level - from) / (to - from);
                    crossings.push(f64::from(x0) + share * f64::from(x1 - x0));
                }
            }
            crossings.sort_by(f64::total_cmp);
            for inside in crossings.as_chunks::<2>().0 {
                let [left, right] = inside.map(|x| (x - 0.5).ceil() as i32);
                self.row(y, left, right - 1, style.color());
            }
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        size: u32,
        style: &S,
        fill: bool,
    ) -> Done {
        let middle = f64::from(size);
        let half = if fill { 0.0 } else { radius(style) };
        let outer = middle + half;
        let reach = outer.floor() as i32;
        for dy in -reach..=reach {
            let square = f64::from(dy) * f64::from(dy);
            let edge = (outer * outer - square).sqrt().floor() as i32;
            let inner = middle - half;
            if fill || square > inner * inner {
                self.row(y + dy, x - edge, x + edge, style.color());
            } else {
                let hole = (inner * inner - square).sqrt().floor() as i32;
                self.row(y + dy, x - edge, x - hole - 1, style.color());
                self.row(y + dy, x + hole + 1, x + edge, style.color());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: BackendColor = BackendColor {
        alpha: 1.0,
        rgb: (255, 0, 0),
    };

    struct Pen(u32);
    impl BackendStyle for Pen {
        fn color(&self) -> BackendColor {
            RED
        }
        fn stroke_width(&self) -> u32 {
            self.0
        }
    }

    type Draw = fn(&mut Canvas);

    fn red_points(canvas: &Canvas) -> usize {
        canvas
            .rgb
            .chunks(3)
            .filter(|point| *point == [255, 0, 0])
            .count()
    }

    #[test]
    fn areas_are_those_of_the_shapes() {
        let pi = core::f64::consts::PI;
        let cases: [(&str, f64, Draw); 7] = [
            ("triangle", 0.5 * 90.0 * 60.0, |canvas| {
                let corners = [(20, 30), (110, 30), (50, 90)];
                canvas.fill_polygon(corners, &RED).unwrap();
            }),
            ("arrow", 100.0 * 50.0 - 0.5 * 100.0 * 30.0, |canvas| {
                let corners = [(10, 10), (60, 40), (110, 10), (110, 60), (10, 60)];
                canvas.fill_polygon(corners, &RED).unwrap();
            }),
            ("rectangle", 2400.0, |canvas| {
                canvas.draw_rect((10, 10), (70, 50), &RED, true).unwrap();
            }),
            ("disc", pi * 900.0, |canvas| {
                canvas.draw_circle((100, 100), 30, &RED, true).unwrap();
            }),
            ("ring", pi * (33.0 * 33.0 - 27.0 * 27.0), |canvas| {
                canvas.draw_circle((100, 100), 30, &Pen(6), false).unwrap();
            }),
            ("line", 130.0 * 8.0 + pi * 16.0, |canvas| {
                canvas.draw_line((40, 20), (90, 140), &Pen(8)).unwrap();
            }),
            ("level line", 100.0 * 8.0 + pi * 16.0, |canvas| {
                canvas.draw_line((40, 50), (140, 50), &Pen(8)).unwrap();
            }),
        ];
        for (name, area, draw) in cases {
            let mut canvas = Canvas::new(210, 210);
            draw(&mut canvas);
            let found = red_points(&canvas) as f64;
            assert!((found / area - 1.0).abs() < 0.12, "{name}: {found} {area}");
        }
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let mut canvas = Canvas::new(30, 30);
        canvas.draw_line((-50, -70), (90, 110), &Pen(6)).unwrap();
        canvas.draw_circle((0, 29), 40, &Pen(3), false).unwrap();
        canvas.draw_rect((-5, 25), (99, 99), &RED, true).unwrap();
        canvas.draw_pixel((i32::MAX, i32::MIN), RED).unwrap();
        let corners = [(-90, -90), (500, 10), (-20, 400)];
        canvas.fill_polygon(corners, &RED).unwrap();
        canvas.fill_polygon([], &RED).unwrap();
        assert!(red_points(&canvas) > 0);
    }

    #[test]
    fn a_picture_is_averaged_and_encoded() {
        let mut canvas = Canvas::new(6, 3);
        canvas.draw_rect((0, 0), (3, 3), &RED, true).unwrap();
        canvas.draw_pixel((3, 0), RED).unwrap();
        let png = canvas.png().unwrap();
        let decoder = png::Decoder::new(std::io::Cursor::new(png));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; 6];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2, 1));
        assert_eq!(pixels, [255, 0, 0, 255, 227, 227]);
    }
}
