//! The honest cheap rival: TF-IDF and a linear classifier, and the majority baseline.
//!
//! Much of what people fine-tune for, a word classifier does in seconds; so it is measured beside the tuned model, trained on the
//! same records, and made as good as it can cheaply be.
//!
//! - **Features**: words and pairs of words, and letter groups of 3–5 within word boundaries (scikit-learn's `char_wb` 3–5). A pair is two words at most
//!   eight apart, whatever their order, each cut to its first five letters (with 10 records
//!   per class a point better than neighbouring pairs on BANKING77, no different on CLINC150 and on all records). Each block: (1 + ln tf)·(1 + ln((1 + n)/(1 + df))), scaled to length 1.
//! - **Classifier**: multinomial logistic regression, Σ −ln p(class | text) + ‖W‖²/2C + no penalty on the biases, by stochastic gradient in a
//!   seeded order with a step falling to zero.
//! - **Choices made on the training records alone**, by stratified cross-validation that keeps groups whole: C, and whether the names of the labels count as
//!   one more example each (they stand in the language model's prompt and answers, so the rival may read them too).
//!
//! Everything is sequential and uses [`crate::arithmetic`]: the same records give the same weights on every computer.

use std::collections::{BTreeMap, HashMap};

use crate::Error;
use crate::arithmetic::{exp, ln};
use crate::folds::stratified;
use crate::random::Stream;
use crate::sample::Field;
use crate::statistics::Clusters;

/// A field with more distinct values than this is no classification; it is left out and said so.
pub const VALUES_MAX: usize = 100;
/// Fewer examples per value than this on average, and a field is left out and said so.
pub const EXAMPLES_PER_VALUE_MIN: usize = 3;
/// Weights (features × classes) at most; rarer features are dropped beyond it. 128 MiB.
pub const WEIGHTS_MAX: usize = 32 << 20;
/// Letters of one text that are read; a longer text is cut, like a model's context cuts it.
pub const TEXT_LETTERS_MAX: usize = 20_000;

/// The values of C that are tried.
const PENALTIES: [f32; 4] = [1.0, 4.0, 16.0, 64.0];
/// Records used to choose C at most; beyond that the choice no longer depends on more.
const SELECTION_MAX: usize = 2_000;

/// Words at most this far apart make a pair.
const PAIR_DISTANCE: usize = 8;
/// Pairs are made of the first letters of words, a stemmer for any language.
const STEM_LETTERS: usize = 5;

// ---- features -------------------------------------------------------------------------------------------------

/// A sparse row: (feature, value), ascending.
type Row = Vec<(u32, f32)>;

/// Words: runs of letters, digits and underscores, at least two long; single ones, and pairs of their beginnings.
fn word_terms(text: &str, mut term: impl FnMut(&str)) {
    let words: Vec<&str> = text
        .split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|word| word.chars().nth(1).is_some())
        .collect();
    for word in &words {
        term(word);
    }
    let stems: Vec<&str> = words.iter().map(|word| word.char_indices().nth(STEM_LETTERS).map_or(*word, |(end, _)| &word[..end])).collect();
    let mut pair = String::new();
    for (position, one) in stems.iter().enumerate() {
        for other in stems.iter().skip(position + 1).take(PAIR_DISTANCE) {
            let (first, second) = if one <= other { (one, other) } else { (other, one) };
            pair.clear();
            pair.push_str(first);
            pair.push(' ');
            pair.push_str(second);
            term(&pair);
        }
    }
}

