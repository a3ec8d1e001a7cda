//! What the server says on its own account, and when it parts.

use bytes::BufMut;

use crate::outbox::Outbox;
use crate::protocol::{CloseReason, Frame, LAST_VERSION_WITH_ERROR_EVENTS, ServerEvent};

/// A WebSocket PING without payload.
pub(super) const PING: [u8; 2] = [0x89, 0];

/// Bytes of a close reason, so that the frame stays a control frame.
const MAX_REASON: usize = 123;

/// Adds the reason to what waits, as the client's protocol version expects it, and a close frame.
pub(super) fn farewell(outbox: &Outbox, reason: &CloseReason, version: Option<u32>) {
    let text = reason.to_string();
    if version.is_some_and(|version| version <= LAST_VERSION_WITH_ERROR_EVENTS) {
        outbox.say_good_bye(ServerEvent::FatalError { code: reason.code(), message: &text }.encode());
    }
    let text = &text[..text.floor_char_boundary(MAX_REASON)];
    let mut close = vec![0x88, 2 + text.len() as u8];
    close.put_u16(reason.code());
    close.put_slice(text.as_bytes());
    outbox.say_good_bye(Frame::control(close));
}
