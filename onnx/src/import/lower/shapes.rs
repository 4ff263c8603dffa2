//! Pools, and what only changes shapes.

use super::*;

impl Importer<'_> {
    pub(super) fn pool(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        let Form::Image { size, last: false } = x.form else {
            return Err(shape(&x, "an image, channels first"));
        };
        let kernel = pair(node, "kernel_shape", 0)?;
        let Window {
            kernel,
            stride,
            padding,
        } = window(node, size, kernel)?;
        demand(node, "ceil_mode", 0, 0, "0")?;
        let max = node.op_type == "MaxPool";
        if node.output.len() > 1 {
            return Err(Problem::Operator);
        }
        if !max && padding != Padding::Valid {
            demand(node, "count_include_pad", 0, 0, "0 where there is padding")?;
        }
        let name = self.layer_name(node, None);
        let (size_of, step) = (Pair(kernel), Some(Pair(stride)));
        let def = match max {
            true => LayerDef::MaxPool(MaxPoolDef {
                stride: step,
                padding,
                ..MaxPoolDef::new(size_of)
            }),
            false => LayerDef::AvgPool(AvgPoolDef {
                name: None,
                input: None,
                size: size_of,
                stride: step,
                padding,
            }),
        };
        let out = |axis: usize| {
            let sides = match padding {
                Padding::Valid => 0,
                Padding::Explicit(sides) => 2 * sides[axis],
                Padding::Same => return Some(size[axis].div_ceil(stride[axis].max(1))),
            };
            let rest = (size[axis] + sides).checked_sub(kernel[axis])?;
            Some(rest / stride[axis].max(1) + 1)
        };
        let (Some(rows), Some(columns)) = (out(0), out(1)) else {
            return Err(shape(&x, "an image as large as the window"));
        };
        let layer = self.push(name, &x.layer, def);
        let form = Form::Image {
            size: [rows, columns, size[2]],
            last: false,
        };
        Ok(Value::Active(Active { layer, form }))
    }

    pub(super) fn global(&mut self, node: &NodeProto, x: &Active, form: Form, max: bool) -> Value {
        let name = self.layer_name(node, None);
        let name = name
            .strip_suffix(".pooled")
            .map(str::to_owned)
            .unwrap_or(name);
        self.names.insert(name.clone());
        let def = match max {
            true => LayerDef::GlobalMaxPool(GlobalMaxPoolDef::default()),
            false => LayerDef::GlobalAvgPool(GlobalAvgPoolDef::default()),
        };
        let layer = self.push(name, &x.layer, def);
        Value::Active(Active { layer, form })
    }

    /// A pool over the whole image or sequence, or a step of a layer normalisation.
    pub(super) fn reduce(&mut self, node: &NodeProto, first: &Value) -> Lowered<Value> {
        let axes = match ints(node, "axes") {
            Some(axes) => axes.to_vec(),
            None => self
                .optional(node, 1)?
                .and_then(Tensor::to_i64)
                .unwrap_or_default(),
        };
        let keep = int(node, "keepdims", 1) != 0;
        let max = node.op_type == "ReduceMax";
        let (x, part) = match first {
            Value::Active(x) => (x, None),
            Value::Part(x, part) => (x, Some(part)),
            _ => return Err(Problem::NotActive(0)),
        };
        let rank = x.form.sizes().len() as i64 + 1;
        let mut axes = axes
            .iter()
            .map(|&a| if a < 0 { a + rank } else { a })
            .collect::<Vec<_>>();
        axes.sort_unstable();
        match (x.form, part) {
            (
                Form::Row {
                    order: None,
                    ones: 0,
                    ..
                },
                None,
            ) if !max && keep && axes == [1] => Ok(Value::Part(x.clone(), Part::Mean)),
            (Form::Row { ones: 0, .. }, Some(Part::Squared)) if !max && keep && axes == [1] => {
                Ok(Value::Part(x.clone(), Part::Variance))
            }
            (
                Form::Image {
                    size: [_, _, features],
                    last,
                },
                None,
            ) if axes == if last { [1, 2] } else { [2, 3] } && !(last && keep) => {
                let form = Form::Row {
                    features,
                    order: None,
                    ones: if keep { 2 } else { 0 },
                };
                Ok(self.global(node, &x.clone(), form, max))
            }
            (
                Form::Sequence {
                    features, turned, ..
                },
                None,
            ) if axes == [if turned { 2 } else { 1 }] && !keep => {
                Ok(self.global(node, &x.clone(), Form::row(features), max))
            }
            (_, Some(part)) => Err(Problem::Partial(part.whole())),
            _ => Err(Problem::Operator),
        }
    }

    /// The sizes that a shape-changing node gives, the batch first, of one whose sizes are `old`.
    pub(super) fn new_sizes(&self, node: &NodeProto, old: &[i64]) -> Lowered<Vec<i64>> {
        let axes = |index: usize| match ints(node, "axes") {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => Ok(self.optional(node, index)?.and_then(Tensor::to_i64)),
        };
        let wrap = |axis: i64, rank: usize| if axis < 0 { axis + rank as i64 } else { axis };
        match node.op_type.as_str() {
            "Flatten" => {
                let axis = wrap(int(node, "axis", 1), old.len());
                if axis != 1 {
                    demand(node, "axis", 1, 1, "1")?;
                }
                Ok(vec![old[0], old[1..].iter().product()])
            }
            "Squeeze" => {
                let axes = axes(1)?.unwrap_or_default();
                let gone = |axis: usize| axes.iter().any(|&a| wrap(a, old.len()) == axis as i64);
                let kept = old.iter().enumerate().filter(|(axis, _)| !gone(*axis));
                Ok(kept.map(|(_, &size)| size).collect())
            }
            "Unsqueeze" => {
                let axes = axes(1)?.unwrap_or_default();
                let rank = old.len() + axes.len();
                let new = |axis: usize| axes.iter().any(|&a| wrap(a, rank) == axis as i64);
                let mut rest = old.iter();
                Ok((0..rank)
                    .filter_map(|axis| {
                        if new(axis) {
                            Some(1)
                        } else {
                            rest.next().copied()
                        }
                    })
                    .collect())
            }
            _ => {
                let asked = self.constant(node, 1)?.to_i64().unwrap_or_default();
                let keeps = int(node, "allowzero", 0) == 0;
                let mut sizes = Vec::with_capacity(asked.len());
                for (axis, &size) in asked.iter().enumerate() {
                    match (size, old.get(axis)) {
                        (0, Some(&old)) if keeps => sizes.push(old),
                        _ => sizes.push(size),
                    }
                }
                let all = old.iter().map(|&size| i128::from(size)).product::<i128>();
                let known = sizes.iter().filter(|&&size| size != -1);
                let known = known.map(|&size| i128::from(size)).product::<i128>().max(1);
                // A batch of 1 in the file and a free one here are the same.
                for size in &mut sizes {
                    if *size == -1 {
                        *size = i64::try_from(all / known).unwrap_or(0);
                    }
                }
                Ok(sizes)
            }
        }
    }

    pub(super) fn reshape(&mut self, node: &NodeProto, first: &Value) -> Lowered<Value> {
        let (x, part) = match first {
            Value::Active(x) => (x.clone(), None),
            Value::Part(x, part) => (x.clone(), Some(part)),
            _ => return Err(Problem::NotActive(0)),
        };
        let whole = x
            .form
            .sizes()
            .iter()
            .map(|&size| size as i64)
            .collect::<Vec<_>>();
        let mut old = vec![self.batch];
        if let Some(Part::Normal {
            groups: Some(groups),
            epsilon,
            gamma: None,
            grouped: true,
        }) = part
        {
            // Back from the groups to the channels.
            let groups_len = *groups as i64;
            old.extend([
                groups_len,
                whole.iter().product::<i64>() / groups_len.max(1),
            ]);
            let sizes = self.new_sizes(node, &old)?;
            if sizes.split_first() != Some((&self.batch, &whole[..])) {
                return Err(Problem::Partial("a group normalisation"));
            }
            let normal = Part::Normal {
                groups: Some(*groups),
                epsilon: *epsilon,
                gamma: None,
                grouped: false,
            };
            return Ok(Value::Part(x, normal));
        }
        if let Some(part) = part {
            return Err(Problem::Partial(part.whole()));
        }
        old.extend(&whole);
        let sizes = self.new_sizes(node, &old)?;
        let Some((&batch, rest)) = sizes.split_first() else {
            return Err(shape(&x, "a batch"));
        };
        if batch != self.batch {
            return Err(shape(&x, "the batch as first size"));
        }
        if rest == whole {
            return Ok(Value::Active(x));
        }
        let all = whole.iter().product::<i64>();
        if let Form::Row {
            features, order, ..
        } = x.form
            && rest.first() == Some(&(features as i64))
            && rest[1..].iter().all(|&size| size == 1)
        {
            let form = Form::Row {
                features,
                order,
                ones: rest.len() - 1,
            };
            return Ok(Value::Active(Active { form, ..x }));
        }
        if rest == [all] {
            let order = match x.form {
                Form::Image {
                    size: [height, width, channels],
                    last: false,
                } if height * width > 1 && channels > 1 => Some([height, width, channels]),
                Form::Sequence {
                    turned: true,
                    length,
                    ..
                } if length > 1 => {
                    return Err(shape(&x, "a sequence, positions first"));
                }
                Form::Tokens { .. } => return Err(shape(&x, "real numbers")),
                _ => None,
            };
            let name = self.layer_name(node, None);
            let layer = self.push(name, &x.layer, LayerDef::Flatten(FlattenDef::default()));
            let form = Form::Row {
                features: all as usize,
                order,
                ones: 0,
            };
            return Ok(Value::Active(Active { layer, form }));
        }
        // Channels in groups, for a group normalisation.
        let channels_first = match x.form {
            Form::Image { last, .. } => !last,
            Form::Sequence { turned, .. } => turned,
            Form::Row { order, .. } => order.is_none(),
            Form::Tokens { .. } => false,
        };
        match (rest, x.form.channels()) {
            (&[groups, _], Some(channels))
                if channels_first && groups > 0 && channels.is_multiple_of(groups as usize) =>
            {
                Ok(Value::Part(x, Part::Grouped(groups as usize)))
            }
            _ => Err(shape(&x, "a row of all its numbers")),
        }
    }

    pub(super) fn transpose(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        let perm = ints(node, "perm").unwrap_or_default();
        let form = match (x.form, perm) {
            (Form::Image { size, last: true }, [0, 3, 1, 2]) => Form::Image { size, last: false },
            (Form::Image { size, last: false }, [0, 2, 3, 1]) => Form::Image { size, last: true },
            (
                Form::Sequence {
                    length,
                    features,
                    turned,
                },
                [0, 2, 1],
            ) => Form::Sequence {
                length,
                features,
                turned: !turned,
            },
            (form, perm)
                if perm.iter().enumerate().all(|(axis, &to)| axis as i64 == to)
                    && !perm.is_empty() =>
            {
                form
            }
            _ => {
                return Err(Problem::Attribute {
                    name: "perm",
                    found: format!("{perm:?}"),
                    expected: "between channels first and channels last",
                });
            }
        };
        Ok(Value::Active(Active { form, ..x }))
    }
}
