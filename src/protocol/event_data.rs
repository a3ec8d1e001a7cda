//! The opaque data of an event.

use serde_json::value::RawValue;

use super::json;

/// The data of an event, kept as the JSON string it travels as: escaped once at most, never parsed, and passed on
/// exactly, half surrogate pairs included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventData {
    literal: Box<str>,
    length: usize,
}

impl EventData {
    /// Data given as text.
    pub fn from_text(text: &str) -> Self {
        Self { literal: json::quoted(text).into(), length: text.len() }
    }

    /// Data given as JSON: the content of a string, the JSON text of any other value.
    pub fn from_json(value: &RawValue) -> Self {
        let text = value.get();
        match text.starts_with('"') {
            true => Self { literal: text.into(), length: decoded_length(&text[1..text.len() - 1]) },
            false => Self::from_text(text),
        }
    }

    /// The data as a JSON string, quotes included.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// Bytes of UTF-8 before escaping: what limits are about.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// Bytes of UTF-8 that the inside of a valid JSON string stands for. Half a surrogate pair counts three.
fn decoded_length(inside: &str) -> usize {
    let mut length = inside.len();
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at + 1..];
        let Some(hex) = rest.strip_prefix('u') else {
            length -= 1;
            rest = &rest[1..];
            continue;
        };
        let unit = code_unit(hex);
        rest = &hex[4..];
        let follows_low = rest.strip_prefix("\\u").is_some_and(|low| (0xdc00..0xe000).contains(&code_unit(low)));
        length = match unit {
            0..0x80 => length - 5,
            0x80..0x800 => length - 4,
            0xd800..0xdc00 if follows_low => {
                rest = &rest[6..];
                length - 8
            }
            _ => length - 3,
        };
    }
    length
}

fn code_unit(hex: &str) -> u32 {
    hex.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).expect("the JSON parser checked the escape")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> EventData {
        EventData::from_json(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_string_stays_as_it_was_written() {
        assert_eq!(data(r#""a\u00e9\/\ud800""#).literal(), r#""a\u00e9\/\ud800""#);
    }

    #[test]
    fn another_value_becomes_its_json_text() {
        assert_eq!(data(r#"{"on":true}"#).literal(), r#""{\"on\":true}""#);
        assert_eq!(data("null").literal(), "\"null\"");
    }

    #[test]
    fn the_length_is_that_of_the_decoded_text() {
        let table = [
            (r#""""#, 0),
            (r#""abc""#, 3),
            (r#""é""#, 2),
            (r#""\n\\\"""#, 3),
            (r#""\u0041""#, 1),
            (r#""\u00e9""#, 2),
            (r#""\u20ac""#, 3),
            (r#""\ud83d\ude00""#, 4),
            (r#""\ud83dx""#, 4),
            (r#""\ud83d\u0041""#, 4),
            (r#""\ude00""#, 3),
            (r#""a\ud83d\ude00b\tc""#, 8),
        ];
        for (json, length) in table {
            assert_eq!(data(json).length(), length, "{json}");
        }
    }
}
