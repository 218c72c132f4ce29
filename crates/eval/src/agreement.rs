//! How well people who labelled the same items agree, beyond what chance would give.
//!
//! Cohen's κ (Cohen, "A coefficient of agreement for nominal scales", 1960) for two of them; Krippendorff's α for nominal data
//! (Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011) for any number, where not everybody labelled everything.

use crate::statistics::{Interval, normal_quantile};

/// Agreement of two people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kappa {
    /// Items that both labelled.
    pub n: usize,
    /// Share of them that both labelled alike: p_o.
    pub observed: f64,
    /// Share that would be alike by chance, from how often each of them used each label: p_e.
    pub expected: f64,
    /// κ = (p_o − p_e) / (1 − p_e); 1 where both used one and the same label only.
    pub kappa: f64,
    /// 95 %, by the large-sample standard error √(p_o (1 − p_o) / (n (1 − p_e)²)) (Cohen 1960).
    pub interval: Interval,
}

/// Cohen's κ of pairs of labels; `None` without any.
///
/// ```
/// // 20 + 15 of 50 alike, p_e = 0.5 · 0.6 + 0.5 · 0.4.
/// let mut pairs = vec![(0, 0); 20];
/// pairs.extend([(0, 1); 5]);
/// pairs.extend([(1, 0); 10]);
/// pairs.extend([(1, 1); 15]);
/// let kappa = eval::agreement::cohen_kappa(&pairs).unwrap();
/// assert!((kappa.observed - 0.7).abs() < 1e-12 && (kappa.expected - 0.5).abs() < 1e-12 && (kappa.kappa - 0.4).abs() < 1e-12);
/// ```
#[must_use]
pub fn cohen_kappa(pairs: &[(usize, usize)]) -> Option<Kappa> {
    let n = pairs.len();
    let labels = pairs.iter().map(|(a, b)| a.max(b) + 1).max()?;
    let (mut first, mut second, mut alike) = (vec![0usize; labels], vec![0usize; labels], 0usize);
    for (a, b) in pairs {
        first[*a] += 1;
        second[*b] += 1;
        alike += usize::from(a == b);
    }
    let observed = alike as f64 / n as f64;
    let expected = first.iter().zip(&second).map(|(a, b)| (*a as f64 / n as f64) * (*b as f64 / n as f64)).sum::<f64>();
    let chance = 1.0 - expected;
    let kappa = if chance > 0.0 { (observed - expected) / chance } else { 1.0 };
    let error = if chance > 0.0 { (observed * (1.0 - observed) / n as f64).sqrt() / chance } else { 0.0 };
    let reach = normal_quantile(0.975) * error;
    let interval = Interval { low: (kappa - reach).max(-1.0), high: (kappa + reach).min(1.0), level: 0.95 };
    Some(Kappa { n, observed, expected, kappa, interval })
}

/// Krippendorff's α for nominal data: α = 1 − D_o / D_e over the labels of items that at least two people labelled. `None` where
/// there are no such items; 1 where only one label was ever used, since nobody disagreed.
///
/// ```
/// // Two people, four items, one disagreement: o = [[4, 1], [1, 2]], n = 8, α = 1 − 7 · 2 / (2 · 5 · 3).
/// let alpha = eval::agreement::krippendorff_alpha(&[vec![0, 0], vec![0, 0], vec![0, 1], vec![1, 1]]).unwrap();
/// assert!((alpha - (1.0 - 14.0 / 30.0)).abs() < 1e-12);
/// ```
#[must_use]
pub fn krippendorff_alpha(items: &[Vec<usize>]) -> Option<f64> {
    let pairable: Vec<&Vec<usize>> = items.iter().filter(|labels| labels.len() > 1).collect();
    let labels = pairable.iter().flat_map(|item| item.iter()).max()? + 1;
    let mut totals = vec![0.0; labels];
    let mut disagreements = 0.0;
    for item in &pairable {
        let mut counts = vec![0.0f64; labels];
        for label in *item {
            counts[*label] += 1.0;
            totals[*label] += 1.0;
        }
        // Ordered pairs of unlike labels, each item weighing as much as it has labels.
        let m = item.len() as f64;
        let alike: f64 = counts.iter().map(|count| count * (count - 1.0)).sum();
        disagreements += (m * (m - 1.0) - alike) / (m - 1.0);
    }
    let n: f64 = totals.iter().sum();
    let by_chance: f64 = n * n - totals.iter().map(|total| total * total).sum::<f64>();
    Some(if by_chance > 0.0 { 1.0 - (n - 1.0) * disagreements / by_chance } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example C of Krippendorff (2011): four observers, twelve units, nominal α = 0.743.
    #[test]
    fn alpha_of_krippendorffs_own_example() {
        let observers = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ];
        let units: Vec<Vec<usize>> =
            (0..12).map(|unit| observers.iter().map(|observer| observer[unit]).filter(|label| *label > 0).collect()).collect();
        let alpha = krippendorff_alpha(&units).unwrap();
        assert!((alpha - 0.743).abs() < 0.0005, "{alpha}");
    }

    #[test]
    fn edges() {
        assert_eq!(cohen_kappa(&[]), None);
        assert_eq!(krippendorff_alpha(&[vec![1], vec![]]), None);
        assert_eq!(cohen_kappa(&[(2, 2), (2, 2)]).unwrap().kappa, 1.0);
        assert_eq!(krippendorff_alpha(&[vec![0, 0], vec![0, 0, 0]]), Some(1.0));
        // No better than chance, and worse.
        let half = [(0, 0), (0, 1), (1, 0), (1, 1)];
        assert_eq!(cohen_kappa(&half).unwrap().kappa, 0.0);
        assert_eq!(cohen_kappa(&[(0, 1), (1, 0)]).unwrap().kappa, -1.0);
    }
}
