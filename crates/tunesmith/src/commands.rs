//! One function per command: calls the recipe, prints what it gives, chooses the exit code.

mod prepared;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use recipes::Verdict;
use recipes::context::Context;
use recipes::report::facts::{DataFacts, LabelErrorFacts, MemoryFacts, OverlapFacts};
use recipes::run::{Outcome, Overrides, Until};
use serde_json::json;

use crate::Exit;
use crate::args::{
    Arguments, BenchAction, BenchChoose, BenchFidelity, BenchGenerate, BenchSft, BenchTable, BenchTrain, ChatArguments, Command,
    ExportArguments, Global, RunsAction,
};
use crate::clock::SystemClock;
use crate::output::{closed, emit, emit_json, emit_piece};
use crate::progress::{Progress, duration};

/// Everything a command works with.
struct Session<'a> {
    context: Context<'a>,
    progress: Progress,
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments, stop: Arc<AtomicBool>) -> Result<Exit> {
    let clock = SystemClock::new();
    let mut session = Session { context: context(&arguments.global, &clock)?, progress: Progress::new(stop), json: arguments.global.json };
    let session = &mut session;
    match arguments.command {
        Command::Run(project) => {
            let outcome =
                recipes::run::start(&session.context, &project.project, &Overrides::default(), Until::Reported, &mut session.progress)?;
            reported(session, &outcome)
        }
        Command::Init { file, output, force } => init(session, &file, output.as_deref(), force),
        Command::Pull { model } => pull(session, model.as_deref()),
        Command::Inspect { models, data, hourly_cost } => inspect(session, &models, data.as_deref(), hourly_cost),
        Command::Plan(project) => plan(session, &project.project),
        Command::Prepare { project, why: Some(id), .. } => why(session, &project, &id),
        Command::Prepare { project, diff: Some(other), .. } => prepared::diff(session, &project, &other),
        Command::Prepare { project, sample: Some(count), out, .. } => prepared::sample(session, &project, count, out.as_deref()),
        Command::Prepare { project, reviewed: Some(sheet), by, .. } => {
            prepared::reviewed(session, &project, &sheet, &by.unwrap_or_default())
        }
        Command::Prepare { project, show, .. } => prepare(session, &project, show),
        Command::Label { action } => prepared::label(session, action),
        Command::Tune { project, max_steps } => {
            let outcome =
                recipes::run::start(&session.context, &project.project, &Overrides { max_steps }, Until::Tuned, &mut session.progress)?;
            tuned(session, &outcome)
        }
        Command::Evaluate { run, answers } => {
            let path = recipes::runs::find(&session.context, &run)?;
            let outcome = recipes::run::evaluate(&session.context, &path, answers.as_deref(), &mut session.progress)?;
            reported(session, &outcome)
        }
        Command::Compare { run, against } => compare(session, &run, &against),
        Command::Runs { action } => runs(session, action.unwrap_or(RunsAction::List)),
        Command::Report { run, redacted } => {
            let path = recipes::run::report_again(&recipes::runs::find(&session.context, &run)?, redacted)?;
            if session.json {
                emit_json(&json!({ "report": path }))
            } else {
                emit(&path.display().to_string())
            }
            Ok(Exit::Done)
        }
        Command::Chat(chat_arguments) => chat(session, chat_arguments),
        Command::Score { file, model, adapter, storage, compute, tokens } => {
            let json = session.json;
            let mut first = true;
            session.progress.writes_as_it_goes();
            let mut each = |line: recipes::score::ScoreLine| {
                if json {
                    return emit_json(&line);
                }
                if std::mem::take(&mut first) {
                    emit("id\ttokens\tloss_tokens\tlog_prob");
                }
                emit(&format!("{}\t{}\t{}\t{:.6}", line.id, line.tokens, line.loss_tokens, line.log_prob))
            };
            let (adapter, storage, compute) = (adapter.as_deref(), storage.unwrap_or_default(), compute.unwrap_or_default());
            let progress = &mut session.progress;
            let scored = recipes::score::score(&session.context, progress, &file, &model, adapter, &storage, &compute, tokens, &mut each);
            match scored {
                Err(recipes::error::Error::Interrupted) if closed() => Ok(Exit::Done),
                scored => scored.map(|_| Exit::Done).map_err(Into::into),
            }
        }
        Command::Export(export_arguments) => export(session, export_arguments),
        Command::Audit { run, head } => audit(session, run.as_deref(), head.as_deref()),
        Command::Bench { action } => match action {
            BenchAction::Train(bench) => bench_train(session, &bench),
            BenchAction::Gemm => bench_gemm(session),
            BenchAction::Sft(bench) => bench_sft(session, bench),
            BenchAction::Generate(bench) => bench_generate(session, &bench),
            BenchAction::Prepare(project) => bench_prepare(session, &project.project),
            BenchAction::Choose(bench) => bench_choose(session, &bench),
            BenchAction::Fidelity(bench) => bench_fidelity(session, &bench),
        },
        Command::Doctor => doctor(session),
    }
}

