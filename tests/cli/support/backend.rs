//! A backend that takes webhooks, and answers all of them alike.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use super::DEADLINE;

/// It runs until the test process ends.
pub struct Backend {
    pub address: SocketAddr,
    requests: Receiver<Request>,
}

/// A request that arrived.
pub struct Request {
    pub head: String,
    pub body: Value,
}

impl Backend {
    /// A backend at this address; port 0 takes a free one. It answers with this status line and body.
    pub fn start(address: &str, status: &'static str, answer: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || while serve(&stream, status, answer, &sender).is_some() {});
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
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
fn serve(stream: &TcpStream, status: &str, answer: &str, sender: &std::sync::mpsc::Sender<Request>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    sender.send(Request { head, body: serde_json::from_slice(&body).ok()? }).ok()
}
