//! A tiny base and a tiny project: what the program's tests and `cargo xtask crash` tune.
//!
//! The base is a random two-layer Llama over golden/tokenizer/tiny.json: it knows nothing, costs milliseconds, and
//! can be taught. Weights and rows are functions of constants, so every test is the same every time.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Positions of the tiny base.
pub(crate) const CONTEXT: usize = 512;
/// Width of the tiny base.
pub(crate) const HIDDEN: usize = 64;
/// Writes the base as a Hugging Face folder.
pub(crate) fn base(folder: &Path, tokenizer: &Path, context: usize, hidden: usize) {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": hidden, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": context,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1,
        "eos_token_id": 2, "torch_dtype": "float32",
    });
    let tokenizer_config =
        json!({ "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer", "chat_template": CHATML });
    write(folder, "config.json", config.to_string());
    write(folder, "model.safetensors", safetensors(&weights(hidden)));
    write(folder, "tokenizer.json", fs::read(tokenizer).expect("the tiny tokenizer is committed"));
    write(folder, "tokenizer_config.json", tokenizer_config.to_string());
}

/// Writes `tickets.csv` and `tunesmith.toml`, which expects the base as `base` in the current folder.
pub(crate) fn tickets_project(folder: &Path) {
    write(folder, "tickets.csv", tickets());
    write(folder, "tunesmith.toml", run_file());
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(name), text)).expect("the test's own folder");
}

const VOCAB: usize = 1402;
const INNER: usize = 48;
const LAYERS: usize = 2;
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A tensor of f32.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The tiny base's weights: uniform around 0 (norms around 1), by splitmix64.
pub(crate) fn weights(hidden: usize) -> Vec<Tensor> {
    let (inner, keys) = (INNER, hidden / 2);
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, hidden]), ("model.norm.weight".into(), vec![hidden])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut state = 11u64;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let middle = if shape.len() == 1 { 1.0 } else { 0.0 };
        let values = (0..shape.iter().product()).map(|_| middle + 0.6 * uniform() - 0.3).collect();
        Tensor { name, shape, values }
    };
    shapes.into_iter().map(tensor).collect()
}

/// A safetensors file.
pub(crate) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(tensor.name.clone(), json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.len()] }));
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes(), &data].concat()
}

const INTENTS: [(&str, [&str; 4]); 4] = [
    ("delivery", ["Where is my {}?", "The {} has not arrived.", "When will you send the {}?", "Still waiting for my {}."]),
    ("refund", ["I want my money back for the {}.", "Please refund the {}.", "Return the price of the {}.", "I send the {} back, pay me."]),
    ("broken", ["The {} is broken.", "My {} does not work.", "The {} came in pieces.", "One side of the {} is cracked."]),
    ("advice", ["Is the {} good for a small room?", "Which {} do you advise?", "How big is the {}?", "Does the {} come in blue?"]),
];
const PRODUCTS: [&str; 4] = ["lamp", "chair", "table", "clock"];

/// 64 rows with id, customer, message, intent, product and order; each customer has two.
pub(crate) fn tickets() -> String {
    let mut text = "id,customer,message,intent,product,order\n".to_owned();
    for row in 0..64 {
        let (intent, phrases) = INTENTS[row % 4];
        let (phrase, product) = (phrases[row / 4 % 4], PRODUCTS[row / 16]);
        let order = if row % 3 == 0 { (4000 + row).to_string() } else { String::new() };
        let message = phrase.replace("{}", product) + &if order.is_empty() { String::new() } else { format!(" Order {order}.") };
        text += &format!("t{row:02},c{:02},\"{message}\",{intent},{product},{order}\n", row / 2);
    }
    text
}

/// Its run file: records as answers, all arms, a gate that only wants to beat few-shot.
pub(crate) fn run_file() -> String {
    r#"[project]
name = "tickets"
goal = "Turn each message into the helpdesk's record"
[model]
base = "base"
[[data.source]]
path = "tickets.csv"
input = "message"
target = ["intent", "product", "order"]
group = "customer"
id = "id"
[prepare]
split = { test = 0.3, validation = 0.1, stratify = "intent" }
[tune]
rank = 4
epochs = 4
batch = 6
learning_rate = 0.005
[evaluate]
answer_tokens = 24
[gate]
beats = ["few-shot"]
"#
    .to_owned()
}
