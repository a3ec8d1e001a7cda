//! Our reader of frames against tungstenite's, and against itself. See [`crate::fuzzing`].

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, WebSocket};

use crate::protocol::{CloseReason, MAX_MESSAGE, json};

use super::reader::{Message, Progress, Reader, Stop};

/// How a stream of frames ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// More has to come.
    Open,
    /// With a close frame.
    Closed(Option<u16>),
    /// With a breach of the protocol.
    Broken,
    /// With one that tungstenite lets pass: the length of a control frame in a form for longer ones.
    Strict,
}

pub(crate) fn frames(bytes: &[u8]) {
    let [size, limit, stream @ ..] = bytes else { return };
    let (heard, end) = ours(stream, stream.len().max(1), MAX_MESSAGE);
    let pieces = usize::from(*size) + 1;
    assert_eq!(ours(stream, pieces, MAX_MESSAGE), (heard.clone(), end), "in pieces of {pieces}");
    within(stream, pieces, usize::from(*limit), &heard, end);
    let (reference, reference_end) = theirs(stream);
    let both = || format!("{heard:?} {end:?}, but {reference:?} {reference_end:?}");
    match reference_end {
        // tungstenite looks at the text of a message before its last part is there.
        End::Broken => assert!(heard.starts_with(&reference) || end == End::Strict, "{}", both()),
        _ if end == End::Strict => assert!(reference.starts_with(&heard), "{}", both()),
        _ => assert!(heard == reference, "{}", both()),
    }
    match (end, reference_end) {
        // A code that was registered lately, of which tungstenite makes 1002.
        (End::Closed(Some(1014)), End::Closed(Some(1002))) => {}
        (End::Closed(code), End::Closed(reference)) => assert!(code == reference, "{}", both()),
        (End::Broken | End::Strict, _) | (End::Open, End::Open | End::Broken) | (End::Closed(_), End::Broken) => {}
        _ => panic!("{}", both()),
    }
}

/// With a limit, the same is heard, but that longer texts are too large; and nobody looks whether those are UTF-8.
fn within(stream: &[u8], pieces: usize, limit: usize, heard: &[String], end: End) {
    let (limited, limited_end) = ours(stream, pieces, limit);
    let expected = heard.iter().map(|message| match message.strip_prefix("text ") {
        Some(text) if serde_json::from_str::<String>(text).is_ok_and(|text| text.len() > limit) => "too large",
        _ => message,
    });
    let both = || format!("{limited:?} {limited_end:?} within {limit}, but {heard:?} {end:?}");
    assert!(expected.zip(&limited).all(|(expected, found)| expected == found), "{}", both());
    match end {
        // A text that is thrown away need not be UTF-8.
        End::Broken => assert!(limited.len() >= heard.len(), "{}", both()),
        end => assert!(limited.len() == heard.len() && limited_end == end, "{}", both()),
    }
}

/// What our reader hears, but for parts of messages. It is made to pause after every second one.
fn ours(stream: &[u8], pieces: usize, limit: usize) -> (Vec<String>, End) {
    let (mut reader, mut heard) = (Reader::new(Vec::new(), limit), Vec::new());
    let mut count = 0;
    let mut hear = |message: Message<'_>| {
        match message {
            // As JSON, from which the length can be read again.
            Message::Text(text) => heard.push(format!("text {}", json::quoted(text))),
            Message::Binary => heard.push("binary".to_owned()),
            Message::Ping(payload) => heard.push(format!("ping {payload:?}")),
            Message::Pong => heard.push("pong".to_owned()),
            Message::TooLarge => heard.push("too large".to_owned()),
            Message::Part => {}
        }
        count += 1;
        count % 2 == 1
    };
    for piece in stream.to_vec().chunks_mut(pieces) {
        let mut progress = reader.read(piece, &mut hear);
        while progress == Ok(Progress::Paused) {
            progress = reader.read(&mut [], &mut hear);
        }
        match progress {
            Ok(_) => {}
            Err(Stop::Closed(code)) => return (heard, End::Closed(code)),
            Err(Stop::Broken(CloseReason::WebSocketProtocol(how))) if how.contains("too long") => {
                return (heard, End::Strict);
            }
            Err(Stop::Broken(_)) => return (heard, End::Broken),
        }
    }
    (heard, End::Open)
}

/// What tungstenite hears.
fn theirs(stream: &[u8]) -> (Vec<String>, End) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    // Room that is cleared for every input.
    let config = config.read_buffer_size(4096).write_buffer_size(0);
    let mut socket = WebSocket::from_raw_socket(Memory(stream), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => format!("text {}", json::quoted(text.as_str())),
            Ok(tungstenite::Message::Binary(_)) => "binary".to_owned(),
            Ok(tungstenite::Message::Ping(payload)) => format!("ping {:?}", &payload[..]),
            Ok(tungstenite::Message::Pong(_)) => "pong".to_owned(),
            Ok(tungstenite::Message::Frame(_)) => unreachable!("never read"),
            Ok(tungstenite::Message::Close(frame)) => {
                return (heard, End::Closed(frame.map(|frame| frame.code.into())));
            }
            Err(tungstenite::Error::Io(_)) => return (heard, End::Open),
            Err(_) => return (heard, End::Broken),
        });
    }
}

/// A connection that has brought these bytes so far.
struct Memory<'a>(&'a [u8]);

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {
            [] => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.0.read(buffer),
        }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
