//! Models from a Hugging Face hub: `hf:org/name@revision`, into the cache that Hugging Face's own tools share.
//!
//! The network is used only because the user named such a source. One listing gives the commit that a branch or tag
//! stands for; from then on everything is asked for by that commit. Only weights in safetensors, JSON, tokenizer and licence
//! files are taken, never pickles or code. Each file is verified against the hash by which the hub names it: SHA-256
//! for large files, git's for small ones.
//!
//! The cache has the layout of the Python package huggingface_hub: `models--org--name/{refs,blobs,snapshots}`.
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::atomic;
use crate::error::shown;
use crate::hub_client::{Client, Listed};
use crate::model_files::FileHash;
use crate::{Result, StoreError};

/// Where models are when nobody says otherwise (`HF_ENDPOINT`).
pub const ENDPOINT: &str = "https://huggingface.co";
/// A model of more files than this is refused.
pub const MAX_FILES: usize = 2000;
/// A file that is no weights is at most this large.
pub const MAX_SIDE_BYTES: u64 = 256 << 20;
/// Longest name of an organisation, a model or a revision.
const LONGEST_NAME: usize = 96;
/// What is taken beside weights, where it is there.
const SIDE: [&str; 18] = [
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "README.md",
    "USE_POLICY.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// `hf:org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    /// `org/name`; a few old models have no organisation.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl HubSource {
    /// Parses `hf:org/name` or `hf:org/name@revision`; without a revision `main` is meant.
    pub fn parse(source: &str) -> Result<Self> {
        let bad = |wrong| StoreError::HubSource { given: shown(source), wrong };
        let rest = source.strip_prefix("hf:").ok_or_else(|| bad("it does not begin with hf:"))?;
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let word = |text: &str| {
            !text.is_empty()
                && text.len() <= LONGEST_NAME
                && !text.starts_with(['.', '-'])
                && !text.contains("..")
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| word(part) && !part.contains("--")) {
            return Err(bad("organisation and name of the model"));
        }
        if revision.len() > LONGEST_NAME || !revision.split('/').all(word) {
            return Err(bad("revision"));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// Whether the revision is a commit, which never means anything else.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The same model at a commit.
    pub fn at(&self, commit: &str) -> Self {
        Self { repository: self.repository.clone(), revision: commit.to_owned() }
    }

    /// The model's folder in the cache.
    fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.repository.replace('/', "--")))
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}@{}", self.repository, self.revision)
    }
}

pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The user's access token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as the user has it; `None` where it cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The token that `huggingface-cli login` left in a file, if there is one.
    pub fn of_file(path: &Path) -> Option<Self> {
        Self::new(&atomic::read_text(path, 1 << 12).ok()?)
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How to reach the hub, and where its files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// Folder of `models--…` (`HF_HUB_CACHE`, or `hub` in `HF_HOME`).
    pub cache: PathBuf,
    /// The hub or a mirror of it (`HF_ENDPOINT`).
    pub endpoint: String,
    /// For private models and those whose terms were accepted (`HF_TOKEN`).
    pub token: Option<Token>,
    /// Only the cache (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// PEM file of certificates to trust instead of the system's (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
    /// How long to wait before the first new attempt; twice as long before each after it.
    pub pause: Duration,
}

