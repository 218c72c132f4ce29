"""Makes the tiny models beside this file and PyTorch's answers for them, element by element.

Usage: python make.py [NAME…]   (torch 2.15, transformers 5.23, peft 0.21)

For each model NAME, of which each has what is peculiar to its family in a size that counts (windows shorter than the sequence, caps
that bend, heads that are not hidden / heads):
  NAME/config.json, NAME/model.safetensors    a Hugging Face folder, weights of a size that makes every term count
  NAME/golden.safetensors                     what parity.py writes for a real model, by the same procedure:
    ids [2, 24] i64, loss_weights [2, 24] f32, base.logits [2, 24, vocab]
    adapter.start.* , adapter.logits, adapter.grad.* (of the mean weighted loss), losses [10] f64, adapter.end.*
    LoRA rank 4, alpha 8, on all linear layers; A and B both non-zero.
    Ten steps of AdamW: lr 1e-3, betas 0.9/0.999, eps 1e-8, no weight decay, no clipping.
Row t of loss_weights is the weight of ln p(ids[t] | ids[..t]); row 0 has none.
"""
import json
import pathlib
import sys

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
LENGTH, STEPS = 24, 10
SIZES = dict(vocab_size=128, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
# The files of all models together stay below 4 MB.
SMALL = SIZES | dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_attention_heads=4)
EAGER = dict(attn_implementation="eager")


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, tie_word_embeddings=False, rope_theta=10000.0, **EAGER))


def mistral():
    return hf.MistralForCausalLM(hf.MistralConfig(**SIZES, tie_word_embeddings=True, rope_theta=100000.0, sliding_window=7, **EAGER))


def llama3():
    """Llama 3.1's frequencies, whose three ranges all lie within the sequence, and biases everywhere."""
    rope = dict(rope_type="llama3", rope_theta=5000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=True, rope_parameters=rope, attention_bias=True, mlp_bias=True, **EAGER))


def mistral_heads():
    """Heads wider than hidden / heads, as Mistral Nemo has them, and no window."""
    return hf.MistralForCausalLM(hf.MistralConfig(**SMALL | dict(head_dim=12), tie_word_embeddings=False, sliding_window=None, **EAGER))


def qwen2():
    """A window from the second layer on."""
    sizes = {k: v for k, v in SMALL.items() if k != "head_dim"}
    window = dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**sizes, tie_word_embeddings=False, rope_theta=1000000.0, **window, **EAGER))


def qwen3():
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL | dict(head_dim=12), tie_word_embeddings=True, rope_theta=1000000.0, **EAGER))


def gemma2():
    more = dict(query_pre_attn_scalar=20, sliding_window=6, attn_logit_softcapping=4.0, final_logit_softcapping=9.0, pad_token_id=0)
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SMALL | dict(head_dim=12), **more, **EAGER))


def gemma3():
    """Six layers: the sixth sees the whole text, and turns by another base."""
    rope = dict(sliding_attention=dict(rope_type="default", rope_theta=10000.0), full_attention=dict(rope_type="linear", factor=4.0, rope_theta=100000.0))
    more = dict(query_pre_attn_scalar=12, sliding_window=6, rope_parameters=rope, pad_token_id=0)
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SMALL | dict(head_dim=12, num_hidden_layers=6), **more, **EAGER))


def phi3():
    """Three of four elements of a head turn, by LongRoPE's short factors: the sequence is within the original context."""
    rope = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, short_factor=[1.0, 1.25, 1.75], long_factor=[1.0, 3.0, 9.0])
    sizes = {k: v for k, v in SMALL.items() if k != "head_dim"}
    more = dict(rope_parameters=rope, original_max_position_embeddings=64, tie_word_embeddings=False, sliding_window=9, pad_token_id=0)
    return hf.Phi3ForCausalLM(hf.Phi3Config(**sizes, **more, **EAGER))


def smollm3():
    """The last of four layers does not know positions."""
    sizes = {k: v for k, v in SMALL.items() if k != "head_dim"} | dict(num_hidden_layers=4)
    more = dict(tie_word_embeddings=True, pad_token_id=0)
    return hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**sizes, rope_theta=2000000.0, **more, **EAGER))


def make(name, build, seed):
    torch.manual_seed(seed)
    folder = HERE / name
    model = build().to(torch.float32)
    gain = 0.0 if name.startswith("gemma") else 1.0  # Gemma's norms multiply by 1 + w
    for key, p in model.named_parameters():
        # Norms around 1, everything else large enough that attention is not flat and no term is lost in rounding.
        torch.nn.init.normal_(p, mean=gain if "norm" in key else 0.0, std=0.2 if "norm" in key else 0.3)
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(golden(model), folder / "golden.safetensors")
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def golden(base):
    base.config.use_cache = False
    ids = torch.randint(5, base.config.vocab_size, (2, LENGTH))
    weights = torch.ones(2, LENGTH)
    weights[:, : LENGTH // 3] = 0.0
    saved = {"ids": ids, "loss_weights": weights, "base.logits": base(input_ids=ids).logits.detach()}
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    names = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    for p in names.values():
        torch.nn.init.normal_(p, std=0.1)
    saved |= {f"adapter.start.{n}": p.detach().clone() for n, p in names.items()}
    optimizer = torch.optim.AdamW(names.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        logits = model(input_ids=ids).logits
        each = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.size(-1)), ids[:, 1:].reshape(-1), reduction="none")
        w = weights[:, 1:].reshape(-1)
        loss = (each * w).sum() / w.sum()
        loss.backward()
        if step == 0:
            saved["adapter.logits"] = logits.detach().clone()
            saved |= {f"adapter.grad.{n}": p.grad.detach().clone() for n, p in names.items()}
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    saved |= {f"adapter.end.{n}": p.detach().clone() for n, p in names.items()}
    saved["losses"] = torch.tensor(losses, dtype=torch.float64)
    print("ten losses", " ".join(f"{x:.6f}" for x in losses))
    return {k: v.contiguous() for k, v in saved.items()}


SEEDS = {build: seed for seed, build in enumerate([llama, mistral, llama3, mistral_heads, qwen2, qwen3, gemma2, gemma3, phi3, smollm3], start=7)}
for build, seed in SEEDS.items():
    if not sys.argv[1:] or build.__name__ in sys.argv[1:]:
        make(build.__name__, build, seed)
