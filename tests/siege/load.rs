//! More of everything than anybody should ask for: it is borne, or refused in words, and whoever
//! asks for little does not notice. Afterwards nothing is left of it (I18).
//!
//! Memory is compared with itself, generously: what grows with each round would soon be far beyond.

use crate::{
    PATIENCE, PROJECT,
    daemon::Daemon,
    fence::Gates,
    proxy::Lie,
    witness::{World, is_at_rest, seconds},
};
use lockkeeper::{
    Acquire, AcquireAll, Answer, AskOptions, CallError, EndCause, EndSession, LockMode,
    OpenSession, Refusal, Resource, SessionId, SessionKind, Stats, StatsNow, remote::Client,
    wire::Open,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Whether there is time for all of it.
fn is_long() -> bool {
    seconds(0) >= Duration::from_secs(60)
}

/// The memory of a process, in KiB.
pub(crate) fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()));
    let status = status.expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The log of writes beside the store is bounded: SQLite takes it in as it goes.
pub(crate) fn assert_log_is_small(daemon: &Daemon) {
    let log = daemon.folder().join("locks.db-wal");
    let bytes = std::fs::metadata(&log).map_or(0, |file| file.len());
    assert!(bytes < 64 << 20, "the log of writes has {bytes} bytes");
}

