//! What the server says on its own account, and when it parts.

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame, LAST_VERSION_WITH_ERROR_EVENTS, ServerEvent};

/// A WebSocket PING without payload.
pub(crate) const PING: [u8; 2] = [0x89, 0];

/// Bytes of a close reason, so that the frame stays a control frame.
const MAX_REASON: usize = 123;

/// Adds the reason to what waits, as the client's protocol version expects it, and a close frame.
pub(crate) fn farewell(outbox: &Outbox, reason: &CloseReason, version: Option<u32>) {
    let text = reason.to_string();
    if version.is_some_and(|version| version <= LAST_VERSION_WITH_ERROR_EVENTS) {
        outbox.say_good_bye(ServerEvent::FatalError { code: reason.code(), message: &text }.encode());
    }
    let text = &text[..text.floor_char_boundary(MAX_REASON)];
    outbox.say_good_bye(Frame::control(close(Some(reason.code()), text)));
}

/// A close frame.
pub(super) fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let code = code.map(u16::to_be_bytes);
    control(0x88, &[code.as_ref().map_or(&[], |code| &code[..]), reason.as_bytes()])
}

/// The answer to a PING.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    control(0x8a, &[payload])
}

/// A frame of at most 125 bytes of payload.
fn control(first: u8, payload: &[&[u8]]) -> Vec<u8> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(2 + length);
    frame.extend([first, length as u8]);
    payload.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}
