//! Weights and tables in four and eight bits.

use alloc::borrow::{Cow, ToOwned as _};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::super::ProgramError;
use super::super::constants::{DType, Packing, bytes_of};
use super::Compiler;
use crate::graph::{Op, TensorId, Unit};
use crate::kernel::Kernels;
use crate::quant::{Code4, FourBits, QuantError, Weight4, Weight8};
use crate::runtime::{Slot, Step, StoredEight, StoredFour, StoredLevels, Weight};

impl Compiler<'_> {
    /// The weights of a product in codes of four bits: those that were given, or the nearest.
    pub(super) fn four_bits(
        &mut self,
        name: String,
        op: &Op,
        format: &FourBits,
        weights: &[f32],
    ) -> Result<Weight, ProgramError> {
        let (len, [terms, columns]) = match op {
            Op::Dense { geometry, .. } => {
                (geometry.nibbles_len(), [geometry.inputs, geometry.outputs])
            }
            Op::Conv { geometry, .. } => {
                let filters = geometry.shape().filters;
                (
                    geometry.nibbles_len(),
                    [geometry.weight_len() / filters, filters],
                )
            }
            _ => unreachable!("no product"),
        };
        let given = self.weights.and_then(|weights| weights.tensors.get(&name));
        let made = match given {
            _ if self.parameters.is_none() => None,
            Some(given) if given.is(format, terms, columns) => Some(Cow::Borrowed(given)),
            Some(given) => {
                return Err(QuantError::Foreign {
                    name,
                    found: given.shape(),
                    expected: [terms, columns],
                }
                .into());
            }
            None => Some(Cow::Owned(Weight4::nearest(
                &name, format, columns, weights,
            )?)),
        };
        let packed = made.as_deref().map(|made| {
            let mut packed = vec![0; len];
            match op {
                Op::Dense { geometry, .. } => {
                    Kernels::best().pack_dense_four(geometry, made.codes(), &mut packed);
                }
                Op::Conv { geometry, .. } => {
                    Kernels::best().pack_conv_four(geometry, made.codes(), &mut packed);
                }
                _ => unreachable!("no product"),
            }
            packed
        });
        let codes = (packed.unwrap_or_default(), vec![len], Packing::Nibbles16);
        let stored = self.stored_four(&name, [terms, columns], format, made.as_deref(), codes);
        Ok(Weight::Four(stored))
    }

    /// A table in codes of four bits, the nearest.
    pub(super) fn table_of_four_bits(
        &mut self,
        name: String,
        shape: &[usize],
        format: &FourBits,
        values: &[f32],
    ) -> Result<StoredFour, ProgramError> {
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / width;
        let made = match self.parameters {
            Some(_) => Some(Weight4::table(&name, format, width, values)?),
            None => None,
        };
        let len = Kernels::table_len(width, rows);
        let packed = made.as_ref().map(|made| {
            let mut packed = vec![0; len];
            Kernels::best().pack_table_four(width, rows, made.codes(), &mut packed);
            packed
        });
        let codes = (packed.unwrap_or_default(), vec![len], Packing::NibbleRows);
        Ok(self.stored_four(&name, [width, rows], format, made.as_ref(), codes))
    }

    /// Positions out of a table of four bits.
    pub(super) fn position_of_four_bits(
        &mut self,
        unit: &Unit,
        table: TensorId,
    ) -> Result<Slot, ProgramError> {
        let input = self.graph.nodes[unit.node].input;
        let x = self.real(input)?;
        let tensor = &self.model.layout().tensors()[table];
        let (name, shape, range) = (tensor.name.clone(), tensor.shape.clone(), tensor.range());
        let size = shape.last().copied().unwrap_or(1);
        let values = self.parameters.map(|all| &all[range]).unwrap_or_default();
        let format = self.four.cloned().unwrap_or_default();
        let table = self.table_of_four_bits(name, &shape, &format, values)?;
        let y = self.own_copy(input, x, 1);
        self.push(Step::PositionFour { size, table, y });
        Ok(y)
    }

    /// Filters of one channel each, in codes of eight bits.
    pub(super) fn eight_bits(
        &mut self,
        name: String,
        shape: &[usize],
        weights: &[f32],
    ) -> Result<Weight, ProgramError> {
        let columns = shape.last().copied().unwrap_or(1);
        let made = match self.parameters {
            Some(_) => Some(Weight8::nearest(&name, columns, weights)?),
            None => None,
        };
        let (codes, scales) = made
            .map(|made| (bytes_of(made.codes()), bytes_of(made.scales())))
            .unwrap_or_default();
        let scaled = format!("{name}.scales");
        let plain = Packing::Plain;
        let codes = self.constant(name, DType::I8, shape.to_vec(), plain, |_| codes);
        let scales = self.constant(scaled, DType::F16, vec![columns], plain, |_| scales);
        Ok(Weight::Eight(StoredEight { codes, scales }))
    }

    /// Codes of four bits as they are packed, with what they stand for.
    fn stored_four(
        &mut self,
        name: &str,
        [terms, columns]: [usize; 2],
        format: &FourBits,
        made: Option<&Weight4>,
        (packed, len, packing): (Vec<u8>, Vec<usize>, Packing),
    ) -> StoredFour {
        let bytes = |part: fn(&Weight4) -> Vec<u8>| made.map(part).unwrap_or_default();
        let scales = bytes(|made| bytes_of(made.scales()));
        let zeros = bytes(|made| made.zeros().to_vec());
        let plain = Packing::Plain;
        let shape = vec![terms.div_ceil(format.group), columns];
        let codes = self.constant(name.to_owned(), DType::U8, len, packing, |_| packed);
        let name_of = |part| format!("{name}.{part}");
        let scales = self.constant(name_of("scales"), DType::F16, shape.clone(), plain, |_| {
            scales
        });
        let levels = match format.code {
            Code4::Int4 => StoredLevels::Middle,
            Code4::Nf4 => StoredLevels::Table,
            Code4::Uint4 => StoredLevels::Zeros(self.constant(
                name_of("zeros"),
                DType::U8,
                shape,
                plain,
                |_| zeros,
            )),
        };
        StoredFour {
            codes,
            scales,
            levels,
            group: format.group,
        }
    }
}
