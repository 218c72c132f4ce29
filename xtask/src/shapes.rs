//! Models of well-known sizes with random weights: to see what fits a machine, and how fast it is, without downloading gigabytes.
//!
//! Qwen 2.5's shapes as llama.cpp writes them in Q4_K_M: Q4_K, with Q6_K for the head, and for values and down projections in
//! half of the layers. The bytes are drawn, so that nothing can be learnt, but each block decodes to numbers of the size that
//! weights have. Tensors are written one after the other; no more than one row is in memory.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask shapes --output DIR [--shape 1.5b|7b] [--length N] [--write-only]

  --output DIR   where the GGUF files go (1.1 GB and 4.7 GB); they stay there
  --shape NAME   one of them [default: both]
  --length N     tokens of the text that is trained on [default: 512]
  --write-only   do not train on them

Then trains two steps of QLoRA on each and prints planned and measured memory and tokens/s, with `--memory recompute` and `keep`.
";

/// The plan may be this much above what is measured, and this much below.
const ABOVE: f64 = 0.05;
const BELOW: f64 = 0.02;
/// Where tensors begin: at multiples of this.
const ALIGNMENT: u64 = 32;
/// Values of a K block.
const BLOCK: u64 = 256;

/// GGML's numbers of the codings, and bytes of 256 values.
#[derive(Clone, Copy, PartialEq)]
enum Coding {
    F32,
    Q4K,
    Q6K,
}

impl Coding {
    fn number(self) -> u32 {
        match self {
            Coding::F32 => 0,
            Coding::Q4K => 12,
            Coding::Q6K => 14,
        }
    }

    fn bytes(self, values: u64) -> u64 {
        match self {
            Coding::F32 => 4 * values,
            Coding::Q4K => values / BLOCK * 144,
            Coding::Q6K => values / BLOCK * 210,
        }
    }
}

/// Sizes of a model.
struct Shape {
    name: &'static str,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    intermediate: u64,
    vocab: u64,
    tied: bool,
}

const LAYERS: u64 = 28;
const HEAD_DIM: u64 = 128;
/// Qwen/Qwen2.5-1.5B and Qwen/Qwen2.5-7B, config.json.
const SHAPES: [Shape; 2] = [
    Shape { name: "1.5b", hidden: 1536, heads: 12, kv_heads: 2, intermediate: 8960, vocab: 151_936, tied: true },
    Shape { name: "7b", hidden: 3584, heads: 28, kv_heads: 4, intermediate: 18_944, vocab: 152_064, tied: false },
];

/// A tensor: its name, its sizes innermost first, how it is coded, and what an F32 one is around.
struct Tensor {
    name: String,
    sizes: Vec<u64>,
    coding: Coding,
    around: f32,
}

/// Writes the files, trains on them, and fails where the planned memory is outside the bounds.
pub(crate) fn shapes(arguments: &[String]) -> Result<()> {
    let (mut output, mut only, mut length, mut write_only) = (None, None, "512".to_owned(), false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().with_context(|| format!("{argument} without a value\n\n{USAGE}"));
        match argument.as_str() {
            "--output" => output = Some(PathBuf::from(value()?)),
            "--shape" => only = Some(value()?),
            "--length" => length = value()?,
            "--write-only" => write_only = true,
            other => bail!("unknown argument {other}\n\n{USAGE}"),
        }
    }
    let output = output.with_context(|| USAGE.to_owned())?;
    let chosen: Vec<&Shape> = SHAPES.iter().filter(|shape| only.as_deref().is_none_or(|only| only == shape.name)).collect();
    ensure!(!chosen.is_empty(), "no such shape\n\n{USAGE}");
    std::fs::create_dir_all(&output)?;
    let mut missed = 0;
    for shape in chosen {
        let path = output.join(format!("qwen2.5-{}-random.Q4_K.gguf", shape.name));
        let bytes = write(shape, &path)?;
        println!("{} ({:.2} GB)", path.display(), bytes as f64 / 1e9);
        if !write_only {
            missed += train(&path, &length)?;
        }
    }
    ensure!(missed == 0, "{missed} configurations are outside -{:.0} % to +{:.0} %", 100.0 * BELOW, 100.0 * ABOVE);
    Ok(())
}

