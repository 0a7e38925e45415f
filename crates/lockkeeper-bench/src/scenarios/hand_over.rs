//! One lock that all want, through a socket.

use super::{
    heads, times,
    work::{Crowd, HandOver, Work, other, row},
};
use crate::{
    args::Plan,
    peers::{
        house::{House, POLL},
        mariadb,
        postgres::By,
        redis::{Keeps, Waits},
    },
    rounds::{Entry, Race},
    sheet::{Bound, Sheet, Target, Unit},
    trouble::Result,
};
use std::time::Duration;

/// How long a patient client of Redis sleeps before it asks again: up to this.
const PATIENT: Duration = Duration::from_millis(100);

/// Who polls hands over so seldom that a shorter look sees nothing.
fn seen(plan: &Plan) -> Duration {
    Duration::from_millis(plan.size(400, 200))
}

/// What is to be reached beside a row: by numbers of sheets.
#[derive(Default)]
struct Targets {
    advisory: Vec<(usize, Target)>,
    polling: Vec<(usize, Target)>,
    etcd: Vec<(usize, Target)>,
}

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let mut sheets = held(plan, house).await?;
    sheets.extend(crowded(plan, house).await?);
    Ok(sheets)
}

/// Each holds for a while.
async fn held(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let columns = plan.size(vec![2, 16, 64], vec![2, 16]);
    let work = HandOver { window: plan.window.max(seen(plan)) };
    let targets = Targets {
        advisory: vec![(0, times(1.0, &columns, 0))],
        polling: vec![(0, times(10.0, &columns, 0))],
        etcd: vec![],
    };
    let race = Race {
        scenario: "hand-over",
        sheets: vec![
            ("from a release to the next one inside, median; held for 2 ms".into(), Unit::Micros),
            ("the same: 99 of 100 are quicker".into(), Unit::Micros),
            ("from asking to having: 99 of 100 are quicker".into(), Unit::Millis),
        ],
        across: "clients",
        columns: heads(&columns),
        entries: rows(plan, house, &columns, work, targets, None).await?,
    };
    plan.rounds.run(race).await
}

/// Nobody holds for longer than it takes to give it back.
async fn crowded(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let columns = plan.size(vec![16, 64], vec![16]);
    let work = Crowd { window: plan.window.max(seen(plan)) };
    let targets = Targets { etcd: vec![(2, times(10.0, &columns, 0))], ..Targets::default() };
    let fair = Target { bound: Bound::AtMost(1.5), columns: vec![] };
    let race = Race {
        scenario: "hand-over",
        sheets: vec![
            ("given back at once: all together".into(), Unit::PairsPerSecond),
            ("given back at once: who had it most, over who had it least".into(), Unit::Share),
            ("given back at once: from asking to having, median".into(), Unit::Millis),
            ("given back at once: from asking to having, 99 of 100".into(), Unit::Millis),
        ],
        across: "clients",
        columns: heads(&columns),
        entries: rows(plan, house, &columns, work, targets, Some((1, fair))).await?,
    };
    plan.rounds.run(race).await
}

async fn rows(
    plan: &Plan,
    house: &House,
    columns: &[usize],
    work: impl Work,
    targets: Targets,
    own: Option<(usize, Target)>,
) -> Result<Vec<Entry>> {
    let mut ours = row(Entry::ours("lockkeeper serve"), columns, house.daemon().await?, work);
    if let Some((sheet, target)) = own {
        ours = ours.reaching(sheet, target);
    }
    let everysec = |waits| house.redis_unix(Keeps::EverySecond, waits);
    let (quick, patient) = (Waits::Polls(POLL), Waits::Polls(PATIENT));
    let polling = &targets.polling;
    let others = [
        other(plan, "redis, polls every 10 ms", columns, everysec(quick), work, polling).await,
        other(plan, "redis, polls every 100 ms", columns, everysec(patient), work, polling).await,
        other(plan, "redis, BLPOP", columns, everysec(Waits::Blocks), work, &[]).await,
        {
            let postgres = house.postgres(By::Advisory);
            other(plan, "postgres, advisory", columns, postgres, work, &targets.advisory).await
        },
        {
            let mariadb = house.mariadb(mariadb::By::GetLock);
            other(plan, "mariadb, GET_LOCK", columns, mariadb, work, &[]).await
        },
        other(plan, "etcd, Lock", columns, house.etcd(), work, &targets.etcd).await,
    ];
    Ok([Some(ours)].into_iter().chain(others).flatten().collect())
}
