//! An encoded message, ready for any number of sockets.

use bytes::Bytes;

/// The longest header of an unmasked WebSocket frame.
const MAX_HEADER: usize = 10;

/// A message as it goes to sockets: encoded once, shared by reference count, never looked into again. It carries its
/// WebSocket header; other transports take the bare text.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    header: u8,
}

/// Collects the text of a frame behind the space its header will need, so that nothing is copied afterwards.
pub(super) struct FrameBuilder(Vec<u8>);

impl Frame {
    /// The whole frame, as written to a WebSocket.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes
    }

    /// The message in it.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header)..]
    }

    /// Bytes this frame counts for in an outbox.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A message that is JSON text already. It is copied.
    pub fn from_text(text: &[u8]) -> Self {
        let mut frame = FrameBuilder::with_capacity(text.len());
        frame.0.extend_from_slice(text);
        frame.finish()
    }

    /// A message that is JSON text already: what stands in `buffer` from `start` on. Its header takes the place of what is
    /// before it, so nothing is copied if there is room.
    pub fn in_place(buffer: Vec<u8>, start: usize) -> Self {
        match start >= MAX_HEADER {
            true => seal(buffer, start),
            false => Self::from_text(&buffer[start..]),
        }
    }

    /// Bytes that are a WebSocket frame already: a control frame.
    pub fn control(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { header: 2.min(bytes.len() as u8), bytes }
    }
}

impl FrameBuilder {
    /// Room for about `payload` bytes.
    pub(super) fn with_capacity(payload: usize) -> Self {
        let mut buffer = Vec::with_capacity(MAX_HEADER + payload);
        buffer.resize(MAX_HEADER, 0);
        Self(buffer)
    }

    /// Appends text that needs no escaping.
    pub(super) fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends text as a JSON string, quotes included.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        serde_json::to_writer(&mut self.0, text).expect("writing a string to memory cannot fail");
        self
    }

    /// Seals the text into a frame.
    pub(super) fn finish(self) -> Frame {
        seal(self.0, MAX_HEADER)
    }
}

/// Writes the header of the text that begins at `start` before it.
fn seal(mut buffer: Vec<u8>, start: usize) -> Frame {
    let length = buffer.len() - start;
    let header: &[u8] = match length {
        0..=125 => &[0x81, length as u8],
        126..=0xffff => &[&[0x81, 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => &[&[0x81, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    let first = start - header.len();
    buffer[first..start].copy_from_slice(header);
    let header = header.len() as u8;
    Frame { bytes: Bytes::from(buffer).slice(first..), header }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_grows_with_the_text() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut builder = FrameBuilder::with_capacity(length);
            builder.raw(&"x".repeat(length));
            let frame = builder.finish();
            assert_eq!(frame.payload().len(), length);
            assert_eq!(frame.len(), length + header);
            assert_eq!(frame.websocket()[0], 0x81);
        }
    }
}