/// Two steps with each policy; gives how many are out of bounds.
fn train(model: &Path, length: &str) -> Result<usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let build = Command::new(env!("CARGO")).args(["build", "--release", "--quiet", "-p", "tunesmith"]).current_dir(root).status()?;
    ensure!(build.success(), "cargo build failed");
    let mut missed = 0;
    for memory in ["recompute", "keep"] {
        let mut command = Command::new(target.join("release/tunesmith"));
        command.args(["bench", "train", "--json", "--steps", "2", "--batch", "1", "--rank", "16", "--length", length]);
        let output = command.args(["--memory", memory, "--model"]).arg(model).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let number = |key: &str| said[key].as_f64().with_context(|| format!("no {key} in {said}"));
        let (planned, measured) = (number("planned_bytes")?, number("peak_rss_bytes")?);
        let off = planned / measured - 1.0;
        let holds = (-BELOW..=ABOVE).contains(&off);
        missed += usize::from(!holds);
        println!(
            "{} 1 x {length}, rank 16, {memory:<9}: planned {:.2} GB, measured {:.2} GB, {:+.1} %; {:.1} tokens/s, {:.0} GFLOP/s on {} threads",
            if holds { "ok  " } else { "MISS" },
            planned / 1e9,
            measured / 1e9,
            100.0 * off,
            number("tokens_per_second")?,
            number("gflops")?,
            number("threads")?
        );
    }
    Ok(missed)
}

/// Writes a model; gives its length.
fn write(shape: &Shape, path: &Path) -> Result<u64> {
    let tensors = tensors(shape);
    let mut out = Counted { inner: BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?), bytes: 0 };
    header(&mut out, shape, &tensors)?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for tensor in &tensors {
        out.pad()?;
        let values: u64 = tensor.sizes.iter().product();
        for _ in 0..values / if tensor.coding == Coding::F32 { 1 } else { BLOCK } {
            match tensor.coding {
                Coding::F32 => out.write_all(&(tensor.around + random.small()).to_le_bytes())?,
                Coding::Q4K => out.write_all(&q4_k(&mut random))?,
                Coding::Q6K => out.write_all(&q6_k(&mut random))?,
            }
        }
    }
    out.inner.flush()?;
    Ok(out.bytes)
}

fn tensors(shape: &Shape) -> Vec<Tensor> {
    let matrix = |name: String, inputs, outputs, coding| Tensor { name, sizes: vec![inputs, outputs], coding, around: 0.0 };
    let vector = |name: String, size, around| Tensor { name, sizes: vec![size], coding: Coding::F32, around };
    let (hidden, queries, keys) = (shape.hidden, shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM);
    // A tied embedding is the head too.
    let mut tensors = vec![matrix("token_embd.weight".into(), hidden, shape.vocab, if shape.tied { Coding::Q6K } else { Coding::Q4K })];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        // llama.cpp gives the first and last eighth, and every third layer between, six bits.
        let middle = (LAYERS / 8..7 * LAYERS / 8).contains(&layer);
        let more = !middle || (layer - LAYERS / 8) % 3 == 2;
        let careful = if more { Coding::Q6K } else { Coding::Q4K };
        tensors.extend([
            vector(name("attn_norm.weight"), hidden, 1.0),
            matrix(name("attn_q.weight"), hidden, queries, Coding::Q4K),
            vector(name("attn_q.bias"), queries, 0.0),
            matrix(name("attn_k.weight"), hidden, keys, Coding::Q4K),
            vector(name("attn_k.bias"), keys, 0.0),
            matrix(name("attn_v.weight"), hidden, keys, careful),
            vector(name("attn_v.bias"), keys, 0.0),
            matrix(name("attn_output.weight"), queries, hidden, Coding::Q4K),
            vector(name("ffn_norm.weight"), hidden, 1.0),
            matrix(name("ffn_gate.weight"), hidden, shape.intermediate, Coding::Q4K),
            matrix(name("ffn_up.weight"), hidden, shape.intermediate, Coding::Q4K),
            matrix(name("ffn_down.weight"), shape.intermediate, hidden, careful),
        ]);
    }
    tensors.push(vector("output_norm.weight".into(), hidden, 1.0));
    if !shape.tied {
        tensors.push(matrix("output.weight".into(), hidden, shape.vocab, Coding::Q6K));
    }
    tensors
}

