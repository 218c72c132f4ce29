//! One byte form of a JSON value, and hashes of it.
//!
//! The canonical form has the keys of every object sorted by their UTF-8 bytes, no insignificant whitespace, and one form for each number: whole
//! numbers without fraction or exponent where they are exact (up to 2⁵³ if they came as a float), −0 as 0, all others in the shortest
//! form that reads back the same. It is close to RFC 8785, which sorts by UTF-16 units and writes large floats differently.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, shown};

/// The canonical form of a value.
///
/// ```
/// let value = serde_json::json!({"b": [1.0, 0.5], "a": null});
/// assert_eq!(govern::canonical::text(&value).unwrap(), r#"{"a":null,"b":[1,0.5]}"#);
/// ```
pub fn text<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    let value = to_value(value)?;
    let mut out = String::new();
    write(&mut out, &value);
    Ok(out)
}

/// The same order and numbers, but indented: for files that people read.
pub fn pretty<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    let canonical = text(value)?;
    // Reading the canonical form back keeps its numbers; the keys are sorted again by building the map in order.
    let value: Value = serde_json::from_str(&canonical).map_err(|error| not_json("value", &error))?;
    let mut out = serde_json::to_string_pretty(&sorted(value)).map_err(|error| not_json("value", &error))?;
    out.push('\n');
    Ok(out)
}

fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| not_json(std::any::type_name::<T>(), &error))
}

fn not_json(what: &'static str, error: &serde_json::Error) -> Error {
    Error::NotJson { what, why: error.to_string() }
}

/// Sorted whatever map `serde_json` was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        other => other,
    }
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(values) => {
            out.push('[');
            for (position, value) in values.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(out, value);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_text(out, key);
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
    }
}

fn write_number(out: &mut String, number: &serde_json::Number) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            out.push_str(&(float as i64).to_string());
        }
        _ => out.push_str(&number.to_string()),
    }
}

/// JSON's own escapes, nothing more: `"`, `\` and control characters.
fn write_text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

// ---- hashes ---------------------------------------------------------------------------------------------------

/// How a hash was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Blake3,
    Blake3Keyed,
    Sha256,
}

impl Method {
    const ALL: [(Self, &'static str); 3] = [(Self::Blake3, "blake3:"), (Self::Blake3Keyed, "blake3-keyed:"), (Self::Sha256, "sha256:")];

    fn prefix(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3:",
            Self::Blake3Keyed => "blake3-keyed:",
            Self::Sha256 => "sha256:",
        }
    }
}

/// A hash with its method: `blake3:…`, `blake3-keyed:…` or, as model publishers give it, `sha256:…` (taken over, never computed here).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash {
    method: Method,
    bytes: [u8; 32],
}

impl Hash {
    /// BLAKE3 of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { method: Method::Blake3, bytes: *blake3::hash(bytes).as_bytes() }
    }

    /// BLAKE3 of a value's canonical form.
    pub fn of_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self::of(text(value)?.as_bytes()))
    }

    /// A BLAKE3 hash computed elsewhere.
    #[must_use]
    pub fn from_blake3(bytes: [u8; 32]) -> Self {
        Self { method: Method::Blake3, bytes }
    }

    /// A SHA-256 computed elsewhere.
    #[must_use]
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self { method: Method::Sha256, bytes }
    }

    /// The first 12 hex digits, for tables.
    #[must_use]
    pub fn short(&self) -> String {
        self.bytes[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.method.prefix())?;
        self.bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for Hash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::NotAHash { got: shown(text) };
        let (method, digits) = Method::ALL
            .into_iter()
            .find_map(|(method, prefix)| text.strip_prefix(prefix).map(|digits| (method, digits.as_bytes())))
            .ok_or_else(refused)?;
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(refused()),
        };
        if digits.len() != 64 {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self { method, bytes })
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// BLAKE3 of something that comes in pieces, such as a large file.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    inner: blake3::Hasher,
}

impl Hasher {
    /// An empty hasher.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The hash of everything taken so far.
    #[must_use]
    pub fn finish(&self) -> Hash {
        Hash::from_blake3(*self.inner.finalize().as_bytes())
    }
}

/// The project's key for hashes of short texts (customer ids, messages): without it, a hash of a short text can be
/// reversed by trying all likely texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// From exactly 32 random bytes, made by the caller and kept in the project.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| Error::KeyLength { expected: 32, got: bytes.len() })
    }

    /// Keyed BLAKE3 of a text.
    #[must_use]
    pub fn hash(&self, text: &str) -> Hash {
        Hash { method: Method::Blake3Keyed, bytes: *blake3::keyed_hash(&self.0, text.as_bytes()).as_bytes() }
    }
}

