//! Bootstrap intervals: BCa over whole clusters, for means, paired differences and statistics of a whole set.
//!
//! Efron 1987, "Better bootstrap confidence intervals"; Efron & Tibshirani 1993, chapter 14. A resample draws as many
//! clusters as there are, with replacement. With θ the statistic of the data and θ* those of the resamples:
//! z₀ = Φ⁻¹(share of θ* below θ, ties counted half), a = Σ(θ̄ − θ₋c)³ / 6(Σ(θ̄ − θ₋c)²)^1.5 over the leave-one-cluster-out values θ₋c,
//! and the bounds are the quantiles of θ* at Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))) for z = Φ⁻¹((1∓level)/2).

use crate::Error;
use crate::arithmetic::sum;
use crate::random::Stream;
use crate::statistics::{Clusters, Interval, check_level, normal_cdf, normal_quantile, wilson};

/// How intervals are made; it belongs to the plan and is hashed with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampling {
    /// Confidence level of every interval; 0.95 where nothing else was agreed.
    pub level: f64,
    /// Number of resamples; 10,000 keep the noise of a 95 % bound below 2 % of its width.
    pub resamples: usize,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Resampling {
    /// 95 %, 10,000 resamples.
    #[must_use]
    pub fn standard(seed: u64) -> Self {
        Self { level: 0.95, resamples: 10_000, seed }
    }
}

/// The BCa interval of any statistic of weighted clusters: `statistic` gets how often each cluster is in the resample.
///
/// `None` where the resamples don't vary (all clusters alike, or fewer than two): then a bootstrap knows nothing.
pub fn bca(units: usize, settings: Resampling, mut statistic: impl FnMut(&[u32]) -> f64) -> Result<Option<Interval>, Error> {
    check_level(settings.level)?;
    if settings.resamples < 100 {
        return Err(Error::TooFew { what: "bootstrap resamples", least: 100, got: settings.resamples });
    }
    if units < 2 {
        return Ok(None);
    }
    let stream = Stream::new(settings.seed, "bootstrap");
    let mut counts = vec![1_u32; units];
    let estimate = statistic(&counts);
    let mut replicates: Vec<f64> = (0..settings.resamples as u64)
        .map(|replicate| {
            counts.fill(0);
            let stream = stream.fork(replicate);
            for draw in 0..units as u64 {
                counts[stream.below(draw, units)] += 1;
            }
            statistic(&counts)
        })
        .collect();
    replicates.sort_by(f64::total_cmp);
    let (least, greatest) = (replicates[0], replicates[replicates.len() - 1]);
    if least >= greatest || least.is_nan() {
        return Ok(None);
    }

    let slack = 1e-12 * (greatest - least);
    let below = replicates.partition_point(|&value| value < estimate - slack);
    let equal = replicates.partition_point(|&value| value <= estimate + slack) - below;
    let share = (below as f64 + 0.5 * equal as f64) / replicates.len() as f64;
    // One resample from the end at most: the estimate may lie outside all of them.
    let edge = 0.5 / replicates.len() as f64;
    let bias = normal_quantile(share.clamp(edge, 1.0 - edge));

    counts.fill(1);
    let jackknife: Vec<f64> = (0..units)
        .map(|unit| {
            counts[unit] = 0;
            let value = statistic(&counts);
            counts[unit] = 1;
            value
        })
        .collect();
    let centre = sum(jackknife.iter().copied()) / units as f64;
    let squares = sum(jackknife.iter().map(|value| (centre - value) * (centre - value)));
    let cubes = sum(jackknife.iter().map(|value| (centre - value) * (centre - value) * (centre - value)));
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares * squares.sqrt()) } else { 0.0 };
    let bound = |tail: f64| {
        let z = bias + normal_quantile(tail);
        let spread = 1.0 - acceleration * z;
        // Beyond the pole the formula turns round; the outermost resample is the honest end.
        let at = if spread <= 0.0 { if tail < 0.5 { 0.0 } else { 1.0 } } else { normal_cdf(bias + z / spread) };
        quantile(&replicates, at)
    };
    Ok(Some(Interval { low: bound(0.5 - 0.5 * settings.level), high: bound(0.5 + 0.5 * settings.level), level: settings.level }))
}

