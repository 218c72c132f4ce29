//! A GGUF file's vocabulary as a tokenizer with llama.cpp's ids (`src/llama-vocab.cpp`): byte-level ones here, SentencePiece's in
//! [`crate::spm`].
//!
//! Byte-level text is split into words as llama.cpp splits.
//! llama.cpp applies a list of regular expressions in turn; each splits what the ones before left into its matches and
//! what lies between them. That is a sequence of the library's `Split`s with isolated matches, followed by `ByteLevel`
//! for the alphabet, so that both kinds of file become the same kind of tokenizer.

use crate::TextError;
use crate::tokenizer::Named;
use crate::tokenizer_json::{AddedPart, MAX_MERGES, MAX_VOCAB, Parts, limit};
use serde_json::{Value, json};
use std::collections::HashSet;

/// The tokenizer keys of a GGUF file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: "gpt2" is byte-level BPE, "llama" is SentencePiece's.
    pub model: String,
    /// `tokenizer.ggml.pre`, or empty.
    pub pre: String,
    /// `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, or empty (all ordinary).
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`, or empty: of SentencePiece's pieces.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

/// `token_type` of a token for text that nobody knows.
pub(crate) const UNKNOWN: i32 = 2;
/// `token_type` of a special token.
pub(crate) const CONTROL: i32 = 3;
/// `token_type` of a token that is matched in raw text, but is no special one.
pub(crate) const USER_DEFINED: i32 = 4;

/// Tokens that llama.cpp takes for special ones whatever the file says of them: those that end a turn or a text, and those that
/// mark the hole of a text to fill in. Text of a user that spells one is then ordinary text.
#[rustfmt::skip] // one kind a line
const ALWAYS_CONTROL: &[&str] = &[
    // End of a text, a turn or a message.
    "</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>",
    "<end_of_turn>", "<turn|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>",
    // Before, after and in the hole; padding; names of repositories and files.
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<|prefix|>", "<|code_prefix|>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<|suffix|>", "<|code_suffix|>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<|middle|>", "<|code_middle|>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
    "<|fim_repo|>", "<fim-repo>", "<|repo_name|>", "<reponame>", "<REPO>", "<|file_sep|>",
];

/// How text is cut into words before the merges.
pub(crate) struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    pub(crate) names: &'static [&'static str],
    /// Regular expressions, applied in turn.
    pub(crate) patterns: &'static [&'static str],
    /// A word that is itself a token is taken whole.
    pub(crate) ignore_merges: bool,
    /// A document begins with the begin token unless the file says otherwise.
    add_bos: bool,
}

/// The words of GPT-2: contractions, letters, digits, the rest, each with a space before.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// The words of Llama 3: numbers in threes.
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The words of Qwen 2: each digit alone.
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The words of Qwen 3.5: combining marks belong to letters.
const QWEN35: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The words of Mistral's Tekken: capitals begin a word; each digit alone.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The words of GPT-4o: Tekken's with contractions, numbers in threes.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The last step of DeepSeek 3: letters with marks, punctuation with a space before.
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// The words of Bloom: everything up to white space or sentence punctuation.
const BLOOM: &str = " ?[^(\\s|.,!?…。，、।۔،)]+";

/// The pre-tokenizers that are read, by llama.cpp's names. Refused are those of encoders and those that llama.cpp has as code, not as expressions.
pub(crate) const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["", "default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], patterns: &[LLAMA3], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "solar-open", "megrez", "grok-2"],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["qwen35"], patterns: &[QWEN35], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        patterns: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        // To llama.cpp white space is never in a range of characters.
        patterns: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-\u{d7ff}&&\S]+", r"\p{N}"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["bloom", "gpt3-finnish", "poro-chat"], patterns: &[BLOOM], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["viking"], patterns: &[BLOOM, r"\p{N}"], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["minicpm5"],
        patterns: &[
            r"\p{N}{1,3}",
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        add_bos: false,
    },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: &[
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["seed-coder"],
        patterns: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

/// The `tokenizer.ggml.pre` names that are read.
pub fn pre_tokenizer_names() -> Vec<&'static str> {
    let names = PRE_TOKENIZERS.iter().flat_map(|pre| pre.names.iter().copied());
    names.filter(|name| !name.is_empty()).collect()
}

impl GgufVocabulary {
    /// Checks the keys against each other and takes them apart.
    pub(crate) fn parts(&self) -> Result<(Parts, Named), TextError> {
        limit("tokens", self.tokens.len() as u64, MAX_VOCAB)?;
        limit("merges", self.merges.len() as u64, MAX_MERGES)?;
        for (field, given) in [("token_type's length", self.token_types.len()), ("scores' length", self.scores.len())] {
            if given != 0 && given != self.tokens.len() {
                return Err(TextError::Field { field, given: given.to_string(), expected: "as many as there are tokens" });
            }
        }
        match self.model.as_str() {
            "gpt2" => self.byte_level_parts(),
            "llama" => crate::spm::parts(self),
            other => Err(TextError::Unsupported {
                part: "model in the GGUF file",
                found: other.chars().take(40).collect(),
                supported: "gpt2 (byte-level BPE), llama (SentencePiece); for others give the Hugging Face folder with its tokenizer.json"
                    .into(),
            }),
        }
    }

    fn byte_level_parts(&self) -> Result<(Parts, Named), TextError> {
        let pre = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&self.pre.as_str()));
        let pre = pre.ok_or_else(|| TextError::Unsupported {
            part: "pre-tokenizer in the GGUF file",
            found: self.pre.chars().take(40).collect(),
            supported: pre_tokenizer_names().join(", "),
        })?;
        if self.add_space_prefix == Some(true) {
            return Err(TextError::Field {
                field: "add_space_prefix",
                given: "true".into(),
                expected: "false for a byte-level vocabulary",
            });
        }
        let mut parts = Parts { ignore_merges: pre.ignore_merges, ..Parts::default() };
        let added = self.insert_tokens(&mut parts)?;
        // A pair that stands twice keeps its first rank.
        let mut seen = HashSet::with_capacity(self.merges.len());
        for (merge, line) in self.merges.iter().enumerate() {
            // The first character may itself be a space.
            let first = line.chars().next().map_or(0, char::len_utf8);
            let space = line.get(first..).and_then(|rest| rest.find(' ')).map(|at| at + first);
            let space = space.ok_or_else(|| TextError::Merge { merge, token: line.clone() })?;
            let pair = (line[..space].to_owned(), line[space + 1..].to_owned());
            if seen.insert(pair.clone()) {
                parts.merges.push(pair);
            }
        }
        parts.check_ids()?;
        parts.check_merges()?;
        parts.add(added)?;
        let named = self.roles(&mut parts, pre.add_bos)?;
        parts.pre_tokenizer = Some(pre_tokenizer(pre.patterns));
        parts.decoder = Some(byte_level());
        Ok((parts, named))
    }

    /// Puts all tokens into the vocabulary; what is matched in raw text comes back.
    pub(crate) fn insert_tokens(&self, parts: &mut Parts) -> Result<Vec<AddedPart>, TextError> {
        let mut added = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let token = if token.is_empty() { format!("[EMPTY_{id}]") } else { token.clone() };
            let kind = self.token_type(id);
            if matches!(kind, UNKNOWN | CONTROL | USER_DEFINED) {
                added.push(AddedPart {
                    id: id as u32,
                    content: token.clone(),
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: false,
                    special: kind != USER_DEFINED,
                });
            }
            parts.insert(token, id as u32)?;
        }
        Ok(added)
    }

    /// Ordinary unless the file, or [`ALWAYS_CONTROL`], says otherwise.
    pub(crate) fn token_type(&self, id: usize) -> i32 {
        if ALWAYS_CONTROL.contains(&self.tokens[id].as_str()) {
            return CONTROL;
        }
        self.token_types.get(id).copied().unwrap_or(1)
    }

    /// The tokens with a role of their own, of which begin and end may stand around a document.
    pub(crate) fn roles(&self, parts: &mut Parts, add_bos: bool) -> Result<Named, TextError> {
        let named = Named {
            bos: self.known("bos_token_id", self.bos)?,
            eos: self.known("eos_token_id", self.eos)?,
            pad: self.known("padding_token_id", self.pad)?,
        };
        self.known("unknown_token_id", self.unk)?;
        let begin = named.bos.filter(|_| self.add_bos.unwrap_or(add_bos));
        let end = named.eos.filter(|_| self.add_eos.unwrap_or(false));
        parts.around = Some((begin.into_iter().collect(), end.into_iter().collect()));
        Ok(named)
    }

    fn known(&self, field: &'static str, id: Option<u32>) -> Result<Option<u32>, TextError> {
        match id {
            Some(id) if id as usize >= self.tokens.len() => {
                Err(TextError::Field { field, given: format!("{id}, with {} tokens", self.tokens.len()), expected: "the id of a token" })
            }
            id => Ok(id),
        }
    }
}

/// Regular expressions applied in turn, then the alphabet of bytes.
pub(crate) fn pre_tokenizer(patterns: &[&str]) -> Value {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut list: Vec<Value> = patterns.iter().map(split).collect();
    list.push(byte_level());
    json!({"type": "Sequence", "pretokenizers": list})
}

/// The alphabet of 256 printable characters for bytes, without words of its own.
fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false})
}
