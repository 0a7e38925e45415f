//! What is stored, read back: facts one by one, and a whole journal.

use crate::{
    life::{Life, config},
    wire::same_again,
};
use lockkeeper_core::{
    Command, Effects, EndCause, EndSession, Epoch, Fact, LockTable, Record, Reign, Resume,
    Timestamp,
};
use lockkeeper_store::{AuditFilter, AuditRow};
use std::time::Duration;

/// How many records of a journal are looked at: enough to do anything, few enough to be quick.
const RECORDS_MAX: usize = 200;

/// A fact, a row, a filter.
pub(crate) fn rows(bytes: &[u8]) {
    same_again::<Fact>(bytes);
    same_again::<Record>(bytes);
    same_again::<AuditRow>(bytes);
    same_again::<AuditFilter>(bytes);
}

/// Records, one a line. Whatever they say, `replay` is total, and so is everything after it; and
/// when everybody is gone nothing is left.
pub(crate) fn journal(bytes: &[u8]) {
    let lines = bytes.split(|&byte| byte == b'\n');
    let records: Vec<Record> =
        lines.filter_map(|line| serde_json::from_slice(line).ok()).take(RECORDS_MAX).collect();
    if records.is_empty() {
        return;
    }
    let rebuilt = || {
        let reign = Reign { epoch: Epoch::new(5), id_seed: 3, last_event: 0 };
        let mut table = LockTable::new(config(), reign);
        records.iter().for_each(|record| table.replay(record));
        table
    };
    let (mut table, mut twin) = (rebuilt(), rebuilt());
    let latest = records.iter().map(|record| record.at.0).max().unwrap_or(0);
    let mut play = |now: Timestamp, command: Command| {
        let (one, other) = (table.apply(now, command.clone()), twin.apply(now, command));
        assert_eq!(one.records(), other.records(), "I20: the same journal, another turn");
        look(&table, &one);
        table.next_deadline()
    };
    let mut next = play(Timestamp(latest), Resume { orphaned: latest % 2 == 0 }.into());
    for _ in 0..40 {
        let Some(at) = next else { break };
        next = play(at, Command::Tick);
    }
    let sessions: Vec<_> = rebuilt().sessions().iter().map(|one| one.session).collect();
    for session in sessions {
        play(Timestamp(latest), EndSession { session, cause: EndCause::Closed }.into());
    }
    let stats = table.stats();
    assert_eq!((stats.sessions, stats.holds, stats.tickets), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.graph_edges, stats.declared_waits, stats.remembered), (0, 0, 0), "{stats:?}");
    assert_eq!(stats.deadlines, 0, "{stats:?}");
}

/// Every view can be had, and what was recorded can be stored.
fn look(table: &LockTable, turn: &Effects) {
    let now = Timestamp(crate::life::START);
    let graph = table.wait_graph();
    let _ = (graph.to_mermaid(), table.contention(now), table.stale(now, Duration::ZERO));
    for resource in table.resources() {
        let _ = table.inspect(&resource);
    }
    for record in turn.records() {
        let stored = serde_json::to_vec(record).expect("a record is JSON");
        let read = serde_json::from_slice::<Record>(&stored);
        assert_eq!(read.ok().as_ref(), Some(record), "what was recorded is read back");
    }
}

fn records() -> Vec<Record> {
    let life = Life::lived(Reign::first(7));
    life.turns.iter().flat_map(|turn| turn.records().to_vec()).collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let mut seeds = Vec::new();
    for record in records() {
        let kind = std::mem::discriminant(&record.fact);
        if !seen.contains(&kind) {
            seen.push(kind);
            seeds.extend(serde_json::to_vec(&record.fact).ok());
        }
    }
    seeds
}

pub(crate) fn journal_seeds() -> Vec<Vec<u8>> {
    let lines: Vec<String> =
        records().iter().filter_map(|record| serde_json::to_string(record).ok()).collect();
    let whole = lines.join("\n").into_bytes();
    let some = |from: usize| lines.iter().skip(from).take(9).cloned().collect::<Vec<_>>();
    let parts = (0..lines.len()).step_by(9).map(|from| {
        let mut part: Vec<String> = lines.iter().take(3).cloned().collect();
        part.extend(some(from));
        part.join("\n").into_bytes()
    });
    parts.chain([whole]).collect()
}
