//! Intervals and tests for rates and paired differences; each with its formula and source.
//!
//! The unit is the item; where items come in groups (a customer's messages), the group is the unit of everything that
//! measures uncertainty, because answers to one customer's messages are right or wrong together.

use crate::Error;
use crate::arithmetic::{exp, ln, mean, sum};
use crate::random::Stream;

/// An interval with its confidence level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Confidence level, for example 0.95.
    pub level: f64,
}

// ---- the normal distribution ----------------------------------------------------------------------------------

/// φ(x), the density.
#[must_use]
pub fn normal_density(x: f64) -> f64 {
    exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt()
}

/// Φ(x), the distribution function, to about 1e-15 (absolute; relative in the lower tail).
///
/// |x| < 3: Φ = ½ + φ(x)·(x + x³/3 + x⁵/15 + …) (Abramowitz & Stegun 26.2.11); beyond: the continued fraction of the
/// upper tail, φ(x)/(x + 1/(x + 2/(x + …))) (26.2.14).
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    if size < 3.0 {
        let mut term = x;
        let mut total = x;
        let mut odd = 1.0;
        while term.abs() > 1e-18 * total.abs() {
            odd += 2.0;
            term *= x * x / odd;
            total += term;
        }
        return 0.5 + normal_density(x) * total;
    }
    let mut fraction = size;
    for depth in (1..=120).rev() {
        fraction = size + f64::from(depth) / fraction;
    }
    let tail = normal_density(size) / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Φ⁻¹(p) for p in (0, 1); −∞ and ∞ at the ends.
///
/// Abramowitz & Stegun 26.2.23 (error < 4.5e-4) as the start, then Halley's steps on [`normal_cdf`].
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    if p == 1.0 {
        return f64::INFINITY;
    }
    if p > 0.5 {
        return -normal_quantile_lower(1.0 - p);
    }
    normal_quantile_lower(p)
}

fn normal_quantile_lower(p: f64) -> f64 {
    let t = (-2.0 * ln(p)).sqrt();
    let mut x = -(t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308))));
    for _ in 0..4 {
        let newton = (normal_cdf(x) - p) / normal_density(x);
        let step = newton / (1.0 + 0.5 * x * newton);
        if !step.is_finite() {
            break;
        }
        x -= step;
    }
    x
}

/// z with Φ(z) − Φ(−z) = level: 1.96 for 0.95.
fn two_sided_z(level: f64) -> f64 {
    normal_quantile(0.5 + 0.5 * level)
}

// ---- single rates ---------------------------------------------------------------------------------------------

/// Wilson's score interval of a rate (Wilson 1927).
///
/// (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n). `n` may be fractional: an effective number of items.
/// With no items the interval is [0, 1].
///
/// ```
/// let interval = eval::statistics::wilson(0.9, 200.0, 0.95);
/// assert!((interval.low - 0.8506).abs() < 1e-4 && (interval.high - 0.9343).abs() < 1e-4);
/// ```
#[must_use]
pub fn wilson(rate: f64, n: f64, level: f64) -> Interval {
    if n <= 0.0 {
        return Interval { low: 0.0, high: 1.0, level };
    }
    let z = two_sided_z(level);
    let z2 = z * z;
    let centre = rate + z2 / (2.0 * n);
    let spread = z * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
    let scale = 1.0 + z2 / n;
    Interval {
        low: if rate <= 0.0 { 0.0 } else { ((centre - spread) / scale).max(0.0) },
        high: if rate >= 1.0 { 1.0 } else { ((centre + spread) / scale).min(1.0) },
        level,
    }
}

/// The upper bound of a rate after `n` items without a single event: 1 − (1−level)^(1/n), which is about 3/n at 95 %
/// ("rule of three", Hanley & Lippman-Hand 1983).
#[must_use]
pub fn rule_of_three(n: usize, level: f64) -> f64 {
    if n == 0 {
        return 1.0;
    }
    1.0 - exp(ln(1.0 - level) / n as f64)
}

// ---- clusters -------------------------------------------------------------------------------------------------

