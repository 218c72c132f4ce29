//! Less memory for more arithmetic: which saved activations to give up first.
//!
//! A policy never changes a bit of the result, so that a planner may choose it by the memory that there is. Per saved element,
//! computing a linear layer's output again costs about the same everywhere (2 · its input's size); attention costs more, and what
//! follows from it needs it. So gates and ups go first, then queries, keys and values, then all but the block inputs, a
//! layer at a time.

use crate::{
    block::{Activation, ActivationSet},
    config::Linear,
    memory::Policy,
};

/// What a layer may save, from most to least: each rung computes again what is left out.
const RUNGS: [&[Activation]; 3] = {
    use Activation::*;
    [
        &[Gate, Up, Low(Linear::Gate), Low(Linear::Up), Unscaled(Linear::Gate), Unscaled(Linear::Up)],
        &[
            Gate,
            Up,
            Low(Linear::Gate),
            Low(Linear::Up),
            Unscaled(Linear::Gate),
            Unscaled(Linear::Up),
            QueryRaw,
            RstdQuery,
            Query,
            KeyRaw,
            RstdKey,
            Key,
            Value,
            Low(Linear::Query),
            Low(Linear::Key),
            Low(Linear::Value),
            Unscaled(Linear::Query),
            Unscaled(Linear::Key),
            Unscaled(Linear::Value),
        ],
        &Activation::ALL,
    ]
};

/// Policies for a model of `layers` blocks, from the one that computes nothing again to the one that saves block inputs only.
pub fn ladder(layers: usize) -> impl Iterator<Item = Policy> {
    let full = Policy::Keep.saved(0);
    let at = move |rung: usize| if rung == 0 { full } else { full.without(ActivationSet::of(RUNGS[rung - 1])) };
    let between = (1..=RUNGS.len()).flat_map(move |rung| {
        (1..=layers)
            .map(move |lowered| Policy::Custom((0..layers).map(|layer| at(if layer < lowered { rung } else { rung - 1 })).collect()))
    });
    std::iter::once(Policy::Keep).chain(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_saves_less_and_the_last_one_nothing() {
        let policies: Vec<Policy> = ladder(3).collect();
        assert_eq!(policies.len(), 10);
        let saved = |policy: &Policy| -> usize {
            let has = |layer: usize, activation: &Activation| policy.saved(layer).has(*activation);
            (0..3).map(|layer| Activation::ALL.iter().filter(|activation| has(layer, activation)).count()).sum()
        };
        assert!(policies.windows(2).all(|pair| saved(&pair[0]) > saved(&pair[1])));
        assert!((0..3).all(|layer| policies[9].saved(layer) == Policy::Recompute.saved(layer)));
    }
}