#[expect(clippy::disallowed_methods, reason = "the binary is where the environment is read")]
fn context<'a>(global: &Global, clock: &'a SystemClock) -> Result<Context<'a>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = global
        .cache
        .clone()
        .or_else(|| variable("TUNESMITH_CACHE"))
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("tunesmith")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/tunesmith")))
        .or_else(|| variable("LOCALAPPDATA").map(|folder| folder.join("tunesmith")))
        .context("no folder for fetched models: set --cache DIR")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = global.threads.unwrap_or(cores);
    if threads == 0 || threads > 1024 {
        bail!("--threads is {threads}, expected 1 to 1024");
    }
    let hub = crate::hub::settings(variable, &cache)?;
    Ok(Context {
        hub,
        workspace: global.workspace.clone().or_else(|| variable("TUNESMITH_WORKSPACE")).unwrap_or_else(|| PathBuf::from(".")),
        cache,
        python: variable("TUNESMITH_PYTHON")
            .map_or_else(|| vec!["python3".into(), "python".into()], |python| vec![python.display().to_string()]),
        threads,
        memory: global.memory,
        entropy: entropy(),
        clock,
    })
}

/// Unpredictable bytes from the standard library's hash keys, which the system seeds.
fn entropy() -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher};
    let mut bytes = [0; 32];
    for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_usize(index);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    bytes
}

/// The end of `run`, `evaluate` and `runs resume`.
fn reported(session: &Session<'_>, outcome: &Outcome) -> Result<Exit> {
    let report = outcome.path.join("report.html");
    if session.json {
        if let Some(json) = outcome.json() {
            emit_json(&json);
        }
    } else if let Some(facts) = &outcome.report {
        emit(&recipes::report::summary(facts, 80));
        emit(&format!("report   {}", report.display()));
        emit(&format!("adapter  {}", recipes::runs::result(&outcome.path).display()));
        eprintln!("  took {}; try it with `tunesmith chat {}`", duration(outcome.seconds), outcome.id);
        open_where_there_is_a_desktop(&report);
    }
    Ok(match outcome.verdict {
        None | Some(Verdict::Ship) => Exit::Done,
        Some(Verdict::DoNotShip) => Exit::Refused,
        Some(Verdict::NotEnoughEvidence) => Exit::NotEnoughEvidence,
    })
}

/// The end of `tune`.
fn tuned(session: &Session<'_>, outcome: &Outcome) -> Result<Exit> {
    let adapter = recipes::runs::result(&outcome.path);
    let Some(training) = &outcome.training else { return Ok(Exit::Done) };
    if session.json {
        let losses: Vec<f64> = training.steps.iter().map(|step| step.loss).collect();
        emit_json(
            &json!({ "adapter": adapter, "steps": training.steps.len(), "losses": losses, "run": outcome.id, "kept_step": training.kept_step }),
        );
    } else {
        emit(&adapter.display().to_string());
        let last = training.steps.last().map_or(f64::NAN, |step| step.loss);
        eprintln!(
            "  {} steps, loss {last:.3}, kept step {}; measure it with `tunesmith evaluate {}`",
            training.steps.len(),
            training.kept_step,
            outcome.id
        );
    }
    Ok(Exit::Done)
}

