//! `bench prepare`: a project's sources through the whole pipeline and into files: read, clean, deduplicate, split, write.
//!
//! Counting tokens is left out, because it takes longer than all of this together and depends on the tokenizer. The
//! files are scratch files below `runs/`, which leave nothing behind; they are written, but not fsynced.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::context::{Context, Observer};
use crate::error::Result;
use crate::{plan, prepare};

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchPrepare {
    /// Bytes of the sources.
    pub bytes: u64,
    /// Rows of the sources.
    pub rows: u64,
    /// Records that were kept.
    pub records: u64,
    /// Bytes of documents, records and rejects.
    pub written_bytes: u64,
    /// Seconds of the first pass and of deciding.
    pub decide_seconds: f64,
    /// Seconds of the second pass.
    pub write_seconds: f64,
    /// 10⁶ bytes of source per second, all in all.
    pub megabytes_per_second: f64,
    /// The same for each thread.
    pub megabytes_per_second_per_thread: f64,
    /// Most memory that this process had resident; 0: not known.
    pub peak_rss_bytes: u64,
    /// Threads used.
    pub threads: usize,
}

/// Prepares and times it; `path` is a run file or its folder.
pub fn prepare(context: &Context<'_>, observer: &mut dyn Observer, path: &Path) -> Result<BenchPrepare> {
    let (_, plan, folder) = plan::read(path)?;
    let from = context.clock.seconds();
    let story = prepare::stream_checked(context, &plan, &folder, &|_| Ok(None), &|text| text.split_whitespace().count(), observer)?;
    let decided = context.clock.seconds();
    let written_bytes = story.copy(|| store::scratch::Scratch::new(&context.workspace.join("runs")))?;
    let end = context.clock.seconds();
    let bytes = story.facts.sources.iter().map(|source| source.bytes).sum();
    let megabytes_per_second = bytes as f64 / 1e6 / (end - from).max(1e-9);
    Ok(BenchPrepare {
        bytes,
        rows: story.facts.rows,
        records: story.facts.records,
        written_bytes,
        decide_seconds: decided - from,
        write_seconds: end - decided,
        megabytes_per_second,
        megabytes_per_second_per_thread: megabytes_per_second / context.threads as f64,
        peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0),
        threads: context.threads,
    })
}

impl prepare::Story {
    /// Writes documents, records and rejects into files of `new`'s making; gives their bytes.
    fn copy<F: Write>(&self, new: impl Fn() -> F) -> Result<u64> {
        let (mut documents, mut rejects, mut bytes) = (new(), new(), 0u64);
        let mut parts: Vec<F> = data::Part::ALL.iter().map(|_| new()).collect();
        let mut put = |file: &mut F, piece: &[u8]| -> Result<()> {
            bytes += piece.len() as u64;
            Ok(file.write_all(piece).map_err(|error| data::DataError::Spill { problem: error.to_string() })?)
        };
        let mut finished = self.finished();
        finished.documents(|piece| put(&mut documents, piece))?;
        finished.records(|part, line| put(&mut parts[part as usize], line))?;
        finished.rejects(|piece| put(&mut rejects, piece))?;
        Ok(bytes)
    }
}
