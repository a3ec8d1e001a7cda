//! Protocol §7.6, and the tests of the SockJS protocol 0.3.3: what packets look like on each transport of SockJS.

use serde_json::json;

use crate::support::{HttpSession, KEY, Message, Packet, Receiving, Response, TestServer, array};

/// Bytes of one response after which it is to end.
const LIMIT: usize = 128 * 1024;

fn assert_kind(response: &Response, kind: &str) {
    assert_eq!(response.status, 200, "{}", response.head);
    assert_eq!(response.header("content-type").unwrap().replace(' ', ""), kind);
    let cache = response.header("cache-control").unwrap_or_default();
    for word in ["no-store", "no-cache", "must-revalidate", "max-age=0"] {
        assert!(cache.contains(word), "{}", response.head);
    }
    assert_eq!(response.header("expires"), None, "{}", response.head);
    assert_eq!(response.header("last-modified"), None, "{}", response.head);
}

/// The only message of a packet.
fn message(packet: &str) -> Message {
    match &Packet::parse(packet)[..] {
        [Packet::Message(message)] => message.clone(),
        _ => panic!("not one message: {packet}"),
    }
}

async fn subscribe(session: &HttpSession, channel: &str) {
    session.send(&[json!({ "event": "pusher:subscribe", "data": { "channel": channel } })]).await;
}

/// A transport that streams.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Xhr,
    EventSource,
    HtmlFile,
}

const STREAMS: [Stream; 3] = [Stream::Xhr, Stream::EventSource, Stream::HtmlFile];

impl Stream {
    async fn begin(self, session: &HttpSession) -> Receiving {
        let mut receiving = match self {
            Self::Xhr => session.begin("POST", "xhr_streaming").await,
            Self::EventSource => session.begin("GET", "eventsource").await,
            Self::HtmlFile => session.begin("GET", "htmlfile?c=%63allback").await,
        };
        let (kind, prelude_end) = match self {
            Self::Xhr => ("application/javascript;charset=UTF-8", "h\n"),
            Self::EventSource => ("text/event-stream;charset=UTF-8", "\r\n"),
            Self::HtmlFile => ("text/html;charset=UTF-8", "\r\n\r\n"),
        };
        assert_kind(&receiving.response, kind);
        let prelude = receiving.piece(prelude_end).await.unwrap();
        match self {
            Self::Xhr => assert_eq!(prelude, "h".repeat(2047)),
            Self::EventSource => assert_eq!(prelude, ""),
            Self::HtmlFile => assert_page(&prelude),
        }
        receiving
    }

    /// The next packet, or `None` at the end of the response.
    async fn next(self, receiving: &mut Receiving) -> Option<String> {
        let end = match self {
            Self::Xhr => "\n",
            Self::EventSource => "\r\n\r\n",
            Self::HtmlFile => ");\n</script>\r\n",
        };
        let piece = receiving.piece(end).await?;
        Some(match self {
            Self::Xhr => piece,
            Self::EventSource => {
                assert!(!piece.contains(['\r', '\n', '\0']), "{piece:?}");
                let data = piece.strip_prefix("data: ").unwrap_or_else(|| panic!("{piece:?}"));
                percent_encoding::percent_decode_str(data).decode_utf8().unwrap().into_owned()
            }
            Self::HtmlFile => {
                let string = piece.strip_prefix("<script>\np(").unwrap_or_else(|| panic!("{piece:?}"));
                assert!(!string.contains('<'), "{piece:?}");
                serde_json::from_str(string).unwrap_or_else(|error| panic!("{error} in {string}"))
            }
        })
    }
}

/// The page that calls a function of the one around it.
fn assert_page(page: &str) {
    assert!(page.len() >= 1024, "only {} bytes: {page}", page.len());
    assert!(page.to_lowercase().starts_with("<!doctype html>"), "{page}");
    assert_eq!(page.matches("parent.callback;").count(), 1, "{page}");
    for part in ["document.domain = document.domain;", ".start();", "function p(", ".message(", ".stop"] {
        assert!(page.contains(part), "no {part} in {page}");
    }
}

#[tokio::test]
async fn every_stream_has_its_own_form_of_the_same_packets() {
    let server = TestServer::start().await;
    let data = "100% 25%25 \r\n\0 </script> <!-- \\ \" ' \u{2028} ü 😀";
    for stream in STREAMS {
        let session = server.sockjs();
        let mut receiving = stream.begin(&session).await;
        assert_eq!(stream.next(&mut receiving).await.as_deref(), Some("o"), "{stream:?}");
        session.ask_for_app().await;
        let greeting = message(&stream.next(&mut receiving).await.unwrap());
        assert_eq!(greeting.event(), "pusher:connection_established");
        subscribe(&session, "room").await;
        stream.next(&mut receiving).await.unwrap();
        server.api().await.trigger("room", "greet", data).await;
        assert_eq!(message(&stream.next(&mut receiving).await.unwrap()).text(), data, "{stream:?}");
    }
}

