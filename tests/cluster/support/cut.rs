//! The network between one node and its Redis, and what can happen to it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::it::port::Port;

/// A TCP proxy. Whatever is cut stays silent: nothing is closed and nothing is lost, as in a network that drops packets
/// for a while. It arrives when the cut has healed.
pub struct Cut {
    port: Port,
    target: SocketAddr,
    flow: watch::Sender<Flow>,
    listening: Option<JoinHandle<()>>,
}

/// Which way bytes pass.
#[derive(Debug, Clone, Copy)]
struct Flow {
    to_redis: bool,
    to_node: bool,
}

const OPEN: Flow = Flow { to_redis: true, to_node: true };

impl Cut {
    /// A proxy in front of this address that lets everything through.
    pub fn before(target: SocketAddr) -> Self {
        let mut cut = Self { port: Port::free(), target, flow: watch::Sender::new(OPEN), listening: None };
        cut.listen();
        cut
    }

    /// The URL to configure.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr
    }

    /// Nothing passes any more, in either direction.
    pub fn cut(&self) {
        self.flow.send_replace(Flow { to_redis: false, to_node: false });
    }

    /// The node is no longer heard, but hears.
    pub fn mute(&self) {
        self.flow.send_replace(Flow { to_redis: false, to_node: true });
    }

    /// The node no longer hears, but is heard.
    pub fn deafen(&self) {
        self.flow.send_replace(Flow { to_redis: true, to_node: false });
    }

    /// Closes all connections. New ones are refused.
    pub async fn refuse(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
    }

    /// Closes all connections. New ones are taken.
    pub async fn sever(&mut self) {
        self.refuse().await;
        self.listen();
    }

    /// Everything passes again, what was held back first.
    pub fn heal(&mut self) {
        self.flow.send_replace(OPEN);
        if self.listening.is_none() {
            self.listen();
        }
    }

    fn listen(&mut self) {
        let accepting = accept(self.port.listen(), self.target, self.flow.subscribe());
        self.listening = Some(tokio::spawn(accepting));
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, flow: watch::Receiver<Flow>) {
    // Aborted together with this task.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(relay(stream, target, flow.clone()));
    }
}

/// One connection. When one side has closed, the other one is closed, too.
async fn relay(node: TcpStream, target: SocketAddr, flow: watch::Receiver<Flow>) {
    // A cut network lets nobody connect either.
    let mut open = flow.clone();
    if open.wait_for(|flow| flow.to_redis && flow.to_node).await.is_err() {
        return;
    }
    let Ok(redis) = TcpStream::connect(target).await else { return };
    for stream in [&node, &redis] {
        stream.set_nodelay(true).unwrap();
    }
    let ((from_node, to_node), (from_redis, to_redis)) = (node.into_split(), redis.into_split());
    tokio::select! {
        () = carry(from_node, to_redis, flow.clone(), |flow| flow.to_redis) => {}
        () = carry(from_redis, to_node, flow, |flow| flow.to_node) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    is_open: impl Fn(&Flow) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        // Asked after reading: what was read before a cut must not pass after it.
        if flow.wait_for(&is_open).await.is_err() || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
    // The end does not pass a cut, either.
    let _ = flow.wait_for(is_open).await;
}
