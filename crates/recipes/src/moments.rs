//! AdamW's moments in a checkpoint: f32 as they are, 8-bit ones as codes with their scales beside them.

use engine::device::Moment8bit;
use engine::moments::{Moment, MomentStorage};
use store::Dtype;
use store::checkpoint::{StateTensor, StateTensors};

use crate::spec::Optimizer;

/// A tensor's scales are named as bitsandbytes names them.
const SCALES: &str = ".absmax";

/// How an optimizer holds its moments.
pub(crate) fn storage(optimizer: Optimizer) -> MomentStorage {
    match optimizer {
        Optimizer::AdamW => MomentStorage::F32,
        Optimizer::AdamW8bit => MomentStorage::EIGHT_BIT,
    }
}

/// Adds a moment of a tensor of this shape to those of a checkpoint.
pub(crate) fn insert(tensors: &mut StateTensors, name: String, shape: Vec<usize>, moment: Moment) {
    match moment {
        Moment::F32(values) => {
            tensors.insert(name, StateTensor::floats(shape, &values));
        }
        Moment::EightBit(Moment8bit { codes, scales }) => {
            tensors.insert(format!("{name}{SCALES}"), StateTensor::floats(vec![scales.len()], &scales));
            tensors.insert(name, StateTensor { dtype: Dtype::U8, shape, bytes: codes });
        }
    }
}

/// A moment by the name of its tensor; `None` where the checkpoint has none that can be one. Whether it is of the right size is
/// the trainer's to say.
pub(crate) fn find(get: impl Fn(&str) -> Option<StateTensor>, name: &str) -> Option<Moment> {
    let tensor = get(name)?;
    if let Some(values) = tensor.to_floats() {
        return Some(Moment::F32(values));
    }
    let scales = get(&format!("{name}{SCALES}"))?.to_floats()?;
    (tensor.dtype == Dtype::U8).then_some(Moment::EightBit(Moment8bit { codes: tensor.bytes, scales }))
}
