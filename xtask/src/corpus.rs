//! `cargo xtask corpus`: a made-up corpus of any size, the same bytes for the same seed, to measure preparation with.
//!
//! Customer messages of 20 to 400 words over a made-up vocabulary with the frequencies of a language (Zipf), each with a
//! label, a customer, and a number. One row in 20 is an exact copy of an earlier one, one in 20 a copy with a few words
//! changed, one in 100 is empty, one in 200 has a secret in it. A run file that asks for every step stands beside it.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::PathBuf;

/// Words of the vocabulary.
const VOCABULARY: usize = 20_000;
/// Earlier texts that copies are made of.
const RECENT: usize = 5_000;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A rank with probability about 1/(rank + 1).
    fn rank(&mut self, n: usize) -> usize {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (((n as f64 + 1.0).powf(unit)) as usize).clamp(1, n) - 1
    }
}

fn vocabulary(random: &mut Random) -> Vec<String> {
    const SYLLABLES: [&str; 24] = [
        "an", "be", "co", "der", "el", "fin", "ga", "hol", "in", "jo", "ket", "la", "mor", "na", "or", "per", "qui", "ra", "ser", "ti",
        "ul", "ver", "wo", "zen",
    ];
    (0..VOCABULARY).map(|rank| (0..1 + rank.min(4) / 2 + random.below(3)).map(|_| SYLLABLES[random.below(24)]).collect()).collect()
}

/// Writes corpus.jsonl and tunesmith.toml.
pub(crate) fn corpus(arguments: &[String]) -> Result<()> {
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, default: Option<u64>| -> Result<u64> {
        match (value(name), default) {
            (Some(text), _) => text.parse().with_context(|| format!("{name} {text}: not a number")),
            (None, Some(default)) => Ok(default),
            (None, None) => bail!("{name} is missing; usage: cargo xtask corpus --megabytes N --out FOLDER [--seed 1]"),
        }
    };
    let bytes = number("--megabytes", None)? * 1_000_000;
    let folder = PathBuf::from(value("--out").context("--out FOLDER is missing")?);
    let random = &mut Random(number("--seed", Some(1))?);
    let words = vocabulary(random);
    std::fs::create_dir_all(&folder)?;
    let file = std::fs::File::create(folder.join("corpus.jsonl"))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let (mut written, mut row) = (0, 0u64);
    let mut recent: Vec<(Vec<usize>, usize)> = Vec::new();
    while written < bytes {
        let kind = random.below(200);
        let (mut text, label) = match kind {
            0..=19 if !recent.is_empty() => recent[random.below(recent.len())].clone(),
            _ => ((0..20 + random.below(380)).map(|_| random.rank(VOCABULARY)).collect(), random.below(12)),
        };
        if (10..20).contains(&kind) {
            for _ in 0..1 + text.len() / 40 {
                let at = random.below(text.len());
                text[at] = random.rank(VOCABULARY);
            }
        }
        let mut message = String::new();
        for (i, word) in text.iter().enumerate() {
            message.push_str(if i == 0 {
                ""
            } else if i % 14 == 0 {
                ". "
            } else {
                " "
            });
            message.push_str(&words[*word]);
        }
        match kind {
            20 | 21 => message.clear(),
            22 => message.push_str(" password: geheim1234"),
            _ => {}
        }
        let line =
            serde_json::json!({ "id": row, "message": message, "label": format!("topic {label}"), "customer": random.below(200_000) });
        let line = format!("{line}\n");
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
        row += 1;
        if recent.len() < RECENT {
            recent.push((text, label));
        } else {
            let at = random.below(RECENT);
            recent[at] = (text, label);
        }
    }
    file.flush()?;
    let run_file = r#"[project]
name = "corpus"
goal = "measure preparation"
[model]
base = "smollm2-135m-instruct"
[data]
instruction = "Name the topic."
[[data.source]]
path = "corpus.jsonl"
input = "message"
target = "label"
group = "customer"
id = "id"
[prepare]
near_duplicates = "drop"
normalise = true
languages = "any"
quality = "report"
incomplete = "report"
secrets = "mask"
split = { test = 0.1, validation = 0.05 }
"#;
    std::fs::write(folder.join("tunesmith.toml"), run_file)?;
    println!("{} rows, {} MB: {}", row, written / 1_000_000, folder.display());
    Ok(())
}