/// Items gathered into the units that are resampled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    /// The items of each unit, in order of first appearance.
    pub members: Vec<Vec<usize>>,
    /// The number of items.
    pub items: usize,
}

impl Clusters {
    /// Each item alone.
    #[must_use]
    pub fn singletons(items: usize) -> Self {
        Self { members: (0..items).map(|item| vec![item]).collect(), items }
    }

    /// Items with the same group together; items without a group each alone.
    #[must_use]
    pub fn from_groups<'a>(groups: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut known = std::collections::BTreeMap::new();
        let mut items = 0;
        for group in groups {
            match group {
                Some(group) => {
                    let unit = *known.entry(group).or_insert(members.len());
                    if unit == members.len() {
                        members.push(Vec::new());
                    }
                    members[unit].push(items);
                }
                None => members.push(vec![items]),
            }
            items += 1;
        }
        Self { members, items }
    }

    /// The number of units.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no units.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether each item stands alone.
    #[must_use]
    pub fn are_singletons(&self) -> bool {
        self.members.len() == self.items
    }

    /// The sum of the values of each unit.
    #[must_use]
    pub fn totals(&self, values: &[f64]) -> Vec<f64> {
        self.members.iter().map(|unit| sum(unit.iter().map(|&item| values[item]))).collect()
    }
}

/// The standard error of a mean over clustered items (arXiv 2411.00640, with the finite-cluster correction):
/// √(C/(C−1) · Σ_c (Σ_{i∈c} (d_i − d̄))²) / n. For single items it is sd/√n. `None` below two clusters.
#[must_use]
pub fn clustered_standard_error(values: &[f64], clusters: &Clusters) -> Option<f64> {
    let units = clusters.len();
    if units < 2 {
        return None;
    }
    let centre = mean(values);
    let squares = sum(clusters.members.iter().map(|unit| {
        let total = sum(unit.iter().map(|&item| values[item] - centre));
        total * total
    }));
    Some((units as f64 / (units as f64 - 1.0) * squares).sqrt() / values.len() as f64)
}

/// How many independent items carry as much information as these: p(1−p)/SE² for a rate with clustered standard error
/// SE, at most the number of items; where all values are equal (SE 0) the number of clusters, which is the safe end.
#[must_use]
pub fn effective_items(values: &[f64], clusters: &Clusters) -> f64 {
    let n = values.len() as f64;
    if clusters.are_singletons() {
        return n;
    }
    let rate = mean(values);
    match clustered_standard_error(values, clusters) {
        Some(error) if error > 0.0 => (rate * (1.0 - rate) / (error * error)).min(n).max(1.0),
        _ => clusters.len() as f64,
    }
}

// ---- paired tests ---------------------------------------------------------------------------------------------

/// The exact test of McNemar on paired right/wrong answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Items that only the first got right.
    pub only_first: u64,
    /// Items that only the second got right.
    pub only_second: u64,
    /// Two-sided exact p: min(1, 2·P(X ≤ min(b, c))), X ~ Binomial(b + c, ½).
    pub p: f64,
    /// Mid-p (Fagerland, Lydersen, Laake 2013): p less P(X = min(b, c)); less conservative.
    pub p_mid: f64,
}

/// McNemar's exact test from the numbers of discordant pairs.
///
/// ```
/// let test = eval::statistics::mcnemar(5, 0);
/// assert_eq!((test.p, test.p_mid), (0.0625, 0.03125));
/// ```
#[must_use]
pub fn mcnemar(only_first: u64, only_second: u64) -> McNemar {
    let n = only_first + only_second;
    let least = only_first.min(only_second);
    // ln of C(n, least)/2ⁿ, then downwards by the ratio of neighbouring terms.
    let mut log_point = -(n as f64) * std::f64::consts::LN_2;
    for step in 1..=least {
        log_point += ln((n - least + step) as f64) - ln(step as f64);
    }
    let point = exp(log_point);
    let mut tail = point;
    let mut term = point;
    for k in (1..=least).rev() {
        term *= k as f64 / (n - k + 1) as f64;
        tail += term;
        if term < tail * 1e-18 {
            break;
        }
    }
    McNemar { only_first, only_second, p: (2.0 * tail).min(1.0), p_mid: (2.0 * tail - point).clamp(0.0, 1.0) }
}

