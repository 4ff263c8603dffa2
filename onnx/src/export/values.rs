//! Values of the graph in their forms: floats and `u8`, images and rows.

use fl_edge::graph::ValueId;
use fl_edge::quant::QParams;

use super::ExportError;
use super::layers::Exporter;
use crate::proto::AttributeProto;

/// How a value is at hand: the names of its float and its `u8` tensor.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) float: Option<String>,
    pub(super) quantized: Option<String>,
}

/// The order of a row that was an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Height, width, channel: the native one.
    Native,
    /// Channel, height, width: as a flattened NCHW image lies.
    ChannelsFirst,
}

impl Exporter<'_> {
    /// The integers of the value's point.
    pub(super) fn point(&self, value: ValueId) -> Result<QParams, ExportError> {
        let root = self.graph.values[value].root;
        self.points[value]
            .or(self.points[root])
            .ok_or_else(|| ExportError::NoPoint(self.name(value).to_owned()))
    }

    fn scale_of(&mut self, value: ValueId) -> Result<[String; 2], ExportError> {
        let point = self.point(value)?;
        let name = self.name(self.graph.values[value].root);
        Ok([
            self.build
                .scales(&format!("{name}.scale"), &[], &[point.scale()]),
            self.build
                .unsigned(&format!("{name}.zero_point"), point.zero_point()),
        ])
    }

    /// The float tensor of a `u8` one.
    pub(super) fn dequantized(
        &mut self,
        quantized: &str,
        value: ValueId,
    ) -> Result<String, ExportError> {
        let name = format!("{quantized}.dequantized");
        if self.dequantized.insert(name.clone()) {
            let [scale, zero] = self.scale_of(value)?;
            let inputs = [quantized, &scale, &zero];
            self.build
                .node("DequantizeLinear", &inputs, name.clone(), Vec::new());
        }
        Ok(name)
    }

    /// Makes the float or the `u8` form of `held` from the other one.
    pub(super) fn complete(
        &mut self,
        held: &mut Held,
        value: ValueId,
        float: bool,
    ) -> Result<(), ExportError> {
        match (&held.float, &held.quantized) {
            (None, Some(quantized)) if float => {
                held.float = Some(self.dequantized(quantized, value)?);
            }
            (Some(numbers), None) if !float => {
                let [scale, zero] = self.scale_of(value)?;
                let inputs = [numbers.as_str(), &scale, &zero];
                let name = format!("{numbers}.quantized");
                held.quantized = Some(self.build.node("QuantizeLinear", &inputs, name, Vec::new()));
            }
            _ => {}
        }
        Ok(())
    }

    /// A value in the form of its shape, float (or `u8`) at hand.
    pub(super) fn value(&mut self, value: ValueId, float: bool) -> Result<Held, ExportError> {
        if self.graph.values[value].root != value {
            return self.row(value, Order::Native, float);
        }
        let mut held = self.held[value].clone();
        self.complete(&mut held, value, float)?;
        self.held[value] = held.clone();
        Ok(held)
    }

    /// The float tensor of a value; rounded to its point for a unit of integers.
    pub(super) fn float(&mut self, value: ValueId, integer: bool) -> Result<String, ExportError> {
        let held = self.value(value, !integer)?;
        match held.quantized {
            Some(quantized) if integer => self.dequantized(&quantized, value),
            _ => Ok(held.float.unwrap_or_default()),
        }
    }

    pub(super) fn quantized(&mut self, value: ValueId) -> Result<String, ExportError> {
        Ok(self.value(value, false)?.quantized.unwrap_or_default())
    }

    /// A value as a row of all its numbers.
    pub(super) fn row(
        &mut self,
        value: ValueId,
        order: Order,
        float: bool,
    ) -> Result<Held, ExportError> {
        let root = self.graph.values[value].root;
        if root == value && self.shape(value).len() == 1 {
            return self.value(value, float);
        }
        let order = match *self.shape(root) {
            [height, width, channels] if height * width > 1 && channels > 1 => order,
            _ => Order::ChannelsFirst,
        };
        if !float {
            self.value(root, false)?;
        }
        let mut held = match self.rows.get(&(value, order)) {
            Some(held) => held.clone(),
            None => self.flatten(value, order)?,
        };
        self.complete(&mut held, value, float)?;
        self.rows.insert((value, order), held.clone());
        Ok(held)
    }

    fn flatten(&mut self, value: ValueId, order: Order) -> Result<Held, ExportError> {
        let root = self.graph.values[value].root;
        let from = self.held[root].clone();
        let suffix = match order {
            Order::Native => ".native_row",
            Order::ChannelsFirst => ".row",
        };
        let mut flat = |from: Option<String>, suffix: &str| {
            let mut from = from?;
            if order == Order::Native {
                let perm = AttributeProto::ints("perm", &[0, 2, 3, 1]);
                let name = format!("{}{suffix}.nhwc", self.graph.values[value].name);
                from = self.build.node("Transpose", &[&from], name, vec![perm]);
            }
            let axis = AttributeProto::int("axis", 1);
            let name = format!("{}{suffix}", self.graph.values[value].name);
            Some(self.build.node("Flatten", &[&from], name, vec![axis]))
        };
        // Where the value is at hand in integers, the integers are moved.
        Ok(match from.quantized {
            Some(_) => Held {
                float: None,
                quantized: flat(from.quantized, &format!("{suffix}.quantized")),
            },
            None => Held {
                float: flat(from.float, suffix),
                quantized: None,
            },
        })
    }
}
