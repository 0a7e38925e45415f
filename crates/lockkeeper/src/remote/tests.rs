//! A client and a daemon that says what a test tells it to.

use super::*;
use crate::{
    CallError, Inspect, List, Unavailable,
    wire::{self, Note, Subscribe},
};
use lockkeeper_core::{Answer, Command, Refusal, Resource, SessionId};
use serde_json::{Value, json};
use std::future::Future;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// The daemon's end of one connection.
pub(super) struct Daemon {
    lines: Lines<BufReader<OwnedReadHalf>>,
    to: OwnedWriteHalf,
}

impl Daemon {
    pub(super) async fn accept(listener: &UnixListener) -> Daemon {
        let (stream, _) = listener.accept().await.unwrap();
        let (from, to) = stream.into_split();
        Daemon { lines: BufReader::new(from).lines(), to }
    }

    pub(super) async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().expect("another line");
        serde_json::from_str(&line).unwrap()
    }

    async fn say(&mut self, value: Value) {
        self.to.write_all(format!("{value}\n").as_bytes()).await.unwrap();
    }

    pub(super) async fn answer(&mut self, to: &Value, result: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": to["id"], "result": result})).await;
    }

    async fn hello(&mut self, protocol: u32) {
        self.hello_at(protocol, 2).await;
    }

    /// Says hello with a clock that shows this.
    pub(super) async fn hello_at(&mut self, protocol: u32, now: u64) {
        let asked = self.next().await;
        assert_eq!(asked["method"], "hello");
        let hello = json!({
            "version": "0.0.7", "protocol": protocol, "pid": 7, "store": null,
            "started_at": 1, "now": now, "now_for_us": 0,
        });
        self.answer(&asked, hello).await;
    }
}

pub(super) struct Place {
    _dir: tempfile::TempDir,
    pub(super) address: Address,
    pub(super) listener: UnixListener,
}

pub(super) fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    Place { _dir: dir, address: Address::Unix(path), listener }
}

/// A client, and the other end of its connection.
async fn connected(place: &Place) -> (Client, Daemon) {
    let serve = async {
        let mut daemon = Daemon::accept(&place.listener).await;
        daemon.hello(PROTOCOL).await;
        daemon
    };
    let (client, daemon) = tokio::join!(Client::connect(&place.address), serve);
    (client.unwrap(), daemon)
}

/// What connecting comes to with a daemon that does this.
async fn refused_by<F: Future<Output = ()>>(
    place: &Place,
    daemon: impl FnOnce(Daemon) -> F,
) -> ConnectError {
    let serve = async { daemon(Daemon::accept(&place.listener).await).await };
    tokio::join!(Client::connect(&place.address), serve).0.unwrap_err()
}

fn is_unreachable(error: &CallError) -> bool {
    matches!(error, CallError::Unavailable(Unavailable::Unreachable(_)))
}

#[tokio::test]
async fn many_tasks_share_one_connection_and_each_hears_its_own_answer() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    assert_eq!((client.hello().pid, client.hello().protocol), (7, PROTOCOL));
    let asks: Vec<_> = (0..50)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                client.see("demo", Inspect { resource: Resource::file(&n.to_string()) }).await
            })
        })
        .collect();
    let mut heard = Vec::new();
    for _ in 0..50 {
        heard.push(daemon.next().await);
    }
    // Against the order in which they came.
    for asked in heard.iter().rev() {
        assert_eq!(
            (&asked["method"], &asked["params"]["project"]),
            (&"inspect".into(), &"demo".into())
        );
        let resource = &asked["params"]["resource"];
        let seen = json!({"resource": resource, "capacity": null, "holders": [], "queue": []});
        daemon.answer(asked, seen).await;
    }
    for (n, ask) in asks.into_iter().enumerate() {
        let seen = ask.await.unwrap().unwrap().expect("it is known");
        assert_eq!(seen.resource, Resource::file(&n.to_string()));
    }
}

#[tokio::test]
async fn an_answer_of_nothing_is_an_answer() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let serve = async {
        let asked = daemon.next().await;
        daemon.answer(&asked, Value::Null).await;
    };
    let inspect = Inspect { resource: Resource::file("a") };
    let (seen, ()) = tokio::join!(client.see("demo", inspect), serve);
    assert_eq!(seen.unwrap(), None);
}

