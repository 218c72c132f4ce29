//! Parquet, row by row.
//!
//! Values keep their types; dates and times become ISO 8601 text. Codecs: uncompressed, Snappy, gzip, Brotli and LZ4; a
//! file that is compressed with Zstandard is refused by name, because the library's only decoder for it is C.

use super::container::{Bytes, Shared};
use super::place::Place;
use super::walk::{Found, Walk, rejects};
use super::{Item, ReadOptions, guarded, mojibake};
use crate::{DataError, Value};
use ::parquet::basic::Compression;
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use std::io::{BufReader, Read, SeekFrom};

const KIND: &str = "a Parquet file";
/// Bytes of a column's part that are read at once.
const CHUNK_BYTES_MAX: usize = 1 << 30;
/// Bytes of a column in a row group, unpacked: a page has to fit into memory.
const COLUMN_BYTES_MAX: i64 = 4 << 30;

/// The file, from which several columns read at their own places.
struct Chunks {
    file: Shared,
    length: u64,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Shared>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(self.file.from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        let fits = start.checked_add(length as u64).is_some_and(|end| end <= self.length);
        if !fits || length > CHUNK_BYTES_MAX {
            return Err(ParquetError::General(format!("{length} bytes from {start} of a file with {} bytes", self.length)));
        }
        let mut bytes = vec![0; length];
        self.file.from(start).read_exact(&mut bytes).map_err(|error| ParquetError::General(error.to_string()))?;
        Ok(bytes::Bytes::from(bytes))
    }
}

/// Rows in the order of the file.
pub(super) struct Rows {
    rows: RowIter<'static>,
    place: Place,
    row: u64,
    rejects: bool,
    repair: bool,
}

impl Rows {
    pub(super) fn open(bytes: Bytes, place: Place, options: &ReadOptions, found: &mut Found) -> Result<Self, DataError> {
        let mut input = bytes.into_input(&place)?;
        let length = input.seek(SeekFrom::End(0)).map_err(|error| place.io(&error))?;
        let chunks = Chunks { file: Shared::new(input), length };
        let reader = guarded(&place, KIND, || SerializedFileReader::new(chunks).map_err(|error| error.to_string()))?;
        let metadata = reader.metadata();
        for group in metadata.row_groups() {
            for column in group.columns() {
                let codec = column.compression();
                if matches!(codec, Compression::ZSTD(_) | Compression::LZO) {
                    let problem = format!("its columns are compressed with {codec}; write it with snappy, gzip, brotli or lz4_raw");
                    return Err(place.broken(KIND, problem));
                }
                found.say("compressed", codec.to_string().to_lowercase());
                if column.uncompressed_size() < 0 || column.uncompressed_size() > COLUMN_BYTES_MAX || column.num_values() < 0 {
                    return Err(place.broken(KIND, format!("a column of {} bytes", column.uncompressed_size())));
                }
            }
        }
        let columns = metadata.file_metadata().schema_descr().root_schema().get_fields().len();
        place.limit(None, "columns", columns, place.limits.columns)?;
        let rows = guarded(&place, KIND, || Ok(RowIter::from_file_into(Box::new(reader))))?;
        Ok(Self { rows, place, row: 0, rejects: rejects(options), repair: options.repair_mojibake })
    }
}

impl Walk for Rows {
    fn next(&mut self, found: &mut Found) -> Result<Option<Item>, DataError> {
        let rows = &mut self.rows;
        let next = guarded(&self.place, KIND, || rows.next().transpose().map_err(|error| error.to_string()));
        let row = next.map_err(|error| match error {
            DataError::Broken { origin, kind, problem } => {
                DataError::Broken { origin, kind, problem: format!("after row {}: {problem}", self.row) }
            }
            error => error,
        })?;
        let Some(row) = row else { return Ok(None) };
        self.row += 1;
        // A date or time of a broken file can be one that the library cannot write.
        let fields = guarded(&self.place, KIND, || fields(&row)).map_err(|error| match error {
            DataError::Broken { problem, .. } => problem,
            error => error.to_string(),
        });
        match fields {
            Ok(mut fields) => {
                let bytes: usize = fields.iter().map(|(_, value)| size(value)).sum();
                self.place.limit(Some(self.row), "bytes in a row", bytes, self.place.limits.row_bytes)?;
                let repaired = if self.repair { mojibake::repair_fields(&mut fields) } else { 0 };
                let mut document = self.place.document(fields, self.row, self.row);
                mojibake::note(&mut document, repaired, None, found);
                Ok(Some(Item::Document(document)))
            }
            Err(problem) if self.rejects => Ok(Some(Item::Rejected(self.place.rejected(self.row, problem)))),
            Err(problem) => Err(self.place.broken(KIND, format!("row {}: {problem}", self.row))),
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(text) | Value::Text(text) => text.len(),
        Value::List(values) => values.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
    }
}

fn fields(row: &Row) -> Result<Vec<(String, Value)>, String> {
    row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(field)?))).collect()
}

fn value(field: &Field) -> Result<Value, String> {
    let integer = |number: i128| Ok(Value::Number(number.to_string()));
    let float = |number: f64, text: String| if number.is_finite() { Ok(Value::Number(text)) } else { Ok(Value::Null) };
    match field {
        Field::Null => Ok(Value::Null),
        Field::Bool(value) => Ok(Value::Bool(*value)),
        Field::Byte(number) => integer((*number).into()),
        Field::Short(number) => integer((*number).into()),
        Field::Int(number) => integer((*number).into()),
        Field::Long(number) => integer((*number).into()),
        Field::UByte(number) => integer((*number).into()),
        Field::UShort(number) => integer((*number).into()),
        Field::UInt(number) => integer((*number).into()),
        Field::ULong(number) => integer((*number).into()),
        Field::Float16(number) => float(number.to_f64(), number.to_f32().to_string()),
        Field::Float(number) => float((*number).into(), number.to_string()),
        Field::Double(number) => float(*number, number.to_string()),
        Field::Str(text) => Ok(Value::Text(text.clone())),
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data()).map_err(|_| "a column of bytes that are no text".to_owned())?;
            Ok(Value::Text(text.to_owned()))
        }
        Field::Decimal(_) => Ok(Value::Number(field.to_string())),
        Field::Date(_) | Field::TimeMillis(_) | Field::TimeMicros(_) => Ok(Value::Text(field.to_string())),
        Field::TimestampMillis(_) | Field::TimestampMicros(_) => {
            // "2025-02-03 10:00:00.000 +00:00", as the library writes it, in the words of ISO 8601.
            let text = field.to_string();
            let parts: Vec<&str> = text.split(' ').collect();
            Ok(Value::Text(match parts[..] {
                [date, time, "+00:00"] => format!("{date}T{time}Z"),
                [date, time, zone] => format!("{date}T{time}{zone}"),
                _ => text,
            }))
        }
        Field::Group(row) => Ok(Value::Object(fields(row)?)),
        Field::ListInternal(list) => Ok(Value::List(list.elements().iter().map(value).collect::<Result<_, _>>()?)),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, entry)| Ok((value(key)?.to_text(), value(entry)?)));
            Ok(Value::Object(entries.collect::<Result<_, String>>()?))
        }
    }
}
