//! Room for what grows with the input: whoever runs the pipeline says where ([`Spill`]), and the pipeline keeps only a
//! fixed number of bytes per record in memory.
//!
//! Two shapes are enough. A `Log` is written once from the front and read at any place; a `Sorter` takes entries of
//! a fixed size in any order and gives them back sorted: equal hashes come out side by side, which is how duplicates,
//! groups and near-duplicate candidates are found without a hash table of everything.

use crate::DataError;
use rayon::slice::ParallelSliceMut;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

/// A scratch file; it goes when it is dropped.
pub trait SpillFile: Read + Write + Seek + Send {}
impl<T: Read + Write + Seek + Send> SpillFile for T {}

/// Where scratch files come from.
pub trait Spill: Sync {
    /// A new, empty scratch file.
    fn create(&self) -> io::Result<Box<dyn SpillFile>>;
}

/// Scratch "files" in memory: for small inputs and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl Spill for InMemory {
    fn create(&self) -> io::Result<Box<dyn SpillFile>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }
}

/// Bytes that a log gathers before it writes.
const LOG_BUFFER: usize = 1 << 20;
/// Bytes that merging reads of each run at a time.
const MERGE_BYTES: usize = 128 << 10;

fn failed(error: io::Error) -> DataError {
    DataError::Spill { problem: error.to_string() }
}

/// Bytes written one after the other, and read at any place.
pub(crate) struct Log {
    file: Box<dyn SpillFile>,
    buffer: Vec<u8>,
    written: u64,
}

impl Log {
    pub(crate) fn new(spill: &dyn Spill) -> Result<Self, DataError> {
        Ok(Self { file: spill.create().map_err(failed)?, buffer: Vec::new(), written: 0 })
    }

    /// Appends; gives where it begins.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<u64, DataError> {
        let at = self.len();
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= LOG_BUFFER {
            self.flush()?;
        }
        Ok(at)
    }

    pub(crate) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Result<(), DataError> {
        if !self.buffer.is_empty() {
            self.file.seek(SeekFrom::Start(self.written)).map_err(failed)?;
            self.file.write_all(&self.buffer).map_err(failed)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Reads `bytes.len()` bytes at a place.
    pub(crate) fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<(), DataError> {
        self.flush()?;
        self.file.seek(SeekFrom::Start(at)).map_err(failed)?;
        self.file.read_exact(bytes).map_err(failed)
    }

    /// Reads pieces that follow one another, in order, each handed to `each`; many are read at once.
    pub(crate) fn pieces<E: From<DataError>>(
        &mut self,
        lengths: impl Iterator<Item = usize>,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.flush()?;
        let mut lengths = lengths.enumerate().peekable();
        let (mut at, mut buffer, mut pending) = (0u64, Vec::new(), Vec::new());
        while lengths.peek().is_some() {
            pending.clear();
            let mut bytes = 0;
            while let Some((index, length)) = lengths.next_if(|(_, length)| bytes == 0 || bytes + length <= LOG_BUFFER) {
                pending.push((index, length));
                bytes += length;
            }
            buffer.resize(bytes, 0);
            self.read(at, &mut buffer)?;
            at += bytes as u64;
            let mut rest = buffer.as_slice();
            for (index, length) in &pending {
                let (piece, after) = rest.split_at(*length);
                rest = after;
                each(*index, piece)?;
            }
        }
        Ok(())
    }
}

/// Entries of `N` bytes, given back in the order of their bytes.
pub(crate) struct Sorter<'a, const N: usize> {
    spill: &'a dyn Spill,
    entries: Vec<[u8; N]>,
    limit: usize,
    file: Option<Box<dyn SpillFile>>,
    /// Entries of each run in the file.
    runs: Vec<usize>,
}

impl<'a, const N: usize> Sorter<'a, N> {
    /// One that holds about so many bytes in memory.
    pub(crate) fn with_memory(spill: &'a dyn Spill, bytes: usize) -> Self {
        Self { spill, entries: Vec::new(), limit: (bytes / N).max(1), file: None, runs: Vec::new() }
    }

    /// A new one like this, without its entries.
    pub(crate) fn emptied(&self) -> Self {
        Self { spill: self.spill, entries: Vec::new(), limit: self.limit, file: None, runs: Vec::new() }
    }

    pub(crate) fn push(&mut self, entry: [u8; N]) -> Result<(), DataError> {
        self.entries.push(entry);
        if self.entries.len() >= self.limit {
            self.write_run()?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> Result<(), DataError> {
        sort(&mut self.entries);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spill.create().map_err(failed)?),
        };
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.write_all(self.entries.as_flattened()).map_err(failed)?;
        self.runs.push(self.entries.len());
        self.entries.clear();
        Ok(())
    }

    /// All entries in order.
    pub(crate) fn sorted(mut self) -> Result<Sorted<N>, DataError> {
        if self.runs.is_empty() {
            sort(&mut self.entries);
            return Ok(Sorted { memory: self.entries.into_iter(), file: None, runs: Vec::new(), heap: BinaryHeap::new(), peeked: None });
        }
        if !self.entries.is_empty() {
            self.write_run()?;
        }
        self.entries = Vec::new();
        let mut begin = 0u64;
        let mut runs = Vec::with_capacity(self.runs.len());
        for entries in &self.runs {
            runs.push(Run { next: begin, left: *entries, buffer: Vec::new(), at: 0 });
            begin += (entries * N) as u64;
        }
        let mut sorted = Sorted { memory: Vec::new().into_iter(), file: self.file, runs, heap: BinaryHeap::new(), peeked: None };
        for run in 0..sorted.runs.len() {
            sorted.refill(run)?;
        }
        Ok(sorted)
    }
}

