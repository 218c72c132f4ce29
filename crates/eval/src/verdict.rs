//! The gate declared before training, and its three words: `ship` · `do not ship` · `not enough evidence`.
//!
//! Every criterion ends in one of the three, and the worst decides: one `do not ship` refuses, otherwise one `not enough evidence`
//! withholds. Because *all* criteria must hold for `ship`, testing each at the full level keeps the chance of a wrong
//! `ship` at that level (an intersection–union test, Berger 1982); no further adjustment for their number is needed.
//!
//! **`beats` a rival**, by the paired interval of the difference tuned − rival:
//! - whole interval above zero *and* p ≤ 1 − level → holds;
//! - whole interval below zero → do not ship;
//! - otherwise → not enough evidence.
//!
//! The p is asked for as well because a bootstrap is too sure where few items differ: with 4 items better and 0 worse its 95 %
//! interval lies above zero whatever the size of the test set, while the exact test says p = 0.125. Refusing
//! needs no such second look: it errs on the safe side. Two arms that are alike on every item have the interval [0, 0]: never `ship`.
//!
//! **A metric `at least` a threshold**, by the metric's own interval:
//! - the point estimate is below the threshold: upper bound below it as well → do not ship, otherwise → not enough evidence;
//! - the point estimate reaches it: a *quality* metric (accuracy, macro F1, field accuracy, record exact, exact match, token F1) holds only if
//!   the lower bound reaches it too, otherwise → not enough evidence; a *conformance* rate (`valid_json`, `valid_answer`) holds by its point.
//!
//! **Perplexity `at most` a bound**, by its own interval in the same way, the other way round; a rival is beaten where the paired interval
//! of the share by which tuned's perplexity is lower lies above zero.
//!
//! Conformance is decided by the point because the threshold is near 1 by nature and no affordable test set could clear it
//! otherwise: Wilson's lower bound of 200 valid answers out of 200 is 0.981, so 0.99 would take 381 faultless items. An
//! invalid answer is also seen and refused when serving, unlike a wrong one. The interval stands beside the point in the reason.

use crate::Error;
use crate::arms::{ArmResult, Difference, Trial};
use crate::score::Metric;
use crate::statistics::Interval;

/// What was declared before training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gate {
    /// Rivals to beat on the headline metric.
    pub beats: Vec<String>,
    /// Thresholds.
    pub at_least: Vec<(Metric, f64)>,
    /// Largest perplexity.
    pub perplexity_at_most: Option<f64>,
}

/// The three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every criterion holds.
    Ship,
    /// The data at hand can't decide at least one criterion, and none is refuted.
    NotEnoughEvidence,
    /// At least one criterion is refuted.
    DoNotShip,
}

impl Verdict {
    /// The exact word, the same everywhere.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ship => "ship",
            Self::NotEnoughEvidence => "not enough evidence",
            Self::DoNotShip => "do not ship",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.word())
    }
}

/// One criterion of the gate, decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Criterion {
    /// As declared: `beats few-shot`, `field_accuracy_at_least 0.8`.
    pub name: String,
    /// What this criterion alone says; [`Verdict::Ship`] means that it holds.
    pub verdict: Verdict,
    /// Why, in one sentence with the numbers.
    pub reason: String,
}

/// The verdict with all of its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The word.
    pub verdict: Verdict,
    /// Each criterion, in the order of the gate: rivals, then thresholds.
    pub criteria: Vec<Criterion>,
    /// The differences to all rivals of the gate that were measured, in the gate's order.
    pub differences: Vec<Difference>,
    /// Which of `differences` is the one to the best rival: that with the smallest estimate.
    pub best_rival: Option<usize>,
}

impl Decision {
    /// The same with further criteria, which nothing measured here decides; the worst of all counts.
    #[must_use]
    pub fn with(mut self, criteria: impl IntoIterator<Item = Criterion>) -> Self {
        self.criteria.extend(criteria);
        if let Some(worst) = self.criteria.iter().map(|criterion| criterion.verdict).max() {
            self.verdict = worst;
        }
        self
    }

