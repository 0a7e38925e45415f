//! The doors: listeners that let connections in, and the end of all of it.

use crate::{
    ServeError, ServerConfig, TcpConfig,
    connection::{Gate, serve, turn_away},
    house::{House, Phase},
    http,
    idle::idle,
    refuse,
    socket::{Bound, bind},
    stream::Stream,
};
use lockkeeper::{LockManager, ShutdownReport, wire::ErrorObject};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

/// How many at once are told why they are not served; others are not told.
const TURNED_AWAY: usize = 64;

/// How long sessions that are about to end hold up the end of the server.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A server that serves. Dropped, it is gone without a word, as if its process had died.
#[derive(Debug)]
pub struct Server {
    house: Arc<House>,
    bound: Option<Bound>,
    tcp: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    doors: JoinSet<()>,
}

/// Why a server has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody wanted it.
    Asked,
    /// Nobody needed it.
    Idle,
}

/// How a server has ended.
#[derive(Debug)]
pub struct StopReport {
    /// Why.
    pub reason: StopReason,
    /// What became of the locks.
    pub shutdown: ShutdownReport,
}

/// Ends a server from anywhere.
#[derive(Clone, Debug)]
pub struct Stopper {
    house: Arc<House>,
}

impl Stopper {
    /// Lets [`Server::run`] end in order.
    pub fn stop(&self) {
        self.house.ask_to_stop();
    }
}

impl Server {
    /// Serves a manager's projects, those of its store at once.
    ///
    /// The manager should have been opened with [`lockkeeper::Config::attached_outlive`]: then
    /// attached sessions survive a restart of the daemon, and those that no client takes up again
    /// within [`ServerConfig::reattach_grace`] end. Every attached session that is found in a
    /// project when it is taken over counts as one of these.
    pub async fn start(manager: LockManager, config: ServerConfig) -> Result<Server, ServeError> {
        if config.socket.is_none() && config.tcp.is_empty() && config.http.is_empty() {
            return Err(ServeError::Nowhere);
        }
        config.tcp.iter().try_for_each(TcpConfig::check)?;
        let unix = config.socket.as_deref().map(bind).transpose()?;
        let mut listeners = Vec::new();
        for tcp in &config.tcp {
            let listener = TcpListener::bind(tcp.addr).await;
            let listener = listener.map_err(ServeError::io(format!("listen at {}", tcp.addr)))?;
            let addr = listener.local_addr().map_err(ServeError::io("learn an address"))?;
            listeners.push((listener, addr, tcp.token.clone()));
        }
        let mut pages = Vec::new();
        for one in &config.http {
            pages.push(http::bind(one.clone()).await?);
        }
        let known = manager.take_over_all().await.map_err(ServeError::Unavailable)?;
        let house = House::start(manager, config);
        for name in known {
            if house.room(&name).await.is_err() {
                tokio::spawn(take_over_later(Arc::downgrade(&house), name));
            }
        }
        let tcp: Vec<SocketAddr> = listeners.iter().map(|(_, addr, _)| *addr).collect();
        let http: Vec<SocketAddr> = pages.iter().map(|bound| bound.addr).collect();
        *house.listens.lock().unwrap_or_else(PoisonError::into_inner) = tcp
            .iter()
            .map(|addr| format!("tcp {addr}"))
            .chain(http.iter().map(|addr| format!("http {addr}")))
            .collect();
        let mut doors = JoinSet::new();
        let bound = match unix {
            Some((listener, bound)) => {
                let listener = UnixListener::from_std(listener)
                    .map_err(ServeError::io("listen with the runtime"))?;
                doors.spawn(unix_door(house.clone(), listener));
                Some(bound)
            }
            None => None,
        };
        for (listener, _, token) in listeners {
            doors.spawn(tcp_door(house.clone(), listener, token));
        }
        for bound in pages {
            doors.spawn(bound.serve(house.clone()));
        }
        Ok(Server { house, bound, tcp, http, doors })
    }

    /// Its socket.
    pub fn socket(&self) -> Option<&Path> {
        self.bound.as_ref().map(Bound::path)
    }

    /// Where it listens on the network.
    pub fn tcp(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Where it listens for HTTP.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// What other doors answer requests with, see [`crate::dispatch`].
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Ends it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper { house: self.house.clone() }
    }

