//! A line without an end, alone in its process, so that its memory can be looked at.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use lockkeeper::{Config, LockManager};
use lockkeeper_server::{Server, ServerConfig};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// The most memory this process ever had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_without_an_end_costs_no_more_than_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/it.sock");
    let manager = LockManager::in_memory(Config::in_memory());
    let server = Server::start(manager, ServerConfig::at(&socket)).await.unwrap();
    let running = tokio::spawn(server.run());
    let connect = async || UnixStream::connect(&socket).await.unwrap();
    let ping = async |stream: &mut UnixStream| {
        stream.write_all(b"{\"id\":1,\"method\":\"ping\"}\n").await.unwrap();
        let mut told = [0; 64];
        let asked = stream.read(&mut told);
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().unwrap()
    };
    let mut other = connect().await;
    ping(&mut other).await;
    let (read, mut write) = connect().await.into_split();
    let before = peak();
    let piece = vec![b'x'; 1 << 20];
    for at in 0..1024 {
        write.write_all(&piece).await.unwrap();
        if at % 128 == 0 {
            ping(&mut other).await;
        }
    }
    let mut read = BufReader::new(read);
    let mut told = String::new();
    read.read_line(&mut told).await.unwrap();
    assert!(told.contains("a line may have 1048576 bytes"), "{told}");
    write.write_all(b"\n{\"id\":7,\"method\":\"ping\"}\n").await.unwrap();
    told.clear();
    read.read_line(&mut told).await.unwrap();
    assert!(told.contains("\"id\":7"), "{told}");
    let grown = peak() - before;
    assert!(grown < 16 * 1024, "it took {grown} KiB");
    running.abort();
}