/// Magic, counts, metadata and the list of tensors, padded to where the first one begins.
fn header(out: &mut Counted, shape: &Shape, tensors: &[Tensor]) -> Result<()> {
    const U32: u32 = 4;
    const F32: u32 = 6;
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    const I32: u32 = 5;
    let mut pairs: Vec<(String, u32, Vec<u8>)> = Vec::new();
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    for (key, value) in [("general.architecture", "qwen2"), ("general.name", "random weights"), ("tokenizer.ggml.model", "gpt2")] {
        pairs.push((key.into(), TEXT, text(value)));
    }
    pairs.push(("tokenizer.ggml.pre".into(), TEXT, text("qwen2")));
    pairs.push(("tokenizer.chat_template".into(), TEXT, text("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")));
    for (key, value) in [
        ("qwen2.block_count", LAYERS),
        ("qwen2.context_length", 32_768),
        ("qwen2.embedding_length", shape.hidden),
        ("qwen2.feed_forward_length", shape.intermediate),
        ("qwen2.attention.head_count", shape.heads),
        ("qwen2.attention.head_count_kv", shape.kv_heads),
        ("general.quantization_version", 2),
    ] {
        pairs.push((key.into(), U32, (value as u32).to_le_bytes().to_vec()));
    }
    for (key, value) in [("qwen2.rope.freq_base", 1e6f32), ("qwen2.attention.layer_norm_rms_epsilon", 1e-6)] {
        pairs.push((key.into(), F32, value.to_le_bytes().to_vec()));
    }
    let tokens = tokens(shape.vocab);
    for (role, token) in [("eos", "<|im_end|>"), ("padding", "<|endoftext|>")] {
        let id = position(&tokens, token)?;
        pairs.push((format!("tokenizer.ggml.{role}_token_id"), U32, id.to_le_bytes().to_vec()));
    }
    let array = |kind: u32, count: usize, items: Vec<u8>| [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), &items].concat();
    let names: Vec<u8> = tokens.iter().flat_map(|(token, _)| text(token)).collect();
    let kinds: Vec<u8> = tokens.iter().flat_map(|(_, kind)| kind.to_le_bytes()).collect();
    pairs.push(("tokenizer.ggml.tokens".into(), ARRAY, array(TEXT, tokens.len(), names)));
    pairs.push(("tokenizer.ggml.token_type".into(), ARRAY, array(I32, tokens.len(), kinds)));
    pairs.push(("tokenizer.ggml.merges".into(), ARRAY, array(TEXT, 1, text("Ġ t"))));

    out.write_all(b"GGUF")?;
    out.write_all(&3u32.to_le_bytes())?;
    out.write_all(&(tensors.len() as u64).to_le_bytes())?;
    out.write_all(&(pairs.len() as u64).to_le_bytes())?;
    for (key, kind, value) in pairs {
        out.write_all(&text(&key))?;
        out.write_all(&kind.to_le_bytes())?;
        out.write_all(&value)?;
    }
    let mut offset = 0;
    for tensor in tensors {
        out.write_all(&text(&tensor.name))?;
        out.write_all(&(tensor.sizes.len() as u32).to_le_bytes())?;
        for size in &tensor.sizes {
            out.write_all(&size.to_le_bytes())?;
        }
        out.write_all(&tensor.coding.number().to_le_bytes())?;
        out.write_all(&u64::to_le_bytes(offset))?;
        offset += tensor.coding.bytes(tensor.sizes.iter().product()).next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

/// A byte-level vocabulary that can say everything: 256 bytes, one merge, three special tokens, and unused ones up to `vocab`.
fn tokens(vocab: u64) -> Vec<(String, i32)> {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const UNUSED: i32 = 5;
    // GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on.
    let plain = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let mut tokens: Vec<(String, i32)> = Vec::new();
    for byte in 0..=255u32 {
        let point = if plain(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        tokens.push((char::from_u32(point).expect("a letter").to_string(), NORMAL));
    }
    tokens.push(("Ġt".into(), NORMAL));
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|token| (token.to_owned(), CONTROL)));
    tokens.extend((tokens.len() as u64..vocab).map(|id| (format!("[PAD{id}]"), UNUSED)));
    tokens
}