pub(crate) fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// Lets as many files be open as the system allows, and says how many connections that is.
fn room_for_connections(wanted: usize) -> usize {
    use rustix::process::{Resource as Bound, getrlimit, setrlimit};
    let mut files = getrlimit(Bound::Nofile);
    files.current = files.maximum;
    let _ = setrlimit(Bound::Nofile, files);
    let files = getrlimit(Bound::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(files / 4 * 3).unwrap_or(usize::MAX);
    if room < wanted {
        println!("the system lets {files} files be open: {room} connections, not {wanted}");
    }
    room.min(wanted)
}

pub(crate) async fn client(daemon: &Daemon) -> Client {
    Client::connect(&daemon.address()).await.expect("the daemon is there")
}

pub(crate) async fn open(client: &Client, agent: &str, kind: SessionKind) -> SessionId {
    let open = OpenSession { agent: agent.into(), kind, ..OpenSession::default() };
    client.open(PROJECT, Open { open, ..Open::default() }).await.expect("a session")
}

/// Long enough for a machine that has other things to do.
const LONG: Duration = Duration::from_secs(24 * 3600);

async fn ask(client: &Client, session: SessionId, name: &str) -> Result<Answer, CallError> {
    let slice = Some(Duration::ZERO);
    let options =
        AskOptions { slice, wait: Some(LONG), lease: Some(LONG), ..AskOptions::default() };
    let (resource, mode) = (Resource::file(name), LockMode::Exclusive);
    client.command(PROJECT, Acquire { session, resource, mode, options }).await
}

async fn end(client: &Client, session: SessionId) {
    let end = EndSession { session, cause: EndCause::Closed };
    client.command(PROJECT, end).await.expect("it was there");
}

pub(crate) async fn stats(client: &Client) -> Stats {
    client.see(PROJECT, StatsNow {}).await.expect("a view")
}

/// Waits until the table is as it should be: what others left behind may take its time.
async fn until(client: &Client, is_so: impl Fn(&Stats) -> bool) {
    until_within(client, PATIENCE, is_so).await;
}

pub(crate) async fn until_within(
    client: &Client,
    patience: Duration,
    is_so: impl Fn(&Stats) -> bool,
) {
    let asked = Instant::now();
    loop {
        let now = stats(client).await;
        if is_so(&now) {
            return;
        }
        assert!(asked.elapsed() < patience, "it stays at {now:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn is_empty(stats: &Stats) -> bool {
    *stats == Stats::default()
}

/// Somebody who asks for little: a lock of its own, and gives it back.
async fn takes_its_turn(client: &Client, name: &str) {
    let session = open(client, name, SessionKind::Attached).await;
    match timeout(PATIENCE, ask(client, session, name)).await.expect("an answer") {
        Ok(Answer::Granted(_)) => {}
        other => panic!("{other:?}"),
    }
    end(client, session).await;
}

/// Clients that are killed and cut off for as long as it takes: neither memory nor the log of
/// writes grows, and in the end there is nothing left. 64 of them where there is time.
#[test]
fn killed_clients_leave_nothing_behind() {
    let (processes, pace) = if is_long() { (16, 40) } else { (3, 10) };
    let mut world = World::paced(true, processes, Gates::Right, Lie::None, pace);
    world.spares_the_daemon = true;
    let (started, long) = (Instant::now(), seconds(8));
    let mut samples = Vec::new();
    while started.elapsed() < long {
        std::thread::sleep(Duration::from_millis(if is_long() { 250 } else { 50 }));
        world.torment();
        samples.push(memory(world.daemon.as_ref().expect("it is there")));
    }
    world.finish();
    let daemon = world.daemon.as_ref().expect("it is there");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(is_at_rest(daemon.address()));
    assert_log_is_small(daemon);
    let quarter = samples.len() / 4;
    let middle = median(samples[quarter..2 * quarter].to_vec());
    let last = median(samples[3 * quarter..].to_vec());
    let store = std::fs::metadata(daemon.folder().join("locks.db")).map_or(0, |file| file.len());
    println!(
        "{} agents for {long:?}: the daemon had {middle} KiB in the second quarter, {last} KiB in \
         the last one; {store} bytes of history",
        processes * 4
    );
    assert!(last < middle + middle / 4 + 16 * 1024, "from {middle} to {last} KiB");
    world.must_be_right();
}

/// As many connections as there may be, each of which has asked for something: served, and gone
/// when they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_are_served() {
    let wanted = room_for_connections(10_000);
    let daemon = Daemon::start();
    let other = client(&daemon).await;
    let before = memory(&daemon);
    let mut open = Vec::new();
    for _ in 0..wanted {
        let stream = UnixStream::connect(daemon.socket()).await.expect("there is room");
        open.push(BufReader::new(stream));
        // A socket has a queue of its own: whoever comes too fast is turned away by the system.
        if open.len() % 100 == 0 {
            ping(open.last_mut().expect("one")).await;
        }
    }
    for stream in &mut open {
        ping(stream).await;
    }
    let status = other.status().await.expect("an answer");
    assert_eq!(status.connections, wanted + 1);
    takes_its_turn(&other, "beside-them").await;
    let most = memory(&daemon);
    drop(open);
    let asked = Instant::now();
    while other.status().await.expect("an answer").connections > 1 {
        assert!(asked.elapsed() < PATIENCE, "they stay");
        sleep(Duration::from_millis(10)).await;
    }
    let per = (most - before.min(most)) / wanted as u64;
    println!("{wanted} connections: {before} KiB before, {most} KiB with them, {per} KiB each");
    assert!(per < 64, "{per} KiB for a connection that does nothing");
    takes_its_turn(&other, "after-them").await;
    until(&other, is_empty).await;
}

async fn ping(stream: &mut BufReader<UnixStream>) {
    stream.write_all(b"{\"id\":1,\"method\":\"ping\"}\n").await.expect("it listens");
    let mut told = String::new();
    timeout(PATIENCE, stream.read_line(&mut told)).await.expect("an answer").expect("text");
    assert!(told.contains("\"result\""), "{told}");
}

/// Many tickets of sessions that nobody is connected to: half of them are cancelled, the others go
/// with their sessions. Twice more, and it costs no more memory than before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_tickets_come_and_go() {
    let (sessions, each) = if is_long() { (100, 1_000) } else { (20, 100) };
    let daemon = Daemon::start();
    let holder = client(&daemon).await;
    let mut memories = Vec::new();
    for round in 0..3 {
        let held = open(&holder, "holder", SessionKind::Detached).await;
        for nth in 0..each {
            let granted = ask(&holder, held, &format!("wanted-{nth}")).await;
            assert!(matches!(granted, Ok(Answer::Granted(_))), "{granted:?}");
        }
        let began = Instant::now();
        // One after the other: whoever waits in several queues, and in another order than the next
        // one, is a deadlock, and would be told so.
        let mut asked = Vec::new();
        for nth in 0..sessions {
            let client = client(&daemon).await;
            let session = open(&client, &format!("agent-{nth}"), SessionKind::Detached).await;
            let ask = |nth: usize| {
                let resource = format!("file:wanted-{nth}");
                json!({"project": PROJECT, "session": session, "resource": resource, "slice_ms": 0,
                    "wait_ms": 3_600_000})
            };
            let told = all_at_once(&daemon, "acquire", (0..each).map(ask).collect()).await;
            let ticket = |told: &Value| match told["result"]["queued"]["ticket"].as_u64() {
                Some(ticket) => ticket,
                None => panic!("{told}"),
            };
            let tickets: Vec<u64> = told.iter().map(ticket).collect();
            // It goes; its places stay.
            asked.push((session, tickets));
        }
        let now = stats(&holder).await;
        // One that nobody asks about leaves after two minutes: on a slow machine some have.
        let is_early = || began.elapsed() < Duration::from_secs(100);
        if is_early() {
            assert_eq!((now.tickets, now.holds), (sessions * each, each));
        }
        let most = memory(&daemon);
        takes_its_turn(&holder, "beside-them").await;
        for (nth, (session, tickets)) in asked.into_iter().enumerate() {
            if nth % 2 == 0 {
                let cancel =
                    |ticket: u64| json!({"project": PROJECT, "session": session, "ticket": ticket});
                let cancels = tickets.into_iter().map(cancel).collect();
                for told in all_at_once(&daemon, "cancel", cancels).await {
                    let is_gone = told["error"]["data"]["code"] == "unknown" && !is_early();
                    assert!(told["error"].is_null() || is_gone, "{told}");
                }
            }
            end(&holder, session).await;
        }
        assert_eq!(stats(&holder).await.tickets, 0);
        end(&holder, held).await;
        until(&holder, is_empty).await;
        assert_log_is_small(&daemon);
        memories.push(memory(&daemon));
        println!(
            "round {round}: {most} KiB with {} tickets, {} KiB without",
            now.tickets, memories[round]
        );
    }
    let (first, last) = (memories[0], memories[2]);
    assert!(last < first + first / 4 + 16 * 1024, "from {first} to {last} KiB");
}

/// Asks for many things on one connection, and then reads what all of them gave.
async fn all_at_once(daemon: &Daemon, method: &str, all: Vec<Value>) -> Vec<Value> {
    let stream = UnixStream::connect(daemon.socket()).await.expect("there is room");
    let (read, mut write) = stream.into_split();
    let mut lines = String::new();
    for params in &all {
        lines += &format!("{}\n", json!({"id": 1, "method": method, "params": params}));
    }
    let asking = tokio::spawn(async move {
        write.write_all(lines.as_bytes()).await.expect("it listens");
        write
    });
    let mut read = BufReader::new(read).lines();
    let mut told = Vec::new();
    for _ in 0..all.len() {
        let line = timeout(PATIENCE, read.next_line()).await.expect("an answer").expect("text");
        told.push(serde_json::from_str(&line.expect("an answer")).expect("JSON"));
    }
    drop(asking.await.expect("it was all written"));
    told
}

/// Clients that ask for a lock and are gone before they are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_and_abandons_leaves_nothing() {
    let rounds = if is_long() { 20_000 } else { 600 };
    let daemon = Daemon::start();
    let other = client(&daemon).await;
    let held = open(&other, "holder", SessionKind::Attached).await;
    assert!(matches!(ask(&other, held, "wanted").await, Ok(Answer::Granted(_))));
    let mut memories = Vec::new();
    for nth in 0..rounds {
        let mut stream = UnixStream::connect(daemon.socket()).await.expect("there is room");
        let params = json!({"project": PROJECT, "agent": "gone"});
        let open = json!({"id": 1, "method": "session.open", "params": params});
        stream.write_all(format!("{open}\n").as_bytes()).await.expect("it listens");
        if nth % 3 > 0 {
            // Some have a session, and wait, and some hold something.
            let mut stream = BufReader::new(stream);
            let mut told = String::new();
            stream.read_line(&mut told).await.expect("an answer");
            let told: Value = serde_json::from_str(&told).expect("JSON");
            let session = &told["result"]["session_opened"]["session"];
            for name in ["file:wanted".to_owned(), format!("file:own-{nth}")] {
                let params = json!({"project": PROJECT, "session": session, "resource": name});
                let ask = json!({"id": 2, "method": "acquire", "params": params});
                stream.write_all(format!("{ask}\n").as_bytes()).await.expect("it listens");
            }
            if nth % 3 > 1 {
                told_anything(&mut stream).await;
            }
        }
        if nth % (rounds / 10) == 0 {
            memories.push(memory(&daemon));
        }
    }
    until(&other, |stats| stats.sessions == 1 && stats.holds == 1 && stats.tickets == 0).await;
    end(&other, held).await;
    until(&other, is_empty).await;
    let (middle, last) = (memories[5], memory(&daemon));
    println!("{rounds} abandoned: {middle} KiB in the middle, {last} KiB at the end");
    assert!(last < middle + middle / 4 + 16 * 1024, "from {middle} to {last} KiB");
}

