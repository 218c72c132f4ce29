"""The peers' parity.py once more in f64, with the ids and the adapter of its file. Usage: exact.py MODEL F32.safetensors OUT.safetensors
Prints as JSON how far PyTorch's own f32 is from it: the worst relative difference of ten losses, and the worst of all gradients (norm of the difference
over norm). Where ten steps learn two sequences by heart, the last losses are so small that f32 has few digits of them left."""
import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

path, reference, out = sys.argv[1:4]
saved = load_file(reference)
base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").double()
base.config.use_cache = False
ids, weights = saved["ids"], saved["loss_weights"].double()
exact = {key: saved[key] for key in saved if key in ("ids", "loss_weights") or key.startswith("adapter.start.")}
with torch.no_grad():
    exact["base.logits"] = base(input_ids=ids).logits.float()
config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(base, config, autocast_adapter_dtype=False)
names = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
for name, p in names.items():
    p.data = saved[f"adapter.start.{name}"].double()
optimizer = torch.optim.AdamW(names.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
losses, worst = [], 0.0
for step in range(10):
    logits = model(input_ids=ids).logits
    each = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.size(-1)), ids[:, 1:].reshape(-1), reduction="none")
    w = weights[:, 1:].reshape(-1)
    loss = (each * w).sum() / w.sum()
    loss.backward()
    if step == 0:
        exact["adapter.logits"] = logits.detach().float()
        for name, p in names.items():
            worst = max(worst, float((p.grad - saved[f"adapter.grad.{name}"].double()).norm() / p.grad.norm()))
            exact[f"adapter.grad.{name}"] = p.grad.float()
    losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()
exact |= {f"adapter.end.{name}": p.detach().float() for name, p in names.items()}
exact["losses"] = torch.tensor(losses, dtype=torch.float64)
save_file({key: value.contiguous() for key, value in exact.items()}, out)
of_losses = max(abs(a / e - 1.0) for a, e in zip(saved["losses"].tolist(), losses))
json.dump({"losses": of_losses, "gradients": worst}, sys.stdout)