impl HubSettings {
    /// A cache that is never added to.
    pub fn cache_only(cache: PathBuf) -> Self {
        Self { cache, endpoint: ENDPOINT.to_owned(), token: None, offline: true, certificates: None, pause: Duration::ZERO }
    }
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubProgress {
    /// The hub was asked what the revision is.
    Asked,
    /// Bytes of all files: done, in all.
    Downloading(u64, u64),
    /// A connection broke, or the server was busy; a new attempt follows.
    Again(String),
    /// What was downloaded is not what the hub named; it is downloaded again.
    Damaged(String),
}

/// What the network or the hub did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubFault {
    /// The cache alone may be used, and does not have it.
    #[error("it is not in the cache, and the hub may not be asked (HF_HUB_OFFLINE)")]
    Offline,
    /// The connection could not be made, or broke too often.
    #[error("{host} could not be reached: {reason}")]
    Network {
        /// Host and port.
        host: String,
        /// What the system said.
        reason: String,
    },
    /// The hub wants to know who asks (which it also says of models that it does not have).
    #[error("the hub has no such public model{}", if *with_token { ", or none that this token may see" } else { "; a private one needs a token" })]
    Unauthorized {
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The model's terms were not accepted, or the token may not read it.
    #[error("the hub refuses it{}", if *with_token { ": the model's terms must be accepted with this account first" } else { " without a token" })]
    Forbidden {
        /// Whether a token was sent.
        with_token: bool,
    },
    /// There is no such model, revision or file.
    #[error("the hub has no {0}")]
    NotFound(String),
    /// Another answer than expected.
    #[error("{host} answers with status {status}")]
    Status {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// An answer that cannot be understood.
    #[error("the hub's answer is not as expected: {0}")]
    Answer(String),
    /// The model has no weights that are read.
    #[error("there is no model.safetensors; the repository has {0}")]
    NoWeights(String),
    /// A file's bytes are not those that the hub named.
    #[error("{file} has {given}, {expected} expected")]
    Content {
        /// The file.
        file: String,
        /// What came.
        given: String,
        /// What the hub named.
        expected: String,
    },
    /// The cache's disk has too little room.
    #[error("{needed} bytes are needed, {free} are free in {}", path.display())]
    Room {
        /// Bytes still to be downloaded.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The cache.
        path: PathBuf,
    },
    /// This processor lacks instructions that the encryption is written in.
    #[error("this processor has no AES, ADX or AVX2 instructions, which the encryption needs")]
    Processor,
    /// The certificates to trust cannot be read.
    #[error("no certificates to trust: {0}")]
    Certificates(String),
}

impl HubFault {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Offline => "unset HF_HUB_OFFLINE and `tunesmith pull` it once, or copy the cache from a computer that has it",
                Self::Network { .. } => {
                    "set HF_ENDPOINT to a mirror, HTTPS_PROXY to a proxy, SSL_CERT_FILE to its certificates; or copy the model's folder here and name that"
                }
                Self::Unauthorized { .. } => "check the spelling; for a private model set HF_TOKEN",
                Self::Forbidden { .. } => "accept the terms on the model's page, make a token there and set HF_TOKEN",
                Self::NotFound(_) => "the model's page lists its branches and files: hf:org/name@revision",
                Self::NoWeights(_) => "take a repository with safetensors, or download its GGUF file yourself and name that",
                Self::Room { .. } => "free some space, or set HF_HOME to a folder with more",
                Self::Processor => "download the model elsewhere, copy its folder here and name that",
                Self::Certificates(_) => "set SSL_CERT_FILE to a PEM file",
                Self::Status { status: 429, .. } => "wait a while: the hub limits how often it is asked",
                _ => return None,
            }
            .to_owned(),
        )
    }
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder, laid out as a Hugging Face model folder.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Nothing was downloaded.
    pub cached: bool,
}

/// The model from the cache; never reaches out. `None` where it is not there, or only in part.
pub fn cached(source: &HubSource, settings: &HubSettings) -> Result<Option<Snapshot>> {
    let folder = source.folder(&settings.cache);
    let commit = if source.is_commit() {
        source.revision.clone()
    } else {
        match atomic::read_text(&folder.join("refs").join(&source.revision), 1 << 10) {
            Ok(text) => text.trim().to_owned(),
            Err(StoreError::Missing { .. }) => return Ok(None),
            Err(e) => return Err(e),
        }
    };
    if !is_commit(&commit) {
        return Ok(None);
    }
    let folder = folder.join("snapshots").join(&commit);
    let Some(weights) = weights_in(&folder)? else { return Ok(None) };
    let mut bytes = 0;
    for name in SIDE.iter().copied().chain(weights.iter().map(String::as_str)) {
        bytes += std::fs::metadata(folder.join(name)).map_or(0, |found| found.len());
    }
    Ok(Some(Snapshot { folder, commit, bytes, cached: true }))
}

/// The weight files of a whole model in a folder, its index with them; `None` where one is missing.
fn weights_in(folder: &Path) -> Result<Option<Vec<String>>> {
    if !folder.join("config.json").exists() {
        return Ok(None);
    }
    if folder.join(SINGLE).exists() {
        return Ok(Some(vec![SINGLE.to_owned()]));
    }
    if !folder.join(INDEX).exists() {
        return Ok(None);
    }
    let mut shards = shards(&folder.join(INDEX))?;
    shards.push(INDEX.to_owned());
    Ok(shards.iter().all(|shard| folder.join(shard).exists()).then_some(shards))
}