/// Letter groups of 3–5 inside each whitespace-separated word with one space at both ends; a padded word shorter than
/// the group counts once as a whole.
fn letter_terms(text: &str, mut term: impl FnMut(&str)) {
    let mut padded = String::new();
    let mut starts = Vec::new();
    for word in text.split_whitespace() {
        padded.clear();
        padded.push(' ');
        padded.push_str(word);
        padded.push(' ');
        starts.clear();
        starts.extend(padded.char_indices().map(|(at, _)| at));
        starts.push(padded.len());
        let letters = starts.len() - 1;
        for size in 3..=5 {
            if letters <= size {
                term(&padded);
                break;
            }
            for start in 0..=letters - size {
                term(&padded[starts[start]..starts[start + size]]);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Words,
    Letters,
}

impl Block {
    fn terms(self, text: &str, term: impl FnMut(&str)) {
        match self {
            Self::Words => word_terms(text, term),
            Self::Letters => letter_terms(text, term),
        }
    }
}

/// Text to a sparse row of TF-IDF values.
#[derive(Debug, Clone)]
struct Features {
    blocks: Vec<(Block, HashMap<String, u32>)>,
    inverse_frequency: Vec<f32>,
}

impl Features {
    fn fit(texts: &[String], classes: usize) -> Self {
        let mut blocks = Vec::new();
        let mut inverse_frequency = Vec::new();
        let limit = (WEIGHTS_MAX / classes.max(1) / 2).max(1);
        for block in [Block::Words, Block::Letters] {
            // (documents with the term, the last of them), then sorted: the map's own order is never seen.
            let mut counts: HashMap<String, (u32, u32)> = HashMap::new();
            for (document, text) in texts.iter().enumerate() {
                let document = document as u32 + 1;
                block.terms(text, |term| {
                    if let Some((count, last)) = counts.get_mut(term) {
                        if *last != document {
                            *count += 1;
                            *last = document;
                        }
                    } else {
                        counts.insert(term.to_owned(), (1, document));
                    }
                });
            }
            let mut terms: Vec<(String, u32)> = counts.into_iter().map(|(term, (count, _))| (term, count)).collect();
            terms.sort_unstable_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
            terms.truncate(limit);
            terms.sort_unstable();
            let mut vocabulary = HashMap::with_capacity(terms.len());
            for (term, count) in terms {
                vocabulary.insert(term, inverse_frequency.len() as u32);
                let ratio = (1 + texts.len()) as f64 / (1 + u64::from(count)) as f64;
                inverse_frequency.push((1.0 + ln(ratio)) as f32);
            }
            blocks.push((block, vocabulary));
        }
        Self { blocks, inverse_frequency }
    }

    fn len(&self) -> usize {
        self.inverse_frequency.len()
    }

    fn row(&self, text: &str) -> Row {
        let mut row = Row::new();
        let mut found = Vec::new();
        for (block, vocabulary) in &self.blocks {
            found.clear();
            block.terms(text, |term| found.extend(vocabulary.get(term)));
            found.sort_unstable();
            let start = row.len();
            let mut squares = 0.0_f64;
            for equal in found.chunk_by(|left, right| left == right) {
                let frequency = 1.0 + ln(equal.len() as f64) as f32;
                let value = frequency * self.inverse_frequency[equal[0] as usize];
                squares += f64::from(value) * f64::from(value);
                row.push((equal[0], value));
            }
            let length = squares.sqrt() as f32;
            for (_, value) in &mut row[start..] {
                *value /= length;
            }
        }
        row
    }
}

/// The text as features see it: lower-cased and cut at [`TEXT_LETTERS_MAX`].
fn normalised(text: &str) -> String {
    text.chars().take(TEXT_LETTERS_MAX).collect::<String>().to_lowercase()
}

// ---- the linear classifier ------------------------------------------------------------------------------------

/// Weights of a multinomial logistic regression. `weights` has shape features × `stride`, `bias` has `stride`.
#[derive(Debug, Clone)]
struct Linear {
    weights: Vec<f32>,
    bias: Vec<f32>,
    classes: usize,
    stride: usize,
}

impl Linear {
    /// Passes over n records: 20 over few, at least 8 over many, about 40,000 steps between.
    fn passes(records: usize) -> usize {
        (40_000 / records.max(1)).clamp(8, 20)
    }

    /// Minimises Σ −ln p + ‖W‖²/2C over the records in `train`.
    ///
    /// W is kept as scale·V, so that the penalty costs one multiplication a step. The step is η₀(1 − t/T) with η₀ = 1: the loss of a row of squared
    /// length 2 has curvature at most 1 along its own direction.
    fn fit(rows: &[Row], labels: &[usize], train: &[usize], features: usize, classes: usize, c: f32, seed: u64) -> Self {
        let stride = classes.next_multiple_of(8);
        let mut weights = vec![0.0_f32; features * stride];
        let mut bias = vec![0.0_f32; stride];
        let mut scores = vec![0.0_f32; stride];
        let passes = Self::passes(train.len());
        let steps = passes * train.len();
        let penalty = 1.0 / (f64::from(c) * train.len() as f64);
        let stream = Stream::new(seed, "classical");
        let mut scale = 1.0_f64;
        let mut step = 0_usize;
        for pass in 0..passes {
            for at in stream.fork(pass as u64).permutation(train.len()) {
                let record = train[at];
                score(&mut scores, &rows[record], &weights, &bias, scale as f32, stride);
                softmax(&mut scores[..classes]);
                scores[labels[record]] -= 1.0;
                let rate = 1.0 - step as f64 / steps as f64;
                scale *= 1.0 - rate * penalty;
                let by = (-rate / scale) as f32;
                for &(feature, value) in &rows[record] {
                    let weights = &mut weights[feature as usize * stride..][..stride];
                    for (weight, gradient) in weights.iter_mut().zip(&scores) {
                        *weight += by * value * gradient;
                    }
                }
                let by = 0.1 * rate as f32;
                for (bias, gradient) in bias.iter_mut().zip(&scores) {
                    *bias -= by * gradient;
                }
                step += 1;
                if scale < 1e-6 {
                    let by = scale as f32;
                    weights.iter_mut().for_each(|weight| *weight *= by);
                    scale = 1.0;
                }
            }
        }
        let by = scale as f32;
        weights.iter_mut().for_each(|weight| *weight *= by);
        Self { weights, bias, classes, stride }
    }

    fn probabilities(&self, row: &Row) -> Vec<f32> {
        let mut scores = vec![0.0; self.stride];
        score(&mut scores, row, &self.weights, &self.bias, 1.0, self.stride);
        scores.truncate(self.classes);
        softmax(&mut scores);
        scores
    }
}

/// scores[c] = bias[c] + scale · Σ_f row[f]·weights[f, c].
fn score(scores: &mut [f32], row: &Row, weights: &[f32], bias: &[f32], scale: f32, stride: usize) {
    scores.fill(0.0);
    for &(feature, value) in row {
        let weights = &weights[feature as usize * stride..][..stride];
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score += value * weight;
        }
    }
    for (score, bias) in scores.iter_mut().zip(bias) {
        *score = *bias + scale * *score;
    }
}

fn softmax(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0_f32;
    for score in scores.iter_mut() {
        *score = exp(f64::from(*score - greatest)) as f32;
        total += *score;
    }
    for score in scores.iter_mut() {
        *score /= total;
    }
}

/// The first of the greatest.
fn greatest(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

// ---- text → label ---------------------------------------------------------------------------------------------

/// What a classifier says of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the most probable label; the first of equals.
    pub label: usize,
    /// Its probability.
    pub probability: f64,
}

/// How a classifier was made, for the report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Records it was trained on.
    pub records: usize,
    /// Labels among them.
    pub classes: usize,
    /// Features.
    pub features: usize,
    /// The chosen C.
    pub penalty: f32,
    /// Whether the names of the labels were read as examples.
    pub label_names: bool,
    /// Accuracy in cross-validation on the training records with these choices; `None` if there were too few to choose on.
    pub validated: Option<f64>,
}

/// A trained text classifier.
#[derive(Debug, Clone)]
pub struct TextClassifier {
    features: Features,
    linear: Linear,
    /// How it was made.
    pub training: Training,
}

impl TextClassifier {
    /// Trains on records: `labels[i]` is an index into `names`. Groups are kept whole in cross-validation.
    pub fn train(texts: &[&str], labels: &[usize], names: &[String], clusters: &Clusters, seed: u64) -> Result<Self, Error> {
        check_lengths(texts.len(), labels.len())?;
        check_lengths(texts.len(), clusters.items)?;
        if texts.is_empty() || names.is_empty() {
            return Err(Error::TooFew { what: "training records of the classical rival", least: 1, got: 0 });
        }
        if let Some(position) = labels.iter().position(|&label| label >= names.len()) {
            return Err(Error::ChoiceOutOfRange { id: position.to_string(), index: labels[position], labels: names.len() });
        }
        let data = Data::new(texts, labels, names);
        let (penalty, label_names, validated) = data.choose(clusters, seed);
        let train: Vec<usize> = (0..texts.len()).collect();
        let (features, linear) = data.fit(&train, penalty, label_names, seed);
        Ok(Self {
            training: Training { records: texts.len(), classes: names.len(), features: features.len(), penalty, label_names, validated },
            features,
            linear,
        })
    }

    /// Each record's probabilities of all labels, by a classifier that was trained without it and without its group: one of
    /// five, each trained on the other four fifths. Empty for a record whose fifth left nothing to train on.
    pub fn out_of_fold(texts: &[&str], labels: &[usize], names: &[String], clusters: &Clusters, seed: u64) -> Result<Vec<Vec<f32>>, Error> {
        const FOLDS: usize = 5;
        check_lengths(texts.len(), labels.len())?;
        check_lengths(texts.len(), clusters.items)?;
        if let Some(position) = labels.iter().position(|&label| label >= names.len()) {
            return Err(Error::ChoiceOutOfRange { id: position.to_string(), index: labels[position], labels: names.len() });
        }
        let data = Data::new(texts, labels, names);
        let folds = stratified(labels, clusters, FOLDS, seed);
        let mut probabilities = vec![Vec::new(); texts.len()];
        for fold in 0..FOLDS {
            let (held, train): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|&record| folds[record] == fold);
            if train.is_empty() {
                continue;
            }
            let (features, linear) = data.fit(&train, PENALTIES[1], true, seed);
            for record in held {
                probabilities[record] = linear.probabilities(&features.row(&data.texts[record]));
            }
        }
        Ok(probabilities)
    }

    /// The most probable label of a text.
    #[must_use]
    pub fn predict(&self, text: &str) -> Prediction {
        let probabilities = self.linear.probabilities(&self.features.row(&normalised(text)));
        let label = greatest(&probabilities);
        Prediction { label, probability: f64::from(probabilities[label]) }
    }
}

