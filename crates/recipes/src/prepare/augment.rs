//! Augmented copies of the training records, from the lists that the plan names.

use std::path::Path;

use data::Spill;
use data::augment::{self, Augment};
use data::pipeline::Finished;

use super::WORDS_BYTES_MAX;
use crate::error::Result;
use crate::report::facts::{AugmentFacts, DataFacts};
use crate::spec::RunPlan;

/// What copies there are to be; nothing where none are asked for. `folder` is the run file's.
pub(super) fn planned(plan: &RunPlan, folder: &Path) -> Result<Option<Augment>> {
    let asked = &plan.prepare.augment;
    if asked.copies == 0 {
        return Ok(None);
    }
    let list = |path: &Path| match path.as_os_str().is_empty() {
        true => Ok(None),
        false => {
            Ok::<_, crate::error::Error>(Some((path.display().to_string(), store::atomic::read_text(&folder.join(path), WORDS_BYTES_MAX)?)))
        }
    };
    let mut augment = Augment { copies: asked.copies, typos: asked.typos, case: asked.case, seed: plan.project.seed, ..Augment::default() };
    if let Some((name, text)) = list(&asked.synonyms)? {
        augment.synonyms = augment::synonyms(&name, &text)?;
    }
    if let Some((name, text)) = list(&asked.vocabulary)? {
        augment.vocabulary = augment::vocabulary(&name, &text)?;
    }
    if let Some((name, text)) = list(&asked.templates)? {
        augment.templates = augment::templates(&name, &text, &augment.vocabulary)?;
    }
    Ok(Some(augment))
}

/// Makes them, once the split is done and balanced.
pub(super) fn look(plan: &RunPlan, folder: &Path, finished: &mut Finished, spill: &dyn Spill, facts: &mut DataFacts) -> Result<()> {
    let Some(augment) = planned(plan, folder)? else { return Ok(()) };
    let done = finished.augment(&augment, spill)?;
    facts.augmented =
        AugmentFacts { kinds: done.kinds.into_iter().collect(), unchanged: done.unchanged, held_out: done.held_out, known: done.known };
    if facts.augmented.copies() == 0 {
        facts.warnings.push("no augmented copy could be made: nothing in the records can be changed as asked".into());
    }
    Ok(())
}