#[tokio::test]
async fn every_stream_ends_after_128_kib_and_goes_on_in_the_next() {
    let server = TestServer::start().await;
    let mut api = server.api().await;
    let padding = "x".repeat(10_000);
    for stream in STREAMS {
        let session = server.sockjs();
        let mut receiving = stream.begin(&session).await;
        stream.next(&mut receiving).await.unwrap();
        session.ask_for_app().await;
        stream.next(&mut receiving).await.unwrap();
        subscribe(&session, "room").await;
        stream.next(&mut receiving).await.unwrap();
        let mut sent = 0;
        // Everything is ASCII: units are bytes.
        while receiving.units <= LIMIT {
            let data = format!("{sent} {padding}");
            api.trigger("room", "tick", &data).await;
            let packet = stream.next(&mut receiving).await.unwrap_or_else(|| panic!("ends at {}", receiving.units));
            assert_eq!(message(&packet).text(), data);
            sent += 1;
        }
        assert_eq!(stream.next(&mut receiving).await, None, "{stream:?}");
        // What comes in between waits.
        api.trigger("room", "tick", "later").await;
        let mut next = stream.begin(&session).await;
        assert_eq!(message(&stream.next(&mut next).await.unwrap()).text(), "later", "{stream:?}");
    }
}

#[tokio::test]
async fn an_idle_stream_has_heartbeats_of_its_own_form() {
    let server = TestServer::with(|config| config.fallbacks.heartbeat = std::time::Duration::from_secs(1)).await;
    let mut idle = Vec::new();
    for stream in STREAMS {
        let session = server.sockjs();
        let mut receiving = stream.begin(&session).await;
        assert_eq!(stream.next(&mut receiving).await.as_deref(), Some("o"));
        session.ask_for_app().await;
        stream.next(&mut receiving).await.unwrap();
        idle.push((stream, receiving));
    }
    for (stream, receiving) in &mut idle {
        assert_eq!(stream.next(receiving).await.as_deref(), Some("h"), "{stream:?}");
    }
    let polling = server.sockjs().connect_polling().await;
    assert_eq!(polling.session.poll().await.body, "h\n");
    assert_eq!(jsonp(&polling.session, "cb").await, "h");
}

/// What a script calls its function with.
async fn jsonp(session: &HttpSession, callback: &str) -> String {
    let response = session.ask("GET", &format!("jsonp?c={callback}"), b"").await;
    assert_kind(&response, "application/javascript;charset=UTF-8");
    let call = response.body.strip_suffix(");\r\n").unwrap_or_else(|| panic!("{:?}", response.body));
    let string = call.strip_prefix(&format!("/**/{callback}(")).unwrap_or_else(|| panic!("{call:?}"));
    assert!(!string.contains('<'), "{string}");
    serde_json::from_str(string).unwrap_or_else(|error| panic!("{error} in {string}"))
}

#[tokio::test]
async fn a_script_brings_one_packet_each_time() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    let first = session.ask("GET", "jsonp?c=%63allback", b"").await;
    assert_eq!(first.body, "/**/callback(\"o\");\r\n");
    let path = json!([json!({ "path": format!("/app/{KEY}?protocol=7") }).to_string()]).to_string();
    let form = |text: &str| {
        let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        format!("d={encoded}")
    };
    let sent = send(&session, "application/x-www-form-urlencoded", &form(&path)).await;
    assert_eq!((sent.status, sent.body.as_str()), (200, "ok"), "{}", sent.head);
    assert_kind(&sent, "text/plain;charset=UTF-8");
    assert_eq!(message(&jsonp(&session, "_jp.a1").await).event(), "pusher:connection_established");
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "room" } });
    let raw = send(&session, "text/plain", &array(&[subscribe])).await;
    assert_eq!((raw.status, raw.body.as_str()), (200, "ok"), "{}", raw.head);
    assert_eq!(message(&jsonp(&session, "b").await).event(), "pusher_internal:subscription_succeeded");
    let data = "</script><script>alert(1)</script> \u{2028} \" \\ ü";
    server.api().await.trigger("room", "greet", data).await;
    assert_eq!(message(&jsonp(&session, "c").await).text(), data);
}

async fn send(session: &HttpSession, kind: &str, body: &str) -> Response {
    let request = String::from_utf8(session.request("POST", "jsonp_send", body.as_bytes())).unwrap();
    let request = request.replace("Content-Type: application/json", &format!("Content-Type: {kind}"));
    let wire = crate::support::Wire::connect(session.addr).await;
    crate::support::Http::new(wire).send(request.as_bytes()).await
}

