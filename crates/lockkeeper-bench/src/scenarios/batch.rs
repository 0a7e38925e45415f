//! Several locks in one request, all or nothing.

use super::{
    heads,
    work::{Batches, other, row},
};
use crate::{
    args::Plan,
    peers::{
        house::{House, POLL},
        postgres::By,
        redis::{Keeps, Waits},
    },
    rounds::{Entry, Race},
    sheet::{Sheet, Unit},
    trouble::Result,
};

const SIZES: [usize; 3] = [2, 8, 32];
const CLIENTS: usize = 16;

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let work = Batches { clients: CLIENTS, window: plan.window };
    let waits = Waits::Polls(POLL);
    let entries = [
        Some(row(Entry::ours("lockkeeper serve"), &SIZES, house.daemon().await?, work)),
        {
            let redis = house.redis_unix(Keeps::EverySecond, waits);
            other(plan, "redis, everysec, a script", &SIZES, redis, work, &[]).await
        },
        {
            let postgres = house.postgres(By::Advisory);
            other(plan, "postgres, advisory, in order", &SIZES, postgres, work, &[]).await
        },
        {
            let postgres = house.postgres(By::Rows(POLL));
            other(plan, "postgres, rows, in order", &SIZES, postgres, work, &[]).await
        },
    ];
    let race = Race {
        scenario: "batch",
        sheets: vec![(
            format!("all of several locks taken, then all given back, by {CLIENTS} clients"),
            Unit::PairsPerSecond,
        )],
        across: "locks at once",
        columns: heads(&SIZES),
        entries: entries.into_iter().flatten().collect(),
    };
    plan.rounds.run(race).await
}
