"""A folder that Tunesmith wrote, loaded by PEFT. Usage: adapter_logits.py MODEL ADAPTER OUT.safetensors
Writes ids [2, 32] and the logits with the adapter; says how far those are from the base's, so that an adapter without effect is noticed."""
import sys
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

path, adapter, out = sys.argv[1:4]
torch.manual_seed(5)
base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
ids = torch.randint(5, base.config.vocab_size, (2, 32))
with torch.no_grad():
    before = base(input_ids=ids).logits
    after = PeftModel.from_pretrained(base, adapter).eval()(input_ids=ids).logits
save_file({"ids": ids, "adapter.logits": after.contiguous()}, out)
print((after - before).abs().max().item() / before.abs().max().item())
