//! Normalisations and embeddings.

use super::*;

impl Importer<'_> {
    pub(super) fn batch_norm(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        demand(node, "training_mode", 0, 0, "0")?;
        let channels = x.form.channels().ok_or(Problem::Order)?;
        let first = match x.form {
            Form::Image { last, .. } => !last,
            Form::Sequence { turned, .. } => turned,
            Form::Row { .. } => true,
            Form::Tokens { .. } => false,
        };
        if !first {
            return Err(shape(&x, "channels behind the batch"));
        }
        let numbers = (1..=4).map(|index| self.vector(node, index, channels));
        let numbers = numbers.collect::<Lowered<Vec<_>>>()?;
        let epsilon = float(node, "epsilon", 1e-5);
        let name = self.layer_name(node, Some(1));
        for (part, numbers) in ["weight", "bias", "running_mean", "running_var"]
            .iter()
            .zip(numbers)
        {
            self.tensor(&name, part, numbers);
        }
        let def = LayerDef::BatchNorm(BatchNormDef {
            epsilon,
            ..BatchNormDef::default()
        });
        let layer = self.push(name, &x.layer, def);
        Ok(Value::Active(Active {
            layer,
            form: x.form,
        }))
    }

    pub(super) fn layer_norm(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        let Form::Row {
            features,
            order: None,
            ones: 0,
        } = x.form
        else {
            return Err(shape(&x, "a row of features"));
        };
        let axis = int(node, "axis", -1);
        if axis != -1 && axis != 1 {
            demand(node, "axis", -1, -1, "the last axis")?;
        }
        let gamma = self.vector(node, 1, features)?;
        let beta = match self.optional(node, 2)? {
            Some(beta) => vector(beta, features)?,
            None => vec![0.0; features],
        };
        let epsilon = float(node, "epsilon", 1e-5);
        Ok(self.layer_normalized(node, x, epsilon, [gamma, beta], [Some(1), None]))
    }

    /// A norm's name: from the constant that is its weight or its bias, or from the node.
    pub(super) fn norm_name(
        &mut self,
        node: &NodeProto,
        [weight, bias]: [Option<usize>; 2],
    ) -> String {
        let bias = bias.and_then(|index| {
            let other = node.input.get(1 - index.min(1));
            let names = [node.input.get(index), other];
            let mut named = names.into_iter().flatten();
            named.find_map(|name| name.strip_suffix(".bias").map(str::to_owned))
        });
        match bias {
            Some(wish) => self.fresh(&wish),
            None => self.layer_name(node, weight),
        }
    }

    pub(super) fn layer_normalized(
        &mut self,
        node: &NodeProto,
        x: Active,
        epsilon: f32,
        [gamma, beta]: [Vec<f32>; 2],
        names: [Option<usize>; 2],
    ) -> Value {
        let name = self.norm_name(node, names);
        self.tensor(&name, "weight", gamma);
        self.tensor(&name, "bias", beta);
        let def = LayerNormDef {
            name: None,
            input: None,
            epsilon,
        };
        let layer = self.push(name, &x.layer, LayerDef::LayerNorm(def));
        Value::Active(Active {
            layer,
            form: x.form,
        })
    }

    pub(super) fn group_norm(
        &mut self,
        node: &NodeProto,
        x: Active,
        groups: usize,
        epsilon: f32,
        [gamma, beta]: [Vec<f32>; 2],
        names: [Option<usize>; 2],
    ) -> Value {
        let name = self.norm_name(node, names);
        self.tensor(&name, "weight", gamma);
        self.tensor(&name, "bias", beta);
        let def = GroupNormDef {
            epsilon,
            ..GroupNormDef::new(groups)
        };
        let layer = self.push(name, &x.layer, LayerDef::GroupNorm(def));
        Value::Active(Active {
            layer,
            form: x.form,
        })
    }

    /// Alone: a group normalisation with a group for each channel. On channels in groups: the
    /// first half of any group normalisation, whose own scale and shift must be 1 and 0.
    pub(super) fn instance_norm(&mut self, node: &NodeProto, first: &Value) -> Lowered<Value> {
        let epsilon = float(node, "epsilon", 1e-5);
        match first {
            Value::Part(x, Part::Grouped(groups)) => {
                let (scale, shift) = (
                    self.vector(node, 1, *groups)?,
                    self.vector(node, 2, *groups)?,
                );
                let all = |numbers: &[f32], number: f32| {
                    numbers.iter().all(|n| n.to_bits() == number.to_bits())
                };
                let plain = all(&scale, 1.0) && all(&shift, 0.0);
                if !plain {
                    return Err(Problem::Operator);
                }
                let normal = Part::Normal {
                    groups: Some(*groups),
                    epsilon,
                    gamma: None,
                    grouped: true,
                };
                Ok(Value::Part(x.clone(), normal))
            }
            Value::Active(x) => {
                let Form::Image {
                    size: [_, _, channels],
                    last: false,
                } = x.form
                else {
                    return Err(shape(x, "an image, channels first"));
                };
                let numbers = [
                    self.vector(node, 1, channels)?,
                    self.vector(node, 2, channels)?,
                ];
                let names = [Some(1), None];
                Ok(self.group_norm(node, x.clone(), channels, epsilon, numbers, names))
            }
            _ => Err(Problem::NotActive(0)),
        }
    }

    pub(super) fn embedding(&mut self, node: &NodeProto) -> Lowered<Value> {
        demand(node, "axis", 0, 0, "0")?;
        let tokens = self.active(node, 1)?;
        let Form::Tokens { length } = tokens.form else {
            return Err(shape(&tokens, "tokens"));
        };
        let table = self.constant(node, 0)?;
        let &[vocabulary, features] = table.shape() else {
            return Err(constant(table, "[vocabulary, size]"));
        };
        if self.input
            != (InputSpec::Tokens {
                length,
                vocabulary: 0,
            })
        {
            return Err(Problem::Operator);
        }
        let values = table.to_f32();
        self.input = InputSpec::Tokens { length, vocabulary };
        let name = self.layer_name(node, Some(0));
        self.tensor(&name, "weight", values);
        let def = EmbeddingDef {
            name: None,
            input: None,
            size: features,
        };
        let layer = self.push(name, "input", LayerDef::Embedding(def));
        Ok(Value::Active(Active {
            layer,
            form: Form::Sequence {
                length,
                features,
                turned: false,
            },
        }))
    }
}