/// The records, followed by one record per label whose text is the label's name.
struct Data {
    texts: Vec<String>,
    labels: Vec<usize>,
    records: usize,
    classes: usize,
}

impl Data {
    fn new(texts: &[&str], labels: &[usize], names: &[String]) -> Self {
        let mut texts: Vec<String> = texts.iter().map(|text| normalised(text)).collect();
        let mut labels = labels.to_vec();
        let records = texts.len();
        for (label, name) in names.iter().enumerate() {
            let name: String = name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { ' ' }).collect();
            texts.push(normalised(&name));
            labels.push(label);
        }
        Self { texts, labels, records, classes: names.len() }
    }

    /// Fits on some of the records, with or without the label names.
    fn fit(&self, train: &[usize], penalty: f32, label_names: bool, seed: u64) -> (Features, Linear) {
        let mut train = train.to_vec();
        if label_names {
            train.extend(self.records..self.texts.len());
        }
        let texts: Vec<String> = train.iter().map(|&record| self.texts[record].clone()).collect();
        let labels: Vec<usize> = train.iter().map(|&record| self.labels[record]).collect();
        let features = Features::fit(&texts, self.classes);
        let rows: Vec<Row> = texts.iter().map(|text| features.row(text)).collect();
        let order: Vec<usize> = (0..rows.len()).collect();
        let linear = Linear::fit(&rows, &labels, &order, features.len(), self.classes, penalty, seed);
        (features, linear)
    }

    /// Chooses C and whether label names help: the greatest cross-validated accuracy, of equals the smaller loss.
    fn choose(&self, clusters: &Clusters, seed: u64) -> (f32, bool, Option<f64>) {
        let fallback = (PENALTIES[2], true, None);
        if clusters.len() < 2 * self.classes.max(5) {
            return fallback;
        }
        let k = 3;
        // Whole clusters in random order until there are enough records.
        let mut used = vec![false; self.records];
        let mut count = 0;
        for unit in Stream::new(seed, "selection").permutation(clusters.len()) {
            if count >= SELECTION_MAX {
                break;
            }
            for &record in &clusters.members[unit] {
                used[record] = true;
                count += 1;
            }
        }
        let folds = stratified(&self.labels[..self.records], clusters, k, seed);
        let evaluate = |penalty: f32, label_names: bool| {
            let (mut right, mut loss, mut total) = (0_usize, 0.0_f64, 0_usize);
            for fold in 0..k {
                let train: Vec<usize> = (0..self.records).filter(|&record| used[record] && folds[record] != fold).collect();
                let held: Vec<usize> = (0..self.records).filter(|&record| used[record] && folds[record] == fold).collect();
                if train.is_empty() {
                    continue;
                }
                let (features, linear) = self.fit(&train, penalty, label_names, seed);
                for record in held {
                    let probabilities = linear.probabilities(&features.row(&self.texts[record]));
                    right += usize::from(greatest(&probabilities) == self.labels[record]);
                    loss -= ln(f64::from(probabilities[self.labels[record]]).max(1e-12));
                    total += 1;
                }
            }
            (right as f64 / total.max(1) as f64, loss)
        };
        let better = |left: (f64, f64), right: (f64, f64)| left.0 > right.0 || (left.0 == right.0 && left.1 < right.1);
        let mut best = (PENALTIES[0], true, evaluate(PENALTIES[0], true));
        for penalty in &PENALTIES[1..] {
            let result = evaluate(*penalty, true);
            if better(result, best.2) {
                best = (*penalty, true, result);
            }
        }
        let without = evaluate(best.0, false);
        if better(without, best.2) {
            best = (best.0, false, without);
        }
        (best.0, best.1, Some(best.2.0))
    }
}

