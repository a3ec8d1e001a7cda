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
    /// The end of a text message that was longer than the limit, and was thrown away while it came.
    TooLarge,
}

/// How far a reader has come with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All that was complete is understood.
    Done,
    /// The listener wanted a pause; there may be more messages in what was read.
    Paused,
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
    /// Bytes of a message that are kept.
    limit: usize,
    /// Messages that were complete, modulo 2³².
    count: u32,
}

#[derive(Debug, Default)]
struct Parts {
    is_text: bool,
    payload: Vec<u8>,
    /// Bytes of the parts so far.
    length: usize,
    /// It is longer than the limit: none of it is kept.
    too_large: bool,
    /// Bytes of the present part that are still to be thrown away, and whether the part is the last.
    skip: Option<(usize, bool)>,
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
    /// Begins with these bytes, which are understood with the first that are read. Of a message longer than `limit`, nothing
    /// is kept.
    pub(super) fn new(early: Vec<u8>, limit: usize) -> Self {
        Self { rest: early, parts: None, limit, count: 0 }
    }

    /// Takes the next bytes of the stream, which are overwritten, and tells what they complete, until `hear` returns false.
    ///
    /// # Errors
    /// See [`Stop`]. Nothing may be read after that.
    pub(super) fn read(&mut self, input: &mut [u8], hear: impl FnMut(Message<'_>) -> bool) -> Result<Progress, Stop> {
        if self.rest.is_empty() {
            let (used, progress) = self.consume(input, hear)?;
            self.rest.extend_from_slice(&input[used..]);
            return Ok(progress);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(input);
        let (used, progress) = self.consume(&mut bytes, hear)?;
        self.rest = match used {
            0 => bytes,
            // Without the room that a large frame needed.
            used => bytes[used..].to_vec(),
        };
        Ok(progress)
    }

    /// From here on messages may have so many bytes.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A number of the message that has begun and is not complete; `None` between messages.
    pub(super) fn unfinished(&self) -> Option<u32> {
        (self.parts.is_some() || !self.rest.is_empty()).then_some(self.count)
    }

    /// Handles complete frames. Returns how many bytes they were.
    fn consume(
        &mut self,
        bytes: &mut [u8],
        mut hear: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(usize, Progress), Stop> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let go_on = if let Some(skipped) = self.skip(rest.len()) {
                used += skipped;
                match self.skipped_to_the_end() {
                    None => return Ok((used, Progress::Done)),
                    Some(message) => hear(message),
                }
            } else {
                let Some(header) = self.header(rest).map_err(Stop::Broken)? else { return Ok((used, Progress::Done)) };
                if header.opcode < CLOSE && self.begun() + header.length > self.limit {
                    used += header.size;
                    self.throw_away(&header);
                    continue;
                }
                let Some(payload) = rest[header.size..].get_mut(..header.length) else {
                    return Ok((used, Progress::Done));
                };
                used += header.size + header.length;
                unmask(payload, header.mask);
                self.understand(&header, payload, &mut hear)?
            };
            self.count = self.count.wrapping_add(u32::from(self.parts.is_none()));
            if !go_on {
                return Ok((used, Progress::Paused));
            }
        }
    }

    /// Tells of a frame that is there as a whole.
    fn understand(
        &mut self,
        header: &Header,
        payload: &[u8],
        hear: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<bool, Stop> {
        let whole;
        Ok(hear(match header.opcode {
            PING => Message::Ping(payload),
            PONG => Message::Pong,
            CLOSE => return Err(close(payload)),
            // A message in one frame, as nearly all are.
            TEXT if header.is_last => Message::Text(text(payload)?),
            BINARY if header.is_last => Message::Binary,
            opcode => {
                let parts = self.parts.get_or_insert_with(|| Parts::new(opcode));
                parts.length += payload.len();
                parts.payload.extend_from_slice(payload);
                whole = self.parts.take_if(|_| header.is_last);
                match &whole {
                    None => Message::Part,
                    Some(parts) if parts.is_text => Message::Text(text(&parts.payload)?),
                    Some(_) => Message::Binary,
                }
            }
        }))
    }

    /// Begins to throw away a frame of a message that is too long to be kept.
    fn throw_away(&mut self, header: &Header) {
        let parts = self.parts.get_or_insert_with(|| Parts::new(header.opcode));
        parts.length += header.length;
        parts.too_large = true;
        parts.payload = Vec::new();
        parts.skip = Some((header.length, header.is_last));
    }

    /// How many of so many bytes belong to a frame that is thrown away, if one is.
    fn skip(&mut self, there: usize) -> Option<usize> {
        let (left, _) = self.parts.as_mut()?.skip.as_mut()?;
        let skipped = there.min(*left);
        *left -= skipped;
        Some(skipped)
    }

    /// What is told of a frame that was thrown away, once that is done.
    fn skipped_to_the_end(&mut self) -> Option<Message<'static>> {
        let parts = self.parts.as_mut()?;
        let (_, is_last) = parts.skip.take_if(|(left, _)| *left == 0)?;
        if !is_last {
            return Some(Message::Part);
        }
        let is_text = self.parts.take().is_some_and(|parts| parts.is_text);
        Some(if is_text { Message::TooLarge } else { Message::Binary })
    }

    /// Bytes of the message so far. One that is too large stays so.
    fn begun(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| if parts.too_large { usize::MAX / 2 } else { parts.length })
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
        let begun = self.parts.as_ref().map_or(0, |parts| parts.length);
        let fits = |length: &usize| opcode >= CLOSE || begun + length <= MAX_MESSAGE;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE).filter(fits);
        let length = length.ok_or(CloseReason::MessageTooLarge)?;
        let &[a, b, c, d, ref rest @ ..] = rest else { return Ok(None) };
        Ok(Some(Header { opcode, is_last, mask: [a, b, c, d], size: bytes.len() - rest.len(), length }))
    }
}

