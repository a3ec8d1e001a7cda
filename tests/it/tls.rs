//! The public listener with a certificate of its own.

use std::sync::Arc;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::TlsConfig;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Api, Call, Http, Item, KEY, Receiving, TempDir, TestServer, Wire, array, pem, within};

struct Secured {
    server: TestServer,
    connector: TlsConnector,
    _files: TempDir,
}

impl Secured {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = TempDir::new();
        let (certificate, private_key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        std::fs::write(&certificate, pem("CERTIFICATE", cert.der())).unwrap();
        std::fs::write(&private_key, pem("PRIVATE KEY", &signing_key.serialize_der())).unwrap();
        let server = TestServer::with(|config| {
            config.server.tls = Some(TlsConfig { certificate, private_key });
            config.apps[0].require_tls = true;
            change(config);
        })
        .await;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { server, connector: TlsConnector::from(Arc::new(config)), _files: files }
    }

    async fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.server.addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Wire::over(self.connector.connect(name, stream).await.unwrap())
    }
}

#[tokio::test]
async fn clients_and_backends_are_served_over_tls() {
    let secured = Secured::start().await;
    let mut client = secured.server.dial().open_over(secured.connect().await).await;
    client.greeting().await;
    client.subscribe("room").await;
    let mut api = Api::new(Http::new(secured.connect().await));
    api.trigger("room", "greet", "{}").await;
    client.expect_event("room", "greet", "{}").await;
    client.disconnect().await;
}

#[tokio::test]
async fn clients_without_websockets_are_served_over_tls() {
    let secured = Secured::start().await;
    let session = secured.server.fallback();
    let mut wire = secured.connect().await;
    wire.write(&session.request("POST", &format!("xhr_streaming?{}", session.query), b"")).await;
    let mut stream = Receiving::begin(wire).await;
    assert_eq!(stream.line().await, Some("h".repeat(2048)));
    stream.expect_line("o").await;
    stream.expect_message("pusher:connection_established").await;
    let body = array(&[json!({ "event": "pusher:ping" })]);
    let mut http = Http::new(secured.connect().await);
    assert_eq!(http.send(&session.request("POST", "xhr_send", body.as_bytes())).await.status, 204);
    stream.expect_message("pusher:pong").await;
    let polling = secured.server.fallback();
    let answer = http.send(&polling.request("POST", &format!("xhr?{}", polling.query), b"")).await;
    assert!(answer.body.starts_with("o\na["), "{}", answer.body);
}

#[tokio::test]
async fn clients_of_sockjs_are_served_over_tls() {
    let secured = Secured::start().await;
    let dial = secured.server.dial().path("/pusher/000/abc/websocket").query("");
    let mut client = dial.open_over(secured.connect().await).await;
    assert!(matches!(client.item().await, Item::Text(text) if text == "o"));
    let path = json!({ "path": format!("/app/{KEY}?protocol=7") });
    client.send(json!([path.to_string()])).await;
    assert!(matches!(client.item().await, Item::Text(text) if text.contains("pusher:connection_established")));
    client.send(json!([json!({ "event": "pusher:ping" }).to_string()])).await;
    assert!(matches!(client.item().await, Item::Text(text) if text.contains("pusher:pong")));
}

#[tokio::test]
async fn a_client_that_never_finishes_its_tls_handshake_delays_only_itself() {
    let secured = Secured::start().await;
    let mut held = Vec::new();
    for n in 0..20 {
        let mut wire = Wire::connect(secured.server.addr).await;
        wire.write(&b"\x16\x03\x01\x02\x00\x01"[..n % 7]).await;
        held.push(wire);
    }
    let mut plain = Wire::connect(secured.server.addr).await;
    let call = Call::post("/apps/42/events", &json!({}));
    let _ = plain.try_write(&call.bytes()).await;
    let mut client = secured.server.dial().open_over(secured.connect().await).await;
    client.greeting().await;
    client.subscribe("room").await;
    drop(held);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_tls_handshake_has_its_time() {
    let secured = Secured::start_with(|config| config.server.request_timeout = Duration::from_secs(1)).await;
    let mut silent = Wire::connect(secured.server.addr).await;
    let mut half = Wire::connect(secured.server.addr).await;
    half.write(b"\x16\x03\x01\x02\x00\x01").await;
    for wire in [&mut silent, &mut half] {
        within("end of a handshake that does not go on", wire.rest()).await;
    }
}
