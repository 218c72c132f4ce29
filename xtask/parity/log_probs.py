"""Records of token ids with fractional loss weights, and PyTorch's weighted log-probabilities of them in f32.
Usage: log_probs.py MODEL OUT [ADAPTER …]. Writes OUT/records.jsonl and a line {"id", "log_prob"} a record to OUT/expected.jsonl (base) and
OUT/expected-N.jsonl (with the N-th PEFT folder). Half of the records are random ids, half are prose; two prose records begin alike."""
import json, pathlib, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

PROSE = [
    "The parcel with order number 48213 has not arrived yet. I was told that it would be here on Monday, but it is now Thursday.",
    "The parcel with order number 48213 has not arrived yet. Could you please look into it and let me know when I can expect it?",
    "Photosynthesis is the process by which plants, algae and some bacteria turn light, water and carbon dioxide into sugar and oxygen.",
    "Guten Tag, die Lampe flackert seit gestern. Ich möchte sie gerne umtauschen; meine Bestellnummer ist 77 310. Vielen Dank!",
    "def total(prices):\n    result = 0\n    for price in prices:\n        result += price * 1.19\n    return result\n",
    "Once upon a time, in a small village near the sea, there lived an old clockmaker who had never once in his life been late. " * 8,
]


def records(tokenizer, vocab):
    generator = torch.Generator().manual_seed(11)
    lists = [torch.randint(5, vocab, (length,), generator=generator).tolist() for length in (2, 3, 17, 64, 129, 300)]
    lists += [tokenizer(text).input_ids for text in PROSE]
    for number, ids in enumerate(lists):
        weights = torch.rand(len(ids), generator=generator)
        weights[torch.rand(len(ids), generator=generator) < 0.3] = 0.0
        weights[-1] = 0.75
        yield {"id": f"record-{number}", "ids": ids, "loss_weights": [round(w, 3) for w in weights.tolist()]}


def log_prob(model, record):
    ids = torch.tensor([record["ids"]])
    # The model is in f32; its softmax in f32 alone would be 7e-6 off on prose, most of the bound.
    each = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1).gather(1, ids[0, 1:, None])[:, 0]
    return (each * torch.tensor(record["loss_weights"][1:], dtype=torch.float64)).sum().item()


path, out, adapters = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
rows = list(records(AutoTokenizer.from_pretrained(path), base.config.vocab_size))
(out / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write(name, model):
    with torch.no_grad():
        (out / name).write_text("".join(json.dumps({"id": row["id"], "log_prob": log_prob(model, row)}) + "\n" for row in rows))


write("expected.jsonl", base)
for number, folder in enumerate(adapters):
    model = PeftModel.from_pretrained(base, folder).eval()
    write(f"expected-{number}.jsonl", model)
    base = model.unload()