/// The shards that an index names.
fn shards(index: &Path) -> Result<Vec<String>> {
    let value = atomic::read_object(index, MAX_SIDE_BYTES)?;
    let map = value["weight_map"].as_object();
    let names: BTreeSet<&str> = map.into_iter().flatten().filter_map(|(_, shard)| shard.as_str()).collect();
    let plain = |name: &str| name.ends_with(".safetensors") && !name.contains(['/', '\\']) && !name.starts_with('.');
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        let wrong = HubFault::Answer(format!("its index names the shard {:?}", shown(name)));
        return Err(StoreError::Hub { source_name: index.display().to_string(), fault: Box::new(wrong) });
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Compares hashes of a snapshot's files with those by which the hub names them.
///
/// # Errors
/// [`StoreError::Hash`] for a file that was changed or damaged since it was fetched.
pub fn verified(folder: &Path, hashes: &[FileHash]) -> Result<()> {
    for file in hashes {
        let path = folder.join(&file.name);
        let Ok(blob) = std::fs::read_link(&path) else { continue }; // a copy has no name that is a hash
        let id = blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if id.len() == 64 && is_hex(&id) && id != file.sha256 {
            return Err(StoreError::Hash { given: file.sha256.clone(), expected: id, bytes: file.bytes, path });
        }
    }
    Ok(())
}

/// The model from the cache, or else fetched into it and verified.
///
/// # Errors
/// [`StoreError::Hub`] with what the hub or the network did; [`StoreError::Stopped`] when `observe` says so. What was
/// downloaded by then stays, and the next time goes on from there.
pub fn snapshot(source: &HubSource, settings: &HubSettings, observe: &mut dyn FnMut(HubProgress) -> ControlFlow<()>) -> Result<Snapshot> {
    let failed = |fault: HubFault| StoreError::Hub { source_name: source.to_string(), fault: Box::new(fault) };
    if (settings.offline || source.is_commit())
        && let Some(found) = cached(source, settings)?
    {
        return Ok(found);
    }
    if settings.offline {
        return Err(failed(HubFault::Offline));
    }
    let client = Client::new(settings).map_err(failed)?;
    let listing = client.listing(source, observe).map_err(failed)?;
    if observe(HubProgress::Asked).is_break() {
        return Err(stopped(source));
    }
    let folder = source.folder(&settings.cache);
    let mut work = Work {
        source,
        settings,
        client,
        snapshot: folder.join("snapshots").join(&listing.commit),
        folder,
        commit: listing.commit.clone(),
        done: 0,
        total: 0,
        fetched: false,
    };
    work.all(&listing.files, observe)?;
    if !source.is_commit() {
        let place = work.folder.join("refs").join(&source.revision);
        atomic::create_folder(place.parent().expect("a file in refs"))?;
        atomic::write(&place, listing.commit.as_bytes())?;
    }
    let (cached, bytes) = (!work.fetched, work.total);
    Ok(Snapshot { folder: work.snapshot, commit: listing.commit, bytes, cached })
}

fn stopped(source: &HubSource) -> StoreError {
    StoreError::Stopped { source_name: source.to_string() }
}

/// One model being fetched.
struct Work<'a> {
    source: &'a HubSource,
    settings: &'a HubSettings,
    client: Client<'a>,
    folder: PathBuf,
    snapshot: PathBuf,
    commit: String,
    done: u64,
    total: u64,
    fetched: bool,
}

