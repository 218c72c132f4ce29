//! What loading the weights takes while it lasts.

use std::collections::BTreeMap;

use engine::memory::MemoryPlan;

use super::Base;
use crate::error::Result;

impl Base {
    /// Most that is held at once while the weights are loaded, as `plan` holds them: what was loaded before, a tensor as it is read,
    /// and what is made of it. More than the whole run takes where one tensor is most of a small model.
    pub(crate) fn loading_bytes(&self, plan: &MemoryPlan) -> Result<u64> {
        let held: BTreeMap<&str, u64> = plan.parameters.iter().map(|entry| (entry.name.as_str(), entry.bytes as u64)).collect();
        let stored = self.stored()?;
        let mut tensors = Vec::new();
        // Loaded in this order.
        for name in self.config().tensor_names() {
            let (Some(placed), Some(kept)) = (self.placed.get(&name), held.get(name.to_string().as_str())) else { continue };
            let mut at_once = *kept;
            if !stored[&name].shared {
                let info = self.info(&placed.source);
                let (file, as_held) = self.held(placed)?;
                let of = |storage: engine::storage::Storage| {
                    let (rows, cols) = self.config().tensor_shape(name);
                    storage.bytes(rows, cols).unwrap_or(0) as u64
                };
                let read = info.dtype.bytes(&info.shape).unwrap_or(0) as u64;
                // A part of a tensor, rows in another order and what is expanded are copies of what was read.
                let copied =
                    placed.source_shape != placed.shape || placed.order.is_some() || self.files.quantized(&placed.source).is_some();
                let made = if copied { read + of(file) } else { read };
                let converted = if as_held == file { of(file) } else { of(file) + of(as_held) };
                at_once = made.max(converted).max(of(as_held) + kept);
            }
            tensors.push((at_once, *kept));
        }
        Ok(most_at_once(&tensors))
    }
}

/// Most that is held at once: of each tensor, in order, what it takes while it is loaded, and what stays of it.
fn most_at_once(tensors: &[(u64, u64)]) -> u64 {
    let mut before = 0;
    let held = tensors.iter().map(|(at_once, kept)| {
        let now = before + at_once;
        before += kept;
        now
    });
    held.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_tensor_counts_where_it_comes() {
        assert_eq!(most_at_once(&[]), 0);
        assert_eq!(most_at_once(&[(200, 100), (20, 10)]), 200); // the vocabulary, read before all else
        assert_eq!(most_at_once(&[(20, 10), (200, 100)]), 210);
        assert_eq!(most_at_once(&[(20, 10); 30]), 310);
    }
}