/// Up to this many non-zero clusters all 2ᵐ sign patterns are counted instead of drawn.
const SIGN_FLIP_EXACT_MAX: usize = 16;

/// The two-sided sign-flip permutation p of "the mean difference is zero": under that hypothesis the sign of each
/// cluster's total is a fair coin. Exact for up to 16 non-zero clusters, otherwise (1 + hits)/(1 + draws) (Phipson &
/// Smyth 2010). For single right/wrong items it estimates McNemar's exact p.
#[must_use]
pub fn sign_flip_p(differences: &[f64], clusters: &Clusters, draws: usize, seed: u64) -> f64 {
    let totals: Vec<f64> = clusters.totals(differences).into_iter().filter(|&total| total != 0.0).collect();
    if totals.is_empty() {
        return 1.0;
    }
    // Rounding must not make a sign pattern with the same total look smaller.
    let scale = sum(totals.iter().map(|total| total.abs()));
    let bar = sum(totals.iter().copied()).abs() - 1e-12 * scale;
    let reaches = |signs: &dyn Fn(usize) -> bool| {
        let total: f64 = totals.iter().enumerate().map(|(unit, &total)| if signs(unit) { -total } else { total }).sum();
        total.abs() >= bar
    };
    if totals.len() <= SIGN_FLIP_EXACT_MAX {
        let patterns = 1_u32 << totals.len();
        let hits = (0..patterns).filter(|pattern| reaches(&|unit| pattern >> unit & 1 == 1)).count();
        return hits as f64 / f64::from(patterns);
    }
    let stream = Stream::new(seed, "sign-flip");
    let hits = (0..draws as u64)
        .filter(|&draw| {
            let stream = stream.fork(draw);
            let mut bits = 0;
            let mut total = 0.0;
            for (unit, &value) in totals.iter().enumerate() {
                if unit % 64 == 0 {
                    bits = stream.at(unit as u64 / 64);
                }
                total += if bits & 1 == 1 { -value } else { value };
                bits >>= 1;
            }
            total.abs() >= bar
        })
        .count();
    (1 + hits) as f64 / (1 + draws) as f64
}

/// Holm's step-down adjustment of a family of p values (Holm 1979), in the order given: with p sorted ascending,
/// adjusted p₍ᵢ₎ = max over j ≤ i of (m − j + 1)·p₍ⱼ₎, at most 1.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]).then(left.cmp(&right)));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut greatest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        greatest = greatest.max(((p_values.len() - rank) as f64 * p_values[index]).min(1.0));
        adjusted[index] = greatest;
    }
    adjusted
}

