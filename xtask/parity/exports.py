"""What Tunesmith exported, in the programs that it is for.

Usage:
  exports.py transformers MODEL OUT.safetensors [ADAPTER]
      ids [2, 32] and the logits that transformers (with PEFT, where an adapter is given) has for them, as the engine's own comparison reads them;
      prints the ids of a text by the folder's tokenizer.
  exports.py ids MODEL
      prints the ids of that text alone.
  exports.py llama.cpp FILE.gguf [ADAPTER.gguf]
      prints {"ids", "log_probs"}: llama.cpp's ids of that text and ln p of each but the first, with keys and values in f32."""
import json
import sys

TEXT = """The harbour was quiet in the early morning, and 17 fishing boats lay side by side along the wooden pier. An old man in a
blue coat walked slowly past them, stopping now and then to look at the water. Wie lange dauert die Lieferung? "Two days," he said.
def total(prices):
    return sum(price * 1.19 for price in prices)
"""


def transformers(model, out, adapter=None):
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    torch.manual_seed(5)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = torch.randint(5, loaded.config.vocab_size, (2, 32))
    if adapter:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, adapter).eval()
    with torch.no_grad():
        save_file({"ids": ids, "adapter.logits": loaded(input_ids=ids).logits.contiguous()}, out)
    print(json.dumps(tokenizer(TEXT).input_ids))


def ids(model):
    from transformers import AutoTokenizer

    print(json.dumps(AutoTokenizer.from_pretrained(model)(TEXT).input_ids))


def llama(path, adapter=None):
    import numpy
    from llama_cpp import Llama

    model = Llama(model_path=path, lora_path=adapter, n_ctx=256, n_batch=256, n_threads=2, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)
    ids = model.tokenize(TEXT.encode())
    model.eval(ids)
    logits = numpy.array(model.scores[: len(ids)], dtype=numpy.float64)
    top = logits.max(-1, keepdims=True)
    log_probs = logits - top - numpy.log(numpy.exp(logits - top).sum(-1, keepdims=True))
    print(json.dumps({"ids": ids, "log_probs": [log_probs[i - 1, ids[i]] for i in range(1, len(ids))]}))


{"transformers": transformers, "ids": ids, "llama.cpp": llama}[sys.argv[1]](*sys.argv[2:])