fn position(tokens: &[(String, i32)], token: &str) -> Result<u32> {
    tokens.iter().position(|(text, _)| text == token).map(|at| at as u32).with_context(|| format!("no {token}"))
}

/// 256 values d·32·(q − 7.5) with q from 0 to 15: standard deviation about 0.02.
fn q4_k(random: &mut Random) -> [u8; 144] {
    let mut block = [0; 144];
    block[..2].copy_from_slice(&0x0875u16.to_le_bytes()); // d = 1.36e-4 as f16
    block[2..4].copy_from_slice(&0x142Eu16.to_le_bytes()); // 7.5 d
    block[4..12].fill(0xA0); // every scale and minimum is 32
    random.fill(&mut block[16..]);
    block
}

/// 256 values d·16·(q − 32) with q from 0 to 63: standard deviation about 0.02.
fn q6_k(random: &mut Random) -> [u8; 210] {
    let mut block = [0; 210];
    random.fill(&mut block[..192]);
    block[192..208].fill(16);
    block[208..].copy_from_slice(&0x0475u16.to_le_bytes()); // d = 6.8e-5 as f16
    block
}

/// xorshift64*: fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// From −0.05 to 0.05.
    fn small(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.1
    }
}

/// Counts what is written.
struct Counted {
    inner: BufWriter<std::fs::File>,
    bytes: u64,
}

impl Counted {
    fn pad(&mut self) -> Result<()> {
        let missing = self.bytes.next_multiple_of(ALIGNMENT) - self.bytes;
        Ok(self.write_all(&vec![0; missing as usize])?)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(bits: u16) -> f32 {
        let (exponent, mantissa) = ((bits >> 10 & 31) as i32, f32::from(bits & 1023));
        (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15)
    }

    #[test]
    fn scales_and_vocabulary_are_as_said() {
        let mut random = Random(1);
        let block = q4_k(&mut random);
        let (d, least) = (half(u16::from_le_bytes([block[0], block[1]])), half(u16::from_le_bytes([block[2], block[3]])));
        assert!((least / d - 7.5).abs() < 0.02 && (d * 32.0 * 4.61 - 0.02).abs() < 5e-4, "{d} {least}");
        let block = q6_k(&mut random);
        let d = half(u16::from_le_bytes([block[208], block[209]]));
        assert!((d * 16.0 * 18.47 - 0.02).abs() < 5e-4, "{d}");
        let tokens = tokens(1000);
        assert_eq!((tokens.len(), tokens[b'A' as usize].0.as_str(), tokens[b' ' as usize].0.as_str()), (1000, "A", "Ġ"));
    }

    #[test]
    fn parameters_are_those_of_the_models() {
        let count = |shape: &Shape| tensors(shape).iter().map(|tensor| tensor.sizes.iter().product::<u64>()).sum::<u64>();
        assert_eq!(count(&SHAPES[0]), 1_543_714_304);
        assert_eq!(count(&SHAPES[1]), 7_615_616_512);
    }
}
