//! What lies in scratch files, by row.

use super::Rows;
use crate::spill::Log;
use crate::split::Keys;
use crate::{DataError, Record, wire};

/// Bytes of a row's keys: content key and naive key.
pub(super) const KEY_BYTES: usize = 40;

impl Keys for Log {
    fn scan(&mut self, each: &mut dyn FnMut(u32, [u8; 32], u64)) -> Result<(), DataError> {
        let rows = (self.len() / KEY_BYTES as u64) as usize;
        self.pieces(std::iter::repeat_n(KEY_BYTES, rows), |row, piece| {
            let (content, naive) = piece.split_at(32);
            let whole = |_| DataError::Spill { problem: "a key was cut".into() };
            each(row as u32, content.try_into().map_err(whole)?, u64::from_be_bytes(naive.try_into().map_err(whole)?));
            Ok::<(), DataError>(())
        })
    }
}

/// A row's entry: length of the id, the id, the record without its stratum.
pub(super) fn line(records: &mut Log, start: &[u64], row: u32) -> Result<Vec<u8>, DataError> {
    let begin = start[row as usize];
    let end = start.get(row as usize + 1).copied().unwrap_or_else(|| records.len());
    let mut bytes = vec![0; (end - begin) as usize];
    records.read(begin, &mut bytes)?;
    Ok(bytes)
}

/// A record as it is kept outside memory: see [`parts`].
pub(super) fn entry_of(record: &Record) -> Vec<u8> {
    let mut entry = (record.id.len() as u32).to_be_bytes().to_vec();
    entry.extend_from_slice(record.id.as_bytes());
    wire::write_open_record(&mut entry, record);
    entry
}

fn cut() -> DataError {
    DataError::Spill { problem: "a record was cut".into() }
}

/// An entry's id and its record without the stratum.
pub(super) fn parts(entry: &[u8]) -> Result<(&str, &[u8]), DataError> {
    let (length, rest) = entry.split_at_checked(4).ok_or_else(cut)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let (id, record) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok((std::str::from_utf8(id).map_err(|_| cut())?, record))
}

pub(super) fn read_entry(entry: &[u8]) -> Result<Record, DataError> {
    let mut line = parts(entry)?.1.to_vec();
    wire::close_record(&mut line, None, None);
    wire::read_record(&line).map_err(|problem| DataError::Spill { problem })
}

pub(super) fn record(records: &mut Log, start: &[u64], row: u32) -> Result<Record, DataError> {
    read_entry(&line(records, start, row)?)
}

pub(super) fn row_id(records: &mut Log, rows: &Rows, row: u32) -> Result<String, DataError> {
    let mut length = [0; 4];
    let begin = rows.start[row as usize];
    records.read(begin, &mut length)?;
    let mut id = vec![0; u32::from_be_bytes(length) as usize];
    records.read(begin + 4, &mut id)?;
    String::from_utf8(id).map_err(|_| cut())
}
