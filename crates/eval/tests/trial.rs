//! The way from answers to a verdict, with a mock subject.

use std::collections::BTreeMap;

use eval::arms::Tables;
use eval::bootstrap::Resampling;
use eval::score::Invalid;
use eval::{
    Answer, AnswerLoss, ArmResult, Choice, Decode, Error, Field, Gate, Gold, Message, Metric, Prompt, Sample, Subject, Task, Trial, Verdict,
};

/// Answers from a table; every gold answer costs one nat a token.
struct Table {
    answers: BTreeMap<String, String>,
}

impl Subject for Table {
    type Error = Error;

    fn generate(&mut self, prompts: &[Prompt]) -> Result<Vec<Answer>, Error> {
        Ok(prompts
            .iter()
            .map(|prompt| Answer { text: self.answers.get(&prompt.id).cloned().unwrap_or_default(), finished: true, log_prob: Some(-0.5) })
            .collect())
    }

    fn choose(&mut self, prompts: &[Prompt], labels: &[String]) -> Result<Vec<Choice>, Error> {
        Ok(prompts
            .iter()
            .map(|prompt| {
                let index = labels.iter().position(|label| self.answers.get(&prompt.id) == Some(label)).unwrap_or(0);
                let other = (0.2 / (labels.len() - 1) as f64).ln();
                let log_probs = (0..labels.len()).map(|label| if label == index { 0.8_f64.ln() } else { other });
                Choice { index, log_probs: log_probs.collect() }
            })
            .collect())
    }

    fn log_probs(&mut self, prompts: &[Prompt], golds: &[String]) -> Result<Vec<AnswerLoss>, Error> {
        assert_eq!(prompts.len(), golds.len());
        Ok(golds.iter().map(|gold| AnswerLoss { log_prob: -(gold.len() as f64), tokens: gold.len() as u64 }).collect())
    }
}

const LABELS: [&str; 3] = ["lost card", "refund", "delivery"];

fn settings() -> Resampling {
    Resampling { resamples: 2_000, ..Resampling::standard(11) }
}

fn label_trial(n: usize, metric: Metric) -> Trial {
    let samples = (0..n)
        .map(|item| Sample {
            id: format!("t-{item}"),
            messages: vec![Message::new("user", format!("message {item}"))],
            answer: LABELS[item % 3].to_owned(),
            stratum: None,
            group: None,
            gold: Gold::Label(LABELS[item % 3].to_owned()),
        })
        .collect();
    let task = Task::Classification { labels: LABELS.map(str::to_owned).to_vec() };
    Trial::new(task, metric, samples, settings()).unwrap()
}

/// Right on every item but those that `wrong` picks.
fn labels(trial: &Trial, wrong: impl Fn(usize) -> bool) -> Table {
    let answers = (0..trial.samples().len()).map(|item| {
        let label = if wrong(item) { LABELS[(item + 1) % 3] } else { LABELS[item % 3] };
        (format!("t-{item}"), label.to_owned())
    });
    Table { answers: answers.collect() }
}

fn free(trial: &Trial, name: &str, wrong: impl Fn(usize) -> bool) -> ArmResult {
    let (prompts, mut subject) = (trial.prompts(), labels(trial, wrong));
    let losses = trial.gold_losses(&mut subject, &prompts).unwrap();
    trial.free(&mut subject, name, &prompts, Some(losses)).unwrap()
}

