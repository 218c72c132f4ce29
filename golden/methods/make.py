"""Makes two tiny models beside this file, and PyTorch's answers for other methods than LoRA on them, element by element.

Usage: python make.py   (torch 2.15, transformers 5.23, peft 0.21)

  tied/     a Gemma 3: one tensor is embedding and head and is scaled as the former, gains are 1 + w, soft parts everywhere
  untied/   a Qwen 2: biases, a head of its own
Each has config.json and model.safetensors (a Hugging Face folder), and
  dora.safetensors    as golden/models/make.py writes it for LoRA, with peft's magnitudes: rank 2, alpha 4, on all linear layers
  full.safetensors    ids [2, 16] i64, loss_weights [2, 16] f32, grad.* of the mean weighted loss by every parameter, losses [10] f64, and
                      the ten steps' result as end.* of what no matrix product makes: gains, biases, and the embedding
Ten steps of AdamW: lr 1e-3, betas 0.9/0.999, eps 1e-8, no clipping; without decay (dora), or with a decay of 0.1 on the
parameters that transformers' Trainer decays (full).
"""
import json
import pathlib

import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
LENGTH, STEPS = 16, 10
SIZES = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager")


def tied():
    rope = dict(sliding_attention=dict(rope_type="default", rope_theta=10000.0), full_attention=dict(rope_type="default", rope_theta=100000.0))
    more = dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=6, sliding_window_pattern=2, rope_parameters=rope, pad_token_id=0)
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SIZES, **more))


def untied():
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, tie_word_embeddings=False, rope_theta=10000.0))


def make(name, build, seed):
    torch.manual_seed(seed)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    model = build().to(torch.float32)
    gain = 0.0 if name == "tied" else 1.0
    for key, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=gain if "norm" in key else 0.0, std=0.2 if "norm" in key else 0.3)
    model.config.use_cache = False
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ids = torch.randint(5, model.config.vocab_size, (2, LENGTH))
    weights = torch.ones(2, LENGTH)
    weights[:, : LENGTH // 3] = 0.0
    weights[1, -3] = 0.25
    asked = {"ids": ids, "loss_weights": weights}
    save_file(dora(type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), asked), folder / "dora.safetensors")
    save_file(full(type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), asked), folder / "full.safetensors")
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def train(model, asked, names, optimizer, saved, prefix):
    losses = []
    ids, weights = asked["ids"], asked["loss_weights"]
    for step in range(STEPS):
        logits = model(input_ids=ids).logits
        each = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.size(-1)), ids[:, 1:].reshape(-1), reduction="none")
        w = weights[:, 1:].reshape(-1)
        loss = (each * w).sum() / w.sum()
        loss.backward()
        if step == 0:
            if prefix:
                saved["adapter.logits"] = logits.detach().clone()
            saved |= {f"{prefix}grad.{n}": p.grad.detach().clone() for n, p in names.items()}
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    saved["losses"] = torch.tensor(losses, dtype=torch.float64)
    print("ten losses", " ".join(f"{x:.6f}" for x in losses))


def dora(base, asked):
    saved = dict(asked) | {"base.logits": base(input_ids=asked["ids"]).logits.detach()}
    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=True)
    model = get_peft_model(base, config)
    short = lambda n: n.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    names = {short(n): p for n, p in model.named_parameters() if p.requires_grad}
    for n, p in names.items():
        if "magnitude" in n:
            p.data *= 0.5 + torch.rand_like(p)
        else:
            torch.nn.init.normal_(p, std=0.1)
    saved |= {f"adapter.start.{n}": p.detach().clone() for n, p in names.items()}
    optimizer = torch.optim.AdamW(names.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    train(model, asked, names, optimizer, saved, "adapter.")
    saved |= {f"adapter.end.{n}": p.detach().clone() for n, p in names.items()}
    return {k: v.contiguous() for k, v in saved.items()}


def full(model, asked):
    saved = dict(asked)
    names = dict(model.named_parameters())  # the tied head is no parameter of its own
    trainer = hf.Trainer(model=model, args=hf.TrainingArguments(output_dir="unused", report_to=[], use_cpu=True))
    decayed = set(trainer.get_decay_parameter_names(model))
    groups = [dict(params=[p for n, p in names.items() if n in decayed], weight_decay=0.1),
              dict(params=[p for n, p in names.items() if n not in decayed], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    train(model, asked, names, optimizer, saved, "")
    saved |= {f"end.{n}": p.detach().clone() for n, p in names.items() if p.ndim == 1 or "embed" in n}
    return {k: v.contiguous() for k, v in saved.items()}


for seed, build in enumerate([tied, untied], start=31):
    make(build.__name__, build, seed)
