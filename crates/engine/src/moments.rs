//! AdamW's two moments of everything that is trained: where they lie, and in how many bits.

use std::ops::Range;

use crate::{
    device::{AdamW, Device, DeviceError, Moment8bit, MomentsId, Slot, WeightId},
    error::EngineError,
};

/// How the moments are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentStorage {
    /// Four bytes a number.
    #[default]
    F32,
    /// A byte a number and a scale for every 256 (Dettmers et al. 2022).
    EightBit {
        /// Tensors of fewer numbers keep their moments in f32.
        len_min: usize,
    },
}

impl MomentStorage {
    /// Eight bits but for small tensors, as bitsandbytes has it: those are gains and biases, whose moments take no memory
    /// worth saving.
    pub const EIGHT_BIT: MomentStorage = MomentStorage::EightBit { len_min: 4096 };

    fn is_f32(self, len: usize) -> bool {
        match self {
            MomentStorage::F32 => true,
            MomentStorage::EightBit { len_min } => len < len_min,
        }
    }
}

/// One moment of a tensor as plain data.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// Its numbers.
    F32(Vec<f32>),
    /// Codes and scales.
    EightBit(Moment8bit),
}

impl Moment {
    /// Numbers.
    #[expect(clippy::len_without_is_empty, reason = "no tensor is empty")]
    pub fn len(&self) -> usize {
        match self {
            Moment::F32(values) => values.len(),
            Moment::EightBit(moment) => moment.codes.len(),
        }
    }
}

/// Where the moments of a tensor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The first from here in the arena of first moments, the second likewise.
    F32(usize),
    EightBit(MomentsId),
}

/// How the moments of some tensors are to be laid out.
pub(crate) struct MomentLayout {
    /// Numbers whose moments are f32.
    f32_len: usize,
    /// Tensors in the order in which they lie, and where in the arena the f32 ones begin.
    tensors: Vec<(Range<usize>, Option<usize>)>,
}

impl MomentLayout {
    /// Of tensors given by where their gradients lie.
    pub(crate) fn of(tensors: impl Iterator<Item = Range<usize>>, storage: MomentStorage) -> MomentLayout {
        let mut layout = MomentLayout { f32_len: 0, tensors: Vec::new() };
        let mut ranges: Vec<Range<usize>> = tensors.collect();
        ranges.sort_unstable_by_key(|range| range.start);
        for range in ranges {
            let at = storage.is_f32(range.len()).then_some(layout.f32_len);
            layout.f32_len += at.map_or(0, |_| range.len());
            layout.tensors.push((range, at));
        }
        layout
    }

    /// Bytes of both moments.
    pub(crate) fn bytes<D: Device>(&self, device: &D) -> usize {
        let eight_bit = self.tensors.iter().filter(|(_, at)| at.is_none());
        8 * self.f32_len + eight_bit.map(|(range, _)| device.moments_8bit_bytes(range.len())).sum::<usize>()
    }

    /// Lays them out on a device, all zero.
    pub(crate) fn allocate<D: Device>(self, device: &mut D) -> Result<Moments, DeviceError> {
        let arena = device.allocate("moments", 2 * self.f32_len)?;
        let mut tensors = Vec::new();
        for (range, at) in self.tensors {
            let held = match at {
                Some(at) => Held::F32(at),
                None => Held::EightBit(device.moments_8bit("moments in 8 bits", range.len())?),
            };
            tensors.push((range, held));
        }
        Ok(Moments { arena, tensors })
    }
}

/// The moments on a device.
pub(crate) struct Moments {
    arena: Slot,
    /// By where their gradients lie, ascending.
    tensors: Vec<(Range<usize>, Held)>,
}

/// Parameters that the optimiser treats alike.
pub(crate) struct ParameterGroup {
    pub(crate) range: Range<usize>,
    /// Factor on the learning rate.
    pub(crate) rate: f32,
    held: Held,
}

impl Moments {
    /// The groups of these parameters: given are each tensor's range and its factor on the learning rate, in the order in which
    /// they lie.
    pub(crate) fn groups(&self, parameters: impl Iterator<Item = (Range<usize>, f32)>) -> Vec<ParameterGroup> {
        let mut groups: Vec<ParameterGroup> = Vec::new();
        for (range, rate) in parameters {
            let held = self.held(&range);
            match (groups.last_mut(), held) {
                (Some(ParameterGroup { range: last, rate: same, held: Held::F32(first) }), Held::F32(at))
                    if *same == rate && last.end == range.start && *first + last.len() == at =>
                {
                    last.end = range.end;
                }
                _ => groups.push(ParameterGroup { range, rate, held }),
            }
        }
        groups
    }

    /// Gives them back.
    pub(crate) fn release<D: Device>(self, device: &mut D) {
        device.release(self.arena);
        for (_, held) in self.tensors {
            if let Held::EightBit(moments) = held {
                device.release_moments_8bit(moments);
            }
        }
    }

    fn held(&self, range: &Range<usize>) -> Held {
        let index = self.tensors.binary_search_by_key(&range.start, |(range, _)| range.start).expect("a tensor that is trained");
        self.tensors[index].1
    }

    /// First and second moment of `len` numbers in the arena.
    fn slots(&self, at: usize, len: usize) -> [Slot; 2] {
        [self.arena.part(at, len), self.arena.part(self.arena.len / 2 + at, len)]
    }