#[test]
fn tables_of_a_classification() {
    let trial = label_trial(60, Metric::Accuracy);
    let mut subject = labels(&trial, |item| item % 3 == 0 && item < 30);
    subject.answers.insert("t-59".to_owned(), "no idea".to_owned());
    let losses = trial.gold_losses(&mut subject, &trial.prompts()).unwrap();
    let arm = trial.free(&mut subject, "tuned", &trial.prompts(), Some(losses)).unwrap();
    assert_eq!((arm.n, arm.decode), (60, Decode::Free));
    assert!((arm.score - 49.0 / 60.0).abs() < 1e-12);
    assert_eq!(arm.invalid, [(Invalid::NotALabel, 1)]);
    assert!((arm.rate(Metric::ValidAnswer).unwrap().value - 59.0 / 60.0).abs() < 1e-12);
    let Tables::Classification { classes, confusion } = &arm.tables else { panic!("{:?}", arm.tables) };
    assert_eq!(confusion, &[vec![10, 10, 0, 0], vec![0, 20, 0, 0], vec![0, 0, 19, 1]]);
    assert_eq!((classes[1].precision, classes[1].recall, classes[1].n), (20.0 / 30.0, 1.0, 20));
    let f1 = (2.0 * 10.0 / 30.0 + 2.0 * 20.0 / 50.0 + 2.0 * 19.0 / 39.0) / 3.0;
    let macro_f1 = arm.rate(Metric::MacroF1).unwrap();
    assert!((macro_f1.value - f1).abs() < 1e-12);
    assert!(macro_f1.interval.low < f1 && f1 < macro_f1.interval.high);
    let loss = arm.loss.unwrap();
    assert!((loss.nats_per_token - 1.0).abs() < 1e-12 && loss.interval.is_none());
    assert!((loss.perplexity - 1.0_f64.exp()).abs() < 1e-12);

    let chosen = trial.choose(&mut subject, "tuned", &trial.prompts(), None).unwrap();
    assert_eq!((chosen.decode, chosen.invalid.len()), (Decode::Choose, 0));
    assert!((chosen.items[0].probability.unwrap() - 0.8).abs() < 1e-12);
}

/// scikit-learn 1.9.1 on the same labels: f1_score(average="macro") and precision_recall_fscore_support.
#[test]
fn macro_f1_is_that_of_scikit_learn() {
    let trial = label_trial(30, Metric::MacroF1);
    let answers = (0..30).map(|item| {
        let label = if item % 4 == 0 { item % 3 } else { (item * item + 1) % 3 };
        (format!("t-{item}"), LABELS[label].to_owned())
    });
    let arm = trial.imported("x", &answers.collect()).unwrap();
    assert!((arm.score - 0.500_759_734_093_067_4).abs() < 1e-12);
    let Tables::Classification { classes, .. } = &arm.tables else { panic!("{:?}", arm.tables) };
    assert!((classes[2].precision - 0.588_235_29).abs() < 1e-8 && (classes[0].f1 - 0.461_538_46).abs() < 1e-8);
}

#[test]
fn a_clear_difference_ships_and_its_reverse_does_not() {
    let trial = label_trial(200, Metric::Accuracy);
    let tuned = free(&trial, "tuned", |item| item % 10 == 0);
    let rival = free(&trial, "few-shot", |item| item % 3 == 0);
    let gate = Gate {
        beats: vec!["few-shot".to_owned()],
        at_least: vec![(Metric::Accuracy, 0.8), (Metric::ValidAnswer, 0.99)],
        perplexity_at_most: None,
    };
    let decision = gate.decide(&trial, &tuned, std::slice::from_ref(&rival)).unwrap();
    assert_eq!(decision.verdict, Verdict::Ship, "{:#?}", decision.criteria);
    assert_eq!(decision.criteria[0].name, "beats few-shot");
    let difference = decision.difference().unwrap();
    assert!((difference.estimate - 47.0 / 200.0).abs() < 1e-12);
    assert_eq!(difference.p_method, "exact McNemar");
    let mcnemar = difference.mcnemar.unwrap();
    assert_eq!((mcnemar.only_first, mcnemar.only_second), (60, 13));

    let reverse = gate.decide(&trial, &rival, &[ArmResult { name: "few-shot".to_owned(), ..tuned }]).unwrap();
    assert_eq!(reverse.verdict, Verdict::DoNotShip);
    assert!(reverse.criteria[0].reason.ends_with("the whole interval is below zero"), "{}", reverse.criteria[0].reason);
    assert!(reverse.criteria[1].reason.ends_with("the whole interval is below 80 %"), "{}", reverse.criteria[1].reason);
}

#[test]
fn base_against_base_never_ships() {
    for metric in [Metric::Accuracy, Metric::MacroF1] {
        let trial = label_trial(150, metric);
        let base = free(&trial, "base", |item| item % 4 == 0);
        let gate = Gate { beats: vec!["base".to_owned()], at_least: vec![(Metric::ValidAnswer, 0.99)], perplexity_at_most: None };
        let decision = gate.decide(&trial, &base, std::slice::from_ref(&base)).unwrap();
        assert_eq!(decision.verdict, Verdict::NotEnoughEvidence);
        let difference = decision.difference().unwrap();
        assert_eq!((difference.estimate, difference.interval.low, difference.interval.high), (0.0, 0.0, 0.0));
        assert!((difference.p - 1.0).abs() < 1e-12);
        assert!(decision.criteria[0].reason.contains("alike on all 150 items"));
    }
}

