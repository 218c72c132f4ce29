//! Stratified folds that keep groups whole; deterministic by seed.

use std::collections::BTreeMap;

use crate::random::Stream;
use crate::statistics::Clusters;

/// The fold (0..k) of each item. Each class is dealt out evenly over the folds in random order; items of one cluster go to the same fold, dealt out by
/// the cluster's first item.
///
/// # Panics
/// If `classes` and `clusters` don't count the same items, or `k` is 0.
#[must_use]
pub fn stratified(classes: &[usize], clusters: &Clusters, k: usize, seed: u64) -> Vec<usize> {
    assert_eq!(classes.len(), clusters.items, "one class per item");
    assert!(k > 0, "at least one fold");
    let order = Stream::new(seed, "folds").permutation(clusters.len());
    let mut by_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for unit in order {
        by_class.entry(classes[clusters.members[unit][0]]).or_default().push(unit);
    }
    let mut folds = vec![0; classes.len()];
    // Dealing goes on where the last class stopped, so that small classes don't all land in fold 0.
    let mut dealt = 0;
    for units in by_class.values() {
        for &unit in units {
            for &item in &clusters.members[unit] {
                folds[item] = dealt % k;
            }
            dealt += 1;
        }
    }
    folds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_spread_and_groups_stay_whole() {
        let classes: Vec<usize> = (0..100).map(|item| item % 4).collect();
        let folds = stratified(&classes, &Clusters::singletons(100), 5, 3);
        for class in 0..4 {
            for fold in 0..5 {
                let count = (0..100).filter(|&item| classes[item] == class && folds[item] == fold).count();
                assert_eq!(count, 5);
            }
        }
        let groups: Vec<String> = (0..100).map(|item| (item / 3).to_string()).collect();
        let clusters = Clusters::from_groups(groups.iter().map(|group| Some(group.as_str())));
        let folds = stratified(&classes, &clusters, 5, 3);
        assert!((0..99).all(|item| item % 3 == 2 || folds[item] == folds[item + 1]));
        assert_eq!(folds, stratified(&classes, &clusters, 5, 3));
        assert_ne!(folds, stratified(&classes, &clusters, 5, 4));
    }
}