fn check_lengths(expected: usize, got: usize) -> Result<(), Error> {
    if expected == got { Ok(()) } else { Err(Error::CountDiffers { what: "training records", expected, got }) }
}

// ---- text → record --------------------------------------------------------------------------------------------

/// Why a field has no classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// More distinct values than [`VALUES_MAX`].
    TooManyValues {
        /// Distinct values in the training records.
        values: usize,
    },
    /// Fewer examples per value than [`EXAMPLES_PER_VALUE_MIN`] on average.
    TooFewExamples {
        /// Distinct values in the training records.
        values: usize,
        /// Training records.
        records: usize,
    },
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyValues { values } => write!(formatter, "{values} different values, more than {VALUES_MAX}"),
            Self::TooFewExamples { values, records } => {
                write!(formatter, "{values} different values in {records} records, fewer than {EXAMPLES_PER_VALUE_MIN} examples each")
            }
        }
    }
}

/// One field: its values and their classifier, or why there is none.
#[derive(Debug, Clone)]
enum FieldModel {
    Classifier { values: Vec<Field>, classifier: Box<TextClassifier> },
    LeftOut(LeftOut),
}

/// One classifier per field of a record; fields with too many values are left out and said so.
#[derive(Debug, Clone)]
pub struct RecordClassifier {
    fields: Vec<(String, FieldModel)>,
}

