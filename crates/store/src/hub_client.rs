//! The calls of the hub's protocol: the listing of a revision, and files by commit, resumed and verified.
//!
//! TLS is rustls with cryptography in Rust and assembly. Redirects are followed by hand: the hub sends large files from other
//! hosts, which must not see the user's token.
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider};

use crate::error::shown;
use crate::hub::{HubFault, HubProgress, HubSettings, HubSource, MAX_FILES, is_commit, is_hex};
use crate::{Result, StoreError, atomic};

/// Largest listing of a model's files.
const MAX_LISTING_BYTES: u64 = 32 << 20;
/// Most redirects of one request.
const MAX_REDIRECTS: usize = 5;
/// Most attempts in a row that bring nothing.
const ATTEMPTS: u32 = 5;
/// Longest wait for a connection, and for the next bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest name of a file.
const LONGEST_NAME: usize = 200;
const BUFFER: usize = 1 << 18;

/// A file of a model, as the hub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its path in the repository.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// SHA-256 of a large file (64 digits), git's SHA-1 of a small one (40 digits).
    pub(crate) id: String,
}

impl Listed {
    pub(crate) fn is_weights(&self) -> bool {
        self.name.ends_with(".safetensors")
    }
}

/// What a revision is.
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) files: Vec<Listed>,
}

/// A connection to the hub.
pub(crate) struct Client<'a> {
    settings: &'a HubSettings,
    agent: ureq::Agent,
    /// Why no connection can be encrypted; an open endpoint may still send files from one.
    encrypts: std::result::Result<(), HubFault>,
}

/// An answer whose body is still to be read.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: ureq::Body,
    /// Headers of the hub itself, where the file came from another host.
    first: ureq::http::HeaderMap,
    host: String,
}