impl Parts {
    fn new(opcode: u8) -> Box<Self> {
        Box::new(Self { is_text: opcode == TEXT, ..Self::default() })
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
        heard_within(MAX_MESSAGE, bytes, pieces)
    }

    /// The same, if messages may have so many bytes.
    fn heard_within(limit: usize, bytes: &[u8], pieces: usize) -> (Vec<String>, Result<(), Stop>) {
        let (mut reader, mut heard) = (Reader::new(Vec::new(), limit), Vec::new());
        for piece in bytes.to_vec().chunks_mut(pieces) {
            let mut hear = |message: Message<'_>| {
                heard.push(format!("{message:?}"));
                // A pause after every second one.
                heard.len() % 2 == 0
            };
            let mut progress = reader.read(piece, &mut hear);
            while progress == Ok(Progress::Paused) {
                progress = reader.read(&mut [], &mut hear);
            }
            if let Err(stop) = progress {
                return (heard, Err(stop));
            }
            assert!(reader.rest.len() <= limit + 14, "{} bytes are kept", reader.rest.len());
        }
        assert!(reader.rest.is_empty() && reader.parts.is_none() && reader.unfinished().is_none());
        (heard, Ok(()))
    }

    #[test]
    fn a_message_above_the_limit_is_thrown_away_while_it_comes() {
        let bytes = [
            frame(0x81, &[b'a'; 100]),
            frame(0x81, &[b'a'; 101]),
            frame(0x82, &[0; 101]),
            frame(0x01, &[b'a'; 60]),
            frame(0x89, b"now"),
            frame(0x00, &[b'a'; 60]),
            frame(0x80, b"a"),
            frame(0x01, &[b'a'; 60]),
            frame(0x80, &[b'a'; 40]),
            frame(0x82, b"b"),
        ];
        let text = format!("{:?}", Message::Text(&"a".repeat(100)));
        let ping = format!("{:?}", Message::Ping(b"now"));
        let expected = [&text, "TooLarge", "Binary", "Part", &ping, "Part", "TooLarge", "Part", &text, "Binary"]
            .map(str::to_owned);
        for pieces in [1, 2, 50, 64, 1000, usize::MAX] {
            assert_eq!(heard_within(100, &bytes.concat(), pieces), (expected.to_vec(), Ok(())), "{pieces}");
        }
        // However many parts it has.
        let parts =
            std::iter::repeat_n(frame(0x00, &[b'a'; 1000]), MAX_MESSAGE / 1000 + 1).collect::<Vec<_>>().concat();
        let bytes = [frame(0x01, b""), parts].concat();
        assert_eq!(heard_within(100, &bytes, 8192).1, Err(Stop::Broken(CloseReason::MessageTooLarge)));
    }

    #[test]
    fn a_message_is_unfinished_from_its_first_byte_to_its_last() {
        let mut reader = Reader::new(Vec::new(), 100);
        let mut read = |bytes: &[u8]| {
            reader.read(&mut bytes.to_vec(), |_| true).unwrap();
            reader.unfinished()
        };
        let (whole, first, last) = (frame(0x81, b"ab"), frame(0x01, b"a"), frame(0x80, b"b"));
        assert_eq!(read(&whole), None);
        let begun = read(&whole[..3]).unwrap();
        assert_eq!((read(&whole[3..5]), read(&whole[5..])), (Some(begun), None));
        let begun = read(&first).unwrap();
        assert_eq!((read(&frame(0x8a, b"")), read(&last[..4])), (Some(begun), Some(begun)));
        assert_ne!(read(&[&last[4..], &whole[..1]].concat()), Some(begun));
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