impl RecordClassifier {
    /// Trains on records: `rows[i][j]` is the value of `fields[j]` for `texts[i]`.
    pub fn train(texts: &[&str], fields: &[String], rows: &[Vec<Field>], clusters: &Clusters, seed: u64) -> Result<Self, Error> {
        check_lengths(texts.len(), rows.len())?;
        for row in rows {
            check_lengths(fields.len(), row.len())?;
        }
        let mut models = Vec::with_capacity(fields.len());
        for (column, name) in fields.iter().enumerate() {
            let (values, labels) = distinct(rows.iter().map(|row| &row[column]));
            let model = if values.len() > VALUES_MAX {
                FieldModel::LeftOut(LeftOut::TooManyValues { values: values.len() })
            } else if rows.len() < EXAMPLES_PER_VALUE_MIN * values.len() {
                FieldModel::LeftOut(LeftOut::TooFewExamples { values: values.len(), records: rows.len() })
            } else {
                let names: Vec<String> = values.iter().map(Field::label).collect();
                let classifier = Box::new(TextClassifier::train(texts, &labels, &names, clusters, seed)?);
                FieldModel::Classifier { values, classifier }
            };
            models.push((name.clone(), model));
        }
        Ok(Self { fields: models })
    }

    /// The values of a text's record, in the order of the fields; `None` for fields left out.
    #[must_use]
    pub fn predict(&self, text: &str) -> Vec<Option<Field>> {
        self.fields
            .iter()
            .map(|(_, model)| match model {
                FieldModel::Classifier { values, classifier } => Some(values[classifier.predict(text).label].clone()),
                FieldModel::LeftOut(_) => None,
            })
            .collect()
    }

