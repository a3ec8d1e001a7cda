//! WebSocket frames (RFC 6455, section 5): just as much as a client of one server needs.

/// Text.
pub(super) const TEXT: u8 = 1;
/// The end of a connection: code and reason.
pub(super) const CLOSE: u8 = 8;
/// To be answered with a pong of the same payload.
pub(super) const PING: u8 = 9;
/// The answer to a ping.
pub(super) const PONG: u8 = 10;

/// One frame at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// What kind of frame it is.
    pub(super) opcode: u8,
    /// Whether the message ends here. No server fragments messages as short as ours.
    pub(super) last: bool,
    /// The payload; servers send it unmasked.
    pub(super) payload: &'a [u8],
    /// Bytes up to the next frame.
    pub(super) length: usize,
}

/// Reads the first frame, if all of it is there.
pub(super) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, start) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4_usize),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let end = start.checked_add(length)?;
    Some(Frame { opcode: first & 0x0f, last: first & 0x80 != 0, payload: bytes.get(start..end)?, length: end })
}

/// Appends one frame as a client sends it: masked, with a mask of zeros, which leaves the payload as it is.
pub(super) fn write(opcode: u8, payload: &[u8], into: &mut Vec<u8>) {
    into.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => into.push(0x80 | length as u8),
        Ok(length) => {
            into.push(0x80 | 126);
            into.extend(length.to_be_bytes());
        }
        Err(_) => {
            into.push(0x80 | 127);
            into.extend((payload.len() as u64).to_be_bytes());
        }
    }
    into.extend([0; 4]);
    into.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_is_read_once_it_is_complete() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            write(TEXT, &payload, &mut bytes);
            // The server's form: no mask.
            let mask = bytes.len() - length - 4;
            bytes.drain(mask..mask + 4);
            bytes[1] &= 0x7f;
            for cut in [0, 1, bytes.len() - 1] {
                assert_eq!(parse(&bytes[..cut]), None, "{length} {cut}");
            }
            let expected = Frame { opcode: TEXT, last: true, payload: &payload, length: bytes.len() };
            bytes.push(0);
            assert_eq!(parse(&bytes), Some(expected));
        }
    }
}
