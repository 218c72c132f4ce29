//! What `inspect` found, in lines of at most 80 columns.

use super::{Hosted, Inspected, Inspection, Local};

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns of a line's name.
const NAME: usize = 14;

/// All of it, line by line; several local models end in a table of them.
pub fn lines(inspection: &Inspection) -> Vec<String> {
    let mut lines = Vec::new();
    for model in &inspection.models {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        match model {
            Inspected::Local(model) => local(&mut lines, model),
            Inspected::Hosted { name, known } => hosted(&mut lines, name, known),
        }
    }
    let locals: Vec<&Local> =
        inspection.models.iter().filter_map(|model| if let Inspected::Local(local) = model { Some(&**local) } else { None }).collect();
    if locals.len() > 1 {
        side_by_side(&mut lines, &locals);
    }
    if let Some(by) = inspection.ranked_by {
        lines.push(String::new());
        named(&mut lines, "order", &format!("best first, by {by}"));
    }
    if let Some(speed) = &inspection.speed {
        let (gflops, threads) = (speed.gflops, speed.threads);
        lines.push(String::new());
        named(
            &mut lines,
            "times",
            &format!(
                "estimated from {gflops:.0} GFLOP/s of this machine's matrix product now, on {threads} threads; measure with `tunesmith bench train`"
            ),
        );
    }
    lines
}

/// A model's name and what it is in one line, or in two where that is too long.
fn title(lines: &mut Vec<String>, name: &str, what: &str) {
    if name.chars().count() + what.chars().count() + 2 <= WIDTH {
        lines.push(format!("{name}: {what}"));
    } else {
        lines.extend([name.to_owned(), format!("  {what}")]);
    }
}

fn local(lines: &mut Vec<String>, model: &Local) {
    let blank = |text: &str| if text.is_empty() { "BLANK".to_owned() } else { text.to_owned() };
    title(lines, &model.name, if model.ready { "ready to be fine-tuned" } else { "not ready" });
    for problem in &model.problems {
        named(lines, "problem", &problem.what);
        if let Some(hint) = &problem.hint {
            named(lines, "  hint", hint);
        }
    }
    for (name, value) in [("source", &model.source), ("architecture", &model.architecture)] {
        if !value.is_empty() {
            named(lines, name, value);
        }
    }
    if model.parameters > 0 {
        named(lines, "weights", &format!("{} parameters, {}", count(model.parameters), model.storage));
        named(lines, "context", &format!("{} tokens", model.context));
    }
    files(lines, model);
    if !model.adapters.is_empty() {
        let each = model.adapters.iter().map(|a| format!("{} {}×{}", a.module, a.out, a.inputs)).collect::<Vec<_>>().join(", ");
        let all: u64 = model.adapters.iter().map(|a| a.parameters_rank_16).sum();
        named(
            lines,
            "adapters fit",
            &format!("{each}, each in {} layers; rank 16 on all: {} parameters", model.adapters[0].layers, count(all)),
        );
    }
    if model.parameters > 0 {
        let template = &model.template;
        let text = match (template.own, template.trainable) {
            (false, _) => "none in the files".to_owned(),
            (true, false) => "answers cannot be told from prompts".to_owned(),
            (true, true) => {
                format!("{}; an answer ends with {}; loss can lie on answers alone", template.roles.join(", "), template.end_of_turn)
            }
        };
        named(lines, "template", &text);
        let tokenizer = &model.tokenizer;
        let token = |token: &Option<String>| token.clone().unwrap_or_else(|| "none".into());
        let whole = if tokenizer.round_trip_failures == 0 { "texts come back whole" } else { "some texts come back changed" };
        named(
            lines,
            "tokenizer",
            &format!("{} tokens, begin {}, end {}; {whole}", tokenizer.tokens, token(&tokenizer.begin), token(&tokenizer.end)),
        );
        named(lines, "licence", &blank(if model.licence_asks.is_empty() { &model.licence } else { &model.licence_asks }));
        named(lines, "published by", &blank(&model.publisher));
    }
    if let Some(data) = &model.data {
        let mut text = format!(
            "{:.2} tokens a word, {:.1} bytes a token, longest {} tokens, in {} texts",
            data.tokens_per_word, data.bytes_per_token, data.longest, data.texts
        );
        for (given, what) in [(data.too_long, "longer than the context"), (data.changed, "not given back as they were")] {
            if given > 0 {
                text += &format!("; {given} {what}");
            }
        }
        named(lines, "your data", &text);
    }
    if let Some(loss) = &model.loss {
        named(
            lines,
            "loss untuned",
            &format!("{:.3} nats an answer, {:.3} a token, in {} records", loss.nats_per_answer, loss.nats_per_token, loss.records),
        );
    }
    methods(lines, model);
    for server in &model.served_by {
        named(lines, "served by", &format!("{}: {}", server.program, server.how));
    }
}