#[test]
fn rivals_are_met_in_tuneds_way_of_answering() {
    let trial = label_trial(90, Metric::Accuracy);
    let prompts = trial.prompts();
    let tuned = trial.choose(&mut labels(&trial, |_| false), "tuned", &prompts, None).unwrap();
    let weak = free(&trial, "base", |item| item % 2 == 0);
    let strong = trial.choose(&mut labels(&trial, |_| false), "base", &prompts, None).unwrap();
    let gate = Gate { beats: vec!["base".to_owned()], at_least: Vec::new(), perplexity_at_most: None };
    let decision = gate.decide(&trial, &tuned, &[weak, strong]).unwrap();
    assert_eq!(decision.verdict, Verdict::NotEnoughEvidence);
}

/// Four items better, none worse: a bootstrap interval above zero, but an exact p of 0.125.
#[test]
fn few_differing_items_are_not_evidence() {
    let trial = label_trial(300, Metric::Accuracy);
    let tuned = free(&trial, "tuned", |item| item < 20);
    let rival = free(&trial, "few-shot", |item| item < 24);
    let gate = Gate { beats: vec!["few-shot".to_owned()], at_least: Vec::new(), perplexity_at_most: None };
    let decision = gate.decide(&trial, &tuned, &[rival]).unwrap();
    assert_eq!(decision.verdict, Verdict::NotEnoughEvidence);
    assert!(decision.difference().unwrap().interval.low > 0.0);
    assert!(decision.criteria[0].reason.contains("only 4 items differ"), "{}", decision.criteria[0].reason);
}

#[test]
fn thresholds_by_interval_and_conformance_by_point() {
    let trial = label_trial(200, Metric::Accuracy);
    let arm = free(&trial, "tuned", |item| item % 10 == 0);
    let decide = |at_least| {
        let gate = Gate { beats: Vec::new(), at_least: vec![at_least], perplexity_at_most: None };
        gate.decide(&trial, &arm, &[]).unwrap().verdict
    };
    // 0.900 [0.851, 0.934]
    assert_eq!(decide((Metric::Accuracy, 0.85)), Verdict::Ship);
    assert_eq!(decide((Metric::Accuracy, 0.88)), Verdict::NotEnoughEvidence);
    assert_eq!(decide((Metric::Accuracy, 0.92)), Verdict::NotEnoughEvidence);
    assert_eq!(decide((Metric::Accuracy, 0.95)), Verdict::DoNotShip);
    assert_eq!(decide((Metric::ValidAnswer, 0.99)), Verdict::Ship);
    let gate = Gate { beats: vec!["classical".to_owned()], at_least: Vec::new(), perplexity_at_most: None };
    assert_eq!(gate.decide(&trial, &arm, &[]).unwrap().verdict, Verdict::NotEnoughEvidence);
    assert_eq!(Gate::default().decide(&trial, &arm, &[]).unwrap().verdict, Verdict::NotEnoughEvidence);
    assert!(
        Gate { beats: Vec::new(), at_least: vec![(Metric::ValidJson, 0.9)], perplexity_at_most: None }.decide(&trial, &arm, &[]).is_err()
    );
    assert!(
        Gate { beats: Vec::new(), at_least: vec![(Metric::Accuracy, 90.0)], perplexity_at_most: None }.decide(&trial, &arm, &[]).is_err()
    );
}

fn record_trial(n: usize) -> Trial {
    let samples = (0..n)
        .map(|item| Sample {
            id: format!("t-{item}"),
            messages: vec![Message::new("user", "x")],
            answer: record(item, true),
            stratum: Some(LABELS[item % 3].to_owned()),
            group: Some(format!("customer-{}", item / 2)),
            gold: Gold::Fields(vec![
                ("intent".to_owned(), Field::Text(LABELS[item % 3].to_owned())),
                ("order".to_owned(), Field::Integer(item as i128)),
            ]),
        })
        .collect();
    let task = Task::Structured { fields: vec!["intent".to_owned(), "order".to_owned()] };
    Trial::new(task, Metric::FieldAccuracy, samples, settings()).unwrap()
}

