//! Do the intervals cover, and does the gate stay shut when there is nothing to find? Simulated, with seeds.

use eval::bootstrap::{Resampling, mean_interval};
use eval::random::Stream;
use eval::statistics::{Clusters, mcnemar, sign_flip_p, wilson};

/// A uniform number in [0, 1).
fn uniform(stream: Stream, at: u64) -> f64 {
    (stream.at(at) >> 11) as f64 / (1_u64 << 53) as f64
}

fn settings(seed: u64) -> Resampling {
    Resampling { resamples: 400, ..Resampling::standard(seed) }
}

/// 95 % intervals must contain the truth in about 95 % of the worlds; within four standard errors of the simulation.
#[track_caller]
fn check_coverage(covered: usize, worlds: usize, least: f64) {
    let rate = covered as f64 / worlds as f64;
    assert!(rate >= least, "covered {rate}, wanted {least}");
}

#[test]
fn wilson_covers() {
    for (rate, n) in [(0.5, 40), (0.9, 60), (0.98, 200)] {
        let worlds = 2_000;
        let covered = (0..worlds)
            .filter(|&world| {
                let stream = Stream::new(world as u64, "wilson");
                let hits = (0..n).filter(|&item| uniform(stream, item) < rate).count();
                let interval = wilson(hits as f64 / n as f64, n as f64, 0.95);
                interval.low <= rate && rate <= interval.high
            })
            .count();
        check_coverage(covered, worlds, 0.92);
    }
}

/// Shares of five fields, 100 items, items of one customer alike: whole clusters must be drawn for the interval to cover.
#[test]
fn the_bootstrap_covers_under_clusters() {
    let worlds = 300;
    let groups: Vec<String> = (0..120).map(|item| (item / 3).to_string()).collect();
    let clusters = Clusters::from_groups(groups.iter().map(|group| Some(group.as_str())));
    let covered = |clusters: &Clusters| {
        (0..worlds)
            .filter(|&world| {
                let stream = Stream::new(world, "clusters");
                let values: Vec<f64> = (0..120)
                    .map(|item| {
                        // Half of the items copy their customer's first: the mean stays 0.7.
                        let source = if uniform(stream.fork(1), item) < 0.7 { item / 3 * 3 } else { item };
                        (0..5).filter(|field| uniform(stream.fork(2), source * 5 + field) < 0.7).count() as f64 / 5.0
                    })
                    .collect();
                let interval = mean_interval(&values, clusters, (0.0, 1.0), settings(world)).unwrap();
                interval.low <= 0.7 && 0.7 <= interval.high
            })
            .count()
    };
    let (grouped, single) = (covered(&clusters), covered(&Clusters::singletons(120)));
    check_coverage(grouped, worlds as usize, 0.90);
    assert!(single + 15 < grouped, "ignoring clusters must show: {single} against {grouped} of {worlds}");
}

/// Two equally good arms: "the whole interval is above zero and p ≤ 0.05" must stay below 2.5 % or so, also where few items differ.
#[test]
fn the_gate_rarely_opens_for_equals() {
    for (discordance, n) in [(0.02, 200_u64), (0.1, 100), (0.3, 60)] {
        let worlds = 600;
        let clusters = Clusters::singletons(n as usize);
        let (mut opened, mut by_interval_alone) = (0, 0);
        for world in 0..worlds {
            let stream = Stream::new(world, "null");
            let differences: Vec<f64> = (0..n)
                .map(|item| match uniform(stream, item) {
                    draw if draw < 0.5 * discordance => 1.0,
                    draw if draw < discordance => -1.0,
                    _ => 0.0,
                })
                .collect();
            let interval = mean_interval(&differences, &clusters, (-1.0, 1.0), settings(world)).unwrap();
            let count = |sign| differences.iter().filter(|&&difference| difference == sign).count() as u64;
            let p = mcnemar(count(1.0), count(-1.0)).p;
            by_interval_alone += usize::from(interval.low > 0.0);
            opened += usize::from(interval.low > 0.0 && p <= 0.05);
        }
        let rate = opened as f64 / worlds as f64;
        assert!(rate <= 0.035, "opened in {rate} of the worlds at discordance {discordance}");
        if discordance < 0.05 {
            assert!(by_interval_alone > opened, "the second look is there for a reason");
        }
    }
}

/// Under no difference p values are uniform or larger.
#[test]
fn sign_flip_p_values_keep_their_level() {
    let worlds = 500;
    let rejected = (0..worlds)
        .filter(|&world| {
            let stream = Stream::new(world, "level");
            let differences: Vec<f64> = (0..40).map(|item| uniform(stream, item) - 0.5).collect();
            sign_flip_p(&differences, &Clusters::singletons(40), 400, world) <= 0.05
        })
        .count();
    let rate = rejected as f64 / worlds as f64;
    assert!((0.02..0.085).contains(&rate), "{rate}");
}
