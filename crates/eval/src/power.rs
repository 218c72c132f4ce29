//! What a test set can show, computed before training: the minimum detectable difference of a paired comparison.
//!
//! With n independent pairs, two-sided level α = 1 − `level` and the given power, a difference δ is found with that
//! power where δ = (z₁₋α⁄₂·σ₀ + z_power·σ₁)/√n; σ₀ is the standard deviation of the paired differences if there is no
//! difference, σ₁ if there is δ.
//! - Right/wrong metrics: with discordance ψ (share of items that exactly one of the two gets right) σ₀² = ψ and σ₁² = ψ − δ²
//!   (Connor 1987, "Sample size for testing differences in proportions for the paired-sample design").
//! - Other metrics: σ₀ = σ₁ = the standard deviation of the per-item differences.
//!
//! Clusters: divide n by the design effect 1 + (m − 1)·ρ first ([`independent_items`]).

use crate::Error;
use crate::statistics::{check_level, normal_quantile};

/// What the comparison should be able to do; 95 % level and 80 % power where nothing else was agreed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// Confidence level of the two-sided comparison.
    pub level: f64,
    /// Chance of finding a difference of the detectable size.
    pub power: f64,
}

impl Design {
    /// 95 % level, 80 % power.
    pub const STANDARD: Self = Self { level: 0.95, power: 0.8 };

    fn quantiles(self) -> Result<(f64, f64), Error> {
        check_level(self.level)?;
        if !(self.power > 0.0 && self.power < 1.0) {
            return Err(Error::OutOfRange { what: "power", range: "(0, 1)", got: self.power });
        }
        Ok((normal_quantile(0.5 + 0.5 * self.level), normal_quantile(self.power)))
    }
}

/// How the paired differences vary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Variation {
    /// A right/wrong metric: the share of items on which exactly one of the two is right.
    Discordance(f64),
    /// Any other metric: the standard deviation of the per-item differences.
    Deviation(f64),
}

impl Variation {
    /// σ₁ at a difference; `None` where such a difference can't be (|δ| > ψ).
    fn under(self, difference: f64) -> Option<f64> {
        match self {
            Self::Discordance(share) => {
                let variance = share - difference * difference;
                (difference <= share && variance >= 0.0).then(|| variance.sqrt())
            }
            Self::Deviation(deviation) => Some(deviation),
        }
    }

    fn under_none(self) -> f64 {
        match self {
            Self::Discordance(share) => share.sqrt(),
            Self::Deviation(deviation) => deviation,
        }
    }

    fn check(self) -> Result<(), Error> {
        match self {
            Self::Discordance(share) if !(share > 0.0 && share <= 1.0) => {
                Err(Error::OutOfRange { what: "discordance", range: "(0, 1]", got: share })
            }
            Self::Deviation(deviation) if !(deviation > 0.0 && deviation <= 2.0) => {
                Err(Error::OutOfRange { what: "standard deviation of the differences", range: "(0, 2]", got: deviation })
            }
            _ => Ok(()),
        }
    }
}

/// The smallest difference that n independent pairs find with the design's power; `None` where even the greatest possible difference is
/// too small to be found.
///
/// ```
/// use eval::power::{Design, Variation, minimum_detectable_difference};
/// // 200 items, one fifth of which exactly one of the two gets right: 8.8 points.
/// let least = minimum_detectable_difference(200.0, Variation::Discordance(0.2), Design::STANDARD).unwrap().unwrap();
/// assert!((least - 0.0881).abs() < 5e-4);
/// ```
pub fn minimum_detectable_difference(n: f64, variation: Variation, design: Design) -> Result<Option<f64>, Error> {
    let (z_level, z_power) = design.quantiles()?;
    variation.check()?;
    let root = n.max(0.0).sqrt();
    // δ·√n − z·σ₀ − z·σ₁(δ) grows with δ: bisect.
    let surplus = |difference: f64| {
        variation.under(difference).map(|deviation| difference * root - z_level * variation.under_none() - z_power * deviation)
    };
    let (mut low, mut high) = match variation {
        Variation::Discordance(share) => (0.0, share),
        Variation::Deviation(_) => (0.0, 1.0),
    };
    if surplus(high).is_none_or(|surplus| surplus < 0.0) {
        return Ok(None);
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if surplus(middle).is_some_and(|surplus| surplus < 0.0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(high))
}

/// About how many independent pairs find a difference with the design's power: (z₁₋α⁄₂·σ₀ + z_power·σ₁)²/δ², rounded up. `None` where such a difference
/// can't be (greater than the discordance, or not positive).
pub fn items_needed(difference: f64, variation: Variation, design: Design) -> Result<Option<usize>, Error> {
    let (z_level, z_power) = design.quantiles()?;
    variation.check()?;
    if difference <= 0.0 {
        return Ok(None);
    }
    Ok(variation.under(difference).map(|deviation| {
        let total = (z_level * variation.under_none() + z_power * deviation) / difference;
        (total * total).ceil() as usize
    }))
}

/// Independent items among clustered ones: n/(1 + (m − 1)·ρ), with m = Σ size²/Σ size the mean cluster size as an item meets it and ρ the
/// correlation within clusters (Kish 1965).
#[must_use]
pub fn independent_items(cluster_sizes: &[usize], correlation: f64) -> f64 {
    let n: usize = cluster_sizes.iter().sum();
    if n == 0 {
        return 0.0;
    }
    let squares: usize = cluster_sizes.iter().map(|size| size * size).sum();
    let size = squares as f64 / n as f64;
    n as f64 / (1.0 + (size - 1.0) * correlation.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connor's formula worked by hand: ψ = 0.3, δ = 0.1: (1.95996·0.547723 + 0.841621·0.538516)²/0.01 = 233.1.
    #[test]
    fn connors_formula() {
        let needed = items_needed(0.1, Variation::Discordance(0.3), Design::STANDARD).unwrap();
        assert_eq!(needed, Some(234));
        let least = minimum_detectable_difference(233.1, Variation::Discordance(0.3), Design::STANDARD).unwrap();
        assert!((least.unwrap() - 0.1).abs() < 1e-4);
    }

    /// The figure of statistics.md: about 1,000 independent items for 3 points at 80 % power (sd 0.34 of the differences).
    #[test]
    fn a_thousand_items_for_three_points() {
        let needed = items_needed(0.03, Variation::Deviation(0.339), Design::STANDARD).unwrap().unwrap();
        assert!((990..1015).contains(&needed), "{needed}");
    }

    #[test]
    fn what_cannot_be_is_none() {
        assert_eq!(items_needed(0.4, Variation::Discordance(0.3), Design::STANDARD), Ok(None));
        assert_eq!(items_needed(0.0, Variation::Discordance(0.3), Design::STANDARD), Ok(None));
        assert_eq!(minimum_detectable_difference(3.0, Variation::Discordance(0.3), Design::STANDARD), Ok(None));
        assert!(minimum_detectable_difference(9.0, Variation::Discordance(0.0), Design::STANDARD).is_err());
        assert!(items_needed(0.1, Variation::Deviation(0.3), Design { level: 0.95, power: 1.0 }).is_err());
    }

    #[test]
    fn clusters_cost_items() {
        assert_eq!(independent_items(&[1; 50], 0.5), 50.0);
        assert_eq!(independent_items(&[2; 25], 1.0), 25.0);
        assert!((independent_items(&[4; 25], 0.2) - 62.5).abs() < 1e-12);
        assert_eq!(independent_items(&[], 0.2), 0.0);
    }
}