    /// The fields it answers, with how their classifiers were made.
    pub fn trained(&self) -> impl Iterator<Item = (&str, Training)> {
        self.fields.iter().filter_map(|(name, model)| match model {
            FieldModel::Classifier { classifier, .. } => Some((name.as_str(), classifier.training)),
            FieldModel::LeftOut(_) => None,
        })
    }

    /// The fields it leaves out, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, LeftOut)> {
        self.fields.iter().filter_map(|(name, model)| match model {
            FieldModel::Classifier { .. } => None,
            FieldModel::LeftOut(why) => Some((name.as_str(), *why)),
        })
    }
}

/// The distinct values in order of their labels, and each record's index among them.
fn distinct<'a>(column: impl Iterator<Item = &'a Field> + Clone) -> (Vec<Field>, Vec<usize>) {
    // Kind before label: the text "7" and the number 7 are different values.
    let key = |field: &Field| (kind(field), field.label());
    let mut values: BTreeMap<(u8, String), (usize, &Field)> = BTreeMap::new();
    for field in column.clone() {
        values.entry(key(field)).or_insert((0, field));
    }
    for (index, (position, _)) in values.values_mut().enumerate() {
        *position = index;
    }
    let labels = column.map(|field| values[&key(field)].0).collect();
    (values.into_values().map(|(_, field)| field.clone()).collect(), labels)
}

fn kind(field: &Field) -> u8 {
    match field {
        Field::Null => 0,
        Field::Bool(_) => 1,
        Field::Integer(_) | Field::Number(_) => 2,
        Field::Text(_) => 3,
        Field::Nested(_) => 4,
    }
}

