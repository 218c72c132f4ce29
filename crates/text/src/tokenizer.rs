//! Text to ids and back, by HF `tokenizers` with its pure-Rust regular expressions.

use crate::tokenizer_json::Parts;
use crate::{GgufVocabulary, TextError, TokenizerConfig};
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::sync::Arc;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizer::Range as NormalizerRange;
use tokenizers::{
    AddedToken, AddedVocabulary, DecoderWrapper, Encoding, Model as _, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper,
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper, Token,
};

/// What the text of a special token becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Ordinary text: for everything that a user or a document says.
    AsText,
    /// The special token: for what a template says.
    Parse,
}

/// A tokenizer; clones share it.
///
/// ```
/// # let json = br#"{"model": {"type": "BPE", "vocab": {"h": 0, "i": 1, "hi": 2}, "merges": ["h i"]},
/// #   "added_tokens": [{"id": 3, "content": "<end>", "special": true}], "decoder": {"type": "Fuse"}}"#;
/// use text::{Specials, Tokenizer};
/// let tokenizer = Tokenizer::from_json(json, None)?;
/// assert_eq!(tokenizer.encode("hi<end>", Specials::Parse)?, [2, 3]);
/// assert_eq!(tokenizer.decode(&[2, 3], true)?, "hi");
/// # Ok::<(), text::TextError>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    library: tokenizers::Tokenizer,
    /// The added tokens again, set to leave special ones alone.
    as_text: AddedVocabulary,
    /// Whether there are added tokens that are not special.
    has_ordinary_added: bool,
    special_ids: Vec<u32>,
    vocab_size: usize,
    begin: Vec<u32>,
    end: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.shared.vocab_size).finish_non_exhaustive()
    }
}

/// Ids of the tokens that have a role of their own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
}