/// Entries in the order of their bytes. The first eight are compared as a number, which nearly always settles it.
fn sort<const N: usize>(entries: &mut [[u8; N]]) {
    let number = |entry: &[u8; N]| entry.first_chunk::<8>().map(|first| u64::from_be_bytes(*first));
    entries.par_sort_unstable_by(|a, b| number(a).cmp(&number(b)).then_with(|| a.cmp(b)));
}

struct Run<const N: usize> {
    next: u64,
    left: usize,
    buffer: Vec<[u8; N]>,
    at: usize,
}

/// Entries in order.
pub(crate) struct Sorted<const N: usize> {
    memory: std::vec::IntoIter<[u8; N]>,
    file: Option<Box<dyn SpillFile>>,
    runs: Vec<Run<N>>,
    heap: BinaryHeap<Reverse<([u8; N], usize)>>,
    /// An entry that was taken to see that it is of the next group.
    peeked: Option<[u8; N]>,
}

impl<const N: usize> Sorted<N> {
    /// Puts the next entry of a run on the heap, reading more of it where needed.
    fn refill(&mut self, index: usize) -> Result<(), DataError> {
        let run = &mut self.runs[index];
        if run.at == run.buffer.len() {
            let count = run.left.min((MERGE_BYTES / N).max(1));
            run.buffer.resize(count, [0; N]);
            run.at = 0;
            if let Some(file) = self.file.as_mut().filter(|_| count > 0) {
                file.seek(SeekFrom::Start(run.next)).map_err(failed)?;
                file.read_exact(run.buffer.as_flattened_mut()).map_err(failed)?;
            }
            run.next += (count * N) as u64;
            run.left -= count;
        }
        if let Some(entry) = run.buffer.get(run.at) {
            self.heap.push(Reverse((*entry, index)));
            run.at += 1;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<[u8; N]>, DataError> {
        if let Some(entry) = self.memory.next() {
            return Ok(Some(entry));
        }
        let Some(Reverse((entry, run))) = self.heap.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(entry))
    }

    /// Calls `each` with the row numbers (the last four bytes, big-endian) of entries whose first bytes are equal, in
    /// order; only where there are at least two.
    pub(crate) fn equal(&mut self, mut each: impl FnMut(&[u32]) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut rows = Vec::new();
        while self.next_equal(&mut |row| rows.push(row))? {
            if rows.len() > 1 {
                each(&rows)?;
            }
            rows.clear();
        }
        Ok(())
    }

    /// Hands out the rows of the next entries whose first bytes are equal; false if no entry is left.
    pub(crate) fn next_equal(&mut self, each: &mut impl FnMut(u32)) -> Result<bool, DataError> {
        let Some(first) = (match self.peeked.take() {
            Some(entry) => Some(entry),
            None => self.take()?,
        }) else {
            return Ok(false);
        };
        let mut entry = first;
        loop {
            let row = &entry[N - 4..];
            each(u32::from_be_bytes([row[0], row[1], row[2], row[3]]));
            match self.take()? {
                Some(next) if next[..N - 4] == first[..N - 4] => entry = next,
                next => {
                    self.peeked = next;
                    return Ok(true);
                }
            }
        }
    }
}

impl<const N: usize> Iterator for Sorted<N> {
    type Item = Result<[u8; N], DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_into_one_order() {
        let numbers: Vec<u64> = (0..5000u64).map(|i| i * 7919 % 977).collect();
        for memory in [64, 1000, 1 << 20] {
            let mut sorter = Sorter::<12>::with_memory(&InMemory, memory);
            for (row, number) in numbers.iter().enumerate() {
                let mut entry = [0; 12];
                entry[..8].copy_from_slice(&number.to_be_bytes());
                entry[8..].copy_from_slice(&(row as u32).to_be_bytes());
                sorter.push(entry).unwrap();
            }
            let mut groups = Vec::new();
            sorter
                .sorted()
                .unwrap()
                .equal(|rows| {
                    groups.push(rows.to_vec());
                    Ok(())
                })
                .unwrap();
            assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 5000, "{memory}");
            for rows in &groups {
                assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
                assert!(rows.iter().all(|row| numbers[*row as usize] == numbers[rows[0] as usize]));
            }
        }
    }

    #[test]
    fn a_log_gives_back_what_it_was_given() {
        let mut log = Log::new(&InMemory).unwrap();
        let pieces: Vec<Vec<u8>> = (0..40usize).map(|i| vec![i as u8; i * 9000]).collect();
        let places: Vec<u64> = pieces.iter().map(|piece| log.push(piece).unwrap()).collect();
        let mut bytes = vec![0; pieces[7].len()];
        log.read(places[7], &mut bytes).unwrap();
        assert_eq!(bytes, pieces[7]);
        let mut seen = 0;
        log.pieces(pieces.iter().map(Vec::len), |index, piece| {
            assert_eq!(piece, pieces[index]);
            seen += 1;
            Ok::<(), DataError>(())
        })
        .unwrap();
        assert_eq!(seen, 40);
    }
}
