//! Connections that take descriptors and give nothing for them.

use std::time::Duration;

use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Http2, KIB, MIB, PATIENCE, Server, Unfinished, siege};

const OPEN_FILES: u32 = 1024;

/// A connection that says this and then nothing more. When the server ends it, it comes back.
async fn occupy(addr: std::net::SocketAddr, text: &'static [u8]) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            let _ = stream.write_all(text).await;
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        }
        // Somebody with patience: this is about what is held, not about how often one can knock.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// More connections than there are descriptors, each of which says this.
async fn more_than_there_are(text: &'static [u8]) {
    let server = Server::with_open_files(OPEN_FILES, &[]).await;
    let mut client = server.connect().await;
    client.subscribe("room").await;
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for _ in 0..1100 {
            attack.spawn(occupy(server.addr, text));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    assert!(siege.descriptors < OPEN_FILES as usize, "{siege}");
    assert!(siege.lines <= 60, "{siege}");
    assert!(!server.log().contains("Too many open files"), "a descriptor was missing");
    siege.cost_at_most(u64::from(OPEN_FILES) * 64 * KIB);
    // Who was there is there.
    client.expect_silence().await;
    client.disconnect().await;
}

#[tokio::test]
async fn silent_connections_leave_room_for_everybody_else() {
    more_than_there_are(b"").await;
}

#[tokio::test]
async fn requests_that_never_end_leave_room_for_everybody_else() {
    more_than_there_are(b"GET /app/app-key-1?protocol=7 HTTP/1.1\r\nHost: test\r\nX-Slow: ").await;
}

#[tokio::test]
async fn kept_connections_leave_room_for_everybody_else() {
    more_than_there_are(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
}

/// A handshake with the key of no app.
macro_rules! stray {
    ($more:literal) => {
        concat!(
            "GET /app/of-nobody?protocol=7 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
            $more,
            "\r\n"
        )
        .as_bytes()
    };
}

#[tokio::test]
async fn clients_that_are_refused_and_stay_leave_room_for_everybody_else() {
    more_than_there_are(stray!("")).await;
}

#[tokio::test]
async fn unusual_clients_that_are_refused_and_stay_leave_room_for_everybody_else() {
    more_than_there_are(stray!("Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n")).await;
}

#[tokio::test]
async fn idle_http_2_connections_leave_room_for_everybody_else() {
    more_than_there_are(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
}

/// An HTTP/2 connection that has its answer.
async fn answered(mut http: Http2) {
    let request = Request::get("http://test/").body(Unfinished::none()).unwrap();
    let answer = http.sender.send_request(request).await.unwrap();
    // Kept, so that it does not end for want of somebody to use it.
    let (_sender, _answer) = (http.sender.clone(), answer);
    (&mut http.connection).await.unwrap();
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed_though_it_answers_pings() {
    const CONNECTIONS: usize = 60;
    let settings = ["server.request_timeout=2s", "server.write_timeout=1s", "fallbacks.heartbeat=1s"];
    let server = Server::with(&settings).await;
    let siege = siege(&server, async {
        let mut attack = JoinSet::new();
        for number in 0..CONNECTIONS {
            match number % 3 {
                0 => attack.spawn(ping_for_ever(server.addr)),
                1 => attack.spawn(answered(Http2::connect(server.addr).await)),
                // The answer is not taken, and so never over.
                _ => attack.spawn(answered(Http2::closed(server.addr).await)),
            };
        }
        let mut closed = 0;
        let _ = tokio::time::timeout(Duration::from_secs(8), async {
            while attack.join_next().await.is_some() {
                closed += 1;
            }
        })
        .await;
        closed
    })
    .await;
    assert_eq!(siege.outcome, CONNECTIONS, "closed: {siege}");
    siege.cost_at_most(16 * MIB);
}

/// A connection that makes no request, but answers every PING, and sends its own. Returns when the server ends it.
async fn ping_for_ever(addr: std::net::SocketAddr) {
    const PING: u8 = 6;
    const SETTINGS: u8 = 4;
    const ACK: u8 = 1;
    let frame =
        |kind: u8, flags: u8, payload: &[u8]| [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0], payload].concat();
    let (mut read, mut write) = TcpStream::connect(addr).await.unwrap().into_split();
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    write.write_all(&frame(SETTINGS, 0, b"")).await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut own = tokio::time::interval(Duration::from_millis(300));
    let mut buffer = Vec::new();
    while tokio::time::Instant::now() < deadline {
        tokio::select! {
            read = read.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            _ = own.tick() => {
                let _ = write.write_all(&frame(PING, 0, b"isalive?")).await;
            }
        }
        while buffer.len() >= 9 {
            let length = usize::from(buffer[1]) * 256 + usize::from(buffer[2]);
            if buffer.len() < 9 + length {
                break;
            }
            let (kind, flags) = (buffer[3], buffer[4]);
            let payload: Vec<u8> = buffer.drain(..9 + length).skip(9).collect();
            if flags & ACK == 0 && kind == PING {
                let _ = write.write_all(&frame(PING, ACK, &payload)).await;
            } else if flags & ACK == 0 && kind == SETTINGS {
                let _ = write.write_all(&frame(SETTINGS, ACK, b"")).await;
            }
        }
    }
    panic!("the connection lives");
}
