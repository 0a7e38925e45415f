//! The servers of a run: started when somebody first wants them, ended with the run.

use super::{
    daemon::Daemon,
    etcd::Etcd,
    history::History,
    mariadb::{self, Mariadb},
    postgres::{self, Postgres},
    redis::{self, Keeps, Redis, Waits},
    server::Missing,
};
use crate::trouble::Result;
use std::{result, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// One who was started, or why not.
type Started<T> = OnceCell<result::Result<Arc<T>, Missing>>;

/// All of them.
#[derive(Default)]
pub(crate) struct House {
    daemon: OnceCell<Arc<Daemon>>,
    redis_nothing: Started<Redis>,
    redis_everysec: Started<Redis>,
    redis_always: Started<Redis>,
    postgres: Started<Postgres>,
    mariadb: Started<Mariadb>,
    etcd: Started<Etcd>,
    new_history: OnceCell<Arc<History>>,
    long_history: OnceCell<Arc<History>>,
}

/// How long one sleeps who asks again: up to this.
pub(crate) const POLL: Duration = Duration::from_millis(10);

impl House {
    /// Ours as it is shipped; without it there is nothing to compare.
    pub(crate) async fn daemon(&self) -> Result<Arc<Daemon>> {
        self.daemon.get_or_try_init(Daemon::start).await.cloned()
    }

    /// A store with so many rows that are over, or none; the first one who asks says how many.
    pub(crate) async fn history(&self, rows: usize) -> Result<Arc<History>> {
        let write = || async { Ok(Arc::new(History::write(rows).await?)) };
        let cell = if rows == 0 { &self.new_history } else { &self.long_history };
        cell.get_or_try_init(write).await.cloned()
    }

    pub(crate) async fn redis(&self, keeps: Keeps) -> result::Result<Arc<Redis>, Missing> {
        let cell = match keeps {
            Keeps::Nothing => &self.redis_nothing,
            Keeps::EverySecond => &self.redis_everysec,
            Keeps::Always => &self.redis_always,
        };
        cell.get_or_init(|| Redis::start(keeps)).await.clone()
    }

    /// Redis through its socket.
    pub(crate) async fn redis_unix(
        &self,
        keeps: Keeps,
        waits: Waits,
    ) -> result::Result<redis::Door, Missing> {
        Ok(redis::Door::unix(&self.redis(keeps).await?, waits))
    }

    /// Redis through loopback.
    pub(crate) async fn redis_tcp(
        &self,
        keeps: Keeps,
        waits: Waits,
    ) -> result::Result<redis::Door, Missing> {
        Ok(redis::Door::tcp(&self.redis(keeps).await?, waits))
    }

    pub(crate) async fn postgres(
        &self,
        by: postgres::By,
    ) -> result::Result<postgres::Door, Missing> {
        let postgres = self.postgres.get_or_init(Postgres::start).await.clone()?;
        Ok(postgres::Door { postgres, by })
    }

    pub(crate) async fn mariadb(&self, by: mariadb::By) -> result::Result<mariadb::Door, Missing> {
        let mariadb = self.mariadb.get_or_init(Mariadb::start).await.clone()?;
        Ok(mariadb::Door { mariadb, by })
    }

    pub(crate) async fn etcd(&self) -> result::Result<Arc<Etcd>, Missing> {
        self.etcd.get_or_init(Etcd::start).await.clone()
    }
}
