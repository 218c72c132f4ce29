//! Samples, scorers, statistics, verdicts: knows no engine, only a [`Subject`].
//!
//! The way through this crate, in the order in which a report is made:
//!
//! ```text
//! Sample ─Subject::{generate, choose, log_probs}→ answers ─score→ ItemScore ─arms::Trial→ ArmResult
//! ArmResult (tuned) + ArmResult (rival) ─Trial::compare→ Difference ─verdict::decide→ Decision { ship | do not ship | not enough evidence }
//! ```
//!
//! - [`sample`]: the held-out items and what kind of task they are,
//! - [`subject`]: what is measured, behind one trait,
//! - [`score`]: one answer beside its gold: labels, JSON records, free text,
//! - [`arms`]: all answers of one contender, with tables and intervals; the paired difference of two,
//! - [`texts`]: plain texts, of which the perplexity is measured,
//! - [`verdict`]: the gate declared before training, and its three words,
//! - [`classical`]: the honest cheap rival (TF-IDF and a linear classifier) and the majority baseline,
//! - [`shots`]: examples for the few-shot rival under a token budget,
//! - [`agreement`]: how well people who labelled the same items agree,
//! - [`statistics`], [`bootstrap`], [`power`], [`folds`], [`random`], [`arithmetic`]: the tools, each usable alone.
//!
//! Everything is deterministic: randomness is counter-based with a seed given by the caller, sums run in a
//! fixed order, exp and ln are our own, no result depends on the iteration order of a hash map.
#![forbid(unsafe_code)]

pub mod agreement;
pub mod arithmetic;
pub mod arms;
pub mod bootstrap;
pub mod classical;
pub mod folds;
pub mod power;
pub mod random;
pub mod sample;
pub mod score;
pub mod shots;
pub mod statistics;
pub mod subject;
pub mod texts;
pub mod verdict;

mod error;

pub use arms::{ArmResult, Decode, Difference, Trial};
pub use error::Error;
pub use sample::{Field, Gold, Sample, Task};
pub use score::{ItemScore, Metric};
pub use statistics::Interval;
pub use subject::{Answer, AnswerLoss, Choice, Message, Prompt, Subject};
pub use verdict::{Decision, Gate, Verdict};
