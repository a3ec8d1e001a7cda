//! Reading JSON from strangers: bounded depth, borrowed text, values left as they came.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use memchr::memchr2_iter;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Arrays and objects inside each other; more counts as invalid JSON (§2.1).
const MAX_DEPTH: usize = 128;

/// The text is not JSON, not an object where one is needed, has a member twice, or is nested too deeply.
#[derive(Debug, thiserror::Error)]
#[error("not a valid JSON object")]
pub struct InvalidJson;

/// Reads one JSON object.
///
/// # Errors
/// See [`InvalidJson`].
pub fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InvalidJson> {
    // serde would also read a struct from an array.
    if !text.trim_start().starts_with('{') || !is_shallow(text) {
        return Err(InvalidJson);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // Its own limit is 127; ours was checked a line above.
    deserializer.disable_recursion_limit();
    let value = T::deserialize(&mut deserializer).map_err(|_| InvalidJson)?;
    deserializer.end().map_err(|_| InvalidJson)?;
    Ok(value)
}

/// For `deserialize_with`: tells a member that is `null` from one that is not there.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The text of a JSON string; `None` for every other value, and for a string that is no Unicode text because half a
/// surrogate pair is missing.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    match inner.contains('\\') {
        false => Some(Cow::Borrowed(inner)),
        true => serde_json::from_str(value.get()).ok().map(Cow::Owned),
    }
}

/// The text of a string, or the JSON text of anything else: for members that old clients send in the wrong type.
pub fn loose_string(value: &RawValue) -> Cow<'_, str> {
    string(value).unwrap_or(Cow::Borrowed(value.get()))
}

/// Whether a value is `null`.
pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// A text as a JSON string, quotes included.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}

/// Counts brackets outside strings, so that no parser recurses deeper than we allow.
fn is_shallow(text: &str) -> bool {
    // Most texts have fewer brackets than they may have levels, and these are counted much faster than strings are told
    // from what is between them.
    if memchr2_iter(b'{', b'[', text.as_bytes()).nth(MAX_DEPTH).is_none() {
        return true;
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => drop(bytes.next()),
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// A value that is an object: of itself, serde would read a struct from an array, too.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
    }

    #[test]
    fn a_hundred_and_twenty_eight_levels_are_the_limit() {
        assert!(object::<serde_json::Value>(&nested(128)).is_ok());
        assert!(object::<serde_json::Value>(&nested(129)).is_err());
        assert!(object::<serde_json::Value>(&nested(100_000)).is_err());
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(500), "{".repeat(500));
        assert!(object::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn an_object_within_is_no_array() {
        assert!(serde_json::from_str::<Vec<Object<(u8,)>>>("[[1]]").is_err());
        let members: Vec<Object<std::collections::BTreeMap<&str, u8>>> = serde_json::from_str("[{\"a\":1}]").unwrap();
        assert_eq!(members[0].0["a"], 1);
    }

    #[test]
    fn only_objects_are_objects() {
        for bad in ["", "[]", "1", "\"{}\"", "null", "{", "{}}", "{} x", "nonsense"] {
            assert!(object::<serde_json::Value>(bad).is_err(), "{bad}");
        }
    }
}