    /// Tuned minus the best rival that the gate names.
    #[must_use]
    pub fn difference(&self) -> Option<&Difference> {
        self.best_rival.and_then(|best| self.differences.get(best))
    }
}

impl Gate {
    /// Refuses thresholds outside [0, 1] and metrics that the task doesn't have; for plan time.
    pub fn check(&self, task: &crate::Task) -> Result<(), Error> {
        for &(metric, threshold) in &self.at_least {
            metric.check_task(task)?;
            if !(0.0..=1.0).contains(&threshold) {
                return Err(Error::OutOfRange { what: "threshold of the gate", range: "[0, 1]", got: threshold });
            }
        }
        if let Some(bound) = self.perplexity_at_most {
            Metric::Perplexity.check_task(task)?;
            if !(1.0..=f64::MAX).contains(&bound) {
                return Err(Error::OutOfRange { what: "largest perplexity of the gate", range: "[1, ∞)", got: bound });
            }
        }
        Ok(())
    }

    /// Decides. `arms` are all measured arms; the gate's rivals are found among them by name, of several with
    /// one name that with tuned's way of answering. A rival that wasn't measured is
    /// `not enough evidence`, never silently left out; so is a gate that declares nothing.
    pub fn decide(&self, trial: &Trial, tuned: &ArmResult, arms: &[ArmResult]) -> Result<Decision, Error> {
        self.check(trial.task())?;
        let mut criteria = Vec::new();
        let mut differences: Vec<Difference> = Vec::new();
        for name in &self.beats {
            // A rival that was measured in several ways is met in the way in which tuned answered.
            let named = |arm: &&ArmResult| arm.name == *name;
            let alike = arms.iter().filter(named).find(|arm| arm.decode == tuned.decode);
            match alike.or_else(|| arms.iter().find(named)) {
                Some(rival) => {
                    let difference = trial.compare(tuned, rival)?;
                    criteria.push(beats(&difference));
                    differences.push(difference);
                }
                None => criteria.push(Criterion {
                    name: format!("beats {name}"),
                    verdict: Verdict::NotEnoughEvidence,
                    reason: format!("the arm {name} was not measured"),
                }),
            }
        }
        for &(metric, threshold) in &self.at_least {
            criteria.push(match tuned.rate(metric) {
                Some(rate) => at_least(metric, threshold, rate.value, rate.interval),
                None => Criterion {
                    name: format!("{}_at_least {threshold}", metric.name()),
                    verdict: Verdict::NotEnoughEvidence,
                    reason: format!("{} was not measured", metric.title()),
                },
            });
        }
        if let Some(bound) = self.perplexity_at_most {
            criteria.push(match tuned.rate(Metric::Perplexity) {
                Some(rate) => at_most(bound, rate.value, rate.interval),
                None => Criterion {
                    name: format!("perplexity_at_most {}", short(bound)),
                    verdict: Verdict::NotEnoughEvidence,
                    reason: "perplexity was not measured".to_owned(),
                },
            });
        }
        let verdict = criteria.iter().map(|criterion| criterion.verdict).max();
        if verdict.is_none() {
            criteria.push(Criterion {
                name: "gate".to_owned(),
                verdict: Verdict::NotEnoughEvidence,
                reason: "the gate declares no criterion, so there is nothing that could be shown".to_owned(),
            });
        }
        let best_rival = (0..differences.len()).min_by(|&left, &right| differences[left].estimate.total_cmp(&differences[right].estimate));
        Ok(Decision { verdict: verdict.unwrap_or(Verdict::NotEnoughEvidence), criteria, differences, best_rival })
    }
}

