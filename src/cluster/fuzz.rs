//! Messages between nodes. See [`crate::fuzzing`].

use crate::channels::{News, Position};
use crate::protocol::{Frame, SocketId};

use super::message::{event, parse, parse_body, terminate};

pub(crate) fn cluster_messages(bytes: &[u8]) {
    if let Some((position, news)) = parse(bytes.to_vec()) {
        check_texts(&news);
        let body = encode(&news);
        // From the channel, and from the log, where there is no position.
        let (again_at, again) = parse(published(position, &body)).expect("what was encoded");
        assert_eq!((again_at, shown(&again)), (position, shown(&news)));
        let logged = parse_body(body, 0).expect("what was encoded");
        assert_eq!(shown(&logged), shown(&news));
    }
    // Any text is an event that arrives as it was sent.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let frame = Frame::from_text(text.as_bytes());
        let excepts = [None, SocketId::parse("1.2").ok().flatten(), SocketId::parse(text).ok().flatten()];
        for (except, cached) in excepts.into_iter().zip([false, true, true]) {
            let position = Position { stream: 1, seq: u64::MAX, ms: 0 };
            let (arrived_at, news) = parse(published(position, &event(&frame, except, cached))).expect("an event");
            let News::Event { frame: arrived, except: excepted, cached: kept } = news else { panic!("{news:?}") };
            assert_eq!((arrived.websocket(), excepted, kept), (frame.websocket(), except, cached));
            assert_eq!(arrived_at, position);
        }
    }
}

/// Text is what all frames hold, as everybody who passes one on believes.
fn check_texts(news: &News) {
    if let News::Event { frame, .. } = news {
        assert!(std::str::from_utf8(frame.payload()).is_ok(), "an event that is no text");
    }
}

/// As nodes and scripts write it.
fn encode(news: &News) -> Vec<u8> {
    match news {
        News::Event { frame, except, cached } => event(frame, *except, *cached),
        News::Added(member) => {
            let (id, info) = (member.user_id.as_str().as_bytes(), member.user_info.as_bytes());
            let length = u16::try_from(id.len()).expect("it was read from as many bytes");
            [b"a", &length.to_be_bytes()[..], id, info].concat()
        }
        News::Removed(id) => [b"r", id.as_str().as_bytes()].concat(),
        News::Count(count) => format!("n{count}").into_bytes(),
        News::Online => b"o".to_vec(),
        News::Offline => b"f".to_vec(),
        News::Terminate(code) => terminate(*code),
    }
}

fn published(Position { stream, seq, ms }: Position, body: &[u8]) -> Vec<u8> {
    [&[stream, seq, ms].map(u64::to_be_bytes).concat(), body].concat()
}

/// News without the buffers that they came in.
fn shown(news: &News) -> String {
    match news {
        News::Event { frame, except, cached } => format!("{:?} {except:?} {cached}", frame.websocket()),
        other => format!("{other:?}"),
    }
}
