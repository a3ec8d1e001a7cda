//! What SockJS clients send, and what they get. See [`crate::fuzzing`].

use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::protocol::Frame;

use super::packet;
use super::sending::{Form, wish};
use super::transport::{Transport, is_callback};

pub(crate) fn sockjs(bytes: &[u8]) {
    bodies(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    packets(text);
    callbacks(text);
    let (key, query) = wish(text);
    assert!(key.is_none_or(|key| !key.is_empty() && !key.contains(['/', '?'])), "{text}");
    assert!(query.is_empty() || text.contains('?') || text.contains("\\u"), "{text}");
}

/// What was sent is what arrives, whichever way it was written.
fn bodies(body: &[u8]) {
    let parsed = Form::Json.parse(body);
    let reference = serde_json::from_slice::<Vec<String>>(body).ok();
    assert_eq!(parsed.as_ref().ok(), reference.as_ref(), "{:?}", String::from_utf8_lossy(body));
    let Ok(messages) = parsed else {
        if let Ok(messages) = Form::Field.parse(body) {
            arrive(&messages);
        }
        return;
    };
    arrive(&messages);
    if body.starts_with(b"[") {
        assert_eq!(Form::Field.parse(body).as_ref(), Ok(&messages));
    }
}

fn arrive(messages: &[String]) {
    let array = serde_json::to_string(messages).expect("strings");
    assert_eq!(Form::Json.parse(array.as_bytes()).as_deref(), Ok(messages));
    assert_eq!(Form::Field.parse(array.as_bytes()).as_deref(), Ok(messages));
    let form = format!("x=y&d={}&z", utf8_percent_encode(&array, NON_ALPHANUMERIC));
    assert_eq!(Form::Field.parse(form.as_bytes()).as_deref(), Ok(messages), "{form}");
}

/// What is in a packet can be read out of it, on each transport.
fn packets(text: &str) {
    let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let texts = [text, &text[..half], &text[half..]];
    let messages = packet::messages(&texts.map(|text| Frame::from_text(text.as_bytes())));
    let read: Vec<String> = serde_json::from_slice(messages.strip_prefix(b"a").expect("an array")).expect("JSON");
    assert_eq!(read, texts);
    let read: (u16, String) = serde_json::from_slice(&packet::close(4001, text)[1..]).expect("JSON");
    assert_eq!(read, (4001, text.to_owned()));
    let as_text = std::str::from_utf8(&messages).expect("text");
    assert_eq!(packet::units(&messages), as_text.encode_utf16().count());
    assert!(!as_text.contains(|c: char| c < ' ' || matches!(c, '\u{2028}' | '\u{2029}')), "{as_text:?}");

    let callback = || "a.b".to_owned();
    let written = |transport: Transport| {
        let mut response = Vec::new();
        transport.write(&mut response, &messages);
        response
    };
    for transport in [Transport::Xhr, Transport::XhrStreaming] {
        assert_eq!(written(transport), [&messages[..], b"\n"].concat());
    }
    let event = written(Transport::EventSource);
    let data = event.strip_prefix(b"data: ").and_then(|rest| rest.strip_suffix(b"\r\n\r\n")).expect("an event");
    assert!(!data.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
    assert_eq!(percent_decode(data).collect::<Vec<_>>(), messages);
    for (transport, before, after) in [
        (Transport::HtmlFile(callback()), &b"<script>\np("[..], &b");\n</script>\r\n"[..]),
        (Transport::Jsonp(callback()), b"/**/a.b(", b");\r\n"),
    ] {
        let script = written(transport);
        let string = script.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).expect("a call");
        assert!(!string.contains(&b'<'), "{}", String::from_utf8_lossy(string));
        let read: String = serde_json::from_slice(string).expect("a string");
        assert_eq!(read.as_bytes(), messages);
    }
}

/// A callback is what a page can call by its name.
fn callbacks(name: &str) {
    let mut beginning = true;
    let mut fits = !name.is_empty() && name.len() <= 64;
    for c in name.chars() {
        fits &= match c {
            'a'..='z' | 'A'..='Z' | '_' | '$' => true,
            '0'..='9' | '.' => !beginning,
            _ => false,
        };
        beginning = c == '.';
    }
    assert_eq!(is_callback(name), fits && !beginning, "{name}");
}
