//! What the wire costs: `cargo bench -p lockkeeper-server --bench wire`.
//!
//! Pairs of acquire and release, each answered, over a Unix socket beside the same in one process:
//! by clients that write and read bare lines, and by the library's handles. All keep their locks in
//! memory, so that it is the way that is measured and not the disk; with `-- durable` all write
//! them to one. Figures are medians of rounds, with the quarters; the CPU is that of one thread.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails is not one")]

use lockkeeper::{Config, LockManager, Resource, Session, wire::Open};
use lockkeeper_core::OpenSession;
use lockkeeper_server::{Server, ServerConfig};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const ROUND: Duration = Duration::from_millis(500);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds = if words.iter().any(|word| word == "--test") { 1 } else { 7 };
    let is_durable = words.iter().any(|word| word == "durable");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("pairs/s, one process beside a socket (its clients share the machine with it)");
    for clients in [1, 16, 64] {
        let (mut inside, mut lines, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let folder = tempfile::tempdir().unwrap();
            inside.push(runtime.block_on(embedded(manager(folder.path(), is_durable), clients)));
            let folder = tempfile::tempdir().unwrap();
            lines.push(served(folder.path(), is_durable, clients, Client::Lines));
            let folder = tempfile::tempdir().unwrap();
            handles.push(served(folder.path(), is_durable, clients, Client::Handles));
        }
        println!("  {clients:>3} connections   embedded {}", quarters(inside.iter().copied(), 0));
        for (what, figures) in [("bare lines", lines), ("handles", handles)] {
            let ratio = inside.iter().zip(&figures).map(|(one, two)| two.rate / one);
            println!(
                "      {what:<12} {}   ratio {}   µs of CPU a pair: server {}, clients {}",
                quarters(figures.iter().map(|one| one.rate), 0),
                quarters(ratio, 2),
                quarters(figures.iter().map(|one| one.server), 1),
                quarters(figures.iter().map(|one| one.client), 1)
            );
        }
    }
}

/// What is at the other end of the socket.
#[derive(Clone, Copy)]
enum Client {
    /// As little as can be.
    Lines,
    /// A manager each.
    Handles,
}

/// Pairs a second, and microseconds of CPU a pair.
struct Served {
    rate: f64,
    server: f64,
    client: f64,
}

async fn manager(folder: &Path, is_durable: bool) -> LockManager {
    match is_durable {
        true => LockManager::open(folder.join("locks.db")).await.unwrap(),
        false => LockManager::in_memory(Config::in_memory()),
    }
}

async fn embedded(manager: impl Future<Output = LockManager>, clients: usize) -> f64 {
    let manager = manager.await;
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..clients {
        tasks.spawn(pairs(manager.session("bench", &format!("agent-{at}")).await.unwrap(), at));
    }
    tasks.join_all().await.iter().sum()
}

async fn handles(socket: PathBuf, at: usize) -> f64 {
    let manager = LockManager::connect(socket).await.unwrap();
    pairs(manager.session("bench", &format!("agent-{at}")).await.unwrap(), at).await
}

async fn pairs(session: Session, at: usize) -> f64 {
    let name = Resource::file(&format!("own/{at}"));
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < ROUND {
        session.acquire(name.clone()).await.unwrap().release().await.unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// The server and its clients each have a runtime of one thread, as processes of their own would.
fn served(folder: &Path, is_durable: bool, clients: usize, kind: Client) -> Served {
    let one_thread = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = folder.join("run/it.sock");
    std::thread::scope(|scope| {
        let (started, is_started) = std::sync::mpsc::channel();
        let path = &socket;
        let thread = std::thread::Builder::new().name("server".to_owned());
        let serve = move || {
            one_thread().block_on(async {
                let manager = manager(folder, is_durable).await;
                let server = Server::start(manager, ServerConfig::at(path)).await.unwrap();
                started.send(server.stopper()).unwrap();
                server.run().await;
                busy()
            })
        };
        let server = thread.spawn_scoped(scope, serve).unwrap();
        let stopper = is_started.recv().unwrap();
        let before = busy();
        let rate: f64 = one_thread().block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for at in 0..clients {
                match kind {
                    Client::Lines => tasks.spawn(lines(path.clone(), at)),
                    Client::Handles => tasks.spawn(handles(path.clone(), at)),
                };
            }
            tasks.join_all().await.iter().sum()
        });
        let pairs = rate * ROUND.as_secs_f64();
        let client = (busy() - before) / pairs;
        stopper.stop();
        Served { rate, server: server.join().unwrap() / pairs, client }
    })
}

/// How long this thread has run, in microseconds, where the system tells.
fn busy() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.map_or(f64::NAN, |nanos| nanos / 1000.0)
}

async fn lines(socket: PathBuf, at: usize) -> f64 {
    let (read, mut write) = UnixStream::connect(socket).await.unwrap().into_split();
    let mut read = BufReader::new(read);
    let mut told = String::new();
    let mut line = Vec::new();
    let open = OpenSession { agent: format!("agent-{at}").into(), ..OpenSession::default() };
    let open = Open { open, ..Open::default() };
    let params = lockkeeper::wire::InProject { project: "bench", params: open };
    lockkeeper::wire::write_line(0, "session.open", params, &mut line).unwrap();
    write.write_all(&line).await.unwrap();
    read.read_line(&mut told).await.unwrap();
    let number = |text: &str, name: &str| {
        let from = text.find(name).unwrap() + name.len();
        text[from..].split(['}', ',']).next().unwrap().to_owned()
    };
    let session = number(&told, "\"session\":");
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < ROUND {
        let acquire = format!(
            "{{\"id\":1,\"method\":\"acquire\",\"params\":{{\"project\":\"bench\",\
             \"session\":{session},\"resource\":\"file:own/{at}\"}}}}\n"
        );
        write.write_all(acquire.as_bytes()).await.unwrap();
        told.clear();
        read.read_line(&mut told).await.unwrap();
        let lock = number(&told, "\"lock\":");
        let release = format!(
            "{{\"id\":2,\"method\":\"release\",\"params\":{{\"project\":\"bench\",\
             \"session\":{session},\"lock\":{lock}}}}}\n"
        );
        write.write_all(release.as_bytes()).await.unwrap();
        told.clear();
        read.read_line(&mut told).await.unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// The median, and between which figures the middle half lies.
fn quarters(figures: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let at = |part: f64| figures[((figures.len() - 1) as f64 * part).round() as usize];
    format!("{:.digits$} ({:.digits$} to {:.digits$})", at(0.5), at(0.25), at(0.75))
}