#[tokio::test]
async fn a_command_travels_with_its_project_and_a_refusal_comes_back_whole() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let refusal = Refusal::SessionEnded { session: SessionId::from_u64(7) };
    let serve = async {
        let asked = daemon.next().await;
        assert_eq!(asked["method"], "cleanup_expired");
        assert_eq!(asked["params"], json!({"project": "demo"}));
        daemon.answer(&asked, json!("ticked")).await;
        let asked = daemon.next().await;
        assert_eq!(asked["params"], json!({"project": "demo", "agent": "a"}));
        let error = wire::ErrorObject::from(&CallError::Refused(refusal.clone()));
        daemon.say(json!({"jsonrpc": "2.0", "id": asked["id"], "error": error})).await;
    };
    let ask = async {
        let ticked = client.command("demo", Command::Tick).await;
        let refused =
            client.command("demo", lockkeeper_core::ReleaseAll { agent: "a".into() }).await;
        (ticked.unwrap(), refused.unwrap_err())
    };
    let ((ticked, refused), ()) = tokio::join!(ask, serve);
    assert_eq!(ticked, Answer::Ticked);
    assert!(matches!(refused, CallError::Refused(said) if said == refusal));
}

#[tokio::test]
async fn when_the_connection_is_gone_everybody_is_told() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let mut notes = client.notes();
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.see("demo", List {}).await });
    daemon.next().await;
    drop(daemon);
    assert!(is_unreachable(&waiting.await.unwrap().unwrap_err()));
    assert!(notes.next().await.is_none());
    assert!(client.ended().await.contains("closed"), "{}", client.ended().await);
    assert!(!client.is_connected());
    assert!(is_unreachable(&client.status().await.unwrap_err()));
    assert!(client.notes().next().await.is_none());
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_nothing_behind() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let mut call = Box::pin(client.see("demo", List {}));
    let asked = tokio::select! {
        _ = &mut call => panic!("nobody has answered"),
        asked = daemon.next() => asked,
    };
    drop(call);
    assert_eq!(client.waiting(), 0);
    daemon.answer(&asked, json!([])).await;
    // The late answer disturbs nobody.
    let serve = async {
        let asked = daemon.next().await;
        daemon.answer(&asked, json!(["one", "other"])).await;
    };
    let (projects, ()) = tokio::join!(client.projects(), serve);
    assert_eq!(projects.unwrap(), ["one", "other"]);
}

#[tokio::test]
async fn the_last_handle_closes_the_connection_behind_what_it_said() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let mut call = Box::pin(client.status());
    assert!(poll_once(&mut call).await.is_none());
    drop(call);
    drop(client);
    assert_eq!(daemon.next().await["method"], "daemon.status");
    assert_eq!(daemon.lines.next_line().await.unwrap(), None);
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn notes_are_heard_by_all_who_listen_and_events_may_be_missed() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let (mut one, mut other) = (client.notes(), client.notes());
    let serve = async {
        let asked = daemon.next().await;
        assert_eq!((&asked["method"], &asked["params"]["since"]), (&"subscribe".into(), &5.into()));
        daemon.answer(&asked, json!({"missed": 2})).await;
        daemon.say(json!({"jsonrpc": "2.0", "method": "from_the_future", "params": {}})).await;
        for seq in 1..=5_000 {
            let event = json!({
                "project_id": "demo", "seq": seq, "at": 9, "event": "session.ended", "session": 4,
                "agent_id": "a", "cause": "closed",
            });
            daemon.say(json!({"jsonrpc": "2.0", "method": "event", "params": event})).await;
        }
        let lost = json!({
            "project": "demo", "session": 4, "why": "expired",
            "lock": "0190b5a2-7c1e-7000-8000-000000000001",
        });
        daemon.say(json!({"jsonrpc": "2.0", "method": "lost", "params": lost})).await;
        let asked = daemon.next().await;
        daemon.answer(&asked, json!([])).await;
    };
    let ask = async {
        let since = Subscribe { project: Some("demo".into()), since: Some(5) };
        assert_eq!(client.subscribe(since).await.unwrap().missed, 2);
        client.projects().await.unwrap();
    };
    tokio::join!(ask, serve);
    let (mut events, mut missed) = (0, 0);
    let lost = loop {
        match one.next().await.unwrap() {
            Note::Event(event) => {
                events += 1;
                assert_eq!(event.event.seq, events + missed);
            }
            Note::Missed { missed: count } => missed += count,
            lost => break lost,
        }
    };
    assert!(matches!(lost, Note::Lost { why: crate::Lost::Expired, .. }), "{lost:?}");
    assert_eq!((events + missed, missed > 0), (5_000, true));
    assert!(matches!(other.try_next(), Some(Note::Event(_))));
}

