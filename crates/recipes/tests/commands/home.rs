//! A folder of its own for each test, with tiny models in it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::adapter::{Adapter, LoraConfig};
use engine::config::Linear;
use engine::random::{self, Purpose};
use families::tensors::{Naming, expected};
use recipes::context::{Clock, Context, Event, HubSettings, MemoryPolicy, Observer};
use serde_json::{Value, json};
use store::Dtype;
use store::peft::{AdapterTensor, PeftAdapter, PeftConfig, TargetModules};
use store::safetensors::{self, TensorData};

/// Removed when the test ends.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new() -> Home {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("home-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        store::atomic::create_folder(&path).unwrap();
        Home(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        store::atomic::create_folder(path.parent().unwrap()).unwrap();
        store::atomic::write(&path, text.as_ref()).unwrap();
        path
    }

    pub(crate) fn context(&self) -> Context<'static> {
        Context {
            workspace: self.0.clone(),
            cache: self.path("cache"),
            python: vec!["no-such-python".into()],
            hub: HubSettings::cache_only(self.path("hub")),
            threads: 2,
            memory: MemoryPolicy::Keep,
            entropy: [7; 32],
            clock: &StandingClock,
        }
    }

    /// One of golden/models as a whole Hugging Face folder.
    pub(crate) fn golden_model(&self, name: &str) -> String {
        for file in ["config.json", "model.safetensors"] {
            let bytes = store::atomic::read(&golden(&format!("models/{name}/{file}")), 1 << 20).unwrap();
            self.write(&format!("{name}/{file}"), bytes);
        }
        // As many tokens as the model has, of which only those of the template mean something.
        let special = |id: u64, content: &str| json!({ "id": id, "content": content, "special": true });
        let vocab: serde_json::Map<String, Value> =
            (0..128u64).filter(|id| !(1..=2).contains(id)).map(|id| (format!("token{id}"), id.into())).collect();
        let tokenizer = json!({
            "added_tokens": [special(1, "<|im_start|>"), special(2, "<|im_end|>")],
            "model": { "type": "BPE", "vocab": vocab, "merges": [] },
            "decoder": { "type": "Fuse" },
        });
        self.tokenizer(name, tokenizer.to_string().as_bytes())
    }

    /// Gives one of golden/models a byte-level tokenizer of single characters, as far as its vocabulary reaches, in place of
    /// one that no GGUF file can say.
    pub(crate) fn byte_level(&self, name: &str) {
        let config = store::atomic::read_json(&self.path(&format!("{name}/config.json")), 1 << 20).unwrap();
        let rows = config["vocab_size"].as_u64().unwrap();
        let special = |id: u64, content: &str| json!({ "id": id, "content": content, "special": true });
        // "Ġ" and "Ċ" are space and line end in the alphabet of bytes.
        let characters = "ĠĊetaoinshrdlucmfwypvbgkqjxzETAOINSHRDLUCMFWYPVBGKQJXZ0123456789.,:;!?'\"-()[]{}";
        let ids = (0..rows).filter(|id| !(1..=2).contains(id));
        let vocab: serde_json::Map<String, Value> = characters.chars().zip(ids).map(|(c, id)| (c.to_string(), id.into())).collect();
        let byte_level =
            |use_regex| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let tokenizer = json!({
            "added_tokens": [special(1, "<|im_start|>"), special(2, "<|im_end|>")],
            "pre_tokenizer": byte_level(true),
            "model": { "type": "BPE", "vocab": vocab, "merges": [] },
            "decoder": byte_level(true),
        });
        self.tokenizer(name, tokenizer.to_string().as_bytes());
    }

    /// A random Llama over the tiny tokenizer's vocabulary, with ChatML.
    pub(crate) fn tiny_model(&self) -> String {
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1402, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
        });
        let described = families::hugging_face::describe(&config).unwrap();
        let placed = expected(&described, Naming::HuggingFace);
        let bytes: Vec<Vec<u8>> = placed
            .iter()
            .enumerate()
            .map(|(index, tensor)| {
                let key = random::key(11, Purpose::Test, &[index as u64]);
                let len: usize = tensor.shape.iter().product();
                let middle = if tensor.shape.len() == 1 { 1.0 } else { 0.0 };
                (0..len as u64).flat_map(|i| (middle + 0.6 * random::uniform(key, i) - 0.3).to_le_bytes()).collect()
            })
            .collect();
        let tensors: Vec<TensorData<'_>> = placed
            .iter()
            .zip(&bytes)
            .map(|(tensor, bytes)| TensorData { name: &tensor.source, dtype: Dtype::F32, shape: &tensor.shape, bytes })
            .collect();
        self.write("tiny/config.json", config.to_string());
        safetensors::write(&self.path("tiny/model.safetensors"), &tensors, &safetensors::pytorch_metadata()).unwrap();
        self.tokenizer("tiny", &store::atomic::read(&golden("tokenizer/tiny.json"), 1 << 20).unwrap())
    }

    fn tokenizer(&self, model: &str, json: &[u8]) -> String {
        self.write(&format!("{model}/tokenizer.json"), json);
        let config = json!({
            "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer",
            "chat_template": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        });
        self.write(&format!("{model}/tokenizer_config.json"), config.to_string());
        self.path(model).display().to_string()
    }

    /// golden.safetensors' adapter, as `peft` left it at the start of the ten steps.
    pub(crate) fn golden_adapter(&self, model: &str) -> PathBuf {
        let file = safetensors::SafetensorsFile::open(&golden(&format!("models/{model}/golden.safetensors"))).unwrap();
        let names: Vec<String> =
            file.tensors().iter().map(|tensor| tensor.name.clone()).filter(|name| name.starts_with("adapter.start.")).collect();
        let tensors = names.iter().map(|name| {
            let shape = file.tensor(name).unwrap().shape.clone();
            (name.trim_start_matches("adapter.start.").to_owned(), AdapterTensor { shape, values: file.read_f32(name).unwrap() })
        });
        let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(str::to_owned).to_vec();
        let config = PeftConfig {
            base_model: None,
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            dora: false,
            target_modules: TargetModules::List(modules),
            layers: None,
        };
        let folder = self.path(&format!("{model}-adapter"));
        PeftAdapter { config, tensors: tensors.collect(), lineage: None }.write(&folder, "golden").unwrap();
        folder
    }
}

