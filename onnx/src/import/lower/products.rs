//! Dense layers, convolutions, and additions to them.

use super::*;

impl Importer<'_> {
    pub(super) fn conv(&mut self, node: &NodeProto) -> Lowered<Value> {
        let x = self.active(node, 0)?;
        let Form::Image { size, last: false } = x.form else {
            return Err(shape(&x, "an image, channels first"));
        };
        let weight = self.constant(node, 1)?;
        let &[filters, per_group, height, width] = weight.shape() else {
            return Err(constant(
                weight,
                "[filters, channels / group, height, width]",
            ));
        };
        let groups = usize::try_from(int(node, "group", 1)).unwrap_or(0);
        if groups == 0 || per_group.checked_mul(groups) != Some(size[2]) {
            return Err(constant(
                weight,
                &format!("{} channels in {groups} groups", size[2]),
            ));
        }
        let kernel = pair(node, "kernel_shape", 0)?;
        if kernel != [0, 0] && kernel != [height, width] {
            return Err(constant(weight, &format!("a window of {kernel:?}")));
        }
        let Window {
            kernel,
            stride,
            padding,
        } = window(node, size, [height, width])?;
        let values = weight.to_f32();
        let mut moved = vec![0.0; values.len()];
        let area = height * width;
        for (index, &value) in values.iter().enumerate() {
            let (filter, rest) = (index / (per_group * area), index % (per_group * area));
            let (channel, position) = (rest / area, rest % area);
            moved[(position * per_group + channel) * filters + filter] = value;
        }
        let bias = match self.optional(node, 2)? {
            Some(bias) => Some(vector(bias, filters)?),
            None => None,
        };
        let name = self.layer_name(node, Some(1));
        self.tensor(&name, "weight", moved);
        let def = Conv2dDef {
            kernel: Pair(kernel),
            stride: Pair(stride),
            padding,
            groups,
            bias: bias.is_some(),
            ..Conv2dDef::new(filters, 1)
        };
        if let Some(bias) = bias {
            self.tensor(&name, "bias", bias);
        }
        let out = |size: usize, axis: usize| {
            let sides = match padding {
                Padding::Valid => 0,
                Padding::Explicit(sides) => 2 * sides[axis],
                Padding::Same => return Some(size.div_ceil(stride[axis].max(1))),
            };
            (size + sides)
                .checked_sub(kernel[axis])
                .map(|rest| rest / stride[axis].max(1) + 1)
        };
        let (Some(rows), Some(columns)) = (out(size[0], 0), out(size[1], 1)) else {
            return Err(shape(&x, "an image as large as the window"));
        };
        let layer = self.push(name, &x.layer, LayerDef::Conv2d(def));
        let form = Form::Image {
            size: [rows, columns, filters],
            last: false,
        };
        Ok(Value::Active(Active { layer, form }))
    }

    pub(super) fn dense(&mut self, node: &NodeProto) -> Lowered<Value> {
        let x = self.active(node, 0)?;
        let Form::Row {
            features,
            order,
            ones: 0,
        } = x.form
        else {
            return Err(shape(&x, "a row of numbers"));
        };
        let gemm = node.op_type == "Gemm";
        let (mut alpha, mut beta, mut turned) = (1.0, 1.0, false);
        if gemm {
            demand(node, "transA", 0, 0, "0")?;
            turned = int(node, "transB", 0) != 0;
            alpha = float(node, "alpha", 1.0);
            beta = float(node, "beta", 1.0);
        }
        let weight = self.constant(node, 1)?;
        let &[a, b] = weight.shape() else {
            return Err(constant(weight, "[inputs, outputs]"));
        };
        let (inputs, outputs) = if turned { (b, a) } else { (a, b) };
        if inputs != features {
            return Err(constant(weight, &format!("{features} inputs")));
        }
        let values = weight.to_f32();
        // The file's row of each native input.
        let from = |input: usize| match order {
            Some([height, width, channels]) => {
                let (position, channel) = (input / channels, input % channels);
                channel * height * width + position
            }
            None => input,
        };
        let mut moved = Vec::with_capacity(values.len());
        for input in 0..inputs {
            let row = from(input);
            for output in 0..outputs {
                let value = match turned {
                    true => values[output * inputs + row],
                    false => values[row * outputs + output],
                };
                moved.push(alpha * value);
            }
        }
        let bias = match if gemm { self.optional(node, 2)? } else { None } {
            Some(bias) => {
                let bias = match scalar(bias) {
                    Some(value) => vec![value; outputs],
                    None => vector(bias, outputs)?,
                };
                Some(bias.iter().map(|b| beta * b).collect::<Vec<_>>())
            }
            None => None,
        };
        let name = self.layer_name(node, Some(1));
        self.tensor(&name, "weight", moved);
        let def = DenseDef {
            units: Some(outputs),
            bias: bias.is_some(),
            ..DenseDef::output()
        };
        if let Some(bias) = bias {
            self.tensor(&name, "bias", bias);
        }
        let layer = self.push(name, &x.layer, LayerDef::Dense(def));
        Ok(Value::Active(Active {
            layer,
            form: Form::row(outputs),
        }))
    }

    /// A residual addition, a bias, or a step of a decomposed operator.
    pub(super) fn add(&mut self, node: &NodeProto) -> Lowered<Value> {
        match self.sides(node) {
            (Some(Value::Active(a)), Some(Value::Active(b))) => {
                let (a, b) = (a.clone(), b.clone());
                if a.form != b.form {
                    return Err(shape(&b, "the same shape on both sides"));
                }
                let def = LayerDef::Add(AddDef::new(b.layer));
                Ok(self.same_form(node, a, def))
            }
            (Some(Value::Active(active)), Some(Value::Constant(bias))) => {
                let (active, bias) = (active.clone(), bias.clone());
                self.bias(node, &active, &bias)
            }
            (Some(Value::Part(active, Part::Erf)), Some(Value::Constant(one)))
                if scalar(one) == Some(1.0) =>
            {
                Ok(Value::Part(active.clone(), Part::OnePlusErf))
            }
            (Some(Value::Part(active, Part::Variance)), Some(Value::Constant(epsilon))) => {
                match scalar(epsilon) {
                    Some(epsilon) => Ok(Value::Part(active.clone(), Part::VarianceAnd(epsilon))),
                    None => Err(Problem::Operator),
                }
            }
            (
                Some(Value::Part(
                    active,
                    Part::Normal {
                        groups,
                        epsilon,
                        gamma: Some(gamma),
                        ..
                    },
                )),
                Some(Value::Constant(beta)),
            ) => {
                let (active, groups, epsilon) = (active.clone(), *groups, *epsilon);
                let beta = vector(beta, gamma.len())?;
                let numbers = [gamma.clone(), beta];
                // The constants of the two steps carry the layer's name.
                let names = [None, Some(1)];
                Ok(match groups {
                    Some(groups) => self.group_norm(node, active, groups, epsilon, numbers, names),
                    None => self.layer_normalized(node, active, epsilon, numbers, names),
                })
            }
            (Some(Value::Part(_, part)), _) => Err(Problem::Partial(part.whole())),
            _ => Err(Problem::Operator),
        }
    }

    /// A constant added to a product without bias that nobody else reads.
    pub(super) fn bias(&mut self, node: &NodeProto, x: &Active, bias: &Tensor) -> Lowered<Value> {
        let outputs = x.form.channels().ok_or(Problem::Order)?;
        let read_once = node.input.iter().all(|name| {
            self.readers.get(name.as_str()).copied().unwrap_or(0) <= 1
                || matches!(self.values.get(name), Some(Value::Constant(_)))
        });
        let values = vector(bias, outputs)?;
        let layer = self
            .layers
            .iter_mut()
            .find(|layer| layer.name() == Some(&x.layer));
        let has = match layer {
            Some(LayerDef::Dense(def)) if read_once => &mut def.bias,
            Some(LayerDef::Conv2d(def)) if read_once => &mut def.bias,
            _ => return Err(Problem::Operator),
        };
        match *has {
            true => {
                let name = format!("{}.bias", x.layer);
                for (old, new) in self.tensors.entry(name).or_default().iter_mut().zip(values) {
                    *old += new;
                }
            }
            false => {
                *has = true;
                self.tensor(&x.layer.clone(), "bias", values);
            }
        }
        Ok(Value::Active(x.clone()))
    }
}