impl Tokenizer {
    /// From tokenizer.json, and tokenizer_config.json where there is one (it names the begin and end tokens).
    pub fn from_json(bytes: &[u8], config: Option<&TokenizerConfig>) -> Result<Self, TextError> {
        let mut parts = Parts::from_json(bytes)?;
        let config = config.cloned().unwrap_or_default();
        let id = |field: &'static str, token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => parts.vocab.get(token).copied().map(Some).ok_or_else(|| TextError::Field {
                field,
                given: format!("{token:?}"),
                expected: "a token of the vocabulary",
            }),
        };
        let named = Named {
            bos: id("bos_token", &config.bos_token)?,
            eos: id("eos_token", &config.eos_token)?,
            pad: id("pad_token", &config.pad_token)?,
        };
        if parts.around.is_none() {
            let begin = named.bos.filter(|_| config.add_bos_token == Some(true));
            let end = named.eos.filter(|_| config.add_eos_token == Some(true));
            parts.around = Some((begin.into_iter().collect(), end.into_iter().collect()));
        }
        Self::from_parts(parts, named)
    }

    /// From the tokenizer keys of a GGUF file: the same kind of tokenizer, with llama.cpp's ids.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Self, TextError> {
        let (parts, named) = vocabulary.parts()?;
        Self::from_parts(parts, named)
    }

    fn from_parts(parts: Parts, named: Named) -> Result<Self, TextError> {
        let vocab_size = parts.vocab.values().max().map_or(0, |id| *id as usize + 1);
        let special_ids: Vec<u32> = parts.added.iter().filter(|token| token.special).map(|token| token.id).collect();
        let has_ordinary_added = parts.added.iter().any(|token| !token.special);
        let mut bpe = BPE::builder()
            .vocab_and_merges(parts.vocab.into_iter().collect::<Vocab>(), parts.merges)
            .fuse_unk(parts.fuse_unk)
            .byte_fallback(parts.byte_fallback)
            .ignore_merges(parts.ignore_merges);
        if let Some(token) = parts.unk_token {
            bpe = bpe.unk_token(token);
        }
        let mut library = tokenizers::Tokenizer::new(bpe.build().map_err(library_error)?);
        let json = |error: serde_json::Error| TextError::Library { reason: error.to_string() };
        if let Some(value) = parts.normalizer {
            let part: Option<NormalizerWrapper> = serde_json::from_value(value).map_err(json)?;
            library.with_normalizer(part).map_err(library_error)?;
        }
        if let Some(value) = parts.pre_tokenizer {
            library.with_pre_tokenizer(serde_json::from_value::<Option<PreTokenizerWrapper>>(value).map_err(json)?);
        }
        if let Some(value) = parts.decoder {
            library.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(value).map_err(json)?);
        }
        let added = parts.added.into_iter().map(|token| AddedToken {
            content: token.content,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized,
            special: token.special,
        });
        library.add_tokens(added).map_err(library_error)?;
        let mut as_text = library.get_added_vocabulary().clone();
        as_text.set_encode_special_tokens(true);
        let (begin, end) = parts.around.unwrap_or_default();
        let Named { bos, eos, pad } = named;
        let shared = Shared { library, as_text, has_ordinary_added, special_ids, vocab_size, begin, end, bos, eos, pad };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where tokens that are matched in raw text stand in it.
    pub(crate) fn find_added(&self, text: &str) -> Vec<Mark> {
        marks(self.shared.library.get_added_vocabulary(), self.shared.library.get_normalizer(), text)
    }

    /// The one way to ids: `marks` become their tokens; the rest is text, in which only ordinary added tokens outside `hidden` are matched.
    fn encoding(&self, text: &str, specials: &[Mark], hidden: &[u32], offsets: OffsetType) -> Result<Encoding, TextError> {
        let library = &self.shared.library;
        let mut all = specials.to_vec();
        if self.shared.has_ordinary_added {
            for mark in marks(&self.shared.as_text, library.get_normalizer(), text) {
                let overlaps = |other: &Mark| mark.bytes.start < other.bytes.end && other.bytes.start < mark.bytes.end;
                if !hidden.contains(&mark.id) && !specials.iter().any(overlaps) {
                    all.push(mark);
                }
            }
            all.sort_by_key(|mark| mark.bytes.start);
        }
        let mut pieces: PreTokenizedString = text.into();
        pieces.split(|_, whole| split_at(&whole, &all)).map_err(library_error)?;
        if let Some(normalizer) = library.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(library_error)?;
        }
        if let Some(pre_tokenizer) = library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(library_error)?;
        }
        let model: &ModelWrapper = library.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(library_error)?;
        let encoding = pieces.into_encoding(None, 0, offsets).map_err(library_error)?;
        // A vocabulary that spells a special token in ordinary pieces could bring one back.
        let expected = specials.iter().filter(|mark| self.is_special(mark.id)).count();
        if encoding.get_ids().iter().filter(|id| self.is_special(**id)).count() != expected {
            return Err(TextError::Library { reason: "plain text became a special token".into() });
        }
        Ok(encoding)
    }

    /// Ids of a text in which exactly `marks` are special tokens and `hidden` tokens are never matched otherwise.
    pub(crate) fn encode_marked(&self, text: &str, marks: &[Mark], hidden: &[u32]) -> Result<Vec<u32>, TextError> {
        Ok(self.encoding(text, marks, hidden, OffsetType::None)?.get_ids().to_vec())
    }

    fn specials(&self, text: &str, specials: Specials) -> Vec<Mark> {
        match specials {
            Specials::AsText => Vec::new(),
            Specials::Parse => {
                let mut marks = self.find_added(text);
                marks.retain(|mark| self.is_special(mark.id));
                marks
            }
        }
    }

    /// Ids of a text, nothing added before or after.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        self.encode_marked(text, &self.specials(text, specials), &[])
    }

    /// Ids with the bytes of `text` that each stands for. Tokens that share a character share its bytes.
    pub fn encode_with_offsets(&self, text: &str, specials: Specials) -> Result<Vec<(u32, Range<usize>)>, TextError> {
        let encoding = self.encoding(text, &self.specials(text, specials), &[], OffsetType::Byte)?;
        let offsets = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
        Ok(encoding.get_ids().iter().copied().zip(offsets).collect())
    }

    /// Ids of a whole document, with what the model expects around it (a begin token, say).
    pub fn encode_document(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        let mut ids = self.shared.begin.clone();
        ids.extend(self.encode(text, specials)?);
        ids.extend(&self.shared.end);
        Ok(ids)
    }

    /// The text of ids. Ids that the vocabulary lacks stand for no text: models pad their tables.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.shared.library.decode(ids, skip_special).map_err(library_error)
    }

    /// Decodes ids one at a time.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, skip_special, ids: Vec::new(), context: 0, emitted: 0 }
    }

    /// Highest id + 1. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.shared.vocab_size
    }

    /// A token as the vocabulary writes it (byte-level tokens in their own alphabet).
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.shared.library.id_to_token(id)
    }

    /// Id of a token as the vocabulary writes it.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.shared.library.token_to_id(text)
    }

    /// Ids of special tokens, ascending.
    pub fn special_ids(&self) -> &[u32] {
        &self.shared.special_ids
    }

    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.shared.special_ids.binary_search(&id).is_ok()
    }

    /// Begin-of-text.
    pub fn bos(&self) -> Option<u32> {
        self.shared.bos
    }

    /// End-of-text.
    pub fn eos(&self) -> Option<u32> {
        self.shared.eos
    }

    /// Padding.
    pub fn pad(&self) -> Option<u32> {
        self.shared.pad
    }

    /// What stands before and after a document.
    pub fn around_document(&self) -> (&[u32], &[u32]) {
        (&self.shared.begin, &self.shared.end)
    }

    /// A tokenizer.json that gives the same ids and texts, with what stands around a document as its post-processor.
    pub fn to_json(&self) -> Vec<u8> {
        let library = self.shared.library.to_string(false).expect("what was read can be written");
        let mut json: Value = serde_json::from_str(&library).expect("the library writes JSON");
        let (begin, end) = self.around_document();
        if !(begin.is_empty() && end.is_empty()) {
            let text = |id: &u32| self.token_text(*id).unwrap_or_default();
            let special = |id: &u32| json!({"SpecialToken": {"id": text(id), "type_id": 0}});
            let around = |sequences: &[&str]| {
                let sequence = |name: &&str| json!({"Sequence": {"id": name, "type_id": 0}});
                begin.iter().map(special).chain(sequences.iter().map(sequence)).chain(end.iter().map(special)).collect::<Vec<_>>()
            };
            let tokens: Map<String, Value> =
                begin.iter().chain(end).map(|id| (text(id), json!({"id": text(id), "ids": [id], "tokens": [text(id)]}))).collect();
            json["post_processor"] =
                json!({"type": "TemplateProcessing", "single": around(&["A"]), "pair": around(&["A", "B"]), "special_tokens": tokens});
        }
        json.to_string().into_bytes()
    }

    /// Bytes that are equal exactly when two tokenizers give the same ids and texts: what a manifest hashes.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = self.shared.library.to_string(false).expect("what was read can be written").into_bytes();
        let Shared { begin, end, bos, eos, pad, .. } = &*self.shared;
        let roles = json!({"begin": begin, "end": end, "bos": bos, "eos": eos, "pad": pad});
        bytes.push(b'\n');
        bytes.extend(roles.to_string().bytes());
        bytes
    }
}

