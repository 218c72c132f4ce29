//! tokenizer.json, checked before the library sees it.
