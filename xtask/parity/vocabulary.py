"""The vocabulary of a GGUF file as crates/text/examples/awkward.rs reads it. Usage: vocabulary.py FILE.gguf OUT.json"""
import json, sys
from gguf import GGUFReader

KEYS = {"model": "model", "pre": "pre", "tokens": "tokens", "token_types": "token_type", "scores": "scores", "merges": "merges", "bos": "bos_token_id", "eos": "eos_token_id",
        "pad": "padding_token_id", "unk": "unknown_token_id", "add_bos": "add_bos_token", "add_space_prefix": "add_space_prefix"}
fields = GGUFReader(sys.argv[1]).fields
json.dump({name: fields[f"tokenizer.ggml.{key}"].contents() for name, key in KEYS.items() if f"tokenizer.ggml.{key}" in fields}, open(sys.argv[2], "w"))
