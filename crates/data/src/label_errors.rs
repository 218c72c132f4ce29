//! Labels that are probably wrong: confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating
//! Uncertainty in Dataset Labels", JAIR 70, 2021).
//!
//! Given each record's label and the probabilities that a model gives it which never saw that record, a class is
//! *confident* for a record if its probability reaches that class's threshold: the mean probability of the class over the
//! records that carry it. A record whose most probable confident class is not its label is a suspect.

/// A record whose label is probably another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect {
    /// Its place among the records.
    pub record: usize,
    /// Its label.
    pub given: usize,
    /// The label that it probably has.
    pub suggested: usize,
    /// Probability of the suggested label minus that of the given one: the larger, the surer.
    pub margin: f64,
}

/// Suspects, the surest first. `probabilities[i][j]` is that of label `j` for record `i`, from a model that did not see
/// it; records without probabilities (none) are passed over.
pub fn suspects(labels: &[usize], probabilities: &[Vec<f32>], classes: usize) -> Vec<Suspect> {
    let (mut sums, mut counts) = (vec![0.0f64; classes], vec![0usize; classes]);
    let known = || labels.iter().zip(probabilities).enumerate().filter(|(_, (label, of))| **label < classes && of.len() == classes);
    for (_, (label, of)) in known() {
        sums[*label] += f64::from(of[*label]);
        counts[*label] += 1;
    }
    let thresholds: Vec<f64> = sums.iter().zip(&counts).map(|(sum, count)| if *count > 0 { sum / *count as f64 } else { 2.0 }).collect();
    let mut suspects = Vec::new();
    for (record, (given, of)) in known() {
        let confident = of.iter().enumerate().filter(|(class, p)| f64::from(**p) >= thresholds[*class]);
        // Of equals the first, so that the order of classes decides and nothing else.
        let best = confident.fold(None, |best: Option<(usize, f32)>, (class, p)| match best {
            Some((_, of)) if of >= *p => best,
            _ => Some((class, *p)),
        });
        if let Some((suggested, p)) = best.filter(|(class, _)| class != given) {
            suspects.push(Suspect { record, given: *given, suggested, margin: f64::from(p) - f64::from(of[*given]) });
        }
    }
    suspects.sort_by(|a, b| b.margin.total_cmp(&a.margin).then(a.record.cmp(&b.record)));
    suspects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confident_class_is_suggested() {
        let labels = [0, 0, 0, 1, 1, 1];
        let probabilities: Vec<Vec<f32>> =
            [[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55]].iter().map(|p| p.to_vec()).collect();
        let found = suspects(&labels, &probabilities, 2);
        // Thresholds are 0.583 and 0.75: the third is class 1, surely; the last is not confident of anything.
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].record, found[0].given, found[0].suggested), (2, 0, 1));
        assert!((found[0].margin - 0.9).abs() < 1e-6);
        assert!(suspects(&labels, &vec![Vec::new(); 6], 2).is_empty());
    }
}
