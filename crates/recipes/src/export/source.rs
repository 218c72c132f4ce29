//! What is exported: the adapter of a run, or an adapter folder with its base.

use std::path::{Path, PathBuf};

use store::peft::PeftAdapter;

use super::ExportOptions;
use crate::base::{self, Base};
use crate::context::{Context, Observer};
use crate::error::{Error, Result};
use crate::runs;
use crate::tune_full::MODEL_FOLDER;

/// An adapter and where its base is.
pub(super) struct Source {
    /// PEFT folder.
    pub(super) adapter: PathBuf,
    /// The run that made it.
    pub(super) run: Option<PathBuf>,
    /// Built-in template in place of the base's; empty: its own.
    pub(super) template: String,
    base: Option<String>,
    storage: String,
}

impl Source {
    pub(super) fn find(context: &Context<'_>, options: &ExportOptions) -> Result<Source> {
        let given = Path::new(&options.source);
        if given.join(store::peft::CONFIG_FILE).exists() {
            let named = PeftAdapter::read_config(given)?.base_model;
            let base = options.model.clone().or(named);
            return Ok(Source { adapter: given.to_owned(), run: None, template: String::new(), base, storage: options.storage.clone() });
        }
        let run = runs::find(context, &options.source)?;
        let adapter = run.join("adapter");
        let model = run.join(MODEL_FOLDER);
        if model.exists() {
            return Err(Error::Mismatch {
                what: "export",
                given: format!("a run of full fine-tuning, whose model is a Hugging Face folder already: {}", model.display()),
                expected: "a run with an adapter".into(),
            });
        }
        if !adapter.exists() {
            return Err(Error::NotYet { id: runs::id(&run), what: "adapter" });
        }
        if options.model.is_some() {
            let (given, expected) = ("beside a run, which has its own".into(), "it beside an adapter folder".into());
            return Err(Error::Mismatch { what: "--model", given, expected });
        }
        let plan = runs::plan(&run)?;
        let base = base::beside(&plan.model.base, &runs::sources_folder(&run)?);
        // What was evaluated is what is merged, unless the user says otherwise.
        let storage = if options.storage.is_empty() { plan.model.storage } else { options.storage.clone() };
        Ok(Source { adapter, run: Some(run), template: plan.model.template, base: Some(base), storage })
    }

    /// The base, held as it is to be merged.
    pub(super) fn base(&self, context: &Context<'_>, observer: &mut dyn Observer) -> Result<Base> {
        let name = self.base.as_ref().ok_or_else(|| Error::Mismatch {
            what: "--model",
            given: "not given, and the adapter names no base".into(),
            expected: "the model that the adapter was trained on".into(),
        })?;
        Base::open(context, observer, name, &self.template)?.held_as(&self.storage)
    }
}