impl fmt::Debug for Key {
    /// Never shows the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

/// Refuses what isn't an RFC 3339 time: `YYYY-MM-DDThh:mm:ss`, an optional fraction, `Z` or an offset.
pub fn check_time(time: &str) -> Result<(), Error> {
    let refused = || Error::NotATime { got: shown(time) };
    let bytes = time.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    };
    let sign = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    let within = |value: Option<u32>, low: u32, high: u32| value.is_some_and(|value| (low..=high).contains(&value));
    let date = number(0, 4).is_some() && sign(4, b"-") && within(number(5, 7), 1, 12) && sign(7, b"-") && within(number(8, 10), 1, 31);
    let clock = sign(10, b"T")
        && within(number(11, 13), 0, 23)
        && sign(13, b":")
        && within(number(14, 16), 0, 59)
        && sign(16, b":")
        && within(number(17, 19), 0, 60);
    if !(date && clock) {
        return Err(refused());
    }
    let mut at = 19;
    if sign(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(refused());
        }
        at += 1 + digits;
    }
    let zone = match &bytes[at..] {
        b"Z" => true,
        offset => {
            offset.len() == 6
                && sign(at, b"+-")
                && within(number(at + 1, at + 3), 0, 23)
                && sign(at + 3, b":")
                && within(number(at + 4, at + 6), 0, 59)
        }
    };
    if zone { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_form_for_equal_values() {
        let left: Value = serde_json::from_str(r#" {"z": 1.0, "a": {"y": -0.0, "x": "é\n\u0007/"}, "n": 1e2} "#).unwrap();
        let right: Value = serde_json::from_str(r#"{"n":100,"a":{"x":"\u00e9\n\u0007\/","y":0},"z":1}"#).unwrap();
        assert_eq!(text(&left).unwrap(), text(&right).unwrap());
        assert_eq!(text(&left).unwrap(), "{\"a\":{\"x\":\"é\\n\\u0007/\",\"y\":0},\"n\":100,\"z\":1}");
        assert_eq!(text(&json!([0.1, 1e-7, 18_446_744_073_709_551_615_u64, -5])).unwrap(), "[0.1,1e-7,18446744073709551615,-5]");
        // Different values keep different forms.
        assert_ne!(text(&json!(9_007_199_254_740_993_i64)).unwrap(), text(&json!(9_007_199_254_740_992_i64)).unwrap());
        assert_ne!(text(&json!("1")).unwrap(), text(&json!(1)).unwrap());
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point() {
        let value = json!({"list": [1.5, {"k": [], "e": {}}], "text": "\"\\\u{1f600}", "number": 1e300});
        let once = text(&value).unwrap();
        let again: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(text(&again).unwrap(), once);
        assert_eq!(text(&serde_json::from_str::<Value>(&pretty(&value).unwrap()).unwrap()).unwrap(), once);
    }

    /// BLAKE3's published test vector for the empty input, and SHA-256 as publishers write it.
    #[test]
    fn hashes_read_back() {
        let empty = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Hash::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Hash::of(b"")));
        assert_eq!(Hash::of(b"").short(), "af1349b9f5f9");
        let sha = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(sha.parse::<Hash>().unwrap().to_string(), sha);
        for bad in ["", "af13", "blake3:", "blake3:AF1349", "md5:00", &empty[..60], &empty.to_uppercase(), &format!("{empty}0")] {
            assert!(matches!(bad.parse::<Hash>(), Err(Error::NotAHash { .. })), "{bad}");
        }
        let mut pieces = Hasher::new();
        pieces.update(b"one ");
        pieces.update(b"two");
        assert_eq!(pieces.finish(), Hash::of(b"one two"));
    }

    #[test]
    fn keyed_hashes_need_the_key() {
        let (one, two) = (Key::new(&[1; 32]).unwrap(), Key::new(&[2; 32]).unwrap());
        assert_ne!(one.hash("anna"), two.hash("anna"));
        assert!(one.hash("anna").to_string().starts_with("blake3-keyed:"));
        assert_eq!(format!("{one:?}"), "Key(..)");
        assert_eq!(Key::new(&[0; 31]), Err(Error::KeyLength { expected: 32, got: 31 }));
    }

    #[test]
    fn times() {
        for good in ["2026-07-01T12:00:00Z", "2026-12-31T23:59:60.123+05:30", "2026-01-01T00:00:00-00:00"] {
            assert_eq!(check_time(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "2026-07-01",
            "2026-07-01 12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-07-01T12:00:00",
            "2026-07-01T12:00:00.Z",
            "2026-07-01T12:00:00+5",
            "2026-07-01T12:00:00Zé",
        ] {
            assert!(check_time(bad).is_err(), "{bad}");
        }
    }
}
