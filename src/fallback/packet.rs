//! What goes to clients over HTTP (§7.3, and the framing of SockJS): a letter for the kind, and JSON behind it. SockJS
//! calls these frames; here they are packets, as a [`Frame`] is something else.

use crate::protocol::{CloseReason, Frame, LAST_VERSION_WITH_ERROR_EVENTS, ServerEvent};

/// The connection lives.
pub(super) const HEARTBEAT: &[u8] = b"h";

/// The session has begun. With a host name, pusher-js goes on there.
pub(super) fn open(hostname: &str) -> Vec<u8> {
    let mut packet = b"o".to_vec();
    if !hostname.is_empty() {
        packet.extend_from_slice(br#"{"hostname":"#);
        quote(&mut packet, hostname);
        packet.push(b'}');
    }
    packet
}

/// Messages, each of them a string.
pub(super) fn messages(frames: &[Frame]) -> Vec<u8> {
    let bytes: usize = frames.iter().map(Frame::len).sum();
    // Every quotation mark in the JSON of a message needs a backslash.
    let mut packet = Vec::with_capacity(bytes + bytes / 4 + 4 * frames.len() + 4);
    packet.extend_from_slice(b"a[");
    for (index, frame) in frames.iter().enumerate() {
        if index > 0 {
            packet.push(b',');
        }
        let text = std::str::from_utf8(frame.payload()).expect("all frames but control frames are text");
        quote(&mut packet, text);
    }
    packet.push(b']');
    packet
}

/// The session is over, and why.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut packet = format!("c[{code},").into_bytes();
    quote(&mut packet, reason);
    packet.push(b']');
    packet
}

/// What a client hears at the end, as its protocol version expects it (§1.5).
pub(super) fn farewell(reason: &CloseReason, version: Option<u32>) -> Vec<Vec<u8>> {
    let (code, text) = (reason.code(), reason.to_string());
    let has_event = version.is_some_and(|version| version <= LAST_VERSION_WITH_ERROR_EVENTS);
    let event = has_event.then(|| messages(&[ServerEvent::FatalError { code, message: &text }.encode()]));
    event.into_iter().chain([close(code, &text)]).collect()
}

/// Appends text as a JSON string in which nothing is left that browsers of any age change on the way: SockJS lists what
/// that is. Whatever needs two UTF-16 units is among it.
pub(super) fn quote(packet: &mut Vec<u8>, text: &str) {
    packet.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| SUSPECT[usize::from(byte)]) {
        packet.extend_from_slice(&rest.as_bytes()[..at]);
        // Suspects are ASCII, or the first byte of a character.
        let Some(character) = rest[at..].chars().next() else { break };
        let end = at + character.len_utf8();
        match character {
            '"' | '\\' => packet.extend_from_slice(&[b'\\', character as u8]),
            '\0'..='\x1f'
            | '\u{200c}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff0}'.. => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    packet.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
            _ => packet.extend_from_slice(&rest.as_bytes()[at..end]),
        }
        rest = &rest[end..];
    }
    packet.extend_from_slice(rest.as_bytes());
    packet.push(b'"');
}

/// Bytes that are, or begin, a character that may have to be escaped.
const SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, 0..=0x1f | b'"' | b'\\' | 0xe2 | 0xef..);
        byte += 1;
    }
    table
};

/// How long a text is for JavaScript: in UTF-16 units. What [`quote`] leaves has one for each character.
pub(super) fn units(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut packet = Vec::new();
        quote(&mut packet, text);
        String::from_utf8(packet).unwrap()
    }

    #[test]
    fn packets_are_a_letter_and_json() {
        assert_eq!(open(""), b"o");
        assert_eq!(open("node7.example"), br#"o{"hostname":"node7.example"}"#);
        let frames = [Frame::from_text(br#"{"event":"a"}"#), Frame::from_text("é".as_bytes())];
        assert_eq!(messages(&frames), r#"a["{\"event\":\"a\"}","é"]"#.as_bytes());
        assert_eq!(close(4001, "so\nthere"), br#"c[4001,"so\u000athere"]"#);
    }

    #[test]
    fn what_browsers_would_change_is_escaped() {
        assert_eq!(quoted("plain, Ünïcödé €"), "\"plain, Ünïcödé €\"");
        assert_eq!(quoted("\u{0}\u{1f}\u{200b}\u{200c}"), "\"\\u0000\\u001f\u{200b}\\u200c\"");
        assert_eq!(
            quoted("\u{2027}\u{2028}\u{202f}\u{2060}\u{206f}\u{2070}"),
            "\"\u{2027}\\u2028\\u202f\\u2060\\u206f\u{2070}\""
        );
        assert_eq!(quoted("\u{ffef}\u{fff0}\u{ffff}😀"), "\"\u{ffef}\\ufff0\\uffff\\ud83d\\ude00\"");
    }

    #[test]
    fn quoting_loses_nothing() {
        let text: String = ('\0'..='\u{ffff}').chain(['😀', '\u{10ffff}']).collect();
        let quoted = quoted(&text);
        assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        assert_eq!(units(quoted.as_bytes()), quoted.encode_utf16().count());
    }
}
