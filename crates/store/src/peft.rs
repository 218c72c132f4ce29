//! PEFT adapter folders: written as `peft` writes them, read as it left them.
//!
//! A folder holds `adapter_config.json` (two spaces, sorted keys, ASCII, no newline at the end, as Python's
//! `json.dumps` leaves it), `adapter_model.safetensors`, `README.md`, and our own `tunesmith.json` for
//! lineage: `peft` drops unknown keys of its own file with a warning, so nothing of ours stands there.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::atomic::{self, PendingFolder};
use crate::safetensors::{self, SafetensorsFile, TensorData};
use crate::{Dtype, PeftFault as Fault, Result, StoreError};

/// The settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Our sidecar.
pub const LINEAGE_FILE: &str = "tunesmith.json";
/// Higher ranks are refused.
pub const MAX_RANK: usize = 4096;
/// Higher alphas are refused: they would overflow long before they helped.
pub const MAX_ALPHA: f64 = 65_536.0;
const MAX_JSON_BYTES: u64 = 16 << 20;

/// The linear layers that carry the adapter.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetModules {
    /// Last parts of module names, such as `q_proj`.
    List(Vec<String>),
    /// A regular expression, or "all-linear".
    Pattern(String),
}

/// adapter_config.json of a LoRA adapter, as far as it changes arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `r`.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `lora_dropout`.
    pub dropout: f64,
    /// `use_rslora`: scaling alpha / sqrt(r) instead of alpha / r.
    pub rslora: bool,
    /// `use_dora`: each module has a `lora_magnitude_vector` too.
    pub dora: bool,
    /// `target_modules`.
    pub target_modules: TargetModules,
    /// `layers_to_transform`: the blocks that carry the adapter; `None`: all.
    pub layers: Option<Vec<usize>>,
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTensor {
    /// `[r, in]`, `[out, r]`, or `[out]`.
    pub shape: Vec<usize>,
    /// Row major.
    pub values: Vec<f32>,
}

/// An adapter: settings, tensors by PEFT name, and our own sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftAdapter {
    /// adapter_config.json.
    pub config: PeftConfig,
    /// adapter_model.safetensors, by name such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub tensors: BTreeMap<String, AdapterTensor>,
    /// tunesmith.json: lineage, where there is one.
    pub lineage: Option<Value>,
}

impl PeftAdapter {
    /// Writes the folder as a whole, replacing one that stood there; `readme` is README.md's text.
    pub fn write(&self, folder: &Path, readme: &str) -> Result<()> {
        let pending = PendingFolder::create(folder)?;
        self.write_into(&pending)?;
        pending.write("README.md", readme.as_bytes())?;
        pending.commit()
    }

