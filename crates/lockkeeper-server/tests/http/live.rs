//! A server that lives for one test.

use crate::client::{Client, PATIENCE};
use lockkeeper::{Config, LockManager};
use lockkeeper_server::{
    Server, ServerConfig, StopReport, Stopper,
    http::{HttpConfig, HttpLimits},
};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use tokio::{task::JoinHandle, time::timeout};

pub(crate) struct Live {
    pub(crate) addr: SocketAddr,
    pub(crate) stopper: Stopper,
    run: JoinHandle<StopReport>,
    _folder: tempfile::TempDir,
}

pub(crate) fn local() -> HttpConfig {
    HttpConfig::at("127.0.0.1:0".parse().unwrap())
}

impl Live {
    pub(crate) async fn start() -> Live {
        Live::with(|_, _, _| {}).await
    }

    pub(crate) async fn limited(limits: HttpLimits) -> Live {
        Live::with(|_, _, http| http.limits = limits).await
    }

    pub(crate) async fn with(
        set: impl FnOnce(&mut Config, &mut ServerConfig, &mut HttpConfig),
    ) -> Live {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::at(folder.path().join("locks.db"));
        config.attached_outlive = true;
        let (mut server, mut http) = (ServerConfig::default(), local());
        server.metrics = Some(Arc::new(|| "resource_locks_active 0\n".to_owned()));
        set(&mut config, &mut server, &mut http);
        let manager = LockManager::open_with(config).await.unwrap();
        Live::over(manager, server, http, folder).await
    }

    pub(crate) async fn over(
        manager: LockManager,
        mut config: ServerConfig,
        http: HttpConfig,
        folder: tempfile::TempDir,
    ) -> Live {
        config.http.push(http);
        let server = Server::start(manager, config).await.unwrap();
        let (addr, stopper) = (server.http()[0], server.stopper());
        Live { addr, stopper, run: tokio::spawn(server.run()), _folder: folder }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(self.addr).await
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> StopReport {
        self.stopper.stop();
        self.stopped().await
    }

    pub(crate) async fn stopped(self) -> StopReport {
        timeout(PATIENCE, self.run).await.expect("it stops").unwrap()
    }
}

/// Asks for a view until it is as it should be: what others did may take its time.
pub(crate) async fn until(
    client: &mut Client,
    path: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let asked = async {
        loop {
            let seen = client.get(path).await.json();
            if is_so(&seen) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path} never came to be so"))
}