fn files(lines: &mut Vec<String>, model: &Local) {
    let is_weights = |kind: &str| matches!(kind, "safetensors" | "GGUF");
    let read: Vec<_> = model.files.iter().filter(|file| is_weights(file.kind)).collect();
    let bytes: u64 = read.iter().map(|file| file.bytes).sum();
    match read.as_slice() {
        [] => named(lines, "files", "no weights that are read"),
        [only] => named(lines, "files", &format!("{} ({}, {})", only.name, only.kind, size(bytes))),
        [first, .., last] => {
            named(lines, "files", &format!("{} to {}: {} shards ({}), {}", first.name, last.name, read.len(), first.kind, size(bytes)))
        }
    }
    for file in model.files.iter().filter(|file| file.refused.is_some()) {
        named(lines, "not read", &format!("{} ({}, {}): {}", file.name, file.kind, size(file.bytes), file.refused.unwrap_or_default()));
    }
}

fn methods(lines: &mut Vec<String>, model: &Local) {
    if model.methods.is_empty() {
        return;
    }
    let costs = model.methods.iter().any(|method| method.cost_per_million.is_some());
    lines.push(format!(
        "  {:<14} {:>9} {:>9} {:>8} {:>9} {:>9}{}",
        "rank 16, 512",
        "memory",
        "fastest",
        "tokens/s",
        "h per M",
        "M a night",
        if costs { "  cost of M" } else { "" }
    ));
    for method in &model.methods {
        let name = if method.storage.is_empty() { method.method.to_owned() } else { format!("{} {}", method.method, method.storage) };
        let cost = method.cost_per_million.map(|cost| format!(" {cost:>10.2}")).unwrap_or_default();
        lines.push(format!(
            "  {name:<14} {:>9} {:>9} {:>8} {:>9} {:>9}{cost}",
            size(method.memory_least),
            size(method.memory_fastest),
            figures(method.tokens_per_second),
            figures(method.hours_per_million),
            figures(method.millions_per_night)
        ));
        match (method.fits, method.fits_mapped) {
            (Some(false), Some(true)) => {
                let least = size(method.memory_mapped);
                named(lines, "", &format!("fits with {least} while weights are read from the mapped files, at the disk's speed"));
            }
            (Some(false), _) => named(lines, "", "needs more memory than is available now"),
            _ => {}
        }
    }
}

fn side_by_side(lines: &mut Vec<String>, models: &[&Local]) {
    lines.push(String::new());
    lines.push(format!("{:<28} {:>9} {:>8} {:>9} {:>8} {:>6} {:>6}", "model", "params", "context", "memory", "tokens/s", "t/word", "loss"));
    for model in models {
        let method = model.methods.iter().min_by_key(|method| method.memory_least);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        lines.push(format!(
            "{:<28} {:>9} {:>8} {:>9} {:>8} {:>6} {:>6}",
            shortened(&model.name, 28),
            if model.parameters > 0 { count(model.parameters) } else { "–".into() },
            if model.context > 0 { model.context.to_string() } else { "–".into() },
            or_dash(method.map(|method| size(method.memory_least))),
            or_dash(method.map(|method| figures(method.tokens_per_second))),
            or_dash(model.data.as_ref().map(|data| format!("{:.2}", data.tokens_per_word))),
            or_dash(model.loss.as_ref().map(|loss| format!("{:.2}", loss.nats_per_answer)))
        ));
    }
}

fn hosted(lines: &mut Vec<String>, name: &str, known: &Hosted) {
    title(lines, name, &format!("served by {}; its weights are not on this computer", known.vendor));
    named(lines, "entry", &known.names.join(", "));
    named(lines, "fine-tuning", known.tuning.sentence());
    for fact in &known.facts {
        named(lines, &fact.kind, &format!("{} ({}, looked up {})", fact.text, fact.source, fact.date));
    }
    if !known.unknown.is_empty() {
        named(lines, "unknown", &known.unknown.join("; "));
    }
    named(lines, "here", "not possible; an open model can be tuned: `tunesmith pull` lists some");
}

/// A name and a text, wrapped and indented.
fn named(lines: &mut Vec<String>, name: &str, text: &str) {
    let mut line = format!("  {name:<NAME$} ");
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(NAME + 3)));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
}

fn shortened(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

fn count(parameters: u64) -> String {
    match parameters {
        0..1_000_000 => format!("{:.1} k", parameters as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", parameters as f64 / 1e6),
        _ => format!("{:.2} B", parameters as f64 / 1e9),
    }
}

/// Two or three figures.
fn figures(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