impl Drop for Home {
    #[expect(clippy::disallowed_methods, reason = "the test's own folder")]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A committed file.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> String {
        "2026-11-24T06:38:31Z".into()
    }

    fn seconds(&self) -> f64 {
        thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) }); // tests beside this one have their own
        CALLS.replace(CALLS.get() + 1) as f64
    }
}

/// Keeps warnings.
#[derive(Default)]
pub(crate) struct Listener(pub(crate) Vec<String>);

impl Observer for Listener {
    fn event(&mut self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.push(text);
        }
    }

    fn stopped(&self) -> bool {
        false
    }
}

/// A fresh adapter's configuration.
pub(crate) fn lora(rank: usize) -> LoraConfig {
    LoraConfig {
        rank,
        alpha: 2.0 * rank as f32,
        rslora: false,
        dropout: 0.0,
        dora: false,
        pissa: false,
        targets: Linear::ALL.to_vec(),
        layers: None,
    }
}

/// Its folder, B zero as it is before training.
pub(crate) fn fresh_adapter(home: &Home, model: &Path, rank: usize) -> PathBuf {
    let config = store::atomic::read_json(&model.join("config.json"), 1 << 20).unwrap();
    let config = families::hugging_face::describe(&config).unwrap().config;
    let adapter = Adapter::init(&lora(rank), &config, 3).unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    for (&(layer, linear), pair) in &adapter.tensors {
        let (out, inner) = config.adapter_shape(linear);
        let name = |half| families::adapters::tensor_name(&config, layer, linear, half);
        tensors.insert(name(families::adapters::Half::A), AdapterTensor { shape: vec![rank, inner], values: pair.a.clone() });
        tensors.insert(name(families::adapters::Half::B), AdapterTensor { shape: vec![out, rank], values: pair.b.clone() });
    }
    let modules = families::adapters::target_modules(&config, &Linear::ALL);
    let config = PeftConfig {
        base_model: None,
        rank,
        alpha: 2.0 * rank as f64,
        dropout: 0.0,
        rslora: false,
        dora: false,
        target_modules: TargetModules::List(modules),
        layers: None,
    };
    let folder = home.path("fresh-adapter");
    PeftAdapter { config, tensors, lineage: None }.write(&folder, "fresh").unwrap();
    folder
}