/// The commonest value of each field (or the commonest label, as a record of one field): what not reading the text
/// would score. Of equally common ones the first in order of value.
#[must_use]
pub fn majority(rows: &[Vec<Field>]) -> Vec<Field> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| {
            let (values, labels) = distinct(rows.iter().map(|row| &row[column]));
            let mut counts = vec![0_usize; values.len()];
            for label in labels {
                counts[label] += 1;
            }
            let best = (0..counts.len()).rev().max_by_key(|&value| counts[value]).unwrap_or(0);
            values[best].clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(block: Block, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        block.terms(text, |term| terms.push(term.to_owned()));
        terms
    }

    #[test]
    fn words_and_pairs_of_their_beginnings() {
        assert_eq!(terms(Block::Words, "My, a delivery"), ["My", "delivery", "My deliv"]);
        let mut pairs = terms(Block::Words, "card lost card");
        pairs.sort();
        assert_eq!(pairs, ["card", "card", "card card", "card lost", "card lost", "lost"]);
        let far = terms(Block::Words, "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9");
        assert!(far.contains(&"w0 w8".to_owned()) && !far.contains(&"w0 w9".to_owned()));
    }

    /// scikit-learn 1.9.1: CountVectorizer(analyzer="char_wb", ngram_range=(3, 5)).
    #[test]
    fn letter_groups_are_those_of_scikit_learn() {
        assert_eq!(terms(Block::Letters, "go ab"), [" go", "go ", " go ", " ab", "ab ", " ab "]);
        assert_eq!(terms(Block::Letters, "a"), [" a "]);
        assert_eq!(terms(Block::Letters, "übel"), [" üb", "übe", "bel", "el ", " übe", "übel", "bel ", " übel", "übel "]);
        assert!(terms(Block::Letters, "").is_empty());
    }

    const TEXTS: [&str; 4] = ["where is my parcel", "my parcel is late", "i want my money back", "refund my money please"];

    fn corpus() -> (Vec<String>, Vec<usize>) {
        let mut texts = Vec::new();
        let mut labels = Vec::new();
        for copy in 0..12 {
            for (index, text) in TEXTS.iter().enumerate() {
                texts.push(format!("{text} {}", ["today", "again", "now", "hello"][copy % 4]));
                labels.push(index / 2);
            }
        }
        (texts, labels)
    }

    #[test]
    fn learns_and_is_the_same_each_time() {
        let (texts, labels) = corpus();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let names = ["delivery".to_owned(), "refund".to_owned()];
        let train = || TextClassifier::train(&texts, &labels, &names, &Clusters::singletons(texts.len()), 5).unwrap();
        let classifier = train();
        assert_eq!(classifier.predict("the parcel did not come").label, 0);
        assert_eq!(classifier.predict("give the money back").label, 1);
        assert!(classifier.predict("my parcel is late now").probability > 0.8);
        assert_eq!(classifier.training.validated, Some(1.0));
        assert_eq!(train().predict("parcel money"), classifier.predict("parcel money"));
        // Nothing known: the biases decide, evenly here.
        let unknown = classifier.predict("zzz");
        assert!((unknown.probability - 0.5).abs() < 0.2);
    }

    #[test]
    fn label_names_help_where_records_are_few() {
        let texts = ["it never arrived", "send it back to me", "wrong size", "does not fit"];
        let names = ["delivery".to_owned(), "exchange".to_owned()];
        let classifier = TextClassifier::train(&texts, &[0, 0, 1, 1], &names, &Clusters::singletons(4), 5).unwrap();
        assert!(classifier.training.label_names);
        assert_eq!(classifier.predict("exchange please").label, 1);
        assert_eq!(classifier.predict("delivery?").label, 0);
    }

    #[test]
    fn one_classifier_per_field_and_the_rest_is_said() {
        let (texts, labels) = corpus();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let fields = ["intent", "order", "language"].map(str::to_owned);
        let rows: Vec<Vec<Field>> = labels
            .iter()
            .enumerate()
            .map(|(record, &label)| {
                vec![Field::Text(["delivery", "refund"][label].to_owned()), Field::Integer(record as i128), Field::Text("en".to_owned())]
            })
            .collect();
        let clusters = Clusters::singletons(texts.len());
        let classifier = RecordClassifier::train(&texts, &fields, &rows, &clusters, 5).unwrap();
        assert_eq!(
            classifier.predict("where is the parcel"),
            [Some(Field::Text("delivery".to_owned())), None, Some(Field::Text("en".to_owned()))]
        );
        let left_out: Vec<_> = classifier.left_out().collect();
        assert_eq!(left_out, [("order", LeftOut::TooFewExamples { values: 48, records: 48 })]);
        assert_eq!(left_out[0].1.to_string(), "48 different values in 48 records, fewer than 3 examples each");
        assert_eq!(classifier.trained().count(), 2);
    }

    #[test]
    fn majority_does_not_read() {
        let row = |text: &str, order| vec![Field::Text(text.to_owned()), order];
        let rows = [row("a", Field::Null), row("b", Field::Integer(7)), row("b", Field::Null)];
        assert_eq!(majority(&rows), row("b", Field::Null));
        assert!(majority(&[]).is_empty());
    }

    #[test]
    fn bad_input_is_refused() {
        let clusters = Clusters::singletons(1);
        let names = ["a".to_owned()];
        assert!(matches!(TextClassifier::train(&[], &[], &names, &Clusters::singletons(0), 1), Err(Error::TooFew { .. })));
        assert!(matches!(TextClassifier::train(&["x"], &[], &names, &clusters, 1), Err(Error::CountDiffers { .. })));
        assert!(matches!(TextClassifier::train(&["x"], &[1], &names, &clusters, 1), Err(Error::ChoiceOutOfRange { .. })));
        // One class, one record, empty text: still an answer.
        let alone = TextClassifier::train(&[""], &[0], &names, &clusters, 1).unwrap();
        assert_eq!(alone.predict("anything"), Prediction { label: 0, probability: 1.0 });
    }
}
