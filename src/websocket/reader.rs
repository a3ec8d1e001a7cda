//! Messages out of bytes: the half of RFC 6455 that a server reads. No I/O, and no copy of what comes whole.

use crate::protocol::{CloseReason, MAX_MESSAGE};

/// Bytes of a control frame's payload.
const MAX_CONTROL: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message, which nobody here understands.
    Binary,
    /// A PING with this payload, which the PONG has to repeat.
    Ping(&'a [u8]),
    /// A PONG.
    Pong,
    /// A part of a message that is not the last.
    Part,
}

/// Why nothing more can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client has sent a close frame, with this code if with any.
    Closed(Option<u16>),
    /// The client has broken the protocol.
    Broken(CloseReason),
}

/// What is left of bytes that were read. A silent client costs no memory here.
#[derive(Debug)]
pub(super) struct Reader {
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
    /// The message whose last part has not come yet.
    parts: Option<Box<Parts>>,
}

#[derive(Debug)]
struct Parts {
    is_text: bool,
    payload: Vec<u8>,
}

/// What stands before a payload.
struct Header {
    opcode: u8,
    is_last: bool,
    mask: [u8; 4],
    /// Bytes of the header.
    size: usize,
    /// Bytes of the payload.
    length: usize,
}

impl Reader {
    /// Begins with these bytes, which are understood with the first that are read.
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self { rest: early, parts: None }
    }

    /// Takes the next bytes of the stream, which are overwritten, and tells what they complete.
    ///
    /// # Errors
    /// See [`Stop`]. Nothing may be read after that.
    pub(super) fn read(&mut self, input: &mut [u8], hear: impl FnMut(Message<'_>)) -> Result<(), Stop> {
        if self.rest.is_empty() {
            let used = self.consume(input, hear)?;
            self.rest.extend_from_slice(&input[used..]);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(input);
        self.rest = match self.consume(&mut bytes, hear)? {
            0 => bytes,
            // Without the room that a large frame needed.
            used => bytes[used..].to_vec(),
        };
        Ok(())
    }

    /// Handles all complete frames. Returns how many bytes they were.
    fn consume(&mut self, bytes: &mut [u8], mut hear: impl FnMut(Message<'_>)) -> Result<usize, Stop> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let Some(header) = self.header(rest).map_err(Stop::Broken)? else { return Ok(used) };
            let Some(payload) = rest[header.size..].get_mut(..header.length) else { return Ok(used) };
            used += header.size + header.length;
            unmask(payload, header.mask);
            let whole;
            hear(match header.opcode {
                PING => Message::Ping(payload),
                PONG => Message::Pong,
                CLOSE => return Err(close(payload)),
                // A message in one frame, as nearly all are.
                TEXT if header.is_last => Message::Text(text(payload)?),
                BINARY if header.is_last => Message::Binary,
                opcode => {
                    let empty = || Box::new(Parts { is_text: opcode == TEXT, payload: Vec::new() });
                    self.parts.get_or_insert_with(empty).payload.extend_from_slice(payload);
                    whole = self.parts.take_if(|_| header.is_last);
                    match &whole {
                        None => Message::Part,
                        Some(parts) if parts.is_text => Message::Text(text(&parts.payload)?),
                        Some(_) => Message::Binary,
                    }
                }
            });
        }
    }

    /// Reads a header, as soon as it is there, and checks what it announces.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, CloseReason> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(broken("Reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return Err(broken("A frame of a client is not masked"));
        }
        match opcode {
            CONTINUATION if self.parts.is_none() => return Err(broken("A continuation of no message")),
            TEXT | BINARY if self.parts.is_some() => {
                return Err(broken("A new message before the last part of another"));
            }
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if !is_last => return Err(broken("A control frame in parts")),
            CLOSE | PING | PONG if usize::from(second & 0x7f) > MAX_CONTROL => {
                return Err(broken("A control frame is too long"));
            }
            CLOSE | PING | PONG => {}
            _ => return Err(broken("A reserved opcode")),
        }
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u16::from_be_bytes([*a, *b]).into(), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
            (126 | 127, _) => return Ok(None),
            (length, rest) => (length.into(), rest),
        };
        let begun = self.parts.as_ref().map_or(0, |parts| parts.payload.len());
        let fits = |length: &usize| opcode >= CLOSE || begun + length <= MAX_MESSAGE;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE).filter(fits);
        let length = length.ok_or(CloseReason::MessageTooLarge)?;
        let &[a, b, c, d, ref rest @ ..] = rest else { return Ok(None) };
        Ok(Some(Header { opcode, is_last, mask: [a, b, c, d], size: bytes.len() - rest.len(), length }))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn text(payload: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(payload).map_err(|_| Stop::Broken(CloseReason::InvalidUtf8))
}

fn close(payload: &[u8]) -> Stop {
    match payload {
        [] => Stop::Closed(None),
        [_] => Stop::Broken(broken("A close frame with half a code")),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => match text(reason) {
                Ok(_) => Stop::Closed(Some(code)),
                Err(stop) => stop,
            },
            _ => Stop::Broken(broken("A close code that may not be sent")),
        },
    }
}

