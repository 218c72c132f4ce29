//! TFRecord: framed records with masked CRC-32C, each a `tf.train.Example`; read and written.
//!
//! A record is `length: u64 | masked CRC of length: u32 | data | masked CRC of data: u32`, little-endian
//! (tensorflow/core/lib/io/record_writer.h); `masked = rotate_right(crc, 15) + 0xa282ead8`. An Example is a protocol
//! buffer: `Example { Features features = 1 }`, `Features { map<string, Feature> feature = 1 }`,
//! `Feature { BytesList = 1 | FloatList = 2 | Int64List = 3 }` (tensorflow/core/example/{example,feature}.proto).

use super::container::Bytes;
use super::place::Place;
use super::walk::{Found, Walk, rejects};
use super::{Item, ReadOptions, mojibake};
use crate::{DataError, Value};
use std::io::{self, BufReader, Read, Write};

const MASK_DELTA: u32 = 0xa282_ead8;
/// CRC-32C (Castagnoli), reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Tables for eight bytes at a time.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[slice - 1][byte];
            tables[slice][byte] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let low = crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]);
        let [a, b, c, d] = low.to_le_bytes();
        crc = TABLES[7][a as usize]
            ^ TABLES[6][b as usize]
            ^ TABLES[5][c as usize]
            ^ TABLES[4][d as usize]
            ^ TABLES[3][eight[4] as usize]
            ^ TABLES[2][eight[5] as usize]
            ^ TABLES[1][eight[6] as usize]
            ^ TABLES[0][eight[7] as usize];
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Reads a protocol buffer field by field.
struct Fields<'a>(&'a [u8]);

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field and its number; `Err` where it is broken.
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, ()> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint().ok_or(())?;
        let wire = match key & 7 {
            0 => Wire::Number(self.varint().ok_or(())?),
            1 => {
                let bytes = self.take(8).ok_or(())?;
                Wire::Bytes(bytes)
            }
            2 => {
                let length = usize::try_from(self.varint().ok_or(())?).map_err(|_| ())?;
                Wire::Bytes(self.take(length).ok_or(())?)
            }
            5 => {
                let bytes = self.take(4).ok_or(())?;
                Wire::Fixed32(u32::from_le_bytes(bytes.try_into().map_err(|_| ())?))
            }
            _ => return Err(()),
        };
        Ok(Some((key >> 3, wire)))
    }
}

/// The fields of a serialised Example, sorted by name, because a map has no order; `Err` says what is wrong.
fn example(bytes: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let broken = |()| "it is no tf.train.Example".to_owned();
    let mut fields: Vec<(String, Value)> = Vec::new();
    let mut outer = Fields(bytes);
    while let Some((number, wire)) = outer.next().map_err(broken)? {
        let (1, Wire::Bytes(features)) = (number, wire) else { continue };
        let mut features = Fields(features);
        while let Some((number, wire)) = features.next().map_err(broken)? {
            let (1, Wire::Bytes(entry)) = (number, wire) else { continue };
            let (mut name, mut value) = (String::new(), Value::Null);
            let mut entry = Fields(entry);
            while let Some((number, wire)) = entry.next().map_err(broken)? {
                match (number, wire) {
                    (1, Wire::Bytes(bytes)) => name = std::str::from_utf8(bytes).map_err(|_| broken(()))?.to_owned(),
                    (2, Wire::Bytes(bytes)) => value = feature(bytes)?,
                    _ => {}
                }
            }
            // The last entry of a name counts, as in every reader of protocol buffers.
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => fields.push((name, value)),
            }
        }
    }
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(fields)
}