    /// A step on parameters that lie in an arena as their gradients do in `gradients`.
    pub(crate) fn step_group<D: Device>(&self, device: &mut D, parameters: Slot, gradients: Slot, group: &ParameterGroup, adamw: AdamW) {
        let [p, g] = [parameters, gradients].map(|slot| slot.part(group.range.start, group.range.len()));
        self.step_held(device, p, group.held, g, adamw);
    }

    /// A step on a vector whose gradient lies at `range` of `gradients`.
    pub(crate) fn step_vector<D: Device>(&self, device: &mut D, p: Slot, gradients: Slot, range: &Range<usize>, adamw: AdamW) {
        self.step_held(device, p, self.held(range), gradients.part(range.start, range.len()), adamw);
    }

    fn step_held<D: Device>(&self, device: &mut D, p: Slot, held: Held, g: Slot, adamw: AdamW) {
        match held {
            Held::F32(at) => {
                let [m, v] = self.slots(at, p.len);
                device.adamw(p, m, v, g, adamw);
            }
            Held::EightBit(moments) => device.adamw_8bit(p, moments, g, adamw),
        }
    }

    /// A step on a matrix whose gradient lies at `range` of `gradients`.
    pub(crate) fn step_weight<D: Device>(&self, device: &mut D, w: WeightId, gradients: Slot, range: &Range<usize>, adamw: AdamW) {
        let g = gradients.part(range.start, range.len());
        match self.held(range) {
            Held::F32(at) => {
                let [m, v] = self.slots(at, range.len());
                device.adamw_weight(w, m, v, g, adamw);
            }
            Held::EightBit(moments) => device.adamw_8bit_weight(w, moments, g, adamw),
        }
    }

    /// First and second moment of a tensor.
    pub(crate) fn read<D: Device>(&self, device: &D, range: &Range<usize>) -> [Moment; 2] {
        match self.held(range) {
            Held::F32(at) => self.slots(at, range.len()).map(|slot| {
                let mut values = vec![0.0; slot.len];
                device.download(slot, &mut values);
                Moment::F32(values)
            }),
            Held::EightBit(moments) => device.read_moments_8bit(moments).map(Moment::EightBit),
        }
    }

    /// Whether these could be the moments of that tensor.
    pub(crate) fn fits(&self, range: &Range<usize>, moments: &[Moment; 2]) -> bool {
        let held = self.held(range);
        moments.iter().all(|moment| match (moment, held) {
            (Moment::F32(values), Held::F32(_)) => values.len() == range.len(),
            (Moment::EightBit(moment), Held::EightBit(_)) => moment.fits(range.len()),
            _ => false,
        })
    }

    /// Puts them back.
    ///
    /// # Errors
    /// [`EngineError::StateMismatch`] where they are held otherwise or of another size; nothing is changed then.
    pub(crate) fn write<D: Device>(&self, device: &mut D, range: &Range<usize>, moments: &[Moment; 2]) -> Result<(), EngineError> {
        if !self.fits(range, moments) {
            return Err(EngineError::StateMismatch);
        }
        match (self.held(range), moments) {
            (Held::F32(at), [Moment::F32(first), Moment::F32(second)]) => {
                let [m, v] = self.slots(at, range.len());
                device.upload(m, first);
                device.upload(v, second);
            }
            (Held::EightBit(id), [Moment::EightBit(first), Moment::EightBit(second)]) => {
                device.write_moments_8bit(id, &[first.clone(), second.clone()]);
            }
            _ => unreachable!("they fit"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuDevice;

    #[test]
    fn small_tensors_and_f32_are_exact_and_neighbours_meet() {
        let mut device = CpuDevice::new(1);
        let ranges = [0..100, 100..6000, 6000..6001, 6001..10_096, 10_096..15_000];
        let rates = [1.0, 1.0, 1.0, 1.0, 2.0];
        let with_rates = || ranges.iter().cloned().zip(rates);
        let before = device.bytes();
        for (storage, bytes, groups) in [
            (MomentStorage::F32, 8 * 15_000, vec![0..10_096, 10_096..15_000]),
            (
                MomentStorage::EIGHT_BIT,
                8 * 4196 + 2 * (5900 + 4 * 24 + 4904 + 4 * 20),
                vec![0..100, 100..6000, 6000..10_096, 10_096..15_000],
            ),
        ] {
            let layout = MomentLayout::of(ranges.iter().cloned(), storage);
            assert_eq!(layout.bytes(&device), bytes);
            let moments = layout.allocate(&mut device).unwrap();
            assert_eq!(device.bytes() - before, bytes);
            assert_eq!(moments.groups(with_rates()).into_iter().map(|group| group.range).collect::<Vec<_>>(), groups);
            for range in &ranges {
                let held = moments.read(&device, range);
                assert!(held.iter().all(|moment| moment.len() == range.len()));
                moments.write(&mut device, range, &held).unwrap();
                let other = [Moment::F32(vec![0.0; range.len() + 1]), held[1].clone()];
                assert!(moments.write(&mut device, range, &other).is_err());
            }
            moments.release(&mut device);
            assert_eq!(device.bytes(), before);
        }
    }
}