fn beats(difference: &Difference) -> Criterion {
    let Interval { low, high, level } = difference.interval;
    let alpha = 1.0 - level;
    let on = match &difference.fields {
        Some(fields) if fields.is_empty() => " on no common field".to_owned(),
        Some(fields) => format!(" on the fields it answers ({})", fields.join(", ")),
        None => String::new(),
    };
    let numbers = if difference.metric == Metric::Perplexity {
        format!(
            "perplexity {:.3} against {:.3}, {:+.1} % lower ({:+.1} to {:+.1}), p {}",
            difference.tuned,
            difference.rival,
            100.0 * difference.estimate,
            100.0 * low,
            100.0 * high,
            p_text(difference.p),
        )
    } else {
        format!(
            "{} {:.1} % against {:.1} %{on}, difference {:+.1} points ({:+.1} to {:+.1}), p {}",
            difference.metric.title(),
            100.0 * difference.tuned,
            100.0 * difference.rival,
            100.0 * difference.estimate,
            100.0 * low,
            100.0 * high,
            p_text(difference.p),
        )
    };
    let (verdict, because) = if high < 0.0 {
        (Verdict::DoNotShip, "the whole interval is below zero".to_owned())
    } else if difference.unlike == 0 {
        (Verdict::NotEnoughEvidence, format!("the two are alike on all {} items", difference.n))
    } else if low > 0.0 && difference.p <= alpha + 1e-12 {
        (Verdict::Ship, "the whole interval is above zero".to_owned())
    } else if low > 0.0 {
        (
            Verdict::NotEnoughEvidence,
            format!(
                "the interval is above zero, but only {} items differ and the {} test does not reach p ≤ {}",
                difference.unlike,
                difference.p_method,
                short(alpha)
            ),
        )
    } else {
        (Verdict::NotEnoughEvidence, "the interval contains zero".to_owned())
    };
    Criterion { name: format!("beats {}", difference.against), verdict, reason: format!("{numbers}: {because}") }
}

fn at_least(metric: Metric, threshold: f64, value: f64, interval: Interval) -> Criterion {
    let Interval { low, high, .. } = interval;
    let bar = format!("{} %", short(100.0 * threshold));
    let numbers = format!("{} {:.1} % ({:.1} to {:.1})", metric.title(), 100.0 * value, 100.0 * low, 100.0 * high);
    // A point that was computed as a mean of sixths must reach its own decimal.
    let reaches = |bound: f64| bound >= threshold - 1e-12;
    let (verdict, because) = if !reaches(value) {
        if reaches(high) {
            (Verdict::NotEnoughEvidence, format!("below {bar}, but the interval reaches it"))
        } else {
            (Verdict::DoNotShip, format!("the whole interval is below {bar}"))
        }
    } else if metric.is_conformance() {
        (Verdict::Ship, format!("reaches {bar} (a conformance rate is decided by its point)"))
    } else if reaches(low) {
        (Verdict::Ship, format!("the whole interval is at or above {bar}"))
    } else {
        (Verdict::NotEnoughEvidence, format!("reaches {bar}, but the lower bound does not"))
    };
    Criterion { name: format!("{}_at_least {}", metric.name(), short(threshold)), verdict, reason: format!("{numbers}: {because}") }
}

fn at_most(bound: f64, value: f64, interval: Interval) -> Criterion {
    let Interval { low, high, .. } = interval;
    let bar = short(bound);
    let (verdict, because) = if value > bound {
        if low > bound {
            (Verdict::DoNotShip, format!("the whole interval is above {bar}"))
        } else {
            (Verdict::NotEnoughEvidence, format!("above {bar}, but the interval reaches it"))
        }
    } else if high <= bound {
        (Verdict::Ship, format!("the whole interval is at or below {bar}"))
    } else {
        (Verdict::NotEnoughEvidence, format!("at most {bar}, but the upper bound is not"))
    };
    let reason = format!("perplexity {value:.3} ({low:.3} to {high:.3}): {because}");
    Criterion { name: format!("perplexity_at_most {bar}"), verdict, reason }
}

/// A p value as people write it.
fn p_text(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("= {p:.3}") }
}

/// A number without the noise of its binary form: 0.05, not 0.050000000000000044.
fn short(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
