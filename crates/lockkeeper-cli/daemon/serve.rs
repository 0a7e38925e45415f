//! The verb `serve`: being the daemon.
//!
//! In the background it starts in two steps. The first one leaves the terminal and what it was
//! called from, and marks every file that was inherited to be closed; then the program is executed
//! anew. So a daemon that was started from a script keeps nothing of the script open, be it a pipe
//! somebody reads to its end, or a lock of `flock`.

use super::{log::Log, start::beside};
use crate::{
    args::daemon::Serve,
    exit::Exit,
    output::{self, words},
    places::Here,
    trouble::Trouble,
};
use lockkeeper::{Config, LockManager, Prometheus, StoreError};
use lockkeeper_server::{
    ServeError, Server, ServerConfig, StopReason, TcpConfig, Token, http::HttpConfig,
};
use rustix::{fs::Mode, process, stdio};
use serde_json::{Value, json};
use std::{
    env,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    field::MakeExt,
    filter::Targets,
    fmt::{MakeWriter, format::debug_fn},
    layer::SubscriberExt,
};

/// What is logged, unless `LOCKKEEPER_LOG` says otherwise.
const LOGGED: &str = "info,kameo=warn";

/// The first step into the background; it ends by executing the second one.
pub(crate) fn leave() -> Trouble {
    // The parent has no group of its own for us, so we lead none and may have a session.
    let _ = process::setsid();
    process::umask(Mode::from_bits_truncate(0o077));
    close_fds::set_fds_cloexec(3, &[]);
    let mut args: Vec<_> = env::args_os().skip(1).collect();
    for arg in &mut args {
        if arg == "begin" {
            *arg = "go-on".into();
        }
    }
    let failed = match env::current_exe() {
        Ok(program) => Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    let trouble = Trouble::new(Exit::Unavailable, "no_daemon", failed.to_string());
    ready(&trouble.json());
    trouble
}

/// Tells the one who waits for us, and closes the pipe: whatever is written later goes nowhere.
fn ready(said: &Value) {
    let _ = output::say(&mut io::stdout().lock(), &said.to_string());
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        let _ = stdio::dup2_stdout(nowhere);
    }
}

/// Serves until it is asked to end, or nobody needs it.
pub(crate) fn serve(here: &Here, wanted: &Serve) -> Result<Exit, Trouble> {
    let is_hidden = wanted.background.is_some();
    match is_hidden {
        true => match Log::beside(&here.store) {
            Ok(log) => keep_a_log(log, false),
            Err(error) => {
                let what = format!("cannot write a log beside the store: {error}");
                let trouble = Trouble::new(Exit::Store, "store", what);
                ready(&trouble.json());
                return Err(trouble);
            }
        },
        false => keep_a_log(io::stderr, output::style::Style::of_stderr().colours),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Trouble::new(Exit::Unavailable, "no_runtime", format!("no threads to be had: {error}"))
    })?;
    runtime.block_on(async {
        let server = match begin(here, wanted).await {
            Ok(server) => server,
            Err(trouble) => {
                if is_hidden {
                    tracing::error!("{}", trouble.message);
                    ready(&trouble.json());
                }
                return Err(trouble);
            }
        };
        let said = serving(here, &server);
        if is_hidden {
            ready(&said);
        } else if here.json {
            output::say(&mut io::stdout().lock(), &said.to_string())
                .map_err(|error| Trouble::unwritten(&error))?;
        } else {
            output::remark(&format!(
                "serving {} at {}; Ctrl-C ends it, locks are kept",
                here.store.display(),
                here.socket.display()
            ));
        }
        end_on_signals(server.stopper())?;
        let report = server.run().await;
        let why = match report.reason {
            StopReason::Idle => "nobody needed it",
            _ => "it was asked to",
        };
        tracing::info!("the daemon ends: {why}");
        Ok(Exit::Done)
    })
}

/// What a program is told that waits for the daemon.
fn serving(here: &Here, server: &Server) -> Value {
    let texts = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "ok": true,
        "pid": std::process::id(),
        "store": here.store.display().to_string(),
        "socket": here.socket.display().to_string(),
        "tcp": texts(server.tcp()),
        "http": texts(server.http()),
    })
}

