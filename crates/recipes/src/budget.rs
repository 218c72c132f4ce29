//! From the memory that a run may use to what training saves of its forward passes.

use engine::budget::ladder;
use engine::memory::Policy;

use crate::base::Base;
use crate::context::MemoryPolicy;
use crate::error::{Error, Result};
use crate::spec::Mapped;

/// The policy with the least work whose run fits; `planned` gives the bytes of a run with a policy.
///
/// # Errors
/// [`Error::Memory`] where even the smallest does not fit; `nearest` says what to do about it.
pub(crate) fn policy(
    allowed: MemoryPolicy,
    layers: usize,
    planned: impl Fn(&Policy) -> Result<u64>,
    nearest: impl FnOnce(u64) -> Result<String>,
) -> Result<Policy> {
    let available = store::disk::memory_available_bytes().unwrap_or(u64::MAX);
    let (policies, budget): (Box<dyn Iterator<Item = Policy>>, u64) = match allowed {
        MemoryPolicy::Auto => (Box::new(ladder(layers)), available),
        MemoryPolicy::Within(bytes) => (Box::new(ladder(layers)), bytes.min(available)),
        MemoryPolicy::Keep => (Box::new(std::iter::once(Policy::Keep)), available),
        MemoryPolicy::Recompute => (Box::new(std::iter::once(Policy::Recompute)), available),
    };
    let mut least = u64::MAX;
    for policy in policies {
        let bytes = planned(&policy)?;
        if bytes <= budget {
            return Ok(policy);
        }
        least = least.min(bytes);
    }
    Err(Error::Memory { needed: least.div_ceil(1 << 20), available: budget >> 20, nearest: nearest(budget)? })
}

/// What `fitting` decides of a run whose weights are held as the base's are now; and where that does not fit and is left to the
/// program, of one whose weights are mapped, as the base's then are. The bits are the same, and the run only slower where the system
/// drops what it read.
///
/// # Errors
/// As `fitting`'s.
pub(crate) fn or_mapped<T>(base: &Base, fitting: impl Fn() -> Result<T>) -> Result<T> {
    match fitting() {
        Err(Error::Memory { .. }) if base.mapping() == Mapped::Auto && !base.maps_weights() => {
            base.map_weights(true);
            let mapped = fitting();
            base.map_weights(mapped.is_ok());
            // Where mapping does not help either, what to do is said of the run as it would be.
            mapped.or_else(|_| fitting())
        }
        decided => decided,
    }
}

/// A policy in words, for the plan.
pub(crate) fn words(policy: &Policy, layers: usize) -> String {
    let full = Policy::Keep.saved(0);
    let nothing = Policy::Recompute.saved(0);
    let count = |of: &dyn Fn(usize) -> bool| (0..layers).filter(|&layer| of(layer)).count();
    let whole = count(&|layer| policy.saved(layer) == full);
    let inputs = count(&|layer| policy.saved(layer) == nothing);
    match (whole, inputs) {
        _ if whole == layers => "all activations that the backward reads".into(),
        _ if inputs == layers => "block inputs only; every block is computed twice".into(),
        _ => format!("all activations of {whole} layers, parts of {}, block inputs only of {inputs}", layers - whole - inputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of 3 layers that takes 100 bytes, less 10 for each tensor that is given up.
    fn planned(policy: &Policy) -> Result<u64> {
        let saved = |layer: usize| engine::block::Activation::ALL.iter().filter(|a| policy.saved(layer).has(**a)).count() as u64;
        Ok(100 + 10 * (0..3).map(saved).sum::<u64>())
    }

    fn least(bytes: u64) -> Result<Policy> {
        policy(MemoryPolicy::Within(bytes), 3, planned, |budget| Ok(format!("more than {budget}")))
    }

    #[test]
    fn the_least_work_that_fits() {
        let whole = planned(&Policy::Keep).unwrap();
        assert_eq!(least(whole).unwrap(), Policy::Keep);
        let tight = least(whole - 1).unwrap();
        assert_eq!(words(&tight, 3), "all activations of 2 layers, parts of 1, block inputs only of 0");
        assert_eq!(words(&least(100).unwrap(), 3), "block inputs only; every block is computed twice");
        let error = least(99).unwrap_err();
        assert!(matches!(&error, Error::Memory { nearest, .. } if nearest == "more than 99"), "{error}");
    }
}
