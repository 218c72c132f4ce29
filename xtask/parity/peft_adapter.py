"""Trains a small adapter with PEFT for a few steps, as its user would. Usage: peft_adapter.py MODEL OUT_FOLDER RANK TARGETS [rslora]
TARGETS is all-linear or names with commas. AdamW 1e-3 on two sentences; B is zero at the start and not at the end."""
import sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

path, out, rank, targets = sys.argv[1:5]
torch.manual_seed(3)
targets = targets if targets == "all-linear" else targets.split(",")
lora = LoraConfig(r=int(rank), lora_alpha=12, lora_dropout=0.05, use_rslora="rslora" in sys.argv, target_modules=targets, task_type="CAUSAL_LM")
model = get_peft_model(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), lora)
tokenizer = AutoTokenizer.from_pretrained(path)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
model.train()
for step in range(4):
    for text in ("Question: where is my parcel? Answer: it is on its way to you.", "Question: may I return the lamp? Answer: yes, within thirty days."):
        ids = tokenizer(text, return_tensors="pt").input_ids
        model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(out)
