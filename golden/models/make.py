"""Makes the tiny models beside this file and PyTorch's answers for them, element by element.

Usage: python make.py           (torch 2.15, transformers 5.23, peft 0.21)

For each model NAME (llama: untied; mistral: tied, with a sliding window shorter than the sequence):
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

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

HERE = pathlib.Path(__file__).parent
LENGTH, STEPS = 24, 10
SIZES = dict(vocab_size=128, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)


def llama():
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False, rope_theta=10000.0, attn_implementation="eager"))


def mistral():
    return MistralForCausalLM(MistralConfig(**SIZES, tie_word_embeddings=True, rope_theta=100000.0, sliding_window=7, attn_implementation="eager"))


def make(name, build, seed):
    torch.manual_seed(seed)
    folder = HERE / name
    model = build().to(torch.float32)
    for key, p in model.named_parameters():
        # Norms around 1, everything else large enough that attention is not flat and no term is lost in rounding.
        torch.nn.init.normal_(p, mean=1.0 if "norm" in key else 0.0, std=0.2 if "norm" in key else 0.3)
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


make("llama", llama, 7)
make("mistral", mistral, 8)
