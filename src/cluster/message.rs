//! What crosses Redis: a header of 24 bytes that the scripts write (stream, number and time of the news), a letter that
//! says what it is, and the rest as it is needed. An event is encoded once, by the node that publishes it; the others only
//! put the header of a WebSocket frame in front of it.

use crate::channels::{News, Position};
use crate::protocol::{Frame, Member, SocketId, UserId};

/// What the scripts put in front of each message.
const HEADER: usize = 24;

/// An event, with the connection that does not get it. A script that keeps it for newcomers knows this form.
pub(super) fn event(frame: &Frame, except: Option<SocketId>, cached: bool) -> Vec<u8> {
    let except = except.map(|socket_id| socket_id.to_string()).unwrap_or_default();
    let text = frame.payload();
    let mut body = Vec::with_capacity(2 + except.len() + text.len());
    // A socket id has 33 digits at most.
    body.extend_from_slice(&[if cached { b'c' } else { b'e' }, except.len() as u8]);
    body.extend_from_slice(except.as_bytes());
    body.extend_from_slice(text);
    body
}

/// The order to close a user's connections.
pub(super) fn terminate(code: u16) -> Vec<u8> {
    format!("t{code}").into_bytes()
}

/// Reads a published message.
pub(super) fn parse(message: Vec<u8>) -> Option<(Position, News)> {
    let number = |at: usize| Some(u64::from_be_bytes(message.get(at..at + 8)?.try_into().ok()?));
    let position = Position { stream: number(0)?, seq: number(8)?, ms: number(16)? };
    Some((position, parse_body(message, HEADER)?))
}

/// Reads what begins at `at`.
pub(super) fn parse_body(message: Vec<u8>, at: usize) -> Option<News> {
    let rest = message.get(at + 1..)?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    match message[at] {
        kind @ (b'e' | b'c') => {
            let length = usize::from(*rest.first()?);
            let except = text(rest.get(1..1 + length)?)?;
            let except = SocketId::parse(&except).ok().flatten();
            // Everybody who passes it on believes that a frame is text.
            std::str::from_utf8(&rest[1 + length..]).ok()?;
            Some(News::Event { frame: Frame::in_place(message, at + 2 + length), except, cached: kind == b'c' })
        }
        b'a' => {
            let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
            let (user_id, user_info) = (text(rest.get(2..2 + length)?)?, text(&rest[2 + length..])?);
            Some(News::Added(Member { user_id: UserId::new(&user_id), user_info: user_info.into() }))
        }
        b'r' => Some(News::Removed(UserId::new(&text(rest)?))),
        b'n' => Some(News::Count(text(rest)?.parse().ok()?)),
        b'o' => Some(News::Online),
        b'f' => Some(News::Offline),
        b't' => Some(News::Terminate(text(rest)?.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(body: &[u8]) -> Vec<u8> {
        let header = [7u64, 3, 1_700_000_000_000].map(u64::to_be_bytes).concat();
        [&header, body].concat()
    }

    #[test]
    fn an_event_arrives_as_the_frame_that_was_sent() {
        let except = SocketId::random();
        for length in [2, 200, 70_000] {
            let frame = Frame::from_text("x".repeat(length).as_bytes());
            for except in [None, Some(except)] {
                let (position, news) = parse(published(&event(&frame, except, true))).unwrap();
                assert_eq!(position, Position { stream: 7, seq: 3, ms: 1_700_000_000_000 });
                let News::Event { frame: arrived, except: excepted, cached: true } = news else { panic!("{news:?}") };
                assert_eq!((arrived.websocket(), excepted), (frame.websocket(), except));
                // From the log it comes without the header, and with no room for another one.
                let Some(News::Event { frame: arrived, .. }) = parse_body(event(&frame, except, true), 0) else {
                    panic!("no event")
                };
                assert_eq!(arrived.websocket(), frame.websocket());
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_news() {
        for body in [
            &b""[..],
            b"?",
            b"e",
            b"e\x05123",
            b"a\0",
            b"a\0\x09x",
            b"n",
            b"nine",
            b"t70000",
            b"r\xff",
            b"e\0\xff",
            b"c\x031.2\xc3",
        ] {
            assert!(parse(published(body)).is_none(), "{body:?}");
        }
        assert!(parse(vec![0; 23]).is_none());
    }
}
