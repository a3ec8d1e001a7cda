//! Our reader of frames against tungstenite's, and against itself. See [`crate::fuzzing`].

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, WebSocket};

use crate::protocol::MAX_MESSAGE;

use super::reader::{Message, Reader, Stop};

/// How a stream of frames ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// More has to come.
    Open,
    /// With a close frame.
    Closed(Option<u16>),
    /// With a breach of the protocol.
    Broken,
}

pub(crate) fn frames(bytes: &[u8]) {
    let [size, stream @ ..] = bytes else { return };
    let (heard, end) = ours(stream, stream.len().max(1));
    assert_eq!(ours(stream, usize::from(*size) + 1), (heard.clone(), end), "in pieces of {}", size);
    let (reference, reference_end) = theirs(stream);
    let both = || format!("{heard:?} {end:?}, but {reference:?} {reference_end:?}");
    match reference_end {
        // tungstenite looks at the text of a message before its last part is there.
        End::Broken => assert!(heard.starts_with(&reference), "{}", both()),
        _ => assert!(heard == reference, "{}", both()),
    }
    match (end, reference_end) {
        (End::Closed(code), End::Closed(reference)) => assert!(code == reference, "{}", both()),
        (End::Broken, _) | (End::Open, End::Open | End::Broken) | (End::Closed(_), End::Broken) => {}
        _ => panic!("{}", both()),
    }
}

/// What our reader hears, but for parts of messages.
fn ours(stream: &[u8], pieces: usize) -> (Vec<String>, End) {
    let (mut reader, mut heard) = (Reader::new(Vec::new()), Vec::new());
    for piece in stream.to_vec().chunks_mut(pieces) {
        let hear = |message: Message<'_>| match message {
            Message::Text(text) => heard.push(format!("text {text:?}")),
            Message::Binary => heard.push("binary".to_owned()),
            Message::Ping(payload) => heard.push(format!("ping {payload:?}")),
            Message::Pong => heard.push("pong".to_owned()),
            Message::Part => {}
        };
        match reader.read(piece, hear) {
            Ok(()) => {}
            Err(Stop::Closed(code)) => return (heard, End::Closed(code)),
            Err(Stop::Broken(_)) => return (heard, End::Broken),
        }
    }
    (heard, End::Open)
}

/// What tungstenite hears.
fn theirs(stream: &[u8]) -> (Vec<String>, End) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocket::from_raw_socket(Memory(stream), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => format!("text {:?}", text.as_str()),
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
