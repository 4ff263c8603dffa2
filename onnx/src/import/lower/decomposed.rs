//! Operators that exporters write as several nodes: gelu, layer normalisation; and clamps.

use super::*;

impl Importer<'_> {
    pub(super) fn arithmetic(&mut self, node: &NodeProto) -> Lowered<Value> {
        let op = node.op_type.as_str();
        let sides = match op {
            "Mul" => self.sides(node),
            _ => (self.value(node, 0), self.value(node, 1)),
        };
        let part = |active: &Active, part| Ok(Value::Part(active.clone(), part));
        match (op, sides.0, sides.1) {
            ("Sqrt", Some(Value::Part(x, Part::VarianceAnd(epsilon))), _) => {
                part(x, Part::Deviation(*epsilon))
            }
            ("Erf", Some(Value::Part(x, Part::Scaled(factor))), _)
                if near(*factor, core::f32::consts::FRAC_1_SQRT_2) =>
            {
                part(x, Part::Erf)
            }
            ("Sub", Some(Value::Active(x)), Some(Value::Part(y, Part::Mean))) if x == y => {
                part(x, Part::Centred)
            }
            ("Pow", Some(Value::Part(x, Part::Centred)), Some(Value::Constant(two)))
                if scalar(two) == Some(2.0) =>
            {
                part(x, Part::Squared)
            }
            ("Mul", Some(Value::Part(x, Part::Centred)), Some(Value::Part(y, Part::Centred)))
                if x == y =>
            {
                part(x, Part::Squared)
            }
            (
                "Div",
                Some(Value::Part(x, Part::Centred)),
                Some(Value::Part(y, Part::Deviation(epsilon))),
            ) if x == y => {
                let normal = Part::Normal {
                    groups: None,
                    epsilon: *epsilon,
                    gamma: None,
                    grouped: false,
                };
                part(x, normal)
            }
            (
                "Mul",
                Some(Value::Part(
                    x,
                    Part::Normal {
                        groups,
                        epsilon,
                        gamma: None,
                        grouped: false,
                    },
                )),
                Some(Value::Constant(gamma)),
            ) => {
                let channels = x.form.channels().ok_or(Problem::Order)?;
                let gamma = Some(vector(gamma, channels)?);
                let normal = Part::Normal {
                    groups: *groups,
                    epsilon: *epsilon,
                    gamma,
                    grouped: false,
                };
                part(x, normal)
            }
            ("Mul" | "Div", Some(Value::Active(x)), Some(Value::Constant(by))) => {
                let factor = scalar(by).ok_or(Problem::Operator)?;
                scaled(x, if op == "Div" { 1.0 / factor } else { factor })
            }
            ("Mul" | "Div", Some(Value::Part(x, Part::Scaled(old))), Some(Value::Constant(by))) => {
                let factor = scalar(by).ok_or(Problem::Operator)?;
                scaled(
                    x,
                    if op == "Div" {
                        old / factor
                    } else {
                        old * factor
                    },
                )
            }
            // x (1 + erf(x / sqrt 2)) is twice the gelu of x.
            ("Mul", Some(a), Some(b)) => {
                let (x, y, factor) = match (a, b) {
                    (Value::Active(x), Value::Part(y, Part::OnePlusErf))
                    | (Value::Part(y, Part::OnePlusErf), Value::Active(x)) => (x, y, 1.0),
                    (Value::Part(x, Part::Scaled(factor)), Value::Part(y, Part::OnePlusErf))
                    | (Value::Part(y, Part::OnePlusErf), Value::Part(x, Part::Scaled(factor))) => {
                        (x, y, *factor)
                    }
                    (Value::Part(_, part), _) | (_, Value::Part(_, part)) => {
                        return Err(Problem::Partial(part.whole()));
                    }
                    _ => return Err(Problem::Operator),
                };
                if x != y {
                    return Err(Problem::Operator);
                }
                let x = x.clone();
                match self.function(node, x, Activation::Gelu) {
                    Value::Active(active) => scaled(&active, 2.0 * factor),
                    other => Ok(other),
                }
            }
            (_, Some(Value::Part(_, part)), _) => Err(Problem::Partial(part.whole())),
            _ => Err(Problem::Operator),
        }
    }

    pub(super) fn clip(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        let bound = |index: usize| -> Lowered<Option<f32>> {
            Ok(self.optional(node, index)?.and_then(scalar))
        };
        let function = match (bound(1)?, bound(2)?) {
            (Some(0.0), Some(6.0)) => Activation::Relu6,
            (Some(0.0), None) => Activation::Relu,
            (Some(0.0), Some(high)) if high >= f32::MAX => Activation::Relu,
            (low, high) => {
                return Err(Problem::Attribute {
                    name: "min and max",
                    found: format!("{low:?} and {high:?}"),
                    expected: "0 and 6, or 0 and nothing",
                });
            }
        };
        Ok(self.function(node, x, function))
    }
}