#[tokio::test]
async fn forms_are_decoded_and_plain_text_is_not() {
    let server = TestServer::with_app(|app| app.client_events = true).await;
    let mut listener = server.connect().await;
    listener.subscribe_private("private-room").await;
    let mut client = server.sockjs().connect_polling().await;
    client.subscribe("private-room").await;
    let event = |data: &str| array(&[json!({ "event": "client-a", "channel": "private-room", "data": data })]);
    let sent = send(&client.session, "text/plain", &event("%61+b")).await;
    assert_eq!((sent.status, sent.body.as_str()), (200, "ok"));
    listener.expect_event("private-room", "client-a", "%61+b").await;
    let encoded = |text: &str| text.replace('%', "%25").replace('"', "%22").replace('+', "%2B").replace(' ', "+");
    let form = format!("x=1&d={}", encoded(&event("%61+b c")));
    let sent = send(&client.session, "application/x-www-form-urlencoded", &form).await;
    assert_eq!((sent.status, sent.body.as_str()), (200, "ok"));
    listener.expect_event("private-room", "client-a", "%61+b c").await;
}

#[tokio::test]
async fn a_broken_form_has_its_answer_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut client = server.sockjs().connect_polling().await;
    let kind = "application/x-www-form-urlencoded";
    let rows = [
        ("", "Payload expected."),
        ("d=", "Payload expected."),
        ("p=p", "Payload expected."),
        ("d=%5B%22x", "Broken JSON encoding."),
        ("d=x", "Broken JSON encoding."),
        ("d=%5B1%5D", "Broken JSON encoding."),
    ];
    for (body, text) in rows {
        let response = send(&client.session, kind, body).await;
        assert_eq!((response.status, response.body.trim_end()), (500, text), "{body:?}");
    }
    assert_eq!(send(&server.sockjs(), kind, "d=%5B%5D").await.status, 404);
    assert_eq!(send(&client.session, kind, "d=%5B%5D").await.body, "ok");
    client.expect_silence().await;
}

#[tokio::test]
async fn nobody_but_a_function_is_called() {
    let server = TestServer::start().await;
    for transport in ["jsonp", "htmlfile"] {
        for (query, text) in [
            ("", "\"callback\" parameter required"),
            ("?x=y", "\"callback\" parameter required"),
            ("?c=", "invalid \"callback\" parameter"),
            ("?c=alert(1)", "invalid \"callback\" parameter"),
            ("?c=%3Cscript%3E", "invalid \"callback\" parameter"),
            ("?c=a%20b", "invalid \"callback\" parameter"),
            ("?c=a%3Bb", "invalid \"callback\" parameter"),
            ("?c=%C3%A4", "invalid \"callback\" parameter"),
        ] {
            let session = server.sockjs();
            let response = session.ask("GET", &format!("{transport}{query}"), b"").await;
            assert_eq!((response.status, response.body.trim_end()), (500, text), "{transport}{query}");
            // No session has begun.
            assert_eq!(session.post(b"[]").await.status, 404);
        }
    }
}

#[tokio::test]
async fn the_end_has_the_form_of_each_transport_too() {
    let server = TestServer::start().await;
    for stream in STREAMS {
        let session = server.sockjs().wish("/elsewhere");
        let mut receiving = stream.begin(&session).await;
        stream.next(&mut receiving).await.unwrap();
        session.ask_for_app().await;
        let end = "c[4005,\"Path not found\"]";
        assert_eq!(stream.next(&mut receiving).await.as_deref(), Some(end), "{stream:?}");
        assert_eq!(stream.next(&mut receiving).await, None);
        for _ in 0..2 {
            assert_eq!(jsonp(&session, "x").await, end);
        }
    }
}

#[tokio::test]
async fn a_client_may_change_its_transport() {
    let server = TestServer::start().await;
    let session = server.sockjs();
    assert_eq!(jsonp(&session, "x").await, "o");
    session.ask_for_app().await;
    for stream in STREAMS {
        let ping = json!({ "event": "pusher:ping" });
        session.send(std::slice::from_ref(&ping)).await;
        let packet = jsonp(&session, "x").await;
        assert!(packet.starts_with("a["), "{packet}");
        // With its end, a stream would end the session: only a poll can be followed by something else.
        let other = server.sockjs();
        let mut receiving = stream.begin(&other).await;
        stream.next(&mut receiving).await.unwrap();
        other.ask_for_app().await;
        other.send(&[ping]).await;
        assert!(stream.next(&mut receiving).await.unwrap().starts_with("a["));
    }
}