/// A token that stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) bytes: Range<usize>,
    pub(crate) id: u32,
}

impl Mark {
    /// The same in a text with `by` bytes more before it.
    pub(crate) fn moved(&self, by: usize) -> Self {
        Self { bytes: self.bytes.start + by..self.bytes.end + by, id: self.id }
    }

    /// The same in the text that begins at `start`.
    pub(crate) fn shifted(&self, start: usize) -> Self {
        Self { bytes: self.bytes.start - start..self.bytes.end - start, id: self.id }
    }
}

fn marks(added: &AddedVocabulary, normalizer: Option<&NormalizerWrapper>, text: &str) -> Vec<Mark> {
    let pieces = added.extract_and_normalize(normalizer, text);
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let mark =
        |(_, (start, end), tokens): (&str, _, &Option<Vec<Token>>)| Some(Mark { bytes: start..end, id: tokens.as_ref()?.first()?.id });
    pieces.into_iter().filter_map(mark).collect()
}

type Piece = (NormalizedString, Option<Vec<Token>>);

/// Cuts a text into marks, which have their token, and what lies between.
fn split_at(whole: &NormalizedString, marks: &[Mark]) -> tokenizers::Result<Vec<Piece>> {
    let slice = |bytes: Range<usize>| whole.slice(NormalizerRange::Original(bytes)).ok_or("a token that cuts a character");
    let (mut pieces, mut at) = (Vec::with_capacity(2 * marks.len() + 1), 0);
    for mark in marks {
        if at < mark.bytes.start {
            pieces.push((slice(at..mark.bytes.start)?, None));
        }
        let piece = slice(mark.bytes.clone())?;
        let token = Token::new(mark.id, piece.get().to_owned(), (0, mark.bytes.len()));
        pieces.push((piece, Some(vec![token])));
        at = mark.bytes.end;
    }
    if at < whole.get().len() {
        pieces.push((slice(at..whole.get().len())?, None));
    }
    Ok(pieces)
}

fn library_error(error: tokenizers::Error) -> TextError {
    TextError::Library { reason: error.to_string() }
}

/// Decodes ids as they come; incomplete UTF-8 is held back.
///
/// What a token says may depend on the one before it (a leading space, the bytes of a character), so that the tokens
/// whose text came out last are decoded again with what follows.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// How many of `ids` are there for the others' sake.
    context: usize,
    /// Bytes of the text of `ids` that are out.
    emitted: usize,
}

impl DecodeStream<'_> {
    /// The text that one more id completes, often empty.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        let complete = complete_bytes(&text);
        let new = text.get(self.emitted..complete).unwrap_or_default().to_owned();
        if complete < text.len() {
            self.emitted = self.emitted.max(complete);
        } else if !new.is_empty() {
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.emitted = self.tokenizer.decode(&self.ids, self.skip_special)?.len();
        }
        Ok(new)
    }

    /// What is still held back, incomplete characters as U+FFFD.
    pub fn finish(self) -> Result<String, TextError> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(text.get(self.emitted..).unwrap_or_default().to_owned())
    }
}

/// Length of a text without an incomplete character at its end. Decoders write that as one U+FFFD, as one for each byte,
/// or as one for each byte of complete characters before it too.
fn complete_bytes(text: &str) -> usize {
    text.trim_end_matches('\u{FFFD}').len()
}