fn record(item: usize, order: bool) -> String {
    let number = if order { item } else { item + 1 };
    format!(r#"{{"intent": "{}", "order": {number}}}"#, LABELS[item % 3])
}

fn records(trial: &Trial, name: &str, answer: impl Fn(usize) -> String) -> ArmResult {
    let answers = (0..trial.samples().len()).map(|item| (format!("t-{item}"), answer(item))).collect();
    trial.imported(name, &answers).unwrap()
}

#[test]
fn records_with_a_partial_rival() {
    let trial = record_trial(120);
    let tuned = records(&trial, "tuned", |item| if item == 7 { "{".to_owned() } else { record(item, item % 4 != 0) });
    // 30 wrong orders and one answer that is no JSON.
    assert!((tuned.score - (120.0 - 15.0 - 1.0) / 120.0).abs() < 1e-12);
    assert!((tuned.rate(Metric::RecordExact).unwrap().value - 89.0 / 120.0).abs() < 1e-12);
    assert!((tuned.rate(Metric::ValidJson).unwrap().value - 119.0 / 120.0).abs() < 1e-12);
    let Tables::Structured { fields } = &tuned.tables else { panic!("{:?}", tuned.tables) };
    assert!((fields[1].rate.unwrap().0 - 89.0 / 120.0).abs() < 1e-12);

    let rows: Vec<Vec<Option<Field>>> = (0..120)
        .map(|item| {
            let label = if item % 3 == 1 { LABELS[0] } else { LABELS[item % 3] };
            vec![Some(Field::Text(label.to_owned())), None]
        })
        .collect();
    let classical = trial.from_fields("classical", &rows).unwrap();
    assert!(classical.is_partial() && classical.rate(Metric::RecordExact).is_none());
    assert_eq!(classical.items[0].answer, r#"{"intent":"lost card"}"#);
    let difference = trial.compare(&tuned, &classical).unwrap();
    assert_eq!(difference.fields.as_deref(), Some(&["intent".to_owned()][..]));
    assert!((difference.estimate - 39.0 / 120.0).abs() < 1e-12);
    assert_eq!((difference.clusters, difference.p_method), (60, "sign-flip permutation"));
    assert!(difference.mcnemar.is_some() && difference.interval.low > 0.0);
    assert_eq!(trial.compare_fields(&tuned, &classical).unwrap().len(), 1);

    let gate = Gate { beats: vec!["classical".to_owned()], at_least: vec![(Metric::ValidJson, 0.99)], perplexity_at_most: None };
    let decision = gate.decide(&trial, &tuned, &[classical]).unwrap();
    assert_eq!(decision.verdict, Verdict::Ship);
    assert!(decision.criteria[0].reason.contains("on the fields it answers (intent)"));
}

#[test]
fn missing_answers_of_an_incumbent_are_wrong_and_counted() {
    let trial = record_trial(10);
    let answers = (0..8).map(|item| (format!("t-{item}"), record(item, true))).collect();
    let arm = trial.imported("incumbent", &answers).unwrap();
    assert!((arm.score - 0.8).abs() < 1e-12);
    assert_eq!(arm.invalid, [(Invalid::NotAnswered, 2)]);
}

#[test]
fn wrong_shapes_are_refused() {
    let trial = label_trial(6, Metric::Accuracy);
    let other = label_trial(5, Metric::Accuracy);
    let (tuned, rival) = (free(&trial, "tuned", |_| false), free(&other, "base", |_| false));
    assert!(matches!(trial.compare(&tuned, &rival), Err(Error::ItemsDiffer { position: 5, .. })));
    assert!(matches!(trial.from_answers("x", Decode::Free, &[], None), Err(Error::CountDiffers { got: 0, .. })));
    let mut samples = trial.samples().to_vec();
    samples[3].id = "t-1".to_owned();
    assert!(matches!(
        Trial::new(trial.task().clone(), Metric::Accuracy, samples, settings()),
        Err(Error::RepeatedId { first: 1, second: 3, .. })
    ));
    assert!(matches!(
        Trial::new(Task::FreeText, Metric::Accuracy, trial.samples().to_vec(), settings()),
        Err(Error::MetricNotForTask { .. })
    ));
    let records = record_trial(4);
    assert!(matches!(records.choose(&mut labels(&trial, |_| false), "x", &records.prompts(), None), Err(Error::TaskDiffers { .. })));
}

#[test]
fn everything_is_the_same_twice() {
    let trial = record_trial(60);
    let arm = |name| records(&trial, name, |item| record(item, item % 5 != 0));
    assert_eq!(arm("a"), arm("a"));
    let rival = records(&trial, "b", |item| record(item, item % 2 != 0));
    assert_eq!(trial.compare(&arm("a"), &rival), trial.compare(&arm("a"), &rival));
}