async fn told_anything(stream: &mut BufReader<UnixStream>) {
    let mut told = String::new();
    timeout(PATIENCE, stream.read_line(&mut told)).await.expect("an answer").expect("text");
}

/// Clients that say one byte now and then. Those over HTTP are cut off when the head of their
/// request takes too long; meanwhile everybody else is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drips_disturbs_nobody_and_is_cut() {
    let daemon = Daemon::start_with(&["--http", "127.0.0.1:0"]);
    let said = daemon.said();
    let http = said["http"][0].as_str().expect("an address").to_owned();
    let mut dripping = JoinSet::new();
    let mut quiet = Vec::new();
    for nth in 0..100 {
        let stream = TcpStream::connect(&http).await.expect("it listens");
        let (mut read, mut write) = stream.into_split();
        let drips = tokio::spawn(async move {
            let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
            for byte in head.iter().chain(std::iter::repeat(&b'x')) {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(100 + nth)).await;
            }
        });
        dripping.spawn(async move {
            let mut told = Vec::new();
            // It is told why, or hears nothing; it is over in any case.
            let _ = read.read_to_end(&mut told).await;
            drips.abort();
        });
        // And as many that drip lines, which is nobody's trouble for a quarter of an hour.
        let mut stream = UnixStream::connect(daemon.socket()).await.expect("there is room");
        stream.write_all(b"{\"id\":").await.expect("it listens");
        quiet.push(stream);
    }
    let other = client(&daemon).await;
    let served = Instant::now();
    let mut turns = 0;
    let all = async { while dripping.join_next().await.is_some() {} };
    tokio::pin!(all);
    loop {
        tokio::select! {
            () = &mut all => break,
            () = takes_its_turn(&other, "beside-them") => turns += 1,
        }
        assert!(served.elapsed() < PATIENCE, "they are never cut");
        sleep(Duration::from_millis(5)).await;
    }
    println!("{turns} turns beside them");
    assert!(turns > 0, "nobody was served beside them");
    drop(quiet);
    until(&other, |stats| stats.tickets == 0 && stats.holds == 0).await;
}

