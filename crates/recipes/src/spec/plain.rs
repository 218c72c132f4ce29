//! What a run file says with `objective = "text"`: continued pre-training on plain texts.
//!
//! Nothing is asked and nothing is answered, so every key about questions, answers and who else could give them is refused
//! instead of being read by nobody.

use super::{EvaluateSection, GateSection, OneOrMany, PrepareSection, SourceSection, range};
use crate::error::SpecError;

/// The objective's name.
pub(super) const OBJECTIVE: &str = "text";
/// What is measured.
pub(super) const METRIC: &str = "perplexity";
/// Who is measured: only a model has a probability of a text.
pub(super) const ARMS: &[&str] = &["base", "tuned"];
/// The column that has the text where the run file names none; TRL's too.
const COLUMN: &str = "text";

/// The source with what a plain text needs: a text column, cut into blocks unless it is said otherwise.
pub(super) fn source(mut source: SourceSection, index: usize) -> Result<SourceSection, SpecError> {
    let key = |name: &str| format!("data.source[{index}].{name}");
    if let Some(input) = &source.input {
        return Err(range(&key("input"), input, "nothing beside objective = \"text\": `target` names the column with the text"));
    }
    if source.limit_per_class.is_some() {
        return Err(range(
            &key("limit_per_class"),
            "a value beside objective = \"text\"",
            "nothing: texts have no classes; `limit` is for all",
        ));
    }
    let target = source.target.take().map(OneOrMany::into_vec).unwrap_or_else(|| vec![COLUMN.to_owned()]);
    let [column] = target.as_slice() else {
        return Err(range(&key("target"), target.join(", "), "one column with the text, or a template of several"));
    };
    match source.make.as_deref() {
        // The blocks of a template would be cut before it is filled in.
        None if !column.contains('{') => source.make = Some("blocks".into()),
        None | Some("chunks") => {}
        Some("blocks") if !column.contains('{') => {}
        Some(make) => {
            let expected = "\"blocks\" of a column, \"chunks\", or nothing beside a template: plain texts have no questions";
            return Err(range(&key("make"), format!("{make:?} of {column:?}"), expected));
        }
    }
    source.target = Some(OneOrMany::One(column.clone()));
    Ok(source)
}

/// Refuses what only questions and answers have.
pub(super) fn refuse(
    instruction: Option<&str>,
    prepare: Option<&PrepareSection>,
    evaluate: Option<&EvaluateSection>,
    gate: Option<&GateSection>,
) -> Result<(), SpecError> {
    let given = [
        ("data.instruction", instruction.is_some()),
        ("prepare.shuffle_targets", prepare.is_some_and(|prepare| prepare.shuffle_targets == Some(true))),
        ("prepare.label_errors", prepare.is_some_and(|prepare| prepare.label_errors.is_some())),
        ("prepare.conflicts", prepare.is_some_and(|prepare| prepare.conflicts.is_some())),
        ("evaluate.mode", evaluate.is_some_and(|evaluate| evaluate.mode.is_some())),
        ("evaluate.few_shot", evaluate.is_some_and(|evaluate| evaluate.few_shot.is_some())),
        ("evaluate.answer_tokens", evaluate.is_some_and(|evaluate| evaluate.answer_tokens.is_some())),
        ("evaluate.answers", evaluate.is_some_and(|evaluate| evaluate.answers.is_some())),
        ("gate.accuracy_at_least", gate.is_some_and(|gate| gate.accuracy_at_least.is_some())),
        ("gate.macro_f1_at_least", gate.is_some_and(|gate| gate.macro_f1_at_least.is_some())),
        ("gate.field_accuracy_at_least", gate.is_some_and(|gate| gate.field_accuracy_at_least.is_some())),
        ("gate.record_exact_at_least", gate.is_some_and(|gate| gate.record_exact_at_least.is_some())),
        ("gate.valid_json_at_least", gate.is_some_and(|gate| gate.valid_json_at_least.is_some())),
        ("gate.valid_answer_at_least", gate.is_some_and(|gate| gate.valid_answer_at_least.is_some())),
        ("gate.exact_match_at_least", gate.is_some_and(|gate| gate.exact_match_at_least.is_some())),
        ("gate.token_f1_at_least", gate.is_some_and(|gate| gate.token_f1_at_least.is_some())),
    ];
    if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(range(key, "a value beside objective = \"text\"", "nothing: plain texts have no questions and no answers"));
    }
    let arms = evaluate.and_then(|evaluate| evaluate.arms.as_ref());
    if let Some(arm) = arms.into_iter().flatten().find(|arm| !ARMS.contains(&arm.as_str())) {
        return Err(range(
            "evaluate.arms",
            format!("{arm:?} beside objective = \"text\""),
            "\"base\" and \"tuned\": only they have a probability of a text",
        ));
    }
    Ok(())
}
