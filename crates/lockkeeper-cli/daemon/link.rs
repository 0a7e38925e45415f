//! Finds the daemon of a store: at its socket, or where its owner says it can be reached.

use super::start;
use crate::{
    exit::Exit,
    output,
    places::{Here, runtime},
    trouble::Trouble,
};
use lockkeeper::{
    LockManager,
    remote::{Address, Client, Connect, ConnectError, Revive},
    store,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The word for a daemon that is of another version and speaks otherwise.
pub(super) const OTHER_PROTOCOL: &str = "other_version";

/// The daemon, if one runs.
pub(crate) async fn running(here: &Here) -> Result<Option<Client>, Trouble> {
    if let Some(client) = at(&here.socket).await? {
        return Ok(Some(client));
    }
    // Started with another socket, it has noted which one beside the store.
    match noted(here) {
        Some(socket) if socket != here.socket => at(&socket).await,
        _ => Ok(None),
    }
}

/// The daemon; if none runs, one is started.
pub(crate) async fn reach(here: &Here) -> Result<Client, Trouble> {
    match running(here).await {
        Ok(Some(client)) if start::is_older(&client.hello().version) => {
            drop(client);
            start::hand_over(here).await
        }
        Ok(Some(client)) => {
            remark_newer(here, &client.hello().version);
            Ok(client)
        }
        Ok(None) => start::start(here).await,
        Err(trouble) if trouble.code == OTHER_PROTOCOL => start::start(here).await,
        Err(trouble) => Err(trouble),
    }
}

/// The locks of the daemon as the library has them: kept across a daemon that dies, which is
/// started again then. The locks of a connection that is gone are free after `linger`.
pub(crate) async fn manager(here: &Here, linger: Duration) -> Result<LockManager, Trouble> {
    /// How often a daemon may be gone again before it was spoken to.
    const AGAIN_MAX: usize = 8;
    let again = here.clone();
    let revive: Revive = Arc::new(move || {
        let here = again.clone();
        // What kept it from being started is told by whoever finds none.
        Box::pin(async move { drop(reach(&here).await) })
    });
    let mut last = None;
    for _ in 0..AGAIN_MAX {
        // Nearly always it runs where it should. Otherwise that is put right first.
        let sockets = [Some(here.socket.clone()), last.is_some().then(|| noted(here)).flatten()];
        for socket in sockets.into_iter().flatten() {
            if let Some(folder) = socket.parent() {
                runtime::check_folder(folder)?;
            }
            let connect = Connect { linger, revive: Some(revive.clone()), ..Connect::to(socket) };
            match LockManager::connect_with(connect).await {
                Ok(manager) => {
                    let version = manager.daemon().map(|hello| hello.version).unwrap_or_default();
                    if !start::is_older(&version) {
                        remark_newer(here, &version);
                        return Ok(manager);
                    }
                }
                Err(error @ ConnectError::OtherProtocol { .. }) => last = Some(error),
                Err(error) if error.is_nobody_there() || is_going(&error) => last = Some(error),
                Err(error) => return Err(unconnected(&error)),
            }
        }
        reach(here).await?;
    }
    Err(last.map_or_else(
        || Trouble::new(Exit::Unavailable, "unavailable", "the daemon does not stay"),
        |error| unconnected(&error),
    ))
}

/// A newer daemon that speaks as we do is as good as ours.
fn remark_newer(here: &Here, version: &str) {
    if version != start::VERSION && !here.json {
        output::remark(&format!(
            "note: the daemon is version {version}, newer than this program, {}",
            start::VERSION
        ));
    }
}

/// Where the owner of the store says it listens.
fn noted(here: &Here) -> Option<PathBuf> {
    let card = store::owner(&here.store).ok().flatten()?;
    card.reach.map(PathBuf::from).filter(|path| path.is_absolute())
}

async fn at(socket: &Path) -> Result<Option<Client>, Trouble> {
    if let Some(folder) = socket.parent() {
        runtime::check_folder(folder)?;
    }
    match Client::connect(&Address::Unix(socket.to_path_buf())).await {
        Ok(client) => Ok(Some(client)),
        Err(error) if error.is_nobody_there() || is_going(&error) => Ok(None),
        Err(error) => Err(unconnected(&error)),
    }
}

/// Whether it is a daemon that ends, or one that was killed before it could say hello.
fn is_going(error: &ConnectError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        ConnectError::Said { error, .. } => {
            error.data.as_ref().is_some_and(|data| data.code == STOPPING)
        }
        ConnectError::Io { source, .. } => {
            matches!(source.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

/// The word of a daemon that ends.
pub(super) const STOPPING: &str = "stopping";

/// Why there is no connection.
pub(crate) fn unconnected(error: &ConnectError) -> Trouble {
    let (exit, code) = match error {
        ConnectError::NobodyThere { .. } => (Exit::Unavailable, "no_daemon"),
        ConnectError::Refused { .. } => (Exit::NotPermitted, "not_permitted"),
        ConnectError::ForeignDaemon { .. } => (Exit::NotPermitted, "foreign_daemon"),
        ConnectError::OtherProtocol { .. } => (Exit::Unavailable, OTHER_PROTOCOL),
        _ => (Exit::Unavailable, "unavailable"),
    };
    let mut trouble = Trouble::new(exit, code, error.to_string());
    trouble.legacy_code = Some("E306");
    trouble.retryable = exit == Exit::Unavailable;
    if let ConnectError::OtherProtocol { version, .. } = error {
        trouble = trouble.with("daemon_version", version.as_str());
    }
    trouble.next("`lockkeeper doctor` looks for the cause")
}