/// What is too large is refused in words that say so, and the next request is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_told_so() {
    let daemon = Daemon::start();
    let (greedy, other) = (client(&daemon).await, client(&daemon).await);
    let session = open(&greedy, "greedy", SessionKind::Attached).await;
    let text = |bytes: usize| "x".repeat(bytes);
    let asks = |options: AskOptions, name: &str| {
        let (resource, mode) = (Resource::file(name), LockMode::Exclusive);
        Acquire { session, resource, mode, options }
    };
    let refused = async |told: Result<Answer, CallError>, code: &str| {
        let told = told.expect_err("it is too large");
        assert!(matches!(told, CallError::Refused(_)), "{told:?}");
        assert_eq!(told.code(), code, "{told}");
        assert!(told.to_string().len() < 4_096, "a refusal that is too large itself");
        takes_its_turn(&other, "beside-it").await;
    };
    let name = OpenSession { agent: text(64 * 1024 + 1).into(), ..OpenSession::default() };
    let told = greedy.open(PROJECT, Open { open: name, ..Open::default() }).await;
    assert_eq!(told.expect_err("it is too large").code(), "limit_reached");
    let reason = AskOptions { reason: Some(text(64 * 1024 + 1).into()), ..AskOptions::default() };
    refused(greedy.command(PROJECT, asks(reason, "a")).await, "limit_reached").await;
    let metadata =
        AskOptions { metadata: Some(text(64 * 1024 + 1).into()), ..AskOptions::default() };
    refused(greedy.command(PROJECT, asks(metadata, "a")).await, "limit_reached").await;
    let key = asks(AskOptions::default(), &text(16 * 1024 + 1));
    refused(greedy.command(PROJECT, key).await, "invalid_resource").await;
    let wants =
        (0..1_001).map(|nth| (Resource::file(&nth.to_string()), LockMode::Exclusive)).collect();
    let batch = AcquireAll { session, wants, options: AskOptions::default() };
    refused(greedy.command(PROJECT, batch).await, "limit_reached").await;
    // A session may wait for so much and no more.
    let held = open(&other, "holder", SessionKind::Attached).await;
    for nth in 0..1_001 {
        let name = format!("taken-{nth}");
        assert!(matches!(ask(&other, held, &name).await, Ok(Answer::Granted(_))));
        let told = ask(&greedy, session, &name).await;
        match nth {
            0..1_000 => assert!(matches!(told, Ok(Answer::Queued { .. })), "{told:?}"),
            _ => refused(told, "limit_reached").await,
        }
    }
    // A line that is longer than any request is told so before its end, and the next one is heard.
    let mut stream = BufReader::new(UnixStream::connect(daemon.socket()).await.expect("room"));
    stream.write_all(text(2 << 20).as_bytes()).await.expect("it listens");
    let mut told = String::new();
    timeout(PATIENCE, stream.read_line(&mut told)).await.expect("an answer").expect("text");
    assert!(told.contains("a line may have"), "{told}");
    stream.write_all(b"\n").await.expect("it listens");
    ping(&mut stream).await;
    end(&greedy, session).await;
    end(&other, held).await;
    until(&other, is_empty).await;
}