    /// The adapter's files but README.md, into a folder being written.
    pub fn write_into(&self, pending: &PendingFolder) -> Result<()> {
        pending.write(CONFIG_FILE, config_json(&self.config).as_bytes())?;
        pending.write(WEIGHTS_FILE, &tensor_bytes(&self.tensors)?)?;
        if let Some(lineage) = &self.lineage {
            pending.write(LINEAGE_FILE, format!("{lineage:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// adapter_config.json alone; refuses what [`PeftAdapter::read`] refuses in it.
    pub fn read_config(folder: &Path) -> Result<PeftConfig> {
        let path = folder.join(CONFIG_FILE);
        parse_config(&atomic::read_object(&path, MAX_JSON_BYTES)?).map_err(|fault| StoreError::peft(&path, fault))
    }

    /// Reads a folder written by `peft` or by us; whatever would change the arithmetic and is not done here is refused by name.
    pub fn read(folder: &Path) -> Result<Self> {
        let config = Self::read_config(folder)?;
        let weights = folder.join(WEIGHTS_FILE);
        if !weights.exists() && folder.join("adapter_model.bin").exists() {
            return Err(StoreError::peft(folder, Fault::Pickle));
        }
        let tensors = read_tensors(&weights)?;
        if tensors.is_empty() {
            return Err(StoreError::peft(&weights, Fault::Empty));
        }
        let lineage = match atomic::read_json(&folder.join(LINEAGE_FILE), MAX_JSON_BYTES) {
            Ok(lineage) => Some(lineage),
            Err(StoreError::Missing { .. }) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { config, tensors, lineage })
    }
}

/// The bytes of a safetensors file with these f32 tensors.
///
/// # Errors
/// [`StoreError::Peft`] where values and shape disagree.
fn tensor_bytes(tensors: &BTreeMap<String, AdapterTensor>) -> Result<Vec<u8>> {
    let mut coded = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(tensor.values.len()) {
            let fault = Fault::Values { name: name.clone(), given: tensor.values.len(), shape: tensor.shape.clone() };
            return Err(StoreError::peft(Path::new(WEIGHTS_FILE), fault));
        }
        coded.push(tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
    let views: Vec<_> =
        tensors.iter().zip(&coded).map(|((name, t), bytes)| TensorData { name, dtype: Dtype::F32, shape: &t.shape, bytes }).collect();
    safetensors::to_bytes(&views, &safetensors::pytorch_metadata())
}

/// All tensors of a safetensors file, as f32.
fn read_tensors(path: &Path) -> Result<BTreeMap<String, AdapterTensor>> {
    let file = SafetensorsFile::open(path)?;
    file.tensors().iter().map(|t| Ok((t.name.clone(), AdapterTensor { shape: t.shape.clone(), values: file.read_f32(&t.name)? }))).collect()
}

/// The bytes of adapter_config.json, as `peft` writes them: the stable core of its keys; the newer ones have
/// defaults that mean "not used", and `peft_version` is left out, for no `peft` wrote this.
pub fn config_json(config: &PeftConfig) -> String {
    let targets = match &config.target_modules {
        TargetModules::List(names) => json!(names),
        TargetModules::Pattern(pattern) => json!(pattern),
    };
    let keys = BTreeMap::from([
        ("alpha_pattern", json!({})),
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", json!(config.base_model)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("layer_replication", Value::Null),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", json!(config.layers)),
        ("loftq_config", json!({})),
        ("lora_alpha", number(config.alpha)),
        ("lora_dropout", json!(shortest(config.dropout))),
        ("megatron_config", Value::Null),
        ("megatron_core", json!("megatron.core")),
        ("modules_to_save", Value::Null),
        ("peft_type", json!("LORA")),
        ("r", json!(config.rank)),
        ("rank_pattern", json!({})),
        ("revision", Value::Null),
        ("target_modules", targets),
        ("task_type", json!("CAUSAL_LM")),
        ("use_dora", json!(config.dora)),
        ("use_rslora", json!(config.rslora)),
    ]);
    ascii(&serde_json::to_string_pretty(&keys).expect("plain values always serialise"))
}

/// Whole numbers without a fraction, as Python writes an int.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(shortest(value)) }
}

/// What was an f32 is written as briefly as an f32 (0.05, not 0.05000000074505806); reading it back as f32 gives the same.
fn shortest(value: f64) -> f64 {
    let single = value as f32;
    if f64::from(single) == value { single.to_string().parse().unwrap_or(value) } else { value }
}

/// Python's `ensure_ascii`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// Keys that change the arithmetic, and the sentence for what is read; every other value of theirs but
/// null, false, `[]`, `{}` is refused. Unknown keys are tolerated, as `peft` does.
const MUST_BE_UNUSED: [(&str, &str); 14] = [
    ("use_qalora", "false (no QALoRA)"),
    ("use_bdlora", "null (no BD-LoRA)"),
    ("lora_bias", "false"),
    ("fan_in_fan_out", "false"),
    ("modules_to_save", "null (no modules trained in full)"),
    ("rank_pattern", "{} (one rank)"),
    ("alpha_pattern", "{} (one alpha)"),
    ("layer_replication", "null"),
    ("trainable_token_indices", "null"),
    ("target_parameters", "null"),
    ("alora_invocation_tokens", "null (no activated LoRA)"),
    ("arrow_config", "null"),
    ("kasa_config", "null"),
    ("monteclora_config", "null"),
];

/// Starts that change the base weights; an adapter left unconverted needs that residual base.
const CHANGES_BASE: [&str; 6] = ["pissa", "olora", "corda", "loftq", "lora_ga", "mica"];

fn parse_config(value: &Value) -> std::result::Result<PeftConfig, Fault> {
    let method = value.get("peft_type").ok_or(Fault::Missing { key: "peft_type" })?;
    if method != "LORA" {
        return Err(Fault::Method { given: brief(method) });
    }
    for (key, expected) in MUST_BE_UNUSED {
        if let Some(given) = value.get(key).filter(|v| !unused(v)) {
            return Err(Fault::Unsupported { key, given: brief(given), expected });
        }
    }
    if let Some(given) = value.get("bias").filter(|v| !v.is_null() && *v != "none") {
        return Err(Fault::Unsupported { key: "bias", given: brief(given), expected: "\"none\"" });
    }
    if let Some(task) = value.get("task_type").filter(|v| !v.is_null() && *v != "CAUSAL_LM") {
        return Err(Fault::Unsupported { key: "task_type", given: brief(task), expected: "CAUSAL_LM" });
    }
    let start = value.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if CHANGES_BASE.iter().any(|s| start.starts_with(s)) {
        let expected = "a start that leaves the base as it is (convert the adapter with peft's path_initial_model_for_weight_conversion)";
        return Err(Fault::Unsupported { key: "init_lora_weights", given: brief(&json!(start)), expected });
    }
    let target_modules = match value.get("target_modules") {
        Some(Value::String(pattern)) => TargetModules::Pattern(pattern.clone()),
        Some(given @ Value::Array(names)) => {
            let texts: Option<Vec<String>> = names.iter().map(|n| n.as_str().map(str::to_owned)).collect();
            TargetModules::List(texts.ok_or_else(|| Fault::Unsupported {
                key: "target_modules",
                given: brief(given),
                expected: "a list of names or a pattern",
            })?)
        }
        None | Some(Value::Null) => return Err(Fault::Missing { key: "target_modules" }),
        Some(given) => {
            return Err(Fault::Unsupported { key: "target_modules", given: brief(given), expected: "a list of names or a pattern" });
        }
    };
    let layers = layers(value)?;
    let rank = ranged(value, "r", 8.0, 1.0, MAX_RANK as f64)?;
    if rank.fract() != 0.0 {
        return Err(Fault::Range { key: "r", given: rank.to_string(), low: 1.0, high: MAX_RANK as f64 });
    }
    Ok(PeftConfig {
        base_model: value.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
        rank: rank as usize,
        alpha: ranged(value, "lora_alpha", 8.0, f64::MIN_POSITIVE, MAX_ALPHA)?,
        dropout: ranged(value, "lora_dropout", 0.0, 0.0, 1.0)?,
        rslora: truth(value, "use_rslora")?,
        dora: truth(value, "use_dora")?,
        target_modules,
        layers,
    })
}

/// `layers_to_transform`: a block's number or a list of them. `layers_pattern` is what the model calls its list of blocks,
/// which `peft` finds by itself where it is not given.
fn layers(value: &Value) -> std::result::Result<Option<Vec<usize>>, Fault> {
    if let Some(given) = value.get("layers_pattern").filter(|v| !unused(v) && **v != "layers" && **v != json!(["layers"])) {
        return Err(Fault::Unsupported { key: "layers_pattern", given: brief(given), expected: "null or \"layers\"" });
    }
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let listed = match value.get("layers_to_transform") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items.iter().map(number).collect(),
        Some(one) => number(one).map(|number| vec![number]),
    };
    let given = || brief(value.get("layers_to_transform").unwrap_or(&Value::Null));
    listed.map(Some).ok_or_else(|| Fault::Unsupported { key: "layers_to_transform", given: given(), expected: "numbers of blocks" })
}

/// A truth value of the file; false where it is absent.
fn truth(value: &Value, key: &'static str) -> std::result::Result<bool, Fault> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(given) => Err(Fault::Unsupported { key, given: brief(given), expected: "true or false" }),
    }
}

/// A number of the file, or `peft`'s default where the key is absent.
fn ranged(value: &Value, key: &'static str, default: f64, low: f64, high: f64) -> std::result::Result<f64, Fault> {
    let Some(given) = value.get(key) else { return Ok(default) };
    match given.as_f64() {
        Some(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(Fault::Range { key, given: brief(given), low, high }),
    }
}

fn unused(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => Map::is_empty(items),
        _ => false,
    }
}

fn brief(value: &Value) -> String {
    crate::error::shown(&value.to_string())
}