    /// Serves until somebody wants it to end, or nobody needs it; then ends in order.
    pub async fn run(self) -> StopReport {
        let house = &self.house;
        let idle = async {
            match house.config.idle_exit {
                Some(span) => idle(house, span).await,
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            () = house.asked_to_stop.notified() => StopReason::Asked,
            () = idle => StopReason::Idle,
        };
        self.stop(reason).await
    }

    /// No new connections; what is short is answered, what waits is told to come back; then the
    /// store is closed, and the socket goes last, so that whoever finds none can open the store.
    async fn stop(mut self, reason: StopReason) -> StopReport {
        tracing::info!(?reason, "the server stops");
        self.house.go_on_to(Phase::Stopping);
        while self.doors.join_next().await.is_some() {}
        self.house.deserted().await;
        if tokio::time::timeout(ENDS_WITHIN, self.house.ends.done()).await.is_err() {
            tracing::warn!("sessions of clients that are gone are left to the next server");
        }
        let shutdown = self.house.manager.clone().shutdown().await;
        if let Some(bound) = self.bound.take() {
            bound.remove();
        }
        StopReport { reason, shutdown }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.house.go_on_to(Phase::Dead);
    }
}

/// A project that cannot be taken over now is taken over later, also if nobody asks for it: its
/// sessions wait for their clients, or for their end.
async fn take_over_later(house: std::sync::Weak<House>, name: Arc<str>) {
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        let Some(house) = house.upgrade() else { return };
        if house.phase() != Phase::Serving || house.room(&name).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Lets connections in until the server stops.
macro_rules! door {
    ($house:expr, $listener:expr, |$stream:ident| $judge:expr) => {{
        let house: Arc<House> = $house;
        let told = Arc::new(Semaphore::new(TURNED_AWAY));
        loop {
            let accepted = tokio::select! {
                biased;
                () = house.stopping() => return,
                accepted = $listener.accept() => accepted,
            };
            let $stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    wait_after(&error).await;
                    continue;
                }
            };
            let (stream, judged): (Stream, Result<Gate, ErrorObject>) = $judge;
            match judged.and_then(|gate| has_room(&house).map(|()| gate)) {
                Ok(gate) => {
                    let post = house.post.clone();
                    tokio::spawn(post.reach(serve(house.clone(), stream, gate)));
                }
                Err(error) => {
                    if let Ok(permit) = told.clone().try_acquire_owned() {
                        tokio::spawn(async move {
                            turn_away(stream, error).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
    }};
}

async fn unix_door(house: Arc<House>, listener: UnixListener) {
    let uids = house.config.uids.clone();
    door!(house, listener, |stream| {
        let judged = may_enter(&stream, &uids).map(|()| Gate::Open);
        (Stream::Unix(stream), judged)
    })
}

async fn tcp_door(house: Arc<House>, listener: TcpListener, token: Option<crate::Token>) {
    door!(house, listener, |stream| {
        // Answers are short, and somebody waits for each.
        let _ = stream.set_nodelay(true);
        (Stream::Tcp(stream), Ok(Gate::Hello(token.clone())))
    })
}

/// Whether the user at the other end may ask for anything.
fn may_enter(stream: &UnixStream, uids: &[u32]) -> Result<(), ErrorObject> {
    match stream.peer_cred() {
        Ok(who) if uids.contains(&who.uid()) => Ok(()),
        Ok(who) => {
            tracing::warn!(uid = who.uid(), "a user who may not enter was turned away");
            let error =
                format!("user {} may not use this daemon: start one of your own", who.uid());
            Err(refuse::forbidden(error))
        }
        Err(error) => Err(refuse::forbidden(format!("nobody knows who you are: {error}"))),
    }
}

fn has_room(house: &House) -> Result<(), ErrorObject> {
    let max = house.config.limits.connections;
    match house.connections() < max {
        true => Ok(()),
        false => Err(refuse::limit(format!("the daemon has {max} connections, as many as it may"))),
    }
}

/// A connection that cannot be accepted stays where it is; asking for it without a pause would
/// only burn time.
async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "a connection cannot be accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
