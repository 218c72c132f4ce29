"""The tiny models of golden/models as GGUF files, in llama.cpp: largest difference of logits from PyTorch's over the largest logit, as JSON.
Usage: gguf_families.py golden/models WORK

The files are written here as convert_hf_to_gguf.py writes them: its names, the rows of Llama's q and k interleaved, 1 added to Gemma's gains.
Where llama.cpp computes something else than transformers, the comparison leaves that out: it knows no windows in Llama, Qwen 2 and Phi 3 (rows
before a window is full), takes Gemma 2's scale for granted (which is put into q), chooses Phi 3's rotary factors by the size of its cache, which it makes
a multiple of 256 (so that the file says another original context), and looks GELU up in a table of f16 (so does PyTorch here, for Gemma)."""
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

BLOCK = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_feedforward_layernorm": "post_ffw_norm", "pre_feedforward_layernorm": "ffn_norm",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ARCHITECTURE = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "smollm3": "smollm3"}


def name_of(stem, gemma):
    if stem in OUTSIDE:
        return OUTSIDE[stem]
    _, _, layer, part = stem.split(".", 3)
    if part == "post_attention_layernorm":
        return f"blk.{layer}." + ("post_attention_norm" if gemma else "ffn_norm")
    return f"blk.{layer}.{BLOCK[part]}"


def llama3_factors(rope, head_dim):
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = (rope["original_max_position_embeddings"] / rope[key] for key in ("low_freq_factor", "high_freq_factor"))
    factors = []
    for wave in 2 * np.pi / frequencies:
        smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        factors.append(1.0 if wave < high else rope["factor"] if wave > low else 1.0 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def write(folder, path):
    c = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURE[c["model_type"]]
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    head_dim = c.get("head_dim") or c["hidden_size"] // heads
    rope = c["rope_parameters"]
    gemma = architecture.startswith("gemma")
    w = gguf.GGUFWriter(path, architecture)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("no_vocab")
    whole = rope.get("full_attention", rope)
    w.add_rope_freq_base(whole["rope_theta"])
    turned = int(head_dim * whole.get("partial_rotary_factor", 1.0))
    w.add_rope_dimension_count(turned)
    if whole["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(whole["factor"])
    if gemma:
        w.add_sliding_window(c["sliding_window"])
    for key, add in [("attn_logit_softcapping", w.add_attn_logit_softcapping), ("final_logit_softcapping", w.add_final_logit_softcapping)]:
        if c.get(key):
            add(c[key])
    if whole["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(whole, head_dim))
    if architecture == "phi3":
        original, stretch = c["original_max_position_embeddings"], c["max_position_embeddings"] / c["original_max_position_embeddings"]
        w.add_sliding_window(0)
        w.add_rope_scaling_orig_ctx_len(1024)
        w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(original))))
        w.add_tensor("rope_factors_short.weight", np.array(whole["short_factor"], np.float32))
        w.add_tensor("rope_factors_long.weight", np.array(whole["long_factor"], np.float32))
    for key, tensor in load_file(folder / "model.safetensors").items():
        stem, kind = key.rsplit(".", 1)
        of = {"q_proj": heads, "k_proj": kv_heads}.get(stem.rsplit(".", 1)[-1])
        if of and architecture in ("llama", "smollm3"):
            tensor = tensor.reshape(of, 2, head_dim // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
        if of == heads and stem.endswith("q_proj") and architecture == "gemma2":
            tensor = tensor * np.float32(np.sqrt(head_dim / c["query_pre_attn_scalar"]))
        if gemma and stem.endswith("norm"):
            tensor = tensor + np.float32(1.0)
        w.add_tensor(f"{name_of(stem, gemma)}.{kind}", np.ascontiguousarray(tensor, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return c


class TableGelu(torch.nn.Module):
    """GELU as llama.cpp computes it between -10 and 10: of f16, in f16."""

    def forward(self, x):
        return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()


def with_table_gelu(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for layer in model.model.layers:
        layer.mlp.act_fn = TableGelu()
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids).long()).logits.numpy()


def difference(folder, path, c):
    golden = load_file(folder / "golden.safetensors")
    if c["model_type"].startswith("gemma"):
        golden["base.logits"] = with_table_gelu(folder, golden["ids"])
    model = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False, n_threads=1)
    windowed = c.get("sliding_window") and not c["model_type"].startswith("gemma")
    rows = c["sliding_window"] if windowed else golden["ids"].shape[1]
    largest = 0.0
    for ids, expected in zip(golden["ids"], golden["base.logits"]):
        model.reset()
        model.eval([int(i) for i in ids])
        given = model.scores[: len(ids)]
        largest = max(largest, float(np.abs(given[:rows] - expected[:rows]).max() / np.abs(expected).max()))
    return largest


work = Path(sys.argv[2])
figures = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if (folder / "config.json").exists():
        path = work / f"tiny-{folder.name}.gguf"
        figures[folder.name] = difference(folder, path, write(folder, path))
json.dump(figures, sys.stdout)