fn broken(how: &str) -> CloseReason {
    CloseReason::WebSocketProtocol(how.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length @ 126..0x1_0000 => bytes.extend([[0x80 | 126].as_slice(), &(length as u16).to_be_bytes()].concat()),
            length => bytes.extend([[0x80 | 127].as_slice(), &(length as u64).to_be_bytes()].concat()),
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    /// What is heard if these bytes come in pieces of so many, and how it ends.
    fn heard(bytes: &[u8], pieces: usize) -> (Vec<String>, Result<(), Stop>) {
        let (mut reader, mut heard) = (Reader::new(Vec::new()), Vec::new());
        for piece in bytes.to_vec().chunks_mut(pieces) {
            if let Err(stop) = reader.read(piece, |message| heard.push(format!("{message:?}"))) {
                return (heard, Err(stop));
            }
        }
        assert!(reader.rest.is_empty() && reader.parts.is_none());
        (heard, Ok(()))
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_come() {
        let long = "ü".repeat(40_000);
        let bytes = [
            frame(0x81, b"{}"),
            frame(0x81, b""),
            frame(0x01, &long.as_bytes()[..70_001]),
            frame(0x89, b"now"),
            frame(0x00, b""),
            frame(0x8a, b""),
            frame(0x80, &long.as_bytes()[70_001..]),
            frame(0x82, b"\xff"),
            frame(0x02, b"\xff"),
            frame(0x80, &[0; 200]),
        ];
        let ping = format!("{:?}", Message::Ping(b"now"));
        let long = format!("{:?}", Message::Text(&long));
        let expected = ["Text(\"{}\")", "Text(\"\")", "Part", &ping, "Part", "Pong", &long, "Binary", "Part", "Binary"];
        for pieces in [1, 2, 3, 7, 8192, 100_000, usize::MAX] {
            assert_eq!(heard(&bytes.concat(), pieces), (expected.map(str::to_owned).to_vec(), Ok(())), "{pieces}");
        }
    }

    #[test]
    fn nothing_is_heard_after_a_close_frame() {
        for (payload, code) in [(&b""[..], None), (b"\x03\xe8", Some(1000)), (b"\x0f\xa0bye", Some(4000))] {
            let bytes = [frame(0x81, b"a"), frame(0x88, payload), frame(0x81, b"b")].concat();
            assert_eq!(heard(&bytes, 1000), (vec!["Text(\"a\")".to_owned()], Err(Stop::Closed(code))));
        }
    }

    #[test]
    fn what_is_too_large_is_known_from_its_header() {
        let whole = |length: usize| heard(&frame(0x82, &vec![0; length]), 8192).1;
        assert_eq!(whole(MAX_MESSAGE), Ok(()));
        let too_large = Err(Stop::Broken(CloseReason::MessageTooLarge));
        assert_eq!(whole(MAX_MESSAGE + 1), too_large);
        assert_eq!(heard(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1).1, too_large);
        let parts = |length| [frame(0x02, &vec![0; MAX_MESSAGE]), frame(0x89, b"!"), frame(0x80, &vec![0; length])];
        assert_eq!(heard(&parts(0).concat(), 8192).1, Ok(()));
        assert_eq!(heard(&parts(1).concat(), 8192).1, too_large);
    }

    #[test]
    fn rules_that_clients_break() {
        let mut unmasked = frame(0x81, b"a");
        unmasked[1] &= 0x7f;
        let rows = [
            ("not masked", unmasked),
            ("Reserved bits", frame(0xc1, b"")),
            ("reserved opcode", frame(0x83, b"")),
            ("reserved opcode", frame(0x8b, b"")),
            ("continuation of no message", frame(0x80, b"")),
            ("before the last part", [frame(0x01, b""), frame(0x81, b"")].concat()),
            ("in parts", frame(0x09, b"")),
            ("too long", frame(0x89, &[0; 126])),
            ("half a code", frame(0x88, b"\x03")),
            ("may not be sent", frame(0x88, &1005_u16.to_be_bytes())),
            ("may not be sent", frame(0x88, &999_u16.to_be_bytes())),
            ("may not be sent", frame(0x88, &5000_u16.to_be_bytes())),
        ];
        for (expected, bytes) in rows {
            let Err(Stop::Broken(CloseReason::WebSocketProtocol(how))) = heard(&bytes, 1).1 else {
                panic!("{expected}");
            };
            assert!(how.contains(expected), "{how}");
        }
        for bytes in
            [frame(0x81, b"\xff"), frame(0x88, b"\x03\xe8\xff"), [frame(0x01, b"\xc3"), frame(0x80, b"")].concat()]
        {
            assert_eq!(heard(&bytes, 1).1, Err(Stop::Broken(CloseReason::InvalidUtf8)));
        }
    }
}
