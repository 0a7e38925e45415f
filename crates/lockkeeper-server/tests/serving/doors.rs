//! Who is let in, and who is told why not.

use crate::support::*;
use lockkeeper_server::{Limits, ServeError, Server, ServerConfig, TcpConfig, Token};
use serde_json::json;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
};

const SECRET: &str = "not to be guessed";

fn forbidden() -> i64 {
    lockkeeper::wire::code::FORBIDDEN
}

#[tokio::test]
async fn another_user_is_refused() {
    let place = Place::new();
    let nobody = ServerConfig { uids: vec![4_000_000_000], ..place.server() };
    let daemon = place.start_with(place.config(), nobody).await;
    let mut wire = daemon.connect().await;
    let told = wire.line().await.unwrap();
    assert_eq!(told["error"]["code"], forbidden());
    assert!(told["error"]["message"].as_str().unwrap().contains("may not use"), "{told}");
    assert!(wire.line().await.is_none(), "and that was all");
    daemon.stop().await;
}

/// What the test below runs as another user: tries to get in, and tells what it heard.
#[test]
fn as_another_user() {
    use std::io::{Read, Write};
    let Some(socket) = std::env::var_os("LOCKKEEPER_TEST_SOCKET") else { return };
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let _ = stream.write_all(b"{\"id\":1,\"method\":\"hello\"}\n");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert!(heard.contains("may not use this daemon"), "{heard}");
    assert!(!heard.contains("result"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_other_user_is_refused() {
    let may_switch = rustix::process::geteuid().is_root()
        && Command::new("setpriv").arg("--version").output().is_ok();
    if !may_switch {
        // Only root can become somebody else; the test above covers the decision itself.
        return;
    }
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 0o755);
    let place = Place::new();
    let socket = folder.path().join("open.sock");
    let config = ServerConfig::at(&socket);
    let daemon = place.start_with(place.config(), config).await;
    // Let the system's own checks be out of the way.
    open(&socket, 0o666);
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let run = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(&program);
        command.args(["--exact", "doors::as_another_user"]);
        command.env("LOCKKEEPER_TEST_SOCKET", &socket).current_dir("/").output().unwrap()
    };
    let output = tokio::task::block_in_place(|| run("65534"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    daemon.stop().await;
}

async fn on_tcp(place: &Place, token: Option<&str>, limits: Limits) -> Daemon {
    let token = token.map(|token| Token::new(token).unwrap());
    let addr = "127.0.0.1:0".parse().unwrap();
    let tcp = vec![TcpConfig { addr, token }];
    place.start_with(place.config(), ServerConfig { tcp, limits, ..place.server() }).await
}

#[tokio::test]
async fn over_tcp_the_token_comes_first() {
    let place = Place::new();
    let daemon = on_tcp(&place, Some(SECRET), Limits::default()).await;
    let addr = daemon.tcp[0];
    for first in [
        json!({"id": 1, "method": "ping"}),
        json!({"id": 1, "method": "hello"}),
        json!({"id": 1, "method": "hello", "params": {"token": "something else.."}}),
        json!({"id": 1, "method": "hello", "params": {"token": format!("{SECRET}!")}}),
        json!("nonsense"),
    ] {
        let mut wire = Wire::tcp(addr).await;
        let then = json!({"id": 2, "method": "session.open",
            "params": {"project": "p", "agent": "thief"}});
        wire.write(format!("{first}\n{then}\n").as_bytes()).await;
        let told = wire.line().await.unwrap();
        assert_eq!(told["error"]["code"], forbidden(), "{first}: {told}");
        assert!(wire.line().await.is_none(), "{first}: nothing more is answered");
    }
    let mut wire = Wire::tcp(addr).await;
    let hello = wire.call("hello", json!({"token": SECRET})).await.unwrap();
    assert_eq!(hello["protocol"], lockkeeper::wire::PROTOCOL);
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    let mut local = daemon.connect().await;
    assert_eq!(local.stats().await["sessions"], 1, "no thief got in");
    drop(wire);
    local.until_sessions(0).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_web_page_cannot_ask_for_anything() {
    let place = Place::new();
    let daemon = on_tcp(&place, None, Limits::default()).await;
    let mut wire = Wire::tcp(daemon.tcp[0]).await;
    let body = r#"{"id":1,"method":"hello"}"#;
    let then = r#"{"id":2,"method":"session.open","params":{"project":"p","agent":"page"}}"#;
    let post = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{body}\n{then}\n");
    wire.write(post.as_bytes()).await;
    assert_eq!(wire.line().await.unwrap()["error"]["code"], forbidden());
    assert!(wire.line().await.is_none());
    let mut wire = Wire::tcp(daemon.tcp[0]).await;
    wire.call("hello", json!({})).await.unwrap();
    assert_eq!(wire.stats().await["sessions"], 0);
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_does_not_say_hello_in_time_is_sent_away() {
    let place = Place::new();
    let limits = Limits { hello: Duration::from_millis(50), ..Limits::default() };
    let daemon = on_tcp(&place, Some(SECRET), limits).await;
    let mut wire = Wire::tcp(daemon.tcp[0]).await;
    let told = wire.line().await.unwrap();
    assert!(told["error"]["message"].as_str().unwrap().contains("hello"), "{told}");
    assert!(wire.line().await.is_none());
    daemon.stop().await;
}

#[tokio::test]
async fn the_network_is_not_listened_to_without_a_token() {
    let place = Place::new();
    let tcp = vec![TcpConfig { addr: "0.0.0.0:0".parse().unwrap(), token: None }];
    let config = ServerConfig { tcp, ..place.server() };
    let manager = lockkeeper::LockManager::in_memory(lockkeeper::Config::in_memory());
    let error = Server::start(manager, config).await.unwrap_err();
    assert!(matches!(error, ServeError::NeedsToken { .. }));
    assert!(!place.socket().exists(), "nothing was begun");
}

#[tokio::test]
async fn of_two_at_one_socket_the_second_is_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    let manager = lockkeeper::LockManager::in_memory(lockkeeper::Config::in_memory());
    let error = Server::start(manager, place.server()).await.unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    daemon.connect().await.call("ping", json!({})).await.unwrap();
    daemon.stop().await;
    assert!(!place.socket().exists());
    place.start().await.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let place = Place::new();
    let limits = Limits { connections: 3, ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = daemon.connect().await;
        wire.call("ping", json!({})).await.unwrap();
        wires.push(wire);
    }
    let mut fourth = daemon.connect().await;
    let told = fourth.line().await.unwrap();
    assert_eq!(told["error"]["code"], lockkeeper::wire::code::LIMIT, "{told}");
    assert_eq!(told["error"]["data"]["retryable"], true);
    assert!(fourth.line().await.is_none());
    wires.pop();
    wires[0].call("ping", json!({})).await.unwrap();
    loop {
        let mut wire = daemon.connect().await;
        if wire.try_write(b"{\"id\":1,\"method\":\"ping\"}\n").await.is_ok()
            && wire.line().await.is_some_and(|told| told.get("result").is_some())
        {
            break;
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_say_nothing_disturb_nobody() {
    let daemon = Place::new().start().await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(UnixStream::connect(daemon.place.socket()).await.unwrap());
    }
    let mut wire = daemon.connect().await;
    let session = wire.open("a").await;
    for _ in 0..100 {
        let held = wire.take(session, "file:x").await.unwrap();
        wire.release(session, &held).await.unwrap();
    }
    let status = wire.call("daemon.status", json!({})).await.unwrap();
    assert_eq!(status["connections"], 1_001);
    let mut last = Wire::new(silent.pop().unwrap());
    last.call("ping", json!({})).await.unwrap();
    drop(silent);
    while wire.call("daemon.status", json!({})).await.unwrap()["connections"] != 2 {
        tokio::task::yield_now().await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_connection_that_holds_nothing_and_says_nothing_is_closed() {
    let place = Place::new();
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let (mut idle, mut holder) = (daemon.connect().await, daemon.connect().await);
    let mut listener = daemon.connect().await;
    listener.call("subscribe", json!({})).await.unwrap();
    let session = holder.open("a").await;
    holder.take(session, "file:x").await.unwrap();
    let told = idle.line().await.unwrap();
    assert_eq!(told["error"]["code"], lockkeeper::wire::code::LIMIT, "{told}");
    assert!(idle.line().await.is_none());
    // Twice as long again: those two have something to lose.
    for _ in 0..3 {
        let mut idle = daemon.connect().await;
        idle.line().await.unwrap();
    }
    assert_eq!(holder.stats().await["holds"], 1);
    listener.call("ping", json!({})).await.unwrap();
    daemon.stop().await;
}

/// A byte now and then, and never a line: a connection that is kept open for nothing.
#[tokio::test]
async fn a_connection_that_only_drips_is_silent() {
    let place = Place::new();
    let limits = Limits { idle: Duration::from_millis(200), ..Limits::default() };
    let config = ServerConfig { limits, ..place.server() };
    let daemon = place.start_with(place.config(), config).await;
    let (read, mut write) = UnixStream::connect(place.socket()).await.unwrap().into_split();
    let drips = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut told = String::new();
    let mut read = BufReader::new(read);
    let all = read.read_to_string(&mut told);
    tokio::time::timeout(LONG, all).await.expect("it is cut").unwrap();
    assert!(told.contains("nothing was asked"), "{told}");
    drips.abort();
    daemon.stop().await;
}

#[tokio::test]
async fn a_tcp_connection_that_is_reset_ends_its_session() {
    let place = Place::new();
    let daemon = on_tcp(&place, Some(SECRET), Limits::default()).await;
    let stream = TcpStream::connect(daemon.tcp[0]).await.unwrap();
    #[allow(deprecated, reason = "blocking for no time at all is what a reset needs")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    let mut wire = Wire::new(stream);
    wire.call("hello", json!({"token": SECRET})).await.unwrap();
    let session = wire.open("a").await;
    wire.take(session, "file:x").await.unwrap();
    drop(wire);
    daemon.connect().await.until_sessions(0).await;
    daemon.stop().await;
}