/// Refuses levels at which nothing is defined.
pub(crate) fn check_level(level: f64) -> Result<(), Error> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(Error::OutOfRange { what: "confidence level", range: "(0, 1)", got: level }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
    }

    /// Values from tables of the normal distribution to 15 digits (Wichura 1988's test points among them).
    #[test]
    fn normal_distribution_at_known_points() {
        close(normal_cdf(0.0), 0.5, 0.0);
        close(normal_cdf(1.0), 0.841_344_746_068_542_9, 1e-15);
        close(normal_cdf(-1.959_963_984_540_054), 0.025, 1e-15);
        close(normal_cdf(3.0), 0.998_650_101_968_369_9, 1e-15);
        close(normal_cdf(-6.0) / 9.865_876_450_376_946e-10, 1.0, 1e-12);
        close(normal_cdf(-10.0) / 7.619_853_024_160_527e-24, 1.0, 1e-12);
        close(normal_quantile(0.25), -0.674_489_750_196_081_7, 1e-14);
        close(normal_quantile(0.001), -3.090_232_306_167_814, 1e-13);
        close(normal_quantile(1e-20), -9.262_340_089_798_408, 1e-11);
        close(normal_quantile(0.975), 1.959_963_984_540_054, 1e-14);
        close(normal_quantile(0.8), 0.841_621_233_572_914_3, 1e-14);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert!(normal_quantile(-0.1).is_nan());
    }

    #[test]
    fn cdf_and_quantile_are_inverse() {
        for step in 1..1000 {
            let p = f64::from(step) / 1000.0;
            close(normal_cdf(normal_quantile(p)), p, 2e-15);
        }
    }

    /// Newcombe 1998, table I: Wilson's interval for 81/263, 15/148, 0/20, 1/29.
    #[test]
    fn wilson_of_newcombes_table() {
        for (events, n, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (15.0, 148.0, 0.0624, 0.1605), (0.0, 20.0, 0.0, 0.1611), (1.0, 29.0, 0.0061, 0.1718)]
        {
            let interval = wilson(events / n, n, 0.95);
            close(interval.low, low, 5e-5);
            close(interval.high, high, 5e-5);
        }
        assert_eq!(wilson(1.0, 10.0, 0.95).high, 1.0);
        assert_eq!(wilson(0.3, 0.0, 0.95).low, 0.0);
    }

    #[test]
    fn three_over_n() {
        close(rule_of_three(100, 0.95), 0.0295, 1e-4);
        close(rule_of_three(1000, 0.95), 3.0 / 1000.0, 1e-5);
        assert_eq!(rule_of_three(0, 0.95), 1.0);
    }

    /// Fagerland et al. 2013, airway hyper-responsiveness: 1 and 7 discordant pairs: exact 0.0703, mid-p 0.0391.
    #[test]
    fn mcnemar_of_fagerland() {
        let test = mcnemar(1, 7);
        close(test.p, 0.070_312_5, 1e-12);
        close(test.p_mid, 0.039_062_5, 1e-12);
        let even = mcnemar(4, 4);
        close(even.p, 1.0, 0.0);
        close(even.p_mid, 1.0, 1e-12);
        assert_eq!(mcnemar(0, 0).p, 1.0);
        // Large counts neither overflow nor vanish.
        let large = mcnemar(50_100, 49_900);
        assert!(large.p > 0.5 && large.p < 0.55, "{}", large.p);
    }

    #[test]
    fn sign_flip_equals_mcnemar_for_single_items() {
        let mut differences = vec![0.0; 40];
        differences[..7].fill(1.0);
        differences[7..8].fill(-1.0);
        close(sign_flip_p(&differences, &Clusters::singletons(40), 0, 1), mcnemar(7, 1).p, 1e-12);
        let mut differences = vec![0.0; 200];
        differences[..30].fill(1.0);
        differences[30..45].fill(-1.0);
        close(sign_flip_p(&differences, &Clusters::singletons(200), 20_000, 1), mcnemar(30, 15).p, 0.005);
        assert_eq!(sign_flip_p(&[0.0; 5], &Clusters::singletons(5), 100, 1), 1.0);
    }

    #[test]
    fn clusters_widen() {
        let values = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let alone = clustered_standard_error(&values, &Clusters::singletons(8)).unwrap();
        close(alone, (2.0 / 7.0_f64).sqrt() / 8.0_f64.sqrt(), 1e-15);
        let groups = ["a", "a", "b", "b", "c", "c", "d", "d"];
        let clusters = Clusters::from_groups(groups.iter().map(|group| Some(*group)));
        assert_eq!(clusters.len(), 4);
        let paired = clustered_standard_error(&values, &clusters).unwrap();
        assert!(paired > 1.3 * alone);
        assert!(effective_items(&values, &clusters) < 8.0);
        assert_eq!(effective_items(&[1.0; 8], &clusters), 4.0);
        assert_eq!(clustered_standard_error(&[1.0], &Clusters::singletons(1)), None);
        assert_eq!(Clusters::from_groups([None, Some("x"), None, Some("x")]).members, [vec![0], vec![1, 3], vec![2]]);
    }

    /// The worked example of Holm's method: 0.01, 0.04, 0.03, 0.005 → 0.03, 0.06, 0.06, 0.02.
    #[test]
    fn holm_steps_down() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(*got, expected, 1e-15);
        }
    }
}
