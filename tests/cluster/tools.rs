//! The tests' own tools do what the other tests rely on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Cut, PATIENCE, Redis, RedisCluster, Sentinels, eventually_true};

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// Whether Redis answers a ping over this connection, in half a second.
async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(PING).await.unwrap();
    let mut answer = [0; PONG.len()];
    match tokio::time::timeout(Duration::from_millis(500), stream.read_exact(&mut answer)).await {
        Ok(read) => read.is_ok() && answer == *PONG,
        Err(_) => false,
    }
}

#[tokio::test]
async fn redis_keeps_what_it_has_saved_and_nothing_else() {
    let mut redis = Redis::start();
    let addr = redis.addr();
    assert_eq!(redis.cli(&["SET", "key", "value"]), "OK");
    redis.restart_with_data();
    assert_eq!(redis.cli(&["GET", "key"]), "value");
    redis.restart_empty();
    assert_eq!(redis.cli(&["GET", "key"]), "");
    redis.stop();
    assert!(TcpStream::connect(addr).await.is_err());
    redis.come_back();
    assert_eq!(redis.addr(), addr);
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[tokio::test]
async fn a_frozen_redis_says_nothing_until_it_is_thawed() {
    let redis = Redis::start();
    let mut stream = TcpStream::connect(redis.addr()).await.unwrap();
    assert!(answers(&mut stream).await);
    redis.freeze();
    assert!(!answers(&mut stream).await);
    redis.thaw();
    let mut late = [0; PONG.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut late)).await.expect("it answers late").unwrap();
    assert!(answers(&mut stream).await);
}

#[tokio::test]
async fn a_cut_is_silent_and_loses_nothing() {
    let redis = Redis::start();
    let mut cut = Cut::before(redis.addr());
    let mut stream = TcpStream::connect(cut.addr()).await.unwrap();
    assert!(answers(&mut stream).await);
    for way in [Cut::cut, Cut::mute, Cut::deafen] {
        way(&cut);
        assert!(!answers(&mut stream).await);
        cut.heal();
        let mut late = [0; PONG.len()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut late)).await.expect("what was held back").unwrap();
        assert!(answers(&mut stream).await);
    }
}

#[tokio::test]
async fn a_muted_node_still_hears_and_a_deaf_one_is_still_heard() {
    let redis = Redis::start();
    let mut cut = Cut::before(redis.addr());
    let mut stream = TcpStream::connect(cut.addr()).await.unwrap();
    stream.write_all(b"SUBSCRIBE news\r\n").await.unwrap();
    let mut subscribed = *b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    stream.read_exact(&mut subscribed).await.unwrap();
    cut.mute();
    assert_eq!(redis.cli(&["PUBLISH", "news", "x"]), "1");
    let mut message = *b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n";
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut message)).await.expect("it hears").unwrap();
    cut.heal();
    let mut other = TcpStream::connect(cut.addr()).await.unwrap();
    assert!(answers(&mut other).await);
    cut.deafen();
    other.write_all(b"SET key value\r\n").await.unwrap();
    eventually_true("the key is there", PATIENCE, async || redis.cli(&["GET", "key"]) == "value").await;
}

#[tokio::test]
async fn a_proxy_can_refuse_and_sever() {
    let redis = Redis::start();
    let mut cut = Cut::before(redis.addr());
    let mut stream = TcpStream::connect(cut.addr()).await.unwrap();
    assert!(answers(&mut stream).await);
    cut.refuse().await;
    assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(1..)));
    assert!(TcpStream::connect(cut.addr()).await.is_err());
    cut.heal();
    let mut stream = TcpStream::connect(cut.addr()).await.unwrap();
    assert!(answers(&mut stream).await);
    cut.sever().await;
    assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(1..)));
    assert!(answers(&mut TcpStream::connect(cut.addr()).await.unwrap()).await);
}

#[tokio::test]
async fn redis_cluster_spreads_its_keys() {
    let cluster = RedisCluster::start().await;
    let owners = (0..30).filter(|number| {
        let answer = cluster.masters[0].cli(&["SET", &format!("key-{number}"), "value"]);
        assert!(answer == "OK" || answer.starts_with("MOVED "), "{answer}");
        answer == "OK"
    });
    let own = owners.count();
    assert!(own > 0 && own < 30, "{own} of 30 keys on the first of three masters");
}

#[tokio::test]
async fn sentinels_replace_a_lost_master_and_keep_its_data() {
    let mut sentinels = Sentinels::start().await;
    assert_eq!(sentinels.servers[0].cli(&["SET", "key", "value"]), "OK");
    assert_eq!(sentinels.servers[0].cli(&["WAIT", "1", "5000"]), "1");
    sentinels.fail_over().await;
    assert_eq!(sentinels.servers[1].cli(&["GET", "key"]), "value");
    assert_eq!(sentinels.servers[1].cli(&["SET", "key", "other"]), "OK");
}
