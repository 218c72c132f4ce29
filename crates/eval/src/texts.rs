//! Plain texts: nothing is asked, and nothing is answered. What is measured is how likely each held-out text is to a model.
//!
//! The perplexity of a set is exp(−Σ ln p / Σ tokens) over all of its texts, so that a long text counts as much as its tokens.
//! Two arms are compared on the same texts: the share by which the one's perplexity is lower, 1 − exp(−Δ) with Δ the
//! difference of their mean losses in nats per token. Whole clusters (documents) are resampled, because the pieces of one document
//! are alike. Perplexities of different tokenizers are not comparable, and arms whose token counts differ are refused.

use crate::Error;
use crate::arithmetic::{exp, sum};
use crate::arms::{ArmResult, Decode, Difference, Rate, Tables, Trial};
use crate::bootstrap::bca;
use crate::sample::Task;
use crate::score::{ItemScore, Metric};
use crate::statistics::{Interval, sign_flip_p};
use crate::subject::AnswerLoss;

impl Trial {
    /// An arm from the losses of its texts, in the order of the samples.
    ///
    /// # Errors
    /// Another kind of task; another number of losses; no token at all.
    pub fn from_losses(&self, name: &str, losses: Vec<AnswerLoss>) -> Result<ArmResult, Error> {
        if *self.task() != Task::Text {
            return Err(Error::TaskDiffers { what: "perplexity", expected: Task::Text.name(), got: self.task().name() });
        }
        self.check_count("losses", losses.len())?;
        let loss = self.loss(&losses)?.ok_or(Error::TooFew { what: "tokens of held-out texts", least: 1, got: 0 })?;
        let level = self.settings().level;
        // One document alone does not vary: its value is all that is known.
        let nats = loss.interval.unwrap_or(Interval { low: loss.nats_per_token, high: loss.nats_per_token, level });
        let interval = Interval { low: exp(nats.low), high: exp(nats.high), level };
        let items: Vec<ItemScore> = self.samples().iter().map(|sample| ItemScore::unknown(&sample.id, "")).collect();
        let n = items.len();
        Ok(ArmResult {
            name: name.to_owned(),
            decode: Decode::Likelihood,
            metric: Metric::Perplexity,
            score: loss.perplexity,
            interval,
            n,
            rates: vec![Rate { metric: Metric::Perplexity, value: loss.perplexity, interval, n }],
            loss: Some(loss),
            tables: Tables::FreeText,
            invalid: Vec::new(),
            items,
            losses,
        })
    }

