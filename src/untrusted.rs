//! Text that a stranger wrote, on its way into a log line or an error message.

use std::fmt;

/// Characters of it that are shown.
const MAX_SHOWN: usize = 200;

/// Shows a stranger's text on one line, with control characters escaped, and cut where it is longer than anything honest:
/// the text says how many bytes are left out.
#[derive(Debug, Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        let end = text.char_indices().nth(MAX_SHOWN).map_or(text.len(), |(at, _)| at);
        for c in text[..end].chars() {
            match c {
                // Quotes and backslashes are harmless, and JSON logs escape them once more.
                '"' | '\'' | '\\' => f.write_str(c.encode_utf8(&mut [0; 4]))?,
                c => c.escape_debug().fmt(f)?,
            }
        }
        match text.len() - end {
            0 => Ok(()),
            left => write!(f, "… ({left} more bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut() {
        assert_eq!(Untrusted("private-ü \"a\"").to_string(), "private-ü \"a\"");
        assert_eq!(Untrusted("a\nINFO b\r\u{1b}[31m\u{202e}").to_string(), r"a\nINFO b\r\u{1b}[31m\u{202e}");
        let long = "é".repeat(MAX_SHOWN + 3);
        assert_eq!(Untrusted(&long).to_string(), format!("{}… (6 more bytes)", "é".repeat(MAX_SHOWN)));
        assert_eq!(Untrusted(&long[..2 * MAX_SHOWN]).to_string(), "é".repeat(MAX_SHOWN));
    }
}
