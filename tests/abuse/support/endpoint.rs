//! A webhook endpoint that takes its time, and counts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::it::Wire;

/// An endpoint on a port of its own.
pub struct Endpoint {
    addr: SocketAddr,
    events: Arc<Mutex<HashMap<(String, String), u64>>>,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// One that answers after so long.
    pub async fn taking(time: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, events) = (listener.local_addr().unwrap(), Arc::default());
        let shared = Arc::clone(&events);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, time, Arc::clone(&shared)));
            }
        });
        Self { addr, events, task }
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.addr)
    }

    /// How often it was told this of this channel.
    pub fn count(&self, name: &str, channel: &str) -> u64 {
        self.events.lock().get(&(name.to_owned(), channel.to_owned())).copied().unwrap_or_default()
    }

    /// Events that it was told of.
    pub fn total(&self) -> u64 {
        self.events.lock().values().sum()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, time: Duration, events: Arc<Mutex<HashMap<(String, String), u64>>>) {
    let mut wire = Wire::over(stream);
    while let Some(head) = wire.head().await {
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body: Value = serde_json::from_slice(&wire.exactly(length.unwrap()).await).unwrap();
        tokio::time::sleep(time).await;
        for event in body["events"].as_array().unwrap() {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            *events.lock().entry((text("name"), text("channel"))).or_default() += 1;
        }
        if wire.try_write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}