    /// By what share tuned's perplexity is lower than the rival's, on the same texts.
    pub(crate) fn compare_perplexity(&self, tuned: &ArmResult, rival: &ArmResult) -> Result<Difference, Error> {
        self.check_paired(tuned, rival)?;
        self.check_count("losses", tuned.losses.len())?;
        self.check_count("losses", rival.losses.len())?;
        for (sample, (left, right)) in self.samples().iter().zip(tuned.losses.iter().zip(&rival.losses)) {
            if left.tokens != right.tokens {
                return Err(Error::TokensDiffer { id: sample.id.clone(), left: left.tokens, right: right.tokens });
            }
        }
        let gained: Vec<f64> = tuned.losses.iter().zip(&rival.losses).map(|(left, right)| left.log_prob - right.log_prob).collect();
        let tokens: Vec<f64> = tuned.losses.iter().map(|loss| loss.tokens as f64).collect();
        let (gains, counts) = (self.clusters().totals(&gained), self.clusters().totals(&tokens));
        let lower = |times: &dyn Fn(usize) -> f64| {
            let gained = sum(gains.iter().enumerate().map(|(unit, gain)| times(unit) * gain));
            let tokens = sum(counts.iter().enumerate().map(|(unit, count)| times(unit) * count));
            if tokens > 0.0 { 1.0 - exp(-gained / tokens) } else { 0.0 }
        };
        let estimate = lower(&|_| 1.0);
        let interval = bca(self.clusters().len(), self.settings(), |times| lower(&|unit| f64::from(times[unit])))?;
        let level = self.settings().level;
        let alike = gained.iter().all(|gain| *gain == 0.0);
        // One document, or several that gain alike, say nothing about other documents: the interval is all there is.
        let unknown = if alike { Interval { low: 0.0, high: 0.0, level } } else { Interval { low: -1.0, high: 1.0, level } };
        Ok(Difference {
            against: rival.name.clone(),
            metric: Metric::Perplexity,
            fields: None,
            estimate,
            interval: interval.unwrap_or(unknown),
            p: sign_flip_p(&gained, self.clusters(), self.settings().resamples, self.settings().seed),
            p_method: "sign-flip permutation",
            mcnemar: None,
            n: gained.len(),
            clusters: self.clusters().len(),
            tuned: tuned.score,
            rival: rival.score,
            unlike: gained.iter().filter(|gain| **gain != 0.0).count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Resampling;
    use crate::sample::{Gold, Sample};
    use crate::verdict::{Gate, Verdict};

    fn trial(texts: usize, pieces: usize) -> Trial {
        let sample = |index: usize| Sample {
            id: index.to_string(),
            messages: Vec::new(),
            answer: "a text".into(),
            stratum: None,
            group: Some((index / pieces).to_string()),
            gold: Gold::Label("a text".into()),
        };
        Trial::new(Task::Text, Metric::Perplexity, (0..texts).map(sample).collect(), Resampling::standard(1)).expect("a trial")
    }

    /// Losses of 10 tokens each, `nats` a token and a little more or less from text to text.
    fn arm(trial: &Trial, name: &str, nats: f64) -> ArmResult {
        let loss = |index: usize| AnswerLoss { log_prob: -10.0 * nats - (index % 7) as f64 * 0.3 * nats, tokens: 10 };
        trial.from_losses(name, (0..trial.samples().len()).map(loss).collect()).expect("an arm")
    }

    #[test]
    fn perplexity_is_of_tokens_and_not_of_texts() {
        let trial = trial(2, 1);
        let losses = vec![AnswerLoss { log_prob: -30.0, tokens: 10 }, AnswerLoss { log_prob: -30.0, tokens: 30 }];
        let arm = trial.from_losses("base", losses).expect("an arm");
        assert!((arm.score - 1.5f64.exp()).abs() < 1e-9, "{}", arm.score);
        assert!(arm.interval.low <= arm.score && arm.score <= arm.interval.high, "{:?}", arm.interval);
    }

    #[test]
    fn a_lower_perplexity_beats_and_a_higher_one_is_refused() {
        let trial = trial(40, 2);
        let (base, better) = (arm(&trial, "base", 3.0), arm(&trial, "tuned", 2.7));
        let difference = trial.compare(&better, &base).expect("a difference");
        assert!((difference.estimate - (1.0 - better.score / base.score)).abs() < 1e-9, "{difference:?}");
        assert!(difference.interval.low > 0.0 && difference.interval.high < 1.0, "{difference:?}");
        assert_eq!(difference.clusters, 20, "a document is one unit");
        let gate = Gate { beats: vec!["base".into()], at_least: Vec::new(), perplexity_at_most: Some(1000.0) };
        let decided =
            |tuned: &ArmResult, rival: &ArmResult| gate.decide(&trial, tuned, std::slice::from_ref(rival)).expect("a decision").verdict;
        assert_eq!(decided(&better, &base), Verdict::Ship);
        let (worse, rival) = (arm(&trial, "tuned", 3.0), arm(&trial, "base", 2.7));
        assert_eq!(decided(&worse, &rival), Verdict::DoNotShip);
        let alike = (arm(&trial, "tuned", 3.0), arm(&trial, "base", 3.0));
        assert_eq!(decided(&alike.0, &alike.1), Verdict::NotEnoughEvidence);
        let strict = Gate { perplexity_at_most: Some(5.0), ..Gate::default() };
        assert_eq!(strict.decide(&trial, &better, &[]).expect("a decision").verdict, Verdict::DoNotShip);
    }

    #[test]
    fn one_document_proves_nothing_and_other_tokens_are_refused() {
        let trial = trial(4, 4);
        let (base, tuned) = (arm(&trial, "base", 3.0), arm(&trial, "tuned", 2.0));
        let gate = Gate { beats: vec!["base".into()], ..Gate::default() };
        assert_eq!(gate.decide(&trial, &tuned, &[base]).expect("a decision").verdict, Verdict::NotEnoughEvidence);
        let other = trial.from_losses("base", vec![AnswerLoss { log_prob: -30.0, tokens: 11 }; 4]).expect("an arm");
        assert!(matches!(trial.compare(&tuned, &other), Err(Error::TokensDiffer { left: 10, right: 11, .. })));
    }
}