/// One queue, as long as it may be, and the one who comes after that. Takes long; where there is no
/// time for it the table's own tests must do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_queue_is_bounded() {
    // Beyond this many one by one is too slow for a short run, and what is bounded is the table.
    let length = if is_long() { 100_000 } else { 1_000 };
    let daemon = Daemon::start();
    let other = client(&daemon).await;
    let held = open(&other, "holder", SessionKind::Attached).await;
    assert!(matches!(ask(&other, held, "wanted").await, Ok(Answer::Granted(_))));
    let mut crowd = Vec::new();
    // A connection may have so many waits and no more.
    let each = length.min(1_000);
    for part in 0..length / each {
        crowd.push(queue_up(&daemon, part, each).await);
    }
    until_within(&other, 4 * PATIENCE, |stats| stats.tickets == length).await;
    if length == 100_000 {
        let late = open(&other, "late", SessionKind::Detached).await;
        match ask(&other, late, "wanted").await {
            Err(CallError::Refused(Refusal::QueueFull { limit, .. })) => assert_eq!(limit, length),
            told => panic!("{told:?}"),
        }
        end(&other, late).await;
    }
    println!("{length} wait for one: {} KiB", memory(&daemon));
    takes_its_turn(&other, "beside-them").await;
    drop(crowd);
    end(&other, held).await;
    until_within(&other, 4 * PATIENCE, is_empty).await;
    println!("and then none: {} KiB", memory(&daemon));
}

/// A connection with many agents, each of which waits for the same.
async fn queue_up(daemon: &Daemon, part: usize, count: usize) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(daemon.socket()).await.expect("there is room");
    let mut stream = BufReader::new(stream);
    let line = |method: &str, params: Value| {
        format!("{}\n", json!({"id": 1, "method": method, "params": params}))
    };
    let open = |nth| json!({"project": PROJECT, "agent": format!("agent-{part}-{nth}")});
    let all: String = (0..count).map(|nth| line("session.open", open(nth))).collect();
    stream.write_all(all.as_bytes()).await.expect("it listens");
    let mut asks = String::new();
    for _ in 0..count {
        let mut told = String::new();
        timeout(PATIENCE, stream.read_line(&mut told)).await.expect("an answer").expect("text");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let session = &told["result"]["session_opened"]["session"];
        let ask = json!({"project": PROJECT, "session": session, "resource": "file:wanted",
            "wait_ms": 3_600_000});
        asks += &line("acquire", ask);
    }
    stream.write_all(asks.as_bytes()).await.expect("it listens");
    stream
}