/// The quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let position = at.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

/// The interval of the mean of values in `[low, high]` (0..1 for a rate, −1..1 for the difference of two).
///
/// BCa over whole clusters. Where every cluster is alike a bootstrap would give an interval of no width, which claims
/// certainty, and with fewer than ten clusters it is too narrow. Values within bounds have at most a rate's variance, so
/// there Wilson's interval on the range with one item per cluster is the safe one: it is used alone in the first case, and in the
/// second the interval spans both. One exception: differences that are all exactly zero give [0, 0], because the two arms are then
/// the same on every item and there is nothing to be uncertain about at this test set.
pub fn mean_interval(values: &[f64], clusters: &Clusters, range: (f64, f64), settings: Resampling) -> Result<Interval, Error> {
    let totals = clusters.totals(values);
    let sizes: Vec<f64> = clusters.members.iter().map(|unit| unit.len() as f64).collect();
    let mean_of = |counts: &[u32]| {
        let (mut total, mut size) = (0.0, 0.0);
        for (unit, &count) in counts.iter().enumerate() {
            total += f64::from(count) * totals[unit];
            size += f64::from(count) * sizes[unit];
        }
        if size > 0.0 { total / size } else { 0.0 }
    };
    let resampled = bca(clusters.len(), settings, mean_of)?;
    if let Some(interval) = resampled
        && clusters.len() >= FEW_CLUSTERS
    {
        return Ok(interval);
    }
    if range.0 < 0.0 && values.iter().all(|&value| value == 0.0) && !values.is_empty() {
        return Ok(Interval { low: 0.0, high: 0.0, level: settings.level });
    }
    let width = range.1 - range.0;
    let rate = (crate::arithmetic::mean(values) - range.0) / width;
    let inner = wilson(rate, clusters.len() as f64, settings.level);
    let outer = resampled.unwrap_or(Interval { low: range.1, high: range.0, level: settings.level });
    Ok(Interval {
        low: outer.low.min(range.0 + width * inner.low),
        high: outer.high.max(range.0 + width * inner.high),
        level: settings.level,
    })
}