/// How an attempt ended that did not succeed.
enum Attempt {
    /// A new one may succeed.
    Again(HubFault),
    /// It would end the same way.
    Final(HubFault),
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a HubSettings) -> std::result::Result<Self, HubFault> {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")));
        let open = settings.endpoint.starts_with("http://");
        let (config, encrypts) = match tls(settings.certificates.as_deref()) {
            Ok(tls) => (config.tls_config(tls), Ok(())),
            Err(fault) if open => (config, Err(fault)),
            Err(fault) => return Err(fault),
        };
        Ok(Self { settings, agent: config.build().new_agent(), encrypts })
    }

    /// Commit and files of a revision.
    pub(crate) fn listing(
        &self,
        source: &HubSource,
        observe: &mut dyn FnMut(HubProgress) -> ControlFlow<()>,
    ) -> std::result::Result<Listing, HubFault> {
        let url =
            format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint(), source.repository, source.revision.replace('/', "%2F"));
        let mut attempt = 0;
        let body = loop {
            attempt += 1;
            match self.json(&url, &format!("model {} at {}", source.repository, source.revision)) {
                Ok(body) => break body,
                Err(Attempt::Again(fault)) if attempt < ATTEMPTS => {
                    if observe(HubProgress::Again(fault.to_string())).is_break() {
                        return Err(fault);
                    }
                    self.wait(attempt);
                }
                Err(Attempt::Again(fault) | Attempt::Final(fault)) => return Err(fault),
            }
        };
        listing_of(&body)
    }

    fn json(&self, url: &str, what: &str) -> std::result::Result<Value, Attempt> {
        let answer = self.get(url, 0)?;
        self.checked(&answer, what, &[200])?;
        let mut bytes = Vec::new();
        let host = answer.host;
        let mut body = answer.body.into_reader().take(MAX_LISTING_BYTES + 1);
        body.read_to_end(&mut bytes).map_err(|e| Attempt::Again(HubFault::Network { host, reason: e.to_string() }))?;
        if bytes.len() as u64 > MAX_LISTING_BYTES {
            return Err(Attempt::Final(HubFault::Answer(format!("a listing of more than {MAX_LISTING_BYTES} bytes"))));
        }
        serde_json::from_slice(&bytes).map_err(|e| Attempt::Final(HubFault::Answer(format!("no JSON: {e}"))))
    }

    fn endpoint(&self) -> &str {
        self.settings.endpoint.trim_end_matches('/')
    }

    fn wait(&self, attempt: u32) {
        std::thread::sleep(self.settings.pause * 2u32.pow(attempt - 1));
    }

    /// A file into `blob`, from where an earlier attempt ended, verified before it gets its name.
    pub(crate) fn download(
        &self,
        source: &HubSource,
        commit: &str,
        file: &Listed,
        blob: &Path,
        mut observe: impl FnMut(HubProgress) -> ControlFlow<()>,
    ) -> Result<()> {
        let failed = |fault: HubFault| StoreError::Hub { source_name: source.to_string(), fault: Box::new(fault) };
        let stopped = || StoreError::Stopped { source_name: source.to_string() };
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint(), source.repository, encoded(&file.name));
        let mut partial = Partial::open(blob, file)?;
        let (mut attempt, mut damaged) = (0, false);
        loop {
            while partial.bytes < file.bytes {
                let before = partial.bytes;
                match self.piece(&url, commit, file, &mut partial, &mut observe) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Err(stopped()),
                    Err(Piece::Store(error)) => return Err(error),
                    Err(Piece::Attempt(Attempt::Final(fault))) => return Err(failed(fault)),
                    Err(Piece::Attempt(Attempt::Again(fault))) => {
                        attempt = if partial.bytes > before { 1 } else { attempt + 1 };
                        if attempt >= ATTEMPTS {
                            return Err(failed(fault));
                        }
                        if observe(HubProgress::Again(fault.to_string())).is_break() {
                            return Err(stopped());
                        }
                        self.wait(attempt);
                    }
                }
            }
            match partial.finish(file, blob)? {
                None => return Ok(()),
                // What an earlier attempt left may have been damaged; what came in one go was not.
                Some(fault) if damaged => return Err(failed(fault)),
                Some(fault) => {
                    damaged = true;
                    if observe(HubProgress::Damaged(fault.to_string())).is_break() {
                        return Err(stopped());
                    }
                    partial = Partial::open(blob, file)?;
                }
            }
        }
    }

    /// One request for the rest of a file; the bytes that came are kept even if it ends early.
    fn piece(
        &self,
        url: &str,
        commit: &str,
        file: &Listed,
        partial: &mut Partial,
        observe: &mut dyn FnMut(HubProgress) -> ControlFlow<()>,
    ) -> std::result::Result<ControlFlow<()>, Piece> {
        let answer = self.get(url, partial.bytes)?;
        self.checked(&answer, &format!("file {}", shown(&file.name)), &[200, 206])?;
        answer.named(commit, file)?;
        if answer.status == 200 && partial.bytes > 0 {
            partial.restart(file)?; // the server does not go on in the middle
        }
        if answer.status == 206 {
            let range = format!("bytes {}-", partial.bytes);
            let given = text(&answer.headers, "content-range").unwrap_or_default();
            if !given.starts_with(&range) {
                return Err(Attempt::Final(HubFault::Answer(format!("the range {:?} where {range:?} was asked for", shown(given)))).into());
            }
        }
        let mut body = answer.body.into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let broken = |reason: String| Attempt::Again(HubFault::Network { host: answer.host.clone(), reason });
            let count = match body.read(&mut buffer) {
                Ok(0) if partial.bytes < file.bytes => {
                    partial.flush()?;
                    return Err(broken(format!("the connection ended after {} of {} bytes", partial.bytes, file.bytes)).into());
                }
                Ok(0) => return Ok(ControlFlow::Continue(())),
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    partial.flush()?;
                    return Err(broken(e.to_string()).into());
                }
            };
            if partial.bytes + count as u64 > file.bytes {
                partial.restart(file)?;
                let given = format!("more than {} bytes", file.bytes);
                let fault = HubFault::Content { file: file.name.clone(), given, expected: format!("{} bytes", file.bytes) };
                return Err(Attempt::Final(fault).into());
            }
            partial.write(&buffer[..count])?;
            if observe(HubProgress::Downloading(partial.bytes, file.bytes)).is_break() {
                partial.flush()?;
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// GET from byte `from` on, redirects followed; the token goes to the hub only.
    fn get(&self, url: &str, from: u64) -> std::result::Result<Answer, Attempt> {
        let home = origin(url).to_owned();
        let mut url = url.to_owned();
        let mut first: Option<ureq::http::HeaderMap> = None;
        for _ in 0..=MAX_REDIRECTS {
            let host = origin(&url).to_owned();
            if url.starts_with("https://") {
                self.encrypts.clone().map_err(Attempt::Final)?;
            }
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| host == home) {
                request = request.header("authorization", token.header());
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let answer =
                request.call().map_err(|error| Attempt::Again(HubFault::Network { host: host.clone(), reason: error.to_string() }))?;
            let (parts, body) = answer.into_parts();
            let status = parts.status.as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                let first = first.unwrap_or_else(|| parts.headers.clone());
                return Ok(Answer { status, headers: parts.headers, body, first, host });
            }
            let location = text(&parts.headers, "location").unwrap_or_default();
            url = redirected(&url, location)
                .ok_or_else(|| Attempt::Final(HubFault::Answer(format!("a redirect to {:?}", shown(location)))))?;
            first.get_or_insert(parts.headers);
        }
        Err(Attempt::Final(HubFault::Answer(format!("more than {MAX_REDIRECTS} redirects"))))
    }

    /// Turns a status that is not one of `good` into what it means.
    fn checked(&self, answer: &Answer, what: &str, good: &[u16]) -> std::result::Result<(), Attempt> {
        let with_token = self.settings.token.is_some();
        let fault = match answer.status {
            status if good.contains(&status) => return Ok(()),
            401 => HubFault::Unauthorized { with_token },
            403 => HubFault::Forbidden { with_token },
            404 | 410 => HubFault::NotFound(what.to_owned()),
            status => HubFault::Status { host: answer.host.clone(), status },
        };
        Err(match answer.status {
            429 | 500..=599 => Attempt::Again(fault),
            _ => Attempt::Final(fault),
        })
    }
}

