//! A server that takes webhooks and other requests, and answers all of them alike.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rcgen::{CertifiedKey, KeyPair};
use serde_json::Value;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::DEADLINE;

/// It runs until the test process ends.
pub struct Backend {
    pub address: SocketAddr,
    scheme: &'static str,
    requests: Receiver<Request>,
}

/// A request that arrived.
pub struct Request {
    pub head: String,
    /// JSON; null if there is none.
    pub body: Value,
}

impl Backend {
    /// A backend at this address; port 0 takes a free one. It answers with this status line and body.
    pub fn start(address: &str, status: &'static str, answer: &'static str) -> Self {
        Self::accept(
            address,
            "http",
            move |mut stream, sender| {
                while serve(&mut stream, status, answer, sender).is_some() {}
            },
        )
    }

    /// The same over TLS, with a certificate for 127.0.0.1.
    pub fn start_tls(certificate: &CertifiedKey<KeyPair>) -> Self {
        let key = PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Self::accept("127.0.0.1:0", "https", move |stream, sender| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            while serve(&mut stream, "200 OK", "", sender).is_some() {}
        })
    }

    fn accept(
        address: &str,
        scheme: &'static str,
        talk: impl Fn(TcpStream, &Sender<Request>) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, talk) = (sender.clone(), talk.clone());
                thread::spawn(move || talk(stream, &sender));
            }
        });
        Self { address, scheme, requests }
    }

    pub fn url(&self) -> String {
        format!("{}://{}/hook", self.scheme, self.address)
    }

    /// The next request.
    #[track_caller]
    pub fn request(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no webhook arrived within {DEADLINE:?}"))
    }
}

impl Request {
    /// A header's value.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let of_name = |line: &&str| line.to_lowercase().starts_with(&format!("{name}:"));
        let line = self.head.lines().find(of_name).unwrap_or_else(|| panic!("no {name} in {}", self.head));
        line[name.len() + 1..].trim()
    }
}

/// One request on a connection; `None` when there is none.
fn serve(stream: &mut (impl Read + Write), status: &str, answer: &str, sender: &Sender<Request>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let length = length.unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    stream.flush().ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).ok()? };
    sender.send(Request { head, body }).ok()
}