/// Below so many clusters a bootstrap is too sure of itself.
const FEW_CLUSTERS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Resampling {
        Resampling::standard(17)
    }

    /// The law-school style check of a symmetric case: BCa of a mean comes near the normal interval.
    #[test]
    fn a_mean_of_many_items_has_its_normal_interval() {
        let values: Vec<f64> = (0..300).map(|item| f64::from(u8::from(item % 3 == 0))).collect();
        let interval = mean_interval(&values, &Clusters::singletons(300), (0.0, 1.0), settings()).unwrap();
        let spread = 1.96 * (1.0 / 3.0 * 2.0 / 3.0 / 300.0_f64).sqrt();
        assert!((interval.low - (1.0 / 3.0 - spread)).abs() < 0.006, "{interval:?}");
        assert!((interval.high - (1.0 / 3.0 + spread)).abs() < 0.006, "{interval:?}");
    }

    /// scipy 1.x `stats.bootstrap(…, method="BCa", n_resamples=200000)` on the same values.
    #[test]
    fn agrees_with_scipy() {
        let uneven: Vec<f64> = (0..50).map(|item| if item % 3 == 0 { 0.0 } else { f64::from(item * item % 11) / 10.0 }).collect();
        let rare: Vec<f64> = (0..60).map(|item| f64::from(u8::from(item % 17 == 0))).collect();
        let skewed: Vec<f64> = (0..30).map(|item| crate::arithmetic::exp(f64::from(item) / 10.0) / 20.0).collect();
        for (values, low, high, tolerance) in
            [(uneven, 0.19, 0.356, 0.004), (rare, 0.016_67, 0.15, 0.002), (skewed, 0.224_97, 0.402_20, 0.004)]
        {
            let interval = mean_interval(&values, &Clusters::singletons(values.len()), (0.0, 1.0), settings()).unwrap();
            assert!((interval.low - low).abs() < tolerance, "{interval:?}, scipy has {low}");
            assert!((interval.high - high).abs() < tolerance, "{interval:?}, scipy has {high}");
        }
    }

    /// BCa bends towards the long tail: for a skewed sample both bounds lie above the percentile interval's.
    #[test]
    fn skewed_data_shift_the_interval() {
        let values: Vec<f64> = (0..60).map(|item| if item % 12 == 0 { 1.0 } else { 0.0 }).collect();
        let interval = mean_interval(&values, &Clusters::singletons(60), (0.0, 1.0), settings()).unwrap();
        let mean = 5.0 / 60.0;
        assert!(interval.high - mean > 1.2 * (mean - interval.low), "{interval:?}");
    }

    #[test]
    fn whole_clusters_are_drawn() {
        let values: Vec<f64> = (0..200).map(|item| f64::from(u8::from((item / 10) % 2 == 0))).collect();
        let alone = mean_interval(&values, &Clusters::singletons(200), (0.0, 1.0), settings()).unwrap();
        let groups: Vec<String> = (0..200).map(|item| (item / 10).to_string()).collect();
        let clusters = Clusters::from_groups(groups.iter().map(|group| Some(group.as_str())));
        let grouped = mean_interval(&values, &clusters, (0.0, 1.0), settings()).unwrap();
        assert!(grouped.high - grouped.low > 2.5 * (alone.high - alone.low), "{alone:?} {grouped:?}");
    }

    #[test]
    fn no_variation_is_not_certainty() {
        let all_right = mean_interval(&[1.0; 50], &Clusters::singletons(50), (0.0, 1.0), settings()).unwrap();
        assert!(all_right.low < 0.94 && all_right.high == 1.0);
        let same = mean_interval(&[0.0; 50], &Clusters::singletons(50), (-1.0, 1.0), settings()).unwrap();
        assert_eq!((same.low, same.high), (0.0, 0.0));
        let customers = Clusters::from_groups((0..60).map(|item| Some(["a", "b", "c"][item % 3])));
        let values: Vec<f64> = (0..60).map(|item| if item % 3 == 0 { 0.9 } else { 0.8 }).collect();
        let few = mean_interval(&values, &customers, (0.0, 1.0), settings()).unwrap();
        assert!(few.low < 0.5, "three customers prove little: {few:?}");
        let three = mean_interval(&[1.0; 3], &Clusters::singletons(3), (-1.0, 1.0), settings()).unwrap();
        assert!(three.low < 0.0, "three items prove nothing: {three:?}");
        let none = mean_interval(&[], &Clusters::singletons(0), (-1.0, 1.0), settings()).unwrap();
        assert_eq!((none.low, none.high), (-1.0, 1.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let values: Vec<f64> = (0..80).map(|item| f64::from(item % 7) / 7.0).collect();
        let run = |seed| mean_interval(&values, &Clusters::singletons(80), (0.0, 1.0), Resampling::standard(seed)).unwrap();
        assert_eq!(run(1).low.to_bits(), run(1).low.to_bits());
        assert_ne!(run(1).low.to_bits(), run(2).low.to_bits());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let bad = Resampling { level: 1.0, ..settings() };
        assert!(matches!(bca(3, bad, |_| 0.0), Err(Error::OutOfRange { .. })));
        let few = Resampling { resamples: 5, ..settings() };
        assert!(matches!(bca(3, few, |_| 0.0), Err(Error::TooFew { .. })));
    }
}
