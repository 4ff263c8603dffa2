//! How a figure looks: its bands, its legend and its width.

use core::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is drawn around a mean over seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Band {
    /// One standard deviation of the sample to either side.
    #[default]
    Deviation,
    /// The 95 % bootstrap percentile interval of the mean.
    Interval,
    /// From the lowest run to the highest.
    Range,
    /// Nothing.
    None,
}

/// Where series are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Legend {
    /// Beside the panel; a curve at its end.
    Right,
    /// In rows below the panel.
    Below,
    /// Nowhere.
    None,
}

/// How wide a figure is, in pixels of 1/96 inch, legend and all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Width {
    /// A column of a paper in two columns: 3.5 inches.
    Column,
    /// The text of a page: 7.16 inches.
    #[default]
    Page,
    /// So many pixels.
    Pixels(f64),
}

/// The narrowest and the widest figure, in pixels.
const WIDTHS: core::ops::RangeInclusive<f64> = 240.0..=2000.0;
const WIDTH: &str = "\"column\" (3.5 inches), \"page\" (7.16 inches) or pixels from 240 to 2000";

impl Width {
    /// In pixels. The two names are the widths of the IEEE's template for papers in two columns.
    #[must_use]
    pub fn pixels(self) -> f64 {
        match self {
            Self::Column => 336.0,
            Self::Page => 687.0,
            Self::Pixels(pixels) => pixels,
        }
    }
}

impl Serialize for Width {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Column => serializer.serialize_str("column"),
            Self::Page => serializer.serialize_str("page"),
            Self::Pixels(pixels) => serializer.serialize_f64(*pixels),
        }
    }
}

impl<'de> Deserialize<'de> for Width {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Width;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WIDTH)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Width, E> {
                match text {
                    "column" => Ok(Width::Column),
                    "page" => Ok(Width::Page),
                    _ => Err(E::custom(format_args!("found {text:?}, expected {WIDTH}"))),
                }
            }

            fn visit_f64<E: serde::de::Error>(self, pixels: f64) -> Result<Width, E> {
                match WIDTHS.contains(&pixels) {
                    true => Ok(Width::Pixels(pixels)),
                    false => Err(E::custom(format_args!("found {pixels}, expected {WIDTH}"))),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, pixels: i64) -> Result<Width, E> {
                self.visit_f64(pixels as f64)
            }

            fn visit_u64<E: serde::de::Error>(self, pixels: u64) -> Result<Width, E> {
                self.visit_f64(pixels as f64)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Width {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Width".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "enum": ["column", "page"] },
                { "type": "number", "minimum": WIDTHS.start(), "maximum": WIDTHS.end() },
            ],
        })
    }
}