#[tokio::test]
async fn why_there_is_no_connection_is_told_apart() {
    let place = place();
    let Address::Unix(path) = &place.address else { unreachable!() };
    let nowhere = Address::Unix(path.with_file_name("other"));
    let error = Client::connect(&nowhere).await.unwrap_err();
    assert!(error.is_nobody_there(), "{error:?}");

    let error = refused_by(&place, async |mut daemon| daemon.hello(PROTOCOL + 1).await).await;
    assert!(matches!(&error, ConnectError::OtherProtocol { version, protocol, .. }
        if version == "0.0.7" && *protocol == PROTOCOL + 1));
    assert!(error.to_string().contains("stop the daemon"), "{error}");

    let say = |code: i64, message: &str| {
        let error = json!({"code": code, "message": message});
        json!({"jsonrpc": "2.0", "id": null, "error": error})
    };
    let forbidden = say(wire::code::FORBIDDEN, "the token is wrong");
    // It closes without having read the hello.
    let error = refused_by(&place, async |mut daemon| daemon.say(forbidden).await).await;
    assert!(matches!(&error, ConnectError::Refused { said, .. } if said == "the token is wrong"));

    let full = say(wire::code::LIMIT, "1000 connections are open");
    let error = refused_by(&place, async |mut daemon| daemon.say(full).await).await;
    assert!(matches!(&error, ConnectError::Said { error, .. } if error.code == wire::code::LIMIT));

    let error = refused_by(&place, async |daemon| drop(daemon)).await;
    assert!(matches!(error, ConnectError::Io { .. }));

    let Place { _dir, address, listener } = place;
    drop(listener);
    let error = Client::connect(&address).await.unwrap_err();
    assert!(error.is_nobody_there(), "a socket that is left over: {error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_says_nothing_is_not_waited_for_without_end() {
    let place = place();
    let error = Client::connect(&place.address).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::TimedOut));
}

/// What the test below runs as another user: listens where anybody may, and hears nothing.
#[test]
fn as_another_users_daemon() {
    use std::io::Read;
    let Some(socket) = std::env::var_os("LOCKKEEPER_TEST_FOREIGN") else { return };
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::write(std::path::Path::new(&socket).with_extension("listens"), "").unwrap();
    let mut heard = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"", "nothing was said to a stranger");
}

#[tokio::test]
async fn another_users_daemon_is_not_trusted() {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};
    let may_switch = rustix::process::geteuid().is_root()
        && Command::new("setpriv").arg("--version").output().is_ok();
    if !may_switch {
        // Only root can become somebody else; `dial` tests the decision itself.
        return;
    }
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 0o1777);
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let socket = folder.path().join("it.sock");
    let mut child = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "remote::tests::as_another_users_daemon"])
        .env("LOCKKEEPER_TEST_FOREIGN", &socket)
        .spawn()
        .unwrap();
    while !socket.with_extension("listens").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it listened");
        tokio::task::yield_now().await;
    }
    let error = Client::connect(&Address::Unix(socket)).await.unwrap_err();
    assert!(matches!(error, ConnectError::ForeignDaemon { uid: 65534, .. }), "{error:?}");
    assert!(error.to_string().contains("use a socket in a folder"), "{error}");
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_daemon_that_does_not_speak_is_left() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    daemon.to.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert!(client.ended().await.contains("does not speak"));
}

#[tokio::test]
async fn long_lines_in_small_pieces_go_both_ways() {
    let place = place();
    let (client, mut daemon) = connected(&place).await;
    let long = "x".repeat(300_000);
    let agent: std::sync::Arc<str> = long.as_str().into();
    let serve = async {
        let asked = daemon.next().await;
        assert_eq!(asked["params"]["agent"].as_str().map(str::len), Some(300_000));
        let line = format!("{}\n", json!({"id": asked["id"], "result": "x".repeat(300_000)}));
        for piece in line.as_bytes().chunks(7_001) {
            daemon.to.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ask = client.call::<_, String>("metrics", json!({"agent": agent}));
    let (said, ()) = tokio::join!(ask, serve);
    assert_eq!(said.unwrap(), long);
}

#[test]
fn a_call_without_its_runtime_is_told_so() {
    let place_and_client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| {
            runtime.block_on(async {
                let place = place();
                let (client, daemon) = connected(&place).await;
                (place, client, daemon)
            })
        })
        .unwrap();
    let (_place, client, _daemon) = place_and_client;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(is_unreachable(&runtime.block_on(client.status()).unwrap_err()));
}

#[test]
fn a_token_is_never_shown() {
    let token = Some("secret".to_owned());
    let address = Address::Tcp { addr: "127.0.0.1:7".to_owned(), token };
    assert_eq!(format!("{address} {address:?}"), "127.0.0.1:7 Address(127.0.0.1:7)");
}
