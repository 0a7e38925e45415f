//! Own locks, taken and given back through a socket.

use super::{
    heads, times,
    work::{Uncontended, other, row},
};
use crate::{
    args::Plan,
    peers::{
        daemon::Daemon,
        house::{House, POLL},
        library::Library,
        mariadb,
        postgres::By,
        redis::{Keeps, Waits},
    },
    rounds::{Entry, Race},
    sheet::{Sheet, Unit},
    trouble::Result,
};
use std::sync::Arc;

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let (columns, work) = (&plan.clients, Uncontended { window: plan.window });
    let daemon = house.daemon().await?;
    let mut entries = vec![row(Entry::ours("lockkeeper serve"), columns, daemon.clone(), work)];
    let library = Arc::new(Library::connected(&daemon.socket()).await?);
    let shared = Entry::ours("lockkeeper serve, library, one connection for all");
    entries.push(row(shared, columns, library, work));
    for (name, durability) in [("Power", "power"), ("in memory", "memory")] {
        let entry = Entry::ours(format!("lockkeeper, {name}"));
        entries.push(row(entry, columns, Daemon::with(durability).await?, work));
    }
    let polls = Waits::Polls(POLL);
    let reach = |least| [(0, times(least, columns, 16))];
    let (everysec, always) = (Keeps::EverySecond, Keeps::Always);
    let rows = By::Rows(POLL);
    entries.extend(
        [
            {
                let redis = house.redis_unix(Keeps::Nothing, polls);
                other(plan, "redis, in memory", columns, redis, work, &[]).await
            },
            {
                let redis = house.redis_unix(everysec, polls);
                other(plan, "redis, everysec", columns, redis, work, &reach(1.0)).await
            },
            {
                let redis = house.redis_tcp(everysec, polls);
                other(plan, "redis, everysec, by TCP", columns, redis, work, &reach(1.0)).await
            },
            {
                let redis = house.redis_unix(always, polls);
                other(plan, "redis, always", columns, redis, work, &[]).await
            },
            {
                let postgres = house.postgres(By::Advisory);
                other(plan, "postgres, advisory", columns, postgres, work, &[]).await
            },
            {
                let postgres = house.postgres(rows);
                other(plan, "postgres, rows", columns, postgres, work, &reach(3.0)).await
            },
            {
                let mariadb = house.mariadb(mariadb::By::GetLock);
                other(plan, "mariadb, GET_LOCK", columns, mariadb, work, &[]).await
            },
            other(plan, "etcd, Lock, by TCP", columns, house.etcd(), work, &reach(10.0)).await,
        ]
        .into_iter()
        .flatten(),
    );
    let race = Race {
        scenario: "socket",
        sheets: vec![("uncontended, each client its own lock".to_owned(), Unit::PairsPerSecond)],
        across: "clients",
        columns: heads(columns),
        entries,
    };
    plan.rounds.run(race).await
}