impl Work<'_> {
    fn failed(&self, fault: HubFault) -> StoreError {
        StoreError::Hub { source_name: self.source.to_string(), fault: Box::new(fault) }
    }

    fn all(&mut self, files: &[Listed], observe: &mut dyn FnMut(HubProgress) -> ControlFlow<()>) -> Result<()> {
        atomic::create_folder(&self.snapshot)?;
        atomic::create_folder(&self.folder.join("blobs"))?;
        let find = |name: &str| files.iter().find(|file| file.name == name);
        let mut wanted: Vec<&Listed> = files.iter().filter(|file| SIDE.contains(&file.name.as_str())).collect();
        if find("config.json").is_none() {
            return Err(self.failed(HubFault::NotFound("config.json in this repository".into())));
        }
        if let Some(single) = find(SINGLE) {
            wanted.push(single);
        } else if let Some(index) = find(INDEX) {
            self.total = index.bytes;
            self.file(index, observe)?;
            for shard in shards(&self.snapshot.join(INDEX))? {
                wanted.push(
                    find(&shard).ok_or_else(|| self.failed(HubFault::NotFound(format!("{}, which its index names", shown(&shard)))))?,
                );
            }
        } else {
            return Err(self.failed(HubFault::NoWeights(instead(files))));
        }
        self.total += wanted.iter().map(|file| file.bytes).sum::<u64>();
        let missing: u64 = wanted.iter().filter(|file| !self.is_there(file)).map(|file| file.bytes).sum();
        if let Some(free) = crate::disk::free_bytes(&self.folder).filter(|&free| free < missing) {
            return Err(self.failed(HubFault::Room { needed: missing, free, path: self.settings.cache.clone() }));
        }
        for file in wanted {
            self.file(file, observe)?;
        }
        Ok(())
    }

    fn is_there(&self, file: &Listed) -> bool {
        std::fs::metadata(self.snapshot.join(&file.name)).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    }

    /// A file into its place in the snapshot.
    fn file(&mut self, file: &Listed, observe: &mut dyn FnMut(HubProgress) -> ControlFlow<()>) -> Result<()> {
        if !file.is_weights() && file.bytes > MAX_SIDE_BYTES {
            let expected = format!("at most {MAX_SIDE_BYTES} bytes");
            return Err(self.failed(HubFault::Content { file: file.name.clone(), given: format!("{} bytes", file.bytes), expected }));
        }
        if !self.is_there(file) {
            let blob = self.folder.join("blobs").join(&file.id);
            // The lock that huggingface_hub takes for the same file.
            let locks = self.settings.cache.join(".locks").join(self.folder.file_name().expect("a model's folder has a name"));
            atomic::create_folder(&locks)?;
            let place = locks.join(format!("{}.lock", file.id));
            let failed = |e| StoreError::io("lock", &place, e);
            let lock = File::options().create(true).append(true).open(&place).map_err(failed)?;
            lock.lock().map_err(failed)?;
            if !std::fs::metadata(&blob).is_ok_and(|found| found.len() == file.bytes) {
                self.fetched = true;
                let (done, total) = (self.done, self.total);
                let download = |progress: HubProgress| match progress {
                    HubProgress::Downloading(bytes, _) => observe(HubProgress::Downloading(done + bytes, total)),
                    other => observe(other),
                };
                self.client.download(self.source, &self.commit, file, &blob, download)?;
            }
            link(&blob, &self.snapshot.join(&file.name))?;
        }
        self.done += file.bytes;
        if observe(HubProgress::Downloading(self.done, self.total)).is_break() {
            return Err(stopped(self.source));
        }
        Ok(())
    }
}

/// What there is instead of safetensors, largest first.
fn instead(files: &[Listed]) -> String {
    let mut weights: Vec<&Listed> = files.iter().filter(|file| file.bytes > 1 << 20).collect();
    weights.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
    let names: Vec<String> = weights.iter().take(3).map(|file| shown(&file.name)).collect();
    if names.is_empty() { "no large files".into() } else { names.join(", ") }
}

/// A relative link to the blob where there are links; else the blob itself moves, as huggingface_hub does it.
fn link(blob: &Path, place: &Path) -> Result<()> {
    let failed = |e| StoreError::io("link", place, e);
    match std::fs::remove_file(place) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    #[cfg(unix)]
    {
        let name = blob.file_name().expect("a blob has a name");
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), place).map_err(failed)
    }
    #[cfg(not(unix))]
    {
        std::fs::rename(blob, place).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed_and_wrong_ones_refused() {
        let parse = |text: &str| HubSource::parse(text).map(|source| source.to_string());
        assert_eq!(parse("hf:Qwen/Qwen2.5-0.5B").unwrap(), "hf:Qwen/Qwen2.5-0.5B@main");
        assert_eq!(parse("hf:gpt2@v1.0").unwrap(), "hf:gpt2@v1.0");
        assert_eq!(parse("hf:a/b@refs/pr/1").unwrap(), "hf:a/b@refs/pr/1");
        let bad = [
            "Qwen/x",
            "hf:",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a--b/c",
            "hf:a b/c",
            "hf:a/b?x",
            "hf:a/b@x//y",
        ];
        for text in bad {
            assert!(matches!(HubSource::parse(text), Err(StoreError::HubSource { .. })), "{text}");
        }
        assert!(HubSource::parse(&format!("hf:a/b@{}", "0123456789".repeat(4))).unwrap().is_commit());
        assert_eq!(format!("{:?}", Token::new(" hf_secret\n").unwrap()), "Token(…)");
        assert_eq!(Token::new("two words"), None);
    }
}
