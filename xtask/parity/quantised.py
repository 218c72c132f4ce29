"""llama.cpp's log-probability of each of the first 200 tokens of a text. Usage: quantised.py FILE.gguf OUT
Writes OUT/llama_cpp.json: one ln p a token after the first, of the file as it is ("quantised": llama.cpp rounds activations to 8 bits and keeps keys
and values in f16) and of the same weights unpacked to f32 with keys and values in f32 ("exact"); and OUT/llama_cpp.jsonl: records with one loss
weight each, whose score is that ln p."""
import json, pathlib, sys
import numpy
from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize
from llama_cpp import Llama

TEXT = """The harbour was quiet in the early morning, and the fishing boats lay side by side along the wooden pier. An old man in a
blue coat walked slowly past them, stopping now and then to look at the water. He had been a sailor for more than forty years, and
although he no longer went to sea, he came here every day before breakfast. The young fishermen knew him well. They greeted him, offered
him a cup of hot coffee, and asked what he thought about the weather. He would look up at the clouds for a long time before he gave an
answer. "There will be wind from the west this afternoon," he said, "and rain before the night. Stay close to the coast." They laughed,
because the sky was clear, but most of them followed his advice. Over the years they had learned that he was right more often than the
radio. In the evening, when the first drops fell on the roofs of the village, the boats were already safe in the harbour, and the old man
sat by his window and listened to the storm."""

F32 = 0  # GGML_TYPE_F32, and the file type of that name


def unpack(source, target):
    reader, writer = GGUFReader(source), GGUFWriter(target, "llama")
    writer.add_file_type(F32)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        if kind == GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def answer(path, **options):
    model = Llama(model_path=str(path), n_ctx=512, n_batch=512, n_threads=2, logits_all=True, verbose=False, **options)
    ids = model.tokenize(TEXT.encode(), add_bos=False)[:200]
    assert len(ids) == 200, len(ids)
    model.eval(ids)
    logits = numpy.array(model.scores[: len(ids)], dtype=numpy.float64)
    top = logits.max(-1, keepdims=True)
    log_probs = logits - top - numpy.log(numpy.exp(logits - top).sum(-1, keepdims=True))
    return ids, [log_probs[i - 1, ids[i]] for i in range(1, len(ids))]


source, out = sys.argv[1], pathlib.Path(sys.argv[2])
ids, quantised = answer(source)
unpack(source, out / "unpacked.gguf")
same_ids, exact = answer(out / "unpacked.gguf", type_k=F32, type_v=F32)
assert ids == same_ids
json.dump({"quantised": quantised, "exact": exact}, open(out / "llama_cpp.json", "w"))
with open(out / "llama_cpp.jsonl", "w") as records:
    for i in range(1, len(ids)):
        records.write(json.dumps({"id": i, "ids": ids[: i + 1], "loss_weights": [0.0] * i + [1.0]}) + "\n")