fn feature(bytes: &[u8]) -> Result<Value, String> {
    let broken = |()| "it is no tf.train.Example".to_owned();
    let mut values = Vec::new();
    let mut kinds = Fields(bytes);
    while let Some((kind, wire)) = kinds.next().map_err(broken)? {
        let Wire::Bytes(list) = wire else { continue };
        let mut list = Fields(list);
        while let Some((number, wire)) = list.next().map_err(broken)? {
            match (kind, number, wire) {
                (1, 1, Wire::Bytes(bytes)) => {
                    let text = std::str::from_utf8(bytes).map_err(|_| "a feature of bytes that are no text".to_owned())?;
                    values.push(Value::Text(text.to_owned()));
                }
                (2, 1, Wire::Fixed32(bits)) => values.push(float(bits)?),
                (2, 1, Wire::Bytes(packed)) => {
                    let (floats, rest) = packed.as_chunks::<4>();
                    if !rest.is_empty() {
                        return Err(broken(()));
                    }
                    for bits in floats {
                        values.push(float(u32::from_le_bytes(*bits))?);
                    }
                }
                (3, 1, Wire::Number(number)) => values.push(Value::Number((number as i64).to_string())),
                (3, 1, Wire::Bytes(packed)) => {
                    let mut packed = Fields(packed);
                    while !packed.0.is_empty() {
                        values.push(Value::Number((packed.varint().ok_or(()).map_err(broken)? as i64).to_string()));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(match values.len() {
        0 => Value::Null,
        1 => values.remove(0),
        _ => Value::List(values),
    })
}

fn float(bits: u32) -> Result<Value, String> {
    let number = f32::from_bits(bits);
    if number.is_finite() { Ok(Value::Number(number.to_string())) } else { Err("a feature that is no finite number".into()) }
}

/// Records in the order of the file.
pub(super) struct TfRecords {
    input: BufReader<Box<dyn Read + Send>>,
    place: Place,
    row: u64,
    rejects: bool,
    repair: bool,
    data: Vec<u8>,
}

impl TfRecords {
    pub(super) fn open(bytes: Bytes, place: Place, options: &ReadOptions) -> Self {
        let input = BufReader::with_capacity(256 << 10, bytes.into_stream());
        Self { input, place, row: 0, rejects: rejects(options), repair: options.repair_mojibake, data: Vec::new() }
    }

    /// The next record's bytes are in `data`; `Err` says what is wrong with its frame or its checksum.
    fn frame(&mut self) -> Result<Result<bool, String>, DataError> {
        let mut header = Vec::with_capacity(12);
        self.input.by_ref().take(12).read_to_end(&mut header).map_err(|error| self.place.io(&error))?;
        if header.is_empty() {
            return Ok(Ok(false));
        }
        self.row += 1;
        let cut = |row: u64| self.place.broken("a TFRecord file", format!("record {row} is cut off"));
        let Ok(header) = <[u8; 12]>::try_from(header) else { return Err(cut(self.row)) };
        let (length, crc) = header.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if u64::from(masked(length)) != number(crc) {
            // Without its length nothing that follows can be found.
            return Err(self.place.broken("a TFRecord file", format!("record {}: the checksum of its length is wrong", self.row)));
        }
        let length = number(length);
        self.place.limit(Some(self.row), "bytes in a row", usize::try_from(length).unwrap_or(usize::MAX), self.place.limits.row_bytes)?;
        self.data.clear();
        self.input.by_ref().take(length + 4).read_to_end(&mut self.data).map_err(|error| self.place.io(&error))?;
        if self.data.len() as u64 != length + 4 {
            return Err(cut(self.row));
        }
        let crc = self.data.split_off(length as usize);
        if u64::from(masked(&self.data)) != number(&crc) {
            return Ok(Err("its checksum is wrong".into()));
        }
        Ok(Ok(true))
    }
}

impl Walk for TfRecords {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        let fields = match self.frame()? {
            Ok(false) => return Ok(None),
            Ok(true) => example(&self.data),
            Err(problem) => Err(problem),
        };
        match fields {
            Ok(mut fields) => {
                let repaired = if self.repair { mojibake::repair_fields(&mut fields) } else { 0 };
                let mut document = self.place.document(fields, self.row, self.row);
                mojibake::note(&mut document, repaired, None, found);
                Ok(Some(Item::Document(document)))
            }
            Err(problem) if self.rejects => Ok(Some(Item::Rejected(self.place.rejected(self.row, problem)))),
            Err(problem) => Err(self.place.broken("a TFRecord file", format!("record {}: {problem}", self.row))),
        }
    }
}

/// Writes rows as a TFRecord file of `tf.train.Example`s.
///
/// Text becomes a list of bytes, whole numbers and truth values of `int64`, other numbers of `float`; a list of one kind
/// becomes a list of that kind; null is a feature without values; anything else is written as JSON text.
///
/// ```
/// use data::read::{self, Item, LIMITS, ReadOptions, tfrecord::Writer};
/// use data::Value;
///
/// let mut writer = Writer::new(Vec::new());
/// writer.write(&[("label".into(), Value::Number("3".into())), ("text".into(), Value::Text("Grüße".into()))])?;
/// let bytes = writer.into_inner();
/// let mut reader = read::open("a.tfrecord", Box::new(std::io::Cursor::new(bytes)), &ReadOptions::recognise(LIMITS))?;
/// let Some(Item::Document(document)) = reader.next().transpose()? else { panic!("no document") };
/// assert_eq!(document.field("label"), Some(&Value::Number("3".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes one row.
    pub fn write(&mut self, fields: &[(String, Value)]) -> io::Result<()> {
        let mut features = Vec::new();
        for (name, value) in fields {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, name.as_bytes());
            put_bytes(&mut entry, 2, &feature_bytes(value));
            put_bytes(&mut features, 1, &entry);
        }
        let mut data = Vec::new();
        put_bytes(&mut data, 1, &features);
        let length = (data.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked(&length).to_le_bytes())?;
        self.out.write_all(&data)?;
        self.out.write_all(&masked(&data).to_le_bytes())
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn feature_bytes(value: &Value) -> Vec<u8> {
    let values = match value {
        Value::List(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    let integers: Option<Vec<i64>> = values
        .iter()
        .map(|value| match value {
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Number(number) => number.parse().ok(),
            _ => None,
        })
        .collect();
    let floats: Option<Vec<f32>> = values
        .iter()
        .map(|value| match value {
            Value::Number(number) => number.parse::<f32>().ok().filter(|number| number.is_finite()),
            _ => None,
        })
        .collect();
    let mut feature = Vec::new();
    if *value == Value::Null {
        return feature;
    }
    let (mut list, kind) = (
        Vec::new(),
        match (&integers, &floats) {
            (Some(_), _) => 3,
            (None, Some(_)) => 2,
            (None, None) => 1,
        },
    );
    if let Some(integers) = integers {
        let mut packed = Vec::new();
        integers.iter().for_each(|number| put_varint(&mut packed, *number as u64));
        put_bytes(&mut list, 1, &packed);
    } else if let Some(floats) = floats {
        put_bytes(&mut list, 1, &floats.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
    } else {
        let texts = if values.iter().all(|value| matches!(value, Value::Text(_))) { values } else { std::slice::from_ref(value) };
        texts.iter().for_each(|text| put_bytes(&mut list, 1, text.to_text().as_bytes()));
    }
    put_bytes(&mut feature, kind, &list);
    feature
}

#[cfg(test)]
mod tests {
    use super::{crc32c, masked};

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // Appendix B.4 of the RFC.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b""), 0xa282_ead8);
    }
}
