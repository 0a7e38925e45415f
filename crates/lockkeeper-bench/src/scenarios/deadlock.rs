//! From the request that closes a ring to the first word of a deadlock.

use super::{
    heads, times,
    work::{Verdict, fresh, other, row},
};
use crate::{
    args::Plan,
    peers::{house::House, library::Library, mariadb, postgres},
    rounds::{Entry, Race},
    sheet::{Sheet, Unit},
    trouble::Result,
};
use lockkeeper::Durability;

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let columns = plan.size(vec![2, 8, 64], vec![2, 8]);
    let work = Verdict { times: plan.size(5, 2) };
    // It looks for a deadlock only when somebody has waited for a second.
    let once = Verdict { times: 1 };
    let reach = |least| [(0, times(least, &columns, 0))];
    let library = || Library::durable(Durability::Process);
    let entries = [
        Some(row(Entry::ours("lockkeeper serve"), &columns, house.daemon().await?, work)),
        Some(fresh(Entry::ours("LockManager, embedded, durable"), &columns, library, work)),
        {
            let mariadb = house.mariadb(mariadb::By::Rows);
            other(plan, "mariadb, InnoDB rows", &columns, mariadb, work, &reach(1.0)).await
        },
        {
            let mariadb = house.mariadb(mariadb::By::GetLock);
            other(plan, "mariadb, GET_LOCK", &columns, mariadb, work, &[]).await
        },
        {
            let postgres = house.postgres(postgres::By::Advisory);
            other(plan, "postgres, advisory", &columns, postgres, once, &reach(1000.0)).await
        },
    ];
    let race = Race {
        scenario: "deadlock",
        sheets: vec![("from closing a ring to the word of it".to_owned(), Unit::Micros)],
        across: "agents in the ring",
        columns: heads(&columns),
        entries: entries.into_iter().flatten().collect(),
    };
    plan.rounds.run(race).await
}