fn open_where_there_is_a_desktop(report: &Path) {
    #[expect(clippy::disallowed_methods, reason = "the binary is where the environment is read")]
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !std::io::stdout().is_terminal() || set("CI") || set("SSH_CONNECTION") {
        return;
    }
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else if set("DISPLAY") || set("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    // A missing opener only means that the path, printed above, has to be opened by hand.
    let _ = std::process::Command::new(opener).arg(report).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
}

fn init(session: &mut Session<'_>, file: &Path, output: Option<&Path>, force: bool) -> Result<Exit> {
    let outcome = recipes::init::init(&session.context, &mut session.progress, file, output, force)?;
    if session.json {
        emit_json(&outcome);
    } else {
        for reason in &outcome.reasons {
            eprintln!("  {reason}");
        }
        emit(&outcome.run_file.display().to_string());
        eprintln!("  read it, fill in what is BLANK, then: tunesmith plan {}", outcome.run_file.display());
    }
    Ok(Exit::Done)
}

fn pull(session: &mut Session<'_>, model: Option<&str>) -> Result<Exit> {
    let Some(model) = model else {
        let entries = recipes::pull::catalogue();
        if session.json {
            emit_json(&entries);
        } else {
            for entry in entries {
                emit(&format!("{:<26} {:>5} MB  {:<12} {}", entry.name, entry.bytes / 1_000_000, entry.licence, entry.note));
            }
        }
        return Ok(Exit::Done);
    };
    let pulled = recipes::pull::pull(&session.context, &mut session.progress, model)?;
    if session.json {
        emit_json(&pulled);
    } else {
        emit(&pulled.path.display().to_string());
        let how = if pulled.cached { "was in the cache" } else { "fetched" };
        let known_by = if pulled.sha256.is_empty() { pulled.pinned.clone() } else { format!("SHA-256 {}", pulled.sha256) };
        let licence = if pulled.licence.is_empty() { "not named" } else { &pulled.licence };
        eprintln!("  {how}, {} MB, {known_by}, licence {licence}", pulled.bytes / 1_000_000);
    }
    Ok(Exit::Done)
}

fn inspect(session: &mut Session<'_>, models: &[String], data: Option<&Path>, hourly_cost: Option<f64>) -> Result<Exit> {
    let options = recipes::inspect::InspectOptions { models, data, hourly_cost };
    let inspection = recipes::inspect::inspect(&session.context, &mut session.progress, options)?;
    if session.json {
        emit_json(&inspection);
    } else {
        recipes::inspect::lines(&inspection).iter().for_each(|line| emit(line));
    }
    Ok(Exit::Done)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn plan(session: &mut Session<'_>, path: &Path) -> Result<Exit> {
    let planned = recipes::plan::plan(&session.context, &mut session.progress, path)?;
    if session.json {
        emit_json(&json!({
            "plan": planned.plan, "data": planned.prepared.facts, "memory": planned.memory, "power": planned.power, "steps": planned.steps,
        }));
        return Ok(Exit::Done);
    }
    for (key, value) in &planned.lines {
        emit(&format!("{key:<20} {value}"));
    }
    emit("");
    data_lines(&planned.prepared.facts);
    emit("");
    memory_lines(&planned.memory);
    emit("");
    emit(&recipes::run::power_sentence(&planned.power));
    for (difference, items) in &planned.power.items_for {
        let unit = if planned.power.of_perplexity { "% of the perplexity" } else { "points" };
        emit(&format!("  {:>4.0} {unit}  about {items} items", 100.0 * difference));
    }
    Ok(Exit::Done)
}

fn memory_lines(memory: &MemoryFacts) {
    for (name, bytes) in &memory.lines {
        emit(&format!("{name:<26} {:>12}", megabytes(*bytes)));
    }
    emit(&format!("{:<26} {:>12}", "memory at most", megabytes(memory.planned_bytes)));
    if memory.mapped_bytes > 0 {
        emit(&format!("{:<26} {:>12}", "mapped from the files", megabytes(memory.mapped_bytes)));
    }
}

fn data_lines(facts: &DataFacts) {
    for source in &facts.sources {
        emit(&format!("{:<26} {} rows, {}, role {}", source.path, source.rows, source.shape, source.role));
    }
    emit(&format!("{:<26} {}", "records kept", facts.records));
    for (reason, count) in &facts.rejected {
        emit(&format!("{:<26} {count}  {reason}", "dropped"));
    }
    emit(&format!(
        "{:<26} train {}, validation {}, test {}, near out of distribution {}, far {}",
        "split", facts.train, facts.validation, facts.test, facts.near_ood, facts.far_ood
    ));
    if facts.naive_split_leaks > 0 {
        let by: Vec<String> = facts.naive_leaks.iter().map(|(what, count)| format!("{count} by {what}")).collect();
        emit(&format!("{:<26} a random split would have leaked {} test records: {}", "", facts.naive_split_leaks, by.join(", ")));
    }
    for sentence in facts.overlaps.iter().filter_map(OverlapFacts::sentence) {
        emit(&format!("{:<26} {sentence}", ""));
    }
    if facts.near.clusters > 0 {
        let near = &facts.near;
        emit(&format!("{:<26} {} records in {} clusters, the largest of {}", "near-duplicates", near.records, near.clusters, near.largest));
        for (first, second, jaccard) in &near.examples {
            emit(&format!("{:<26} {first} and {second}, Jaccard {jaccard:.2}", ""));
        }
    }
    if facts.passages.records > 0 {
        emit(&format!("{:<26} {} records share a long passage with an earlier one", "passages", facts.passages.records));
        for (first, second, words) in &facts.passages.examples {
            emit(&format!("{:<26} {first} and {second}, {words} words", ""));
        }
    }
    for found in &facts.contamination {
        emit(&format!("{:<26} {} training records and {}: {}", "texts in common", found.records, found.with, found.examples.join(", ")));
    }
    for suspect in facts.label_errors.iter().take(5) {
        let LabelErrorFacts { id, given, suggested, margin, .. } = suspect;
        emit(&format!("{:<26} {id}: {given}, rather {suggested} (by {margin:.2})", "label probably wrong"));
    }
    for (what, count) in &facts.findings {
        emit(&format!("{:<26} {count}  {what}", "found"));
    }
    if !facts.languages.is_empty() {
        let languages: Vec<String> = facts.languages.iter().map(|(code, count)| format!("{code} {count}")).collect();
        emit(&format!("{:<26} {}", "languages", languages.join(", ")));
    }
    if !facts.strata.is_empty() && facts.strata.len() <= 30 {
        emit(&format!("\n{:<26} train  validation  test", facts.stratify));
        for (name, train, validation, test) in &facts.strata {
            emit(&format!("{name:<26} {train:>5}  {validation:>10}  {test:>4}"));
        }
    }
}

fn prepare(session: &mut Session<'_>, path: &Path, show: usize) -> Result<Exit> {
    let outcome = recipes::run::start(&session.context, path, &Overrides::default(), Until::Prepared, &mut session.progress)?;
    let shown = recipes::run::show(&session.context, &outcome.path, show, &mut session.progress)?;
    if session.json {
        emit_json(&json!({ "run": outcome.id, "path": outcome.path, "data": outcome.data, "shown": shown }));
        return Ok(Exit::Done);
    }
    data_lines(&outcome.data);
    for record in &shown {
        emit(&format!("\nrecord {} ({} tokens, {} with loss, marked ⟦so⟧)", record.id, record.tokens, record.loss_tokens));
        emit(&record.marked);
    }
    emit(&format!("\n{}", outcome.path.join("data").display()));
    eprintln!("  go on with `tunesmith runs resume {}`", outcome.id);
    Ok(Exit::Done)
}

fn why(session: &Session<'_>, run: &Path, id: &str) -> Result<Exit> {
    let path = recipes::runs::find(&session.context, &run.display().to_string())?;
    let why = recipes::prepare::why(&path, id)?;
    if session.json {
        emit_json(&why);
        return Ok(Exit::Done);
    }
    emit(&format!("document  {:#}", why.document));
    for step in &why.steps {
        emit(&format!("step      {step}"));
    }
    for found in &why.found {
        emit(&format!("found     {found}"));
    }
    match &why.record {
        Some((part, record)) => emit(&format!("record    in {part}: {record:#}")),
        None => emit("record    none: it was dropped"),
    }
    if let Some(same) = why.replayed {
        emit(if same { "replayed  the same bytes" } else { "replayed  OTHER BYTES: the run folder or the program changed" });
    }
    Ok(Exit::Done)
}

fn compare(session: &mut Session<'_>, run: &str, against: &str) -> Result<Exit> {
    let (run, against) = (recipes::runs::find(&session.context, run)?, recipes::runs::find(&session.context, against)?);
    let compared = recipes::run::compare(&run, &against)?;
    if session.json {
        emit_json(&compared);
    } else {
        emit(&compared.sentence());
    }
    Ok(Exit::Done)
}

fn runs(session: &mut Session<'_>, action: RunsAction) -> Result<Exit> {
    match action {
        RunsAction::List => {
            let runs = recipes::runs::list(&session.context)?;
            if session.json {
                emit_json(&runs);
            } else if runs.is_empty() {
                eprintln!("no runs below {}", session.context.workspace.join("runs").display());
            }
            for run in runs.iter().filter(|_| !session.json) {
                let state = if run.locked_by.is_some() { "running" } else { run.stage.name() };
                let score = run.score.map(|score| match run.metric.as_deref() {
                    Some("perplexity") => format!("{score:.3}"),
                    _ => format!("{:.1} %", 100.0 * score),
                });
                let score = score.unwrap_or_default();
                let line = format!("{:<22} {:<20} {:<20} {:>7}  {}", run.id, run.name, state, score, run.verdict.as_deref().unwrap_or(""));
                emit(line.trim_end());
            }
            Ok(Exit::Done)
        }
        RunsAction::Show { run } => {
            let path = recipes::runs::find(&session.context, &run)?;
            let report = recipes::runs::report(&path).ok();
            if session.json {
                let plan = recipes::runs::plan(&path)?;
                emit_json(&json!({ "path": path, "stage": recipes::runs::stage(&path), "plan": plan, "report": report }));
                return Ok(Exit::Done);
            }
            emit(&format!("{}\n{}", path.display(), recipes::runs::stage(&path).name()));
            if let Some(report) = &report {
                emit(&recipes::report::summary(report, 80));
            }
            Ok(Exit::Done)
        }
        RunsAction::Resume { run } => {
            let path = recipes::runs::find(&session.context, &run)?;
            let until = recipes::run::goal(&path)?;
            let outcome = recipes::run::resume(&session.context, &path, until, &mut session.progress)?;
            if until == Until::Tuned { tuned(session, &outcome) } else { reported(session, &outcome) }
        }
    }
}

fn export(session: &mut Session<'_>, arguments: ExportArguments) -> Result<Exit> {
    let options = recipes::export::ExportOptions {
        source: arguments.source,
        format: arguments.to,
        output: arguments.output,
        model: arguments.model,
        storage: arguments.storage.unwrap_or_default(),
        dtype: arguments.dtype.unwrap_or_default(),
        prompts: arguments.prompts,
        shard_bytes: recipes::export::SHARD_BYTES,
    };
    let exported = recipes::export::export(&session.context, &mut session.progress, &options)?;
    if session.json {
        emit_json(&exported);
    } else {
        emit(&exported.path.display().to_string());
        eprintln!("  {}", exported.proof.sentence());
        eprintln!("  {}", exported.loads_with);
    }
    Ok(Exit::Done)
}

fn chat(session: &mut Session<'_>, arguments: ChatArguments) -> Result<Exit> {
    let options = recipes::chat::ChatOptions {
        model: arguments.model,
        adapter: arguments.adapter,
        storage: arguments.storage.unwrap_or_default(),
        compute: arguments.compute.compute.unwrap_or_default(),
        kv_cache: arguments.compute.kv_cache.unwrap_or_default(),
        system: arguments.system,
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        seed: arguments.seed,
        max_tokens: arguments.max_tokens,
        stop: arguments.stop,
    };
    let mut chat = recipes::chat::Session::open(&session.context, &mut session.progress, options)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if terminal {
        eprintln!("type {}; Ctrl-D ends", if chat.continues() { "the beginning of a text, which is continued" } else { "a message" });
    }
    if terminal && !session.json {
        let mut line = String::new();
        loop {
            eprint!("> ");
            line.clear();
            if std::io::stdin().lock().read_line(&mut line)? == 0 {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            chat.reply(line.trim(), &mut session.progress, &mut emit_piece)?;
            emit("");
        }
        return Ok(Exit::Done);
    }
    let message = std::io::read_to_string(std::io::stdin())?;
    let json = session.json;
    let reply = chat.reply(message.trim(), &mut session.progress, &mut |piece| {
        if !json {
            emit_piece(piece);
        }
    })?;
    if json {
        emit_json(&reply)
    } else {
        emit("")
    }
    Ok(Exit::Done)
}

fn audit(session: &mut Session<'_>, run: Option<&str>, head: Option<&str>) -> Result<Exit> {
    let runs = match run {
        Some(run) => vec![recipes::runs::find(&session.context, run)?],
        None => recipes::runs::list(&session.context)?.into_iter().map(|run| run.path).collect(),
    };
    let audit = recipes::audit::audit(&session.context, &runs, head)?;
    if session.json {
        emit_json(&audit);
    } else {
        for checked in &audit.checked {
            emit(&format!("ok       {checked}"));
        }
        for finding in &audit.findings {
            emit(&format!("CHANGED  {finding}"));
        }
        emit(&audit.sentence());
    }
    Ok(if audit.findings.is_empty() { Exit::Done } else { Exit::UserError })
}

fn bench_train(session: &mut Session<'_>, bench: &BenchTrain) -> Result<Exit> {
    let options = recipes::bench::train::BenchTrainOptions {
        model: &bench.model,
        storage: bench.storage.as_deref().unwrap_or_default(),
        mapped: bench.mapped,
        batch: bench.batch,
        length: bench.length,
        method: &bench.method,
        rank: bench.rank,
        lora_plus_ratio: bench.lora_plus_ratio,
        optimizer: &bench.optimizer,
        steps: bench.steps,
        ids: bench.ids.as_deref(),
        adapter_start: bench.adapter_start.as_deref(),
    };
    let result = recipes::bench::train::train(&session.context, &mut session.progress, options)?;
    if session.json {
        emit_json(&result);
    } else {
        emit(&format!(
            "{:.1} tokens/s   {:.1} GFLOP/s   peak {}   planned {}",
            result.tokens_per_second,
            result.gflops,
            megabytes(result.peak_rss_bytes),
            megabytes(result.planned_bytes)
        ));
        emit(&format!("model FLOPs of a step, computing again not counted: {:.4e} =", result.flops_per_step));
        result.flops_formula.split("; ").for_each(|line| emit(&format!("  {line}")));
        if result.mapped_bytes > 0 {
            emit(&format!("{} of weights mapped from the files, not in the plan", megabytes(result.mapped_bytes)));
        }
        emit(&losses_line(&result.losses));
    }
    Ok(Exit::Done)
}

fn bench_gemm(session: &mut Session<'_>) -> Result<Exit> {
    let result = recipes::bench::gemm::gemm(&session.context, &mut session.progress)?;
    if session.json {
        emit_json(&result);
    } else {
        for shape in &result.shapes {
            emit(&format!("{} x {} x {}: {:.1} GFLOP/s", shape.rows, shape.inner, shape.outer, shape.gflops));
        }
        emit(&format!("mean {:.1} GFLOP/s on {} threads", result.mean_gflops, result.threads));
    }
    Ok(Exit::Done)
}

fn bench_prepare(session: &mut Session<'_>, path: &Path) -> Result<Exit> {
    let result = recipes::bench::prepare::prepare(&session.context, &mut session.progress, path)?;
    if session.json {
        emit_json(&result);
    } else {
        emit(&format!("{} rows, {} in, {} out", result.rows, megabytes(result.bytes), megabytes(result.written_bytes)));
        emit(&format!("{:.1} s reading and deciding, {:.1} s writing", result.decide_seconds, result.write_seconds));
        emit(&format!("{:.1} MB/s, {:.1} MB/s per thread", result.megabytes_per_second, result.megabytes_per_second_per_thread));
        if result.peak_rss_bytes > 0 {
            emit(&format!("{} of memory at most", megabytes(result.peak_rss_bytes)));
        }
    }
    Ok(Exit::Done)
}

fn bench_records(table: &BenchTable) -> recipes::bench::Table {
    recipes::bench::Table {
        file: table.file.clone(),
        input: table.input.clone(),
        target: table.target.clone(),
        instruction: table.instruction.clone(),
    }
}

fn bench_sft(session: &mut Session<'_>, bench: BenchSft) -> Result<Exit> {
    let options = recipes::bench::sft::BenchSftOptions {
        model: &bench.table.model,
        storage: bench.table.storage.as_deref().unwrap_or_default(),
        table: bench_records(&bench.table),
        records: bench.table.records,
        batch: bench.batch,
        rank: bench.rank,
        learning_rate: bench.learning_rate,
        adapter_start: bench.adapter_start.as_deref(),
    };
    let result = recipes::bench::sft::sft(&session.context, &mut session.progress, &options)?;
    if session.json {
        emit_json(&result);
    } else {
        emit(&format!(
            "{:.2} examples/s   {} tokens rendered, {} computed   peak {}   planned {}",
            result.examples_per_second,
            result.tokens_rendered,
            result.tokens_computed,
            megabytes(result.peak_rss_bytes),
            megabytes(result.planned_bytes)
        ));
        emit(&losses_line(&result.losses));
    }
    Ok(Exit::Done)
}

fn losses_line(losses: &[f64]) -> String {
    let losses: Vec<String> = losses.iter().map(|loss| format!("{loss:.6}")).collect();
    format!("losses {}", losses.join(" "))
}

fn bench_generate(session: &mut Session<'_>, bench: &BenchGenerate) -> Result<Exit> {
    let options = recipes::bench::generate::BenchGenerateOptions {
        model: &bench.model,
        storage: bench.storage.as_deref().unwrap_or_default(),
        compute: &bench.compute,
        kv_cache: &bench.kv_cache,
    };
    let result = recipes::bench::generate::generate(&session.context, &mut session.progress, &options)?;
    if session.json {
        emit_json(&result);
    } else {
        emit(&format!("prefill     {:.1} tokens/s ({} tokens)", result.prefill_tokens_per_second, result.prefill_tokens));
        emit(&format!("generation  {:.1} tokens/s", result.generate_tokens_per_second));
        emit(&format!("32 texts    {:.1} tokens/s", result.batch32_tokens_per_second));
        emit(&format!("products    {}, {} cache of keys and values", result.compute_path, result.kv_cache));
    }
    Ok(Exit::Done)
}

fn bench_choose(session: &mut Session<'_>, bench: &BenchChoose) -> Result<Exit> {
    let options = recipes::bench::choose::BenchChooseOptions {
        model: &bench.table.model,
        storage: bench.table.storage.as_deref().unwrap_or_default(),
        compute: bench.compute.as_deref().unwrap_or_default(),
        table: bench_records(&bench.table),
        records: bench.table.records,
    };
    let result = recipes::bench::choose::choose(&session.context, &mut session.progress, &options)?;
    if session.json {
        emit_json(&result);
    } else {
        for choice in &result.choices {
            emit(choice);
        }
        emit(&format!("{:.2} items/s among {} labels, {:.1} % right", result.items_per_second, result.labels, 100.0 * result.accuracy));
    }
    Ok(Exit::Done)
}

fn bench_fidelity(session: &mut Session<'_>, bench: &BenchFidelity) -> Result<Exit> {
    let options = recipes::bench::fidelity::BenchFidelityOptions {
        file: &bench.file,
        tokens: bench.tokens,
        model: &bench.model,
        storage: bench.storage.as_deref().unwrap_or_default(),
    };
    let result = recipes::bench::fidelity::fidelity(&session.context, &mut session.progress, &options)?;
    if session.json {
        emit_json(&result);
        return Ok(Exit::Done);
    }
    emit(&format!("exact: perplexity {:.4} over {} tokens", result.perplexity, result.tokens));
    for of in &result.against {
        emit(&format!(
            "{}, {} cache: mean KL {:.5}, perplexity {:.4} ({:+.2} %), the same likeliest token {:.2} %",
            of.compute_path,
            of.kv_cache,
            of.mean_kl,
            of.perplexity,
            100.0 * (of.perplexity / result.perplexity - 1.0),
            100.0 * of.top1_agreement
        ));
    }
    Ok(Exit::Done)
}

fn doctor(session: &mut Session<'_>) -> Result<Exit> {
    let checks = recipes::doctor::doctor(&session.context);
    if session.json {
        emit_json(&checks);
    } else {
        for check in &checks {
            emit(&format!("{}  {:<22} {}", if check.ok { "ok" } else { "NO" }, check.name, check.detail));
            if let Some(hint) = check.hint.as_ref().filter(|_| !check.ok) {
                emit(&format!("    hint: {hint}"));
            }
        }
    }
    Ok(if checks.iter().all(|check| check.ok) { Exit::Done } else { Exit::UserError })
}
