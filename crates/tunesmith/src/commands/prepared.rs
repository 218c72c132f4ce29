//! What is done with prepared data: compared, looked at by a second person, labelled.

use std::path::Path;

use anyhow::Result;
use recipes::label::Wanted;
use recipes::prepare::Named;
use recipes::runs;

use super::Session;
use crate::Exit;
use crate::args::LabelAction;
use crate::output::{emit, emit_json};

/// Ids of each kind that are printed; `--json` gives more.
const IDS_SHOWN: usize = 5;

fn named(what: &str, named: &Named) {
    emit(&format!("{what:<10} {}", named.count));
    for (id, why) in named.ids.iter().take(IDS_SHOWN) {
        emit(&format!("{:<10} {id}: {why}", ""));
    }
}

pub(super) fn diff(session: &Session<'_>, first: &Path, second: &str) -> Result<Exit> {
    let context = &session.context;
    let (first, second) = (runs::find(context, &first.display().to_string())?, runs::find(context, second)?);
    let diff = recipes::prepare::diff(&first, &second)?;
    if session.json {
        emit_json(&diff);
        return Ok(Exit::Done);
    }
    for (part, (before, after)) in &diff.records {
        emit(&format!("{part:<10} {before} records, then {after}"));
    }
    emit(&format!("{:<10} {}", "same", diff.same));
    named("added", &diff.added);
    named("removed", &diff.removed);
    named("changed", &diff.changed);
    for (from, to, count) in &diff.moved {
        emit(&format!("{:<10} {count} from {from} to {to}", "moved"));
    }
    for (step, (before, after)) in diff.rejects.iter().filter(|(_, (before, after))| before != after) {
        emit(&format!("{:<10} {step}: {before} rejects, then {after}", ""));
    }
    Ok(Exit::Done)
}

pub(super) fn sample(session: &Session<'_>, run: &Path, count: usize, out: Option<&Path>) -> Result<Exit> {
    let run = runs::find(&session.context, &run.display().to_string())?;
    let out = out.map_or_else(|| format!("sample-{}.csv", runs::id(&run)).into(), Path::to_path_buf);
    let sampled = recipes::review::sample(&run, count, &out)?;
    if session.json {
        emit_json(&sampled);
    } else {
        emit(&sampled.path.display().to_string());
        eprintln!("  {} of {} records; fill in `verdict` with accept or reject, then", sampled.records, sampled.of);
        eprintln!("  tunesmith prepare {} --reviewed {} --by NAME", runs::id(&run), sampled.path.display());
    }
    Ok(Exit::Done)
}

pub(super) fn reviewed(session: &Session<'_>, run: &Path, sheet: &Path, by: &str) -> Result<Exit> {
    let run = runs::find(&session.context, &run.display().to_string())?;
    let review = recipes::review::reviewed(&session.context, &run, sheet, by)?;
    if session.json {
        emit_json(&review);
        return Ok(Exit::Done);
    }
    emit(&format!("{} accepted {}, rejected {}, left {} undecided", review.by, review.accepted, review.rejected, review.undecided));
    for (id, comment) in &review.rejections {
        emit(&format!("rejected  {id}: {comment}"));
    }
    Ok(Exit::Done)
}

pub(super) fn label(session: &Session<'_>, action: LabelAction) -> Result<Exit> {
    let context = &session.context;
    match action {
        LabelAction::Export { run, out, sample, suspects, show_labels } => {
            let wanted = Wanted { count: sample, suspects, show_labels };
            let count = recipes::label::export(&runs::find(context, &run)?, wanted, &out)?;
            tell(session, &serde_json::json!({ "path": out, "records": count }), &format!("{} ({count} records)", out.display()));
        }
        LabelAction::Import { run, sheet, annotator } => {
            let count = recipes::label::import(context, &runs::find(context, &run)?, &sheet, &annotator)?;
            tell(session, &serde_json::json!({ "annotator": annotator, "labels": count }), &format!("{count} labels by {annotator}"));
        }
        LabelAction::Agreement { run, out } => {
            let agreement = recipes::label::agreement(&runs::find(context, &run)?, out.as_deref())?;
            if session.json {
                emit_json(&agreement);
                return Ok(Exit::Done);
            }
            for (name, count) in &agreement.annotators {
                emit(&format!("{name:<26} {count} labels"));
            }
            for pair in &agreement.pairs {
                emit(&format!(
                    "{:<26} alike {:.3} of {}, Cohen's kappa {:.3} [{:.3}, {:.3}]",
                    format!("{} and {}", pair.first, pair.second),
                    pair.observed,
                    pair.items,
                    pair.kappa,
                    pair.interval.0,
                    pair.interval.1
                ));
            }
            match agreement.alpha {
                Some(alpha) => emit(&format!("{:<26} {alpha:.3} on {} items", "Krippendorff's alpha", agreement.shared)),
                None => emit(&format!("{:<26} no item was labelled twice", "Krippendorff's alpha")),
            }
            emit(&format!("{:<26} {}", "items to decide", agreement.open));
            if let Some(out) = out {
                eprintln!(
                    "  fill in `label` in {}, then tunesmith label import {run} {} --annotator adjudication",
                    out.display(),
                    out.display()
                );
            }
        }
        LabelAction::Write { run, out } => {
            let (rows, open) = recipes::label::write(&runs::find(context, &run)?, &out)?;
            tell(
                session,
                &serde_json::json!({ "path": out, "rows": rows, "open": open }),
                &format!("{} ({rows} rows; {open} items are still to be decided)", out.display()),
            );
        }
    }
    Ok(Exit::Done)
}

fn tell(session: &Session<'_>, json: &serde_json::Value, text: &str) {
    if session.json {
        emit_json(json);
    } else {
        emit(text);
    }
}