fn keep_a_log(to: impl for<'a> MakeWriter<'a> + Send + Sync + 'static, colours: bool) {
    let wanted = env::var("LOCKKEEPER_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = wanted.or_else(|| LOGGED.parse().ok()).unwrap_or_default();
    // What others named is in it: no name may begin a line of its own, or write over a terminal.
    let fields = debug_fn(|to, field, value| match (field.name(), format!("{value:?}")) {
        ("message", said) => write!(to, "{}", words::plain(&said)),
        (name, said) => write!(to, "{name}={}", words::plain(&said)),
    });
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(to)
        .with_ansi(colours);
    let subscriber = tracing_subscriber::registry().with(targets).with(layer);
    // The first one to say where the log goes decides; nobody does before this.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Opens the store and the doors.
async fn begin(here: &Here, wanted: &Serve) -> Result<Server, Trouble> {
    let mut config = config(here, wanted)?;
    config.limits.connections = allow_many_connections();
    if let Some(folder) = here.store.parent() {
        crate::places::runtime::make_private(folder).map_err(|error| {
            let what = format!("the folder {} cannot be made: {error}", folder.display());
            Trouble::new(Exit::Store, "store", what)
        })?;
    }
    let prometheus = Prometheus::install().ok();
    let manager = LockManager::open_with(Config {
        attached_outlive: true,
        // A burst must not make the daemon look everything up again.
        events_capacity: 16 * 1024,
        reach: Some(here.socket.display().to_string()),
        ..Config::at(&here.store)
    });
    let manager = manager.await.map_err(|error| unopened(here, &error))?;
    let metrics =
        prometheus.map(|page| -> lockkeeper_server::Metrics { Arc::new(move || page.render()) });
    let started = Server::start(manager, ServerConfig { metrics, ..config }).await;
    started.map_err(|error| unserved(here, &error))
}

/// So many connections there may be, if the system has room for them.
const CONNECTIONS_MAX: u64 = 32_768;

/// Every connection is an open file; what a shell allows is often fewer than the system would.
/// Says how many there can be: a quarter of the files is for everything else.
fn allow_many_connections() -> usize {
    let mut files = process::getrlimit(process::Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = process::setrlimit(process::Resource::Nofile, files) {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
    let files = process::getrlimit(process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files / 4).saturating_mul(3).clamp(64, CONNECTIONS_MAX)).unwrap_or(64)
}

fn config(here: &Here, wanted: &Serve) -> Result<ServerConfig, Trouble> {
    let token = wanted.token_file.as_deref().map(read_token).transpose()?;
    let http = wanted.http.map(|addr| HttpConfig { token: token.clone(), ..HttpConfig::at(addr) });
    let tcp = wanted.tcp.map(|addr| TcpConfig { addr, token });
    Ok(ServerConfig {
        socket: Some(here.socket.clone()),
        tcp: tcp.into_iter().collect(),
        http: http.into_iter().collect(),
        idle_exit: wanted.idle_exit,
        ..ServerConfig::default()
    })
}

/// Reads the token, from a file that nobody but its owner can read or change.
fn read_token(path: &Path) -> Result<Token, Trouble> {
    let wrong = |error: String| {
        let what = format!("the token in {} cannot be used: {error}", path.display());
        Trouble::new(Exit::Config, "bad_token", what)
    };
    let mut file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let found = file.metadata().map_err(|error| wrong(error.to_string()))?;
    // A pipe is read once, by us.
    if found.is_file() && found.mode() & 0o077 != 0 {
        let open = wrong("other users can read or change it".to_owned());
        return Err(open.next(format!(
            "chmod 600 {}, and put another token in: this one may be known",
            path.display()
        )));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    Token::new(&text).map_err(|error| wrong(error.to_string()))
}

fn unopened(here: &Here, error: &StoreError) -> Trouble {
    let trouble = Trouble::store(error);
    match error {
        StoreError::Owned { .. } => trouble.next(format!(
            "end that process, or use another store; its card is {}",
            beside(&here.store, ".owner").display()
        )),
        _ => trouble,
    }
}

fn unserved(here: &Here, error: &ServeError) -> Trouble {
    let (exit, code) = match error {
        ServeError::InUse { .. } => (Exit::Unavailable, "socket_in_use"),
        ServeError::Unavailable(_) => (Exit::Store, "store"),
        ServeError::PathTooLong { .. } => (Exit::Config, "socket_path_too_long"),
        _ => (Exit::Config, "bad_place"),
    };
    let trouble = Trouble::new(exit, code, error.to_string());
    match exit {
        Exit::Config => trouble.next(format!(
            "choose where it listens with --socket or {}; now it is {}",
            crate::places::SOCKET,
            here.socket.display()
        )),
        _ => trouble,
    }
}

/// The first signal lets it end in order, a second one at once.
fn end_on_signals(stopper: lockkeeper_server::Stopper) -> Result<(), Trouble> {
    for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)] {
        let mut heard = signal(kind).map_err(|error| {
            let what = format!("the system does not let signals be heard: {error}");
            Trouble::new(Exit::Unavailable, "no_signals", what)
        })?;
        let stopper = stopper.clone();
        tokio::spawn(async move {
            let mut is_second = false;
            while heard.recv().await.is_some() {
                if is_second {
                    std::process::exit(128 + number);
                }
                is_second = true;
                stopper.stop();
            }
        });
    }
    Ok(())
}