impl Answer {
    /// The commit and the hash that the hub says the file has, where it says them.
    fn named(&self, commit: &str, file: &Listed) -> std::result::Result<(), Attempt> {
        let differs = |what: &str, given: &str, expected: &str| {
            let (given, expected) = (format!("{what} {}", shown(given)), format!("{what} {expected}"));
            Err(Attempt::Final(HubFault::Content { file: file.name.clone(), given, expected }))
        };
        if let Some(given) = text(&self.first, "x-repo-commit").filter(|given| *given != commit) {
            return differs("commit", given, commit);
        }
        let etag = text(&self.first, "x-linked-etag").or_else(|| text(&self.first, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        // A mirror may have names of its own; only a hash of the same kind can contradict.
        match etag.filter(|etag| etag.len() == file.id.len() && is_hex(etag) && *etag != file.id) {
            Some(given) => differs("hash", given, &file.id),
            None => Ok(()),
        }
    }
}

enum Piece {
    Attempt(Attempt),
    Store(StoreError),
}

impl From<Attempt> for Piece {
    fn from(attempt: Attempt) -> Self {
        Self::Attempt(attempt)
    }
}

impl From<StoreError> for Piece {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A file that is not whole yet: `blobs/<id>.incomplete`, as huggingface_hub calls it.
struct Partial {
    place: PathBuf,
    out: File,
    bytes: u64,
    hash: Hash,
}

enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn of(file: &Listed) -> Self {
        if file.id.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", file.bytes).as_bytes()); // what git hashes before the content
        Self::Git(hash)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        match self {
            Self::Sha256(hash) => atomic::hex(&hash.finalize()),
            Self::Git(hash) => atomic::hex(&hash.finalize()),
        }
    }
}

impl Partial {
    /// What an earlier attempt left, or nothing.
    fn open(blob: &Path, file: &Listed) -> Result<Self> {
        let place = blob.with_file_name(format!("{}.incomplete", file.id));
        let failed = |e| StoreError::io("write", &place, e);
        let mut out = File::options().read(true).create(true).append(true).open(&place).map_err(failed)?;
        let (mut bytes, mut hash) = (0, Hash::of(file));
        if out.metadata().map_err(failed)?.len() > file.bytes {
            out.set_len(0).map_err(failed)?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = out.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(Self { place, out, bytes, hash })
    }

    fn restart(&mut self, file: &Listed) -> Result<()> {
        self.out.set_len(0).map_err(|e| StoreError::io("write", &self.place, e))?;
        (self.bytes, self.hash) = (0, Hash::of(file));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| StoreError::io("write", &self.place, e))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.out.sync_data().map_err(|e| StoreError::io("write", &self.place, e))
    }

    /// Gives the file its name if its bytes are those that the hub named; else removes it and says what it has.
    fn finish(self, file: &Listed, blob: &Path) -> Result<Option<HubFault>> {
        let failed = |e| StoreError::io("write", &self.place, e);
        let given = self.hash.hex();
        if given != file.id {
            std::fs::remove_file(&self.place).map_err(failed)?;
            let (given, expected) = (format!("hash {given}"), format!("hash {}", file.id));
            return Ok(Some(HubFault::Content { file: file.name.clone(), given, expected }));
        }
        self.out.sync_all().map_err(failed)?;
        std::fs::rename(&self.place, blob).map_err(failed)?;
        atomic::sync_folder(blob.parent().expect("a blob is in a folder"))?;
        Ok(None)
    }
}

/// Reads the hub's answer about a revision.
fn listing_of(body: &Value) -> std::result::Result<Listing, HubFault> {
    let wrong = |what: String| HubFault::Answer(what);
    let commit = body["sha"].as_str().filter(|sha| is_commit(sha)).ok_or_else(|| wrong("no commit".into()))?;
    let siblings = body["siblings"].as_array().ok_or_else(|| wrong("no list of files".into()))?;
    if siblings.len() > 100 * MAX_FILES {
        return Err(wrong(format!("{} files, at most {} are read", siblings.len(), 100 * MAX_FILES)));
    }
    let mut files = Vec::new();
    for entry in siblings {
        let name = entry["rfilename"].as_str().unwrap_or_default();
        // Folders hold other forms of the same model; nothing of them is read.
        let plain = !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
        if !plain || name.chars().any(char::is_control) {
            continue;
        }
        let large = entry["lfs"].as_object();
        let id = large.and_then(|lfs| lfs.get("sha256").or_else(|| lfs.get("oid"))).or_else(|| entry.get("blobId")).and_then(Value::as_str);
        let bytes = large.and_then(|lfs| lfs.get("size")).or_else(|| entry.get("size")).and_then(Value::as_u64);
        let id = id.filter(|id| is_hex(id) && id.len() == if large.is_some() { 64 } else { 40 });
        let (Some(id), Some(bytes)) = (id, bytes) else { return Err(wrong(format!("{} has no hash or no size", shown(name)))) };
        files.push(Listed { name: name.to_owned(), bytes, id: id.to_owned() });
    }
    if files.len() > MAX_FILES {
        return Err(wrong(format!("{} files, at most {MAX_FILES} are taken", files.len())));
    }
    Ok(Listing { commit: commit.to_owned(), files })
}

/// Which certificates are trusted, and with what it is encrypted.
fn tls(certificates: Option<&Path>) -> std::result::Result<TlsConfig, HubFault> {
    if !encrypts() {
        return Err(HubFault::Processor);
    }
    let trusted: Vec<Certificate<'static>> = match certificates {
        Some(path) => {
            let unreadable = |reason: String| HubFault::Certificates(format!("{}: {reason}", path.display()));
            let pem = atomic::read(path, 64 << 20).map_err(|e| unreadable(e.to_string()))?;
            let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(e) => Some(Err(unreadable(e.to_string()))),
            });
            items.collect::<std::result::Result<_, _>>()?
        }
        None => rustls_native_certs::load_native_certs().certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect(),
    };
    if trusted.is_empty() {
        return Err(HubFault::Certificates("the system has none".into()));
    }
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&trusted))
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .build())
}

/// Whether the processor has what the cryptography is written in; without, it would panic.
fn encrypts() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("aes") && has!("pclmulqdq") && has!("bmi1") && has!("bmi2") && has!("adx") && has!("avx2")
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as has;
        has!("aes") && has!("pmull") && has!("sha2") && has!("neon")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

fn text<'h>(headers: &'h ureq::http::HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Where a redirect leads; never from an encrypted connection to an open one.
fn redirected(from: &str, location: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(format!("{}{location}", origin(from)));
    }
    let open = location.starts_with("http://") && from.starts_with("http://");
    (open || location.starts_with("https://")).then(|| location.to_owned())
}

/// A file's name in a URL.
fn encoded(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~');
    name.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}
